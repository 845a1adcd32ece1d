"""The front of one live store: its streams over MQTT, who may come in, and a recording of what is used."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.recordings import RecordingWriter
from fusion.gates.accepted import accepted_credentials
from fusion.gates.keeper import GateKeeper
from fusion.gates.pseudonyms import Pseudonyms
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.connection import Broker, broker_password, text_of
from fusion.live.mqtt import Live
from fusion.live.time_watch import TimeWatch
from fusion.money.ledger import Ledger
from fusion.observations import Observation
from fusion.results import People, PersonEntered, Receipt, Result
from fusion.runner.front import Front
from fusion.runner.settings import LiveSettings
from fusion.store.models import Store

# A recording is written in files of this length: a crash costs at most the file that was open.
SEGMENT_S = 60.0


class LiveFront(Front):
    """Brings the streams in, answers at gates, and keeps everything that a replay needs.

    Attributes:
        streams: the observations, and counts of messages that could not be used.
    """

    def __init__(
        self, store: Store, ledger: Ledger, settings: LiveSettings, out: Path, report: Callable[[Result], object]
    ) -> None:
        """Make the streams; they connect once they are iterated.

        Args:
            store: the store.
            ledger: its books.
            settings: how it is reached.
            out: folder for used codes.
            report: gets warnings about streams, in the thread that iterates them.

        Raises:
            FusionError: a file of the settings cannot be used.
        """
        super().__init__(store, ledger)
        self.tap = self._record
        self._pseudonyms = Pseudonyms(ledger)
        password = broker_password(settings.password_file)
        keeper = self._gate_keeper(settings, out)
        broker = Broker.of(settings.broker, password, settings.authorities)
        self.streams = Live(broker, store, decide=keeper.scan, warn=report)
        self.counts = self.streams
        self._report, self._time_watch = report, TimeWatch(store.id, SYSTEM_CLOCK)
        self._writer = self._recording_writer(settings.record) if settings.record is not None else None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: object) -> None:
        # The observations that came in are processed to the end, so that their recording gives the same results. A
        # second signal ends the run at once.
        self.streams.stop()
        signal.signal(number, signal.default_int_handler)

    def _gate_keeper(self, settings: LiveSettings, out: Path) -> GateKeeper:
        """Who may come in: everybody where the door is open, payment tokens from a terminal, signed codes, staff."""
        staff_list = text_of(settings.staff_list, "tokens, one a line") if settings.staff_list else None
        verifiers = accepted_credentials(self.store.id, self._pseudonyms, out, settings.code_key, staff_list)
        return GateKeeper(self.store, verifiers)

    def _recording_writer(self, folder: Path) -> RecordingWriter:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FusionError(f"{folder} is not a new or empty folder; pass another one, since a run is one recording")
        return RecordingWriter(folder, self.store, segment_s=SEGMENT_S)

    def observations(self, observations: Iterable[Observation]) -> Iterable[Observation]:
        """The streams."""
        del observations
        return self.streams

    def _record(self, observation: Observation) -> None:
        """Keep an observation that the engine uses. A full disk ends the recording, not the run."""
        if self._writer is not None:
            try:
                self._writer.write(observation)
            except OSError as error:
                self._end_recording(error)

    def handle(self, result: Result, engine: Engine) -> Result:
        """Book the result. The pseudonym of an account lasts as long as its visit."""
        result = super().handle(result, engine)
        match result:
            case People():
                self._watch_time(engine)
            case PersonEntered(visit=str()):
                self._pseudonyms.entered(result.account)
            case Receipt():
                self._pseudonyms.left(result.account)
        return result

    def _watch_time(self, engine: Engine) -> None:
        """Compare data time with the machine's, and report where they differ for long."""
        warning = self._time_watch.observe(engine.newest_ns, live=True, behind=not self.streams.caught_up)
        self.time_off_s = self._time_watch.off_s
        if warning is not None:
            self._report(warning)

    def close(self, t_ns: int) -> list[str]:
        """Complete the recording."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._end_recording(error)
        return super().close(t_ns)

    def _end_recording(self, error: OSError) -> None:
        self._writer = None
        print(f"fusion run: the recording has ended, but the run continues: {error}", file=sys.stderr)
