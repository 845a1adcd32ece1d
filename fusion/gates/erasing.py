"""Erases a person from the files of a store's folder: whatever names them by account or pseudonym.

The vault, profiles and faces erase their own; see `fusion.gates.privacy`. Receipts name no customer.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fusion.files.atomic import replace_file
from fusion.files.private import open_private
from fusion.money.profiles import Profiles

# Stands in the place of a name.
FORGOTTEN = "forgotten"
PROFILES, TRACKS = "profiles.sqlite", "tracks.parquet"


def erase_from_files(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Replace names in evidence, receipts, events, recordings, scans and tracks, and delete purchase profiles.

    No process may use the folder: a file that is being appended to cannot be replaced.

    Args:
        folder: of the store, with everything below it.
        names: the account, and the pseudonyms that it went by.

    Returns:
        By file, how many lines or rows named the person.

    Raises:
        OSError, FusionError: a file cannot be read or replaced; those before it are done.
    """
    found = {}
    for path in sorted(folder.rglob("*.jsonl")):
        if path.is_file() and not path.is_symlink() and (n := _erase_from_lines(path, names)):
            found[path.relative_to(folder).as_posix()] = n
    for path in sorted(folder.rglob(TRACKS)):
        if n := _erase_from_tracks(path, names):
            found[path.relative_to(folder).as_posix()] = n
    if (folder / PROFILES).exists():
        profiles = Profiles(folder / PROFILES)
        n = sum(profiles.erase(name) for name in names)
        profiles.close()
        if n:
            found[PROFILES] = n
    return found


def _erase_from_lines(path: Path, names: Collection[str]) -> int:
    lines, n = [], 0
    with open(path, "rb") as file:
        for line in file:
            kept = line
            try:
                row = json.loads(line)
                without = _without(row, names)
            except (ValueError, RecursionError):
                without = row = None  # A torn line is left as it is.
            if without != row:
                n += 1
                kept = json.dumps(without, ensure_ascii=False).encode() + b"\n"
            lines.append(kept)
    if n:
        replace_file(path, b"".join(lines), private=True)
    return n


def _without(value: Any, names: Collection[str]) -> Any:
    """The same value with another word in the place of each name."""
    if isinstance(value, str):
        return FORGOTTEN if value in names else value
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items()}
    return value


def _erase_from_tracks(path: Path, names: Collection[str]) -> int:
    """Tracks of the person lose their account; row group by row group."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(sorted(names), pa.string())
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        named = [pc.sum(pc.is_in(file.read_row_group(i, ["account"])["account"], wanted)).as_py() or 0 for i in groups]
        if not sum(named):
            return 0
        new = path.with_name(path.name + ".new")
        open_private(new, "wb").close()
        with pq.ParquetWriter(new, file.schema_arrow, compression="zstd", write_page_checksum=True) as writer:
            for i in groups:
                table = file.read_row_group(i)
                account = table["account"]
                cleared = pc.if_else(pc.is_in(account, wanted), pa.scalar(None, pa.string()), account)
                writer.write_table(table.set_column(table.schema.get_field_index("account"), "account", cleared))
    new.replace(path)
    return int(sum(named))
