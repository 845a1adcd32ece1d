"""Receipts and shelf events of a replay against the recording's truth."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fusion.store.gtin import gtin_14


def score_visits(recording: Path, results: Path) -> dict[str, float]:
    """Number of true visits, and of receipts settled, settled wrongly, sent to review, and right in any status."""
    with open(recording / "truth" / "visits.jsonl", encoding="utf-8") as file:
        truth = {visit["account"]: _numbers(visit["items"].items()) for visit in map(json.loads, file)}
    with open(results / "receipts.jsonl", encoding="utf-8") as file:
        receipts = [json.loads(line) for line in file]
    counts: Counter[str] = Counter(visits=len(truth), settled=0, settled_wrong=0, review=0, right=0)
    for receipt in receipts:
        billed = _numbers((line["gtin"], line["quantity"]) for line in receipt["lines"])
        right = +billed == +truth.get(receipt["account"], Counter())
        counts[receipt["status"]] += 1
        counts["right"] += right
        counts["settled_wrong"] += receipt["status"] == "settled" and not right
    return dict(counts)


def _numbers(pieces: Iterable[tuple[str, int]]) -> Counter[str]:
    """Pieces by product; a truth may spell a GTIN with more zeros than the store."""
    total: Counter[str] = Counter()
    for gtin, n in pieces:
        total[gtin_14(gtin)] += n
    return total


def score_events(recording: Path, results: Path) -> dict[str, float]:
    """Numbers of true and reported events, the worst time error, and the least probability of the right product."""
    with open(recording / "truth" / "events.csv", newline="", encoding="utf-8") as file:
        truth = sorted(csv.DictReader(file), key=lambda row: int(row["time"]))
    with open(results / "events.jsonl", encoding="utf-8") as file:
        reported = sorted(map(json.loads, file), key=lambda row: row["time"])
    right = [
        max((c["probability"] for c in event["candidates"] if gtin_14(c["gtin"]) == gtin_14(true["gtin"])), default=0.0)
        for event, true in zip(reported, truth)
    ]
    errors_s = [abs(event["time"] - int(true["time"])) / 1e9 for event, true in zip(reported, truth)]
    return {
        "true_events": len(truth),
        "reported_events": len(reported),
        "time_error_s": round(max(errors_s, default=0.0), 2),
        "right_product_p": round(min(right, default=0.0), 4),
    }
