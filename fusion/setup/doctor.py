"""Whether this machine and this installation are fit to run the engine, and what to do where they are not.

It must work where something is broken, so nothing but the standard library is imported before it is examined.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence

from fusion.setup import installation, machine, self_test
from fusion.setup.examination import Line

# What is examined, in this order: a name for where the examination itself fails, and the examination.
Examination = tuple[str, Callable[[], Iterator[Line]]]
EXAMINATIONS: tuple[Examination, ...] = (
    ("python", installation.python),
    ("fusion", installation.fusion_package),
    ("packages", installation.packages),
    ("extras", installation.extras),
    ("kernels", installation.kernels),
    ("numba cache", installation.numba_cache),
    ("folders", machine.folders),
    ("time zones", machine.time_zones),
    ("clock", machine.clocks),
    ("cores", machine.cores),
    ("kernels against NumPy", self_test.kernels_agree),
    ("self-test", self_test.simulated_run),
)


def examine(examinations: Sequence[Examination] = EXAMINATIONS) -> Iterator[Line]:
    """Examine one thing after the other. Nothing is raised: an examination that fails is a fault."""
    for subject, examination in examinations:
        try:
            yield from examination()
        except Exception as error:  # Any exception is caught: the reader needs to know about it.
            found = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Line("fault", subject, found, "report it with the whole output of this command")


def line_text(line: Line) -> str:
    """A line for a terminal; the sign is a word, never a colour alone."""
    text = f"{line.sign:7}  {line.subject}: {line.found}"
    return f"{text}\n         -> {line.advice}" if line.advice else text


def lines_json(lines: list[Line]) -> str:
    """An array of objects with a line's attributes."""
    return json.dumps([dataclasses.asdict(line) for line in lines], indent=1)
