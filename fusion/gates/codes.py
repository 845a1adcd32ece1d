"""Signed codes for the gate: short-lived, good once, verified offline. Extra `gate`.

An app's server signs with a private key; the store holds only public ones, each under an id, so that a new key is valid
beside the old one until that is removed. A code is "F2" and base64url of

    not before, expiry (int64 UTC nanoseconds each), nonce (16 bytes), length of the key's id (1 byte), length of the
    store's id (1 byte), the key's id (ASCII), the store's id, the account (both UTF-8), Ed25519 signature (64 bytes)

with numbers in network byte order. "F1" is the same without a key's id and its length; such codes are good where a key
without an id is configured.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import secrets
import sqlite3
import struct
import threading
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fusion.errors import FusionError, LedgerError, extra
from fusion.gates.marks import MARK_SCHEMA, RAISE_MARK
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.gates.watched import WatchedFile
from fusion.money.sqlite import open_sqlite

if TYPE_CHECKING:
    import numpy as np
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from numpy.typing import NDArray

# By prefix: what precedes the bytes that a code's signature covers, so that no other signed text passes for a code.
_SIGNED = {"F1": b"fusion code 1\n", "F2": b"fusion code 2\n"}
# Not before, expiry, nonce, length of the key's id in F2, length of the store's id.
_HEADS = {"F1": struct.Struct(">qq16sB"), "F2": struct.Struct(">qq16sBB")}
_SIGNATURE_BYTES = 64
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
KEYS_MAX = 64
VALID_S = 60.0
# A code that lives longer than a visit to the app takes can be copied and sold; by default it is refused.
LIFETIME_MAX_S = 600.0
# Clocks of the app's server and of gates agree this well; a code may be used this much before it begins or after it
# expires. Both are judged by the gate's clock.
CLOCK_SLACK_S = 2.0
# Used codes are remembered for a day beyond their expiry. A code that expired before the last pruning is refused
# whatever the clock says then, since its nonce may be among those that were deleted.
REMEMBERED_S = 86_400.0
# Outdated nonces are deleted once per hour.
_PRUNED_EVERY_S = 3600.0
_PRUNED = "codes pruned until"
_USED_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (nonce BLOB PRIMARY KEY, until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
""" + MARK_SCHEMA
_USE = """
INSERT OR IGNORE INTO used (nonce, until_ns)
SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM mark WHERE name = ? AND value > ?)
"""


# ---- keys ------------------------------------------------------------------------------------------------------------


def private_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in a PEM file that only its owner can read; created where there is none.

    Raises:
        FusionError: the file holds something else.
    """
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(pem)
        return key
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise FusionError(f"{path} is not an unencrypted private key in PEM; pass an Ed25519 private key") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise FusionError(f"{path} is a private key of another kind; pass an Ed25519 private key")
    return loaded


def public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file.

    Raises:
        FusionError: the file does not exist or holds something else.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise FusionError(f"{path} cannot be read ({error.strerror}); pass an Ed25519 public key in PEM") from None
    return _public_key_of(pem, str(path))


def _public_key_of(pem: bytes, where: str) -> Ed25519PublicKey:
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        loaded = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise FusionError(f"{where} is not a public key in PEM; pass an Ed25519 public key") from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise FusionError(f"{where} is a public key of another kind; pass an Ed25519 public key")
    return loaded


class Keys(Protocol):
    """Public keys by id; the id of a key without one is ""."""

    def get(self, key_id: str, /) -> Ed25519PublicKey | None:
        """The key that is valid under an id now."""


def keys_of(text: str) -> dict[str, Ed25519PublicKey]:
    """Public keys from the text of a keys file: a TOML table `keys` with a public key in PEM under each id.

    Raises:
        FusionError: it is not such a file.
    """
    wanted = 'want a table [keys] with lines such as "2026-11" = """-----BEGIN PUBLIC KEY-----..."""'
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FusionError(f"code keys: {wanted}; the file is not TOML: {error}") from None
    table = content.get("keys")
    if not isinstance(table, dict) or set(content) != {"keys"}:
        raise FusionError(f"code keys: {wanted}, and nothing else")
    if len(table) > KEYS_MAX:
        raise FusionError(f"code keys: want at most {KEYS_MAX} keys, got {len(table)}")
    keys = {}
    for key_id, pem in table.items():
        if not _KEY_ID.fullmatch(key_id) or not isinstance(pem, str):
            raise FusionError(f"code keys: {wanted}; an id has 1 to 32 letters, digits or . _ -")
        keys[key_id] = _public_key_of(pem.encode(), f"code keys: {key_id}")
    return keys


class KeysFile:
    """The public keys that a file holds now: a key that is added is good at once, one that is removed no more."""

    def __init__(
        self,
        path: Path,
        report: Callable[[WatchedFile[Mapping[str, Ed25519PublicKey]]], object] = lambda file: None,
        *,
        without_id: bool = False,
    ) -> None:
        """Read a file.

        Args:
            path: a keys file, see `keys_of`; a single public key in PEM `without_id`.
            report: see `WatchedFile`.
            without_id: whether the file holds one key that has no id.

        Raises:
            FusionError: the file cannot be used.
        """
        read = (lambda text: {"": _public_key_of(text.encode(), str(path))}) if without_id else keys_of
        self.file: WatchedFile[Mapping[str, Ed25519PublicKey]] = WatchedFile(path, read, {}, report)

    def get(self, key_id: str, /) -> Ed25519PublicKey | None:
        """The key that is valid under an id now."""
        return self.file.content().get(key_id)


# ---- codes -----------------------------------------------------------------------------------------------------------


class CodeSigner:
    """Makes codes for one store; lives with the app's server, not in the store."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        store: str,
        *,
        key_id: str = "",
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        """Sign for a store.

        Args:
            key: the app server's private key.
            store: id of the store.
            key_id: under which the store knows the key; "" for a key without an id.
            nonce: returns 16 bytes that no code has had before.
        """
        if not 1 <= len(store.encode()) <= 255:
            raise ValueError(f"store: want 1 to 255 bytes, got {len(store.encode())}")
        if key_id and not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"key_id: want 1 to 32 letters, digits or . _ -, got {key_id!r}")
        self._key, self._store, self._nonce = key, store.encode(), nonce
        self._form, self._key_id = ("F2", key_id.encode()) if key_id else ("F1", b"")

    def code(self, account: str, t_ns: int, valid_s: float = VALID_S) -> str:
        """A code that admits an account once, for some seconds from an instant on; about 200 characters."""
        if not 1 <= len(account) <= 255:
            raise ValueError(f"account: want 1 to 255 characters, got {len(account)}")
        lengths = (len(self._key_id), len(self._store)) if self._form == "F2" else (len(self._store),)
        head = _HEADS[self._form].pack(t_ns, t_ns + round(valid_s * 1e9), self._nonce(), *lengths)
        payload = head + self._key_id + self._store + account.encode()
        return _encoded(self._form, payload + self._key.sign(_SIGNED[self._form] + payload))


class UsedCodes:
    """Remembers which codes were used, across threads, processes and restarts; a SQLite file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create the file.

        Raises:
            LedgerError: it cannot be used.
        """
        self._connection = open_sqlite(Path(path), "used codes", _USED_SCHEMA)
        self._lock = threading.Lock()
        self._pruned_ns = 0

    def use(self, nonce: bytes, until_ns: int, now_ns: int) -> bool:
        """Use a code up, durably. False if it was used before; of many concurrent tries, exactly one gets True.

        Args:
            nonce: of the code.
            until_ns: when the code expires.
            now_ns: the gate's clock.

        Raises:
            LedgerError: the file cannot be written.
        """
        with self._lock:
            try:
                # One statement, since each waits for the interpreter's lock, which an engine in this process holds.
                used = self._connection.execute(_USE, (nonce, until_ns, _PRUNED, until_ns)).rowcount
                due_ns = now_ns - round(REMEMBERED_S * 1e9)
                if due_ns - self._pruned_ns > _PRUNED_EVERY_S * 1e9:
                    self._prune(due_ns)
            except sqlite3.Error as error:
                raise LedgerError(f"used codes cannot be written: {error}") from error
            return used == 1

    def _prune(self, due_ns: int) -> None:
        """Delete the nonces of codes that expired before an instant, and refuse those codes from now on."""
        # A code that is used is valid by its signer's clock and by the gate's, so neither is far off here.
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            run(RAISE_MARK, (_PRUNED, due_ns))
            run("DELETE FROM used WHERE until_ns < ?", (due_ns,))
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise
        self._pruned_ns = due_ns

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM used").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class CodeVerifier(Verifier):
    """Admits a code that was signed for this store, is valid by the gate's clock, and is used the first time."""

    def __init__(self, keys: Keys, store: str, used: UsedCodes, *, lifetime_max_s: float = LIFETIME_MAX_S) -> None:
        """Verify codes.

        Args:
            keys: public keys by id, such as a dict or a `KeysFile`.
            store: id of the store.
            used: the codes that were used.
            lifetime_max_s: from a code's beginning to its expiry.
        """
        self._keys, self._store, self._used = keys, store.encode(), used
        self._lifetime_max_ns = round(lifetime_max_s * 1e9)

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the code is good; a good one is used up."""
        from cryptography.exceptions import InvalidSignature

        code = _Code.of(request.token)
        key = None if code is None else self._keys.get(code.key_id)
        if code is None or key is None:
            # A key that was removed is not named: its codes are as good as any other text.
            return _NO_CODE
        try:
            key.verify(code.signature, _SIGNED[code.form] + code.payload)
        except InvalidSignature:
            return _NO_CODE
        if code.store != self._store:
            return Refused("code of another store", "This code is for another store")
        if not 0 < code.until_ns - code.from_ns <= self._lifetime_max_ns:
            return Refused("code lives too long", "This code cannot be used, please open the app again")
        slack_ns = round(CLOCK_SLACK_S * 1e9)
        if request.t_ns < code.from_ns - slack_ns:
            return Refused("code not valid yet", "This code is not valid yet")
        if request.t_ns > code.until_ns + slack_ns:
            return Refused("code expired", "This code has expired, please open the app again")
        if not self._used.use(code.nonce, code.until_ns, request.t_ns):
            return Refused("code used before", "This code was used before, please open the app again")
        return Verified(code.account.decode())


_NO_CODE = Refused("not a code", "Please show a code from the app", guess=True)


class _Code(NamedTuple):
    """A code as it was read; nothing of it is to be believed before its signature is verified."""

    form: str
    payload: bytes
    signature: bytes
    from_ns: int
    until_ns: int
    nonce: bytes
    key_id: str
    store: bytes
    account: bytes

    @classmethod
    def of(cls, token: str) -> _Code | None:
        """The code in a text; None where the text is not exactly what a signer writes."""
        form, body = token[:2], token[2:]
        if form not in _HEADS:
            return None
        try:
            raw = base64.urlsafe_b64decode((body + "=" * (-len(body) % 4)).encode("ascii"))
        except (ValueError, binascii.Error):
            return None
        head = _HEADS[form]
        # Decoders skip strange characters and ignore spare bits: one code, one spelling.
        if _encoded(form, raw) != token or len(raw) <= head.size + _SIGNATURE_BYTES:
            return None
        payload, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        from_ns, until_ns, nonce, *lengths = head.unpack(payload[: head.size])
        n_key_id = lengths[0] if form == "F2" else 0
        n_store = lengths[-1]
        key_id, names = payload[head.size : head.size + n_key_id], payload[head.size + n_key_id :]
        if form == "F2" and not key_id:
            return None
        return cls(
            form, payload, signature, from_ns, until_ns, nonce, key_id.decode("ascii", "replace"), names[:n_store],
            names[n_store:],
        )  # fmt: skip


def _encoded(form: str, raw: bytes) -> str:
    return form + base64.urlsafe_b64encode(raw).decode().rstrip("=")


# ---- pictures --------------------------------------------------------------------------------------------------------


def qr_picture(text: str, scale: int = 6) -> bytes:
    """A text as QR code, PNG; error correction level M, so that a scratch or a reflection does no harm."""
    with extra("gate"):
        import segno

    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind="png", scale=scale, border=4)
    return out.getvalue()


def read_qr(picture: NDArray[np.uint8]) -> str | None:
    """Text of the QR code in a picture, (h, w) or (h, w, 3) uint8; None where there is none or more than one."""
    with extra("gate"):
        import zxingcpp

    codes: list[Any] = zxingcpp.read_barcodes(picture, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    texts = {code.text for code in codes}
    return texts.pop() if len(texts) == 1 else None
