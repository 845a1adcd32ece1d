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

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from fusion.money.disputes import NONE_OF_THESE, NOT_KNOWN

# A taker who sometimes answers as an honest shopper does, so as not to be found, is a taker still.
TAKER_HONEST = 0.1
# Lowest ratio: a customer who was honest for a year and then is not must be found as soon as a new one nearly is.
RATIO_MIN = 0.1
# A person found a disputed line right. An honest shopper disputes about one right line in 200, that is one visit in 40
# of five lines; a taker one visit in two.
REJECTED_RATIO = 20.0
MILLION = 1_000_000
# Why an answer that would settle took no effect: it was drawn for a person to look at.
DRAWN = "check"


@dataclass(frozen=True, slots=True)
class Statement:
    """An answer to a question, and what is known about the truth.

    Attributes:
        probability: of each choice, by the sensors alone; the remainder to 1 is none of them.
        total: the bill under each choice, minor units.
        chosen: index of the choice; NONE_OF_THESE or NOT_KNOWN.
        truth: index of the true choice, NONE_OF_THESE, or None while no decision shows it.
        sure: whether the answer was enough to settle the bill.
        drawn: whether a person looked at it although it was.
    """

    probability: tuple[float, ...]
    total: tuple[int, ...]
    chosen: int
    truth: int | None = None
    sure: bool = False
    drawn: bool = False

    @classmethod
    def of(cls, choice: int, worth: Mapping[str, Any], decided: Mapping[str, int] | None) -> Self:
        """The answer as the books hold it. decided: pieces by GTIN on the bill that a person decided."""
        choices = worth["choices"]
        if worth.get("shared"):
            # Another question is about the same goods, so that the bill does not show which answer was true.
            decided = None
        numbers = [each["number"] for each in choices]
        chosen = numbers.index(choice) if choice in numbers else choice
        truth = None
        if decided is not None:
            held = [all(decided.get(gtin, 0) == n for gtin, n in each["goods"]) for each in choices]
            # Choices that leave the same goods are one; the shopper's own counts then.
            truth = chosen if chosen >= 0 and held[chosen] else held.index(True) if True in held else NONE_OF_THESE
        return cls(
            tuple(each["probability"] / MILLION for each in choices), tuple(each["total"] for each in choices),
            chosen, truth, worth.get("held") in (None, DRAWN), worth.get("held") == DRAWN,
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

    def ratio(self, statements: Iterable[Statement], n_rejected: int = 0, start: float = 1.0) -> float:
        """Likelihood ratio taker : honest of a customer's answers, oldest first, and disputes that were found wrong.

        start: the ratio before these.
        """
        ratio = start
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


class Tally(NamedTuple):
    """What answers show about a store's shoppers; tallies of several visits add up.

    Mistakes are counted among answers against the own advantage; takers where the truth was not the cheapest choice,
    by convenient answers that a decision refuted. A person decides all that no answer settles, but of the answers that
    would settle only those that are drawn for a check: each group has a rate of its own (stratified sampling, Cochran,
    Sampling Techniques, 1977, chapter 5).

    Attributes:
        dear, dear_wrong: answers against the own advantage that did not settle and whose truth is known, and those that
            a decision refuted.
        dear_sure, dear_drawn, dear_drawn_wrong: those that would settle, those of them that were drawn, those refuted.
        cheap_right, cheap_wrong: convenient answers that did not settle, confirmed and refuted.
        cheap_sure, cheap_drawn, cheap_drawn_wrong: as of those against the own advantage.
    """

    dear: int = 0
    dear_wrong: int = 0
    dear_sure: int = 0
    dear_drawn: int = 0
    dear_drawn_wrong: int = 0
    cheap_right: int = 0
    cheap_wrong: int = 0
    cheap_sure: int = 0
    cheap_drawn: int = 0
    cheap_drawn_wrong: int = 0

    @classmethod
    def of(cls, statements: Iterable[Statement]) -> Tally:
        """The tally of some answers."""
        counts: Counter[str] = Counter()
        for each in statements:
            if each.chosen < 0 or len(each.cheapest) == len(each.total):
                continue
            known = each.truth is not None
            wrong = each.truth is not None and 0 <= each.truth != each.chosen
            name = "cheap" if each.to_advantage else "dear"
            if each.sure:
                counts.update({f"{name}_sure": 1, f"{name}_drawn": each.drawn})
                counts[f"{name}_drawn_wrong"] += each.drawn and wrong
            else:
                counts[f"{name}_wrong"] += wrong
                counts["dear"] += known and name == "dear"
                counts["cheap_right"] += known and name == "cheap" and each.truth == each.chosen
        return cls(**{name: counts[name] for name in cls._fields})

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """The tally of both, or with sign -1 without the other."""
        return Tally(*(mine + sign * others for mine, others in zip(self, other, strict=True)))

    def habits(self, prior: Habits, prior_weight: float) -> Habits:
        """A store's habits.

        Args:
            prior: the habits that the store's settings state.
            prior_weight: as how many answers they count.
        """
        n_dear = self.dear + self.dear_sure
        # A mistake against the own advantage is made where the truth is the cheapest choice. Of two choices it hits the
        # other one half of the time, "none of these" otherwise.
        rate = (0.5 * prior.mistakes * prior_weight + self.dear_drawn_wrong) / (prior_weight + self.dear_drawn)
        n_wrong = self.dear_wrong + rate * self.dear_sure
        n_cheap = self.cheap_right + self.cheap_sure
        mistakes = (prior.mistakes * prior_weight + 2.0 * n_wrong) / (prior_weight + n_cheap + n_wrong)
        rate = (0.5 * prior.takers * prior_weight + self.cheap_drawn_wrong) / (prior_weight + self.cheap_drawn)
        n_taken = max(0.0, self.cheap_wrong + rate * self.cheap_sure - 0.5 * mistakes * n_dear)
        takers = (prior.takers * prior_weight + n_taken) / (prior_weight + n_taken + n_dear)
        return Habits(min(mistakes, 0.5), min(takers, 0.5))
