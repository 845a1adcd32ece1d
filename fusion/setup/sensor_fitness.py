"""Whether every sensor of a running store is fit, from a minute of what it sends."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fusion.engine import Engine
from fusion.goods.plates import PlateState
from fusion.observations import Frame, Observation, ShelfReading
from fusion.people.health import CameraState
from fusion.results import Warning
from fusion.sentences import sentence
from fusion.setup.examination import Line
from fusion.store.models import Store

# A plate's samples come at the store's rate within this share, lost messages included.
PLATE_RATE_OFF_MAX = 0.1
# A camera that delivers fewer frames than this share of the cameras' median misses instants that the others see.
FRAME_RATE_SHARE_MIN = 0.7
# A camera's clock that is this far off the others, in seconds, moves a walking person by a step.
OFFSET_MAX_S = 0.1
# Shorter than this, no rate can be measured.
DURATION_MIN_S = 2.0

_CHECK_CONNECTION = "check its name, its cable and the program that publishes it"


class SensorFitness:
    """Counts what sensors send, while an engine judges it.

    `add` everything, then ask for `lines`.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._engine = store, Engine(store)
        self._frames: Counter[str] = Counter()
        self._samples: Counter[str] = Counter()
        self._spans: dict[str, tuple[int, int]] = {}
        self._warnings: dict[str, dict[str, None]] = defaultdict(dict)  # sentences by subject, each once

    def add(self, observation: Observation) -> None:
        """Take one observation."""
        match observation:
            case Frame(camera=name):
                self._frames[name] += 1
            case ShelfReading(plate=name, samples=samples):
                self._samples[name] += len(samples)
            case _:
                name = ""
        first_ns, last_ns = self._spans.get(name, (observation.t_ns, observation.t_ns))
        self._spans[name] = min(first_ns, observation.t_ns), max(last_ns, observation.t_ns)
        self._note(self._engine.feed(observation))

    def _note(self, results: Iterable[object]) -> None:
        for result in results:
            if isinstance(result, Warning):
                self._warnings[result.subject][sentence(result, self._store)] = None

    def lines(self, refused: Mapping[str, int] | None = None) -> Iterator[Line]:
        """A line for every sensor, then what else was found.

        Args:
            refused: messages that could not be decoded, by reason.
        """
        # Before it is closed: sensors whose streams have ended are no longer silent.
        health = self._engine.health()
        self._note(self._engine.close())
        rates = {name: n / self._duration_s(name) for name, n in self._frames.items() if self._duration_s(name)}
        usual_hz = float(np.median(list(rates.values()))) if rates else 0.0
        for camera in health.cameras:
            yield self._camera(camera, rates.get(camera.name, 0.0), usual_hz)
        for plate in health.plates:
            yield self._plate(plate)
        known = {camera.name for camera in health.cameras} | {plate.name for plate in health.plates}
        for subject, found in self._warnings.items():
            if subject not in known:
                yield Line("warning", subject, "; ".join(found), "compare it with the store folder")
        for reason, n in sorted((refused or {}).items()):
            yield Line("warning", reason, f"{n} messages could not be used", "compare the publisher with docs/mqtt.md")
        if not self._spans:
            yield Line("fault", "streams", "nothing was heard", "check the broker, the store's id and the publishers")

    def _duration_s(self, name: str) -> float:
        first_ns, last_ns = self._spans.get(name, (0, 0))
        return (last_ns - first_ns) / 1e9

    def _camera(self, camera: CameraState, rate_hz: float, usual_hz: float) -> Line:
        name = camera.name
        if not self._frames[name]:
            return Line("fault", name, "no frames", _CHECK_CONNECTION)
        found = f"{rate_hz:.1f} frames a second, clock {camera.offset_s * 1e3:+.0f} ms"
        faults = list(self._warnings.get(name, {}))
        if faults or camera.down or camera.moved:
            faults = faults or ["delivers nothing" if camera.down else "does not fit its calibration"]
            return Line("fault", name, f"{found}; {'; '.join(faults)}", "see what the messages name")
        if rate_hz < FRAME_RATE_SHARE_MIN * usual_hz:
            return Line("warning", name, f"{found}, others {usual_hz:.1f}", "free its detector, or its network")
        if abs(camera.offset_s) > OFFSET_MAX_S:
            return Line("warning", name, found, "synchronise its clock")
        return Line("ok", name, found)

    def _plate(self, plate: PlateState) -> Line:
        name = plate.name
        if not self._samples[name]:
            return Line("fault", name, "no weights", _CHECK_CONNECTION)
        duration_s, wanted_hz = self._duration_s(name), self._store.weight_rate_hz
        if duration_s < DURATION_MIN_S:
            return Line("warning", name, f"only {duration_s:.1f} s of weights", "watch it for longer")
        rate_hz = self._samples[name] / duration_s
        found = f"{rate_hz:.1f} samples a second, noise {plate.noise_g:.2g} g"
        faults = list(self._warnings.get(name, {})) or ([plate.fault] if plate.fault else [])
        if faults:
            return Line("fault", name, f"{found}; {'; '.join(faults)}", "see what the messages name")
        if abs(rate_hz / wanted_hz - 1.0) > PLATE_RATE_OFF_MAX:
            return Line("fault", name, f"{found}, but {wanted_hz:g} are wanted", "set weight_rate_hz in store.toml")
        return Line("ok", name, found)
