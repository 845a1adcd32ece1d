"""Reasons and warnings in words: every kind has a sentence, and none of them fails."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fusion.files.results import reason_of, reason_row
from fusion.results import Reason, ReasonKind, Warning, WarningKind
from fusion.sentences import reason_text, sentence, sentences
from fusion.simulation import demo_store

VALUES: dict[str, Any] = {
    "plate": "p1", "gtin": "96385074", "quantity": 2, "delta_g": -412.0, "probability": 0.61, "gate": "door",
    "zone": "pay", "source": "antenna", "sighting": "read", "seconds": 1.5, "detail": "because", "count": 3, "total": 7,
    "off_m": 0.12, "share": 0.4, "usual_share": 0.1, "limit_g": 30.0, "credential": "qr",
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
