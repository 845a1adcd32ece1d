import numpy as np
from numpy.typing import NDArray

ARM_COLUMNS: int

def smooth(
    t_ns: NDArray[np.int64],
    track: NDArray[np.int64],
    position_m: NDArray[np.float64],
    arms_m: NDArray[np.float64],
    sd_m: NDArray[np.float64],
    first: int,
    after: int,
    x: float,
    y: float,
    reach_m: float,
    model: NDArray[np.float64],
    smoothed_m: NDArray[np.float64],
    smoothed_sd_m: NDArray[np.float64],
    members: NDArray[np.int32],
    work: NDArray[np.float64],
) -> None: ...
