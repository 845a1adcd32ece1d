"""Early receipts come within a second, are corrected aloud, book nothing, and leave the final results as they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.accuracy.early import arriving
from bench.endurance import soak
from fusion import Ahead, EarlyReceipt, Engine, Receipt, ReceiptStatus, Recording, WarningKind, replay, resume, snapshot
from fusion.early.odds import PRIOR, Odds
from fusion.money.ledger import Ledger
from fusion.observations import Frame, Observation
from fusion.results import Outstanding, PersonEntered, Result, Warning

# What `Ahead` adds to an engine's results.
ADDED = (WarningKind.RECEIPT_CORRECTED, WarningKind.RECEIPT_WITHDRAWN)


def is_added(result: Result) -> bool:
    return isinstance(result, EarlyReceipt) or (isinstance(result, Warning) and result.kind in ADDED)


def fingerprint(results: Sequence[Result]) -> list[str]:
    """An engine's own results, with every bit."""
    return [
        repr([value.tobytes() if hasattr(value, "tobytes") else value for value in map(result.__getattribute__, names)])
        for result in results
        if not is_added(result)
        for names in [result.__slots__]
    ]


def run(ahead: Engine | Ahead, observations: Sequence[Observation]) -> list[Result]:
    return [result for observation in observations for result in ahead.feed(observation)]


def of(kind: type, results: Sequence[Result]) -> list:
    return [result for result in results if isinstance(result, kind)]


@pytest.fixture(scope="module")
def recording(small_recording: Path) -> Recording:
    return Recording(small_recording)


@pytest.fixture(scope="module")
def observations(recording: Recording) -> list[Observation]:
    return list(recording.observations())


@pytest.fixture(scope="module")
def alone(recording: Recording, observations: list[Observation]) -> list[Result]:
    engine = Engine(recording.store)
    return run(engine, observations) + engine.close()


@pytest.fixture(scope="module")
def in_order(recording: Recording, observations: list[Observation]) -> list[Result]:
    ahead = Ahead(Engine(recording.store))
    return run(ahead, observations) + ahead.close()


# ---- in order --------------------------------------------------------------------------------------------------------


def test_a_receipt_comes_within_a_second_and_is_the_final_one(in_order: list[Result], alone: list[Result]) -> None:
    early = {result.visit: (i, result) for i, result in enumerate(in_order) if isinstance(result, EarlyReceipt)}
    final = {result.visit: (i, result) for i, result in enumerate(in_order) if isinstance(result, Receipt)}
    assert early and early.keys() == final.keys() and any(result.lines for _, result in final.values())
    for visit, (i, one) in early.items():
        j, receipt = final[visit]
        assert i < j and one.t_ns - receipt.exit_ns < 1_000_000_000 < receipt.issued_ns - receipt.exit_ns
        assert one.receipt == replace(receipt, issued_ns=one.t_ns, taken=()) and one.account == receipt.account
        assert not one.outstanding and 0.0 < one.correction_probability < 0.01
    assert not [result for result in in_order if isinstance(result, Warning) and result.kind in ADDED]
    assert fingerprint(in_order) == fingerprint(alone)


def test_nothing_is_booked_by_an_early_receipt(recording: Recording, in_order: list[Result], tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "books.sqlite", recording.store) as ledger:
        for result in in_order:
            before = ledger.head()
            ledger.add(result)
            if is_added(result):
                assert ledger.head() == before
            if isinstance(result, EarlyReceipt):
                standing = ledger.standing(result.visit)
                assert standing is not None and (standing.status, standing.lines) == ("open", ())
        assert ledger.open_visits() == [] and ledger.verify() is None


def test_early_receipts_have_a_file_of_their_own(
    small_recording: Path, in_order: list[Result], tmp_path: Path
) -> None:
    replay(small_recording, tmp_path / "early", early=True)
    replay(small_recording, tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {path.name for path in (tmp_path / "early").iterdir()} == names | {"early.jsonl"}
    for name in names - {"run.json"}:
        assert (tmp_path / "early" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "early" / "early.jsonl").read_text().splitlines()]
    early = of(EarlyReceipt, in_order)
    assert [(row["visit"], row["issued"], row["outstanding"]) for row in rows] == [(e.visit, e.t_ns, []) for e in early]
    assert [row["correction_probability"] for row in rows] == [round(e.correction_probability, 6) for e in early]
    # A file of an earlier run is not taken for one of this run.
    replay(small_recording, tmp_path / "early")
    assert not (tmp_path / "early" / "early.jsonl").exists()


def test_another_process_can_run_ahead_from_a_snapshot(
    recording: Recording, observations: list[Observation], alone: list[Result], in_order: list[Result]
) -> None:
    entered_ns = of(PersonEntered, alone)[0].t_ns
    middle = next(i for i, observation in enumerate(observations) if observation.t_ns > entered_ns + 4_000_000_000)
    first = Ahead(Engine(recording.store))
    results = run(first, observations[:middle])
    second = Ahead(resume(snapshot(first.engine), recording.store))
    results += run(second, observations[middle:]) + second.close()
    assert fingerprint(results) == fingerprint(alone)
    assert of(EarlyReceipt, results)[0].receipt == of(EarlyReceipt, in_order)[0].receipt


# ---- late messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arrival", "seed"), [("up to 80 ms", 1), ("1 % late", 2), ("10 % late", 3)])
def test_late_messages_give_the_same_bytes_in_the_end(
    recording: Recording, observations: list[Observation], alone: list[Result], arrival: str, seed: int
) -> None:
    ahead = Ahead(Engine(recording.store))
    results = run(ahead, arriving(observations, arrival, seed)) + ahead.close()
    assert fingerprint(results) == fingerprint(alone)
    early, final = of(EarlyReceipt, results), {receipt.visit: receipt for receipt in of(Receipt, results)}
    assert early and len({one.visit for one in early}) == len(early) == ahead.n_issued
    # Every early receipt was right, or it is said that it was not.
    said = Counter(result.subject for result in of(Warning, results) if result.kind in ADDED)
    for one in early:
        receipt = final.get(one.visit)
        same = receipt is not None and replace(one.receipt, issued_ns=0, taken=()).lines == receipt.lines
        assert same or said[one.visit]
    if "%" in arrival:
        assert ahead.n_replaced > 0 and any(Outstanding.MESSAGES in one.outstanding for one in early)


def test_a_camera_that_is_always_late_is_waited_for(
    recording: Recording, observations: list[Observation], alone: list[Result]
) -> None:
    slow = recording.store.cameras[0].name

    def arrives_ns(observation: Observation) -> int:
        is_slow = isinstance(observation, Frame) and observation.camera == slow
        return observation.t_ns + (300_000_000 if is_slow else 0)

    ahead = Ahead(Engine(recording.store))
    results = run(ahead, sorted(observations, key=arrives_ns)) + ahead.close()
    assert fingerprint(results) == fingerprint(alone)
    for one in of(EarlyReceipt, results):
        assert one.t_ns - one.receipt.exit_ns < 1_000_000_000 and not one.outstanding
    # It takes a while to see that the camera is slow; from then on nothing is missed.
    assert ahead.n_replaced <= 1


# ---- corrections -----------------------------------------------------------------------------------------------------


def test_a_final_receipt_that_differs_says_so_first(recording: Recording, observations: list[Observation]) -> None:
    ahead = Ahead(Engine(recording.store), lambda receipt: replace(receipt, status=ReceiptStatus.REVIEW))
    results = run(ahead, observations) + ahead.close()
    early = of(EarlyReceipt, results)
    assert early and all(one.receipt.status == ReceiptStatus.REVIEW for one in early)
    said = [i for i, result in enumerate(results) if isinstance(result, Warning) and result.kind in ADDED]
    settled = [receipt.visit for receipt in of(Receipt, results) if receipt.status == ReceiptStatus.SETTLED]
    assert [results[i + 1].visit for i in said] == [results[i].subject for i in said] == settled
    assert ahead.n_corrected == len(settled) > 0 and not ahead.n_withdrawn
    # What turned out differently once is more probable to do so again.
    assert early[-1].correction_probability > early[0].correction_probability or len(early) == 1


def test_an_early_receipt_without_a_final_one_is_withdrawn(
    recording: Recording, observations: list[Observation]
) -> None:
    ahead = Ahead(Engine(recording.store))
    for observation in observations:
        (*_, last) = ahead.feed(observation) or (None,)
        if isinstance(last, EarlyReceipt):
            break
    (warning,) = ahead.end()
    assert (warning.kind, warning.subject) == (WarningKind.RECEIPT_WITHDRAWN, last.visit)
    assert ahead.n_withdrawn == 1 and ahead.end() == []


def test_the_probability_of_a_correction_follows_what_was_seen() -> None:
    odds = Odds()
    before = odds.probability(())
    odds.learn((), True)
    assert odds.probability(()) > before and odds.probability((Outstanding.LOADS,)) == 1 / 12
    for _ in range(10_000):
        odds.learn((), False)
    assert odds.probability(()) < before
    outstanding = [(), (Outstanding.LOADS,), (Outstanding.MESSAGES,), (Outstanding.LOADS, Outstanding.MESSAGES)]
    assert list(PRIOR) == outstanding


def test_memory_does_not_grow_with_time() -> None:
    store = soak.shop()
    block = soak.make_block(store, seed=1, minutes=0.9, shoppers=3)
    ahead = Ahead(Engine(store))
    sizes = []
    for i, (_, observation) in enumerate(soak.rounds([block], 3 * block.length_ns, 1_767_258_000_000_000_000), 1):
        ahead.feed(observation)
        if i % len(block.observations) == 0:
            sizes.append(soak.tables(ahead))
    assert len(sizes) == 3 and ahead.n_issued >= 2 * block.n_visits
    own = ("engine.", *(f"_forerunner.{name}" for name in soak.BOUNDED), "_billed")
    grown = [
        name for name, n in sizes[2].items()
        if not name.startswith(own) and n > 10 + 1.3 * max(sizes[0].get(name, 0), sizes[1].get(name, 0))
    ]  # fmt: skip
    assert grown == []
    transfers = [size.get("_forerunner._billing.journal._transfers", 0) for size in sizes]
    # What the engine ahead knows of the past is what the last minute's visits moved.
    assert transfers[2] <= max(transfers[:2]) and transfers[2] < sizes[2]["engine._billing.journal._transfers"]
