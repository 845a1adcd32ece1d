"""The books: every cent accounted for, nothing lost, nothing twice, nothing changed unnoticed, nobody remembered."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.checkpoint import Head
from fusion.money.entries import AMOUNT_MAX, Posting, canonical_bytes, chained_hash, genesis_hash
from fusion.money.ledger import Ledger
from fusion.money.sales import Discount, charge_postings, vat_included
from fusion.money.vault import Holder
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Product, Store

T_NS = 1_772_528_646_000_000_000
DAY_NS = 86_400 * 10**9
COLA, BREAD, STAMP, SOUP = "4006381333931", "96385074", "12345670", "036000291452"


def make_store(store: str = "shop", currency: str = "EUR") -> Store:
    rates = {COLA: 19.0, BREAD: 7.0, STAMP: 0.0, SOUP: 5.5}
    return Store(
        format_version=1,
        id=store,
        name="Shop",
        currency=currency,
        timezone="Europe/Berlin",
        floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
        keypoints="coco17",
        products=tuple(
            Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
            for gtin, rate in rates.items()
        ),
    )


STORE = make_store()


def receipt(visit: str = "v1", *lines: ReceiptLine, status: str = "settled", account: str | None = "alice") -> Receipt:
    total = sum(line.quantity * line.unit_price for line in lines)
    reasons = (Reason(ReasonKind.NOTE, detail="unsure"),) if status == "review" else ()
    return Receipt(visit, account, T_NS, T_NS + 60, T_NS + 90, ReceiptStatus(status), reasons, "EUR", total, lines)


TWO = (ReceiptLine(COLA, 2, 249, 0.99), ReceiptLine(BREAD, 1, 199, 0.9))


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        yield opened


def balances(ledger: Ledger) -> dict[str, int]:
    found = ledger.balances()
    assert all(sum(accounts.values()) == 0 for accounts in found.values())
    assert ledger.verify() is None
    return {account: amount for account, amount in found.get("EUR", {}).items() if amount}


# ---- money -----------------------------------------------------------------------------------------------------------


def test_a_settled_receipt_is_charged_with_its_vat(ledger: Ledger) -> None:
    assert ledger.open_visit("v1", "alice", T_NS)
    assert ledger.post_receipt(receipt("v1", *TWO))
    # 498 at 19 %: 79.51 of it VAT; 199 at 7 %: 13.02.
    assert ledger.postings("v1") == [
        Posting("receivable", "EUR", 697),
        Posting("revenue 7%", "EUR", -186),
        Posting("vat 7%", "EUR", -13),
        Posting("revenue 19%", "EUR", -418),
        Posting("vat 19%", "EUR", -80),
    ]
    assert sum(balances(ledger).values()) == 0
    standing = ledger.standing("v1")
    assert standing is not None
    assert (standing.status, standing.total, standing.lines, standing.account) == ("settled", 697, TWO, "alice")


@pytest.mark.parametrize(
    ("gross", "percent", "vat"),
    [(119, 19, 19), (100, 19, 16), (1, 19, 0), (0, 19, 0), (107, 7, 7), (100, 0, 0), (211, 5.5, 11), (3, 100, 2)],
)
def test_vat_by_hand(gross: int, percent: float, vat: int) -> None:
    assert vat_included(gross, percent) == vat


@given(st.integers(0, AMOUNT_MAX), st.integers(0, 1_000_000))
def test_vat_is_the_nearest_cent_halves_up(gross: int, rate: int) -> None:
    share = Fraction(gross * rate, 1_000_000 + rate)
    exact = vat_included(gross, rate / 10_000)
    assert -Fraction(1, 2) < exact - share <= Fraction(1, 2)


lines_strategy = st.lists(
    st.builds(
        ReceiptLine,
        st.sampled_from([COLA, BREAD, STAMP, SOUP]),
        st.integers(1, 50),
        st.integers(0, 10**7),
        st.floats(0, 1),
    ),
    max_size=6,
).map(tuple)


@given(gross=st.dictionaries(st.integers(0, 1_000_000), st.integers(0, AMOUNT_MAX), max_size=5))
@settings(max_examples=300)
def test_a_charge_balances_to_the_cent(gross: dict[int, int]) -> None:
    postings = charge_postings(gross, "EUR")
    assert sum(posting.amount for posting in postings) == 0
    assert sum(posting.amount for posting in postings if posting.account == "receivable") == sum(gross.values())
    assert all(posting.amount for posting in postings)


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_course_of_visits_matches_a_simple_model(new_place: Callable[[], Place], data: st.DataObject) -> None:
    owed: dict[str, int] = {}
    waiting: dict[str, int] = {}
    revisions: dict[str, int] = {}
    with new_place().open(STORE) as ledger:
        for step in range(data.draw(st.integers(1, 14))):
            visit = f"v{data.draw(st.integers(0, 3))}"
            lines = data.draw(lines_strategy)
            total = sum(line.quantity * line.unit_price for line in lines)
            if visit not in revisions:
                status = data.draw(st.sampled_from(["settled", "review"]))
                assert ledger.post_receipt(receipt(visit, *lines, status=status))
                assert not ledger.post_receipt(receipt(visit, *lines, status=status))
                revisions[visit] = 0
                (owed if status == "settled" else waiting)[visit] = total
                continue
            choices = ["correct", "waive"] + (["accept"] if visit in waiting else [])
            decision = data.draw(st.sampled_from(choices))
            revisions[visit] += 1
            for first in (True, False):
                assert first == ledger.decide(
                    visit, decision, by="eve", t_ns=T_NS + step, revision=revisions[visit],
                    lines=lines if decision == "correct" else None,
                )  # fmt: skip
            accepted = waiting.pop(visit, 0)
            owed[visit] = {"accept": accepted, "correct": total, "waive": 0}[decision]
        assert balances(ledger).get("receivable", 0) == sum(owed.values())
        assert {one.visit for one in ledger.reviews()} == set(waiting)
        for visit, total in {**waiting, **owed}.items():
            standing = ledger.standing(visit)
            assert standing is not None and (standing.total, standing.revision) == (total, revisions[visit])


def test_a_visit_in_review_moves_no_money_until_somebody_decides(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    assert balances(ledger) == {}
    (waiting,) = ledger.reviews()
    assert (waiting.visit, waiting.reason, waiting.total, waiting.revision) == ("v1", "unsure", 697, 0)
    assert ledger.decide("v1", "accept", by="eve", t_ns=T_NS + 5)
    assert not ledger.decide("v1", "accept", by="eve", t_ns=T_NS + 5)
    assert balances(ledger)["receivable"] == 697 and ledger.reviews() == []
    with pytest.raises(IdempotencyConflict):
        ledger.decide("v1", "waive", by="mallory", t_ns=T_NS + 6)
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS + 7, revision=2, lines=[ReceiptLine(BREAD, 1, 199, 1.0)])
    assert balances(ledger) == {"receivable": 199, "revenue 7%": -186, "vat 7%": -13}
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 8, revision=3, note="came back to complain")
    assert balances(ledger) == {}


def test_vat_of_a_visit_stays_what_it_was(ledger: Ledger, place: Place) -> None:
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    ledger.close()
    changed = tuple(product.model_copy(update={"vat_rate": 50.0}) for product in STORE.products)
    with place.open(STORE.model_copy(update={"products": changed})) as later:
        assert not later.post_receipt(receipt("v1", *TWO, status="review"))
        later.decide("v1", "accept", by="eve", t_ns=T_NS)
        assert balances(later)["vat 19%"] == -80


# ---- once and only once ----------------------------------------------------------------------------------------------


def test_the_same_again_is_silent_and_something_else_is_a_conflict(ledger: Ledger) -> None:
    assert ledger.open_visit("v1", "alice", T_NS)
    assert not ledger.open_visit("v1", "alice", T_NS)
    assert not ledger.open_visit("v1", "alice", T_NS + 5)  # a companion
    for account, enter_ns in (("bob", T_NS), (None, T_NS), ("alice", T_NS - 1)):
        with pytest.raises(IdempotencyConflict):
            ledger.open_visit("v1", account, enter_ns)
    good = receipt("v1", *TWO)
    assert ledger.post_receipt(good)
    assert not ledger.post_receipt(good)
    others = [
        replace(good, exit_ns=good.exit_ns + 1),
        replace(good, issued_ns=good.issued_ns + 1),
        replace(good, account="bob"),
        replace(good, status="review"),
        receipt("v1", TWO[0]),
    ]
    for other in others:
        with pytest.raises(IdempotencyConflict):
            ledger.post_receipt(other)
    assert balances(ledger)["receivable"] == 697


@pytest.mark.parametrize(
    "bad",
    [
        {"total": 698},
        {"currency": "USD"},
        {"status": "paid"},
        {"visit": ""},
        {"visit": "v" * 256},
        {"visit": "\ud800"},
        {"exit_ns": 2**63},
        {"exit_ns": 1.5},
        {"lines": (ReceiptLine("40063813339310", 1, 697, 1.0),)},
        {"lines": (ReceiptLine(COLA, 0, 697, 1.0),), "total": 0},
        {"lines": (ReceiptLine(COLA, 1, -697, 1.0),), "total": -697},
        {"lines": (ReceiptLine(COLA, 1, 697, float("nan")),)},
        {"lines": (ReceiptLine(COLA, AMOUNT_MAX, 2, 1.0),), "total": 2 * AMOUNT_MAX},
    ],
)
def test_what_does_not_add_up_is_refused_and_leaves_nothing(ledger: Ledger, bad: dict[str, object]) -> None:
    with pytest.raises(LedgerError):
        ledger.post_receipt(replace(receipt("v1", *TWO), **bad))
    assert ledger.head().seq == 0 and balances(ledger) == {}


@pytest.mark.parametrize(
    ("visit", "decision", "options"),
    [
        ("nobody", "accept", {}),
        ("v1", "accept", {}),
        ("v1", "correct", {}),
        ("v1", "waive", {"lines": TWO}),
        ("v1", "waive", {"revision": 2}),
        ("v1", "burn", {}),
        ("v1", "waive", {"by": ""}),
    ],
)
def test_decisions_without_sense_are_refused(
    ledger: Ledger, visit: str, decision: str, options: dict[str, object]
) -> None:
    ledger.post_receipt(receipt("v1", *TWO))
    with pytest.raises(LedgerError):
        ledger.decide(visit, decision, **{"by": "eve", "t_ns": T_NS, **options})  # type: ignore[arg-type]
    assert balances(ledger)["receivable"] == 697


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


def test_a_batch_that_failed_keeps_nothing_whoever_catches_the_error(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.post_receipt(receipt("v0", *TWO, account=None))
    vault = ledger.database.vault
    with monkeypatch.context() as patch:
        patch.setattr(vault, "link", lambda *_: vault._write("INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(LedgerError, match="failed before"), ledger.batch():
            ledger.post_receipt(receipt("v1", *TWO, account=None))
            with pytest.raises(LedgerError, match="vault"):
                ledger.open_visit("v2", "alice", T_NS)
    assert balances(ledger)["receivable"] == 697 and ledger.head().seq == 1
    with Ledger.open(tmp_path / "full.sqlite", STORE) as full:
        pages = full.database.connection.execute("PRAGMA page_count").fetchone()[0]
        full.database.connection.execute(f"PRAGMA max_page_count = {pages + 20}")
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


# ---- crashes ---------------------------------------------------------------------------------------------------------

N_KILLS = 60


def post_and_say_so(place: Place, first: int, acknowledge: int) -> None:
    """Post visit after visit and say so once each is acknowledged."""
    with place.open(STORE) as ledger:
        for i in range(first, 10**6):
            ledger.open_visit(f"v{i}", "alice", T_NS)
            os.write(acknowledge, f"opened {i}\n".encode())
            ledger.post_receipt(receipt(f"v{i}", *TWO))
            os.write(acknowledge, f"posted {i}\n".encode())


def test_kill_loses_nothing_that_was_acknowledged_and_doubles_nothing(place: Place) -> None:
    rng = random.Random(20)
    opened = posted = -1
    for attempt in range(N_KILLS):
        reading, writing = os.pipe()
        # A client that does not know whether its last postings arrived says them again.
        first = max(0, posted - 2)
        client = os.fork()
        if client == 0:
            try:
                post_and_say_so(place, first, writing)
            finally:
                os._exit(1)
        os.close(writing)
        timer = threading.Timer(rng.uniform(0.0, 0.03), os.kill, (client, signal.SIGKILL))
        # Some are killed while they open the books. For the others the clock runs once they have begun to post, since a
        # busy machine takes its time before that.
        while_opening = attempt % 5 == 0
        if while_opening:
            timer.start()
        with os.fdopen(reading) as acknowledged:
            for n_said, said in enumerate(acknowledged):
                if n_said == 4 and not while_opening:
                    timer.start()
                word, number = said.split()
                if word == "opened":
                    opened = max(opened, int(number))
                else:
                    posted = max(posted, int(number))
        timer.join()
        _, status = os.waitpid(client, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the client stopped by itself"
    with place.open(STORE) as ledger:
        n_charged = balances(ledger).get("receivable", 0) // 697
        charged = [i for i in range(posted + 3) if ledger.postings(f"v{i}")]
        assert charged[: posted + 1] == list(range(posted + 1)), "lost"
        assert n_charged == len(charged), "doubled"
        assert n_charged - (posted + 1) in (0, 1)  # one may have been written without the answer arriving
        known = {one.visit for one in ledger.open_visits()} | {f"v{i}" for i in charged}
        assert {f"v{i}" for i in range(opened + 1)} <= known
        assert posted > 10


def test_open_visits_survive_and_go_to_review(ledger: Ledger, place: Place) -> None:
    for i in range(3):
        ledger.open_visit(f"v{i}", None if i == 0 else f"account {i}", T_NS + i)
    ledger.post_receipt(receipt("v1", *TWO, account="account 1"))
    ledger.close()
    with place.open(STORE) as again:
        assert [(one.visit, one.account, one.enter_ns - T_NS) for one in again.open_visits()] == [
            ("v0", None, 0),
            ("v2", "account 2", 2),
        ]
        assert again.review_open_visits(T_NS + 99, Reason(ReasonKind.RESTARTED)) == ["v0", "v2"]
        assert again.open_visits() == [] and len(again.reviews()) == 2
        again.decide("v2", "correct", by="eve", t_ns=T_NS + 100, lines=TWO)
        assert balances(again)["receivable"] == 2 * 697


def test_a_full_disk_or_a_lock_is_an_error_and_no_partial_charge(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", STORE)
    ledger.post_receipt(receipt("v0", *TWO))
    pages = ledger.database.connection.execute("PRAGMA page_count").fetchone()[0]
    ledger.database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full"):
        for i in range(1, 1000):
            ledger.post_receipt(receipt(f"v{i}", *TWO))
    ledger.database.connection.execute("PRAGMA max_page_count = 1000000")
    charged = balances(ledger)["receivable"]
    assert charged == 697 * i
    ledger.post_receipt(receipt(f"v{i}", *TWO))
    assert balances(ledger)["receivable"] == charged + 697
    path = ledger.database.connection.execute("PRAGMA database_list").fetchone()[2]
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.database.connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(LedgerError, match="locked"):
        ledger.post_receipt(receipt("late", *TWO))
    other.execute("ROLLBACK")
    assert ledger.post_receipt(receipt("late", *TWO))


def test_a_file_that_may_not_grow_is_an_error_and_no_partial_charge(tmp_path: Path) -> None:
    """As when a quota is used up or the disk fails under a write: the kernel refuses it."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, STORE) as ledger:
        ledger.post_receipt(receipt("v", *TWO))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            ledger = Ledger.open(path, STORE)
            for i in range(10**6):
                try:
                    ledger.post_receipt(receipt(f"v{i}", *TWO))
                except LedgerError as error:
                    os.write(writing, f"{i} {error}".encode())
                    break
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        n_posted, error = said.read().split(" ", 1)
    os.waitpid(child, 0)
    assert "disk" in error
    with Ledger.open(path, STORE) as ledger:
        assert int(n_posted) > 10 and balances(ledger)["receivable"] == (int(n_posted) + 1) * 697
        assert ledger.post_receipt(receipt(f"v{n_posted}", *TWO))


@pytest.fixture
def remote(place: Place) -> Place:
    if place.database is None:
        pytest.skip("has no connection to lose")
    return place


def cut(place: Place) -> None:
    """End every other connection to the database, as a restart of the server does."""
    with place.stranger(STORE) as stranger:
        stranger.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_lost_connection_is_an_error_at_most_and_no_partial_charge(ledger: Ledger, remote: Place) -> None:
    ledger.post_receipt(receipt("v0", *TWO))
    cut(remote)
    # Nothing was under way, so a new connection does.
    assert ledger.post_receipt(receipt("v1", *TWO))
    with pytest.raises(LedgerError), ledger.batch():
        ledger.open_visit("v2", "alice-long-name", T_NS)
        ledger.post_receipt(receipt("v2", *TWO, account="alice-long-name"))
        cut(remote)
        ledger.post_receipt(receipt("v3", *TWO))
    assert balances(ledger)["receivable"] == 2 * 697
    assert b"alice-long-name" not in stored_bytes(remote.folder)
    cut(remote)
    assert ledger.head().seq == 2
    cut(remote)
    assert ledger.post_receipt(receipt("v2", *TWO)) and ledger.post_receipt(receipt("v3", *TWO))
    assert balances(ledger)["receivable"] == 4 * 697


def test_books_that_another_client_holds_are_an_error(ledger: Ledger, remote: Place) -> None:
    other = remote.open(STORE)
    ledger.database.connection.execute("SET lock_timeout = '20ms'")
    with other.batch():
        other.post_receipt(receipt("v0", *TWO))
        with pytest.raises(LedgerError, match="lock timeout"):
            ledger.post_receipt(receipt("v1", *TWO))
    assert ledger.post_receipt(receipt("v1", *TWO))
    assert balances(other)["receivable"] == 2 * 697


def test_a_database_that_cannot_be_had_is_named_without_its_password(tmp_path: Path, remote: Place) -> None:
    with pytest.raises(LedgerError, match="vault"):
        Ledger.open(remote.database or "", STORE)
    with pytest.raises(LedgerError, match="want no file for the vault"):
        Ledger.open(tmp_path / "ledger.sqlite", STORE, vault=tmp_path / "vault.sqlite")
    with pytest.raises(LedgerError, match=r"postgresql://127\.0\.0\.1/books") as raised:
        Ledger.open("postgresql://scott:tiger@127.0.0.1:1/books", STORE, vault=tmp_path / "vault.sqlite")
    assert "tiger" not in str(raised.value)


# ---- entries of other adapters ---------------------------------------------------------------------------------------


def test_entries_of_others_are_kept_once_and_balance(ledger: Ledger) -> None:
    paid = (Posting("provider", "EUR", 697), Posting("receivable", "EUR", -697))
    ledger.post_receipt(receipt("v1", *TWO))
    assert ledger.record("v1", "payment 1", "captured", T_NS + 1, {"reference": "r"}, paid)
    assert not ledger.record("v1", "payment 1", "captured", T_NS + 1, {"reference": "r"}, paid)
    for changed in (
        {"t_ns": T_NS},
        {"kind": "declined"},
        {"request": {"reference": "s"}},
        {"postings": (paid[1], paid[0])},
    ):
        with pytest.raises(IdempotencyConflict):
            ledger.record(**{  # type: ignore[arg-type]
                "visit": "v1", "name": "payment 1", "kind": "captured", "t_ns": T_NS + 1,
                "request": {"reference": "r"}, "postings": paid, **changed,
            })  # fmt: skip
    for bad in (
        {"name": "receipt"},
        {"name": "decision 7"},
        {"name": "opened"},
        {"kind": "receipt settled"},
        {"postings": paid[:1]},
        {"request": {"x": object()}},
        {"request": {"x": float("nan")}},
        {"postings": (Posting("a", "EUR", 5), Posting("b", "USD", -5))},
    ):
        with pytest.raises(LedgerError):
            ledger.record(**{  # type: ignore[arg-type]
                "visit": "v1", "name": "payment 2", "kind": "captured", "t_ns": T_NS, "request": {}, **bad,
            })  # fmt: skip
    assert balances(ledger) == {
        "provider": 697, "revenue 19%": -418, "revenue 7%": -186, "vat 19%": -80, "vat 7%": -13
    }  # fmt: skip
    # A correction changes what is owed, not what was paid.
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 9)
    assert balances(ledger) == {"provider": 697, "receivable": -697}
    kinds = [(entry.seq, entry.kind, entry.key) for entry in ledger.entries("v1")]
    assert kinds == [
        (1, "receipt settled", "v1/receipt"), (2, "captured", "v1/payment 1"), (3, "decision waive", "v1/decision 1")
    ]  # fmt: skip
    assert ledger.entries("v1")[1].postings == paid and ledger.entries("v1")[1].request == {"reference": "r"}
    assert [entry.seq for entry in ledger.entries_between(T_NS + 1, T_NS + 10)] == [2, 3]


def test_offers_lower_the_price_and_its_vat(ledger: Ledger) -> None:
    less = (Discount("two for one", COLA, 249), Discount("bread day", BREAD, 99))
    good = replace(receipt("v1", *TWO), total=697 - 348)
    assert ledger.post_receipt(good, less)
    assert not ledger.post_receipt(good, less)
    # 249 at 19 %: 39.76 of it VAT; 100 at 7 %: 6.54.
    assert balances(ledger) == {
        "receivable": 349, "revenue 19%": -209, "vat 19%": -40, "revenue 7%": -93, "vat 7%": -7
    }  # fmt: skip
    standing = ledger.standing("v1")
    assert standing is not None and (standing.total, standing.discounts) == (349, less)
    with pytest.raises(IdempotencyConflict):
        ledger.post_receipt(replace(good, total=697))
    for bad in (Discount("x", STAMP, 1), Discount("x", COLA, 499), Discount("x", COLA, 0), Discount("", COLA, 1)):
        with pytest.raises(LedgerError):
            ledger.post_receipt(replace(receipt("v2", *TWO), total=697 - bad.amount), (bad,))
    ledger.post_receipt(replace(receipt("v3", *TWO, status="review"), total=349), less)
    ledger.decide("v3", "accept", by="eve", t_ns=T_NS)
    assert balances(ledger)["receivable"] == 2 * 349
    ledger.decide("v3", "correct", by="eve", t_ns=T_NS, revision=2, lines=TWO, discounts=less[:1])
    assert balances(ledger)["receivable"] == 349 + 448


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


def test_reasons_are_kept_in_words_and_by_kind(ledger: Ledger) -> None:
    doubt = Reason(ReasonKind.PERSON_UNCERTAIN, plate="a1", delta_g=-330.5, probability=0.61)
    note = Reason(ReasonKind.NOTE, detail="a note")
    ledger.post_receipt(replace(receipt("v1", *TWO, status="review"), reasons=(doubt, note)))
    (waiting,) = ledger.reviews()
    assert waiting.reasons == (doubt,)
    assert waiting.reason is not None and "a1" in waiting.reason and waiting.reason.endswith("; a note")


def test_the_head_of_a_short_history_is_golden(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    ledger.decide("v1", "accept", by="eve", t_ns=T_NS + 100)
    assert ledger.head() == Head(3, "5688a1c58cbcf6c0bfe487add0a61272e014e10b3c1f84ed0e8b6b7039f62286")


def tampered(place: Place, *statements: str) -> str | None:
    """What the books say after somebody with all rights has changed their rows."""
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
def test_whatever_is_changed_behind_the_ledger_is_named(place: Place, statements: list[str], named: str) -> None:
    with place.open(STORE) as ledger:
        for i in range(4):
            ledger.open_visit(f"v{i}", "alice", T_NS)
            ledger.post_receipt(receipt(f"v{i}", *TWO))
    fault = tampered(place, *statements)
    assert fault is not None and fault.startswith(named), fault


def test_triggers_that_went_or_came_are_named(place: Place) -> None:
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
            # The next one is found by itself.
            stranger.execute("DROP TRIGGER IF EXISTS sneaky" + (" ON entry" if place.database else ""))
    stranger.close()


def test_a_tail_that_was_cut_off_is_found_by_a_head_kept_elsewhere(place: Place) -> None:
    with place.open(STORE) as ledger:
        for i in range(3):
            ledger.post_receipt(receipt(f"v{i}", *TWO))
        kept = ledger.head()
        ledger.post_receipt(receipt("v3", *TWO))
        assert ledger.verify(kept) is None
    assert tampered(place, "DELETE FROM posting WHERE entry > 2", "DELETE FROM entry WHERE seq > 2") is None
    with place.open(STORE) as ledger:
        assert ledger.verify(kept) == "entry 3: missing, the head that was kept is 3"
        # Books that were written anew from there on do not pass either.
        ledger.post_receipt(receipt("forged", *TWO))
        assert ledger.verify() is None
        assert ledger.verify(kept) == "entry 3: differs from the head that was kept"


def test_a_checkpoint_is_good_for_its_own_books_and_key_only(ledger: Ledger, place: Place) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    ledger.post_receipt(receipt("v0", *TWO))
    ledger.post_receipt(receipt("v1", *TWO))
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


# ---- strangers' text, other files ------------------------------------------------------------------------------------

INJECTIONS = [
    "'; DROP TABLE entry; --",
    '" OR 1=1 --',
    "Robert'); DELETE FROM posting; --",
    "v/receipt",
    "%_\\",
    "\x00\x01",
    "ünïcödé \U0001f36a",
    "{{title}} </script>",
]


def test_strange_text_comes_back_verbatim(ledger: Ledger) -> None:
    for i, text in enumerate(INJECTIONS):
        ledger.open_visit(text, text, T_NS + i)
        assert ledger.open_visits()[-1].visit == text
        reasons = (Reason(ReasonKind.NOTE, detail=text),)
        one = replace(receipt(text, *TWO, status="review", account=text), reasons=reasons)
        ledger.post_receipt(one)
        assert not ledger.post_receipt(one)
        standing = ledger.standing(text)
        assert standing is not None
        assert (standing.visit, standing.account, standing.reason) == (text, text, text)
        ledger.decide(text, "accept", by=text, t_ns=T_NS, note=text)
        assert not ledger.decide(text, "accept", by=text, t_ns=T_NS, note=text)
    assert balances(ledger)["receivable"] == 697 * len(INJECTIONS)
    for text in INJECTIONS:
        assert ledger.unlink_account(text) == 1


def test_strange_text_of_other_adapters_comes_back_verbatim(ledger: Ledger) -> None:
    for i, text in enumerate(INJECTIONS):
        one = Holder(f"p{i}{text}", text, text, text, T_NS)
        ledger.hold(one)
        assert ledger.holder(one.pseudonym) == one and ledger.pseudonyms(text) == [one.pseudonym]
        legs = (Posting(text, text, 5), Posting("other", text, -5))
        for is_new in (True, False):
            assert ledger.record(f"r{text}", f"{i} {text}", f"kind {text}", T_NS, {text: text}, legs) == is_new
        (entry,) = ledger.entries(f"r{text}")
        assert entry == ledger.recorded(f"r{text}", f"{i} {text}")
        assert (entry.kind, entry.request, entry.postings) == (f"kind {text}", {text: text}, legs)
        assert ledger.balances_of(text) == {f"r{text}": 5} and ledger.unanswered(f"kind {text}") == [entry]
        assert ledger.balances()[text] == {text: 5, "other": -5}
        less = (Discount(text, COLA, 1),)
        ledger.post_receipt(replace(receipt(f"d{text}", *TWO, account=text), total=696), less)
        standing = ledger.standing(f"d{text}")
        assert standing is not None and standing.discounts == less
    assert ledger.verify() is None
    for text in INJECTIONS:
        assert ledger.unlink_account(text) == 1 and ledger.pseudonyms(text) == []


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


# ---- forgetting ------------------------------------------------------------------------------------------------------


def stored_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_nothing_remains_of_accounts_that_are_forgotten(place: Place) -> None:
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


def test_who_is_behind_a_pseudonym_is_forgotten_with_the_visits(ledger: Ledger, place: Place) -> None:
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


def test_a_retry_after_forgetting_does_not_remember(ledger: Ledger, place: Place) -> None:
    ledger.open_visit("v1", "alice-long-name", T_NS)
    assert ledger.unlink_before(T_NS + 1) == 1
    ledger.open_visit("v1", "alice-long-name", T_NS)
    ledger.post_receipt(receipt("v1", *TWO, account="alice-long-name"))
    ledger.post_receipt(receipt("v1", *TWO, account="alice-long-name"))
    standing = ledger.standing("v1")
    assert standing is not None and standing.account is None
    assert b"alice-long-name" not in stored_bytes(place.folder)


def test_forgetting_says_when_a_reader_keeps_the_log(ledger: Ledger, place: Place) -> None:
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
