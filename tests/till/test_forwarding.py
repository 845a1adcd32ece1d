"""Books on a server: what a store reports about them at its end."""

from __future__ import annotations

from pathlib import Path

from money.books import STORE

from fusion.money.ledger import Ledger
from fusion.till.forwarding import Forwarding


def test_a_store_that_has_closed_its_books_still_reports_what_waits(tmp_path: Path) -> None:
    front = Ledger.open(tmp_path / "front.sqlite", STORE)
    forwarding = Forwarding(front, lambda: Ledger.open(tmp_path / "server.sqlite", STORE), tmp_path, print)
    front.open_visit("v1", None, 1)
    n_waiting = forwarding.n_waiting
    forwarding.close()
    front.close()
    assert forwarding.n_waiting == n_waiting > 0
