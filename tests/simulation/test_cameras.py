"""Frames show the people who are there, with the noise that was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from simulation.runs import SHORT, run

from fusion.observations import Frame
from fusion.simulation.optics import Lens


def test_detections_lie_on_the_joints(store):
    simulation, observations = run(
        store,
        keypoint_noise=0.0,
        outlier_probability=0.0,
        swap_probability=0.0,
        ghosts_per_frame=0.0,
        clock_offset_max_s=0.0,
        minutes=0.8,
        shoppers=2,
    )
    errors, found = [], 0
    by_time = {people.t_ns: people for people in simulation.truth.people}
    lenses = {camera.name: Lens.of(camera) for camera in store.cameras}
    step_ns = 10**8
    for frame in (o for o in observations if isinstance(o, Frame)):
        before = frame.t_ns - (frame.t_ns - SHORT.start_ns) % step_ns
        a, b = by_time.get(before), by_time.get(before + step_ns)
        if a is None or b is None or list(a.person) != list(b.person):
            continue
        share = (frame.t_ns - before) / step_ns
        joints_px, _ = lenses[frame.camera].project(a.joints_m + share * (b.joints_m - a.joints_m))
        for detection in frame.keypoints:
            seen = (detection[:, 2] > 0.6) & ~np.isnan(joints_px).any(axis=(0, 2))
            if seen.sum() < 3:
                continue
            gap = np.linalg.norm(joints_px[:, seen] - detection[None, seen, :2], axis=-1)
            errors.append(np.median(gap, axis=1).min())
            found += 1
    assert found > 300
    # Between two instants of the truth a joint moves on a curve and not on a chord: a few millimetres.
    assert np.percentile(errors, 95) < 3.0
    assert np.median(errors) < 1.0


def test_noise_is_what_was_asked_for(store):
    still, loud = (
        [
            o.keypoints
            for o in run(store, keypoint_noise=k, shoppers=2, minutes=0.7, outlier_probability=0.0)[1]
            if isinstance(o, Frame)
        ]
        for k in (0.0, 1.0)
    )
    gaps = []
    for a, b in zip(still, loud):
        # Detections come in random order, the same in both runs unless a person is found in one of them only.
        if len(a) == len(b) == 1:
            both = (a[0, :, 2] > 0.6) & (b[0, :, 2] > 0.6)
            gaps += np.linalg.norm(a[0, both, :2] - b[0, both, :2], axis=-1).tolist()
    assert 1.0 < np.median(gaps) < 6.0


def test_an_outage_lasts_as_long_as_asked(store):
    _, observations = run(store, cameras_out=1, outage_share=0.8)
    seen = Counter(o.camera for o in observations if isinstance(o, Frame))
    share = min(seen.values()) / max(seen.values())
    assert share == pytest.approx(0.2, abs=0.08)
    with pytest.raises(ValueError, match="outage_share"):
        replace(SHORT, outage_share=1.5)


def test_other_layouts(store):
    for keypoints, dim in (("body25", 0), ("box2", 16)):
        other = store.model_copy(update={"keypoints": keypoints, "appearance_dim": dim})
        simulation, observations = run(other, minutes=0.7, shoppers=2)
        frames = [o for o in observations if isinstance(o, Frame)]
        assert sum(len(frame.keypoints) for frame in frames) > 100
        for frame in frames:
            assert frame.keypoints.shape[1:] == (other.layout.n_joints, 3)
            assert dim == 0 or frame.appearance.shape == (len(frame.keypoints), dim)
        assert simulation.truth.people[0].joints_m.shape[1:] == (other.layout.n_joints, 3)
