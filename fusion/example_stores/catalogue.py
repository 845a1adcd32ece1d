"""The example stores by name."""

from __future__ import annotations

from pathlib import Path

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
    """
    path = Path(path_or_name)
    if not path.exists() and str(path_or_name) in names():
        return FOLDER / path_or_name
    return path
