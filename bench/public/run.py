"""Published sets through the engine, with one set of defaults, and beside other packages on the same detections.

    python -m bench public FOLDER...                     every set in these folders and below; FUSION_DATA without one
    python -m bench public FOLDER... --only shelf cmc1   only sets whose name contains one of these
    python -m bench public FOLDER... --no-peers          the engine alone
    FUSION_MODEL=movenet.json python -m bench public ... also sets with videos alone, with a model of `fusion detect`
    python -m bench public FOLDER... --out docs/figures  also public.md, public.json and a plot

Nothing is fetched: a set is read in the form in which its authors publish it, from where you put it. What was not
found, and what was found and cannot be run, is listed with what is wanted. Other packages run in the same process where
they are installed (`bench/public/peers.py` lists them), and each row gives its version.

- MODA, MOTA, IDF1: people on the floor within half a metre, every track from its first frame on (a ghost counts);
  HOTA: the mean over 19 thresholds, similarity 0 at 2 m. In percent.
- PCP: percentage of ten body parts whose ends are off by at most half the part's length, the mean over the persons
  that the set's authors score; a missed person's parts are wrong. MPJPE: mean error of the joints that are known of
  people who were found, in millimetres, with the share of true joints that those are.
- people: estimates at an instant, since PCP does not punish people who are not there.
- receipts: true visits; settled, settled wrongly and sent to review; right in any status.
- triangulation: every package gets the same undistorted keypoints, sorted by person with the help of the truth: what is
  compared is points alone. The engine's row above it had to find out who is who, and has a filter over time.
- a camera left out: the person is located by the other cameras, and projected into that one; these clips have
  no annotations. The error contains the detector's in both pictures, and so cannot become small.
- tracking: every package gets the same places on the floor, fused from all cameras by a chain of NumPy and SciPy, and
  its score contains that chain's faults. The engine gets the raw detections, and appearance where the set has it.
- µs: CPU time of one point, or of one instant without the fusing of places; of one thread with `OMP_NUM_THREADS=1`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.machine import machine
from bench.public import peers
from bench.public.goods import score_events, score_visits
from bench.public.metrics import FloorScore, PoseScore, score_floor
from bench.public.sets import SETS, find
from bench.public.task import Task, Tracks, UnusableError, layout_of
from fusion import replay
from fusion.errors import FusionError
from fusion.files.recordings import Recording

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
    """The engine on one set: its scores, and the time of its steps."""
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
        try:
            row |= score_visits(task.recording, out) if task.visits else {}
            row |= score_events(task.recording, out) if task.events else {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnusableError(f"{task.recording}/truth: want visits.jsonl or events.csv, got {error!r}") from None
    n_cameras = len(Recording(task.recording).store.cameras)
    if summary.frames and summary.engine_cpu_s:
        row["sets_per_cpu_s"] = round(summary.frames / n_cameras / summary.engine_cpu_s)
    return row | {"step_p50_us": round(summary.step_us["p50"]), "step_p99_us": round(summary.step_us["p99"])}


def run_peers(task: Task) -> list[Row]:
    """What is installed besides, on the same task."""
    rows: list[Row] = []
    if task.poses:
        for row in peers.triangulations(task, task.poses, layout_of(task.recording)):
            rows.append({"work": "triangulation", **_plain(row), **pose_figures(row["pose"])})
    if task.left_out:
        for row in peers.left_out(task):
            figures = {key: round(row[key], 1) for key in ("median_px", "p90_px", "located")}
            rows.append({"work": "left out", "task": row["task"], "implementation": row["implementation"], **figures})
    if task.places:
        for row in peers.tracked(task, task.places):
            rows.append({"work": "tracking", **_plain(row), **floor_figures(row["floor"])})
    return rows


def _plain(row: Row) -> Row:
    return {"task": row["task"], "implementation": row["implementation"], "each_us": round(row["each_us"], 2)}


def measure(folders: Sequence[Path], only: Sequence[str], with_peers: bool) -> dict[str, Any]:
    """Convert, run and score every set: rows, peers, and what was not reachable."""
    rows: list[Row] = []
    others: list[Row] = []
    unusable: list[Row] = []
    found: set[str] = set()
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        for number, (known, folder, name) in enumerate(find(folders)):
            found.add(known.name)
            if only and not any(part in name for part in only):
                continue
            try:
                # Two copies of a set, such as with detections of two models, are distinguished by where they lie.
                task = replace(known.convert(folder, Path(work) / str(number)), name=name)
                row = run_task(task)
            except (UnusableError, FusionError) as error:
                unusable.append({"set": name, "form": known.name, "reason": str(error).splitlines()[0]})
                continue
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
            others += run_peers(task) if with_peers else []
    missing = [{"set": known.name, "form": known.form, "source": known.source}
               for known in SETS if known.name not in found]  # fmt: skip
    return {
        "machine": machine(),
        "wall_s": round(time.perf_counter() - started_s),
        "rows": rows,
        "peers": others,
        "unusable": unusable,
        "missing": missing,
    }


# ---- tables ----------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join('-' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _people(rows: Sequence[Row]) -> str:
    keys = ("task", "detections", "pcp", "mpjpe_mm", "joints_known", "people", "moda", "mota", "idf1", "hota",
            "switches", "sets_per_cpu_s", "step_p50_us", "step_p99_us")  # fmt: skip
    head = ("set", "detections", "PCP %", "MPJPE mm", "of joints %", "people", "MODA %", "MOTA %", "IDF1 %", "HOTA %",
            "switches", "sets of frames a CPU second", "step p50 µs", "p99 µs")  # fmt: skip
    return _table(head, [[*map(row.get, keys)] for row in rows])


def page(measured: dict[str, Any]) -> str:
    """The published page: tables, what was not reachable, and the explanation of the figures."""
    rows = measured["rows"]
    people = [row for row in rows if "moda" in row or "mpjpe_mm" in row]
    receipts = [row for row in rows if "visits" in row]
    events = [row for row in rows if "true_events" in row]
    parts = [f"# Published sets\n\nMade by `{measured['command']}` in {measured['wall_s']} s. {measured['machine']}."]
    if people:
        plot = "![Errors of joints, and people followed, of the engine and of other packages](public.svg)"
        parts += [plot, "## People", _people(people)]
    joints = [row for row in measured["peers"] if row["work"] == "triangulation"]
    if joints:
        head = ("set", "triangulation", "PCP %", "MPJPE mm", "of joints %", "µs a point")
        keys = ("task", "implementation", "pcp", "mpjpe_mm", "joints_known", "each_us")
        parts += ["## Triangulation beside other packages", _table(head, [[*map(row.get, keys)] for row in joints])]
    views = [row for row in measured["peers"] if row["work"] == "left out"]
    if views:
        head = ("set", "triangulation", "median px", "p90 px", "of joints %")
        keys = ("task", "implementation", "median_px", "p90_px", "located")
        parts += ["## A camera left out", _table(head, [[*map(row.get, keys)] for row in views])]
    tracking = [row for row in measured["peers"] if row["work"] == "tracking"]
    if tracking:
        head = ("set", "tracking", "MODA %", "MOTA %", "IDF1 %", "HOTA %", "switches", "µs an instant")
        keys = ("task", "implementation", "moda", "mota", "idf1", "hota", "switches", "each_us")
        parts += ["## Tracking beside other packages", _table(head, [[*map(row.get, keys)] for row in tracking])]
    if receipts:
        head = ("set", "visits", "settled", "settled wrongly", "review", "right")
        keys = ("task", "visits", "settled", "settled_wrong", "review", "right")
        parts += ["## Receipts", _table(head, [[row[key] for key in keys] for row in receipts])]
    if events:
        head = ("set", "true", "reported", "worst time error, s", "least probability of the right product")
        keys = ("task", "true_events", "reported_events", "time_error_s", "right_product_p")
        parts += ["## Shelf events", _table(head, [[row[key] for key in keys] for row in events])]
    if unusable := [[row["set"], row["form"], row["reason"]] for row in measured["unusable"]]:
        parts += ["## Found, and not run", _table(("set", "form", "reason"), unusable)]
    if missing := [[row["set"], row["form"], row["source"]] for row in measured["missing"]]:
        parts += ["## Not at hand when this was made", _table(("set", "its folder", "source"), missing)]
    parts.append((__doc__ or "").partition("each row gives its version.\n\n")[2])
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 2 where a folder does not exist or holds no set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a set, or a folder of sets")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="the engine alone")
    parser.add_argument("--out", type=Path, help="folder for the page, its figures as JSON, and the plot")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only sets whose name contains this")
    args = parser.parse_args(arguments)
    shared = Path(os.environ.get("FUSION_DATA", _HERE.parents[3] / "shared" / "data"))
    folders = args.folders or [shared]
    for folder in folders:
        if not folder.is_dir():
            hint = "; set FUSION_DATA or name folders" if not args.folders else ""
            print(f"python -m bench public: {folder} is not a folder{hint}", file=sys.stderr)
            return 2
    measured = measure(folders, args.only, args.peers)
    model = os.environ.get("FUSION_MODEL")
    measured["command"] = " ".join([*([f"FUSION_MODEL={Path(model).name}"] if model else []), "python -m bench public"])
    print(page(measured))
    if not measured["rows"] and not measured["unusable"]:
        print("python -m bench public: no set was found in these folders", file=sys.stderr)
        return 2
    if args.out:
        from bench.plots import publish

        publish("public", measured, page, args.out)
    return 0
