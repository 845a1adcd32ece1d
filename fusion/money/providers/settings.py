"""The payment provider of an installation, as its settings name it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fusion.errors import ConfigError
from fusion.files.secrets import secret_of
from fusion.money.providers.exchange import DEADLINE_S, Exchange
from fusion.money.providers.in_process import InProcessProvider
from fusion.money.providers.plain_http import HttpProvider
from fusion.money.providers.provider import Provider, Terms
from fusion.money.providers.stripe import URL, StripeProvider
from fusion.store.values import StrictModel, require


class PaymentSettings(StrictModel):
    """The table `[payment]` of an installation's settings.

    Attributes:
        provider: "test" (in this process, for tests: no money moves), "http" (`HttpProvider`) or "stripe".
        url: where its paths begin; for stripe only in tests.
        secret_file: file with the provider's secret and nothing else, mode 0600.
        secret_env: or the environment variable that holds it.
        deadline_s: how long one request may take in all.
        keys_kept_h: how long the provider keeps its idempotency keys; 0: it knows none.
        holds_kept_h: how long an authorisation can be captured.
    """

    provider: Literal["test", "http", "stripe"]
    url: str | None = None
    secret_file: Path | None = None
    secret_env: str | None = None
    deadline_s: float = Field(default=DEADLINE_S, gt=0.0, le=120.0)
    keys_kept_h: float = Field(default=24.0, ge=0.0, le=24.0 * 365)
    holds_kept_h: float = Field(default=24.0 * 7, gt=0.0, le=24.0 * 365)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        n_secrets = (self.secret_file is not None) + (self.secret_env is not None)
        if self.provider == "test":
            require(n_secrets == 0 and self.url is None, "neither url nor secret with provider test", "one")
        else:
            require(n_secrets == 1, "secret_file or secret_env, one of them", n_secrets)
        require(self.provider != "http" or self.url is not None, "url with provider http", None)
        return self


def open_provider(settings: PaymentSettings, base: Path) -> Provider:
    """The provider that the settings name.

    Args:
        settings: which, and where its secret is.
        base: folder to which the file of the secret is relative.

    Raises:
        ConfigError: the secret or the URL cannot be used. The message does not repeat the secret.
    """
    terms = Terms(settings.keys_kept_h * 3600.0, settings.holds_kept_h * 3600.0)
    if settings.provider == "test":
        return InProcessProvider(terms=terms)
    file = None if settings.secret_file is None else base / settings.secret_file
    key = secret_of(file=file, env=settings.secret_env, what="the payment provider's secret")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("the payment provider's secret: want printable ASCII without blanks")
    exchange = Exchange(settings.url or URL, deadline_s=settings.deadline_s)
    return HttpProvider(exchange, key, terms) if settings.provider == "http" else StripeProvider(exchange, key, terms)
