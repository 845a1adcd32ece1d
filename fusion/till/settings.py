"""till.toml: how an installation takes payments, admits customers, sends receipts and keeps its books.

It lies outside the store folder: a store folder is layout and policy and is copied into recordings, while this file is
of one installation and names where its secrets are. Paths in it are relative to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from fusion.errors import ConfigError
from fusion.gates.retention import RetentionSettings
from fusion.gates.settings import GateSettings
from fusion.money.checkpoints import CheckpointSettings
from fusion.money.mail import MailSettings
from fusion.money.providers.settings import PaymentSettings
from fusion.store.toml_files import read_toml
from fusion.store.values import Identifier, StrictModel, require, validation_faults
from fusion.till.answer_settings import AnswerSettings

POSTGRES = ("postgresql://", "postgres://")


class BooksSettings(StrictModel):
    """Where the books are.

    Attributes:
        where: a folder that holds STORE.sqlite for each store, or
            postgresql://server/database?sslmode=verify-full, in which each store has
            a schema of its own; None: STORE.sqlite in the folder of the store's process.
        vaults: folder for the vaults beside books in PostgreSQL; None: in the folder of the store's process.
    """

    where: Identifier | None = None
    vaults: Identifier | None = None

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        if self.remote:
            password = urlsplit(str(self.where)).password
            require(not password, "no password in the URL; use passfile= or PGPASSFILE", "one")
        else:
            require(self.vaults is None, "vaults beside books in PostgreSQL alone", self.vaults)
        return self

    @property
    def remote(self) -> bool:
        """Whether the books are on a server, which may be away while the store is open."""
        return self.where is not None and self.where.startswith(POSTGRES)


class CustomerSettings(StrictModel):
    """Who the customers are: a file of `fusion.till.customers.CustomerFile`."""

    file: Identifier


class TillSettings(StrictModel):
    """The content of till.toml.

    Attributes:
        payment: the payment provider; None: nothing is charged, and what is owed stands in the books.
        gates: which credentials are verified, and how.
        customers: means of payment, addresses and memberships by account.
        mail: the mail server for receipts; None: none are sent.
        books: where the books are.
        checkpoints: signed notes of the newest entry, and where they are kept; None: none are written.
        retention: after how many days files about people are removed; the store's policy rules the vault.
        answers: how far a shopper's word about their own bill goes.
    """

    format_version: Literal[1] = 1
    payment: PaymentSettings | None = None
    gates: GateSettings = Field(default_factory=GateSettings)
    customers: CustomerSettings | None = None
    mail: MailSettings | None = None
    books: BooksSettings = BooksSettings()
    checkpoints: CheckpointSettings | None = None
    retention: RetentionSettings = RetentionSettings()
    answers: AnswerSettings = AnswerSettings()


@dataclass(frozen=True)
class TillFile:
    """The settings of a till, and what its relative paths are relative to.

    Attributes:
        settings: the content.
        base: the folder that holds the file.
        name: the file, for messages; "" where an installation has none.
        ledger, vault: books that a command line names, in place of those of the settings.
    """

    settings: TillSettings = field(default_factory=TillSettings)
    base: Path = Path()
    name: str = ""
    ledger: str | None = None
    vault: str | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a till.toml. Raises ConfigError with every fault."""
        path = Path(path)
        tables = read_toml(path, "a till.toml, as docs/money.md describes it")
        try:
            settings = TillSettings.model_validate(tables)
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path.name}: "))) from None
        return cls(settings, path.resolve().parent, path.name)

    def books_at(self, store_id: str, folder: Path) -> tuple[str, str | None]:
        """Path or URL of a store's books, and of the vault beside books on a server."""
        books = self.settings.books
        if self.ledger is not None:
            return self.ledger, self.vault
        if books.remote:
            vaults = folder if books.vaults is None else self.base / books.vaults
            return str(books.where), str(vaults / f"{store_id}.vault.sqlite")
        at = folder if books.where is None else self.base / books.where
        return str(at / f"{store_id}.sqlite"), None
