"""Pseudonyms: the random name under which a visit runs, so that engine, results and books never see an account."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace

from fusion.gates.verifiers import AskWorld, GateRequest, Refused, Verified, Verifier
from fusion.money.ledger import Ledger
from fusion.money.payments import UNUSED_MAX_S, Payment
from fusion.money.vault import Holder
from fusion.money.visits import OpenVisit


def pseudonym(choose: Callable[[str], str]) -> str:
    """A random name of 20 letters, 94 bits. No digits: a run of them may look like a card number and be refused.

    `choose` picks one character of a text at random.
    """
    return "p-" + "".join(choose("abcdefghijklmnopqrstuvwxyz") for _ in range(20))


@dataclass
class _Present:
    """A customer who was admitted and has not left. `entered` is False from the scan until they cross the line."""

    account: str = field(repr=False)
    pseudonym: str
    since_ns: int
    entered: bool = False


class Pseudonyms:
    """Assigns every visit a random name and keeps in the vault which account it belongs to.

    An account keeps its pseudonym while its visit lasts, so one account serves a family; the next visit has another.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        customer: Callable[[str], Verified | None] = lambda account: None,
        may_enter: Callable[[str], Refused | None] = lambda account: None,
        admit: Callable[[str, int], Payment] | None = None,
        new: Callable[[], str] = lambda: pseudonym(secrets.choice),
    ) -> None:
        """Assign the pseudonyms of a store; all verifiers whose customers pay share them.

        Args:
            ledger: its vault keeps the link.
            customer: means of payment, address and name of an account, if the retailer knows them.
            may_enter: why an account may not come in, such as an open debt, from memory or the books.
            admit: `Checkout.admit`, where an amount is authorised at the entry.
            new: makes a pseudonym.
        """
        self._ledger, self._customer, self._may_enter = ledger, customer, may_enter
        self._admit, self._new = admit, new
        self._lock = threading.Lock()
        self._by_account: dict[str, _Present] = {}
        self._by_pseudonym: dict[str, _Present] = {}

    def behind(self, verifier: Verifier) -> Verifier:
        """A verifier that answers with pseudonyms where another answers with accounts."""
        return _Behind(self, verifier)

    def name(self, answer: Verified, t_ns: int) -> Verified | Refused | AskWorld:
        """The same answer under a pseudonym; where an amount is authorised at the entry, the question for it."""
        refused = self._may_enter(answer.account)
        if refused is not None:
            return refused
        known = self._customer(answer.account)
        if known is not None:
            answer = replace(answer, greeting=known.greeting, token=answer.token or known.token, email=known.email)
        with self._lock:
            present = self._by_account.get(answer.account)
            if present is None or (not present.entered and t_ns - present.since_ns > UNUSED_MAX_S * 1e9):
                self._drop(present)
                present = _Present(answer.account, self._new(), t_ns)
                holder = Holder(present.pseudonym, answer.account, answer.token, answer.email, t_ns)
                self._ledger.hold(holder)
                self._by_account[answer.account] = self._by_pseudonym[present.pseudonym] = present
        named = replace(answer, account=present.pseudonym, token=None, email=None)
        admit = self._admit
        return named if admit is None else AskWorld(lambda: _admitted(admit(named.account, t_ns), named))

    def resume(self, visits: Iterable[OpenVisit]) -> None:
        """Continue with the visits that are open in the books after a restart: their accounts keep their names."""
        with self._lock:
            for visit in visits:
                holder = self._ledger.holder(visit.account) if visit.account is not None else None
                if holder is not None and holder.account not in self._by_account:
                    present = _Present(holder.account, holder.pseudonym, holder.since_ns, entered=True)
                    self._by_account[holder.account] = self._by_pseudonym[holder.pseudonym] = present

    def entered(self, pseudonym: str | None) -> None:
        """Note that a person came in under this pseudonym."""
        with self._lock:
            if pseudonym in self._by_pseudonym:
                self._by_pseudonym[pseudonym].entered = True

    def left(self, pseudonym: str | None) -> None:
        """End a visit; the account's next visit gets another pseudonym."""
        with self._lock:
            self._drop(self._by_pseudonym.get(pseudonym or ""))

    def forget(self, names: Container[str]) -> None:
        """Drop the customers who go by some pseudonyms at once, on their request."""
        with self._lock:
            for present in [one for name, one in self._by_pseudonym.items() if name in names]:
                self._drop(present)

    def _drop(self, present: _Present | None) -> None:
        if present is not None:
            del self._by_account[present.account], self._by_pseudonym[present.pseudonym]


class _Behind(Verifier):
    """Another verifier's answers, under pseudonyms."""

    def __init__(self, pseudonyms: Pseudonyms, verifier: Verifier) -> None:
        self._pseudonyms, self._verifier = pseudonyms, verifier

    def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
        answer = self._verifier.verify(request)
        if isinstance(answer, AskWorld):
            raise TypeError("want a verifier that needs no provider behind pseudonyms, since they ask one themselves")
        return answer if isinstance(answer, Refused) else self._pseudonyms.name(answer, request.t_ns)


def _admitted(payment: Payment, named: Verified) -> Verified | Refused | None:
    """The gate's answer to an authorisation; None while the provider has given none."""
    if payment.debt:
        return Refused("owes from earlier visits", "Please pay for your last visit first")
    if payment.status == "pending":
        return None
    if payment.status == "person":
        return Refused("payment waits for a person")
    if payment.status == "open":
        return named
    # Stolen cards are tried out where no person looks, so a declined one counts as a guess.
    return Refused("payment declined", "Your means of payment was declined", guess=True)
