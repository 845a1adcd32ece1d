"""Signed codes for the gate: short-lived, good once, verified offline. Extra `gate`.

An app's server signs with a private key; the store holds only the public one. A code is "F1" and base64url of

    not before, expiry (int64 UTC nanoseconds each), nonce (16 bytes), length of the store's id (1 byte),
    the store's id, the account (both UTF-8), Ed25519 signature (64 bytes)

with numbers in network byte order.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import secrets
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusion.errors import FusionError, extra
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.money.sqlite import open_sqlite

if TYPE_CHECKING:
    import numpy as np
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from numpy.typing import NDArray

_PREFIX = "F1"
# Precedes the bytes that a code's signature covers, so that no other signed text passes for a code.
_SIGNED = b"fusion code 1\n"
# Not before, expiry, nonce, length of the store's id.
_HEAD = struct.Struct(">qq16sB")
_SIGNATURE_BYTES = 64
VALID_S = 60.0
# Clocks of the app's server and of gates agree this well; a code may be used this much before it begins or after it
# expires. Expiry is judged by the time of the request.
CLOCK_SLACK_S = 2.0
# Used codes are remembered for a day beyond their expiry, whatever the reader's clock says.
REMEMBERED_S = 86_400.0
# Outdated nonces are deleted once per hour of data time.
_PRUNED_EVERY_S = 3600.0
_USED_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (nonce BLOB PRIMARY KEY, until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
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
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        loaded = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise FusionError(f"{path} cannot be read ({error.strerror}); pass an Ed25519 public key in PEM") from None
    except (ValueError, TypeError):
        raise FusionError(f"{path} is not a public key in PEM; pass an Ed25519 public key") from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise FusionError(f"{path} is a public key of another kind; pass an Ed25519 public key")
    return loaded


# ---- codes -----------------------------------------------------------------------------------------------------------


class CodeSigner:
    """Makes codes for one store; lives with the app's server, not in the store."""

    def __init__(
        self, key: Ed25519PrivateKey, store: str, nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16)
    ) -> None:
        """Sign for a store.

        Args:
            key: the app server's private key.
            store: id of the store.
            nonce: returns 16 bytes that no code has had before.
        """
        if not 1 <= len(store.encode()) <= 255:
            raise ValueError(f"store: want 1 to 255 bytes, got {len(store.encode())}")
        self._key, self._store, self._nonce = key, store.encode(), nonce

    def code(self, account: str, t_ns: int, valid_s: float = VALID_S) -> str:
        """A code that admits an account once, for some seconds from an instant on; about 200 characters."""
        if not 1 <= len(account) <= 255:
            raise ValueError(f"account: want 1 to 255 characters, got {len(account)}")
        head = _HEAD.pack(t_ns, t_ns + round(valid_s * 1e9), self._nonce(), len(self._store))
        payload = head + self._store + account.encode()
        return _encoded(payload + self._key.sign(_SIGNED + payload))


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

    def use(self, nonce: bytes, until_ns: int, t_ns: int) -> bool:
        """Use a code up, durably. False if it was used before; of many concurrent tries, exactly one gets True.

        Args:
            nonce: of the code.
            until_ns: when the code expires.
            t_ns: the time of the request.
        """
        with self._lock:
            run = self._connection.execute
            cursor = run("INSERT OR IGNORE INTO used (nonce, until_ns) VALUES (?, ?)", (nonce, until_ns))
            if t_ns - self._pruned_ns > _PRUNED_EVERY_S * 1e9:
                run("DELETE FROM used WHERE until_ns < ?", (t_ns - round(REMEMBERED_S * 1e9),))
                self._pruned_ns = t_ns
            return cursor.rowcount == 1

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM used").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class CodeVerifier(Verifier):
    """Admits a code that was signed for this store, is valid at the time of the request, and is used the first time."""

    def __init__(self, key: Ed25519PublicKey, store: str, used: UsedCodes) -> None:
        self._key, self._store, self._used = key, store.encode(), used

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the code is good; a good one is used up."""
        from cryptography.exceptions import InvalidSignature

        parts = _parts(request.token)
        if parts is None:
            return Refused("not a code", "Please show a code from the app")
        try:
            self._key.verify(parts.signature, _SIGNED + parts.payload)
        except InvalidSignature:
            return Refused("not a code", "Please show a code from the app")
        not_before, until, nonce, length = _HEAD.unpack(parts.payload[: _HEAD.size])
        names = parts.payload[_HEAD.size :]
        store, account = names[:length], names[length:]
        if store != self._store:
            return Refused("code of another store", "This code is for another store")
        slack_ns = round(CLOCK_SLACK_S * 1e9)
        if request.t_ns < not_before - slack_ns:
            return Refused("code not valid yet", "This code is not valid yet")
        if request.t_ns > until + slack_ns:
            return Refused("code expired", "This code has expired, please open the app again")
        if not self._used.use(nonce, until, request.t_ns):
            return Refused("code used before", "This code was used before, please open the app again")
        return Verified(account.decode())


class _Parts(NamedTuple):
    payload: bytes
    signature: bytes


def _encoded(raw: bytes) -> str:
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _parts(token: str) -> _Parts | None:
    """Payload and signature of a code; None where the text is not exactly what a signer writes."""
    body = token.removeprefix(_PREFIX)
    try:
        raw = base64.urlsafe_b64decode((body + "=" * (-len(body) % 4)).encode("ascii"))
    except (ValueError, binascii.Error):
        return None
    # Decoders skip strange characters and ignore spare bits: one code, one spelling.
    if _encoded(raw) != token or len(raw) <= _HEAD.size + _SIGNATURE_BYTES:
        return None
    return _Parts(raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:])


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
