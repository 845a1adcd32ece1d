"""Deliberate bugs, put into the product one at a time: an auditor that finds none of them is worth nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from fusion.gates.keeper import Decision, GateKeeper
from fusion.live.bookkeeper import Bookkeeper
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.results import ReceiptStatus

# One occasion in so many shows the bug.
EVERY = 8


def bug(name: str) -> AbstractContextManager[None]:
    """The product with a bug; the empty name is the product as it is."""
    return BUGS[name]()


@contextmanager
def _none() -> Iterator[None]:
    yield


@contextmanager
def _double_capture() -> Iterator[None]:
    """A payment is asked for under one key, and once more under a new one, as a retry without idempotency does."""
    made, count = Checkout.__init__, itertools.count(1)

    class Twice:
        def __init__(self, provider: Any) -> None:
            self._provider = provider

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self._provider, attribute)

        def authorise(self, key: str, token: str, amount: int, currency: str) -> Any:
            if next(count) % EVERY == 0:
                again = self._provider.authorise(f"{key}/again", token, amount, currency)
                if again.approved:
                    self._provider.capture(f"{key}/again/capture", again.reference, amount)
            return self._provider.authorise(key, token, amount, currency)

    def init(self: Checkout, ledger: Any, provider: Any, *rest: Any, **named: Any) -> None:
        made(self, ledger, Twice(provider), *rest, **named)

    with mock.patch.object(Checkout, "__init__", init):
        yield


@contextmanager
def _lost_pick() -> Iterator[None]:
    """A piece that was taken is missing on a settled bill."""
    bill, count = Bookkeeper.bill, itertools.count(1)

    def short(self: Bookkeeper, receipt: Any, *rest: Any) -> Any:
        if receipt.status == ReceiptStatus.SETTLED and receipt.lines and next(count) % EVERY == 0:
            lost = receipt.lines[-1]
            total = receipt.total - lost.quantity * lost.unit_price
            taken = tuple(one for one in receipt.taken if one.gtin != lost.gtin)
            receipt = replace(receipt, lines=receipt.lines[:-1], total=total, taken=taken)
        return bill(self, receipt, *rest)

    with mock.patch.object(Bookkeeper, "bill", short):
        yield


@contextmanager
def _swapped_accounts() -> Iterator[None]:
    """The vault holds a customer's pseudonym under the account of the one before them."""
    hold, count, before = Ledger.hold, itertools.count(1), []

    def other(self: Ledger, holder: Any) -> None:
        before.append(holder)
        if len(before) > 1 and next(count) % EVERY == 0:
            holder = replace(holder, account=before[-2].account, token=before[-2].token)
        hold(self, holder)

    with mock.patch.object(Ledger, "hold", other):
        yield


@contextmanager
def _unlinked_erasure() -> Iterator[None]:
    """Who asks to be forgotten stays in the vault."""
    with mock.patch.object(Ledger, "unlink_names", lambda self, names: 0):
        yield


@contextmanager
def _stuck_gate() -> Iterator[None]:
    """After some customers a gate asks for a moment's patience, for ever."""
    scan, count = GateKeeper.scan, itertools.count(1)

    def stuck(self: GateKeeper, request: Any) -> Decision:
        if not request.leaving and next(count) > 5 * EVERY:
            return Decision(False, "busy", "One moment please", again_s=1.0)
        return scan(self, request)

    with mock.patch.object(GateKeeper, "scan", stuck):
        yield


@contextmanager
def _one_piece_too_many() -> Iterator[None]:
    """A bill is put into the books at another amount than its lines cost."""
    post, count = Ledger.post_receipt, itertools.count(1)

    def wrong(self: Ledger, receipt: Any, *rest: Any, **named: Any) -> Any:
        if receipt.status == ReceiptStatus.SETTLED and receipt.lines and next(count) % EVERY == 0:
            line = receipt.lines[0]
            dearer = replace(line, quantity=line.quantity + 1)
            receipt = replace(receipt, lines=(dearer, *receipt.lines[1:]), total=receipt.total + line.unit_price)
        return post(self, receipt, *rest, **named)

    with mock.patch.object(Ledger, "post_receipt", wrong):
        yield


BUGS = {
    "": _none,
    "double capture": _double_capture,
    "lost pick": _lost_pick,
    "swapped accounts": _swapped_accounts,
    "unlinked erasure": _unlinked_erasure,
    "stuck gate": _stuck_gate,
    "one piece too many": _one_piece_too_many,
}
