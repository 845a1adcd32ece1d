"""From an engine's results to a store's books: visits, receipts with their doubts, evidence, goods for the chain."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from fusion.engine import Engine
from fusion.errors import EntryError, IdempotencyConflict
from fusion.files.growing import GrowingLines
from fusion.files.results import evidence_row
from fusion.goods.journal import Transfer, cart
from fusion.live.camera_history import FILE as CAMERAS
from fusion.live.camera_history import CameraHistory
from fusion.live.config import ServeConfig
from fusion.live.gaps import Gaps
from fusion.live.outbox import Outbox
from fusion.live.patience import Patience
from fusion.money.ledger import unbookable
from fusion.money.prices import PricedReceipt
from fusion.money.visits import OpenVisit
from fusion.observations import GateScan
from fusion.results import Evidence, PersonEntered, Reason, ReasonKind, Receipt, ReceiptStatus, Warning, WarningKind
from fusion.store.models import Store
from fusion.till.opening import opened
from fusion.till.till import Around, Till

T = TypeVar("T")

_OF_CORRECTIONS = (WarningKind.CAMERA_CORRECTED, WarningKind.CAMERA_NOT_CORRECTED)

# A visit that is in the books but not in the resumed engine has this long to reappear in data that are sent again.
REAPPEAR_S = 5.0


class Billed(NamedTuple):
    """What was posted for a visit.

    Attributes:
        receipt: at the prices that hold for its customer.
        at_list: the same at list prices, as early receipts are.
        is_new: whether the books did not hold one before.
    """

    receipt: Receipt
    at_list: Receipt
    is_new: bool


class Bookkeeper:
    """Enters visits and receipts into the ledger; entries from before a restart are never replaced.

    Results may arrive a second time after a restart. The ledger ignores duplicates; a receipt that differs the second
    time leaves the first one standing and raises a doubt about everybody who was in the store at that time.

    Attributes:
        till: prices visits and takes payments for them.
        ledger: the books in the store that this process writes; those on a server follow them.
        outbox: goods and warnings for the chain.
        receipts: receipts that this process has posted, by status.
        n_billed_before: receipts that differed from those that the books already held from before a restart.
    """

    def __init__(
        self,
        config: ServeConfig,
        till: Till,
        outbox: Outbox,
        evidence: GrowingLines,
        cameras: CameraHistory,
        gaps: Gaps,
        report: Callable[[str], object],
        patience: Patience,
    ) -> None:
        """Use open books.

        Args:
            config: of the store.
            till: its till.
            outbox: its outbox.
            evidence: file for the evidence of receipts in review.
            cameras: what became of cameras that were moved.
            gaps: lost data, and the doubts that they raise.
            report: takes messages for the operator.
            patience: waits where books or files cannot be written.
        """
        self._patience = patience
        self.till, self.ledger, self.outbox = till, till.front, outbox
        self.receipts: Counter[str] = Counter()
        self.n_billed_before = 0
        self._evidence, self._cameras, self._gaps, self._report = evidence, cameras, gaps, report
        self._currency = config.store.currency
        self._goods_remembered_ns = round(config.goods_remembered_s * 1e9)
        self._missing: dict[str, OpenVisit] = {}
        self._n_shipped = 0  # transfers of the engine's journal that the outbox holds

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, config: ServeConfig, gaps: Gaps, around: Around, patience: Patience
    ) -> Iterator[Bookkeeper]:
        """Open a store's till and the files in its folder, until the block ends. Raises FusionError."""
        folder, store = config.folder, config.store
        with contextlib.ExitStack() as stack:
            till = stack.enter_context(opened(config.till, store, around, config.retailer))
            outbox = stack.enter_context(Outbox(folder / "outbox.sqlite", store))
            evidence = stack.enter_context(contextlib.closing(GrowingLines(folder / "evidence.jsonl")))
            till.evidence = evidence
            cameras = CameraHistory(folder)
            yield cls(config, till, outbox, evidence, cameras, gaps, around.report, patience)

    def adopt(self, store: Store) -> None:
        """Use the prices and names of a changed store from now on."""
        self.till.adopt(store)
        self._currency = store.currency

    def _books(self, use: Callable[[], T]) -> T:
        """Read or write the books, and wait in place where that cannot be done now."""
        return self._patience.keep("books", use)

    # ---- visits ------------------------------------------------------------------------------------------------------

    def oldest_enter_ns(self, default_ns: int) -> int:
        """When the oldest open visit began; `default_ns` where none is open."""
        return min((visit.enter_ns for visit in self._books(self.ledger.open_visits)), default=default_ns)

    def enter(self, entered: PersonEntered) -> None:
        """Open a person's visit in the books."""
        visit = entered.visit
        if visit is None:
            return
        self._missing.pop(visit, None)
        try:
            if self._books(lambda: self.till.open_visit(entered)):
                return
            known = self._books(lambda: self.ledger.standing(visit))
            same_account = known is None or known.status != "open" or known.account == entered.account
        except IdempotencyConflict:
            same_account = False
        if not same_account:
            self._gaps.doubt(visit, ReasonKind.ACCOUNT_CHANGED)
            self._report(f"visit {visit}: had another account before the restart; goes to review")

    def doubt_open_visits(self, kind: ReasonKind) -> None:
        """Send the receipts of all open visits to review."""
        for visit in self._books(self.ledger.open_visits):
            self._gaps.doubt(visit.visit, kind)

    def review_open_visits(self, now_ns: int, kind: ReasonKind) -> None:
        """Put every open visit into review with an empty receipt, since it cannot be continued."""
        visits = self._books(self.ledger.open_visits)
        if visits:
            until_ns = max(now_ns, *(visit.enter_ns for visit in visits))
            self._books(lambda: self.ledger.review_open_visits(until_ns, Reason(kind)))
            self.receipts[ReceiptStatus.REVIEW] += len(visits)
        self._missing = {}

    def expect(self, engine: Engine) -> None:
        """Await open visits that a resumed engine does not know: they began after its snapshot."""
        known = set(engine.open_visits)
        visits = self._books(self.ledger.open_visits)
        self._missing = {visit.visit: visit for visit in visits if visit.visit not in known}

    def end(self, now_ns: int) -> None:
        """The data have ended: put what is still open into review."""
        self._books(lambda: self.ledger.review_open_visits(now_ns, Reason(ReasonKind.DATA_ENDED)))

    def review_missing(self, engine: Engine, *, ended: bool = False) -> None:
        """Put visits into review that have not reappeared after a restart, once they are overdue, or the data ended."""
        past_ns = engine.newest_ns - round(REAPPEAR_S * 1e9)
        due = [visit for visit in self._missing.values() if ended or visit.enter_ns < past_ns]
        for visit in due:
            del self._missing[visit.visit]
            if visit.visit in engine.open_visits:
                continue
            now_ns = max(engine.newest_ns, visit.enter_ns)
            receipt = Receipt(
                visit.visit, visit.account, visit.enter_ns, now_ns, now_ns, ReceiptStatus.REVIEW,
                (Reason(ReasonKind.RESTARTED),), self._currency, 0, (),
            )  # fmt: skip
            try:
                self._posted(PricedReceipt(receipt, ()))
            except IdempotencyConflict:
                continue
            self.receipts[ReceiptStatus.REVIEW] += 1
            self._report(f"visit {visit.visit}: has not reappeared after the restart; in review")

    def review_unseen(self, scan: GateScan) -> bool:
        """Put the visit of a scan into review that opened a gate, where the data of its person's way in are lost.

        Money may be held for that account, and nothing else will bill it. Returns whether it was put there now: not for
        staff, for a door that stands open, nor where the account's visit is known or this scan was put there before.
        """
        if scan.credential_type in ("staff", "open"):
            return False
        if any(visit.account == scan.account for visit in self._books(self.ledger.open_visits)):
            return False
        visit = f"unseen {scan.gate} {scan.t_ns}"
        self._books(lambda: self.ledger.open_visit(visit, scan.account, scan.t_ns))
        reasons = (Reason(ReasonKind.SCAN_UNBOUND, gate=scan.gate),)
        # All times are the scan's, so that a second process posts the same.
        receipt = Receipt(
            visit, scan.account, scan.t_ns, scan.t_ns, scan.t_ns, ReceiptStatus.REVIEW, reasons, self._currency, 0, ()
        )  # fmt: skip
        if not self._books(lambda: self.ledger.post_receipt(receipt)):
            return False
        self.receipts[ReceiptStatus.REVIEW] += 1
        self._report(f"visit {visit}: came in unseen while data were lost; in review")
        return True

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def bill(self, receipt: Receipt, evidence: Evidence | None, newest_ns: int) -> Billed:
        """Post a receipt, in review where a gap affects it.

        Args:
            receipt: of the engine.
            evidence: what it rests on, where the engine has that.
            newest_ns: newest data time.

        Returns:
            What was posted.
        """
        doubted = self.doubted(receipt)
        receipt = self._books(lambda: self.till.restrictions.judged(doubted))
        try:
            billed = self._post(receipt, newest_ns)
        except EntryError as error:
            receipt = unbookable(receipt, error)
            self._report(f"visit {receipt.visit}: {error}; goes to review")
            billed = self._post(receipt, newest_ns)
        self._gaps.forget_visit(receipt.visit)
        if not billed.is_new:
            return billed
        receipt = billed.receipt
        self.receipts[receipt.status] += 1
        if receipt.status == ReceiptStatus.REVIEW and evidence is not None:
            # The engine knows nothing of a gap, so its evidence lacks that reason, and may call the receipt settled.
            row = evidence_row(replace(evidence, status=receipt.status, reasons=receipt.reasons))
            line = json.dumps(row, separators=(",", ":"))
            self._patience.keep("evidence", lambda: self._evidence.add(line))
        return billed

    def doubted(self, receipt: Receipt) -> Receipt:
        """A receipt with the doubts that gaps in the data cast on it, of which the engine knows nothing."""
        doubts = self._gaps.reasons_to_review(receipt)
        if not doubts:
            return receipt
        return replace(receipt, status=ReceiptStatus.REVIEW, reasons=(*receipt.reasons, *doubts))

    def _post(self, receipt: Receipt, newest_ns: int) -> Billed:
        """Post a receipt unless the visit has one from before a restart."""
        priced = self._books(lambda: self.till.priced(receipt))
        try:
            return Billed(priced.receipt, receipt, self._posted(priced))
        except IdempotencyConflict:
            pass
        known = self._books(lambda: self.ledger.standing(receipt.visit))
        if known is not None and known.status == "open":
            # The books have this visit under another account, and nothing else will bill it.
            reasons = (Reason(ReasonKind.ACCOUNT_CHANGED),)
            receipt = replace(receipt, account=known.account, status=ReceiptStatus.REVIEW, reasons=reasons)
            return self._post(receipt, newest_ns)
        self.till.ended(receipt)
        self._report(f"visit {receipt.visit}: was billed before the restart; that receipt stands")
        self.n_billed_before += 1
        # Goods that this visit was billed for may now be attributed to another person who was in the store.
        end_ns = max(receipt.exit_ns, newest_ns)
        self.doubt_span(receipt.enter_ns or receipt.exit_ns, end_ns, ReasonKind.NEIGHBOUR_REBILLED)
        return Billed(priced.receipt, receipt, is_new=False)

    def _posted(self, priced: PricedReceipt) -> bool:
        return self._books(lambda: self.till.post(priced))

    def doubt_span(self, start_ns: int, end_ns: int, kind: ReasonKind) -> None:
        """Send every receipt to review that a span of data may affect."""
        message = self._gaps.add(start_ns, end_ns, kind)
        if message:
            self._report(message)

    # ---- the chain ---------------------------------------------------------------------------------------------------

    def ship_goods(self, engine: Engine, n_transfers: int | None = None) -> None:
        """Put the transfers of an engine's journal into the outbox that it does not hold yet.

        Args:
            engine: the engine.
            n_transfers: only so many from the journal's beginning, those that a snapshot holds; None for all.
        """
        new = engine.journal.since(self._n_shipped)
        if n_transfers is not None:
            new = new[: max(n_transfers - self._n_shipped, 0)]
        try:
            self._ship(new)
        except IdempotencyConflict:
            for transfer in new:
                try:
                    self._ship([transfer])
                except IdempotencyConflict as error:
                    self._report(f"outbox: {error}; the first one stands")
        self._n_shipped += len(new)

    def _ship(self, transfers: Sequence[Transfer]) -> None:
        self._patience.keep("outbox", lambda: self.outbox.keep(transfers))

    def warn(self, warning: Warning, engine: Engine) -> None:
        """Put a warning into the outbox, and what became of a camera into its history."""
        self._patience.keep("outbox", lambda: self.outbox.add(warning))
        if warning.kind in _OF_CORRECTIONS:
            self.note_cameras(engine)

    def note_cameras(self, engine: Engine) -> None:
        """Write down what became of cameras that were moved."""
        self._cameras.note(engine, lambda write: self._patience.keep(CAMERAS, write))

    def forget_goods(self, engine: Engine) -> None:
        """Drop from an engine's journal what the outbox holds and was billed long ago; snapshots would keep growing."""
        inside = {cart(visit) for visit in engine.open_visits}
        engine.journal.forget(self._n_shipped, engine.newest_ns - self._goods_remembered_ns, inside)
