"""Cameras that were nudged: their new poses are found while the store runs, proved, used, and written down.

A camera that was found to be moved, or that misses people, is not used (`health`). Twice a second its detections are
kept beside the people that two other cameras place at that instant. Once there are enough, `pose_search` looks for the
pose that explains them. That pose is on probation first: the camera is compared by it and still not used, until camera
health finds that it fits the people who came after. Otherwise the pose is withdrawn. Everything follows from the data
alone, so that a replay corrects the same camera at the same instant.

At least two cameras always stay where a person placed them: corrections that refer to each other alone would let all
cameras wander together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import poses
from fusion._kernels.records import Detections, Matches
from fusion.people.geometry import Rig
from fusion.people.health import CameraHealth
from fusion.people.pose_search import Lens, Pairs, Pose, Refusal, Verdict, find_pose
from fusion.people.site import Site
from fusion.people.tracks import Tracks
from fusion.results import CameraCorrection, CorrectionStatus, WarningKind
from fusion.store.rotations import rotation_vector

# A camera's people are kept this often; people who stand still teach nothing new, and are kept less often.
SAMPLE_EVERY_NS, STILL_EVERY_NS, STILL_M = 500_000_000, 4_000_000_000, 0.25
# Instants that are kept of a camera; people and detections of each. Instants with more are passed over: which is which
# is clearer at quieter ones.
INSTANTS, PEOPLE_MAX = 240, 8
# Joints of people that are known worse than this are left out, metres.
JOINT_SD_MAX_M = 0.1
# Cameras whose people are kept at once; the others wait.
EXAMINED_MAX = 4
# A search takes longer than a set of frames, so it waits until this many more instants were kept, and twice as many
# each time that it found nothing, up to the second number.
SEARCH_EVERY, SEARCH_EVERY_MAX = 40, 640
# Cameras that must find a person, besides the one that is examined.
OTHERS_MIN = 2
# People further than this from a camera's axis, beyond its picture, cannot be in it after any nudge, radians.
BESIDE_MAX = math.radians(35.0)
# A pose on probation is withdrawn after this many kept instants in which it was not confirmed.
PROBATION_INSTANTS = 120
# The last corrections that are remembered.
REMEMBERED = 64
# A pose this near to the one of the calibration is that one: the camera was put back.
BACK_TURN, BACK_SHIFT_M = math.radians(0.15), 0.02
# What these say of a camera is proof that its detections are not where its pose has them.
_ELSEWHERE = (Refusal.FAR, Refusal.ZOOMED, Refusal.MIRRORED, Refusal.OTHER_CAMERA)


@dataclass
class _Examination:
    """The evidence about one camera: a ring of instants.

    Attributes:
        noticed_ns: when it was found that the camera does not fit.
        t_ns: (INSTANTS,), 0 where nothing is kept; joints_m (INSTANTS, PEOPLE_MAX, K, 3), NaN where unknown;
            velocities_m_s (INSTANTS, PEOPLE_MAX, 3); rays (INSTANTS, PEOPLE_MAX, K, 2), NaN where unseen.
        n_kept: instants kept so far; n_due: how many of them the next search waits for; n_more: after it.
        on_probation: at how many kept instants the present pose came on probation; None where none is.
        places_m: of the people at the instant kept last.
        verdict: on the pose on probation.
        refusal: what was reported last.
    """

    noticed_ns: int
    t_ns: NDArray[np.int64]
    joints_m: NDArray[np.float32]
    velocities_m_s: NDArray[np.float32]
    rays: NDArray[np.float32]
    n_kept: int = 0
    n_due: int = SEARCH_EVERY
    n_more: int = SEARCH_EVERY
    on_probation: int | None = None
    places_m: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    verdict: Verdict | None = None
    refusal: Refusal | None = None

    @classmethod
    def begun(cls, noticed_ns: int, n_joints: int) -> _Examination:
        """Without evidence."""
        shape = (INSTANTS, PEOPLE_MAX, n_joints)
        joints_m, rays = np.full((*shape, 3), np.nan, np.float32), np.full((*shape, 2), np.nan, np.float32)
        velocities_m_s = np.zeros((INSTANTS, PEOPLE_MAX, 3), np.float32)
        return cls(noticed_ns, np.zeros(INSTANTS, np.int64), joints_m, velocities_m_s, rays)

    def is_due(self, t_ns: int, places_m: NDArray[np.float64]) -> bool:
        """Whether people at places (n, 2) are worth keeping now."""
        since_ns = t_ns - int(self.t_ns[(self.n_kept - 1) % INSTANTS]) if self.n_kept else STILL_EVERY_NS
        if since_ns >= STILL_EVERY_NS:
            return True
        if since_ns < SAMPLE_EVERY_NS:
            return False
        apart_m = np.asarray(places_m[:, None] - self.places_m[None])
        near = np.hypot(apart_m[..., 0], apart_m[..., 1]) <= STILL_M
        return not bool(near.any(axis=1).all())

    def keep(
        self, t_ns: int, places_m: NDArray[np.float64], joints_m: NDArray[np.float64],
        velocities_m_s: NDArray[np.float64], rays: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Keep an instant: people (n, K, 3) with velocities (n, 3), and detections (m, K, 2)."""
        row = self.n_kept % INSTANTS
        self.t_ns[row] = t_ns
        self.joints_m[row], self.rays[row] = np.nan, np.nan
        self.joints_m[row, : len(joints_m)] = joints_m
        self.velocities_m_s[row, : len(joints_m)] = velocities_m_s
        self.rays[row, : len(rays)] = rays
        self.places_m = places_m
        self.n_kept += 1

    def forget(self) -> None:
        """Begin again: what was kept belongs to an earlier pose of the camera."""
        self.t_ns[:] = 0
        self.joints_m[:], self.rays[:] = np.nan, np.nan
        self.n_kept, self.n_due, self.on_probation = 0, self.n_more, None

    def pairs(self) -> Pairs:
        """Every person with every detection of the same instant, oldest first."""
        order = np.argsort(self.t_ns, kind="stable")
        order = order[self.t_ns[order] > 0]
        people = np.asarray(np.isfinite(self.joints_m[order, :, :, 0]).any(axis=2))
        shown = np.asarray(np.isfinite(self.rays[order, :, :, 0]).any(axis=2))
        instant, person, detection = np.nonzero(people[:, :, None] & shown[:, None, :])
        rows = order[instant]
        return Pairs(
            self.t_ns[rows], instant * PEOPLE_MAX + person, instant * PEOPLE_MAX + detection,
            self.joints_m[rows, person].astype(np.float64), self.velocities_m_s[rows, person].astype(np.float64),
            self.rays[rows, detection].astype(np.float64),
        )  # fmt: skip


class Repositioning:
    """Examines cameras that do not fit, and corrects their poses.

    Attributes:
        site: with the cameras where they are believed to be; replaced, never changed.
        corrections: the last ones of all kinds, oldest first.
    """

    def __init__(self, site: Site, health: CameraHealth) -> None:
        poses.warm_up()
        self.site = self._given = site
        self._health = health
        self._poses: dict[int, Pose] = {}  # Of views that are not where their calibration has them.
        self._examined: dict[int, _Examination] = {}
        self.corrections: tuple[CameraCorrection, ...] = ()
        self._next_ns = 0

    def adopt(self, site: Site, t_ns: int) -> NDArray[np.bool_]:
        """Continue with the same cameras, some of which a person may have placed elsewhere.

        A camera with a new calibration, or that is to stay where it is, is corrected no more. Returns (n_views,)
        cameras that have the pose of an unchanged calibration again, which did not fit.
        """
        poses.warm_up()
        before, self._given = self._given, site
        held = np.zeros(site.rig.n_views, np.bool_)
        for view in sorted({*self._poses, *self._examined}):
            same = _is_same(before.rig, site.rig, view)
            if same and site.corrects[view]:
                continue
            self._examined.pop(view, None)
            pose = self._poses.pop(view, None)
            if pose is not None:
                held[view] = same
                self._health.corrected[view] = False
                given = Pose.of(site.rig.camera_from_world[view])
                self._note(t_ns, view, CorrectionStatus.TAKEN_BACK, pose, given)
        self._place()
        return held

    # ---- a set of frames ---------------------------------------------------------------------------------------------

    def step(self, t_ns: int) -> bool:
        """Judge cameras at an instant, after camera health did. Returns whether a camera's pose has changed."""
        if not self._examined and not self._doubtful().any():
            return False
        self._conclude(t_ns)
        changed = False
        self._begin(t_ns)
        for view, examination in list(self._examined.items()):
            on_probation = examination.on_probation
            if on_probation is not None:
                if examination.n_kept - on_probation > PROBATION_INSTANTS:
                    self._withdraw(t_ns, view, examination)
                    changed = True
            elif examination.n_kept >= examination.n_due:
                changed |= self._search(t_ns, view, examination)
        return changed

    def observe(self, t_ns: int, detections: Detections, tracks: Tracks, matches: Matches) -> None:
        """Keep what examined cameras show, beside the people that others place at the same instant.

        Args:
            t_ns: instant of the tracks' states.
            detections: of a set of frames.
            tracks: the live ones, after their update by the set: what is predicted lags behind people who turn.
            matches: the assignment, without the detections of cameras that are not used.
        """
        if not self._examined or t_ns < self._next_ns:
            return
        self._next_ns = t_ns + SAMPLE_EVERY_NS
        for view, examination in self._examined.items():
            self._sample(view, examination, t_ns, detections, tracks, matches)

    def _doubtful(self) -> NDArray[np.bool_]:
        """(n_views,) cameras whose pose may be wrong."""
        return (self._health.moved | self._health.missing) & self.site.corrects

    def _conclude(self, t_ns: int) -> None:
        """End the examination of cameras that fit: by their new pose, or without one."""
        doubtful = self._doubtful()
        for view, examination in list(self._examined.items()):
            fits = not self._health.moved[view]
            if examination.on_probation is not None and fits:
                verdict = examination.verdict
                assert verdict is not None
                del self._examined[view]
                self._health.corrected[view] = view in self._poses
                detail = _in_words(verdict)
                self._health.warn(t_ns, WarningKind.CAMERA_CORRECTED, view, off_m=verdict.before_m, detail=detail)
                before = Pose.of(self._given.rig.camera_from_world[view])
                after = Pose.of(self.site.rig.camera_from_world[view])
                self._note(t_ns, view, CorrectionStatus.CORRECTED, before, after, verdict, examination)
            elif examination.on_probation is None and not doubtful[view]:
                del self._examined[view]

    def _begin(self, t_ns: int) -> None:
        """Examine cameras that do not fit, while there are others to compare them to."""
        for view in np.flatnonzero(self._doubtful()).tolist():
            if view not in self._examined and len(self._examined) < EXAMINED_MAX:
                n_joints = self.site.layout.n_joints
                self._examined[view] = _Examination.begun(t_ns, n_joints)

    def _sample(
        self, view: int, examination: _Examination, t_ns: int, detections: Detections, tracks: Tracks, matches: Matches
    ) -> None:
        """Keep what a camera shows, beside the people that others place now."""
        first, stop = int(detections.start[view]), int(detections.start[view + 1])
        if not 0 < stop - first <= PEOPLE_MAX:
            return
        states, n_joints = tracks.states(), self.site.layout.n_joints
        trusted = ~(self._health.moved | self._health.missing)
        trusted[view] = False
        n_others = ((matches.detection_of >= 0) & trusted).sum(axis=1)
        placed = states.rows[(n_others >= OTHERS_MIN) & states.confirmed[states.rows]]
        mean = states.mean[placed, :, :n_joints]
        joints_m = (mean[:, :3] + float(detections.dt_s[view]) * mean[:, 3:]).transpose(0, 2, 1)
        variance = states.cov[placed][:, [0, 2, 5], :n_joints].mean(axis=1)
        joints_m = np.where((variance < JOINT_SD_MAX_M**2)[..., None], joints_m, np.nan)
        within = self._may_show(view, joints_m)
        joints_m, velocities_m_s = joints_m[within], mean[within, 3:].mean(axis=2)
        if not 0 < len(joints_m) <= PEOPLE_MAX:
            return
        places_m = np.nanmean(joints_m[..., :2], axis=1)
        if not examination.is_due(t_ns, places_m):
            return
        shown = np.stack([detections.x[first:stop, :n_joints], detections.y[first:stop, :n_joints]], axis=2)
        rays = np.where(detections.seen[first:stop, :n_joints, None] > 0, shown, np.nan).astype(np.float64)
        examination.keep(t_ns, places_m, joints_m, velocities_m_s, rays)

    def _may_show(self, view: int, joints_m: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) people (n, K, 3) that are known, and that the camera could show after a nudge."""
        known = np.isfinite(joints_m[..., 0])
        middle_m = np.where(known[..., None], joints_m, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)[:, None]
        pose = Pose.of(self._given.rig.camera_from_world[view])
        lens = _lens(self._given.rig, view)
        widest = math.atan(float(np.linalg.norm(np.maximum(-lens.low, lens.high))))
        at = middle_m - pose.centre_m
        distance_m = np.maximum(np.linalg.norm(at, axis=1), 1e-9)
        angle = np.arccos(np.clip(at @ pose.rotation[2] / distance_m, -1.0, 1.0))
        return np.asarray(known.any(axis=1) & (angle < widest + BESIDE_MAX))

    # ---- verdicts ----------------------------------------------------------------------------------------------------

    def _search(self, t_ns: int, view: int, examination: _Examination) -> bool:
        """Look for a camera's pose. Returns whether it was found, and is on probation now."""
        # First of all, so that a search that fails is not repeated with the next set.
        examination.n_due = examination.n_kept + examination.n_more
        rig = self.site.rig
        others = {
            name: Pose.of(rig.camera_from_world[other])
            for other, name in enumerate(rig.names)
            if other != view and not self._health.moved[other]
        }
        given, present = Pose.of(self._given.rig.camera_from_world[view]), Pose.of(rig.camera_from_world[view])
        verdict = find_pose(
            examination.pairs(), given, present, others, _lens(rig, view), self._health.usual_m
        )  # fmt: skip
        refusal = verdict.refusal
        if refusal is not Refusal.FEW:
            examination.n_more = min(2 * examination.n_more, SEARCH_EVERY_MAX)
        if refusal is None and not self._leaves_others(view):
            refusal = Refusal.FEW_OTHERS
        if refusal is not None or verdict.pose is None:
            self._refuse(t_ns, view, examination, refusal or Refusal.NO_POSE, verdict)
            return False
        pose = verdict.pose
        is_back = verdict.turn < BACK_TURN and verdict.shift_m < BACK_SHIFT_M
        if is_back:
            self._poses.pop(view, None)
        else:
            self._poses[view] = pose
        examination.verdict, examination.on_probation = verdict, examination.n_kept
        self._health.corrected[view] = False
        self._place()
        self._health.set_aside(view, pose.late_s)
        return True

    def _leaves_others(self, view: int) -> bool:
        """Whether two cameras are left that are where a person placed them and fit."""
        left = ~(self._health.moved | self._health.missing)
        left[[*self._poses, view]] = False
        return bool(left.sum() >= OTHERS_MIN)

    def _refuse(
        self, t_ns: int, view: int, examination: _Examination, refusal: Refusal, verdict: Verdict
    ) -> None:
        """Report why a camera is not corrected, once for each reason."""
        if refusal in (Refusal.FEW, Refusal.FITS, examination.refusal):
            return
        if refusal in _ELSEWHERE and not self._health.moved[view] and self._leaves_others(view):
            self._health.set_aside(view, 0.0)
        examination.refusal = refusal
        detail = f"{refusal}: {verdict.other}" if verdict.other else str(refusal)
        self._health.warn(t_ns, WarningKind.CAMERA_NOT_CORRECTED, view, detail=detail)
        given = Pose.of(self._given.rig.camera_from_world[view])
        self._note(
            t_ns, view, CorrectionStatus.REFUSED, given, verdict.pose, verdict, examination, reason=detail
        )  # fmt: skip

    def _withdraw(self, t_ns: int, view: int, examination: _Examination) -> None:
        """A pose on probation did not hold: back to that of the calibration, and begin again."""
        pose = self._poses.pop(view, None)
        self._place()
        examination.forget()
        verdict = examination.verdict or Verdict(Refusal.UNCONFIRMED)
        self._refuse(t_ns, view, examination, Refusal.UNCONFIRMED, replace(verdict, pose=pose))

    # ---- poses -------------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Put the cameras where they are believed to be."""
        given = self._given
        if not self._poses:
            self.site = given
            return
        extrinsics = given.rig.camera_from_world.copy()
        for view, pose in self._poses.items():
            extrinsics[view] = pose.camera_from_world
        self.site = replace(given, rig=replace(given.rig, camera_from_world=extrinsics))

    def _note(
        self, t_ns: int, view: int, status: CorrectionStatus, before: Pose, after: Pose | None,
        verdict: Verdict | None = None, examination: _Examination | None = None, reason: str | None = None,
    ) -> None:  # fmt: skip
        """Remember what became of a camera."""
        verdict = verdict or Verdict(None)
        rotation, translation = _as_written(before)
        rotation_after, translation_after = (None, None) if after is None else _as_written(after)
        correction = CameraCorrection(
            t_ns, self._given.rig.names[view], status, examination.noticed_ns if examination is not None else t_ns,
            rotation, translation, rotation_after, translation_after,
            turn_deg=_known(math.degrees(verdict.turn)), shift_m=_known(verdict.shift_m),
            turn_sd_deg=_known(math.degrees(verdict.turn_sd)), shift_sd_m=_known(verdict.centre_sd_m),
            off_before_m=_known(verdict.before_m), off_after_m=_known(verdict.after_m), n_people=verdict.n_people,
            reason=reason,
        )  # fmt: skip
        self.corrections = (*self.corrections, correction)[-REMEMBERED:]


def _in_words(verdict: Verdict) -> str:
    """By how much a camera was turned and shifted, and how well it fits now."""
    turn, shift_cm, after_cm = math.degrees(verdict.turn), 100.0 * verdict.shift_m, 100.0 * verdict.after_m
    return f"turned by {turn:.1f} degrees, shifted by {shift_cm:.0f} cm, now {after_cm:.0f} cm off"


def _known(value: float) -> float | None:
    """A figure of a verdict; None where it was not measured."""
    return value if math.isfinite(value) else None


def _as_written(pose: Pose) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rotation vector and translation, as in cameras.toml."""
    extrinsics = pose.camera_from_world
    return tuple(rotation_vector(extrinsics[:, :3]).tolist()), tuple(extrinsics[:, 3].tolist())


def _lens(rig: Rig, view: int) -> Lens:
    fx, fy, cx, cy = rig.pinholes[view].tolist()
    width, height = rig.size_px[view].tolist()
    return Lens(np.array([-cx / fx, -cy / fy]), np.array([(width - cx) / fx, (height - cy) / fy]))


def _is_same(before: Rig, now: Rig, view: int) -> bool:
    """Whether a camera's calibration is unchanged."""
    pairs = ((before.camera_from_world, now.camera_from_world), (before.lenses, now.lenses))
    return all(bool((old[view] == new[view]).all()) for old, new in pairs)
