from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.observations import ShelfReading

def pack(
    readings: Sequence[ShelfReading], index: dict[str, int]
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint32], NDArray[np.float32], int, int]: ...
