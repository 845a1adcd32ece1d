"""The provider's settlement file beside the books: agreement to the cent, or each difference by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO
from money.checkouts import Shop, priced

from fusion.commands.main import main
from fusion.errors import ConfigError, LedgerError
from fusion.money.providers import InProcessProvider
from fusion.money.retailers import Retailer
from fusion.money.settlement import compare, post_chargebacks, read_settlement
from fusion.money.statements import statement

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
