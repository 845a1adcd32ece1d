"""The front of a simulated store: readers, gate, payment, prices, receipts and books around the engine.

A store folder that holds an `example.toml` is simulated with real credentials: the simulated customers show signed
codes, card tokens or faces to a real gate keeper, pay through a payment provider that runs in this process, and get
receipts at the prices of the price book. The engine knows them by pseudonyms alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusion.engine import Engine
from fusion.gates.keeper import GateKeeper
from fusion.gates.pseudonyms import Pseudonyms, pseudonym
from fusion.gates.verifiers import GateRequest, NotYetPublic, Refused, StaffList, Verified, Verifier
from fusion.goods.journal import cart
from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.payments import Checkout
from fusion.money.prices import PriceBook
from fusion.money.providers import InProcessProvider, SeededFaults
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.retailers import Chain
from fusion.money.statements import post_fee, statement
from fusion.observations import GateScan, Observation
from fusion.results import People, PersonEntered, Receipt, ReceiptLine, ReceiptStatus, Result, Taken
from fusion.runner.customers import Customers
from fusion.runner.example import Example
from fusion.runner.front import Front
from fusion.runner.truth import TrueVisit
from fusion.simulation import Scenario
from fusion.store.models import Store
from fusion.store.shapes import inside_polygon

# A person who stands this near to the exit's middle is at the door.
DOOR_REACH_M = 1.2
# A person who is asked to wait a moment shows their credential again, at most this often.
SHOWN_MAX = 50


class OpensWhenPaid(Verifier):
    """The verifier of a sealed door: it opens once the person at it has paid for what they carry."""

    def __init__(self, checkout: Checkout, basket: dict[str, int]) -> None:
        """Ask a checkout for the total of each visit's basket, minor units by visit."""
        self._checkout, self._basket = checkout, basket

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Charge the visit that asks to leave."""
        if self._checkout.confirm(request.token, self._basket[request.token], request.t_ns):
            return Verified("", "Paid. Goodbye")
        return Refused("not paid", "Please pay first, or put it back")


class Storefront(Front):
    """Every simulated customer's way from the reader at the door to the receipt."""

    def __init__(
        self, store: Store, ledger: Ledger, example: Example, scenario: Scenario, *, out: Path, folder: Path,
        smtp: str | None,
    ) -> None:  # fmt: skip
        """Open the door.

        Args:
            store: the store, as read from `folder`; a chain.toml beside the folder names its retailer.
            ledger: its books.
            example: how customers come in and pay.
            scenario: who comes.
            out: folder for keys, faces and receipts.
            folder: the store folder.
            smtp: HOST:PORT of a mail server; without one, mails wait.
        """
        super().__init__(store, ledger)
        chain = folder.resolve().parent / "chain.toml"
        self._retailer = Chain.load(chain).retailer_of(store) if chain.exists() else None
        # Random, but the same for the same seed; a real shop draws pseudonyms from the operating system's randomness.
        shared_random = random.Random(scenario.seed)
        self._customers = Customers(store, example, scenario, shared_random, out)
        self._prices = PriceBook(store)
        self._provider = InProcessProvider(SeededFaults(scenario.seed, lost_after=example.lost))
        self._checkout = Checkout(ledger, self._provider, store)
        self._receipts = ReceiptStore(out / "receipts")
        self._mailer, self._has_mail_server = self._mailer_to(smtp), smtp is not None
        self._pseudonyms = Pseudonyms(
            ledger,
            customer=self._customers.of_token,
            admit=self._checkout.admit,
            new=lambda: pseudonym(shared_random.choice),
        )
        self._public_ns = scenario.start_ns + round(example.staff_only_minutes * 60e9)
        self._stranger_due = example.staff_only_minutes > 0
        self._basket: dict[str, int] = {}  # by visit, what it costs at the door
        self._credential = example.credential
        self._keeper = self._gate_keeper(scenario)
        self._names: dict[str, str] = {}  # by pseudonym the simulated account, to compare with the truth
        self._visit_of_track: dict[int, str] = {}
        self._confirmed: dict[str, int] = {}  # by visit, the total that was shown and confirmed last
        self._refused: Counter[str] = Counter()
        self._now_ns = scenario.start_ns  # newest time of the data, by which the gate judges codes

    def _mailer_to(self, smtp: str | None) -> Mailer:
        host, _, port = (smtp or "").rpartition(":")
        return Mailer(
            self.ledger, self.store, host=host, port=int(port or 0), sender="receipts@store.example",
            seller=self._retailer.brand if self._retailer else None,
        )  # fmt: skip

    def _gate_keeper(self, scenario: Scenario) -> GateKeeper:
        verifier: Verifier = self._customers.verifier()
        if self._stranger_due:
            employees = self._customers.arriving_before((self._public_ns - scenario.start_ns) / 1e9)
            verifier = NotYetPublic(verifier, employees, self._public_ns)
        way_out = OpensWhenPaid(self._checkout, self._basket) if self.store.payment.mode == "door" else None
        staff = StaffList(self._customers.employees())
        verifiers = {self._credential: self._pseudonyms.behind(verifier), "staff": staff}
        return GateKeeper(self.store, verifiers, way_out=way_out, now_ns=lambda: self._now_ns)

    # ---- readers and the gate ----------------------------------------------------------------------------------------

    def observations(self, observations: Iterable[Observation]) -> Iterator[Observation]:
        """The sensors' observations; the gate keeper decides every scan."""
        for observation in observations:
            self._now_ns = max(self._now_ns, observation.t_ns)
            if not isinstance(observation, GateScan):
                yield observation
                continue
            if self._stranger_due and observation.t_ns < self._public_ns:
                # A person who is not an employee tries, and stays outside.
                self._stranger_due = False
                self._scan(observation, self._credential, self._customers.shown("acc-stranger", observation.t_ns))
            scan = self._scan_of(observation)
            if scan is not None:
                yield scan

    def _scan_of(self, observed: GateScan) -> GateScan | None:
        """The scan as the gate admits it, under a pseudonym; None where the person stays outside."""
        account = observed.account or ""
        if observed.credential_type == "staff":
            return self._scan(observed, "staff", account)
        scan = self._scan(observed, self._credential, self._customers.shown(account, observed.t_ns))
        if scan is not None and scan.account is not None:
            self._names[scan.account] = account
        return scan

    def _scan(self, observed: GateScan, kind: str, token: str) -> GateScan | None:
        request = GateRequest(observed.t_ns, observed.gate, kind, token)
        decision = self._keeper.scan(request)
        for _ in range(SHOWN_MAX - 1):
            if decision.again_s is None:
                break
            decision = self._keeper.scan(request)
        if not decision.open:
            self._refused[decision.reason] += 1
        return decision.scan

    # ---- from the engine's results to money --------------------------------------------------------------------------

    def handle(self, result: Result, engine: Engine) -> Result:
        """Open visits, show baskets, charge receipts; a receipt comes back at its real prices."""
        match result:
            case PersonEntered(visit=str() as visit):
                self._visit_of_track[result.track_id] = visit
                self._checkout.open_visit(visit, result.account, result.t_ns)
                self._pseudonyms.entered(result.account)
            case People() if self.store.payment.mode in ("zone", "door"):
                self._show_baskets(result, engine)
            case Receipt():
                member = self._customers.is_member(self._names.get(result.account or ""))
                priced = self._prices.priced(result, member=member)
                self._checkout.receipt(priced.receipt, priced.discounts)
                self._pseudonyms.left(result.account)
                self._issue(result.visit, result.issued_ns)
                return priced.receipt
        return result

    def _issue(self, visit: str, t_ns: int) -> None:
        seller = self._retailer.brand if self._retailer else None
        document = ReceiptDocument.of(self.ledger, self.store, visit, seller)
        if document is not None:
            self._receipts.write(document)
            self._mailer.due(visit, t_ns)

    def _show_baskets(self, people: People, engine: Engine) -> None:
        """In the payment zone, or at the door, customers see their basket and confirm it with their wallet."""
        for track, (x, y) in zip(people.track_id.tolist(), people.position_m.tolist()):
            visit = self._visit_of_track.get(track)
            if visit is None or not self._stands_to_pay(x, y):
                continue
            items = engine.journal.balance(cart(visit))
            if any(n < 0 for n in items.values()):
                continue
            total = self._cost(items, engine.journal.moments(cart(visit)), people.t_ns)
            if self._confirmed.get(visit) == total:
                continue
            if self.store.payment.mode == "zone":
                may_leave = self._checkout.confirm(visit, total, people.t_ns)
            else:
                self._basket[visit] = total
                may_leave = self._keeper.scan(GateRequest(people.t_ns, "exit", "open", visit, asks="leave")).open
            if may_leave:
                self._confirmed[visit] = total

    def _cost(
        self, items: Mapping[str, int], moments: Mapping[str, list[int]], end_ns: int, member: bool = False
    ) -> int:
        """What pieces cost, minor units.

        Args:
            items: pieces by GTIN.
            moments: by GTIN, when each piece was taken.
            end_ns: when the visit ends.
            member: whether members' prices hold.
        """
        lines = tuple(ReceiptLine(gtin, n, 0, 1.0) for gtin, n in sorted(items.items()))
        taken = tuple(Taken(t_ns, gtin, 1) for gtin, times in moments.items() for t_ns in times)
        currency = self.store.currency
        bill = Receipt("basket", None, None, end_ns, end_ns, ReceiptStatus.SETTLED, (), currency, 0, lines, taken)
        return self._prices.priced(bill, member=member).receipt.total

    def _stands_to_pay(self, x: float, y: float) -> bool:
        if self.store.payment.mode == "zone":
            return any(zone.kind == "payment" and inside_polygon(zone.polygon, x, y) for zone in self.store.zone)
        ways_out = (gate for gate in self.store.gate if gate.direction != "in")
        return any(np.hypot(*(np.mean(gate.line, axis=0) - (x, y))) < DOOR_REACH_M for gate in ways_out)

    # ---- the end of the day ------------------------------------------------------------------------------------------

    def close(self, t_ns: int) -> list[str]:
        """Settle open payments, send the mails, close the month; returns the lines that report it."""
        self._provider.recovered()
        self._checkout.recover(t_ns)
        refused = "".join(f", {n} refused ({reason})" for reason, n in sorted(self._refused.items()))
        lines = [f"gate: {self._keeper.counts['welcome']} let in{refused}"]
        if self.store.payment.mode in ("zone", "door"):
            where = "in the payment zone" if self.store.payment.mode == "zone" else "at the door, which then opened"
            lines.append(f"payment: {len(self._confirmed)} baskets shown and confirmed {where}")
        lines += [self._money_line(), *self._mail_lines(t_ns)]
        if self._retailer is not None:
            month = f"{self.store.local_time(t_ns):%Y-%m}"
            post_fee(self.ledger, self.store, self._retailer, month)
            lines += ["", statement(self.ledger, self.store, self._retailer, month).text(self.store)]
        return lines

    def _money_line(self) -> str:
        balances = self.ledger.balances().get(self.store.currency, {})
        price = self.store.price_text
        agree = balances.get("provider", 0) == self._provider.total
        return (
            f"money: {price(self._provider.total)} captured, {price(balances.get('receivable', 0))} unpaid, "
            f"{price(self._provider.held)} held for visits in review; {'both books agree' if agree else 'BOOKS DIFFER'}"
        )

    def _mail_lines(self, t_ns: int) -> list[str]:
        n_due = len(self.ledger.unanswered("mail due"))
        if not n_due:
            return []
        if not self._has_mail_server:
            return [f"mail: {n_due} receipts wait for a mail server (--smtp HOST:PORT)"]
        n_sent, n_waiting = self._mailer.deliver(t_ns)
        return [f"mail: {n_sent} receipts sent, {n_waiting} wait"]

    def true_visits(self, visits: list[TrueVisit]) -> list[TrueVisit]:
        """The simulation's visits under pseudonyms, with what each should cost."""
        pseudonym_of = {account: name for name, account in self._names.items()}
        renamed = []
        for visit in visits:
            items = {gtin: n for gtin, n in visit.items.items() if n}
            member = self._customers.is_member(visit.account)
            total = self._cost(items, visit.taken_ns, visit.exit_ns, member=member)
            account = pseudonym_of.get(visit.account, visit.account) if visit.account is not None else None
            renamed.append(replace(visit, account=account, total=total))
        return renamed
