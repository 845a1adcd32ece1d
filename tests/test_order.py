"""Order comes out of disorder: whatever the order of arrival, faulty clocks are counted and silences end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from files.small_recordings import SECOND, T0_NS, frame, key, live, reading, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusion.observations import GateScan, ItemSighting, Observation
from fusion.order import Reorder

_TICKS = st.integers(0, 600)  # Tenths of a second over a minute, so that many fall together.
_STREAMS = st.lists(
    st.one_of(
        st.builds(lambda t, c: frame(t / 10, c), _TICKS, st.sampled_from(["north", "south"])),
        st.builds(lambda t, p: reading(t / 10, p), _TICKS, st.sampled_from(["p1", "p2"])),
        st.builds(lambda t, a: GateScan(T0_NS + t * 10**8, "entry", "qr", a), _TICKS, st.sampled_from("ab")),
        st.builds(
            lambda t, q: ItemSighting(T0_NS + t * 10**8, "exit", "read", "4006381333931", q, 1.0),
            _TICKS,
            st.integers(1, 3),
        ),
    ),
    max_size=60,
    unique_by=key,
)


@settings(deadline=None)
@given(_STREAMS, st.randoms(use_true_random=False))
def test_any_arrival_within_the_lateness_gives_the_same_order(streams: list[Observation], random: object) -> None:
    """Each message arrives up to two seconds after its time; with silences of any length between them."""
    delays = [random.choice([0, SECOND, 2 * SECOND, random.randrange(2 * SECOND)]) for _ in streams]  # type: ignore[attr-defined]
    arrivals = [o for _, _, o in sorted(zip([o.t_ns + d for o, d in zip(streams, delays)], range(99), streams))]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [key(o) for o in out] == sorted(key(o) for o in streams)
    assert not reorder.ignored


@settings(deadline=None)
@given(_STREAMS, st.lists(st.integers(0, 10**6), max_size=20), st.randoms(use_true_random=False))
def test_repeats_and_stragglers_are_counted_and_order_holds(
    streams: list[Observation], again: list[int], random: object
) -> None:
    arrivals = sorted(streams, key=lambda o: o.t_ns)
    arrivals += [arrivals[i % len(arrivals)] for i in again if arrivals]
    random.shuffle(arrivals)  # type: ignore[attr-defined]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [o.t_ns for o in out] == sorted(o.t_ns for o in out)
    assert len(out) + reorder.ignored.total() == len(arrivals)
    assert len(reorder) == reorder.n_doubted == 0


def test_late_and_repeated_are_counted_by_stream() -> None:
    reorder = Reorder(2.0)
    arrivals = [frame(0), frame(0, "south"), frame(2), frame(4), frame(1), reading(1), frame(3), frame(4), reading(4)]
    assert [o.t_ns - T0_NS for o in run(reorder, arrivals)] == [0, 0, *(t * SECOND for t in (2, 3, 4, 4))]
    assert reorder.ignored == {
        "detections: more than 2 s late": 1,
        "weights: more than 2 s late": 1,
        "detections: repeated": 1,
    }


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 11.0, 4.0])
@pytest.mark.parametrize("at_first", [False, True])
def test_one_faulty_clock_does_not_stop_the_others(jump_s: float, at_first: bool) -> None:
    good = live(200)
    bad = [frame(jump_s + 0.04 * i, "faulty") for i in range(200)]
    arrivals: list[Observation] = [o for i in range(200) for o in (good[2 * i], good[2 * i + 1], bad[i])]
    if at_first:
        arrivals = [bad[0], *arrivals]
    reorder = Reorder(2.0)
    out = run(reorder, arrivals)
    assert [o for o in out if o.camera != "faulty"] == good  # type: ignore[union-attr]
    if jump_s > 0:
        assert out == good
        assert reorder.ignored["detections: time far ahead of every other sensor"] >= 200


def test_a_faulty_camera_among_a_hundred_is_counted() -> None:
    cameras = [f"c{i:02d}" for i in range(100)]
    good = live(30, cameras=cameras)
    arrivals: list[Observation] = []
    for i, one in enumerate(good):
        arrivals.append(one)
        arrivals += [frame(86_400.0 + i, "faulty")] * (i % 3 == 0)
    reorder = Reorder(2.0)
    assert run(reorder, arrivals) == good
    assert reorder.ignored == {"detections: time far ahead of every other sensor": 1000}


@pytest.mark.parametrize("cameras", [("north",), ("north", "south")])
@pytest.mark.parametrize("gap_s", [3.0, 11.0, 60.0, 86_400.0])
def test_a_true_silence_ends(cameras: Sequence[str], gap_s: float) -> None:
    before = live(100, cameras=cameras)
    after = live(100, start=4.0 + gap_s, cameras=cameras)
    reorder = Reorder(2.0)
    assert run(reorder, [*before, *after]) == [*before, *after]
    assert not reorder.ignored


def test_live_output_resumes_within_seconds_of_a_silence() -> None:
    reorder = Reorder(2.0)
    for one in live(100, cameras=("north",)):
        reorder.push(one)
        list(reorder.ready())
    out: list[Observation] = []
    for one in live(150, start=100.0, cameras=("north",)):
        reorder.push(one)
        out += reorder.ready()
    assert len(out) > 90 and reorder.n_doubted == 0


def test_rare_observations_are_not_taken_for_a_faulty_clock() -> None:
    scans: list[Observation] = [GateScan(T0_NS + i * 300 * SECOND, "entry", "qr", f"{i}") for i in range(30)]
    reorder = Reorder(2.0)
    assert run(reorder, scans) == scans and not reorder.ignored
    trailing: list[Observation] = [*live(50), *scans[1:2]]
    assert run(reorder := Reorder(2.0), trailing) == trailing and not reorder.ignored


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.sampled_from("ab")), min_size=200, max_size=400))
@settings(max_examples=10, deadline=None)
@example([(i * 3600 * (-1) ** i, "a") for i in range(1500)])
def test_the_run_from_far_ahead_is_bounded(arrivals: list[tuple[int, str]]) -> None:
    reorder = Reorder(2.0)
    for t_s, camera in arrivals:
        reorder.push(frame(t_s, camera))
        assert reorder.n_doubted <= 1024
        list(reorder.ready())
    assert len(reorder.ignored) <= 4
