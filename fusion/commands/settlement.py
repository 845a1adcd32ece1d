"""`fusion settlement`: the provider's settlement file beside a store's books."""

from __future__ import annotations

import argparse

from fusion.commands.books import declare_books, load_store
from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "file", help="CSV: reference, kind, amount, currency, fee, date and perhaps key")
    parser.add_argument("--post", action="store_true", help="book the file's chargebacks; their visits owe again")


def _run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from fusion.money.ledger import Ledger
    from fusion.money.settlement import compare, post_chargebacks, read_settlement

    store = load_store(arguments.store)
    lines = read_settlement(Path(arguments.file), store)
    books = arguments.ledger, store, arguments.vault
    with Ledger.open(*books, create=False, read_only=not arguments.post) as ledger:
        if arguments.post:
            post_chargebacks(ledger, store, lines)
        settlement = compare(ledger, store, lines)
    print(settlement.text(store))
    return 1 if settlement.differences else 0


SETTLEMENT = Command(
    "settlement",
    "Compare the payment provider's settlement file with a store's books, to the cent.",
    ("STORE out/ledger.sqlite march.csv", "STORE out/ledger.sqlite march.csv --post"),
    {0: "the file and the books agree", 1: "they differ; each difference is a line"},
    _declare,
    _run,
)
