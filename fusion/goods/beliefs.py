"""What attribution answers: what a shelf event probably was, and what a cart probably holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fusion.results import Reason

# Probability that a cart is right when more was put back from it than had been taken.
SHORT_RIGHT = 0.5


class EventCandidate(NamedTuple):
    """A person, a product and a signed quantity that may explain a shelf event, and the probability of that.

    Attributes:
        person: a track id; None for an unseen person.
        gtin: the product.
        quantity: pieces, negative where taken.
        probability: summed over all joint hypotheses in which this person moved these pieces.
    """

    person: int | None
    gtin: str
    quantity: int
    probability: float


@dataclass(frozen=True, slots=True)
class EventBelief:
    """A shelf event and its candidates. Probabilities sum to at most 1; the rest is that nothing was moved.

    Attributes:
        event_id: unique within the attributor, in order of observation.
        t_ns: when the load left or met the plates.
        plate: name of the plate that bears most of the load.
        delta_g: summed over the plates.
        candidates: most probable first.
        parts: the two parts of the most probable candidate where it has two, each with the whole probability.
    """

    event_id: int
    t_ns: int
    plate: str
    delta_g: float
    candidates: tuple[EventCandidate, ...]
    parts: tuple[EventCandidate, ...] = ()

    @property
    def nothing(self) -> float:
        """Probability that no goods were moved."""
        return max(0.0, 1.0 - sum(candidate.probability for candidate in self.candidates))


@dataclass(frozen=True, slots=True)
class CartBelief:
    """The goods that some people most probably hold together.

    Attributes:
        items: pieces by GTIN, none of them zero.
        confidence: probability by GTIN that this quantity is right; includes GTINs that may be missing from items.
        probability: that the whole cart is right.
        reasons: what makes it uncertain, worst first; empty where nothing does.
        short: pieces by GTIN that they put back and had not taken.
    """

    items: dict[str, int]
    confidence: dict[str, float]
    probability: float
    reasons: tuple[Reason, ...]
    short: dict[str, int] = field(default_factory=dict)
