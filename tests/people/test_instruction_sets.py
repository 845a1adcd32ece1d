"""Every instruction set that this machine has gives the same bills; positions may differ in their last digits.

And every set computes packed: a compiler takes vectors that the machine cannot hold apart into scalars without a word.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
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
    # The package that is imported here, which need not be that of this folder.
    path = os.pathsep.join([str(TESTS), str(Path(triangulation.__file__).parents[2])])
    env = {**os.environ, "FUSION_ISA": name, "PYTHONPATH": path}
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


# Where the time goes. What the assignment of detections and the tracker's branches do is scalar by nature.
HOT = ["normalise_view", "triangulate", "refine", "predict", "update_joints", "hold_limb", "costs"]
FUNCTION = re.compile(r"[0-9a-f]+ <(?:void )?fusion::(\w+)::(\w+)[(<]")
ARITHMETIC = r"(?:add|sub|mul|div|sqrt|min|max|fn?m(?:add|sub)\d+)"
PACKED = re.compile(rf"\tv?{ARITHMETIC}p[sd]\b")
# Arithmetic and comparisons of one number, and numbers taken out of a vector and put back one by one.
SCALAR = re.compile(rf"\tv?(?:{ARITHMETIC}s[sd]|u?comis[sd]|cmp\w*s[sd]|p(?:extr|insr)[dq])\b")


@pytest.fixture(scope="module")
def instructions() -> dict[tuple[str, str], Counter[str]]:
    """How many packed and scalar instructions each kernel has, by instruction set and name."""
    if platform.machine() != "x86_64" or shutil.which("objdump") is None:
        pytest.skip("needs objdump and x86-64")
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", triangulation.__file__]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts: dict[tuple[str, str], Counter[str]] = {}
    of: Counter[str] = Counter()
    for line in listing.splitlines():
        if found := FUNCTION.match(line):
            of = counts.setdefault((found[1], found[2]), Counter())
        elif line.endswith(">:"):
            of = Counter()
        else:
            of["packed"] += bool(PACKED.search(line))
            of["scalar"] += bool(SCALAR.search(line))
    if not counts:
        pytest.skip("the module was built without names")
    return counts


@pytest.mark.parametrize("kernel", HOT)
@pytest.mark.parametrize("name", SETS)
def test_hot_kernels_compute_packed(instructions, name, kernel):
    of = instructions[name, kernel]
    assert of["packed"] > 2 * of["scalar"], of
