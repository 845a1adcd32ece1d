"""What a store's policy asks of its till, and what the till can do: each line that it cannot honour is a refusal."""

from __future__ import annotations

from collections.abc import Iterator

from fusion.errors import ConfigError
from fusion.store.models import Store
from fusion.till.settings import TillFile

# Kinds of sources at whose gates no person stands: what they hold has happened already.
_PAST = ("recording", "simulation")


def unmet(store: Store, file: TillFile, source: str | None = None) -> list[str]:
    """Why a store cannot be run as it is declared: one line each, with file, key and what to do; empty where it can.

    Args:
        store: the store.
        file: its till.
        source: where its observations come from, such as `mqtt://HOST` or `recording:FOLDER`; None: not known yet.
    """
    return [*_payment(store, file, source), *_gates(store, file), *_prices(store, file)]


def require_honoured(store: Store, file: TillFile, source: str | None = None) -> None:
    """Raise ConfigError with every line of `unmet`, each behind the store's name."""
    faults = [f"store {store.id!r}: {fault}" for fault in unmet(store, file, source)]
    if faults:
        raise ConfigError(faults)


def _payment(store: Store, file: TillFile, source: str | None) -> Iterator[str]:
    mode, payment = store.payment.mode, file.settings.payment
    asked = f'store.toml: payment.mode = "{mode}"'
    if payment is None:
        if mode != "leave":
            yield f"{asked} needs a payment provider; add [payment] to {_name(file)}"
        if file.settings.mail is not None and file.settings.customers is None:
            yield f"{_name(file)}: [mail] needs addresses; add [customers]"
        return
    if source is not None and source.partition(":")[0] in _PAST:
        if payment.provider != "test":
            named = f'{_name(file)}: payment.provider = "{payment.provider}"'
            yield f'{named} would charge people of a {source.partition(":")[0]}; use provider = "test" with it'
        if mode != "leave":
            yield f"{asked} needs a source whose gates ask, such as mqtt://HOST, got {source}"
    if mode == "door" and not any(gate.direction != "in" for gate in store.gate):
        yield f"{asked} needs a gate that leads out; no [[gate]] of store.toml has direction out or both"
    if mode == "zone" and not any(zone.kind == "payment" for zone in store.zone):
        yield f'{asked} needs a place to pay; no [[zone]] of store.toml has kind = "payment"'


def _gates(store: Store, file: TillFile) -> Iterator[str]:
    if not file.name:
        return
    able = file.settings.gates.kinds()
    for gate in store.gate:
        if gate.direction == "out":
            continue
        for kind in gate.credentials:
            if kind not in able:
                yield (
                    f"store.toml: gate {gate.id!r}: credentials: {kind} cannot be verified; {_NEEDED[kind]} to [gates] "
                    f"of {file.name}, or list it in gates.elsewhere where the gate decides by itself"
                )


_NEEDED = {
    "qr": "add code_keys",
    "staff": "add staff_list",
    "face": "add [gates.faces]",
    "card": "add card_tokens = true",
    "open": "add open = true",
}


def _prices(store: Store, file: TillFile) -> Iterator[str]:
    if not file.name or file.settings.customers is not None:
        return
    for kind, rules in (("price", store.prices.price), ("offer", store.prices.offer)):
        for i, rule in enumerate(rules):
            if rule.members:
                yield (
                    f"prices.toml: {kind}[{i}]: members = true needs to know who is a member; add [customers] to "
                    f"{file.name}"
                )
                break


def _name(file: TillFile) -> str:
    return file.name or "till.toml"
