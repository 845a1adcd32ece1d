"""Texts of pages: every language says the same, and browsers get the one that they prefer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fusion.show
from fusion.show.web.languages import LANGUAGES, catalogue, preferred

TEXTS = Path(fusion.show.__file__).parent / "pages" / "texts"
PAGES = sorted({path.name.partition(".")[0] for path in TEXTS.glob("*.json")})


@pytest.mark.parametrize("page", PAGES)
def test_every_language_has_the_same_texts_with_the_same_values(page: str) -> None:
    english = catalogue(page, "en")
    for language in LANGUAGES:
        texts = catalogue(page, language)
        assert list(texts) == list(english), language
        for key, text in texts.items():
            assert text.strip(), (language, key)
            assert set(re.findall(r"{\w*}", text)) == set(re.findall(r"{\w*}", english[key])), (language, key)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"), ("de", "de"), ("de-AT,de;q=0.9,en;q=0.8", "de"), ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("fr,de;q=0.4,en;q=0.2", "de"), ("fr", "en"), ("de;q=0,en;q=0.1", "en"), ("de;q=x", "en"), ("," * 10_000, "en"),
    ],
)  # fmt: skip
def test_the_language_that_a_browser_prefers(header: str, language: str) -> None:
    assert preferred(header) == language


def test_a_language_that_no_page_has_reads_english() -> None:
    assert all(catalogue(page, "xx") == catalogue(page, "en") for page in PAGES)
