"""Who may use a console: names, hashed passwords, the stores they may see; and the sessions of those who signed in."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from fusion.errors import FusionError
from fusion.files.atomic import replace_file
from fusion.store.values import StrictModel

# RFC 7914 parameters: 32 MiB and some 80 ms a try.
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}
PASSWORD_MIN, PASSWORD_MAX, NAME_MAX = 10, 200, 60
# A person at work is signed in for a shift, and out again after an hour without a click.
SESSION_MAX_S, IDLE_MAX_S, SESSIONS_MAX = 10 * 3600.0, 3600.0, 200
# Wrong passwords for a name, or from a machine, before both have to wait.
TRIES, WAIT_S, TRIED_MAX = 5, 60.0, 10_000


class _User(StrictModel):
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    stores: tuple[str, ...]


_FILE = TypeAdapter(dict[str, _User])


class Users:
    """A file of users: JSON, readable by its owner alone; several stores' consoles may share one."""

    def __init__(self, path: str | Path) -> None:
        """Read the file; none is an empty one.

        Raises:
            FusionError: the file cannot be read, others may read it, or its contents are no users.
        """
        self.path = Path(path)
        self._users = self._read()

    def _read(self) -> dict[str, _User]:
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise FusionError(f"{self.path}: want a file that its owner alone can read (chmod 600)")
                return _FILE.validate_json(file.read())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FusionError(f"{self.path}: want users, got: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise FusionError(f"{self.path}: {where}: {first['msg']}") from None

    def __len__(self) -> int:
        return len(self._users)

    def add(self, name: str, password: str, store: str) -> None:
        """Let somebody use a store's console; sets the password anew where the name is known.

        Raises:
            FusionError: the name or the password cannot be used, or the file not be written.
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
        """Whether this is the name's password and the name may see the store. Takes as long for unknown names.

        By the file as it is now: who was added or taken out since need not wait for a restart. One that cannot be read
        meanwhile changes nothing.
        """
        with suppress(FusionError):
            self._users = self._read()
        user = self._users.get(name)
        salt, wanted = (bytes.fromhex(user.salt), user.hash) if user else (bytes(16), "0" * 64)
        same = hmac.compare_digest(_hashed(password[:PASSWORD_MAX], salt).hex(), wanted)
        return same and user is not None and store in user.stores


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, dklen=32, **SCRYPT)


@dataclass
class Session:
    """Somebody who signed in.

    Attributes:
        csrf: what a request that changes something has to repeat; a page of another site cannot know it.
        began_s, used_s: by the clock of `Sessions`.
    """

    user: str
    csrf: str
    began_s: float
    used_s: float


class Sessions:
    """Who is signed in, in memory: a restart signs everybody out, and a token of another console means nothing here."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._failed: OrderedDict[str, list[Any]] = OrderedDict()  # by name or machine: tries, the last one's time

    def begin(self, user: str, now_s: float) -> str:
        """Sign somebody in; returns the token of the session, kept here only as a hash."""
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = Session(user, secrets.token_urlsafe(24), now_s, now_s)
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return token

    def get(self, token: str | None, now_s: float, *, touch: bool = True) -> Session | None:
        """The session of a token; None where it is forged, ended or too old. `touch`: a person did something."""
        key = _digest(token or "")
        session = self._sessions.get(key)
        if session is None:
            return None
        if now_s - session.began_s > SESSION_MAX_S or now_s - session.used_s > IDLE_MAX_S:
            del self._sessions[key]
            return None
        if touch:
            session.used_s = now_s
        return session

    def end(self, token: str | None) -> None:
        self._sessions.pop(_digest(token or ""), None)

    def must_wait(self, keys: tuple[str, ...], now_s: float) -> bool:
        """Whether one of these failed so often lately that nobody listens to it now."""
        failed = [self._failed[key] for key in keys if key in self._failed]
        return any(n >= TRIES and now_s - last_s < WAIT_S for n, last_s in failed)

    def failed(self, keys: tuple[str, ...], now_s: float) -> None:
        for key in keys:
            n, last_s = self._failed.pop(key, (0, now_s))
            self._failed[key] = [1 if now_s - last_s > WAIT_S else n + 1, now_s]
        while len(self._failed) > TRIED_MAX:
            self._failed.popitem(last=False)

    def succeeded(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._failed.pop(key, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
