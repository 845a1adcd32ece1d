"""A small shop: its weights, as the messages that scales would send, and people with their hands at its plates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.goods.loads import ShelfEvent
from fusion.goods.scales import ShelfMonitor
from fusion.observations import ShelfReading
from fusion.people.arms import ArmHistory
from fusion.results import People
from fusion.store.gtin import check_digit
from fusion.store.layouts import Layout
from fusion.store.models import Store


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


STORE = shop()
LAYOUT = STORE.layout
GTINS = [product.gtin for product in STORE.products]
T0 = 10**18


def history_of(people: list[People], layout: Layout = LAYOUT) -> ArmHistory:
    """All of these instants, however many."""
    history = ArmHistory(layout, span_s=1e6, capacity=sum(len(instant.track_id) for instant in people) + 1)
    for instant in people:
        history.append(instant)
    return history


def at_shelf(hands: dict[int, tuple[float, float, float] | None], seconds: float = 60.0) -> ArmHistory:
    """People who stand before the shelf with one hand at a place, for the whole time; None: no wrist is seen."""
    instants = []
    for t_s in np.arange(0, seconds, 0.1):
        n = len(hands)
        joints, sd = np.full((n, LAYOUT.n_joints, 3), np.nan), np.full((n, LAYOUT.n_joints), np.nan)
        position = np.zeros((n, 2))
        for i, hand in enumerate(hands.values()):
            x, y, z = hand or (0.8, 1.0, 0.6)
            position[i] = x, y - 0.5
            joints[i, LAYOUT.index("l_wrist")] = x - 0.1, y - 0.5, 0.9
            joints[i, LAYOUT.index("l_elbow")] = x - 0.1, y - 0.5, 1.15
            joints[i, LAYOUT.index("r_elbow")] = x, y - 0.33, z
            joints[i, LAYOUT.index("r_shoulder")] = x, y - 0.5, z + 0.25
            if hand is not None:
                joints[i, LAYOUT.index("r_wrist")] = x, y - 0.08, z
            sd[i] = np.where(np.isnan(joints[i, :, 0]), np.nan, 0.03)
        yes = np.ones(n, bool)
        track = np.array(list(hands), np.int64)
        t_ns = T0 + int(t_s * 1e9)
        instants.append(People(t_ns, track, yes, position, np.full(n, 0.03), joints, sd, np.full(n, t_ns), np.ones(n)))
    return history_of(instants)


def plate_hand(plate: int) -> tuple[float, float, float]:
    """Where a hand is that takes from a plate."""
    return STORE.plates[plate].x, STORE.plates[plate].y - 0.1, STORE.plates[plate].z + 0.1


def event(at_s: float, loads: dict[int, float]) -> ShelfEvent:
    """A shelf event: grams by plate, negative where goods were taken."""
    t_ns = T0 + int(at_s * 1e9)
    plates, deltas = np.array(list(loads), np.int64), np.array(list(loads.values()))
    return ShelfEvent(plates, t_ns - 100_000_000, t_ns, t_ns + 500_000_000, deltas, np.eye(len(plates)) * 0.3)
