"""Drafts of the sheet and the notices: generated from the configuration, marked as drafts, with no fact left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusion.commands.main import main
from fusion.gates.data_protection import PLACES, notice, sheet
from fusion.gates.privacy import holdings
from fusion.simulation import demo_store
from fusion.store.models import Gate, PrivacyPolicy, Store

STORE = demo_store(2, 4)


def with_faces() -> Store:
    gate = Gate(id="door", direction="both", line=((0, 1), (0, 0)), credentials=("face", "qr"))
    return STORE.model_copy(
        update={"gate": (gate,), "privacy": PrivacyPolicy(unlink_after_days=7), "appearance_dim": 16}
    )


def texts(store: Store) -> list[str]:
    return [sheet(store), *(notice(store, place) for place in PLACES)]


@pytest.mark.parametrize("store", [STORE, with_faces()], ids=["codes", "faces"])
def test_every_draft_says_that_it_is_one_and_has_no_gap_but_those_in_brackets(store: Store) -> None:
    for text in texts(store):
        assert re.search(r"DRAFT|ENTWURF", text.splitlines()[2] + text.splitlines()[0])
        assert "$" not in text and "None" not in text and "\n\n\n" not in text
        assert store.name in text and "[" in text


def test_the_sheet_lists_everything_that_is_kept() -> None:
    store = with_faces()
    text = sheet(store)
    for holding in holdings(store):
        assert f"| {holding.data} | {holding.where} | {holding.purpose} | {holding.kept} |" in text
    assert "`door`, way in and out (the face of a customer who opted in or a signed code)" in text
    # Every row of a table has as many cells as its head.
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_what_the_store_does_not_do_is_in_no_draft() -> None:
    faces = re.compile(r"9\(2\)\(a\)|Gesicht|geometry of your face|special categories", re.I)
    assert not [text for text in texts(STORE) if faces.search(text)]
    assert len([text for text in texts(with_faces()) if faces.search(text)]) == 3
    assert "look of" not in "".join(texts(STORE)) and "Statur" not in notice(STORE, "de")
    assert "look of your clothes" in notice(with_faces(), "us-ny") and "Statur" in notice(with_faces(), "de")


def test_the_german_notice_has_what_article_13_asks_for() -> None:
    text = notice(with_faces(), "de")
    for part in ("Verantwortlich:", "Datenschutzbeauftragte", "Zweck:", "Rechtsgrundlage:", "Speicherdauer:",
                 "Empfänger", "Drittländer", "Art. 15", "Widerspruch", "Beschwerde", "Widerruf", "Computer?",
                 "Müssen Sie Daten bereitstellen", "§ 4 Abs. 2 BDSG", "7 Tage"):  # fmt: skip
        assert part in text, part


def test_the_sign_of_new_york_is_there_without_faces_too() -> None:
    """Measures of a body may count as biometric identifier information."""
    for store in (STORE, with_faces()):
        text = notice(store, "us-ny")
        assert "collects, retains, converts, stores or shares" in text and "22-1201" in text
        assert "We do not sell it" in text and "elbows and wrists" in text


def test_the_command_prints_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "biu", "--sheet"]) == 0
    assert capsys.readouterr().out.startswith("# Data protection: ")
    assert main(["privacy", "biu", "--notice", "de"]) == 0
    assert "Einwilligung" in capsys.readouterr().out, "customers of this store come in by face"
    with pytest.raises(SystemExit):
        main(["privacy", "biu", "--sheet", "--notice", "de"])
    capsys.readouterr()


def test_the_sheet_names_who_gets_data_by_the_settings_of_the_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    till = tmp_path / "till.toml"
    till.write_text(
        'format_version = 1\n[payment]\nprovider = "http"\nurl = "https://pay.example/v1"\nsecret_env = "PAY"\n'
        '[mail]\nhost = "mail.example"\nsender = "receipts@shop.example"\n'
        '[books]\nwhere = "postgresql://books.example/shops?sslmode=verify-full"\n'
        '[checkpoints]\ncopies_to = ["/mnt/elsewhere"]\n',
        encoding="utf-8",
    )
    assert main(["privacy", "biu", "--sheet", "--till", str(till)]) == 0
    text = capsys.readouterr().out
    for named in ("https://pay.example/v1", "mail.example", "Server of the books", "/mnt/elsewhere"):
        assert named in text
    assert "PAY" not in text
    assert main(["privacy", "biu", "--notice", "de", "--till", str(till)]) == 2
    assert "--till goes with --sheet" in capsys.readouterr().err
