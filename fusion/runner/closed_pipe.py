"""Standard output whose reader is gone, as in `fusion run | head -1`."""

from __future__ import annotations

import os
import select
import sys


def stdout_is_closed() -> bool:
    """Whether the reader of stdout is gone. Elsewhere than on POSIX, a broken pipe is taken for that of stdout."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def discard_stdout() -> None:
    """Send what is still written to stdout to nowhere, so that the interpreter's last flush succeeds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
