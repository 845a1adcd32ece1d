"""A store whose key is lost: what becomes of each file of its folder, and what the books say of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from money.books import STORE, T_NS, make_store

from fusion.errors import LedgerError
from fusion.files.secrets import KEY_FILE, fingerprint, store_key
from fusion.money.ledger import Ledger
from fusion.money.resealing import Resealed, reseal, reseals
from fusion.money.vault import Holder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder after its key was lost, with two files that hold a vault."""
    for name, store in (("shop.sqlite", STORE), ("kiosk.sqlite", make_store("kiosk"))):
        with Ledger.open(tmp_path / name, store) as ledger:
            ledger.hold(Holder("p1", "alice", "tok", None, T_NS))
            ledger.open_visit("v1", "p1", T_NS)
    with Ledger.open(tmp_path / "shop.sqlite", STORE) as ledger:
        ledger.open_visit("v2", "bob", T_NS)
    (tmp_path / KEY_FILE).unlink()
    return tmp_path


def run(folder: Path, *vaults: str, books: tuple[str, ...] = ("shop.sqlite",)) -> Resealed:
    with contextlib.ExitStack() as stack:

        def opened() -> Iterator[Ledger]:
            for name in books:
                yield stack.enter_context(Ledger.open(folder / name, make_store(name.removesuffix(".sqlite"))))

        return reseal(
            folder, [folder / name for name in vaults], lambda: list(opened()), "shop", by="anna", t_ns=T_NS + 5
        )


def test_vaults_are_sealed_again_and_the_books_say_who_answered(folder: Path) -> None:
    for name in ("snapshot", "scans.jsonl", "faces", "shop.checkpoint", "shop.checkpoint.pub", "evidence.jsonl"):
        (folder / name).write_text(name)
    (folder / "kiosk.checkpoint").write_text("another store's")
    done = run(folder, "shop.sqlite", "kiosk.sqlite", books=("shop.sqlite", "kiosk.sqlite"))
    key_id = fingerprint(store_key(folder, create=False))
    assert done == Resealed(
        key_id, {"shop.sqlite": 3, "kiosk.sqlite": 2}, ("snapshot", "scans.jsonl", "faces"),
        (f"shop.checkpoint.before-{key_id}", f"shop.checkpoint.pub.before-{key_id}"),
    )  # fmt: skip
    assert sorted(path.name for path in folder.iterdir() if "sqlite" not in path.name) == sorted(
        [KEY_FILE, "evidence.jsonl", "kiosk.checkpoint", *done.aside]
    )
    assert (folder / done.aside[0]).read_text() == "shop.checkpoint"
    for name, store in (("shop.sqlite", STORE), ("kiosk.sqlite", make_store("kiosk"))):
        with Ledger.open(folder / name, store) as ledger:
            (entry,) = reseals(ledger)
            assert (entry.kind, entry.key, entry.t_ns) == ("vault resealed", f"vault/resealed {key_id}", T_NS + 5)
            assert entry.request == {"by": "anna", "key": key_id, "rows": 5} and entry.postings == ()
            assert ledger.verify() is None and ledger.account_of("v1") == "alice"
            ledger.record("vault", "seen", "vault looked at", T_NS, {})
            assert reseals(ledger) == [entry]


def test_a_key_that_is_there_is_not_replaced(folder: Path) -> None:
    (folder / KEY_FILE).write_text("ab" * 32 + "\n")
    with pytest.raises(LedgerError) as raised:
        run(folder, "shop.sqlite")
    assert str(raised.value) == (
        f"{folder / KEY_FILE}: exists; a key that fits needs nothing, one that does not fit belongs elsewhere: put "
        "back the right one, or move this one away"
    )
    assert not (folder / "resealing").exists()


def test_after_an_interruption_the_same_key_is_taken_further(folder: Path) -> None:
    (folder / "resealing").touch()
    first = store_key(folder)
    done = run(folder, "shop.sqlite")
    assert (done.key_id, done.rows, done.removed, done.aside) == (fingerprint(first), {"shop.sqlite": 3}, (), ())
    assert not (folder / "resealing").exists()
    # Another interruption, after everything was done: nothing is sealed or noted twice.
    (folder / "resealing").touch()
    assert run(folder, "shop.sqlite").rows == {"shop.sqlite": 0}
    with Ledger.open(folder / "shop.sqlite", STORE) as ledger:
        assert len(reseals(ledger)) == 1 and ledger.customer("v1") == Holder("p1", "alice", "tok", None, T_NS)


def test_a_vault_that_is_missing_stops_it_and_it_can_be_called_again(folder: Path) -> None:
    with pytest.raises(LedgerError, match="do not exist"):
        run(folder, "none.sqlite")
    assert (folder / "resealing").exists() and not (folder / "none.sqlite").exists()
    assert run(folder, "shop.sqlite").rows == {"shop.sqlite": 3}
