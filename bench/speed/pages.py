"""The pages: how fast a report is written, opens and follows its slider; what consoles and phones cost the runner.

python -m bench pages              everything
python -m bench pages --cost       the cost of consoles and phones alone

Needs Chromium with its chromedriver for everything but the cost.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from browsing import CHROMEDRIVER, CHROMIUM, browsing, complaints

from fusion.gates.shopper_sessions import ShopperSessions
from fusion.money.ledger import Ledger
from fusion.money.vault import Holder
from fusion.observations import GateScan, Observation
from fusion.run import Run
from fusion.show.console.feed import LiveFeed
from fusion.show.console.users import Users
from fusion.show.report import Report
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

CLIENTS, PHONES, LIVE_S = 5, 200, 60.0
# Phones of one customer, as a family's.
PHONES_OF_ONE = 4
CONSOLE_PORT, SHOPPER_PORT = 8399, 8397
SCRUBS = 400
PASSWORD = "a password for the bench"

# Moves the slider over the whole run and waits for a painted frame each time; milliseconds a move, and the load.
SCRUB = """
const done = arguments[arguments.length - 1], slider = document.getElementById("time"), times = [];
const opened = performance.getEntriesByType("navigation")[0];
const n = arguments[0];
let i = 0;
function move() {
  if (i === n) { done({ load: opened.domComplete, times }); return; }
  const at = performance.now();
  slider.value = Number(slider.max) * i / n;
  slider.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  times.push(performance.now() - at);
  i++;
  requestAnimationFrame(move);
}
move();
"""


def report_of_a_busy_run(folder: Path) -> Path:
    """Ten minutes, 12 cameras, 160 plates, 60 visits."""
    store = demo_store(n_cameras=12, n_plates=160)
    run = Run(store, Simulation(store, Scenario(seed=3, minutes=10, shoppers=60)).observations())
    report = Report(store, "Ten busy minutes", run.engine)
    adding_s = 0.0
    for result in [*run.results(), *run.finish()]:
        before_s = time.perf_counter()
        report.add(result)
        adding_s += time.perf_counter() - before_s
    before_s = time.perf_counter()
    report.write(folder / "report.html", run.summary(), shelves=run.engine.shelf_state())
    written_s = time.perf_counter() - before_s
    size = (folder / "report.html").stat().st_size / 1e6
    print(f"report of ten busy minutes: kept in {adding_s:.2f} s, written in {written_s:.2f} s, {size:.2f} MB")
    return folder / "report.html"


def opened_and_scrubbed(page: Path) -> None:
    for width in (1440, 390):
        with browsing(width) as driver:
            before_s = time.perf_counter()
            driver.get(page.as_uri())
            opened_s = time.perf_counter() - before_s
            assert driver.execute_script("return document.documentElement.dataset.ready") == "true"
            driver.set_script_timeout(120)
            scrubbed = driver.execute_async_script(SCRUB, SCRUBS)
            times = sorted(scrubbed["times"])
            middle, late = times[len(times) // 2], times[int(0.99 * len(times))]
            print(
                f"{width} px: opened in {opened_s:.2f} s (browser's own count {scrubbed['load'] / 1e3:.2f} s); "
                f"a move of the slider takes {middle:.1f} ms, p99 {late:.1f} ms"
            )
            assert complaints(driver) == []


@contextlib.contextmanager
def listening(port: int, cookie: str, counts: list[int], which: int) -> Iterator[None]:
    """A page that reads its stream, as a browser does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/api/live", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200

    def read() -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            while line := answer.readline():
                counts[which] += line.startswith(b'data: {"state"')

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        connection.close()


def cost_of_consoles(folder: Path) -> None:
    """CPU of a runner at the pace of its data, with and without a feed that five pages follow."""
    store = demo_store(n_cameras=12, n_plates=160)
    observations = list(Simulation(store, Scenario(seed=3, minutes=LIVE_S / 60, shoppers=8)).observations())
    store.save(folder / "store")
    Users(folder / "users.json").add("bench", PASSWORD, store.id)

    def paced(feed_path: Path | None) -> tuple[float, float]:
        """CPU seconds of the runner's thread: everything but the feed, and the feed."""
        run = Run(store, observations)
        feed = None if feed_path is None else LiveFeed(store, run.engine, feed_path)
        first_ns, started_s, cpu_s = observations[0].t_ns, time.monotonic(), time.thread_time()
        feed_s = 0.0
        for result in run.results():
            if feed is not None:
                before_s = time.thread_time()
                feed.add(result)
                feed_s += time.thread_time() - before_s
            ahead_s = (run.newest_ns - first_ns) / 1e9 - (time.monotonic() - started_s)
            if ahead_s > 0.005:
                time.sleep(ahead_s)
        if feed is not None:
            feed.close()
        return time.thread_time() - cpu_s - feed_s, feed_s

    with Ledger.open(folder / "ledger.sqlite", store) as ledger:
        for account in {one.account for one in observations if isinstance(one, GateScan) and one.account}:
            ledger.hold(Holder(account, account))  # without a gate keeper, accounts are their own pseudonyms
    books = ["--ledger", str(folder / "ledger.sqlite")]
    with contextlib.ExitStack() as stack:
        for name, port in (("console", CONSOLE_PORT), ("shopper", SHOPPER_PORT)):
            command = [sys.executable, "-m", "fusion", name, str(folder / "store"), "--port", str(port), *books]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.terminate)
            assert process.stdout is not None and process.stdout.readline()
        cookie, counts = signed_in(CONSOLE_PORT), [0] * CLIENTS
        with contextlib.ExitStack() as pages:
            for which in range(CLIENTS):
                pages.enter_context(listening(CONSOLE_PORT, cookie, counts, which))
            sent = pages.enter_context(phones(store, folder, observations))
            engine_s, feed_s = paced(folder / "live.sock")
        alone_s, _ = paced(None)
    baskets = sum(n for key, n in sent.items() if not key.startswith("visit "))
    # Each visit's basket went to the phones of one account.
    visits = [key.partition(" to ")[0] for key in sent if key.startswith("visit ")]
    assert baskets and len(visits) == len(set(visits)), sent
    print(
        f"{CLIENTS} consoles, each pushed {min(counts) / LIVE_S:.1f} states a second, and {PHONES} phones, pushed "
        f"{baskets} baskets of {len(visits)} visits, each its own alone; over {LIVE_S:.0f} s "
        f"the runner spends {feed_s:.3f} s on the feed and {engine_s:.2f} s on its other work "
        f"(+{100 * feed_s / engine_s:.1f} %); without pages {alone_s:.2f} s"
    )


@contextlib.contextmanager
def phones(store: Store, folder: Path, observations: list[Observation]) -> Iterator[dict[str, int]]:
    """PHONES phones, some of customers who shop; afterwards what the phones of each account were sent."""
    inside = sorted({one.account for one in observations if isinstance(one, GateScan) and one.account})
    sessions = ShopperSessions(folder / "shopper.sqlite")
    name = "fusion-shopper-" + re.sub(r"[^A-Za-z0-9]", "-", store.id)
    accounts = [*inside, *(f"outside-{i}" for i in range(PHONES // PHONES_OF_ONE - len(inside)))]
    cookies = {
        account: [f"{name}={sessions.begin('account', account, time.time())}" for _ in range(PHONES_OF_ONE)]
        for account in accounts
    }
    sessions.close()
    command = [sys.executable, "-m", "bench.speed.phones"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"port": SHOPPER_PORT, "cookies": cookies}) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "open\n"
        sent: dict[str, int] = {}
        yield sent
        process.stdin.write("\n")
        process.stdin.flush()
        sent.update(json.loads(process.stdout.readline()))


def signed_in(port: int, name: str = "bench") -> str:
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            form = urlencode({"name": name, "password": PASSWORD})
            connection.request("POST", "/sign-in", form, {"Origin": f"http://127.0.0.1:{port}"})
            answer = connection.getresponse()
            assert answer.status == 303, answer.read()
            return (answer.getheader("set-cookie") or "").split(";")[0]
        time.sleep(0.1)
    raise SystemExit("the console does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", action="store_true", help="the cost of consoles and phones alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.cost:
            cost_of_consoles(Path(folder))
            return
        page = report_of_a_busy_run(Path(folder))
        if CHROMIUM and CHROMEDRIVER:
            opened_and_scrubbed(page)
        else:
            print("not opened: no Chromium with chromedriver on this machine")
        cost_of_consoles(Path(folder))
