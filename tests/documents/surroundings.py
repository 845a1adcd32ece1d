"""What the documents' blocks find around them: placeholders that are real, and the names that a Python block uses."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def furnish(folder: Path, recording: Path) -> None:
    """Make every placeholder that shell blocks name."""
    for name in ("RECORDING", "RECORDING_1", "RECORDING_2", "STORE_OR_RECORDING", "walk"):
        shutil.copytree(recording, folder / name)
    for name in ("STORE", "path/to/store"):
        shutil.copytree(recording / "store", folder / name)


def measure(recording: Path) -> int:
    """Stands for a user's own function in the block that maps one over recordings."""
    return sum(path.stat().st_size for path in recording.rglob("*.parquet"))


@contextmanager
def names_for(page: str, number: int, folder: Path) -> Iterator[dict[str, Any]]:
    """The names that a page's Python block takes as given."""
    with ExitStack() as stack:
        make = {"README.md": _engine, "docs/chain.md": _batches}.get(page)
        yield {"__name__": "__block__", **(make(folder, stack) if make else {})}


def _engine(folder: Path, stack: ExitStack) -> dict[str, Any]:
    from fusion import Recording

    return {"sensors": Recording(folder / "RECORDING").observations()}


def _batches(folder: Path, stack: ExitStack) -> dict[str, Any]:
    from documents import surroundings

    return {"recordings": [folder / "RECORDING_1", folder / "RECORDING_2"], "measure": surroundings.measure}


def check_extras(arguments: list[str]) -> int:
    """Stands for pip: every extra that a block installs is one of the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for brackets in re.findall(r"\[([\w,]+)\]", " ".join(arguments)) for extra in brackets.split(",")}
    unknown = named - project["optional-dependencies"].keys()
    if unknown:
        print(f"pyproject.toml has no extra {', '.join(sorted(unknown))}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(check_extras(sys.argv[2:]))
