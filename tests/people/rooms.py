"""Small synthetic rooms for tests of people: cameras in a circle, bodies that walk, sets of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.people.tracker import Tracker
from fusion.results import People
from fusion.store.layouts import LAYOUTS
from fusion.store.models import Camera, Obstacle, Store
from fusion.store.rotations import rotation_vector

T0 = 1_700_000_000_000_000_000
STEP_NS = 66_666_667

Path = Callable[[float], tuple[float, float, float]]


def looking_inwards(eye: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a camera at a place that looks at the middle of the room, 0.9 m up."""
    forward = np.array([0, 0, 0.9]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def store(
    layout: str = "coco17", n_views: int = 5, appearance_dim: int = 0, boxes: Sequence[tuple[float, ...]] = ()
) -> Store:
    """A room of 8 by 8 metres with cameras in a circle of 5 m, 2.6 m up, looking inwards; boxes of furniture."""
    cameras = []
    for view in range(n_views):
        angle = 2 * np.pi * view / n_views + 0.2
        eye = np.array([5 * np.cos(angle), 5 * np.sin(angle), 2.6])
        rotation = looking_inwards(eye)
        cameras.append(
            Camera(
                name=f"c{view}", size=(1280, 720), matrix=((600, 0, 640), (0, 600, 360), (0, 0, 1)),
                distortions=(-0.1, 0.02, 0.001, 0.0, 0.0), rotation=tuple(rotation_vector(rotation).tolist()),
                translation=tuple(float(v) for v in -rotation @ eye),
            )
        )  # fmt: skip
    return Store(
        format_version=1, id="room", name="room", currency="EUR", timezone="UTC", keypoints=layout,
        floor=((-4, -4), (4, -4), (4, 4), (-4, 4)), appearance_dim=appearance_dim, cameras=tuple(cameras),
        obstacle=Obstacle(boxes=tuple(boxes)),
    )  # fmt: skip


def body(layout: str, x: float, y: float, heading: float = 0.0) -> np.ndarray:
    """(K, 3) joints of a person who stands at a place, facing a direction."""
    joints = LAYOUTS[layout].joints
    side = np.array([0.15 if j.startswith("l_") else -0.15 if j.startswith("r_") else 0.0 for j in joints])
    across = np.array([-np.sin(heading), np.cos(heading)])
    return np.column_stack([[x, y] + side[:, None] * across, LAYOUTS[layout].heights_m[:, 0]])


def view_of(rig: Rig, view: int) -> Rig:
    """The rig of one of a rig's cameras."""
    one = slice(view, view + 1)
    fisheye = None if rig.fisheye is None else rig.fisheye[one]
    arrays = (rig.camera_from_world, rig.image_from_camera, rig.distortions, rig.size_px)
    return Rig(rig.names[one], *(array[one] for array in arrays), fisheye)


class Room:
    """Makes sets of frames of people who walk; hidden(camera, person, t_s) takes detections away."""

    def __init__(
        self, tracker: Tracker, layout: str, paths: Sequence[Path], sd_px: float = 2.0, hidden=None, seed: int = 0
    ) -> None:
        self.tracker, self.layout, self.paths, self.sd_px = tracker, layout, paths, sd_px
        self.rig: Rig = tracker.rig
        # One rig a camera: a rig projects into all its cameras, and each camera sees people at its own time.
        self.views = [view_of(self.rig, view) for view in range(self.rig.n_views)]
        self.hidden = hidden or (lambda camera, person, t_s: False)
        self.rng = np.random.default_rng(seed)
        self.phase_ns = self.rng.integers(0, STEP_NS, self.rig.n_views)

    def frames(self, k: int) -> list[Frame]:
        """Set k, each camera at its own phase."""
        frames = []
        for view, name in enumerate(self.rig.names):
            t_s = (k * STEP_NS + self.phase_ns[view]) * 1e-9
            rows = []
            for person, path in enumerate(self.paths):
                if self.hidden(view, person, t_s):
                    continue
                pixels = self.views[view].project(body(self.layout, *path(t_s)))[0]
                pixels = pixels + self.rng.normal(0, self.sd_px, pixels.shape)
                rows.append(np.column_stack([pixels, np.full(len(pixels), 0.9)]))
            keypoints = np.array(rows, np.float32).reshape(-1, LAYOUTS[self.layout].n_joints, 3)
            frames.append(Frame(T0 + k * STEP_NS + int(self.phase_ns[view]), name, keypoints))
        return frames

    def run(self, n_sets: int, first: int = 0) -> list[People]:
        """The tracker's answers to n_sets sets."""
        return [self.tracker.step(self.frames(k)) for k in range(first, first + n_sets)]


def sets_of(observations: Iterable[object], gap_ns: int = 2**62) -> list[list[Frame]]:
    """Frames in sets: a set ends where a camera comes a second time, or gap_ns after its first frame."""
    sets: list[list[Frame]] = []
    current: dict[str, Frame] = {}
    for frame in observations:
        if not isinstance(frame, Frame):
            continue
        if frame.camera in current or (current and frame.t_ns - next(iter(current.values())).t_ns > gap_ns):
            sets.append(list(current.values()))
            current = {}
        current[frame.camera] = frame
    return sets
