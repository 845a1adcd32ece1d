"""The vault: which customer each visit belonged to. It lies outside the chain of entries and is made to be erased.

Every row carries a seal: an HMAC-SHA256 over all its columns under a key that is derived from the store's key, which
lies beside the vault. A link's columns include the hash of the entry that began its visit, so that a seal holds for
this visit of these books only. A row whose seal does not fit names no customer: the visit is treated as unlinked, which
charges no one, and `verify` names it.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fusion.errors import ConfigError, LedgerError
from fusion.files.secrets import KEY_FILE, derived, fingerprint, store_key
from fusion.money.entries import canonical_json
from fusion.money.schema import Row, statements

VAULT_SCHEMA = """
CREATE TABLE IF NOT EXISTS link (
  visit TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  enter_ns INTEGER NOT NULL,
  entry BLOB NOT NULL,
  seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS link_of_account ON link (account);
CREATE TABLE IF NOT EXISTS holder (
  pseudonym TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  token TEXT,
  email TEXT,
  since_ns INTEGER NOT NULL,
  seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holder_of_account ON holder (account);
"""


# By table, the column that names a row.
TABLES = {"link": "visit", "holder": "pseudonym"}
# Rows of each table that show whether a vault belongs to a key.
_SAMPLED = 8
_INTO_LINK = "INTO link (visit, account, enter_ns, entry, seal) VALUES (?, ?, ?, ?, ?)"
_INTO_HOLDER = "INTO holder (pseudonym, account, token, email, since_ns, seal) VALUES (?, ?, ?, ?, ?, ?)"


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


def seal_of(key: bytes, row: Sequence[Any]) -> bytes:
    """The seal of a row without it; rows of the two tables differ in their number of columns."""
    values = [value.hex() if isinstance(value, bytes) else value for value in row]
    return hmac.digest(key, canonical_json(values).encode("ascii"), "sha256")


class Named(NamedTuple):
    """A row of the vault: a visit or a pseudonym, the name that it goes by, and since when."""

    subject: str
    name: str
    t_ns: int


class Vault:
    """Links from visits to accounts, and from pseudonyms to customers, in SQLite.

    Its writes belong to the books' transaction. In the books' own file both commit together; a vault in a separate file
    commits just before the books do, so a crash between the two leaves at worst a link to a visit that does not exist.

    Attributes:
        connection: to the file, whose tables exist, or are about to be created.
        key_id: fingerprint of the store's key; None where only a reader has the vault, and not the key.
        n_refused: rows that were asked for and whose seal does not fit.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        roll_back_books: Callable[[], None],
        *,
        separate: bool = False,
        read_only: bool = False,
    ) -> None:
        """Use a vault.

        Args:
            connection: to the file.
            folder: holds the store's key, which is made with a new vault.
            roll_back_books: called when a statement fails, so that no entry can be committed without its link.
            separate: whether the vault has a file, and so a transaction, of its own.
            read_only: nothing is written, and no key is made.

        Raises:
            LedgerError: the key of a vault that holds rows is missing, or cannot be used.
        """
        self.connection = connection
        self.key_id: str | None = None
        self.n_refused = 0
        self._separate, self._roll_back_books = separate, roll_back_books
        self._key = b""
        if read_only and not (folder / KEY_FILE).exists():
            return
        try:
            key = store_key(folder, create=not read_only and not self._holds_seals())
        except ConfigError as error:
            raise LedgerError(
                f"the vault cannot be used without the key that seals it: {error}; where it is lost for good: see "
                "`fusion reseal`"
            ) from None
        self._key, self.key_id = derived(key, "vault"), fingerprint(key)
        if not read_only and self._is_foreign():
            raise LedgerError(
                f"{folder / KEY_FILE}: the vault was sealed with another key; put back the one that lay beside it"
            )

    def _is_foreign(self) -> bool:
        """Whether rows are sealed with another key: not one of a few fits. A single changed row is no reason."""
        if not self.is_sealed:
            return False
        rows = [row for table in TABLES for row in self._run(f"SELECT * FROM {table} LIMIT {_SAMPLED}").fetchall()]
        return len(rows) > 1 and all(self._sealed(content) != seal for *content, seal in rows)

    def _holds_seals(self) -> bool:
        return self.is_sealed and any(self._run(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in TABLES)

    @property
    def is_sealed(self) -> bool:
        """Whether its tables have seals; those that an older version made have none."""
        return bool(self._run("SELECT count(*) FROM pragma_table_info('link') WHERE name = 'seal'").fetchone() == (1,))

    def seal_all(self, entry_of: Callable[[str], bytes]) -> dict[str, int]:
        """Give seals to the rows of a vault that an older version made. Returns how many rows of each table.

        `entry_of` is the hash of the entry that began a visit; empty where the books have none.
        """
        links = self._run("SELECT visit, account, enter_ns FROM link ORDER BY visit").fetchall()
        holders = self._run("SELECT pseudonym, account, token, email, since_ns FROM holder ORDER BY 1").fetchall()
        self._replace_all([(*row, entry_of(row[0])) for row in links], holders)
        return {"links": len(links), "holders": len(holders)}

    def _sealed(self, row: Sequence[Any]) -> bytes:
        return seal_of(self._key, row)

    def _opened(self, row: Sequence[Any] | None) -> Sequence[Any] | None:
        """A row whose last column is its seal, without it; None where there is none, or the seal does not fit."""
        if row is None:
            return None
        *content, seal = row
        if self._key and hmac.compare_digest(self._sealed(content), seal):
            return content
        self.n_refused += 1
        return None

    def faults(self, entry_of: Callable[[str], bytes]) -> Iterator[str]:
        """Rows whose seal does not fit, and links to a visit that began with another entry.

        Without the key only the latter are found; `key_id` is None then.
        """
        if not self.is_sealed:
            yield (
                "vault: its rows are not sealed; an older version wrote it, or the seals were removed: look at who "
                "could write to it, then start the store once, which seals it and notes so in the books"
            )
            return
        for row in self._run("SELECT visit, account, enter_ns, entry, seal FROM link ORDER BY visit"):
            content = self._opened(row) if self._key else row
            if content is None:
                yield f"vault: the link of visit {row[0]!r} was changed, or sealed with another store's key"
            elif (entry := entry_of(row[0])) != content[3] and (entry or not self._separate):
                yield f"vault: the link of visit {row[0]!r} belongs to another entry than the one that began it"
        for row in self._run("SELECT pseudonym, account, token, email, since_ns, seal FROM holder ORDER BY pseudonym"):
            if self._key and self._opened(row) is None:
                yield f"vault: the customer behind {row[0]!r} was changed, or sealed with another store's key"

    def account(self, visit: str) -> str | None:
        """The account of a visit; None without one, or once it is unlinked."""
        row = self._run("SELECT visit, account, enter_ns, entry, seal FROM link WHERE visit = ?", (visit,)).fetchone()
        content = self._opened(row)
        return None if content is None else content[1]

    def link(self, visit: str, account: str, enter_ns: int, entry: bytes) -> None:
        """Record which account a visit belongs to; `entry` is the hash of the entry that began it."""
        # The link may exist already, if the books' own commit failed after the vault's.
        row = (visit, account, enter_ns, entry)
        self._write(f"INSERT OR REPLACE {_INTO_LINK}", (*row, self._sealed(row)))

    def hold(self, holder: Holder) -> None:
        """Keep the customer behind a pseudonym. Raises LedgerError if the pseudonym is taken."""
        row = (holder.pseudonym, holder.account, holder.token, holder.email, holder.since_ns)
        self._write(f"INSERT {_INTO_HOLDER}", (*row, self._sealed(row)))

    def holder(self, pseudonym: str) -> Holder | None:
        """The customer behind a pseudonym; None if it is unknown or was forgotten."""
        statement = "SELECT pseudonym, account, token, email, since_ns, seal FROM holder WHERE pseudonym = ?"
        content = self._opened(self._run(statement, (pseudonym,)).fetchone())
        return None if content is None else Holder(*content)

    def pseudonyms(self, account: str) -> list[str]:
        """Pseudonyms of an account, newest first."""
        rows = self._run("SELECT pseudonym FROM holder WHERE account = ? ORDER BY since_ns DESC", (account,))
        return [pseudonym for (pseudonym,) in rows]

    def named(self) -> tuple[list[Named], list[Named]]:
        """All that the vault knows: names by which visits go, and behind which name which account stands."""
        links = self._run("SELECT visit, account, enter_ns FROM link ORDER BY enter_ns, visit")
        holders = self._run("SELECT pseudonym, account, since_ns FROM holder ORDER BY since_ns, pseudonym")
        return [Named(*row) for row in links], [Named(*row) for row in holders]

    def visits(self, account: str) -> list[str]:
        """Visits of an account under its own name and all its pseudonyms, newest first."""
        statement = (
            "SELECT visit FROM link WHERE account = ?1 "
            "OR account IN (SELECT pseudonym FROM holder WHERE account = ?1) ORDER BY enter_ns DESC"
        )
        return [visit for (visit,) in self._run(statement, (account,))]

    def forget_before(self, t_ns: int) -> int:
        """Forget visits and pseudonyms from before an instant; returns the number of visits."""
        return self._keep(lambda link: link[2] >= t_ns, lambda holder: holder[4] >= t_ns)

    def forget_account(self, account: str) -> int:
        """Forget an account under its own name and all its pseudonyms; returns the number of visits."""
        names = {account, *self.pseudonyms(account)}
        return self._keep(lambda link: link[1] not in names, lambda holder: holder[1] != account)

    def forget_names(self, names: Container[str]) -> int:
        """Forget visits and pseudonyms that go by these names; returns the number of visits.

        The account behind a pseudonym is no such name: its other pseudonyms stay.
        """
        return self._keep(lambda link: link[1] not in names, lambda holder: holder[0] not in names)

    def _keep(self, keeps_link: Callable[[Row], bool], keeps_holder: Callable[[Row], bool]) -> int:
        """Forget every row except those that are kept, by their columns."""
        links = self._run("SELECT * FROM link ORDER BY visit").fetchall()
        holders = self._run("SELECT * FROM holder ORDER BY pseudonym").fetchall()
        kept_links, kept_holders = list(filter(keeps_link, links)), list(filter(keeps_holder, holders))
        if len(links) + len(holders) != len(kept_links) + len(kept_holders):
            # Rows keep the seals that they have: one that does not fit must not be given another.
            self._replace_all(kept_links, kept_holders)
        return len(links) - len(kept_links)

    def _replace_all(self, links: Sequence[Sequence[Any]], holders: Sequence[Sequence[Any]]) -> None:
        """Make both tables again with these rows; one without a seal is given its own."""
        # Deleting rows is not enough, not even with secure_delete: when SQLite moves rows between pages, their old
        # place keeps the bytes. The pages of a dropped table are zeroed whole.
        for table in TABLES:
            self._write(f"DROP TABLE {table}")
        for statement in statements(VAULT_SCHEMA):
            self._write(statement)
        for into, n_columns, rows in ((_INTO_LINK, 5, links), (_INTO_HOLDER, 6, holders)):
            for row in rows:
                self._write(f"INSERT {into}", row if len(row) == n_columns else (*row, self._sealed(row)))

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
