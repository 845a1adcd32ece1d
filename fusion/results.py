"""What the engine answers: typed results, and the enumerations that they use. `str` of a result is one line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import bounded_text, cut_text

# Longest name (of a sensor, a visit, an account; in the books as well), and longest text of another program in a reason
# or a warning, characters. Names may come with the data, from a sensor that no configuration has.
NAME_MAX = 255
DETAIL_MAX = 1000


class ReceiptStatus(StrEnum):
    """Whether money may move for a receipt, or a person has to look first."""

    SETTLED = "settled"
    REVIEW = "review"


class ShelfStatus(StrEnum):
    """State of one product on one plate."""

    OK = "ok"
    EMPTY = "empty"  # belongs there, none is left
    MISPLACED = "misplaced"  # lies where it does not belong
    OVERDRAWN = "overdrawn"  # more left than was known to lie there, so the count is wrong


class ReasonKind(StrEnum):
    """Why a receipt goes to review. In brackets: the fields of `Reason` that apply."""

    # About the visit.
    NO_CREDENTIAL = "no_credential"
    SCANNED_PERSON_LOST = "scanned_person_lost"  # lost from sight at the gate, another may have come in (gate)
    UNSCANNED_BESIDE = "unscanned_beside"  # a person without a credential stood at the gate during the scan (gate)
    SCAN_UNCERTAIN = "scan_uncertain"  # the scan may be another newcomer's (gate, probability)
    SCANS_SHIFTED = "scans_shifted"  # scans and the people who came in do not match in time (gate)
    SCAN_UNBOUND = "scan_unbound"  # no person could be bound to the account's scan (gate)
    LOST_AMONG_OTHERS = "lost_among_others"
    LOST_INSIDE = "lost_inside"
    DOOR_SHARED = "door_shared"  # another credential was shown at a cabinet before its door was closed again (gate)
    DOOR_UNSURE = "door_unsure"  # when a cabinet's door was closed was not reported (gate)
    DOOR_LEFT_OPEN = "door_left_open"  # others may have reached into a cabinet (gate)
    CAMERAS_SILENT = "cameras_silent"  # no camera delivered anything (seconds)
    CAMERAS_DISAGREE = "cameras_disagree"  # most of them place people elsewhere than the others
    # About its goods.
    PERSON_UNCERTAIN = "person_uncertain"  # who moved this load (plate, delta_g, probability)
    GOODS_UNCERTAIN = "goods_uncertain"  # what this load was (plate, delta_g, probability)
    EVENT_UNCERTAIN = "event_uncertain"  # either (plate, delta_g, probability)
    CART_UNCERTAIN = "cart_uncertain"  # the cart as a whole is below the limit (probability)
    RETURNED_MORE_THAN_TAKEN = "returned_more_than_taken"  # (gtin, quantity)
    PLATE_NOT_REPORTING = "plate_not_reporting"  # a hand was in the space above it (plate)
    PLATE_UNFIT = "plate_unfit"  # a hand was above it, and its readings have a wrong unit, rate, factor or time (plate)
    PLATE_UNSETTLED = "plate_unsettled"  # a hand was above it, and it has not come to rest since (plate)
    PLATE_NOISY = "plate_noisy"  # a hand was above it, and its noise hides goods as light as those there (plate)
    LOAD_ELSEWHERE = "load_elsewhere"  # a hand was above it while a load moved elsewhere, at no hand (plate)
    NO_PLATE_ALIVE = "no_plate_alive"  # no plate reported weights that can be used up to the end of the visit
    LOAD_UNEXPLAINED = "load_unexplained"  # no goods weigh what moved at a hand (plate, delta_g)
    HAND_OVER_AMBIGUOUS = "hand_over_ambiguous"  # another visit put back what one of several had (gtin)
    RETURN_UNCLEAR = "return_unclear"  # later evidence contradicts a put-back that was relied on (gtin)
    SIGHTING_NOT_HELD = "sighting_not_held"  # (source, sighting, quantity, gtin, zone, probability)
    SIGHTING_AMBIGUOUS = "sighting_ambiguous"  # several visits may have handed it over (as above)
    # About time.
    CLOCKS_SET_BACK = "clocks_set_back"  # all sensors' clocks, while the visit was open (seconds)
    TIME_MISSING = "time_missing"  # nothing came, or all clocks were set forward (seconds)
    # About the way from the sensors to the engine.
    DATA_LOST = "data_lost"  # (seconds)
    DATA_DROPPED = "data_dropped"  # under overload (seconds)
    DATA_LOST_AT_END = "data_lost_at_end"  # (seconds)
    DATA_ENDED = "data_ended"
    SCANS_DROPPED = "scans_dropped"
    MESSAGES_DROPPED = "messages_dropped"
    STREAM_NOT_RESUMED = "stream_not_resumed"
    RESTARTED = "restarted"
    STATE_LOST = "state_lost"  # the engine started without its earlier state
    SNAPSHOT_UNUSABLE = "snapshot_unusable"
    LAYOUT_CHANGED = "layout_changed"
    DOUBTS_UNREADABLE = "doubts_unreadable"
    ACCOUNT_CHANGED = "account_changed"  # the visit was another account's before a restart
    NEIGHBOUR_REBILLED = "neighbour_rebilled"
    AGE_UNVERIFIED = "age_unverified"  # goods with a minimum age, of a customer whose age was never verified (gtin)
    PERSON_NEEDED = "person_needed"  # a person enters what the shelf cannot know (gtin, detail: why)
    DOOR_RELEASED = "door_released"  # a paying door was opened by its release, so goods may have left unpaid
    STEP_FAILED = "step_failed"  # a set of frames and messages could not be processed (detail)
    BILL_FAILED = "bill_failed"  # the visit's bill could not be made (detail)
    NOT_BOOKED = "not_booked"  # the books refused the receipt (detail)
    # Stated in words by the program that embeds the engine (detail).
    NOTE = "note"


# Reasons whose doubt is part of a receipt's probability; any other sends the receipt to review whatever that is.
WEIGHED_REASONS = frozenset({
    ReasonKind.PERSON_UNCERTAIN, ReasonKind.GOODS_UNCERTAIN, ReasonKind.EVENT_UNCERTAIN, ReasonKind.CART_UNCERTAIN,
    ReasonKind.RETURNED_MORE_THAN_TAKEN, ReasonKind.PLATE_NOT_REPORTING, ReasonKind.PLATE_UNFIT,
    ReasonKind.PLATE_UNSETTLED, ReasonKind.PLATE_NOISY, ReasonKind.LOAD_ELSEWHERE, ReasonKind.LOAD_UNEXPLAINED,
    ReasonKind.HAND_OVER_AMBIGUOUS, ReasonKind.RETURN_UNCLEAR, ReasonKind.SIGHTING_NOT_HELD,
    ReasonKind.SIGHTING_AMBIGUOUS,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a receipt goes to review. A field is None where it does not apply to the kind.

    `fusion.sentences` puts it into words. Text is cut to NAME_MAX and DETAIL_MAX and holds no control characters.

    Attributes:
        plate, zone, gate, source: names in the store; the source of a sighting.
        gtin, quantity: the product and the number of pieces concerned.
        delta_g: change of load.
        probability: of the most probable explanation.
        sighting: "read" or "seen".
        seconds: length of the gap.
        detail: free text, with NOTE, NOT_BOOKED, STEP_FAILED, BILL_FAILED and PERSON_NEEDED only.
    """

    kind: ReasonKind
    plate: str | None = None
    gtin: str | None = None
    quantity: int | None = None
    delta_g: float | None = None
    probability: float | None = None
    gate: str | None = None
    zone: str | None = None
    source: str | None = None
    sighting: str | None = None
    seconds: float | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        _bound_texts(self)


class WarningKind(StrEnum):
    """What needs attention. In brackets: the fields of `Warning` that apply; its subject is named first."""

    PLATE_RESTARTED = "plate restarted"  # plate: it weighs from another zero, so its load is not known
    # Subject of the next nine: a plate, or a number of plates (count, detail: names of the first).
    PLATE_SILENT = "plate silent"  # heard before (seconds)
    PLATE_STUCK = "plate stuck"  # (seconds)
    PLATE_OUT_OF_RANGE = "plate out of range"  # by more than its capacity (seconds)
    PLATE_NOISY = "plate noisy"  # (limit_g)
    PLATE_RECOVERED = "plate recovered"
    PLATE_UNIT = "plate unit"  # not in grams
    PLATE_RATE = "plate rate"  # (rate_hz)
    PLATE_LAGS = "plate out of step with hands"  # (seconds, by which its loads are dated too early)
    PLATE_FIT_AGAIN = "plate fit again"
    PLATE_FACTOR = "plate factor"  # plate, or "all plates" (factor)
    PLATE_EXCHANGED = "plate exchanged"  # plate (detail: the other)
    CAMERA_OUTAGE = "camera outage"  # camera (seconds)
    CAMERA_BACK = "camera back"  # camera
    CAMERA_STILL = "camera still"  # camera (seconds)
    CAMERA_MOVED = "camera moved"  # camera (off_m)
    CAMERA_FITS_AGAIN = "camera fits again"  # camera
    CAMERA_RECALIBRATED = "camera recalibrated"  # camera
    CAMERA_CORRECTED = "camera corrected"  # camera (off_m before, detail: by how much, how well it fits now)
    CAMERA_NOT_CORRECTED = "camera not corrected"  # camera (detail: why)
    CAMERA_MISSES_PEOPLE = "camera misses people"  # camera (share, usual_share)
    CAMERA_FINDS_PEOPLE = "camera finds people again"  # camera (share)
    SENSOR_AHEAD = "sensor ahead"  # camera or plate, the first of several (seconds, count)
    SENSOR_BEHIND = "sensor behind"  # camera or plate, the first of several (seconds, count)
    SENSOR_IN_TIME = "sensor in time"  # camera or plate
    MESSAGE_OUT_OF_TIME = "message out of time"  # camera, plate, gate or source (seconds, total)
    CLOCKS_SET_BACK = "clocks set back"  # store (seconds)
    TIME_MISSING = "time missing"  # store (seconds)
    NEVER_HEARD = "never heard"  # camera or plate
    SENSORS_NEVER_HEARD = "sensors never heard"  # "cameras" or "plates" (count, detail: the first of them)
    SENSORS_SILENT = "sensors silent"  # "cameras" or "plates", all of them, while others send (seconds)
    SENSORS_BACK = "sensors back"  # "cameras" or "plates"
    UNKNOWN_CAMERA = "unknown camera"  # camera
    UNKNOWN_PLATE = "unknown plate"  # plate
    UNKNOWN_SENSORS = "unknown sensors"  # "cameras" or "plates" (count, detail: the first of them)
    KEYPOINTS_FRACTIONS = "keypoints are fractions"  # camera
    KEYPOINTS_BEYOND = "keypoints beyond the picture"  # camera
    KEYPOINTS_IN_CORNER = "keypoints in a corner"  # camera
    KEYPOINTS_OTHER_SIZE = "keypoints of another size"  # camera, or "cameras" (count, detail: width x height)
    MACHINE_TIME_DIFFERS = "machine time differs"  # store (seconds)
    MACHINE_TIME_AGREES = "machine time agrees"  # store
    STEP_FAILED = "step failed"  # store (detail)
    BILL_FAILED = "bill failed"  # visit (detail)
    UNKNOWN_GATE = "unknown gate"  # gate
    CREDENTIAL_REFUSED = "credential refused"  # gate (credential)
    SCAN_UNBOUND = "scan unbound"  # gate (count of people who came in without a credential)
    NO_CREDENTIAL = "no credential"  # visit (gate, None where the person was not seen coming in)
    DOOR_LEFT_OPEN = "door left open"  # gate of a cabinet (seconds)
    LOAD_BEHIND_DOOR = "load behind a closed door"  # gate of a cabinet
    PERSON_LOST = "lost"  # visit
    RECEIPT_CORRECTED = "receipt corrected"  # visit: its receipt differs from the early one
    RECEIPT_WITHDRAWN = "receipt withdrawn"  # visit: it has an early receipt, and has not ended after all
    OVERLOAD = "overload"  # stream (count, total)
    OVERLOAD_OVER = "overload over"  # stream, "all" where none dropped more (count, total)
    REFUSED = "refused"  # stream (count, detail)
    DOOR_RELEASED = "door released"  # gate
    GUESSES = "credentials guessed"  # gate (credential, total)
    CREDENTIALS_UNREADABLE = "credentials unreadable"  # file (detail)
    BROKER_LOST = "broker lost"  # host (detail)
    BROKER_BACK = "broker back"  # host
    PUBLISHER_LOST = "publisher lost"  # publisher
    PUBLISHER_BACK = "publisher back"  # publisher
    PUBLISHER_STOPPED = "publisher stopped"  # publisher
    PUBLISHER_SILENT = "publisher silent"  # publisher (seconds)
    PUBLISHER_DROPPED = "publisher dropped messages"  # publisher (total)
    MESSAGES_MISSING = "messages missing"  # topic (total)
    MESSAGES_DROPPED = "messages dropped"  # kind of message (total)
    MESSAGE_REFUSED = "message refused"  # topic (total, detail)
    AGE_RESTRICTED = "age restricted"  # visit of a customer whose age was never verified (detail: the product)
    DOOR_KEPT_CLOSED = "door kept closed"  # gate of a door that opens after payment (detail)


@dataclass(frozen=True, slots=True)
class People:
    """Where all people are at one instant. Arrays share their first axis, one row per person, and are read-only.

    Attributes:
        t_ns: the instant.
        track_id: (n,) int64; a number is never used again for another person.
        confirmed: (n,) bool; False while the track is tentative.
        position_m: (n, 2) float64 place on the floor, world frame.
        position_sd_m: (n,) float64 standard deviation of the place along its worst direction.
        joints_m: (n, K, 3) float64 world frame, in the order of the store's layout; NaN where unknown.
        joints_sd_m: (n, K) float64 standard deviation, root mean square over the three directions; NaN where unknown.
        seen_ns: (n,) int64 last instant at which any camera saw the person.
        identity: (n,) float64 probability that the track still follows the person it started with.
        existence: (n,) float64 probability that there is a person, rather than a coat, a mirror image, or detections of
            several people that meet by chance; empty in results that do not state it.
    """

    t_ns: int
    track_id: NDArray[np.int64]
    confirmed: NDArray[np.bool_]
    position_m: NDArray[np.float64]
    position_sd_m: NDArray[np.float64]
    joints_m: NDArray[np.float64]
    joints_sd_m: NDArray[np.float64]
    seen_ns: NDArray[np.int64]
    identity: NDArray[np.float64]
    existence: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __str__(self) -> str:
        return f"{_clock(self.t_ns)} People: {len(self.track_id)}, {int(self.confirmed.sum())} confirmed"


@dataclass(frozen=True, slots=True)
class PersonEntered:
    """A person came in. `account` is None for a person without a credential; staff have no visit."""

    t_ns: int
    track_id: int
    gate: str | None
    account: str | None
    visit: str | None
    staff: bool = False

    def __str__(self) -> str:
        owner = "staff" if self.staff else _owner(self.account, self.visit)
        return f"{_clock(self.t_ns)} PersonEntered: track {self.track_id} at {self.gate or 'no gate'}, {owner}"


@dataclass(frozen=True, slots=True)
class PersonLeft:
    """A person went out through a gate; `gate` is None for a person who was lost from sight."""

    t_ns: int
    track_id: int
    gate: str | None
    account: str | None
    visit: str | None

    def __str__(self) -> str:
        owner = _owner(self.account, self.visit)
        return f"{_clock(self.t_ns)} PersonLeft: track {self.track_id} at {self.gate or 'no gate'}, {owner}"


@dataclass(frozen=True, slots=True)
class Picked:
    """Goods left a shelf with a person, as it looks now; a later result may correct it."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None
    visit: str | None
    probability: float

    def __str__(self) -> str:
        return _moved("Picked", self)


@dataclass(frozen=True, slots=True)
class PutBack:
    """A person put goods on a shelf, as it looks now; a later result may correct it."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None
    visit: str | None
    probability: float

    def __str__(self) -> str:
        return _moved("PutBack", self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible cause of a shelf event: who, what, how many (negative: taken), and its probability."""

    account: str | None
    gtin: str
    quantity: int
    probability: float
    visit: str | None = None


@dataclass(frozen=True, slots=True)
class ShelfEventExplained:
    """A shelf event that is final. Probabilities sum to at most 1; the remainder means that nothing was moved."""

    t_ns: int
    plate: str
    delta_g: float
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        best = "nothing moved"
        if self.candidates:
            first = self.candidates[0]
            owner = _owner(first.account, first.visit)
            best = f"{first.quantity:+d} x {first.gtin}, {owner}, probability {first.probability:.2f}"
        return f"{_clock(self.t_ns)} ShelfEventExplained: {self.plate} {self.delta_g:+.0f} g, {best}"


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One product on a receipt: pieces, price of one in minor units, probability that the quantity is right."""

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
class PieceLabel:
    """What the label of one piece states, as a reader read it; None for what it does not state.

    Attributes:
        gtin: the product.
        price: of this piece, minor units.
        weight_g: net weight of this piece.
    """

    gtin: str
    price: int | None
    weight_g: float | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished visit costs. Amounts in minor units of `currency`.

    Attributes:
        visit, account: the visit and its account; None without a credential.
        enter_ns: first entry of the visit's people; None where it was not seen.
        exit_ns: their last exit.
        issued_ns: data time at which the receipt was final.
        status: settled, or review: a person has to look before money moves.
        reasons: why it goes to review, worst first; empty where it is settled.
        taken: when the pieces on the lines were taken, oldest first; prices may have been different then.
        probability: that the lines are exactly what the visit took, before reasons outside `WEIGHED_REASONS`; 1 where a
            person decided, None where the engine did not weigh it.
        labels: of pieces on the lines, where readers read what they weigh or cost.
    """

    visit: str
    account: str | None
    enter_ns: int | None
    exit_ns: int
    issued_ns: int
    status: ReceiptStatus
    reasons: tuple[Reason, ...]
    currency: str
    total: int
    lines: tuple[ReceiptLine, ...]
    taken: tuple[Taken, ...] = ()
    probability: float | None = None
    labels: tuple[PieceLabel, ...] = ()

    @property
    def is_only_unlikely(self) -> bool:
        """Whether nothing but its probability keeps the receipt from being settled, or nothing does."""
        return self.probability is not None and all(reason.kind in WEIGHED_REASONS for reason in self.reasons)

    def __str__(self) -> str:
        lines = ", ".join(f"{line.quantity} x {line.gtin}" for line in self.lines) or "nothing"
        reasons = "".join(f", {kind}" for kind in dict.fromkeys(reason.kind for reason in self.reasons))
        total = f"{self.total} minor units of {self.currency}"
        owner = _owner(self.account, self.visit)
        return f"{_clock(self.issued_ns)} Receipt: {owner}, {lines}, {total}, {self.status}{reasons}"


class Outstanding(StrEnum):
    """What may still change an early receipt."""

    LOADS = "loads"  # a load near one of its people that is not weighed yet, or a plate that is silent
    MESSAGES = "messages"  # a sensor that lags, or messages of which many come late


@dataclass(frozen=True, slots=True)
class EarlyReceipt:
    """The receipt of a visit as it looks within a second of the last exit; the final `Receipt` follows.

    It is there to be shown. Nothing is booked, charged or shipped by it, since messages may come for two more seconds.
    Where the final receipt differs, a warning of kind RECEIPT_CORRECTED comes before it; where there is none after all,
    one of kind RECEIPT_WITHDRAWN.

    Attributes:
        receipt: as it looks; `issued_ns` is the newest data time that was known, and `taken` is empty.
        correction_probability: that account, status or goods of the final receipt differ.
        outstanding: what may still change it, besides what always may.
    """

    receipt: Receipt
    correction_probability: float
    outstanding: tuple[Outstanding, ...] = ()

    @property
    def t_ns(self) -> int:
        """When it was issued."""
        return self.receipt.issued_ns

    @property
    def visit(self) -> str:
        """Id of the visit."""
        return self.receipt.visit

    @property
    def account(self) -> str | None:
        """Account of the visit."""
        return self.receipt.account

    def __str__(self) -> str:
        text = str(self.receipt).replace(" Receipt: ", " EarlyReceipt: ", 1)
        return f"{text}, corrected with probability {self.correction_probability:.2g}"


@dataclass(frozen=True, slots=True)
class PlateTrace:
    """What one plate weighed around an event, at a constant rate. Absolute grams drift; differences count.

    Attributes:
        delta_g: the plate's part of the change.
        start_ns: time of the first sample.
        grams: samples at `rate_hz`; empty where the plate's samples of that time were no longer kept.
    """

    plate: str
    delta_g: float
    start_ns: int
    rate_hz: float
    grams: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WristPath:
    """Where a person's wrists were around an event: metres, None where a wrist was not known."""

    track_id: int
    account: str | None
    visit: str | None
    t_ns: tuple[int, ...]
    left_m: tuple[tuple[float, float, float] | None, ...]
    right_m: tuple[tuple[float, float, float] | None, ...]


@dataclass(frozen=True, slots=True)
class PieceWeight:
    """What one piece of a product weighs as the store has learnt it, and its standard deviation, grams."""

    gtin: str
    weight_g: float
    sd_g: float


@dataclass(frozen=True, slots=True)
class EventEvidence:
    """A shelf event as a reviewer needs it.

    Attributes:
        onset_ns: when the plates began to move.
        contact_ns: when the load left or met them.
        settled_ns: when they were at rest.
        plate: the one that bears most of the load.
        traces: a few seconds of every plate that took part, left to right.
        wrists: of everybody who may have acted.
        alternatives: who, what, how many, most probable first.
        nothing: probability that no goods were moved.
        weighed_g, sd_g: change of all plates together, their gains taken out, and its standard deviation.
        pieces: what a piece of each product of the alternatives weighs.
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
    weighed_g: float = 0.0
    sd_g: float = 0.0
    pieces: tuple[PieceWeight, ...] = ()


class QuestionKind(StrEnum):
    """What a question to a reviewer or to the shopper is about."""

    PRODUCT = "product"  # which goods
    QUANTITY = "quantity"  # how many
    PERSON = "person"  # this visit's people, or others
    MOVED = "moved"  # goods, or nothing


@dataclass(frozen=True, slots=True)
class Goods:
    """Pieces of one product."""

    gtin: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """One answer to a question.

    Attributes:
        moved: what the visit's people moved there, negative where taken; empty: nothing.
        probability: of this answer.
        lines: the receipt, if this is the answer.
        receipt_probability: that these lines are then exactly right.
    """

    moved: tuple[Goods, ...]
    probability: float
    lines: tuple[Goods, ...]
    receipt_probability: float


@dataclass(frozen=True, slots=True)
class Question:
    """What a person could be asked about a receipt: "A or B?".

    Attributes:
        kind: what is in doubt.
        plate, t_ns: where and when.
        event_id: of the shelf event; None where a plate showed none.
        alternatives: most probable first; the remainder to 1 is none of them.
        gain_bits: mutual information of answer and receipt.
    """

    kind: QuestionKind
    plate: str
    t_ns: int
    event_id: int | None
    alternatives: tuple[Alternative, ...]
    gain_bits: float


@dataclass(frozen=True, slots=True)
class SightingEvidence:
    """What a reader or a camera at a zone reported about a product while a visit's people were there."""

    t_ns: int
    source: str
    kind: str
    zone: str
    gtin: str
    quantity: int
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a receipt rests on, for a person to decide from. Follows a receipt that goes to review.

    Attributes:
        t_ns: the visit's last exit.
        status, reasons, lines: as on the receipt.
        events: those that may concern the visit, in time order.
        sightings: those while the visit's people were in a zone.
        n_left_out: further such events that one bundle cannot hold, or that are older than what is kept.
        unidentified: visits without a credential whose people may be this visit's.
        questions: whose answers would make the receipt clearer, the most informative first; empty where it is clear.
    """

    t_ns: int
    visit: str
    account: str | None
    status: ReceiptStatus
    reasons: tuple[Reason, ...]
    lines: tuple[ReceiptLine, ...]
    events: tuple[EventEvidence, ...]
    sightings: tuple[SightingEvidence, ...]
    n_left_out: int
    unidentified: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()

    def __str__(self) -> str:
        parts = f"{len(self.events)} events, {len(self.sightings)} sightings"
        return f"{_clock(self.t_ns)} Evidence: {_owner(self.account, self.visit)}, {parts}"


@dataclass(frozen=True, slots=True)
class ShelfCount:
    """Pieces of a product on a plate as believed now.

    Attributes:
        pieces: at least 0.
        overdrawn: pieces that left beyond those known to lie there; `pieces - overdrawn` is what the journal says.
        planned: whether the product belongs there.
        status: see `ShelfStatus`.
        confidence: probability that the count is right, given that the planogram's counts were.
    """

    plate: str
    gtin: str
    pieces: int
    overdrawn: int
    planned: bool
    status: ShelfStatus
    confidence: float

    def __str__(self) -> str:
        count = self.pieces - self.overdrawn
        return f"ShelfCount: {self.plate}, {count} x {self.gtin}, {self.status}, confidence {self.confidence:.2f}"


class CorrectionStatus(StrEnum):
    """What became of a camera that does not hang where its calibration has it."""

    CORRECTED = "corrected"  # its new pose was proved, and is used
    REFUSED = "refused"  # it stays out of use, see `reason`
    TAKEN_BACK = "taken back"  # by a person: the calibration's pose holds again


@dataclass(frozen=True, slots=True)
class CameraCorrection:
    """A camera's pose was corrected in the running store, or was not.

    Attributes:
        t_ns: data time; noticed_ns: when the camera was found not to fit.
        camera: its name.
        status: what became of it; reason: why it was refused.
        rotation_before, translation_before: as in cameras.toml, radians and metres; of the calibration.
        rotation_after, translation_after: of the pose that was found; None where there was none.
        turn_deg, shift_m: from the calibration's pose; turn_sd_deg, shift_sd_m: standard deviations.
        off_before_m, off_after_m: root mean square disagreement with other cameras about bodies, metres, in evidence
            from which the pose was not found.
        n_people: people placed by other cameras, on which this rests.
    """

    t_ns: int
    camera: str
    status: CorrectionStatus
    noticed_ns: int
    rotation_before: tuple[float, ...]
    translation_before: tuple[float, ...]
    rotation_after: tuple[float, ...] | None = None
    translation_after: tuple[float, ...] | None = None
    turn_deg: float | None = None
    shift_m: float | None = None
    turn_sd_deg: float | None = None
    shift_sd_m: float | None = None
    off_before_m: float | None = None
    off_after_m: float | None = None
    n_people: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Warning:
    """A sensor, a gate, a visit or a stream needs attention. A field is None where it does not apply to the kind.

    `fusion.sentences` puts it into words. Text is cut to NAME_MAX and DETAIL_MAX and holds no control characters.

    Attributes:
        t_ns: data time; 0 before the first data.
        subject: the camera, plate, gate, visit, stream or publisher concerned.
        seconds: for how long.
        count: how many were affected since the last warning of this kind about the subject.
        total: how many since the process started.
        off_m: distance between where a camera is and where it looks from.
        share: part of the people that a camera misses.
        usual_share: part of the people that the other cameras miss.
        limit_g: the standard deviation above which a plate counts as noisy.
        rate_hz: samples a second that come.
        factor: what a plate reads, as a multiple of what lies on it.
        gate: where a person came in.
        credential: type of a credential that was refused.
        detail: what another program reported, verbatim.
    """

    t_ns: int
    kind: WarningKind
    subject: str
    seconds: float | None = None
    count: int | None = None
    total: int | None = None
    off_m: float | None = None
    share: float | None = None
    usual_share: float | None = None
    limit_g: float | None = None
    rate_hz: float | None = None
    factor: float | None = None
    gate: str | None = None
    credential: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        _bound_texts(self)

    def __str__(self) -> str:
        given = ((f.name, getattr(self, f.name)) for f in fields(self)[3:])
        details = "".join(f", {name} {value}" for name, value in given if value is not None)
        return f"{_clock(self.t_ns)} Warning: {self.kind}, {self.subject}{details}"


Result = (
    People | PersonEntered | PersonLeft | Picked | PutBack | ShelfEventExplained | EarlyReceipt | Receipt | Evidence
    | Warning
)  # fmt: skip


@dataclass
class RunSummary:
    """Figures of a run, as in run.json. Reading and writing files is not counted in `step_us`.

    `set_back_s` is by how much the clocks of all sensors were set back in sum, `time_off_s` data time minus the
    machine's when data last came, None for a run that is not live.
    """

    version: str
    store: str
    frames: int = 0
    messages: int = 0
    wall_s: float = 0.0
    engine_cpu_s: float = 0.0
    step_us: dict[str, float] = field(default_factory=lambda: {"p50": 0.0, "p99": 0.0, "max": 0.0})
    ignored: dict[str, int] = field(default_factory=dict)
    set_back_s: float = 0.0
    time_off_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The last thing that a sink gets: the run has ended.

    Attributes:
        summary: its figures.
        shelves: what lies where at the end.
        fault: why it ended before its source did; None where it did not.
    """

    summary: RunSummary
    shelves: tuple[ShelfCount, ...]
    fault: str | None = None


def is_tenfold(count: int) -> bool:
    """Whether a count is 1, 10, 100, ...: what does not end is reported at these."""
    return str(count).strip("0") == "1"


def _bound_texts(stated: Reason | Warning) -> None:
    for name in stated.__dataclass_fields__:
        value = getattr(stated, name)
        if type(value) is not str:
            continue
        if name != "detail":
            bounded = bounded_text(value, NAME_MAX)
        elif isinstance(stated, Warning):
            bounded = bounded_text(value, DETAIL_MAX)
        else:  # A note of the program that embeds the engine, in its own words and lines.
            bounded = cut_text(value, DETAIL_MAX)
        if bounded != value:
            object.__setattr__(stated, name, bounded)


def _clock(t_ns: int) -> str:
    """UTC to the millisecond, rounded down."""
    seconds, rest_ns = divmod(t_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def _owner(account: str | None, visit: str | None) -> str:
    if visit is None:
        return "unidentified"
    return f"visit {visit} of {account}" if account is not None else f"visit {visit} without a credential"


def _moved(name: str, result: Picked | PutBack) -> str:
    owner = _owner(result.account, result.visit)
    goods = f"{result.quantity} x {result.gtin}"
    return f"{_clock(result.t_ns)} {name}: {goods}, {result.plate}, {owner}, probability {result.probability:.2f}"


class LessonKind(StrEnum):
    """What a store has taught its engine."""

    WEIGHT = "weight"  # of one piece of a product, grams
    GAIN = "gain"  # of a plate, grams shown for each gram of load
    HANDS = "hands"  # factor by which the log odds of hands are multiplied
    IDENTITY = "identity"  # factor by which the log odds of an identity are multiplied


class LessonCause(StrEnum):
    """Why a number was changed."""

    LOADS = "loads"  # loads whose goods are certain
    ANSWERS = "answers"  # decisions of reviewers and shoppers
    EXCHANGED = "exchanged"  # another plate, or one that was adjusted: its gain is open again
    TAKEN_BACK = "taken back"  # a decision was reversed
    RESTORED = "restored"  # an earlier version was restored


@dataclass(frozen=True, slots=True)
class Lesson:
    """A version of what a store has taught its engine: one number, before and after.

    Attributes:
        version: number of the change, from 1.
        t_ns: data time of the change.
        kind, subject: what was changed; a GTIN, a plate, or "" for the engine's own factors.
        before, after, sd: the number, and the standard deviation of the new one.
        label: what it is by the store's folder; 1 for gains and factors.
        cause: why.
        n_loads, n_answers, n_customers: loads and decisions that it rests on, and by how many customers.
    """

    version: int
    t_ns: int
    kind: LessonKind
    subject: str
    before: float
    after: float
    sd: float
    label: float
    cause: LessonCause
    n_loads: int
    n_answers: int
    n_customers: int

    def row(self) -> list[int | float | str]:
        """As JSON takes it."""
        return [getattr(self, each.name) for each in fields(self)]

    @classmethod
    def of_row(cls, row: list[Any]) -> Lesson:
        """What `row` returned. Raises ValueError or TypeError."""
        version, t_ns, kind, subject, before, after, sd, label, cause, *counts = row
        numbers = float(before), float(after), float(sd), float(label)
        n_loads, n_answers, n_customers = (int(count) for count in counts)
        about = int(version), int(t_ns), LessonKind(kind), str(subject)
        return cls(*about, *numbers, LessonCause(cause), n_loads, n_answers, n_customers)

    def __str__(self) -> str:
        change = f"{self.before:.4g} -> {self.after:.4g} ± {self.sd:.2g}"
        return f"{_clock(self.t_ns)} Lesson {self.version}: {self.kind} {self.subject} {change}, {self.cause}"
