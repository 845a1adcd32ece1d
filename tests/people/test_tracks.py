"""The table of tracks: rows are recycled, ids are not."""

from __future__ import annotations

import numpy as np
from people.rooms import store

from fusion.people.geometry import Rig
from fusion.people.tracks import Tracks
from fusion.people.workspace import Workspace
from fusion.store.layouts import LAYOUTS

COCO = LAYOUTS["coco17"]


def table(capacity: int = 4) -> Tracks:
    return Tracks(Workspace(Rig.from_cameras(store(n_views=2).cameras), COCO, 0, capacity))


def test_a_track_from_birth_to_end():
    tracks = table()
    row = tracks.claim()
    tracks.begin(row, 100, np.array([1.0, 2.0]), n_views=2)
    tracks.add(row)
    assert tracks.live.tolist() == [row] and tracks.track_id[row] == -1 and not tracks.confirmed[row]
    tracks.track_id[row] = tracks.new_id()
    tracks.remove(row)
    tracks.end(row)
    assert tracks.ended() == [1] and tracks.ended() == []
    assert tracks.n_free == 4 and len(tracks.live) == 0


def test_an_unnamed_track_ends_silently():
    tracks = table()
    tracks.end(tracks.claim())
    assert tracks.ended() == []


def test_rows_come_again_and_ids_do_not():
    tracks = table(capacity=1)
    ids = []
    for _ in range(5):
        row = tracks.claim()
        tracks.track_id[row] = tracks.new_id()
        ids.append(int(tracks.track_id[row]))
        tracks.end(row)
    assert ids == [1, 2, 3, 4, 5]
    assert tracks.ended() == [2, 3, 4, 5], "the newest four of a table of one row"


def test_a_live_array_is_replaced_not_changed():
    tracks = table()
    before = tracks.live
    tracks.add(tracks.claim())
    assert len(before) == 0 and tracks.live is not before


def test_covariances_of_positions_are_symmetric_blocks():
    tracks = table()
    cov = tracks.states().cov
    rng = np.random.default_rng(0)
    root = rng.normal(0, 1, (cov.shape[2], 6, 6))
    full = root @ root.swapaxes(-1, -2)
    cov[2] = full[:, *np.tril_indices(6)].T
    np.testing.assert_array_equal(tracks.position_cov_m2(np.array([2]))[0], full[: COCO.n_joints, :3, :3])
