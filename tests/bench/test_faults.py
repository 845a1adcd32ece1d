"""The outcomes of `python -m bench faults` on results made by hand, and its published page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.accuracy import faults
from fusion.results import Receipt, ReceiptLine, ReceiptStatus, Warning, WarningKind
from fusion.simulation.faults import FAULTS, Fault, Part, Run
from fusion.simulation.truth import Truth, VisitTruth

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"


def receipt(account, items=(), status=ReceiptStatus.SETTLED):
    lines = tuple(ReceiptLine(gtin, n, 100, 0.99) for gtin, n in dict(items).items())
    return Receipt("v", account, 1, 2, 3, status, (), "EUR", 0, lines)


class Totals:
    """A journal whose balances are as wanted."""

    def __init__(self, totals):
        self.journal, self._totals = self, totals

    def totals(self):
        return self._totals


def outcome(monkeypatch, results, took, refused=(), totals=()):
    run = Run(None, (), Truth(visits=[VisitTruth(account, 1, 2, items) for account, items in took.items()]))
    monkeypatch.setattr(faults, "answered", lambda store, observations: (Totals(dict(totals)), results, dict(refused)))
    return faults.outcome_of(run, ())


def test_receipts_are_right_wrong_reviewed_or_missing(monkeypatch):
    review = ReceiptStatus.REVIEW
    took = {"a": {"x": 1}, "b": {"x": 2}, "c": {}, "d": {}, "e": {"y": 1}}
    results = [receipt("a", {"x": 1}), receipt("b", {"x": 1}), receipt("c", (), review), receipt(None, (), review)]
    found = outcome(monkeypatch, results, took)
    # One receipt without an account stands for one of the two shoppers without a receipt of their own.
    assert found.visits == {"a": "right", "b": "wrong", "c": "review", "d": "review", "e": "none"}
    assert found.violations == () and len(found.details) == 2
    assert found.settled_wrong_beyond(found) == []


def test_violations(monkeypatch):
    took = {"a": {"x": 1}}
    results = [receipt("a", {"x": 1}), receipt("a"), receipt(None), receipt("z", {"x": 1})]
    found = outcome(monkeypatch, results, took, totals={"x": 1})
    assert [text.split()[0] for text in found.violations] == ["a", "a", "z", "goods"]


def test_an_engine_that_ends_leaves_everybody_without_a_receipt(monkeypatch):
    def ends(store, observations):
        raise IndexError("out of range")

    run = Run(None, (), Truth(visits=[VisitTruth("a", 1, 2, {})]))
    monkeypatch.setattr(faults, "answered", ends)
    found = faults.outcome_of(run, ())
    assert found.visits == {"a": "none"} and "IndexError" in found.violations[0]


@pytest.mark.parametrize(
    "kind, subject, named",
    [
        (WarningKind.PLATE_SILENT, "p1", True),
        (WarningKind.PLATE_SILENT, "p2", True),
        (WarningKind.CAMERA_OUTAGE, "c1", False),
        (WarningKind.NO_CREDENTIAL, "v1", False),
    ],
)
def test_a_warning_names_the_sensor_or_its_kind(monkeypatch, kind, subject, named):
    clean = outcome(monkeypatch, [], {})
    found = outcome(monkeypatch, [Warning(5, kind, subject)], {})
    fault = Fault("f", Part.SCALES, lambda scene: [], "nothing")
    assert bool(found.names(fault, {"p1"}, clean)) is named
    assert found.names(fault, {"p1"}, found) == [], "the clean run has it too"


def test_the_published_table_is_rendered_from_its_figures():
    measured = json.loads((FIGURES / "faults.json").read_text(encoding="utf-8"))
    assert (FIGURES / "faults.md").read_text(encoding="utf-8") == faults.page(measured)
    assert {row["fault"] for row in measured["rows"]} == {faults.CLEAN, *FAULTS}
    assert all(row["right"] + row["review"] + row["none"] <= row["visits"] for row in measured["rows"])
