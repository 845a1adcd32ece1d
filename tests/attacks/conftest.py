"""What the attacked parts need: a minute of a small store, a broker, a chain's database."""

from __future__ import annotations

from chain.conftest import database, shop, stranger, url
from live.conftest import broker, day, recording

__all__ = ["broker", "database", "day", "recording", "shop", "stranger", "url"]
