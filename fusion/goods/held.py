"""Loads that may be a hand: held back until they are undone, or until they outlast a hand.

People lean on shelves, press goods down before they lift them, and lift the edge of a plate. Such a load settles like
any other and is gone a moment later. Whether goods moved is decided by comparing the densities of two descriptions: the
changes one by one, on top of the held load, or the net change since before the held load came.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from fusion.goods.loads import CREEP_G, LoadFinder, Partition, ShelfEvent, log_nothing
from fusion.goods.plates import CHANGE_MIN_G, PlateChange, Plates
from fusion.goods.weighings import GAIN_SD

# How long a load that no product explains may wait for its own undoing: a person leans on a shelf (or holds a product
# down on its plate), or lifts a plate's edge.
LEAN_MAX_S = 10.0
LIFT_MAX_S = 2.0
# A load that a product explains, though not one that is expected there, may still be a hand; most are gone by then.
LEAN_LIKELY_S = 3.0
# A load on plates that still shake waits until they are still; what then remains is its weight.
STILL_S = 0.6
# Log odds that a step which settled under a shaking hand is the hand itself rather than a separate load before the next
# one. Where the step fits goods that lie there, the odds are reversed: two takes in a row are not one take of two
# pieces, and a take and a put-back are not nothing.
LOG_SHAKY_HAND, LOG_SHAKY_LOAD = 4.0, 5.0
# The net change has to be likelier than the single changes by more than this log ratio.
LOG_STANDS = 1.0
# The plateau of a hand and the step after it may fall into one message.
SAME_MESSAGE_NS = 250_000_000
HELD_MAX = 64


@dataclass(slots=True, eq=False)
class _Held:
    """A load that may be a hand resting on a shelf.

    Attributes:
        changes: as they were measured.
        before_g: level before the load, by plate.
        settled_ns: when it settled.
        until_ns: until when it waits for its undoing.
        event: the shelf event if it stays; None for a change too small to be a load, which is forgotten instead.
        certain: the load is there for good, and only its weight is open.
        log_stays: log odds, before its fit, that it is still there after its plates have changed again.
    """

    changes: list[PlateChange]
    before_g: dict[int, float]
    settled_ns: int
    until_ns: int
    event: ShelfEvent | None
    certain: bool
    log_stays: float = 0.0

    @property
    def shaky(self) -> bool:
        """Whether it was measured while its plates still shook; then it is weighed again once they are still."""
        return any(change.shaky for change in self.changes)

    def forget(self) -> None:
        """Make it a change that is no load, which another change may undo."""
        self.changes = [replace(change, shaky=False) for change in self.changes]
        self.event = None

    def rests_on(self, plates: Collection[int]) -> bool:
        """Whether one of its plates is among these."""
        return not self.before_g.keys().isdisjoint(plates)


@dataclass(frozen=True, slots=True, eq=False)
class _Net:
    """Net changes since before some held loads came, and the log density of the changes that have vanished."""

    changes: list[PlateChange]
    log_vanished: float


class HeldLoads:
    """The loads of a store that may be a hand; at most HELD_MAX of them."""

    def __init__(self, plates: Plates, finder: LoadFinder) -> None:
        self._plates, self._finder = plates, finder
        self._held: list[_Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def undecided(self) -> list[tuple[int, int]]:
        """(plate, since when) of every held load that may still become an event."""
        possible = [held for held in self._held if held.event is not None or held.shaky]
        return [(plate, held.changes[0].contact_ns) for held in possible for plate in held.before_g]

    def take(self, part: list[PlateChange]) -> list[ShelfEvent]:
        """The events among neighbouring changes, less hands that rested there before or that may rest there now."""
        partition = self._finder.partition(part)
        events = self._settle_certain(part, partition)
        resting = [held for held in self._resting(part) if not held.certain]
        if resting:
            net = self._net(part, resting)
            net_partition = self._finder.partition(net.changes)
            # The single changes stand, unless a hand that left, or a load in two steps, describes them better.
            log_stays = LOG_STANDS + sum(held.log_stays for held in resting)
            if self._only_net_is_goods(partition, net_partition):
                # A hand that shook the plates and lets go.
                before_g = {change.plate: change.before_g for change in part}
                log_held = sum(self._reweighed(held, before_g).log_density for held in resting)
                log_stays = min(log_stays, LOG_STANDS + log_held)
            if net_partition.log_density + net.log_vanished > partition.log_density + log_stays:
                self._drop(resting)
                partition, resting = net_partition, []
            else:
                loaded = {change.plate for load in partition.loads for change in load}
                done = [held for held in resting if held.shaky and held.rests_on(loaded)]
                for held in done:
                    events += self._stayed(held, {change.plate: change.before_g for change in part})
                self._drop(done)
                resting = [held for held in resting if not held.shaky]
        for load in partition.loads:
            event = self._admit(load, resting)
            if event is not None:
                events.append(event)
        heaviest_g = max(abs(change.delta_g) for change in part)
        for change in partition.nothing:
            self._hold_small(change, heaviest_g)
            self._finder.weigh_small(change, heaviest_g)
        return events

    def _only_net_is_goods(self, single: Partition, net: Partition) -> bool:
        """Whether goods explain the net change since before some held loads, and none of the single changes."""

        def of_goods(partition: Partition) -> list[bool]:
            return [self._finder.is_explained(ShelfEvent.of(load)) for load in partition.loads]

        return bool(net.loads) and all(of_goods(net)) and not any(of_goods(single))

    def outlived(self, now_ns: int, pending: Collection[int]) -> list[ShelfEvent]:
        """Events of held loads that stayed longer than a hand would. pending: plates with changes not yet taken."""
        events = []
        old: list[_Held] = []
        waiting: list[_Held] = []
        for held in self._held:
            # While a plate still moves, the load is not over; the plate's next change will decide.
            still = all(self._plates.is_still(plate) and plate not in pending for plate in held.before_g)
            late = now_ns > held.settled_ns + LEAN_MAX_S * 1e9
            (old if held.until_ns <= now_ns and (late or still) else waiting).append(held)
        self._held = waiting
        for at, held in enumerate(old):
            level_g = {plate: self._plates.level_g(plate) for plate in held.before_g if self._plates.is_still(plate)}
            if held.shaky:
                for later in (*old[at + 1 :], *waiting):
                    if self._contains(held, later, level_g):
                        later.forget()
            events += self._stayed(held, level_g)
        return events

    def _contains(self, held: _Held, later: _Held, level_g: dict[int, float]) -> bool:
        """Whether a later load is the hand that lets go: one load explains the levels now better than both do."""
        known = held.before_g.keys() & later.before_g.keys() & level_g.keys()
        if later.certain or not known or (later.event is not None and self._finder.is_explained(later.event)):
            return False
        between_g = {**level_g, **{plate: later.before_g[plate] for plate in known}}
        apart = self._reweighed(held, between_g).log_density + self._finder.partition(later.changes).log_density
        return self._reweighed(held, level_g).log_density > apart

    # ---- what rests there already ------------------------------------------------------------------------------------

    def _settle_certain(self, part: list[PlateChange], partition: Partition) -> list[ShelfEvent]:
        """The events of certain loads on plates that are loaded now.

        New changes are measured from the plateau of what is certain, so its weight is settled with them; a change that
        is no load is the hand that leaves.
        """
        loaded = {change.plate for load in partition.loads for change in load}
        done = [held for held in self._held if held.certain and held.rests_on(loaded)]
        before_g = {change.plate: change.before_g for change in part}
        events = [event for held in done for event in self._stayed(held, before_g)]
        self._drop(done)
        return events

    def _resting(self, part: list[PlateChange]) -> list[_Held]:
        """The held loads on the plates of a group since before the group moved."""
        onset_ns = {change.plate: change.onset_ns + SAME_MESSAGE_NS for change in part}
        return [
            held for held in self._held if any(held.settled_ns <= onset_ns.get(plate, 0) for plate in held.before_g)
        ]

    def _net(self, part: list[PlateChange], resting: list[_Held]) -> _Net:
        """Changes since before the hands came, without those that have vanished.

        From levels, not from changes: a resting hand creeps, and slow creep is taken for drift. Of the steps on the
        way, the one that is most like the whole dates when the load came or went.
        """
        changes = {change.plate: change for change in part}
        steps: dict[int, list[PlateChange]] = {change.plate: [change] for change in part}
        before_g = {change.plate: change.before_g for change in part}
        for held in reversed(resting):
            before_g.update(held.before_g)
            for step in held.changes:
                steps.setdefault(step.plate, []).append(step)
        settled_ns = max(change.settled_ns for change in part)
        largest_g = max(abs(change.delta_g) for change in part)
        net, log_vanished = [], 0.0
        for plate, level_g in before_g.items():
            newest = changes.get(plate)
            delta_g = (self._plates.level_g(plate) if newest is None else newest.after_g) - level_g
            # A hand's load begins and ends on top of vibration that the plateau's own variance does not show.
            var_g2 = 2.0 * (1.0 if newest is None else newest.var_g2) + 1.0
            if abs(delta_g) < 2.0 + 3.0 * math.sqrt(var_g2) + 0.03 * largest_g:
                log_vanished += -math.log(2.0 * CREEP_G)
                continue
            # Use the newest step, unless an older step is much nearer to the whole change.
            like = steps[plate][0]
            for step in steps[plate][1:]:
                if abs(step.delta_g - delta_g) < 0.5 * abs(like.delta_g - delta_g):
                    like = step
            shaky = newest is not None and newest.shaky
            whole = replace(like, plate=plate, settled_ns=settled_ns, shaky=shaky)
            net.append(replace(whole, delta_g=delta_g, var_g2=var_g2, before_g=level_g))
        return _Net(net, log_vanished)

    def _drop(self, done: list[_Held]) -> None:
        self._held = [held for held in self._held if all(held is not dropped for dropped in done)]

    # ---- what may rest there from now on -----------------------------------------------------------------------------

    def _admit(self, load: list[PlateChange], resting: list[_Held]) -> ShelfEvent | None:
        """The event of a load that is already certain; None for a load that is held back."""
        event = ShelfEvent.of(load)
        before_g = {change.plate: change.before_g for change in load}
        wait_s = self._wait_s(event)
        shaky = any(change.shaky for change in load)
        log_stays = (-LOG_SHAKY_HAND if wait_s > 0.0 else LOG_SHAKY_LOAD) if shaky else 0.0
        certain = wait_s == 0.0 and math.sqrt(event.noise_g2) < GAIN_SD * abs(event.total_g)
        wait_s = max(wait_s, STILL_S if shaky else 0.0)
        if wait_s == 0.0 or len(self._held) >= HELD_MAX:
            return event
        below = [held for held in resting if held.rests_on(before_g)]
        if below and not self._finder.is_planned(event):
            # A hand that leans harder is one lean, measured from the level below the first step.
            load = self._net(load, below).changes
            self._drop(below)
            if not load:
                return None
            event, before_g = ShelfEvent.of(load), {change.plate: change.before_g for change in load}
        until_ns = event.settled_ns + int(wait_s * 1e9)
        self._held.append(_Held(load, before_g, event.settled_ns, until_ns, event, certain, log_stays))
        return None

    def _hold_small(self, change: PlateChange, heaviest_g: float) -> None:
        """Keep a change that is no load, in case that another change undoes it."""
        if len(self._held) >= HELD_MAX or abs(change.delta_g) <= 2.0 * CREEP_G:
            return
        until_ns = change.settled_ns + int(LIFT_MAX_S * 1e9)
        log_stays = log_nothing(change, heaviest_g) - log_nothing(replace(change, delta_g=0.0), heaviest_g)
        log_stays -= LOG_SHAKY_HAND if change.shaky else 0.0
        before_g = {change.plate: change.before_g}
        self._held.append(_Held([change], before_g, change.settled_ns, until_ns, None, False, log_stays))

    def _stayed(self, held: _Held, level_g: dict[int, float]) -> list[ShelfEvent]:
        """The events of a held load that is still there.

        If its plates shook when it was weighed, it is weighed again by their levels now, level_g.
        """
        if not held.shaky:
            return [held.event] if held.event is not None else []
        return [ShelfEvent.of(load) for load in self._reweighed(held, level_g).loads]

    def _reweighed(self, held: _Held, level_g: dict[int, float]) -> Partition:
        """The loads of a held load, weighed by the levels of its plates, level_g."""
        still = []
        for change in held.changes:
            if change.plate in level_g:
                delta_g = level_g[change.plate] - held.before_g[change.plate]
                var_g2 = 1.0 + self._plates.noise_g2(change.plate) / 12.0
                change = replace(change, delta_g=delta_g, var_g2=var_g2, shaky=False)  # noqa: PLW2901
            if abs(change.delta_g) > CHANGE_MIN_G + 2.0 * math.sqrt(change.var_g2):
                still.append(change)
        return self._finder.partition(still)

    def _wait_s(self, event: ShelfEvent) -> float:
        """How long to wait whether a load is undone: not at all where it is what one expects there."""
        explained = self._finder.is_explained(event)
        if event.total_g < 0:
            return 0.0 if explained else LIFT_MAX_S
        planned = self._finder.is_planned(event)
        if explained and planned:
            return 0.0
        return LEAN_LIKELY_S if explained or planned else LEAN_MAX_S
