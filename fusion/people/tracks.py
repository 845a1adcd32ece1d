"""People over time: predict, match, update, birth, coasting, re-linking, death.

State is a struct of arrays with one row a person; a row is recycled, a track_id never is. Every joint has a filter of
its own (position and velocity), measured by all views that the person was matched in, each at its own instant.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion.people.association import Associator, FrameSet
from fusion.people.geometry import Rig
from fusion.people.health import CameraHealth
from fusion.people.workspace import (
    COASTING_MAX_S,
    DOUBT_MAX_S,
    MATCH_GATE,
    NOISE_EVERY,
    POSITION_SD_MAX_M,
    TENTATIVE_MAX_S,
    Workspace,
    faded,
)
from fusion.results import People, Warning, WarningKind
from fusion.store.shapes import edge_distance_m, inside_polygon

if TYPE_CHECKING:
    from fusion.observations import Frame
    from fusion.store.layouts import Layout
    from fusion.store.models import Store

# People followed at once; beyond, births are counted and refused.
CAPACITY = 256
# What is known of a body weighs as much as one measurement in this time.
ANCHOR_S = 0.3
# Time over which the usual height of somebody's joints is learnt.
LEARNING_S = 3.0
# Steps of the search for a person's joints; at a birth, those in which every view still has its full say.
STEPS, STEPS_AT_BIRTH, PLAIN_AT_BIRTH = 2, 7, 2
# Spread of a joint about the place of a body of which nothing else is known, metres.
JOINT_SPREAD_M = 0.35
# Log-likelihood ratio that a place holds a person when a camera that looks at it finds one there, or none: detectors
# find 85 % of the people in free sight (others stand in between, too), and what is no person but looks like one (a coat
# on its hook, a mirror) turns up in half of the views of its place.
FOUND, MISSED = math.log(0.85 / 0.5), math.log(0.15 / 0.5)
# Somebody is confirmed at odds of e^3, kept within e^+-5; or by walking, which coats do not.
CONFIRM_ODDS, ODDS_MAX = 3.0, 5.0
WALKED_M = 1.0
WALKED_SETS = 5  # In a row: a passer-by may pull a ghost along for a moment.
# Sets that must have seen somebody before he is told: two agreeing views, or one alone.
TELL_SETS, TELL_SETS_ALONE = 1, 3
# Heights at which a camera must see a place to be said to look at it.
LOOKED_AT_M = np.array([1.0, 1.5])
# Somebody whom another feeds, see DOUBT_MAX_S, stands within this distance of him.
REACH_M = 0.7
# Whose place cameras speak against for so long in sum is not told until they were as long silent about it: he is seen
# through glass or in a mirror, or has gone. Detectors miss people for a few frames, hardly all at once for longer.
CONTRADICTED_MAX_S = 0.5
# It is asked this often, and after a gap counts for half of that time at most, for one look in vain is chance.
CONTRADICTED_EVERY_S = 0.1
# Half the width of a body that hides another, how high it reaches where that is not known, and how far above its
# highest joint, metres: the crown is some 12 cm above the nose.
BODY_M, BODY_TOP_M, CROWN_M = 0.3, 1.7, 0.12
# After so long nobody is re-linked any more; outside the floor people are gone at once.
LOST_MAX_S = 30.0
# Two tracks whose known joints lie on average this near are one person.
DUPLICATE_M = 0.15
# Births this near to somebody well known, on the floor, are that person seen badly.
CROWDING_M = 0.30
# Re-linking: spread of where somebody reappears, and of how fast he went meanwhile; new people per square metre and
# birth that are expected inside the store and near its edge or a gate, where people come in.
RELINK_SD_M, RELINK_SPEED_M_S = 0.4, 0.8
RELINK_MIN_S = 0.2
NEWCOMERS_INSIDE_M2, NEWCOMERS_EDGE_M2 = 0.001, 0.5
EDGE_M = 0.5
# A camera that delivered nothing for so long while others did is down.
OUTAGE_S = 5.0


@dataclass(frozen=True)
class _Surroundings:
    """Where people walk and who looks at them: cameras, the floor's corners, gates' lines, obstacles' boxes (n, 5)."""

    rig: Rig
    floor: Sequence[tuple[float, float]]
    gates: Sequence[tuple[tuple[float, float], tuple[float, float]]]
    boxes: np.ndarray

    @classmethod
    def of(cls, store: Store) -> _Surroundings:
        boxes = np.array(store.obstacle.boxes, np.float64).reshape(-1, 5)
        return cls(Rig.from_cameras(store.cameras), store.floor, [gate.line for gate in store.gate], boxes)


class Tracker:
    """Follows people from sets of frames.

    Attributes:
        ignored: detections and keypoints that were not used, by reason.
        health: of the cameras.
    """

    def __init__(self, store: Store) -> None:
        self._set_up(_Surroundings.of(store), store.layout, store.appearance_dim)

    def _set_up(self, around: _Surroundings, layout: Layout, appearance_dim: int) -> None:
        kernels.warm_up()
        self.layout = layout
        self._workspace = Workspace(around.rig, layout, appearance_dim, CAPACITY)
        self._associator = Associator(around.rig, layout, self._workspace)
        self.health = CameraHealth(around.rig, self._workspace.body_var, layout.n_joints, around.boxes)
        self._derive(around)
        n_padded = self._workspace.n_padded
        self.ignored: Counter[str] = self._associator.ignored
        self._tally = 0
        # Somebody of whom nothing is known but the place.
        self._newborn_mean, self._newborn_cov = np.zeros((6, n_padded)), np.zeros((21, n_padded))
        self._newborn_mean[2] = self._associator.heights_m[:, 0]
        self._newborn_cov[5] = JOINT_SPREAD_M**2
        self._newborn_cov[[9, 14, 20]] = self._workspace.speed_var
        self._step_s = 0.0
        ws = self._workspace
        self._mean, self._cov, self._looks = ws.mean, ws.cov, ws.track_appearance
        self._track_id, self._confirmed, self._seen_ns = ws.track_id, ws.confirmed, ws.seen_ns
        self._sets_seen, self._sets_alone = ws.multi_view_sets, ws.single_view_sets
        self._sure_ns = ws.undoubted_ns  # When nothing spoke for its being nobody.
        self._born_ns = np.zeros(CAPACITY, np.int64)
        self._odds = np.zeros(CAPACITY)  # Logarithm of the odds that this is a person; matters until confirmed.
        self._contradicted_s = np.zeros(CAPACITY)  # For how long cameras spoke against the place, less silence.
        self._contradicted_ns = 0  # When that was asked last.
        self._hidden = False  # Whether that keeps anybody from being told.
        self._born_m = np.zeros((CAPACITY, 2))
        self._sets_away = np.zeros(CAPACITY, np.int64)  # Sets in a row that saw it away from where it was born.
        self._identity = np.ones(CAPACITY)
        self._free = list(range(CAPACITY - 1, -1, -1))
        self._live = np.empty(0, np.int64)  # Rows that are predicted, matched and told.
        self._lost: dict[int, int] = {}  # Rows that wait for re-linking, and when they were last seen.
        self._next_id = 1
        self._t_ns: int | None = None
        self._ended: deque[int] = deque(maxlen=4 * CAPACITY)
        self._warnings: list[Warning] = []
        self._last_frame_ns = np.full(self.rig.n_views, -1, np.int64)
        self._down = np.zeros(self.rig.n_views, np.bool_)

    def _derive(self, around: _Surroundings) -> None:
        self.rig, self._lenses = around.rig, around.rig.lenses
        self._store_floor, self._gates, self._boxes = around.floor, around.gates, around.boxes
        self._kernels = self._workspace.kernels

    def adopt(self, store: Store) -> None:
        """Go on with a store of the same layout; see `Engine.adopt`."""
        kernels.warm_up()
        around = _Surroundings.of(store)
        self._workspace.adopt(around.rig)
        self._associator.rig = around.rig
        self.health.adopt(around.rig, around.boxes)
        self._derive(around)

    # ---- one set -----------------------------------------------------------------------------------------------------

    def step(self, frames: Sequence[Frame]) -> People:
        """Follow everybody through one set of frames.

        Args:
            frames: each camera at most once, own times, any order.

        Returns:
            Everybody whose place is known, at the newest time of the set.

        Raises:
            ShapeError: a frame's arrays do not fit the store's layout.
        """
        packed = self._associator.pack(list(frames))
        if packed is None:
            t_ns = self._t_ns if self._t_ns is not None else max((f.t_ns for f in frames), default=0)
            described = self._described(len(self._live))
            self._kernels.describe(self._live, *described)
            return self._tell(t_ns, described, False)
        if self._t_ns is not None and packed.t_ns < self._t_ns:
            # A set that lies before the state: look at it from the state's instant.
            packed.dt_s += (packed.t_ns - self._t_ns) * 1e-9
            packed.t_ns = self._t_ns
        packed.dt_s -= self.health.offsets_s
        self._watch_cameras(packed)
        self._predict(packed.t_ns)
        rows = self._live
        track_of, detection_of = self._associator.match(packed, rows)
        self._check_cameras(packed, track_of, detection_of)
        described = self._described(len(rows))
        self._tally = (self._tally + 1) % NOISE_EVERY
        found = self._kernels.follow(
            rows, packed.t_ns, self._step_s, min(self._step_s / ANCHOR_S, 1.0), min(self._step_s / LEARNING_S, 1.0),
            STEPS, self._tally, *described,
        )  # fmt: skip
        # Mostly everybody is known and seen, and there is nothing more to it.
        if found & triangulation.TENTATIVE_SEEN:
            self._weigh_tentative(packed, detection_of, described[2])
        if found & triangulation.DOUBTED:
            self._doubt(packed, detection_of, described[2])
        self._contradict(packed, detection_of, described[2])
        if found & triangulation.FREE:
            self._give_birth(packed, np.flatnonzero(track_of == -1), self._alone(detection_of))
        changed = self._live is not rows
        if changed or found & triangulation.DUPLICATES:
            self._drop_duplicates()
        if self._lost or found & triangulation.OVERDUE:
            self._let_go()
        if changed or found & triangulation.UNNAMED:
            self._name()
        if self._live is not rows:
            described = self._described(len(self._live))
            self._kernels.describe(self._live, *described)
        everybody = self._live is rows and not self._hidden and not found & triangulation.UNSURE
        return self._tell(packed.t_ns, described, everybody)

    def _predict(self, t_ns: int) -> None:
        self._step_s = 0.0 if self._t_ns is None else (t_ns - self._t_ns) * 1e-9
        if self._step_s > 0.0 and len(self._live):
            self._kernels.predict(self._live, self._step_s)
        self._t_ns = t_ns

    def _described(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Room for n people's joints, their deviations, places and theirs."""
        k = self.layout.n_joints
        return np.empty((n, k, 3)), np.empty((n, k)), np.empty((n, 2)), np.empty(n)

    def _weigh_tentative(self, frames: FrameSet, detection_of: np.ndarray, places_m: np.ndarray) -> None:
        found = detection_of >= 0
        tentative = ~self._confirmed[self._live] & found.any(axis=1)
        self._weigh(self._live[tentative], found[tentative], places_m[tentative], frames)

    def _weigh(self, rows: np.ndarray, found: np.ndarray, places_m: np.ndarray, frames: FrameSet) -> None:
        """Learn from who found a tentative person and who looked there in vain whether it is one."""
        vain = self._looking(places_m, frames.has_frame)
        kernels.weigh(
            rows, found, vain, places_m, self._born_m, FOUND, MISSED, ODDS_MAX, CONFIRM_ODDS, WALKED_M, WALKED_SETS,
            self._odds, self._sets_away, self._confirmed,
        )  # fmt: skip

    def _doubt(self, frames: FrameSet, detection_of: np.ndarray, places_m: np.ndarray) -> None:
        found = detection_of >= 0
        views = found.sum(axis=1)
        doubted = np.flatnonzero(self._confirmed[self._live] & (views <= 1))
        apart = np.hypot(*(places_m[doubted, None] - places_m[views >= 2]).transpose(2, 0, 1))
        beside = (apart < REACH_M).any(axis=1)
        self._sure_ns[self._live[doubted[~beside]]] = frames.t_ns
        doubted = doubted[beside]
        if len(doubted):
            vain = self._looking(places_m[doubted], frames.has_frame) & ~found[doubted]
            self._sure_ns[self._live[doubted[vain.sum(axis=1) < 2]]] = frames.t_ns

    def _contradict(self, frames: FrameSet, detection_of: np.ndarray, places_m: np.ndarray) -> None:
        """Keep count of how long cameras that should see somebody have not."""
        passed_s = (frames.t_ns - self._contradicted_ns) * 1e-9
        if passed_s < CONTRADICTED_EVERY_S:
            return
        self._contradicted_ns = frames.t_ns
        passed_s = min(passed_s, 0.5 * CONTRADICTED_MAX_S)
        rows = self._live
        live = frames.has_frame & ~self.health.missing
        views = (detection_of >= 0).sum(axis=1)
        against = self._confirmed[rows] & (live.sum() - views >= np.maximum(views, 2))
        if against.any():
            out = np.empty(len(rows), np.bool_)
            kernels.contradicted(
                self._mean, self._cov, rows, self.layout.n_joints, places_m, detection_of, self.rig.camera_from_world,
                self._lenses, self.rig.size_px, live, self._boxes, BODY_M, BODY_TOP_M, CROWN_M, out,
            )  # fmt: skip
            against &= out
        longer_s = self._contradicted_s[rows] + np.where(against, passed_s, -passed_s)
        self._contradicted_s[rows] = longer_s = np.clip(longer_s, 0.0, 2.0 * CONTRADICTED_MAX_S)
        self._hidden = bool((longer_s >= CONTRADICTED_MAX_S).any())

    def _looking(self, places_m: np.ndarray, live: np.ndarray) -> np.ndarray:
        """(n, n_views) bool: the camera looks at the place and nothing of the store is in between."""
        out = np.empty((len(places_m), self.rig.n_views), np.bool_)
        kernels.looking(
            places_m, LOOKED_AT_M, self.rig.camera_from_world, self._lenses, self.rig.size_px, live, self._boxes, out
        )
        return out

    # ---- births ------------------------------------------------------------------------------------------------------

    def _alone(self, detection_of: np.ndarray) -> dict[int, int]:
        """Rows of people whom never more than one camera saw, by what it sees of them now."""
        only = (self._sets_seen[self._live] == 0) & ((detection_of >= 0).sum(axis=1) == 1)
        return {int(detection_of[i].max()): int(self._live[i]) for i in np.flatnonzero(only)}

    def _give_birth(self, frames: FrameSet, free: np.ndarray, alone: dict[int, int]) -> None:
        """New people from free detections; whom one camera saw alone, others may now see, elsewhere than he was put."""
        if alone:
            free = np.sort(np.append(free, list(alone)))
        members, places, single = self._associator.group(frames, free)
        for group, place in zip(members, places):
            spread = np.array([JOINT_SPREAD_M**2, 0.0, JOINT_SPREAD_M**2])
            known = [detection for detection in group.tolist() if detection in alone]
            if not known:
                self._begin(frames, group, place[:2], spread)
            elif len(known) == 1:
                self._begin(frames, group, place[:2], spread, alone[known[0]])
        for detection in single.tolist():
            if detection not in alone:
                self._begin_alone(frames, detection)

    def _begin_alone(self, frames: FrameSet, detection: int) -> None:
        """Place somebody whom one camera sees, unless other cameras look there and should see him too."""
        if frames.seen[detection].sum() < min(8, self.layout.n_joints):
            return
        x, y, xx, yx, yy = self._associator.stand(frames, detection)
        if not np.isfinite(x) or xx + yy > 2.0 or not inside_polygon(self._store_floor, x, y, 1.0):
            return
        watching = (self._last_frame_ns >= frames.t_ns - int(0.5e9)) & ~self.health.moved
        if self._looking(np.array([[x, y]]), watching).sum() > 1:
            return
        self._begin(frames, np.array([detection]), np.array([x, y]), np.array([xx + 0.04, yx, yy + 0.04]))

    def _begin(
        self, frames: FrameSet, group: np.ndarray, place: np.ndarray, spread: np.ndarray, again: int | None = None
    ) -> None:
        """Begin to follow somebody; `again` is the row of somebody who is put where he really is."""
        if again is None and not self._free:
            self.ignored["people: more than can be followed at once"] += 1
            return
        row = self._free.pop() if again is None else again
        ws = self._workspace
        state = ws.mean, ws.cov, ws.heights_m, ws.limb_lengths_m
        before = []
        if again is not None:
            before = [array[row].copy() for array in state]
            self._live = self._live[self._live != row]
        mean, cov = self._mean[row], self._cov[row]
        ws.heights_m[row] = self._newborn_mean[2]
        ws.limb_lengths_m[row] = self.layout.limb_lengths_m[:, 0]
        detection_of = np.full((1, self.rig.n_views), -1, np.int64)
        detection_of[0, frames.view_of[group]] = group
        rows = np.array([row])
        sums, counts = np.empty((2, *detection_of.shape))

        def measure() -> None:
            mean[:], cov[:] = self._newborn_mean, self._newborn_cov
            mean[0], mean[1] = place
            cov[0], cov[1], cov[2] = spread
            self._kernels.measure(rows, detection_of, 0.0, 1.0, STEPS_AT_BIRTH, PLAIN_AT_BIRTH, -1, sums, counts)

        measure()
        n_views = len(group)
        misfits = sums > MATCH_GATE * np.maximum(counts, 1.0)
        if n_views > 1 and (misfits & (detection_of >= 0)).any():
            # A view that does not fit what the others agree on was another person's: begin again without it.
            detection_of[misfits] = -1
            n_views = int((detection_of >= 0).sum())
            if n_views >= 2:
                measure()
        position, _ = self._place(rows)
        is_body = n_views >= min(2, len(group)) and kernels.plausible(mean, cov, self.layout.n_joints)
        if not is_body or self._crowded(position[0]):
            if again is None:
                self._free.append(row)
            else:
                for array, old in zip(state, before):
                    array[row] = old
                self._live = np.append(self._live, row)
            return
        if again is not None:
            self._sets_seen[row] = 1
            self._live = np.append(self._live, row)
            return
        self._seen_ns[row] = self._born_ns[row] = frames.t_ns
        self._sets_seen[row] = n_views >= 2
        self._sets_alone[row] = n_views == 1
        self._confirmed[row] = False
        self._odds[row] = 0.0
        self._sure_ns[row] = frames.t_ns
        self._contradicted_s[row] = 0.0
        self._born_m[row] = position[0]
        self._sets_away[row] = 0
        self._identity[row] = 1.0
        self._looks[row] = 0.0
        if frames.appearance is not None:
            look = frames.appearance[detection_of[detection_of >= 0]].mean(axis=0)
            self._looks[row] = look / max(float(np.linalg.norm(look)), 1e-12)
        self._track_id[row] = -1
        self._weigh(rows, detection_of >= 0, position, frames)
        self._live = np.append(self._live, row)

    def _place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        described = self._described(len(rows))
        self._kernels.describe(rows, *described)
        return described[2], described[3]

    def _crowded(self, place: np.ndarray) -> bool:
        """Whether somebody well known stands where a birth would."""
        if not len(self._live):
            return False
        position, position_sd = self._place(self._live)
        return bool(((np.hypot(*(position - place).T) < CROWDING_M) & (position_sd < CROWDING_M)).any())

    def _name(self) -> None:
        """Give a track_id to those who are told for the first time; until then a track may be a ghost."""
        unnamed = self._live[self._track_id[self._live] < 0]
        if not len(unnamed):
            return
        position, position_sd = self._place(unnamed)
        for index in np.flatnonzero(self._worth_telling(unnamed, position_sd)).tolist():
            row = int(unnamed[index])
            self._track_id[row] = self._relink(row, position[index], float(position_sd[index]))

    def _worth_telling(self, rows: np.ndarray, position_sd: np.ndarray) -> np.ndarray:
        likely = (self._odds[rows] > 0) & (self._seen_ns[rows] == self._t_ns)
        often = (self._sets_seen[rows] >= TELL_SETS) | (self._sets_alone[rows] >= TELL_SETS_ALONE)
        there = (position_sd <= POSITION_SD_MAX_M) & (self._contradicted_s[rows] < CONTRADICTED_MAX_S)
        return there & (self._confirmed[rows] | (likely & often))

    def _relink(self, row: int, place: np.ndarray, sd_m: float) -> int:
        """The track_id that a birth goes on with: that of somebody lost who fits, else a new one.

        Every lost person and "somebody new" are weighed against each other; the winner's probability multiplies
        `identity`, so a guess is told as one.
        """
        assert self._t_ns is not None
        unseen = self._seen_ns[self._live] < self._t_ns - RELINK_MIN_S * 1e9
        # Nor is somebody seen whose place cameras speak against: he may be here.
        unseen |= self._contradicted_s[self._live] >= CONTRADICTED_MAX_S
        named = self._track_id[self._live] >= 0
        likelihoods, rows = [], [*self._lost, *self._live[unseen & named].tolist()]
        if rows:
            lost_place, _ = self._place(np.array(rows))
            for other, where in zip(rows, lost_place):
                gap_s = (self._t_ns - self._seen_ns[other]) * 1e-9
                var = RELINK_SD_M**2 + sd_m**2 + (RELINK_SPEED_M_S * min(gap_s, 5.0)) ** 2
                likelihood = np.exp(-0.5 * ((where - place) ** 2).sum() / var) / (2 * np.pi * var)
                if self._looks.shape[1]:
                    likelihood *= np.exp(-2.0 * (1.0 - float(self._looks[other] @ self._looks[row])) / 0.15)
                likelihoods.append(likelihood * np.exp(-gap_s / LOST_MAX_S))
        newcomers = NEWCOMERS_EDGE_M2 if self._at_edge(place) else NEWCOMERS_INSIDE_M2
        if likelihoods:
            best = int(np.argmax(likelihoods))
            total = sum(likelihoods) + newcomers
            if likelihoods[best] > 0.5 * total:
                other = rows[best]
                self._identity[row] = self._identity[other] * likelihoods[best] / total
                track_id = int(self._track_id[other])
                if other in self._lost:
                    del self._lost[other]
                else:
                    self._live = self._live[self._live != other]
                self._track_id[other] = -1
                self._free.append(other)
                return track_id
            self._identity[row] = newcomers / total
        track_id, self._next_id = self._next_id, self._next_id + 1
        return track_id

    def _at_edge(self, place: np.ndarray) -> bool:
        """Whether people may come in or go out here: near the edge of the floor, outside it, or near a gate."""
        x, y = float(place[0]), float(place[1])
        for (x0, y0), (x1, y1) in self._gates:
            if np.hypot((x0 + x1) / 2 - x, (y0 + y1) / 2 - y) < 1.0:
                return True
        floor = self._store_floor
        if not inside_polygon(floor, x, y):
            return True
        # With gates, nobody walks in through a wall.
        return not self._gates and edge_distance_m(floor, x, y) < EDGE_M

    # ---- ends --------------------------------------------------------------------------------------------------------

    def _drop_duplicates(self) -> None:
        n = len(self._live)
        if n < 2:
            return
        same = np.empty((n, n), np.bool_)
        kernels.overlaps(self._mean, self._cov, self._live, self.layout.n_joints, DUPLICATE_M, same)
        if not same.any():
            return
        dropped = set()
        for a, b in np.argwhere(same).tolist():
            one, other = self._live[a], self._live[b]
            # Whoever is followed longer stays.
            older_first = (self._sets_seen[one], -self._born_ns[one]) >= (self._sets_seen[other], -self._born_ns[other])
            dropped.add(b if older_first else a)
        for index in dropped:
            self._end(int(self._live[index]))
        self._live = np.delete(self._live, list(dropped))

    def _let_go(self) -> None:
        """Ghosts die, people out of sight wait to be re-linked, those who are gone end."""
        assert self._t_ns is not None
        now = self._t_ns
        if len(self._live):
            unseen_s = (now - self._seen_ns[self._live]) * 1e-9
            overdue = unseen_s > np.where(self._confirmed[self._live], COASTING_MAX_S, TENTATIVE_MAX_S)
            overdue |= now - self._sure_ns[self._live] > DOUBT_MAX_S * 1e9
            if overdue.any():
                for row in self._live[overdue].tolist():
                    position, _ = self._place(np.array([row]))
                    # Whoever vanishes where people go out has gone out.
                    if self._confirmed[row] and self._track_id[row] >= 0 and not self._at_edge(position[0]):
                        self._lost[row] = int(self._seen_ns[row])
                    else:
                        self._end(row)
                self._live = self._live[~overdue]
        if self._lost:
            for row in [row for row, seen_ns in self._lost.items() if now - seen_ns > LOST_MAX_S * 1e9]:
                del self._lost[row]
                self._end(row)

    def _end(self, row: int) -> None:
        if self._track_id[row] >= 0:
            self._ended.append(int(self._track_id[row]))
        self._track_id[row] = -1
        self._free.append(row)

    def ended(self) -> list[int]:
        """Track ids that will never come again, since the last call; the newest of them where nobody asks for long."""
        ended = list(self._ended)
        self._ended.clear()
        return ended

    # ---- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, t_ns: int, described: tuple[np.ndarray, ...], everybody: bool) -> People:
        """Those whose place is known; `everybody` where that was seen already."""
        rows = self._live
        confirmed = self._confirmed[rows]
        if not everybody:
            told = self._worth_telling(rows, described[3]) & (self._track_id[rows] >= 0)
            rows, confirmed = rows[told], confirmed[told]
            described = tuple(array[told] for array in described)
        joints, joints_sd, position, position_sd = described
        people = People(
            t_ns, self._track_id[rows], confirmed, position, position_sd, joints, joints_sd,
            self._seen_ns[rows], self._identity[rows],
        )  # fmt: skip
        for array in (people.track_id, people.confirmed, position, position_sd, joints, joints_sd, people.seen_ns,
                      people.identity):  # fmt: skip
            array.setflags(write=False)
        return people

    # ---- cameras -----------------------------------------------------------------------------------------------------

    def _watch_cameras(self, frames: FrameSet) -> None:
        has = frames.has_frame
        last = self._last_frame_ns
        if last[0] < 0:
            last[:] = frames.t_ns
        last[has] = frames.t_ns
        if frames.t_ns - int(last.min()) <= OUTAGE_S * 1e9 and not self._down.any():
            return
        down = frames.t_ns - last > OUTAGE_S * 1e9
        if (down != self._down).any():
            for view in np.flatnonzero(down & ~self._down).tolist():
                name = self.rig.names[view]
                self._warnings.append(Warning(frames.t_ns, WarningKind.CAMERA_OUTAGE, name, seconds=OUTAGE_S))
            for view in np.flatnonzero(~down & self._down).tolist():
                self._warnings.append(Warning(frames.t_ns, WarningKind.CAMERA_BACK, self.rig.names[view]))
            self._down = down
            self.health.down = down

    def _check_cameras(self, frames: FrameSet, track_of: np.ndarray, detection_of: np.ndarray) -> None:
        """Let the cameras be compared, and take away what those say that are not to be trusted."""
        health = self.health
        health.update(
            frames.t_ns, 1.0 / faded(self._step_s), frames.dt_s, frames.has_frame, frames.start,
            (frames.x, frames.y, frames.var, frames.seen), self._mean, self._cov, self._live, self._confirmed, track_of,
            detection_of,
        )  # fmt: skip
        if health.moved.any():
            doubtful = health.moved[frames.view_of]
            self.ignored["detections: camera was moved"] += int(doubtful.sum())
            track_of[doubtful] = -2
            detection_of[:, health.moved] = -1
            frames.has_frame[health.moved] = False

    def warnings(self) -> list[Warning]:
        """What turned out to be wrong with cameras since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings + self.health.warnings()


# A floor without end, for people who are reconstructed without a store.
_EVERYWHERE = ((-900.0, -900.0), (900.0, -900.0), (900.0, 900.0), (-900.0, 900.0))


def reconstruct(rig: Rig, layout: Layout, frames: Sequence[Frame]) -> People:
    """People in 3D from one instant's frames alone, without history.

    Args:
        rig: the cameras, by whose names frames are told apart.
        layout: of the frames' keypoints.
        frames: each camera at most once.

    Returns:
        Everybody on whom at least two of the cameras agree and who is found by most of those that look there; all are
        tentative, and their numbers mean nothing beyond this call.

    Raises:
        ShapeError: a frame's keypoints do not fit the layout.
    """
    tracker = Tracker.__new__(Tracker)
    dims = {frame.appearance.shape[1] for frame in frames if frame.appearance is not None}
    around = _Surroundings(rig, _EVERYWHERE, (), np.zeros((0, 5)))
    tracker._set_up(around, layout, dims.pop() if len(dims) == 1 else 0)
    return tracker.step(frames)
