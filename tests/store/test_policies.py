"""Policies about carts and sightings: read strictly, written back exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion.errors import ConfigError
from fusion.simulation import demo_store
from fusion.store.models import CartPolicy, ItemsPolicy, Store


def test_policies_are_read_strictly_and_written_back(tmp_path: Path) -> None:
    store = demo_store(2, 4).model_copy(
        update={"carts": CartPolicy(hand_over="carrier"), "items": ItemsPolicy(read_miss_rate=0.1, seen_miss_rate=0.4)}
    )
    store.save(tmp_path)
    assert Store.load(tmp_path) == store
    text = (tmp_path / "store.toml").read_text()
    for wrong, message in [
        (text.replace('"carrier"', '"thief"'), "store.toml: carts.hand_over"),
        (text.replace("hand_over", "handover"), "store.toml: carts.handover: unknown key"),
        (text.replace("read_miss_rate = 0.1", "read_miss_rate = 1.0"), "store.toml: items.read_miss_rate"),
    ]:
        (tmp_path / "store.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=message):
            Store.load(tmp_path)
