"""The people who may use a console: names, hashed passwords, and the stores that each may see."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from fusion.errors import FusionError
from fusion.files.atomic import replace_file
from fusion.store.values import StrictModel

# Parameters of scrypt (RFC 7914): 32 MiB and some 80 ms a try.
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}
PASSWORD_MIN, PASSWORD_MAX, NAME_MAX = 10, 200, 60


class _User(StrictModel):
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    stores: tuple[str, ...]


_FILE = TypeAdapter(dict[str, _User])


class Users:
    """A file of users: JSON, readable by its owner alone; several stores' consoles may share one."""

    def __init__(self, path: str | Path) -> None:
        """Read the file; a missing file holds no users.

        Raises:
            FusionError: the file cannot be read, others may read it, or it does not hold users.
        """
        self.path = Path(path)
        self._users = self._read()

    def _read(self) -> dict[str, _User]:
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise FusionError(f"{self.path}: other users can read this file; run chmod 600 on it")
                return _FILE.validate_json(file.read())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FusionError(f"{self.path}: the users cannot be read: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise FusionError(f"{self.path}: {where}: {first['msg']}") from None

    def __len__(self) -> int:
        return len(self._users)

    def add(self, name: str, password: str, store: str) -> None:
        """Let a person use a store's console; an existing name keeps its stores and gets the new password.

        Raises:
            FusionError: the name or the password cannot be used, or the file cannot be written.
        """
        if not name.isprintable() or not name.strip() or name != name.strip() or len(name) > NAME_MAX:
            raise FusionError(f"name: want up to {NAME_MAX} printable characters, got {name!r}")
        if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
            raise FusionError(f"password: want {PASSWORD_MIN} to {PASSWORD_MAX} characters, got {len(password)}")
        salt = secrets.token_bytes(16)
        stores = self._users[name].stores if name in self._users else ()
        hashed = _hashed(password, salt).hex()
        self._users[name] = _User(salt=salt.hex(), hash=hashed, stores=tuple(dict.fromkeys([*stores, store])))
        content = json.dumps({name: user.model_dump() for name, user in sorted(self._users.items())}, indent=1)
        try:
            replace_file(self.path, content + "\n", private=True)
        except OSError as error:
            raise FusionError(f"{self.path}: cannot be written: {error}") from None

    def check(self, name: str, password: str, store: str) -> bool:
        """Whether the password is right and its owner may see the store. Takes as long for unknown names.

        The file is read again each time, so that additions and removals take effect without a restart. While it cannot
        be read, the users stay as they were.
        """
        with suppress(FusionError):
            self._users = self._read()
        user = self._users.get(name)
        salt, wanted = (bytes.fromhex(user.salt), user.hash) if user else (bytes(16), "0" * 64)
        same = hmac.compare_digest(_hashed(password[:PASSWORD_MAX], salt).hex(), wanted)
        return same and user is not None and store in user.stores


    def device(self, name: str) -> str:
        """A token for a browser in which a person has signed in; a new password makes it worthless."""
        nonce = secrets.token_hex(16)
        return f"{nonce}{self._device_mac(name, nonce)}"

    def knows_device(self, name: str, token: str) -> bool:
        """Whether a person has signed in with this browser before."""
        nonce, mac = token[:32], token[32:]
        return name in self._users and hmac.compare_digest(self._device_mac(name, nonce).encode(), mac.encode())

    def _device_mac(self, name: str, nonce: str) -> str:
        # Keyed by what only this machine's file knows.
        key = bytes.fromhex(self._users[name].hash)
        return hmac.new(key, f"device {nonce} {name}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, dklen=32, **SCRYPT)
