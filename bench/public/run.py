"""Published sets through the engine, with one set of defaults.

    python -m bench public FOLDER...                     every set in these folders and below; FUSION_DATA without one
    python -m bench public FOLDER... --only shelf cmc1   only tasks whose name contains one of these

Nothing is fetched: a set is read in the form in which its authors publish it, from where you put it. What was not
found, and what was found and cannot be run, is listed with what is wanted.

- MODA, MOTA, IDF1: people on the floor within half a metre, every track from its first frame on (a ghost counts);
  HOTA: the mean over 19 thresholds, similarity 0 at 2 m. In percent.
- PCP: percentage of ten body parts whose ends are off by at most half the part's length, the mean over the persons
  whom the set's authors score; a missed person's parts are wrong. MPJPE: mean error of the joints that are known of
  people who were found, in millimetres, with the share of true joints that those are.
- people: estimates at an instant, since PCP does not punish people who are not there.
- receipts: true visits; settled, settled wrongly and sent to review; right in any status.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine
from bench.public.goods import score_events, score_visits
from bench.public.metrics import FloorScore, PoseScore, score_floor
from bench.public.sets import SETS, find
from bench.public.task import Task, Tracks, UnusableError, layout_of
from fusion import replay
from fusion.errors import FusionError

_HERE = Path(__file__).resolve()

Row = dict[str, Any]


def floor_figures(score: FloorScore) -> dict[str, float]:
    """Percentages and counts for tables."""
    return {
        "moda": round(100 * score.moda, 2),
        "mota": round(100 * score.mota, 2),
        "idf1": round(100 * score.idf1, 2),
        "hota": round(100 * score.hota, 2),
        "switches": score.switches,
    }


def pose_figures(score: PoseScore) -> dict[str, Any]:
    """Percentages and millimetres for tables; what has no value is left out."""
    figures = {
        "pcp": round(score.average, 2),
        "pcp_persons": [round(share, 2) for share in score.pcp],
        "mpjpe_mm": round(score.mpjpe_mm, 1),
        "joints_known": round(100 * score.known, 1),
        "people": round(score.people_per_instant, 2),
    }
    return {key: value for key, value in figures.items() if value == value and value != []}


def run_task(task: Task) -> Row:
    """The engine on one task: its scores, and the time of its steps."""
    row: Row = {"task": task.name, "detections": task.detections}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        summary = replay(task.recording, out)
        if task.poses or task.places:
            tracks = Tracks.of_results(out)
            if task.poses:
                row |= pose_figures(task.poses.score(tracks, layout_of(task.recording)))
            if task.places:
                row |= floor_figures(score_floor(list(task.places.scenes(tracks))))
        if task.visits:
            row |= score_visits(task.recording, out)
        if task.events:
            row |= score_events(task.recording, out)
    step = summary.step_us
    return row | {"frames": summary.frames, "step_p50_us": round(step["p50"]), "step_p99_us": round(step["p99"])}


def measure(folders: Sequence[Path], only: Sequence[str]) -> dict[str, Any]:
    """Convert, run and score every set: rows, peers, and what was not reachable."""
    rows: list[Row] = []
    unusable: list[Row] = []
    found: set[str] = set()
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        for number, (known, folder) in enumerate(find(folders)):
            found.add(known.name)
            try:
                tasks = known.convert(folder, Path(work) / str(number))
            except (UnusableError, FusionError) as error:
                unusable.append({"set": f"{known.name}: {folder.name}", "reason": str(error).splitlines()[0]})
                continue
            for task in tasks:
                if only and not any(part in task.name for part in only):
                    continue
                rows.append(run_task(task))
                print(rows[-1], file=sys.stderr, flush=True)
    missing = [{"set": known.name, "form": known.form, "source": known.source}
               for known in SETS if known.name not in found]  # fmt: skip
    return {
        "machine": machine(),
        "wall_s": round(time.perf_counter() - started_s),
        "rows": rows,
        "unusable": unusable,
        "missing": missing,
    }


# ---- tables ----------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join('-' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _people(rows: Sequence[Row]) -> str:
    keys = ("pcp", "mpjpe_mm", "joints_known", "people", "moda", "mota", "idf1", "hota", "switches")
    head = ("set", "detections", "PCP %", "MPJPE mm", "of joints %", "people", "MODA %", "MOTA %", "IDF1 %", "HOTA %",
            "switches", "step p50 / p99 µs")  # fmt: skip
    return _table(
        head,
        [
            [row["task"], row["detections"], *map(row.get, keys), f"{row['step_p50_us']} / {row['step_p99_us']}"]
            for row in rows
        ],
    )


def page(measured: dict[str, Any]) -> str:
    """The published page: tables, what was not reachable, and the explanation of the figures."""
    rows = measured["rows"]
    people = [row for row in rows if "moda" in row or "mpjpe_mm" in row]
    receipts = [row for row in rows if "visits" in row]
    events = [row for row in rows if "true_events" in row]
    parts = [f"# Published sets\n\nMade by `{measured['command']}` in {measured['wall_s']} s. {measured['machine']}."]
    if people:
        parts += ["## People", _people(people)]
    if receipts:
        head = ("set", "visits", "settled", "settled wrongly", "review", "right")
        keys = ("task", "visits", "settled", "settled_wrong", "review", "right")
        parts += ["## Receipts", _table(head, [[row[key] for key in keys] for row in receipts])]
    if events:
        head = ("set", "true", "reported", "worst time error, s", "least probability of the right product")
        keys = ("task", "true_events", "reported_events", "time_error_s", "right_product_p")
        parts += ["## Shelf events", _table(head, [[row[key] for key in keys] for row in events])]
    if unusable := [[row["set"], row["reason"]] for row in measured["unusable"]]:
        parts += ["## Found, and not run", _table(("set", "reason"), unusable)]
    if missing := [[row["set"], row["form"], row["source"]] for row in measured["missing"]]:
        parts += ["## Not at hand when this was made", _table(("set", "its folder", "source"), missing)]
    parts.append((__doc__ or "").partition("listed with what is wanted.\n\n")[2])
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 2 where a folder does not exist or holds no set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a set, or a folder of sets")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only tasks whose name contains this")
    args = parser.parse_args(arguments)
    shared = Path(os.environ.get("FUSION_DATA", _HERE.parents[3] / "shared" / "data"))
    folders = args.folders or [shared]
    for folder in folders:
        if not folder.is_dir():
            hint = "; set FUSION_DATA or name folders" if not args.folders else ""
            print(f"python -m bench public: {folder} is not a folder{hint}", file=sys.stderr)
            return 2
    measured = measure(folders, args.only)
    measured["command"] = "python -m bench public"
    print(page(measured))
    if not measured["rows"] and not measured["unusable"]:
        print("python -m bench public: no set was found in these folders", file=sys.stderr)
        return 2
    return 0
