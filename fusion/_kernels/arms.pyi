import numpy as np
from numpy.typing import NDArray

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
