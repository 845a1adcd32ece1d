"""The ledger entry by entry: what each call records, what it refuses in which words, and who is behind a visit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, SOUP, STORE, T_NS, TWO, balances, receipt

from fusion.errors import EntryError, FusionError, IdempotencyConflict, LedgerError
from fusion.money.entries import Posting
from fusion.money.ledger import Ledger, unbookable
from fusion.money.sales import Discount
from fusion.money.vault import Holder
from fusion.money.visits import OpenVisit, Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus, Taken
from fusion.sentences import reason_text


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        yield opened


@contextlib.contextmanager
def refused(ledger: Ledger, kind: type[FusionError], message: str) -> Iterator[None]:
    before = ledger.head()
    with pytest.raises(kind) as raised:
        yield
    assert type(raised.value) is kind and str(raised.value) == message
    assert ledger.head() == before, "a refusal leaves nothing"


def nameless(visit: str, status: str = "settled") -> Receipt:
    return receipt(visit, *TWO, account=None, status=status)


# ---- openings and receipts -------------------------------------------------------------------------------------------


def test_an_opening_is_an_entry_without_a_name(ledger: Ledger) -> None:
    assert ledger.open_visit("v1", "alice", T_NS) is True
    (entry,) = ledger.entries("v1")
    assert (entry.seq, entry.kind, entry.key, entry.t_ns) == (1, "visit opened", "v1/opened", T_NS)
    assert (entry.request, entry.postings) == ({"enter": T_NS}, ())
    assert ledger.open_visits() == [OpenVisit("v1", "alice", T_NS)]
    assert ledger.open_visit("v1", "alice", T_NS + 1) is False
    other = "visit 'v1': opened before with other contents"
    for account, t_ns in (("alice", T_NS - 1), ("bob", T_NS), (None, T_NS)):
        with refused(ledger, IdempotencyConflict, other):
            ledger.open_visit("v1", account, t_ns)
    # A visit without a name, or whose name was forgotten, takes none later.
    ledger.open_visit("v2", None, T_NS + 5)
    assert ledger.open_visit("v2", "bob", T_NS + 5) is False and ledger.customer("v2") is None
    assert ledger.open_visits() == [OpenVisit("v1", "alice", T_NS), OpenVisit("v2", None, T_NS + 5)]
    for values, message in (
        (("", None, T_NS), "visit: want 1 to 255 characters, got 0"),
        (("v3", "", T_NS), "account: want 1 to 255 characters, got 0"),
        (("v3", "a", 2**63), f"enter_ns: want {-(2**63)} to {2**63 - 1}, got {2**63}"),
    ):
        with refused(ledger, EntryError, message):
            ledger.open_visit(*values)


def test_open_visits_are_sorted_by_when_they_began(ledger: Ledger) -> None:
    for visit, t_ns in (("v1", T_NS + 9), ("v2", T_NS), ("v3", T_NS)):
        ledger.open_visit(visit, None, t_ns)
    assert [one.visit for one in ledger.open_visits()] == ["v2", "v3", "v1"]


def test_a_receipt_is_an_entry_with_all_that_was_billed(ledger: Ledger) -> None:
    less = Discount("two for one", COLA, 249)
    doubt = Reason(ReasonKind.PERSON_UNCERTAIN, plate="a1", delta_g=-330.5, probability=0.61)
    issued = replace(receipt("v1", *TWO, status="review"), total=448, reasons=(doubt,))
    assert ledger.post_receipt(issued, [less]) is True
    (entry,) = ledger.entries("v1")
    assert (entry.kind, entry.key, entry.t_ns, entry.postings) == ("receipt review", "v1/receipt", T_NS + 90, ())
    reasons = entry.request["reasons"]
    assert {name: value for name, value in entry.request.items() if name != "reasons"} == {
        "enter": T_NS, "exit": T_NS + 60, "status": "review", "reason": reason_text((doubt,)), "currency": "EUR",
        "total": 448, "lines": [[COLA, 2, 249, 990_000], [BREAD, 1, 199, 900_000]],
        "discounts": [["two for one", COLA, 249]],
    }  # fmt: skip
    assert len(reasons) == 1 and ledger.post_receipt(issued, [less]) is False
    ledger.post_receipt(replace(nameless("v2"), enter_ns=None))
    (charged,) = ledger.entries("v2")
    assert (charged.kind, charged.request["enter"], charged.request["reason"]) == ("receipt settled", None, None)
    assert "reasons" not in charged.request
    assert set(charged.postings) == {
        Posting("receivable", "EUR", 697), Posting("revenue 19%", "EUR", -418), Posting("vat 19%", "EUR", -80),
        Posting("revenue 7%", "EUR", -186), Posting("vat 7%", "EUR", -13),
    }  # fmt: skip


def test_reasons_in_words_have_no_fields_and_others_are_kept_up_to_a_limit(ledger: Ledger) -> None:
    words = (Reason(ReasonKind.NOTE, detail="a"), Reason(ReasonKind.NOT_BOOKED, detail="b"))
    doubts = tuple(Reason(ReasonKind.PERSON_UNCERTAIN, plate=f"p{i}", probability=0.5) for i in range(33))
    ledger.post_receipt(replace(nameless("v1", status="review"), reasons=words))
    assert "reasons" not in ledger.entries("v1")[0].request
    for visit, n in (("v2", 32), ("v3", 33)):
        ledger.post_receipt(replace(nameless(visit, status="review"), reasons=doubts[:n]))
        standing = ledger.standing(visit)
        assert standing is not None and standing.reasons == doubts[:32]


def test_what_is_wrong_with_a_receipt_is_named(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    for change, message in (
        ({"status": "paid"}, "status: want settled or review, got 'paid'"),
        ({"currency": "USD"}, "currency: want EUR, got 'USD'"),
        ({"total": 696}, "total: want the sum of the lines less discounts, 697, got 696"),
        ({"visit": ""}, "visit: want 1 to 255 characters, got 0"),
        ({"account": ""}, "account: want 1 to 255 characters, got 0"),
        ({"issued_ns": 0.5}, "issued_ns: want an integer, got float"),
        ({"exit_ns": 0.5}, "exit_ns: want an integer, got float"),
        ({"enter_ns": 0.5}, "enter_ns: want an integer, got float"),
        ({"lines": (ReceiptLine("0", 1, 697, 1.0),)}, "gtin: want a product of 'shop', got '0'"),
    ):
        with refused(ledger, EntryError, message):
            ledger.post_receipt(replace(receipt("v1", *TWO), **change))  # type: ignore[arg-type]
    for account in ("bob", None):
        with refused(ledger, IdempotencyConflict, "visit 'v1': belongs to another account"):
            ledger.post_receipt(receipt("v1", *TWO, account=account))
    assert ledger.post_receipt(receipt("v1", *TWO))
    with refused(ledger, IdempotencyConflict, "'v1/receipt': recorded before with other contents"):
        ledger.post_receipt(receipt("v1", TWO[0]))


def test_a_receipt_links_a_visit_that_was_not_seen_to_begin(ledger: Ledger) -> None:
    ledger.post_receipt(receipt("v1", *TWO))
    ledger.post_receipt(replace(receipt("v2", *TWO), enter_ns=None))
    ledger.post_receipt(nameless("v3"))
    (links, holders) = ledger.named()
    assert [tuple(row) for row in links] == [("v1", "alice", T_NS), ("v2", "alice", T_NS + 60)] and holders == []
    # One that was opened without a name stays without.
    ledger.open_visit("v4", None, T_NS)
    ledger.post_receipt(receipt("v4", *TWO))
    assert ledger.account_of("v4") is None


def test_only_results_that_concern_money_are_posted(ledger: Ledger) -> None:
    assert ledger.add(receipt("v1", *TWO)) is True and ledger.add(receipt("v1", *TWO)) is False
    assert ledger.add(object()) is False  # type: ignore[arg-type]


def test_what_the_books_refuse_becomes_a_review_that_says_why() -> None:
    taken = (Taken(T_NS, COLA, 1),)
    refusal = unbookable(replace(receipt("v1", *TWO, status="review"), taken=taken), EntryError("gtin: no such"))
    assert (refusal.status, refusal.total, refusal.lines, refusal.taken) == (ReceiptStatus.REVIEW, 0, (), ())
    assert refusal.reasons == (
        Reason(ReasonKind.NOT_BOOKED, detail="gtin: no such"), Reason(ReasonKind.NOTE, detail="unsure"),
    )  # fmt: skip
    assert (refusal.visit, refusal.account, refusal.exit_ns) == ("v1", "alice", T_NS + 60)


# ---- decisions -------------------------------------------------------------------------------------------------------

ONE_BREAD = (ReceiptLine(BREAD, 1, 199, 0.5),)


def test_a_decision_reverses_and_charges_in_one_entry(ledger: Ledger) -> None:
    ledger.post_receipt(nameless("v1"))
    asked: dict[str, Any] = {"by": "eve", "t_ns": T_NS + 5, "lines": ONE_BREAD, "note": "4111 1111 1111 1111 ok"}
    assert ledger.decide("v1", "correct", **asked) is True
    entry = ledger.entries("v1")[-1]
    assert (entry.kind, entry.key, entry.t_ns) == ("decision correct", "v1/decision 1", T_NS + 5)
    note = entry.request["note"]
    assert {name: value for name, value in entry.request.items() if name != "note"} == {
        "decision": "correct", "by": "eve", "revision": 1, "lines": [[BREAD, 1, 199, 500_000]],
    }  # fmt: skip
    assert "4111" not in note and note.endswith(" ok")
    moved = {account: entry.moved(account) for account in ("receivable", "revenue 19%", "vat 19%", "revenue 7%")}
    assert moved == {"receivable": -498, "revenue 19%": 418, "vat 19%": 80, "revenue 7%": 0}
    assert ledger.decide("v1", "correct", **asked) is False
    assert ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 6, revision=2)
    waived = ledger.entries("v1")[-1]
    assert (waived.request["lines"], waived.request["note"]) == (None, "") and balances(ledger) == {}
    standing = ledger.standing("v1")
    assert standing is not None and (standing.status, standing.total, standing.revision) == ("decided", 0, 2)


def test_a_receipt_in_review_is_accepted_as_it_stands_with_its_discounts(ledger: Ledger) -> None:
    ledger.post_receipt(replace(nameless("v1", status="review"), total=448), [Discount("offer", COLA, 249)])
    assert ledger.decide("v1", "accept", by="eve", t_ns=T_NS)
    assert balances(ledger)["receivable"] == 448
    standing = ledger.standing("v1")
    assert standing is not None and standing.discounts == (Discount("offer", COLA, 249),) and standing.lines == TWO


def test_what_was_billed_keeps_its_rate_and_what_is_added_has_that_of_now(ledger: Ledger) -> None:
    ledger.post_receipt(nameless("v1"))
    rates = {COLA: 7.0, BREAD: 19.0, SOUP: 19.0}
    products = tuple(
        product.model_copy(update={"vat_rate": rates.get(product.gtin, 0.0)}) for product in STORE.products
    )
    ledger.adopt(STORE.model_copy(update={"products": products}))
    lines = [ReceiptLine(COLA, 1, 119, 1.0), ReceiptLine(SOUP, 1, 119, 1.0)]
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=lines)
    assert balances(ledger) == {"receivable": 238, "revenue 19%": -200, "vat 19%": -38}


def test_each_refusal_of_a_decision_is_in_words(ledger: Ledger) -> None:
    ledger.post_receipt(nameless("v1"))
    ledger.post_receipt(nameless("v2", status="review"))
    ledger.open_visit("v3", None, T_NS)
    accepted = "visit '{}': want a receipt in review to accept, got one that was settled"
    lines = "lines: want lines with the decision correct and no other, got "
    for visit, decision, options, message in (
        ("v1", "burn", {}, "decision: want accept, correct or waive, got 'burn'"),
        ("v1", "correct", {}, f"{lines}correct"),
        ("v1", "waive", {"lines": ()}, f"{lines}waive"),
        ("v1", "waive", {"discounts": (Discount("o", COLA, 1),)}, f"{lines}waive"),
        ("v1", "accept", {}, accepted.format("v1")),
        ("v1", "waive", {"revision": 2}, "visit 'v1': want decision 1 before 2, got none"),
        ("v3", "waive", {}, "visit 'v3': want a receipt to decide about, got none"),
        ("v9", "waive", {"revision": 5}, "visit 'v9': want a receipt to decide about, got none"),
    ):
        with refused(ledger, LedgerError, message):
            ledger.decide(visit, decision, **{"by": "eve", "t_ns": T_NS, **options})  # type: ignore[arg-type]
    for options, message in (
        ({"revision": 0}, "revision: want 1 to 1000000, got 0"),
        ({"revision": 10**6 + 1}, "revision: want 1 to 1000000, got 1000001"),
        ({"by": ""}, "by: want 1 to 255 characters, got 0"),
        ({"note": "x" * 2001}, "note: want 0 to 2000 characters, got 2001"),
        ({"t_ns": "now"}, "t_ns: want an integer, got str"),
        ({"visit": ""}, "visit: want 1 to 255 characters, got 0"),
    ):
        with refused(ledger, EntryError, message):
            ledger.decide(**{"visit": "v1", "decision": "waive", "by": "eve", "t_ns": T_NS, **options})  # type: ignore[arg-type]
    ledger.decide("v2", "waive", by="eve", t_ns=T_NS)
    with refused(ledger, LedgerError, accepted.format("v2")):
        ledger.decide("v2", "accept", by="eve", t_ns=T_NS, revision=2)
    for change in ({"by": "adam"}, {"t_ns": T_NS + 1}, {"note": "n"}, {"decision": "accept"}):
        with refused(ledger, IdempotencyConflict, "'v2/decision 1': recorded before with other contents"):
            ledger.decide(**{"visit": "v2", "decision": "waive", "by": "eve", "t_ns": T_NS, **change})  # type: ignore[arg-type]


def test_open_visits_go_to_review_together(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    ledger.open_visit("v2", None, T_NS + 1)
    reason = Reason(ReasonKind.RESTARTED)
    assert ledger.review_open_visits(T_NS + 9, reason) == ["v1", "v2"]
    entry = ledger.entries("v1")[-1]
    assert (entry.kind, entry.t_ns) == ("receipt review", T_NS + 9)
    asked = entry.request
    assert (asked["enter"], asked["exit"], asked["total"], asked["lines"]) == (T_NS, T_NS + 9, 0, [])
    assert asked["reason"] == reason_text((reason,))
    assert [(one.visit, one.account) for one in ledger.reviews()] == [("v1", "alice"), ("v2", None)]
    assert ledger.review_open_visits(T_NS + 10, reason) == []


def test_reviews_are_those_without_a_decision_in_their_order(ledger: Ledger) -> None:
    for visit in ("v2", "v1", "v3"):
        ledger.post_receipt(nameless(visit, status="review"))
    ledger.post_receipt(nameless("v4"))
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert [one.visit for one in ledger.reviews()] == ["v2", "v3"]
    assert [(entry.visit, entry.kind) for entry in ledger.decisions_after(0)] == [("v1", "decision waive")]
    assert ledger.decisions_after(-7) == ledger.decisions_after(4) and ledger.decisions_after(5) == []


def test_a_standing_is_read_from_the_books_or_from_entries_that_were_read(ledger: Ledger) -> None:
    assert ledger.standing("v1") is None and ledger.standing("v1", []) is None
    ledger.open_visit("v1", "alice", T_NS)
    opened = Standing("v1", "alice", "open", None, "EUR", 0, (), 0)
    assert ledger.standing("v1") == opened and not opened.is_final
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    entries = ledger.entries("v1")
    waiting = Standing("v1", "alice", "review", "unsure", "EUR", 697, TWO, 0)
    assert ledger.standing("v1") == waiting == ledger.standing("v1", entries) and not waiting.is_final
    ledger.decide("v1", "accept", by="eve", t_ns=T_NS)
    decided = replace(waiting, status="decided", revision=1)
    assert ledger.standing("v1") == decided and decided.is_final
    assert ledger.standing("v1", entries) == waiting, "as of those entries"
    assert ledger.standing("v1", entries[:1]) == opened


# ---- entries of other kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"name": name}, LedgerError, f"name: want no name that begins with opened, receipt, decision, got {name!r}")
        for name in ("receipt", "receipt/answer", "opened twice", "decision 1", " decision", "receipt\tx")
    ]
    + [
        ({"kind": kind}, LedgerError, f"kind: want a kind that the ledger does not use itself, got {kind!r}")
        for kind in ("visit opened", "receipt settled", "receipt review", "decision waive")
    ]
    + [
        ({"postings": (Posting("a", "EUR", 5), Posting("b", "USD", -5), Posting("a", "EUR", -5))}, LedgerError,
         "postings: want a sum of zero in every currency, got {'USD': -5}"),
        ({"postings": (Posting("", "EUR", 0),)}, EntryError, "account: want 1 to 255 characters, got 0"),
        ({"postings": (Posting("a", "", 0),)}, EntryError, "currency: want 1 to 255 characters, got 0"),
        ({"postings": (Posting("a", "EUR", 10**12 + 1),)}, EntryError,
         f"amount: want {-(10**12)} to {10**12}, got {10**12 + 1}"),
        ({"postings": (Posting("a", "EUR", -(10**12) - 1),)}, EntryError,
         f"amount: want {-(10**12)} to {10**12}, got {-(10**12) - 1}"),
        ({"request": {"x": {1}}}, LedgerError,
         "request: want integers and text, got: Object of type set is not JSON serializable"),
        ({"visit": ""}, EntryError, "visit: want 1 to 255 characters, got 0"),
        ({"name": ""}, EntryError, "name: want 1 to 255 characters, got 0"),
        ({"kind": ""}, EntryError, "kind: want 1 to 255 characters, got 0"),
        ({"t_ns": 1.0}, EntryError, "t_ns: want an integer, got float"),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused(
    ledger: Ledger, change: dict[str, Any], kind: type[FusionError], message: str
) -> None:
    with refused(ledger, kind, message):
        ledger.record(**{"visit": "v1", "name": "x", "kind": "k", "t_ns": T_NS, "request": {}, **change})


def test_an_entry_is_recorded_once_with_all_of_it(ledger: Ledger) -> None:
    legs = (Posting("a", "EUR", 10**12), Posting("b", "EUR", -(10**12)))
    given: dict[str, Any] = {
        "visit": "v1", "name": "receipts", "kind": "receipt", "t_ns": T_NS, "request": {"x": [1, "y"]},
        "postings": legs,
    }  # fmt: skip
    assert ledger.record(**given) is True and ledger.record(**given) is False
    entry = ledger.recorded("v1", "receipts")
    assert entry is not None and (entry.kind, entry.t_ns, entry.key) == ("receipt", T_NS, "v1/receipts")
    assert (entry.request, entry.postings) == ({"x": [1, "y"]}, legs)
    for change in (
        {"kind": "k"}, {"t_ns": T_NS + 1}, {"request": {"x": [1, "z"]}}, {"postings": ()}, {"postings": legs[::-1]},
    ):  # fmt: skip
        with refused(ledger, IdempotencyConflict, "'v1/receipts': recorded before with other contents"):
            ledger.record(**{**given, **change})
    assert ledger.record("v1", "opening", "k", T_NS, {}) and ledger.record("v1", " ", "k", T_NS, {})
    with ledger.batch():
        assert ledger.record("v1", "new", "k", T_NS, {}) and not ledger.record("v1", "new", "k", T_NS, {})


# ---- who it was ------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(ledger: Ledger) -> Ledger:
    """Books of alice, behind p1 and p2, and of bob, who has no pseudonym."""
    ledger.hold(Holder("p1", "alice", "tok1", "a@example.org", T_NS))
    ledger.hold(Holder("p2", "alice", "tok2", None, T_NS + 5))
    for visit, account, t_ns in (("v1", "p1", T_NS), ("v2", "p2", T_NS + 5), ("v3", "bob", T_NS + 6), ("v4", None, 0)):
        ledger.open_visit(visit, account, t_ns)
    return ledger


def test_who_is_behind_a_visit(known: Ledger) -> None:
    assert known.holder("p1") == Holder("p1", "alice", "tok1", "a@example.org", T_NS) == known.customer("v1")
    assert known.holder("p9") is None and known.customer("v3") is None and known.customer("v4") is None
    accounts = [known.account_of(visit) for visit in ("v1", "v2", "v3", "v4", "v9")]
    assert accounts == ["alice", "alice", "bob", None, None]
    assert known.pseudonyms("alice") == ["p2", "p1"] and known.pseudonyms("bob") == []
    assert known.visits("alice") == ["v2", "v1"] and known.visits("p1") == ["v1"] and known.visits("bob") == ["v3"]
    assert known.visits_beside("v1") == ["v2", "v1"] and known.visits_beside("v4") == [] == known.visits_beside("v9")
    links, holders = known.named()
    assert [tuple(row) for row in links] == [("v1", "p1", T_NS), ("v2", "p2", T_NS + 5), ("v3", "bob", T_NS + 6)]
    assert [tuple(row) for row in holders] == [("p1", "alice", T_NS), ("p2", "alice", T_NS + 5)]
    for call in (
        known.holder, known.customer, known.account_of, known.visits_beside, known.pseudonyms, known.visits,
        known.debts, known.unlink_account, known.standing, known.entries,
    ):  # fmt: skip
        with pytest.raises(EntryError, match=r"want 1 to 255 characters, got 0$"):
            call("")


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        (Holder("", "alice"), "pseudonym: want 1 to 255 characters, got 0"),
        (Holder("p" * 256, "alice"), "pseudonym: want 1 to 255 characters, got 256"),
        (Holder("p", ""), "account: want 1 to 255 characters, got 0"),
        (Holder("p", "a", ""), "token: want 1 to 2000 characters, got 0"),
        (Holder("p", "a", "t" * 2001), "token: want 1 to 2000 characters, got 2001"),
        (Holder("p", "a", None, "e" * 256), "email: want 1 to 255 characters, got 256"),
        (Holder("p", "a", since_ns=2**63), f"since_ns: want {-(2**63)} to {2**63 - 1}, got {2**63}"),
    ],
)
def test_what_cannot_be_kept_of_a_customer_is_named(ledger: Ledger, holder: Holder, message: str) -> None:
    with refused(ledger, EntryError, message):
        ledger.hold(holder)
    assert ledger.named() == ([], [])


def test_a_pseudonym_belongs_to_one_customer(known: Ledger) -> None:
    with pytest.raises(LedgerError, match="the vault failed and nothing was written: UNIQUE constraint"):
        known.hold(Holder("p1", "bob"))
    assert known.holder("p1") == Holder("p1", "alice", "tok1", "a@example.org", T_NS)
    known.hold(Holder("p3", "carol", "t" * 2000, "e" * 255))
    assert known.holder("p3") == Holder("p3", "carol", "t" * 2000, "e" * 255, 0)


def test_debts_are_what_each_visit_owes(known: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known.debts("alice") == {}
    known.post_receipt(receipt("v1", *TWO, account="p1"))
    for i in range(5):
        known.open_visit(f"w{i}", "p2", T_NS + 50 + i)
        known.post_receipt(receipt(f"w{i}", *TWO, account="p2"))
    paid = (Posting("provider", "EUR", 697), Posting("receivable", "EUR", -697))
    known.record("w1", "cash", "captured", T_NS, {}, paid)
    for name in ("cash", "cash again"):
        known.record("w2", name, "captured", T_NS, {}, paid)
    owed = {"v1": 697, "w0": 697, "w3": 697, "w4": 697}
    for most in (1, 2, 500):
        monkeypatch.setattr("fusion.money.ledger._VISITS_MAX", most)
        assert known.debts("alice") == owed
    assert known.debts("p1") == {"v1": 697} and known.debts("bob") == {}


def test_names_are_forgotten_by_time_by_account_and_by_name(known: Ledger) -> None:
    assert known.unlink_before(T_NS) == 0 and known.unlink_before(T_NS + 5) == 1
    assert known.account_of("v1") is None and known.holder("p1") is None and known.account_of("v2") == "alice"
    assert known.unlink_names({"p2", "stranger"}) == 1 and known.holder("p2") is None
    assert known.unlink_account("stranger") == 0 and known.unlink_account("bob") == 1
    assert known.named() == ([], []) and known.verify() is None
    with pytest.raises(EntryError, match=r"^t_ns: want an integer, got str$"):
        known.unlink_before("today")  # type: ignore[arg-type]


def test_an_account_is_forgotten_with_all_its_pseudonyms(known: Ledger) -> None:
    assert known.unlink_account("alice") == 2
    links, holders = known.named()
    assert [tuple(row) for row in links] == [("v3", "bob", T_NS + 6)] and holders == []


def test_nothing_is_forgotten_inside_a_batch(known: Ledger) -> None:
    message = "accounts cannot be unlinked inside a batch; end the batch first"
    with known.batch():
        for call in (
            lambda: known.unlink_before(2**62), lambda: known.unlink_account("alice"),
            lambda: known.unlink_names({"p1"}),
        ):  # fmt: skip
            with pytest.raises(LedgerError) as raised:
                call()
            assert str(raised.value) == message
    assert known.account_of("v1") == "alice"
