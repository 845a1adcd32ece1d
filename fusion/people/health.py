"""Health of cameras: clocks that are off, cameras that were moved, cameras that miss people, cameras that are silent.

Some ten times a second, a few people are looked at once more: what does each camera say about them against what the
others say? An error along a person's way tells of the clock, any other lasting error of the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusion._kernels import health as kernels
from fusion.results import Warning, WarningKind

if TYPE_CHECKING:
    from fusion.people.geometry import Rig

# Cameras for which one person is compared in each set, in turn: pictures that follow one another err alike, so little
# is lost by looking at each person once or twice a second, and the time that it takes stays small.
VIEWS_PER_PERSON = 32
# Deviation of a whole body in one view beyond what its joints' own deviations say, metres: clothes, sides of the body.
VIEW_SD_M = 0.02
# Deviation of a predicted body before the set's own views correct it, metres.
PREDICTED_SD_M = 0.3
# Degrees of freedom of these errors: as heavy-tailed as the joints' own.
FREEDOM = 4.0
# The others place a body well where their answer is this certain in the view compared to them, metres.
OTHERS_SD_MAX_M = 0.05
# A free detection this near to somebody whom the view should show, and whose joints all lie off by the same within
# ALIKE_M, is that person in the picture of a camera that was turned: 0.7 m is 10 degrees at 4 m.
LOOSE_M, ALIKE_M = 0.7, 0.12
JOINTS_MIN = 6
# Clocks: within 100 ms of each other and of the truth, so spread by 60; they wander by 2 ms in a minute. What no data
# can tell, an offset common to all, is drawn slowly to where the mean, weighted by what is known of each, is none.
OFFSET_SD_S = 0.06
WANDER_S2_PER_S = 0.002**2 / 60.0
PULL_S = 60.0
# Slower bodies say nothing about clocks, m/s.
SPEED_MIN_M_S = 0.2
# Detectors err alike for about so long.
CORRELATION_S = 0.5
# It is enough to look so often; a set counts for at most so long.
WATCH_EVERY_S, SET_MAX_S = 0.07, 0.1
# Faults of a camera are judged over so many seconds in which it showed people.
MEMORY_S = 5.0
# An error beyond this loses weight: a stranger's detection.
HUGE_M = 0.15
# What faults are expected before any data, in rad, metres and seconds, against errors of 2 cm that last CORRELATION_S.
_PRIOR = VIEW_SD_M**2 * CORRELATION_S / np.array([0.03, 0.03, 0.03, 0.1, 0.1, 0.1, OFFSET_SD_S]) ** 2
# A camera was moved where faults of its calibration explain this much of its errors, metres at the body, and it is not
# because all cameras fit badly; after HOLD_S of that. It fits again below FITS_M.
MOVED_M, FITS_M, OVER_OTHERS, OVER_SECOND = 0.025, 0.015, 2.5, 1.5
HOLD_S, DATA_MIN_S, SURE_M, EXPLAINED_MIN = 1.0, 1.5, 0.04, 0.5
# Misfit at which a camera's say is halved.
DOUBT_M = 0.02
# Cameras judged in one set, in turn.
JUDGED_PER_SET = 4
# Miss rate: share of people in free sight whom a camera does not find, over so many looks; told where it is this high
# and this far above the other cameras' median.
LOOKS, LOOKS_MIN = 60.0, 30.0
MISSES_MAX, MISSES_OVER, MISSES_FINE = 0.45, 0.25, 0.25
# Heights at which a person must be in the picture and in free sight, and where a detector tells boxes only, which want
# feet and head; a body's radius and height.
LOOKED_AT_M, LOOKED_AT_BOX_M = np.array([0.6, 1.1, 1.5]), np.array([0.05, 1.0, 1.8])
BODY_RADIUS_M, STATURE_M = 0.35, 1.75
# Only the inner part of a picture counts: distortion is left out here, and people at the edge are cut off.
MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class CameraState:
    """What is known of a camera.

    Attributes:
        name: as in the store.
        offset_s: its clock minus the cameras' common time, seconds; offset_sd_s: standard deviation.
        misfit_m: lasting disagreement with what other cameras see, metres at the body; 0 where nothing was compared.
        miss_rate: share of people in its free sight whom it does not find, of late; NaN before enough were there.
        misses: misses many more of them than other cameras do.
        down: delivers nothing.
        moved: its picture does not fit its calibration, so that it is not used.
    """

    name: str
    offset_s: float
    offset_sd_s: float
    misfit_m: float
    miss_rate: float
    misses: bool
    down: bool
    moved: bool


class CameraHealth:
    """Watches the cameras of one rig through the sets of frames and people of a Tracker.

    Attributes:
        offsets_s: (n_views,) what to take from a camera's times; do not write.
        moved: (n_views,) bool, cameras not to be trusted; do not write.
        missing: (n_views,) bool, cameras that miss people in their free sight; do not write.
        down: (n_views,) bool, set by whoever watches the streams.
    """

    def __init__(self, rig: Rig, body_var: np.ndarray, n_joints: int, boxes: np.ndarray) -> None:
        kernels.warm_up()
        self._derive(rig, boxes)
        n = rig.n_views
        self._body_var, self._n_joints = body_var, n_joints
        self._looked_at_m = LOOKED_AT_M if n_joints > 2 else LOOKED_AT_BOX_M
        self._joints_min = float(min(JOINTS_MIN, n_joints))
        # A box is two points, each a hand's breadth off: it takes longer to be as sure.
        self._data_min_s = DATA_MIN_S if n_joints > 2 else 2.0 * DATA_MIN_S
        self.offsets_s = np.zeros(n)
        self._offset_var = np.full(n, OFFSET_SD_S**2)
        self.moved = np.zeros(n, np.bool_)
        self.down = np.zeros(n, np.bool_)
        self._trust = np.ones(n)
        self._information = np.zeros((n, kernels.N_FAULTS, kernels.N_FAULTS))
        self._rhs = np.zeros((n, kernels.N_FAULTS))
        self._total = np.zeros((n, 2))
        self._fault = np.zeros((n, kernels.N_FAULTS))
        self._misfit_m = np.zeros(n)
        self._since_ns = np.full(n, -1, np.int64)  # When a camera began to look as if its verdict had to change.
        self._in_doubt = False
        self._looked = np.zeros((n, 2))
        self.missing = np.zeros(n, np.bool_)
        n_people = 1 + n // VIEWS_PER_PERSON
        self._who = np.zeros(n_people, np.int64)
        self._evidence = np.zeros((n_people, n, kernels.N_EVIDENCE))
        self._turn = self._judged = 0
        self._t_ns: int | None = None
        self._warnings: list[Warning] = []

    def _derive(self, rig: Rig, boxes: np.ndarray) -> None:
        self._rig, self._boxes = rig, boxes
        self._lenses = rig.lenses * np.array([MARGIN, MARGIN, 1, 1, 1, 1, 1, 1, 1])

    def adopt(self, rig: Rig, boxes: np.ndarray) -> None:
        """Go on with the same cameras otherwise placed: who was found to be moved and has a new place is trusted again.

        Clocks stay as they were learnt; what was learnt about calibrations and free sight was about the old ones.
        """
        kernels.warm_up()
        before = self._rig
        self._derive(rig, boxes)
        pairs = ((before.camera_from_world, rig.camera_from_world), (before.lenses, rig.lenses))
        changed = np.any([(old != new).reshape(rig.n_views, -1).any(axis=1) for old, new in pairs], axis=0)
        if not changed.any():
            return
        for view in np.flatnonzero(changed & self.moved).tolist():
            self._warnings.append(Warning(self._t_ns or 0, WarningKind.CAMERA_RECALIBRATED, rig.names[view]))
        self.moved &= ~changed
        self._trust[~self.moved] = 1.0
        self._fault[:] = 0.0
        self._looked[changed] = 0.0
        self._compare_anew(np.ones(rig.n_views, np.bool_))

    def _compare_anew(self, views: np.ndarray) -> None:
        """Forget how some cameras, (n_views,) bool, agreed with the others: what they are compared to has changed."""
        self._since_ns[:] = -1
        self._information[views] = 0.0
        self._rhs[views] = 0.0
        self._total[views] = 0.0
        self._misfit_m[views] = 0.0

    def update(
        self, t_ns: int, haste: float, dt_s: np.ndarray, has_frame: np.ndarray, start: np.ndarray,
        detections: Sequence[np.ndarray], mean: np.ndarray, cov: np.ndarray, rows: np.ndarray, known: np.ndarray,
        track_of: np.ndarray, detection_of: np.ndarray,
    ) -> None:  # fmt: skip
        """Learn from one set of frames, after matching and before the people are updated by it.

        Args:
            t_ns: instant of the people's states; haste: true velocities over predicted ones.
            dt_s, has_frame (n_views,), start (n_views + 1,): of the set.
            detections: x, y, var, seen, (n_detections, n_padded) each.
            mean, cov, rows: people's predicted states as the kernels keep them.
            known: (capacity,) bool, rows of people who certainly are people.
            track_of, detection_of: who was matched to what.
        """
        step_s = WATCH_EVERY_S if self._t_ns is None else min((t_ns - self._t_ns) * 1e-9, SET_MAX_S)
        if step_s < WATCH_EVERY_S:
            return
        self._t_ns = t_ns
        if not len(rows) or not len(track_of):
            return
        x, y, var, seen = detections
        self._turn = (self._turn + 1) % len(rows)
        n = min(JUDGED_PER_SET, self._rig.n_views)
        verdicts = kernels.observe(
            self._rig.camera_from_world, dt_s, has_frame, start, x, y, var, seen, mean, cov, rows, known, track_of,
            detection_of, self._body_var, self._trust, self._turn, haste, VIEW_SD_M**2, FREEDOM, PREDICTED_SD_M**-2,
            self._joints_min, LOOSE_M, ALIKE_M, OTHERS_SD_MAX_M**2, step_s, SPEED_MIN_M_S, CORRELATION_S, MEMORY_S,
            HUGE_M, WANDER_S2_PER_S, OFFSET_SD_S**2, PULL_S, _PRIOR, self._judged, n, DOUBT_M, self._data_min_s,
            MOVED_M, FITS_M, self._lenses, self._rig.size_px, self._boxes, self._n_joints, self._looked_at_m,
            BODY_RADIUS_M, STATURE_M, LOOKS, MISSES_MAX, MISSES_FINE, self.missing, self._who, self._evidence,
            self._fault, self.offsets_s, self._offset_var, self._information, self._rhs, self._total, self._misfit_m,
            self._looked,
        )  # fmt: skip
        self._judged = (self._judged + n) % self._rig.n_views
        if verdicts & 1:
            self._judge(t_ns)
        elif self._in_doubt:
            self._since_ns[:] = -1
            self._in_doubt = False
        if verdicts & 2:
            self._count_misses(t_ns)

    def _judge(self, t_ns: int) -> None:
        """Change verdicts on cameras of which HOLD_S long something else was seen."""
        seconds = self._total[:, 0]
        # The smaller it is, the longer it has to last: one body seen from one side is centimetres off as well.
        enough = seconds * np.minimum(self._misfit_m, SURE_M) ** 2 > self._data_min_s * SURE_M**2
        ranked = np.sort(np.where((seconds > self._data_min_s) & ~self.moved, self._misfit_m, 0.0))
        usual, second = ranked[(len(ranked) - 1) // 2], ranked[max(len(ranked) - 2, 0)]
        # Two that fit equally badly may both be right against each other's error: wait until it shows.
        bad = enough & (self._misfit_m > max(MOVED_M, OVER_OTHERS * usual))
        bad &= (self._misfit_m == ranked[-1]) & (ranked[-1] > OVER_SECOND * second)
        # A moved camera errs in one way; what scatters as much is the edge of a lens, or a crowd.
        bad &= self._misfit_m**2 * seconds > EXPLAINED_MIN * self._total[:, 1]
        fine = (seconds > self._data_min_s) & (self._misfit_m < FITS_M)
        changes = np.where(self.moved, fine, bad)
        self._in_doubt = bool(changes.any())
        self._since_ns[~changes] = -1
        self._since_ns[changes & (self._since_ns < 0)] = t_ns
        due = changes & (t_ns - self._since_ns > HOLD_S * 1e9)
        if not due.any():
            return
        # One at a time, the worst first: a moved camera spoils what the others are compared to.
        worst = int(np.argmax(np.where(due, self._misfit_m, -1.0)))
        self._since_ns[:] = -1
        name = self._rig.names[worst]
        if self.moved[worst]:
            self.moved[worst] = False
            self._warnings.append(Warning(t_ns, WarningKind.CAMERA_FITS_AGAIN, name))
        elif 2 * (self.moved.sum() + 1) < self._rig.n_views:
            self.moved[worst] = True
            off_m = float(self._misfit_m[worst])
            self._warnings.append(Warning(t_ns, WarningKind.CAMERA_MOVED, name, off_m=off_m))
        else:
            return
        others = np.arange(self._rig.n_views) != worst
        self._trust[others & ~self.moved] = 1.0
        self._trust[worst] = 0.0 if self.moved[worst] else 1.0
        self._compare_anew(others)

    def _count_misses(self, t_ns: int) -> None:
        looks, misses = self._looked.T
        rate = misses / np.maximum(looks, 1.0)
        enough = (looks > LOOKS_MIN) & ~self.moved
        if not enough.any():
            return
        usual = float(np.sort(rate[enough])[(enough.sum() - 1) // 2])
        missing = enough & (rate > max(MISSES_MAX, usual + MISSES_OVER))
        missing |= self.missing & ~(enough & (rate < MISSES_FINE))
        for view in np.flatnonzero(missing != self.missing).tolist():
            kind = WarningKind.CAMERA_MISSES_PEOPLE if missing[view] else WarningKind.CAMERA_FINDS_PEOPLE
            share, name = float(rate[view]), self._rig.names[view]
            self._warnings.append(Warning(t_ns, kind, name, share=share, usual_share=usual))
        self.missing = missing

    def warnings(self) -> list[Warning]:
        """What turned out since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def report(self) -> tuple[CameraState, ...]:
        """The state of every camera, in the order of the rig."""
        looks, misses = self._looked.T
        rate = np.where(looks > LOOKS_MIN, misses / np.maximum(looks, 1.0), np.nan)
        return tuple(
            CameraState(
                name, float(self.offsets_s[view]), float(np.sqrt(self._offset_var[view])),
                float(self._misfit_m[view]), float(rate[view]), bool(self.missing[view]),
                bool(self.down[view]), bool(self.moved[view]),
            )
            for view, name in enumerate(self._rig.names)
        )  # fmt: skip
