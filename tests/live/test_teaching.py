"""Decisions in the books reach the engine, once, and what it has learnt starts the next one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from goods.shop import GTINS, STORE, T0

from fusion.commands.main import main
from fusion.engine import Engine
from fusion.live.teaching import FILE, Teaching
from fusion.money.ledger import Ledger
from fusion.results import Lesson, LessonCause, LessonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.folder import write_store

PRICE = STORE.products[0].price


def review(visit: str) -> Receipt:
    lines = (ReceiptLine(GTINS[0], 2, PRICE, 0.6),)
    return Receipt(visit, "ann", T0, T0 + 1, T0 + 2, ReceiptStatus.REVIEW, (), STORE.currency, 2 * PRICE, lines)


def lesson(version: int = 1) -> Lesson:
    label_g = STORE.products[0].weight_g
    return Lesson(
        version, T0, LessonKind.WEIGHT, GTINS[0], label_g, 1.01 * label_g, 0.4, label_g, LessonCause.ANSWERS, 9, 2, 5
    )


def taught(engine: Engine) -> None:
    learnt = engine.planogram.learnt
    row = learnt.row()
    label_g = STORE.products[0].weight_g
    row |= {"version": 1, "weights_g": {GTINS[0]: [label_g, 1.01 * label_g]}, "lessons": [lesson().row()]}
    learnt.restore(row)


def test_decisions_reach_the_engine_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Engine, "learn", lambda _, visit, items, t_ns: asked.append((visit, items, t_ns)) or 0)
    engine = Engine(STORE)
    with Ledger.open(tmp_path / "books.sqlite", STORE) as ledger:
        for visit in ("v0", "v1", "v2", "v3"):
            ledger.post_receipt(review(visit))
        ledger.decide("v0", "accept", by="ann", t_ns=T0 + 3)
        teaching = Teaching(tmp_path, ledger, print)
        teaching.begin(engine)
        teaching.step(engine)
        assert asked == [], "a new engine does not know the visits of the past"
        ledger.decide("v1", "accept", by="bob", t_ns=T0 + 4)
        lines = (ReceiptLine(GTINS[1], 1, PRICE, 1.0),)
        ledger.decide("v2", "correct", by="bob", t_ns=T0 + 5, lines=lines)
        ledger.decide("v3", "waive", by="bob", t_ns=T0 + 6)
        for _ in range(2):
            teaching.step(engine)
    assert asked == [("v1", {GTINS[0]: 2}, T0 + 4), ("v2", {GTINS[1]: 1}, T0 + 5), ("v3", None, T0 + 6)]


def test_a_new_engine_starts_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, messages = Engine(STORE), []
    with Ledger.open(tmp_path / "books.sqlite", STORE) as ledger:
        teaching = Teaching(tmp_path, ledger, messages.append)
        teaching.step(engine)
        assert not (tmp_path / FILE).exists(), "there is nothing to keep yet"
        taught(engine)
        teaching.step(engine)
        following = Engine(STORE)
        Teaching(tmp_path, ledger, messages.append).begin(following)
        assert following.planogram.weight_g.tobytes() == engine.planogram.weight_g.tobytes()
        assert messages == ["starts with version 1 of what the store has taught"]
        write_store(STORE, tmp_path / "store")
        assert main(["learnt", str(tmp_path / "store"), str(tmp_path)]) == 0
        assert capsys.readouterr().out.startswith("product 0 weighs 121.2 ± 0.4 g since ")
        (tmp_path / FILE).write_text(json.dumps({"format": 9}))
        Teaching(tmp_path, ledger, messages.append).begin(Engine(STORE))
        assert messages[-1].startswith("learnt.json is left out: want what this store has learnt")
        assert main(["learnt", str(tmp_path / "store"), str(tmp_path)]) == 2
