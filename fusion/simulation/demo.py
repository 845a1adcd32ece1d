"""A small demonstration shop of 8 x 6 m."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fusion.store.gtin import check_digit
from fusion.store.models import Camera, Facing, Gate, Obstacle, Plate, Product, Store, Zone
from fusion.store.rotations import rotation_vector

WIDTH_M, DEPTH_M = 8.0, 6.0
PLATE_WIDTH_M, PLATE_DEPTH_M = 0.2, 0.4
LEVELS_M = (0.35, 0.72, 1.08, 1.42, 1.68)
GONDOLA_M = 1.2
CAMERA_HEIGHT_M = 2.7


class _Goods(NamedTuple):
    """A product of the shop's range: weight of a piece in grams, price in cents, VAT rate in percent."""

    name: str
    weight_g: float
    price: int
    vat_rate: int


# Invented, with the weights that small shops sell: 30 to 1300 g, median about 200 g, several near-equal pairs.
_GOODS = (
    _Goods("Still water 0.5 l", 524.0, 99, 19),
    _Goods("Sparkling water 0.5 l", 527.0, 99, 19),
    _Goods("Cola 0.33 l can", 352.0, 129, 19),
    _Goods("Cola light 0.33 l can", 346.0, 129, 19),
    _Goods("Orange juice 1 l", 1065.0, 279, 19),
    _Goods("Apple juice 1 l", 1052.0, 259, 19),
    _Goods("Iced tea 0.5 l", 541.0, 149, 19),
    _Goods("Cold coffee 0.25 l", 268.0, 199, 19),
    _Goods("Whole milk 1 l", 1034.0, 139, 7),
    _Goods("Oat drink 1 l", 1041.0, 219, 19),
    _Goods("Yoghurt plain 150 g", 162.0, 69, 7),
    _Goods("Yoghurt berries 150 g", 164.5, 79, 7),
    _Goods("Butter 250 g", 254.0, 239, 7),
    _Goods("Sliced cheese 200 g", 212.0, 249, 7),
    _Goods("Hummus 175 g", 193.0, 229, 7),
    _Goods("Pasta salad 300 g", 331.0, 399, 7),
    _Goods("Cheese sandwich", 178.0, 349, 7),
    _Goods("Egg sandwich", 186.0, 349, 7),
    _Goods("Wrap with vegetables", 223.0, 429, 7),
    _Goods("Banana bread slice", 96.0, 229, 7),
    _Goods("Rye bread 500 g", 512.0, 289, 7),
    _Goods("Spaghetti 500 g", 508.0, 119, 7),
    _Goods("Tomato sauce 400 g", 702.0, 249, 7),
    _Goods("Rice 1 kg", 1008.0, 249, 7),
    _Goods("Chocolate bar milk", 102.0, 119, 7),
    _Goods("Chocolate bar dark", 105.5, 129, 7),
    _Goods("Chocolate wafer", 45.0, 89, 7),
    _Goods("Nut bar", 42.5, 149, 7),
    _Goods("Salted crisps 150 g", 168.0, 199, 7),
    _Goods("Paprika crisps 150 g", 171.0, 199, 7),
    _Goods("Roasted peanuts 200 g", 209.0, 219, 7),
    _Goods("Wine gums 200 g", 206.5, 129, 7),
    _Goods("Chewing gum", 31.0, 99, 7),
    _Goods("Mints tin", 58.0, 179, 7),
    _Goods("Toothpaste 75 ml", 124.0, 159, 19),
    _Goods("Shower gel 250 ml", 288.0, 199, 19),
    _Goods("Tissues 10 x 10", 232.0, 149, 19),
    _Goods("Batteries AA 4", 99.0, 499, 19),
    _Goods("Washing-up liquid 500 ml", 549.0, 139, 19),
    _Goods("Red wine 0.75 l", 1262.0, 599, 19),
)


def demo_store(
    n_cameras: int = 8,
    n_plates: int = 80,
    n_products: int = 36,
    keypoints: str = "coco17",
    appearance_dim: int = 0,
    look_alike_share: float = 0.0,
    seed: int = 0,
    plate_width_m: float = PLATE_WIDTH_M,
) -> Store:
    """A valid store of 8 x 6 m: shelves along three walls and an island, an entry, an exit, a payment zone.

    Args:
        n_cameras: under the ceiling in a ring, looking inwards; any number.
        n_plates: 1 to 520, in shelves of up to five levels; more where plates are narrower.
        n_products: 1 to 40, and no more than there are plates.
        keypoints: layout of the detections: coco17, body25 or box2.
        appearance_dim: length of the appearance vectors of the detections; 0 for none.
        look_alike_share: share of the products that weigh within 2 g of the product beside them.
        seed: of the assortment's places, stocks and lens distortions.
        plate_width_m: of every plate; on plates of 0.1 m half of all goods rest on two.
    """
    n_plates_max = sum(run.columns(plate_width_m) for run in _RUNS) * len(LEVELS_M)
    if not 1 <= n_plates <= n_plates_max:
        raise ValueError(f"n_plates: want 1 to {n_plates_max}, got {n_plates}")
    if not 1 <= n_products <= len(_GOODS):
        raise ValueError(f"n_products: want 1 to {len(_GOODS)}, got {n_products}")
    random = np.random.Generator(np.random.PCG64([seed, 1]))
    plates, boxes = _shelves(n_plates, plate_width_m)
    products, planogram = _assortment(plates, min(n_products, n_plates), look_alike_share, random)
    return Store(
        format_version=1,
        id="demo",
        name="Demonstration shop",
        currency="EUR",
        timezone="Europe/Berlin",
        floor=((0.0, 0.0), (WIDTH_M, 0.0), (WIDTH_M, DEPTH_M), (0.0, DEPTH_M)),
        keypoints=keypoints,  # type: ignore[arg-type]
        appearance_dim=appearance_dim,
        weight_rate_hz=60.0,
        gate=(
            Gate(id="entry", direction="in", line=((0.5, 0.0), (1.5, 0.0)), credentials=("qr", "card", "staff")),
            Gate(id="exit", direction="out", line=((6.5, 0.0), (7.5, 0.0)), credentials=("open",)),
        ),
        zone=(Zone(id="pay", kind="payment", polygon=((5.4, 0.35), (6.9, 0.35), (6.9, 1.3), (5.4, 1.3))),),
        obstacle=Obstacle(boxes=tuple(boxes)),
        cameras=tuple(_cameras(n_cameras, np.random.Generator(np.random.PCG64([seed, 2])))),
        plates=tuple(plates),
        products=tuple(products),
        planogram=tuple(planogram),
    )


_Box = tuple[float, float, float, float, float]


class _Run(NamedTuple):
    """A run of shelving: middle of the front edge, yaw (a shopper reaches from -y of the plate), length in metres."""

    x: float
    y: float
    yaw: float
    length_m: float

    def columns(self, plate_width_m: float) -> int:
        """Columns of plates that fit into it."""
        return int(self.length_m / plate_width_m + 1e-9)


_RUNS = (
    _Run(4.0, 5.5, 0.0, 6.4),  # along the back wall
    _Run(4.0, 2.6, 0.0, 4.0),  # island, front
    _Run(4.0, 3.5, math.pi, 4.0),  # island, rear
    _Run(0.5, 3.4, math.pi / 2, 3.2),  # left wall
    _Run(7.5, 3.4, -math.pi / 2, 3.2),  # right wall
)


def _shelves(n_plates: int, plate_width_m: float) -> tuple[list[Plate], list[_Box]]:
    """Plates and the boxes of the gondolas that hold them, filled evenly, from the bottom up."""
    fits = [run.columns(plate_width_m) for run in _RUNS]
    n_levels = 4 if n_plates <= 4 * sum(fits) else 5
    columns = [0] * len(_RUNS)
    while sum(columns) * n_levels < n_plates:
        emptiest = min(range(len(_RUNS)), key=lambda run: (columns[run] / fits[run], run))
        columns[emptiest] += 1
    per_gondola = round(GONDOLA_M / plate_width_m)
    plates: list[Plate] = []
    boxes: list[_Box] = []
    gondola = 0
    for (x, y, yaw, _), n_columns in zip(_RUNS, columns):
        across, back = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
        for first in range(0, n_columns, per_gondola):
            gondola += 1
            last = min(first + per_gondola, n_columns)
            for level in range(n_levels):
                for column in range(first, last):
                    along = (column - (n_columns - 1) / 2) * plate_width_m
                    px = x + along * across[0] + 0.5 * PLATE_DEPTH_M * back[0]
                    py = y + along * across[1] + 0.5 * PLATE_DEPTH_M * back[1]
                    if len(plates) < n_plates:
                        plates.append(
                            Plate(
                                plate=f"g{gondola}s{level + 1}p{column - first + 1:02d}",
                                x=round(px, 4),
                                y=round(py, 4),
                                z=LEVELS_M[level],
                                width=plate_width_m,
                                depth=PLATE_DEPTH_M,
                                yaw=round(yaw, 6),
                                capacity_g=20000.0,
                            )
                        )
            ends = [(edge - n_columns / 2) * plate_width_m for edge in (first, last)]
            corners = [
                (x + e * across[0] + d * back[0], y + e * across[1] + d * back[1])
                for e in ends
                for d in (0.0, PLATE_DEPTH_M + 0.04)
            ]
            xs, ys = [c[0] for c in corners], [c[1] for c in corners]
            height = LEVELS_M[n_levels - 1] + 0.4
            box = (min(xs), min(ys), max(xs), max(ys), height)
            boxes.append(tuple(round(v, 4) for v in box))  # type: ignore[arg-type]
    return plates, boxes


def _assortment(
    plates: list[Plate], n_products: int, look_alike_share: float, random: np.random.Generator
) -> tuple[list[Product], list[Facing]]:
    """Products, each on one to a few neighbouring plates of a shelf; every eighth plate shares two products."""
    chosen: list[_Goods] = [_GOODS[i] for i in sorted(random.permutation(len(_GOODS))[:n_products])]
    order = random.permutation(n_products)
    weights = {int(i): chosen[int(i)].weight_g for i in order}
    # Products are laid out in this order along the plates, so neighbours in it lie side by side.
    for before, after in pairwise(order):
        if random.random() < look_alike_share:
            weights[int(after)] = round(weights[int(before)] + random.uniform(-2.0, 2.0), 1)
    products = []
    for i, goods in enumerate(chosen):
        # Numbers of the ranges that GS1 leaves to shops for their own use: 8, 12 and 13 digits.
        body = f"20000{i:02d}" if i % 9 == 4 else f"20000000{i:03d}" if i % 5 == 2 else f"2900000{37 * i:05d}"
        gtin = body + check_digit(body)
        spread_g = round(max(0.4, 0.008 * weights[i]), 2)
        products.append(
            Product(
                gtin=gtin,
                name=goods.name,
                weight_g=weights[i],
                weight_sd_g=spread_g,
                price=goods.price,
                vat_rate=goods.vat_rate,
            )
        )
    # Cut the sequence of plates into one stretch for each product, of nearly equal lengths.
    cuts = np.linspace(0, len(plates), n_products + 1).round().astype(int)
    planogram = []
    for place, product in enumerate(order):
        for at in range(cuts[place], cuts[place + 1]):
            weight_g = weights[int(product)]
            stock = int(np.clip(random.integers(6, 13), 1, max(1, int(9000 / weight_g))))
            planogram.append(Facing(plate=plates[at].plate, gtin=products[int(product)].gtin, stock=stock))
        at = cuts[place + 1]
        if place + 1 < n_products and random.random() < 0.2 and plates[at - 1].z == plates[at].z:
            other = products[int(order[place + 1])]
            planogram.append(Facing(plate=plates[at - 1].plate, gtin=other.gtin, stock=2))
    return products, planogram


def _cameras(n_cameras: int, random: np.random.Generator) -> Iterator[Camera]:
    """A ring just inside the walls, each looking at a point between the middle and the opposite side."""
    perimeter_m = 2 * (WIDTH_M + DEPTH_M)
    for i in range(n_cameras):
        along = (i + 0.5) * perimeter_m / n_cameras
        if along < WIDTH_M:
            at = (along, 0.0)
        elif along < WIDTH_M + DEPTH_M:
            at = (WIDTH_M, along - WIDTH_M)
        elif along < 2 * WIDTH_M + DEPTH_M:
            at = (2 * WIDTH_M + DEPTH_M - along, DEPTH_M)
        else:
            at = (0.0, perimeter_m - along)
        spot = np.clip(at, 0.15, [WIDTH_M - 0.15, DEPTH_M - 0.15])
        centre = np.array([*spot, CAMERA_HEIGHT_M + random.uniform(-0.1, 0.1)])
        middle = np.array([WIDTH_M / 2, DEPTH_M / 2, 0.8])
        target = centre + 0.9 * (middle - centre) + random.uniform(-0.3, 0.3, 3)
        forward = (target - centre) / np.linalg.norm(target - centre)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        camera_from_world = np.stack([right, np.cross(forward, right), forward])
        focal_px = random.uniform(600.0, 660.0)
        yield Camera(
            name=f"cam{i + 1:02d}",
            size=(1280, 720),
            matrix=(
                (round(focal_px, 3), 0.0, round(640.0 + random.uniform(-8, 8), 3)),
                (0.0, round(focal_px * random.uniform(0.998, 1.002), 3), round(360.0 + random.uniform(-8, 8), 3)),
                (0.0, 0.0, 1.0),
            ),
            distortions=(
                round(random.uniform(-0.09, -0.05), 5),
                round(random.uniform(0.005, 0.015), 5),
                round(random.uniform(-5e-4, 5e-4), 6),
                round(random.uniform(-5e-4, 5e-4), 6),
                0.0,
            ),
            rotation=tuple(round(float(v), 8) for v in rotation_vector(camera_from_world)),  # type: ignore[arg-type]
            translation=tuple(round(float(v), 8) for v in -camera_from_world @ centre),  # type: ignore[arg-type]
        )
