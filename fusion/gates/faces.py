"""Faces of customers who opted in: templates, encrypted at rest, matched by cosine similarity, deleted at once.

The store's own reader computes the embeddings; no picture comes here. An embedding that matches no enrolled customer is
dropped: nothing is computed about other people beyond the comparison, and nothing is kept. Extra `gate`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import FusionError, extra
from fusion.files.atomic import replace_file
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier

_NONCE_BYTES = 12
_MAGIC = b"fusion faces 1\n"
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
        self, path: str | os.PathLike[str], key: bytes, *, dim: int, effective_dim: float, false_accept_rate: float
    ) -> None:
        """Open a gallery, or begin one.

        Args:
            path: the file.
            key: 32 bytes that are kept elsewhere.
            dim: length of the reader's embeddings.
            effective_dim: see `threshold_of`.
            false_accept_rate: share of strangers at the gate who may match a template, such as 1e-6.

        Raises:
            FusionError: wrong key, or a damaged file.
        """
        with extra("gate"):
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not 0.0 < false_accept_rate < 1.0 or not 2.0 <= effective_dim <= dim:
            raise ValueError(
                "faces: want a false accept rate between 0 and 1 and an effective dimension from 2 to dim, "
                f"got {false_accept_rate} and {effective_dim} of {dim}"
            )
        self._path, self._cipher = Path(path), AESGCM(key)
        self._dim, self._effective_dim, self._rate = dim, effective_dim, false_accept_rate
        self._lock = threading.Lock()
        self._accounts: list[str] = []
        self._names: list[str] = []
        self._templates: NDArray[np.float32] = np.zeros((0, dim), np.float32)
        if self._path.exists():
            self._read()

    @property
    def threshold(self) -> float:
        """Cosine from which a face matches a template, for the gallery's present size."""
        return threshold_of(self._rate, len(self._accounts), self._effective_dim)

    def __len__(self) -> int:
        return len(self._accounts)

    def __contains__(self, account: str) -> bool:
        return account in self._accounts

    def enrol(self, account: str, name: str, embedding: NDArray[np.floating[Any]]) -> None:
        """Keep the template of a customer who asked for it, (dim,) numbers; replaces an earlier one."""
        unit = self._unit(embedding)
        if unit is None:
            raise ValueError(f"embedding: want {self._dim} finite numbers, not all zero")
        with self._lock:
            self._remove(account)
            self._accounts.append(account)
            self._names.append(name)
            self._templates = np.vstack([self._templates, unit[None]])
            self._write()

    def delete(self, account: str) -> bool:
        """Delete a template, also from disk. False if there was none."""
        with self._lock:
            existed = self._remove(account)
            if existed:
                self._write()
            return existed

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Match an embedding (`face_token`) with the gallery."""
        try:
            embedding = np.frombuffer(base64.b64decode(request.token, validate=True), "<f2").astype(np.float64)
        except (ValueError, binascii.Error):
            return Refused("not a face")
        unit = self._unit(embedding)
        if unit is None:
            return Refused("not a face")
        with self._lock:
            if not self._accounts:
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

    def _read(self) -> None:
        from cryptography.exceptions import InvalidTag

        raw = self._path.read_bytes()
        try:
            plain = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _MAGIC)
            head, _, templates = plain.partition(b"\n")
            fields = json.loads(head)
            self._accounts, self._names = fields["accounts"], fields["names"]
            self._templates = np.frombuffer(templates, "<f4").reshape(len(self._accounts), self._dim).copy()
        except (InvalidTag, ValueError, KeyError) as error:
            raise FusionError(
                f"{self._path}: want a gallery of {self._dim} dimensions under this key, got: {type(error).__name__}"
            ) from None

    def _write(self) -> None:
        head = json.dumps({"accounts": self._accounts, "names": self._names}).encode() + b"\n"
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, head + self._templates.astype("<f4").tobytes(), _MAGIC)
        # The key outlives a deleted customer, so their sealed template must not remain in free blocks.
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(open(self._path, "r+b")) if self._path.exists() else None
            replace_file(self._path, sealed, private=True)
            if old is not None:
                old.write(bytes(os.fstat(old.fileno()).st_size))
                old.flush()
                os.fsync(old.fileno())
