"""A small store, its observations, and recordings of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal

from fusion.files.recordings import RecordingWriter
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.order import ClocksSetBack, Reorder
from fusion.store.models import Camera, Facing, Gate, Plate, Product, Store

T0_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
NO_PEOPLE = np.zeros((0, 17, 3), np.float32)


def small_store(appearance_dim: int = 0, keypoints: str = "coco17") -> Store:
    """Two cameras, two plates, one gate."""
    camera = {
        "size": (1920, 1080),
        "matrix": ((1100.0, 0.0, 960.0), (0.0, 1100.0, 540.0), (0.0, 0.0, 1.0)),
        "distortions": (0.0,) * 5,
        "rotation": (1.5, 0.0, 0.0),
        "translation": (0.0, 2.0, 3.0),
    }
    plate = {"y": 1.0, "z": 1.0, "width": 0.3, "depth": 0.4, "yaw": 0.0, "capacity_g": 20_000.0}
    return Store.model_validate(
        {
            "format_version": 1,
            "id": "shop",
            "name": "Shop",
            "currency": "EUR",
            "timezone": "Europe/Berlin",
            "floor": ((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)),
            "keypoints": keypoints,
            "appearance_dim": appearance_dim,
            "gate": [Gate(id="entry", direction="both", line=((0.2, 0.0), (1.2, 0.0)), credentials=("qr",))],
            "cameras": [Camera(name=name, **camera) for name in ("north", "south")],
            "plates": [Plate(plate=name, x=x, **plate) for name, x in (("p1", 1.0), ("p2", 2.0))],
            "products": [
                Product(gtin="4006381333931", name="Pen", weight_g=20.0, weight_sd_g=1.0, price=99, vat_rate=19.0)
            ],
            "planogram": [Facing(plate="p1", gtin="4006381333931", stock=3)],
        }
    )


def small_recording(store: Store, n: int = 12, seed: int = 3) -> list[Observation]:
    """n seconds of every kind of observation, in time order."""
    rng = np.random.default_rng(seed)
    n_joints, dim = store.layout.n_joints, store.appearance_dim
    observations: list[Observation] = []
    for second in range(n):
        t_ns = T0_NS + second * SECOND
        observations.append(GateScan(t_ns, "entry", *(("qr", f"code {second}") if second % 2 else ("account", "ann"))))
        for camera in ("north", "south"):
            n_people = int(rng.integers(0, 4))
            keypoints = rng.uniform(0, 1000, (n_people, n_joints, 3)).astype(np.float32)
            appearance = rng.normal(size=(n_people, dim)).astype(np.float32) if dim else None
            observations.append(Frame(t_ns + 1000, camera, keypoints, appearance))
        for plate in ("p1", "p2"):
            observations.append(ShelfReading(t_ns + 2000, plate, rng.normal(0, 500, 12).astype(np.float32)))
        if second % 4 == 0:
            observations.append(ItemSighting(t_ns + 3000, "exit", "read", "4006381333931", 1, 0.5, plate="p1"))
            observations.append(ItemSighting(t_ns + 4000, "exit", "seen", "4006381333931", 2, 1.0, zone="pay"))
    return observations


def assert_same(read: Sequence[Observation], wanted: Sequence[Observation]) -> None:
    assert [(type(o), o.t_ns) for o in read] == [(type(o), o.t_ns) for o in wanted]
    for got, want in zip(read, wanted):
        if isinstance(want, Frame):
            assert isinstance(got, Frame) and got.camera == want.camera
            assert got.keypoints.dtype == np.float32
            assert_array_equal(got.keypoints, want.keypoints)
            assert (got.appearance is None) == (want.appearance is None)
            if want.appearance is not None:
                assert_array_equal(got.appearance, want.appearance)
        elif isinstance(want, ShelfReading):
            assert isinstance(got, ShelfReading) and got.plate == want.plate
            assert_array_equal(got.samples, want.samples)
        else:
            assert got == want


def write(folder: Path, store: Store, observations: Sequence[Observation], **options: object) -> Path:
    with RecordingWriter(folder, store, **options) as writer:  # type: ignore[arg-type]
        for observation in observations:
            writer.write(observation)
    return folder


def copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())



def frame(t_s: float, camera: str = "north") -> Frame:
    return Frame(T0_NS + round(t_s * SECOND), camera, NO_PEOPLE)


def reading(t_s: float, plate: str = "p1") -> ShelfReading:
    return ShelfReading(T0_NS + round(t_s * SECOND), plate, np.zeros(12, np.float32))


def run(reorder: Reorder, arrivals: Sequence[Observation]) -> list[Observation | ClocksSetBack]:
    """What comes out of a reordering in all."""
    out: list[Observation | ClocksSetBack] = []
    for observation in arrivals:
        reorder.push(observation)
        out.extend(reorder.ready())
    return [*out, *reorder.flush()]


def key(observation: Observation) -> tuple[object, ...]:
    """An observation's place in the order."""
    match observation:
        case Frame():
            return observation.t_ns, 1, observation.camera
        case ShelfReading():
            return observation.t_ns, 2, observation.plate
        case GateScan():
            return observation.t_ns, 0, observation.account
        case _:
            return observation.t_ns, 3, observation.gtin, observation.quantity


def live(n: int, *, start: float = 0.0, step: float = 0.04, cameras: Sequence[str] = ("north", "south")) -> list[Frame]:
    """Frames of cameras that run side by side."""
    return [frame(start + step * i, camera) for i in range(n) for camera in cameras]


def epochs(out: Sequence[Observation | ClocksSetBack]) -> list[list[Observation]]:
    """What came out, cut where all clocks were set back."""
    parts: list[list[Observation]] = [[]]
    for each in out:
        if isinstance(each, ClocksSetBack):
            parts.append([])
        else:
            parts[-1].append(each)
    return parts
