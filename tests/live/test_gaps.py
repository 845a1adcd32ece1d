"""What counts as lost on the way to the engine, and which receipts that affects."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion.live.gaps import Gaps, StreamPosition
from fusion.results import Reason, ReasonKind, Receipt, ReceiptStatus

S = 10**9


def receipt(enter_s: float, exit_s: float) -> Receipt:
    times_ns = round(enter_s * S), round(exit_s * S)
    return Receipt("v", "a", *times_ns, 0, ReceiptStatus.SETTLED, (), "EUR", 0, ())


def test_only_data_lost_on_the_way_are_a_gap(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "doubts.json")
    positions = {
        "a": StreamPosition(10 * S, S // 10, False), "slow": StreamPosition(9 * S, S, False),
        "gone": StreamPosition(3 * S, S, False),
    }  # fmt: skip
    gaps.resume(positions, 10 * S)
    assert not gaps.observe("a", 9 * S, 0)  # Sent again.
    assert not gaps.observe("a", 10 * S + S // 10, 0)
    assert not gaps.observe("slow", 10 * S, 0) and not gaps.observe("gone", 30 * S, 0)
    assert not gaps.observe("new", 30 * S, 0)
    assert not gaps.observe("a", 20 * S, 0)  # The sensor itself was silent.
    assert not gaps.observe("a", 20 * S + S // 10, 3) and not gaps.observe("a", 20 * S + 2 * S // 10, 3)
    # Counted while earlier observations waited in the queue.
    assert "0.5 s" in gaps.observe("a", 20 * S + 7 * S // 10, 3)
    assert not any(gaps.observe("a", tenth * S // 10, 3) for tenth in range(208, 270))
    assert not gaps.observe("a", 40 * S, 3)  # Long after that it is the sensor again.
    assert gaps.lost_s == pytest.approx(0.5)
    later = Gaps(tmp_path / "doubts.json")
    later.read()
    later.resume(gaps.positions(), 40 * S)
    assert later.positions()["a"] == (40 * S, 120 * 10**6, True)  # The sensor's silence is not its pace.
    assert "5.0 s of the sensors' data were lost" in later.observe("a", 45 * S, 0)
    assert later.positions().keys() == {"a"}  # The others had been silent for long.


def test_a_stream_that_is_thinned_out_gradually_is_missed_all_the_same(tmp_path: Path) -> None:
    gaps, ms = Gaps(tmp_path / "doubts.json"), 10**6
    t_ms, lost_s = 0, []
    for n_dropped, step_ms in enumerate((33, 33, 100, 300, 600, 1000, 2200), -1):
        t_ms += step_ms
        gaps.observe("a", t_ms * ms, max(n_dropped, 0))
        lost_s.append(round(gaps.lost_s, 3))
    assert lost_s == [0.0, 0.0, 0.0, 0.0, 0.6, 1.0, 2.2]


def test_a_stream_that_has_not_resumed_is_awaited_for_a_while(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "doubts.json")
    gaps.resume({name: StreamPosition(10 * S, S // 10, False) for name in "ab"}, 10 * S)
    left = receipt(2, 11)
    assert not gaps.reasons_to_review(left)
    assert not gaps.observe("a", 10 * S + S // 10, 0)
    gaps.advance(14 * S, scans_wait=False)
    assert gaps.reasons_to_review(left) == (Reason(ReasonKind.STREAM_NOT_RESUMED),)
    again = Gaps(tmp_path / "doubts.json")
    again.resume(gaps.positions(), 14 * S)  # Killed once more: it is still awaited.
    assert "4.0 s of the sensors' data were lost" in again.observe("b", 14 * S, 0)
    gaps.advance(30 * S, scans_wait=False)
    assert not gaps.reasons_to_review(left)  # Its sensor is gone, which the engine knows by itself.


def test_a_loss_at_the_end_is_reported_at_the_end(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "doubts.json")
    assert not gaps.end(10 * S, {"a": 0})
    gaps.resume({"a": StreamPosition(10 * S, S // 10, False)}, 10 * S)
    assert "2.0 s of the sensors' data at the end were lost" in gaps.end(12 * S, {})
    dropped = Gaps(tmp_path / "other.json")
    assert not dropped.observe("a", 10 * S, 0)
    assert dropped.end(12 * S, {"a": 3})


def test_a_gap_affects_people_inside_and_those_who_may_have_another_scan(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "doubts.json")
    gaps.resume({}, 90 * S)

    def doubted(enter_s: float, exit_s: float) -> bool:
        return bool(gaps.reasons_to_review(receipt(enter_s, exit_s)))

    gaps.add(100 * S, 103 * S, ReasonKind.DATA_LOST)
    assert doubted(10, 101) and doubted(10, 95) and not doubted(10, 89) and doubted(102, 200) and doubted(120, 200)
    gaps.advance(105 * S, scans_wait=True)
    gaps.advance(140 * S, scans_wait=True)  # One person may be taken for another for as long as scans wait.
    assert doubted(139, 200)
    gaps.advance(141 * S, scans_wait=False)
    gaps.advance(150 * S, scans_wait=True)
    assert doubted(140, 200) and not doubted(142, 200)
    gaps.advance(300 * S, scans_wait=False)
    gaps.prune(120 * S)
    assert doubted(120, 310)
    gaps.prune(290 * S)
    assert not doubted(120, 310)
