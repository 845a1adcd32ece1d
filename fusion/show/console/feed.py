"""The feed of a running store to its consoles: JSON lines over a socket that only this user of this machine can open.

The runner pays for one line ten times a second, however many consoles there are; a console that reads too slowly is cut
off and connects again. Nothing here changes what the engine does.
"""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.errors import FusionError
from fusion.results import (
    EarlyReceipt,
    Evidence,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    Result,
    RunEnd,
    ShelfEventExplained,
    ShelfStatus,
    Warning,
    WarningKind,
)
from fusion.sentences import reason_text, sentence
from fusion.show.sensors import CameraCondition

if TYPE_CHECKING:
    from fusion.engine import Engine
    from fusion.store.models import Store
    from fusion.till.baskets import Basket
    from fusion.till.till import GateAnswer

STATES_PER_S = 10
HEALTH_EVERY_S = 10.0
# What lies where changes with every load, and people look at it a few times a day.
SHELVES_EVERY_S = 30.0
SHELVES_MAX, LINKS_MAX = 400, 200
ACCEPT_EVERY_S = 0.5
# The past that a console is sent when it connects.
EVENTS_KEPT, ALERTS_KEPT, RECEIPTS_KEPT = 40, 60, 40
# Unread bytes at which a console is cut off: some seconds of a full store.
UNREAD_MAX_BYTES = 1 << 20
READERS_MAX = 16
CLOSE_MAX_S = 0.5
NO_CREDENTIAL = "no credential"


@dataclass
class _Visit:
    """An open visit: how pages call it, and what its cart seems to hold."""

    label: str
    cart: Counter[str] = field(default_factory=Counter)


@dataclass
class _Reader:
    """A console that is connected."""

    socket: socket.socket
    unread: bytearray


class _Shop:
    """What changes seldom: who is who, what they carry, who passed the gates."""

    def __init__(self, store: Store) -> None:
        self._staff: set[int] = set()
        self._visit_of_track: dict[int, str] = {}
        self._visits: dict[str, _Visit] = {}
        self._gates: dict[str, list[Any]] = {gate.id: [None, ""] for gate in store.gate}
        self._counts = Counter(entered=0, left=0)

    def enter(self, entered: PersonEntered) -> None:
        self._counts["entered"] += 1
        if entered.staff:
            self._staff.add(entered.track_id)
        elif entered.visit is not None:
            self._visit_of_track[entered.track_id] = entered.visit
            visit = self._visits.setdefault(entered.visit, _Visit(""))
            visit.label = entered.account or NO_CREDENTIAL
        self._pass(entered.gate, entered.t_ns, "in")

    def leave(self, left: PersonLeft) -> None:
        self._counts["left"] += 1
        self._visit_of_track.pop(left.track_id, None)
        self._staff.discard(left.track_id)
        self._pass(left.gate, left.t_ns, "out")

    def _pass(self, gate: str | None, t_ns: int, direction: str) -> None:
        if gate in self._gates:
            self._gates[gate] = [_ms(t_ns), direction]

    def move(self, visit: str | None, gtin: str, pieces: int) -> str:
        """Put pieces into a cart, or take them out. Returns how pages call the person."""
        shopper = self._visits.get(visit or "")
        if shopper is None:
            return "an unidentified visitor"
        shopper.cart[gtin] += pieces
        return shopper.label

    def label(self, receipt: Receipt) -> str:
        """How pages call a visit."""
        visit = self._visits.get(receipt.visit)
        return visit.label if visit is not None else receipt.account or NO_CREDENTIAL

    def end(self, receipt: Receipt) -> str:
        """Forget a visit that has its receipt. Returns how pages call it."""
        label = self.label(receipt)
        self._visits.pop(receipt.visit, None)
        return label

    def line(self) -> str:
        who: dict[int, tuple[str, str | None]] = {
            **{track: ("shopper", visit) for track, visit in self._visit_of_track.items()},
            **{track: ("staff", None) for track in self._staff},
        }
        carts = [
            [name, visit.label, [[gtin, n] for gtin, n in visit.cart.items() if n > 0]]
            for name, visit in self._visits.items()
        ]
        return _line("shop", {"who": who, "carts": carts, "gates": self._gates, "counts": self._counts})


# Warnings by which something outside the engine fails, with the word that pages show, and those by which it is back.
_LINK_FAULTS = {
    WarningKind.BROKER_LOST: "lost",
    WarningKind.PUBLISHER_LOST: "lost",
    WarningKind.PUBLISHER_STOPPED: "stopped",
    WarningKind.PUBLISHER_SILENT: "silent",
    WarningKind.SENSORS_SILENT: "silent",
    WarningKind.SENSOR_AHEAD: "clock ahead",
    WarningKind.SENSOR_BEHIND: "clock behind",
    WarningKind.OVERLOAD: "overload",
    WarningKind.CREDENTIALS_UNREADABLE: "unreadable",
}
_LINK_BACK = frozenset({
    WarningKind.BROKER_BACK, WarningKind.PUBLISHER_BACK, WarningKind.SENSORS_BACK, WarningKind.SENSOR_IN_TIME,
    WarningKind.OVERLOAD_OVER,
})  # fmt: skip


class _Since:
    """Since when each sensor and link has been in its present state, by data time in milliseconds."""

    def __init__(self) -> None:
        self.start_ms: int | None = None
        self._faults: dict[str, tuple[str, int]] = {}
        self._links: dict[str, tuple[str, int]] = {}

    def row(self, name: str, fault: str, now_ms: int) -> list[Any]:
        """A sensor, its fault, and since when that has been so."""
        known = self._faults.get(name)
        if known is None or known[0] != fault:
            began_ms = now_ms if known is not None or fault else self.start_ms or now_ms
            self._faults[name] = known = (fault, began_ms)
        return [name, fault, known[1]]

    def warn(self, warning: Warning) -> None:
        """Note a warning about a link."""
        is_fault = warning.kind in _LINK_FAULTS
        if is_fault or warning.kind in _LINK_BACK:
            subject = str(warning.subject)
            fault = _LINK_FAULTS[warning.kind] if is_fault else ""
            if self._links.get(subject, ("", 0))[0] != fault:
                self._links.pop(subject, None)
                self._links[subject] = (fault, _ms(warning.t_ns))
            while len(self._links) > LINKS_MAX:
                del self._links[next(iter(self._links))]

    def links(self) -> list[list[Any]]:
        """What was reported about links: each with its fault, "" where it is back, and since when."""
        return [[subject, fault, ms] for subject, (fault, ms) in self._links.items()]


class LiveFeed:
    """The runner's side. Give it every result; it never waits for a console.

        with LiveFeed(store, engine, "out/live.sock") as feed:
            for result in run.results():
                feed.add(result)

    Attributes:
        path: of the socket.
        dropped: consoles that were cut off because they read too slowly.
        time_fault: how data time differs from the machine's, for the page; "" where it does not.
        waits: what the store waits for in place, for the page; "" while it does not.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        path: str | Path,
        clock_s: Callable[[], float] = time.monotonic,
        unread_max_bytes: int = UNREAD_MAX_BYTES,
    ) -> None:
        """Begin to listen.

        Args:
            store: the store of the run.
            engine: asked for health; not changed.
            path: of the socket; created with rights for this user alone. A socket that a dead runner left is replaced.
            clock_s: paces the states, since people watch in real time even where a recording runs faster.
            unread_max_bytes: a console with more unread bytes is cut off.

        Raises:
            FusionError: another file is at the path, another runner listens there, or the path is too long.
        """
        self.path = Path(path)
        self.dropped = 0
        self.time_fault = self.waits = ""
        self._store, self._engine = store, engine
        self._clock_s, self._unread_max_bytes = clock_s, unread_max_bytes
        self._shop = _Shop(store)
        self._past = {
            "event": deque[str](maxlen=EVENTS_KEPT),
            "alert": deque[str](maxlen=ALERTS_KEPT),
            "receipt": deque[str](maxlen=RECEIPTS_KEPT),
            "early": deque[str](maxlen=RECEIPTS_KEPT),
        }
        self._next_s = self._next_health_s = self._next_accept_s = self._next_shelves_s = 0.0
        self._since, self._now_ms, self._shelves = _Since(), 0, ""
        self._changed = True
        self._baskets: dict[str, str] = {}
        self._readers: list[_Reader] = []
        self._listener = _listening(self.path)

    @property
    def n_readers(self) -> int:
        """Consoles that are connected."""
        return len(self._readers)

    @property
    def n_unread(self) -> int:
        """Bytes that consoles have not read yet."""
        return sum(len(reader.unread) for reader in self._readers)

    def add(self, result: Result | RunEnd) -> None:
        """Take one result, in the order in which the engine answers; a sink of `fusion.run`."""
        if isinstance(result, People):
            self._send_state(result)
            return
        self._changed |= not isinstance(result, Warning | ShelfEventExplained | Evidence | RunEnd)
        match result:
            case PersonEntered():
                self._shop.enter(result)
            case PersonLeft():
                self._shop.leave(result)
                if result.gate is not None and result.visit is not None:
                    self._send_now(_line("left", [_ms(result.t_ns), result.gate, result.visit]))
            case Picked() | PutBack():
                pieces = result.quantity if isinstance(result, Picked) else -result.quantity
                label = self._shop.move(result.visit, result.gtin, pieces)
                row = [_ms(result.t_ns), result.plate, result.gtin, -pieces, label, result.probability]
                self._publish("event", row)
            case Receipt():
                row = [_ms(result.issued_ns), result.visit, self._shop.end(result), result.status, result.total]
                row += [reason_text(result.reasons, self._store), [reason.kind for reason in result.reasons]]
                self._publish("receipt", row)
            case EarlyReceipt(receipt=early):
                row = [_ms(early.issued_ns), early.visit, self._shop.label(early), early.status, early.total]
                self._publish("early", [*row, round(result.correction_probability, 6)])
            case Warning():
                self._since.warn(result)
                self._publish("alert", [_ms(result.t_ns), result.kind, result.subject, sentence(result, self._store)])

    def show_answer(self, answer: GateAnswer) -> None:
        """What a gate answered, for the screen beside it; a person's name on it is what the gate shows them."""
        decision = answer.decision
        kind = "open" if decision.open else "moment" if decision.again_s is not None else "shut"
        way = "out" if answer.leaving else "in"
        self._send_now(_line("gate", [_ms(answer.t_ns), answer.gate, way, kind, decision.display, decision.reason]))

    def show_baskets(self, place: str, baskets: Sequence[Basket], t_ns: int) -> None:
        """The baskets of everybody in a payment zone (`zone/ID`) or at a paying door (`gate/ID`), for its screen."""
        rows = [
            [basket.visit, basket.total, [[line.gtin, line.quantity, line.unit_price] for line in basket.lines]]
            for basket in baskets
        ]
        self._baskets[place] = _line("baskets", [_ms(t_ns), place, rows])
        self._send_now(self._baskets[place])

    def _send_now(self, line: str) -> None:
        if self._readers:
            self._send(line)

    def follow(self, engine: Engine) -> None:
        """Ask another engine for health from now on: one that resumes in the place of the first."""
        self._engine = engine

    def _send_state(self, people: People) -> None:
        now_s = self._clock_s()
        if now_s < self._next_s:
            return
        # At most STATES_PER_S, whatever the pace of the data; no catching up after a pause.
        self._next_s = max(self._next_s + 1.0 / STATES_PER_S, now_s)
        self._now_ms = _ms(people.t_ns)
        if self._since.start_ms is None:
            self._since.start_ms = self._now_ms
        health = ""
        if now_s >= self._next_health_s:
            # Also while no console is there: it will ask since when a sensor has been silent.
            self._next_health_s = now_s + HEALTH_EVERY_S
            health = self._health()
        if now_s >= self._next_accept_s:
            self._next_accept_s = now_s + ACCEPT_EVERY_S
            self.accept()
        if not self._readers:
            return
        if self._changed:
            self._changed = False
            self._send(self._shop.line())
        self._send(_state_line(people))
        if health:
            self._send(health)
        if now_s >= self._next_shelves_s:
            self._next_shelves_s = now_s + SHELVES_EVERY_S
            self._shelves = self._shelf_line()
            self._send(self._shelves)

    def wait(self, waits: str) -> None:
        """Show what the store waits for in place, in words; "" once it continues. Consoles may connect meanwhile."""
        self.accept()
        if waits != self.waits:
            self.waits = waits
            self._send(self._health())
        else:
            self.flush()

    def _health(self) -> str:
        """Cameras, plates that are at fault or were, links and the clock, each with since when."""
        health, since, now_ms = self._engine.health(), self._since, self._now_ms
        cameras = []
        for camera in health.cameras:
            condition = CameraCondition.of(camera)
            fault = "" if condition is CameraCondition.FINE else condition.words
            cameras.append(since.row(camera.name, fault, now_ms))
        plates = [since.row(plate.name, plate.fault, now_ms) for plate in health.plates]
        time_fault = ", ".join(filter(None, (self.waits, self.time_fault)))
        content = {
            "cameras": cameras,
            "plates": [row for row in plates if row[1] or row[2] != since.start_ms],
            "links": since.links(),
            "time": time_fault,
            "time_since": since.row("clock of the machine", time_fault, now_ms)[2],
            "ms": now_ms,
            "since": since.start_ms,
            "step_us": self._engine.step_times.summary_us(),
        }
        return _line("health", content)

    def _shelf_line(self) -> str:
        """What is empty, misplaced or overdrawn: [plate, gtin, status, pieces]."""
        rows = [
            [count.plate, count.gtin, count.status, count.pieces]
            for count in self._engine.shelf_state()
            if count.status is not ShelfStatus.OK
        ]
        return _line("shelves", {"ms": self._now_ms, "rows": rows[:SHELVES_MAX]})

    def _publish(self, kind: str, row: list[Any]) -> None:
        line = _line(kind, row)
        self._past[kind].append(line)
        self._send_now(line)

    def accept(self) -> None:
        """Let in the consoles that wait; `add` does so twice a second."""
        with suppress(BlockingIOError):
            while len(self._readers) < READERS_MAX:
                console, _ = self._listener.accept()
                console.setblocking(False)
                past = "".join(line for lines in (*self._past.values(), self._baskets.values()) for line in lines)
                unread = bytearray((past + self._health() + self._shelves + self._shop.line()).encode())
                self._readers.append(_Reader(console, unread))

    def flush(self) -> None:
        """Send as much as consoles can take now; `add` does so with every line."""
        self._send("")

    def _send(self, line: str) -> None:
        data = line.encode()
        kept = []
        for reader in self._readers:
            reader.unread += data
            try:
                del reader.unread[: reader.socket.send(reader.unread)]
            except BlockingIOError:
                pass
            except OSError:
                reader.socket.close()
                continue
            if len(reader.unread) > self._unread_max_bytes:
                self.dropped += 1
                reader.socket.close()
                continue
            kept.append(reader)
        self._readers = kept

    def close(self) -> None:
        """Stop; a console that is still reading gets the lines that it has not read yet."""
        for reader in self._readers:
            with suppress(OSError):
                reader.socket.settimeout(CLOSE_MAX_S)
                reader.socket.sendall(reader.unread)
            reader.socket.close()
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


# Made once, since `json.dumps` with options makes an encoder for every call.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _line(kind: str, content: Any) -> str:
    return _json({kind: content}) + "\n"


def _state_line(people: People) -> str:
    """Where everybody is: arrays in hexadecimal, since as text they would cost several times as much."""
    arrays = (people.track_id, people.confirmed, people.position_m)
    packed = '","'.join(array.tobytes().hex() for array in arrays)
    return f'{{"at":[{_ms(people.t_ns)},"{packed}"]}}\n'


def _listening(path: Path) -> socket.socket:
    """A socket at a path that accepts connections of this user."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise FusionError(f"{path}: a file that is not a socket is in the way; remove it")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial, suppress(OSError):
                trial.connect(str(path))
                raise FusionError(f"{path}: another runner listens on this socket; stop it or choose another path")
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
        raise FusionError(f"{path}: the socket cannot be created: {error}") from None
    except FusionError:
        listener.close()
        raise
    return listener


class FloorReader:
    """The console's side of "shop" and "at" lines: combines them into the states that pages draw."""

    def __init__(self) -> None:
        self._who: dict[str, Any] = {}
        self._rest = '"carts":[],"gates":{},"counts":{}'

    def shop(self, line: str) -> None:
        """Take in a line of what changes seldom. Raises ValueError, KeyError or TypeError where it is garbled."""
        shop = json.loads(line)["shop"]
        rest = _json({key: shop[key] for key in ("carts", "gates", "counts")})[1:-1]
        self._who, self._rest = shop["who"], rest

    def at(self, line: str) -> str:
        """The state for pages after a line of places. Raises ValueError, KeyError or TypeError where it is garbled."""
        ms, *packed = json.loads(line)["at"]
        tracks, confirmed, places_m = (
            np.frombuffer(bytes.fromhex(text), kind) for text, kind in zip(packed, ("int64", "bool", "float64"))
        )
        rows = []
        for track, sure, (x, y) in zip(tracks.tolist(), confirmed.tolist(), places_m.reshape(-1, 2).tolist()):
            if sure and not math.isnan(x) and not math.isnan(y):
                rows.append([track, round(100 * x), round(100 * y), *self._who.get(str(track), ("unknown", None))])
        return f'{{"state":{{"ms":{int(ms)},"people":{_json(rows)},{self._rest}}}}}'
