"""The vault: which customer each visit belonged to. It lies outside the chain of entries and is made to be erased."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusion.errors import LedgerError
from fusion.money.schema import statements

VAULT_SCHEMA = """
CREATE TABLE IF NOT EXISTS link (
  visit TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  enter_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS link_of_account ON link (account);
CREATE TABLE IF NOT EXISTS holder (
  pseudonym TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  token TEXT,
  email TEXT,
  since_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holder_of_account ON holder (account);
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The customer behind a pseudonym, for as long as the vault keeps them.

    Attributes:
        pseudonym: the name under which the engine and the books know the visit.
        account: the retailer's name for the customer.
        token: the payment provider's name for their means of payment; never a card number.
        email: address for receipts, if the customer gave one.
        since_ns: when the pseudonym was assigned.
    """

    pseudonym: str
    account: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    since_ns: int = 0


class Vault:
    """Links from visits to accounts, and from pseudonyms to customers, in SQLite.

    Its writes belong to the books' transaction. In the books' own file both commit together; a vault in a separate file
    commits just before the books do, so a crash between the two leaves at worst a link to a visit that does not exist.
    """

    def __init__(self, connection: sqlite3.Connection, separate: bool, roll_back_books: Callable[[], None]) -> None:
        """Use a vault.

        Args:
            connection: to the file, whose tables exist.
            separate: whether the vault has a file, and so a transaction, of its own.
            roll_back_books: called when a statement fails, so that no entry can be committed without its link.
        """
        self.connection = connection
        self._separate, self._roll_back_books = separate, roll_back_books

    def account(self, visit: str) -> str | None:
        """The account of a visit; None without one, or once it is unlinked."""
        row = self._run("SELECT account FROM link WHERE visit = ?", (visit,)).fetchone()
        return None if row is None else row[0]

    def link(self, visit: str, account: str, enter_ns: int) -> None:
        """Record which account a visit belongs to."""
        # The link may exist already, if the books' own commit failed after the vault's.
        statement = "INSERT OR IGNORE INTO link (visit, account, enter_ns) VALUES (?, ?, ?)"
        self._write(statement, (visit, account, enter_ns))

    def hold(self, holder: Holder) -> None:
        """Keep the customer behind a pseudonym. Raises LedgerError if the pseudonym is taken."""
        row = (holder.pseudonym, holder.account, holder.token, holder.email, holder.since_ns)
        self._write("INSERT INTO holder (pseudonym, account, token, email, since_ns) VALUES (?, ?, ?, ?, ?)", row)

    def holder(self, pseudonym: str) -> Holder | None:
        """The customer behind a pseudonym; None if it is unknown or was forgotten."""
        statement = "SELECT pseudonym, account, token, email, since_ns FROM holder WHERE pseudonym = ?"
        row = self._run(statement, (pseudonym,)).fetchone()
        return None if row is None else Holder(*row)

    def pseudonyms(self, account: str) -> list[str]:
        """Pseudonyms of an account, newest first."""
        rows = self._run("SELECT pseudonym FROM holder WHERE account = ? ORDER BY since_ns DESC", (account,))
        return [pseudonym for (pseudonym,) in rows]

    def forget_before(self, t_ns: int) -> int:
        """Forget visits and pseudonyms from before an instant; returns the number of visits."""
        return self._keep(
            "SELECT * FROM link WHERE enter_ns >= ? ORDER BY visit",
            "SELECT * FROM holder WHERE since_ns >= ? ORDER BY pseudonym",
            t_ns,
        )

    def forget_account(self, account: str) -> int:
        """Forget an account under its own name and all its pseudonyms; returns the number of visits."""
        return self._keep(
            "SELECT * FROM link WHERE account <> ?1 "
            "AND account NOT IN (SELECT pseudonym FROM holder WHERE account = ?1) ORDER BY visit",
            "SELECT * FROM holder WHERE account <> ? ORDER BY pseudonym",
            account,
        )

    def _keep(self, links: str, holders: str, value: int | str) -> int:
        """Forget every row except those that the two queries select with the value."""
        kept_links = self._run(links, (value,)).fetchall()
        kept_holders = self._run(holders, (value,)).fetchall()
        n_links, n_holders = (self._run(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("link", "holder"))
        if (n_links, n_holders) != (len(kept_links), len(kept_holders)):
            # Deleting rows is not enough, not even with secure_delete: when SQLite moves rows between pages, their old
            # place keeps the bytes. The pages of a dropped table are zeroed whole.
            for table in ("link", "holder"):
                self._write(f"DROP TABLE {table}")
            for statement in statements(VAULT_SCHEMA):
                self._write(statement)
            for row in kept_links:
                self._write("INSERT INTO link VALUES (?, ?, ?)", row)
            for row in kept_holders:
                self._write("INSERT INTO holder VALUES (?, ?, ?, ?, ?)", row)
        return int(n_links) - len(kept_links)

    def empty_log(self) -> None:
        """Empty the write-ahead log, which still holds the pages as they were before rows were forgotten.

        Raises:
            LedgerError: another process reads an old state, which keeps the log in use.
        """
        if self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise LedgerError(
                "the accounts are unlinked, but the vault's write-ahead log still holds them while another process "
                "reads it; call again once that reader has finished"
            )

    def commit(self) -> None:
        """Commit a separate vault's transaction; one inside the books commits with them."""
        if self._separate and self.connection.in_transaction:
            self._run("COMMIT")

    def roll_back(self) -> None:
        """Roll back a separate vault's transaction."""
        if self._separate and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _write(self, statement: str, values: Sequence[Any] = ()) -> None:
        if self._separate and not self.connection.in_transaction:
            self._run("BEGIN IMMEDIATE")
        self._run(statement, values)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self.connection.execute(statement, values)
        except sqlite3.Error as error:
            # Otherwise an entry whose link is missing could be committed.
            self._roll_back_books()
            raise LedgerError(f"the vault failed and nothing was written: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
