"""Every benchmark has a name, a module that imports, and a line in bench/README.md; no imports are circular."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_listed_and_documented(name: str) -> None:
    path = ROOT.joinpath("bench", *BENCHMARKS[name].module.split(".")).with_suffix(".py")
    assert path.is_file()
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | {BENCHMARKS[name].question} |" in readme or name == "figures"


@pytest.mark.parametrize("name", [name for name, entry in BENCHMARKS.items() if not entry.pytest and name != "peers"])
def test_a_program_imports_by_itself(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{BENCHMARKS[name].module}").main)


def test_an_unknown_name_gets_a_hint() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "acuracy"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "did you mean 'accuracy'" in done.stderr


def test_no_imports_are_circular() -> None:
    """Each module of bench is imported first once: a circular import would leave a name undefined."""
    modules = [entry.module for entry in BENCHMARKS.values()]
    modules = [module for module in modules if "bench_" not in module and module != "speed.pages"]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    [sys.modules.pop(m) for m in [*sys.modules] if m.split('.')[0] == 'bench']\n"
        "    importlib.import_module('bench.' + name)"
    )
    done = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
