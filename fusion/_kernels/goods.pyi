from typing import Any

import numpy as np
from numpy.typing import NDArray

ASKS_FOR_HELD: int
ASKS_FOR_SECONDS: int
CANDIDATES_MAX: int
IDENTIFIED_MAX: int
PLATE_SUSPECT: int
STORE_SUSPECT: int

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
    ask: bool,
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
    log_total: float,
    seconds: NDArray[np.int64] | None,
    second_carts: NDArray[np.int64] | None,
    second_log_ratio: NDArray[np.float64] | None,
    model: NDArray[np.float64],
    table: NDArray[np.int32],
    log_candidate: NDArray[np.float64],
    log_weight: NDArray[np.float64],
) -> int: ...
