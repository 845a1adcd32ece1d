"""The store as frozen models: what each file of a store folder holds.

Lengths are metres, masses grams, angles radians, money integer minor units. Kernels never see these models: stages turn
them into arrays once, when an engine is built.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from fusion.store import iso4217
from fusion.store.gs1 import InStorePattern
from fusion.store.gtin import Gtin, OwnGtins
from fusion.store.layouts import LAYOUTS, Layout
from fusion.store.lenses import DISTORTION_COUNTS, FISHEYE_COUNT
from fusion.store.prices import Prices
from fusion.store.values import (
    CapacityGrams,
    Currency,
    Finite,
    Identifier,
    Metres,
    MinorUnits,
    Name,
    PieceGrams,
    Polygon,
    PositiveMetres,
    Radians,
    Segment,
    StrictModel,
    TimeZone,
    VatPercent,
    require,
)

# Grams of the units in which scales may report.
WEIGHT_UNITS_G = {"g": 1.0, "kg": 1000.0, "lb": 453.59237, "oz": 28.349523125}

# ---- store.toml ------------------------------------------------------------------------------------------------------


class Gate(StrictModel):
    """A line that people cross to enter or to leave; the store lies to the left of line[0] -> line[1].

    Of kind `cabinet`: a door in front of goods, through which people reach and do not walk. `line` is its front from
    above, and everything between its opening and its closing is the account's that was shown.
    """

    id: Identifier
    direction: Literal["in", "out", "both"]
    line: Segment
    credentials: tuple[Literal["qr", "card", "face", "staff", "open"], ...] = Field(min_length=1)
    kind: Literal["line", "cabinet"] = "line"
    # Plates behind the door of a cabinet; left out where all plates of the store are.
    plates: tuple[Identifier, ...] = ()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Gate:
        if self.kind == "line":
            require(not self.plates, "plates with kind cabinet alone", self.plates)
            return self
        require(self.direction == "both", "direction both with kind cabinet", self.direction)
        require("open" not in self.credentials, "a credential that names an account with kind cabinet", "open")
        return self


class Zone(StrictModel):
    """An area of the floor with a purpose."""

    id: Identifier
    kind: Literal["payment", "queue", "staff"]
    polygon: Polygon


class Obstacle(StrictModel):
    """Boxes that block people's way and hide what is behind them: x0, y0, x1, y1, height in metres."""

    boxes: tuple[tuple[Metres, Metres, Metres, Metres, PositiveMetres], ...] = ()

    @model_validator(mode="after")
    def _corners_in_order(self) -> Obstacle:
        for x0, y0, x1, y1, _ in self.boxes:
            require(x0 < x1 and y0 < y1, "x0 < x1 and y0 < y1", (x0, y0, x1, y1))
        return self


class ReviewPolicy(StrictModel):
    """When a person must check a receipt before it is charged."""

    # Largest probability that a settled receipt may be wrong. By default a receipt goes to review when it is less
    # certain than 19 in 20; since probabilities are calibrated, this bounds the share of wrong receipts.
    receipt_error_max: float = Field(default=0.05, gt=0.0, lt=1.0)
    # `settle`: where the possible goods of a load have one price and VAT rate, which of them it was sends no receipt to
    # review. The amount is right, but the receipt may name the wrong goods, and the shelf stays uncertain.
    equal_price: Literal["review", "settle"] = "review"


class CartPolicy(StrictModel):
    """Which visit pays for goods that pass from one to another."""

    # Within one visit it does not matter. `picker`: the visit that took the piece from the shelf. `carrier`: the visit
    # with which a reader at the exit reads it. Pieces that are back on a shelf are charged to no visit.
    hand_over: Literal["picker", "carrier"] = "picker"


class ItemsPolicy(StrictModel):
    """How often a source of items.jsonl misses a carried piece: what it does not report is weak evidence."""

    # Metal and liquids hide tags; in a camera's view goods hide each other far more.
    read_miss_rate: float = Field(default=0.05, gt=0.0, lt=1.0)
    seen_miss_rate: float = Field(default=0.3, gt=0.0, lt=1.0)


class PrivacyPolicy(StrictModel):
    """How long the link between a visit and the shopper's account is kept."""

    unlink_after_days: int = Field(default=30, ge=0, le=3650)


class PaymentPolicy(StrictModel):
    """How customers pay.

    `leave`: after leaving. `enter`: after leaving, from `authorise` minor units that were authorised at the entry.
    `zone`: in the payment zone, where the basket is shown and confirmed. `door`: the exit opens once it is paid.
    `partial`: with `enter`, an authorisation of less than that lets a customer in; otherwise it is released again.
    """

    mode: Literal["leave", "enter", "zone", "door"] = "leave"
    authorise: int = Field(default=0, ge=0, le=10**12)
    partial: bool = False

    @model_validator(mode="after")
    def _amount_where_it_counts(self) -> PaymentPolicy:
        want = "authorise above 0 with mode enter and 0 with any other"
        require((self.mode == "enter") == (self.authorise > 0), want, self.authorise)
        require(self.mode == "enter" or not self.partial, "partial with mode enter alone", self.mode)
        return self


class CalibrationPolicy(StrictModel):
    """What becomes of a camera that no longer hangs where its calibration has it.

    `moved`: with `correct`, its new pose is found from the people that other cameras see, proved and used; with
    `report`, it is left out until a person has calibrated it. `fixed`: cameras that are never corrected.
    """

    moved: Literal["correct", "report"] = "correct"
    fixed: tuple[Identifier, ...] = ()


class StoreSettings(StrictModel):
    """store.toml alone, as written."""

    format_version: Literal[1]
    id: Identifier
    name: Name
    currency: Currency
    timezone: TimeZone
    floor: Polygon
    keypoints: Literal["coco17", "body25", "box2"]
    appearance_dim: int = Field(default=0, ge=0, le=4096)
    weight_rate_hz: float = Field(default=60.0, gt=0, le=10_000)
    # In which the plates report; the engine converts their samples once, and everything else is in grams.
    weight_unit: Literal["g", "kg", "lb", "oz"] = "g"
    # Codes of the store's own with weight or price of a piece inside, such as 28IIIIIWWWWWC; see fusion.store.gs1.
    in_store_codes: tuple[InStorePattern, ...] = ()
    gate: tuple[Gate, ...] = ()
    zone: tuple[Zone, ...] = ()
    obstacle: Obstacle = Obstacle()
    review: ReviewPolicy = ReviewPolicy()
    carts: CartPolicy = CartPolicy()
    items: ItemsPolicy = ItemsPolicy()
    privacy: PrivacyPolicy = PrivacyPolicy()
    payment: PaymentPolicy = PaymentPolicy()
    calibration: CalibrationPolicy = CalibrationPolicy()


# ---- cameras.toml and the tables -------------------------------------------------------------------------------------

Row3 = tuple[float, float, float]


class Camera(StrictModel):
    """A calibrated camera: x_cam = R @ x_world + t, OpenCV axes (x right, y down, z forward).

    Attributes:
        size: width and height of its images, pixels.
        matrix: intrinsics K, with focal lengths and principal point in pixels.
        distortions: of OpenCV's model, see `fusion.store.lenses`: k1, k2, p1, p2, k3; with k4, k5, k6 eight, with s1 to
            s4 twelve numbers. Of a fisheye: k1, k2, k3, k4.
        rotation: R as a rotation vector, radians.
        translation: t, metres.
        fisheye: whether the lens is one, in OpenCV's sense (Kannala and Brandt); it is used to 84 degrees off its axis.
    """

    name: Identifier
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    matrix: tuple[Row3, Row3, Row3]
    distortions: tuple[float, ...]
    rotation: Row3
    translation: tuple[Metres, Metres, Metres]
    fisheye: bool = False

    @model_validator(mode="after")
    def _usable(self) -> Camera:
        n = len(self.distortions)
        if self.fisheye and n != FISHEYE_COUNT:
            raise ValueError(f"fisheye: want the distortions k1, k2, k3, k4 of a fisheye, got {n} numbers")
        if not self.fisheye and n not in DISTORTION_COUNTS:
            raise ValueError(f"distortions: want k1, k2, p1, p2, k3 (or 8 or 12 numbers), got {n} numbers")
        flat = [*(v for row in self.matrix for v in row), *self.distortions, *self.rotation, *self.translation]
        require(all(map(math.isfinite, flat)), "finite calibration values", flat)
        (fx, _, cx), (shear, fy, cy), bottom = self.matrix
        require(fx * fy != 0.0, "an invertible matrix", self.matrix)
        in_pixels = fx > 1.0 and fy > 1.0 and shear == 0.0
        require(in_pixels, "focal lengths in pixels on the matrix's diagonal", self.matrix)
        require(bottom == (0.0, 0.0, 1.0), "last row of matrix 0, 0, 1", bottom)
        width, height = self.size
        centred = -width < cx < 2 * width and -height < cy < 2 * height
        require(centred, f"a principal point near the {width} x {height} image", (cx, cy))
        return self


class Plate(StrictModel):
    """A weighing plate: centre of its surface, width along its own x axis, depth towards the back of the shelf."""

    plate: Identifier
    x: Metres
    y: Metres
    z: Metres
    width: Annotated[PositiveMetres, Field(le=10.0)]
    depth: Annotated[PositiveMetres, Field(le=10.0)]
    yaw: Radians
    capacity_g: CapacityGrams


class Product(StrictModel):
    """A product: weight of a piece and its standard deviation, price in minor units with VAT, VAT rate in percent."""

    gtin: Gtin
    name: Annotated[Name, Field(min_length=1)]
    weight_g: PieceGrams
    weight_sd_g: Annotated[Finite, Field(ge=0)]
    price: MinorUnits
    vat_rate: VatPercent


class Facing(StrictModel):
    """A row of the planogram: `stock` pieces of a product lie on a plate when the recording starts."""

    plate: Identifier
    gtin: str
    stock: int = Field(ge=0)


# ---- all of it -------------------------------------------------------------------------------------------------------


class Store(StoreSettings):
    """A whole store folder. `Store.load(path)` reads one, `save(path)` writes one that loads equal.

    Attributes beyond store.toml's keys: cameras in the order of their names; plates, products and planogram in file
    order; prices.
    """

    cameras: tuple[Camera, ...] = ()
    plates: tuple[Plate, ...] = ()
    products: tuple[Product, ...] = ()
    planogram: tuple[Facing, ...] = ()
    prices: Prices = Prices()

    @property
    def behind_doors(self) -> dict[str, tuple[str, ...]]:
        """By id of each gate of kind `cabinet`, the plates behind its door."""
        everything = tuple(plate.plate for plate in self.plates)
        return {gate.id: gate.plates or everything for gate in self.gate if gate.kind == "cabinet"}

    @property
    def layout(self) -> Layout:
        """The keypoint layout of the store's detections."""
        return LAYOUTS[self.keypoints]

    @property
    def own_gtins(self) -> OwnGtins:
        """How the store spells its products' GTINs, whatever spelling a reader or a file uses. Built by each call."""
        return OwnGtins(product.gtin for product in self.products)

    @property
    def weight_unit_g(self) -> float:
        """Grams of the unit in which the plates report."""
        return WEIGHT_UNITS_G[self.weight_unit]

    @property
    def currency_exponent(self) -> int:
        """Decimal places of the currency: 249 minor units of EUR are 2.49."""
        return iso4217.decimal_places(self.currency)

    def price_text(self, minor: int) -> str:
        """An amount in the store's currency as people read it, such as `2.49 EUR`."""
        return iso4217.amount_text(minor, self.currency)

    def local_time(self, t_ns: int) -> datetime.datetime:
        """An instant on the store's clock, to the second."""
        # Whole seconds first: a float of nanoseconds since 1970 does not hold the second.
        return datetime.datetime.fromtimestamp(t_ns // 1_000_000_000, ZoneInfo(self.timezone))

    @classmethod
    def load(cls, folder: str | Path) -> Store:
        """Read a store folder.

        Raises:
            ConfigError: with every fault of every file, each naming file, row and key.
        """
        from fusion.store.folder import read_store

        return read_store(Path(folder))

    def save(self, folder: str | Path) -> None:
        """Write the store folder, creating it where needed.

        Raises:
            OSError: a file cannot be written.
        """
        from fusion.store.folder import write_store

        write_store(self, Path(folder))
