"""A small store to start from: `fusion init`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.setup.rough_store import RoughShop
from fusion.store.models import Store
from fusion.store.values import unprintable, validation_faults

_STARTER = Path(__file__).resolve().parent / "starter"
_ASSUMED = """\
# Assumed: `fusion init` has put cameras along the walls, 2.6 m high, with a field of view of 90 degrees, looking at the
# middle of the floor. `fusion calibrate` finds the real ones and writes this file.
"""


def write_starter_store(folder: str | Path) -> Path:
    """Write a small, valid store folder with comments: five cameras, 16 plates, eight products.

    Args:
        folder: a folder that does not exist yet, or an empty one. Its name becomes the store's id.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder holds something already, or cannot be written.
    """
    folder = Path(folder)
    try:
        _want_empty(folder)
        for source in sorted(_STARTER.iterdir()):
            shutil.copyfile(source, folder / source.name)
        settings = folder / "store.toml"
        text = settings.read_text(encoding="utf-8")
        store_id, name = _names(folder)
        text = text.replace('id = "my-store"', f"id = {json.dumps(store_id)}", 1)
        text = text.replace('name = "My store"', f"name = {json.dumps(name, ensure_ascii=False)}", 1)
        settings.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; pass another folder") from None
    return folder


def write_rough_store(folder: str | Path, shop: RoughShop, currency: str, timezone: str) -> Store:
    """Write a store folder of a size, without goods, whose lengths are assumptions to be corrected.

    Args:
        folder: as for `write_starter_store`.
        shop: its floor, cameras and shelves.
        currency: ISO 4217.
        timezone: IANA.

    Returns:
        The store.

    Raises:
        ConfigError: as `write_starter_store`; or numbers that make no shop, an unknown currency or time zone.
    """
    folder = Path(folder)
    store_id, name = _names(folder)
    try:
        store = shop.store(store_id, name, currency, timezone)
    except ValidationError as error:
        raise ConfigError([f"--{fault}" for fault in validation_faults(error, "")]) from None
    try:
        _want_empty(folder)
        store.save(folder)
        # The settings keep the comments of the starter store, which say what each is for.
        document: Any = tomlkit.parse((_STARTER / "store.toml").read_text(encoding="utf-8"))
        made: Any = tomlkit.parse((folder / "store.toml").read_text(encoding="utf-8"))
        for key, value in made.items():
            if key in ("gate", "zone", "obstacle"):
                document.pop(key)
                document.append(key, value)
            else:
                document[key] = value
        (folder / "store.toml").write_text(tomlkit.dumps(document), encoding="utf-8")
        cameras = folder / "cameras.toml"
        cameras.write_text(_ASSUMED + cameras.read_text(encoding="utf-8"), encoding="utf-8")
        shutil.copyfile(_STARTER / "README.md", folder / "README.md")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; pass another folder") from None
    return store


def _want_empty(folder: Path) -> None:
    """Make the folder. Raises ConfigError: it is there and holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        kind = "is not empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder} {kind}; nothing was written. Pass a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)


def _names(folder: Path) -> tuple[str, str]:
    """Id and name of the store: the folder's name, as far as a name can hold it."""
    name = folder.resolve().name
    hidden = unprintable(name)
    name = "".join(c for c in name if c not in hidden)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-store", name or "My store"
