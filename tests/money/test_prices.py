"""Prices and offers: the right one at the right time, the best for the customer, exact to the cent."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import Place
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from money.books import BREAD, COLA, SOUP, STAMP, STORE, receipt

from fusion.errors import ConfigError
from fusion.money.ledger import Ledger
from fusion.money.prices import PriceBook, PricedReceipt
from fusion.results import ReceiptLine, Taken
from fusion.store.models import Store
from fusion.store.prices import Offer, Price, Prices

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()) * 10**9


def shop(*, price: tuple[Price, ...] = (), offer: tuple[Offer, ...] = ()) -> Store:
    return STORE.model_copy(update={"prices": Prices(price=price, offer=offer)})


def priced(store: Store, *taken: tuple[str, str, int], member: bool = False) -> PricedReceipt:
    """A receipt of pieces taken at an hour of Wednesday, 2026-03-04."""
    moments = tuple(Taken(at(f"2026-03-04T{hour}"), gtin, n) for hour, gtin, n in taken)
    counts = {gtin: sum(one.quantity for one in moments if one.gtin == gtin) for _, gtin, _ in taken}
    lines = [ReceiptLine(gtin, n, 100, 0.9) for gtin, n in sorted(counts.items())]
    one = receipt("v1", *lines)
    return PriceBook(store).priced(replace(one, taken=moments), member=member)


def test_the_price_is_the_one_when_it_was_taken() -> None:
    lunch = Price(gtin=BREAD, price=79, between=("11:00", "14:00"), days=("mon", "tue", "wed"))
    taken = (("10:59", BREAD, 1), ("11:00", BREAD, 2), ("14:00", BREAD, 1), ("12:00", COLA, 1))
    done = priced(shop(price=(lunch,)), *taken)
    lines = [(line.gtin, line.quantity, line.unit_price) for line in done.receipt.lines]
    assert lines == [(COLA, 1, 100), (BREAD, 2, 79), (BREAD, 2, 100)]
    assert done.receipt.total == 100 + 2 * 79 + 2 * 100 and done.discounts == ()


def test_pieces_billed_before_keep_their_price() -> None:
    book = PriceBook(shop(price=(Price(gtin=COLA, price=90, first_day="2026-03-01"),)))
    billed = (ReceiptLine(COLA, 2, 100, 0.9), ReceiptLine(COLA, 1, 80, 0.9), ReceiptLine(SOUP, 1, 5, 0.9))
    for pieces, wanted in ((1, {80: 1}), (2, {80: 1, 100: 1}), (5, {80: 1, 90: 2, 100: 2})):
        bill = replace(receipt("v1", ReceiptLine(COLA, pieces, 0, 0.9)), exit_ns=at("2026-03-04T12:00"))
        done = book.priced(bill, billed=billed)
        assert {line.unit_price: line.quantity for line in done.receipt.lines} == wanted


def test_dates_days_members_and_order() -> None:
    rules = (
        Price(gtin=COLA, price=90, first_day="2026-03-01", last_day="2026-03-05"),
        Price(gtin=COLA, price=80, members=True),
        Price(gtin=COLA, price=70, days=("sat", "sun")),
    )
    book = PriceBook(shop(price=rules))
    for day, member, price in (
        ("2026-02-28", False, 70), ("2026-03-02", False, 90), ("2026-03-02", True, 80), ("2026-03-05", False, 90),
        ("2026-03-06", False, 100), ("2026-03-06", True, 80), ("2026-03-07", True, 70), ("2026-03-08", False, 70),
    ):  # fmt: skip
        assert book.unit_price(COLA, at(f"{day}T23:59:59"), member=member) == price, day
    # The hour that a clock change repeats, and the one that it skips, are what the store's clock says.
    night = PriceBook(shop(price=(Price(gtin=COLA, price=1, between=("02:00", "03:00")),)))
    autumn = at("2026-10-25T01:59:59")
    assert [night.unit_price(COLA, autumn + s * 10**9) for s in (0, 1, 3600, 7200, 7201)] == [100, 1, 1, 1, 100]
    spring = at("2026-03-29T01:59:59")
    assert [night.unit_price(COLA, spring + s * 10**9) for s in (0, 1, 3600)] == [100, 100, 100]


def test_several_together_are_cheaper() -> None:
    three = Offer(id="3 for 2", gtins=(COLA, SOUP), pieces=3, price=200)
    done = priced(shop(offer=(three,)), ("12:00", COLA, 2), ("12:00", SOUP, 2), ("12:00", BREAD, 1))
    assert sum(one.amount for one in done.discounts) == 100 and done.receipt.total == 400
    assert {one.gtin for one in done.discounts} <= {COLA, SOUP}
    percent = Offer(id="third off", gtins=(BREAD,), percent=33.3)
    done = priced(shop(offer=(percent,)), ("12:00", BREAD, 3))
    assert [(one.offer, one.amount) for one in done.discounts] == [("third off", 99)]
    members = Offer(id="members", gtins=(BREAD,), percent=50, members=True)
    assert priced(shop(offer=(members,)), ("12:00", BREAD, 1)).receipt.total == 100
    assert priced(shop(offer=(members,)), ("12:00", BREAD, 1), member=True).receipt.total == 50
    # An offer that would cost more than its pieces does not apply.
    dear = Offer(id="dear", gtins=(COLA,), pieces=2, price=300)
    assert priced(shop(offer=(dear,)), ("12:00", COLA, 2)).discounts == ()


def test_of_offers_that_share_products_the_customer_gets_the_best() -> None:
    # The small offer first would spoil the large one.
    pair = Offer(id="pair", gtins=(COLA, SOUP), pieces=2, price=190)
    meal = Offer(id="meal", gtins=(COLA, SOUP, BREAD), pieces=3, price=150)
    done = priced(shop(offer=(pair, meal)), ("12:00", COLA, 1), ("12:00", SOUP, 1), ("12:00", BREAD, 1))
    assert done.receipt.total == 150 and {one.offer for one in done.discounts} == {"meal"}


offers = st.lists(
    st.builds(
        lambda gtins, pieces, price, percent: (gtins, pieces, price, percent),
        st.sets(st.sampled_from([COLA, BREAD, SOUP, STAMP]), min_size=1),
        st.integers(1, 3),
        st.integers(0, 400),
        st.one_of(st.none(), st.floats(0.5, 100).map(lambda x: round(x, 1))),
    ),
    max_size=3,
)


# At one price for all, the order of the bill alone decides which pieces the first offer leaves to the second.
@example(
    counts={"4006381333931": 1, "96385074": 2, "036000291452": 1},
    prices={},
    drawn=[({"036000291452", "4006381333931", "96385074"}, 3, 0, None), ({"96385074"}, 1, 0, None)],
)
@given(
    counts=st.dictionaries(st.sampled_from([COLA, BREAD, SOUP, STAMP]), st.integers(1, 5), max_size=4),
    prices=st.dictionaries(st.sampled_from([COLA, BREAD, SOUP, STAMP]), st.integers(0, 999)),
    drawn=offers,
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("new_place", ["sqlite"], indirect=True)
def test_offers_match_a_slow_twin_and_add_up(
    new_place: Callable[[], Place],
    counts: dict[str, int],
    prices: dict[str, int],
    drawn: list[tuple[set[str], int, int, float | None]],
) -> None:
    made = tuple(
        Offer(id=f"o{i}", gtins=tuple(sorted(gtins)), pieces=pieces, percent=percent, price=None if percent else price)
        for i, (gtins, pieces, price, percent) in enumerate(drawn)
    )
    store = shop(price=tuple(Price(gtin=gtin, price=price) for gtin, price in prices.items()), offer=made)
    done = priced(store, *(("12:00", gtin, n) for gtin, n in counts.items()))
    cost = {gtin: prices.get(gtin, 100) for gtin in counts}

    def total(order: tuple[Offer, ...]) -> int:
        # The most expensive pieces first; of equal ones those that stand first on the bill.
        bill = ((cost[gtin], gtin) for gtin, n in sorted(counts.items()) for _ in range(n))
        left = sorted(bill, key=lambda one: -one[0])
        off = 0
        for offer in order:
            while True:
                group = [one for one in left if one[1] in offer.gtins][: offer.pieces]
                whole = sum(price for price, _ in group)
                share = Fraction(whole - (offer.price or 0))
                if offer.percent is not None:
                    share = whole * Fraction(str(offer.percent)) / 100
                less = (2 * share + 1) // 2
                if len(group) < offer.pieces or less <= 0:
                    break
                off += less
                for one in group:
                    left.remove(one)
        return off

    whole = sum(cost[gtin] * n for gtin, n in counts.items())
    assert done.receipt.total == whole - max(total(order) for order in permutations(made))
    for gtin, n in counts.items():
        assert sum(one.amount for one in done.discounts if one.gtin == gtin) <= cost[gtin] * n
    with Ledger.open(new_place().folder / "ledger.sqlite", store) as ledger:
        assert ledger.post_receipt(done.receipt, done.discounts)
        assert ledger.balances().get("EUR", {}).get("receivable", 0) == done.receipt.total


def test_prices_are_read_strictly_and_written_back(tmp_path: Path) -> None:
    store = shop(
        price=(Price(gtin=COLA, price=90, first_day="2026-03-01", days=("mon",), between=("11:00", "24:00")),),
        offer=(Offer(id="two", gtins=(COLA, BREAD), pieces=2, price=150, members=True),),
    )
    store.save(tmp_path / "store")
    assert Store.load(tmp_path / "store") == store
    STORE.save(tmp_path / "store")
    assert Store.load(tmp_path / "store") == STORE and not (tmp_path / "store" / "prices.toml").exists()
    (tmp_path / "store" / "prices.toml").write_text(
        '[[price]]\ngtin = "4006381333931"\nprice = -1\nbetween = ["14:00", "11:00"]\ntypo = 1\n'
        '[[price]]\ngtin = "96385074"\nprice = 5\nfirst_day = "2026-02-30"\n'
        '[[offer]]\nid = "x"\ngtins = []\n[[offer]]\nid = "x"\ngtins = ["5000112546415"]\nprice = 1\npercent = 2.0\n'
    )
    with pytest.raises(ConfigError) as raised:
        Store.load(tmp_path / "store")
    faults = str(raised.value)
    for part in ("price[0].price", "price[0].typo: unknown key", "2026-02-30", "offer[0].gtins", "price or percent"):
        assert part in faults, faults
    (tmp_path / "store" / "prices.toml").write_text('[[offer]]\nid = "x"\ngtins = ["5000112546415"]\nprice = 1\n')
    with pytest.raises(ConfigError, match="want a gtin listed in"):
        Store.load(tmp_path / "store")
