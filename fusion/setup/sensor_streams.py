"""The streams of a recording in figures: each is read once, batch by batch, and summed up by sensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fusion.files.recordings import Recording
from fusion.goods.fitness import NOISE_SHARE_MIN, message_noise_g

if TYPE_CHECKING:
    import pyarrow as pa

# A sensor that is silent for longer than this has a gap.
GAP_S = 1.0
# Intervals that are kept of each sensor to find its usual rate.
INTERVALS_MAX = 2000
# The busiest minute is found by counting the detections in each stretch of this length.
STRETCH_S = 10
# A detector may place a joint, or a box's edge, a little beyond the picture's, as a share of its width and height.
_SLACK_SHARE = 0.05


@dataclass
class SensorSummary:
    """What one sensor sent.

    Attributes:
        n: rows.
        first_ns, last_ns: time of the first and of the last row.
        n_gaps, longest_gap_s, longest_gap_ns: silences, the longest of them, and when that began.
        n_repeated: rows with a time that an earlier row has.
        intervals_s, n_intervals: durations of single samples or frames, up to INTERVALS_MAX.
        n_not_finite: samples or keypoints that are not finite.
        n_people: detections (cameras).
        n_keypoints, n_outside: keypoints, and those outside of the calibrated picture (cameras).
        right_px, bottom_px: largest 99.9 % quantile of the keypoints' coordinates over all batches (cameras).
        low_g, high_g: smallest and largest sample (plates).
        n_moving, n_calm: messages whose samples are not all the same, and those of them that tremble less than any
            scale in grams (plates).
    """

    n: int = 0
    first_ns: int = 0
    last_ns: int = 0
    n_gaps: int = 0
    longest_gap_s: float = 0.0
    longest_gap_ns: int = 0
    n_repeated: int = 0
    intervals_s: list[NDArray[np.float64]] = field(default_factory=list)
    n_intervals: int = 0
    n_not_finite: int = 0
    n_people: int = 0
    n_keypoints: int = 0
    n_outside: int = 0
    right_px: float = 0.0
    bottom_px: float = 0.0
    low_g: float = math.inf
    high_g: float = -math.inf
    n_moving: int = 0
    n_calm: int = 0

    def period_s(self) -> float:
        """Usual duration of one sample or frame; NaN before there were two."""
        return float(np.median(np.concatenate(self.intervals_s))) if self.intervals_s else math.nan

    def add_times(self, times_ns: NDArray[np.int64]) -> None:
        """Count the sensor's rows of one batch; times ascending."""
        if self.n:
            times_ns = np.concatenate([[self.last_ns], times_ns])
        else:
            self.first_ns = int(times_ns[0])
            self.n = 1
        steps_s = np.diff(times_ns) / 1e9
        self.n += len(steps_s)
        self.last_ns = max(self.last_ns, int(times_ns[-1]))
        self.n_repeated += int((steps_s == 0).sum())
        gaps = np.flatnonzero(steps_s > GAP_S)
        self.n_gaps += len(gaps)
        if len(gaps):
            longest = gaps[np.argmax(steps_s[gaps])]
            if steps_s[longest] > self.longest_gap_s:
                self.longest_gap_s, self.longest_gap_ns = float(steps_s[longest]), int(times_ns[longest])

    def add_intervals(self, intervals_s: NDArray[np.float64]) -> None:
        """Keep intervals, as far as there is room."""
        room = INTERVALS_MAX - self.n_intervals
        if room > 0 and len(intervals_s):
            self.intervals_s.append(intervals_s[:room])
            self.n_intervals += min(room, len(intervals_s))

    def add_keypoints(self, points: NDArray[np.float32], size: tuple[int, int] | None) -> None:
        """Count the detections of one batch (n, K, 3); size: of the calibrated picture, None where there is none."""
        self.n_people += len(points)
        finite = np.isfinite(points).all(axis=-1)
        self.n_not_finite += int((~finite).sum())
        usable = finite & (points[..., 2] > 0)
        x, y = points[..., 0][usable], points[..., 1][usable]
        self.n_keypoints += len(x)
        if size is None or not len(x):
            return
        width, height = size
        slack_x, slack_y = _SLACK_SHARE * width, _SLACK_SHARE * height
        outside = (x < -slack_x) | (y < -slack_y) | (x > width + slack_x) | (y > height + slack_y)
        self.n_outside += int(outside.sum())
        self.right_px = max(self.right_px, float(np.quantile(x, 0.999)))
        self.bottom_px = max(self.bottom_px, float(np.quantile(y, 0.999)))


@dataclass
class _Rows:
    """The rows of one batch: their times, and their sensors as indices into the names."""

    times_ns: NDArray[np.int64]
    sensor: NDArray[np.int64]
    names: list[str]


class SensorStream:
    """One stream of a recording, summed up.

    Attributes:
        name: `detections` or `weights`.
        kind: `camera` or `plate`; file: of the store folder in which those are listed.
        known: the sensors of the store.
        sensors: by name, a summary of each sensor; the known ones first.
        n_rows, n_early: all rows, and those that come after a later one.
        most_early_s, most_early_ns: by how much at most, and the time of that row.
        busy: detections by stretch of STRETCH_S (cameras).
    """

    def __init__(self, name: str, kind: str, file: str, known: Iterable[str]) -> None:
        """Begin an empty summary of a stream with these known sensors."""
        self.name, self.kind, self.file = name, kind, file
        self.sensors: dict[str, SensorSummary] = {sensor: SensorSummary() for sensor in known}
        self.known = frozenset(self.sensors)
        self.n_rows = 0
        self.n_early = 0
        self.most_early_s = 0.0
        self.most_early_ns = 0
        self.busy: Counter[int] = Counter()
        self._newest_ns = 0

    def present(self) -> dict[str, SensorSummary]:
        """The known sensors that sent anything."""
        return {name: sensor for name, sensor in self.sensors.items() if name in self.known and sensor.n}

    def read_frames(self, recording: Recording) -> None:
        """Read detections to the end. Raises RecordingError at a damaged file; what came before is counted."""
        n_joints = recording.store.layout.n_joints
        sizes = {camera.name: camera.size for camera in recording.store.cameras}
        for batch in recording.tables("detections"):
            rows = self._add(batch)
            people = batch.column(2)
            n_people = np.diff(people.offsets.to_numpy())
            points = people.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, n_joints, 3)
            of_row = np.repeat(rows.sensor, n_people)
            stretches = np.repeat(rows.times_ns // (STRETCH_S * 1_000_000_000), n_people)
            for stretch, n in zip(*(part.tolist() for part in np.unique(stretches, return_counts=True))):
                self.busy[stretch] += n
            for index in np.unique(rows.sensor).tolist():
                name = rows.names[index]
                steps_s = np.diff(np.sort(rows.times_ns[rows.sensor == index])) / 1e9
                self.sensors[name].add_intervals(steps_s[steps_s > 0])
                self.sensors[name].add_keypoints(points[of_row == index], sizes.get(name))

    def read_weights(self, recording: Recording) -> None:
        """Read weight messages to the end. Raises RecordingError at a damaged file; what came before is counted."""
        unit_g = recording.store.weight_unit_g
        calm_g = {plate.plate: NOISE_SHARE_MIN * plate.capacity_g for plate in recording.store.plates}
        for batch in recording.tables("weights"):
            rows = self._add(batch)
            if not len(rows.sensor):
                continue
            n_samples = np.diff(batch.column(2).offsets.to_numpy())
            samples = batch.column(2).flatten().to_numpy(zero_copy_only=False).astype(np.float64) * unit_g
            present = np.unique(rows.sensor).tolist()
            for index in present:
                own = np.flatnonzero(rows.sensor == index)
                own = own[np.argsort(rows.times_ns[own], kind="stable")]
                # A message's samples last until the next message, unless some were lost between.
                steps_s, n = np.diff(rows.times_ns[own]) / 1e9, n_samples[own][:-1]
                whole = (steps_s > 0) & (n > 0)
                self.sensors[rows.names[index]].add_intervals(steps_s[whole] / n[whole])
            # Smallest and largest sample of all sensors at once: hundreds of plates send in every batch.
            of_sample = np.repeat(rows.sensor, n_samples)
            bad = ~np.isfinite(samples)
            low, high = np.full(len(rows.names), math.inf), np.full(len(rows.names), -math.inf)
            np.minimum.at(low, of_sample[~bad], samples[~bad])
            np.maximum.at(high, of_sample[~bad], samples[~bad])
            n_bad = np.bincount(of_sample[bad], minlength=len(rows.names))
            sender = rows.sensor[n_samples > 0]
            noise_g = message_noise_g(np.append(0, np.cumsum(n_samples[n_samples > 0])), samples)
            moving = noise_g > 0.0
            calm = moving & (noise_g < np.array([calm_g.get(name, 0.0) for name in rows.names])[sender])
            n_moving, n_calm = (np.bincount(sender[which], minlength=len(rows.names)) for which in (moving, calm))
            for index in present:
                sensor = self.sensors[rows.names[index]]
                sensor.low_g = min(sensor.low_g, float(low[index]))
                sensor.high_g = max(sensor.high_g, float(high[index]))
                sensor.n_not_finite += int(n_bad[index])
                sensor.n_moving += int(n_moving[index])
                sensor.n_calm += int(n_calm[index])

    def _add(self, batch: pa.RecordBatch) -> _Rows:
        """Count the times and sensors of a batch."""
        import pyarrow.types as pt

        times_ns = batch.column(0).to_numpy()
        column = batch.column(1)
        if not pt.is_dictionary(column.type):
            column = column.dictionary_encode()
        rows = _Rows(times_ns, column.indices.to_numpy(), column.dictionary.to_pylist())
        self.n_rows += len(times_ns)
        if not len(times_ns):
            return rows
        newest_ns = np.maximum.accumulate(np.concatenate([[self._newest_ns], times_ns]))
        early_s = (newest_ns[:-1] - times_ns) / 1e9
        if (early_s > 0).any():
            worst = int(np.argmax(early_s))
            self.n_early += int((early_s > 0).sum())
            if early_s[worst] > self.most_early_s:
                self.most_early_s, self.most_early_ns = float(early_s[worst]), int(times_ns[worst])
        self._newest_ns = int(newest_ns[-1])
        for index in np.unique(rows.sensor).tolist():
            sensor = self.sensors.setdefault(rows.names[index], SensorSummary())
            sensor.add_times(np.sort(times_ns[rows.sensor == index]))
        return rows
