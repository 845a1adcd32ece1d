"""The vault row by row: seals, and what a changed, foreign or older vault is called; files that are no books."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from money.books import STORE, T_NS, TWO, receipt

from fusion.errors import FusionError, LedgerError
from fusion.files.secrets import KEY_FILE, derived, fingerprint, store_key
from fusion.money.ledger import Ledger
from fusion.money.profiles import Answering, Profiles
from fusion.money.sqlite import SQLiteDatabase, is_open_here, open_sqlite
from fusion.money.sqlite_reading import read_sqlite, stamp
from fusion.money.vault import VAULT_SCHEMA, Holder, Vault, seal_of


@contextlib.contextmanager
def refused(message: str, kind: type[FusionError] = LedgerError) -> Iterator[None]:
    with pytest.raises(kind) as raised:
        yield
    assert str(raised.value) == message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Books of two visits whose customers are known."""
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        ledger.hold(Holder("p1", "alice", "tok", "a@example.org", T_NS))
        ledger.hold(Holder("p2", "bob", None, None, T_NS + 1))
        ledger.open_visit("v1", "p1", T_NS)
        ledger.open_visit("v2", "p2", T_NS + 1)
    return tmp_path / "ledger.sqlite"


def changed(path: Path, *statements: str) -> None:
    """What another program does to the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        for statement in statements:
            stranger.execute(statement)


# ---- seals -----------------------------------------------------------------------------------------------------------


def test_a_seal_covers_every_column() -> None:
    key, row = bytes(32), ("v1", "älice", 5, b"\x01\xff", None)
    text = '["v1","\\u00e4lice",5,"01ff",null]'
    assert seal_of(key, row) == hmac.new(key, text.encode(), hashlib.sha256).digest()


def test_rows_are_sealed_with_a_key_that_is_derived_from_the_stores(path: Path) -> None:
    key = derived(store_key(path.parent, create=False), "vault")
    with contextlib.closing(sqlite3.connect(path)) as database:
        links = database.execute("SELECT visit, account, enter_ns, entry, seal FROM link ORDER BY visit").fetchall()
        holders = database.execute("SELECT pseudonym, account, token, email, since_ns, seal FROM holder").fetchall()
        (first,) = database.execute("SELECT hash FROM entry WHERE key = 'v1/opened'").fetchone()
    assert links[0][:4] == ("v1", "p1", T_NS, first)
    assert all(seal_of(key, content) == seal for *content, seal in (*links, *holders))
    with Ledger.open(path, STORE) as ledger:
        assert ledger.database.vault.key_id == fingerprint(store_key(path.parent, create=False))
        assert ledger.database.vault.n_refused == 0 and ledger.verify() is None


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE link SET account = 'mallory' WHERE visit = 'v1'",
         "vault: the link of visit 'v1' was changed, or sealed with another store's key"),
        ("UPDATE link SET enter_ns = 7 WHERE visit = 'v2'",
         "vault: the link of visit 'v2' was changed, or sealed with another store's key"),
        ("UPDATE link SET entry = x'00' WHERE visit = 'v1'",
         "vault: the link of visit 'v1' was changed, or sealed with another store's key"),
        ("UPDATE holder SET token = 'other' WHERE pseudonym = 'p1'",
         "vault: the customer behind 'p1' was changed, or sealed with another store's key"),
        ("UPDATE holder SET since_ns = 7 WHERE pseudonym = 'p2'",
         "vault: the customer behind 'p2' was changed, or sealed with another store's key"),
        ("UPDATE holder SET seal = (SELECT seal FROM holder WHERE pseudonym = 'p2') WHERE pseudonym = 'p1'",
         "vault: the customer behind 'p1' was changed, or sealed with another store's key"),
    ],
)  # fmt: skip
def test_a_changed_row_is_named_and_names_no_one(path: Path, statement: str, fault: str) -> None:
    changed(path, statement)
    with Ledger.open(path, STORE) as ledger:
        assert ledger.verify() == fault and ledger.database.vault.n_refused == 1
        visit, other = ("v1", "v2") if "1'" in fault else ("v2", "v1")
        assert ledger.customer(visit) is None and ledger.customer(other) is not None
        assert ledger.database.vault.n_refused == 2


def test_a_link_belongs_to_the_entry_that_began_its_visit(path: Path) -> None:
    key = derived(store_key(path.parent, create=False), "vault")
    row = ("v1", "p1", T_NS, bytes(32))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("UPDATE link SET entry = ?, seal = ? WHERE visit = 'v1'", (row[3], seal_of(key, row)))
        wanted = "vault: the link of visit 'v1' belongs to another entry than the one that began it"
        with Ledger.open(path, STORE) as ledger:
            assert ledger.verify() == wanted
        row = ("v9", "p1", T_NS, bytes(32))
        owner.execute("UPDATE link SET visit = 'v9', seal = ? WHERE visit = 'v1'", (seal_of(key, row),))
    with Ledger.open(path, STORE) as ledger:
        assert ledger.verify() == wanted.replace("v1", "v9"), "a visit that the books do not have"


OLDER = (
    "CREATE TABLE old (visit TEXT PRIMARY KEY, account TEXT NOT NULL, enter_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO old SELECT visit, account, enter_ns FROM link",
    "DROP TABLE link",
    "ALTER TABLE old RENAME TO link",
    "CREATE TABLE old (pseudonym TEXT PRIMARY KEY, account TEXT NOT NULL, token TEXT, email TEXT, "
    "since_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO old SELECT pseudonym, account, token, email, since_ns FROM holder",
    "DROP TABLE holder",
    "ALTER TABLE old RENAME TO holder",
)


def test_a_vault_of_an_older_version_is_sealed_once(path: Path) -> None:
    with Ledger.open(path, STORE) as ledger:
        ledger.post_receipt(receipt("v3", *TWO, account="carol"))
        ledger.post_receipt(receipt("v1", *TWO, account="p1"))
    changed(path, *OLDER)
    with Ledger.open(path, STORE, read_only=True) as reading:
        assert reading.verify() == (
            "vault: its rows are not sealed; an older version wrote it, or the seals were removed: look at who could "
            "write to it, then start the store once, which seals it and notes so in the books"
        )
    with Ledger.open(path, STORE) as ledger:
        assert ledger.verify() is None, "each link has the entry that began its visit: an opening, or a receipt"
        noted = ledger.entries("vault")[-1]
        assert (noted.kind, noted.key, noted.request) == ("vault sealed", "vault/sealed", {"links": 3, "holders": 2})
        assert noted.t_ns == T_NS + 90 and noted.postings == (), "the time of the entry before it"
        assert ledger.customer("v1") == Holder("p1", "alice", "tok", "a@example.org", T_NS)
        assert ledger.account_of("v3") == "carol"
    changed(path, *OLDER)
    with refused(
        f"{path}: the seals of the vault were removed after they had been made; restore a backup, or find out who "
        "could write to it"
    ):
        Ledger.open(path, STORE)


def test_an_empty_vault_of_an_older_version_needs_no_note(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path, STORE).close()
    changed(path, *OLDER)
    with Ledger.open(path, STORE) as ledger:
        assert ledger.head().seq == 0 and ledger.verify() is None
        ledger.open_visit("v1", "alice", T_NS)
        assert ledger.account_of("v1") == "alice"
    changed(path, *OLDER, "DELETE FROM link")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("INSERT INTO link VALUES ('v8', 'bob', 5)")
    with Ledger.open(path, STORE) as ledger:
        assert ledger.entries("vault")[0].request == {"links": 1, "holders": 0}
        assert ledger.verify() is None and ledger.account_of("v8") == "bob", "a visit that the books never had"


def test_a_vault_wants_the_key_that_sealed_it(path: Path) -> None:
    key = path.parent / KEY_FILE
    text = key.read_text()
    key.write_text("ab" * 32 + "\n")
    with refused(f"{key}: the vault was sealed with another key; put back the one that lay beside it"):
        Ledger.open(path, STORE)
    key.unlink()
    with refused(
        f"the vault cannot be used without the key that seals it: {key}: the file of the store's key does not exist; "
        "where it is lost for good: see `fusion reseal`"
    ):
        Ledger.open(path, STORE)
    assert not key.exists()
    # Who only reads sees no customer, and the chain.
    with Ledger.open(path, STORE, read_only=True) as reading:
        assert reading.database.vault.key_id is None and reading.verify() is None
        assert reading.customer("v1") is None and reading.head().seq == 2
    key.write_text(text)
    key.chmod(0o600)
    with Ledger.open(path, STORE) as ledger:
        assert ledger.account_of("v1") == "alice"


@pytest.mark.parametrize(("n_rows", "is_foreign"), [(1, False), (2, True), (9, True)])
def test_a_single_row_shows_no_other_key(tmp_path: Path, n_rows: int, is_foreign: bool) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        for i in range(n_rows):
            ledger.open_visit(f"v{i}", "alice", T_NS)
    (tmp_path / KEY_FILE).write_text("ab" * 32 + "\n")
    opening = pytest.raises(LedgerError, match="another key") if is_foreign else contextlib.nullcontext()
    with opening:
        Ledger.open(tmp_path / "ledger.sqlite", STORE).close()


def test_one_row_that_fits_shows_that_the_key_is_right(path: Path) -> None:
    changed(path, "UPDATE link SET account = 'mallory'", "UPDATE holder SET token = 'x' WHERE pseudonym = 'p1'")
    with Ledger.open(path, STORE) as ledger:
        assert ledger.database.vault.key_id is not None


def test_a_vault_of_its_own_commits_by_itself(tmp_path: Path) -> None:
    rolled_back: list[int] = []
    with contextlib.closing(open_sqlite(tmp_path / "vault.sqlite", "a vault", VAULT_SCHEMA)) as file:
        vault = Vault(file, tmp_path, lambda: rolled_back.append(1), separate=True)
        vault.link("v1", "alice", T_NS, b"\x01")
        assert file.in_transaction
        vault.roll_back()
        assert vault.account("v1") is None and not file.in_transaction
        vault.link("v1", "alice", T_NS, b"\x01")
        vault.link("v1", "bob", T_NS, b"\x01")
        vault.commit()
        assert vault.account("v1") == "bob" and not file.in_transaction
        vault.commit()
        vault.roll_back()
        # A link to a visit that the books do not have is left by a crash between both files, and is no fault.
        assert list(vault.faults(lambda visit: b"")) == [] and list(vault.faults(lambda visit: b"\x01")) == []
        assert list(vault.faults(lambda visit: b"\x02")) == [
            "vault: the link of visit 'v1' belongs to another entry than the one that began it"
        ]
        vault.hold(Holder("p1", "bob", since_ns=T_NS))
        with pytest.raises(LedgerError, match=r"^the vault failed and nothing was written: UNIQUE"):
            vault.hold(Holder("p1", "eve"))
        assert rolled_back == [1]


def test_names_are_kept_or_forgotten_by_their_time(path: Path) -> None:
    with Ledger.open(path, STORE) as ledger:
        assert ledger.unlink_before(T_NS + 1) == 1
        links, holders = ledger.named()
        assert [row.subject for row in links] == ["v2"] and [row.subject for row in holders] == ["p2"]
        assert ledger.verify() is None, "rows that stay keep their seals"


def test_where_nothing_is_forgotten_nothing_is_written(path: Path) -> None:
    with Ledger.open(path, STORE) as ledger:
        connection = ledger.database.vault.connection
        before = connection.execute("PRAGMA schema_version").fetchone()
        assert ledger.unlink_before(T_NS) == 0 == ledger.unlink_account("mallory")
        assert connection.execute("PRAGMA schema_version").fetchone() == before
        assert ledger.unlink_account("bob") == 1
        assert connection.execute("PRAGMA schema_version").fetchone() != before


def test_a_log_in_use_still_holds_what_was_forgotten(path: Path) -> None:
    with (
        Ledger(SQLiteDatabase(path, busy_max_s=0.01), STORE) as ledger,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM link").fetchall()
        with refused(
            "the accounts are unlinked, but the vault's write-ahead log still holds them while another process reads "
            "it; call again once that reader has finished"
        ):
            ledger.unlink_account("alice")
        assert ledger.account_of("v1") is None


def test_a_row_that_was_changed_is_not_sealed_again(path: Path) -> None:
    changed(path, "UPDATE link SET account = 'p1' WHERE visit = 'v2'")
    with Ledger.open(path, STORE) as ledger:
        assert ledger.unlink_before(T_NS + 1) == 1
        assert ledger.verify() == "vault: the link of visit 'v2' was changed, or sealed with another store's key"


# ---- files of SQLite -------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_used_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with refused(f"{path}: the books do not exist; `fusion run` and `fusion serve` create them"):
        open_sqlite(path, "a ledger", create=False)
    with refused(f"{tmp_path}: want a regular file to keep a ledger in, got something else"):
        open_sqlite(tmp_path, "a ledger")
    lost = tmp_path / "none" / "x.sqlite"
    with refused(f"{lost}: cannot be opened as a ledger: its folder does not exist"):
        open_sqlite(lost, "a ledger")
    inside = path / "x.sqlite"
    path.write_bytes(b"not a database, and longer than its head" * 100)
    with refused(f"{inside}: cannot be opened as profiles: Not a directory"):
        open_sqlite(inside, "profiles")
    with refused(f"{path}: cannot be used as profiles: file is not a database"):
        open_sqlite(path, "profiles")
    assert not is_open_here(path) and not is_open_here(inside)


def test_a_file_is_its_owners_alone_and_every_commit_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    for mode, wanted in ((None, 0o600), (0o664, 0o600), (0o700, 0o700)):
        if mode is not None:
            path.chmod(mode)
        with contextlib.closing(open_sqlite(path, "x", "CREATE TABLE IF NOT EXISTS t (a);", busy_max_s=0.25)) as file:
            assert path.stat().st_mode & 0o777 == wanted and is_open_here(path)
            pragmas = ("secure_delete", "journal_mode", "synchronous", "recursive_triggers", "trusted_schema")
            found = [file.execute(f"PRAGMA {name}").fetchone()[0] for name in (*pragmas, "busy_timeout")]
            assert found == [1, "wal", 2, 1, 0, 250] and file.execute("SELECT count(*) FROM t").fetchone() == (0,)
            with contextlib.closing(open_sqlite(path, "x")) as second:
                assert second.execute("PRAGMA busy_timeout").fetchone() == (10_000,)
            assert is_open_here(path), "one of two is still open"
        assert not is_open_here(path) and sorted(tmp_path.iterdir()) == [path], "no log is left"
    assert path.read_bytes()[18:20] == b"\1\1"


def test_a_log_that_another_process_begins_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (a)")
        other.execute("BEGIN EXCLUSIVE")
        with refused(f"{path}: cannot be used as x: database is locked"):
            open_sqlite(path, "x", busy_max_s=0.02)


def test_an_error_of_a_statement_rolls_everything_back(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "x.sqlite")
    fails: tuple[Callable[[], Any], ...] = (
        lambda: database.run("SELECT * FROM missing"), lambda: list(database.each("SELECT * FROM missing")),
        lambda: database.add([(1,)], []),  # type: ignore[list-item]
    )  # fmt: skip
    database.create((1, "shop", "EUR"))
    with contextlib.closing(database):
        for fail in fails:
            failed = rf"^{database.where}: the transaction failed and was rolled back: "
            with pytest.raises(LedgerError, match=failed), database.transaction():
                assert database.in_transaction
                fail()
            assert not database.in_transaction
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.run("INSERT INTO link VALUES ('v', 'a', 1, x'', x'')")
            raise ZeroDivisionError
        assert database.run("SELECT count(*) FROM link") == [(0,)]
        with database.transaction():
            database.run("INSERT INTO link VALUES ('v', 'a', 1, x'', x'')")
        assert database.run("SELECT visit FROM link WHERE account = ?", ("a",)) == [("v",)]
        assert list(database.each("SELECT visit FROM link")) == [("v",)] and not database.moved
        # Created once: books that are there are left alone.
        database.create((1, "kiosk", "USD"))
        assert database.run("SELECT * FROM book") == [(1, 1, "shop", "EUR")] and database.exists()
    with refused(f"{database.where}: cannot be written: Cannot operate on a closed database."), database.transaction():
        pass
    with (
        refused(f"{database.where}: cannot be read: Cannot operate on a closed database."),
        database.transaction(write=False),
    ):
        pass


def test_a_writer_has_a_file_to_itself_from_the_beginning_while_others_read(tmp_path: Path) -> None:
    first, second = (SQLiteDatabase(tmp_path / "x.sqlite", busy_max_s=0.01) for _ in range(2))
    with contextlib.closing(first), contextlib.closing(second):
        first.create((1, "shop", "EUR"))
        with first.transaction():
            with refused(f"{second.where}: cannot be written: database is locked"), second.transaction():
                pass
            with second.transaction(write=False):
                assert second.exists()
        with first.transaction(write=False), second.transaction():
            assert first.exists()


def test_a_file_that_is_read_is_not_written(path: Path) -> None:
    database = SQLiteDatabase(path, read_only=True)
    with contextlib.closing(database), pytest.raises(LedgerError, match=r"readonly|read-only"):
        database.run("DELETE FROM link")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "want the books, got an empty file"),
        (b"SQLite format 3\0" + bytes(83), "want the books, got another kind of file"),
        (b"SQLite format 4\0" + bytes(184), "want the books, got another kind of file"),
    ],
)
def test_what_is_no_database_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    with refused(f"{path}: {fault}"):
        read_sqlite(path, "the books", open_here=False)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with refused(f"{path}: the books do not exist; `fusion run` and `fusion serve` create them"):
        read_sqlite(path, "the books", open_here=False)
    with refused(f"{tmp_path}: want a regular file that holds the books, got something else"):
        read_sqlite(tmp_path, "the books", open_here=False)
    path.write_bytes(b"x" * 200)
    with refused(f"{path / 'y'}: cannot be read as the books: Not a directory"):
        read_sqlite(path / "y", "the books", open_here=False)
    with refused(f"{path}: cannot be read as the vault: file is not a database"):
        read_sqlite(path, "the vault", open_here=True)


def test_a_copy_that_is_shorter_than_its_head_states_is_incomplete(path: Path) -> None:
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    path.write_bytes(data[:-page])
    with refused(f"{path}: this copy is incomplete: want {len(data)} bytes, got {len(data) - page}"):
        Ledger.open(path, STORE, read_only=True)
    path.write_bytes(data)
    with Ledger.open(path, STORE, read_only=True) as ledger:
        assert ledger.head().seq == 2


def test_a_copy_without_its_log_is_incomplete(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with Ledger.open(path, STORE) as ledger:
        ledger.open_visit("v3", None, T_NS)
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
    with Ledger.open(copy / "ledger.sqlite", STORE, read_only=True) as whole:
        assert whole.head().seq == 3, "with its log it is whole"
    (copy / "ledger.sqlite-wal").unlink()
    with refused(
        f"{copy / 'ledger.sqlite'}: this copy is incomplete: it was made while the books were in use, and "
        "ledger.sqlite-wal with the newest rows is not beside it; make copies with `fusion backup`"
    ):
        Ledger.open(copy / "ledger.sqlite", STORE, read_only=True)


def test_what_a_crash_left_has_to_be_completed_first(path: Path) -> None:
    journal = path.with_name("ledger.sqlite-journal")
    journal.touch()
    Ledger.open(path, STORE, read_only=True).close()
    journal.write_bytes(b"x")
    with refused(f"{path}: a crash left ledger.sqlite-journal; start the store once, which completes it"):
        Ledger.open(path, STORE, read_only=True)


def test_a_change_while_a_file_is_read_without_a_lock_is_noticed(path: Path) -> None:
    with Ledger.open(path, STORE, read_only=True) as reading:
        assert reading.database.moved is False
        os.utime(path, ns=(1, 1))
        assert reading.database.moved is True
    before = stamp(path)
    assert len(before) == 2 and before[0] is not None and before[1] is None
    assert before[0] == (path.stat().st_size, path.stat().st_mtime_ns)
    path.with_name("ledger.sqlite-wal").write_bytes(b"123")
    after = stamp(path)
    assert after[0] == before[0] and after[1] is not None and after[1][0] == 3
    with Ledger.open(path, STORE) as writing, Ledger.open(path, STORE, read_only=True) as beside:
        writing.open_visit("v3", None, T_NS)
        assert beside.database.moved is False and beside.head().seq == 3, "readers and writers know of each other"


# ---- profiles --------------------------------------------------------------------------------------------------------


def test_how_a_customer_answered_is_kept_until_it_is_old(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "profiles.sqlite")
    assert profiles.answering("alice") == Answering(1.0, 1.0, 0, 0)
    profiles.keep_answering("alice", Answering(2.0, 3.0, 5, T_NS))
    profiles.keep_answering("alice", Answering(1.5, 3.0, 6, T_NS + 1))
    profiles.keep_answering("bob", Answering(0.5, 1.0, 7, T_NS + 2))
    assert profiles.answering("alice") == Answering(1.5, 3.0, 6, T_NS + 1)
    profiles.drop_answering(T_NS + 1)
    assert profiles.answering("alice").seq == 6
    profiles.drop_answering(T_NS + 2)
    assert profiles.answering("alice") == Answering() and profiles.answering("bob").seq == 7
    # Answers alone are something to erase.
    assert profiles.erase("bob") and not profiles.erase("bob") and profiles.answering("bob") == Answering()
    profiles.close()


def test_a_reader_of_an_old_state_is_reported_when_a_profile_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profiles.sqlite"
    monkeypatch.setattr("fusion.money.profiles.open_sqlite", functools.partial(open_sqlite, busy_max_s=0.01))
    profiles = Profiles(path)
    profiles.consent("alice")
    profiles.consent("alice")
    assert profiles.accounts() == ["alice"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM purchase").fetchall()
        with refused(
            "the profile is deleted, but the write-ahead log of the profiles still holds it while another process "
            "reads it; call again once that reader has finished", FusionError,
        ):  # fmt: skip
            profiles.erase("alice")
    assert profiles.erase("alice") is False and profiles.accounts() == []
    with refused(f"{tmp_path}: want a regular file to keep purchase profiles in, got something else"):
        Profiles(tmp_path)
