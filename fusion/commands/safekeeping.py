"""`fusion checkpoint`, `backup` and `restore`: what of a store is kept outside it, and how it comes back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fusion.commands.books import declare_books, load_store, open_ledger
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
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
    add_path(parser, "--lost", help="what is left of the store's folder: entries that the backup lacks are listed")


def _restore(arguments: argparse.Namespace) -> int:
    import datetime
    from pathlib import Path

    from fusion.money.backup import newer_entries, restore, unsettled

    folder = Path(arguments.folder)
    made = restore(
        Path(arguments.backup), folder, key_file=Path(arguments.key) if arguments.key else None, url=arguments.books
    )
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
    _print_duties(made)
    return 0


def _print_duties(made: Backup) -> None:
    """What a person does after a backup was put back."""
    print("before the store opens:")
    print("- compare the provider's payments since then with the books: what stands there only is settled by hand")
    print("- erase again, with `fusion forget`, the people who asked for it since then")
    missing = sorted(name for name in made.keys if name not in made.files)
    if missing:
        print(f"- put the keys into the folder, unless --key did: {', '.join(missing)}")
    print("- move away checkpoints of entries that the backup lacks, and keep them")


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
