"""Erases a person from the files of a store's folder: whatever names them by account or pseudonym.

`fusion.gates.privacy` lists which files that is; vault and faces erase their own. Receipts name no customer. Names are
given as whatever says of a text whether it is one: an erasure that is asked for again after years knows them by keyed
hashes alone (`fusion.gates.erasures`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Container
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.files.atomic import flush_folder
from fusion.files.growing import GrowingLines, change_lines
from fusion.files.private import open_private
from fusion.gates.shopper_sessions import FILE as SESSIONS
from fusion.gates.shopper_sessions import ShopperSessions
from fusion.money.profiles import Profiles

# Stands in the place of a name.
FORGOTTEN = "forgotten"
PROFILES, TRACKS = "profiles.sqlite", "tracks*.parquet"
_TRACKS = re.compile(r"tracks(\.\d+)?\.parquet")
# Replaced with each snapshot of a running store; by then what has been erased is in neither.
_SCANS = ("scans.jsonl", "scans.new")
_HANDLES = Path("/proc/self/fd")


@dataclass
class Files:
    """The files of a store's folder while a person is erased from them.

    Attributes:
        folder: of the store, with everything below it.
        evidence: the evidence that this process adds to, where it runs the store.
        in_use: this process runs the store. Without it no process may use the folder: a file that is being appended to
            cannot be replaced.
        left: files that could not be changed, since this process writes them: they are done once it has ended.
    """

    folder: Path
    evidence: GrowingLines | None = None
    in_use: bool = False
    left: set[str] = field(default_factory=set)

    def named(self, patterns: Collection[str]) -> list[Path]:
        """Files below the folder by the patterns of their names, with the copies that kills left."""
        wanted = [pattern + end for pattern in patterns for end in ("", ".new")]
        found = {path for pattern in wanted for path in self.folder.rglob(pattern)}
        return sorted(path for path in found if path.is_file() and not path.is_symlink() and not self._passes(path))

    def change(self, path: Path, changed: Callable[[bytes], bytes]) -> int:
        """Change lines of a file; returns how many. A torn last line stays."""
        if self.evidence is not None and path == self.folder / "evidence.jsonl":
            return self.evidence.change(changed)
        return 0 if self.is_open(path) else change_lines(path, changed)

    def is_open(self, path: Path) -> bool:
        """Whether this process runs the store and has the file open, which is noted."""
        if not self.in_use or not _is_open_here(path):
            return False
        self.left.add(self.name(path))
        return True

    def name(self, path: Path) -> str:
        """A file as reports name it."""
        return path.relative_to(self.folder).as_posix()

    def _passes(self, path: Path) -> bool:
        return self.in_use and path.parent == self.folder and path.name in _SCANS


def _is_open_here(path: Path) -> bool:
    """Whether this process has a file open; where the system does not say so, it is taken to be."""
    try:
        handles = list(_HANDLES.iterdir())
    except OSError:
        return True
    wanted = path.stat()
    for handle in handles:
        try:
            if os.path.samestat(handle.stat(), wanted):
                return True
        except OSError:
            continue  # Closed in the meantime.
    return False


def erase_from_lines(files: Files, names: Container[str], patterns: Collection[str]) -> dict[str, int]:
    """Replace names in the lines of files below a folder.

    Args:
        files: of the store.
        names: the account, and the pseudonyms that it went by.
        patterns: of the files' names.

    Returns:
        By file, how many lines named the person.

    Raises:
        OSError: a file cannot be read or replaced; those before it are done.
    """

    def changed(line: bytes) -> bytes:
        try:
            row = json.loads(line)
            without = _without(row, names)
        except (ValueError, RecursionError):
            return line
        return line if without == row else json.dumps(without, ensure_ascii=False).encode() + b"\n"

    return {files.name(path): n for path in files.named(patterns) if (n := files.change(path, changed))}


def erase_from_tracks(files: Files, names: Container[str]) -> dict[str, int]:
    """Take the account off the person's tracks in files below a folder, also in those that a restart put aside.

    Files that `torn_tracks` lists are left as they are.
    """
    torn, found = torn_tracks(files.folder), {}
    for path in tracks_files(files.folder):
        if not files.is_open(path) and path not in torn and (n := _erase_from_tracks(path, names)):
            found[files.name(path)] = n
    return found


def torn_tracks(folder: Path) -> list[Path]:
    """Files of tracks below a folder that a kill left without their end, so that nothing in them can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    torn = []
    for path in tracks_files(folder):
        try:
            pq.ParquetFile(path).close()
        except pa.ArrowInvalid:
            torn.append(path)
    return torn


def erase_profiles(files: Files, names: Container[str]) -> dict[str, int]:
    """Delete the person's purchase profile. Raises FusionError where it cannot be read."""
    if not (files.folder / PROFILES).exists():
        return {}
    profiles = Profiles(files.folder / PROFILES)
    n = sum(profiles.erase(account) for account in profiles.accounts() if account in names)
    profiles.close()
    return {PROFILES: n} if n else {}


def erase_sessions(files: Files, names: Container[str]) -> dict[str, int]:
    """End the person's sessions on the shoppers' pages. Raises LedgerError where they cannot be read or are in use."""
    if not (files.folder / SESSIONS).exists():
        return {}
    with closing(ShopperSessions(files.folder / SESSIONS)) as sessions:
        n = sessions.erase(names)
    return {SESSIONS: n} if n else {}


def end_visits(files: Files, visits: Container[str]) -> None:
    """End the sessions of visits on the shoppers' pages; `erase_sessions` leaves nothing of them on disk afterwards.

    Raises:
        LedgerError: they cannot be read or written.
    """
    if (files.folder / SESSIONS).exists():
        with closing(ShopperSessions(files.folder / SESSIONS)) as sessions:
            sessions.end_all(visits)


def tracks_files(folder: Path, *, below: bool = True) -> list[Path]:
    """Files of tracks in a folder, and in those below it: the newest, and those that restarts put aside."""
    found = folder.rglob(TRACKS) if below else folder.glob(TRACKS)
    return sorted(path for path in found if _TRACKS.fullmatch(path.name) and path.is_file() and not path.is_symlink())


def _without(value: Any, names: Container[str]) -> Any:
    """The same value with another word in the place of each name."""
    if isinstance(value, str):
        return FORGOTTEN if value in names else value
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items()}
    return value


def _erase_from_tracks(path: Path, names: Container[str]) -> int:
    """Tracks of the person lose their account; row group by row group."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        held = {name for i in groups for name in pc.unique(file.read_row_group(i, ["account"])["account"]).to_pylist()}
        wanted = pa.array(sorted(name for name in held if name is not None and name in names), pa.string())
        if not len(wanted):
            return 0
        named = [pc.sum(pc.is_in(file.read_row_group(i, ["account"])["account"], wanted)).as_py() or 0 for i in groups]

    def cleared(table: Any) -> Any:
        account = table["account"]
        others = pc.if_else(pc.is_in(account, wanted), pa.scalar(None, pa.string()), account)
        return table.set_column(table.schema.get_field_index("account"), "account", others)

    rewrite_tracks(path, cleared)
    return int(sum(named))


def rewrite_tracks(path: Path, changed: Callable[[Any], Any]) -> None:
    """Replace a Parquet file by what a function makes of it, a row group (pyarrow.Table) at a time."""
    import pyarrow.parquet as pq

    new = path.with_name(path.name + ".new")
    open_private(new, "wb").close()
    with (
        pq.ParquetFile(path) as old,
        pq.ParquetWriter(new, old.schema_arrow, compression="zstd", write_page_checksum=True) as writer,
    ):
        for i in range(old.num_row_groups):
            writer.write_table(changed(old.read_row_group(i)))
    with open(new, "rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)
    flush_folder(path.parent)
