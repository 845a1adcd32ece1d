"""What a store's shoppers answered and disputed, read from the books: of all of them, and of one customer.

Nothing is kept beside the books. Which answers were a customer's is known for as long as the vault links their visits,
so that their history and a mark end with those links, at once where they ask to be forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from fusion.money.disputes import (
    ANSWERED,
    AUTOMATIC,
    BY_ANSWER,
    DISPUTED,
    TRUSTED,
    Dispute,
    ShopperAnswer,
)
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.visits import DECISIONS
from fusion.till.answer_settings import AnswerSettings
from fusion.till.reliability import MILLION, Habits, Statement, learnt

MONTH_NS = 30 * 86_400 * 10**9
# Older answers of the store teach nothing more about its shoppers of today.
KEPT_NS = 400 * 86_400 * 10**9
# A shopper disputes a right line in one visit of 50, as an expectation that counts as much as 25 visits.
DISPUTES_MEAN, DISPUTES_WEIGHT = 0.02, 25.0


@dataclass(slots=True)
class VisitHistory:
    """What was answered and disputed about one visit.

    Attributes:
        answers, disputes: oldest first.
        decided: pieces by GTIN on the bill that a person decided; None while no person has.
        settled: number of the entry by which an answer settled the bill; 0 where none did.
        trusted: number of the newest entry by which a person lifted a mark; 0 where there is none.
    """

    answers: list[ShopperAnswer] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    decided: dict[str, int] | None = None
    settled: int = 0
    trusted: int = 0

    def statements(self) -> list[Statement]:
        """The answers with what is known about the truth, oldest first."""
        return [Statement.of(each.choice, each.worth, self.decided) for each in self.answers]

    def rejected(self, dispute: Dispute) -> bool:
        """Whether a person found all disputed pieces right."""
        return self.decided is not None and self.decided.get(dispute.gtin, 0) >= dispute.worth.get("billed", 1)

    @property
    def newest_ns(self) -> int:
        """When anything was answered or disputed last."""
        return max((each.t_ns for each in (*self.answers, *self.disputes)), default=0)


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

    def __init__(self, ledger: Ledger, settings: AnswerSettings) -> None:
        self._ledger, self._settings = ledger, settings
        self._prior = Habits(settings.mistakes, settings.takers)
        self._lock = threading.Lock()
        self._read_to = 0
        self._visits: dict[str, VisitHistory] = {}
        self._habits: Habits | None = None

    def habits(self) -> Habits:
        """How the store's shoppers answer, as far as decided visits show."""
        with self._lock:
            self._read()
            if self._habits is None:
                statements = [each for visit in self._visits.values() for each in visit.statements()]
                self._habits = learnt(statements, self._prior, self._settings.learnt_from)
            return self._habits

    def visit(self, visit: str) -> VisitHistory:
        """What was answered and disputed about a visit."""
        with self._lock:
            self._read()
            return self._visits.get(visit, VisitHistory())

    def customer(self, visit: str, t_ns: int) -> CustomerHistory:
        """What the customer of a visit answered and disputed so far; months end at t_ns."""
        habits, linked = self.habits(), self._ledger.visits_beside(visit)
        with self._lock:
            found = [self._visits[each] for each in linked if each in self._visits]
        trusted = max((each.trusted for each in found), default=0)
        statements = sorted(
            ((answer.seq, one) for each in found for answer, one in zip(each.answers, each.statements(), strict=True)),
            key=lambda pair: pair[0],
        )
        rejected = [dispute for each in found for dispute in each.disputes if each.rejected(dispute)]
        since = [one for seq, one in statements if seq > trusted]
        n_rejected = sum(dispute.seq > trusted for dispute in rejected)
        ratio = habits.ratio(since, n_rejected)
        highest = max((habits.ratio(since[:n], n_rejected) for n in range(len(since))), default=ratio)
        taken_off = [amount for each in found for amount in _taken_off(each, t_ns - MONTH_NS)]
        doubted = sum(
            1.0 if each.rejected(dispute) else 1.0 - dispute.worth.get("wrong", 0) / MILLION
            for each in found
            for dispute in each.disputes
        )
        disputes = (DISPUTES_MEAN * DISPUTES_WEIGHT + doubted) / (DISPUTES_WEIGHT + len(linked))
        return CustomerHistory(
            bool(linked), ratio, max(highest, ratio) >= self._settings.marked_from, sum(taken_off), len(taken_off),
            disputes,
        )  # fmt: skip

    def _read(self) -> None:
        """Follow what was added to the books since the last call."""
        entries = self._ledger.entries_of(ANSWERED, DISPUTED, TRUSTED, *DECISIONS, after=self._read_to)
        if not entries:
            return
        self._read_to, self._habits = entries[-1].seq, None
        for entry in entries:
            self._follow(entry)
        newest_ns = max(entry.t_ns for entry in entries)
        for visit in [name for name, each in self._visits.items() if each.newest_ns < newest_ns - KEPT_NS]:
            del self._visits[visit]

    def _follow(self, entry: Entry) -> None:
        if entry.kind in DECISIONS and entry.visit not in self._visits:
            return
        visit = self._visits.setdefault(entry.visit, VisitHistory())
        if entry.kind == ANSWERED:
            visit.answers.append(ShopperAnswer.of(entry))
        elif entry.kind == DISPUTED:
            visit.disputes.append(Dispute.of(entry))
        elif entry.kind == TRUSTED:
            visit.trusted = entry.seq
        elif entry.request["by"] in AUTOMATIC:
            visit.settled = entry.seq if entry.request["by"] == BY_ANSWER else visit.settled
        elif entry.kind != "decision waive":
            # A bill that is waived shows good will, not what was taken.
            standing = self._ledger.standing(entry.visit)
            lines = () if standing is None else standing.lines
            visit.decided = {}
            for line in lines:
                visit.decided[line.gtin] = visit.decided.get(line.gtin, 0) + line.quantity


def _taken_off(visit: VisitHistory, since_ns: int) -> Iterable[int]:
    """What a visit's answers and disputes took off its bill by themselves since an instant, minor units."""
    stated = (*visit.answers, *visit.disputes)
    return [each.worth["off"] for each in stated if each.t_ns >= since_ns and each.worth.get("off") is not None]
