"""What a store's shoppers answered and disputed, read from the books: of all of them, and of one customer.

Which answers were a customer's is known for as long as the vault links their visits. A week after an answer, when a
person has decided what no answer settled, it is folded into one number that is kept of the customer (`Profiles`), so
that a mark does not end with the links. Whoever asks to be forgotten is forgotten in both.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fusion.money.disputes import (
    ANSWERED,
    AUTOMATIC,
    DISPUTED,
    TRUSTED,
    Dispute,
    ShopperAnswer,
)
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.profiles import Answering, Profiles
from fusion.money.visits import DECISIONS
from fusion.till.answer_settings import AnswerSettings
from fusion.till.reliability import MILLION, Habits, Statement, Tally

MONTH_NS = 30 * 86_400 * 10**9
# Older answers of the store teach nothing more about its shoppers of today.
KEPT_NS = 400 * 86_400 * 10**9
# By then a person has decided what an answer did not settle; stores keep their links longer.
CARRIED_AFTER_NS = 7 * 86_400 * 10**9
# A shopper disputes a right line in one visit of 50, as an expectation that counts as much as 25 visits.
DISPUTES_MEAN, DISPUTES_WEIGHT = 0.02, 25.0


@dataclass(slots=True)
class VisitHistory:
    """What was answered and disputed about one visit.

    Attributes:
        answers, disputes: oldest first.
        decided: pieces by GTIN on the bill that a person decided; None while no person has.
        trusted: number of the newest entry by which a person lifted a mark; 0 where there is none.
        tally: of the answers, as it is counted for the store.
    """

    answers: list[ShopperAnswer] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    decided: dict[str, int] | None = None
    trusted: int = 0
    tally: Tally = field(default_factory=Tally)

    def statements(self) -> list[Statement]:
        """The answers with what is known about the truth, oldest first."""
        return [Statement.of(each.choice, each.worth, self.decided) for each in self.answers]

    def rejected(self, dispute: Dispute) -> bool:
        """Whether a person found all disputed pieces right."""
        return self.decided is not None and self.decided.get(dispute.gtin, 0) >= dispute.worth.get("billed", 1)

    @property
    def newest_ns(self) -> int:
        """When anything was answered or disputed last."""
        stated: list[ShopperAnswer | Dispute] = [*self.answers, *self.disputes]
        return max((each.t_ns for each in stated), default=0)


@dataclass(frozen=True, slots=True)
class CustomerHistory:
    """What one customer answered and disputed.

    Attributes:
        known: whether the visit has a customer at all; of others nothing is known.
        ratio: likelihood ratio taker : honest; see `fusion.till.reliability`.
        marked: whether it was ever as high as the settings allow, since a person last lifted a mark.
        taken_off: what their word took off bills in the last month without a person, minor units.
        n_month: how often it did.
        disputes: expected number of right lines that they dispute in a visit.
    """

    known: bool
    ratio: float
    marked: bool
    taken_off: int
    n_month: int
    disputes: float


class AnswerHistory:
    """Reads a store's books for answers, disputes and what was decided after them. From any thread."""

    def __init__(self, ledger: Ledger, settings: AnswerSettings, profiles: Profiles | None) -> None:
        self._ledger, self._settings, self._profiles = ledger, settings, profiles
        self._prior = Habits(settings.mistakes, settings.takers)
        self._lock = threading.Lock()
        self._read_to, self._newest_ns = 0, 0
        self._visits: dict[str, VisitHistory] = {}
        self._tally = Tally()
        self._to_carry: dict[str, None] = {}
        self._dropped_ns = 0

    def habits(self) -> Habits:
        """How the store's shoppers answer, as far as decided visits show."""
        with self._lock:
            self._read()
            return self._tally.habits(self._prior, self._settings.learnt_from)

    def customer(self, visit: str, t_ns: int) -> CustomerHistory:
        """What the customer of a visit answered and disputed so far; months end at t_ns."""
        habits, linked = self.habits(), self._ledger.visits_beside(visit)
        account = self._ledger.account_of(visit)
        with self._lock:
            self._carry(t_ns)
            found = [self._visits[each] for each in linked if each in self._visits]
            before = Answering() if account is None or self._profiles is None else self._profiles.answering(account)
        now = _followed(before, found, habits, t_ns)
        taken_off = [amount for each in found for amount in _taken_off(each, t_ns - MONTH_NS)]
        doubted = sum(
            1.0 if each.rejected(dispute) else 1.0 - dispute.worth.get("wrong", 0) / MILLION
            for each in found
            for dispute in each.disputes
        )
        disputes = (DISPUTES_MEAN * DISPUTES_WEIGHT + doubted) / (DISPUTES_WEIGHT + len(linked))
        marked = now.highest >= self._settings.marked_from
        return CustomerHistory(bool(linked), now.ratio, marked, sum(taken_off), len(taken_off), disputes)

    def trust(self, visit: str, t_ns: int) -> None:
        """Forget what the customer of a visit answered before: a person has lifted their mark."""
        account = self._ledger.account_of(visit)
        if account is not None and self._profiles is not None:
            with self._lock:
                self._profiles.keep_answering(account, Answering(seq=self._ledger.head().seq, t_ns=t_ns))

    def _carry(self, t_ns: int) -> None:
        """Add what is old enough to have been decided to what is kept of its customers, before their links end."""
        profiles, habits = self._profiles, self._tally.habits(self._prior, self._settings.learnt_from)
        while profiles is not None and self._to_carry:
            visit = next(iter(self._to_carry))
            if visit in self._visits and self._visits[visit].newest_ns > t_ns - CARRIED_AFTER_NS:
                break
            del self._to_carry[visit]
            account = self._ledger.account_of(visit)
            if account is not None and visit in self._visits:
                before = profiles.answering(account)
                after = _followed(before, [self._visits[visit]], habits, t_ns)
                if after.seq > before.seq:
                    profiles.keep_answering(account, after)
        if profiles is not None and t_ns - self._dropped_ns > MONTH_NS:
            self._dropped_ns = t_ns
            profiles.drop_answering(t_ns - KEPT_NS)

    def _read(self) -> None:
        """Follow what was added to the books since the last call."""
        entries = self._ledger.entries_of(ANSWERED, DISPUTED, TRUSTED, *DECISIONS, after=self._read_to)
        if not entries:
            return
        self._read_to = entries[-1].seq
        for entry in entries:
            self._follow(entry)
            self._newest_ns = max(self._newest_ns, entry.t_ns)
        # In the order of the books, which is nearly that of time.
        while self._visits and next(iter(self._visits.values())).newest_ns < self._newest_ns - KEPT_NS:
            self._tally = self._tally.plus(self._visits.pop(next(iter(self._visits))).tally, -1)

    def _follow(self, entry: Entry) -> None:
        if entry.kind in DECISIONS and entry.visit not in self._visits:
            return
        visit = self._visits.setdefault(entry.visit, VisitHistory())
        if entry.kind == ANSWERED:
            visit.answers.append(ShopperAnswer.of(entry))
            self._to_carry[entry.visit] = None
        elif entry.kind == DISPUTED:
            visit.disputes.append(Dispute.of(entry))
            self._to_carry[entry.visit] = None
        elif entry.kind == TRUSTED:
            visit.trusted = entry.seq
        elif entry.request["by"] not in AUTOMATIC and entry.kind != "decision waive":
            # A bill that is waived shows good will, not what was taken.
            standing = self._ledger.standing(entry.visit)
            lines = () if standing is None else standing.lines
            visit.decided = {}
            for line in lines:
                visit.decided[line.gtin] = visit.decided.get(line.gtin, 0) + line.quantity
        now = Tally.of(visit.statements())
        self._tally, visit.tally = self._tally.plus(visit.tally, -1).plus(now), now


def _followed(before: Answering, visits: Sequence[VisitHistory], habits: Habits, t_ns: int) -> Answering:
    """How a customer has answered after what these visits add; a person's trust is a new beginning."""
    trusted = max((each.trusted for each in visits), default=0)
    if trusted > before.seq:
        before = Answering(seq=trusted)
    answers = sorted(
        (answer.seq, statement)
        for each in visits
        for answer, statement in zip(each.answers, each.statements(), strict=True)
        if answer.seq > before.seq
    )
    rejected = [dispute.seq for each in visits for dispute in each.disputes if each.rejected(dispute)]
    rejected = [seq for seq in rejected if seq > before.seq]
    ratio = highest = before.ratio
    for _, statement in answers:
        ratio = habits.ratio([statement], start=ratio)
        highest = max(highest, ratio)
    ratio = habits.ratio([], len(rejected), start=ratio)
    seq = max([before.seq, *rejected, *(seq for seq, _ in answers)])
    return Answering(ratio, max(highest, ratio, before.highest), seq, t_ns)


def _taken_off(visit: VisitHistory, since_ns: int) -> Iterable[int]:
    """What a visit's answers and disputes took off its bill by themselves since an instant, minor units."""
    stated: list[ShopperAnswer | Dispute] = [*visit.answers, *visit.disputes]
    return [each.worth["off"] for each in stated if each.t_ns >= since_ns and each.worth.get("off") is not None]
