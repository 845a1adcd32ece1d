"""What sensors tell: frames of detections, weight messages, gate scans, other evidence; how they are recorded and replayed.

Times are int64 UTC nanoseconds that come in with the data; nothing here reads a clock. A recording is read in batches, so
a day of it needs no day's memory, and every row that is not used is counted by its reason.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fusion.config import Identifier, Store
from fusion.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    import pyarrow as pa

# 2001-09-09 in nanoseconds. A smaller number is an instant in micro-, milli- or plain seconds.
EARLIEST_NS = 10**18
# Rows decoded at a time: some seconds of a large store, some megabytes.
BATCH_ROWS = 4096
# Faults reported of one stream; a file that is wrong throughout would fill the screen.
FAULTS_MAX = 20


@dataclass(frozen=True, slots=True)
class Frame:
    """All people that one camera's detector found in one picture.

    Attributes:
        t_ns: middle of the exposure on the camera's clock.
        camera: name of the camera in cameras.toml.
        keypoints: (n_people, K, 3) float32: x, y in pixels of the raw (distorted) image, then the detector's score;
            score 0 means not detected. K and the order of joints are the store's layout.
        appearance: (n_people, appearance_dim) float32, or None where the store has no appearance vectors.
    """

    t_ns: int
    camera: str
    keypoints: np.ndarray
    appearance: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class ShelfReading:
    """One message of a weighing plate.

    Attributes:
        t_ns: time of the first sample.
        plate: name of the plate in plates.csv.
        samples: (n,) float32 grams at the store's weight rate. Offsets are arbitrary; differences count.
    """

    t_ns: int
    plate: str
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class GateScan:
    """Somebody showed a credential at a gate, and the gate accepted it.

    Attributes:
        t_ns: time of the scan.
        gate: id of the gate in store.toml.
        credential_type: qr, card, face, staff, open, or account where the gate has verified the account already.
        account: whom the visit belongs to; for staff the staff token.
    """

    t_ns: int
    gate: str
    credential_type: str
    account: str


@dataclass(frozen=True, slots=True)
class ItemSighting:
    """Other evidence about goods: an RFID antenna, a camera over a zone, a classifier that looks at a hand."""

    t_ns: int
    source: str
    kind: str
    gtin: str
    quantity: int
    probability: float
    zone: str | None = None
    plate: str | None = None


Observation = Frame | ShelfReading | GateScan | ItemSighting


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def _instant(value: int) -> int:
    if value < EARLIEST_NS:
        raise ValueError(f"want UTC nanoseconds since 1970, got {value} (seconds or milliseconds?)")
    return value


_Instant = Annotated[int, AfterValidator(_instant)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Token(_Line):
    type: Literal["qr", "card", "face", "staff", "open"]
    token: str = Field(default="", max_length=1000)

    @model_validator(mode="after")
    def _token_present(self) -> _Token:
        if self.type != "open" and not self.token:
            raise ValueError("want a token, got none")
        return self


class _Account(_Line):
    type: Literal["account"]
    account: Identifier


class _GateLine(_Line):
    time: _Instant
    gate: Identifier
    kind: Literal["scan"]
    credential: Annotated[_Token | _Account, Field(discriminator="type")]


class _ItemLine(_Line):
    time: _Instant
    source: Identifier
    kind: Literal["read", "seen"]
    gtin: str
    quantity: int
    probability: float = Field(default=1.0, ge=0, le=1)
    zone: str | None = None
    plate: str | None = None


def _scan(line: _GateLine) -> GateScan:
    credential = line.credential
    account = credential.account if isinstance(credential, _Account) else credential.token
    return GateScan(line.time, line.gate, credential.type, account)


def _sighting(line: _ItemLine) -> ItemSighting:
    return ItemSighting(
        line.time, line.source, line.kind, line.gtin, line.quantity, line.probability, line.zone, line.plate
    )


_GATE_LINE: TypeAdapter[_GateLine] = TypeAdapter(_GateLine)
_ITEM_LINE: TypeAdapter[_ItemLine] = TypeAdapter(_ItemLine)


def parse_gate_line(text: str | bytes) -> GateScan:
    """A line of gate.jsonl. Raises pydantic's ValidationError."""
    return _scan(_GATE_LINE.validate_json(text, strict=True))


def _said(error: ValidationError) -> str:
    said = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        text = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else f"{fault['msg']}"
        said.append(f"{key}: {text}" if key else text)
    return "; ".join(said)


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _schema_faults(name: str, schema: pa.Schema, wanted: dict[str, str], matches: Callable[[str, pa.DataType], bool]) -> list[str]:
    faults = [f"{name}: missing column {c!r}, want {wanted[c]}" for c in wanted if c not in schema.names]
    for field in schema:
        if field.name not in wanted:
            faults.append(f"{name}: unknown column {field.name!r}; want {', '.join(wanted)}")
        elif not matches(field.name, field.type):
            faults.append(f"{name}: column {field.name!r}: want {wanted[field.name]}, got {field.type}")
    return faults


class _Stream:
    """One Parquet stream of a recording: a file, or a folder of files read in name order."""

    def __init__(self, recording: Recording, name: str, wanted: dict[str, str]) -> None:
        self.recording = recording
        self.name = name
        self.wanted = wanted
        single, folder = recording.folder / f"{name}.parquet", recording.folder / name
        self.files = [single] if single.exists() else sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        self.segmented = bool(self.files) and not single.exists()

    def _matches(self, column: str, dtype: pa.DataType) -> bool:
        import pyarrow.types as pt

        def inner_list(t: pa.DataType) -> bool:
            return pt.is_list(t) or pt.is_large_list(t)

        want = self.wanted[column]
        if want == "int64":
            return pt.is_int64(dtype)
        if want == "string":
            flat = dtype.value_type if pt.is_dictionary(dtype) else dtype
            return pt.is_string(flat) or pt.is_large_string(flat)
        if want == "list<float32>":
            return inner_list(dtype) and pt.is_float32(dtype.value_type)
        width = int(want.rsplit("[", 1)[1].rstrip("]>"))
        if not inner_list(dtype) or not pt.is_fixed_size_list(dtype.value_type):
            return False
        return dtype.value_type.list_size == width and pt.is_float32(dtype.value_type.value_type)

    def _open(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RecordingError(f"{self._label(path)}: want a Parquet file, got: {_one_line(error)}") from None

    def _label(self, path: Path) -> str:
        return str(path.relative_to(self.recording.folder))

    def faults(self) -> list[str]:
        """What is wrong with the stream before its rows are read."""
        found = []
        for path in self.files:
            try:
                file = self._open(path)
            except RecordingError as error:
                # Live capture closes one file after another; a crash leaves the last one torn. Its rows are gone, the
                # others are whole, so it is counted and the rest is replayed.
                if self.segmented:
                    continue
                found.append(str(error))
                continue
            found += _schema_faults(self._label(path), file.schema_arrow, self.wanted, self._matches)
        return found[:FAULTS_MAX]

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for path in self.files:
            try:
                file = self._open(path)
                n_rows = 0
                for batch in file.iter_batches(BATCH_ROWS, columns=list(self.wanted), use_threads=False):
                    # Offsets that lie would otherwise be read as memory that is not there.
                    batch.validate(full=True)
                    if n_rows == 0 and batch.num_rows:
                        self._check_unit(path, batch)
                    n_rows += batch.num_rows
                    yield batch
                file.close()
            except (pa.ArrowException, OSError, RecordingError) as error:
                said = str(error) if isinstance(error, RecordingError) else f"{self._label(path)}: damaged after row {n_rows}: {_one_line(error)}"
                if not self.segmented:
                    raise RecordingError(said) from None
                self.recording.damaged.append(said)
                self.recording.ignored[f"{self.name}: damaged file"] += 1

    def _check_unit(self, path: Path, batch: pa.RecordBatch) -> None:
        first = batch.column(0)[0].as_py()
        if first is not None and first < EARLIEST_NS:
            raise ConfigError(f"{self._label(path)}: time: want UTC nanoseconds since 1970, got {first} (another unit?)")

    def usable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows without nulls; the others are counted."""
        if not any(column.null_count for column in batch.columns):
            return batch
        valid = np.ones(batch.num_rows, bool)
        for column in batch.columns:
            valid &= column.is_valid().to_numpy(zero_copy_only=False)
        self.recording.ignored[f"{self.name}: null in a row"] += int((~valid).sum())
        return batch.filter(valid)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _ragged(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (n + 1,) and flat float32 values of a list column, without copying the values."""
    offsets = column.offsets.to_numpy()
    values = column.values
    if hasattr(values.type, "list_size"):
        values = values.values if values.offset == 0 else values.flatten()
    return offsets, values.to_numpy(zero_copy_only=not values.null_count)


class Recording:
    """A recording of the file contract, opened and checked; iterate `observations()` to replay it.

    Attributes:
        store: the store as it was while recording.
        ignored: rows of the files that could not be used, by reason. Grows while observations are read.
        damaged: messages about closed or torn files of a segmented stream that could not be read.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a recording.

        Raises:
            ConfigError: with every fault of the store folder, the files' columns and the lines of JSON.
            RecordingError: no recording is there.
        """
        self.folder = Path(folder)
        self.ignored: Counter[str] = Counter()
        self.damaged: list[str] = []
        if not self.folder.is_dir():
            raise RecordingError(f"{self.folder}: want a recording's folder, got {'a file' if self.folder.exists() else 'nothing'}")
        faults: list[str] = []
        try:
            self.store = Store.load(self.folder / "store")
        except ConfigError as error:
            raise ConfigError(error.faults) from None
        width = 3 * self.store.layout.n_joints
        columns = {"time": "int64", "camera": "string", "keypoints": f"list<fixed_size_list<float32>[{width}]>"}
        if self.store.appearance_dim:
            columns["appearance"] = f"list<fixed_size_list<float32>[{self.store.appearance_dim}]>"
        self._detections = _Stream(self, "detections", columns)
        self._weights = _Stream(self, "weights", {"time": "int64", "plate": "string", "samples": "list<float32>"})
        faults += self._detections.faults() + self._weights.faults()
        faults += self._line_faults("gate.jsonl", _GATE_LINE) + self._line_faults("items.jsonl", _ITEM_LINE)
        if faults:
            raise ConfigError(faults)

    def observations(self) -> Iterator[Observation]:
        """Everything that was recorded, merged by time. Raises RecordingError where a file turns out to be damaged."""
        streams: list[Iterable[Observation]] = [self._frames(), self._readings(), self._scans(), self._sightings()]
        return heapq.merge(*streams, key=lambda observation: observation.t_ns)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time of the detections and weights, from the files' statistics; None where there are none."""
        lows, highs = [], []
        for stream in (self._detections, self._weights):
            for path in stream.files:
                try:
                    metadata = stream._open(path).metadata
                except RecordingError:
                    continue
                for group in range(metadata.num_row_groups):
                    statistics = metadata.row_group(group).column(0).statistics
                    if statistics is not None and statistics.has_min_max:
                        lows.append(statistics.min)
                        highs.append(statistics.max)
        return (min(lows), max(highs)) if lows else None

    def _frames(self) -> Iterator[Frame]:
        shape = (-1, self.store.layout.n_joints, 3)
        dim = self.store.appearance_dim
        for batch in self._detections.batches():
            batch = self._detections.usable(batch)
            times, cameras = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            starts, flat = _ragged(batch.column(2))
            keypoints = flat.reshape(shape)
            if not dim:
                for row, (t_ns, camera) in enumerate(zip(times, cameras)):
                    yield Frame(t_ns, camera, keypoints[starts[row] : starts[row + 1]])
                continue
            vector_starts, vectors = _ragged(batch.column(3))
            vectors = vectors.reshape(-1, dim)
            for row, (t_ns, camera) in enumerate(zip(times, cameras)):
                people = keypoints[starts[row] : starts[row + 1]]
                appearance = vectors[vector_starts[row] : vector_starts[row + 1]]
                if len(appearance) != len(people):
                    self.ignored["detections: another number of appearance vectors than of people"] += 1
                    continue
                yield Frame(t_ns, camera, people, appearance)

    def _readings(self) -> Iterator[ShelfReading]:
        for batch in self._weights.batches():
            batch = self._weights.usable(batch)
            times, plates = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            starts, samples = _ragged(batch.column(2))
            for row, (t_ns, plate) in enumerate(zip(times, plates)):
                yield ShelfReading(t_ns, plate, samples[starts[row] : starts[row + 1]])

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        path = self.folder / name
        if path.exists():
            with open(path, "rb") as file:
                for row, line in enumerate(file, 1):
                    if line.strip():
                        yield row, line

    def _line_faults(self, name: str, line_type: TypeAdapter[Any]) -> list[str]:
        faults = []
        for row, line in self._lines(name):
            try:
                line_type.validate_json(line, strict=True)
            except ValidationError as error:
                faults.append(f"{name}:{row}: {_said(error)}")
                if len(faults) == FAULTS_MAX:
                    break
        return faults

    def _scans(self) -> Iterator[GateScan]:
        for _, line in self._lines("gate.jsonl"):
            yield parse_gate_line(line)

    def _sightings(self) -> Iterator[ItemSighting]:
        for _, line in self._lines("items.jsonl"):
            yield _sighting(_ITEM_LINE.validate_json(line, strict=True))


class RecordingWriter:
    """Writes a recording of the file contract, row by row or in blocks, with bounded memory.

    Use as a context manager; closing it completes the files. Page checksums are written.
    """

    def __init__(self, folder: str | Path, store: Store, rows_per_group: int = 16384) -> None:
        import pyarrow as pa

        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        store.save(self.folder / "store")
        self._rows_per_group = rows_per_group
        people = pa.list_(pa.list_(pa.float32(), 3 * store.layout.n_joints))
        fields = [("time", pa.int64()), ("camera", pa.string()), ("keypoints", people)]
        if store.appearance_dim:
            fields.append(("appearance", pa.list_(pa.list_(pa.float32(), store.appearance_dim))))
        weights = [("time", pa.int64()), ("plate", pa.string()), ("samples", pa.list_(pa.float32()))]
        self._frames: list[Frame] = []
        self._readings: list[ShelfReading] = []
        self._schemas = {"detections": pa.schema(fields), "weights": pa.schema(weights)}
        self._files: dict[str, Any] = {}
        self._lines: dict[str, IO[str]] = {}
        for name in self._schemas:
            self._files[name] = self._parquet(name)
        self._lines["gate"] = open(self.folder / "gate.jsonl", "w", encoding="utf-8")

    def _parquet(self, name: str) -> Any:
        import pyarrow.parquet as pq

        path = self.folder / f"{name}.parquet"
        return pq.ParquetWriter(path, self._schemas[name], compression="zstd", write_page_checksum=True)

    def write(self, observation: Observation) -> None:
        """Add an observation. Those of one stream must come in order of time."""
        match observation:
            case Frame():
                self._frames.append(observation)
                if len(self._frames) >= self._rows_per_group:
                    self._flush_frames()
            case ShelfReading():
                self._readings.append(observation)
                if len(self._readings) >= self._rows_per_group:
                    self._flush_readings()
            case GateScan():
                key = "account" if observation.credential_type == "account" else "token"
                credential = {"type": observation.credential_type, key: observation.account}
                line = {"time": observation.t_ns, "gate": observation.gate, "kind": "scan", "credential": credential}
                self._lines["gate"].write(json.dumps(line) + "\n")
            case ItemSighting():
                if "items" not in self._lines:
                    self._lines["items"] = open(self.folder / "items.jsonl", "w", encoding="utf-8")
                line = {
                    "time": observation.t_ns,
                    "source": observation.source,
                    "kind": observation.kind,
                    "gtin": observation.gtin,
                    "quantity": observation.quantity,
                    "probability": observation.probability,
                }
                line |= {k: v for k in ("zone", "plate") if (v := getattr(observation, k)) is not None}
                self._lines["items"].write(json.dumps(line) + "\n")

    def _flush_frames(self) -> None:
        import pyarrow as pa

        if not self._frames:
            return
        schema = self._schemas["detections"]
        columns = [
            pa.array([frame.t_ns for frame in self._frames], pa.int64()),
            pa.array([frame.camera for frame in self._frames], pa.string()),
            _people_column([frame.keypoints for frame in self._frames], schema.field("keypoints").type),
        ]
        if len(schema) == 4:
            vectors = [np.asarray(frame.appearance) for frame in self._frames]
            columns.append(_people_column(vectors, schema.field("appearance").type))
        self._files["detections"].write_batch(pa.record_batch(columns, schema=schema))
        self._frames.clear()

    def _flush_readings(self) -> None:
        import pyarrow as pa

        if not self._readings:
            return
        starts = np.concatenate([[0], np.cumsum([len(reading.samples) for reading in self._readings])])
        flat = np.concatenate([reading.samples for reading in self._readings]).astype(np.float32, copy=False)
        columns = [
            pa.array([reading.t_ns for reading in self._readings], pa.int64()),
            pa.array([reading.plate for reading in self._readings], pa.string()),
            pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(flat)),
        ]
        self._files["weights"].write_batch(pa.record_batch(columns, schema=self._schemas["weights"]))
        self._readings.clear()

    def close(self) -> None:
        self._flush_frames()
        self._flush_readings()
        for file in (*self._files.values(), *self._lines.values()):
            file.close()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _people_column(people: list[np.ndarray], dtype: pa.DataType) -> pa.Array:
    import pyarrow as pa

    starts = np.concatenate([[0], np.cumsum([len(one) for one in people])])
    flat = np.concatenate([np.ascontiguousarray(one, np.float32).reshape(-1) for one in people])
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dtype.value_type.list_size)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), rows)


# ---- order -----------------------------------------------------------------------------------------------------------


class Reorder:
    """Brings observations of all sensors into the order of their times, whatever order they arrive in.

    Each is held until no older one can still arrive: a message may come up to `lateness_max_s` after its time. What
    comes later than that, comes twice, or lies impossibly far ahead is counted and dropped. Because ties are broken by
    the sensor's name, the output does not depend on the order of arrival.
    """

    def __init__(self, lateness_max_s: float, jump_max_s: float = 10.0) -> None:
        self.lateness_ns = round(lateness_max_s * 1e9)
        self.jump_ns = round(jump_max_s * 1e9)
        self.newest_ns: int | None = None
        self.ignored: Counter[str] = Counter()
        self._heap: list[tuple[int, int, str, int, Observation]] = []
        self._n_arrived = 0
        self._released = -1
        self._last_key: tuple[int, int, str] | None = None
        # An observation from far ahead, with its sensor: a broken clock, unless a second sensor agrees with it.
        self._ahead: list[tuple[str, Observation]] = []

    def push(self, observation: Observation) -> None:
        """Take an observation in, in any order."""
        t_ns = observation.t_ns
        newest = self.newest_ns
        if newest is not None and t_ns > newest + self.jump_ns and not self._jump_confirmed(observation):
            return
        if t_ns <= self._released:
            self.ignored[f"{_STREAM_NAMES[type(observation)]}: more than {self.lateness_ns / 1e9:g} s late"] += 1
            return
        rank, sensor = _identity(observation)
        self._n_arrived += 1
        heapq.heappush(self._heap, (t_ns, rank, sensor, self._n_arrived, observation))
        if newest is None or t_ns > newest:
            self.newest_ns = t_ns

    def _jump_confirmed(self, observation: Observation) -> bool:
        """Whether a time far ahead of all others may be believed.

        One sensor's clock may go mad; two sensors that agree mean that the store was silent for a while.
        """
        sensor = "{}:{}".format(*_identity(observation))
        near = [(s, o) for s, o in self._ahead if abs(o.t_ns - observation.t_ns) <= self.jump_ns]
        if any(s != sensor for s, _ in near):
            self._ahead.clear()
            self.newest_ns = max(o.t_ns for _, o in [*near, (sensor, observation)])
            for _, held in near:
                self.push(held)
            return True
        self._ahead.append((sensor, observation))
        if len(self._ahead) > 64:
            _, dropped = self._ahead.pop(0)
            self.ignored[f"{_STREAM_NAMES[type(dropped)]}: time far ahead of every other sensor"] += 1
        return False

    def ready(self) -> Iterator[Observation]:
        """Those observations that nothing older can precede any more, oldest first."""
        if self.newest_ns is not None:
            yield from self._release(self.newest_ns - self.lateness_ns)

    def flush(self) -> Iterator[Observation]:
        """All that is held, oldest first: the streams have ended."""
        held, self._ahead = self._ahead, []
        for _, observation in held:
            self.ignored[f"{_STREAM_NAMES[type(observation)]}: time far ahead of every other sensor"] += 1
        if self.newest_ns is not None:
            yield from self._release(self.newest_ns)

    def _release(self, until_ns: int) -> Iterator[Observation]:
        heap = self._heap
        while heap and heap[0][0] <= until_ns:
            t_ns, rank, sensor, _, observation = heapq.heappop(heap)
            key = (t_ns, rank, sensor)
            if key == self._last_key and rank != _ITEM_RANK:
                self.ignored[f"{_STREAM_NAMES[type(observation)]}: repeated"] += 1
                continue
            self._last_key = key
            yield observation
        self._released = max(self._released, until_ns)


_STREAM_NAMES = {Frame: "detections", ShelfReading: "weights", GateScan: "gate", ItemSighting: "items"}
_ITEM_RANK = 3


def _identity(observation: Observation) -> tuple[int, str]:
    """Rank of the kind among simultaneous observations, and the sensor that made it."""
    match observation:
        case Frame():
            return 1, observation.camera
        case ShelfReading():
            return 2, observation.plate
        case GateScan():
            return 0, f"{observation.gate}\0{observation.account}"
        case _:
            return _ITEM_RANK, observation.source
