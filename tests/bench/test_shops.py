"""What `bench shops` compares: its checks find what they are for, and its provider's accounts survive kills."""

from __future__ import annotations

from pathlib import Path

from bench.endurance.hostile_provider import CALM, Accounts, Server
from bench.endurance.shops import judged
from fusion.money.visits import Standing
from fusion.results import ReceiptLine
from fusion.runner.truth import TrueVisit

TOOK = TrueVisit("acc-1", 0, 1, {"96385074": 2})


def visit(name: str, status: str, n: int) -> Standing:
    lines = (ReceiptLine("96385074", n, 100, 0.99),) if n else ()
    return Standing(name, "p", status, None, "EUR", 100 * n, lines, 0)  # type: ignore[arg-type]


def test_a_right_receipt_and_one_that_waits_break_no_rule() -> None:
    right = judged([TOOK], {"acc-1"}, {"acc-1": [(visit("v1", "settled", 2), 200)]})
    waits = judged([TOOK], {"acc-1"}, {"acc-1": [(visit("v1", "review", 1), 0)]})
    assert right.broken == waits.broken == []
    assert right.counts["right"] == 1 and waits.counts["waits"] == 1


def test_wrong_lost_open_and_doubled_visits_are_found() -> None:
    wrong = judged([TOOK], {"acc-1"}, {"acc-1": [(visit("v1", "settled", 1), 100)]})
    lost = judged([TOOK], {"acc-1"}, {})
    still_open = judged([TOOK], {"acc-1"}, {"acc-1": [(visit("v1", "open", 0), 0)]})
    twice = judged([TOOK], {"acc-1"}, {"acc-1": [(visit(name, "settled", 2), 200) for name in ("v1", "v2")]})
    found = [verdict.broken[0] for verdict in (wrong, lost, still_open, twice)]
    for fault, text in zip(found, ("settled", "no visit of theirs", "still open", "paid for 2 visits"), strict=True):
        assert text in fault
    assert judged([TOOK], set(), {}).broken == []  # not let in, so nothing is lost


def test_the_providers_accounts_survive_its_end_and_a_line_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / CALM).touch()
    server = Server(tmp_path, 0, 1)
    held = server.answered("/a/authorise", "a/v/1", {"token": "tok_1", "amount": 500, "currency": "EUR"})
    assert held is not None and held.approved
    body = {"authorisation": held.reference, "amount": 300}
    taken = server.answered("/a/capture", "a/v/2", body)
    server.http.server_close()
    with open(tmp_path / "journal", "a", encoding="utf-8") as journal:
        journal.write('{"store": "a", "step": "capt')
    again = Server(tmp_path, 0, 1)
    assert again.answered("/a/capture", "a/v/2", body) == taken
    again.http.server_close()
    accounts = Accounts(tmp_path / "journal").by_store
    assert accounts["a"].total == 300 and accounts["a"].n_captures == {held.reference: 1}
