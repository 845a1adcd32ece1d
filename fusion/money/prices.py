"""Prices: by time of day and date, for members, several pieces together, with written rounding rules.

The price of a piece is the one that held when it was taken. Offers then apply to the pieces of one receipt so that the
customer pays least. Pieces are grouped from the most expensive to the cheapest, those of equal price in the receipt's
order. Offers that share products are tried in every order if there are at most five of them, otherwise in the order of
the file. A percentage is rounded to the nearest minor unit, halves up, once per group. A group's discount is shared
among its pieces in proportion to their prices, by largest remainder; of equal remainders the piece that stands first on
the receipt gets the unit. VAT follows from what remains, once per rate; see `fusion.money.sales.vat_included`.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import permutations

from fusion.errors import EntryError
from fusion.money.sales import Discount
from fusion.results import PieceLabel, Receipt, ReceiptLine
from fusion.store.models import Product, Store
from fusion.store.prices import Offer

# Of this many offers that share products every order is tried: 120 orders.
ORDERS_OF_MAX = 5
# A piece is heavier or lighter than its product by as many standard deviations at most: beyond, no shelf would have
# taken it for that product. A label states its net weight; packages weigh up to three times what is in them.
LABEL_SDS_MAX, NET_SHARE_MIN = 5.0, 0.25
# Where a label's price cannot be compared with a weight, it is at least this share of the list price: shops mark down
# by three quarters at most.
STATED_SHARE_MIN = 0.25


@dataclass(frozen=True, slots=True)
class _Piece:
    gtin: str
    price: int
    local: datetime.datetime


@dataclass(frozen=True, slots=True)
class PricedReceipt:
    """A receipt at the prices that held when things were taken, and what offers take off it."""

    receipt: Receipt
    discounts: tuple[Discount, ...]


class PriceBook:
    """The prices of a store."""

    def __init__(self, store: Store) -> None:
        self._local_time = store.local_time
        self._base = {product.gtin: product.price for product in store.products}
        self._own_gtins = store.own_gtins
        self._prices = store.prices.price
        self._offers = store.prices.offer
        self._store = store

    def unit_price(self, gtin: str, t_ns: int, *, member: bool = False) -> int:
        """Price of a piece taken at an instant, minor units with VAT.

        Raises:
            EntryError: not a product of the store.
        """
        local, own = self._local_time(t_ns), self._own_gtins.of(gtin)
        if own is None:
            raise EntryError(f"gtin: want a product of this store, got {gtin!r}")
        matching = [rule.price for rule in self._prices if rule.gtin == own and rule.holds(local, member)]
        return matching[-1] if matching else self._base[own]

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
        stated = stated_prices(self._store, receipt)
        for line in receipt.lines:
            known, kept = times.get(line.gtin, []), before.get(line.gtin, [])
            known, times[line.gtin] = known[: line.quantity], known[line.quantity :]
            kept, before[line.gtin] = kept[: line.quantity], kept[line.quantity :]
            moments = known + [receipt.exit_ns] * (line.quantity - len(known))
            labelled = stated.get(line.gtin, [])
            now = labelled[: line.quantity] or [self.unit_price(line.gtin, t_ns, member=member) for t_ns in moments]
            stated[line.gtin] = labelled[line.quantity :]
            prices = kept + now[len(kept) :]
            for price, quantity in sorted(Counter(prices).items()):
                lines.append(ReceiptLine(line.gtin, quantity, price, line.confidence))
            pieces += [_Piece(line.gtin, price, self._local_time(t_ns)) for price, t_ns in zip(prices, moments)]
        discounts = self._discounts(pieces, member)
        total = sum(line.quantity * line.unit_price for line in lines) - sum(each.amount for each in discounts)
        return PricedReceipt(replace(receipt, lines=tuple(lines), total=total), discounts)

    def _discounts(self, pieces: Sequence[_Piece], member: bool) -> tuple[Discount, ...]:
        bought = {piece.gtin for piece in pieces}
        offers = [offer for offer in self._offers if not bought.isdisjoint(offer.gtins)]
        amounts: Counter[tuple[str, str]] = Counter()
        for group in _sharing(offers):
            orders = permutations(group) if len(group) <= ORDERS_OF_MAX else [group]
            amounts.update(
                max((_applied(order, pieces, member) for order in orders), key=lambda amounts: sum(amounts.values()))
            )
        return tuple(Discount(offer, gtin, amount) for (offer, gtin), amount in sorted(amounts.items()) if amount)


def stated_prices(store: Store, receipt: Receipt) -> dict[str, list[int]]:
    """What each piece of goods that are weighed or marked down costs by its label, minor units, by product.

    Only products of which every piece on the receipt has a label that was read: with its price, or with its weight
    where the price of a kilogram is known (rounded to the minor unit, halves up). A label is not believed whose price
    is nothing, or not that of its weight, or far below the list price where no weight can be asked, or whose weight no
    such piece has: labels are copied and forged.
    """
    per_kg = {gtin: rule.per_kg for rule in store.prices.restriction if rule.check is not None for gtin in rule.gtins}
    if not receipt.labels or not per_kg:
        return {}
    products = {product.gtin: product for product in store.products}
    pieces: Counter[str] = Counter()
    for line in receipt.lines:
        pieces[line.gtin] += line.quantity
    stated: dict[str, list[int]] = {}
    for label in receipt.labels:
        if label.gtin in per_kg and label.gtin in products:
            price = _stated_price(label, per_kg[label.gtin], products[label.gtin])
            stated.setdefault(label.gtin, []).extend([] if price is None else [price])
    return {gtin: sorted(prices) for gtin, prices in stated.items() if len(prices) == pieces[gtin]}


def _stated_price(label: PieceLabel, per_kg: int | None, product: Product) -> int | None:
    """A label's price, or that of its weight; None where it states none, or is not believed."""
    price, weight_g = label.price, label.weight_g
    if per_kg is not None and weight_g is not None:
        by_weight = int((Decimal(repr(weight_g)) * per_kg / 1000).to_integral_value(ROUND_HALF_UP))
        # Scales round the weight to a gram before they print it.
        if price is not None and abs(price - by_weight) > 1 + per_kg // 1000:
            return None
        price = by_weight if price is None else price
    elif per_kg is not None and price is not None:
        weight_g = price / per_kg * 1000
    if weight_g is not None:
        spread_g = LABEL_SDS_MAX * product.weight_sd_g + 1.0
        least_g, most_g = NET_SHARE_MIN * (product.weight_g - spread_g), product.weight_g + spread_g
        if not least_g <= weight_g <= most_g:
            return None
    if price is None or price <= 0 or (per_kg is None and price < STATED_SHARE_MIN * product.price):
        return None
    return price


def _sharing(offers: Sequence[Offer]) -> list[list[Offer]]:
    """Offers in groups that have no product in common with other groups."""
    groups: list[list[Offer]] = []
    for offer in offers:
        touched = [group for group in groups if any(not set(offer.gtins).isdisjoint(other.gtins) for other in group)]
        merged = [other for group in touched for other in group] + [offer]
        groups = [group for group in groups if group not in touched] + [merged]
    return groups


def _applied(offers: Sequence[Offer], pieces: Sequence[_Piece], member: bool) -> Mapping[tuple[str, str], int]:
    """Discounts by (offer, product) when offers are applied one after another."""
    amounts: Counter[tuple[str, str]] = Counter()
    free = list(range(len(pieces)))
    for offer in offers:
        eligible = [i for i in free if pieces[i].gtin in offer.gtins and offer.holds(pieces[i].local, member)]
        eligible.sort(key=lambda i: (-pieces[i].price, i))
        for first in range(0, len(eligible) - offer.pieces + 1, offer.pieces):
            group = eligible[first : first + offer.pieces]
            prices = [pieces[i].price for i in group]
            discount = _discount(offer, sum(prices))
            if discount <= 0:
                break  # the next groups are cheaper still
            for i, share in zip(group, _shares(discount, prices)):
                amounts[offer.id, pieces[i].gtin] += share
                free.remove(i)
    return amounts


def _discount(offer: Offer, gross: int) -> int:
    """What an offer takes off a group of pieces; negative where the offer costs more than they do."""
    if offer.price is not None:
        return gross - offer.price
    assert offer.percent is not None
    # Exact: a percentage has few decimals, which a float cannot hold.
    return int(gross * Fraction(str(offer.percent)) / 100 + Fraction(1, 2))


def _shares(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in proportion to weights, in whole units that add up to it again (largest remainder method)."""
    total = sum(weights)
    shares = [amount * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % total), i))
    for i in by_remainder[: amount - sum(shares)]:
        shares[i] += 1
    return shares
