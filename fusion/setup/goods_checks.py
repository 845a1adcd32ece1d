"""Checks of a store's goods: loads, products that weigh alike, products and plates that the planogram leaves out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from fusion.goods.weighings import PLACE_GAIN_SD
from fusion.setup.findings import Finding, name_list
from fusion.store.models import Product, Store

# Standard deviation of a weighed load of any size: quiet plates are read to this.
SCALE_SD_G = 1.0
# Pieces whose standard deviation is above this share of their weight cannot be counted by weight.
SPREAD_MAX = 0.25


def goods_findings(store: Store) -> Iterator[Finding]:
    """What is wrong with products and planogram."""
    products = {product.gtin: product for product in store.products}
    capacity_g = {plate.plate: plate.capacity_g for plate in store.plates}
    facings: dict[str, list[tuple[Product, int]]] = defaultdict(list)
    for facing in store.planogram:
        facings[facing.plate].append((products[facing.gtin], facing.stock))
    for plate, goods in facings.items():
        load_g = sum(stock * product.weight_g for product, stock in goods)
        if load_g > capacity_g[plate]:
            message = (
                f"want at most {capacity_g[plate] / 1000:.1f} kg, got {load_g / 1000:.1f} kg of stock in the planogram"
            )
            yield Finding("warning", "plate-overloaded", f"plate {plate}", message)
        yield from _look_alike_findings(store, plate, [product for product, _ in goods])
    planned = {facing.gtin for facing in store.planogram}
    unplanned = [product.name for product in store.products if product.gtin not in planned]
    if unplanned:
        message = f"{len(unplanned)} products lie on no plate of the planogram: {name_list(unplanned)}"
        yield Finding("note", "not-planned", "planogram.csv", message)
    empty = [plate.plate for plate in store.plates if plate.plate not in facings]
    if empty:
        message = f"nothing lies on {len(empty)} plates: {name_list(empty)}"
        yield Finding("note", "plate-not-planned", "planogram.csv", message)
    for product in store.products:
        if product.weight_sd_g > SPREAD_MAX * product.weight_g:
            message = f"want a spread well below the weight of {product.weight_g:g} g, got {product.weight_sd_g:g} g: "
            message += "pieces cannot be counted by weight"
            yield Finding("warning", "weight-spread", f"product {product.gtin}", message)


def _look_alike_findings(store: Store, plate: str, products: list[Product]) -> Iterator[Finding]:
    """Products of one plate that are neighbours in weight and would be mixed up too often."""
    by_weight = sorted(products, key=lambda product: product.weight_g)
    for lighter, heavier in zip(by_weight, by_weight[1:]):
        chance = mix_up_probability(lighter, heavier)
        if chance <= store.review.receipt_error_max:
            continue
        if lighter.price != heavier.price:
            message = (
                f"want weights that the scale can tell apart, got {lighter.name} ({lighter.weight_g:g} g) and "
                f"{heavier.name} ({heavier.weight_g:g} g): {chance:.0%} of either weigh like the other"
            )
            yield Finding("warning", "look-alikes", f"plate {plate}", message)
        else:
            message = f"{lighter.name} and {heavier.name} weigh the same and cost the same: stocks may be mixed up"
            yield Finding("note", "look-alikes", f"plate {plate}", message)


def mix_up_probability(first: Product, second: Product) -> float:
    """Share of pieces of either product that weigh more like the other, on one plate whose gain is known.

    A weighed load deviates by the piece, by its place on the plate and by the scale. Each piece is taken for the
    product whose mean is fewer standard deviations away, so with means m and standard deviations s the share is
    Phi(-|m1 - m2| / (s1 + s2)).
    """
    sd_sum_g = sum(
        math.hypot(product.weight_sd_g, PLACE_GAIN_SD * product.weight_g, SCALE_SD_G) for product in (first, second)
    )
    return 0.5 * math.erfc(abs(first.weight_g - second.weight_g) / sd_sum_g / math.sqrt(2.0))
