"""The adapter for Stripe against a server that answers in Stripe's documented form, with errors and forgotten keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import DAY_NS, STORE, T_NS, TWO
from money.checkouts import Shop, priced
from money.stripe_server import SECRET, StripeServer

from fusion.money.providers import Answer, CannotLookUp, PaymentError, StripeProvider, UnknownOutcome
from fusion.money.providers.exchange import Exchange
from fusion.money.providers.pauses import Pauses
from fusion.money.vault import Holder
from fusion.results import ReceiptLine


class Account(StripeProvider):
    """The adapter, with the server's accounts for comparison."""

    def __init__(self, server: StripeServer, secret: str = SECRET) -> None:
        super().__init__(Exchange(server.url, deadline_s=60.0, pauses=Pauses(0.0)), secret)
        self._server = server

    total = property(lambda self: self._server.total)
    held = property(lambda self: self._server.held)


@pytest.fixture
def server() -> Iterator[StripeServer]:
    running = StripeServer()
    yield running
    running.close()


@pytest.fixture
def shop(tmp_path: Path, server: StripeServer) -> Iterator[Shop]:
    opened = Shop(Place(tmp_path), STORE, Account(server))
    opened.hold("p1", "cus_1:pm_saved")
    yield opened
    opened.ledger.close()


def test_authorise_capture_release_refund(server: StripeServer) -> None:
    stripe = Account(server)
    held = stripe.authorise("s/v/1", "pm_card_visa", 1000, "EUR")
    assert held == Answer(True, "pi_1", amount=1000) and server.intents["pi_1"]["currency"] == "eur"
    assert stripe.capture("s/v/2", "pi_1", 600) == Answer(True, "ch_1", amount=600)
    assert stripe.release("s/v/3", "pi_1") == Answer(True), "Stripe released the remainder with the capture"
    assert stripe.refund("s/v/4", "ch_1", 200) == Answer(True, "re_1", amount=200)
    assert stripe.refund("s/v/4", "ch_1", 200).reference == "re_1" and server.total == 400
    found = stripe.look_up("authorise", "s/v/1", "pm_card_visa")
    assert found == Answer(True, "pi_1", amount=1000), "what was authorised, though nothing can be captured any more"
    assert stripe.authorise("s/w/1", "pm_card_visa", 500, "EUR").approved
    assert stripe.release("s/w/2", "pi_2") == Answer(True) and server.held == 0


def test_two_operations_under_one_key_are_for_a_person(server: StripeServer) -> None:
    """Keys that are forgotten after a day let a repetition through: neither of the two is taken for the answer."""
    stripe = Account(server)
    stripe.authorise("s/v/1", "pm_card_visa", 1000, "EUR")
    assert stripe.look_up("authorise", "s/v/1", "pm_card_visa") is not None
    server.forget_keys()
    stripe.authorise("s/v/1", "pm_card_visa", 1000, "EUR")
    with pytest.raises(CannotLookUp, match="carried out 2 operations under this key"):
        stripe.look_up("authorise", "s/v/1", "pm_card_visa")


def test_errors_as_documented(server: StripeServer) -> None:
    stripe = Account(server)
    declined = stripe.authorise("d", "pm_card_visa", 100_001, "EUR")
    assert declined == Answer(False, reason="card_declined: insufficient_funds")
    for token in ("pm_detached", "pm_saved", "cus_2:pm_saved"):
        with pytest.raises(PaymentError, match="404: invalid_request_error: resource_missing") as raised:
            stripe.authorise(f"t {token}", token, 100, "EUR")
        assert "pm_" not in str(raised.value)
    held = stripe.authorise("a", "pm_card_visa", 100, "EUR")
    with pytest.raises(PaymentError, match="amount_too_large"):
        stripe.capture("too much", held.reference, 101)
    with pytest.raises(UnknownOutcome, match="another request"):
        stripe.authorise("a", "pm_card_visa", 101, "EUR")
    for fault in ("429", "500", "busy", "drop before"):
        server.faults = [fault]
        with pytest.raises(UnknownOutcome):
            stripe.authorise(f"f {fault}", "pm_card_visa", 100, "EUR")
    with pytest.raises(UnknownOutcome, match="401"):
        Account(server, "sk_wrong").authorise("k", "pm_card_visa", 100, "EUR")
    with pytest.raises(CannotLookUp):
        stripe.look_up("capture", "k", "pi_99")


@pytest.mark.parametrize("fault", ["429", "500", "busy", "drop before", "drop after"])
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("days", [0, 2])
def test_every_fault_at_every_step_even_when_keys_are_forgotten(
    shop: Shop, server: StripeServer, fault: str, at: int, days: int
) -> None:
    """At the authorisation, the capture and the refund; asked again at once, or after Stripe has forgotten the keys."""
    server.faults = [""] * at + [fault]
    shop.checkout.receipt(priced(*TWO))
    shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 1, lines=TWO[:1])
    server.faults.clear()
    if days:
        server.forget_keys()
    for i in range(3):
        # A quarter of an hour apart: a request about more than is due now may still be on its way at first.
        shop.checkout.recover(T_NS + days * DAY_NS + i * 900 * 10**9)
    state = shop.checkout.state("v1")
    if fault == "500" and not days:
        # Stripe repeats a 500 under its key, so nothing comes of it before the key is old; then it is looked up.
        assert state.status in ("pending", "paid")
        shop.checkout.recover(T_NS + DAY_NS)
        state = shop.checkout.state("v1")
    assert (state.status, state.paid, state.authorised) == ("paid", 498, 0)
    assert shop.agrees()["provider"] == 498 and server.held == 0


def test_an_authorisation_that_expired_in_review_is_replaced(shop: Shop, server: StripeServer) -> None:
    shop.checkout.open_visit("v1", "p1", T_NS)
    assert shop.checkout.confirm("v1", 697, T_NS)
    shop.checkout.receipt(priced(*TWO, status="review"))
    server.intents["pi_1"] |= {"status": "canceled", "amount_capturable": 0}
    paid = shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 8 * DAY_NS, lines=TWO)
    assert (paid.status, paid.paid) == ("paid", 697) and shop.agrees()["provider"] == 697
    assert server.intents["pi_2"]["status"] == "succeeded"


def test_an_authorisation_that_expired_early_is_replaced_once(shop: Shop, server: StripeServer) -> None:
    shop.checkout.open_visit("v1", "p1", T_NS)
    assert shop.checkout.confirm("v1", 697, T_NS)
    server.intents["pi_1"] |= {"status": "canceled", "amount_capturable": 0}
    assert shop.checkout.receipt(priced(*TWO)).status == "paid" and shop.agrees()["provider"] == 697
    assert len(server.intents) == 2


def test_a_detached_card_leaves_the_visit_unpaid_until_the_customer_shows_another(
    shop: Shop, server: StripeServer
) -> None:
    server.methods["pm_saved"] = None
    unpaid = shop.checkout.receipt(priced(ReceiptLine(TWO[0].gtin, 1, 300, 1.0)))
    assert unpaid.status == "unpaid" and "resource_missing" in unpaid.reason
    server.methods["pm_new"] = "cus_1"
    shop.ledger.hold(Holder("p2", "account of p1", "cus_1:pm_new", None, T_NS + 5))
    assert shop.checkout.admit("p2", T_NS + 6).debt == 300
    assert shop.checkout.collect("v1", T_NS + 7).status == "paid" and shop.agrees()["provider"] == 300
    assert shop.checkout.admit("p2", T_NS + 8).status == "open"
