"""The forge's workflows: valid by their schema, and without what makes workflows unsafe."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_workflows_fit_the_schema() -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("no check-jsonschema: pip install 'storefusion[lint]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_workflows_are_safe() -> None:
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    if zizmor is None:
        pytest.skip("no zizmor: pip install 'storefusion[lint]'")
    done = subprocess.run([zizmor, "--offline", "--quiet", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
