"""Which tests run a line, and how much processor time each test takes: measured once, test by test, under coverage.

This module is also the pytest plugin that measures (`-p bench.mutation.reached`): coverage writes the running test's
name beside each line. What a test runs in another process is not seen. A line that runs while its module is imported
(a constant, a default) and whose name no function of the module mentions is reached by each test that runs anything of
the module; where a module holds nothing but constants, by any test.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPORT = "FUSION_MUTATION_REPORT"


@dataclass(frozen=True)
class Test:
    """A test that passes on the code as it is: its id, and the seconds of processor time that it takes."""

    __test__ = False  # for pytest, which collects classes of this name

    id: str
    cpu_s: float


class Reached:
    """Tests by the lines that they run.

    Args:
        rows: for each file of tests its `digest`, `imported` (lines that imports run, by module) and `tests`; a test
            has an id, `cpu_s` and `lines` by module.
    """

    def __init__(self, rows: dict[str, Any]) -> None:
        self._tests: dict[str, list[tuple[Test, frozenset[int]]]] = {}
        self._imported: dict[str, set[int]] = {}
        self._all: list[Test] = []
        for row in rows.values():
            for path, lines in row["imported"].items():
                self._imported.setdefault(path, set()).update(lines)
            for name, measured in row["tests"].items():
                test = Test(name, measured["cpu_s"])
                self._all.append(test)
                for path, lines in measured["lines"].items():
                    self._tests.setdefault(path, []).append((test, frozenset(lines)))

    def tests(self, path: str, lines: frozenset[int]) -> list[Test]:
        """The tests that run any of some lines of a module, the quickest first.

        What imports run shows without another run of the line: limits of settings are checked by pydantic. So of such
        lines every test is named, after those that run them and those that run others of the module.
        """
        found = {test.id for test, run in self._tests.get(path, ()) if not run.isdisjoint(lines)}
        if self._imported.get(path, set()).isdisjoint(lines):
            return sorted((test for test in self._all if test.id in found), key=lambda test: (test.cpu_s, test.id))
        beside = {test.id for test, _ in self._tests.get(path, ())}
        return sorted(
            self._all, key=lambda test: (test.id not in found, test.id not in beside, test.cpu_s, test.id)
        )


def measure(copy: Path, folders: Sequence[str], kept: Path, environment: dict[str, str]) -> Reached:
    """Run the tests of some folders and note which lines of fusion/ each of them runs.

    Args:
        copy: the project's copy in which tests run. folders: of tests, or files, such as `tests/money`. kept: a file
            with what was measured before; tests whose files and sources have not changed are not run again.
        environment: of the tests.

    Raises:
        RuntimeError: pytest could not run the tests; with what it printed.
    """
    sources = _digest(path for folder in ("fusion", "tests") for path in (copy / folder).rglob("*.py")
                      if folder == "fusion" or not path.name.startswith("test_"))  # fmt: skip
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    files = sorted({file.relative_to(copy).as_posix() for name in folders for file in _test_files(copy / name)})
    digests = {file: sources + _digest([copy / file]) for file in files}
    stale = [file for file in files if rows.get(file, {}).get("digest") != digests[file]]
    if stale:
        rows |= {file: {"digest": digests[file], "imported": {}, "tests": {}} for file in stale}
        measured, imported = _run(copy, stale, environment)
        for name, row in measured.items():
            rows[name.partition("::")[0]]["tests"][name] = row
        # By whichever file of tests came first: modules are imported once.
        rows[stale[0]]["imported"] = imported
        kept.write_text(json.dumps(rows), encoding="utf-8")
    return Reached({file: rows[file] for file in files})


def _test_files(path: Path) -> Iterator[Path]:
    yield from [path] if path.is_file() else path.rglob("test_*.py")


def _digest(paths: Any) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(copy: Path, files: Sequence[str], environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Each passing test's `cpu_s` and `lines`, and by module the lines that run outside of tests."""
    from coverage import CoverageData

    report, data_file = copy / ".reached.json", copy / ".reached.coverage"
    settings = copy / ".reached.toml"
    # Lines are enough, and far smaller than branches of every test.
    settings.write_text(f"[tool.coverage.run]\nsource_pkgs = ['fusion']\ndata_file = {str(data_file)!r}\n")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q"]
    command += ["-p", "bench.mutation.reached", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=ci"]
    done = subprocess.run(
        [*command, *files], cwd=copy, env={**environment, REPORT: str(report)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1) or not report.exists():
        raise RuntimeError(f"the tests could not be measured (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
    rows: dict[str, Any] = {name: {"cpu_s": s, "lines": {}} for name, s in json.loads(report.read_text()).items()}
    imported: dict[str, list[int]] = {}
    data = CoverageData(str(data_file))
    data.read()
    for file in data.measured_files():
        path = Path(file).relative_to(copy).as_posix()
        for line, names in data.contexts_by_lineno(file).items():
            if "" in names:
                imported.setdefault(path, []).append(line)
            for name in names:
                if name in rows:
                    rows[name]["lines"].setdefault(path, []).append(line)
    return rows, imported


class _Plugin:
    """Switches coverage's context with each test and notes its processor time; leaves failed and skipped ones out."""

    def __init__(self) -> None:
        self._cpu_s: dict[str, float] = {}
        self._passed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        import coverage

        current = coverage.Coverage.current()
        assert current is not None, "run under `coverage run`"
        current.switch_context(item.nodeid)
        before_s = _processor_s()
        result = yield
        self._cpu_s[item.nodeid] = _processor_s() - before_s
        current.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self._passed.add(report.nodeid)
        elif report.failed:
            self._passed.discard(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        times = {name: round(self._cpu_s[name], 4) for name in sorted(self._passed)}
        Path(os.environ[REPORT]).write_text(json.dumps(times), encoding="utf-8")


def _processor_s() -> float:
    """Seconds of processor time of this process and the ended ones that it started: another program's load is none."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin where a run asks for this module by `-p`."""
    if REPORT in os.environ:
        config.pluginmanager.register(_Plugin(), "reached")
