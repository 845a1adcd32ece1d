"""The smallest valid store, for tests that change one thing of it."""

from __future__ import annotations

from fusion.store.models import Store


def bare_shop(**values: object) -> Store:
    """A shop of 8 x 6 m without gates, cameras, plates or products; `values` replace or add keys."""
    base: dict[str, object] = {
        "format_version": 1,
        "id": "shop",
        "name": "Shop",
        "currency": "EUR",
        "timezone": "Europe/Berlin",
        "floor": ((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)),
        "keypoints": "coco17",
    }
    return Store.model_validate(base | values)
