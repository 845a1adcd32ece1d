"""A run as one page: `report.html` shows who was where, what they took, what it cost and why, and how the engine fared.

The page is one self-contained file that opens offline: the plan of the floor is SVG made here, the rest is data that a
script in the page draws. People are kept at a few positions a second in centimetres, so an hour of a store is a few
megabytes, in memory and on disk; a longer run is kept more coarsely, so that the size has a bound.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion.errors import OrderError
from fusion.results import Result, RunEnd, RunSummary, ShelfCount
from fusion.show.collected import Collected, Limits
from fusion.show.page import clean, filled, page_file, script_json
from fusion.show.plan import Plan
from fusion.show.report_data import TrueVisit, page_data
from fusion.store.models import Store

if TYPE_CHECKING:
    from fusion.engine import Engine


class Report:
    """Collects what the engine answers and writes it as a page.

        run = Run(recording.store, recording.observations())
        report = Report(recording.store, "Tuesday morning", run.engine)
        run.drive([report], recording)
        report.write("report.html")

    Attributes:
        store: the store of the run.
        title: heading of the page.
    """

    def __init__(
        self, store: Store, title: str | None = None, engine: Engine | None = None, limits: Limits | None = None
    ) -> None:
        """Begin a page.

        Args:
            store: the store of the run.
            title: heading; the store's name by default.
            engine: asked for the evidence of settled receipts, the health of sensors and the times of its steps;
                without it the page has evidence for reviews only, and no health.
            limits: how much is kept.
        """
        self.store = store
        self.title = title or store.name
        self._run = Collected(store, engine, limits or Limits())
        self._end: RunEnd | None = None

    @property
    def left_out(self) -> Counter[str]:
        """Results that were not kept because they exceeded a limit, by kind."""
        return self._run.left_out

    @property
    def n_samples(self) -> int:
        """Positions of people that are kept."""
        return self._run.presence.n_samples

    def add(self, result: Result | RunEnd) -> None:
        """Take one result, in the order in which the engine answers; a sink of `fusion.run`."""
        if isinstance(result, RunEnd):
            self._end = result
        else:
            self._run.add(result)

    def close(self) -> None:
        """Nothing is held open: `write` makes the page whenever it is called."""

    def data(
        self,
        summary: RunSummary | None = None,
        truth: Iterable[TrueVisit] | None = None,
        shelves: Iterable[ShelfCount] | None = None,
    ) -> dict[str, Any]:
        """The data of the page, as JSON can hold it; arguments and errors are those of `write`."""
        if summary is None:
            if self._end is None:
                raise OrderError("summary: want the figures of the run, since it has not ended")
            summary = self._end.summary
        if shelves is None:
            shelves = () if self._end is None else self._end.shelves
        return page_data(self._run, self.title, summary, None if truth is None else list(truth), list(shelves))

    def write(
        self,
        path: str | Path,
        summary: RunSummary | None = None,
        truth: Iterable[TrueVisit] | None = None,
        shelves: Iterable[ShelfCount] | None = None,
    ) -> None:
        """Write the page.

        Args:
            path: the file; its folder exists.
            summary: figures of the run; by default those of the `RunEnd` that was added.
            truth: rows as in truth/visits.jsonl, where it is known what everybody really took; receipts are compared
                with them.
            shelves: stock at the end, as from `Engine.shelf_state`; by default that of the `RunEnd`.

        Raises:
            OrderError: there is no summary, and the run has not ended.
        """
        plan = Plan(self.store, self._run.presence.extent_m())
        parts = {
            "title": html.escape(clean(self.title)),
            "css": "".join(map(page_file, ("plan.css", "evidence.css", "report.css"))),
            "js": "".join(map(page_file, ("page.js", "evidence.js", "report.js"))),
            "plan": plan.ground(),
            "labels": plan.labels(),
            "names": plan.names(),
            "viewbox": plan.viewbox,
            "data": script_json(self.data(summary, truth, shelves)),
        }
        Path(path).write_text(filled("report.html", parts), encoding="utf-8")

    def write_svg(self, path: str | Path, until_s: float | None = None) -> None:
        """Write a still picture of the floor with everybody's paths and the shelf events, as SVG.

        Args:
            path: the file; its folder exists.
            until_s: leave out what comes later than this many seconds after the start; people present then are marked.
        """
        run = self._run
        plan = Plan(self.store, run.presence.extent_m())
        end_ns = run.end_ns if until_s is None else run.start_ns + round(until_s * 1e9)
        end_tick = (end_ns - run.start_ns) // run.presence.period_ns
        drawn, dots = [], []
        for track in run.presence.paths:
            lines, dot = self._path(track, end_tick, plan.unit_cm)
            drawn += lines
            dots += dot
        plates = {plate.plate: plate for plate in self.store.plates}
        for event in run.events():
            plate = plates.get(event.plate)
            if plate is not None and event.t_ns <= end_ns and event.candidates:
                drawn.append(plan.event_mark(plate, event.candidates[0].quantity < 0, 6 * plan.unit_cm))
        page = plan.picture(self.title, "".join([*drawn, *dots]))
        Path(path).write_text(page, encoding="utf-8")

    def _path(self, track: int, end_tick: int, unit_cm: float) -> tuple[list[str], list[str]]:
        """A track's lines up to a tick, and a numbered dot where it is at that tick, as SVG."""
        # Without gates there are no visits, and tracks are numbered instead.
        has_gates = bool(self.store.gate)
        index = self._run.visitors.of_track(track) if has_gates else track
        number = "?" if index is None else str(index + has_gates)
        colour = "none" if index is None else str(index % 8)
        long = " long" if len(number) > 2 else ""
        lines, dots = [], []
        for stretch in self._run.presence.stretches(self._run.presence.paths[track]):
            points = stretch.points_cm[: max(0, end_tick - stretch.tick + 1)].tolist()
            if not points:
                break
            coordinates = " ".join(f"{x},{-y}" for x, y in points)
            lines.append(f'<polyline class="path c{colour}" points="{coordinates}"/>')
            if stretch.tick + len(points) > end_tick:
                x, y = points[-1]
                dots.append(
                    f'<circle class="dot c{colour}" cx="{x}" cy="{-y}" r="{8.5 * unit_cm:.1f}"/>'
                    f'<text class="number-in{long}" x="{x}" y="{-y + unit_cm / 2:.1f}">{number}</text>'
                )
        return lines, dots
