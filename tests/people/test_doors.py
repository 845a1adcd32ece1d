"""Doors of cabinets: whose opening it is, when it ends, and what is doubted."""

from __future__ import annotations

import math

import pytest
from goods import shop as goods_shop

import fusion
from fusion.goods.hands import DOOR_RATIO, UNSEEN_WEIGHT
from fusion.observations import DoorState, GateScan, Observation
from fusion.people.open_visits import OPENING_TRACK
from fusion.people.visits import Visit, Visits
from fusion.results import PersonEntered, PersonLeft, ReasonKind, Receipt, Warning
from fusion.store.models import Gate, Store

T0 = 1_767_258_000_000_000_000
DOOR = Gate(id="door", direction="both", line=((0.4, 1.0), (1.4, 1.0)), credentials=("card", "staff"), kind="cabinet")
STORE = goods_shop.shop().model_copy(update={"gate": (DOOR,)})


def at(second: float) -> int:
    return T0 + round(second * 1e9)


class Cabinet:
    """A cabinet's door alone: events at the gate by second, and the visits that they make."""

    def __init__(self, store: Store = STORE) -> None:
        self.visits = Visits(store)
        self.passed: list[object] = []
        self.now_s = 0.0

    def until(self, second: float) -> None:
        while self.now_s < second - 1e-9:
            self.now_s = min(self.now_s + 0.1, second)
            self.passed += self.visits.idle(at(self.now_s))

    def scan(self, second: float, account: str, kind: str = "account") -> None:
        self.until(second)
        self.passed += self.visits.at_gate(GateScan(at(second), "door", kind, account))

    def door(self, second: float, is_open: bool) -> None:
        self.until(second)
        self.passed += self.visits.at_gate(DoorState(at(second), "door", is_open))

    def finished(self, second: float) -> list[Visit]:
        self.until(second)
        return self.visits.finished(at(second))

    def kinds(self, of: type) -> list[object]:
        return [one for one in self.passed if isinstance(one, of)]


def test_an_opening_is_the_visit_of_the_account_that_was_shown() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "alice")
    cabinet.door(2.0, True)
    cabinet.door(9.0, False)
    (visit,) = cabinet.finished(10.0)
    assert (visit.account, visit.enter_ns, visit.exit_ns, visit.doubts) == ("alice", at(2.0), at(9.0), [])
    (track,) = visit.members
    assert track >= OPENING_TRACK and not visit.is_followed
    (entered,), (left,) = cabinet.kinds(PersonEntered), cabinet.kinds(PersonLeft)
    assert isinstance(entered, PersonEntered) and (entered.gate, entered.account) == ("door", "alice")
    assert isinstance(left, PersonLeft) and left.t_ns == at(9.0)


@pytest.mark.parametrize("scan_s", [1.0, 2.4])
def test_the_credential_may_come_a_moment_after_the_door(scan_s: float) -> None:
    cabinet = Cabinet()
    for second, act in sorted([(scan_s, "scan"), (2.0, "open"), (6.0, "close")]):
        if act == "scan":
            cabinet.scan(second, "alice")
        else:
            cabinet.door(second, act == "open")
    assert [visit.account for visit in cabinet.finished(9.0)] == ["alice"]


def test_a_door_without_a_credential_is_an_unidentified_visit() -> None:
    cabinet = Cabinet()
    cabinet.door(2.0, True)
    cabinet.door(6.0, False)
    (visit,) = cabinet.finished(9.0)
    assert visit.account is None
    assert [one.kind for one in cabinet.kinds(Warning)] == ["no credential"]  # type: ignore[attr-defined]


def test_a_contact_that_bounces_is_one_opening() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "alice")
    for second, is_open in ((2.0, True), (2.05, False), (2.1, True), (8.0, False), (8.1, True), (8.2, False)):
        cabinet.door(second, is_open)
    (visit,) = cabinet.finished(10.0)
    assert visit.exit_ns == at(8.2) and len(visit.members) == 1 and not visit.doubts


def test_a_repeated_state_is_no_news() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "alice")
    for second, is_open in ((0.5, False), (2.0, True), (3.0, True), (6.0, False), (7.0, False)):
        cabinet.door(second, is_open) if second > 1.0 else None
    (visit,) = cabinet.finished(9.0)
    assert (visit.enter_ns, visit.exit_ns) == (at(2.0), at(6.0))
    assert cabinet.visits.ignored["gate: door in the same state"] == 2


def test_two_accounts_at_one_opening_are_doubted() -> None:
    before, during = Cabinet(), Cabinet()
    before.scan(1.0, "alice")
    before.scan(1.5, "bob")
    before.door(2.0, True)
    before.door(6.0, False)
    during.scan(1.0, "alice")
    during.door(2.0, True)
    during.scan(4.0, "bob")
    during.door(6.0, False)
    for cabinet, account in ((before, "bob"), (during, "alice")):
        (visit,) = cabinet.finished(9.0)
        assert visit.account == account
        assert [doubt.kind for doubt in visit.doubts] == [ReasonKind.DOOR_SHARED]


def test_a_closing_that_was_lost_makes_both_openings_doubtful() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "alice")
    cabinet.door(2.0, True)
    cabinet.scan(20.0, "bob")
    cabinet.door(21.0, True)
    cabinet.door(26.0, False)
    first, second = cabinet.finished(30.0)
    assert (first.account, first.exit_ns) == ("alice", at(20.0))
    assert {doubt.kind for doubt in first.doubts} == {ReasonKind.DOOR_SHARED, ReasonKind.DOOR_UNSURE}
    assert (second.account, [doubt.kind for doubt in second.doubts]) == ("bob", [ReasonKind.DOOR_UNSURE])


def test_a_door_that_stays_open_is_reported_and_doubted() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "alice")
    cabinet.door(2.0, True)
    cabinet.until(190.0)
    assert [one.kind for one in cabinet.kinds(Warning)] == ["door left open"]  # type: ignore[attr-defined]
    cabinet.door(191.0, False)
    (visit,) = cabinet.finished(195.0)
    assert [doubt.kind for doubt in visit.doubts] == [ReasonKind.DOOR_LEFT_OPEN]


def test_a_credential_whose_door_stays_closed_ends_without_a_visit_unless_a_load_moved() -> None:
    quiet, moved = Cabinet(), Cabinet()
    for cabinet in (quiet, moved):
        cabinet.scan(1.0, "alice")
    assert [warning.kind for warning in moved.visits.loaded(0, at(5.0))] == ["load behind a closed door"]
    assert quiet.finished(60.0) == [] and quiet.visits.scans_waiting == 0
    assert quiet.visits.ignored["gate: scan without anybody coming in"] == 1
    (visit,) = moved.finished(60.0)
    assert (visit.account, [doubt.kind for doubt in visit.doubts]) == ("alice", [ReasonKind.SCAN_UNBOUND])


def test_staff_open_the_door_without_a_visit() -> None:
    cabinet = Cabinet()
    cabinet.scan(1.0, "badge", "staff")
    cabinet.door(2.0, True)
    cabinet.door(6.0, False)
    assert cabinet.finished(9.0) == []
    (entered,) = cabinet.kinds(PersonEntered)
    assert isinstance(entered, PersonEntered) and entered.staff and cabinet.visits.is_staff(entered.track_id)


# ---- goods behind a door ---------------------------------------------------------------------------------------------


def run(scales: goods_shop.Scales, gate: list[Observation], store: Store = STORE) -> dict[str | None, Receipt]:
    """Receipts by account of weights and events at the gate; plates are heard as in a store."""
    engine = fusion.Engine(store)
    observations = sorted([*scales.readings(), *gate], key=lambda one: one.t_ns)
    results = [result for one in observations for result in engine.feed(one)] + engine.close()
    return {result.account: result for result in results if isinstance(result, Receipt)}


def opening(account: str, open_s: float, close_s: float) -> list[Observation]:
    return [
        GateScan(at(open_s - 1.0), "door", "account", account),
        DoorState(at(open_s), "door", True),
        DoorState(at(close_s), "door", False),
    ]


def lines(receipt: Receipt) -> dict[str, int]:
    return {line.gtin: line.quantity for line in receipt.lines}


def test_everything_between_opening_and_closing_is_the_accounts() -> None:
    scales = goods_shop.Scales(STORE, 50.0, t0_ns=T0)
    scales.step(12.0, {"r0p1": -538.0})
    scales.step(14.0, {"r0p0": -240.0})  # two of a kind in one grip
    scales.step(17.0, {"r0p1": 538.0})  # back where it was
    scales.step(32.0, {"r0p2": -62.0})
    receipts = run(scales, [*opening("alice", 10.0, 20.0), *opening("bob", 30.0, 36.0)])
    alice, bob = receipts["alice"], receipts["bob"]
    assert lines(alice) == {goods_shop.GTINS[0]: 2} and lines(bob) == {goods_shop.GTINS[2]: 1}
    assert (alice.status, bob.status, alice.total) == ("settled", "settled", 200)


def test_a_piece_on_a_wrong_tray_is_off_the_bill_and_another_customer_pays_for_it() -> None:
    scales = goods_shop.Scales(STORE, 50.0, t0_ns=T0)
    scales.step(12.0, {"r0p1": -538.0})
    scales.step(16.0, {"r0p5": 538.0})
    scales.step(32.0, {"r0p5": -538.0})
    receipts = run(scales, [*opening("alice", 10.0, 20.0), *opening("bob", 30.0, 36.0)])
    assert lines(receipts["alice"]) == {} and receipts["alice"].status == "settled"
    assert lines(receipts["bob"]) == {goods_shop.GTINS[1]: 1} and receipts["bob"].status == "settled"


def test_a_plate_that_is_silent_while_the_door_is_open_sends_the_visit_to_review() -> None:
    scales = goods_shop.Scales(STORE, 60.0, t0_ns=T0)
    scales.step(12.0, {"r0p1": -538.0})
    gate = [*opening("alice", 10.0, 20.0), *opening("bob", 3.0, 6.0)]
    silent = [one for one in scales.readings() if one.plate != "r0p6" or one.t_ns < at(8.0)]
    engine = fusion.Engine(STORE)
    observations = sorted([*silent, *gate], key=lambda one: one.t_ns)
    results = [result for one in observations for result in engine.feed(one)] + engine.close()
    receipts = {result.account: result for result in results if isinstance(result, Receipt)}
    assert receipts["alice"].status == "review" and receipts["bob"].status == "settled"
    assert ReasonKind.PLATE_NOT_REPORTING in {reason.kind for reason in receipts["alice"].reasons}


def test_a_load_behind_a_closed_door_is_no_customers() -> None:
    scales = goods_shop.Scales(STORE, 50.0, t0_ns=T0)
    scales.step(28.0, {"r0p1": -538.0})
    receipts = run(scales, [*opening("alice", 10.0, 20.0)])
    assert lines(receipts["alice"]) == {} and receipts["alice"].status == "settled"


def test_no_hand_but_that_of_the_opening_competes() -> None:
    assert UNSEEN_WEIGHT / DOOR_RATIO < 1e-4 and math.log(DOOR_RATIO) > 0.0
