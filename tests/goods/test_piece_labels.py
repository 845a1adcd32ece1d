"""A weighed piece has its own weight and price: from the code that a reader read to the line of the receipt."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest
from goods.bills import PLANOGRAM, Scene, bought
from goods.shop import GTINS, STORE, T0
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion.files.lines import line_of, parse_item_line
from fusion.files.results import receipt_row
from fusion.live.messages import Decoder, Mark, line_payload
from fusion.money.prices import PriceBook, stated_prices
from fusion.observations import ItemSighting
from fusion.order import Reorder
from fusion.results import PieceLabel, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.gtin import check_digit
from fusion.store.prices import Prices
from fusion.till.restrictions import Restrictions

CHEESE = GTINS[3]
CODE = f"(01){CHEESE.zfill(14)}(3103)000245(3922)765(21)A1"
WEIGHED = Prices.model_validate({"restriction": [{"gtins": [CHEESE], "check": "weighed"}]})


def read(at_s: float, code: str, source: str = "antenna", zone: str = "pay", kind: str = "read") -> ItemSighting:
    return ItemSighting(T0 + int(at_s * 1e9), source, kind, CHEESE, 1, 0.98, zone=zone, code=code)


def billed(*reads: ItemSighting, pieces: int = 1, **settings: object) -> Receipt:
    scene = Scene({1: 3}, {"ann": [1]}, prices=WEIGHED, **settings)
    for each in range(pieces):
        scene.moves(2.0 + 3 * each, 3, 3, -1)
    for each in reads:
        scene.billing.sight(each)
    receipt = scene.bill("ann")["ann"]
    assert bought(receipt) == {CHEESE: pieces}
    return receipt


def settled(receipt: Receipt, prices: Prices = WEIGHED) -> Receipt:
    store = STORE.model_copy(update={"prices": prices})
    judged = Restrictions(store, lambda account: True).judged(receipt)
    return PriceBook(store).priced(judged).receipt


def test_a_piece_is_charged_what_its_label_states() -> None:
    receipt = billed(read(4.0, CODE))
    assert receipt.labels == (PieceLabel(CHEESE, 765, 245.0),)
    charged = settled(receipt)
    assert charged.status == ReceiptStatus.SETTLED and charged.total == 765
    assert [(line.gtin, line.quantity, line.unit_price) for line in charged.lines] == [(CHEESE, 1, 765)]
    assert receipt_row(charged)["labels"] == [{"gtin": CHEESE, "price": 765, "weight_g": 245.0}]


def test_two_pieces_have_two_prices_and_one_read_twice_has_one() -> None:
    two = CODE.replace("765", "801").replace("A1", "A2")
    receipt = billed(read(4.0, CODE), read(4.1, two), read(9.0, CODE, "exit antenna"), pieces=2)
    assert settled(receipt).lines == tuple(
        ReceiptLine(CHEESE, 1, price, receipt.lines[0].confidence) for price in (765, 801)
    )
    assert settled(billed(read(4.0, CODE), read(9.0, CODE, "exit antenna"))).total == 765


@pytest.mark.parametrize(
    "reads",
    [
        (),
        (read(4.0, CODE.replace("(3922)765", "")),),
        (read(4.0, CODE.replace("(3922)765", "(3932)840765")),),
        (read(4.0, CODE.replace("(3922)765", "(3923)7655")),),
    ],
    ids=["no label", "no price", "another currency", "a fraction of a cent"],
)
def test_without_a_price_on_the_label_a_person_enters_it(reads: tuple[ItemSighting, ...]) -> None:
    judged = settled(billed(*reads))
    assert judged.status == ReceiptStatus.REVIEW and judged.total == STORE.products[3].price


def test_equal_labels_may_be_reported_together_and_different_ones_at_one_instant() -> None:
    both = replace(read(4.0, CODE.replace("(21)A1", "")), quantity=2)
    assert settled(billed(both, pieces=2)).total == 2 * 765
    pair = [read(4.0, CODE), read(4.0, CODE.replace("A1", "A2"))]
    for arrivals in (pair, pair[::-1]):
        order = Reorder(2.0)
        for each in arrivals:
            order.push(each)
        assert order.flush() == pair, "in one order, whichever came first"


def test_of_two_pieces_both_need_a_label() -> None:
    assert settled(billed(read(4.0, CODE), pieces=2)).status == ReceiptStatus.REVIEW


def test_a_label_read_on_two_visits_at_once_is_of_neither() -> None:
    scene = Scene({1: 3, 2: 5}, {"ann": [1], "bob": [2]}, prices=WEIGHED)
    scene.moves(2.0, 3, 3, -1)
    scene.billing.sight(read(4.0, CODE))
    assert [receipt.labels for receipt in scene.bill("ann", "bob").values()] == [(), ()]


def test_a_code_of_the_stores_own_holds_the_price() -> None:
    gtin, code = (body + check_digit(body) for body in ("280000700000", "280000700345"))
    products = tuple(replace_gtin(p, gtin) if p.gtin == CHEESE else p for p in STORE.products)
    planogram = tuple(f.model_copy(update={"gtin": gtin if f.gtin == CHEESE else f.gtin}) for f in PLANOGRAM)
    prices = Prices.model_validate({"restriction": [{"gtins": [gtin], "check": "weighed"}]})
    scene = Scene(
        {1: 3}, {"ann": [1]}, products=products, planogram=planogram, prices=prices,
        in_store_codes=("28IIIIIPPPPPC",),
    )  # fmt: skip
    scene.moves(2.0, 3, 3, -1)
    scene.billing.sight(read(4.0, code))
    receipt = scene.bill("ann")["ann"]
    assert receipt.labels == (PieceLabel(gtin, 345, None),) and not scene.billing.ignored
    charged = PriceBook(scene.store).priced(Restrictions(scene.store, lambda account: True).judged(receipt)).receipt
    assert (charged.status, charged.total) == (ReceiptStatus.SETTLED, 345)


def replace_gtin(product, gtin: str):
    return product.model_copy(update={"gtin": gtin})


def labelled(
    prices: dict[str, object], weight_g: float, *labels: PieceLabel, sd_g: float = 1.0
) -> dict[str, list[int]]:
    """What labels of cheese that weighs so much state, on a receipt with as many pieces."""
    products = tuple(
        p.model_copy(update={"weight_g": weight_g, "weight_sd_g": sd_g}) if p.gtin == CHEESE else p
        for p in STORE.products
    )
    rules = Prices.model_validate({"restriction": [{"gtins": [CHEESE], **prices}]})
    store = STORE.model_copy(update={"products": products, "prices": rules})
    bill = Receipt(
        "v", "a", T0, T0, T0, ReceiptStatus.SETTLED, (), "EUR", 0, (ReceiptLine(CHEESE, len(labels), 1, 1.0),),
        labels=labels,
    )  # fmt: skip
    assert stated_prices(store, replace(bill, labels=())) == {}
    return stated_prices(store, bill)


@given(st.integers(1, 99_999), st.integers(1, 10_000), st.sampled_from([None, 0, 1, -1, 50]))
def test_weight_times_the_price_of_a_kilogram_is_exact(weight_g: int, per_kg: int, off: int | None) -> None:
    exact = int((Decimal(weight_g) * per_kg / 1000).quantize(Decimal(1), ROUND_HALF_UP))
    price = exact + (off or 0)
    label = PieceLabel(CHEESE, None if off is None else price, float(weight_g))
    believed = price > 0 and (off is None or abs(off) <= 1 + per_kg // 1000)
    stated = labelled({"check": "weighed", "per_kg": per_kg}, weight_g, label)
    assert stated == ({CHEESE: [price]} if believed else {})


@pytest.mark.parametrize(
    ("weight_g", "price", "believed"),
    [
        (500.0, 745, True),
        (751.0, 1119, True),  # 500 g and five times 50 g, and a gram of rounding
        (752.0, 1120, False),
        (63.0, None, True),  # a light piece in a heavy box
        (50.0, 75, False),  # the label of another piece
        (0.0, None, False),
        (0.0, 0, False),
        (None, 745, True),
        (None, 75, False),
        (None, 0, False),
        (None, 99_999, False),
    ],
)
def test_a_label_of_a_piece_that_weighs_something_else_is_not_believed(
    weight_g: float | None, price: int | None, believed: bool
) -> None:
    label = PieceLabel(CHEESE, price, weight_g)
    stated = labelled({"check": "weighed", "per_kg": 1490}, 500.0, label, sd_g=50.0)
    assert bool(stated) == believed


def test_nothing_is_free_by_its_label() -> None:
    assert labelled({"check": "marked down"}, 500.0, PieceLabel(CHEESE, 0, None)) == {}
    (listed,) = (product.price for product in STORE.products if product.gtin == CHEESE)
    for price, believed in ((1, False), (listed // 4 - 1, False), (listed // 4 + 1, True), (listed, True)):
        stated = labelled({"check": "marked down"}, 500.0, PieceLabel(CHEESE, price, None))
        assert stated == ({CHEESE: [price]} if believed else {}), price


def test_a_receipt_that_is_priced_twice_has_the_same_lines() -> None:
    two = CODE.replace("765", "801").replace("A1", "A2")
    charged = settled(billed(read(4.0, CODE), read(4.1, two), pieces=2))
    assert charged.total == 765 + 801 and settled(charged) == charged


def test_an_item_message_has_a_gtin_or_a_code_and_keeps_it() -> None:
    line = {"time": T0, "source": "gun", "kind": "read", "code": CODE, "quantity": 1, "zone": "pay"}
    sighting = parse_item_line(json.dumps(line))
    assert (sighting.gtin, sighting.code) == (CHEESE.zfill(14), CODE)
    assert parse_item_line(json.dumps(line_of(sighting))) == sighting and "gtin" not in line_of(sighting)
    decoded = Decoder(STORE).observations(("items", "gun"), line_payload(sighting, Mark(1, 1)))
    assert decoded == [sighting]
    for wrong, fault in (
        ({**line, "gtin": CHEESE}, "want gtin or code, one of them"),
        ({key: value for key, value in line.items() if key != "code"}, "want gtin or code, one of them"),
        ({**line, "code": "4111111111111111"}, "want "),
        ({**line, "code": "x" * 5000}, "want a code of 8 to"),
    ):
        with pytest.raises(ValidationError, match=fault):
            parse_item_line(json.dumps(wrong))
