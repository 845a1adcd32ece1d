"""The provider's settlement file beside the books: agreement to the cent, or each difference by name."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO, at
from money.checkouts import Shop, priced

from fusion.commands.main import main
from fusion.errors import ConfigError, LedgerError
from fusion.money.providers import InProcessProvider
from fusion.money.retailers import Retailer
from fusion.money.settlement import Line, Settlement, compare, post_chargebacks, read_settlement
from fusion.money.statements import statement
from fusion.store.models import Store

HEAD = "reference,kind,amount,currency,fee,date"
DAY = "2026-03-03"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(Place(tmp_path), STORE, InProcessProvider())
    opened.hold()
    opened.checkout.receipt(priced(*TWO))
    opened.checkout.receipt(priced(*TWO, visit="v2"))
    opened.checkout.decide("v2", "correct", by="eve", t_ns=T_NS, lines=TWO[:1])
    yield opened
    opened.ledger.close()


def references(shop: Shop, *kinds: str) -> list[str]:
    entries = shop.ledger.entries_between(0, 2**62)
    return [entry.request["reference"] for entry in entries if entry.kind in kinds]


def written(path: Path, *rows: str, head: str = HEAD) -> Path:
    file = path / "settlement.csv"
    file.write_text("\n".join((head, *rows)) + "\n")
    return file


def differences(shop: Shop, file: Path) -> tuple[str, ...]:
    return compare(shop.ledger, STORE, read_settlement(file, STORE)).differences


def test_a_file_that_agrees_to_the_cent(shop: Shop, tmp_path: Path) -> None:
    first, second, refund = references(shop, "captured", "refunded")
    rows = [f"{first},capture,6.97,EUR,0.12,{DAY}", f"{second},capture,6.97,EUR,0.12,{DAY}"]
    file = written(tmp_path, *rows, f"{refund},refund,1.99,EUR,0,{DAY}")
    found = compare(shop.ledger, STORE, read_settlement(file, STORE))
    assert found.differences == () and found.fees == 24 and found.sums == {"capture": 1394, "refund": 199}
    assert found.text(STORE).splitlines() == [
        "Shop, 2026-03-03 to 2026-03-03",
        "  capture                    2         13.94 EUR",
        "  refund                     1          1.99 EUR",
        "  fees                                  0.24 EUR",
        "the file and the books agree to the cent",
    ]


def test_each_difference_is_named(shop: Shop, tmp_path: Path) -> None:
    first, second, refund = references(shop, "captured", "refunded")
    rows = [
        f"{first},capture,6.98,EUR,0,{DAY}",
        f"{second},capture,6.97,EUR,0,{DAY}",
        f"{second},capture,6.97,EUR,0,{DAY}",
        f"stranger,capture,1.00,EUR,0,{DAY}",
        f"{second},chargeback,6.97,EUR,0,{DAY}",
    ]
    assert differences(shop, written(tmp_path, *rows)) == (
        f"row 2: capture {first} of 6.98 EUR: the books of visit v1 have 6.97 EUR",
        f"row 4: capture {second} of 6.97 EUR: the file has it twice",
        "row 5: capture stranger of 1.00 EUR: not in the books",
        f"row 6: chargeback {second} of 6.97 EUR: not in the books of visit v2; --post books it",
        f"visit v2: refund {refund} of 1.99 EUR: not in the file",
    )


def test_a_step_without_answer_is_found_by_its_key(tmp_path: Path) -> None:
    left = iter([None, "lost after"])
    shop = Shop(Place(tmp_path), STORE, InProcessProvider(lambda step, key: next(left, None)))  # type: ignore[arg-type, return-value]
    shop.hold()
    shop.checkout.receipt(priced(*TWO))
    file = written(tmp_path, f"capt-2,capture,6.97,EUR,0,{DAY},shop/v1/2", head=f"{HEAD},key")
    assert differences(shop, file) == (
        "row 2: capture capt-2 of 6.97 EUR: visit v1 waits for this answer; enter it with `resolve`",
    )
    shop.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, reference="capt-2")
    assert differences(shop, file) == () and shop.agrees()["provider"] == 697
    shop.ledger.close()


def test_chargebacks_are_booked_once_and_the_statement_shows_them(shop: Shop, tmp_path: Path) -> None:
    first, second, refund = references(shop, "captured", "refunded")
    rows = [f"{first},capture,6.97,EUR,0,{DAY}", f"{second},capture,6.97,EUR,0,{DAY}"]
    rows += [f"{refund},refund,1.99,EUR,0,{DAY}", f"{first},chargeback,6.97,EUR,15.00,2026-03-20"]
    file = written(tmp_path, *rows)
    for _ in range(2):
        assert post_chargebacks(shop.ledger, STORE, read_settlement(file, STORE)) == ["v1"]
    assert differences(shop, file) == ()
    assert (shop.checkout.state("v1").status, shop.checkout.debt("p1")) == ("unpaid", 697)
    march = statement(
        shop.ledger, STORE, Retailer(id="r", name="R", brand="R", fee_monthly=0, stores=("shop",)), "2026-03"
    )
    assert (march.captured, march.refunded, march.charged_back) == (1394, 199, 697)
    assert "charged back" in march.text(STORE)
    too_much = written(tmp_path, f"{second},chargeback,9.00,EUR,0,{DAY}")
    with pytest.raises(LedgerError, match="amount"):
        post_chargebacks(shop.ledger, STORE, read_settlement(too_much, STORE))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (f"a,capture,6.9,EUR,0,{DAY}", "2: amount: want an amount such as 12.33"),
        (f"a,capture,-6.97,EUR,0,{DAY}", "amount"),
        (f"a,capture,٦.٩٧,EUR,0,{DAY}", "amount"),
        (f"a,capture,12345678901.00,EUR,0,{DAY}", "amount"),
        (f"a,capture,6.970,EUR,0,{DAY}", "amount"),
        (f"a,capture,6.97,EUR,,{DAY}", "fee: want an amount such as 12.33, got ''"),
        (f"a,capture,6.97,USD,0,{DAY}", "currency: want EUR"),
        (f"a,payout,6.97,EUR,0,{DAY}", "kind: want capture"),
        ("a,capture,6.97,EUR,0,03/05/2026", "date: want a day"),
        (f",capture,6.97,EUR,0,{DAY}", "reference"),
        (f"a,capture,6.97,EUR,0,{DAY},x,y", "fields"),
        ("a,capture,6.97", "fields"),
        (f"{'a' * 3000},capture,6.97,EUR,0,{DAY}", "characters"),
        (f'"a,capture,6.97,EUR,0,{DAY}', "CSV"),
    ],
)
def test_rows_that_make_no_sense_are_named(tmp_path: Path, row: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_settlement(written(tmp_path, row), STORE)


def test_the_columns_and_the_lines_are_required(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="want the columns"):
        read_settlement(written(tmp_path, head="id,amount"), STORE)
    with pytest.raises(ConfigError, match="at least one line"):
        read_settlement(written(tmp_path), STORE)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fusion.commands.books import load_store

    store = load_store("amazon_go")
    shop = Shop(Place(tmp_path), store)
    shop.ledger.close()
    file = written(tmp_path, f"x,capture,6.97,{store.currency},0,{DAY}")
    assert main(["settlement", "amazon_go", str(tmp_path / "ledger.sqlite"), str(file)]) == 1
    assert "not in the books" in capsys.readouterr().out


# ---- each field ------------------------------------------------------------------------------------------------------

YEN = STORE.model_copy(update={"currency": "JPY"})
DINAR = STORE.model_copy(update={"currency": "KWD"})


def lines_of(path: Path, *rows: str, store: Store = STORE, head: str = HEAD) -> list[Line]:
    return read_settlement(written(path, *rows, head=head), store)


def test_a_line_is_read_field_by_field(tmp_path: Path) -> None:
    rows = [f"capt-1,capture,12.34,EUR,0.05,{DAY},shop/v1/2", f"r,refund,1,EUR,2,{DAY},"]
    day = datetime.date(2026, 3, 3)
    assert lines_of(tmp_path, *rows, head=f"{HEAD},key") == [
        Line(2, "capt-1", "capture", 1234, 5, day, "shop/v1/2"), Line(3, "r", "refund", 100, 200, day, ""),
    ]  # fmt: skip
    (one,) = lines_of(tmp_path, f"capt-1,chargeback_returned,0,EUR,0,{DAY}")
    assert one.event == "chargeback_returned 2026-03-03 capt-1" and one.amount == 0
    (tmp_path / "settlement.csv").write_bytes(f"\ufeff{HEAD}\r\n\"a,b\",capture,1.00,EUR,0,{DAY}\r\n".encode())
    assert read_settlement(tmp_path / "settlement.csv", STORE)[0].reference == "a,b"
    assert lines_of(tmp_path, f"{'r' * 200},capture,9999999999.99,EUR,0,{DAY}")[0].amount == 999_999_999_999


def test_amounts_have_the_places_of_their_currency(tmp_path: Path) -> None:
    (yen,) = lines_of(tmp_path, f"a,capture,1234,JPY,5,{DAY}", store=YEN)
    (dinar,) = lines_of(tmp_path, f"a,capture,1.234,KWD,5,{DAY}", store=DINAR)
    assert (yen.amount, yen.fee, dinar.amount, dinar.fee) == (1234, 5, 1234, 5000)
    for store, text, fault in ((YEN, "1.2", "12"), (DINAR, "1.23", "12.333"), (STORE, "1.2", "12.33")):
        with pytest.raises(ConfigError) as raised:
            lines_of(tmp_path, f"a,capture,{text},{store.currency},0,{DAY}", store=store)
        assert str(raised.value).endswith(f"settlement.csv:2: amount: want an amount such as {fault}, got {text!r}")


FIELDS = "want 6 fields, or one more with key"
AMOUNT = "amount: want an amount such as 12.33, got "


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (f"a,capture,6.9,EUR,0,{DAY}", f"{AMOUNT}'6.9'"),
        (f"a,capture,{'1' * 50},EUR,0,{DAY}", f"{AMOUNT}'{'1' * 40}'"),
        (f"a,capture,12345678901,EUR,0,{DAY}", f"{AMOUNT}'12345678901'"),
        (f"a,capture,6.97,EUR,x,{DAY}", "fee: want an amount such as 12.33, got 'x'"),
        (f"a,capture,6.97,{'USD' * 20},0,{DAY}", f"currency: want EUR, got '{('USD' * 20)[:40]}'"),
        (f"a,{'payout' * 10},6.97,EUR,0,{DAY}",
         f"kind: want capture, refund, chargeback, chargeback_returned, got '{('payout' * 10)[:40]}'"),
        (f"a,capture,6.97,EUR,0,{'3' * 50}", f"date: want a day such as 2026-03-05, got '{'3' * 40}'"),
        (f",capture,6.97,EUR,0,{DAY}", "reference: want 1 to 200 characters, got 0"),
        (f"{'r' * 201},capture,6.97,EUR,0,{DAY}", "reference: want 1 to 200 characters, got 201"),
        (f"a,capture,6.97,EUR,0,{DAY},x", FIELDS),
        ("a,capture,6.97,EUR,0", FIELDS),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_in_words(tmp_path: Path, row: str, fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        lines_of(tmp_path, f"a,capture,6.97,EUR,0,{DAY}", row)
    assert str(raised.value) == f"{tmp_path / 'settlement.csv'}:3: {fault}"


def test_every_fault_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settlement.csv"
    with pytest.raises(ConfigError) as raised:
        lines_of(tmp_path, f"a,payout,1,EUR,0,{DAY}", f"b,capture,1,USD,0,{DAY}")
    assert len(raised.value.faults) == 2
    for head in (f"{HEAD},key,more", "kind,reference,amount,currency,fee,date", ""):
        with pytest.raises(ConfigError) as raised:
            lines_of(tmp_path, head=head)
        assert str(raised.value) == f"{path}:1: want the columns {HEAD} and perhaps key"
    with pytest.raises(ConfigError) as raised:
        lines_of(tmp_path)
    assert str(raised.value) == f"{path}: want at least one line, got none"
    with pytest.raises(ConfigError) as raised:
        read_settlement(tmp_path / "none.csv", STORE)
    assert str(raised.value).startswith(f"{tmp_path / 'none.csv'} cannot be read as CSV: [Errno 2]")
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read as CSV: 'utf-8' codec"):
        read_settlement(path, STORE)


def test_a_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.money.settlement.LINES_MAX", 3)
    row = f"a,capture,6.97,EUR,0,{DAY}"
    assert len(lines_of(tmp_path, row, row)) == 2
    message = f"{tmp_path / 'settlement.csv'}: want 3 lines of 2000 characters at most"
    with pytest.raises(ConfigError) as raised:
        lines_of(tmp_path, row, row, row)
    assert str(raised.value) == message
    room = 2000 - len(f",capture,6.97,EUR,0,{DAY}\n")
    with pytest.raises(ConfigError, match="reference: want 1 to 200"):
        lines_of(tmp_path, f"{'a' * room},capture,6.97,EUR,0,{DAY}")
    with pytest.raises(ConfigError) as raised:
        lines_of(tmp_path, f"{'a' * (room + 1)},capture,6.97,EUR,0,{DAY}")
    assert str(raised.value) == message


def test_the_days_of_a_file_are_the_stores(shop: Shop, tmp_path: Path) -> None:
    """What was booked on any day from the first to the last line is wanted in the file, and nothing else."""
    first, second, refund = references(shop, "captured", "refunded")
    kept = f"{first},capture,6.97,EUR,0"
    missing = (
        f"visit v2: capture {second} of 6.97 EUR: not in the file",
        f"visit v2: refund {refund} of 1.99 EUR: not in the file",
    )
    assert differences(shop, written(tmp_path, f"{kept},2026-03-02")) == ()
    assert differences(shop, written(tmp_path, f"{kept},2026-03-03")) == missing
    assert differences(shop, written(tmp_path, f"{kept},2026-03-04")) == ()
    for rows in ([f"{kept},2026-03-01", "x,chargeback,1.00,EUR,0,2026-03-05"], ["x,chargeback,1.00,EUR,0,2026-03-03"]):
        found = differences(shop, written(tmp_path, *rows))
        row = len(rows) + 1
        assert found[0] == f"row {row}: chargeback x of 1.00 EUR: the books have no such capture"
        assert set(missing) <= set(found)


def test_midnight_is_that_of_the_stores_clock(shop: Shop, tmp_path: Path) -> None:
    shop.ledger.record("v9", "early", "captured", at("2026-03-02T00:00") - 1, {"reference": "before"}, ())
    shop.ledger.record("v9", "first", "captured", at("2026-03-02T00:00"), {"reference": "r1"}, ())
    shop.ledger.record("v9", "last", "refunded", at("2026-03-03T00:00") - 1, {"reference": ""}, ())
    shop.ledger.record("v9", "other", "authorised", at("2026-03-02T12:00"), {"reference": "r2"}, ())
    first, *_ = references(shop, "captured")
    assert differences(shop, written(tmp_path, f"{first},capture,6.97,EUR,0,2026-03-02"))[-2:] == (
        "visit v9: capture r1 of 0.00 EUR: not in the file",
        "visit v9: refund without a reference of 0.00 EUR: not in the file",
    )


def test_a_comparison_as_people_read_it() -> None:
    day = datetime.date(2026, 3, 3)
    sums = Counter({"refund": 199, "capture": 1394, "chargeback": 5})
    made = Settlement(day, day, Counter(refund=1, capture=2, chargeback=1), sums, 24, ("one", "two"))
    assert made.text(STORE).splitlines() == [
        "Shop, 2026-03-03 to 2026-03-03",
        "  capture                    2         13.94 EUR",
        "  refund                     1          1.99 EUR",
        "  chargeback                 1          0.05 EUR",
        "  fees                                  0.24 EUR",
        "2 differences:",
        "  one",
        "  two",
    ]
    assert Settlement(day, day).text(STORE).splitlines()[1:] == [
        "  fees                                  0.00 EUR", "the file and the books agree to the cent",
    ]  # fmt: skip


def test_chargebacks_of_both_kinds_are_dated_by_their_day(shop: Shop, tmp_path: Path) -> None:
    first, *_ = references(shop, "captured")
    rows = [f"{first},capture,6.97,EUR,0,{DAY}", f"{first},chargeback,6.97,EUR,0,{DAY}"]
    lines = lines_of(tmp_path, *rows, f"{first},chargeback_returned,5.00,EUR,0,2026-03-05")
    assert post_chargebacks(shop.ledger, STORE, lines) == ["v1", "v1"]
    back, returned = shop.ledger.entries_of("charged back", "chargeback returned")
    assert (back.t_ns, back.moved("provider")) == (at("2026-03-03T00:00"), -697)
    assert (returned.t_ns, returned.moved("provider")) == (at("2026-03-05T00:00"), 500)
    assert returned.request["event"] == f"chargeback_returned 2026-03-05 {first}"
    assert post_chargebacks(shop.ledger, STORE, []) == []


def test_a_refund_is_compared_with_its_own_entry(shop: Shop, tmp_path: Path) -> None:
    first, second, refund = references(shop, "captured", "refunded")
    rows = [f"{one},capture,6.97,EUR,0,{DAY}" for one in (first, second)]
    assert differences(shop, written(tmp_path, *rows, f"{refund},refund,1.98,EUR,0,{DAY}")) == (
        f"row 4: refund {refund} of 1.98 EUR: the books of visit v2 have 1.99 EUR",
    )
    # A capture's reference is none of a refund's.
    (found, lacking) = differences(shop, written(tmp_path, *rows, f"{first},refund,1.99,EUR,0,{DAY}"))
    assert found == f"row 4: refund {first} of 1.99 EUR: not in the books" and "not in the file" in lacking
