import numpy as np

def extend(
    choices: np.ndarray,
    log_weight: np.ndarray,
    owner: np.ndarray,
    product: np.ndarray,
    quantity: np.ndarray,
    first: int,
    event_s: np.ndarray,
    log_candidate: np.ndarray,
    log_not_held: np.ndarray,
    held: np.ndarray,
    log_undone: np.ndarray,
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
