"""`fusion cameras`: what became of cameras that were moved while their store ran."""

from __future__ import annotations

import argparse

from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "file", help="cameras.jsonl, or the folder of the store's process that holds it")


def _run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from fusion.live.camera_history import FILE, corrections_in
    from fusion.sentences import correction_text

    path = Path(arguments.file)
    path = path / FILE if path.is_dir() else path
    count = 0
    for correction in corrections_in(path):
        print(correction_text(correction))
        count += 1
    if not count:
        print("no camera was moved")
    return 0


CAMERAS = Command(
    "cameras",
    "Print what became of cameras that were moved while the store ran: corrected, refused, or taken back.",
    ("out/STORE", "out/STORE/cameras.jsonl"),
    {0: "it was printed"},
    _declare,
    _run,
)
