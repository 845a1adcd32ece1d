"""What a corrected bill costs: pieces that were on the receipt keep their prices, added ones have those of the exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusion.errors import FusionError
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.prices import PriceBook, PricedReceipt
from fusion.money.sales import Discount, Sale
from fusion.results import Receipt, ReceiptLine, ReceiptStatus
from fusion.store.gtin import OwnGtins
from fusion.store.models import Store

# Confidence of a line that a person entered.
ENTERED = 1.0


class Correction:
    """Prices what one visit costs if its bill is corrected.

    Pieces that were on the receipt keep their prices. Added pieces, whose moments are not in the books, have the prices
    of the visit's end. Whether the visit was a member's is not in the books either: it was if the receipt's total comes
    out only with a member's prices.
    """

    def __init__(self, store: Store, prices: PriceBook, own_gtins: OwnGtins, visit: str, recorded: Entry) -> None:
        self._store, self._prices, self._own_gtins, self._visit = store, prices, own_gtins, visit
        request = recorded.request
        self._exit_ns = request.get("exit", recorded.t_ns)
        self._billed = billed = Sale.stored(request).lines
        total: int = sum(n * price for _, n, price, _ in request["lines"])
        total -= sum(amount for _, _, amount in request.get("discounts", ()))

        def only_for_members(kept: tuple[ReceiptLine, ...]) -> bool:
            """Whether the receipt's total comes out with a member's prices, and with no others."""
            others, members = (self._priced(billed, kept, member).receipt.total for member in (False, True))
            return others != total and members == total

        known = all(line.gtin in own_gtins for line in billed)
        # The total proves a member by members' offers alone, with the prices on the receipt, or by members' prices too.
        self._member = known and (only_for_members(billed) or only_for_members(()))

    def priced(self, wanted: Sequence[ReceiptLine]) -> Sale:
        """The goods at their prices, with their discounts. wanted: products and pieces; unit prices are ignored.

        Raises:
            FusionError: a product that the store does not sell.
        """
        lines = []
        for line in wanted:
            gtin = self._own_gtins.of(line.gtin)
            if gtin is None:
                raise FusionError(f"lines: want products of this store, got {line.gtin!r}")
            lines.append(replace(line, gtin=gtin))
        corrected = self._priced(lines, self._billed, self._member)
        return Sale(corrected.receipt.lines, corrected.discounts)

    def _priced(self, rows: Sequence[ReceiptLine], kept: tuple[ReceiptLine, ...], member: bool) -> PricedReceipt:
        bill = Receipt(
            self._visit, None, None, self._exit_ns, self._exit_ns, ReceiptStatus.SETTLED, (), self._store.currency, 0,
            tuple(rows),
        )  # fmt: skip
        return self._prices.priced(bill, member=member, billed=kept)


class Corrections:
    """Prices the bills that decisions make of visits."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        """Prepare. store: supplies products, prices and offers. ledger: the store's books."""
        self._store, self._ledger, self._prices = store, ledger, PriceBook(store)
        self._own_gtins = store.own_gtins

    def of(self, visit: str) -> Correction:
        """Prices what a visit costs if it is corrected. Raises FusionError for a visit without receipt."""
        recorded = self._ledger.recorded(visit, "receipt")
        if recorded is None:
            raise FusionError(f"visit {visit!r} has no receipt that could be decided")
        return Correction(self._store, self._prices, self._own_gtins, visit, recorded)

    def priced(self, visit: str, wanted: Sequence[ReceiptLine]) -> tuple[tuple[ReceiptLine, ...], tuple[Discount, ...]]:
        """Lines and discounts of one corrected bill, as `Correction.priced`. Raises FusionError as that and `of`."""
        sale = self.of(visit).priced(wanted)
        return sale.lines, sale.discounts
