"""The files in which a run keeps its results, and results as rows of plain JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

import fusion
from fusion.errors import ConfigError
from fusion.files.private import LOCK_FILE, open_private
from fusion.results import (
    Candidate,
    EarlyReceipt,
    Evidence,
    Goods,
    People,
    PieceLabel,
    Question,
    Reason,
    ReasonKind,
    Receipt,
    Result,
    RunEnd,
    ShelfCount,
    ShelfEventExplained,
)
from fusion.sentences import question_text, reason_text, sentences
from fusion.store.models import Store

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 8192
# Names of the files with a run's figures, and with what it was made from.
RUN_FILE, SETUP_FILE = "run.json", "setup.json"


def is_live_folder(folder: Path) -> bool:
    """Whether a live store keeps its state in a folder: its books, evidence and receipts are not another run's."""
    return (folder / LOCK_FILE).exists() or (folder / "snapshot").exists()


def _unused(path: Path) -> Path:
    """A name beside a file that no file has."""
    numbers = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, 10**6))
    return next(name for name in numbers if not name.exists())


class ResultsWriter:
    """Writes receipts.jsonl, events.jsonl, tracks.parquet and run.json of the file contract; a sink of `fusion.run`.

    It also writes setup.json, by which two runs can be compared, evidence.jsonl, early.jsonl where there are early
    receipts and, at the end of the run, shelves.jsonl.
    """

    def __init__(
        self, folder: str | Path, store: Store, account_of: Callable[[int], str | None], *, live: bool = False
    ) -> None:
        """Create the files.

        Args:
            folder: made where needed.
            store: its layout decides the width of tracks.parquet.
            account_of: the account of a track as known now; `Engine.account_of`.
            live: the folder is a running store's. Its lines are added to those of earlier runs, tracks of an earlier
                run are kept under another name, and evidence is left to the store's bookkeeper.

        Raises:
            ConfigError: the folder is a running store's, and the run is another one.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder = Path(folder)
        if not live and is_live_folder(self.folder):
            raise ConfigError(f"{self.folder} is the folder of a live store; pass another one, nothing was changed")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._account_of = account_of
        self._n_joints = store.layout.n_joints
        self._schema = pa.schema(
            [
                ("time", pa.int64()),
                ("track", pa.int64()),
                ("account", pa.string()),
                ("confirmed", pa.bool_()),
                ("x", pa.float64()),
                ("y", pa.float64()),
                ("keypoints", pa.list_(pa.float32(), 4 * self._n_joints)),
            ]
        )
        tracks = self.folder / "tracks.parquet"
        if live and tracks.exists():
            tracks.rename(_unused(tracks))
        self._tracks = pq.ParquetWriter(
            tracks, self._schema, compression="zstd", write_page_checksum=True
        )
        mode = "a" if live else "w"
        self._receipts = open_private(self.folder / "receipts.jsonl", mode)
        self._events = open_private(self.folder / "events.jsonl", mode)
        self._evidence = None if live else open_private(self.folder / "evidence.jsonl", mode)
        # Made with the first early receipt; one of an earlier run does not belong to this one.
        (self.folder / "early.jsonl").unlink(missing_ok=True)
        self._early: TextIO | None = None
        setup = json.dumps(setup_row(store), ensure_ascii=False, indent=1)
        (self.folder / SETUP_FILE).write_text(setup + "\n", encoding="utf-8")
        self._pending: list[_Instant] = []
        self._n_pending = 0

    def add(self, result: Result | RunEnd) -> None:
        """Write a result; people are held back until a block of them is full."""
        match result:
            case People():
                if len(result.track_id):
                    accounts = [self._account_of(track) for track in result.track_id.tolist()]
                    self._pending.append(_Instant(result, accounts))
                    self._n_pending += len(accounts)
                    if self._n_pending >= ROWS_PER_GROUP:
                        self._flush()
            case Receipt():
                # At once: a live store may be killed at any instant.
                self._receipts.write(_json(receipt_row(result)))
                self._receipts.flush()
            case EarlyReceipt():
                self._write_early(result)
            case ShelfEventExplained():
                self._events.write(_json(event_row(result)))
            case Evidence() if self._evidence is not None:
                # At once: a reviewer may be waiting for it.
                self._evidence.write(_json(evidence_row(result)))
                self._evidence.flush()
            case RunEnd():
                self._write_end(result)

    def close(self) -> None:
        """Write what is held back and complete the files."""
        self._flush()
        for file in (self._tracks, self._receipts, self._events, self._evidence, self._early):
            if file is not None:
                file.close()

    def _write_early(self, early: EarlyReceipt) -> None:
        """At once: it is of use for a second or two."""
        if self._early is None:
            self._early = open(self.folder / "early.jsonl", "w", encoding="utf-8")  # noqa: SIM115 closed by close()
        row = receipt_row(early.receipt)
        row["correction_probability"] = round(early.correction_probability, 6)
        row["outstanding"] = list(early.outstanding)
        self._early.write(_json(row))
        self._early.flush()

    def _write_end(self, end: RunEnd) -> None:
        text = "".join(_json(_shelf_row(count)) for count in end.shelves)
        (self.folder / "shelves.jsonl").write_text(text, encoding="utf-8")
        run = vars(end.summary) if end.fault is None else {**vars(end.summary), "fault": end.fault}
        (self.folder / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        people = [instant.people for instant in self._pending]
        joints = [np.concatenate([one.joints_m, one.joints_sd_m[:, :, None]], axis=2) for one in people]
        flat = np.concatenate(joints).astype(np.float32).reshape(-1)
        positions = np.concatenate([one.position_m for one in people])
        columns: list[pa.Array] = [
            pa.array(np.repeat([one.t_ns for one in people], [len(one.track_id) for one in people])),
            pa.array(np.concatenate([one.track_id for one in people])),
            pa.array([account for instant in self._pending for account in instant.accounts], pa.string()),
            pa.array(np.concatenate([one.confirmed for one in people])),
            pa.array(np.ascontiguousarray(positions[:, 0])),
            pa.array(np.ascontiguousarray(positions[:, 1])),
            pa.FixedSizeListArray.from_arrays(pa.array(flat), 4 * self._n_joints),
        ]
        self._tracks.write_batch(pa.record_batch(columns, schema=self._schema))
        self._pending.clear()
        self._n_pending = 0


class _Instant(NamedTuple):
    """People and the accounts of their tracks, as known then."""

    people: People
    accounts: list[str | None]


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def setup_row(store: Store) -> dict[str, Any]:
    """What a run is made from, as plain JSON: version, settings, calibrations, products, and digests of tables."""
    tables = ("plates", "planogram", "prices")
    rest = {"cameras", "products", *tables}
    whole = store.model_dump(mode="json")
    return {
        "version": fusion.__version__,
        "settings": {key: value for key, value in whole.items() if key not in rest},
        "cameras": {camera["name"]: camera for camera in whole["cameras"]},
        "products": {product["gtin"]: product for product in whole["products"]},
        "tables": {name: _digest(whole[name]) for name in tables},
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode()
    return f"{len(value)} rows, {hashlib.sha256(text).hexdigest()[:16]}" if value else "empty"


def reason_row(reason: Reason) -> dict[str, Any]:
    """A reason as plain JSON: its kind, and the fields that apply."""
    row = {name: getattr(reason, name) for name in _REASON_FIELDS}
    if reason.delta_g is not None:
        row["delta_g"] = round(reason.delta_g, 3)
    if reason.probability is not None:
        row["probability"] = round(reason.probability, 6)
    return {name: value for name, value in row.items() if value is not None}


def reason_of(row: dict[str, Any]) -> Reason:
    """The reason that `reason_row` gave. Raises ValueError for anything else."""
    try:
        return Reason(**{**row, "kind": ReasonKind(row["kind"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"want a reason as it was written, got {str(row)[:100]}: {error}") from None


_REASON_FIELDS = tuple(field.name for field in fields(Reason))


def receipt_row(receipt: Receipt) -> dict[str, Any]:
    """A receipt as plain JSON, as in receipts.jsonl."""
    return {
        "visit": receipt.visit,
        "account": receipt.account,
        "enter": receipt.enter_ns,
        "exit": receipt.exit_ns,
        "issued": receipt.issued_ns,
        "status": receipt.status,
        "reason": reason_text(receipt.reasons),
        "reasons": [reason_row(reason) for reason in receipt.reasons],
        "probability": None if receipt.probability is None else round(receipt.probability, 6),
        "currency": receipt.currency,
        "total": receipt.total,
        "lines": [
            {
                "gtin": line.gtin,
                "quantity": line.quantity,
                "unit_price": line.unit_price,
                "confidence": round(line.confidence, 6),
            }
            for line in receipt.lines
        ],
        **({"labels": list(map(_label_row, receipt.labels))} if receipt.labels else {}),
    }


def _label_row(label: PieceLabel) -> dict[str, Any]:
    return {"gtin": label.gtin, "price": label.price, "weight_g": label.weight_g}


def event_row(event: ShelfEventExplained) -> dict[str, Any]:
    """A final shelf event as plain JSON, as in events.jsonl."""
    return {
        "time": event.t_ns,
        "plate": event.plate,
        "delta_g": round(event.delta_g, 3),
        "candidates": [
            {"account": c.account, "gtin": c.gtin, "quantity": c.quantity, "probability": round(c.probability, 6)}
            for c in event.candidates
        ],
    }


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "account": candidate.account,
        "visit": candidate.visit,
        "gtin": candidate.gtin,
        "quantity": candidate.quantity,
        "probability": round(candidate.probability, 6),
    }


def evidence_row(evidence: Evidence) -> dict[str, Any]:
    """A bundle as plain JSON, as in evidence.jsonl."""
    return {
        "visit": evidence.visit,
        "account": evidence.account,
        "exit": evidence.t_ns,
        "status": evidence.status,
        "reasons": sentences(evidence.reasons),
        "reason_codes": [reason_row(reason) for reason in evidence.reasons],
        "lines": [
            {"gtin": line.gtin, "quantity": line.quantity, "confidence": round(line.confidence, 6)}
            for line in evidence.lines
        ],
        "events": [
            {
                "event": event.event_id,
                "onset": event.onset_ns,
                "contact": event.contact_ns,
                "settled": event.settled_ns,
                "plate": event.plate,
                "traces": [
                    {
                        "plate": trace.plate,
                        "delta_g": trace.delta_g,
                        "start": trace.start_ns,
                        "rate_hz": trace.rate_hz,
                        "grams": trace.grams,
                    }
                    for trace in event.traces
                ],
                "wrists": [
                    {
                        "track": path.track_id,
                        "account": path.account,
                        "visit": path.visit,
                        "times": path.t_ns,
                        "left": path.left_m,
                        "right": path.right_m,
                    }
                    for path in event.wrists
                ],
                "alternatives": [_candidate_row(candidate) for candidate in event.alternatives],
                "nothing": round(event.nothing, 6),
                "weighed_g": event.weighed_g,
                "sd_g": event.sd_g,
                "pieces": [
                    {"gtin": piece.gtin, "weight_g": piece.weight_g, "sd_g": piece.sd_g} for piece in event.pieces
                ],
            }
            for event in evidence.events
        ],
        "sightings": [
            {
                "time": seen.t_ns,
                "source": seen.source,
                "kind": seen.kind,
                "zone": seen.zone,
                "gtin": seen.gtin,
                "quantity": seen.quantity,
                "probability": seen.probability,
            }
            for seen in evidence.sightings
        ],
        "left_out": evidence.n_left_out,
        "unidentified": list(evidence.unidentified),
        "questions": [_question_row(question) for question in evidence.questions],
    }


def _question_row(question: Question) -> dict[str, Any]:
    return {
        "kind": question.kind,
        "text": question_text(question),
        "plate": question.plate,
        "time": question.t_ns,
        "event": question.event_id,
        "gain_bits": round(question.gain_bits, 6),
        "alternatives": [
            {
                "moved": _goods_rows(one.moved),
                "probability": round(one.probability, 6),
                "lines": _goods_rows(one.lines),
                "receipt_probability": round(one.receipt_probability, 6),
            }
            for one in question.alternatives
        ],
    }


def _goods_rows(goods: Sequence[Goods]) -> list[dict[str, Any]]:
    return [{"gtin": one.gtin, "quantity": one.quantity} for one in goods]


def _shelf_row(count: ShelfCount) -> dict[str, Any]:
    return {
        "plate": count.plate,
        "gtin": count.gtin,
        "pieces": count.pieces,
        "overdrawn": count.overdrawn,
        "planned": count.planned,
        "status": count.status,
        "confidence": round(count.confidence, 6),
    }
