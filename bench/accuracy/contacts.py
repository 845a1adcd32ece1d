"""Contacts of hands with shelves: every true load of a recording, with the arms of everyone near, as followed."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bench.accuracy.followed import Follower, followed, results_of
from bench.accuracy.scores import matched_events
from bench.accuracy.truth import TrueEvent, true_events
from fusion.files.recordings import Recording
from fusion.goods.hands import UNSEEN_WEIGHT, Hands, HandTrees
from fusion.goods.loads import ShelfEvent
from fusion.observations import Frame
from fusion.people.arms import ArmHistory
from fusion.people.geometry import Rig
from fusion.store.layouts import Layout
from fusion.store.models import Store

# Arms are kept this long before and after a contact. A track is a person's who is within TRACK_MAX_M of it.
KEPT_NS, TRACK_MAX_M = 1_300_000_000, 0.6
# A camera saw a wrist if it reports one this near to its true place within this time.
SEEN_PX, SEEN_NS = 20.0, 40_000_000
# Two loads within this time and distance, of which one was not reported, are one reading of two people.
TWIN_NS, TWIN_M = 700_000_000, 0.35


class Rows(ArmHistory):
    """Rows of an arm history, copied."""

    columns = ("t_ns", "track", "confirmed", "position_m", "arms_m", "sd_m")

    def __init__(self, layout: Layout, history: ArmHistory, rows: slice) -> None:
        super().__init__(layout, capacity=1)
        for column in self.columns:
            setattr(self, column, getattr(history, column)[rows].copy())
        self._n = len(self.t_ns)


@dataclass(frozen=True)
class Contact:
    """A load that moved. actor: the track whose hand it was, -1: none follows them; n_cameras: that saw the wrist."""

    event: ShelfEvent
    yaw: float
    rows: Rows
    actor: int
    n_cameras: int


class Looks(NamedTuple):
    """Everyone near at many contacts, one row a person.

    Attributes:
        contact: (n,) index of the contact. acts: (n,) whether it was this person.
        log_ratio: (n,) of the physical model. features: (n, HAND_FEATURES).
        body_m: (n,) horizontal distance from the load at contact.
        n_cameras: (n_contacts,) that saw the actor's wrist.
    """

    contact: NDArray[np.int64]
    acts: NDArray[np.bool_]
    log_ratio: NDArray[np.float64]
    features: NDArray[np.float64]
    body_m: NDArray[np.float64]
    n_cameras: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Looks]) -> Looks:
        """The looks of several recordings."""
        first = np.cumsum([0, *(len(part.n_cameras) for part in parts)])
        moved = [part._replace(contact=part.contact + at) for part, at in zip(parts, first)]
        return cls(*(np.concatenate(columns) for columns in zip(*moved)))

    def log_probability(self, log_ratio: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) of every person, (n_contacts,) of an unseen actor, as attribution weighs them."""
        unseen = np.full(len(self.n_cameras), math.log(UNSEEN_WEIGHT))
        total = unseen.copy()
        np.logaddexp.at(total, self.contact, log_ratio)
        return log_ratio - total[self.contact], unseen - total


class _People:
    """The true people of a recording."""

    def __init__(self, recording: Path, store: Store) -> None:
        table = pq.read_table(recording / "truth" / "people.parquet")
        t_ns = table["time"].to_numpy()
        order = np.argsort(t_ns, kind="stable")
        self.t_ns, self.person = t_ns[order], table["person"].to_numpy()[order]
        self.account = np.array(table["account"].to_pylist(), object)[order]
        self.position_m = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)[order]
        flat = np.array(table["keypoints"].combine_chunks().flatten())
        joints_m = flat.reshape(len(t_ns), store.layout.n_joints, 3)[order]
        self.wrists_m = joints_m[:, store.layout.indices("l_wrist", "r_wrist")]
        self._instants = np.unique(self.t_ns)

    def at(self, t_ns: int) -> dict[int, tuple[str | None, NDArray[np.float64], NDArray[np.float64]]]:
        """Account, place on the floor (2,) and wrists (2, 3) of everyone at an instant, by person."""
        after = min(max(int(np.searchsorted(self._instants, t_ns)), 1), len(self._instants) - 1)
        t0, t1 = self._instants[after - 1], self._instants[after]
        share = float(np.clip((t_ns - t0) / (t1 - t0), 0.0, 1.0))
        now = {int(self.person[row]): row for row in np.flatnonzero(self.t_ns == t0)}
        then = {int(self.person[row]): row for row in np.flatnonzero(self.t_ns == t1)}

        def between(values: NDArray[np.float64], person: int) -> NDArray[np.float64]:
            mixed: NDArray[np.float64] = (1.0 - share) * values[now[person]] + share * values[then[person]]
            return mixed

        return {
            person: (self.account[row], between(self.position_m, person), between(self.wrists_m, person))
            for person, row in now.items() if person in then
        }  # fmt: skip


def contacts_of(recording: Path, kept: Path) -> list[Contact]:
    """Contacts of a recording; kept: where people as followed are kept, see `followed.py`."""
    opened = Recording(recording)
    store = opened.store
    engine = Follower(store)
    got: list[tuple[ShelfEvent, Rows]] = []
    observe = engine._attributor.observe

    def noted(event: ShelfEvent, history: Any) -> Any:
        rows = history.between(event.contact_ns - KEPT_NS, event.contact_ns + KEPT_NS)
        got.append((event, Rows(store.layout, history, rows)))
        return observe(event, history)

    engine._attributor.observe = noted  # type: ignore[method-assign]
    for _ in results_of(engine, followed(store, opened.observations(), kept)):
        pass
    names = [plate.plate for plate in store.plates]
    reported = [
        SimpleNamespace(index=i, t_ns=event.contact_ns, plate=names[event.main_plate], delta_g=event.total_g)
        for i, (event, _) in enumerate(got)
    ]
    true = true_events(recording)
    with open(recording / "truth" / "events.csv", newline="", encoding="utf-8") as file:
        account_of = {id(event): row["account"] or None for event, row in zip(true, csv.DictReader(file))}
    pairs: list[Any] = matched_events(store, true, reported)  # type: ignore[arg-type]
    lost = [event for event, answer in pairs if answer is None]
    people, seen = _People(recording, store), _Cameras(recording, store)
    at_m = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    contacts = []
    for event, answer in pairs:
        if event is None or answer is None or _has_twin(event, lost, at_m):
            continue
        there = people.at(event.t_ns)
        own = [person for person, (account, _, _) in there.items() if account == account_of[id(event)]]
        if own:
            place_m = at_m[event.plate]
            away_m = {person: np.linalg.norm(there[person][2] - place_m, axis=1) for person in own}
            actor = min(own, key=lambda person: float(away_m[person].min()))
            wrist_m = there[actor][2][int(away_m[actor].argmin())]
            load, rows = got[answer.index]
            track = _tracks(rows, event.t_ns, {person: place for person, (_, place, _) in there.items()}).get(actor, -1)
            yaw = store.plates[load.main_plate].yaw
            contacts.append(Contact(load, yaw, rows, track, seen.count(event.t_ns, wrist_m)))
    return contacts


def _has_twin(event: TrueEvent, lost: Sequence[TrueEvent], at_m: dict[str, NDArray[np.float64]]) -> bool:
    return any(
        abs(other.t_ns - event.t_ns) < TWIN_NS and math.dist(at_m[other.plate][:2], at_m[event.plate][:2]) < TWIN_M
        for other in lost
    )


def _tracks(rows: Rows, t_ns: int, place_m: dict[int, NDArray[np.float64]]) -> dict[int, int]:
    """The track of each person at an instant."""
    off_ns = np.abs(rows.t_ns - t_ns)
    nearest = {int(rows.track[row]): int(row) for row in np.argsort(-off_ns) if off_ns[row] < 250_000_000}
    if not nearest or not place_m:
        return {}
    tracks, people = list(nearest), list(place_m)
    at_m = np.array([rows.position_m[nearest[track]] for track in tracks])
    cost = np.linalg.norm(at_m[:, None] - np.array([place_m[person] for person in people])[None], axis=2)
    pairs = zip(*linear_sum_assignment(np.where(cost < TRACK_MAX_M, cost, 1e3)))
    return {people[j]: tracks[i] for i, j in pairs if cost[i, j] < TRACK_MAX_M}


class _Cameras:
    """What cameras reported of wrists."""

    def __init__(self, recording: Path, store: Store) -> None:
        self._rig = Rig.from_cameras(store.cameras)
        wrists = store.layout.indices("l_wrist", "r_wrist")
        number = {camera.name: i for i, camera in enumerate(store.cameras)}
        self._frames = [
            (frame.t_ns, number[frame.camera], frame.keypoints[:, wrists].reshape(-1, 3))
            for frame in Recording(recording).observations() if isinstance(frame, Frame) and wrists
        ]  # fmt: skip
        self._t_ns = np.array([t_ns for t_ns, _, _ in self._frames])

    def count(self, t_ns: int, wrist_m: NDArray[np.float64]) -> int:
        """Number of cameras that reported a wrist at this place at this instant."""
        projected = self._rig.project(wrist_m[None])[:, 0]
        first, after = np.searchsorted(self._t_ns, (t_ns - SEEN_NS, t_ns + SEEN_NS))
        saw = set()
        for _, view, wrists in self._frames[first:after]:
            off_px = np.linalg.norm(wrists[:, :2] - projected[view], axis=1)
            if ((off_px < SEEN_PX) & (wrists[:, 2] > 0)).any():
                saw.add(view)
        return len(saw)


def looks_of(contacts: Sequence[Contact], hands: Hands) -> Looks:
    """What the kernel measures at contacts, by the physical model. hands: `PhysicalHands` of the store."""
    contact, acts, log_ratio, features, body_m = [], [], [], [], []
    for index, one in enumerate(contacts):
        near = hands.log_ratios(one.event, one.rows, False)
        load_m = hands.place_m(one.event)
        for hand, looked_at in zip(near, hands.features.copy()):
            own = np.flatnonzero(one.rows.track == hand.track)
            nearest = own[np.argmin(np.abs(one.rows.t_ns[own] - one.event.contact_ns))]
            contact.append(index)
            acts.append(hand.track == one.actor)
            log_ratio.append(hand.log_ratio)
            features.append(looked_at)
            body_m.append(math.dist(one.rows.position_m[nearest], load_m[:2]))
    return Looks(
        np.array(contact, np.int64), np.array(acts, bool), np.array(log_ratio), np.array(features), np.array(body_m),
        np.array([one.n_cameras for one in contacts]),
    )  # fmt: skip


class PhysicalHands(Hands):
    """Hands that are weighed by the physical model alone."""

    trees = HandTrees.none()


def varied(contact: Contact, random: np.random.Generator) -> Contact:
    """The contact as other people and other cameras might have shown it.

    Everyone stands nearer to what they reach for, or further away; arms move faster or slower about the contact; wrists
    err for stretches, claiming more or less than that, and are lost for stretches.
    """
    rows = copy.deepcopy(contact.rows)
    error_m, lost = random.choice([0.0, 0.02, 0.05, 0.08]), random.choice([0.0, 0.0, 0.3, 0.6])
    into = np.array([-math.sin(contact.yaw), math.cos(contact.yaw)])
    for track in np.unique(rows.track):
        own = np.flatnonzero(rows.track == track)
        t_s = (rows.t_ns[own] - contact.event.contact_ns) * 1e-9
        nearer = random.uniform(-0.08, 0.2) * into
        rows.position_m[own] += nearer
        rows.arms_m[own, :, 2, :2] += 0.9 * nearer
        rows.arms_m[own, :, 1, :2] += 0.4 * nearer
        if random.random() < 0.5:
            source = np.searchsorted(t_s, np.clip(t_s * math.exp(random.normal(0.0, 0.5)), t_s[0], t_s[-1]))
            moved = rows.position_m[own] - rows.position_m[own][source]
            rows.arms_m[own] = rows.arms_m[own][source]
            rows.arms_m[own, :, :, :2] += moved[:, None, None]
            rows.sd_m[own] = rows.sd_m[own][source]
        for side in range(2):
            if error_m:
                _err(rows, own, side, t_s, error_m, random)
            if lost and random.random() < lost:
                since = random.uniform(-0.5, 0.3)
                gone = own[(t_s > since) & (t_s < since + random.uniform(0.1, 0.8))]
                joints = slice(1 + (random.random() < 0.3))
                rows.arms_m[gone, side, joints] = np.nan
                rows.sd_m[gone, side, joints] = np.nan
    return replace(contact, rows=rows)


def _err(
    rows: Rows, own: NDArray[np.int64], side: int, t_s: NDArray[np.float64], error_m: float,
    random: np.random.Generator,
) -> None:  # fmt: skip
    """Shift a wrist, and the elbow with it, by an error that changes within 0.4 s."""
    knots_s = np.arange(t_s[0] - random.uniform(0.0, 0.4), t_s[-1] + 0.8, 0.4)
    at_knots = random.normal(0.0, error_m * random.uniform(0.5, 1.5), (len(knots_s), 3))
    off_m = np.stack([np.interp(t_s, knots_s, at_knots[:, axis]) for axis in range(3)], axis=1)
    rows.arms_m[own, side, 0] += off_m
    rows.arms_m[own, side, 1] += 0.6 * off_m
    claimed_m = error_m * random.uniform(0.4, 1.2)
    rows.sd_m[own, side, 0] = np.hypot(rows.sd_m[own, side, 0], claimed_m)
    rows.sd_m[own, side, 1] = np.hypot(rows.sd_m[own, side, 1], 0.6 * claimed_m)
