"""Who is signed in on the shoppers' pages and on the screens of a store: a private SQLite file beside the books.

Of a token only its hash is kept. A session belongs to one account, to one visit of a guest, or to one screen. Links
that were used are remembered until they expire, so that each is good once, over restarts.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fusion.errors import LedgerError
from fusion.money.sqlite import open_sqlite

FILE = "shopper.sqlite"
SessionKind = Literal["account", "visit", "screen"]
# By kind: how long a session lasts at most, and without being used. A phone is a customer's card; a guest's visit is
# looked at for as long as its link lives; a tablet hangs at its door for years.
MAX_S = {"account": 365 * 86400, "visit": 30 * 86400, "screen": 3650 * 86400}
IDLE_MAX_S = {"account": 90 * 86400, "visit": 30 * 86400, "screen": 90 * 86400}
# Sessions of one account or visit: phones of a family. The oldest ends first.
SESSIONS_OF_ONE_MAX = 10
# A use is written down this often, so that reading a page writes nothing.
_TOUCH_S = 3600
# A pairing code is typed in within minutes. 8 of 29 characters that people do not confuse are 38 bits.
PAIRING_MAX_S = 600
CODE_LETTERS, CODE_LENGTH = "23456789BCDFGHJKLMNPQRSTVWXYZ", 8
_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
  token BLOB PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, began_s INTEGER NOT NULL, used_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_of_subject ON session (subject);
CREATE TABLE IF NOT EXISTS used_link (nonce BLOB PRIMARY KEY, until_s INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pairing (code BLOB PRIMARY KEY, screen TEXT NOT NULL, until_s INTEGER NOT NULL)
STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class ShopperSession:
    """A session.

    Attributes:
        kind: whether it is an account's, a visit's or a screen's.
        subject: the account, the visit, or the screen (`gate/ID`, `zone/ID`).
        csrf: what a request that changes something must repeat; a page of another site cannot know it.
        key: hash of the token, by which the session is looked up again.
    """

    kind: SessionKind
    subject: str
    csrf: str
    key: bytes


class ShopperSessions:
    """The sessions of a store's pages; from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it. Raises LedgerError where it cannot be used."""
        self.path = path
        self._connection = open_sqlite(path, "sessions of shoppers", _SCHEMA)
        self._lock = threading.Lock()

    def begin(self, kind: SessionKind, subject: str, now_s: float) -> str:
        """Begin a session. Returns its token."""
        token = secrets.token_urlsafe(32)
        with self._running() as connection:
            run = connection.execute
            run("BEGIN IMMEDIATE")
            try:
                run("INSERT INTO session VALUES (?, ?, ?, ?, ?)", (_hash(token), kind, subject, now_s // 1, now_s // 1))
                run(
                    # Never the new one, in whatever second the others began.
                    "DELETE FROM session WHERE kind = ?1 AND subject = ?2 AND token <> ?4 AND token NOT IN "
                    "(SELECT token FROM session WHERE kind = ?1 AND subject = ?2 AND token <> ?4 "
                    "ORDER BY began_s DESC, token LIMIT ?3)",
                    (kind, subject, SESSIONS_OF_ONE_MAX - 1, _hash(token)),
                )
                for each, idle_s in IDLE_MAX_S.items():
                    run("DELETE FROM session WHERE kind = ? AND used_s < ?", (each, int(now_s) - idle_s))
                run("COMMIT")
            except BaseException:
                run("ROLLBACK")
                raise
        return token

    def get(self, token: str | None, now_s: float) -> ShopperSession | None:
        """The session of a token; None where it is forged, ended or too old."""
        return self._get(_hash(token or ""), now_s)

    def holds(self, session: ShopperSession, now_s: float) -> bool:
        """Whether a session has not ended."""
        return self._get(session.key, now_s) is not None

    def _get(self, key: bytes, now_s: float) -> ShopperSession | None:
        statement = "SELECT kind, subject, began_s, used_s FROM session WHERE token = ?"
        with self._running() as connection:
            row = connection.execute(statement, (key,)).fetchone()
            if row is None:
                return None
            kind, subject, began_s, used_s = row
            if now_s - began_s > MAX_S[kind] or now_s - used_s > IDLE_MAX_S[kind]:
                connection.execute("DELETE FROM session WHERE token = ?", (key,))
                return None
            if now_s - used_s > _TOUCH_S:
                connection.execute("UPDATE session SET used_s = ? WHERE token = ?", (int(now_s), key))
        return ShopperSession(kind, subject, hmac.digest(key, b"csrf", "sha256").hex(), key)

    def end(self, session: ShopperSession) -> None:
        """End a session."""
        with self._running() as connection:
            connection.execute("DELETE FROM session WHERE token = ?", (session.key,))

    def end_all(self, subjects: Container[str]) -> int:
        """End every session of some accounts, visits or screens. Returns how many."""
        with self._running() as connection:
            known = [subject for (subject,) in connection.execute("SELECT DISTINCT subject FROM session")]
            rows = [(subject,) for subject in known if subject in subjects]
            return connection.executemany("DELETE FROM session WHERE subject = ?", rows).rowcount if rows else 0

    def erase(self, subjects: Container[str]) -> int:
        """End every session of some accounts, and leave nothing of them on disk. Returns how many.

        Raises:
            LedgerError: another process reads an old state and keeps the log in use; call again.
        """
        n = self.end_all(subjects)
        with self._running() as connection:
            connection.execute("VACUUM")
            in_use = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if in_use:
            raise LedgerError(f"{self.path}: another process reads an old state of the sessions; call again")
        return n

    def use_link(self, nonce: bytes, until_s: int, now_s: float) -> bool:
        """Use a link up. False if it was used before; of many tries at once, exactly one gets True."""
        with self._running() as connection:
            run = connection.execute
            run("DELETE FROM used_link WHERE until_s < ?", (int(now_s) - 86400,))
            return run("INSERT OR IGNORE INTO used_link VALUES (?, ?)", (nonce, until_s)).rowcount == 1

    def pair(self, screen: str, now_s: float) -> str:
        """A code that makes one tablet the screen of a gate or zone, once, within PAIRING_MAX_S."""
        code = new_code()
        with self._running() as connection:
            run = connection.execute
            run("DELETE FROM pairing WHERE until_s < ?", (int(now_s),))
            run("INSERT INTO pairing VALUES (?, ?, ?)", (_hash(code), screen, int(now_s) + PAIRING_MAX_S))
        return code

    def take_pairing(self, code: str, now_s: float) -> str | None:
        """The screen that a code is for; None where there is none, or it was used or has expired."""
        statement = "DELETE FROM pairing WHERE code = ? AND until_s >= ? RETURNING screen"
        with self._running() as connection:
            row = connection.execute(statement, (_hash(spelled(code)), int(now_s))).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _running(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: sessions cannot be read or written: {error}") from error


def new_code() -> str:
    """A random code that a person types in."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))


def spelled(code: str) -> str:
    """A code as it was made, from how a person typed it: spaces, hyphens and small letters do not matter."""
    return "".join(letter for letter in code.upper() if letter in CODE_LETTERS)[: CODE_LENGTH + 1]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


__all__ = ["FILE", "ShopperSession", "ShopperSessions", "new_code", "spelled"]
