"""Evidence of open events: bounded, and forgotten once an event is final."""

from __future__ import annotations

from dataclasses import replace

from goods.bills import Scene
from goods.shop import event

from fusion.goods.evidence import RECORDS_MAX, EvidenceRecorder


def test_records_are_bounded_and_the_oldest_make_room() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    moved = event(5.0, {3: -245.0})
    belief = scene.attributor.observe(moved, scene.history)
    recorder = EvidenceRecorder(scene.store)
    for k in range(RECORDS_MAX + 20):
        recorder.record(moved, replace(belief, event_id=k), scene.monitor, scene.history)
    assert len(recorder) == RECORDS_MAX

    def owner_of(track_id: int | None) -> tuple[str | None, str | None]:
        return ("ann", "ann") if track_id == 7 else (None, None)

    assert recorder.describe(replace(belief, event_id=3), scene.attributor.planogram, owner_of) is None
    described = recorder.describe(replace(belief, event_id=RECORDS_MAX), scene.attributor.planogram, owner_of)
    assert described is not None and described.alternatives[0].visit == "ann"
    assert [path.visit for path in described.wrists] == ["ann"]
    # What was weighed, and what each product that it may have been weighs: enough to compare them by eye.
    first = described.alternatives[0]
    (piece,) = [piece for piece in described.pieces if piece.gtin == first.gtin]
    assert abs(described.weighed_g + 245.0) < 0.01 and described.sd_g > 2.45
    assert abs(first.quantity * piece.weight_g - described.weighed_g) < 3 * (described.sd_g + piece.sd_g)
    recorder.forget(RECORDS_MAX)
    assert len(recorder) == RECORDS_MAX - 1
