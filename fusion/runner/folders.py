"""Whose folder a run writes into: a simulation never touches what a live store keeps, nor the other way round."""

from __future__ import annotations

from pathlib import Path

from fusion.errors import FusionError
from fusion.files.private import private_folder
from fusion.files.results import is_live_folder

# Made by simulations and replays in their folders, and only there: what they find beside it is their own.
MARKER = "simulated"
# What only a live store keeps, or what no one may delete unasked.
_KEPT = ("*.sqlite", "snapshot", "evidence.jsonl", "receipts.jsonl", "receipts")


def claim(folder: Path, *, live: bool = False) -> None:
    """Take a folder for a run, before anything in it is changed.

    Args:
        folder: made where it is missing.
        live: for a live store, which continues with what it finds; otherwise for a simulation or a replay, which begins
            from nothing.

    Raises:
        FusionError: it holds what a run of the other kind made. Nothing was changed.
    """
    private_folder(folder)
    marker = folder / MARKER
    if live:
        if marker.exists():
            raise FusionError(f"{folder} holds a simulation or a replay; pass another folder to a live store")
        return
    if is_live_folder(folder):
        raise FusionError(f"{folder} holds a live store's books and evidence; pass another folder, nothing was changed")
    if not marker.exists():
        found = sorted(path.name for pattern in _KEPT for path in folder.glob(pattern))
        if found:
            raise FusionError(
                f"{folder} holds {found[0]}, which no simulation or replay made; pass another folder, nothing was "
                "changed"
            )
        marker.write_text("Made by a simulation or a replay, which may replace everything here.\n", encoding="utf-8")
