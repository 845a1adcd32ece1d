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


def test_a_release_has_a_bill_of_materials_beside_its_distributions() -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8"))["jobs"]
    (command,) = [step["run"] for step in jobs["sbom"]["steps"] if "sbom" in step.get("run", "")]
    assert command.startswith("bash .ci/sbom "), "the command that CONTRIBUTING.md names"
    assert "`bash .ci/sbom FILE`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "sbom" in jobs["publish"]["needs"]
    # The index refuses files that are no distributions, so the list is not among what is published there.
    names = {
        job: [step["with"]["name"] for step in jobs[job]["steps"] if "upload-artifact" in step.get("uses", "")]
        for job in ("wheels", "sdist", "sbom")
    }
    (pattern,) = [step["with"]["pattern"] for step in jobs["publish"]["steps"] if "download" in step["uses"]]
    assert pattern == "dist-*" and names["sbom"] == ["sbom"]
    assert all(name.startswith("dist-") for job in ("wheels", "sdist") for name in names[job])
