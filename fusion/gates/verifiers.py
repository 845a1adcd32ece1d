"""What a gate asks and what a verifier answers; the verifiers that need nothing but memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class GateRequest:
    """A credential that was shown to a reader at a gate.

    Attributes:
        t_ns: when, UTC nanoseconds.
        gate: id of the gate in store.toml.
        credential_type: qr, card, face, staff, open, or account where the caller has verified the account already.
        token: what the reader read; empty for open. Not part of repr.
        leaving: a person inside asks to go out, which needs no credential.
    """

    t_ns: int
    gate: str
    credential_type: str
    token: str = field(default="", repr=False)
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential is good.

    Attributes:
        account: the account that it belongs to.
        greeting: text for the gate's screen.
        token: the payment provider's name for their means of payment, where known.
        email: address for receipts, where known.
    """

    account: str = field(repr=False)
    greeting: str = field(default="Welcome", repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A credential is not good. `reason` is for the log, `display` for the person; neither repeats the credential."""

    reason: str
    display: str = "Please ask the staff"


class Verifier(ABC):
    """Decides whether a credential of one kind is good. May raise: the gate then stays closed for people who come in.

    May be slow, and is called from several threads at once.

    Attributes:
        instant: whether it answers from memory alone. Such a verifier is called directly and works even while all
            others hang.
    """

    instant: ClassVar[bool] = False

    @abstractmethod
    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the request's credential is good."""


class StaffList(Verifier):
    """Admits staff by their tokens."""

    instant = True

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens = frozenset(tokens)

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the token is on the list."""
        if request.token not in self._tokens:
            return Refused("not on the staff list")
        return Verified(request.token, "Staff")


class NotYetPublic(Verifier):
    """Admits only some accounts until an instant, as in a pilot for employees, and everybody from then on."""

    def __init__(self, verifier: Verifier, accounts: Collection[str], until_ns: int) -> None:
        """Restrict another verifier.

        Args:
            verifier: decides whether a credential is good at all.
            accounts: who may come in before the instant.
            until_ns: the instant.
        """
        self._verifier, self._accounts, self._until_ns = verifier, frozenset(accounts), until_ns

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the credential is good and its account may come in at this time."""
        answer = self._verifier.verify(request)
        is_early = request.t_ns < self._until_ns
        if isinstance(answer, Verified) and is_early and answer.account not in self._accounts:
            return Refused("not open to the public yet", "We open to everybody soon")
        return answer


class OpenDoor(Verifier):
    """Admits everybody, without an account."""

    instant = True

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Always verified."""
        return Verified("")


class VerifiedAccounts(Verifier):
    """Trusts the caller that the token is an account which was verified before, as in recordings.

    Not for a reader that customers can reach: anybody who knows an account's name could come in on it.
    """

    instant = True

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Always verified, under the token as account."""
        return Verified(request.token)
