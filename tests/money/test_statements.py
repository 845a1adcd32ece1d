"""Statements: a month's movements and the platform's fee add up to the entries."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Place
from money.books import BREAD, COLA, DAY_NS, STORE, TWO, at, sell

from fusion.errors import LedgerError
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
