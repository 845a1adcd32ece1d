"""The newest entry of the books, noted outside them, so that a removed tail can be noticed later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from fusion.errors import LedgerError
from fusion.money.entries import canonical_json, checked_instant, checked_integer
from fusion.store.models import Store

# Precedes the text that a checkpoint's signature covers, so that no other signed text passes for a checkpoint.
_PREFIX = b"fusion checkpoint 1\n"


class SigningKey(Protocol):
    """A private key, such as cryptography's Ed25519PrivateKey."""

    def sign(self, data: bytes, /) -> bytes:
        """Signature of the data."""
        ...


class VerifyingKey(Protocol):
    """A public key, such as cryptography's Ed25519PublicKey."""

    def verify(self, signature: bytes, data: bytes, /) -> None:
        """Raise any exception unless the signature was made with the matching private key."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """Number and hash of the newest entry. Kept outside the ledger, it shows later whether a tail was removed."""

    seq: int
    sha256: str

    def checkpoint(self, key: SigningKey, t_ns: int, store: Store, vault_key: str = "") -> str:
        """The head as a signed line of JSON.

        `t_ns` is when it was noted, `vault_key` the fingerprint of the key under which the vault was sealed then.
        """
        fields = {
            "seq": self.seq,
            "sha256": self.sha256,
            "t_ns": checked_instant("t_ns", t_ns),
            "store": store.id,
            "currency": store.currency,
            "vault_key": vault_key,
        }
        signature = key.sign(_PREFIX + canonical_json(fields).encode("ascii"))
        return canonical_json({**fields, "signature": signature.hex()})

    @classmethod
    def from_checkpoint(cls, text: str, key: VerifyingKey, store: Store) -> Head:
        """The head in a checkpoint.

        Raises:
            LedgerError: the text is damaged, signed by another key, or about another store's books.
        """
        return SignedHead.read(text, key, store).head


@dataclass(frozen=True, slots=True)
class SignedHead:
    """What a checkpoint states, once its signature holds.

    Attributes:
        head: the newest entry of then.
        t_ns: when it was noted.
        vault_key: fingerprint of the store's key that the vault was sealed with; empty in older checkpoints.
    """

    head: Head
    t_ns: int
    vault_key: str

    @classmethod
    def read(cls, text: str, key: VerifyingKey, store: Store) -> SignedHead:
        """Read a checkpoint. Raises LedgerError as `Head.from_checkpoint`."""
        try:
            checkpoint = json.loads(text)
            signed = {name: value for name, value in checkpoint.items() if name != "signature"}
            key.verify(bytes.fromhex(checkpoint["signature"]), _PREFIX + canonical_json(signed).encode("ascii"))
            seq, sha256 = checked_integer("seq", signed["seq"], 0, 2**63 - 1), str(signed["sha256"])
            t_ns, books = checked_instant("t_ns", signed["t_ns"]), (signed["store"], signed["currency"])
        except Exception as error:  # keys raise exceptions of their own where a signature is not theirs
            raise LedgerError(f"checkpoint: want it signed by this key, got: {type(error).__name__}") from None
        if books != (store.id, store.currency):
            got = f"{signed['store']!r} in {signed['currency']}"
            raise LedgerError(f"checkpoint: want the books of {store.id!r} in {store.currency}, got those of {got}")
        return cls(Head(seq, sha256), t_ns, str(signed.get("vault_key", "")))
