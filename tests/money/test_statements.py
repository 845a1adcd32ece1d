"""Statements: a month's movements and the platform's fee add up to the entries."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Place
from money.books import BREAD, COLA, DAY_NS, STAMP, STORE, TWO, at, sell

from fusion.errors import LedgerError
from fusion.money.entries import Posting
from fusion.money.ledger import Ledger
from fusion.money.retailers import Retailer
from fusion.money.statements import FEES, Statement, post_fee, statement
from fusion.results import ReceiptLine

BRAND = Retailer(id="r", name="Retail Ltd", brand="Brand", fee_share=7.5, stores=("shop",))


def test_a_months_statement_adds_up_to_the_entries(place: Place) -> None:
    with place.open(STORE) as ledger:
        # The month is the store's: one nanosecond before its midnight is still February.
        sell(ledger, "feb", at("2026-03-01T00:00") - 1, *TWO)
        sell(ledger, "first", at("2026-03-01T00:00"), *TWO)
        sell(ledger, "doubt", at("2026-03-10T12:00"), *TWO, status="review")
        ledger.decide("feb", "waive", by="eve", t_ns=at("2026-03-11T12:00"))
        bread = [ReceiptLine(BREAD, 1, 199, 1.0)]
        ledger.decide("doubt", "correct", by="eve", t_ns=at("2026-04-01T00:00"), lines=bread)
        march = statement(ledger, STORE, BRAND, "2026-03")
        assert march.opening["receivable"] == 697 and march.moved == {} and march.closing["receivable"] == 697
        assert march.sales == {"19%": (0, 0), "7%": (0, 0)} and (march.n_receipts, march.n_decisions) == (2, 1)
        february, april = (statement(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-04"))
        assert february.sales == {"19%": (418, 80), "7%": (186, 13)} and february.net_revenue == 604
        assert april.sales == {"7%": (186, 13)} and april.opening == march.closing and march.opening == february.closing
        # 7.5 % of 604 is 45.3, of 186 13.95.
        assert [post_fee(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-03", "2026-04")] == [45, 0, 14]
        assert [post_fee(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-03", "2026-04")] == [0, 0, 0]
        sell(ledger, "late", at("2026-02-10T12:00"), *TWO)
        assert post_fee(ledger, STORE, BRAND, "2026-02") == 46  # of 1208: 90.6, rounded to 91
        assert statement(ledger, STORE, BRAND, "2026-04").closing == {
            account: amount for account, amount in ledger.balances()["EUR"].items() if amount
        }
        assert statement(ledger, STORE, BRAND, "2026-02").moved[FEES] == 91
        assert ledger.verify() is None and "Retail Ltd" in march.text(STORE)
        with pytest.raises(LedgerError, match="2026-03"):
            statement(ledger, STORE, BRAND, "March")
        monthly = Retailer(id="m", name="M", brand="M", fee_monthly=9900, stores=("shop",))
        assert statement(ledger, STORE, monthly, "2026-05").fee == 9900


def test_any_months_add_up(tmp_path: Path) -> None:
    rng = random.Random(5)
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        with ledger.batch():
            for i in range(400):
                t_ns = at("2026-01-01T00:00") + rng.randrange(180 * 86_400) * 10**9
                line = ReceiptLine(rng.choice([COLA, BREAD]), rng.randrange(1, 5), rng.randrange(1, 999), 0.9)
                sell(ledger, f"v{i}", t_ns, line, status=rng.choice(["settled", "review"]))
                if rng.random() < 0.4:
                    decision = {"decision": "waive"} if rng.random() < 0.5 else {"decision": "correct", "lines": TWO}
                    ledger.decide(f"v{i}", by="eve", t_ns=t_ns + rng.randrange(40 * DAY_NS), **decision)  # type: ignore[arg-type]
        months = [f"2026-{month:02d}" for month in range(1, 9)]
        for month in months:
            post_fee(ledger, STORE, BRAND, month)
        statements = [statement(ledger, STORE, BRAND, month) for month in months]
    assert statements[0].opening == {}
    for before, after in zip(statements, statements[1:]):
        assert after.opening == before.closing
    for one in statements:
        assert sum(one.closing.values()) == sum(one.moved.values()) == 0
        for account in {*one.opening, *one.moved, *one.closing}:
            total = one.opening.get(account, 0) + one.moved.get(account, 0)
            assert total == one.closing.get(account, 0)
        assert one.moved.get(FEES, 0) == one.fee
        assert one.moved.get("receivable", 0) == sum(net + vat for net, vat in one.sales.values())


def test_a_statement_as_people_read_it() -> None:
    made = Statement(
        "Retail Ltd", "shop", "2026-03", "EUR", {"receivable": 697}, {"receivable": -697, "provider": 697},
        {"receivable": 0, "provider": 697}, {"19%": (418, 80), "7%": (186, 13)}, captured=1394, refunded=697,
        charged_back=0, n_receipts=2, n_decisions=1, fee=45,
    )  # fmt: skip
    assert made.net_revenue == 604
    assert made.text(STORE).splitlines() == [
        "Retail Ltd, Shop, 2026-03: 2 receipts, 1 decisions",
        "  sales, net 19%                    4.18 EUR",
        "  sales, net 7%                     1.86 EUR",
        "  VAT 19%                           0.80 EUR",
        "  VAT 7%                            0.13 EUR",
        "  captured                         13.94 EUR",
        "  refunded                         -6.97 EUR",
        "  platform fee                     -0.45 EUR",
        "  account                            opening             moved           closing",
        "  provider                          0.00 EUR          6.97 EUR          6.97 EUR",
        "  receivable                        6.97 EUR         -6.97 EUR          0.00 EUR",
    ]
    again = replace(made, charged_back=249, opening={}, moved={"fees": 1}).text(STORE).splitlines()
    assert again[7] == "  charged back                     -2.49 EUR"
    assert [line.split()[0] for line in again[10:]] == ["fees", "provider", "receivable"]


# ---- every field -----------------------------------------------------------------------------------------------------


def test_a_statement_field_by_field(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        sell(ledger, "v1", at("2026-03-01T00:00"), *TWO)
        sell(ledger, "v2", at("2026-04-01T00:00") - 1, *TWO)
        sell(ledger, "v3", at("2026-04-01T00:00"), *TWO)
        moved = (Posting("provider", "EUR", 600), Posting("receivable", "EUR", -600))
        back = tuple(leg._replace(amount=-leg.amount) for leg in moved)
        for i, (kind, legs) in enumerate(
            [("captured", moved), ("captured", moved), ("refunded", back), ("charged back", back),
             ("charged back", back), ("chargeback returned", moved)]
        ):  # fmt: skip
            ledger.record("v1", f"step {i}", kind, at("2026-03-05T12:00"), {}, legs)
        for subject in ("receiptless", "decisions"):
            ledger.record(subject, "n", subject, at("2026-03-06T12:00"), {}, [Posting("provider", "EUR", 0)])
        march = statement(ledger, STORE, BRAND, "2026-03")
        assert (march.retailer, march.store, march.month, march.currency) == ("Retail Ltd", "shop", "2026-03", "EUR")
        assert (march.n_receipts, march.n_decisions) == (2, 0)
        assert (march.captured, march.refunded, march.charged_back) == (1200, 600, 600)
        assert march.opening == {} and march.moved == march.closing
        assert march.moved == {
            "receivable": 1394, "revenue 19%": -836, "vat 19%": -160, "revenue 7%": -372, "vat 7%": -26,
        }  # fmt: skip
        assert march.sales == {"19%": (836, 160), "7%": (372, 26)} and march.net_revenue == 1208
        assert march.fee == 91, "7.5 % of 1208 is 90.6"
        april = statement(ledger, STORE, BRAND, "2026-04")
        assert april.opening == march.closing and april.n_receipts == 1
        assert statement(ledger, STORE, BRAND, "2025-12").closing == {}


@pytest.mark.parametrize(
    ("share", "net", "fee"),
    [(10.0, 5, 1), (10.0, 4, 0), (10.0, 15, 2), (0.1, 500, 1), (0.1, 499, 0), (0.0, 10**9, 0), (100.0, 7, 7)],
)
def test_a_share_is_rounded_halves_up(tmp_path: Path, share: float, net: int, fee: int) -> None:
    retailer = Retailer(id="r", name="R", brand="R", fee_share=share, stores=("shop",))
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        # Goods without VAT, so that all of it is net.
        sell(ledger, "v1", at("2026-03-05T12:00"), ReceiptLine(STAMP, 1, net, 0.9))
        assert statement(ledger, STORE, retailer, "2026-03").fee == fee


def test_a_fee_is_posted_once_and_then_its_changes(tmp_path: Path) -> None:
    retailer = Retailer(id="r", name="R", brand="R", fee_share=10.0, stores=("shop",))
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        sell(ledger, "v1", at("2026-03-05T12:00"), ReceiptLine(STAMP, 1, 100, 0.9))
        assert [post_fee(ledger, STORE, retailer, "2026-03") for _ in range(2)] == [10, 0]
        (entry,) = ledger.entries("month 2026-03")
        assert (entry.kind, entry.key) == ("platform fee", "month 2026-03/fee 1")
        assert entry.t_ns == at("2026-04-01T00:00") - 1 and entry.request == {"retailer": "r", "fee": 10}
        assert entry.postings == (Posting("platform fees", "EUR", 10), Posting("platform payable", "EUR", -10))
        sell(ledger, "v2", at("2026-03-06T12:00"), ReceiptLine(STAMP, 1, 50, 0.9))
        assert post_fee(ledger, STORE, retailer, "2026-03") == 5
        ledger.decide("v1", "waive", by="eve", t_ns=at("2026-03-07T12:00"))
        ledger.decide("v2", "waive", by="eve", t_ns=at("2026-03-07T12:00"))
        assert post_fee(ledger, STORE, retailer, "2026-03") == -15
        last = ledger.entries("month 2026-03")[-1]
        assert last.key == "month 2026-03/fee 3" and last.request == {"retailer": "r", "fee": 0}
        assert last.postings == (Posting("platform fees", "EUR", -15), Posting("platform payable", "EUR", 15))
        # More was reversed than sold: no fee, and none is paid back beyond what was asked.
        ledger.decide("v1", "correct", by="eve", t_ns=at("2026-03-08T12:00"), lines=TWO, revision=2)
        ledger.decide("v1", "waive", by="eve", t_ns=at("2026-04-08T12:00"), revision=3)
        assert statement(ledger, STORE, retailer, "2026-04").fee == 0
        free = Retailer(id="f", name="F", brand="F", stores=("shop",))
        assert statement(ledger, STORE, free, "2026-03").fee == 0


@pytest.mark.parametrize("month", ["March", "2026-13", "2026-3", "2026-03-01", ""])
def test_a_month_is_written_in_one_way(tmp_path: Path, month: str) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger, pytest.raises(LedgerError) as raised:
        statement(ledger, STORE, BRAND, month)
    assert str(raised.value) == f"month: want a month such as 2026-03, got {month!r}"
