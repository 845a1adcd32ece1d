"""The simulated shops of the accuracy benchmark: its cases, and the recording of each run."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fusion
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

# Deviations of every simulated shop from the engine's model.
UNMODELLED = {
    "place_gain_sd": 0.01,
    "creep_share": 0.004,
    "hum_g": 0.6,
    "batch_weight_sd": 0.006,
    "odd_reach_probability": 0.12,
    "calibration_error_px": 1.5,
}
# A poor detector: wrists missed a third of the time, more noise, more outliers and ghosts.
_POOR = {
    "keypoint_noise": 1.5,
    "joint_miss_probability": 0.08,
    "person_miss_probability": 0.08,
    "outlier_probability": 0.015,
    "swap_probability": 0.015,
    "ghosts_per_frame": 0.1,
}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `wanted` holds the targets: the least share of settled receipts that are right, and the greatest share of receipts
    sent to review. Runs alternate between shops with plates of 0.2 m and of 0.1 m; on the narrow plates half of all
    goods rest on two. `variants` replace parameters of the scenario in turn.
    """

    name: str
    title: str
    wanted: tuple[float, float]
    scenario: dict[str, float]
    shop: dict[str, float] = field(default_factory=dict)
    variants: tuple[dict[str, float], ...] = ({},)
    n_visits: int = 200

    @property
    def n_seeds(self) -> int:
        """Runs that together give n_visits."""
        return math.ceil(self.n_visits / self.scenario["shoppers"])


CASES = (
    Case(
        "calm",
        "calm, 1-3 people",
        (0.995, 0.03),
        # No shopper is sent to where another is about to reach; it happens by chance only.
        {"shoppers": 20, "minutes": 7.0, "neighbour_probability": 0.0},
    ),
    Case(
        "busy",
        "busy, 6-8 people, neighbouring picks within 0.5 s",
        (0.995, 0.08),
        {"shoppers": 30, "minutes": 4.3, "neighbour_probability": 0.6},
    ),
    Case(
        "crowd",
        "crowd, 12-15 people in 48 m2",
        (0.995, 0.08),
        {"shoppers": 40, "minutes": 3.6, "neighbour_probability": 0.3},
    ),
    Case(
        "putback",
        "put-backs, right and wrong place",
        (0.995, 0.10),
        {
            "shoppers": 20,
            "minutes": 5.0,
            "picks_per_person": 5.0,
            "put_back_probability": 0.5,
            "wrong_place_probability": 0.43,
            "misplaced_pieces": 20,
            "count_error_probability": 0.1,
        },
    ),
    Case(
        "look-alike",
        "look-alike weights side by side",
        (0.995, 0.25),
        {"shoppers": 20, "minutes": 5.0},
        shop={"look_alike_share": 0.6},
    ),
    Case(
        "companions",
        "companions, hand-over",
        (0.995, 0.10),
        {"shoppers": 14, "companions": 12, "minutes": 5.0, "hand_over_probability": 0.4},
    ),
    Case(
        "occluded",
        "occluded, 1-3 of 8 cameras out",
        (0.995, 0.15),
        {
            **_POOR,
            "shoppers": 20,
            "minutes": 4.0,
            "neighbour_probability": 0.3,
            "outage_share": 0.8,
        },
        shop={"n_cameras": 8},
        variants=({"cameras_out": 1}, {"cameras_out": 2}, {"cameras_out": 3}),
    ),
    Case(
        "flaky",
        "flaky plates, clock offset",
        (0.995, 0.15),
        {
            "shoppers": 20,
            "minutes": 5.0,
            "dead_plates": 2,
            "drifting_plates": 6,
            "gap_probability": 0.03,
            "message_jitter_s": 0.006,
            "clock_offset_max_s": 0.09,
            "plate_noise": 1.5,
            "shocks_per_minute": 2.0,
            "frame_drop_probability": 0.03,
        },
    ),
    Case(
        "restocking",
        "restocking, tailgating, child",
        (0.995, 0.10),
        {"shoppers": 20, "staff": 2, "tailgaters": 3, "children": 4, "minutes": 5.0},
    ),
)


@dataclass(frozen=True)
class Run:
    """One run to simulate: a shop and a scenario."""

    case: str
    seed: int
    scenario: Scenario
    shop: dict[str, Any]

    def store(self) -> Store:
        """The simulated shop's store folder, as a model."""
        return demo_store(**self.shop)

    def key(self) -> str:
        """Name of the recording: a hash of the scenario, the store and the simulator's source."""
        inputs = json.dumps([asdict(self.scenario), self.shop, _simulator_digest()], sort_keys=True)
        return f"{self.case}-{self.seed}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"


def _simulator_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted((Path(fusion.__file__).parent / "simulation").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_of(case: Case, seed: int, quick: bool = False) -> Run:
    """The run of a case at a seed. Quick: a quarter of the visits, at the same density."""
    parameters = {**UNMODELLED, **case.scenario, **case.variants[seed % len(case.variants)]}
    narrow = seed % 2 == 0
    if narrow:
        parameters["straddle_probability"] = 0.5
    if quick:
        for count in ("shoppers", "companions", "children", "tailgaters", "misplaced_pieces"):
            if parameters.get(count):
                parameters[count] = max(1, round(parameters[count] / 4))
        parameters["minutes"] = max(1.2, parameters["minutes"] / 4)
    plates = {"n_plates": 240, "n_products": 40, "plate_width_m": 0.1} if narrow else {"n_plates": 160}
    shop = {"n_cameras": 12, "look_alike_share": 0.1, "seed": seed, **plates, **case.shop}
    return Run(case.name, seed, Scenario(seed=seed, **parameters), shop)  # type: ignore[arg-type]


def recorded(run: Run, folder: Path) -> Path:
    """The run's recording under a folder; simulates it if it is not there yet."""
    path = folder / run.key()
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            # A recording appears whole or not at all: an interrupted run leaves none.
            written = Path(unfinished) / "recording"
            Simulation(run.store(), run.scenario).write(written)
            written.rename(path)
    return path
