"""The public face: everything that the README names imports from `fusion`, one table lists it, results are one line."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

import fusion
from fusion import results

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(fusion.__file__).read_text(encoding="utf-8")
T_NS = 1_772_528_646_123_456_789  # 2026-03-03 09:04:06.123 UTC


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    conditions = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)]
    (block,) = [node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert {name: f"fusion.{module}" for name, module in fusion._HOMES.items()} == typed
    assert fusion.__all__ == sorted(typed) and len(set(fusion.__all__)) == len(fusion.__all__)


@pytest.mark.parametrize("name", fusion.__all__)
def test_a_name_is_what_its_module_holds(name: str) -> None:
    value = getattr(fusion, name)
    home = importlib.import_module(f"fusion.{fusion._HOMES[name]}")
    assert value is getattr(home, name)
    # An import of the module of the same name would hide it.
    assert not (ROOT / "fusion" / f"{name}.py").exists() and not (ROOT / "fusion" / name).exists()


def test_results_errors_and_observations_are_all_public() -> None:
    for module in ("results", "errors", "observations"):
        home = importlib.import_module(f"fusion.{module}")
        classes = {
            name for name, value in vars(home).items()
            if isinstance(value, type) and value.__module__ == home.__name__ and not name.startswith("_")
        }  # fmt: skip
        assert classes <= set(fusion.__all__), classes - set(fusion.__all__)


def test_the_readme_names_only_what_imports() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for names in re.findall(r"from fusion import ([\w, ]+)", text):
        for name in names.split(", "):
            assert name in fusion.__all__
    embedding = text[text.index("## Embed") :].split("\n## ")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", embedding)) | set(re.findall(r"`([a-z]\w+)`", embedding))
    layouts_and_statuses = {"coco17", "body25", "box2", "settled", "review"}
    assert {name for name in named if name not in layouts_and_statuses} <= set(fusion.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        fusion.Engin  # noqa: B018
    assert "Engine" in dir(fusion)


def examples() -> list[object]:
    people = results.People(
        T_NS, np.arange(2), np.array([True, False]), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 17, 3)),
        np.zeros((2, 17)), np.zeros(2, np.int64), np.ones(2),
    )  # fmt: skip
    lines = (results.ReceiptLine("96385074", 2, 119, 0.99),)
    reasons = (results.Reason(results.ReasonKind.NO_CREDENTIAL),)
    candidate = results.Candidate("ann", "96385074", -1, 0.93, "v1")
    return [
        people,
        results.PersonEntered(T_NS, 7, "door", "ann", "v1"),
        results.PersonEntered(T_NS, 7, None, None, None, staff=True),
        results.PersonLeft(T_NS, 7, "door", None, "v2"),
        results.Picked(T_NS, "a1", "96385074", 2, "ann", "v1", 0.97),
        results.PutBack(T_NS, "a1", "96385074", 2, None, None, 0.5),
        results.ShelfEventExplained(T_NS, "a1", -330.0, (candidate,)),
        results.ShelfEventExplained(T_NS, "a1", 4.0, ()),
        results.Receipt("v1", "ann", None, T_NS, T_NS, results.ReceiptStatus.REVIEW, reasons, "EUR", 238, lines),
        results.EarlyReceipt(
            results.Receipt("v1", "ann", None, T_NS, T_NS, results.ReceiptStatus.SETTLED, (), "EUR", 238, lines), 0.002
        ),
        results.Evidence(T_NS, "v1", "ann", results.ReceiptStatus.REVIEW, reasons, lines, (), (), 0),
        results.Warning(T_NS, results.WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0),
        results.ShelfCount("a1", "96385074", 0, 2, True, results.ShelfStatus.OVERDRAWN, 0.0),
        fusion.Frame(T_NS, "cam01", np.zeros((3, 17, 3), np.float32)),
        fusion.ShelfReading(T_NS, "a1", np.zeros(12, np.float32)),
    ]


@pytest.mark.parametrize("result", examples(), ids=lambda result: type(result).__name__)
def test_a_result_prints_in_one_line(result: object) -> None:
    line = str(result)
    assert type(result).__name__ in line and "\n" not in line and len(line) < 160
    if isinstance(result, results.Receipt):
        assert "2026-03-03T09:04:06.123Z" in line and "review, no_credential" in line and "2 x 96385074" in line


@pytest.mark.parametrize("kinds", [results.ReasonKind, results.WarningKind, results.ReceiptStatus, results.ShelfStatus])
def test_kinds_are_text_that_can_be_counted(kinds: type[Enum]) -> None:
    assert all(isinstance(kind, str) and kind == kind.value for kind in kinds)
    assert len({kind.value for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    "home",
    ["files.results:ResultsWriter", "show.report:Report", "show.console.feed:LiveFeed", "show.rerun_view:View",
     "money.ledger:Ledger", "live.outbox:Outbox"],
)  # fmt: skip
def test_whatever_takes_results_is_a_sink(home: str) -> None:
    module, name = home.split(":")
    sink = getattr(importlib.import_module(f"fusion.{module}"), name)
    add, close = inspect.signature(sink.add), inspect.signature(sink.close)
    assert list(add.parameters) == ["self", "result"] and list(close.parameters) == ["self"]
