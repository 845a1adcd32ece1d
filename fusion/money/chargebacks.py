"""Chargebacks: a bank takes a payment back from the store, or gives it to the store again."""

from __future__ import annotations

from fusion.errors import LedgerError
from fusion.money.asking import reference_subject
from fusion.money.entries import AMOUNT_MAX, Posting, checked_integer, checked_text
from fusion.money.history import CHARGEBACK_RETURNED, CHARGED_BACK, PROVIDER, RECEIVABLE, History
from fusion.money.ledger import Ledger
from fusion.money.providers.provider import REFERENCE_MAX

# Longest name of a provider's event, characters.
EVENT_MAX = 230


def charge_back(
    ledger: Ledger, currency: str, reference: str, amount: int, *, event: str, t_ns: int, returned: bool = False
) -> str:
    """Book that a bank took a payment back, or with `returned` that it gave it to the store again.

    The visit owes the amount again, and nothing captures it by itself.

    Args:
        ledger: the books.
        currency: of the amount.
        reference: the provider's name for the capture.
        amount: minor units.
        event: the provider's name for this event; the same event is booked once.
        t_ns: when.
        returned: the bank decided for the store.

    Returns the visit.

    Raises:
        LedgerError: the books have no capture of this reference, or less is left of it.
    """
    subject = reference_subject("capture", checked_text("reference", reference, REFERENCE_MAX))
    given = ledger.recorded(subject, "given")
    if given is None:
        raise LedgerError(f"reference: want that of a capture in these books, got {reference!r}")
    visit: str
    visit, capture = given.request["visit"], str(given.request["step"])
    name = chargeback_name(event)
    if ledger.recorded(visit, name) is None:
        most = AMOUNT_MAX if returned else History.of(ledger.entries(visit)).captures[capture].left
        moved = checked_integer("amount", amount, 1, most) * (1 if returned else -1)
        legs = (Posting(PROVIDER, currency, moved), Posting(RECEIVABLE, currency, -moved))
        kind = CHARGEBACK_RETURNED if returned else CHARGED_BACK
        ledger.record(visit, name, kind, t_ns, {"capture": capture, "event": event}, legs)
    return visit


def chargeback_name(event: str) -> str:
    """The name under which a provider's event is recorded about a visit."""
    return f"chargeback {checked_text('event', event, EVENT_MAX)}"
