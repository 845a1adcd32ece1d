"""Exceptions for broken inputs, and text that is safe to show beside them.

Expected outcomes (an ambiguous event, a late frame) are data, not exceptions.
"""

from __future__ import annotations

import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Characters of an error's text that a warning shows.
IN_SHORT_MAX = 200
# Format characters without which words of some scripts fall apart; others reverse or hide text, and are replaced.
_JOINERS = "\u200c\u200d"


class FusionError(Exception):
    """Base of everything that fusion raises on purpose."""


class ConfigError(FusionError, ValueError):
    """A store folder or a recording cannot be used. Holds every fault that was found, not only the first.

    Attributes:
        faults: one line each, `file:row: key: want ..., got ...`.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        heading = f"{len(self.faults)} faults:\n  " if len(self.faults) > 1 else ""
        super().__init__(heading + "\n  ".join(self.faults))


class ShapeError(FusionError, ValueError):
    """An array has the wrong shape or dtype. The message says what was wanted, then what came."""


class TimeError(FusionError, ValueError):
    """A time is not in UTC nanoseconds since 1970, such as seconds or milliseconds."""


class OrderError(FusionError, ValueError):
    """Calls came in an impossible order, such as feeding an engine that was closed."""


class RecordingError(FusionError):
    """A file of a recording is damaged. The message says which file and how far it could be read."""


class SnapshotError(FusionError):
    """Bytes that are not a snapshot, are damaged, or belong to another store or version."""


class JournalError(FusionError):
    """The journal refuses a transfer."""


class IdempotencyConflict(JournalError):
    """The same idempotency key came back with different contents."""


class LedgerError(FusionError):
    """The ledger refuses a posting, cannot be written, or belongs to another store. Nothing was posted."""


class EntryError(LedgerError):
    """What is to be posted does not fit into the books: a value that is too long, a product the store lacks."""


class NotPermitted(LedgerError):
    """A person may not do this; another one may."""


def in_short(error: BaseException) -> str:
    """An error's kind, text and place in one line, for a warning."""
    place = ""
    if error.__traceback__ is not None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({last.filename.rpartition('/')[2]}:{last.lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:IN_SHORT_MAX]}{place}"


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Wrap imports of optional packages: where one is missing, the error names the extra that brings it."""
    try:
        yield
    except ImportError as error:
        raise FusionError(f"want the package {error.name}: pip install 'storefusion[{name}]'") from error


# ---- text that is safe to show ---------------------------------------------------------------------------------------


def bounded_text(text: str, longest: int) -> str:
    """The text, cut where it is longer, without characters that a file or a terminal cannot show.

    Whatever is made from data has a bound where it is made, so that no later stage needs to refuse it.
    """
    text = cut_text(text, longest)
    if text.isprintable():
        return text
    # Format characters ("Cf") join letters in many scripts; control characters can forge lines.
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Cf" else "\ufffd" for c in text)


def terminal_text(text: str) -> str:
    """Text in one line that cannot move a terminal's cursor, colour it, reverse its letters or forge a line of a log.

    Whatever is printed or logged and may hold words from elsewhere (topics, files, servers) passes here.
    """
    line = " / ".join(part.strip() for part in text.splitlines()) if not text.isprintable() else text
    line = cut_text(line, max(len(line), 1))
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c in _JOINERS else "\ufffd" for c in line)


def cut_text(text: str, longest: int) -> str:
    """The text, cut where it is longer, and without halves of surrogate pairs, which no file can hold."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
