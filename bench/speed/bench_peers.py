"""Triangulation and tracking beside packages that people use for it: aniposelib, trackers (ByteTrack, SORT), norfair.

The packages are not dependencies; a missing one is skipped. Install them in an environment of their own, with the
bench extra (about 450 MB, most of it jax, which aniposelib requires):

    python -m venv /tmp/peers
    /tmp/peers/bin/python -m pip install -e '.[bench]' aniposelib trackers norfair
    OMP_NUM_THREADS=1 /tmp/peers/bin/python -m bench peers docs/figures/peers.md

Answers are asserted before anything is timed. Triangulation: the same points in the same five views. Tracking: the
peers get places on the floor that are already fused from all cameras (true places with 3 cm of noise, as boxes of 60
cm or as points), which is only the last part of the work of our Tracker. It gets every camera's raw keypoints,
associates them across views, and follows 17 joints of each person in space. So it is timed on the harder task, and
every tracker has to keep identities (IDF1 above 95 %) through the same five seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import geometry as reference

from bench.accuracy import people as accuracy_people
from bench.machine import machine
from bench.speed import cost_curve
from bench.speed.bench_triangulation import N_POINTS, Scene
from fusion.people.geometry import triangulate, triangulate_linear
from fusion.people.tracker import Tracker

VIEWS = 5
# People, and cameras that look at them.
CROWDS = ((10, 12), (30, 50), (100, 100))
N_SETS, N_WARM_UP = 75, 15
BOX_M, PX_PER_M, NOISE_M = 0.6, 100.0, 0.03
ORIGIN_M = 5.0  # Shifts boxes to positive picture coordinates.

# ---- triangulation ---------------------------------------------------------------------------------------------------


def test_triangulate_linear(benchmark):
    scene = Scene(VIEWS)
    pixels = np.ascontiguousarray(scene.pixels)
    exact = reference.triangulate(scene.rig.camera_from_world, scene.points)
    assert_allclose(triangulate_linear(scene.rig, pixels).points_m, exact, atol=1e-6)
    benchmark.group = f"linear triangulation, {N_POINTS} points, {VIEWS} views"
    benchmark(triangulate_linear, scene.rig, pixels)


def test_triangulate_robust(benchmark):
    """With rejection of wrong views and a covariance for each point, which the peers do not offer."""
    scene = Scene(VIEWS)
    pixels = np.ascontiguousarray(scene.pixels)
    assert_allclose(triangulate(scene.rig, pixels).points_m, scene.truth, atol=0.05)
    benchmark.group = f"linear triangulation, {N_POINTS} points, {VIEWS} views"
    benchmark(triangulate, scene.rig, pixels)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_aniposelib(benchmark, fast):
    anipose = pytest.importorskip("aniposelib.cameras")
    pytest.importorskip("jax")
    cv2 = pytest.importorskip("cv2")
    scene = Scene(VIEWS)
    rig = scene.rig
    cameras = [
        anipose.Camera(
            matrix=rig.image_from_camera[view],
            dist=np.zeros(5),
            size=(1280, 720),
            rvec=cv2.Rodrigues(rig.camera_from_world[view, :, :3])[0].ravel(),
            tvec=rig.camera_from_world[view, :, 3],
            name=str(view),
        )
        for view in range(VIEWS)
    ]
    group = anipose.CameraGroup(cameras)
    normalised = np.ascontiguousarray(scene.points.transpose(0, 2, 1))

    def aniposelib() -> np.ndarray:
        return np.asarray(group.triangulate(normalised, undistort=False, progress=False, fast=fast))

    # fast: the median over pairs of views; plain: all views in one system of equations, like the kernel.
    exact = reference.triangulate(rig.camera_from_world, scene.points)
    assert_allclose(aniposelib(), exact, atol=0.05 if fast else 1e-6)
    benchmark.group = f"linear triangulation, {N_POINTS} points, {VIEWS} views"
    benchmark(aniposelib)


# ---- tracking --------------------------------------------------------------------------------------------------------


class Crowd:
    """Walkers for five seconds: every camera's frames, and noisy places on the floor."""

    def __init__(self, n_people: int, n_cameras: int) -> None:
        scene = cost_curve.make_scene(n_cameras, n_people)
        assert scene is not None
        self.scene, self.n_people = scene, n_people
        self.sets = list(cost_curve.frame_sets(scene, N_SETS))
        random = np.random.default_rng(n_people)
        person_numbers = np.arange(n_people)
        self.truth, self.present, self.noisy = [], [], []
        for frames in self.sets:
            t_s = (max(frame.t_ns for frame in frames) - cost_curve.START_NS) * 1e-9
            place = scene.states(person_numbers, np.full(n_people, t_s))[:, :2]
            present = np.flatnonzero(scene.present(np.float64(t_s)))
            self.truth.append(place)
            self.present.append(present)
            self.noisy.append(place[present] + random.normal(0.0, NOISE_M, (len(present), 2)))

    def idf1(self, answers: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """IDF1 of a tracker's answers: (track ids, places (n, 2)) of each set."""
        instants = []
        for k in range(N_WARM_UP, N_SETS):
            ids, places = answers[k]
            present = self.present[k]
            instants.append(
                accuracy_people.Instant(
                    people=present,
                    people_m=self.truth[k][present],
                    people_count=np.ones(len(present), bool),
                    tracks=np.asarray(ids),
                    tracks_m=places,
                    tracks_count=np.ones(len(ids), bool),
                    identity=np.ones(len(ids)),
                )
            )
        return float(accuracy_people.score_identities(instants).idf1)


@pytest.fixture(scope="module", params=CROWDS, ids=lambda size: f"{size[0]} people")
def crowd(request: pytest.FixtureRequest) -> Crowd:
    return Crowd(*request.param)


def compare(
    benchmark: Any,
    crowd: Crowd,
    make: Callable[[], Callable[[Any], Any]],
    inputs: list[Any],
    read: Callable[[Any], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Check that identities are kept, then time a fresh tracker's steps after its first second."""
    step = make()
    idf1 = crowd.idf1([read(step(scan)) for scan in inputs])
    assert idf1 > 0.95, idf1
    source: Iterator[Any] = iter(())

    def next_step() -> tuple[tuple[Any, Any], dict[str, Any]]:
        nonlocal source, step
        scan = next(source, None)
        if scan is None:
            step = make()
            for warm_up in inputs[:N_WARM_UP]:
                step(warm_up)
            source = iter(inputs[N_WARM_UP:])
            scan = next(source)
        return (step, scan), {}

    benchmark.group = f"one instant of {crowd.n_people} people"
    benchmark.extra_info["idf1"] = round(idf1, 4)
    benchmark.pedantic(lambda step, scan: step(scan), setup=next_step, rounds=2 * (N_SETS - N_WARM_UP))


def test_tracker(crowd, benchmark):
    """fusion's tracker, on the raw keypoints of all cameras."""
    compare(
        benchmark,
        crowd,
        lambda: Tracker.of_store(crowd.scene.store).step,
        crowd.sets,
        lambda people: (people.track_id, people.position_m),
    )


@pytest.mark.parametrize("name", ["ByteTrackTracker", "SORTTracker"])
def test_trackers(crowd, benchmark, name):
    trackers, sv = pytest.importorskip("trackers"), pytest.importorskip("supervision")

    def detections(places: np.ndarray) -> Any:
        corner = (places + ORIGIN_M - BOX_M / 2) * PX_PER_M
        boxes = np.concatenate([corner, corner + BOX_M * PX_PER_M], axis=1)
        return sv.Detections(xyxy=boxes, confidence=np.full(len(boxes), 0.9), class_id=np.zeros(len(boxes), int))

    def read(found: Any) -> tuple[np.ndarray, np.ndarray]:
        known = found.tracker_id >= 0
        centre = 0.5 * (found.xyxy[:, :2] + found.xyxy[:, 2:]) / PX_PER_M - ORIGIN_M
        return found.tracker_id[known], centre[known]

    def make() -> Callable[[Any], Any]:
        return getattr(trackers, name)(frame_rate=cost_curve.RATE_HZ).update

    compare(benchmark, crowd, make, [detections(places) for places in crowd.noisy], read)


def test_norfair(crowd, benchmark):
    norfair = pytest.importorskip("norfair")

    def read(objects: Any) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array([tracked.id for tracked in objects], np.int64)
        return ids, np.array([tracked.estimate[0] for tracked in objects]).reshape(-1, 2)

    def make() -> Callable[[Any], Any]:
        tracker = norfair.Tracker(distance_function="mean_euclidean", distance_threshold=0.5, initialization_delay=3)
        # A detection belongs to the tracker that processed it, so each tracker gets new ones.
        return lambda places: tracker.update([norfair.Detection(place[None]) for place in places])

    compare(benchmark, crowd, make, crowd.noisy, read)


# ---- tables ----------------------------------------------------------------------------------------------------------


def markdown(timings: dict[str, Any]) -> str:
    """A table of pytest-benchmark's JSON, each group sorted by median."""
    heads = ("task", "implementation", "least µs", "median µs", "over ours (median)", "IDF1 %")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for timing in timings["benchmarks"]:
        groups.setdefault(timing["group"], []).append(timing)
    for group, members in groups.items():
        ours = next(row for row in members if row["name"].startswith(("test_triangulate_linear", "test_tracker[")))
        for row in sorted(members, key=lambda row: row["stats"]["median"]):
            stats, idf1 = row["stats"], row["extra_info"].get("idf1")
            ratio = stats["median"] / ours["stats"]["median"]
            name = row["name"].removeprefix("test_")
            name = f"**{name}**" if row is ours else name
            idf1_text = "-" if idf1 is None else f"{100 * idf1:.1f}"
            least, median = 1e6 * stats["min"], 1e6 * stats["median"]
            lines.append(f"| {group} | {name} | {least:.0f} | {median:.0f} | {ratio:.1f} | {idf1_text} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmarks and write their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="file for the table, e.g. docs/figures/peers.md")
    path = parser.parse_args().path
    with tempfile.TemporaryDirectory() as folder:
        timings = Path(folder) / "timings.json"
        # CPU time, so that other programs on the machine have less influence.
        options = ["-q", "-p", "no:cacheprovider", "--benchmark-timer=time.process_time"]
        code = pytest.main([__file__, *options, f"--benchmark-json={timings}"])
        if code:
            raise SystemExit(code)
        table = markdown(json.loads(timings.read_text(encoding="utf-8")))
    explanation = (__doc__ or "").rpartition("\n\n")[2]
    head = f"# Beside other packages\n\nMade by `python -m bench peers {path}`, CPU time of one core. {machine()}.\n\n"
    Path(path).write_text(f"{head}{table}\n\n{explanation}", encoding="utf-8")
