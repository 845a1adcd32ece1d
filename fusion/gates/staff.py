"""Staff badges from a file that is read again when it changes: a badge taken off the list opens nothing any more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from fusion.gates.verifiers import StaffList, token_digest
from fusion.gates.watched import WatchedFile
from fusion.store.card_numbers import looks_like_card_number

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


def badges(text: str) -> frozenset[bytes]:
    """Digests of the badges in a list: tokens separated by white space, or `sha256:` and the digest of one in hex.

    What follows a `#` in a line is a remark, such as whose badge it is.

    Raises:
        ValueError: a badge looks like a card number, or a digest is malformed; the message does not repeat it.
    """
    found = set()
    for row, line in enumerate(text.splitlines(), 1):
        for token in line.partition("#")[0].split():
            if token.startswith("sha256:"):
                digest = _DIGEST.fullmatch(token)
                if digest is None:
                    raise ValueError(f"staff list: line {row}: want sha256: and 64 hexadecimal digits")
                found.add(bytes.fromhex(digest[1]))
                continue
            if looks_like_card_number(token):
                raise ValueError(f"staff list: line {row}: want a badge's token, got what looks like a card number")
            found.add(token_digest(token))
    return frozenset(found)


class StaffFile(StaffList):
    """Admits staff by the badges that a file lists now."""

    def __init__(self, path: Path, report: Callable[[WatchedFile[frozenset[bytes]]], object]) -> None:
        """Read the list; For `report` see `WatchedFile`. Raises FusionError: it cannot be read."""
        super().__init__(())
        self.file: WatchedFile[frozenset[bytes]] = WatchedFile(path, badges, frozenset(), report)

    def digests(self) -> frozenset[bytes]:
        """Digests of the tokens that are good now."""
        return self.file.content()
