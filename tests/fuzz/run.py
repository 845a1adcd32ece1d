"""Fuzzing of all readers: `python -m fuzz.run --seconds 20` gives each of them that long, and prints a table.

    python -m fuzz.run --seconds 60 codes llrp     two readers, a minute each
    python -m fuzz.run --replay FOLDER             reads a corpus once, without atheris, as under the sanitizers

Exit code 1 where a reader raised what it does not document, hung, or took too much memory; the bytes are kept in the
folder. Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

# Beyond the time of the search: the first calls, and a hang until it is noticed.
EXTRA_S = 240


def main() -> int:
    """Search or replay; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help="by default all of them")
    parser.add_argument("--seconds", type=int, default=20, help="for each reader (20)")
    parser.add_argument("--folder", type=Path, help="for corpora and findings; used again, it continues")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="read the corpora of such a folder once")
    parser.add_argument("--out", type=Path, help="write the table into this Markdown file too")
    args = parser.parse_args()
    if args.replay is None:
        logging.disable(logging.INFO)  # a line for each module that is instrumented
        importlib.import_module("fuzz.one")  # instruments what the readers import, so it comes first
    from fuzz.readers import READERS

    unknown = set(args.readers) - set(READERS)
    if unknown:
        parser.error(f"want some of {', '.join(READERS)}; got {', '.join(sorted(unknown))}")
    names = args.readers or list(READERS)
    if args.replay is not None:
        return replay(args.replay, names)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz-found-"))
    rows, n_findings = [], 0
    for name in names:
        row, findings = searched(name, folder, args.seconds)
        rows.append(row)
        n_findings += len(findings)
        print(row, *(f"  {finding}" for finding in findings), sep="\n", flush=True)
    text = "\n".join(["| reader | inputs | taken | refused | findings |", "|---|---|---|---|---|", *rows, ""])
    print(f"{text}\n{n_findings} findings; inputs are in {folder}")
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return int(n_findings > 0)


def searched(name: str, folder: Path, seconds: int) -> tuple[str, list[str]]:
    """Search one reader's inputs in a process of its own. Returns its row of the table, and what was found."""
    report = folder / f"{name}.json"
    report.unlink(missing_ok=True)
    # Forked, so that the instrumented modules are imported once.
    process = multiprocessing.get_context("fork").Process(target=quiet_search, args=(name, folder, seconds))
    process.start()
    process.join(seconds + EXTRA_S)
    ended = "" if process.exitcode == 0 else f"ended with {process.exitcode}; see {name}.log"
    if process.is_alive():
        process.kill()
        ended = "did not end"
    found = json.loads(report.read_text()) if report.exists() else {"counts": {}, "findings": {}}
    findings = [f"{place}: {what}" for what, place in found["findings"].items()] + ([ended] if ended else [])
    counts = found["counts"]
    cells = (name, sum(counts.values()), counts.get("taken", 0), counts.get("refused", 0), len(findings))
    return f"| {' | '.join(map(str, cells))} |", findings


def quiet_search(name: str, folder: Path, seconds: int) -> None:
    """Search with the output in a file."""
    import fuzz.one

    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    fuzz.one.search(name, folder, seconds)


def replay(folder: Path, names: list[str]) -> int:
    """Read every input of the corpora once; an error that is not documented ends it with its traceback."""
    from fuzz.readers import READERS

    for name in names:
        inputs = sorted((folder / "corpus" / name).glob("*"))
        for path in inputs:
            READERS[name].try_on(path.read_bytes())
        print(f"{name}: {len(inputs)} inputs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
