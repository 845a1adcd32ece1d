"""Prices piece by piece: lines that are split, labels that are believed, offers that share goods, corrected bills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, SOUP, STAMP, STORE, T_NS, at, receipt

from fusion.errors import EntryError, FusionError
from fusion.money.corrections import Corrections
from fusion.money.ledger import Ledger
from fusion.money.prices import PriceBook, stated_prices
from fusion.money.sales import Discount, Sale
from fusion.results import PieceLabel, Receipt, ReceiptLine, Taken
from fusion.store.models import Store
from fusion.store.prices import Offer, Price, Prices

NOON, EVENING = at("2026-03-04T12:00"), at("2026-03-04T18:00")
LUNCH = ("11:00", "14:00")


def shop(**prices: Any) -> Store:
    return STORE.model_copy(update={"prices": Prices.model_validate(prices)})


def bill(*lines: ReceiptLine, taken: tuple[Taken, ...] = (), labels: tuple[PieceLabel, ...] = ()) -> Receipt:
    return replace(receipt("v1", *lines), exit_ns=EVENING, taken=taken, labels=labels)


def line(gtin: str, quantity: int = 1, confidence: float = 0.9) -> ReceiptLine:
    return ReceiptLine(gtin, quantity, 1, confidence)


def rows(store: Store, priced: Receipt, **options: Any) -> list[tuple[str, int, int]]:
    done = PriceBook(store).priced(priced, **options).receipt
    assert done.total == sum(one.quantity * one.unit_price for one in done.lines)
    return [(one.gtin, one.quantity, one.unit_price) for one in done.lines]


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_a_price_is_of_a_product_of_the_store() -> None:
    book = PriceBook(shop(price=[Price(gtin=COLA, price=80, members=True), Price(gtin=COLA, price=90)]))
    assert (book.unit_price(COLA, NOON), book.unit_price(BREAD, NOON)) == (90, 100)
    last = PriceBook(shop(price=[Price(gtin=COLA, price=90), Price(gtin=COLA, price=80, members=True)]))
    assert (last.unit_price(COLA, NOON), last.unit_price(COLA, NOON, member=True)) == (90, 80)
    with pytest.raises(EntryError) as raised:
        book.unit_price("0", NOON)
    assert str(raised.value) == "gtin: want a product of this store, got '0'"


def test_lines_of_one_product_share_its_moments_in_order() -> None:
    store = shop(price=[Price(gtin=COLA, price=70, between=LUNCH)])
    taken = (Taken(NOON, COLA, 2), Taken(EVENING, COLA, 1), Taken(NOON, BREAD, 1))
    # The first line has both pieces of noon, the second one of the evening and one whose time is not known.
    priced = bill(line(COLA, 2), line(COLA, 2, 0.5), line(BREAD), taken=taken)
    assert rows(store, priced) == [(COLA, 2, 70), (COLA, 2, 100), (BREAD, 1, 100)]
    done = PriceBook(store).priced(priced).receipt
    assert [one.confidence for one in done.lines] == [0.9, 0.5, 0.9] and done.visit == "v1"
    assert rows(store, bill(line(COLA, 3), taken=taken[:1])) == [(COLA, 2, 70), (COLA, 1, 100)], "the cheaper first"


def test_pieces_that_were_billed_keep_their_prices_the_cheapest_first() -> None:
    billed = [ReceiptLine(COLA, 1, 120, 1.0), ReceiptLine(COLA, 2, 60, 1.0), ReceiptLine(BREAD, 1, 5, 1.0)]
    assert rows(STORE, bill(line(COLA, 1), line(COLA, 3)), billed=billed) == [
        (COLA, 1, 60), (COLA, 1, 60), (COLA, 1, 100), (COLA, 1, 120),
    ]  # fmt: skip
    added = bill(line(SOUP), line(BREAD, 2))
    assert rows(STORE, added, billed=billed) == [(SOUP, 1, 100), (BREAD, 1, 5), (BREAD, 1, 100)]


def test_a_members_prices_and_offers_are_for_members() -> None:
    store = shop(
        price=[Price(gtin=COLA, price=80, members=True)],
        offer=[Offer(id="m", gtins=(BREAD,), price=50, members=True)],
    )
    goods = bill(line(COLA), line(BREAD))
    assert PriceBook(store).priced(goods).receipt.total == 200
    done = PriceBook(store).priced(goods, member=True)
    assert (done.receipt.total, done.discounts) == (130, (Discount("m", BREAD, 50),))


def test_an_offer_holds_when_its_pieces_were_taken() -> None:
    store = shop(offer=[Offer(id="lunch", gtins=(COLA,), price=60, between=LUNCH)])
    done = PriceBook(store).priced(bill(line(COLA, 3), taken=(Taken(NOON, COLA, 2),)))
    assert done.discounts == (Discount("lunch", COLA, 80),) and done.receipt.total == 220


# ---- discounts -------------------------------------------------------------------------------------------------------


def discounts(store: Store, *lines: ReceiptLine) -> list[tuple[str, str, int]]:
    return [(one.offer, one.gtin, one.amount) for one in PriceBook(store).priced(bill(*lines)).discounts]


@pytest.mark.parametrize(
    ("percent", "amount"), [(12.5, 13), (12.4, 12), (0.5, 1), (0.49, None), (100.0, 100), (33.3, 33), (66.6, 67)]
)
def test_a_percentage_is_rounded_halves_up(percent: float, amount: int | None) -> None:
    found = discounts(shop(offer=[Offer(id="o", gtins=(COLA,), percent=percent)]), line(COLA))
    assert found == ([] if amount is None else [("o", COLA, amount)])


def test_a_discount_is_shared_in_proportion_by_largest_remainder() -> None:
    def three(price: int) -> Store:
        dear = [Price(gtin=COLA, price=200)]
        return shop(price=dear, offer=[Offer(id="o", gtins=(COLA, SOUP, BREAD), pieces=3, price=price)])

    goods = line(SOUP), line(COLA), line(BREAD)
    assert discounts(three(300), *goods) == [("o", SOUP, 25), ("o", COLA, 50), ("o", BREAD, 25)]
    # Of 101 the halves are 50.5 and 25.25: the largest remainder gets the unit.
    assert discounts(three(299), *goods) == [("o", SOUP, 25), ("o", COLA, 51), ("o", BREAD, 25)]
    # Of equal remainders the piece that stands first on the receipt does.
    assert discounts(three(298), *goods) == [("o", SOUP, 26), ("o", COLA, 51), ("o", BREAD, 25)]
    turned = goods[::-1]
    assert discounts(three(298), *turned) == [("o", SOUP, 25), ("o", COLA, 51), ("o", BREAD, 26)]


def test_groups_are_made_from_the_dearest_pieces_until_none_is_cheaper() -> None:
    store = shop(
        price=[Price(gtin=COLA, price=200), Price(gtin=SOUP, price=150)],
        offer=[Offer(id="o", gtins=(COLA, SOUP, BREAD), pieces=2, price=240)],
    )
    # 200 + 200, 150 + 100 and then 100 alone: the first pair saves 160, the second 10.
    all_of_them = discounts(store, line(COLA, 2), line(SOUP), line(BREAD, 2))
    assert all_of_them == [("o", SOUP, 6), ("o", COLA, 160), ("o", BREAD, 4)]
    assert discounts(store, line(BREAD, 4)) == [] and discounts(store, line(COLA)) == []
    assert discounts(store, line(COLA), line(BREAD, 2), line(STAMP)) == [("o", COLA, 40), ("o", BREAD, 20)]


def test_up_to_five_offers_that_share_goods_are_tried_in_every_order() -> None:
    pair = Offer(id="pair", gtins=(COLA, SOUP), pieces=2, price=190)
    meal = Offer(id="meal", gtins=(COLA, SOUP, BREAD), pieces=3, price=150)
    idle = [Offer(id=f"idle {i}", gtins=(COLA,), price=10**6) for i in range(4)]
    goods = line(COLA), line(SOUP), line(BREAD)

    def total(*offers: Offer) -> int:
        return PriceBook(shop(offer=offers)).priced(bill(*goods)).receipt.total

    assert total(pair, meal, *idle[:3]) == 150
    # More than five are applied in the order of the file.
    assert total(pair, meal, *idle) == 290 and total(meal, pair, *idle) == 150


def test_offers_are_tried_together_that_share_goods_by_others() -> None:
    first = Offer(id="first", gtins=(COLA,), price=60)
    second = Offer(id="second", gtins=(BREAD,), price=60)
    both = Offer(id="both", gtins=(COLA, BREAD), pieces=2, price=10)
    apart = Offer(id="apart", gtins=(SOUP,), price=99)
    store = shop(offer=[first, second, apart, both])
    done = PriceBook(store).priced(bill(line(COLA), line(BREAD), line(SOUP)))
    assert done.receipt.total == 10 + 99
    assert {one.offer for one in done.discounts} == {"both", "apart"}
    assert [one.offer for one in done.discounts] == sorted(one.offer for one in done.discounts)


# ---- labels ----------------------------------------------------------------------------------------------------------


def stated(
    check: str, per_kg: int | None, *labels: tuple[int | None, float | None], pieces: int = 1
) -> list[int] | None:
    """What the labels of pieces of cola come to; None where they are not believed."""
    rule: dict[str, Any] = {"gtins": [COLA], "check": check, "per_kg": per_kg}
    read = tuple(PieceLabel(COLA, price, weight_g) for price, weight_g in labels)
    return stated_prices(shop(restriction=[rule]), bill(line(COLA, pieces), labels=read)).get(COLA)


@pytest.mark.parametrize(
    ("price", "weight_g", "believed"),
    [
        # Marked down: a quarter of the list price of 100 at least, and a weight that such a piece of 100 g may have.
        (25, None, 25), (24, None, None), (1000, None, 1000), (0, None, None), (-5, None, None), (None, None, None),
        (50, 106.0, 50), (50, 106.1, None), (50, 23.5, 50), (50, 23.4, None), (None, 100.0, None),
    ],
)  # fmt: skip
def test_a_reduced_price_is_believed(price: int | None, weight_g: float | None, believed: int | None) -> None:
    assert stated("marked down", None, (price, weight_g)) == (None if believed is None else [believed])


@pytest.mark.parametrize(
    ("per_kg", "price", "weight_g", "believed"),
    [
        # At 20.00 a kilogram: rounded halves up, of a weight that such a piece of 100 g may have.
        (2000, None, 100.0, 200), (2000, None, 100.25, 201), (2000, None, 100.2, 200), (2000, None, 106.0, 212),
        (2000, None, 106.1, None), (2000, None, 23.5, 47), (2000, None, 23.4, None),
        # Both are stated, and agree to what a gram costs and a unit.
        (2000, 203, 100.0, 203), (2000, 204, 100.0, None), (2000, 197, 100.0, 197), (2000, 196, 100.0, None),
        (1999, 202, 100.0, 202), (1999, 203, 100.0, None),
        # The price alone: by the weight that it stands for.
        (2000, 212, None, 212), (2000, 213, None, None), (2000, 47, None, 47), (2000, 46, None, None),
        (2000, 0, None, None), (2000, None, None, None),
        # So cheap that the weight costs nothing, or a single unit.
        (4, None, 100.0, None), (5, None, 100.0, 1),
    ],
)  # fmt: skip
def test_a_weight_is_believed(per_kg: int, price: int | None, weight_g: float | None, believed: int | None) -> None:
    assert stated("weighed", per_kg, (price, weight_g)) == (None if believed is None else [believed])


@pytest.mark.parametrize(("sd_g", "most_g", "least_g"), [(0.0, 101.0, 24.75), (2.0, 111.0, 22.25), (4.0, 121.0, 19.75)])
def test_how_far_a_weight_may_be_off_follows_from_the_product(sd_g: float, most_g: float, least_g: float) -> None:
    products = tuple(one.model_copy(update={"weight_sd_g": sd_g}) for one in STORE.products)
    store = shop(restriction=[{"gtins": [COLA], "check": "marked down"}]).model_copy(update={"products": products})
    for weight_g, is_believed in ((most_g, True), (most_g + 0.1, False), (least_g, True), (least_g - 0.1, False)):
        found = stated_prices(store, bill(line(COLA), labels=(PieceLabel(COLA, 50, weight_g),)))
        assert found == ({COLA: [50]} if is_believed else {})


def test_every_piece_needs_a_label_that_is_believed() -> None:
    assert stated("marked down", None, (60, None), (50, None), pieces=2) == [50, 60]
    for labels, pieces in ((((60, None),), 2), (((60, None), (1, None)), 2), (((60, None), (50, None)), 1), ((), 1)):
        assert stated("marked down", None, *labels, pieces=pieces) is None
    # Labels of goods without a rule, or that the store does not have, are passed by.
    store = shop(restriction=[{"gtins": [COLA], "check": "marked down"}, {"gtins": [SOUP], "minimum_age": 16}])
    labels = (PieceLabel(COLA, 60, None), PieceLabel(SOUP, 50, None), PieceLabel("0", 5, None))
    assert stated_prices(store, bill(line(COLA), line(SOUP), labels=labels)) == {COLA: [60]}
    assert stated_prices(STORE, bill(line(COLA), labels=labels)) == {} == stated_prices(store, bill(line(COLA)))
    halves = bill(line(COLA), line(COLA), labels=(*labels, PieceLabel(COLA, 50, None)))
    assert stated_prices(store, halves) == {COLA: [50, 60]}
    # On the receipt each piece then has the price of a label, the lines one after another.
    assert rows(store, halves) == [(COLA, 1, 50), (COLA, 1, 60)]


# ---- corrected bills -------------------------------------------------------------------------------------------------

CHANGING = shop(
    price=[Price(gtin=COLA, price=70, between=LUNCH), Price(gtin=SOUP, price=40, members=True)],
    offer=[Offer(id="club", gtins=(BREAD,), price=50, members=True)],
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", CHANGING) as opened:
        yield opened


def posted(ledger: Ledger, *lines: ReceiptLine, less: tuple[Discount, ...] = ()) -> Corrections:
    total = sum(one.quantity * one.unit_price for one in lines) - sum(one.amount for one in less)
    ledger.post_receipt(replace(receipt("v1", *lines, account=None), exit_ns=NOON, total=total), less)
    return Corrections(CHANGING, ledger)


def test_pieces_on_the_receipt_keep_their_prices_and_added_ones_have_those_of_the_exit(ledger: Ledger) -> None:
    corrections = posted(ledger, ReceiptLine(COLA, 1, 100, 0.9))
    lines, less = corrections.priced("v1", [line(COLA, 2, 1.0), line(BREAD, 1, 1.0)])
    assert lines == (ReceiptLine(COLA, 1, 70, 1.0), ReceiptLine(COLA, 1, 100, 1.0), ReceiptLine(BREAD, 1, 100, 1.0))
    assert less == () and corrections.of("v1").priced([]) == Sale()


@pytest.mark.parametrize(
    ("billed", "less", "total"),
    [
        # Not a member's: what was paid is the price of everyone.
        ((ReceiptLine(BREAD, 1, 100, 0.9),), (), 100),
        ((ReceiptLine(SOUP, 1, 100, 0.9),), (), 100),
        # A member's offer, and a member's price, show that it was one.
        ((ReceiptLine(BREAD, 1, 100, 0.9),), (Discount("club", BREAD, 50),), 50),
        ((ReceiptLine(SOUP, 1, 40, 0.9),), (), 50),
        # Nothing explains this total: then no one's.
        ((ReceiptLine(BREAD, 1, 99, 0.9),), (), 100),
    ],
)
def test_a_member_is_known_by_the_total_of_the_receipt(
    ledger: Ledger, billed: tuple[ReceiptLine, ...], less: tuple[Discount, ...], total: int
) -> None:
    corrections = posted(ledger, *billed, less=less)
    # A piece of bread that is added costs a member half.
    wanted = [line(SOUP), line(BREAD)] if total == 50 and not less else [line(BREAD)]
    lines, taken_off = corrections.priced("v1", wanted)
    bread = sum(one.unit_price for one in lines if one.gtin == BREAD) - sum(one.amount for one in taken_off)
    assert bread == (99 if billed[0].unit_price == 99 else total)


def test_corrections_name_what_they_lack(ledger: Ledger) -> None:
    corrections = posted(ledger, ReceiptLine(COLA, 1, 100, 0.9))
    with pytest.raises(FusionError, match=r"^visit 'v2' has no receipt that could be decided$"):
        corrections.of("v2")
    with pytest.raises(FusionError, match=r"^lines: want products of this store, got '0'$"):
        corrections.priced("v1", [line("0")])
    # The store's own spelling of a GTIN is what the books have.
    lines, _ = corrections.priced("v1", [line("0" + COLA)])
    assert lines[0].gtin == COLA and T_NS < NOON
