"""Payment of visits: authorise, capture once, release the remainder; refund and correct by reversal.

Every step of a visit's payment is recorded in the ledger before the provider is asked ("payment asked"), and its answer
after that. The idempotency key of a step is made of the store, the visit and the number of the step alone. What becomes
of a step whose answer is missing: it is looked up where the provider can do that; while the provider certainly still
knows the key, the same request is sent again; after that it is never sent again, and a person must look at the
provider's account. So a crash at any point, or an answer that never came, never leads to a second charge.

An answer that cannot be true (a reference that was given before, more than was asked) is no answer. What may be
captured is what the postings leave to pay, whatever the provider states.

An authorisation is a promise, not a payment: it stands on a pair of memorandum accounts until it is captured or
released. What a visit owes is booked on `receivable`, what the provider owes the store on `provider`, what a person
closes without payment on `written off`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.asking import Asked, Asking, memorandum
from fusion.money.chargebacks import charge_back
from fusion.money.entries import NOTE_MAX, Posting, checked_text
from fusion.money.history import (
    ASKED,
    AUTHORISED,
    HANDED_OVER,
    LOSSES,
    RECEIVABLE,
    RETRY,
    TAKEN_OVER,
    WRITE_OFF_REVERSED,
    WRITTEN_OFF,
    History,
    Request,
)
from fusion.money.ledger import Ledger
from fusion.money.providers.provider import Answer, Provider
from fusion.money.sales import Discount
from fusion.money.visits import DecisionKind, Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine
from fusion.store.card_numbers import without_card_number
from fusion.store.models import Store

# Most steps of one visit's payment in one call; far more than any real payment takes.
STEPS_MAX = 50
# An authorisation at the gate is released if no visit has begun on it by then: four times as long as a scan is valid.
UNUSED_MAX_S = 120.0

PaymentStatus = Literal["open", "review", "pending", "person", "paid", "unpaid", "owing", "closed"]


@dataclass(frozen=True, slots=True)
class Payment:
    """How far a visit's payment is.

    Attributes:
        visit: the visit, or the pseudonym of a customer who has not come in yet.
        status: "open" (nothing to pay yet), "review" (waits for a person's decision about the goods), "pending" (a
            provider's answer is missing; `Checkout.settle` finds out), "person" (a person must look at the provider's
            account; see `Checkout.resolve`), "paid", "unpaid" (declined, or no means of payment known; see
            `Checkout.collect` and `Checkout.close`), "owing" (a refund was declined; a person has to return the money
            in another way), or "closed" (written off by a person).
        due: what the visit costs, minor units; None while open or in review.
        paid: captured less refunded and charged back.
        authorised: authorised and neither captured nor released.
        reason: why the last step was declined, or its answer is missing.
        debt: what the customer owes from earlier visits; see `Checkout.admit`.
    """

    visit: str
    status: PaymentStatus
    due: int | None
    paid: int
    authorised: int
    reason: str = ""
    debt: int = 0


class Checkout:
    """Takes the money for one store's visits. Several threads and processes may do so for the same books.

    The store's `[payment]` table says when: on leaving, after an authorisation at the entry, in a payment zone, or
    before the exit opens. All but the first authorise before the goods leave; money itself moves once the bill is
    final.

    A provider that does not answer, rejects a request or contradicts itself is never an exception: the returned payment
    says how far it came. `admit` (mode enter), `confirm`, `receipt`, `decide`, `settle`, `collect`, `close` and
    `recover` wait for the provider; the others read and write the books alone. All raise LedgerError where the books
    cannot be used; calling again resumes where they stopped.
    """

    def __init__(
        self, ledger: Ledger, provider: Provider, store: Store, clock_ns: Callable[[], int] | None = None
    ) -> None:
        """Take the money for a store.

        Args:
            ledger: the store's books.
            provider: moves the money.
            store: names the currency and says when customers pay.
            clock_ns: the present instant, by which a live store judges how old a question to the provider is, whatever
                its sensors' clocks show; without it the times of the calls count, as in a simulation.
        """
        self._ledger, self._provider, self._store, self._clock_ns = ledger, provider, store, clock_ns
        self._asking = Asking(ledger, provider, store)

    # ---- from the entry to the bill ----------------------------------------------------------------------------------

    def admit(self, pseudonym: str, t_ns: int) -> Payment:
        """Whether a customer may come in: they owe nothing, and with mode `enter` `payment.authorise` is authorised.

        Only with mode `enter` the provider is asked. The means of payment is the one that the ledger's vault holds for
        the pseudonym. Repeating the call is harmless.

        Returns a payment that is "open" if they may come in, otherwise "unpaid", "pending" or "person". `debt` is what
        they owe from earlier visits; it must be paid first.
        """
        if debt := self.debt(pseudonym):
            return Payment(pseudonym, "unpaid", None, 0, 0, "owes from earlier visits", debt)
        amount = self._store.payment.authorise if self._store.payment.mode == "enter" else 0
        if not amount:
            return Payment(pseudonym, "open", None, 0, 0)
        history = self._history(pseudonym)
        problem, request = "", history.pending
        if request is None and (history.n_steps == 0 or (history.declined is not None and not history.holds)):
            request = Request("authorise", amount)
        if request is not None:
            problem, history = self._taken(pseudonym, history, request, t_ns)
        if history.declined is not None and not self._store.payment.partial:
            unreleased, history = self._released(pseudonym, history, t_ns)
            problem = problem or unreleased
        payment = self._payment(pseudonym, history, self._ledger.standing(pseudonym), problem)
        is_refused = history.declined is not None and not history.holds
        return replace(payment, status="unpaid") if payment.status == "open" and is_refused else payment

    def debt(self, pseudonym: str) -> int:
        """What a customer owes, minor units, from visits whose payment failed.

        Visits whose payment is under way, or that wait for a person, are no debt. Only the books are asked.

        Args:
            pseudonym: of a visit, or the account itself.
        """
        holder = self._ledger.holder(pseudonym)
        debts = self._ledger.debts(pseudonym if holder is None else holder.account)
        return sum(amount for visit, amount in debts.items() if self._has_failed(visit))

    def _has_failed(self, visit: str) -> bool:
        history, standing = self._history(visit), self._ledger.standing(visit)
        request = self._next(history, standing, history.asked_ns)
        return history.pending is None and (request is None or request.step == "release")

    def open_visit(self, visit: str, pseudonym: str | None, enter_ns: int) -> bool:
        """Record that a visit began, as `Ledger.open_visit`, and move what was authorised at the gate to it."""
        with self._ledger.batch():
            is_new = self._ledger.open_visit(visit, pseudonym, enter_ns)
            if pseudonym is not None:
                history = self._history(pseudonym)
                for number, hold in history.holds.items():
                    if history.pending is not None and history.pending.of == number:
                        continue  # it is being released
                    moved = {"reference": hold.reference, "amount": hold.amount, "since": hold.since_ns}
                    # The customer's own name stays out of the visit's entries.
                    for subject, kind, name, sign in (
                        (pseudonym, HANDED_OVER, number, -1),
                        (visit, TAKEN_OVER, f"gate {number}", 1),
                    ):
                        legs = memorandum(sign * hold.amount, self._store.currency)
                        self._ledger.record(
                            subject, f"authorisation {name}", kind, enter_ns, {**moved, "hold": name}, legs
                        )
        return is_new

    def confirm(self, visit: str, amount: int, t_ns: int) -> bool:
        """Authorise the price of a basket that the customer confirms in the payment zone or at the exit.

        Returns whether they may leave. A step that was declined or not answered is asked again by confirming again;
        less than the whole amount is released.
        """
        history = self._history(visit)
        if history.pending is not None:
            _, history = self._taken(visit, history, history.pending, t_ns)
        if history.pending is None and _most(history) < amount:
            history = self._retried(visit, history, t_ns)
            # One authorisation for everything, so that a single capture follows; a smaller one is released after that.
            _, history = self._taken(visit, history, Request("authorise", amount), t_ns)
            newest = str(history.n_steps)
            if newest in history.holds and _most(history) < amount:
                partial = Request("release", of=newest, reference=history.holds[newest].reference)
                _, history = self._taken(visit, history, partial, t_ns)
        return _most(history) >= amount

    def posted(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> bool:
        """Post a receipt, as `Ledger.post_receipt`, without asking the provider; `settle` it after that."""
        account = receipt.account
        if account is not None and self._history(account).holds and self._ledger.standing(receipt.visit) is None:
            # Their entry was not seen, so what was authorised at the gate is still held for the account.
            self.open_visit(receipt.visit, account, receipt.exit_ns if receipt.enter_ns is None else receipt.enter_ns)
        return self._ledger.post_receipt(receipt, discounts)

    def receipt(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> Payment:
        """Post a receipt and settle it; one in review leaves the money where it is."""
        self.posted(receipt, discounts)
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

        A declined step is not repeated before the price changes; see `collect`. An authorisation that the provider has
        dropped by now is released, and replaced once there is something to capture.
        """
        problem = ""
        for _ in range(STEPS_MAX):
            entries = self._ledger.entries(visit)
            history, standing = History.of(entries), self._ledger.standing(visit, entries)
            if self._reopened(visit, history, standing, t_ns):
                continue
            request = history.pending or self._next(history, standing, self._now_ns(t_ns))
            if request is None:
                return self._payment(visit, history, standing)
            if problem := self._asking.take(visit, history, request, self._now_ns(t_ns)):
                break
        return self._payment(visit, self._history(visit), self._ledger.standing(visit), problem)

    def collect(self, visit: str, t_ns: int) -> Payment:
        """Repeat a declined step, on a person's request, with the newest means of payment of the customer."""
        self._retried(visit, self._history(visit), t_ns)
        return self.settle(visit, t_ns)

    def recover(self, t_ns: int, *, restarted: bool = False) -> list[Payment]:
        """Finish what a crash, a lost connection or a silent provider left behind.

        Finds out about every request without an answer, settles every visit that has a price and is not paid, and
        releases authorisations on which no visit began, or that the provider has dropped.

        Args:
            t_ns: the present instant.
            restarted: the engine that followed the open visits is gone, so they go to review too.
        """
        if restarted:
            self._ledger.review_open_visits(t_ns, Reason(ReasonKind.RESTARTED))
        return [
            self._give_back(subject, t_ns) if self._ledger.standing(subject) is None else self.settle(subject, t_ns)
            for subject in self._unfinished()
        ]

    def _unfinished(self) -> dict[str, None]:
        """Visits and pseudonyms with a step without answer, an amount that is owed, or an authorisation."""
        return dict.fromkeys(
            [
                *(entry.visit for entry in self._ledger.unanswered(ASKED)),
                *self._ledger.balances_of(RECEIVABLE),
                *self._ledger.balances_of(AUTHORISED),
            ]
        )

    def _give_back(self, pseudonym: str, t_ns: int) -> Payment:
        """Finish an authorisation at the gate, and release it once no visit can begin on it any more."""
        history, problem = self._history(pseudonym), ""
        if history.pending is not None:
            problem, history = self._taken(pseudonym, history, history.pending, t_ns)
        if self._now_ns(t_ns) - history.asked_ns >= UNUSED_MAX_S * 1e9:
            unreleased, history = self._released(pseudonym, history, t_ns)
            problem = problem or unreleased
        return self._payment(pseudonym, history, self._ledger.standing(pseudonym), problem)

    # ---- what a person does ------------------------------------------------------------------------------------------

    def resolve(
        self,
        visit: str,
        *,
        carried_out: bool,
        by: str,
        t_ns: int,
        amount: int | None = None,
        reference: str = "",
        note: str = "",
    ) -> Payment:
        """Enter what a person found in the provider's account about the step whose answer is missing, then settle.

        A step that was not carried out is not asked again before the price changes; see `collect` and `close`.

        Args:
            visit: the visit, or the pseudonym of a customer who has not come in.
            carried_out: whether the provider carried the step out.
            by: who looked; kept for good.
            t_ns: when.
            amount: what was authorised, captured or refunded, minor units; None: what was asked for.
            reference: the provider's name for it. A capture without it cannot be refunded by this program; an
                authorisation needs it.
            note: the person's remark.

        Raises:
            LedgerError: no answer is missing, or what is entered cannot be true. Nothing is recorded.
        """
        history = self._history(visit)
        if history.pending is None:
            raise LedgerError(f"visit {visit!r}: want a step without an answer to resolve, got none")
        request = history.pending
        asked = Asked(visit, history.n_steps, request, history.asked_ns)
        answer = Answer(carried_out, reference, amount=amount)
        # A capture may be known by its amount alone.
        checked = replace(answer, reference=reference or "-") if request.step in ("capture", "refund") else answer
        if objection := self._asking.objection(asked, checked):
            raise LedgerError(f"visit {visit!r}: {objection}")
        person = _person(by, note)
        self._asking.book(asked, history, answer if carried_out else None, **person)
        return self.settle(visit, t_ns)

    def close(self, visit: str, *, by: str, t_ns: int, note: str = "") -> Payment:
        """Write off what a visit owes that cannot be paid, or what could not be refunded, and release what is held.

        The amount goes to an account of its own. A later decision about the visit takes it back from there.

        Raises:
            LedgerError: the visit has no final price, or a capture or refund waits for its answer; `decide` or
                `resolve` first.
        """
        payment, history = self.settle(visit, t_ns), self._history(visit)
        moves_money = history.pending is not None and history.pending.step in ("capture", "refund")
        if payment.due is None or moves_money:
            raise LedgerError(f"visit {visit!r}: want a final price and no missing answer, got {payment.status}")
        if history.owed:
            person = _person(by, note)
            self._write_off(visit, history, history.owed, WRITTEN_OFF, t_ns, person)
        return self.settle(visit, t_ns)

    def charged_back(
        self, reference: str, amount: int, *, event: str, t_ns: int, returned: bool = False
    ) -> Payment:
        """Book that a bank took a payment back, or with `returned` that it gave it to the store again.

        The visit owes the amount again and is not captured by itself: its customer is a debtor until a person collects
        or closes it.

        Args:
            reference: the provider's name for the capture.
            amount: minor units.
            event: the provider's name for this event; the same event is booked once.
            t_ns: when.
            returned: the bank decided for the store.

        Raises:
            LedgerError: the books have no capture of this reference, or nothing is left of it.
        """
        visit = charge_back(
            self._ledger, self._store.currency, reference, amount, event=event, t_ns=t_ns, returned=returned
        )
        return self.state(visit)

    def outstanding(self) -> list[Payment]:
        """Every payment that is not done: "pending", "person", "unpaid" or "owing". The provider is not asked."""
        payments = map(self.state, self._unfinished())
        return [payment for payment in payments if payment.status in ("pending", "person", "unpaid", "owing")]

    def state(self, visit: str) -> Payment:
        """How far a visit's payment is, without asking the provider."""
        entries = self._ledger.entries(visit)
        return self._payment(visit, History.of(entries), self._ledger.standing(visit, entries))

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _payment(self, visit: str, history: History, standing: Standing | None, problem: str = "") -> Payment:
        due = standing.total if standing is not None and standing.is_final else None
        status: PaymentStatus
        if history.pending is not None:
            status = "person" if history.question else "pending"
        elif due is None:
            status = "review" if standing is not None and standing.status == "review" else "open"
        elif history.owed:
            status = "unpaid" if history.owed > 0 else "owing"
        else:
            status = "closed" if history.written_off else "paid"
        reason = history.question or problem or history.declined or ""
        return Payment(visit, status, due, history.paid, history.authorised, reason)

    def _next(self, history: History, standing: Standing | None, now_ns: int) -> Request | None:
        """The next step of a visit's payment; None where nothing is left to do."""
        if standing is None:
            return None
        kept_since_ns = now_ns - round(self._provider.terms.holds_kept_s * 1e9)
        has_means = history.owed > 0 and self._asking.token(standing.visit, now_ns) is not None
        return history.next_step(is_final=standing.is_final, has_means=has_means, kept_since_ns=kept_since_ns)

    def _now_ns(self, t_ns: int) -> int:
        return t_ns if self._clock_ns is None else self._clock_ns()

    def _history(self, subject: str) -> History:
        return History.of(self._ledger.entries(subject))

    def _taken(self, subject: str, history: History, request: Request, t_ns: int) -> tuple[str, History]:
        """Take a step; returns why its answer is missing, or nothing, and the history after that."""
        problem = self._asking.take(subject, history, request, self._now_ns(t_ns))
        return problem, self._history(subject)

    def _released(self, subject: str, history: History, t_ns: int) -> tuple[str, History]:
        """Release everything that is held for a subject; returns as `_taken`."""
        problem = ""
        for name, hold in list(history.holds.items()):
            if history.pending is None:
                step = Request("release", of=name, reference=hold.reference)
                problem, history = self._taken(subject, history, step, t_ns)
        return problem, history

    def _retried(self, visit: str, history: History, t_ns: int) -> History:
        """Allow a declined step to be repeated; returns the history after that."""
        if history.declined is None:
            return history
        with suppress(IdempotencyConflict):  # another person asked at the same moment
            self._ledger.record(visit, f"retry {history.n_retries + 1}", RETRY, self._now_ns(t_ns), {})
        return self._history(visit)

    def _reopened(self, visit: str, history: History, standing: Standing | None, t_ns: int) -> bool:
        """Take back what was written off, as far as a later price has made it wrong; whether that was needed."""
        lost, owed = history.written_off, history.owed
        if standing is None or not standing.is_final or lost * owed >= 0:
            return False
        taken_back = -min(lost, -owed) if lost > 0 else min(-lost, owed)
        with suppress(IdempotencyConflict):  # another process does the same
            self._write_off(visit, history, taken_back, WRITE_OFF_REVERSED, t_ns, {})
        return True

    def _write_off(
        self, visit: str, history: History, amount: int, kind: str, t_ns: int, person: dict[str, str]
    ) -> None:
        currency, name = self._store.currency, f"write-off {history.n_write_offs + 1}"
        legs = (Posting(LOSSES, currency, amount), Posting(RECEIVABLE, currency, -amount))
        self._ledger.record(visit, name, kind, t_ns, person, legs)


def _most(history: History) -> int:
    """The largest amount that a single authorisation holds."""
    _, hold = history.largest
    return hold.amount


def _person(by: str, note: str) -> dict[str, str]:
    """Who did something, and their remark, as an entry holds them."""
    texts = {"by": checked_text("by", by), "note": checked_text("note", note, NOTE_MAX, 0)}
    return {name: without_card_number(text) for name, text in texts.items()}
