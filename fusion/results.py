"""What the engine answers: typed results, and the files in which a replay keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.store.models import Store

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 8192


@dataclass(frozen=True, slots=True)
class People:
    """Where everybody is at one instant; arrays share their first axis, one row a person, and are read-only.

    Attributes:
        t_ns: the instant.
        track_id: (n,) int64; never used again for somebody else.
        confirmed: (n,) bool; False while the track is tentative.
        position_m: (n, 2) float64 place on the floor, world frame.
        position_sd_m: (n,) float64 standard deviation of the place along its worst direction.
        joints_m: (n, K, 3) float64 world frame, in the order of the store's layout; NaN where unknown.
        joints_sd_m: (n, K) float64 standard deviation, root mean square over the three directions; NaN where unknown.
        seen_ns: (n,) int64 last instant at which any camera saw the person.
        identity: (n,) float64 probability that the track still follows the person whom it began with.
    """

    t_ns: int
    track_id: np.ndarray
    confirmed: np.ndarray
    position_m: np.ndarray
    position_sd_m: np.ndarray
    joints_m: np.ndarray
    joints_sd_m: np.ndarray
    seen_ns: np.ndarray
    identity: np.ndarray


@dataclass(frozen=True, slots=True)
class PersonEntered:
    """Somebody came in. `account` is None for a person without a credential; staff have no visit."""

    t_ns: int
    track_id: int
    gate: str | None
    account: str | None
    visit: str | None
    staff: bool = False


@dataclass(frozen=True, slots=True)
class PersonLeft:
    """Somebody went out through a gate."""

    t_ns: int
    track_id: int
    gate: str | None
    account: str | None
    visit: str | None


@dataclass(frozen=True, slots=True)
class Picked:
    """Goods left a shelf with somebody, as it looks now; a later result may correct it."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None
    visit: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class PutBack:
    """Goods came onto a shelf from somebody, as it looks now."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None
    visit: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One explanation of a shelf event: who, what, how many (negative: taken), and its probability."""

    account: str | None
    gtin: str
    quantity: int
    probability: float
    visit: str | None = None


@dataclass(frozen=True, slots=True)
class ShelfEventExplained:
    """A shelf event with its final evidence; probabilities sum to at most 1, the rest means that nothing was moved."""

    t_ns: int
    plate: str
    delta_g: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    gtin: str
    quantity: int
    unit_price: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Taken:
    """Pieces on a receipt that were taken at one instant."""

    t_ns: int
    gtin: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished visit costs. Amounts in minor units of `currency`.

    Attributes:
        enter_ns: first entry of the visit's people; None where nobody saw them come in.
        exit_ns: their last exit.
        issued_ns: data time at which the receipt was final.
        status: "settled", or "review" with a reason: a person has to look before money moves.
        taken: when the pieces on the lines were taken, oldest first; they may have had other prices then.
    """

    visit: str
    account: str | None
    enter_ns: int | None
    exit_ns: int
    issued_ns: int
    status: str
    reason: str | None
    currency: str
    total: int
    lines: tuple[ReceiptLine, ...]
    taken: tuple[Taken, ...] = ()


@dataclass(frozen=True, slots=True)
class PlateTrace:
    """What one plate weighed about an event, at a constant rate. Absolute grams drift; differences count.

    Attributes:
        delta_g: the plate's part of the change.
        start_ns: time of the first sample.
        grams: samples at `rate_hz`; empty where the plate had none left of that time.
    """

    plate: str
    delta_g: float
    start_ns: int
    rate_hz: float
    grams: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WristPath:
    """Where somebody's wrists were about an event: metres, None where a wrist was not known."""

    track_id: int
    account: str | None
    visit: str | None
    t_ns: tuple[int, ...]
    left_m: tuple[tuple[float, float, float] | None, ...]
    right_m: tuple[tuple[float, float, float] | None, ...]


@dataclass(frozen=True, slots=True)
class EventEvidence:
    """A shelf event as a reviewer needs it.

    Attributes:
        onset_ns, contact_ns, settled_ns: when the plates began to move, the load left or met them, they were at rest.
        plate: the one that bears most.
        traces: a few seconds of every plate that took part, left to right.
        wrists: of everybody who may have acted.
        alternatives: who, what, how many, most probable first.
        nothing: probability that no goods were moved.
    """

    event_id: int
    onset_ns: int
    contact_ns: int
    settled_ns: int
    plate: str
    traces: tuple[PlateTrace, ...]
    wrists: tuple[WristPath, ...]
    alternatives: tuple[Candidate, ...]
    nothing: float


@dataclass(frozen=True, slots=True)
class SightingEvidence:
    """What readers and cameras at a zone told of a product while a visit's people were there."""

    t_ns: int
    source: str
    kind: str
    zone: str
    gtin: str
    quantity: int
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a receipt rests on, for a person to decide from. Comes right after a receipt that goes to review.

    Attributes:
        t_ns: the visit's last exit.
        reasons: why the receipt is in review, in words; empty where it is settled.
        lines: as on the receipt.
        events: those that may concern the visit, in order of time.
        n_left_out: further such events: more than one bundle holds, or older than what is kept.
    """

    t_ns: int
    visit: str
    account: str | None
    status: str
    reasons: tuple[str, ...]
    lines: tuple[ReceiptLine, ...]
    events: tuple[EventEvidence, ...]
    sightings: tuple[SightingEvidence, ...]
    n_left_out: int


@dataclass(frozen=True, slots=True)
class ShelfCount:
    """Pieces of a product on a plate as believed now.

    Attributes:
        pieces: at least 0.
        overdrawn: pieces that left beyond those known to lie there; `pieces - overdrawn` is what the books say.
        planned: whether the product belongs there.
        status: "ok"; "empty" where it belongs and none is left; "misplaced" where it does not belong and lies;
            "overdrawn" where the count must be wrong.
        confidence: probability that the count is right, given that the planogram's counts were.
    """

    plate: str
    gtin: str
    pieces: int
    overdrawn: int
    planned: bool
    status: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Warning:
    """Something is wrong with a sensor or a visit. `subject` names the camera, plate, gate or visit."""

    t_ns: int
    kind: str
    subject: str
    message: str


Result = People | PersonEntered | PersonLeft | Picked | PutBack | ShelfEventExplained | Receipt | Evidence | Warning


@dataclass
class RunSummary:
    """Figures of a replay, as in run.json. Reading and writing files is not counted in `step_us`."""

    version: str
    store: str
    frames: int = 0
    messages: int = 0
    wall_s: float = 0.0
    engine_cpu_s: float = 0.0
    step_us: dict[str, float] = field(default_factory=lambda: {"p50": 0.0, "p99": 0.0, "max": 0.0})
    ignored: dict[str, int] = field(default_factory=dict)


class ResultsWriter:
    """Writes receipts.jsonl, events.jsonl, tracks.parquet and run.json of the file contract; beside them evidence.jsonl
    and, where counts are given at the end, shelves.jsonl."""

    def __init__(self, folder: str | Path, store: Store) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
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
        self._tracks = pq.ParquetWriter(
            self.folder / "tracks.parquet", self._schema, compression="zstd", write_page_checksum=True
        )
        self._receipts = open(self.folder / "receipts.jsonl", "w", encoding="utf-8")  # noqa: SIM115 closed by close()
        self._events = open(self.folder / "events.jsonl", "w", encoding="utf-8")  # noqa: SIM115
        self._evidence = open(self.folder / "evidence.jsonl", "w", encoding="utf-8")  # noqa: SIM115
        self._pending: list[tuple[People, list[str | None]]] = []
        self._n_pending = 0

    def write(self, result: Result, account_of: Callable[[int], str | None]) -> None:
        """Keep a result. account_of: the account of a track as known now; asked for People only."""
        match result:
            case People():
                if len(result.track_id):
                    self._pending.append((result, [account_of(track) for track in result.track_id.tolist()]))
                    self._n_pending += len(result.track_id)
                    if self._n_pending >= ROWS_PER_GROUP:
                        self._flush()
            case Receipt():
                self._receipts.write(_json(_receipt_row(result)))
            case ShelfEventExplained():
                self._events.write(_json(_event_row(result)))
            case Evidence():
                # At once: somebody may be waiting to decide.
                self._evidence.write(_json(evidence_row(result)))
                self._evidence.flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        people = [one for one, _ in self._pending]
        joints = [np.concatenate([one.joints_m, one.joints_sd_m[:, :, None]], axis=2) for one in people]
        flat = np.concatenate(joints).astype(np.float32).reshape(-1)
        positions = np.concatenate([one.position_m for one in people])
        columns: list[pa.Array] = [
            pa.array(np.repeat([one.t_ns for one in people], [len(one.track_id) for one in people])),
            pa.array(np.concatenate([one.track_id for one in people])),
            pa.array([account for _, accounts in self._pending for account in accounts], pa.string()),
            pa.array(np.concatenate([one.confirmed for one in people])),
            pa.array(np.ascontiguousarray(positions[:, 0])),
            pa.array(np.ascontiguousarray(positions[:, 1])),
            pa.FixedSizeListArray.from_arrays(pa.array(flat), 4 * self._n_joints),
        ]
        self._tracks.write_batch(pa.record_batch(columns, schema=self._schema))
        self._pending.clear()
        self._n_pending = 0

    def close(self, summary: RunSummary, shelves: Iterable[ShelfCount] | None = None, fault: str | None = None) -> None:
        """Write what is held back, and run.json. fault: why the run ended before its source did; a key of run.json
        only where there is one."""
        self._flush()
        for file in (self._tracks, self._receipts, self._events, self._evidence):
            file.close()
        if shelves is not None:
            text = "".join(_json(_shelf_row(count)) for count in shelves)
            (self.folder / "shelves.jsonl").write_text(text, encoding="utf-8")
        run = vars(summary) if fault is None else {**vars(summary), "fault": fault}
        (self.folder / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _receipt_row(receipt: Receipt) -> dict[str, Any]:
    return {
        "visit": receipt.visit,
        "account": receipt.account,
        "enter": receipt.enter_ns,
        "exit": receipt.exit_ns,
        "issued": receipt.issued_ns,
        "status": receipt.status,
        "reason": receipt.reason,
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
    }


def _event_row(event: ShelfEventExplained) -> dict[str, Any]:
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
        "reasons": list(evidence.reasons),
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
    }


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
