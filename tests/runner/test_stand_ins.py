"""The stand-ins of a first day: a provider behind HTTP that a store speaks to, and customers at its gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusion.gates.verifiers import GateRequest
from fusion.live.messages import Command
from fusion.money.providers import HttpProvider, UnknownOutcome
from fusion.money.providers.exchange import Exchange
from fusion.observations import GateScan
from fusion.runner import provider_stub, shoppers
from fusion.runner.provider_stub import ProviderStub
from fusion.simulation import Scenario, demo_store

STORE = demo_store(2, 4)


@pytest.fixture
def stub() -> Iterator[tuple[ProviderStub, list[str]]]:
    lines: list[str] = []
    stub = ProviderStub("s3cret", report=lines.append)
    yield stub, lines
    stub.close()


def client(stub: ProviderStub, secret: str = "s3cret") -> HttpProvider:
    return HttpProvider(Exchange(f"http://127.0.0.1:{stub.port}/v1", deadline_s=60.0), secret)


def test_the_stub_takes_every_step_of_a_payment_once(stub: tuple[ProviderStub, list[str]]) -> None:
    server, lines = stub
    provider = client(server)
    held = provider.authorise("k1", "tok_1", 500, "EUR")
    assert held.approved and provider.authorise("k1", "tok_1", 500, "EUR") == held
    taken = provider.capture("k2", held.reference, 300)
    assert taken.approved and server.accounts.total == 300
    assert provider.look_up("capture", "k2", held.reference) == taken
    assert provider.look_up("capture", "k9", held.reference) is None
    assert provider.refund("k3", taken.reference, 100).approved and provider.release("k4", held.reference).approved
    assert server.accounts.total == 200 and server.accounts.held == 0
    assert [line.split(":")[0] for line in lines] == [
        "authorise 500", "authorise 500", "capture 300", "refund 100", "release",
    ]  # fmt: skip


def test_the_stub_refuses_a_wrong_secret_and_what_it_does_not_know(stub: tuple[ProviderStub, list[str]]) -> None:
    server, _ = stub
    with pytest.raises(UnknownOutcome):
        client(server, "guessed").authorise("k1", "tok_1", 500, "EUR")
    assert not client(server).capture("k2", "auth-unknown", 300).approved
    assert server.accounts.total == server.accounts.held == 0


def test_a_secret_that_others_can_read_starts_no_stub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "provider.key"
    secret.write_text("s3cret", encoding="utf-8")
    secret.chmod(0o644)
    assert provider_stub.main(["--secret-file", str(secret), "--port", "0"]) == 2
    assert "chmod 600" in capsys.readouterr().err


class FakePublisher:
    """Answers each request of a gate with the next of some commands."""

    def __init__(self, answers: list[dict[str, Any]], on_command: Callable[[Command], None]) -> None:
        self.asked: list[GateRequest] = []
        self._answers, self._on_command = answers, on_command

    def ask(self, request: GateRequest) -> int:
        self.asked.append(request)
        number = len(self.asked)
        fields = {"v": 2, "time": request.t_ns, "gate": request.gate, "request": number, "display": "...",
                  **self._answers[number - 1]}  # fmt: skip
        self._on_command(Command.model_validate(fields))
        return number

    def close(self, timeout_s: float = 5.0) -> None:
        pass


def test_a_customer_polls_for_as_long_as_the_store_asks_for_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        {"open": False, "reason": "one moment", "again_s": 0.0},
        {"open": True, "reason": "welcome", "display": "Welcome"},
    ]
    made: list[FakePublisher] = []

    def publisher(broker: object, store_id: str, name: str, *, on_command: Callable[[Command], None]) -> FakePublisher:
        made.append(FakePublisher(answers, on_command))
        return made[0]

    monkeypatch.setattr(shoppers, "Publisher", publisher)
    lines: list[str] = []
    gates = shoppers.Gates(None, STORE, lines.append)  # type: ignore[arg-type]
    gates.enter(GateScan(7, "entry", "qr", "anna"))
    gates.close()
    assert [(one.credential_type, one.token, one.t_ns) for one in made[0].asked] == [("card", "tok_anna", 7)] * 2
    assert lines == ["gate entry opens: welcome; the gate shows: Welcome"] and gates.answers == {"welcome": 1}


def test_the_shop_begins_empty_and_now() -> None:
    now_ns = 1_800_000_000 * 10**9
    scenario = Scenario(seed=1, minutes=0.9, shoppers=1)
    observations = list(shoppers.from_now(STORE, scenario, now_ns))
    assert abs(observations[0].t_ns - now_ns) < 1e9
    (scan,) = [one for one in observations if isinstance(one, GateScan)]
    assert (scan.t_ns - now_ns) * 1e-9 > shoppers.EMPTY_S
    # Both parts follow each other: no stream stops for longer than its usual step, and none goes back.
    steps = [(b.t_ns - a.t_ns) * 1e-9 for a, b in itertools.pairwise(observations)]
    assert max(steps) < 0.25 and min(steps) > -0.25
