"""`fusion serve`, `replay`, `ship` and `reconcile`: many stores, many recordings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.books import load_store, open_ledger
from fusion.commands.parser import Command, add_path
from fusion.commands.signals import stop_signals

if TYPE_CHECKING:
    from fusion.chain.book import ChainBook
    from fusion.chain.streams import Source
    from fusion.money.retailers import Retailer
    from fusion.store.models import Store


def _declare_serve(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "chain", help="chain.toml with a section [serve]")


def _serve(arguments: argparse.Namespace) -> int:
    from fusion.live.supervisor import serve

    return serve(arguments.chain)


def _declare_replay(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "recordings", nargs="+", metavar="RECORDING", help="folder of a recording")
    add_path(parser, "--out", required=True, help="folder for the results; each recording gets a folder in it")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="'local' for Ray on this machine, or the address of a Ray cluster; without it, processes of this machine",
    )
    parser.add_argument("--workers", type=int, help="recordings at once (one for every core)")


def _replay(arguments: argparse.Namespace) -> int:
    from contextlib import closing, redirect_stdout

    from tqdm import tqdm

    from fusion.chain.replays import replay_many, table
    from fusion.errors import ConfigError

    if Path(arguments.out).exists() and not Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out} is a file; pass a folder")
    outcomes = []
    replays = replay_many(
        arguments.recordings, arguments.out, workers=arguments.workers, cluster=arguments.cluster
    )  # fmt: skip
    progress = tqdm(total=len(arguments.recordings), unit="recording", disable=None)
    # Ray reports workers that died on stdout, where the table belongs.
    with closing(replays), progress, redirect_stdout(sys.stderr):
        for outcome in replays:
            outcomes.append(outcome)
            progress.update()
    print(table(outcomes, arguments.out))
    return 1 if any(outcome.fault for outcome in outcomes) else 0


def _declare_books(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder")
    parser.add_argument("--ledger", required=True, help="path or URL of the books")
    add_path(parser, "--vault", help="vault beside books in PostgreSQL; not shipped")
    add_path(parser, "--outbox", help="file of goods that moved and warnings, where the store keeps one")
    parser.add_argument("--chain", required=True, help="URL of the chain's book, postgresql://server/database?sslmode=verify-full")
    add_path(parser, "--retailers", metavar="CHAIN_TOML", help="which retailer the store belongs to, and its brand")


@dataclass(frozen=True)
class _Shipment:
    """A store, its retailer, the streams that it ships, and the book that they go to."""

    store: Store
    retailer: Retailer | None
    sources: tuple[Source, ...]
    book: ChainBook


@contextmanager
def _shipment(arguments: argparse.Namespace) -> Iterator[_Shipment]:
    from fusion.chain.book import ChainBook
    from fusion.chain.streams import sources_of
    from fusion.errors import ConfigError, LedgerError
    from fusion.live.outbox import Outbox
    from fusion.money.retailers import Chain

    store = load_store(arguments.store)
    retailer = None
    if arguments.retailers:
        try:
            retailer = Chain.load(arguments.retailers).retailer_of(store)
        except KeyError:
            raise ConfigError(f"{arguments.retailers} does not list the store {store.id!r}; add it there") from None
    with ExitStack() as stack:
        book = stack.enter_context(ChainBook(arguments.chain, create=arguments.command == "ship"))
        ledger = stack.enter_context(open_ledger(arguments))
        if arguments.outbox and not Path(arguments.outbox).exists():
            raise LedgerError(
                f"{arguments.outbox}: the outbox does not exist; leave --outbox out where a store has none"
            )
        outbox = stack.enter_context(Outbox(arguments.outbox, store)) if arguments.outbox else None
        yield _Shipment(store, retailer, sources_of(store, ledger, outbox), book)


def _declare_ship(parser: argparse.ArgumentParser) -> None:
    _declare_books(parser)
    parser.add_argument(
        "--follow", action="store_true", help="keep shipping new rows until Ctrl-C, through lost connections"
    )
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS",
        help="how long to wait for a lost connection (60; with --follow without end)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS",
        help="with --follow, how often to look for new rows in the store (1)",
    )  # fmt: skip


def _ship(arguments: argparse.Namespace) -> int:
    from fusion.chain.shipping import Shipper
    from fusion.errors import terminal_text

    with _shipment(arguments) as shipment, ExitStack() as stack:
        shipper = Shipper(
            shipment.store, shipment.sources, shipment.book, retailer=shipment.retailer,
            report=lambda text: print(terminal_text(text), flush=True),
            warn=lambda text: print(f"fusion ship: {terminal_text(text)}", file=sys.stderr),
        )  # fmt: skip
        stop = stack.enter_context(stop_signals()) if arguments.follow else None
        patience_s = None if arguments.follow else arguments.patience
        sent = shipper.run(follow=arguments.follow, every_s=arguments.every, patience_s=patience_s, stop=stop)
    rows = ", ".join(f"{sent.get(source.stream, 0)} rows of {source.stream}" for source in shipment.sources)
    print(f"{shipment.store.id}: {rows}")
    return 0


def _declare_reconcile(parser: argparse.ArgumentParser) -> None:
    _declare_books(parser)
    parser.add_argument("--all", action="store_true", help="count rows that are not shipped yet as a disagreement")


def _reconcile(arguments: argparse.Namespace) -> int:
    from fusion.chain.reconciling import reconcile

    with _shipment(arguments) as shipment:
        comparisons = reconcile(
            shipment.store, shipment.sources, shipment.book, retailer=shipment.retailer, all_shipped=arguments.all
        )
    print("\n".join(f"{shipment.store.id}: {comparison.text()}" for comparison in comparisons))
    return 0 if all(comparison.agrees for comparison in comparisons) else 1


def _declare_roles(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "retailers", metavar="CHAIN_TOML", help="the retailers and their stores")
    parser.add_argument("--chain", help="URL of the chain's book, as its owner: run the script there, print nothing")


def _roles(arguments: argparse.Namespace) -> int:
    from fusion.chain.book import ChainBook
    from fusion.chain.roles import role_of, roles_sql
    from fusion.money.retailers import Chain

    chain = Chain.load(arguments.retailers)
    stores = [(store, chain.retailer_of(store)) for stores in chain.stores.values() for store in stores]
    if not arguments.chain:
        print(roles_sql(stores), end="")
        return 0
    with ChainBook(arguments.chain) as book:
        book.set_up_roles(stores)
    print("\n".join(f"{store.id}: writes as {role_of(store.id)}" for store, _ in stores))
    return 0


def _declare_quarantine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="id of the store")
    parser.add_argument("stream", choices=("ledger", "goods", "health"), help="the stream, as the shipper names it")
    parser.add_argument("first", type=int, help="number of the first row to set aside; all after it go too")
    parser.add_argument("--chain", required=True, help="URL of the chain's book, as its owner")
    parser.add_argument("--why", required=True, help="the reason, kept beside the rows")


def _quarantine(arguments: argparse.Namespace) -> int:
    from fusion.chain.book import ChainBook

    with ChainBook(arguments.chain, create=False) as book:
        n = book.quarantine(arguments.store, arguments.stream, arguments.first, arguments.why)
    print(f"{arguments.store}: {n} rows of {arguments.stream} are set aside; the shipper sends the store's own again")
    return 0


SERVE = Command(
    "serve",
    "Run many live stores: a process each, restarted from snapshots, watched and reconfigured.",
    ("chain.toml", "/etc/fusion/chain.toml"),
    {0: "ended by Ctrl-C or SIGTERM, every store in order"},
    _declare_serve,
    _serve,
)
REPLAY = Command(
    "replay",
    "Replay recordings, each as a task for a process of this machine or of a Ray cluster.",
    ("RECORDING --out results", "day1 day2 day3 --out results --cluster local"),
    {0: "all recordings were replayed", 1: "a recording has a fault; the table names it"},
    _declare_replay,
    _replay,
)
SHIP = Command(
    "ship",
    "Copy a store's books to the chain's book in PostgreSQL, each row exactly once.",
    (
        "STORE --ledger box17.sqlite --chain postgresql://server/chain?sslmode=verify-full",
        "STORE --ledger box17.sqlite --outbox outbox.sqlite --follow "
        "--chain postgresql://server/chain?sslmode=verify-full",
    ),
    {0: "all rows were shipped, or Ctrl-C ended --follow"},
    _declare_ship,
    _ship,
)
RECONCILE = Command(
    "reconcile",
    "Compare a store's books with the chain's book, row by row.",
    (
        "STORE --ledger box17.sqlite --chain postgresql://server/chain?sslmode=verify-full",
        "STORE --ledger box17.sqlite --chain postgresql://server/chain?sslmode=verify-full --all",
    ),
    {0: "they agree", 1: "they differ; the output lists how"},
    _declare_reconcile,
    _reconcile,
)
CHAIN_ROLES = Command(
    "chain-roles",
    "Give every store a role of its own in the chain's book, which row security keeps to that store's rows.",
    ("chain.toml > roles.sql", "chain.toml --chain postgresql://owner@server/chain?sslmode=verify-full"),
    {0: "the script was printed, or has run"},
    _declare_roles,
    _roles,
)
QUARANTINE = Command(
    "quarantine",
    "Set aside rows that do not belong into the chain's book, so that the store's shipper continues.",
    (
        "box17 ledger 10 --chain postgresql://owner@server/chain?sslmode=verify-full --why 'written by box9'",
        "box17 goods 1 --chain postgresql:///chain --why 'from a restored backup'",
    ),
    {0: "the rows are set aside"},
    _declare_quarantine,
    _quarantine,
)
