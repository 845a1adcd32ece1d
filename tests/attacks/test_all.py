"""Every attack that is known has a test, or is named in SECURITY.md as open, with its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
N_ATTACKS = 27
# A row of the table "Not protected yet", with the numbers that it is about in a comment.
ROW = re.compile(r"^\| <!-- attack ([\d, ]+) --> \| (.+?) \| (.+?) \|$", re.M)


def tested() -> set[int]:
    """Numbers that tests are marked with."""
    marks = re.compile(r"^\s*@?pytest\.mark\.attack\((\d+)\)", re.M)
    return {int(n) for path in (ROOT / "tests").rglob("test_*.py") for n in marks.findall(path.read_text("utf-8"))}


def open_rows() -> dict[int, tuple[str, str]]:
    """Attacks that are open: what is possible, and why it is open."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return {int(n): (what, why) for numbers, what, why in ROW.findall(text) for n in numbers.split(",")}


@pytest.mark.parametrize("number", range(1, N_ATTACKS + 1))
def test_an_attack_has_a_test_or_is_named_as_open(number: int) -> None:
    assert number in tested() | open_rows().keys(), f"attack {number} has neither a test nor a row in SECURITY.md"


def test_what_is_open_has_a_reason() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(ROW.findall(text)) == text.count("<!-- attack "), "each comment begins a row of three cells"
    for number, (what, why) in open_rows().items():
        assert 1 <= number <= N_ATTACKS and len(what) > 20 and len(why) > 20, number


def test_marks_are_numbers_of_attacks() -> None:
    assert tested() <= set(range(1, N_ATTACKS + 1))
