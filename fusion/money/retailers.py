"""Several retailers and brands in one installation: `chain.toml` names them and their store folders.

Each store has books of its own; nothing here moves money between them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from fusion.errors import ConfigError, LedgerError
from fusion.money.ledger import Ledger
from fusion.store.models import Store
from fusion.store.toml_files import read_toml
from fusion.store.values import Identifier, StrictModel, validation_faults


class Retailer(StrictModel):
    """A seller: name, brand, stores, and the platform's fee, a share of net revenue or a sum per store and month."""

    id: Identifier
    name: Identifier
    brand: Identifier
    fee_share: float | None = Field(default=None, ge=0, le=100)
    fee_monthly: int | None = Field(default=None, ge=0, le=10**12)
    stores: tuple[Identifier, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_fee(self) -> Self:
        if self.fee_share is not None and self.fee_monthly is not None:
            raise ValueError("want fee_share (percent) or fee_monthly (minor units), got both")
        return self


class ServedStore(StrictModel):
    """Source of one store's streams. `options` depend on the kind of source; see docs/chain.md.

    `till` names its till.toml, where it is not that of all stores.
    """

    store: Identifier
    source: Identifier
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    till: Identifier | None = None


class Serving(StrictModel):
    """How `python -m fusion serve` serves the stores. Folders are relative to chain.toml.

    Without `source` only the listed stores are served; with it all are, from that source unless they are listed.
    """

    out: Identifier = "serve"
    port: int = Field(default=9464, ge=0, le=65535)
    # By default one, and several where Python runs without its lock; see `live.supervisor.stores_per_process`.
    stores_per_process: int | None = Field(default=None, ge=1, le=64)
    snapshot_every_s: float = Field(default=5.0, ge=0.1, le=600.0)
    memory_max_mb: int = Field(default=2048, ge=128)
    # A store is parked once its process has died this many times within this time.
    deaths_max: int = Field(default=5, ge=1)
    deaths_within_s: float = Field(default=120.0, gt=0.0)
    # Pauses between such deaths grow up to this.
    pause_max_s: float = Field(default=30.0, ge=0.0)
    # A change of the layout waits this long for the store to be empty.
    layout_wait_s: float = Field(default=600.0, ge=0.0)
    # Show receipts early: by default where a source is live.
    early: bool | None = None
    # How the stores take payments, admit customers and keep their books; see docs/money.md.
    till: Identifier | None = None
    source: Identifier | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    store: tuple[ServedStore, ...] = ()


class _ChainToml(StrictModel):
    format_version: Literal[1]
    retailer: tuple[Retailer, ...] = Field(min_length=1)
    serve: Serving | None = None


class Chain:
    """The retailers of an installation and their stores.

    Attributes:
        retailers: in the order of the file.
        stores: by retailer id, in the order of the file.
        folders: of the stores, by their ids.
        serving: how they are served; None where the file does not say.
    """

    def __init__(
        self,
        retailers: tuple[Retailer, ...],
        stores: Mapping[str, tuple[Store, ...]],
        folders: Mapping[str, Path] | None = None,
        serving: Serving | None = None,
    ) -> None:
        self.retailers, self.stores = retailers, dict(stores)
        self.folders, self.serving = dict(folders or {}), serving

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read chain.toml and the store folders that it names, relative to itself.

        Raises:
            ConfigError: with every fault of every file.
        """
        path = Path(path)
        tables = read_toml(path, "a chain.toml, as docs/chain.md describes it")
        if "retailer" not in tables and "floor" in tables:
            raise ConfigError(f"{path} describes a store; pass a chain.toml, as docs/chain.md describes it")
        try:
            chain = _ChainToml.model_validate(tables)
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path.name}: "))) from None
        faults: list[str] = []
        stores: dict[str, tuple[Store, ...]] = {}
        folders: dict[str, Path] = {}
        for retailer in chain.retailer:
            loaded = []
            for folder in retailer.stores:
                try:
                    store = Store.load(path.parent / folder)
                except ConfigError as error:
                    faults += error.faults
                    continue
                loaded.append(store)
                folders[store.id] = path.parent / folder
            stores[retailer.id] = tuple(loaded)
        faults += _chain_faults(path.name, chain, stores)
        if faults:
            raise ConfigError(faults)
        return cls(chain.retailer, stores, folders, chain.serve)

    def retailer_of(self, store: Store) -> Retailer:
        """The retailer whose store it is. Raises KeyError."""
        for retailer in self.retailers:
            if any(owned.id == store.id for owned in self.stores[retailer.id]):
                return retailer
        raise KeyError(store.id)

    def books(
        self, where: str | os.PathLike[str], *, read_only: bool = False
    ) -> Iterator[tuple[Retailer, Store, Ledger]]:
        """Every store's books, one after another; each is closed when the next is asked for.

        Args:
            where: a folder that holds `STORE.sqlite` for every store, or a PostgreSQL URL followed by `#` and a folder
                for the vaults.
            read_only: nothing is written.

        Raises:
            LedgerError: a store has no books there.
        """
        for retailer in self.retailers:
            for store in self.stores[retailer.id]:
                with open_books_of(store, where, create=False, read_only=read_only) as ledger:
                    yield retailer, store, ledger


def _chain_faults(file: str, chain: _ChainToml, stores: Mapping[str, tuple[Store, ...]]) -> Iterator[str]:
    """What does not fit together in chain.toml and the store folders."""
    named = {folder for retailer in chain.retailer for folder in retailer.stores}
    for i, served in enumerate(chain.serve.store if chain.serve else ()):
        if served.store not in named:
            yield f"{file}: serve.store[{i}]: want a store of a retailer, got {served.store!r}"
    retailer_ids = Counter(retailer.id for retailer in chain.retailer)
    store_ids = Counter(store.id for owned in stores.values() for store in owned)
    for kind, counts in (("retailer", retailer_ids), ("store", store_ids)):
        for repeated, n in counts.items():
            if n > 1:
                yield f"{file}: id of a {kind}: want each once, got {repeated!r} {n} times"


def open_books_of(
    store: Store, where: str | os.PathLike[str], *, create: bool = True, read_only: bool = False
) -> Ledger:
    """One store's books of an installation; `where` as in `Chain.books`, the others as in `Ledger.open`."""
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        url, _, folder = text.partition("#")
        if not folder:
            raise LedgerError("books: want postgresql://...#FOLDER, the folder for the vaults, got none")
        vault = Path(folder) / f"{_file_name(store.id)}.vault.sqlite"
        return Ledger.open(url, store, vault, create=create, read_only=read_only)
    return Ledger.open(Path(text) / f"{_file_name(store.id)}.sqlite", store, create=create, read_only=read_only)


def _file_name(store: str) -> str:
    if not store.replace("_", "").replace("-", "").isalnum():
        raise LedgerError(f"store: want an id of letters, digits, - and _ to name files by, got {store!r}")
    return store
