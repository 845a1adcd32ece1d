"""Reads and writes store folders: reading reports every fault at once, and a written store reads back equal."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.store.gtin import OwnGtins, gtin_14
from fusion.store.models import Camera, Facing, Plate, Product, Store, StoreSettings
from fusion.store.prices import Prices
from fusion.store.shapes import inside_polygon
from fusion.store.tables import Row, Table, decoded, read_table, write_table
from fusion.store.values import StrictModel, validation_faults

# A plate may hang over the edge of the floor by this much: floors are measured to some centimetres.
PLATE_MARGIN_M = 0.05
# Without any of these, a folder is no store; without one of them, its store is incomplete.
_REQUIRED = ("store.toml", "cameras.toml", "plates.csv", "products.csv", "planogram.csv")

_Model = TypeVar("_Model", bound=StrictModel)


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
        faults += _settings_faults(settings, plates.rows)
        faults += _cabinet_faults(settings, plates)
    faults += _table_faults(plates, products, facings)
    if prices is not None:
        faults += _price_faults(prices, products)
    if faults or settings is None or prices is None:
        raise ConfigError([f"{folder.name}/{fault}" for fault in faults])
    own = OwnGtins(products.keys)
    return Store(
        **{key: getattr(settings, key) for key in settings.model_fields_set},
        cameras=tuple(sorted(cameras, key=lambda camera: camera.name)),
        plates=tuple(row.value for row in plates.rows),
        products=tuple(row.value for row in products.rows),
        planogram=tuple(_facing_as_spelt(row.value, own) for row in facings.rows),
        prices=prices.with_gtins(own),
    )


def _facing_as_spelt(facing: Facing, own: OwnGtins) -> Facing:
    """A facing with its GTIN as products.csv spells it."""
    return facing.model_copy(update={"gtin": own.of(facing.gtin) or facing.gtin})


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
    # An ordinary camera has no key `fisheye`, as Anipose writes it.
    return _toml({f"cam_{i}": camera.model_dump(exclude_defaults=True) for i, camera in enumerate(ordered)})


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
        data = self._data(name)
        text = None if data is None else decoded(data, name, self.faults)
        if text is None:
            return None
        try:
            return tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            self.faults.append(f"{name}: want TOML, got: {error}")
            return None

    def table(self, name: str, model: type[_Model], subject: Callable[[dict[str, str]], str]) -> Table[_Model]:
        """What is known of a CSV file. `subject` names a row in its faults by what stands in it."""
        data = self._data(name)
        return Table() if data is None else read_table(data, name, model, subject, self.faults)

    def validate(self, model: type[_Model], raw: dict[str, Any], prefix: str) -> _Model | None:
        """Raw values as a model; None, with its faults kept, where they are not valid."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.faults.extend(validation_faults(error, prefix))
            return None

    def _data(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            self.faults.append(f"{name}: the file does not exist")
        except OSError as error:
            self.faults.append(f"{name}: the file cannot be read: {error.strerror}")
        return None


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


def _settings_faults(settings: StoreSettings, plates: Iterable[Row[Plate]]) -> list[str]:
    faults = _repeated("store.toml: gate", [("", gate.id) for gate in settings.gate])
    faults += _repeated("store.toml: zone", [("", zone.id) for zone in settings.zone])
    for line, plate in plates:
        if not inside_polygon(settings.floor, plate.x, plate.y, margin_m=PLATE_MARGIN_M):
            want = f"want a point on the floor, got ({plate.x}, {plate.y})"
            faults.append(f"plates.csv:{line}: plate {plate.plate!r}: x, y: {want}")
    return faults


def _cabinet_faults(settings: StoreSettings, plates: Table[Plate]) -> list[str]:
    """Doors before plates that the store does not have, or before those of another door."""
    cabinets = [gate for gate in settings.gate if gate.kind == "cabinet"]
    known = set(plates.keys)
    plates_known = plates.keys_known and len(known) == len(plates.keys)
    faults = [
        f"store.toml: gate {gate.id!r}: plates: want a plate listed in plates.csv, got {plate!r}"
        for gate in cabinets
        for plate in gate.plates
        if plates_known and plate not in known
    ]
    faults += _repeated("store.toml: plate behind a door", [(g.id, plate) for g in cabinets for plate in g.plates])
    faults += [
        f"store.toml: gate {gate.id!r}: plates: want those behind this door, since the store has other gates, got none"
        for gate in cabinets
        if len(settings.gate) > 1 and not gate.plates
    ]
    return faults


def _table_faults(plates: Table[Plate], products: Table[Product], facings: Table[Facing]) -> list[str]:
    faults = _repeated("plates.csv: plate", [(f"row {line}", plate.plate) for line, plate in plates.rows])
    faults += _repeated_gtins("products.csv: gtin", [(line, "", product.gtin) for line, product in products.rows])
    faults += _repeated_gtins("planogram.csv: plate and gtin", [(line, f.plate, f.gtin) for line, f in facings.rows])
    known_plates, known_gtins = set(plates.keys), _known_gtins(products)
    plates_known = plates.keys_known and len(known_plates) == len(plates.keys)
    for line, facing in facings.rows:
        if plates_known and facing.plate not in known_plates:
            faults.append(f"planogram.csv:{line}: plate: want a plate listed in plates.csv, got {facing.plate!r}")
        if known_gtins is not None and facing.gtin not in known_gtins:
            faults.append(f"planogram.csv:{line}: gtin: want a gtin listed in products.csv, got {facing.gtin!r}")
    return faults


def _known_gtins(products: Table[Product]) -> OwnGtins | None:
    """The products that the store has; None where not all are known.

    Then none can be missing: one that is there twice, for example, may stand in the place of the one looked for.
    """
    known = OwnGtins(products.keys)
    return known if products.keys_known and len(known) == len(products.keys) else None


def _price_faults(prices: Prices, products: Table[Product]) -> list[str]:
    faults = _repeated("prices.toml: offer", [("", offer.id) for offer in prices.offer])
    named = [(f"price[{i}]", price.gtin) for i, price in enumerate(prices.price)]
    named += [(f"offer[{i}]", gtin) for i, offer in enumerate(prices.offer) for gtin in offer.gtins]
    named += [(f"restriction[{i}]", gtin) for i, rule in enumerate(prices.restriction) for gtin in rule.gtins]
    known_gtins = _known_gtins(products)
    for place, gtin in named:
        if known_gtins is not None and gtin not in known_gtins:
            faults.append(f"prices.toml: {place}: want a gtin listed in products.csv, got {gtin!r}")
    return faults


def _repeated_gtins(label: str, rows: Sequence[tuple[int, str, str]]) -> list[str]:
    """One fault for each product that is there more than once, whatever the spellings. `rows`: line, plate, GTIN."""
    places: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for line, plate, gtin in rows:
        places.setdefault((plate, gtin_14(gtin)), []).append((line, gtin))
    faults = []
    for (plate, _), found in places.items():
        if len(found) > 1:
            spellings = list(dict.fromkeys(gtin for _, gtin in found))
            got = " and ".join(repr((plate, gtin) if plate else gtin) for gtin in spellings)
            same = ", one number" if len(spellings) > 1 else ""
            lines = ", ".join(f"row {line}" for line, _ in found)
            faults.append(f"{label}: want each once, got {got}{same} {len(found)} times ({lines})")
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
    columns = list(model.model_fields)
    text = write_table(columns, [[getattr(row, key) for key in columns] for row in rows])
    path.write_text(text, encoding="utf-8", newline="")
