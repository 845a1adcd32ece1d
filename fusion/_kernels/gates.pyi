import numpy as np
from numpy.typing import NDArray

def near(
    places_m: NDArray[np.float64], middles_m: NDArray[np.float64], reach_sq: NDArray[np.float64]
) -> list[bool]: ...
