"""Reasons and warnings in words: every kind has a sentence, and none of them fails."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.files.results import reason_of, reason_row
from fusion.money.entries import NOTE_MAX
from fusion.results import (
    DETAIL_MAX,
    NAME_MAX,
    Alternative,
    Goods,
    Lesson,
    LessonCause,
    LessonKind,
    Question,
    QuestionKind,
    Reason,
    ReasonKind,
    Warning,
    WarningKind,
)
from fusion.sentences import REASON_TEXT_MAX, lesson_text, question_text, reason_text, sentence, sentences
from fusion.simulation import demo_store

VALUES: dict[str, Any] = {
    "plate": "p1", "gtin": "96385074", "quantity": 2, "delta_g": -412.0, "probability": 0.61, "gate": "door",
    "zone": "pay", "source": "antenna", "sighting": "read", "seconds": 1.5, "detail": "because", "count": 3, "total": 7,
    "off_m": 0.12, "share": 0.4, "usual_share": 0.1, "limit_g": 30.0, "rate_hz": 10.0, "factor": 0.5,
    "credential": "qr",
}  # fmt: skip


def whole(cls: type, *first: object) -> Any:
    """A reason or a warning with every field given."""
    names = [field.name for field in fields(cls)][len(first) :]
    return cls(*first, **{name: VALUES[name] for name in names})


@pytest.mark.parametrize("kind", ReasonKind)
def test_every_reason_has_a_sentence(kind: ReasonKind) -> None:
    text = sentence(whole(Reason, kind))
    assert text and not {"{", "}", "?", ";"} & set(text)
    assert sentence(Reason(kind)), "a field that is missing is no error"


@pytest.mark.parametrize("kind", WarningKind)
def test_every_warning_has_a_sentence(kind: WarningKind) -> None:
    text = sentence(whole(Warning, 1, kind, "cam01"))
    assert text and not {"{", "}", "?"} & set(text)
    assert sentence(Warning(1, kind, "cam01"))


def test_the_document_lists_every_kind() -> None:
    document = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    assert [kind for kind in (*ReasonKind, *WarningKind) if f"`{kind}`" not in document] == []


def test_products_have_names_where_a_store_is_given() -> None:
    store = demo_store(2, 4)
    product = store.products[0]
    reason = Reason(ReasonKind.RETURN_UNCLEAR, gtin=product.gtin)
    assert product.gtin in sentence(reason) and product.name not in sentence(reason)
    assert product.name in sentence(reason, store) and product.gtin not in sentence(reason, store)


def test_a_sentence_comes_once() -> None:
    first = Reason(ReasonKind.SCANNED_PERSON_LOST, gate="north")
    second = Reason(ReasonKind.SCANNED_PERSON_LOST, gate="south")
    assert len(sentences([first, second, first])) == 1
    assert reason_text([Reason(ReasonKind.NO_CREDENTIAL), first]).startswith("no credential; the person who scanned")
    assert reason_text([]) is None


@pytest.mark.parametrize("kind", ReasonKind)
def test_a_reason_survives_its_row(kind: ReasonKind) -> None:
    assert reason_of(reason_row(whole(Reason, kind))) == whole(Reason, kind)
    assert reason_of(reason_row(Reason(kind))) == Reason(kind)


@pytest.mark.parametrize("row", [{}, {"kind": "none"}, {"kind": "note", "why": 1}, {"detail": "x"}])
def test_what_is_no_reason_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reason"):
        reason_of(row)


# ---- bounds ----------------------------------------------------------------------------------------------------------

# Names that a sensor may have or send: long, with control characters, separators and halves of surrogate pairs.
NAMES = st.text(st.characters(), max_size=20) | st.builds(lambda c, n: c * n, st.characters(), st.integers(1, 9000))
REASONS = st.builds(
    Reason, st.sampled_from(ReasonKind), plate=NAMES, gtin=NAMES, zone=NAMES, source=NAMES, sighting=NAMES,
    detail=NAMES, quantity=st.integers(-(2**63), 2**63), delta_g=st.floats(), probability=st.floats(),
    seconds=st.floats(),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(REASONS, max_size=40), st.integers(0, 1000))
def test_the_text_about_a_receipt_has_a_bound(reasons: list[Reason], n_plates: int) -> None:
    kind = ReasonKind.PLATE_NOT_REPORTING
    reasons += [Reason(kind, plate=f"gondola {k % 7} " * 9 + str(k)) for k in range(n_plates)]
    text = reason_text(reasons)
    assert REASON_TEXT_MAX <= NOTE_MAX, "the ledger takes every text"
    assert (text is None) == (not any(map(sentence, reasons)))
    assert text is None or len(text) <= REASON_TEXT_MAX
    assert text is None or text.encode("utf-8").decode() == text


@given(NAMES)
def test_what_data_call_themselves_has_a_bound(name: str) -> None:
    warning = Warning(1, WarningKind.UNKNOWN_GATE, name, detail=name)
    assert len(warning.subject) <= NAME_MAX and len(warning.detail or "") <= DETAIL_MAX
    for text in (warning.subject, warning.detail, sentence(warning), str(warning)):
        assert text is not None and not {"\n", "\r", "\x1b"} & set(text)
        text.encode("utf-8")


def test_many_reasons_of_a_kind_are_counted_and_the_first_named() -> None:
    silent = [Reason(ReasonKind.PLATE_NOT_REPORTING, plate=f"p{k:02d}") for k in range(41)]
    text = reason_text([Reason(ReasonKind.NO_CREDENTIAL), *silent, Reason(ReasonKind.LOST_INSIDE)])
    assert text == (
        "no credential; may have taken from 41 plates that do not report, among them p00, p01, p02; "
        "lost from sight inside the store"
    )
    unclear = [Reason(ReasonKind.RETURN_UNCLEAR, gtin=f"{k:08d}") for k in range(9)]
    assert len(sentences(unclear)) == 4 and sentences(unclear)[-1] == "6 more of the kind 'return unclear'"
    assert len(sentences(silent[:4])) == 4, "a few are named one by one"


def test_reasons_that_do_not_fit_are_counted() -> None:
    notes = [Reason(ReasonKind.NOTE, detail=f"{k}" * 500) for k in range(4)]
    kinds = [Reason(kind, plate="p" * 60, delta_g=1.0, probability=0.5) for kind in ReasonKind]
    text = reason_text([*notes, *kinds])
    assert text is not None and len(text) <= REASON_TEXT_MAX and text.endswith(" more reasons")


def question(kind: QuestionKind, *moved: tuple[Goods, ...], event_id: int | None = 1) -> Question:
    share = 1.0 / max(len(moved), 1)
    return Question(kind, "p1", 0, event_id, tuple(Alternative(one, share, (), 1.0) for one in moved), 1.0)


def test_questions_name_the_alternatives() -> None:
    a, b = (Goods("a", -1),), (Goods("b", -2),)
    assert question_text(question(QuestionKind.PRODUCT, a, b)) == "Did you take 1 x a or 2 x b at shelf p1?"
    moved = question(QuestionKind.MOVED, (), a)
    assert question_text(moved) == "Did you take 1 x a or nothing at shelf p1?"
    put = question(QuestionKind.PERSON, (Goods("a", 1), Goods("b", 1)), ())
    assert question_text(put) == "Did you put back 1 x a and 1 x b or nothing at shelf p1?"
    silent = question(QuestionKind.MOVED, (), a, event_id=None)
    assert question_text(silent) == "Did you take or put back anything at shelf p1, such as 1 x a?"
    assert question_text(question(QuestionKind.MOVED)) == "Did you take or put back anything at shelf p1?"
    store = demo_store(2, 4)
    product = store.products[0]
    named = question_text(question(QuestionKind.PRODUCT, (Goods(product.gtin, -1),), b), store)
    assert product.name in named and "p1, at " in named


@pytest.mark.parametrize("kind", QuestionKind)
def test_the_document_lists_every_kind_of_question(kind: QuestionKind) -> None:
    assert f"`{kind}`" in (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", LessonKind)
@pytest.mark.parametrize("cause", LessonCause)
def test_every_lesson_has_a_sentence(kind: LessonKind, cause: LessonCause) -> None:
    lesson = Lesson(7, 1_772_528_646_000_000_000, kind, "96385074", 350.0, 352.1, 0.8, 350.0, cause, 14, 2, 9)
    text = lesson_text(lesson)
    assert "Tuesday 2026-03-03" in text and "version 7" in text and not {"{", "}", "?", ";"} & set(text)


def test_a_lesson_about_a_weight_names_the_product() -> None:
    store = demo_store(2, 4)
    product = store.products[0]
    lesson = Lesson(1, 0, LessonKind.WEIGHT, product.gtin, 350.0, 352.1, 0.8, 350.0, LessonCause.LOADS, 14, 2, 9)
    text = lesson_text(lesson, store)
    assert text.startswith(f"{product.name} weighs 352.1 ± 0.8 g since Thursday 1970-01-01 (350.0 g before")
