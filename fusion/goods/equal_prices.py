"""Goods of one price: where a load was one of several of these, the bill is the same whichever it was.

What lies on the shelf is then as uncertain as before, and the receipt's line says so by its confidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fusion.goods.hypotheses import Cluster
from fusion.goods.pieces import Pieces, likeliest, signed_pieces, weights_of
from fusion.store.models import Product


def price_classes(products: Iterable[Product]) -> tuple[int, ...]:
    """By product, a number that products of the same price and VAT rate share."""
    known: dict[tuple[object, object], int] = {}
    return tuple(known.setdefault((product.price, product.vat_rate), len(known)) for product in products)


def times_surer(clusters: Iterable[Cluster], carts: set[int], price_class: Sequence[int]) -> float:
    """How many times more probable it is that a cart's price is right than that its goods are: at least 1.

    Args:
        clusters: with the joint hypotheses of all open loads.
        carts: whose.
        price_class: by product, as of `price_classes`.
    """

    def priced(pieces: Pieces) -> Pieces:
        return signed_pieces((price_class[product], n) for product, n in pieces)

    ratio = 1.0
    for cluster in clusters:
        carted = cluster.carted(cluster.moves(cluster.parts_of(carts)))
        outcomes = weights_of(carted, np.exp(cluster.log_weight).tolist())
        if len(outcomes) > 1:
            best = likeliest(outcomes)
            ratio *= sum(p for key, p in outcomes.items() if priced(key) == priced(best)) / outcomes[best]
    return ratio
