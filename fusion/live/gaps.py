"""Data lost between a store's sensors and its engine, and the receipts that the loss may affect.

Every stream reveals its own loss: after a restart by how far it had come when the snapshot was taken, under overload by
what was dropped from it. Silence of a sensor is no gap in this sense; the engine itself knows what that makes doubtful.
Measured by `python -m bench serve gaps`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusion.files.atomic import replace_file
from fusion.files.results import reason_of, reason_row
from fusion.people.scans import SCAN_VALID_S
from fusion.results import Reason, ReasonKind, Receipt
from fusion.sentences import sentence

# Up to this much beyond a stream's usual step may be missing without doubt: it looks like a short occlusion.
GAP_INTACT_S = 0.25
# A shelf event this shortly before an exit may still be attributed after it.
UNDECIDED_S = 10.0
# Gaps are remembered for at least this long, since a crossing may be reported late.
GAP_REMEMBERED_S = 60.0
# A large step of a stream is blamed on drops that were counted at most this long before.
SUSPECT_S = 5.0
# A person who is present is tracked, and observations are in order, at most this long after their time.
SETTLED_S = 3.0
# A stream that had been silent for this long when a snapshot was taken was lost before that.
ALIVE_S = 2.0
# Whatever is sent again after a restart has arrived by then; a stream that has not belongs to a sensor that is gone.
AWAITED_S = 15.0


class StreamPosition(NamedTuple):
    """How far a stream has come, as a snapshot records it.

    Attributes:
        newest_ns: time of its newest observation.
        step_ns: its usual step from one observation to the next; 0 where only one has arrived.
        awaited: whether the stream had still not resumed after an earlier restart.
    """

    newest_ns: int
    step_ns: int
    awaited: bool


@dataclass
class _Stream:
    """One stream: its newest time and usual step, and what was dropped from it.

    Attributes:
        awaited: its data have not resumed since a restart.
        n_dropped: drops of this process that are accounted for.
        suspect_until_ns: until this time a large step counts as caused by drops.
    """

    newest_ns: int
    step_ns: int
    awaited: bool = False
    n_dropped: int = 0
    suspect_until_ns: int = 0


@dataclass
class Gap:
    """A span of data that did not reach the engine whole.

    Attributes:
        start_ns, end_ns: span of the data that are missing or cannot be relied on.
        until_ns: visits that began until then, never before `end_ns`, may have been given another person's scan.
        kind: what happened.
    """

    start_ns: int
    end_ns: int
    until_ns: int
    kind: ReasonKind

    def reason(self) -> Reason:
        """Why a receipt that this affects goes to review."""
        return Reason(self.kind, seconds=(self.end_ns - self.start_ns) * 1e-9)

    def affects(self, receipt: Receipt) -> bool:
        """Whether a receipt may differ because of this gap."""
        return (receipt.enter_ns or 0) <= self.until_ns and receipt.exit_ns >= self.start_ns - UNDECIDED_S * 1e9

    def continues(self, start_ns: int, end_ns: int, kind: ReasonKind) -> bool:
        """Whether another span is of the same kind and at most a second away."""
        return self.kind is kind and self.start_ns - 10**9 <= end_ns and start_ns <= self.end_ns + 10**9


class Gaps:
    """Detects lost data by each stream's own times; doubts are kept in a file.

    Attributes:
        lost_s: the longest gap since this process began.
    """

    def __init__(self, path: Path, keep: Callable[[Callable[[], None]], None] = lambda write: write()) -> None:
        """Keep doubts in a file. keep: calls what writes it, again where the disk was full."""
        self._path, self._keep = path, keep
        self._gaps: list[Gap] = []
        self._reasons: dict[str, Reason] = {}  # doubts that concern one visit
        self._streams: dict[str, _Stream] = {}
        self._newest_ns = 0
        self.lost_s = 0.0

    def read(self) -> None:
        """Read the doubts of earlier processes. Raises ValueError."""
        if not self._path.exists():
            return
        doubts = json.loads(self._path.read_text(encoding="utf-8"))
        try:
            self._gaps = [
                Gap(int(start), int(end), int(until), ReasonKind(kind)) for start, end, until, kind in doubts["gaps"]
            ]
            self._reasons = {str(visit): reason_of(row) for visit, row in doubts["visits"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(error) from None

    def resume(self, positions: Mapping[str, StreamPosition], newest_ns: int) -> None:
        """Await, after a start, the streams that were alive when the snapshot was taken."""
        alive_ns = newest_ns - ALIVE_S * 1e9
        for name, position in positions.items():
            if position.awaited or position.newest_ns > alive_ns:
                self._streams[name] = _Stream(position.newest_ns, position.step_ns, awaited=True)
        self._newest_ns = newest_ns

    def positions(self) -> dict[str, StreamPosition]:
        """How far each stream has come."""
        return {
            name: StreamPosition(stream.newest_ns, stream.step_ns, stream.awaited)
            for name, stream in self._streams.items()
        }

    def observe(self, name: str, t_ns: int, n_dropped: int) -> str:
        """Take note of an observation that the engine uses.

        Args:
            name: of its stream.
            t_ns: its time.
            n_dropped: observations of its stream that this process has dropped so far.

        Returns:
            A message about data missing before it; "" where none are.
        """
        stream = self._streams.get(name)
        if stream is None:
            self._streams[name] = _Stream(t_ns, 0)
            return ""
        if t_ns <= stream.newest_ns:
            return ""
        if n_dropped > stream.n_dropped:
            # Drops may be counted while observations from before them still wait in the queue.
            stream.n_dropped = n_dropped
            stream.suspect_until_ns = t_ns + round(SUSPECT_S * 1e9)
        restarted, last_ns, step_ns = stream.awaited, stream.newest_ns, stream.step_ns
        gap_ns = t_ns - last_ns
        incomplete = restarted or last_ns <= stream.suspect_until_ns
        stream.newest_ns, stream.awaited = t_ns, False
        if not step_ns:
            stream.step_ns = gap_ns
        elif not incomplete:
            # An incomplete step is no measure of the next one, nor is a step across an outage of the sensor.
            stream.step_ns = min(gap_ns, step_ns * 6 // 5)
        missing_s = gap_ns * 1e-9
        if not incomplete or missing_s <= GAP_INTACT_S + 2e-9 * min(step_ns, 10**9):
            return ""
        self.lost_s = max(self.lost_s, missing_s)
        return self.add(last_ns, t_ns, ReasonKind.DATA_LOST if restarted else ReasonKind.DATA_DROPPED)

    def set_back(self, back_ns: int) -> None:
        """All clocks were set back: receipts to come date the past by their new time, so do the doubts and streams."""
        self._gaps = [
            Gap(gap.start_ns - back_ns, gap.end_ns - back_ns, gap.until_ns - back_ns, gap.kind) for gap in self._gaps
        ]
        for stream in self._streams.values():
            stream.newest_ns -= back_ns
            stream.suspect_until_ns -= back_ns
        self._newest_ns -= back_ns
        if self._gaps:
            self._write()

    def end(self, newest_ns: int, n_dropped: Mapping[str, int]) -> str:
        """Check for a loss at the end of the data, which nothing later can reveal. Returns a message or ""."""
        cut_ns = [stream.newest_ns for stream in self._streams.values() if stream.awaited]
        for name, n in n_dropped.items():
            stream = self._streams.get(name)
            if n > (stream.n_dropped if stream else 0):
                cut_ns.append(stream.newest_ns if stream else newest_ns)
        if not cut_ns:
            return ""
        return self.add(min(cut_ns), newest_ns, ReasonKind.DATA_LOST_AT_END)

    def add(self, start_ns: int, end_ns: int, kind: ReasonKind) -> str:
        """Doubt every receipt that a span of data affects.

        Returns:
            A message; "" where the span extends a gap that was reported before.
        """
        until_ns = end_ns + round(SCAN_VALID_S * 1e9)
        for gap in self._gaps:
            if gap.continues(start_ns, end_ns, kind):
                earlier = start_ns < gap.start_ns
                gap.start_ns, gap.end_ns = min(gap.start_ns, start_ns), max(gap.end_ns, end_ns)
                gap.until_ns = max(gap.until_ns, until_ns)
                if earlier:
                    self._write()
                return ""
        gap = Gap(start_ns, end_ns, until_ns, kind)
        self._gaps.append(gap)
        self._write()
        return f"receipts go to review: {sentence(gap.reason())}"

    def doubt(self, visit: str, kind: ReasonKind) -> None:
        """Send one visit's receipt to review."""
        self._reasons[visit] = Reason(kind)
        self._write()

    def advance(self, newest_ns: int, scans_wait: bool) -> None:
        """Update how long new visits are doubted: until every scan from before a gap has been used or has expired."""
        for gap in self._gaps:
            if gap.until_ns <= self._newest_ns:
                continue
            if scans_wait:
                gap.until_ns = max(gap.until_ns, newest_ns + 1)
            elif newest_ns > gap.end_ns + SETTLED_S * 1e9:
                gap.until_ns = newest_ns
        self._newest_ns = newest_ns

    def reasons_to_review(self, receipt: Receipt) -> tuple[Reason, ...]:
        """Why a receipt cannot be relied on; empty where no gap affects it."""
        reasons = [gap.reason() for gap in self._gaps if gap.affects(receipt)]
        awaited_s = [
            (self._newest_ns - stream.newest_ns) * 1e-9
            for stream in self._streams.values()
            if stream.awaited and stream.newest_ns < receipt.exit_ns
        ]
        if any(GAP_INTACT_S < silent_s < AWAITED_S for silent_s in awaited_s):
            reasons.append(Reason(ReasonKind.STREAM_NOT_RESUMED))
        if receipt.visit in self._reasons:
            reasons.append(self._reasons[receipt.visit])
        return tuple(dict.fromkeys(reasons))

    def forget_visit(self, visit: str) -> None:
        """Drop the doubt of one visit, which is in the books now."""
        self._reasons.pop(visit, None)

    def prune(self, oldest_enter_ns: int) -> None:
        """Drop gaps that affect no visit that is still open and none to come; write the others as they are now."""
        oldest_ns = min(oldest_enter_ns, self._newest_ns - round(GAP_REMEMBERED_S * 1e9))
        had_doubts = self._gaps or self._reasons
        self._gaps = [gap for gap in self._gaps if gap.until_ns >= oldest_ns]
        if had_doubts:
            self._write()

    def _write(self) -> None:
        gaps = [[gap.start_ns, gap.end_ns, gap.until_ns, gap.kind] for gap in self._gaps]
        visits = {visit: reason_row(reason) for visit, reason in self._reasons.items()}
        content = json.dumps({"gaps": gaps, "visits": visits})
        self._keep(lambda: replace_file(self._path, content, private=True))
