"""When and where goods were taken: kept once, combined with what was put back, and removed in time."""

from __future__ import annotations

from pathlib import Path

import pytest
from money.books import COLA, SOUP, T_NS

from fusion.errors import LedgerError
from fusion.money.moments import FILE, Moment, Moments, drop_moments, kept_of
from fusion.results import Picked, PutBack


def taken(t_s: int, gtin: str = COLA, n: int = 1, plate: str = "a", visit: str | None = "v1") -> Picked:
    return Picked(T_NS + t_s * 10**9, plate, gtin, n, "p", visit, 0.99)


def put_back(t_s: int, gtin: str = COLA, n: int = 1, plate: str = "a") -> PutBack:
    return PutBack(T_NS + t_s * 10**9, plate, gtin, n, "p", "v1", 0.99)


def test_a_movement_is_kept_once_over_restarts_and_belongs_to_its_visit(tmp_path: Path) -> None:
    for _ in range(2):  # after a restart the engine reports again what came after its snapshot
        moments = Moments(tmp_path / FILE)
        for moved in (taken(3), taken(1, SOUP, 2, "b"), taken(2, visit="v2"), taken(2, visit=None), put_back(4)):
            moments.add(moved)
        found = moments.of("v1")
        moments.close()
    assert found == [
        Moment(T_NS + 10**9, "b", SOUP, 2),
        Moment(T_NS + 3 * 10**9, "a", COLA, 1),
        Moment(T_NS + 4 * 10**9, "a", COLA, -1),
    ]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_what_was_put_back_is_the_newest_piece_and_of_the_same_plate_where_one_is() -> None:
    moments = [Moment(1, "a", COLA, 1), Moment(2, "b", COLA, 2), Moment(3, "a", COLA, -1), Moment(4, "c", COLA, -1)]
    assert kept_of(moments) == {COLA: [Moment(2, "b", COLA, 1)]}
    # More is put back than was seen taken: nothing is left, and nothing fails.
    assert kept_of([*moments, Moment(5, "b", COLA, -9)]) == {}


def test_what_is_past_its_time_is_removed(tmp_path: Path) -> None:
    assert drop_moments(tmp_path, T_NS) == 0 and not (tmp_path / FILE).exists()
    moments = Moments(tmp_path / FILE)
    for t_s in range(4):
        moments.add(taken(t_s))
    assert drop_moments(tmp_path, T_NS + 2 * 10**9, dry_run=True) == 2 and len(moments.of("v1")) == 4
    assert drop_moments(tmp_path, T_NS + 2 * 10**9) == 2 and len(moments.of("v1")) == 2
    moments.close()
    with pytest.raises(LedgerError):
        moments.of("v1")
