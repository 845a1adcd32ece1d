"""The example stores by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from fusion.errors import ConfigError

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """The names of the example stores, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob("*/store.toml"))


def store_folder(path_or_name: str | Path) -> Path:
    """The folder of a store: the path itself where it exists, else the example store of this name.

    Args:
        path_or_name: a store folder, or one of `names()`.

    Returns:
        A folder. A path that is neither is returned as it is, so that reading it reports what is missing.

    Raises:
        ConfigError: it is neither, but close to the name of an example store.
    """
    path = Path(path_or_name)
    if path.exists():
        return path
    if str(path_or_name) in names():
        return FOLDER / path_or_name
    close = difflib.get_close_matches(str(path_or_name), names(), n=1, cutoff=0.8)
    if close:
        raise ConfigError(f"{path_or_name} is neither a folder nor an example store; did you mean {close[0]!r}?")
    return path
