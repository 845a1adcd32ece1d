"""The distributions: the sdist builds a wheel, which installs and runs the shortest program by itself.

To install the sdist is the same: pip builds this wheel and installs it. Slow (C++ and kernels are compiled), so
`pytest` alone leaves them out; `.ci/run` runs them with `pytest -m package`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, cwd: Path) -> str:
    """Run a command outside the checkout, so that nothing of it can be imported; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, not from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_of_the_sdist_installs_and_runs(wheel: Path, tmp_path: Path) -> None:
    """In a bare environment: examples/embed.py and the command."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    program = (ROOT / "examples" / "embed.py").read_text(encoding="utf-8")
    (tmp_path / "embed.py").write_text(program, encoding="utf-8")
    output = run(python, "embed.py", cwd=tmp_path)
    assert "Receipt" in output and "settled" in output
    assert run(python, "-m", "fusion", "--version", cwd=tmp_path).strip().endswith("0.1.0")


def test_the_sdist_holds_the_native_sources_and_no_build_products(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {f"native/{path.name}" for path in (ROOT / "native").iterdir()} <= names
    assert {f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir()} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".nbi", ".nbc"))]


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.startswith("storefusion-")]
    assert all(name.startswith("fusion/") for name in names)
    tracked = subprocess.run(["git", "ls-files", "fusion"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert set(tracked.stdout.split()) <= set(names)
    assert "fusion/py.typed" in names
