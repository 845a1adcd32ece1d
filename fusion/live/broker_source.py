"""A store's streams over MQTT as the source of its process, with its gates' requests answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest
from fusion.live.config import ServeConfig
from fusion.live.connection import Broker, broker_password
from fusion.live.mqtt import Live
from fusion.live.sources import Source, SourceContext
from fusion.live.way_out import WayOut
from fusion.live.zone_terminal import baskets_payload
from fusion.observations import Observation
from fusion.till.baskets import Basket

# A connection needs this long to settle after a start; until then the engine is allowed to be behind.
STARTING_S = 5.0


class BrokerSource(Source):
    """Observations from a broker; scans are promised to the checkpoint before their gate opens."""

    def __init__(self, config: ServeConfig, context: SourceContext) -> None:
        """Read the files that the options name; connects when the iteration begins.

        Raises:
            FusionError: a file cannot be read, or the extra `mqtt` is missing.
        """
        self._context = context
        broker = broker_of(config)
        self._live = Live(
            broker, config.store, decide=self.decide, confirm=context.till.confirm, warn=context.warn,
            clock=context.clock,
        )  # fmt: skip
        self._started_s = context.clock.monotonic_s()

    def decide(self, request: GateRequest) -> Decision:
        """Decide a request at a gate; the scan of a person who may enter is on disk before the gate opens."""
        decision = self._context.till.decide(request)
        if decision.scan is not None:
            self._context.promise_scan(decision.scan)
        return decision

    @property
    def ignored(self) -> Counter[str]:
        """See `Source`."""
        return self._live.ignored

    @property
    def n_dropped(self) -> int:
        """See `Source`."""
        return self._live.n_dropped

    @property
    def live(self) -> bool:
        """See `Source`."""
        return True

    @property
    def behind(self) -> bool:
        """See `Source`."""
        # `Live` delivers what it held back as fast as it is taken.
        return not self._live.caught_up or self._context.clock.monotonic_s() - self._started_s < STARTING_S

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._live)

    def show(self, zone: str, baskets: Sequence[Basket], t_ns: int) -> None:
        """See `Source`."""
        self._live.show(zone, baskets_payload(self._context.till.store, baskets, t_ns))

    def hold(self, held: bool) -> None:
        """See `Source`."""
        self._live.hold(held)

    def stop(self) -> None:
        """See `Source`."""
        self._live.stop()


def broker_of(config: ServeConfig) -> Broker:
    """The broker of a store that is served over MQTT. Raises FusionError."""
    password = broker_password(_file(config, "password_file"))
    return Broker.of(config.source, password, _file(config, "ca"))


def way_out_of(config: ServeConfig) -> WayOut | None:
    """What lets people out of a store while its process is dead; None for sources without gates. Raises FusionError."""
    if config.source.partition(":")[0] not in ("mqtt", "mqtts"):
        return None
    return WayOut(broker_of(config), config.store)


def _file(config: ServeConfig, name: str) -> Path | None:
    """The file that an option names, relative to the configuration; None without the option."""
    return config.base / str(config.options[name]) if name in config.options else None
