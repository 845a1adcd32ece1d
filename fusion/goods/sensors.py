"""State of all of a store's sensors at an instant, as the engine reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusion.goods.plates import PlateState
from fusion.people.health import CameraState
from fusion.results import CameraCorrection, WarningKind


@dataclass(frozen=True, slots=True)
class Health:
    """State of a store's sensors at an instant.

    Attributes:
        t_ns: the instant, in data time.
        cameras: state of every camera, in the order of the store.
        plates: state of every plate, in the order of the store.
        unheard: names of the cameras and plates that have not reported yet.
        unknown: names that report and that the store does not have.
        detections: what is wrong with a camera's detections, by camera.
        corrections: what became of cameras that were moved, the last ones, oldest first.
    """

    t_ns: int
    cameras: tuple[CameraState, ...]
    plates: tuple[PlateState, ...]
    unheard: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    detections: Mapping[str, WarningKind] = field(default_factory=dict)
    corrections: tuple[CameraCorrection, ...] = ()
