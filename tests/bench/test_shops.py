"""What `bench shops` compares: its checks find what they are for, and its provider's accounts survive kills."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from bench.endurance.hostile_provider import CALM, Accounts, Server
from bench.endurance.shops import Left, Program, judged, unpaid_doors
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


def test_right_goods_at_a_wrong_price_are_found() -> None:
    bill = {"acc-1": [(visit("v1", "settled", 2), 200)]}
    assert judged([replace(TOOK, total=200)], {"acc-1"}, bill).broken == []
    (found,) = judged([replace(TOOK, total=190)], {"acc-1"}, bill).broken
    assert found == "v1 of acc-1: the right goods for 200, they cost 190"


def test_a_door_that_opened_before_anything_was_authorised_is_found(tmp_path: Path) -> None:
    (tmp_path / CALM).touch()
    server = Server(tmp_path, 0, 1)
    before_ns = time.time_ns()
    server.answered("/box/authorise", "box/v1/1", {"token": "tok_1", "amount": 200, "currency": "EUR"})
    after_ns = time.time_ns()
    server.http.server_close()
    true = TrueVisit("acc-1", 0, after_ns + 1, {"96385074": 2}, total=200)

    def found(at_ns: int, opened: bool = True, account: str | None = "acc-1", visits: tuple[str, ...] = ("v1",)) -> int:
        left = [Left(0.0, 0.0, opened, account, at_ns)]
        shop = SimpleNamespace(name="box", truth=[true], left=left)
        return len(list(unpaid_doors(shop, {"acc-1": list(visits)}, tmp_path / "journal")))  # type: ignore[arg-type]

    assert found(before_ns) == found(after_ns, visits=()) == found(after_ns, visits=("v10",)) == 1
    assert found(after_ns) == found(before_ns, opened=False) == found(before_ns, account=None) == 0
    assert found(after_ns + 2, visits=()) == 0, "they have left, so it opened for the next one"


def test_a_program_that_ends_at_once_is_started_again_after_a_kill(tmp_path: Path) -> None:
    """As a console does whose books are away when it starts."""
    books, ready = tmp_path / "books", tmp_path / "ready"
    books.touch()
    script = f"if test -e {books}; then touch {ready}; exec sleep 60; fi; touch {books}; exit 2"
    program = Program(["sh", "-c", script], tmp_path / "log", ready.exists)
    for path in (books, ready):
        path.unlink()
    program.kill()
    assert program.process.poll() is None and books.exists()
    program.process.kill()
    program.process.wait()


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
