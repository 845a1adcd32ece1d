"""How well people are followed in simulated crowds: identities, places, hands, honesty of the stated deviations.

    OMP_NUM_THREADS=1 python -m bench people                     all cases, five seeds: about ten minutes
    OMP_NUM_THREADS=1 python -m bench people --quick             all cases, one short seed: under a minute
    OMP_NUM_THREADS=1 python -m bench people --seeds 5 --out docs/figures

Only the tracker runs: no plates, no visits. Frames are grouped into sets as the engine groups them. The truth is the
simulated body at the instant of each set, not the ten rows a second of a recording, so no figure contains an
interpolation error.

Figures, each the mean over seeds with the half width of its 95 % confidence interval (Student's t):

- switches: changes of a person's track_id per minute of presence; of these *swaps*, where the new track was another
  person's before, and *silent* swaps, where the track states an `identity` of at least 0.9. No switch in n
  person-minutes over all seeds means fewer than 3 / n a minute with 95 % confidence.
- IDF1, MOTA at 0.5 m on the floor (Ristani et al. 2016; Bernardin and Stiefelhagen 2008), from each person's first
  frame on. People and tracks outside the floor polygon do not count.
- position: distance on the floor between track and person. wrist: distance in space, over reported wrists.
- reported: share of all wrists in the shop that are reported, so that a missed person's wrists count as missing.
- NEES, cov: e' P^-1 e of reported wrists with the tracker's own covariance P; an honest covariance gives 3.
- NEES, sd: |e|^2 / sd^2 with the single deviation in `People`, the root mean square over the three directions; an
  honest deviation gives 3. `over`: share of wrists for which it exceeds 7.81, the 95 % quantile of chi-squared with
  three degrees of freedom; 5 % is expected if the error is equal in all directions, more if it is not.
- named: share of the cameras without frames that a warning names; false: camera warnings about any other camera.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation
from scipy.stats import t as student

from fusion.observations import Frame
from fusion.order import SET_SPAN_NS
from fusion.people.tracker import Tracker
from fusion.results import People
from fusion.simulation import Scenario, Simulation, body, demo_store
from fusion.simulation.body import CHANNEL
from fusion.simulation.crowd import Crowd
from fusion.simulation.ticks import Tick, states_at
from fusion.store.models import Camera, Facing, Plate, Product, Store
from fusion.store.shapes import inside_polygon

GATE_M = 0.5
# A track with at least this identity probability counts as certain.
IDENTITY_CERTAIN = 0.9
CHI2_3_95 = 7.815

# ---- scoring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instant:
    """Truth and answer at one instant; places are (n, 2) on the floor.

    `people_count` is False for people who need not be tracked, `tracks_count` for tracks that are no false positives
    even if they follow no person. `identity` is the probability that each track reports.
    """

    people: np.ndarray
    people_m: np.ndarray
    people_count: np.ndarray
    tracks: np.ndarray
    tracks_m: np.ndarray
    tracks_count: np.ndarray
    identity: np.ndarray


@dataclass
class Identities:
    """Sums over instants. `matches`: for each instant (indices of people, indices of tracks) of the counted pairs."""

    n_truth: int = 0
    n_reported: int = 0
    misses: int = 0
    false_positives: int = 0
    switches: int = 0
    swaps: int = 0
    silent_swaps: int = 0
    true_ids: int = 0
    matches: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def mota(self) -> float:
        """Multiple object tracking accuracy (Bernardin and Stiefelhagen 2008)."""
        return 1.0 - (self.misses + self.false_positives + self.switches) / max(self.n_truth, 1)

    @property
    def idf1(self) -> float:
        """F1 score of the identities (Ristani et al. 2016)."""
        return 2.0 * self.true_ids / max(self.n_truth + self.n_reported, 1)


def score_identities(instants: Iterable[Instant], gate_m: float = GATE_M) -> Identities:
    """CLEAR-MOT and identity scores.

    At each instant, pairs of the previous instant stay while they are within the gate; the others are matched at the
    least total distance. IDF1 pairs every person with at most one track over the whole run, and vice versa.
    """
    score = Identities()
    track_of: dict[int, int] = {}  # Last track of each person.
    person_of: dict[int, int] = {}  # Last person of each track.
    together: dict[tuple[int, int], int] = {}
    for now in instants:
        distance = np.linalg.norm(now.people_m[:, None] - now.tracks_m[None], axis=2)
        near = distance < gate_m
        cost = np.where(near, distance, 1e6)
        tracks = now.tracks.tolist()
        place = {track: i for i, track in enumerate(tracks)}
        for i, person in enumerate(now.people.tolist()):
            j = place.get(track_of.get(person, -1))
            if j is not None and near[i, j]:
                cost[i, j] -= 1e9  # Above all else, even where others could then be matched.
        rows, columns = linear_sum_assignment(cost)
        kept = near[rows, columns]
        rows, columns = rows[kept], columns[kept]
        counted = now.people_count[rows]
        # People who need not be tracked may be; their tracks are no false positives.
        exempt = set(columns[~counted].tolist())
        exempt |= set(np.flatnonzero(~now.tracks_count).tolist()) - set(columns.tolist())
        rows, columns = rows[counted], columns[counted]
        n_reported = len(tracks) - len(exempt)
        score.n_truth += int(now.people_count.sum())
        score.n_reported += n_reported
        score.misses += int(now.people_count.sum()) - len(rows)
        score.false_positives += n_reported - len(rows)
        score.matches.append((rows, columns))
        for i, j in zip(rows.tolist(), columns.tolist()):
            person, track = int(now.people[i]), tracks[j]
            before = track_of.get(person)
            if before is not None and before != track:
                score.switches += 1
            if person_of.get(track, person) != person:
                score.swaps += 1
                score.silent_swaps += bool(now.identity[j] >= IDENTITY_CERTAIN)
            track_of[person], person_of[track] = track, person
        for i, j in np.argwhere(near & now.people_count[:, None]).tolist():
            if j not in exempt:
                pair = int(now.people[i]), tracks[j]
                together[pair] = together.get(pair, 0) + 1
    if together:
        people = {person: i for i, person in enumerate(sorted({p for p, _ in together}))}
        ids = {track: i for i, track in enumerate(sorted({t for _, t in together}))}
        overlap = np.zeros((len(people), len(ids)))
        for (person, track), n in together.items():
            overlap[people[person], ids[track]] = n
        score.true_ids = int(overlap[linear_sum_assignment(-overlap)].sum())
    return score


def normalised_error_sq(error_m: np.ndarray, cov_m2: np.ndarray) -> np.ndarray:
    """(n,) e' P^-1 e of errors (n, 3) with covariances (n, 3, 3)."""
    return np.asarray((error_m * np.linalg.solve(cov_m2, error_m[..., None])[..., 0]).sum(axis=1))


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the finite values and half width of its 95 % confidence interval, which is NaN below two values."""
    known = np.array([v for v in values if math.isfinite(v)])
    if not len(known):
        return math.nan, math.nan
    if len(known) < 2:
        return float(known.mean()), math.nan
    margin = student.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return float(known.mean()), float(margin)


# ---- simulated crowds ------------------------------------------------------------------------------------------------


class TracedSimulation(Simulation):
    """A simulation that keeps every person's state at every tick, so that the truth is known at any instant."""

    def __init__(self, store: Store, scenario: Scenario) -> None:
        super().__init__(store, scenario)
        self._ticks: dict[float, Tick] = {}
        self._crowd: Crowd | None = None

    def record(self, crowd: Crowd, ticks: Sequence[Tick], due_s: float, until_s: float) -> float:
        """Keep the ticks, and drop the visits and movements that no score here needs."""
        self._crowd = crowd
        self._ticks.update((tick.t_s, tick) for tick in ticks)
        crowd.shop.log.visits.clear()
        crowd.shop.log.movements.drain(until_s)
        return until_s

    def people_at(self, t_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numbers (n,), presence (n_times, n), places (n_times, n, 2), joints (n_times, n, body.JOINTS, 3)."""
        assert self._crowd is not None
        ticks = [self._ticks[t_s] for t_s in sorted(self._ticks)]
        found = states_at(ticks, (t_ns - self.scenario.start_ns) * 1e-9)
        places = found.states[..., [CHANNEL["x"], CHANNEL["y"]]]
        return found.numbers, found.present, places, self._crowd.joints_m(found)


def room(appearance_dim: int = 128) -> Store:
    """A room of 26 m2 like that of the CMC recording: four cameras a little above head height, boxes and appearance."""
    width, depth = 7.67, 3.41
    corners = ((0.2, 0.2, 2.2), (7.5, 0.2, 2.15), (7.5, 3.2, 2.2), (0.2, 3.2, 2.15))
    cameras = []
    for i, corner in enumerate(corners):
        centre = np.array(corner)
        forward = np.array([width / 2, depth / 2, 0.9]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        cameras.append(
            Camera(
                name=f"cam{i + 1}",
                size=(1920, 1024),
                matrix=((1070.0, 0.0, 960.0), (0.0, 1070.0, 512.0), (0.0, 0.0, 1.0)),
                distortions=(0.0, 0.0, 0.0, 0.0, 0.0),
                rotation=tuple(Rotation.from_matrix(rotation).as_rotvec().tolist()),  # type: ignore[arg-type]
                translation=tuple((-rotation @ centre).tolist()),
            )
        )
    # Small ledges along the walls give people destinations; they occlude nothing.
    plates = [
        Plate(plate=f"p{side}{i}", x=0.9 + 1.45 * i, y=y, z=1.1, width=0.3, depth=0.2, yaw=yaw, capacity_g=20000.0)
        for side, (y, yaw) in enumerate(((depth - 0.1, 0.0), (0.1, math.pi)))
        for i in range(5)
    ]
    return Store(
        format_version=1,
        id="room",
        name="Room",
        currency="EUR",
        timezone="UTC",
        floor=((0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)),
        keypoints="box2",
        appearance_dim=appearance_dim,
        weight_rate_hz=1.0,
        cameras=tuple(cameras),
        plates=tuple(plates),
        products=(Product(gtin="20000004", name="Thing", weight_g=50.0, weight_sd_g=1.0, price=100, vat_rate=19),),
        planogram=tuple(Facing(plate=plate.plate, gtin="20000004", stock=150) for plate in plates),
    )


def weak_appearance(frames: Iterable[Frame], seed: int) -> Iterator[Frame]:
    """Frames with appearance vectors that hardly distinguish people, as measured on the CMC recording.

    Median cosine distances there: 0.18 between one person's vectors in different cameras, 0.24 between two people's;
    the simulator's own are 0.29 and 0.89.
    """
    random = np.random.default_rng([seed, 4])
    common: np.ndarray | None = None
    for frame in frames:
        assert frame.appearance is not None
        n, dim = frame.appearance.shape
        if common is None:
            common = random.standard_normal(dim) / math.sqrt(dim)
        # The person's own part of a vector has variance 1, its noise 0.41: see the simulator's detector.
        appearance = math.sqrt(1.41) * frame.appearance + 3.56 * common
        appearance = appearance + 1.6 / math.sqrt(dim) * random.standard_normal((n, dim))
        appearance = appearance / np.linalg.norm(appearance, axis=1, keepdims=True)
        yield Frame(frame.t_ns, frame.camera, frame.keypoints, appearance.astype(np.float32))


@dataclass(frozen=True)
class Case:
    """One simulated crowd, observed for `duration_s`. Each of `variants` removes every n-th camera (0: none)."""

    name: str
    store: Callable[[], Store]
    scenario: dict[str, float]
    variants: tuple[int, ...] = (0,)
    weak_appearance: bool = False
    duration_s: float = 150.0


def _shop(n_cameras: int, n_plates: int = 80) -> Callable[[], Store]:
    # People reach for plates, but their weights are not used here, so they are sampled once a second only.
    return lambda: demo_store(n_cameras, n_plates).model_copy(update={"weight_rate_hz": 1.0})


# People who want sixty products enter in the first half minute and stay until shortly before the shop closes. The
# run ends before that, so that all of them are present most of the time.
_STAY = {"picks_per_person": 60.0, "minutes": 4.0}
# A poor detector: wrists missed a third of the time, twice the noise, many outliers and ghosts.
_POOR = {
    "keypoint_noise": 2.0,
    "joint_miss_probability": 0.08,
    "person_miss_probability": 0.1,
    "outlier_probability": 0.02,
    "swap_probability": 0.03,
    "ghosts_per_frame": 0.2,
}
CASES = (
    Case("calm, 1-3 people", _shop(12), {"shoppers": 6, "picks_per_person": 6.0, "minutes": 3.0}),
    Case("busy, 8 people", _shop(12), {"shoppers": 8, **_STAY}, (0, 4, 2)),
    Case("crowd, 15 people", _shop(12), {"shoppers": 15, **_STAY}, (0, 4)),
    Case("crowd, poor detector", _shop(12), {"shoppers": 15, **_STAY, **_POOR}),
    Case(
        "occluded, 2 of 8 cameras out for half the time",
        _shop(8, 240),
        {"shoppers": 8, "cameras_out": 2, "neighbour_probability": 0.4, **_STAY, "minutes": 3.0},
        duration_s=120.0,
    ),
    Case("room of 26 m2, 15 people, boxes", room, {"shoppers": 15, **_STAY}),
    Case("room, boxes, faint looks", room, {"shoppers": 15, **_STAY}, weak_appearance=True),
)

# ---- measuring -------------------------------------------------------------------------------------------------------


def sets_of(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames in order of time, grouped as the engine groups them: each camera at most once, within 100 ms."""
    pending: dict[str, Frame] = {}
    first_ns = 0
    for frame in frames:
        if pending and (frame.camera in pending or frame.t_ns - first_ns > SET_SPAN_NS):
            yield list(pending.values())
            pending = {}
        if not pending:
            first_ns = frame.t_ns
        pending[frame.camera] = frame
    if pending:
        yield list(pending.values())


@dataclass(frozen=True)
class Tracking:
    """A tracker's answers to one crowd. `wrist_cov`: of each set (n_tracks, n_wrists, 3, 3)."""

    people: list[People]
    wrist_cov: list[np.ndarray]
    outages: set[str]  # Cameras with an outage warning.
    false_alarms: int  # Other warnings about cameras that deliver.
    step_us: float


def track(store: Store, frames: Iterable[Frame], missing: set[str]) -> Tracking:
    """Run the tracker on one crowd. `missing`: cameras that never deliver."""
    tracker = Tracker.of_store(store)
    wrists = store.layout.indices("l_wrist", "r_wrist")
    answers, covs, outages, false_alarms = [], [], set(), 0
    step_s = 0.0
    for frame_set in sets_of(frame for frame in frames if frame.camera not in missing):
        started_s = time.process_time()
        people = tracker.step(frame_set)
        step_s += time.process_time() - started_s
        answers.append(people)
        covs.append(_wrist_cov(tracker, people.track_id, wrists))
        for warning in tracker.warnings():
            if warning.kind == "camera outage":
                outages.add(warning.subject)
            elif warning.kind != "camera back":
                false_alarms += warning.subject not in missing
    return Tracking(answers, covs, outages, false_alarms, 1e6 * step_s / max(len(answers), 1))


def measure(store: Store, simulation: TracedSimulation, frames: Iterable[Frame], missing: set[str]) -> dict[str, float]:
    """Track one crowd and score it. `missing`: cameras that never deliver."""
    tracking = track(store, frames, missing)
    wrists = store.layout.indices("l_wrist", "r_wrist")
    joints = [body.JOINT[store.layout.joints[j]] for j in wrists]
    t_ns = np.array([people.t_ns for people in tracking.people], np.int64)
    numbers, present, places, truth_joints = simulation.people_at(t_ns)
    floor = store.floor
    instants, present_rows = [], []
    for people, is_present, place in zip(tracking.people, present, places):
        rows = np.flatnonzero(is_present)
        instants.append(
            Instant(
                people=numbers[rows],
                people_m=place[rows],
                people_count=_inside(floor, place[rows]),
                tracks=people.track_id,
                tracks_m=people.position_m,
                tracks_count=_inside(floor, people.position_m),
                identity=people.identity,
            )
        )
        present_rows.append(rows)
    score = score_identities(instants)
    position, error, sd, cov = [], [], [], []
    for k, ((rows, columns), now) in enumerate(zip(score.matches, instants)):
        position.append(np.linalg.norm(now.people_m[rows] - now.tracks_m[columns], axis=1))
        if not wrists or not len(rows):
            continue
        reported = tracking.people[k].joints_m[columns][:, wrists]
        known = np.isfinite(reported).all(axis=2)
        error.append((reported - truth_joints[k][present_rows[k][rows]][:, joints])[known])
        sd.append(tracking.people[k].joints_sd_m[columns][:, wrists][known])
        cov.append(tracking.wrist_cov[k][columns][known])
    position_error_m = np.concatenate(position) if position else np.zeros(0)
    interval_s = float(np.median(np.diff(t_ns))) * 1e-9
    figures = _identity_figures(score, len(instants), interval_s, position_error_m)
    down = missing or set(_scheduled_outages(simulation))
    figures |= {
        "cameras_named_percent": 100.0 * len(tracking.outages & down) / len(down) if down else math.nan,
        "false_warnings": float(len(tracking.outages - down) + tracking.false_alarms),
        "step_us": tracking.step_us,
    }
    if wrists:
        n_wrists = len(wrists) * score.n_truth
        figures |= _wrist_figures(np.concatenate(error), np.concatenate(sd), np.concatenate(cov), n_wrists)
    return figures


def _identity_figures(
    score: Identities, n_instants: int, interval_s: float, position_error_m: np.ndarray
) -> dict[str, float]:
    minutes = score.n_truth * interval_s / 60.0
    any_position = len(position_error_m) > 0
    return {
        "person_minutes": minutes,
        "people": score.n_truth / max(n_instants, 1),
        "switches_per_min": score.switches / max(minutes, 1e-9),
        "swaps_per_min": score.swaps / max(minutes, 1e-9),
        "silent_swaps_per_min": score.silent_swaps / max(minutes, 1e-9),
        "idf1": 100.0 * score.idf1,
        "mota": 100.0 * score.mota,
        "missed_percent": 100.0 * score.misses / max(score.n_truth, 1),
        "false_percent": 100.0 * score.false_positives / max(score.n_truth, 1),
        "position_median_m": float(np.median(position_error_m)) if any_position else math.nan,
        "position_p95_m": float(np.percentile(position_error_m, 95)) if any_position else math.nan,
    }


def _inside(floor: Sequence[tuple[float, float]], places_m: np.ndarray) -> np.ndarray:
    return np.array([inside_polygon(floor, float(x), float(y)) for x, y in places_m], bool)


def _wrist_cov(tracker: Tracker, track_ids: np.ndarray, wrists: tuple[int, ...]) -> np.ndarray:
    """(n, n_wrists, 3, 3) covariances of the filter; `People` reports only their root mean square deviation."""
    row_of = {int(tracker.tracks.track_id[row]): int(row) for row in tracker.tracks.live}
    rows = np.array([row_of[number] for number in track_ids.tolist()], np.int64)
    return tracker.tracks.position_cov_m2(rows)[:, list(wrists)]


def _wrist_figures(error: np.ndarray, sd: np.ndarray, cov: np.ndarray, n_wrists: int) -> dict[str, float]:
    distance = np.linalg.norm(error, axis=1)
    by_sd = (distance / sd) ** 2
    by_cov = normalised_error_sq(error, cov)
    return {
        "wrist_median_m": float(np.median(distance)),
        "wrist_p95_m": float(np.percentile(distance, 95)),
        "wrist_told_percent": 100.0 * len(error) / max(n_wrists, 1),
        "wrist_sd_median_m": float(np.median(sd)),
        "nees_cov": float(by_cov.mean()),
        "nees_cov_median": float(np.median(by_cov)),
        "nees_sd": float(by_sd.mean()),
        "nees_sd_over_percent": 100.0 * float((by_sd > CHI2_3_95).mean()),
        "bias_m": float(np.linalg.norm(error.mean(axis=0))),
    }


def _scheduled_outages(simulation: TracedSimulation) -> list[str]:
    """Cameras that the scenario takes out for a while, drawn as the simulator draws them."""
    cameras, scenario = simulation.store.cameras, simulation.scenario
    down = scenario.random("outages").permutation(len(cameras))[: scenario.cameras_out]
    return [cameras[i].name for i in down.tolist()]


def run(case: Case, seed: int, share: float = 1.0) -> dict[str, dict[str, float]]:
    """Figures of each variant of a case at one seed. share: how much of its duration to run."""
    store = case.store()
    simulation = TracedSimulation(store, Scenario(seed=seed, **case.scenario))  # type: ignore[arg-type]
    end_ns = simulation.scenario.start_ns + round(share * case.duration_s * 1e9)
    observations = itertools.takewhile(lambda observation: observation.t_ns < end_ns, simulation.observations())
    frames = [observation for observation in observations if isinstance(observation, Frame)]
    if case.weak_appearance:
        frames = list(weak_appearance(frames, seed))
    figures = {}
    for stride in case.variants:
        missing = {camera.name for camera in store.cameras[1::stride]} if stride else set()
        name = f"{case.name}, {len(missing)} of {len(store.cameras)} cameras gone" if missing else case.name
        figures[name] = measure(store, simulation, frames, missing)
    return figures


# ---- tables ----------------------------------------------------------------------------------------------------------

# Heading, figure, factor and digits of the table's columns.
_COLUMNS = (
    ("people", "people", 1, 1),
    ("person-min", "person_minutes", 1, 0),
    ("switches /min", "switches_per_min", 1, 3),
    ("swaps /min", "swaps_per_min", 1, 3),
    ("silent /min", "silent_swaps_per_min", 1, 3),
    ("IDF1 %", "idf1", 1, 1),
    ("MOTA %", "mota", 1, 1),
    ("position median cm", "position_median_m", 100, 1),
    ("p95 cm", "position_p95_m", 100, 1),
    ("wrist median cm", "wrist_median_m", 100, 1),
    ("p95 cm", "wrist_p95_m", 100, 1),
    ("reported %", "wrist_told_percent", 1, 1),
    ("NEES, cov", "nees_cov", 1, 2),
    ("NEES, sd", "nees_sd", 1, 2),
    ("over %", "nees_sd_over_percent", 1, 1),
    ("named %", "cameras_named_percent", 1, 0),
    ("false", "false_warnings", 1, 1),
)


def summary(results: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float | None]]]:
    """Mean and 95 % margin over seeds of each case's figures, ready for JSON; null where there is no value."""
    summaries: dict[str, dict[str, list[float | None]]] = {}
    for name, runs in results.items():
        keys = dict.fromkeys(key for figures in runs for key in figures)
        means = {key: mean_and_margin([figures.get(key, math.nan) for figures in runs]) for key in keys}
        summaries[name] = {
            key: [None if math.isnan(value) else round(value, 6) for value in pair] for key, pair in means.items()
        }
    return summaries


def markdown(summaries: dict[str, dict[str, list[float | None]]]) -> str:
    """One row per case: mean and 95 % margin over seeds."""
    lines = [
        "| case | " + " | ".join(heading for heading, *_ in _COLUMNS) + " |",
        "|---|" + "---|" * len(_COLUMNS),
    ]
    for name, figures in summaries.items():
        cells = []
        for _, key, factor, digits in _COLUMNS:
            mean, margin = figures.get(key, (None, None))
            text = "-" if mean is None else f"{mean * factor:.{digits}f}"
            plain = key in ("people", "person_minutes", "cameras_named_percent", "false_warnings")
            cells.append(text if plain or margin is None else f"{text} ± {margin * factor:.{digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(measured: dict[str, Any]) -> str:
    """The published page: plot, table, and the explanation of its figures."""
    explanation = (__doc__ or "").partition("Figures, ")[2]
    head = f"# People in simulated crowds\n\nMade by `{measured['command']}`."
    plot = "![Identities, places, wrists and honesty of their deviations in each crowd](accuracy_people.svg)"
    return "\n\n".join([head, plot, markdown(measured["results"]), f"Figures, {explanation}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark of people from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, the first 60 %% of each run")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--out", type=Path, help="folder for table, plot and their figures as JSON")
    args = parser.parse_args(arguments)
    n_seeds = args.seeds or (1 if args.quick else 5)
    share = 0.6 if args.quick else 1.0
    results: dict[str, list[dict[str, float]]] = {}
    started_s = time.perf_counter()
    for case in CASES:
        if args.case not in case.name:
            continue
        for seed in range(1, n_seeds + 1):
            for name, figures in run(case, seed, share).items():
                results.setdefault(name, []).append(figures)
                rounded = {key: round(value, 4) for key, value in figures.items()}
                print(json.dumps({"case": name, "seed": seed, **rounded}), file=sys.stderr, flush=True)
    print(markdown(summary(results)))
    print(f"\n{n_seeds} seeds in {time.perf_counter() - started_s:.0f} s")
    if args.out:
        from bench.plots import publish

        options = [f"--seeds {n_seeds}", *(["--quick"] if args.quick else []), f"--out {args.out}"]
        command = f"python -m bench people {' '.join(options)}"
        publish("accuracy_people", {"command": command, "results": summary(results)}, page, args.out)
