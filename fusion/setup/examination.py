"""What the doctor found about one thing."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Sign = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the doctor's report.

    Attributes:
        sign: `ok`; `warning`: the engine will run, but worse; `fault`: it will not run, or not correctly.
        subject: what was examined.
        found: what is there.
        advice: what to do; empty where nothing needs to be done.
    """

    sign: Sign
    subject: str
    found: str
    advice: str = ""


def write_fault(folder: Path) -> str | None:
    """Why a file cannot be created in a folder, or in the nearest existing folder above it; None where it can."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return error.strerror or str(error)
    return None
