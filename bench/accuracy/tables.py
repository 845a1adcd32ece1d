"""Figures of the accuracy benchmark as JSON, and their tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.accuracy.risk import honesty, honesty_cell, risk_curve, risk_lines, risk_table
from bench.accuracy.scenarios import CASES
from bench.accuracy.scores import Outcome, Score, calibration_error, calibration_interval, sum_of
from bench.intervals import percent

# Most lines are nearly certain, so the last tenth has finer bins.
_BINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


def reliability(lines: Sequence[tuple[float, bool]]) -> list[list[float]]:
    """Non-empty confidence bins as [from, to, number of lines, number right, mean confidence]."""
    confidence = np.array([c for c, _ in lines])
    hit = np.array([r for _, r in lines], bool)
    place = np.clip(np.searchsorted(_BINS, confidence, side="right") - 1, 0, len(_BINS) - 2)
    bins = []
    for b in sorted(set(place.tolist())):
        inside = place == b
        mean = round(float(confidence[inside].mean()), 5)
        bins.append([_BINS[b], _BINS[b + 1], int(inside.sum()), int(hit[inside].sum()), mean])
    return bins


def _counts(score: Score) -> dict[str, Any]:
    """Counts of a score, without its lists over lines and visits."""
    names = ("visits", "settled", "settled_right", "review", "missing", "any_right")
    error = calibration_error(score.lines)
    return {
        **{name: getattr(score, name) for name in names},
        "over_percent": round(100.0 * score.over / score.value, 4) if score.value else None,
        "under_percent": round(100.0 * score.under / score.value, 4) if score.value else None,
        "ece": None if math.isnan(error) else round(error, 5),
    }


def _quantile(values: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values else None


def _row(name: str, title: str, runs: Sequence[Outcome]) -> dict[str, Any]:
    ours, plain = sum_of(run.ours for run in runs), sum_of(run.plain for run in runs)
    low, high = calibration_interval([run.ours for run in runs])
    return {
        "name": name,
        "title": title,
        "at_once": round(float(np.mean(ours.at_once)), 3) if ours.at_once else None,
        "ours": _counts(ours),
        "ece_interval": [None if math.isnan(bound) else round(bound, 5) for bound in (low, high)],
        "plain": _counts(plain),
        "delay_s": [_quantile(ours.delay_s, 50), _quantile(ours.delay_s, 99)],
        "late_s": _quantile(ours.late_s, 99),
        "attribution_us": [_quantile(ours.attribution_us, 50), _quantile(ours.attribution_us, 99)],
        "violations": dict(sorted(ours.violations.items())),
        "shelves": ours.shelves.figures(),
        "reliability": reliability(ours.lines),
        "asked": asdict(ours.asked),
        "risk": risk_table(ours.weighed, ours.visits),
        "risk_curve": risk_curve(ours.weighed, ours.visits),
        "honesty": {
            "receipt": honesty([(one.probability, one.right) for one in ours.weighed if one.settles]),
            "person": honesty(ours.persons),
            "product": honesty(ours.products),
        },
    }


def all_runs(results: dict[str, list[Outcome]]) -> list[Outcome]:
    """The runs of all cases in one list."""
    return [run for runs in results.values() for run in runs]


def figures(results: dict[str, list[Outcome]], command: str) -> dict[str, Any]:
    """The content of tables and plots, ready for JSON: sums of every case and of every ablation."""
    rows, parts = [], []
    for case in CASES:
        runs = results.get(case.name)
        if not runs:
            continue
        rows.append(_row(case.name, case.title, runs) | {"wanted": list(case.wanted)})
        runs = [run for run in runs if run.ablated]
        if not runs:
            continue
        engines = {"complete": sum_of(run.ours for run in runs)}
        engines |= {name: sum_of(run.ablated[name] for run in runs) for name in runs[0].ablated}
        engines["plain method"] = sum_of(run.plain for run in runs)
        parts += [{"title": case.title, "engine": name, "score": _counts(score)} for name, score in engines.items()]
    return {"command": command, "cases": rows, "all": _row("all", "all", all_runs(results)), "parts": parts}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(measured: dict[str, Any]) -> str:
    """One row per case: the engine, the targets, and the plain method."""
    lines = [
        "| scenario | at once | visits | settled right % | target | review % | target | any right % | plain: right % "
        "| plain: review % |",
        "|---|" + "---|" * 9,
    ]
    for row in measured["cases"]:
        ours, plain, (right, review) = row["ours"], row["plain"], row["wanted"]
        met = " ✓" if ours["settled"] and ours["settled_right"] >= right * ours["settled"] else " ✗"
        few = " ✓" if ours["review"] <= review * ours["visits"] else " ✗"
        missing = f" ({ours['missing']} without receipt)" if ours["missing"] else ""
        lines.append(
            f"| {row['title']} | {_number(row['at_once'], 1)} | {ours['visits']}{missing} "
            f"| {percent(ours['settled_right'], ours['settled'])} | ≥ {100 * right:.1f}{met} "
            f"| {percent(ours['review'], ours['visits'])} | ≤ {100 * review:.0f}{few} "
            f"| {percent(ours['any_right'], ours['visits'])} | {percent(plain['settled_right'], plain['settled'])} "
            f"| {percent(plain['review'], plain['visits'])} |"
        )
    lines += [
        "",
        "| scenario | over % | under % | plain: over % | plain: under % | line ECE | receipt after exit p50 / p99 s "
        "| late s | attribution p50 / p99 µs | violations |",
        "|---|" + "---|" * 9,
    ]
    for row in [*measured["cases"], measured["all"]]:
        ours, plain, (low, high) = row["ours"], row["plain"], row["ece_interval"]
        violations = ", ".join(f"{n} {kind}" for kind, n in row["violations"].items()) or "none"
        lines.append(
            f"| {row['title']} | {_number(ours['over_percent'], 2)} | {_number(ours['under_percent'], 2)} "
            f"| {_number(plain['over_percent'], 2)} | {_number(plain['under_percent'], 2)} "
            f"| {_number(ours['ece'], 3)} ({_number(low, 3)}-{_number(high, 3)}) "
            f"| {_number(row['delay_s'][0], 1)} / {_number(row['delay_s'][1], 1)} "
            f"| {_number(row['late_s'], 1)} "
            f"| {_number(row['attribution_us'][0], 0)} / {_number(row['attribution_us'][1], 0)} | {violations} |"
        )
    lines += [
        "",
        "| scenario | takes | missed % | misread % | puts | missed % | misread % | beside | missed % "
        "| phantoms per 1000 loads |",
        "|---|" + "---|" * 9,
    ]
    for row in [*measured["cases"], measured["all"]]:
        n, cells = row["shelves"], []
        for way in ("takes", "puts"):
            loads = n[f"{way}_loads"]
            cells += [str(loads), *(_percent(n[f"{way}_{kind}"], loads) for kind in ("missed", "misread"))]
        cells += [str(n["beside_loads"]), _percent(n["beside_missed"], n["beside_loads"])]
        cells.append(f"{1000.0 * n['phantoms'] / max(n['takes_loads'] + n['puts_loads'], 1):.1f} ({n['phantoms']})")
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_risk(measured)])


def _risk(measured: dict[str, Any]) -> list[str]:
    """What thresholds of the receipt's probability promise, and how honest probabilities are by case."""
    everything = measured["all"]
    if not everything.get("risk"):
        return []
    lines = ["", *risk_lines(everything["risk"], everything["ours"]["visits"], percent), ""]
    lines += [
        "| scenario | with one question: settled right % | review % | asked | none of these "
        "| calibration error: receipt | person | product |",
        "|---|" + "---|" * 7,
    ]
    for row in [*measured["cases"], everything]:
        asked, visits = row["asked"], row["ours"]["visits"]
        cells = [percent(asked["settled_right"], asked["settled"]), percent(asked["review"], visits)]
        cells += [str(asked["asked"]), str(asked["none_of_these"])]
        cells += [honesty_cell(row["honesty"][name]) for name in ("receipt", "person", "product")]
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return lines


def _percent(k: int, n: int) -> str:
    return f"{100.0 * k / n:.1f} ({k})" if n else "-"


def ablation_table(measured: dict[str, Any]) -> str:
    """Scores of the complete engine, each ablation and the plain method; empty where no ablation ran."""
    if not measured["parts"]:
        return ""
    lines = ["| scenario | engine | settled right % | review % | any right % | line ECE |", "|---|---|---|---|---|---|"]
    for part in measured["parts"]:
        score = part["score"]
        error = "-" if part["engine"] == "plain method" else _number(score["ece"], 3)
        lines.append(
            f"| {part['title']} | {part['engine']} | {percent(score['settled_right'], score['settled'])} "
            f"| {percent(score['review'], score['visits'])} "
            f"| {percent(score['any_right'], score['visits'])} | {error} |"
        )
    return "\n".join(lines)
