"""`fusion shopper`: the pages on customers' phones, and the screens at doors and in payment zones."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.books import load_store, open_ledger, require_books
from fusion.commands.pages import address_of, declare_listening, require_certificate, serve_pages
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.gates.codes import CodeSigner
    from fusion.gates.shopper_sessions import ShopperSessions
    from fusion.money.ledger import Ledger
    from fusion.show.shopper.server import ShopperParts
    from fusion.store.models import Store
    from fusion.till.settings import TillFile


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    parser.add_argument("--ledger", required=True, help="path or URL of the books")
    add_path(parser, "--vault", help="vault beside books in PostgreSQL")
    add_path(parser, "--till", metavar="TILL.TOML", help="its [shopper] table says where customers reach the pages")
    add_path(parser, "--folder", help="folder of the store's process; by default that of the books or the vault")
    parser.add_argument(
        "--pair", metavar="SCREEN", help="print a one-time code for the tablet at gate/ID or zone/ID, then end"
    )
    parser.add_argument("--link", metavar="ACCOUNT", help="print a link that signs a customer in once, then end")
    declare_listening(parser, 8322)


def _run(arguments: argparse.Namespace) -> int:
    import time

    from fusion.errors import FusionError
    from fusion.gates.shopper_sessions import FILE, ShopperSessions
    from fusion.money.databases import books_folder
    from fusion.show.shopper.screens import screens_of

    store = load_store(arguments.store)
    require_books(arguments.ledger)
    require_certificate(arguments)
    folder = Path(arguments.folder) if arguments.folder else books_folder(arguments.ledger, arguments.vault)
    with contextlib.ExitStack() as stack:
        sessions = ShopperSessions(folder / FILE)
        stack.callback(sessions.close)
        if arguments.pair:
            known = screens_of(store)
            if arguments.pair not in known:
                raise FusionError(f"--pair: want one of {', '.join(known)}, got {arguments.pair}")
            code = sessions.pair(arguments.pair, time.time())
            print(f"{code[:4]} {code[4:]}   open /screen on the tablet and type it in within ten minutes")
            return 0
        ledger = stack.enter_context(open_ledger(arguments))
        parts = _parts(arguments, store, ledger, sessions, folder, stack)
        if arguments.link:
            print(parts.links.link("account", arguments.link, time.time()))
            return 0
        _serve(arguments, store, ledger, parts, folder)
    return 0


def _parts(
    arguments: argparse.Namespace, store: Store, ledger: Ledger, sessions: ShopperSessions, folder: Path,
    stack: contextlib.ExitStack,
) -> ShopperParts:  # fmt: skip
    """What the pages are made of, as till.toml describes it."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    from fusion.files.secrets import derived, store_key
    from fusion.gates.erasing import PROFILES
    from fusion.gates.erasures import Erasures
    from fusion.money.databases import books_folder
    from fusion.money.links import store_links
    from fusion.money.moments import FILE, Moments
    from fusion.money.payments import Checkout
    from fusion.money.profiles import Profiles
    from fusion.money.providers.settings import open_provider
    from fusion.show.console.evidence_file import EvidenceFile
    from fusion.show.shopper.server import ShopperParts
    from fusion.till.answers import Answers
    from fusion.till.authorisations import Authorisations
    from fusion.till.customers import CustomerFile, NoCustomers
    from fusion.till.settings import TillFile

    file = TillFile.load(arguments.till) if arguments.till else TillFile()
    settings, base = file.settings, file.base
    shopper, mail = settings.shopper, settings.mail
    url = shopper.url if shopper is not None else address_of(arguments)
    # As the store's own mails sign their links: by the key beside the books.
    key = derived(store_key(books_folder(arguments.ledger, arguments.vault)), "shopper")
    app_key = shopper.app_key(base) if shopper is not None else None
    links = store_links(key, store.id, url, app_key)
    authorisations = None
    if settings.payment is not None and store.payment.mode == "zone":
        checkout = Checkout(ledger, open_provider(settings.payment, base), store, time.time_ns)
        asking = stack.enter_context(ThreadPoolExecutor(8, "basket"))
        authorisations = Authorisations(
            lambda: checkout, start=asking.submit, monotonic_s=time.monotonic, report=print
        )
    erasures = Erasures(folder, store_key(folder))
    stack.callback(erasures.close)
    profiles, moments = Profiles(folder / PROFILES), Moments(folder / FILE)
    stack.callback(profiles.close)
    stack.callback(moments.close)
    return ShopperParts(
        links=links,
        sessions=sessions,
        moments=moments,
        answers=Answers(
            store, ledger, EvidenceFile(folder / "evidence.jsonl").bundle, settings.answers, profiles=profiles
        ),
        signer=_signer(file, store),
        customers=CustomerFile(base / settings.customers.file) if settings.customers is not None else NoCustomers(),
        mailer=mail.mailer(ledger, store, base) if mail is not None else None,
        profiles=profiles,
        # A running store does it within seconds, a stopped one with `fusion forget`.
        forget=lambda account: erasures.ask([account], time.time_ns()),
        authorisations=authorisations,
        font=base / shopper.font if shopper is not None and shopper.font is not None else None,
        url=url,
    )


def _signer(file: TillFile, store: Store) -> CodeSigner | None:
    """Signs codes for the gate, with a key that the gates know; None where till.toml names none.

    Raises:
        FusionError: the gates do not know the key; the message names the file that they need.
    """
    from cryptography.hazmat.primitives import serialization

    from fusion.errors import FusionError
    from fusion.files.atomic import replace_file
    from fusion.gates.codes import CodeSigner, keys_of, private_key, public_key

    shopper, gates = file.settings.shopper, file.settings.gates
    if shopper is None or shopper.code_key is None:
        return None
    key, key_id = private_key(file.base / shopper.code_key), shopper.code_key_id
    ours = key.public_key()
    if key_id is None:
        known = None if gates.code_key is None else public_key(file.base / gates.code_key)
        where = "name it in [gates] code_key"
    else:
        keys = file.base / gates.code_keys if gates.code_keys is not None else None
        known = keys_of(keys.read_text("utf-8")).get(key_id) if keys is not None and keys.exists() else None
        where = f"put its text under {key_id!r} into the table [keys] of the file of [gates] code_keys"
    if known != ours:
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        public = (file.base / shopper.code_key).with_suffix(".pub.pem")
        replace_file(public, ours.public_bytes(*form))
        raise FusionError(f"{public}: the gates do not know this public half of [shopper] code_key yet; {where}")
    return CodeSigner(key, store.id, key_id=key_id or "")


def _serve(arguments: argparse.Namespace, store: Store, ledger: Ledger, parts: ShopperParts, folder: Path) -> None:
    """Answer requests until Ctrl-C."""
    from urllib.parse import urlsplit

    from fusion.show.shopper.server import ShopperApp

    public = urlsplit(parts.url).hostname or "localhost"
    app = ShopperApp(
        store,
        ledger,
        parts,
        feed=folder / "live.sock",
        hosts=("localhost", "127.0.0.1", "[::1]", arguments.host, public, *arguments.name),
        https=bool(arguments.certificate) or parts.url.startswith("https://"),
    )
    serve_pages(arguments, app.app, store.name)


SHOPPER = Command(
    "shopper",
    "Serve the pages on customers' phones, and the screens at doors and in payment zones.",
    (
        "STORE --ledger serve/shop/shop.sqlite --till till.toml",
        "STORE --ledger serve/shop/shop.sqlite --pair gate/entry",
    ),
    {0: "the code or the link was printed; the pages themselves run until Ctrl-C"},
    _declare,
    _run,
)
