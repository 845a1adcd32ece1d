"""Whether a plate's readings can be weights in grams at the store's rate. If not, no pick could have shown in them.

Two properties are measured from the messages as they come:

- *Noise.* The best converters for load cells resolve some 20 bits of their range free of noise. Readings that tremble
  by less than 22 bits of the plate's capacity are in a larger unit: of 20 kg, 0.005 g, where real plates tremble by
  0.3 g, which is 0.0003 in kilograms.
- *Rate.* Samples are dated by counting them, so a plate that sends fewer or more of them than store.toml says has its
  steps at wrong times, or no steps at all.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods.plates import PackedReadings, plate_warnings
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind
from fusion.store.models import Store

# Noise of a sample below this share of a plate's capacity is less than any converter has: 2^-20 are reached at a few
# samples a second, and plates send many.
NOISE_SHARE_MIN = 2.0**-22
# Messages shake while a shelf is touched, so this share of them, at least, decides. Constant messages show nothing: a
# converter may be coarser than its noise.
CALM_SHARE, CALM_MESSAGES_MIN = 0.25, 4
# Cheap clocks are off by a part in a thousand, and stamps jitter. Within this, steps are still dated to 0.1 s.
RATE_OFF_MAX, INTERVALS_MIN = 0.05, 3
# Messages are measured in the first STRETCH_S of every EVERY_S.
STRETCH_S, EVERY_S = 5.0, 25.0
# Losses and jitter together may look like another rate in one stretch, so two in a row decide.
# A plate that was unfit is fit again after this many fit stretches in a row.
FIT_STRETCHES = 2


class Unfit(StrEnum):
    """Why a plate's readings are no weights."""

    UNIT = "unit"  # they tremble less than any scale in grams
    RATE = "rate"  # they come at another rate than the store's


class Messages(NamedTuple):
    """Messages in figures: parallel arrays (n,).

    Attributes:
        plate: index into store.plates.
        t_ns: of the first sample.
        n_samples: in each.
        noise_g: standard deviation of the samples; exactly 0 where all are the same.
    """

    plate: NDArray[np.integer[Any]]
    t_ns: NDArray[np.int64]
    n_samples: NDArray[np.integer[Any]]
    noise_g: NDArray[np.float64]


def message_noise_g(start: NDArray[np.integer[Any]], grams: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(n,) standard deviation within each message, 0 where it has no two numbers; see `PackedReadings`."""
    from fusion._kernels import scales as kernel

    noise_g = np.empty(len(start) - 1)
    kernel.message_noise(start, grams, noise_g)
    return noise_g


def trembles_too_little(n_moving: Any, n_calm: Any) -> Any:
    """Whether readings tremble less than any scale in grams; of one plate, or arrays (n_plates,).

    n_moving: messages whose samples are not all the same; n_calm: those of them below NOISE_SHARE_MIN of the capacity.
    """
    return (n_moving >= CALM_MESSAGES_MIN) & (n_calm >= CALM_SHARE * n_moving)


def sample_rates_hz(messages: Messages, n_plates: int, wanted_hz: float) -> NDArray[np.float64]:
    """(n_plates,) samples a second; NaN where too few messages show it. Messages sorted by plate, then by time.

    wanted_hz: the store's rate. Where as many samples come, none was lost, however much the times of messages jitter.
    Elsewhere the intervals between messages say which of them hold lost ones.
    """
    steps_s = np.diff(messages.t_ns) * 1e-9
    usable = (np.diff(messages.plate) == 0) & (steps_s > 0.0) & (messages.n_samples[:-1] > 0)
    plate, n = messages.plate[:-1][usable], messages.n_samples[:-1][usable]
    period_s = steps_s[usable] / n
    n_intervals = np.bincount(plate, minlength=n_plates)
    rates_hz = np.full(n_plates, np.nan)
    if not len(plate):
        return rates_hz
    shown = n_intervals >= INTERVALS_MIN
    # The lower quartile is an interval without a loss, where up to half of the messages are lost.
    quartile = np.cumsum(n_intervals) - n_intervals + n_intervals // 4
    usual_s = np.ones(n_plates)
    usual_s[shown] = period_s[_by_plate(plate, np.argsort(period_s))][quartile[shown]]
    span_s = np.bincount(plate, steps_s[usable], n_plates)
    came_hz = np.bincount(plate, n, n_plates)[shown] / span_s[shown]
    for _ in range(2):
        # A gap of lost messages holds as many samples as fit into it; the mean knows the rate better than the quartile.
        n_sent = n * np.maximum(np.rint(period_s / usual_s[plate]), 1.0)
        usual_s[shown] = span_s[shown] / np.bincount(plate, n_sent, n_plates)[shown]
    complete = np.abs(came_hz / wanted_hz - 1.0) <= RATE_OFF_MAX
    rates_hz[shown] = np.where(complete, came_hz, 1.0 / usual_s[shown])
    return rates_hz


def _by_plate(plate: NDArray[np.integer[Any]], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """(n,) an order of messages (n,), sorted by plate. Small numbers are sorted by counting, in a tenth of the time."""
    ordered = plate[order]
    if ordered.max(initial=0) < 1 << 16:
        return order[np.argsort(ordered.astype(np.uint16), kind="stable")]
    return order[np.argsort(ordered, kind="stable")]


class PlateFitness:
    """Measures every plate's messages now and then.

    Attributes:
        unfit: why, by plate (an index into store.plates), of those whose readings are no weights.
        noise_g: (n_plates,) of calm messages in the last stretch; NaN where they do not show it.
    """

    def __init__(self, store: Store) -> None:
        self.unfit: dict[int, Unfit] = {}
        self.noise_g: NDArray[np.float64] = np.full(len(store.plates), np.nan)
        self._names = [plate.plate for plate in store.plates]
        self._fit_stretches: dict[int, int] = {}  # In a row, by unfit plate.
        self._off_rate: frozenset[int] = frozenset()  # In the last stretch.
        self._messages: list[Messages] = []
        self._began_ns: int | None = None  # The present stretch, or the next.
        self._warnings: list[StoreWarning] = []
        self._derive(store)

    def _derive(self, store: Store) -> None:
        self._calm_g = NOISE_SHARE_MIN * np.array([plate.capacity_g for plate in store.plates])
        self._rate_hz = store.weight_rate_hz
        # Compiles the kernel: a first call takes up to a second.
        message_noise_g(np.zeros(1, np.uint32), np.zeros(0, np.float32))

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        self._derive(store)

    def feed(self, readings: PackedReadings | None, now_ns: int) -> bool:
        """Take messages, or none; True at the end of a stretch, when all plates have been judged."""
        if self._began_ns is None:
            self._began_ns = now_ns
        if now_ns < self._began_ns:
            return False
        if now_ns - self._began_ns < STRETCH_S * 1e9:
            if readings is not None:
                n_samples = readings.start[1:] - readings.start[:-1]
                noise_g = message_noise_g(readings.start, readings.grams)
                self._messages.append(Messages(readings.plate, readings.t_ns, n_samples, noise_g))
            return False
        if self._messages:
            self._judge(now_ns)
        self._messages = []
        # A plate that looks wrong is looked at again at once.
        self._began_ns = now_ns if self._off_rate - self.unfit.keys() else now_ns + int((EVERY_S - STRETCH_S) * 1e9)
        return True

    def warnings(self) -> list[StoreWarning]:
        """Plates that have become unfit, or fit again, since the last call."""
        drained, self._warnings = self._warnings, []
        return drained

    def _judge(self, now_ns: int) -> None:
        n_plates = len(self._names)
        plate, t_ns, n_samples, noise_g = (np.concatenate(column) for column in zip(*self._messages))
        plate, n_samples = plate.astype(np.int64), n_samples.astype(np.int64)
        order = _by_plate(plate, np.argsort(t_ns, kind="stable"))
        messages = Messages(plate[order], t_ns[order], n_samples[order], noise_g[order])
        moving = noise_g > 0.0
        n_moving = np.bincount(plate[moving], minlength=n_plates)
        n_calm = np.bincount(plate[moving & (noise_g < self._calm_g[plate])], minlength=n_plates)
        self.noise_g = np.full(n_plates, np.nan)
        calm = np.cumsum(n_moving) - n_moving + n_moving // 4
        shown_at = n_moving >= CALM_MESSAGES_MIN
        shown_g = noise_g[moving]
        self.noise_g[shown_at] = shown_g[_by_plate(plate[moving], np.argsort(shown_g))][calm[shown_at]]
        rates_hz = sample_rates_hz(messages, n_plates, self._rate_hz)
        before, off_hz = self._off_rate, np.abs(rates_hz / self._rate_hz - 1.0) > RATE_OFF_MAX
        self._off_rate = frozenset(np.flatnonzero(off_hz).tolist())
        in_other_unit = trembles_too_little(n_moving, n_calm)
        found = {
            **dict.fromkeys(sorted(self._off_rate & before), Unfit.RATE),
            **dict.fromkeys(np.flatnonzero(in_other_unit).tolist(), Unfit.UNIT),
        }
        shown = {Unfit.RATE: ~np.isnan(rates_hz), Unfit.UNIT: shown_at}
        again = []
        for at in [at for at, why in self.unfit.items() if at not in found and shown[why][at]]:
            self._fit_stretches[at] += 1
            if self._fit_stretches[at] >= FIT_STRETCHES:
                del self.unfit[at], self._fit_stretches[at]
                again.append(self._names[at])
        self._warnings += plate_warnings(now_ns, WarningKind.PLATE_FIT_AGAIN, again)
        for why, kind in ((Unfit.UNIT, WarningKind.PLATE_UNIT), (Unfit.RATE, WarningKind.PLATE_RATE)):
            fresh = [at for at, found_why in found.items() if found_why is why and self.unfit.get(at) is not why]
            rate_hz = float(np.median(rates_hz[fresh])) if fresh and why is Unfit.RATE else None
            names = [self._names[at] for at in fresh]
            self._warnings += plate_warnings(now_ns, kind, names, rate_hz=rate_hz)
        self.unfit |= found
        self._fit_stretches |= dict.fromkeys(found, 0)
