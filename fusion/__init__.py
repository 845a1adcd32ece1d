"""Who took what, and how sure: a fusion engine for checkout-free stores.

Load a `Store`, make an `Engine`, feed it `Frame`, `ShelfReading`, `GateScan` and `ItemSighting` as they come, and get
typed results back (`fusion.results`). `replay` runs a recording; `triangulate` and `reconstruct` need no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion.engine import Engine as Engine
    from fusion.errors import ConfigError as ConfigError
    from fusion.errors import FusionError as FusionError
    from fusion.files.recordings import Recording as Recording
    from fusion.observations import Frame as Frame
    from fusion.observations import GateScan as GateScan
    from fusion.observations import ItemSighting as ItemSighting
    from fusion.observations import ShelfReading as ShelfReading
    from fusion.people.geometry import Rig as Rig
    from fusion.people.geometry import triangulate as triangulate
    from fusion.people.tracks import reconstruct as reconstruct
    from fusion.run import replay as replay
    from fusion.setup.calibrate import calibrate as calibrate
    from fusion.setup.check import check as check
    from fusion.store.models import Store as Store

__version__ = "0.1.0"

# Where each public name lives. They are imported when first asked for: `import fusion` stays quick, and a program that
# only reads store folders never waits for the kernels.
_HOMES = {
    "ConfigError": "errors",
    "Engine": "engine",
    "Frame": "observations",
    "FusionError": "errors",
    "GateScan": "observations",
    "ItemSighting": "observations",
    "Recording": "files.recordings",
    "Rig": "people.geometry",
    "ShelfReading": "observations",
    "Store": "store.models",
    "calibrate": "setup.calibrate",
    "check": "setup.check",
    "reconstruct": "people.tracks",
    "replay": "run",
    "triangulate": "people.geometry",
}

__all__ = [
    "ConfigError",
    "Engine",
    "Frame",
    "FusionError",
    "GateScan",
    "ItemSighting",
    "Recording",
    "Rig",
    "ShelfReading",
    "Store",
    "calibrate",
    "check",
    "reconstruct",
    "replay",
    "triangulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusion' has no attribute {name!r}")
    # Bound here so that the next look-up finds it at once.
    globals()[name] = value = getattr(importlib.import_module(f"fusion.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
