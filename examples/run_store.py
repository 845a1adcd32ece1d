"""Run a store from door to receipt: simulate one, or replay a recording.

python examples/run_store.py                          simulate a small shop for five minutes
python examples/run_store.py --store DIR              simulate the store of a store folder, such as
                                                      examples/stores/amazon_go
python examples/run_store.py RECORDING --out DIR      replay a recording, write the contract's results
python examples/run_store.py --store DIR --mqtt HOST  run a store on what its sensors publish, until interrupted
python examples/run_store.py --view out.rrd           write a Rerun recording of the run as well (extra `view`)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from live import LiveFront
    from storefront import Example

    from fusion.files.recordings import Recording
    from fusion.observations import Observation
    from fusion.results import Receipt, Result
    from fusion.show.rerun_view import View
    from fusion.simulation import Simulation
    from fusion.store.models import Store


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recording", nargs="?", type=Path, help="folder of a recording; without one a store is simulated"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for results, report.html and ledger (out)"
    )
    parser.add_argument("--store", type=Path, help="store folder to simulate (a built-in shop of 8 cameras, 80 plates)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (1)")
    parser.add_argument("--minutes", type=float, help="simulated minutes (5, or what the store's example.toml says)")
    parser.add_argument("--shoppers", type=int, help="simulated shoppers (8, or what example.toml says)")
    parser.add_argument("--ledger", help="books to use: a path or URL (OUT/ledger.sqlite, begun anew)")
    parser.add_argument("--vault", type=Path, help="file for the vault beside books in PostgreSQL")
    parser.add_argument("--smtp", metavar="HOST:PORT", help="mail server for receipts, where customers want them")
    parser.add_argument("--console", action="store_true", help="tell consoles what happens, through OUT/live.sock")
    live = parser.add_argument_group("live")
    live.add_argument("--mqtt", metavar="BROKER", help="HOST:PORT, mqtt://USER@HOST:PORT, or mqtts://... for TLS")
    live.add_argument("--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    live.add_argument("--mqtt-ca", type=Path, help="certificate authorities to trust (the system's)")
    live.add_argument("--record", type=Path, metavar="DIR", help="record what is used of the streams in a new folder")
    live.add_argument("--code-key", type=Path, help="public key of the server that signs QR codes, PEM")
    live.add_argument("--staff-list", type=Path, help="tokens that let staff in, one a line")
    parser.add_argument("--view", type=Path, metavar="OUT.RRD", help="Rerun recording to write, for engineers")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--fast", action="store_true", help="as fast as possible (default)")
    pace.add_argument("--realtime", action="store_true", help="at the pace of the data")
    args = parser.parse_args()
    if args.recording and args.store:
        parser.error("--store simulates, RECORDING replays: want one of them")
    if (args.minutes is not None and args.minutes <= 0) or (args.shoppers is not None and args.shoppers < 0):
        parser.error("want --minutes above 0 and --shoppers of at least 0")
    if args.mqtt and (args.recording or not args.store):
        parser.error("--mqtt wants --store, and no RECORDING")
    if args.mqtt and (args.realtime or any(value is not None for value in (args.minutes, args.shoppers))):
        parser.error("--mqtt goes on at the pace of the sensors: no --realtime, --minutes or --shoppers")
    if not args.mqtt and (args.record or args.code_key or args.staff_list):
        parser.error("--record, --code-key and --staff-list want --mqtt")
    return args


def main() -> int:
    args = arguments()
    # Only now: --help should not wait for the kernels.
    from fusion.errors import FusionError

    try:
        return run(args)
    except FusionError as error:
        print(f"run_store.py: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fusion.errors import RecordingError
    from fusion.files.recordings import Recording
    from fusion.files.results import ResultsWriter
    from fusion.money.ledger import Ledger
    from fusion.results import PersonEntered, Receipt, Warning
    from fusion.run import Run
    from fusion.show.console.feed import LiveFeed
    from fusion.show.report import Report
    from fusion.store.models import Store

    recording: Recording | None = None
    example: Example | None = None
    live: LiveFront | None = None
    simulation: Simulation | None = None
    observations: Iterable[Observation]
    if args.mqtt:
        store, span_ns = Store.load(args.store), None
    elif args.recording:
        recording = Recording(args.recording)
        store, observations, span_ns = recording.store, recording.observations(), recording.span_ns()
    else:
        store, simulation, span_ns, example = simulated(args)
        observations = simulation.observations()
    start_ns, end_ns = span_ns or (0, 0)
    origin = f"{(end_ns - start_ns) / 60e9:.1f} minutes {'recorded' if recording else f'simulated (seed {args.seed})'}"
    if args.mqtt:
        origin = f"live from {args.mqtt}"
    holds = f"{len(store.cameras)} cameras, {len(store.plates)} plates, {len(store.products)} products"
    print(f"{store.name}: {holds}; {origin}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    view = None
    if args.view is not None:
        from fusion.show.rerun_view import View

        args.view.parent.mkdir(parents=True, exist_ok=True)
        view = View(args.view, store)
    # Each run is a book of its own; a shop that goes on trading keeps its ledger.
    for old in () if args.mqtt else args.out.glob("ledger.sqlite*"):
        old.unlink()
    ledger = Ledger.open(args.ledger or args.out / "ledger.sqlite", store, vault=args.vault)
    if args.mqtt:
        from live import LiveFront

        live = LiveFront(args, store, ledger, tell=lambda warning: keep(warning))
        observations = live.streams
    elif args.realtime:
        observations = paced(observations)
    front = None
    if example is not None and simulation is not None:
        from storefront import Storefront

        front = Storefront(
            store, example, simulation.scenario, ledger=ledger, out=args.out, folder=args.store, smtp=args.smtp
        )
        observations = front.observations(observations)
    if view is not None:
        observations = viewed(observations, view)
    one_run = Run(store, observations, live.record if live else None)
    writer = ResultsWriter(args.out, store)
    report = Report(store, store.name, one_run.engine)
    feed = LiveFeed(store, one_run.engine, args.out / "live.sock") if args.console else None
    receipts: list[Receipt] = []
    exit_code = 0
    total_s = round((end_ns - start_ns) / 1e9) if span_ns else None
    bar = tqdm(total=total_s, unit="s", desc="store time", smoothing=0.05, mininterval=0.2)

    def keep(result: Result) -> None:
        if front is not None:
            result = front.result(result, one_run.engine)
        elif isinstance(result, PersonEntered) and result.visit is not None:
            ledger.open_visit(result.visit, result.account, result.t_ns)
        elif isinstance(result, Receipt):
            ledger.post_receipt(result)
        if not isinstance(result, Warning) or result.t_ns:  # There is no time yet before the first data.
            writer.write(result, one_run.engine.account_of)
            report.add(result)
        if feed is not None:
            feed.add(result)
        if live is not None:
            live.told(result)
        if view is not None:
            view.add(result)
        if isinstance(result, Receipt):
            receipts.append(result)
        line = describe(store, result, start_ns or one_run.first_ns)
        if line:
            bar.write(line)
            sys.stdout.flush()

    try:
        for result in one_run.results():
            keep(result)
            seconds = (one_run.newest_ns - (start_ns or one_run.first_ns)) // 1_000_000_000
            if seconds > bar.n:
                bar.update(seconds - bar.n)
    except KeyboardInterrupt:
        bar.write("interrupted: the results so far are kept")
        exit_code = 130
    except RecordingError as error:
        bar.write(f"run_store.py: {error}; the results so far are kept", file=sys.stderr)
        exit_code = 2
    for result in one_run.finish():
        keep(result)
    if feed is not None:
        feed.close()
    bar.close()
    if live is not None:
        live.close()
    summary = one_run.summary(live.streams if live else recording)
    if view is not None:
        view.close()
    summary = one_run.summary(recording)
    shelves = one_run.engine.shelf_state()
    writer.close(summary, shelves)
    visits = read_truth(args.recording) if recording else simulated_truth(simulation) if simulation else None
    if front is not None and simulation is not None and visits is not None:
        visits = front.truth_of(visits, simulation.truth.events)
    report.write(args.out / "report.html", summary, truth=visits, shelves=shelves)
    report.write_svg(args.out / "floor.svg")

    print()
    print_receipts(store, receipts, visits)
    delays = sorted((receipt.issued_ns - receipt.exit_ns) / 1e9 for receipt in receipts)
    if delays:
        middle, last = delays[len(delays) // 2], delays[-1]
        print(f"from the exit to the receipt: median {middle:.1f} s, at most {last:.1f} s of store time")
    lying = {status: [row for row in shelves if row.status == status] for status in ("empty", "misplaced", "overdrawn")}
    print("shelves: " + ", ".join(f"{len(rows)} {status}" for status, rows in lying.items()) + f" of {len(shelves)}")
    for line in front.close(one_run.newest_ns) if front is not None else ():
        print(line)
    booked = ledger.balances().get(store.currency, {})
    fault = ledger.verify()
    print(
        f"ledger: {sum(r.status == 'settled' for r in receipts)} receipts booked, "
        f"{len(ledger.reviews())} waiting for review, {len(ledger.open_visits())} visits open; "
        f"all accounts sum to {sum(booked.values())}; {fault or 'its chain holds'}"
    )
    ledger.close()
    step = summary.step_us
    rate = summary.frames / max(len(store.cameras), 1) / max(summary.engine_cpu_s, 1e-9)
    print(
        f"engine: {summary.frames} frames and {summary.messages} weight messages in {summary.engine_cpu_s:.1f} s CPU "
        f"({rate:.0f} sets of frames a second), step p50 {step['p50']:.0f} us, p99 {step['p99']:.0f} us, "
        f"worst {step['max'] / 1e3:.1f} ms; {summary.wall_s:.1f} s in all"
    )
    for reason, count in summary.ignored.items():
        print(f"not used: {count} x {reason}")
    for said in recording.damaged if recording else ():
        print(f"damaged: {said}")
    print(f"results, report.html, floor.svg and ledger.sqlite are in {args.out}")
    if view is not None:
        print(f"look at the run in three dimensions: rerun {args.view}")
    return exit_code


def simulated(args: argparse.Namespace) -> tuple[Store, Simulation, tuple[int, int], Example | None]:
    """Store, what will happen in it, and how its customers come in where it has an example.toml."""
    from fusion.errors import FusionError
    from fusion.simulation import Scenario, Simulation, demo_store
    from fusion.store.models import Store

    store = Store.load(args.store) if args.store else demo_store()
    example = None
    if args.store and (args.store / "example.toml").exists():
        from storefront import Example

        example = Example.load(args.store)
    asked = {name: value for name in ("minutes", "shoppers") if (value := getattr(args, name)) is not None}
    try:
        if example is not None:
            example = example.model_copy(update={"scenario": example.scenario | asked})
            scenario = example.made_scenario(store, args.seed)
        else:
            scenario = Scenario(seed=args.seed, **asked)
    except ValueError as error:
        raise FusionError(str(error)) from None
    span_ns = scenario.start_ns, scenario.start_ns + round(scenario.minutes * 60e9)
    return store, Simulation(store, scenario), span_ns, example


def simulated_truth(simulation: Simulation) -> list[dict]:
    """What really happened, as in truth/visits.jsonl."""
    return [
        {"account": visit.account, "enter": visit.enter_ns, "exit": visit.exit_ns, "items": visit.items}
        for visit in simulation.truth.visits
    ]


def paced(observations: Iterable[Observation]) -> Iterator[Observation]:
    """Hold each observation back until as much time has passed as in the data."""
    first_ns, started_s = None, time.monotonic()
    for observation in observations:
        first_ns = observation.t_ns if first_ns is None else first_ns
        ahead_s = (observation.t_ns - first_ns) / 1e9 - (time.monotonic() - started_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
        yield observation


def viewed(observations: Iterable[Observation], view: View) -> Iterator[Observation]:
    """The observations as they go by, into the Rerun recording as well."""
    for observation in observations:
        view.observe(observation)
        yield observation


def describe(store: Store, result: Result, start_ns: int) -> str | None:
    """One line for what happened; None for what happens all the time."""
    from fusion import results
    from fusion.sentences import reason_text, sentence

    names = {product.gtin: product.name for product in store.products}

    def who(account: str | None, visit: str | None) -> str:
        return account or ("somebody without credential" if visit else "somebody unknown")

    match result:
        case results.PersonEntered(staff=True):
            said = "staff came in"
        case results.PersonEntered():
            said = f"{who(result.account, result.visit)} came in" + (f" at {result.gate}" if result.gate else "")
        case results.PersonLeft():
            said = f"{who(result.account, result.visit)} left" + (f" at {result.gate}" if result.gate else "")
        case results.Picked() | results.PutBack():
            verb, way = ("took", "from") if isinstance(result, results.Picked) else ("put back", "on")
            said = (
                f"{who(result.account, result.visit)} {verb} {result.quantity} x {names[result.gtin]} "
                f"{way} {result.plate} ({result.probability:.0%})"
            )
        case results.Receipt():
            pieces = sum(line.quantity for line in result.lines)
            price = store.price_text(result.total)
            said = f"{who(result.account, result.visit)}: {price} for {pieces} pieces, {result.status}"
            said += f" ({reason_text(result.reasons, store)})" if result.reasons else ""
        case results.Evidence():
            said = f"{who(result.account, result.visit)}: {len(result.events)} shelf events for the reviewer to look at"
        case results.Warning():
            said = f"warning: {result.kind}: {sentence(result, store)}"
        case _:
            return None
    t_ns = result.issued_ns if isinstance(result, results.Receipt) else result.t_ns
    minutes, seconds = divmod((t_ns - start_ns) / 1e9, 60.0)
    return f"{int(minutes):3d}:{seconds:04.1f}  {said}"


def read_truth(recording: Path) -> list[dict] | None:
    import json

    path = recording / "truth" / "visits.jsonl"
    if not path.exists():
        return None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def print_receipts(store: Store, receipts: list[Receipt], visits: list[dict] | None) -> None:
    """Receipts beside the truth, where there is one."""
    from fusion.sentences import reason_text

    prices = {product.gtin: product.price for product in store.products}
    left = list(visits or [])
    rows = []
    for receipt in receipts:
        got: Counter[str] = Counter()
        for line in receipt.lines:
            got[line.gtin] += line.quantity
        row = [receipt.account or "(none)", receipt.status, str(sum(got.values())), store.price_text(receipt.total)]
        if visits is not None:
            same = [
                visit for visit in left if visit["account"] == receipt.account and visit["enter"] <= receipt.exit_ns
            ]
            if same:
                left.remove(same[0])
                true = {gtin: n for gtin, n in same[0]["items"].items() if n}
                total = same[0].get("total", sum(prices[gtin] * n for gtin, n in true.items()))
                right = true == got and total == receipt.total
                row += [store.price_text(total), "right" if right else "WRONG"]
            else:
                row += ["-", "no such visit"]
        rows.append([*row, reason_text(receipt.reasons) or ""])
    for visit in left:
        rows.append([visit["account"] or "(none)", "missing", "", "", "", "no receipt", ""])
    heads = ["account", "status", "pieces", "total", *(["truth", ""] if visits is not None else []), "reason"]
    widths = [max(len(str(line[i])) for line in [heads, *rows]) for i in range(len(heads))]
    for line in [heads, ["-" * width for width in widths], *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
