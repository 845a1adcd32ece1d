"""`fusion settle`, `collect`, `recover`, `close`, `resolve`: payments of a store, taken further by a person."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fusion.commands.books import declare_books, load_store, open_ledger
from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.money.payments import Checkout, Payment
    from fusion.store.models import Store


def _declare(parser: argparse.ArgumentParser) -> None:
    declare_books(parser)
    add_path(parser, "--till", required=True, metavar="TILL.TOML", help="names the payment provider")


def _declare_visit(parser: argparse.ArgumentParser) -> None:
    _declare(parser)
    parser.add_argument("visit", help="the visit, as its receipt names it")


@contextmanager
def checkout_of(arguments: argparse.Namespace) -> Iterator[tuple[Store, Checkout]]:
    """The store and the checkout that a command names. Raises FusionError where one cannot be used."""
    from fusion.errors import ConfigError, LedgerError
    from fusion.money.payments import Checkout
    from fusion.money.providers.settings import open_provider
    from fusion.till.settings import TillFile

    file = TillFile.load(arguments.till)
    if file.settings.payment is None:
        raise ConfigError(f"{arguments.till} has no [payment]; add the provider that the store pays through")
    provider = open_provider(file.settings.payment, file.base)
    store = load_store(arguments.store)
    with open_ledger(arguments) as ledger:
        visit = getattr(arguments, "visit", None)
        if visit is not None and ledger.standing(visit) is None:
            raise LedgerError(f"{arguments.ledger} has no visit {visit!r}; pass the number that its receipt shows")
        yield store, Checkout(ledger, provider, store)


def payment_text(store: Store, payment: Payment) -> str:
    """A payment in one line."""
    due = "not decided" if payment.due is None else store.price_text(payment.due)
    text = f"{payment.visit}: {payment.status}, due {due}, paid {store.price_text(payment.paid)}"
    text += f", held {store.price_text(payment.authorised)}" if payment.authorised else ""
    return f"{text} ({payment.reason})" if payment.reason else text


def _asked(
    arguments: argparse.Namespace, ask: Callable[[Checkout, int], Sequence[Payment]]
) -> int:
    """Print what a question gives; 0 where nothing waits any more."""
    import time

    with checkout_of(arguments) as (store, checkout):
        payments = ask(checkout, time.time_ns())
        for payment in payments:
            print(payment_text(store, payment))
        if not payments:
            print("nothing to settle")
    return 1 if any(payment.status not in DONE for payment in payments) else 0


# Payments for which nothing is left to do.
DONE = ("open", "review", "paid", "closed")


def _settle(arguments: argparse.Namespace) -> int:
    return _asked(arguments, lambda checkout, t_ns: [checkout.settle(arguments.visit, t_ns)])


def _collect(arguments: argparse.Namespace) -> int:
    return _asked(arguments, lambda checkout, t_ns: [checkout.collect(arguments.visit, t_ns)])


def _recover(arguments: argparse.Namespace) -> int:
    return _asked(arguments, lambda checkout, t_ns: checkout.recover(t_ns))


def _declare_person(parser: argparse.ArgumentParser) -> None:
    _declare_visit(parser)
    parser.add_argument("--by", required=True, metavar="NAME", help="who decides; kept in the books for good")
    parser.add_argument("--note", default="", help="why")


def _close(arguments: argparse.Namespace) -> int:
    return _asked(
        arguments,
        lambda checkout, t_ns: [checkout.close(arguments.visit, by=arguments.by, t_ns=t_ns, note=arguments.note)],
    )


def _declare_resolve(parser: argparse.ArgumentParser) -> None:
    _declare_person(parser)
    done = parser.add_mutually_exclusive_group(required=True)
    done.add_argument("--carried-out", action="store_true", help="the provider's account shows the step")
    done.add_argument("--not-carried-out", action="store_true", help="the provider's account does not show it")
    parser.add_argument("--reference", default="", help="the provider's name for the step")
    parser.add_argument("--amount", type=int, help="minor units that were moved, where they differ from those asked")


def _resolve(arguments: argparse.Namespace) -> int:
    return _asked(
        arguments,
        lambda checkout, t_ns: [
            checkout.resolve(
                arguments.visit, carried_out=arguments.carried_out, by=arguments.by, t_ns=t_ns,
                amount=arguments.amount, reference=arguments.reference, note=arguments.note,
            )
        ],
    )  # fmt: skip


SETTLE = Command(
    "settle",
    "Take every step that is left for one visit's payment: capture, refund, release.",
    (
        "STORE serve/box17/box17.sqlite VISIT --till till.toml",
        "STORE postgresql://server/books?sslmode=verify-full VISIT --vault vault.sqlite --till till.toml",
    ),
    {0: "nothing is left to do", 1: "something waits; the output says what"},
    _declare_visit,
    _settle,
)
COLLECT = Command(
    "collect",
    "Repeat the declined step of one visit's payment, such as after the customer has a new card.",
    (
        "STORE serve/box17/box17.sqlite VISIT --till till.toml",
        "STORE postgresql://server/books?sslmode=verify-full VISIT --vault vault.sqlite --till till.toml",
    ),
    {0: "it is paid", 1: "it was declined again, or something waits"},
    _declare_visit,
    _collect,
)
RECOVER = Command(
    "recover",
    "Finish what a crash, a lost connection or a silent provider left behind, for all visits of a store.",
    (
        "STORE serve/box17/box17.sqlite --till till.toml",
        "STORE postgresql://server/books?sslmode=verify-full --vault vault.sqlite --till till.toml",
    ),
    {0: "nothing is left to do", 1: "something waits; the output says what"},
    _declare,
    _recover,
)
CLOSE = Command(
    "close",
    "Write off what one visit owes and can never be paid; the books keep who did so.",
    (
        "STORE serve/box17/box17.sqlite VISIT --till till.toml --by anna",
        "STORE postgresql://server/books?sslmode=verify-full VISIT --vault vault.sqlite --till till.toml --by anna",
    ),
    {0: "it is closed", 1: "something is still open; the output says what"},
    _declare_person,
    _close,
)
RESOLVE = Command(
    "resolve",
    "Enter what a person found in the provider's account about a step whose answer is missing.",
    (
        "STORE serve/box17/box17.sqlite VISIT --till till.toml --by anna --not-carried-out",
        "STORE postgresql://server/books?sslmode=verify-full VISIT --vault vault.sqlite --till till.toml --by anna "
        "--not-carried-out",
    ),
    {0: "nothing is left to do", 1: "something waits; the output says what"},
    _declare_resolve,
    _resolve,
)
