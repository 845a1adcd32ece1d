"""How long a gate takes to decide while an engine runs at full load in the same process.

    python -m bench gate

Codes are signed and verified with Ed25519 and used up durably (SQLite, synchronous FULL), behind a pseudonym in the
ledger's vault; the engine is fed a simulated shop as fast as it accepts it, without pauses. Time counts from the
instant at which the reader has the credential, so it includes waking up. Python runs one thread at a time, and a thread
that wants to run asks the other to yield after 5 ms, several times per decision; gates in a separate process are the
case called idle. Where the provider hangs, customers tap payment cards all the time and none is answered, while codes
and badges are decided from memory.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fusion import Engine
from fusion.gates.codes import CodeSigner, CodeVerifier, UsedCodes
from fusion.gates.keeper import GateKeeper, GateLimits
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import GateRequest, StaffList, VerifiedAccounts
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import Answer, InProcessProvider
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import PaymentPolicy

N_DECISIONS = 500
# Readers at which cards are tapped while the provider hangs.
N_READERS = 8


class HangingProvider(InProcessProvider):
    """A provider that never answers while the benchmark runs."""

    def __init__(self, over: threading.Event) -> None:
        super().__init__()
        self._over = over

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        self._over.wait()
        return super().authorise(key, token, amount, currency)


@contextlib.contextmanager
def tapping(keeper: GateKeeper, t_ns: int, over: threading.Event) -> Iterator[None]:
    """While the block runs, cards are shown at many readers, each a few times before its owner gives up."""

    def tap(reader: int) -> None:
        shown = itertools.count()
        while not over.wait(0.1):
            keeper.scan(GateRequest(t_ns, "entry", "account", f"card {reader} {next(shown) // 4}"))

    readers = [threading.Thread(target=tap, args=(reader,), daemon=True) for reader in range(N_READERS)]
    for reader in readers:
        reader.start()
    time.sleep(3.0)  # Until many wait.
    yield
    over.set()
    for reader in readers:
        reader.join()


@pytest.mark.parametrize("provider", ["answers", "hangs"])
@pytest.mark.parametrize("load", ["engine at full load", "idle"])
@pytest.mark.parametrize("kind", ["qr", "staff"])
def bench_decisions(  # type: ignore[no-untyped-def]
    benchmark, tmp_path: Path, load: str, kind: str, provider: str
) -> None:
    store = demo_store()
    observations = list(Simulation(store, Scenario(seed=1, minutes=1.5, shoppers=3)).observations())
    key = Ed25519PrivateKey.generate()
    signer, ledger = CodeSigner(key, store.id), Ledger.open(tmp_path / "ledger.sqlite", store)
    pseudonyms, over = Pseudonyms(ledger), threading.Event()
    paying_store = store.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=5000)})
    checkout = Checkout(ledger, HangingProvider(over), paying_store)
    used = UsedCodes(tmp_path / "used.sqlite")
    keeper = GateKeeper(
        store,
        {
            "qr": pseudonyms.behind(CodeVerifier({"": key.public_key()}, store.id, used)),
            "staff": StaffList({"badge"}),
            "account": Pseudonyms(ledger, admit=checkout.admit).behind(VerifiedAccounts()),
        },
        now_ns=lambda: observations[0].t_ns,
        limits=GateLimits(deadline_s=1.0),  # measured here, not cut off
    )
    stop, n_fed = threading.Event(), 0

    def run_engine() -> None:
        nonlocal n_fed
        while not stop.is_set():
            engine = Engine(store)
            for observation in observations:
                engine.feed(observation)
                n_fed += 1
                if stop.is_set():
                    return

    thread = threading.Thread(target=run_engine, daemon=True)
    if load != "idle":
        thread.start()
        while n_fed < 1000:
            time.sleep(0.01)
    t_ns, took_s = observations[0].t_ns, []
    numbers = itertools.count()

    def decide() -> None:
        token = signer.code(f"account {next(numbers)}", t_ns) if kind == "qr" else "badge"
        due_s = time.perf_counter() + 0.003
        time.sleep(0.003)
        decision = keeper.scan(GateRequest(t_ns, "entry", kind, token))
        took_s.append(time.perf_counter() - due_s)
        assert decision.open, decision

    fed_before, began_s = n_fed, time.perf_counter()
    with tapping(keeper, t_ns, over) if provider == "hangs" else contextlib.nullcontext():
        benchmark.pedantic(decide, rounds=N_DECISIONS)
    fed_per_s = (n_fed - fed_before) / (time.perf_counter() - began_s)
    stop.set()
    if load != "idle":
        thread.join()
    ledger.close()
    p99_ms = 1e3 * statistics.quantiles(took_s, n=100)[98]
    benchmark.extra_info |= {
        "p50_ms": round(1e3 * statistics.median(took_s), 2),
        "p99_ms": round(p99_ms, 2),
        "max_ms": round(1e3 * max(took_s), 2),
        "observations_per_s": round(fed_per_s),
    }
