"""An articulated body: from where somebody stands and what they are doing to the places of their joints.

All lengths scale with stature, by the segment ratios of Drillis & Contini (1966). Angles in radians.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusion.store.layouts import Layout

# What is recorded of everybody at every tick; in between it is interpolated.
_CHANNELS = "x y vx vy yaw phase stride crouch lean twist reach_l reach_r tx ty tz carry_l carry_r head_yaw head_pitch"
CHANNELS = tuple(_CHANNELS.split())
CHANNEL = {name: i for i, name in enumerate(CHANNELS)}

# Heights and lengths over stature.
ANKLE, KNEE, HIP, SHOULDER, EYE = 0.039, 0.285, 0.53, 0.818, 0.936
THIGH, SHANK = 0.245, 0.246
UPPER_ARM, FOREARM, HAND = 0.175, 0.147, 0.055
SPINE = SHOULDER - HIP
SHOULDER_HALF, HIP_HALF = 0.104, 0.065

_JOINTS = (
    "nose l_eye r_eye l_ear r_ear neck l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist mid_hip l_hip r_hip "
    "l_knee r_knee l_ankle r_ankle l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel head_top"
)
JOINTS = tuple(_JOINTS.split())
JOINT = {name: i for i, name in enumerate(JOINTS)}


def layout_joints(layout: Layout) -> np.ndarray:
    """Indices into JOINTS of a layout's joints; boxes are made otherwise."""
    return np.array([JOINT[joint] for joint in layout.joints])


def _two_bones(root: np.ndarray, tip: np.ndarray, upper: Any, lower: Any, pole: np.ndarray) -> np.ndarray:
    """The joint between two bones from root to tip, bent towards the pole. upper, lower (n,); the rest (n, 3)."""
    axis = tip - root
    length = np.sqrt((axis * axis).sum(-1))
    axis = axis / np.maximum(length, 1e-9)[:, None]
    length = np.clip(length, np.abs(upper - lower) + 1e-6, upper + lower - 1e-6)
    along = (upper**2 - lower**2 + length**2) / (2 * length)
    out = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    pole = pole - (pole * axis).sum(-1, keepdims=True) * axis
    pole = pole / np.maximum(np.sqrt((pole * pole).sum(-1, keepdims=True)), 1e-9)
    return root + along[:, None] * axis + out[:, None] * pole


def joints_m(state: np.ndarray, stature_m: np.ndarray) -> np.ndarray:
    """Places of all JOINTS.

    Args:
        state: (n, channels) as in CHANNELS.
        stature_m: (n,).

    Returns:
        (n, joints, 3) world metres.
    """
    n = len(state)
    at = {name: state[:, i] for name, i in CHANNEL.items()}
    h = stature_m
    zero, one = np.zeros(n), np.ones(n)
    up = np.stack([zero, zero, one], -1)
    forward = np.stack([np.cos(at["yaw"]), np.sin(at["yaw"]), zero], -1)
    left = np.stack([-forward[:, 1], forward[:, 0], zero], -1)
    out = np.empty((n, len(JOINTS), 3))

    def put(name: str, value: np.ndarray) -> np.ndarray:
        out[:, JOINT[name]] = value
        return value

    swing = at["stride"]  # half a step's length over stature
    phase = at["phase"]
    bob = 0.012 * np.cos(2 * phase) * np.minimum(swing / 0.18, 1.0)
    hip_z = h * (HIP - at["crouch"] + bob - 0.12 * swing**2)
    # Whoever bends forward moves the hips back over the feet.
    hips = np.stack([at["x"], at["y"], hip_z], -1) - (0.10 * h * np.sin(at["lean"]))[:, None] * forward
    put("mid_hip", hips)
    ahead = forward * np.cos(at["lean"])[:, None] - up * np.sin(at["lean"])[:, None]
    spine_up = forward * np.sin(at["lean"])[:, None] + up * np.cos(at["lean"])[:, None]
    chest = hips + (SPINE * h)[:, None] * spine_up
    put("neck", chest + (0.012 * h)[:, None] * spine_up)
    twist = at["twist"] + 0.12 * np.sin(phase) * np.minimum(swing / 0.18, 1.0)
    shoulder_left = left * np.cos(twist)[:, None] - ahead * np.sin(twist)[:, None]
    foot_base = np.stack([at["x"], at["y"], zero], -1)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        hip = put(f"{side}_hip", hips + sign * (HIP_HALF * h)[:, None] * left)
        # The foot stands while it moves backwards under the body and is lifted while it swings forwards.
        step = np.sin(phase) * sign
        lift = np.maximum(0.0, np.cos(phase) * sign) * swing
        ankle = foot_base + sign * (0.9 * HIP_HALF * h)[:, None] * left + (swing * step * h)[:, None] * forward
        ankle = put(f"{side}_ankle", ankle + (h * (ANKLE + 0.25 * lift))[:, None] * up)
        put(f"{side}_knee", _two_bones(hip, ankle, THIGH * h, SHANK * h, forward + 0.1 * up))
        put(f"{side}_heel", ankle - (0.04 * h)[:, None] * forward - (0.02 * h)[:, None] * up)
        toe = ankle + (0.11 * h)[:, None] * forward - (0.03 * h)[:, None] * up
        put(f"{side}_big_toe", toe - sign * (0.012 * h)[:, None] * left)
        put(f"{side}_small_toe", toe + sign * (0.03 * h)[:, None] * left - (0.015 * h)[:, None] * forward)
        # Arms swing against the legs. Somebody who carries holds the forearm up.
        shoulder = put(f"{side}_shoulder", chest + sign * (SHOULDER_HALF * h)[:, None] * shoulder_left)
        angle = -2.2 * swing * step
        hang = forward * np.sin(angle)[:, None] - up * np.cos(angle)[:, None] + 0.12 * sign * left
        bent = 0.25 + 0.8 * np.maximum(angle, 0.0)
        fore = forward * np.sin(angle + bent)[:, None] - up * np.cos(angle + bent)[:, None]
        wrist = shoulder + (UPPER_ARM * h)[:, None] * hang + (FOREARM * h)[:, None] * fore
        held = shoulder - (0.14 * h)[:, None] * up + (0.17 * h)[:, None] * forward - sign * (0.03 * h)[:, None] * left
        wrist = wrist + at[f"carry_{side}"][:, None] * (held - wrist)
        target = np.stack([at["tx"], at["ty"], at["tz"]], -1)
        arm = target - shoulder
        distance = np.sqrt((arm * arm).sum(-1))
        # The fingers touch the thing; the wrist stays a hand's length behind, and no arm gets longer by trying.
        reachable = np.minimum(np.maximum(distance - HAND * h, 0.0), (UPPER_ARM + FOREARM) * 0.985 * h)
        touching = shoulder + arm * (reachable / np.maximum(distance, 1e-9))[:, None]
        wrist = wrist + at[f"reach_{side}"][:, None] * (touching - wrist)
        # On its way the hand goes round the body, not through it, and the arm keeps its length.
        arm = wrist - shoulder
        distance = np.sqrt((arm * arm).sum(-1))
        wrist = shoulder + arm * np.minimum(1.0, (UPPER_ARM + FOREARM) * 0.99 * h / np.maximum(distance, 1e-9))[:, None]
        put(f"{side}_wrist", wrist)
        pole = -0.6 * up - 0.5 * forward + 0.4 * sign * left
        put(f"{side}_elbow", _two_bones(shoulder, wrist, UPPER_ARM * h, FOREARM * h, pole))
    gaze = at["yaw"] + at["head_yaw"]
    look = np.stack([np.cos(gaze), np.sin(gaze), zero], -1)
    look_left = np.stack([-look[:, 1], look[:, 0], zero], -1)
    pitch = at["head_pitch"] + 0.4 * at["lean"]
    face = look * np.cos(pitch)[:, None] - up * np.sin(pitch)[:, None]
    crown = look * np.sin(pitch)[:, None] + up * np.cos(pitch)[:, None]
    head = chest + (0.5 * (EYE - SHOULDER) * h)[:, None] * (spine_up + crown)
    put("nose", head + (0.062 * h)[:, None] * face - (0.02 * h)[:, None] * crown)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        put(f"{side}_eye", head + (0.05 * h)[:, None] * face + sign * (0.019 * h)[:, None] * look_left)
        put(f"{side}_ear", head - (0.005 * h)[:, None] * face + sign * (0.044 * h)[:, None] * look_left)
    put("head_top", head + (0.064 * h)[:, None] * crown)
    return out


def posture(stature_m: float, distance_m: float, height_m: float, aside_m: float) -> tuple[float, float]:
    """How far to crouch (over stature) and to lean forward so that a hand gets to a point, with the least effort.

    The point lies distance_m ahead of the body's axis, height_m above the floor and aside_m beside the shoulder.
    """
    h = stature_m
    crouch, lean = np.meshgrid(np.linspace(0.0, 0.3, 13), np.linspace(0.0, 1.15, 13), indexing="ij")
    ahead = SPINE * h * np.sin(lean) - 0.10 * h * np.sin(lean)
    up = h * (HIP - crouch) + SPINE * h * np.cos(lean)
    gap = np.sqrt((distance_m - ahead) ** 2 + (height_m - up) ** 2 + aside_m**2)
    excess = np.maximum(gap - (0.95 * (UPPER_ARM + FOREARM) + HAND) * h, 0.0)
    # People bend a little before they squat; both cost the more the deeper they go.
    best = int(np.argmin(1e3 * excess + 6.0 * crouch**2 + 0.3 * lean**2))
    return float(crouch.flat[best]), float(lean.flat[best])


def turn(angle: float) -> float:
    """An angle brought to [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
