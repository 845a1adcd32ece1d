"""Broken cameras, clocks and gates: no settled receipt is wrong because of it, everybody has a receipt, it is named."""

from __future__ import annotations

import pytest
from faulty import cells, check

from fusion.simulation.faults import Part


@pytest.mark.parametrize("fault, shop", cells([Part.CAMERAS, Part.CLOCKS, Part.GATES]))
def test_no_settled_receipt_is_wrong_because_of_the_fault(fault, shop):
    check(fault, shop)
