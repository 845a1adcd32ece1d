"""How much of fusion/ do the tests run? Lines and branches of each wing, in one table.

    python -m bench coverage                            the whole suite, on two processes
    python -m bench coverage tests/money -n 1           some tests only
    python -m bench coverage --out docs/figures         and the page docs/figures/coverage.md

The suite runs once as it is. Numba's kernels are machine code then, whose lines nothing can count, so the tests that
call them run once more with the compiler off; lines that either run has seen count. Commands and workers that tests
start as processes count too, other than those that are killed. Nothing is left out but blocks under TYPE_CHECKING and
bodies of `...`. Tests that fail are named; the exit code is 1 where any did, and never depends on the figures.

Install the extra `coverage`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Tests that call the kernels of association, health, presence and scales directly. Whole engines with the compiler off
# would run for hours.
OF_KERNELS = (
    "tests/people/test_association.py", "tests/people/test_health.py", "tests/people/test_existence.py",
    "tests/goods/test_scales.py",
)  # fmt: skip

# Modules that are shown by name: those with the most branches that no test takes.
N_SHOWN = 15

_HEAD = "| {} | lines | run, % | branches | taken, % |\n|---|---|---|---|---|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests and print the table; 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", help="folders or files of tests (all)")
    parser.add_argument("-n", type=int, default=2, help="processes (2)")
    parser.add_argument("--data", type=Path, help="make the table of this coverage file, and run nothing")
    parser.add_argument("--out", type=Path, help="write coverage.md into this folder")
    args = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fusion-coverage-") as made:
        data = args.data or Path(made) / "coverage"
        if not args.data:
            failed = _run(data, args.tests, args.n)
        report = Path(made) / "coverage.json"
        _coverage(data, "json", "-q", "-o", str(report))
        text = page(json.loads(report.read_text(encoding="utf-8"))["files"])
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "coverage.md").write_text(text, encoding="utf-8")
    return failed


def page(files: Mapping[str, Any]) -> str:
    """The tables of docs/figures/coverage.md.

    Args:
        files: `files` of coverage's JSON report, each with a `summary`; paths begin with `fusion/`.
    """
    wings: dict[str, list[Mapping[str, int]]] = {}
    for path, file in files.items():
        wings.setdefault(_wing(path), []).append(file["summary"])
    lines = [
        "# What the tests run",
        "",
        "Lines and branches of `fusion/` that the tests run (`python -m bench coverage`). A branch is one way out of a",
        "line with several. Numba's kernels count by runs with the compiler off. Processes that tests start count,",
        "other than those that they kill.",
        "",
        _HEAD.format("wing"),
    ]
    lines += [_row(f"`{wing}`", wings[wing]) for wing in sorted(wings)]
    lines.append(_row("**all**", [summary for rows in wings.values() for summary in rows]))
    missing = sorted(files, key=lambda path: (-files[path]["summary"]["missing_branches"], path))[:N_SHOWN]
    lines += ["", "The modules with the most branches that no test takes:", "", _HEAD.format("module")]
    lines += [_row(f"`{path}`", [files[path]["summary"]]) for path in missing]
    return "\n".join(lines) + "\n"


def _wing(path: str) -> str:
    """`fusion/money/` of `fusion/money/providers/stripe.py`; `fusion/*.py` of a module beside the wings."""
    parts = path.split("/")
    return f"{parts[0]}/{parts[1]}/" if len(parts) > 2 else "fusion/*.py"


def _row(name: str, summaries: Sequence[Mapping[str, int]]) -> str:
    n_lines, n_run, n_branches, n_taken = (
        sum(summary[key] for summary in summaries)
        for key in ("num_statements", "covered_lines", "num_branches", "covered_branches")
    )
    return f"| {name} | {n_lines} | {_percent(n_run, n_lines)} | {n_branches} | {_percent(n_taken, n_branches)} |"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _run(data: Path, tests: Sequence[str], n: int) -> int:
    """Both runs into one file of data; 1 where a test failed."""
    workers = ["-n", str(n), "--dist", "worksteal"] if n > 1 else []
    # A test under coverage on a busy machine may draw examples slowly; that is no fault of the code.
    pytest = ["run", "-m", "pytest", "--hypothesis-profile=ci"]
    compiled = _coverage(data, *pytest, *workers, *tests, check=False)
    kernels = [file for file in OF_KERNELS if not tests or any(file.startswith(name) for name in tests)]
    interpreted = 0
    if kernels:
        interpreted = _coverage(data, *pytest, "-p", "bench.interpreted", *kernels, check=False, NUMBA_DISABLE_JIT="1")
    _coverage(data, "combine", "-q", str(data.parent))
    return int(bool(compiled or interpreted))


def _coverage(data: Path, command: str, *words: str, check: bool = True, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "coverage", command, f"--data-file={data.resolve()}", *words],
        cwd=ROOT, env={**os.environ, **environment}, check=check,
    )  # fmt: skip
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
