"""The store folder: read strictly, every fault at once, and written back exactly.

Everything here is a frozen pydantic model that refuses unknown keys. Lengths are metres, masses grams, angles radians,
money integer minor units. Kernels never see these models: stages turn them into arrays once, when an engine is built.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fusion.errors import ConfigError
from fusion.store.layouts import LAYOUTS, Layout

FORMAT_VERSION = 1

# ISO 4217 codes that are not divided by a hundred; every other active currency has two decimals.
_EXPONENTS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}
_CURRENCIES = frozenset(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD "
    "RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX "
    "USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG".split()
)


# ---- checks that a value must pass, each with a message of the form "want ..., got ..." ------------------------------


def _require(holds: bool, want: str, got: object) -> None:
    if not holds:
        raise ValueError(f"want {want}, got {got!r}")


def _finite(value: float) -> float:
    _require(math.isfinite(value), "a finite number", value)
    return value


def _metres(value: float) -> float:
    # No store, and no camera's distance to it, is a kilometre long; a file in millimetres almost always is.
    _require(abs(value) < 1000.0, "metres", value)
    return value


def _radians(value: float) -> float:
    _require(abs(value) <= 2 * math.pi + 1e-9, "radians within one turn (degrees?)", value)
    return value


def _piece_weight(value: float) -> float:
    _require(value >= 1.0, "grams, at least 1 (kilograms?)", value)
    return value


def _capacity(value: float) -> float:
    _require(value >= 100.0, "grams, at least 100 (kilograms?)", value)
    return value


def _vat_percent(value: float) -> float:
    _require(0.0 <= value <= 100.0, "a percentage from 0 to 100", value)
    _require(value == 0.0 or value >= 1.0, "a percentage such as 19 (a fraction?)", value)
    return value


def _minor_units(value: Any) -> Any:
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError(f"want an integer of minor units such as 249, got {value!r}")
    return value


def check_digit(body: str) -> str:
    """GS1 check digit of a GTIN's other digits. Source: GS1 General Specifications, section 7.9."""
    weighted = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return str(-weighted % 10)


def _gtin(value: str) -> str:
    digits = value.isascii() and value.isdecimal()
    _require(digits and len(value) in (8, 12, 13, 14), "a GTIN of 8, 12, 13 or 14 digits", value)
    _require(check_digit(value[:-1]) == value[-1], f"check digit {check_digit(value[:-1])}", value)
    return value


def _currency(value: str) -> str:
    _require(value in _CURRENCIES, "an ISO 4217 code such as EUR", value)
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"want an IANA time zone such as Europe/Berlin, got {value!r}") from None
    return value


def signed_area_m2(polygon: Sequence[tuple[float, float]]) -> float:
    """Area of a simple polygon, positive where its corners run counter-clockwise."""
    corners = [*polygon, polygon[0]]
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, corners[1:]))


def _crosses_itself(polygon: Sequence[tuple[float, float]]) -> bool:
    def turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    n = len(polygon)
    edges = [(polygon[i], polygon[(i + 1) % n]) for i in range(n)]
    for i in range(n):
        for j in range(i + 2, n - (i == 0)):
            (a, b), (c, d) = edges[i], edges[j]
            if turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0:
                return True
    return False


def _polygon(value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    _require(len(value) >= 3, "at least 3 corners", len(value))
    area = signed_area_m2(value)
    _require(abs(area) > 1e-6 and not _crosses_itself(value), "a polygon that encloses an area once", value)
    _require(area > 0, "corners counter-clockwise", "clockwise ones")
    return value


def _segment(value: tuple[tuple[float, float], tuple[float, float]]) -> tuple[tuple[float, float], tuple[float, float]]:
    _require(math.dist(*value) > 0.05, "a line at least 0.05 m long", value)
    return value


Identifier = Annotated[str, Field(min_length=1, max_length=255)]
Metres = Annotated[float, AfterValidator(_finite), AfterValidator(_metres)]
PositiveMetres = Annotated[Metres, Field(gt=0)]
Point2 = tuple[Metres, Metres]
Polygon = Annotated[tuple[Point2, ...], AfterValidator(_polygon)]
Segment = Annotated[tuple[Point2, Point2], AfterValidator(_segment)]
Gtin = Annotated[str, AfterValidator(_gtin)]
Row3 = tuple[float, float, float]


class StrictModel(BaseModel):
    """Refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Gate(StrictModel):
    """A line that people cross to enter or to leave; the store lies to the left of line[0] -> line[1]."""

    id: Identifier
    direction: Literal["in", "out", "both"]
    line: Segment
    credentials: tuple[Literal["qr", "card", "face", "staff", "open"], ...] = Field(min_length=1)


class Zone(StrictModel):
    """An area of the floor with a meaning."""

    id: Identifier
    kind: Literal["payment", "queue", "staff"]
    polygon: Polygon


class Obstacle(StrictModel):
    """Boxes that block people's way and hide what is behind them: x0, y0, x1, y1, height in metres."""

    boxes: tuple[tuple[Metres, Metres, Metres, Metres, PositiveMetres], ...] = ()

    @model_validator(mode="after")
    def _corners_in_order(self) -> Obstacle:
        for x0, y0, x1, y1, _ in self.boxes:
            _require(x0 < x1 and y0 < y1, "x0 < x1 and y0 < y1", (x0, y0, x1, y1))
        return self


class ReviewPolicy(StrictModel):
    """When a person has to look at a receipt before money moves."""

    # Largest probability that a settled receipt may be wrong. The default asks for review of what is less sure than
    # 19 in 20; calibrated probabilities make it the share of wrong receipts that a store accepts at the very most.
    receipt_error_max: float = Field(default=0.05, gt=0.0, lt=1.0)


class CartPolicy(StrictModel):
    """Who pays for what goes from hand to hand."""

    # Between visits; inside one visit it does not matter. `picker`: whoever took it from the shelf. `carrier`: whoever
    # is read with it at the exit. What lies on a shelf again is paid for by nobody.
    hand_over: Literal["picker", "carrier"] = "picker"


class ItemsPolicy(StrictModel):
    """How far to trust what items.jsonl does not tell: the share of carried pieces that a source misses."""

    # Metal and liquids hide tags; in a camera's view goods hide each other far more.
    read_miss_rate: float = Field(default=0.05, gt=0.0, lt=1.0)
    seen_miss_rate: float = Field(default=0.3, gt=0.0, lt=1.0)


class PrivacyPolicy(StrictModel):
    """How long the link between a visit and the shopper's account is kept."""

    unlink_after_days: int = Field(default=30, ge=0, le=3650)


class PaymentPolicy(StrictModel):
    """How customers pay.

    `leave`: after leaving. `enter`: after leaving, on `authorise` minor units promised at the entry. `zone`: in the
    payment zone, where the basket is shown and confirmed. `door`: the way out opens when it is paid.
    """

    mode: Literal["leave", "enter", "zone", "door"] = "leave"
    authorise: int = Field(default=0, ge=0, le=10**12)

    @model_validator(mode="after")
    def _amount_where_it_counts(self) -> PaymentPolicy:
        _require((self.mode == "enter") == (self.authorise > 0), "authorise with mode enter, only then", self.authorise)
        return self


class Camera(StrictModel):
    """A calibrated pinhole camera: x_cam = R @ x_world + t, OpenCV axes (x right, y down, z forward)."""

    name: Identifier
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    matrix: tuple[Row3, Row3, Row3]
    distortions: tuple[float, float, float, float, float]
    rotation: Row3
    translation: tuple[Metres, Metres, Metres]
    fisheye: Literal[False] = False

    @model_validator(mode="after")
    def _usable(self) -> Camera:
        flat = [*(v for row in self.matrix for v in row), *self.distortions, *self.rotation, *self.translation]
        _require(all(map(math.isfinite, flat)), "finite calibration values", flat)
        (fx, _, cx), (shear, fy, cy), bottom = self.matrix
        _require(fx * fy != 0.0, "an invertible matrix", self.matrix)
        in_pixels = fx > 1.0 and fy > 1.0 and shear == 0.0
        _require(in_pixels, "focal lengths in pixels on the matrix's diagonal", self.matrix)
        _require(bottom == (0.0, 0.0, 1.0), "last row of matrix 0, 0, 1", bottom)
        width, height = self.size
        centred = -width < cx < 2 * width and -height < cy < 2 * height
        _require(centred, f"a principal point near the {width} x {height} image", (cx, cy))
        return self


class Plate(StrictModel):
    """A weighing plate: centre of its surface, width along its own x axis, depth towards the back of the shelf."""

    plate: Identifier
    x: Metres
    y: Metres
    z: Metres
    width: Annotated[PositiveMetres, Field(le=10.0)]
    depth: Annotated[PositiveMetres, Field(le=10.0)]
    yaw: Annotated[float, AfterValidator(_finite), AfterValidator(_radians)]
    capacity_g: Annotated[float, AfterValidator(_finite), AfterValidator(_capacity)]


class Product(StrictModel):
    """What is sold: weight of a piece and its spread in grams, price in minor units with VAT, VAT rate in percent."""

    gtin: Gtin
    name: str = Field(min_length=1)
    weight_g: Annotated[float, AfterValidator(_finite), AfterValidator(_piece_weight)]
    weight_sd_g: Annotated[float, AfterValidator(_finite), Field(ge=0)]
    price: Annotated[int, BeforeValidator(_minor_units), Field(ge=0)]
    vat_rate: Annotated[float, AfterValidator(_finite), AfterValidator(_vat_percent)]


class Facing(StrictModel):
    """So many pieces of a product on a plate when the recording starts."""

    plate: Identifier
    gtin: str
    stock: int = Field(ge=0)


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _date(value: str) -> str:
    try:
        _require(datetime.date.fromisoformat(value).isoformat() == value, "a date such as 2026-01-31", value)
    except ValueError:
        raise ValueError(f"want a date such as 2026-01-31, got {value!r}") from None
    return value


def _time(value: str) -> str:
    _require(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d|24:00", value) is not None, "a time such as 14:30", value)
    return value


class _When(StrictModel):
    """When a price or an offer holds, on the store's clock and calendar; without any of these always, for everybody.

    Both days are included; `between` includes its first minute and not its last; `members`: only for them.
    """

    first_day: Annotated[str, AfterValidator(_date)] | None = None
    last_day: Annotated[str, AfterValidator(_date)] | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    between: tuple[Annotated[str, AfterValidator(_time)], Annotated[str, AfterValidator(_time)]] | None = None
    members: bool = False

    @model_validator(mode="after")
    def _some_time(self) -> _When:
        if self.between is not None:
            _require(self.between[0] < self.between[1], "between: a time before a later one", self.between)
        if self.first_day is not None and self.last_day is not None:
            _require(self.first_day <= self.last_day, "first_day not after last_day", (self.first_day, self.last_day))
        return self

    def holds(self, local: datetime.datetime, member: bool) -> bool:
        """Whether it holds at an instant of the store's clock."""
        day, minute = local.date().isoformat(), f"{local:%H:%M}"
        return (
            (member or not self.members)
            and (self.first_day is None or self.first_day <= day)
            and (self.last_day is None or day <= self.last_day)
            and (not self.days or _DAYS[local.weekday()] in self.days)
            and (self.between is None or self.between[0] <= minute < self.between[1])
        )


class Price(_When):
    """Another price of a product at some time, in minor units with VAT."""

    gtin: Gtin
    price: int = Field(ge=0, le=10**9)


class Offer(_When):
    """`pieces` of some products together for `price`, or each such group `percent` cheaper."""

    id: Identifier
    gtins: tuple[Gtin, ...] = Field(min_length=1)
    pieces: int = Field(default=1, ge=1, le=100)
    price: int | None = Field(default=None, ge=0, le=10**9)
    percent: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _one_way(self) -> Offer:
        _require((self.price is None) != (self.percent is None), "price or percent, one of them", self.id)
        return self


class Prices(StrictModel):
    """prices.toml: what the prices of products.csv do not say. Of the prices that hold, the last in the file counts."""

    price: tuple[Price, ...] = ()
    offer: tuple[Offer, ...] = ()


class _StoreToml(StrictModel):
    """store.toml alone, as written."""

    format_version: Literal[1]
    id: Identifier
    name: str
    currency: Annotated[str, AfterValidator(_currency)]
    timezone: Annotated[str, AfterValidator(_timezone)]
    floor: Polygon
    keypoints: Literal["coco17", "body25", "box2"]
    appearance_dim: int = Field(default=0, ge=0, le=4096)
    weight_rate_hz: float = Field(default=60.0, gt=0, le=10_000)
    gate: tuple[Gate, ...] = ()
    zone: tuple[Zone, ...] = ()
    obstacle: Obstacle = Obstacle()
    review: ReviewPolicy = ReviewPolicy()
    carts: CartPolicy = CartPolicy()
    items: ItemsPolicy = ItemsPolicy()
    privacy: PrivacyPolicy = PrivacyPolicy()
    payment: PaymentPolicy = PaymentPolicy()


class Store(_StoreToml):
    """A whole store folder. `Store.load(path)` reads one, `save(path)` writes one that loads equal.

    Attributes beyond store.toml's keys: cameras in the order of their names, plates, products and planogram in file
    order.
    """

    cameras: tuple[Camera, ...] = ()
    plates: tuple[Plate, ...] = ()
    products: tuple[Product, ...] = ()
    planogram: tuple[Facing, ...] = ()
    prices: Prices = Prices()

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.keypoints]

    @property
    def currency_exponent(self) -> int:
        """Decimal places of the currency: 249 minor units of EUR are 2.49."""
        return _EXPONENTS.get(self.currency, 2)

    def price_text(self, minor: int) -> str:
        """An amount as people read it, such as `2.49 EUR`."""
        places = self.currency_exponent
        sign, whole = ("-" if minor < 0 else ""), abs(minor)
        decimals = f".{whole % 10**places:0{places}d}" if places else ""
        return f"{sign}{whole // 10**places}{decimals} {self.currency}"

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
        return _StoreReader(Path(folder)).read()

    def save(self, folder: str | Path) -> None:
        """Write the store folder, creating it where needed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        elsewhere = set(Store.model_fields) - set(_StoreToml.model_fields)
        settings = self.model_dump(exclude=elsewhere, exclude_defaults=True)
        settings = {"format_version": FORMAT_VERSION, **settings, "weight_rate_hz": self.weight_rate_hz}
        (folder / "store.toml").write_text(_toml(settings), encoding="utf-8")
        (folder / "cameras.toml").write_text(cameras_text(self.cameras), encoding="utf-8")
        if self.prices != Prices():
            prices = self.prices.model_dump(exclude_defaults=True)
            (folder / "prices.toml").write_text(_toml(prices), encoding="utf-8")
        else:
            (folder / "prices.toml").unlink(missing_ok=True)
        for name, model, rows in self._tables():
            with open(folder / name, "w", newline="", encoding="utf-8") as file:
                file.write(",".join(model.model_fields) + "\n")
                for row in rows:
                    file.write(",".join(_csv_cell(getattr(row, key)) for key in model.model_fields) + "\n")

    def _tables(self) -> Iterator[tuple[str, type[StrictModel], tuple[StrictModel, ...]]]:
        yield "plates.csv", Plate, self.plates
        yield "products.csv", Product, self.products
        yield "planogram.csv", Facing, self.planogram


def inside_polygon(polygon: Sequence[tuple[float, float]], x: float, y: float, margin_m: float = 0.0) -> bool:
    """Whether a point of the floor lies in a polygon or within margin_m of its edge."""
    inside = False
    x0, y0 = polygon[-1]
    for x1, y1 in polygon:
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
        x0, y0 = x1, y1
    if inside:
        return True
    return edge_distance_m(polygon, x, y) <= margin_m


def edge_distance_m(polygon: Sequence[tuple[float, float]], x: float, y: float) -> float:
    """How far a point of the floor is from the nearest edge of a polygon; of two points, from the line between them."""
    nearest = math.inf
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]]):
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-18)
        along = min(max(along, 0.0), 1.0)
        nearest = min(nearest, math.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return nearest


# ---- reading ---------------------------------------------------------------------------------------------------------

_M = TypeVar("_M", bound=StrictModel)


def validation_faults(error: ValidationError, prefix: str) -> Iterator[str]:
    """What pydantic found, one line each: `key: want ..., got ...`."""
    for fault in error.errors():
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
        match fault["type"]:
            case "extra_forbidden":
                said = "unknown key"
            case "missing":
                said = "missing"
            case "value_error":
                said = str(fault["ctx"]["error"])
            case _:
                said = f"{fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"
        yield f"{prefix}{key}: {said}" if key else f"{prefix}{said}"


class _StoreReader:
    """Reads the five files and keeps a list of everything that is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self) -> Store:
        if not self.folder.is_dir():
            got = "a file" if self.folder.exists() else "nothing"
            raise ConfigError(f"{self.folder}: want a store folder, got {got}")
        settings_raw = self._toml("store.toml")
        settings = self._model(_StoreToml, settings_raw, "store.toml: ") if settings_raw is not None else None
        cameras = self._cameras(self._toml("cameras.toml") or {})
        plates = self._csv("plates.csv", Plate, lambda row: f"plate {row.get('plate')!r}: ")
        products = self._csv("products.csv", Product, lambda row: f"product {row.get('gtin')!r}: ")
        facings = self._csv("planogram.csv", Facing, lambda row: "")
        prices: Prices | None = Prices()
        if (self.folder / "prices.toml").exists():
            prices_raw = self._toml("prices.toml")
            prices = None if prices_raw is None else self._model(Prices, prices_raw, "prices.toml: ")
        if settings is not None:
            self._unique("store.toml: gate", [("", gate.id) for gate in settings.gate])
            self._unique("store.toml: zone", [("", zone.id) for zone in settings.zone])
            for row, plate in plates:
                if not inside_polygon(settings.floor, plate.x, plate.y, margin_m=0.05):
                    self.faults.append(
                        f"plates.csv:{row}: plate {plate.plate!r}: x, y: want a point on the floor, "
                        f"got ({plate.x}, {plate.y})"
                    )
        self._unique("plates.csv: plate", [(f"row {row}", plate.plate) for row, plate in plates])
        self._unique("products.csv: gtin", [(f"row {row}", product.gtin) for row, product in products])
        self._unique("planogram.csv: plate and gtin", [(f"row {r}", (f.plate, f.gtin)) for r, f in facings])
        known_plates, known_gtins = {p.plate for _, p in plates}, {p.gtin for _, p in products}
        for row, facing in facings:
            for key, known, file in (("plate", known_plates, "plates.csv"), ("gtin", known_gtins, "products.csv")):
                if getattr(facing, key) not in known:
                    got = getattr(facing, key)
                    self.faults.append(f"planogram.csv:{row}: {key}: want one that stands in {file}, got {got!r}")
        if prices is not None:
            self._unique("prices.toml: offer", [("", offer.id) for offer in prices.offer])
            named = [(f"price[{i}]", price.gtin) for i, price in enumerate(prices.price)]
            named += [(f"offer[{i}]", gtin) for i, offer in enumerate(prices.offer) for gtin in offer.gtins]
            for place, gtin in named:
                if gtin not in known_gtins:
                    self.faults.append(f"prices.toml: {place}: want a gtin that stands in products.csv, got {gtin!r}")
        if self.faults or settings is None or prices is None:
            raise ConfigError([f"{self.folder.name}/{fault}" for fault in self.faults])
        return Store(
            **{key: getattr(settings, key) for key in settings.model_fields_set},
            cameras=tuple(sorted(cameras, key=lambda camera: camera.name)),
            plates=tuple(plate for _, plate in plates),
            products=tuple(product for _, product in products),
            planogram=tuple(facing for _, facing in facings),
            prices=prices,
        )

    def _bytes(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            self.faults.append(f"{name}: want a readable file, got {error.strerror}")
            return None

    def _text(self, name: str) -> str | None:
        data = self._bytes(name)
        if data is None:
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.faults.append(f"{name}: want UTF-8, got byte {data[error.start]:#04x} at offset {error.start}")
            return None

    def _toml(self, name: str) -> dict[str, Any] | None:
        text = self._text(name)
        if text is None:
            return None
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.faults.append(f"{name}: want TOML, got: {error}")
            return None

    def _model(self, model: type[_M], raw: dict[str, Any], prefix: str) -> _M | None:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.faults.extend(validation_faults(error, prefix))
            return None

    def _cameras(self, tables: dict[str, Any]) -> list[Camera]:
        cameras = []
        for key, table in tables.items():
            if key == "metadata":
                continue
            if not isinstance(table, dict):
                self.faults.append(f"cameras.toml: {key}: want a table, got {table!r}")
                continue
            camera = self._model(Camera, table, f"cameras.toml: [{key}] ")
            if camera is not None:
                cameras.append(camera)
        self._unique("cameras.toml: name", [("", camera.name) for camera in cameras])
        return cameras

    def _csv(self, name: str, model: type[_M], about: Callable[[dict[str, str]], str]) -> list[tuple[int, _M]]:
        """Rows that are right, each with its line in the file; the header is line 1."""
        text = self._text(name)
        if text is None:
            return []
        # Not splitlines: it would also split at a line separator inside a name.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        wanted = list(model.model_fields)
        try:
            header = next(reader, None)
            if header is None:
                self.faults.append(f"{name}: want a header {','.join(wanted)}, got an empty file")
                return []
            if sorted(header) != sorted(wanted):
                missing, unknown = set(wanted) - set(header), set(header) - set(wanted)
                said = [f"missing column {c!r}" for c in wanted if c in missing]
                said += [f"unknown column {c!r}" for c in header if c in unknown]
                self.faults.append(f"{name}:1: {', '.join(said or ['a column twice'])}; want {','.join(wanted)}")
                return []
            rows = []
            for cells in reader:
                if not cells:
                    continue
                line = reader.line_num
                if len(cells) != len(header):
                    self.faults.append(f"{name}:{line}: want {len(header)} cells, got {len(cells)}")
                    continue
                raw = dict(zip(header, cells))
                row = self._model(model, raw, f"{name}:{line}: {about(raw)}")
                if row is not None:
                    rows.append((line, row))
            return rows
        except csv.Error as error:
            self.faults.append(f"{name}:{reader.line_num}: want CSV, got: {error}")
            return []

    def _unique(self, what: str, keys: Iterable[tuple[str, Any]]) -> None:
        keys = list(keys)
        for value, n in Counter(value for _, value in keys).items():
            if n > 1:
                where = ", ".join(place for place, v in keys if v == value and place)
                where = f" ({where})" if where else ""
                self.faults.append(f"{what}: want each once, got {value!r} {n} times{where}")


# ---- writing ---------------------------------------------------------------------------------------------------------


def cameras_text(cameras: Iterable[Camera]) -> str:
    """cameras.toml: one table per camera, in the order of their names."""
    ordered = sorted(cameras, key=lambda camera: camera.name)
    return _toml({f"cam_{i}": camera.model_dump(exclude={"fisheye"}) for i, camera in enumerate(ordered)})


def _csv_cell(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    # csv.writer leaves a lone carriage return without quotes before Python 3.13, and no reader takes that.
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def _toml(tables: dict[str, Any]) -> str:
    """The few shapes that a store folder needs: scalars, nested lists, tables, arrays of tables."""
    scalars, nested = [], []
    for key, value in tables.items():
        if isinstance(value, dict):
            nested.append(f"\n[{key}]\n{_toml(value)}")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            nested.extend(f"\n[[{key}]]\n{_toml(item)}" for item in value)
        else:
            scalars.append(f"{key} = {_toml_value(value)}\n")
    return "".join(scalars + nested)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)
