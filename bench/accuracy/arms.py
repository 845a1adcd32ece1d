"""Wrists and elbows at the moment of contact: as recorded and as smoothed, with their deviations.

    OMP_NUM_THREADS=1 python -m bench arms --cache build/visits --case crowd,occluded --seeds 1,2

At every true movement of goods, joints of the hand that moved them (actor), and of both arms of everyone else within
reach (other), are compared with the true ones. Errors are distances, deviations the root mean square over directions.
NEES is the squared error over three times the squared deviation: 1 where deviations are honest. "well seen" and "badly
seen": the tracker's deviation of the wrist is below or above 4.5 cm.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from bench.accuracy.followed import followed
from bench.accuracy.scenarios import CASES, recorded, run_of
from bench.accuracy.truth import true_events
from fusion.files.recordings import Recording
from fusion.people.arms import ArmHistory
from fusion.results import People
from fusion.store.models import Store

REACH_M = 1.3
# A track is the person whose shoulders are this near.
SAME_M = 0.35
BADLY_SEEN_M = 0.045
# A load is reported about this long after its contact.
REPORTED_AFTER_NS = 500_000_000


class Joint(NamedTuple):
    """One joint at one contact: who, how the tracker saw the wrist, and (recorded, smoothed) errors and deviations."""

    who: str
    joint: str
    wrist_sd_m: float
    error_m: tuple[float, float]
    sd_m: tuple[float, float]


class Truth:
    """True arms of everyone, at any instant."""

    def __init__(self, recording: Path, store: Store) -> None:
        arms = [store.layout.indices(f"{side}_wrist", f"{side}_elbow", f"{side}_shoulder") for side in ("l", "r")]
        table = pq.read_table(recording / "truth" / "people.parquet")
        person, t_ns = table["person"].to_numpy(), table["time"].to_numpy()
        joints = np.asarray(table["keypoints"].combine_chunks().flatten()).reshape(len(t_ns), -1, 3)
        account = table["account"].to_pylist()
        self.paths = [
            (account[int(rows[0])], t_ns[rows], joints[rows][:, np.array(arms)])
            for rows in (np.flatnonzero(person == number) for number in np.unique(person))
        ]

    def at(self, t_ns: int) -> Iterator[tuple[str | None, np.ndarray]]:
        """Account and arms (2, 3, 3) of everyone present."""
        for account, times, arms in self.paths:
            after = int(np.searchsorted(times, t_ns))
            if 0 < after < len(times):
                share = (t_ns - times[after - 1]) / (times[after] - times[after - 1])
                yield account, (1.0 - share) * arms[after - 1] + share * arms[after]


def joints_at_contacts(people: Sequence[People], recording: Path, store: Store) -> Iterator[Joint]:
    """Every wrist and elbow within reach at every true contact."""
    history = ArmHistory(store.layout, span_s=1e6, capacity=sum(len(instant.track_id) for instant in people) + 1)
    instants_ns = np.array([instant.t_ns for instant in people])
    plates = {plate.plate: np.array([plate.x, plate.y]) for plate in store.plates}
    truth, fed = Truth(recording, store), 0
    for event in sorted(true_events(recording), key=lambda event: event.t_ns):
        while fed < len(people) and instants_ns[fed] <= event.t_ns + REPORTED_AFTER_NS:
            history.append(people[fed])
            fed += 1
        at_ns = int(instants_ns[np.argmin(np.abs(instants_ns - event.t_ns))])
        rows, place_m = history.between(event.t_ns - 350_000_000, event.t_ns + 350_000_000), plates[event.plate]
        smoothed = history.smoothed(rows, place_m, REACH_M)
        here = np.flatnonzero(history.t_ns[rows] == at_ns)
        recorded_m, recorded_sd_m = history.arms_m[rows][here], history.sd_m[rows][here]
        near = np.hypot(*(history.position_m[rows][here] - place_m).T) < REACH_M
        for account, true_m in truth.at(at_ns):
            off_m = np.hypot(*(recorded_m[:, :, 2, :2].mean(axis=1) - true_m[:, 2, :2].mean(axis=0)).T)
            off_m[~(off_m < SAME_M)] = np.inf
            if not len(off_m) or not near[np.argmin(off_m)] or np.isinf(off_m.min()):
                continue
            row = int(np.argmin(off_m))
            acts = account is not None and account == event.account
            nearest = int(np.argmin(np.hypot(*(true_m[:, 0, :2] - place_m).T)))
            for side in [nearest] if acts else (0, 1):
                for joint, name in enumerate(("wrist", "elbow")):
                    places_m = recorded_m[row, side, joint], smoothed.arms_m[here[row], side, joint]
                    errors_m = [float(np.linalg.norm(place - true_m[side, joint])) for place in places_m]
                    yield Joint(
                        "actor" if acts else "other", name, float(recorded_sd_m[row, side, 0]),
                        (errors_m[0], errors_m[1]),
                        (float(recorded_sd_m[row, side, joint]), float(smoothed.sd_m[here[row], side, joint])),
                    )  # fmt: skip


def table(groups: dict[tuple[str, str, str, str], list[Joint]]) -> str:
    """A row for each case, person, joint and way of seeing."""
    lines = [
        "| case | person | joint | seen | n | recorded: p50, p90, p99 cm | NEES | smoothed: p50, p90, p99 cm | NEES |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for names, joints in groups.items():
        cells = [*names, str(len(joints))]
        for which in (0, 1):
            error = np.array([joint.error_m[which] for joint in joints])
            sd = np.array([joint.sd_m[which] for joint in joints])
            known = np.isfinite(error) & np.isfinite(sd)
            if not known.any():
                cells += ["-", "-"]
                continue
            cells.append(", ".join(f"{100 * x:.1f}" for x in np.quantile(error[known], (0.5, 0.9, 0.99))))
            cells.append(f"{np.mean(error[known] ** 2 / sd[known] ** 2) / 3:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark of arms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default=",".join(case.name for case in CASES), help="cases, comma between")
    parser.add_argument("--seeds", default="1", help="seeds, comma between")
    parser.add_argument("--cache", type=Path, default=Path("build/visits"), help="folder of recordings")
    args = parser.parse_args(arguments)
    groups: defaultdict[tuple[str, str, str, str], list[Joint]] = defaultdict(list)
    for case in (case for case in CASES if case.name in args.case.split(",")):
        for seed in map(int, args.seeds.split(",")):
            recording = recorded(run_of(case, seed), args.cache)
            opened = Recording(recording)
            store = opened.store
            steps = followed(store, opened.observations(), recording)
            people = [step.people for step in steps if step.people is not None]
            for joint in joints_at_contacts(people, recording, store):
                seen = "well seen" if joint.wrist_sd_m < BADLY_SEEN_M else "badly seen"
                groups[case.name, joint.who, joint.joint, seen].append(joint)
    print(table(groups))


if __name__ == "__main__":
    main()
