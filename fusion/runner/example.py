"""example.toml: how the customers of a simulated store come in, and who comes in the simulated minutes."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError

from fusion.errors import ConfigError
from fusion.simulation import Scenario
from fusion.store.models import Store
from fusion.store.toml_files import read_toml
from fusion.store.values import StrictModel, validation_faults

EXAMPLE_FILE = "example.toml"


class Example(StrictModel):
    """The settings of example.toml.

    Attributes:
        credential: what customers show at the gate.
        start: the first instant, on the store's clock, such as 2026-03-04T11:27.
        email: share of customers who gave an address.
        members: share of customers who are members.
        lost: share of the payment provider's answers that do not arrive.
        staff_only_minutes: for how long after the start only employees are let in.
        scenario: further settings of the simulation's `Scenario`.
    """

    credential: Literal["qr", "card", "face"]
    start: str
    email: float = Field(default=0.0, ge=0, le=1)
    members: float = Field(default=0.0, ge=0, le=1)
    lost: float = Field(default=0.0, ge=0, lt=1)
    staff_only_minutes: float = Field(default=0.0, ge=0)
    scenario: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Example:
        """Read example.toml of a store folder. Raises ConfigError with every fault."""
        path = folder / EXAMPLE_FILE
        try:
            return cls.model_validate(read_toml(path, "a store folder with this file"))
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path}: "))) from None

    def scenario_for(self, store: Store, seed: int, **changes: Any) -> Scenario:
        """The simulated run that it describes, with changes to its scenario. Raises ConfigError."""
        try:
            local = datetime.datetime.fromisoformat(self.start).replace(tzinfo=ZoneInfo(store.timezone))
            settings = {**self.scenario, **changes}
            return Scenario(seed=seed, start_ns=int(local.timestamp()) * 10**9, **settings)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{EXAMPLE_FILE}: {error}") from None
