"""Faults of cameras and their detectors: people missed, frozen and moved pictures, names, sizes, things as people."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Frame, Observation
from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.faults.fault import Breaker, Fault, Part, Scene, by_arrival, changed
from fusion.simulation.optics import Lens
from fusion.store.models import Camera

Choice = Callable[[Scene], Collection[str]]
Keypoints = NDArray[np.float32]

# ---- which cameras ---------------------------------------------------------------------------------------------------


def every(scene: Scene) -> Collection[str]:
    """All cameras."""
    return scene.cameras


def one(scene: Scene) -> Collection[str]:
    """The camera that finds most people."""
    return (scene.busy_camera,)


# ---- how frames change -----------------------------------------------------------------------------------------------


def _kept(frame: Frame, rows: NDArray[np.bool_]) -> Frame:
    looks = frame.appearance
    return replace(frame, keypoints=frame.keypoints[rows], appearance=None if looks is None else looks[rows])


def _with(frame: Frame, keypoints: NDArray[np.floating]) -> Frame:
    """A frame with further detections, which look like no person."""
    more = np.concatenate([frame.keypoints, keypoints.astype(np.float32)])
    looks = frame.appearance
    if looks is not None:
        strange = np.zeros((len(keypoints), looks.shape[1]), np.float32)
        strange[:, 0] = 1.0
        looks = np.concatenate([looks, strange])
    return replace(frame, keypoints=more, appearance=looks)


def _moved(frame: Frame, change: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> Frame:
    """A frame with the seen points (n, K, 2) changed; what was not detected stays at 0."""
    keypoints = frame.keypoints.copy()
    keypoints[..., :2] = np.where(keypoints[..., 2:] > 0, change(frame.keypoints[..., :2]), 0.0)
    return replace(frame, keypoints=keypoints)


def _missing(share: float) -> Breaker:
    """Each detection is missing with a probability, in each frame by itself."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, Frame, scene.cameras, lambda f: _kept(f, scene.random.random(len(f.keypoints)) >= share))

    return breaker


def _blind_for_2_s(share: float) -> Breaker:
    """Each camera finds no person for two seconds at a time, a share of the time."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        n_spells = (scene.end_ns - scene.start_ns) // 2_000_000_000 + 1
        blind = {name: scene.random.random(n_spells) < share for name in scene.cameras}

        def change(f: Frame) -> Frame:
            spell = (f.t_ns - scene.start_ns) // 2_000_000_000
            return _kept(f, np.full(len(f.keypoints), not blind[f.camera][spell]))

        return changed(scene, Frame, scene.cameras, change)

    return breaker


def _frozen(which: Choice) -> Breaker:
    """The detector analyses one picture again and again, from the run's middle on."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        last: dict[str, Frame] = {}

        def change(f: Frame) -> Frame:
            if f.t_ns < scene.middle_ns or f.camera not in last:
                # A picture with people in it does the most harm.
                if len(f.keypoints) or f.camera not in last:
                    last[f.camera] = f
                return f
            return replace(last[f.camera], t_ns=f.t_ns)

        return changed(scene, Frame, which(scene), change)

    return breaker


def _half_blind(which: Choice) -> Breaker:
    """No person is found in the left half of the picture."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        width = {camera.name: camera.size[0] for camera in scene.store.cameras}

        def change(f: Frame) -> Frame:
            seen = f.keypoints[..., 2] > 0
            x = (f.keypoints[..., 0] * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
            return _kept(f, x > 0.5 * width[f.camera])

        return changed(scene, Frame, which(scene), change)

    return breaker


def _turned(degrees: float, shift_px: float, from_share: float) -> Breaker:
    """A camera is knocked: its picture turns about its middle and shifts."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        from_ns = scene.start_ns + round(from_share * (scene.end_ns - scene.start_ns))
        size = {camera.name: np.array(camera.size) for camera in scene.store.cameras}
        angle = math.radians(degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

        def change(f: Frame) -> Frame:
            if f.t_ns < from_ns:
                return f
            middle = 0.5 * size[f.camera]
            return _moved(f, lambda points: (points - middle) @ turn.T + middle + shift_px)

        return changed(scene, Frame, one(scene), change)

    return breaker


def _swapped_names(scene: Scene) -> Iterator[Observation]:
    """Two cameras report under each other's names."""
    mine = scene.busy_camera
    other = next(name for name in scene.cameras if name != mine)
    names = {mine: other, other: mine}
    return changed(scene, Frame, names, lambda f: replace(f, camera=names[f.camera]))


def _misnamed(scene: Scene) -> Iterator[Observation]:
    """All cameras report under names that the store does not have."""
    return changed(scene, Frame, scene.cameras, lambda f: replace(f, camera=f"rtsp-{f.camera}"))


def _sized(factor: float, which: Choice) -> Breaker:
    """Keypoints are in pixels of a picture of another size."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, Frame, which(scene), lambda f: _moved(f, lambda points: points * factor))

    return breaker


def _fractions(which: Choice) -> Breaker:
    """Keypoints are fractions of the picture's width and height."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        size = {camera.name: np.array(camera.size, np.float32) for camera in scene.store.cameras}
        return changed(scene, Frame, which(scene), lambda f: _moved(f, lambda points: points / size[f.camera]))

    return breaker


def _skewed(seconds: float, which: Choice) -> Breaker:
    """The clock of cameras is off by a constant."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, Frame, which(scene), lambda f: replace(f, t_ns=f.t_ns + round(seconds * 1e9)))

    return breaker


def _late(scene: Scene) -> Iterator[Observation]:
    """All frames arrive three seconds late: a detector that lags behind."""
    scene.sensors |= set(scene.cameras)
    arrivals = [(o.t_ns + 3 * 10**9 * isinstance(o, Frame), o) for o in scene.observations]
    return by_arrival(arrivals)


def _coat(cameras: int) -> Breaker:
    """A coat or a chair that some cameras take for a person, eight seconds in sixteen."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        floor = np.array(scene.store.floor)
        state = np.zeros((1, len(CHANNEL)))
        # A step inside the middle of a wall.
        corner = int(scene.random.integers(len(floor)))
        edge_m = 0.5 * (floor[corner] + floor[corner - 1])
        at = edge_m + 0.12 * (floor.mean(axis=0) - edge_m)
        state[0, CHANNEL["x"]], state[0, CHANNEL["y"]] = at
        joints_m = body.joints_m(state, np.array([1.6]))
        lenses = [Lens.of(camera) for camera in scene.store.cameras]
        seen = {lens.camera.name: _image(scene, lens, joints_m) for lens in lenses}
        sharp = sorted(seen, key=lambda name: -int((seen[name][..., 2] > 0).sum()))
        chosen = sharp[:cameras]

        def change(f: Frame) -> Frame:
            if (f.t_ns - scene.start_ns) // 8_000_000_000 % 2 == 0:
                return f
            keypoints = seen[f.camera].copy()
            keypoints[..., :2] += 1.5 * scene.noise(keypoints[..., :2].shape) * (keypoints[..., 2:] > 0)
            return _with(f, keypoints)

        return changed(scene, Frame, chosen, change)

    return breaker


def _image(scene: Scene, lens: Lens, joints_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, K, 3) keypoints of bodies (n, joints, 3) in the store's layout, 0 outside the picture."""
    width, height = lens.camera.size
    if scene.store.keypoints == "box2":
        points_px, _ = lens.project(joints_m)
        low, high = np.nanmin(points_px, axis=1), np.nanmax(points_px, axis=1)
        middle = 0.5 * (low[:, 0] + high[:, 0])
        points_px = np.stack([np.stack([middle, low[:, 1]], -1), np.stack([middle, high[:, 1]], -1)], 1)
    else:
        points_px, _ = lens.project(joints_m[:, body.layout_joints(scene.store.layout)])
    points_px = np.nan_to_num(points_px, nan=-1.0)
    inside = np.asarray(((points_px >= 0) & (points_px < [width, height])).all(axis=2))
    keypoints: NDArray[np.float64] = np.concatenate([points_px, np.full((*inside.shape, 1), 0.5)], axis=2)
    return np.where(inside[..., None], keypoints, 0.0)


def _left_for_right(which: Choice) -> Breaker:
    """The detector's left and right are exchanged."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        names = list(scene.store.layout.joints)
        opposite = [{"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:] for name in names]
        order = [names.index(name) if name in names else i for i, name in enumerate(opposite)]
        return changed(scene, Frame, which(scene), lambda f: replace(f, keypoints=f.keypoints[:, order]))

    return breaker


def _mirrored(which: Choice) -> Breaker:
    """The picture is mirrored, as a front camera's is."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        cameras: dict[str, Camera] = {camera.name: camera for camera in scene.store.cameras}

        def change(f: Frame) -> Frame:
            width = cameras[f.camera].size[0]
            return _moved(f, lambda points: np.stack([width - 1 - points[..., 0], points[..., 1]], -1))

        return changed(scene, Frame, which(scene), change)

    return breaker


def _never(which: Choice) -> Breaker:
    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, Frame, which(scene), lambda f: None)

    return breaker


def _dead_during_a_visit(scene: Scene) -> Iterator[Observation]:
    """All cameras stop while the visit that took most is inside, and come back when it has left."""
    visit = scene.visit()
    start_ns, end_ns = (visit.enter_ns + 2 * 10**9, visit.exit_ns + 10**9) if visit else (scene.middle_ns, scene.end_ns)
    return changed(scene, Frame, scene.cameras, lambda f: None if start_ns <= f.t_ns < end_ns else f)


def _stopped(scene: Scene) -> Iterator[Observation]:
    """All cameras stop half-way, for good."""
    return changed(scene, Frame, scene.cameras, lambda f: None if f.t_ns >= scene.middle_ns else f)


def _slow(scene: Scene) -> Iterator[Observation]:
    """All cameras deliver two frames a second."""
    last: dict[str, int] = {}

    def change(f: Frame) -> Frame | None:
        if f.t_ns - last.get(f.camera, 0) < 480_000_000:
            return None
        last[f.camera] = f.t_ns
        return f

    return changed(scene, Frame, scene.cameras, change)


def _noisy(deviation_px: float, tail: float) -> Breaker:
    """Keypoints err, and a share of them by tens of pixels."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        def change(f: Frame) -> Frame:
            shape = (*f.keypoints.shape[:2], 2)
            far = scene.random.random((*shape[:2], 1)) < tail
            return _moved(f, lambda points: points + np.where(far, 40.0, deviation_px) * scene.noise(shape))

        return changed(scene, Frame, scene.cameras, change)

    return breaker


def _not_numbers(scene: Scene) -> Iterator[Observation]:
    """A tenth of the keypoints is not a number, or infinite, with a good score."""

    def change(f: Frame) -> Frame:
        struck = scene.random.random((*f.keypoints.shape[:2], 1)) < 0.1
        value = np.float32(np.nan if scene.random.random() < 0.5 else np.inf)
        return _moved(f, lambda points: np.where(struck, value, points))

    return changed(scene, Frame, scene.cameras, change)


def _doubled(scene: Scene) -> Iterator[Observation]:
    """Every person is detected twice, some pixels apart."""

    def change(f: Frame) -> Frame:
        again = _moved(f, lambda points: points + 4.0 * scene.noise(points.shape))
        return _with(f, again.keypoints)

    return changed(scene, Frame, scene.cameras, change)


def _ghosts(scene: Scene) -> Iterator[Observation]:
    """Every other frame holds a person's detection at a random place: posters, screens."""
    sizes = {camera.name: camera.size for camera in scene.store.cameras}
    last: dict[str, Keypoints] = {}

    def change(f: Frame) -> Frame:
        if len(f.keypoints):
            last[f.camera] = f.keypoints[:1]
        if f.camera not in last or scene.random.random() < 0.5:
            return f
        ghost = last[f.camera].copy()
        seen = ghost[..., 2] > 0
        shift = scene.random.random(2) * sizes[f.camera] - ghost[seen][:, :2].mean(axis=0)
        ghost[..., :2] = np.where(seen[..., None], ghost[..., :2] + shift, 0.0)
        inside = np.asarray(((ghost[..., :2] >= 0) & (ghost[..., :2] < sizes[f.camera])).all(axis=2))
        return _with(f, np.where(inside[..., None], ghost, 0.0))

    return changed(scene, Frame, scene.cameras, change)


_C = Part.CAMERAS
CAMERA_FAULTS = (
    Fault("30 % missed", _C, _missing(0.3), "each camera misses each person in 30 % of the frames"),
    Fault("50 % missed", _C, _missing(0.5), "each camera misses each person in half of the frames"),
    Fault("60 % missed", _C, _missing(0.6), "each camera misses each person in 60 % of the frames"),
    Fault("blind for 2 s at a time", _C, _blind_for_2_s(0.4), "each camera finds no person 40 % of the time"),
    Fault("a picture frozen", _C, _frozen(one), "one camera repeats a picture with people from half-way on"),
    Fault("pictures frozen", _C, _frozen(every), "all cameras repeat their pictures from half-way on"),
    Fault("half blind", _C, _half_blind(one), "one camera finds no person in half of its picture"),
    Fault("a camera knocked", _C, _turned(3.0, 30.0, 0.5), "one camera turns by 3 degrees half-way"),
    Fault("a camera hangs askew", _C, _turned(3.0, 30.0, 0.0), "the same from the start", warned=True),
    Fault("two cameras swapped", _C, _swapped_names, "two cameras report under each other's names", warned=True),
    Fault("cameras misnamed", _C, _misnamed, "all cameras report under names the store does not have", warned=True),
    Fault("half the size", _C, _sized(0.5, every), "keypoints are in pixels of a picture half as large", warned=True),
    Fault("a camera of half the size", _C, _sized(0.5, one), "the same for one camera", warned=True),
    Fault("twice the size", _C, _sized(2.0, every), "keypoints are in pixels of a picture twice as large", warned=True),
    Fault("fractions", _C, _fractions(every), "keypoints are fractions of the picture", warned=True),
    Fault("a camera in fractions", _C, _fractions(one), "the same for one camera", warned=True),
    Fault("a camera 0.3 s off", _C, _skewed(0.3, one), "one camera's clock is 0.3 s off"),
    Fault("a camera 1 s off", _C, _skewed(-1.0, one), "one camera's clock is 1 s off"),
    Fault("cameras 1 s off", _C, _skewed(-1.0, every), "all cameras' clocks are 1 s off", warned=True),
    Fault("frames late", _C, _late, "all frames arrive 3 s late", warned=True),
    Fault("a coat, one camera", _C, _coat(1), "a camera takes a thing for a person for 8 s at a time"),
    Fault("a coat, two cameras", _C, _coat(2), "two cameras take a thing for a person for 8 s at a time"),
    Fault("a coat, all cameras", _C, _coat(99), "all cameras take a thing for a person for 8 s at a time"),
    Fault("left for right", _C, _left_for_right(every), "all detectors exchange left and right"),
    Fault("a camera's left for right", _C, _left_for_right(one), "one detector exchanges left and right"),
    Fault("a camera mirrored", _C, _mirrored(one), "one camera's picture is mirrored", warned=True),
    Fault("a camera never heard", _C, _never(one), "one camera never delivers", warned=True),
    Fault("no camera heard", _C, _never(every), "no camera ever delivers", warned=True),
    Fault("cameras dead during a visit", _C, _dead_during_a_visit, "no camera delivers during one visit", warned=True),
    Fault("cameras stop", _C, _stopped, "all cameras stop half-way", warned=True),
    Fault("2 frames a second", _C, _slow, "all cameras deliver two frames a second"),
    Fault("heavy tails", _C, _noisy(4.0, 0.15), "keypoints err by 4 px, 15 % of them by 40 px"),
    Fault("keypoints not numbers", _C, _not_numbers, "a tenth of the keypoints is NaN or infinite"),
    Fault("people twice", _C, _doubled, "every person is detected twice"),
    Fault("posters", _C, _ghosts, "every other frame has a false person at another place"),
)
