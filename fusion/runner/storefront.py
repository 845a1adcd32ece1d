"""The simulated customers of a store: what they show at its readers, how they confirm and pay, in front of a real till.

A store folder that holds an `example.toml` is simulated with real credentials: the simulated customers show signed
codes, card tokens or faces, pay through a payment provider that runs in this process, and get receipts at the prices of
the price book. Everything but the customers is the till of a live store. The engine knows them by pseudonyms alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fusion.engine import Engine
from fusion.gates.pseudonyms import Pseudonyms, pseudonym
from fusion.gates.verifiers import GateRequest, NotYetPublic, StaffList, Verifier
from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.providers import InProcessProvider, SeededFaults
from fusion.money.retailers import Chain
from fusion.money.statements import post_fee, statement
from fusion.observations import GateScan, Observation
from fusion.results import People, PersonEntered, Picked, PutBack, Receipt, Result
from fusion.runner.customers import SimulatedCustomers
from fusion.runner.example import Example
from fusion.runner.front import Front
from fusion.runner.truth import TrueVisit
from fusion.show.console.feed import LiveFeed
from fusion.simulation import Scenario
from fusion.store.models import Store
from fusion.till.till import Around, Parts, Till

# A person who is asked to wait a moment shows their credential again, at most this often.
SHOWN_MAX = 50


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
        self._customers = SimulatedCustomers(store, example, scenario, shared_random, out)
        self._provider = InProcessProvider(SeededFaults(scenario.seed, lost_after=example.lost))
        self._scenario = scenario
        self._public_ns = scenario.start_ns + round(example.staff_only_minutes * 60e9)
        self._stranger_due = example.staff_only_minutes > 0
        self._credential = example.credential
        self._newest_ns = 0
        parts = Parts(
            provider=self._provider,
            customers=self._customers,
            verifiers=self._verifiers,
            mailer=lambda books: self._mailer_to(books, smtp),
            delivers=smtp is not None,
            retailer=self._retailer,
            new_pseudonym=lambda: pseudonym(shared_random.choice),
        )
        around = Around(out, lambda: self._newest_ns, lambda: self._newest_ns * 1e-9, threads=False, fresh=True)
        self._till = Till(store, ledger, parts, around)
        self._names: dict[str, str] = {}  # by pseudonym the simulated account, to compare with the truth
        self._confirmed: dict[str, int] = {}  # by visit, the total that was shown and confirmed last
        self._refused: Counter[str] = Counter()

    def _mailer_to(self, books: Ledger, smtp: str | None) -> Mailer:
        host, _, port = (smtp or "").rpartition(":")
        return Mailer(
            books, self.store, host=host, port=int(port or 0), sender="receipts@store.example",
            seller=self._retailer.brand if self._retailer else None,
        )  # fmt: skip

    def _verifiers(self, pseudonyms: Pseudonyms) -> Mapping[str, Verifier]:
        verifier: Verifier = self._customers.verifier()
        if self._stranger_due:
            employees = self._customers.arriving_before((self._public_ns - self._scenario.start_ns) / 1e9)
            verifier = NotYetPublic(verifier, employees, self._public_ns)
        return {self._credential: pseudonyms.behind(verifier), "staff": StaffList(self._customers.employees())}

    # ---- readers and the gate ----------------------------------------------------------------------------------------

    def observations(self, observations: Iterable[Observation]) -> Iterator[Observation]:
        """The sensors' observations; the gate keeper decides every scan."""
        for observation in observations:
            self._newest_ns = max(self._newest_ns, observation.t_ns)
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
        decision = self._till.decide(request)
        for _ in range(SHOWN_MAX - 1):
            if decision.again_s is None:
                break
            decision = self._till.decide(request)
        if not decision.open:
            self._refused[decision.reason] += 1
        return decision.scan

    # ---- from the engine's results to money --------------------------------------------------------------------------

    def handle(self, result: Result, engine: Engine) -> Result:
        """Open visits, show baskets, charge receipts; a receipt comes back at its real prices."""
        match result:
            case PersonEntered(visit=str()):
                self._till.open_visit(result)
            case People() if self.store.payment.mode in ("zone", "door"):
                self._till.look(result, engine)
                self._pay(result.t_ns)
            case Picked() | PutBack():
                self._till.moved(result)
            case Receipt():
                priced = self._till.priced(self._till.restrictions.judged(result))
                self._till.post(priced)
                self._till.do_errands()
                return priced.receipt
        return result

    def show(self, feed: LiveFeed) -> None:
        """See `Front.show`."""
        for answer in self._till.take_answers():
            feed.show_answer(answer)
        for place, baskets in self._till.take_shown().items():
            feed.show_baskets(place, baskets, self._till.baskets.t_ns)

    def _pay(self, t_ns: int) -> None:
        """Whoever stands in a payment zone confirms their basket with their wallet; whoever is at a door, asks it."""
        for zone, baskets in self._till.baskets.in_zones().items():
            for basket in baskets:
                if self._confirmed.get(basket.visit) != basket.total:
                    answer = self._till.confirm(zone, basket.visit, basket.total, t_ns)
                    if answer.confirmed:
                        self._confirmed[basket.visit] = basket.total
        if self.store.payment.mode == "door":
            for gate in self.store.gate:
                if gate.direction != "in" and self._till.baskets.at_door(gate.id):
                    self._till.decide(GateRequest(t_ns, gate.id, "open", asks="leave"))

    # ---- the end of the day ------------------------------------------------------------------------------------------

    def close(self, t_ns: int) -> list[str]:
        """Settle open payments, send the mails, close the month; returns the lines that report it."""
        self._provider.recovered()
        if self._till.checkout is not None:
            self._till.checkout.recover(t_ns)
        self._till.do_errands()
        refused = "".join(f", {n} refused ({reason})" for reason, n in sorted(self._refused.items()))
        lines = [f"gate: {self._till.keeper.counts['welcome']} let in{refused}"]
        if self.store.payment.mode == "zone":
            lines.append(f"payment: {len(self._confirmed)} baskets shown and confirmed in the payment zone")
        if self.store.payment.mode == "door":
            n_paid = self._till.n_paid_at_door
            lines.append(f"payment: {n_paid} baskets shown and confirmed at the door, which then opened")
        lines += [self._money_line(), *self._mail_lines()]
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

    def _mail_lines(self) -> list[str]:
        n_sent, n_waiting = self._till.n_mailed, len(self.ledger.unanswered("mail due"))
        if self._till.delivers:
            return [f"mail: {n_sent} receipts sent, {n_waiting} wait"] if n_sent or n_waiting else []
        return [f"mail: {n_waiting} receipts wait for a mail server (--smtp HOST:PORT)"] if n_waiting else []

    def true_visits(self, visits: list[TrueVisit]) -> list[TrueVisit]:
        """The simulation's visits under pseudonyms, with what each should cost."""
        pseudonym_of = {account: name for name, account in self._names.items()}
        renamed = []
        for visit in visits:
            priced = visit.priced(self._till.prices, member=self._customers.is_member(visit.account))
            account = pseudonym_of.get(visit.account, visit.account) if visit.account is not None else None
            renamed.append(replace(priced, account=account))
        return renamed
