"""Faces of customers who opted in: templates, encrypted at rest, matched by cosine similarity, deleted at once.

The store's own reader computes the embeddings; no picture comes here. An embedding that matches no enrolled customer is
dropped: nothing is computed about other people beyond the comparison, and nothing is kept. Extra `gate`.

Several processes may use one gallery: each reads the file again before it compares once another has changed it, and
changes are made one at a time, on what the file holds then. Every change has a number that grows, inside the sealed
file and apart from it (`Marks`), so that an older copy of the file, with people in it who were deleted, is refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
import threading
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import FusionError, extra
from fusion.files.atomic import replace_file
from fusion.files.private import open_private
from fusion.gates.marks import Marks
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.gates.watched import stamp_of

_NONCE_BYTES = 12
_MAGIC = b"fusion faces 2\n"
# Galleries that were written before changes had numbers; read as long as no number is known.
_MAGIC_UNNUMBERED = b"fusion faces 1\n"
_CHANGES = "faces: changes of the gallery"
# The stamp of no file.
_UNKNOWN = (-1,)
# The best match must exceed the second best by this much, or the gate stays closed: twins, or a person enrolled twice.
MARGIN = 0.05


def face_token(embedding: NDArray[np.floating[Any]]) -> str:
    """An embedding as a gate's reader sends it: (d,) numbers, as half-precision floats in base64."""
    return base64.b64encode(np.asarray(embedding, "<f2").tobytes()).decode()


def threshold_of(false_accept_rate: float, n_templates: int, effective_dim: float) -> float:
    """Cosine threshold at which a stranger matches any template of a gallery at most at a given rate.

    The cosine of two independent directions in d dimensions has (1 + cos) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2); the
    rate is shared among the templates (Bonferroni). Embeddings of faces fill fewer dimensions than they have:
    `effective_dim` is the inverse of the variance of the cosine between different people, see `effective_dim_of`.

    Source: Cai, Fan and Jiang, Distributions of angles in random packing on spheres, JMLR 14 (2013), section 2.
    """
    from scipy.special import betainccinv

    half = (effective_dim - 1) / 2
    return float(2 * betainccinv(half, half, false_accept_rate / max(n_templates, 1)) - 1)


def effective_dim_of(embeddings: NDArray[np.floating[Any]]) -> float:
    """Effective dimension of the embeddings of different people, (n, d) with n of some hundreds at least.

    Estimated from the reader's manufacturer or from a public data set; customers are not needed. Uses the second moment
    about zero, so that embeddings that all point the same way count as few dimensions.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return float(1.0 / np.mean(cosines**2))


class FaceGallery(Verifier):
    """Templates of customers who opted in, in one encrypted file (AES-256-GCM); also the gate's verifier."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: bytes,
        *,
        dim: int,
        effective_dim: float,
        false_accept_rate: float,
        marks: Marks,
    ) -> None:
        """Open a gallery, or begin one.

        Args:
            path: the file.
            key: 32 bytes that are kept elsewhere.
            marks: hold the number of the gallery's last change; in another file than the gallery.
            dim: length of the reader's embeddings; 0: of any length, see `to_erase_from`.
            effective_dim: see `threshold_of`.
            false_accept_rate: share of strangers at the gate who may match a template, such as 1e-6.

        Raises:
            FusionError: wrong key, a damaged file, or an older copy of it.
        """
        with extra("gate"):
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not 0.0 < false_accept_rate < 1.0 or (dim and not 2.0 <= effective_dim <= dim):
            raise ValueError(
                "faces: want a false accept rate between 0 and 1 and an effective dimension from 2 to dim, "
                f"got {false_accept_rate} and {effective_dim} of {dim}"
            )
        self._path, self._cipher, self._marks = Path(path), AESGCM(key), marks
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        self._dim, self._effective_dim, self._rate = dim, effective_dim, false_accept_rate
        self._lock = threading.Lock()
        self._accounts: list[str] = []
        self._names: list[str] = []
        self._templates: NDArray[np.float32] = np.zeros((0, dim), np.float32)
        self._stamp: tuple[int, ...] | None = None
        self._n_changes = 0
        with self._lock, self._between_changes():
            self._refresh()

    @classmethod
    def to_erase_from(cls, path: str | os.PathLike[str], key: bytes, marks: Marks) -> FaceGallery:
        """A gallery of whatever embeddings, to delete people from it; it admits no one. Raises FusionError."""
        return cls(path, key, dim=0, effective_dim=0.0, false_accept_rate=0.5, marks=marks)

    @property
    def threshold(self) -> float:
        """Cosine from which a face matches a template, for the gallery's present size."""
        return threshold_of(self._rate, len(self._accounts), self._effective_dim)

    def __len__(self) -> int:
        with self._lock, self._between_changes():
            self._refresh()
            return len(self._accounts)

    def __contains__(self, account: str) -> bool:
        with self._lock, self._between_changes():
            self._refresh()
            return account in self._accounts

    def enrol(self, account: str, name: str, embedding: NDArray[np.floating[Any]]) -> None:
        """Keep the template of a customer who asked for it, (dim,) numbers; replaces an earlier one."""
        unit = self._unit(embedding)
        if unit is None:
            raise ValueError(f"embedding: want {self._dim} finite numbers, not all zero")
        with self._lock, self._between_changes():
            self._refresh()
            self._remove(account)
            self._accounts.append(account)
            self._names.append(name)
            self._templates = np.vstack([self._templates, unit[None]])
            self._write()

    def delete(self, account: str) -> bool:
        """Delete a template, also from disk. False if there was none."""
        with self._lock, self._between_changes():
            self._refresh()
            existed = self._remove(account)
            if existed:
                self._write()
            return existed

    def erase(self, names: Container[str]) -> int:
        """Delete the templates of everybody who goes by one of these names, also from disk; returns how many."""
        with self._lock, self._between_changes():
            self._refresh()
            found = [account for account in self._accounts if account in names]
            for account in found:
                self._remove(account)
            if found:
                self._write()
            return len(found)

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Match an embedding (`face_token`) with the gallery as it is now.

        Raises:
            FusionError: the gallery cannot be read any more, or is an older copy.
        """
        try:
            embedding = np.frombuffer(base64.b64decode(request.token, validate=True), "<f2").astype(np.float64)
        except (ValueError, binascii.Error):
            return Refused("not a face", guess=True)
        unit = self._unit(embedding)
        if unit is None:
            return Refused("not a face", guess=True)
        with self._lock:
            if self._is_outdated():
                with self._between_changes():
                    self._refresh()
            return self._match(unit)

    def _match(self, unit: NDArray[np.float32]) -> Verified | Refused:
        # Everybody who looks at a reader is compared, so a stranger is no guess.
        if not self._accounts or not self._dim:
            return Refused("face not known", "Please use the app")
        cosines = self._templates @ unit
        best = int(np.argmax(cosines))
        if cosines[best] < self.threshold:
            return Refused("face not known", "Please use the app")
        others = np.delete(cosines, best)
        if others.size and cosines[best] - others.max() < MARGIN:
            return Refused("face of two people", "Please use the app")
        return Verified(self._accounts[best], f"Welcome, {self._names[best]}")

    def _unit(self, embedding: NDArray[np.floating[Any]]) -> NDArray[np.float32] | None:
        vector = np.asarray(embedding, np.float64)
        if vector.shape != (self._dim,) or not np.isfinite(vector).all():
            return None
        length = np.linalg.norm(vector)
        return (vector / length).astype(np.float32) if length > 0 else None

    def _remove(self, account: str) -> bool:
        if account not in self._accounts:
            return False
        place = self._accounts.index(account)
        del self._accounts[place], self._names[place]
        self._templates = np.delete(self._templates, place, axis=0)
        return True

    # ---- the file ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _between_changes(self) -> Iterator[None]:
        """While the block runs, no other process changes the gallery."""
        import fcntl  # No such locks on Windows, where the rest of the package works.

        with open_private(self._lock_path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_outdated(self) -> bool:
        """Whether the file is another one than was read last."""
        try:
            return stamp_of(os.stat(self._path)) != self._stamp
        except FileNotFoundError:
            return self._stamp is not None

    def _refresh(self) -> None:
        """Read the file if it is another one than was read last; while no other process changes it."""
        if not self._is_outdated():
            return
        # Nothing of an earlier state is used if this fails.
        self._accounts, self._names, self._stamp, self._n_changes = [], [], None, 0
        self._templates = np.zeros((0, self._dim), np.float32)
        known = self._marks.value(_CHANGES)
        if not self._path.exists():
            return  # Whoever removes the file deletes everybody, which opens no door.
        stamp = stamp_of(os.stat(self._path))
        fields, templates = self._opened(self._path.read_bytes(), known)
        n_changes = int(fields.get("changes", 0))
        if n_changes < known:
            raise FusionError(
                f"{self._path} is an older copy, of change {n_changes}; want change {known} or later, since people may "
                "have been deleted in between"
            )
        # A crash may have come between the file and its number.
        self._marks.raise_to(_CHANGES, n_changes)
        self._accounts, self._names, self._n_changes = fields["accounts"], fields["names"], n_changes
        self._templates, self._stamp = templates, stamp

    def _opened(self, raw: bytes, known: int) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """Head and templates of a sealed gallery. known: the number of its last change, as far as it is known."""
        from cryptography.exceptions import InvalidTag

        nonce, sealed = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        try:
            try:
                plain = self._cipher.decrypt(nonce, sealed, _MAGIC)
            except InvalidTag:
                if known:
                    raise
                plain = self._cipher.decrypt(nonce, sealed, _MAGIC_UNNUMBERED)
            head, _, templates = plain.partition(b"\n")
            fields = json.loads(head)
            n_people = len(fields["accounts"])
            dim = self._dim or len(templates) // (4 * max(n_people, 1))
            return fields, np.frombuffer(templates, "<f4").reshape(n_people, dim).copy()
        except (InvalidTag, ValueError, KeyError) as error:
            raise FusionError(
                f"{self._path}: want a gallery of {self._dim} dimensions under this key, got: {type(error).__name__}"
            ) from None

    def _write(self) -> None:
        n_changes = max(self._n_changes, self._marks.value(_CHANGES)) + 1
        fields = {"accounts": self._accounts, "names": self._names, "changes": n_changes}
        head = json.dumps(fields).encode() + b"\n"
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, head + self._templates.astype("<f4").tobytes(), _MAGIC)
        # The key outlives a deleted customer, so their sealed template must not remain in free blocks.
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(open(self._path, "r+b")) if self._path.exists() else None
            try:
                replace_file(self._path, sealed, private=True)
            except BaseException:
                self._stamp = _UNKNOWN  # What is in memory now is not in the file, so it is read again.
                raise
            if old is not None:
                old.write(bytes(os.fstat(old.fileno()).st_size))
                old.flush()
                os.fsync(old.fileno())
        self._marks.raise_to(_CHANGES, n_changes)
        self._n_changes, self._stamp = n_changes, stamp_of(os.stat(self._path))
