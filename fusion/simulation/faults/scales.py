"""Faults of weighing plates: wrong units, names and rates; rails, zeros, restarts, frozen values, silence; noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Observation, ShelfReading
from fusion.simulation.faults.fault import Breaker, Fault, Part, Scene, Windows, by_arrival, changed, inside
from fusion.simulation.goods import ShelfMap
from fusion.simulation.truth import EventTruth
from fusion.store.models import WEIGHT_UNITS_G

Samples = NDArray[np.float32]
# The samples of a broken reading, from a sound one.
Sampling = Callable[[Scene, ShelfReading], NDArray[np.floating]]
Choice = Callable[[Scene], Collection[str]]

KILOGRAM, POUND, OUNCE = (1.0 / WEIGHT_UNITS_G[unit] for unit in ("kg", "lb", "oz"))
# Full scales of common converters as firmware reports them: 24 bits in hundredths of a gram, 16 bits in grams.
RAIL_24_G, RAIL_16_G = 83886.07, 32767.0

# ---- which plates ----------------------------------------------------------------------------------------------------


def every(scene: Scene) -> Collection[str]:
    """All plates."""
    return scene.plates


def one(scene: Scene) -> Collection[str]:
    """A plate from which something is taken."""
    return (scene.busy_plate,)


def gondola(scene: Scene) -> Collection[str]:
    """The gondola of that plate."""
    return scene.busy_gondola


# ---- how readings change ---------------------------------------------------------------------------------------------


def _sampled(which: Choice, sampling: Sampling) -> Breaker:
    """A fault that changes every sample of some plates."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        def change(r: ShelfReading) -> ShelfReading:
            return replace(r, samples=sampling(scene, r).astype(np.float32))

        return changed(scene, ShelfReading, which(scene), change)

    return breaker


def _scaled(factor: float, which: Choice) -> Breaker:
    return _sampled(which, lambda _, r: r.samples * np.float32(factor))


def _around(
    before_s: float,
    after_s: float,
    sampling: Sampling,
    *,
    events: Callable[[Scene], Iterable[EventTruth]] = lambda scene: scene.picks,
) -> Breaker:
    """A fault that changes the samples of the bearing plates around events."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        windows = scene.windows(events(scene), before_s, after_s)

        def change(r: ShelfReading) -> ShelfReading:
            if not inside(windows, r.plate, r.t_ns):
                return r
            return replace(r, samples=sampling(scene, r).astype(np.float32))

        return changed(scene, ShelfReading, windows, change)

    return breaker


def _constant(value_g: float) -> Sampling:
    return lambda _, r: np.full_like(r.samples, value_g)


def _capacity(scene: Scene, r: ShelfReading) -> Samples:
    return np.full_like(r.samples, scene.capacity_g[r.plate])


def _silent(
    windows: Callable[[Scene], Windows],
) -> Breaker:
    """The messages that begin in stretches of time are missing."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        quiet = windows(scene)
        return changed(scene, ShelfReading, quiet, lambda r: None if inside(quiet, r.plate, r.t_ns) else r)

    return breaker


def _silent_around_picks(before_s: float, after_s: float) -> Breaker:
    return _silent(lambda scene: scene.windows(scene.picks, before_s, after_s))


def _silent_around_put_backs(before_s: float, after_s: float) -> Breaker:
    """Only one of the plates that bear the piece is silent: the one that bears most."""
    return _silent(lambda scene: scene.windows(scene.put_backs, before_s, after_s, share=1))


def _all_silent(before_s: float, after_s: float) -> Breaker:
    def windows(scene: Scene) -> Windows:
        stretches = [(e.t_ns - round(before_s * 1e9), e.t_ns + round(after_s * 1e9)) for e in scene.picks[:1]]
        return {plate: stretches for plate in scene.plates}

    return _silent(windows)


def _silent_from(share: float, which: Choice) -> Breaker:
    """Silent from a share of the run to its end."""

    def windows(scene: Scene) -> Windows:
        from_ns = scene.start_ns + round(share * (scene.end_ns - scene.start_ns))
        return {plate: [(from_ns, 2**62)] for plate in which(scene)}

    return _silent(windows)


def _frozen(before_s: float, after_s: float | None, which: Choice | None = None) -> Breaker:
    """The plate repeats its last value, around picks or (None) from the first pick to the end."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        if after_s is None:
            first_ns = scene.picks[0].t_ns if scene.picks else scene.middle_ns
            plates = which(scene) if which is not None else (scene.busy_plate,)
            windows: Windows = {plate: [(first_ns - round(before_s * 1e9), 2**62)] for plate in plates}
        else:
            windows = scene.windows(scene.picks, before_s, after_s)
        last: dict[str, np.float32] = {}

        def change(r: ShelfReading) -> ShelfReading:
            if inside(windows, r.plate, r.t_ns) and r.plate in last:
                return replace(r, samples=np.full_like(r.samples, last[r.plate]))
            last[r.plate] = r.samples[-1]
            return r

        return changed(scene, ShelfReading, windows, change)

    return breaker


def _restarted(before_s: float, silent_s: float) -> Breaker:
    """The plate restarts: it is silent for a while, and what lies on it then is its new zero."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        starts = scene.windows(scene.picks, before_s, silent_s - before_s)
        zero: dict[str, float] = {}
        for plate, stretches in starts.items():
            # One restart for each plate.
            starts[plate] = stretches[:1]
            end_ns = stretches[0][1]
            zero[plate] = scene.level_g(plate, end_ns, end_ns + 400_000_000)

        def change(r: ShelfReading) -> ShelfReading | None:
            start_ns, end_ns = starts[r.plate][0]
            if start_ns <= r.t_ns < end_ns:
                return None
            return replace(r, samples=r.samples - np.float32(zero[r.plate])) if r.t_ns >= end_ns else r

        return changed(scene, ShelfReading, starts, change)

    return breaker


def _saturated(scene: Scene) -> Iterator[Observation]:
    """The plates of picks are so loaded that half of what is taken lies above what they can weigh."""
    excess: dict[str, float] = {}
    for event in scene.picks:
        for plate, step_g in scene.steps_g(event).items():
            if plate not in excess:
                level_g = scene.level_g(plate, event.t_ns - 2 * 10**9, event.t_ns - 10**9)
                excess[plate] = level_g - 0.5 * abs(step_g)

    def change(r: ShelfReading) -> ShelfReading:
        capacity_g = scene.capacity_g[r.plate]
        heavy = r.samples + np.float32(capacity_g - excess[r.plate])
        return replace(r, samples=np.minimum(heavy, np.float32(capacity_g)))

    return changed(scene, ShelfReading, excess, change)


def _exchanged(scene: Scene) -> Iterator[Observation]:
    """Two cables are exchanged: the busy plate and another on the same gondola that bears another product."""
    gtins = {facing.plate: facing.gtin for facing in scene.store.planogram}
    mine = scene.busy_plate
    others = sorted(p for p in scene.busy_gondola if p != mine and gtins.get(p) != gtins.get(mine))
    others = others or [plate for plate in scene.plates if plate != mine]
    other = others[int(scene.random.integers(len(others)))]
    names = {mine: other, other: mine}
    return changed(scene, ShelfReading, names, lambda r: replace(r, plate=names[r.plate]))


def _rows_exchanged(scene: Scene) -> Iterator[Observation]:
    """Two shelves of a gondola are exchanged: each plate reports under the name of that above or below it."""
    shelves = ShelfMap(scene.store)
    mine = scene.plates.index(scene.busy_plate)
    rows: dict[int, list[str]] = {}
    for i, name in enumerate(scene.plates):
        if shelves.gondola[i] == shelves.gondola[mine]:
            rows.setdefault(int(shelves.shelf[i]), []).append(name)
    own = rows.pop(int(shelves.shelf[mine]))
    other = rows[min(rows)] if rows else own[::-1]
    names = dict(zip(own, other)) | dict(zip(other, own))
    return changed(scene, ShelfReading, names, lambda r: replace(r, plate=names[r.plate]))


def _misnamed(scene: Scene) -> Iterator[Observation]:
    """All plates report under names that the store does not have."""
    return changed(scene, ShelfReading, scene.plates, lambda r: replace(r, plate=f"scale/{r.plate}"))


def _thinned(scene: Scene) -> Iterator[Observation]:
    """10 samples a second in messages as often as before."""
    step = max(1, round(scene.store.weight_rate_hz / 10.0))
    return changed(scene, ShelfReading, scene.plates, lambda r: replace(r, samples=r.samples[::step]))


def _slow(scene: Scene) -> Iterator[Observation]:
    """10 samples a second in messages of as many samples as before, which therefore come as seldom."""
    step = max(1, round(scene.store.weight_rate_hz / 10.0))
    waiting: dict[str, list[ShelfReading]] = {}

    def change(r: ShelfReading) -> ShelfReading | None:
        group = waiting.setdefault(r.plate, [])
        group.append(r)
        if len(group) < step:
            return None
        waiting[r.plate] = []
        return replace(group[0], samples=np.concatenate([one.samples for one in group])[::step])

    return changed(scene, ShelfReading, scene.plates, change)


def _drifting_gain(scene: Scene) -> Iterator[Observation]:
    """The gain of the plates of picks rises by a third in the course of the run."""
    plates = {event.plate for event in scene.picks}
    span_ns = scene.end_ns - scene.start_ns

    def change(r: ShelfReading) -> ShelfReading:
        gain = 1.0 + 0.33 * (r.t_ns - scene.start_ns) / span_ns
        return replace(r, samples=(r.samples * np.float32(gain)))

    return changed(scene, ShelfReading, plates, change)


def _spiking(scene: Scene, r: ShelfReading) -> NDArray[np.floating]:
    struck = scene.random.random(r.samples.shape) < 0.02
    return np.where(struck, r.samples + np.float32(5000.0), r.samples)


def _coarse(_scene: Scene, r: ShelfReading) -> NDArray[np.floating]:
    rounded: NDArray[np.floating] = np.rint(r.samples / 50.0) * 50.0
    return rounded


def _humming(scene: Scene, r: ShelfReading) -> NDArray[np.floating]:
    return r.samples + 40.0 * scene.noise(r.samples.shape)


def _delayed(delay_s: float, which: Choice) -> Breaker:
    """The clock of some plates is behind: what they report seems to have happened earlier or later than it did."""

    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, ShelfReading, which(scene), lambda r: replace(r, t_ns=r.t_ns + round(delay_s * 1e9)))

    return breaker


def _late(scene: Scene) -> Iterator[Observation]:
    """Messages of the plates of picks arrive by the network up to 1.8 s late, in any order."""
    plates = {event.plate for event in scene.picks}
    scene.sensors |= plates
    arrivals = []
    for observation in scene.observations:
        arrival_ns = observation.t_ns
        if isinstance(observation, ShelfReading) and observation.plate in plates:
            arrival_ns += round(1.8e9 * float(scene.random.random()))
        arrivals.append((arrival_ns, observation))
    return by_arrival(arrivals)


def _doubled(scene: Scene) -> Iterator[Observation]:
    """Every message arrives twice."""
    scene.sensors |= set(scene.plates)
    for observation in scene.observations:
        yield observation
        if isinstance(observation, ShelfReading):
            yield observation


def _resent(scene: Scene) -> Iterator[Observation]:
    """Every tenth message has the content of the one before it: a controller sends its buffer again."""
    last: dict[str, Samples] = {}

    def change(r: ShelfReading) -> ShelfReading:
        again = r.plate in last and scene.random.random() < 0.1
        samples = last[r.plate] if again else r.samples
        last[r.plate] = samples
        return replace(r, samples=samples)

    return changed(scene, ShelfReading, scene.plates, change)


def _jittering(scene: Scene) -> Iterator[Observation]:
    """The time of a message is that of its arrival: 50 ms of jitter."""

    def change(r: ShelfReading) -> ShelfReading:
        return replace(r, t_ns=r.t_ns + round(5e7 * float(np.clip(scene.noise(()), -2.5, 2.5))))

    return changed(scene, ShelfReading, scene.plates, change)


def _lossy(share: float) -> Breaker:
    def breaker(scene: Scene) -> Iterator[Observation]:
        return changed(scene, ShelfReading, scene.plates, lambda r: None if scene.random.random() < share else r)

    return breaker


def _not_numbers(value: float) -> Sampling:
    def sampling(scene: Scene, r: ShelfReading) -> NDArray[np.floating]:
        return np.where(scene.random.random(r.samples.shape) < 0.5, np.float32(value), r.samples)

    return sampling


def _dead(scene: Scene) -> Iterator[Observation]:
    """The plates of picks report one constant value from the start."""
    plates = {event.plate for event in scene.picks}
    return changed(scene, ShelfReading, plates, lambda r: replace(r, samples=np.full_like(r.samples, 6067.416)))


_S = Part.SCALES
SCALE_FAULTS = (
    Fault("plates in kilograms", _S, _scaled(KILOGRAM, every), "all plates report kilograms", warned=True),
    Fault("a gondola in kilograms", _S, _scaled(KILOGRAM, gondola), "one controller reports kilograms", warned=True),
    Fault("a plate in kilograms", _S, _scaled(KILOGRAM, one), "one plate reports kilograms", warned=True),
    Fault("plates in pounds", _S, _scaled(POUND, every), "all plates report pounds", warned=True),
    Fault("plates in ounces", _S, _scaled(OUNCE, every), "all plates report ounces", warned=True),
    Fault("half gain", _S, _scaled(0.5, every), "all plates report half of every load"),
    Fault("a plate with half gain", _S, _scaled(0.5, one), "one plate reports half of every load"),
    Fault("wrong sign", _S, _scaled(-1.0, every), "all plates report a load as relief", warned=True),
    Fault("a plate with the wrong sign", _S, _scaled(-1.0, one), "one plate reports a load as relief"),
    Fault("two cables exchanged", _S, _exchanged, "two plates of a gondola report under each other's names"),
    Fault("two rows exchanged", _S, _rows_exchanged, "two shelves of a gondola report under each other's names"),
    Fault("plates misnamed", _S, _misnamed, "all plates report under names that the store does not have", warned=True),
    Fault("10 Hz, short messages", _S, _thinned, "all plates sample at 10 Hz, in messages as often", warned=True),
    Fault("10 Hz, long messages", _S, _slow, "all plates sample at 10 Hz, in messages as long", warned=True),
    Fault("no plate connected", _S, _silent_from(0.0, every), "no plate ever reports", warned=True),
    Fault("a gondola not connected", _S, _silent_from(0.0, gondola), "one gondola never reports", warned=True),
    Fault("a plate not connected", _S, _silent_from(0.0, one), "one plate never reports", warned=True),
    Fault("plates dead", _S, _dead, "plates report a constant from the start"),
    Fault("rail of 24 bits", _S, _around(2.0, 2.0, _constant(RAIL_24_G)), "a plate reads 83886 g for 4 s at picks"),
    Fault("rail of 16 bits", _S, _around(2.0, 2.0, _constant(RAIL_16_G)), "a plate reads 32767 g for 4 s at picks"),
    Fault("negative rail", _S, _around(2.0, 2.0, _constant(-RAIL_24_G)), "a plate reads -83886 g for 4 s at picks"),
    Fault("rail at capacity", _S, _around(2.0, 2.0, _capacity), "a plate reads its capacity for 4 s at picks"),
    Fault("zeros", _S, _around(3.0, 4.0, _constant(0.0)), "a plate repeats 0 for 7 s at picks"),
    Fault("restart before a pick", _S, _restarted(4.0, 2.0), "a plate restarts with a new zero just before a pick"),
    Fault("restart over a pick", _S, _restarted(1.0, 2.5), "a plate is silent over a pick and has a new zero after it"),
    Fault("frozen for 3 s", _S, _frozen(1.5, 1.5), "a plate repeats its last value for 3 s at picks"),
    Fault("frozen for 12 s", _S, _frozen(2.0, 10.0), "a plate repeats its last value for 12 s at picks"),
    Fault("frozen for good", _S, _frozen(1.0, None), "a plate repeats its last value from a pick on", warned=True),
    Fault("plates frozen for good", _S, _frozen(1.0, None, every), "all plates freeze at a pick", warned=True),
    Fault("silent for 1 s", _S, _silent_around_picks(0.5, 0.5), "a plate's messages are missing for 1 s at picks"),
    Fault("silent for 2 s", _S, _silent_around_picks(1.0, 1.0), "a plate's messages are missing for 2 s at picks"),
    Fault("silent for 4 s", _S, _silent_around_picks(2.0, 2.0), "a plate's messages are missing for 4 s at picks"),
    Fault("silent at put-backs", _S, _silent_around_put_backs(1.0, 1.0), "one bearing plate is silent at put-backs"),
    Fault("silent at put-backs, 4 s", _S, _silent_around_put_backs(2.0, 2.0), "the same for 4 s"),
    Fault("all silent for 3 s", _S, _all_silent(1.5, 1.5), "no plate reports for 3 s at a pick"),
    Fault("all silent for good", _S, _silent_from(0.5, every), "all plates stop half-way", warned=True),
    Fault("saturated", _S, _saturated, "plates carry more than they can weigh, so picks show in part"),
    Fault("NaN", _S, _around(1.0, 1.0, _not_numbers(np.nan)), "half of the samples are not numbers at picks"),
    Fault("infinite", _S, _around(1.0, 1.0, _not_numbers(np.inf)), "half of the samples are infinite at picks"),
    Fault("steps of 50 g", _S, _sampled(every, _coarse), "all plates round to 50 g"),
    Fault("gain drifts", _S, _drifting_gain, "the gain of plates rises by a third in the run"),
    Fault("spikes", _S, _sampled(one, _spiking), "every fiftieth sample of a plate is 5 kg off"),
    Fault("noise at picks", _S, _around(1.5, 1.5, _humming), "40 g of noise for 3 s at picks"),
    Fault("noise for good", _S, _sampled(gondola, _humming), "40 g of noise on a gondola"),
    Fault("a gondola 0.3 s behind", _S, _delayed(0.3, gondola), "one controller's clock is 0.3 s off"),
    Fault("a gondola 1 s behind", _S, _delayed(1.0, gondola), "one controller's clock is 1 s off"),
    Fault("plates 1 s behind", _S, _delayed(1.0, every), "all plates' clocks are 1 s off", warned=True),
    Fault("plates 1 s ahead", _S, _delayed(-1.0, every), "all plates' clocks are 1 s off, the other way", warned=True),
    Fault("messages late", _S, _late, "plates' messages arrive up to 1.8 s late, in any order"),
    Fault("messages twice", _S, _doubled, "every message arrives twice"),
    Fault("messages resent", _S, _resent, "a tenth of the messages hold the content of the one before"),
    Fault("times jitter", _S, _jittering, "messages are stamped as they arrive, 50 ms off"),
    Fault("a fifth lost", _S, _lossy(0.2), "a fifth of all messages is lost"),
)
