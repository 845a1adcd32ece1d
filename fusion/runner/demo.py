"""A demonstration: a simulated store with its pages for staff, shoppers and doors, in a folder that is gone afterwards.

The store, its console and its customers' pages are processes of their own, as in a real shop. They share a private
temporary folder, which holds the store, its books, and a user whose password is made for this one run.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from fusion.errors import FusionError
from fusion.files.private import open_private
from fusion.runner.example import EXAMPLE_FILE, Example
from fusion.show.console.users import Users
from fusion.simulation.crowd import Crowd
from fusion.store.models import Store

USER, SEED = "demo", 1
# How often the parts are looked at, and how long they may take to start, on a machine that is busy with other work.
LOOK_S, START_MAX_S = 0.2, 180.0
# How long a part may take to end in order.
END_MAX_S = 15.0
# Lines of a part's output that are shown where it ended by itself.
LAST_LINES = 12
# Some visits shall wait for a person: hands in one shelf, goods put back in other places, people without a credential,
# and a limit for settling that is stricter than a shop's.
RECEIPT_ERROR_MAX = 0.003
SCENARIO = {
    "neighbour_probability": 0.6, "put_back_probability": 0.3, "wrong_place_probability": 0.4, "tailgaters": 1,
    "companions": 2,
}  # fmt: skip


class Stop(Protocol):
    """Whether and when the demonstration shall end; `fusion.commands.signals.StopSignals`."""

    def is_set(self) -> bool:
        """Whether it shall end."""

    def wait(self, timeout: float) -> None:
        """Return once it shall end, or after `timeout` seconds."""


@dataclass(frozen=True)
class DemoSettings:
    """What a demonstration shows.

    Attributes:
        store: folder of the store; it is copied.
        minutes, shoppers: of the simulation.
        lead_minutes: of these, that pass at once, so that the shop is busy when it is looked at.
        speed: how many seconds of the shop pass in a second.
        port: of the console; 0: a free one.
        browser: open the page in the browser, where there is one.
    """

    store: Path
    minutes: float
    shoppers: int
    lead_minutes: float
    speed: float
    port: int
    browser: bool


class Demonstration:
    """A shop, its pages, and the folder that they share; a context manager that ends them and removes it.

    Attributes:
        folder: what they share.
        password: of the console's user.
        account: of the shopper who is the first to come in while one looks.
        screen: the screen at the exit's door.
    """

    def __init__(self, settings: DemoSettings) -> None:
        """Make the folder with the store and the user. Raises FusionError where the store cannot be used."""
        self._settings = settings
        # Only this user may enter it, and it is removed even where making the rest of it fails.
        self._temporary = tempfile.TemporaryDirectory(prefix="fusion-demo-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self.password = "-".join(secrets.token_hex(2) for _ in range(4))
        try:
            store = self._copied_store()
            self.account = self._next_account(store)
            self.screen = f"gate/{store.gate[-1].id}"
            (self.folder / "shop").mkdir(0o700)
            Users(self.folder / "shop" / "users.json").add(USER, self.password, store.id)
        except BaseException:
            self._temporary.cleanup()
            raise

    def __enter__(self) -> Demonstration:
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self._parts.values()):
            if part.poll() is None:
                part.send_signal(signal.SIGINT)
        for part in self._parts.values():
            try:
                part.wait(END_MAX_S)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()
        self._temporary.cleanup()

    def run(self, stop: Stop) -> int:
        """Start everything, print the addresses, and wait for the end; the exit code."""
        settings, shop = self._settings, self.folder / "shop"
        self._start(
            "the shop", "run", "--store", self.folder / "store", "--out", shop, "--console", "--realtime",
            "--minutes", settings.minutes, "--shoppers", settings.shoppers, "--lead", settings.lead_minutes,
            "--speed", settings.speed, "--seed", SEED,
        )  # fmt: skip
        books = shop / "ledger.sqlite"
        if not self._until(lambda: books.exists() and (shop / "live.sock").exists(), stop):
            return self._ended()
        port = settings.port or _free_port()
        self._start("the console", "console", self.folder / "store", "--ledger", books, "--port", port)
        if not self._until(lambda: _answers(port), stop):
            return self._ended()
        pages_port = _free_port()
        served = ("shopper", self.folder / "store", "--ledger", books, "--port", pages_port)
        self._start("the shoppers' pages", *served)
        if not self._until(lambda: _answers(pages_port), stop):
            return self._ended()
        console, screen = f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{pages_port}/screen"
        shopper, code = _printed(*served, "--link", self.account), _printed(*served, "--pair", self.screen)
        print(f"console:      {console}   sign in as {USER} with {self.password}", flush=True)
        print(f"shopper:      {shopper}   signs {self.account} in, once, within 15 minutes", flush=True)
        print(f"door screen:  {screen}   type in {code.partition('   ')[0]} within 10 minutes", flush=True)
        print("Ctrl-C ends it and removes everything.", flush=True)
        if settings.browser and _has_browser():
            for address in (console, shopper, screen):
                webbrowser.open(address)
        while not stop.is_set() and not self._ended_parts():
            stop.wait(LOOK_S)
        return self._ended()

    def _copied_store(self) -> Store:
        """The store in the folder, with shoppers that keep reviewers busy, and a start that makes it now."""
        target = self.folder / "store"
        shutil.copytree(self._settings.store, target)
        store = Store.load(target)
        review = store.review.model_copy(update={"receipt_error_max": RECEIPT_ERROR_MAX})
        store = store.model_copy(update={"review": review})
        store.save(target)
        credential = Example.load(target).credential if (target / EXAMPLE_FILE).exists() else "qr"
        now = datetime.datetime.now(ZoneInfo(store.timezone)) - datetime.timedelta(minutes=self._settings.lead_minutes)
        rows = [f"{key} = {value}" for key, value in SCENARIO.items()]
        text = f'credential = "{credential}"\nstart = "{now:%Y-%m-%dT%H:%M}"\n\n[scenario]\n' + "\n".join(rows) + "\n"
        (target / EXAMPLE_FILE).write_text(text, encoding="utf-8")
        return store

    def _next_account(self, store: Store) -> str:
        """The shopper who arrives first after the minutes that pass at once."""
        settings = self._settings
        counts: dict[str, Any] = {"minutes": settings.minutes, "shoppers": settings.shoppers}
        scenario = Example.load(self.folder / "store").scenario_for(store, SEED, **counts)
        shoppers = [person for person in Crowd(store, scenario).people if person.account and person.role != "staff"]
        arrivals = sorted((person.arrival_s, person.account) for person in shoppers if person.account)
        if not arrivals:
            raise FusionError("want a store with a gate and at least one shopper")
        later = [account for arrival_s, account in arrivals if arrival_s >= 60 * settings.lead_minutes]
        return later[0] if later else arrivals[-1][1]

    def _start(self, name: str, *words: object) -> None:
        """Start `fusion WORDS` as a part of the demonstration; its output goes into a file of its name."""
        with open_private(self._log(name), "wb") as output:
            self._parts[name] = subprocess.Popen(
                [sys.executable, "-m", "fusion", *map(str, words)], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"

    def _until(self, ready: Callable[[], bool], stop: Stop) -> bool:
        """Wait until everything that was started is ready; False where it shall end or has ended before.

        Raises:
            FusionError: it takes too long.
        """
        give_up_s = time.monotonic() + START_MAX_S
        while not ready():
            if stop.is_set() or self._ended_parts():
                return False
            if time.monotonic() > give_up_s:
                raise FusionError(f"the demonstration did not start within {START_MAX_S:.0f} s; is the machine busy?")
            stop.wait(LOOK_S)
        return True

    def _ended_parts(self) -> list[str]:
        return [name for name, part in self._parts.items() if part.poll() is not None]

    def _ended(self) -> int:
        """The exit code, after the last lines of a part that ended by itself."""
        over = [name for name in self._ended_parts() if self._parts[name].returncode not in (0, -signal.SIGINT, 130)]
        for name in over:
            lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            print("\n".join([f"{name} ended by itself:", *lines]), file=sys.stderr)
        return 1 if over else 0


def _printed(*words: object) -> str:
    """What `fusion WORDS` prints. Raises FusionError with what it says where it fails."""
    command = [sys.executable, "-m", "fusion", *map(str, words)]
    # In a session of its own: a terminal sends Ctrl-C to all processes of one; the demonstration itself heeds it.
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=START_MAX_S, check=False, start_new_session=True, **quiet)
    if done.returncode:
        raise FusionError(done.stderr.strip() or f"fusion {words[0]} ended with {done.returncode}")
    printed: str = done.stdout
    return printed.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _has_browser() -> bool:
    """Whether there is a screen to open a page on; without one Python would start a browser of the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
