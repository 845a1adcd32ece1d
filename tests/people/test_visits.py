"""People at the gates: scans and their owners, exits, people lost on the way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.observations import GateScan
from fusion.people.scans import pairings
from fusion.people.visits import Visits
from fusion.results import People, PersonEntered, PersonLeft, Reason, ReasonKind, Warning
from fusion.store.models import Gate, Store

STEP_S = 0.1
START_NS = 1_700_000_000_000_000_000


def shop(**changes) -> Store:
    gates = (
        Gate(id="entry", direction="in", line=((1.0, 0.0), (2.0, 0.0)), credentials=("qr", "staff")),
        Gate(id="exit", direction="out", line=((6.0, 0.0), (7.0, 0.0)), credentials=("open",)),
    )
    settings = {
        "format_version": 1,
        "id": "shop",
        "name": "shop",
        "currency": "EUR",
        "timezone": "Europe/Berlin",
        "floor": ((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)),
        "keypoints": "coco17",
        "gate": gates,
    }
    return Store(**settings | changes)


class Shop:
    """Walks people along way points and collects the results of Visits."""

    def __init__(self, store: Store | None = None) -> None:
        self.visits = Visits(store or shop())
        self.results: list = []
        self.closed: list = []

    def run(self, paths: dict[int, list[tuple[float, float, float]]], scans: dict[float, str | tuple[str, str]]):
        """paths: way points (second, x, y) by track, absent outside their span; scans: account by second."""
        first = round(min(path[0][0] for path in paths.values()) / STEP_S)
        last = max(path[-1][0] for path in paths.values()) + 4.0
        todo = sorted(scans.items())
        for k in range(first, round(last / STEP_S)):
            t_s = k * STEP_S
            while todo and todo[0][0] <= t_s:
                second, account = todo.pop(0)
                kind, account = account if isinstance(account, tuple) else ("account", account)
                self.results += self.visits.at_gate(GateScan(START_NS + round(second * 1e9), "entry", kind, account))
            now = [(track, path) for track, path in paths.items() if path[0][0] <= t_s <= path[-1][0]]
            place = [[np.interp(t_s, *np.array(path)[:, [0, i]].T) for i in (1, 2)] for _, path in now]
            self.step(t_s, [track for track, _ in now], place)
        return self

    def step(
        self, t_s: float, tracks: list[int], place: list, identity: float = 1.0, vouched=lambda track_id: True
    ) -> None:
        n, t_ns = len(tracks), START_NS + round(t_s * 1e9)
        people = People(
            t_ns=t_ns,
            track_id=np.array(tracks, np.int64),
            confirmed=np.ones(n, bool),
            position_m=np.array(place, float).reshape(n, 2),
            position_sd_m=np.full(n, 0.05),
            joints_m=np.full((n, 17, 3), np.nan),
            joints_sd_m=np.full((n, 17), np.nan),
            seen_ns=np.full(n, t_ns),
            identity=np.full(n, identity),
        )
        self.results += self.visits.step(people, vouched)
        self.closed += self.visits.finished(t_ns - 10**9)

    def entered(self) -> dict[int, str | None]:
        return {result.track_id: result.account for result in self.results if isinstance(result, PersonEntered)}

    def left(self) -> set[int]:
        return {result.track_id for result in self.results if isinstance(result, PersonLeft)}


def through(start_s: float, entry_x: float = 1.5) -> list[tuple[float, float, float]]:
    """In at the entry, a round, out at the exit; crosses the entry one second after the start."""
    return [(start_s, entry_x, -1.0), (start_s + 2, entry_x, 1.0), (start_s + 8, 6.5, 1.0), (start_s + 10, 6.5, -1.0)]


def test_a_scan_binds_to_the_person_who_crosses():
    store = Shop().run({7: through(0.0)}, {0.3: "alice"})
    assert store.entered() == {7: "alice"}
    assert store.left() == {7}
    (visit,) = store.closed
    assert visit.account == "alice" and visit.members == {7}
    # The instants are those of the crossings, not of the steps after them.
    assert visit.enter_ns - START_NS == pytest.approx(1.0e9, abs=0.02e9)
    assert visit.exit_ns - START_NS == pytest.approx(9.0e9, abs=0.02e9)


def test_two_in_a_queue_keep_their_own_scans():
    # Both have scanned before the first of them crosses.
    queue = {
        1: [(0.0, 1.5, -0.3), (3.0, 1.5, -0.3), (4.0, 1.5, 1.0), (10.0, 3.0, 3.0)],
        2: [(1.0, 1.5, -0.9), (4.0, 1.5, -0.3), (6.0, 1.5, 1.0), (10.0, 4.0, 4.0)],
    }
    assert Shop().run(queue, {0.5: "alice", 2.0: "bob"}).entered() == {1: "alice", 2: "bob"}


def test_a_tailgater_has_no_account_and_takes_no_scan():
    store = Shop().run({1: through(0.0), 2: through(1.0)}, {0.3: "alice"})
    assert store.entered() == {1: "alice", 2: None}
    assert any(isinstance(result, Warning) and result.kind == "no credential" for result in store.results)
    assert sorted(str(visit.account) for visit in store.closed) == ["None", "alice"]


def test_a_scan_may_come_a_moment_after_the_crossing():
    assert Shop().run({1: through(0.0)}, {1.4: "alice"}).entered() == {1: "alice"}


def test_a_scan_after_a_person_slipped_in_is_not_theirs():
    """The person who scanned is not seen outside, as where no camera covers it."""
    paths = {1: through(0.0), 2: [(4.4, 1.5, 0.3), (8.0, 3.0, 3.0), (12.0, 4.0, 4.0)]}
    assert Shop().run(paths, {3.0: "alice"}).entered() == {1: None, 2: "alice"}


def test_a_person_who_was_elsewhere_did_not_scan():
    paths = {
        1: [(0.0, 1.5, -4.0), (4.0, 1.5, -1.0), (5.0, 1.5, 1.0), (9.0, 3.0, 3.0)],
        2: [(6.0, 1.5, 0.3), (9.0, 4.0, 4.0)],
    }
    assert Shop().run(paths, {0.5: "alice"}).entered() == {1: None, 2: "alice"}


def test_two_at_the_gate_with_one_scan_is_a_doubt():
    paths = {
        1: [(0.0, 1.3, -0.6), (2.0, 1.3, -0.6), (3.5, 1.3, 1.0), (9.0, 3.0, 3.0)],
        2: [(0.0, 1.8, -0.6), (2.5, 1.8, -0.6), (4.0, 1.8, 1.0), (9.0, 4.0, 4.0)],
    }
    store = Shop().run(paths, {1.0: "alice"})
    assert sorted(map(str, store.entered().values())) == ["None", "alice"]
    (alice,) = [visit for visit in store.visits.unfinished() if visit.account == "alice"]
    assert [doubt.kind for doubt in alice.doubts] == [ReasonKind.UNSCANNED_BESIDE]


def test_one_account_scanned_twice_is_one_visit():
    store = Shop().run({1: through(0.0), 2: through(3.0)}, {0.3: "family", 3.3: "family"})
    (visit,) = store.closed
    assert visit.members == {1, 2} and visit.account == "family"
    assert visit.exit_ns - START_NS == pytest.approx(12.0e9, abs=0.02e9)


def test_coming_back_later_is_another_visit():
    store = Shop().run({1: through(0.0), 2: through(20.0)}, {0.3: "alice", 20.3: "alice"})
    assert [visit.account for visit in store.closed] == ["alice", "alice"]
    assert len({visit.id for visit in store.closed}) == 2


def test_a_person_who_turns_back_leaves_the_scan_for_the_next():
    back = {1: [(0.0, 1.5, -1.0), (0.9, 1.5, -0.2), (2.0, 1.5, -1.2)], 2: through(5.0)}
    store = Shop().run(back, {0.5: "alice"})
    assert store.entered() == {2: "alice"}
    # It may be another person, who must not be charged on alice's account without a review.
    (visit,) = store.closed
    assert [doubt.kind for doubt in visit.doubts] == [ReasonKind.SCANNED_PERSON_LOST]


def test_a_person_lost_from_sight_for_a_moment_at_the_gate_keeps_the_scan():
    blink = {1: [(0.0, 1.5, -1.0), (0.9, 1.5, -0.4)], 2: [(1.4, 1.5, -0.3), *through(1.5)[1:]]}
    store = Shop().run(blink, {0.5: "alice"})
    assert store.entered() == {2: "alice"}
    (visit,) = store.closed
    assert visit.doubts == []


def test_staff_have_no_visit():
    store = Shop().run({1: through(0.0)}, {0.3: ("staff", "badge-4")})
    (entered,) = [result for result in store.results if isinstance(result, PersonEntered)]
    assert entered.staff and entered.visit is None
    assert store.closed == []


def test_a_credential_that_the_gate_does_not_take_is_refused_and_counted():
    store = Shop().run({1: through(0.0)}, {0.3: ("face", "template")})
    assert store.entered() == {1: None}
    assert store.visits.ignored["gate: credential not accepted there"] == 1


def test_an_unknown_gate_is_counted():
    visits = Visits(shop())
    assert visits.at_gate(GateScan(START_NS, "nowhere", "qr", "token"))[0].subject == "nowhere"
    assert visits.ignored == {"gate: unknown gate": 1}


def test_vanishing_at_the_exit_is_leaving():
    path = [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (8.0, 6.5, 1.0), (8.6, 6.5, 0.4)]
    store = Shop().run({1: path}, {0.3: "alice"})
    assert store.left() == {1}
    assert store.closed[0].exit_ns - START_NS == pytest.approx(8.6e9, abs=0.11e9)


def test_vanishing_inside_keeps_the_visit_open_until_a_track_reappears_there():
    lost = [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0)]
    found = [(7.0, 4.5, 4.2), (11.0, 6.5, 1.0), (13.0, 6.5, -1.0)]
    store = Shop().run({1: lost, 9: found}, {0.3: "alice"})
    (visit,) = store.closed
    assert visit.members == {1, 9} and visit.account == "alice"
    assert visit.identity < 1.0, "the doubt must reach the receipt"


def test_two_lost_people_are_never_guessed():
    paths = {
        1: [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (6.0, 4.0, 4.0)],
        2: [(3.0, 1.5, -1.0), (5.0, 1.5, 1.0), (9.0, 4.2, 4.0)],
        9: [(11.0, 4.1, 4.0), (15.0, 6.5, 1.0), (17.0, 6.5, -1.0)],
    }
    store = Shop().run(paths, {0.3: "alice", 3.3: "bob"})
    assert store.entered()[9] is None
    assert all(visit.doubts for visit in store.visits.unfinished())


def test_a_person_lost_for_good_leaves_a_doubt():
    store = Shop()
    store.run({1: [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0)]}, {0.3: "alice"})
    store.results += store.visits.end(START_NS + round(10e9))
    (visit,) = store.visits.finished(2**62)
    assert visit.doubts == [Reason(ReasonKind.LOST_INSIDE)]


def test_an_uncertain_identity_stays_with_the_visit():
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    for k, (y, identity) in enumerate([(-0.5, 1.0), (-0.2, 1.0), (0.3, 1.0), (0.8, 0.6), (1.0, 1.0)]):
        store.step(0.1 * k, [1], [(1.5, y)], identity)
    (visit,) = store.visits.unfinished()
    assert visit.identity == 0.6


def test_walking_to_and_fro_on_the_line_is_not_a_crossing():
    path = [(0.2 * k, 1.5, 0.08 * (-1) ** k - 0.02) for k in range(20)]
    assert Shop().run({1: path}, {0.3: "alice"}).entered() == {}


def test_unused_scans_expire_and_are_counted():
    store = Shop().run({1: [(0.0, 5.0, 5.0), (40.0, 5.0, 5.0)]}, {0.5: "alice"})
    assert store.visits.ignored["gate: scan without anybody coming in"] == 1


def test_state_does_not_grow_with_people_who_have_left():
    store = Shop()
    for k in range(30):
        store.run({k: [(t + 100 * k, x, y) for t, x, y in through(0.0)]}, {})
    assert store.visits.n_followed <= 2
    assert store.visits.unfinished() == []


def test_a_group_is_billed_when_its_last_member_has_left():
    """The first exit must not close the visit while a companion is still inside."""
    stays = [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (25.0, 4.0, 4.0), (30.0, 6.5, 1.0), (32.0, 6.5, -1.0)]
    store = Shop().run({1: through(3.0), 2: stays}, {0.3: "family", 3.3: "family"})
    (visit,) = store.closed
    assert visit.members == {1, 2}
    assert visit.exit_ns - START_NS == pytest.approx(31.0e9, abs=0.02e9)


def walk_hidden(store: Shop, path: list[tuple[float, float, float]], n_steps: int, hidden: list[tuple[float, float]]):
    """One track along way points (second, x, y), without its track in the hidden spans of seconds."""
    for k in range(n_steps):
        t_s = 0.1 * k
        place = [[np.interp(t_s, *np.array(path)[:, [0, i]].T) for i in (1, 2)]]
        is_hidden = any(first < t_s < last for first, last in hidden)
        store.step(t_s, [] if is_hidden else [1], [] if is_hidden else place)


def test_the_same_track_seen_again_is_still_inside():
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0), (9.0, 4.5, 4.0), (12.0, 6.5, 1.0), (14.0, 6.5, -1.0)]
    walk_hidden(store, path, 170, [(5.0, 9.0), (14.0, 1e9)])
    (visit,) = store.closed
    assert visit.members == {1} and not visit.doubts and visit.identity == 1.0
    assert visit.exit_ns - START_NS == pytest.approx(13.0e9, abs=0.02e9)


def test_a_person_hidden_at_the_exit_who_continues_to_shop_has_not_left():
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (6.0, 6.5, 0.6), (8.0, 6.3, 1.8), (12.0, 6.5, 1.0), (14.0, 6.5, -1.0)]
    walk_hidden(store, path, 170, [(6.0, 8.0), (14.0, 1e9)])
    (visit,) = store.closed
    assert visit.account == "alice"
    assert visit.exit_ns - START_NS == pytest.approx(13.0e9, abs=0.02e9)


def test_a_person_who_shops_after_the_bill_has_a_second_visit_without_account():
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (6.0, 6.5, 0.6), (16.0, 6.3, 2.5), (22.0, 6.5, 1.0), (24.0, 6.5, -1.0)]
    walk_hidden(store, path, 270, [(6.0, 16.0), (24.0, 1e9)])
    assert [visit.account for visit in store.closed] == ["alice", None]


def test_staff_hidden_for_a_while_are_still_staff():
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "staff", "badge-4"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0), (20.0, 4.5, 4.0)]
    walk_hidden(store, path, 200, [(5.0, 9.0)])
    assert store.visits.is_staff(1)
    assert store.visits.unfinished() == [] and not [result for result in store.results if isinstance(result, Warning)]


# ---- newcomers who are first located past the door -------------------------------------------------------------------


def appears(start_s: float, x: float, y: float, stays_s: float = 6.0) -> list[tuple[float, float, float]]:
    """First located at a place inside, past every line, then deeper in the store."""
    return [(start_s, x, y), (start_s + 1.0, x + 0.5, y + 1.0), (start_s + stays_s, 4.0, 4.0)]


def doubts_of(store: Shop, account: str | None) -> list[ReasonKind]:
    visits = [*store.closed, *store.visits.unfinished()]
    (visit,) = [visit for visit in visits if visit.account == account]
    return [doubt.kind for doubt in visit.doubts]


# Beside the drawn line, by less than a step; straight ahead, past the reach of the line.
@pytest.mark.parametrize("place", [(2.41, 0.8), (0.5, 0.3), (1.5, 1.7), (2.2, 1.6)])
@pytest.mark.parametrize("after_s", [0.5, 1.5, 3.0])
def test_one_scan_and_one_newcomer_beside_the_door_are_a_pair(place: tuple[float, float], after_s: float):
    store = Shop().run({1: appears(1.0 + after_s, *place)}, {1.0: "alice"})
    assert store.entered() == {1: "alice"}
    assert doubts_of(store, "alice") == []
    (visit,) = store.visits.unfinished()
    assert visit.identity > 0.95 and visit.enter_ns == START_NS + round((1.0 + after_s) * 1e9)


def test_a_newcomer_who_cannot_have_walked_there_made_no_scan():
    store = Shop().run({1: appears(1.1, 6.0, 4.5)}, {1.0: "alice"})
    assert store.entered() == {1: None}


def test_a_newcomer_long_after_the_scan_has_it_with_a_doubt_or_not_at_all():
    store = Shop().run({1: appears(26.0, 1.5, 2.0)}, {1.0: "alice"})
    assert store.entered() == {1: "alice"}
    assert doubts_of(store, "alice") == [ReasonKind.SCAN_UNCERTAIN]
    store = Shop().run({1: appears(24.0, 5.0, 4.0)}, {1.0: "alice"})
    assert store.entered() == {1: None}


def test_two_newcomers_and_one_scan_go_to_review():
    store = Shop().run({1: appears(2.0, 1.2, 1.8), 2: appears(2.1, 1.8, 1.8)}, {1.0: "alice"})
    assert sorted(map(str, store.entered().values())) == ["None", "alice"]
    assert ReasonKind.SCAN_UNCERTAIN in doubts_of(store, "alice")
    (alice,) = [visit for visit in store.visits.unfinished() if visit.account == "alice"]
    (other,) = [visit for visit in store.visits.unfinished() if visit.account is None]
    assert alice.unidentified == [other.id]


def test_a_newcomer_who_appears_after_another_took_the_scan_is_a_doubt_for_it():
    store = Shop().run({1: appears(1.5, 1.5, 1.8), 2: appears(4.5, 1.5, 1.6)}, {1.0: "alice"})
    assert store.entered() == {1: "alice", 2: None}
    assert ReasonKind.UNSCANNED_BESIDE in doubts_of(store, "alice")


def test_two_scans_and_one_newcomer_go_to_review():
    store = Shop().run({1: appears(2.5, 1.5, 1.8)}, {1.0: "alice", 1.3: "bob"})
    (account,) = store.entered().values()
    assert account in ("alice", "bob") and ReasonKind.SCAN_UNCERTAIN in doubts_of(store, account)


def test_two_scans_and_two_newcomers_in_turn_keep_their_own():
    paths = {1: appears(1.5, 1.5, 1.8), 2: appears(9.5, 1.5, 1.8)}
    assert Shop().run(paths, {1.0: "alice", 9.0: "bob"}).entered() == {1: "alice", 2: "bob"}


def test_a_person_who_passes_beside_the_line_keeps_their_scan():
    """The line is drawn narrower than the door, and the floor reaches beyond it."""
    wide = shop(floor=((0.0, -2.0), (8.0, -2.0), (8.0, 6.0), (0.0, 6.0)))
    path = [(0.0, 2.3, -0.6), (1.0, 2.3, -0.6), (2.0, 2.6, 0.6), (4.0, 3.5, 3.0), (9.0, 4.0, 4.0)]
    assert Shop(wide).run({1: path}, {0.5: "alice"}).entered() == {1: "alice"}


def test_a_lost_person_who_is_found_again_takes_no_fresh_scan():
    paths = {
        1: [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0)],
        9: [(10.0, 4.2, 4.0), (14.0, 4.0, 4.0)],
    }
    store = Shop().run(paths, {0.3: "alice", 8.5: "bob"})
    assert store.entered() == {1: "alice", 9: "alice"}


@pytest.mark.parametrize(("start_s", "doubts"), [(20.0, []), (30.0, [ReasonKind.LOST_AMONG_OTHERS])])
def test_who_is_found_again_may_have_made_a_scan_that_is_uncertain(start_s: float, doubts: list[ReasonKind]):
    """The newcomer to whom the scan was bound may be the lost person."""
    alice = [(0.0, 1.5, -1.0), (2.0, 1.5, 1.0), (4.0, 1.8, 2.0)]
    paths = {1: alice, 2: appears(start_s, 2.2, 2.4), 9: appears(start_s + 6.0, 4.0, 4.0)}
    store = Shop().run(paths, {0.3: "alice", 6.5: "bob"})
    assert store.entered() == {1: "alice", 2: "bob", 9: "alice"}
    assert (ReasonKind.SCAN_UNCERTAIN in doubts_of(store, "bob")) == bool(doubts)
    assert doubts_of(store, "alice") == doubts


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_pairings_are_the_share_of_all_assignments(n_newcomers: int, n_scans: int, seed: int):
    rng = np.random.default_rng(seed)
    density = rng.exponential(size=(n_newcomers, n_scans)) * (rng.random((n_newcomers, n_scans)) < 0.8)
    unscanned, unseen = rng.uniform(0.01, 1.0, n_newcomers), rng.uniform(0.05, 1.0, n_scans)
    total, joint = 0.0, np.zeros((n_newcomers, n_scans))
    for chosen in itertools.product(range(-1, n_scans), repeat=n_newcomers):
        taken = [scan for scan in chosen if scan >= 0]
        if len(set(taken)) < len(taken):
            continue
        pairs = [unscanned[i] if scan < 0 else density[i, scan] for i, scan in enumerate(chosen)]
        weight = np.prod(pairs) * np.prod(np.delete(unseen, taken))
        total += weight
        for newcomer, scan in enumerate(chosen):
            if scan >= 0:
                joint[newcomer, scan] += weight
    np.testing.assert_allclose(pairings(density, unscanned, unseen), joint / total, rtol=1e-9, atol=1e-12)


# ---- scans that nothing came of --------------------------------------------------------------------------------------


def test_a_scan_without_a_person_is_a_visit_in_review():
    """Cameras see nothing at the door, so the shopper may be inside."""
    store = Shop().run({9: [(0.0, 5.0, 5.0), (40.0, 6.5, 5.0)]}, {5.0: "alice"})
    (alice,) = [visit for visit in store.closed if visit.account == "alice"]
    assert not alice.members and alice.doubts == [Reason(ReasonKind.SCAN_UNBOUND, gate="entry")]
    assert [result.kind for result in store.results if isinstance(result, Warning)][-1] == "scan unbound"


def test_who_came_in_meanwhile_is_named():
    """The newcomer is too far away to have walked there, as if their track had been another's at first."""
    store = Shop().run({1: [(5.2, 6.0, 5.0), (8.0, 4.5, 5.0), (50.0, 4.5, 5.0)]}, {5.0: "alice"})
    (alice,) = [visit for visit in store.closed if visit.account == "alice"]
    (other,) = store.visits.unfinished()
    assert other.account is None and alice.unidentified == [other.id]


@pytest.mark.parametrize(
    "path",
    [
        [(0.0, 1.5, -0.5), (3.0, 1.5, -0.5), (8.0, 1.5, -4.0)],
        [(0.0, 1.5, -0.5), (45.0, 1.5, -0.5)],
        [(0.0, 1.5, -0.5), (2.0, 1.5, -0.1), (6.0, -2.0, -0.5), (45.0, -3.0, -0.5)],
    ],
)
def test_a_person_who_was_seen_turning_back_has_no_receipt(path: list[tuple[float, float, float]]):
    store = Shop().run({1: path, 9: [(0.0, 5.0, 5.0), (45.0, 6.5, 5.0)]}, {1.0: "alice"})
    assert [visit.account for visit in (*store.closed, *store.visits.unfinished())] == [None]
    assert store.visits.ignored["gate: scan without anybody coming in"] == 1


def test_a_person_lost_from_sight_at_the_gate_has_a_review():
    path = [(0.0, 1.5, -0.5), (3.0, 1.5, -0.3)]
    store = Shop().run({1: path, 9: [(0.0, 5.0, 5.0), (45.0, 6.5, 5.0)]}, {1.0: "alice"})
    assert [visit.account for visit in store.closed] == ["alice"]


def test_a_repeated_scan_of_a_visit_is_none_of_its_own():
    other = {9: [(0.0, 5.0, 5.0), (60.0, 5.0, 5.0)]}
    store = Shop().run({1: through(0.0), **other}, {0.3: "alice", 0.6: "alice", 12.0: ("staff", "badge-4")})
    assert [visit.account for visit in store.closed] == ["alice"]


def test_scans_while_no_camera_reports_are_visits_in_review():
    visits = Visits(shop())
    visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    for k in range(0, 40):
        visits.idle(START_NS + k * 10**9)
    (visit,) = visits.finished(2**62)
    assert visit.account == "alice" and [doubt.kind for doubt in visit.doubts] == [ReasonKind.SCAN_UNBOUND]


def test_scans_that_wait_when_the_streams_end_are_visits_in_review():
    visits = Visits(shop())
    visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    visits.end(START_NS + 5 * 10**9)
    assert [visit.account for visit in visits.finished(2**62)] == ["alice"]


# ---- cameras that are all silent -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("silent_s", "doubted"), [(2.0, False), (8.0, True)])
def test_who_was_inside_while_no_camera_reported_is_doubted(silent_s: float, doubted: bool):
    store = Shop()
    store.visits.at_gate(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0), (14.0, 4.5, 4.0), (17.0, 6.5, 1.0), (19.0, 6.5, -1.0)]
    for k in range(230):
        t_s = 0.1 * k
        if 5.0 < t_s < 5.0 + silent_s:
            store.results += store.visits.idle(START_NS + round(t_s * 1e9))
            continue
        place = [[np.interp(t_s, *np.array(path)[:, [0, i]].T) for i in (1, 2)]]
        store.step(t_s, [1] if t_s < 19.0 else [], place if t_s < 19.0 else [])
    (visit,) = store.closed
    assert [doubt.kind for doubt in visit.doubts] == [ReasonKind.CAMERAS_SILENT] * doubted


# ---- things that are taken for people --------------------------------------------------------------------------------


def still(shop: Shop, place: tuple[float, float], seconds: float, vouched=lambda track_id: True, spread_m=0.1) -> Shop:
    """Track 7 stays at a place, give or take a few centimetres."""
    rng = np.random.default_rng(2)
    for k in range(round(seconds / STEP_S)):
        shop.step(k * STEP_S, [7], [rng.normal(place, spread_m)], vouched=vouched)
    return shop


@pytest.mark.parametrize(
    "place", [(5.0, 5.0), (8.05, 5.0), (1.5, 0.6)], ids=["coat", "chair behind glass", "umbrella stand"]
)
def test_a_thing_that_stays_where_it_is_makes_no_visit(place: tuple[float, float]):
    assert still(Shop(), place, 60.0).visits.unfinished() == []


def test_a_person_whom_nobody_saw_entering_makes_a_visit_once_they_walk():
    shop = Shop().run({1: [(0.0, 5.0, 5.0), (20.0, 5.0, 5.0), (22.0, 6.5, 5.0)]}, {})
    (visit,) = shop.visits.unfinished()
    assert visit.account is None and visit.members == {1} and visit.enter_ns is None


def test_hands_make_a_person_of_whoever_stands_still():
    shop = still(Shop(), (5.0, 5.0), 3.0, vouched=lambda track_id: False)
    shop.visits.moved_goods(7)
    (visit,) = still(shop, (5.0, 5.0), 0.2, vouched=lambda track_id: False).visits.unfinished()
    assert visit.account is None and visit.members == {7}


def test_a_track_that_cameras_do_not_agree_on_makes_no_visit_until_they_do():
    shop, agreed = Shop(), False
    for k in range(40):
        shop.step(k * STEP_S, [7], [(3.0 + 0.1 * k, 5.0)], vouched=lambda track_id: agreed)
    assert shop.visits.unfinished() == []
    agreed = True
    shop.step(40 * STEP_S, [7], [(7.0, 5.0)], vouched=lambda track_id: agreed)
    assert [visit.account for visit in shop.visits.unfinished()] == [None]


# ---- gates whose clock is off ----------------------------------------------------------------------------------------


def three_in_turn() -> dict[int, list[tuple[float, float, float]]]:
    """Three people five seconds apart: to the gate, a second at it, and in."""
    steps = [(0.0, 1.5, -2.5), (2.0, 1.5, -0.6), (3.0, 1.5, -0.6), (6.0, 1.5, 3.0)]
    return {i: [*((5.0 * i + t_s, x, y) for t_s, x, y in steps), (60.0, 1.0 + i, 4.0)] for i in range(3)}


@pytest.mark.parametrize("late_s", [-2.0, 5.0])
def test_scans_by_a_clock_that_is_off_doubt_whoever_has_anothers(late_s: float):
    """Each has the scan of the one before or after."""
    scans = {5.0 * i + 2.5 + late_s: f"account{i}" for i in range(3)}
    store = Shop().run(three_in_turn(), scans)
    for track, account in store.entered().items():
        if account is not None and account != f"account{track}":
            assert ReasonKind.SCANS_SHIFTED in doubts_of(store, account)
    assert any(account != f"account{track}" for track, account in store.entered().items())


@pytest.mark.parametrize("late_s", [-0.3, 0.0, 0.5])
def test_scans_in_time_doubt_no_person(late_s: float):
    # Every credential is read twice.
    scans = {5.0 * i + 2.5 + late_s + again_s: f"account{i}" for i in range(3) for again_s in (0.0, 0.4)}
    store = Shop().run(three_in_turn(), scans)
    assert store.entered() == {track: f"account{track}" for track in range(3)}
    assert [doubts_of(store, f"account{i}") for i in range(3)] == [[], [], []]
