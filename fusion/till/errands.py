"""Errands: work for which a store needs something that may be away, such as a provider, a mail server or a database.

Each errand has a thread of its own, so that one that waits delays neither the store nor another errand. What is to be
done is read from the books, so that a restart loses nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from fusion.errors import FusionError

# Pauses after a failure double from here up to the errand's own limit.
PAUSE_MIN_S = 1.0
# Threads have this long to finish a question that they have asked.
JOIN_MAX_S = 5.0
MESSAGE_MAX = 300


class Errand:
    """One kind of work, done when it is due, and tried again after growing pauses while something is away.

    Attributes:
        name: what it is about, for messages.
        waits_for: why its last try did not finish; "" where it did.
        since_s: instant of its clock at which it began to wait.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], str],
        *,
        every_s: float,
        pause_max_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
        report: Callable[[str], object] = lambda message: None,
    ) -> None:
        """Describe the work.

        Args:
            name: what it is about, for messages.
            work: does what is due; returns "" once all is done, otherwise what it waits for. Where it raises a
                FusionError or an OSError, that is what it waits for.
            every_s: seconds between two looks while nothing wakes it.
            pause_max_s: longest pause between two tries.
            monotonic_s: seconds of the clock that paces it.
            report: takes messages for the operator: when it begins to wait, and when it is done again.
        """
        self.name, self.waits_for, self.since_s = name, "", 0.0
        self._work, self._every_s, self._pause_max_s, self._report = work, every_s, pause_max_s, report
        self._monotonic_s, self._again_s = monotonic_s, 0.0
        self._n_failed = 0
        self._woken, self._ended = threading.Event(), threading.Event()

    def wake(self) -> None:
        """Let it look now, unless it waits for something that is away; from any thread."""
        self._woken.set()

    def step(self) -> float:
        """Do what is due. Returns how many seconds to pause."""
        self._woken.clear()
        try:
            waits_for = self._work()
        except (FusionError, OSError) as error:
            waits_for = f"{type(error).__name__}: {error}"
        if waits_for and not self.waits_for:
            self.since_s = self._monotonic_s()
            self._report(f"{self.name}: waits, the store continues: {waits_for[:MESSAGE_MAX]}")
        elif self.waits_for and not waits_for:
            self._report(f"{self.name}: done again, after {self._n_failed} tries")
        self.waits_for = waits_for
        self._n_failed = self._n_failed + 1 if waits_for else 0
        pause_s = self._every_s
        if waits_for:
            pause_s = float(min(PAUSE_MIN_S * 2 ** min(self._n_failed - 1, 30), self._pause_max_s))
            self._again_s = self._monotonic_s() + pause_s
        return pause_s

    @property
    def paused(self) -> bool:
        """Whether it waits for something that is away, and may not look again yet."""
        return bool(self.waits_for) and self._monotonic_s() < self._again_s

    def run(self, wait: Callable[[threading.Event, float], bool]) -> None:
        """Step until `stop`, and once more after it. wait: for an event, at most a number of seconds."""
        while not self._ended.is_set():
            pause_s = self.step()
            # While something is away, new work does not make it come back sooner.
            wait(self._ended if self.waits_for else self._woken, pause_s)
        if not self.waits_for:
            self.step()

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self._ended.set()
        self._woken.set()


class Errands:
    """All errands of a store: in threads of their own, or one after another where a simulation calls `do_all`."""

    def __init__(self, errands: Sequence[Errand]) -> None:
        self._errands = tuple(errands)

    def wake(self) -> None:
        """Let all look now; from any thread."""
        for errand in self._errands:
            errand.wake()

    def do_all(self) -> None:
        """Do what is due, in the calling thread."""
        for errand in self._errands:
            if not errand.paused:
                errand.step()

    def waiting(self) -> dict[str, str]:
        """What each errand that waits is waiting for, by its name."""
        return {errand.name: errand.waits_for for errand in self._errands if errand.waits_for}

    def waited_s(self, now_s: float) -> dict[str, float]:
        """How long each errand that waits has done so at an instant of its clock, by its name."""
        return {errand.name: round(now_s - errand.since_s, 1) for errand in self._errands if errand.waits_for}

    @contextlib.contextmanager
    def running(self, wait: Callable[[threading.Event, float], bool]) -> Iterator[None]:
        """Run them in threads until the block ends."""
        threads = [
            threading.Thread(target=errand.run, args=(wait,), name=f"errand {errand.name}", daemon=True)
            for errand in self._errands
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for errand in self._errands:
                errand.stop()
            for thread in threads:
                thread.join(JOIN_MAX_S)
