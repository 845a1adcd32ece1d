"""The till of one store: gates, prices, payments, receipts and mail around its engine, wired once for every runner.

The engine's thread posts visits and receipts and never waits for anything but the store's own disk. What asks the world
(a payment provider, a mail server, books on a server) are errands with threads of their own; they read from the books
what is due, so that neither a restart nor an outage loses anything.

    scan at a gate --> keeper --> pseudonym, authorisation at the entry
    engine's results --> open_visit, bill, look --> front (books in the store)
    front --> errands --> books, provider, receipts, mail
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fusion.engine import Engine
from fusion.errors import LedgerError
from fusion.files.growing import GrowingLines
from fusion.gates.erasures import Names
from fusion.gates.forgetting import unlink_due
from fusion.gates.keeper import Decision, GateKeeper, GateLimits
from fusion.gates.privacy import drop_old
from fusion.gates.pseudonyms import Pseudonyms, pseudonym
from fusion.gates.retention import Kept, RetentionSettings
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.gates.watched import WatchedFile
from fusion.money.checkpoints import Checkpoints
from fusion.money.entries import EntryRow
from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.moments import FILE as MOMENTS_FILE
from fusion.money.moments import Moments
from fusion.money.payments import Checkout, Payment
from fusion.money.prices import PriceBook, PricedReceipt
from fusion.money.proposals import Proposals
from fusion.money.providers import Provider
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.retailers import Retailer
from fusion.money.visits import CHARGING
from fusion.observations import LATEST_NS
from fusion.results import People, PersonEntered, Picked, PutBack, Receipt, Warning
from fusion.store.models import Store
from fusion.till.authorisations import Authorisations
from fusion.till.baskets import Basket, Baskets, Confirmation, PayingDoor, confirmed
from fusion.till.customers import Customer, Customers, NoCustomers
from fusion.till.debtors import Debtors
from fusion.till.erasing import Erasing
from fusion.till.errands import Errand, Errands
from fusion.till.forwarding import Forwarding, RemoteDecisions
from fusion.till.positions import keep_position, read_position
from fusion.till.restrictions import Restrictions

# Whatever an outage, a restart or another process left open is looked for this often.
RECOVER_EVERY_S = 60.0
# New decisions of reviewers are looked for this often; visits that are billed here are settled at once.
LOOK_EVERY_S = 2.0
# Who owes is read from books on a server this often: who has just paid at home is let in by the time they are here.
DEBTORS_EVERY_S = 15.0
PAUSE_MAX_S = 60.0
MAIL_PAUSE_MAX_S = 300.0
# Baskets in a payment zone are shown again this often, data time.
SHOWN_EVERY_S = 1.0
# Baskets that may wait for the payment provider at once; one that hangs must not keep the next customer waiting.
QUESTIONS_MAX = 8
ROWS_AT_ONCE = 500
# Visits past the store's policy are looked for this often; the policy counts in days.
FORGET_EVERY_S = 3600.0
# Shown to a customer whose earlier visit is not paid.
DEBTOR = "Please pay for your last visit first"
ISSUED_FILE = "issued.json"
# Answers of gates that wait to be shown on screens; a screen shows the newest.
ANSWERS_MAX = 64


class GateAnswer(NamedTuple):
    """What a gate answered, for the screen beside it."""

    t_ns: int
    gate: str
    leaving: bool
    decision: Decision


@dataclass(frozen=True)
class Around:
    """What a runner brings to its store's till.

    Attributes:
        folder: of the store's process: holds receipts and what is kept from run to run.
        now_ns: the present in data time; 0 before the first data.
        dated_ns: the present by which the age of what is kept is judged: as visits are dated, while data come.
            None: as `now_ns`.
        monotonic_s: seconds of the machine's clock, for pauses.
        wait: waits for an event for at most a number of seconds and returns whether it is set.
        report: takes messages for the operator; from any thread.
        warn: takes warnings; from any thread.
        threads: whether errands and questions run in threads of their own; else `Till.do_errands` does what is due.
        fresh: whether the books begin with this run, as those of a simulation do: it looks for nothing older.
    """

    folder: Path
    now_ns: Callable[[], int]
    monotonic_s: Callable[[], float]
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    dated_ns: Callable[[], int] | None = None
    report: Callable[[str], object] = lambda message: None
    warn: Callable[[Warning], object] = lambda warning: None
    threads: bool = True
    fresh: bool = False


@dataclass(frozen=True)
class Parts:
    """What a till is made of: by `fusion.till.opening` from till.toml, or by a simulation for its own customers.

    Attributes:
        provider: takes the money; None: what is owed stands in the books.
        customers: means of payment, addresses and memberships.
        verifiers: by kind of credential, given the pseudonyms under which customers' visits run.
        limits: deadlines of the gates, and limits on guessing.
        mailer: makes what sends the receipts of books; None: none are sent.
        delivers: whether the mailer has a server to send to.
        checkpoints: makes what signs the newest entry of books; None: none are written.
        checkpoints_every_s: time between two of them.
        retention: after how many days files about people are removed.
        retailer: whose store it is; None for the store itself.
        new_pseudonym: makes the name of a visit's customer.
    """

    provider: Provider | None = None
    customers: Customers = field(default_factory=NoCustomers)
    verifiers: Callable[[Pseudonyms], Mapping[str, Verifier]] = lambda pseudonyms: {}
    limits: GateLimits = field(default_factory=GateLimits)
    mailer: Callable[[Ledger], Mailer] | None = None
    delivers: bool = True
    checkpoints: Callable[[Ledger], Checkpoints] | None = None
    checkpoints_every_s: float = 600.0
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    retailer: Retailer | None = None
    new_pseudonym: Callable[[], str] = lambda: pseudonym(secrets.choice)


class Till:
    """Everything of one store that deals with customers and money.

    `decide` and `confirm` may be called from any thread, the others belong to the engine's.

    Attributes:
        store: as configured now.
        front: the books that the engine's thread writes: in the store, always there.
        decisions: what reviewers decided, as far as it is known here.
        keeper: decides at the gates.
        baskets: who stands where baskets are paid.
        prices: the store's.
        restrictions: goods of the store that need a person.
        delivers: whether there is a mail server to send receipts to.
        n_mailed: receipts sent so far.
        evidence: of visits in review, where the runner keeps it.
        watched: files of other programs that are read again when they change.
        erasing: people who asked to be forgotten; None where the books are a simulation's.
    """

    def __init__(
        self, store: Store, front: Ledger, parts: Parts, around: Around, *, forwarding: Forwarding | None = None
    ) -> None:
        """Wire a store's till.

        Args:
            store: the store.
            front: its books, or those in the store that the books on a server follow.
            parts: what it is made of.
            around: what the runner brings.
            forwarding: from there to the books on a server; None where there is no server.
        """
        self.front, self._forwarding = front, forwarding
        self.evidence: GrowingLines | None = None
        self.erasing: Erasing | None = None
        self.watched: list[WatchedFile[Any]] = []
        self.decisions: Ledger | RemoteDecisions = front if forwarding is None else RemoteDecisions(forwarding)
        self._checkout: Checkout | None = None
        self._proposals: Proposals | None = None
        self._mailer: Mailer | None = None
        self._parts, self._around = parts, around
        self.delivers, self.n_mailed = parts.mailer is not None and parts.delivers, 0
        admit = self._admit if store.payment.mode == "enter" else None
        self.pseudonyms = Pseudonyms(
            self.front, customer=self._known, may_enter=self._debtor, admit=admit, new=parts.new_pseudonym
        )
        self._receipts = ReceiptStore(around.folder / "receipts")
        self._asking = ThreadPoolExecutor(QUESTIONS_MAX, "basket") if around.threads else None
        self.restrictions = Restrictions(store, self._is_adult)
        self.baskets = Baskets(store, self._is_member)
        self._shown: dict[str, tuple[Basket, ...]] = {}
        self._on_screens: dict[str, tuple[Basket, ...]] = {}
        self._shown_ns = 0
        self.store, self.prices = store, PriceBook(store)
        self._debtors = Debtors()
        self._authorisations: Authorisations | None = None
        self._door: PayingDoor | None = None
        if parts.provider is not None:
            self._authorisations = Authorisations(
                self._paying, start=self._start, monotonic_s=around.monotonic_s, report=around.report
            )
            if store.payment.mode == "door":
                self._door = PayingDoor(self.baskets, self._authorisations, around.warn, self._needs_person)
        # People wait for it, so the machine's clock measures its deadlines even where data are simulated.
        self.keeper = GateKeeper(
            store, parts.verifiers(self.pseudonyms), way_out=self._door, now_ns=around.now_ns, limits=parts.limits,
            warn=around.warn,
        )  # fmt: skip
        self._n_released = 0
        self._answers: deque[GateAnswer] = deque(maxlen=ANSWERS_MAX)
        self._moments: Moments | None = Moments(around.folder / MOMENTS_FILE)
        if around.fresh:
            self._moments.drop_before(LATEST_NS)
        # Numbers of the newest entries that were settled and issued; None until the books have been asked. A simulation
        # begins with what it posts itself.
        self._settled_seq: int | None = front.head().seq if around.fresh else None
        self._issued_seq = self._settled_seq
        self._recover_s = float("inf") if around.fresh else around.monotonic_s()
        self._waits_for_answer = False
        self._for_person: set[str] = set()
        self.errands = Errands(tuple(self._errands()))
        self.pseudonyms.resume(self.front.open_visits())

    @property
    def books(self) -> Ledger:
        """Where money is booked. Raises LedgerError while books on a server have not been reached yet; never waits."""
        return self.front if self._forwarding is None else self._forwarding.books

    @property
    def checkout(self) -> Checkout | None:
        """Takes the money; None without a provider. Raises LedgerError as `books` does."""
        return None if self._parts.provider is None else self._paying()

    def _paying(self) -> Checkout:
        if self._checkout is None:
            assert self._parts.provider is not None
            self._checkout = Checkout(self.books, self._parts.provider, self.store, self._around.now_ns)
        return self._checkout

    def adopt(self, store: Store) -> None:
        """Use a changed store from now on, of the same layout and payment policy."""
        self.front.adopt(store)
        if self._forwarding is not None:
            self._forwarding.adopt(store)
        self.baskets.adopt(store)
        self.store, self.prices, self._checkout = store, PriceBook(store), None
        self.restrictions = Restrictions(store, self._is_adult)
        self.keeper.adopt(store)

    def _start(self, question: Callable[[], None]) -> None:
        if self._asking is None:
            question()
        else:
            self._asking.submit(question)

    # ---- customers ---------------------------------------------------------------------------------------------------

    def _known(self, account: str) -> Verified | None:
        customer = self._parts.customers.of(account)
        if customer is None:
            return None
        return Verified(account, customer.greeting, customer.token, customer.email)

    def _is_member(self, account: str | None) -> bool:
        """Whether the customer behind a pseudonym is a member."""
        customer = self._customer(account)
        return customer is not None and customer.member

    def _customer(self, account: str | None) -> Customer | None:
        holder = self.front.holder(account) if account is not None else None
        return self._parts.customers.of(holder.account) if holder is not None else None

    def _is_adult(self, account: str | None) -> bool:
        """Whether the age of the customer behind a pseudonym was verified once."""
        customer = self._customer(account)
        return customer is not None and customer.adult

    def _debtor(self, account: str) -> Refused | None:
        """Why a customer may not come in: they owe from earlier visits. Where the provider is asked, so is this."""
        if self._parts.provider is None or self.store.payment.mode == "enter":
            return None
        owes = self._debtors.owes(account) if self._forwarding is not None else self._paying().debt(account) > 0
        return Refused("owes from earlier visits", DEBTOR) if owes else None

    def _admit(self, name: str, t_ns: int) -> Payment:
        """Authorise the amount that the store wants at its entry; while the books are away, that waits."""
        if self._parts.provider is None:
            return Payment(name, "open", None, 0, 0)
        try:
            if self._forwarding is not None:
                self._forwarding.hold(name)
            return self._paying().admit(name, t_ns)
        except LedgerError:
            return Payment(name, "pending", None, 0, 0)

    # ---- gates and baskets -------------------------------------------------------------------------------------------

    def decide(self, request: GateRequest) -> Decision:
        """Decide a request at a gate; from any thread."""
        decision = self.keeper.scan(request)
        if decision.released:
            self._n_released += 1
        self._answers.append(GateAnswer(self._around.now_ns(), request.gate, request.leaving, decision))
        return decision

    def take_answers(self) -> list[GateAnswer]:
        """The newest answers at gates since the last call, for screens; from any thread."""
        answers = []
        with contextlib.suppress(IndexError):
            while True:
                answers.append(self._answers.popleft())
        return answers

    def _needs_person(self, basket: Basket) -> bool:
        """Whether a person has to let a basket out: it holds goods that they must look at."""
        return bool(self.restrictions.reasons((line.gtin for line in basket.lines), basket.account))

    def take_releases(self) -> int:
        """How often a paying door was opened by its release since the last call, so that goods may have left unpaid."""
        n, self._n_released = self._n_released, 0
        return n

    def confirm(self, zone: str, visit: str, total: int, t_ns: int) -> Confirmation:
        """Answer a customer who confirms the basket that a payment zone's terminal shows; from any thread."""
        if self._authorisations is None:
            return Confirmation(False, "no payment here", "Please ask the staff")
        return confirmed(self.baskets.in_zones().get(zone, ()), self._authorisations, visit, total, t_ns)

    def look(self, people: People, engine: Engine) -> dict[str, tuple[Basket, ...]]:
        """Take note of where people are. Returns the payment zones whose baskets are to be shown, with what they hold.

        They are shown when they change, and each second, for a terminal that has just connected.
        """
        self.baskets.look(people, engine)
        zones = self.baskets.in_zones()
        if people.t_ns - self._shown_ns >= SHOWN_EVERY_S * 1e9:
            self._shown_ns = people.t_ns
            self._shown = {zone: baskets for zone, baskets in self._shown.items() if not baskets}
        return _changed(zones, self._shown)

    def take_shown(self) -> dict[str, tuple[Basket, ...]]:
        """Baskets that changed since the last call, by `zone/ID` and `gate/ID`, for the screens beside them."""
        doors = {
            f"gate/{gate}": tuple(one.basket for one in standing if one.basket is not None)
            for gate, standing in self.baskets.at_doors().items()
        }
        now = {**{f"zone/{zone}": baskets for zone, baskets in self.baskets.in_zones().items()}, **doors}
        return _changed(now, self._on_screens)

    @property
    def n_paid_at_door(self) -> int:
        """Visits for which a paying door has opened."""
        return len(self._door.opened_for) if self._door is not None else 0

    def moved(
        self, result: Picked | PutBack, keep: Callable[[Callable[[], object]], object] = lambda write: write()
    ) -> None:
        """Keep when and where goods were taken or put back, for the receipt. A file that fails costs only that.

        keep: calls what writes it, again where the disk was full.
        """
        moments = self._moments
        if moments is None:
            return
        try:
            keep(lambda: moments.add(result))
        except LedgerError as error:
            self._moments = None
            self._around.report(f"receipts will lack when and where goods were taken: {error}")

    # ---- visits and receipts -----------------------------------------------------------------------------------------

    def open_visit(self, entered: PersonEntered) -> bool:
        """Record that a visit began, with what was authorised for it at the entry. Returns whether it is new.

        Raises:
            IdempotencyConflict: the visit began later than this, or belongs to another account.
        """
        visit, account = entered.visit, entered.account
        assert visit is not None
        self.pseudonyms.entered(account)
        if self._parts.provider is None or self._forwarding is not None:
            return self.front.open_visit(visit, account, entered.t_ns)
        return self._paying().open_visit(visit, account, entered.t_ns)

    def priced(self, receipt: Receipt) -> PricedReceipt:
        """A receipt at the prices that held when things were taken."""
        return self.prices.priced(receipt, member=self._is_member(receipt.account))

    def post(self, priced: PricedReceipt) -> bool:
        """Record a receipt; the errands settle it and hand it out. Returns whether it is new.

        Raises:
            IdempotencyConflict, EntryError: as `Ledger.post_receipt`.
        """
        receipt = priced.receipt
        if self._parts.provider is None or self._forwarding is not None:
            is_new = self.front.post_receipt(receipt, priced.discounts)
        else:
            is_new = self._paying().posted(receipt, priced.discounts)
        self.ended(receipt)
        self.errands.wake()
        return is_new

    def ended(self, receipt: Receipt) -> None:
        """A visit has its receipt: its customer's next visit gets another name."""
        self.pseudonyms.left(receipt.account)
        self.baskets.forget(receipt.visit)
        if self._authorisations is not None:
            self._authorisations.forget(receipt.visit)

    # ---- errands -----------------------------------------------------------------------------------------------------

    def _errands(self) -> Iterator[Errand]:
        def errand(
            name: str, work: Callable[[], str], pause_max_s: float = PAUSE_MAX_S, every_s: float = LOOK_EVERY_S
        ) -> Errand:
            return Errand(
                name, work, every_s=every_s, pause_max_s=pause_max_s, monotonic_s=self._around.monotonic_s,
                report=self._around.report,
            )  # fmt: skip

        if self._forwarding is not None:
            yield errand("books", self._forward)
        if not self._around.fresh:
            yield errand("decisions", self._take_effect)
        if self._parts.provider is not None:
            yield errand("payments", self._settle)
            if self._forwarding is not None:
                yield errand("debtors", self._read_debtors, every_s=DEBTORS_EVERY_S)
        yield errand("receipts", self._issue)
        if self.delivers:
            yield errand("mail", self._mail, MAIL_PAUSE_MAX_S)
        if self._parts.checkpoints is not None:
            yield errand("checkpoints", self._note, every_s=self._parts.checkpoints_every_s)
        if not self._around.fresh:
            yield errand("retention", self._forget, every_s=FORGET_EVERY_S)
            yield errand("erasures", self._erase)

    def do_errands(self) -> None:
        """Do what is due now, in the calling thread, unless the errands have threads of their own."""
        if not self._around.threads:
            self.errands.do_all()

    def _forward(self) -> str:
        """Post in the books on the server what was posted in the store."""
        assert self._forwarding is not None
        return self._forwarding.work(lambda: self.checkout, self._around.now_ns())

    def _read_debtors(self) -> str:
        """Read from the books on the server who may not come in until they have paid."""
        self._debtors.read(self.books, self._paying().outstanding())
        return ""

    def _take_effect(self) -> str:
        """Let decisions of people take effect that are due, also while no console runs."""
        if now_ns := self._around.now_ns():
            if self._proposals is None:
                self._proposals = Proposals(self.books, self.store)
            if self._proposals.apply_due(now_ns):
                self.errands.wake()
        return ""

    def _settle(self) -> str:
        """Settle what was billed or decided since the last look, and now and then all that is left open."""
        checkout, now_ns = self._paying(), self._around.now_ns()
        recovers = self._waits_for_answer or self._around.monotonic_s() >= self._recover_s
        if self._settled_seq is None:
            self._settled_seq = self.books.head().seq
        while rows := self._rows_after(self._settled_seq):
            for row in rows:
                # While the provider is away, one question at a time; what is skipped here is recovered.
                if row.kind in CHARGING and not self._waits_for_answer:
                    self._settle_visit(row.visit, max(row.t_ns, now_ns))
            self._settled_seq = rows[-1].seq
        if recovers and now_ns:
            self._recover_s = self._around.monotonic_s() + RECOVER_EVERY_S
            payments = checkout.recover(now_ns)
            self._waits_for_answer = any(payment.status == "pending" for payment in payments)
            for payment in payments:
                self._report_person(payment)
        return "the payment provider gives no answer" if self._waits_for_answer else ""

    def _settle_visit(self, visit: str, t_ns: int) -> None:
        payment = self._paying().settle(visit, t_ns)
        self._report_person(payment)
        # In a simulation nothing asks again before the end of the day.
        self._waits_for_answer = payment.status == "pending" and not self._around.fresh

    def _report_person(self, payment: Payment) -> None:
        """Report once that a payment waits for a person."""
        if payment.status == "person" and payment.visit not in self._for_person:
            self._for_person.add(payment.visit)
            self._around.report(f"visit {payment.visit}: a person has to look at its payment: {payment.reason}")

    def _issue(self) -> str:
        """Write the receipts that were posted, or changed by a decision, since the last look, and note their mails."""
        if isinstance(self.decisions, RemoteDecisions):
            self.decisions.look()
        position = self._around.folder / ISSUED_FILE
        if self._issued_seq is None:
            self._issued_seq = read_position(position, self.books.head().seq)
        seller = self._parts.retailer.brand if self._parts.retailer is not None else None
        while rows := self._rows_after(self._issued_seq):
            for row in rows:
                if row.kind in CHARGING:
                    document = ReceiptDocument.of(self.books, self.store, row.visit, seller)
                    if document is not None:
                        self._receipts.write(document)
                        if self._parts.mailer is not None:
                            self._sending().due(row.visit, row.t_ns)
            self._issued_seq = rows[-1].seq
            if not self._around.fresh:
                keep_position(position, self._issued_seq, durable=False)
        return ""

    def _mail(self) -> str:
        delivery = self._sending().deliver(self._around.now_ns())
        self.n_mailed += delivery.sent
        return f"{delivery.waiting} receipts wait for the mail server" if delivery.waiting else ""

    def _note(self) -> str:
        """Sign the newest entry. Raises LedgerError where the books lack what an earlier checkpoint states."""
        assert self._parts.checkpoints is not None
        if now_ns := self._around.now_ns():
            self._parts.checkpoints(self.books).write(now_ns)
        return ""

    def _forget(self) -> str:
        """Unlink the visits that are older than the store's policy, and remove files that are past their age limit."""
        if now_ns := (self._around.dated_ns or self._around.now_ns)():
            unlink_due(self.store, self.books, now_ns)
            kept = Kept(self._around.folder, self.books, self.evidence, in_use=True)
            found = drop_old(self.store, self._parts.retention, kept, now_ns)
            if found:
                self._around.report("retention: removed " + ", ".join(f"{n} of {name}" for name, n in found.items()))
        return ""

    def _erase(self) -> str:
        """Forget the people who asked for it."""
        now_ns = self._around.now_ns()
        return self.erasing.work(now_ns) if self.erasing is not None and now_ns else ""

    def take_erased(self) -> Names | None:
        """Names that were erased and that the engine may still hold; for its thread."""
        return None if self.erasing is None else self.erasing.take()

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """The books where money is booked, then those in the store. Raises LedgerError as `books` does."""
        return (self.front,) if self._forwarding is None else (self.books, self.front)

    def _sending(self) -> Mailer:
        if self._mailer is None:
            assert self._parts.mailer is not None
            self._mailer = self._parts.mailer(self.books)
        return self._mailer

    def _rows_after(self, seq: int) -> list[EntryRow]:
        return self.books.rows_after(seq, ROWS_AT_ONCE)[0]

    # ---- the end -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the errands in threads until the block ends."""
        try:
            if self._around.threads:
                with self.errands.running(self._around.wait):
                    yield
            else:
                yield
        finally:
            if self._moments is not None:
                self._moments.close()
                self._moments = None
            if self._asking is not None:
                self._asking.shutdown(wait=False, cancel_futures=True)

    def reread(self) -> list[str]:
        """Read the files of other programs again now, changed or not. Returns lines for the operator."""
        for file in self.watched:
            file.reread()
        return [file.fault or f"{file.path} was read again" for file in self.watched]

    def status(self) -> dict[str, Any]:
        """State as plain data, for the operator: what waits for what, and decisions at gates by reason."""
        n_waiting = 0 if self._forwarding is None else self._forwarding.n_waiting
        return {
            "waits_for": self.errands.waiting(), "waited_s": self.errands.waited_s(self._around.monotonic_s()),
            "not_in_books_yet": n_waiting, "gates": dict(self.keeper.counts),
            "unreadable": {file.path.name: file.fault for file in self.watched if file.content() is None or file.fault},
            "erasures": {} if self.erasing is None else dict(self.erasing.status()),
        }  # fmt: skip


def _changed(
    now: Mapping[str, tuple[Basket, ...]], shown: dict[str, tuple[Basket, ...]]
) -> dict[str, tuple[Basket, ...]]:
    """By place, the baskets that differ from those that are shown there; from now on they are."""
    changed = {place: baskets for place, baskets in now.items() if shown.get(place, ()) != baskets}
    shown.update(changed)
    return changed
