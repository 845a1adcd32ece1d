"""The vault: customers behind visits and pseudonyms, and nothing of them left once they are forgotten."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import DAY_NS, STORE, T_NS, TWO, receipt, stored_bytes

from fusion.commands.main import main
from fusion.errors import LedgerError
from fusion.files.private import locked
from fusion.money.ledger import Ledger
from fusion.money.resealing import Resealed, reseal, reseals
from fusion.money.vault import Holder


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        yield opened


def test_nothing_remains_of_forgotten_accounts(place: Place) -> None:
    rng = random.Random(7)
    alive: dict[str, int] = {}
    gone: list[str] = []
    with place.open(STORE) as ledger:
        for _ in range(4):
            with ledger.batch():
                for _ in range(200):
                    visit, t_ns = f"v{rng.random()}", T_NS + rng.randrange(10**9)
                    # Names of any length, so that rows move between pages.
                    account = "acc-" + "".join(rng.choices("abcdefghijkm", k=rng.randrange(16, 200)))
                    alive[account] = t_ns
                    ledger.open_visit(visit, account, t_ns)
                    if rng.random() < 0.5:
                        ledger.post_receipt(receipt(visit, *TWO, account=account, status="review"))
            cut = T_NS + rng.randrange(10**9)
            old = [account for account, t_ns in alive.items() if t_ns < cut]
            erased = rng.choice([account for account, t_ns in alive.items() if t_ns >= cut])
            assert ledger.unlink_before(cut) == len(old)
            assert ledger.unlink_account(erased) == 1
            gone += [*old, erased]
            for account in (*old, erased):
                del alive[account]
            kept = stored_bytes(place.folder)
            assert not [account for account in gone if account[:14].encode() in kept]
            assert all(account.encode() in kept for account in alive)
            assert ledger.verify() is None
        assert gone and {one.account for one in ledger.open_visits()} <= {None, *alive}


def test_the_customer_behind_a_pseudonym_is_forgotten_with_the_visits(ledger: Ledger, place: Place) -> None:
    one = Holder("p1", "alice-long-name", "token-of-alice", "alice@example.org", T_NS)
    ledger.hold(one)
    ledger.hold(Holder("p2", "alice-long-name", None, None, T_NS + 1))
    ledger.hold(Holder("q1", "bob-long-name", None, None, T_NS + 2))
    with pytest.raises(LedgerError):
        ledger.hold(Holder("p1", "mallory", None, None, T_NS))
    with pytest.raises(LedgerError):
        ledger.hold(Holder("p3", "", None, None, T_NS))
    for visit, pseudonym in (("v1", "p1"), ("v2", "p2"), ("v3", "q1")):
        ledger.open_visit(visit, pseudonym, T_NS + 5)
    assert ledger.holder("p1") == one and "alice" not in repr(one)
    assert ledger.pseudonyms("alice-long-name") == ["p2", "p1"]
    assert ledger.unlink_account("alice-long-name") == 2
    assert [visit.account for visit in ledger.open_visits()] == [None, None, "q1"]
    kept = stored_bytes(place.folder)
    assert b"alice" not in kept and b"bob-long-name" in kept
    assert ledger.unlink_before(T_NS + 6) == 1 and ledger.holder("q1") is None
    assert b"bob-long-name" not in stored_bytes(place.folder)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE link SET account = 'mallory'", "the link of visit 'v1' was changed"),
        ("UPDATE holder SET token = 'token-of-mallory'", "the customer behind 'p1' was changed"),
    ],
)
def test_a_row_that_another_program_changed_names_no_customer(tmp_path: Path, statement: str, named: str) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        ledger.hold(Holder("p1", "alice", "token-of-alice", None, T_NS))
        ledger.open_visit("v1", "p1", T_NS)
        ledger.open_visit("v2", "bob", T_NS)
        assert ledger.customer("v1") is not None and ledger.verify() is None
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as stranger:
        stranger.execute(statement + (" WHERE visit = 'v1'" if "link" in statement else ""))
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        assert ledger.customer("v1") is None, "neither alice's card nor another's"
        assert named in str(ledger.verify())


def test_a_retry_does_not_restore_a_forgotten_account(ledger: Ledger, place: Place) -> None:
    ledger.open_visit("v1", "alice-long-name", T_NS)
    assert ledger.unlink_before(T_NS + 1) == 1
    ledger.open_visit("v1", "alice-long-name", T_NS)
    ledger.post_receipt(receipt("v1", *TWO, account="alice-long-name"))
    ledger.post_receipt(receipt("v1", *TWO, account="alice-long-name"))
    standing = ledger.standing("v1")
    assert standing is not None and standing.account is None
    assert b"alice-long-name" not in stored_bytes(place.folder)


def test_a_reader_that_keeps_the_log_in_use_is_reported(ledger: Ledger, place: Place) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    ledger.database.vault.connection.execute("PRAGMA busy_timeout = 10")
    (vault,) = place.folder.glob("*.sqlite")
    reader = sqlite3.connect(vault, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM link").fetchall()
    with pytest.raises(LedgerError, match="call again"):
        ledger.unlink_before(T_NS + DAY_NS)
    reader.execute("COMMIT")
    reader.close()
    ledger.unlink_before(T_NS + DAY_NS)
    assert b"alice" not in stored_bytes(place.folder)


def test_a_lost_key_is_replaced_on_a_persons_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cryptography")
    STORE.save(tmp_path / "store")
    folder = tmp_path / "shop"
    folder.mkdir()
    books, command = folder / "shop.sqlite", [str(tmp_path / "store"), str(folder / "shop.sqlite")]
    with Ledger.open(books, STORE) as ledger:
        ledger.hold(Holder("p1", "alice-long-name", "token-of-alice", None, T_NS))
        ledger.open_visit("v1", "p1", T_NS + 5)
        n = ledger.head().seq
    assert main(["checkpoint", *command]) == 0
    for name in ("snapshot", "faces"):
        (folder / name).write_bytes(b"sealed")
    reseal = ["reseal", *command, "--by", "anna"]
    assert main([*reseal, "--confirm"]) == 2, "there is a key"
    (folder / "store.key").unlink()
    with pytest.raises(LedgerError, match="fusion reseal"):
        Ledger.open(books, STORE)
    before = sorted(path.name for path in folder.iterdir())
    assert main(reseal) == 1 and sorted(path.name for path in folder.iterdir()) == before, "only listed"
    with locked(folder / "lock"):
        assert main([*reseal, "--confirm"]) == 1
    assert main([*reseal, "--confirm"]) == 0
    assert not (folder / "snapshot").exists() and not (folder / "faces").exists()
    with Ledger.open(books, STORE) as ledger:
        holder = ledger.customer("v1")
        assert holder is not None and holder.account == "alice-long-name" and ledger.head().seq == n + 1
    capsys.readouterr()
    assert main(["verify", *command]) == 0
    assert f"entry {n + 1}: the store's key was lost, and anna answered for 2 rows" in capsys.readouterr().out
    # The old checkpoint still holds: nothing but the new key is different, and that is in the books.
    [old] = folder.glob("shop.checkpoint.before-*")
    [public] = folder.glob("shop.checkpoint.pub.before-*")
    assert main(["verify", *command, "--checkpoint", str(old), "--key", str(public)]) == 0
    assert main([*reseal, "--confirm"]) == 2


@pytest.mark.parametrize("killed_at", ["before", "between", "after"])
def test_a_new_key_that_was_interrupted_is_taken_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    with Ledger.open(tmp_path / "shop.sqlite", STORE) as ledger:
        ledger.open_visit("v1", "alice", T_NS)
    (tmp_path / "store.key").unlink()
    opened: list[Ledger] = []

    def books() -> list[Ledger]:
        opened.append(Ledger.open(tmp_path / "shop.sqlite", STORE))
        return opened[-1:]

    def again() -> Resealed:
        return reseal(tmp_path, [tmp_path / "shop.sqlite"], books, "shop", by="anna", t_ns=T_NS)

    with monkeypatch.context() as patched:
        if killed_at == "before":
            patched.setattr("fusion.money.resealing._reseal", killed)
        elif killed_at == "between":
            patched.setattr(Ledger, "record", killed)
        else:
            patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            again()
    for ledger in opened:
        ledger.close()
    again()
    assert [entry.request["by"] for entry in reseals(opened[-1])] == ["anna"] and opened[-1].verify() is None
    assert [visit.account for visit in opened[-1].open_visits()] == ["alice"]
    opened[-1].close()


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_visits_and_pseudonyms_are_forgotten_by_their_names(ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.hold(Holder(f"p{number}", "alice", f"tok{number}", None, T_NS))
        ledger.open_visit(f"v{number}", f"p{number}", T_NS)
    assert ledger.unlink_names({"v1", "p1", "alice", "nobody"}) == 1
    # Whoever is behind a pseudonym is no name of theirs: their other pseudonym stays.
    assert ledger.holder("p1") is None and ledger.holder("p2") is not None
    assert {one.visit: one.account for one in ledger.open_visits()} == {"v1": None, "v2": "p2"}
    assert ledger.unlink_names({"v1"}) == 0
