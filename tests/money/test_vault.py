"""The vault: customers behind visits and pseudonyms, and nothing of them left once they are forgotten."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator

import pytest
from conftest import Place
from money.books import DAY_NS, STORE, T_NS, TWO, receipt, stored_bytes

from fusion.errors import LedgerError
from fusion.money.ledger import Ledger
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
