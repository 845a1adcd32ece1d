"""A store's checkout, killed again and again while it works: what was acknowledged stays, no visit is charged twice.

    python -m bench kills --kills 1000                                    SQLite
    python -m bench kills --kills 200 --url postgresql://postgres@/books  PostgreSQL
    python -m bench kills --kills 1000 --hostile                          SQLite, a provider that cannot be trusted

A client authorises, opens visits, posts receipts, captures and decides as fast as it can, and writes each acknowledged
step to a pipe. It is killed (SIGKILL) at random moments; the next one recovers, repeats the last steps and continues.
The payment provider is a separate server behind HTTP that outlives them all. At the end its accounts are compared with
the store's books.

A hostile provider is slow, loses requests and answers, answers with references that it gave before, and forgets its
keys: two days pass between a client and the next. What waits for a person at the end is entered as a person would, who
reads the provider's account; then both books have to agree to the cent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout, Payment
from fusion.money.providers import Answer, HttpProvider, InProcessProvider, PaymentError, SeededFaults, UnknownOutcome
from fusion.money.providers.exchange import Exchange
from fusion.money.providers.pauses import Pauses
from fusion.money.providers.provider import CannotLookUp, Step
from fusion.money.vault import Holder
from fusion.money.visits import Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import PaymentPolicy, Product, Store

T_NS = 1_772_528_646_000_000_000
GTINS = ("4006381333931", "96385074")
STORE = Store(
    format_version=1,
    id="killed",
    name="Killed",
    currency="EUR",
    timezone="Europe/Berlin",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
    keypoints="coco17",
    payment=PaymentPolicy(mode="enter", authorise=2000),
    products=tuple(
        Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
        for gtin, rate in zip(GTINS, (19.0, 7.0))
    ),
)
# A client is killed within this time after a random number of acknowledged steps; four steps are a visit.
STEPS_MAX, MOMENT_MAX_S = 24, 0.03
# Some are killed sooner, while they open the books and recover.
OPENS_MAX_S = 0.06
# Of a hostile provider: shares of requests, how long each takes, and what passes between two clients. Its keys are kept
# for a day.
HOSTILE = {"lost_before": 0.05, "lost_after": 0.1, "repeat": 0.05}
SLOW_MAX_S = 0.01
PASSES_NS = 2 * 86_400 * 10**9
# Passes before the books are compared: unused authorisations are released by then, the others still stand.
LAST_NS = 1000 * 10**9
# Finished visits that the next client repeats.
UNFINISHED = 1

# Carries out a request, given its path, idempotency key and body; None where a step that is looked up is not known.
Answered = Callable[[str, str, dict[str, Any]], Answer | None]


def provider_server(answered: Answered, port: int = 0) -> ThreadingHTTPServer:
    """The HTTP of a payment provider on this machine, as `HttpProvider` asks, which carries out steps by `answered`.

    It is called with the request's path, its idempotency key and its body. Where it raises UnknownOutcome, no answer is
    sent.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            step = self.path.rsplit("/", 1)[1]
            status, fields = 200, {"found": False}
            try:
                answer = answered(self.path, json.loads(self.headers.get("Idempotency-Key", "null")), body)
            except UnknownOutcome:
                self.close_connection = True
                return
            except CannotLookUp:
                status, fields = 404, {}
            except PaymentError as error:
                status, fields = 422, {"reason": str(error)}
            else:
                if answer is not None:
                    fields = {"found": True, "approved": answer.approved, "reference": answer.reference,
                              "reason": answer.reason}  # fmt: skip
                    status = 200 if answer.approved or step == "look_up" else 402
            text = json.dumps(fields).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ValueError):  # the client was killed while it spoke
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def serve_provider(book: InProcessProvider, slow_max_s: float = 0.0) -> ThreadingHTTPServer:
    """A payment provider in threads of this process; each answer takes up to `slow_max_s`."""
    rng = random.Random(1)

    def answered(path: str, key: str, body: dict[str, Any]) -> Answer | None:
        step = path.rsplit("/", 1)[1]
        time.sleep(rng.uniform(0.0, slow_max_s))
        return book.look_up(**body) if step == "look_up" else getattr(book, step)(key, **body)

    server = provider_server(answered)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def provider_at(url: str) -> HttpProvider:
    """The provider of one client. It is asked again at once: these clients do not live long enough for a pause."""
    return HttpProvider(Exchange(url, pauses=Pauses(0.0)), "secret")


def course(i: int) -> tuple[tuple[ReceiptLine, ...], str, str | None]:
    """Lines and status of visit i's receipt, and a person's decision about it; the same at every try."""
    rng = random.Random(i)
    lines = tuple(
        ReceiptLine(gtin, rng.randrange(1, 4), rng.randrange(1, 900), 0.9) for gtin in GTINS if rng.random() < 0.8
    )
    status = "review" if rng.random() < 0.3 else "settled"
    return lines, status, rng.choice([None, "waive", "accept" if status == "review" else "waive"])


def total_of(lines: tuple[ReceiptLine, ...]) -> int:
    return sum(line.quantity * line.unit_price for line in lines)


def work(ledger: Ledger, checkout: Checkout, first: int, pipe: int) -> None:
    """Serve visit after visit, and write to a pipe what was acknowledged."""

    def acknowledge(step: str, i: int) -> None:
        os.write(pipe, f"{step} {i}\n".encode())

    checkout.recover(T_NS + first)
    for i in range(first, 10**9):
        visit, pseudonym, t_ns = f"v{i}", f"p{i}", T_NS + i
        if ledger.holder(pseudonym) is None:
            ledger.hold(Holder(pseudonym, f"account {i}", f"tok_{i}", None, t_ns))
        checkout.admit(pseudonym, t_ns)
        acknowledge("admitted", i)
        checkout.open_visit(visit, pseudonym, t_ns)
        acknowledge("opened", i)
        lines, status, decision = course(i)
        reasons = (Reason(ReasonKind.CART_UNCERTAIN, probability=0.9),) if status == "review" else ()
        times = t_ns, t_ns, t_ns
        receipt = Receipt(visit, pseudonym, *times, ReceiptStatus(status), reasons, "EUR", total_of(lines), lines)
        checkout.receipt(receipt)
        acknowledge("billed", i)
        if decision is not None:
            checkout.decide(visit, decision, by="eve", t_ns=t_ns)  # type: ignore[arg-type]
        acknowledge("finished", i)


@dataclass
class Outcome:
    """The state after all kills: `by_person` steps waited for a person; `faults` is empty where every check holds."""

    kills: int
    acknowledged: Counter[str]
    captured: int
    by_person: int
    faults: list[str]


def killed(
    open_ledger: Callable[[], Ledger],
    n_kills: int,
    seed: int = 1,
    deadline_s: float = 1e9,
    hostile: bool = False,
    looks_up: bool = True,
) -> Outcome:
    """Kill clients n times while they work on the same books, then check books and provider."""
    rng = random.Random(seed)
    faulty = SeededFaults(seed, **HOSTILE) if hostile else lambda step, key: None
    book = InProcessProvider(faulty, looks_up=looks_up, clock_ns=lambda: now_ns)
    server = serve_provider(book, SLOW_MAX_S if hostile else 0.0)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    newest: dict[str, int] = dict.fromkeys(("admitted", "opened", "billed", "finished"), -1)
    faults: list[str] = []
    began_s, kills, now_ns = time.monotonic(), 0, T_NS
    while kills < n_kills and time.monotonic() - began_s < deadline_s:
        reading, writing = os.pipe()
        # A client that does not know whether its last steps arrived repeats them.
        first = max(0, newest["finished"] - UNFINISHED)
        client = os.fork()
        if client == 0:
            try:
                os.close(reading)
                with open_ledger() as ledger:
                    checkout = Checkout(ledger, provider_at(url), STORE, clock_ns=partial(int, now_ns))
                    work(ledger, checkout, first, writing)
            except BaseException as error:
                os.write(writing, f"failed {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        os.close(writing)
        while_opening, n_steps = kills % 4 == 0, rng.randrange(STEPS_MAX)
        moment_s = rng.uniform(0.0, OPENS_MAX_S if while_opening else MOMENT_MAX_S)
        timer = threading.Timer(moment_s, os.kill, (client, signal.SIGKILL))
        if while_opening:
            timer.start()
        with os.fdopen(reading) as lines:
            for n_lines, line in enumerate(lines):
                if n_lines == n_steps and not while_opening:
                    timer.start()
                step, _, rest = line.rstrip("\n").partition(" ")
                if step == "failed":
                    faults.append(rest)
                else:
                    newest[step] = max(newest[step], int(rest))
        # The pipe has ended, so the client is dead; without the timer if it failed before, which is a fault above.
        if timer.ident is not None:
            timer.join()
        os.waitpid(client, 0)
        kills += 1
        if hostile:
            now_ns += PASSES_NS
    book.recovered()
    with open_ledger() as ledger:
        # Later than any request of a dead client could arrive.
        now_ns += LAST_NS
        checkout = Checkout(ledger, provider_at(url), STORE)
        checkout.recover(now_ns, restarted=True)
        n_by_person = look_at_account(ledger, checkout, book, now_ns)
        faults += faults_of(ledger, checkout, book, newest)
    server.shutdown()
    server.server_close()
    acknowledged = Counter({step: number + 1 for step, number in newest.items()})
    return Outcome(kills, acknowledged, book.total, n_by_person, faults)


class Account(Protocol):
    """A provider's account, as a person looks at it."""

    def carried_out(self, step: Step, key: str) -> list[Answer]:
        """Every operation under a key."""
        ...


def look_at_account(ledger: Ledger, checkout: Checkout, book: Account, t_ns: int, store_id: str = STORE.id) -> int:
    """Enter what the provider's account shows about every step in question, as a person does; returns how many."""
    n_looked = 0
    while waiting := [one.visit for one in checkout.outstanding() if one.status == "person"]:
        for visit in waiting:
            asked = [entry for entry in ledger.entries(visit) if entry.kind == "payment asked"]
            step = asked[-1].request["step"]
            found = book.carried_out(step, f"{store_id}/{visit}/{len(asked)}")
            reference = found[0].reference if found else ""
            if ledger.recorded(f"reference {step} {reference}", "given") is not None:
                # The provider gave another step this reference while the answer to its own was lost.
                found, reference = [] if step == "authorise" else found, ""
            checkout.resolve(visit, carried_out=bool(found), by="eve", t_ns=t_ns, reference=reference)
            n_looked += 1
        for payment in checkout.outstanding():
            if payment.status in ("unpaid", "owing"):
                checkout.collect(payment.visit, t_ns)
    return n_looked


def differences(ledger: Ledger, currency: str, book: InProcessProvider) -> list[str]:
    """What is wrong with the books by themselves, and beside the provider's accounts."""
    faults = []
    if (fault := ledger.verify()) is not None:
        faults.append(fault)
    balances = ledger.balances().get(currency, {})
    if sum(balances.values()):
        faults.append(f"accounts sum to {sum(balances.values())}")
    for account, theirs in (("provider", book.total), ("authorised", book.held)):
        if balances.get(account, 0) != theirs:
            faults.append(f"{account}: {balances.get(account, 0)} in our books, {theirs} in the provider's")
    if any(n > 1 for n in book.n_captures.values()):
        faults.append("an authorisation was captured twice")
    return faults


def faults_of(ledger: Ledger, checkout: Checkout, book: InProcessProvider, newest: dict[str, int]) -> list[str]:
    """What is lost, doubled or unbalanced; `newest` is the last visit that each step was acknowledged for."""
    faults = differences(ledger, "EUR", book)
    if ledger.open_visits():
        faults.append("a visit is neither settled nor in review")
    due = 0
    for i in range(newest["opened"] + 1 + UNFINISHED):
        standing, payment = ledger.standing(f"v{i}"), checkout.state(f"v{i}")
        if standing is None:
            if i <= newest["opened"]:
                faults.append(f"v{i}: its opening was acknowledged, and it is lost")
            continue
        faults += [f"v{i}: {fault}" for fault in _faults_of_visit(i, standing, payment, newest)]
        if payment.status == "paid":
            due += standing.total
    if due != book.total:
        faults.append(f"visits cost {due}, the provider took {book.total}")
    return faults


def _faults_of_visit(i: int, standing: Standing, payment: Payment, newest: dict[str, int]) -> Iterator[str]:
    lines, status, decision = course(i)
    if i <= newest["billed"]:
        wanted = {total_of(lines), 0 if decision == "waive" else total_of(lines)}
        if standing.total not in wanted:
            yield f"billed {standing.total}, want one of {sorted(wanted)}"
    if i <= newest["finished"]:
        wanted_status = "decided" if decision is not None else status
        if standing.status != wanted_status:
            yield f"{standing.status}, want {wanted_status}"
    if standing.status == "review":
        if payment.paid:
            yield f"in review and charged {payment.paid}"
    elif payment.status != "paid" or payment.paid != standing.total or payment.authorised:
        yield f"{payment}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--url", help="postgresql://... of an empty database; SQLite without it")
    parser.add_argument("--hostile", action="store_true", help="with a provider that cannot be trusted")
    parser.add_argument("--no-look-up", action="store_true", help="the provider does not state what became of requests")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where, vault = (args.url, Path(folder) / "vault.sqlite") if args.url else (Path(folder) / "ledger.sqlite", None)
        outcome = killed(
            lambda: Ledger.open(where, STORE, vault=vault), args.kills, args.seed,
            hostile=args.hostile, looks_up=not args.no_look_up,
        )  # fmt: skip
    steps = ", ".join(f"{n} {step}" for step, n in outcome.acknowledged.items())
    print(f"{outcome.kills} kills; acknowledged: {steps}; {outcome.captured / 100:.2f} EUR captured")
    print(f"{outcome.by_person} steps were entered by a person who read the provider's account")
    print("\n".join(outcome.faults) or "nothing lost, nothing doubled, the chain holds, both books agree")
    return bool(outcome.faults)
