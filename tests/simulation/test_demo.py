"""The demonstration shop is a valid store, whatever its size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fusion.simulation import demo_store
from fusion.simulation.optics import Lens, Obstacles
from fusion.store.models import Store


@pytest.mark.parametrize("n_plates", [1, 7, 80, 416, 520])
@pytest.mark.parametrize("n_cameras", [0, 1, 8])
def test_demo_store_is_valid(tmp_path, n_plates, n_cameras):
    store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
    store.save(tmp_path)
    assert Store.load(tmp_path) == store
    assert (len(store.plates), len(store.cameras)) == (n_plates, n_cameras)
    assert {facing.plate for facing in store.planogram} == {plate.plate for plate in store.plates}
    assert Obstacles(store).open[:, :4].sum() == len(store.obstacle.boxes), "every gondola is open on one side"


def test_demo_cameras_look_into_the_shop():
    for camera in demo_store(n_cameras=12).cameras:
        middle_px, depth_m = Lens.of(camera).project(np.array([4.0, 3.0, 1.0]))
        assert depth_m > 2.0
        assert np.all(np.abs(middle_px - np.array(camera.size) / 2) < 250)


def test_demo_store_look_alikes_lie_side_by_side():
    store = demo_store(look_alike_share=1.0)
    weight_g = {product.gtin: product.weight_g for product in store.products}
    first = [weight_g[facing.gtin] for facing in store.planogram]
    assert max(abs(a - b) for a, b in pairwise(first)) <= 2.0 + 1e-9


@pytest.mark.parametrize("knob", ["n_plates", "n_products"])
def test_demo_store_refuses_what_does_not_fit(knob):
    with pytest.raises(ValueError, match=knob):
        demo_store(**{knob: 5000})


def test_narrow_plates_stand_where_wide_ones_do():
    wide, narrow = demo_store(1, 80), demo_store(1, 160, plate_width_m=0.1)
    for store in (wide, narrow):
        x, y = ([getattr(plate, axis) for plate in store.plates] for axis in "xy")
        assert_allclose([min(x), max(x), min(y), max(y)], [0.3, 7.7, 2.8, 5.7], atol=0.11)
    assert {plate.width for plate in narrow.plates} == {0.1}
    with pytest.raises(ValueError, match="n_plates: want 1 to 1040"):
        demo_store(1, 1041, plate_width_m=0.1)
