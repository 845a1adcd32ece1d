"""Attacks on the chain's book: a store that writes for another, rows that stop a shipper, servers that lie."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusion.chain.book import ChainBook
from fusion.chain.reconciling import reconcile
from fusion.chain.roles import role_of, roles_sql
from fusion.chain.shipping import Shipper
from fusion.commands.main import main
from fusion.errors import ConfigError, IdempotencyConflict, LedgerError
from fusion.money.ledger import Ledger
from fusion.money.postgres import RemoteRows
from fusion.money.retailers import Retailer
from fusion.money.server_urls import checked_server

psycopg = pytest.importorskip("psycopg")
from chain.shops import Shop, fill, make_store, make_transfer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("entry", "posting", "goods", "health", "mark")
RETAILER = Retailer(id="r", name="R", brand="B", stores=("shop", "rival"))


def as_role(url: str, store: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}user={role_of(store)}"


@pytest.fixture
def rivals(url: str, shop: Shop, tmp_path: Path) -> Iterator[tuple[Shop, Shop]]:
    """Two stores, each with a role of its own in one chain's book."""
    (tmp_path / "rival").mkdir()
    rival = Shop(tmp_path / "rival", url, make_store("rival"))
    with ChainBook(url) as owner:
        for _ in range(2):  # The script may be run again.
            owner.set_up_roles([(one.store, RETAILER) for one in (shop, rival)])
    password = psycopg.conninfo.conninfo_to_dict(url).get("password")
    if password:
        with psycopg.connect(url, autocommit=True) as connection:
            for one in (shop, rival):
                name, secret = psycopg.sql.Identifier(role_of(one.store.id)), psycopg.sql.Literal(password)
                connection.execute(psycopg.sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, secret))
    for one in (shop, rival):
        one.book.close()
        one.book = ChainBook(as_role(url, one.store.id), create=False)
    yield shop, rival
    rival.close()


@pytest.mark.attack(25)
def test_a_stores_role_ships_its_own_rows_and_reaches_no_others(rivals: tuple[Shop, Shop], url: str) -> None:
    shop = rivals[0]
    for one in rivals:
        fill(one.ledger, 0, 3)
        one.outbox.keep([make_transfer(1)])
        warnings: list[str] = []
        Shipper(one.store, one.sources, one.book, retailer=RETAILER, warn=warnings.append).run()
        assert not warnings
        agreements = reconcile(one.store, one.sources, one.book, retailer=RETAILER)
        assert [agreement.text() for agreement in agreements if not agreement.agrees] == []
    with psycopg.connect(as_role(url, "rival"), autocommit=True, options="-c search_path=chain") as thief:
        assert {row for (row,) in thief.execute("SELECT DISTINCT store FROM entry")} == {"rival"}
        assert thief.execute("SELECT id FROM store").fetchall() == [("rival",)]
        for statement in (
            "INSERT INTO entry SELECT 'shop', 99, t_ns, kind, visit, 'k', details, hash FROM entry LIMIT 1",
            "INSERT INTO posting SELECT 'shop', 99, line, account, currency, amount FROM posting LIMIT 1",
            "INSERT INTO goods SELECT 'shop', 99, t_ns, key, debit, credit, gtin, quantity, hash FROM goods LIMIT 1",
            "INSERT INTO mark SELECT 'shop', 'x', seq, hash FROM mark LIMIT 1",
            "INSERT INTO store VALUES ('third', 'T', 'EUR', 'UTC', NULL, NULL)",
            "UPDATE store SET retailer = 'other'",
            "UPDATE mark SET store = 'shop'",
            "DELETE FROM entry",
            "TRUNCATE entry",
            "INSERT INTO writer VALUES ('fusion_rival', 'shop')",
            "UPDATE writer SET store = 'shop'",
            "SELECT * FROM sales",
            "ALTER TABLE entry DISABLE TRIGGER ALL",
            "CREATE TABLE chain.mine (x INT)",
        ):
            with pytest.raises(psycopg.Error) as refused:
                thief.execute(statement)
            assert re.search("row-level security|permission denied|must be owner", str(refused.value)), statement
        # Rows of others are not there for it, so a change of them changes none.
        assert thief.execute("UPDATE mark SET seq = 99 WHERE store = 'shop'").rowcount == 0
        thief.execute("SET ROLE fusion_stores")
        with pytest.raises(psycopg.Error, match="row-level security"):
            thief.execute("INSERT INTO mark VALUES ('shop', 'x', 1, '\\x00')")
    with ChainBook(url) as owner:
        warnings = []
        fill(shop.ledger, 3, 1)
        Shipper(shop.store, shop.sources, owner, retailer=RETAILER, warn=warnings.append).run()
        assert "may write rows of every store; see `fusion chain-roles`" in warnings[0] and len(warnings) == 1
        assert owner.schema_faults() == [] and owner.unbounded_role()
        assert owner.store_faults(shop.store, RETAILER) == []


@pytest.mark.attack(25)
@pytest.mark.parametrize("first", [9, 1])
def test_a_poisoned_row_is_set_aside_and_the_shipper_continues(
    first: int, shop: Shop, url: str, stranger: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it waits beyond the mark, or stands where the store's own rows were: other streams are not held up."""
    fill(shop.ledger, 0, 4 if first == 9 else 0)
    shop.shipper().ship()
    with ChainBook(url) as book:
        book.register(shop.store)
    if first == 1:
        stranger.execute("INSERT INTO mark VALUES ('shop', 'ledger', 1, '\\x01') ON CONFLICT (store, stream) "
                         "DO UPDATE SET seq = 1, hash = '\\x01'")  # fmt: skip
    stranger.execute("INSERT INTO entry VALUES ('shop', %s, 1, 'forged', 'v', 'k', '{}', '\\x01')", (first,))
    stranger.execute("INSERT INTO posting VALUES ('shop', %s, 0, 'receivable', 'EUR', 1000)", (first,))
    fill(shop.ledger, 4, 3)
    shop.outbox.keep([make_transfer(1)])
    waits: list[float] = []

    def wait(pause_s: float) -> None:
        """After some attempts, the owner sets the row aside; the shipper is never started again."""
        waits.append(pause_s)
        if len(waits) == 3:
            assert shop.book.count("shop", "goods") == 1
            command = ["quarantine", "shop", "ledger", str(first), "--chain", url, "--why", "written by box9"]
            assert main(command) == 0
            assert "2 rows of ledger are set aside" in capsys.readouterr().out
        if shop.ledger.head().seq == shop.book.mark("shop", shop.sources[0]).seq:
            stop.set()

    stop = threading.Event()
    shop.shipper().run(follow=True, wait=wait, stop=stop)
    assert stop.is_set() and shop.faults() == []
    kept = stranger.execute("SELECT from_table, seq, why, content->>'kind' FROM quarantined ORDER BY 1").fetchall()
    assert kept == [("entry", first, "written by box9", "forged"), ("posting", first, "written by box9", None)]
    for statement in ("DELETE FROM quarantined", "DELETE FROM entry", "UPDATE mark SET seq = 0"):
        with pytest.raises(psycopg.Error, match=r"only added to|only moves forward"):
            stranger.execute(statement)


@pytest.mark.attack(25)
def test_only_what_is_there_is_set_aside(shop: Shop, url: str) -> None:
    fill(shop.ledger, 0, 3)
    shop.shipper().ship()
    with ChainBook(url) as owner:
        for arguments, message in (
            (("shop", "ledger", 99, "x"), "got none"),
            (("nowhere", "ledger", 1, "x"), "got none"),
            (("shop", "wares", 1, "x"), "want ledger, goods, health"),
            (("shop", "ledger", 2, " "), "want the reason"),
        ):
            with pytest.raises(LedgerError, match=message):
                owner.quarantine(*arguments)  # type: ignore[arg-type]
    assert shop.faults() == [] and shop.shipper().ship()["ledger"] == 0
    with pytest.raises(IdempotencyConflict):
        shop.tamper("UPDATE posting SET amount = 0 WHERE entry = 4")
        shop.book.add("shop", shop.sources[0], shop.sources[0].after(3, 1))


@pytest.mark.attack(25)
def test_a_server_on_another_machine_must_be_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    monkeypatch.delenv("PGHOST", raising=False)
    here = ("postgresql:///chain", "postgresql://localhost/c", "postgresql://127.0.0.1/c", "postgresql://[::1]/c",
            "postgresql:///c?host=/run/postgresql")  # fmt: skip
    for url in (*here, "postgresql://db.example/c?sslmode=verify-full", "postgresql://10.0.0.1/c?sslmode=verify-ca"):
        checked_server(url)
    for url in (
        "postgresql://anna:secret@db.example/c",
        "postgresql://10.0.0.1/c?sslmode=require",
        "postgresql:///c?host=db.example",
        "postgresql://localhost,db.example/c",
        "postgresql://localhost/c?hostaddr=10.1.1.1",
        "postgresql://db.example/c?sslmode=disable",
    ):
        for use in (
            ChainBook,
            lambda url: Ledger.open(url, make_store(), vault=tmp_path / "vault.sqlite"),
            lambda url: RemoteRows(url, "shop"),
        ):
            with pytest.raises(LedgerError, match="sslmode=verify-full") as refused:
                use(url)
            assert "secret" not in str(refused.value)
    monkeypatch.setenv("PGHOST", "db.example")
    with pytest.raises(LedgerError, match="sslmode=verify-full"):
        checked_server("postgresql:///c")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    checked_server("postgresql:///c")


@pytest.mark.attack(25)
def test_no_example_leaves_the_machine_unchecked() -> None:
    """Every URL of a server in the documents and the commands' help."""
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "fusion").rglob("*.py")]
    pattern = re.compile(r"postgresql://\w[^\s`\"')]*")
    urls = [(path.name, url) for path in places for url in pattern.findall(path.read_text(encoding="utf-8"))]
    named = [(name, url) for name, url in urls if not re.search(r"//(localhost|127\.|.*\{)", url)]
    assert len(named) > 5
    assert [(name, url) for name, url in named if "sslmode=verify-full" not in url] == []


@pytest.mark.attack(25)
def test_hostile_ids_stay_texts() -> None:
    quoted = roles_sql([(make_store("a'; DROP TABLE x; --\\"), None)])
    assert "E'a''; DROP TABLE x; --\\\\'" in quoted and '"fusion_a\'; DROP TABLE x; --\\"' in quoted
    with pytest.raises(ConfigError, match="want an id of at most"):
        role_of("x" * 60)
