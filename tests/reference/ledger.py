"""Python twin of the kernels of loads and divisions, written to be believed: lists of steps, no memory, no tables."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from fusion.goods import ledger, loads
from fusion.goods.planogram import Planogram
from fusion.goods.plates import PlateChange, PlateSamples
from reference import goods

RING, LAST_NS, RING_COUNT, NOISE_G2 = 512, 2, 5, 1
BEAM, IDENTIFIED = 48, 6

Block = tuple[float, list[PlateChange]]


def log_nothing(delta_g: float, var_g2: float, heaviest_g: float) -> float:
    """As `loads.log_nothing`."""
    beside_g = heaviest_g if heaviest_g > abs(delta_g) else 0.0
    known_g = 0.5 * math.sqrt(var_g2) + loads.CROSS_TALK_SHARE * beside_g
    far = max(abs(delta_g) - known_g, 0.0) / loads.CREEP_G
    return -far - 0.5 * max(far - loads.CREEP_FAR, 0.0) ** 2 - math.log(2.0 * (known_g + loads.CREEP_G))


def log_press(grams: float) -> float:
    """As `ledger.log_press`."""
    density = ledger.LEAN_SHARE / ledger.LEAN_MAX_G if 0.0 < grams < ledger.LEAN_MAX_G else 1e-9
    for share, sd_g in zip(ledger.PRESS_SHARE, ledger.PRESS_SD_G):
        density += share * math.exp(-0.5 * (grams / sd_g) ** 2) / (sd_g * math.sqrt(2.0 * math.pi))
    return math.log(density)


def contact_sd_s(change: PlateChange) -> float:
    """Standard deviation of a change's contact time."""
    load_g = abs(change.delta_g)
    slow_s = 0.0 if change.silent else max(change.rise_ns * 1e-9 - loads.STEP_S, 0.0)
    unsure = 1.0 + 8.0 * math.sqrt(change.var_g2) / load_g + (loads.SHAKE_G / load_g) ** 2
    return loads.SAME_LOAD_SD_S * unsure + 0.5 * slow_s


def log_load(planogram: Planogram, part: list[PlateChange]) -> float:
    """As `LoadFinder.log_load`."""
    place = planogram.rows.place
    if len(part) > len(loads.SPREAD_PRIOR) or any(place[b.plate] - place[a.plate] != 1 for a, b in pairwise(part)):
        return -math.inf
    deltas = np.array([change.delta_g for change in part])
    total = float(deltas.sum())
    against = sum(abs(delta) for delta in deltas if delta * total <= 0.0)
    if against > loads.AGAINST_SHARE * abs(total) or abs(total) < loads.LIGHTEST_SHARE * planogram.lightest_g:
        return -math.inf
    plates = np.array([change.plate for change in part])
    found = goods.identify(planogram, plates, deltas, sum(change.var_g2 for change in part), IDENTIFIED)
    log_density = float(np.logaddexp.reduce([*found.log_posterior, math.log(loads.UNKNOWN_PER_G)]))
    log_density += -(len(part) - 1) * math.log(abs(total)) + math.log(loads.SPREAD_PRIOR[len(part) - 1])
    log_density += math.log(loads.COINCIDENCE_PER_S)
    dated = [change for change in part if not change.silent]
    if len(dated) > 1:
        times_s = np.array([change.contact_ns - dated[0].contact_ns for change in dated]) * 1e-9
        sd_s = np.array([contact_sd_s(change) for change in dated])
        weight = 1.0 / sd_s**2
        residual = (times_s - (weight @ times_s) / weight.sum()) / sd_s
        log_density -= 0.5 * float(residual @ residual) + float(np.log(sd_s[1:] * math.sqrt(2 * math.pi)).sum())
    return log_density


def calm_s(samples: PlateSamples, plate: int, since_ns: int, until_ns: int) -> float:
    """For how long a plate trembled no more than at rest between two instants."""
    count, n = int(samples.times[plate, RING_COUNT]), ledger.CALM_BLOCKS * 6
    at = np.arange(max(count - RING, 0), count)
    t_ns = samples.times[plate, LAST_NS] - ((count - 1 - at) * samples.period_ns).astype(np.int64)
    inside = samples.ring[plate, at[(t_ns > since_ns) & (t_ns < until_ns)] % RING].astype(np.float64)
    if len(inside) < n:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(inside, n)
    noise_g2 = samples.reals[plate, NOISE_G2]
    calm = windows.std(axis=1) < ledger.CALM_SLACK_G + ledger.CALM_SDS * math.sqrt(noise_g2)
    return float(calm.sum()) * int(samples.period_ns) * 1e-9


class Division:
    """Steps, and how their blocks are scored."""

    def __init__(self, planogram: Planogram, samples: PlateSamples, steps: list[PlateChange]) -> None:
        self.planogram, self.samples, self.steps = planogram, samples, steps

    def _rest_g2(self, plate: int) -> float:
        return float(ledger.REST_G2 + self.samples.reals[plate, NOISE_G2] / 12.0)

    def _heaviest_g(self, step: PlateChange) -> float:
        near = self.planogram.rows.near(step.plate, 1)
        return max(
            abs(other.delta_g) for other in self.steps
            if other.plate in near and abs(other.contact_ns - step.contact_ns) < ledger.CROSS_TALK_NS
        )  # fmt: skip

    def _log_hand(self, step: PlateChange, main: PlateChange) -> float:
        log_density = log_press(step.delta_g)
        apart_s = abs(step.contact_ns - main.contact_ns) * 1e-9
        if apart_s > ledger.RELIEF_S or abs(step.delta_g) > ledger.RELIEF_G:
            return log_density
        return max(log_density, log_nothing(step.delta_g, step.var_g2, self._heaviest_g(step))) + ledger.LOG_RELIEF

    def block(self, ids: tuple[int, ...]) -> Block:
        """Steps as one load, or as none."""
        by_plate: dict[int, list[PlateChange]] = {}
        for i in ids:
            by_plate.setdefault(self.steps[i].plate, []).append(self.steps[i])
        plates = [step.plate for step in self.steps]
        log_pressed, log_none, log_calm = 0.0, 0.0, 0.0
        load: list[PlateChange] = []
        for plate, own in by_plate.items():
            own.sort(key=lambda step: step.settled_ns)
            if len(own) == plates.count(plate) > 1:
                own[:] = [step.but(var_g2=self._rest_g2(plate)) for step in own]
            net_g = sum(step.delta_g for step in own) or 1e-6
            main = max(own, key=lambda step: step.delta_g * math.copysign(1.0, net_g))
            for a, b in pairwise(own):
                calm = calm_s(self.samples, plate, a.settled_ns, min(b.onset_ns, b.contact_ns))
                log_calm -= min(ledger.LOG_CALM_PER_S * calm, ledger.LOG_CALM_MAX)
            lifted_s = (own[-1].contact_ns - own[0].contact_ns) * 1e-9 - ledger.LIFT_USUAL_S
            undone = abs(net_g) < loads.UNDONE_SLACK_G + 0.1 * abs(own[0].delta_g)
            if own[0].delta_g < 0.0 and lifted_s > 0.0 and undone:
                log_none -= min(ledger.LOG_LIFT_PER_S * lifted_s, ledger.LOG_CALM_MAX)
            log_none += log_nothing(net_g, own[-1].var_g2, self._heaviest_g(main))
            log_none += sum(self._log_hand(step, own[-1]) for step in own[:-1])
            log_pressed += sum(self._log_hand(step, main) for step in own if step is not main)
            halves = [step for step in own if step.delta_g / net_g > ledger.HALF_SHARE] or [main]
            load.append(
                halves[-1 if net_g < 0.0 else 0].but(
                    delta_g=net_g, onset_ns=min(step.onset_ns for step in own), settled_ns=own[-1].settled_ns,
                    before_g=own[0].before_g, shaky=False,
                )
            )  # fmt: skip
        load.sort(key=lambda change: int(self.planogram.rows.place[change.plate]))
        log_density = log_load(self.planogram, load) + log_pressed
        return (log_density + log_calm, load) if log_density > log_none else (log_none + log_calm, [])

    def score(self, blocks: Sequence[tuple[int, ...]]) -> float:
        """Log density of the steps, divided into these blocks."""
        found = [self.block(ids) for ids in blocks]
        return sum(score for score, _ in found) - two_hands([load for _, load in found])

    def divide(self) -> float:
        """As `LoadFinder.divide`: the best score."""
        block = functools.cache(self.block)
        beam: list[tuple[float, tuple[tuple[int, ...], ...]]] = [(0.0, ())]
        for i, step in enumerate(self.steps):
            near = self.planogram.rows.near(step.plate, loads.LOAD_REACH)
            grown = []
            for total, blocks in beam:
                grown.append((total + block((i,))[0], (*blocks, (i,))))
                for k, ids in enumerate(blocks):
                    if any(self.steps[j].plate in near for j in ids):
                        more = block((*ids, i))[0] - block(ids)[0]
                        grown.append((total + more, (*blocks[:k], (*ids, i), *blocks[k + 1 :])))
            beam = sorted(grown, key=lambda one: -one[0])[:BEAM]
        return max(total - two_hands([block(ids)[1] for ids in blocks]) for total, blocks in beam)


def two_hands(found: list[list[PlateChange]]) -> float:
    """Log odds against loads on one plate that follow each other faster than a hand does."""
    mains = [max(load, key=lambda change: abs(change.delta_g)) for load in found if load]
    return ledger.LOG_TWO_HANDS * sum(
        a.plate == b.plate and abs(a.contact_ns - b.contact_ns) < ledger.SAME_HAND_S * 1e9
        for a, b in combinations(mains, 2)
    )
