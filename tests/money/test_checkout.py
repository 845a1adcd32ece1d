"""How far a payment is, in every field of it: at the entry, at the door, once the bill is final, and after a person."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Place
from money.books import BREAD, COLA, STORE, T_NS, TWO, balances
from money.checkouts import ENTER, Shop, priced

from fusion.errors import EntryError, LedgerError
from fusion.money.entries import Posting
from fusion.money.payments import Checkout, Payment
from fusion.money.providers import Answer, InProcessProvider, Terms
from fusion.money.providers.in_process import Fault
from fusion.money.providers.provider import Step
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.store.models import PaymentPolicy, Store

S_NS = 10**9
PARTIAL = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=5000, partial=True)})
ONE_BREAD = [ReceiptLine(BREAD, 1, 199, 1.0)]


class Till(Shop):
    """A shop whose provider has the faults of a list, one for each request."""

    def __init__(self, folder: Path, store: Store = STORE, *, terms: Terms | None = None) -> None:
        self.faults: list[Fault | None] = []
        self.asked: list[str] = []

        def fault(step: Step, key: str) -> Fault | None:
            self.asked.append(f"{step} {key.removeprefix('shop/')}")
            return self.faults.pop(0) if self.faults else None

        super().__init__(Place(folder), store, InProcessProvider(fault, terms=terms))
        self.hold()

    def steps(self) -> list[str]:
        """What the provider was asked since the last call."""
        asked, self.asked = self.asked, []
        return asked

    def kinds(self, subject: str) -> list[str]:
        return [entry.kind for entry in self.ledger.entries(subject)]


Open = Callable[..., Till]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def make(store: Store = STORE, **options: Terms) -> Till:
            till = Till(tmp_path, store, **options)
            stack.callback(till.ledger.close)
            return till

        yield make


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(LedgerError) as raised:
        yield
    assert str(raised.value) == message


# ---- at the entry ----------------------------------------------------------------------------------------------------


def test_who_owes_nothing_comes_in_and_the_provider_is_asked_with_mode_enter_alone(opened: Open) -> None:
    till = opened()
    free = till.checkout.admit("p1", T_NS)
    assert free == Payment("p1", "open", None, 0, 0) and till.steps() == [] and (free.reason, free.debt) == ("", 0)


def test_an_authorisation_at_the_entry_is_asked_for_once(opened: Open) -> None:
    till = opened(ENTER)
    held = Payment("p1", "open", None, 0, 5000)
    assert till.checkout.admit("p1", T_NS) == held == till.checkout.admit("p1", T_NS + 1)
    assert till.steps() == ["authorise p1/1"]


def test_who_was_declined_stays_outside_and_may_try_again(opened: Open) -> None:
    till = opened(ENTER)
    till.faults = ["decline"]
    assert till.checkout.admit("p1", T_NS) == Payment("p1", "unpaid", None, 0, 0, "insufficient funds")
    assert till.checkout.admit("p1", T_NS + S_NS) == Payment("p1", "open", None, 0, 5000)
    assert till.steps() == ["authorise p1/1", "authorise p1/2"]


def test_an_answer_that_is_missing_at_the_entry_is_found_out_by_the_next_call(opened: Open) -> None:
    till = opened(ENTER)
    till.faults = ["lost after"]
    assert till.checkout.admit("p1", T_NS) == Payment("p1", "pending", None, 0, 0, "no answer")
    assert till.checkout.admit("p1", T_NS + S_NS) == Payment("p1", "open", None, 0, 5000)
    assert till.steps() == ["authorise p1/1"]


def test_less_than_was_asked_for_lets_in_where_the_store_wants_so(opened: Open, tmp_path: Path) -> None:
    till = opened(ENTER)
    till.faults = ["partial"]
    assert till.checkout.admit("p1", T_NS) == Payment("p1", "unpaid", None, 0, 0, "approved in part")
    assert till.steps() == ["authorise p1/1", "release p1/2"] and till.agrees() == {}
    (tmp_path / "other").mkdir()
    with contextlib.closing(Till(tmp_path / "other", PARTIAL).ledger) as ledger:
        provider = InProcessProvider(lambda step, key: "partial")
        checkout = Checkout(ledger, provider, PARTIAL)
        part = Payment("p1", "open", None, 0, 2500, "approved in part")
        assert checkout.admit("p1", T_NS) == part == checkout.admit("p1", T_NS + 1) and provider.held == 2500


def test_a_debt_counts_once_its_payment_has_failed(opened: Open) -> None:
    till = opened(ENTER)
    till.ledger.hold(Holder("p2", "account of p1", "tok", None, T_NS))
    till.ledger.hold(Holder("p3", "someone else", "tok", None, T_NS))
    till.faults = ["decline"]
    unpaid = till.checkout.receipt(priced(*TWO))
    assert unpaid == Payment("v1", "unpaid", 697, 0, 0, "insufficient funds")
    till.steps()
    wanted = Payment("p2", "unpaid", None, 0, 0, "owes from earlier visits", 697)
    assert till.checkout.admit("p2", T_NS) == wanted and till.steps() == []
    debts = [till.checkout.debt(name) for name in ("p1", "p2", "account of p1", "p3", "unknown")]
    assert debts == [697, 697, 697, 0, 0]
    # Under way, in review, or paid: no debt.
    till.faults = ["lost before"]
    assert till.checkout.receipt(priced(*TWO, visit="v2", account="p2")).status == "pending"
    till.ledger.post_receipt(priced(*TWO, visit="v3", account="p2", status="review"))
    assert till.checkout.debt("p1") == 697
    till.ledger.post_receipt(priced(*TWO, visit="v4", account="p2"))
    assert till.checkout.debt("p1") == 697, "its payment has not begun"
    till.faults = ["decline"]
    till.checkout.settle("v4", T_NS)
    assert till.checkout.debt("p1") == 2 * 697
    till.checkout.close("v4", by="eve", t_ns=T_NS)
    assert till.checkout.debt("p1") == 697


def test_what_was_authorised_at_the_entry_moves_to_the_visit(opened: Open) -> None:
    till = opened(ENTER)
    till.checkout.admit("p1", T_NS + 3)
    assert till.checkout.open_visit("v1", "p1", T_NS + 9) is True
    assert till.checkout.open_visit("v1", "p1", T_NS + 10) is False
    given, taken = till.ledger.entries("p1")[-1], till.ledger.entries("v1")[-1]
    moved = {"reference": "auth-1", "amount": 5000, "since": T_NS + 3}
    assert (given.kind, given.key, given.request) == (
        "authorisation handed over", "p1/authorisation 1", {**moved, "hold": "1"},
    )  # fmt: skip
    assert (taken.kind, taken.key, taken.request) == (
        "authorisation taken over", "v1/authorisation gate 1", {**moved, "hold": "gate 1"},
    )  # fmt: skip
    legs = (Posting("authorised", "EUR", 5000), Posting("authorised, contra", "EUR", -5000))
    assert taken.postings == legs and given.postings == tuple(leg._replace(amount=-leg.amount) for leg in legs)
    assert (given.t_ns, taken.t_ns) == (T_NS + 9, T_NS + 9)
    assert till.checkout.state("v1") == Payment("v1", "open", None, 0, 5000)
    assert till.checkout.open_visit("v2", None, T_NS) and till.kinds("v2") == ["visit opened"]
    # It is the visit's now: the next one at the gate needs another.
    assert till.checkout.admit("p1", T_NS + 20) == Payment("p1", "open", None, 0, 0)


def test_an_authorisation_that_is_being_released_stays_at_the_gate(opened: Open) -> None:
    till = opened(ENTER)
    till.faults = ["partial", "lost before"]
    assert till.checkout.admit("p1", T_NS) == Payment("p1", "pending", None, 0, 2500, "no answer")
    till.checkout.open_visit("v1", "p1", T_NS + 9)
    assert till.kinds("v1") == ["visit opened"]
    till.checkout.recover(T_NS + 10)
    assert till.agrees() == {}


def test_a_receipt_of_a_person_whose_entry_was_not_seen_takes_their_authorisation(opened: Open) -> None:
    till = opened(ENTER)
    till.checkout.admit("p1", T_NS)
    assert till.checkout.posted(priced(*TWO)) and not till.checkout.posted(priced(*TWO))
    assert till.ledger.entries("v1")[0].t_ns == T_NS, "when they came in"
    assert till.kinds("v1") == ["visit opened", "authorisation taken over", "receipt settled"]
    till.ledger.hold(Holder("p2", "b", "tok", None, T_NS))
    till.checkout.admit("p2", T_NS)
    till.checkout.posted(replace(priced(*TWO, visit="v2", account="p2"), enter_ns=None))
    assert till.ledger.entries("v2")[0].t_ns == T_NS + 60, "when they left, where nothing else is known"
    # Without anything held, or an account, only the receipt is posted.
    till.checkout.posted(priced(*TWO, visit="v3", account="p2"))
    till.checkout.posted(priced(*TWO, visit="v4", account=None))
    assert till.kinds("v3") == till.kinds("v4") == ["receipt settled"]


# ---- at the door -----------------------------------------------------------------------------------------------------


@pytest.fixture
def door(opened: Open) -> Till:
    till = opened(STORE.model_copy(update={"payment": PaymentPolicy(mode="door")}))
    till.checkout.open_visit("v1", "p1", T_NS)
    return till


def test_what_is_held_is_enough_for_what_costs_as_much(door: Till) -> None:
    confirm = door.checkout.confirm
    assert confirm("v1", 0, T_NS) and door.steps() == []
    assert confirm("v1", 500, T_NS) and confirm("v1", 500, T_NS + 1) and confirm("v1", 499, T_NS + 2)
    assert door.steps() == ["authorise v1/1"]
    assert confirm("v1", 501, T_NS + 3) and door.steps() == ["authorise v1/2"]
    assert (door.provider.held, door.checkout.state("v1").authorised) == (1001, 1001)


def test_less_than_a_basket_costs_is_released_at_once(door: Till) -> None:
    door.faults = ["partial"]
    assert not door.checkout.confirm("v1", 500, T_NS)
    assert door.steps() == ["authorise v1/1", "release v1/2"] and door.provider.held == 0
    # What was held before stays.
    assert door.checkout.confirm("v1", 300, T_NS + 1)
    door.steps()
    door.faults = ["partial"]
    assert not door.checkout.confirm("v1", 500, T_NS + 2) and door.provider.held == 300
    assert door.steps() == ["authorise v1/4", "release v1/5"]


def test_a_confirmation_without_an_answer_is_found_out_first(door: Till) -> None:
    door.faults = ["lost after"]
    assert not door.checkout.confirm("v1", 500, T_NS)
    assert door.checkout.confirm("v1", 500, T_NS + 1) and door.steps() == ["authorise v1/1"]
    door.faults = ["lost after"]
    assert not door.checkout.confirm("v1", 600, T_NS + 2)
    assert door.checkout.confirm("v1", 700, T_NS + 3)
    assert door.steps() == ["authorise v1/2", "authorise v1/3"]
    door.faults = ["lost before", "lost before"]
    assert not door.checkout.confirm("v1", 800, T_NS + 4) and not door.checkout.confirm("v1", 800, T_NS + 5)
    assert door.steps() == ["authorise v1/4"] * 2, "and no other while it is missing"


def test_a_declined_confirmation_may_be_tried_again(door: Till) -> None:
    door.faults = ["decline"]
    assert not door.checkout.confirm("v1", 500, T_NS)
    assert door.checkout.confirm("v1", 500, T_NS + 7)
    again = door.ledger.recorded("v1", "retry 1")
    assert again is not None and (again.kind, again.t_ns, again.request) == ("payment to be tried again", T_NS + 7, {})


# ---- settling --------------------------------------------------------------------------------------------------------


def test_a_payment_says_in_each_field_how_far_it_is(opened: Open) -> None:
    till = opened()
    till.ledger.open_visit("v1", "p1", T_NS)
    assert till.checkout.state("v1") == Payment("v1", "open", None, 0, 0)
    assert till.checkout.state("unknown") == Payment("unknown", "open", None, 0, 0)
    review = till.checkout.receipt(priced(*TWO, status="review"))
    assert review == Payment("v1", "review", None, 0, 0) and till.steps() == []
    till.faults = ["decline"]
    declined = till.checkout.decide("v1", "accept", by="eve", t_ns=T_NS)
    assert declined == Payment("v1", "unpaid", 697, 0, 0, "insufficient funds") == till.checkout.settle("v1", T_NS + 1)
    assert till.steps() == ["authorise v1/1"], "what was declined is not repeated by itself"
    till.faults = ["lost before"]
    pending = till.checkout.collect("v1", T_NS + 2)
    assert pending == Payment("v1", "pending", 697, 0, 0, "no answer")
    assert till.checkout.settle("v1", T_NS + 3) == Payment("v1", "paid", 697, 697, 0)
    till.faults = ["decline", "invalid"]
    owing = till.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 4, revision=2, lines=ONE_BREAD)
    assert owing == Payment("v1", "paid", 199, 199, 0)
    till.faults = ["invalid"]
    owing = till.checkout.decide("v1", "waive", by="eve", t_ns=T_NS + 5, revision=3)
    assert owing == Payment("v1", "owing", 0, 199, 0, "no such means of payment")
    closed = till.checkout.close("v1", by="eve", t_ns=T_NS + 6, note="cash")
    assert closed == Payment("v1", "closed", 0, 199, 0, "no such means of payment")


def test_without_a_retry_nothing_is_noted_where_nothing_was_declined(opened: Open) -> None:
    till = opened()
    till.checkout.receipt(priced(*TWO))
    before = till.ledger.head()
    assert till.checkout.collect("v1", T_NS).status == "paid" and till.ledger.head() == before


def test_what_the_provider_drops_is_released_and_replaced_once_there_is_a_price(opened: Open) -> None:
    till = opened(ENTER, terms=Terms(holds_kept_s=100.0))
    till.checkout.admit("p1", T_NS)
    till.checkout.open_visit("v1", "p1", T_NS)
    till.steps()
    assert till.checkout.settle("v1", T_NS + 100 * S_NS).authorised == 5000, "to the last instant it is held"
    assert till.checkout.settle("v1", T_NS + 100 * S_NS + 1) == Payment("v1", "open", None, 0, 0)
    assert till.checkout.settle("v1", T_NS + 200 * S_NS).authorised == 0 and till.steps() == ["release v1/1"]
    till.ledger.post_receipt(priced(*TWO))
    assert till.checkout.settle("v1", T_NS + 201 * S_NS).status == "paid"
    assert till.steps() == ["authorise v1/2", "capture v1/3"]


def test_a_clock_says_how_old_a_question_is_whatever_the_sensors_say(opened: Open) -> None:
    till = opened()
    now_ns = [T_NS + 500 * S_NS]
    checkout = Checkout(till.ledger, till.provider, STORE, lambda: now_ns[0])
    till.faults = ["decline"]
    checkout.receipt(priced(*TWO))
    assert till.ledger.entries("v1")[-1].t_ns == T_NS + 500 * S_NS
    now_ns[0] += 1
    assert checkout.collect("v1", T_NS).status == "paid"
    retried = till.ledger.recorded("v1", "retry 1")
    assert retried is not None and retried.t_ns == T_NS + 500 * S_NS + 1


# ---- after a crash ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_ns", "is_given_back"), [(120 * S_NS - 1, False), (120 * S_NS, True)])
def test_an_authorisation_on_which_no_visit_begins_is_released_after_two_minutes(
    opened: Open, after_ns: int, is_given_back: bool
) -> None:
    till = opened(ENTER)
    till.checkout.admit("p1", T_NS)
    assert till.checkout.recover(T_NS + after_ns) == [Payment("p1", "open", None, 0, 0 if is_given_back else 5000)]
    assert till.provider.held == (0 if is_given_back else 5000)


def test_what_is_missing_at_the_gate_is_found_out_in_time(opened: Open) -> None:
    till = opened(ENTER)
    till.faults = ["lost after"]
    till.checkout.admit("p1", T_NS)
    till.faults = ["lost before"]
    assert till.checkout.recover(T_NS + 1) == [Payment("p1", "open", None, 0, 5000)]
    assert till.checkout.recover(T_NS + 121 * S_NS) == [Payment("p1", "pending", None, 0, 5000, "no answer")]
    assert till.checkout.recover(T_NS + 122 * S_NS) == [Payment("p1", "open", None, 0, 0)]
    assert till.checkout.recover(T_NS + 123 * S_NS) == []


def test_a_recovery_takes_up_whatever_is_not_done(opened: Open) -> None:
    till = opened()
    till.faults = ["lost before", "decline"]
    till.checkout.receipt(priced(*TWO))
    till.checkout.receipt(priced(*TWO, visit="v2"))
    till.ledger.post_receipt(priced(*TWO, visit="v3"))
    till.ledger.open_visit("v4", "p1", T_NS)
    assert [one.visit for one in till.checkout.outstanding()] == ["v1", "v2", "v3"]
    assert till.checkout.outstanding()[0].status == "pending"
    found = till.checkout.recover(T_NS + 1)
    assert [(one.visit, one.status) for one in found] == [("v1", "paid"), ("v2", "unpaid"), ("v3", "paid")]
    assert [(one.visit, one.status) for one in till.checkout.outstanding()] == [("v2", "unpaid")]
    assert till.kinds("v4") == ["visit opened"], "it goes on"
    assert till.checkout.recover(T_NS + 2, restarted=True) == [till.checkout.state("v2")]
    standing = till.ledger.standing("v4")
    assert standing is not None and standing.status == "review"


# ---- what a person does ----------------------------------------------------------------------------------------------


def missing(till: Till, *faults: Fault | None) -> None:
    """A visit whose payment lost an answer."""
    till.faults = list(faults)
    assert till.checkout.receipt(priced(*TWO)).status == "pending"
    till.steps()


def test_a_person_enters_what_was_carried_out(opened: Open) -> None:
    till = opened()
    missing(till, "lost after")
    paid = till.checkout.resolve(
        "v1", carried_out=True, by="eve", t_ns=T_NS + 5, reference="auth-1", note="card 4111 1111 1111 1111"
    )
    assert paid == Payment("v1", "paid", 697, 697, 0) and till.steps() == ["capture v1/2"]
    entered = till.ledger.recorded("v1", "payment 1/answer")
    assert entered is not None and entered.t_ns == T_NS + 90 and entered.kind == "authorised"
    note = entered.request["note"]
    assert (entered.request["by"], entered.request["reference"]) == ("eve", "auth-1")
    assert "4111" not in note and note.startswith("card ")


def test_a_person_enters_what_was_not_carried_out(opened: Open) -> None:
    till = opened()
    missing(till, None, "lost before")
    assert till.checkout.resolve("v1", carried_out=False, by="eve", t_ns=T_NS) == Payment(
        "v1", "unpaid", 697, 0, 0, "not carried out"
    )
    entered = till.ledger.recorded("v1", "payment 2/answer")
    assert entered is not None and entered.kind == "payment not carried out"
    assert entered.request == {
        "approved": False, "reference": "", "reason": "not carried out", "by": "eve", "note": "",
    }  # fmt: skip
    assert till.steps() == ["release v1/3"], "nothing is taken any more"
    assert till.checkout.collect("v1", T_NS + 1).status == "paid"


def test_a_capture_without_a_reference_is_entered_and_never_refunded(opened: Open) -> None:
    till = opened()
    missing(till, None, "lost after")
    paid = till.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, amount=600)
    assert paid == Payment("v1", "unpaid", 697, 600, 0, "taken in part") and till.steps() == ["release v1/3"]
    owing = till.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert (owing.status, owing.paid) == ("owing", 600) and till.steps() == []


@pytest.mark.parametrize(
    ("amount", "reference", "fault"),
    [
        (None, "", "the answer has no usable reference"),
        (698, "auth-1", "the answer states 698, want 1 to 697"),
        (0, "auth-1", "the answer states 0, want 1 to 697"),
        (None, "4111111111111111", "the answer has no usable reference"),
    ],
)
def test_what_a_person_enters_is_judged_as_any_answer(
    opened: Open, amount: int | None, reference: str, fault: str
) -> None:
    till = opened()
    missing(till, "lost after")
    before = till.ledger.head()
    with refused(f"visit 'v1': {fault}"):
        till.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, amount=amount, reference=reference)
    for options, field in (({"by": ""}, "by"), ({"by": "eve", "note": "x" * 2001}, "note")):
        with pytest.raises(EntryError, match=f"^{field}: want "):
            till.checkout.resolve("v1", carried_out=False, t_ns=T_NS, **options)
    assert till.ledger.head() == before
    till.checkout.resolve("v1", carried_out=False, by="eve", t_ns=T_NS, note="x" * 2000)


def test_only_a_missing_answer_can_be_entered(opened: Open) -> None:
    till = opened()
    till.checkout.receipt(priced(*TWO))
    with refused("visit 'v1': want a step without an answer to resolve, got none"):
        till.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS)


def test_a_person_writes_off_what_cannot_be_paid(opened: Open) -> None:
    till = opened()
    till.faults = ["decline"]
    till.checkout.receipt(priced(*TWO))
    closed = till.checkout.close("v1", by="eve", t_ns=T_NS + 5, note="moved away")
    assert closed == Payment("v1", "closed", 697, 0, 0, "insufficient funds")
    entry = till.ledger.recorded("v1", "write-off 1")
    assert entry is not None and (entry.kind, entry.t_ns) == ("written off", T_NS + 5)
    assert entry.request == {"by": "eve", "note": "moved away"}
    assert entry.postings == (Posting("written off", "EUR", 697), Posting("receivable", "EUR", -697))
    before = till.ledger.head()
    assert till.checkout.close("v1", by="eve", t_ns=T_NS + 6) == closed and till.ledger.head() == before


@pytest.mark.parametrize(("price", "taken_back", "left"), [(500, -197, 500), (199, -498, 199), (900, 0, 697)])
def test_a_later_price_takes_back_what_was_written_off_too_much(
    opened: Open, price: int, taken_back: int, left: int
) -> None:
    till = opened()
    till.faults = ["decline"]
    till.checkout.receipt(priced(*TWO))
    till.checkout.close("v1", by="eve", t_ns=T_NS)
    till.faults = ["decline"]
    lines = [ReceiptLine(COLA, 1, price, 1.0)]
    found = till.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 7, lines=lines)
    assert (found.status, found.due) == ("closed" if taken_back else "unpaid", price)
    reversed_ = till.ledger.recorded("v1", "write-off 2")
    assert balances(till.ledger)["written off"] == left
    if taken_back:
        assert reversed_ is not None and (reversed_.kind, reversed_.t_ns) == ("write-off reversed", T_NS + 7)
        assert reversed_.moved("written off") == taken_back and reversed_.request == {}
    else:
        assert reversed_ is None and till.checkout.state("v1").status == "unpaid"


def test_what_could_not_be_refunded_is_written_off_and_taken_back_too(opened: Open) -> None:
    till = opened()
    till.checkout.receipt(priced(*TWO))
    till.faults = ["invalid"]
    till.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert till.checkout.close("v1", by="eve", t_ns=T_NS + 1) == Payment(
        "v1", "closed", 0, 697, 0, "no such means of payment"
    )
    assert balances(till.ledger) == {"provider": 697, "written off": -697}
    # The goods were paid for after all: as much of it is needed for their price.
    again = till.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 2, revision=2, lines=ONE_BREAD)
    assert (again.status, again.paid) == ("closed", 697) and balances(till.ledger)["written off"] == -498


def test_nothing_is_written_off_before_there_is_a_price_or_while_money_may_move(opened: Open) -> None:
    till = opened()
    with refused("visit 'v1': want a final price and no missing answer, got open"):
        till.checkout.close("v1", by="eve", t_ns=T_NS)
    till.ledger.post_receipt(priced(*TWO, visit="v2", status="review"))
    with refused("visit 'v2': want a final price and no missing answer, got review"):
        till.checkout.close("v2", by="eve", t_ns=T_NS)
    missing(till, None, "lost before")
    till.faults = ["lost before"]
    with refused("visit 'v1': want a final price and no missing answer, got pending"):
        till.checkout.close("v1", by="eve", t_ns=T_NS)
    till.checkout.settle("v1", T_NS)
    till.faults = ["lost before", "lost before"]
    till.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    with refused("visit 'v1': want a final price and no missing answer, got pending"):
        till.checkout.close("v1", by="eve", t_ns=T_NS)


def test_a_question_about_an_authorisation_does_not_keep_a_visit_open(opened: Open) -> None:
    till = opened()
    missing(till, "lost before")
    till.faults = ["lost before", "lost before"]
    closed = till.checkout.close("v1", by="eve", t_ns=T_NS)
    assert (closed.status, closed.reason) == ("pending", "no answer")
    assert balances(till.ledger)["written off"] == 697


def test_a_chargeback_makes_the_customer_a_debtor_until_it_is_returned(opened: Open) -> None:
    till = opened()
    till.checkout.receipt(priced(*TWO))
    back = till.checkout.charged_back("capt-2", 600, event="cb-1", t_ns=T_NS + 5)
    assert back == Payment("v1", "unpaid", 697, 97, 0, "charged back") == till.checkout.settle("v1", T_NS + 6)
    entry = till.ledger.recorded("v1", "chargeback cb-1")
    assert entry is not None and (entry.kind, entry.t_ns) == ("charged back", T_NS + 5)
    assert entry.request == {"capture": "2", "event": "cb-1"}
    assert entry.postings == (Posting("provider", "EUR", -600), Posting("receivable", "EUR", 600))
    assert till.checkout.debt("p1") == 600
    returned = till.checkout.charged_back("capt-2", 600, event="cb-2", t_ns=T_NS + 7, returned=True)
    assert returned == Payment("v1", "paid", 697, 697, 0, "charged back")
    again = till.ledger.recorded("v1", "chargeback cb-2")
    assert again is not None and again.kind == "chargeback returned" and again.moved("provider") == 600
    # The same event once, and no more than is left of the capture.
    assert till.checkout.charged_back("capt-2", 600, event="cb-1", t_ns=T_NS + 9) == returned
    for amount in (0, 698):
        with refused(f"amount: want 1 to 697, got {amount}"):
            till.checkout.charged_back("capt-2", amount, event="cb-3", t_ns=T_NS)
    assert till.checkout.charged_back("capt-2", 697, event="cb-3", t_ns=T_NS).paid == 0
    with refused("reference: want that of a capture in these books, got 'auth-1'"):
        till.checkout.charged_back("auth-1", 1, event="cb-4", t_ns=T_NS)
    for event, reference, field in (
        ("", "capt-2", "event"), ("e" * 231, "capt-2", "event"), ("e", "r" * 201, "reference"),
    ):  # fmt: skip
        with pytest.raises(EntryError, match=f"^{field}: want 1 to "):
            till.checkout.charged_back(reference, 1, event=event, t_ns=T_NS)
    assert till.checkout.charged_back("capt-2", 1, event="e" * 230, t_ns=T_NS, returned=True).paid == 1


def test_a_returned_chargeback_is_any_amount_that_books_can_hold(opened: Open) -> None:
    till = opened()
    till.checkout.receipt(priced(*TWO))
    with refused(f"amount: want 1 to {10**12}, got {10**12 + 1}"):
        till.checkout.charged_back("capt-2", 10**12 + 1, event="e", t_ns=T_NS, returned=True)
    assert till.checkout.charged_back("capt-2", 10**12, event="e", t_ns=T_NS, returned=True).status == "owing"


def test_an_answer_that_nobody_can_find_out_is_for_a_person(opened: Open) -> None:
    class Careless(InProcessProvider):
        def capture(self, key: str, authorisation: str, amount: int) -> Answer:
            return replace(super().capture(key, authorisation, amount), reference="")

        def look_up(self, step: Step, key: str, of: str) -> Answer | None:
            return None

    till = opened()
    checkout = Checkout(till.ledger, Careless(), STORE)
    doubtful = checkout.receipt(priced(*TWO))
    assert doubtful == Payment("v1", "person", 697, 0, 697, "the answer has no usable reference")
    assert checkout.outstanding() == [doubtful]
