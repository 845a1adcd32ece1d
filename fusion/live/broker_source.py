"""A store's streams over MQTT as the source of its process, with its gates' requests answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fusion.gates.accepted import accepted_credentials
from fusion.gates.keeper import Decision, GateKeeper
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import GateRequest, Verifier
from fusion.live.config import ServeConfig
from fusion.live.connection import Broker, broker_password, text_of
from fusion.live.mqtt import Live
from fusion.live.sources import Source, SourceContext
from fusion.observations import Observation
from fusion.store.models import Store

# A connection needs this long to settle after a start; until then the engine is allowed to be behind.
STARTING_S = 5.0


class BrokerSource(Source):
    """Observations from a broker; scans are promised to the checkpoint before their gate opens."""

    def __init__(self, config: ServeConfig, context: SourceContext) -> None:
        """Read the files that the options name; connects when the iteration begins.

        Raises:
            FusionError: a file cannot be read, or the extra `mqtt` or `gate` is missing.
        """
        self._context = context
        self._pseudonyms = Pseudonyms(context.ledger)
        self._verifiers = _verifiers_of(config, self._pseudonyms)
        self._keeper = GateKeeper(config.store, self._verifiers)
        password_file = _file(config, "password_file")
        password = broker_password(password_file) if password_file is not None else None
        broker = Broker.of(config.source, password, _file(config, "ca"))
        self._live = Live(broker, config.store, decide=self.decide, warn=context.warn, clock=context.clock)
        self._started_s = context.clock.monotonic_s()

    def decide(self, request: GateRequest) -> Decision:
        """Decide a request at a gate; the scan of a person who may enter is on disk before the gate opens."""
        decision = self._keeper.scan(request)
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

    def stop(self) -> None:
        """See `Source`."""
        self._live.stop()

    def adopt(self, store: Store) -> None:
        """See `Source`."""
        self._keeper.adopt(store)

    def visit_began(self, account: str | None) -> None:
        """See `Source`."""
        self._pseudonyms.entered(account)

    def visit_ended(self, account: str | None) -> None:
        """See `Source`."""
        self._pseudonyms.left(account)


def _verifiers_of(config: ServeConfig, pseudonyms: Pseudonyms) -> dict[str, Verifier]:
    """Who may enter, by kind of credential, as the source's options say."""
    staff_list = _file(config, "staff_list")
    tokens = text_of(staff_list, "tokens, one a line") if staff_list is not None else None
    return accepted_credentials(config.store.id, pseudonyms, config.folder, _file(config, "code_key"), tokens)


def _file(config: ServeConfig, name: str) -> Path | None:
    """The file that an option names, relative to the configuration; None without the option."""
    return config.base / str(config.options[name]) if name in config.options else None
