"""One simulated shop over some days: its customers, sensors, staff, console and provider around a real `StoreLoop`."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from live.stepping import SteppedStore  # the tests' own

from bench.endurance.kills import look_at_account
from bench.endurance.shops import emptied
from bench.endurance.year.auditor import Auditor, Customer, Findings
from bench.endurance.year.bank import Bank
from bench.endurance.year.bugs import bug
from bench.endurance.year.chain import Chain, opened_chain
from bench.endurance.year.network import arriving, drawn_faults
from bench.endurance.year.phones import Phones, opened_phones
from bench.endurance.year.staff import CAP, opened_consoles
from fusion.files.atomic import replace_file
from fusion.files.secrets import store_key
from fusion.gates.erasures import Erasures
from fusion.gates.verifiers import GateRequest
from fusion.live.clock import ManualClock
from fusion.live.config import ServeConfig
from fusion.live.loop import StoreLoop
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.runner.truth import TrueVisit, simulated_visits
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.truth import EventTruth
from fusion.store.models import Facing, PaymentPolicy, Store
from fusion.till.settings import TillFile, TillSettings

S = 10**9
DAY_NS = 86_400 * S
START_NS = 1_767_258_000_000_000_000
SOURCE = "python:live.stepping:quiet"
TILL = TillFile(TillSettings.model_validate({"payment": {"provider": "test"}}))
UNLINK_AFTER_DAYS = 3
# A gate asks again for this long before the customer gives up.
PATIENCE = 60
# Sensors run for this long before the first customer.
EARLY_S = 20.0
# After a day's last customer, errands have this long; a provider that was away has been back for a while then.
EVENING_S = 120.0
# Of the providers that are away at closing, this share stays so for longer than one that cannot be asked keeps keys.
LONG_AWAY, LONG_AWAY_S = 0.5, 600.0
# One shop in so many ships its rows to a chain's book in PostgreSQL.
CHAINS = 4
# Nothing that looks like this may be in any file.
CARD_NUMBER = "4539578763621486"
HOSTILE_TOKENS = (CARD_NUMBER, "'; DROP TABLE entry; --", "x" * 12_000, "\x00\x1b[2J", "../../etc/passwd", "")
# How often things happen in a day, on average; the network has good days and bad ones.
KILLS, DISK_FAULTS, BANK_FAULTS, PUSHES, STRANGERS = 0.5, 0.4, 0.5, 0.5, 1.0
NETWORK_FAULTS = (0.0, 1.0, 2.0, 10.0)


@dataclass(frozen=True)
class Life:
    """What one shop is to live through.

    Attributes:
        seed: of everything. days: how many. minutes: of customers a day. folder: for its files. bug: a deliberate one.
    """

    seed: int
    days: int
    minutes: float
    folder: Path
    bug: str = ""


@dataclass
class Lived:
    """What a shop lived through: the auditor's findings, states and faults that were reached, its CPU time."""

    findings: Findings
    reached: Counter[str]
    days: int
    cpu_s: float


class YearClock(ManualClock):
    """A clock that moves by hand; questions at gates, which have threads of their own, are answered at once."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """As if the answer took no time where there is one; a minute of the machine's time means that there is none."""
        return event.wait(60.0) if not event.is_set() else True

    def move_to(self, t_ns: int) -> None:
        """Advance to an instant, UTC nanoseconds."""
        self.advance((t_ns - self.wall_ns()) / S)


class FailingDisk:
    """Writes files, except while it is full."""

    def __init__(self, reached: Callable[[str], object]) -> None:
        self.full_for, self._reached = 0, reached

    def __call__(self, path: Any, data: Any) -> None:
        """See `replace_file`."""
        if self.full_for > 0:
            self.full_for -= 1
            self._reached("the disk was full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(path, data)


def lived(life: Life) -> Lived:
    """Live through all days of one shop, on one thread and by its own clock."""
    began_s = time.process_time()
    with bug(life.bug), ExitStack() as stack:
        shop = Shop(life)
        if life.seed % CHAINS == 0:
            shop.chain = stack.enter_context(opened_chain(shop.store, shop.reach))
        stack.enter_context(mock.patch("fusion.till.opening.open_provider", lambda settings, base: shop.bank))
        stack.callback(shop.leave)
        day = 0
        for day in range(life.days):
            shop.live(day)
            if life.bug and shop.auditor.findings.verdict():
                break  # found
        shop.audit_the_end()
        return Lived(shop.auditor.findings.of(f"shop {life.seed}"), shop.reached, day + 1,
                     time.process_time() - began_s)  # fmt: skip


class Shop:
    """One shop, its surroundings and its auditor.

    Attributes:
        store: the store. reached: states that were seen, and faults that were injected, with their number.
        bank: its provider. auditor: its auditor. chain: the chain's book that it ships to; None for most shops.
    """

    def __init__(self, life: Life) -> None:
        self._life, self._rng = life, random.Random(f"shop {life.seed}")
        self.reached: Counter[str] = Counter()
        self._clock = YearClock(0.0, START_NS)
        self.bank = Bank(random.Random(f"bank {life.seed}"), self._clock.wall_ns, self.reach)
        self.store = _store(life.seed)
        self._stock = self.store.planogram
        self._level_g: dict[str, float] = {}
        self._disk = FailingDisk(self.reach)
        self._n_folders = 0
        self._folder = life.folder / "shop-0"
        self.auditor = Auditor(self._folder, self.store.id, UNLINK_AFTER_DAYS)
        self.chain: Chain | None = None
        self._running: SteppedStore | None = None
        # A customer who was forgotten comes back as another.
        self._generation: Counter[str] = Counter()
        # Customers of the days before, by the name that the simulation has for them.
        self._known: dict[str, str] = {}
        # Who asked to be forgotten: their means of payment by the id of the erasure, and those who are erased.
        self._asked_to_be_forgotten: dict[str, str] = {}
        self._erased: list[str] = []
        self._truth: dict[str, TrueVisit] = {}

    # ---- a day -------------------------------------------------------------------------------------------------------

    def live(self, day: int) -> None:
        """Open, serve a day's customers under its faults, close, and let the auditor in."""
        rng = random.Random(f"day {self._life.seed} {day}")
        begin_ns = START_NS + day * DAY_NS
        self._clock.move_to(begin_ns)
        scenario = _scenario(rng, self._life, begin_ns)
        simulation = Simulation(self.store.model_copy(update={"planogram": self._stock}), scenario)
        observations = self._continued(_with_empty_ends(list(simulation.observations())))
        self._stock = _left(self._stock, simulation.truth.events)
        names = {visit.account for visit in simulation.truth.visits if visit.account}
        names = {name: f"tok_{name}_{self._generation[name]}" for name in sorted(names)}
        self._truth = {names[visit.account]: visit for visit in simulated_visits(simulation.truth) if visit.account}
        self.bank.bad = rng.random() < 0.5
        if self._running is None:
            self._open()
        n_faults = _drawn(rng, rng.choice(NETWORK_FAULTS))
        faults = drawn_faults(rng, self.store, begin_ns, observations[-1].t_ns, n_faults)
        let_in = self._serve(rng, observations, faults, names)
        self._evening(rng)
        customers = [
            Customer(token, token in let_in, true.enter_ns, true.exit_ns, true.items)
            for token, true in self._truth.items()
        ]
        self.auditor.look(self._folder)
        self.auditor.audit_day(customers, begin_ns)
        self._pages(rng, customers, names)
        self._rest()
        self.auditor.look(self._folder)
        self.auditor.audit_goods(begin_ns)
        self.auditor.audit_money(self.bank.moves, at_rest=self._look_at_account() == 0)
        if self.chain is not None:
            self.chain.evening(rng, self._folder, self.auditor)
        self._follow_erasures()
        self.auditor.audit_privacy(self._clock.wall_ns(), self._erased, [CARD_NUMBER])
        if rng.random() < 0.5:
            self._stop()

    def _continued(self, observations: list[Observation]) -> list[Observation]:
        """The same, with each plate's zero where it was the evening before: goods and zeros stay over night."""
        first: dict[str, float] = {}
        for one in observations:
            if isinstance(one, ShelfReading):
                first.setdefault(one.plate, float(np.mean(one.samples)))
        shift_g = {plate: self._level_g.get(plate, level) - level for plate, level in first.items()}
        moved = [
            replace(one, samples=one.samples + np.float32(shift_g[one.plate])) if isinstance(one, ShelfReading) else one
            for one in observations
        ]
        self._level_g = {one.plate: float(np.mean(one.samples)) for one in moved if isinstance(one, ShelfReading)}
        return moved

    def _serve(
        self, rng: random.Random, observations: list[Observation], faults: list[Any], names: dict[str, str]
    ) -> set[str]:
        """Give a day's observations to the store as they arrive; kill it and break its surroundings on the way."""
        begin_ns, end_ns = observations[0].t_ns, observations[-1].t_ns
        happenings = sorted(
            (rng.randrange(begin_ns, end_ns), what)
            for what, mean in (("kill", KILLS), ("disk", DISK_FAULTS), ("bank", BANK_FAULTS), ("push", PUSHES),
                               ("stranger", STRANGERS))
            for _ in range(_drawn(rng, mean))
        )  # fmt: skip
        let_in: set[str] = set()
        for n, (arrival_ns, observation) in enumerate(arriving(observations, faults, self.store, rng, self.reach)):
            self._clock.move_to(arrival_ns)
            while happenings and happenings[0][0] <= arrival_ns:
                self._happen(happenings.pop(0)[1], rng)
            loop = self._loop
            if isinstance(observation, GateScan) and observation.credential_type != "staff":
                self._work_off()
                token = names.get(observation.account, observation.account)
                decision = self._asked(GateRequest(self._clock.wall_ns(), observation.gate, "card", token))
                if decision is not None and not decision.open:
                    self.auditor.gate_refused(token, decision.reason)
                if decision is not None and decision.open and decision.scan is not None:
                    let_in.add(token)
                    loop.pump.accept(replace(decision.scan, t_ns=observation.t_ns))
            else:
                loop.pump.accept(observation)
            if n % 24 == 0:
                self._work_off()
        self._work_off()
        return let_in

    def _happen(self, what: str, rng: random.Random) -> None:
        match what:
            case "kill":
                inside = bool(self._loop.engine.open_visits)
                self.reach("killed with people inside" if inside else "killed while empty")
                self._kill()
            case "disk":
                self._disk.full_for = rng.randrange(1, 6)
            case "bank":
                if self.bank.away or self.bank.leaving:
                    self.bank.away = self.bank.leaving = False
                    self.reach("the provider came back")
                else:
                    self.bank.leaving = rng.random() < 0.5
                    self.bank.away = not self.bank.leaving
                    self.reach("the provider went away")
            case "push":
                self._push(rng)
            case _:
                token = rng.choice(HOSTILE_TOKENS)
                self.reach("a stranger at the gate")
                decision = self._asked(GateRequest(self._clock.wall_ns(), "entry", "card", token))
                if decision is not None and decision.open:
                    self.reach("a stranger's token is a card for the provider to judge")

    def _push(self, rng: random.Random) -> None:
        """A wrong configuration is pushed, and rolled back at once, or after some steps."""
        self._store_pushed(_with_limit(self.store, rng.choice([1e-6, 0.5])))
        if rng.random() < 0.5:
            self._loop.step()
            self.reach("a configuration was rolled back after it was adopted")
        else:
            self.reach("a configuration was rolled back before it was adopted")
        self._store_pushed(self.store)

    def _store_pushed(self, store: Store) -> None:
        assert self._running is not None
        self._running.change(store)

    def _evening(self, rng: random.Random) -> None:
        """The shop is empty; the provider comes back, and errands have time."""
        if self.bank.away:
            self.reach("the provider was away at closing")
            if rng.random() < LONG_AWAY:
                self.reach("the provider was away for long")
                self._rest(LONG_AWAY_S)
        self.bank.away = self.bank.leaving = False
        self._rest()

    def _rest(self, seconds: float = EVENING_S) -> None:
        """Let errands work for a time of the clock."""
        end_s = self._clock.monotonic_s() + seconds
        while self._clock.monotonic_s() < end_s:
            self._clock.advance(2.0)
            self._loop.step()

    # ---- people beside the store -------------------------------------------------------------------------------------

    def _asked(self, request: GateRequest) -> Any:
        """A gate's decision, asked for until it is final; None where the customer gives up."""
        decision = None
        for _ in range(PATIENCE):
            decision = self._loop.books.till.decide(request)
            if decision.again_s is None:
                self.reach(f"gate: {decision.reason}")
                return decision
            self._clock.advance(decision.again_s)
        assert decision is not None
        self.auditor.gate_silent(request.token[:40], decision.reason)
        return None

    def _pages(self, rng: random.Random, customers: list[Customer], names: dict[str, str]) -> None:
        """The evening's customers at their phones, and the staff at their consoles."""
        with opened_phones(self.store, self._folder, self._clock, self.auditor, rng, self.reach) as phones:
            phones.evening(rng, customers)
            with opened_consoles(self.store, self._folder, self._clock, self.auditor, self.reach) as staff:
                staff.evening(rng, self._reviews())
            self._rest()
            self.auditor.look(self._folder)
            self._forget(rng, names, phones)

    def _reviews(self) -> list[str]:
        with Ledger.open(self._folder / f"{self.store.id}.sqlite", self.store) as ledger:
            return [standing.visit for standing in ledger.reviews()]

    def _forget(self, rng: random.Random, names: dict[str, str], phones: Phones) -> None:
        """Customers of today and of the days before ask to be forgotten.

        What waits for money or a decision ends when that does: an erasure of today's customers mostly waits.
        """
        for pool, share in ((sorted(names), 0.4), (sorted(self._known.keys() - names.keys()), 0.6)):
            if pool and rng.random() < share:
                self._erase(rng.choice(pool), by_phone=rng.random() < 0.5, phones=phones)
        self._known |= names

    def _erase(self, name: str, *, by_phone: bool, phones: Phones) -> None:
        token = f"tok_{name}_{self._generation[name]}"
        with closing(Erasures(self._folder, store_key(self._folder))) as erasures:
            known = {one.id for one in erasures.all()}
            if by_phone:
                if not phones.erase(token):
                    self.auditor.page_took(f"{token} asked to be forgotten, and was not heard")
                    return
            else:
                erasures.ask([token], self._clock.wall_ns())
            self.reach("erasure asked for on a phone" if by_phone else "erasure asked for at the counter")
            self._generation[name] += 1
            self._known.pop(name, None)
            self._rest()
            asked = [one for one in erasures.all() if one.id not in known]
        self._asked_to_be_forgotten |= {one.id: token for one in asked}
        if not asked:
            self.reach("erasure: asked again")
        elif asked[-1].state != "done":
            self.reach(f"erasure: {asked[-1].state}")

    def _follow_erasures(self) -> None:
        """Which erasures are done by now: what one waits for may end days after it was asked for."""
        with closing(Erasures(self._folder, store_key(self._folder))) as erasures:
            done = [one.id for one in erasures.all() if one.state == "done" and one.id in self._asked_to_be_forgotten]
        self._erased += [self._asked_to_be_forgotten.pop(erasure) for erasure in done]
        if done:
            self.reach("erasure: done", len(done))
            self._loop.save(wait=True)

    def _look_at_account(self) -> int:
        """A person enters what the bank's account shows; returns how many steps are still in question."""
        with Ledger.open(self._folder / f"{self.store.id}.sqlite", self.store) as ledger:
            checkout = Checkout(ledger, self.bank, self.store, self._clock.wall_ns)
            self.bank.bad = False
            n_looked = look_at_account(ledger, checkout, self.bank, self._clock.wall_ns(), self.store.id)
            self.reach("a person looked at the bank's account", n_looked)
        self._rest()
        with Ledger.open(self._folder / f"{self.store.id}.sqlite", self.store) as ledger:
            checkout = Checkout(ledger, self.bank, self.store, self._clock.wall_ns)
            return sum(one.status in ("person", "pending") for one in checkout.outstanding())

    # ---- the process -------------------------------------------------------------------------------------------------

    @property
    def _loop(self) -> StoreLoop:
        assert self._running is not None
        return self._running.loop

    def _open(self) -> None:
        config = ServeConfig(self.store, self._folder, self._folder, SOURCE, {}, 0.0, till=TILL)
        self._running = SteppedStore(config, self._clock, self._disk)
        self.reach("opened")

    def _stop(self) -> None:
        assert self._running is not None
        self._disk.full_for = 0
        self._running.stop()
        self._running = None
        self.reach("closed for the night")

    def _kill(self) -> None:
        """The process dies at once: what is on its disk is what a new one finds."""
        assert self._running is not None
        self._n_folders += 1
        before, after = self._folder, self._life.folder / f"shop-{self._n_folders}"
        self._disk.full_for = 0
        self._running.kill(after)
        shutil.rmtree(before)
        self._folder = after
        self._open()

    def _work_off(self) -> None:
        while len(self._loop.intake):
            self._loop.step()

    def audit_the_end(self) -> None:
        """The last day is over: conclude."""
        if self._running is None:
            self._open()
        assert self._running is not None
        self._running.end()
        self._running = None
        self.auditor.look(self._folder)
        self.auditor.audit_end()
        self.auditor.audit_goods(self._clock.wall_ns())
        self.auditor.audit_words({"eve": CAP})
        self.reach("a visit's link to its customer ended", self.auditor.links_ended)

    def leave(self) -> None:
        """Give up the shop's files."""
        if self._running is not None:
            self._running.stop()
        shutil.rmtree(self._life.folder, ignore_errors=True)

    def reach(self, state: str, n: int = 1) -> None:
        """Count a state that was seen, or a fault that was injected."""
        if n:
            self.reached[state] += n


def _with_empty_ends(observations: list[Observation]) -> list[Observation]:
    """A day whose sensors run for a while before the first customer and after the last, with a night between days."""
    first_ns = observations[0].t_ns
    first = [one for one in observations if one.t_ns < first_ns + 2 * S and isinstance(one, Frame | ShelfReading)]
    before = []
    for turn in range(round(EARLY_S / 2.0), 0, -1):
        for one in first:
            moved = replace(one, t_ns=one.t_ns - turn * 2 * S)
            before.append(replace(moved, keypoints=moved.keypoints[:0]) if isinstance(moved, Frame) else moved)
    return [*before, *emptied(observations)]


def _left(stock: tuple[Facing, ...], events: list[EventTruth]) -> tuple[Facing, ...]:
    """What lies on the plates after a day."""
    moved = Counter[tuple[str, str]]()
    for event in events:
        moved[event.plate, event.gtin] += event.quantity
    left = [facing.model_copy(update={"stock": max(facing.stock + moved.pop((facing.plate, facing.gtin), 0), 0)})
            for facing in stock]  # fmt: skip
    # What was put on another product's plate lies there the next day as well.
    return (*left, *(Facing(plate=plate, gtin=gtin, stock=n) for (plate, gtin), n in moved.items() if n > 0))


def _with_limit(store: Store, receipt_error_max: float) -> Store:
    """The store with another limit for reviews: the same layout, and another configuration."""
    review = store.review.model_copy(update={"receipt_error_max": receipt_error_max})
    return store.model_copy(update={"review": review})


def _store(seed: int) -> Store:
    """A small store that takes cards and forgets after some days."""
    store = demo_store(n_cameras=4, n_plates=12)
    # Employees let themselves in: one without a credential is a stranger who brings goods, which no day here is about.
    credentials = {"credentials": ("card", "staff")}
    gates = tuple(gate.model_copy(update=credentials) if gate.direction != "out" else gate for gate in store.gate)
    privacy = store.privacy.model_copy(update={"unlink_after_days": UNLINK_AFTER_DAYS})
    return store.model_copy(update={"gate": gates, "payment": PaymentPolicy(mode="leave"), "privacy": privacy})


def _scenario(rng: random.Random, life: Life, begin_ns: int) -> Scenario:
    """A day's customers and how their sensors are."""
    return Scenario(
        seed=rng.getrandbits(31), minutes=life.minutes, start_ns=begin_ns, frame_rate_hz=12.0,
        shoppers=rng.randrange(2, 5), companions=rng.random() < 0.2, tailgaters=rng.random() < 0.1,
        staff=rng.random() < 0.1, put_back_probability=rng.choice([0.0, 0.12, 0.4]),
        dead_plates=rng.random() < 0.1, cameras_out=rng.random() < 0.1, gap_probability=rng.choice([0.0, 0.01]),
        latency=rng.choice([0.0, 1.0]),
    )  # fmt: skip


def _drawn(rng: random.Random, mean: float) -> int:
    """A Poisson number."""
    n, left = 0, rng.expovariate(1.0)
    while left < mean:
        n, left = n + 1, left + rng.expovariate(1.0)
    return n
