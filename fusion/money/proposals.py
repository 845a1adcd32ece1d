"""Decisions that a person has asked for and that take effect a little later, in the books.

What a person asks for is an entry first. For ten seconds it can be withdrawn; above the amounts that one person may
decide alone it waits for a second person, whose consent has its own ten seconds. Then whoever notices first that it is
due (a console, or the till's errand) enters the decision itself, `Ledger.decide`, in the same transaction that closes
the proposal. So it takes effect once, and never after it was withdrawn. A restart loses none: all of it is in the
entries of the visit.

    VISIT/proposal 1           "proposal made"       by, decision, revision, lines, amounts, reason, due
    VISIT/proposal 1/second    "proposal seconded"   by, due
    VISIT/proposal 1/answer    "proposal applied", "proposal withdrawn" (by) or "proposal void" (why)

A visit has one open proposal at most: of two people who act at once, the second is informed whose comes first. The
kinds begin with a word of their own, so that what reads receipts and decisions passes them by.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Self, get_args
from zoneinfo import ZoneInfo

from fusion.errors import EntryError, IdempotencyConflict, LedgerError, NotPermitted
from fusion.money.entries import AMOUNT_MAX, NOTE_MAX, Entry, checked_instant, checked_integer, checked_text
from fusion.money.ledger import Ledger
from fusion.money.sales import Discount, Sale
from fusion.money.visits import CHARGING, DecisionKind, Standing
from fusion.results import ReceiptLine
from fusion.store.card_numbers import without_card_number
from fusion.store.models import Store

MADE, SECONDED = "proposal made", "proposal seconded"
APPLIED, WITHDRAWN, VOID = "proposal applied", "proposal withdrawn", "proposal void"
KINDS = (MADE, SECONDED, APPLIED, WITHDRAWN, VOID)
# How long a decision can be withdrawn: time to see what one has done, and short beside the minutes that a bill waits.
UNDO_S = 10.0
ROWS_AT_ONCE = 500

ProposalState = Literal["counting", "waiting", "applied", "withdrawn", "void"]


class DecisionReason(StrEnum):
    """Why a decision changes what a visit costs; the books keep the value."""

    NOT_TAKEN = "not_taken"  # billed, and not taken or put back
    MISSED = "missed"  # taken, and not billed
    OTHER_PRODUCT = "other_product"
    OTHER_QUANTITY = "other_quantity"
    WRONG_PRICE = "wrong_price"
    RETURNED = "returned"  # brought back, damaged or spoiled
    GOODWILL = "goodwill"
    TEST = "test"  # staff or a test visit
    OTHER = "other"  # the note says it


@dataclass(frozen=True, slots=True)
class Authority:
    """What a person may decide in a store.

    Attributes:
        name: the person; kept for good.
        refunds: whether they may change what was charged already.
        cap: largest amount of one decision without a second person, minor units; None: any.
        day_cap: the same for all their decisions of a day by the store's clock.
    """

    name: str
    refunds: bool = True
    cap: int | None = None
    day_cap: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants decided about a visit; fields as of `Ledger.decide`."""

    visit: str
    decision: DecisionKind
    revision: int
    lines: tuple[ReceiptLine, ...] | None = None
    discounts: tuple[Discount, ...] = ()
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision that was asked for.

    Attributes:
        visit: what it is about.
        number: counts the visit's proposals from 1.
        by: who asked.
        decision: what for.
        revision: number that the decision has.
        sale: the goods that the visit then consists of.
        reason: a `DecisionReason`, "" where the bill stays as it is.
        note: the person's remark.
        made_ns: when it was asked for.
        due_ns: from when it takes effect; while it waits for a second person, the earliest instant.
        needs_second: whether it waits, or waited, for a second person.
        seconded_by: that person; "" while there is none.
        before: what the visit's bill amounts to, minor units: charged, or as the receipt in review has it.
        after: what the decision makes of it.
        amount: what counts against the caps; see `amount_of`.
        ended: how it ended: APPLIED, WITHDRAWN or VOID; "" while it is open.
        ended_by: who withdrew it.
        why: why it is void.
        overtaken: another decision has taken its place.
    """

    visit: str
    number: int
    by: str
    decision: DecisionKind
    revision: int
    sale: Sale
    reason: str
    note: str
    made_ns: int
    due_ns: int
    needs_second: bool
    before: int
    after: int
    amount: int
    seconded_by: str = ""
    ended: str = ""
    ended_by: str = ""
    why: str = ""
    overtaken: bool = False

    @property
    def name(self) -> str:
        """Second part of its entry's key."""
        return f"proposal {self.number}"

    @property
    def waits(self) -> bool:
        """Whether it cannot take effect before a second person agrees."""
        return self.needs_second and not self.seconded_by

    @property
    def state(self) -> ProposalState:
        """Whether it counts down or waits for a second person, or how it ended."""
        if self.ended:
            return self.ended.removeprefix("proposal ")  # type: ignore[return-value]
        return "void" if self.overtaken else "waiting" if self.waits else "counting"

    def is_due(self, now_ns: int) -> bool:
        """Whether it takes effect now."""
        return self.state == "counting" and now_ns >= self.due_ns

    @classmethod
    def made(cls, entry: Entry, number: int) -> Self:
        """The proposal of an entry of the kind MADE."""
        request = entry.request
        return cls(
            entry.visit, number, request["by"], request["decision"], request["revision"], Sale.stored(request),
            request["reason"], request["note"], entry.t_ns, request["due"], bool(request["second"]),
            request["before"], request["after"], request["amount"],
        )  # fmt: skip


def proposals_of(entries: Iterable[Entry]) -> list[Proposal]:
    """All proposals about a visit, oldest first, from the visit's entries."""
    found: dict[str, Proposal] = {}
    decided = 0
    for entry in entries:
        if entry.kind == MADE:
            found[entry.key] = Proposal.made(entry, len(found) + 1)
        elif entry.kind in CHARGING:
            decided = max(decided, entry.request.get("revision", 0))
        elif entry.kind == SECONDED:
            key = entry.key.removesuffix("/second")
            found[key] = replace(found[key], seconded_by=entry.request["by"], due_ns=entry.request["due"])
        elif entry.kind in KINDS:
            key, request = entry.key.removesuffix("/answer"), entry.request
            ended_by, why = request.get("by", ""), request.get("why", "")
            found[key] = replace(found[key], ended=entry.kind, ended_by=ended_by, why=why)
    return [
        replace(each, overtaken=True) if not each.ended and each.revision <= decided else each
        for each in found.values()
    ]


def amount_of(standing: Standing, after: int) -> int:
    """What a decision moves, minor units: what it takes off the bill or adds to it, and what it charges.

    A receipt in review has charged nothing yet, so that accepting it moves all of it, and so does waiving it.
    """
    changed = abs(after - standing.total)
    return changed if standing.is_final else max(changed, after)


class Proposals:
    """The proposals in one store's books; several threads and processes may use the same books."""

    def __init__(self, ledger: Ledger, store: Store, *, undo_s: float = UNDO_S) -> None:
        """Prepare.

        Args:
            ledger: the books.
            store: whose day counts, and which products a corrected bill may hold.
            undo_s: how long a proposal can be withdrawn.
        """
        self._ledger, self._store, self._undo_ns = ledger, store, round(undo_s * 1e9)
        self._lock = threading.Lock()
        # Number of the newest entry that was read, and by visit what was open then.
        self._seq: int | None = None
        self._open: dict[str, Proposal] = {}

    def adopt(self, store: Store) -> None:
        """Use a changed store of the same id, currency and time zone."""
        self._store = store

    def of(self, visit: str) -> list[Proposal]:
        """All proposals about a visit, oldest first."""
        return proposals_of(self._ledger.entries(visit))

    def open(self) -> list[Proposal]:
        """What counts down or waits for a second person, oldest first. Costs little where nothing has changed.

        Raises:
            LedgerError: the books cannot be read.
        """
        with self._lock:
            if self._seq is None:
                seq = self._ledger.head().seq
                touched = dict.fromkeys(entry.visit for entry in self._ledger.unanswered(MADE))
                self._read(touched)
                self._seq = seq
            while rows := self._ledger.rows_after(self._seq, ROWS_AT_ONCE)[0]:
                known = self._open
                changed = (row for row in rows if row.kind in KINDS or (row.kind in CHARGING and row.visit in known))
                self._read(dict.fromkeys(row.visit for row in changed))
                self._seq = rows[-1].seq
            return sorted(self._open.values(), key=lambda each: (each.made_ns, each.visit))

    def _read(self, visits: Iterable[str]) -> None:
        for visit in visits:
            newest = self.of(visit)[-1:]
            if newest and not newest[0].ended:
                self._open[visit] = newest[0]
            else:
                self._open.pop(visit, None)

    # ---- what people do ----------------------------------------------------------------------------------------------

    def ask(self, wish: Wish, authority: Authority, t_ns: int) -> Proposal:
        """Enter what a person wants decided. Asking for the same again while it is open changes nothing.

        Raises:
            IdempotencyConflict: the visit was decided, or another decision was asked for, in the meantime.
            NotPermitted: the visit was charged already and the person may not refund.
            LedgerError: the decision makes no sense for this visit, or lacks the reason that it needs.
        """
        t_ns = checked_instant("t_ns", t_ns)
        if wish.decision not in get_args(DecisionKind):
            raise LedgerError(f"decision: want accept, correct or waive, got {wish.decision!r}")
        if (wish.lines is not None) != (wish.decision == "correct") or (wish.discounts and wish.lines is None):
            raise LedgerError(f"lines: want lines with the decision correct and no other, got {wish.decision}")
        sale = Sale.checked(wish.lines or (), wish.discounts)
        products = {product.gtin for product in self._store.products}
        for line in sale.lines:
            if line.gtin not in products:
                raise EntryError(f"gtin: want a product of {self._store.id!r}, got {line.gtin!r}")
        note = without_card_number(checked_text("note", wish.note, NOTE_MAX, 0))
        with self._ledger.batch():
            entries = self._ledger.entries(wish.visit)
            standing = self._ledger.standing(wish.visit, entries)
            if standing is None or standing.status == "open":
                raise LedgerError(f"visit {wish.visit!r}: want a receipt to decide about, got none")
            known = proposals_of(entries)
            if known and not known[-1].ended and not known[-1].overtaken:
                return self._repeated(known[-1], replace(wish, note=note), authority)
            if checked_integer("revision", wish.revision, 1, 10**6) <= standing.revision:
                by = next(entry.request["by"] for entry in reversed(entries) if entry.kind.startswith("decision "))
                raise IdempotencyConflict(f"{by} decided this visit in the meantime")
            self._check(wish, standing, authority)
            if wish.decision == "accept":
                sale = Sale(standing.lines, standing.discounts)
            amount, is_changed = amount_of(standing, sale.total), sale.total != standing.total
            self._check_reason(wish, is_changed=is_changed)
            if known and not known[-1].ended:
                self._void(known[-1], t_ns, "another decision has taken its place")
            second = self._needs_second(authority, amount, t_ns)
            request = {
                **sale.request(), "by": checked_text("by", authority.name), "decision": wish.decision,
                "revision": wish.revision, "reason": wish.reason, "note": note, "due": t_ns + self._undo_ns,
                "second": int(second), "before": standing.total, "after": sale.total, "amount": amount,
            }  # fmt: skip
            name = f"proposal {len(known) + 1}"
            self._ledger.record(wish.visit, name, MADE, t_ns, request)
        return self._numbered(wish.visit, len(known) + 1)

    def withdraw(self, visit: str, number: int, by: str, t_ns: int) -> Proposal:
        """Take a proposal back, as the person who asked, or refuse it as another. Repeating changes nothing.

        Raises:
            IdempotencyConflict: it has taken effect, or is due to.
            LedgerError: there is no such proposal.
        """
        checked_text("by", by)
        with self._ledger.batch():
            proposal = self._numbered(visit, number)
            if proposal.state in ("withdrawn", "void"):
                return proposal
            if proposal.ended or proposal.is_due(checked_instant("t_ns", t_ns)):
                raise IdempotencyConflict("too late: the decision has taken effect")
            self._ledger.record(visit, f"{proposal.name}/answer", WITHDRAWN, t_ns, {"by": by})
        return self._numbered(visit, number)

    def second(self, visit: str, number: int, authority: Authority, t_ns: int) -> Proposal:
        """Agree to a proposal that waits for a second person. Repeating changes nothing.

        Raises:
            NotPermitted: the person asked for it themselves, or may not change what was charged.
            IdempotencyConflict: another person has agreed, or it has ended.
            LedgerError: there is no such proposal, or it needs no second person.
        """
        with self._ledger.batch():
            proposal = self._numbered(visit, number)
            if not proposal.needs_second:
                raise LedgerError(f"visit {visit!r}: this decision needs no second person")
            if checked_text("by", authority.name) == proposal.by:
                raise NotPermitted("a decision needs a second person other than the one who asked for it")
            if proposal.seconded_by == authority.name:
                return proposal
            if proposal.state != "waiting":
                raise IdempotencyConflict(
                    f"{proposal.seconded_by} has agreed already" if proposal.seconded_by else f"it is {proposal.state}"
                )
            standing = self._ledger.standing(visit)
            if standing is not None and standing.is_final and not authority.refunds:
                raise NotPermitted("the visit was charged already: this needs the right to refund")
            due_ns = max(proposal.due_ns, checked_instant("t_ns", t_ns) + self._undo_ns)
            request = {"by": authority.name, "due": due_ns}
            self._ledger.record(visit, f"{proposal.name}/second", SECONDED, t_ns, request)
        return self._numbered(visit, number)

    # ---- what takes effect -------------------------------------------------------------------------------------------

    def apply_due(self, now_ns: int) -> list[str]:
        """Let everything that is due take effect. Returns the visits that were decided by this call.

        Whoever calls first enters the decision, dated by the instant from which it was due; for the others nothing is
        left to do.

        Raises:
            LedgerError: the books cannot be used; a later call resumes.
        """
        return [
            each.visit
            for each in self.open()
            if (each.is_due(now_ns) or each.overtaken) and self._applied(each.visit, each.number, now_ns)
        ]

    def _applied(self, visit: str, number: int, now_ns: int) -> bool:
        with self._ledger.batch():
            proposal = self._numbered(visit, number)  # as it is under the lock of the books
            if proposal.ended:
                return False
            if proposal.overtaken:
                self._void(proposal, now_ns, "another decision has taken its place")
                return False
            if not proposal.is_due(now_ns):
                return False
            is_correction = proposal.decision == "correct"
            try:
                self._ledger.decide(
                    visit, proposal.decision, by=proposal.by, t_ns=proposal.due_ns, revision=proposal.revision,
                    lines=proposal.sale.lines if is_correction else None,
                    discounts=proposal.sale.discounts if is_correction else (), note=proposal.note,
                )  # fmt: skip
            except EntryError as error:
                # A product has left the store since: a person has to look again.
                self._void(proposal, proposal.due_ns, str(error))
                return False
            self._ledger.record(visit, f"{proposal.name}/answer", APPLIED, proposal.due_ns, {})
        return True

    def _void(self, proposal: Proposal, t_ns: int, why: str) -> None:
        self._ledger.record(proposal.visit, f"{proposal.name}/answer", VOID, t_ns, {"why": why[:NOTE_MAX]})

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _numbered(self, visit: str, number: int) -> Proposal:
        known = self.of(visit)
        if not 1 <= checked_integer("number", number, 1, 10**6) <= len(known):
            raise LedgerError(f"visit {visit!r}: there is no proposal {number}")
        return known[number - 1]

    @staticmethod
    def _repeated(proposal: Proposal, wish: Wish, authority: Authority) -> Proposal:
        """The open proposal, where the same person asks for the same again."""
        is_same = (proposal.by, proposal.decision, proposal.revision, proposal.reason, proposal.note) == (
            authority.name, wish.decision, wish.revision, wish.reason, wish.note,
        )  # fmt: skip
        if wish.lines is not None:
            sale = Sale.stored(Sale(wish.lines, wish.discounts).request())
            is_same = is_same and sale == proposal.sale
        if not is_same:
            whose = "you have" if proposal.by == authority.name else f"{proposal.by} has"
            raise IdempotencyConflict(f"{whose} asked for a decision about this visit: {proposal.decision}")
        return proposal

    @staticmethod
    def _check(wish: Wish, standing: Standing, authority: Authority) -> None:
        if wish.revision > standing.revision + 1:
            raise LedgerError(f"revision: want {standing.revision + 1}, got {wish.revision}")
        if wish.decision == "accept" and standing.status != "review":
            raise LedgerError(f"visit {wish.visit!r}: want a receipt in review to accept, got one that was charged")
        if standing.is_final and not authority.refunds:
            raise NotPermitted("the visit was charged already: this needs the right to refund")

    @staticmethod
    def _check_reason(wish: Wish, *, is_changed: bool) -> None:
        reasons = tuple(DecisionReason)
        if wish.reason and wish.reason not in reasons:
            raise LedgerError(f"reason: want one of {', '.join(reasons)}, got {wish.reason!r}")
        if is_changed and not wish.reason:
            raise LedgerError("reason: want one, since the decision changes what the visit costs")
        if wish.reason == DecisionReason.OTHER and not wish.note.strip():
            raise LedgerError("note: want the reason in words, since the reason is other")

    def _needs_second(self, authority: Authority, amount: int, t_ns: int) -> bool:
        """Whether a person may not decide an amount alone, by itself or on top of what they decided that day."""
        if not amount:
            return False
        if authority.cap is not None and amount > checked_integer("cap", authority.cap, 0, AMOUNT_MAX):
            return True
        if authority.day_cap is None:
            return False
        return self._decided_alone(authority.name, t_ns) + amount > authority.day_cap

    def _decided_alone(self, name: str, t_ns: int) -> int:
        """What a person decided alone on the day of an instant, and did not withdraw; minor units."""
        day = self._store.local_time(t_ns).date()
        zone = ZoneInfo(self._store.timezone)
        begin_ns = int(datetime.datetime.combine(day, datetime.time(), zone).timestamp()) * 10**9
        made = [entry for entry in self._ledger.entries_of(MADE, since_ns=begin_ns) if entry.request["by"] == name]
        total = 0
        for visit in dict.fromkeys(entry.visit for entry in made):
            total += sum(
                each.amount
                for each in self.of(visit)
                if each.by == name and each.made_ns >= begin_ns and not each.needs_second
                and each.state not in ("withdrawn", "void")
            )  # fmt: skip
        return total


__all__ = [
    "APPLIED", "KINDS", "MADE", "SECONDED", "UNDO_S", "VOID", "WITHDRAWN", "Authority", "DecisionReason", "Proposal",
    "ProposalState", "Proposals", "Wish", "amount_of", "proposals_of",
]  # fmt: skip
