"""Signed checkpoints of the books on a schedule: where they are kept, by which key, and the check against them.

A checkpoint beside the books is found by `fusion verify` by itself. Copies on other machines show a loss that also took
the file beside the books. A checkpoint is never replaced by one of fewer entries. Extra `gate`, for Ed25519.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fusion.errors import ConfigError, LedgerError, extra
from fusion.files.atomic import replace_file
from fusion.files.secrets import derived, secret_of, store_key
from fusion.money.books import Books
from fusion.money.checkpoint import Head, SignedHead, VerifyingKey
from fusion.store.models import Store
from fusion.store.values import Identifier, StrictModel

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# A checkpoint is a line of some 300 bytes.
_BYTES_MAX = 16 * 1024


class CheckpointSettings(StrictModel):
    """`[checkpoints]` of till.toml. Paths are relative to that file."""

    # What happens between two checkpoints could be cut off unnoticed.
    every_s: float = Field(default=600.0, ge=1.0, le=86_400.0)
    # Ed25519 private key in PEM, readable by its owner only; by default one derived from the store's key.
    key_file: Identifier | None = None
    # Folders for copies, best on other machines.
    copies_to: tuple[Identifier, ...] = ()


def checkpoint_name(store: Store) -> str:
    """Name of the file of a store's checkpoints, the same in every folder."""
    safe = re.fullmatch(r"[A-Za-z0-9_-]{1,80}", store.id)
    return f"{store.id if safe else hashlib.sha256(store.id.encode()).hexdigest()[:32]}.checkpoint"


def signing_key(folder: Path, key_file: Path | None = None) -> Ed25519PrivateKey:
    """The key that signs: that of a PEM file, else the one derived from the store's key in a folder.

    Raises:
        ConfigError: it is missing, other users can read it, or it is no such key.
    """
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if key_file is None:
        return Ed25519PrivateKey.from_private_bytes(derived(store_key(folder, create=False), "checkpoint"))
    pem = secret_of(file=key_file, what="the key of checkpoints")
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{key_file}: want an unencrypted Ed25519 private key in PEM, got something else")
    return key


def verifying_key(folder: Path, key_file: Path | None = None) -> Ed25519PublicKey | None:
    """The key that checks signatures: public, or private, in a PEM file; else that of the store's key in a folder.

    Returns None where no key is named and the folder holds none. Raises ConfigError where one cannot be used.
    """
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if key_file is None:
        try:
            return signing_key(folder).public_key()
        except ConfigError:
            return None
    pem = key_file.read_bytes()
    if b"PRIVATE KEY" in pem:
        return signing_key(folder, key_file).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{key_file}: want an Ed25519 public key in PEM, got something else")
    return key


def read_checkpoint(path: Path, key: VerifyingKey, store: Store) -> SignedHead:
    """The checkpoint in a file. Raises LedgerError where it is damaged, or not signed by this key."""
    try:
        with open(path, "rb") as file:
            text = file.read(_BYTES_MAX).decode("utf-8", "replace")
        return SignedHead.read(text, key, store)
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from None


class Checkpoints:
    """Writes a store's checkpoints whenever they are due; the running store calls `advance`, a command `write`."""

    def __init__(
        self,
        ledger: Books,
        store: Store,
        key: Ed25519PrivateKey,
        folders: Sequence[Path],
        *,
        every_s: float = 600.0,
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        """Keep checkpoints in folders.

        Args:
            ledger: the books.
            store: whose books they are.
            key: signs; see `signing_key`.
            folders: the folder of the books, or of their vault, first; then those for copies.
            every_s: time between two, by whichever clock `advance` is given.
            report: takes lines for the operator.
        """
        self._ledger, self._store, self._key, self._folders = ledger, store, key, tuple(folders)
        self._every_ns, self._report = round(every_s * 1e9), report
        self._tried_ns: int | None = None

    def advance(self, t_ns: int) -> None:
        """Write a checkpoint where one is due at an instant; what goes wrong is reported, and tried again when due."""
        if self._tried_ns is not None and abs(t_ns - self._tried_ns) < self._every_ns:
            return
        self._tried_ns = t_ns
        try:
            self.write(t_ns)
        except (LedgerError, OSError) as error:
            self._report(f"no checkpoint of the books was written: {error}")

    def write(self, t_ns: int) -> Head:
        """Note the newest entry in every folder, unless one of them shows that entries were lost.

        Raises:
            LedgerError: the books lack the entry of a checkpoint, or a checkpoint is not signed by the store's key. It
                is left as it is: it is the evidence.
            OSError: a folder cannot be written; the others were.
        """
        name, public = checkpoint_name(self._store), self._key.public_key()
        for folder in self._folders:
            if (folder / name).exists():
                kept = read_checkpoint(folder / name, public, self._store)
                if not self._ledger.holds(kept.head):
                    raise LedgerError(
                        f"{folder / name}: the books lack entry {kept.head.seq} as this checkpoint states it: entries "
                        "were lost or rewritten; see `fusion verify`, and restore a backup"
                    )
        text = self._ledger.checkpoint(self._key, t_ns)
        failure: OSError | None = None
        for folder in self._folders:
            try:
                replace_file(folder / name, text + "\n", private=True)
                self._keep_public_key(folder / f"{name}.pub")
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure
        return SignedHead.read(text, public, self._store).head

    def _keep_public_key(self, path: Path) -> None:
        """Whoever has a copy of the books can check them by this key, if they took it while all was well."""
        from cryptography.hazmat.primitives import serialization

        if not path.exists():
            pem = self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            replace_file(path, pem, private=True)
