"""NumPy twin of fusion._kernels.shelves: one plate at a time, its samples in a list, written to be believed.

Below it a small shop and its scales, from which tests and benchmarks make weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.goods.scales import ShelfEvent, ShelfMonitor
from fusion.observations import ShelfReading
from fusion.store.models import Store
from fusion.store.values import check_digit

RING, BLOCK, BLOCKS = 512, 6, 4
UNSURE_MAX_NS = 8e9
WINDOW = BLOCK * BLOCKS


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
    last_ns: int = 0
    silence_ns: int = 0
    stuck: int = 0
    quiet_messages: int = 0
    since_onset: int = 0
    level: float = 0.0
    noise: float = 1.0
    baseline: float = 0.0
    last_value: float = 0.0
    kept: list[float] = field(default_factory=list)


def contact_sample(x: np.ndarray, before_g: float, after_g: float) -> int:
    """Where the best two-level fit with clipped residuals changes from before_g to after_g."""
    sign = 1.0 if before_g > after_g else -1.0
    half = 0.5 * abs(after_g - before_g)
    nearer = np.clip(sign * (x - 0.5 * (before_g + after_g)), -half, half)
    score = np.concatenate([[0.0], np.cumsum(nearer)])
    return int(np.argmax(score))


def follow(
    messages: Sequence[tuple[int, int, np.ndarray]], n_plates: int, period_ns: float, limits: Sequence[float]
) -> tuple[list[Change], list[Plate], dict[str, int]]:
    """Changes found in messages (plate, t_ns, samples), the plates' final states, and counts of unused messages."""
    gap_ns, stuck_samples, change_min_g, change_min_sd = limits
    plates = [Plate() for _ in range(n_plates)]
    changes: list[Change] = []
    unused = {"late": 0, "nan": 0}
    for index, t_ns, samples in messages:
        p, x, n = plates[index], samples.astype(np.float64), len(samples)
        length_ns = int(n * period_ns)
        if not np.isfinite(x).all() or np.abs(x).max() > 1e14:
            unused["nan"] += 1
            continue
        if p.next_ns == 0:
            p.onset_ns = t_ns
        elif t_ns < p.next_ns - length_ns // 2:
            unused["late"] += 1
            continue
        elif t_ns > p.next_ns + gap_ns:
            if p.state == "quiet":
                p.state, p.baseline, p.onset_ns, p.silence_ns = "disturbed", p.level, p.last_ns, p.last_ns
            elif p.state == "disturbed" and p.silence_ns == 0:
                p.silence_ns = p.last_ns
            p.kept, p.since_onset = [], 0
        else:
            t_ns = p.next_ns + (t_ns - p.next_ns) // 8
        p.next_ns = t_ns + length_ns
        p.last_ns = t_ns + length_ns - int(period_ns)
        p.kept = [*p.kept, *x]
        d = x - p.level
        if n * float(d @ d) - d.sum() ** 2 <= 1e-6 * n * n and samples[0] == np.float32(p.last_value):
            p.stuck += n
            if p.stuck > stuck_samples:
                if p.state == "quiet":
                    p.state, p.baseline, p.onset_ns = "disturbed", p.level, p.last_ns
                p.silence_ns = p.silence_ns or p.last_ns
                p.kept, p.since_onset = [], 0
                continue
        else:
            p.stuck = 0
        p.last_value = x[-1]
        sd = np.sqrt(p.noise)
        if p.state == "quiet":
            if (d**2).mean() <= (1.2 + 1.8 * sd) ** 2 and abs(d.mean()) <= 1.0 + 1.2 * sd:
                p.quiet_messages += 1
                p.level += d.mean() / min(p.quiet_messages + 2, 16)
                p.noise = max(p.noise + ((d**2).mean() - p.noise) / 32, 0.01)
                continue
            moved = np.flatnonzero(np.abs(d[:-1]) > 3.0 + 3.0 * sd)
            first = int(moved[0]) if len(moved) else n - 1
            p.state, p.baseline, p.silence_ns = "disturbed", p.level, 0
            p.onset_ns, p.since_onset = t_ns + int(first * period_ns), n - first
        else:
            p.since_onset += n
        for back in range(max(n // BLOCK - 1, 0), -1, -1):
            end, since = len(p.kept) - back * BLOCK, p.since_onset - back * BLOCK
            if min(since, end) < WINDOW:
                continue
            window = np.array(p.kept[end - WINDOW : end])
            means = window.reshape(BLOCKS, BLOCK).mean(axis=1)
            spread, plateau, var = np.ptp(means), window.mean(), window.var()
            patience = 1.0 + since * period_ns / 1.5e9
            if p.state == "starting":
                if spread <= (4.0 + 0.5 * np.sqrt(var)) * patience:
                    p.state, p.level, p.noise, p.quiet_messages, p.silence_ns = "quiet", plateau, max(var, 0.01), 0, 0
                    break
                continue
            delta = plateau - p.baseline
            if spread > (1.5 + 2.2 * sd + 0.01 * abs(delta)) * patience or p.stuck >= 2 * n:
                continue
            delta_var = 0.1 + p.noise / 24.0 + var * 5.0 / WINDOW
            least = max(change_min_g, change_min_sd * np.sqrt(delta_var))
            if change_min_g < abs(delta) <= least and since * period_ns < UNSURE_MAX_NS:
                continue
            p.state, p.level, p.quiet_messages = "quiet", plateau, 0
            if abs(delta) > least:
                first = max(end - p.since_onset - 30, len(p.kept) - RING, 0)
                at = contact_sample(np.array(p.kept[first:end]), p.baseline, plateau)
                contact_ns = p.last_ns - int((len(p.kept) - 1 - first - at) * period_ns)
                silent = p.silence_ns != 0 and at == 0
                if silent:
                    contact_ns = (p.silence_ns + contact_ns) // 2
                middle = 0.5 * (p.baseline + plateau)
                first_at = contact_sample(np.array(p.kept[first:end]), p.baseline, middle)
                second_at = contact_sample(np.array(p.kept[first:end]), middle, plateau)
                rise_ns = int((second_at - first_at) * period_ns)
                settled_ns = p.last_ns - int(back * BLOCK * period_ns)
                onset_ns = min(p.onset_ns, contact_ns)
                known = index, onset_ns, contact_ns, settled_ns, silent, rise_ns, var > (2.4 + 3.6 * sd) ** 2
                changes.append(Change(*known, delta, delta_var, p.baseline))
            p.silence_ns = 0
            break
    return changes, plates, unused


def shop(n_plates: int = 8, width_m: float = 0.1, rows: int = 1) -> Store:
    """A store of `rows` shelves with n_plates plates each; plate i of a row holds product i, weights far apart."""
    weights = [120.0, 538.0, 62.0, 245.0, 371.0, 90.0, 700.0, 45.0, 160.0, 300.0]
    gtins = [body + check_digit(body) for body in (f"20000000{i:04d}" for i in range(rows * n_plates))]
    plates = [
        {"plate": f"r{r}p{i}", "x": 0.5 + width_m * i, "y": 1.2, "z": 0.5 + 0.4 * r, "width": width_m, "depth": 0.4,
         "yaw": 0.0, "capacity_g": 20_000.0}
        for r in range(rows) for i in range(n_plates)
    ]  # fmt: skip
    products = [
        {"gtin": gtin, "name": f"product {i}", "weight_g": weights[i % 10] + 11.0 * (i // 10), "weight_sd_g": 1.0,
         "price": 100, "vat_rate": 19}
        for i, gtin in enumerate(gtins)
    ]  # fmt: skip
    planogram = [{"plate": plate["plate"], "gtin": gtin, "stock": 6} for plate, gtin in zip(plates, gtins)]
    return Store.model_validate(
        {
            "format_version": 1, "id": "shop", "name": "Shop", "currency": "EUR", "timezone": "Europe/Berlin",
            "floor": [[0, 0], [20, 0], [20, 20], [0, 20]], "keypoints": "coco17",
            "plates": plates, "products": products, "planogram": planogram,
        }
    )  # fmt: skip


class Scales:
    """Weights of a store's plates over some seconds: noise, steps, hands, shocks; then the messages they come in."""

    def __init__(self, store: Store, seconds: float, noise_g: float = 0.5, seed: int = 0, t0_ns: int = 10**18) -> None:
        self.store, self.t0_ns, self.rate = store, t0_ns, store.weight_rate_hz
        self.rng = np.random.default_rng(seed)
        self.t = np.arange(int(seconds * self.rate)) / self.rate
        offsets = self.rng.uniform(-5e3, 2e4, len(store.plates))
        self.grams = offsets[:, None] + self.rng.normal(0, noise_g, (len(offsets), len(self.t)))
        self.index = {plate.plate: i for i, plate in enumerate(store.plates)}

    def step(self, at_s: float, loads: dict[str, float], rise_s: float = 0.06) -> None:
        """A load comes (grams above 0) or goes, with an overshoot that rings for a third of a second."""
        after = self.t - at_s
        ringing = 0.3 * np.exp(-np.maximum(after, 0) / 0.1) * np.sin(40.0 * np.maximum(after, 0))
        shape = np.clip(0.5 + after / rise_s, 0, 1) + ringing
        for plate, grams in loads.items():
            self.grams[self.index[plate]] += grams * shape

    def hand(self, at_s: float, until_s: float, loads: dict[str, float]) -> None:
        """A hand that rests on plates for a while and leaves no trace."""
        on = np.clip((self.t - at_s) / 0.1, 0, 1) - np.clip((self.t - until_s) / 0.05, 0, 1)
        for plate, grams in loads.items():
            self.grams[self.index[plate]] += grams * on

    def shock(self, at_s: float, until_s: float, sd_g: float) -> None:
        """The whole store shakes, and comes back to where it was."""
        inside = (self.t >= at_s) & (self.t < until_s)
        common = self.rng.normal(0, sd_g, inside.sum())
        self.grams[:, inside] += common * self.rng.uniform(0.3, 1.0, (len(self.grams), 1))
        self.grams[:, inside] += self.rng.normal(0, 0.3 * sd_g, self.grams[:, inside].shape)

    def readings(self, samples: int = 12, jitter_ms: float = 3.0) -> list[ShelfReading]:
        """Messages in time order, every plate with its own phase."""
        out = []
        for i, plate in enumerate(self.store.plates):
            for first in range(int(self.rng.integers(0, samples)), len(self.t) - samples, samples):
                t_ns = self.t0_ns + int(self.t[first] * 1e9) + int(self.rng.normal(0, jitter_ms * 1e6))
                out.append(ShelfReading(t_ns, plate.plate, self.grams[i, first : first + samples].astype(np.float32)))
        return sorted(out, key=lambda reading: reading.t_ns)


def events(monitor: ShelfMonitor, readings: Sequence[ShelfReading], tick_s: float = 0.1) -> list[ShelfEvent]:
    """What a monitor says to messages that are given a tick at a time, and at the end."""
    found: list[ShelfEvent] = []
    batch: list[ShelfReading] = []
    until_ns = readings[0].t_ns + int(tick_s * 1e9)
    for reading in readings:
        while reading.t_ns >= until_ns:
            found += monitor.step(batch, until_ns)
            batch, until_ns = [], until_ns + int(tick_s * 1e9)
        batch.append(reading)
    found += monitor.step(batch, until_ns)
    return found + monitor.finish()
