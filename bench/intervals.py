"""Confidence intervals of counted shares."""

from __future__ import annotations

from scipy.stats import binomtest


def share_interval(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % confidence interval of a share, k of n with n of at least 1. Source: Clopper and Pearson (1934)."""
    interval = binomtest(k, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def percent(k: int, n: int) -> str:
    """A share in percent with its interval; "-" of none."""
    if not n:
        return "-"
    low, high = share_interval(k, n)
    return f"{100 * k / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"
