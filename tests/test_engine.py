"""The whole engine on a simulated store: right receipts, the same bytes, every rejection counted."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusion import Engine, Frame, GateScan, ItemSighting, Recording, ShelfReading, Store, replay
from fusion.errors import JournalError, OrderError, RecordingError, ShapeError, TimeError
from fusion.files.results import ResultsWriter
from fusion.goods.journal import cart
from fusion.results import (
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    Receipt,
    RunEnd,
    ShelfEventExplained,
    Warning,
)
from fusion.run import Run


def everything(store: Store, observations) -> tuple[list, Engine]:
    engine = Engine(store)
    results = [result for observation in observations for result in engine.feed(observation)]
    return results + engine.close(), engine


def of(kind: type, results: list) -> list:
    return [result for result in results if isinstance(result, kind)]


def digest(results: list) -> str:
    """One number for everything an engine answered; arrays count with every bit."""
    hash_ = hashlib.sha256()
    for result in results:
        for name in result.__slots__:
            value = getattr(result, name)
            hash_.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return hash_.hexdigest()


@pytest.fixture(scope="module")
def recording(small_recording: Path) -> Recording:
    return Recording(small_recording)


@pytest.fixture(scope="module")
def observations(recording: Recording) -> list:
    return list(recording.observations())


@pytest.fixture(scope="module")
def answers(recording: Recording, observations: list) -> tuple[list, Engine]:
    return everything(recording.store, observations)


def test_every_receipt_is_right_or_in_review(answers, small_recording):
    truth = {
        v["account"]: v for v in map(json.loads, (small_recording / "truth/visits.jsonl").read_text().splitlines())
    }
    receipts = of(Receipt, answers[0])
    assert {receipt.account for receipt in receipts} == set(truth)
    assert len(receipts) == len(truth)
    for receipt in receipts:
        got = {line.gtin: line.quantity for line in receipt.lines}
        true = {gtin: quantity for gtin, quantity in truth[receipt.account]["items"].items() if quantity}
        assert receipt.status == "review" or got == true
        assert receipt.total == sum(line.unit_price * line.quantity for line in receipt.lines)
        assert abs(receipt.enter_ns - truth[receipt.account]["enter"]) < 0.5e9
        assert abs(receipt.exit_ns - truth[receipt.account]["exit"]) < 0.5e9
        assert 0 <= receipt.issued_ns - receipt.exit_ns <= 3.0e9
    assert any(receipt.status == "settled" for receipt in receipts)


def test_results_come_typed_and_in_order(answers):
    results, _ = answers
    kinds = Counter(type(result).__name__ for result in results)
    assert kinds["PersonEntered"] == kinds["PersonLeft"] == kinds["Receipt"] == 2
    assert kinds["Picked"] >= 2 and kinds["People"] > 500
    instants = [result.t_ns for result in of(People, results)]
    assert instants == sorted(instants)
    assert np.diff(instants).max() <= 100e6, "the contract asks for an output at least every 100 ms"


def test_goods_are_conserved(answers):
    _, engine = answers
    assert len(engine.journal) > 0
    assert set(engine.journal.totals().values()) <= {0}
    for receipt in of(Receipt, answers[0]):
        assert engine.journal.balance(cart(receipt.visit)) == {line.gtin: line.quantity for line in receipt.lines}


def test_a_reviewer_decides(answers):
    results, engine = answers
    receipt = next(receipt for receipt in of(Receipt, results) if receipt.lines)
    account, written = cart(receipt.visit), len(engine.journal)
    first = receipt.lines[0]
    decided = engine.decide(receipt, {first.gtin: first.quantity + 1}, receipt.issued_ns + 10**9)
    assert decided.status == "settled" and decided.reasons == ()
    assert decided.total == first.unit_price * (first.quantity + 1)
    assert engine.journal.balance(account) == {first.gtin: first.quantity + 1}
    assert len(engine.journal) > written and set(engine.journal.totals().values()) <= {0}
    with pytest.raises(JournalError, match="want pieces of products"):
        engine.decide(receipt, {"unknown": 1}, receipt.issued_ns)
    engine.decide(receipt, {line.gtin: line.quantity for line in receipt.lines}, receipt.issued_ns + 2 * 10**9)
    assert engine.journal.balance(account) == {line.gtin: line.quantity for line in receipt.lines}


def test_probabilities_are_probabilities(answers):
    for event in of(ShelfEventExplained, answers[0]):
        assert sum(candidate.probability for candidate in event.candidates) <= 1.0 + 1e-9
        assert all(0.0 <= candidate.probability <= 1.0 for candidate in event.candidates)


def test_two_runs_are_the_same_bytes(small_recording, tmp_path):
    for name in ("first", "second"):
        replay(small_recording, tmp_path / name)
    for file in ("receipts.jsonl", "events.jsonl", "tracks.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    run = json.loads((tmp_path / "first" / "run.json").read_text())
    figures = {"frames", "messages", "wall_s", "engine_cpu_s", "step_us", "set_back_s", "time_off_s", "ignored"}
    assert set(run) == {"version", "store", *figures}
    assert run["frames"] > 0 and run["messages"] > 0 and run["step_us"]["p50"] > 0


def test_the_order_of_arrival_does_not_matter(recording, observations, answers):
    """Any delays up to two seconds give the same answers, bit for bit."""
    shuffle = random.Random(5)
    delayed = sorted(observations, key=lambda o: o.t_ns + shuffle.uniform(0.0, 1.9e9))
    results, engine = everything(recording.store, delayed)
    assert digest(results) == digest(answers[0])
    assert engine.ignored == answers[1].ignored


def test_what_the_tap_gets_replays_to_the_same_results(recording, observations, answers):
    """Late, repeated and unbelievable observations are not among it; the rest is, in time order."""
    shuffle = random.Random(6)
    arriving = sorted(observations, key=lambda o: o.t_ns + shuffle.uniform(0.0, 1.9e9))
    frame = next(o for o in observations if isinstance(o, Frame))
    arriving[3000:3000] = [frame, Frame(arriving[2999].t_ns + 3600 * 10**9, frame.camera, frame.keypoints)]
    arriving[5000:5000] = arriving[4990:5000]
    tapped: list = []
    engine = Engine(recording.store, tap=tapped.append)
    results = [result for observation in arriving for result in engine.feed(observation)] + engine.close()
    # What is not used is reported, and not recorded.
    results.remove(next(r for r in results if isinstance(r, Warning) and r.kind == "message out of time"))
    assert len(tapped) == len(observations)
    assert [o.t_ns for o in tapped] == sorted(o.t_ns for o in tapped)
    assert digest(results) == digest(answers[0]) == digest(everything(recording.store, tapped)[0])
    assert sum((engine.ignored - answers[1].ignored).values()) == 12


def test_two_engines_share_nothing(recording, observations, answers):
    left, right = Engine(recording.store), Engine(recording.store)
    first, second = [], []
    for observation in observations:
        first += left.feed(observation)
        second += right.feed(observation)
    expected = digest(answers[0])
    assert digest(first + left.close()) == expected
    assert digest(second + right.close()) == expected


def test_inputs_are_not_changed(recording):
    engine = Engine(recording.store)
    for observation, copy in zip(Recording(recording.folder).observations(), recording.observations()):
        engine.feed(observation)
        arrays = [(getattr(observation, n), getattr(copy, n)) for n in ("keypoints", "samples") if hasattr(copy, n)]
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in arrays)


def bad(recording: Recording, observations: list) -> list[tuple[str, object]]:
    frame = next(o for o in observations if isinstance(o, Frame) and len(o.keypoints))
    reading = next(o for o in observations if isinstance(o, ShelfReading))
    last_ns = observations[-1].t_ns
    nan = frame.keypoints.copy()
    nan[0, 3, 0] = np.nan
    return [
        ("detections: camera without calibration", Frame(last_ns, "nowhere", frame.keypoints)),
        ("weights: unknown plate", ShelfReading(last_ns, "nowhere", reading.samples)),
        ("gate: unknown gate", GateScan(last_ns, "nowhere", "qr", "token")),
        ("detections: more than 2 s late", Frame(observations[0].t_ns, frame.camera, frame.keypoints)),
        ("weights: more than 2 s late", ShelfReading(observations[0].t_ns, reading.plate, reading.samples)),
        (
            "detections: time far ahead of every other sensor",
            Frame(last_ns + 3600 * 10**9, frame.camera, frame.keypoints),
        ),
        ("items: evidence not used", ItemSighting(last_ns, "antenna", "read", "gtin", 1, 0.9)),
    ]


def test_what_is_not_used_is_counted_by_reason(recording, observations):
    engine = Engine(recording.store)
    for observation in observations:
        engine.feed(observation)
    before = engine.ignored
    wrong = bad(recording, observations)
    for _, observation in wrong:
        engine.feed(observation)
    engine.close()
    counted = engine.ignored - before
    assert counted == Counter(reason for reason, _ in wrong)


def test_repeated_observations_change_nothing(recording, observations, answers):
    twice = [copy for observation in observations for copy in (observation, observation)]
    results, engine = everything(recording.store, twice)
    assert digest(results) == digest(answers[0])
    n_repeated = sum(count for reason, count in engine.ignored.items() if reason.endswith("repeated"))
    assert n_repeated == len(observations)


def test_keypoints_that_are_not_numbers_are_counted_and_harmless(recording, observations):
    damaged = []
    for k, observation in enumerate(observations):
        if isinstance(observation, Frame) and len(observation.keypoints) and k % 3 == 0:
            keypoints = observation.keypoints.copy()
            keypoints[:, ::4, 0] = [np.nan, np.inf, -np.inf][k % 9 // 3]
            observation = Frame(observation.t_ns, observation.camera, keypoints)
        damaged.append(observation)
    results, engine = everything(recording.store, damaged)
    assert any("finite" in reason for reason in engine.ignored)
    for people in of(People, results):
        assert np.isfinite(people.position_m).all()
    assert len(of(Receipt, results)) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_samples_that_are_not_grams_are_counted_and_harmless(recording, observations, value):
    damaged = []
    for k, observation in enumerate(observations):
        if isinstance(observation, ShelfReading) and k % 7 == 0:
            samples = observation.samples.copy()
            samples[3] = value
            observation = ShelfReading(observation.t_ns, observation.plate, samples)
        damaged.append(observation)
    results, engine = everything(recording.store, damaged)
    assert any(reason.startswith("weights") for reason in engine.ignored)
    for receipt in of(Receipt, results):
        assert all(line.quantity < 10 for line in receipt.lines)


def test_wrong_arrays_are_refused(recording):
    engine = Engine(recording.store)
    with pytest.raises(ShapeError, match=r"want \(n, 17, 3\), got \(2, 25, 3\)"):
        engine.feed(Frame(10**18, "cam", np.zeros((2, 25, 3), np.float32)))
    with pytest.raises(ShapeError, match="samples"):
        engine.feed(ShelfReading(10**18, "plate", np.zeros((2, 12), np.float32)))


@pytest.mark.parametrize("name", ["keypoints", "samples"])
@pytest.mark.parametrize(
    "wrong",
    [None, [1.0, 2.0], "text", np.zeros(()), np.zeros((3, 4), np.float32), np.zeros(12, object), np.zeros(12, int)],
)
def test_what_is_not_a_float_array_is_refused(recording, name, wrong):
    engine = Engine(recording.store)
    with pytest.raises(ShapeError, match=f"{name}: want"):
        engine.feed(Frame(10**18, "cam", wrong) if name == "keypoints" else ShelfReading(10**18, "plate", wrong))
    with pytest.raises(TypeError, match="want a Frame"):
        engine.feed({"time": 10**18})


def test_any_float_array_that_fits_gives_the_same_answers(recording, observations, answers):
    """float64, Fortran order, strided, read-only, big-endian."""
    kinds = [
        lambda a: a.astype(np.float64),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a.astype(">f4"),
    ]
    changed = []
    for k, observation in enumerate(observations):
        if isinstance(observation, Frame):
            observation = Frame(observation.t_ns, observation.camera, kinds[k % 4](observation.keypoints))
            observation.keypoints.flags.writeable = False
        elif isinstance(observation, ShelfReading):
            observation = ShelfReading(observation.t_ns, observation.plate, kinds[k % 4](observation.samples))
        changed.append(observation)
    results, _ = everything(recording.store, changed)
    assert digest(results) == digest(answers[0])


def test_a_closed_engine_refuses_everything(recording, observations):
    engine = Engine(recording.store)
    engine.close()
    assert engine.close() == []
    with pytest.raises(OrderError):
        engine.feed(observations[0])


def test_a_store_without_cameras_has_unidentified_shelf_events(recording, observations):
    store = recording.store.model_copy(update={"cameras": (), "gate": ()})
    results, engine = everything(store, [o for o in observations if isinstance(o, ShelfReading)])
    events = of(ShelfEventExplained, results)
    assert len(events) >= 2 and not of(Receipt, results)
    assert {candidate.account for event in events for candidate in event.candidates} == {None}
    assert engine.ignored == {}


def test_a_store_without_plates_has_empty_receipts(recording, observations):
    store = recording.store.model_copy(update={"plates": (), "planogram": ()})
    results, _ = everything(store, [o for o in observations if not isinstance(o, ShelfReading)])
    receipts = of(Receipt, results)
    assert len(receipts) == 2 and all(not receipt.lines and receipt.total == 0 for receipt in receipts)


def test_a_store_without_gates_has_people_and_goods_but_no_visits(recording, observations):
    store = recording.store.model_copy(update={"gate": ()})
    results, _ = everything(store, [o for o in observations if not isinstance(o, GateScan)])
    assert of(People, results) and of(Picked, results)
    assert not of(PersonEntered, results) and not of(PersonLeft, results) and not of(Receipt, results)


def test_no_account_is_charged_without_a_scan(recording, observations):
    results, _ = everything(recording.store, [o for o in observations if not isinstance(o, GateScan)])
    receipts = of(Receipt, results)
    assert receipts and all(receipt.account is None and receipt.status == "review" for receipt in receipts)
    assert [warning for warning in of(Warning, results) if warning.kind == "no credential"]


def test_an_interrupted_run_keeps_what_it_has(recording, tmp_path):
    run = Run(recording.store, recording.observations())
    writer = ResultsWriter(tmp_path, recording.store, run.engine.account_of)
    for k, result in enumerate(run.results()):
        writer.add(result)
        if k == 300:
            break
    for result in [*run.finish(), run.end(recording)]:
        writer.add(result)
    writer.close()
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "tracks.parquet").num_rows > 0
    assert json.loads((tmp_path / "run.json").read_text())["frames"] > 0


def test_a_hundred_cameras_and_one_of_them_down():
    from fusion.simulation import Scenario, Simulation, demo_store

    store = demo_store(n_cameras=100, n_plates=8)
    scenario = Scenario(seed=2, minutes=0.6, shoppers=1)
    down = store.cameras[17].name
    observations = Simulation(store, scenario).observations()
    results, engine = everything(store, (o for o in observations if not (isinstance(o, Frame) and o.camera == down)))
    named = [(warning.kind, warning.subject) for warning in of(Warning, results)]
    assert named == [("never heard", down), ("camera outage", down)], "the camera is named, and only it"
    assert [receipt.account is None for receipt in of(Receipt, results)] == [False]
    assert engine.ignored == {}


def test_rows_that_a_recording_loses_reach_the_summary(small_recording, tmp_path):
    """A torn segment and a row of an unknown camera: the run continues and counts both."""
    import shutil

    from fusion.files.recordings import RecordingWriter

    folder = tmp_path / "segments"
    source = Recording(small_recording)
    with RecordingWriter(folder, source.store, segment_s=10.0) as writer:
        for observation in source.observations():
            writer.write(observation)
        last = observation.t_ns
    shutil.copy(small_recording / "gate.jsonl", folder / "gate.jsonl")
    newest = sorted((folder / "weights").glob("*.parquet"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with RecordingWriter(tmp_path / "stranger", source.store) as writer:
        writer.write(Frame(last, "nowhere", np.zeros((1, 17, 3), np.float32)))
    shutil.copy(tmp_path / "stranger" / "detections.parquet", folder / "detections" / "999999999999.parquet")
    summary = replay(folder, tmp_path / "out")
    assert summary.ignored["weights: damaged file"] == 1
    assert summary.ignored["detections: camera without calibration"] == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["ignored"] == summary.ignored


@pytest.mark.parametrize("wrong", [1_772_528_646, 1_772_528_646_000, 1.7e18, "now", None, 0, 2**63])
def test_a_time_that_is_not_nanoseconds_is_refused(recording, wrong):
    engine = Engine(recording.store)
    camera, plate = recording.store.cameras[0].name, recording.store.plates[0].plate
    n_joints = recording.store.layout.n_joints
    for observation in (
        Frame(wrong, camera, np.zeros((0, n_joints, 3), np.float32)),
        ShelfReading(wrong, plate, np.zeros(12, np.float32)),
        GateScan(wrong, "entry", "open", ""),
        ItemSighting(wrong, "antenna", "read", "96385074", 1, 0.9, zone="pay"),
    ):
        with pytest.raises(TimeError, match=r"want .*UTC nanoseconds since 1970, got"):
            engine.feed(observation)
    assert engine.newest_ns == 0


def test_numpy_integers_are_times_too(recording):
    engine, plain = Engine(recording.store), Engine(recording.store)
    observations = list(recording.observations())[:400]
    for observation in observations:
        same = replace(observation, t_ns=np.int64(observation.t_ns))
        got, expected = engine.feed(same), plain.feed(observation)
        assert [str(result) for result in got] == [str(result) for result in expected]
    assert type(engine.newest_ns) is int


def test_sinks_get_everything_in_order_and_are_closed_after_an_error(recording):
    class Kept:
        def __init__(self) -> None:
            self.results: list[object] = []
            self.n_closed = 0

        def add(self, result: object) -> None:
            assert not self.n_closed
            self.results.append(result)

        def close(self) -> None:
            self.n_closed += 1

    def torn():
        yield from list(recording.observations())[:2000]
        raise RecordingError("detections.parquet: damaged")

    first, second = Kept(), Kept()
    Run(recording.store, recording.observations()).drive([first, second], recording)
    whole = Run(recording.store, recording.observations())
    expected = [*whole.results(), *whole.finish()]
    assert [str(result) for result in first.results[:-1]] == [str(result) for result in expected]
    assert first.results == second.results and (first.n_closed, second.n_closed) == (1, 1)
    end = first.results[-1]
    assert isinstance(end, RunEnd) and end.fault is None and end.summary.frames > 0 and end.shelves
    kept = Kept()
    with pytest.raises(RecordingError):
        Run(recording.store, torn()).drive([kept])
    assert kept.n_closed == 1 and isinstance(kept.results[-1], RunEnd)
    assert kept.results[-1].fault == "detections.parquet: damaged"
