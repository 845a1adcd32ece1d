"""Where converted observations go: the broker of a store, or a recording.

Both take observations as they arrive and never wait for a network. A recording is in order of time, whatever the order
of arrival: it passes through the same `Reorder` as a live engine's streams, so that a clock that is wrong moves nothing
but its own rows, which are counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Protocol

from fusion.errors import ConfigError, FusionError, ShapeError
from fusion.files.recordings import RecordingWriter
from fusion.live.connection import Broker
from fusion.live.publisher import Publisher
from fusion.observations import Observation
from fusion.order import ClocksSetBack, Reorder
from fusion.store.models import Store

# As long as a live engine waits for late messages.
LATENESS_MAX_S = 2.0
# One file of a recording holds this many seconds, so that a crash costs no more.
SEGMENT_S = 60.0


class Destination(Protocol):
    """Takes observations of one store."""

    @property
    def state(self) -> str:
        """In a word or two, for people."""
        ...

    @property
    def lost(self) -> Counter[str]:
        """Observations or messages that did not get there, by reason. A copy."""
        ...

    def take(self, observation: Observation) -> None:
        """Take an observation. Raises ShapeError where its arrays do not fit a message."""
        ...

    def close(self) -> None:
        """Complete what has been taken."""
        ...


class ToBroker:
    """Publishes to a store's broker, on the topics of docs/mqtt.md."""

    def __init__(self, broker: Broker, store: Store, name: str) -> None:
        """Start to publish; see `Publisher`. Raises ConfigError, or FusionError without the extra `mqtt`."""
        self._publisher = Publisher(broker, store.id, name)

    @property
    def state(self) -> str:
        """See `Destination`."""
        return self._publisher.state

    @property
    def lost(self) -> Counter[str]:
        """See `Destination`."""
        dropped = self._publisher.dropped
        return Counter({"queue full": dropped}) if dropped else Counter()

    def take(self, observation: Observation) -> None:
        """See `Destination`."""
        self._publisher.publish(observation)

    def close(self) -> None:
        """See `Destination`."""
        self._publisher.close()


class ToRecording:
    """Writes a recording of the file contract."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Start a recording. Raises ConfigError where the folder is in use."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not a new or empty folder; pass another one, since a run is one recording")
        self._writer = RecordingWriter(folder, store, segment_s=SEGMENT_S)
        self._order = Reorder(LATENESS_MAX_S)
        self._written_ns: dict[type, int] = {}
        self._lost: Counter[str] = Counter()

    @property
    def state(self) -> str:
        """See `Destination`."""
        return "recording"

    @property
    def lost(self) -> Counter[str]:
        """See `Destination`."""
        return self._lost + self._order.ignored

    def take(self, observation: Observation) -> None:
        """See `Destination`."""
        self._order.push(observation)
        self._write(self._order.ready())

    def close(self) -> None:
        """See `Destination`."""
        try:
            self._write(self._order.flush())
        finally:
            self._writer.close()

    def _write(self, released: list[Observation | ClocksSetBack]) -> None:
        for observation in released:
            if isinstance(observation, ClocksSetBack):
                continue
            kind = type(observation)
            # The rows of a recording's stream are sorted; what all clocks show a second time has no place in it.
            if observation.t_ns < self._written_ns.get(kind, 0):
                self._lost["clocks were set back"] += 1
                continue
            try:
                self._writer.write(observation)
            except OSError as error:
                raise FusionError(f"{self._writer.folder}: the recording cannot be written: {error}") from None
            except ShapeError:
                self._lost["another shape than the store's"] += 1
                continue
            self._written_ns[kind] = observation.t_ns

