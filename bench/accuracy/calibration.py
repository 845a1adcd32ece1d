"""Self-calibration against known cameras: the Shelf recording and a simulated store, started without extrinsics.

    FUSION_DATA=path/to/data python -m bench calibration [shelf] [dev] [store] [lenses] [bound] [--seeds N]
        [--minutes M] [--cameras N]

`shelf`: calibrates from detections alone, and compares with the published cameras after a similarity alignment of the
centres, and by the percentage of correct parts (PCP) with either calibration. `dev`: recordings of an independent
generator with shopping customers. `store`: 28 cameras, two people for five minutes, the noise of a good detector, and
clocks up to 100 ms off. `lenses`: eight cameras and Shelf's with nothing known but the size of their pictures, from
ten minutes of four people, by joints and by boxes, with a good detector and with one that errs as real ones do.
`bound`: the smallest errors that an unbiased calibration can have from those data (Cramér-Rao). Prints tables; times
are CPU seconds of one core.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from fusion import Store, replay
from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.setup.calibrate import calibrate
from fusion.setup.lenses import rough_camera
from fusion.setup.self_calibration import Known, SelfCalibration
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Camera

PARTS = ("shelf", "dev", "store", "lenses", "bound")


def without_extrinsics(store: Store) -> Store:
    """The store with the intrinsics of its cameras only: all extrinsics are zero."""
    zero = {"rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)}
    return store.model_copy(update={"cameras": tuple(c.model_copy(update=zero) for c in store.cameras)})


def similarity(found_m: np.ndarray, true_m: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and shift that align found points (n, 3) with the true ones in least squares.

    Source: Umeyama, Least-Squares Estimation of Transformation Parameters (1991).
    """
    a, b = found_m - found_m.mean(axis=0), true_m - true_m.mean(axis=0)
    u, values, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((values * sign).sum() / (a**2).sum())
    return scale, rotation, true_m.mean(axis=0) - scale * rotation @ found_m.mean(axis=0)


def aligned(cameras: tuple[Camera, ...], true: tuple[Camera, ...]) -> tuple[Camera, ...]:
    """The found cameras, aligned with the true ones by a similarity of their centres."""
    from fusion.store.rotations import rotation_vector

    found, wanted = Rig.from_cameras(cameras), Rig.from_cameras(true)
    scale, rotation, shift_m = similarity(found.centres_m, wanted.centres_m)
    out = []
    for camera, extrinsics, centre_m in zip(cameras, found.camera_from_world, found.centres_m):
        r = extrinsics[:, :3] @ rotation.T
        t = -r @ (scale * rotation @ centre_m + shift_m)
        pose = {"rotation": tuple(rotation_vector(r).tolist()), "translation": tuple(t.tolist())}
        out.append(Camera.model_validate({**camera.model_dump(), **pose}))
    return tuple(out)


def errors(cameras: tuple[Camera, ...], true: tuple[Camera, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) metres between centres, and degrees between directions."""
    found, wanted = Rig.from_cameras(cameras), Rig.from_cameras(true)
    between = np.einsum("nij,nkj->nik", found.camera_from_world[:, :, :3], wanted.camera_from_world[:, :, :3])
    cosine = np.clip((np.trace(between, axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0)
    return np.linalg.norm(found.centres_m - wanted.centres_m, axis=1), np.degrees(np.arccos(cosine))


def shelf(data: Path) -> None:
    """Calibrate the Shelf recording, and print its table."""
    from bench.public.contract import poses
    from bench.public.task import Tracks

    truth = poses(data / "shelf" / "truth" / "poses.npz")
    recording = Recording(data / "shelf")
    true = recording.store.cameras
    started_s = time.process_time()
    found = calibrate(without_extrinsics(recording.store), recording.observations(), Known())
    spent_s = time.process_time() - started_s
    cameras = aligned(found.cameras, true)
    centre_m, degrees = errors(cameras, true)
    print(f"Shelf: {len(cameras)} of {len(true)} cameras placed in {spent_s:.0f} s\n")
    print("| camera | centre, cm | direction, degrees | clock, ms |\n|---|---|---|---|")
    for camera, metres, angle in zip(cameras, centre_m, degrees):
        print(f"| {camera.name} | {100 * metres:.1f} | {angle:.2f} | {1e3 * found.offsets_s[camera.name]:+.1f} |")
    print("\n| calibration | PCP A1 / A2 / A3 | average | weighted | people per frame |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, calibration in (("published", true), ("found", cameras)):
            copy = Path(folder) / name
            shutil.copytree(data / "shelf", copy)
            shutil.rmtree(copy / "store")
            recording.store.model_copy(update={"cameras": calibration}).save(copy / "store")
            replay(copy, copy / "out")
            score = truth.score(Tracks.of_results(copy / "out"), recording.store.layout)
            parts = " / ".join(f"{share:.2f}" for share in score.pcp)
            print(f"| {name} | {parts} | {score.average:.2f} | {score.weighted:.2f} | {score.people_per_instant:.2f} |")
    print()


def dev(data: Path) -> None:
    """Calibrate the recordings of the independent generator, and print their table."""
    print("Independent generator; worst camera after a similarity alignment\n")
    print("| recording | placed | CPU s | centre, cm | direction, degrees | error / sd |\n|---|---|---|---|---|---|")
    for folder in sorted((data / "dev").glob("*")):
        recording = Recording(folder)
        started_s = time.process_time()
        found = calibrate(
            without_extrinsics(recording.store), recording.observations(), Known(outline=False, height_m=1.7)
        )
        spent_s = time.process_time() - started_s
        true = {camera.name: camera for camera in recording.store.cameras}
        wanted = tuple(true[camera.name] for camera in found.cameras)
        centre_m, degrees = errors(aligned(found.cameras, wanted), wanted)
        reported = [(tie.centre_sd_m, math.degrees(tie.rotation_sd_rad)) for tie in found.ties if tie.placed]
        ratio = np.sqrt(((np.stack([centre_m, degrees], axis=1) / np.array(reported)) ** 2).mean(axis=0))
        print(
            f"| {folder.name} | {len(wanted)} of {len(true)} | {spent_s:.0f} | {100 * centre_m.max():.1f} "
            f"| {degrees.max():.2f} | {ratio[0]:.1f} / {ratio[1]:.1f} |",
            flush=True,
        )
        for warning in found.warnings:
            print(f"    {warning}")
    print()


def clocks_s(store: Store, scenario: Scenario) -> dict[str, float]:
    """The true clock offset of each camera in a simulated store, relative to their mean."""
    from fusion.simulation.cameras import Detector
    from fusion.simulation.optics import Obstacles

    obstacles = Obstacles(store)
    true = {c.name: Detector(store, c, scenario, obstacles, out=False).clock_offset_s for c in store.cameras}
    mean = float(np.mean(list(true.values())))
    return {name: offset - mean for name, offset in true.items()}


def simulated(n_cameras: int, minutes: float, seed: int) -> tuple[Store, Simulation]:
    """A simulated store with two people who shop for about four of five minutes, and cameras with wrong clocks."""
    store = demo_store(n_cameras, seed=seed).model_copy(update={"weight_rate_hz": 1.0})
    scenario = Scenario(
        seed=seed, minutes=minutes, shoppers=2, picks_per_person=8.0 * minutes, put_back_probability=0.3,
        clock_offset_max_s=0.1, empty_handed_probability=0.0,
    )  # fmt: skip
    return store, Simulation(store, scenario)


def calibrate_simulated(n_cameras: int, minutes: float, seed: int) -> tuple[SelfCalibration, dict[str, float]]:
    """Calibrate a simulated store; returns the calibration and its errors, the worst camera's where not stated."""
    store, simulation = simulated(n_cameras, minutes, seed)
    observations = list(simulation.observations())
    # Known: the measured distance between two cameras, and the places of both on the floor plan.
    rig = Rig.from_cameras(store.cameras)
    far = n_cameras // 2
    names, at = rig.names, rig.centres_m
    known = Known(
        distances=((names[0], names[far], float(np.linalg.norm(at[0] - at[far]))),),
        places={names[i]: (float(at[i, 0]), float(at[i, 1])) for i in (0, far)},
    )
    started_s = time.process_time()
    found = calibrate(without_extrinsics(store), observations, known)
    spent_s = time.process_time() - started_s
    true = {camera.name: camera for camera in store.cameras}
    wanted = tuple(true[camera.name] for camera in found.cameras)
    absolute_m, absolute_degrees = errors(found.cameras, wanted)
    centre_m, degrees = errors(aligned(found.cameras, wanted), wanted)
    offsets = clocks_s(store, simulation.scenario)
    placed = [tie for tie in found.ties if tie.placed]
    clock_error_s = np.array([tie.offset_s - offsets[tie.name] for tie in placed])
    clock_error_s = clock_error_s - clock_error_s.mean()
    reported = {
        "centre": np.array([tie.centre_sd_m for tie in placed]),
        "turn": np.degrees([tie.rotation_sd_rad for tie in placed]),
        "clock": np.array([tie.offset_sd_s for tie in placed]),
    }
    return found, {
        "placed": len(placed),
        "cpu_s": spent_s,
        "centre_cm": 100 * float(centre_m.max()),
        "degrees": float(degrees.max()),
        "clock_ms": 1e3 * float(np.abs(clock_error_s).max()),
        "absolute_cm": 100 * float(absolute_m.max()),
        "absolute_degrees": float(absolute_degrees.max()),
        # Errors over their reported standard deviations, root mean square over cameras: 1 is calibrated.
        "centre_over_sd": float(np.sqrt(((centre_m / reported["centre"]) ** 2).mean())),
        "degrees_over_sd": float(np.sqrt(((degrees / reported["turn"]) ** 2).mean())),
        "clock_over_sd": float(np.sqrt(((clock_error_s / reported["clock"]) ** 2).mean())),
    }


def store(n_cameras: int, minutes: float, seeds: range) -> None:
    """Calibrate simulated stores, and print their table."""
    print(f"Simulated store, {n_cameras} cameras, {minutes:g} minutes of two people; worst camera\n")
    print("| seed | placed | CPU s | centre, cm | direction, degrees | clock, ms | in the store's frame | error / sd |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        found, s = calibrate_simulated(n_cameras, minutes, seed)
        print(
            f"| {seed} | {s['placed']} | {s['cpu_s']:.0f} "
            f"| {s['centre_cm']:.2f} | {s['degrees']:.3f} | {s['clock_ms']:.1f} "
            f"| {s['absolute_cm']:.1f} cm, {s['absolute_degrees']:.2f} degrees "
            f"| {s['centre_over_sd']:.1f} / {s['degrees_over_sd']:.1f} / {s['clock_over_sd']:.1f} |",
            flush=True,
        )
        for warning in found.warnings:
            print(f"    {warning}")
    print()


def shopping(keypoints: str, is_real: bool, seed: int) -> tuple[Store, Simulation]:
    """A simulated store of eight cameras in which four people shop for ten minutes."""
    store = demo_store(8, seed=seed, keypoints=keypoints).model_copy(update={"weight_rate_hz": 1.0})
    scenario = Scenario(
        seed=seed, minutes=10.0, shoppers=4, picks_per_person=40.0, put_back_probability=0.3, clock_offset_max_s=0.05,
        empty_handed_probability=0.0,
    )  # fmt: skip
    return store, Simulation(store, scenario.with_real_detectors() if is_real else scenario)


def looking_degrees(cameras: tuple[Camera, ...], true: tuple[Camera, ...]) -> np.ndarray:
    """(n,) degrees between the rays of the pictures' middles: principal point and direction together."""
    rays = []
    for rig in (Rig.from_cameras(cameras), Rig.from_cameras(true)):
        middle = np.ascontiguousarray(0.5 * (rig.size_px[:, None] - 1.0))
        ray = np.concatenate([rig.normalise(middle)[:, 0], np.ones((rig.n_views, 1))], axis=1)
        rays.append(np.einsum("nji,nj->ni", rig.camera_from_world[:, :, :3], ray))
    cosine = (rays[0] * rays[1]).sum(axis=1) / np.linalg.norm(rays[0], axis=1) / np.linalg.norm(rays[1], axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def lenses_row(name: str, store: Store, observations: list) -> None:
    """Calibrate with nothing known but the size of the pictures, and print a row: the worst camera's errors."""
    true = {camera.name: camera for camera in store.cameras}
    blind = tuple(rough_camera(camera.name, camera.size) for camera in store.cameras)
    started_s = time.process_time()
    try:
        found = calibrate(store, observations, Known(outline=False, height_m=1.7), blind, list(true))
    except FusionError as error:
        print(f"| {name} | none: {error} | | | | | | |", flush=True)
        return
    spent_s = time.process_time() - started_s
    wanted = tuple(true[camera.name] for camera in found.cameras)
    cameras = aligned(found.cameras, wanted)
    centre_m, degrees = errors(cameras, wanted)
    focal = np.array([[0.5 * (c.matrix[0][0] + c.matrix[1][1]) for c in kind] for kind in (cameras, wanted)])
    off = 100.0 * np.abs(focal[0] / focal[1] - 1.0)
    ties = [tie for tie in found.ties if tie.placed]
    reported = [(100.0 * (t.focal_sd_px or 0.0) / (t.focal_px or 1.0), t.centre_sd_m, t.rotation_sd_rad) for t in ties]
    sds = np.array(reported) * [1.0, 1.0, math.degrees(1.0)]
    over = np.sqrt(((np.stack([off, centre_m, degrees], axis=1) / sds) ** 2).mean(axis=0))
    print(
        f"| {name} | {len(wanted)} of {len(true)} | {off.max():.2f} (mean {off.mean():.2f}) "
        f"| {100 * centre_m.max():.1f} (mean {100 * centre_m.mean():.1f}) | {degrees.max():.2f} "
        f"| {looking_degrees(cameras, wanted).max():.2f} | {over[0]:.1f} / {over[1]:.1f} / {over[2]:.1f} "
        f"| {spent_s:.0f} |",
        flush=True,
    )


def lenses(data: Path, seeds: range) -> None:
    """Calibrate cameras of which only the size of the pictures is known, and print their table."""
    print("Lenses unknown; worst camera after a similarity alignment; rays: degrees between pictures' middles;")
    print("error / sd: root mean square over the reported standard deviations of focal length, centre and direction\n")
    print("| detections | placed | focal length, % | centre, cm | direction, degrees | rays | error / sd | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    if (data / "shelf").is_dir():
        recording = Recording(data / "shelf")
        lenses_row("Shelf, joints", recording.store, list(recording.observations()))
    for keypoints, word in (("coco17", "joints"), ("box2", "boxes")):
        for is_real in (False, True):
            for seed in seeds:
                store, simulation = shopping(keypoints, is_real, seed)
                frames = [o for o in simulation.observations() if isinstance(o, Frame)]
                lenses_row(f"{word}, {'real' if is_real else 'good'} detector, seed {seed}", store, frames)
    print()


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--cameras", type=int, default=28)
    args = parser.parse_args()
    data = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    if not args.parts or "shelf" in args.parts:
        if (data / "shelf").is_dir():
            shelf(data)
        else:
            print(f"Shelf: left out, no recording at {data / 'shelf'}; set FUSION_DATA\n")
    if (not args.parts or "dev" in args.parts) and (data / "dev").is_dir():
        dev(data)
    if not args.parts or "store" in args.parts:
        store(args.cameras, args.minutes, range(1, args.seeds + 1))
    if not args.parts or "lenses" in args.parts:
        lenses(data, range(1, args.seeds + 1))
    if not args.parts or "bound" in args.parts:
        from bench.accuracy import attainable

        attainable.table(Recording(data / "shelf") if (data / "shelf").is_dir() else None, range(1, args.seeds + 1))
    return 0
