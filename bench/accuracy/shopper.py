"""An honest shopper who is asked one question about an uncertain receipt.

They know what their own hands did at that shelf at that time. Where it is one of the alternatives, the receipt becomes
what that answer makes of it, and is settled if its probability then meets the limit. Otherwise it stays in review.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.accuracy.scores import EVENT_MATCH_M, Asked
from bench.accuracy.truth import TrueEvent, TrueVisit
from fusion.results import Alternative, Evidence, Question, Receipt, ShelfEventExplained
from fusion.store.models import Store

# Grips of one person at one shelf within this time are one to them.
REMEMBERED_S = 3.0

Pair = tuple[TrueEvent | None, ShelfEventExplained | None]


def asked_once(
    store: Store,
    visits: Sequence[TrueVisit],
    pairs: Sequence[Pair],
    receipts: Sequence[Receipt],
    evidence: Mapping[str, Evidence],
) -> Asked:
    """The receipts of people who checked in, with one question about each that is in review. pairs: as matched."""
    shopper = Shopper(store, pairs)
    by_account: dict[str | None, list[Receipt]] = {}
    for receipt in receipts:
        by_account.setdefault(receipt.account, []).append(receipt)
    found = Asked()
    for visit in visits:
        own = by_account.get(visit.account, []) if visit.account is not None else []
        if not own:
            continue
        billed: Counter[str] = Counter()
        n_review = 0
        for receipt in own:
            lines = {line.gtin: line.quantity for line in receipt.lines}
            if receipt.status == "review":
                answer = None
                bundle = evidence.get(receipt.visit)
                if receipt.is_only_unlikely and bundle is not None and bundle.questions:
                    found.asked += 1
                    answer = shopper.answer(visit, bundle.questions[0])
                    found.none_of_these += answer is None
                if answer is None or answer.receipt_probability < 1.0 - store.review.receipt_error_max:
                    n_review += 1
                else:
                    lines = {goods.gtin: goods.quantity for goods in answer.lines}
            billed.update(lines)
        found.review += n_review > 0
        found.settled += n_review == 0
        found.settled_right += n_review == 0 and billed == Counter(visit.items)
    return found


class Shopper:
    """Knows what everybody moved at every plate."""

    def __init__(self, store: Store, pairs: Sequence[Pair]) -> None:
        self._at = {plate.plate: (plate.x, plate.y, plate.z) for plate in store.plates}
        # What was reported of each true event; events of which nothing was, a question may still be about.
        self._reported = {(event.t_ns, event.plate): true for true, event in pairs if event is not None}
        self._unreported = [true for true, event in pairs if event is None and true is not None]
        self._all = [true for true, _ in pairs if true is not None]

    def answer(self, visit: TrueVisit, question: Question) -> Alternative | None:
        """The alternative that is true; None where none is."""
        true = self._reported.get((question.t_ns, question.plate))
        moved = [true] if true is not None and true.account == visit.account else []
        moved += [event for event in self._unreported if event.account == visit.account and self._near(event, question)]
        if not moved:
            # They know what they took there, even if it was reported as part of another load.
            moved = [event for event in self._all if event.account == visit.account and self._near(event, question)][:1]
        pieces: Counter[str] = Counter()
        for event in moved:
            pieces[event.gtin] += event.quantity
        wanted = {gtin: n for gtin, n in pieces.items() if n}
        for alternative in question.alternatives:
            if {goods.gtin: goods.quantity for goods in alternative.moved} == wanted:
                return alternative
        return None

    def _near(self, event: TrueEvent, question: Question) -> bool:
        if question.event_id is None:
            # About all the time in which the plate showed nothing.
            return event.plate == question.plate
        apart_m = sum((a - b) ** 2 for a, b in zip(self._at[event.plate], self._at[question.plate])) ** 0.5
        return abs(event.t_ns - question.t_ns) < REMEMBERED_S * 1e9 and apart_m < EVENT_MATCH_M
