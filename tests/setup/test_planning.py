"""`fusion plan`: what can be spared first, what a joined plate bears, and when a limit counts as kept."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import beta

from fusion.errors import ConfigError
from fusion.setup.planning import Variant, fewest, interval, measure, removals, table, variants, with_fewer_plates
from fusion.simulation import demo_store

STORE = demo_store(n_cameras=5, n_plates=60, n_products=8)


def test_a_camera_that_sees_nothing_goes_first() -> None:
    away = STORE.cameras[2].model_copy(update={"name": "away", "translation": (0.0, 0.0, 500.0)})
    order = [removal.camera for removal in removals(STORE.model_copy(update={"cameras": (*STORE.cameras, away)}))]
    assert len(order) == 5 and order[0] == "away"
    floor = [removal.floor for removal in removals(STORE)]
    assert floor == sorted(floor, reverse=True) and floor[-1] > 0.0


def test_joined_plates_bear_what_both_did() -> None:
    fewer = with_fewer_plates(STORE)
    assert fewer is not None and len(fewer.plates) < len(STORE.plates)
    assert sum(plate.width for plate in fewer.plates) == pytest.approx(sum(plate.width for plate in STORE.plates))
    assert sum(plate.capacity_g for plate in fewer.plates) == sum(plate.capacity_g for plate in STORE.plates)
    pieces, before = Counter[str](), Counter[str]()
    for store, counted in ((fewer, pieces), (STORE, before)):
        for facing in store.planogram:
            counted[facing.gtin] += facing.stock
    assert pieces == before
    assert {facing.plate for facing in fewer.planogram} <= {plate.plate for plate in fewer.plates}


@pytest.mark.parametrize(("k", "n"), [(0, 8), (1, 40), (8, 8)])
def test_intervals_are_those_of_clopper_and_pearson(k: int, n: int) -> None:
    low, high = interval(k, n)
    assert low == pytest.approx(0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1))
    assert high == pytest.approx(1.0 if k == n else beta.ppf(0.975, k + 1, n - k))
    assert interval(0, 0) == (0.0, 1.0)


def test_the_fewest_are_the_last_up_to_which_all_keep_the_limits() -> None:
    found = variants(STORE)
    assert [len(one.store.cameras) for one in found[:5]] == [5, 4, 3, 2, 1]
    for one, (visits, wrong, review) in zip(found, [(100, 0, 2), (100, 0, 4), (100, 3, 9), (100, 0, 1), (100, 9, 50)]):
        one.visits, one.wrong, one.review = visits, wrong, review
    chosen = fewest(found, 0.003, 0.05, plates=False)
    assert chosen is found[1]
    assert found[4].fails(0.003, 0.05) and not found[1].fails(0.003, 0.05)
    assert fewest(found, 0.003, 0.01, plates=False) is None
    rows = table(found, 0.003, 0.05)
    assert rows[2].split()[0] == "5" and rows[6].endswith("broken") and "2.0 (0.2-7.0)" in rows[2]


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match="want a store with plates and products"):
        variants(STORE.model_copy(update={"plates": (), "planogram": ()}))


def test_the_first_turn_is_finished_and_no_other_begins_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[Variant, int]] = []
    monkeypatch.setattr("fusion.setup.planning._run", lambda variant, seed: ran.append((variant, seed)))
    found, now_s = variants(STORE), iter(range(0, 10_000, 30))
    turns = measure(found, 0.003, 0.05, 7, 1.0, clock_s=lambda: float(next(now_s)))
    assert turns >= 1 and [seed for _, seed in ran[: len(found)]] == [7] * len(found)
    assert [variant for variant, _ in ran[: len(found)]] == found
