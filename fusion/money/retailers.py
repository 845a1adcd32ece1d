"""One installation, several retailers and brands: separate books, the platform's fee, a statement for every month.

`chain.toml` names the retailers and their store folders. Each store has books of its own; nothing here moves money
between them. A statement is made from a store's journal alone and adds up to it: opening balance plus what the month
moved is the closing balance, account by account.
"""

from __future__ import annotations

import calendar
import datetime
import os
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, model_validator

from fusion.errors import ConfigError, LedgerError
from fusion.money.ledger import Entry, Ledger, Posting, sales_by_rate
from fusion.store.models import Store
from fusion.store.values import Identifier, StrictModel, validation_faults

FEES, PAYABLE = "platform fees", "platform payable"


class Retailer(StrictModel):
    """Who sells, under what brand, and what the platform gets: a share of net revenue, or a sum per store and month."""

    id: Identifier
    name: Identifier
    brand: Identifier
    fee_share: float | None = Field(default=None, ge=0, le=100)
    fee_monthly: int | None = Field(default=None, ge=0, le=10**12)
    stores: tuple[Identifier, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_fee(self) -> Retailer:
        if self.fee_share is not None and self.fee_monthly is not None:
            raise ValueError("want fee_share (percent) or fee_monthly (minor units), got both")
        return self


class ServedStore(StrictModel):
    """Where a store's streams come from. `options` are those of the kind of source; see docs/chain.md."""

    store: Identifier
    source: Identifier
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)


class Serving(StrictModel):
    """How the stores are served: `python -m fusion serve`. Folders are relative to chain.toml.

    Without `source` only the stores that are listed are served; with it all, each from there unless it is listed.
    """

    out: Identifier = "serve"
    port: int = Field(default=9464, ge=0, le=65535)
    stores_per_process: int = Field(default=1, ge=1, le=64)
    snapshot_every_s: float = Field(default=5.0, ge=0.1, le=600.0)
    memory_max_mb: int = Field(default=2048, ge=128)
    # A store whose process dies so often within so long is parked.
    deaths_max: int = Field(default=5, ge=1)
    deaths_within_s: float = Field(default=120.0, gt=0.0)
    # Pauses between such deaths grow up to this.
    pause_max_s: float = Field(default=30.0, ge=0.0)
    # A change of the layout waits so long for the store to be empty.
    layout_wait_s: float = Field(default=600.0, ge=0.0)
    source: Identifier | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    store: tuple[ServedStore, ...] = ()


class _ChainToml(StrictModel):
    format_version: Literal[1]
    retailer: tuple[Retailer, ...] = Field(min_length=1)
    serve: Serving | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A month of one store's books. Amounts in minor units; balances by account, debits positive.

    Attributes:
        opening, moved, closing: by account; opening plus moved is closing.
        sales: by VAT rate, (net, VAT) of what was charged less what was reversed.
        captured, refunded: what the provider took from customers and gave back.
        n_receipts, n_decisions: entries of the month.
        fee: what the platform gets for the month.
    """

    retailer: str
    store: str
    month: str
    currency: str
    opening: dict[str, int]
    moved: dict[str, int]
    closing: dict[str, int]
    sales: dict[str, tuple[int, int]]
    captured: int
    refunded: int
    n_receipts: int
    n_decisions: int
    fee: int

    @property
    def net_revenue(self) -> int:
        return sum(net for net, _ in self.sales.values())

    def text(self, store: Store) -> str:
        """The statement as people read it."""
        price = store.price_text
        rows = [("sales, net " + rate, net) for rate, (net, _) in self.sales.items()]
        rows += [("VAT " + rate, vat) for rate, (_, vat) in self.sales.items()]
        rows += [("captured", self.captured), ("refunded", -self.refunded), ("platform fee", -self.fee)]
        counts = f"{self.n_receipts} receipts, {self.n_decisions} decisions"
        lines = [f"{self.retailer}, {store.name}, {self.month}: {counts}"]
        lines += [f"  {what:<24}{price(amount):>18}" for what, amount in rows]
        lines.append(f"  {'account':<24}{'opening':>18}{'moved':>18}{'closing':>18}")
        for account in sorted(self.closing.keys() | self.opening.keys() | self.moved.keys()):
            amounts = (side.get(account, 0) for side in (self.opening, self.moved, self.closing))
            lines.append(f"  {account:<24}" + "".join(f"{price(amount):>18}" for amount in amounts))
        return "\n".join(lines)


class Chain:
    """The retailers of an installation and their stores.

    Attributes:
        retailers: in the order of the file.
        stores: by retailer, in the order of the file.
        folders: of the stores, by their ids.
        serving: how they are served; None where the file does not say.
    """

    def __init__(
        self,
        retailers: tuple[Retailer, ...],
        stores: dict[str, tuple[Store, ...]],
        folders: dict[str, Path] | None = None,
        serving: Serving | None = None,
    ) -> None:
        self.retailers, self.stores = retailers, stores
        self.folders, self.serving = folders or {}, serving

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Chain:
        """Read chain.toml and the store folders that it names, relative to itself.

        Raises:
            ConfigError: with every fault of every file.
        """
        path = Path(path)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
            chain = _ChainToml.model_validate(raw)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path.name}: want TOML, got: {error}") from None
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path.name}: "))) from None
        faults: list[str] = []
        stores: dict[str, tuple[Store, ...]] = {}
        folders: dict[str, Path] = {}
        for retailer in chain.retailer:
            found = []
            for folder in retailer.stores:
                try:
                    found.append(Store.load(path.parent / folder))
                    folders[found[-1].id] = path.parent / folder
                except ConfigError as error:
                    faults += error.faults
            stores[retailer.id] = tuple(found)
        named = {folder for retailer in chain.retailer for folder in retailer.stores}
        for i, one in enumerate(chain.serve.store if chain.serve else ()):
            if one.store not in named:
                faults.append(f"{path.name}: serve.store[{i}]: want a store of a retailer, got {one.store!r}")
        retailers = Counter(retailer.id for retailer in chain.retailer)
        ids = Counter(store.id for found in stores.values() for store in found)
        for what, counted in (("retailer", retailers), ("store", ids)):
            many = [(one, n) for one, n in counted.items() if n > 1]
            faults += [f"{path.name}: id of a {what}: want each once, got {one!r} {n} times" for one, n in many]
        if faults:
            raise ConfigError(faults)
        return cls(chain.retailer, stores, folders, chain.serve)

    def retailer_of(self, store: Store) -> Retailer:
        """Whose store it is. Raises KeyError."""
        for retailer in self.retailers:
            if any(one.id == store.id for one in self.stores[retailer.id]):
                return retailer
        raise KeyError(store.id)

    def books(self, where: str | os.PathLike[str]) -> Iterator[tuple[Retailer, Store, Ledger]]:
        """Every store's books, one after another, each closed when the next is asked for.

        Args:
            where: folder that holds `STORE.sqlite` for every store; or a PostgreSQL URL followed by `#` and a folder
                for the vaults.
        """
        for retailer in self.retailers:
            for store in self.stores[retailer.id]:
                with open_books_of(store, where) as ledger:
                    yield retailer, store, ledger


def open_books_of(store: Store, where: str | os.PathLike[str]) -> Ledger:
    """One store's books of an installation; `where` as in `Chain.books`."""
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        url, _, folder = text.partition("#")
        if not folder:
            raise LedgerError("want postgresql://...#FOLDER, the folder for the vaults, got none")
        return Ledger.open(url, store, vault=Path(folder) / f"{_file(store.id)}.vault.sqlite")
    return Ledger.open(Path(text) / f"{_file(store.id)}.sqlite", store)


def _file(store: str) -> str:
    if not store.replace("_", "").replace("-", "").isalnum():
        raise LedgerError(f"store: want an id of letters, digits, - and _ to name files by, got {store!r}")
    return store


def statement(ledger: Ledger, store: Store, retailer: Retailer, month: str) -> Statement:
    """What a month (`2026-03`, on the store's clock) did to a store's books; posts nothing."""
    begin_ns, end_ns = _span(month, store)
    opening = Counter(ledger.balances(begin_ns).get(store.currency, {}))
    moved = Counter[str]()
    captured = refunded = 0
    entries = ledger.entries_between(begin_ns, end_ns)
    kinds = Counter(entry.kind.split()[0] for entry in entries)
    legs = [leg for entry in entries for leg in entry.postings]
    for leg in legs:
        moved[leg.account] += leg.amount
        if leg.account == "provider":
            captured += max(leg.amount, 0)
            refunded += max(-leg.amount, 0)
    sales = sales_by_rate(legs)
    return Statement(
        retailer=retailer.name,
        store=store.id,
        month=month,
        currency=store.currency,
        opening=_some(opening),
        moved=_some(moved),
        closing={one: amount for one in {**opening, **moved} if (amount := opening[one] + moved[one])},
        sales=sales,
        captured=captured,
        refunded=refunded,
        n_receipts=kinds["receipt"],
        n_decisions=kinds["decision"],
        fee=_fee(retailer, sum(net for net, _ in sales.values())),
    )


def post_fee(ledger: Ledger, store: Store, retailer: Retailer, month: str) -> int:
    """Post the platform's fee for a month, or what has changed about it since; returns what was posted now.

    Saying it again posts nothing. Entries that reach the books late change the fee by a further entry.
    """
    due = statement(ledger, store, retailer, month).fee
    subject = f"month {month}"
    before: list[Entry] = ledger.entries(subject)
    posted = sum(leg.amount for entry in before for leg in entry.postings if leg.account == FEES)
    if due == posted:
        return 0
    # The last instant of the month, so that the month's own statement shows it.
    t_ns = _span(month, store)[1] - 1
    legs = (Posting(FEES, store.currency, due - posted), Posting(PAYABLE, store.currency, posted - due))
    ledger.record(subject, f"fee {len(before) + 1}", "platform fee", t_ns, {"retailer": retailer.id, "fee": due}, legs)
    return due - posted


def _fee(retailer: Retailer, net_revenue: int) -> int:
    """Halves up; a month in which more was reversed than sold costs nothing."""
    if retailer.fee_share is None:
        return retailer.fee_monthly or 0
    return max(int(net_revenue * Fraction(str(retailer.fee_share)) / 100 + Fraction(1, 2)), 0)


def _span(month: str, store: Store) -> tuple[int, int]:
    """First instant of a month and of the next one, on the store's clock, UTC nanoseconds."""
    try:
        first = datetime.date.fromisoformat(f"{month}-01")
    except ValueError:
        raise LedgerError(f"month: want one such as 2026-03, got {month!r}") from None
    after = first + datetime.timedelta(days=calendar.monthrange(first.year, first.month)[1])
    zone = ZoneInfo(store.timezone)
    begin, end = (datetime.datetime.combine(day, datetime.time(), zone) for day in (first, after))
    return int(begin.timestamp()) * 10**9, int(end.timestamp()) * 10**9


def _some(amounts: Counter[str]) -> dict[str, int]:
    return {account: amount for account, amount in amounts.items() if amount}
