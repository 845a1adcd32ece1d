"""What happens in a run in lines of text by subject, for the recordings that engineers look at."""

from __future__ import annotations

from typing import NamedTuple

from fusion.observations import DoorState, GateScan, ItemSighting, Observation
from fusion.results import (
    Candidate,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    Result,
    RunEnd,
    ShelfEventExplained,
    Warning,
)
from fusion.sentences import reason_text, sentence
from fusion.store.models import Store

# Candidates of a shelf event that a line names.
CANDIDATES_NAMED = 3


class LogLine(NamedTuple):
    """A line of the log of a subject: visits, shelves, receipts, gates or warnings."""

    log: str
    t_ns: int
    text: str
    is_warning: bool = False


class LogLines:
    """The lines of one run.

    Attributes:
        names: by track, who came in as far as that is known.
    """

    def __init__(self, store: Store) -> None:
        self.names: dict[int, str] = {}
        self._store = store
        self._products = {product.gtin: product.name for product in store.products}
        self._own_gtins = store.own_gtins

    def of_observation(self, observation: Observation) -> LogLine | None:
        """The line of a scan or a sighting; None for frames and weights."""
        if isinstance(observation, GateScan):
            # The visit's account appears with the engine's answer; the credential itself is private.
            return LogLine("gates", observation.t_ns, f"{observation.credential_type} at {observation.gate}")
        if isinstance(observation, DoorState):
            state = "open" if observation.is_open else "closed"
            return LogLine("gates", observation.t_ns, f"door of {observation.gate} {state}")
        if isinstance(observation, ItemSighting):
            where = observation.zone or observation.plate or "an unknown place"
            pieces = f"{observation.quantity} x {self._product(observation.gtin)}"
            text = f"{observation.source} {observation.kind} {pieces} at {where} ({observation.probability:.0%})"
            return LogLine("gates", observation.t_ns, text)
        return None

    def of(self, result: Result | RunEnd) -> LogLine | None:
        """The line of a result, in the order in which the engine answers; None for one that has none."""
        match result:
            case PersonEntered():
                name = "staff" if result.staff else result.account or "no credential"
                self.names[result.track_id] = name
                text = f"{name} came in at {result.gate or 'no gate'}, track {result.track_id}"
                return LogLine("visits", result.t_ns, text)
            case PersonLeft():
                name = self.names.get(result.track_id, result.account or "an unidentified visitor")
                text = f"{name} left at {result.gate or 'no gate'}, track {result.track_id}"
                return LogLine("visits", result.t_ns, text)
            case Picked() | PutBack():
                verb = "took" if isinstance(result, Picked) else "put back"
                action = f"{_person(result)} {verb} {result.quantity} x {self._product(result.gtin)}"
                text = f"{result.plate}: {action}, provisional ({result.probability:.0%})"
                return LogLine("shelves", result.t_ns, text)
            case ShelfEventExplained():
                named = "; ".join(self.candidates(result)) or "nothing"
                return LogLine("shelves", result.t_ns, f"{result.plate} {result.delta_g:+.0f} g: {named}")
            case Receipt():
                return self._receipt(result)
            case Warning():
                text = f"{result.kind}: {result.subject}: {sentence(result, self._store)}"
                return LogLine("warnings", result.t_ns, text, is_warning=True)
        return None

    def candidates(self, event: ShelfEventExplained) -> list[str]:
        """The most probable explanations of a shelf event, first the most probable one."""
        ranked = sorted(event.candidates, key=lambda candidate: -candidate.probability)
        return [
            f"{_person(candidate)} {candidate.quantity:+d} x {self._product(candidate.gtin)} "
            f"({candidate.probability:.0%})"
            for candidate in ranked[:CANDIDATES_NAMED]
        ]

    def _receipt(self, receipt: Receipt) -> LogLine:
        pieces = ", ".join(f"{line.quantity} x {self._product(line.gtin)}" for line in receipt.lines) or "nothing"
        status = receipt.status + (f": {reason_text(receipt.reasons, self._store)}" if receipt.reasons else "")
        text = f"{_person(receipt)}: {self._store.price_text(receipt.total)}, {pieces}; {status}"
        return LogLine("receipts", receipt.issued_ns, text, is_warning=receipt.status != "settled")

    def _product(self, gtin: str) -> str:
        return self._products.get(self._own_gtins.of(gtin) or gtin, gtin)


def _person(result: Candidate | Picked | PutBack | Receipt) -> str:
    """How the log calls the person of a result."""
    return result.account or ("a visitor without credential" if result.visit else "an unidentified visitor")
