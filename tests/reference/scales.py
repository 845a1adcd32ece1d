"""NumPy twins of fusion._kernels.scales and shelves: one plate at a time, samples in a list, written to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.observations import ShelfReading

RING, BLOCKS = 512, 4
UNSURE_MAX_NS = 8e9


@dataclass
class Change:
    plate: int
    onset_ns: int
    contact_ns: int
    settled_ns: int
    silent: bool
    rise_ns: int
    shaky: bool
    delta_g: float
    var_g2: float
    before_g: float


@dataclass
class Plate:
    """State of one plate; the names are those of the kernel's columns."""

    state: str = "starting"
    next_ns: int = 0
    onset_ns: int = 0
    restless_ns: int = 0
    last_ns: int = 0
    silence_ns: int = 0
    stuck: int = 0
    stuck_since_ns: int = 0
    out: int = 0
    moving_out: int = 0
    lost_ns: int = 0
    quiet_messages: int = 0
    since_onset: int = 0
    level: float = 0.0
    noise: float = 1.0
    baseline: float = 0.0
    last_value: float = 0.0
    newest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kept: list[float] = field(default_factory=list)

    def disturb(self, onset_ns: int) -> None:
        """The plate moves from here on."""
        self.state, self.baseline, self.onset_ns, self.silence_ns = "disturbed", self.level, onset_ns, 0
        if self.quiet_messages >= 2:
            self.restless_ns = onset_ns

    def miss(self, since_ns: int, frozen: bool) -> None:
        """The plate says nothing from here on."""
        if self.state == "quiet":
            self.disturb(since_ns)
        if self.state == "disturbed" and self.silence_ns == 0:
            self.silence_ns = since_ns
        self.kept, self.since_onset = [], 0
        if not frozen:
            self.newest = np.zeros(0)


def contact_sample(x: np.ndarray, before_g: float, after_g: float) -> int:
    """Where the best two-level fit with clipped residuals changes from before_g to after_g."""
    sign = 1.0 if before_g > after_g else -1.0
    half = 0.5 * abs(after_g - before_g)
    nearer = np.clip(sign * (x - 0.5 * (before_g + after_g)), -half, half)
    score = np.concatenate([[0.0], np.cumsum(nearer)])
    return int(np.argmax(score))


def matching_sample(x: np.ndarray, at: int, delta_g: float, noise_g2: float, width: int) -> int | None:
    """Where the level jumps by delta_g between the means of `width` samples: about `at`, elsewhere, or nowhere."""
    sign, size, noise_g = np.sign(delta_g), abs(delta_g), 2.0 * np.sqrt(2.0 * noise_g2 / width)
    places = range(width, len(x) - width + 1)
    jumps = {i: sign * (x[i : i + width].mean() - x[i - width : i].mean()) for i in places}
    about = [jumps[i] for i in range(at - width // 2, at + width // 2 + 1) if i in jumps]
    if not about or max(about) <= 1.35 * size + noise_g:
        return at
    peaks = [
        (abs(jump - size), i) for i, jump in jumps.items()
        if jump >= max(jumps[k] for k in range(i - width, i + width + 1) if k in jumps)
    ]  # fmt: skip
    off, best = min(peaks)
    return best if off < 0.15 * size + noise_g else None


def follow(
    messages: Sequence[tuple[int, int, np.ndarray]],
    n_plates: int,
    period_ns: float,
    limits: tuple[float, float, float, float, float, float, int],
    limit_g: float = np.inf,
) -> tuple[list[Change], list[Plate], dict[str, int]]:
    """Changes found in messages (plate, t_ns, samples), the plates' final states, and counts of unused messages."""
    gap_ns, frozen_by_noise, frozen_if_still, lost_samples, change_min_g, change_min_sd, block = limits
    window_n = BLOCKS * block
    plates = [Plate() for _ in range(n_plates)]
    changes: list[Change] = []
    unused = {"late": 0, "nan": 0}
    for index, t_ns, samples in messages:
        p, x, n = plates[index], samples.astype(np.float64), len(samples)
        length_ns = int(n * period_ns)
        frozen_samples = frozen_by_noise if p.noise > 0.02 else frozen_if_still
        if not np.isfinite(x).all() or np.abs(x).max() > 1e14:
            unused["nan"] += 1
            continue
        if p.next_ns == 0:
            p.onset_ns = p.restless_ns = t_ns
        elif t_ns < p.next_ns - length_ns // 2:
            unused["late"] += 1
            continue
        elif t_ns > p.next_ns + gap_ns:
            p.miss(p.last_ns, p.stuck >= frozen_samples)
        else:
            t_ns = p.next_ns + (t_ns - p.next_ns) // 8
        p.next_ns = t_ns + length_ns
        before_ns, p.last_ns = p.last_ns, t_ns + length_ns - int(period_ns)
        d = x - p.level
        moves = np.ptp(samples) > 0
        continues = samples[0] == np.float32(p.last_value)
        repeated = (continues and not moves) or np.array_equal(samples, p.newest)
        p.last_value = x[-1]
        if p.state != "starting":
            known_g = p.level if p.state == "quiet" else p.baseline
            if np.abs(x - known_g).max() > limit_g:
                p.miss(before_ns, p.stuck >= frozen_samples)
                p.out, p.moving_out = p.out + n, p.moving_out + n if moves else 0
                if p.moving_out <= lost_samples:
                    continue
                p.state, p.lost_ns, p.silence_ns, p.quiet_messages = "starting", p.silence_ns, 0, 0
            p.out = p.moving_out = 0
        p.newest = samples
        frozen = p.stuck >= frozen_samples
        if repeated:
            if p.stuck == 0:
                p.stuck_since_ns = before_ns - length_ns
            p.stuck += n
            if p.stuck >= frozen_samples:
                p.miss(p.stuck_since_ns, True)
                continue
        else:
            p.stuck = 0
            if frozen:
                p.miss(before_ns, False)
                continue
        p.kept = [*p.kept, *x]
        sd = np.sqrt(p.noise)
        if p.state == "quiet":
            if (d**2).mean() <= (1.2 + 1.8 * sd) ** 2 and abs(d.mean()) <= 1.0 + 1.2 * sd:
                p.quiet_messages += 1
                p.level += d.mean() / min(p.quiet_messages + 2, 16)
                p.noise = max(p.noise + ((d**2).mean() - p.noise) / 32, 0.01)
                continue
            moved = np.flatnonzero(np.abs(d[:-1]) > 3.0 + 3.0 * sd)
            first = int(moved[0]) if len(moved) else n - 1
            p.disturb(t_ns + int(first * period_ns))
            p.since_onset = n - first
        else:
            p.since_onset += n
        for back in range(max(n // block - 1, 0), -1, -1):
            end, since = len(p.kept) - back * block, p.since_onset - back * block
            if min(since, end) < window_n:
                continue
            window = np.array(p.kept[end - window_n : end])
            means = window.reshape(BLOCKS, block).mean(axis=1)
            spread, plateau, var = np.ptp(means), window.mean(), window.var()
            patience = 1.0 + since * period_ns / 1.5e9
            if p.state == "starting":
                if spread <= (4.0 + 0.5 * np.sqrt(var)) * patience:
                    p.state, p.level, p.noise, p.quiet_messages, p.silence_ns = "quiet", plateau, max(var, 0.01), 0, 0
                    break
                continue
            delta = plateau - p.baseline
            if spread > (1.5 + 2.2 * sd + 0.01 * abs(delta)) * patience or np.ptp(window) == 0.0:
                continue
            delta_var = 0.1 + (p.noise + var * 5.0) / window_n
            least = max(change_min_g, change_min_sd * np.sqrt(delta_var))
            if change_min_g < abs(delta) <= least and since * period_ns < UNSURE_MAX_NS:
                continue
            p.state, p.level, p.quiet_messages = "quiet", plateau, 0
            if abs(delta) > least:
                first = max(end - p.since_onset - 5 * block, len(p.kept) - RING, 0)
                at = contact_sample(np.array(p.kept[first:end]), p.baseline, plateau)
                dated: int | None = at
                if p.silence_ns == 0:
                    width = int(2.5 * block)
                    dated = matching_sample(np.array(p.kept[first:end]), at, delta, p.noise, width)
                    at = at if dated is None else dated
                contact_ns = p.last_ns - int((len(p.kept) - 1 - first - at) * period_ns)
                silent = p.silence_ns != 0 and at < 2 * block
                if silent:
                    contact_ns = (p.silence_ns + contact_ns) // 2
                middle = 0.5 * (p.baseline + plateau)
                first_at = contact_sample(np.array(p.kept[first:end]), p.baseline, middle)
                second_at = contact_sample(np.array(p.kept[first:end]), middle, plateau)
                rise_ns = int((second_at - first_at) * period_ns)
                settled_ns = p.last_ns - int(back * block * period_ns)
                onset_ns = min(p.onset_ns, contact_ns)
                if dated is None:
                    rise_ns = max(rise_ns, contact_ns - onset_ns)
                known = index, onset_ns, contact_ns, settled_ns, silent, rise_ns, var > (2.4 + 3.6 * sd) ** 2
                changes.append(Change(*known, delta, delta_var, p.baseline))
            p.silence_ns = 0
            break
    return changes, plates, unused


def message_noise_g(start: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(n,) standard deviation within each message; 0 for single samples and where a sample is not a number."""
    parts = [samples[first:stop].astype(float) for first, stop in zip(start[:-1], start[1:])]
    noise_g = np.array([(part - part[0]).std(ddof=1) if len(part) > 1 else 0.0 for part in parts])
    return np.where(np.isfinite(noise_g), noise_g, 0.0)


def pack(readings: Sequence[ShelfReading], index: dict[str, int]) -> tuple[np.ndarray, ...]:
    """Messages side by side: plates, times, starts and samples of those that can be used."""
    used = [reading for reading in readings if reading.plate in index and len(reading.samples)]
    plates = np.array([index[reading.plate] for reading in used], np.uint32)
    times_ns = np.array([reading.t_ns for reading in used], np.int64)
    starts = np.cumsum([0, *(len(reading.samples) for reading in used)]).astype(np.uint32)
    samples = [np.zeros(0), *(reading.samples for reading in used)]
    return plates, times_ns, starts, np.concatenate(samples).astype(np.float32)
