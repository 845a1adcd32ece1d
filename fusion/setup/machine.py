"""The doctor's examination of the machine: folders, time zones, clocks, cores."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fusion.setup.examination import Line, write_fault

# Clocks of sensors are compared to within milliseconds.
RESOLUTION_MAX_S = 1e-4
# 2024-01-01 and 2100-01-01: a clock outside of these was never set.
_CLOCK_MIN_S, _CLOCK_MAX_S = 1_704_067_200, 4_102_444_800


def folders() -> Iterator[Line]:
    """Whether results and temporary files can be written."""
    places = [("working folder", Path.cwd())]
    try:
        places.append(("temporary folder", Path(tempfile.gettempdir())))
    except FileNotFoundError:
        yield Line("fault", "temporary folder", "none can be written", "set TMPDIR to a folder that can be written")
    for subject, folder in places:
        trouble = write_fault(folder)
        if trouble:
            yield Line("warning", subject, f"{folder}: {trouble}", "give results another folder (--out)")
        else:
            yield Line("ok", subject, f"{folder} can be written")


def time_zones() -> Iterator[Line]:
    """Whether the data of time zones is there."""
    import datetime
    from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError

    try:
        berlin = ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        yield Line("fault", "time zones", "no data", "pip install tzdata")
        return
    hours = [
        round(datetime.datetime(2026, month, 1, tzinfo=berlin).utcoffset().total_seconds() / 3600)  # type: ignore[union-attr]
        for month in (1, 7)
    ]
    if hours != [1, 2]:
        yield Line("fault", "time zones", f"Europe/Berlin: want UTC+1 and +2, got {hours}", "pip install -U tzdata")
        return
    system = next((path for path in TZPATH if (Path(path) / "Europe" / "Berlin").exists()), None)
    yield Line("ok", "time zones", f"from {system or 'the package tzdata'}")


def clocks() -> Iterator[Line]:
    """The wall clock, and the clock that measures durations."""
    now_s = time.time()
    if not _CLOCK_MIN_S < now_s < _CLOCK_MAX_S:
        found = f"shows {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now_s))} UTC"
        yield Line("fault", "clock", found, "set it, and keep it right with NTP: sensors' times are compared")
    else:
        yield Line("ok", "clock", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now_s))} UTC")
    info = time.get_clock_info("perf_counter")
    before = time.perf_counter_ns()
    ticks: set[int] = set()
    while len(ticks) < 50:
        after = time.perf_counter_ns()
        if after < before:
            yield Line("fault", "stopwatch", "runs backwards", "a virtual machine's fault: change its clock source")
            return
        ticks.add(after)
        before = after
    ordered = sorted(ticks)
    step_s = min(b - a for a, b in zip(ordered, ordered[1:])) * 1e-9
    if not info.monotonic or step_s > RESOLUTION_MAX_S:
        found = f"steps of {step_s * 1e6:.0f} us"
        yield Line("warning", "stopwatch", found, "change the machine's clock source; measured times will be coarse")
    else:
        yield Line("ok", "stopwatch", f"monotonic, in steps of {step_s * 1e9:.0f} ns")


def cores() -> Iterator[Line]:
    """Cores, and how busy they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{usable} of {os.cpu_count() or usable} cores; an engine uses one"
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = 0.0
    if load > usable:
        yield Line("warning", "cores", f"{found}; {load:.1f} processes want to run", "stop those that are not needed")
    else:
        yield Line("ok", "cores", found)
