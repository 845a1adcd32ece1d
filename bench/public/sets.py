"""The public sets that are known here: how each is recognised, converted, and where its authors publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.public import contract
from bench.public.task import Task

# A set lies in a folder that is named, or at most this many levels below it.
_DEPTH_MAX = 3


@dataclass(frozen=True)
class PublicSet:
    """A set, or a family of sets in one form.

    Attributes:
        name: in tables.
        form: what its folder holds, for people who wonder why it was not found.
        source: where its authors publish it.
        recognises: whether a folder is one, by what lies in it.
        convert: makes recordings of the file contract of a folder in an empty one; UnusableError or ConfigError where
            that cannot be.
    """

    name: str
    form: str
    source: str
    recognises: Callable[[Path], bool]
    convert: Callable[[Path, Path], list[Task]]


SETS = (
    PublicSet(
        "recordings",
        "a recording of the file contract with truth/ (docs/format.md)",
        "converted by their users",
        contract.recognises,
        contract.convert,
    ),
)


def find(folders: Sequence[Path]) -> Iterator[tuple[PublicSet, Path]]:
    """Every set in these folders and below them, in the order of names; below a set none is looked for."""
    seen: set[Path] = set()

    def below(folder: Path, depth: int) -> Iterator[tuple[PublicSet, Path]]:
        resolved = folder.resolve()
        if resolved in seen:
            return
        seen.add(resolved)
        for known in SETS:
            if known.recognises(folder):
                yield known, folder
                return
        if depth < _DEPTH_MAX:
            for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
                yield from below(child, depth + 1)

    for folder in folders:
        yield from below(folder, 0)
