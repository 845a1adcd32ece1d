"""The tables and plots of docs/figures, measured and drawn by one command.

    OMP_NUM_THREADS=1 python -m bench figures                      measure everything and draw it: up to an hour
    OMP_NUM_THREADS=1 python -m bench figures --only accuracy      such as accuracy or learning
    FUSION_ISA=avx2 OMP_NUM_THREADS=1 python -m bench figures --only cost_curve    what most machines have
    python -m bench figures --redraw                               draw earlier measurements again, in seconds

Each set of figures is a NAME.json with the measurements, a NAME.md with tables and their explanation, and plots as
NAME*.svg. `PUBLISHED` holds the benchmark behind each set and the options of the published run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from bench import plots
from bench.accuracy import answers, learning, people, receipts
from bench.public import run as public
from bench.speed import cost_curve

FOLDER = Path("docs/figures")


@dataclass(frozen=True)
class Published:
    """The benchmark behind a set of figures, and the options of its published run."""

    module: ModuleType
    options: tuple[str, ...]


PUBLISHED = {
    "cost_curve": Published(cost_curve, ("--sets", "225", "--repeats", "10")),
    "accuracy": Published(receipts, ("--ablations",)),
    "accuracy_people": Published(people, ("--seeds", "5")),
    "learning": Published(learning, ("--seeds", "1", "2", "3")),
    "answers": Published(answers, ()),
    "public": Published(public, ()),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and draw the sets that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(PUBLISHED), nargs="+", default=list(PUBLISHED), help="only these sets")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw from NAME.json")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"folder ({FOLDER})")
    args = parser.parse_args(arguments)
    for name in args.only:
        published = PUBLISHED[name]
        if not args.redraw:
            published.module.main([*published.options, "--out", str(args.out)])
            continue
        source = args.out / f"{name}.json"
        if not source.exists():
            parser.error(f"{source} does not exist; run without --redraw to measure first")
        figures = json.loads(source.read_text(encoding="utf-8"))
        for path in plots.draw(name, figures, published.module.page(figures), args.out):
            print(path)
