"""Payment of visits: authorise, capture once, release the remainder; refund and correct by reversal.

Every step of a visit's payment is recorded in the ledger before the provider is asked ("payment asked"), and its answer
after that. The idempotency key of a step is made of the store, the visit and the number of the step alone, and a
provider gives the same answer to the same key. So a crash at any point, or an answer that never came, leads to the same
request again and never to a second charge.

An authorisation is a promise, not a payment: it stands on a pair of memorandum accounts until it is captured or
released. What a visit owes is booked on `receivable`, what the provider owes the store on `provider`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from fusion.errors import IdempotencyConflict
from fusion.money.entries import Entry, Posting
from fusion.money.ledger import Ledger
from fusion.money.providers import Answer, PaymentError, Provider, Step, UnknownOutcome
from fusion.money.sales import Discount
from fusion.money.visits import DecisionKind, Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine
from fusion.store.models import Store

# Most steps of one visit's payment in one call; far more than any real payment takes.
STEPS_MAX = 50
# An authorisation at the gate is released if no visit has begun on it by then: four times as long as a scan is valid.
UNUSED_MAX_S = 120.0

PaymentStatus = Literal["open", "review", "pending", "paid", "unpaid", "owing"]

# Kinds of the ledger's entries about payments.
_ASKED, _DECLINED, _RETRY = "payment asked", "payment declined", "payment to be tried again"
_TAKEN_OVER, _HANDED_OVER = "authorisation taken over", "authorisation handed over"
_DONE: dict[Step, str] = {
    "authorise": "authorised",
    "capture": "captured",
    "release": "released",
    "refund": "refunded",
}


@dataclass(frozen=True, slots=True)
class Payment:
    """How far a visit's payment is.

    Attributes:
        visit: the visit, or the pseudonym of a customer who has not come in yet.
        status: "open" (nothing to pay yet), "review" (waits for a person), "pending" (a provider's answer is missing;
            `Checkout.settle` asks again), "paid", "unpaid" (declined, or no means of payment known), or "owing" (a
            refund was declined; a person has to return the money in another way).
        due: what the visit costs, minor units; None while open or in review.
        paid: captured less refunded.
        authorised: authorised and neither captured nor released.
        reason: why the last step was declined.
    """

    visit: str
    status: PaymentStatus
    due: int | None
    paid: int
    authorised: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    """One step that a provider is asked to take.

    Attributes:
        step: authorise, capture, release or refund.
        amount: minor units; a release has none.
        of: the provider's reference of the authorisation or capture that the step concerns.
    """

    step: Step
    amount: int = 0
    of: str = ""

    @classmethod
    def stored(cls, request: Mapping[str, Any]) -> Self:
        """The step that an entry's request holds."""
        return cls(request["step"], request.get("amount", 0), request.get("of", ""))

    def request(self) -> dict[str, Any]:
        """The step as an entry's request holds it."""
        fields: dict[str, Any] = {"step": self.step}
        if self.step != "release":
            fields["amount"] = self.amount
        if self.step != "authorise":
            fields["of"] = self.of
        return fields


@dataclass
class _History:
    """One subject's payment so far, folded from its entries.

    Attributes:
        n_steps: steps asked for; the number of the last one.
        n_retries: how often a person asked to try again.
        pending: the last step, while its answer is missing.
        asked_ns: when the last step was asked for.
        holds: what is left of each authorisation, by the provider's reference.
        captures: captured less refunded, by the provider's reference.
        final: captures that the provider refuses to refund.
        declined: reason, if a step was declined since the price was last set or a person asked to try again.
    """

    n_steps: int = 0
    n_retries: int = 0
    pending: _Request | None = None
    asked_ns: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    captures: dict[str, int] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    declined: str | None = None

    @property
    def paid(self) -> int:
        return sum(self.captures.values())

    @property
    def authorised(self) -> int:
        return sum(self.holds.values())

    def covers(self, amount: int) -> bool:
        """Whether a single authorisation is enough for an amount."""
        return max(self.holds.values(), default=0) >= amount

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        history = cls()
        for entry in entries:
            request = entry.request
            if entry.kind == _ASKED:
                history.n_steps += 1
                history.pending, history.asked_ns = _Request.stored(request), entry.t_ns
            elif entry.kind == _TAKEN_OVER:
                history.holds[request["reference"]] = request["amount"]
            elif entry.kind == _HANDED_OVER:
                del history.holds[request["reference"]]
            elif entry.kind == _RETRY:
                history.n_retries += 1
                history.declined = None
            elif entry.kind.startswith("decision "):
                history.declined = None
            elif entry.kind == _DECLINED or entry.kind in _DONE.values():
                history._answered(Answer(request["approved"], request["reference"], request["reason"]))
        return history

    def _answered(self, answer: Answer) -> None:
        step, self.pending = self.pending, None
        assert step is not None
        if not answer.approved:
            self.declined = answer.reason or "declined"
            if step.step == "refund":
                self.final.add(step.of)
            elif step.step in ("capture", "release"):
                self.holds.pop(step.of)  # the authorisation is void
        elif step.step == "authorise":
            self.holds[answer.reference] = step.amount
            self.declined = None
        elif step.step == "capture":
            self.captures[answer.reference] = step.amount
            self.holds[step.of] -= step.amount
            if not self.holds[step.of]:
                del self.holds[step.of]
        elif step.step == "release":
            del self.holds[step.of]
        else:
            self.captures[step.of] -= step.amount


class Checkout:
    """Takes the money for one store's visits. Several threads and processes may do so for the same books.

    The store's `[payment]` table says when: on leaving, after an authorisation at the entry, in a payment zone, or
    before the exit opens. All but the first authorise before the goods leave; money itself moves once the bill is
    final.
    """

    def __init__(self, ledger: Ledger, provider: Provider, store: Store) -> None:
        self._ledger, self._provider, self._store = ledger, provider, store

    # ---- from the entry to the bill ----------------------------------------------------------------------------------

    def admit(self, pseudonym: str, t_ns: int) -> Payment:
        """Authorise `payment.authorise` before a customer comes in; without such a policy the provider is not asked.

        The means of payment is the one that the ledger's vault holds for the pseudonym. Repeating the call is harmless.

        Returns a payment that is "open" if they may come in, otherwise "unpaid" or "pending".
        """
        amount = self._store.payment.authorise if self._store.payment.mode == "enter" else 0
        if not amount:
            return Payment(pseudonym, "open", None, 0, 0)
        entries = self._ledger.entries(pseudonym)
        history = _History.of(entries)
        request = history.pending
        if request is None and (history.n_steps == 0 or history.declined is not None):
            request = _Request("authorise", amount)
        if request is not None:
            self._ask(pseudonym, history, request, t_ns)
            entries = self._ledger.entries(pseudonym)
            history = _History.of(entries)
        payment = self._payment(pseudonym, history, self._ledger.standing(pseudonym, entries))
        is_declined = payment.status == "open" and history.declined is not None
        return replace(payment, status="unpaid") if is_declined else payment

    def open_visit(self, visit: str, pseudonym: str | None, enter_ns: int) -> bool:
        """Record that a visit began, as `Ledger.open_visit`, and move what was authorised at the gate to it."""
        with self._ledger.batch():
            is_new = self._ledger.open_visit(visit, pseudonym, enter_ns)
            if pseudonym is not None:
                for reference, amount in self._history(pseudonym).holds.items():
                    moved, name = {"reference": reference, "amount": amount}, f"authorisation {reference}"
                    for subject, kind, sign in ((pseudonym, _HANDED_OVER, -1), (visit, _TAKEN_OVER, 1)):
                        self._ledger.record(subject, name, kind, enter_ns, moved, self._memorandum(sign * amount))
        return is_new

    def confirm(self, visit: str, amount: int, t_ns: int) -> bool:
        """Authorise the price of a basket that the customer confirms in the payment zone or at the exit.

        Returns whether they may leave. A step that was declined or not answered is asked again by confirming again.
        """
        history = self._history(visit)
        if history.pending is not None:
            self._ask(visit, history, history.pending, t_ns)
            history = self._history(visit)
        if history.pending is None and not history.covers(amount):
            history = self._retried(visit, history, t_ns)
            # One authorisation for everything, so that a single capture follows; a smaller one is released after that.
            self._ask(visit, history, _Request("authorise", amount), t_ns)
            history = self._history(visit)
        return history.covers(amount)

    def receipt(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> Payment:
        """Post a receipt, as `Ledger.post_receipt`, and settle it; one in review leaves the money where it is."""
        account = receipt.account
        if account is not None and self._history(account).holds and self._ledger.standing(receipt.visit) is None:
            # Their entry was not seen, so what was authorised at the gate is still held for the account.
            self.open_visit(receipt.visit, account, receipt.exit_ns if receipt.enter_ns is None else receipt.enter_ns)
        self._ledger.post_receipt(receipt, discounts)
        return self.settle(receipt.visit, receipt.issued_ns)

    def decide(
        self,
        visit: str,
        decision: DecisionKind,
        *,
        by: str,
        t_ns: int,
        revision: int = 1,
        lines: Sequence[ReceiptLine] | None = None,
        discounts: Sequence[Discount] = (),
        note: str = "",
    ) -> Payment:
        """Post a person's decision, as `Ledger.decide`, and settle the difference."""
        self._ledger.decide(
            visit, decision, by=by, t_ns=t_ns, revision=revision, lines=lines, discounts=discounts, note=note
        )
        return self.settle(visit, t_ns)

    # ---- settling ----------------------------------------------------------------------------------------------------

    def settle(self, visit: str, t_ns: int) -> Payment:
        """Take every step that is left for a visit: capture what is due, refund what is too much, release the rest.

        A declined step is not repeated before the price changes; see `collect`.

        Raises:
            LedgerError: the books cannot be written. Settling later resumes where this stopped.
            PaymentError: the provider rejects a step as invalid; nothing is known to have moved.
        """
        for _ in range(STEPS_MAX):
            entries = self._ledger.entries(visit)
            history, standing = _History.of(entries), self._ledger.standing(visit, entries)
            request = history.pending or self._next(history, standing)
            if request is None:
                return self._payment(visit, history, standing)
            if not self._ask(visit, history, request, t_ns):
                break
        return self.state(visit)

    def collect(self, visit: str, t_ns: int) -> Payment:
        """Repeat a declined step, on a person's request."""
        self._retried(visit, self._history(visit), t_ns)
        return self.settle(visit, t_ns)

    def recover(self, t_ns: int, *, restarted: bool = False) -> list[Payment]:
        """Finish what a crash, a lost connection or a silent provider left behind.

        Repeats every request without an answer, settles every visit that has a price and is not paid, and releases
        authorisations on which no visit began.

        Args:
            t_ns: the present instant.
            restarted: the engine that followed the open visits is gone, so they go to review too.
        """
        if restarted:
            self._ledger.review_open_visits(t_ns, Reason(ReasonKind.RESTARTED))
        subjects = dict.fromkeys(
            [
                *(entry.visit for entry in self._ledger.unanswered(_ASKED)),
                *self._ledger.balances_of("receivable"),
                *self._ledger.balances_of("authorised"),
            ]
        )
        payments = []
        for subject in subjects:
            try:
                if self._ledger.standing(subject) is not None:
                    payment = self.settle(subject, t_ns)
                else:
                    payment = self._give_back(subject, t_ns)
            except PaymentError as error:
                # A fault of the program or of the provider, reported with this payment; the others are settled.
                payment = replace(self.state(subject), reason=str(error))
            payments.append(payment)
        return payments

    def _give_back(self, pseudonym: str, t_ns: int) -> Payment:
        """Finish an authorisation at the gate, and release it once no visit can begin on it any more."""
        history = self._history(pseudonym)
        if history.pending is not None:
            self._ask(pseudonym, history, history.pending, t_ns)
            history = self._history(pseudonym)
        if t_ns - history.asked_ns >= UNUSED_MAX_S * 1e9:
            for reference in list(history.holds):
                if history.pending is None:
                    self._ask(pseudonym, history, _Request("release", of=reference), t_ns)
                    history = self._history(pseudonym)
        return self._payment(pseudonym, history, self._ledger.standing(pseudonym))

    def state(self, visit: str) -> Payment:
        """How far a visit's payment is, without asking the provider."""
        entries = self._ledger.entries(visit)
        return self._payment(visit, _History.of(entries), self._ledger.standing(visit, entries))

    def _payment(self, visit: str, history: _History, standing: Standing | None) -> Payment:
        due = standing.total if standing is not None and standing.is_final else None
        status: PaymentStatus
        if history.pending is not None:
            status = "pending"
        elif due is None:
            status = "review" if standing is not None and standing.status == "review" else "open"
        elif history.paid > due:
            status = "owing"
        else:
            status = "paid" if history.paid == due else "unpaid"
        return Payment(visit, status, due, history.paid, history.authorised, history.declined or "")

    def _next(self, history: _History, standing: Standing | None) -> _Request | None:
        """The next step of a visit's payment; None where nothing is left to do."""
        if standing is None or not standing.is_final:
            return None
        owed = standing.total - history.paid
        if owed < 0:
            for reference, left in reversed(history.captures.items()):
                if left and reference not in history.final:
                    return _Request("refund", min(left, -owed), reference)
        if owed > 0:
            largest = max(history.holds, key=lambda reference: history.holds[reference], default=None)
            if largest is not None and (history.holds[largest] >= owed or history.declined is not None):
                # If the authorisation is too small and a larger one was refused, capture what it allows.
                return _Request("capture", min(history.holds[largest], owed), largest)
            customer = self._ledger.customer(standing.visit)
            if history.declined is None and customer is not None and customer.token is not None:
                # One authorisation for everything, so that a single capture follows; the smaller is released after it.
                return _Request("authorise", owed)
        return next((_Request("release", of=reference) for reference in history.holds), None)

    def _history(self, subject: str) -> _History:
        return _History.of(self._ledger.entries(subject))

    def _retried(self, visit: str, history: _History, t_ns: int) -> _History:
        """Allow a declined step to be repeated; returns the history after that."""
        if history.declined is None:
            return history
        self._ledger.record(visit, f"retry {history.n_retries + 1}", _RETRY, t_ns, {})
        return self._history(visit)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _ask(self, subject: str, history: _History, request: _Request, t_ns: int) -> bool:
        """Take one step, or repeat it: record it, ask the provider, record the answer.

        Returns False if the step's answer is still missing. Either way the subject's entries have changed.
        """
        try:
            if history.pending is None:
                number, asked_ns = history.n_steps + 1, t_ns
                self._ledger.record(subject, f"payment {number}", _ASKED, asked_ns, request.request())
            else:
                number, asked_ns = history.n_steps, history.asked_ns
            answer = self._answer(f"{self._store.id}/{subject}/{number}", subject, request)
        except (UnknownOutcome, IdempotencyConflict):
            # A conflict means that another process takes a step of this payment; its entries show how far it has come.
            return self._history(subject).pending is None
        fields = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
        # The answer gets the time of its request, so that two processes that both asked record the same entry.
        self._ledger.record(
            subject,
            f"payment {number}/answer",
            _DONE[request.step] if answer.approved else _DECLINED,
            asked_ns,
            fields,
            self._postings(history, request, answer.approved),
        )
        return True

    def _answer(self, key: str, subject: str, request: _Request) -> Answer:
        match request.step:
            case "authorise":
                token = self._token(subject)
                if token is None:
                    # The customer was forgotten in the meantime. Whatever was authorised expires at the provider.
                    return Answer(False, reason="means of payment is not known")
                return self._provider.authorise(key, token, request.amount, self._store.currency)
            case "capture":
                return self._provider.capture(key, request.of, request.amount)
            case "refund":
                return self._provider.refund(key, request.of, request.amount)
            case "release":
                return self._provider.release(key, request.of)

    def _token(self, subject: str) -> str | None:
        """Token of a visit's customer, or of the customer behind a pseudonym that has no visit yet."""
        is_visit = self._ledger.standing(subject) is not None
        holder = self._ledger.customer(subject) if is_visit else self._ledger.holder(subject)
        return None if holder is None else holder.token

    def _postings(self, history: _History, request: _Request, approved: bool) -> tuple[Posting, ...]:
        amount, currency = request.amount, self._store.currency
        if request.step == "authorise":
            return self._memorandum(amount if approved else 0)
        if request.step == "capture" and approved:
            paid = (Posting("provider", currency, amount), Posting("receivable", currency, -amount))
            return (*paid, *self._memorandum(-amount))
        if request.step == "refund":
            returned = (Posting("receivable", currency, amount), Posting("provider", currency, -amount))
            return returned if approved else ()
        return self._memorandum(-history.holds[request.of])

    def _memorandum(self, amount: int) -> tuple[Posting, ...]:
        """Postings of an amount that is authorised, or with a negative sign no longer authorised."""
        currency = self._store.currency
        legs = (Posting("authorised", currency, amount), Posting("authorised, contra", currency, -amount))
        return legs if amount else ()
