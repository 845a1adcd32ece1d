"""Paying: one capture a visit despite crashes and lost answers, both sides' books agree, no charge for a doubt."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from money.books import BREAD, COLA, STORE, T_NS, TWO
from money.checkouts import BIG, ENTER, LATER_NS, Shop, course, priced

from fusion.money.entries import Posting
from fusion.money.payments import UNUSED_MAX_S
from fusion.money.providers import Answer, InProcessProvider, PaymentError, SeededFaults
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.store.models import PaymentPolicy


@pytest.fixture
def shop(place: Place) -> Iterator[Shop]:
    opened = Shop(place)
    yield opened
    opened.ledger.close()


def test_authorised_at_the_entry_captured_once_the_rest_released(shop: Shop) -> None:
    shop.hold()
    assert shop.checkout.admit("p1", T_NS).status == "open"
    assert shop.checkout.admit("p1", T_NS + 5).authorised == 5000  # a companion on the same card
    assert shop.agrees()["authorised"] == 5000
    assert shop.checkout.open_visit("v1", "p1", T_NS) and not shop.checkout.open_visit("v1", "p1", T_NS + 9)
    assert shop.checkout.state("v1").status == "open"
    paid = shop.checkout.receipt(priced(*TWO))
    assert (paid.status, paid.due, paid.paid, paid.authorised) == ("paid", 697, 697, 0)
    assert shop.checkout.receipt(priced(*TWO)) == paid
    found = shop.agrees()
    assert found["provider"] == 697 and "receivable" not in found and "authorised" not in found
    assert list(shop.provider.n_captures.values()) == [1]


def test_a_visit_in_review_holds_no_money_beyond_the_authorisation(shop: Shop) -> None:
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    waiting = shop.checkout.receipt(priced(*TWO, status="review"))
    assert (waiting.status, waiting.due, waiting.paid, waiting.authorised) == ("review", None, 0, 5000)
    assert shop.agrees() == {"authorised": 5000, "authorised, contra": -5000}
    lines = [ReceiptLine(BREAD, 1, 199, 1.0)]
    paid = shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 9, lines=lines)
    assert (paid.status, paid.paid, paid.authorised) == ("paid", 199, 0)
    # A second look costs more, a third one nothing at all: the difference moves, once.
    more = shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 10, revision=2, lines=TWO)
    assert (more.status, more.paid) == ("paid", 697)
    none = shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS + 11, revision=3)
    assert (none.status, none.paid, none.authorised) == ("paid", 0, 0)
    assert shop.agrees() == {}


def test_a_scan_that_no_person_was_bound_to_keeps_its_authorisation_until_the_review(shop: Shop) -> None:
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    waiting = shop.checkout.receipt(priced(status="review"))
    assert (waiting.status, waiting.due, waiting.paid, waiting.authorised) == ("review", None, 0, 5000)
    shop.checkout.recover(LATER_NS)
    assert shop.agrees()["authorised"] == 5000, "no unused authorisation"
    assert shop.checkout.receipt(priced(status="review")) == waiting
    paid = shop.checkout.decide("v1", "correct", by="eve", t_ns=LATER_NS, lines=TWO)
    assert (paid.status, paid.paid, paid.authorised) == ("paid", 697, 0)
    shop.hold("p2")
    shop.checkout.admit("p2", T_NS)
    shop.checkout.receipt(priced(status="review", visit="v2", account="p2"))
    waived = shop.checkout.decide("v2", "waive", by="eve", t_ns=LATER_NS)
    assert (waived.status, waived.paid, waived.authorised) == ("paid", 0, 0)


def test_more_than_was_authorised_is_authorised_again_and_captured_once(shop: Shop) -> None:
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    assert shop.checkout.receipt(priced(*BIG)).paid == 7470
    assert shop.agrees()["provider"] == 7470 and list(shop.provider.n_captures.values()) == [1]


def test_an_authorisation_that_is_too_small_is_captured_in_full(place: Place) -> None:
    asked: list[str] = []

    def declines_the_second(step: str, key: str) -> Any:
        asked.append(step)
        return "decline" if asked.count("authorise") > 1 and step == "authorise" else None

    shop = Shop(place, provider=InProcessProvider(declines_the_second))
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    paid = shop.checkout.receipt(priced(*BIG))
    assert (paid.status, paid.due, paid.paid, paid.reason) == ("unpaid", 7470, 5000, "insufficient funds")
    assert shop.agrees()["receivable"] == 2470
    assert shop.checkout.settle("v1", T_NS + 1) == paid, "a decline is not asked again by itself"
    n_asked = len(asked)
    asked.clear()
    assert shop.checkout.collect("v1", T_NS + 2).status == "paid" and n_asked and shop.agrees()["provider"] == 7470


def test_a_declined_customer_stays_outside_and_an_unused_authorisation_is_released(place: Place) -> None:
    shop = Shop(place, provider=InProcessProvider(lambda step, key: "decline" if key.endswith("p1/1") else None))
    shop.hold("p1")
    assert shop.checkout.admit("p1", T_NS).status == "unpaid"
    assert shop.checkout.admit("p1", T_NS + 1).status == "open", "asked again by scanning again"
    assert shop.agrees()["authorised"] == 5000
    shop.checkout.recover(T_NS + 2)
    assert shop.agrees()["authorised"] == 5000, "may still come in"
    # Asked for at T_NS + 1, the second time.
    released_ns = T_NS + 1 + round(UNUSED_MAX_S * 1e9)
    shop.checkout.recover(released_ns - 1)
    assert shop.agrees()["authorised"] == 5000, "to the last instant"
    shop.checkout.recover(released_ns)
    assert shop.agrees() == {}


def test_without_a_means_of_payment_a_visit_stays_unpaid(shop: Shop) -> None:
    shop.hold("p1", token=None)
    assert shop.checkout.receipt(priced(*TWO)).status == "unpaid"
    assert shop.checkout.receipt(priced(*TWO, visit="v2", account=None)).status == "unpaid"
    assert shop.agrees()["receivable"] == 2 * 697


@pytest.mark.parametrize("mode", ["leave", "zone", "door"])
def test_the_other_modes_authorise_nothing_at_the_entry(place: Place, mode: str) -> None:
    shop = Shop(place, STORE.model_copy(update={"payment": PaymentPolicy(mode=mode)}))  # type: ignore[arg-type]
    shop.hold()
    assert shop.checkout.admit("p1", T_NS).status == "open" and shop.agrees() == {}
    shop.checkout.open_visit("v1", "p1", T_NS)
    if mode != "leave":
        assert shop.checkout.confirm("v1", 500, T_NS + 1)
        assert shop.checkout.confirm("v1", 697, T_NS + 2), "went back for one more"
        assert shop.checkout.confirm("v1", 697, T_NS + 2)
    paid = shop.checkout.receipt(priced(*TWO))
    assert (paid.status, paid.paid, paid.authorised) == ("paid", 697, 0)
    assert shop.agrees()["provider"] == 697 and list(shop.provider.n_captures.values()) == [1]


def test_the_door_stays_shut_until_the_provider_says_yes(place: Place) -> None:
    answers = iter(["decline", "lost before", "lost after"])
    shop = Shop(
        place,
        STORE.model_copy(update={"payment": PaymentPolicy(mode="door")}),
        InProcessProvider(lambda step, key: next(answers, None)),  # type: ignore[arg-type, return-value]
    )
    shop.hold()
    shop.checkout.open_visit("v1", "p1", T_NS)
    tries = [shop.checkout.confirm("v1", 697, T_NS + i) for i in range(6)]
    assert tries == [False, False, False, True, True, True], "what was lost after it was done is looked up"
    assert shop.checkout.confirm("v1", 0, T_NS), "empty hands leave at once"
    assert shop.checkout.receipt(priced(*TWO)).status == "paid"
    assert shop.agrees()["provider"] == 697 and list(shop.provider.n_captures.values()) == [1]


def test_a_refund_that_is_declined_is_owed(place: Place) -> None:
    class Final(InProcessProvider):
        def refund(self, key: str, capture: str, amount: int) -> Answer:
            return Answer(False, reason="card closed")

    shop = Shop(place, provider=Final())
    shop.hold()
    shop.checkout.receipt(priced(*TWO))
    owing = shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert (owing.status, owing.paid, owing.reason) == ("owing", 697, "card closed")
    assert shop.checkout.settle("v1", T_NS + 1) == owing
    assert shop.agrees()["receivable"] == -697


@pytest.mark.parametrize("looks_up", [True, False])
def test_a_customer_forgotten_during_a_request_is_asked_for_nothing_more(place: Place, looks_up: bool) -> None:
    lost = iter(["lost after"])
    shop = Shop(place, STORE, InProcessProvider(lambda step, key: next(lost, None), looks_up=looks_up))  # type: ignore[arg-type, return-value]
    shop.hold()
    assert shop.checkout.receipt(priced(*TWO)).status == "pending"
    assert shop.ledger.unlink_account("account of p1") == 1
    states = shop.checkout.recover(T_NS + 10**9)
    if looks_up:
        assert [one.status for one in states] == ["paid"], "it was authorised before"
    else:
        assert [(one.status, one.reason) for one in states] == [("unpaid", "means of payment is not known")]
        assert shop.provider.total == 0


def test_one_invalid_request_does_not_stop_the_others(place: Place) -> None:
    class Picky(InProcessProvider):
        def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
            if token == "bad":
                raise PaymentError("no such means of payment: bad")
            return super().authorise(key, token, amount, currency)

    shop = Shop(place, STORE, Picky())
    shop.hold("p1", "bad")
    shop.hold("p2")
    refused = shop.checkout.receipt(priced(*TWO))
    assert (refused.status, refused.reason) == ("unpaid", "no such means of payment: (token)")
    shop.ledger.post_receipt(priced(*TWO, visit="v2", account="p2"))
    payments = {one.visit: one.status for one in shop.checkout.recover(LATER_NS)}
    assert payments == {"v1": "unpaid", "v2": "paid"}


def test_the_books_name_no_customer(place: Place) -> None:
    shop = Shop(place)
    shop.ledger.hold(Holder("p1", "alice-long-name", "token-of-alice", "alice@example.org", T_NS))
    course(shop)
    assert shop.checkout.state("v1").status == "paid"
    shop.ledger.unlink_account("alice-long-name")
    kept = b"".join(path.read_bytes() for path in place.folder.iterdir())
    assert b"alice" not in kept
    entries = "".join(str(entry) for entry in shop.ledger.entries_between(0, 2**62))
    assert "alice" not in entries and shop.ledger.verify() is None
    # A refund needs no name.
    assert shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS + 9, revision=2).status == "paid"
    assert shop.agrees() == {}


def test_books_that_name_authorisations_by_the_providers_reference_are_still_read(shop: Shop) -> None:
    """As they were written before steps had names of our own."""
    shop.hold()
    legs = [Posting("authorised", "EUR", 5000), Posting("authorised, contra", "EUR", -5000)]
    back = [Posting("authorised", "EUR", -5000), Posting("authorised, contra", "EUR", 5000)]
    answer, moved = {"approved": True, "reference": "auth-1", "reason": ""}, {"reference": "auth-1", "amount": 5000}
    held = shop.provider.authorise("shop/p1/1", "tok", 5000, "EUR")
    assert held.reference == "auth-1"
    shop.ledger.record("p1", "payment 1", "payment asked", T_NS, {"step": "authorise", "amount": 5000})
    shop.ledger.record("p1", "payment 1/answer", "authorised", T_NS, answer, legs)
    shop.ledger.open_visit("v1", "p1", T_NS)
    shop.ledger.record("p1", "authorisation auth-1", "authorisation handed over", T_NS, moved, back)
    shop.ledger.record("v1", "authorisation auth-1", "authorisation taken over", T_NS, moved, legs)
    shop.ledger.post_receipt(priced(*TWO))
    asked = {"step": "capture", "amount": 697, "of": "auth-1"}
    shop.ledger.record("v1", "payment 1", "payment asked", T_NS, asked)
    assert shop.checkout.settle("v1", T_NS + 1).status == "paid"
    assert shop.agrees()["provider"] == 697 and shop.provider.held == 0


# ---- a simple model --------------------------------------------------------------------------------------------------


# Ten thousand courses of a visit, in parts that may run at the same time; the first is tried each time.
N_COURSES = 2_500
PARTS = [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in (1, 2, 3))]


def random_lines(rng: random.Random) -> tuple[ReceiptLine, ...]:
    return tuple(
        ReceiptLine(rng.choice([COLA, BREAD]), rng.randrange(1, 4), rng.randrange(0, 4000), 0.9)
        for _ in range(rng.randrange(4))
    )


def total_of(lines: tuple[ReceiptLine, ...]) -> int:
    return sum(line.quantity * line.unit_price for line in lines)


def random_course(shop: Shop, i: int, rng: random.Random) -> int | None:
    """One customer, from the gate to the last decision. Returns what the visit costs; None if there was no visit."""
    visit, pseudonym = f"v{i}", f"p{i}"
    shop.hold(pseudonym, None if rng.random() < 0.05 else f"tok{i}")
    if rng.random() < 0.7:
        shop.checkout.admit(pseudonym, T_NS)
    if rng.random() < 0.1:
        return None  # turned back at the gate
    shop.checkout.open_visit(visit, pseudonym, T_NS)
    if rng.random() < 0.1:
        return 0  # still inside when the power fails
    lines, status = random_lines(rng), rng.choice(["settled", "settled", "review"])
    total = total_of(lines) if status == "settled" else 0
    shop.checkout.receipt(priced(*lines, status=status, visit=visit, account=pseudonym))
    for revision in range(1, rng.choice([1, 1, 2, 3])):
        if rng.random() < 0.3:
            total = 0
            shop.checkout.decide(visit, "waive", by="eve", t_ns=T_NS, revision=revision)
        else:
            lines = random_lines(rng)
            total = total_of(lines)
            shop.checkout.decide(visit, "correct", by="eve", t_ns=T_NS, revision=revision, lines=lines)
    return total


@pytest.mark.parametrize("seed", PARTS)
def test_ten_thousand_courses_match_a_simple_model(tmp_path: Path, seed: int) -> None:
    """Any course of a visit, with declines and lost answers: due, paid and authorised as simple sums give them."""
    rng = random.Random(seed)
    provider = InProcessProvider(SeededFaults(100 + seed, decline=0.1, lost_before=0.1, lost_after=0.1))
    shop = Shop(Place(tmp_path), ENTER, provider)
    # Durability is not examined here, so the steps of all visits share their commits.
    with shop.ledger.batch():
        totals = {f"v{i}": random_course(shop, i, rng) for i in range(N_COURSES)}
    with shop.ledger.batch():
        shop.checkout.recover(LATER_NS, restarted=True)
        provider.recovered()
        payments = shop.checkout.recover(LATER_NS + 1)
        later = shop.checkout.recover(2 * LATER_NS - T_NS)
    assert payments and not any(payment.status == "pending" for payment in later)
    balances = shop.agrees()
    due, paid, authorised = 0, 0, 0
    for visit, total in totals.items():
        if total is None:
            continue
        payment = shop.checkout.state(visit)
        if payment.due is None:
            assert payment.status == "review" and payment.paid == 0
            authorised += payment.authorised
        else:
            assert (payment.due, payment.authorised) == (total, 0) and payment.status in ("paid", "unpaid")
            assert 0 <= payment.paid <= total and (payment.paid == total) == (payment.status == "paid")
        due, paid = due + total, paid + payment.paid
    assert (paid, authorised) == (balances["provider"], balances["authorised"])
    assert balances["receivable"] == due - paid
    assert 0.5 * due < paid < due
    shop.ledger.close()


# ---- crashes ---------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


class Bomb:
    """Crashes before or after the n-th durable effect: a commit of the books, or an operation of the provider."""

    def __init__(self, n: int) -> None:
        self.left = n

    def tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            answer = call(*args, **kwargs)
            self.tick()
            return answer

        return wrapped


def test_a_crash_at_any_point_captures_at_most_once(next_place: Callable[[], Place]) -> None:
    crashed = 0
    for n in range(200):
        shop, bomb = Shop(next_place()), Bomb(n)
        with pytest.MonkeyPatch.context() as patch:
            for step in ("authorise", "capture", "release", "refund"):
                patch.setattr(shop.provider, step, bomb.around(getattr(shop.provider, step)))
            for name in ("record", "post_receipt", "decide", "open_visit", "hold"):
                patch.setattr(shop.ledger, name, bomb.around(getattr(shop.ledger, name)))
            try:
                course(shop)
                finished = True
            except Crash:
                finished = False
        shop.restart()
        if n % 2:
            shop.checkout.recover(T_NS + 6)
        course(shop)
        shop.checkout.recover(LATER_NS)
        state = shop.checkout.state("v1")
        assert (state.status, state.due, state.paid, state.authorised) == ("paid", 697, 697, 0), n
        found = shop.agrees()
        assert found["provider"] == 697 and "receivable" not in found and "authorised" not in found, n
        assert sum(shop.provider.n_captures.values()) == 1, n
        shop.ledger.close()
        if finished:
            break
        crashed += 1
    assert finished and crashed > 30


def test_a_crash_after_which_only_the_recovery_runs(next_place: Callable[[], Place]) -> None:
    """As above without the client: the open visit goes to review, and no authorisation is left behind."""
    finished, n = False, 0
    while not finished:
        shop, bomb = Shop(next_place()), Bomb(n)
        with pytest.MonkeyPatch.context() as patch:
            for step in ("authorise", "capture", "release", "refund"):
                patch.setattr(shop.provider, step, bomb.around(getattr(shop.provider, step)))
            for name in ("record", "post_receipt", "decide", "open_visit"):
                patch.setattr(shop.ledger, name, bomb.around(getattr(shop.ledger, name)))
            try:
                course(shop)
                finished = True
            except Crash:
                pass
        shop.restart()
        shop.checkout.recover(LATER_NS, restarted=True)
        state, standing = shop.checkout.state("v1"), shop.ledger.standing("v1")
        found = shop.agrees()
        assert sum(shop.provider.n_captures.values()) <= 1
        assert shop.ledger.open_visits() == []
        if standing is None:
            assert found == {}, n
        elif standing.status == "review":
            assert state.paid == 0 and state.authorised == 5000, n
        else:
            assert (state.status, state.paid, state.authorised) == ("paid", standing.total, 0), n
        shop.ledger.close()
        n += 1
    assert n > 30


def test_two_processes_that_settle_the_same_visits_charge_each_once(place: Place) -> None:
    provider = InProcessProvider(SeededFaults(1, lost_before=0.1, lost_after=0.2))
    shops = [Shop(place, STORE, provider) for _ in range(3)]
    visits = [f"v{i}" for i in range(12)]
    for visit in visits:
        shops[0].hold(visit)
        shops[0].ledger.post_receipt(priced(*TWO, visit=visit, account=visit))

    def work(shop: Shop, seed: int) -> None:
        order = visits * 4
        random.Random(seed).shuffle(order)
        for i, visit in enumerate(order):
            shop.checkout.settle(visit, T_NS + 1000 * seed + i)

    threads = [threading.Thread(target=work, args=(shop, i)) for i, shop in enumerate(shops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    provider.recovered()
    shops[0].checkout.recover(LATER_NS)
    assert shops[0].agrees()["provider"] == 12 * 697 and set(provider.n_captures.values()) == {1}
    for shop in shops:
        shop.ledger.close()


@pytest.mark.parametrize("reference", ["4111111111111111", "4111-1111-1111-1111", "", "with a blank", "x" * 300])
def test_an_answer_without_a_usable_reference_is_for_a_person(tmp_path: Path, reference: str) -> None:
    """What looks like a card's number is in no book, whoever calls it a reference."""

    class Careless(InProcessProvider):
        def authorise(self, *args: Any, **words: Any) -> Answer:
            return replace(super().authorise(*args, **words), reference=reference)

        def look_up(self, *args: Any, **words: Any) -> Answer | None:
            found = super().look_up(*args, **words)
            return found and replace(found, reference=reference)

    shop = Shop(Place(tmp_path), STORE, Careless())
    shop.hold()
    shop.checkout.receipt(priced(*TWO))
    assert shop.checkout.state("v1").status not in ("paid", "settled", "declined")
    books = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not reference or reference.encode() not in books
    shop.ledger.close()
