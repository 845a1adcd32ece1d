"""The API reference lists every public name exactly once, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import fusion

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_reference_has_a_directive_for_every_public_name() -> None:
    listed = re.findall(r"^::: fusion\.(\w+)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(fusion.__all__)
