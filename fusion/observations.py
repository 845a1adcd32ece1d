"""What sensors tell: frames of detections, weight messages, gate scans, other evidence; recording and replaying them.

Times are int64 UTC nanoseconds that come in with the data; nothing here reads a clock. A recording is read in batches,
so a day of it needs no day's memory, and every row that is not used is counted by its reason.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fusion.errors import ConfigError, RecordingError, ShapeError
from fusion.store.models import Store
from fusion.store.values import Gtin, Identifier

if TYPE_CHECKING:
    import pyarrow as pa

# 2001-09-09 in nanoseconds. A smaller number is an instant in micro-, milli- or plain seconds.
EARLIEST_NS = 10**18
# 2116-02-20; a later instant is no nanoseconds either, and int64 would soon overflow.
LATEST_NS = 2**62
# Rows decoded at a time: some seconds of a large store, some megabytes.
BATCH_ROWS = 4096
# Faults reported of one stream; a file that is wrong throughout would fill the screen.
FAULTS_MAX = 20
# No scan is a megabyte long; a file without line ends is read in such pieces, each of which is a fault.
_LINE_BYTES_MAX = 1 << 20


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
    if not EARLIEST_NS <= value <= LATEST_NS:
        raise ValueError(f"want UTC nanoseconds since 1970, got {value} (another unit?)")
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
    gtin: Gtin
    quantity: Annotated[int, Field(ge=1, le=10_000)]
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


def parse_item_line(text: str | bytes) -> ItemSighting:
    """A line of items.jsonl. Raises pydantic's ValidationError."""
    return _sighting(_ITEM_LINE.validate_json(text, strict=True))


def line_of(observation: GateScan | ItemSighting) -> dict[str, Any]:
    """What stands in gate.jsonl or items.jsonl about an observation."""
    if isinstance(observation, GateScan):
        key = "account" if observation.credential_type == "account" else "token"
        credential = {"type": observation.credential_type, key: observation.account}
        return {"time": observation.t_ns, "gate": observation.gate, "kind": "scan", "credential": credential}
    line = {
        "time": observation.t_ns,
        "source": observation.source,
        "kind": observation.kind,
        "gtin": observation.gtin,
        "quantity": observation.quantity,
        "probability": observation.probability,
    }
    return line | {key: v for key in ("zone", "plate") if (v := getattr(observation, key)) is not None}


def _said(error: ValidationError) -> str:
    said = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        text = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else f"{fault['msg']}"
        said.append(f"{key}: {text}" if key else text)
    return "; ".join(said)


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _schema_faults(
    name: str, schema: pa.Schema, wanted: dict[str, str], matches: Callable[[str, pa.DataType], bool]
) -> list[str]:
    faults = [f"{name}: column {c!r}: want it once, got it twice" for c in wanted if schema.names.count(c) > 1]
    faults += [f"{name}: missing column {c!r}, want {wanted[c]}" for c in wanted if c not in schema.names]
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
        self.twice = single.exists() and folder.is_dir()

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
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(path, page_checksum_verification=True)
        except _DAMAGE as error:
            raise RecordingError(f"{self._label(path)}: want a Parquet file, got: {_one_line(error)}") from None

    def _label(self, path: Path) -> str:
        return str(path.relative_to(self.recording.folder))

    def faults(self) -> list[str]:
        """What is wrong with the stream before its rows are read."""
        found = [f"{self.name}: want a file or a folder, got both"] if self.twice else []
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
        """The files' rows, columns in the order of the contract."""
        for path in self.files:
            n_rows = 0
            try:
                for batch in self._file_batches(path):
                    n_rows += batch.num_rows
                    yield batch
            except ConfigError:
                raise
            except RecordingError as error:
                if not self.segmented:
                    raise
                self._count_damaged(str(error))
            except _DAMAGE as error:
                said = f"{self._label(path)}: damaged after row {n_rows}: {_one_line(error)}"
                if not self.segmented:
                    raise RecordingError(said) from None
                self._count_damaged(said)

    def _file_batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        file = self._open(path)
        n_rows = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(self.wanted), use_threads=False):
            # Offsets that lie would otherwise be read as memory that is not there.
            batch.validate(full=True)
            batch = batch.select(list(self.wanted))
            if n_rows == 0 and batch.num_rows:
                self._check_unit(path, batch)
            n_rows += batch.num_rows
            yield batch
        if n_rows != file.metadata.num_rows:
            raise OSError(f"want {file.metadata.num_rows} rows, got {n_rows}")
        file.close()

    def _count_damaged(self, said: str) -> None:
        self.recording.damaged.append(said)
        self.recording.ignored[f"{self.name}: damaged file"] += 1

    def _check_unit(self, path: Path, batch: pa.RecordBatch) -> None:
        """One row in another unit is a broken clock, which is counted later; a first batch of them is a wrong file."""
        times = batch.column(0).drop_null().to_numpy()
        if len(times) and not (times >= EARLIEST_NS).any():
            got = f"{times[0]} (another unit?)"
            raise ConfigError(f"{self._label(path)}: time: want UTC nanoseconds since 1970, got {got}")

    def usable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows without a null at any depth and with a possible time; the others are counted."""
        batch = self._without(batch, _rows_with_null(batch), "null in a row")
        times = batch.column(0).to_numpy()
        return self._without(batch, (times < EARLIEST_NS) | (times > LATEST_NS), "impossible time")

    def _without(self, batch: pa.RecordBatch, unusable: np.ndarray, reason: str) -> pa.RecordBatch:
        if not unusable.any():
            return batch
        self.recording.ignored[f"{self.name}: {reason}"] += int(unusable.sum())
        return batch.filter(~unusable)


def _rows_with_null(batch: pa.RecordBatch) -> np.ndarray:
    """(n_rows,) bool."""
    found = np.zeros(batch.num_rows, bool)
    for column in batch.columns:
        if column.null_count:
            found |= ~column.is_valid().to_numpy(zero_copy_only=False)
        if not hasattr(column, "offsets"):
            continue
        # Values outside a slice or under a null row do not count; those are rare enough to look at row by row.
        people = column.values
        inner = people.values if hasattr(people.type, "list_size") else people
        if people.null_count or inner.null_count:
            for row, value in enumerate(column.to_pylist()):
                found[row] |= value is None or any(v is None or (isinstance(v, list) and None in v) for v in value)
    return found


# What pyarrow raises over a damaged file: its own exceptions are ValueError, OSError or NotImplementedError at heart.
_DAMAGE = (ValueError, OSError, NotImplementedError, KeyError, IndexError, OverflowError, MemoryError)


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
            got = "a file" if self.folder.exists() else "nothing"
            raise RecordingError(f"{self.folder}: want a recording's folder, got {got}")
        faults = self._line_faults("gate.jsonl", _GATE_LINE) + self._line_faults("items.jsonl", _ITEM_LINE)
        weights = {"time": "int64", "plate": "string", "samples": "list<float32>"}
        self._weights = _Stream(self, "weights", weights)
        try:
            self.store = Store.load(self.folder / "store")
        except ConfigError as error:
            # How wide a detection has to be is not known now; all else is.
            raise ConfigError([*error.faults, *self._weights.faults(), *faults]) from None
        width = 3 * self.store.layout.n_joints
        columns = {"time": "int64", "camera": "string", "keypoints": f"list<fixed_size_list<float32>[{width}]>"}
        if self.store.appearance_dim:
            columns["appearance"] = f"list<fixed_size_list<float32>[{self.store.appearance_dim}]>"
        self._detections = _Stream(self, "detections", columns)
        faults = self._detections.faults() + self._weights.faults() + faults
        if faults:
            raise ConfigError(faults)

    def observations(self, since_ns: int | None = None) -> Iterator[Observation]:
        """Everything that was recorded, or that of an instant and later, merged by time.

        Raises RecordingError where a file turns out to be damaged.
        """
        streams: list[Iterable[Observation]] = [self.frames(), self._readings(), self.scans(), self.sightings()]
        if since_ns is not None:
            # Of tables whole batches are left out at once: going on late in a long recording costs little.
            lines = (one for one in self.scans() if one.t_ns >= since_ns)
            seen = (one for one in self.sightings() if one.t_ns >= since_ns)
            streams = [self.frames((since_ns, LATEST_NS + 1)), self._readings(since_ns), lines, seen]
        return heapq.merge(*streams, key=lambda observation: observation.t_ns)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time of the detections and weights; None where there are none. Reads little of the files."""
        lows, highs = [], []
        for stream in (self._detections, self._weights):
            for path in stream.files:
                try:
                    file = stream._open(path)
                    # Rows are sorted by time. (The footer's statistics would say it, too, but asking for those of a
                    # damaged file ends the process: pyarrow does not catch what Parquet throws there.)
                    for group in {0, file.num_row_groups - 1} & set(range(file.num_row_groups)):
                        times = file.read_row_group(group, columns=["time"]).column(0).drop_null().to_numpy()
                        times = times[(times >= EARLIEST_NS) & (times <= LATEST_NS)]
                        if len(times):
                            lows.append(int(times.min()))
                            highs.append(int(times.max()))
                except (RecordingError, *_DAMAGE):
                    continue
        return (min(lows), max(highs)) if lows else None

    def tables(self, stream: Literal["detections", "weights"]) -> Iterator[pa.RecordBatch]:
        """Usable rows of a stream as they stand in its files, columns as in the contract; the others are counted."""
        source = self._detections if stream == "detections" else self._weights
        for batch in source.batches():
            yield source.usable(batch)

    def frames(self, within_ns: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The frames alone, in file order; of a time from the first instant up to the second where one is given."""
        shape = (-1, self.store.layout.n_joints, 3)
        dim = self.store.appearance_dim
        for batch in self.tables("detections"):
            if within_ns is not None:
                stamps = batch.column(0).to_numpy()
                batch = batch.filter((stamps >= within_ns[0]) & (stamps < within_ns[1]))
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

    def _readings(self, since_ns: int | None = None) -> Iterator[ShelfReading]:
        for batch in self.tables("weights"):
            if since_ns is not None:
                batch = batch.filter(batch.column(0).to_numpy() >= since_ns)
            times, plates = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            starts, samples = _ragged(batch.column(2))
            for row, (t_ns, plate) in enumerate(zip(times, plates)):
                yield ShelfReading(t_ns, plate, samples[starts[row] : starts[row + 1]])

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        path = self.folder / name
        if path.exists():
            with open(path, "rb") as file:
                for row, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), 1):
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

    def scans(self) -> Iterator[GateScan]:
        """Lines of gate.jsonl."""
        for _, line in self._lines("gate.jsonl"):
            yield parse_gate_line(line)

    def sightings(self) -> Iterator[ItemSighting]:
        """Lines of items.jsonl."""
        for _, line in self._lines("items.jsonl"):
            yield parse_item_line(line)


class RecordingWriter:
    """Writes a recording of the file contract, row by row or in blocks, with bounded memory.

    Use as a context manager; closing it completes the files. Page checksums are written.
    """

    def __init__(
        self, folder: str | Path, store: Store, rows_per_group: int = 16384, segment_s: float | None = None
    ) -> None:
        """Begin a recording.

        Args:
            folder: created where needed.
            store: saved with the recording.
            rows_per_group: rows held back until they are written together.
            segment_s: None for one file per stream; else every stream is a folder, whose files each hold so many
                seconds of data, so that a crash costs the last of them. Goes on after those that are there.
        """
        import pyarrow as pa

        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        store.save(self.folder / "store")
        self._rows_per_group = rows_per_group
        self._segment_ns = None if segment_s is None else round(segment_s * 1e9)
        self._n_joints, self._appearance_dim = store.layout.n_joints, store.appearance_dim
        people = pa.list_(pa.list_(pa.float32(), 3 * store.layout.n_joints))
        fields = [("time", pa.int64()), ("camera", pa.string()), ("keypoints", people)]
        if store.appearance_dim:
            fields.append(("appearance", pa.list_(pa.list_(pa.float32(), store.appearance_dim))))
        weights = [("time", pa.int64()), ("plate", pa.string()), ("samples", pa.list_(pa.float32()))]
        self._frames: list[Frame] = []
        self._readings: list[ShelfReading] = []
        self._schemas = {"detections": pa.schema(fields), "weights": pa.schema(weights)}
        self._files: dict[str, Any] = {}
        # When the file that is open in a segmented stream has to be closed.
        self._segment_ends_ns: dict[str, int] = {}
        self._lines: dict[str, IO[str]] = {}
        if segment_s is None:
            for name in self._schemas:
                self._files[name] = self._parquet(name, self.folder / f"{name}.parquet")
        self._open_lines("gate")

    def _parquet(self, name: str, path: Path) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, self._schemas[name], compression="zstd", write_page_checksum=True)

    def _open_lines(self, name: str) -> None:
        # Live capture: a line is in the file as soon as it is whole, whatever becomes of this program.
        mode, buffering = ("w", -1) if self._segment_ns is None else ("a", 1)
        path = self.folder / f"{name}.jsonl"
        self._lines[name] = open(path, mode, buffering, encoding="utf-8")  # noqa: SIM115 (closed by close)

    def _segment(self, name: str, t_ns: int) -> None:
        """Close the file whose seconds are over, after the rows that belong to it, and open the next."""
        if self._segment_ns is None or t_ns < self._segment_ends_ns.get(name, 0):
            return
        if name in self._files:
            self._flush_frames() if name == "detections" else self._flush_readings()
            self._files[name].close()
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        numbers = [int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdecimal()]
        self._files[name] = self._parquet(name, folder / f"{max(numbers, default=-1) + 1:08d}.parquet")
        self._segment_ends_ns[name] = t_ns + self._segment_ns

    def write(self, observation: Observation) -> None:
        """Add an observation. Those of one stream must come in order of time.

        Raises:
            ShapeError: a frame or reading that does not fit the store.
        """
        match observation:
            case Frame():
                self._check(observation)
                self._segment("detections", observation.t_ns)
                self._frames.append(observation)
                if len(self._frames) >= self._rows_per_group:
                    self._flush_frames()
            case ShelfReading():
                if np.ndim(observation.samples) != 1:
                    raise ShapeError(f"samples: want (n,), got {np.shape(observation.samples)}")
                self._segment("weights", observation.t_ns)
                self._readings.append(observation)
                if len(self._readings) >= self._rows_per_group:
                    self._flush_readings()
            case GateScan():
                self._lines["gate"].write(json.dumps(line_of(observation)) + "\n")
            case ItemSighting():
                if "items" not in self._lines:
                    self._open_lines("items")
                self._lines["items"].write(json.dumps(line_of(observation)) + "\n")

    def _check(self, frame: Frame) -> None:
        n_people = len(frame.keypoints)
        if np.shape(frame.keypoints) != (n_people, self._n_joints, 3):
            raise ShapeError(f"keypoints: want (n_people, {self._n_joints}, 3), got {np.shape(frame.keypoints)}")
        got = None if frame.appearance is None else np.shape(frame.appearance)
        if self._appearance_dim and got != (n_people, self._appearance_dim):
            raise ShapeError(f"appearance: want ({n_people}, {self._appearance_dim}), got {got}")

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
    comes later than that, comes twice, or lies impossibly far ahead is counted and dropped. Ties are broken by the
    sensor's name, so the output does not depend on the order of arrival.

    A time more than `jump_max_s` ahead is a clock gone mad, unless time really went on while nothing was sent. Then
    all that arrives is ahead, so it is believed once an unbroken run of it has as many witnesses as the last
    `jump_max_s` before it, at most eight; a single sensor has to go on for as long as the others may be late. The very
    first observations are weighed in the same way, before any is released: two sensors that agree start the clock.
    """

    def __init__(self, lateness_max_s: float, jump_max_s: float = 2.0) -> None:
        self.lateness_ns = round(lateness_max_s * 1e9)
        self.jump_ns = round(jump_max_s * 1e9)
        self.newest_ns: int | None = None
        self.ignored: Counter[str] = Counter()
        self._heap: list[tuple[int, int, str, int, Observation]] = []
        self._n_arrived = 0
        # Everything before this instant has been released.
        self._released_ns = 0
        self._last_key: tuple[int, int, str] | None = None
        # Times of the last observations taken, the witnesses of the clock as it stands.
        self._witnesses: deque[int] = deque(maxlen=_WITNESSES)
        # The unbroken run of observations from far ahead; at the start, the first observations.
        self._run: list[Observation] = []
        self._n_dropped = 0

    def push(self, observation: Observation) -> None:
        """Take an observation in, in any order."""
        t_ns = observation.t_ns
        newest = self.newest_ns
        if newest is None or t_ns > newest + self.jump_ns:
            self._run.append(observation)
            while self._run and self._run_believed(ended=False):
                self._believe_run()
            return
        if t_ns < self._released_ns:
            self.ignored[f"{_STREAM_NAMES[type(observation)]}: more than {self.lateness_ns / 1e9:g} s late"] += 1
            return
        self._hold(observation)
        if self._run:
            self._end_run()

    def _hold(self, observation: Observation) -> None:
        rank, sensor = _identity(observation)
        self._n_arrived += 1
        heapq.heappush(self._heap, (observation.t_ns, rank, sensor, self._n_arrived, observation))
        self._witnesses.append(observation.t_ns)
        if self.newest_ns is None or observation.t_ns > self.newest_ns:
            self.newest_ns = observation.t_ns

    def _run_believed(self, ended: bool) -> bool:
        run = self._run
        if self.newest_ns is None:
            wanted = _WITNESSES
            # Two sensors that agree are enough to start with; the first of all may be the one that is wrong.
            if self._agreeing() is not None:
                return True
        else:
            wanted = sum(t_ns > self.newest_ns - self.jump_ns for t_ns in self._witnesses)
        if ended and not self._n_dropped:
            return True  # Every clock was right so far, and nothing is left that could speak against this.
        if ended or len(run) >= _RUN_MAX:
            return self.newest_ns is None or len(run) >= wanted
        if len(run) < max(wanted, 1):
            return False
        # Others may be silent only because their messages are late.
        span_ns = max(observation.t_ns for observation in run) - min(observation.t_ns for observation in run)
        alone = len({_identity(observation) for observation in run}) == 1
        return wanted <= 1 or not alone or span_ns >= max(self.lateness_ns, 10**9)

    def _agreeing(self) -> int | None:
        """The latest time at which two sensors of the run agree; None where no two do."""
        *earlier, last = self._run
        sensor = _identity(last)
        times = [o.t_ns for o in earlier if _identity(o) != sensor and abs(o.t_ns - last.t_ns) <= self.jump_ns]
        return max(*times, last.t_ns) if times else None

    def _believe_run(self) -> None:
        """Go on from the run. Where its times differ widely, from what most of them say."""
        pivot = self._agreeing() if self.newest_ns is None else None
        if pivot is None:
            pivot = sorted(observation.t_ns for observation in self._run)[len(self._run) // 2]
        run, self._run = self._run, []
        for observation in run:
            if observation.t_ns <= pivot + self.jump_ns:
                self._hold(observation)
            else:
                self._run.append(observation)

    def _end_run(self) -> None:
        """The others go on with the old time, so what is far ahead even of them was wrong."""
        run, self._run = sorted(self._run, key=lambda observation: observation.t_ns), []
        for observation in run:
            if self.newest_ns is not None and observation.t_ns <= self.newest_ns + self.jump_ns:
                self._hold(observation)
            else:
                self._drop(observation)

    def _drop(self, observation: Observation) -> None:
        self._n_dropped += 1
        self.ignored[f"{_STREAM_NAMES[type(observation)]}: time far ahead of every other sensor"] += 1

    def ready(self) -> list[Observation]:
        """Those observations that nothing older can precede any more, oldest first."""
        return self._release(self.newest_ns - self.lateness_ns) if self.newest_ns is not None else []

    def flush(self) -> list[Observation]:
        """All that is held, oldest first: the streams have ended."""
        while self._run and self._run_believed(ended=True):
            self._believe_run()
        self._end_run()
        return self._release(self.newest_ns + 1) if self.newest_ns is not None else []

    def _release(self, until_ns: int) -> list[Observation]:
        heap = self._heap
        released: list[Observation] = []
        while heap and heap[0][0] < until_ns:
            t_ns, rank, sensor, _, observation = heapq.heappop(heap)
            key = (t_ns, rank, sensor)
            if key == self._last_key and rank != _ITEM_RANK:
                self.ignored[f"{_STREAM_NAMES[type(observation)]}: repeated"] += 1
                continue
            self._last_key = key
            released.append(observation)
        if until_ns > self._released_ns:
            self._released_ns = until_ns
        return released


# Observations that prove a clock. A store in use sends hundreds a second, so eight in a row that are all wrong, without
# one that is right among them, do not happen to a clock gone mad; a silent night ends within a fraction of a second.
_WITNESSES = 8
# A run of a single fast sensor is bounded by this.
_RUN_MAX = 1024
_STREAM_NAMES = {Frame: "detections", ShelfReading: "weights", GateScan: "gate", ItemSighting: "items"}
_ITEM_RANK = 3


def _identity(observation: Observation) -> tuple[int, str]:
    """Rank of the kind among simultaneous observations, and the sensor that made it."""
    # Nearly all are one of two, and asking for their types in this order is the quickest way to know.
    if isinstance(observation, ShelfReading):
        return 2, observation.plate
    if isinstance(observation, Frame):
        return 1, observation.camera
    match observation:
        case GateScan():
            return 0, f"{observation.gate}\0{observation.account}"
        case ItemSighting(source=source, kind=kind, gtin=gtin, quantity=quantity):
            # An antenna reads many things at one instant, so what it read tells them apart.
            place = f"{observation.zone}\0{observation.plate}\0{observation.probability}"
            return _ITEM_RANK, f"{source}\0{kind}\0{gtin}\0{quantity}\0{place}"
