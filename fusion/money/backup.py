"""Backups of a store's folder: made while the store runs, whole or refused, and restored into an empty folder.

A backup is a folder of the same files and `manifest.json`, which is written last and holds the digest of each: without
it a backup is refused. Files are read in an order that keeps what a restart relies on: a snapshot and its scans first,
then the books, which therefore hold every result that the snapshot covers, then what refers to the books.

Databases are copied through SQLite, one state of each. Books in PostgreSQL are read in one transaction into a file of
SQLite with the same rows, which `fusion verify` checks and from which they are restored. Keys are listed and not copied
unless that is asked for: a backup that holds its own key protects nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusion.errors import ConfigError, LedgerError
from fusion.files.atomic import flush_folder, replace_file
from fusion.files.private import FOLDER_MODE, LOCK_FILE, locked, open_private, private_folder
from fusion.files.secrets import KEY_FILE, derived, fingerprint, key_in, store_key
from fusion.money.entries import canonical_json
from fusion.money.schema import COLUMNS, INSERT, SQLITE_SCHEMA, statements
from fusion.money.sqlite import is_open_here
from fusion.money.sqlite_reading import MAGIC, read_sqlite
from fusion.money.vault import VAULT_SCHEMA

MANIFEST, FORMAT_VERSION = "manifest.json", 1
# Rows of books in PostgreSQL, where a backup keeps them as a file.
REMOTE_BOOKS = "postgresql-books.sqlite"
_KEY_ENDINGS = (".key", ".pem")
# What belongs to a running process, or to a file that is being written.
_PASSING_ENDINGS = ("-wal", "-shm", "-journal", ".new", ".sock")
# A snapshot may be replaced between reading it and its log; the next try finds a pair.
_TRIES_MAX = 20
_MANIFEST_BYTES_MAX = 64 * 1024 * 1024
_COPY_BYTES = 1 << 20

Step = Callable[[str], object]


@dataclass(frozen=True)
class Backup:
    """What a manifest states.

    Attributes:
        made_ns: when the backup began, by the clock of the machine.
        files: digest and size of each file, by its path in the folder.
        books: by file of books: store, currency, number and hash of the newest entry.
        keys: files of keys that the store needs and that may be kept elsewhere; fingerprint of the store's own key.
    """

    made_ns: int
    files: dict[str, tuple[str, int]]
    books: dict[str, tuple[str, str, int, str]]
    keys: dict[str, str] = field(default_factory=dict)

    def _fields(self) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "made_ns": self.made_ns,
            "files": {name: list(row) for name, row in self.files.items()},
            "books": {name: list(row) for name, row in self.books.items()},
            "keys": self.keys,
        }

    def text(self, key: bytes | None) -> str:
        """The manifest; sealed where the store's key is known."""
        fields = self._fields()
        if key is not None:
            fields["seal"] = _seal(key, fields)
        return json.dumps(fields, indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path, key: bytes | None = None) -> Backup:
        """The manifest of a backup. Raises LedgerError where there is none, or it is not as the key sealed it."""
        path = folder / MANIFEST
        if not path.exists():
            raise LedgerError(f"{folder}: holds no {MANIFEST}, so it is no backup, or one that was not finished")
        try:
            with open(path, "rb") as file:
                fields = json.loads(file.read(_MANIFEST_BYTES_MAX))
            seal = fields.pop("seal", None)
            if fields["format"] != FORMAT_VERSION:
                raise LedgerError(f"{path}: want format {FORMAT_VERSION}, got {fields['format']}")
            found = cls(
                int(fields["made_ns"]),
                {str(name): (str(digest), int(n_bytes)) for name, (digest, n_bytes) in fields["files"].items()},
                {str(name): (str(s), str(c), int(n), str(h)) for name, (s, c, n, h) in fields["books"].items()},
                {str(name): str(text) for name, text in fields["keys"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LedgerError(f"{path}: want the manifest of a backup, got: {type(error).__name__}") from None
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in found.files):
            raise LedgerError(f"{path}: names a file outside the backup")
        if key is not None and seal is not None and not hmac.compare_digest(seal, _seal(key, found._fields())):
            raise LedgerError(f"{path}: was changed, or sealed with another store's key")
        return found


def _seal(key: bytes, fields: dict[str, Any]) -> str:
    return hmac.digest(derived(key, "backup"), canonical_json(fields).encode("ascii"), "sha256").hex()


# ---- making one ------------------------------------------------------------------------------------------------------


def back_up(
    folder: Path, destination: Path, t_ns: int, *, url: str | None = None, store: str = "", with_keys: bool = False,
    step: Step = lambda name: None,
) -> Backup:  # fmt: skip
    """Copy a store's folder, whether the store runs or not.

    Args:
        folder: of the store: books or their vault, outbox, snapshot, evidence, receipts.
        destination: a new folder.
        t_ns: now.
        url: of its books, where they are in PostgreSQL.
        store: id of the store, for its schema there.
        with_keys: copy the keys as well; whoever has the backup then has all of the store.
        step: called before each file; for progress.

    Raises:
        LedgerError: a database cannot be read, or the destination is not new.
        OSError: a file cannot be read or written; the destination holds no manifest then, and so no backup.
    """
    if not folder.is_dir():
        raise LedgerError(f"{folder}: does not exist; pass the folder of a store, such as serve/SHOP")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise LedgerError(f"{destination}: is not empty; pass a new folder for each backup")
    if destination.resolve().is_relative_to(folder.resolve()):
        raise LedgerError(f"{destination}: lies inside the folder that is backed up; pass a folder elsewhere")
    private_folder(destination)
    written: dict[str, tuple[str, int]] = {}
    books: dict[str, tuple[str, str, int, str]] = {}
    _copy_snapshot(folder, destination, written, step)
    if url is not None:
        step(REMOTE_BOOKS)
        _copy_remote(url, store, destination / REMOTE_BOOKS)
        written[REMOTE_BOOKS] = _digest(destination / REMOTE_BOOKS)
        books[REMOTE_BOOKS] = _head(destination / REMOTE_BOOKS)
    for name in _in_order(folder):
        if name in written:
            continue
        step(name)
        source, target = folder / name, destination / name
        private_folder(target.parent)
        if _is_database(source):
            _copy_database(source, target)
            if (head := _head_of_books(target)) is not None:
                books[name] = head
        elif not is_key(name) or with_keys:
            with contextlib.suppress(FileNotFoundError):  # A running store replaces files.
                _copy_file(source, target)
        if target.exists():
            written[name] = _digest(target)
    for place in {destination, *((destination / name).parent for name in written)}:
        flush_folder(place)
    key = store_key(folder, create=False) if (folder / KEY_FILE).exists() else None
    keys = {name: "" for name in _names(folder) if is_key(name)}
    if key is not None:
        keys[KEY_FILE] = fingerprint(key)
    made = Backup(t_ns, written, books, keys)
    step(MANIFEST)
    replace_file(destination / MANIFEST, made.text(key), private=True)
    return made


def is_key(name: str) -> bool:
    """Whether a file holds a key, by its name."""
    return name.endswith(_KEY_ENDINGS)


def _names(folder: Path) -> list[str]:
    """Every file of a store's folder, by its path in it; without links, and what belongs to a running process."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place) / name
            if name == LOCK_FILE or name.endswith(_PASSING_ENDINGS) or path.is_symlink() or not path.is_file():
                continue
            found.append(path.relative_to(folder).as_posix())
    return found


def _is_database(path: Path) -> bool:
    """Whether a file is one of SQLite. One that this process uses is not opened: closing it would take locks away."""
    if is_open_here(path):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False


def _in_order(folder: Path) -> list[str]:
    """The files: books before what refers to them. Evidence and receipts that are newer than the books do no harm."""
    return sorted(_names(folder), key=lambda name: (not _is_database(folder / name), name))


def _copy_snapshot(folder: Path, destination: Path, written: dict[str, tuple[str, int]], step: Step) -> None:
    """Copy the snapshot with the log that names it; see `fusion.live.scan_log`."""
    if not (folder / "snapshot").exists():
        return
    step("snapshot")
    before = b""
    for attempt in range(_TRIES_MAX):
        try:
            snapshot = (folder / "snapshot").read_bytes()
            paths = [folder / name for name in ("scans.jsonl", "scans.new")]
            logs = [path.read_bytes() for path in paths if path.exists()]
        except FileNotFoundError:  # replaced just now, or removed after the end of the data
            continue
        digest = hashlib.sha256(snapshot).hexdigest().encode()
        matching = [data for data in logs if digest in data.split(b"\n", 1)[0]]
        # A log that names another snapshot, and stays so, is no reason to have no backup: the store copes with it.
        stays = attempt > 1 and before == digest
        before = digest
        if matching or not logs or stays:
            for name, data in (("snapshot", snapshot), *(("scans.jsonl", data) for data in (matching or logs)[:1])):
                _write(destination / name, data)
                written[name] = _digest(destination / name)
            return
    raise LedgerError(f"{folder}: the snapshot was replaced each time it was read; try again")


def _write(path: Path, data: bytes) -> None:
    with open_private(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_file(source: Path, target: Path) -> None:
    with open(source, "rb") as read, open_private(target, "wb") as file:
        shutil.copyfileobj(read, file, _COPY_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> tuple[str, int]:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _copy_database(source: Path, target: Path) -> None:
    """One state of a database, without a write-ahead log."""
    _write(target, b"")  # private from the beginning
    connection, _ = read_sqlite(source, "a database of the store", open_here=is_open_here(source))
    with contextlib.closing(connection), contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise LedgerError(f"{source}: cannot be copied: {error}") from error
    if found != "ok":
        raise LedgerError(f"{source}: is damaged: {found}")
    _flush(target)


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _copy_remote(url: str, store: str, target: Path) -> None:
    """The rows of books in PostgreSQL as a file, in the state of one transaction."""
    from fusion.money.postgres import RemoteRows

    _write(target, b"")
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy, RemoteRows(url, store) as rows:
        copy.execute("BEGIN")
        for statement in statements(SQLITE_SCHEMA + VAULT_SCHEMA):
            if "CREATE TRIGGER" not in statement:
                copy.execute(statement)
        for table in COLUMNS:
            copy.executemany(INSERT[table], rows.of(table))
        for statement in statements(SQLITE_SCHEMA):
            if "CREATE TRIGGER" in statement:
                copy.execute(statement)
        copy.execute("COMMIT")
    _flush(target)


def _head(path: Path) -> tuple[str, str, int, str]:
    head = _head_of_books(path)
    assert head is not None, "books have their identity"
    return head


def _head_of_books(path: Path) -> tuple[str, str, int, str] | None:
    """Store, currency, number and hash of the newest entry; None for another database."""
    with _reading(path) as run:
        tables = {name for (name,) in run("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not {"book", "entry", "posting"} <= tables:
            return None
        identity = run("SELECT store, currency FROM book").fetchone()
        newest = run("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone() or (0, b"")
    return None if identity is None else (*identity, int(newest[0]), bytes(newest[1]).hex())


# ---- putting one back ------------------------------------------------------------------------------------------------


def restore(
    backup: Path, folder: Path, *, key_file: Path | None = None, url: str | None = None,
    complete: Callable[[Path, Backup], object] = lambda folder, made: None, step: Step = lambda name: None,
) -> Backup:  # fmt: skip
    """Put a backup into a new or an empty folder, all of it or nothing.

    Args:
        backup: made by `back_up`.
        folder: of the store; a missing one is made.
        key_file: the store's key, where the backup does not hold it; it is put into the folder as well.
        url: PostgreSQL database for books that were there; they must be empty.
        complete: called with the folder once all files are in it, and before it takes its name, to change them.
        step: called before each file; for progress.

    Raises:
        LedgerError: the backup is not whole, or the folder is in use or not empty.
    """
    key = key_in(key_file) if key_file else None
    if key is None and (backup / KEY_FILE).exists():
        key = store_key(backup, create=False)
    manifest = Backup.read(backup, key)
    if key is not None and manifest.keys.get(KEY_FILE) not in (None, "", fingerprint(key)):
        raise LedgerError(f"{backup}: was made of a store with another key, {manifest.keys[KEY_FILE]}")
    _refuse_used(folder)
    for name, expected in manifest.files.items():
        step(f"check {name}")
        if fault := _fault(backup / name, expected):
            raise LedgerError(fault)
    remote = REMOTE_BOOKS in manifest.files
    if remote != (url is not None):
        want = "a PostgreSQL URL for its books" if remote else "no URL, since its books are a file"
        raise LedgerError(f"{backup}: want {want}")
    private_folder(folder.absolute().parent)
    # A folder beside it becomes the store's in one step, so that a store never starts on a part of a backup.
    building = folder.absolute().with_name(f".{folder.name}.{secrets.token_hex(4)}.restoring")
    building.mkdir(FOLDER_MODE)
    try:
        for name in manifest.files:
            if name == REMOTE_BOOKS:
                continue
            step(name)
            private_folder((building / name).parent)
            _copy_file(backup / name, building / name)
        if key is not None and not (building / KEY_FILE).exists():
            _write(building / KEY_FILE, key.hex().encode() + b"\n")
        for place, _, _ in os.walk(building):
            flush_folder(Path(place))
        if url is not None:
            step(REMOTE_BOOKS)
            _put_remote(url, manifest.books[REMOTE_BOOKS], backup / REMOTE_BOOKS)
        complete(building, manifest)
        step("rename")
        os.replace(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    flush_folder(folder.absolute().parent)
    return manifest


def _refuse_used(folder: Path) -> None:
    """Raise LedgerError where a folder is in use, or holds anything."""
    if (folder / LOCK_FILE).exists():
        with locked(folder / LOCK_FILE) as held:
            if not held:
                raise LedgerError(f"{folder}: a running store uses it; stop it first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LedgerError(f"{folder}: is not empty; move it away and keep it: it may hold what the backup lacks")


def _put_remote(url: str, head: tuple[str, str, int, str], path: Path) -> None:
    """Put the rows of a file into PostgreSQL; `head` is what the manifest states of them."""
    from fusion.money.postgres import RemoteRows

    store, _, *newest = head
    with _reading(path) as run, RemoteRows(url, store, write=True) as rows:
        if (held := rows.newest()) != (0, ""):
            if held != tuple(newest):
                raise LedgerError(f"{rows.where}: holds books with {held[0]} entries; they are left as they are")
            return  # An attempt that was interrupted has put them there.
        for table in ("posting", "entry") if rows.begun else ("book", "posting", "entry"):
            rows.put(table, run(f"SELECT {COLUMNS[table]} FROM {table} ORDER BY 1, 2"))


def check(backup: Path, key: bytes | None = None) -> Iterator[str]:
    """What is wrong with a backup, file by file."""
    try:
        manifest = Backup.read(backup, key)
    except (LedgerError, ConfigError) as error:
        yield str(error)
        return
    for name, expected in manifest.files.items():
        if fault := _fault(backup / name, expected):
            yield fault


def _fault(path: Path, expected: tuple[str, int]) -> str:
    """What is wrong with a file of a backup; empty where it is as the manifest states."""
    if path.is_file() and _digest(path) == expected:
        return ""
    return f"{path}: is missing or was changed since the backup was made"


# ---- what a person has to settle -------------------------------------------------------------------------------------


def unsettled(books: Path) -> list[str]:
    """What was under way in the books of a backup: it may have been completed since."""
    with _reading(books) as run:
        (n_open,) = run(
            "SELECT count(*) FROM entry o WHERE o.kind = 'visit opened' "
            "AND NOT EXISTS (SELECT 1 FROM entry r WHERE r.key = o.visit || '/receipt')"
        ).fetchone()
        # A request to a provider is in the books before it is sent, its answer under the same name and "/answer".
        asked = run(
            "SELECT a.visit, a.kind FROM entry a WHERE a.kind IN ('payment asked', 'mail due') "
            "AND NOT EXISTS (SELECT 1 FROM entry b WHERE b.key = a.key || '/answer') ORDER BY a.seq"
        ).fetchall()
    lines = [f"{n_open} visits were open"] if n_open else []
    return lines + [f"visit {visit}: {kind}, without an answer" for visit, kind in asked]


def newer_entries(books: Path, head: tuple[str, str, int, str]) -> list[str]:
    """Visits about which other books, such as what is left of a damaged store, hold entries after a head."""
    if not books.exists():
        return []
    with _reading(books) as run:
        kept = run("SELECT hash FROM entry WHERE seq = ?", (head[2],)).fetchone()
        if head[2] and (kept is None or bytes(kept[0]).hex() != head[3]):
            raise LedgerError(f"{books}: are not the books that the backup was made of")
        rows = run("SELECT visit, kind FROM entry WHERE seq > ? ORDER BY seq", (head[2],)).fetchall()
    visits: dict[str, list[str]] = {}
    for visit, kind in rows:
        visits.setdefault(visit, []).append(kind)
    return [f"visit {visit}: {', '.join(kinds)}" for visit, kinds in visits.items()]


@contextlib.contextmanager
def _reading(books: Path) -> Iterator[Callable[..., sqlite3.Cursor]]:
    """Runs statements that read a file of books."""
    connection, _ = read_sqlite(books, "the books", open_here=is_open_here(books))
    with contextlib.closing(connection):
        yield connection.execute
