"""What sensors report: frames of detections, weights, scans and doors of gates, and other evidence about goods.

Times are int64 UTC nanoseconds that come in with the data; nothing here reads a clock or a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.store.card_numbers import without_card_number

# 2001-09-09 in nanoseconds. A smaller number is an instant in micro-, milli- or plain seconds.
EARLIEST_NS = 10**18
# 2116-02-20. A later instant is not in nanoseconds either, and int64 would soon overflow.
LATEST_NS = 2**62
# What instants of this century are in other units, from the least of each on.
_UNITS = ((10**14, "microseconds"), (10**11, "milliseconds"), (10**8, "seconds"))


def time_fault(t_ns: int) -> str:
    """What is wrong with a number as a time, and which unit it looks like; "" for a possible time."""
    if EARLIEST_NS <= t_ns <= LATEST_NS:
        return ""
    unit = next((unit for least, unit in _UNITS if least <= t_ns < 1000 * least), None)
    looks = "no time of this century" if unit is None else f"times look like {unit}"
    return f"want UTC nanoseconds since 1970, got {without_card_number(str(t_ns))[:50]} ({looks})"


@dataclass(frozen=True, slots=True)
class Frame:
    """All people that one camera's detector found in one image.

    Attributes:
        t_ns: middle of the exposure on the camera's clock.
        camera: name of the camera in cameras.toml.
        keypoints: (n_people, K, 3) float32: x, y in pixels of the raw (distorted) image, then the detector's score;
            score 0 means not detected. K and the order of joints are the store's layout.
        appearance: (n_people, appearance_dim) float32, or None where the store has no appearance vectors.
    """

    t_ns: int
    camera: str
    keypoints: NDArray[np.float32]
    appearance: NDArray[np.float32] | None = None

    def __str__(self) -> str:
        return f"Frame {self.camera}: {len(self.keypoints)} people"


@dataclass(frozen=True, slots=True)
class ShelfReading:
    """One message of a weighing plate.

    Attributes:
        t_ns: time of the first sample.
        plate: name of the plate in plates.csv.
        samples: (n,) float32 in the store's weight unit, grams unless it says otherwise, at the store's weight rate.
            Offsets are arbitrary; differences count.
    """

    t_ns: int
    plate: str
    samples: NDArray[np.float32]

    def __str__(self) -> str:
        return f"ShelfReading {self.plate}: {len(self.samples)} samples"

    def in_grams(self, unit_g: float) -> ShelfReading:
        """The message in grams, from a unit of that many grams."""
        # Infinity is no weight, and is counted as such.
        with np.errstate(over="ignore"):
            return ShelfReading(self.t_ns, self.plate, self.samples * np.float32(unit_g))


@dataclass(frozen=True, slots=True)
class GateScan:
    """A credential that was shown at a gate, and that the gate accepted.

    Attributes:
        t_ns: time of the scan.
        gate: id of the gate in store.toml.
        credential_type: qr, card, face, staff, open, or account where the gate has verified the account already.
        account: the account that the visit belongs to; for staff the staff token.
    """

    t_ns: int
    gate: str
    credential_type: str
    account: str


@dataclass(frozen=True, slots=True)
class DoorState:
    """Whether the door of a cabinet is open: the report of a contact at its frame.

    Attributes:
        t_ns: when the door was opened or closed, or a later instant at which it was in that state.
        gate: id of the gate in store.toml, of kind "cabinet".
        is_open: open, or closed. Repeated states are no news.
    """

    t_ns: int
    gate: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class ItemSighting:
    """Other evidence about goods: an RFID antenna, a camera over a zone, a classifier that looks at a hand.

    Attributes:
        t_ns: time of the sighting.
        source: name of the sensor.
        kind: "read" (a tag, each once) or "seen" (the same pieces may be seen again).
        gtin, quantity: what was sighted, and how many pieces.
        probability: that the sighting is right.
        zone: a zone's or a gate's id, where the sighting is about the carts of the people there.
        plate: a plate's name, where the sighting is about the load that moves there.
        code: what the reader read, where that is a GS1 code or one of the store's own: it may state this piece's weight
            and price. Its product counts, and `gtin` repeats it.
    """

    t_ns: int
    source: str
    kind: str
    gtin: str
    quantity: int
    probability: float
    zone: str | None = None
    plate: str | None = None
    code: str | None = None


# What a line of gate.jsonl may hold.
GateEvent = GateScan | DoorState
Observation = Frame | ShelfReading | GateScan | DoorState | ItemSighting
