"""Data time against the machine's: a difference that lasts is reported once, catching up and recordings are not."""

from __future__ import annotations

from fusion.live.clock import ManualClock
from fusion.live.metrics import prometheus_text
from fusion.live.time_watch import TimeState, TimeWatch

T0_NS = 1_790_000_000 * 10**9


def watch(clock: ManualClock, off_s: float, seconds: float, watched: TimeWatch, **source: bool) -> list[str]:
    """Data that come twice a second, with a constant difference from the machine's clock."""
    kinds = []
    for _ in range(round(2 * seconds)):
        clock.advance(0.5)
        warning = watched.observe(
            clock.wall_ns() + round(off_s * 1e9), live=source.get("live", True), behind=source.get("behind", False)
        )
        kinds += [] if warning is None else [str(warning.kind)]
    return kinds


def test_a_lasting_difference_is_reported_and_so_is_its_end() -> None:
    clock = ManualClock(epoch_ns=T0_NS)
    watched = TimeWatch("shop", clock)
    assert watch(clock, -1.0, 60.0, watched) == [] and watched.state is TimeState.IN_TIME and watched.fault == ""
    assert watch(clock, -3600.0, 60.0, watched) == ["machine time differs"] and watched.state is TimeState.OFF
    assert watched.fault == "time 3600 s behind this machine" and watched.off_s == -3600.0
    assert watch(clock, 0.2, 60.0, watched) == ["machine time agrees"] and watched.state is TimeState.IN_TIME
    assert watch(clock, 30.0, 60.0, watched) == ["machine time differs"]
    assert watched.fault == "time 30 s ahead of this machine"


def test_data_that_waited_for_this_process_are_behind_and_not_wrong() -> None:
    clock = ManualClock(epoch_ns=T0_NS)
    watched = TimeWatch("shop", clock)
    assert watch(clock, -600.0, 60.0, watched, behind=True) == [] and watched.state is TimeState.BEHIND
    assert watch(clock, -1.0, 5.0, watched) == [] and watched.state is TimeState.IN_TIME
    # A process that is slow for a few seconds is behind as well.
    assert watch(clock, -8.0, 8.0, watched) == [] and watched.state is TimeState.BEHIND


def test_a_recording_has_a_time_of_its_own() -> None:
    clock = ManualClock(epoch_ns=T0_NS)
    watched = TimeWatch("shop", clock)
    assert watch(clock, -1e6, 60.0, watched, live=False) == [] and watched.state is TimeState.REPLAYED


def test_data_that_stop_are_not_compared() -> None:
    clock = ManualClock(epoch_ns=T0_NS)
    watched = TimeWatch("shop", clock)
    assert watched.observe(0, live=True, behind=False) is None and watched.off_s is None
    watch(clock, 0.0, 5.0, watched)
    newest_ns = clock.wall_ns()
    for _ in range(100):
        clock.advance(1.0)
        assert watched.observe(newest_ns, live=True, behind=False) is None
    assert watched.state is TimeState.UNKNOWN and watched.off_s == 0.0


def test_metrics_show_the_difference() -> None:
    store = {
        "state": "live", "why": "", "configuration_refused": "", "restarts": 0, "memory_bytes": 1,
        "time_off_s": -3600.0, "time_state": "off", "set_back_s": 12.0,
    }  # fmt: skip
    text = prometheus_text({"well": True, "stores": {"shop": store}}).decode()
    assert 'fusion_store_time_off_seconds{store="shop"} -3600.0' in text
    assert 'fusion_store_time_off{store="shop"} 1.0' in text
    assert 'fusion_store_clocks_set_back_seconds{store="shop"} 12.0' in text
