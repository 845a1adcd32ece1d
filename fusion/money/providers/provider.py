"""What a payment provider is: the questions that `Checkout` asks it, its answers, and what it promises about time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from fusion.errors import FusionError

# Longest reference or reason that is taken from an answer, characters.
REFERENCE_MAX, REASON_MAX = 200, 255

Step = Literal["authorise", "capture", "release", "refund"]


class PaymentError(FusionError):
    """The provider rejects a request as invalid; repeating it would not help. This request moved no money."""


class UnknownOutcome(FusionError):
    """No answer came: the provider may have carried the request out, or not. Repeating it under its key is safe."""


class CannotLookUp(FusionError):
    """The provider cannot state what became of a request: a person must look at the provider's account."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer.

    Attributes:
        approved: whether it was carried out.
        reference: the provider's name for the operation.
        reason: why it was declined.
        amount: minor units that were authorised, captured or refunded, where the answer states them; None: as asked.
    """

    approved: bool
    reference: str = ""
    reason: str = ""
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider promises about time.

    Attributes:
        keys_kept_s: for how long a repeated idempotency key gets the first answer again; 0: the provider knows no keys.
        holds_kept_s: for how long an authorisation can be captured.
    """

    keys_kept_s: float = 24 * 3600.0
    holds_kept_s: float = 7 * 24 * 3600.0


class Provider(Protocol):
    """Moves money. The same idempotency key with the same contents gets the same answer while the provider keeps it.

    Amounts are integer minor units. Every method may raise UnknownOutcome; all but `look_up` may raise PaymentError.
    """

    @property
    def terms(self) -> Terms:
        """What the provider promises about time."""
        ...

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount on the means of payment that the token stands for; part of it may be approved."""
        ...

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount, at most what was authorised; the remainder is reserved until it is released at the latest."""
        ...

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; also approved where nothing is left of it."""
        ...

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount, at most what was captured."""
        ...

    def look_up(self, step: Step, key: str, of: str) -> Answer | None:
        """What became of a request, however long ago; moves nothing.

        Args:
            step: what was asked.
            key: under which key.
            of: reference of the authorisation or capture that it concerned; empty for an authorisation.

        Returns:
            The answer that the request got; None where the provider has not carried it out.

        Raises:
            UnknownOutcome: no answer came; looking up again is harmless.
            CannotLookUp: the provider does not keep this, or has several operations under the key.
        """
        ...
