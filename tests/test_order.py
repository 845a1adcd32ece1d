"""Order comes out of disorder: whatever the order of arrival, faulty clocks are counted and silences end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from files.small_recordings import SECOND, T0_NS, epochs, frame, key, live, reading, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
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
    for part in epochs(out):
        assert [o.t_ns for o in part] == sorted(o.t_ns for o in part)
    assert sum(map(len, epochs(out))) + reorder.ignored.total() == len(arrivals)
    assert len(reorder) == reorder.n_doubted == 0


def test_late_and_repeated_are_counted_by_stream() -> None:
    reorder = Reorder(2.0)
    arrivals = [frame(t, camera) for t in (0, 2, 4) for camera in ("north", "south")]
    arrivals += [frame(1), reading(1), frame(3), frame(4), reading(4)]
    assert [o.t_ns - T0_NS for o in run(reorder, arrivals)] == [t * SECOND for t in (0, 0, 2, 2, 3, 4, 4, 4)]
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


@pytest.mark.parametrize("n_scans", [2, 9])
def test_equal_scans_that_are_held_at_one_arrival_stay_as_they_came(n_scans: int) -> None:
    scans = [GateScan(T0_NS, "entry", f"kind {i}", "alice") for i in range(n_scans)]
    reorder = Reorder(2.0)
    for scan in reversed(scans):
        reorder.push(scan)
    reorder.push(frame(0, "cam01"))
    reorder.push(reading(0, "p01"))
    out = [one for one in reorder.flush() if isinstance(one, GateScan)]
    assert out == scans[::-1][:1], "of equal identity, the first counts and the others are repeats"
    assert reorder.ignored.total() == n_scans - 1


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


# ---- clocks that are set, and sensors that go their own way ----------------------------------------------------------


def _regular(seconds: float, *, start: float = 0.0, cameras: int = 2, plates: int = 2) -> list[Observation]:
    """Cameras and plates that send five times a second, in order of time."""
    sensors: list[tuple[Callable[[float, str], Observation], str]] = [(frame, f"c{i}") for i in range(cameras)]
    sensors += [(reading, f"p{i}") for i in range(plates)]
    return [
        make(start + 0.2 * i + 0.001 * place, name)
        for i in range(round(seconds * 5))
        for place, (make, name) in enumerate(sensors)
    ]


def _shifted(observations: Iterable[Observation], by_s: float) -> list[Observation]:
    return [replace(observation, t_ns=observation.t_ns + round(by_s * SECOND)) for observation in observations]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-50, 250), st.integers(0, 399)), max_size=120, unique_by=lambda lie: lie[1]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_one_sensor_changes_nothing_for_the_others(
    lies: list[tuple[int, int]], far: bool, random: object
) -> None:
    """Whatever times one sensor shows, and whenever: the others come out as they do without it."""
    honest = _regular(20.0)
    delays = [random.randrange(2 * SECOND) for _ in honest]  # type: ignore[attr-defined]
    honest = [o for _, _, o in sorted(zip([o.t_ns + d for o, d in zip(honest, delays)], range(999), honest))]
    before = {place: frame(t / 10 * (1000 if far else 1), "liar") for t, place in lies}
    arrivals = [o for place, o in enumerate(honest) for o in ([before[place]] if place in before else []) + [o]]
    out = run(Reorder(2.0), arrivals)
    assert [o for o in out if not (isinstance(o, Frame) and o.camera == "liar")] == run(Reorder(2.0), honest)


@pytest.mark.parametrize("back_s", [3600.0, 60.0, 5.0])
@pytest.mark.parametrize(("cameras", "plates"), [(2, 2), (1, 0), (1, 5), (12, 40)])
def test_all_clocks_are_set_back(back_s: float, cameras: int, plates: int) -> None:
    before = _regular(6.0, cameras=cameras, plates=plates)
    after = _shifted(_regular(6.0, start=6.0, cameras=cameras, plates=plates), -back_s - 1e-6)
    reorder = Reorder(2.0)
    assert epochs(run(reorder, [*before, *after])) == [before, after]
    assert not reorder.ignored and not reorder.warnings()


@pytest.mark.parametrize("back_s", [1.0, 1.4, 1.9])
@pytest.mark.parametrize(("cameras", "plates"), [(2, 2), (1, 5), (12, 40)])
def test_all_clocks_are_set_back_by_less_than_messages_may_be_late(back_s: float, cameras: int, plates: int) -> None:
    before = _regular(6.0, cameras=cameras, plates=plates)
    after = _shifted(_regular(6.0, start=6.0, cameras=cameras, plates=plates), -back_s - 1e-6)
    reorder = Reorder(2.0)
    assert epochs(run(reorder, [*before, *after])) == [before, after]
    assert not reorder.ignored and not reorder.warnings()


def test_set_back_by_a_little_more_loses_what_comes_too_late() -> None:
    before, after = _regular(6.0), _shifted(_regular(6.0, start=6.0), -2.6 - 1e-6)
    reorder = Reorder(2.0)
    first, second = epochs(run(reorder, [*before, *after]))
    assert first == before and second == after[len(after) - len(second) :]
    assert sum(reorder.ignored.values()) == len(after) - len(second) <= 0.7 / 6.0 * len(after)


@given(seed=st.integers(0, 10**6), late_s=st.floats(0.1, 1.9), share=st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_messages_that_overtake_each_other_are_no_step_back(seed: int, late_s: float, share: float) -> None:
    random = np.random.default_rng(seed)
    observations = _regular(8.0, cameras=3, plates=3)
    delays_s = late_s * random.random(len(observations)) * (random.random(len(observations)) < share)
    # Without the last ones, whose late messages no others follow.
    delays_s[-len(observations) // 4 :] = 0.0
    arrivals_ns = [o.t_ns + round(1e9 * delay_s) for o, delay_s in zip(observations, delays_s)]
    arrived = [observations[i] for i in np.argsort(arrivals_ns, kind="stable")]
    assert run(Reorder(2.0), arrived) == observations


def test_what_is_sent_again_is_no_step_back() -> None:
    observations = _regular(8.0, cameras=3, plates=3)
    middle = len(observations) // 2
    again = [o for o in observations[:middle] if o.t_ns > observations[middle].t_ns - 1.5 * SECOND]
    reorder = Reorder(2.0)
    assert run(reorder, [*observations[:middle], *again, *observations[middle:]]) == observations
    assert sum(reorder.ignored.values()) == len(again)


@pytest.mark.parametrize(("cameras", "plates"), [(2, 2), (1, 0), (1, 5)])
def test_all_clocks_are_set_forward(cameras: int, plates: int) -> None:
    before = _regular(6.0, cameras=cameras, plates=plates)
    after = _shifted(_regular(6.0, start=6.0, cameras=cameras, plates=plates), 3600.0)
    reorder = Reorder(2.0)
    assert run(reorder, [*before, *after]) == [*before, *after]


def test_one_forged_frame_of_every_camera_moves_nothing() -> None:
    observations = _regular(12.0, cameras=12)
    forged = _shifted(_regular(0.2, start=6.0, cameras=12, plates=0), 3600.0)
    reorder = Reorder(2.0)
    assert run(reorder, [*observations[:400], *forged, *observations[400:]]) == observations
    assert reorder.ignored == {"detections: time far ahead of every other sensor": 12}
    assert [(w.kind, w.subject, w.total) for w in reorder.warnings()] == [
        ("message out of time", "c0", 1), ("message out of time", "c9", 10),
    ]  # fmt: skip


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_clocks_that_are_set_one_half_after_the_other(by_s: float) -> None:
    observations = _regular(20.0, cameras=6, plates=6)
    half = {f"{kind}{i}" for kind in "cp" for i in range(3)}
    out = []
    for o in observations:
        name = o.camera if isinstance(o, Frame) else o.plate  # type: ignore[union-attr]
        stepped = o.t_ns > T0_NS + (6 if name in half else 10) * SECOND
        out += _shifted([o], by_s) if stepped else [o]
    reorder = Reorder(2.0)
    first, *rest = epochs(run(reorder, out))
    last = (rest or [first])[-1]
    assert len(first) + sum(map(len, rest)) > 0.8 * len(observations)
    assert [o.t_ns for o in last[-12:]] == [o.t_ns + round(by_s * SECOND) for o in observations[-12:]]
    assert len(rest) == (by_s < 0)


def test_what_a_publisher_sends_again_is_no_other_time() -> None:
    observations = [
        replace(o, samples=np.full(12, i, np.float32)) if isinstance(o, ShelfReading) else o
        for i, o in enumerate(_regular(20.0, cameras=0, plates=4))
    ]
    reorder = Reorder(2.0)
    arrivals = [*observations[:240], *observations[40:240], *observations[240:]]
    assert run(reorder, arrivals) == observations
    assert set(reorder.ignored) == {"weights: more than 2 s late", "weights: repeated"}
    assert not reorder.warnings()


@pytest.mark.parametrize(("by_s", "kind"), [(3600.0, "sensor ahead"), (-3600.0, "sensor behind")])
def test_a_sensor_with_another_time_is_named_until_it_agrees_again(by_s: float, kind: str) -> None:
    observations = _regular(30.0)
    arrivals = [
        replace(o, t_ns=o.t_ns + round(by_s * SECOND))
        if isinstance(o, Frame) and o.camera == "c1" and 0 <= o.t_ns - T0_NS - 10 * SECOND < 8 * SECOND
        else o
        for o in observations
    ]
    reorder = Reorder(2.0)
    run(reorder, arrivals)
    told = [w for w in reorder.warnings() if w.kind != "message out of time"]
    assert [(w.kind, w.subject) for w in told] == [(kind, "c1"), ("sensor in time", "c1")]
    assert told[0].t_ns < T0_NS + 15 * SECOND and abs((told[0].seconds or 0) - 3600.0) < 1.0
    assert told[1].t_ns < T0_NS + 25 * SECOND


def test_two_clocks_that_run_fast_do_not_take_the_others_with_them() -> None:
    """Time follows the second newest sensor, so two of them can lead it astray, once."""
    observations = _regular(200.0, cameras=8)
    fast = {"c0", "c1"}
    arrivals = [
        replace(o, t_ns=o.t_ns + (o.t_ns - T0_NS) // 20) if isinstance(o, Frame) and o.camera in fast else o
        for o in observations
    ]
    reorder = Reorder(2.0)
    parts = epochs(run(reorder, arrivals))
    assert len(parts) == 2
    last = [o for o in parts[1] if not (isinstance(o, Frame) and o.camera in fast)]
    assert last == observations_of_others(observations, fast)[-len(last):] and len(last) > 5000


def observations_of_others(observations: Iterable[Observation], names: set[str]) -> list[Observation]:
    return [o for o in observations if not (isinstance(o, Frame) and o.camera in names)]


class _Counted(int):
    """A time that counts how often it is compared."""

    n = 0

    def __eq__(self, other: object) -> bool:
        _Counted.n += 1
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        _Counted.n += 1
        return int(self) < other

    __hash__ = int.__hash__


def test_an_overtaken_message_is_compared_with_few_of_those_that_wait() -> None:
    reorder = Reorder(2.0)
    for k in range(2000):
        early = frame(k * 0.001, f"camera {k % 20}")
        reorder.push(replace(early, t_ns=_Counted(early.t_ns)))
    assert len(reorder) == 2000
    _Counted.n = 0
    reorder.push(frame(1.0005, "camera 3"))
    assert 0 < _Counted.n < 200
    assert [o.t_ns for o in reorder.flush() if isinstance(o, Frame)] == sorted(
        [*(frame(k * 0.001, "").t_ns for k in range(2000)), frame(1.0005, "").t_ns]
    )
