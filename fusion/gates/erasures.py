"""The list of people who asked to be forgotten: names as keyed hashes, and how far each erasure has come.

It lies beside what it is about, in a store's folder, and says of no one who they are: a name can be compared with it
under the store's key, and not be read from it. It serves three ends. A command asks and a running store erases; what
still has to be charged is forgotten later; and a backup from before an erasure is cleared when it is put back.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fusion.errors import LedgerError
from fusion.files.secrets import derived, fingerprint
from fusion.money.sqlite import is_open_here, open_sqlite
from fusion.money.sqlite_reading import read_sqlite

FILE = "erasures.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS erasure (
  id TEXT PRIMARY KEY, asked_ns INTEGER NOT NULL, key_id TEXT NOT NULL, names TEXT NOT NULL, state TEXT NOT NULL,
  waits_for TEXT NOT NULL, report TEXT NOT NULL, changed_ns INTEGER NOT NULL
) STRICT;
"""
_COLUMNS = "id, asked_ns, key_id, names, state, waits_for, report, changed_ns"

State = Literal["asked", "waiting", "done"]


@dataclass(frozen=True, slots=True)
class Erasure:
    """One request.

    Attributes:
        id: random; says nothing about the person.
        asked_ns: when, by the machine's clock. Whoever comes back later is a new customer.
        key_id: fingerprint of the store's key under which the names are hashed.
        names: keyed hashes of the account and of the pseudonyms that it went by.
        state: "asked", "waiting" (something has to be charged or decided first), or "done".
        waits_for: what it waits for, a line each.
        report: by holding what became of it, a line each.
        changed_ns: when its state was written.
    """

    id: str
    asked_ns: int
    key_id: str
    names: tuple[str, ...]
    state: State = "asked"
    waits_for: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    changed_ns: int = 0

    def _row(self) -> tuple[Any, ...]:
        lists = (json.dumps(self.names), self.state, json.dumps(self.waits_for), json.dumps(self.report))
        return self.id, self.asked_ns, self.key_id, *lists, self.changed_ns

    @classmethod
    def _of(cls, row: tuple[Any, ...]) -> Erasure:
        id_, asked_ns, key_id, names, state, waits_for, report, changed_ns = row
        lists = (tuple(json.loads(names)), state, tuple(json.loads(waits_for)), tuple(json.loads(report)))
        return cls(id_, asked_ns, key_id, *lists, changed_ns)


class Names(Container[str]):
    """Names that are known by their keyed hashes alone."""

    def __init__(self, digest: Callable[[str], str], digests: Iterable[str]) -> None:
        self._digest, self._digests = digest, frozenset(digests)

    def renamed(self, name: str) -> str:
        """A word in the place of a name, another for each; a text that is none of them stays."""
        digest = self._digest(name)
        return f"forgotten {digest[:16]}" if digest in self._digests else name

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._digest(name) in self._digests


class Erasures:
    """The list of a store; from several threads and processes."""

    def __init__(self, folder: Path, key: bytes) -> None:
        """Open the list in a store's folder, or begin it.

        Args:
            folder: of the store's process.
            key: the store's.

        Raises:
            LedgerError: it cannot be used.
        """
        self.path, self.key_id = folder / FILE, fingerprint(key)
        self._key = derived(key, "erasure")
        self._connection = open_sqlite(self.path, "a list of erasures", _SCHEMA)
        self._lock = threading.Lock()

    def digest(self, name: str) -> str:
        """The keyed hash of a name."""
        return hmac.digest(self._key, name.encode("utf-8", "surrogatepass"), "sha256").hex()

    def names(self, digests: Iterable[str]) -> Names:
        """The names behind keyed hashes."""
        return Names(self.digest, digests)

    def ask(self, names: Iterable[str], now_ns: int) -> Erasure:
        """Ask that a person be forgotten under some names, the account among them; once more where that waits."""
        digests = tuple(map(self.digest, names))
        known = next((one for one in self.undone() if set(digests) & set(one.names)), None)
        if known is None:
            asked = Erasure(secrets.token_hex(8), now_ns, self.key_id, digests, changed_ns=now_ns)
        else:
            # Without a report it is taken up as a new one, with what the person did since.
            asked = replace(known, asked_ns=now_ns, state="asked", report=(), changed_ns=now_ns)
        self.keep(asked)
        return asked

    def keep(self, erasure: Erasure) -> None:
        """Write an erasure."""
        with self._writing() as run:
            run(f"INSERT OR REPLACE INTO erasure ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", erasure._row())

    def all(self) -> list[Erasure]:
        """Every erasure, oldest first. Those under another key of the store are among them, and match no name."""
        with self._lock:
            return _read(self._connection)

    def undone(self) -> list[Erasure]:
        """Those that are not done, under this key."""
        return [one for one in self.all() if one.state != "done" and one.key_id == self.key_id]

    def of(self, id_: str) -> Erasure | None:
        """An erasure by its id."""
        return next((one for one in self.all() if one.id == id_), None)

    def ask_again(self, since_ns: int, others: Iterable[Path] = ()) -> int:
        """After a backup was put back: ask again for what was not done when it was made. Returns how many.

        Args:
            since_ns: when the backup was made.
            others: lists that are newer than the one in the backup.

        Raises:
            LedgerError: a list cannot be read.
        """
        found: dict[str, Erasure] = {one.id: one for one in self.all()}
        for path in others:
            for one in read_erasures(path):
                if one.id not in found or one.changed_ns >= found[one.id].changed_ns:
                    found[one.id] = one
        n = 0
        for one in found.values():
            again = one.state != "done" or one.changed_ns >= since_ns
            n += again
            self.keep(replace(one, state="asked", waits_for=()) if again else one)
        return n

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        try:
            with self._lock:
                yield self._connection.execute
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: the list of erasures cannot be written: {error}") from error


def read_erasures(path: Path) -> list[Erasure]:
    """The erasures of a list, also of one in use. Raises LedgerError where it cannot be read."""
    connection, _ = read_sqlite(path, "a list of erasures", open_here=is_open_here(path))
    with closing(connection):
        return _read(connection)


def _read(connection: sqlite3.Connection) -> list[Erasure]:
    try:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM erasure ORDER BY asked_ns, id").fetchall()
        return [Erasure._of(row) for row in rows]
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise LedgerError(f"want a list of erasures, got: {error}") from error


def waiting_of(erasures: Iterable[Erasure]) -> Mapping[str, tuple[str, ...]]:
    """What each erasure that is not done waits for, by its id, as /healthz shows it."""
    return {one.id: one.waits_for or ("it is asked for",) for one in erasures}


__all__ = ["FILE", "Erasure", "Erasures", "Names", "read_erasures", "waiting_of"]
