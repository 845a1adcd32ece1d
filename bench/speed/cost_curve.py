"""What a step costs over cameras and people: median, p99 and worst, as a table and a plot.

    OMP_NUM_THREADS=1 python -m bench cost_curve                        all sizes: about four minutes
    OMP_NUM_THREADS=1 python -m bench cost_curve --cameras 100 --people 100
    OMP_NUM_THREADS=1 python -m bench cost_curve --out docs/figures     writes cost_curve.md, .json and .svg

Up to 28 cameras and 16 people share one room that every camera looks at. Larger sizes are a hall with cameras in a grid
on the ceiling, tilted in all directions and spaced so that each person is in about eight views, as real shops grow. A
size at which one camera would see more than 40 people is left out. Detections are walking skeletons, projected through
the lenses at each camera's own time, with noise, misses and ghosts. Each person vanishes for five seconds a minute and
has to be found again. Tracks are checked against the truth before a figure is printed.

Two things are timed on the same frames: `Tracker.step`, and the whole engine step of a store without plates (order,
people, visits). Times are CPU times of the thread. Every repeat does the same work, so each set's time is its minimum
over the repeats, which removes other programs' influence and keeps what is slow in itself. The first second, in which
all tracks begin, is reported separately.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from bench.machine import machine
from fusion.engine import Engine
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.people.tracker import Tracker
from fusion.results import People
from fusion.simulation import body, demo_store
from fusion.store.models import Camera, Store

CAMERAS = (4, 8, 12, 28, 50, 100, 200)
PEOPLE = (2, 8, 16, 50, 100)
RATE_HZ = 15.0
START_NS = 1_767_258_000_000_000_000
# The hall: a camera 3.2 m up, tilted by 40 degrees from the vertical, sees people on about 40 m2.
CEILING_M, TILT = 3.2, math.radians(40.0)
VIEWS_WANTED = 8.0
AREA_EACH_M2 = 3.0
IN_VIEW_MAX = 40.0
# A detector finds a person with at least this many joints in the picture.
JOINTS_FOUND = 8
AWAY_S, EVERY_S = 5.0, 60.0
WARM_UP_SETS = round(RATE_HZ)


@dataclass(frozen=True)
class Scene:
    """A store, its rig, and walkers who each stay in their own cell."""

    store: Store
    rig: Rig
    homes_m: np.ndarray
    radius_m: float
    stature_m: np.ndarray
    phase: np.ndarray
    camera_delay_s: np.ndarray

    @property
    def n_people(self) -> int:
        """Number of walkers."""
        return len(self.homes_m)

    def present(self, t_s: np.ndarray) -> np.ndarray:
        """(n_people, ...) whether each person is in the hall."""
        offset = np.arange(self.n_people) * EVERY_S / self.n_people
        return (t_s + offset.reshape(-1, *[1] * np.ndim(t_s))) % EVERY_S > AWAY_S

    def states(self, person: np.ndarray, t_s: np.ndarray) -> np.ndarray:
        """(n, channels) body states of people (n,) at times (n,): walking around their cells."""
        speed = 0.7
        angle = self.phase[person] + speed / self.radius_m * t_s
        out = np.zeros((len(person), len(body.CHANNELS)))
        out[:, body.CHANNEL["x"]] = self.homes_m[person, 0] + self.radius_m * np.cos(angle)
        out[:, body.CHANNEL["y"]] = self.homes_m[person, 1] + self.radius_m * np.sin(angle)
        out[:, body.CHANNEL["yaw"]] = angle + math.pi / 2
        out[:, body.CHANNEL["stride"]] = 0.16
        out[:, body.CHANNEL["phase"]] = 6.0 * t_s + self.phase[person]
        return out


def ceiling_camera(name: str, x: float, y: float, heading: float) -> Camera:
    """A wide lens under the ceiling, tilted towards a heading."""
    down = -math.cos(TILT)
    forward = np.array([math.sin(TILT) * math.cos(heading), math.sin(TILT) * math.sin(heading), down])
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(
        name=name,
        size=(1280, 720),
        matrix=((640.0, 0.0, 640.0), (0.0, 640.0, 360.0), (0.0, 0.0, 1.0)),
        distortions=(-0.07, 0.01, 1e-4, -1e-4, 0.0),
        rotation=tuple(Rotation.from_matrix(rotation).as_rotvec().tolist()),  # type: ignore[arg-type]
        translation=tuple((-rotation @ np.array([x, y, CEILING_M])).tolist()),
    )


def hall(n_cameras: int, spacing_m: float) -> Store:
    """A hall without shelves; its cameras form a nearly square grid that ends half a spacing from the walls."""
    columns = math.ceil(math.sqrt(n_cameras))
    rows = math.ceil(n_cameras / columns)
    width, depth = columns * spacing_m, rows * spacing_m
    cameras = []
    for i in range(n_cameras):
        row, column = divmod(i, columns)
        in_row = min(columns, n_cameras - row * columns)
        x = (column + 0.5) * width / in_row
        # The golden angle: no two neighbours have the same heading.
        cameras.append(ceiling_camera(f"cam{i + 1:03d}", x, (row + 0.5) * spacing_m, i * 2.399963))
    floor = ((0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth))
    return demo_store(1, 1).model_copy(
        update={"cameras": tuple(cameras), "floor": floor, "gate": (), "zone": (), **_BARE}
    )


_BARE = {"plates": (), "products": (), "planogram": ()}


def views_of(rig: Rig, points_m: np.ndarray) -> np.ndarray:
    """(n,) number of cameras whose picture contains the middle of a person standing at each place (n, 2)."""
    middle = np.column_stack([points_m, np.ones(len(points_m))])
    with np.errstate(invalid="ignore"):
        at = rig.project(middle)
        inside = ((at >= 0) & (at < rig.size_px[:, None])).all(axis=2)
    return np.asarray(inside.sum(axis=0))


def make_scene(n_cameras: int, n_people: int) -> Scene | None:
    """The scene of a size; None if a camera would see too many people at once."""
    random = np.random.default_rng([n_cameras, n_people])
    in_one_room = n_cameras <= 28 and n_people <= 16
    if in_one_room:
        store = demo_store(n_cameras, 1).model_copy(update={"obstacle": demo_store(1, 1).obstacle, **_BARE})
        low, size = np.array([0.8, 0.8]), np.array([6.4, 4.4])
    else:
        if n_people * min(VIEWS_WANTED, n_cameras) / n_cameras > IN_VIEW_MAX:
            return None
        narrow, wide = 0.5, 8.0
        for _ in range(12):
            spacing_m = math.sqrt(narrow * wide)
            store = hall(n_cameras, spacing_m)
            spots = random.uniform(0.0, 1.0, (400, 2)) * np.array(store.floor[2])
            crowded = views_of(Rig.from_cameras(store.cameras), spots).mean() > VIEWS_WANTED
            narrow, wide = (spacing_m, wide) if crowded else (narrow, spacing_m)
        # A lower limit to the floor area per person, since people keep some distance.
        low, size = np.zeros(2), np.array(store.floor[2])
        if size.prod() / n_people < AREA_EACH_M2 / 2:
            return None
    columns = max(1, round(math.sqrt(n_people * size[0] / size[1])))
    rows = math.ceil(n_people / columns)
    cell = size / [columns, rows]
    spots = np.array([[i % columns + 0.5, i // columns + 0.5] for i in range(n_people)])
    return Scene(
        store=store,
        rig=Rig.from_cameras(store.cameras),
        homes_m=low + spots * cell,
        radius_m=float(0.32 * cell.min()),
        stature_m=random.normal(1.7, 0.08, n_people),
        phase=random.uniform(0.0, 2 * math.pi, n_people),
        camera_delay_s=random.uniform(0.0, 0.8 / RATE_HZ, n_cameras),
    )


def frame_sets(scene: Scene, n_sets: int) -> Iterator[list[Frame]]:
    """Sets of frames in order of time, one frame of every camera each."""
    random = np.random.default_rng(7)
    rig, used = scene.rig, body.layout_joints(scene.store.layout)
    n_views, n_joints = rig.n_views, len(used)
    person_numbers, views = np.arange(scene.n_people), np.arange(n_views)
    margin_px = 0.5 * rig.size_px[:, None]
    outline = _outline(scene)
    for k in range(n_sets):
        t_s = k / RATE_HZ + scene.camera_delay_s + 0.001 * random.standard_normal(n_views)
        # Project only people whose middle is in the picture or near it.
        states = scene.states(person_numbers, np.full(scene.n_people, k / RATE_HZ))
        middle = np.column_stack([states[:, :2], np.ones(scene.n_people)])
        with np.errstate(invalid="ignore"):
            at = rig.project(middle)
            near = ((at > -margin_px) & (at < rig.size_px[:, None] + margin_px)).all(axis=2)
        view, person = np.nonzero(near & scene.present(t_s).T)
        joints = body.joints_m(scene.states(person, t_s[view]), scene.stature_m[person])[:, used]
        pairs = Rig(
            tuple(str(v) for v in view), rig.camera_from_world[view], rig.image_from_camera[view],
            rig.distortions[view], rig.size_px[view],
        )  # fmt: skip
        in_camera = np.einsum("pij,pkj->pki", pairs.camera_from_world[:, :, :3], joints)
        in_camera += pairs.camera_from_world[:, None, :, 3]
        depth = in_camera[..., 2]
        points_px = pairs.distort(in_camera[..., :2] / np.maximum(depth, 0.1)[..., None])
        sd_px = np.hypot(0.6, 0.012 * 640.0 / np.maximum(depth, 0.3))[..., None]
        points_px = points_px + sd_px * random.standard_normal(points_px.shape)
        inside = ((points_px >= 0) & (points_px < pairs.size_px[:, None])).all(axis=2) & (depth > 0.1)
        inside &= random.random(inside.shape) > 0.04
        found = (inside.sum(axis=1) >= JOINTS_FOUND) & (random.random(len(view)) > 0.02)
        score = np.clip(random.normal(0.88, 0.06, inside.shape), 0.3, 1.0)
        keypoints = np.where(inside[..., None], np.concatenate([points_px, score[..., None]], 2), 0.0)[found]
        view = view[found]
        ghosts = random.poisson(0.01, n_views)
        if ghosts.any():
            ghost_view = np.repeat(views, ghosts)
            shape = outline[random.integers(len(outline), size=len(ghost_view))]
            place = random.uniform(0.2, 0.8, (len(ghost_view), 1, 2)) * rig.size_px[ghost_view][:, None]
            ghost_keypoints = np.concatenate([place + shape, np.full((len(ghost_view), n_joints, 1), 0.4)], 2)
            keypoints, view = np.concatenate([keypoints, ghost_keypoints]), np.concatenate([view, ghost_view])
        order = np.lexsort((random.random(len(view)), view))
        keypoints = keypoints[order].astype(np.float32)
        cuts = np.searchsorted(view[order], np.arange(n_views + 1)).tolist()
        t_ns = (START_NS + np.rint(t_s * 1e9)).astype(np.int64).tolist()
        frames = [Frame(t_ns[v], rig.names[v], keypoints[cuts[v] : cuts[v + 1]]) for v in range(n_views)]
        yield sorted(frames, key=lambda frame: frame.t_ns)


def _outline(scene: Scene) -> np.ndarray:
    """(n, K, 2) shapes of people in pixels, relative to their middle, a third of a picture high."""
    joints = body.joints_m(scene.states(np.zeros(8, int), np.arange(8.0)), np.full(8, 1.7))
    joints = joints[:, body.layout_joints(scene.store.layout)]
    flat = np.stack([joints[..., 1], -joints[..., 2]], -1)
    return np.asarray(140.0 * (flat - flat.mean(axis=1, keepdims=True)))


# ---- timing ----------------------------------------------------------------------------------------------------------


def share_followed(scene: Scene, answers: Sequence[People]) -> float:
    """Share of the people present with a track within 0.3 m, after the first second."""
    found = total = 0
    for people in answers[WARM_UP_SETS:]:
        t_s = np.full(scene.n_people, (people.t_ns - START_NS) * 1e-9)
        place = scene.states(np.arange(scene.n_people), t_s)[:, :2]
        # People who came back within the last 0.2 s have no confirmed track yet.
        expected = scene.present(t_s[0]) & scene.present(t_s[0] - 0.2)
        distance_m = np.linalg.norm(place[expected][:, None] - people.position_m[None], axis=2)
        found += int((distance_m.min(axis=1, initial=9.0) < 0.3).sum())
        total += int(expected.sum())
    return found / max(total, 1)


def time_tracker(scene: Scene, sets: list[list[Frame]]) -> tuple[np.ndarray, list[People]]:
    """(n_sets,) microseconds of each step, and the tracker's answers."""
    tracker, step_us, answers = Tracker.of_store(scene.store), np.empty(len(sets)), []
    for k, frames in enumerate(sets):
        started_ns = time.thread_time_ns()
        people = tracker.step(frames)
        step_us[k] = (time.thread_time_ns() - started_ns) * 1e-3
        answers.append(people)
    return step_us, answers


def time_engine(scene: Scene, sets: list[list[Frame]]) -> np.ndarray:
    """(n_sets,) microseconds of each step of a whole engine, by its own stopwatch."""
    ticks: list[int] = []

    def stopwatch() -> int:
        ticks.append(time.thread_time_ns())
        return ticks[-1]

    engine = Engine(scene.store, stopwatch_ns=stopwatch)
    for frames in sets:
        for frame in frames:
            engine.feed(frame)
    engine.close()
    return np.diff(np.array(ticks).reshape(-1, 2), axis=1)[:, 0] * 1e-3


def measure(n_cameras: int, n_people: int, n_sets: int, repeats: int) -> dict[str, float] | None:
    """Figures of one size; None if a camera would see too many people. AssertionError if people are not followed."""
    scene = make_scene(n_cameras, n_people)
    if scene is None:
        return None
    sets = list(frame_sets(scene, n_sets))
    n_detections = [sum(len(frame.keypoints) for frame in frames) for frames in sets]
    gc.collect()
    gc.disable()
    tracker_us, engine_us = np.full(n_sets, np.inf), None
    for _ in range(repeats):
        step_us, answers = time_tracker(scene, sets)
        tracker_us = np.minimum(tracker_us, step_us)
        step_us = time_engine(scene, sets)
        engine_us = step_us if engine_us is None else np.minimum(engine_us, step_us)
    gc.enable()
    assert engine_us is not None
    share = share_followed(scene, answers)
    assert share > 0.95, f"{n_cameras} cameras, {n_people} people: only {100 * share:.1f} % of the people are followed"
    present = np.mean([scene.present(np.float64(k / RATE_HZ)).sum() for k in range(n_sets)])
    figures = {
        "cameras": n_cameras,
        "people": n_people,
        "detections": float(np.mean(n_detections)),
        "views_each": float(np.mean(n_detections) / present),
        "followed": share,
        "birth_us": float(tracker_us[:WARM_UP_SETS].max()),
    }
    for name, us in (("tracker", tracker_us[WARM_UP_SETS:]), ("engine", engine_us[WARM_UP_SETS:])):
        p50, p99 = np.percentile(us, [50, 99])
        figures |= {f"{name}_p50_us": float(p50), f"{name}_p99_us": float(p99), f"{name}_worst_us": float(us.max())}
    return figures


def exponent(rows: Sequence[dict[str, float]], key: str, over: str = "detections") -> float:
    """Slope of log(key) against log(over) by least squares: 1 is linear growth."""
    x, y = np.log([row[over] for row in rows]), np.log([row[key] for row in rows])
    return float(np.polyfit(x, y, 1)[0]) if len(set(x.tolist())) > 1 else math.nan


# ---- tables ----------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[dict[str, float]]) -> str:
    """One row per size."""
    lines = [
        "| cameras | people | detections a set | views each | tracker median µs | p99 | worst | p99 / median |"
        " engine median µs | p99 | worst | births, worst | µs a detection |",
        "|---" * 13 + "|",
    ]
    for row in rows:
        lines.append(
            f"| {row['cameras']:.0f} | {row['people']:.0f} | {row['detections']:.0f} | {row['views_each']:.1f} |"
            f" {row['tracker_p50_us']:.0f} | {row['tracker_p99_us']:.0f} | {row['tracker_worst_us']:.0f} |"
            f" {row['tracker_p99_us'] / row['tracker_p50_us']:.1f} |"
            f" {row['engine_p50_us']:.0f} | {row['engine_p99_us']:.0f} | {row['engine_worst_us']:.0f} |"
            f" {row['birth_us']:.0f} | {row['engine_p50_us'] / row['detections']:.2f} |"
        )
    return "\n".join(lines)


def growth(rows: Sequence[dict[str, float]]) -> str:
    """A sentence about the growth of the engine's median with the number of detections."""
    many = [row for row in rows if row["detections"] >= 100]
    parts = [f"over all sizes with the exponent {exponent(rows, 'engine_p50_us'):.2f}"]
    if len(many) > 2:
        parts.append(f"from 100 detections a set with {exponent(many, 'engine_p50_us'):.2f}")
    tiled = [row for row in rows if row["cameras"] >= 50 and row["people"] >= 50]
    if len(tiled) > 2:
        parts.append(f"in halls of 50 cameras and people or more with {exponent(tiled, 'engine_p50_us'):.2f}")
    return f"The engine's median grows with the number of detections {', '.join(parts)} (1 is linear)."


def page(measured: dict[str, Any]) -> str:
    """The published page: plot, growth, table, and the explanation of its figures."""
    explanation = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    head = f"# What a step costs\n\nMade by `{measured['command']}`, one core. {measured['machine']}."
    plot = "![Time of an engine step over the number of detections](cost_curve.svg)"
    return "\n\n".join([head, plot, growth(measured["rows"]), markdown(measured["rows"]), explanation])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cost curve from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, nargs="*", default=CAMERAS)
    parser.add_argument("--people", type=int, nargs="*", default=PEOPLE)
    parser.add_argument("--sets", type=int, default=300, help="frame sets, at 15 per second")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for table, plot and their figures as JSON")
    args = parser.parse_args(arguments)
    rows = []
    for n_cameras in args.cameras:
        for n_people in args.people:
            row = measure(n_cameras, n_people, args.sets, args.repeats)
            if row is not None:
                rows.append(row)
                print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)
    table = markdown(rows)
    print(f"\n{machine()}\n\n{table}")
    if len(rows) > 2:
        print(f"\n{growth(rows)}")
    if args.out:
        from bench.plots import publish

        chosen = f"FUSION_ISA={os.environ['FUSION_ISA']} " if "FUSION_ISA" in os.environ else ""
        command = f"{chosen}python -m bench cost_curve --sets {args.sets} --repeats {args.repeats} --out {args.out}"
        rows = [{key: round(value, 3) for key, value in row.items()} for row in rows]
        publish("cost_curve", {"command": command, "machine": machine(), "rows": rows}, page, args.out)
