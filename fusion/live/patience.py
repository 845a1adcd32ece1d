"""A store waits in place for a disk that is full, or for books that are away, and continues where it stopped.

What its thread cannot write is tried again until it can be, and nothing that comes later is done before it: so no
snapshot holds what the books lack, and the books hold what they would without the fault, in the same order. Meanwhile
observations wait (`Pump.hold`), gates are answered in threads of their own, and the state says what is waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from fusion.live.causes import common_cause
from fusion.live.clock import Clock

# Pauses between two tries double from one to the other: a disk that was full is noticed soon when it has room again.
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 1.0
# Characters of an error that are reported.
MESSAGE_MAX = 200

Written = TypeVar("Written")


class Wait(NamedTuple):
    """What is waited for: its cause in words, and since when, in UTC nanoseconds of the machine."""

    cause: str
    since_ns: int


class Patience:
    """Tries again what its surroundings keep a store from writing.

    Attributes:
        waits: by what waits; empty while everything can be written. Replaced as a whole, to be read from any thread.
        in_place: whether the store's thread waits now, and takes no observations.
    """

    def __init__(
        self,
        clock: Clock,
        stopping: threading.Event,
        report: Callable[[str], object],
    ) -> None:
        """Wait by a clock.

        Args:
            clock: paces the tries.
            stopping: set once the store is to end; a write that fails then raises its error.
            report: takes messages for the operator: when a wait begins, and when it is over.
        """
        self._clock, self._stopping, self._report = clock, stopping, report
        self.waits: dict[str, Wait] = {}
        self.in_place = False
        self._on_wait: Callable[[bool], object] = lambda begins: None

    def follow(self, on_wait: Callable[[bool], object]) -> None:
        """Call a function at each failed try of a wait in place with True, and once the wait is over with False."""
        self._on_wait = on_wait

    def keep(self, what: str, write: Callable[[], Written]) -> Written:
        """Write, and try again for as long as the surroundings are to blame. Returns what `write` returns.

        Args:
            what: what is written, for messages.
            write: may be called again after it has failed, also where a part of its work was done.

        Raises:
            Exception: the error of `write`, where its cause is its own, or where the store is to end.
        """
        pause_s = PAUSE_MIN_S
        try:
            while True:
                try:
                    written = write()
                except Exception as error:
                    if self._stopping.is_set() or not self.failed(what, error):
                        raise
                    self.in_place = True
                    self._on_wait(True)
                else:
                    self.done(what)
                    return written
                self._clock.wait(self._stopping, pause_s)
                pause_s = min(2.0 * pause_s, PAUSE_MAX_S)
        finally:
            if self.in_place:
                self.in_place = False
                self._on_wait(False)

    def failed(self, what: str, error: BaseException) -> bool:
        """Note that something could not be written. Returns whether it is to be tried again."""
        cause = common_cause(error)
        if not cause:
            return False
        before = self.waits.get(what)
        if before is None:
            self._report(f"{what}: waits, {cause}: {str(error)[:MESSAGE_MAX]}")
        since_ns = self._clock.wall_ns() if before is None else before.since_ns
        self.waits = {**self.waits, what: Wait(cause, since_ns)}
        return True

    def done(self, what: str) -> None:
        """Note that something was written."""
        if what in self.waits:
            waited_s = (self._clock.wall_ns() - self.waits[what].since_ns) * 1e-9
            self._report(f"{what}: continues after {waited_s:.1f} s")
            self.waits = {name: wait for name, wait in self.waits.items() if name != what}


__all__ = ["Patience", "Wait"]
