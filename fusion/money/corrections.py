"""What a corrected bill costs: pieces that were on the receipt keep their prices, added ones have those of the exit."""

from __future__ import annotations

from collections.abc import Sequence

from fusion.errors import FusionError
from fusion.money.ledger import Ledger
from fusion.money.prices import PriceBook, PricedReceipt
from fusion.money.sales import Discount
from fusion.results import Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Store

# Confidence of a line that a person entered.
ENTERED = 1.0


class Corrections:
    """Prices the bills that a decision makes of a visit."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        """Prepare. store: supplies products, prices and offers. ledger: the store's books."""
        self._store, self._ledger, self._prices = store, ledger, PriceBook(store)
        self._gtins = frozenset(product.gtin for product in store.products)

    def priced(self, visit: str, wanted: Sequence[ReceiptLine]) -> tuple[tuple[ReceiptLine, ...], tuple[Discount, ...]]:
        """Lines at their prices, and the discounts, of a visit's bill if it is corrected to some goods.

        Pieces that were on the receipt keep their prices. Added pieces, whose moments are not in the books, have the
        prices of the visit's end. Whether the visit was a member's is not in the books either: it was if the receipt's
        total comes out only with a member's prices.

        Args:
            visit: has a receipt.
            wanted: products and pieces; their unit prices are ignored.

        Raises:
            FusionError: a product that the store does not sell, or a visit without receipt.
        """
        for line in wanted:
            if line.gtin not in self._gtins:
                raise FusionError(f"lines: want products of this store, got {line.gtin!r}")
        recorded = self._ledger.recorded(visit, "receipt")
        if recorded is None:
            raise FusionError(f"visit {visit!r} has no receipt that could be decided")
        request = recorded.request
        exit_ns = request.get("exit", recorded.t_ns)
        billed = tuple(ReceiptLine(gtin, n, price, ppm / 1e6) for gtin, n, price, ppm in request["lines"])

        def priced(rows: Sequence[ReceiptLine], kept: tuple[ReceiptLine, ...], member: bool) -> PricedReceipt:
            currency = self._store.currency
            bill = Receipt(visit, None, None, exit_ns, exit_ns, ReceiptStatus.SETTLED, (), currency, 0, tuple(rows))
            return self._prices.priced(bill, member=member, billed=kept)

        def only_for_members(kept: tuple[ReceiptLine, ...]) -> bool:
            """Whether the receipt's total comes out with a member's prices, and with no others."""
            others, members = (priced(billed, kept, member).receipt.total for member in (False, True))
            return others != total and members == total

        total: int = sum(n * price for _, n, price, _ in request["lines"])
        total -= sum(amount for _, _, amount in request.get("discounts", ()))
        known = all(line.gtin in self._gtins for line in billed)
        # The total proves a member by members' offers alone, with the prices on the receipt, or by members' prices too.
        member = known and (only_for_members(billed) or only_for_members(()))
        corrected = priced(wanted, billed, member)
        return corrected.receipt.lines, corrected.discounts
