"""Monthly statements of a store's books, and the platform's fee.

A statement is made from the store's entries alone and adds up to them: opening balance plus the month's movements is
the closing balance, account by account.
"""

from __future__ import annotations

import calendar
import datetime
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from zoneinfo import ZoneInfo

from fusion.errors import LedgerError
from fusion.money.entries import Posting
from fusion.money.history import CHARGEBACK_RETURNED, CHARGED_BACK, DONE, PROVIDER
from fusion.money.ledger import Ledger
from fusion.money.retailers import Retailer
from fusion.money.sales import sales_by_rate
from fusion.store.models import Store

FEES, PAYABLE = "platform fees", "platform payable"


@dataclass(frozen=True, slots=True)
class Statement:
    """A month of one store's books. Amounts in minor units; balances by account, debits positive.

    Attributes:
        retailer: name of the retailer.
        store: id of the store.
        month: such as 2026-03, on the store's clock.
        currency: of the amounts.
        opening: balances before the month.
        moved: the month's movements.
        closing: opening plus moved.
        sales: (net, VAT) of what was charged less what was reversed, by VAT rate.
        captured: what the provider took from customers.
        refunded: what the provider returned to customers.
        charged_back: what banks took back from the store, less what they gave it again.
        n_receipts: receipts of the month.
        n_decisions: decisions of the month.
        fee: what the platform gets for the month.
    """

    retailer: str
    store: str
    month: str
    currency: str
    opening: dict[str, int]
    moved: dict[str, int]
    closing: dict[str, int]
    sales: dict[str, tuple[int, int]]
    captured: int
    refunded: int
    charged_back: int
    n_receipts: int
    n_decisions: int
    fee: int

    @property
    def net_revenue(self) -> int:
        """Sales without VAT, over all rates."""
        return sum(net for net, _ in self.sales.values())

    def text(self, store: Store) -> str:
        """The statement as people read it."""
        price = store.price_text
        rows = [("sales, net " + rate, net) for rate, (net, _) in self.sales.items()]
        rows += [("VAT " + rate, vat) for rate, (_, vat) in self.sales.items()]
        rows += [("captured", self.captured), ("refunded", -self.refunded)]
        rows += [("charged back", -self.charged_back)] if self.charged_back else []
        rows.append(("platform fee", -self.fee))
        counts = f"{self.n_receipts} receipts, {self.n_decisions} decisions"
        lines = [f"{self.retailer}, {store.name}, {self.month}: {counts}"]
        lines += [f"  {label:<24}{price(amount):>18}" for label, amount in rows]
        lines.append(f"  {'account':<24}{'opening':>18}{'moved':>18}{'closing':>18}")
        for account in sorted(self.closing.keys() | self.opening.keys() | self.moved.keys()):
            amounts = (balances.get(account, 0) for balances in (self.opening, self.moved, self.closing))
            lines.append(f"  {account:<24}" + "".join(f"{price(amount):>18}" for amount in amounts))
        return "\n".join(lines)


def statement(ledger: Ledger, store: Store, retailer: Retailer, month: str) -> Statement:
    """The statement of a month such as 2026-03, on the store's clock; posts nothing.

    Raises:
        LedgerError: the month is not written like that.
    """
    begin_ns, end_ns = _span(month, store)
    opening = Counter(ledger.balances(begin_ns).get(store.currency, {}))
    moved = Counter[str]()
    entries = ledger.entries_between(begin_ns, end_ns)
    n_by_kind = Counter(entry.kind.split(maxsplit=1)[0] for entry in entries)
    legs = [leg for entry in entries for leg in entry.postings]
    for leg in legs:
        moved[leg.account] += leg.amount
    provider = Counter[str]()
    for entry in entries:
        provider[entry.kind] += entry.moved(PROVIDER)
    sales = sales_by_rate(legs)
    return Statement(
        retailer=retailer.name,
        store=store.id,
        month=month,
        currency=store.currency,
        opening=_nonzero(opening),
        moved=_nonzero(moved),
        closing={account: amount for account in {**opening, **moved} if (amount := opening[account] + moved[account])},
        sales=sales,
        captured=provider[DONE["capture"]],
        refunded=-provider[DONE["refund"]],
        charged_back=-provider[CHARGED_BACK] - provider[CHARGEBACK_RETURNED],
        n_receipts=n_by_kind["receipt"],
        n_decisions=n_by_kind["decision"],
        fee=_fee(retailer, sum(net for net, _ in sales.values())),
    )


def post_fee(ledger: Ledger, store: Store, retailer: Retailer, month: str) -> int:
    """Post the platform's fee for a month, or the change of the fee since it was posted; returns what was posted now.

    Repeating the call posts nothing. Entries that reach the books late change the fee by a further entry.
    """
    due = statement(ledger, store, retailer, month).fee
    subject = f"month {month}"
    before = ledger.entries(subject)
    posted = sum(entry.moved(FEES) for entry in before)
    if due == posted:
        return 0
    # The last instant of the month, so that the month's own statement shows it.
    t_ns = _span(month, store)[1] - 1
    legs = (Posting(FEES, store.currency, due - posted), Posting(PAYABLE, store.currency, posted - due))
    ledger.record(subject, f"fee {len(before) + 1}", "platform fee", t_ns, {"retailer": retailer.id, "fee": due}, legs)
    return due - posted


def _fee(retailer: Retailer, net_revenue: int) -> int:
    """The fee, halves up; a month in which more was reversed than sold costs nothing."""
    if retailer.fee_share is None:
        return retailer.fee_monthly or 0
    return max(int(net_revenue * Fraction(str(retailer.fee_share)) / 100 + Fraction(1, 2)), 0)


def _span(month: str, store: Store) -> tuple[int, int]:
    """First instant of a month and of the next one, on the store's clock, UTC nanoseconds."""
    try:
        first = datetime.date.fromisoformat(f"{month}-01")
    except ValueError:
        raise LedgerError(f"month: want a month such as 2026-03, got {month!r}") from None
    after = first + datetime.timedelta(days=calendar.monthrange(first.year, first.month)[1])
    zone = ZoneInfo(store.timezone)
    begin, end = (datetime.datetime.combine(day, datetime.time(), zone) for day in (first, after))
    return int(begin.timestamp()) * 10**9, int(end.timestamp()) * 10**9


def _nonzero(amounts: Counter[str]) -> dict[str, int]:
    return {account: amount for account, amount in amounts.items() if amount}
