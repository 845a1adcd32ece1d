"""How sensors fared: the state of a camera in one word, and the history of health and step times over a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.show.page import clean, packed
from fusion.store.models import Store

if TYPE_CHECKING:
    from fusion.engine import Engine
    from fusion.goods.sensors import Health
    from fusion.people.health import CameraState
    from fusion.stopwatch import StepTimes

# Health and latency are sampled this often, until there are too many samples; then half as often.
HEALTH_PERIOD_NS = 5_000_000_000
# Changes of plates' states that are kept.
PLATE_CHANGES_MAX = 2_000
# States of a plate, as the engine names them; the page writes their index.
PLATE_FAULTS = ("", "noisy", "stuck", "silent")


class CameraCondition(IntEnum):
    """The state of a camera, worst last."""

    FINE = 0
    CORRECTED = 1
    MISSES_PEOPLE = 2
    MOVED = 3
    DOWN = 4

    @classmethod
    def of(cls, camera: CameraState) -> CameraCondition:
        """The worst that holds of a camera."""
        if camera.down:
            return cls.DOWN
        if camera.moved:
            return cls.MOVED
        if camera.misses:
            return cls.MISSES_PEOPLE
        return cls.CORRECTED if camera.corrected else cls.FINE

    @property
    def words(self) -> str:
        """The state as pages show it."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class StepQuantiles:
    """Times of engine steps in microseconds."""

    median_us: float
    p99_us: float
    max_us: float

    def worse(self, later: StepQuantiles) -> StepQuantiles:
        """The larger of each figure."""
        return StepQuantiles(
            max(self.median_us, later.median_us), max(self.p99_us, later.p99_us), max(self.max_us, later.max_us)
        )


@dataclass(frozen=True)
class Sample:
    """Cameras and step times over one period; lists are in the store's order of cameras."""

    t_ns: int
    offsets_ms: list[float]
    residuals_mm: list[float]
    conditions: list[int]
    steps: StepQuantiles

    def merged(self, later: Sample) -> Sample:
        """One sample for two periods. The worse of each stands, so that a short fault stays visible."""
        return Sample(
            self.t_ns,
            self.offsets_ms,
            list(map(max, self.residuals_mm, later.residuals_mm)),
            list(map(max, self.conditions, later.conditions)),
            self.steps.worse(later.steps),
        )


@dataclass(frozen=True)
class PlateChange:
    """A plate's state changed: `plate` is an index into the store's plates, `fault` one into `PLATE_FAULTS`."""

    plate: int
    t_ns: int
    fault: int


class SensorHistory:
    """Health of cameras and plates and the times of engine steps, sampled over a run; memory is bounded."""

    def __init__(self, store: Store, samples_max: int) -> None:
        self._cameras = [camera.name for camera in store.cameras]
        self._samples_max = samples_max
        self._samples: list[Sample] = []
        self._period_ns = HEALTH_PERIOD_NS
        self._times: StepTimes | None = None
        self._plate_faults = [0] * len(store.plates)
        self._plate_changes: list[PlateChange] = []

    def sample(self, engine: Engine, t_ns: int) -> None:
        """Ask an engine for its sensors' health and its step times, where the last sample is a period old."""
        if self._samples and t_ns - self._samples[-1].t_ns < self._period_ns:
            return
        health = engine.health()
        times = engine.step_times.copy()
        recent = times if self._times is None else times.since(self._times)
        self._times = times
        self._samples.append(
            Sample(
                t_ns,
                [1e3 * camera.offset_s for camera in health.cameras],
                [1e3 * camera.residual_m for camera in health.cameras],
                [int(CameraCondition.of(camera)) for camera in health.cameras],
                StepQuantiles(recent.percentile_us(50), recent.percentile_us(99), recent.max_ns / 1e3),
            )
        )
        self._note_plates(health, t_ns)
        if len(self._samples) > self._samples_max:
            self._period_ns *= 2
            self._samples = [a.merged(b) for a, b in zip(self._samples[0::2], self._samples[1::2])]

    def _note_plates(self, health: Health, t_ns: int) -> None:
        for plate, state in enumerate(health.plates):
            fault = PLATE_FAULTS.index(state.fault)
            if fault != self._plate_faults[plate] and len(self._plate_changes) < PLATE_CHANGES_MAX:
                self._plate_faults[plate] = fault
                self._plate_changes.append(PlateChange(plate, t_ns, fault))

    def data(self, ms: Callable[[int], int]) -> dict[str, Any]:
        """The history in the form of the page: a row of int16 in base64 for each camera, changes of plates' states.

        Args:
            ms: milliseconds of the run at an instant.
        """

        def by_camera(values: Sequence[Sequence[float]]) -> list[str]:
            return [packed(column) for column in np.array(values).T] if values and self._cameras else []

        samples = self._samples
        steps = [(sample.steps.median_us, sample.steps.p99_us, sample.steps.max_us) for sample in samples]
        return {
            "times": [ms(sample.t_ns) for sample in samples],
            "cameras": [clean(name) for name in self._cameras],
            "camera_states": [condition.words for condition in CameraCondition],
            "states": by_camera([sample.conditions for sample in samples]),
            "offset_tenth_ms": by_camera([[10 * offset for offset in sample.offsets_ms] for sample in samples]),
            "residual_mm": by_camera([sample.residuals_mm for sample in samples]),
            "plate_faults": PLATE_FAULTS,
            "plate_changes": [[change.plate, ms(change.t_ns), change.fault] for change in self._plate_changes],
            "step_us": [[round(us, 1) for us in row] for row in steps],
        }
