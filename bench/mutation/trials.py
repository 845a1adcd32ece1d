"""Run tests on one mutant after another: each in a child of a process that has loaded the libraries already.

    python -m bench.mutation.trials LIBRARY...     (in the copy; one trial in, one answer out, as lines of JSON)

A child starts with NumPy, Numba, SciPy, pydantic and pytest loaded but nothing of fusion/, writes the mutant into the
copy before it imports anything, and ends at the first test that fails. Its limits are of processor time, so that
another program's load kills no mutant; only a child that waits without working is ended by a clock.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.mutation.mutants import Mutant
from bench.mutation.reached import Test

# What most tests import. Whatever is not here is imported by each child; nothing depends on it but time.
LIBRARIES = (
    "numpy", "numba", "scipy.optimize", "scipy.stats", "scipy.special", "pydantic", "pyarrow.parquet", "hypothesis",
    "hypothesis.stateful", "tomlkit", "sqlite3", "cryptography.hazmat.primitives.asymmetric.ed25519", "psycopg",
    "starlette.applications", "asyncio", "http.server",
)  # fmt: skip

# A mutant's tests may take this many times what they take on the code as it is, and this much for their imports.
SLOWER_MAX = 5.0
IMPORTS_MAX_S = 30.0

# For a child that waits and does not work: seconds of a clock for each second of processor time that it may take.
WAITING_MAX = 8.0


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        outcome: `killed` (a test failed, or nothing could be imported), `timeout`, `survived`, or `unreached` where no
            test runs the line.
        by: id of the test that failed, "" of none. n_tests: how many tests were there to fail.
    """

    outcome: str
    by: str
    n_tests: int


class Trials:
    """Mutants tried in a copy of the project.

    Args:
        copy: the project's copy; a mutated file is put right after each trial. environment: of the tests.
        libraries, imports_max_s, waiting_max: see LIBRARIES, IMPORTS_MAX_S and WAITING_MAX.
    """

    def __init__(
        self,
        copy: Path,
        environment: dict[str, str],
        libraries: Sequence[str] = LIBRARIES,
        imports_max_s: float = IMPORTS_MAX_S,
        waiting_max: float = WAITING_MAX,
    ) -> None:
        self._imports_max_s, self._waiting_max = imports_max_s, waiting_max
        self._server = subprocess.Popen(
            [sys.executable, "-m", "bench.mutation.trials", *libraries], cwd=copy, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, path: str, code: str, tests: Sequence[Test]) -> Verdict:
        """Try a module's other code with some tests, in their order, until one fails."""
        if not tests:
            return Verdict("unreached", "", 0)
        assert self._server.stdin and self._server.stdout
        cpu_s = self._imports_max_s + SLOWER_MAX * sum(test.cpu_s for test in tests)
        trial = {"path": path, "code": code, "tests": [test.id for test in tests], "cpu_s": cpu_s,
                 "wall_s": self._waiting_max * cpu_s}  # fmt: skip
        self._server.stdin.write(json.dumps(trial) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the process that runs the trials has ended; what it printed is above")
        answer = json.loads(line)
        return Verdict(answer["outcome"], answer["by"], len(tests))

    def try_mutant(self, mutant: Mutant, tests: Sequence[Test]) -> Verdict:
        """Try a mutant."""
        return self.run(mutant.path, mutant.code, tests)

    def close(self) -> None:
        """End the process; the copy holds the code as it is."""
        assert self._server.stdin
        with contextlib.suppress(BrokenPipeError):
            self._server.stdin.close()
        self._server.wait()


@contextlib.contextmanager
def changed(path: Path, code: str) -> Iterator[None]:
    """A file that holds other code for a while; compiled forms of either are removed, however quick the changes are."""
    before = path.read_bytes()
    compiled = [*(path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")]
    for file in compiled:
        file.unlink()
    path.write_text(code, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(before)
        for file in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            file.unlink()


class _FirstFailure:
    """Notes the first test or file of tests that fails."""

    def __init__(self) -> None:
        self.by = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.by:
            self.by = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.by:
            self.by = report.nodeid


def _serve(libraries: Sequence[str]) -> int:
    """Answer trials from standard input until it ends; where it is terminated, the copy is put right all the same."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        trial = json.loads(line)
        with changed(Path(trial["path"]), trial["code"]):
            answer = _try(trial["tests"], trial["cpu_s"], trial["wall_s"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _try(tests: Sequence[str], cpu_s: float, wall_s: float) -> dict[str, str]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _run_in_child(tests, cpu_s, write)
    os.close(write)
    deadline = time.monotonic() + wall_s
    found = b""
    try:
        while True:
            ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(read, 65536) if ready else b""
            found += piece
            if not piece:
                break
    finally:
        os.close(read)
        # Its own children end with it: a mutant may leave a server or a till behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # Ended by a limit, or by a fault that took the interpreter down: it has not answered.
    return json.loads(found) if found else {"outcome": "timeout", "by": ""}


def _run_in_child(tests: Sequence[str], cpu_s: float, write: int) -> None:
    """Runs the tests and ends this process; never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.set_inheritable(write, False)
        limit = int(cpu_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        failure = _FirstFailure()
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=ci", "--no-header"]
        code = pytest.main([*options, *tests], plugins=[failure])
        by = "" if code == pytest.ExitCode.OK else failure.by or "imports"
        answer = {"outcome": "killed" if by else "survived", "by": by}
        os.write(write, json.dumps(answer).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1:]))
