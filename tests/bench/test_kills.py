"""A checkout that is killed while it works, a short `bench kills`: no acknowledged entry is lost, none is doubled."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Place

from bench.endurance import kills
from fusion.money.ledger import Ledger


@pytest.mark.attack(4)
@pytest.mark.attack(5)
@pytest.mark.parametrize("provider", ["honest", "hostile", "hostile and mute"])
def test_no_acknowledged_entry_is_lost_and_no_visit_is_charged_twice(place: Place, provider: str) -> None:
    n_kills = 12 if place.database is None else 8
    outcome = kills.killed(
        lambda: place.open(kills.STORE), n_kills, seed=7, hostile=provider != "honest", looks_up="mute" not in provider
    )
    assert outcome.faults == []
    assert outcome.kills == n_kills and outcome.acknowledged["finished"] > 3 and outcome.captured > 0


def test_lost_and_doubled_entries_are_found(tmp_path: Path) -> None:
    """Tests the check itself: a charge unknown to the provider, and an acknowledged visit missing from the books."""
    outcome = kills.killed(lambda: Ledger.open(tmp_path / "ledger.sqlite", kills.STORE), 3, seed=1)
    assert outcome.faults == []
    with Ledger.open(tmp_path / "ledger.sqlite", kills.STORE) as ledger:
        checkout = kills.Checkout(ledger, kills.InProcessProvider(), kills.STORE)
        newest = {"opened": 10**4, "billed": 0, "finished": 0, "admitted": 0}
        faults = kills.faults_of(ledger, checkout, kills.InProcessProvider(), newest)
    assert any("it is lost" in fault for fault in faults)
