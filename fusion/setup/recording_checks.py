"""Checks of a recording's rows: order, unknown and silent sensors, rates, pictures, weights and scans."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np

from fusion.errors import ConfigError, RecordingError
from fusion.files.recordings import Recording
from fusion.goods.fitness import trembles_too_little
from fusion.observations import DoorState
from fusion.setup.clock_checks import clock_findings
from fusion.setup.findings import Finding, Severity, name_list, utc_text
from fusion.setup.sensor_streams import GAP_S, SensorStream, SensorSummary
from fusion.store.models import Camera, Store

# At most this many of the sensors that the store does not know are named.
STRANGERS_MAX = 20
# Plates at another rate, or in another unit, that are named, each by a finding of its own.
PLATES_MAX = 5
# A camera with a longer period has a gap once this many of its frames in a row are missing.
GAP_FRAMES = 5.0
# A rate that differs by more than clocks do, and a frame rate that is not the other cameras'.
RATE_OFF_MAX, FRAME_RATE_SHARE_MIN = 0.02, 0.6
# A row that is later than this is lost to the engine (`engine.LATENESS_MAX_S`).
LATE_MAX_S = 2.0
# Share of a camera's keypoints outside of its picture above which they belong to another picture. Where all keypoints
# of a busy camera lie within this share of width and height, its detections come from a smaller picture.
OUTSIDE_SHARE_MAX, SMALLER_SHARE, KEYPOINTS_MIN = 0.02, 0.55, 5000
# Scans this far outside of the sensors' time come from another clock.
_SCAN_MARGIN_NS = 60_000_000_000


class Span(NamedTuple):
    """The time from the first row of any sensor to the last, in nanoseconds."""

    start_ns: int
    end_ns: int


class _Named(NamedTuple):
    """A name in a file that the store does not have: the file, its key, and the value."""

    file: str
    key: str
    value: str


def recording_findings(recording: Recording) -> list[Finding]:
    """What is wrong with the rows of a recording that could be opened; `check_store` examines its store."""
    store = recording.store
    cameras = SensorStream("detections", "camera", "cameras.toml", [camera.name for camera in store.cameras])
    plates = SensorStream("weights", "plate", "plates.csv", [plate.plate for plate in store.plates])
    findings: list[Finding] = []
    for read in (cameras.read_frames, plates.read_weights):
        try:
            read(recording)
        except (RecordingError, ConfigError) as error:
            findings.append(_damaged(str(error)))
    findings += [_damaged(message) for message in recording.damaged]
    # Torn files were reported above, each by its name.
    for reason, n in sorted(recording.ignored.items()):
        stream_name, _, message = reason.partition(": ")
        if message != "damaged file":
            findings.append(Finding("warning", "rows-not-used", stream_name, f"{n} rows: {message}"))
    present = [sensor for stream in (cameras, plates) for sensor in stream.sensors.values() if sensor.n]
    if not present:
        message = "want frames or weights, got none"
        return [*findings, Finding("warning", "no-rows", recording.folder.name, message)]
    span = Span(min(sensor.first_ns for sensor in present), max(sensor.last_ns for sensor in present))
    for stream in (cameras, plates):
        findings += _stream_findings(stream, span)
    findings += _picture_findings(store, cameras)
    findings += _scale_findings(store, plates)
    findings += _gate_findings(recording, span)
    findings += clock_findings(recording, cameras.busy)
    message = f"{(span.end_ns - span.start_ns) / 60e9:.1f} minutes, {cameras.n_rows} frames, "
    message += f"{plates.n_rows} weight messages, from {utc_text(span.start_ns)}"
    return [*findings, Finding("note", "recording", recording.folder.name, message)]


def _damaged(text: str) -> Finding:
    subject, _, message = text.partition(": ")
    return Finding("error", "damaged", subject, message)


# ---- sensors ---------------------------------------------------------------------------------------------------------


def _stream_findings(stream: SensorStream, span: Span) -> Iterator[Finding]:
    """Order, unknown names, silences, repetitions."""
    if not stream.n_rows:
        if stream.known:
            message = f"want rows of {len(stream.known)} {stream.kind}s, got none"
            yield Finding("warning", "no-rows", stream.name, message)
        return
    if stream.n_early:
        lost = stream.most_early_s > LATE_MAX_S
        message = f"want rows in time order, got {stream.n_early} before an earlier one, by up to "
        message += f"{stream.most_early_s:.3f} s at {utc_text(stream.most_early_ns)}"
        message += f"; rows that are more than {LATE_MAX_S:g} s late are not used" if lost else ""
        yield Finding("error" if lost else "warning", "rows-out-of-order", stream.name, message)
    strangers = [name for name in stream.sensors if name not in stream.known]
    rule = f"unknown-{stream.kind}"
    for name in strangers[:STRANGERS_MAX]:
        message = f"want a sensor that is listed in {stream.file}, got {stream.sensors[name].n} rows of an unknown one"
        yield Finding("error", rule, f"{stream.kind} {name}", message)
    if len(strangers) > STRANGERS_MAX:
        message = f"{len(strangers) - STRANGERS_MAX} more that are not listed in {stream.file}"
        yield Finding("error", rule, stream.name, message)
    for name, sensor in stream.sensors.items():
        if name in stream.known:
            yield from _silence_findings(stream.kind, name, sensor, span)


def _silence_findings(kind: str, name: str, sensor: SensorSummary, span: Span) -> Iterator[Finding]:
    subject = f"{kind} {name}"
    if not sensor.n:
        yield Finding("warning", f"{kind}-silent", subject, "want rows of it, got none")
        return
    period_s = sensor.period_s()
    gap_s = max(GAP_S, GAP_FRAMES * period_s) if kind == "camera" and period_s > 0 else GAP_S
    if sensor.longest_gap_s > gap_s:
        message = f"{sensor.n_gaps} gaps of more than {GAP_S:g} s, the longest {sensor.longest_gap_s:.1f} s "
        yield Finding("warning", "gaps", subject, message + f"from {utc_text(sensor.longest_gap_ns)}")
    late_s, early_s = (sensor.first_ns - span.start_ns) / 1e9, (span.end_ns - sensor.last_ns) / 1e9
    if max(late_s, early_s) > 2 * gap_s:
        if late_s >= early_s:
            message = f"begins {late_s:.1f} s after the first sensor"
        else:
            message = f"ends {early_s:.1f} s before the last"
        yield Finding("warning", "gaps", subject, message)
    if sensor.n_repeated:
        message = f"want each time once, got {sensor.n_repeated} rows of a time that was there before"
        yield Finding("warning", "repeated", subject, message)


def _picture_findings(store: Store, stream: SensorStream) -> Iterator[Finding]:
    """Frame rates, and whether keypoints belong to the pictures that are calibrated."""
    present = stream.present()
    rates_hz = {name: 1.0 / sensor.period_s() for name, sensor in present.items() if sensor.period_s() > 0}
    usual_hz = float(np.median(list(rates_hz.values()))) if rates_hz else math.nan
    usual_people = float(np.median([sensor.n_people / sensor.n for sensor in present.values()])) if present else 0.0
    cameras = {camera.name: camera for camera in store.cameras}
    for name, sensor in present.items():
        subject = f"camera {name}"
        if rates_hz.get(name, usual_hz) < FRAME_RATE_SHARE_MIN * usual_hz:
            message = f"want about the other cameras' {usual_hz:.1f} frames a second, got {rates_hz[name]:.1f}"
            yield Finding("warning", "frame-rate", subject, message)
        if not sensor.n_people and usual_people > 0:
            message = f"want people in some of {sensor.n} frames, got none; "
            message += f"other cameras show {usual_people:.2f} a frame"
            yield Finding("warning", "camera-without-people", subject, message)
        if sensor.n_not_finite:
            message = f"want finite keypoints, got {sensor.n_not_finite} that are not"
            yield Finding("error", "not-finite", subject, message)
        yield from _picture_size_findings(cameras[name], sensor)


def _picture_size_findings(camera: Camera, sensor: SensorSummary) -> Iterator[Finding]:
    width, height = camera.size
    subject, want = f"camera {camera.name}", f"want keypoints of a {width} x {height} picture"
    if sensor.n_outside > OUTSIDE_SHARE_MAX * max(sensor.n_keypoints, 1):
        message = (
            f"{want}, got {sensor.n_outside / sensor.n_keypoints:.0%} outside of it (another size, or undistorted?)"
        )
        yield Finding("error", "another-picture", subject, message)
    elif sensor.n_keypoints > KEYPOINTS_MIN and (
        sensor.right_px < SMALLER_SHARE * width and sensor.bottom_px < SMALLER_SHARE * height
    ):
        message = f"{want}, got none beyond ({sensor.right_px:.0f}, {sensor.bottom_px:.0f}): "
        message += "detected in a smaller picture?"
        yield Finding("warning", "another-picture", subject, message)


def _scale_findings(store: Store, stream: SensorStream) -> Iterator[Finding]:
    """Rates, plates that never change, samples that are not numbers."""
    present = stream.present()
    rates_off_hz: dict[str, float] = {}
    for name, sensor in present.items():
        period_s = sensor.period_s()
        if period_s > 0 and abs(1.0 / period_s / store.weight_rate_hz - 1.0) > RATE_OFF_MAX:
            rates_off_hz[name] = 1.0 / period_s
        if sensor.n_not_finite:
            message = f"want grams, got {sensor.n_not_finite} samples that are not numbers"
            yield Finding("error", "not-finite", f"plate {name}", message)
    want = f"want {store.weight_rate_hz:g} samples a second, as in store.toml"
    if len(rates_off_hz) > PLATES_MAX:
        low_hz, high_hz = min(rates_off_hz.values()), max(rates_off_hz.values())
        n_present = sum(bool(sensor.n) for sensor in stream.sensors.values())
        which = "all" if len(rates_off_hz) == n_present else f"{len(rates_off_hz)} of them"
        yield Finding("error", "weight-rate", "plates", f"{want}; got {low_hz:.1f} to {high_hz:.1f} on {which}")
    else:
        for name, rate_hz in rates_off_hz.items():
            yield Finding("error", "weight-rate", f"plate {name}", f"{want}; got {rate_hz:.1f}")
    yield from _unit_findings(store, present)
    for name, sensor in present.items():
        if sensor.low_g == sensor.high_g and sensor.n > 1:
            message = f"want weights that tremble, got {sensor.low_g:g} g in every sample: dead or unplugged"
            yield Finding("warning", "plate-dead", f"plate {name}", message)


def _unit_findings(store: Store, present: dict[str, SensorSummary]) -> Iterator[Finding]:
    """Plates whose readings tremble less than those of any scale in the store's unit."""
    other_unit = [name for name, sensor in present.items() if trembles_too_little(sensor.n_moving, sensor.n_calm)]
    want = f"want weights in {store.weight_unit}, the store's weight_unit, got readings that tremble less than those "
    want += 'of any scale in it: set weight_unit in store.toml to the scales\' unit, such as "kg" or "lb"'
    if len(other_unit) > PLATES_MAX:
        which = "all plates" if len(other_unit) == len(present) else f"{len(other_unit)} plates"
        yield Finding("error", "weight-unit", "plates", f"{want}. On {which}: {name_list(other_unit)}")
    else:
        for name in other_unit:
            yield Finding("error", "weight-unit", f"plate {name}", want)


# ---- gates and readers -----------------------------------------------------------------------------------------------


def _gate_findings(recording: Recording, span: Span) -> Iterator[Finding]:
    """Names in gate.jsonl and items.jsonl that the store does not have, credentials, order and clock of scans."""
    store = recording.store
    gates = {gate.id: gate for gate in store.gate}
    unknown: Counter[_Named] = Counter()
    refused: Counter[tuple[str, str]] = Counter()  # gate and credential type
    doors: Counter[str] = Counter()  # states of the door
    n_off, newest_ns, n_early = 0, 0, 0
    for scan in recording.gate_events():
        gate = gates.get(scan.gate)
        if gate is None:
            unknown[_Named("gate.jsonl", "gate", scan.gate)] += 1
        elif isinstance(scan, DoorState):
            doors[scan.gate] += 1
        elif scan.credential_type not in ("account", "staff", *gate.credentials):
            refused[scan.gate, scan.credential_type] += 1
        n_off += not span.start_ns - _SCAN_MARGIN_NS <= scan.t_ns <= span.end_ns + _SCAN_MARGIN_NS
        n_early += scan.t_ns < newest_ns
        newest_ns = max(newest_ns, scan.t_ns)
    unknown += _unknown_in_sightings(recording)
    for named, n in unknown.items():
        severity: Severity = "error" if named.key == "gate" else "warning"
        message = f"{named.key}: want one of the store, got {named.value!r} {n} times"
        yield Finding(severity, f"unknown-{named.key}", named.file, message)
    for (gate_id, kind), n in refused.items():
        accepted = ", ".join(gates[gate_id].credentials)
        message = f"want a credential that it lists ({accepted}), got {kind} {n} times"
        yield Finding("warning", "credential", f"gate {gate_id}", message)
    for gate in gates.values():
        if gate.kind == "cabinet" and not doors[gate.id]:
            message = "want lines of kind door that state when its door was opened and closed, got none"
            yield Finding("error", "door", f"gate {gate.id}", message)
        elif gate.kind != "cabinet" and doors[gate.id]:
            message = f"want a gate of kind cabinet for lines of kind door, got {doors[gate.id]} of them"
            yield Finding("warning", "door", f"gate {gate.id}", message)
    if n_off:
        message = f"want scans while sensors were on, got {n_off} more than a minute before or after (another clock?)"
        yield Finding("warning", "clock", "gate.jsonl", message)
    if n_early:
        message = f"want lines in time order, got {n_early} before an earlier one"
        yield Finding("warning", "rows-out-of-order", "gate.jsonl", message)


def _unknown_in_sightings(recording: Recording) -> Counter[_Named]:
    store = recording.store
    known: dict[str, Container[str]] = {
        "zone": {zone.id for zone in store.zone} | {gate.id for gate in store.gate},
        "plate": {plate.plate for plate in store.plates},
        "gtin": store.own_gtins,
    }
    unknown: Counter[_Named] = Counter()
    for sighting in recording.sightings():
        for key, value in (("zone", sighting.zone), ("plate", sighting.plate), ("gtin", sighting.gtin)):
            if value is not None and value not in known[key]:
                unknown[_Named("items.jsonl", key, value)] += 1
    return unknown
