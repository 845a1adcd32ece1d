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

from pydantic import Field, model_validator

from fusion.errors import ConfigError
from fusion.files.secrets import secret_of
from fusion.gates.retention import RetentionSettings
from fusion.gates.settings import GateSettings
from fusion.money.checkpoints import CheckpointSettings
from fusion.money.mail import MailSettings
from fusion.money.providers.settings import PaymentSettings
from fusion.store.toml_files import read_toml_model
from fusion.store.values import Identifier, StrictModel, require
from fusion.till.answer_settings import AnswerSettings

POSTGRES = ("postgresql://", "postgres://")
# 32 characters of hexadecimal digits are 128 bits.
APP_KEY_MIN_BYTES = 32


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


class ShopperSettings(StrictModel):
    """`[shopper]`: the pages on customers' phones; see `fusion shopper`.

    Attributes:
        url: where customers reach them; receipts' mails then hold a link there. https, but for this machine.
        code_key: file of the Ed25519 key that signs codes for the gate, made where there is none; None: no codes.
        code_key_id: id under which `[gates] code_keys` knows its public half; None where it is `[gates] code_key`.
        app_key_file, app_key_env: secret shared with the retailer's own app, which signs its customers in by links.
        font: TrueType file for receipts as PDF whose names have other letters than those of western Europe.
    """

    url: Identifier
    code_key: Identifier | None = None
    code_key_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,32}$")
    app_key_file: Identifier | None = None
    app_key_env: Identifier | None = None
    font: Identifier | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        url = urlsplit(self.url)
        is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
        is_safe = url.scheme == "https" or (url.scheme == "http" and is_local)
        require(is_safe, "url: https://, or http:// of this machine", self.url)
        has_more = url.query or url.fragment or url.username or url.path not in ("", "/")
        require(bool(url.hostname) and not has_more, "url: a host alone, such as https://my.shop.example", self.url)
        both = self.app_key_file is not None and self.app_key_env is not None
        require(not both, "app_key_file or app_key_env, not both", self.app_key_env)
        return self

    def app_key(self, base: Path) -> bytes | None:
        """The secret that is shared with the retailer's app. Raises ConfigError where it cannot be read or is short."""
        if self.app_key_file is None and self.app_key_env is None:
            return None
        file = base / self.app_key_file if self.app_key_file is not None else None
        secret = secret_of(file=file, env=self.app_key_env, what="shopper.app_key").encode()
        if len(secret) < APP_KEY_MIN_BYTES:
            want = f"want at least {APP_KEY_MIN_BYTES} characters of random text"
            raise ConfigError(f"shopper.app_key: {want}, got {len(secret)}")
        return secret


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
        shopper: the pages on customers' phones; None: receipts' mails hold no link.
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
    shopper: ShopperSettings | None = None


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
        settings = read_toml_model(path, "a till.toml, as docs/money.md describes it", TillSettings)
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
