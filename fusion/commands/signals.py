"""Ctrl-C and SIGTERM as something that a loop can wait for."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignals:
    """Whether Ctrl-C or SIGTERM came; to be waited for in the thread that handles them.

    A `threading.Event` does not do: where its handler interrupts its own wait, it may wait for its lock for ever.
    """

    def __init__(self, woken: socket.socket) -> None:
        self._woken, self._came = woken, False

    def note(self, *_: object) -> None:
        """The handler: remember that a signal came."""
        self._came = True

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._came

    def wait(self, timeout: float) -> None:
        """Return once a signal comes, or after `timeout` seconds."""
        if not self._came and select.select([self._woken], [], [], timeout)[0]:
            self._woken.recv(64)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Note Ctrl-C and SIGTERM inside the block; the previous handlers are restored after it."""
    woken, waker = socket.socketpair()
    with woken, waker:
        waker.setblocking(False)
        signals = StopSignals(woken)
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, signals.note) for number in numbers]
        fd = signal.set_wakeup_fd(waker.fileno())
        try:
            yield signals
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)
