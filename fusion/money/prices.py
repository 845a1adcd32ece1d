"""What goods cost: by time of day and date, for members, several together, rounded by rules that are written down.

The price of a piece is the one at the moment when it was taken. Offers then apply to the pieces of one receipt so that
the customer pays least: pieces are grouped from the dearest to the cheapest, of equal ones in the receipt's order, and
of up to five offers that share products every order is tried (of more, the order of the file). A percentage is rounded
to the nearest minor unit, halves up, once per group. A group's discount is shared among its pieces in proportion to
their prices, by largest remainder; of equal remainders the piece that stands first on the receipt gets the unit. VAT
follows from what remains, once per rate; see `fusion.money.ledger.vat_included`.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations

from fusion.money.ledger import Discount
from fusion.results import Receipt, ReceiptLine
from fusion.store.models import Store
from fusion.store.prices import Offer

ORDERS_OF_MAX = 5


@dataclass(frozen=True, slots=True)
class _Piece:
    gtin: str
    price: int
    local: datetime.datetime


@dataclass(frozen=True, slots=True)
class PricedReceipt:
    """A receipt at the prices of the moments when things were taken, and what offers take off it."""

    receipt: Receipt
    discounts: tuple[Discount, ...]


class PriceBook:
    """The prices of a store."""

    def __init__(self, store: Store) -> None:
        self._local_time = store.local_time
        self._base = {product.gtin: product.price for product in store.products}
        self._prices = store.prices.price
        self._offers = store.prices.offer

    def unit_price(self, gtin: str, t_ns: int, *, member: bool = False) -> int:
        """Price of a piece taken at an instant, minor units with VAT.

        Raises:
            KeyError: not a product of the store.
        """
        local = self._local_time(t_ns)
        holding = [one.price for one in self._prices if one.gtin == gtin and one.holds(local, member)]
        return holding[-1] if holding else self._base[gtin]

    def priced(self, receipt: Receipt, *, member: bool = False, billed: Sequence[ReceiptLine] = ()) -> PricedReceipt:
        """A receipt with every piece at its price and with the best offers.

        Lines are split where pieces of a product had different prices. A piece whose time is not known counts as taken
        when the visit ended; but pieces that were `billed` before keep their prices, the cheapest first.
        """
        before: dict[str, list[int]] = {}
        for line in sorted(billed, key=lambda line: line.unit_price):
            before.setdefault(line.gtin, []).extend([line.unit_price] * line.quantity)
        times: dict[str, list[int]] = {}
        for taken in receipt.taken:
            times.setdefault(taken.gtin, []).extend([taken.t_ns] * taken.quantity)
        lines: list[ReceiptLine] = []
        pieces: list[_Piece] = []
        for line in receipt.lines:
            known = times.get(line.gtin, [])
            known, times[line.gtin] = known[: line.quantity], known[line.quantity :]
            moments = known + [receipt.exit_ns] * (line.quantity - len(known))
            kept = before.get(line.gtin, [])
            kept, before[line.gtin] = kept[: line.quantity], kept[line.quantity :]
            prices = kept + [self.unit_price(line.gtin, t_ns, member=member) for t_ns in moments[len(kept) :]]
            for price, quantity in sorted(Counter(prices).items()):
                lines.append(ReceiptLine(line.gtin, quantity, price, line.confidence))
            pieces += [_Piece(line.gtin, price, self._local_time(t_ns)) for price, t_ns in zip(prices, moments)]
        discounts = self._discounts(pieces, member)
        total = sum(line.quantity * line.unit_price for line in lines) - sum(one.amount for one in discounts)
        return PricedReceipt(replace(receipt, lines=tuple(lines), total=total), discounts)

    def _discounts(self, pieces: Sequence[_Piece], member: bool) -> tuple[Discount, ...]:
        bought = {piece.gtin for piece in pieces}
        offers = [offer for offer in self._offers if not bought.isdisjoint(offer.gtins)]
        found: Counter[tuple[str, str]] = Counter()
        for together in _sharing(offers):
            orders = permutations(together) if len(together) <= ORDERS_OF_MAX else [together]
            best = max((_applied(order, pieces, member) for order in orders), key=lambda one: sum(one.values()))
            found.update(best)
        return tuple(Discount(offer, gtin, amount) for (offer, gtin), amount in sorted(found.items()) if amount)


def _sharing(offers: Sequence[Offer]) -> list[list[Offer]]:
    """Offers in groups that have no product in common with other groups."""
    groups: list[list[Offer]] = []
    for offer in offers:
        mine = [g for g in groups if any(not set(offer.gtins).isdisjoint(one.gtins) for one in g)]
        merged = [one for group in mine for one in group] + [offer]
        groups = [group for group in groups if group not in mine] + [merged]
    return groups


def _applied(offers: Sequence[Offer], pieces: Sequence[_Piece], member: bool) -> Mapping[tuple[str, str], int]:
    """What offers take off when they are applied one after another: by offer and product."""
    found: Counter[tuple[str, str]] = Counter()
    free = list(range(len(pieces)))
    for offer in offers:
        mine = [i for i in free if pieces[i].gtin in offer.gtins and offer.holds(pieces[i].local, member)]
        mine.sort(key=lambda i: (-pieces[i].price, i))
        for first in range(0, len(mine) - offer.pieces + 1, offer.pieces):
            group = mine[first : first + offer.pieces]
            prices = [pieces[i].price for i in group]
            less = _less(offer, sum(prices))
            if less <= 0:
                break  # the next groups are cheaper still
            for i, share in zip(group, _shares(less, prices)):
                found[offer.id, pieces[i].gtin] += share
                free.remove(i)
    return found


def _less(offer: Offer, whole: int) -> int:
    if offer.price is not None:
        return whole - offer.price
    assert offer.percent is not None
    # Exact: a percentage has few decimals, and a float of it does not.
    return int(whole * Fraction(str(offer.percent)) / 100 + Fraction(1, 2))


def _shares(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in proportion to weights, in whole units that add up to it again."""
    whole = sum(weights)
    shares = [amount * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % whole), i))
    for i in by_remainder[: amount - sum(shares)]:
        shares[i] += 1
    return shares
