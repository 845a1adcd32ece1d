"""One live store: its streams over MQTT, who may come in, and a recording of what was used."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fusion.errors import FusionError
from fusion.files.recordings import RecordingWriter
from fusion.gates.cards import CardTerminal
from fusion.gates.codes import CodeVerifier, UsedCodes, public_key
from fusion.gates.keeper import GateKeeper
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import OpenDoor, StaffList, Verifier
from fusion.live.mqtt import Broker, Live
from fusion.money.ledger import Ledger
from fusion.observations import Observation
from fusion.results import PersonEntered, Receipt, Result
from fusion.store.models import Store

SEGMENT_S = 60.0


def read(path: Path, wanted: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FusionError(f"{path}: want {wanted}, got: {type(error).__name__}") from None


class LiveFront:
    """Streams in, gates answered, and everything kept that a replay needs.

    Attributes:
        streams: the observations.
    """

    def __init__(
        self, args: argparse.Namespace, store: Store, ledger: Ledger, tell: Callable[[Result], object]
    ) -> None:
        self._pseudonyms = Pseudonyms(ledger)
        password = os.environ.get("FUSION_MQTT_PASSWORD")
        if args.mqtt_password_file:
            password = read(args.mqtt_password_file, "a password").rstrip("\r\n")
        keeper = self._keeper(args, store)
        self.streams = Live(Broker.of(args.mqtt, password, args.mqtt_ca), store, decide=keeper.scan, tell=tell)
        self._writer: RecordingWriter | None = None
        if args.record is not None:
            if args.record.exists() and (not args.record.is_dir() or any(args.record.iterdir())):
                raise FusionError(f"{args.record}: want a new or empty folder: one run, one recording")
            self._writer = RecordingWriter(args.record, store, segment_s=SEGMENT_S)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)

    def _end(self, number: int, _frame: object) -> None:
        # What was taken in is worked off in full, so that a recording of it gives the same; a second one ends at once.
        self.streams.stop()
        signal.signal(number, signal.default_int_handler)

    def _keeper(self, args: argparse.Namespace, store: Store) -> GateKeeper:
        """Who may come in: everybody where the door is open, payment tokens from a terminal, signed codes, staff."""
        verifiers: dict[str, Verifier] = {"open": OpenDoor(), "card": self._pseudonyms.behind(CardTerminal())}
        if args.code_key:
            code = CodeVerifier(public_key(args.code_key), store.id, UsedCodes(args.out / "used.sqlite"))
            verifiers["qr"] = self._pseudonyms.behind(code)
        if args.staff_list:
            verifiers["staff"] = StaffList(read(args.staff_list, "tokens, one a line").split())
        return GateKeeper(store, verifiers)

    def told(self, result: Result) -> None:
        """An account's pseudonym lasts as long as its visit."""
        match result:
            case PersonEntered(visit=str()):
                self._pseudonyms.entered(result.account)
            case Receipt():
                self._pseudonyms.left(result.account)

    def record(self, observation: Observation) -> None:
        """Keep an observation that the engine uses. A full disk ends the recording, not the run."""
        if self._writer is not None:
            try:
                self._writer.write(observation)
            except OSError as error:
                self._ended(error)

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._ended(error)

    def _ended(self, error: OSError) -> None:
        self._writer = None
        print(f"run_store.py: the recording has ended: {error}", file=sys.stderr)
