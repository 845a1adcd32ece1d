"""A Parquet stream of a recording: one file, or a folder of files read in name order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, RecordingError
from fusion.observations import EARLIEST_NS, LATEST_NS, time_fault

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are decoded at a time: some seconds of a large store, some megabytes.
BATCH_ROWS = 4096
# Numbers in a column of a row group, 268 MB of float32: one row may hold all of them. Recordings that this package
# writes have a twentieth of it with fifteen people in every frame.
GROUP_VALUES_MAX = 2**26
# Faults that are reported of one stream or folder; a file that is wrong throughout would fill the screen.
FAULTS_MAX = 20
# What pyarrow raises over a damaged file: its own exceptions derive from ValueError, OSError or NotImplementedError.
DAMAGE = (ValueError, OSError, NotImplementedError, KeyError, IndexError, OverflowError, MemoryError)


class Stream:
    """The rows of one Parquet stream, with everything that could not be used counted.

    Live capture closes one file after another, so a stream may be a folder; a crash then leaves the last file torn.
    Such a file is counted and the others are read. A damaged single file is an error.

    Attributes:
        ignored: rows and files that could not be used, by reason. Grows while the stream is read.
        damaged: one message for every file of a folder that could not be read to its end.
    """

    def __init__(self, folder: Path, name: str, columns: dict[str, str]) -> None:
        """Find a stream's files.

        Args:
            folder: of the recording.
            name: `detections` or `weights`.
            columns: type of every column, by name, in the words of the file contract.
        """
        self.ignored: Counter[str] = Counter()
        self.damaged: list[str] = []
        self._folder = folder
        self._name = name
        self._columns = columns
        single, several = folder / f"{name}.parquet", folder / name
        self._files = [single] if single.exists() else sorted(several.glob("*.parquet")) if several.is_dir() else []
        self._segmented = bool(self._files) and not single.exists()
        self._ambiguous = single.exists() and several.is_dir()

    def faults(self) -> list[str]:
        """What is wrong with the stream before its rows are read."""
        found = [f"{self._name}: want a file or a folder, got both"] if self._ambiguous else []
        for path in self._files:
            try:
                file = self._open(path)
            except RecordingError as error:
                if not self._segmented:
                    found.append(str(error))
                continue
            found += _schema_faults(self._label(path), file.schema_arrow, self._columns)
        return found[:FAULTS_MAX]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Usable rows, columns in the order of the contract; rows that cannot be used are counted.

        Raises:
            ConfigError: the first rows of a file have times in another unit.
            RecordingError: the only file of the stream is damaged; the message says after which row.
        """
        for path in self._files:
            n_rows = 0
            try:
                for batch in self._file_batches(path):
                    n_rows += batch.num_rows
                    yield self._usable(batch)
            except ConfigError:
                raise
            except RecordingError as error:
                self._damaged(error)
            except DAMAGE as error:
                self._damaged(RecordingError(f"{self._label(path)}: damaged after row {n_rows}: {_one_line(error)}"))

    def span_ns(self) -> tuple[int, int] | None:
        """First and last usable time; None where there is none. Reads little of the files and skips damaged ones."""
        bounds: list[int] = []
        for path in self._files:
            try:
                file = self._open(path)
                # Rows are sorted by time. The footer's statistics hold the same, but asking for those of a damaged
                # file ends the process: pyarrow does not catch what Parquet throws there.
                for group in {0, file.num_row_groups - 1} & set(range(file.num_row_groups)):
                    times = file.read_row_group(group, columns=["time"]).column(0).drop_null().to_numpy()
                    times = times[(times >= EARLIEST_NS) & (times <= LATEST_NS)]
                    if len(times):
                        bounds += [int(times.min()), int(times.max())]
            except (RecordingError, *DAMAGE):
                continue
        return (min(bounds), max(bounds)) if bounds else None

    def _open(self, path: Path) -> Any:
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path, page_checksum_verification=True)
            metadata = file.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            largest = max((group.column(j).num_values for group in groups for j in range(group.num_columns)), default=0)
        except DAMAGE as error:
            raise RecordingError(f"{self._label(path)}: want a Parquet file, got: {_one_line(error)}") from None
        # Before anything is decoded: a row cannot be read in part, and a kilobyte can hold a hundred million values.
        if largest > GROUP_VALUES_MAX:
            raise RecordingError(
                f"{self._label(path)}: want row groups of at most {GROUP_VALUES_MAX} values in a column, got "
                f"{largest}; write it with fewer rows in a group"
            )
        return file

    def _label(self, path: Path) -> str:
        return str(path.relative_to(self._folder))

    def _file_batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        file = self._open(path)
        n_rows = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(self._columns), use_threads=False):
            # Wrong offsets would otherwise be read as memory outside the batch.
            batch.validate(full=True)
            ordered = batch.select(list(self._columns))
            if n_rows == 0 and ordered.num_rows:
                self._check_unit(path, ordered)
            n_rows += ordered.num_rows
            yield ordered
        if n_rows != file.metadata.num_rows:
            raise OSError(f"want {file.metadata.num_rows} rows, got {n_rows}")
        file.close()

    def _damaged(self, error: RecordingError) -> None:
        if not self._segmented:
            raise error from None
        self.damaged.append(str(error))
        self.ignored[f"{self._name}: damaged file"] += 1

    def _check_unit(self, path: Path, batch: pa.RecordBatch) -> None:
        """One row in another unit is a faulty clock, which is counted later; a whole first batch is a wrong file."""
        times = batch.column(0).drop_null().to_numpy()
        if len(times) and not (times >= EARLIEST_NS).any():
            raise ConfigError(f"{self._label(path)}: time: {time_fault(int(times[0]))}")

    def _usable(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows without a null at any depth and with a possible time; the others are counted."""
        batch = self._without(batch, _rows_with_null(batch), "null in a row")
        times = batch.column(0).to_numpy()
        return self._without(batch, (times < EARLIEST_NS) | (times > LATEST_NS), "impossible time")

    def _without(self, batch: pa.RecordBatch, unusable: NDArray[np.bool_], reason: str) -> pa.RecordBatch:
        if not unusable.any():
            return batch
        self.ignored[f"{self._name}: {reason}"] += int(unusable.sum())
        return batch.filter(~unusable)


def ragged(column: Any) -> tuple[NDArray[np.integer[Any]], NDArray[np.float32]]:
    """Offsets (n + 1,) and flat float32 values of a list column, without copying the values."""
    offsets = column.offsets.to_numpy()
    values = column.values
    if hasattr(values.type, "list_size"):
        values = values.values if values.offset == 0 else values.flatten()
    return offsets, values.to_numpy(zero_copy_only=not values.null_count)


def _schema_faults(file: str, schema: pa.Schema, wanted: dict[str, str]) -> list[str]:
    faults = [f"{file}: column {c!r}: want it once, got it twice" for c in wanted if schema.names.count(c) > 1]
    faults += [f"{file}: missing column {c!r}, want {wanted[c]}" for c in wanted if c not in schema.names]
    for field in schema:
        if field.name not in wanted:
            faults.append(f"{file}: unknown column {field.name!r}; want {', '.join(wanted)}")
        elif not _has_type(field.type, wanted[field.name]):
            faults.append(f"{file}: column {field.name!r}: want {wanted[field.name]}, got {field.type}")
    return faults


def _has_type(dtype: pa.DataType, wanted: str) -> bool:
    """Whether a column's type is what the contract wants; large lists and dictionaries of strings pass too."""
    import pyarrow.types as pt

    if wanted == "int64":
        return bool(pt.is_int64(dtype))
    if wanted == "string":
        flat = dtype.value_type if pt.is_dictionary(dtype) else dtype
        return bool(pt.is_string(flat) or pt.is_large_string(flat))
    if not (pt.is_list(dtype) or pt.is_large_list(dtype)):
        return False
    if wanted == "list<float32>":
        return bool(pt.is_float32(dtype.value_type))
    width = int(wanted.rsplit("[", 1)[1].rstrip("]>"))
    inner = dtype.value_type
    same = pt.is_fixed_size_list(inner) and inner.list_size == width and pt.is_float32(inner.value_type)
    return bool(same)


def _rows_with_null(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """(n_rows,): whether a row holds a null at any depth."""
    found = np.zeros(batch.num_rows, np.bool_)
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
