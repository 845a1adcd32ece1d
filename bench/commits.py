"""Two commits beside each other in one run: what has become faster, and what slower.

    python -m bench commits main~20 main
    python -m bench commits v0.1.0 HEAD --only replay triangulation --rounds 7 --out docs/figures/commits.md

Both commits are installed apart from each other, as a user would install them, and measured in turns by the same
benchmarks (those of the second commit), so that a machine that slows down slows both. The first commit is installed
twice: how far it is from itself in the same rounds is the noise of this machine, and only what lies beyond it in every
round is called a change. A benchmark that the first commit cannot run is named. The exit code says whether the
comparison could be made, never which way it went.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import BENCHMARKS
from bench.machine import machine

ROOT = Path(__file__).resolve().parents[1]

# What ends in users' time: kernels as the engine calls them, and whole recordings. `gate` and `ledger` measure disks.
DEFAULT = ("replay", "triangulation", "association", "attribution", "scales")

# A change must exceed the noise of its own rounds, and this, which no user would notice.
SMALLEST_CHANGE = 0.03


class ComparisonError(Exception):
    """Why two commits could not be compared."""


@dataclass(frozen=True)
class Side:
    """One installation that is measured: its name in the table, its folder, and what it is an installation of."""

    name: str
    folder: Path
    commit: str


@dataclass(frozen=True)
class Row:
    """One benchmark on both commits.

    Attributes:
        name: of the benchmark. before_s, after_s: the median over rounds of each round's least time.
        change: after / before, the median of the rounds' ratios. noise: the largest deviation from 1, over rounds, of
            the first commit's ratio to itself.
        verdict: faster, slower, same, or why there is no comparison.
    """

    name: str
    before_s: float
    after_s: float
    change: float
    noise: float
    verdict: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the commits that the command line names; 2 where the comparison could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="commit, branch or tag")
    parser.add_argument("after", nargs="?", default="HEAD", help="the other one (HEAD)")
    in_pytest = [name for name, benchmark in BENCHMARKS.items() if benchmark.pytest]
    among = ", ".join(in_pytest)
    parser.add_argument("--only", nargs="+", choices=in_pytest, default=DEFAULT, metavar="NAME", help=among)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured (5)")
    parser.add_argument("--out", type=Path, help="write the table into this Markdown file too")
    args = parser.parse_args(arguments)
    if args.rounds < 3:
        parser.error("--rounds: want at least 3, since a change must show in every round")
    try:
        commits = [_commit(revision) for revision in (args.before, args.after)]
        with tempfile.TemporaryDirectory(prefix="commits-") as scratch:
            rows = _compare(Path(scratch), commits, args.only, args.rounds)
    except ComparisonError as error:
        print(f"python -m bench commits: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"python -m bench commits: {' '.join(error.cmd[:6])} ...\n{error.stderr}", file=sys.stderr)
        return 2
    text = table(rows, commits, args.rounds)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


def verdict(before: Sequence[float], again: Sequence[float], after: Sequence[float]) -> tuple[float, float, str]:
    """The change, this machine's noise, and what they mean.

    Args:
        before, again, after: seconds in each round: of the first commit, of its second installation, of the other.

    Returns:
        The median of after / before, the largest |again / before - 1|, and faster, slower or same: a change is beyond
        the noise in every round, to the same side.
    """
    ratios = [b / a for a, b in zip(before, after)]
    noise = max(abs(b / a - 1.0) for a, b in zip(before, again))
    limit = max(noise, SMALLEST_CHANGE)
    change = statistics.median(ratios)
    if all(ratio > 1.0 + limit for ratio in ratios):
        return change, noise, "slower"
    if all(ratio < 1.0 / (1.0 + limit) for ratio in ratios):
        return change, noise, "faster"
    return change, noise, "same"


def table(rows: Sequence[Row], commits: Sequence[str], rounds: int) -> str:
    """The comparison as Markdown."""
    lines = [
        "# Two commits in one run",
        "",
        f"`python -m bench commits {commits[0]} {commits[1]} --rounds {rounds}`, one core. {machine()}.",
        "",
        "Median over rounds of the least time; `noise` is how far the first commit was from itself in the same rounds.",
        "A change is one that lies beyond it in every round.",
        "",
        f"| benchmark | {commits[0]} | {commits[1]} | change | noise | |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.name):
        figures = [_duration(row.before_s), _duration(row.after_s)]
        figures += ["" if math.isnan(row.change) else f"{100 * (row.change - 1):+.0f} %"]
        figures += ["" if math.isnan(row.noise) else f"{100 * row.noise:.0f} %"]
        mark = row.verdict if row.verdict == "same" else f"**{row.verdict}**"
        lines.append(f"| {row.name} | {' | '.join(figures)} | {mark} |")
    return "\n".join(lines) + "\n"


def _compare(scratch: Path, commits: Sequence[str], names: Sequence[str], rounds: int) -> list[Row]:
    """Install three sides and measure them in turns."""
    before, after = (_install(scratch, name, commit) for name, commit in zip(("before", "after"), commits))
    again = shutil.copytree(before, scratch / "again")
    sides = [Side("before", before, commits[0]), Side("again", again, commits[0]), Side("after", after, commits[1])]
    measure = scratch / "measure"
    _unpack(commits[1], measure, ("bench", "tests", "pyproject.toml"))
    times: dict[str, dict[str, list[float]]] = {side.name: {} for side in sides}
    for turn in range(rounds):
        # Each side is first, second and third equally often, whatever the machine does meanwhile.
        for side in (*sides[turn % 3 :], *sides[: turn % 3]):
            print(f"round {turn + 1} of {rounds}: {side.name} ({side.commit})", file=sys.stderr, flush=True)
            for name, seconds in _measured(side, measure, names, scratch).items():
                times[side.name].setdefault(name, []).append(seconds)
    if not times["after"]:
        raise ComparisonError(f"none of {', '.join(names)} runs on {commits[1]}, whose own benchmarks measure both")
    return [_row(name, times, rounds) for name in sorted(set().union(*times.values()))]


def _row(name: str, times: dict[str, dict[str, list[float]]], rounds: int) -> Row:
    before, again, after = (times[side].get(name, []) for side in ("before", "again", "after"))
    medians = [statistics.median(seconds) if seconds else math.nan for seconds in (before, after)]
    if not len(before) == len(again) == len(after) == rounds:
        missing = "first commit" if len(before) + len(again) < 2 * rounds else "second commit"
        return Row(name, *medians, math.nan, math.nan, f"does not run on the {missing}")
    return Row(name, *medians, *verdict(before, again, after))


def _commit(revision: str) -> str:
    """A revision's short name; CalledProcessError where there is none."""
    return _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    if done.returncode:
        fault = done.stderr.decode(errors="replace")
        raise subprocess.CalledProcessError(done.returncode, ["git", *words], stderr=fault)
    return done.stdout


def _unpack(commit: str, folder: Path, paths: Sequence[str] = ()) -> None:
    folder.mkdir()
    archive = _git("archive", "--format=tar", commit, *paths)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def _install(scratch: Path, name: str, commit: str) -> Path:
    """Build a commit as its own requirements want it and install it, alone, into a folder."""
    print(f"installing {commit} as {name}", file=sys.stderr, flush=True)
    source, target = scratch / f"{name}-source", scratch / name
    _unpack(commit, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(command, capture_output=True, check=True, text=True)
    return target


def _measured(side: Side, measure: Path, names: Sequence[str], scratch: Path) -> dict[str, float]:
    """The least seconds of every benchmark that runs on a side."""
    report = scratch / "report.json"
    report.unlink(missing_ok=True)
    files = [measure.joinpath("bench", *BENCHMARKS[name].module.split(".")).with_suffix(".py") for name in names]
    # The side's installation comes first; the benchmarks' folder holds no `fusion`.
    surroundings = {**os.environ, "PYTHONPATH": str(side.folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    check = f"import fusion, sys; sys.exit(0 if fusion.__file__.startswith({str(side.folder)!r}) else fusion.__file__)"
    subprocess.run([sys.executable, "-P", "-c", check], check=True, env=surroundings, capture_output=True, text=True)
    subprocess.run(
        [
            sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(measure / "pyproject.toml"),
            f"--benchmark-json={report}", "--benchmark-max-time=0.3", "--benchmark-min-rounds=5",
            "--continue-on-collection-errors", *(str(file) for file in files if file.exists()),
        ],
        cwd=measure, env=surroundings, capture_output=True, check=False,
    )  # fmt: skip
    if not report.exists():
        return {}
    rows = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    return {_name(row["fullname"]): row["stats"]["min"] for row in rows}


def _name(fullname: str) -> str:
    """`bench/speed/bench_replay.py::test_receipts[two]` as `replay: receipts[two]`."""
    file, _, function = fullname.rpartition("/")[2].partition(".py::")
    return f"{file.removeprefix('bench_')}: {function.removeprefix('test_')}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return ""
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
