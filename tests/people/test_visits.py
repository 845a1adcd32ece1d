"""People at the gates: scans and their owners, exits, people lost on the way."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.observations import GateScan
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
                self.results += self.visits.scan(GateScan(START_NS + round(second * 1e9), "entry", kind, account))
            now = [(track, path) for track, path in paths.items() if path[0][0] <= t_s <= path[-1][0]]
            place = [[np.interp(t_s, *np.array(path)[:, [0, i]].T) for i in (1, 2)] for _, path in now]
            self.step(t_s, [track for track, _ in now], place)
        return self

    def step(self, t_s: float, tracks: list[int], place: list, identity: float = 1.0) -> None:
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
        self.results += self.visits.step(people)
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
    assert visits.scan(GateScan(START_NS, "nowhere", "qr", "token"))[0].subject == "nowhere"
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
    store.visits.scan(GateScan(START_NS, "entry", "account", "alice"))
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
    store.visits.scan(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0), (9.0, 4.5, 4.0), (12.0, 6.5, 1.0), (14.0, 6.5, -1.0)]
    walk_hidden(store, path, 170, [(5.0, 9.0), (14.0, 1e9)])
    (visit,) = store.closed
    assert visit.members == {1} and not visit.doubts and visit.identity == 1.0
    assert visit.exit_ns - START_NS == pytest.approx(13.0e9, abs=0.02e9)


def test_a_person_hidden_at_the_exit_who_continues_to_shop_has_not_left():
    store = Shop()
    store.visits.scan(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (6.0, 6.5, 0.6), (8.0, 6.3, 1.8), (12.0, 6.5, 1.0), (14.0, 6.5, -1.0)]
    walk_hidden(store, path, 170, [(6.0, 8.0), (14.0, 1e9)])
    (visit,) = store.closed
    assert visit.account == "alice"
    assert visit.exit_ns - START_NS == pytest.approx(13.0e9, abs=0.02e9)


def test_a_person_who_shops_after_the_bill_has_a_second_visit_without_account():
    store = Shop()
    store.visits.scan(GateScan(START_NS, "entry", "account", "alice"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (6.0, 6.5, 0.6), (16.0, 6.3, 2.5), (22.0, 6.5, 1.0), (24.0, 6.5, -1.0)]
    walk_hidden(store, path, 270, [(6.0, 16.0), (24.0, 1e9)])
    assert [visit.account for visit in store.closed] == ["alice", None]


def test_staff_hidden_for_a_while_are_still_staff():
    store = Shop()
    store.visits.scan(GateScan(START_NS, "entry", "staff", "badge-4"))
    path = [(0.0, 1.5, -0.5), (2.0, 1.5, 1.0), (5.0, 4.0, 4.0), (20.0, 4.5, 4.0)]
    walk_hidden(store, path, 200, [(5.0, 9.0)])
    assert store.visits.is_staff(1)
    assert store.visits.unfinished() == [] and not [result for result in store.results if isinstance(result, Warning)]
