"""The smoother of wrists and elbows in NumPy, one joint at a time and with matrices."""

from __future__ import annotations

import numpy as np


def smooth_joint(
    t_s: np.ndarray,
    places_m: np.ndarray,
    sd_m: np.ndarray,
    acceleration: float,
    wanted: np.ndarray,
    m: dict[str, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed places (n, 3) and deviations (n,) of one joint where wanted (n,), else as given.

    t_s (n,); places_m (n, 3) and sd_m (n,) as filtered, NaN where unknown. m: the constants by name.
    """
    places_m, sd_m = places_m.copy(), sd_m.copy()
    known = np.isfinite(places_m[:, 0])
    if not known.any():
        return places_m, sd_m
    start, n = int(np.argmax(known)), len(t_s)
    # Per instant: state (2, 3), its covariance (2, 2), that predicted from the instant before, and the transition.
    state, cov = np.zeros((n, 2, 3)), np.zeros((n, 2, 2))
    predicted, transition = np.zeros((n, 2, 2)), np.zeros((n, 2, 2))
    later = min(start + 3, n - 1)
    velocity = np.zeros(3)
    if t_s[later] > t_s[start] and known[later]:
        velocity = (places_m[later] - places_m[start]) / (t_s[later] - t_s[start])
    state[start], cov[start] = [places_m[start], velocity], np.diag([sd_m[start] ** 2, m["speed_var"]])
    for i in range(start + 1, n):
        dt = t_s[i] - t_s[i - 1]
        kept = np.exp(-dt / m["decay_s"])
        transition[i] = [[1.0, m["decay_s"] * (1.0 - kept)], [0.0, kept]]
        noise = acceleration * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        predicted[i] = transition[i] @ cov[i - 1] @ transition[i].T + noise
        state[i], cov[i] = transition[i] @ state[i - 1], predicted[i]
        if known[i]:
            gain = predicted[i][:, 0] / predicted[i][0, 0]
            less = max(predicted[i][0, 0] - sd_m[i] ** 2, 0.0)
            state[i] += np.outer(gain, places_m[i] - state[i][0])
            cov[i] = predicted[i] - less * np.outer(gain, gain)
            cov[i][0, 0] = sd_m[i] ** 2
    smooth, smooth_cov = state.copy(), cov.copy()
    for i in range(n - 2, start - 1, -1):
        gain = cov[i] @ transition[i + 1].T @ np.linalg.inv(predicted[i + 1])
        smooth[i] = state[i] + gain @ (smooth[i + 1] - transition[i + 1] @ state[i])
        smooth_cov[i] = cov[i] + gain @ (smooth_cov[i + 1] - predicted[i + 1]) @ gain.T
    wanted = wanted & (np.arange(n) >= start)
    counted = wanted & known & (np.arange(n) > start)
    before, after = predicted[counted, 0, 0], cov[counted, 0, 0]
    information = (np.maximum(before - after, 0.0) / (before * after)).sum()
    expected = 3 * np.maximum(after - smooth_cov[counted, 0, 0], 0.0).sum()
    corrected = ((smooth[counted, 0] - state[counted, 0]) ** 2).sum()
    scale = m["corrected_share"] * (max(corrected / expected, m["corrected_min"]) if expected > 0 else 1.0)
    lasting = counted.sum() / information if information > 0 else 1.0
    variance = smooth_cov[wanted, 0, 0]
    variance = scale * variance + m["lasting_share"] * np.minimum(lasting, m["lasting_max"] * variance)
    places_m[wanted], sd_m[wanted] = smooth[wanted, 0], np.sqrt(variance)
    vague = wanted & ~(sd_m <= m["sd_max_m"])
    places_m[vague], sd_m[vague] = np.nan, np.nan
    return places_m, sd_m
