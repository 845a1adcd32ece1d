"""Decisions that people asked for take effect while no console runs, also in books on a server."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from money.books import STORE, T_NS, TWO, receipt

from fusion.money.ledger import Ledger
from fusion.money.prices import PricedReceipt
from fusion.money.proposals import Authority, Proposals, Wish
from fusion.money.providers import InProcessProvider
from fusion.money.vault import Holder
from fusion.till.forwarding import Forwarding
from fusion.till.till import Around, Parts, Till

S = 10**9


@pytest.mark.parametrize("on_server", [False, True])
def test_the_store_lets_decisions_take_effect_that_are_due(tmp_path: Path, on_server: bool) -> None:
    now_ns, provider = [T_NS + 1000 * S], InProcessProvider()
    with ExitStack() as stack:
        front = stack.enter_context(Ledger.open(tmp_path / "front.sqlite", STORE))
        where = tmp_path / ("server.sqlite" if on_server else "front.sqlite")
        reachable = not on_server

        def server() -> Ledger:
            if not reachable:
                raise OSError("the server is away")
            return Ledger.open(where, STORE)

        forwarding = Forwarding(front, server, tmp_path, print) if on_server else None
        around = Around(tmp_path, lambda: now_ns[0], lambda: now_ns[0] / S, threads=False)
        till = Till(STORE, front, Parts(provider=provider), around, forwarding=forwarding)
        front.hold(Holder("alice", "customer", "tok_1", None, T_NS))
        till.post(PricedReceipt(receipt("v1", *TWO, status="review"), ()))
        till.do_errands()
        if on_server:
            assert "away" in till.status()["waits_for"]["books"]
        reachable = True
        now_ns[0] += 100 * S
        till.do_errands()
        # A person at a console, which is another process and ends before the decision is due.
        with Ledger.open(where, STORE) as console:
            Proposals(console, STORE).ask(Wish("v1", "accept", 1), Authority("anna"), now_ns[0])
            till.do_errands()
            assert provider.total == 0 and console.standing("v1").status == "review"  # type: ignore[union-attr]
        now_ns[0] += 10 * S
        till.do_errands()
        till.do_errands()
        assert provider.total == sum(line.quantity * line.unit_price for line in TWO)
        with Ledger.open(where, STORE) as books:
            assert [entry.kind for entry in books.entries("v1") if "decision" in entry.kind] == ["decision accept"]
            assert books.verify() is None
        if forwarding is not None:
            forwarding.close()
