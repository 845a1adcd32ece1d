"""Roll call: which of a store's sensors report, under which names, and whether detections have the pictures' scale.

A whole kind that is silent or misnamed leaves no trace in any later stage: what never comes is missed by no one, and
what comes under an unknown name is dropped. So both are compared with the store here, within a second of data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import looks
from fusion.observations import Frame, ShelfReading
from fusion.people.picture_size import PictureSizes, Size
from fusion.people.site import Site
from fusion.results import Warning, WarningKind
from fusion.store.models import Store

# Sensors and names are compared with the store this often; frames come some fifteen times and weights five times in it.
CALL_EVERY_NS = 1_000_000_000
# A whole kind of sensor is silent where none of it has sent anything for this long while others sent that many times:
# after a pause in which nothing came, one of the others may be the first.
SILENT_NS, OTHERS_MIN = 2_000_000_000, 8
# Up to this many sensors are named one by one; more become a count and the first of them.
NAMED_MAX = 3
# Unknown names that are remembered for each kind of sensor; further ones are only counted in `ignored`.
UNKNOWN_MAX = 256
# A camera's detections are judged over this many frames with people, and again whenever its turn comes: one
# camera at a time, since a look takes as long as the tracker takes for a few views.
FRAMES_PER_VERDICT, TURN_EVERY_NS = 4, 20_000_000_000
# When all cameras are new, these many in each set of frames.
LOOKS_PER_SET = 4
# Joints of a person in fractions of the picture lie within this, joints cut off by the picture's edge included.
FRACTION_MAX = 2.0
# Share of people that must be fractions, or beyond the picture, for a verdict: a real detector makes none of these.
FAULTY_MIN = 0.5
# A person is beyond the picture where the middle of their joints is this share of its size outside.
BEYOND_SHARE = 0.02
# A picture of which only this share is used in width and in height, over this many frames, has another size.
CORNER_SHARE, CORNER_FRAMES = 0.5, 100

_PLATES, _CAMERAS = "plates", "cameras"
_UNKNOWN = {_PLATES: WarningKind.UNKNOWN_PLATE, _CAMERAS: WarningKind.UNKNOWN_CAMERA}


@dataclass(slots=True)
class _Detections:
    """What the detections of one camera look like.

    Attributes:
        size_px: (2,) width and height of its pictures.
        n_frames, n_people, n_fractions, n_beyond: of the present verdict: frames with people, people, those of them
            whose joints are fractions, and those beyond the picture.
        n_seen: frames with people, of all verdicts.
        used: (2,) largest coordinates so far, as shares of the picture.
    """

    size_px: NDArray[np.float64]
    n_frames: int = 0
    n_people: int = 0
    n_fractions: int = 0
    n_beyond: int = 0
    n_seen: int = 0
    used: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, frame: Frame) -> None:
        """Look at one frame."""
        n_people, n_fractions, n_beyond = looks.tally(
            frame.keypoints, self.size_px, BEYOND_SHARE, FRACTION_MAX, self.used
        )
        if n_people:
            self.n_frames += 1
            self.n_seen += 1
            self.n_people += n_people
            self.n_fractions += n_fractions
            self.n_beyond += n_beyond

    def verdict(self) -> WarningKind | None:
        """What is wrong with the detections; None where nothing is known to be. Begins the next verdict."""
        fractions, beyond = self.n_fractions / self.n_people, self.n_beyond / self.n_people
        self.n_frames = self.n_people = self.n_fractions = self.n_beyond = 0
        if fractions >= FAULTY_MIN:
            return WarningKind.KEYPOINTS_FRACTIONS
        if beyond >= FAULTY_MIN:
            return WarningKind.KEYPOINTS_BEYOND
        if self.n_seen >= CORNER_FRAMES and (self.used <= CORNER_SHARE).all():
            return WarningKind.KEYPOINTS_IN_CORNER
        return None


@dataclass(slots=True)
class _Newest:
    """When a kind of sensor was last heard; None before the first time.

    Attributes:
        n_without: steps without it since then.
        silent: that was reported.
    """

    t_ns: int | None = None
    n_without: int = 0
    silent: bool = False


class RollCall:
    """Compares what reports with what the store has."""

    def __init__(self, store: Store, site: Site) -> None:
        self._faults: dict[str, WarningKind] = {}  # what a camera's detections alone show
        self._site = site
        self._sizes = PictureSizes(site)
        self._unknown: dict[str, dict[str, bool]] = {_PLATES: {}, _CAMERAS: {}}  # names, and whether they were reported
        self._newest = {_PLATES: _Newest(), _CAMERAS: _Newest()}
        self._next_ns: int | None = None
        self._called = False
        self._turn = self._turn_ns = 0
        self._detections: dict[str, _Detections] = {}
        # Cameras whose detections are being looked at.
        self._looked_at: dict[str, None] = {}  # In turn: the next comes first.
        self._derive(store)
        self._unheard = {_PLATES: set(self._plates), _CAMERAS: set(self._cameras)}

    def _derive(self, store: Store) -> None:
        self._plates = [plate.plate for plate in store.plates]
        self._cameras = [camera.name for camera in store.cameras]
        for camera in store.cameras:
            before, size_px = self._detections.get(camera.name), np.array(camera.size, float)
            if before is None or (before.size_px != size_px).any():
                self._detections[camera.name] = _Detections(size_px)
                self._looked_at[camera.name] = None

    def adopt(self, store: Store, site: Site) -> None:
        """Continue with a changed store of the same sensors, and its cameras where they are; see `Engine.adopt`.

        A picture of another size is judged again.
        """
        self._derive(store)
        self._site = site
        self._sizes.adopt(site)

    def follow(self, site: Site) -> None:
        """Continue with cameras in other places, where the site is another one."""
        if site is not self._site:
            self._site = site
            self._sizes.adopt(site)

    # ---- what reports ------------------------------------------------------------------------------------------------

    @property
    def unheard(self) -> set[str]:
        """Names of the store's cameras and plates that have not reported yet."""
        return self._unheard[_CAMERAS] | self._unheard[_PLATES]

    @property
    def unknown(self) -> list[str]:
        """Names that report and that the store does not have, cameras first, as far as they are remembered."""
        return [*self._unknown[_CAMERAS], *self._unknown[_PLATES]]

    @property
    def faults(self) -> dict[str, WarningKind]:
        """What is wrong with a camera's detections, by camera; a copy."""
        found = (self._cameras[view] for view in self._sizes.found)
        return {**self._faults, **dict.fromkeys(found, WarningKind.KEYPOINTS_OTHER_SIZE)}

    @property
    def unproved(self) -> bool:
        """Whether cameras saw people, and nothing shows that most of them place people rightly."""
        return self._sizes.unproved

    @property
    def contradicted(self) -> bool:
        """Whether most cameras place people wrongly."""
        return self._sizes.contradicted

    def unknown_camera(self, name: str) -> None:
        """Note a frame of a camera that the store does not have."""
        self._note(_CAMERAS, name)

    def unknown_plate(self, name: str) -> None:
        """Note weights of a plate that the store does not have."""
        self._note(_PLATES, name)

    def _note(self, kind: str, name: str) -> None:
        names = self._unknown[kind]
        if name not in names and len(names) < UNKNOWN_MAX:
            names[name] = False

    def step(self, frames: Mapping[str, Frame], readings: Sequence[ShelfReading], now_ns: int) -> list[Warning]:
        """Take what reported up to an instant; returns what differs from the store, once for each sensor or name."""
        if self._unheard[_CAMERAS]:
            self._unheard[_CAMERAS] -= frames.keys()
        if self._unheard[_PLATES] and readings:
            self._unheard[_PLATES].difference_update(reading.plate for reading in readings)
        warnings: list[Warning] = []
        warnings += self._heard(_CAMERAS, bool(frames), now_ns)
        warnings += self._heard(_PLATES, bool(readings), now_ns)
        if self._looked_at:
            shown = (name for name in self._looked_at if name in frames and len(frames[name].keypoints))
            for name in list(islice(shown, LOOKS_PER_SET)):
                # To the end of the turn; a camera whose verdict is complete is left out.
                self._looked_at[name] = self._looked_at.pop(name)
                warnings += self._look(name, frames[name])
        if frames:
            warnings += self._other_sizes(self._sizes.step(frames, now_ns), now_ns)
        if self._next_ns is None:
            self._next_ns = now_ns + CALL_EVERY_NS
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + CALL_EVERY_NS
            warnings += self._call(now_ns)
        return warnings

    def _heard(self, kind: str, is_heard: bool, now_ns: int) -> Iterable[Warning]:
        """Note whether any sensor of a kind was heard; a warning where the whole kind falls silent, or is back."""
        newest = self._newest[kind]
        if is_heard:
            newest.t_ns, newest.n_without = now_ns, 0
            if newest.silent:
                newest.silent = False
                return (Warning(now_ns, WarningKind.SENSORS_BACK, kind),)
        elif newest.t_ns is not None and not newest.silent:
            newest.n_without += 1
            if now_ns - newest.t_ns > SILENT_NS and newest.n_without >= OTHERS_MIN:
                newest.silent = True
                return (Warning(now_ns, WarningKind.SENSORS_SILENT, kind, seconds=SILENT_NS * 1e-9),)
        return ()

    def finish(self, now_ns: int) -> list[Warning]:
        """What is left to report when the streams end."""
        return list(self._call(now_ns)) if self._next_ns is not None else []

    def _call(self, now_ns: int) -> Iterable[Warning]:
        for kind, names in self._unknown.items():
            new = [name for name, reported in names.items() if not reported]
            names.update(dict.fromkeys(new, True))
            yield from _named(now_ns, _UNKNOWN[kind], WarningKind.UNKNOWN_SENSORS, kind, new)
        if not self._called:
            self._called = True
            for kind, all_names in ((_CAMERAS, self._cameras), (_PLATES, self._plates)):
                missing = [name for name in all_names if name in self._unheard[kind]]
                yield from _named(now_ns, WarningKind.NEVER_HEARD, WarningKind.SENSORS_NEVER_HEARD, kind, missing)
        if self._cameras and now_ns >= self._turn_ns:
            self._turn_ns = now_ns + TURN_EVERY_NS
            self._turn = (self._turn + 1) % len(self._cameras)
            self._looked_at[self._cameras[self._turn]] = None

    # ---- detections --------------------------------------------------------------------------------------------------

    def _look(self, camera: str, frame: Frame) -> Iterable[Warning]:
        """Look at a camera's frame; at the end of a verdict, what is wrong with its detections if that is new."""
        detections = self._detections[camera]
        detections.add(frame)
        if detections.n_frames < FRAMES_PER_VERDICT:
            return
        del self._looked_at[camera]
        fault, before = detections.verdict(), self._faults.pop(camera, None)
        if fault is not None:
            self._faults[camera] = fault
            if fault != before:
                yield Warning(frame.t_ns, fault, camera)

    def _other_sizes(self, views: Sequence[int], now_ns: int) -> Iterable[Warning]:
        """A warning for each camera whose keypoints fit pictures of another size, or one for all of the same size."""
        by_size: dict[Size, list[str]] = {}
        for view in views:
            by_size.setdefault(self._sizes.found[view], []).append(self._cameras[view])
        kind = WarningKind.KEYPOINTS_OTHER_SIZE
        for size, names in by_size.items():
            if len(names) <= NAMED_MAX:
                yield from (Warning(now_ns, kind, name, detail=str(size)) for name in names)
            else:
                yield Warning(now_ns, kind, _CAMERAS, count=len(names), detail=str(size))


def _named(t_ns: int, one: WarningKind, several: WarningKind, kind: str, names: Sequence[str]) -> Iterable[Warning]:
    """A warning for each name, or one for all of them."""
    if len(names) <= NAMED_MAX:
        yield from (Warning(t_ns, one, name) for name in names)
    else:
        yield Warning(t_ns, several, kind, count=len(names), detail=", ".join(names[:NAMED_MAX]))
