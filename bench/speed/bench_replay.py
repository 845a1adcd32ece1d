"""A whole recording through the engine's public interface: people, goods and receipts.

    OMP_NUM_THREADS=1 python -m bench replay

Receipts are asserted before anything is timed; reading the files is not in the time.
"""

from __future__ import annotations

import json

import pytest
from recordings import make

from fusion import Engine, Receipt, Recording


@pytest.mark.parametrize("scene", sorted(make.SCENES))
def test_receipts(scene, benchmark):
    recording = Recording(make.HERE / scene)
    observations = list(recording.observations())

    def receipts() -> list[Receipt]:
        engine = Engine(recording.store)
        results = [result for observation in observations for result in engine.feed(observation)]
        return [result for result in [*results, *engine.close()] if isinstance(result, Receipt)]

    expected = json.loads((make.HERE / f"{scene}.json").read_text(encoding="utf-8"))["receipts"]
    assert [(r.account, r.total) for r in receipts()] == [(row["account"], row["total"]) for row in expected]
    benchmark(receipts)
