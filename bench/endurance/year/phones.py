"""The customers of a simulated shop with their phones: they read their bills, answer, dispute, and ask to be forgotten.

Most are honest: they answer what they did, and dispute what they did not take. A few answer to their own advantage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.endurance.year.auditor import Auditor, Customer
from bench.endurance.year.browsers import Browser, Reply, attack, served
from fusion.files.secrets import derived, store_key
from fusion.gates.erasing import PROFILES
from fusion.gates.erasures import Erasures
from fusion.gates.shopper_sessions import FILE as SESSIONS
from fusion.gates.shopper_sessions import ShopperSessions
from fusion.live.clock import ManualClock
from fusion.money.disputes import NONE_OF_THESE, NOT_KNOWN
from fusion.money.ledger import Ledger
from fusion.money.links import Links, store_links
from fusion.money.moments import FILE as MOMENTS
from fusion.money.moments import Moments
from fusion.money.profiles import Profiles
from fusion.show.console.evidence_file import EvidenceFile
from fusion.show.shopper.server import ShopperApp, ShopperParts
from fusion.store.models import Store
from fusion.till.answers import Answers

PATHS = ("/api/answer", "/api/dispute", "/api/erase", "/api/profile", "/api/sign-out", "/api/sign-in", "/api/mail")
BARE = ("/api/erase", "/api/sign-out")
# Customers who open the page after a visit; of those, who answer to their own advantage, and who do not know.
OPENED, TAKERS, UNKNOWING = 0.7, 0.1, 0.1
# A bill that is right is disputed by mistake this often.
MISTAKEN = 0.05


class Phones:
    """The phones of a shop's customers, for one evening; `browser` makes a new one, `links` sign customers in."""

    def __init__(
        self, store: Store, browser: Callable[[], Browser], links: Links, clock: ManualClock, auditor: Auditor,
        reached: Callable[..., object],
    ) -> None:
        self._browser, self._clock = browser, clock
        self._auditor, self._reached, self._links = auditor, reached, links
        self._gtins = {product.name: product.gtin for product in store.products}

    def evening(self, rng: random.Random, customers: list[Customer]) -> None:
        """Some of a day's customers look at their visits, and one of them is not who they seem to be."""
        for customer in customers:
            if customer.let_in and rng.random() < OPENED:
                self._look(rng, customer)
        if customers and rng.random() < 0.5:
            stranger = self._signed_in(rng.choice(customers).token) if rng.random() < 0.5 else self._browser()
            for taken in attack(stranger, rng, PATHS, self._reached, self._auditor.n_entries, BARE):
                self._auditor.page_took(taken)

    def erase(self, token: str) -> bool:
        """A customer asks on their phone to be forgotten; whether that was taken down."""
        phone = self._signed_in(token)
        taken = phone.post("/api/erase", {}).status == 202
        if phone.get("/api/visits").status != 401:
            self._auditor.page_took(f"{token} is signed in after they asked to be forgotten")
        return taken

    def _signed_in(self, token: str) -> Browser:
        """A phone on which a customer has opened the link of a mail."""
        phone = self._browser()
        link = self._links.token("account", token, self._clock.wall_ns() / 1e9)
        reply = phone.post("/api/sign-in", {"token": link})
        if reply.status != 200:
            self._auditor.page_took(f"{token} cannot sign in: {reply.text[:100]}")
        if self._browser().post("/api/sign-in", {"token": link}).status != 410:
            self._auditor.page_took(f"the link of {token} was good twice")
        phone.csrf = phone.get("/api/me").json()["csrf"] or ""
        self._reached("phone: signed in")
        return phone

    def _look(self, rng: random.Random, customer: Customer) -> None:
        phone = self._signed_in(customer.token)
        listed = phone.get("/api/visits").json()["visits"]
        for row in listed:
            self._auditor.page_showed(customer.token, row["visit"], row["total"])
        others = self._auditor.visits_of_others(customer.token)
        if others and phone.get(f"/api/visit?visit={rng.choice(others)}").status != 404:
            self._auditor.page_took(f"{customer.token} saw a visit of another customer")
        if rng.random() < 0.3:
            consent = rng.random() < 0.7
            phone.post("/api/profile", {"consent": consent})
            self._reached("phone: consented to a profile" if consent else "phone: withdrew a profile")
        for row in listed:
            kept = self._auditor.kept_on(row["visit"])
            bill = phone.get(f"/api/visit?visit={row['visit']}").json()
            if kept is not None and bill["status"] != "open":
                own = _Own(phone, bill, kept, is_taker(customer.token))
                self._answer(rng, own)
                self._dispute(rng, own)

    def _answer(self, rng: random.Random, own: _Own) -> None:
        for asked in own.bill["questions"]:
            if asked["answered"] is not None:
                continue
            right = [choice["number"] for choice in asked["choices"] if self._is_true(choice, own.kept)]
            choice = NOT_KNOWN if rng.random() < UNKNOWING else right[0] if right else NONE_OF_THESE
            if own.is_taker:
                choice = asked["choices"][0]["number"]
            wish = {"visit": own.visit, "question": asked["id"], "choice": choice}
            reply = own.phone.post("/api/answer", wish)
            self._reached(f"phone: answered, {_became(reply)}")
            if reply.status != 200:
                continue
            self._auditor.word(own.visit, honest=choice in right)
            if own.phone.post("/api/answer", wish).status != 200:
                self._auditor.page_took(f"{own.visit}: the same answer again is refused")
            if own.phone.post("/api/answer", {**wish, "choice": choice ^ 1}).status not in (400, 409):
                self._auditor.page_took(f"{own.visit}: another answer to an answered question is accepted")

    def _is_true(self, choice: dict[str, Any], kept: dict[str, int]) -> bool:
        return all(kept.get(self._gtins.get(name, name), 0) == n for name, n in choice["holds"])

    def _dispute(self, rng: random.Random, own: _Own) -> None:
        for line in own.bill["lines"]:
            gtin, n = line["gtin"], line["quantity"]
            too_many = n - own.kept.get(gtin, 0)
            if gtin in own.bill["disputed"] or not (too_many > 0 or own.is_taker or rng.random() < MISTAKEN):
                continue
            wish = {"visit": own.visit, "gtin": gtin, "quantity": max(too_many, 1), "reason": "not taken"}
            reply = own.phone.post("/api/dispute", wish)
            self._reached(f"phone: disputed {'a wrong' if too_many > 0 else 'a right'} line, {_became(reply)}")
            self._auditor.word(own.visit, honest=too_many > 0)


@dataclass(frozen=True)
class _Own:
    """A visit of the customer who looks at it: their phone, the bill on it, and what they really kept."""

    phone: Browser
    bill: dict[str, Any]
    kept: dict[str, int]
    is_taker: bool

    @property
    def visit(self) -> str:
        return str(self.bill["visit"])


def _became(reply: Reply) -> str:
    return str(reply.json().get("status") or reply.json()["error"])


def is_taker(token: str) -> bool:
    """Whether a customer answers to their own advantage, as long as they live."""
    return random.Random(f"taker {token}").random() < TAKERS


@contextmanager
def opened_phones(
    store: Store, folder: Path, clock: ManualClock, auditor: Auditor, rng: random.Random, reached: Callable[..., object]
) -> Iterator[Phones]:
    """The shopper's pages over a shop's folder, as `fusion shopper` puts them together."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(folder / f"{store.id}.sqlite", store))
        sessions = ShopperSessions(folder / SESSIONS)
        moments, profiles = Moments(folder / MOMENTS), Profiles(folder / PROFILES)
        erasures = Erasures(folder, store_key(folder))
        for one in (sessions, moments, profiles, erasures):
            stack.callback(one.close)
        links = store_links(derived(store_key(folder), "shopper"), store.id, "http://localhost", None)
        answers = Answers(
            store, ledger, EvidenceFile(folder / "evidence.jsonl").bundle, profiles=profiles, draw=rng.random
        )
        parts = ShopperParts(
            links=links, sessions=sessions, moments=moments, answers=answers, profiles=profiles,
            forget=lambda account: erasures.ask([account], clock.wall_ns()), url="http://localhost",
        )  # fmt: skip
        app = ShopperApp(store, ledger, parts, clock_s=lambda: clock.wall_ns() / 1e9).app
        runner = stack.enter_context(served(app))
        yield Phones(store, lambda: Browser(app, runner, auditor.page_failed), links, clock, auditor, reached)
