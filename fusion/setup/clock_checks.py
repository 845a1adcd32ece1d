"""Checks of clocks and calibration: the engine's tracker follows people through the busiest minute of a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fusion.errors import RecordingError
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.order import SET_SPAN_NS
from fusion.people.health import CameraState
from fusion.results import WarningKind
from fusion.sentences import sentence
from fusion.setup.coverage import VIEWS_MIN
from fusion.setup.findings import Finding, Severity, utc_text
from fusion.setup.sensor_streams import STRETCH_S

# A camera's clock may be off by this much; an offset is reported from CLOCK_REPORTED_S on.
CLOCK_MAX_S, CLOCK_REPORTED_S = 0.1, 0.02
# Stretches in the minute that is followed.
_STRETCHES = 60 // STRETCH_S
# Warnings of the tracker that say something about a camera's calibration or detector.
_CAMERA_FAULTS = (WarningKind.CAMERA_MOVED, WarningKind.CAMERA_MISSES_PEOPLE)


def clock_findings(recording: Recording, busy: Counter[int]) -> Iterator[Finding]:
    """Cameras whose clock is off, that were moved, or that miss people.

    Args:
        recording: the recording; nothing is reported where fewer than two cameras, or no detections, are in it.
        busy: detections by stretch of STRETCH_S.
    """
    from fusion.people.tracker import Tracker

    store = recording.store
    if len(store.cameras) < VIEWS_MIN or not busy:
        return
    in_minute = {stretch: sum(busy[stretch + i] for i in range(_STRETCHES)) for stretch in busy}
    stretch_ns = STRETCH_S * 1_000_000_000
    start_ns = max(in_minute, key=lambda stretch: (in_minute[stretch], -stretch)) * stretch_ns
    frames = recording.frames((start_ns, start_ns + _STRETCHES * stretch_ns))
    tracker = Tracker.of_store(store)
    reported: set[tuple[WarningKind, str]] = set()  # kind and camera
    try:
        for frame_set in _frame_sets(frames, {camera.name for camera in store.cameras}):
            tracker.step(frame_set)
            for warning in tracker.warnings():
                if (warning.kind, warning.subject) in reported or warning.kind not in _CAMERA_FAULTS:
                    continue
                reported.add((warning.kind, warning.subject))
                message = f"{sentence(warning)} (at {utc_text(warning.t_ns)})"
                yield Finding("warning", warning.kind.replace(" ", "-"), f"camera {warning.subject}", message)
    except RecordingError:
        return  # The damaged file has a finding of its own.
    yield from _offset_findings(tracker.health.report())


def _offset_findings(cameras: Sequence[CameraState]) -> Iterator[Finding]:
    """Each clock against the median of all: one that is far off would draw their mean along."""
    usual_s = float(np.median([camera.offset_s for camera in cameras]))
    for camera in cameras:
        off_s = abs(camera.offset_s - usual_s)
        if off_s - 2.0 * camera.offset_sd_s < CLOCK_REPORTED_S:
            continue
        direction = "ahead of" if camera.offset_s > usual_s else "behind"
        message = f"want one clock, got its times {1e3 * off_s:.0f} ms {direction} the other cameras' "
        message += f"(+- {1e3 * camera.offset_sd_s:.0f})"
        severity: Severity = "note"
        if off_s > CLOCK_MAX_S:
            severity, message = "warning", f"{message}; the engine corrects up to {1e3 * CLOCK_MAX_S:.0f} ms"
        yield Finding(severity, "clock", f"camera {camera.name}", message)


def _frame_sets(frames: Iterable[Frame], cameras: set[str]) -> Iterator[list[Frame]]:
    """Frames by sets: at most one of each camera, within a span."""
    current: dict[str, Frame] = {}
    start_ns = 0
    newest_ns: dict[str, int] = {}
    for frame in frames:
        # Rows out of order have a finding of their own; here they would only confuse the tracker.
        if frame.camera not in cameras or frame.t_ns <= newest_ns.get(frame.camera, 0):
            continue
        newest_ns[frame.camera] = frame.t_ns
        if current and (frame.camera in current or frame.t_ns - start_ns > SET_SPAN_NS):
            yield list(current.values())
            current = {}
        if not current:
            start_ns = frame.t_ns
        current[frame.camera] = frame
    if current:
        yield list(current.values())
