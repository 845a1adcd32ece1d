"""Recordings of the file contract: read back as observations in time order, and written.

A recording is read in batches, so that a day of it fits in a small memory, and every row that is not used is counted by
its reason.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fusion.errors import ConfigError, RecordingError, ShapeError
from fusion.files.lines import line_faults, line_of, parse_gate_line, parse_item_line
from fusion.files.private import open_private, open_regular, private_folder
from fusion.files.streams import FAULTS_MAX, Stream, ragged
from fusion.observations import (
    LATEST_NS,
    DoorState,
    Frame,
    GateEvent,
    GateScan,
    ItemSighting,
    Observation,
    ShelfReading,
)
from fusion.store.models import Store

if TYPE_CHECKING:
    import pyarrow as pa

# No scan is a megabyte long. A file without line ends is read in pieces of this size, each of which is a fault.
_LINE_BYTES_MAX = 1 << 20


class Recording:
    """A recording of the file contract, opened and checked; iterate `observations()` to replay it.

    Attributes:
        folder: where it is.
        store: the store as it was while recording.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a recording.

        Raises:
            ConfigError: with every fault of the store folder, the files' columns and the lines of JSON.
            RecordingError: no recording is there.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            state = "is a file" if self.folder.exists() else "does not exist"
            raise RecordingError(f"{self.folder} {state}; pass the folder of a recording")
        if not (self.folder / "store").exists():
            if (self.folder / "store.toml").exists():
                raise RecordingError(
                    f"{self.folder} is a store folder, not a recording; `fusion run --store {self.folder}` simulates it"
                )
            raise RecordingError(f"{self.folder} has no folder store/, so it is not a recording; pass another folder")
        faults = self._line_faults("gate.jsonl", parse_gate_line) + self._line_faults("items.jsonl", parse_item_line)
        weights = {"time": "int64", "plate": "string", "samples": "list<float32>"}
        self._weights = Stream(self.folder, "weights", weights)
        try:
            self.store = Store.load(self.folder / "store")
        except ConfigError as error:
            # Without the store the width of a detection is unknown; everything else can be checked.
            raise ConfigError([*error.faults, *self._weights.faults(), *faults]) from None
        width = 3 * self.store.layout.n_joints
        columns = {"time": "int64", "camera": "string", "keypoints": f"list<fixed_size_list<float32>[{width}]>"}
        if self.store.appearance_dim:
            columns["appearance"] = f"list<fixed_size_list<float32>[{self.store.appearance_dim}]>"
        self._detections = Stream(self.folder, "detections", columns)
        faults = self._detections.faults() + self._weights.faults() + faults
        if faults:
            raise ConfigError(faults)

    @property
    def ignored(self) -> Counter[str]:
        """Rows of the files that could not be used, by reason, as far as the recording has been read. A copy."""
        return self._detections.ignored + self._weights.ignored

    @property
    def damaged(self) -> list[str]:
        """Messages about torn files of a segmented stream, as far as the recording has been read. A copy."""
        return self._detections.damaged + self._weights.damaged

    def observations(self, since_ns: int | None = None) -> Iterator[Observation]:
        """Everything that was recorded, merged by time.

        Args:
            since_ns: only what has this time or a later one. Tables leave out whole batches, so that starting late in
                a long recording costs little.

        Raises:
            RecordingError: a file turns out to be damaged.
        """
        gates, sightings = self.gate_events(), self.sightings()
        within_ns = None
        if since_ns is not None:
            within_ns = since_ns, LATEST_NS + 1
            gates = (event for event in self.gate_events() if event.t_ns >= since_ns)
            sightings = (sighting for sighting in self.sightings() if sighting.t_ns >= since_ns)
        streams: list[Iterable[Observation]] = [
            self.frames(within_ns), self._readings(since_ns), gates, sightings
        ]  # fmt: skip
        return heapq.merge(*streams, key=lambda observation: observation.t_ns)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time of detections and weights; None where there are none. Reads little of the files."""
        spans = [span for stream in (self._detections, self._weights) if (span := stream.span_ns()) is not None]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def tables(self, stream: Literal["detections", "weights"]) -> Iterator[pa.RecordBatch]:
        """Usable rows of a stream as they are in its files, columns as in the contract; the others are counted."""
        return (self._detections if stream == "detections" else self._weights).batches()

    def frames(self, within_ns: tuple[int, int] | None = None) -> Iterator[Frame]:
        """The frames alone, in file order.

        Args:
            within_ns: only frames from the first instant up to, and without, the second.
        """
        shape = (-1, self.store.layout.n_joints, 3)
        dim = self.store.appearance_dim
        for table in self.tables("detections"):
            batch = table
            if within_ns is not None:
                stamps = table.column(0).to_numpy()
                batch = table.filter((stamps >= within_ns[0]) & (stamps < within_ns[1]))
            times, cameras = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            starts, flat = ragged(batch.column(2))
            keypoints = flat.reshape(shape)
            if not dim:
                for row, (t_ns, camera) in enumerate(zip(times, cameras)):
                    yield Frame(t_ns, camera, keypoints[starts[row] : starts[row + 1]])
                continue
            vector_starts, vectors = ragged(batch.column(3))
            vectors = vectors.reshape(-1, dim)
            for row, (t_ns, camera) in enumerate(zip(times, cameras)):
                people = keypoints[starts[row] : starts[row + 1]]
                appearance = vectors[vector_starts[row] : vector_starts[row + 1]]
                if len(appearance) != len(people):
                    self._detections.ignored["detections: another number of appearance vectors than of people"] += 1
                    continue
                yield Frame(t_ns, camera, people, appearance)

    def gate_events(self) -> Iterator[GateEvent]:
        """Lines of gate.jsonl: scans, and states of doors."""
        for _, line in self._lines("gate.jsonl"):
            yield parse_gate_line(line)

    def sightings(self) -> Iterator[ItemSighting]:
        """Lines of items.jsonl."""
        for _, line in self._lines("items.jsonl"):
            yield parse_item_line(line)

    def _readings(self, since_ns: int | None) -> Iterator[ShelfReading]:
        for table in self.tables("weights"):
            batch = table if since_ns is None else table.filter(table.column(0).to_numpy() >= since_ns)
            times, plates = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            starts, samples = ragged(batch.column(2))
            for row, (t_ns, plate) in enumerate(zip(times, plates)):
                yield ShelfReading(t_ns, plate, samples[starts[row] : starts[row + 1]])

    def _lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Row number and text of every line that is not blank."""
        path = self.folder / name
        if path.exists():
            with open_regular(path) as file:
                for row, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), 1):
                    if line.strip():
                        yield row, line

    def _line_faults(self, name: str, parse: Callable[[bytes], object]) -> list[str]:
        faults = []
        for row, line in self._lines(name):
            try:
                parse(line)
            except ValidationError as error:
                faults.append(f"{name}:{row}: {line_faults(error)}")
                if len(faults) == FAULTS_MAX:
                    break
        return faults


class RecordingWriter:
    """Writes a recording of the file contract, row by row or in blocks, with bounded memory.

    Use as a context manager; closing it completes the files. Page checksums are written.
    """

    def __init__(
        self, folder: str | Path, store: Store, rows_per_group: int = 16384, segment_s: float | None = None
    ) -> None:
        """Start a recording.

        Args:
            folder: created where needed.
            store: saved with the recording.
            rows_per_group: rows that are held back until they are written together.
            segment_s: None for one file per stream. Otherwise every stream is a folder of files that each hold this
                many seconds of data, so that a crash costs only the last of them; numbering continues after the files
                that are there already.
        """
        import pyarrow as pa

        self.folder = private_folder(folder)
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
        # When the open file of a segmented stream has to be closed.
        self._segment_ends_ns: dict[str, int] = {}
        self._lines: dict[str, IO[str]] = {}
        if segment_s is None:
            for name in self._schemas:
                self._files[name] = self._parquet(name, self.folder / f"{name}.parquet")
        self._open_lines("gate")

    def write(self, observation: Observation) -> None:
        """Add an observation. Those of one stream must come in time order.

        Raises:
            ShapeError: a frame or reading that does not fit the store.
        """
        match observation:
            case Frame():
                self._check(observation)
                self._start_segment("detections", observation.t_ns)
                self._frames.append(observation)
                if len(self._frames) >= self._rows_per_group:
                    self._flush_frames()
            case ShelfReading():
                if np.ndim(observation.samples) != 1:
                    raise ShapeError(f"samples: want (n,), got {np.shape(observation.samples)}")
                self._start_segment("weights", observation.t_ns)
                self._readings.append(observation)
                if len(self._readings) >= self._rows_per_group:
                    self._flush_readings()
            case GateScan() | DoorState():
                self._lines["gate"].write(json.dumps(line_of(observation)) + "\n")
            case ItemSighting():
                if "items" not in self._lines:
                    self._open_lines("items")
                self._lines["items"].write(json.dumps(line_of(observation)) + "\n")

    def close(self) -> None:
        """Write what is held back and complete the files."""
        self._flush_frames()
        self._flush_readings()
        for file in (*self._files.values(), *self._lines.values()):
            file.close()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parquet(self, name: str, path: Path) -> Any:
        import pyarrow.parquet as pq

        open_private(path, "wb").close()
        return pq.ParquetWriter(path, self._schemas[name], compression="zstd", write_page_checksum=True)

    def _open_lines(self, name: str) -> None:
        # Live capture: a line is in the file as soon as it is whole, whatever happens to this process.
        mode, buffering = ("w", -1) if self._segment_ns is None else ("a", 1)
        self._lines[name] = open_private(self.folder / f"{name}.jsonl", mode, buffering)

    def _start_segment(self, name: str, t_ns: int) -> None:
        """In a segmented stream, close the file whose seconds are over, with its rows, and open the next."""
        if self._segment_ns is None or t_ns < self._segment_ends_ns.get(name, 0):
            return
        if name in self._files:
            self._flush_frames() if name == "detections" else self._flush_readings()
            self._files[name].close()
        folder = private_folder(self.folder / name)
        numbers = [int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdecimal()]
        self._files[name] = self._parquet(name, folder / f"{max(numbers, default=-1) + 1:08d}.parquet")
        self._segment_ends_ns[name] = t_ns + self._segment_ns

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
        if self._appearance_dim:
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


def _people_column(people: Sequence[NDArray[np.float32]], dtype: pa.DataType) -> pa.Array:
    """A list column with one row per frame, from arrays whose first axis is the people of that frame."""
    import pyarrow as pa

    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in people])])
    flat = np.concatenate([np.ascontiguousarray(rows, np.float32).reshape(-1) for rows in people])
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), dtype.value_type.list_size)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), rows)
