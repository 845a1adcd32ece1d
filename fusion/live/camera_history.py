"""What became of cameras that were moved, in a file that is only added to.

One line of JSON for each correction, refusal and undoing, with the poses before and after and what speaks for them; see
`fusion.results.CameraCorrection`. A process that resumes from an older snapshot corrects the same camera at the same
instant once more, which is not written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path

from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.growing import GrowingLines
from fusion.results import CameraCorrection, CorrectionStatus

FILE = "cameras.jsonl"
# The engine remembers fewer corrections than this, so no older line can come again.
READ_BACK = 256
# A line that is longer was not written here.
_LINE_MAX = 4096

_Key = tuple[int, str, str]


class CameraHistory:
    """The file of one store's process.

    It is open only while a line is added: an erasure waits for every file of lines that the process has open, since
    such a file may name the person (`fusion.gates.erasing`).
    """

    def __init__(self, folder: Path) -> None:
        """Read the file in a store's folder, or begin it. Raises OSError, ConfigError."""
        self._path = folder / FILE
        GrowingLines(self._path).close()
        self._written = {_key(each) for each in list(corrections_in(self._path))[-READ_BACK:]}

    def note(self, engine: Engine, keep: Callable[[Callable[[], object]], object]) -> None:
        """Add what the engine remembers and the file does not hold; `keep` calls what writes, and waits for a disk."""
        for correction in engine.health().corrections:
            if _key(correction) not in self._written:
                line = json.dumps({name: value for name, value in asdict(correction).items() if value is not None})
                keep(lambda line=line: self._add(line))  # type: ignore[misc]
                self._written.add(_key(correction))

    def _add(self, line: str) -> None:
        with closing(GrowingLines(self._path)) as lines:
            lines.add(line)


def corrections_in(path: Path) -> Iterator[CameraCorrection]:
    """The corrections in a file, oldest first; lines that were not written here are passed over.

    Raises:
        FusionError: the file cannot be read.
    """
    known = {field.name for field in fields(CameraCorrection)}
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line[:_LINE_MAX])
                    if not isinstance(row, dict) or not row.keys() <= known:
                        continue
                    status = CorrectionStatus(row["status"])
                    vectors = {name: tuple(map(float, row[name])) for name in row if name in _VECTORS}
                    yield CameraCorrection(**{**row, **vectors, "status": status})
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue
    except FileNotFoundError:
        return
    except OSError as error:
        raise FusionError(f"{path}: cannot be read: {error.strerror}") from None


_VECTORS = ("rotation_before", "translation_before", "rotation_after", "translation_after")


def _key(correction: CameraCorrection) -> _Key:
    return correction.t_ns, correction.camera, str(correction.status)
