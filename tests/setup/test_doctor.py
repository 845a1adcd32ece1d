"""The doctor passes a sound machine, and names whatever is broken together with what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from fusion.engine import Engine
from fusion.people import geometry
from fusion.setup import installation, machine, self_test
from fusion.setup.doctor import examine

ROOT = Path(__file__).resolve().parents[2]


def by_subject(lines):
    return {line.subject: line for line in lines}


def run(*args, hidden=(), cwd=None, **environment):
    """The command in a fresh interpreter in which some modules cannot be imported."""
    program = f"import sys\nfor name in {list(hidden)!r}: sys.modules[name] = None\n"
    program += f"from fusion.commands.main import main\nsys.exit(main(['doctor', *{list(args)!r}]))"
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd or ROOT, env=env)


def test_a_sound_machine_is_found_sound():
    done = run("--json")
    lines = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert not [line for line in lines if line["sign"] == "fault"]
    assert not [line for line in lines if line["sign"] == "ok" and line["advice"]]
    subjects = {line["subject"] for line in lines}
    kernels = {"kernel triangulation", "kernel attribution", "numba cache"}
    machine = {"working folder", "temporary folder", "time zones", "clock", "stopwatch", "cores"}
    assert subjects >= {"python", "fusion", "numpy", "numba", "self-test"} | kernels | machine
    assert "instruction set" in next(line["found"] for line in lines if line["subject"] == "kernel triangulation")


def test_without_numpy_it_still_reports():
    done = run(hidden=["numpy"])
    assert done.returncode == 1 and not done.stderr
    printed = done.stdout.splitlines()
    at = next(i for i, line in enumerate(printed) if line.startswith("fault    numpy:"))
    assert printed[at + 1].strip().startswith("-> pip install 'numpy>=")
    assert any(line.startswith("ok       clock:") for line in printed)
    assert any(line.startswith("fault    self-test:") for line in printed)


def test_kernels_that_were_not_built_are_named_with_what_to_do():
    done = run("--json", hidden=["fusion._kernels.triangulation"])
    lines = {line["subject"]: line for line in json.loads(done.stdout)}
    assert done.returncode == 1 and not done.stderr
    kernel = lines["kernel triangulation"]
    assert kernel["sign"] == "fault" and "C++ compiler" in kernel["advice"]
    assert lines["kernel attribution"]["sign"] == "ok"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that cannot be written to, /proc")
def test_a_folder_that_cannot_be_written_and_a_lesser_instruction_set_are_reported():
    done = run("--json", cwd="/proc", FUSION_ISA="baseline")
    lines = {line["subject"]: line for line in json.loads(done.stdout)}
    assert done.returncode == 0
    assert lines["working folder"]["sign"] == "warning" and "--out" in lines["working folder"]["advice"]
    assert lines["temporary folder"]["sign"] == "ok"
    assert lines["kernel triangulation"]["found"].startswith("instruction set baseline (FUSION_ISA")


def test_a_cache_that_cannot_be_written_is_reported(monkeypatch):
    monkeypatch.setattr(installation, "write_fault", lambda folder: "No space left on device")
    (line,) = installation.numba_cache()
    assert line.sign == "warning" and "No space left" in line.found and "NUMBA_CACHE_DIR" in line.advice


def test_a_clock_that_was_never_set_is_a_fault(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 3600.0)
    line = by_subject(machine.clocks())["clock"]
    assert line.sign == "fault" and "1970-01-01 01:00" in line.found and "NTP" in line.advice


def test_packages_that_are_missing_or_old_are_faults(monkeypatch):
    have = metadata.version

    def version(name):
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "16.1" if name == "pyarrow" else have(name)

    monkeypatch.setattr(metadata, "version", version)
    lines = by_subject(installation.packages())
    assert lines["scipy"].sign == "fault" and lines["scipy"].advice.startswith("pip install 'scipy>=")
    assert lines["pyarrow"].sign == "fault" and lines["pyarrow"].found == "want 17 or newer, got 16.1"
    assert lines["numpy"].sign == "ok"


def test_extras_name_what_is_missing(monkeypatch):
    have = metadata.version

    def version(name):
        if name == "segno":
            raise metadata.PackageNotFoundError(name)
        return have(name)

    monkeypatch.setattr(metadata, "version", version)
    (line,) = installation.extras()
    assert line.sign == "ok" and "gate (without segno" in line.found


def test_a_kernel_that_computes_wrongly_is_a_fault(monkeypatch):
    right = geometry.triangulate

    def wrong(rig, points_px):
        found = right(rig, points_px)
        found.points_m[17, 2] += 1e-4
        return found

    monkeypatch.setattr(geometry, "triangulate", wrong)
    (line,) = self_test.kernels_agree()
    assert line.sign == "fault" and "0.0001" in line.found


def test_nans_of_a_kernel_are_a_fault(monkeypatch):
    right = geometry.triangulate

    def wrong(rig, points_px):
        found = right(rig, points_px)
        found.points_m[3] = np.nan
        return found

    monkeypatch.setattr(geometry, "triangulate", wrong)
    (line,) = self_test.kernels_agree()
    assert line.sign == "fault"


def test_an_engine_that_loses_scans_fails_the_self_test(monkeypatch):
    feed = Engine.feed
    monkeypatch.setattr(Engine, "feed", lambda self, o: [] if type(o).__name__ == "GateScan" else feed(self, o))
    (line,) = self_test.simulated_run()
    assert line.sign == "fault" and "0 of 3" in line.found


def test_an_examination_that_fails_is_a_fault_and_the_others_follow():
    def explode():
        raise ZeroDivisionError("no cause\nand a second line")

    first, second = examine([("sun", explode), ("cores", machine.cores)])
    assert (first.sign, first.subject, first.found) == ("fault", "sun", "ZeroDivisionError: no cause")
    assert second.subject == "cores"
