"""What a shopper's answer is worth: how often honest shoppers err, and who answers to their own advantage.

A shopper is of one of two kinds. An honest one gives the true answer, or errs with probability m and then gives any
other. A taker gives the cheapest answer wherever the true one costs more, and forgets to do so with probability e.
With k choices and "none of these", answer c and truth a:

    honest:  P(c | a) = 1 - m            where c = a, otherwise m / k
    taker:   P(c | a) = (1 - e) / n + e P(c | a, honest)    for the n cheapest choices c where a is not among them,
             e P(c | a, honest) for the others, and as the honest one where a is among the cheapest

The likelihood ratio of both kinds over all that a customer answered is Wald's (Sequential Analysis, 1947):

    ratio = product over answers of P(answer | taker) / P(answer | honest)

where the truth is averaged over the sensors' probabilities until a person's decision shows it. For honest customers
the ratio is a martingale with mean 1, so that it ever exceeds r with probability at most 1 / r (Ville 1939): this
bounds how many of them are ever marked. How many shoppers are takers, and how often honest ones err, is learnt from
decided visits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from fusion.money.disputes import NONE_OF_THESE, NOT_KNOWN

# A taker who sometimes answers as an honest shopper does, so as not to be found, is a taker still.
TAKER_HONEST = 0.1
# Lowest ratio: a customer who was honest for a year and then is not must be found as soon as a new one nearly is.
RATIO_MIN = 0.1
# A person found a disputed line right. An honest shopper disputes about one right line in 200, that is one visit in 40
# of five lines; a taker one visit in two.
REJECTED_RATIO = 20.0
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Statement:
    """An answer to a question, and what is known about the truth.

    Attributes:
        probability: of each choice, by the sensors alone; the remainder to 1 is none of them.
        total: the bill under each choice, minor units.
        chosen: index of the choice; NONE_OF_THESE or NOT_KNOWN.
        truth: index of the true choice, NONE_OF_THESE, or None while no decision shows it.
        checked: how probable it was that a person would look although the answer settled the bill; 1 where it did not.
    """

    probability: tuple[float, ...]
    total: tuple[int, ...]
    chosen: int
    truth: int | None = None
    checked: float = 1.0

    @classmethod
    def of(cls, choice: int, worth: Mapping[str, Any], decided: Mapping[str, int] | None) -> Self:
        """The answer as the books hold it. decided: pieces by GTIN on the bill that a person decided."""
        choices = worth["choices"]
        numbers = [each["number"] for each in choices]
        chosen = numbers.index(choice) if choice in numbers else choice
        truth = None
        if decided is not None:
            held = [all(decided.get(gtin, 0) == n for gtin, n in each["goods"]) for each in choices]
            # Choices that leave the same goods are one; the shopper's own counts then.
            truth = chosen if chosen >= 0 and held[chosen] else held.index(True) if True in held else NONE_OF_THESE
        return cls(
            tuple(each["probability"] / MILLION for each in choices), tuple(each["total"] for each in choices),
            chosen, truth, worth.get("checked", MILLION) / MILLION,
        )  # fmt: skip

    @property
    def cheapest(self) -> frozenset[int]:
        """The choices that cost least."""
        least = min(self.total)
        return frozenset(i for i, total in enumerate(self.total) if total == least)

    @property
    def to_advantage(self) -> bool:
        """Whether another choice would have cost more, and none less."""
        return self.chosen in self.cheapest and len(self.cheapest) < len(self.total)


@dataclass(frozen=True, slots=True)
class Habits:
    """How a store's shoppers answer: `mistakes` is m above, `takers` the share of takers among those who answer."""

    mistakes: float
    takers: float

    def honest(self, statement: Statement, truth: int) -> float:
        """P(answer | truth) of an honest shopper. truth: index of a choice, or NONE_OF_THESE."""
        return 1.0 - self.mistakes if statement.chosen == truth else self.mistakes / len(statement.total)

    def taker(self, statement: Statement, truth: int) -> float:
        """P(answer | truth) of a taker."""
        honest, cheapest = self.honest(statement, truth), statement.cheapest
        if truth in cheapest or len(cheapest) == len(statement.total):
            return honest
        taken = (1.0 - TAKER_HONEST) / len(cheapest) if statement.chosen in cheapest else 0.0
        return taken + TAKER_HONEST * honest

    def ratio(self, statements: Iterable[Statement], n_rejected: int = 0) -> float:
        """Likelihood ratio taker : honest of a customer's answers, oldest first, and disputes that were found wrong."""
        ratio = 1.0
        for each in statements:
            if each.chosen != NOT_KNOWN:
                truths = truth_weights(each) if each.truth is None else {each.truth: 1.0}
                takers = sum(p * self.taker(each, truth) for truth, p in truths.items())
                honest = sum(p * self.honest(each, truth) for truth, p in truths.items())
                ratio = max(ratio * takers / honest, RATIO_MIN)
        return float(ratio * REJECTED_RATIO**n_rejected)

    def is_taker(self, ratio: float) -> float:
        """Probability that a customer with such a ratio is a taker."""
        odds = ratio * self.takers / (1.0 - self.takers)
        return odds / (1.0 + odds)

    def truths(self, statement: Statement, taker: float) -> dict[int, float]:
        """Probability of each choice, and of NONE_OF_THESE, after an answer of a taker with this probability."""
        weights = truth_weights(statement)
        if statement.chosen != NOT_KNOWN:
            weights = {
                truth: p * ((1.0 - taker) * self.honest(statement, truth) + taker * self.taker(statement, truth))
                for truth, p in weights.items()
            }
        total = sum(weights.values())
        return {truth: weight / total for truth, weight in weights.items()}


def truth_weights(statement: Statement) -> dict[int, float]:
    """Probability of each choice, and of NONE_OF_THESE, before the answer."""
    weights = dict(enumerate(statement.probability))
    weights[NONE_OF_THESE] = max(0.0, 1.0 - sum(statement.probability))
    return weights


def learnt(statements: Sequence[Statement], prior: Habits, prior_weight: float) -> Habits:
    """A store's habits after the answers of its shoppers.

    Mistakes are counted among answers that cost as much as the truth or more. Takers are counted where the truth was
    not the cheapest choice: answers against the own advantage are taken as true, those to it that a decision refuted as
    takers'. An answer that settled its bill is looked at with probability `Statement.checked` alone, and counts so much
    more (Horvitz and Thompson, J. Am. Stat. Assoc. 47, 1952). Mistakes to the own advantage are subtracted as expected.

    Args:
        statements: the answers of all shoppers.
        prior: the habits that the store's settings state.
        prior_weight: as how many answers they count.
    """
    n_true, n_wrong, n_dear, n_taken = 0, 0, 0.0, 0.0
    for each in statements:
        if each.chosen < 0 or len(each.cheapest) == len(each.total):
            continue
        refuted = each.truth is not None and 0 <= each.truth != each.chosen
        if each.to_advantage:
            n_taken += refuted / each.checked
        else:
            n_dear += 1
            n_wrong += refuted
            n_true += each.truth == each.chosen
    mistakes = (prior.mistakes * prior_weight + n_wrong) / (prior_weight + n_true + n_wrong)
    n_taken = max(0.0, n_taken - mistakes * n_dear / 2.0)
    takers = (prior.takers * prior_weight + n_taken) / (prior_weight + n_taken + n_dear)
    return Habits(min(mistakes, 0.5), min(takers, 0.5))
