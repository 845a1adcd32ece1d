"""A served store from its gates to paid receipts: the policies of `[payment]`, outages, restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live.stepping import Day
from till.shops import Bank, decided, opened, paying, shop

from fusion.gates.verifiers import GateRequest
from fusion.live.clock import ManualClock
from fusion.money.ledger import Ledger
from fusion.money.moments import Moments, kept_of
from fusion.observations import GateScan
from fusion.store.models import Store
from fusion.till.settings import TillFile, TillSettings


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    """The payment provider of every till that is opened."""
    bank = Bank()
    monkeypatch.setattr("fusion.till.opening.open_provider", lambda settings, base: bank)
    return bank


def balances(folder: Path, store: Store) -> dict[str, int]:
    with Ledger.open(folder / f"{store.id}.sqlite", store) as ledger:
        assert ledger.verify() is None
        return ledger.balances()[store.currency]


def documents(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "receipts").glob("*.json")]


def halfway(day: Day) -> int:
    """Index behind the last scan, and some seconds more: all shoppers are inside or were."""
    last = max(i for i, observation in enumerate(day.observations) if isinstance(observation, GateScan))
    return last + 1500


@pytest.mark.parametrize(("mode", "policy"), [("leave", {}), ("enter", {"authorise": 5000})])
def test_visits_are_charged_and_receipts_written(
    mode: str, policy: dict[str, int], bank: Bank, day: Day, tmp_path: Path
) -> None:
    store = paying(day.store, mode, **policy)
    stepped = opened(store, tmp_path)
    decisions = shop(stepped, day.observations)
    stepped.end()
    assert all(decision.open for decision in decisions) and len(decisions) == 3
    total = sum(receipt.total for receipt in day.receipts.values())
    found = balances(tmp_path, store)
    assert bank.total == found["provider"] == total > 0
    assert found.get("receivable", 0) == found.get("authorised", 0) == bank.held == 0
    # What each receipt holds was kept with when and where it was taken.
    moments = Moments(tmp_path / "moments.sqlite")
    for visit, receipt in day.receipts.items():
        kept = kept_of(moments.of(visit))
        assert {gtin: len(held) for gtin, held in kept.items()} == {
            line.gtin: line.quantity for line in receipt.lines
        }  # fmt: skip
        assert all(receipt.enter_ns < each.t_ns < receipt.exit_ns for held in kept.values() for each in held)
    moments.close()
    assert sum(int(str(document["total"])) for document in documents(tmp_path)) == total


def test_a_provider_that_is_away_delays_its_payments_and_nothing_else(
    bank: Bank, day: Day, tmp_path: Path
) -> None:
    store, clock = paying(day.store, "leave"), ManualClock()
    stepped = opened(store, tmp_path, clock)
    bank.away = True
    decisions = shop(stepped, day.observations)
    assert all(decision.open for decision in decisions)
    waits_for = stepped.status()["till"]["waits_for"]
    assert "no answer" in waits_for["payments"]
    assert len(documents(tmp_path)) == 3, "receipts do not wait for the provider"
    stepped.kill(tmp_path / "killed")
    # The next process finds in the books what was asked, and asks once it has an answer.
    bank.away = False
    stepped = opened(store, tmp_path / "killed", clock)
    stepped.end()
    found = balances(tmp_path / "killed", store)
    assert bank.total == found["provider"] > 0 and found.get("receivable", 0) == 0
    assert all(n == 1 for n in bank.n_captures.values())


def test_people_inside_keep_their_visit_and_their_name_over_a_restart(bank: Bank, day: Day, tmp_path: Path) -> None:
    store = paying(day.store, "enter", authorise=5000)
    stepped = opened(store, tmp_path)
    middle = halfway(day)
    shop(stepped, day.observations[:middle])
    inside = stepped.loop.engine.open_visits
    assert inside
    account = next(visit.account for visit in stepped.loop.books.ledger.open_visits() if visit.visit in inside)
    holder = stepped.loop.books.ledger.holder(account or "")
    assert holder is not None
    stepped.stop()
    stepped = opened(store, tmp_path)
    # A companion of a customer who is inside comes in on the same visit.
    request = GateRequest(day.observations[middle].t_ns, "entry", "card", holder.account)
    scan = decided(stepped, request).scan
    assert scan is not None and scan.account == account
    shop(stepped, day.observations[middle:])
    stepped.end()
    with Ledger.open(tmp_path / f"{store.id}.sqlite", store) as ledger:
        assert not ledger.open_visits()
        standing = [ledger.standing(visit) for visit in inside]
        assert all(one is not None and one.account is not None for one in standing)
        assert bank.total == ledger.balances()[store.currency]["provider"]


def test_a_basket_in_the_payment_zone_is_confirmed_before_its_customer_leaves(
    bank: Bank, day: Day, tmp_path: Path
) -> None:
    store = paying(day.store, "zone")
    width, depth = (max(corner[axis] for corner in store.floor) for axis in (0, 1))
    zone = {"id": "pay", "kind": "payment", "polygon": [[0, 0], [width, 0], [width, depth], [0, depth]]}
    store = Store.model_validate({**store.model_dump(), "zone": [zone]})
    stepped = opened(store, tmp_path)
    till, paid = stepped.loop.books.till, set()
    for first in range(0, len(day.observations), 200):
        shop(stepped, day.observations[first : first + 200])
        for basket in till.baskets.in_zones().get("pay", ()):
            wrong = till.confirm("pay", basket.visit, basket.total + 1, till.baskets.t_ns)
            assert not wrong.confirmed and wrong.reason == "the basket has changed"
            if till.confirm("pay", basket.visit, basket.total, till.baskets.t_ns).confirmed and basket.total:
                paid.add(basket.visit)
    assert paid and bank.asked >= len(paid)
    stepped.end()
    found = balances(tmp_path, store)
    assert bank.total == found["provider"] == sum(receipt.total for receipt in day.receipts.values())
    assert all(n == 1 for n in bank.n_captures.values()), "one authorisation for a basket, captured once"


def test_members_pay_their_prices(bank: Bank, day: Day, tmp_path: Path) -> None:
    store = paying(day.store, "leave")
    prices = [{"gtin": product.gtin, "price": 1, "members": True} for product in store.products]
    store = Store.model_validate({**store.model_dump(), "prices": {"price": prices}})
    accounts = [f"tok_{one.account}" for one in day.observations if isinstance(one, GateScan)]
    listed = tmp_path / "customers.csv"
    listed.write_text("account,token,email,member,adult\n" + f"{accounts[0]},{accounts[0]},,yes,\n", encoding="utf-8")
    listed.chmod(0o600)
    tables = {"payment": {"provider": "test"}, "customers": {"file": "customers.csv"}}
    till = TillFile(TillSettings.model_validate(tables), tmp_path)
    stepped = opened(store, tmp_path / "served", till=till)
    shop(stepped, day.observations)
    stepped.end()
    with Ledger.open(tmp_path / "served" / f"{store.id}.sqlite", store) as ledger:
        cheap = {
            standing.account
            for visit in day.receipts
            if (standing := ledger.standing(visit)) is not None and {line.unit_price for line in standing.lines} == {1}
        }
        assert {ledger.holder(name or "").account for name in cheap} == {accounts[0]}  # type: ignore[union-attr]
