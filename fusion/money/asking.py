"""One step of a payment: recorded, asked of the provider, its answer judged and recorded."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fusion.errors import FusionError, IdempotencyConflict, in_short
from fusion.money.entries import Posting
from fusion.money.history import (
    ASKED,
    AUTHORISED,
    DECLINED,
    DONE,
    NOT_CARRIED_OUT,
    PROVIDER,
    QUESTION,
    RECEIVABLE,
    History,
    Request,
)
from fusion.money.ledger import Ledger
from fusion.money.providers.provider import (
    REASON_MAX,
    REFERENCE_MAX,
    Answer,
    CannotLookUp,
    PaymentError,
    Provider,
    UnknownOutcome,
)
from fusion.store.card_numbers import looks_like_card_number, without_card_number
from fusion.store.models import Store

# Share of the time for which a provider keeps its keys during which a request is sent again: twice as safe as the
# provider promises, since its clock and ours differ and the request may have arrived before we noted it.
KEYS_SHARE = 0.5
# A request that a look-up does not find this long after it was sent will not arrive any more. Ten times as long as
# requests take, and as providers' indexes are behind.
IN_FLIGHT_MAX_S = 600.0
REFERENCE_GIVEN = "provider's reference"

_REFERENCE = re.compile(rf"[!-~]{{1,{REFERENCE_MAX}}}")

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _Doubt(FusionError):
    """What became of a step cannot be found out without a person."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A step that was asked for.

    Attributes:
        subject: the visit, or the pseudonym of a customer who has not come in yet.
        number: of the step among the subject's.
        request: the step.
        asked_ns: when it was asked for first.
    """

    subject: str
    number: int
    request: Request
    asked_ns: int


class Asking:
    """Takes single steps of payments, of one store with one provider."""

    def __init__(self, ledger: Ledger, provider: Provider, store: Store) -> None:
        self._ledger, self._provider, self._store = ledger, provider, store

    def take(self, subject: str, history: History, request: Request, now_ns: int) -> str:
        """Take a step, or find out what became of the one whose answer is missing.

        Returns why the answer is still missing; empty where it is not. Either way the subject's entries may have
        changed.
        """
        is_first = history.pending is None
        number, asked_ns = (history.n_steps + 1, now_ns) if is_first else (history.n_steps, history.asked_ns)
        asked = Asked(subject, number, request, asked_ns)
        try:
            if is_first:
                self._ledger.record(subject, f"payment {number}", ASKED, asked_ns, request.request())
            answer = self._first(asked) if is_first else self._later(asked, history, now_ns)
            self.book(asked, history, answer)
        except UnknownOutcome as error:
            return _clean(str(error))
        except _Doubt as doubt:
            self._put_to_a_person(asked, str(doubt))
            return str(doubt)
        except IdempotencyConflict:
            # Another process takes a step of this payment; its entries show how far it has come.
            is_missing = History.of(self._ledger.entries(subject)).pending is not None
            return "another process waits for the answer" if is_missing else ""
        return ""

    # ---- the question and its answer ---------------------------------------------------------------------------------

    def _first(self, asked: Asked) -> Answer:
        answer = self._sent(asked)
        objection = self.objection(asked, answer)
        if not objection:
            return answer
        try:
            found = self._looked_up(asked)
        except CannotLookUp:
            found = None
        if found is None or self.objection(asked, found):
            raise _Doubt(objection)
        return found

    def _later(self, asked: Asked, history: History, now_ns: int) -> Answer | None:
        """What became of a step that was asked for before; None where it was certainly not carried out."""
        request, terms = asked.request, self._provider.terms
        age_s = abs(now_ns - asked.asked_ns) / 1e9
        if request.step == "release":
            # Releasing again moves nothing, and an authorisation that has expired is released.
            if abs(now_ns - history.holds[request.of].since_ns) / 1e9 >= terms.holds_kept_s:
                return Answer(False, reason="the authorisation has expired")
            return self._sent(asked)
        if request.step == "authorise" and age_s >= terms.holds_kept_s:
            return None  # whatever was authorised has expired
        can_look_up, found = True, None
        try:
            found = self._looked_up(asked)
        except CannotLookUp:
            can_look_up = False
        if found is None:
            if history.question:
                raise _Doubt(history.question)
            if never_again := _never_again(request, history, age_s >= KEYS_SHARE * terms.keys_kept_s):
                if can_look_up and age_s >= IN_FLIGHT_MAX_S:
                    return None
                raise (UnknownOutcome if can_look_up else _Doubt)(never_again)
            found = self._sent(asked)
            if not found.approved and not can_look_up and request.step != "authorise":
                # It may have been carried out the first time, and be declined for that reason.
                raise _Doubt(f"declined after an answer was lost: {_clean(found.reason)}")
        if objection := self.objection(asked, found):
            raise _Doubt(objection)
        return found

    def _sent(self, asked: Asked) -> Answer:
        """The provider's answer; a request that it rejects is declined."""
        request, key, provider = asked.request, self._key(asked), self._provider
        try:
            match request.step:
                case "authorise":
                    token = self.token(asked.subject, asked.asked_ns)
                    if token is None:
                        # The customer was forgotten in the meantime. Whatever was authorised expires at the provider.
                        return Answer(False, reason="means of payment is not known")
                    return _called(provider.authorise, key, token, request.amount, self._store.currency)
                case "capture":
                    return _called(provider.capture, key, request.reference, request.amount)
                case "refund":
                    return _called(provider.refund, key, request.reference, request.amount)
                case "release":
                    return _called(provider.release, key, request.reference)
        except PaymentError as error:
            return Answer(False, reason=str(error))

    def _looked_up(self, asked: Asked) -> Answer | None:
        return _called(self._provider.look_up, asked.request.step, self._key(asked), asked.request.reference)

    def _key(self, asked: Asked) -> str:
        return f"{self._store.id}/{asked.subject}/{asked.number}"

    def objection(self, asked: Asked, answer: Answer) -> str:
        """Why an answer cannot be true; empty where it can."""
        request = asked.request
        if not answer.approved or request.step == "release":
            return ""
        if not _REFERENCE.fullmatch(answer.reference) or looks_like_card_number(answer.reference):
            return "the answer has no usable reference"
        if answer.amount is not None and not 1 <= answer.amount <= request.amount:
            return f"the answer states {answer.amount}, want 1 to {request.amount}"
        given = self._ledger.recorded(_reference(request, answer), "given")
        if given is not None and given.request != _giver(asked):
            return f"the answer repeats a reference that was given before: {answer.reference}"
        return ""

    def token(self, subject: str, asked_ns: int) -> str | None:
        """The means of payment of a visit's customer, or of the customer behind a pseudonym without a visit.

        It is the newest that their account had shown when the step was asked for, so that the same request holds the
        same means however often it is sent.
        """
        holder = self._ledger.customer(subject) or self._ledger.holder(subject)
        if holder is None:
            return None
        for name in self._ledger.pseudonyms(holder.account):
            other = self._ledger.holder(name)
            if other is not None and other.token is not None and other.since_ns <= asked_ns:
                return other.token
        return holder.token

    # ---- the books ---------------------------------------------------------------------------------------------------

    def book(self, asked: Asked, history: History, answer: Answer | None, **by_a_person: str) -> None:
        """Record the answer to a step; None states that it was not carried out.

        The answer gets the time of its request, so that two processes that both asked record the same entry.

        Raises:
            IdempotencyConflict: another answer was recorded.
        """
        request = asked.request
        is_done = answer is not None and answer.approved
        kind = NOT_CARRIED_OUT if answer is None else DONE[request.step] if is_done else DECLINED
        answer = answer or Answer(False, reason="not carried out")
        amount = request.amount if answer.amount is None else answer.amount
        token = self.token(asked.subject, asked.asked_ns) if request.step == "authorise" and not is_done else None
        fields: dict[str, Any] = {
            "approved": answer.approved,
            "reference": answer.reference if is_done else "",
            "reason": _clean(answer.reason, token),
            **by_a_person,
        }
        with self._ledger.batch():
            if is_done and request.step != "release" and answer.reference:
                subject = _reference(request, answer)
                self._ledger.record(subject, "given", REFERENCE_GIVEN, asked.asked_ns, _giver(asked))
            self._ledger.record(
                asked.subject, f"payment {asked.number}/answer", kind, asked.asked_ns, fields,
                self._postings(kind, history, request, amount),
            )  # fmt: skip

    def _put_to_a_person(self, asked: Asked, reason: str) -> None:
        name = f"payment {asked.number}/question"
        with suppress(IdempotencyConflict):  # asked before, for another reason
            self._ledger.record(asked.subject, name, QUESTION, asked.asked_ns, {"reason": _clean(reason)})

    def _postings(self, kind: str, history: History, request: Request, amount: int) -> tuple[Posting, ...]:
        currency, is_done = self._store.currency, kind == DONE[request.step]
        if kind == NOT_CARRIED_OUT:
            return ()
        if request.step == "authorise":
            return memorandum(amount if is_done else 0, currency)
        if request.step == "capture" and is_done:
            paid = (Posting(PROVIDER, currency, amount), Posting(RECEIVABLE, currency, -amount))
            return (*paid, *memorandum(-amount, currency))
        if request.step == "refund":
            returned = (Posting(RECEIVABLE, currency, amount), Posting(PROVIDER, currency, -amount))
            return returned if is_done else ()
        # Released, or void because a capture was declined.
        return memorandum(-history.holds[request.of].amount, currency)


def _never_again(request: Request, history: History, is_old: bool) -> str:
    """Why a request must not be sent again; empty where it may be."""
    left = {"capture": history.owed, "refund": -history.owed}
    if request.amount > left.get(request.step, request.amount):
        # It could move more than the postings leave to move.
        return "the price changed before an answer came"
    return "no answer came while the provider kept the key of the request" if is_old else ""


def memorandum(amount: int, currency: str) -> tuple[Posting, ...]:
    """Postings of an amount that is authorised, or with a negative sign no longer authorised."""
    legs = (Posting(AUTHORISED, currency, amount), Posting(f"{AUTHORISED}, contra", currency, -amount))
    return legs if amount else ()


def reference_subject(step: str, reference: str) -> str:
    """The subject of the entry that records which step a provider gave a reference to."""
    return f"reference {step} {reference}"


def _reference(request: Request, answer: Answer) -> str:
    return reference_subject(request.step, answer.reference)


def _giver(asked: Asked) -> dict[str, Any]:
    return {"visit": asked.subject, "step": asked.number}


def _called(call: Callable[..., _T], *values: Any) -> _T:
    """A provider's answer; whatever else it raises is no answer."""
    try:
        return call(*values)
    except (PaymentError, UnknownOutcome, CannotLookUp):
        raise
    except Exception as error:
        _log.warning("the payment provider's adapter failed: %s", in_short(error))
        raise UnknownOutcome(f"the adapter failed: {type(error).__name__}") from error


def _clean(text: str, token: str | None = None) -> str:
    """A provider's text as the books may hold it: one short line, without a means of payment or card number."""
    for part in () if token is None else token.split(":"):  # a means of payment may be written as CUSTOMER:METHOD
        if part:
            text = text.replace(part, "(token)")
    text = "".join(c if c.isprintable() and unicodedata.category(c) != "Cf" else " " for c in text)
    return without_card_number(" ".join(text.split()))[:REASON_MAX]
