"""A small shop, and weights for its plates: noise, loads, hands and shocks, as the messages that scales would send."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.goods.scales import ShelfEvent, ShelfMonitor
from fusion.observations import ShelfReading
from fusion.store.models import Store
from fusion.store.values import check_digit


def shop(n_plates: int = 8, width_m: float = 0.1, rows: int = 1) -> Store:
    """A store of `rows` shelves with n_plates plates each. Plate i of a row holds product i; weights are far apart."""
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
    """Weights of a store's plates over some seconds, and the messages that carry them."""

    def __init__(self, store: Store, seconds: float, noise_g: float = 0.5, seed: int = 0, t0_ns: int = 10**18) -> None:
        self.store, self.t0_ns, self.rate = store, t0_ns, store.weight_rate_hz
        self.rng = np.random.default_rng(seed)
        self.t = np.arange(int(seconds * self.rate)) / self.rate
        offsets = self.rng.uniform(-5e3, 2e4, len(store.plates))
        self.grams = offsets[:, None] + self.rng.normal(0, noise_g, (len(offsets), len(self.t)))
        self.index = {plate.plate: i for i, plate in enumerate(store.plates)}

    def step(self, at_s: float, loads: dict[str, float], rise_s: float = 0.06) -> None:
        """Add a load (grams above 0) or remove one, with an overshoot that rings for a third of a second."""
        after = self.t - at_s
        ringing = 0.3 * np.exp(-np.maximum(after, 0) / 0.1) * np.sin(40.0 * np.maximum(after, 0))
        shape = np.clip(0.5 + after / rise_s, 0, 1) + ringing
        for plate, grams in loads.items():
            self.grams[self.index[plate]] += grams * shape

    def hand(self, at_s: float, until_s: float, loads: dict[str, float]) -> None:
        """Rest a hand on plates for a while; it leaves no trace."""
        on = np.clip((self.t - at_s) / 0.1, 0, 1) - np.clip((self.t - until_s) / 0.05, 0, 1)
        for plate, grams in loads.items():
            self.grams[self.index[plate]] += grams * on

    def shock(self, at_s: float, until_s: float, sd_g: float) -> None:
        """Shake the whole store; afterwards all weights are as before."""
        inside = (self.t >= at_s) & (self.t < until_s)
        common = self.rng.normal(0, sd_g, inside.sum())
        self.grams[:, inside] += common * self.rng.uniform(0.3, 1.0, (len(self.grams), 1))
        self.grams[:, inside] += self.rng.normal(0, 0.3 * sd_g, self.grams[:, inside].shape)

    def readings(self, samples: int = 12, jitter_ms: float = 3.0) -> list[ShelfReading]:
        """Messages in time order; every plate has its own phase."""
        messages = []
        for i, plate in enumerate(self.store.plates):
            for first in range(int(self.rng.integers(0, samples)), len(self.t) - samples, samples):
                t_ns = self.t0_ns + int(self.t[first] * 1e9) + int(self.rng.normal(0, jitter_ms * 1e6))
                grams = self.grams[i, first : first + samples].astype(np.float32)
                messages.append(ShelfReading(t_ns, plate.plate, grams))
        return sorted(messages, key=lambda reading: reading.t_ns)


def events(monitor: ShelfMonitor, readings: Sequence[ShelfReading], tick_s: float = 0.1) -> list[ShelfEvent]:
    """Events that a monitor reports for messages fed one tick at a time, the events of `finish` included."""
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
