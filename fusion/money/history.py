"""How far a visit's payment has come, folded from its entries in the books.

Amounts come from the postings alone; the provider's references only name what it is asked about. What was authorised
and captured goes by the number of our own step, so a provider that repeats a reference confuses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from fusion.money.entries import Entry
from fusion.money.providers.provider import Step

# Kinds of the ledger's entries about payments.
ASKED, RETRY = "payment asked", "payment to be tried again"
DECLINED, NOT_CARRIED_OUT = "payment declined", "payment not carried out"
# The provider's answer cannot be trusted or did not come while it could: a person must look at its account.
QUESTION = "payment in question"
TAKEN_OVER, HANDED_OVER = "authorisation taken over", "authorisation handed over"
CHARGED_BACK, CHARGEBACK_RETURNED = "charged back", "chargeback returned"
WRITTEN_OFF, WRITE_OFF_REVERSED = "written off", "write-off reversed"
DONE: dict[Step, str] = {
    "authorise": "authorised",
    "capture": "captured",
    "release": "released",
    "refund": "refunded",
}
_ANSWERS = (DECLINED, NOT_CARRIED_OUT, *DONE.values())

# Accounts: what customers owe, what the provider owes the store, what a person closed without payment.
RECEIVABLE, PROVIDER, AUTHORISED, LOSSES = "receivable", "provider", "authorised", "written off"

# Captures that may fail before a person has to ask for the next: the first one may have found an authorisation that was
# void already, so a new authorisation is worth a try.
VOID_MAX = 2


@dataclass(frozen=True, slots=True)
class Request:
    """One step that a provider is asked to take.

    Attributes:
        step: authorise, capture, release or refund.
        amount: minor units; a release has none.
        of: our name of the authorisation or capture that it concerns: the number of the step that made it.
        reference: the provider's name of the same.
    """

    step: Step
    amount: int = 0
    of: str = ""
    reference: str = ""

    @classmethod
    def stored(cls, request: Mapping[str, Any]) -> Self:
        """The step that an entry's request holds."""
        of = request.get("of", "")
        return cls(request["step"], request.get("amount", 0), of, request.get("reference", of))

    def request(self) -> dict[str, Any]:
        """The step as an entry's request holds it."""
        fields: dict[str, Any] = {"step": self.step}
        if self.step != "release":
            fields["amount"] = self.amount
        if self.step != "authorise":
            fields |= {"of": self.of, "reference": self.reference}
        return fields


@dataclass(frozen=True, slots=True)
class Hold:
    """What is left of an authorisation, minor units; `since_ns` is when it was asked for."""

    reference: str
    amount: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Capture:
    """What is left of a capture after refunds and chargebacks; one that is final cannot be refunded."""

    reference: str
    left: int
    is_final: bool = False


@dataclass
class History:
    """One subject's payment so far.

    Attributes:
        n_steps: steps asked for; the number of the last one.
        n_retries: how often a person asked to try again.
        n_write_offs: how often the rest was written off, or that was reversed.
        pending: the last step, while its answer is missing.
        asked_ns: when the last step was asked for.
        question: why a person must look at the provider's account, while that is so.
        holds: what is left of each authorisation, by our own name.
        captures: what is left of each capture, by our own name.
        declined: reason, if a step was declined since the price was last set or a person asked to try again.
        may_authorise: whether an authorisation may be asked for before that happens again.
        may_capture: whether a capture may be.
        may_refund: whether a refund may be.
        n_void: captures that were declined since.
        balances: of the subject's postings, by account.
    """

    n_steps: int = 0
    n_retries: int = 0
    n_write_offs: int = 0
    pending: Request | None = None
    asked_ns: int = 0
    question: str = ""
    holds: dict[str, Hold] = field(default_factory=dict)
    captures: dict[str, Capture] = field(default_factory=dict)
    declined: str | None = None
    may_authorise: bool = True
    may_capture: bool = True
    may_refund: bool = True
    n_void: int = 0
    balances: Counter[str] = field(default_factory=Counter)

    @property
    def owed(self) -> int:
        """What the customer still owes; negative where the store owes them."""
        return self.balances[RECEIVABLE]

    @property
    def paid(self) -> int:
        """Captured less refunded and charged back."""
        return self.balances[PROVIDER]

    @property
    def authorised(self) -> int:
        """Authorised and neither captured nor released."""
        return self.balances[AUTHORISED]

    @property
    def written_off(self) -> int:
        """What a person closed without payment."""
        return self.balances[LOSSES]

    @property
    def largest(self) -> tuple[str, Hold]:
        """The largest authorisation under our own name; an empty one where there is none."""
        return max(self.holds.items(), key=lambda item: item[1].amount, default=("", Hold("", 0, 0)))

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """The history that a subject's entries tell, oldest first."""
        history = cls()
        for entry in entries:
            for leg in entry.postings:
                history.balances[leg.account] += leg.amount
            history._follow(entry)
        return history

    def _follow(self, entry: Entry) -> None:
        kind, request = entry.kind, entry.request
        if kind == ASKED:
            self.n_steps += 1
            self.pending, self.asked_ns, self.question = self._named(Request.stored(request)), entry.t_ns, ""
        elif kind in _ANSWERS and self.pending is not None:
            step, self.pending, self.question = self.pending, None, ""
            if kind == DECLINED:
                self._declined(step, request["reason"] or "declined")
            elif kind != NOT_CARRIED_OUT:
                self._done(step, request["reference"], entry)
            elif "by" in request:
                # A person found that out, and decides what comes next.
                self._stop("not carried out")
                self.may_refund = False
        elif kind == QUESTION:
            self.question = request["reason"]
        elif kind == TAKEN_OVER:
            # Older books name an authorisation by the provider's reference.
            name, since_ns = request.get("hold", request["reference"]), request.get("since", entry.t_ns)
            self.holds[name] = Hold(request["reference"], request["amount"], since_ns)
        elif kind == HANDED_OVER:
            del self.holds[_own_name(self.holds, request.get("hold", request["reference"]))]
            self.declined = None  # a visit has begun on it
        elif kind in (CHARGED_BACK, CHARGEBACK_RETURNED):
            self._contested(entry)
        elif kind in (WRITTEN_OFF, WRITE_OFF_REVERSED):
            self.n_write_offs += 1
        elif kind == RETRY:
            self.n_retries += 1
            self._allow()
        elif kind.startswith("decision "):
            self._allow()

    def _named(self, step: Request) -> Request:
        """A step under our own name of what it concerns; older books have the provider's."""
        known = self.captures if step.step == "refund" else self.holds
        return replace(step, of=_own_name(known, step.of))

    def _allow(self) -> None:
        self.declined, self.n_void = None, 0
        self.may_authorise = self.may_capture = self.may_refund = True

    def _stop(self, reason: str) -> None:
        self.declined, self.may_authorise, self.may_capture = reason, False, False

    def _contested(self, entry: Entry) -> None:
        capture, moved = entry.request["capture"], entry.moved(PROVIDER)
        known = self.captures[capture]
        self.captures[capture] = replace(known, left=known.left + moved)
        if entry.kind == CHARGED_BACK:
            self._stop("charged back")

    def _declined(self, step: Request, reason: str) -> None:
        if step.step == "authorise":
            self.declined, self.may_authorise = reason, False
        elif step.step == "capture":
            self.holds.pop(step.of)  # the authorisation is void
            self.declined, self.n_void = reason, self.n_void + 1
            if self.n_void >= VOID_MAX:
                self._stop(reason)
        elif step.step == "release":
            self.holds.pop(step.of)
        else:
            self.declined = reason
            self.captures[step.of] = replace(self.captures[step.of], is_final=True)

    def _done(self, step: Request, reference: str, entry: Entry) -> None:
        name, held = str(self.n_steps), entry.moved(AUTHORISED)
        if step.step == "authorise":
            self.holds[name] = Hold(reference, held, self.asked_ns)
            self.declined = None
            if held < step.amount:
                self.declined, self.may_authorise = "approved in part", False
        elif step.step == "capture":
            taken = entry.moved(PROVIDER)
            # Without a reference, as a person may have entered it, only a person can refund it.
            self.captures[name] = Capture(reference, taken, is_final=not reference)
            hold = self.holds.pop(step.of)
            if hold.amount + held > 0:
                self.holds[step.of] = replace(hold, amount=hold.amount + held)
            if taken < step.amount:
                self._stop("taken in part")
        elif step.step == "release":
            self.holds.pop(step.of)
        else:
            capture, moved = self.captures[step.of], entry.moved(PROVIDER)
            is_partial = -moved < step.amount
            self.captures[step.of] = replace(capture, left=capture.left + moved, is_final=is_partial)
            if is_partial:
                self.declined = "refunded in part"

    def next_step(self, *, is_final: bool, has_means: bool, kept_since_ns: int) -> Request | None:
        """The next step of a payment; None where nothing is left to do, or a step waits for its answer.

        Args:
            is_final: whether the visit's price stands.
            has_means: whether a means of payment of the customer is known.
            kept_since_ns: the provider has dropped authorisations from before this instant.
        """
        if self.pending is not None:
            return None
        for name, hold in self.holds.items():
            if hold.since_ns < kept_since_ns:
                return Request("release", of=name, reference=hold.reference)
        if not is_final:
            return None
        if self.owed < 0 and self.may_refund:
            for name, capture in reversed(self.captures.items()):
                if capture.left > 0 and not capture.is_final:
                    return Request("refund", min(capture.left, -self.owed), name, capture.reference)
        if self.owed > 0:
            can_authorise = self.may_authorise and has_means
            name, hold = self.largest
            # If the authorisation is too small and a larger one cannot be had, capture what it allows.
            if hold.amount and self.may_capture and (hold.amount >= self.owed or not can_authorise):
                return Request("capture", min(hold.amount, self.owed), name, hold.reference)
            if can_authorise:
                # One authorisation for everything, so that a single capture follows; the smaller is released after it.
                return Request("authorise", self.owed)
        for name, hold in self.holds.items():
            return Request("release", of=name, reference=hold.reference)
        return None


def _own_name(known: Mapping[str, Hold | Capture], name: str) -> str:
    """Our own name of an authorisation or capture that an entry names so, or by the provider's reference."""
    if name in known:
        return name
    return next((own for own, one in known.items() if one.reference == name), name)
