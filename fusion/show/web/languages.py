"""The languages of pages: a catalogue file for each page and language, and the choice between them.

A catalogue is `pages/texts/PAGE.LANGUAGE.json`: one object of texts by key. A text may hold `{name}` for a value. All
languages of a page have the same keys with the same values in them; English is written first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from fusion.show.page import page_file, script_json

LANGUAGES = ("en", "de")
# A header of more languages than this is no browser's.
ACCEPTED_MAX = 20


@cache
def catalogue(page: str, language: str) -> Mapping[str, str]:
    """The texts of a page by key; those of English where a language is none of `LANGUAGES`."""
    texts: dict[str, str] = json.loads(page_file(f"texts/{page}.{language if language in LANGUAGES else 'en'}.json"))
    return texts


def texts_json(page: str) -> str:
    """The texts of a page in all languages, for `<script type="application/json" id="texts">`: {language: {key: text}}.

    A page that holds all of them changes its language by itself, also without a connection.
    """
    return script_json({language: dict(catalogue(page, language)) for language in LANGUAGES})


def preferred(accept_language: str) -> str:
    """The language of `LANGUAGES` that a browser prefers, by its Accept-Language header (RFC 9110, 12.5.4)."""
    best, best_weight = LANGUAGES[0], 0.0
    for part in accept_language.split(",")[:ACCEPTED_MAX]:
        tag, _, parameter = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        name, _, value = parameter.partition("=")
        try:
            weight = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


__all__ = ["LANGUAGES", "catalogue", "preferred", "texts_json"]
