"""What pages for operators name exists: commands, warnings, states, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusion.commands.main import GROUPS
from fusion.results import WarningKind

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/runbook.md", "docs/first-day.md", "docs/data-protection.md", "docs/pci.md", "SECURITY.md")
COMMANDS = {command.name for group in GROUPS for command in group.commands}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_exists(page: str) -> None:
    text = text_of(page)
    named = set(re.findall(r"(?:^|[`(] ?|/bin/|\$ )fusion ([a-z][a-z-]+)(?=[ `\n])", text, re.M))
    assert named <= COMMANDS, named - COMMANDS


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`((?:fusion|tests|deploy)/[\w/@.-]+\.\w+)`|cp (deploy/[^ ]+)", text_of(page))
    missing = [path for pair in named for path in pair if path and not (ROOT / path).exists()]
    assert not missing
    for target in re.findall(r"\]\(([\w./-]+\.(?:md|conf))[#)]", text_of(page)):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_warnings_of_the_runbook_are_those_of_the_engine() -> None:
    (section,) = re.findall(r"^## A broken sensor\n(.*?)^## ", text_of("docs/runbook.md"), re.M | re.S)
    named = re.findall(r"`((?:camera|plate|publisher) \w+)`", section)
    assert named and set(named) <= {str(kind) for kind in WarningKind}
