"""The outbox: rows for the chain once, and unchanged."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from chain.shops import T_NS, make_receipt, make_store, make_transfer

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.live.outbox import Outbox
from fusion.results import Warning, WarningKind
from fusion.sentences import DETAIL_SHOWN_MAX


def test_an_outbox_keeps_once_and_refuses_change(tmp_path: Path) -> None:
    warning = Warning(T_NS, WarningKind.BROKER_LOST, "cam01", detail="x" * 5000)
    with Outbox(tmp_path / "out.sqlite", make_store()) as box:
        assert box.keep(map(make_transfer, range(5)), [warning, make_receipt(1)]) == 6
        # As after a restart from a snapshot.
        assert box.keep(map(make_transfer, range(3, 8)), [warning]) == 3
        with pytest.raises(IdempotencyConflict, match="shop/a1/4"):
            box.keep([make_transfer(9), make_transfer(4, quantity=9)])
        assert [row[0] for row in box.rows_after("goods", 0, 100)] == list(range(1, 9))
        assert len(box.rows_after("health", 0, 9)[0][4]) == DETAIL_SHOWN_MAX
    with pytest.raises(LedgerError, match="want the outbox of 'kiosk'"):
        Outbox(tmp_path / "out.sqlite", make_store("kiosk"))
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    for statement in ("DELETE FROM goods", "UPDATE health SET kind = ''", "UPDATE outbox SET store = 'kiosk'"):
        with pytest.raises(sqlite3.IntegrityError, match="only added to"):
            connection.execute(statement)
    connection.close()
