"""Visits for which the link to their customer is still needed: nothing that is owed is given up by forgetting."""

from __future__ import annotations

from collections.abc import Mapping

from fusion.money.history import ASKED, AUTHORISED, RECEIVABLE
from fusion.money.ledger import Ledger
from fusion.money.payments import UNUSED_MAX_S


def unfinished(
    ledger: Ledger, visits: Mapping[str, str], pseudonyms: Mapping[str, int], now_ns: int
) -> dict[str, str]:
    """Which names are still needed, and why.

    A visit is finished once it is decided, and nothing of it is owed, authorised or under way. In books that have never
    asked a payment provider, what is owed is collected elsewhere, and does not count.

    Args:
        ledger: the books in which money is booked.
        visits: the names that visits go by.
        pseudonyms: since when these names are given; those without a visit may belong to a person at the gate.
        now_ns: the present.

    Returns:
        By name, a line for the operator, which names no one.

    Raises:
        LedgerError: the books cannot be read.
    """
    kept: dict[str, str] = {}
    owed = ledger.balances_of(RECEIVABLE) if ledger.has_kind(ASKED) else {}
    held = ledger.balances_of(AUTHORISED)
    asked = {entry.visit for entry in ledger.unanswered(ASKED)}
    for visit, name in visits.items():
        standing = ledger.standing(visit)
        if standing is None:
            kept[name] = f"visit {visit} is not in the books yet"
        elif not standing.is_final:
            kept[name] = f"visit {visit} is {'open' if standing.status == 'open' else 'in review'}"
        elif visit in owed or visit in held or visit in asked:
            kept[name] = f"visit {visit} is not paid"
    for name, since_ns in pseudonyms.items():
        if name in held or name in asked:
            kept.setdefault(name, "an authorisation at the gate is not released yet")
        elif name not in visits.values() and 0 <= now_ns - since_ns < UNUSED_MAX_S * 1e9:
            kept.setdefault(name, "a person may be coming in")
    return kept
