"""What weighing plates report: offsets, gains, settling, cross-talk, vibration, shocks, drift, lost messages.

Figures: measurements on a real shop's 294 plates (33 s, one shopper) unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.observations import ShelfReading
from fusion.simulation.events import Handling, Load
from fusion.simulation.goods import ShelfMap
from fusion.simulation.scenario import Scenario
from fusion.store.models import Store

SAMPLES = 12
QUANTUM_G = 0.241
DEAD_READING_G = 6067.416  # a controller of the recorded shop reported this for plates that were not connected
SETTLED_S = 2.0  # a step's ringing is below a thousandth by then
CREEP_S = 15.0  # time constant of a load cell's creep
_CROSSTALK_MAX = 0.016
_HANDLING_LINGERS_S = 0.4


@dataclass(frozen=True)
class _Step:
    """A load as the plates show it: they rise, overshoot, ring down.

    Attributes:
        delta_g: (n_plates,) in the end, gain and cross-talk included.
    """

    t_s: float
    delta_g: NDArray[np.float64]
    rise_s: float
    overshoot: float
    decay_s: float
    rate: float

    def share_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_times,) of delta_g; it peaks a quarter period after the rise and rings below 5 % when settled."""
        since_s = times_s - self.t_s
        ramp = np.clip(since_s / self.rise_s, 0.0, 1.0)
        after = np.maximum(since_s - self.rise_s, 0.0)
        ringing = self.overshoot * np.exp(-after / self.decay_s) * np.sin(self.rate * after)
        return np.asarray(ramp + np.where(after > 0, ringing, 0.0))


@dataclass(frozen=True)
class _Creep:
    """What load cells go on to creep by after a load: (n_plates,) grams in the end."""

    t_s: float
    creep_g: NDArray[np.float64]


@dataclass(frozen=True)
class _Shaking:
    """A hand at a plate, and by how many grams it shakes it."""

    handling: Handling
    shake_g: float


@dataclass(frozen=True)
class _Shock:
    """The whole store shakes for a second or two: amplitude in grams and angular rate of each plate (n_plates,)."""

    t_s: float
    duration_s: float
    amplitude_g: NDArray[np.float64]
    rate: NDArray[np.float64]


class Scales:
    """All plates of a store, read one stretch of time after another."""

    def __init__(self, store: Store, shelves: ShelfMap, scenario: Scenario, samples: int = SAMPLES) -> None:
        """samples: of each message."""
        self._shelves, self.scenario, self._samples = shelves, scenario, samples
        self._names = [plate.plate for plate in store.plates]
        n = len(self._names)
        self.rate_hz, self._unit_g = store.weight_rate_hz, store.weight_unit_g
        setting = scenario.random("plates")
        self._noise = scenario.random("plate noise")
        self._messages = scenario.random("messages")
        high = setting.random(n) < 0.04
        self.offset_g = np.where(high, setting.uniform(10e3, 64e3, n), setting.uniform(-5e3, 8e3, n))
        self.gain = 1.0 + 0.03 * np.clip(setting.standard_normal(n), -3.0, 3.0)
        # Quiet floor per plate: median 0.35 to 0.7 g, 90 % below 1.2 g; the upper shelves shake most.
        quiet_g = np.exp(setting.normal(math.log(0.45), 0.6, n)) * (1.0 + 0.15 * shelves.level)
        self.quiet_g = scenario.plate_noise * np.clip(quiet_g, 0.1, 6.0)
        self.slope_g_per_s = setting.standard_normal(n) * scenario.drift_g_per_min / 60.0
        self._day_g = setting.uniform(1.0, 3.0, n) * (scenario.drift_g_per_min > 0)
        self._day_phase = setting.uniform(0.0, 2 * math.pi, n)
        order = setting.permutation(n)
        sliding = order[: scenario.drifting_plates]
        slide_g_per_min = setting.choice([-1.0, 1.0], len(sliding)) * setting.uniform(5.0, 10.0, len(sliding))
        self.slope_g_per_s[sliding] = slide_g_per_min / 60.0
        self.dead = np.zeros(n, bool)
        self.dead[order[len(order) - min(scenario.dead_plates, n) :]] = True
        # Part of a load that bears on the plates beside it, of either sign, fixed for each pair.
        self._leak = np.zeros((n, n))
        for plate, beside in enumerate(shelves.beside):
            for other in beside:
                self._leak[other, plate] = setting.choice([-1.0, 1.0]) * setting.uniform(0.0, _CROSSTALK_MAX)
        oddities = scenario.random("plate oddities")
        self._place_gain = scenario.random("place gain")
        self._sympathy = setting.uniform(0.6, 1.4, n)  # of a plate with its shelf's common vibration
        n_gondolas = int(shelves.gondola.max(initial=-1)) + 1
        self._period_s = samples / self.rate_hz
        self._phase_s = setting.uniform(0.0, self._period_s, n_gondolas)
        # A cooling machine shakes its whole gondola at some hertz, and is on for part of every few minutes.
        self._hum_rate = oddities.uniform(6.0, 14.0, n_gondolas) * 2 * math.pi
        self._hum_cycle_s = oddities.uniform(60.0, 240.0, n_gondolas)
        self._hum_g = scenario.hum_g * oddities.uniform(0.3, 1.7, n)
        self._base_g = np.zeros(n)  # of all loads that have settled, gain and cross-talk included
        self._steps: list[_Step] = []
        self._creeping: list[_Creep] = []
        self._shakings: list[_Shaking] = []
        self._shocks = self._plan_shocks(n)
        self._next_message = np.ones(n_gondolas, np.int64)

    def _plan_shocks(self, n: int) -> list[_Shock]:
        random = self.scenario.random("shocks")
        count = int(random.poisson(self.scenario.shocks_per_minute * self.scenario.minutes))
        times_s = np.sort(random.uniform(0.0, self.scenario.duration_s, count))
        return [_shock(float(at), float(random.uniform(1.0, 2.0)), n, random) for at in times_s]

    def shake(self, t_s: float, duration_s: float, strength: float, random: np.random.Generator) -> None:
        """Shake all plates from a time on, as a door that is slammed does; 1 is the strength of other shocks."""
        shock = _shock(t_s, duration_s, len(self._names), random)
        self._shocks.append(replace(shock, amplitude_g=strength * shock.amplitude_g))

    def add(self, loads: Iterable[Load], handlings: Iterable[Handling]) -> list[Load]:
        """Add what happens on the plates, before the stretch in which it takes effect is read.

        Returns:
            The loads as the plates show them in the end: with gains and cross-talk, without creep.
        """
        shown = [self._add_load(load) for load in loads]
        for handling in handlings:
            shake_g = float(self._noise.uniform(5.0, 30.0)) * self.scenario.plate_noise
            self._shakings.append(_Shaking(handling, shake_g))
        return shown

    def _add_load(self, load: Load) -> Load:
        delta_g = np.zeros(len(self._names))
        for plate, grams in load.plates:
            delta_g[plate] += grams
        if self.scenario.place_gain_sd:
            # The same for all plates under one load: the gain depends on where the thing stands.
            place_sd = self.scenario.place_gain_sd
            delta_g *= 1.0 + place_sd * float(np.clip(self._place_gain.standard_normal(), -3.0, 3.0))
        delta_g = self.gain * (delta_g + self._leak @ delta_g)
        if self.scenario.creep_share:
            creep = self.scenario.creep_share * float(self._place_gain.standard_normal())
            self._creeping.append(_Creep(load.t_s, creep * delta_g))
        overshoot = float(self._noise.uniform(0.2, 1.0))
        settle_s = float(self._noise.uniform(0.4, 0.75))
        rise_s = float(self._noise.uniform(0.05, 0.1)) * 1.25  # 10 to 90 % is four fifths of a straight rise
        decay_s = settle_s / math.log(overshoot / 0.05)
        rate = 2 * math.pi * float(self._noise.uniform(4.0, 8.0))
        self._steps.append(_Step(load.t_s, delta_g, rise_s, overshoot, decay_s, rate))
        felt = np.flatnonzero(delta_g)
        return Load(load.t_s, tuple(zip(felt.tolist(), delta_g[felt].tolist())))

    def readings(self, end_s: float, start_ns: int) -> list[ShelfReading]:
        """All messages that begin before end_s and have not been read yet."""
        out: list[ShelfReading] = []
        random, s = self._messages, self.scenario
        for gondola, phase_s in enumerate(self._phase_s):
            first = int(self._next_message[gondola])
            last = max(first, math.ceil((end_s - phase_s) / self._period_s))
            if last == first:
                continue
            self._next_message[gondola] = last
            plates = np.flatnonzero(self._shelves.gondola == gondola)
            begin_s = phase_s + np.arange(first, last) * self._period_s
            times_s = (begin_s[:, None] + np.arange(self._samples) / self.rate_hz).ravel()
            grams = self._signal(times_s, plates)
            blocks = grams.astype(np.float32).reshape(last - first, self._samples, -1)
            blocks = np.ascontiguousarray(blocks.transpose(2, 0, 1))
            # Controllers stamp a message when they get to it: some milliseconds off, never out of order.
            limit_s = 0.4 * self._period_s
            jitter_s = np.clip(random.standard_normal(last - first) * s.message_jitter_s, -limit_s, limit_s)
            stamps = (start_ns + np.rint((begin_s + jitter_s) * 1e9).astype(np.int64)).tolist()
            kept = (random.random((len(plates), last - first)) >= s.gap_probability).tolist()
            for row, plate in enumerate(plates.tolist()):
                name, block = self._names[plate], blocks[row]
                if self._unit_g != 1.0:
                    block = block / np.float32(self._unit_g)
                out += [ShelfReading(t, name, block[k]) for k, t in enumerate(stamps) if kept[row][k]]
        self._forget(end_s)
        return out

    def _signal(self, times_s: NDArray[np.float64], plates: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n_times, n_plates) grams of the plates of one gondola."""
        grams = self._levels(times_s, plates)
        self._add_vibration(grams, times_s, plates)
        self._add_shocks(grams, times_s, plates)
        grams = np.rint(grams / QUANTUM_G) * QUANTUM_G
        grams[:, self.dead[plates]] = DEAD_READING_G
        return grams

    def _levels(self, times_s: NDArray[np.float64], plates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Offsets, drift, loads, creep and hum."""
        grams = np.empty((len(times_s), len(plates)))
        hours = times_s / 3600.0
        day = np.sin(2 * math.pi * hours[:, None] / 24.0 + self._day_phase[plates])
        grams[:] = self.offset_g[plates] + self._base_g[plates] + self.slope_g_per_s[plates] * times_s[:, None]
        grams += self._day_g[plates] * day
        for step in self._steps:
            felt = np.flatnonzero(step.delta_g[plates])
            if len(felt) and step.t_s < times_s[-1]:
                grams[:, felt] += step.share_at(times_s)[:, None] * step.delta_g[plates[felt]]
        for creep in self._creeping:
            felt = np.flatnonzero(creep.creep_g[plates])
            if len(felt) and creep.t_s < times_s[-1]:
                grown = 1.0 - np.exp(-np.maximum(times_s - creep.t_s, 0.0) / CREEP_S)
                grams[:, felt] += grown[:, None] * creep.creep_g[plates[felt]]
        if self.scenario.hum_g:
            gondola = int(self._shelves.gondola[plates[0]])
            turning = 2 * math.pi * times_s / self._hum_cycle_s[gondola]
            running = _window(np.sin(turning), 0.0, 2.0, 0.3)
            grams += (running * np.sin(self._hum_rate[gondola] * times_s))[:, None] * self._hum_g[plates]
        return grams

    def _add_vibration(
        self, grams: NDArray[np.float64], times_s: NDArray[np.float64], plates: NDArray[np.int64]
    ) -> None:
        """Add noise, half of its variance common to a shelf (measured 53 %), and the shaking and pressing of hands."""
        n, random = len(times_s), self._noise
        busy = np.ones(n)
        shaken = np.zeros((n, len(plates)))
        for shaking in self._shakings:
            handling = shaking.handling
            where = np.flatnonzero(plates == handling.plate)
            if not len(where):
                continue
            active = _window(times_s, handling.start_s - 0.2, handling.end_s + _HANDLING_LINGERS_S, 0.15)
            touched = np.flatnonzero(active)
            if not len(touched):
                continue
            busy = np.maximum(busy, 1.0 + 3.0 * active)
            row = int(where[0])
            press = _window(times_s, handling.start_s, handling.end_s, 0.12)
            grams[:, row] += self.gain[handling.plate] * handling.press_g * press
            reach = np.zeros(len(plates))
            reach[np.isin(plates, self._shelves.beside[handling.plate])] = 0.35
            reach[row] = 1.0
            shaken[touched] += active[touched, None] * shaking.shake_g * reach
        sd_g = self.quiet_g[plates] * busy[:, None] + 0.0
        shelves, of_plate = np.unique(self._shelves.shelf[plates], return_inverse=True)
        common = random.standard_normal((n, len(shelves)), np.float32)[:, of_plate] * self._sympathy[plates]
        single = random.standard_normal((n, len(plates)), np.float32)
        grams += math.sqrt(0.5) * sd_g * (single + common)
        if shaken.any():
            # A hand shakes at a few hertz, not white; two samples' mean is close enough below 20 Hz.
            rough = random.standard_normal((n + 1, len(plates)), np.float32)
            grams += shaken * (rough[1:] + rough[:-1]) * math.sqrt(0.5)

    def _add_shocks(self, grams: NDArray[np.float64], times_s: NDArray[np.float64], plates: NDArray[np.int64]) -> None:
        for shock in self._shocks:
            if shock.t_s < times_s[-1] and shock.t_s + shock.duration_s > times_s[0]:
                since = times_s - shock.t_s
                during = (since > 0) & (since < shock.duration_s)
                envelope = np.where(during, np.sin(math.pi * since / shock.duration_s) ** 2, 0.0)
                wave = np.sin(shock.rate[plates] * since[:, None] + self._day_phase[plates])
                rattle = self._noise.standard_normal(grams.shape, np.float32)
                shaken = envelope[:, None] * shock.amplitude_g[plates] * (wave + 0.7 * rattle)
                grams += shaken * self.scenario.plate_noise

    def _forget(self, before_s: float) -> None:
        """Settled steps become part of the base; handlings and shocks that are over are dropped."""
        # Messages that were begun are complete, so what is read next lies after before_s on every plate.
        lasting = []
        for step in self._steps:
            if step.t_s + SETTLED_S < before_s:
                self._base_g += step.delta_g
            else:
                lasting.append(step)
        self._steps = lasting
        crept = [creep for creep in self._creeping if creep.t_s + 8.0 * CREEP_S < before_s]
        for creep in crept:
            self._base_g += creep.creep_g
        self._creeping = self._creeping[len(crept) :]
        self._shakings = [shaking for shaking in self._shakings if shaking.handling.end_s + 1.0 > before_s]
        self._shocks = [shock for shock in self._shocks if shock.t_s + shock.duration_s + 1.0 > before_s]


def _shock(t_s: float, duration_s: float, n: int, random: np.random.Generator) -> _Shock:
    amplitude_g = random.uniform(5.0, 40.0, n) * random.choice([-1.0, 1.0], n)
    return _Shock(t_s, duration_s, amplitude_g, random.uniform(3.0, 9.0, n) * 2 * math.pi)


def _window(times_s: NDArray[np.float64], start_s: float, end_s: float, edge_s: float) -> NDArray[np.float64]:
    """1 between start and end, with soft edges; 0 outside."""
    rise = np.clip((times_s - start_s) / edge_s, 0.0, 1.0)
    fall = np.clip((end_s - times_s) / edge_s, 0.0, 1.0)
    return np.asarray(np.minimum(rise, fall))
