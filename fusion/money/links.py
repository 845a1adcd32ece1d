"""Signed links by which customers come to their pages without a password.

A link's token is "L1" and base64url of

    expiry (int64, seconds since 1970), nonce (16 bytes), length of the purpose, length of the store's id (1 byte each),
    purpose, store's id, subject (UTF-8), HMAC-SHA256 (32 bytes) over "fusion link 1", a line end, and all before it

with numbers in network byte order. The token stands behind `#` in the link, so that no server, proxy or referrer sees
it: the page reads it there and posts it. Who receives a link may use it once, for the one purpose that it names.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fusion.results import NAME_MAX

# "account": a customer asked for it by mail; "app": the retailer's own app sends its customer; "visit": the receipt of
# one visit; "door": a guest's code at a door.
LinkPurpose = Literal["account", "app", "visit", "door"]
# How long a link of each purpose may live. A receipt is looked at when its mail is read; the others follow a tap.
LIFETIME_S: Mapping[str, int] = {"account": 15 * 60, "app": 10 * 60, "visit": 30 * 86400, "door": 5 * 60}
PATH = "/in"
TOKEN_MAX = 1000
_SIGNED = b"fusion link 1\n"
_HEAD = struct.Struct(">q16sBB")
_MAC_BYTES = 32
# Clocks of the retailer's servers and of this one agree this well.
_SLACK_S = 5


@dataclass(frozen=True, slots=True)
class Link:
    """What a token states that was signed here.

    Attributes:
        purpose: what it is good for.
        subject: the account, or the visit.
        until_s: when it expires, seconds since 1970.
        nonce: 16 bytes; no other link has them.
        expired: whether it was too old when it was read.
    """

    purpose: str
    subject: str
    until_s: int
    nonce: bytes
    expired: bool


class Links:
    """Makes and reads the links of one store."""

    def __init__(
        self,
        keys: Mapping[str, bytes],
        store: str,
        url: str = "",
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        """Use the keys of a store.

        Args:
            keys: by purpose; a purpose without a key has no links.
            store: its id, 1 to 255 bytes.
            url: where customers reach its pages, such as https://my.shop.example.
            nonce: gives 16 bytes that no link has had before.
        """
        self._keys, self._store, self._url, self._nonce = dict(keys), store.encode(), url.rstrip("/"), nonce

    def link(self, purpose: LinkPurpose, subject: str, now_s: float) -> str:
        """A link for an account or a visit; the token alone where no URL is known.

        Raises:
            ValueError: the subject is too long, or the purpose has no key.
        """
        token = self.token(purpose, subject, now_s)
        return f"{self._url}{PATH}#{token}" if self._url else token

    def token(self, purpose: LinkPurpose, subject: str, now_s: float) -> str:
        """The token of a link; see `link`."""
        if purpose not in self._keys:
            raise ValueError(f"purpose: want one of {', '.join(self._keys)}, got {purpose}")
        if not 1 <= len(subject) <= NAME_MAX:
            raise ValueError(f"subject: want 1 to {NAME_MAX} characters, got {len(subject)}")
        head = _HEAD.pack(int(now_s) + LIFETIME_S[purpose], self._nonce(), len(purpose), len(self._store))
        payload = head + purpose.encode() + self._store + subject.encode()
        return _encoded(payload + self._mac(purpose, payload))

    def read(self, token: str, now_s: float) -> Link | None:
        """The link of a token; None where it was not signed for this store, or lives longer than its purpose may."""
        if len(token) > TOKEN_MAX or token[:2] != "L1":
            return None
        try:
            raw = base64.urlsafe_b64decode((token[2:] + "=" * (-len(token[2:]) % 4)).encode("ascii"))
        except (ValueError, binascii.Error):
            return None
        # Decoders skip strange characters and ignore spare bits: one link, one spelling.
        if _encoded(raw) != token or len(raw) <= _HEAD.size + _MAC_BYTES:
            return None
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        until_s, nonce, n_purpose, n_store = _HEAD.unpack(payload[: _HEAD.size])
        names = payload[_HEAD.size :]
        purpose = names[:n_purpose].decode("ascii", "replace")
        if purpose not in self._keys or not hmac.compare_digest(self._mac(purpose, payload), mac):
            return None
        store, subject = names[n_purpose : n_purpose + n_store], names[n_purpose + n_store :]
        if store != self._store or until_s - now_s > LIFETIME_S[purpose] + _SLACK_S:
            return None
        try:
            return Link(purpose, subject.decode(), until_s, nonce, now_s > until_s)
        except UnicodeDecodeError:
            return None

    def _mac(self, purpose: str, payload: bytes) -> bytes:
        return hmac.digest(self._keys[purpose], _SIGNED + payload, "sha256")


def store_links(key: bytes, store: str, url: str, app_key: bytes | None = None) -> Links:
    """The links of a store.

    Args:
        key: derived from the store's key for "shopper".
        store: its id.
        url: where customers reach its pages.
        app_key: shared with the retailer's own app, which signs its customers in; None: it does not.
    """
    keys: dict[str, bytes] = dict.fromkeys(("account", "visit", "door"), key)
    if app_key is not None:
        keys["app"] = app_key
    return Links(keys, store, url)


def _encoded(raw: bytes) -> str:
    return "L1" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


__all__ = ["LIFETIME_S", "PATH", "Link", "LinkPurpose", "Links", "store_links"]
