"""The chain's book: what it accepts, refuses and holds, and its views."""

from __future__ import annotations

import datetime
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fusion.chain.book import ChainBook
from fusion.chain.reconciling import reconcile
from fusion.chain.shipping import Shipper
from fusion.chain.streams import LedgerSource, sources_of
from fusion.errors import IdempotencyConflict, LedgerError
from fusion.goods.journal import OUTSIDE, UNKNOWN
from fusion.money.ledger import Ledger
from fusion.money.retailers import Retailer
from fusion.money.sales import Discount
from fusion.results import Reason, ReasonKind, ReceiptLine, Warning, WarningKind

psycopg = pytest.importorskip("psycopg")
from chain.shops import (  # noqa: E402
    GTINS,
    HOUR_NS,
    T_NS,
    Shop,
    fill,
    make_receipt,
    make_store,
    make_transfer,
    unguarded,
)


def test_rows_arrive_once_and_complete(shop: Shop) -> None:
    fill(shop.ledger, 0, 30)
    shop.outbox.keep(map(make_transfer, range(20)), [Warning(T_NS, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0)])
    assert shop.shipper().ship() == {"ledger": 60, "goods": 20, "health": 1}
    assert shop.shipper().ship() == {"ledger": 0, "goods": 0, "health": 0}
    assert shop.faults() == []
    fill(shop.ledger, 30, 4)
    assert shop.shipper().ship()["ledger"] == 8
    assert shop.faults() == []
    assert shop.book.after("shop", "ledger", 0, 100) == LedgerSource(shop.ledger, shop.store).after(0, 100)


def test_repeated_rows_are_harmless_and_a_gap_is_not(shop: Shop) -> None:
    fill(shop.ledger, 0, 15)
    source = shop.sources[0]
    rows = source.after(0, 100)
    shop.book.register(shop.store)
    assert shop.book.add("shop", source, rows[:10]).seq == 10
    assert shop.book.add("shop", source, rows[:10]).seq == 10
    assert shop.book.add("shop", source, rows[4:20]).seq == 20
    with pytest.raises(LedgerError, match="want rows from 21 on, got 25 to 30"):
        shop.book.add("shop", source, rows[24:])
    with pytest.raises(LedgerError, match="want rows from 21 on, got 21 to 30 without 24"):
        shop.book.add("shop", source, [*rows[20:23], *rows[24:]])
    assert shop.book.add("shop", source, rows).seq == 30
    assert shop.faults() == []


def test_the_book_is_only_added_to(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 3)
    shop.outbox.keep([make_transfer(1)], [Warning(T_NS, WarningKind.CAMERA_BACK, "cam01")])
    shop.shipper().ship()
    for table in ("entry", "posting", "goods", "health", "book"):
        column = "id" if table == "book" else "store"
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(psycopg.Error, match="only added to"):
                stranger.execute(statement)
    with pytest.raises(psycopg.Error, match="only moves forward"):
        stranger.execute("UPDATE mark SET seq = seq - 1")
    with pytest.raises(psycopg.Error, match="only added to"):
        stranger.execute("DELETE FROM mark")


def test_rows_beyond_the_mark_are_compared(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    with unguarded(stranger):
        # As a backup of some tables only would leave it.
        old = shop.sources[0].after(11, 1)[0]
        stranger.execute("UPDATE mark SET seq = 12, hash = %s WHERE stream = 'ledger'", (old.hash,))
    shop.shipper().ship()
    assert shop.faults() == []
    with unguarded(stranger):
        stranger.execute("UPDATE mark SET seq = 12, hash = %s WHERE stream = 'ledger'", (old.hash,))
        stranger.execute("UPDATE posting SET account = 'x' WHERE entry = 20 AND line = 0")
    with pytest.raises(IdempotencyConflict, match="ledger 20: postings: have"):
        shop.shipper().ship()


def test_no_account_reaches_the_book_and_any_text_does(shop: Shop, stranger: Any) -> None:
    shop.ledger.open_visit("v\x00\x01\\.\t", "someone", T_NS)
    hostile = Reason(ReasonKind.NOTE, detail='"total":9},"vat"\x00')
    shop.ledger.post_receipt(replace(make_receipt(1, "review"), visit="v\x00\x01\\.\t", reasons=(hostile,)))
    shop.ledger.decide("v\x00\x01\\.\t", "waive", by="anna", t_ns=T_NS + 99, note="\x00é€")
    shop.shipper().ship()
    assert shop.faults() == []
    (row,) = shop.book.query("SELECT waived_visits, waived FROM shrink")
    assert row == (1, 226)
    for table in ("entry", "posting", "goods", "health", "store", "mark"):
        assert "someone" not in str(stranger.execute(f"SELECT * FROM {table}").fetchall())


def test_views(tmp_path: Path, url: str) -> None:
    berlin, lisbon = Shop(tmp_path, url), Shop(tmp_path, url, make_store("kiosk", "Europe/Lisbon"))
    ledger = berlin.ledger
    ledger.post_receipt(make_receipt(0))  # 10:04 in Berlin, 226
    ledger.post_receipt(make_receipt(1, t_ns=T_NS + HOUR_NS))  # 11:04
    ledger.post_receipt(make_receipt(2, "review", t_ns=T_NS + HOUR_NS))
    ledger.post_receipt(make_receipt(3, "review", t_ns=T_NS + 15 * HOUR_NS))  # 01:04 of the next day
    ledger.decide("v1", "correct", by="anna", t_ns=T_NS + 2 * HOUR_NS, lines=[ReceiptLine(GTINS[0], 1, 119, 1.0)])
    ledger.decide("v2", "accept", by="anna", t_ns=T_NS + 2 * HOUR_NS)
    ledger.decide("v3", "waive", by="anna", t_ns=T_NS + 16 * HOUR_NS)
    lisbon.ledger.post_receipt(replace(make_receipt(0), total=216), [Discount("ten", GTINS[0], 10)])
    berlin.outbox.keep(
        [
            make_transfer(0), make_transfer(1, debit=UNKNOWN, quantity=5), make_transfer(2, debit=OUTSIDE),
            make_transfer(3, credit=UNKNOWN, quantity=2), make_transfer(4, debit=UNKNOWN, gtin=GTINS[1], quantity=1),
        ],
        [
            Warning(T_NS, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0),
            Warning(T_NS + 9, WarningKind.CAMERA_BACK, "cam01"),
            Warning(T_NS + 5, WarningKind.PLATE_STUCK, "a1", seconds=10.0),
            Warning(T_NS + 99, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0),
        ],
    )  # fmt: skip
    berlin.shipper(retailer=Retailer(id="r", name="R", brand="Fresh", stores=("shop",))).ship()
    berlin.shipper().ship()  # without a retailer: the registered one stays
    lisbon.shipper().ship()
    query = berlin.book.query
    at = datetime.datetime
    assert query(
        "SELECT store, brand, hour, charges, reversals, net, vat, gross FROM sales ORDER BY store DESC, hour"
    ) == [
        ("shop", "Fresh", at(2026, 3, 3, 10), 1, 0, 200, 26, 226),
        ("shop", "Fresh", at(2026, 3, 3, 11), 1, 0, 200, 26, 226),
        ("shop", "Fresh", at(2026, 3, 3, 12), 1, 1, 100, 19, 119),
        ("kiosk", None, at(2026, 3, 3, 9), 1, 0, 192, 24, 216),
    ]
    # The query for a large chain, as in docs/chain.md.
    assert query(
        "SELECT brand, date_trunc('hour', at) AS hour, sum(gross) FROM sale WHERE t_ns >= extract(epoch FROM "
        "timestamptz '2026-03-03 11:00 Europe/Berlin')::BIGINT * 1000000000 GROUP BY brand, hour ORDER BY hour"
    ) == [("Fresh", at(2026, 3, 3, 11), 226), ("Fresh", at(2026, 3, 3, 12), 119)]
    day, next_day = datetime.date(2026, 3, 3), datetime.date(2026, 3, 4)
    assert query("SELECT day, receipts, reviews, review_rate, accepted, corrected, waived FROM reviews "
                 "WHERE store = %s ORDER BY day", ("shop",)) == [
        (day, 3, 1, Decimal("0.3333"), 1, 1, 0), (next_day, 1, 1, Decimal("1.0000"), 0, 0, 1)
    ]  # fmt: skip
    assert query("SELECT store, brand, day, waived_visits, waived, owing_visits, owing FROM shrink ORDER BY 1, 3") == [
        ("kiosk", None, day, 0, 0, 1, 216), ("shop", "Fresh", day, 0, 0, 3, 226 + 119 + 226),
        ("shop", "Fresh", next_day, 1, 226, 0, 0),
    ]  # fmt: skip
    assert query("SELECT day, gtin, pieces FROM lost_goods ORDER BY gtin") == [(day, GTINS[0], 3), (day, GTINS[1], 1)]
    assert query("SELECT subject, kind, warnings FROM sensor_health ORDER BY 1, 2") == [
        ("a1", "plate stuck", 1), ("cam01", "camera back", 1), ("cam01", "camera outage", 2)
    ]  # fmt: skip
    assert query("SELECT subject, kind FROM sensor_now ORDER BY 1") == [
        ("a1", "plate stuck"), ("cam01", "camera outage")
    ]  # fmt: skip
    with pytest.raises(LedgerError, match="read-only"):
        query("DELETE FROM mark")
    for shop in (berlin, lisbon):
        shop.close()


def test_books_in_postgresql_are_shipped_too(tmp_path: Path, url: str) -> None:
    store = make_store()
    with Ledger.open(url, store, vault=tmp_path / "vault.sqlite") as ledger, ChainBook(url) as book:
        fill(ledger, 0, 20)
        sources = sources_of(store, ledger)
        assert Shipper(store, sources, book, batch=9).run() == {"ledger": 40}
        assert [agreement.agrees for agreement in reconcile(store, sources, book)] == [True]


def test_another_currency_or_time_zone_is_refused(shop: Shop) -> None:
    shop.book.register(shop.store)
    with pytest.raises(LedgerError, match="the currency of 'shop' is EUR and cannot change to SEK"):
        shop.book.register(shop.store.model_copy(update={"currency": "SEK"}))
    with pytest.raises(LedgerError, match="the server does not know the time zone"):
        shop.book.register(shop.store.model_copy(update={"timezone": "Mars/Olympus"}))
    assert shop.book.query("SELECT currency, timezone FROM store") == [("EUR", "Europe/Berlin")]


@pytest.mark.parametrize("timezone", ["CET", "EET", "MET", "WET"])
def test_a_time_zone_that_the_server_reads_as_an_abbreviation_is_refused(shop: Shop, timezone: str) -> None:
    with pytest.raises(LedgerError, match=f"shop: timezone: want a name .* Europe/Brussels, got '{timezone}': "):
        shop.book.register(shop.store.model_copy(update={"timezone": timezone}))
    for good in ("Europe/Brussels", "UTC", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"):
        shop.book.register(shop.store.model_copy(update={"timezone": good}))
