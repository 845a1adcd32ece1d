import numpy as np

HAND_COLUMNS: int

def extend(
    choices: np.ndarray,
    log_weight: np.ndarray,
    owner: np.ndarray,
    cart: np.ndarray,
    product: np.ndarray,
    quantity: np.ndarray,
    first: int,
    event_s: np.ndarray,
    log_candidate: np.ndarray,
    log_not_held: np.ndarray,
    held: np.ndarray,
    log_pair: np.ndarray,
    settled_ratio: np.ndarray,
    n_settled: np.ndarray,
    busy_s: float,
    log_busy: float,
    key: np.ndarray,
    pick: np.ndarray,
    log_spread: float,
) -> int: ...
def merge(
    log_weight_a: np.ndarray, log_weight_b: np.ndarray, key: np.ndarray, pick: np.ndarray, log_spread: float
) -> int: ...
def marginals(choices: np.ndarray, log_weight: np.ndarray, probability: np.ndarray) -> None: ...
def weigh(
    t_ns: np.ndarray,
    track: np.ndarray,
    confirmed: np.ndarray,
    position_m: np.ndarray,
    arms_m: np.ndarray,
    wrist_sd_m: np.ndarray,
    contact_ns: int,
    silent: bool,
    load_m: np.ndarray,
    cos_yaw: float,
    sin_yaw: float,
    width_m: float,
    depth_m: float,
    above_m: float,
    model: np.ndarray,
    person: np.ndarray,
    log_ratio: np.ndarray,
    work: np.ndarray,
) -> int: ...
