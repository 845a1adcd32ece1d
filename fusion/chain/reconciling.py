"""Reconciling: every row of a store compared with the chain's book, both ways, and every hash checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fusion.chain.book import NAMED_MAX, ChainBook
from fusion.chain.schema import TABLE_OF_STREAM
from fusion.chain.streams import BATCH, Mark, Record, Source, difference, digest
from fusion.live import outbox
from fusion.money.retailers import Retailer
from fusion.store.models import Store

_UNSHIPPED = "not shipped yet"
# Below every number that a row can have. Databases from before the tables refused them may hold numbers below 1, which
# no store ships and which the views count.
_BELOW_ALL = -(2**63) - 1
_NONE = Mark(0, b"")


@dataclass
class Side:
    """One side of a comparison, walked row by row.

    Attributes:
        name: "store" or "chain's book".
        n_rows: rows so far.
        newest: the newest row so far.
        head: the newest of those that are shipped.
        sums: ledger only: balance of each (currency, account) over the rows that are shipped.
    """

    name: str
    n_rows: int = 0
    newest: Mark = _NONE
    head: Mark = _NONE
    sums: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def empty(cls, name: str, genesis: bytes) -> Side:
        """A side before its first row."""
        return cls(name, newest=Mark(0, genesis), head=Mark(0, genesis))

    def add(self, stream: str, row: Record, shipped: bool) -> bool:
        """Count a row; False where its hash does not follow from the row before."""
        follows = row.seq == self.newest.seq + 1 and digest(stream, self.newest.hash, row) == row.hash
        self.newest = Mark(row.seq, row.hash)
        self.n_rows += 1
        if shipped:
            self.head = self.newest
            for posting in row.postings:
                self.sums[posting.currency, posting.account] += posting.amount
        return follows

    def balances(self) -> dict[tuple[str, str], int]:
        """The sums that are not zero."""
        return {name: amount for name, amount in self.sums.items() if amount}


@dataclass
class Ranges:
    """Numbers of rows with one fault: how many, and their first and last numbers, neighbours as one range."""

    count: int = 0
    spans: list[list[int]] = field(default_factory=list)

    def add(self, seq: int) -> None:
        """Note a row; spans beyond `NAMED_MAX` are only counted."""
        self.count += 1
        if self.spans and self.spans[-1][1] == seq - 1:
            self.spans[-1][1] = seq
        elif len(self.spans) <= NAMED_MAX:
            self.spans.append([seq, seq])

    def text(self) -> str:
        """Such as "3 (4 to 5, 9)"."""
        named = [f"{a}" if a == b else f"{a} to {b}" for a, b in self.spans[:NAMED_MAX]]
        more = ", ..." if len(self.spans) > NAMED_MAX else ""
        return f"{self.count} ({', '.join(named)}{more})"


@dataclass
class Agreement:
    """One stream of a store, compared row by row.

    Attributes:
        stream: its name.
        compared: whether the store's rows were at hand.
        all_shipped: whether rows that are not shipped yet are a disagreement too.
        store, chain: the two sides.
        ranges: rows that do not agree, by fault: `missing` and `not shipped yet` in the chain's book, `different`,
            `extra` in the chain's book.
        faults: the first of them in words, and everything else that is wrong.
    """

    stream: str
    compared: bool = True
    all_shipped: bool = False
    store: Side = field(default_factory=lambda: Side("store"))
    chain: Side = field(default_factory=lambda: Side("chain's book"))
    ranges: dict[str, Ranges] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether both sides hold the same rows, apart from those that are not shipped yet."""
        wrong = self.ranges.keys() - (set() if self.all_shipped else {_UNSHIPPED})
        alike = self.store.head == self.chain.head and self.store.balances() == self.chain.balances()
        return self.compared and alike and not wrong and not self.faults

    def note(self, fault: str, seq: int) -> None:
        """Note that one row is wrong."""
        self.ranges.setdefault(fault, Ranges()).add(seq)

    def describe(self, fault: str) -> None:
        """Keep a fault in words, up to `NAMED_MAX` of them."""
        if len(self.faults) < NAMED_MAX:
            self.faults.append(fault)

    def count(self, side: Side, row: Record, shipped: bool = True) -> None:
        """Count a row on its side, and check its hash."""
        before = side.newest.seq
        if not side.add(self.stream, row, shipped):
            self.describe(f"{self.stream} {row.seq}: its hash does not follow from row {before} in the {side.name}")

    def text(self) -> str:
        """The comparison as people read it."""
        if not self.compared:
            why = " (no --outbox)" if self.stream in outbox.STREAMS else ""
            return f"{self.stream}: {self.chain.n_rows} rows in the chain's book, not compared{why}"
        head = f"{self.stream}: {self.store.n_rows} rows in the store, {self.chain.n_rows} in the chain's book"
        if self.agrees:
            sums = f", {len(self.store.balances())} accounts agree" if self.stream == "ledger" else ""
            late = f"; {self.ranges[_UNSHIPPED].count} rows not shipped yet" if _UNSHIPPED in self.ranges else ""
            return f"{head}, head {self.store.head.hash.hex()[:16]}{sums}{late}"
        lines = [head]
        lines += [f"  {fault}: {ranges.text()}" for fault, ranges in self.ranges.items()]
        lines += [f"  {fault}" for fault in self.faults]
        for currency, account in sorted(self.store.sums.keys() | self.chain.sums.keys()):
            a, b = self.store.sums[currency, account], self.chain.sums[currency, account]
            if a != b:
                lines.append(f"  {account}: {a} {currency} in the store, {b} in the chain's book")
        return "\n".join(lines)


def reconcile(
    store: Store,
    sources: Sequence[Source],
    book: ChainBook,
    batch: int = BATCH,
    *,
    retailer: Retailer | None = None,
    all_shipped: bool = False,
) -> list[Agreement]:
    """Compare every row of a store with the chain's book, both ways, and check every hash.

    Rows that the store adds while this runs are left out. Holds two batches in memory.

    Args:
        store: whose rows they are.
        sources: its streams.
        book: the chain's book.
        batch: rows that are read at once.
        retailer: the retailer that the chain's book should name; None accepts any.
        all_shipped: whether rows beyond the mark, which are not shipped yet, are a disagreement too.

    Returns:
        A comparison for each source, and one for each other stream that has rows in the chain's book.

    Raises:
        ConnectionLost, LedgerError: one of the two sides cannot be read.
    """
    agreements = [_compared(store.id, source, book, batch, all_shipped) for source in sources]
    if agreements:
        faults = book.schema_faults() + book.store_faults(store, retailer)
        faults += [f"ledger {entry}: postings in the chain's book, and no entry" for entry in book.orphans(store.id)]
        agreements[0].faults[:0] = faults
    for stream in sorted(TABLE_OF_STREAM.keys() - {source.stream for source in sources}):
        n_rows = book.count(store.id, stream)
        if n_rows:
            agreements.append(Agreement(stream, compared=False, chain=Side("chain's book", n_rows)))
    return agreements


def _compared(store: str, source: Source, book: ChainBook, batch: int, all_shipped: bool) -> Agreement:
    stream, genesis = source.stream, source.genesis
    sides = Side.empty("store", genesis), Side.empty("chain's book", genesis)
    result = Agreement(stream, all_shipped=all_shipped, store=sides[0], chain=sides[1])
    # The store holds everything that the chain's book holds when its end is read, or a moment later. Rows that reach
    # the store in between are left out on both sides; beyond them, the chain's book can only hold rows that the store
    # does not.
    store_end = source.newest()
    mark, end = book.end(store, source)
    later = source.newest()
    in_chain = (
        row
        for row in _read(lambda seq: book.after(store, stream, seq, batch), _BELOW_ALL, end.seq)
        if row.seq <= store_end or row.seq > later
    )
    in_store = _read(lambda seq: source.after(seq, batch), -1, store_end)
    if mark != end:
        result.describe(f"{stream}: the mark is at row {mark.seq}, the newest row in the chain's book is {end.seq}")
    ours, theirs = next(in_store, None), next(in_chain, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours.seq < theirs.seq):
            assert ours is not None
            shipped = ours.seq <= mark.seq
            result.note("missing" if shipped else _UNSHIPPED, ours.seq)
            result.count(result.store, ours, shipped)
            ours = next(in_store, None)
        elif ours is None or theirs.seq < ours.seq:
            result.note("extra", theirs.seq)
            result.count(result.chain, theirs)
            theirs = next(in_chain, None)
        else:
            if ours != theirs:
                result.note("different", ours.seq)
                result.describe(f"{stream} {ours.seq}: {difference(stream, theirs, ours)}")
            result.count(result.store, ours)
            result.count(result.chain, theirs)
            ours, theirs = next(in_store, None), next(in_chain, None)
    return result


def _read(after: Callable[[int], list[Record]], seq: int, end: int) -> Iterator[Record]:
    while rows := after(seq):
        for row in rows:
            if row.seq > end:
                return
            yield row
        seq = rows[-1].seq
