"""Shipping: a store's rows to the chain's book, through lost connections, for as long as the store lives."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from fusion.chain.book import ChainBook
from fusion.chain.streams import BATCH, ConnectionLost, Mark, Record, Source
from fusion.errors import FusionError, IdempotencyConflict, LedgerError
from fusion.money.retailers import Retailer
from fusion.store.models import Store

# Pause after a lost connection: doubles from the first to the second.
BACKOFF_S = (0.5, 30.0)
# A shipper closes a connection after the first of these idle times, and asks for the marks again after the second: a
# chain's book that was restored from a backup holds fewer rows than before.
IDLE_MAX_S, ASK_AGAIN_S = 60.0, 3600.0


class Stop(Protocol):
    """A request to end, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the end was requested."""
        ...

    def wait(self, timeout: float) -> object:
        """Wait for the request for some seconds."""
        ...


class Shipper:
    """Brings a store's rows to the chain's book.

    Holds one batch in memory. The store's own process neither knows of the shipper nor waits for it.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        book: ChainBook,
        *,
        retailer: Retailer | None = None,
        batch: int = BATCH,
        report: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Prepare to ship.

        Args:
            store: whose rows they are.
            sources: its streams.
            book: where to.
            retailer: the store's retailer; None keeps the one that the book holds.
            batch: rows of a transaction, at least 1.
            report: called with a line for each stream that was shipped and each pause.
            warn: called with a line where the connection's role may write the rows of other stores as well.

        Raises:
            FusionError: batch is less than 1.
        """
        if batch < 1:
            raise FusionError(f"batch: want at least one row, got {batch}")
        self._store, self._sources, self._book, self._retailer = store, tuple(sources), book, retailer
        self._batch, self._report, self._warn = batch, report, warn
        # The connection on which the store was registered, and the marks that were read since.
        self._session: int | None = None
        self._marks: dict[str, int] = {}
        self._used_book = False
        # Spreads the attempts of thousands of shippers after an outage.
        self._jitter = random.Random(store.id)

    def ship(self) -> dict[str, int]:
        """Ship everything that is there now. Returns the number of rows sent, by stream.

        Raises:
            IdempotencyConflict: the store and the chain's book hold different rows under one number.
            LedgerError: the store holds fewer rows than the chain's book.
            ConnectionLost: what was sent so far stays; call again.
        """
        self._used_book = False
        if self._book.session != self._session:
            self._marks.clear()  # the connection was lost, and perhaps rows with it
        sent, conflict = dict[str, int](), None
        for source in self._sources:
            try:
                sent[source.stream] = self._ship(source)
            except IdempotencyConflict as error:
                # One poisoned stream holds up no other.
                conflict = conflict or error
        if conflict is not None:
            raise conflict
        return sent

    def _ship(self, source: Source) -> int:
        # The book is asked only where the store has new rows: most of thousands of shippers are idle.
        held = self._marks.pop(source.stream, None)
        if held is not None and held == source.newest():
            self._marks[source.stream] = held
            return 0
        self._used_book = True
        if self._book.session is None or self._book.session != self._session:
            self._book.register(self._store, self._retailer)
            role = "" if self._session is not None else self._book.unbounded_role()
            if role:
                self._warn(f"{self._store.id}: {role!r} may write rows of every store; see `fusion chain-roles`")
            self._marks.clear()
            self._session = self._book.session
        store, n_sent = self._store.id, 0
        mark = begin = self._book.mark(store, source)
        while True:
            # The first batch repeats the mark's own row, to check that the store still holds the same one.
            repeats = n_sent == 0 and mark.seq > 0
            rows = source.after(mark.seq - repeats, self._batch + repeats)
            if repeats:
                self._check_mark(source, mark, rows)
                rows = rows[1:]
            if not rows:
                break
            mark = self._book.add(store, source, rows)
            n_sent += len(rows)
        self._marks[source.stream] = mark.seq
        if n_sent:
            self._report(f"{store}: {source.stream} {begin.seq + 1} to {mark.seq}")
        return n_sent

    def _check_mark(self, source: Source, mark: Mark, rows: Sequence[Record]) -> None:
        """Check that the first row of the store is the mark's."""
        where = f"{self._store.id}: {source.stream} {mark.seq}"
        if not rows or rows[0].seq != mark.seq:
            got = f"row {rows[0].seq}" if rows else "an earlier end"
            raise LedgerError(f"{where}: want the row that the chain's book holds, got {got}")
        if rows[0].hash != mark.hash:
            got = rows[0].hash.hex()[:16]
            raise IdempotencyConflict(f"{where}: the chain's book holds {mark.hash.hex()[:16]}, the store {got}")

    def disconnect(self) -> None:
        """Close the book's connection. The marks stay known until the next one."""
        self._book.close()
        self._session = None

    def run(
        self,
        *,
        follow: bool = False,
        every_s: float = 1.0,
        patience_s: float | None = None,
        stop: Stop | None = None,
        wait: Callable[[float], object] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> dict[str, int]:
        """Ship until everything is there, or, with `follow`, until `stop` is set; retry after lost connections.

        Args:
            follow: keep looking for new rows.
            every_s: how often to look for new rows in the store. The book is asked where there are some, and once in
                `ASK_AGAIN_S`; a connection that was idle for `IDLE_MAX_S` is closed.
            patience_s: how long a connection may stay away before `ConnectionLost` is raised; None: for ever.
            stop: ends the run.
            wait: waits for some seconds; by default for `stop`.
            clock_s: a clock in seconds.

        Returns:
            The number of rows sent in all, by stream.

        Raises:
            FusionError: every_s is not a positive time.
            IdempotencyConflict: as for `ship`, without `follow`; with it, that is reported and tried again.
            LedgerError: as for `ship`.
        """
        if not 0 < every_s < math.inf:
            raise FusionError(f"every_s: want more than 0 seconds, got {every_s}")
        stop = stop or threading.Event()
        wait = wait or stop.wait
        total = Counter[str]()
        backoff_s, lost_since_s, used_s = BACKOFF_S[0], None, clock_s()
        while not stop.is_set():
            try:
                total.update(self.ship())
            except (ConnectionLost, IdempotencyConflict) as error:
                # Another row under the store's name is set aside by the owner of the chain's book; then it continues.
                if isinstance(error, IdempotencyConflict) and not follow:
                    raise
                now_s = clock_s()
                lost_since_s = now_s if lost_since_s is None else lost_since_s
                if patience_s is not None and now_s - lost_since_s >= patience_s:
                    raise
                pause_s = backoff_s * self._jitter.uniform(0.5, 1.0)
                self._report(f"{self._store.id}: {error}; again in {pause_s:.1f} s")
                wait(pause_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])
                continue
            if lost_since_s is not None:
                self._report(f"{self._store.id}: connected again")
            backoff_s, lost_since_s = BACKOFF_S[0], None
            if not follow:
                break
            now_s = clock_s()
            if self._used_book:
                used_s = now_s
            elif now_s - used_s >= ASK_AGAIN_S:
                self._marks.clear()
            elif now_s - used_s >= IDLE_MAX_S:
                self.disconnect()
            wait(every_s)
        return dict(total)
