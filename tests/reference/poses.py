"""People who stand, walk, sit, bend and reach, as keypoints of a camera: a body of its own making, in any joints.

It shares no figure with `fusion.files.anatomy`: bodies are chains of bones in three dimensions with angles at the
joints, seen by a camera that may hang anywhere above head height.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HEAD = {
    "nose": (0.10, 0.0, 0.10), "eye": (0.08, 0.033, 0.135), "eye_inner": (0.085, 0.02, 0.135),
    "eye_outer": (0.07, 0.045, 0.135), "ear": (-0.01, 0.075, 0.11), "mouth": (0.09, 0.025, 0.05),
    "head_top": (-0.01, 0.0, 0.24), "head": (0.0, 0.0, 0.2), "upper_neck": (-0.02, 0.0, 0.0),
}  # fmt: skip


def bodies(rng: np.random.Generator, n_people: int, joints: list[str], noise: float = 0.015) -> NDArray[np.float64]:
    """(n_people, n_joints, 3) x, y in pixels, score 0.9, of people whose pose, build and camera are drawn.

    Args:
        rng: what draws them.
        n_people: how many.
        joints: names as in `fusion.files.skeletons`.
        noise: a detector's standard deviation as a share of the person's height in the image.
    """
    found = []
    for _ in range(n_people):
        points_m = _body(rng)
        pixels = _seen(rng, np.array([points_m[joint] for joint in joints]), points_m)
        pixels += rng.normal(0.0, noise * np.ptp(pixels, axis=0).max(), pixels.shape)
        found.append(np.c_[pixels, np.full(len(joints), 0.9)])
    return np.array(found)


def _body(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Joints in metres: x forward, y to the left, z up; a quarter of them sit, a quarter bend."""
    kind = rng.choice(["stand", "stand", "sit", "bend"])
    build = rng.uniform(0.85, 1.1)
    bend = {"stand": rng.uniform(-0.05, 0.2), "sit": rng.uniform(0.0, 0.4), "bend": rng.uniform(0.5, 1.3)}[kind]
    trunk = _pitch(bend)
    at = {"mid_hip": np.array([0.0, 0.0, 0.95])}
    at["neck"] = at["mid_hip"] + trunk @ [0.0, 0.0, 0.52]
    at["spine"] = at["mid_hip"] + trunk @ [-0.02, 0.0, 0.26]
    head = trunk @ _pitch(rng.uniform(-0.2, 0.5) - 0.6 * bend) @ _yaw(rng.uniform(-0.6, 0.6))
    throat = at["neck"] + trunk @ [0.02, 0.0, 0.07]
    for part, place in _HEAD.items():
        for side, sign in (("l_", 1.0), ("r_", -1.0)) if place[1] else (("", 1.0),):
            at[side + part] = throat + head @ (np.array(place) * [1.0, sign, 1.0])
    for side, sign in (("l_", 1.0), ("r_", -1.0)):
        at |= _arm(rng, side, at["neck"] + trunk @ [0.0, sign * 0.18, -0.03], trunk)
        at |= _leg(rng, side, at["mid_hip"] + np.array([0.0, sign * 0.1, -0.03]), kind)
    return {joint: build * place for joint, place in at.items()}


def _arm(
    rng: np.random.Generator, side: str, shoulder: NDArray[np.float64], trunk: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    raised = rng.choice([rng.uniform(-0.4, 0.6), rng.uniform(0.6, 2.2)])
    aside = rng.uniform(0.0, 0.5) * (1.0 if side == "l_" else -1.0)
    upper = trunk @ _roll(aside) @ _pitch(-raised)
    elbow = shoulder + upper @ [0.0, 0.0, -0.29]
    lower = upper @ _pitch(-rng.uniform(0.0, 1.6))
    wrist = elbow + lower @ [0.0, 0.0, -0.26]
    fingers = {"hand": (0.0, -0.1), "index": (0.02, -0.1), "pinky": (-0.03, -0.09), "thumb": (0.04, -0.06)}
    found = {side + part: wrist + lower @ [x, 0.0, z] for part, (x, z) in fingers.items()}
    return found | {f"{side}shoulder": shoulder, f"{side}elbow": elbow, f"{side}wrist": wrist}


def _leg(rng: np.random.Generator, side: str, hip: NDArray[np.float64], kind: str) -> dict[str, NDArray[np.float64]]:
    lift = rng.uniform(1.1, 1.6) if kind == "sit" else rng.uniform(-0.4, 0.4)
    upper = _pitch(-lift) @ _roll(rng.uniform(-0.1, 0.1))
    knee = hip + upper @ [0.0, 0.0, -0.43]
    lower = upper @ _pitch(lift + rng.uniform(-0.2, 0.2) if kind == "sit" else rng.uniform(0.0, 0.5))
    ankle = knee + lower @ [0.0, 0.0, -0.42]
    foot = {"heel": (-0.05, 0.0, -0.06), "big_toe": (0.18, 0.0, -0.07), "small_toe": (0.15, 0.06, -0.07)}
    out = 1.0 if side == "l_" else -1.0
    found = {side + part: ankle + lower @ (np.array(place) * [1.0, out, 1.0]) for part, place in foot.items()}
    return found | {f"{side}hip": hip, f"{side}knee": knee, f"{side}ankle": ankle}


def _seen(
    rng: np.random.Generator, points_m: NDArray[np.float64], body: dict[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Pixels of a camera 2 to 7 m away and 1.5 to 3.2 m high that looks at the person."""
    around, away, height = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(2.0, 7.0), rng.uniform(1.5, 3.2)
    eye = np.array([away * np.cos(around), away * np.sin(around), height])
    forward = body["spine"] - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    camera = (points_m - eye) @ np.array([right, np.cross(forward, right), forward]).T
    return 900.0 * camera[:, :2] / camera[:, 2:] + rng.uniform(300.0, 900.0, 2)


def _pitch(angle: float) -> NDArray[np.float64]:
    """Rotation that leans what points up forward."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _roll(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _yaw(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
