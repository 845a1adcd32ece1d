"""The ledger: every cent accounted for, each event charged once, strange text kept verbatim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from conftest import Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from money.books import BREAD, COLA, INJECTIONS, SOUP, STAMP, STORE, T_NS, TWO, balances, receipt

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.checkpoint import Head
from fusion.money.entries import AMOUNT_MAX, Posting
from fusion.money.ledger import Ledger
from fusion.money.sales import Discount
from fusion.money.vault import Holder
from fusion.results import PersonEntered, PersonLeft, Reason, ReasonKind, ReceiptLine


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        yield opened


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


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_course_of_visits_matches_a_simple_model(next_place: Callable[[], Place], data: st.DataObject) -> None:
    owed: dict[str, int] = {}
    waiting: dict[str, int] = {}
    revisions: dict[str, int] = {}
    with next_place().open(STORE) as ledger:
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


def test_a_visit_in_review_moves_no_money_until_a_decision(ledger: Ledger) -> None:
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


def test_vat_of_a_visit_stays_as_it_was_posted(ledger: Ledger, place: Place) -> None:
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    ledger.close()
    changed = tuple(product.model_copy(update={"vat_rate": 50.0}) for product in STORE.products)
    with place.open(STORE.model_copy(update={"products": changed})) as later:
        assert not later.post_receipt(receipt("v1", *TWO, status="review"))
        later.decide("v1", "accept", by="eve", t_ns=T_NS)
        assert balances(later)["vat 19%"] == -80


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


def test_results_of_a_run_are_posted_as_they_come(ledger: Ledger) -> None:
    results = [
        PersonEntered(T_NS, 1, "in", "alice", "v1"),
        PersonEntered(T_NS + 1, 2, "in", None, None, staff=True),
        PersonEntered(T_NS + 2, 3, "in", "alice", "v1"),  # a companion
        PersonLeft(T_NS + 3, 1, "out", "alice", "v1"),
        receipt("v1", *TWO),
    ]
    assert [ledger.add(result) for result in results] == [True, False, False, False, True]
    assert balances(ledger)["receivable"] == 697 and ledger.open_visits() == []


def test_reasons_are_kept_as_text_and_by_kind(ledger: Ledger) -> None:
    doubt = Reason(ReasonKind.PERSON_UNCERTAIN, plate="a1", delta_g=-330.5, probability=0.61)
    note = Reason(ReasonKind.NOTE, detail="a note")
    ledger.post_receipt(replace(receipt("v1", *TWO, status="review"), reasons=(doubt, note)))
    (waiting,) = ledger.reviews()
    assert waiting.reasons == (doubt,)
    assert waiting.reason is not None and "a1" in waiting.reason and waiting.reason.endswith("; a note")


# ---- once and only once ----------------------------------------------------------------------------------------------


def test_posting_again_changes_nothing_and_other_contents_are_a_conflict(ledger: Ledger) -> None:
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
    ("bad", "fault"),
    [
        ({"total": 698}, "total: want the sum of the lines less discounts, 697, got 698"),
        ({"currency": "USD"}, "currency: want EUR, got 'USD'"),
        ({"status": "paid"}, "status: want settled or review, got 'paid'"),
        ({"visit": ""}, "visit: want"),
        ({"visit": "v" * 256}, "visit: want"),
        ({"visit": "\ud800"}, "visit: want"),
        ({"exit_ns": 2**63}, "exit_ns: want"),
        ({"exit_ns": 1.5}, "exit_ns: want an integer, got float"),
        ({"issued_ns": "now"}, "issued_ns: want an integer, got str"),
        ({"enter_ns": -(2**63) - 1}, "enter_ns: want"),
        ({"account": "a" * 256}, "account: want"),
        ({"lines": (ReceiptLine("40063813339310", 1, 697, 1.0),)}, "40063813339310"),
        ({"lines": (ReceiptLine(COLA, 0, 697, 1.0),), "total": 0}, "quantity: want"),
        ({"lines": (ReceiptLine(COLA, 1, -697, 1.0),), "total": -697}, "unit_price: want"),
        ({"lines": (ReceiptLine(COLA, 1, 697, float("nan")),)}, "confidence: want 0 to 1, got nan"),
        ({"lines": (ReceiptLine(COLA, AMOUNT_MAX, 2, 1.0),), "total": 2 * AMOUNT_MAX}, "want"),
    ],
)
def test_a_receipt_that_does_not_add_up_is_refused_and_leaves_nothing(
    ledger: Ledger, bad: dict[str, object], fault: str
) -> None:
    with pytest.raises(LedgerError, match=fault):
        ledger.post_receipt(replace(receipt("v1", *TWO), **bad))
    assert ledger.head().seq == 0 and balances(ledger) == {}


@pytest.mark.parametrize(
    ("discount", "fault"),
    [
        (Discount("", COLA, 1), "offer: want"),
        (Discount("offer", "", 1), "gtin: want"),
        (Discount("offer", COLA, 0), "discount: want"),
        (Discount("offer", COLA, 499), "discount: want"),
        (Discount("offer", STAMP, 1), "discount: want"),
    ],
)
def test_a_discount_takes_no_more_than_its_product_costs(ledger: Ledger, discount: Discount, fault: str) -> None:
    with pytest.raises(LedgerError, match=fault):
        ledger.post_receipt(receipt("v1", *TWO), [discount])
    assert ledger.head().seq == 0
    whole = replace(receipt("v1", *TWO), total=199)
    assert ledger.post_receipt(whole, [Discount("offer", COLA, 498)]) and balances(ledger)["receivable"] == 199


@pytest.mark.parametrize(
    ("visit", "decision", "options"),
    [
        ("unknown", "accept", {}),
        ("v1", "accept", {}),
        ("v1", "correct", {}),
        ("v1", "waive", {"lines": TWO}),
        ("v1", "waive", {"revision": 2}),
        ("v1", "burn", {}),
        ("v1", "waive", {"by": ""}),
    ],
)
def test_decisions_that_make_no_sense_are_refused(
    ledger: Ledger, visit: str, decision: str, options: dict[str, object]
) -> None:
    ledger.post_receipt(receipt("v1", *TWO))
    with pytest.raises(LedgerError):
        ledger.decide(visit, decision, **{"by": "eve", "t_ns": T_NS, **options})  # type: ignore[arg-type]
    assert balances(ledger)["receivable"] == 697


def test_entries_of_other_kinds_are_kept_once_and_balance(ledger: Ledger) -> None:
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


def test_the_head_of_a_short_history_is_golden(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    ledger.decide("v1", "accept", by="eve", t_ns=T_NS + 100)
    assert ledger.head() == Head(3, "5688a1c58cbcf6c0bfe487add0a61272e014e10b3c1f84ed0e8b6b7039f62286")


# ---- text from outside -----------------------------------------------------------------------------------------------


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


def test_strange_text_in_holders_and_entries_comes_back_verbatim(ledger: Ledger) -> None:
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
