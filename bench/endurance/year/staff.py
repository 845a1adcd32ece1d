"""The staff of a simulated shop at their consoles: two reviewers, one of whom may decide small amounts alone.

Each has a console of their own over the same books, as two processes have; both may take up the same visit at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.endurance.year.auditor import Auditor
from bench.endurance.year.browsers import HOST, Browser, attack, served
from fusion.gates.erasing import PROFILES
from fusion.live.clock import ManualClock
from fusion.money.ledger import Ledger
from fusion.money.moments import FILE as MOMENTS
from fusion.show.console.server import Console, Files
from fusion.show.console.users import Role, StoreRights, Users
from fusion.store.models import Store

PASSWORD = "correct horse battery"
# Minor units that the first reviewer may decide alone; the second has no limit, and the third may only look.
CAP = 800
RIGHTS = {
    "eve": StoreRights(roles=(Role.DECIDE, Role.REFUND), cap=CAP),
    "adam": StoreRights(roles=(Role.DECIDE, Role.REFUND)),
    "looker": StoreRights(roles=(Role.LOOK,)),
}
# A decision counts down for ten seconds, in which it can be withdrawn.
UNDO_S = 10.0


class Staff:
    """The reviewers of a shop, for one evening; `browsers` makes a new one on the console of each."""

    def __init__(
        self, browsers: dict[str, Callable[[], Browser]], clock: ManualClock, auditor: Auditor,
        reached: Callable[..., object],
    ) -> None:
        self._browsers, self._clock, self._auditor, self._reached = browsers, clock, auditor, reached

    def evening(self, rng: random.Random, reviews: list[str]) -> None:
        """Decide what is in review, mostly as it was, and some bills that are settled."""
        screens = {name: self._signed_in(name) for name in self._browsers}
        # Before anything is decided: consoles carry decisions out later, in the background.
        if rng.random() < 0.3:
            browser = rng.choice((*screens.values(), self._browsers["eve"]()))
            path = f"/api/reviews/{reviews[0] if reviews else 'none'}"
            paths = (path, f"{path}/withdraw", f"{path}/second")
            for taken in attack(browser, rng, paths, self._reached, self._auditor.n_entries):
                self._auditor.page_took(taken)
        for visit in reviews:
            if rng.random() < 0.3:
                self._reached("a review waits for another day")
            else:
                self._decide(rng, screens, visit)

    def _signed_in(self, name: str) -> Browser:
        browser = self._browsers[name]()
        form = urlencode({"name": name, "password": PASSWORD}).encode()
        browser.send("POST", "/sign-in", form, origin=f"http://{HOST}")
        page = browser.get("/", accept_language="en").text
        browser.csrf = page.split('name="csrf" content="')[1].split('"')[0]
        return browser

    def _wish(self, rng: random.Random, visit: str, shown: dict[str, Any]) -> dict[str, Any]:
        """What a reviewer who saw the visit decides about it; one in eight waives the bill, out of goodwill."""
        kept = self._auditor.kept_on(visit)
        base = {"revision": shown["revision"] + 1}
        if kept is None or rng.random() < 0.125:
            return {**base, "decision": "waive", "reason": "goodwill"}
        lines = [{"gtin": gtin, "quantity": n} for gtin, n in sorted(kept.items())]
        billed = {gtin: n for gtin, n, *_ in shown["lines"]}
        if billed == kept and rng.random() < 0.5:
            return {**base, "decision": "accept"}
        return {**base, "decision": "correct", "reason": "other_quantity", "lines": lines}

    def _decide(self, rng: random.Random, screens: dict[str, Browser], visit: str) -> None:
        first, second = rng.sample(("eve", "adam"), 2)
        path = f"/api/reviews/{visit}"
        shown = screens[first].get(path).json()
        wish = self._wish(rng, visit, shown)
        if screens["looker"].post(path, wish).status != 403:
            self._auditor.page_took(f"{visit}: a person who may only look has decided")
        reply = screens[first].post(path, wish)
        if reply.status != 200:
            self._reached(f"console refused: {reply.json()['error'][:60]}")
            return
        self._reached(f"decided: {wish['decision']}")
        proposal = reply.json()["proposal"]
        if rng.random() < 0.3:
            self._second_comes(screens[second], path, shown["revision"] + 1, wish)
        if rng.random() < 0.2:
            self._clock.advance(rng.uniform(0.0, 2 * UNDO_S))
            late = self._clock.wall_ns() // 10**6 >= proposal["due_ms"] and proposal["state"] == "counting"
            status = screens[first].post(f"{path}/withdraw", {"number": proposal["number"]}).status
            self._reached("withdrawn too late" if late else "withdrawn within ten seconds")
            if status != (409 if late else 200):
                self._auditor.page_took(f"{visit}: withdrawn {'too late' if late else 'in time'} was answered {status}")
            return
        if proposal["needs_second"]:
            self._reached("a decision waits for a second person")
            if screens[first].post(f"{path}/second", {"number": proposal["number"]}).status != 403:
                self._auditor.page_took(f"{visit}: a person has seconded their own decision")
            if rng.random() < 0.8:
                agreed = screens[second].post(f"{path}/second", {"number": proposal["number"]})
                self._reached("seconded" if agreed.status == 200 else f"not seconded: {agreed.json()['error'][:60]}")

    def _second_comes(self, screen: Browser, path: str, revision: int, first: dict[str, Any]) -> None:
        """The other reviewer had the same visit open, and decides something else."""
        other = {"revision": revision, "decision": "waive", "reason": "not_taken"}
        if first["decision"] == "waive":
            other = {"revision": revision, "decision": "accept"}
        reply = screen.post(path, other)
        self._reached("two reviewers decided one visit" if reply.status == 409 else f"second reviewer: {reply.status}")
        if reply.status == 200:
            self._auditor.page_took(f"{path}: two reviewers decided about one revision")


@contextmanager
def opened_consoles(
    store: Store, folder: Path, clock: ManualClock, auditor: Auditor, reached: Callable[..., object]
) -> Iterator[Staff]:
    """A console for each reviewer over a shop's folder, as `fusion console` puts them together."""
    users = Users(folder / "users.json")
    for name, rights in RIGHTS.items():
        if name not in users:
            users.add(name, PASSWORD, store.id, rights)
    files = Files(evidence=folder / "evidence.jsonl", moments=folder / MOMENTS, profiles=folder / PROFILES)
    with ExitStack() as stack:

        def console(name: str) -> Callable[[], Browser]:
            ledger = stack.enter_context(Ledger.open(folder / f"{store.id}.sqlite", store))
            app = Console(
                store, ledger, Users(folder / "users.json"), files=files, clock_s=clock.monotonic_s,
                clock_ns=clock.wall_ns,
            ).app  # fmt: skip
            runner = stack.enter_context(served(app))
            return lambda: Browser(app, runner, auditor.page_failed)

        yield Staff({name: console(name) for name in RIGHTS}, clock, auditor, reached)
