"""Values as streams write them: JSON, numbers, and times as UTC nanoseconds. What cannot be read is refused."""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any

from fusion.live.messages import Refused
from fusion.observations import time_fault

# xs:dateTime and RFC 3339: fractions of any length, an offset or none.
_INSTANT = re.compile(r"(\d{4})-(\d\d?)-(\d\d?)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?\s*(Z|z|[+-]\d\d:\d\d)?")
_EPOCH = datetime.datetime(1970, 1, 1)


def json_of(payload: bytes | str) -> Any:
    """What JSON holds. Raises Refused."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise Refused("not JSON", "want JSON in UTF-8") from None


def number_of(value: object, name: str) -> float:
    """A finite number, which some write as text. Raises Refused, which gives the name."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Refused("malformed", f"{name}: want a number, got {str(value)[:40]!r}")
    return number


def instant_ns(text: object) -> int:
    """A time such as 2026-01-01T09:00:00.25Z; one without an offset is UTC. Raises Refused.

    Source: XML Schema 1.1 part 2, section 3.3.7 (xs:dateTime); RFC 3339, section 5.6.
    """
    matched = _INSTANT.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 64 else None
    if matched is None:
        raise Refused("unreadable time", f"want a time such as 2026-01-01T09:00:00.25Z, got {str(text)[:40]!r}")
    *fields, fraction, offset = matched.groups()
    year, month, day, hour, minute, second = map(int, fields)
    try:
        since = datetime.datetime(year, month, day, hour, minute, second) - _EPOCH
    except ValueError:
        raise Refused("unreadable time", f"want a time of the calendar, got {text!r}") from None
    seconds = since.days * 86_400 + since.seconds
    if offset and offset not in "Zz":
        sign = -1 if offset[0] == "-" else 1
        seconds -= sign * (int(offset[1:3]) * 3600 + int(offset[4:6]) * 60)
    return believable_ns(seconds * 1_000_000_000 + int(f"{fraction or 0:0<9}"[:9]))


def believable_ns(t_ns: int) -> int:
    """The time itself. Raises Refused where no observation can have it."""
    if fault := time_fault(t_ns):
        raise Refused("impossible time", fault)
    return t_ns
