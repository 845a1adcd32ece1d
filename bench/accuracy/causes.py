"""Why receipts went to review and why some were wrong: traces every doubt and error to its shelf event.

Used by `python -m bench accuracy --explain FILE`. Reported events are matched with true ones. A doubt is named by the
difference between the event's two most probable outcomes, and explained by the reported positions of hands.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusion.results import Candidate, Reason, ReasonKind, ShelfEventExplained
from fusion.sentences import reason_text
from fusion.store.models import Store

# An event with at least this much doubt is listed; many such events can make a receipt uncertain.
DOUBT_MIN = 0.01
NEAR_M = 0.25
LOOK_ALIKE_SHARE = 0.04
# An event reported with a larger time error meets hands that have moved away by then.
TIME_ERROR_MAX_S = 0.25
# Doubts about a visit itself, worst first, and their names in the table.
VISIT_CAUSES = {
    frozenset(
        (ReasonKind.LOST_AMONG_OTHERS, ReasonKind.LOST_INSIDE, ReasonKind.SCANNED_PERSON_LOST)
    ): "lost by the tracker",
    frozenset((ReasonKind.UNSCANNED_BESIDE,)): "a person without a credential at the gate",
    frozenset((ReasonKind.RETURNED_MORE_THAN_TAKEN,)): "more was put back",
}


@dataclass
class Cause:
    """The cause of one receipt's status: "review, right", "review, wrong", "settled, wrong" or "no receipt"."""

    case: str
    seed: int
    account: str
    status: str
    cause: str
    details: list[str] = field(default_factory=list)


@dataclass
class Doubt:
    """A reported event that was not certain. top: probability of its best outcome; n_people: with above DOUBT_MIN."""

    case: str
    kind: str
    top: float
    right: bool
    n_people: int = 0


def causes_of(
    case: str,
    seed: int,
    store: Store,
    visits: Sequence[Any],
    events: Sequence[Any],
    answers: Any,
    pairs: Sequence[tuple[Any, ShelfEventExplained | None]],
) -> list[Any]:
    """Causes of all receipts that were not both settled and right, and all doubts about events."""
    return _Diagnosis(case, seed, store, visits, events, answers, pairs).run()


class _Diagnosis:
    def __init__(
        self,
        case: str,
        seed: int,
        store: Store,
        visits: Sequence[Any],
        events: Sequence[Any],
        answers: Any,
        pairs: Sequence[tuple[Any, ShelfEventExplained | None]],
    ) -> None:
        self.case, self.seed, self.store = case, seed, store
        self.visits, self.events, self.answers, self.pairs = visits, events, answers, pairs
        self.weight_g = {product.gtin: product.weight_g for product in store.products}
        self.name = {product.gtin: product.name for product in store.products}
        self.plates = {plate.plate: plate for plate in store.plates}
        self.instants_ns = np.array([people.t_ns for people in answers.people], np.int64)
        self.origin_ns = min((event.t_ns for event in events), default=0)
        self.tracks_of: defaultdict[str | None, set[int]] = defaultdict(set)
        for track, account in answers.account_of.items():
            self.tracks_of[account].add(track)
        self.wrists = [i for i, joint in enumerate(store.layout.joints) if joint.endswith("wrist")]
        self.true_of = {id(event): true for true, event in pairs if event is not None}

    def run(self) -> list[Any]:
        """All doubts, then all causes."""
        found: list[Any] = [doubt for event in self.answers.events if (doubt := self._doubt(event)) is not None]
        for true, event in self.pairs:
            if event is None:
                found.append(Doubt(self.case, f"missed: {self._missed(true)}", 0.0, False))
        receipts: defaultdict[str | None, list[Any]] = defaultdict(list)
        for receipt in self.answers.receipts:
            receipts[receipt.account].append(receipt)
        for visit in self.visits:
            if visit.account is None:
                continue
            own = receipts.get(visit.account, [])
            billed: Counter[str] = Counter()
            for receipt in own:
                for line in receipt.lines:
                    billed[line.gtin] += line.quantity
            right = billed == Counter(visit.items)
            settled = bool(own) and all(receipt.status == "settled" for receipt in own)
            if settled and right:
                continue
            if not own:
                found.append(Cause(self.case, self.seed, visit.account, "no receipt", "no receipt"))
                continue
            status = f"{'settled' if settled else 'review'}, {'right' if right else 'wrong'}"
            reasons = [reason for receipt in own for reason in receipt.reasons]
            cause, details = self._of_review(visit, reasons) if not settled else ("", [])
            if not right:
                error, error_details = self._of_wrong(visit, billed)
                cause = error if settled else f"{cause} / {error}"
                details += error_details
            details = [f"reason: {reason_text(reasons) or ''}", *details]
            found.append(Cause(self.case, self.seed, visit.account, status, cause, details))
        return found

    # ---- doubts ------------------------------------------------------------------------------------------------------

    def _doubt(self, event: ShelfEventExplained) -> Doubt | None:
        """The doubt about an event, named by how its two most probable outcomes differ; None if it is certain."""
        outcomes = self._outcomes(event, None)
        if not outcomes or outcomes[0][1] > 1.0 - DOUBT_MIN:
            return None
        kind = self._kind(event, outcomes)
        true = self.true_of.get(id(event))
        best = outcomes[0][0]
        if true is None:
            right = best is None
        else:
            right = best is not None and self._same(best, true)
        share: defaultdict[str | None, float] = defaultdict(float)
        for candidate in event.candidates:
            share[candidate.account] += candidate.probability
        n_people = sum(p > DOUBT_MIN for account, p in share.items() if account is not None)
        return Doubt(self.case, kind, outcomes[0][1], right, n_people)

    @staticmethod
    def _same(candidate: Candidate, true: Any) -> bool:
        return (candidate.account, candidate.gtin, candidate.quantity) == (true.account, true.gtin, true.quantity)

    def _outcomes(self, event: ShelfEventExplained, account: str | None) -> list[tuple[Candidate | None, float]]:
        """Outcomes of an event with their probabilities, most probable first; None: nothing moved.

        account: sum all outcomes that concern other accounts only, since this account's cart does not depend on them.
        """
        summed: dict[tuple[Any, ...], tuple[Candidate | None, float]] = {}
        nothing = max(0.0, 1.0 - sum(candidate.probability for candidate in event.candidates))
        for candidate in event.candidates:
            concerned = account is None or candidate.account == account
            key = (candidate.account, candidate.gtin, candidate.quantity) if concerned else ("others",)
            first, p = summed.get(key, (candidate, 0.0))
            summed[key] = (first, p + candidate.probability)
        summed[("nothing",)] = (None, nothing)
        return sorted(summed.values(), key=lambda outcome: -outcome[1])

    def _kind(self, event: ShelfEventExplained, outcomes: Sequence[tuple[Candidate | None, float]]) -> str:
        """Name of a doubt: how the two most probable outcomes differ, and whether there was a true event."""
        a, b = outcomes[0][0], outcomes[1][0] if len(outcomes) > 1 else None
        way = "take" if event.delta_g < 0 else "put"
        true = self.true_of.get(id(event))
        note = "" if true is not None else ", part of another load" if self._is_part(event) else ", no true event"
        if true is not None and abs(event.t_ns - true.t_ns) > TIME_ERROR_MAX_S * 1e9:
            note = f", time error above {TIME_ERROR_MAX_S:g} s"
        if a is None or b is None:
            candidate = a or b
            if way == "put" and candidate is not None and not self._holds(candidate, event.t_ns):
                way = "put of goods not held"
            return f"{way}: goods or nothing{note}"
        if a.account != b.account:
            if None in (a.account, b.account):
                return f"{way}: account or unidentified visitor ({self._hands(event, a, b)}){note}"
            return f"{way}: which of two people ({self._hands(event, a, b)}){note}"
        if a.gtin == b.gtin:
            return f"{way}: how many{note}"
        load_a, load_b = (abs(c.quantity) * self.weight_g[c.gtin] for c in (a, b))
        difference = abs(load_a - load_b) / max(load_a, load_b)
        pair = "look-alikes" if difference < LOOK_ALIKE_SHARE else "products of different weight"
        suffix = " and counts" if a.quantity != b.quantity else ""
        if way == "put" and not (self._holds(a, event.t_ns) and self._holds(b, event.t_ns)):
            suffix += ", at most one of them held"
        return f"{way}: which of two {pair}{suffix}{note}"

    def _holds(self, candidate: Candidate, t_ns: int) -> bool:
        """Whether the account really held as many of the product as the candidate puts back."""
        moved = [
            event.quantity
            for event in self.events
            if event.account == candidate.account and event.gtin == candidate.gtin and event.t_ns < t_ns - 500_000_000
        ]
        return -sum(moved) >= candidate.quantity

    def _is_part(self, event: ShelfEventExplained) -> bool:
        """Whether an event is the remainder of a true one reported on a plate beside it: one piece on two plates."""
        return any(
            (true.quantity > 0) == (event.delta_g > 0)
            and abs(true.t_ns - event.t_ns) < 1_200_000_000
            and math.dist(self._at(true.plate), self._at(event.plate)) < 1.3 * self.plates[event.plate].width
            for true in self.events
        )

    def _hands(self, event: ShelfEventExplained, a: Candidate, b: Candidate) -> str:
        """Where the two people's hands were reported at the event; the person who really acted comes first."""
        true = self.true_of.get(id(event))
        first, second = (b, a) if true is not None and true.account == b.account != a.account else (a, b)

        def state(account: str | None) -> str:
            distance_m = self._hand_m(event, account)
            return "unseen" if math.isnan(distance_m) else "near" if distance_m < NEAR_M else "away"

        return f"hands: {state(first.account)} / {state(second.account)}"

    def _hand_m(self, event: ShelfEventExplained, account: str | None) -> float:
        """Least distance of an account's reported hands from the space above a plate; NaN if none was reported."""
        if not len(self.instants_ns):
            return math.nan
        tracks = self.tracks_of.get(account, set())
        at = int(np.searchsorted(self.instants_ns, event.t_ns))
        plate = self.plates[event.plate]
        best = math.nan
        cos, sin = math.cos(plate.yaw), math.sin(plate.yaw)
        for people in self.answers.people[max(at - 2, 0) : at + 2]:
            rows = [i for i, track in enumerate(people.track_id.tolist()) if track in tracks]
            for hand in people.joints_m[rows][:, self.wrists].reshape(-1, 3):
                dx, dy = hand[0] - plate.x, hand[1] - plate.y
                along, across, up = dx * cos + dy * sin, -dx * sin + dy * cos, hand[2] - plate.z
                outside_m = (
                    max(abs(along) - plate.width / 2, 0.0),
                    max(abs(across) - plate.depth / 2, 0.0),
                    max(-up, up - 0.3, 0.0),
                )
                distance_m = math.hypot(*outside_m)
                if not math.isnan(distance_m):
                    best = distance_m if math.isnan(best) else min(best, distance_m)
        return best

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def _of_review(self, visit: Any, reasons: list[Reason]) -> tuple[str, list[str]]:
        """Name of a reviewed receipt's worst doubt, and the descriptions of its three worst events."""
        for kinds, cause in VISIT_CAUSES.items():
            if any(reason.kind in kinds for reason in reasons):
                return f"visit: {cause}", []
        doubts = []
        for event in self.answers.events:
            if not any(candidate.account == visit.account for candidate in event.candidates):
                continue
            outcomes = self._outcomes(event, visit.account)
            if outcomes[0][1] < 1.0 - DOUBT_MIN:
                doubts.append((outcomes[0][1], event))
        doubts.sort(key=lambda doubt: doubt[0])
        details = [self._event_text(event) for _, event in doubts[:3]]
        if not doubts:
            least = min((self._identity(track) for track in self.tracks_of[visit.account]), default=1.0)
            return "uncertain identity only", [f"identity {least:.3f}"]
        probability, worst = doubts[0]
        if probability > 0.95:
            return f"many small doubts ({len(doubts)})", details
        return self._kind(worst, self._outcomes(worst, visit.account)), details

    def _of_wrong(self, visit: Any, billed: Counter[str]) -> tuple[str, list[str]]:
        """Name of a receipt's error: that of its first wrong event; and the descriptions of the first three."""
        true_items = Counter(visit.items)
        wrong_gtins = {gtin for gtin in billed.keys() | true_items.keys() if billed[gtin] != true_items[gtin]}
        found = []
        for true, event in self.pairs:
            error = self._error(true, event, visit.account, wrong_gtins)
            if error is not None:
                found.append((error, self._event_text(event) if event is not None else self._true_text(true)))
        if not found:
            return "joint hypothesis differs from the events", []
        return found[0][0], [text for _, text in found[:3]]

    def _error(self, true: Any, event: ShelfEventExplained | None, account: str, wrong_gtins: set[str]) -> str | None:
        """How a pair of true and reported event made an account's receipt wrong; None if it did not."""
        true_own = true is not None and true.account == account
        if event is None or not event.candidates:
            if not true_own or true.gtin not in wrong_gtins:
                return None
            return f"missed: {self._missed(true)}" if event is None else "attributed to nothing"
        best = event.candidates[0]
        own = best.account == account
        if true is None:
            return "reported without a true event" if own and best.gtin in wrong_gtins else None
        if true_own and not own:
            return "attributed to another person" if true.gtin in wrong_gtins else None
        if own and not true_own:
            return "charged with another person's goods" if best.gtin in wrong_gtins else None
        if not own or self._same(best, true) or not {best.gtin, true.gtin} & wrong_gtins:
            return None
        if best.gtin == true.gtin:
            return "wrong count"
        true_g = self.weight_g[true.gtin] * true.quantity
        alike = abs(self.weight_g[best.gtin] * best.quantity - true_g) < LOOK_ALIKE_SHARE * abs(true_g)
        return f"wrong product, {'look-alike' if alike else 'different weight'}"

    def _identity(self, track: int) -> float:
        """The last identity probability that a track reported."""
        for people in reversed(self.answers.people):
            rows = np.flatnonzero(people.track_id == track)
            if len(rows):
                return float(people.identity[rows[0]])
        return 1.0

    def _missed(self, true: Any) -> str:
        """A likely reason why an event was missed."""
        if true is None:
            return ""
        close = [
            event
            for event in self.events
            if event is not true
            and abs(event.t_ns - true.t_ns) < 1_500_000_000
            and math.dist(self._at(true.plate), self._at(event.plate)) < 0.45
        ]
        way = "take" if true.quantity < 0 else "put"
        if self.weight_g[true.gtin] < 60.0:
            return f"{way}, light"
        if any(event.account != true.account for event in close):
            return f"{way}, another person's event beside it"
        if close:
            return f"{way}, the same person's event just before or after"
        return f"{way}, alone"

    def _at(self, plate: str) -> tuple[float, float, float]:
        p = self.plates[plate]
        return p.x, p.y, p.z

    # ---- text --------------------------------------------------------------------------------------------------------

    def _true_text(self, true: Any) -> str:
        t_s = (true.t_ns - self.origin_ns) / 1e9
        goods = f"{true.quantity:+d} x {self.name[true.gtin]} ({self.weight_g[true.gtin]:g} g)"
        return f"truth at {t_s:.2f} s on {true.plate}: {true.account or 'unidentified'} {goods}"

    def _event_text(self, event: ShelfEventExplained) -> str:
        t_s = (event.t_ns - self.origin_ns) / 1e9
        candidates = ", ".join(
            f"{c.account or 'unidentified'} {c.quantity:+d} {self.name[c.gtin]}"
            f" ({abs(c.quantity) * self.weight_g[c.gtin]:g} g) p={c.probability:.3f}"
            f" hand {self._hand_m(event, c.account):.2f} m"
            for c in event.candidates[:4]
        )
        true = self.true_of.get(id(event))
        truth = self._true_text(true) if true is not None else "no true event"
        return f"reported at {t_s:.2f} s on {event.plate}, {event.delta_g:+.1f} g: {candidates or 'nothing'}; {truth}"


def causes_page(found: Sequence[Any], examples: int = 2) -> str:
    """A Markdown page: counts of all doubts and causes by case, with a few examples each."""
    causes = [cause for cause in found if isinstance(cause, Cause)]
    doubts = [doubt for doubt in found if isinstance(doubt, Doubt)]
    parts = ["# Why receipts were uncertain or wrong", ""]
    parts += ["Uncertain and missed events (p: probability of the best outcome):", ""]
    parts += ["| scenario | kind | events | mean p | share right | people concerned |", "|---|---|---|---|---|---|"]
    by_kind: defaultdict[tuple[str, str], list[Doubt]] = defaultdict(list)
    for doubt in doubts:
        by_kind[doubt.case, doubt.kind].append(doubt)
        by_kind["all", doubt.kind].append(doubt)
    order = {case: i for i, case in enumerate(dict.fromkeys(["all", *(doubt.case for doubt in doubts)]))}
    for (case, kind), group in sorted(by_kind.items(), key=lambda item: (order[item[0][0]], -len(item[1]))):
        if len(group) > 1 or case == "all":
            mean = statistics.fmean(doubt.top for doubt in group)
            right = statistics.fmean(doubt.right for doubt in group)
            n_people = statistics.fmean(doubt.n_people for doubt in group)
            parts.append(f"| {case} | {kind} | {len(group)} | {mean:.2f} | {right:.2f} | {n_people:.1f} |")
    parts += ["", "Receipts:", "", "| scenario | receipt | cause | receipts |", "|---|---|---|---|"]
    counted: defaultdict[tuple[str, str, str], list[Cause]] = defaultdict(list)
    for cause in causes:
        counted[cause.case, cause.status, cause.cause].append(cause)
    rows = sorted(counted.items(), key=lambda item: (order.get(item[0][0], 0), item[0][1], -len(item[1])))
    parts += [f"| {case} | {status} | {cause} | {len(group)} |" for (case, status, cause), group in rows]
    parts += ["", "Examples:", ""]
    for (case, status, cause), group in rows:
        parts.append(f"- {case}, {status}, {cause} ({len(group)})")
        for example in group[:examples]:
            parts.append(f"  - seed {example.seed}, {example.account}")
            parts += [f"    - {text}" for text in example.details if text]
    return "\n".join(parts) + "\n"
