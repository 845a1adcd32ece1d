"""What people show at a gate: signed codes, payment cards; and the pseudonym under which a visit then runs.

A code is short-lived and good once. It is verified offline: an app's server signs with a private key, the store holds
only the public one. Extra `gate`.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fusion.errors import FusionError, extra
from fusion.gates.keeper import GateRequest, Refused, Verified, Verifier
from fusion.money.payments import UNUSED_MAX_S, Payment
from fusion.money.sqlite import open_sqlite
from fusion.money.vault import Holder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_PREFIX = "F1"
# Goes before what a code's signature covers, so that no other signed text passes for a code.
_SIGNED = b"fusion code 1\n"
# not before, expiry (both UTC nanoseconds), nonce, bytes of the store's id
_HEAD = struct.Struct(">qq16sB")
_SIGNATURE_BYTES = 64
VALID_S = 60.0
# Clocks of phones' servers and gates agree this well; a code may be used this much before it begins or after it ends.
CLOCK_SLACK_S = 2.0
# Used codes are remembered a day beyond their end, whatever clock a reader has.
REMEMBERED_S = 86_400.0
_USED_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (nonce BLOB PRIMARY KEY, until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


def private_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in a PEM file that only its owner can read; made where there is none.

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
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise FusionError(f"{path}: want an Ed25519 private key as PEM, got: {type(error).__name__}") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise FusionError(f"{path}: want an Ed25519 private key, got one of another kind")
    return found


def public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file.

    Raises:
        FusionError: the file is not there or holds something else.
    """
    with extra("gate"):
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise FusionError(f"{path}: want an Ed25519 public key as PEM, got: {type(error).__name__}") from None
    if not isinstance(found, Ed25519PublicKey):
        raise FusionError(f"{path}: want an Ed25519 public key, got one of another kind")
    return found


class CodeSigner:
    """Makes codes for one store; lives with the app's server, not in the store."""

    def __init__(
        self, key: Ed25519PrivateKey, store: str, nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16)
    ) -> None:
        if not 1 <= len(store.encode()) <= 255:
            raise ValueError("store: want 1 to 255 bytes")
        self._key, self._store, self._nonce = key, store.encode(), nonce

    def code(self, account: str, t_ns: int, valid_s: float = VALID_S) -> str:
        """A code that lets an account in once, from now on for some seconds; some 200 characters."""
        if not 1 <= len(account) <= 255:
            raise ValueError(f"account: want 1 to 255 characters, got {len(account)}")
        head = _HEAD.pack(t_ns, t_ns + round(valid_s * 1e9), self._nonce(), len(self._store))
        payload = head + self._store + account.encode()
        return _PREFIX + base64.urlsafe_b64encode(payload + self._key.sign(_SIGNED + payload)).decode().rstrip("=")


class UsedCodes:
    """Remembers which codes were used, across threads, processes and restarts; a SQLite file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or begin the file.

        Raises:
            LedgerError: it cannot be used.
        """
        self._connection = open_sqlite(Path(path), "used codes", _USED_SCHEMA)
        self._lock = threading.Lock()
        self._pruned_ns = 0

    def use(self, nonce: bytes, until_ns: int, t_ns: int) -> bool:
        """Use a code up, durably. False where it was used before; of many who try at once, one gets True."""
        with self._lock:
            run = self._connection.execute
            cursor = run("INSERT OR IGNORE INTO used (nonce, until_ns) VALUES (?, ?)", (nonce, until_ns))
            if t_ns - self._pruned_ns > 3600e9:
                run("DELETE FROM used WHERE until_ns < ?", (t_ns - round(REMEMBERED_S * 1e9),))
                self._pruned_ns = t_ns
            return cursor.rowcount == 1

    def close(self) -> None:
        self._connection.close()


class CodeVerifier:
    """Lets in who shows a code that was signed for this store, now and for the first time."""

    def __init__(self, key: Ed25519PublicKey, store: str, used: UsedCodes) -> None:
        self._key, self._store, self._used = key, store.encode(), used

    def verify(self, request: GateRequest) -> Verified | Refused:
        from cryptography.exceptions import InvalidSignature

        payload, signature = _parts(request.token)
        if payload is None:
            return Refused("not a code", "Please show a code from the app")
        try:
            self._key.verify(signature, _SIGNED + payload)
        except InvalidSignature:
            return Refused("not a code", "Please show a code from the app")
        not_before, until, nonce, length = _HEAD.unpack(payload[: _HEAD.size])
        store, account = payload[_HEAD.size :][:length], payload[_HEAD.size :][length:]
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


def _parts(token: str) -> tuple[bytes | None, bytes]:
    """Payload and signature of a code; no payload where the text is not exactly what a signer writes."""
    body = token.removeprefix(_PREFIX)
    try:
        raw = base64.urlsafe_b64decode((body + "=" * (-len(body) % 4)).encode("ascii"))
    except (ValueError, binascii.Error):
        return None, b""
    # Decoders skip strange characters and ignore spare bits: one code, one spelling.
    same = _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=") == token
    if not same or len(raw) <= _HEAD.size + _SIGNATURE_BYTES:
        return None, b""
    return raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]


def qr_picture(text: str, scale: int = 6) -> bytes:
    """A text as QR code, PNG; error correction M, so that a scratch or a reflection does no harm."""
    with extra("gate"):
        import segno

    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind="png", scale=scale, border=4)
    return out.getvalue()


def read_qr(picture: Any) -> str | None:
    """Text of the QR code in a picture, (h, w) or (h, w, 3) uint8; None where there is none or more than one."""
    with extra("gate"):
        import zxingcpp

    codes = zxingcpp.read_barcodes(picture, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    found = {one.text for one in codes}
    return found.pop() if len(found) == 1 else None


class CardTerminal:
    """Lets in who shows a payment card: the terminal gives a token for it, never its number.

    The token is the account, since nothing else is known of the customer; `Pseudonyms` authorises before the gate
    opens.
    """

    def __init__(self, prefix: str = "tok_") -> None:
        """`prefix` is how the terminal's tokens begin, so that nothing else passes for one."""
        self._prefix = prefix

    def verify(self, request: GateRequest) -> Verified | Refused:
        if not request.token.startswith(self._prefix) or not 8 <= len(request.token) <= 255:
            return Refused("not a payment token", "Please try again")
        return Verified(request.token, token=request.token)


def pseudonym(choose: Callable[[str], str]) -> str:
    """A random name of 20 letters, 94 bits. No digits: a run of them may look like a card number and be refused."""
    return "p-" + "".join(choose("abcdefghijklmnopqrstuvwxyz") for _ in range(20))


class Holds(Protocol):
    """The part of a ledger that keeps who is behind a pseudonym."""

    def hold(self, holder: Holder) -> None: ...


@dataclass
class _Present:
    """Who was admitted and has not left. `entered` is False from the scan to the crossing of the line."""

    account: str = field(repr=False)
    pseudonym: str
    since_ns: int
    entered: bool = False


class Pseudonyms:
    """Who comes in under what name: gives every visit a random one and keeps in the vault whose it is.

    An account keeps its pseudonym while its visit lasts, so one account serves a family; the next visit has another.
    Behind this, neither engine nor results nor books see the account.
    """

    def __init__(
        self,
        ledger: Holds,
        *,
        customer: Callable[[str], Verified | None] = lambda account: None,
        admit: Callable[[str, int], Payment] | None = None,
        new: Callable[[], str] = lambda: pseudonym(secrets.choice),
    ) -> None:
        """Make one for a store; all verifiers whose customers pay share it.

        Args:
            ledger: keeps the link.
            customer: means of payment, address and name of an account, if the retailer knows them.
            admit: `Checkout.admit`, where something is authorised at the entry.
            new: makes a pseudonym.
        """
        self._ledger, self._customer, self._admit, self._new = ledger, customer, admit, new
        self._lock = threading.Lock()
        self._by_account: dict[str, _Present] = {}
        self._by_pseudonym: dict[str, _Present] = {}

    def behind(self, verifier: Verifier) -> Verifier:
        """A verifier that answers with pseudonyms where another answers with accounts."""
        return _Behind(self, verifier)

    def name(self, answer: Verified, t_ns: int) -> Verified | Refused:
        """The same answer under a pseudonym, once whatever has to be authorised is."""
        known = self._customer(answer.account)
        if known is not None:
            answer = replace(answer, greeting=known.greeting, token=answer.token or known.token, email=known.email)
        with self._lock:
            present = self._by_account.get(answer.account)
            if present is None or (not present.entered and t_ns - present.since_ns > UNUSED_MAX_S * 1e9):
                self._drop(present)
                present = _Present(answer.account, self._new(), t_ns)
                holder = Holder(present.pseudonym, answer.account, answer.token, answer.email, t_ns)
                self._ledger.hold(holder)
                self._by_account[answer.account] = self._by_pseudonym[present.pseudonym] = present
        if self._admit is not None:
            payment = self._admit(present.pseudonym, t_ns)
            if payment.status == "pending":
                return Refused("payment provider gave no answer", "One moment please, then try again")
            if payment.status != "open":
                return Refused("payment declined", "Your means of payment was declined")
        return replace(answer, account=present.pseudonym, token=None, email=None)

    def entered(self, pseudonym: str | None) -> None:
        """Somebody came in under it."""
        with self._lock:
            if pseudonym in self._by_pseudonym:
                self._by_pseudonym[pseudonym].entered = True

    def left(self, pseudonym: str | None) -> None:
        """The visit is over; the account's next one gets another pseudonym."""
        with self._lock:
            self._drop(self._by_pseudonym.get(pseudonym or ""))

    def forget(self, account: str) -> None:
        """Drop an account at once, as its owner may ask."""
        with self._lock:
            self._drop(self._by_account.get(account))

    def _drop(self, present: _Present | None) -> None:
        if present is not None:
            del self._by_account[present.account], self._by_pseudonym[present.pseudonym]


class _Behind:
    def __init__(self, pseudonyms: Pseudonyms, verifier: Verifier) -> None:
        self._pseudonyms, self._verifier = pseudonyms, verifier

    def verify(self, request: GateRequest) -> Verified | Refused:
        answer = self._verifier.verify(request)
        return answer if isinstance(answer, Refused) else self._pseudonyms.name(answer, request.t_ns)
