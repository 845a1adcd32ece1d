"""Age limits of what a store's folder keeps besides its books, and how what is past them is removed.

Only files that this program writes are touched, each in its own place, and of them only what is understood: a line or a
file that is not is kept. Books and vault are not files of this kind; `fusion.gates.forgetting` unlinks what is in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fusion.errors import EntryError
from fusion.files.growing import GrowingLines, change_lines, dropping
from fusion.gates.erasing import rewrite_tracks, tracks_files
from fusion.money.ledger import Ledger
from fusion.money.moments import FILE as MOMENTS
from fusion.money.moments import drop_moments
from fusion.store.values import StrictModel

EVIDENCE, RECEIPTS = "evidence.jsonl", "receipts"
# A store's results by file: the key of a line's time.
RESULT_TIMES = {"receipts.jsonl": "exit", "early.jsonl": "exit", "events.jsonl": "time"}
RECORDED_LINES, RECORDED_STREAMS = ("gate.jsonl", "items.jsonl"), ("detections", "weights")
_RECEIPT = re.compile(r"[0-9a-f]{32}\.json")

Days = Annotated[int, Field(ge=1, le=36_500)]


class RetentionSettings(StrictModel):
    """`[retention]` of till.toml: after how many days each is removed; None: it is kept until a person deletes it.

    Attributes:
        evidence_days: evidence for reviewers, after the visit's exit, once the visit is decided.
        results_days: receipts.jsonl, events.jsonl, early.jsonl and tracks of `fusion run`.
        recordings_days: recordings below the store's folder.
        receipts_days: files of receipts, and when and where their goods were taken; the books keep what the law asks
            for, whatever stands here.
    """

    evidence_days: Days | None = None
    results_days: Days | None = None
    recordings_days: Days | None = None
    receipts_days: Days | None = None


@dataclass(frozen=True)
class Kept:
    """A store's folder, as far as it matters to what is past its time.

    Attributes:
        folder: of the store's process.
        books: where it stands which visits are decided.
        evidence: the evidence that a running store adds to.
        in_use: a store runs in the folder, so that results and the newest part of a recording are left alone.
        dry_run: write nothing.
    """

    folder: Path
    books: Ledger
    evidence: GrowingLines | None = None
    in_use: bool = False
    dry_run: bool = False

    def is_decided(self, visit: Any) -> bool:
        """Whether the books hold a visit that is neither open nor in review."""
        if not isinstance(visit, str):
            return False
        try:
            standing = self.books.standing(visit)
        except EntryError:
            return False
        return standing is not None and standing.is_final

    def drop_lines(self, path: Path, unwanted: Callable[[bytes], bool]) -> dict[str, int]:
        """Drop lines of a file; by the file's name in the folder, how many."""
        return self.found(path, change_lines(path, dropping(unwanted), dry_run=self.dry_run))

    def unlink(self, path: Path) -> dict[str, int]:
        """Delete a file."""
        if not self.dry_run:
            path.unlink(missing_ok=True)
        return self.found(path, 1)

    def found(self, path: Path, n: int) -> dict[str, int]:
        """How many parts of a file are past their time, by its name in the folder."""
        return {path.relative_to(self.folder).as_posix(): n} if n else {}


def drop_evidence(kept: Kept, before_ns: int) -> dict[str, int]:
    """Drop bundles of visits that ended before a time and are decided."""

    def unwanted(line: bytes) -> bool:
        row = _row(line)
        return _is_before(row, "exit", before_ns) and kept.is_decided(row.get("visit"))

    path = kept.folder / EVIDENCE
    if kept.evidence is not None:
        return kept.found(path, kept.evidence.change(dropping(unwanted), dry_run=kept.dry_run))
    return {} if kept.in_use else kept.drop_lines(path, unwanted)


def drop_results(kept: Kept, before_ns: int) -> dict[str, int]:
    """Drop lines and rows of tracks from before a time; lines of a visit that is not decided are kept."""
    found: dict[str, int] = {}
    for path in tracks_files(kept.folder, below=False):
        if not (kept.in_use and path.stem == "tracks"):
            found |= kept.found(path, _drop_from_tracks(path, before_ns, kept.dry_run))
    if kept.in_use:
        return found
    for name, key in RESULT_TIMES.items():

        def unwanted(line: bytes, key: str = key) -> bool:
            row = _row(line)
            return _is_before(row, key, before_ns) and ("visit" not in row or kept.is_decided(row["visit"]))

        found |= kept.drop_lines(kept.folder / name, unwanted)
    return found


def drop_recordings(kept: Kept, before_ns: int) -> dict[str, int]:
    """Drop what recordings below the folder hold from before a time; their copy of the store's settings stays."""
    found: dict[str, int] = {}
    for place, folders, _ in os.walk(kept.folder):
        folder = Path(place)
        if "store" not in folders or not (folder / "store" / "store.toml").is_file() or folder == kept.folder:
            continue
        for name in RECORDED_STREAMS:
            for path in _old_segments(folder, name, before_ns, kept.in_use):
                found |= kept.unlink(path)
        for name in () if kept.in_use else RECORDED_LINES:
            found |= kept.drop_lines(folder / name, lambda line: _is_before(_row(line), "time", before_ns))
    return found


def drop_receipts(kept: Kept, before_ns: int) -> dict[str, int]:
    """Delete the files of receipts that were issued before a time; they can be made again from the books."""
    n, folder = 0, kept.folder / RECEIPTS
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if not _RECEIPT.fullmatch(path.name) or not path.is_file():
            continue
        row = _row(path.read_bytes())
        name = hashlib.sha256(str(row.get("receipt")).encode()).hexdigest()[:32]
        if name == path.stem and _is_before(row, "time", before_ns):
            n += 1
            # The file that names the time comes last: after a kill the others are found again.
            for each in (path.with_suffix(".html"), path.with_suffix(".txt"), path):
                kept.unlink(each)
    return kept.found(folder, n)


def drop_visit_moments(kept: Kept, before_ns: int) -> dict[str, int]:
    """Remove when and where goods were taken before a time; the books keep what each visit cost."""
    return kept.found(kept.folder / MOMENTS, drop_moments(kept.folder, before_ns, dry_run=kept.dry_run))


def _row(line: bytes) -> dict[str, Any]:
    """A line's object; empty where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _is_before(row: dict[str, Any], key: str, before_ns: int) -> bool:
    t_ns = row.get(key)
    return type(t_ns) is int and t_ns < before_ns


def _old_segments(folder: Path, stream: str, before_ns: int, in_use: bool) -> Iterator[Path]:
    """Files of a recorded stream whose newest row is older than a time; a torn one goes with a later one."""
    segments = sorted(path for path in (folder / stream).glob("*.parquet") if path.stem.isdecimal())
    if in_use:
        segments = segments[:-1]
    elif (folder / f"{stream}.parquet").is_file():
        segments.append(folder / f"{stream}.parquet")
    torn: list[Path] = []
    for path in segments:
        newest_ns = None if path.is_symlink() else _newest_ns(path)
        if newest_ns is None:
            torn.append(path)
        elif newest_ns < before_ns:
            yield from (*torn, path)
            torn = []
        else:
            return


def _newest_ns(path: Path) -> int | None:
    """The newest time of a Parquet file's rows; None where it cannot be read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        newest = pc.max(pq.read_table(path, columns=["time"])["time"]).as_py()
    except (OSError, pa.ArrowException, KeyError):
        return None
    return newest if isinstance(newest, int) else None


def _drop_from_tracks(path: Path, before_ns: int, dry_run: bool) -> int:
    """Drop rows of a file of tracks that are older than a time. Returns their number; 0 where it is torn."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not dry_run:
        path.with_name(path.name + ".new").unlink(missing_ok=True)  # Left by a kill.
    try:
        times = pq.read_table(path, columns=["time"])["time"]
    except (OSError, pa.ArrowException, KeyError):
        return 0
    if times.type != pa.int64():
        return 0
    n = pc.sum(pc.less(times, before_ns)).as_py() or 0
    if n and not dry_run:
        if n == len(times):
            path.unlink()
        else:
            rewrite_tracks(path, lambda table: table.filter(pc.greater_equal(table["time"], before_ns)))
    return int(n)
