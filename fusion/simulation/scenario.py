"""The knobs of a simulation: what happens in the shop, and what goes wrong with its sensors."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import numpy as np

# A shopper who comes in, takes one thing and leaves needs about this long in a shop of 50 m2, and people pass a gate at
# about this interval. Together they limit how many visits fit into a run.
SHORTEST_VISIT_S = 30.0
GATE_HEADWAY_S = 2.5
# People who are late head for the exit this long before the run's end.
TAIL_S = 4.0
# Detectors as measured: three open pose estimators on four cameras of a real shop (640 x 360), against the joints that
# all views agree on. They err by 4 to 5 cm at the person, wrists by half as much again; 11 to 22 % of the joints are
# off by more than 20 px between two views; cameras miss 0 to 45 % of the people before them, for stretches and mostly
# those far away; left and right are exchanged in 2 to 10 % of the pairs of views; scores have quartiles of .29, .61 and
# .76, wrists a median of .36; a chair behind glass was a person for eighty frames on end.
REAL_DETECTOR: Mapping[str, float] = MappingProxyType(
    {
        "keypoint_noise": 2.6,
        "wrist_noise": 1.2,
        "outlier_probability": 0.05,
        "swap_probability": 0.01,
        "mirror_probability": 0.02,
        "guess_probability": 0.5,
        "joint_miss_probability": 0.05,
        "person_miss_probability": 0.12,
        "miss_spell_s": 1.0,
        "miss_by_distance": 1.0,
        "camera_spread": 1.0,
        "score_median": 0.61,
        "score_spread": 1.4,
        "ghosts_per_frame": 0.03,
        "false_people": 1,
        "false_person_s": 8.0,
    }
)


@dataclass(frozen=True)
class Scenario:
    """Knobs of a simulated run. Probabilities are per named occasion, rates per minute; 0 switches a thing off.

    People:
        shoppers: accounts that visit; each makes one visit.
        companions: further adults who come in under a shopper's account and share the basket.
        children: further short people (1.0 to 1.3 m) under a shopper's account.
        tailgaters: people who slip in behind another person without a scan.
        staff: employees who scan a staff token, restock and tidy.
        picks_per_person: mean number of times that a shopper decides to take something.
        empty_handed_probability: of a shopper who takes nothing at all.
        put_back_probability: that a piece is put back later in the visit.
        wrong_place_probability: that it is put back on another plate than it came from.
        two_piece_probability: that a grip takes two pieces; second_grip_probability: that another grip of the same
            product follows at once.
        touch_probability: per pick, that another plate is touched, pressed or leaned on and nothing is taken.
        neighbour_probability: that a shopper reaches into the same shelf as another one at the same time.
        hand_over_probability: per pick in a group, that the piece is handed to a companion.
        straddle_probability: of a piece that rests on two plates, where two plates touch.
        odd_reach_probability: of an unusual grip: from beside the plate at arm's length, with the other hand, or with
            the piece held down on its plate for some seconds before it is lifted.
        exit_read_probability: that the antenna at the exit reads the tag of a piece that is carried to the door; 0:
            there is no antenna.
    Goods:
        batch_weight_sd: sd over products of the share by which a whole delivery weighs more or less than its label.
        misplaced_pieces: number of pieces that lie on a wrong plate from the start.
        count_error_probability: of a facing whose stock is up to three pieces off the planogram's.
    Cameras:
        frame_rate_hz: of every camera; exposures are not synchronised. frame_jitter_s: sd of the exposure's time.
        frame_drop_probability; cameras_out: number of cameras that are down for `outage_share` of the run, in its
            middle.
        calibration_error_px: sd of a constant shift of each camera's image that its calibration does not include.
        clock_offset_max_s: every camera's clock is off by a constant within this.
        keypoint_noise: 1 is a good detector (about 1.5 cm at the person); 0 is exact.
        outlier_probability: of a keypoint far from its place; swap_probability: left and right arm are mixed up.
        joint_miss_probability, person_miss_probability: of joints and people in plain view.
        ghosts_per_frame: mean number of detections that are not of people.
    Detectors as real ones are (`with_real_detectors` sets all of it as measured):
        miss_spell_s: a camera misses a person for stretches of this length; 0: each frame by itself.
        miss_by_distance: exponent by which a miss grows likelier with the distance beyond 4 m, and rarer within.
        camera_spread: sd over cameras of the logarithm of how often they miss people; noise differs by a quarter of it.
        wrist_noise: factor on the noise of wrists. guess_probability: of a hidden joint that is guessed, not left out.
        mirror_probability: left and right of a whole person are exchanged, for half a second at a time.
        score_median, score_spread: scores follow a logistic normal distribution about a median, wrists one logit lower
            and wrong joints too; a spread of 0: 0.88 +- 0.06, and at most 0.5 for what is wrong.
        false_people: number of things that stay at one place and are taken for people by one or several cameras,
            false_person_s at a time, half of the time.
    Scales:
        plate_noise: 1 is the noise measured in a real shop; 0 is silent.
        shocks_per_minute: the whole store shakes for a second or two.
        drift_g_per_min: sd over plates of a slow slope; drifting_plates: number that slide at 5 to 10 g/min.
        dead_plates: number that report a constant; gap_probability: of a message that is lost.
        message_jitter_s: sd of a message's time; latency: 1 makes messages and frames arrive as late as measured.
        place_gain_sd: sd of a plate's gain over places on it, and so over loads.
        creep_share: sd of a load cell's creep in the half minute after a load, as a share of the load.
        hum_g: amplitude at which the cooling machine under a gondola shakes its plates, while it runs.
    """

    seed: int = 0
    minutes: float = 5.0
    start_ns: int = 1_767_258_000_000_000_000  # 2026-01-01 09:00 UTC
    shoppers: int = 8
    companions: int = 0
    children: int = 0
    tailgaters: int = 0
    staff: int = 0
    picks_per_person: float = 4.0
    empty_handed_probability: float = 0.03
    put_back_probability: float = 0.12
    wrong_place_probability: float = 0.15
    two_piece_probability: float = 0.08
    second_grip_probability: float = 0.1
    touch_probability: float = 0.15
    neighbour_probability: float = 0.1
    hand_over_probability: float = 0.2
    straddle_probability: float = 0.15
    odd_reach_probability: float = 0.0
    exit_read_probability: float = 0.0
    batch_weight_sd: float = 0.0
    misplaced_pieces: int = 0
    count_error_probability: float = 0.0
    frame_rate_hz: float = 15.0
    frame_jitter_s: float = 0.002
    frame_drop_probability: float = 0.002
    cameras_out: int = 0
    outage_share: float = 1.0 / 3.0
    calibration_error_px: float = 0.0
    clock_offset_max_s: float = 0.005
    keypoint_noise: float = 1.0
    outlier_probability: float = 0.004
    swap_probability: float = 0.004
    joint_miss_probability: float = 0.02
    person_miss_probability: float = 0.01
    ghosts_per_frame: float = 0.01
    miss_spell_s: float = 0.0
    miss_by_distance: float = 0.0
    camera_spread: float = 0.0
    wrist_noise: float = 1.0
    guess_probability: float = 0.4
    mirror_probability: float = 0.0
    score_median: float = 0.88
    score_spread: float = 0.0
    false_people: int = 0
    false_person_s: float = 8.0
    plate_noise: float = 1.0
    shocks_per_minute: float = 1.0
    drift_g_per_min: float = 0.03
    drifting_plates: int = 0
    dead_plates: int = 0
    gap_probability: float = 0.0
    message_jitter_s: float = 0.003
    latency: float = 1.0
    place_gain_sd: float = 0.0
    creep_share: float = 0.0
    hum_g: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{field.name}: want a finite number, at least 0, got {value}")
            if field.name.endswith("_probability") and value > 1:
                raise ValueError(f"{field.name}: want at most 1, got {value}")
        if not 0 < self.score_median < 1:
            raise ValueError(f"score_median: want more than 0 and less than 1, got {self.score_median}")
        if self.frame_rate_hz <= 0:
            raise ValueError(f"frame_rate_hz: want more than 0, got {self.frame_rate_hz}")
        if self.outage_share > 1:
            raise ValueError(f"outage_share: want at most 1, got {self.outage_share}")
        if self.clock_offset_max_s > 0.1:
            raise ValueError(f"clock_offset_max_s: want at most 0.1, got {self.clock_offset_max_s}")
        needed_s = SHORTEST_VISIT_S + GATE_HEADWAY_S * self.people if self.people else 0.0
        if self.duration_s < needed_s:
            needed = f"at least {needed_s / 60:.2f} for {self.people} people to come and go"
            raise ValueError(f"minutes: want {needed}, got {self.minutes}")

    @property
    def people(self) -> int:
        """Everyone who comes."""
        return self.shoppers + self.companions + self.children + self.tailgaters + self.staff

    @property
    def duration_s(self) -> float:
        """How long the run lasts unless people are held up, seconds."""
        return self.minutes * 60.0

    def with_real_detectors(self) -> Scenario:
        """The same people and scales, seen by detectors that err as real ones do (`REAL_DETECTOR`)."""
        return replace(self, **REAL_DETECTOR)  # type: ignore[arg-type]

    def random(self, purpose: str, name: str = "") -> np.random.Generator:
        """A stream of random numbers for each purpose and thing, so that draws for one do not shift another's."""
        key = [self.seed, zlib.crc32(purpose.encode()), zlib.crc32(name.encode())]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
