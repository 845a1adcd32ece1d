"""The plots of docs/figures, and how measured figures become files: NAME.json, NAME.md with tables, NAME*.svg.

Plots fit light and dark pages. The same figures give the same files, byte for byte, with one version of Matplotlib.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.intervals import share_interval

# ---- style -----------------------------------------------------------------------------------------------------------

# Plots are drawn in the light colours; dark pages show the dark ones. The light colours must differ, since they are
# replaced by name in Matplotlib's SVG.
_PAPER, _INK, _SOFT, _LINE = "#fffffe", "#1a2233", "#5b6577", "#dfe3ea"
_SERIES = ("#3b5bdb", "#c2410c", "#0f7b4f", "#8b3fc7", "#b8256e", "#0b7285", "#8a6100")
_SERIES_DARK = ("#8ea6ff", "#ff9a62", "#5fd3a0", "#cb97ff", "#ff86bb", "#5ecbdf", "#e5b94f")
_DARK = {_PAPER: "#171d27", _INK: "#e7ebf2", _SOFT: "#98a3b6", _LINE: "#2a3342", **dict(zip(_SERIES, _SERIES_DARK))}
# Series differ in shape as well as in colour.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "svg.hashsalt": "fusion",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
}


def svg_text(figure: Any) -> str:
    """A figure as SVG that follows the page's colour scheme and is the same in every run."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.15)
    text = out.getvalue()
    names = {colour: f"--c{i}" for i, colour in enumerate(_DARK)}
    text = re.sub("|".join(names), lambda found: f"var({names[found[0]]}, {found[0]})", text)
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{names[colour]}:{dark_colour};" for colour, dark_colour in _DARK.items())
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    # Machines without this font use the next in the list.
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    start = text.index(">", text.index("<svg ")) + 1
    return "\n".join(line.rstrip() for line in f"{text[:start]}\n{style}{text[start:]}".splitlines()) + "\n"


# ---- plots -----------------------------------------------------------------------------------------------------------


def cost_curve(measured: dict[str, Any]) -> dict[str, Any]:
    """Median (mark) to p99 (whisker) of the engine step over detections per set; both axes logarithmic."""
    import matplotlib.pyplot as plt

    rows = measured["rows"]
    figure, axes = plt.subplots(figsize=(8.2, 5.0))
    for i, n_cameras in enumerate(sorted({row["cameras"] for row in rows})):
        series = sorted((row for row in rows if row["cameras"] == n_cameras), key=lambda row: row["detections"])
        x, median = [row["detections"] for row in series], [row["engine_p50_us"] for row in series]
        above = [row["engine_p99_us"] - row["engine_p50_us"] for row in series]
        look = {"color": _SERIES[i % len(_SERIES)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 5.5}
        label = f"{n_cameras:.0f} cameras"
        axes.errorbar(x, median, yerr=[[0] * len(x), above], label=label, capsize=2.5, linewidth=1.4, **look)
    large = max(rows, key=lambda row: row["detections"])
    per_us = large["engine_p50_us"] / large["detections"]
    low = min(row["engine_p50_us"] for row in rows)
    ends = [max(low / per_us, min(row["detections"] for row in rows)), large["detections"]]
    axes.plot(ends, [end * per_us for end in ends], color=_SOFT, linestyle=(0, (4, 3)), linewidth=1.2, label="linear")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(plt.matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(plt.matplotlib.ticker.NullLocator())
    axes.set_xlabel("detections in a set of frames")
    axes.set_ylabel("engine step, µs: median, and p99 as a whisker")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return {"cost_curve.svg": figure}


def accuracy(measured: dict[str, Any]) -> dict[str, Any]:
    """Receipts of each scenario beside the plain method, reliability of lines, and ablations."""
    plots = {"accuracy_receipts.svg": _receipts(measured), "accuracy.svg": _reliability(measured["all"])}
    if measured["all"].get("risk_curve"):
        plots["accuracy_risk.svg"] = _risk(measured)
    if measured["parts"]:
        plots["accuracy_parts.svg"] = _ablations(measured["parts"])
    return plots


def _interval(axes: Any, k: int, n: int, y: float, **look: Any) -> None:
    """Draw a share in percent with its exact 95 % interval; nothing if n is 0."""
    if n:
        low, high = share_interval(k, n)
        share = 100.0 * k / n
        below, above = max(share - 100.0 * low, 0.0), max(100.0 * high - share, 0.0)
        axes.errorbar([share], [y], xerr=[[below], [above]], linestyle="none", capsize=2.5, markersize=6, **look)


def _rows_axes(n_panels: int, titles: Sequence[str], width: float) -> Any:
    """Panels side by side with common rows, labelled by the titles from the top."""
    import matplotlib.pyplot as plt

    size = width, 1.1 + 0.36 * len(titles)
    figure, panels = plt.subplots(1, n_panels, sharey=True, squeeze=False, figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)
    panels = panels[0]
    panels[0].set_yticks(range(len(titles)), titles)
    panels[0].set_ylim(len(titles) - 0.45, -0.55)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure, panels


def _receipts(measured: dict[str, Any]) -> Any:
    rows = measured["cases"]
    figure, (right, near, review) = _rows_axes(3, [_wrapped(row["title"]) for row in rows], width=11.0)
    for y, row in enumerate(rows):
        first = {"label": "fusion"} if y == 0 else {}
        ours = {"marker": "o", "color": _SERIES[0], **first}
        first = {"label": "plain method: settles nearly everything"} if y == 0 else {}
        plain = {"marker": "s", "color": _SERIES[1], "markerfacecolor": _PAPER, **first}
        _interval(right, row["plain"]["settled_right"], row["plain"]["settled"], y, **plain)
        _interval(right, row["ours"]["settled_right"], row["ours"]["settled"], y, **ours)
        _interval(near, row["ours"]["settled_right"], row["ours"]["settled"], y, **ours)
        _interval(review, row["ours"]["review"], row["ours"]["visits"], y, **ours)
        for axes, target in zip((near, review), row["wanted"]):
            mark = {"label": "target"} if y == 0 else {}
            axes.plot([100.0 * target] * 2, [y - 0.32, y + 0.32], color=_INK, linewidth=2.2, **mark)
    right.set_title("settled receipts that are right, %")
    near.set_title("the same, with the target")
    review.set_title("receipts that go to review, %")
    right.set_xlim(right=101.0)
    near.set_xlim(right=100.2)
    review.set_xlim(left=-0.5)
    handles = {label: handle for axes in (right, near) for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _wrapped(title: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title, width))


class Bin(NamedTuple):
    """A confidence bin of `reliability` in accuracy.json; confidence is the mean over its lines."""

    low: float
    high: float
    n_lines: int
    n_right: int
    confidence: float


def _reliability(row: dict[str, Any]) -> Any:
    """Share of lines that are right over their confidence, and their number below. The last tenth is drawn larger."""
    import matplotlib.pyplot as plt

    bins = [Bin(*fields) for fields in row["reliability"]]
    figure, panels = plt.subplots(
        2, 2, figsize=(8.6, 5.4), height_ratios=(3.4, 1.0), sharex="col", layout="constrained"
    )
    for column, (low, high, title) in enumerate(((0.0, 1.0, "all lines"), (0.9, 1.0, "the surest: from 0.9 on"))):
        share, count = panels[0][column], panels[1][column]
        shown = [group for group in bins if group.confidence >= low]
        share.plot([low, high], [low, high], color=_SOFT, linestyle=(0, (4, 3)), linewidth=1.2)
        x = [group.confidence for group in shown]
        y = [group.n_right / group.n_lines for group in shown]
        intervals = [share_interval(group.n_right, group.n_lines) for group in shown]
        below = [max(value - low_end, 0.0) for value, (low_end, _) in zip(y, intervals)]
        above = [max(high_end - value, 0.0) for value, (_, high_end) in zip(y, intervals)]
        share.errorbar(
            x, y, yerr=[below, above], linestyle="none", marker="o", markersize=5, capsize=2.5, color=_SERIES[0]
        )
        margin = 0.02 * (high - low)
        share.set_xlim(low - margin, high + margin)
        share.set_ylim(low - margin, high + margin)
        share.set_title(title)
        count.bar(x, [group.n_lines for group in shown], width=0.03 * (high - low), color=_SERIES[2])
        count.set_yscale("log")
        count.set_ylim(bottom=0.7)
        count.set_xlabel("confidence of a receipt's line")
    panels[0][0].set_ylabel("share that is right, 95 % interval")
    panels[1][0].set_ylabel("lines")
    error, n_lines = row["ours"]["ece"], sum(group.n_lines for group in bins)
    title = f"{n_lines} lines, expected calibration error {error:.3f}" if error is not None else "no lines"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
    return figure


class CurvePoint(NamedTuple):
    """A point of `risk_curve` in accuracy.json: receipts settled of all visits, wrong of these, at this threshold."""

    coverage: float
    risk: float
    threshold: float


def _risk(measured: dict[str, Any]) -> Any:
    """Share of settled receipts that are wrong over the share of visits settled, for all rows together and for each."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.6, 4.8), layout="constrained")
    rows = [(row, _SERIES[i % len(_SERIES)], 1.0) for i, row in enumerate(measured["cases"])]
    for i, (row, colour, width) in enumerate([*rows, (measured["all"], _INK, 2.4)]):
        points = [CurvePoint(*point) for point in row["risk_curve"]]
        x, y = [100.0 * point.coverage for point in points], [100.0 * point.risk for point in points]
        style = "solid" if width > 1.0 or i < len(_SERIES) else (0, (4, 2))
        axes.step(x, y, where="post", color=colour, linewidth=width, linestyle=style, label=_wrapped(row["title"], 28))
    for threshold in (0.8, 0.9, 0.95, 0.99):
        shown = [point for point in map(lambda fields: CurvePoint(*fields), measured["all"]["risk_curve"])
                 if point.threshold >= threshold]  # fmt: skip
        if shown:
            at = 100.0 * shown[-1].coverage, 100.0 * shown[-1].risk
            axes.plot(*at, marker="o", markersize=5, color=_INK)
            axes.annotate(f"p ≥ {threshold:g}", at, textcoords="offset points", xytext=(-5, 7), ha="right",
                          fontsize=9, color=_INK)
    axes.set_xlabel("visits whose receipt is settled, %")
    axes.set_ylabel("settled receipts that are wrong, %")
    axes.set_ylim(bottom=-0.1, top=max(3.0, *(100.0 * CurvePoint(*row["risk_curve"][-1]).risk
                                             for row in [*measured["cases"], measured["all"]] if row["risk_curve"])))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def _ablations(parts: Sequence[dict[str, Any]]) -> Any:
    titles = list(dict.fromkeys(part["title"] for part in parts))
    engines = list(dict.fromkeys(part["engine"] for part in parts))
    figure, panels = _rows_axes(len(titles), engines, width=10.0)
    for axes, title in zip(panels, titles):
        for part in (part for part in parts if part["title"] == title):
            y, score = engines.index(part["engine"]), part["score"]
            first = {"label": "right, whatever the status"} if y == 0 else {}
            look = {"marker": "o", "color": _SERIES[0], **first}
            _interval(axes, score["any_right"], score["visits"], y - 0.12, **look)
            first = {"label": "go to review"} if y == 0 else {}
            look = {"marker": "D", "color": _SERIES[1], "markerfacecolor": _PAPER, **first}
            _interval(axes, score["review"], score["visits"], y + 0.14, **look)
        axes.set_xlim(-2.0, 102.0)
        axes.set_title(_wrapped(title, 28))
        axes.set_xlabel("receipts, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def learning(measured: dict[str, Any]) -> dict[str, Any]:
    """Share of reviews, and error of what a facing shows, day by day for every way of learning."""
    import matplotlib.pyplot as plt

    figure, (reviews, errors) = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
    for i, row in enumerate(measured["ways"]):
        look = {"color": _SERIES[i], "marker": _MARKERS[i], "markersize": 4.5, "label": row["way"]}
        days = range(1, len(row["days"]) + 1)
        # Of two days together: a day has few reviews.
        pairs = list(zip(row["days"], [row["days"][0], *row["days"]]))
        share = [100.0 * (1.0 - sum(day["settled"] for day in pair) / sum(day["visits"] for day in pair))
                 for pair in pairs]  # fmt: skip
        reviews.plot(days, share, **look)
        errors.plot(days, [100.0 * error for error in row["facing_error"]], **look)
    reviews.set_title("receipts that go to review, %, mean of two days")
    errors.set_title("weight times gain of a facing: rms error, %")
    errors.set_ylim(0.0, 4.0)
    for axes in (reviews, errors):
        axes.set_xlabel("day")
    figure.legend(*reviews.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return {"learning.svg": figure}


def answers(measured: dict[str, Any]) -> dict[str, Any]:
    """Share of takers found over the visits in which they were asked, and what honest answers settle by case."""
    import matplotlib.pyplot as plt

    figure, (takers, honest) = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    rows = [taker for row in measured["rows"] for taker in row["taker_rows"]]
    most = max([taker[4] or 0 for taker in rows], default=1)
    visits = list(range(1, max(most, 5) + 1))
    shares = []
    for n in visits:
        known = [taker for taker in rows if taker[4] is not None or taker[0] >= n]
        shares.append(100.0 * sum((taker[4] or n + 1) <= n for taker in known) / max(len(known), 1))
    takers.plot(visits, shares, color=_SERIES[0], marker=_MARKERS[0], markersize=5.5)
    takers.axvline(5, color=_INK, linestyle=(0, (4, 3)), linewidth=1.2)
    takers.set_ylim(0.0, 103.0)
    takers.set_title("takers found, %, over visits in which they were asked")
    cases = sorted({case for row in measured["rows"] for case in row["cases"]})
    for i, (key, label) in enumerate((("settled", "settled by an answer"), ("wrong", "settled wrongly"))):
        counts = [sum(row["cases"].get(case, {}).get(key, 0) for row in measured["rows"]) for case in cases]
        reviews = [sum(row["cases"].get(case, {}).get("reviews", 0) for row in measured["rows"]) for case in cases]
        share = [100.0 * n / max(of, 1) for n, of in zip(counts, reviews)]
        honest.barh([y + 0.2 - 0.4 * i for y in range(len(cases))], share, 0.36, color=_SERIES[i], label=label)
    honest.axvline(50, color=_INK, linestyle=(0, (4, 3)), linewidth=1.2)
    honest.set_yticks(range(len(cases)), cases)
    honest.set_xlim(0.0, 100.0)
    honest.set_title("honest customers' reviews, %")
    honest.legend(loc="lower right")
    return {"answers.svg": figure}


def accuracy_people(measured: dict[str, Any]) -> dict[str, Any]:
    """Mean over seeds with its 95 % interval; where two figures share a panel, the second is hollow."""
    results = measured["results"]
    figure, panels = _rows_axes(4, [_wrapped(name) for name in results], width=11.5)
    for axes, (title, shown, expected) in zip(panels, _PEOPLE_PANELS):
        for i, (key, label, factor) in enumerate(shown):
            places = []
            for y, figures in enumerate(results.values()):
                mean, margin = figures.get(key, (None, None))
                if mean is not None:
                    places.append((mean * factor, y + 0.12 * (2 * i - len(shown) + 1), (margin or 0.0) * factor))
            if not places:
                continue
            x, at, margins = zip(*places)
            look = {"marker": _MARKERS[i], "color": _SERIES[i], "markerfacecolor": _PAPER if i else _SERIES[i]}
            axes.errorbar(x, at, xerr=margins, linestyle="none", capsize=2.5, markersize=5.5, label=label, **look)
        if expected is not None:
            axes.axvline(expected, color=_INK, linestyle=(0, (4, 3)), linewidth=1.2, label="expected")
        axes.set_title(title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=1, fontsize=9)
        axes.margins(x=0.12)
    panels[0].set_xlim(right=100.4)
    return {"accuracy_people.svg": figure}


def public(measured: dict[str, Any]) -> dict[str, Any]:
    """A panel for joints (MPJPE) and one for people on the floor (HOTA): the engine, then the other packages."""
    engine = [{**row, "implementation": "fusion, whole engine"} for row in measured["rows"]]
    rows = [*engine, *measured["peers"]]
    panels = [
        ("joints: mean error, mm", "mpjpe_mm", [row for row in rows if "mpjpe_mm" in row]),
        ("people on the floor: HOTA, %", "hota", [row for row in rows if "hota" in row]),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return {}
    import matplotlib.pyplot as plt

    sizes = [len(rows) + 1 for _, _, rows in panels]
    figure, all_axes = plt.subplots(
        len(panels), 1, figsize=(8.2, 0.34 * sum(sizes) + 1.2), squeeze=False, height_ratios=sizes, layout="constrained"
    )
    for axes, (title, key, shown) in zip(all_axes[:, 0], panels):
        shown = sorted(shown, key=lambda row: row["task"])
        for y, row in enumerate(shown):
            ours = row["implementation"].startswith("fusion")
            look = {"color": _SERIES[0 if ours else 1], "marker": _MARKERS[0 if ours else 1]}
            axes.plot([row[key]], [y], linestyle="none", markersize=7, **look)
        axes.set_yticks(range(len(shown)), [f"{row['task']}: {row['implementation']}" for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 1.05 * max(row[key] for row in shown) or 1.0)
        axes.set_title(title)
    return {"public.svg": figure}


# Title, (figure, label, factor) and the value expected of a calibrated tracker.
_PEOPLE_PANELS: tuple[tuple[str, tuple[tuple[str, str, float], ...], float | None], ...] = (
    ("identities, %", (("idf1", "IDF1", 1.0), ("mota", "MOTA", 1.0)), None),
    ("place on the floor, cm", (("position_median_m", "median", 100.0), ("position_p95_m", "p95", 100.0)), None),
    ("wrist in space, cm", (("wrist_median_m", "median", 100.0), ("wrist_p95_m", "p95", 100.0)), None),
    ("calibration: NEES of wrists", (("nees_cov", "covariance", 1.0), ("nees_sd", "deviation", 1.0)), 3.0),
)
DRAWN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "cost_curve": cost_curve,
    "accuracy": accuracy,
    "accuracy_people": accuracy_people,
    "learning": learning,
    "answers": answers,
    "public": public,
}


# ---- files -----------------------------------------------------------------------------------------------------------


def draw(name: str, figures: dict[str, Any], page: str, folder: Path) -> list[Path]:
    """Write the page and the plots of measured figures; returns the files."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.md"]
    written[0].write_text(page, encoding="utf-8")
    with matplotlib.rc_context(_STYLE):
        for file, figure in DRAWN[name](figures).items():
            written.append(folder / file)
            written[-1].write_text(svg_text(figure), encoding="utf-8")
            plt.close(figure)
    return written


def publish(name: str, figures: dict[str, Any], page: Callable[[dict[str, Any]], str], folder: Path) -> None:
    """Write measured figures as NAME.json, and draw them; `page` renders NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    # Draw what was read back from JSON, so that a later redraw gives the same files.
    text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=True) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    figures = json.loads(text)
    draw(name, figures, page(figures), folder)
