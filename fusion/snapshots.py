"""Snapshots: an engine's whole state as bytes, and an engine that resumes from them in another process.

What follows a snapshot is the same, byte for byte, as if the engine had never stopped. The store is not part of it: the
resumed engine gets a store and derives everything from it again, so that prices, places, weights and limits may have
changed in between. Everything that determines the layout of the state (`layout_digest`) must be unchanged.

The format is our own (native/state.pyx): values, and objects of the classes that an engine consists of. It names no
function, no address and no layout of memory but that of plain numbers, and what is read is bounded by sizes that are
known before anything is allocated. An HMAC under the store's key shows that the store itself wrote it; without a key it
is a checksum, which finds torn and damaged files.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import hmac
import importlib
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fusion
from fusion._kernels import state, triangulation
from fusion.engine import Engine
from fusion.errors import SnapshotError
from fusion.files.atomic import replace_file
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.store.models import Store

MAGIC = b"fusion snapshot 2\n"
# The first level removes zero bytes and small integers; higher levels take longer than they save.
ZLIB_LEVEL = 1
# Ten times the state of 100 cameras with 100 people, and as many of its values.
BODY_MAX_BYTES = 256 << 20
VALUES_MAX = 4_000_000
HEAD_MAX_BYTES = 256 << 10
# The writer holds the interpreter for this many observations at a time, some tenths of a millisecond, and pauses for
# long enough that an engine which waits for it gets it.
HELD_AT_ONCE, YIELD_S = 256, 1e-4
# What deflate does not shrink, it enlarges by less than a thousandth.
FILE_MAX_BYTES = BODY_MAX_BYTES + BODY_MAX_BYTES // 1000 + HEAD_MAX_BYTES

# Where the classes of an engine are; a snapshot may hold objects of these, and of none else.
_PACKAGES = ("fusion.arrival.", "fusion.goods.", "fusion.people.")
_MODULES = frozenset({
    "fusion.engine", "fusion.observations", "fusion.order", "fusion.results", "fusion.stopwatch",
    "fusion.store.layouts", "fusion._kernels.records", "fusion._kernels.scales",
})  # fmt: skip
# What a defaultdict may make.
_FACTORIES: dict[str, type] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (collections.Counter, collections.deque, dict, float, int, list, set)
}
# By name, the modules of kernels that a stage may point to.
_KERNELS = (
    "arms", "association", "attribution", "gates", "goods", "health", "looks", "presence", "scales", "shelves",
    "triangulation",
)  # fmt: skip
_NUMBERS = frozenset({"|b1", "|i1", "|u1", "<i2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8"})
_OBSERVATIONS = frozenset({Frame, ShelfReading, GateScan, DoorState, ItemSighting})
# The owner of the arrays binds these again.
_BOUND = frozenset({triangulation.Workspace})


def snapshot(engine: Engine, key: bytes = b"") -> bytes:
    """An engine's state between two calls of `feed`; the engine is not changed and can continue.

    Functions that were given to it (a stopwatch, a tap) are not part of it.

    Args:
        engine: any engine.
        key: the store's; `resume` wants the same one.
    """
    return freeze(engine).packed(key)


def freeze(engine: Engine) -> Frozen:
    """The first half of `snapshot`, during which the engine must wait. `Frozen.packed` may run in another thread."""
    encoder = state.Encoder(_numbered(engine.store), _OBSERVATIONS, _BOUND, shares=True)
    encoder.add([engine])
    return Frozen(engine.store, engine.newest_ns, encoder.out)


@dataclasses.dataclass(frozen=True)
class Frozen:
    """An engine's state at an instant, not yet in the form of a snapshot; observations that it holds are not copied."""

    store: Store
    newest_ns: int
    body: state.Encoded

    def packed(self, key: bytes = b"") -> bytes:
        """The bytes that `snapshot` returns. Leaves the interpreter to other threads for most of the time."""
        held = self.body.shared
        encoder = state.Encoder({}, _OBSERVATIONS, frozenset(), shares=False)
        for first in range(0, len(held), HELD_AT_ONCE):
            encoder.add(held[first : first + HELD_AT_ONCE])
            if len(held) > HELD_AT_ONCE:
                time.sleep(YIELD_S)
        parts = (encoder.out, self.body)
        head = {
            "version": fusion.__version__,
            "store": self.store.id,
            "layout": layout_digest(self.store),
            "newest_ns": self.newest_ns,
            "parts": [_tables(part) for part in parts],
        }
        text = json.dumps(head).encode() + b"\n"
        stream = zlib.compressobj(ZLIB_LEVEL)
        body = [*(stream.compress(part.gathered()) for part in parts if len(part)), stream.flush()]
        code = hmac.new(key, text, "sha256")
        for piece in body:
            code.update(piece)
        return b"".join((MAGIC, code.hexdigest().encode(), b"\n", text, *body))


def resume(
    data: bytes,
    store: Store,
    stopwatch_ns: Callable[[], int] | None = None,
    tap: Callable[[Observation], object] | None = None,
    *,
    key: bytes = b"",
) -> Engine:
    """The engine that a snapshot was taken of, ready for the next observation.

    Args:
        data: as returned by `snapshot`, from the same version of this package.
        store: with the layout of the snapshot; anything else may have changed, and applies from here on.
        stopwatch_ns: as for `Engine`.
        tap: as for `Engine`.
        key: that the snapshot was written under. Without one, read only what you wrote yourself: places in arrays are
            believed.

    Raises:
        SnapshotError: the bytes are not a snapshot, were written under another key, are damaged, or do not fit the
            store or the version.
    """
    head, body = _opened(data, key)
    for name, wanted in (
        ("version", fusion.__version__), ("store", store.id), ("layout", layout_digest(store)),
    ):  # fmt: skip
        if head[name] != wanted:
            raise SnapshotError(f"snapshot: {name}: want {wanted!r}, got {head[name]!r}")
    try:
        engine = _decoded(head["parts"], body, store)
        if not isinstance(engine, Engine):
            raise SnapshotError(f"snapshot: want an engine, got {type(engine).__name__}")
        engine.adopt(store, stopwatch_ns, tap)
    except SnapshotError:
        raise
    except Exception as error:  # Damaged bytes can lead to any of them.
        raise SnapshotError(f"snapshot: cannot be read: {type(error).__name__}: {error}") from None
    return engine


def copied(engine: Engine) -> Engine:
    """A second engine in the same state, in this process; what follows is the same in both for the same observations.

    They share the store and the observations that are held, which neither changes. Stopwatch and tap stay with the
    first.
    """
    body = freeze(engine).body
    copy: Engine
    [copy] = state.decode(
        body.gathered(), body.classes, body.names, body.dtypes, _parts(engine.store), body.shared, _kernels(),
        VALUES_MAX,
    )  # fmt: skip
    return copy


def newest_ns(data: bytes, key: bytes = b"") -> int:
    """Newest data time that a snapshot's engine had got; 0 before the first. Raises SnapshotError."""
    return int(_opened(data, key)[0]["newest_ns"])


def save(engine: Engine, path: str | Path) -> None:
    """Write a snapshot to a file that its owner alone can read; an older one stays until the new one is on disk.

    Raises:
        OSError: it cannot be written; the older one is unchanged.
    """
    replace_file(path, snapshot(engine), private=True)


def layout_digest(store: Store) -> str:
    """Digest of everything that the layout of an engine's arrays depends on.

    Names and order of all parts of the store, joints, rates, units.
    """
    layout = {
        "cameras": [camera.name for camera in store.cameras],
        "plates": [plate.plate for plate in store.plates],
        "products": [product.gtin for product in store.products],
        "gates": [gate.id for gate in store.gate],
        "zones": [zone.id for zone in store.zone],
        "facings": [(facing.plate, facing.gtin) for facing in store.planogram],
        "layout": store.layout.name,
        "appearance_dim": store.appearance_dim,
        "weight_rate_hz": store.weight_rate_hz,
        "weight_unit": store.weight_unit,
    }
    return hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:16]


def _opened(data: bytes, key: bytes) -> tuple[dict[str, Any], memoryview]:
    """Head and checked body."""
    if not data.startswith(MAGIC):
        raise SnapshotError(f"snapshot: want it to start with {MAGIC!r}, got {data[: len(MAGIC)]!r}")
    start = len(MAGIC) + 2 * hashlib.sha256().digest_size
    payload = memoryview(data)[start + 1 :]
    if not hmac.compare_digest(hmac.digest(key, payload, "sha256").hex().encode(), data[len(MAGIC) : start]):
        raise SnapshotError("snapshot: damaged, or written under another key: its HMAC does not match")
    end = data.find(b"\n", start + 1, start + 1 + HEAD_MAX_BYTES)
    try:
        head = json.loads(data[start + 1 : end])
        int(head["newest_ns"])
        if not {"version", "store", "layout", "parts"} <= head.keys():
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SnapshotError("snapshot: want a head of JSON with all its keys, got something else") from None
    return head, payload[end - start :]


def _tables(part: state.Encoded) -> dict[str, Any]:
    return {
        "n_bytes": len(part),
        "classes": [_name_of(cls) for cls in part.classes],
        "names": part.names,
        "dtypes": [_description(dtype) for dtype in part.dtypes],
    }


def _decoded(tables: Sequence[Mapping[str, Any]], body: memoryview, store: Store) -> Any:
    """What a body holds: the observations, then the engine that refers to them. No more is inflated than is stated."""
    sizes = [int(part["n_bytes"]) for part in tables]
    if len(sizes) != 2 or min(sizes) < 0 or sum(sizes) > BODY_MAX_BYTES:
        raise SnapshotError(f"snapshot: want two parts of at most {BODY_MAX_BYTES} bytes, got {sizes}")
    inflated = zlib.decompressobj().decompress(body, sum(sizes) + 1)
    if len(inflated) != sum(sizes):
        raise SnapshotError(f"snapshot: want {sum(sizes)} bytes, got another number")
    held: list[Any] = []
    modules, things = _kernels(), _parts(store)
    for part, content in zip(tables, (inflated[: sizes[0]], inflated[sizes[0] :])):
        names = [str(name) for name in part["names"]]
        if not all((name.isidentifier() and not name.startswith("__")) or name in modules for name in names):
            raise SnapshotError("snapshot: want names of attributes, got others")
        classes = [_class_of(str(name)) for name in part["classes"]]
        dtypes = [_dtype_of(description) for description in part["dtypes"]]
        held = state.decode(content, classes, names, dtypes, things, held, modules, VALUES_MAX)
    [engine] = held
    return engine


def _name_of(cls: type) -> str:
    name = f"{cls.__module__}.{cls.__qualname__}"
    if _class_of(name) is not cls:
        raise SnapshotError(f"snapshot: want the classes of an engine, got another {name}")
    return name


@functools.lru_cache(maxsize=512)
def _class_of(name: str) -> type:
    if name in _FACTORIES:
        return _FACTORIES[name]
    module, _, short = name.rpartition(".")
    if module in _MODULES or module.startswith(_PACKAGES):
        found = getattr(importlib.import_module(module), short, None)
        if isinstance(found, type) and found.__module__ == module:
            return found
    raise SnapshotError(f"snapshot: want the classes of an engine, got {name[:100]}")


def _description(dtype: np.dtype[Any]) -> list[Any]:
    """A structured dtype as its fields: name, kind of number and shape."""
    assert dtype.names is not None and dtype.fields is not None
    fields = [(name, dtype.fields[name][0]) for name in dtype.names]
    described = [bool(dtype.isalignedstruct), *([name, part.base.str, list(part.shape)] for name, part in fields)]
    if _dtype_of(described) != dtype:
        raise TypeError(f"a snapshot holds no array of {dtype}")
    return described


def _dtype_of(described: Any) -> np.dtype[Any]:
    aligned, *fields = described
    if not all(number in _NUMBERS and 0 <= int(np.prod(shape)) <= 1 << 16 for _, number, shape in fields):
        raise SnapshotError("snapshot: want arrays of numbers, got another dtype")
    return np.dtype([(str(name), number, tuple(shape)) for name, number, shape in fields], align=bool(aligned))


def _kernels() -> dict[str, ModuleType]:
    names = [f"fusion._kernels.{name}" for name in _KERNELS]
    return {name: importlib.import_module(name) for name in names}


def _parts(store: Store) -> Sequence[Any]:
    """The parts of a store that an engine may point to, in an order that follows from its layout."""
    groups = (store.cameras, store.plates, store.products, store.gate, store.zone, store.planogram)
    return [store, store.layout, *(part for group in groups for part in group)]


def _numbered(store: Store) -> dict[int, int]:
    return {id(part): place for place, part in enumerate(_parts(store))}
