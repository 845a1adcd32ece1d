"""Episodes at two shelves: people, their hands and the scales, without cameras and gates; and what is made of them.

    python tests/goods/episodes.py        write the answers, goods/episodes.json

Everything follows from an episode's number: who takes, puts back and misplaces what, beside whom, and what is wrong
with the scales meanwhile. A change that alters an answer must say why.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from goods.bills import Members
from goods.shop import T0, Scales, shop

from fusion import ShelfReading
from fusion.files.results import event_row, receipt_row
from fusion.goods.attribution import Attributor
from fusion.goods.billing import Billing
from fusion.goods.planogram import Planogram
from fusion.goods.scales import ShelfMonitor
from fusion.people.arms import ArmHistory
from fusion.people.open_visits import Visit
from fusion.results import People, Picked, PutBack, Receipt, ShelfEventExplained, Warning
from fusion.store.models import Facing, Store

ANSWERS = Path(__file__).with_name("episodes.json")
NUMBERS = range(24)
TICK_S = 0.1
# Reaching out takes this long, and so does drawing back; in between the hand is at the plate.
REACH_S, AT_PLATE_S = 0.5, 0.5
LEAVE_S = 2.0


def _store() -> Store:
    """Two shelves of eight plates. Of some products two or three weigh nearly alike, and one has two facings."""
    store = shop(n_plates=8, rows=2)
    weights = {4: 362.0, 9: 541.0, 11: 243.0, 12: 371.0, 13: 124.0}
    products = tuple(
        product.model_copy(update={"weight_g": weights.get(i, product.weight_g), "weight_sd_g": 1.0 + i % 3})
        for i, product in enumerate(store.products)
    )
    second = Facing(plate="r1p7", gtin=store.products[2].gtin, stock=3)
    return store.model_copy(update={"products": products, "planogram": (*store.planogram, second)})


STORE = _store()
LAYOUT = STORE.layout
PLATES = [plate.plate for plate in STORE.plates]


@dataclass(frozen=True)
class Action:
    """At an instant a person's hand moves pieces of a product on a plate: above 0 put there, 0 none."""

    t_s: float
    track: int
    plate: int
    product: int
    pieces: int


class Episode:
    """What happens, and what the sensors see of it.

    Attributes:
        actions: in time order. visits: tracks of each; a name that begins with `unknown` has no account.
        leaves_s: when each track is gone. truth: pieces that each visit has at the end.
    """

    def __init__(self, number: int) -> None:
        self.rng = rng = np.random.default_rng(number)
        self.visits = {"ann": [0], "bob": [1, 2] if number % 3 == 0 else [1]}
        if number % 4 == 1:
            self.visits["unknown"] = [3]
        self.staff = 4 if number % 4 == 3 else None
        self.visit_of = {track: name for name, tracks in self.visits.items() for track in tracks}
        tracks = [*self.visit_of, *([] if self.staff is None else [self.staff])]
        self.held: dict[str, Counter[int]] = {name: Counter() for name in self.visits}
        # Neighbours share a few plates, so that they meet.
        middle = int(rng.integers(1, 7))
        plates = [shelf * 8 + min(max(middle + i, 0), 7) for shelf in (0, 1) for i in (-1, 0, 1)]
        times = sorted((float(t), track) for track in tracks for t in 3.0 + np.cumsum(rng.uniform(2.2, 5.0, 4)))
        self.actions = [self._action(t_s, track, plates) for t_s, track in times]
        self.leaves_s = {track: max(a.t_s for a in self.actions if a.track == track) + LEAVE_S for track in tracks}
        self.seconds = max(self.leaves_s.values()) + 3.0
        self.truth = {
            name: {STORE.products[product].gtin: n for product, n in sorted(held.items()) if n}
            for name, held in self.held.items()
        }
        self.readings = self._weighed(number, plates)

    def _action(self, t_s: float, track: int, plates: list[int]) -> Action:
        rng = self.rng
        plate = int(rng.choice(plates))
        held = self.held.get(self.visit_of.get(track, ""), Counter())
        mine = sorted(product for product, n in held.items() if n)
        kind = rng.random()
        if kind < 0.1:
            return Action(t_s, track, plate, plate, 0)
        if kind < 0.4 and mine:
            product = int(rng.choice(mine))
            held[product] -= 1
            return Action(t_s, track, plate if rng.random() < 0.2 else product, product, 1)
        pieces = 2 if rng.random() < 0.25 else 1
        if track == self.staff and rng.random() < 0.7:
            return Action(t_s, track, plate, plate, pieces)
        held[plate] += pieces
        return Action(t_s, track, plate, plate, -pieces)

    def _weighed(self, number: int, plates: list[int]) -> list[ShelfReading]:
        """Messages of the scales. By the number, one plate is silent for a while, reads low, or all are shaken."""
        rng = self.rng
        scales = Scales(STORE, self.seconds + 3.0, noise_g=float(rng.choice([0.3, 0.8, 2.0])), seed=number)
        gain = dict.fromkeys(PLATES, 1.0)
        if number % 5 == 1:
            gain[PLATES[plates[1]]] = 0.94
        for action in self.actions:
            plate, product = PLATES[action.plate], STORE.products[action.product]
            grams = sum(rng.normal(product.weight_g, product.weight_sd_g) for _ in range(abs(action.pieces)))
            if action.pieces:
                scales.step(action.t_s, {plate: float(np.sign(action.pieces)) * gain[plate] * grams})
            if not action.pieces or rng.random() < 0.3:
                scales.hand(action.t_s - 0.5, action.t_s + 0.3, {plate: float(rng.uniform(20, 200))})
        if number % 5 == 2:
            scales.shock(8.0, 8.6, 30.0)
        silent, since_s = PLATES[plates[1 + 3 * (number % 2)]], float(rng.uniform(6, 10))
        lost = (since_s, since_s + float(rng.uniform(1, 5))) if number % 5 == 3 else (0.0, 0.0)
        return [
            reading
            for reading in scales.readings()
            if not (reading.plate == silent and lost[0] <= (reading.t_ns - T0) * 1e-9 < lost[1])
        ]

    def people(self, t_s: float) -> People:
        """Where everybody and their hands are; each waits before the plate to come."""
        here = [track for track, leaves_s in self.leaves_s.items() if t_s < leaves_s]
        n = len(here)
        joints, sd = np.full((n, LAYOUT.n_joints, 3), np.nan), np.full((n, LAYOUT.n_joints), np.nan)
        position = np.zeros((n, 2))
        for i, track in enumerate(here):
            mine = [action for action in self.actions if action.track == track]
            stops = np.array([STORE.plates[action.plate].x for action in mine])
            # Side by side, some decimetres apart; arrived a second before the hand is at the plate.
            x = float(np.interp(t_s, [a.t_s - 1.0 for a in mine], stops)) + 0.12 * (track - 1.5)
            position[i] = x, 0.65
            action = min(mine, key=lambda a: abs(a.t_s - t_s))
            plate = STORE.plates[action.plate]
            out = np.clip((AT_PLATE_S / 2 + REACH_S - abs(t_s - action.t_s)) / REACH_S, 0.0, 1.0)
            rest, at_plate = np.array([x + 0.15, 0.75, 0.95]), np.array([plate.x, plate.y - 0.05, plate.z + 0.1])
            wrist = rest + out * (at_plate - rest) + self.rng.normal(0, 0.015, 3)
            shoulder = np.array([x + 0.18, 0.65, 1.4])
            joints[i, LAYOUT.index("r_shoulder")], joints[i, LAYOUT.index("r_wrist")] = shoulder, wrist
            joints[i, LAYOUT.index("r_elbow")] = (shoulder + wrist) / 2 + (0.0, -0.02, -0.08)
            joints[i, LAYOUT.index("l_shoulder")] = x - 0.18, 0.65, 1.4
            joints[i, LAYOUT.index("l_elbow")] = x - 0.2, 0.68, 1.15
            joints[i, LAYOUT.index("l_wrist")] = x - 0.2, 0.78, 0.95
            sd[i] = np.where(np.isnan(joints[i, :, 0]), np.nan, 0.03)
        t_ns = T0 + int(t_s * 1e9)
        yes, seen = np.ones(n, bool), np.full(n, t_ns)
        return People(t_ns, np.array(here, np.int64), yes, position, np.full(n, 0.03), joints, sd, seen, np.ones(n))


def play(episode: Episode) -> tuple[list[Any], Billing, Planogram]:
    """Results of an episode, in their order; the billing and what is believed of the shelves at the end."""
    members, planogram = Members(), Planogram(STORE)
    monitor, attributor = ShelfMonitor(STORE, planogram), Attributor(STORE, planogram)
    history = ArmHistory(LAYOUT)
    billing = Billing(STORE, members, attributor, monitor, history)
    visits = []
    for name, tracks in episode.visits.items():
        account = None if name.startswith("unknown") else name
        visit = Visit(name, account, T0, set(tracks), exit_ns=T0 + int(max(episode.leaves_s[t] for t in tracks) * 1e9))
        visits.append(visit)
        for track in tracks:
            members.visits[track] = visit
            attributor.join(track, name)
    if episode.staff is not None:
        members.staff.add(episode.staff)
        attributor.set_staff(episode.staff)
    results: list[Any] = []
    waiting = list(reversed(episode.readings))
    now_ns = T0
    for tick in range(1, int(episode.seconds / TICK_S) + 1):
        now_ns = T0 + int(tick * TICK_S * 1e9)
        history.append(episode.people(tick * TICK_S))
        batch = []
        while waiting and waiting[-1].t_ns <= now_ns:
            batch.append(waiting.pop())
        for event in monitor.step(batch, now_ns):
            results += billing.observe(event)
        for undone in monitor.undone():
            attributor.note_undone(undone, history)
        results += monitor.warnings()
        attributor.watch(monitor.blind, history, now_ns)
        left = [v for v in visits if v.exit_ns + 900_000_000 <= now_ns and not billing.must_wait(v, now_ns)]
        for visit in left:
            visits.remove(visit)
            results += billing.bill(visit, visits, visit.exit_ns, now_ns)
    for event in monitor.finish():
        results += billing.observe(event)
    while visits:
        visit = visits.pop(0)
        results += billing.bill(visit, visits, visit.exit_ns, now_ns)
    return results + billing.finish(), billing, planogram


def answers(number: int) -> dict[str, Any]:
    """Receipts, explained loads, what lies where, gains and warnings of an episode, as JSON holds them."""
    episode = Episode(number)
    results, billing, planogram = play(episode)
    receipts = [receipt_row(result) for result in results if isinstance(result, Receipt)]
    return json.loads(json.dumps({
        "truth": episode.truth,
        "receipts": receipts,
        "events": [event_row(result) for result in results if isinstance(result, ShelfEventExplained)],
        "picks": [
            [type(result).__name__, result.plate, result.gtin, result.quantity, result.visit]
            for result in results if isinstance(result, Picked | PutBack)
        ],
        "warnings": [[result.kind, result.subject] for result in results if isinstance(result, Warning)],
        "shelves": [[count.plate, count.gtin, count.pieces] for count in billing.shelf_state()],
        "gains": {plate: float(gain) for plate, gain in zip(PLATES, planogram.gain) if gain != 1.0},
    }))  # fmt: skip


if __name__ == "__main__":
    rows = [json.dumps(answers(number)) for number in NUMBERS]
    ANSWERS.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
