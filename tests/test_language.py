"""Plain English: words of an older dialect stay out of the code and the documents, also as parts of names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each of these made a reader stop: use the noun, or the field's term (report, emit, state; residual; they).
WORDS = ("told", "tells", "said", "somebody", "nobody", "whom", "anew", "misfit", "haste", "goes on", "so long")
# A name such as `told_g` or `fooTold` holds a word; `untold` and `retold` do not.
PATTERN = re.compile(r"(?<![a-z])(?:" + "|".join(word.replace(" ", r"\s+") for word in WORDS) + r")(?![a-z])", re.I)
SUFFIXES = {".py", ".pyi", ".pyx", ".hpp", ".cpp", ".md", ".js", ".css", ".html", ".toml"}
# Where a word is right: file and the exact text around it.
ALLOWED: dict[str, tuple[str, ...]] = {
    "fusion/money/mail.py": ('_OUTCOME = "said"',),  # a field of entries in existing books
}


def texts() -> list[Path]:
    paths = [ROOT / "README.md"]
    for folder in ("fusion", "native", "docs"):
        paths += sorted((ROOT / folder).rglob("*"))
    return [path for path in paths if path.suffix in SUFFIXES and "__pycache__" not in path.parts]


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for allowed in ALLOWED.get(str(path.relative_to(ROOT)), ()):
        assert allowed in text, f"{path}: the allowed text {allowed!r} is gone; remove it from the list"
        text = text.replace(allowed, "")
    lines = text.splitlines()
    found = {text.count("\n", 0, match.start()) + 1: match[0] for match in PATTERN.finditer(text)}
    assert not found, "\n".join(f"{path}:{number}: {word!r} in: {lines[number - 1]}" for number, word in found.items())


@pytest.mark.parametrize(
    ("text", "hit"), [("it told us", True), ("n_told", True), ("Told:", True), ("so\n long", True), ("retold", False)]
)
def test_the_check_sees_words_and_names(text: str, hit: bool) -> None:
    assert bool(PATTERN.search(text)) == hit
