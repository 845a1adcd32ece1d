"""A small store to start from: `fusion init`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from fusion.errors import ConfigError

_STARTER = Path(__file__).resolve().parent / "starter"


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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            kind = "is not empty" if folder.is_dir() else "is a file"
            raise ConfigError(f"{folder} {kind}; nothing was written. Pass a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(_STARTER.iterdir()):
            shutil.copyfile(source, folder / source.name)
        settings = folder / "store.toml"
        text = settings.read_text(encoding="utf-8")
        name = folder.resolve().name
        store_id = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-store"
        text = text.replace('id = "my-store"', f"id = {json.dumps(store_id)}", 1)
        text = text.replace('name = "My store"', f"name = {json.dumps(name or 'My store', ensure_ascii=False)}", 1)
        settings.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; pass another folder") from None
    return folder
