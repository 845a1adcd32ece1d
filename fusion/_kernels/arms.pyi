import numpy as np
from numpy.typing import NDArray

def record(
    person: NDArray[np.int64],
    confirmed_now: NDArray[np.bool_],
    place_m: NDArray[np.float64],
    joints_m: NDArray[np.float64],
    joints_sd_m: NDArray[np.float64],
    joints: NDArray[np.int64],
    n: int,
    first: int,
    now_ns: int,
    t_ns: NDArray[np.int64],
    track: NDArray[np.int64],
    confirmed: NDArray[np.int8],
    position_m: NDArray[np.float64],
    arms_m: NDArray[np.float64],
    sd_m: NDArray[np.float64],
) -> None: ...
def smooth(
    t_ns: NDArray[np.int64],
    track: NDArray[np.int64],
    position_m: NDArray[np.float64],
    arms_m: NDArray[np.float64],
    sd_m: NDArray[np.float64],
    n: int,
    first: int,
    after: int,
    over_ns: int,
    x: float,
    y: float,
    reach_m: float,
    model: NDArray[np.float64],
    smoothed_m: NDArray[np.float64],
    smoothed_sd_m: NDArray[np.float64],
) -> None: ...
