"""Pictures of products: files of a store folder, `pictures/GTIN.png`, `.jpg` or `.webp`, as pages ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fusion.store.gtin import OwnGtins

KINDS = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
# A picture of a product is some 20 kB; a photograph as a camera writes it would keep a reviewer waiting.
BYTES_MAX = 1 << 20


class Picture(NamedTuple):
    """A picture: its media type and its bytes."""

    media_type: str
    content: bytes


class Pictures:
    """The pictures of a store's products. Only names of products lead to files."""

    def __init__(self, folder: Path | None, gtins: Iterable[str]) -> None:
        """Find them. folder: None or absent where there are none. gtins: the store's products."""
        self._paths: dict[str, Path] = {}
        own = OwnGtins(gtins)
        if folder is None or not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            gtin = own.of(path.stem)
            if gtin is not None and path.suffix.lower() in KINDS and path.stat().st_size <= BYTES_MAX:
                self._paths.setdefault(gtin, path)

    @property
    def gtins(self) -> list[str]:
        """Products that have a picture."""
        return list(self._paths)

    def of(self, gtin: str) -> Picture | None:
        """The picture of a product; None where there is none that can be read."""
        path = self._paths.get(gtin)
        if path is None:
            return None
        try:
            return Picture(KINDS[path.suffix.lower()], path.read_bytes())
        except OSError:
            return None


__all__ = ["Picture", "Pictures"]
