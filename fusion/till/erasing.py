"""Erasures in a running store: asked for by a command, done by an errand, and by the engine's thread in its memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from fusion.gates.erasures import Erasures, Names, waiting_of
from fusion.gates.forgetting import Eraser, Place

# What waits for a payment or a decision is looked at this often.
WAITING_EVERY_S = 60.0
# Erasures that the engine's thread may still have to follow; it does so at its next step.
FOLLOWED_MAX = 1000


class Erasing:
    """The erasures of one running store."""

    def __init__(
        self,
        erasures: Erasures,
        place: Callable[[], Place],
        *,
        monotonic_s: Callable[[], float],
        report: Callable[[str], object],
    ) -> None:
        """Follow a list.

        Args:
            erasures: the list.
            place: what people are erased from, now.
            monotonic_s: seconds of the machine's clock.
            report: takes messages for the operator.
        """
        self._erasures, self._report, self._monotonic_s = erasures, report, monotonic_s
        self._eraser = Eraser(erasures, place)
        self._again_s = 0.0
        # Kept, since a store's last status is asked for after its files were closed.
        self._waiting = dict(waiting_of(erasures.undone()))
        self._lock = threading.Lock()
        # Everybody who was ever erased is renamed in what an older snapshot brings back.
        self._to_rename: deque[Names] = deque(maxlen=FOLLOWED_MAX)
        if everybody := [digest for one in erasures.all() for digest in one.names]:
            self._to_rename.append(erasures.names(everybody))

    def work(self, now_ns: int) -> str:
        """Do what is asked for, and each minute what may have to wait no longer; for an errand."""
        looks = self._monotonic_s() >= self._again_s
        if looks:
            self._again_s = self._monotonic_s() + WAITING_EVERY_S
        for one in self._eraser.work(now_ns, asked_only=not looks):
            waits = f", waits: {'; '.join(one.waits_for)}" if one.waits_for else ""
            self._report(f"erasure {one.id}: {one.state}{waits}")
        self._waiting = dict(waiting_of(self._erasures.undone()))
        return ""

    def forgotten(self, names: Names) -> None:
        """Names were erased; from any thread."""
        with self._lock:
            self._to_rename.append(names)

    def take(self) -> Names | None:
        """Names that have been erased and may still be in the engine's memory, once; for its thread."""
        with self._lock:
            return self._to_rename.popleft() if self._to_rename else None

    def status(self) -> Mapping[str, Any]:
        """What is asked for and not done yet, and what it waits for."""
        return self._waiting
