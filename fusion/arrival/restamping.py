"""Times in results, moved from the engine's own time to that of the data, and observations the other way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fusion.results import Taken

Dated = TypeVar("Dated")


def moved(dated: Dated, by_ns: int) -> Dated:
    """A result or an observation with every instant in it moved: by their names, fields that end in `_ns` are instants.

    `Taken` stays, since the journal records data time.
    """
    if not by_ns:
        return dated
    changes: dict[str, Any] = {}
    for each in fields(dated):  # type: ignore[arg-type]
        value = getattr(dated, each.name)
        if each.name.endswith("_ns"):
            changes[each.name] = _later(value, by_ns)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]) and not isinstance(value[0], Taken):
            changes[each.name] = tuple(moved(part, by_ns) for part in value)
    return replace(dated, **changes) if changes else dated  # type: ignore[type-var]


def all_moved(dated: Sequence[Dated], by_ns: int) -> list[Dated]:
    """Each of several results, moved."""
    return [moved(each, by_ns) for each in dated]


def _later(instant: Any, by_ns: int) -> Any:
    if isinstance(instant, tuple):
        return tuple(each + by_ns for each in instant)
    if isinstance(instant, np.ndarray):
        instants = instant + by_ns
        instants.setflags(write=False)
        return instants
    return None if instant is None else instant + by_ns
