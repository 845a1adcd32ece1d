"""Settings of providers, mail, checkpoints and chains: defaults, limits, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from settings_limits import Limits, check, rows

from fusion.money.checkpoints import CheckpointSettings
from fusion.money.mail import MailSettings
from fusion.money.providers.settings import PaymentSettings
from fusion.money.retailers import Retailer, ServedStore, Serving

MAIL = {"host": "localhost", "sender": "shop@example.org"}
RETAILER = {"id": "north", "name": "North Ltd", "brand": "North", "stores": ("kiosk",)}
A_BIT = 1e-9

FIELDS = [
    *rows(
        PaymentSettings,
        {"provider": "test"},
        ("deadline_s", 10.0, (A_BIT, 120.0), (0.0, 120.0 + 1e-6)),
        ("keys_kept_h", 24.0, (0.0, 8760.0), (-A_BIT, 8760.001)),
        ("holds_kept_h", 168.0, (A_BIT, 8760.0), (0.0, 8760.001)),
    ),
    *rows(MailSettings, MAIL, ("port", 587, (1, 65535), (0, 65536)), ("tls", True, (False,), ("perhaps",))),
    *rows(CheckpointSettings, {}, ("every_s", 600.0, (1.0, 86_400.0), (0.999, 86_400.1))),
    *rows(
        Retailer,
        RETAILER,
        ("fee_share", None, (0.0, 100.0), (-A_BIT, 100.001)),
        ("fee_monthly", None, (0, 10**12), (-1, 10**12 + 1)),
        ("stores", None, (("kiosk",), ("kiosk", "stand")), ((),)),
    ),
    *rows(
        Serving,
        {},
        ("out", "serve", ("elsewhere",), ("",)),
        ("port", 9464, (0, 65535), (-1, 65536)),
        ("stores_per_process", None, (1, 64), (0, 65)),
        ("snapshot_every_s", 5.0, (0.1, 600.0), (0.0999, 600.1)),
        ("memory_max_mb", 2048, (128,), (127,)),
        ("deaths_max", 5, (1,), (0,)),
        ("deaths_within_s", 120.0, (A_BIT,), (0.0,)),
        ("pause_max_s", 30.0, (0.0,), (-A_BIT,)),
        ("layout_wait_s", 600.0, (0.0,), (-A_BIT,)),
        ("early", None, (True, False), ("perhaps",)),
        ("till", None, ("till.toml",), ("",)),
        ("source", None, ("mqtt",), ("",)),
        ("options", {}, ({"port": 1883},), ([1],)),
        ("store", (), (), (("kiosk",),)),
    ),
    *rows(
        ServedStore,
        {"store": "kiosk", "source": "mqtt"},
        ("options", {}, ({"a": 1},), (3,)),
        ("till", None, ("till.toml",), ("",)),
    ),
]


@pytest.mark.parametrize("row", FIELDS, ids=str)
def test_limits(row: Limits) -> None:
    check(row)


@pytest.mark.parametrize(
    ("model", "fields", "fault"),
    [
        (PaymentSettings, {"provider": "test", "secret_env": "S"}, "neither url nor secret with provider test"),
        (PaymentSettings, {"provider": "test", "url": "https://x"}, "neither url nor secret with provider test"),
        (PaymentSettings, {"provider": "stripe"}, "secret_file or secret_env, one of them, got 0"),
        (PaymentSettings, {"provider": "stripe", "secret_file": "f", "secret_env": "S"}, "one of them, got 2"),
        (PaymentSettings, {"provider": "http", "secret_env": "S"}, "url with provider http"),
        (PaymentSettings, {"provider": "cash"}, "provider"),
        (MailSettings, {**MAIL, "sender": "shop"}, "sender: an address with @"),
        (MailSettings, {**MAIL, "user": "u"}, "user and password_file or password_env together"),
        (MailSettings, {**MAIL, "password_env": "P"}, "user and password_file or password_env together"),
        (MailSettings, {**MAIL, "password_file": "f"}, "user and password_file or password_env together"),
        (MailSettings, {**MAIL, "host": "mail.example.org", "tls": False}, "tls = true for a server elsewhere"),
        (MailSettings, {**MAIL, "user": "u", "password_env": "P", "tls": False}, "tls = true for a server elsewhere"),
        (Retailer, {**RETAILER, "fee_share": 1.0, "fee_monthly": 1}, r"fee_share \(percent\) or fee_monthly"),
        (Serving, {"ports": 1}, "ports"),
    ],
)
def test_what_does_not_go_together_is_named(model: type[BaseModel], fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        model(**fields)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (PaymentSettings, {"provider": "stripe", "secret_file": "f"}),
        (PaymentSettings, {"provider": "http", "secret_env": "S", "url": "https://x"}),
        (MailSettings, {**MAIL, "tls": False}),
        (MailSettings, {**MAIL, "host": "127.0.0.1", "tls": False}),
        (MailSettings, {**MAIL, "host": "::1", "tls": False}),
        (MailSettings, {**MAIL, "host": "mail.example.org", "user": "u", "password_file": "f"}),
        (Retailer, {**RETAILER, "fee_monthly": 1}),
    ],
)
def test_what_goes_together_is_taken(model: type[BaseModel], fields: dict[str, Any]) -> None:
    made = model(**fields)
    assert {name: str(getattr(made, name)) for name in fields} == {name: str(value) for name, value in fields.items()}
