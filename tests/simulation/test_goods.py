"""The goods on the shelves differ from the planogram by as much as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from simulation.runs import SHORT

from fusion.simulation.goods import ShelfMap, Stock


def test_true_stock_differs_from_the_planogram(store):
    def stock(**knobs):
        return Stock(store, ShelfMap(store), replace(SHORT, **knobs))

    right, wrong = stock(), stock(count_error_probability=1.0, misplaced_pieces=7)
    assert all(right.count(plate, gtin) == n for plate, gtin, n in right.facings) and not right.misplaced()
    strays = sum(wrong.count(plate, gtin) for plate, gtin in set(wrong.misplaced()))
    assert 1 <= strays <= 7
    off = [wrong.count(plate, gtin) - n for plate, gtin, n in wrong.facings]
    assert sum(o == 0 for o in off) <= 7 and all(-3 <= o <= 3 + 7 for o in off)
    heavy = stock(batch_weight_sd=0.05)
    labels = {product.gtin: product.weight_g for product in store.products}
    means = [np.mean([heavy.new_piece(gtin).weight_g for _ in range(200)]) / label for gtin, label in labels.items()]
    assert 0.02 < np.std(means) < 0.1
