"""Whom does the engine report when cameras miss people, and what does it invent?

    OMP_NUM_THREADS=1 python -m bench presence                   all rows, two seeds: a few minutes
    OMP_NUM_THREADS=1 python -m bench presence --quick           one short seed
    OMP_NUM_THREADS=1 python -m bench presence --case box2 --seeds 4

Eight cameras, four people; each camera misses each person independently of all others, in every frame by itself or for
stretches of two seconds. People walk in through the door, or are in the shop when the cameras start. Only the tracker
runs. Rows named "reconstruct" locate people from one instant's frames alone, in rooms of three cameras whose detectors
err as real ones do and miss each person 35 % of the time.

Figures, over all seeds:

- told: share of person-instants with a track within 0.5 m on the floor, from the person's first instant inside on;
  confirmed: the same with confirmed tracks only.
- two see: share of person-instants in which at least two cameras find the person in that set of frames; told of two:
  share told of these.
- ghosts: tracks that follow no person, per set of frames. Switches: changes of a person's track, per minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bench.accuracy.people import GATE_M, Instant, TracedSimulation, room, score_identities, sets_of
from fusion.observations import Frame
from fusion.people.tracker import Tracker, reconstruct
from fusion.results import People
from fusion.simulation import REAL_DETECTOR, Scenario, body, demo_store
from fusion.simulation.optics import Lens
from fusion.store.models import Store
from fusion.store.shapes import inside_polygon

# A detection is of the person whose joints lie, in the median, within this of its own at the person's distance.
OWN_M = 0.4
# Every nth set of frames is reconstructed: successive ones hold the same people at the same places.
RECONSTRUCT_EVERY = 5


def _shop(keypoints: str, n_cameras: int = 8) -> Callable[[], Store]:
    # People reach for plates, but their weights are not used here, so they are sampled once a second only.
    return lambda: demo_store(n_cameras, 80, keypoints=keypoints).model_copy(update={"weight_rate_hz": 1.0})


def _small_room() -> Store:
    whole = room(appearance_dim=0)
    return whole.model_copy(update={"keypoints": "coco17", "cameras": whole.cameras[:3]})


@dataclass(frozen=True)
class Case:
    """A row. from_s: seconds of the run that nobody observes; single: reconstruct instants instead of tracking."""

    name: str
    store: Callable[[], Store]
    scenario: dict[str, float]
    from_s: float = 0.0
    duration_s: float = 60.0
    single: bool = False


_FOUR = {"shoppers": 4, "picks_per_person": 60.0, "minutes": 3.0}
_POOR_ROOM = {**REAL_DETECTOR, "false_people": 0, "person_miss_probability": 0.35, "miss_spell_s": 0.0}
_POOR_ROOM |= {"camera_spread": 0.0, "miss_by_distance": 0.0}


def cases() -> Iterator[Case]:
    """All rows of the table."""
    spells = {0.0: (0.0, 0.3, 0.5, 0.6), 2.0: (0.3, 0.5)}
    for keypoints, spell_s in itertools.product(("coco17", "box2"), spells):
        for miss in spells[spell_s]:
            scenario = {**_FOUR, "person_miss_probability": miss, "miss_spell_s": spell_s}
            how = f"{keypoints}, {100 * miss:.0f} % missed" + (" for 2 s" if spell_s else "")
            yield Case(f"{how}, walked in", _shop(keypoints), scenario)
            # By then all four are inside.
            yield Case(f"{how}, there from the start", _shop(keypoints), scenario, from_s=45.0, duration_s=40.0)
    five = {"shoppers": 5, "picks_per_person": 60.0, "minutes": 3.0, **_POOR_ROOM}
    yield Case("reconstruct, room, 3 cameras", _small_room, five, 25.0, 40.0, single=True)
    yield Case("reconstruct, shop, 3 cameras", _shop("coco17", 3), five, 25.0, 40.0, single=True)


class Counts(NamedTuple):
    """Sums over instants; `+` of two adds them by `summed`."""

    instants: int
    people: int
    told: int
    confirmed: int
    two_see: int
    told_of_two: int
    ghosts: int
    switches: int
    seconds: float


def summed(counts: Sequence[Counts]) -> Counts:
    """The sum of counts."""
    return Counts(*(sum(column) for column in zip(*counts)))


def answers(store: Store, sets: Sequence[list[Frame]], single: bool) -> list[People]:
    """What the tracker, or `reconstruct` by itself, reports on each set of frames."""
    tracker = Tracker.of_store(store)
    if not single:
        return [tracker.step(frames) for frames in sets]
    return [reconstruct(tracker.rig, store.layout, frames) for frames in sets]


def measure(case: Case, seed: int, share: float = 1.0) -> Counts:
    """Count one run of a case. share: how much of its duration to run."""
    store = case.store()
    simulation = TracedSimulation(store, Scenario(seed=seed, **case.scenario))  # type: ignore[arg-type]
    start_ns = simulation.scenario.start_ns + round(case.from_s * 1e9)
    end_ns = start_ns + round(share * case.duration_s * 1e9)
    observed = itertools.takewhile(lambda observation: observation.t_ns < end_ns, simulation.observations())
    frames = [o for o in observed if isinstance(o, Frame) and o.t_ns >= start_ns]
    sets = list(sets_of(frames))[:: RECONSTRUCT_EVERY if case.single else 1]
    found = answers(store, sets, case.single)
    return count(store, simulation, sets, found)


def count(store: Store, simulation: TracedSimulation, sets: Sequence[list[Frame]], found: Sequence[People]) -> Counts:
    """Compare what was reported on sets of frames with the truth."""
    t_ns = np.array([people.t_ns for people in found], np.int64)
    numbers, present, places, joints = simulation.people_at(t_ns)
    lenses = {camera.name: Lens.of(camera) for camera in store.cameras}
    instants, confirmed, two_see = [], [], []
    for k, people in enumerate(found):
        rows = np.flatnonzero(present[k])
        inside = np.array([inside_polygon(store.floor, *place) for place in places[k][rows].tolist()], bool)
        on_floor = np.array([inside_polygon(store.floor, *place) for place in people.position_m.tolist()], bool)
        whole = Instant(
            people=numbers[rows], people_m=places[k][rows], people_count=inside,
            tracks=people.track_id, tracks_m=people.position_m, tracks_count=on_floor, identity=people.identity,
        )  # fmt: skip
        instants.append(whole)
        sure = people.confirmed
        only = {"tracks": whole.tracks[sure], "tracks_m": whole.tracks_m[sure], "tracks_count": on_floor[sure]}
        confirmed.append(replace(whole, **only, identity=whole.identity[sure]))
        two_see.append(finders(store, lenses, sets[k], joints[k][rows], places[k][rows]) >= 2)
    score, sure_score = score_identities(instants), score_identities(confirmed)
    told_of_two = sum(int(seen[matched[0]].sum()) for seen, matched in zip(two_see, score.matches))
    n_two = sum(int((seen & now.people_count).sum()) for seen, now in zip(two_see, instants))
    interval_s = float(np.median(np.diff(t_ns))) * 1e-9 if len(t_ns) > 1 else 0.0
    return Counts(
        len(instants), score.n_truth, score.n_truth - score.misses, sure_score.n_truth - sure_score.misses,
        n_two, told_of_two, score.false_positives, score.switches, score.n_truth * interval_s,
    )  # fmt: skip


def finders(
    store: Store, lenses: dict[str, Lens], frames: Sequence[Frame], joints_m: np.ndarray, places_m: np.ndarray
) -> np.ndarray:
    """(n_people,) number of cameras that find each person. joints_m: (n_people, all body.JOINTS, 3)."""
    found = np.zeros(len(joints_m), np.int64)
    boxes = store.keypoints == "box2"
    used = [body.JOINT["head_top"], body.JOINT["mid_hip"]] if boxes else body.layout_joints(store.layout)
    for frame in frames:
        if not len(frame.keypoints) or not len(joints_m):
            continue
        lens = lenses[frame.camera]
        points_px, depth_m = lens.project(joints_m[:, used])
        seen = frame.keypoints[..., 2] > 0
        gap_px = np.linalg.norm(frame.keypoints[:, None, :, :2] - points_px[None], axis=3)
        if boxes:
            # The lower edge may be a shelf's: only across, and the top.
            across = np.abs(frame.keypoints[:, None, :, 0] - points_px[None, ..., 0])
            gap_px = np.stack([gap_px[..., 0], across[..., 1]], -1)
        gap_m = gap_px * depth_m[None] / lens.camera.matrix[0][0]
        gap_m[~np.broadcast_to(seen[:, None], gap_m.shape) | np.isnan(gap_m)] = np.nan
        # Pairs without a common joint are far apart.
        gap_m[np.isnan(gap_m).all(axis=2)] = math.inf
        apart_m = np.nanmedian(gap_m, axis=2)
        # Each detection is of the nearest person, each person is found once by a camera.
        nearest = apart_m.argmin(axis=1)
        found[np.unique(nearest[apart_m.min(axis=1) < OWN_M])] += 1
    return found


_HEAD = "| case | people | told % | confirmed % | two see % | told of two % | ghosts a set | switches /min |"


def row(name: str, c: Counts) -> str:
    """A line of the table."""
    people, two = max(c.people, 1), max(c.two_see, 1)
    shares = (100 * c.told / people, 100 * c.confirmed / people, 100 * c.two_see / people, 100 * c.told_of_two / two)
    cells = [f"{c.people / max(c.instants, 1):.1f}", *(f"{value:.2f}" for value in shares)]
    # Without history, a person has another number in each instant.
    switches = f"{60 * c.switches / max(c.seconds, 1e-9):.2f}" if c.confirmed else "-"
    cells += [f"{c.ghosts / max(c.instants, 1):.4f}", switches]
    return f"| {name} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark of presence from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, the first half of each run")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--case", default="", help="only rows whose name contains this")
    args = parser.parse_args(arguments)
    n_seeds = args.seeds or (1 if args.quick else 2)
    started_s = time.perf_counter()
    lines = [_HEAD, "|---|" + "---:|" * 7]
    for case in cases():
        if args.case not in case.name:
            continue
        counts = [measure(case, seed, 0.5 if args.quick else 1.0) for seed in range(1, n_seeds + 1)]
        lines.append(row(case.name, summed(counts)))
        print(json.dumps({"case": case.name, **summed(counts)._asdict()}), file=sys.stderr, flush=True)
    print("\n".join(lines))
    print(f"\n{n_seeds} seeds in {time.perf_counter() - started_s:.0f} s; told within {GATE_M} m")
