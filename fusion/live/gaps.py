"""What was lost on the way from a store's sensors to its engine, and which receipts that may touch.

Every stream tells of its own loss: after a restart by how far it had come when the snapshot was taken, under overload
by what of it was dropped. What a sensor itself does not tell is no gap in this sense: the engine knows by itself what
that makes doubtful. Measured by `python -m bench serve gaps`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusion.files.atomic import replace_file
from fusion.files.results import reason_of, reason_row
from fusion.people.visits import SCAN_VALID_S
from fusion.results import Reason, ReasonKind, Receipt
from fusion.sentences import sentence

# So much more than a stream's usual step may be missing on the way to the engine.
GAP_INTACT_S = 0.25
# What happened so shortly before an exit may be decided after it.
UNDECIDED_S = 10.0
# What was missing is remembered for so long at least: somebody who crossed may be told of that late.
KEPT_S = 60.0
# Large steps of a stream are laid to drops that were counted so shortly before.
SUSPECT_S = 5.0
# A person is seen, and an observation in order, so long after its time.
SETTLED_S = 3.0
# A stream that was silent for so long when a snapshot was taken was lost before that.
ALIVE_S = 2.0

# What is sent again after a restart has come so soon; a stream that has not is one whose sensor is gone.
AWAITED_S = 15.0

# Of each stream: newest time, its usual step, whether it was still awaited after a restart; nanoseconds.
Streams = dict[str, tuple[int, int, bool]]


@dataclass
class Gap:
    """A span of data that did not reach the engine whole.

    Attributes:
        start_ns, end_ns: of the data that are missing, or of what cannot be relied on.
        until_ns: visits that began until then, never before the end, may have got another one's scan.
        kind: what happened.
    """

    start_ns: int
    end_ns: int
    until_ns: int
    kind: ReasonKind

    def reason(self) -> Reason:
        """Why a receipt that this touches goes to review."""
        return Reason(self.kind, seconds=(self.end_ns - self.start_ns) * 1e-9)

    def touches(self, receipt: Receipt) -> bool:
        return (receipt.enter_ns or 0) <= self.until_ns and receipt.exit_ns >= self.start_ns - UNDECIDED_S * 1e9


class Gaps:
    """What was lost on the way to the engine, by each stream's own times; kept in a file.

    Attributes:
        lost_s: the longest gap since this process began.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gaps: list[Gap] = []
        self._visits: dict[str, Reason] = {}
        # By stream: newest time and usual step; the same of before the start, where a stream has not come again.
        self._last_ns: dict[str, tuple[int, int]] = {}
        self._to_come: dict[str, tuple[int, int]] = {}
        self._dropped: Counter[str] = Counter()
        self._suspect_ns: dict[str, int] = {}  # until when a large step of a stream counts as made by drops
        self._newest_ns = 0
        self.lost_s = 0.0

    def read(self) -> None:
        """What was doubted before this process began. Raises ValueError."""
        if self._path.exists():
            told = json.loads(self._path.read_text(encoding="utf-8"))
            try:
                self._gaps = [Gap(int(one[0]), int(one[1]), int(one[2]), ReasonKind(one[3])) for one in told["gaps"]]
                self._visits = {str(visit): reason_of(row) for visit, row in told["visits"].items()}
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(error) from None

    def go_on(self, streams: Streams, newest_ns: int) -> None:
        """Streams come again after a start; those that were silent by then already are not missed."""
        alive_ns = newest_ns - ALIVE_S * 1e9
        self._to_come = {name: (t, step) for name, (t, step, awaited) in streams.items() if awaited or t > alive_ns}
        self._newest_ns = newest_ns

    def streams(self) -> Streams:
        """What a snapshot's engine has seen of each stream."""
        to_come = {name: (*last, True) for name, last in self._to_come.items()}
        return to_come | {name: (*last, False) for name, last in self._last_ns.items()}

    def heard(self, stream: str, t_ns: int, n_dropped: int) -> str:
        """An observation that the engine uses. Returns what is missing before it, "" where nothing is.

        Args:
            n_dropped: of its stream since this process began.
        """
        restarted = stream in self._to_come
        if not restarted and stream not in self._last_ns:
            self._last_ns[stream] = t_ns, 0
            return ""
        last_ns, step_ns = self._to_come[stream] if restarted else self._last_ns[stream]
        if t_ns <= last_ns:
            return ""
        self._to_come.pop(stream, None)
        if n_dropped > self._dropped[stream]:
            # They may have been counted while what stood before them in the queue was still to be worked off.
            self._dropped[stream] = n_dropped
            self._suspect_ns[stream] = t_ns + round(SUSPECT_S * 1e9)
        dropped = last_ns <= self._suspect_ns.get(stream, 0)
        # A step that something is missing from is no measure of the next, nor is one over an outage of the sensor.
        missed = restarted or dropped
        usual_ns = step_ns if missed else min(t_ns - last_ns, step_ns * 6 // 5)
        self._last_ns[stream] = t_ns, usual_ns if step_ns else t_ns - last_ns
        missing_s = (t_ns - last_ns) * 1e-9
        if not missed or missing_s <= GAP_INTACT_S + 2e-9 * min(step_ns, 10**9):
            return ""
        self.lost_s = max(self.lost_s, missing_s)
        return self.add(last_ns, t_ns, ReasonKind.DATA_LOST if restarted else ReasonKind.DATA_DROPPED)

    def ended(self, newest_ns: int, dropped: Mapping[str, int]) -> str:
        """The data have ended: what was lost at their end nothing that follows can tell. Returns what to tell."""
        cut = [name for name, n in dropped.items() if n > self._dropped[name]]
        if not self._to_come and not cut:
            return ""
        last_ns = [t for t, _ in self._to_come.values()] + [self._last_ns.get(name, (newest_ns, 0))[0] for name in cut]
        return self.add(min(last_ns), newest_ns, ReasonKind.DATA_LOST_AT_END)

    def add(self, start_ns: int, end_ns: int, kind: ReasonKind) -> str:
        """Doubt what a span of data touches. Returns what to tell; "" where it belongs to what was told before."""
        until_ns = end_ns + round(SCAN_VALID_S * 1e9)
        for gap in self._gaps:
            if gap.kind is kind and gap.start_ns - 10**9 <= end_ns and start_ns <= gap.end_ns + 10**9:
                earlier = start_ns < gap.start_ns
                gap.start_ns, gap.end_ns = min(gap.start_ns, start_ns), max(gap.end_ns, end_ns)
                gap.until_ns = max(gap.until_ns, until_ns)
                if earlier:
                    self.write()
                return ""
        self._gaps.append(Gap(start_ns, end_ns, until_ns, kind))
        self.write()
        return f"receipts go to review: {sentence(self._gaps[-1].reason())}"

    def doubt(self, visit: str, kind: ReasonKind) -> None:
        self._visits[visit] = Reason(kind)
        self.write()

    def look(self, newest_ns: int, scans_wait: bool) -> None:
        """How long new visits are doubted: until all scans of before have been taken or have become void."""
        for gap in self._gaps:
            if gap.until_ns <= self._newest_ns:
                continue
            if scans_wait:
                gap.until_ns = max(gap.until_ns, newest_ns + 1)
            elif newest_ns > gap.end_ns + SETTLED_S * 1e9:
                gap.until_ns = newest_ns
        self._newest_ns = newest_ns

    def why(self, receipt: Receipt) -> tuple[Reason, ...]:
        """Why a receipt is not to be relied on; empty where nothing contradicts it."""
        found = [gap.reason() for gap in self._gaps if gap.touches(receipt)]
        late_ns = [t for t, _ in self._to_come.values() if t < receipt.exit_ns]
        if any(GAP_INTACT_S < (self._newest_ns - t) * 1e-9 < AWAITED_S for t in late_ns):
            found.append(Reason(ReasonKind.STREAM_NOT_RESUMED))
        if receipt.visit in self._visits:
            found.append(self._visits[receipt.visit])
        return tuple(dict.fromkeys(found))

    def billed(self, visit: str) -> None:
        """A visit is in the books, with its doubt."""
        self._visits.pop(visit, None)

    def forget(self, oldest_enter_ns: int) -> None:
        """Drop what touches no visit that is still open, nor any to come; what stays is written with all it grew by."""
        oldest_ns = min(oldest_enter_ns, self._newest_ns - round(KEPT_S * 1e9))
        held = self._gaps or self._visits
        self._gaps = [gap for gap in self._gaps if gap.until_ns >= oldest_ns]
        if held:
            self.write()

    def write(self) -> None:
        gaps = [[gap.start_ns, gap.end_ns, gap.until_ns, gap.kind] for gap in self._gaps]
        visits = {visit: reason_row(reason) for visit, reason in self._visits.items()}
        replace_file(self._path, json.dumps({"gaps": gaps, "visits": visits}))
