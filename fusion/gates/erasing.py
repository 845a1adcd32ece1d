"""Erases a person from the files of a store's folder: whatever names them by account or pseudonym.

`fusion.gates.privacy` lists which files that is; vault and faces erase their own. Receipts name no customer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fusion.files.atomic import flush_folder, replace_file
from fusion.files.private import open_private
from fusion.money.profiles import Profiles

# Stands in the place of a name.
FORGOTTEN = "forgotten"
PROFILES, TRACKS = "profiles.sqlite", "tracks*.parquet"
_TRACKS = re.compile(r"tracks(\.\d+)?\.parquet")


def erase_from_lines(folder: Path, names: Collection[str], patterns: Collection[str]) -> dict[str, int]:
    """Replace names in the lines of files below a folder.

    No process may use the folder: a file that is being appended to cannot be replaced.

    Args:
        folder: of the store, with everything below it.
        names: the account, and the pseudonyms that it went by.
        patterns: of the files' names.

    Returns:
        By file, how many lines named the person.

    Raises:
        OSError: a file cannot be read or replaced; those before it are done.
    """
    found = {}
    # A kill while a file was replaced leaves its copy.
    wanted = [pattern + end for pattern in patterns for end in ("", ".new")]
    for path in sorted({path for pattern in wanted for path in folder.rglob(pattern)}):
        if path.is_file() and not path.is_symlink() and (n := _erase_from_lines(path, names)):
            found[path.relative_to(folder).as_posix()] = n
    return found


def erase_from_tracks(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Take the account off the person's tracks in files below a folder, also in those that a restart put aside.

    Files that `torn_tracks` lists are left as they are.
    """
    torn, found = torn_tracks(folder), {}
    for path in tracks_files(folder):
        if path not in torn and (n := _erase_from_tracks(path, names)):
            found[path.relative_to(folder).as_posix()] = n
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


def erase_profiles(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Delete the person's purchase profile. Raises FusionError where it cannot be read."""
    if not (folder / PROFILES).exists():
        return {}
    profiles = Profiles(folder / PROFILES)
    n = sum(profiles.erase(name) for name in names)
    profiles.close()
    return {PROFILES: n} if n else {}


def tracks_files(folder: Path, *, below: bool = True) -> list[Path]:
    """Files of tracks in a folder, and in those below it: the newest, and those that restarts put aside."""
    found = folder.rglob(TRACKS) if below else folder.glob(TRACKS)
    return sorted(path for path in found if _TRACKS.fullmatch(path.name) and path.is_file() and not path.is_symlink())


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
