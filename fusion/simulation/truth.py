"""What really happened in a simulated run, as the rows of a recording's truth/ folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VisitTruth:
    """A line of truth/visits.jsonl."""

    account: str | None
    enter_ns: int
    exit_ns: int
    items: dict[str, int]


@dataclass(frozen=True, slots=True)
class EventTruth:
    """A row of truth/events.csv; quantity is negative for a take, account empty for a person without a scan."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str


@dataclass(frozen=True, slots=True)
class LoadTruth:
    """Rows of truth/loads.csv of one load: (plate, grams that it shows in the end), with gains and cross-talk."""

    t_ns: int
    plates: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class PeopleTruth:
    """Rows of truth/people.parquet at one instant.

    Attributes:
        person: (n,) numbers. account: n accounts, None for people without a scan.
        position_m: (n, 2) on the floor. joints_m: (n, K, 3) in the store's layout, world metres.
    """

    t_ns: int
    person: NDArray[np.int64]
    account: list[str | None]
    position_m: NDArray[np.float64]
    joints_m: NDArray[np.float64]


@dataclass
class Truth:
    """What really happened, as far as observations have been consumed.

    Visits are in the order of their ends until the run is over, then in the order of their beginnings.
    """

    visits: list[VisitTruth] = field(default_factory=list)
    events: list[EventTruth] = field(default_factory=list)
    loads: list[LoadTruth] = field(default_factory=list)
    people: list[PeopleTruth] = field(default_factory=list)


def write_visits_and_loads(truth: Truth, folder: Path) -> None:
    """Write visits.jsonl, events.csv and loads.csv into a truth/ folder that exists."""
    with open(folder / "visits.jsonl", "w", encoding="utf-8") as file:
        for visit in truth.visits:
            row = {"account": visit.account, "enter": visit.enter_ns, "exit": visit.exit_ns, "items": visit.items}
            file.write(json.dumps(row) + "\n")
    with open(folder / "events.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["time", "plate", "gtin", "quantity", "account"])
        rows.writerows([e.t_ns, e.plate, e.gtin, e.quantity, e.account] for e in truth.events)
    with open(folder / "loads.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["time", "plate", "grams"])
        rows.writerows([load.t_ns, plate, f"{grams:.3f}"] for load in truth.loads for plate, grams in load.plates)


class PeopleWriter:
    """Writes truth/people.parquet in blocks."""

    def __init__(self, path: Path, n_joints: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._width = 3 * n_joints
        self._schema = pa.schema(
            [
                ("time", pa.int64()),
                ("person", pa.int32()),
                ("account", pa.string()),
                ("x", pa.float64()),
                ("y", pa.float64()),
                ("keypoints", pa.list_(pa.float32(), self._width)),
            ]
        )
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_checksum=True)

    def __enter__(self) -> PeopleWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, people: Sequence[PeopleTruth]) -> None:
        """Append a block of instants."""
        import pyarrow as pa

        if not people:
            return
        joints = np.concatenate([row.joints_m for row in people]).astype(np.float32).reshape(-1)
        position = np.concatenate([row.position_m for row in people])
        columns = [
            pa.array(np.repeat([row.t_ns for row in people], [len(row.person) for row in people])),
            pa.array(np.concatenate([row.person for row in people]).astype(np.int32)),
            pa.array([account for row in people for account in row.account], pa.string()),
            pa.array(np.ascontiguousarray(position[:, 0])),
            pa.array(np.ascontiguousarray(position[:, 1])),
            pa.FixedSizeListArray.from_arrays(pa.array(joints), self._width),
        ]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))
