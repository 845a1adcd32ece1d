"""Reconciling a store with the chain's book: every disagreement is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fusion.chain.reconciling import reconcile
from fusion.commands.main import main
from fusion.results import Warning, WarningKind

psycopg = pytest.importorskip("psycopg")
from chain.shops import T_NS, Shop, fill, make_transfer, unguarded  # noqa: E402


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("DELETE FROM entry WHERE seq IN (4, 5, 9)", ["missing: 3 (4 to 5, 9)", "ledger 6: its hash does not follow"]),
        ("UPDATE entry SET kind = 'x' WHERE seq = 4", ["different: 1 (4)", "kind: have 'x', got 'receipt settled'",
                                                       "ledger 4: its hash does not follow from row 3 in the chain's"]),
        ("UPDATE posting SET amount = amount + 1 WHERE entry = 4 AND line = 0",
         ["different: 1 (4)", "receivable: 2034 EUR in the store, 2035 in the chain's book"]),
        ("DELETE FROM posting WHERE entry = 4 AND line = 0", ["different: 1 (4)"]),
        ("INSERT INTO posting VALUES ('shop', 4, 9, 'till', 'EUR', 5)", ["different: 1 (4)", "till: 0 EUR in the"]),
        ("INSERT INTO posting VALUES ('shop', 99, 0, 'till', 'EUR', 5)", ["ledger 99: postings in the chain's book"]),
        ("INSERT INTO entry SELECT store, 21, t_ns, kind, visit, key, details, hash FROM entry WHERE seq = 20",
         ["extra: 1 (21)", "the mark is at row 20, the newest row in the chain's book is 21"]),
        ("DELETE FROM entry WHERE seq = 20", ["missing: 1 (20)", "the mark is at row 20"]),
        ("UPDATE mark SET seq = 18 WHERE stream = 'ledger'", ["the mark is at row 18"]),
        ("UPDATE goods SET quantity = 9 WHERE seq = 2", ["different: 1 (2)", "quantity: have 9, got 2"]),
        ("DROP TRIGGER entry_delete ON entry", ["want the triggers ['entry_delete'], got none"]),
        ("ALTER TABLE entry DISABLE TRIGGER entry_delete", ["want the triggers ['entry_delete'], got none"]),
        ("CREATE OR REPLACE TRIGGER entry_delete BEFORE DELETE ON entry FOR EACH ROW WHEN (OLD.seq > 9) "
         "EXECUTE FUNCTION only_added()", ["trigger entry_delete: want CREATE TRIGGER", "WHEN (old.seq > 9)"]),
        ("CREATE OR REPLACE TRIGGER mark_update BEFORE UPDATE OF stream ON mark FOR EACH ROW "
         "EXECUTE FUNCTION only_forward()", ["trigger mark_update: want CREATE TRIGGER"]),
        ("CREATE OR REPLACE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
         ["function only_added: want its own text, got another"]),
        ("CREATE OR REPLACE FUNCTION local_time(t_ns BIGINT, zone TEXT) RETURNS TIMESTAMP LANGUAGE sql IMMUTABLE AS "
         "$$ SELECT now()::TIMESTAMP $$", ["function local_time: want its own text, got another"]),
        ("CREATE OR REPLACE VIEW lost_goods AS SELECT g.store, s.retailer, s.brand, current_date AS day, g.gtin, "
         "g.quantity::NUMERIC AS pieces FROM goods g JOIN store s ON s.id = g.store",
         ["view lost_goods: want its own text, got another"]),
        ("DROP VIEW sales", ["view sales: want its own text, got none"]),
        ("DROP VIEW sale CASCADE", ["view sale: want its own text, got none"]),
        ("ALTER TABLE posting DROP CONSTRAINT posting_pkey",
         ["key of posting: want PRIMARY KEY (store, entry, line), got none"]),
        ("UPDATE store SET currency = 'SEK', name = 'x'",
         ["store: currency: want 'EUR', got 'SEK'", "store: name: want 'Shop', got 'x'"]),
        ("UPDATE store SET timezone = 'Europe/Lisbon'", ["timezone: want 'Europe/Berlin', got 'Europe/Lisbon'"]),
        ("ALTER TABLE mark DROP CONSTRAINT mark_store_fkey; DELETE FROM store",
         ["store: want 'shop' in the chain's book, got none"]),
    ],
)  # fmt: skip
def test_disagreements_are_named(shop: Shop, stranger: Any, statement: str, parts: list[str]) -> None:
    fill(shop.ledger, 0, 10)
    shop.outbox.keep(map(make_transfer, range(5)))
    shop.shipper().ship()
    assert shop.faults() == []
    with unguarded(stranger):
        assert stranger.execute(statement).rowcount
    (text,) = shop.faults()
    for part in parts:
        assert part in text


def test_numbers_below_one_are_refused_and_found(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 10)
    shop.outbox.keep([make_transfer(1)], [Warning(T_NS, WarningKind.CAMERA_BACK, "cam01")])
    shop.shipper().ship()
    for table in ("entry", "goods", "health", "posting"):
        column = "entry" if table == "posting" else "seq"
        columns = stranger.execute(f"SELECT * FROM {table} LIMIT 0").description
        names = [description.name for description in columns]
        for number in (0, -7, -(2**63)):
            copied = ", ".join(f"{number} AS seq" if name == column else name for name in names)
            insert = f"INSERT INTO {table} SELECT {copied} FROM {table} ORDER BY {column} LIMIT 1"
            with pytest.raises(psycopg.errors.CheckViolation):
                stranger.execute(insert)
            # As in databases from before the tables refused them.
            stranger.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_check")
            stranger.execute(insert)
            (text,) = shop.faults()
            words = "postings in the chain's book, and no entry" if table == "posting" else "extra: 1"
            assert words in text and f"{number}" in text
            with unguarded(stranger):
                stranger.execute(f"DELETE FROM {table} WHERE {column} < 1")
            stranger.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_check CHECK ({column} > 0)")
    assert shop.faults() == []


def test_a_store_that_was_tampered_with(shop: Shop) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    shop.tamper("DELETE FROM posting WHERE entry = 6", "DELETE FROM entry WHERE seq = 6",
                          "UPDATE entry SET visit = 'other' WHERE seq = 12")  # fmt: skip
    (text,) = shop.faults()
    assert "extra: 1 (6)" in text and "different: 1 (12)" in text
    assert "ledger 7: its hash does not follow from row 5 in the store" in text
    assert "ledger 12: its hash does not follow from row 11 in the store" in text


def test_rows_that_are_not_shipped_yet_are_a_note(shop: Shop) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    fill(shop.ledger, 10, 3)
    ledger, goods, health = reconcile(shop.store, shop.sources, shop.book, batch=11)
    assert ledger.agrees and ledger.text().endswith("accounts agree; 6 rows not shipped yet")
    assert (ledger.store.n_rows, ledger.chain.n_rows, ledger.store.head.seq, ledger.chain.head.seq) == (26, 20, 20, 20)
    assert goods.agrees and health.agrees
    ledger = reconcile(shop.store, shop.sources, shop.book, all_shipped=True)[0]
    assert not ledger.agrees and "not shipped yet: 6 (21 to 26)" in ledger.text()
    # A row that the book would refuse is a fault in any case.
    shop.tamper("UPDATE entry SET visit = 'other' WHERE seq = 25")
    (text,) = shop.faults()
    assert "ledger 25: its hash does not follow from row 24 in the store" in text


def test_reconciling_leaves_no_trace(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 3)
    shop.shipper().ship()
    count = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'v') AND relname NOT LIKE 'staged%'"
    before = stranger.execute(count).fetchone()
    assert shop.faults() == []
    assert stranger.execute(count).fetchone() == before
    assert shop.book.query("SELECT count(*) FROM entry") == [(6,)]


def test_many_differences_are_counted_and_some_named(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 100)
    shop.shipper(batch=1000).ship()
    with unguarded(stranger):
        stranger.execute("DELETE FROM entry WHERE seq % 2 = 0")
    (text,) = shop.faults()
    assert "missing: 100 (2, 4, 6" in text and "40, ...)" in text
    assert len(text.splitlines()) < 50


def test_the_commands_agree(shop: Shop, stranger: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.store.save(tmp_path / "store")
    (tmp_path / "chain.toml").write_text(
        'format_version = 1\n[[retailer]]\nid = "r"\nname = "R"\nbrand = "Fresh"\nstores = ["store"]\n'
    )
    fill(shop.ledger, 0, 10)
    shop.outbox.keep([make_transfer(1)])
    where = [
        str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"), "--chain", shop.url,
        "--outbox", str(tmp_path / "shop.outbox.sqlite"),
    ]  # fmt: skip
    assert main(["reconcile", *where]) == 2
    assert "the database has no chain's book" in capsys.readouterr().err
    assert stranger.execute("SELECT to_regnamespace('chain') IS NULL").fetchone() == (True,)
    shop.book.register(shop.store)
    assert main(["reconcile", *where, "--all"]) == 1
    assert "not shipped yet: 20 (1 to 20)" in capsys.readouterr().out
    assert main(["reconcile", *where]) == 0
    assert "ledger: 20 rows in the store, 0 in the chain's book" in (text := capsys.readouterr().out)
    assert "; 20 rows not shipped yet\n" in text and "; 1 rows not shipped yet\n" in text
    assert main(["ship", *where, "--retailers", str(tmp_path / "chain.toml")]) == 0
    assert "shop: 20 rows of ledger, 1 rows of goods, 0 rows of health" in capsys.readouterr().out
    assert shop.book.query("SELECT brand FROM store") == [("Fresh",)]
    assert main(["reconcile", *where]) == 0
    assert "ledger: 20 rows in the store, 20 in the chain's book, head " in capsys.readouterr().out
    (tmp_path / "other.toml").write_text((tmp_path / "chain.toml").read_text().replace("Fresh", "Cheap"))
    for name, code in (("chain.toml", 0), ("other.toml", 1)):
        assert main(["reconcile", *where, "--retailers", str(tmp_path / name)]) == code
    assert "store: brand: want 'Cheap', got 'Fresh'" in capsys.readouterr().out
    assert main(["reconcile", *where[:-2]]) == 1
    assert "shop: goods: 1 rows in the chain's book, not compared (no --outbox)\n" in capsys.readouterr().out
    with unguarded(stranger):
        stranger.execute("DELETE FROM entry WHERE seq = 7")
    assert main(["reconcile", *where]) == 1
    assert "missing: 1 (7)" in capsys.readouterr().out
