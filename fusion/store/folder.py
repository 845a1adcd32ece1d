"""Reads and writes store folders: reading reports every fault at once, and a written store reads back equal."""

from __future__ import annotations

import csv
import io
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.store.models import Camera, Facing, Plate, Product, Store, StoreSettings
from fusion.store.prices import Prices
from fusion.store.shapes import inside_polygon
from fusion.store.values import StrictModel, validation_faults

# A plate may hang over the edge of the floor by this much: floors are measured to some centimetres.
PLATE_MARGIN_M = 0.05
# Without any of these, a folder is no store; without one of them, its store is incomplete.
_REQUIRED = ("store.toml", "cameras.toml", "plates.csv", "products.csv", "planogram.csv")

_Model = TypeVar("_Model", bound=StrictModel)


class _Row(NamedTuple, Generic[_Model]):
    """A row of a table and its line in the file; the header is line 1."""

    line: int
    value: _Model


def read_store(folder: Path) -> Store:
    """Read a store folder; see `Store.load`."""
    if not folder.exists():
        raise ConfigError(f"{folder} does not exist; pass a store folder (`fusion init {folder}` writes one)")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; pass a store folder")
    if not any((folder / name).exists() for name in _REQUIRED):
        raise ConfigError(
            f"{folder} is not a store folder, since it has none of {', '.join(_REQUIRED)};"
            f" pass another folder, or run `fusion init {folder}`"
        )
    files = _Files(folder)
    settings = files.model("store.toml", StoreSettings)
    cameras = _cameras(files)
    plates = files.table("plates.csv", Plate, lambda row: f"plate {row.get('plate')!r}: ")
    products = files.table("products.csv", Product, lambda row: f"product {row.get('gtin')!r}: ")
    facings = files.table("planogram.csv", Facing, lambda row: "")
    prices = files.model("prices.toml", Prices) if (folder / "prices.toml").exists() else Prices()
    faults = files.faults
    if settings is not None:
        faults += _settings_faults(settings, plates)
    faults += _table_faults(plates, products, facings)
    if prices is not None:
        faults += _price_faults(prices, {row.value.gtin for row in products})
    if faults or settings is None or prices is None:
        raise ConfigError([f"{folder.name}/{fault}" for fault in faults])
    return Store(
        **{key: getattr(settings, key) for key in settings.model_fields_set},
        cameras=tuple(sorted(cameras, key=lambda camera: camera.name)),
        plates=tuple(row.value for row in plates),
        products=tuple(row.value for row in products),
        planogram=tuple(row.value for row in facings),
        prices=prices,
    )


def write_store(store: Store, folder: Path) -> None:
    """Write a store folder; see `Store.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    elsewhere = set(Store.model_fields) - set(StoreSettings.model_fields)
    # The sampling rate is written even where it is the default: it must match the scales.
    settings = {**store.model_dump(exclude=elsewhere, exclude_defaults=True), "weight_rate_hz": store.weight_rate_hz}
    (folder / "store.toml").write_text(_toml(settings), encoding="utf-8")
    (folder / "cameras.toml").write_text(cameras_toml(store.cameras), encoding="utf-8")
    if store.prices != Prices():
        prices = store.prices.model_dump(exclude_defaults=True)
        (folder / "prices.toml").write_text(_toml(prices), encoding="utf-8")
    else:
        (folder / "prices.toml").unlink(missing_ok=True)
    _write_table(folder / "plates.csv", Plate, store.plates)
    _write_table(folder / "products.csv", Product, store.products)
    _write_table(folder / "planogram.csv", Facing, store.planogram)


def cameras_toml(cameras: Iterable[Camera]) -> str:
    """The content of cameras.toml: one table per camera, in the order of their names."""
    ordered = sorted(cameras, key=lambda camera: camera.name)
    return _toml({f"cam_{i}": camera.model_dump(exclude={"fisheye"}) for i, camera in enumerate(ordered)})


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Files:
    """The files of a store folder, read one by one; what is wrong with any of them is kept in `faults`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def model(self, name: str, model: type[_Model]) -> _Model | None:
        """A TOML file as a model; None, with its faults kept, where it is not valid."""
        raw = self.toml(name)
        return None if raw is None else self.validate(model, raw, f"{name}: ")

    def toml(self, name: str) -> dict[str, Any] | None:
        """The tables of a TOML file."""
        text = self._text(name)
        if text is None:
            return None
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.faults.append(f"{name}: want TOML, got: {error}")
            return None

    def table(self, name: str, model: type[_Model], subject: Callable[[dict[str, str]], str]) -> list[_Row[_Model]]:
        """The valid rows of a CSV file. `subject` names a row in its faults by what stands in it."""
        text = self._text(name)
        if text is None:
            return []
        # Not splitlines: it would also split at a line separator inside a name.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = []
        try:
            header = next(reader, None)
            header_fault = _header_fault(header, list(model.model_fields))
            if header is None or header_fault:
                self.faults.append(f"{name}{header_fault}")
                return []
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(header):
                    self.faults.append(f"{name}:{line}: want {len(header)} cells, got {len(cells)}")
                    continue
                raw = dict(zip(header, cells))
                value = self.validate(model, raw, f"{name}:{line}: {subject(raw)}")
                if value is not None:
                    rows.append(_Row(line, value))
        except csv.Error as error:
            self.faults.append(f"{name}:{reader.line_num}: want CSV, got: {error}")
            return []
        return rows

    def validate(self, model: type[_Model], raw: dict[str, Any], prefix: str) -> _Model | None:
        """Raw values as a model; None, with its faults kept, where they are not valid."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.faults.extend(validation_faults(error, prefix))
            return None

    def _text(self, name: str) -> str | None:
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            self.faults.append(f"{name}: the file does not exist")
            return None
        except OSError as error:
            self.faults.append(f"{name}: the file cannot be read: {error.strerror}")
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.faults.append(f"{name}: want UTF-8, got byte {data[error.start]:#04x} at offset {error.start}")
            return None


def _header_fault(header: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """What is wrong with a table's header, after the file's name; empty where it is right."""
    if header is None:
        return f": want a header {','.join(wanted)}, got an empty file"
    if sorted(header) == sorted(wanted):
        return ""
    faults = [f"missing column {column!r}" for column in wanted if column not in header]
    faults += [f"unknown column {column!r}" for column in header if column not in wanted]
    return f":1: {', '.join(faults or ['a column twice'])}; want {','.join(wanted)}"


def _cameras(files: _Files) -> list[Camera]:
    cameras = []
    for key, table in (files.toml("cameras.toml") or {}).items():
        if key == "metadata":  # Anipose writes such a table next to those of the cameras.
            continue
        if not isinstance(table, dict):
            files.faults.append(f"cameras.toml: {key}: want a table, got {table!r}")
            continue
        camera = files.validate(Camera, table, f"cameras.toml: [{key}] ")
        if camera is not None:
            cameras.append(camera)
    files.faults += _repeated("cameras.toml: name", [("", camera.name) for camera in cameras])
    return cameras


# ---- faults between files --------------------------------------------------------------------------------------------


def _settings_faults(settings: StoreSettings, plates: Iterable[_Row[Plate]]) -> list[str]:
    faults = _repeated("store.toml: gate", [("", gate.id) for gate in settings.gate])
    faults += _repeated("store.toml: zone", [("", zone.id) for zone in settings.zone])
    for line, plate in plates:
        if not inside_polygon(settings.floor, plate.x, plate.y, margin_m=PLATE_MARGIN_M):
            want = f"want a point on the floor, got ({plate.x}, {plate.y})"
            faults.append(f"plates.csv:{line}: plate {plate.plate!r}: x, y: {want}")
    return faults


def _table_faults(
    plates: Sequence[_Row[Plate]], products: Sequence[_Row[Product]], facings: Sequence[_Row[Facing]]
) -> list[str]:
    faults = _repeated("plates.csv: plate", [(f"row {line}", plate.plate) for line, plate in plates])
    faults += _repeated("products.csv: gtin", [(f"row {line}", product.gtin) for line, product in products])
    faults += _repeated("planogram.csv: plate and gtin", [(f"row {line}", (f.plate, f.gtin)) for line, f in facings])
    known_plates, known_gtins = {row.value.plate for row in plates}, {row.value.gtin for row in products}
    for line, facing in facings:
        if facing.plate not in known_plates:
            faults.append(f"planogram.csv:{line}: plate: want a plate listed in plates.csv, got {facing.plate!r}")
        if facing.gtin not in known_gtins:
            faults.append(f"planogram.csv:{line}: gtin: want a gtin listed in products.csv, got {facing.gtin!r}")
    return faults


def _price_faults(prices: Prices, known_gtins: set[str]) -> list[str]:
    faults = _repeated("prices.toml: offer", [("", offer.id) for offer in prices.offer])
    named = [(f"price[{i}]", price.gtin) for i, price in enumerate(prices.price)]
    named += [(f"offer[{i}]", gtin) for i, offer in enumerate(prices.offer) for gtin in offer.gtins]
    named += [(f"restriction[{i}]", gtin) for i, rule in enumerate(prices.restriction) for gtin in rule.gtins]
    for place, gtin in named:
        if gtin not in known_gtins:
            faults.append(f"prices.toml: {place}: want a gtin listed in products.csv, got {gtin!r}")
    return faults


def _repeated(label: str, keys: Sequence[tuple[str, Any]]) -> list[str]:
    """One fault for each key that is there more than once. `keys`: place (may be empty) and key."""
    faults = []
    for key, n in Counter(key for _, key in keys).items():
        if n > 1:
            places = ", ".join(place for place, other in keys if other == key and place)
            faults.append(f"{label}: want each once, got {key!r} {n} times{f' ({places})' if places else ''}")
    return faults


# ---- writing ---------------------------------------------------------------------------------------------------------


def _toml(tables: dict[str, Any]) -> str:
    import tomlkit  # 30 ms; needed for writing alone. Unlike tomli-w it keeps a matrix on one line.

    return tomlkit.dumps(tables)


def _write_table(path: Path, model: type[StrictModel], rows: Iterable[StrictModel]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(",".join(model.model_fields) + "\n")
        for row in rows:
            file.write(",".join(_csv_cell(getattr(row, key)) for key in model.model_fields) + "\n")


def _csv_cell(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    # csv.writer leaves a lone carriage return without quotes before Python 3.13, and no reader takes that.
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
