"""Result files: the contract's, and those beside them."""

from __future__ import annotations

import json
from pathlib import Path

from fusion import Recording, replay


def test_files_beside_the_contracts(small_recording: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        replay(small_recording, tmp_path / name)
    for file in ("evidence.jsonl", "shelves.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    receipts = [json.loads(line) for line in (tmp_path / "one/receipts.jsonl").read_text().splitlines()]
    bundles = [json.loads(line) for line in (tmp_path / "one/evidence.jsonl").read_text().splitlines()]
    in_review = [row["visit"] for row in receipts if row["status"] == "review"]
    assert [row["visit"] for row in bundles] == in_review
    shelves = [json.loads(line) for line in (tmp_path / "one/shelves.jsonl").read_text().splitlines()]
    assert len(shelves) >= len(Recording(small_recording).store.planogram)
    assert set(shelves[0]) == {"plate", "gtin", "pieces", "overdrawn", "planned", "status", "confidence"}
