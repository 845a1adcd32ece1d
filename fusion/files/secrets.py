"""Keys and other secrets: where they come from, and one store key from which all others are derived.

A secret is read from a file that only its owner may read, or from the environment. It never stands on a command line,
in a settings file or in a message.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Literal

from fusion.errors import ConfigError
from fusion.files.atomic import make_file
from fusion.files.private import OTHERS, private_folder

KEY_BYTES = 32
# File of a store's key, in the store's folder: 64 hexadecimal digits, so that it can be kept on paper as well.
KEY_FILE = "store.key"
# No key, password or token is longer.
_SECRET_BYTES_MAX = 64 * 1024
# What a key of its own is derived for; a label is never used for two things.
Purpose = Literal["snapshot", "vault", "faces", "checkpoint", "backup", "erasure", "shopper"]


def store_key(folder: str | os.PathLike[str], *, create: bool = True) -> bytes:
    """The key of a store, 32 bytes in its folder; made once.

    Args:
        folder: of the store's state, made where it is missing.
        create: make the key where there is none. What only reads passes False: under a new key nothing fits any more.

    Raises:
        ConfigError: there is no key, it is damaged, or other users can read it.
    """
    path = Path(folder) / KEY_FILE
    if create and not path.exists():
        private_folder(folder)
        make_file(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode("ascii"))
    return key_in(path)


def key_in(path: Path) -> bytes:
    """The store's key in a file. Raises ConfigError where there is none, it is damaged, or other users can read it."""
    text = _private_text(path, "the store's key")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: want a key of {2 * KEY_BYTES} hexadecimal digits; restore it from where it is kept")
    return key


def derived(key: bytes, purpose: Purpose, n_bytes: int = KEY_BYTES) -> bytes:
    """A key for one purpose, from the store's key; none of them reveals another."""
    return hkdf_sha256(key, b"", f"fusion {purpose} 1".encode("ascii"), n_bytes)


def fingerprint(key: bytes) -> str:
    """16 hexadecimal digits by which a key is recognised; they say nothing about it."""
    return hkdf_sha256(key, b"", b"fusion fingerprint 1", 8).hex()


def hkdf_sha256(key: bytes, salt: bytes, info: bytes, n_bytes: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869): extract a key from key material, then expand it for one use.

    Args:
        key: input key material.
        salt: not secret; empty for none.
        info: what the derived key is for.
        n_bytes: of the derived key, at most 255 * 32.
    """
    if not 0 < n_bytes <= 255 * hashlib.sha256().digest_size:
        raise ValueError(f"n_bytes: want 1 to {255 * hashlib.sha256().digest_size}, got {n_bytes}")
    extracted = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key, "sha256")
    block, expanded, counter = b"", b"", 1
    while len(expanded) < n_bytes:
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        expanded += block
        counter += 1
    return expanded[:n_bytes]


def secret_of(*, file: str | os.PathLike[str] | None = None, env: str | None = None, what: str = "secret") -> str:
    """A secret from a file or from the environment, without the line end behind it.

    Args:
        file: readable by its owner alone.
        env: name of an environment variable; exactly one of the two is given.
        what: names the secret in messages, which never repeat it.

    Raises:
        ConfigError: it is not there, is empty, or other users can read its file.
    """
    if (file is None) == (env is None):
        got = "both" if file else "none"
        raise ConfigError(f"{what}: want a file or the name of an environment variable, got {got}")
    if file is not None:
        return _private_text(Path(file), what)
    assert env is not None
    text = os.environ.get(env, "").strip("\r\n")
    if not text:
        raise ConfigError(f"{what}: the environment variable {env} is not set; set it, or name a file")
    return text


def _rights_refused(path: Path) -> int:
    """Rights to a secret's file that would let other users read it.

    A service manager (`LoadCredential` of systemd) gives its files to a service by an access list, whose mask stands
    in the group's bits of the mode. Their folder belongs to it alone.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return OTHERS & ~stat.S_IRGRP if folder and path.parent == Path(folder) else OTHERS


def _private_text(path: Path, what: str) -> str:
    """Text of a private file, without the line end behind it. Raises ConfigError."""
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # Not to wait for a writer, where this is a pipe.
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ConfigError(f"{path}: the file of {what} {reason}") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: want a regular file for {what}, got something else")
        if os.name != "nt" and found.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{path}: the file of {what} belongs to another user; chown it to the store's own")
        if os.name != "nt" and found.st_mode & _rights_refused(path):
            raise ConfigError(f"{path}: other users can read {what}; run chmod 600 on it, and change the secret")
        data = os.read(handle, _SECRET_BYTES_MAX + 1)
    finally:
        os.close(handle)
    if len(data) > _SECRET_BYTES_MAX:
        raise ConfigError(f"{path}: want {what} of at most {_SECRET_BYTES_MAX} bytes, got more")
    try:
        text = data.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: want {what} as text in UTF-8, got other bytes") from None
    if not text:
        raise ConfigError(f"{path}: the file of {what} is empty")
    return text
