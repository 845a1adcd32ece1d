"""One cell of the matrix of faults and shops: what must hold in it, and the cells in which it does not hold yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from bench.accuracy.faults import SHOPS, cell, faults_in
from fusion.simulation.faults import FAULTS, Part


def _open(fault: str, shops: Sequence[str], reason: str) -> dict[tuple[str, str], str]:
    return {(fault, shop): reason for shop in shops}


# Fault and shop of each cell in which the property does not hold, and why. A cell that holds again leaves this list:
# the test fails until it does.
OPEN: dict[tuple[str, str], str] = {
    **_open(
        "a plate with half gain",
        ["unmanned_box"],
        "two pieces at half gain weigh as one to the gram, and nothing else that the plate reports shows its gain",
    ),
}


# Shops in which a fault is tried each time, fault by fault others of the five: one that a warning names, and one that
# nobody needs to be told of. `pytest -m matrix` tries the remaining cells.
USUAL_SHOPS_WARNED, USUAL_SHOPS = 3, 2


def cells(parts: Collection[Part]) -> list[Any]:
    """The cells of some parts of a store, fault by fault, as parameters of a test."""
    found = []
    for number, fault in enumerate(FAULTS.values()):
        for place, shop in enumerate(SHOPS):
            n_usual = USUAL_SHOPS_WARNED if fault.warned else USUAL_SHOPS
            is_usual = (place - number) % len(SHOPS) < n_usual
            if fault.part in parts:
                found.append(pytest.param(fault.name, shop, marks=() if is_usual else pytest.mark.matrix))
    return found


def check(name: str, shop: str) -> None:
    """No settled receipt is wrong because of the fault, everybody has a receipt, a warning names what lasts."""
    fault = FAULTS[name]
    found = list(faults_in(cell(fault, shop), fault))
    reason = OPEN.get((name, shop))
    if reason is None:
        assert found == [], fault.what
    else:
        assert found != [], f"holds again, so take it out of the list of open cells ({reason})"
