"""What a running store tells its consoles: JSON lines over a socket that only this user of this machine can open.

The runner pays for one line ten times a second, however many consoles there are; a console that reads too slowly is let
go and comes again. Nothing here changes what the engine does.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.errors import FusionError
from fusion.results import (
    Evidence,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    Result,
    ShelfEventExplained,
    Warning,
)
from fusion.sentences import reason_text, sentence

if TYPE_CHECKING:
    from fusion.engine import Engine
    from fusion.store.models import Store

STATES_PER_S = 10
HEALTH_EVERY_S = 10.0
ACCEPT_EVERY_S = 0.5
# What somebody who comes later is told of the past.
EVENTS_KEPT, ALERTS_KEPT, RECEIPTS_KEPT = 40, 60, 40
# Unread bytes at which a console is let go: some seconds of a full store.
UNREAD_MAX_BYTES = 1 << 20
READERS_MAX = 16
CLOSE_MAX_S = 0.5


class LiveFeed:
    """The runner's side. Give it every result; it never waits for anybody.

        with LiveFeed(store, engine, "out/live.sock") as feed:
            for result in run.results():
                feed.add(result)

    Attributes:
        dropped: readers that were let go because they read too slowly.
    """

    def __init__(
        self, store: Store, engine: Engine, path: str | Path, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to listen.

        Args:
            store: whose run it is.
            engine: asked for health; not changed.
            path: of the socket; made with rights for this user alone. A socket that a dead runner left is replaced.
            clock_s: paces the states; people look at real time, also where a recording runs faster.

        Raises:
            FusionError: something else lies there, another runner listens, or the path is too long for a socket.
        """
        self.path = Path(path)
        self.dropped = 0
        self._engine, self._clock_s = engine, clock_s
        self._staff: set[int] = set()
        self._visit_of: dict[int, str] = {}
        self._label: dict[str, str] = {}
        self._carts: dict[str, Counter[str]] = {}
        self._gates: dict[str, list[Any]] = {gate.id: [None, ""] for gate in store.gate}
        self._counts = Counter(entered=0, left=0)
        self._step_us: dict[str, float] = {}
        self._past = {
            "event": deque[str](maxlen=EVENTS_KEPT),
            "alert": deque[str](maxlen=ALERTS_KEPT),
            "receipt": deque[str](maxlen=RECEIPTS_KEPT),
        }
        self._next_s = self._next_health_s = self._next_accept_s = 0.0
        self._changed = True
        self._readers: list[tuple[socket.socket, bytearray]] = []
        self._listener = _listening(self.path)

    def add(self, result: Result) -> None:
        """Take in one result, in the order in which the engine gives them."""
        if isinstance(result, People):
            self._state(result)
            return
        self._changed |= not isinstance(result, Warning | ShelfEventExplained | Evidence)
        match result:
            case PersonEntered():
                self._counts["entered"] += 1
                if result.staff:
                    self._staff.add(result.track_id)
                elif result.visit is not None:
                    self._visit_of[result.track_id] = result.visit
                    self._label[result.visit] = result.account or "no credential"
                    self._carts.setdefault(result.visit, Counter())
                self._passed(result.gate, result.t_ns, "in")
            case PersonLeft():
                self._counts["left"] += 1
                self._visit_of.pop(result.track_id, None)
                self._staff.discard(result.track_id)
                self._passed(result.gate, result.t_ns, "out")
            case Picked() | PutBack():
                pieces = result.quantity if isinstance(result, Picked) else -result.quantity
                if result.visit in self._carts:
                    self._carts[result.visit][result.gtin] += pieces
                whose = self._label.get(result.visit or "", "somebody")
                self._tell("event", [_ms(result.t_ns), result.plate, result.gtin, -pieces, whose, result.probability])
            case Receipt():
                self._carts.pop(result.visit, None)
                whose = self._label.pop(result.visit, result.account or "no credential")
                told = [_ms(result.issued_ns), result.visit, whose, result.status, result.total]
                told += [reason_text(result.reasons), [reason.kind for reason in result.reasons]]
                self._tell("receipt", told)
            case Warning():
                self._tell("alert", [_ms(result.t_ns), result.kind, result.subject, sentence(result)])

    def follow(self, engine: Engine) -> None:
        """Ask another engine for health from now on: one that goes on in the place of the first."""
        self._engine = engine

    def _passed(self, gate: str | None, t_ns: int, way: str) -> None:
        if gate in self._gates:
            self._gates[gate] = [_ms(t_ns), way]

    def _state(self, people: People) -> None:
        now_s = self._clock_s()
        if now_s < self._next_s:
            return
        # At most so often, whatever the pace of the data; no catching up after a pause.
        self._next_s = max(self._next_s + 1.0 / STATES_PER_S, now_s)
        if now_s >= self._next_accept_s:
            self._next_accept_s = now_s + ACCEPT_EVERY_S
            self._accept()
        if not self._readers:
            return
        if self._changed:
            self._changed = False
            self._send(self._shop())
        # Ten times a second: arrays as they are, for the console to unpack. Text would cost several times as much.
        arrays = (people.track_id, people.confirmed, people.position_m)
        packed = '","'.join(array.tobytes().hex() for array in arrays)
        self._send(f'{{"at":[{_ms(people.t_ns)},"{packed}"]}}\n')
        if now_s >= self._next_health_s:
            self._next_health_s = now_s + HEALTH_EVERY_S
            self._send(self._health())

    def _shop(self) -> str:
        """What changes seldom: who is who, what they carry, gates."""
        who = {
            **{track: ("shopper", visit) for track, visit in self._visit_of.items()},
            **{track: ("staff", None) for track in self._staff},
        }
        carts = [
            [visit, self._label[visit], [[gtin, n] for gtin, n in cart.items() if n > 0]]
            for visit, cart in self._carts.items()
        ]
        return _line("shop", {"who": who, "carts": carts, "gates": self._gates, "counts": self._counts})

    def _health(self) -> str:
        health = self._engine.health()
        cameras = [
            [one.name, "down" if one.down else "moved" if one.moved else "misses people" if one.misses else ""]
            for one in health.cameras
        ]
        plates = [[one.name, one.fault] for one in health.plates if one.fault]
        times = self._engine.step_times
        return _line("health", {"cameras": cameras, "plates": plates, "step_us": times.summary_us()})

    def _tell(self, kind: str, row: list[Any]) -> None:
        line = _line(kind, row)
        self._past[kind].append(line)
        if self._readers:
            self._send(line)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while len(self._readers) < READERS_MAX:
                reader, _ = self._listener.accept()
                reader.setblocking(False)
                past = "".join(line for lines in self._past.values() for line in lines)
                self._readers.append((reader, bytearray((past + self._health() + self._shop()).encode())))

    def _send(self, line: str) -> None:
        data = line.encode()
        kept = []
        for reader, unread in self._readers:
            unread += data
            try:
                del unread[: reader.send(unread)]
            except BlockingIOError:
                pass
            except OSError:
                reader.close()
                continue
            if len(unread) > UNREAD_MAX_BYTES:
                self.dropped += 1
                reader.close()
                continue
            kept.append((reader, unread))
        self._readers = kept

    def close(self) -> None:
        """End; readers get what they have not read yet, if they read on."""
        for reader, unread in self._readers:
            with suppress(OSError):
                reader.settimeout(CLOSE_MAX_S)
                reader.sendall(unread)
            reader.close()
        self._readers = []
        self._listener.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def __enter__(self) -> LiveFeed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ms(t_ns: int) -> int:
    return t_ns // 1_000_000


# Made once: `json.dumps` with options makes one a call.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _line(kind: str, content: Any) -> str:
    return _json({kind: content}) + "\n"


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise FusionError(f"{path}: want a place for a socket, got a file that is none")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial, suppress(OSError):
                trial.connect(str(path))
                raise FusionError(f"{path}: want a place for a socket, got one on which another runner listens")
            path.unlink()
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(READERS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise FusionError(f"{path}: want a place for a socket, got: {error}") from None
    except FusionError:
        listener.close()
        raise
    return listener


class FloorReader:
    """The console's side of "shop" and "at" lines: puts them together to what a page draws."""

    def __init__(self) -> None:
        self._shop: dict[str, Any] = {"who": {}, "carts": [], "gates": {}, "counts": {}}
        self._slow = ""

    def shop(self, line: str) -> None:
        """Take in a line of what changes seldom. Raises ValueError, KeyError where it is none."""
        shop = json.loads(line)["shop"]
        self._slow = _json({key: shop[key] for key in ("carts", "gates", "counts")})[1:-1]
        self._shop = shop

    def at(self, line: str) -> str:
        """The state that a line of places makes, as a line for pages. Raises ValueError, KeyError where it is none."""
        ms, *packed = json.loads(line)["at"]
        tracks, known, places_m = (
            np.frombuffer(bytes.fromhex(text), kind) for text, kind in zip(packed, ("int64", "bool", "float64"))
        )
        who = self._shop["who"]
        rows = []
        for track, sure, (x, y) in zip(tracks.tolist(), known.tolist(), places_m.reshape(-1, 2).tolist()):
            if sure and x == x and y == y:
                rows.append([track, round(100 * x), round(100 * y), *who.get(str(track), ("unknown", None))])
        return f'{{"state":{{"ms":{int(ms)},"people":{_json(rows)},{self._slow}}}}}'
