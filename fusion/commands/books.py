"""`fusion verify`, `statement`, `privacy` and `retention`: a store's books and what they keep about people."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.money.ledger import Ledger
    from fusion.store.models import Store
    from fusion.till.settings import TillSettings


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
        LedgerError: there are no books.
    """
    from fusion.money.ledger import Ledger

    return Ledger.open(arguments.ledger, load_store(arguments.store), arguments.vault, create=False)


def declare_books(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a store's books."""
    add_path(parser, "store", help="store folder, or name of an example store")
    add_path(parser, "ledger", help="path or URL of the books")
    add_path(parser, "--vault", help="vault beside books in PostgreSQL")


def _declare_verify(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "--checkpoint", help="signed checkpoint to compare with; by default the one beside the books")
    add_path(parser, "--key", help="PEM file of the key that checks its signature; by default from the store's key")


def _verify(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from fusion.money.verifying import verify_books

    found = verify_books(
        arguments.ledger, load_store(arguments.store), arguments.vault,
        checkpoint=Path(arguments.checkpoint) if arguments.checkpoint else None,
        key=Path(arguments.key) if arguments.key else None,
    )  # fmt: skip
    print(found.fault or f"{found.n_entries} entries, the chain holds, all accounts sum to {found.sums or 0}")
    for note in found.notes:
        print(note)
    return 1 if found.fault or any(found.sums.values()) else 0


def _declare_retention(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "--till", required=True, metavar="TILL.TOML", help="its [retention] holds the age limits")
    add_path(parser, "--folder", help="folder of the store's process; by default that of the books or the vault")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing; also while the store runs")


def _retention(arguments: argparse.Namespace) -> int:
    import contextlib
    import time
    from pathlib import Path

    from fusion.errors import ConfigError
    from fusion.files.private import LOCK_FILE, locked
    from fusion.gates.privacy import drop_old
    from fusion.gates.retention import Kept
    from fusion.money.databases import books_folder
    from fusion.money.ledger import Ledger
    from fusion.runner.folders import MARKER
    from fusion.till.settings import TillFile

    retention, dry_run = TillFile.load(arguments.till).settings.retention, arguments.dry_run
    if not any(retention.model_dump().values()):
        raise ConfigError(f"{arguments.till}: [retention] has no age limit; add one, such as evidence_days = 90")
    folder = Path(arguments.folder) if arguments.folder else books_folder(arguments.ledger, arguments.vault)
    store = load_store(arguments.store)
    if (folder / MARKER).exists():
        raise ConfigError(f"{folder} holds a simulation or a replay; pass a live store's, nothing was removed")
    with contextlib.ExitStack() as stack:
        books = Ledger.open(arguments.ledger, store, arguments.vault, create=False, read_only=dry_run)
        stack.callback(books.close)
        if not dry_run and not stack.enter_context(locked(folder / LOCK_FILE)):
            print(f"{folder}: a running store uses it, and removes by itself what is past its time")
            return 1
        found = drop_old(store, retention, Kept(folder, books, dry_run=dry_run), time.time_ns())
    for name, n in found.items():
        print(f"{name}: {n} past their time, {'would be removed' if dry_run else 'removed'}")
    if not found:
        print("nothing is past its time")
    return 0


def _declare_privacy(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--sheet", action="store_true", help="a data-protection sheet, Markdown, to be completed")
    add_path(parser, "--till", metavar="TILL.TOML", help="with --sheet: names recipients, books, copies and age limits")
    shown.add_argument("--notice", choices=("de", "us-ny"), help="the notice for the door in Germany or New York City")


def _recipients(settings: TillSettings) -> Iterator[str]:
    """Who gets data by the settings of an installation, a line each."""
    if settings.payment is not None:
        where = f", {settings.payment.url}" if settings.payment.url else ""
        yield f"Payment provider `{settings.payment.provider}`{where}: tokens, amounts, ids of visits"
    if settings.mail is not None:
        yield f"Mail server {settings.mail.host}: receipts and the addresses that customers gave"
    if settings.customers is not None:
        yield f"Read from the retailer's list {settings.customers.file}: accounts, tokens, addresses, memberships"
    if settings.books.remote:
        yield "Server of the books: visits, receipts and payments under pseudonyms; the vault stays in the store"
    for folder in settings.checkpoints.copies_to if settings.checkpoints is not None else ():
        yield f"Copies of checkpoints in {folder}: number and hash of the newest entry, nothing about people"


def _privacy(arguments: argparse.Namespace) -> int:
    from fusion.errors import ConfigError
    from fusion.gates.data_protection import notice, sheet
    from fusion.gates.privacy import holdings_text
    from fusion.till.settings import TillFile, TillSettings

    store = load_store(arguments.store)
    if arguments.till and not arguments.sheet:
        raise ConfigError("--till goes with --sheet")
    if arguments.sheet:
        settings = TillFile.load(arguments.till).settings if arguments.till else TillSettings()
        print(sheet(store, tuple(_recipients(settings)), settings.retention), end="")
    elif arguments.notice:
        print(notice(store, arguments.notice), end="")
    else:
        print(holdings_text(store))
    return 0


def _declare_statement(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "chain", help="chain.toml")
    add_path(parser, "books", help="folder of the books, or postgresql://...#FOLDER with the vaults' folder")
    parser.add_argument("month", help="such as 2026-03")
    parser.add_argument("--dry-run", action="store_true", help="post nothing")


def _statement(arguments: argparse.Namespace) -> int:
    from fusion.errors import LedgerError
    from fusion.money.retailers import Chain
    from fusion.money.statements import post_fee, statement

    chain = Chain.load(arguments.chain)
    # Of all stores before anything is posted for one of them.
    books = chain.books(arguments.books, read_only=True)
    empty = [ledger.database.where for *_, ledger in books if not ledger.head().seq]
    if empty:
        raise LedgerError(f"{', '.join(empty)}: holds no entry, so there is nothing to state; pass the right folder")
    for retailer, store, ledger in chain.books(arguments.books, read_only=arguments.dry_run):
        if not arguments.dry_run:
            post_fee(ledger, store, retailer, arguments.month)
        print(statement(ledger, store, retailer, arguments.month).text(store), end="\n\n")
    return 0


VERIFY = Command(
    "verify",
    "Check a store's books row by row, their vault, and the newest signed checkpoint; writes nothing.",
    (
        "STORE out/ledger.sqlite --checkpoint /mnt/elsewhere/shop.checkpoint",
        "STORE postgresql://server/books?sslmode=verify-full --vault vault.sqlite",
    ),
    {
        0: "the books are whole",
        1: "an entry or the vault was changed or lost, or the accounts do not sum to zero",
        2: "wrong usage, there are no books, or the file is an incomplete copy of them",
    },
    _declare_verify,
    _verify,
)
STATEMENT = Command(
    "statement",
    "Print a month of every retailer's books, and post the platform's fee.",
    ("chain.toml books 2026-03", "chain.toml books 2026-03 --dry-run"),
    {0: "the statements were printed", 2: "a store has no books there, or empty ones; nothing was posted"},
    _declare_statement,
    _statement,
)
PRIVACY = Command(
    "privacy",
    "List what a store keeps about people, where, why and for how long; draft what its controller has to publish.",
    ("STORE --sheet", "STORE --notice de"),
    {0: "the list was printed"},
    _declare_privacy,
    _privacy,
)
RETENTION = Command(
    "retention",
    "Remove evidence, results, recordings and receipts of a stopped store that are past its till.toml's age limits.",
    (
        "STORE serve/shop/shop.sqlite --till till.toml --dry-run",
        "STORE books/shop.sqlite --folder serve/shop --till till.toml",
    ),
    {0: "what is past its time is removed, or listed", 1: "the store runs and does it by itself; nothing was removed"},
    _declare_retention,
    _retention,
)
