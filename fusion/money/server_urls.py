"""Which connections to PostgreSQL may carry a shop's books: those to this machine, and those that check the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fusion.errors import LedgerError, extra

# Modes of libpq that check the server's certificate. The others, its default among them, talk to whoever answers.
_CHECKED_MODES = ("verify-full", "verify-ca")


def checked_server(url: str) -> str:
    """The name of the server and database of a URL (postgresql://...), for messages: without a user or a password.

    A URL that leaves this machine without TLS and a check of the server's certificate is refused.

    Raises:
        LedgerError: the server is another machine, and `sslmode` does not check it; or the URL cannot be read.
    """
    with extra("postgres"):
        import psycopg
    parts = urlsplit(url)
    where = f"postgresql://{parts.hostname or ''}{parts.path}"
    try:
        settings = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # Its text names the part that is wrong; a password never is that part.
        raise LedgerError(f"{where}: the URL cannot be read: {' '.join(str(error).split())}") from None
    mode = settings.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    if all(map(_is_here, _hosts(settings))) or mode in _CHECKED_MODES:
        return where
    raise LedgerError(
        f"{where}: want ?sslmode=verify-full for a server on another machine, got sslmode={mode}: whoever answers "
        "there could read and answer for it (sslrootcert=FILE names your own authority)"
    )


def _hosts(settings: Mapping[str, Any]) -> list[str]:
    named = settings.get("hostaddr") or settings.get("host")
    return str(named or os.environ.get("PGHOSTADDR") or os.environ.get("PGHOST") or "").split(",")


def _is_here(host: str) -> bool:
    """Whether a host is this machine; an empty one, a path and an abstract name are sockets of it."""
    return host in ("", "localhost", "::1") or host.startswith(("/", "@", "127."))


__all__ = ["checked_server"]
