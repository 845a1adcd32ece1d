"""Paying: one capture a visit whatever crashes or stays unanswered, both books agree, nobody pays for a doubt."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from money.test_ledger import BREAD, COLA, STORE, T_NS, TWO, balances, receipt

from fusion.money.payments import UNUSED_MAX_S, Checkout
from fusion.money.providers import Answer, HttpProvider, InProcessProvider, PaymentError, SeededFaults, UnknownOutcome
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.store.models import PaymentPolicy, Store

ENTER = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=5000)})
BIG = (ReceiptLine(COLA, 30, 249, 0.99),)
LATER_NS = T_NS + round(10 * UNUSED_MAX_S * 1e9)


class Shop:
    """Books, provider and checkout of a store; `restart` loses everything but what is durable."""

    def __init__(self, place: Place, store: Store = ENTER, provider: Any = None) -> None:
        self.place, self.store = place, store
        self.provider = provider or InProcessProvider()
        self.ledger = place.open(store)
        self.checkout = Checkout(self.ledger, self.provider, store)

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = self.place.open(self.store)
        self.checkout = Checkout(self.ledger, self.provider, self.store)

    def hold(self, pseudonym: str = "p1", token: str | None = "tok") -> None:
        if self.ledger.holder(pseudonym) is None:
            self.ledger.hold(Holder(pseudonym, f"account of {pseudonym}", token, None, T_NS))

    def agrees(self) -> dict[str, int]:
        """Both sides' books, once nothing is under way: the same money taken, the same promised."""
        found = balances(self.ledger)
        assert found.get("provider", 0) == self.provider.total
        assert found.get("authorised", 0) == self.provider.held
        return found


@pytest.fixture
def shop(place: Place) -> Iterator[Shop]:
    opened = Shop(place)
    yield opened
    opened.ledger.close()


def priced(*lines: ReceiptLine, status: str = "settled", visit: str = "v1", account: str | None = "p1") -> Any:
    return receipt(visit, *lines, status=status, account=account)


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


def test_more_than_was_authorised_is_authorised_anew_and_captured_once(shop: Shop) -> None:
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    assert shop.checkout.receipt(priced(*BIG)).paid == 7470
    assert shop.agrees()["provider"] == 7470 and list(shop.provider.n_captures.values()) == [1]


def test_of_a_promise_that_is_too_small_as_much_as_there_is(place: Place) -> None:
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


def test_who_is_declined_stays_outside_and_who_turns_back_gets_it_back(place: Place) -> None:
    shop = Shop(place, provider=InProcessProvider(lambda step, key: "decline" if key.endswith("p1/1") else None))
    shop.hold("p1")
    assert shop.checkout.admit("p1", T_NS).status == "unpaid"
    assert shop.checkout.admit("p1", T_NS + 1).status == "open", "asked again by scanning again"
    assert shop.agrees()["authorised"] == 5000
    shop.checkout.recover(T_NS + 2)
    assert shop.agrees()["authorised"] == 5000, "may still come in"
    shop.checkout.recover(LATER_NS)
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
    answers = iter(["decline", "lost before", "lost after", "lost before"])
    shop = Shop(
        place,
        STORE.model_copy(update={"payment": PaymentPolicy(mode="door")}),
        InProcessProvider(lambda step, key: next(answers, None)),  # type: ignore[arg-type, return-value]
    )
    shop.hold()
    shop.checkout.open_visit("v1", "p1", T_NS)
    tries = [shop.checkout.confirm("v1", 697, T_NS + i) for i in range(6)]
    assert tries == [False, False, False, False, True, True]
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


def test_somebody_forgotten_while_a_question_was_open_is_not_asked_for_again(place: Place) -> None:
    shop = Shop(place, STORE, InProcessProvider(lambda step, key: "lost after"))
    shop.hold()
    assert shop.checkout.receipt(priced(*TWO)).status == "pending"
    assert shop.ledger.unlink_account("account of p1") == 1
    states = shop.checkout.recover(LATER_NS)
    assert [(one.status, one.reason) for one in states] == [("unpaid", "means of payment is not known")]
    assert shop.provider.total == 0


def test_one_question_that_makes_no_sense_does_not_stop_the_others(place: Place) -> None:
    class Picky(InProcessProvider):
        def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
            if token == "bad":
                raise PaymentError("no such token")
            return super().authorise(key, token, amount, currency)

    shop = Shop(place, STORE, Picky())
    shop.hold("p1", "bad")
    shop.hold("p2")
    with pytest.raises(PaymentError):
        shop.checkout.receipt(priced(*TWO))
    shop.ledger.post_receipt(priced(*TWO, visit="v2", account="p2"))
    said = {one.visit: (one.status, one.reason) for one in shop.checkout.recover(LATER_NS)}
    assert said == {"v1": ("pending", "no such token"), "v2": ("paid", "")}


# ---- a simple model --------------------------------------------------------------------------------------------------

N_COURSES = 10_000


def test_ten_thousand_courses_match_a_simple_model(tmp_path: Path) -> None:
    """Any course of a visit, with declines and lost answers: due, paid and promised are what a child would say."""
    rng = random.Random(3)
    provider = InProcessProvider(SeededFaults(4, decline=0.1, lost_before=0.1, lost_after=0.1))
    shop = Shop(Place(tmp_path), ENTER, provider)
    gtins = [COLA, BREAD]
    expected: dict[str, int] = {}
    with shop.ledger.batch():
        for i in range(N_COURSES):
            visit, pseudonym = f"v{i}", f"p{i}"
            shop.hold(pseudonym, None if rng.random() < 0.05 else f"tok{i}")
            if rng.random() < 0.7:
                shop.checkout.admit(pseudonym, T_NS)
            if rng.random() < 0.1:
                continue  # turned back
            shop.checkout.open_visit(visit, pseudonym, T_NS)
            if rng.random() < 0.1:
                expected[visit] = 0
                continue  # still inside when the power goes
            draw = lambda: tuple(  # noqa: E731
                ReceiptLine(rng.choice(gtins), rng.randrange(1, 4), rng.randrange(0, 4000), 0.9)
                for _ in range(rng.randrange(4))
            )
            lines = draw()
            status = rng.choice(["settled", "settled", "review"])
            expected[visit] = sum(line.quantity * line.unit_price for line in lines) if status == "settled" else 0
            shop.checkout.receipt(priced(*lines, status=status, visit=visit, account=pseudonym))
            for revision in range(1, rng.choice([1, 1, 2, 3])):
                if rng.random() < 0.3:
                    expected[visit] = 0
                    shop.checkout.decide(visit, "waive", by="eve", t_ns=T_NS, revision=revision)
                else:
                    lines = draw()
                    expected[visit] = sum(line.quantity * line.unit_price for line in lines)
                    shop.checkout.decide(visit, "correct", by="eve", t_ns=T_NS, revision=revision, lines=lines)
    shop.checkout.recover(LATER_NS, restarted=True)
    provider.recovered()
    states = shop.checkout.recover(LATER_NS + 1) + shop.checkout.recover(2 * LATER_NS - T_NS)
    assert not any(one.status == "pending" for one in states[len(states) // 2 :])
    found = shop.agrees()
    due, paid, promised = 0, 0, 0
    for visit, total in expected.items():
        state = shop.checkout.state(visit)
        if state.due is None:
            assert state.status == "review" and state.paid == 0
            promised += state.authorised
        else:
            assert (state.due, state.authorised) == (total, 0) and state.status in ("paid", "unpaid")
            assert 0 <= state.paid <= total and (state.paid == total) == (state.status == "paid")
        due, paid = due + total, paid + state.paid
    assert (paid, promised) == (found["provider"], found["authorised"])
    assert found["receivable"] == due - paid
    assert 0.5 * due < paid < due


# ---- crashes ---------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


class Bomb:
    """Goes off before or after the n-th thing that lasts: a commit of the books, or an effect at the provider."""

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


def course(shop: Shop) -> None:
    """What a client does from entry to a person's last word, and does again when it does not know how far it came."""
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    shop.checkout.receipt(priced(*BIG))
    shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 5, lines=TWO)


def test_a_crash_at_any_point_captures_at_most_once(new_place: Callable[[], Place]) -> None:
    crashed = 0
    for n in range(200):
        shop, bomb = Shop(new_place()), Bomb(n)
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


def test_the_crash_after_which_nobody_comes_back(new_place: Callable[[], Place]) -> None:
    """As above, but only the recovery runs: the open visit goes to review, no promise is left alone."""
    finished, n = False, 0
    while not finished:
        shop, bomb = Shop(new_place()), Bomb(n)
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


# ---- over HTTP -------------------------------------------------------------------------------------------------------


class Server:
    """A payment provider on this machine. `faults` are taken one a request: "500", "drop before", "drop after", ..."""

    def __init__(self) -> None:
        self.book = InProcessProvider()
        self.faults: list[str] = []
        self.seen: list[tuple[str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.loads(self.headers["Idempotency-Key"])
                outer.seen.append((self.path, key, self.headers["Authorization"]))
                fault = outer.faults.pop(0) if outer.faults else ""
                if fault == "drop before":
                    return self.drop()
                if fault.isdecimal():
                    return self.say(int(fault), b"{}")
                try:
                    answer = getattr(outer.book, self.path.rsplit("/", 1)[1])(key, **body)
                except PaymentError as error:
                    return self.say(422, str(error).encode())
                if fault == "drop after":
                    return self.drop()
                if fault == "slow":
                    time.sleep(0.6)
                said = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
                text = {"nonsense": b"<html>", "half": b'{"approved": true}'}.get(fault, json.dumps(said).encode())
                return self.say(200 if answer.approved else 402, text)

            def drop(self) -> None:
                self.close_connection = True

            def say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


class BothSides(HttpProvider):
    """Asks over HTTP, and knows the server's book for comparison."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server.url, "s3cret", **options)
        self._server = server

    total = property(lambda self: self._server.book.total)
    held = property(lambda self: self._server.book.held)
    n_captures = property(lambda self: self._server.book.n_captures)


@pytest.mark.parametrize(
    "faults",
    [
        [], ["500"], ["drop before"], ["drop after", "drop after"], ["503", "drop after"], ["slow"], ["nonsense"],
        ["half"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("tries", [1, 3])
def test_http_provider_never_charges_twice(tmp_path: Path, server: Server, faults: list[str], tries: int) -> None:
    shop = Shop(Place(tmp_path), STORE, BothSides(server, tries=tries, timeout_s=0.3))
    shop.hold()
    shop.ledger.post_receipt(priced(*TWO))
    for at in range(3):  # the faults hit the authorisation, the capture, the refund
        server.faults = ["", "", ""][:at] + list(faults)
        for _ in range(4):
            shop.checkout.settle("v1", T_NS)
        server.faults.clear()
        if at == 1:
            shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS, lines=TWO[:1])
    shop.checkout.recover(LATER_NS)
    assert shop.checkout.state("v1").status == "paid" and shop.agrees()["provider"] == 498
    assert list(shop.provider.n_captures.values()) == [1]
    assert {secret for _, _, secret in server.seen} == {"Bearer s3cret"}
    assert {path for path, _, _ in server.seen} == {"/v1/authorise", "/v1/capture", "/v1/refund"}
    assert len({key for _, key, _ in server.seen}) == 3


def test_http_answers_and_refusals(server: Server) -> None:
    provider = BothSides(server, tries=1)
    authorised = provider.authorise("ä \" key", "tok", 100, "EUR")
    assert authorised.approved and provider.capture("k2", authorised.reference, 60).approved
    assert provider.capture("k3", authorised.reference, 60) == Answer(False, "", "more than was authorised")
    assert provider.release("k4", authorised.reference).approved
    with pytest.raises(PaymentError, match="422"):
        provider.authorise("ä \" key", "tok", 101, "EUR")
    for status in ("401", "404", "301"):
        server.faults = [status]
        with pytest.raises(PaymentError, match=status):
            provider.authorise("k5", "tok", 100, "EUR")
    for status in ("409", "429", "502"):
        server.faults = [status]
        with pytest.raises(UnknownOutcome, match=status):
            provider.authorise("k6", "tok", 100, "EUR")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UnknownOutcome, match="ConnectionRefusedError"):
        provider.authorise("k7", "tok", 100, "EUR")
    for url in ("http://example.org/pay", "ftp://localhost", "localhost:80"):
        with pytest.raises(ValueError, match="want https"):
            HttpProvider(url, "s3cret")
    assert "s3cret" not in repr(provider)


def test_nothing_of_the_customer_stands_in_the_books(place: Place) -> None:
    shop = Shop(place)
    shop.ledger.hold(Holder("p1", "alice-long-name", "token-of-alice", "alice@example.org", T_NS))
    course(shop)
    assert shop.checkout.state("v1").status == "paid"
    shop.ledger.unlink_account("alice-long-name")
    kept = b"".join(path.read_bytes() for path in place.folder.iterdir())
    assert b"alice" not in kept
    said = "".join(str(entry) for entry in shop.ledger.entries_between(0, 2**62))
    assert "alice" not in said and shop.ledger.verify() is None
    # A refund needs nobody's name.
    assert shop.checkout.decide("v1", "waive", by="eve", t_ns=T_NS + 9, revision=2).status == "paid"
    assert shop.agrees() == {}
