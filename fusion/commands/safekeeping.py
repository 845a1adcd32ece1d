"""`fusion checkpoint`, `backup` and `restore`: what of a store is kept outside it, and how it comes back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fusion.commands.books import declare_books, load_store, open_ledger, require_books
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fusion.money.backup import Backup

# Visits that are listed one by one.
_LISTED_MAX = 20


def _declare_checkpoint(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "--key", help="Ed25519 private key in PEM; by default one derived from the store's key")
    add_path(parser, "--copy-to", action="append", default=[], help="folder for a copy, best on another machine")


def _checkpoint(arguments: argparse.Namespace) -> int:
    import time
    from pathlib import Path

    from fusion.money.checkpoints import Checkpoints, signing_key
    from fusion.money.databases import books_folder

    store = load_store(arguments.store)
    with open_ledger(arguments) as ledger:
        folder = books_folder(arguments.ledger, arguments.vault)
        key = signing_key(folder, Path(arguments.key) if arguments.key else None)
        folders = [folder, *map(Path, arguments.copy_to)]
        head = Checkpoints(ledger, store, key, folders).write(time.time_ns())
    print(f"entry {head.seq} is noted in {', '.join(map(str, folders))}")
    return 0


def _declare_backup(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "folder", help="folder of the running or stopped store, such as serve/SHOP")
    add_path(parser, "destination", help="new folder for the backup, best on another disk")
    parser.add_argument("--books", help="URL of books in PostgreSQL; its password comes from PGPASSWORD or ~/.pgpass")
    parser.add_argument("--store", help="id of the store, for --books")
    parser.add_argument("--with-keys", action="store_true", help="copy the keys too: whoever has it has the store")


def _backup(arguments: argparse.Namespace) -> int:
    import time
    from pathlib import Path

    from fusion.errors import LedgerError
    from fusion.money.backup import back_up, is_key

    if (arguments.books is None) != (arguments.store is None):
        raise LedgerError("--books and --store go together: each store has a schema of its own in the database")
    made = back_up(
        Path(arguments.folder), Path(arguments.destination), time.time_ns(), url=arguments.books,
        store=arguments.store or "", with_keys=arguments.with_keys,
    )  # fmt: skip
    print(f"{len(made.files)} files are in {arguments.destination}")
    for name, (store, _, seq, _) in made.books.items():
        print(f"{name}: books of {store} up to entry {seq}")
    left_out = sorted(name for name in made.keys if is_key(name) and name not in made.files)
    if left_out:
        print(f"keep these keys elsewhere, without them the backup is of no use: {', '.join(left_out)}")
    return 0


def _declare_restore(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "backup", help="folder that `fusion backup` made")
    add_path(parser, "folder", help="new or empty folder of the store")
    add_path(parser, "--key", help="the store's key (store.key), where the backup does not hold it")
    parser.add_argument("--books", help="URL of an empty PostgreSQL database, for books that were in one")
    add_path(parser, "--erasures", action="append", default=[], help="newer list of who asked to be forgotten")
    add_path(parser, "--lost", help="what is left of the store's folder: entries that the backup lacks are listed")


def _restore(arguments: argparse.Namespace) -> int:
    import datetime
    from pathlib import Path

    from fusion.gates import erasures
    from fusion.money.backup import newer_entries, restore, unsettled

    folder = Path(arguments.folder)
    lists = [Path(path) for path in arguments.erasures]
    if arguments.lost and (Path(arguments.lost) / erasures.FILE).exists():
        lists.append(Path(arguments.lost) / erasures.FILE)
    cleared: list[str] = []
    made = restore(
        Path(arguments.backup), folder, key_file=Path(arguments.key) if arguments.key else None, url=arguments.books,
        complete=lambda building, made: cleared.extend(_clear(building, made, lists, arguments.books)),
    )  # fmt: skip
    at = datetime.datetime.fromtimestamp(made.made_ns / 1e9, datetime.UTC)
    print(f"{len(made.files)} files of {at:%Y-%m-%d %H:%M:%S} UTC are in {folder}")
    for name, (store, _, seq, _) in made.books.items():
        print(f"{name}: books of {store} up to entry {seq}")
        for line in unsettled(Path(arguments.backup) / name):
            print(f"  {line}")
        if arguments.lost:
            lines = newer_entries(Path(arguments.lost) / name, made.books[name])
            for line in lines[:_LISTED_MAX]:
                print(f"  newer than the backup: {line}")
            print(f"  {len(lines) or 'no'} visits have entries that are newer than the backup")
    for line in cleared:
        print(line)
    _print_duties(made)
    return 0


def _clear(folder: Path, made: Backup, lists: Sequence[Path], url: str | None) -> Iterator[str]:
    """Erase from a restored folder the people who were forgotten since the backup was made; lines for the operator."""
    import time
    from contextlib import ExitStack

    from fusion.files.secrets import KEY_FILE, derived, store_key
    from fusion.gates.erasures import Erasures
    from fusion.gates.faces import FaceGallery
    from fusion.gates.forgetting import Eraser, Place
    from fusion.gates.marks import Marks
    from fusion.gates.settings import FACES_FILE
    from fusion.money.backup import REMOTE_BOOKS
    from fusion.money.ledger import Ledger
    from fusion.store.models import Store

    if not (folder / KEY_FILE).exists():
        yield "no one was erased from what was put back: that needs the store's key, see --key"
        return
    key = store_key(folder, create=False)
    with ExitStack() as stack:
        people = Erasures(folder, key)
        stack.callback(people.close)
        n = people.ask_again(made.made_ns, lists)
        if not n:
            return
        ledgers = []
        # The books of a server come first: there money is booked.
        for name, (store, currency, _, _) in sorted(made.books.items(), key=lambda each: each[0] != REMOTE_BOOKS):
            # Of the store's folder no more is needed than whose books these are.
            identity = Store.model_construct(id=store, name=store, currency=currency, products=(), gate=())
            is_remote = name == REMOTE_BOOKS
            where, vault = str(url) if is_remote else str(folder / name), folder / f"{store}.vault.sqlite"
            books = Ledger.open(where, identity, vault if is_remote else None, create=False)
            ledgers.append(stack.enter_context(books))
        faces = None
        if (folder / FACES_FILE).exists():
            marks = Marks(folder / "used.sqlite")
            stack.callback(marks.close)
            faces = FaceGallery.to_erase_from(folder / FACES_FILE, derived(key, "faces"), marks)
        if not ledgers:
            yield f"{n} erasures wait until the store starts"
            return
        place = Place(identity, folder, lambda: ledgers, faces=faces)
        Eraser(people, lambda: place).work(time.time_ns())
        n_waiting = len(people.undone())
        yield f"{n} people asked to be forgotten and were erased from what was put back; {n_waiting} still wait in part"


def _print_duties(made: Backup) -> None:
    """What a person does after a backup was put back."""
    print("before the store opens:")
    print("- compare the provider's payments since then with the books: what stands there only is settled by hand")
    print("- erase again, with `fusion forget`, who asked for it since then and is on no list of yours (--erasures)")
    missing = sorted(name for name in made.keys if name not in made.files)
    if missing:
        print(f"- put the keys into the folder, unless --key did: {', '.join(missing)}")
    print("- move away checkpoints of entries that the backup lacks, and keep them")


def _declare_reseal(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    parser.add_argument("--by", required=True, help="who answers for what the vault holds; kept in the books for good")
    parser.add_argument("--confirm", action="store_true", help="do it; without this, only list what it would do")


def _reseal(arguments: argparse.Namespace) -> int:
    import time
    from contextlib import ExitStack
    from pathlib import Path

    from fusion.files.private import LOCK_FILE, locked
    from fusion.money.databases import books_folder, books_path
    from fusion.money.ledger import Ledger
    from fusion.money.resealing import reseal
    from fusion.till.forwarding import FRONT_FILE

    require_books(arguments.ledger)
    folder, store = books_folder(arguments.ledger, arguments.vault), load_store(arguments.store)
    vaults = [Path(arguments.vault) if arguments.vault else books_path(arguments.ledger)]
    front = folder / FRONT_FILE
    if arguments.vault and front.exists():
        vaults.append(front)
    if not arguments.confirm:
        print(f"{folder}: a new key, which seals all rows of {', '.join(path.name for path in vaults)} as they stand")
        print("lost for good: the snapshot (open visits go to review) and faces (customers enrol again)")
        print("backups, checkpoints and erasures.sqlite from before are checked under the lost key alone")
        print("look at who could write to the folder; then repeat it with --confirm")
        return 1
    with ExitStack() as stack:
        if not stack.enter_context(locked(folder / LOCK_FILE)):
            print(f"{folder}: a running store uses it; nothing was changed")
            return 1

        def books() -> list[Ledger]:
            opened = [stack.enter_context(open_ledger(arguments))]
            if front in vaults:
                opened.append(stack.enter_context(Ledger.open(front, store, create=False)))
            return opened

        done = reseal(folder, vaults, books, store.id, by=arguments.by, t_ns=time.time_ns())
    for name, n in done.rows.items():
        print(f"{name}: {n} rows are sealed under the new key {done.key_id}, and the books say by whose word")
    for name in done.removed:
        print(f"{name}: removed, only the lost key could read it")
    for name in done.aside:
        print(f"{name}: signed under the lost key; keep it, and move copies of it elsewhere out of the way")
    print("keep a copy of the new store.key outside the machine, and make a backup")
    return 0


CHECKPOINT = Command(
    "checkpoint",
    "Sign the newest entry of a store's books and keep the note beside them and elsewhere, for `fusion verify`.",
    ("STORE out/ledger.sqlite", "STORE out/ledger.sqlite --copy-to /mnt/elsewhere"),
    {0: "the checkpoint was written", 2: "the books lack what an earlier checkpoint states, or a file cannot be used"},
    _declare_checkpoint,
    _checkpoint,
)
BACKUP = Command(
    "backup",
    "Copy a store's books, vault, snapshot, evidence and receipts to a new folder while the store runs.",
    (
        "serve/shop /mnt/backups/2026-03-01",
        "serve/shop DEST --store shop --books postgresql://server/books?sslmode=verify-full",
    ),
    {0: "the backup is whole", 2: "a file cannot be used; the destination holds no manifest, and so no backup"},
    _declare_backup,
    _backup,
)
RESTORE = Command(
    "restore",
    "Put a backup into an empty folder, all of it or nothing, and list what has to be settled again.",
    ("/mnt/backups/2026-03-01 serve/shop --key shop.key", "/mnt/backups/2026-03-01 serve/shop --lost serve/shop.old"),
    {0: "the store can start", 2: "the backup is not whole, or the folder is in use or not empty; nothing was changed"},
    _declare_restore,
    _restore,
)
RESEAL = Command(
    "reseal",
    "Give a store whose key is lost a new one, and seal its vault again on a person's word; the books say so.",
    (
        "STORE serve/shop/shop.sqlite --by anna",
        "STORE postgresql://server/books?sslmode=verify-full --vault serve/shop/shop.vault.sqlite --by anna --confirm",
    ),
    {
        0: "the vault is sealed under a new key",
        1: "it was not confirmed, or the store runs; nothing was changed",
        2: "there is a key, or the books cannot be used",
    },
    _declare_reseal,
    _reseal,
)
