"""What the console reads from the books: days, search, figures, CSV, health; and pictures of products."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
from pathlib import Path
from urllib.parse import urlencode

from show.consoles import T_NS, Served, review, serving

from fusion.money.disputes import record_dispute
from fusion.money.ledger import Ledger
from fusion.results import Receipt, ReceiptStatus
from fusion.show.console.day import figures, receipts_csv, sold
from fusion.show.console.receipts import Days, Search
from fusion.store.models import Store

DAY_NS = 86_400 * 10**9


def settled(store: Store, visit: str, issued_ns: int, account: str = "acc-1") -> Receipt:
    bill = review(store, visit, account=account)
    times = {"enter_ns": issued_ns - 10**9, "exit_ns": issued_ns, "issued_ns": issued_ns}
    return dataclasses.replace(bill, status=ReceiptStatus.SETTLED, reasons=(), **times)


def test_a_day_is_as_the_books_have_it_now(tmp_path: Path, store: Store) -> None:
    with Ledger.open(tmp_path / "l.sqlite", store) as ledger, Ledger.open(tmp_path / "l.sqlite", store) as other:
        days = Days(store, ledger)
        ledger.post_receipt(settled(store, "visit-1", T_NS))
        ledger.post_receipt(settled(store, "visit-2", T_NS - DAY_NS))
        today = days.date_of(T_NS)
        (first,) = days.rows(today)
        assert (first["visit"], first["status"], first["paid"]) == ("visit-1", "settled", "owed")
        assert [row["visit"] for row in days.rows(today - datetime.timedelta(days=1))] == ["visit-2"]
        # What another process adds or decides is there with the next look, whenever it decides.
        other.post_receipt(review(store, "visit-3"))
        other.decide("visit-1", "waive", by="ben", t_ns=T_NS + 3 * DAY_NS)
        first, third = days.rows(today)
        assert (first["status"], first["by"], first["decision"], first["total"]) == ("decided", "ben", "waive", 0)
        assert first["first"] == settled(store, "x", T_NS).total and third["status"] == "review"
        counted = figures(days.rows(today))
        assert (counted["visits"], counted["sales"], counted["waiting"], counted["waived"]) == (2, 0, 1, first["first"])
        assert sold(days.rows(today)) == []


def test_a_search_by_day_amount_product_visit_and_status(tmp_path: Path, store: Store) -> None:
    with Ledger.open(tmp_path / "l.sqlite", store) as ledger:
        days = Days(store, ledger)
        today = days.date_of(T_NS)
        for n in range(3):
            ledger.post_receipt(settled(store, f"visit-{n}", T_NS - n * DAY_NS))
        record_dispute(ledger, "visit-1", store.products[0].gtin, 1, "not taken", T_NS, {})

        def found(**wanted: object) -> list[str]:
            rows, _ = days.search(Search.model_validate(wanted), today)
            return [row["visit"] for row in rows]

        week = {"since": today - datetime.timedelta(days=7), "until": today}
        assert found() == ["visit-0"] and found(**week) == ["visit-0", "visit-1", "visit-2"]
        total = settled(store, "x", T_NS).total
        assert found(**week, low=total + 1) == [] and len(found(**week, high=total)) == 3
        assert len(found(**week, product=store.products[1].gtin)) == 3 and found(**week, product="0000") == []
        assert found(**week, text="IT-2") == ["visit-2"] and found(**week, status="disputed") == ["visit-1"]


def test_a_spreadsheet_runs_nothing_of_a_csv(tmp_path: Path, store: Store) -> None:
    hostile = '=HYPERLINK("http://x")'
    with Ledger.open(tmp_path / "l.sqlite", store) as ledger:
        days = Days(store, ledger)
        ledger.post_receipt(review(store, hostile, reason="+1+cmd|' /C calc'!A0 ä", account="@acc"))
        text = receipts_csv(store, days, days.rows(days.date_of(T_NS)))
    assert text.startswith("\ufeff")
    head, row = csv.reader(io.StringIO(text[1:]))
    cells = dict(zip(head, row))
    assert cells["visit"] == "'" + hostile and cells["account"] == "'@acc" and cells["reason"].startswith("'+1")
    total = review(store, "x").total
    assert cells["total"] == f"{total // 100}.{total % 100:02d}" and cells["offers"] == "0.00"


def test_pages_read_the_books(tmp_path: Path, store: Store, users_file: Path) -> None:
    gtin = store.products[0].gtin
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{gtin}.png").write_bytes(b"PNG picture")
    (tmp_path / "pictures" / "secret.png").write_bytes(b"no product's")
    now_ns = T_NS + 120 * 10**9
    with Ledger.open(tmp_path / "l.sqlite", store) as ledger:
        ledger.post_receipt(review(store, "visit-1"))
        with serving(
            store, ledger, users_file, pictures=tmp_path / "pictures", clock_ns=lambda: now_ns
        ) as served:  # fmt: skip
            _, headers = served.sign_in()

            def read(path: str, **query: str) -> tuple[int, str]:
                status, _, body = served.ask("GET", f"{path}?{urlencode(query)}", headers=headers)
                return status, body

            for name in ("api/receipts", "api/receipts.csv", "api/day", "api/sold.csv", "api/health", "pictures/x"):
                assert served.ask("GET", f"/{name}")[0] == 401, name
            (row,) = json.loads(read("/api/receipts")[1])["rows"]
            assert row["visit"] == "visit-1" and row["paid"] == "not yet" and "lines" not in row
            assert read("/api/receipts", low="x")[0] == 400 and read("/api/receipts", unknown="1")[0] == 400
            assert read("/api/receipts", since="2020-01-01", until="2026-01-01")[0] == 400
            day = json.loads(read("/api/day")[1])
            assert day["figures"]["waiting"] == 1 and day["yesterday"]["visits"] == 0
            assert read("/api/day", day="tomorrow")[0] == 400
            assert [row["fault"] for row in json.loads(read("/api/health")[1])["rows"]] == ["", "", ""]
            assert read(f"/pictures/{gtin}") == (200, "PNG picture")
            assert read("/pictures/secret")[0] == read("/pictures/..%2fl.sqlite")[0] == 404
            # What a bill would charge, at the server's prices; nothing is decided by asking.
            head = ledger.head()
            body = json.dumps({"lines": [{"gtin": gtin, "quantity": 3}]})
            status, _, answer = served.ask("POST", "/api/reviews/visit-1/price", body, headers)
            assert status == 200 and json.loads(answer)["total"] == 3 * store.products[0].price
            assert served.ask("POST", "/api/reviews/visit-1/price", body, {"Cookie": headers["Cookie"]})[0] == 403
            body = json.dumps({"lines": [{"gtin": "0000", "quantity": 3}]})
            assert served.ask("POST", "/api/reviews/visit-1/price", body, headers)[0] == 400
            assert ledger.head() == head


def test_a_page_is_sent_receipts_of_today_and_the_disputed(served: Served, store: Store, users_file: Path) -> None:
    _, headers = served.sign_in()
    served.ledger.post_receipt(settled(store, "visit-9", T_NS))
    with served.stream(headers) as messages:
        waiting = next(row["reviews"] for row in messages if row.get("reviews"))
        assert waiting[0]["ms"] == (T_NS + 61 * 10**9) // 10**6 and not waiting[0]["disputed"]
        record_dispute(served.ledger, "visit-9", store.products[0].gtin, 1, "not taken", T_NS, {})
        disputed = next(row["reviews"] for row in messages if len(row.get("reviews", ())) == 3)[-1]
        assert disputed["visit"] == "visit-9" and disputed["disputed"] and disputed["status"] == "settled"
