"""Early receipts: what a visit's receipt will be, within a second of the last exit, and what became of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fusion.early.forerunner import Forerunner, Foreseen
from fusion.early.odds import Odds
from fusion.early.short_order import Lateness
from fusion.engine import Engine
from fusion.observations import Observation
from fusion.results import EarlyReceipt, Outstanding, Receipt, Result, Warning, WarningKind

# The engine ahead is replaced at most this often, in data time: a copy and a replay of two seconds take as long as some
# hundred steps.
REPLACED_EVERY_NS = 2_000_000_000
# Data time after a late message in which others are expected.
DISORDER_NS = 10_000_000_000
# An early receipt without a final one after this long does not count: an open load delays a final one by 12 s.
WITHDRAWN_NS = 20_000_000_000
# Early receipts that wait for their final ones, and visits that are remembered after theirs; more than can leave at
# once.
ISSUED_MAX = BILLED_MAX = 1024


class _Issued(NamedTuple):
    receipt: Receipt
    outstanding: tuple[Outstanding, ...]


class Ahead:
    """Adds early receipts to an engine's results. The engine's own results stay as they are, to the last bit.

        engine = Engine(store)
        ahead = Ahead(engine)
        for observation in source:
            for result in ahead.feed(observation): ...   # an EarlyReceipt, within two seconds its Receipt
        for result in ahead.close(): ...

    A copy of the engine runs ahead of it: it takes each observation about 0.1 s after its time. Both together take two
    to three times the time of the engine alone (`python -m bench early`), and little more memory. Where the copy missed
    a message that came late, it is replaced by a new one before the next early receipt, but at most every two seconds.
    Early receipts depend on the order of arrival, final ones do not.

    A program that acts on the engine's results in between, or changes its receipts before it shows them, calls `look`,
    `compare` and `end` itself, in the place of `feed` and `close`. Nothing of it is part of a snapshot: after `resume`,
    make a new one.

    Attributes:
        engine: whose results are final.
        n_issued, n_corrected, n_withdrawn: early receipts, and what became of them.
        n_replaced: how often the engine ahead was replaced.
    """

    def __init__(self, engine: Engine, as_shown: Callable[[Receipt], Receipt] = lambda receipt: receipt) -> None:
        """Run ahead of an engine, in whichever state it is.

        as_shown: makes of an early receipt what is to be shown, as the program does with a final one.
        """
        self.engine, self._as_shown = engine, as_shown
        self.n_issued = self.n_corrected = self.n_withdrawn = self.n_replaced = 0
        self._issued: dict[str, _Issued] = {}
        self._billed: OrderedDict[str, None] = OrderedDict()
        self._odds, self._lateness = Odds(), Lateness()
        self._replaced_ns = 0
        self._forerunner = Forerunner.of(engine, self, self._lateness)

    def __contains__(self, visit: object) -> bool:
        """Whether a visit has its receipt, early or final."""
        return visit in self._issued or visit in self._billed

    def feed(self, observation: Observation) -> list[Result]:
        """As `Engine.feed`, with early receipts, and warnings where a final one differs. Raises as that does."""
        return [*self._compared(self.engine.feed(observation)), *self.look(observation)]

    def close(self) -> list[Result]:
        """As `Engine.close`."""
        return [*self._compared(self.engine.close()), *self.end()]

    def look(self, observation: Observation) -> list[Result]:
        """Early receipts that are due once the engine has taken an observation."""
        ahead, newest_ns = self._forerunner, self.engine.newest_ns
        ahead.feed(observation)
        # A stale engine is good enough for a while: it lacks a few of many frames and readings.
        is_old = abs(newest_ns - self._replaced_ns) >= REPLACED_EVERY_NS
        if (ahead.foreseen and ahead.stale and is_old) or ahead.set_back_ns != self.engine.set_back_ns:
            self._replace()
        results: list[Result] = []
        if self._forerunner.foreseen:
            foreseen, self._forerunner.foreseen = self._forerunner.foreseen, {}
            results += [self._issue(each) for each in foreseen.values() if len(self._issued) < ISSUED_MAX]
        if self._issued:
            visit, oldest = next(iter(self._issued.items()))
            if abs(newest_ns - oldest.receipt.issued_ns) >= WITHDRAWN_NS:
                results.append(self._withdraw(visit))
        return results

    def compare(self, receipt: Receipt) -> Warning | None:
        """Compare a final receipt with its early one, and return a warning where they differ. Once for each receipt."""
        self._billed[receipt.visit] = None
        if len(self._billed) > BILLED_MAX:
            self._billed.popitem(last=False)
        issued = self._issued.pop(receipt.visit, None)
        if issued is None:
            return None
        differs = _shown(issued.receipt) != _shown(receipt)
        self._odds.learn(issued.outstanding, differs)
        self.n_corrected += differs
        return Warning(receipt.issued_ns, WarningKind.RECEIPT_CORRECTED, receipt.visit) if differs else None

    def end(self) -> list[Warning]:
        """Withdraw the early receipts that have no final one, once the engine was closed."""
        return [self._withdraw(visit) for visit in list(self._issued)]

    def follow(self, engine: Engine) -> None:
        """Continue with another engine in the place of the first, or with one that something else has changed."""
        self.engine = engine
        self._replace()

    def _compared(self, results: list[Result]) -> list[Result]:
        """The engine's results, each receipt that differs from its early one with a warning before it."""
        compared: list[Result] = []
        for result in results:
            warning = self.compare(result) if isinstance(result, Receipt) else None
            compared += [result] if warning is None else [warning, result]
        return compared

    def _replace(self) -> None:
        self._replaced_ns = self.engine.newest_ns
        self.n_replaced += 1
        self._forerunner = Forerunner.of(self.engine, self, self._lateness)

    def _issue(self, foreseen: Foreseen) -> EarlyReceipt:
        newest_ns = self.engine.newest_ns
        issued_ns = max(newest_ns, foreseen.receipt.exit_ns)
        receipt = self._as_shown(replace(foreseen.receipt, issued_ns=issued_ns, taken=()))
        missed_ns = self._lateness.missed_ns
        disorder = missed_ns and abs(newest_ns - missed_ns) < DISORDER_NS
        outstanding = [Outstanding.LOADS] if foreseen.loads else []
        if disorder or self._forerunner.lags(receipt):
            outstanding.append(Outstanding.MESSAGES)
        issued = self._issued[receipt.visit] = _Issued(receipt, tuple(outstanding))
        self.n_issued += 1
        return EarlyReceipt(receipt, self._odds.probability(issued.outstanding), issued.outstanding)

    def _withdraw(self, visit: str) -> Warning:
        self._odds.learn(self._issued.pop(visit).outstanding, True)
        self.n_withdrawn += 1
        return Warning(self.engine.newest_ns, WarningKind.RECEIPT_WITHDRAWN, visit)


def _shown(receipt: Receipt) -> tuple[object, ...]:
    """What a receipt says to a shopper, but for its price, which others may change."""
    return receipt.account, receipt.status, sorted((line.gtin, line.quantity) for line in receipt.lines)
