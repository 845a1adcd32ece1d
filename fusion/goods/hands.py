"""Whose hand it was: how much likelier everyone's arms and place are if they moved a load than if they did not.

For every person near, the ratio

    p(arms, place | this person moved the load) / p(arms, place | this person did not)

is computed by a kernel from the instants around contact. A hand that is seen counts by its place relative to the load
and by its distance from the body. Where a wrist is not seen, the elbow, the shoulder or the body stands in.

That physical model is the prior of a learnt one: a person whose wrist and elbow are known gets a correction, a sum of
small regression trees over what the kernel measures at contact (`hand_trees.py`, written by `python -m bench hands
--fit`). It looks at no motion, since how long hands dwell differs between shops, and it is bounded. Outside the range
of features that it was trained on, and for a load that moved at an unknown instant, the physical model stands alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import attribution as kernel
from fusion.goods import hand_trees
from fusion.goods.loads import ShelfEvent
from fusion.people.arms import HAND_BEYOND_WRIST_M, ArmHistory
from fusion.people.doors import Openings
from fusion.store.models import Store

# All in metres and seconds. Fitted to 1156 events of simulated shops (tracks of the engine itself), then widened: real
# hands vary more.

# Error of a hand's place that averaging does not remove: the same joint is seen by the same cameras.
HAND_ERROR_M = 0.03
# A hand's place at contact is the mean of instants about it; cameras are up to 0.1 s out of step. A hand that takes is
# there earlier, a hand that puts something back stays longer.
CONTACT_SD_S, CONTACT_SHIFT_TAKE_S, CONTACT_SHIFT_PUT_S = 0.14, -0.03, 0.03
# An instant seen with this weight, a tenth of a second from contact, is as good as an instant seen at contact.
COVER_MIN = 0.5
# The actor's hand: along the shelf, relative to the middle of the load; behind the plate's front edge, where hands fill
# a box with soft edges (10th to 90th percentile 0.05 to 0.18 m in an independent generator, 0.02 to 0.21 m in ours);
# above the plate (0.12 and 0.135 m, both +- 0.04, and +- 0.08 with keypoints as bad as real ones). One hand in fourteen
# is anywhere within TAIL_WIDTH times as far: loads across two plates, wrong keypoints.
ALONG_SD_WIDTHS, HEIGHT_M, HEIGHT_SD_M = 0.25, 0.13, 0.05
BOX_FRONT_M, BOX_BACK_M, BOX_EDGE_SD_M = 0.01, 0.21, 0.01
TAIL_WEIGHT, TAIL_WIDTH = 0.07, 2.5
# Bystanders' hands: 0.28 of them anywhere in about a cubic metre, and 0.007 at a shelf of this height along 1.6 m of it
# (0.14 to 0.21 and 0.012 to 0.042 of those of people within 2 m). Those at a shelf are stretched out like an actor's.
# The factors are (2 pi)^(3/2) and (2 pi)^(1/2), which the actor's density lacks.
AWAY_DENSITY, SHELF_DENSITY = 0.28 * 15.75, 0.007 / 1.6 * 2.5
# Horizontal distance from the body's axis to a hand that acts, and to a hand that hangs or carries. Some hands are
# anywhere (as a density, times (2 pi)^(1/2)), since bodies that are seen badly are located wrongly.
STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL = 0.45, 0.14, 0.29, 0.10, 1.0
# Hands are looked up this long before and after contact. How long a hand stays is no evidence that holds in every shop:
# medians after contact are 0.4 s in one set of recordings and above 1.5 s in another.
WINDOW_S = 0.35
# Likelihood ratio of a person who acted although both hands were seen elsewhere (a wrong keypoint or time). That needs
# a body that could at least have leaned in; beyond, it falls to a hundredth.
HAND_ELSEWHERE_RATIO = 3e-3
LEAN_IN_M, LEAN_IN_SD_M = 0.9, 0.2
# An arm seen only to the elbow or the shoulder is weak evidence, and a body is weaker still.
ELBOW_RATIO, SHOULDER_RATIO = 3.0, 1.2
ELBOW_REACH_M, SHOULDER_REACH_M, REACH_SD_M = 0.40, 0.75, 0.10
# An actor's distance from the middle of the plate, and how well they stand in front of it. Arms reach no further than
# NEAR_M.
BODY_DISTANCE_M, BODY_SLACK_M, BODY_DISTANCE_SD_M, BODY_ALONG_SD_M = 0.55, 0.1, 0.25, 0.40
NEAR_M = 2.0
# A hand does not get further from the body's axis than this.
REACH_MAX_M = 1.0
# Arms of people whose bodies come this near are smoothed: they may reach beyond the middle of the plate.
SMOOTHED_WITHIN_M = 1.3
# Weight of an actor in no camera's view, against one person in view with ratio 1.
UNSEEN_WEIGHT = 0.002
TENTATIVE_RATIO = 0.3
# The learnt correction of a log ratio is at most this much: unbounded, trees of one generator are worse in another
# (log-loss 0.032 instead of 0.021 with the keypoints of bad detectors, and 0.025 instead of 0.023 the other way round).
CORRECTION_MAX = 2.0
# People whose ratio is below this cannot compete with an unseen actor.
LOG_RATIO_MIN = math.log(HAND_ELSEWHERE_RATIO) - 4.0
# Clearance where no shelf is above; far more than a hand needs.
CLEAR_M = 1.0
# From a quarter of a load to three quarters takes a grip a twentieth of a second, and a person who holds goods on their
# plate while they read a second or two. What takes longer is a hand that leaned on the plate before or after the load
# moved, so that it moved at an unknown instant.
DATED_WITHIN_S = 2.0
# Of loads that came or went by steps so far apart, this share moved at the greatest.
STEPS_APART_S, AT_GREATEST_STEP = 0.5, 0.8
LOG_AT_CONTACT, LOG_AT_OTHER_STEP = math.log(AT_GREATEST_STEP), math.log(1.0 - AT_GREATEST_STEP)
# A load that moves at an unknown instant may have begun this long before its plates were seen to move.
ONSET_EARLY_NS = 100_000_000

# Mean ratio of people who stand as near as an actor (0.7 m) and do not act: 6 to 8 in our recordings, 14 in an
# independent generator's. Who acted is a matter of ratios among people; whether a second person did is one of their
# level.
BYSTANDER_RATIO = 8.0

# Of a person who is near at one instant and not at another.
NOWHERE = math.log(HAND_ELSEWHERE_RATIO)

PEOPLE_PER_EVENT_MAX = 8
PEOPLE_NEAR_MAX = 64

# Likelihood ratio of the person who had the door before a plate open when its load moved, against one who had not.
DOOR_RATIO = 100.0

SECOND_NS = 1_000_000_000
# A hand in the space above a plate: up to this height, and this far beyond its edges.
HAND_HEIGHT_MAX_M, HAND_BESIDE_M = 0.35, 0.02


def _hand_model(contact_shift_s: float) -> NDArray[np.float64]:
    """The constants above in the order of the kernel's enum."""
    return np.array([
        contact_shift_s, CONTACT_SD_S, COVER_MIN, HAND_BEYOND_WRIST_M, HAND_ERROR_M,
        ALONG_SD_WIDTHS, BOX_FRONT_M, BOX_BACK_M, BOX_EDGE_SD_M, HEIGHT_M, HEIGHT_SD_M, TAIL_WEIGHT, TAIL_WIDTH,
        AWAY_DENSITY, SHELF_DENSITY, STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL,
        ELBOW_RATIO, ELBOW_REACH_M, SHOULDER_RATIO, SHOULDER_REACH_M, REACH_SD_M,
        BODY_DISTANCE_M, BODY_SLACK_M, BODY_DISTANCE_SD_M, BODY_ALONG_SD_M, HAND_ELSEWHERE_RATIO, NEAR_M,
        TENTATIVE_RATIO, LEAN_IN_M, LEAN_IN_SD_M, CORRECTION_MAX,
    ])  # fmt: skip


TAKING, PUTTING = _hand_model(CONTACT_SHIFT_TAKE_S), _hand_model(CONTACT_SHIFT_PUT_S)


class HandTrees(NamedTuple):
    """The learnt correction of a log ratio: a sum of regression trees, three levels deep, full, breadth first.

    Features, in the order of the kernel's enum, of the likelier hand: the physical log ratio; the distance beyond the
    plate's edge along the shelf (negative inside), behind its front edge and above it; the standard deviation of the
    place; the distance of the elbow from the load; that of the body from it, and along the shelf; the log of the other
    hand's part of the physical ratio. Metres.

    Attributes:
        trained: (2, HAND_FEATURES) least and greatest feature seen in training.
        split_on: (n_trees, 7) int32 feature that a node looks at. threshold: (n_trees, 7) from which it goes right.
        leaf: (n_trees, 8) what is added.
    """

    trained: NDArray[np.float64]
    split_on: NDArray[np.int32]
    threshold: NDArray[np.float64]
    leaf: NDArray[np.float64]

    @classmethod
    def learnt(cls) -> HandTrees:
        """The trees that come with the package."""
        splits = np.array([tree[:7] for tree in hand_trees.TREES], np.float64).reshape(-1, 7, 2)
        leaf = np.array([tree[7] for tree in hand_trees.TREES], np.float64).reshape(-1, 8)
        on = np.ascontiguousarray(splits[:, :, 0].astype(np.int32))
        return cls(np.array(hand_trees.TRAINED), on, np.ascontiguousarray(splits[:, :, 1]), leaf)

    @classmethod
    def none(cls) -> HandTrees:
        """No correction: the physical model alone."""
        empty = np.empty((2, kernel.HAND_FEATURES))
        empty[0], empty[1] = math.inf, -math.inf
        return cls(empty, np.empty((0, 7), np.int32), np.empty((0, 7)), np.empty((0, 8)))


LEARNT = HandTrees.learnt()


class HandRatio(NamedTuple):
    """A person near a load, and the log of the likelihood ratio above."""

    track: int
    log_ratio: float


class HandOver(NamedTuple):
    """A person whose hand was in the space above a plate, and the middle one of those instants within a second."""

    track: int
    t_ns: int


@dataclass(slots=True)
class Actors:
    """The people who may have moved a load.

    Attributes:
        owner: (n,) track ids, most likely first; -1, an unseen actor, comes last.
        log_ratio: (n,) how much likelier their hands and places are if they did it.
        log_total: log of the sum of all ratios.
    """

    owner: NDArray[np.int64]
    log_ratio: NDArray[np.float64]
    log_total: float

    @property
    def near(self) -> list[int]:
        """Track ids of those in view."""
        tracks: list[int] = self.owner[:-1].tolist()
        return tracks

    def likely(self, least: float) -> list[tuple[int, float]]:
        """Those in view who did it alone with more than a probability, and the probability; most likely first."""
        found: list[tuple[int, float]] = []
        for track, log_ratio in zip(self.near, self.log_ratio.tolist()):
            probability = math.exp(min(log_ratio - self.log_total, 0.0))
            if probability <= least:
                break
            found.append((track, probability))
        return found

    @property
    def log_probability(self) -> NDArray[np.float64]:
        """(n,) log probability that each of them did it alone."""
        return self.log_ratio - self.log_total

    def scaled(self, factor: float) -> Actors:
        """With the log ratios of those in view multiplied by what decisions have taught; see `goods.learnt`."""
        if factor == 1.0:
            return self
        log_ratio = np.append(factor * self.log_ratio[:-1], self.log_ratio[-1])
        return Actors(self.owner, log_ratio, float(np.logaddexp.reduce(log_ratio)))


@dataclass(frozen=True, slots=True, eq=False)
class PlateGeometry:
    """Where plates are: parallel arrays (n_plates,).

    Attributes:
        centre_m: (n_plates, 3) middle of the plate's surface, world frame.
        width_m, depth_m: along the shelf and into it.
        yaw: angle of the plate's x axis.
        above_m: clearance to the shelf above.
    """

    centre_m: NDArray[np.float64]
    width_m: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    yaw: NDArray[np.float64]
    above_m: NDArray[np.float64]

    @classmethod
    def of(cls, store: Store) -> PlateGeometry:
        """The plates of a store, in its order."""
        centre_m = np.array([(p.x, p.y, p.z) for p in store.plates]).reshape(-1, 3)
        size = np.array([(p.width, p.depth, p.yaw) for p in store.plates]).reshape(-1, 3)
        width_m, depth_m, yaw = (np.ascontiguousarray(column) for column in size.T)
        above_m = np.array([_clearance_m(centre_m, plate) for plate in range(len(centre_m))])
        return cls(centre_m, width_m, depth_m, yaw, above_m)


def _clearance_m(centre_m: NDArray[np.float64], plate: int) -> float:
    beside = np.hypot(centre_m[:, 0] - centre_m[plate, 0], centre_m[:, 1] - centre_m[plate, 1]) < 0.1
    above = centre_m[beside, 2] - centre_m[plate, 2]
    above = above[above > 0.1]
    return min(CLEAR_M, float(above.min())) if len(above) else CLEAR_M


class Hands:
    """Weighs the hands of the people near a plate, by the arm history.

    Attributes:
        trees: what corrects the physical model.
        openings: when doors were open; behind a door, the opening is the person.
        features: (PEOPLE_NEAR_MAX, HAND_FEATURES) what the trees looked at, of the people of the last `log_ratios`.
    """

    trees: ClassVar[HandTrees] = LEARNT

    def __init__(self, store: Store, openings: Openings | None = None) -> None:
        """openings: when the doors before plates were open; None: the store has none."""
        self._plates = PlateGeometry.of(store)
        self.openings = openings or Openings(store)
        # Room for the kernel's answers.
        self._track = np.zeros(PEOPLE_NEAR_MAX, np.int64)
        self._log_ratio = np.zeros(PEOPLE_NEAR_MAX)
        self.features = np.zeros((PEOPLE_NEAR_MAX, kernel.HAND_FEATURES))
        self._sums = np.zeros((PEOPLE_NEAR_MAX, 2, kernel.HAND_COLUMNS))

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        self._plates = PlateGeometry.of(store)

    def actors(self, event: ShelfEvent, history: ArmHistory) -> Actors:
        """Everyone near who may have moved a load, and an unseen actor, from where hands, arms and bodies were.

        A load that came or went by steps may have moved at any of them, while a hand pressed or pulled at the others.
        """
        anytime = event.silent or event.rise_s > DATED_WITHIN_S
        near = self.log_ratios(event, history, anytime)
        if not anytime and event.rise_s > STEPS_APART_S and not self.is_behind_door(event.main_plate):
            at_contact, before, after = dict(near), *self._at_other_step(event, history)
            log_other = [max(before.get(track, NOWHERE), after.get(track, NOWHERE)) for track in (*before, *after)]
            other = dict(zip((*before, *after), log_other))
            tracks = [*at_contact, *(track for track in other if track not in at_contact)]
            near = [
                HandRatio(track, float(np.logaddexp(
                    at_contact.get(track, NOWHERE) + LOG_AT_CONTACT, other.get(track, NOWHERE) + LOG_AT_OTHER_STEP
                )))
                for track in tracks
            ]  # fmt: skip
        ranked = sorted(near, key=lambda hand: (-hand.log_ratio, hand.track))[:PEOPLE_PER_EVENT_MAX]
        ranked = [hand for hand in ranked if hand.log_ratio > LOG_RATIO_MIN]
        owner = np.array([hand.track for hand in ranked] + [-1], np.int64)
        log_ratio = np.array([hand.log_ratio for hand in ranked] + [math.log(UNSEEN_WEIGHT)])
        return Actors(owner, log_ratio, float(np.logaddexp.reduce(log_ratio)))

    def second_ratios(self, event: ShelfEvent, history: ArmHistory) -> list[HandRatio]:
        """Everyone near, by the hands around the second step of a load of two grips.

        The contact is the greater step's; the other one is as far before or after it as the load took to come or go.
        Where that is not known, it may have been at any time while the plates moved. Ratios are over those of people
        who stand as near and do not act.
        """
        if self.is_behind_door(event.main_plate):
            return []
        anytime = event.silent or math.isnan(event.rise_s)
        apart_ns = 0 if anytime else round(event.rise_s * 1e9)
        level = math.log(BYSTANDER_RATIO)
        if apart_ns < CONTACT_SD_S * 1e9:
            near = self.log_ratios(event, history, anytime)
            return [HandRatio(hand.track, hand.log_ratio - level) for hand in near]
        before, after = self._at_other_step(event, history)
        tracks = [*before, *(track for track in after if track not in before)]
        return [
            HandRatio(
                track,
                float(np.logaddexp(before.get(track, NOWHERE), after.get(track, NOWHERE))) - math.log(2.0) - level,
            )
            for track in tracks
        ]

    def _at_other_step(self, event: ShelfEvent, history: ArmHistory) -> tuple[dict[int, float], dict[int, float]]:
        """Everyone near, by the hands as long before the contact as the load took to come or go, and as long after."""
        apart_ns = round(event.rise_s * 1e9)
        before, after = (
            {hand.track: hand.log_ratio for hand in self.log_ratios(event, history, False, step_ns)}
            for step_ns in (event.contact_ns - apart_ns, event.contact_ns + apart_ns)
        )
        return before, after

    def log_ratios(
        self, event: ShelfEvent, history: ArmHistory, anytime: bool, at_ns: int | None = None
    ) -> list[HandRatio]:
        """Everyone near, by the hands at contact, or at any time while the plates moved.

        at_ns: an instant to judge the hands at instead of the event's contact.
        """
        contact_ns = event.contact_ns if at_ns is None else at_ns
        if self.is_behind_door(event.main_plate):
            first_ns, last_ns = (event.onset_ns, event.settled_ns) if anytime else (contact_ns, contact_ns)
            opened = self.openings.during(event.main_plate, first_ns, last_ns)
            return [HandRatio(opening.track_id, math.log(DOOR_RATIO)) for opening in opened]
        if anytime:
            rows = history.between(event.onset_ns - ONSET_EARLY_NS, event.settled_ns)
        else:
            reach_ns = int(WINDOW_S * 1e9)
            rows = history.between(contact_ns - reach_ns, contact_ns + reach_ns)
        plates, at = self._plates, event.main_plate
        yaw = float(plates.yaw[at])
        load_m = self.place_m(event)
        arms = history.smoothed(rows, load_m[:2], SMOOTHED_WITHIN_M)
        n = kernel.hand_ratios(
            history.t_ns[rows], history.track[rows], history.confirmed[rows], history.position_m[rows],
            arms.arms_m, np.ascontiguousarray(arms.sd_m[:, :, 0]), contact_ns, anytime,
            load_m, math.cos(yaw), math.sin(yaw), plates.width_m[at],
            plates.depth_m[at], plates.above_m[at], TAKING if event.total_g < 0 else PUTTING, *self.trees,
            self._track, self._log_ratio, self.features, self._sums,
        )  # fmt: skip
        return [HandRatio(*pair) for pair in zip(self._track[:n].tolist(), self._log_ratio[:n].tolist())]

    def place_m(self, event: ShelfEvent) -> NDArray[np.float64]:
        """(3,) middle of a load on its plates, world frame."""
        place_m: NDArray[np.float64] = event.share @ self._plates.centre_m[event.plates]
        return place_m

    def log_of_anyone(self, event: ShelfEvent, history: ArmHistory) -> float:
        """Log of the sum of everyone's ratios, with that of an unseen actor."""
        near = self.log_ratios(event, history, anytime=False)
        return float(np.logaddexp.reduce([math.log(UNSEEN_WEIGHT), *(hand.log_ratio for hand in near)]))

    def is_behind_door(self, plate: int) -> bool:
        """Whether a plate (an index) lies behind the door of a cabinet."""
        return self.openings.gate_before(plate) is not None

    def reach_of(self, event: ShelfEvent) -> int:
        """The newest opening through which hands could be at a load's plates; 0 in the open, or where none could."""
        opened = self.openings.during(event.main_plate, event.contact_ns, event.contact_ns)
        return opened[-1].track_id if opened else 0

    def over(
        self, plate: int, history: ArmHistory, since_ns: int, until_ns: int, beside_m: float = HAND_BESIDE_M
    ) -> list[HandOver]:
        """People with a hand in the space above a plate at two or more instants of a span, by second.

        Behind a door, everyone who had it open. beside_m: how far beyond the plate's edges counts.
        """
        if self.is_behind_door(plate):
            return [
                HandOver(opening.track_id, max(since_ns, opening.opened_ns))
                for opening in self.openings.during(plate, since_ns, until_ns)
            ]
        plates, rows = self._plates, history.between(since_ns, until_ns)
        centre_m = plates.centre_m[plate]
        near = ((history.position_m[rows] - centre_m[:2]) ** 2).sum(axis=1) < NEAR_M**2
        if not near.any():
            return []
        cos, sin = math.cos(plates.yaw[plate]), math.sin(plates.yaw[plate])
        hand = history.hands_m(rows)[near] - centre_m
        along = np.abs(hand[..., 0] * cos + hand[..., 1] * sin) < 0.5 * plates.width_m[plate] + beside_m
        across = np.abs(hand[..., 1] * cos - hand[..., 0] * sin) < 0.5 * plates.depth_m[plate] + beside_m
        height_m = min(HAND_HEIGHT_MAX_M, plates.above_m[plate])
        above = along & across & (hand[..., 2] > -HAND_BESIDE_M) & (hand[..., 2] < height_m)
        reaches = above.any(axis=1)
        track, t_ns = history.track[rows][near], history.t_ns[rows][near]
        found = []
        for person in np.unique(track[reaches]).tolist():
            at_ns = t_ns[reaches & (track == person)]
            if len(at_ns) >= 2:
                seconds = np.split(at_ns, np.flatnonzero(np.diff(at_ns // SECOND_NS)) + 1)
                found += [HandOver(person, int(instants[len(instants) // 2])) for instants in seconds]
        return found

    def within_reach(self, history: ArmHistory, rows: slice) -> list[int]:
        """Plates within reach of anyone at these rows of the history; no hand reaches through a door."""
        places_m = history.position_m[rows]
        if not len(places_m):
            return []
        off_m = self._plates.centre_m[:, None, :2] - places_m
        near: list[int] = np.flatnonzero(((off_m**2).sum(axis=2) < REACH_MAX_M**2).any(axis=1)).tolist()
        return [plate for plate in near if not self.is_behind_door(plate)]

    def apart_m(self, plate: int, other: int) -> float:
        """Distance between the middles of two plates."""
        return math.dist(self._plates.centre_m[plate], self._plates.centre_m[other])
