"""Files that hold how far an errand has come in the books, so that it continues there after a restart."""

from __future__ import annotations

import json
from pathlib import Path

from fusion.files.atomic import replace_file


def read_position(path: Path, newest: int) -> int:
    """Number of the last entry that was worked off; 0 where it is not known, since working it off twice is harmless.

    Args:
        path: the file, which may be missing or damaged.
        newest: number of the newest entry; a position beyond it is of other books than these.
    """
    try:
        seq = int(json.loads(path.read_text(encoding="utf-8"))["seq"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return seq if seq <= newest else 0


def keep_position(path: Path, seq: int, *, durable: bool = True) -> None:
    """Note the number of the last entry that was worked off. durable: as for `replace_file`."""
    replace_file(path, json.dumps({"seq": seq}) + "\n", private=True, durable=durable)
