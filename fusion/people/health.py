"""Health of cameras: clocks that are off, cameras that were moved, cameras that miss people, cameras that are silent.

About ten times a second a few people are compared: each view with the other views of the same person. A lasting error
along a person's path comes from the clock, any other lasting error from the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import health as kernels
from fusion._kernels.records import Detections, Matches
from fusion.people.looks import outlook
from fusion.people.site import Site
from fusion.people.tracks import Tracks
from fusion.people.workspace import DEGREES_OF_FREEDOM
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind

# Cameras for which one person is compared in each set, in turn: errors in consecutive pictures are correlated, so
# little is lost by comparing each person once or twice a second, and the time that it takes stays small.
VIEWS_PER_PERSON = 32
# Standard deviation of a whole body in one view beyond what its joints' own deviations explain, metres: clothes, sides
# of the body.
VIEW_SD_M = 0.02
# Standard deviation of a predicted body before the set's own views correct it, metres.
PREDICTED_SD_M = 0.3
# The other views place a body well where their answer is this certain in the view compared to them, metres.
OTHERS_SD_MAX_M = 0.05
# An unassigned detection this near to a person that the view should show, with all joints off by the same vector within
# ALIKE_M, is that person seen by a camera that was turned: 0.7 m is 10 degrees at 4 m.
LOOSE_M, ALIKE_M = 0.7, 0.12
JOINTS_MIN = 6
# Clocks: within 100 ms of each other and of the truth, so with a standard deviation of 60; they wander by 2 ms in a
# minute. An offset common to all clocks is not observable; the mean, weighted by precision, is drawn to zero with this
# time constant.
OFFSET_SD_S = 0.06
WANDER_S2_PER_S = 0.002**2 / 60.0
PULL_S = 60.0
# Bodies slower than this do not reveal clock offsets, m/s.
SPEED_MIN_M_S = 0.2
# A detector's errors are correlated for about this long.
CORRELATION_S = 0.5
# Comparing this often is enough; one comparison counts for SET_MAX_S at most.
WATCH_EVERY_S, SET_MAX_S = 0.07, 0.1
# Faults of a camera are judged over this many seconds in which it showed people.
MEMORY_S = 5.0
# An error beyond this loses weight (Huber): it is another person's detection.
OUTLIER_M = 0.15
# Standard deviations of a camera's faults before any data, in rad, metres and seconds, against errors of 2 cm that last
# CORRELATION_S.
_FAULT_SD = np.array([0.03, 0.03, 0.03, 0.1, 0.1, 0.1, OFFSET_SD_S])
_FAULT_PRIOR = VIEW_SD_M**2 * CORRELATION_S / _FAULT_SD**2
# What is usual in a rig is the root mean square difference of its median camera, from the detector's noise, lenses and
# calibrations together: 2 cm in a simulated shop, 5 cm with the joints of real detectors, 9 cm where the calibration is
# rough as well. Until a camera has data it counts as one with USUAL_M for USUAL_S seconds.
USUAL_M, USUAL_S = 0.05, 0.25
# A camera was moved where faults of its calibration explain a residual above MOVED_M, metres at the body, and above
# MOVED_OVER_USUAL times what is usual, OVER_OTHERS times the cameras' median and OVER_SECOND times the second worst,
# after HOLD_S of that. Healthy cameras stay below 1.9 times what is usual. It fits again below FITS_M, or
# FITS_OVER_USUAL times what is usual.
MOVED_M, FITS_M, OVER_OTHERS, OVER_SECOND = 0.025, 0.015, 2.5, 1.5
MOVED_OVER_USUAL, FITS_OVER_USUAL = 2.2, 0.7
# A verdict needs DATA_MIN_S of data, longer for residuals below SURE_M. Faults must explain EXPLAINED_MIN of the
# squares, so that they leave about as much as is usual; a camera that was turned far takes other people's detections
# for its own, so EXPLAINED_FAR is enough for a residual of FAR_OVER_USUAL times what is usual.
HOLD_S, DATA_MIN_S, SURE_M = 1.0, 1.5, 0.04
EXPLAINED_MIN, EXPLAINED_FAR, FAR_OVER_USUAL = 0.7, 0.5, 4.0
# Residual at which a camera's weight in the comparison is halved: DOUBT_M, or DOUBT_OVER_USUAL times what is usual. Its
# square beyond that is variance of the camera's measurements of people, so that a camera that was moved a little counts
# less long before it counts nothing.
DOUBT_M, DOUBT_OVER_USUAL = 0.02, 0.7
# Cameras that are set aside at once and are too many, where they are this share of all as well.
MANY_MOVED, MANY_MOVED_SHARE = 2, 0.25
# Cameras judged in one set, in turn.
JUDGED_PER_SET = 4
# Miss rate: share of people in unobstructed view that a camera does not find, over the last LOOKS looks; reported where
# it is above MISSES_MAX and this far above the cameras' median, until it is below MISSES_FINE.
LOOKS, LOOKS_MIN = 60.0, 30.0
MISSES_MAX, MISSES_OVER, MISSES_FINE = 0.45, 0.25, 0.25
# What is learnt of miss rates in different circumstances fades over this many independent looks, of which the same
# person gives one in MISSES_LASTING_S: detectors miss people for stretches.
MISSES_MEMORY, MISSES_LASTING_S = 300.0, 2.0
# A camera that delivered nothing for this long while others did is down.
OUTAGE_S = 5.0


@dataclass(frozen=True, slots=True)
class CameraState:
    """What is known of a camera.

    Attributes:
        name: as in the store.
        offset_s: its clock minus the cameras' common time, seconds; offset_sd_s: standard deviation.
        residual_m: lasting disagreement with other cameras, metres at the body; 0 where nothing was compared.
        miss_rate: share of the people in its unobstructed view that it recently missed; NaN until enough people were
            there.
        misses: misses many more of them than other cameras do.
        down: delivers nothing.
        moved: its picture does not fit its calibration, so that it is not used.
        corrected: it is used with a pose other than that of its calibration, see `fusion.people.repositioning`.
    """

    name: str
    offset_s: float
    offset_sd_s: float
    residual_m: float
    miss_rate: float
    misses: bool
    down: bool
    moved: bool
    corrected: bool = False


class CameraHealth:
    """Watches the cameras of one site through the sets of frames and tracks of a Tracker.

    Attributes:
        moved: (n_views,) bool, cameras not to be trusted; do not write.
        doubt_var: (n_views,) variance of each camera's measurements from its residual, m^2; do not write.
        down: (n_views,) bool, cameras that deliver nothing; do not write.
        corrected: (n_views,) bool, cameras that are used with a pose other than that of their calibration; written by
            `Repositioning`.
        last_frame_ns: (n_views,) instant of each camera's newest frame, -1 before the first set; do not write.
    """

    def __init__(self, site: Site, body_var: NDArray[np.float64], doubt_var: NDArray[np.float64]) -> None:
        kernels.warm_up()
        n, n_joints = site.rig.n_views, site.layout.n_joints
        self._rig = site.rig
        self._geometry = site.geometry()
        self._outlook = tuple(outlook(site.layout))
        self._model = _model(body_var, n_joints)
        self._cameras = np.zeros(n, kernels.CAMERA)
        self._cameras["offset_var"] = OFFSET_SD_S**2
        self._cameras["trust"], self._cameras["usual_m"] = 1.0, USUAL_M
        self.moved = np.zeros(n, np.bool_)
        self.doubt_var = doubt_var
        self.down = np.zeros(n, np.bool_)
        self.corrected = np.zeros(n, np.bool_)
        self.last_frame_ns = np.full(n, -1, np.int64)
        self._since_ns = np.full(n, -1, np.int64)  # since when a camera looks as if its verdict had to change
        self._in_doubt = False  # Whether a camera contradicts its verdict.
        n_people = 1 + n // VIEWS_PER_PERSON
        self._people, self._evidence = np.zeros(n_people, np.int64), np.zeros((n_people, n), kernels.EVIDENCE)
        self._next_track = self._next_camera = 0
        self._t_ns: int | None = None
        self._warnings: list[StoreWarning] = []

    @property
    def offsets_s(self) -> NDArray[np.float64]:
        """(n_views,) what to subtract from each camera's times; a view, do not write."""
        offsets: NDArray[np.float64] = self._cameras["offset_s"]
        return offsets

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(n_views,) cameras that miss people in their unobstructed view; a view, do not write."""
        missing: NDArray[np.bool_] = self._cameras["missing"]
        return missing

    @property
    def many_moved(self) -> bool:
        """Whether so many cameras at once are set aside that what the others see of a gate may be wrong or too little.

        One camera is missed by few; two of six that look at the same gate left scans to the wrong people.
        """
        n = int(self.moved.sum())
        return n >= MANY_MOVED and n >= MANY_MOVED_SHARE * len(self.moved)

    @property
    def usual_m(self) -> float:
        """Root mean square disagreement of the median camera, metres at the body."""
        return float(self._cameras["usual_m"].max(initial=0.0))

    def set_aside(self, view: int, late_s: float) -> None:
        """Use a camera no longer until it fits: its pose is on probation.

        Its clock is late_s later than was learnt while its pose was wrong.
        """
        was_used = not self.moved[view]
        self.moved[view] = True
        self._cameras["trust"][view] = 0.0
        self._cameras["missing"][view] = False
        self._cameras["offset_s"][view] -= late_s
        others = np.arange(self._rig.n_views) != view
        self._restart(others if was_used else ~others)

    def reposition(self, site: Site) -> None:
        """Continue with cameras in other places that are set aside: they are compared again, and stay so until then."""
        before = self._rig
        self._rig, self._geometry = site.rig, site.geometry()
        changed = (before.camera_from_world != site.rig.camera_from_world).any(axis=(1, 2))
        self._cameras["fault"][changed] = 0.0
        for field in ("looks", "misses", "looks_in", "misses_in"):
            self._cameras[field][changed] = 0.0
        self._restart(changed)

    def adopt(self, site: Site, held: NDArray[np.bool_]) -> None:
        """Continue with the same cameras in other places: a moved camera that has a new calibration is trusted again.

        Learnt clock offsets are kept; what was learnt about calibrations and unobstructed views applied to the old
        places. Cameras that are `held`, (n_views,) bool, have an earlier pose again that did not fit: they are set
        aside until it does.
        """
        kernels.warm_up()
        before, rig = self._rig, site.rig
        self._rig, self._geometry = rig, site.geometry()
        pairs = ((before.camera_from_world, rig.camera_from_world), (before.lenses, rig.lenses))
        changed = np.any([(old != new).reshape(rig.n_views, -1).any(axis=1) for old, new in pairs], axis=0)
        if not changed.any():
            return
        for view in np.flatnonzero(changed & self.moved & ~held).tolist():
            self.warn(self._t_ns or 0, WarningKind.CAMERA_RECALIBRATED, view)
        self.moved &= ~changed
        self.moved |= held
        self._cameras["trust"] = np.where(self.moved, 0.0, 1.0)
        self._cameras["fault"] = 0.0
        for field in ("looks", "misses", "looks_in", "misses_in"):
            self._cameras[field][changed] = 0.0
        self._restart(np.ones(rig.n_views, np.bool_))

    def _restart(self, views: NDArray[np.bool_]) -> None:
        """Forget how some cameras, (n_views,) bool, agreed with the others: the reference has changed."""
        self._since_ns[:] = -1
        for field in ("information", "rhs", "weight_s", "squares_m2_s", "residual_m"):
            self._cameras[field][views] = 0.0

    def warn(self, t_ns: int, kind: WarningKind, view: int, **fields: Any) -> None:
        """Report something about a camera."""
        self._warnings.append(StoreWarning(t_ns, kind, self._rig.names[view], **fields))

    # ---- silence -----------------------------------------------------------------------------------------------------

    def watch_streams(self, t_ns: int, has_frame: NDArray[np.bool_]) -> None:
        """Notice cameras that deliver no frames; has_frame (n_views,) of the set at t_ns."""
        last = self.last_frame_ns
        if last[0] < 0:
            last[:] = t_ns
        last[has_frame] = t_ns
        if t_ns - int(last.min()) <= OUTAGE_S * 1e9 and not self.down.any():
            return
        down = t_ns - last > OUTAGE_S * 1e9
        if (down == self.down).all():
            return
        for view in np.flatnonzero(down & ~self.down).tolist():
            self.warn(t_ns, WarningKind.CAMERA_OUTAGE, view, seconds=OUTAGE_S)
        for view in np.flatnonzero(~down & self.down).tolist():
            self.warn(t_ns, WarningKind.CAMERA_BACK, view)
        self.down = down

    # ---- clocks, calibrations, misses --------------------------------------------------------------------------------

    def update(
        self, t_ns: int, velocity_scale: float, detections: Detections, tracks: Tracks, matches: Matches
    ) -> None:
        """Learn from one set of frames, after the assignment and before the tracks are updated by it.

        Args:
            t_ns: instant of the tracks' predicted states.
            velocity_scale: true velocities over predicted ones, which decay.
            detections: of the set.
            tracks: the live ones.
            matches: the assignment.
        """
        step_s = WATCH_EVERY_S if self._t_ns is None else min((t_ns - self._t_ns) * 1e-9, SET_MAX_S)
        if step_s < WATCH_EVERY_S:
            return
        self._t_ns = t_ns
        if not len(tracks.live) or not len(matches.track_of):
            return
        self._next_track = (self._next_track + 1) % len(tracks.live)
        verdicts = kernels.observe(
            (tuple(self._geometry), self._outlook), tuple(detections), tuple(tracks.states()), tuple(matches),
            self._model, self._next_track, self._next_camera, velocity_scale, step_s, self._cameras, self._people,
            self._evidence,
        )  # fmt: skip
        n_views = self._rig.n_views
        self._next_camera = (self._next_camera + min(JUDGED_PER_SET, n_views)) % n_views
        if verdicts & kernels.DOUBT or self.doubt_var.any():
            doubt_m = np.maximum(DOUBT_M, DOUBT_OVER_USUAL * self._cameras["usual_m"])
            self.doubt_var[:] = np.maximum(self._cameras["residual_m"] ** 2 - doubt_m**2, 0.0)
        if verdicts & kernels.JUDGE_CALIBRATION:
            self._judge_calibration(t_ns)
        elif self._in_doubt:
            self._since_ns[:] = -1
            self._in_doubt = False
        if verdicts & kernels.JUDGE_MISSES:
            self._judge_misses(t_ns)

    def _judge_calibration(self, t_ns: int) -> None:
        """Change the verdict on a camera that contradicts it for HOLD_S, one at a time."""
        changes = self._contradicting()
        self._in_doubt = bool(changes.any())
        self._since_ns[~changes] = -1
        self._since_ns[changes & (self._since_ns < 0)] = t_ns
        due = changes & (t_ns - self._since_ns > HOLD_S * 1e9)
        if not due.any():
            return
        # The worst first: a moved camera spoils what the others are compared to.
        residual_m = self._cameras["residual_m"]
        worst = int(np.argmax(np.where(due, residual_m, -1.0)))
        self._since_ns[:] = -1
        if self.moved[worst]:
            self.moved[worst] = False
            self.warn(t_ns, WarningKind.CAMERA_FITS_AGAIN, worst)
        elif 2 * (self.moved.sum() + 1) < self._rig.n_views:
            self.moved[worst] = True
            self.warn(t_ns, WarningKind.CAMERA_MOVED, worst, off_m=float(residual_m[worst]))
        else:
            return
        others = np.arange(self._rig.n_views) != worst
        self._cameras["trust"][others & ~self.moved] = 1.0
        self._cameras["trust"][worst] = 0.0 if self.moved[worst] else 1.0
        self._restart(others)

    def _contradicting(self) -> NDArray[np.bool_]:
        """(n_views,) cameras whose residual contradicts their verdict."""
        seconds, residual_m = self._cameras["weight_s"], self._cameras["residual_m"]
        data_min_s = float(self._model["data_min_s"][0])
        usual_m = float(self._cameras["usual_m"].max(initial=0.0))
        sure_m = max(SURE_M, MOVED_OVER_USUAL * usual_m)
        # The smaller a residual is, the longer it has to last: one body seen from one side is centimetres off as well.
        enough = seconds * np.minimum(residual_m, sure_m) ** 2 > data_min_s * sure_m**2
        ranked = np.sort(np.where((seconds > data_min_s) & ~self.moved, residual_m, 0.0))
        median, second = ranked[(len(ranked) - 1) // 2], ranked[max(len(ranked) - 2, 0)]
        # Two cameras that fit equally badly may both be right against each other's error: wait until it shows.
        bad = enough & (residual_m > max(MOVED_M, OVER_OTHERS * median, MOVED_OVER_USUAL * usual_m))
        bad &= (residual_m == ranked[-1]) & (ranked[-1] > OVER_SECOND * second)
        # A moved camera errs in one way; as large a scatter comes from the edge of a lens, or from a crowd.
        explained_min = np.where(residual_m > FAR_OVER_USUAL * usual_m, EXPLAINED_FAR, EXPLAINED_MIN)
        bad &= residual_m**2 * seconds > explained_min * self._cameras["squares_m2_s"]
        fine = (seconds > data_min_s) & (residual_m < max(FITS_M, FITS_OVER_USUAL * usual_m))
        return np.where(self.moved, fine, bad)

    @property
    def looks(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Independent looks at people (n_views, N_CIRCUMSTANCES), and those that missed; views, do not write."""
        return self._cameras["looks_in"], self._cameras["misses_in"]

    def _recent_miss_rates(self) -> NDArray[np.float64]:
        return np.asarray(self._cameras["misses"] / np.maximum(self._cameras["looks"], 1.0))

    def _judge_misses(self, t_ns: int) -> None:
        """Report cameras that begin or cease to miss people."""
        rate = self._recent_miss_rates()
        enough = (self._cameras["looks"] > LOOKS_MIN) & ~self.moved
        if not enough.any():
            return
        median = float(np.sort(rate[enough])[(enough.sum() - 1) // 2])
        missing = enough & (rate > max(MISSES_MAX, median + MISSES_OVER))
        missing |= self.missing & ~(enough & (rate < MISSES_FINE))
        for view in np.flatnonzero(missing != self.missing).tolist():
            kind = WarningKind.CAMERA_MISSES_PEOPLE if missing[view] else WarningKind.CAMERA_FINDS_PEOPLE
            self.warn(t_ns, kind, view, share=float(rate[view]), usual_share=median)
        self._cameras["missing"] = missing

    # ---- reports -----------------------------------------------------------------------------------------------------

    def warnings(self) -> list[StoreWarning]:
        """Faults that turned out since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def report(self) -> tuple[CameraState, ...]:
        """The state of every camera, in the order of the rig."""
        rates = np.where(self._cameras["looks"] > LOOKS_MIN, self._recent_miss_rates(), np.nan)
        return tuple(
            CameraState(
                name, float(camera["offset_s"]), float(np.sqrt(camera["offset_var"])), float(camera["residual_m"]),
                float(rate), bool(camera["missing"]), bool(down), bool(moved), bool(corrected),
            )
            for name, camera, rate, down, moved, corrected in zip(
                self._rig.names, self._cameras, rates, self.down, self.moved, self.corrected
            )
        )  # fmt: skip


def _model(body_var: NDArray[np.float64], n_joints: int) -> NDArray[np.void]:
    """Settings of the kernels for a layout: an array of one record."""
    is_box = n_joints <= 2
    model = np.zeros(1, kernels.MODEL)
    model["body_var"][0, : len(body_var)] = body_var
    model["fault_prior"] = _FAULT_PRIOR
    settings = {
        "judged_per_set": JUDGED_PER_SET, "view_var": VIEW_SD_M**2, "predicted_precision": PREDICTED_SD_M**-2,
        "degrees_of_freedom": DEGREES_OF_FREEDOM, "joints_min": min(JOINTS_MIN, n_joints), "loose_m": LOOSE_M,
        "alike_m": ALIKE_M, "others_var_max": OTHERS_SD_MAX_M**2, "speed_min_m_s": SPEED_MIN_M_S,
        "correlation_s": CORRELATION_S, "memory_s": MEMORY_S, "outlier_m": OUTLIER_M,
        "wander_s2_per_s": WANDER_S2_PER_S, "offset_var_max": OFFSET_SD_S**2, "pull_s": PULL_S,
        "usual_prior_m": USUAL_M, "usual_prior_s": USUAL_S, "doubt_m": DOUBT_M, "doubt_over_usual": DOUBT_OVER_USUAL,
        # A box is two points, each a hand's breadth off: it takes longer to be as certain.
        "data_min_s": 2.0 * DATA_MIN_S if is_box else DATA_MIN_S,
        "moved_m": MOVED_M, "moved_over_usual": MOVED_OVER_USUAL, "fits_m": FITS_M,
        "fits_over_usual": FITS_OVER_USUAL, "looks_memory": LOOKS, "misses_memory": MISSES_MEMORY,
        "misses_lasting_s": MISSES_LASTING_S, "misses_max": MISSES_MAX, "misses_fine": MISSES_FINE,
    }  # fmt: skip
    for name, value in settings.items():
        model[name] = value
    return model
