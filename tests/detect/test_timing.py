"""When pictures were taken: by the camera's clock, by arrival, and through everything that may go wrong with both."""

from __future__ import annotations

import random

import pytest

from fusion.detect.health import Delays, Rate, RateWatch
from fusion.detect.sources import next_due_ns
from fusion.detect.timing import StreamClock

S = 10**9
EPOCH_NS = 1_767_258_000 * S


def stream(
    clock: StreamClock, n: int, *, own_ns: int = 0, delay_s: float = 0.2, camera_error_s: float | None = None,
    start_ns: int = EPOCH_NS, period_s: float = 0.04, jitter_s: float = 0.0, seed: int = 1,
) -> list[tuple[int, int]]:  # fmt: skip
    """Send n pictures. Returns for each when it was taken, and when the clock has it taken."""
    dice, results = random.Random(seed), []
    for number in range(n):
        taken_ns = start_ns + round(number * period_s * S)
        picture_ns = own_ns + round(number * period_s * S)
        late_ns = round((delay_s + dice.expovariate(1.0) * jitter_s) * S)
        camera_ns = None if camera_error_s is None else taken_ns + round(camera_error_s * S)
        clock.packet(picture_ns, taken_ns + late_ns, camera_ns)
        results.append((taken_ns, clock.taken_ns(picture_ns, round(delay_s * S))))
    return results


def test_a_cameras_clock_is_taken_as_it_is() -> None:
    clock = StreamClock()
    for taken_ns, dated_ns in stream(clock, 100, camera_error_s=0.0, jitter_s=0.05):
        assert dated_ns == taken_ns
    assert clock.clock == "camera" and clock.offset_ns is None
    assert clock.delay_ns is not None and 0.2 * S <= clock.delay_ns < 0.21 * S


@pytest.mark.parametrize("error_s", [3600.0, -3600.0, 0.35, -2.5, 1e9, -1e9])
def test_a_clock_that_cannot_be_right_is_not_believed(error_s: float) -> None:
    clock = StreamClock()
    results = stream(clock, 100, camera_error_s=error_s)
    assert clock.clock == "arrival"
    assert clock.offset_ns == pytest.approx((error_s - 0.2) * S, abs=1)
    assert all(dated_ns == taken_ns for taken_ns, dated_ns in results)
    # It was set right.
    stream(clock, 3, own_ns=100 * S, start_ns=EPOCH_NS + 100 * S, camera_error_s=0.0)
    assert clock.clock == "camera" and clock.offset_ns is None


def test_arrival_is_smoothed_by_the_quickest_pictures() -> None:
    clock = StreamClock()
    results = stream(clock, 2000, jitter_s=0.1)
    errors_ns = [dated_ns - taken_ns for taken_ns, dated_ns in results[100:]]
    # The least of hundreds of exponential delays with a mean of a tenth of a second.
    assert min(errors_ns) >= 0 and max(errors_ns) < 0.02 * S
    # The stream's own time makes the steps between pictures exact, however unevenly they arrive.
    steps = {later - earlier for earlier, later in zip(errors_ns, errors_ns[1:])}
    assert len(steps) < 20


def test_a_stream_whose_time_begins_again_is_followed() -> None:
    clock = StreamClock()
    stream(clock, 50, own_ns=90_000 * S)
    for taken_ns, dated_ns in stream(clock, 50, own_ns=0, start_ns=EPOCH_NS + 10 * S):
        assert dated_ns == taken_ns


def test_a_drifting_oscillator_is_followed() -> None:
    """An hour at 50 millionths is 180 ms; the window forgets what is older than half a minute."""
    clock = StreamClock()
    for number in range(3600):
        own_ns, arrival_ns = number * S, EPOCH_NS + number * S + number * 50_000
        clock.packet(own_ns, arrival_ns, None)
        assert abs(clock.taken_ns(own_ns, 0) - arrival_ns) <= 31 * 50_000


@pytest.mark.parametrize("pace", [0.4, 2.5, 1.05])
def test_a_stream_whose_time_runs_at_another_pace_is_dated_by_arrival_alone(pace: float) -> None:
    """Such as 25 pictures a second that are stated of a camera that sends 10."""
    clock = StreamClock()
    for number in range(1200):
        arrival_ns = EPOCH_NS + number * S // 10
        clock.packet(round(pace * number * S / 10), arrival_ns, None)
        if number > 300:
            assert clock.off_pace
            assert clock.taken_ns(round(pace * number * S / 10), 0) == arrival_ns
    clock = StreamClock()
    stream(clock, 2000, jitter_s=0.1)
    assert not clock.off_pace


def test_what_was_gathered_while_the_stream_opened_settles_nothing() -> None:
    clock = StreamClock()
    for number in range(20):
        clock.packet(number * S // 10, EPOCH_NS + 2 * S + number * 1000, None)
        assert not clock.settled
    clock.packet(2 * S, EPOCH_NS + 2 * S + S // 10, None)
    assert clock.settled


def test_waiting_pictures_are_seen_as_lag() -> None:
    clock = StreamClock()
    stream(clock, 50)
    assert clock.lag_ns(2 * S, EPOCH_NS + 2 * S + round(0.2 * S)) == 0
    assert clock.lag_ns(2 * S, EPOCH_NS + 5 * S) == pytest.approx(2.8 * S)


def test_thinning_keeps_the_rate_through_jitter() -> None:
    dice = random.Random(5)
    for fps, fps_max, wanted in ((25.0, 10.0, 10.0), (10.0, 10.0, 10.0), (8.0, 10.0, 8.0), (30.0, 60.0, 30.0)):
        due_ns, n = None, 0
        for number in range(round(60 * fps)):
            t_ns = round((number + dice.uniform(-0.1, 0.1)) / fps * S)
            if due_ns is None or t_ns >= due_ns:
                due_ns = next_due_ns(due_ns, t_ns, fps_max)
                n += 1
        assert n / 60 == pytest.approx(wanted, rel=0.03), (fps, fps_max)


def test_a_rate_that_halves_is_noticed_once_and_so_is_its_return() -> None:
    watch, t_ns, changes = RateWatch(), EPOCH_NS, []
    for period_s, duration_s in ((0.1, 60), (0.2, 60), (0.1, 60)):
        end_ns = t_ns + duration_s * S
        while t_ns < end_ns:
            t_ns += round(period_s * S)
            if (change := watch.add(t_ns)) is not None:
                changes.append((change, round(watch.rate.at(t_ns), 1), (t_ns - EPOCH_NS) // S))
    assert [change for change, _, _ in changes] == [True, False]
    assert changes[0][1] == pytest.approx(5.0, abs=0.2) and 60 < changes[0][2] <= 60 + 13
    assert 120 < changes[1][2] <= 120 + 9


def test_a_rate_over_no_time_is_none() -> None:
    rate = Rate()
    assert rate.at(EPOCH_NS) == 0.0
    rate.add(EPOCH_NS)
    assert rate.at(EPOCH_NS) == 0.0
    assert rate.at(EPOCH_NS + 100 * S) == 0.0


def test_the_median_of_measured_delays_stands_in_for_those_that_are_not() -> None:
    delays = Delays(0.15)
    assert delays.usual_s() == 0.15
    for camera, delay_s in (("a", 0.2), ("b", 0.9), ("c", 0.3)):
        delays.measure(camera, delay_s)
    assert delays.usual_s() == 0.3
    delays.measure("b", None)
    delays.measure("c", None)
    assert delays.usual_s() == 0.2
