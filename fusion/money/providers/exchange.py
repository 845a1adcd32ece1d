"""HTTP requests to a provider that end within a deadline, whatever the other side does.

The deadline covers name resolution, connecting, TLS, sending, headers and body together: a server that sends a byte now
and then does not extend it. Redirects are not followed, since the secret must reach no other host. After a failure the
provider is left alone for a while: until then every request fails at once, without touching the network.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fusion.errors import ConfigError
from fusion.money.providers.pauses import Pauses
from fusion.money.providers.provider import UnknownOutcome

ANSWER_MAX_BYTES = 100_000
DEADLINE_S = 10.0
# Nothing is known of a request that gets one of these or a 1xx, 3xx or 5xx: accepted for later, wrong or missing
# secret, timeout, conflict with the same request in progress, too early, too many requests.
_UNKNOWN = frozenset((202, 401, 403, 407, 408, 409, 425, 429))
# These concern one request alone, and the next one may be sent at once.
_OF_ONE_REQUEST = frozenset((202, 409, 425))
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Response:
    """Status and body (at most ANSWER_MAX_BYTES) of an answer that is final: 2xx or 4xx."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; empty where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):  # the latter for brackets that are nested without end
            return {}
        return value if isinstance(value, dict) else {}


class Exchange:
    """Sends requests to one provider; from several threads."""

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        pauses: Pauses | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the provider; connects only when a request is sent.

        Args:
            url: where the paths of all requests begin.
            deadline_s: how long a request may take in all.
            pauses: between a failure and the next request.
            clock_s: seconds that never go back, for pauses and deadlines.

        Raises:
            ConfigError: the URL is not http or https, plain http to another machine, or holds more than a path.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError("url: want https://HOST/PATH, got one that cannot be read") from None
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
        if not parts.hostname or not is_safe or parts.query or parts.fragment or parts.username is not None:
            raise ConfigError("url: want https://HOST/PATH, or http:// on this machine, without user or password")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, port or (443 if self._tls else 80)
        self._path, self._deadline_s, self._clock_s = parts.path.rstrip("/"), deadline_s, clock_s
        self._lock = threading.Lock()
        self._pauses, self._quiet_until_s = pauses or Pauses(), clock_s()

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: str = "") -> Response:
        """Send one request, once.

        Raises:
            UnknownOutcome: no final answer came, or the provider is left alone after a failure.
        """
        with self._lock:
            quiet_s = self._quiet_until_s - self._clock_s()
        if quiet_s > 0.0:
            raise UnknownOutcome(f"the provider failed and is asked again in {quiet_s:.0f} s")
        try:
            status, received, wanted_s = self._exchanged(method, self._path + path, headers, body.encode())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._failed(None)
            raise UnknownOutcome(f"{path}: no answer from the provider: {type(error).__name__}") from error
        if status in _UNKNOWN or not (200 <= status < 300 or 400 <= status < 500):
            if status not in _OF_ONE_REQUEST or wanted_s is not None:
                self._failed(wanted_s)
            raise UnknownOutcome(f"{path}: no answer from the provider yet: status {status}")
        with self._lock:
            self._pauses.succeeded()
        return Response(status, received)

    def _failed(self, wanted_s: float | None) -> None:
        with self._lock:
            self._quiet_until_s = self._clock_s() + self._pauses.failed(wanted_s)

    def _exchanged(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, float | None]:
        """Status, body, and the pause that the server asks for, seconds."""
        deadline = _Deadline(self._deadline_s, self._clock_s)
        plain = _connected(self._host, self._port, deadline)
        try:
            plain.settimeout(deadline.left_s())
            sock = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self._host)
            try:
                connection = http.client.HTTPConnection(self._host, self._port)
                connection.sock = _Limited(sock, deadline)
                connection.request(method, path, body, {**headers, "Connection": "close"})
                response = connection.getresponse()
                return response.status, response.read(ANSWER_MAX_BYTES), _asked_pause_s(response)
            finally:
                sock.close()
        finally:
            plain.close()


class _Deadline:
    """An instant until which all waiting has to end."""

    def __init__(self, seconds: float, clock_s: Callable[[], float]) -> None:
        self._clock_s, self._end_s = clock_s, clock_s() + seconds

    def left_s(self) -> float:
        """Seconds that are left. Raises TimeoutError where none are."""
        left_s = self._end_s - self._clock_s()
        if left_s <= 0.0:
            raise TimeoutError("deadline")
        return left_s


class _Limited:
    """What http.client needs of a socket; each wait ends with the deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left_s())
        self._sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes before the body is read; `Exchange` closes after that."""


class _Incoming(io.RawIOBase):
    """The bytes that arrive at a socket before a deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left_s())
        return self._sock.recv_into(buffer)


def _connected(host: str, port: int, deadline: _Deadline) -> socket.socket:
    """A connection to the first address of a host that takes it."""
    problem: OSError = TimeoutError("name resolution")
    for family, kind, protocol, _, address in _resolved(host, port, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _resolved(host: str, port: int, deadline: _Deadline) -> list[Any]:
    """The addresses of a host. The resolver has no deadline of its own, so it is waited for and then left behind."""
    found: list[Any] = []

    def resolve() -> None:
        with suppress(OSError, UnicodeError):  # then nothing was found
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=resolve, daemon=True, name="name resolution")
    thread.start()
    thread.join(deadline.left_s())
    return list(found)


def _asked_pause_s(response: http.client.HTTPResponse) -> float | None:
    """Seconds of the header Retry-After (RFC 9110, section 10.2.3): a number, or a date beside the answer's own."""
    header = response.getheader("Retry-After")
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        wanted, now = map(email.utils.parsedate_to_datetime, (text, response.getheader("Date") or ""))
        return max((wanted - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
