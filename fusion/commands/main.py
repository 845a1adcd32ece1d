"""The commands: python -m fusion COMMAND."""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusion.chain.book import ChainBook, Source
    from fusion.money.ledger import Ledger
    from fusion.money.retailers import Retailer
    from fusion.store.models import Store


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors that have a name are one line on stderr."""
    from fusion.errors import FusionError

    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except FusionError as error:
        print(f"fusion {args.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fusion", description="Who took what, and how sure.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="everything that is wrong with a store folder or a recording")
    check.add_argument("path", help="store folder or recording")
    check.add_argument("--svg", help="draw how many cameras see each part of the floor into this file")
    check.add_argument("--json", action="store_true", help="findings as JSON")
    check.set_defaults(run=_check)
    doctor = commands.add_parser("doctor", help="whether this machine and this installation are fit to run the engine")
    doctor.add_argument("--json", action="store_true", help="what was examined as JSON")
    doctor.set_defaults(run=_doctor)
    console = commands.add_parser("console", help="the shop as a live page, and the queue of doubtful visits")
    console.add_argument("store", help="store folder")
    console.add_argument("--ledger", required=True, help="path or URL of the books")
    console.add_argument("--vault", help="vault beside books in PostgreSQL")
    console.add_argument("--users", help="file of who may sign in (users.json beside books that are a file)")
    console.add_argument("--add-user", metavar="NAME", help="let somebody sign in; asks for a password, then ends")
    console.add_argument("--live", help="socket of the runner (live.sock beside books that are a file)")
    console.add_argument("--evidence", help="evidence.jsonl of the runner (beside books that are a file)")
    console.add_argument("--provider", help="URL of the payment provider, to settle decisions at once; its secret is "
                         "read from FUSION_PROVIDER_SECRET")  # fmt: skip
    console.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    console.add_argument("--port", type=int, default=8321, help="port to listen on (8321)")
    console.add_argument("--name", action="append", default=[], help="further host name under which it is asked for")
    console.add_argument("--certificate", help="TLS certificate; wanted where other machines are let in")
    console.add_argument("--key", help="private key of the certificate")
    console.set_defaults(run=_console)
    calibrate = commands.add_parser("calibrate", help="find all cameras' places and clocks from people who walk about")
    calibrate.add_argument("recording", help="recording of a few people who walk through the shop for some minutes")
    calibrate.add_argument("--out", default="calibration", help="folder for cameras.toml and calibration.json")
    calibrate.add_argument("--intrinsics", help="cameras' matrix and distortions, where the recording's store has none")
    calibrate.add_argument(
        "--distance", nargs=3, action="append", default=[], metavar=("CAMERA", "CAMERA", "METRES"),
        help="between the centres of two cameras; may be repeated",
    )  # fmt: skip
    calibrate.add_argument("--height", type=float, metavar="METRES", help="stature of who walks, the mean of several")
    calibrate.add_argument(
        "--place", nargs="+", action="append", default=[], metavar="CAMERA X Y [Z]",
        help="where a camera is in the store, metres; of two or more, the rest follows",
    )  # fmt: skip
    calibrate.set_defaults(run=_calibrate)
    replay = commands.add_parser("replay", help="replay recordings, each a task for a process here or on a Ray cluster")
    replay.add_argument("recordings", nargs="+", metavar="RECORDING", help="folder of a recording")
    replay.add_argument("--out", required=True, help="folder for the results, a folder in it for each recording")
    replay.add_argument("--cluster", metavar="ADDRESS", help="'local' for a Ray on this machine, or the address of a "
                        "cluster; without it, processes of this machine")  # fmt: skip
    replay.add_argument("--workers", type=int, help="recordings at once (one for every core)")
    replay.set_defaults(run=_replay)
    privacy = commands.add_parser("privacy", help="what a store keeps about people, where and for how long")
    privacy.add_argument("store", help="store folder")
    privacy.set_defaults(run=_privacy)
    serve = commands.add_parser("serve", help="many live stores: a process each, restarted, watched, told of changes")
    serve.add_argument("chain", help="chain.toml with a section [serve]")
    serve.set_defaults(run=_serve)
    statement = commands.add_parser("statement", help="a month of every retailer's books; posts the platform's fee")
    statement.add_argument("chain", help="chain.toml")
    statement.add_argument("books", help="folder of the books, or postgresql://...#FOLDER with the vaults' folder")
    statement.add_argument("month", help="such as 2026-03")
    statement.add_argument("--dry-run", action="store_true", help="post nothing")
    statement.set_defaults(run=_statement)
    verify = commands.add_parser("verify", help="check a store's books, row by row")
    verify.set_defaults(run=_verify)
    forget = commands.add_parser("forget", help="forget whose visits were whose: old ones, or one account's")
    for command in (verify, forget):
        command.add_argument("store", help="store folder")
        command.add_argument("ledger", help="path or URL of the books")
        command.add_argument("--vault", help="vault beside books in PostgreSQL")
    forget.add_argument("--account", help="this account's, at once; faces and profiles are the store's own to delete")
    forget.set_defaults(run=_forget)
    ship = commands.add_parser("ship", help="bring a store's books to the chain's book in PostgreSQL")
    reconcile = commands.add_parser("reconcile", help="compare a store's books with the chain's book, row by row")
    for command in (ship, reconcile):
        command.add_argument("store", help="store folder")
        command.add_argument("--ledger", required=True, help="path or URL of the books")
        command.add_argument("--vault", help="vault beside books in PostgreSQL; not shipped")
        command.add_argument("--outbox", help="file of goods that moved and warnings, where the store keeps one")
        command.add_argument("--chain", required=True, help="URL of the chain's book, postgresql://server/database")
        command.add_argument("--retailers", metavar="CHAIN_TOML", help="whose store it is, and its brand")
    ship.add_argument("--follow", action="store_true", help="go on for new rows until Ctrl-C, through lost connections")
    ship.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="wait so long for a lost "
                      "connection (60; with --follow for ever)")  # fmt: skip
    ship.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="with --follow, how often to look "
                      "for new rows in the store (1)")  # fmt: skip
    ship.set_defaults(run=_ship)
    reconcile.add_argument("--all", action="store_true", help="rows that are not shipped yet count as a disagreement")
    reconcile.set_defaults(run=_reconcile)
    return parser


def _calibrate(args: argparse.Namespace) -> int:
    from collections import Counter
    from pathlib import Path

    from fusion.errors import ConfigError
    from fusion.observations import Recording
    from fusion.setup.calibrate import Known, calibrate, load_intrinsics

    recording = Recording(args.recording)
    cameras = load_intrinsics(args.intrinsics) if args.intrinsics else None
    distances = tuple((a, b, _metres("--distance", metres)) for a, b, metres in args.distance)
    twice = [name for name, n in Counter(place[0] for place in args.place).items() if n > 1]
    if twice:
        raise ConfigError(f"--place: want each camera once, got {', '.join(twice)} more than once")
    places = {place[0]: tuple(_metres("--place", value) for value in place[1:]) for place in args.place}
    known = Known(distances=distances, height_m=args.height, places=places)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise ConfigError(f"--out: want a folder, got the file {args.out}")
    found = calibrate(recording.store, recording.observations(), known, cameras)
    found.save(args.out)
    print(found.text())
    print(f"written: {args.out}/cameras.toml and calibration.json")
    return 0 if all(tie.placed for tie in found.ties) else 1


def _replay(args: argparse.Namespace) -> int:
    from contextlib import closing, redirect_stdout

    from tqdm import tqdm

    from fusion.chain.batch import replay_many, table

    outcomes = []
    many = replay_many(args.recordings, args.out, workers=args.workers, cluster=args.cluster)
    progress = tqdm(total=len(args.recordings), unit="recording", disable=None)
    # Ray tells of workers that died on stdout, where the table belongs.
    with closing(many), progress, redirect_stdout(sys.stderr):
        for one in many:
            outcomes.append(one)
            progress.update()
    print(table(outcomes, args.out))
    return 1 if any(one.fault for one in outcomes) else 0


def _metres(option: str, text: str) -> float:
    from fusion.errors import ConfigError

    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option}: want metres, got {text!r}") from None


def _ledger(args: argparse.Namespace) -> Ledger:
    """The books of a command; not begun where there are none."""
    from pathlib import Path

    from fusion.errors import LedgerError
    from fusion.money.ledger import Ledger
    from fusion.store.models import Store

    if "://" not in args.ledger and not Path(args.ledger).exists():
        raise LedgerError(f"{args.ledger}: want books, got nothing")
    return Ledger.open(args.ledger, Store.load(args.store), vault=args.vault)


def _check(args: argparse.Namespace) -> int:
    from fusion.setup.check import check, exit_code, findings_json, findings_text, store_of
    from fusion.setup.coverage import Coverage

    findings = check(args.path)
    print(findings_json(findings) if args.json else findings_text(findings))
    if args.svg:
        store = store_of(args.path)
        if store is None:
            print(f"fusion check: {args.svg} not drawn: the store cannot be read", file=sys.stderr)
        else:
            Coverage.of(store).write_svg(args.svg)
    return exit_code(findings)


def _doctor(args: argparse.Namespace) -> int:
    from fusion.setup.doctor import examine, line_text, lines_json

    lines = []
    for line in examine():
        lines.append(line)
        if not args.json:
            print(line_text(line), flush=True)
    if args.json:
        print(lines_json(lines))
    return 1 if any(line.sign == "fault" for line in lines) else 0


def _forget(args: argparse.Namespace) -> int:
    import time

    from fusion.gates.privacy import Forgetting
    from fusion.store.models import Store

    with _ledger(args) as ledger:
        forgetting = Forgetting(Store.load(args.store), ledger)
        n_visits = forgetting.due(time.time_ns()) if args.account is None else forgetting.erase(args.account)["visits"]
    print(f"{n_visits} visits forgotten")
    return 0


def _console(args: argparse.Namespace) -> int:
    import getpass
    import os
    from pathlib import Path

    from fusion.errors import FusionError
    from fusion.money.payments import Checkout, HttpProvider
    from fusion.show.console.users import Users
    from fusion.store.models import Store

    store = Store.load(args.store)
    beside = None if "://" in args.ledger else Path(args.ledger).parent

    def place(given: str | None, name: str) -> Path | None:
        return Path(given) if given else None if beside is None else beside / name

    path = place(args.users, "users.json")
    if path is None:
        raise FusionError("--users: want a file of who may sign in, got none beside books on a server")
    users = Users(path)
    if args.add_user:
        asks = sys.stdin.isatty()
        password = getpass.getpass(f"Password for {args.add_user}: ") if asks else sys.stdin.readline().rstrip("\n")
        users.add(args.add_user, password, store.id)
        print(f"{args.add_user} may sign in to {store.name}")
        return 0
    if not len(users):
        raise FusionError(f"{path}: want somebody who may sign in, got nobody: add one with --add-user NAME")
    local = args.host in ("127.0.0.1", "localhost", "::1")
    if not local and not args.certificate:
        raise FusionError(f"--host {args.host}: want --certificate and --key where other machines are let in")

    from fusion.show.console.server import Console, serve

    with _ledger(args) as ledger:
        checkout = None
        if args.provider:
            secret = os.environ.get("FUSION_PROVIDER_SECRET", "")
            if not secret:
                raise FusionError("--provider: want its secret in FUSION_PROVIDER_SECRET, got none")
            checkout = Checkout(ledger, HttpProvider(args.provider, secret), store)
        hosts = ("localhost", "127.0.0.1", "[::1]", args.host, *args.name)
        console = Console(
            store, ledger, users, feed=place(args.live, "live.sock"), evidence=place(args.evidence, "evidence.jsonl"),
            checkout=checkout, hosts=hosts, https=bool(args.certificate),
        )  # fmt: skip
        scheme = "https" if args.certificate else "http"
        print(f"{store.name}: {scheme}://{args.host}:{args.port}/ (Ctrl-C ends it)", flush=True)
        certificate, key = (Path(name) if name else None for name in (args.certificate, args.key))
        serve(console, args.host, args.port, certificate=certificate, key=key)
    return 0


def _privacy(args: argparse.Namespace) -> int:
    from fusion.gates.privacy import holdings_text
    from fusion.store.models import Store

    print(holdings_text(Store.load(args.store)))
    return 0


def _serve(args: argparse.Namespace) -> int:
    from fusion.live.supervisor import serve

    return serve(args.chain)


@contextmanager
def _shipped(
    args: argparse.Namespace,
) -> Iterator[tuple[Store, Retailer | None, tuple[Source, ...], ChainBook]]:
    """A store, whose it is, what it ships, and where to."""
    from pathlib import Path

    from fusion.chain.book import ChainBook, sources_of
    from fusion.errors import ConfigError, LedgerError
    from fusion.live.outbox import Outbox
    from fusion.money.retailers import Chain
    from fusion.store.models import Store

    store = Store.load(args.store)
    retailer = None
    if args.retailers:
        try:
            retailer = Chain.load(args.retailers).retailer_of(store)
        except KeyError:
            raise ConfigError(f"{args.retailers}: want the store {store.id!r}, got others") from None
    with ExitStack() as stack:
        book = stack.enter_context(ChainBook(args.chain, begin=args.command == "ship"))
        ledger = stack.enter_context(_ledger(args))
        if args.outbox and not Path(args.outbox).exists():
            raise LedgerError(f"{args.outbox}: want an outbox, got nothing")
        box = stack.enter_context(Outbox(args.outbox, store)) if args.outbox else None
        yield store, retailer, sources_of(store, ledger, box), book


class _Signals:
    """Whether Ctrl-C or SIGTERM came, to be waited for in the thread that handles them.

    A `threading.Event` that a handler sets may wait for its own lock for ever, where the handler interrupts its wait.
    """

    def __init__(self, woken: socket.socket) -> None:
        self._woken, self._came = woken, False

    def note(self, *_: object) -> None:
        self._came = True

    def is_set(self) -> bool:
        return self._came

    def wait(self, timeout: float) -> None:
        if not self._came and select.select([self._woken], [], [], timeout)[0]:
            self._woken.recv(64)


@contextmanager
def _signals() -> Iterator[_Signals]:
    woken, waker = socket.socketpair()
    with woken, waker:
        waker.setblocking(False)
        signals = _Signals(woken)
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, signals.note) for number in numbers]
        fd = signal.set_wakeup_fd(waker.fileno())
        try:
            yield signals
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)


def _ship(args: argparse.Namespace) -> int:
    from fusion.chain.book import Shipper

    with _shipped(args) as (store, retailer, sources, book), ExitStack() as stack:
        shipper = Shipper(store, sources, book, retailer=retailer, tell=lambda text: print(text, flush=True))
        stop = stack.enter_context(_signals()) if args.follow else None
        patience_s = None if args.follow else args.patience
        sent = shipper.run(follow=args.follow, every_s=args.every, patience_s=patience_s, stop=stop)
    print(f"{store.id}: " + ", ".join(f"{sent.get(one.stream, 0)} rows of {one.stream}" for one in sources))
    return 0


def _reconcile(args: argparse.Namespace) -> int:
    from fusion.chain.book import reconcile

    with _shipped(args) as (store, retailer, sources, book):
        found = reconcile(store, sources, book, retailer=retailer, all_shipped=args.all)
    print("\n".join(f"{store.id}: {one.text()}" for one in found))
    return 0 if all(one.agrees for one in found) else 1


def _statement(args: argparse.Namespace) -> int:
    from fusion.money.retailers import Chain, post_fee, statement

    for retailer, store, ledger in Chain.load(args.chain).books(args.books):
        if not args.dry_run:
            post_fee(ledger, store, retailer, args.month)
        print(statement(ledger, store, retailer, args.month).text(store), end="\n\n")
    return 0


def _verify(args: argparse.Namespace) -> int:
    with _ledger(args) as ledger:
        fault = ledger.verify()
        sums = {currency: sum(accounts.values()) for currency, accounts in ledger.balances().items()}
        print(fault or f"{ledger.head().seq} entries, the chain holds, all accounts sum to {sums or 0}")
    return 1 if fault or any(sums.values()) else 0
