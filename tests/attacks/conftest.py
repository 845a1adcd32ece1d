"""What the attacked parts need: a minute of a small store, a broker, a chain's database."""

from __future__ import annotations

from live.conftest import broker, day, recording

__all__ = ["broker", "day", "recording"]
