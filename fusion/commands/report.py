"""`fusion report`: two runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "results", help="folder of a run, as `fusion run --out` writes it")
    add_path(parser, "--against", required=True, metavar="RESULTS", help="folder of the run to compare it with")
    add_path(parser, "--out", type=Path, default=Path("compare.html"), help="page to write (compare.html)")


def _run(arguments: argparse.Namespace) -> int:
    from fusion.errors import FusionError
    from fusion.show.comparison import Results, page, pairs

    a, b = Results.load(arguments.results), Results.load(arguments.against)
    try:
        arguments.out.write_text(page(a, b), encoding="utf-8")
    except OSError as error:
        raise FusionError(f"--out {arguments.out}: cannot be written: {error.strerror}") from None
    differing = sum(pair.rank == 0 for pair in pairs(a, b))
    print(f"{arguments.out}: {differing} bills differ")
    return 1 if differing else 0


REPORT = Command(
    "report",
    "Compare two runs: what was set differently, and which visits got another bill.",
    ("out/before --against out/after", "out/before --against out/after --out compare.html"),
    {0: "every visit has the same bill in both runs", 1: "bills differ; the page lists them first"},
    _declare,
    _run,
)
