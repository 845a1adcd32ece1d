"""One example store's front: readers, gate, payment, prices, receipts and books wired together around the engine.

A store folder that holds an `example.toml` is simulated with real credentials: the simulated customers show signed
codes, card tokens or faces to a real gate keeper, pay through a payment provider that runs in this process, and are
told what they owe by the price book. What the engine sees of them is a pseudonym.
"""

from __future__ import annotations

import datetime
import random
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import Field, ValidationError

from fusion.errors import ConfigError
from fusion.gates.cards import CardTerminal
from fusion.gates.codes import CodeSigner, CodeVerifier, UsedCodes, private_key
from fusion.gates.faces import FaceGallery, face_token
from fusion.gates.keeper import GateKeeper
from fusion.gates.pseudonyms import Pseudonyms, pseudonym
from fusion.gates.verifiers import GateRequest, NotYetPublic, Refused, StaffList, Verified, Verifier
from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.payments import Checkout
from fusion.money.prices import PriceBook
from fusion.money.providers import InProcessProvider, SeededFaults
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.retailers import Chain
from fusion.money.statements import post_fee, statement
from fusion.observations import GateScan
from fusion.results import People, PersonEntered, Receipt, ReceiptLine, ReceiptStatus, Taken
from fusion.simulation import Scenario
from fusion.simulation.crowd import Crowd
from fusion.store.shapes import inside_polygon
from fusion.store.values import StrictModel, validation_faults

if TYPE_CHECKING:
    from fusion.engine import Engine
    from fusion.observations import Observation
    from fusion.results import Result
    from fusion.store.models import Store

FACE_DIM = 128
# At the door one stands this near to the exit's middle.
DOOR_REACH_M = 1.2
# People who are told to wait a moment show their credential again.
SHOWN_TIMES = 50


class Example(StrictModel):
    """example.toml: how customers come in, and who comes in the simulated minutes."""

    credential: Literal["qr", "card", "face"]
    start: str
    email: float = Field(default=0.0, ge=0, le=1)  # share of customers who gave an address
    members: float = Field(default=0.0, ge=0, le=1)  # share who are members
    lost: float = Field(default=0.0, ge=0, lt=1)  # share of the provider's answers that do not arrive
    staff_only_minutes: float = Field(default=0.0, ge=0)
    scenario: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Example:
        """Read example.toml of a store folder."""
        path = folder / "example.toml"
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: want TOML, got: {error}") from None
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path}: "))) from None

    def made_scenario(self, store: Store, seed: int) -> Scenario:
        """The simulated run that it asks for."""
        try:
            local = datetime.datetime.fromisoformat(self.start).replace(tzinfo=ZoneInfo(store.timezone))
            return Scenario(seed=seed, start_ns=int(local.timestamp()) * 10**9, **self.scenario)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"example.toml: {error}") from None


class OpensWhenPaid(Verifier):
    """The verifier of a sealed door: whoever stands at it pays for what they carry, then it opens."""

    def __init__(self, checkout: Checkout, basket: dict[str, int]) -> None:
        self._checkout, self._basket = checkout, basket

    def verify(self, request: GateRequest) -> Verified | Refused:
        if self._checkout.confirm(request.token, self._basket[request.token], request.t_ns):
            return Verified("", "Paid. Goodbye")
        return Refused("not paid", "Please pay first, or put it back")


class Storefront:
    """The way of every simulated customer from the reader at the door to the receipt."""

    def __init__(
        self,
        store: Store,
        example: Example,
        scenario: Scenario,
        *,
        ledger: Ledger,
        out: Path,
        folder: Path,
        smtp: str | None,
    ) -> None:
        self.store, self._example, self._scenario, self._ledger, self._out = store, example, scenario, ledger, out
        self._random = random.Random(scenario.seed)
        chain = folder.resolve().parent / "chain.toml"
        self._retailer = Chain.load(chain).retailer_of(store) if chain.exists() else None
        self.prices = PriceBook(store)
        self.provider = InProcessProvider(SeededFaults(scenario.seed, lost_after=example.lost))
        self.checkout = Checkout(ledger, self.provider, store)
        self._kept = ReceiptStore(out / "receipts")
        host, _, port = (smtp or "").rpartition(":")
        self._mailer = Mailer(
            ledger, store, host=host, port=int(port or 0), sender="receipts@store.example",
            seller=self._retailer.brand if self._retailer else None,
        )  # fmt: skip
        self._can_mail = smtp is not None

        everybody = Crowd(store, scenario).people
        self._customers = {person.account: self._customer(person.account) for person in everybody if person.account}
        # Random, but the same for the same seed; a shop leaves `new` to the operating system's randomness.
        self.pseudonyms = Pseudonyms(
            ledger,
            customer=lambda account: self._customers.get(account.removeprefix("tok_")),
            admit=self.checkout.admit,
            new=lambda: pseudonym(self._random.choice),
        )
        verifier = self._verifier()
        if example.staff_only_minutes:
            self._public_ns = scenario.start_ns + round(example.staff_only_minutes * 60e9)
            employees = {
                person.account
                for person in everybody
                if person.account and scenario.start_ns + person.arrival_s * 1e9 < self._public_ns
            }
            verifier = NotYetPublic(verifier, employees, self._public_ns)
        staff = StaffList({person.account for person in everybody if person.role == "staff" and person.account})
        self._basket: dict[str, int] = {}  # by visit, what it costs as it looks at the door
        self.keeper = GateKeeper(
            store,
            {example.credential: self.pseudonyms.behind(verifier), "staff": staff},
            way_out=OpensWhenPaid(self.checkout, self._basket) if store.payment.mode == "door" else None,
        )
        self.names: dict[str, str] = {}  # pseudonym: simulated account, to compare with the truth
        self._visit_of: dict[int, str] = {}
        self._shown: dict[str, int] = {}
        self.refused: Counter[str] = Counter()
        self._strangers_due = bool(example.staff_only_minutes)

    def _customer(self, account: str) -> Verified:
        chance = random.Random(f"{self._scenario.seed} {account}")
        email = f"{account}@mail.example" if chance.random() < self._example.email else None
        name = account.partition("-")[2].capitalize()
        greeting = f"Welcome, {name}" if self._example.credential == "face" else "Welcome"
        return Verified(account, greeting, f"tok_{account}", email)

    def is_member(self, account: str | None) -> bool:
        chance = random.Random(f"{self._scenario.seed} {account} member")
        return account is not None and chance.random() < self._example.members

    # ---- readers and the gate ----------------------------------------------------------------------------------------

    def _verifier(self) -> Verifier:
        match self._example.credential:
            case "qr":
                key = private_key(self._out / "app_server.pem")
                self._signer = CodeSigner(key, self.store.id)
                return CodeVerifier(key.public_key(), self.store.id, UsedCodes(self._out / "used.sqlite"))
            case "card":
                return CardTerminal()
            case _:
                faces = FaceGallery(
                    self._out / "faces", self._random.randbytes(32), dim=FACE_DIM, effective_dim=FACE_DIM,
                    false_accept_rate=1e-6,
                )  # fmt: skip
                for account, known in self._customers.items():
                    faces.enrol(account, known.greeting.removeprefix("Welcome, "), self._face(account))
                return faces

    def _face(self, account: str) -> np.ndarray:
        vector = np.random.default_rng(list(account.encode())).normal(size=FACE_DIM)
        return vector / np.linalg.norm(vector)

    def _shows(self, account: str, t_ns: int) -> str:
        """What a customer's phone, card or face tells the reader."""
        match self._example.credential:
            case "qr":
                return self._signer.code(account, t_ns)
            case "card":
                return f"tok_{account}"
            case _:
                noise = np.random.default_rng(self._random.getrandbits(32)).normal(size=FACE_DIM)
                return face_token(self._face(account) + 0.6 * noise / np.linalg.norm(noise))

    def observations(self, simulated: Iterable[Observation]) -> Iterator[Observation]:
        """What the sensors tell, with every way in decided by the gate keeper."""
        for observation in simulated:
            if not isinstance(observation, GateScan):
                yield observation
                continue
            if self._strangers_due and observation.t_ns < self._public_ns:
                # Somebody who is not an employee tries, and stays outside.
                self._strangers_due = False
                self._scan(observation, self._example.credential, self._shows("acc-stranger", observation.t_ns))
            if observation.credential_type == "staff":
                scan = self._scan(observation, "staff", observation.account)
            else:
                scan = self._scan(
                    observation, self._example.credential, self._shows(observation.account, observation.t_ns)
                )
                if scan is not None:
                    self.names[scan.account] = observation.account
            if scan is not None:
                yield scan

    def _scan(self, observed: GateScan, kind: str, token: str) -> GateScan | None:
        for _ in range(SHOWN_TIMES):
            decision = self.keeper.scan(GateRequest(observed.t_ns, observed.gate, kind, token))
            if decision.open or decision.display != "One moment please, then try again":
                break
        if not decision.open:
            self.refused[decision.reason] += 1
        return decision.scan

    # ---- from the engine's results to money --------------------------------------------------------------------------

    def result(self, result: Result, engine: Engine) -> Result:
        """Act on a result; returns it as it is to be told, a receipt at its real prices."""
        match result:
            case PersonEntered(visit=str() as visit):
                self._visit_of[result.track_id] = visit
                self.checkout.open_visit(visit, result.account, result.t_ns)
                self.pseudonyms.entered(result.account)
            case People() if self.store.payment.mode in ("zone", "door"):
                self._basket_shown(result, engine)
            case Receipt():
                priced = self.prices.priced(result, member=self.is_member(self.names.get(result.account or "")))
                self.checkout.receipt(priced.receipt, priced.discounts)
                self.pseudonyms.left(result.account)
                self._issue(result.visit, result.issued_ns)
                return priced.receipt
        return result

    def _issue(self, visit: str, t_ns: int) -> None:
        seller = self._retailer.brand if self._retailer else None
        document = ReceiptDocument.of(self._ledger, self.store, visit, seller)
        if document is not None:
            self._kept.write(document)
            self._mailer.due(visit, t_ns)

    def _basket_shown(self, people: People, engine: Engine) -> None:
        """In the payment zone, or at the door, customers see their basket and confirm it with their wallet."""
        for track, (x, y) in zip(people.track_id.tolist(), people.position_m.tolist()):
            visit = self._visit_of.get(track)
            if visit is None or not self._stands_to_pay(x, y):
                continue
            items = engine.journal.balance(("cart", visit))
            if any(n < 0 for n in items.values()):
                continue
            moments = engine.journal.moments(("cart", visit))
            total = self._cost(items, moments, people.t_ns)
            if self._shown.get(visit) == total:
                continue
            if self.store.payment.mode == "zone":
                may_leave = self.checkout.confirm(visit, total, people.t_ns)
            else:
                self._basket[visit] = total
                may_leave = self.keeper.scan(GateRequest(people.t_ns, "exit", "open", visit, leaving=True)).open
            if may_leave:
                self._shown[visit] = total

    def _cost(self, items: dict[str, int], moments: dict[str, list[int]], end_ns: int, member: bool = False) -> int:
        """What pieces cost that were taken at these moments."""
        lines = tuple(ReceiptLine(gtin, n, 0, 1.0) for gtin, n in sorted(items.items()))
        taken = tuple(Taken(t_ns, gtin, 1) for gtin, times in moments.items() for t_ns in times)
        currency = self.store.currency
        bill = Receipt("basket", None, None, end_ns, end_ns, ReceiptStatus.SETTLED, (), currency, 0, lines, taken)
        return self.prices.priced(bill, member=member).receipt.total

    def _stands_to_pay(self, x: float, y: float) -> bool:
        if self.store.payment.mode == "zone":
            return any(zone.kind == "payment" and inside_polygon(zone.polygon, x, y) for zone in self.store.zone)
        ways_out = (gate for gate in self.store.gate if gate.direction != "in")
        return any(np.hypot(*(np.mean(gate.line, axis=0) - (x, y))) < DOOR_REACH_M for gate in ways_out)

    # ---- the end of the day ------------------------------------------------------------------------------------------

    def close(self, t_ns: int) -> list[str]:
        """Settle what is left, send the mails, close the month; returns what there is to tell."""
        self.provider.recovered()
        self.checkout.recover(t_ns)
        told = [
            f"gate: {self.keeper.counts['welcome']} let in"
            + "".join(f", {n} refused ({reason})" for reason, n in sorted(self.refused.items()))
        ]
        if self.store.payment.mode in ("zone", "door"):
            where = "in the payment zone" if self.store.payment.mode == "zone" else "at the door, which then opened"
            told.append(f"payment: {len(self._shown)} baskets shown and confirmed {where}")
        balances = self._ledger.balances().get(self.store.currency, {})
        price = self.store.price_text
        both = "both books agree" if balances.get("provider", 0) == self.provider.total else "BOOKS DIFFER"
        told.append(
            f"money: {price(self.provider.total)} captured, {price(balances.get('receivable', 0))} unpaid, "
            f"{price(self.provider.held)} held for visits in review; {both}"
        )
        due = len(self._ledger.unanswered("mail due"))
        if due and self._can_mail:
            sent, waiting = self._mailer.deliver(t_ns)
            told.append(f"mail: {sent} receipts sent, {waiting} wait")
        elif due:
            told.append(f"mail: {due} receipts wait for a mail server (--smtp HOST:PORT)")
        if self._retailer is not None:
            month = f"{self.store.local_time(t_ns):%Y-%m}"
            post_fee(self._ledger, self.store, self._retailer, month)
            told += ["", statement(self._ledger, self.store, self._retailer, month).text(self.store)]
        return told

    def truth_of(self, visits: list[dict[str, Any]], events: Iterable[Any]) -> list[dict[str, Any]]:
        """The simulation's truth under the pseudonyms, with what each visit should cost."""
        pseudonym_of = {account: pseudonym for pseudonym, account in self.names.items()}
        told = []
        for visit in visits:
            account = visit["account"]
            taken: dict[str, list[int]] = {}
            for event in sorted(events, key=lambda one: one.t_ns):
                if event.account == account and visit["enter"] <= event.t_ns <= visit["exit"]:
                    times = taken.setdefault(event.gtin, [])
                    if event.quantity < 0:
                        times.extend([event.t_ns] * -event.quantity)
                    else:
                        del times[max(len(times) - event.quantity, 0) :]
            items = {gtin: n for gtin, n in visit["items"].items() if n}
            total = self._cost(items, taken, visit["exit"], member=self.is_member(account))
            told.append({**visit, "account": pseudonym_of.get(account, account), "total": total})
        return told
