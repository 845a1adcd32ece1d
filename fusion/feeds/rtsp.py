"""A camera's metadata track over RTSP: describe, set up over the same TCP connection, play, and keep alive.

Only the metadata track is set up, so no picture is ever sent. Source: RFC 2326; digest access authentication by
RFC 7616; ONVIF Streaming Specification, section 5.1 (encodings vnd.onvif.metadata and vnd.onvif.metadata.gzip).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fusion.feeds.feed import Feed, Inbox, Line, LineLost
from fusion.feeds.rtp import DocumentAssembler, Malformed
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Timing
from fusion.live.messages import Refused

CONNECT_MAX_S = 5.0
# A camera that answers neither a question nor sends for this long is gone.
SILENT_MAX_S = 10.0
BODY_MAX_BYTES, LINE_MAX_BYTES, HEADERS_MAX = 1 << 20, 8192, 64
SESSION_S = 60.0
READ_BYTES = 1 << 16
_ENCODINGS = ("vnd.onvif.metadata", "vnd.onvif.metadata.gzip")
_AUTHENTICATION = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_ENCODED = re.compile(r"^a=rtpmap:(\d{1,3})\s+([^/\s]+)", re.MULTILINE | re.IGNORECASE)
_STALE = re.compile(r'stale\s*=\s*"?true', re.IGNORECASE)
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(frozen=True)
class Camera:
    """Where a camera's stream is, and who may see it.

    Attributes:
        url: rtsp://HOST[:PORT]/PATH, or rtsps:// for TLS; without name and password.
        user, password: credentials, if it asks for any.
        ca: file of the certificate authorities to trust; None for those of the system.
    """

    url: str
    user: str | None = None
    password: str | None = None
    ca: Path | None = None


class Response(NamedTuple):
    """An answer; header names are in small letters."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Track(NamedTuple):
    """The metadata track of a presentation."""

    url: str
    payload_type: int


def metadata_track(description: str, base_url: str) -> Track:
    """The metadata track in a session description. Raises LineLost, which says what is there instead.

    Source: RFC 8866 (SDP); RFC 2326, appendix C.1.1 (control URLs).
    """
    # What stands before the first medium holds for the whole session.
    session, *media = re.split(r"^m=", description[:BODY_MAX_BYTES], flags=re.MULTILINE)
    session_url = _joined(base_url, _control(session))
    encodings: list[str] = []
    for medium in media:
        for number, encoding in _ENCODED.findall(medium):
            if encoding.lower() in _ENCODINGS:
                return Track(_joined(session_url, _control(medium)), int(number))
            encodings.append(encoding)
    got = ", ".join(encodings[:8]) or "no track"
    raise LineLost(f"want a track of {' or '.join(_ENCODINGS)}, got {got}; turn metadata on in the media profile")


def _control(section: str) -> str:
    matched = re.search(r"^a=control:(.*)$", section, re.MULTILINE)
    return matched[1].strip() if matched else ""


def _joined(base_url: str, control: str) -> str:
    if control in ("", "*"):
        return base_url
    return control if "://" in control else f"{base_url.rstrip('/')}/{control}"


class RtspSession:
    """One connection to a camera, from its opening to its loss.

    Attributes:
        rtp, rtcp: channels of the track's packets and of its reports.
        timeout_s: the camera ends the session when it hears nothing for as long.
    """

    def __init__(self, camera: Camera) -> None:
        """Connect. Raises LineLost or OSError."""
        parts = urlsplit(camera.url)
        secure = parts.scheme == "rtsps"
        self._camera, self._url = camera, camera.url
        host = parts.hostname or ""
        try:
            self._socket = socket.create_connection((host, parts.port or (322 if secure else 554)), CONNECT_MAX_S)
            if secure:
                context = ssl.create_default_context(cafile=camera.ca)
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
        except OSError as error:
            raise LineLost(f"{host}: {error.strerror or error}") from None
        self._buffer = bytearray()
        self._number = 0
        self._challenge: Mapping[str, str] | None = None
        self._scheme, self._nonce_uses = "", 0
        self._session = ""
        self.timeout_s = SESSION_S
        self.rtp, self.rtcp = 0, 1
        self._keep_alive = "OPTIONS"
        # Packets that came while an answer was waited for.
        self._early: list[tuple[int, bytes]] = []

    def play(self) -> None:
        """Set the metadata track up and start it. Raises LineLost or OSError."""
        options = self._ask("OPTIONS", self._url)
        if "GET_PARAMETER" in options.headers.get("public", ""):
            self._keep_alive = "GET_PARAMETER"
        described = self._ask("DESCRIBE", self._url, {"Accept": "application/sdp"})
        base_url = described.headers.get("content-base", described.headers.get("content-location", self._url)).strip()
        track = metadata_track(described.body.decode("utf-8", "replace"), base_url)
        answer = self._ask("SETUP", track.url, {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1"})
        session, _, rest = answer.headers.get("session", "").partition(";")
        if not session:
            raise LineLost("the camera opened no session")
        self._session = session.strip()
        if matched := re.search(r"timeout\s*=\s*(\d{1,5})", rest):
            self.timeout_s = max(float(matched[1]), 2.0)
        numbers = re.search(r"interleaved=(\d{1,3})-(\d{1,3})", answer.headers.get("transport", ""))
        if numbers:
            self.rtp, self.rtcp = int(numbers[1]), int(numbers[2])
        self._ask("PLAY", base_url, {"Range": "npt=0.000-"})

    def packet(self, timeout_s: float) -> tuple[int, bytes] | None:
        """The next packet and its channel; (-1, b"") for an answer; None where nothing comes in time.

        Raises:
            LineLost: the camera has closed the connection, or sends something else.
        """
        if self._early:
            return self._early.pop(0)
        self._socket.settimeout(timeout_s)
        try:
            if not self._buffer:
                self._fill()
        except TimeoutError:
            return None
        self._socket.settimeout(SILENT_MAX_S)
        try:
            if self._buffer[0] == 0x24:
                return self._interleaved()
            if self._buffer[:5] in (b"RTSP/"[: len(self._buffer)], b"RTSP/"):
                self._response()
                return -1, b""
            self._request()
        except TimeoutError:
            raise LineLost("the camera stopped in the middle of a packet") from None
        return -1, b""

    def keep_alive(self) -> None:
        """Ask something, so that the camera keeps the session; its answer comes with the packets."""
        self._send(self._keep_alive, self._url, {})

    def close(self) -> None:
        """End the session, as far as the camera still listens."""
        try:
            self._socket.settimeout(1.0)
            if self._session:
                self._send("TEARDOWN", self._url, {})
        except OSError:
            pass
        self._socket.close()

    # ---- questions and answers ---------------------------------------------------------------------------------------

    def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Response:
        self._socket.settimeout(SILENT_MAX_S)
        for _ in range(3):
            self._send(method, url, headers or {})
            try:
                answer = self._answer()
            except TimeoutError:
                raise LineLost(f"{method}: no answer within {SILENT_MAX_S:g} s") from None
            if answer.status != 401:
                break
            challenge = answer.headers.get("www-authenticate", "")
            if self._camera.user is None:
                raise LineLost("the camera asks for a user and a password")
            if self._challenge is not None and not _STALE.search(challenge):
                raise LineLost("the camera refuses the user or the password")
            self._take_challenge(challenge)
        if answer.status != 200:
            raise LineLost(f"{method}: the camera answered {answer.status} {answer.reason[:80]}")
        return answer

    def _answer(self) -> Response:
        while True:
            if not self._buffer:
                self._fill()
            if self._buffer[0] == 0x24:
                if len(self._early) < 256:
                    self._early.append(self._interleaved())
                else:
                    self._interleaved()
                continue
            return self._response()

    def _send(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        self._number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", "User-Agent: fusion"]
        if self._session:
            lines.append(f"Session: {self._session}")
        if self._challenge is not None:
            lines.append(f"Authorization: {self._authorization(method, url)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def _response(self) -> Response:
        first = self._line()
        matched = re.match(r"RTSP/\d\.\d (\d{3}) ?(.*)", first)
        if matched is None:
            raise LineLost("the other end does not speak RTSP")
        headers, body = self._rest()
        return Response(int(matched[1]), matched[2], headers, body)

    def _request(self) -> None:
        """A question of the camera's own, such as an announcement: read, and answered as not implemented."""
        self._line()
        headers, _ = self._rest()
        number = re.sub(r"\D", "", headers.get("cseq", "0"))[:9] or "0"
        self._socket.sendall(f"RTSP/1.0 501 Not Implemented\r\nCSeq: {number}\r\n\r\n".encode())

    def _rest(self) -> tuple[dict[str, str], bytes]:
        headers: dict[str, str] = {}
        for _ in range(HEADERS_MAX):
            line = self._line()
            if not line:
                break
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            # Of several challenges, digest is taken; of several digests, the strongest that is known.
            if name != "www-authenticate" or _strength(value) > _strength(headers.get(name, "")):
                headers[name] = value
        else:
            raise LineLost(f"want at most {HEADERS_MAX} headers")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            raise LineLost(f"want at most {BODY_MAX_BYTES} bytes of an answer, got {length[:20]}")
        return headers, self._exactly(int(length))

    # ---- authentication ----------------------------------------------------------------------------------------------

    def _take_challenge(self, header: str) -> None:
        self._scheme = header.partition(" ")[0].lower()
        if _strength(header) == 0:
            raise LineLost(f"the camera asks for the authentication {header[:40]!r}, which is not known")
        self._challenge = {name.lower(): quoted or plain for name, quoted, plain in _AUTHENTICATION.findall(header)}
        self._nonce_uses = 0

    def _authorization(self, method: str, url: str) -> str:
        assert self._challenge is not None
        user, password = self._camera.user or "", self._camera.password or ""
        if self._scheme == "basic":
            return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._nonce_uses += 1
        return digest_answer(self._challenge, user, password, method, url, self._nonce_uses, secrets.token_hex(8))

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def _interleaved(self) -> tuple[int, bytes]:
        head = self._exactly(4)
        return head[1], self._exactly(int.from_bytes(head[2:], "big"))

    def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_MAX_BYTES:
                raise LineLost("the other end does not speak RTSP")
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.decode("utf-8", "replace").strip("\r")

    def _exactly(self, n: int) -> bytes:
        while len(self._buffer) < n:
            self._fill()
        found = bytes(self._buffer[:n])
        del self._buffer[:n]
        return found

    def _fill(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise LineLost("the camera closed the connection")
        self._buffer += data


def _strength(challenge: str) -> int:
    """How good a way to authenticate is; 0 for one that is not known."""
    scheme = challenge.partition(" ")[0].lower()
    if scheme == "basic":
        return 1
    found = {name.lower(): quoted or plain for name, quoted, plain in _AUTHENTICATION.findall(challenge)}
    algorithm = found.get("algorithm", "MD5").upper()
    if scheme != "digest" or algorithm not in _HASHES:
        return 0
    return 3 if algorithm == "SHA-256" else 2


def digest_answer(
    challenge: Mapping[str, str], user: str, password: str, method: str, url: str, uses: int, client_nonce: str
) -> str:
    """The value of an Authorization header for a digest challenge, by RFC 7616, section 3.4.

    Args:
        challenge: realm, nonce, and qop, algorithm, opaque where they are there.
        user: their name.
        password: of the user.
        method: of the request.
        url: of the request.
        uses: how often this nonce has been used, this time included.
        client_nonce: of the request.
    """
    make = _HASHES[challenge.get("algorithm", "MD5").upper()]

    def digest(*parts: str) -> str:
        return make(":".join(parts).encode()).hexdigest()

    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    secret, asked = digest(user, realm, password), digest(method, url)
    fields = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
    plain = {}
    if "auth" in [way.strip() for way in challenge.get("qop", "").split(",")]:
        plain = {"qop": "auth", "nc": f"{uses:08x}"}
        fields["cnonce"] = client_nonce
        fields["response"] = digest(secret, nonce, plain["nc"], client_nonce, "auth", asked)
    else:
        fields["response"] = digest(secret, nonce, asked)
    if "algorithm" in challenge:
        plain["algorithm"] = challenge["algorithm"]
    if "opaque" in challenge:
        fields["opaque"] = challenge["opaque"]
    shown = [f'{name}="{value}"' for name, value in fields.items()] + [f"{k}={v}" for k, v in plain.items()]
    return "Digest " + ", ".join(shown)


class RtspLine(Line):
    """A camera's metadata, connected again after each loss."""

    def __init__(self, feed: Feed, camera: Camera, inbox: Inbox, clock: Clock, timing: Timing = TIMING) -> None:
        super().__init__([feed], inbox, clock, timing)
        self._feed, self._camera = feed, camera

    def _serve(self) -> None:
        session = RtspSession(self._camera)
        try:
            session.play()
            self._inbox.begin(self._feed)
            self._deliver(session)
        finally:
            session.close()

    def _deliver(self, session: RtspSession) -> None:
        assembler, n_torn = DocumentAssembler(), 0
        heard_s = asked_s = self._clock.monotonic_s()
        while not self._closing.is_set():
            now_s = self._clock.monotonic_s()
            silent = now_s - heard_s > SILENT_MAX_S / 2.0 and asked_s <= heard_s
            if silent or now_s - asked_s > session.timeout_s / 2.0:
                session.keep_alive()
                asked_s = now_s
            if now_s - heard_s > SILENT_MAX_S:
                raise LineLost(f"silent for {SILENT_MAX_S:g} s, and no answer")
            found = session.packet(0.5)
            if found is None:
                continue
            heard_s = self._clock.monotonic_s()
            channel, packet = found
            try:
                if channel == session.rtcp:
                    assembler.report(packet)
                elif channel == session.rtp and (complete := assembler.document(packet)) is not None:
                    self._inbox.put(self._feed, complete[0], sent_ns=complete[1])
            except Malformed as error:
                self._feed.health.refuse(Refused("malformed packet", str(error)))
            if assembler.n_torn > n_torn:
                n_torn = assembler.n_torn
                self._feed.health.refuse(Refused("torn document", "a packet of it is missing, or it is too long"))
