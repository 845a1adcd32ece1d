"""A store folder from a few numbers, to be corrected by measuring: `fusion init SHOP --size 6 5 --cameras 4`.

Every length in it is an assumption that a later step replaces: `fusion calibrate` finds the cameras, a worksheet the
plates, `fusion import` the goods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fusion.errors import ConfigError
from fusion.store.models import Camera, Gate, Obstacle, Plate, Store, Zone
from fusion.store.rotations import rotation_vector

# Usual wall shelving: a metre wide, 0.4 m deep, boards that a person reaches, walls behind it.
SHELF_M, SHELF_DEPTH_M, LOWEST_M, HIGHEST_M, GAP_M = 1.0, 0.4, 0.4, 1.5, 0.04
# Cameras under the ceiling, a hand's breadth from the walls, with the field of view of usual wide lenses.
CAMERA_HEIGHT_M, FROM_WALL_M, VIEW_RAD = 2.6, 0.15, math.radians(90.0)
IMAGE = 1280, 720
DOOR_M = 1.0
# Free of shelves beside the front wall, where the doors are.
FRONT_M = 1.5
MOST = 64


@dataclass(frozen=True)
class RoughShop:
    """What an owner knows before measuring.

    Attributes:
        width_m, depth_m: of the floor, a rectangle; the front wall with the doors is at y = 0.
        n_cameras: under the ceiling, spread along the walls.
        n_shelves: a metre wide each, along the back wall first, then along both sides.
        n_boards: of a shelf, one above the other.
        n_plates: beside each other on a board.
    """

    width_m: float = 6.0
    depth_m: float = 5.0
    n_cameras: int = 4
    n_shelves: int = 4
    n_boards: int = 4
    n_plates: int = 4

    def store(self, store_id: str, name: str, currency: str, timezone: str) -> Store:
        """The store, without goods.

        Raises:
            ConfigError: numbers that make no shop, such as more shelves than the walls hold.
        """
        self._check()
        doors = list(self._doors())
        plates, boxes = self._shelves()
        pay = Zone(id="pay", kind="payment", polygon=self._pay_polygon())
        return Store(
            format_version=1,
            id=store_id,
            name=name,
            currency=currency,
            timezone=timezone,
            floor=((0.0, 0.0), (self.width_m, 0.0), (self.width_m, self.depth_m), (0.0, self.depth_m)),
            keypoints="coco17",
            gate=tuple(doors),
            zone=(pay,),
            obstacle=Obstacle(boxes=tuple(boxes)),
            cameras=tuple(self._cameras()),
            plates=tuple(plates),
        )

    def _check(self) -> None:
        for option, value in (("--cameras", self.n_cameras), ("--shelves", self.n_shelves)):
            if not 0 <= value <= MOST:
                raise ConfigError(f"{option} {value}: want 0 to {MOST}")
        for option, value, most in (("--boards", self.n_boards, 8), ("--plates", self.n_plates, 10)):
            if not 1 <= value <= most:
                raise ConfigError(f"{option} {value}: want 1 to {most}")
        for side in (self.width_m, self.depth_m):
            if not 2.0 <= side <= 100.0:
                raise ConfigError(f"--size {self.width_m:g} {self.depth_m:g}: want 2 to 100 metres each way")
        n_most = sum(n for *_, n in self._walls())
        if self.n_shelves > n_most:
            raise ConfigError(
                f"--shelves {self.n_shelves}: want at most {n_most}, since three walls of a floor of {self.width_m:g} x"
                f" {self.depth_m:g} m hold no more; draw islands into store.toml and plates.csv"
            )

    def _doors(self) -> Iterator[Gate]:
        if self.width_m < 2 * DOOR_M + 1.0:
            middle = self.width_m / 2
            line = ((_round(middle - DOOR_M / 2), 0.0), (_round(middle + DOOR_M / 2), 0.0))
            yield Gate(id="door", direction="both", line=line, credentials=("qr", "card", "staff", "open"))
            return
        left, right = 0.3, self.width_m - 0.3
        entry = ((left, 0.0), (left + DOOR_M, 0.0))
        exit_ = ((_round(right - DOOR_M), 0.0), (_round(right), 0.0))
        yield Gate(id="entry", direction="in", line=entry, credentials=("qr", "card", "staff"))
        yield Gate(id="exit", direction="out", line=exit_, credentials=("open",))

    def _pay_polygon(self) -> tuple[tuple[float, float], ...]:
        """Before the exit, clear of the door and of the shelves."""
        x1 = self.width_m - 0.5
        x0 = max(0.5, x1 - 1.4)
        corners = ((x0, 0.4), (x1, 0.4), (x1, FRONT_M - 0.1), (x0, FRONT_M - 0.1))
        return tuple((_round(x), _round(y)) for x, y in corners)

    def _walls(self) -> list[tuple[float, float, float, int]]:
        """Walls to put shelves at: x, y of the first shelf's middle front, yaw, and how many fit."""
        back = int((self.width_m - 2 * GAP_M) / SHELF_M + 1e-9)
        side = max(0, int((self.depth_m - FRONT_M - SHELF_DEPTH_M - 2 * GAP_M) / SHELF_M + 1e-9))
        # A narrow shop keeps an aisle of 1.2 m between the walls.
        n_sides = min(2, int((self.width_m - 1.2) / (SHELF_DEPTH_M + GAP_M)))
        front = SHELF_DEPTH_M + GAP_M
        first = self.width_m / 2 - (back - 1) * SHELF_M / 2
        return [
            (first, self.depth_m - front, 0.0, back),
            (front, FRONT_M + SHELF_M / 2, math.pi / 2, side if n_sides > 0 else 0),
            (self.width_m - front, FRONT_M + SHELF_M / 2, -math.pi / 2, side if n_sides > 1 else 0),
        ]

    def _shelves(self) -> tuple[list[Plate], list[tuple[float, float, float, float, float]]]:
        plates: list[Plate] = []
        boxes = []
        places = [
            (x + (i * SHELF_M if yaw == 0.0 else 0.0), y + (0.0 if yaw == 0.0 else i * SHELF_M), yaw)
            for x, y, yaw, n in self._walls()
            for i in range(n)
        ]
        width_m = SHELF_M / self.n_plates
        heights = np.linspace(LOWEST_M, HIGHEST_M, self.n_boards) if self.n_boards > 1 else np.array([1.0])
        for number, (x, y, yaw) in enumerate(places[: self.n_shelves], 1):
            across, back = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
            for board, z in enumerate(heights, 1):
                for column in range(self.n_plates):
                    along = (column - (self.n_plates - 1) / 2) * width_m
                    plates.append(
                        Plate(
                            plate=f"s{number}b{board}p{column + 1}",
                            x=_round(x + along * across[0] + SHELF_DEPTH_M / 2 * back[0]),
                            y=_round(y + along * across[1] + SHELF_DEPTH_M / 2 * back[1]),
                            z=_round(float(z)),
                            width=_round(width_m),
                            depth=SHELF_DEPTH_M,
                            yaw=round(yaw, 6),
                            capacity_g=20_000.0,
                        )
                    )
            ends = [(x + e * across[0] + d * back[0], y + e * across[1] + d * back[1])
                    for e in (-SHELF_M / 2, SHELF_M / 2) for d in (0.0, SHELF_DEPTH_M)]  # fmt: skip
            xs, ys = [end[0] for end in ends], [end[1] for end in ends]
            box = (min(xs), min(ys), max(xs), max(ys), HIGHEST_M + 0.4)
            boxes.append((_round(box[0]), _round(box[1]), _round(box[2]), _round(box[3]), _round(box[4])))
        return plates, boxes

    def _cameras(self) -> Iterator[Camera]:
        """Along the walls from the front left corner on, each looking at the middle of the floor."""
        focal_px = IMAGE[0] / 2 / math.tan(VIEW_RAD / 2)
        middle = np.array([self.width_m / 2, self.depth_m / 2, 1.0])
        round_m = 2 * (self.width_m + self.depth_m)
        corners = np.array([[0, 0], [self.width_m, 0], [self.width_m, self.depth_m], [0, self.depth_m], [0, 0]], float)
        walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
        for i in range(self.n_cameras):
            # The first stands in a corner: from there a camera sees most.
            along = i * round_m / self.n_cameras
            spot = [np.interp(along, walked, corners[:, axis]) for axis in (0, 1)]
            inner = np.clip(spot, FROM_WALL_M, [self.width_m - FROM_WALL_M, self.depth_m - FROM_WALL_M])
            centre = np.array([*inner, CAMERA_HEIGHT_M])
            forward = (middle - centre) / np.linalg.norm(middle - centre)
            right = np.cross(forward, [0.0, 0.0, 1.0])
            right /= np.linalg.norm(right)
            camera_from_world = np.stack([right, np.cross(forward, right), forward])
            yield Camera(
                name=f"cam{i + 1:02d}",
                size=IMAGE,
                matrix=((focal_px, 0.0, IMAGE[0] / 2), (0.0, focal_px, IMAGE[1] / 2), (0.0, 0.0, 1.0)),
                distortions=(0.0, 0.0, 0.0, 0.0, 0.0),
                rotation=_row(rotation_vector(camera_from_world)),
                translation=_row(-camera_from_world @ centre),
            )


def _row(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = (round(float(value), 8) for value in values)
    return a, b, c


def _round(value: float) -> float:
    return round(value, 4)
