"""Snapshots: an engine's whole state as bytes, and an engine that resumes from them in another process.

What follows a snapshot is the same, byte for byte, as if the engine had never stopped. The store is not part of it: the
resumed engine gets a store and derives everything from it again, so that prices, places, weights and limits may have
changed in between. Everything that determines the layout of the state (`layout_digest`) must be unchanged.

The state is written with `pickle`, but read back only into the classes that an engine consists of: bytes that name
anything else are refused, whoever wrote them. A checksum finds torn and damaged files.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import importlib
import io
import json
import pickle
import types
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fusion
from fusion._kernels import triangulation
from fusion.engine import Engine
from fusion.errors import SnapshotError
from fusion.files.atomic import replace_file
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.store.models import Store

MAGIC = b"fusion snapshot 1\n"
# The first level removes zero bytes and small integers; higher levels take longer than they save.
ZLIB_LEVEL = 1

# What may be read back in addition to the package's own classes.
_ALLOWED: dict[tuple[str, str], Any] = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque, np.ndarray, np.dtype,
        set, frozenset, bytearray, list, dict, int, float, tuple,
    )
}  # fmt: skip
_OBSERVATIONS = frozenset({Frame, ShelfReading, GateScan, ItemSighting})
_NUMPY = {("numpy._core.numeric", "_frombuffer"), ("numpy._core.multiarray", "_reconstruct")}
_MODULES = (
    "engine", "observations", "order", "results", "stopwatch", "store.layouts",
    "_kernels.records", "_kernels.scales", "arrival.form", "arrival.sensor_clocks",
    "people.arms", "people.association", "people.births", "people.existence", "people.gate_lines",
    "people.geometry", "people.health", "people.picture_size", "people.recent", "people.relinking", "people.roll_call",
    "people.scans",
    "people.site", "people.stills", "people.tracker", "people.tracks", "people.visits",
    "people.walkers", "people.workspace",
    "goods.attribution", "goods.beliefs", "goods.billing", "goods.candidates", "goods.counts", "goods.decided",
    "goods.evidence", "goods.excursions", "goods.factors", "goods.fitness",
    "goods.hands", "goods.hypotheses", "goods.journal", "goods.labels", "goods.learnt", "goods.ledger", "goods.loads",
    "goods.missed",
    "goods.planogram", "goods.plates", "goods.restarts", "goods.scales", "goods.sightings", "goods.timing",
    "goods.trust", "goods.unexplained", "goods.unobserved", "goods.weighings",
)  # fmt: skip


def snapshot(engine: Engine) -> bytes:
    """An engine's state between two calls of `feed`; the engine is not changed and can continue.

    Functions that were given to it (a stopwatch, a tap) are not part of it.
    """
    return freeze(engine).packed()


def freeze(engine: Engine) -> Frozen:
    """The first half of `snapshot`, during which the engine must wait. `Frozen.packed` may run in another thread."""
    buffer = io.BytesIO()
    _Writer(buffer, engine.store).dump(engine)
    head = {
        "version": fusion.__version__,
        "store": engine.store.id,
        "layout": layout_digest(engine.store),
        "newest_ns": engine.newest_ns,
    }
    return Frozen(head, buffer.getbuffer())


@dataclasses.dataclass(frozen=True)
class Frozen:
    """An engine's state at an instant, not yet in the form of a snapshot."""

    head: dict[str, Any]
    body: memoryview

    def packed(self) -> bytes:
        """The bytes that `snapshot` returns. Leaves the interpreter to other threads for most of the time."""
        payload = json.dumps(self.head).encode() + b"\n" + zlib.compress(self.body, ZLIB_LEVEL)
        return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def resume(
    data: bytes,
    store: Store,
    stopwatch_ns: Callable[[], int] | None = None,
    tap: Callable[[Observation], object] | None = None,
) -> Engine:
    """The engine that a snapshot was taken of, ready for the next observation.

    Args:
        data: as returned by `snapshot`, from the same version of this package.
        store: with the layout of the snapshot; anything else may have changed, and applies from here on.
        stopwatch_ns: as for `Engine`.
        tap: as for `Engine`.

    Raises:
        SnapshotError: the bytes are not a snapshot, are damaged, or do not fit the store or the version.
    """
    head, body = _opened(data)
    for key, wanted in (
        ("version", fusion.__version__), ("store", store.id), ("layout", layout_digest(store)),
    ):  # fmt: skip
        if head[key] != wanted:
            raise SnapshotError(f"snapshot: {key}: want {wanted!r}, got {head[key]!r}")
    try:
        engine = _Reader(io.BytesIO(zlib.decompress(body)), store).load()
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
    buffer = io.BytesIO()
    writer = _Copying(buffer, engine.store)
    writer.dump(engine)
    buffer.seek(0)
    copy: Engine = _Reader(buffer, engine.store, writer.shared).load()
    copy.adopt(engine.store, None, None)
    return copy


def newest_ns(data: bytes) -> int:
    """Newest data time that a snapshot's engine had got; 0 before the first. Raises SnapshotError."""
    return int(_opened(data)[0]["newest_ns"])


def save(engine: Engine, path: str | Path) -> None:
    """Write a snapshot to a file; an older one stays until the new one is complete and on disk.

    Raises:
        OSError: it cannot be written; the older one is unchanged.
    """
    replace_file(path, snapshot(engine))


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


def _opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and checked body."""
    if not data.startswith(MAGIC):
        raise SnapshotError(f"snapshot: want it to start with {MAGIC!r}, got {data[: len(MAGIC)]!r}")
    wanted, _, payload = data[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != wanted:
        raise SnapshotError("snapshot: damaged: its checksum does not match")
    text, _, body = payload.partition(b"\n")
    try:
        head = json.loads(text)
        int(head["newest_ns"])
        if not {"version", "store", "layout"} <= head.keys():
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SnapshotError("snapshot: want a head of JSON with all its keys, got something else") from None
    return head, body


def _parts(store: Store) -> list[tuple[str, Any]]:
    """The parts of a store that an engine may point to, by name."""
    found: list[tuple[str, Any]] = [("store", store), ("layout", store.layout)]
    for name in ("cameras", "plates", "products", "gate", "zone", "planogram"):
        found += [(f"{name} {i}", part) for i, part in enumerate(getattr(store, name))]
    return found


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, store: Store) -> None:
        super().__init__(file, protocol=5)
        self._names = {id(part): name for name, part in _parts(store)}

    def persistent_id(self, thing: Any) -> str | None:
        name = self._names.get(id(thing))
        if name is not None:
            return name
        if isinstance(thing, types.ModuleType):
            return f"module {thing.__name__}"
        if isinstance(thing, triangulation.Workspace):
            return "bound"  # The owner of the arrays binds them again.
        return None


class _Copying(_Writer):
    """Leaves observations, which are most of what an engine holds, where they are."""

    def __init__(self, file: io.BytesIO, store: Store) -> None:
        super().__init__(file, store)
        self.shared: list[Observation] = []

    def persistent_id(self, thing: Any) -> Any:
        if type(thing) in _OBSERVATIONS:  # Asked of every object, so by the fastest test.
            self.shared.append(thing)
            return len(self.shared) - 1
        return super().persistent_id(thing)


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, store: Store, shared: Sequence[Observation] = ()) -> None:
        super().__init__(file)
        self._parts, self._shared = dict(_parts(store)), shared

    def persistent_load(self, name: Any) -> Any:
        if name == "bound":
            return None
        if isinstance(name, int) and 0 <= name < len(self._shared):
            return self._shared[name]
        if isinstance(name, str) and name.startswith("module fusion._kernels."):
            return importlib.import_module(name.removeprefix("module "))
        if name not in self._parts:
            raise SnapshotError(f"snapshot: want a part of the store, got {str(name)[:100]!r}")
        return self._parts[name]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if (module, name) in _NUMPY:
            return super().find_class(module, name)
        if module.removeprefix("fusion.") in _MODULES and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise SnapshotError(f"snapshot: want the classes of an engine, got {module[:50]}.{name[:50]}")
