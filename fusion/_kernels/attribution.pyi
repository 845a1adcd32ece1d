import numpy as np
from numpy.typing import NDArray

HAND_COLUMNS: int

def extend(
    choices: NDArray[np.int32],
    log_weight: NDArray[np.float64],
    owner: NDArray[np.int32],
    cart: NDArray[np.int32],
    product: NDArray[np.int32],
    quantity: NDArray[np.int32],
    first: int,
    event_s: NDArray[np.float64],
    log_candidate: NDArray[np.float64],
    log_not_held: NDArray[np.float64],
    held: NDArray[np.int32],
    log_pair: NDArray[np.float64],
    settled_ratio: NDArray[np.float64],
    n_settled: NDArray[np.int32],
    busy_s: float,
    log_busy: float,
    key: NDArray[np.float64],
    pick: NDArray[np.int32],
    log_spread: float,
) -> int: ...
def merge(
    log_weight_a: NDArray[np.float64],
    log_weight_b: NDArray[np.float64],
    key: NDArray[np.float64],
    pick: NDArray[np.int32],
    log_spread: float,
) -> int: ...
def marginals(
    choices: NDArray[np.int32], log_weight: NDArray[np.float64], probability: NDArray[np.float64]
) -> None: ...
def hand_ratios(
    t_ns: NDArray[np.int64],
    track: NDArray[np.int64],
    confirmed: NDArray[np.int8],
    position_m: NDArray[np.float64],
    arms_m: NDArray[np.float64],
    wrist_sd_m: NDArray[np.float64],
    contact_ns: int,
    anytime: bool,
    load_m: NDArray[np.float64],
    cos_yaw: float,
    sin_yaw: float,
    width_m: float,
    depth_m: float,
    above_m: float,
    model: NDArray[np.float64],
    person: NDArray[np.int64],
    log_ratio: NDArray[np.float64],
    work: NDArray[np.float64],
) -> int: ...
