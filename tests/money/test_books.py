"""The book of entries: batches whole or not at all, rows only added, every later change found and named."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO, balances, make_store, receipt

from fusion.errors import LedgerError
from fusion.money.checkpoint import Head
from fusion.money.entries import Posting, canonical_bytes, chained_hash, genesis_hash
from fusion.money.ledger import Ledger
from fusion.money.schema import Definition, definitions_fault
from fusion.money.sqlite import SQLiteDatabase
from fusion.money.vault import Holder


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        yield opened


def test_a_batch_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    with ledger.batch():
        for i in range(50):
            ledger.post_receipt(receipt(f"v{i}", *TWO, account=None))
        with pytest.raises(LedgerError):
            ledger.post_receipt(replace(receipt("bad"), total=1))
    assert balances(ledger)["receivable"] == 50 * 697
    with pytest.raises(ZeroDivisionError), ledger.batch():
        ledger.post_receipt(receipt("w", *TWO))
        raise ZeroDivisionError
    assert balances(ledger)["receivable"] == 50 * 697 and ledger.standing("w") is None


def test_a_batch_that_failed_keeps_nothing_even_if_the_error_is_caught(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.post_receipt(receipt("v0", *TWO, account=None))
    ledger.hold(Holder("taken", "alice"))
    vault = ledger.database.vault
    with monkeypatch.context() as patch:
        # A link that the vault cannot keep.
        patch.setattr(vault, "link", lambda *_: vault.hold(Holder("taken", "bob")))
        with pytest.raises(LedgerError, match="failed before"), ledger.batch():
            ledger.post_receipt(receipt("v1", *TWO, account=None))
            with pytest.raises(LedgerError, match="vault"):
                ledger.open_visit("v2", "alice", T_NS)
    assert balances(ledger)["receivable"] == 697 and ledger.head().seq == 1
    database = SQLiteDatabase(tmp_path / "full.sqlite")
    with Ledger(database, STORE) as full:
        (pages,) = database.connection.execute("PRAGMA page_count").fetchone()
        database.connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        n_failed = 0
        with pytest.raises(LedgerError), full.batch():
            for i in range(3000):
                try:
                    full.post_receipt(receipt(f"v{i}", *TWO, account=None))
                except LedgerError:
                    n_failed += 1
        assert n_failed > 0 and full.head().seq == 0 and full.verify() is None


def test_many_writers_of_the_same_visits_charge_each_once(place: Place) -> None:
    ledgers = [place.open(STORE) for _ in range(3)]
    posted: list[str] = []

    def work(ledger: Ledger, seed: int) -> None:
        visits = [f"v{i}" for i in range(20)]
        random.Random(seed).shuffle(visits)
        for visit in visits:
            if ledger.post_receipt(receipt(visit, *TWO)):
                posted.append(visit)

    threads = [threading.Thread(target=work, args=(ledgers[i % 3], i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(posted) == sorted(f"v{i}" for i in range(20))
    assert balances(ledgers[0])["receivable"] == 20 * 697


def test_only_its_own_books_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "with space#.sqlite"
    Ledger.open(path, STORE).close()
    assert path.stat().st_mode & 0o077 == 0
    for other in (make_store("kiosk"), make_store(currency="USD")):
        with pytest.raises(LedgerError, match="want the books of"):
            Ledger.open(path, other)
    Ledger.open(f"sqlite:///{str(path).replace(' ', '%20').replace('#', '%23')}", STORE).close()
    (tmp_path / "text").write_text("not a database, but longer than the header of one would be, " * 20)
    for where in (
        tmp_path / "text",
        tmp_path,
        tmp_path / "no" / "folder",
        "oracle://scott:tiger@host/books",
        "sqlite://",
    ):
        with pytest.raises(LedgerError) as raised:
            Ledger.open(where, STORE)
        assert "tiger" not in str(raised.value)
    assert (tmp_path / "text").read_text().startswith("not a database")


# ---- the chain -------------------------------------------------------------------------------------------------------


def test_golden_vectors() -> None:
    """If these change, books that exist can no longer be verified: raise the format version instead."""
    genesis = genesis_hash("shop", "EUR")
    assert genesis == hashlib.sha256(b'["fusion ledger",1,"shop","EUR"]').digest()
    assert genesis.hex() == "a2fce2e47c1beceea491c2104e4d3720592e89760bdfcc425577b9c2d4c6d196"
    postings = (Posting("receivable", "EUR", 119), Posting("revenue 19%", "EUR", -100), Posting("vat 19%", "EUR", -19))
    entry = canonical_bytes(1, T_NS, "receipt settled", 'v"1é\x00', "v/receipt", '{"request":{}}', postings)
    assert entry == (
        b'[1,1772528646000000000,"receipt settled","v\\"1\\u00e9\\u0000","v/receipt","{\\"request\\":{}}",'
        b'[["receivable","EUR",119],["revenue 19%","EUR",-100],["vat 19%","EUR",-19]]]'
    )
    assert chained_hash(genesis, entry).hex() == "42b9f5e596d59868c52a9d56931027e636f2f5f7240ae3b54f90fe003cc46b3f"


def tampered(place: Place, *statements: str) -> str | None:
    """What `verify` finds after a person with all rights has changed rows."""
    connection = place.stranger(STORE)
    if place.database is None:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        asleep = [f"DROP TRIGGER {name}" for name, _ in triggers]
        awake = [sql for _, sql in triggers]
    else:
        asleep = [f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in ("book", "entry", "posting")]
        awake = [statement.replace("DISABLE", "ENABLE") for statement in asleep]
    for statement in (*asleep, *statements, *awake):
        connection.execute(statement)
    connection.close()
    with place.open(STORE) as ledger:
        return ledger.verify()


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["UPDATE entry SET t_ns = t_ns + 1 WHERE seq = 4"], "entry 4:"),
        (["UPDATE entry SET kind = 'receipt review' WHERE seq = 4"], "entry 4:"),
        (["UPDATE entry SET visit = 'x' WHERE seq = 4"], "entry 4:"),
        (["UPDATE entry SET key = 'x' WHERE seq = 4"], "entry 4:"),
        (["UPDATE entry SET details = replace(details, '249', '248') WHERE seq = 4"], "entry 4:"),
        (["UPDATE entry SET hash = (SELECT hash FROM entry WHERE seq = 3) WHERE seq = 4"], "entry 4:"),
        (["UPDATE posting SET amount = amount + 1 WHERE entry = 4 AND line = 0"], "entry 4:"),
        (["UPDATE posting SET account = 'mallory' WHERE entry = 4 AND line = 1"], "entry 4:"),
        (["UPDATE posting SET currency = 'USD' WHERE entry = 4"], "entry 4:"),
        (["DELETE FROM posting WHERE entry = 4 AND line = 2"], "entry 4:"),
        (["DELETE FROM posting WHERE entry = 4", "DELETE FROM entry WHERE seq = 4"], "entry 4: missing"),
        (["DELETE FROM posting WHERE entry = 1", "DELETE FROM entry WHERE seq = 1"], "entry 1: missing"),
        (["INSERT INTO posting VALUES (4, 9, 'mallory', 'EUR', 5)"], "entry 4:"),
        (["INSERT INTO posting VALUES (99, 0, 'mallory', 'EUR', 5)"], "posting of entry 99"),
        (["INSERT INTO posting VALUES (0, 0, 'mallory', 'EUR', 5)"], "posting of entry 0"),
        (["INSERT INTO entry SELECT 9, t_ns, kind, visit, 'k', details, hash FROM entry WHERE seq = 4"], "entry 9:"),
        (
            [
                "UPDATE entry SET seq = 99 WHERE seq = 6",
                "UPDATE entry SET seq = 6 WHERE seq = 4",
                "UPDATE entry SET seq = 4 WHERE seq = 99",
            ],
            "entry 4:",
        ),
    ],
)
def test_every_change_behind_the_ledger_is_named(place: Place, statements: list[str], named: str) -> None:
    with place.open(STORE) as ledger:
        for i in range(4):
            ledger.open_visit(f"v{i}", "alice", T_NS)
            ledger.post_receipt(receipt(f"v{i}", *TWO))
    fault = tampered(place, *statements)
    assert fault is not None and fault.startswith(named), fault


def test_removed_and_added_triggers_are_named(place: Place) -> None:
    place.open(STORE).close()
    stranger = place.stranger(STORE)
    if place.database is None:
        statements = ["CREATE TRIGGER sneaky AFTER INSERT ON entry BEGIN SELECT 1; END", "DROP TRIGGER entry_update"]
    else:
        statements = [
            "CREATE TRIGGER sneaky AFTER INSERT ON entry EXECUTE FUNCTION only_added()",
            "ALTER TABLE entry DISABLE TRIGGER entry_update",
        ]
    with place.open(STORE) as ledger:
        assert ledger.verify() is None
        for statement in statements:
            stranger.execute(statement)
            fault = ledger.verify()
            assert fault is not None and fault.startswith("schema: want the triggers")
            # So that the next fault is found on its own.
            stranger.execute("DROP TRIGGER IF EXISTS sneaky" + (" ON entry" if place.database else ""))
    stranger.close()


def test_a_removed_tail_is_found_by_a_head_kept_elsewhere(place: Place) -> None:
    with place.open(STORE) as ledger:
        for i in range(3):
            ledger.post_receipt(receipt(f"v{i}", *TWO, account=None))
        kept = ledger.head()
        ledger.post_receipt(receipt("v3", *TWO, account=None))
        assert ledger.verify(kept) is None
    assert tampered(place, "DELETE FROM posting WHERE entry > 2", "DELETE FROM entry WHERE seq > 2") is None
    with place.open(STORE) as ledger:
        assert ledger.verify(kept) == "entry 3: missing, the head that was kept is 3"
        # Books that were rewritten from there on do not pass either.
        ledger.post_receipt(receipt("forged", *TWO, account=None))
        assert ledger.verify() is None
        assert ledger.verify(kept) == "entry 3: differs from the head that was kept"


def test_a_checkpoint_holds_for_its_own_books_and_key_only(ledger: Ledger, place: Place) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    ledger.post_receipt(receipt("v0", *TWO, account=None))
    ledger.post_receipt(receipt("v1", *TWO, account=None))
    text = ledger.checkpoint(key, T_NS)
    head = Head.from_checkpoint(text, key.public_key(), STORE)
    assert head == ledger.head() and ledger.verify(head) is None
    with pytest.raises(LedgerError, match="signed by this key"):
        Head.from_checkpoint(text, ed25519.Ed25519PrivateKey.generate().public_key(), STORE)
    with pytest.raises(LedgerError, match="want the books of 'kiosk'"):
        Head.from_checkpoint(text, key.public_key(), make_store("kiosk"))
    for place_of_bit in range(8 * len(text)):
        flipped = bytearray(text.encode())
        flipped[place_of_bit // 8] ^= 1 << place_of_bit % 8
        try:
            forged = Head.from_checkpoint(flipped.decode("utf-8", "replace"), key.public_key(), STORE)
        except LedgerError:
            continue
        assert forged == head, "a bit that changes nothing, such as the case of a hexadecimal digit"
    ledger.close()
    cut_off = ("DELETE FROM posting WHERE entry = 2", "DELETE FROM entry WHERE seq = 2")
    assert tampered(place, *cut_off) is None
    with place.open(STORE) as again:
        assert again.verify(head) == "entry 2: missing, the head that was kept is 2"


def test_a_checkpoint_may_name_any_entry_that_books_can_hold() -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    for seq in (0, 2**63 - 1):
        text = Head(seq, "ab" * 32).checkpoint(key, T_NS, STORE)
        assert Head.from_checkpoint(text, key.public_key(), STORE) == Head(seq, "ab" * 32)
    for seq in (-1, 2**63):
        text = Head(seq, "ab" * 32).checkpoint(key, T_NS, STORE)
        with pytest.raises(LedgerError, match="signed by this key"):
            Head.from_checkpoint(text, key.public_key(), STORE)


def test_definitions_that_differ_are_named_as_another_or_none() -> None:
    wanted = {Definition("trigger", "entry_update"): "CREATE TRIGGER a", Definition("function", "only_added"): "text"}
    assert definitions_fault(wanted, {**wanted, Definition("table", "more"): "CREATE TABLE"}) is None
    fault = "schema: function only_added: want it as the books create it, got "
    assert definitions_fault(wanted, {**wanted, Definition("function", "only_added"): "other"}) == fault + "another"
    assert definitions_fault(wanted, {Definition("trigger", "entry_update"): "CREATE TRIGGER a"}) == fault + "none"
    assert definitions_fault(wanted, {}) == "schema: want the triggers ['entry_update'], got []"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET t_ns = 0",
        "DELETE FROM entry",
        "UPDATE posting SET amount = 0",
        "DELETE FROM posting",
        "UPDATE book SET store = 'x'",
        "DELETE FROM book",
        "INSERT OR REPLACE INTO entry SELECT seq, 0, kind, visit, key, details, hash FROM entry WHERE seq = 1",
        "INSERT OR REPLACE INTO entry SELECT 99, 0, kind, visit, key, details, hash FROM entry WHERE seq = 1",
        "INSERT OR REPLACE INTO posting SELECT entry, line, account, currency, 0 FROM posting",
        "INSERT INTO posting VALUES (1, 77, 'mallory', 'EUR', 1)",
        "INSERT INTO entry SELECT 0, t_ns, kind, visit, 'new', details, hash FROM entry WHERE seq = 1",
    ],
)
def test_rows_can_only_be_added(place: Place, statement: str) -> None:
    if place.database is not None and "OR REPLACE" in statement:
        pytest.skip("PostgreSQL has no INSERT OR REPLACE")
    with place.open(STORE) as ledger:
        for i in range(2):
            ledger.post_receipt(receipt(f"v{i}", *TWO))
        stranger = place.stranger(STORE)
        with pytest.raises(Exception, match="only added to"):
            stranger.execute(statement)
        stranger.close()
        assert balances(ledger)["receivable"] == 2 * 697
