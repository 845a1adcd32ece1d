"""Two runs side by side as one page: what was set differently, and which bills came out differently.

It reads the folders that runs have written, so that runs of different versions and machines can be compared.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion.errors import ConfigError
from fusion.files.results import RUN_FILE, SETUP_FILE
from fusion.show.page import clean, filled, page_file
from fusion.store.iso4217 import amount_text
from fusion.store.rotations import rotation_matrix

# Receipts of one account are the same visit where its exits are at most this far apart: two replays of one recording
# differ by a fraction of a second, two visits of one person by minutes.
SAME_EXIT_S = 20.0
# Rows of settings that are shown; a store with another catalogue may differ in thousands.
SETTINGS_MAX = 400
# Stands for a value that a run has not.
ABSENT = "\u2013"

Row = dict[str, Any]


class Setting(NamedTuple):
    """A value that differs; None where one of the runs has no such value."""

    name: str
    a: str | None
    b: str | None


class Pair(NamedTuple):
    """A visit's receipts in both runs; None where one of them has none."""

    a: Row | None
    b: Row | None

    @property
    def rank(self) -> int:
        """0 where the bills differ, 1 where only the status does, 2 where only reasons do, 3 where nothing does."""
        if self.a is None or self.b is None or _pieces(self.a) != _pieces(self.b) or self.a["total"] != self.b["total"]:
            return 0
        if self.a["status"] != self.b["status"]:
            return 1
        return 2 if self.a["reason"] != self.b["reason"] else 3


@dataclass(frozen=True)
class Results:
    """What a run has written into its folder.

    Attributes:
        folder: where it is.
        run: run.json: version and figures; empty where the run has not ended.
        setup: setup.json: what the run was made with.
        receipts: rows of receipts.jsonl.
    """

    folder: Path
    run: Row
    setup: Row
    receipts: list[Row]

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read the folder of a run. Raises ConfigError where it is none, or a file in it is damaged."""
        folder = Path(folder)
        setup, receipts = folder / SETUP_FILE, folder / "receipts.jsonl"
        if not setup.is_file() or not receipts.is_file():
            wanted = f"want a folder that `fusion run --out` has written, with {SETUP_FILE} and receipts.jsonl"
            raise ConfigError(f"{folder}: {wanted}")
        run = folder / RUN_FILE
        rows = []
        with receipts.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                rows.append(_json(line, f"{receipts}: row {number}"))
        figures = _json(run.read_text(encoding="utf-8"), str(run)) if run.is_file() else {}
        return cls(folder, figures, _json(setup.read_text(encoding="utf-8"), str(setup)), rows)


def _json(text: str, where: str) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: want a JSON object, as a run writes it: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: want a JSON object, got {str(row)[:50]}")
    return row


def settings(a: Results, b: Results) -> list[Setting]:
    """What was set differently: versions, thresholds, calibrations, goods; in this order."""
    rows = []
    ours, theirs = dict(_flat(a.setup)), dict(_flat(b.setup))
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name.startswith("cameras."):
            continue
        if ours.get(name) != theirs.get(name):
            rows.append(Setting(name, _shown(ours.get(name)), _shown(theirs.get(name))))
    goods = [row for row in rows if row.name.startswith(("products.", "tables."))]
    return [*(row for row in rows if row not in goods), *_calibrations(a.setup, b.setup), *goods]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested objects with the path to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(value: Any) -> str | None:
    return None if value is None else clean(value if isinstance(value, str) else json.dumps(value))


def _calibrations(a: Row, b: Row) -> Iterator[Setting]:
    """Cameras that stand, look or see differently, in millimetres, degrees and pixels."""
    ours, theirs = a.get("cameras", {}), b.get("cameras", {})
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name), theirs.get(name)
        if one == other:
            continue
        if one is None or other is None:
            yield Setting(f"camera {name}", "there" if one else None, "there" if other else None)
            continue
        turns = [rotation_matrix(camera["rotation"]) for camera in (one, other)]
        centres = [-turn.T @ np.array(camera["translation"]) for turn, camera in zip(turns, (one, other))]
        cosine = (np.trace(turns[0].T @ turns[1]) - 1.0) / 2.0
        shift = (
            f"{1000 * float(np.linalg.norm(centres[1] - centres[0])):.1f} mm away, turned by "
            f"{math.degrees(math.acos(min(1.0, max(-1.0, float(cosine))))):.3f} degrees"
        )
        focal = [f"focal length {camera['matrix'][0][0]:.2f} px" for camera in (one, other)]
        yield Setting(f"camera {name}", focal[0], f"{focal[1]}; {shift}")


def pairs(a: Results, b: Results) -> list[Pair]:
    """Every visit of both runs; those whose bills differ come first, then those whose status does."""
    left = list(b.receipts)
    found = []
    for receipt in a.receipts:
        same = [other for other in left if _same_visit(receipt, other)]
        other = min(same, key=lambda row: abs(row["exit"] - receipt["exit"]), default=None)
        if other is not None:
            left.remove(other)
        found.append(Pair(receipt, other))
    found += [Pair(None, other) for other in left]
    return sorted(found, key=lambda pair: (pair.rank, (pair.a or pair.b or {})["exit"]))


def _same_visit(a: Row, b: Row) -> bool:
    close = abs(a["exit"] - b["exit"]) <= SAME_EXIT_S * 1e9
    return bool(close and a["account"] == b["account"])


def _pieces(receipt: Row) -> Counter[str]:
    pieces: Counter[str] = Counter()
    for line in receipt["lines"]:
        pieces[line["gtin"]] += line["quantity"]
    return pieces


def page(a: Results, b: Results) -> str:
    """The page, complete in itself."""
    differing, found = settings(a, b), pairs(a, b)
    counts = Counter(pair.rank for pair in found)
    names = {**a.setup.get("products", {}), **b.setup.get("products", {})}
    words = (
        f"{counts[0]} bills differ, {counts[1]} only in their status, {counts[2]} only in the reason; "
        f"{counts[3]} are the same."
    )
    parts = {
        "css": "".join(map(page_file, ("plan.css", "report.css", "compare.css"))),
        "title": "Two runs: " + " against ".join(html.escape(clean(str(run.folder))) for run in (a, b)),
        "summary": words,
        "runs": _runs_table(a, b),
        "settings": _settings_table(differing),
        "visits": "".join(_pair_row(pair, names) for pair in found)
        or '<tr><td colspan="4">Neither run has receipts.</td></tr>',
    }
    return filled("compare.html", parts)


def _cells(*texts: object, tag: str = "td") -> str:
    return "".join(f"<{tag}>{html.escape(str(text))}</{tag}>" for text in texts)


def _breakable(name: str) -> str:
    """A dotted name as HTML that a narrow column breaks between its parts."""
    return html.escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _runs_table(a: Results, b: Results) -> str:
    rows = []
    for name, key in (("Frames", "frames"), ("Weight messages", "messages"), ("Engine, s of CPU", "engine_cpu_s")):
        values = [run.run.get(key, ABSENT) for run in (a, b)]
        rows.append([name, *(round(value, 2) if isinstance(value, float) else value for value in values)])
    for name, status in (("Settled", "settled"), ("For review", "review")):
        rows.append([name, *(sum(row["status"] == status for row in run.receipts) for run in (a, b))])
    rows.append(["Charged, in minor units", *(sum(row["total"] for row in run.receipts) for run in (a, b))])
    head = [["Version", *(run.run.get("version", run.setup.get("version", ABSENT)) for run in (a, b))]]
    return "".join(f'<tr><th scope="row">{html.escape(str(row[0]))}</th>{_cells(*row[1:])}</tr>' for row in head + rows)


def _settings_table(rows: Sequence[Setting]) -> str:
    if not rows:
        return '<tr><td colspan="3">Nothing: version, settings, calibrations and goods are the same.</td></tr>'
    shown = [
        f'<tr><th scope="row">{_breakable(row.name)}</th>{_cells(row.a or ABSENT, row.b or ABSENT)}</tr>'
        for row in rows[:SETTINGS_MAX]
    ]
    if len(rows) > SETTINGS_MAX:
        shown.append(f'<tr><td colspan="3">and {len(rows) - SETTINGS_MAX} more</td></tr>')
    return "".join(shown)


def _pair_row(pair: Pair, products: Mapping[str, Any]) -> str:
    sign = ("\u2260 bill", "\u2260 status", "\u2260 reason", "= same")[pair.rank]
    kind = ("bad", "warn", "", "good")[pair.rank]
    either = pair.a or pair.b or {}
    bills = [_bill(one, other, products) for one, other in ((pair.a, pair.b), (pair.b, pair.a))]
    who = html.escape(clean(either["account"] or "no account"))
    visit = html.escape(clean(either["visit"]))
    return (
        f'<tr class="rank{pair.rank}"><td><span class="pill {kind}">{sign}</span></td>'
        f'<th scope="row">{who}<small>{visit}</small></th><td>{bills[0]}</td><td>{bills[1]}</td></tr>'
    )


def _bill(receipt: Row | None, other: Row | None, products: Mapping[str, Any]) -> str:
    """A receipt in a cell; lines that the other run has not are marked."""
    if receipt is None:
        return '<p class="why bad">no receipt</p>'
    theirs = _pieces(other) if other is not None else Counter()
    lines = []
    for gtin, quantity in sorted(_pieces(receipt).items()):
        name = html.escape(clean(products.get(gtin, {}).get("name", gtin)))
        text = f"{quantity} \u00d7 {name}"
        lines.append(f"<li>{text}</li>" if theirs[gtin] == quantity else f"<li><mark>\u2260 {text}</mark></li>")
    total = html.escape(amount_text(receipt["total"], receipt["currency"]))
    reason = f'<p class="soft">{html.escape(clean(receipt["reason"]))}</p>' if receipt["reason"] else ""
    listed = f"<ul>{''.join(lines)}</ul>" if lines else '<p class="soft">nothing</p>'
    return f"<b>{total}</b> {html.escape(clean(receipt['status']))}{listed}{reason}"
