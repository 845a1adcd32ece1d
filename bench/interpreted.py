"""A pytest plugin, for runs with Numba's compiler off: what its kernels take from the compiler, as Python.

    NUMBA_DISABLE_JIT=1 python -m pytest -p bench.interpreted tests/people/test_health.py

Compiled code reads a record's fields as attributes, which NumPy's records do not offer; and the sums of a usual message
are vector instructions, written here as the sums that they are. Neither changes what is tested: the loops of the
kernels run line by line.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from fusion._kernels import health, scales


def pytest_configure(config: pytest.Config) -> None:
    """Put the twins in place, before any test module is imported."""
    if not numba.config.DISABLE_JIT:
        raise pytest.UsageError("bench.interpreted is for runs with the compiler off: set NUMBA_DISABLE_JIT=1")
    for name in ("EVIDENCE", "CAMERA", "MODEL", "VIEW"):
        setattr(health, name, np.dtype((_Record, getattr(health, name))))
    scales._usual_moments = _usual_moments
    # Differences of unsigned indices wrap around in either world; NumPy's scalars would warn about it.
    np.seterr(over="ignore")


class _Record(np.void):
    """A record whose fields are attributes, also where NumPy's scalars have a method of that name, such as `var`."""

    def __getattribute__(self, name: str) -> Any:
        read = super().__getattribute__
        return self[name] if name in (read("dtype").names or ()) else read(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _usual_moments(
    samples: np.ndarray, start: np.uint64, level: np.float32, ring: np.ndarray, at: np.uint64
) -> tuple[np.float32, np.float32]:
    values = samples[start : start + np.uint64(scales.USUAL)]
    ring[at : at + np.uint64(scales.USUAL)] = values
    off = values - level
    return np.float32(off.sum()), np.float32((off * off).sum())
