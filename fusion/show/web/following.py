"""Follows the runner's feed: a socket of another process that comes and goes.

One reader follows it for all pages of a process, whatever their number, so that the runner pays for one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# A missing runner is looked for this often.
CONNECT_EVERY_S = 1.0
LINE_MAX_BYTES = 4 << 20

_log = logging.getLogger(__name__)


async def follow(
    path: Path,
    *,
    connected: Callable[[], object],
    take: Callable[[str, str], object],
    lost: Callable[[], object],
    connect_every_s: float = CONNECT_EVERY_S,
) -> None:
    """Follow a runner until cancelled, over its restarts.

    Args:
        path: of its socket.
        connected: called when its past is about to come again.
        take: called with the kind of each line and the line. What it raises means that the line is garbled; that is
            logged once for each connection, and the next line may be right.
        lost: called when the connection has ended.
        connect_every_s: how often a missing runner is looked for.
    """
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_MAX_BYTES)
        except OSError:
            await asyncio.sleep(connect_every_s)
            continue
        connected()
        with suppress(OSError, ValueError):  # ValueError: a line longer than the limit
            await _read_lines(reader, path, take)
        writer.close()
        lost()
        await asyncio.sleep(connect_every_s)


async def _read_lines(reader: asyncio.StreamReader, path: Path, take: Callable[[str, str], object]) -> None:
    """Take in the runner's lines until its end; a runner that is killed may leave half a line."""
    garbled = False
    while (line := await reader.readline()).endswith(b"\n"):
        try:
            text = line.decode("utf-8", "replace").strip()
            take(kind_of(text), text)
        except Exception as error:  # whatever a garbled line leads to; the next line may be right
            if not garbled:
                _log.warning("%s: a line of the runner cannot be used: %r", path, error)
            garbled = True


def kind_of(line: str) -> str:
    """The kind of a feed's line, which is its first key; "" where it has none."""
    return line[2 : line.find('"', 2)] if line.startswith('{"') else ""


def checked(line: str) -> str:
    """A line of JSON that a browser can read too. Raises ValueError where it is not one."""

    def refuse(constant: str) -> None:
        raise ValueError(f"want numbers, got {constant}")

    json.loads(line, parse_constant=refuse)
    return line


__all__ = ["CONNECT_EVERY_S", "LINE_MAX_BYTES", "checked", "follow", "kind_of"]
