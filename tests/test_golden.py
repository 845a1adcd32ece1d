"""Golden recordings: the same inputs must keep giving the same bills; positions may move within a tolerance."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from recordings import make


@pytest.fixture(scope="module", params=sorted(make.SCENES))
def scene(request) -> tuple[dict, dict, Path]:
    recording = make.HERE / request.param
    return make.answers(recording), json.loads((make.HERE / f"{request.param}.json").read_text()), recording


def test_receipts_are_the_same(scene):
    got, expected, _ = scene
    for rows in (got["receipts"], expected["receipts"]):
        for receipt in rows:
            # Rounding differs between processors; a probability may move in its last digits, a bill may not.
            receipt["confidences"] = [line.pop("confidence") for line in receipt["lines"]]
            receipt.pop("reason")
            for name in ("reasons", "probability"):
                receipt.pop(name, None)
    for one, other in zip(got["receipts"], expected["receipts"], strict=True):
        np.testing.assert_allclose(one.pop("confidences"), other.pop("confidences"), atol=1e-3)
        for name in ("enter", "exit"):  # Where a path meets a line, in nanoseconds: a microsecond is rounding.
            assert one.pop(name) == pytest.approx(other.pop(name), rel=0, abs=1_000)
        assert one == other


def test_events_are_the_same(scene):
    got, expected, _ = scene
    for one, other in zip(got["events"], expected["events"], strict=True):
        assert (one["time"], one["plate"]) == (other["time"], other["plate"])
        assert one["delta_g"] == pytest.approx(other["delta_g"], abs=0.01)
        best, known = one["candidates"][0], other["candidates"][0]
        assert {k: best[k] for k in ("account", "gtin", "quantity")} == {
            k: known[k] for k in ("account", "gtin", "quantity")
        }
        assert best["probability"] == pytest.approx(known["probability"], abs=1e-3)


def test_people_are_where_they_were(scene):
    got, expected, _ = scene
    assert got["places_m"].keys() == expected["places_m"].keys()
    for track, places in expected["places_m"].items():
        np.testing.assert_allclose(got["places_m"][track], places, atol=0.02)


def test_settled_receipts_are_the_truth(scene):
    """The golden answers themselves are right, so that they cannot be regenerated into a wrong bill."""
    _, expected, recording = scene
    truth = {v["account"]: v for v in map(json.loads, (recording / "truth" / "visits.jsonl").read_text().splitlines())}
    assert Counter(receipt["account"] for receipt in expected["receipts"]) == Counter(list(truth))
    for receipt in expected["receipts"]:
        if receipt["account"] is None:
            assert receipt["status"] == "review"
        elif receipt["status"] == "settled":
            items = {gtin: n for gtin, n in truth[receipt["account"]]["items"].items() if n}
            assert {line["gtin"]: line["quantity"] for line in receipt["lines"]} == items
