"""What a check found, and how that is printed."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        severity: `error`: the engine cannot use it, or its answers will be wrong; `warning`: it costs accuracy;
            `note`: worth knowing.
        rule: the kind of finding, a few words joined by hyphens; it does not change between versions.
        subject: the file and row, or the sensor, place or product.
        message: what was wanted, then what came.
    """

    severity: Severity
    rule: str
    subject: str
    message: str


def exit_code(findings: Iterable[Finding]) -> int:
    """As a linter's: 0 where there is nothing above a note, 1 for warnings, 2 for errors."""
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else 1 if "warning" in severities else 0


def findings_json(findings: Iterable[Finding]) -> str:
    """An array of objects with a finding's attributes."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1, ensure_ascii=False)


def findings_text(findings: Iterable[Finding]) -> str:
    """One line for each finding, and a last line with the counts."""
    findings = list(findings)
    lines = [f"{f.severity:7}  {_printable(f.subject)}: {_printable(f.message)} [{f.rule}]" for f in findings]
    n = Counter(finding.severity for finding in findings)
    counts = [f"{n[severity]} {severity}{'' if n[severity] == 1 else 's'}" for severity in SEVERITIES]
    return "\n".join([*lines, ", ".join(counts)])


def name_list(names: Sequence[str], n_max: int = 8) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:n_max])
    return shown + (f" and {len(names) - n_max} more" if len(names) > n_max else "")


def utc_text(t_ns: int) -> str:
    """An instant to the millisecond, such as 2026-03-04T11:27:00.000Z."""
    seconds, rest_ns = divmod(t_ns, 1_000_000_000)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def _printable(text: str) -> str:
    """Files may contain any character; a terminal gets printable ones, on one line."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
