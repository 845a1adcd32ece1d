from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.goods.plates import PlateChange, PlateSamples

ASKS_FOR_SECONDS: int
CANDIDATES_MAX: int
IDENTIFIED_MAX: int
HYPOTHESES_MAX: int
PLATES_MAX: int
LOAD_IDENTIFIED_MAX: int
PLATE_SUSPECT: int
STORE_SUSPECT: int

Arrays = tuple[NDArray[Any], ...]

def log_place(
    arrays: tuple[NDArray[Any], ...], plates: NDArray[np.int64], delta_g: NDArray[np.float64],
    log_prior: NDArray[np.float64],
) -> None: ...
def identify(
    arrays: tuple[NDArray[Any], ...],
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    log_prior: NDArray[np.float64] | None,
    goods: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> int: ...
def log_nothing(delta_g: float, var_g2: float, heaviest_g: float, loads: NDArray[np.float64]) -> float: ...
def log_press(grams: float, hands: NDArray[np.float64]) -> float: ...
def contact_sd_s(change: PlateChange, loads: NDArray[np.float64]) -> float: ...
def log_load(
    arrays: Arrays, lightest_g: float, loads: NDArray[np.float64], part: list[PlateChange]
) -> float: ...
def divide(
    arrays: Arrays,
    lightest_g: float,
    samples: PlateSamples,
    loads: NDArray[np.float64],
    hands: NDArray[np.float64],
    steps: list[PlateChange],
) -> tuple[float, list[tuple[tuple[int, ...], float, list[PlateChange]]]]: ...
def weigh_block(
    arrays: Arrays,
    lightest_g: float,
    samples: PlateSamples,
    loads: NDArray[np.float64],
    hands: NDArray[np.float64],
    steps: list[PlateChange],
    block: tuple[int, ...],
) -> tuple[float, list[PlateChange]]: ...
def log_goods(
    arrays: tuple[NDArray[Any], ...],
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    model: NDArray[np.float64],
) -> float: ...
def weigh_factors(
    arrays: tuple[NDArray[Any], ...],
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    held: NDArray[np.float64] | None,
    factors: NDArray[np.float64],
    of_loads: NDArray[np.float64],
    of_noise: NDArray[np.float64],
    given: NDArray[np.float64],
    model: NDArray[np.float64],
    added: NDArray[np.float64],
) -> int: ...
def propose(
    arrays: tuple[NDArray[Any], ...],
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    rise_s: float,
    held: NDArray[np.float64] | None,
    seen: NDArray[np.float64] | None,
    log_nothing_seen: float,
    actors: NDArray[np.int64],
    actor_carts: NDArray[np.int64],
    actor_log_ratio: NDArray[np.float64],
    staff: NDArray[np.bool_] | None,
    log_total: float,
    seconds: NDArray[np.int64] | None,
    second_carts: NDArray[np.int64] | None,
    second_log_ratio: NDArray[np.float64] | None,
    model: NDArray[np.float64],
    table: NDArray[np.int32],
    log_candidate: NDArray[np.float64],
    log_weight: NDArray[np.float64],
) -> int: ...
def note_event(
    event_id: int,
    contact_ns: int,
    total_g: float,
    noise_g2: float, reach: int,
    plates: NDArray[np.int64],
    share: NDArray[np.float64],
    record: NDArray[np.void],
) -> None: ...
def relate(
    clusters: list[Arrays],
    recent: list[NDArray[np.void]],
    record: NDArray[np.void],
    model: NDArray[np.float64],
    relations: NDArray[np.int32],
) -> int: ...
def tie(
    clusters: list[Arrays],
    candidates: NDArray[np.int32],
    n_new: int,
    negligible: float,
    relations: NDArray[np.int32],
) -> None: ...
def add_expected(
    clusters: list[Arrays], carts: NDArray[np.int32] | None, negligible: float, pieces: NDArray[np.float64]
) -> None: ...
def extend(
    arrays: Arrays,
    cluster_arrays: Arrays,
    record: NDArray[np.void],
    candidates: NDArray[np.int32],
    n_new: int,
    log_candidate: NDArray[np.float64],
    log_weight: NDArray[np.float64],
    held: NDArray[np.int32] | None,
    log_not_held: NDArray[np.float64] | None,
    earlier: list[NDArray[np.void]],
    earlier_parts: NDArray[np.int32] | None,
    model: NDArray[np.float64],
    log_pair: NDArray[np.float64],
    out: Arrays,
) -> int: ...
def merge(
    log_weight_a: NDArray[np.float64],
    log_weight_b: NDArray[np.float64],
    key: NDArray[np.float64],
    pick: NDArray[np.int32],
    log_spread: float,
) -> int: ...
def join(
    arrays_a: Arrays, arrays_b: Arrays, n: int, key: NDArray[np.float64], pick: NDArray[np.int32], out: Arrays
) -> None: ...
def marginals(
    choices: NDArray[np.int32], log_weight: NDArray[np.float64], probability: NDArray[np.float64]
) -> None: ...
def last_certain(
    event_of: NDArray[np.int32], probability: NDArray[np.float64], threshold: float, before: int
) -> int: ...
def describe(
    event_of: NDArray[np.int32],
    table: NDArray[np.int32],
    probability: NDArray[np.float64],
    index: int,
    moved: NDArray[np.int32],
    chance: NDArray[np.float64],
    whole: NDArray[np.float64],
) -> tuple[int, int]: ...
def sum_expected(
    table: NDArray[np.int32],
    probability: NDArray[np.float64],
    negligible: float,
    kinds: NDArray[np.int32],
    pieces: NDArray[np.float64],
    acting: NDArray[np.int32],
) -> tuple[int, int]: ...
def drop_event(cluster_arrays: Arrays, index: int, row: int, out: Arrays) -> int: ...
def move_all(
    goods: NDArray[np.int32], probability: NDArray[np.float64], stock: NDArray[np.float64], away: NDArray[np.float64]
) -> None: ...
def likeliest_goods(
    goods: NDArray[np.int32], probability: NDArray[np.float64], weight_g: NDArray[np.float64]
) -> tuple[int, int, float]: ...
def follow_gain(
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    product: int,
    quantity: int,
    t_ns: int,
    weight_g: NDArray[np.float64],
    weight_sd_g: NDArray[np.float64],
    gain: NDArray[np.float64],
    gain_var: NDArray[np.float64],
    gain_ns: NDArray[np.int64],
    drift_var: float,
    model: NDArray[np.float64],
) -> tuple[bool, float, float]: ...
