"""Where books lie and who may carry them: paths and URLs, servers, checkpoints, and what verification says."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from money.books import STORE, T_NS, TWO, make_store, receipt

from fusion.errors import ConfigError, FusionError, LedgerError
from fusion.files.secrets import KEY_FILE, derived, fingerprint, store_key
from fusion.money.checkpoint import Head, SignedHead
from fusion.money.checkpoints import Checkpoints, checkpoint_name, signing_key, verifying_key
from fusion.money.databases import books_folder, books_path, open_database
from fusion.money.history import AUTHORISED, RECEIVABLE
from fusion.money.ledger import Ledger
from fusion.money.moments import Moment, Moments, drop_moments, kept_of
from fusion.money.payments import Checkout
from fusion.money.postgres import PostgresDatabase, RemoteRows, escaped, first_line, schema_of, unescaped
from fusion.money.providers import InProcessProvider
from fusion.money.retailers import Chain, Retailer, open_books_of
from fusion.money.schema import COLUMNS, INSERT, Definition, definitions_fault, postgres_definitions, statements
from fusion.money.server_urls import checked_server
from fusion.money.unfinished import unfinished
from fusion.money.vault import Holder, seal_of
from fusion.money.verifying import verify_books
from fusion.results import Picked, PutBack
from fusion.store.models import PaymentPolicy

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")

S_NS = 10**9


@contextlib.contextmanager
def refused(message: str, kind: type[FusionError] = LedgerError) -> Iterator[None]:
    with pytest.raises(kind) as raised:
        yield
    assert str(raised.value) == message


# ---- paths and URLs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b.sqlite", "a/b.sqlite"), ("/a/b.sqlite", "/a/b.sqlite"), ("sqlite:///a/b.sqlite", "a/b.sqlite"),
        ("sqlite:////a/b%20c.sqlite", "/a/b c.sqlite"), ("a:b", "a:b"),
    ],
)  # fmt: skip
def test_a_file_of_books_is_a_path_or_a_url(text: str, path: str) -> None:
    assert books_path(text) == Path(path) and books_folder(text, None) == Path(path).parent
    assert books_folder("postgresql://h/d", "/x/vault.sqlite") == Path("/x")


@pytest.mark.parametrize("url", ["oracle://u:tiger@h/x", "sqlite://host/x", "sqlite://", "sqlite:///", "mysql://h/d"])
def test_other_urls_are_refused_by_their_scheme_alone(url: str) -> None:
    with refused(
        "books: want a path, sqlite:///path or postgresql://server/database?sslmode=verify-full, got a URL of scheme "
        f"{url.partition(':')[0]!r}"
    ):
        books_path(url)


def test_books_on_a_server_have_a_vault_of_their_own_and_files_hold_theirs(tmp_path: Path) -> None:
    for url in ("postgresql://h/d", "postgres://h/d"):
        with refused("books in PostgreSQL need a file for the vault; pass --vault FILE (Python: vault=path)"):
            open_database(url, "shop", None)
    with refused("books in SQLite want no file for the vault, since they hold it themselves, got one"):
        open_database(tmp_path / "x.sqlite", "shop", tmp_path / "vault.sqlite")
    assert list(tmp_path.iterdir()) == []


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://u:secret@localhost/books", "postgresql://localhost/books"),
        ("postgresql://127.0.0.1:5433/books", "postgresql://127.0.0.1/books"),
        ("postgresql://[::1]/books", "postgresql://::1/books"),
        ("postgresql:///books?host=/run/postgresql", "postgresql:///books"),
        ("postgresql:///books?host=@abstract", "postgresql:///books"),
        ("postgresql://db.example/books?sslmode=verify-full", "postgresql://db.example/books"),
        ("postgresql://db.example/books?sslmode=verify-ca", "postgresql://db.example/books"),
        ("postgresql://db.example/books?hostaddr=127.0.0.2", "postgresql://db.example/books"),
    ],
)
def test_a_server_is_this_machine_or_is_checked(monkeypatch: pytest.MonkeyPatch, url: str, where: str) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    assert checked_server(url) == where


@pytest.mark.parametrize(
    ("url", "environment", "mode"),
    [
        ("postgresql://u:secret@db.example/books", {}, "prefer"),
        ("postgresql://db.example/books?sslmode=require", {}, "require"),
        ("postgresql://db.example/books", {"PGSSLMODE": "allow"}, "allow"),
        ("postgresql://localhost,db.example/books", {}, "prefer"),
        ("postgresql://localhost/books?hostaddr=10.0.0.7", {}, "prefer"),
        ("postgresql:///books", {"PGHOST": "db.example"}, "prefer"),
        ("postgresql:///books", {"PGHOSTADDR": "10.0.0.7", "PGHOST": "localhost"}, "prefer"),
    ],
)
def test_a_server_elsewhere_wants_its_certificate_checked(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], mode: str
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LedgerError) as raised:
        checked_server(url)
    text = str(raised.value)
    assert "secret" not in text and text.endswith(
        f"/books: want ?sslmode=verify-full for a server on another machine, got sslmode={mode}: whoever answers there "
        "could read and answer for it (sslrootcert=FILE names your own authority)"
    )
    if "PGSSLMODE" not in environment:
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        assert ("sslmode" in url) or checked_server(url)


def test_a_url_that_cannot_be_read_is_named_without_its_password() -> None:
    with pytest.raises(LedgerError) as raised:
        checked_server("postgresql://u:secret@localhost/books?nonsense=1")
    assert str(raised.value).startswith("postgresql://localhost/books: the URL cannot be read: ")
    assert "nonsense" in str(raised.value) and "secret" not in str(raised.value)


def test_names_and_texts_that_postgresql_can_hold() -> None:
    assert schema_of("shop_1") == "books_shop_1" and schema_of("a" * 40) == "books_" + "a" * 40
    for store in ("a" * 41, "Shop", "shop-1", "", "shöp"):
        assert len(schema_of(store)) == len("books_") + 32 and schema_of(store) != schema_of(f"{store}x")
    for text in ("", "plain", "\x00", "\x01", "\x010", "a\x00b\x01\x01\x00c", "\x01\x00"):
        assert "\x00" not in escaped(text) and unescaped(escaped(text)) == text
    assert escaped("\x00") == "\x010" and escaped("\x01") == "\x01\x01" and escaped("plain") == "plain"
    assert escaped(5) == 5 == unescaped(5) and unescaped(memoryview(b"ab")) == b"ab"
    assert first_line(ValueError("one\ntwo")) == "ValueError: one" and first_line(ValueError()) == "ValueError: "
    assert first_line(ValueError("\n  one \ntwo")) == "ValueError: one "


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_key(tmp_path)
    (tmp_path / "key.pem").write_bytes(b"x")
    uses: list[tuple[str, str, Callable[[], object]]] = [
        ("psycopg", "postgres", lambda: checked_server("postgresql://localhost/d")),
        ("psycopg", "postgres", lambda: PostgresDatabase("postgresql://localhost/d", "shop", tmp_path / "v.sqlite")),
        ("psycopg", "postgres", lambda: RemoteRows("postgresql://localhost/d", "shop")),
        ("cryptography.hazmat.primitives", "gate", lambda: signing_key(tmp_path)),
        ("cryptography.hazmat.primitives", "gate", lambda: verifying_key(tmp_path, tmp_path / "key.pem")),
    ]
    for package, extra, use in uses:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(FusionError) as raised:
                use()
            assert str(raised.value) == f"want the package {package}: pip install 'storefusion[{extra}]'"


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_statements_of_a_script_are_whole() -> None:
    script = "CREATE TABLE a (b);\n-- a remark\nCREATE TRIGGER t BEFORE INSERT ON a\nBEGIN SELECT 1;\nEND;\nSELECT 1"
    found = list(statements(script))
    assert [one.strip().splitlines()[-1] for one in found] == ["CREATE TABLE a (b);", "END;"]
    assert "".join(found) == script.removesuffix("SELECT 1")


def test_definitions_that_differ_are_named() -> None:
    trigger, function = Definition("trigger", "t"), Definition("function", "f")
    wanted = {trigger: "a", function: "b"}
    assert definitions_fault(wanted, dict(wanted)) is None
    assert definitions_fault(wanted, {**wanted, Definition("table", "x"): "c"}) is None, "what else is there"
    assert definitions_fault(wanted, {function: "b"}) == "schema: want the triggers ['t'], got []"
    more = {**wanted, Definition("trigger", "s"): "c"}
    assert definitions_fault(wanted, more) == "schema: want the triggers ['t'], got ['s', 't']"
    as_created = "want it as the books create it, got"
    assert definitions_fault(wanted, {**wanted, function: "c"}) == f"schema: function f: {as_created} another"
    assert definitions_fault(wanted, {trigger: "a"}) == f"schema: function f: {as_created} none"
    assert definitions_fault(wanted, {**wanted, trigger: ""}) == f"schema: trigger t: {as_created} another"


def test_what_postgresql_should_hold_of_the_books() -> None:
    found = postgres_definitions("books_shop")
    triggers = {name: text for (kind, name), text in found.items() if kind == "trigger"}
    assert sorted(triggers) == sorted(
        [f"{table}_{event}" for table in ("book", "entry", "posting") for event in ("update", "delete", "truncate")]
        + ["entry_insert", "posting_insert"]
    )
    assert triggers["entry_truncate"] == (
        "CREATE TRIGGER entry_truncate BEFORE TRUNCATE ON entry FOR EACH STATEMENT EXECUTE FUNCTION only_added()"
    )
    assert triggers["book_update"].endswith("ON book FOR EACH ROW EXECUTE FUNCTION only_added()")
    functions = {name: text for (kind, name), text in found.items() if kind == "function"}
    assert sorted(functions) == ["entry_at_the_end", "only_added", "posting_at_the_end"]
    assert functions["only_added"] == "plpgsql BEGIN RAISE EXCEPTION 'books are only added to'; END "
    assert functions["entry_at_the_end"].endswith("{search_path=books_shop}")
    assert INSERT["book"] == "INSERT INTO book (id, format_version, store, currency) VALUES (?, ?, ?, ?)"
    assert {table: INSERT[table].count("?") for table in COLUMNS} == {"book": 4, "entry": 7, "posting": 5}


# ---- checkpoints and verification ------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_signed_line(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    text = Head(7, "ab").checkpoint(key, T_NS, STORE, "f1")
    fields = json.loads(text)
    signature = bytes.fromhex(fields.pop("signature"))
    assert fields == {
        "seq": 7, "sha256": "ab", "t_ns": T_NS, "store": "shop", "currency": "EUR", "vault_key": "f1",
    }  # fmt: skip
    signed = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    key.public_key().verify(signature, b"fusion checkpoint 1\n" + signed)
    assert SignedHead.read(text, key.public_key(), STORE) == SignedHead(Head(7, "ab"), T_NS, "f1")
    assert Head.from_checkpoint(text, key.public_key(), STORE) == Head(7, "ab")
    assert json.loads(Head(7, "ab").checkpoint(key, T_NS, STORE))["vault_key"] == ""
    for other, wanted in ((make_store("kiosk"), "'kiosk' in EUR"), (make_store("shop", "USD"), "'shop' in USD")):
        with refused(f"checkpoint: want the books of {wanted}, got those of 'shop' in EUR"):
            SignedHead.read(text, key.public_key(), other)
    for bad, kind in (
        (text.replace("7", "8", 1), "InvalidSignature"), ("{", "JSONDecodeError"), ("[]", "AttributeError"),
        ("{}", "KeyError"), (text.replace('"signature":"', '"signature":"x'), "ValueError"),
    ):  # fmt: skip
        with refused(f"checkpoint: want it signed by this key, got: {kind}"):
            SignedHead.read(bad, key.public_key(), STORE)


def resigned(key: Any, **change: Any) -> str:
    fields = {"seq": 7, "sha256": "ab", "t_ns": T_NS, "store": "shop", "currency": "EUR", **change}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({**fields, "signature": key.sign(b"fusion checkpoint 1\n" + text.encode()).hex()})


def test_what_is_signed_must_make_sense_too() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    for seq in (0, 2**63 - 1):
        assert SignedHead.read(resigned(key, seq=seq), key.public_key(), STORE).head.seq == seq
    assert SignedHead.read(resigned(key), key.public_key(), STORE).vault_key == "", "as older ones are"
    for change in ({"seq": -1}, {"seq": 2**63}, {"t_ns": 2**63}, {"seq": "7"}):
        with refused("checkpoint: want it signed by this key, got: EntryError"):
            SignedHead.read(resigned(key, **change), key.public_key(), STORE)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "shop.sqlite", STORE) as ledger:
        ledger.open_visit("v1", "alice", T_NS)
        ledger.post_receipt(receipt("v1", *TWO))
    return tmp_path / "shop.sqlite"


def noted(path: Path, t_ns: int = T_NS) -> None:
    with Ledger.open(path, STORE) as ledger:
        Checkpoints(ledger, STORE, signing_key(path.parent), [path.parent]).write(t_ns)


def test_verification_compares_with_the_checkpoint_beside_the_books(books: Path, tmp_path: Path) -> None:
    alone = verify_books(books, STORE)
    assert (alone.fault, alone.n_entries, alone.sums) == (None, 2, {"EUR": 0})
    assert alone.notes == ("no checkpoint lies beside the books, so that a missing end would not be noticed",)
    noted(books)
    compared = verify_books(books, STORE)
    assert compared.fault is None
    assert compared.notes == ("compared with the checkpoint of entry 2, signed 2026-03-03 10:04 CET",)
    kept = tmp_path / "kept"
    kept.write_bytes((tmp_path / checkpoint_name(STORE)).read_bytes())
    assert verify_books(books, STORE, checkpoint=kept).notes == compared.notes
    # Without the store's key nothing is compared; one that a person named wants its key.
    (tmp_path / KEY_FILE).unlink()
    assert verify_books(books, STORE).notes == (
        f"{tmp_path / checkpoint_name(STORE)} was not compared: the store's key is not beside it; pass --key",
        "the vault's seals were not checked: the store's key is not beside it",
    )
    with refused(f"{kept}: want the key that signed it; pass --key"):
        verify_books(books, STORE, checkpoint=kept)
    public = tmp_path / f"{checkpoint_name(STORE)}.pub"
    assert verify_books(books, STORE, key=public).notes[0] == compared.notes[0]


def test_lost_entries_show_beside_a_checkpoint(books: Path, tmp_path: Path) -> None:
    before = books.read_bytes()
    with Ledger.open(books, STORE) as ledger:
        ledger.open_visit("v2", None, T_NS)
    noted(books)
    books.write_bytes(before)
    assert verify_books(books, STORE).fault == "entry 3: missing, the head that was kept is 3"


def test_another_key_of_the_vault_shows_beside_a_checkpoint(books: Path, tmp_path: Path) -> None:
    noted(books)
    public = tmp_path / f"{checkpoint_name(STORE)}.pub"
    first = fingerprint(store_key(tmp_path, create=False))
    (tmp_path / KEY_FILE).write_text("ab" * 32 + "\n")
    # Whoever could write to the vault sealed its rows again, under a key of their own.
    new = store_key(tmp_path, create=False)
    with contextlib.closing(sqlite3.connect(books, isolation_level=None)) as stranger:
        row = stranger.execute("SELECT visit, account, enter_ns, entry FROM link").fetchone()
        stranger.execute("UPDATE link SET seal = ?", (seal_of(derived(new, "vault"), row),))
    assert verify_books(books, STORE, key=public).fault == (
        f"vault: was sealed with the store's key {first}, now with {fingerprint(new)}"
    )
    with Ledger.open(books, STORE) as ledger:
        request = {"by": "anna", "key": fingerprint(new), "rows": 1}
        ledger.record("vault", "resealed", "vault resealed", T_NS, request)
    found = verify_books(books, STORE, key=public)
    assert found.fault is None and found.notes[1] == (
        "entry 3: the store's key was lost, and anna answered for 1 rows of the vault that were sealed under a new "
        "one: what was changed in them before does not show"
    )


def test_books_that_change_each_time_they_are_read_cannot_be_verified(
    books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = [0]

    def moved(database: object) -> bool:
        n[0] += 1
        return n[0] < limit

    monkeypatch.setattr("fusion.money.sqlite.SQLiteDatabase.moved", property(moved))
    limit = 5
    assert verify_books(books, STORE).n_entries == 2 and n == [5]
    n[0], limit = 0, 99
    with refused(f"{books}: changed each time it was read; stop what writes to it, or verify a backup"):
        verify_books(books, STORE)
    assert n == [5]


# ---- chains ----------------------------------------------------------------------------------------------------------


def test_books_of_a_store_are_named_after_it(tmp_path: Path) -> None:
    with open_books_of(make_store("Shop-1_b"), tmp_path) as ledger:
        assert ledger.database.where == str(tmp_path / "Shop-1_b.sqlite")
    for name in ("a/b", "a.b", "..", "-", "a b"):
        with refused(f"store: want an id of letters, digits, - and _ to name files by, got {name!r}"):
            open_books_of(STORE.model_copy(update={"id": name}), tmp_path)
    with refused("books: want postgresql://...#FOLDER, the folder for the vaults, got none"):
        open_books_of(STORE, "postgresql://localhost/books")
    with pytest.raises(LedgerError, match="do not exist"):
        open_books_of(make_store("kiosk"), tmp_path, create=False)
    with pytest.raises(LedgerError, match="do not exist"):
        open_books_of(make_store("kiosk"), tmp_path, read_only=True)


def test_a_store_belongs_to_one_retailer(tmp_path: Path) -> None:
    shops = {name: make_store(name) for name in ("a", "b", "c")}
    north = Retailer(id="north", name="N", brand="N", stores=("a", "b"))
    south = Retailer(id="south", name="S", brand="S", stores=("c",))
    chain = Chain((north, south), {"north": (shops["a"], shops["b"]), "south": (shops["c"],)})
    assert [chain.retailer_of(shops[name]).id for name in "abc"] == ["north", "north", "south"]
    with pytest.raises(KeyError, match="d"):
        chain.retailer_of(make_store("d"))
    assert chain.folders == {} and chain.serving is None
    for store in shops.values():
        open_books_of(store, tmp_path).close()
    seen = [(retailer.id, store.id, ledger.database.read_only) for retailer, store, ledger in chain.books(tmp_path)]
    assert seen == [("north", "a", False), ("north", "b", False), ("south", "c", False)]
    assert all(ledger.database.read_only for _, _, ledger in chain.books(tmp_path, read_only=True))


CHAIN = """format_version = 1
[[retailer]]
id = "north"
name = "N"
brand = "N"
stores = ["shop", "{other}"]
[serve]
[[serve.store]]
store = "shop"
source = "mqtt"
[[serve.store]]
store = "{served}"
source = "mqtt"
"""


def test_what_does_not_fit_together_in_a_chain_is_named(tmp_path: Path) -> None:
    STORE.save(tmp_path / "shop")
    make_store("kiosk").save(tmp_path / "kiosk")
    STORE.save(tmp_path / "twin")
    file = tmp_path / "chain.toml"
    file.write_text(CHAIN.format(other="kiosk", served="kiosk"))
    chain = Chain.load(file)
    assert chain.folders == {"shop": tmp_path / "shop", "kiosk": tmp_path / "kiosk"} and chain.serving is not None
    assert [store.id for store in chain.stores["north"]] == ["shop", "kiosk"]
    for values, fault in (
        ({"other": "kiosk", "served": "kiosks"},
         "chain.toml: serve.store[1]: want a store of a retailer, got 'kiosks'"),
        ({"other": "twin", "served": "shop"}, "chain.toml: id of a store: want each once, got 'shop' 2 times"),
    ):  # fmt: skip
        file.write_text(CHAIN.format(**values))
        with refused(fault, ConfigError):
            Chain.load(file)
    make_store("stand").save(tmp_path / "stand")
    twice = '[[retailer]]\nid = "north"\nname = "M"\nbrand = "M"\nstores = ["stand"]\n'
    file.write_text(CHAIN.format(other="kiosk", served="shop") + twice)
    with refused("chain.toml: id of a retailer: want each once, got 'north' 2 times", ConfigError):
        Chain.load(file)
    file.write_text("floor = 1")
    with refused(f"{file} describes a store; pass a chain.toml, as docs/chain.md describes it", ConfigError):
        Chain.load(file)


# ---- what is still needed --------------------------------------------------------------------------------------------


def test_names_of_visits_that_are_not_done_are_kept(tmp_path: Path) -> None:
    store = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=5000)})
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        provider = InProcessProvider(lambda step, key: "decline" if "/v4/" in key else None)
        checkout = Checkout(ledger, provider, store)
        for name in ("p1", "p2", "p3", "p4", "p5", "p6", "p7"):
            ledger.hold(Holder(name, f"account {name}", "tok", None, T_NS))
        ledger.post_receipt(receipt("cash", *TWO, account="p9"))
        names = {"v0": "p0", "v1": "p1", "v2": "p2", "v3": "p3", "v4": "p4", "v5": "p5", "cash": "p9"}
        assert "p9" not in unfinished(ledger, names, {}, T_NS), "collected elsewhere, where no provider is asked"
        checkout.open_visit("v1", "p1", T_NS)
        ledger.post_receipt(receipt("v2", *TWO, account="p2", status="review"))
        for visit, name in (("v3", "p3"), ("v4", "p4")):
            checkout.receipt(receipt(visit, *TWO, account=name))
        checkout.admit("p6", T_NS)
        checkout.admit("p5", T_NS)
        checkout.open_visit("v5", "p5", T_NS)
        since = {"p5": T_NS, "p6": T_NS, "p7": T_NS, "p1": T_NS}
        late = T_NS + 120 * S_NS
        wanted = {
            "p0": "visit v0 is not in the books yet", "p1": "visit v1 is open", "p2": "visit v2 is in review",
            "p4": "visit v4 is not paid", "p5": "visit v5 is open", "p9": "visit cash is not paid",
            "p6": "an authorisation at the gate is not released yet",
        }  # fmt: skip
        assert unfinished(ledger, names, since, late) == wanted
        assert unfinished(ledger, names, since, late - 1) == {**wanted, "p7": "a person may be coming in"}
        assert unfinished(ledger, names, since, T_NS) == {**wanted, "p7": "a person may be coming in"}
        assert unfinished(ledger, names, since, T_NS - 1) == wanted, "a clock that went back keeps no name for ever"
        assert ledger.balances_of(RECEIVABLE) == {"cash": 697, "v4": 697}
        assert set(ledger.balances_of(AUTHORISED)) == {"p6", "v5"}


# ---- moments ---------------------------------------------------------------------------------------------------------


def test_a_visits_moments_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.money.moments.OF_A_VISIT_MAX", 3)
    moments = Moments(tmp_path / "moments.sqlite")
    for i in (4, 2, 5, 1, 3):
        moments.add(Picked(T_NS + i, "a", "g", i, "p", "v1", 0.9))
    moments.add(PutBack(T_NS, "b", "h", 2, "p", "v1", 0.9))
    assert moments.of("v1") == [
        Moment(T_NS, "b", "h", -2), Moment(T_NS + 1, "a", "g", 1), Moment(T_NS + 2, "a", "g", 2),
    ]  # fmt: skip
    assert moments.of("v2") == []
    assert moments.drop_before(T_NS + 1, dry_run=True) == 1 == moments.drop_before(T_NS + 1)
    assert moments.drop_before(T_NS + 1) == 0
    moments.close()
    with pytest.raises(LedgerError) as raised:
        moments.of("v1")
    assert str(raised.value).startswith(f"{tmp_path / 'moments.sqlite'}: moments cannot be read or written: ")
    assert drop_moments(tmp_path, T_NS + 3) == 2 and drop_moments(tmp_path / "none", T_NS) == 0
    with refused(f"{tmp_path}: want a regular file to keep moments of visits in, got something else"):
        Moments(tmp_path)


def test_what_a_visit_still_has_is_in_the_order_in_which_it_was_taken() -> None:
    taken = [Moment(1, "a", "g", 2), Moment(2, "b", "g", 1), Moment(3, "a", "h", 1)]
    one, two, three = Moment(1, "a", "g", 1), Moment(2, "b", "g", 1), Moment(3, "a", "h", 1)
    assert kept_of(taken) == {"g": [one, one, two], "h": [three]} and kept_of([]) == {}
    # Back to the plate that it came from, else the newest.
    assert kept_of([*taken, Moment(4, "a", "g", -1)])["g"] == [one, two]
    assert kept_of([*taken, Moment(4, "b", "g", -1)])["g"] == [one, one]
    assert kept_of([*taken, Moment(4, "c", "g", -2)])["g"] == [one]
    assert kept_of([*taken, Moment(4, "c", "x", -1)]).keys() == {"g", "h"}
    assert kept_of([*taken, Moment(4, "c", "h", -5), Moment(5, "a", "h", 1)])["h"] == [Moment(5, "a", "h", 1)]
