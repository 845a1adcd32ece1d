"""Every instruction set that this machine has gives the same bills; positions may differ in their last digits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recordings import make

from fusion._kernels import triangulation

TESTS = Path(__file__).resolve().parents[1]
SETS = ["baseline", "avx2", "avx512"]


@pytest.mark.parametrize("name", SETS[: SETS.index(triangulation.instruction_set)])
def test_lesser_instruction_sets_agree(name):
    scene = "two_shoppers"
    program = (
        "import json; from fusion._kernels import triangulation; from recordings import make\n"
        f"print(json.dumps([triangulation.instruction_set, make.answers(make.HERE / {scene!r})]))"
    )
    env = {**os.environ, "FUSION_ISA": name, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    used, got = json.loads(done.stdout)
    assert used == name
    expected = make.answers(make.HERE / scene)
    for one, other in zip(got["receipts"], expected["receipts"], strict=True):
        assert (one["account"], one["total"], one["status"]) == (other["account"], other["total"], other["status"])
    assert got["places_m"].keys() == expected["places_m"].keys()
    for track, places in expected["places_m"].items():
        np.testing.assert_allclose(got["places_m"][track], places, atol=5e-3)
