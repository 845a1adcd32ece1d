"""What a backup copies, lists and leaves out, file by file; and each refusal in its own words."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from money.books import STORE, T_NS, TWO, receipt

from fusion.errors import LedgerError
from fusion.files.private import locked
from fusion.files.secrets import KEY_FILE, derived, fingerprint, store_key
from fusion.money.backup import Backup, back_up, check, is_key, newer_entries, restore, unsettled
from fusion.money.ledger import Ledger
from fusion.money.schema import SQLITE_SCHEMA

KEY = bytes(range(32))
HEAD = ("shop", "EUR", 3, "ff")


def digest(data: bytes) -> tuple[str, int]:
    return hashlib.sha256(data).hexdigest(), len(data)


def raw(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(LedgerError) as raised:
        yield
    assert str(raised.value) == message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder without books."""
    made = tmp_path / "shop"
    made.mkdir(mode=0o700)
    (made / "evidence.jsonl").write_bytes(b"{}\n")
    return made


@pytest.fixture
def books(folder: Path) -> Path:
    """Books of one visit in a store's folder."""
    with Ledger.open(folder / "shop.sqlite", STORE) as ledger:
        ledger.open_visit("v1", "alice", T_NS)
        ledger.post_receipt(receipt("v1", *TWO))
    return folder / "shop.sqlite"


# ---- the manifest ----------------------------------------------------------------------------------------------------


def test_a_manifest_is_json_with_a_seal_by_the_stores_key() -> None:
    made = Backup(7, {"a/b": ("dd", 5)}, {"shop.sqlite": HEAD}, {KEY_FILE: "f1"})
    fields = {
        "format": 1,
        "made_ns": 7,
        "files": {"a/b": ["dd", 5]},
        "books": {"shop.sqlite": ["shop", "EUR", 3, "ff"]},
        "keys": {"store.key": "f1"},
    }
    assert made.text(None) == json.dumps(fields, indent=1) + "\n"
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    seal = hmac.new(derived(KEY, "backup"), text.encode(), "sha256").hexdigest()
    assert json.loads(made.text(KEY)) == {**fields, "seal": seal}


def test_a_manifest_comes_back_with_the_key_that_sealed_it_or_without(tmp_path: Path) -> None:
    made = Backup(7, {"a/b": ("dd", 5)}, {"shop.sqlite": HEAD}, {KEY_FILE: "f1"})
    for sealed, key in ((KEY, KEY), (KEY, None), (None, KEY), (None, None)):
        (tmp_path / "manifest.json").write_text(made.text(sealed))
        assert Backup.read(tmp_path, key) == made
    (tmp_path / "manifest.json").write_text(made.text(bytes(32)))
    with refused(f"{tmp_path / 'manifest.json'}: was changed, or sealed with another store's key"):
        Backup.read(tmp_path, KEY)
    # A field that the seal does not know changes nothing; one that it covers does.
    (tmp_path / "manifest.json").write_text(made.text(KEY).replace('"made_ns": 7', '"made_ns": 8'))
    with refused(f"{tmp_path / 'manifest.json'}: was changed, or sealed with another store's key"):
        Backup.read(tmp_path, KEY)
    assert Backup(7, {}, {}).keys == {}


FIELDS: dict[str, Any] = {"format": 1, "made_ns": 7, "files": {}, "books": {}, "keys": {}}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("1", "AttributeError"),
        ("{}", "KeyError"),
        ("[" * 100_000, "RecursionError"),
        (json.dumps({**FIELDS, "made_ns": "soon"}), "ValueError"),
        (json.dumps({**FIELDS, "files": {"a": ["dd"]}}), "ValueError"),
        (json.dumps({**FIELDS, "files": {"a": 5}}), "TypeError"),
        (json.dumps({**FIELDS, "books": {"a": ["shop", "EUR", 1]}}), "ValueError"),
        (json.dumps({**FIELDS, "keys": []}), "AttributeError"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with refused(f"{tmp_path / 'manifest.json'}: want the manifest of a backup, got: {kind}"):
        Backup.read(tmp_path)


def test_a_manifest_is_missing_of_another_format_or_names_other_folders(tmp_path: Path) -> None:
    with refused(f"{tmp_path}: holds no manifest.json, so it is no backup, or one that was not finished"):
        Backup.read(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**FIELDS, "format": 2}))
    with refused(f"{tmp_path / 'manifest.json'}: want format 1, got 2"):
        Backup.read(tmp_path)
    for name in ("/etc/passwd", "../x", "a/../../x"):
        (tmp_path / "manifest.json").write_text(json.dumps({**FIELDS, "files": {"fine": ["d", 1], name: ["d", 1]}}))
        with refused(f"{tmp_path / 'manifest.json'}: names a file outside the backup"):
            Backup.read(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**FIELDS, "files": {"a..b/c": ["d", "1"]}}))
    assert Backup.read(tmp_path).files == {"a..b/c": ("d", 1)}


def test_keys_are_known_by_their_names() -> None:
    assert [name for name in ("store.key", "a/app.pem", "key", "pem", "app.pem.txt", "x.keys") if is_key(name)] == [
        "store.key", "a/app.pem",
    ]  # fmt: skip


# ---- making one ------------------------------------------------------------------------------------------------------


def test_files_are_copied_books_first_and_each_is_listed(books: Path, tmp_path: Path) -> None:
    folder, backup = books.parent, tmp_path / "new" / "backup"
    (folder / "snapshot").write_bytes(b"state")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "b.json").write_bytes(b"2")
    (folder / "deep" / "a.json").write_bytes(b"1")
    (folder / "bare" / "inside").mkdir(parents=True)
    (folder / "bare" / "inside" / "c.json").write_bytes(b"3")
    (folder / "app.pem").write_bytes(b"key")
    steps: list[str] = []
    made = back_up(folder, backup, T_NS, step=steps.append)
    assert steps == [
        "snapshot", "shop.sqlite", "app.pem", "bare/inside/c.json", "deep/a.json", "deep/er/b.json", "evidence.jsonl",
        "store.key", "manifest.json",
    ]  # fmt: skip
    copied = raw(backup)
    manifest = copied.pop("manifest.json")
    assert made.files == {name: digest(data) for name, data in copied.items()} and made.made_ns == T_NS
    assert list(made.files) == [step for step in steps if step not in ("app.pem", "store.key", "manifest.json")]
    assert copied["deep/er/b.json"] == b"2" and copied["snapshot"] == b"state"
    with Ledger.open(books, STORE) as ledger:
        head = ledger.head()
    assert made.books == {"shop.sqlite": ("shop", "EUR", 2, head.sha256)}
    key = store_key(folder)
    assert made.keys == {"app.pem": "", "store.key": fingerprint(key)}
    assert manifest.decode() == made.text(key) and Backup.read(backup, key) == made
    modes = {path.stat().st_mode & 0o777 for path in (backup, *backup.rglob("*")) if path.is_dir()}
    assert modes == {0o700} and (backup / "manifest.json").stat().st_mode & 0o777 == 0o600
    # One file, without a log beside it, that no other program has to complete.
    assert copied["shop.sqlite"][18:20] == b"\1\1"


def test_keys_are_copied_on_request_only(books: Path, tmp_path: Path) -> None:
    (books.parent / "app.pem").write_bytes(b"key")
    made = back_up(books.parent, tmp_path / "backup", T_NS, with_keys=True)
    assert sorted(made.files) == ["app.pem", "evidence.jsonl", "shop.sqlite", "store.key"]
    assert (tmp_path / "backup" / "store.key").read_bytes() == (books.parent / "store.key").read_bytes()


def test_what_belongs_to_a_running_process_stays_where_it_is(folder: Path, tmp_path: Path) -> None:
    for name in ("lock", "a-wal", "a-shm", "a-journal", "a.new", "a.sock", "kept.news", "lock.txt", "deep"):
        (folder / name).write_bytes(b"1")
    (folder / "link").symlink_to(folder / "evidence.jsonl")
    os.mkfifo(folder / "pipe")
    made = back_up(folder, tmp_path / "backup", T_NS)
    assert list(made.files) == ["deep", "evidence.jsonl", "kept.news", "lock.txt"]
    # No key of the store: nothing seals the manifest, and no books are in it.
    assert made.keys == {} and made.books == {}
    assert (tmp_path / "backup" / "manifest.json").read_text() == made.text(None)


def test_a_destination_is_new_and_lies_elsewhere(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    with refused(f"{missing}: does not exist; pass the folder of a store, such as serve/SHOP"):
        back_up(missing, tmp_path / "backup", T_NS)
    (tmp_path / "file").write_bytes(b"")
    with refused(f"{tmp_path / 'file'}: is not empty; pass a new folder for each backup"):
        back_up(folder, tmp_path / "file", T_NS)
    with refused(f"{folder}: is not empty; pass a new folder for each backup"):
        back_up(folder, folder, T_NS)
    with refused(f"{folder / 'x'}: lies inside the folder that is backed up; pass a folder elsewhere"):
        back_up(folder, folder / "x", T_NS)
    (tmp_path / "empty").mkdir()
    assert list(back_up(folder, tmp_path / "empty", T_NS).files) == ["evidence.jsonl"]


def test_a_file_that_is_replaced_meanwhile_is_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "receipt.txt").write_bytes(b"1")
    gone = {"receipt.txt": (folder / "receipt.txt").unlink}
    made = back_up(folder, tmp_path / "backup", T_NS, step=lambda name: gone[name]() if name in gone else None)
    assert list(made.files) == ["evidence.jsonl"]


def log(state: bytes) -> bytes:
    return json.dumps({"after": hashlib.sha256(state).hexdigest()}).encode() + b"\n"


@pytest.mark.parametrize(
    ("snapshot", "scans", "new", "kept"),
    [
        (b"s2", log(b"s2"), None, log(b"s2")),
        (b"s2", log(b"s1"), log(b"s2"), log(b"s2")),
        (b"s2", log(b"s2"), log(b"s1"), log(b"s2")),
        (b"s2", None, None, None),
        # A log of another snapshot, though a later line names this one: the store copes with it.
        (b"s2", log(b"s1") + log(b"s2"), None, log(b"s1") + log(b"s2")),
        (b"s2", log(b"s1"), log(b"s0"), log(b"s1")),
        (None, log(b"s1"), log(b"s2"), log(b"s1")),
    ],
)
def test_a_snapshot_comes_with_the_log_that_names_it(
    folder: Path, tmp_path: Path, snapshot: bytes | None, scans: bytes | None, new: bytes | None, kept: bytes | None
) -> None:
    for name, data in (("snapshot", snapshot), ("scans.jsonl", scans), ("scans.new", new)):
        if data is not None:
            (folder / name).write_bytes(data)
    made = back_up(folder, tmp_path / "backup", T_NS)
    copied = raw(tmp_path / "backup")
    assert (copied.get("snapshot"), copied.get("scans.jsonl")) == (snapshot, kept)
    assert made.files.get("scans.jsonl") == (None if kept is None else digest(kept))


class Reads:
    """Counts how often the snapshot is read, and lets something happen before each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Any = lambda n: None) -> None:
        self.n, real = 0, Path.read_bytes

        def read(path: Path) -> bytes:
            if path.name == "snapshot":
                self.n += 1
                before(self.n)
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", read)


def test_a_log_that_stays_another_one_is_waited_for_three_times(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "snapshot").write_bytes(b"s2")
    (folder / "scans.jsonl").write_bytes(log(b"s1"))
    reads = Reads(monkeypatch)
    back_up(folder, tmp_path / "backup", T_NS)
    assert reads.n == 3


def test_a_snapshot_that_is_replaced_each_time_is_no_backup(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "snapshot").write_bytes(b"s")
    (folder / "scans.jsonl").write_bytes(log(b"another"))
    reads = Reads(monkeypatch, lambda n: (folder / "snapshot").write_bytes(b"s%d" % n))
    with refused(f"{folder}: the snapshot was replaced each time it was read; try again"):
        back_up(folder, tmp_path / "backup", T_NS)
    assert reads.n == 20 and not (tmp_path / "backup" / "manifest.json").exists()


def test_a_snapshot_that_is_gone_for_a_moment_is_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "snapshot").write_bytes(b"s2")
    (folder / "scans.jsonl").write_bytes(log(b"s2"))

    def missing(n: int) -> None:
        if n == 1:
            raise FileNotFoundError

    reads = Reads(monkeypatch, missing)
    assert "scans.jsonl" in back_up(folder, tmp_path / "backup", T_NS).files and reads.n == 2


def test_other_databases_are_copied_and_are_no_books(folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "moments.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE entry (a)")
        other.execute("INSERT INTO entry VALUES (5)")
        # Rows in the log alone, of a process that has the file open.
        made = back_up(folder, tmp_path / "backup", T_NS)
    assert made.books == {} and list(made.files) == ["moments.sqlite", "evidence.jsonl"]
    with contextlib.closing(sqlite3.connect(tmp_path / "backup" / "moments.sqlite")) as copy:
        assert copy.execute("SELECT a FROM entry").fetchall() == [(5,)]
    assert not (tmp_path / "backup" / "moments.sqlite-wal").exists()
    assert (tmp_path / "backup" / "moments.sqlite").stat().st_mode & 0o777 == 0o600


def test_books_are_known_by_their_tables_and_their_identity(folder: Path, tmp_path: Path) -> None:
    for name, identity in (("begun", None), ("empty", "INSERT INTO book VALUES (1, 1, 'shop', 'EUR')")):
        with contextlib.closing(sqlite3.connect(folder / f"{name}.sqlite", isolation_level=None)) as made:
            made.executescript(SQLITE_SCHEMA)
            if identity:
                made.execute(identity)
    assert back_up(folder, tmp_path / "backup", T_NS).books == {"empty.sqlite": ("shop", "EUR", 0, "")}


def test_a_damaged_database_is_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "profiles.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE purchase (a TEXT)")
        database.executemany("INSERT INTO purchase VALUES (?)", [("x" * 100,)] * 400)
        database.commit()
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 3 * 4096 + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(LedgerError) as raised:
        back_up(folder, tmp_path / "backup", T_NS)
    assert str(raised.value).startswith(f"{path}: is damaged: ") and "damaged: None" not in str(raised.value)
    assert not (tmp_path / "backup" / "manifest.json").exists()


# ---- putting one back ------------------------------------------------------------------------------------------------


@pytest.fixture
def backup(books: Path, tmp_path: Path) -> Path:
    (books.parent / "receipts" / "old").mkdir(parents=True)
    (books.parent / "receipts" / "old" / "r.json").write_bytes(b"1")
    back_up(books.parent, tmp_path / "backup", T_NS)
    return tmp_path / "backup"


def test_a_backup_is_put_back_file_by_file_and_takes_its_name_at_the_end(
    backup: Path, books: Path, tmp_path: Path
) -> None:
    steps: list[str] = []
    seen: list[tuple[bool, list[str], Backup]] = []

    def complete(place: Path, made: Backup) -> None:
        (place / "added.txt").write_bytes(b"by the caller")
        seen.append(((tmp_path / "again").exists(), sorted(raw(place)), made))

    again, key = tmp_path / "again", books.parent / KEY_FILE
    made = restore(backup, again, key_file=key, complete=complete, step=steps.append)
    names = ["shop.sqlite", "evidence.jsonl", "receipts/old/r.json"]
    assert steps == [*(f"check {name}" for name in names), *names, "rename"]
    assert seen == [(False, sorted([*names, "store.key", "added.txt"]), made)]
    assert raw(again) == {
        **{name: (backup / name).read_bytes() for name in names},
        "added.txt": b"by the caller", "store.key": key.read_bytes(),
    }  # fmt: skip
    assert (again / "store.key").stat().st_mode & 0o777 == 0o600 == (again / "shop.sqlite").stat().st_mode & 0o777
    assert (again / "receipts").stat().st_mode & 0o777 == 0o700 == again.stat().st_mode & 0o777
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "backup", "shop"], "nothing is left beside it"


def test_without_a_key_it_is_put_back_without_one(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    restore(backup, tmp_path / "again")
    assert not (tmp_path / "again" / KEY_FILE).exists() and (tmp_path / "again" / "shop.sqlite").exists()


def test_the_key_of_a_backup_that_has_it_checks_the_manifest(books: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    made = back_up(books.parent, backup, T_NS, with_keys=True)
    restore(backup, tmp_path / "again")
    assert (tmp_path / "again" / KEY_FILE).read_bytes() == (books.parent / KEY_FILE).read_bytes()
    (backup / "manifest.json").write_text(made.text(bytes(32)))
    with refused(f"{backup / 'manifest.json'}: was changed, or sealed with another store's key"):
        restore(backup, tmp_path / "third")


def test_a_folder_that_could_not_be_completed_is_none(backup: Path, tmp_path: Path) -> None:
    def fails(place: Path, made: Backup) -> None:
        raise LedgerError("no")

    with refused("no"):
        restore(backup, tmp_path / "deep" / "again", complete=fails)
    assert list((tmp_path / "deep").iterdir()) == []


def test_each_refusal_to_restore_is_in_words(backup: Path, books: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    (tmp_path / "key").write_text("00" * 32 + "\n")
    (tmp_path / "key").chmod(0o600)
    manifest = Backup.read(backup)
    # A manifest without a seal still names the key that its store had.
    (backup / "manifest.json").write_text(manifest.text(None))
    with refused(f"{backup}: was made of a store with another key, {manifest.keys[KEY_FILE]}"):
        restore(backup, again, key_file=tmp_path / "key")
    for keys in ({}, {KEY_FILE: ""}):
        (backup / "manifest.json").write_text(Backup(7, manifest.files, manifest.books, keys).text(None))
        restore(backup, tmp_path / f"with {keys}", key_file=tmp_path / "key")
    with refused(f"{backup}: want no URL, since its books are a file"):
        restore(backup, again, url="postgresql://localhost/x")
    again.write_bytes(b"")
    used = "is not empty; move it away and keep it: it may hold what the backup lacks"
    with refused(f"{again}: {used}"):
        restore(backup, again)
    folder = books.parent
    with refused(f"{folder}: {used}"):
        restore(backup, folder)
    (folder / "lock").touch()
    with refused(f"{folder}: {used}"):
        restore(backup, folder)
    with locked(folder / "lock"), refused(f"{folder}: a running store uses it; stop it first"):
        restore(backup, folder)
    (backup / "evidence.jsonl").write_bytes(b"{}\r")
    changed = f"{backup / 'evidence.jsonl'}: is missing or was changed since the backup was made"
    with refused(changed):
        restore(backup, tmp_path / "new")
    assert list(check(backup)) == [changed] and not (tmp_path / "new").exists()


def test_a_check_names_every_file_that_is_not_as_it_was(backup: Path) -> None:
    assert list(check(backup)) == [] == list(check(backup, None))
    (backup / "shop.sqlite").unlink()
    (backup / "receipts" / "old" / "r.json").write_bytes(b"11")
    assert list(check(backup)) == [
        f"{backup / name}: is missing or was changed since the backup was made"
        for name in ("shop.sqlite", "receipts/old/r.json")
    ]
    assert list(check(backup, KEY)) == [f"{backup / 'manifest.json'}: was changed, or sealed with another store's key"]
    sha256, n_bytes = digest((backup / "evidence.jsonl").read_bytes())
    for stated, n_faults in (((sha256, n_bytes), 0), ((sha256, n_bytes + 1), 1)):
        (backup / "manifest.json").write_text(Backup(7, {"evidence.jsonl": stated}, {}).text(None))
        assert len(list(check(backup))) == n_faults
    (backup / "manifest.json").write_text(Backup(7, {"receipts": (sha256, n_bytes)}, {}).text(None))
    assert len(list(check(backup))) == 1, "a folder is no file"
    (backup / "manifest.json").unlink()
    (fault,) = check(backup)
    assert fault == f"{backup}: holds no manifest.json, so it is no backup, or one that was not finished"


# ---- what a person has to settle -------------------------------------------------------------------------------------


def test_what_was_under_way_is_named(books: Path) -> None:
    assert unsettled(books) == []
    with Ledger.open(books, STORE) as ledger:
        for visit in ("v2", "v3"):
            ledger.open_visit(visit, None, T_NS)
        for visit, name, kind in (
            ("v9", "payment 1", "payment asked"), ("v1", "mail 0", "mail due"), ("v1", "payment 1", "payment asked"),
            ("v1", "question", "payment in question"),
        ):  # fmt: skip
            ledger.record(visit, name, kind, T_NS, {})
        ledger.record("v9", "payment 1/answer", "authorised", T_NS, {})
    assert unsettled(books) == [
        "2 visits were open", "visit v1: mail due, without an answer", "visit v1: payment asked, without an answer",
    ]  # fmt: skip


def test_visits_with_entries_after_a_head_are_named(books: Path) -> None:
    assert newer_entries(books.parent / "none.sqlite", HEAD) == []
    with Ledger.open(books, STORE) as ledger:
        head = ledger.head()
        known = ("shop", "EUR", head.seq, head.sha256)
        assert newer_entries(books, known) == []
        ledger.open_visit("v2", None, T_NS)
        ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
        ledger.post_receipt(receipt("v2", *TWO, account=None))
    newer = ["visit v2: visit opened, receipt settled", "visit v1: decision waive"]
    assert newer_entries(books, known) == newer
    # Of an empty backup everything is newer.
    first = "visit v1: visit opened, receipt settled, decision waive"
    assert newer_entries(books, ("shop", "EUR", 0, "")) == [first, newer[0]]
    for other in (("shop", "EUR", head.seq, "00" * 32), ("shop", "EUR", 99, head.sha256)):
        with refused(f"{books}: are not the books that the backup was made of"):
            newer_entries(books, other)
    books.write_bytes(b"x" * 200)
    with refused(f"{books}: want the books, got another kind of file"):
        newer_entries(books, known)
