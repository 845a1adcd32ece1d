"""What a hostile or careless payment provider does, and what becomes of it: refused, survived, or put to a person."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from money.books import COLA, DAY_NS, STORE, T_NS, TWO
from money.checkouts import BIG, ENTER, LATER_NS, Shop, priced
from money.servers import BothSides, Server

from fusion.errors import LedgerError
from fusion.money.providers import Answer, InProcessProvider, PaymentError, Terms, UnknownOutcome
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.store.models import PaymentPolicy

THREE = (ReceiptLine(COLA, 1, 300, 1.0),)
FIVE = (ReceiptLine(COLA, 1, 500, 1.0),)
OLD_NS = T_NS + 2 * DAY_NS


@pytest.fixture
def shop_with(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    opened: list[Shop] = []

    def make(provider: Any, store: Any = STORE) -> Shop:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        shop = Shop(Place(folder), store, provider)
        shop.hold()
        opened.append(shop)
        return shop

    yield make
    for shop in opened:
        shop.ledger.close()


def faults(*named: str | None) -> Callable[[str, str], Any]:
    """The first requests get these faults, the others none."""
    left = list(named)
    return lambda step, key: left.pop(0) if left else None


# ---- attack 4: references --------------------------------------------------------------------------------------------


class SameReferences(InProcessProvider):
    """Answers every question with the first reference of its kind."""

    def _once(self, step: Any, *rest: Any) -> Answer:
        answer = super()._once(step, *rest)
        return Answer(True, self._first[step]) if answer.approved else answer


@pytest.mark.attack(4)
@pytest.mark.parametrize("looks_up", [True, False])
def test_a_provider_that_repeats_its_references_takes_no_cent_too_much(
    shop_with: Callable[..., Shop], looks_up: bool
) -> None:
    shop = shop_with(SameReferences(looks_up=looks_up))
    assert shop.checkout.receipt(priced(*THREE)).paid == 300
    shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS, lines=FIVE)
    for i in range(3):
        shop.checkout.recover(T_NS + i)
        assert shop.provider.total == shop.ledger.balances()["EUR"]["provider"] <= 500
    state = shop.checkout.state("v1")
    if looks_up:
        assert (state.status, state.paid) == ("paid", 500), "the look-up states the references"
        return
    assert (state.status, state.paid) == ("person", 300) and "auth-1" in state.reason
    assert [one.visit for one in shop.checkout.outstanding()] == ["v1"]
    # A person looks at the provider's account, takes nothing more, and closes the visit.
    resolved = shop.checkout.resolve("v1", carried_out=False, by="eve", t_ns=T_NS + 9, note="seen")
    assert (resolved.status, resolved.reason) == ("unpaid", "not carried out")
    closed = shop.checkout.close("v1", by="eve", t_ns=T_NS + 10)
    assert (closed.status, closed.paid) == ("closed", 300) and shop.provider.total == 300
    assert shop.ledger.balances()["EUR"]["written off"] == 200 and shop.checkout.outstanding() == []


@pytest.mark.attack(4)
def test_a_reference_that_another_visit_was_given_captures_nothing_there(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(SameReferences(looks_up=False), ENTER)
    shop.hold("p2", "tok_of_another")
    for pseudonym in ("p1", "p2"):
        shop.checkout.admit(pseudonym, T_NS)
    assert shop.checkout.state("p2").status == "person"
    paid = shop.checkout.receipt(priced(*TWO))
    other = shop.checkout.receipt(priced(*TWO, visit="v2", account="p2"))
    assert paid.status == "paid" and other.paid == 0 and shop.provider.taken == {"auth-1": 697}


@pytest.mark.attack(4)
@pytest.mark.parametrize("amount", [698, 10**9, 0, -5])
def test_an_answer_about_more_than_was_asked_is_put_to_a_person(shop_with: Callable[..., Shop], amount: int) -> None:
    class Generous(InProcessProvider):
        def capture(self, key: str, authorisation: str, _amount: int) -> Answer:
            return Answer(True, "cap-x", amount=amount)

    shop = shop_with(Generous(looks_up=False))
    state = shop.checkout.receipt(priced(*TWO))
    assert (state.status, state.paid) == ("person", 0)
    with pytest.raises(LedgerError, match="want 1 to 697"):
        shop.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, amount=698, reference="cap-x")
    done = shop.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, reference="cap-x")
    assert (done.status, done.paid) == ("paid", 697)
    with pytest.raises(LedgerError, match="without an answer"):
        shop.checkout.resolve("v1", carried_out=True, by="eve", t_ns=T_NS, reference="cap-x")


# ---- attack 5: keys that the provider has forgotten ------------------------------------------------------------------


@pytest.mark.attack(5)
@pytest.mark.parametrize("looks_up", [True, False])
@pytest.mark.parametrize("lost", ["lost before", "lost after"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_question_whose_key_may_be_forgotten_is_never_asked_again(
    shop_with: Callable[..., Shop], looks_up: bool, lost: str, at: int
) -> None:
    """A capture (1) or a refund (2) is unanswered; two days later the provider has forgotten its key."""
    shop = shop_with(InProcessProvider(faults(*[None] * at, lost), looks_up=looks_up))
    shop.checkout.receipt(priced(*THREE))
    if at == 2:
        shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert shop.checkout.state("v1").status == "pending"
    shop.provider.forget_keys()
    shop.checkout.recover(OLD_NS)
    state, due = shop.checkout.state("v1"), 0 if at == 2 else 300
    if looks_up:
        assert (state.status, state.paid) == ("paid", due) and shop.agrees().get("provider", 0) == due
        return
    moved = lost == "lost after"
    assert state.status == "person" and shop.provider.total == (300 if moved == (at == 1) else 0)
    done = shop.checkout.resolve("v1", carried_out=moved, by="eve", t_ns=OLD_NS, reference="seen-1" if moved else "")
    if not moved:
        assert done.status == ("unpaid" if at == 1 else "owing")
        done = shop.checkout.collect("v1", OLD_NS)
    assert (done.status, done.paid) == ("paid", due) and shop.agrees().get("provider", 0) == due


@pytest.mark.attack(5)
@pytest.mark.parametrize("looks_up", [True, False])
def test_a_capture_that_was_made_is_never_booked_as_declined(shop_with: Callable[..., Shop], looks_up: bool) -> None:
    """The provider forgets the key at once and declines the repetition: nothing is left of the authorisation."""
    shop = shop_with(InProcessProvider(faults(None, "lost after"), looks_up=looks_up))
    shop.checkout.receipt(priced(*THREE))
    shop.provider.forget_keys()
    shop.checkout.recover(T_NS + 1)
    state = shop.checkout.state("v1")
    assert (state.status, state.paid) == (("paid", 300) if looks_up else ("person", 0))
    assert shop.provider.total == 300


@pytest.mark.attack(5)
def test_an_operation_that_was_carried_out_twice_under_one_key_waits_for_a_person(
    shop_with: Callable[..., Shop],
) -> None:
    """Another program repeated the request after the key was forgotten."""
    shop = shop_with(InProcessProvider(faults("lost after")))
    shop.checkout.receipt(priced(*THREE))
    shop.provider.forget_keys()
    shop.provider.authorise("shop/v1/1", "tok", 300, "EUR")
    shop.checkout.recover(OLD_NS)
    assert shop.checkout.state("v1").status == "person" and shop.provider.total == 0


@pytest.mark.attack(5)
@pytest.mark.parametrize("looks_up", [True, False])
def test_a_capture_without_answer_is_not_repeated_once_less_is_due(
    shop_with: Callable[..., Shop], looks_up: bool
) -> None:
    """The capture of 6.97 never arrived; then a person corrects the bill to 3.00."""
    shop = shop_with(InProcessProvider(faults(None, "lost before"), looks_up=looks_up))
    shop.checkout.receipt(priced(*TWO))
    corrected = shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 1, lines=THREE)
    assert corrected.reason == "the price changed before an answer came"
    assert corrected.status == ("pending" if looks_up else "person") and shop.provider.total == 0
    if not looks_up:
        shop.checkout.resolve("v1", carried_out=False, by="eve", t_ns=T_NS + 2)
        shop.checkout.collect("v1", T_NS + 3)
    shop.checkout.recover(LATER_NS)
    assert shop.checkout.state("v1").status == "paid" and shop.agrees()["provider"] == 300


# ---- attack 6: invalid requests --------------------------------------------------------------------------------------


class Detached(InProcessProvider):
    """The card was detached from its customer: 404 to every authorisation of it."""

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        if token == "tok":
            raise PaymentError(f"status 404: no such means of payment: {token}, 4111-1111-1111-1111")
        return super().authorise(key, token, amount, currency)


@pytest.mark.attack(6)
def test_a_detached_card_leaves_a_visit_that_can_be_waived_collected_or_closed(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(Detached())
    refused = shop.checkout.receipt(priced(*TWO))
    assert (refused.status, refused.due) == ("unpaid", 697)
    assert refused.reason == "status 404: no such means of payment: (token), (digits that look like a card number)"
    assert shop.checkout.collect("v1", T_NS + 1).status == "unpaid"
    assert shop.checkout.close("v1", by="eve", t_ns=T_NS + 2, note="saw 4111.1111.1111.1111").status == "closed"
    assert "1111" not in str(shop.ledger.entries("v1"))
    found = shop.agrees()
    assert found["written off"] == 697 and "receivable" not in found
    # A later decision takes the amount back from there.
    waived = shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS + 3)
    assert (waived.status, waived.due) == ("paid", 0) and shop.agrees() == {}
    shop.ledger.hold(Holder("p2", "account of p1", "tok_new", None, T_NS + 4))
    more = shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 5, revision=2, lines=THREE)
    assert (more.status, more.paid) == ("paid", 300), "the customer's newest means of payment"


@pytest.mark.attack(6)
def test_whatever_an_adapter_raises_ends_nothing(shop_with: Callable[..., Shop]) -> None:
    class Broken(InProcessProvider):
        def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
            raise KeyError("approved")

    shop = shop_with(Broken(), ENTER)
    assert shop.checkout.admit("p1", T_NS).status == "pending"
    assert shop.checkout.receipt(priced(*TWO)).status == "pending"
    assert {one.status for one in shop.checkout.recover(LATER_NS)} == {"pending"}


@pytest.mark.attack(6)
def test_a_visit_is_closed_only_when_its_price_and_all_answers_are_known(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(InProcessProvider(faults(None, "lost before", "lost before"), looks_up=False))
    with pytest.raises(LedgerError, match="want a final price"):
        shop.checkout.close("v1", by="eve", t_ns=T_NS)
    shop.checkout.receipt(priced(*TWO))
    with pytest.raises(LedgerError, match="pending"):
        shop.checkout.close("v1", by="eve", t_ns=T_NS)
    shop.checkout.receipt(priced(*TWO, status="review", visit="v2", account=None))
    with pytest.raises(LedgerError, match="review"):
        shop.checkout.close("v2", by="eve", t_ns=T_NS)
    assert shop.checkout.close("v1", by="eve", t_ns=T_NS + 1).status == "paid", "nothing was left to write off"


# ---- attack 7: time, banks and debtors -------------------------------------------------------------------------------


@pytest.mark.attack(7)
@pytest.mark.parametrize("recovers", [True, False])
def test_an_authorisation_that_expired_in_review_is_released_and_replaced(
    shop_with: Callable[..., Shop], recovers: bool
) -> None:
    shop = shop_with(InProcessProvider(), ENTER)
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    shop.checkout.receipt(priced(*BIG, status="review"))
    if recovers:
        assert [one.authorised for one in shop.checkout.recover(T_NS + 8 * DAY_NS)] == [0]
        assert shop.agrees() == {}
    paid = shop.checkout.decide("v1", "accept", by="eve", t_ns=T_NS + 8 * DAY_NS + 1)
    assert (paid.status, paid.paid) == ("paid", 7470) and shop.agrees()["provider"] == 7470


@pytest.mark.attack(7)
@pytest.mark.parametrize("allowed", [True, False])
def test_a_partial_approval_is_booked_as_what_it_is_or_released(shop_with: Callable[..., Shop], allowed: bool) -> None:
    policy = PaymentPolicy(mode="enter", authorise=5000, partial=allowed)
    shop = shop_with(InProcessProvider(faults("partial")), ENTER.model_copy(update={"payment": policy}))
    admitted = shop.checkout.admit("p1", T_NS)
    assert (admitted.status, admitted.authorised) == (("open", 2500) if allowed else ("unpaid", 0))
    assert shop.agrees().get("authorised", 0) == admitted.authorised
    if allowed:
        shop.checkout.admit("p1", T_NS + 1)
        shop.checkout.open_visit("v1", "p1", T_NS + 1)
        assert shop.checkout.admit("p1", T_NS + 2).status == "open", "a companion on the same card"
        assert shop.agrees()["authorised"] == 2500
    assert shop.checkout.receipt(priced(*TWO)).status == "paid" and shop.agrees()["provider"] == 697


@pytest.mark.attack(7)
def test_what_was_taken_or_refunded_in_part_is_booked_so_and_waits_for_a_person(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(InProcessProvider(faults(None, "partial", None, None, "partial")))
    part = shop.checkout.receipt(priced(*TWO))
    assert (part.status, part.paid, part.reason) == ("unpaid", 348, "taken in part")
    assert shop.agrees()["provider"] == 348 and shop.provider.held == 0
    assert shop.checkout.settle("v1", T_NS) == part
    other = shop_with(InProcessProvider(faults(None, None, "partial")))
    other.checkout.receipt(priced(*TWO))
    owing = other.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert (owing.status, owing.paid, owing.reason) == ("owing", 349, "refunded in part")
    closed = other.checkout.close("v1", by="eve", t_ns=T_NS + 1, note="returned in cash")
    assert closed.status == "closed" and other.agrees()["written off"] == -349


@pytest.mark.attack(7)
def test_a_part_at_the_door_does_not_open_it_and_holds_nothing(shop_with: Callable[..., Shop]) -> None:
    door = STORE.model_copy(update={"payment": PaymentPolicy(mode="door")})
    shop = shop_with(InProcessProvider(faults("partial")), door)
    shop.checkout.open_visit("v1", "p1", T_NS)
    assert not shop.checkout.confirm("v1", 697, T_NS) and shop.agrees() == {}
    assert shop.checkout.confirm("v1", 697, T_NS + 1) and shop.agrees()["authorised"] == 697


@pytest.mark.attack(7)
@pytest.mark.parametrize("mode", ["enter", "leave", "zone", "door"])
def test_a_debtor_stays_outside_until_they_have_paid(shop_with: Callable[..., Shop], mode: str) -> None:
    policy = PaymentPolicy(mode=mode, authorise=5000 if mode == "enter" else 0)  # type: ignore[arg-type]
    store = STORE.model_copy(update={"payment": policy})
    declines = faults(*["decline"] * 2)
    shop = shop_with(InProcessProvider(lambda step, key: declines(step, key) if "v1" in key else None), store)
    assert shop.checkout.receipt(priced(*TWO, account="p1")).status == "unpaid"
    shop.ledger.hold(Holder("p2", "account of p1", "tok", None, T_NS + 1))
    shop.hold("stranger")
    asked = shop.checkout.admit("p2", T_NS + 2)
    assert (asked.status, asked.debt, asked.reason) == ("unpaid", 697, "owes from earlier visits")
    assert shop.checkout.debt("account of p1") == 697 and shop.checkout.debt("nobody") == 0
    assert shop.checkout.admit("stranger", T_NS + 2).status == "open"
    assert shop.checkout.collect("v1", T_NS + 3).status == "unpaid"
    assert shop.checkout.admit("p2", T_NS + 4).debt == 697
    assert shop.checkout.collect("v1", T_NS + 5).status == "paid"
    assert shop.checkout.admit("p2", T_NS + 6).status == "open"


@pytest.mark.attack(7)
def test_a_payment_that_is_under_way_is_no_debt(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(InProcessProvider(faults("lost before")))
    shop.ledger.post_receipt(priced(*TWO))
    assert shop.checkout.debt("p1") == 0, "not asked for yet"
    assert shop.checkout.settle("v1", T_NS).status == "pending" and shop.checkout.debt("p1") == 0


@pytest.mark.attack(7)
def test_a_chargeback_reopens_the_visit_and_makes_a_debtor(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(InProcessProvider())
    shop.checkout.receipt(priced(*TWO))
    (reference,) = (entry.request["reference"] for entry in shop.ledger.entries("v1") if entry.kind == "captured")
    for _ in range(2):  # the provider repeats its event
        back = shop.checkout.charged_back(reference, 697, event="dp_1", t_ns=T_NS + 5)
        assert (back.status, back.paid, back.reason) == ("unpaid", 0, "charged back")
    assert shop.checkout.debt("p1") == 697 and shop.ledger.balances()["EUR"]["provider"] == 0
    assert shop.checkout.recover(T_NS + 6)[0].status == "unpaid", "no second capture by itself"
    with pytest.raises(LedgerError, match="amount"):
        shop.checkout.charged_back(reference, 1, event="dp_2", t_ns=T_NS + 7)
    with pytest.raises(LedgerError, match="reference"):
        shop.checkout.charged_back("never", 1, event="dp_3", t_ns=T_NS + 7)
    won = shop.checkout.charged_back(reference, 697, event="dp_1 won", t_ns=T_NS + 8, returned=True)
    assert (won.status, won.paid) == ("paid", 697) and shop.checkout.debt("p1") == 0
    shop.checkout.charged_back(reference, 697, event="dp_4", t_ns=T_NS + 9)
    assert shop.checkout.close("v1", by="eve", t_ns=T_NS + 10).status == "closed"


# ---- attack 8: HTTP --------------------------------------------------------------------------------------------------


@pytest.mark.attack(8)
def test_a_byte_now_and_then_does_not_extend_the_deadline(shop_with: Callable[..., Shop]) -> None:
    server = Server()
    ticks = itertools.count()  # each look at the clock is a second later, so the test does not wait
    shop = shop_with(BothSides(server, 12.0, clock_s=lambda: float(next(ticks))))
    server.faults = ["drip"]
    assert shop.checkout.receipt(priced(*TWO)).status == "pending"
    assert server.book.held == 697, "the whole answer was on its way"
    server.close()


@pytest.mark.attack(8)
@pytest.mark.parametrize("fault", ["deep", "large", "list", "nonsense", "created", "202", "302", "408", "425", "429"])
def test_no_answer_of_http_is_taken_for_no_money_moved(shop_with: Callable[..., Shop], fault: str) -> None:
    server = Server()
    shop = shop_with(BothSides(server))
    server.faults = ["", fault]  # at the capture
    state = shop.checkout.receipt(priced(*TWO))
    assert state.status == ("paid" if fault == "created" else "pending")
    assert shop.checkout.recover(T_NS + 1) == [] or shop.checkout.state("v1").status == "paid"
    assert shop.agrees()["provider"] == 697
    server.close()


@pytest.mark.attack(8)
def test_a_silent_provider_is_asked_once_in_a_pause_however_many_visits_wait(shop_with: Callable[..., Shop]) -> None:
    server, now_s = Server(), [0.0]
    shop = shop_with(BothSides(server, 5.0, clock_s=lambda: now_s[0], pauses=None))
    server.faults = ["drop before"] * 30
    for i in range(20):
        shop.ledger.post_receipt(priced(*TWO, visit=f"v{i}"))
    shop.checkout.recover(T_NS)
    assert len(server.seen) == 1
    server.close()


@pytest.mark.attack(8)
def test_reading_the_books_never_waits_for_a_provider_that_does_not_answer(shop_with: Callable[..., Shop]) -> None:
    """Six decisions hang at the provider; the books answer, and further decisions are posted."""
    asked, go = threading.Semaphore(0), threading.Event()

    class Slow(InProcessProvider):
        def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
            asked.release()
            go.wait(60)
            raise UnknownOutcome("too late")

    shop = shop_with(Slow(terms=Terms(keys_kept_s=0.0)))
    visits = [f"v{i}" for i in range(6)]
    for visit in visits:
        shop.ledger.post_receipt(priced(*TWO, visit=visit))
    threads = [threading.Thread(target=shop.checkout.settle, args=(visit, T_NS)) for visit in visits]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert asked.acquire(timeout=60)
    assert {one.status for one in shop.checkout.outstanding()} == {"pending"}
    shop.ledger.decide("v0", "waive", by="eve", t_ns=T_NS)
    assert shop.checkout.debt("p1") == 0
    go.set()
    for thread in threads:
        thread.join()
