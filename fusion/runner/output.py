"""What a run prints: lines on stdout, and a progress bar on stderr where that is a terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm

from fusion.errors import terminal_text
from fusion.runner.closed_pipe import discard_stdout, stdout_is_closed


class Output:
    """Prints lines above a progress bar in seconds of store time.

    Attributes:
        closed: the reader of stdout is gone; what is printed from then on is lost.
    """

    def __init__(self, total_s: int | None) -> None:
        """Begin the bar.

        Args:
            total_s: length of the run; None where it is not known.
        """
        self.closed = False
        # `disable=None`: no bar where stderr is not a terminal.
        self._bar = tqdm(
            total=total_s, unit="s", desc="store time", smoothing=0.05, mininterval=0.2, file=sys.stderr, disable=None
        )
        self._shown_s = 0

    def advance(self, seconds: int) -> None:
        """Move the bar to this many seconds of store time."""
        if seconds > self._shown_s:
            self._bar.update(seconds - self._shown_s)
            self._shown_s = seconds

    def line(self, text: str) -> None:
        """Print a line on stdout at once."""
        try:
            self._bar.write(terminal_text(text), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            if not stdout_is_closed():
                raise
            discard_stdout()
            self.closed = True

    def error(self, text: str) -> None:
        """Print a line on stderr."""
        self._bar.write(terminal_text(text), file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
