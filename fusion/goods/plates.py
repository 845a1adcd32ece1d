"""The scale under every plate: its messages in, settled changes of its weight out, and whether it works."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels.shelves import pack
from fusion.observations import ShelfReading
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind
from fusion.store.models import Store

# Smallest change of a plate: more than still air, drift and the steps of the converter cause in 0.4 s.
CHANGE_MIN_G = 3.0
# A change must also exceed this many standard deviations of its own noise.
CHANGE_MIN_SD = 4.0
# Samples that are averaged before a level is judged: about a period of the shelf's vibration, and two of a slow
# converter at least, whose noise would otherwise look like a load.
BLOCK_S, BLOCK_SAMPLES_MIN, BLOCK_SAMPLES_MAX = 0.1, 2, 6
# A pause longer than this means that a message was lost; time stamps jitter by only a tenth of a message's length.
GAP_MAX_S = 0.1
# A plate that is silent or stuck for this long, or that is this noisy, is reported.
STUCK_S = 5.0
# What is done over a plate that has moved for this long is not known before it has settled.
UNSETTLED_S = 5.0
NOISY_SD_G = 25.0
# Samples that repeat those before them for this long were not weighed; those of a plate with hardly any noise do so for
# up to STUCK_S. Where it is a plate at rest after all, nothing is lost, since its level is compared across them.
FROZEN_S = 0.5
# No load moves a plate by more than its capacity, with a margin for gain and ringing. Plates are not tared, so the
# readings themselves may be anything. Where the capacity is stated too low, a few of the heaviest pieces still count.
RANGE_SHARE, RANGE_PIECES = 1.1, 4.0
# Readings out of range for this long are reported. Those that move for that long, as a weight does and a rail does not,
# are a plate that weighs from another zero: its level is learnt again, and its load up to then is not known.
OUT_OF_RANGE_S, LOST_S = 1.0, 10.0
CHECK_EVERY_NS = 1_000_000_000
# A plate that comes back out of a silence has settled by then, or a hand shakes it.
RESETTLE_S = 1.5
# Of more plates than this with one fault at once, one warning gives the number and the first names.
EACH_MAX = 8
# Of each fault of a plate: its warning, and what that states.
_FAULTS: dict[str, tuple[WarningKind, dict[str, float]]] = {
    "noisy": (WarningKind.PLATE_NOISY, {"limit_g": NOISY_SD_G}),
    "stuck": (WarningKind.PLATE_STUCK, {"seconds": STUCK_S}),
    "out of range": (WarningKind.PLATE_OUT_OF_RANGE, {"seconds": OUT_OF_RANGE_S}),
    "silent": (WarningKind.PLATE_SILENT, {"seconds": STUCK_S}),
}


@dataclass(slots=True, eq=False)
class PlateChange:
    """A settled change of the weight on a single plate, not yet joined with its neighbours' changes.

    Attributes:
        plate: index into store.plates.
        onset_ns, contact_ns, settled_ns: when the plate began to move, when the load left or met it, end of the
            samples from which the change was measured.
        silent: the plate was silent when it happened, so contact_ns is no more than the middle of the silence.
        rise_ns: from a quarter of the change to three quarters.
        shaky: the plate still shook when the change was measured.
        delta_g, var_g2: the change and its variance from noise.
        before_g: level before the change.
    """

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

    def but(self, **fields: float) -> PlateChange:
        """The same change with some other fields; a third of the time of `dataclasses.replace`."""
        change = PlateChange(
            self.plate, self.onset_ns, self.contact_ns, self.settled_ns, self.silent, self.rise_ns, self.shaky,
            self.delta_g, self.var_g2, self.before_g,
        )  # fmt: skip
        for name, value in fields.items():
            setattr(change, name, value)
        return change

    @property
    def after_g(self) -> float:
        """Level after the change."""
        return self.before_g + self.delta_g


@dataclass(frozen=True, slots=True)
class PlateState:
    """State of a plate's scale.

    Attributes:
        name: as in the store.
        fault: "silent", "stuck", "out of range", "noisy", or "" where it works.
        noise_g: standard deviation of a sample at rest.
        heard_ns: time of the newest sample; None before the first.
    """

    name: str
    fault: str
    noise_g: float
    heard_ns: int | None


class PackedReadings(NamedTuple):
    """Messages side by side, in time order.

    Attributes:
        plate: (n,) uint32 index into store.plates.
        t_ns: (n,) int64 of the first sample.
        start: (n + 1,) uint32; message i has the samples start[i] to start[i + 1], at least one.
        grams: (n_samples,) float32.
    """

    plate: NDArray[np.uint32]
    t_ns: NDArray[np.int64]
    start: NDArray[np.uint32]
    grams: NDArray[np.float32]


class PlateSamples(NamedTuple):
    """What a kernel needs of the samples that are kept.

    Attributes:
        reals, times, ring: of `fusion._kernels.scales.PlateTables`.
        period_ns: between two samples.
    """

    reals: NDArray[np.float64]
    times: NDArray[np.int64]
    ring: NDArray[np.float32]
    period_ns: float


class Plates:
    """Follows every plate of a store: a kernel keeps one row of state per plate.

    Attributes:
        ignored: messages that were not used, by reason.
        faults: kind of fault by plate, of those that do not work at present.
        block_samples: samples that are averaged before a level is judged.
    """

    def __init__(self, store: Store) -> None:
        from fusion._kernels import scales as kernel

        self._kernel = kernel
        self.ignored: Counter[str] = Counter()
        self.faults: dict[int, str] = {}
        self._names = [plate.plate for plate in store.plates]
        self._index = {name: i for i, name in enumerate(self._names)}
        n = len(store.plates)
        self._tables = kernel.PlateTables.empty(n)
        self._findings = kernel.Findings.empty(max(2 * n, 16))
        self._checked_ns = 0
        self._began_ns = 0
        self._unsettled: dict[int, int] = {}
        self._warnings: list[StoreWarning] = []
        self._moved, self._any_moved = np.zeros(n, np.bool_), False
        self._derive(store)
        self.warm_up()

    def _derive(self, store: Store) -> None:
        heaviest_g = max((product.weight_g for product in store.products), default=0.0)
        rate_hz = store.weight_rate_hz
        self._period_ns = 1e9 / rate_hz
        # Of the samples in the ring before the newest, oldest first.
        self._back_ns = (np.arange(self._kernel.RING - 1, -1, -1) * self._period_ns).astype(np.int64)
        self._stuck_samples, self._out_samples = STUCK_S * rate_hz, OUT_OF_RANGE_S * rate_hz
        self.block_samples = min(max(round(BLOCK_S * rate_hz), BLOCK_SAMPLES_MIN), BLOCK_SAMPLES_MAX)
        self._settings = np.array([
            self._period_ns, GAP_MAX_S * 1e9, FROZEN_S * rate_hz, STUCK_S * rate_hz, LOST_S * rate_hz,
            CHANGE_MIN_G, CHANGE_MIN_SD, self.block_samples,
            *(max(RANGE_SHARE * plate.capacity_g, RANGE_PIECES * heaviest_g) for plate in store.plates),
        ])  # fmt: skip

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        self._derive(store)
        self.warm_up()

    def warm_up(self) -> None:
        """Compile the kernel, by a call without messages."""
        none, start = np.zeros(0, np.uint32), np.zeros(1, np.uint32)
        self.feed(PackedReadings(none, np.zeros(0, np.int64), start, np.zeros(0, np.float32)))

    # ---- messages ----------------------------------------------------------------------------------------------------

    def pack(self, readings: Sequence[ShelfReading]) -> PackedReadings | None:
        """Put messages, in time order, side by side; None where none can be used."""
        plates, t_ns, start, grams, n_unknown, n_empty = pack(readings, self._index)
        if n_unknown or n_empty:
            self.ignored["weights: unknown plate"] += n_unknown
            self.ignored["weights: no samples"] += n_empty
            self.ignored += Counter()  # Drops the reasons that did not occur.
        return PackedReadings(plates, t_ns, start, grams) if len(plates) else None

    def feed(self, readings: PackedReadings) -> list[PlateChange]:
        """Take messages; returns the changes that have settled."""
        found = self._findings
        n_changes = self._kernel.follow(*readings, self._settings, *self._tables, *found)
        changes = []
        for whole, grams in zip(found.changes[:n_changes].tolist(), found.changes_g[:n_changes].tolist()):
            plate, onset_ns, contact_ns, settled_ns, silent, rise_ns, shaky = whole
            known = plate, onset_ns, contact_ns, settled_ns, bool(silent), rise_ns, bool(shaky)
            changes.append(PlateChange(*known, *grams))
        if found.ignored.any():
            for reason, count in zip(("late or repeated", "not a number", "table full"), found.ignored.tolist()):
                if count:
                    self.ignored[f"weights: {reason}"] += count
            found.ignored[:] = 0
        return changes

    # ---- levels ------------------------------------------------------------------------------------------------------

    def level_g(self, plate: int) -> float:
        """The newest quiet level of a plate."""
        return float(self._tables.reals[plate, self._kernel.LEVEL_G])

    def level_before_g(self, plate: int, t_ns: int) -> float:
        """The quiet level of a plate before the disturbance that began at an instant or later, if any did."""
        kernel, tables = self._kernel, self._tables
        moved = tables.state[plate] != kernel.STARTING and tables.times[plate, kernel.ONSET_NS] >= t_ns
        return float(tables.reals[plate, kernel.BASELINE_G if moved else kernel.LEVEL_G])

    def noise_g2(self, plate: int) -> float:
        """Variance of a plate's samples at rest."""
        return float(self._tables.reals[plate, self._kernel.NOISE_G2])

    def is_still(self, plate: int) -> bool:
        """Whether a plate is at rest."""
        kernel, tables = self._kernel, self._tables
        quiet_messages = tables.times[plate, kernel.QUIET_MESSAGES]
        return bool(tables.state[plate] == kernel.QUIET and quiet_messages >= kernel.REST_MESSAGES)

    def moved_before(self, plate: int, t_ns: float) -> bool:
        """Whether a plate is disturbed now and began to move before an instant, or at it."""
        kernel, tables = self._kernel, self._tables
        return bool(tables.state[plate] == kernel.DISTURBED and tables.times[plate, kernel.ONSET_NS] <= t_ns)

    def silent_since(self, plate: int, now_ns: int) -> int | None:
        """Since when a plate that was heard before has been silent, or has just come back; None where it is neither.

        A frozen plate and one out of range are silent, and so is one whose next message is overdue.
        """
        kernel, clock = self._kernel, self._tables.times[plate].tolist()
        silence_ns: int = clock[kernel.SILENCE_NS]
        next_ns: int = clock[kernel.NEXT_NS]
        last_ns: int = clock[kernel.LAST_NS]
        if silence_ns and self._tables.state[plate] == kernel.DISTURBED and (
            clock[kernel.RING_SINCE_ONSET] * self._period_ns < RESETTLE_S * 1e9
        ):
            return silence_ns
        return last_ns if 0 < next_ns < now_ns - GAP_MAX_S * 1e9 else None

    def overdue(self, now_ns: int) -> list[tuple[int, int]]:
        """(plate, since when) of every plate that was heard before and whose next message does not come."""
        kernel, times = self._kernel, self._tables.times
        next_ns = times[:, kernel.NEXT_NS]
        late = np.flatnonzero((next_ns > 0) & (next_ns < now_ns - GAP_MAX_S * 1e9))
        return list(zip(late.tolist(), times[late, kernel.LAST_NS].tolist()))

    def disturbed(self) -> list[tuple[int, int]]:
        """(plate, since when) of every plate that is disturbed now."""
        kernel, tables = self._kernel, self._tables
        moving = np.flatnonzero(tables.state == kernel.DISTURBED)
        return list(zip(moving.tolist(), tables.times[moving, kernel.ONSET_NS].tolist()))

    def rested(self) -> list[tuple[int, int]]:
        """(plate, since when) of every plate that was disturbed at the last call, and is quiet now."""
        kernel, tables = self._kernel, self._tables
        moving = tables.state == kernel.DISTURBED
        rested = (self._moved & (tables.state == kernel.QUIET)).nonzero()[0] if self._any_moved else ()
        self._moved, self._any_moved = moving, bool(moving.any())
        return [(plate, int(tables.times[plate, kernel.ONSET_NS])) for plate in map(int, rested)]

    @property
    def samples(self) -> PlateSamples:
        """The newest samples of all plates, as a kernel reads them."""
        return PlateSamples(self._tables.reals, self._tables.times, self._tables.ring, self._period_ns)

    @property
    def period_s(self) -> float:
        """Time between two samples."""
        return self._period_ns * 1e-9

    @property
    def unheard(self) -> list[int]:
        """Plates that do not report, as `check` saw them; noisy ones do."""
        return [plate for plate, fault in self.faults.items() if fault != "noisy"]

    def unsettled(self) -> dict[int, int]:
        """Since when plates have not been at rest, of those that had moved for UNSETTLED_S when `check` saw them."""
        if self._unsettled:
            self._unsettled = {plate: t_ns for plate, t_ns in self._unsettled.items() if not self.is_still(plate)}
        return self._unsettled

    @property
    def detectable_g(self) -> NDArray[np.float64]:
        """(n_plates,) smallest change that shows above each plate's noise."""
        kernel = self._kernel
        noise_g2 = self._tables.reals[:, kernel.NOISE_G2]
        change_g2 = noise_g2 * 6.0 / (kernel.PLATEAU_BLOCKS * self.block_samples)
        detectable_g: NDArray[np.float64] = CHANGE_MIN_SD * np.sqrt(change_g2)
        return detectable_g

    def heard_since(self, t_ns: int, unfit: Collection[int]) -> bool:
        """Whether any plate has sent weights since an instant. unfit: plates that send something else."""
        heard = self._tables.times[:, self._kernel.LAST_NS] >= t_ns
        heard[self.unheard] = False
        heard[list(unfit)] = False
        return bool(heard.any())

    def trace(self, plate: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Times (n,) and grams (n,) of the newest samples of a plate, for a reviewer to look at; copies."""
        kernel, tables = self._kernel, self._tables
        grams = self.newest_g(plate, kernel.RING)
        return tables.times[plate, kernel.LAST_NS] - self._back_ns[kernel.RING - len(grams) :], grams

    def newest_g(self, plate: int, n_max: int) -> NDArray[np.float32]:
        """(n,) grams of at most n_max newest samples of a plate; a copy."""
        kernel, tables = self._kernel, self._tables
        count = int(tables.times[plate, kernel.RING_COUNT])
        n = min(count, kernel.RING, n_max)
        first, stop, ring = (count - n) % kernel.RING, count % kernel.RING, tables.ring[plate]
        grams: NDArray[np.float32] = (
            ring[first : first + n].copy() if first < stop or n == 0
            else np.concatenate((ring[first : kernel.RING], ring[:stop]))
        )  # fmt: skip
        return grams

    # ---- faults ------------------------------------------------------------------------------------------------------

    def check(self, now_ns: int) -> bool:
        """Once a second of data time, look for faults of plates, and for recoveries; True when it is time."""
        if now_ns - self._checked_ns <= CHECK_EVERY_NS:
            return False
        kernel, tables = self._kernel, self._tables
        self._checked_ns = now_ns
        last = tables.times[:, kernel.LAST_NS]
        heard = last > 0
        stuck = tables.times[:, kernel.STUCK_SAMPLES] > self._stuck_samples
        out_of_range = tables.times[:, kernel.OUT_SAMPLES] > self._out_samples
        silent = heard & (now_ns - last > STUCK_S * 1e9)
        # Once others are heard, a plate that has never been heard is silent too.
        self._began_ns = self._began_ns or now_ns
        if heard.any() and now_ns - self._began_ns > STUCK_S * 1e9:
            silent |= ~heard
        noisy = heard & (tables.reals[:, kernel.NOISE_G2] > NOISY_SD_G**2)
        restless_ns = tables.times[:, kernel.RESTLESS_NS]
        moves = (tables.state != kernel.QUIET) | (tables.times[:, kernel.QUIET_MESSAGES] < kernel.REST_MESSAGES)
        restless = (heard & moves & (now_ns - restless_ns > UNSETTLED_S * 1e9)).nonzero()[0]
        self._unsettled = dict(zip(restless.tolist(), restless_ns[restless].tolist()))
        faults: dict[int, str] = {}
        if (noisy | stuck | out_of_range | silent).any():
            for mask, fault in zip((noisy, stuck, out_of_range, silent), ("noisy", "stuck", "out of range", "silent")):
                faults |= dict.fromkeys(mask.nonzero()[0].tolist(), fault)
        elif not self.faults:
            return True
        for fault in dict.fromkeys(faults.values()):
            fresh = [at for at, found in faults.items() if found == fault and self.faults.get(at) != fault]
            if fault == "silent":  # The roll call reports those never heard.
                fresh = [at for at in fresh if heard[at]]
            self._warn(now_ns, *_FAULTS[fault], fresh)
        self._warn(now_ns, WarningKind.PLATE_RECOVERED, {}, sorted(self.faults.keys() - faults.keys()))
        self.faults = faults
        return True

    def _warn(self, now_ns: int, kind: WarningKind, fields: Mapping[str, float], plates: Sequence[int]) -> None:
        self._warnings += plate_warnings(now_ns, kind, [self._names[at] for at in plates], **fields)

    def lost(self) -> list[tuple[int, int]]:
        """(plate, since when) of those whose level was given up since the last call: they weigh from another zero."""
        kernel, times = self._kernel, self._tables.times
        plates = times[:, kernel.LOST_NS].nonzero()[0]
        if not len(plates):
            return []
        found = list(zip(plates.tolist(), times[plates, kernel.LOST_NS].tolist()))
        times[plates, kernel.LOST_NS] = 0
        return found

    def warn_restarted(self, plate: int, now_ns: int) -> None:
        """Report a plate that weighs from another zero."""
        self._warnings.append(StoreWarning(now_ns, WarningKind.PLATE_RESTARTED, self._names[plate]))

    def warnings(self) -> list[StoreWarning]:
        """Faults found since the last call, and recoveries."""
        drained, self._warnings = self._warnings, []
        return drained

    def report(self) -> tuple[PlateState, ...]:
        """The state of every plate, in the order of the store."""
        kernel, tables = self._kernel, self._tables
        noise_g2 = tables.reals[:, kernel.NOISE_G2].tolist()
        heard_ns = tables.times[:, kernel.LAST_NS].tolist()
        return tuple(
            PlateState(name, self.faults.get(plate, ""), math.sqrt(noise_g2[plate]), heard_ns[plate] or None)
            for plate, name in enumerate(self._names)
        )


def plate_warnings(t_ns: int, kind: WarningKind, names: Sequence[str], **fields: float | None) -> list[StoreWarning]:
    """A warning about each plate, or one with their number and the first names where there are more than EACH_MAX.

    Args:
        t_ns: data time.
        kind: what they report.
        names: of the plates, in the order of the store.
        fields: further fields of `fusion.results.Warning`.
    """
    if len(names) <= EACH_MAX:
        return [StoreWarning(t_ns, kind, name, **fields) for name in names]  # type: ignore[arg-type]
    n, detail = len(names), ", ".join(names[:EACH_MAX])
    return [StoreWarning(t_ns, kind, f"{n} plates", count=n, detail=detail, **fields)]  # type: ignore[arg-type]
