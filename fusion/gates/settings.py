"""What a store's settings say about its gates: which credentials are accepted, how they are checked, and the limits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fusion.errors import FusionError
from fusion.gates.cards import CardTerminal
from fusion.gates.codes import LIFETIME_MAX_S, CodeVerifier, Keys, KeysFile, UsedCodes
from fusion.gates.faces import FaceGallery
from fusion.gates.keeper import GateLimits
from fusion.gates.marks import Marks
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.staff import StaffFile
from fusion.gates.verifiers import OpenDoor, Verifier
from fusion.gates.watched import WatchedFile
from fusion.results import Warning, WarningKind
from fusion.store.card_numbers import looks_like_card_number

_DEFAULT = GateLimits()
# The gallery, unless the settings name another file.
FACES_FILE = "faces"


class _Settings(BaseModel):
    # An error never repeats a value: a token may have been written in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FaceSettings(_Settings):
    """A gallery of customers who opted in.

    Attributes:
        file: the gallery; the store's folder holds it unless the path is absolute.
        dim: length of the reader's embeddings.
        effective_dim: of them, see `faces.threshold_of`.
        false_accept_rate: share of strangers who may match a template.
    """

    file: Path = Path(FACES_FILE)
    dim: int = Field(ge=2, le=4096)
    effective_dim: float = Field(ge=2.0)
    false_accept_rate: float = Field(default=1e-6, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _dimensions_fit(self) -> FaceSettings:
        if self.effective_dim > self.dim:
            raise ValueError(f"want an effective_dim of at most dim, {self.dim}, got {self.effective_dim:g}")
        return self


class GateSettings(_Settings):
    """The table `gates` of a store's settings. Paths are relative to its file.

    Attributes:
        code_keys: TOML file with the public keys of the servers that sign codes, by id; see `codes.keys_of`.
        code_key: one such key without an id, PEM.
        code_lifetime_max_s: longest time from a code's beginning to its expiry.
        staff_list: the badges of staff; see `staff.badges`.
        elsewhere: kinds of credentials that gates verify themselves: they send scans instead of requests.
        card_prefix: how the tokens of the payment terminal begin.
        faces: customers who opted in to come in by face.
        deadline_s, deadline_world_s, again_s, guesses_max, guess_pause_s, guess_pause_max_s: see `GateLimits`.
    """

    code_keys: Path | None = None
    code_key: Path | None = None
    code_lifetime_max_s: float = Field(default=LIFETIME_MAX_S, gt=0.0, le=86_400.0)
    staff_list: Path | None = None
    elsewhere: tuple[str, ...] = ()
    card_prefix: str = Field(default="tok_", min_length=1, max_length=32)
    faces: FaceSettings | None = None
    deadline_s: float = Field(default=_DEFAULT.deadline_s, gt=0.0, le=1.0)
    deadline_world_s: float = Field(default=_DEFAULT.deadline_world_s, ge=1.0, le=300.0)
    again_s: float = Field(default=_DEFAULT.again_s, ge=0.05, le=5.0)
    guesses_max: int = Field(default=_DEFAULT.guesses_max, ge=1, le=100)
    guess_pause_s: float = Field(default=_DEFAULT.guess_pause_s, ge=0.1, le=60.0)
    guess_pause_max_s: float = Field(default=_DEFAULT.guess_pause_max_s, ge=1.0, le=3600.0)

    @field_validator("card_prefix", "code_keys", "code_key", "staff_list", "elsewhere")
    @classmethod
    def _no_card_number(cls, value: Any) -> Any:
        if value is not None and looks_like_card_number(str(value)):
            raise ValueError("want no card number here, got a text that looks like one")
        return value

    def kinds(self) -> set[str]:
        """Kinds of credentials that can be verified here, or that gates verify themselves."""
        configured = {"qr": self.code_keys or self.code_key, "staff": self.staff_list, "face": self.faces}
        return {"open", "card", *self.elsewhere, *(kind for kind, value in configured.items() if value is not None)}

    @property
    def limits(self) -> GateLimits:
        """Deadlines, and limits on guessing."""
        return GateLimits(
            self.deadline_s, self.deadline_world_s, self.again_s, self.guesses_max, self.guess_pause_s,
            self.guess_pause_max_s,
        )  # fmt: skip


class Credentials:
    """The credentials that a running store accepts; their files are read again when they change.

    Attributes:
        verifiers: by kind of credential.
        faces: the gallery, where the settings name one.
        files: keys and lists, which are read again when they change.
    """

    def __init__(
        self,
        verifiers: dict[str, Verifier],
        faces: FaceGallery | None,
        files: list[WatchedFile[Any]],
        stack: contextlib.ExitStack,
    ) -> None:
        """See `open_credentials`."""
        self.verifiers, self.faces = verifiers, faces
        self.files, self._stack = files, stack

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_credentials(
    settings: GateSettings,
    store_id: str,
    pseudonyms: Pseudonyms,
    folder: Path,
    *,
    base: Path,
    face_key: bytes | None = None,
    warn: Callable[[Warning], object] = lambda warning: None,
    now_ns: Callable[[], int] = lambda: 0,
) -> Credentials:
    """A verifier for each kind of credential that the settings name; open doors and terminals' tokens need no file.

    Args:
        settings: of the gates.
        store_id: the store for which codes are signed.
        pseudonyms: gives a visit its name; customers' credentials are verified behind it.
        folder: of the store's process; holds the codes that were used.
        base: what paths in the settings are relative to.
        face_key: 32 bytes that seal the gallery.
        warn: takes a warning where a file that was read again cannot be used; in the thread that asks a verifier.
        now_ns: the time of such a warning.

    Raises:
        FusionError: a file cannot be used, or the extra `gate` is missing.
    """
    report = warning_of(warn, now_ns)
    files: list[WatchedFile[Any]] = []
    verifiers: dict[str, Verifier] = {
        "open": OpenDoor(), "card": pseudonyms.behind(CardTerminal(settings.card_prefix))
    }  # fmt: skip
    faces = None
    with contextlib.ExitStack() as stack:
        keys = _Keys(settings, base, report)
        if keys.files:
            used = UsedCodes(folder / "used.sqlite")
            stack.callback(used.close)
            codes = CodeVerifier(keys, store_id, used, lifetime_max_s=settings.code_lifetime_max_s)
            verifiers["qr"] = pseudonyms.behind(codes)
            files += keys.files
        if settings.staff_list is not None:
            verifiers["staff"] = staff = StaffFile(base / settings.staff_list, report)
            files.append(staff.file)
        if settings.faces is not None:
            if face_key is None:
                raise FusionError("gates.faces: want the store's key, which seals the gallery")
            marks = Marks(folder / "used.sqlite")
            stack.callback(marks.close)
            faces = FaceGallery(
                folder / settings.faces.file, face_key, dim=settings.faces.dim, marks=marks,
                effective_dim=settings.faces.effective_dim, false_accept_rate=settings.faces.false_accept_rate,
            )  # fmt: skip
            verifiers["face"] = pseudonyms.behind(faces)
        return Credentials(verifiers, faces, files, stack.pop_all())
    raise AssertionError("not reached")


def warning_of(
    warn: Callable[[Warning], object], now_ns: Callable[[], int]
) -> Callable[[WatchedFile[Any]], object]:
    """What warns where a watched file cannot be read any more."""

    def report(file: WatchedFile[Any]) -> None:
        if file.fault:
            warn(Warning(now_ns(), WarningKind.CREDENTIALS_UNREADABLE, file.path.name, detail=file.fault))

    return report


class _Keys:
    """The keys of both settings: those with an id, and the one without."""

    def __init__(self, settings: GateSettings, base: Path, report: Callable[[WatchedFile[Any]], object]) -> None:
        self._with_id = None if settings.code_keys is None else KeysFile(base / settings.code_keys, report)
        self._without = (
            None if settings.code_key is None else KeysFile(base / settings.code_key, report, without_id=True)
        )
        self.files: list[WatchedFile[Any]] = [keys.file for keys in (self._with_id, self._without) if keys is not None]

    def get(self, key_id: str, /) -> Any:
        """See `codes.Keys`."""
        keys: Keys | None = self._with_id if key_id else self._without
        return None if keys is None else keys.get(key_id)
