"""The ledger of a row of plates: what they bore when all were last at rest, what they bear now, and the loads between.

People press goods down before they lift them, lean on shelves, pull, and shake what they touch, so a step of a plate is
a load, a hand, or both. Hands leave nothing. A row is therefore weighed from rest to rest: its steps say when, its
levels say how much. All steps since the last rest are divided into blocks, each of which is one load or a hand that has
gone again. Of a block's steps on one plate, the largest is the load and the others are the pressure of a hand; their
sum is what the load weighs. The best division maximises

    sum over blocks of  log p(sum on each plate | a load, or nothing) + sum over their other steps of log p(pressure),

found by a beam search in the order of time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.loads import CROSS_TALK_SHARE, LOAD_REACH, LoadFinder, ShelfEvent
from fusion.goods.plates import BLOCK_SAMPLES_MAX, CHANGE_MIN_G, PlateChange, Plates
from fusion.goods.weighings import GAIN_SD

# How long a load that no product explains may wait for its own undoing: a person leans on a shelf (or holds a product
# down on its plate), or lifts a plate's edge.
LEAN_MAX_S = 10.0
LIFT_MAX_S = 2.0
# What a product explains, though it is not expected there, waits at least this long, and until no hand shakes it.
LEAN_LIKELY_S = 3.0
# A row is at rest when none of its plates has moved for this long.
STILL_S = 0.6
# While hands still shake it, its levels are not exact; some shelves always tremble.
CALM_WAIT_S = 2.0
LOOK_AGAIN_NS = 300_000_000
# A row that never rests is weighed after this time; what is done there later is weighed from then on.
SPELL_MAX_S = 12.0
# The plates beside those that changed are compared from this long before the first step.
BESIDE_NS = 500_000_000
# Pressure of a hand, in shares of normal densities (grams) and a uniform one: hands press and pull by some 25 g while
# they hold goods, by some 60 g where they touch a shelf, and people lean with anything up to 600 g.
PRESS_SD_G, PRESS_SHARE = (35.0, 120.0), (0.8, 0.15)
LEAN_SHARE, LEAN_MAX_G = 0.05, 700.0
# A hand that rests on a plate shakes it. Log odds against one for every second in which the plate trembles no more than
# it does at rest, and at most.
LOG_CALM_PER_S, LOG_CALM_MAX = 1.5, 6.0
CALM_SDS, CALM_SLACK_G, CALM_BLOCKS = 1.35, 0.4, 5
# What a hand lifts it sets down again within a second or so. Log odds for every second that it takes longer.
LIFT_USUAL_S, LOG_LIFT_PER_S = 1.2, 3.0
# One hand does not lift twice from a plate within this time; log odds against two hands that do.
SAME_HAND_S, LOG_TWO_HANDS = 0.7, 3.0
# Cross-talk shows at the moment of its load, as far as the small step can be dated.
CROSS_TALK_NS = 1_000_000_000
# Once a load has settled, a few grams follow as the hand lets go.
RELIEF_S, RELIEF_G, LOG_RELIEF = 1.5, 15.0, 1.0
# A step that takes longer than this from a quarter to three quarters may be two; smaller ones are not looked at.
SLOW_S, SPLIT_MIN_G = 0.12, 12.0
# Log odds against two steps in one, and the most that the samples can say for them. A block of samples counts as one,
# since a shelf swings and a hand shakes at a few hertz.
LOG_SPLIT, LOG_EVIDENCE_MAX = 3.0, 12.0
SPLITS_MAX = 2
# Goods that are taken and others that are put back are two grips, this far apart at least.
APART_S = 0.25
# Steps of two plates that are closer than this are of one load, and parts of a step last longer than this.
TOGETHER_NS = 70_000_000
SHARED_MAX = 3
# A hand shakes a plate by so much. Where goods explain the steps as they are, the samples have to say otherwise.
SHAKE_SD_G, LOG_PLAIN = 12.0, 4.0
HALF_SHARE = 0.25
# A load may have moved at a step that a hand has hidden, by these log odds at least.
LOG_HIDDEN_MIN = -4.0
# Variance of the difference of two levels from creep and from cross-talk too small to show, grams squared.
REST_G2 = 1.0
# More steps since the last rest are joined, the least first: a plate that never rests makes two a second.
STEPS_MAX = 12


@lru_cache
def model(block_samples: int) -> NDArray[np.float64]:
    """The constants above in the order of the kernel's enum, gaps in nanoseconds; block_samples: of the plates."""
    return np.array([
        *PRESS_SHARE, *PRESS_SD_G, LEAN_SHARE, LEAN_MAX_G,
        LOG_CALM_PER_S, LOG_CALM_MAX, CALM_SDS, CALM_SLACK_G, CALM_BLOCKS * block_samples, LIFT_USUAL_S, LOG_LIFT_PER_S,
        SAME_HAND_S * 1e9, LOG_TWO_HANDS, CROSS_TALK_NS, RELIEF_S * 1e9, RELIEF_G, LOG_RELIEF, HALF_SHARE, REST_G2,
        LOAD_REACH,
    ])  # fmt: skip


# A load, or a hand, that may have been two loads, by these log odds at least: hands at the plates may say as much for
# two people.
LOG_UNDONE_MIN, UNDONE_MAX = -12.0, 64
# Pieces of one product in each of them, and how much a hand may press the plate between them.
UNDONE_PIECES_MAX, UNDONE_PRESS_MAX_G = 2, 80.0
# What never rests is looked at this often.
OVERDUE_EVERY_NS = 2_000_000_000


class UndoneLoad(NamedTuple):
    """A hand that left nothing, or a load, as two loads that it may have been instead.

    Attributes:
        first, second: the loads.
        log_odds: of two loads against one or a hand, by the plates alone.
    """

    first: ShelfEvent
    second: ShelfEvent
    log_odds: float


@dataclass(slots=True, eq=False)
class _Spell:
    """What happened on neighbouring plates since they were last at rest.

    Attributes:
        before_g: level at that rest, by plate that has changed.
        base_ns: when the first of these changes had settled.
        beside_g: the same of the plates beside them, which have not changed by enough to show.
        steps: changes of single plates since.
        look_ns: nothing is to be decided before.
        overdue_ns: the same of a spell that never rested, whatever comes.
    """

    before_g: dict[int, float] = field(default_factory=dict)
    base_ns: dict[int, int] = field(default_factory=dict)
    beside_g: dict[int, float] = field(default_factory=dict)
    steps: list[PlateChange] = field(default_factory=list)
    look_ns: int = 0
    overdue_ns: int = 0

    @property
    def since_ns(self) -> int:
        return min(step.contact_ns for step in self.steps)

    @property
    def settled_ns(self) -> int:
        return max(step.settled_ns for step in self.steps)


class _Block(NamedTuple):
    """Steps that are one load, or none.

    Attributes:
        score: log density of the steps.
        load: the load, a change for each plate that bears it; empty where it is none.
    """

    score: float
    load: list[PlateChange]


class _Split(NamedTuple):
    """Other steps, and the log ratio of how likely the samples are with these.

    Attributes:
        exchange: the two steps of one that go opposite ways; empty where none does. A hand that pressed and let go
            explains them too, and better as one step.
    """

    steps: list[PlateChange]
    log_evidence: float
    exchange: tuple[PlateChange, ...] = ()


class _Way(NamedTuple):
    """Two loads that steps may have been, one after the other, and the log density of both; no loads: they cannot."""

    score: float
    first: list[PlateChange]
    second: list[PlateChange]


class _Division(NamedTuple):
    """Steps divided into blocks; each block is a tuple of indices into the steps.

    Attributes:
        known: blocks of these steps that have been scored, by their indices.
    """

    score: float
    steps: list[PlateChange]
    blocks: tuple[tuple[int, ...], ...]
    known: dict[tuple[int, ...], _Block]


class RowLedger:
    """The open spells of all rows."""

    def __init__(self, plates: Plates, finder: LoadFinder) -> None:
        self._plates, self._finder = plates, finder
        self._spells: list[_Spell] = []
        self._undone: list[UndoneLoad] = []

    def __len__(self) -> int:
        return len(self._spells)

    def undecided(self) -> list[tuple[int, int]]:
        """(plate, since when) of every step that may still become an event."""
        return [(step.plate, step.contact_ns) for spell in self._spells for step in spell.steps]

    def undone(self) -> list[UndoneLoad]:
        """Hands and loads since the last call that may have been two people's loads."""
        drained, self._undone = self._undone, []
        return drained

    # ---- what happened -----------------------------------------------------------------------------------------------

    def add(self, part: list[PlateChange]) -> None:
        """Take neighbouring changes of plates."""
        rows = self._finder.rows
        plates = {change.plate for change in part}
        near = {other for plate in plates for other in rows.near(plate, LOAD_REACH)}
        joined = [spell for spell in self._spells if not near.isdisjoint(spell.before_g)]
        self._spells = [spell for spell in self._spells if near.isdisjoint(spell.before_g)]
        spell = _Spell()
        for earlier in joined:
            spell.before_g |= earlier.before_g
            spell.beside_g |= earlier.beside_g
            spell.base_ns |= earlier.base_ns
            spell.steps += earlier.steps
            spell.overdue_ns = max(spell.overdue_ns, earlier.overdue_ns)
        first_ns = min(change.onset_ns for change in part) - BESIDE_NS
        for change in part:
            # The instants of small changes are rough, so that of two on a plate the second may seem the first.
            if change.settled_ns < spell.base_ns.get(change.plate, change.settled_ns + 1):
                spell.base_ns[change.plate] = change.settled_ns
                spell.before_g[change.plate] = change.before_g
            spell.steps.append(change)
        for plate in plates:
            for other in rows.near(plate, 1):
                if other not in spell.before_g and other not in spell.beside_g:
                    spell.beside_g[other] = self._plates.level_before_g(other, first_ns)
        self._drop_cross_talk(spell)
        spell.steps, spell.look_ns = _joined(spell.steps), spell.overdue_ns
        self._spells.append(spell)

    def _drop_cross_talk(self, spell: _Spell) -> None:
        """Of more than STEPS_MAX steps, leave out those that are cross-talk of others, the least first."""
        for step in sorted(spell.steps, key=lambda step: abs(step.delta_g)):
            if len(spell.steps) <= STEPS_MAX or abs(step.delta_g) > SPLIT_MIN_G:
                break
            if abs(step.delta_g) < CROSS_TALK_SHARE * self._beside_g(spell.steps, step):
                spell.steps = [other for other in spell.steps if other is not step]
                spell.before_g[step.plate] += step.delta_g

    def rebase(self, plate: int, shift_g: float) -> None:
        """Note that a plate weighs from another zero: its level is higher by shift_g than its loads explain."""
        for spell in self._spells:
            if plate in spell.before_g:
                spell.before_g[plate] += shift_g
            if plate in spell.beside_g:
                spell.beside_g[plate] += shift_g

    def ready(self, now_ns: int, pending: Collection[int]) -> list[ShelfEvent]:
        """The events of all rows that are at rest again. pending: plates with changes that are not added yet."""
        events: list[ShelfEvent] = []
        for spell in list(self._spells):
            overdue = now_ns - spell.since_ns > SPELL_MAX_S * 1e9
            if now_ns < spell.look_ns or not (overdue or self._rests(spell, now_ns, pending)):
                continue
            events += self._close(spell, now_ns, overdue)
            if overdue:
                spell.overdue_ns = spell.look_ns = now_ns + OVERDUE_EVERY_NS
        self._spells = [spell for spell in self._spells if spell.steps]
        return events

    def _rests(self, spell: _Spell, now_ns: int, pending: Collection[int]) -> bool:
        last_ns = spell.settled_ns
        if now_ns - last_ns < STILL_S * 1e9:
            return False
        at_rest = all(self._plates.is_still(plate) and plate not in pending for plate in spell.before_g) and not any(
            plate in pending or self._plates.moved_before(plate, last_ns) for plate in spell.beside_g
        )
        if not at_rest or now_ns - last_ns >= CALM_WAIT_S * 1e9:
            return at_rest
        return all(self._is_calm(plate) for plate in spell.before_g)

    def _close(self, spell: _Spell, now_ns: int, overdue: bool) -> list[ShelfEvent]:
        """Hand out the loads of a spell that are certain to stay; the others remain in it."""
        found = self._cleared(self._explained(self._balanced(spell)))
        loads = self._measured([self._known(found, ids).load for ids in found.blocks])
        kept: list[PlateChange] = []
        events = []
        look_ns = now_ns + int(60e9)
        for ids, load in zip(found.blocks, loads):
            steps = [found.steps[i] for i in ids]
            wait_ns = 0
            if load:
                event = ShelfEvent.of(_risen(load, steps))
                wait_ns = self._until_ns(event, now_ns)
                if wait_ns <= now_ns or (overdue and now_ns - event.settled_ns > LEAN_MAX_S * 1e9):
                    events.append(event)
                    wait_ns = 0
            if wait_ns:
                kept += steps
                look_ns = min(look_ns, wait_ns)
                continue
            if len(steps) > 1:
                self._note_two(found, ids)
            if not load and len(steps) == 1:
                self._finder.weigh_small(steps[0], self._heaviest_g(found.steps, steps[0]))
            for step in steps:
                if step.plate in spell.before_g:
                    spell.before_g[step.plate] += step.delta_g
        spell.steps, spell.look_ns = kept, look_ns
        on = {step.plate for step in kept}
        # A plate beside the others may turn out to bear a part of a load that stays open.
        levels_g = spell.beside_g | spell.before_g
        spell.before_g = {plate: level_g for plate, level_g in levels_g.items() if plate in on}
        spell.base_ns = dict.fromkeys(on, 0)
        spell.beside_g = {}
        return events

    def _note_two(self, found: _Division, ids: tuple[int, ...]) -> None:
        """Note a load of several steps, or a hand that left nothing, that may have been two loads instead.

        One hand may have touched several plates, and several hands may seem one: each plate is looked at as well.
        """
        steps = found.steps
        plates = {steps[i].plate for i in ids}
        groups = [ids] if len(plates) == 1 else [ids, *(tuple(i for i in ids if steps[i].plate == at) for at in plates)]
        for group in groups:
            rest = tuple(i for i in ids if i not in group)
            log_rest = self._known(found, rest).score if rest else 0.0
            two = self._two_loads(found, group, self._known(found, ids).score - log_rest)
            if two and len(self._undone) < UNDONE_MAX:
                self._undone.append(two)

    def _two_loads(self, found: _Division, ids: tuple[int, ...], log_one: float) -> UndoneLoad | None:
        """The two loads that some steps may have been, if any; log_one: log density of one load, or one hand."""
        ids = tuple(sorted(ids, key=lambda i: found.steps[i].contact_ns))
        ways = []
        for k in range(1, len(ids)):
            first, second = self._known(found, ids[:k]), self._known(found, ids[k:])
            way = _Way(first.score + second.score, first.load, second.load)
            if not self._are_usual(way):
                way = self._pressed(found.steps, ids[:k], ids[k:])
            if way.first and way.second:
                ways.append(way)
        if not ways:
            return None
        score, first_load, second_load = max(ways, key=lambda way: way.score)
        log_odds = score - _log_two_hands([first_load, second_load]) - log_one
        if log_odds <= LOG_UNDONE_MIN:
            return None
        return UndoneLoad(ShelfEvent.of(first_load), ShelfEvent.of(second_load), log_odds)

    def _are_usual(self, way: _Way) -> bool:
        return all(load and self._finder.is_usual(load, UNDONE_PIECES_MAX) for load in (way.first, way.second))

    def _pressed(self, steps: list[PlateChange], before: tuple[int, ...], after: tuple[int, ...]) -> _Way:
        """Two loads on one plate between which a hand pressed it, or pulled, by what the first weighs too much."""
        best = _Way(-math.inf, [], [])
        last = steps[after[-1]]
        if len({steps[i].plate for i in (*before, *after)}) > 1:
            return best
        first_g, second_g = (sum(steps[i].delta_g for i in part) for part in (before, after))
        for usual_g in self._finder.usual_g(last.plate, UNDONE_PIECES_MAX):
            load_g = math.copysign(usual_g, first_g)
            press_g = first_g - load_g
            if abs(press_g) > UNDONE_PRESS_MAX_G:
                continue
            two = [steps[before[-1]].but(delta_g=load_g), last.but(delta_g=second_g + press_g)]
            hands = model(self._plates.block_samples)
            first, second = (_Block(*self._finder.weigh_block(self._plates.samples, hands, two, (i,))) for i in (0, 1))
            way = _Way(first.score + second.score + log_press(press_g), first.load, second.load)
            if way.score > best.score and self._are_usual(way):
                best = way
        return best

    def _measured(self, loads: list[list[PlateChange]]) -> list[list[PlateChange]]:
        """Loads with the variances of what they weigh, given what the levels of their plates have changed by in all.

        The sum of the loads on a plate at rest is known, so that of their variances v remain v (1 - v / sum of v).
        """
        var_g2: defaultdict[int, float] = defaultdict(float)
        for load in loads:
            for change in load:
                var_g2[change.plate] += change.var_g2
        return [
            [
                change.but(var_g2=self._rest_g2(change.plate) + change.var_g2 * (1.0 - share))
                if self._plates.is_still(change.plate)
                else change
                for change in load
                for share in (change.var_g2 / var_g2[change.plate],)
            ]
            for load in loads
        ]

    def _rest_g2(self, plate: int) -> float:
        """Variance of what the level of a plate has changed by from rest to rest."""
        return REST_G2 + self._plates.noise_g2(plate) / 12.0

    def _until_ns(self, event: ShelfEvent, now_ns: int) -> int:
        """Until when to wait whether a load is undone; in the past where it is what one expects there."""
        explained = self._finder.is_explained(event)
        if event.total_g < 0:
            return event.settled_ns + (0 if explained else int(LIFT_MAX_S * 1e9))
        until_ns = event.settled_ns + int(LEAN_MAX_S * 1e9)
        planned = self._finder.is_planned(event)
        if not explained and not planned:
            return until_ns
        calm = all(self._is_calm(plate) for plate in event.plates.tolist())
        likely_ns = event.settled_ns + (0 if explained and planned else int(LEAN_LIKELY_S * 1e9))
        return likely_ns if calm else min(until_ns, max(likely_ns, now_ns + LOOK_AGAIN_NS))

    # ---- levels ------------------------------------------------------------------------------------------------------

    def _balanced(self, spell: _Spell) -> list[PlateChange]:
        """The steps of a spell, so that those of each plate add up to what its level has changed by."""
        steps = sorted(spell.steps, key=lambda step: step.contact_ns)
        at: dict[int, list[int]] = {}
        for i, step in enumerate(steps):
            at.setdefault(step.plate, []).append(i)
        for plate, ids in at.items():
            if not self._plates.is_still(plate):
                continue
            rest_g = self._plates.level_g(plate) - spell.before_g[plate] - sum(steps[i].delta_g for i in ids)
            # What the steps leave is the pressure of the hand while the least certain of them was measured.
            worst = max(ids, key=lambda i: steps[i].var_g2 + 100.0 * steps[i].shaky)
            step = steps[worst]
            var_g2 = self._rest_g2(plate) if len(ids) == 1 else step.var_g2
            steps[worst] = step.but(delta_g=step.delta_g + rest_g, var_g2=var_g2)
        beside: list[PlateChange] = []
        for plate, before_g in spell.beside_g.items():
            near = [step for step in steps if step.plate in self._finder.rows.near(plate, 1)]
            if plate in at or not near or not self._plates.is_still(plate):
                continue
            delta_g = self._plates.level_g(plate) - before_g
            heaviest = max(near, key=lambda step: abs(step.delta_g))
            if abs(delta_g) > CHANGE_MIN_G + CROSS_TALK_SHARE * abs(heaviest.delta_g):
                var_g2 = self._rest_g2(plate)
                beside.append(
                    heaviest.but(plate=plate, delta_g=delta_g, var_g2=var_g2, before_g=before_g, shaky=False)
                )
        steps += beside
        # What is too small for a load does not take part.
        steps = [step for step in steps if abs(step.delta_g) > 1.0]
        return sorted(steps, key=lambda step: step.contact_ns)

    def _is_calm(self, plate: int) -> bool:
        """Whether a plate trembles no more than at rest, so that no hand is on it."""
        n = CALM_BLOCKS * self._plates.block_samples
        grams = self._plates.newest_g(plate, n)
        if len(grams) < n:
            return True
        # As `grams.std()`, in a quarter of the time.
        off = grams - np.add.reduce(grams) / np.float32(n)
        sd_g = np.sqrt(np.add.reduce(off * off) / np.float32(n))
        return bool(sd_g < CALM_SLACK_G + CALM_SDS * math.sqrt(self._plates.noise_g2(plate)))

    # ---- loads -------------------------------------------------------------------------------------------------------

    def _explained(self, steps: list[PlateChange]) -> _Division:
        """The steps, divided into the loads and hands that explain them best."""
        best = self._divided(steps)
        for _ in range(SPLITS_MAX):
            others = [
                (division.score + split.log_evidence, division)
                for split in self._splits(best)
                for division in (self._divided(split.steps),)
                if self._is_parted(division, split.exchange)
            ]
            score, division = max(others, key=lambda one: one[0], default=(-math.inf, best))
            if score <= best.score:
                break
            best = division._replace(score=score)
        return best

    def _is_parted(self, division: _Division, exchange: tuple[PlateChange, ...]) -> bool:
        """Whether the steps of an exchange are loads of their own; also where there is none."""
        blocks = [
            next(ids for ids in division.blocks if any(division.steps[i] is step for i in ids)) for step in exchange
        ]
        return len(set(blocks)) == len(exchange) and all(division.known[ids].load for ids in blocks)

    def _splits(self, division: _Division) -> list[_Split]:
        """Other ways to read the steps.

        One that took long may be two, and one beside another may be in part of it. One whose plate bore much more, or
        much less, in between may be goods that were taken and others that were put back.
        """
        steps = division.steps
        odd: set[int] | None = None
        found = []
        for i, step in enumerate(steps):
            if step.silent or abs(step.delta_g) < SPLIT_MIN_G or step.rise_ns < 0:
                continue
            is_slow = step.rise_ns > SLOW_S * 1e9
            near = self._finder.rows.near(step.plate, 1)
            apart = [
                other for other in steps
                if other.plate != step.plate and other.plate in near and not other.silent
                and abs(other.delta_g) > SPLIT_MIN_G
            ]  # fmt: skip
            trace = _Trace.of(self._plates, step)
            if trace is None:
                continue
            two = trace.two_steps() if is_slow else []
            two += trace.exchange()
            if apart and odd is None:
                odd = self._odd(division)
            for beside in apart:
                two += [
                    shared
                    for shared in trace.shared(beside, self._finder.parts_beside(step, beside))
                    if (odd and i in odd) or shared.log_evidence > LOG_PLAIN
                ]
            # What the samples say for two steps at all is bounded, but not what they say for one division of the step
            # rather than another.
            over = max(0.0, max((split.log_evidence for split in two), default=0.0) - LOG_EVIDENCE_MAX)
            found += [
                split._replace(
                    steps=[*steps[:i], *split.steps, *steps[i + 1 :]], log_evidence=split.log_evidence - over
                )
                for split in two
            ]
        return [
            split._replace(steps=sorted(split.steps, key=lambda step: step.contact_ns))
            for split in found
            if split.log_evidence > -LOG_SPLIT
        ]

    def _odd(self, division: _Division) -> set[int]:
        """The steps of loads that are no single piece of what lies there."""
        loads = [(ids, self._known(division, ids).load) for ids in division.blocks]
        return {i for ids, load in loads if load and not self._finder.is_usual(load) for i in ids}

    def _divided(self, steps: list[PlateChange]) -> _Division:
        score, blocks = self._finder.divide(self._plates.samples, model(self._plates.block_samples), steps)
        known = {ids: _Block(log_density, load) for ids, log_density, load in blocks}
        return _Division(score, steps, tuple(known), known)

    def _cleared(self, found: _Division) -> _Division:
        """The division with what hands left added to the loads of their plates: hands leave nothing."""
        loads = [ids for ids in found.blocks if self._known(found, ids).load]
        steps, changed = list(found.steps), False
        for ids in found.blocks:
            last = ids[-1]
            own = [i for load in loads for i in load if steps[i].plate == steps[ids[0]].plate]
            if ids in loads or not own:
                continue
            nearest = min(own, key=lambda i: abs(steps[i].contact_ns - steps[last].contact_ns))
            rest_g = sum(steps[i].delta_g for i in ids)
            late = abs(steps[last].contact_ns - steps[nearest].contact_ns) > RELIEF_S * 1e9
            cross_talk_g = CROSS_TALK_SHARE * self._beside_g(steps, steps[last])
            if len(ids) == 1 and (late or abs(rest_g) < cross_talk_g):
                continue
            steps[last] = steps[last].but(delta_g=steps[last].delta_g - rest_g)
            steps[nearest] = steps[nearest].but(delta_g=steps[nearest].delta_g + rest_g)
            changed = True
        return found._replace(steps=steps, known={}) if changed else found

    def _heaviest_g(self, steps: list[PlateChange], step: PlateChange) -> float:
        """The heaviest step beside another at that moment, itself included, of which it may be cross-talk."""
        near = self._finder.rows.near(step.plate, 1)
        return max([
            abs(other.delta_g)
            for other in steps
            if other is step or (other.plate in near and abs(other.contact_ns - step.contact_ns) < CROSS_TALK_NS)
        ])  # fmt: skip

    def _beside_g(self, steps: list[PlateChange], step: PlateChange) -> float:
        """The heaviest step of another plate beside one at that moment, or one itself where that is heavier."""
        return self._heaviest_g([other for other in steps if other is step or other.plate != step.plate], step)

    def _known(self, division: _Division, ids: tuple[int, ...]) -> _Block:
        """The block of these steps of a division."""
        block = division.known.get(ids)
        if block is None:
            hands = model(self._plates.block_samples)
            block = _Block(*self._finder.weigh_block(self._plates.samples, hands, division.steps, ids))
            division.known[ids] = block
        return block


def _joined(steps: list[PlateChange]) -> list[PlateChange]:
    """At most STEPS_MAX steps, as far as plates have several: the least becomes part of the one before or after it."""
    steps = sorted(steps, key=lambda step: step.settled_ns)
    while len(steps) > STEPS_MAX:
        pairs = [
            (i, k) for i, step in enumerate(steps)
            for k in [next((k for k in range(i + 1, len(steps)) if steps[k].plate == step.plate), -1)] if k > 0
        ]  # fmt: skip
        if not pairs:
            break
        i, k = min(pairs, key=lambda pair: min(abs(steps[step].delta_g) for step in pair))
        first, second = steps[i], steps[k]
        is_plain = min(abs(first.delta_g), abs(second.delta_g)) < SPLIT_MIN_G
        main = max(first, second, key=lambda step: abs(step.delta_g))
        steps[k] = main.but(
            delta_g=first.delta_g + second.delta_g, before_g=first.before_g, onset_ns=first.onset_ns,
            settled_ns=second.settled_ns, rise_ns=main.rise_ns if is_plain else -1,
        )  # fmt: skip
        del steps[i]
    return steps


def _risen(load: list[PlateChange], steps: list[PlateChange]) -> list[PlateChange]:
    """A load of several steps takes as long as from the first to the last of those at which it may have moved.

    These are large grips, and steps at which a hand came or went that may have hidden the load.
    """
    risen = []
    for change in load:
        mine = [step for step in steps if step.plate == change.plate and not step.silent]
        main = max(mine, key=lambda step: abs(step.delta_g), default=change)
        moved_ns = [
            step.contact_ns for step in mine
            if step.delta_g / change.delta_g > HALF_SHARE or _log_hidden(change.delta_g, step, main) > LOG_HIDDEN_MIN
        ]  # fmt: skip
        apart_ns = max(moved_ns, default=0) - min(moved_ns, default=0)
        risen.append(change.but(rise_ns=apart_ns) if apart_ns > change.rise_ns else change)
    return risen


def _log_hidden(load_g: float, step: PlateChange, main: PlateChange) -> float:
    """Log odds that a load moved at a step rather than at the main one, by how much hands then pressed at either."""
    hidden = log_press(step.delta_g - load_g) + log_press(main.delta_g)
    return hidden - log_press(main.delta_g - load_g) - log_press(step.delta_g)


def _log_two_hands(loads: list[list[PlateChange]]) -> float:
    """Log odds against loads on one plate that follow each other faster than a hand does."""
    mains = [max(load, key=lambda change: abs(change.delta_g)) for load in loads if load]
    return LOG_TWO_HANDS * sum(
        a.plate == b.plate and abs(a.contact_ns - b.contact_ns) < SAME_HAND_S * 1e9 for a, b in combinations(mains, 2)
    )


def log_press(grams: float) -> float:
    """Log density per gram of the force of a hand; positive where it presses."""
    return kernel.log_press(grams, model(BLOCK_SAMPLES_MAX))


class _Trace:
    """The samples of a plate from before a step until it had settled.

    Attributes:
        step: the step.
        block_samples: samples that count as one.
        t_ns, grams: (n,) samples; clipped, so that ringing does not outweigh the levels.
        low_g, high_g: level before and after.
    """

    def __init__(
        self, step: PlateChange, block_samples: int, t_ns: NDArray[np.int64], grams: NDArray[np.float64]
    ) -> None:
        self.step, self.block_samples, self.t_ns = step, block_samples, t_ns
        self.before_g, self.after_g = step.before_g, step.after_g
        slack_g = 0.3 * abs(step.delta_g)
        self.raw_g = grams
        self.grams = np.clip(
            grams, min(self.before_g, self.after_g) - slack_g, max(self.before_g, self.after_g) + slack_g
        )

    @classmethod
    def of(cls, plates: Plates, step: PlateChange) -> _Trace | None:
        """The samples of a step; None where they are not kept any more."""
        t_ns, grams = plates.trace(step.plate)
        inside = (t_ns > step.onset_ns - BESIDE_NS // 2) & (t_ns <= step.settled_ns)
        if not len(t_ns) or t_ns[0] > step.onset_ns or inside.sum() < CALM_BLOCKS * plates.block_samples:
            return None
        return cls(step, plates.block_samples, t_ns[inside], grams[inside].astype(np.float64))

    def two_steps(self) -> list[_Split]:
        """The step as two, with the level between that fits best; empty where there is no such level."""
        left, right, sums, squares, count = self._sums(self.grams)
        step_g = self.after_g - self.before_g
        cost = left[:, None] + squares - sums**2 / count + right[None]
        gap = int(SLOW_S * 1e9 / (self.t_ns[1] - self.t_ns[0]))
        share = sums / count / step_g
        least = max(0.12, SPLIT_MIN_G / abs(step_g))
        cost[(count < gap) | (share < least) | (share > 1.0 - least)] = np.inf
        first, second = np.unravel_index(int(np.argmin(cost)), cost.shape)
        if not np.isfinite(cost[first, second]):
            return []
        log_evidence = self._log_ratio(float((left + right).min()), float(cost[first, second]))
        part_g = float(sums[first, second] / count[first, second])
        return [self._split(part_g, self._time_ns(first), self._time_ns(second), log_evidence)]

    def exchange(self) -> list[_Split]:
        """The step as two that go opposite ways, with a level between beyond both others; empty where there is none."""
        low_g, high_g = min(self.before_g, self.after_g), max(self.before_g, self.after_g)
        if self.raw_g.min() > low_g - SPLIT_MIN_G and self.raw_g.max() < high_g + SPLIT_MIN_G:
            return []
        left, right, sums, squares, count = self._sums(self.raw_g)
        cost = left[:, None] + squares - sums**2 / count + right[None]
        between_g = sums / count + self.before_g
        beyond = (between_g < low_g - SPLIT_MIN_G) | (between_g > high_g + SPLIT_MIN_G)
        cost[(count < int(APART_S * 1e9 / (self.t_ns[1] - self.t_ns[0]))) | ~beyond] = np.inf
        first, second = np.unravel_index(int(np.argmin(cost)), cost.shape)
        if not np.isfinite(cost[first, second]):
            return []
        log_evidence = self._log_ratio(float((left + right).min()), float(cost[first, second]))
        part_g = float(sums[first, second] / count[first, second])
        sd_g = SHAKE_SD_G / math.sqrt(count[first, second] / self.block_samples)
        split = self._split(part_g, self._time_ns(first), self._time_ns(second), log_evidence, sd_g)
        return [split._replace(exchange=tuple(split.steps))]

    def _sums(self, grams: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Sums of squares, from which the cost of two steps is made; grams: of the samples.

        Returns:
            Squared deviations from the level before, of the samples before an index, and from the level after, of those
            from it on, (n + 1,). Of the samples between two indices the sum and the squares about the level before,
            and their number, (n + 1, n + 1).
        """
        before, after = grams - self.before_g, grams - self.after_g
        left = np.concatenate([[0.0], np.cumsum(before**2)])
        right = np.concatenate([np.cumsum(after[::-1] ** 2)[::-1], [0.0]])
        total, at = np.concatenate([[0.0], np.cumsum(before)]), np.arange(len(before) + 1)
        count = np.maximum(at[None] - at[:, None], 1)
        return left, right, total[None] - total[:, None], left[None] - left[:, None], count

    def _log_ratio(self, one: float, two: float) -> float:
        """Log ratio of how likely the samples are with two steps rather than one, by their squared deviations."""
        return 0.5 * len(self.grams) / self.block_samples * math.log(max(one, 1.0) / max(two, 1.0)) - LOG_SPLIT

    def _time_ns(self, at: int | np.intp) -> int:
        return int(self.t_ns[min(int(at), len(self.t_ns) - 1)])

    def _split(self, part_g: float, first_ns: int, second_ns: int, log_evidence: float, sd_g: float = 0.0) -> _Split:
        var_g2 = self.step.var_g2 + sd_g**2
        first = self.step.but(
            delta_g=part_g, contact_ns=first_ns, onset_ns=min(self.step.onset_ns, first_ns), rise_ns=-1, var_g2=var_g2
        )  # fmt: skip
        second = self.step.but(
            delta_g=self.step.delta_g - part_g, contact_ns=second_ns, rise_ns=-1, var_g2=var_g2,
            before_g=self.step.before_g + part_g, onset_ns=first_ns,
        )  # fmt: skip
        return _Split([first, second], log_evidence)

    def shared(self, beside: PlateChange, parts_g: list[float]) -> list[_Split]:
        """The step as two, one of them at the instant of a step beside it. parts_g: what goods would leave for that."""
        if not parts_g:
            return []
        left, right, sums, squares, count = self._sums(self.grams)
        one, whole_g = float((left + right).min()), self.step.delta_g
        # The goods say how the step divides, so their weights count once.
        sd_g = GAIN_SD * (abs(beside.delta_g) + 0.5 * abs(whole_g))
        log_weights = math.log(sd_g * math.sqrt(2.0 * math.pi)) - math.log(len(parts_g))
        at = np.abs(self.t_ns - beside.contact_ns) < TOGETHER_NS
        at = np.concatenate([at, at[-1:]])
        gap = int(TOGETHER_NS / (self.t_ns[1] - self.t_ns[0]))
        found = []
        for joined in (at[:, None], at[None]):
            cost = left[:, None] + squares - sums**2 / count + right[None]
            share = sums / count / (self.after_g - self.before_g)
            cost[~joined | (count < 2 * gap) | (share < 0.04) | (share > 0.96)] = np.inf
            first, second = np.unravel_index(int(np.argmin(cost)), cost.shape)
            if np.isfinite(cost[first, second]):
                first_g = float(sums[first, second] / count[first, second])
                log_evidence = self._log_ratio(one, float(cost[first, second]))
                sd_g = SHAKE_SD_G / math.sqrt(count[first, second] / self.block_samples)
                found.append(
                    self._split(first_g, self._time_ns(first), self._time_ns(second), log_evidence, sd_g)
                )
        for part_g in parts_g:
            for first_g, joined in ((part_g, at[:, None]), (whole_g - part_g, at[None])):
                cost = left[:, None] + squares - 2.0 * first_g * sums + count * first_g**2 + right[None]
                cost[~joined | (count < gap)] = np.inf
                first, second = np.unravel_index(int(np.argmin(cost)), cost.shape)
                if np.isfinite(cost[first, second]):
                    log_evidence = self._log_ratio(one, float(cost[first, second])) + log_weights
                    found.append(self._split(first_g, self._time_ns(first), self._time_ns(second), log_evidence))
        return sorted(found, key=lambda split: -split.log_evidence)[:SHARED_MAX]
