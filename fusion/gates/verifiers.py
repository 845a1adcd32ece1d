"""What a gate asks and what a verifier answers; the verifiers that need nothing but memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import ClassVar, Literal

# What a gate is asked to do: let a person in, let one out, or open at once because a person pressed the release.
Asks = Literal["enter", "leave", "release"]


@dataclass(frozen=True, slots=True)
class GateRequest:
    """A credential that was shown to a reader at a gate, or a request to leave, which needs none.

    Attributes:
        t_ns: when, UTC nanoseconds. A verifier is given the gate's clock, not what the reader names.
        gate: id of the gate in store.toml.
        credential_type: qr, card, face, staff, open, or account where the caller has verified the account already.
        token: what the reader read; empty for open. Not part of repr.
        asks: "enter"; "leave", which needs no credential; or "release", which opens whatever is owed, and alarms.
    """

    t_ns: int
    gate: str
    credential_type: str
    token: str = field(default="", repr=False)
    asks: Asks = "enter"

    @property
    def leaving(self) -> bool:
        """Whether a person inside asks to go out."""
        return self.asks != "enter"


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
    """A credential is not good.

    Attributes:
        reason: for the log, from a small set; does not repeat the credential.
        display: for the person; does not repeat it either.
        guess: whether it may have been a try at guessing a credential; after some of these the reader pauses.
        again: whether this is not final: the gate is to ask again in a moment.
    """

    reason: str
    display: str = "Please ask the staff"
    guess: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class AskWorld:
    """What memory cannot answer, such as whether a payment provider authorises an amount.

    Attributes:
        ask: asks, and may take seconds; called in a thread of its own, and again while it returns None, which means
            that no answer could be had. An abandoned question's answer is dropped, so asking must be harmless.
        about: what the question is about where the credential alone does not say it, such as an amount.
    """

    ask: Callable[[], Verified | Refused | None] = field(repr=False)
    about: str = field(default="", repr=False)

    def then(self, check: Callable[[Verified], Verified | Refused]) -> AskWorld:
        """The same question, with one more condition on its answer."""

        def asked() -> Verified | Refused | None:
            answer = self.ask()
            return check(answer) if isinstance(answer, Verified) else answer

        return AskWorld(asked, self.about)


class Verifier(ABC):
    """Decides whether a credential of one kind is good. May raise: the gate then stays closed.

    `verify` knows what memory, the store's own files and its books know; what only the world knows is an `AskWorld`,
    which has a deadline of its own. Called from several threads at once.

    Attributes:
        instant: whether it answers from memory alone. Such a verifier is called directly and works even while all
            others hang.
    """

    instant: ClassVar[bool] = False

    @abstractmethod
    def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
        """Whether the request's credential is good."""


_DIGEST_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def token_digest(token: str) -> bytes:
    """SHA-256 of a token, by which tokens are compared, so that the time it takes shows nothing of them."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class StaffList(Verifier):
    """Admits staff by their tokens; a visit of theirs is named after the token's digest, not after the token."""

    instant = True

    def __init__(self, tokens: Collection[str]) -> None:
        self._digests = frozenset(map(token_digest, tokens))

    def digests(self) -> frozenset[bytes]:
        """Digests of the tokens that are good now."""
        return self._digests

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the token is on the list."""
        digest = token_digest(request.token)
        if digest not in self.digests():
            return Refused("not on the staff list", guess=True)
        # Letters only, since digits may look like a card number.
        return Verified(f"staff-{digest.hex()[:16].translate(_DIGEST_LETTERS)}", "Staff")


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

    def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
        """Whether the credential is good and its account may come in at this time."""
        answer = self._verifier.verify(request)
        if request.t_ns >= self._until_ns or isinstance(answer, Refused):
            return answer
        return answer.then(self._checked) if isinstance(answer, AskWorld) else self._checked(answer)

    def _checked(self, answer: Verified) -> Verified | Refused:
        if answer.account in self._accounts:
            return answer
        return Refused("not open to the public yet", "We open to everybody soon")


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
