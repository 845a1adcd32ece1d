"""Twenty doubtful visits, decided by a script that reads only what the review page is sent.

    python -m bench twenty                 twenty visits of the shops of `bench accuracy`, row by row
    python -m bench twenty --hard          of small busy shops with many look-alikes and put-backs
    python -m bench twenty --answers       after honest shoppers have answered
    python -m bench twenty --visits 60     more of them

Shops are simulated until so many receipts are in review. Each is posted to books, a console serves it, and the script
asks for the visit as the page does (`GET /api/reviews/VISIT`). It decides as a person who looks at the page would: as
the shopper answered, where they did, else the most probable choice of the question, else the bill as it stands. A
decision is right where its lines are what the visit took.

With `--answers` an honest shopper answers the questions about their visit before a person looks; where none of the
choices is true, they say so. In the hard shops most goods weigh nearly the same as others. What the sensors do not
show, no page can: `as stated` is the mean of the probabilities that the engine itself gives these bills, so a share of
right decisions near it says that the page holds what there is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.accuracy.scenarios import CASES, UNMODELLED, run_of
from fusion.files.results import evidence_row
from fusion.money.disputes import NONE_OF_THESE
from fusion.money.ledger import Ledger
from fusion.results import Evidence, Receipt, ReceiptStatus
from fusion.run import Run
from fusion.show.console.server import Console, Files
from fusion.show.console.users import Users
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.truth import EventTruth
from fusion.store.models import Store
from fusion.till.answer_settings import AnswerSettings
from fusion.till.answers import Answers

VISITS, SEEDS_MAX = 20, 200
# What a shopper knows of a moment at a shelf: their own movements this near in time and place are the ones asked about.
REMEMBERED_S, NEAR_M = 3.0, 0.45
PASSWORD = "a password for the bench"


class Doubtful(NamedTuple):
    """A visit in review: store, receipt, evidence as JSON; what it really took, by GTIN, and each movement of it."""

    store: Store
    receipt: Receipt
    evidence: dict[str, Any]
    taken: dict[str, int]
    moved: tuple[EventTruth, ...]


def shops(first_seed: int, *, hard: bool) -> Iterator[tuple[Store, Scenario]]:
    """Shops to simulate: at each seed every row of `bench accuracy`, or the hard one."""
    for seed in range(first_seed, first_seed + SEEDS_MAX):
        if not hard:
            for case in CASES:
                short = run_of(case, seed, quick=True)
                yield short.store(), short.scenario
            continue
        yield demo_store(n_cameras=6, n_plates=24, look_alike_share=0.6, seed=seed), Scenario(
            seed=seed, minutes=3.0, shoppers=14, picks_per_person=4.0, put_back_probability=0.4,
            wrong_place_probability=0.4, neighbour_probability=0.4, **UNMODELLED,  # type: ignore[arg-type]
        )  # fmt: skip


def doubtful_visits(first_seed: int, *, hard: bool = False) -> Iterator[Doubtful]:
    """Visits in review of simulated shops, of people who checked in."""
    for store, scenario in shops(first_seed, hard=hard):
        simulation = Simulation(store, scenario)
        run = Run(store, simulation.observations())
        results = [*run.results(), *run.finish()]
        bundles = {result.visit: evidence_row(result) for result in results if isinstance(result, Evidence)}
        taken = {visit.account: visit.items for visit in simulation.truth.visits}
        for result in results:
            if isinstance(result, Receipt) and result.status == ReceiptStatus.REVIEW and result.account in taken:
                moved = tuple(event for event in simulation.truth.events if event.account == result.account)
                yield Doubtful(store, result, bundles.get(result.visit, {}), taken[result.account], moved)


def shown(visit: Doubtful, folder: Path, *, answers: bool = False) -> dict[str, Any]:
    """The visit as the console sends it to the page; `answers`: after an honest shopper has answered."""
    users = Users(folder / "users.json")
    users.add("bench", PASSWORD, visit.store.id)
    (folder / "evidence.jsonl").write_text(json.dumps(visit.evidence) + "\n", encoding="utf-8")
    with Ledger.open(folder / "ledger.sqlite", visit.store) as ledger:
        ledger.post_receipt(visit.receipt)
        if answers:
            _answer(ledger, visit)
        files = Files(evidence=folder / "evidence.jsonl")
        console = Console(visit.store, ledger, users, files=files, clock_s=lambda: 0.0)
        token = console.access.sessions.begin("bench", 0.0, users.stamp("bench"))
        body = asyncio.run(_get(console, f"/api/reviews/{visit.receipt.visit}", token))
    return dict(json.loads(body))


def _answer(ledger: Ledger, visit: Doubtful) -> None:
    """Answer as an honest shopper does: with what they moved there, or that it is none of the choices."""
    # A person decides, whatever the answer.
    heard = Answers(visit.store, ledger, lambda _: visit.evidence, AnswerSettings(settle=False))
    at = {plate.plate: (plate.x, plate.y, plate.z) for plate in visit.store.plates}
    for question in heard.questions(visit.receipt.visit):
        moved: Counter[str] = Counter()
        for event in visit.moved:
            is_near = math.dist(at[event.plate], at[question.plate]) < NEAR_M
            if is_near and abs(event.t_ns - question.t_ns) < REMEMBERED_S * 1e9:
                moved[event.gtin] += event.quantity
        wanted = {gtin: quantity for gtin, quantity in moved.items() if quantity}
        right = [one.number for one in question.choices if {g.gtin: g.quantity for g in one.moved} == wanted]
        number = right[0] if right else NONE_OF_THESE
        heard.answer(visit.receipt.visit, question.id, number, visit.receipt.issued_ns)


async def _get(console: Console, path: str, token: str) -> bytes:
    """The answer of an application to a request, without a network."""
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    headers = [(b"host", b"localhost"), (b"cookie", f"{console.access.cookie}={token}".encode())]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await console.app(scope, receive, send)  # type: ignore[arg-type]
    return b"".join(sent)


def decided(page: dict[str, Any]) -> dict[str, int]:
    """What the visit took, by GTIN, as a person would decide who sees this page."""
    choices = page["question"]["choices"]
    likely = max(choices, key=lambda choice: choice["p"] or 0.0)
    stated = [answer for answer in page["heard"]["answers"] if answer["lines"] is not None]
    surest = max(stated, key=lambda answer: answer["after"] or 0.0, default=likely)
    return {gtin: quantity for gtin, quantity in surest["lines"] if quantity}


def main() -> None:
    """Print how many were decided rightly, and what the wrong ones looked like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=VISITS, help=f"doubtful visits ({VISITS})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first shop (1)")
    parser.add_argument("--hard", action="store_true", help="small busy shops with many look-alikes and put-backs")
    parser.add_argument("--answers", action="store_true", help="after honest shoppers have answered")
    args = parser.parse_args()
    n = n_right = n_asked = 0
    stated = 0.0
    for visit in doubtful_visits(args.seed, hard=args.hard):
        with tempfile.TemporaryDirectory() as folder:
            page = shown(visit, Path(folder), answers=args.answers)
        decision = decided(page)
        n, n_asked = n + 1, n_asked + (page["question"]["kind"] != "bill")
        stated += visit.receipt.probability or 0.0
        if decision == visit.taken:
            n_right += 1
        else:
            print(f"wrong: {page['question']['sentence']} decided {decision}, took {visit.taken}", flush=True)
        if n == args.visits:
            break
    print(
        f"{n_right} of {n} doubtful visits are decided rightly ({n_right / n:.0%}; as stated {stated / n:.0%}); "
        f"{n_asked} of them came with a question"
    )


if __name__ == "__main__":
    main()
