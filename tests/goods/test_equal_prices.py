"""Goods of one price: the bill is the same whichever it was, and a store may settle it."""

from __future__ import annotations

import numpy as np
import pytest
from goods.bills import Scene, bought, kinds
from goods.shop import GTINS, STORE, event

from fusion.goods.equal_prices import price_classes, times_surer
from fusion.goods.hypotheses import Cluster, OpenEvent
from fusion.results import ReasonKind, ReceiptStatus
from fusion.store.models import ReviewPolicy


def doubtful(goods, probability):
    """A cluster of one load that cart 7 took as one of several (product, pieces)."""
    n = len(goods)
    columns = np.array([[[7, 7, product, -pieces], [-1, -1, 0, 0]] for product, pieces in goods], np.int32)
    opened = OpenEvent(0, event(10.0, {0: -100.0}), "p")
    choices = np.arange(n, dtype=np.int32)[:, None]
    return Cluster.of([opened], np.zeros(n, np.int32), np.moveaxis(columns, 2, 0), choices, np.log(probability))


def test_price_and_vat_make_a_class():
    one, other = STORE.products[:2]
    alike = other.model_copy(update={"price": one.price, "vat_rate": one.vat_rate})
    untaxed = alike.model_copy(update={"vat_rate": one.vat_rate + 5})
    assert price_classes([one, alike, untaxed]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("goods", "ratio"),
    [
        ([(0, 1), (1, 1), (2, 1)], 0.9 / 0.6),  # 0 and 1 cost the same.
        ([(0, 1), (1, 2), (2, 1)], 1.0),  # Not in that number.
        ([(0, 2), (1, 2), (2, 1)], 0.9 / 0.6),
    ],
)
def test_what_costs_the_same_adds_up(goods, ratio):
    cluster = doubtful(goods, [0.6, 0.3, 0.1])
    assert times_surer([cluster], {7}, (0, 0, 1)) == pytest.approx(ratio)
    assert times_surer([cluster], {8}, (0, 0, 1)) == 1.0


@pytest.mark.parametrize("policy", ["review", "settle"])
def test_a_store_may_settle_what_costs_the_same(policy):
    first, second = STORE.products[2], STORE.products[3]
    alike = second.model_copy(
        update={"weight_g": first.weight_g, "weight_sd_g": first.weight_sd_g, "price": first.price,
                "vat_rate": first.vat_rate}
    )  # fmt: skip
    products = (*STORE.products[:3], alike, *STORE.products[4:])
    planogram = tuple(
        facing.model_copy(update={"plate": "r0p2"}) if facing.gtin in (GTINS[2], GTINS[3]) else facing
        for facing in STORE.planogram
    )
    scene = Scene(
        {7: 2}, {"ann": [7]}, products=products, planogram=planogram, review=ReviewPolicy(equal_price=policy)
    )
    scene.moves(10.0, 2, 2, -1)
    receipt = scene.bill("ann")["ann"]
    assert sum(bought(receipt).values()) == 1 and receipt.total == first.price
    assert receipt.probability < 0.95 and receipt.lines[0].confidence < 0.95, "which of them it was is not known"
    if policy == "settle":
        assert receipt.status is ReceiptStatus.SETTLED and not receipt.reasons
    else:
        assert kinds(receipt) == {ReasonKind.GOODS_UNCERTAIN}
        (evidence,) = scene.evidence()
        names = {one.gtin for alternative in evidence.questions[0].alternatives for one in alternative.moved}
        assert names == {GTINS[2], GTINS[3]}
