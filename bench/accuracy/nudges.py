"""Cameras that are nudged while a shop is open: put right by what people show, and what receipts are worth until then.

    OMP_NUM_THREADS=1 python -m bench nudges                     one run of each kind: some five minutes
    OMP_NUM_THREADS=1 python -m bench nudges --runs 5 --out docs/figures
    OMP_NUM_THREADS=1 python -m bench nudges --kind "5 degrees"

A shop of six cameras is simulated for four minutes; after 20 s one camera (or two) is nudged, which is simulated as
well, or its picture is changed in a way that is no nudge. A run is given to an engine that corrects and to one that
only reports.

Columns:

- corrected: cameras that are used with a new pose at the end, of those that were nudged; after: median seconds from the
  nudge; error: median and largest difference to where they really hang.
- wrong: cameras that were corrected, are used at the end, and are more than 0.5 degrees or 5 cm from where they hang,
  or whose picture is not theirs.
- reported: runs in which a warning names each such camera.
- receipts: right / review / wrong of the shoppers who checked in, where the engine corrects, and where it only reports;
  wrong is what is settled wrong and was not without the nudge.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.faults import Outcome, answered, judged
from fusion.observations import Frame, Observation
from fusion.people.geometry import Rig
from fusion.people.pose_search import Pose
from fusion.results import CorrectionStatus, Warning
from fusion.simulation import Scenario, demo_store
from fusion.simulation.faults import Run
from fusion.store.models import CalibrationPolicy, Camera, Store
from fusion.store.rotations import rotation_matrix, rotation_vector

MINUTES, SHOPPERS, RATE_HZ, NUDGED_S = 4.0, 10, 8.0, 20.0
TURN_MAX_DEG, SHIFT_MAX_M = 0.5, 0.05
Change = Callable[[Run, int], tuple[list[Observation], dict[str, Pose | None]]]


@dataclass(frozen=True)
class Kind:
    """A way to nudge cameras, or to spoil a picture: what arrives then, and where the cameras really hang (None: the
    picture is not the camera's)."""

    name: str
    change: Change


def _store() -> Store:
    return demo_store(n_cameras=6, n_plates=20)


def _scenario(seed: int) -> Scenario:
    return Scenario(seed=seed, minutes=MINUTES, shoppers=SHOPPERS, frame_rate_hz=RATE_HZ)


def _names(run: Run, n: int) -> list[str]:
    """The cameras that find most people."""
    found = {camera.name: 0 for camera in run.store.cameras}
    for observation in run.observations:
        if isinstance(observation, Frame):
            found[observation.camera] += len(observation.keypoints)
    return sorted(found, key=lambda name: -found[name])[:n]


def _hung(camera: Camera, turn_deg: float, axis: Sequence[float], shift_m: Sequence[float]) -> Camera:
    rotation = rotation_matrix(camera.rotation)
    centre = -rotation.T @ np.array(camera.translation) + shift_m
    rotation = rotation_matrix(math.radians(turn_deg) * np.array(axis)) @ rotation
    vector, translation = rotation_vector(rotation), -rotation @ centre
    update = {"rotation": tuple(vector.tolist()), "translation": tuple(translation.tolist())}
    return camera.model_copy(update=update)


def _from(run: Run) -> int:
    return run.observations[0].t_ns + round(NUDGED_S * 1e9)


def _nudged(
    turn_deg: float, axis: Sequence[float] = (0.0, 1.0, 0.0), shift_m: Sequence[float] = (0.0, 0.0, 0.0), n: int = 1
) -> Change:
    def change(run: Run, seed: int) -> tuple[list[Observation], dict[str, Pose | None]]:
        names, from_ns = _names(run, n), _from(run)
        cameras = tuple(_hung(c, turn_deg, axis, shift_m) if c.name in names else c for c in run.store.cameras)
        other = Run.of(run.store.model_copy(update={"cameras": cameras}), _scenario(seed))

        def is_moved(o: Observation) -> bool:
            return isinstance(o, Frame) and o.camera in names and o.t_ns >= from_ns

        kept = [o for o in run.observations if not is_moved(o)] + [o for o in other.observations if is_moved(o)]
        rig = Rig.from_cameras(cameras)
        return sorted(kept, key=lambda o: o.t_ns), {
            name: Pose.of(rig.camera_from_world[rig.names.index(name)]) for name in names
        }

    return change


def _spoilt(picture: Callable[[Run, Frame], Frame]) -> Change:
    def change(run: Run, seed: int) -> tuple[list[Observation], dict[str, Pose | None]]:
        [name], from_ns = _names(run, 1), _from(run)

        def spoilt() -> Iterator[Observation]:
            for o in run.observations:
                yield picture(run, o) if isinstance(o, Frame) and o.camera == name and o.t_ns >= from_ns else o

        return list(spoilt()), {name: None}

    return change


def _placed(frame: Frame, points: np.ndarray) -> Frame:
    keypoints = frame.keypoints.copy()
    keypoints[..., :2] = np.where(keypoints[..., 2:] > 0, points, 0.0)
    return replace(frame, keypoints=keypoints)


def _zoomed(run: Run, frame: Frame) -> Frame:
    size = next(np.array(c.size) for c in run.store.cameras if c.name == frame.camera)
    return _placed(frame, (frame.keypoints[..., :2] - size / 2) * 1.2 + size / 2)


def _mirrored(run: Run, frame: Frame) -> Frame:
    width = next(c.size[0] for c in run.store.cameras if c.name == frame.camera)
    return _placed(frame, np.stack([width - 1 - frame.keypoints[..., 0], frame.keypoints[..., 1]], -1))


def _covered(run: Run, frame: Frame) -> Frame:
    return replace(frame, keypoints=frame.keypoints[:0])


def _other_room(run: Run, seed: int) -> tuple[list[Observation], dict[str, Pose | None]]:
    [name], from_ns = _names(run, 1), _from(run)
    other = Run.of(run.store, _scenario(seed + 5000))

    def shown(o: Observation) -> bool:
        return isinstance(o, Frame) and o.camera == name and o.t_ns >= from_ns

    kept = [o for o in run.observations if not shown(o)] + [o for o in other.observations if shown(o)]
    return sorted(kept, key=lambda o: o.t_ns), {name: None}


def _swapped(run: Run, seed: int) -> tuple[list[Observation], dict[str, Pose | None]]:
    first, second = _names(run, 2)
    names, from_ns = {first: second, second: first}, _from(run)
    swapped = [
        replace(o, camera=names[o.camera]) if isinstance(o, Frame) and o.camera in names and o.t_ns >= from_ns else o
        for o in run.observations
    ]
    return swapped, {first: None, second: None}


def _sagging(degrees_per_minute: float) -> Change:
    """Turned a little more with every frame; rays turn about the centre, and the lens stays."""

    def change(run: Run, seed: int) -> tuple[list[Observation], dict[str, Pose | None]]:
        [name], from_ns = _names(run, 1), _from(run)
        [camera] = [c for c in run.store.cameras if c.name == name]
        rig, turn = Rig.from_cameras([camera]), 0.0
        out: list[Observation] = []
        for o in run.observations:
            if isinstance(o, Frame) and o.camera == name and o.t_ns >= from_ns:
                turn = math.radians(degrees_per_minute) * (o.t_ns - from_ns) / 60e9
                rays = rig.normalise(o.keypoints[..., :2].reshape(1, -1, 2).astype(np.float64))[0]
                rays = np.column_stack([rays, np.ones(len(rays))]) @ rotation_matrix([turn, 0.0, 0.0]).T
                points = rig.distort((rays[:, :2] / rays[:, 2:])[None])[0].reshape(*o.keypoints.shape[:2], 2)
                o = _placed(o, np.nan_to_num(points))
            out.append(o)
        return out, {name: Pose(rotation_matrix([turn, 0.0, 0.0]) @ rig.camera_from_world[0, :, :3], rig.centres_m[0])}

    return change


KINDS = (
    Kind("2 degrees", _nudged(2.0)),
    Kind("5 degrees", _nudged(5.0, (1.0, 0.0, 0.0))),
    Kind("15 degrees", _nudged(15.0)),
    Kind("rolled by 5 degrees", _nudged(5.0, (0.0, 0.0, 1.0))),
    Kind("4 degrees and 15 cm", _nudged(4.0, (0.0, 1.0, 0.0), (0.1, -0.1, -0.05))),
    Kind("two cameras, 4 degrees", _nudged(4.0, n=2)),
    Kind("sags by 0.5 degrees a minute", _sagging(0.5)),
    Kind("turned by 60 degrees", _nudged(60.0)),
    Kind("zoomed by 1.2", _spoilt(_zoomed)),
    Kind("mirrored", _spoilt(_mirrored)),
    Kind("covered", _spoilt(_covered)),
    Kind("another room", _other_room),
    Kind("two cameras swapped", _swapped),
)


@dataclass(frozen=True)
class Nudge:
    """What became of one run: of each camera, its error (radians, metres) where it is used with a new pose."""

    n_cameras: int
    after_s: list[float]
    errors: list[tuple[float, float]]
    wrong: int
    reported: bool
    correcting: Outcome
    reporting: Outcome


def nudge(kind: Kind, seed: int) -> tuple[Nudge, Outcome]:
    """One run of a kind, and the outcome without it."""
    run = Run.of(_store(), _scenario(seed))
    observations, hung = kind.change(run, seed)
    clean = judged(run, *answered(run.store, run.observations))
    reporting = run.store.model_copy(update={"calibration": CalibrationPolicy(moved="report")})
    engine, results, refused = answered(run.store, observations)
    after_s, errors, wrong = [], [], 0
    given = Rig.from_cameras(run.store.cameras)
    poses = {}
    for correction in engine.health().corrections:
        if correction.status is CorrectionStatus.CORRECTED and correction.camera in hung:
            after_s.append((correction.t_ns - _from(run)) * 1e-9)
            assert correction.rotation_after is not None and correction.translation_after is not None
            rotation = rotation_matrix(correction.rotation_after)
            poses[correction.camera] = Pose(rotation, -rotation.T @ np.array(correction.translation_after))
    for state in engine.health().cameras:
        view = given.names.index(state.name)
        pose = poses.get(state.name, Pose.of(given.camera_from_world[view]))
        real = hung.get(state.name, Pose.of(given.camera_from_world[view]))
        if not state.corrected:
            continue
        if real is None:
            wrong += 1
            continue
        error = pose.turn_from(real), pose.shift_from_m(real)
        errors.append(error)
        wrong += math.degrees(error[0]) > TURN_MAX_DEG or error[1] > SHIFT_MAX_M
    named = {w.subject for w in results if isinstance(w, Warning) and w.kind.startswith("camera")}
    outcome = judged(run, engine, results, refused)
    other = judged(run, *answered(reporting, observations))
    return Nudge(len(hung), after_s, errors, wrong, named >= hung.keys(), outcome, other), clean


def row_of(kind: Kind, seeds: Sequence[int]) -> dict[str, Any]:
    """All runs of a kind as a row, ready for JSON."""
    found = [nudge(kind, seed) for seed in seeds]
    after_s = sorted(s for one, _ in found for s in one.after_s)
    errors = sorted(error for one, _ in found for error in one.errors)
    shifts = sorted(shift for _, shift in errors)

    def receipts(of: Callable[[Nudge], Outcome]) -> list[int]:
        wrong = sum(len(of(one).settled_wrong_beyond(clean)) for one, clean in found)
        return [sum(of(one).count(key) for one, _ in found) for key in ("right", "review")] + [wrong]

    return {
        "kind": kind.name, "cameras": sum(one.n_cameras for one, _ in found), "corrected": len(errors),
        "after_s": after_s[len(after_s) // 2] if after_s else None,
        "turn_deg": [math.degrees(errors[len(errors) // 2][0]), math.degrees(errors[-1][0])] if errors else None,
        "shift_cm": [100 * shifts[len(shifts) // 2], 100 * shifts[-1]] if errors else None,
        "wrong": sum(one.wrong for one, _ in found), "reported": sum(one.reported for one, _ in found),
        "runs": len(found), "correcting": receipts(lambda one: one.correcting),
        "reporting": receipts(lambda one: one.reporting),
        "clean": [sum(clean.count(key) for _, clean in found) for key in ("right", "review", "wrong")],
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One line per kind."""
    lines = [
        "| what happens | corrected | after, s | turn off, deg | off, cm | wrong | reported | receipts | reporting |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        after = "-" if row["after_s"] is None else f"{row['after_s']:.0f}"
        turn, shift = (
            "-" if row[key] is None else "{:.2f}, {:.2f}".format(*row[key]) for key in ("turn_deg", "shift_cm")
        )
        correcting, reporting = (" / ".join(map(str, row[key])) for key in ("correcting", "reporting"))
        lines.append(
            f"| {row['kind']} | {row['corrected']} of {row['cameras']} | {after} | {turn} | {shift} | {row['wrong']} | "
            f"{row['reported']} of {row['runs']} | {correcting} | {reporting} |"
        )
    clean = " / ".join(str(sum(row["clean"][i] for row in rows)) for i in range(3))
    return "\n".join([*lines, "", f"Without a nudge, all runs together: {clean}."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", default=[""], help="only kinds whose name contains one of these")
    parser.add_argument("--runs", type=int, default=1, help="runs of each kind")
    parser.add_argument("--out", type=Path, help="folder for the table and its figures as JSON")
    args = parser.parse_args(arguments)
    started_s, rows = time.perf_counter(), []
    for kind in KINDS:
        if any(word in kind.name for word in args.kind):
            rows.append(row_of(kind, range(1, args.runs + 1)))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(markdown(rows))
    if args.out:
        command = f"python -m bench nudges --runs {args.runs} --out {args.out}"
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "nudges.json").write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n", "utf-8")
        columns = (__doc__ or "").partition("Columns:\n\n")[2].strip()
        text = f"# Cameras that are nudged\n\nMade by `{command}`.\n\n{markdown(rows)}\n\n{columns}\n"
        (args.out / "nudges.md").write_text(text, "utf-8")
    print(f"\n{len(rows)} kinds in {time.perf_counter() - started_s:.0f} s", file=sys.stderr)
