"""The one question that would make an uncertain cart clearer: about a load, or about a plate that showed nothing.

Whoever took part in a load knows what they did there. An answer conditions the joint hypotheses of the load's cluster;
what it says about the cart is the mutual information of both (Lindley, Ann. Math. Stat. 27, 1956),

    I = H(cart) - sum over answers a of P(a) H(cart | a).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fusion.goods.beliefs import SHORT_RIGHT, CartBelief
from fusion.goods.hypotheses import Cluster
from fusion.goods.pieces import Pieces, likeliest, weights_of
from fusion.goods.planogram import Planogram
from fusion.results import Alternative, Goods, Question, QuestionKind

# A person can choose among a few; further answers are "none of these".
ANSWERS_MAX = 4
ANSWER_MIN = 1e-3
# Goods that are named as possible takes from a plate that showed nothing.
GOODS_MAX = 3
# Probability that a hand over such a plate took goods which are sold there, rather than others or several.
ONE_OF_THE_GOODS = 0.8
PROBABILITY_MIN = 1e-12
# A hand over a plate within this time of a load there is the hand that moved it: one question is about both.
SAME_HAND_NS = 1_500_000_000


class Answer(NamedTuple):
    """An answer to a question about a cart.

    Attributes:
        moved: pieces by product that the cart's people put on a shelf (negative: took).
        probability: of this answer.
        added: what the load's cluster then adds to the cart.
        right: probability that this addition is right.
    """

    moved: Pieces
    probability: float
    added: Pieces
    right: float


class CartQuestion(NamedTuple):
    """A question about a cart, and what it would tell.

    Attributes:
        kind: what is in doubt.
        plate, t_ns: where and when, plate by name.
        event_id: of the load; None where a plate showed none.
        answers: most probable first.
        added, right: as of Answer, without an answer.
        gain_bits: information about the cart.
        is_of_silence: it is a question about a `SilentDoubt`, and `right` holds that doubt already.

    An answer also ends a `SilentDoubt` about the same hand, and one about the same load if its goods explain that load;
    see `clears`.
    """

    kind: QuestionKind
    plate: str
    t_ns: int
    event_id: int | None
    answers: tuple[Answer, ...]
    added: Pieces
    right: float
    gain_bits: float
    is_of_silence: bool = False

    def clears(self, doubts: Iterable[SilentDoubt]) -> CartQuestion:
        """This question, where its answer also ends doubts: about the same load, or the same hand over the plate.

        That these people moved nothing leaves a load as unexplained as before: they are asked what they hold of some
        goods, and what weighs so much may be others.
        """
        question = self
        for doubt in doubts:
            same_load = doubt.event_id is not None and doubt.event_id == self.event_id
            same_hand = doubt.event_id is None and doubt.name == self.plate
            same_hand &= abs(doubt.t_ns - self.t_ns) < SAME_HAND_NS
            if self.event_id is not None and (same_load or same_hand) and not (same_load and self.is_of_silence):
                gain_bits = question.gain_bits + _entropy_bits({(): doubt.right, ((0, 1),): 1.0 - doubt.right})
                question = question._replace(right=question.right * doubt.right, gain_bits=gain_bits)
                if same_load:
                    answers = [a if a.moved else a._replace(right=a.right * doubt.right) for a in question.answers]
                    question = question._replace(answers=tuple(answers))
        return question

    def asked(self, belief: CartBelief, probability: float, gtins: Sequence[str]) -> Question:
        """The question with what the receipt would be under each answer.

        Args:
            belief: what the cart holds as it looks now.
            probability: of the receipt as it looks now, all doubts included.
            gtins: by product.
        """
        others = Counter(belief.items)
        others.subtract(belief.short)
        others.subtract({gtins[product]: n for product, n in self.added})
        rest = probability / max(self.right, PROBABILITY_MIN) / (SHORT_RIGHT if belief.short else 1.0)
        alternatives = []
        for answer in self.answers:
            held = Counter(others)
            held.update({gtins[product]: n for product, n in answer.added})
            right = rest * answer.right * (SHORT_RIGHT if min(held.values(), default=0) < 0 else 1.0)
            lines = tuple(Goods(gtin, n) for gtin, n in sorted(held.items()) if n > 0)
            moved = tuple(Goods(gtins[product], n) for product, n in answer.moved)
            alternatives.append(Alternative(moved, answer.probability, lines, min(right, 1.0)))
        return Question(self.kind, self.plate, self.t_ns, self.event_id, tuple(alternatives), self.gain_bits)


class SilentDoubt(NamedTuple):
    """A reach or a load of which no shelf event says what it was.

    Attributes:
        plate, name, t_ns: where (an index into store.plates, and its name) and when.
        right: probability that it cost the cart nothing.
        event_id: of the load; None of a reach.
        delta_g: of the load; 0 of a reach.
    """

    plate: int
    name: str
    t_ns: int
    right: float
    event_id: int | None = None
    delta_g: float = 0.0


def about_loads(cluster: Cluster, carts: set[int]) -> Iterator[CartQuestion]:
    """Questions about a cluster's loads, those that leave nothing open about these carts left out."""
    moves = cluster.moves(cluster.parts_of(carts))
    if not moves:
        return
    choices, weight = cluster.choices.tolist(), np.exp(cluster.log_weight).tolist()
    carted = cluster.carted(moves)
    whole = weights_of(carted, weight)
    added = likeliest(whole)
    for index, opened in enumerate(cluster.events):
        by_answer: defaultdict[Pieces, list[int]] = defaultdict(list)
        for at, chosen in enumerate(choices):
            by_answer[moves.get(chosen[index], ())].append(at)
        if len(by_answer) == 1:
            continue
        answers, left_bits = [], 0.0
        for moved, members in by_answer.items():
            known = weights_of([carted[at] for at in members], [weight[at] for at in members])
            p = sum(known.values())
            left_bits += p * _entropy_bits(known)
            if p > ANSWER_MIN:
                then = likeliest(known)
                answers.append(Answer(moved, p, then, known[then] / p))
        answers.sort(key=lambda answer: (-answer.probability, answer.moved))
        answers = answers[:ANSWERS_MAX]
        if len(answers) > 1:
            gain_bits = max(0.0, _entropy_bits(whole) - left_bits)
            kind = _kind(answers, others=_by_others(cluster, index, carts) > 0.5 * _unmoved(answers))
            yield CartQuestion(
                kind, opened.plate, opened.event.contact_ns, opened.event_id, tuple(answers), added, whole[added],
                gain_bits,
            )  # fmt: skip


def about_silence(doubt: SilentDoubt, planogram: Planogram) -> CartQuestion:
    """The question whether something was moved where no shelf event says so, and which of the goods that lie there.

    Its answers do not end the doubt about a load: none of the goods that lie there weighs as much, so that whatever is
    answered, something else moved. They help the person who reviews the bill.
    """
    there = np.flatnonzero(planogram.planned[doubt.plate] | (planogram.stock[doubt.plate] > 0.5))
    weight_g = planogram.weight_g[there]
    pieces = np.where(doubt.delta_g == 0.0, -1, np.rint(doubt.delta_g / weight_g)).astype(int)
    # The goods whose weight is nearest; a reach says nothing about that.
    order = np.argsort(np.abs(pieces * weight_g - doubt.delta_g), kind="stable") if doubt.delta_g else range(len(there))
    goods = [(int(there[i]), int(pieces[i])) for i in order if pieces[i]][:GOODS_MAX]
    p = (1.0 - doubt.right) * ONE_OF_THE_GOODS / max(len(goods), 1)
    right = 1.0 if doubt.event_id is None else doubt.right
    answers = [Answer((), doubt.right, (), right)]
    answers += [Answer((one,), p, ((one[0], -one[1]),), right) for one in goods]
    gain_bits = _entropy_bits({(): doubt.right, ((0, 1),): 1.0 - doubt.right})
    where = doubt.name, doubt.t_ns, doubt.event_id
    return CartQuestion(QuestionKind.MOVED, *where, tuple(answers), (), doubt.right, gain_bits, is_of_silence=True)


def _entropy_bits(weights: dict[Pieces, float]) -> float:
    """Entropy of outcomes, given as weights that need not sum to one."""
    total = sum(weights.values())
    return -sum(w / total * math.log2(w / total) for w in weights.values() if w > 0.0) if total > 0.0 else 0.0


def _kind(answers: Sequence[Answer], *, others: bool) -> QuestionKind:
    """What the two most probable answers differ in. others: where these people moved nothing, others probably did."""
    first, second = answers[0].moved, answers[1].moved
    if not first or not second:
        return QuestionKind.PERSON if others else QuestionKind.MOVED
    same = {product for product, _ in first} == {product for product, _ in second}
    return QuestionKind.QUANTITY if same else QuestionKind.PRODUCT


def _unmoved(answers: Sequence[Answer]) -> float:
    return sum(answer.probability for answer in answers if not answer.moved)


def _by_others(cluster: Cluster, index: int, carts: set[int]) -> float:
    """Probability that a load was moved, and by none of these carts' people."""
    rows = cluster.rows_of(index)
    acts = (cluster.table.quantity[rows] != 0).any(axis=1) & ~cluster.parts_of(carts)[rows].any(axis=1)
    return float(cluster.probability[rows][acts].sum())
