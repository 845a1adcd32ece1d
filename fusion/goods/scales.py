"""Plates' weights to shelf events: what settled where, by how much and when, and which goods would weigh that.

A kernel follows every plate through quiet, disturbed and settled and hands out changes of single plates. Here changes
of neighbouring plates are joined where one load explains them, and dropped where vibration, cross-talk or a hand does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np

from fusion.errors import OrderError
from fusion.goods.planogram import GAIN_SD, Planogram, Rows
from fusion.observations import ShelfReading
from fusion.results import Warning, WarningKind
from fusion.store.models import Store

# Probability density, per gram, of a load that no known product explains.
UNKNOWN_PER_G = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class ShelfEvent:
    """A load that came or went.

    Attributes:
        plates: (n,) int64 indices into store.plates, touching plates of one row, from left to right.
        onset_ns: when the plates began to move.
        contact_ns: when the load left or met the plates.
        settled_ns: end of the samples from which the change was measured.
        delta_g: (n,) float64 change per plate, negative where goods were taken.
        cov_g2: (n, n) float64 covariance of delta_g from noise alone; the plates' gains are not in it.
        silent: the plates were silent when it happened, so any time from onset to settled is possible.
        rise_s: from a quarter of the change to three quarters, on the plate that bears nearly all; NaN where none does,
            or in a silence. Two loads that came or went one after the other take longer than one.
    """

    plates: np.ndarray
    onset_ns: int
    contact_ns: int
    settled_ns: int
    delta_g: np.ndarray
    cov_g2: np.ndarray
    silent: bool = False
    rise_s: float = math.nan


@dataclass(slots=True, eq=False)
class _Change:
    """A settled change of a single plate, not yet joined with its neighbours'."""

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


@dataclass(slots=True, eq=False)
class _Held:
    """What may be a hand that rests on a shelf: kept until it is undone or stays longer than a hand would.

    event is None for what is too small to be a load: it is forgotten rather than handed out. log_stays: log odds,
    before its fit, that it is still there once its plates have changed again. certain: it is, and only its weight is
    open. What was measured while the plates still shook is weighed again when they are still.
    """

    changes: list[_Change]
    before_g: dict[int, float]
    settled_ns: int
    until_ns: int
    event: ShelfEvent | None
    certain: bool
    log_stays: float = 0.0

    @property
    def shaky(self) -> bool:
        return any(change.shaky for change in self.changes)


# Two neighbouring changes further apart than this are two loads, however well one would explain them.
JOIN_MAX_S = 0.4
# Spread of the contact times of the plates that share one load: a piece tips over an edge within a tenth of a second.
SAME_LOAD_SD_S = 0.06
# A load that comes or goes in one grip is there from a quarter to three quarters within this time.
STEP_S = 0.15
# The edge of a step as small as this drowns in the shaking of the hand that makes it.
SHAKE_G = 22.0
# Density per second of two loads of different people or hands that happen to be neighbours within JOIN_MAX_S.
COINCIDENCE_PER_S = 0.1
# Shares of loads that rest on one, two, three, four plates (235 labelled events: 117, 105, 11, 2).
SPREAD_PRIOR = (0.5, 0.44, 0.05, 0.01)
# A plate that bears this share of a load tells how long it took to come or go.
RISE_SHARE = 0.75
# How long the changes of some plates wait for neighbours that still shake.
NEIGHBOUR_WAIT_S = 1.2
# How long a load that no product explains may wait for its own undoing: somebody leans on a shelf (or holds a product
# down on its plate), somebody lifts a plate's edge.
LEAN_MAX_S = 10.0
LIFT_MAX_S = 2.0
# A load that something explains, though not what one expects there, may still be a hand; most are gone by then.
LEAN_LIKELY_S = 3.0
# A load on plates that still shake waits for them to be still, and what then stays is its weight.
STILL_S = 0.6
# Log odds that a step which settled under a shaking hand is that hand, and not a load beside the one that follows.
# The other way where it is what lies there: two takes in a row are not one of two pieces, a take and a put not nothing.
LOG_SHAKY_HAND, LOG_SHAKY_LOAD = 4.0, 5.0
HELD_MAX = 64
# A load below this share of the lightest product is not one.
LIGHTEST_SHARE = 0.45
# Cross-talk: a neighbour of a heavy step moves by up to 1.6 % of it, either way; and every shelf creeps a little.
CROSS_TALK_SHARE = 0.015
CREEP_G, CREEP_FAR = 2.0, 5.0
# The least change of a plate: beyond what still air, drift and the converter's steps leave in 0.4 s.
CHANGE_MIN_G = 3.0
# A plate that is silent or stuck for so long, or that shakes so much, is reported.
STUCK_S = 5.0
NOISY_SD_G = 25.0
EVENTS_PENDING_MAX = 256


@dataclass(frozen=True, slots=True)
class PlateState:
    """What is known of a plate's scale.

    Attributes:
        name: as in the store.
        fault: "silent", "stuck", "noisy", or "" where it is well.
        noise_g: standard deviation of a sample at rest.
        heard_ns: time of the newest sample; None before the first.
    """

    name: str
    fault: str
    noise_g: float
    heard_ns: int | None


class ShelfMonitor:
    """Follows every plate of a store and yields shelf events.

    Attributes:
        planogram: what lies where; attribution keeps it up to date.
        ignored: messages that were not used, by reason.
    """

    def __init__(self, store: Store, planogram: Planogram | None = None) -> None:
        from fusion._kernels import shelves as kernel

        self._kernel = kernel
        self.planogram = Planogram(store) if planogram is None else planogram
        self.ignored: Counter[str] = Counter()
        self._names = [plate.plate for plate in store.plates]
        self._index = {name: i for i, name in enumerate(self._names)}
        self._period_ns = 1e9 / store.weight_rate_hz
        n = len(store.plates)
        self._state = np.zeros(n, np.int8)
        self._times = np.zeros((n, 8), np.int64)
        self._reals = np.zeros((n, 4))
        self._reals[:, kernel.NOISE_G2] = 1.0
        self._ring = np.zeros((n, kernel.RING_ROW), np.float32)
        # A gap is a lost message, not a late stamp: stamps jitter by a tenth of a message's length.
        self._limits = np.array([0.1e9, STUCK_S * store.weight_rate_hz, CHANGE_MIN_G, 4.0])
        self._changes = np.zeros((max(2 * n, 16), 7), np.int64)
        self._changes_g = np.zeros((len(self._changes), 3))
        self._unused = np.zeros(3, np.int64)
        self._pending: list[_Change] = []
        self._held: list[_Held] = []
        self._now_ns = 0
        self._checked_ns = 0
        self._began_ns = 0
        self._warnings: list[Warning] = []
        self._reported: dict[int, str] = {}
        self._warm_up()

    def _warm_up(self) -> None:
        """Have the kernel compiled, by no message."""
        empty = np.zeros(0, np.uint32)
        self._follow(empty, np.zeros(0, np.int64), np.zeros(1, np.uint32), np.zeros(0, np.float32))

    def adopt(self, store: Store) -> None:
        """Go on with a store of the same layout; see `Engine.adopt`."""
        self._warm_up()
        self.planogram.adopt(store)

    def step(self, readings: Sequence[ShelfReading], now_ns: int) -> list[ShelfEvent]:
        """Take in messages; hand out the events that are certain not to grow any more.

        Args:
            readings: all messages up to now_ns that were not given yet, in time order.
            now_ns: data time.

        Raises:
            OrderError: now_ns runs backwards.
        """
        if now_ns < self._now_ns:
            raise OrderError(f"now_ns: want at least {self._now_ns}, got {now_ns}")
        self._now_ns = now_ns
        if readings:
            self._feed(readings)
        if now_ns - self._checked_ns > 1_000_000_000:
            self._check(now_ns)
        return self._ready(now_ns) if self._pending or self._held else []

    def finish(self) -> list[ShelfEvent]:
        """The events that still waited for something."""
        return self._ready(self._now_ns + int(60e9))

    def warnings(self) -> list[Warning]:
        """What was found wrong with plates since the last call."""
        drained, self._warnings = self._warnings, []
        return drained

    @property
    def unheard(self) -> list[int]:
        """Plates (indices into store.plates) that do not report at present; noisy ones still do."""
        return [plate for plate, fault in self._reported.items() if fault != "noisy"]

    def report(self) -> tuple[PlateState, ...]:
        """The state of every plate, in the order of the store."""
        kernel = self._kernel
        noise_g = np.sqrt(self._reals[:, kernel.NOISE_G2]).tolist()
        heard = self._times[:, kernel.LAST_NS].tolist()
        return tuple(
            PlateState(name, self._reported.get(plate, ""), noise_g[plate], heard[plate] or None)
            for plate, name in enumerate(self._names)
        )

    def undecided(self) -> list[tuple[int, int]]:
        """(plate, since when) of everything that may still become an event."""
        kernel = self._kernel
        moving = np.flatnonzero(self._state == kernel.DISTURBED)
        found = list(zip(moving.tolist(), self._times[moving, kernel.ONSET_NS].tolist()))
        found += [(change.plate, change.contact_ns) for change in self._pending]
        open_ = [held for held in self._held if held.event is not None or held.shaky]
        found += [(plate, held.changes[0].contact_ns) for held in open_ for plate in held.before_g]
        return [(plate, since_ns) for plate, since_ns in found if plate not in self._reported]

    def trace(self, plate: int) -> tuple[np.ndarray, np.ndarray]:
        """Times (n,) int64 and grams (n,) float32 of the newest samples of a plate, for a reviewer to look at."""
        kernel = self._kernel
        count = int(self._times[plate, kernel.RING_COUNT])
        n = min(count, kernel.RING)
        order = np.arange(count - n, count) % kernel.RING
        back = np.arange(n - 1, -1, -1) * self._period_ns
        return self._times[plate, kernel.LAST_NS] - back.astype(np.int64), self._ring[plate, order]

    # ---- from messages to changes of single plates -------------------------------------------------------------------

    def _feed(self, readings: Sequence[ShelfReading]) -> None:
        index = self._index
        plate_of = [index.get(reading.plate, -1) for reading in readings]
        parts = [reading.samples for reading in readings]
        times_ns = [reading.t_ns for reading in readings]
        lengths = set(map(len, parts))
        if -1 in plate_of or 0 in lengths:
            used = [i for i, plate in enumerate(plate_of) if plate >= 0 and len(parts[i])]
            self.ignored["weights: unknown plate"] += plate_of.count(-1)
            self.ignored["weights: no samples"] += len(readings) - plate_of.count(-1) - len(used)
            self.ignored += Counter()  # Reasons that did not occur are not told.
            if not used:
                return
            plate_of, parts = [plate_of[i] for i in used], [parts[i] for i in used]
            times_ns, lengths = [times_ns[i] for i in used], {len(parts[i]) for i in range(len(used))}
        if len(lengths) == 1:
            length = lengths.pop()
            starts = np.arange(0, length * len(parts) + 1, length, dtype=np.uint32)
        else:
            starts = np.array([0, *accumulate(map(len, parts))], np.uint32)
        plates, times = np.array(plate_of, np.uint32), np.array(times_ns, np.int64)
        self._follow(plates, times, starts, _side_by_side(parts, int(starts[-1])))

    def _follow(self, plates: np.ndarray, times: np.ndarray, starts: np.ndarray, samples: np.ndarray) -> None:
        n_changes = self._kernel.follow(
            plates, times, starts, samples, self._period_ns, self._limits, self._state, self._times, self._reals,
            self._ring, self._changes, self._changes_g, self._unused,
        )  # fmt: skip
        for row in range(n_changes):
            plate, onset_ns, contact_ns, settled_ns, silent, rise_ns, shaky = self._changes[row].tolist()
            known = plate, onset_ns, contact_ns, settled_ns, bool(silent), rise_ns, bool(shaky)
            change = _Change(*known, *self._changes_g[row].tolist())
            if len(self._pending) == EVENTS_PENDING_MAX:
                self.ignored["shelf changes: table full"] += 1
                continue
            self._pending.append(change)
        if self._unused.any():
            for reason, count in zip(("late or repeated", "not a number", "table full"), self._unused.tolist()):
                if count:
                    self.ignored[f"weights: {reason}"] += count
            self._unused[:] = 0

    def _check(self, now_ns: int) -> None:
        """Report plates that fell silent, stopped at a value or shake without end, and those that recovered."""
        kernel = self._kernel
        self._checked_ns = now_ns
        last = self._times[:, kernel.LAST_NS]
        heard = last > 0
        stuck = self._times[:, kernel.STUCK_SAMPLES] > self._limits[1]
        silent = heard & (now_ns - last > STUCK_S * 1e9)
        # Where others are heard, one that never was is silent too.
        self._began_ns = self._began_ns or now_ns
        if heard.any() and now_ns - self._began_ns > STUCK_S * 1e9:
            silent |= ~heard
        noisy = heard & (self._reals[:, kernel.NOISE_G2] > NOISY_SD_G**2)
        unwell = {
            **dict.fromkeys(np.flatnonzero(noisy).tolist(), "noisy"),
            **dict.fromkeys(np.flatnonzero(stuck).tolist(), "stuck"),
            **dict.fromkeys(np.flatnonzero(silent).tolist(), "silent"),
        }
        for plate, fault in unwell.items():
            if self._reported.get(plate) != fault:
                name = self._names[plate]
                if fault == "noisy":
                    self._warnings.append(Warning(now_ns, WarningKind.PLATE_NOISY, name, limit_g=NOISY_SD_G))
                else:
                    kind = WarningKind.PLATE_STUCK if fault == "stuck" else WarningKind.PLATE_SILENT
                    self._warnings.append(Warning(now_ns, kind, name, seconds=STUCK_S))
        for plate in self._reported.keys() - unwell.keys():
            self._warnings.append(Warning(now_ns, WarningKind.PLATE_RECOVERED, self._names[plate]))
        self._reported = unwell

    # ---- from changes to events --------------------------------------------------------------------------------------

    def _ready(self, now_ns: int) -> list[ShelfEvent]:
        events: list[ShelfEvent] = []
        for group in sorted(self._groups(), key=lambda group: max(change.settled_ns for change in group)):
            waited_ns = now_ns - max(change.settled_ns for change in group)
            if waited_ns < NEIGHBOUR_WAIT_S * 1e9 and self._neighbours_move(group):
                continue
            members = {id(change) for change in group}
            self._pending = [change for change in self._pending if id(change) not in members]
            for part in _in_order(group):
                events += self._loads(part)
        events += self._outlived(now_ns)
        for event in events:
            self._learn(event)
        return sorted(events, key=lambda event: (event.contact_ns, event.plates[0]))

    def _groups(self) -> list[list[_Change]]:
        """Pending changes, put together where they are neighbours in place and time."""
        rows = self.planogram.rows
        groups: list[list[_Change]] = []
        for change in self._pending:
            joined = [g for g in groups if any(self._linked(change, other, rows) for other in g)]
            merged = [change, *(other for g in joined for other in g)]
            groups = [g for g in groups if all(g is not j for j in joined)]
            groups.append(merged)
        return groups

    def _linked(self, a: _Change, b: _Change, rows: Rows) -> bool:
        if rows.row[a.plate] != rows.row[b.plate] or abs(rows.place[a.plate] - rows.place[b.plate]) > 2:
            return False
        overlap = a.onset_ns <= b.settled_ns and b.onset_ns <= a.settled_ns
        apart_s = abs(a.contact_ns - b.contact_ns) * 1e-9
        unsure_s = 2.5 * math.hypot(_contact_sd_s(a), _contact_sd_s(b))
        return (overlap and (a.silent or b.silent or apart_s < unsure_s)) or apart_s < JOIN_MAX_S

    def _neighbours_move(self, group: list[_Change]) -> bool:
        """Whether a plate beside the group is still disturbed by what may be the same load."""
        rows, kernel = self.planogram.rows, self._kernel
        for change in group:
            members = rows.members[rows.row[change.plate]]
            place = rows.place[change.plate]
            for neighbour in members[max(place - 2, 0) : place + 3]:
                began = self._times[neighbour, kernel.ONSET_NS] <= change.contact_ns + JOIN_MAX_S * 1e9
                if self._state[neighbour] == kernel.DISTURBED and began:
                    return True
        return False

    def _partition(self, group: list[_Change]) -> tuple[float, list[list[_Change]], list[_Change]]:
        """Split neighbouring changes into the loads that explain them best, and leave out what is no load.

        Every way to cut the row of changes is scored: each piece is either one load (its weight, its place, how its
        plates agree in time) or nothing (creep and cross-talk of the others). Returns the best score, the loads, and
        the changes that are none.
        """
        group = sorted(group, key=lambda change: int(self.planogram.rows.place[change.plate]))
        score, loads, nothing = self._cut(group, sharing=False)
        # That two pieces share a plate is rare and dear to look for, so only what is odd otherwise is looked at.
        if len(group) > 1 and not all(self._is_plain(load) for load in loads):
            score, loads, nothing = self._cut(group, sharing=True)
        return score, sorted(loads, key=lambda part: min(change.contact_ns for change in part)), nothing

    def _cut(self, group: list[_Change], sharing: bool) -> tuple[float, list[list[_Change]], list[_Change]]:
        """The best cut of a row of changes, found from left to right. sharing: two loads may share one plate."""
        rows = self.planogram.rows
        n = len(group)
        heaviest_g = max(abs(change.delta_g) for change in group)
        best_score = [0.0] + [-math.inf] * n
        best_loads: list[tuple[int, list[list[_Change]]]] = [(0, [])] * (n + 1)
        for stop in range(1, n + 1):
            # A load rests on at most four plates; a heavier search would only find worse explanations.
            for start in range(stop - 1, max(stop - 5, -1), -1):
                part = group[start:stop]
                if any(rows.place[b.plate] - rows.place[a.plate] > 1 for a, b in pairwise(part)):
                    break
                options = [(self._log_load(part), [part])]
                if stop - start == 1:
                    options.append((_log_nothing(part[0], heaviest_g), []))
                elif sharing:
                    options.append(self._shared_plate(part))
                for score, loads in options:
                    if best_score[start] + score > best_score[stop]:
                        best_score[stop] = best_score[start] + score
                        best_loads[stop] = (start, loads)
        chosen: list[list[_Change]] = []
        nothing = []
        stop = n
        while stop > 0:
            start, loads = best_loads[stop]
            chosen += loads
            if not loads:
                nothing.append(group[start])
            stop = start
        return best_score[n], chosen, nothing

    def _is_plain(self, load: list[_Change]) -> bool:
        """Whether a load is one piece of what lies there."""
        deltas = np.array([change.delta_g for change in load])
        found = self.planogram.identify(_plates(load), deltas, sum(change.var_g2 for change in load), limit=1)
        return bool(len(found.product) and abs(found.quantity[0]) == 1 and found.log_place[0] > math.log(0.1))

    def _shared_plate(self, load: list[_Change]) -> tuple[float, list[list[_Change]]]:
        """The best two pieces that share one of the plates, and their log density; minus infinity where none do."""
        planogram = self.planogram
        deltas = [change.delta_g for change in load]
        sign = math.copysign(1.0, sum(deltas))
        best: tuple[float, list[list[_Change]]] = (-math.inf, [])
        if any(delta * sign < 0 for delta in deltas):
            return best
        near = (planogram.stock[_plates(load)] > 0.5).any(axis=0) | planogram.planned[_plates(load)].any(axis=0)
        for at, change in enumerate(load):
            left_g = sum(abs(delta) for delta in deltas[:at])
            for product in np.flatnonzero(near).tolist():
                weight_g = float(planogram.weight_g[product])
                part_g = weight_g - left_g
                if not 0.05 * abs(change.delta_g) < part_g < 0.95 * abs(change.delta_g):
                    continue
                beside = load[at - 1] if at else change
                after = load[at + 1] if at + 1 < len(load) else change
                mine = replace(change, delta_g=sign * part_g, contact_ns=beside.contact_ns, shaky=False)
                left = [*load[:at], mine]
                rest = replace(mine, delta_g=change.delta_g - sign * part_g, contact_ns=after.contact_ns)
                rest.before_g = change.before_g + sign * part_g
                # How much of the shared plate was whose is not measured, so only the sum counts as evidence.
                sd_g = math.hypot(planogram.weight_sd_g[product], GAIN_SD * weight_g)
                score = self._log_load(left) + self._log_load([rest, *load[at + 1 :]])
                score += math.log(sd_g * math.sqrt(2 * math.pi)) - math.log(len(load) * abs(change.delta_g))
                if score > best[0]:
                    best = score, [left, [rest, *load[at + 1 :]]]
        return best

    def _log_load(self, part: list[_Change]) -> float:
        """Log density of the changes as one load on these plates."""
        deltas = np.array([change.delta_g for change in part])
        total = float(deltas.sum())
        against = float(np.abs(deltas[np.sign(deltas) != np.sign(total)]).sum())
        # Goods that lean on each other may push a neighbour up a little; more than that is another load.
        if against > 0.1 * abs(total) or abs(total) < LIGHTEST_SHARE * self.planogram.lightest_g:
            return -math.inf
        noise_g2 = sum(change.var_g2 for change in part)
        found = self.planogram.identify(_plates(part), deltas, noise_g2, limit=6)
        scores = found.log_likelihood + found.log_place + found.log_quantity
        log_what = np.logaddexp.reduce(np.append(scores, math.log(UNKNOWN_PER_G)))
        log_split = -(len(part) - 1) * math.log(abs(total)) + math.log(SPREAD_PRIOR[len(part) - 1])
        log_time = math.log(COINCIDENCE_PER_S)
        if len(part) > 1 and not any(change.silent for change in part):
            times_s = np.array([change.contact_ns - part[0].contact_ns for change in part]) * 1e-9
            sd_s = np.array([_contact_sd_s(change) for change in part])
            weight = 1.0 / sd_s**2
            residual = (times_s - (weight @ times_s) / weight.sum()) / sd_s
            log_time -= 0.5 * float(residual @ residual) + float(np.log(sd_s[1:] * math.sqrt(2 * math.pi)).sum())
        return float(log_what) + log_split + log_time

    def _loads(self, part: list[_Change]) -> list[ShelfEvent]:
        """The events among neighbouring changes, less hands that rested there before or may rest there now."""
        score, loads, nothing = self._partition(part)
        resting = self._resting(part)
        events = []
        # What comes now is measured from the plateau of what is certain, so that is settled with it; what is no load is
        # the hand that goes.
        before_now_g = {change.plate: change.before_g for change in part}
        loaded = {change.plate for load in loads for change in load}
        done = [held for held in self._held if held.certain and held.before_g.keys() & loaded]
        for held in done:
            events += self._stayed(held, before_now_g)
        self._drop(done)
        resting = [held for held in resting if not held.certain]
        if resting:
            net, log_vanished = self._net(part, resting)
            net_score, net_loads, net_nothing = self._partition(net) if net else (0.0, [], [])
            # What is explained as it stays so; a hand that went, or a load in two steps, has to explain it better.
            log_stays = 1.0 + sum(held.log_stays for held in resting)
            if net_score + log_vanished > score + log_stays:
                self._drop(resting)
                loads, nothing, resting = net_loads, net_nothing, []
            else:
                done = [held for held in resting if held.shaky and held.before_g.keys() & loaded]
                for held in done:
                    events += self._stayed(held, before_now_g)
                self._drop(done)
                resting = [held for held in resting if not held.shaky]
        for load in loads:
            event = _event(load)
            before_g = {change.plate: change.before_g for change in load}
            doubt_s = self._doubt_s(event)
            shaky = any(change.shaky for change in load)
            log_stays = (-LOG_SHAKY_HAND if doubt_s > 0.0 else LOG_SHAKY_LOAD) if shaky else 0.0
            load_g, sd_g = abs(float(event.delta_g.sum())), math.sqrt(float(event.cov_g2.sum()))
            certain = doubt_s == 0.0 and sd_g < GAIN_SD * load_g
            doubt_s = max(doubt_s, STILL_S if shaky else 0.0)
            if doubt_s == 0.0 or len(self._held) >= HELD_MAX:
                events.append(event)
                continue
            below = [held for held in resting if held.before_g.keys() & before_g.keys()]
            if below and not self._is_planned(event):
                # A hand that leans harder: one lean, from what it rested on before.
                net, _ = self._net(load, below)
                self._drop(below)
                if not net:
                    continue
                load, event, before_g = net, _event(net), {change.plate: change.before_g for change in net}
            until_ns = event.settled_ns + int(doubt_s * 1e9)
            self._held.append(_Held(load, before_g, event.settled_ns, until_ns, event, certain, log_stays))
        for change in nothing:
            if len(self._held) < HELD_MAX and abs(change.delta_g) > 2.0 * CREEP_G:
                until_ns = change.settled_ns + int(LIFT_MAX_S * 1e9)
                heaviest_g = max(abs(other.delta_g) for other in part)
                log_stays = _log_nothing(change, heaviest_g) - _log_nothing(replace(change, delta_g=0.0), heaviest_g)
                log_stays -= LOG_SHAKY_HAND if change.shaky else 0.0
                before_g = {change.plate: change.before_g}
                self._held.append(_Held([change], before_g, change.settled_ns, until_ns, None, False, log_stays))
        return events

    def _drop(self, done: list[_Held]) -> None:
        self._held = [held for held in self._held if all(held is not one for one in done)]

    def _resting(self, part: list[_Change]) -> list[_Held]:
        """What is held on the plates of a group since before it moved."""
        # The plateau of a hand and the step after it may fall into one message.
        onset_ns = {change.plate: change.onset_ns + 250_000_000 for change in part}
        return [
            held for held in self._held if any(held.settled_ns <= onset_ns.get(plate, 0) for plate in held.before_g)
        ]

    def _net(self, part: list[_Change], resting: list[_Held]) -> tuple[list[_Change], float]:
        """Changes since before the hands came, without those that have vanished, and the log density of these.

        Levels, not changes: a resting hand creeps, and what creeps slowly enough is taken for drift. Of the steps on
        the way, the one that is most like the whole tells when the load came or went.
        """
        kernel = self._kernel
        changes = {change.plate: change for change in part}
        steps: dict[int, list[_Change]] = {change.plate: [change] for change in part}
        before_g = {change.plate: change.before_g for change in part}
        for held in reversed(resting):
            before_g.update(held.before_g)
            for step in held.changes:
                steps.setdefault(step.plate, []).append(step)
        settled_ns = max(change.settled_ns for change in part)
        largest_g = max(abs(one.delta_g) for one in part)
        net, log_vanished = [], 0.0
        for plate, level_g in before_g.items():
            change = changes.get(plate)
            after_g = float(self._reals[plate, kernel.LEVEL_G]) if change is None else change.before_g + change.delta_g
            delta_g = after_g - level_g
            # A hand comes and goes on top of vibration that the plateau's own variance does not show.
            var_g2 = 2.0 * (1.0 if change is None else change.var_g2) + 1.0
            if abs(delta_g) < 2.0 + 3.0 * math.sqrt(var_g2) + 0.03 * largest_g:
                log_vanished += -math.log(2.0 * CREEP_G)
                continue
            # The newest step, unless an older one is like the whole by far.
            like = steps[plate][0]
            for step in steps[plate][1:]:
                if abs(step.delta_g - delta_g) < 0.5 * abs(like.delta_g - delta_g):
                    like = step
            shaky = change is not None and change.shaky
            one = replace(like, plate=plate, settled_ns=settled_ns, shaky=shaky)
            net.append(replace(one, delta_g=delta_g, var_g2=var_g2, before_g=level_g))
        return net, log_vanished

    def _outlived(self, now_ns: int) -> list[ShelfEvent]:
        """Held loads that stayed longer than a hand would."""
        kernel = self._kernel
        events = []
        old: list[_Held] = []
        waiting: list[_Held] = []
        pending = {change.plate for change in self._pending}
        for held in self._held:
            # While a plate still moves, what is held is not over; its next change will say.
            moves = not all(self._is_still(plate) and plate not in pending for plate in held.before_g)
            late = now_ns > held.settled_ns + LEAN_MAX_S * 1e9
            (old if held.until_ns <= now_ns and (late or not moves) else waiting).append(held)
        self._held = waiting
        for held in old:
            still = [plate for plate in held.before_g if self._is_still(plate)]
            events += self._stayed(held, {plate: float(self._reals[plate, kernel.LEVEL_G]) for plate in still})
        return events

    def _is_still(self, plate: int) -> bool:
        """Whether a plate has been quiet for two messages at least: between two jolts of a hand it is for one."""
        kernel = self._kernel
        return bool(self._state[plate] == kernel.QUIET and self._times[plate, kernel.QUIET_MESSAGES] >= 2)

    def _stayed(self, held: _Held, level_g: dict[int, float]) -> list[ShelfEvent]:
        """What a load that was held is, weighed again by its plates' levels now if they shook when it was weighed."""
        if not held.shaky:
            return [held.event] if held.event is not None else []
        still = []
        for change in held.changes:
            if change.plate in level_g:
                delta_g = level_g[change.plate] - held.before_g[change.plate]
                var_g2 = 1.0 + float(self._reals[change.plate, self._kernel.NOISE_G2]) / 12.0
                change = replace(change, delta_g=delta_g, var_g2=var_g2, shaky=False)
            if abs(change.delta_g) > CHANGE_MIN_G + 2.0 * math.sqrt(change.var_g2):
                still.append(change)
        return [_event(load) for load in self._partition(still)[1]] if still else []

    def _doubt_s(self, event: ShelfEvent) -> float:
        """How long to wait whether a load is undone: not at all where it is what one expects there."""
        explained = self._is_explained(event)
        if event.delta_g.sum() < 0:
            return 0.0 if explained else LIFT_MAX_S
        planned = self._is_planned(event)
        if explained and planned:
            return 0.0
        return LEAN_LIKELY_S if explained or planned else LEAN_MAX_S

    def _is_planned(self, event: ShelfEvent) -> bool:
        """Whether a load that came is pieces of a product that belongs there: somebody restocks."""
        found = self.planogram.identify(event.plates, event.delta_g, float(event.cov_g2.sum()), limit=1)
        if not len(found.product) or found.log_place[0] < math.log(0.05):
            return False
        expected_g = abs(int(found.quantity[0])) * self.planogram.weight_g[found.product[0]]
        return bool(abs(abs(event.delta_g.sum()) - expected_g) < 3.0 * GAIN_SD * expected_g)

    def _is_explained(self, event: ShelfEvent) -> bool:
        """Whether some product suits a load well: one that lies there, or one that somebody carries."""
        found = self.planogram.identify(event.plates, event.delta_g, float(event.cov_g2.sum()), limit=6)
        load_g = abs(float(event.delta_g.sum()))
        planogram = self.planogram
        for product, quantity, place in zip(found.product.tolist(), found.quantity.tolist(), found.log_place.tolist()):
            expected_g = abs(quantity) * planogram.weight_g[product]
            sd_g = math.sqrt(float(event.cov_g2.sum()) + quantity**2 * planogram.weight_sd_g[product] ** 2)
            if abs(load_g - expected_g) > 3.0 * sd_g + 2.0 * GAIN_SD * expected_g:
                continue
            if quantity < 0 and place > math.log(0.05):
                return True
            if quantity > 0 and planogram.away[product] > 0.8 * quantity:
                return True
        return False

    def _learn(self, event: ShelfEvent) -> None:
        """Keep the planogram up to date with what an event most probably was."""
        found = self.planogram.identify(event.plates, event.delta_g, float(event.cov_g2.sum()), limit=6)
        if not len(found.product):
            return
        score = found.log_likelihood + found.log_place + found.log_quantity
        if event.delta_g.sum() > 0:
            score = score + np.log(np.minimum(self.planogram.away[found.product], 1.0) + 1e-3)
        score = np.append(score, math.log(UNKNOWN_PER_G))
        probability = np.exp(score - np.logaddexp.reduce(score))
        plate = int(event.plates[np.argmax(np.abs(event.delta_g))])
        for product, quantity, p in zip(found.product.tolist(), found.quantity.tolist(), probability.tolist()):
            self.planogram.move(plate, product, p * quantity)


def _side_by_side(parts: Sequence[np.ndarray], n_samples: int) -> np.ndarray:
    """(n_samples,) float32 of all parts. Their bytes joined take a quarter of the time of np.concatenate."""
    try:
        joined = bytearray().join(parts)  # type: ignore[arg-type]
    except TypeError:  # A part with gaps.
        joined = bytearray()
    if len(joined) != 4 * n_samples:
        return np.concatenate(parts, dtype=np.float32)
    return np.frombuffer(joined, np.float32)


def _in_order(group: list[_Change]) -> list[list[_Change]]:
    """Cut a group in time until every plate changes at most once in each part."""
    plates = [change.plate for change in group]
    if len(set(plates)) == len(plates):
        return [group]
    group = sorted(group, key=lambda change: change.contact_ns)
    twice = {plate for plate, count in Counter(plates).items() if count > 1}
    # The widest pause between the first two changes of a plate that moved twice.
    first = next(i for i, change in enumerate(group) if change.plate in twice)
    second = next(i for i in range(first + 1, len(group)) if group[i].plate == group[first].plate)
    cut = max(range(first + 1, second + 1), key=lambda i: group[i].contact_ns - group[i - 1].contact_ns)
    return [*_in_order(group[:cut]), *_in_order(group[cut:])]


def _log_nothing(change: _Change, heaviest_g: float) -> float:
    """Log density of a plate's change as creep or as cross-talk of a heavier step beside it."""
    beside_g = heaviest_g if heaviest_g > abs(change.delta_g) else 0.0
    scale_g = CREEP_G + 0.5 * math.sqrt(change.var_g2) + CROSS_TALK_SHARE * beside_g
    far = abs(change.delta_g) / scale_g
    # Creep is never as far as that (294 plates of a real shop, half a minute: 19 g at most, one in a thousand 6.6 g).
    # What fits no product is told as such, and not forgotten.
    return -far - 0.5 * max(far - CREEP_FAR, 0.0) ** 2 - math.log(2.0 * scale_g)


def _contact_sd_s(change: _Change) -> float:
    """How well a change is dated: the edge of a small one drowns in the noise, and in the shaking of a hand; what is
    lifted at one end before it leaves has two edges."""
    load_g = abs(change.delta_g)
    slow_s = 0.0 if change.silent else max(change.rise_ns * 1e-9 - STEP_S, 0.0)
    return SAME_LOAD_SD_S * (1.0 + 8.0 * math.sqrt(change.var_g2) / load_g + (SHAKE_G / load_g) ** 2) + 0.5 * slow_s


def _plates(part: list[_Change]) -> np.ndarray:
    return np.array([change.plate for change in part], np.int64)


def _event(part: list[_Change]) -> ShelfEvent:
    deltas = np.array([change.delta_g for change in part])
    weight = np.abs(deltas)
    heaviest = max(part, key=lambda change: abs(change.delta_g))
    origin_ns = part[0].contact_ns
    contact_ns = origin_ns + int(weight @ np.array([c.contact_ns - origin_ns for c in part]) / weight.sum())
    dated = not heaviest.silent and abs(heaviest.delta_g) > RISE_SHARE * float(weight.sum())
    return ShelfEvent(
        _plates(part),
        min(change.onset_ns for change in part),
        contact_ns,
        max(change.settled_ns for change in part),
        deltas,
        np.diag([change.var_g2 for change in part]),
        all(change.silent for change in part),
        heaviest.rise_ns * 1e-9 if dated else math.nan,
    )
