"""An order that does not wait for the odd late message: the same sequence, fewer held, what is missed is counted."""

from __future__ import annotations

import pytest
from files.small_recordings import SECOND, frame, key, live, reading, run

from fusion.early.short_order import HOLDS_NS, JUDGED_N, Lateness, ShortOrder
from fusion.order import Reorder


def short() -> ShortOrder:
    return ShortOrder.of(Reorder(2.0), Lateness())


def test_in_time_it_gives_the_same_sequence_sooner() -> None:
    arrivals = live(200)
    long, order = Reorder(2.0), short()
    for observation in arrivals:
        long.push(observation)
        order.push(observation)
    early, late = order.ready(), long.ready()
    assert len(early) > len(late) and [key(o) for o in early[: len(late)]] == [key(o) for o in late]
    assert [key(o) for o in early + order.flush()] == [key(o) for o in late + long.flush()]
    assert order.n_missed == 0


def test_what_comes_too_late_is_missed_and_what_the_other_drops_as_well_is_not() -> None:
    order = short()
    out = run(order, [frame(t, camera) for t in (0, 2, 4) for camera in ("north", "south")] + [frame(3)])
    assert order.n_missed == 1 and order.lateness.missed_ns == out[-1].t_ns and not order.ignored
    order.push(reading(1))
    assert order.n_missed == 1


@pytest.mark.parametrize(
    ("lates", "hold"), [([0.05], 0), ([0.0] * 19 + [1.9], 0), ([0.0, 0.15], 1), ([0.35], 2), ([1.5], 3)]
)
def test_the_usual_lateness_is_waited_for(lates: list[float], hold: int) -> None:
    lateness = Lateness()
    for i in range(JUDGED_N):
        lateness.judge(frame(i), round(lates[i % len(lates)] * SECOND))
    assert lateness.hold_ns == HOLDS_NS[hold]
    # Readings that are in time do not outweigh frames that are late.
    for i in range(10 * JUDGED_N):
        lateness.judge(reading(i), 0)
        if i % 40 == 0:
            lateness.judge(frame(i), round(lates[i // 40 % len(lates)] * SECOND))
    assert lateness.hold_ns == HOLDS_NS[hold]
    for i in range(2 * JUDGED_N):
        lateness.judge(frame(i), 0)
    assert lateness.hold_ns == HOLDS_NS[0]
