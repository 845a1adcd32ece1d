"""One schema of a PostgreSQL database: rows in and out, one writer at a time, lost connections, each failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS

from fusion.errors import LedgerError
from fusion.money.entries import EntryRow, PostingRow
from fusion.money.ledger import Ledger
from fusion.money.postgres import PostgresDatabase, RemoteRows, schema_of

pytestmark = pytest.mark.parametrize("new_place", ["postgres"], indirect=True)
IDENTITY = (1, "shop", "EUR")


@pytest.fixture
def database(place: Place) -> Iterator[PostgresDatabase]:
    assert place.database is not None
    with contextlib.closing(PostgresDatabase(place.database, "shop", place.folder / "vault.sqlite")) as opened:
        opened.create(IDENTITY)
        yield opened


def another(place: Place, **options: object) -> PostgresDatabase:
    assert place.database is not None
    return PostgresDatabase(place.database, "shop", place.folder / "vault.sqlite", **options)  # type: ignore[arg-type]


def entry(seq: int, text: str = "n") -> EntryRow:
    return EntryRow(seq, T_NS, "note", "v", f"v/{text} {seq}", "{}", bytes([seq % 256]) * 32)


def added(database: PostgresDatabase, first: int, n: int) -> None:
    rows = [entry(seq, "\x00\x01") for seq in range(first, first + n)]
    with database.transaction():
        database.add(rows, [PostingRow(row.seq, line, "a\x00", "EUR", line) for row in rows for line in (0, 1)])


def test_rows_come_back_as_they_went_in_one_by_one_or_as_a_stream(database: PostgresDatabase) -> None:
    for first, n in ((1, 1), (2, 31), (33, 32)):
        added(database, first, n)
    rows = database.run("SELECT seq, t_ns, kind, visit, key, details, hash FROM entry ORDER BY seq")
    assert [EntryRow(*row) for row in rows] == [entry(seq, "\x00\x01") for seq in range(1, 65)]
    with database.transaction(write=False):
        found = list(database.each("SELECT entry, line, account FROM posting ORDER BY entry, line"))
    assert found == [(seq, line, "a\x00") for seq in range(1, 65) for line in (0, 1)]
    assert database.run("SELECT key FROM entry WHERE key = ?", ("v/\x00\x01 5",)) == [("v/\x00\x01 5",)]
    assert database.run("SET client_min_messages = warning") == [], "what gives no rows"


def test_books_are_created_once(database: PostgresDatabase, place: Place) -> None:
    assert database.exists() and database.schema == schema_of("shop") and not database.moved
    database.create((1, "kiosk", "USD"))
    assert database.run("SELECT format_version, store, currency FROM book") == [IDENTITY]
    assert place.database is not None
    other = PostgresDatabase(place.database, "kiosk", place.folder / "other.sqlite")
    with contextlib.closing(other):
        assert not other.exists()
        other.create((1, "kiosk", "USD"))
        assert [one.run("SELECT store FROM book") for one in (other, database)] == [[("kiosk",)], [("shop",)]]


def test_a_failure_rolls_everything_back(database: PostgresDatabase) -> None:
    begun = f"{database.where}: the transaction failed and was rolled back: "
    fails: tuple[Callable[[], object], ...] = (
        lambda: database.run("SELECT * FROM missing"), lambda: list(database.each("SELECT * FROM missing")),
        lambda: database.add([entry(1), entry(1)], []),
    )  # fmt: skip
    for fail in fails:
        with pytest.raises(LedgerError) as raised, database.transaction():
            database.vault.link("v", "alice", T_NS, b"")
            assert database.in_transaction
            fail()
        assert str(raised.value).startswith(begun) and "\n" not in str(raised.value)
        assert not database.in_transaction and database.vault.account("v") is None
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.add([entry(1)], [])
        raise ZeroDivisionError
    with pytest.raises(LedgerError) as raised, database.transaction(), contextlib.suppress(LedgerError):
        database.run("SELECT * FROM missing")
    assert str(raised.value) == f"{database.where}: the transaction was rolled back before its end; post again"
    assert database.run("SELECT count(*) FROM entry") == [(0,)]
    with database.transaction():
        database.vault.link("v", "alice", T_NS, b"")
        database.add([entry(1)], [])
    assert database.vault.account("v") == "alice" and database.run("SELECT count(*) FROM entry") == [(1,)]


def test_one_writer_at_a_time_while_others_read(database: PostgresDatabase, place: Place) -> None:
    second = another(place, busy_max_s=0.05)
    with contextlib.closing(second), database.transaction():
        database.add([entry(1)], [])
        with second.transaction(write=False):
            assert second.run("SELECT count(*) FROM entry") == [(0,)]
        with pytest.raises(LedgerError) as raised, second.transaction():
            pass
        assert str(raised.value).startswith(f"{second.where}: cannot be written: LockNotAvailable: ")
    assert database.run("SELECT count(*) FROM entry") == [(1,)]


def test_a_lost_connection_is_restored_by_the_next_transaction(database: PostgresDatabase, place: Place) -> None:
    helper = another(place)
    with contextlib.closing(helper):
        (pid,) = database.run("SELECT pg_backend_pid()")[0]
        helper.run("SELECT pg_terminate_backend(?::int)", (pid,))
        with database.transaction():
            database.add([entry(1)], [])
        (pid,) = database.run("SELECT pg_backend_pid()")[0]
        with pytest.raises(LedgerError, match=f"^{database.where}: "), database.transaction():
            database.add([entry(2)], [])
            helper.run("SELECT pg_terminate_backend(?::int)", (pid,))
        assert not database.in_transaction
        added(database, 2, 1)
        assert database.run("SELECT seq FROM entry ORDER BY seq") == [(1,), (2,)]
        assert database.run("SHOW synchronous_commit") == [("on",)] and database.run("SHOW lock_timeout") == [("10s",)]


def test_who_reads_writes_nothing(database: PostgresDatabase, place: Place) -> None:
    with contextlib.closing(another(place, read_only=True)) as reading:
        with reading.transaction():
            assert reading.run("SELECT store FROM book") == [("shop",)]
        with pytest.raises(LedgerError, match="ReadOnlySqlTransaction"):
            reading.run("CREATE TABLE x (a int)")


def test_a_trigger_that_is_gone_or_changed_is_named(database: PostgresDatabase) -> None:
    assert database.schema_fault() is None
    database.run("ALTER TABLE entry DISABLE TRIGGER entry_delete")
    assert str(database.schema_fault()).startswith("schema: want the triggers ['book_delete', 'book_truncate'")
    database.run("ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_delete")
    assert database.schema_fault() is None
    database.run(
        "CREATE OR REPLACE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    assert database.schema_fault() == "schema: function only_added: want it as the books create it, got another"


def test_a_server_that_does_not_answer_is_named(new_place: Callable[[], Place], tmp_path: Path) -> None:
    url = "postgresql://localhost:1/books?connect_timeout=2"
    for use in (lambda: PostgresDatabase(url, "shop", tmp_path / "vault.sqlite"), lambda: RemoteRows(url, "shop")):
        with pytest.raises(LedgerError) as raised:
            use()
        assert str(raised.value).startswith("postgresql://localhost/books: cannot be opened as a ledger: Operational")
    assert list(tmp_path.glob("*.sqlite")) == []


def test_all_rows_are_read_and_put_back_for_backups(new_place: Callable[[], Place]) -> None:
    place, empty = new_place(), new_place()
    assert place.database is not None and empty.database is not None
    with pytest.raises(LedgerError) as raised, RemoteRows(place.database, "shop"):
        pass
    assert str(raised.value).endswith(": holds no books in the schema books_shop")
    with place.open(STORE) as ledger:
        ledger.open_visit("v\x00", None, T_NS)
        head = ledger.head()
    with RemoteRows(place.database, "shop") as rows, RemoteRows(empty.database, "shop", write=True) as target:
        assert rows.begun and rows.newest() == (1, head.sha256)
        assert not target.begun and target.newest() == (0, "")
        assert list(rows.of("book")) == [(1, 1, "shop", "EUR")] and list(rows.of("posting")) == []
        assert [(row[0], row[3]) for row in rows.of("entry")] == [(1, "v\x00")]
        for table in ("book", "posting", "entry"):
            target.put(table, rows.of(table))
        assert target.begun and target.newest() == (1, head.sha256)
    with Ledger.open(empty.database, STORE, vault=empty.folder / "vault.sqlite") as ledger:
        assert ledger.head() == head and ledger.verify() is None
    with pytest.raises(ZeroDivisionError), RemoteRows(empty.database, "kiosk", write=True) as target:
        raise ZeroDivisionError
    with pytest.raises(LedgerError, match="holds no books"), RemoteRows(empty.database, "kiosk"):
        pass
