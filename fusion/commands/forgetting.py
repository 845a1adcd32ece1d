"""`fusion forget`: people who are past a store's policy, and those who ask to be forgotten at once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fusion.commands.books import declare_books, load_store, open_ledger
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from pathlib import Path

    from fusion.gates.erasures import Erasure, Erasures
    from fusion.gates.forgetting import Place
    from fusion.money.ledger import Ledger
    from fusion.store.models import Store

# A running store takes up an erasure within two seconds, and longer where its files are long.
STORE_MAX_S = 30.0
_LOOK_S = 0.2


def _declare(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--account", help="erase this customer at once; also a pseudonym of theirs")
    whose.add_argument("--visit", help="erase the customer of this visit at once: the number on a receipt")
    whose.add_argument("--list", action="store_true", help="print the erasures and how far each has come")
    add_path(parser, "--till", metavar="TILL.TOML", help="of a stopped store: names its gallery and list of customers")
    add_path(parser, "--folder", help="folder of the store's process; by default that of the books or the vault")


def _run(arguments: argparse.Namespace) -> int:
    import time
    from contextlib import closing
    from pathlib import Path

    from fusion.errors import LedgerError
    from fusion.files.private import LOCK_FILE, locked
    from fusion.files.secrets import store_key
    from fusion.gates.erasures import Erasures
    from fusion.gates.forgetting import unlink_due
    from fusion.money.databases import books_folder

    store = load_store(arguments.store)
    folder = Path(arguments.folder) if arguments.folder else books_folder(arguments.ledger, arguments.vault)
    with open_ledger(arguments) as ledger, closing(Erasures(folder, store_key(folder))) as erasures:
        if arguments.list:
            return _list(store, erasures)
        now_ns, asked = time.time_ns(), None
        if arguments.account is not None or arguments.visit is not None:
            account = _account(ledger, arguments)
            if account is None:
                raise LedgerError(f"visit {arguments.visit!r}: the vault names no customer, or none any more")
            asked = erasures.ask([account], now_ns)
        else:
            print(f"{unlink_due(store, ledger, now_ns)} visits forgotten")
        with locked(folder / LOCK_FILE) as held:
            if held:
                _erase(arguments, store, ledger, erasures, folder, now_ns)
        return 0 if asked is None else _became(erasures, asked)


def _account(ledger: Ledger, arguments: argparse.Namespace) -> str | None:
    """The account that is meant by an account, a pseudonym or a visit."""
    if arguments.visit is None:
        holder = ledger.holder(arguments.account)
        return arguments.account if holder is None else holder.account
    standing = ledger.standing(arguments.visit)
    if standing is None or standing.account is None:
        return None
    holder = ledger.holder(standing.account)
    return standing.account if holder is None else holder.account


def _erase(
    arguments: argparse.Namespace, store: Store, ledger: Ledger, erasures: Erasures, folder: Path, now_ns: int
) -> None:
    """Do what is asked for in the folder of a store that does not run, its snapshot included."""
    from fusion.gates.forgetting import Eraser
    from fusion.live.checkpoint import change_snapshot

    with _place(arguments, store, ledger, folder) as place:
        Eraser(erasures, lambda: place).work(now_ns)
    names = erasures.names(digest for one in erasures.all() for digest in one.names)
    change_snapshot(folder, store, lambda engine: engine.rename_customers(names.renamed))


@contextmanager
def _place(arguments: argparse.Namespace, store: Store, ledger: Ledger, folder: Path) -> Iterator[Place]:
    """What a person is erased from in a stopped store."""
    from contextlib import ExitStack

    from fusion.files.secrets import derived, store_key
    from fusion.gates.faces import FaceGallery
    from fusion.gates.forgetting import Place
    from fusion.gates.marks import Marks
    from fusion.gates.settings import FACES_FILE
    from fusion.money.ledger import Ledger
    from fusion.till.customers import rows_of
    from fusion.till.forwarding import FRONT_FILE
    from fusion.till.settings import TillFile

    till = TillFile.load(arguments.till) if arguments.till else TillFile()
    settings = till.settings
    with ExitStack() as stack:
        ledgers = [ledger]
        if (folder / FRONT_FILE).exists():
            ledgers.append(stack.enter_context(Ledger.open(folder / FRONT_FILE, store, create=False)))
        gallery = folder / (settings.gates.faces.file if settings.gates.faces is not None else FACES_FILE)
        faces = None
        if gallery.exists():
            marks = Marks(folder / "used.sqlite")
            stack.callback(marks.close)
            faces = FaceGallery.to_erase_from(gallery, derived(store_key(folder), "faces"), marks)
        customers = settings.customers
        yield Place(
            store, folder, lambda: ledgers, settings.retention, faces=faces,
            listed=lambda names: () if customers is None else rows_of(till.base / customers.file, names),
        )  # fmt: skip


def _became(erasures: Erasures, asked: Erasure) -> int:
    """Print what became of an erasure, once a running store has taken it up. Returns the exit code."""
    import time

    deadline_s = time.monotonic() + STORE_MAX_S
    while (found := erasures.of(asked.id) or asked).state == "asked":
        if time.monotonic() > deadline_s:
            print("asked for; the running store has not taken it up yet: see `fusion forget --list`")
            return 1
        time.sleep(_LOOK_S)
    for line in found.report:
        print(line)
    for line in found.waits_for:
        print(f"waits: {line}")
    return 1 if found.waits_for else 0


def _list(store: Store, erasures: Erasures) -> int:
    """Print every erasure of a list, and how far it has come."""
    found = erasures.all()
    for one in found:
        asked = f"{store.local_time(one.asked_ns):%Y-%m-%d %H:%M}"
        state = one.state if one.key_id == erasures.key_id else f"{one.state}, under an earlier key of the store"
        print(f"{one.id}: asked for {asked}: {state}" + "".join(f"; {line}" for line in one.waits_for))
    if not found:
        print("no person has asked to be forgotten")
    return 0


FORGET = Command(
    "forget",
    "Unlink visits that are past their time; or erase one customer everywhere, whether or not the store runs.",
    (
        "STORE serve/shop/shop.sqlite",
        "STORE serve/shop/shop.sqlite --account anna --till till.toml",
    ),
    {
        0: "the visits are unlinked, or the customer is erased",
        1: "something has to be decided or paid first, or a running store is not done yet; it continues by itself",
        2: "the books cannot be used, or the visit names no customer",
    },
    _declare,
    _run,
)
