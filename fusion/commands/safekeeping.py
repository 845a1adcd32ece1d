"""`fusion checkpoint`: evidence of the books that is kept outside them."""

from __future__ import annotations

import argparse

from fusion.commands.books import declare_books, load_store, open_ledger
from fusion.commands.parser import Command, add_path


def _declare_checkpoint(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "--key", help="Ed25519 private key in PEM; by default one derived from the store's key")
    add_path(parser, "--copy-to", action="append", default=[], help="folder for a copy, best on another machine")


def _checkpoint(arguments: argparse.Namespace) -> int:
    import time
    from pathlib import Path

    from fusion.money.checkpoints import Checkpoints, signing_key
    from fusion.money.databases import books_path

    store = load_store(arguments.store)
    with open_ledger(arguments) as ledger:
        folder = Path(arguments.vault).parent if arguments.vault else books_path(arguments.ledger).parent
        key = signing_key(folder, Path(arguments.key) if arguments.key else None)
        folders = [folder, *map(Path, arguments.copy_to)]
        head = Checkpoints(ledger, store, key, folders).write(time.time_ns())
    print(f"entry {head.seq} is noted in {', '.join(map(str, folders))}")
    return 0


CHECKPOINT = Command(
    "checkpoint",
    "Sign the newest entry of a store's books and keep the note beside them and elsewhere, for `fusion verify`.",
    ("STORE out/ledger.sqlite", "STORE out/ledger.sqlite --copy-to /mnt/elsewhere"),
    {0: "the checkpoint was written", 2: "the books lack what an earlier checkpoint states, or a file cannot be used"},
    _declare_checkpoint,
    _checkpoint,
)
