from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import ModuleType
from typing import Any

import numpy as np

class Encoded:
    @property
    def classes(self) -> list[type]: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def dtypes(self) -> list[np.dtype[Any]]: ...
    @property
    def shared(self) -> list[Any]: ...
    def __len__(self) -> int: ...
    def gathered(self) -> bytes: ...

class Encoder:
    def __init__(
        self, parts: dict[int, int], steady: AbstractSet[type], unbound: AbstractSet[type], shares: bool
    ) -> None: ...
    @property
    def out(self) -> Encoded: ...
    def add(self, values: Sequence[Any]) -> None: ...

def decode(
    data: bytes,
    classes: list[type],
    names: list[str],
    dtypes: list[np.dtype[Any]],
    parts: Sequence[Any],
    shared: Sequence[Any],
    modules: Mapping[str, ModuleType],
    n_max: int,
) -> list[Any]: ...
