"""Weights of a shop's scales in tables that people have, as messages of the file contract."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.files.private import open_regular
from fusion.files.streams import Stream, ragged
from fusion.observations import ShelfReading, time_fault
from fusion.store.models import Store

if TYPE_CHECKING:
    import pyarrow as pa

# Samples of a message, as scales of the file contract send them: 0.2 s at 60 Hz.
_SAMPLES_PER_MESSAGE = 12
# A table is read as a whole; live capture writes Parquet, which is not.
_TABLE_BYTES_MAX = 2 << 30
# Spacing of two samples, in intervals of the store's rate, within which they follow each other without a gap, and by
# which the usual spacing may differ before the rate is another one.
_GAP_INTERVALS = 1.5
_RATE_TOLERANCE = 0.1


def load_weights(path: str | Path, store: Store, passed_over: Counter[str]) -> list[ShelfReading]:
    """Read the weights of a store's plates.

    - CSV with the columns `time`, `plate`, `grams`: a row for each sample.
    - CSV with the column `time` and a column for each plate, under its name, in the store's `weight_unit`.
    - Parquet as in a recording (`time`, `plate`, `samples`).

    Times are UTC nanoseconds since 1970, or ISO 8601 with a time zone. Samples come at the store's `weight_rate_hz`;
    one that is missing starts a new message.

    Args:
        path: the file.
        store: its plates and their rate.
        passed_over: takes what was left out, counted by the reason.

    Returns:
        Messages in order of time.

    Raises:
        ConfigError: the file cannot be read, has other columns, units or rates, or no plate of the store.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        readings = list(_recorded(path, store, passed_over))
    else:
        times, plates, weights = _samples(path, store, passed_over)
        _check_rate(path.name, times, plates, store.weight_rate_hz)
        readings = list(_messages(times, plates, weights, store))
    if not readings:
        raise ConfigError(f"{path.name}: want weights of plates of the store, got none")
    return sorted(readings, key=lambda reading: (reading.t_ns, reading.plate))


def _recorded(path: Path, store: Store, passed_over: Counter[str]) -> Iterator[ShelfReading]:
    """The rows of a Parquet file of the file contract."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; pass a file of weights")
    stream = Stream(path.parent, path.stem, {"time": "int64", "plate": "string", "samples": "list<float32>"})
    faults = stream.faults()
    if faults:
        raise ConfigError(faults)
    known = {plate.plate for plate in store.plates}
    for batch in stream.batches():
        times, plates = batch.column(0).to_pylist(), batch.column(1).to_pylist()
        starts, samples = ragged(batch.column(2))
        for row, (t_ns, plate) in enumerate(zip(times, plates)):
            if plate in known:
                yield ShelfReading(t_ns, plate, samples[starts[row] : starts[row + 1]].copy())
            else:
                passed_over[f"weights: plate {plate!r} is not in the store"] += 1
    passed_over.update(stream.ignored)


def _samples(
    path: Path, store: Store, passed_over: Counter[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Time, plate (its place in the store) and weight of each sample of a CSV file, plate by plate in order of time.

    Weights are in the store's unit, as they are in a recording.
    """
    table = _table(path)
    times = _times(path.name, table)
    names = {plate.plate: index for index, plate in enumerate(store.plates)}
    if {"plate", "grams"} <= set(table.column_names):
        plates = np.array([names.get(str(plate), -1) for plate in table["plate"].to_pylist()], np.int64)
        unknown = Counter(str(plate) for plate in table["plate"].filter(plates < 0).to_pylist())
        weights = _floats(path.name, "grams", table) / store.weight_unit_g
    else:
        columns = [column for column in table.column_names if column in names]
        unknown = Counter({column: len(times) for column in table.column_names if column not in {*names, "time"}})
        if not columns:
            got = ", ".join(table.column_names)[:100]
            wanted = "the columns time, plate, grams, or time and the store's plates"
            raise ConfigError(f"{path.name}: want {wanted}, got {got}")
        plates = np.repeat([names[column] for column in columns], len(times))
        weights = np.concatenate([_floats(path.name, column, table) for column in columns])
        times = np.tile(times, len(columns))
    for plate, n in unknown.items():
        passed_over[f"weights: plate {plate[:40]!r} is not in the store"] += n
    missing = ~np.isfinite(weights)
    passed_over["weights: samples without a number"] += int((missing & (plates >= 0)).sum())
    rows = np.flatnonzero(~missing & (plates >= 0))
    rows = rows[np.lexsort((times[rows], plates[rows]))]
    again = np.flatnonzero((np.diff(times[rows]) == 0) & (np.diff(plates[rows]) == 0)) + 1
    for row in rows[again[weights[rows[again]] != weights[rows[again - 1]]][:1]]:
        # Either would be weighed a sample too late, and all that follow in its message.
        plate = store.plates[plates[row]].plate
        wanted = "want one weight of a plate at a time"
        raise ConfigError(f"{path.name}: {wanted}, got several of {plate!r} at {times[row]}")
    passed_over["weights: samples that are there twice"] += len(again)
    rows = np.delete(rows, again)
    return times[rows], plates[rows], weights[rows]


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pc

    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _TABLE_BYTES_MAX:
                raise ConfigError(f"{path.name}: want at most {_TABLE_BYTES_MAX >> 30} GiB of weights, got more")
            table = pc.read_csv(file, convert_options=pc.ConvertOptions(column_types={"plate": pa.string()}))
            names = table.column_names  # decoded here and no sooner
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: want a CSV file, got: {' '.join(str(error).split())[:150]}") from None
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read: {error.strerror or error}") from None
    if names.count("time") != 1:
        raise ConfigError(f"{path.name}: want a column time, got {', '.join(names)[:100]}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{path.name}: want every column once, got {', '.join(names)[:100]}")
    return table


def _times(name: str, table: pa.Table) -> NDArray[np.int64]:
    """(n_rows,) UTC nanoseconds."""
    import pyarrow as pa
    import pyarrow.types as pt

    column = table["time"]
    if column.null_count:
        raise ConfigError(f"{name}: time: want a time in every row, got {column.null_count} rows without")
    if pt.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    if not pt.is_int64(column.type):
        example = column[0].as_py() if len(column) else "no rows"
        wanted = "UTC nanoseconds, or ISO 8601 with a time zone"
        raise ConfigError(f"{name}: time: want {wanted}, got {str(example)[:40]!r}")
    times: NDArray[np.int64] = column.to_numpy()
    for row in np.flatnonzero([bool(time_fault(t)) for t in (times.min(initial=2**60), times.max(initial=0))])[:1]:
        extreme = int((times.min(), times.max())[row]) if len(times) else 0
        raise ConfigError(f"{name}: time: {time_fault(extreme)}")
    return times


def _floats(name: str, column: str, table: pa.Table) -> NDArray[np.float64]:
    values: Any = table[column]
    try:
        return np.asarray(values.cast("float64").to_numpy(), np.float64)
    except (ValueError, NotImplementedError):
        raise ConfigError(f"{name}: {column}: want numbers, got {values.type}") from None


def _check_rate(name: str, times: NDArray[np.int64], plates: NDArray[np.int64], rate_hz: float) -> None:
    """Refuse samples of another rate; each would be read as a message of its own, or too many as one."""
    spacing_s = np.diff(times)[np.diff(plates) == 0] / 1e9
    if len(spacing_s) == 0:
        return
    usual_s = float(np.median(spacing_s))
    if abs(usual_s * rate_hz - 1.0) > _RATE_TOLERANCE:
        wanted = f"{rate_hz:g} samples a second of a plate (weight_rate_hz in store.toml)"
        raise ConfigError(f"{name}: want {wanted}, got {1.0 / usual_s:.3g}")


def _messages(
    times: NDArray[np.int64], plates: NDArray[np.int64], weights: NDArray[np.float64], store: Store
) -> Iterator[ShelfReading]:
    """Consecutive samples of a plate in messages of a dozen; a gap ends one."""
    gap_ns = _GAP_INTERVALS * 1e9 / store.weight_rate_hz
    starts = np.flatnonzero(np.diff(plates, prepend=-1) | (np.diff(times, prepend=0) > gap_ns))
    for start, end in zip(starts, [*starts[1:], len(times)]):
        for first in range(start, end, _SAMPLES_PER_MESSAGE):
            last = min(first + _SAMPLES_PER_MESSAGE, end)
            plate = store.plates[plates[first]].plate
            yield ShelfReading(int(times[first]), plate, weights[first:last].astype(np.float32))
