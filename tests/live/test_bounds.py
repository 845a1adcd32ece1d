"""What sensors say, or fail to say, has a bound where it is made: no store's day ends over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from live.stepping import Day, SteppedStore, quiet_config

from fusion.engine import Engine
from fusion.live.outbox import Outbox
from fusion.money.entries import NOTE_MAX
from fusion.money.ledger import Ledger
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.results import ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.runner.front import Front

S = 10**9


def many_plates(day: Day) -> Day:
    """The day in a store with twenty narrow, silent plates for every one, under long names.

    All of its scales fall silent when the first shopper comes in.
    """
    store = day.store
    plates = [
        plate.model_copy(update={"plate": f"{plate.plate} {k:02d}, of a gondola with a long name that fills a line"})
        for plate in store.plates
        for k in range(20)
    ]
    changed = store.model_copy(update={"plates": (*store.plates, *plates)})
    first_ns = min(o.t_ns for o in day.observations if isinstance(o, GateScan))
    kept = [o for o in day.observations if not isinstance(o, ShelfReading) or o.t_ns < first_ns]
    return Day(changed, kept, {})


def test_a_store_outlives_the_silence_of_all_its_scales(day: Day, tmp_path: Path) -> None:
    """Every plate is named in no text: the receipts count them, and are in review."""
    silent = many_plates(day)
    stepped = SteppedStore(quiet_config(silent.store, tmp_path))
    stepped.give(silent.observations)
    stepped.end()
    with Ledger.open(tmp_path / f"{silent.store.id}.sqlite", silent.store) as ledger:
        standings = ledger.reviews()
    assert len(standings) == len(day.receipts)
    assert any("plates that do not report" in (each.reason or "") for each in standings)
    assert all(len(each.reason or "") <= NOTE_MAX for each in standings)
    with Outbox(tmp_path / "outbox.sqlite", silent.store) as outbox:
        assert all(len(text) <= NOTE_MAX for row in outbox.rows_after("health", 0, 10**6) for text in row[2:5])


def test_a_receipt_that_the_books_refuse_is_that_visits_review(day: Day, tmp_path: Path) -> None:
    """A product that the store lacks, as after a change of its folder; the other visits are booked as before."""
    with Ledger.open(tmp_path / "ledger.sqlite", day.store) as ledger:
        front = Front(day.store, ledger)
        engine = Engine(day.store)
        one, *rest = day.receipts.values()
        one = replace(one, lines=(*one.lines, ReceiptLine("unknown", 1, 100, 1.0)), total=one.total + 100)
        first, *others = [front.handle(receipt, engine) for receipt in (one, *rest)]
        assert isinstance(first, Receipt) and first.status == ReceiptStatus.REVIEW
        assert first.reasons[0].kind == ReasonKind.NOT_BOOKED and "unknown" in (first.reasons[0].detail or "")
        assert others == list(day.receipts.values())[1:]
        standing = ledger.standing(first.visit)
        assert standing is not None and standing.status == "review" and not standing.lines
        assert "could not be booked" in (standing.reason or "")


@pytest.mark.parametrize("name", ["x" * 100_000, "\ud800", "line\r\nforged\x1b[31m", ""])
def test_names_that_no_store_has_end_nothing(day: Day, tmp_path: Path, name: str) -> None:
    stepped = SteppedStore(quiet_config(day.store, tmp_path))
    stepped.give(day.observations[:200])
    t_ns = day.observations[200].t_ns
    frame = next(o for o in day.observations if isinstance(o, Frame))
    reading = next(o for o in day.observations if isinstance(o, ShelfReading))
    strange = [
        replace(frame, t_ns=t_ns, camera=name), replace(reading, t_ns=t_ns, plate=name),
        GateScan(t_ns, name, "qr", "account"), GateScan(t_ns, day.store.gate[0].id, "qr", name or "account"),
    ]  # fmt: skip
    stepped.give([*strange, *day.observations[200:800]])
    stepped.end()
    with Outbox(tmp_path / "outbox.sqlite", day.store) as outbox:
        rows = outbox.rows_after("health", 0, 10**6)
    assert all(len(str(text)) <= NOTE_MAX and "\n" not in str(text) for row in rows for text in row[2:5])


def test_shoppers_no_camera_saw_have_receipts_in_review(day: Day, tmp_path: Path) -> None:
    """All frames come under names that the store does not have, from the first shopper on."""
    first_ns = min(o.t_ns for o in day.observations if isinstance(o, GateScan))
    blind = [
        replace(o, camera="another " + o.camera) if isinstance(o, Frame) and o.t_ns > first_ns - S else o
        for o in day.observations
    ]
    stepped = SteppedStore(quiet_config(day.store, tmp_path))
    stepped.give(blind)
    stepped.end()
    with Ledger.open(tmp_path / f"{day.store.id}.sqlite", day.store) as ledger:
        standings = ledger.reviews()
    assert {each.account for each in standings} == {o.account for o in blind if isinstance(o, GateScan)}
    assert all("was not seen coming in" in (each.reason or "") and not each.lines for each in standings)
