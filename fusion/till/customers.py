"""Customers as the retailer knows them: how an account pays, where its receipts go, what it is entitled to."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fusion.errors import ConfigError
from fusion.files.private import open_to_others
from fusion.gates.watched import WatchedFile

COLUMNS = ("account", "token", "email", "member", "adult")
_YES_NO = {"yes": True, "no": False, "": False}
# A million customers of 200 bytes each; a larger file is not a list of customers.
FILE_MAX_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer.

    Attributes:
        account: the account.
        token: the payment provider's name for their means of payment; None where nothing is known.
        email: address for receipts; None where they want none.
        member: whether members' prices hold for them.
        adult: whether their age was verified once, so that they may take goods with a minimum age.
        greeting: what the gate shows.
    """

    account: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    member: bool = False
    adult: bool = False
    greeting: str = "Welcome"


class Customers(Protocol):
    """Finds customers by their account; from several threads, from memory."""

    def of(self, account: str) -> Customer | None:
        """The customer of an account; None where the retailer knows nothing about it."""
        ...

    def listed(self, names: Container[str]) -> Sequence[str]:
        """Where the retailer's list names a person, such as "customers.csv:17"."""
        ...


class NoCustomers:
    """Knows no account: payment tokens come from terminals alone."""

    def of(self, account: str) -> Customer | None:
        """See `Customers`."""
        return None

    def listed(self, names: Container[str]) -> Sequence[str]:
        """See `Customers`."""
        return ()


class CustomerFile:
    """Customers of a CSV file, which the retailer's own systems keep up to date; read again when it has changed.

    Columns: account, token, email, member (yes or no), adult (yes or no). A new version of the file that cannot be
    read leaves the previous one in use.
    """

    def __init__(self, path: Path, report: Callable[[WatchedFile[Any]], object] = lambda file: None) -> None:
        """Read the file. report: see `WatchedFile`. Raises FusionError, ConfigError with every fault of its rows."""
        self.file: WatchedFile[dict[str, Customer]] = WatchedFile(
            path, lambda text: _customers_of(path, text), {}, report, keeps=True, check=_check
        )

    def of(self, account: str) -> Customer | None:
        """See `Customers`."""
        return self.file.content().get(account)

    def at_address(self, email: str) -> list[Customer]:
        """Customers whose receipts go to an address, however its letters are written; reads the whole list.

        Write to the address that the list holds, never to the one that was asked for: letters that are the same here
        ("ß" and "ss", "k" and the sign of the kelvin) are different ones to a mail server, and another person's.
        """
        wanted = email.strip().casefold()
        return [each for each in self.file.content().values() if each.email and each.email.casefold() == wanted]

    def listed(self, names: Container[str]) -> Sequence[str]:
        """See `Customers`."""
        return rows_of(self.file.path, names)


def rows_of(path: Path, names: Container[str]) -> list[str]:
    """File and line of the rows of some accounts; empty where the file cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            return [f"{path}:{rows.line_num}" for row in rows if row and row[0] in names]
    except (OSError, ValueError, csv.Error):
        return []


def _check(path: Path) -> None:
    """Raise ConfigError where other users can read a list of customers, or it is none by its size."""
    if open_to_others(path):
        raise ConfigError(f"{path} can be read by others; run chmod 600 {path}")
    n_bytes = path.stat().st_size
    if n_bytes > FILE_MAX_BYTES:
        raise ConfigError(f"{path}: want at most {FILE_MAX_BYTES >> 20} MiB, got {n_bytes >> 20}")


def _customers_of(path: Path, text: str) -> dict[str, Customer]:
    """The customers of a file's text by account. Raises ConfigError with every fault; values are not repeated."""
    # Lines may end as any machine ends them, and a quote that is left open must not swallow the customers below it.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults: list[str] = []
    found: dict[str, Customer] = {}
    try:
        if tuple(next(rows, ())) != COLUMNS:
            raise ConfigError(f"{path}:1: want the columns {','.join(COLUMNS)}")
        for number, row in enumerate(rows, 2):
            fault = _row_fault(row, found)
            if fault:
                faults.append(f"{path}:{number}: {fault}")
                continue
            account, token, email, member, adult = row
            found[account] = Customer(account, token or None, email or None, _YES_NO[member], _YES_NO[adult])
    except csv.Error as error:
        faults.append(f"{path}:{rows.line_num}: want CSV, got: {error}")
    if faults:
        raise ConfigError(faults)
    return found


def _row_fault(row: list[str], found: dict[str, Customer]) -> str:
    if len(row) != len(COLUMNS):
        return f"want {len(COLUMNS)} fields, got {len(row)}"
    account, token, email, member, adult = row
    if not 1 <= len(account) <= 255:
        return "account: want 1 to 255 characters"
    if account in found:
        return "account: want each once"
    if len(token) > 255 or len(email) > 255:
        return "token, email: want at most 255 characters"
    if email and "@" not in email:
        return "email: want an address with @"
    if member not in _YES_NO or adult not in _YES_NO:
        return "member, adult: want yes or no"
    return ""
