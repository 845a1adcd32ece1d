"""Do the tests notice a deliberate fault in the code? Mutants of money, attribution and gates, one at a time.

    python -m bench mutation                                  money, goods and gates, 200 mutants each
    python -m bench mutation fusion/money --n 100 --seed 7    another draw
    python -m bench mutation fusion/goods --tests tests/goods tests/test_golden.py
    python -m bench mutation --out docs/figures               and the page docs/figures/mutation.md

A seeded sample of places is drawn from a folder's modules, and one mutant of each is put into a copy of the project.
The tests that run the changed line are run, the quickest first, until one fails; where imports run it, the others come
after them, since a setting's limit is checked elsewhere. Lines that no test runs count as survivors. As a control, the
code as it is goes through the same machinery with the same tests; a control that is "killed" makes the score worthless,
and the exit code 1. Survivors are printed with their change. Those that no test can kill, since the program does the
same, stand in bench/mutation/equivalent.toml with the reason; the score is given with and without them. Progress goes
to standard error; the exit code does not depend on the score. A run that is interrupted reports what it has tried,
which is a sample too: places are tried in the order in which they are drawn.

Install the extra `mutation`. Set FUSION_POSTGRES to a server's URL, else each trial on PostgreSQL starts its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.intervals import percent
from bench.mutation.mutants import Mutant, draw
from bench.mutation.reached import Test, measure
from bench.mutation.trials import Trials, Verdict

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")

# What decides what a person pays, and who may come in; and the tests that answer for it. Whole shops would notice more
# faults, after minutes: a share that these tests leave is an upper bound.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "fusion/money": ("tests/money", "tests/till", "tests/show/test_shopper.py", "tests/commands/test_money.py"),
    "fusion/goods": ("tests/goods", "tests/test_engine.py", "tests/test_golden.py"),
    "fusion/gates": ("tests/gates", "tests/till"),
}

KILLED = ("killed", "timeout")


@dataclass(frozen=True)
class Trial:
    """A mutant and what became of it; `reason` why no test can kill it, "" where one could."""

    path: str
    line: int
    function: str
    before: str
    after: str
    outcome: str
    by: str
    n_tests: int
    reason: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, try and report; 1 where a control was killed, 2 where the command line is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"of modules ({', '.join(TARGETS)})")
    parser.add_argument("--n", type=int, default=200, help="mutants of each folder (200)")
    parser.add_argument("--seed", type=int, default=1, help="decides which are drawn (1)")
    parser.add_argument("--controls", type=int, default=10, help="trials of the code as it is, for each folder (10)")
    parser.add_argument("--tests", nargs="+", help="folders or files of tests (those of the folder's own wing)")
    parser.add_argument("--cpu-max", type=float, default=30.0, metavar="S",
                        help="of a mutant's tests, only the quickest that take this long together (30)")  # fmt: skip
    parser.add_argument("--scratch", type=Path, help="keep the copy and what was measured about tests here")
    parser.add_argument("--out", type=Path, help="write mutation.json and mutation.md into this folder")
    args = parser.parse_args(arguments)
    folders = [folder.rstrip("/") for folder in args.folders or TARGETS]
    for folder in folders:
        if not (ROOT / folder).is_dir() or not folder.startswith("fusion/"):
            parser.error(f"{folder}: no folder of fusion/; name one such as fusion/money")
        if not args.tests and folder not in TARGETS:
            parser.error(f"{folder}: which tests answer for it is not known; name them with --tests")
    with tempfile.TemporaryDirectory(prefix="fusion-mutation-") as made:
        scratch = args.scratch or Path(made)
        copy = _copied(scratch / "copy")
        results = {}
        for folder in folders:
            tests = args.tests or TARGETS[folder]
            results[folder] = _tried(folder, tests, args, copy, scratch / f"{folder.replace('/', '-')}.json")
            print(page({"folders": {folder: results[folder]}}), flush=True)
    if args.out:
        figures = {"folders": results}
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "mutation.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (args.out / "mutation.md").write_text(page(figures), encoding="utf-8")
    return int(any(result["controls_killed"] for result in results.values()))


def equivalents(path: Path = EQUIVALENT) -> dict[tuple[str, str, str, str], str]:
    """Reasons by path, function, and the lines before and after."""
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
    return {(row["path"], row["function"], row["before"], row["after"]): row["reason"] for row in rows}


def _tried(folder: str, tests: Sequence[str], args: argparse.Namespace, copy: Path, kept: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    # All of it is read from the copy: what is tried stays the same while people work on the project.
    mutants, n_places = draw(copy, folder, args.n, args.seed)
    _say(f"{folder}: {len(mutants)} of {n_places} places; which tests reach them")
    reached = measure(copy, tests, kept, environment)
    selected = [_within(args.cpu_max, reached.tests(one.path, one.lines)) for one in mutants]
    reasons = equivalents()
    trials = Trials(copy, environment)
    rows: list[Trial] = []
    controls_killed: list[str] = []
    n_controls = 0
    try:
        # Controls first: where one is killed, no score that follows is worth its time.
        can = [(mutant.path, tests) for mutant, tests in zip(mutants, selected) if tests]
        for path, those in random.Random(args.seed).sample(can, min(args.controls, len(can))):
            verdict = trials.run(path, (copy / path).read_text(encoding="utf-8"), those)
            n_controls += 1
            if verdict.outcome != "survived":
                controls_killed.append(verdict.by or path)
                _say(f"control killed: {path} by {verdict.by}")
        for number, (mutant, those) in enumerate(zip(mutants, selected), 1):
            verdict = trials.try_mutant(mutant, those)
            rows.append(_row(mutant, verdict, reasons))
            _say(f"{number} of {len(mutants)}: {verdict.outcome} {mutant.path}:{mutant.line} {verdict.by}")
            if verdict.outcome not in KILLED:
                _say(f"    - {mutant.before}\n    + {mutant.after}")
    except KeyboardInterrupt:
        _say(f"interrupted: {len(rows)} mutants and {n_controls} controls were tried")
    finally:
        trials.close()
    return {
        "n_places": n_places,
        "seed": args.seed,
        "tests": list(tests),
        "controls": n_controls,
        "controls_killed": controls_killed,
        "trials": [asdict(row) for row in rows],
    }


def _row(mutant: Mutant, verdict: Verdict, reasons: Mapping[tuple[str, str, str, str], str]) -> Trial:
    key = mutant.path, mutant.function, mutant.before, mutant.after
    reason = "" if verdict.outcome in KILLED else reasons.get(key, "")
    return Trial(
        mutant.path, mutant.line, mutant.function, mutant.before, mutant.after, verdict.outcome, verdict.by,
        verdict.n_tests, reason,
    )  # fmt: skip


def _within(cpu_max_s: float, tests: Sequence[Test]) -> list[Test]:
    """The first tests that take at most this long together, and always one."""
    kept: list[Test] = []
    total_s = 0.0
    for test in tests:
        total_s += test.cpu_s
        if kept and total_s > cpu_max_s:
            break
        kept.append(test)
    return kept


def _copied(copy: Path) -> Path:
    """A copy of the project, with what is compiled already; an earlier copy is brought up to date."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True,
    )  # fmt: skip
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    kernels = ROOT / "fusion" / "_kernels"
    compiled = [*kernels.glob("*.so"), *(kernels / "__pycache__").glob("*.nb?")]
    names |= {path.relative_to(ROOT).as_posix() for path in compiled}
    for stale in [path for path in copy.rglob("*.py") if path.relative_to(copy).as_posix() not in names]:
        stale.unlink()
    for name in names:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():
            # With its times, which Numba's cache is compared by.
            shutil.copy2(source, target)
    return copy.resolve()


def page(figures: Mapping[str, Any]) -> str:
    """The tables of docs/figures/mutation.md."""
    lines = [
        "# Deliberate faults in the code",
        "",
        "Share of mutants that a test kills (`python -m bench mutation`), in percent with its exact 95 % interval. One",
        "place of each drawn mutant is wrong: a comparison, a number, a string, an argument, an assignment. Lines that",
        "no test runs count as survivors. *Adjusted* leaves out mutants that do the same as the code; the reasons are",
        "in `bench/mutation/equivalent.toml`.",
        "",
        "| folder | places | drawn, seed | killed | of them by time | survived | no test runs it | score "
        "| equivalent | adjusted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for folder, result in figures["folders"].items():
        trials = result["trials"]
        n = Counter(trial["outcome"] for trial in trials)
        killed = n["killed"] + n["timeout"]
        equivalent = sum(1 for trial in trials if trial["reason"])
        lines.append(
            f"| `{folder}` | {result['n_places']} | {len(trials)}, {result['seed']} | {killed} | {n['timeout']} | "
            f"{n['survived']} | {n['unreached']} | {percent(killed, len(trials))} | {equivalent} | "
            f"{percent(killed, len(trials) - equivalent)} |"
        )
    controls = sum(result["controls"] for result in figures["folders"].values())
    failed = sum(len(result["controls_killed"]) for result in figures["folders"].values())
    lines += ["", f"Controls, the code as it is in the same machinery: {failed} of {controls} killed."]
    for folder, result in figures["folders"].items():
        left = [row for row in result["trials"] if row["outcome"] not in KILLED and not row["reason"]]
        lines += ["", f"## Survivors in `{folder}`", ""]
        lines += [f"- `{row['path']}:{row['line']}` {row['function'] or 'module'}, {row['outcome']}: "
                  f"`{_short(row['before'])}` as `{_short(row['after'])}`" for row in left] or ["None."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _short(code: str) -> str:
    code = code.replace("`", "'")
    return code if len(code) <= 160 else code[:157] + "..."


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
