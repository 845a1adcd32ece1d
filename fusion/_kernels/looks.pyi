import numpy as np
from numpy.typing import NDArray

def tally(
    keypoints: NDArray[np.float32],
    size_px: NDArray[np.float64],
    beyond_share: float,
    fraction_max: float,
    used: NDArray[np.float64],
) -> tuple[int, int, int]: ...
def gather(
    frames: list[NDArray[np.float32]], limits: list[int], turn: int
) -> tuple[NDArray[np.float64], list[int]]: ...
def scale(
    people: NDArray[np.float64],
    views: NDArray[np.int64],
    factors: NDArray[np.float64],
    lenses: NDArray[np.float64],
    points_px: NDArray[np.float64],
    lens: NDArray[np.float64],
) -> None: ...
def spread(
    normalised: NDArray[np.float64],
    people: NDArray[np.float64],
    views: NDArray[np.int64],
    var_of: NDArray[np.float64],
    score_min: float,
    joints_min: float,
    n_own: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    var: NDArray[np.float32],
    seen: NDArray[np.float32],
) -> int: ...
