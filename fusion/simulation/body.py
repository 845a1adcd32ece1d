"""An articulated body: the places of a person's joints from where they stand and what they do.

All lengths scale with stature, by the segment ratios of Drillis & Contini (1966). Angles in radians.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.store.layouts import Layout

# A person's state, recorded at every tick and interpolated in between: place and velocity, heading, phase and length of
# the stride, posture, how far each hand is on its way to a target (tx, ty, tz) or to carrying, and the head's turn.
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


def layout_joints(layout: Layout) -> NDArray[np.int64]:
    """Indices into JOINTS of a layout's joints; the layout box2 has none of them."""
    return np.array([JOINT[joint] for joint in layout.joints])


class _Body:
    """The trunk of n bodies, and the frame in which their limbs are placed.

    Attributes:
        at: each channel by its name (n,). stature_m: (n,).
        up, forward, left: (n, 3) axes of the body's heading. ahead, spine_up: (n, 3) the same, leaning forward.
        swing: (n,) half a step's length over stature.
        hips, chest: (n, 3) middles of hips and shoulders.
    """

    def __init__(self, state: NDArray[np.float64], stature_m: NDArray[np.float64]) -> None:
        n = len(state)
        self.at = {name: state[:, i] for name, i in CHANNEL.items()}
        self.stature_m = h = stature_m
        self.zero = np.zeros(n)
        self.up = np.stack([self.zero, self.zero, np.ones(n)], -1)
        yaw, lean = self.at["yaw"], self.at["lean"]
        self.forward = np.stack([np.cos(yaw), np.sin(yaw), self.zero], -1)
        self.left = np.stack([-self.forward[:, 1], self.forward[:, 0], self.zero], -1)
        self.swing = self.at["stride"]
        bob = 0.012 * np.cos(2 * self.at["phase"]) * np.minimum(self.swing / 0.18, 1.0)
        hip_z = h * (HIP - self.at["crouch"] + bob - 0.12 * self.swing**2)
        # People who bend forward move the hips back over the feet.
        backwards = (0.10 * h * np.sin(lean))[:, None] * self.forward
        self.hips = np.stack([self.at["x"], self.at["y"], hip_z], -1) - backwards
        self.ahead = self.forward * np.cos(lean)[:, None] - self.up * np.sin(lean)[:, None]
        self.spine_up = self.forward * np.sin(lean)[:, None] + self.up * np.cos(lean)[:, None]
        self.chest = self.hips + (SPINE * h)[:, None] * self.spine_up

    def length(self, over_stature: Any) -> NDArray[np.float64]:
        """(n, 1) metres of a length over stature, to scale directions (n, 3) with."""
        metres: NDArray[np.float64] = (over_stature * self.stature_m)[:, None]
        return metres


def joints_m(state: NDArray[np.float64], stature_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of all JOINTS.

    Args:
        state: (n, channels) as in CHANNELS.
        stature_m: (n,).

    Returns:
        (n, joints, 3) world metres.
    """
    body = _Body(state, stature_m)
    placed = {"mid_hip": body.hips, "neck": body.chest + body.length(0.012) * body.spine_up}
    for side, sign in (("l", 1.0), ("r", -1.0)):
        placed |= _leg(body, side, sign)
        placed |= _arm(body, side, sign)
    placed |= _head(body)
    out = np.empty((len(state), len(JOINTS), 3))
    for name, place in placed.items():
        out[:, JOINT[name]] = place
    return out


def _leg(body: _Body, side: str, sign: float) -> dict[str, NDArray[np.float64]]:
    at, h = body.at, body.stature_m
    forward, left, up = body.forward, body.left, body.up
    hip = body.hips + sign * body.length(HIP_HALF) * left
    # The foot stands while it moves backwards under the body and is lifted while it swings forwards.
    step = np.sin(at["phase"]) * sign
    lift = np.maximum(0.0, np.cos(at["phase"]) * sign) * body.swing
    ankle = np.stack([at["x"], at["y"], body.zero], -1)
    ankle = ankle + sign * body.length(0.9 * HIP_HALF) * left + (body.swing * step * h)[:, None] * forward
    ankle = ankle + (h * (ANKLE + 0.25 * lift))[:, None] * up
    toe = ankle + body.length(0.11) * forward - body.length(0.03) * up
    return {
        f"{side}_hip": hip,
        f"{side}_ankle": ankle,
        f"{side}_knee": _two_bones(hip, ankle, THIGH * h, SHANK * h, forward + 0.1 * up),
        f"{side}_heel": ankle - body.length(0.04) * forward - body.length(0.02) * up,
        f"{side}_big_toe": toe - sign * body.length(0.012) * left,
        f"{side}_small_toe": toe + sign * body.length(0.03) * left - body.length(0.015) * forward,
    }


def _arm(body: _Body, side: str, sign: float) -> dict[str, NDArray[np.float64]]:
    at, h = body.at, body.stature_m
    forward, left, up = body.forward, body.left, body.up
    twist = at["twist"] + 0.12 * np.sin(at["phase"]) * np.minimum(body.swing / 0.18, 1.0)
    shoulder_left = left * np.cos(twist)[:, None] - body.ahead * np.sin(twist)[:, None]
    shoulder = body.chest + sign * body.length(SHOULDER_HALF) * shoulder_left
    # Arms swing against the legs. People who carry something hold the forearm up.
    angle = -2.2 * body.swing * (np.sin(at["phase"]) * sign)
    hang = forward * np.sin(angle)[:, None] - up * np.cos(angle)[:, None] + 0.12 * sign * left
    bent = 0.25 + 0.8 * np.maximum(angle, 0.0)
    fore = forward * np.sin(angle + bent)[:, None] - up * np.cos(angle + bent)[:, None]
    wrist = shoulder + body.length(UPPER_ARM) * hang + body.length(FOREARM) * fore
    held = shoulder - body.length(0.14) * up + body.length(0.17) * forward - sign * body.length(0.03) * left
    wrist = wrist + at[f"carry_{side}"][:, None] * (held - wrist)
    arm = np.stack([at["tx"], at["ty"], at["tz"]], -1) - shoulder
    distance = np.sqrt((arm * arm).sum(-1))
    # The fingers touch the thing; the wrist stays a hand's length behind, and no arm gets longer by trying.
    reachable = np.minimum(np.maximum(distance - HAND * h, 0.0), (UPPER_ARM + FOREARM) * 0.985 * h)
    touching = shoulder + arm * (reachable / np.maximum(distance, 1e-9))[:, None]
    wrist = wrist + at[f"reach_{side}"][:, None] * (touching - wrist)
    # On its way the hand goes round the body, not through it, and the arm keeps its length.
    arm = wrist - shoulder
    distance = np.sqrt((arm * arm).sum(-1))
    wrist = shoulder + arm * np.minimum(1.0, (UPPER_ARM + FOREARM) * 0.99 * h / np.maximum(distance, 1e-9))[:, None]
    pole = -0.6 * up - 0.5 * forward + 0.4 * sign * left
    elbow = _two_bones(shoulder, wrist, UPPER_ARM * h, FOREARM * h, pole)
    return {f"{side}_shoulder": shoulder, f"{side}_wrist": wrist, f"{side}_elbow": elbow}


def _head(body: _Body) -> dict[str, NDArray[np.float64]]:
    gaze = body.at["yaw"] + body.at["head_yaw"]
    look = np.stack([np.cos(gaze), np.sin(gaze), body.zero], -1)
    look_left = np.stack([-look[:, 1], look[:, 0], body.zero], -1)
    pitch = body.at["head_pitch"] + 0.4 * body.at["lean"]
    face = look * np.cos(pitch)[:, None] - body.up * np.sin(pitch)[:, None]
    crown = look * np.sin(pitch)[:, None] + body.up * np.cos(pitch)[:, None]
    head = body.chest + body.length(0.5 * (EYE - SHOULDER)) * (body.spine_up + crown)
    placed = {
        "nose": head + body.length(0.062) * face - body.length(0.02) * crown,
        "head_top": head + body.length(0.064) * crown,
    }
    for side, sign in (("l", 1.0), ("r", -1.0)):
        placed[f"{side}_eye"] = head + body.length(0.05) * face + sign * body.length(0.019) * look_left
        placed[f"{side}_ear"] = head - body.length(0.005) * face + sign * body.length(0.044) * look_left
    return placed


def _two_bones(
    root: NDArray[np.float64],
    tip: NDArray[np.float64],
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    pole: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The joint between two bones from root to tip, bent towards the pole. upper, lower (n,); the others (n, 3)."""
    axis = tip - root
    length = np.sqrt((axis * axis).sum(-1))
    axis = axis / np.maximum(length, 1e-9)[:, None]
    length = np.clip(length, np.abs(upper - lower) + 1e-6, upper + lower - 1e-6)
    along = (upper**2 - lower**2 + length**2) / (2 * length)
    out = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    pole = pole - (pole * axis).sum(-1, keepdims=True) * axis
    pole = pole / np.maximum(np.sqrt((pole * pole).sum(-1, keepdims=True)), 1e-9)
    joint: NDArray[np.float64] = root + along[:, None] * axis + out[:, None] * pole
    return joint


def posture(stature_m: float, distance_m: float, height_m: float, aside_m: float) -> tuple[float, float]:
    """How far to crouch (over stature) and to lean forward so that a hand reaches a point, with the least effort.

    The point lies distance_m ahead of the body's axis, height_m above the floor and aside_m beside the shoulder.
    """
    h = stature_m
    crouch, lean = np.meshgrid(np.linspace(0.0, 0.3, 13), np.linspace(0.0, 1.15, 13), indexing="ij")
    ahead = SPINE * h * np.sin(lean) - 0.10 * h * np.sin(lean)
    up = h * (HIP - crouch) + SPINE * h * np.cos(lean)
    gap = np.sqrt((distance_m - ahead) ** 2 + (height_m - up) ** 2 + aside_m**2)
    excess = np.maximum(gap - (0.95 * (UPPER_ARM + FOREARM) + HAND) * h, 0.0)
    # People bend a little before they squat; the deeper, the more effort either takes.
    best = int(np.argmin(1e3 * excess + 6.0 * crouch**2 + 0.3 * lean**2))
    return float(crouch.flat[best]), float(lean.flat[best])


def turn(angle: float) -> float:
    """An angle brought to [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
