"""A payment provider over HTTP: whatever happens to requests and answers, no visit is charged twice."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO
from money.checkouts import Shop, priced
from money.servers import BothSides, Server

from fusion.errors import ConfigError
from fusion.money.providers import (
    Answer,
    CannotLookUp,
    HttpProvider,
    InProcessProvider,
    PaymentError,
    StripeProvider,
    Terms,
    UnknownOutcome,
)
from fusion.money.providers.exchange import Exchange
from fusion.money.providers.pauses import ASKED_MAX_S, LONGEST_S, Pauses
from fusion.money.providers.settings import PaymentSettings, open_provider


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.mark.parametrize(
    "faults",
    [
        [], ["500"], ["drop before"], ["drop after", "drop after"], ["503", "drop after"], ["slow"], ["nonsense"],
        ["half"], ["deep"], ["created"], ["202"], ["302"], ["408"], ["401"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("looks_up", [True, False])
def test_http_provider_never_charges_twice(tmp_path: Path, server: Server, faults: list[str], looks_up: bool) -> None:
    # Only the server that does not answer costs the deadline; a busy machine has time for all other answers.
    shop = Shop(Place(tmp_path), STORE, BothSides(server, 0.5 if "slow" in faults else 60.0))
    server.has_look_up = looks_up
    shop.hold()
    shop.ledger.post_receipt(priced(*TWO))
    for at in range(3):  # the faults hit the authorisation, the capture, the refund
        server.faults = ["", "", ""][:at] + list(faults)
        for _ in range(4):
            shop.checkout.settle("v1", T_NS)
        server.faults.clear()
        if at == 1:
            shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS, lines=TWO[:1])
    shop.checkout.recover(T_NS + 1)
    assert shop.checkout.state("v1").status == "paid" and shop.agrees()["provider"] == 498
    assert list(shop.provider.n_captures.values()) == [1]
    assert {secret for _, _, secret in server.seen} == {"Bearer s3cret"}
    assert {path for path, _, _ in server.seen} == {"/v1/authorise", "/v1/capture", "/v1/refund"}
    assert len({key for _, key, _ in server.seen}) == 3
    shop.ledger.close()


def test_http_answers_and_refusals(server: Server) -> None:
    provider = BothSides(server)
    authorised = provider.authorise('ä " key', "tok", 100, "EUR")
    assert authorised.approved and provider.capture("k2", authorised.reference, 60).approved
    assert provider.capture("k3", authorised.reference, 60) == Answer(False, "", "more than was authorised")
    assert provider.release("k4", authorised.reference).approved
    assert provider.look_up("capture", "k2", authorised.reference) == provider.capture("k2", authorised.reference, 60)
    assert provider.look_up("capture", "k9", authorised.reference) is None
    server.has_look_up = False
    with pytest.raises(CannotLookUp):
        provider.look_up("capture", "k2", authorised.reference)
    with pytest.raises(PaymentError, match="422"):
        provider.authorise('ä " key', "tok", 101, "EUR")
    for status in ("400", "404", "410"):
        server.faults = [status]
        with pytest.raises(PaymentError, match=status):
            provider.authorise("k5", "tok", 100, "EUR")
    for status in ("202", "204", "302", "401", "403", "408", "409", "425", "429", "502"):
        server.faults = [status]
        with pytest.raises(UnknownOutcome):
            provider.authorise("k6", "tok", 100, "EUR")
    server.close()
    with pytest.raises(UnknownOutcome, match="ConnectionRefusedError"):
        provider.authorise("k7", "tok", 100, "EUR")
    for url in ("http://example.org/pay", "ftp://localhost", "localhost:80", "https://u:p@host/", "https://h:99999/", "https://h/?a=b"):
        with pytest.raises(ConfigError, match="want https"):
            Exchange(url)
    assert "s3cret" not in repr(provider)


def test_a_partial_approval_travels(server: Server) -> None:
    server.book = InProcessProvider(lambda step, key: "partial" if step == "authorise" else None)
    assert BothSides(server).authorise("k", "tok", 101, "EUR").amount == 50


def test_the_provider_is_left_alone_after_a_failure(server: Server) -> None:
    now_s = [0.0]
    provider = BothSides(server, clock_s=lambda: now_s[0], pauses=Pauses(2.0, source=random.Random(1)))
    server.faults = ["503", "503"]
    for pause_s in (2.0, 4.0):
        for _ in range(3):  # only the first of these reaches the server
            with pytest.raises(UnknownOutcome):
                provider.authorise("k", "tok", 1, "EUR")
        now_s[0] += pause_s
    assert provider.authorise("k", "tok", 1, "EUR").approved and len(server.seen) == 3
    server.faults, server.headers = ["429"], {"Retry-After": "30"}
    with pytest.raises(UnknownOutcome):
        provider.authorise("k2", "tok", 1, "EUR")
    now_s[0] += 29.0
    with pytest.raises(UnknownOutcome, match="asked again in 1 s"):
        provider.authorise("k2", "tok", 1, "EUR")
    now_s[0] += 1.0
    assert provider.authorise("k2", "tok", 1, "EUR").approved
    server.faults = ["503"]
    server.headers = {"Retry-After": "Wed, 21 Oct 2015 07:28:40 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    with pytest.raises(UnknownOutcome):
        provider.authorise("k3", "tok", 1, "EUR")
    with pytest.raises(UnknownOutcome, match="asked again in 40 s"):
        provider.authorise("k3", "tok", 1, "EUR")
    server.faults, server.headers = ["409", "202"], {}
    now_s[0] += 40.0
    for _ in range(2):  # a request that is still being processed does not stop the others
        with pytest.raises(UnknownOutcome):
            provider.authorise("k4", "tok", 1, "EUR")
    assert provider.authorise("k4", "tok", 1, "EUR").approved


def test_pauses_grow_with_jitter_up_to_a_limit() -> None:
    pauses = Pauses(1.0, source=random.Random(3))
    drawn = [pauses.failed() for _ in range(40)]
    assert all(0.5 * min(2.0**n, LONGEST_S) <= pause <= min(2.0**n, LONGEST_S) for n, pause in enumerate(drawn))
    assert len(set(drawn)) == 40, "no two stores ask at the same instant"
    again = Pauses(1.0, source=random.Random(3))
    assert drawn == [again.failed() for _ in range(40)]
    assert pauses.failed(1e12) == ASKED_MAX_S
    pauses.succeeded()
    assert pauses.failed() <= 1.0


@pytest.mark.parametrize("fault", ["drip", "slow"])
def test_one_deadline_covers_the_whole_request(server: Server, fault: str) -> None:
    ticks = itertools.count()  # each look at the clock is a second later, so no test waits
    clock_s = (lambda: float(next(ticks))) if fault == "drip" else None
    options = {"clock_s": clock_s} if clock_s else {}
    provider = BothSides(server, 12.0 if fault == "drip" else 0.1, **options)
    server.faults = [fault]
    with pytest.raises(UnknownOutcome, match="TimeoutError"):
        provider.authorise("k", "tok", 100, "EUR")
    assert server.seen, "it was sent"


def test_a_name_that_does_not_resolve_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = HttpProvider(Exchange("https://provider.invalid/v1", deadline_s=0.05), "s3cret")
    release = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (release.wait(30), [])[1])
    with pytest.raises(UnknownOutcome, match="TimeoutError"):
        provider.capture("k", "a", 1)
    release.set()


# ---- settings --------------------------------------------------------------------------------------------------------


def test_the_settings_name_a_provider_and_where_its_secret_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "provider.key"
    file.write_text("sk_test_1\n")
    os.chmod(file, 0o600)
    monkeypatch.setenv("PROVIDER_SECRET", "sk_test_2")

    def opened(**fields: object) -> object:
        return open_provider(PaymentSettings.model_validate(fields), tmp_path)

    assert isinstance(opened(provider="test"), InProcessProvider)
    http = opened(provider="http", url="https://pay.example/v1", secret_file="provider.key", keys_kept_h=1)
    assert isinstance(http, HttpProvider) and http.terms.keys_kept_s == 3600.0
    stripe = opened(provider="stripe", secret_env="PROVIDER_SECRET", holds_kept_h=48)
    assert isinstance(stripe, StripeProvider) and stripe.terms.holds_kept_s == 48 * 3600.0
    assert "sk_test" not in repr((http, stripe, vars(http)["_exchange"]))
    os.chmod(file, 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        opened(provider="http", url="https://pay.example/v1", secret_file="provider.key")
    monkeypatch.setenv("TWO_LINES", "sk_1\nX-Header: y")
    with pytest.raises(ConfigError, match="printable ASCII"):
        opened(provider="stripe", secret_env="TWO_LINES")
    with pytest.raises(ConfigError, match="NONE is not set"):
        opened(provider="stripe", secret_env="NONE")


def test_a_provider_is_reached_where_and_as_long_as_its_settings_state(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_SECRET", "s3cret")
    made: list[tuple[str, float]] = []
    real = Exchange

    def noted(url: str, *, deadline_s: float) -> Exchange:
        made.append((url, deadline_s))
        return real(url, deadline_s=deadline_s)

    monkeypatch.setattr("fusion.money.providers.settings.Exchange", noted)
    http = PaymentSettings(provider="http", url=server.url, secret_env="PROVIDER_SECRET", keys_kept_h=1, holds_kept_h=2)
    opened = open_provider(http, Path())
    assert opened.terms == Terms(3600.0, 7200.0)
    assert opened.authorise("k", "tok", 100, "EUR").approved and server.seen
    stripe = open_provider(PaymentSettings(provider="stripe", secret_env="PROVIDER_SECRET", deadline_s=5), Path())
    assert stripe.terms == Terms(86_400.0, 604_800.0) == open_provider(PaymentSettings(provider="test"), Path()).terms
    assert made == [(server.url, 10.0), ("https://api.stripe.com", 5.0)]


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": "paypal"},
        {"provider": "http", "secret_env": "X"},
        {"provider": "stripe"},
        {"provider": "stripe", "secret_env": "X", "secret_file": "y"},
        {"provider": "stripe", "secret": "sk_live"},
        {"provider": "test", "secret_env": "X"},
        {"provider": "stripe", "secret_env": "X", "deadline_s": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PaymentSettings.model_validate(fields)


def test_a_key_is_remembered_until_its_time_is_over() -> None:
    now_ns = [T_NS]
    provider = InProcessProvider(terms=Terms(keys_kept_s=60.0, holds_kept_s=3600.0), clock_ns=lambda: now_ns[0])
    first = provider.authorise("k", "tok", 100, "EUR")
    now_ns[0] = T_NS + 60 * 10**9 - 1
    assert provider.authorise("k", "tok", 100, "EUR") == first
    now_ns[0] = T_NS + 60 * 10**9
    assert provider.authorise("k", "tok", 100, "EUR").reference != first.reference
