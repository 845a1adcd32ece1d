"""The history of moved cameras: one line each, once, also after a restart, and whatever else is in the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusion.commands.main import main
from fusion.errors import FusionError
from fusion.gates.erasing import Files
from fusion.live.camera_history import FILE, CameraHistory, corrections_in
from fusion.results import CameraCorrection, CorrectionStatus

CORRECTED = CameraCorrection(
    1_700_000_000_000_000_000, "cam01", CorrectionStatus.CORRECTED, 1_699_999_990_000_000_000, (0.1, 0.2, 0.3),
    (1.0, 2.0, 3.0), (0.1, 0.25, 0.3), (1.0, 2.0, 3.1), turn_deg=2.9, shift_m=0.01, turn_sd_deg=0.05, shift_sd_m=0.01,
    off_before_m=0.3, off_after_m=0.02, n_people=180,
)  # fmt: skip
REFUSED = replace(
    CORRECTED, t_ns=CORRECTED.t_ns + 5, camera="cam02", status=CorrectionStatus.REFUSED, rotation_after=None,
    translation_after=None, turn_deg=None, reason="its picture is mirrored",
)  # fmt: skip


def note(folder: Path, *corrections: CameraCorrection) -> None:
    """A process that remembers corrections, writes them down, and ends."""
    engine: Any = SimpleNamespace(health=lambda: SimpleNamespace(corrections=corrections))
    history = CameraHistory(folder)
    history.note(engine, lambda write: write())
    history.note(engine, lambda write: write())
    assert not Files(folder, in_use=True).is_open(folder / FILE)  # No erasure waits for it.


def test_each_correction_is_a_line_once_also_over_a_restart(tmp_path):
    note(tmp_path, CORRECTED)
    note(tmp_path, CORRECTED, REFUSED)
    assert list(corrections_in(tmp_path / FILE)) == [CORRECTED, REFUSED]
    rows = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [row["status"] for row in rows] == ["corrected", "refused"] and "turn_deg" not in rows[1]


def test_what_was_not_written_here_is_passed_over(tmp_path):
    note(tmp_path, CORRECTED)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\n[]\n{}\nnull\n{\"status\": \"corrected\"}\n\xff\xfe\n{\"status\": \"stolen\", \"t_ns\": 1}\n")
        file.write(b'{"a": ' * 50_000 + b"\n" + b"x" * 100_000)
    note(tmp_path, CORRECTED, REFUSED)
    assert list(corrections_in(tmp_path / FILE)) == [CORRECTED, REFUSED]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert list(corrections_in(tmp_path / FILE)) == []
    (tmp_path / FILE).mkdir()
    with pytest.raises(FusionError, match=r"cameras\.jsonl"):
        list(corrections_in(tmp_path / FILE))


def test_the_history_in_words(tmp_path, capsys):
    note(tmp_path, CORRECTED, REFUSED)
    assert main(["cameras", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "2023-11-14 22:13:20 UTC: camera cam01: corrected, turned by 2.90 degrees (standard deviation 0.05), "
        "shifted by 1.0 cm (1.0), 30 cm off before and 2 cm after, from 180 people, noticed 2023-11-14 22:13:10 UTC"
    )
    assert "camera cam02: refused, its picture is mirrored" in second
    assert main(["cameras", str(tmp_path / "nothing")]) == 0
    assert capsys.readouterr().out == "no camera was moved\n"
