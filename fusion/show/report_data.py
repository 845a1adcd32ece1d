"""The data of a report's page, from what was collected of the run; `pages/report.js` reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.results import Evidence, Receipt, RunSummary, ShelfCount
from fusion.sentences import reason_text, sentence
from fusion.show.collected import CANDIDATES_MAX, Collected, EventRow
from fusion.show.page import clean, rounded
from fusion.show.plan import CM_PER_M
from fusion.store.models import Plate

# A visit of the truth, as in truth/visits.jsonl: account, enter, exit and items.
TrueVisit = Mapping[str, Any]
Row = dict[str, Any]


def page_data(
    run: Collected, title: str, summary: RunSummary, truth: Sequence[TrueVisit] | None, shelves: Sequence[ShelfCount]
) -> Row:
    """Everything that the page shows, as JSON can hold it.

    Rows are arrays where the page has thousands of them. Instants are milliseconds since the start of the run, places
    centimetres; a visitor is an index into `visits`, -1 where unidentified.
    """
    store = run.store
    # Events and receipts name visitors, which gives those that never entered an index: visitors come after them.
    events = run.events()
    receipts = [_receipt_row(run, receipt) for receipt in run.receipts]
    missed = [] if truth is None else _compare(run, truth, receipts)
    visits = [
        [clean(v.visit), clean(v.account), int(v.staff), _ms_or_none(run, v.enter_ns), _ms_or_none(run, v.exit_ns)]
        for v in run.visitors.rows
    ]
    gtins = _gtins(events, receipts, missed) | {count.gtin for count in shelves}
    return {
        "title": clean(title),
        "store": {"name": clean(store.name), "id": clean(store.id), "timezone": store.timezone},
        "money": {"currency": store.currency, "exponent": store.currency_exponent},
        "names": {product.gtin: clean(product.name) for product in store.products if product.gtin in gtins},
        "counts": {"cameras": len(store.cameras), "plates": len(store.plates), "gates": len(store.gate)},
        "start_ms": run.start_ns // 1_000_000,
        "length_ms": max(0, run.end_ns - run.start_ns) // 1_000_000,
        "period_ms": run.presence.period_ns // 1_000_000,
        "tracks": _tracks(run),
        "visits": visits,
        "events": _event_rows(run, events),
        "receipts": receipts,
        "compared": truth is not None,
        "missed": missed,
        "warnings": [
            [_ms(run, warning.t_ns), clean(warning.kind), clean(warning.subject), clean(sentence(warning, run.store))]
            for warning in sorted(run.warnings, key=lambda warning: warning.t_ns)
        ],
        "summary": _summary_row(summary),
        "left_out": dict(run.left_out),
        "plates": [_plate_row(plate) for plate in store.plates],
        "reached_s": run.presence.reached_s(),
        "evidence": run.evidence.text(),
        "health": run.sensors.data(lambda t_ns: _ms(run, t_ns)),
        "shelves": [_shelf_row(count) for count in shelves],
    }


def _ms(run: Collected, t_ns: int) -> int:
    """Milliseconds since the start of the run."""
    return (t_ns - run.start_ns) // 1_000_000


def _ms_or_none(run: Collected, t_ns: int | None) -> int | None:
    return None if t_ns is None else _ms(run, t_ns)


def _tracks(run: Collected) -> list[list[Any]]:
    """Track, its visitor, its stretches; in the order in which they began."""
    rows = []
    for track, path in run.presence.paths.items():
        visitor = run.visitors.of_track(track)
        rows.append([track, -1 if visitor is None else visitor, run.presence.encoded(path)])
    return sorted(rows, key=lambda row: row[2][0][0])


def _event_rows(run: Collected, events: Sequence[EventRow]) -> list[list[Any]]:
    """Time, plate, its place in centimetres, grams, candidates, whether they are final, probability of no move."""
    plates = {plate.plate: plate for plate in run.store.plates}
    rows = []
    for event in events:
        plate = plates.get(event.plate)
        place = None if plate is None else [round(plate.x * CM_PER_M), round(plate.y * CM_PER_M)]
        grams = None if event.delta_g is None else rounded(event.delta_g)
        candidates = [*map(list, event.candidates)]
        row = [_ms(run, event.t_ns), clean(event.plate), place, grams, candidates, int(event.final), event.nothing]
        rows.append(row)
    return rows


def _gtins(events: Sequence[EventRow], receipts: Sequence[Row], missed: Sequence[Row]) -> set[str]:
    """Products that the page names."""
    gtins = {candidate.gtin for event in events for candidate in event.candidates}
    for row in receipts:
        gtins.update(line[0] for line in row["lines"])
        gtins.update(alternative[1] for event in row.get("evidence", ()) for alternative in event[1])
    for row in (*receipts, *missed):
        gtins.update(gtin for gtin, _ in row.get("difference") or ())
    return gtins


def _receipt_row(run: Collected, receipt: Receipt) -> Row:
    bundle = run.evidence.bundles.get(receipt.visit)
    return {
        **({} if bundle is None else _bundle_row(run, bundle)),
        "visit": clean(receipt.visit),
        "account": clean(receipt.account),
        "who": run.visitors.index_of(receipt.visit, receipt.account),
        "enter": _ms_or_none(run, receipt.enter_ns),
        "exit": _ms(run, receipt.exit_ns),
        "issued": _ms(run, receipt.issued_ns),
        "status": clean(receipt.status),
        "reason": clean(reason_text(receipt.reasons, run.store)),
        "reason_codes": [clean(reason.kind) for reason in receipt.reasons],
        "total": receipt.total,
        "lines": [
            [line.gtin, line.quantity, line.unit_price, _probability(line.confidence)] for line in receipt.lines
        ],
    }


def _bundle_row(run: Collected, bundle: Evidence) -> Row:
    """The events that a receipt rests on, and what each was taken for when the receipt was written."""
    events = []
    for event in bundle.events:
        ranked = sorted(event.alternatives, key=lambda candidate: -candidate.probability)[: 2 * CANDIDATES_MAX]
        alternatives = [
            [
                run.visitors.index_of(candidate.visit, candidate.account),
                candidate.gtin,
                candidate.quantity,
                round(candidate.probability, 3),
            ]
            for candidate in ranked
        ]
        wrists = [[path.track_id, run.visitors.index_of(path.visit, path.account)] for path in event.wrists]
        row = [event.event_id, alternatives, round(event.nothing, 3), wrists]
        events.append([*row, clean(event.plate), _ms(run, event.contact_ns)])
    sightings = [
        [
            _ms(run, sighting.t_ns),
            clean(sighting.source),
            sighting.kind,
            clean(sighting.zone),
            sighting.gtin,
            sighting.quantity,
            round(sighting.probability, 3),
        ]
        for sighting in bundle.sightings
    ]
    unidentified = [run.visitors.index_of(visit, None) for visit in bundle.unidentified]
    return {
        "evidence": events,
        "sightings": sightings,
        "evidence_left_out": bundle.n_left_out,
        "unidentified": unidentified,
    }


def _compare(run: Collected, truth: Sequence[TrueVisit], rows: Sequence[Row]) -> list[Row]:
    """Note in every receipt's row how it differs from the truth; returns rows for visits without a receipt.

    A difference is a list of [gtin, charged minus taken]; it is empty where the receipt is right.
    """
    unmatched = list(range(len(run.receipts)))
    missed = []
    for visit in sorted(truth, key=lambda visit: visit["exit"]):
        same = [i for i in unmatched if run.receipts[i].account == visit["account"]]
        if not same:
            difference = [[gtin, -n] for gtin, n in sorted(visit["items"].items())]
            exit_ms = _ms(run, visit["exit"])
            missed.append({"account": clean(visit["account"]), "exit": exit_ms, "difference": difference})
            continue
        best = min(same, key=lambda i: abs(run.receipts[i].exit_ns - visit["exit"]))
        unmatched.remove(best)
        pieces: Counter[str] = Counter()
        for line in run.receipts[best].lines:
            pieces[line.gtin] += line.quantity
        pieces.subtract(visit["items"])
        rows[best]["difference"] = [[gtin, n] for gtin, n in sorted(pieces.items()) if n]
    for i in unmatched:
        # The truth has no such visit: everything on the receipt is too much.
        rows[i]["difference"] = [[line.gtin, line.quantity] for line in run.receipts[i].lines]
        rows[i]["unknown"] = 1
    return missed


def _summary_row(summary: RunSummary) -> Row:
    return {
        "version": clean(summary.version),
        "frames": summary.frames,
        "messages": summary.messages,
        "wall_s": rounded(summary.wall_s),
        "engine_cpu_s": rounded(summary.engine_cpu_s),
        "step_us": {key: rounded(value) for key, value in summary.step_us.items()},
        "ignored": {clean(reason): n for reason, n in sorted(summary.ignored.items())},
    }


def _plate_row(plate: Plate) -> list[Any]:
    """Name, middle and size in centimetres, and yaw of a plate."""
    middle = [round(v * CM_PER_M) for v in (plate.x, plate.y, plate.z)]
    size = [round(plate.width * CM_PER_M), round(plate.depth * CM_PER_M)]
    return [clean(plate.plate), *middle, *size, round(plate.yaw, 4)]


def _shelf_row(count: ShelfCount) -> list[Any]:
    pieces = [count.pieces, count.overdrawn, int(count.planned)]
    return [clean(count.plate), count.gtin, *pieces, count.status, _probability(count.confidence)]


def _probability(value: float) -> float:
    return rounded(value) or 0.0
