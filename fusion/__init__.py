"""Who took what, and how sure: a fusion engine for checkout-free stores.

Load a `Store`, make an `Engine`, feed it `Frame`, `ShelfReading`, `GateScan`, `DoorState` and `ItemSighting` as they
come, and get typed results back. `replay` runs a recording; `triangulate`, `triangulate_linear` and `reconstruct`
need no engine; `snapshot` and `resume`
move an engine between processes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public face: every public name by the module that holds it. Names are imported when first used, so that
# `import fusion` stays quick and a program that only reads store folders never loads the kernels. Type checkers read
# the same list below; tests/test_public.py compares the two.
_PUBLIC = {
    "early.ahead": "Ahead",
    "engine": "Engine",
    "errors": (
        "ConfigError EntryError FusionError IdempotencyConflict JournalError LedgerError NotPermitted OrderError"
        " RecordingError ShapeError SnapshotError TimeError"
    ),
    "files.recordings": "Recording RecordingWriter",
    "files.results": "ResultsWriter",
    "goods.journal": "Account Journal Transfer",
    "goods.plates": "PlateState",
    "goods.sensors": "Health",
    "observations": "DoorState Frame GateScan ItemSighting Observation ShelfReading",
    "people.geometry": "LinearTriangulation Rig Triangulation triangulate triangulate_linear",
    "people.health": "CameraState",
    "people.tracker": "reconstruct",
    "results": (
        "Alternative CameraCorrection Candidate CorrectionStatus EarlyReceipt EventEvidence Evidence Goods Lesson"
        " LessonCause LessonKind Outstanding People PersonEntered PersonLeft Picked PieceLabel PieceWeight"
        " PlateTrace PutBack Question QuestionKind Reason ReasonKind Receipt ReceiptLine ReceiptStatus Result"
        " RunEnd RunSummary ShelfCount ShelfEventExplained ShelfStatus SightingEvidence Taken Warning WarningKind"
        " WristPath"
    ),
    "run": "Run Sink replay",
    "sentences": "lesson_text question_text reason_text sentence",
    "setup.calibrate": "calibrate",
    "setup.check": "check",
    "snapshots": "resume snapshot",
    "store.models": "Store",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list: the names of the table)

if TYPE_CHECKING:
    from fusion.early.ahead import Ahead as Ahead
    from fusion.engine import Engine as Engine
    from fusion.errors import ConfigError as ConfigError
    from fusion.errors import EntryError as EntryError
    from fusion.errors import FusionError as FusionError
    from fusion.errors import IdempotencyConflict as IdempotencyConflict
    from fusion.errors import JournalError as JournalError
    from fusion.errors import LedgerError as LedgerError
    from fusion.errors import NotPermitted as NotPermitted
    from fusion.errors import OrderError as OrderError
    from fusion.errors import RecordingError as RecordingError
    from fusion.errors import ShapeError as ShapeError
    from fusion.errors import SnapshotError as SnapshotError
    from fusion.errors import TimeError as TimeError
    from fusion.files.recordings import Recording as Recording
    from fusion.files.recordings import RecordingWriter as RecordingWriter
    from fusion.files.results import ResultsWriter as ResultsWriter
    from fusion.goods.journal import Account as Account
    from fusion.goods.journal import Journal as Journal
    from fusion.goods.journal import Transfer as Transfer
    from fusion.goods.plates import PlateState as PlateState
    from fusion.goods.sensors import Health as Health
    from fusion.observations import DoorState as DoorState
    from fusion.observations import Frame as Frame
    from fusion.observations import GateScan as GateScan
    from fusion.observations import ItemSighting as ItemSighting
    from fusion.observations import Observation as Observation
    from fusion.observations import ShelfReading as ShelfReading
    from fusion.people.geometry import LinearTriangulation as LinearTriangulation
    from fusion.people.geometry import Rig as Rig
    from fusion.people.geometry import Triangulation as Triangulation
    from fusion.people.geometry import triangulate as triangulate
    from fusion.people.geometry import triangulate_linear as triangulate_linear
    from fusion.people.health import CameraState as CameraState
    from fusion.people.tracker import reconstruct as reconstruct
    from fusion.results import Alternative as Alternative
    from fusion.results import CameraCorrection as CameraCorrection
    from fusion.results import Candidate as Candidate
    from fusion.results import CorrectionStatus as CorrectionStatus
    from fusion.results import EarlyReceipt as EarlyReceipt
    from fusion.results import EventEvidence as EventEvidence
    from fusion.results import Evidence as Evidence
    from fusion.results import Goods as Goods
    from fusion.results import Lesson as Lesson
    from fusion.results import LessonCause as LessonCause
    from fusion.results import LessonKind as LessonKind
    from fusion.results import Outstanding as Outstanding
    from fusion.results import People as People
    from fusion.results import PersonEntered as PersonEntered
    from fusion.results import PersonLeft as PersonLeft
    from fusion.results import Picked as Picked
    from fusion.results import PieceLabel as PieceLabel
    from fusion.results import PieceWeight as PieceWeight
    from fusion.results import PlateTrace as PlateTrace
    from fusion.results import PutBack as PutBack
    from fusion.results import Question as Question
    from fusion.results import QuestionKind as QuestionKind
    from fusion.results import Reason as Reason
    from fusion.results import ReasonKind as ReasonKind
    from fusion.results import Receipt as Receipt
    from fusion.results import ReceiptLine as ReceiptLine
    from fusion.results import ReceiptStatus as ReceiptStatus
    from fusion.results import Result as Result
    from fusion.results import RunEnd as RunEnd
    from fusion.results import RunSummary as RunSummary
    from fusion.results import ShelfCount as ShelfCount
    from fusion.results import ShelfEventExplained as ShelfEventExplained
    from fusion.results import ShelfStatus as ShelfStatus
    from fusion.results import SightingEvidence as SightingEvidence
    from fusion.results import Taken as Taken
    from fusion.results import Warning as Warning
    from fusion.results import WarningKind as WarningKind
    from fusion.results import WristPath as WristPath
    from fusion.run import Run as Run
    from fusion.run import Sink as Sink
    from fusion.run import replay as replay
    from fusion.sentences import lesson_text as lesson_text
    from fusion.sentences import question_text as question_text
    from fusion.sentences import reason_text as reason_text
    from fusion.sentences import sentence as sentence
    from fusion.setup.calibrate import calibrate as calibrate
    from fusion.setup.check import check as check
    from fusion.snapshots import resume as resume
    from fusion.snapshots import snapshot as snapshot
    from fusion.store.models import Store as Store


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusion' has no attribute {name!r}")
    # Bound here so that the next look-up finds it at once.
    globals()[name] = value = getattr(importlib.import_module(f"fusion.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
