"""What a store has taught its engine, between its books, its engine and a file beside its snapshot.

Decisions are made at a console, which knows the books and not the engine. So a store's process reads them from the
books before every snapshot, and the engine keeps how far they were read: a process that resumes from an older snapshot
reads them again. The file is for a new engine, after a change of layout or a lost snapshot, and for `fusion learnt`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fusion.engine import Engine
from fusion.files.atomic import replace_file
from fusion.money.checkpoint import Head
from fusion.money.entries import Entry
from fusion.money.visits import Standing

FILE = "learnt.json"


class Decisions(Protocol):
    """The decisions of reviewers: a `Ledger`, or what was read of one that is on a server."""

    def head(self) -> Head:
        """The newest entry."""
        ...

    def decisions_after(self, seq: int, /) -> list[Entry]:
        """Decisions with a number above `seq`, oldest first."""
        ...

    def standing(self, visit: str, /) -> Standing | None:
        """How a visit stands."""
        ...


class Teaching:
    """Brings decisions from the books to the engine, and what it has learnt to a file."""

    def __init__(self, folder: Path, ledger: Decisions, report: Callable[[str], object]) -> None:
        """Use open books, or what is known of them.

        folder: of the store's process; report: takes messages for the operator.
        """
        self._path, self._ledger, self._report = folder / FILE, ledger, report
        self._written: int | None = None

    def begin(self, engine: Engine) -> None:
        """Let a new engine start with the file, where there is one, and with the decisions that come from now on."""
        learnt = engine.planogram.learnt
        learnt.decisions_read = self._ledger.head().seq
        try:
            learnt.restore(json.loads(self._path.read_text(encoding="utf-8")))
            self._report(f"starts with version {learnt.version} of what the store has taught")
        except FileNotFoundError:
            pass
        except (ValueError, OSError) as error:
            self._report(f"{FILE} is left out: {error}")

    def step(self, engine: Engine, *, write: bool = False) -> None:
        """Learn from the decisions since the last call, and write the file if a version is new, or on request."""
        learnt = engine.planogram.learnt
        for entry in self._ledger.decisions_after(learnt.decisions_read):
            standing = self._ledger.standing(entry.visit)
            items: Counter[str] | None = None
            if standing is not None and entry.kind != "decision waive":
                items = Counter()
                for line in standing.lines:
                    items[line.gtin] += line.quantity
            engine.learn(entry.visit, items, entry.t_ns)
            learnt.decisions_read = entry.seq
        if write or learnt.version != (self._written or 0):
            replace_file(self._path, json.dumps(learnt.row(), indent=1) + "\n", private=True, durable=False)
            self._written = learnt.version
