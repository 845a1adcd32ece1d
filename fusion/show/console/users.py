"""The people who may use a console: names, hashed passwords, second factors, and what each may do in which store.

users.json, format 2 (format 1, which held names with a list of stores, is read as well; its users may look, decide and
refund without caps):

    {"format": 2, "users": {"anna": {
      "salt": HEX, "hash": HEX,                                scrypt of the password
      "stores": {"box17": {"roles": ["look", "decide"], "cap": 2000, "day_cap": 10000}},
      "locked": false,
      "secret": BASE32,                                        of the second factor; "" without one
      "used": 0,                                               number of the newest code that was used
      "generation": 0}}}                                       sessions of an earlier one are void

The file is looked at again for each question, so that what the administrator changes takes effect at once in every
console that shares it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fusion.errors import FusionError, extra
from fusion.files.atomic import replace_file
from fusion.files.private import one_writer
from fusion.money.disputes import AUTOMATIC
from fusion.money.entries import AMOUNT_MAX
from fusion.money.proposals import Authority
from fusion.store.values import StrictModel

# Parameters of scrypt (RFC 7914): 32 MiB and some 80 ms a try.
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}
PASSWORD_MIN, PASSWORD_MAX, NAME_MAX = 10, 200, 60
# Codes change every 30 s (RFC 6238); the one before and the one after are good too, since telephones' clocks differ.
CODE_S, CODES_ASIDE = 30, 1


class Role(StrEnum):
    """What a person may do in a store."""

    LOOK = "look"  # see the page, with visits and evidence
    DECIDE = "decide"  # decide reviews, second and refuse decisions
    REFUND = "refund"  # decide visits that were charged already
    ADMINISTER = "administer"  # read who did what


class StoreRights(StrictModel):
    """What a person may do in one store.

    Attributes:
        roles: what they may do; every role includes "look".
        cap: largest amount of one decision without a second person, minor units; None: any.
        day_cap: the same for a day's decisions together.
    """

    roles: tuple[Role, ...] = (Role.LOOK, Role.DECIDE, Role.REFUND)
    cap: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)
    day_cap: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)

    def may(self, role: Role) -> bool:
        """Whether they have a role."""
        return role in self.roles or (role == Role.LOOK and bool(self.roles))

    def authority(self, name: str) -> Authority:
        """What a person of these rights may decide."""
        return Authority(name, refunds=self.may(Role.REFUND), cap=self.cap, day_cap=self.day_cap)


class User(StrictModel):
    """One person of the file; see the head of this module."""

    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    stores: dict[str, StoreRights]
    locked: bool = False
    secret: str = Field(default="", pattern=r"^[A-Z2-7]{0,64}$", repr=False)
    used: int = Field(default=0, ge=0)
    generation: int = Field(default=0, ge=0)


class _File(StrictModel):
    format: Literal[2]
    users: dict[str, User]


class _OldUser(StrictModel):
    salt: str
    hash: str
    stores: tuple[str, ...]


class Users:
    """A file of users: JSON, readable by its owner alone; several stores' consoles may share one.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the file; a missing file holds no users.

        Raises:
            FusionError: the file cannot be read, others may read it, or it does not hold users.
        """
        self.path = Path(path)
        self._seen: tuple[int, ...] = ()
        self._users: dict[str, User] = {}
        self._read()

    def _read(self) -> None:
        """Read the file where it differs from what was read last."""
        try:
            with open(self.path, "rb") as file:
                found = os.fstat(file.fileno())
                seen = (found.st_ino, found.st_mtime_ns, found.st_size)
                if seen == self._seen:
                    return
                if found.st_mode & 0o077:
                    raise FusionError(f"{self.path}: other users can read this file; run chmod 600 on it")
                self._users = _parsed(file.read())
                self._seen = seen
        except FileNotFoundError:
            self._users, self._seen = {}, ()
        except OSError as error:
            raise FusionError(f"{self.path}: the users cannot be read: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise FusionError(f"{self.path}: {where}: {first['msg']}") from None
        except ValueError as error:
            raise FusionError(f"{self.path}: want users as JSON: {error}") from None

    def _now(self) -> dict[str, User]:
        """The users as the file has them. While it cannot be read, they stay as they were."""
        with suppress(FusionError):
            self._read()
        return self._users

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, name: object) -> bool:
        return name in self._now()

    # ---- what the console asks ---------------------------------------------------------------------------------------

    def check(self, name: str, password: str, stores: Collection[str]) -> bool:
        """Whether the password is right and its owner may see one of the stores. Takes as long for unknown names."""
        user = self._now().get(name)
        salt, wanted = (bytes.fromhex(user.salt), user.hash) if user else (bytes(16), "0" * 64)
        same = hmac.compare_digest(_hashed(password[:PASSWORD_MAX], salt).hex(), wanted)
        return same and any(self.rights(name, store) is not None for store in stores)

    def take_code(self, name: str, code: str, now_s: float) -> bool:
        """Whether a code of the second factor is right now and was not used before; it is used then.

        True without a code for a person without a second factor.

        Raises:
            FusionError: the file cannot be written, so that the code could be used again.
        """
        user = self._now().get(name)
        if user is None:
            return False
        if not user.secret:
            return True
        right = False

        def use(users: dict[str, User]) -> None:
            nonlocal right
            user = users[name]
            step = _step_of(user.secret, code, now_s)
            right = step is not None and step > user.used
            if right:
                users[name] = user.model_copy(update={"used": step})

        self._change(use)
        return right

    def rights(self, name: str, store: str) -> StoreRights | None:
        """What a person may do in a store; None where they may not even look, are locked or unknown."""
        user = self._now().get(name)
        if user is None or user.locked:
            return None
        rights = user.stores.get(store)
        return rights if rights is not None and rights.may(Role.LOOK) else None

    def stamp(self, name: str) -> str:
        """What a session depends on: it ends once this changes, by password, rights, lock, second factor or removal."""
        user = self._now().get(name)
        if user is None or user.locked:
            return ""
        return hashlib.sha256(user.model_dump_json(exclude={"used"}).encode()).hexdigest()

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

    # ---- what an administrator changes -------------------------------------------------------------------------------

    def all(self) -> dict[str, User]:
        """Every person by name. Raises FusionError where the file cannot be read."""
        self._read()
        return dict(sorted(self._users.items()))

    def add(self, name: str, password: str, store: str, rights: StoreRights | None = None) -> None:
        """Let a person use a store's console; an existing one keeps other stores and rights, and gets the new password.

        Args:
            name: up to NAME_MAX printable characters.
            password: PASSWORD_MIN to PASSWORD_MAX characters.
            store: the store's id.
            rights: in this store; None: as they are, or for a new one to look, decide and refund without caps.

        Raises:
            FusionError: the name or the password cannot be used, or the file cannot be written.
        """
        if not name.isprintable() or not name.strip() or name != name.strip() or len(name) > NAME_MAX:
            raise FusionError(f"name: want up to {NAME_MAX} printable characters, got {name!r}")
        if name in AUTOMATIC:
            raise FusionError(f"name: {name!r} stands in the books for decisions that no person makes; choose another")
        if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
            raise FusionError(f"password: want {PASSWORD_MIN} to {PASSWORD_MAX} characters, got {len(password)}")
        salt = secrets.token_bytes(16)
        hashed = _hashed(password, salt).hex()

        def change(users: dict[str, User]) -> None:
            before = users.get(name)
            stores = dict(before.stores) if before is not None else {}
            stores[store] = rights or stores.get(store, StoreRights())
            made = User(salt=salt.hex(), hash=hashed, stores=stores)
            kept = {} if before is None else before.model_dump(include={"locked", "secret", "used", "generation"})
            users[name] = made.model_copy(update=kept)

        self._change(change)

    def remove(self, name: str) -> None:
        """Remove a person; their sessions end at once. Raises FusionError."""
        self._change(lambda users: users.pop(name), name)

    def lock(self, name: str, *, locked: bool) -> None:
        """Lock a person out in all stores, or let them in again; their sessions end at once. Raises FusionError."""
        self._update(name, lambda user: {"locked": locked, "generation": user.generation + 1})

    def sign_out(self, name: str) -> None:
        """End all sessions of a person at once. Raises FusionError."""
        self._update(name, lambda user: {"generation": user.generation + 1})

    def grant(self, name: str, store: str, rights: StoreRights) -> None:
        """Set what a person may do in a store; without roles they lose it. Raises FusionError."""

        def change(user: User) -> dict[str, object]:
            others = {other: held for other, held in user.stores.items() if other != store}
            return {"stores": {**others, store: rights} if rights.roles else others}

        self._update(name, change)

    def second_factor(self, name: str, *, wanted: bool) -> str:
        """Give a person a second factor, in the place of an earlier one, or take it. Returns the address for their app.

        Raises:
            FusionError: no such person, or the file cannot be written.
        """
        with extra("console"):
            import pyotp
        secret = pyotp.random_base32() if wanted else ""
        self._update(name, lambda user: {"secret": secret, "used": 0})
        return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="fusion") if wanted else ""

    def _update(self, name: str, change: Callable[[User], dict[str, object]]) -> None:
        def updated(users: dict[str, User]) -> None:
            users[name] = users[name].model_copy(update=change(users[name]))

        self._change(updated, name)

    def _change(self, change: Callable[[dict[str, User]], object], name: str = "") -> None:
        """Change the file, one writer at a time."""
        try:
            with one_writer(self.path):
                self._read()
                users = dict(self._users)
                if name and name not in users:
                    raise FusionError(f"{self.path}: there is no user {name!r}; `fusion users list` shows them")
                change(users)
                content = _File(format=2, users=dict(sorted(users.items()))).model_dump(mode="json")
                replace_file(self.path, json.dumps(content, indent=1) + "\n", private=True)
                self._users = users
        except OSError as error:
            raise FusionError(f"{self.path}: cannot be written: {error}") from None


def roles_of(names: Sequence[str]) -> tuple[Role, ...]:
    """Roles by their names, in a fixed order. Raises FusionError for another name."""
    for name in names:
        if name not in tuple(Role):
            raise FusionError(f"role: want {', '.join(Role)}, got {name!r}")
    return tuple(role for role in Role if role in names)


def _parsed(content: bytes) -> dict[str, User]:
    """The users of a file of either format. Raises ValueError."""
    found = json.loads(content)
    if isinstance(found, dict) and isinstance(found.get("format"), int):
        return _File.model_validate_json(content).users
    if not isinstance(found, dict):
        raise ValueError("want an object")
    users = {}
    for name, row in found.items():
        old = _OldUser.model_validate_json(json.dumps(row))
        users[name] = User(salt=old.salt, hash=old.hash, stores={store: StoreRights() for store in old.stores})
    return users


def _step_of(secret: str, code: str, now_s: float) -> int | None:
    """Number of the 30 seconds to which a code belongs; None for a wrong one."""
    with extra("console"):
        import pyotp
    generator, step = pyotp.TOTP(secret), int(now_s) // CODE_S
    right = None
    for near in range(step - CODES_ASIDE, step + CODES_ASIDE + 1):
        if hmac.compare_digest(generator.generate_otp(near).encode(), code.strip().encode("utf-8", "replace")):
            right = near
    return right


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, dklen=32, **SCRYPT)
