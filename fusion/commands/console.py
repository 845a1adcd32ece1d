"""`fusion console`: one store as a live page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.books import load_store, open_ledger, require_books
from fusion.commands.pages import declare_listening, require_certificate, serve_pages
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.money.ledger import Ledger
    from fusion.money.payments import Checkout
    from fusion.show.console.users import Users
    from fusion.store.models import Store
    from fusion.till.settings import TillFile


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    parser.add_argument("--ledger", required=True, help="path or URL of the books")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="STORE=LEDGER",
        help="a further store with its books in a file, in the same console; may be repeated",
    )
    add_path(parser, "--vault", help="vault beside books in PostgreSQL")
    add_path(parser, "--users", help="file of the people who may sign in (users.json beside books that are a file)")
    add_path(parser, "--live", help="socket of the runner (live.sock beside books that are a file)")
    add_path(parser, "--evidence", help="evidence.jsonl of the runner (beside books that are a file)")
    add_path(parser, "--till", metavar="TILL.TOML", help="names the payment provider, to settle decisions at once")
    parser.add_argument(
        "--provider",
        help="URL of the payment provider, to settle decisions at once; its secret is read from FUSION_PROVIDER_SECRET",
    )
    declare_listening(parser, 8321)


def _run(arguments: argparse.Namespace) -> int:
    from fusion.errors import FusionError
    from fusion.show.console.users import Users

    store = load_store(arguments.store)
    path = _beside_ledger(arguments, arguments.users, "users.json")
    if path is None:
        raise FusionError("--users is missing; books on a server have no users.json beside them, so name the file")
    users = Users(path)
    require_books(arguments.ledger)
    if not len(users):
        raise FusionError(f"{path} names no user; `fusion users add NAME --users {path} --store {store.id}` adds one")
    require_certificate(arguments)
    with open_ledger(arguments) as ledger:
        _serve(arguments, store, users, ledger)
    return 0


def _beside_ledger(arguments: argparse.Namespace, given: str | None, name: str) -> Path | None:
    """The file that an option names, else the one of this name beside books that are a file."""
    if given:
        return Path(given)
    return None if "://" in arguments.ledger else Path(arguments.ledger).parent / name


def _serve(arguments: argparse.Namespace, store: Store, users: Users, ledger: Ledger) -> None:
    """Answer requests until Ctrl-C."""
    from contextlib import ExitStack

    from fusion.gates.erasing import PROFILES
    from fusion.money.ledger import Ledger
    from fusion.money.moments import FILE as MOMENTS_FILE
    from fusion.show.console.server import Console, Files
    from fusion.show.console.several import SeveralConsole, Shown

    files = Files(
        feed=_beside_ledger(arguments, arguments.live, "live.sock"),
        evidence=_beside_ledger(arguments, arguments.evidence, "evidence.jsonl"),
        pictures=Path(arguments.store) / "pictures",
        moments=_beside_ledger(arguments, None, MOMENTS_FILE),
        profiles=_beside_ledger(arguments, None, PROFILES),
        answers=_till(arguments).settings.answers,
    )
    checkout = _checkout(arguments, store, ledger)
    hosts = ("localhost", "127.0.0.1", "[::1]", arguments.host, *arguments.name)
    https = bool(arguments.certificate)
    with ExitStack() as stack:
        shown = [Shown(store, ledger, files, checkout)]
        for folder, books in map(_pair, arguments.also):
            other, beside = load_store(folder), Path(books).parent
            require_books(books)
            pictures, moments = Path(folder) / "pictures", beside / MOMENTS_FILE
            around = Files(beside / "live.sock", beside / "evidence.jsonl", pictures, moments, beside / PROFILES)
            shown.append(Shown(other, stack.enter_context(Ledger.open(books, other, create=False)), around))
        if len(shown) == 1:
            app = Console(store, ledger, users, files=files, checkout=checkout, hosts=hosts, https=https).app
        else:
            app = SeveralConsole(shown, users, hosts=hosts, https=https).app
        serve_pages(arguments, app, ", ".join(each.store.name for each in shown))


def _till(arguments: argparse.Namespace) -> TillFile:
    """The settings that --till names, else those of a store without any."""
    from fusion.till.settings import TillFile

    return TillFile.load(arguments.till) if arguments.till else TillFile()


def _pair(text: str) -> tuple[str, str]:
    """Store folder and books of --also."""
    from fusion.errors import FusionError

    folder, equals, books = text.partition("=")
    if not equals or not folder or not books or "://" in books:
        raise FusionError(f"--also: want STORE=LEDGER with books that are a file, got {text!r}")
    return folder, books


def _checkout(arguments: argparse.Namespace, store: Store, ledger: Ledger) -> Checkout | None:
    import os
    import time

    from fusion.errors import FusionError
    from fusion.money.payments import Checkout
    from fusion.money.providers import HttpProvider
    from fusion.money.providers.exchange import Exchange

    if arguments.till:
        from fusion.money.providers.settings import open_provider

        file = _till(arguments)
        if file.settings.payment is None:
            return None
        return Checkout(ledger, open_provider(file.settings.payment, file.base), store, time.time_ns)
    if not arguments.provider:
        return None
    secret = os.environ.get("FUSION_PROVIDER_SECRET", "")
    if not secret:
        raise FusionError("--provider needs the provider's secret; set FUSION_PROVIDER_SECRET")
    return Checkout(ledger, HttpProvider(Exchange(arguments.provider), secret), store, time.time_ns)


CONSOLE = Command(
    "console",
    "Show a store as a live page, with the queue of visits that wait for review.",
    (
        "STORE --ledger out/ledger.sqlite",
        "STORE --ledger out/ledger.sqlite --host shop.example --certificate shop.pem --key shop.key",
    ),
    {0: "ended by Ctrl-C"},
    _declare,
    _run,
)
