"""`fusion verify`, `statement`, `privacy` and `forget`: a store's books and what they keep about people."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.money.ledger import Ledger
    from fusion.store.models import Store


def load_store(path_or_name: str) -> Store:
    """The store of a folder, or the example store of this name. Raises ConfigError with every fault."""
    from fusion.example_stores.catalogue import store_folder
    from fusion.store.models import Store

    return Store.load(store_folder(path_or_name))


def require_books(ledger: str) -> None:
    """Raise LedgerError where the books are a file that does not exist."""
    from pathlib import Path

    from fusion.errors import LedgerError

    if "://" not in ledger and not Path(ledger).exists():
        raise LedgerError(f"{ledger}: the books do not exist; `fusion run` and `fusion serve` create them")


def open_ledger(arguments: argparse.Namespace) -> Ledger:
    """The books that a command names; they must exist.

    Args:
        arguments: with `store`, `ledger` and `vault`.

    Raises:
        LedgerError: the books are a file that does not exist.
    """
    from fusion.money.ledger import Ledger

    require_books(arguments.ledger)
    return Ledger.open(arguments.ledger, load_store(arguments.store), vault=arguments.vault)


def _declare_books(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    add_path(parser, "ledger", help="path or URL of the books")
    add_path(parser, "--vault", help="vault beside books in PostgreSQL")


def _verify(arguments: argparse.Namespace) -> int:
    with open_ledger(arguments) as ledger:
        fault = ledger.verify()
        sums = {currency: sum(accounts.values()) for currency, accounts in ledger.balances().items()}
        print(fault or f"{ledger.head().seq} entries, the chain holds, all accounts sum to {sums or 0}")
    return 1 if fault or any(sums.values()) else 0


def _declare_forget(parser: argparse.ArgumentParser) -> None:
    _declare_books(parser)
    parser.add_argument(
        "--account", help="erase this account at once; the store itself deletes the person's face and profile"
    )


def _forget(arguments: argparse.Namespace) -> int:
    import time

    from fusion.gates.privacy import Forgetting

    with open_ledger(arguments) as ledger:
        forgetting = Forgetting(load_store(arguments.store), ledger)
        if arguments.account is None:
            n_visits = forgetting.due(time.time_ns())
        else:
            n_visits = forgetting.erase(arguments.account)["visits"]
    print(f"{n_visits} visits forgotten")
    return 0


def _declare_privacy(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")


def _privacy(arguments: argparse.Namespace) -> int:
    from fusion.gates.privacy import holdings_text

    print(holdings_text(load_store(arguments.store)))
    return 0


def _declare_statement(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "chain", help="chain.toml")
    add_path(parser, "books", help="folder of the books, or postgresql://...#FOLDER with the vaults' folder")
    parser.add_argument("month", help="such as 2026-03")
    parser.add_argument("--dry-run", action="store_true", help="post nothing")


def _statement(arguments: argparse.Namespace) -> int:
    from fusion.money.retailers import Chain
    from fusion.money.statements import post_fee, statement

    for retailer, store, ledger in Chain.load(arguments.chain).books(arguments.books):
        if not arguments.dry_run:
            post_fee(ledger, store, retailer, arguments.month)
        print(statement(ledger, store, retailer, arguments.month).text(store), end="\n\n")
    return 0


VERIFY = Command(
    "verify",
    "Check a store's books row by row: the hash chain holds, and all accounts sum to zero.",
    ("STORE out/ledger.sqlite", "STORE postgresql://server/books --vault vault.sqlite"),
    {0: "the books are whole", 1: "an entry was changed or lost, or the accounts do not sum to zero"},
    _declare_books,
    _verify,
)
STATEMENT = Command(
    "statement",
    "Print a month of every retailer's books, and post the platform's fee.",
    ("chain.toml books 2026-03", "chain.toml books 2026-03 --dry-run"),
    {0: "the statements were printed"},
    _declare_statement,
    _statement,
)
PRIVACY = Command(
    "privacy",
    "List what a store keeps about people, where, why and for how long.",
    ("STORE", "amazon_go"),
    {0: "the list was printed"},
    _declare_privacy,
    _privacy,
)
FORGET = Command(
    "forget",
    "Unlink visits from the people who made them: those past their time, or all of one account.",
    ("STORE out/ledger.sqlite", "STORE out/ledger.sqlite --account anna"),
    {0: "the visits are unlinked"},
    _declare_forget,
    _forget,
)
