import numpy as np
from numpy.typing import NDArray

HAND_COLUMNS: int
HAND_FEATURES: int

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
    trained: NDArray[np.float64],
    split_on: NDArray[np.int32],
    threshold: NDArray[np.float64],
    leaf: NDArray[np.float64],
    person: NDArray[np.int64],
    log_ratio: NDArray[np.float64],
    features: NDArray[np.float64],
    work: NDArray[np.float64],
) -> int: ...
