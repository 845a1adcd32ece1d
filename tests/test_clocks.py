"""Clocks that are set, forged times, sensors with a time of their own: every shopper has a receipt, none is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fusion.engine import Engine
from fusion.goods.billing import UNDECIDED_MAX_S, Billing
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.people.open_visits import Visit
from fusion.people.tracker import Tracker
from fusion.results import Evidence, People, Receipt, Result, Warning
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.truth import Truth
from fusion.snapshots import resume, snapshot
from fusion.store.models import Store

SECOND, HOUR = 10**9, 3600 * 10**9


class Shop:
    """A simulated shop of two minutes, what its sensors send and who really took what."""

    def __init__(self) -> None:
        self.store: Store = demo_store()
        simulation = Simulation(self.store, Scenario(seed=5, minutes=2.0, shoppers=5))
        self.observations: list[Observation] = list(simulation.observations())
        self.truth: Truth = simulation.truth
        self.start_ns = self.observations[0].t_ns
        self.middle_ns = self.start_ns + 60 * SECOND

    def shifted(self, shift_ns: Callable[[Observation], int]) -> list[Observation]:
        """The observations, those from the middle on with their times moved."""
        return [
            replace(o, t_ns=o.t_ns + shift_ns(o)) if o.t_ns >= self.middle_ns else o for o in self.observations
        ]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def run(engine: Engine, observations: Iterable[Observation]) -> list[Result]:
    results = [result for observation in observations for result in engine.feed(observation)]
    return results + engine.close()


def receipts(results: Iterable[Result]) -> dict[str | None, Receipt]:
    return {result.account: result for result in results if isinstance(result, Receipt)}


def warnings(results: Iterable[Result], *kinds: str) -> list[Warning]:
    return [result for result in results if isinstance(result, Warning) and result.kind in kinds]


def assert_right_or_in_review(shop: Shop, results: list[Result]) -> None:
    """Every shopper has one receipt, and none that is settled is wrong."""
    truth = {visit.account: +Counter(visit.items) for visit in shop.truth.visits}
    accounts = [result.account for result in results if isinstance(result, Receipt) and result.account is not None]
    assert sorted(accounts) == sorted(truth)
    for account, receipt in receipts(results).items():
        if receipt.status == "settled":
            assert Counter({line.gtin: line.quantity for line in receipt.lines}) == truth[account or ""]


@pytest.mark.parametrize("by_s", [-3600.0, -7.0, 3600.0])
def test_all_clocks_are_set_while_people_shop(shop: Shop, by_s: float) -> None:
    by_ns = round(by_s * SECOND) + 7
    engine = Engine(shop.store)
    results = run(engine, shop.shifted(lambda o: by_ns))
    assert_right_or_in_review(shop, results)
    (warning,) = warnings(results, "clocks set back", "time missing")
    assert warning.seconds == pytest.approx(abs(by_s), abs=0.5)
    arrived_ns = warning.t_ns - by_ns if by_s < 0 else warning.t_ns
    assert abs(arrived_ns - shop.middle_ns) < 5 * SECOND
    jumps = {"clocks_set_back", "time_missing"}
    touched = {r.account for r in receipts(results).values() if jumps & {reason.kind for reason in r.reasons}}
    inside = {
        visit.account for visit in shop.truth.visits
        if visit.enter_ns < shop.middle_ns < visit.exit_ns + SECOND or 0 <= visit.enter_ns - shop.middle_ns < 5 * SECOND
    }
    # Who left shortly before may still wait for a load: what decides it is on the other side of the jump.
    waiting = {v.account for v in shop.truth.visits if 0 < shop.middle_ns - v.exit_ns < UNDECIDED_MAX_S * SECOND}
    assert inside and inside <= touched - {None} <= inside | waiting
    assert engine.health().t_ns == pytest.approx(shop.observations[-1].t_ns + by_ns, abs=SECOND)
    assert set(engine.journal.totals().values()) <= {0}


def test_results_carry_the_time_that_the_sensors_show(shop: Shop) -> None:
    engine = Engine(shop.store)
    results = run(engine, shop.shifted(lambda o: -HOUR + 7))
    place = results.index(warnings(results, "clocks set back")[0])
    before = [r.t_ns for r in results[:place] if isinstance(r, People)]
    after = [r.t_ns for r in results[place:] if isinstance(r, People)]
    assert before == sorted(before) and after == sorted(after)
    assert max(before) < shop.middle_ns + SECOND and max(after) < shop.start_ns
    last_ns = shop.observations[-1].t_ns - HOUR
    for receipt in receipts(results[place:]).values():
        assert (receipt.enter_ns or 0) <= receipt.exit_ns <= receipt.issued_ns <= last_ns + 4 * SECOND
    for evidence in (r for r in results[place:] if isinstance(r, Evidence)):
        assert all(event.onset_ns < last_ns for event in evidence.events)
        assert all(t_ns < last_ns for event in evidence.events for path in event.wrists for t_ns in path.t_ns)
    keys = [transfer.idempotency_key for transfer in engine.journal]
    assert len(keys) == len(set(keys)) and max(transfer.t_ns for transfer in engine.journal) < shop.middle_ns + SECOND


def test_what_was_used_while_clocks_were_set_replays_alike(shop: Shop) -> None:
    used: list[Observation] = []
    results = run(Engine(shop.store, tap=used.append), shop.shifted(lambda o: -HOUR + 7))
    again = run(Engine(shop.store), used)
    assert list(map(repr, again)) == list(map(repr, results))


def test_a_forged_frame_of_every_camera_changes_nothing(shop: Shop) -> None:
    names = [camera.name for camera in shop.store.cameras]
    forged = [
        replace(o, t_ns=o.t_ns + HOUR) for name in names
        for o in [next(o for o in shop.observations if isinstance(o, Frame) and o.camera == name)]
    ]
    half = len(shop.observations) // 2
    results = run(Engine(shop.store), [*shop.observations[:half], *forged, *shop.observations[half:]])
    honest = run(Engine(shop.store), shop.observations)
    told = warnings(results, "message out of time")
    assert told and [r for r in map(repr, results) if "out of time" not in r] == list(map(repr, honest))


@pytest.mark.parametrize("by_ns", [HOUR, -HOUR])
@pytest.mark.parametrize("kind", [Frame, ShelfReading])
def test_a_sensor_with_another_time_is_left_out_and_named(shop: Shop, kind: type, by_ns: int) -> None:
    name = shop.store.cameras[0].name if kind is Frame else shop.store.plates[0].plate

    def shift_ns(observation: Observation) -> int:
        is_its = name in (getattr(observation, "camera", ""), getattr(observation, "plate", ""))
        return by_ns if is_its else 0

    results = run(Engine(shop.store), shop.shifted(shift_ns))
    assert_right_or_in_review(shop, results)
    (warning,) = warnings(results, "sensor ahead", "sensor behind")
    assert warning.subject == name and warning.t_ns < shop.middle_ns + 5 * SECOND
    assert sum(receipt.status == "settled" for receipt in receipts(results).values()) >= 3


@pytest.mark.parametrize("by_ns", [HOUR, -HOUR])
def test_a_gate_with_another_time_is_named_at_its_first_scan(shop: Shop, by_ns: int) -> None:
    first, *later = [o for o in shop.observations if isinstance(o, GateScan)]
    wrong = [replace(o, t_ns=o.t_ns + by_ns) if o in later else o for o in shop.observations]
    results = run(Engine(shop.store), wrong)
    first_ns = later[0].t_ns
    warning = warnings(results, "message out of time")[0]
    assert warning.subject == "entry" and abs(warning.t_ns - first_ns) < SECOND
    unnamed = [r for r in results if isinstance(r, Receipt) and r.account != first.account]
    assert len(unnamed) == len(shop.truth.visits) - 1
    assert all(receipt.account is None and receipt.status == "review" for receipt in unnamed)


@pytest.mark.parametrize("by_ns", [-HOUR, HOUR])
def test_an_engine_that_resumes_does_not_insist_on_its_time(shop: Shop, by_ns: int) -> None:
    """A snapshot that was taken while the clocks were wrong does not carry that time on."""
    engine = Engine(shop.store)
    half = next(i for i, o in enumerate(shop.observations) if o.t_ns >= shop.middle_ns)
    results = [result for observation in shop.observations[:half] for result in engine.feed(observation)]
    results += run(resume(snapshot(engine), shop.store), shop.shifted(lambda o: by_ns + 7)[half:])
    assert_right_or_in_review(shop, results)
    assert warnings(results, "clocks set back", "time missing")


@pytest.mark.parametrize(("unit", "divisor"), [("seconds", 10**9), ("milliseconds", 10**6), ("microseconds", 1000)])
def test_a_time_in_another_unit_is_named(shop: Shop, unit: str, divisor: int) -> None:
    engine = Engine(shop.store)
    camera = shop.store.cameras[0].name
    frame = next(o for o in shop.observations if isinstance(o, Frame) and o.camera == camera)
    with pytest.raises(ValueError, match=f"frame of camera '{camera}': t_ns: .*look like {unit}"):
        engine.feed(replace(frame, t_ns=frame.t_ns // divisor))
    for wrong in (-1, float(frame.t_ns), np.float64(frame.t_ns), 30 * SECOND, None):
        with pytest.raises(ValueError, match="t_ns: want"):
            engine.feed(replace(frame, t_ns=wrong))  # type: ignore[arg-type]


# ---- faults of this program ------------------------------------------------------------------------------------------


def test_a_bill_that_cannot_be_made_is_that_visits_review(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.engine.FAULTS", (ArithmeticError,))
    engine, bill = Engine(shop.store), Billing.bill
    accounts: list[str | None] = []

    def failing(billing: Billing, visit: Visit, *rest: Any) -> list[Any]:
        accounts.append(visit.account)
        if len(accounts) == 2:
            raise ZeroDivisionError("x" * 5000)
        return bill(billing, visit, *rest)

    monkeypatch.setattr(Billing, "bill", failing)
    results = run(engine, shop.observations)
    assert_right_or_in_review(shop, results)
    failed = receipts(results)[accounts[1]]
    assert failed.status == "review" and failed.reasons[0].kind == "bill_failed"
    assert len(failed.reasons[0].detail or "") < 400
    assert [w.subject for w in warnings(results, "bill failed")] == [failed.visit]
    assert set(engine.journal.totals().values()) <= {0}


def test_a_set_that_cannot_be_processed_is_lost_and_doubted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.engine.FAULTS", (LookupError,))
    engine, step = Engine(shop.store), Tracker.step

    def failing(tracker: Tracker, frames: list[Frame]) -> People:
        if shop.middle_ns < frames[0].t_ns < shop.middle_ns + SECOND // 10:
            raise KeyError("cam01")
        return step(tracker, frames)

    monkeypatch.setattr(Tracker, "step", failing)
    results = run(engine, shop.observations)
    assert_right_or_in_review(shop, results)
    assert 1 <= len(warnings(results, "step failed")) <= 6
    doubted = [r for r in receipts(results).values() if any(reason.kind == "step_failed" for reason in r.reasons)]
    assert doubted and all(receipt.status == "review" for receipt in doubted)
