"""Early receipts of a served store: consoles see them, the books do not, and a gap found later corrects them aloud."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from live.stepping import Day, SteppedStore, quiet_config

from bench.endurance import serve as bench
from fusion.results import EarlyReceipt, ReasonKind, Receipt, ReceiptStatus, Result, Warning, WarningKind
from fusion.show.console.feed import LiveFeed


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """Everything that consoles are sent."""
    results: list[Result] = []
    add = LiveFeed.add

    def noted(feed: LiveFeed, result: Result) -> None:
        results.append(result)
        add(feed, result)

    monkeypatch.setattr(LiveFeed, "add", noted)
    return results


def opened(day: Day, folder: Path, early: bool) -> SteppedStore:
    return SteppedStore(replace(quiet_config(day.store, folder), early=early))


def early_in(results: list[Result]) -> list[EarlyReceipt]:
    return [result for result in results if isinstance(result, EarlyReceipt)]


def test_books_are_the_same_with_and_without_early_receipts(day: Day, shown: list[Result], tmp_path: Path) -> None:
    books = []
    for early in (False, True):
        stepped = opened(day, tmp_path / str(early), early)
        stepped.give(day.observations)
        stepped.end()
        books.append(bench.booked(tmp_path / str(early), day.store))
        assert len(early_in(shown)) == (len(day.receipts) if early else 0)
    assert books[0] == books[1] and books[1].fault is None
    final = {result.visit: result for result in shown if isinstance(result, Receipt)}
    for one in early_in(shown):
        receipt = final[one.visit]
        assert shown.index(one) < len(shown) - 1 - shown[::-1].index(receipt)
        assert (one.receipt.lines, one.receipt.status) == (receipt.lines, receipt.status)


def test_a_gap_that_is_found_after_an_early_receipt_corrects_it(
    day: Day, shown: list[Result], tmp_path: Path
) -> None:
    stepped = opened(day, tmp_path, early=True)
    observations = iter(day.observations)
    while not early_in(shown):
        stepped.give([next(observations)])
    (one,) = early_in(shown)
    assert one.receipt.status == ReceiptStatus.SETTLED
    stepped.loop.books.doubt_span(one.receipt.exit_ns - 1, one.receipt.exit_ns, ReasonKind.DATA_DROPPED)
    stepped.give(observations)
    stepped.end()
    said = [i for i, result in enumerate(shown) if isinstance(result, Warning) and result.subject == one.visit]
    final = next(result for result in shown if isinstance(result, Receipt) and result.visit == one.visit)
    assert [shown[i].kind for i in said] == [WarningKind.RECEIPT_CORRECTED]  # type: ignore[union-attr]
    assert said[0] < shown.index(final) and final.status == ReceiptStatus.REVIEW
