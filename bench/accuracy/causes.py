"""Why receipts went to review and why some were wrong: every doubt and error traced to the shelf event it came from.

Used by `python -m bench accuracy --explain FILE`. Told events are matched with true ones; what a doubtful event's two
likeliest explanations differ in names the doubt, and where hands were told to be says why.
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

# An event less sure than this is worth a word; a receipt may be unsure by many such.
DOUBT_MIN = 0.01
NEAR_M = 0.25
LIKE_SHARE = 0.04
# An event that is told so far from its time meets hands that are elsewhere by then.
OFF_S = 0.25
# Doubts about a visit itself, the worst first, by the name that the table gives them.
VISIT_CAUSES = {
    frozenset(
        (ReasonKind.LOST_AMONG_OTHERS, ReasonKind.LOST_INSIDE, ReasonKind.SCANNED_PERSON_LOST)
    ): "lost from sight",
    frozenset((ReasonKind.UNSCANNED_BESIDE,)): "a person without a credential at the gate",
    frozenset((ReasonKind.RETURNED_MORE_THAN_TAKEN,)): "more was put back",
}


@dataclass
class Cause:
    """Why one receipt is as it is. status: "review, right", "review, wrong", "settled, wrong"."""

    case: str
    seed: int
    account: str
    status: str
    cause: str
    said: list[str] = field(default_factory=list)


@dataclass
class Doubt:
    """A told event that was not certain, whoever is concerned."""

    case: str
    kind: str
    top: float
    right: bool
    n_people: int = 0  # who has more than DOUBT_MIN of it


def causes_of(
    case: str,
    seed: int,
    store: Store,
    visits: Sequence[Any],
    events: Sequence[Any],
    answers: Any,
    pairs: Sequence[tuple[Any, ShelfEventExplained | None]],
) -> list[Any]:
    """Causes of all receipts that were not settled and right, and all doubts about events."""
    return _Inquiry(case, seed, store, visits, events, answers, pairs).run()


class _Inquiry:
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
        self.told_ns = np.array([people.t_ns for people in answers.people], np.int64)
        self.origin_ns = min((event.t_ns for event in events), default=0)
        self.tracks_of: defaultdict[str | None, set[int]] = defaultdict(set)
        for track, account in answers.account_of.items():
            self.tracks_of[account].add(track)
        self.wrists = [i for i, joint in enumerate(store.layout.joints) if joint.endswith("wrist")]
        self.true_of = {id(told): true for true, told in pairs if told is not None}

    def run(self) -> list[Any]:
        out: list[Any] = [doubt for told in self.answers.events if (doubt := self._doubt(told)) is not None]
        for true, told in self.pairs:
            if told is None:
                out.append(Doubt(self.case, f"missed: {self._missed(true)}", 0.0, False))
        receipts: defaultdict[str | None, list[Any]] = defaultdict(list)
        for receipt in self.answers.receipts:
            receipts[receipt.account].append(receipt)
        for visit in self.visits:
            if visit.account is None:
                continue
            mine = receipts.get(visit.account, [])
            got: Counter[str] = Counter()
            for receipt in mine:
                for line in receipt.lines:
                    got[line.gtin] += line.quantity
            right = got == Counter(visit.items)
            settled = bool(mine) and all(receipt.status == "settled" for receipt in mine)
            if settled and right:
                continue
            if not mine:
                out.append(Cause(self.case, self.seed, visit.account, "no receipt", "no receipt"))
                continue
            status = f"{'settled' if settled else 'review'}, {'right' if right else 'wrong'}"
            reasons = [reason for receipt in mine for reason in receipt.reasons]
            cause, said = self._of_review(visit, reasons) if not settled else ("", [])
            if not right:
                wrong, more = self._of_wrong(visit, got)
                cause = wrong if settled else f"{cause} / {wrong}"
                said += more
            said = [f"reason: {reason_text(reasons) or ''}", *said]
            out.append(Cause(self.case, self.seed, visit.account, status, cause, said))
        return out

    # ---- doubts ------------------------------------------------------------------------------------------------------

    def _doubt(self, told: ShelfEventExplained) -> Doubt | None:
        """An unsure event, by what its two likeliest explanations differ in; None where it is as good as certain."""
        outcomes = self._outcomes(told, None)
        if not outcomes or outcomes[0][1] > 1.0 - DOUBT_MIN:
            return None
        kind = self._kind(told, outcomes)
        true = self.true_of.get(id(told))
        best = outcomes[0][0]
        if true is None:
            right = best is None
        else:
            right = best is not None and self._same(best, true)
        share: defaultdict[str | None, float] = defaultdict(float)
        for candidate in told.candidates:
            share[candidate.account] += candidate.probability
        n_people = sum(p > DOUBT_MIN for account, p in share.items() if account is not None)
        return Doubt(self.case, kind, outcomes[0][1], right, n_people)

    @staticmethod
    def _same(told: Candidate, true: Any) -> bool:
        return (told.account, told.gtin, told.quantity) == (true.account, true.gtin, true.quantity)

    def _outcomes(self, told: ShelfEventExplained, account: str | None) -> list[tuple[Candidate | None, float]]:
        """Explanations of an event with their probabilities, best first; None: nothing moved.

        account: as this account's cart sees it, to which all that is not its own is one.
        """
        summed: dict[tuple[Any, ...], tuple[Candidate | None, float]] = {}
        nothing = max(0.0, 1.0 - sum(candidate.probability for candidate in told.candidates))
        for candidate in told.candidates:
            mine = account is None or candidate.account == account
            key = (candidate.account, candidate.gtin, candidate.quantity) if mine else ("others",)
            first, p = summed.get(key, (candidate, 0.0))
            summed[key] = (first, p + candidate.probability)
        summed[("nothing",)] = (None, nothing)
        return sorted(summed.values(), key=lambda outcome: -outcome[1])

    def _kind(self, told: ShelfEventExplained, outcomes: Sequence[tuple[Candidate | None, float]]) -> str:
        a, b = outcomes[0][0], outcomes[1][0] if len(outcomes) > 1 else None
        way = "take" if told.delta_g < 0 else "put"
        true = self.true_of.get(id(told))
        missing = "" if true is not None else ", part of another load" if self._is_part(told) else ", no true event"
        if true is not None and abs(told.t_ns - true.t_ns) > OFF_S * 1e9:
            missing = f", told more than {OFF_S:g} s off"
        if a is None or b is None:
            thing = a or b
            if way == "put" and thing is not None and not self._holds(thing, told.t_ns):
                way = "put of what is not held"
            return f"{way}: something or nothing{missing}"
        if a.account != b.account:
            if None in (a.account, b.account):
                return f"{way}: this one or somebody unknown ({self._hands(told, a, b)}){missing}"
            return f"{way}: this one or that one ({self._hands(told, a, b)}){missing}"
        if a.gtin == b.gtin:
            return f"{way}: how many{missing}"
        load_a, load_b = (abs(c.quantity) * self.weight_g[c.gtin] for c in (a, b))
        apart = abs(load_a - load_b) / max(load_a, load_b)
        like = "look-alikes" if apart < LIKE_SHARE else "products of other weight"
        several = " with another count" if a.quantity != b.quantity else ""
        if way == "put" and not (self._holds(a, told.t_ns) and self._holds(b, told.t_ns)):
            several += ", only one of them held"
        return f"{way}: which of two {like}{several}{missing}"

    def _holds(self, candidate: Candidate, t_ns: int) -> bool:
        """Whether this account really had as many of a product as it is said to put back."""
        moved = [
            event.quantity
            for event in self.events
            if event.account == candidate.account and event.gtin == candidate.gtin and event.t_ns < t_ns - 500_000_000
        ]
        return -sum(moved) >= candidate.quantity

    def _is_part(self, told: ShelfEventExplained) -> bool:
        """Whether a told event is the rest of a true one told beside it: one piece on two plates, told twice."""
        return any(
            (event.quantity > 0) == (told.delta_g > 0)
            and abs(event.t_ns - told.t_ns) < 1_200_000_000
            and math.dist(self._at(event.plate), self._at(told.plate)) < 1.3 * self.plates[told.plate].width
            for event in self.events
        )

    def _hands(self, told: ShelfEventExplained, a: Candidate, b: Candidate) -> str:
        """What was told of the two people's hands when it happened; the one who really did it is `the one`."""
        true = self.true_of.get(id(told))
        one, other = (b, a) if true is not None and true.account == b.account != a.account else (a, b)
        near_one, near_other = self._hand_m(told, one.account), self._hand_m(told, other.account)

        def said(away_m: float) -> str:
            return "unseen" if math.isnan(away_m) else "near" if away_m < NEAR_M else "away"

        return f"hands: {said(near_one)} / {said(near_other)}"

    def _hand_m(self, told: ShelfEventExplained, account: str | None) -> float:
        """Least distance of an account's told hands from the space above a plate; NaN where none is told."""
        if not len(self.told_ns):
            return math.nan
        tracks = self.tracks_of.get(account, set())
        at = int(np.searchsorted(self.told_ns, told.t_ns))
        plate = self.plates[told.plate]
        best = math.nan
        cos, sin = math.cos(plate.yaw), math.sin(plate.yaw)
        for people in self.answers.people[max(at - 2, 0) : at + 2]:
            rows = [i for i, track in enumerate(people.track_id.tolist()) if track in tracks]
            for hand in people.joints_m[rows][:, self.wrists].reshape(-1, 3):
                dx, dy = hand[0] - plate.x, hand[1] - plate.y
                along, across, up = dx * cos + dy * sin, -dx * sin + dy * cos, hand[2] - plate.z
                off = (
                    max(abs(along) - plate.width / 2, 0.0),
                    max(abs(across) - plate.depth / 2, 0.0),
                    max(-up, up - 0.3, 0.0),
                )
                away = math.hypot(*off)
                if not math.isnan(away):
                    best = away if math.isnan(best) else min(best, away)
        return best

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def _of_review(self, visit: Any, reasons: list[Reason]) -> tuple[str, list[str]]:
        """The worst doubt of a reviewed receipt, and all of them."""
        for kinds, named in VISIT_CAUSES.items():
            if any(reason.kind in kinds for reason in reasons):
                return f"visit: {named}", []
        doubts = []
        for told in self.answers.events:
            if not any(candidate.account == visit.account for candidate in told.candidates):
                continue
            outcomes = self._outcomes(told, visit.account)
            if outcomes[0][1] < 1.0 - DOUBT_MIN:
                doubts.append((outcomes[0][1], told))
        doubts.sort(key=lambda doubt: doubt[0])
        said = [self._tell(told) for _, told in doubts[:3]]
        if not doubts:
            least = min((self._identity(track) for track in self.tracks_of[visit.account]), default=1.0)
            return "no unsure event, but identity", [f"identity {least:.3f}"]
        worst = doubts[0][1]
        if doubts[0][0] > 0.95:
            return f"many small doubts ({len(doubts)})", said
        return self._kind(worst, self._outcomes(worst, visit.account)), said

    def _of_wrong(self, visit: Any, got: Counter[str]) -> tuple[str, list[str]]:
        """What made a receipt wrong: the first of its events that was not told as it was."""
        found: list[tuple[str, str]] = []
        true_items = Counter(visit.items)
        odd = {gtin for gtin in got.keys() | true_items.keys() if got[gtin] != true_items[gtin]}
        for true, told in self.pairs:
            if true is not None and told is None:
                if true.account == visit.account and true.gtin in odd:
                    found.append((f"missed: {self._missed(true)}", self._tell_true(true)))
                continue
            if told is None or not told.candidates:
                if true is not None and true.account == visit.account and true.gtin in odd:
                    found.append(("explained as nothing", self._tell(told) if told else ""))
                continue
            best = told.candidates[0]
            mine, told_mine = true is not None and true.account == visit.account, best.account == visit.account
            if true is None:
                if told_mine and best.gtin in odd:
                    found.append(("event that was none", self._tell(told)))
            elif mine and self._same(best, true):
                continue
            elif mine and not told_mine and true.gtin in odd:
                found.append(("other person's", self._tell(told)))
            elif told_mine and not mine and best.gtin in odd:
                found.append(("charged with another person's", self._tell(told)))
            elif mine and told_mine and {best.gtin, true.gtin} & odd:
                if best.gtin == true.gtin:
                    found.append(("wrong count", self._tell(told)))
                else:
                    apart = abs(self.weight_g[best.gtin] * best.quantity - self.weight_g[true.gtin] * true.quantity)
                    like = apart < LIKE_SHARE * abs(self.weight_g[true.gtin] * true.quantity)
                    found.append((f"wrong product, {'look-alike' if like else 'other weight'}", self._tell(told)))
        if not found:
            return "joint explanation differs from the events", []
        return found[0][0], [text for _, text in found[:3]]

    def _identity(self, track: int) -> float:
        """The last that a track claimed."""
        for people in reversed(self.answers.people):
            rows = np.flatnonzero(people.track_id == track)
            if len(rows):
                return float(people.identity[rows[0]])
        return 1.0

    def _missed(self, true: Any) -> str:
        """Why an event may have been missed."""
        if true is None:
            return ""
        here = self.plates[true.plate]
        close = [
            other
            for other in self.events
            if other is not true
            and abs(other.t_ns - true.t_ns) < 1_500_000_000
            and math.dist((here.x, here.y, here.z), self._at(other.plate)) < 0.45
        ]
        way = "take" if true.quantity < 0 else "put"
        if self.weight_g[true.gtin] < 60.0:
            return f"{way}, light"
        if any(other.account != true.account for other in close):
            return f"{way}, another person's event beside it"
        if close:
            return f"{way}, own event just before or after"
        return f"{way}, alone"

    def _at(self, plate: str) -> tuple[float, float, float]:
        p = self.plates[plate]
        return p.x, p.y, p.z

    # ---- words -------------------------------------------------------------------------------------------------------

    def _tell_true(self, true: Any) -> str:
        t_s = (true.t_ns - self.origin_ns) / 1e9
        what = f"{true.quantity:+d} x {self.name[true.gtin]} ({self.weight_g[true.gtin]:g} g)"
        return f"truth at {t_s:.2f} s on {true.plate}: {true.account or 'nobody'} {what}"

    def _tell(self, told: ShelfEventExplained) -> str:
        t_s = (told.t_ns - self.origin_ns) / 1e9
        candidates = ", ".join(
            f"{c.account or 'nobody'} {c.quantity:+d} {self.name[c.gtin]}"
            f" ({abs(c.quantity) * self.weight_g[c.gtin]:g} g) p={c.probability:.3f}"
            f" hand {self._hand_m(told, c.account):.2f} m"
            for c in told.candidates[:4]
        )
        true = self.true_of.get(id(told))
        truth = self._tell_true(true) if true is not None else "no true event"
        return f"told at {t_s:.2f} s on {told.plate}, {told.delta_g:+.1f} g: {candidates or 'nothing'}; {truth}"


def causes_page(found: Sequence[Any], examples: int = 2) -> str:
    """Counts of all causes by row of the table, with a few examples each."""
    causes = [cause for cause in found if isinstance(cause, Cause)]
    doubts = [doubt for doubt in found if isinstance(doubt, Doubt)]
    parts = ["# Why receipts were unsure or wrong", ""]
    parts += ["Events that were unsure, or missed (p: of the best explanation):", ""]
    parts += ["| scenario | kind | events | mean p | really right | people concerned |", "|---|---|---|---|---|---|"]
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
        for one in group[:examples]:
            parts.append(f"  - seed {one.seed}, {one.account}")
            parts += [f"    - {text}" for text in one.said if text]
    return "\n".join(parts) + "\n"
