"""Where a store's observations come from: a broker, a recording, a simulation, or a user's own source."""

from __future__ import annotations

import importlib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import ConfigError
from fusion.files.recordings import Recording
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.config import ServeConfig
from fusion.observations import GateScan, Observation
from fusion.results import Warning
from fusion.till.baskets import Basket
from fusion.till.till import Till

if TYPE_CHECKING:
    from fusion.simulation import Scenario

# After a start a source that is behind waits for the engine, rather than let the queue drop, for at most this long.
CATCH_UP_S = 15.0
# A source has caught up once it delivers within this much of an observation's due time.
PUNCTUAL_S = 0.0625
# Shorter sleeps than this would cost more than an engine's step at some hundred messages a second.
SLEEP_MIN_S = 0.004

_OPTIONS = {
    "recording": {"speed", "kept_s"},
    "mqtt": {"password_file", "ca"},
}  # fmt: skip
_DEFAULT_PACE = {"speed": 1.0, "kept_s": 10.0}


class Source(ABC):
    """A stream of observations, iterated in a thread of its own.

    The iteration ends when there is nothing more, or after `stop`. A source that fails raises FusionError; its process
    then writes a last snapshot and is started again.
    """

    @property
    def ignored(self) -> Counter[str]:
        """What could not be used, by reason."""
        return Counter()

    @property
    def n_dropped(self) -> int:
        """Messages that arrived and were dropped before they were read."""
        return 0

    @property
    def behind(self) -> bool:
        """Whether the current observation has waited for this process to start."""
        return False

    @property
    def live(self) -> bool:
        """Whether the times of its observations are meant to be those of now, to be compared with the machine's."""
        return False

    @property
    def catch_up_max_s(self) -> float:
        """How long after a start this source waits for the engine while it is behind."""
        return CATCH_UP_S

    @abstractmethod
    def __iter__(self) -> Iterator[Observation]: ...

    @abstractmethod
    def stop(self) -> None:
        """End the iteration soon; from any thread."""

    def hold(self, held: bool) -> None:  # noqa: B027
        """What it gives is taken late, and none of it may be lost; `held` is False once the engine has caught up.

        A no-op for sources that do not lose what is not taken. From any thread.
        """

    # The following are no-ops for sources at whose gates no person stands.

    def attach(self, context: SourceContext) -> None:  # noqa: B027
        """Take what the store's process offers, before the iteration begins: the till decides requests at gates."""

    def show(self, zone: str, baskets: Sequence[Basket], t_ns: int) -> None:  # noqa: B027
        """Show the baskets of everybody in a payment zone, at an instant, to be confirmed with the till."""


@dataclass(frozen=True)
class SourceContext:
    """What a store's process offers to its source.

    Attributes:
        till: decides requests at gates, and takes the confirmations of baskets.
        warn: takes a warning; from any thread.
        promise_scan: takes a scan before its gate opens, so that it survives a kill in between.
        clock: paces and bounds waits.
    """

    till: Till
    warn: Callable[[Warning], object]
    promise_scan: Callable[[GateScan], object]
    clock: Clock


class Pace(NamedTuple):
    """How data time maps to the clock.

    Attributes:
        speed: seconds of data a second.
        kept_s: data time before the process began for which observations are sent again.
    """

    speed: float
    kept_s: float


class PacedSource(Source):
    """Delivers observations at the pace of their own times, as sensors do, whether or not anything listens.

    Observations that were due before this process began come at once, as far back as the pace's `kept_s`: like a broker
    that keeps what was published while no engine was connected.
    """

    def __init__(
        self,
        observations: Callable[[], Iterable[Observation]],
        *,
        first_ns: int,
        since_ns: int,
        anchor_s: float,
        pace: Pace,
        ignored: Counter[str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Make a source.

        Args:
            observations: gives all observations, in time order.
            first_ns: time of the first of them, which is due at `anchor_s` of the clock.
            since_ns: earlier observations are left out.
            anchor_s: see `first_ns`.
            pace: how fast, and how far back.
            ignored: counts what could not be used, by reason.
            clock: paces the observations.
        """
        self._observations, self._clock = observations, clock
        self._ignored: Counter[str] = Counter() if ignored is None else ignored
        self._first_ns, self._since_ns, self._anchor_s, self._pace = first_ns, since_ns, anchor_s, pace
        self._stopped = threading.Event()
        self._behind = True

    @property
    def ignored(self) -> Counter[str]:
        """See `Source`."""
        return self._ignored

    @property
    def behind(self) -> bool:
        """See `Source`."""
        return self._behind

    def __iter__(self) -> Iterator[Observation]:
        speed, kept_s = self._pace
        started_s = self._clock.monotonic_s()
        for observation in self._observations():
            if observation.t_ns < self._since_ns:
                continue
            due_s = self._anchor_s + (observation.t_ns - self._first_ns) * 1e-9 / speed
            if (started_s - due_s) * speed > kept_s:
                continue
            ahead_s = due_s - self._clock.monotonic_s()
            if ahead_s > -PUNCTUAL_S:
                self._behind = False
            if ahead_s > SLEEP_MIN_S:
                self._clock.wait(self._stopped, ahead_s)
            if self._stopped.is_set():
                return
            yield observation

    def stop(self) -> None:
        """See `Source`."""
        self._stopped.set()


def check_source(config: ServeConfig) -> None:
    """Raise ConfigError if a source of this name and these options cannot exist."""
    where = f"store {config.store.id!r}: source"
    match config.source.partition(":")[0]:
        case "mqtt" | "mqtts":
            from fusion.live.connection import Broker

            Broker.of(config.source)
            known = _OPTIONS["mqtt"]
        case "recording":
            known = _OPTIONS["recording"]
            _pace_of(config)
        case "simulation":
            _scenario_of(config)
            return
        case "python" if config.source.count(":") == 2:
            return
        case _:
            wanted = "want mqtt://HOST, mqtts://HOST, recording:FOLDER, simulation or python:MODULE:FUNCTION"
            raise ConfigError(f"{where}: {wanted}, got {config.source!r}")
    faults = [f"{where}: options: {name}: unknown key" for name in sorted(config.options.keys() - known)]
    if faults:
        raise ConfigError(faults)


def open_source(config: ServeConfig, since_ns: int, context: SourceContext) -> Source:
    """Open a store's source, from an instant on as far as it can give that again.

    Raises:
        FusionError: it cannot be opened.
    """
    kind, _, location = config.source.partition(":")
    if kind in ("mqtt", "mqtts"):
        from fusion.live.broker_source import BrokerSource

        return BrokerSource(config, context)
    if kind == "python":
        module, _, function = location.partition(":")
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"store {config.store.id!r}: source {config.source!r}: {error}") from None
        source = make(config, since_ns)
        if not isinstance(source, Source):
            wanted = f"want {config.source!r} to return a fusion.live.sources.Source"
            raise ConfigError(f"store {config.store.id!r}: {wanted}, got {type(source).__name__}")
        source.attach(context)
        return source
    return paced_source(config, since_ns, context.clock)


def paced_source(config: ServeConfig, since_ns: int, clock: Clock = SYSTEM_CLOCK) -> PacedSource:
    """Open the recording or simulation that a configuration names. Raises FusionError."""
    kind, _, folder = config.source.partition(":")
    pace = _pace_of(config)
    if kind == "recording":
        recording = Recording(config.base / folder)
        first_ns = (recording.span_ns() or (0, 0))[0]
        observations: Callable[[], Iterable[Observation]] = partial(recording.observations, since_ns or None)
        return PacedSource(
            observations, first_ns=first_ns, since_ns=since_ns, anchor_s=config.anchor_s, pace=pace,
            ignored=recording.ignored, clock=clock,
        )  # fmt: skip
    from fusion.simulation.kinds import simulation_of

    scenario = _scenario_of(config)
    return PacedSource(
        simulation_of(config.store, scenario).observations, first_ns=scenario.start_ns, since_ns=since_ns,
        anchor_s=config.anchor_s, pace=pace, clock=clock,
    )  # fmt: skip


def _pace_of(config: ServeConfig) -> Pace:
    values = {}
    for name, default in _DEFAULT_PACE.items():
        value = config.options.get(name, default)
        if isinstance(value, bool | str) or not 0.0 <= value < 1e6 or (name == "speed" and not value):
            raise ConfigError(f"store {config.store.id!r}: options: {name}: want a number above 0, got {value!r}")
        values[name] = float(value)
    return Pace(**values)


def _scenario_of(config: ServeConfig) -> Scenario:
    from fusion.simulation import Scenario

    _pace_of(config)
    knobs: dict[str, Any] = {name: value for name, value in config.options.items() if name not in _DEFAULT_PACE}
    try:
        return Scenario(**knobs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"store {config.store.id!r}: options: {error}") from None
