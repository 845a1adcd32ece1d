"""Simulated IP cameras for tests and benchmarks: H.264 over RTP inside RTSP's own connection, with RTCP sender reports.

RFC 2326 (RTSP), RFC 3550 (RTP and sender reports), RFC 6184 (H.264 in RTP). Every picture is a key frame, so that a
client may join, and a picture may be left out, anywhere.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

RTP_HZ = 90_000
# Seconds from 1900, where NTP's time begins, to 1970.
NTP_EPOCH_S = 2_208_988_800
PAYLOAD_MAX = 1400
REPORT_EVERY_NS = 1_000_000_000
RTP_TYPE = 96

Span = tuple[int, int]


def encode(pictures: Iterable[NDArray[np.uint8]], rate_hz: float) -> list[bytes]:
    """Pictures (height, width, 3) RGB as H.264 in Annex B, each a key frame with its parameter sets."""
    import av

    encoder, units = None, []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if encoder is None:
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, RTP_HZ), Fraction(rate_hz).limit_denominator(1000)
            encoder.options = {
                "preset": "ultrafast",
                "tune": "zerolatency",
                "crf": "16",
                "x264-params": "keyint=1:repeat-headers=1:annexb=1",
            }
        frame.pts = round(number * RTP_HZ / rate_hz)
        units += [bytes(packet) for packet in encoder.encode(frame)]
    return units


@dataclass
class SimulatedCamera:
    """One camera's pictures and its faults; times are UTC nanoseconds of the clock by which the server runs.

    Attributes:
        times_ns, units: when each picture was taken, and its H.264.
        delay_s: from the exposure to the sending.
        clock_error_ns: added to the time in sender reports.
        reports: whether it sends sender reports.
        cuts: spans in which it has no connection.
        halved: spans in which every second picture is left out.
        user, password: asked for by Basic authentication.
    """

    times_ns: Sequence[int]
    units: Sequence[bytes]
    delay_s: float = 0.05
    clock_error_ns: int = 0
    reports: bool = True
    cuts: list[Span] = field(default_factory=list)
    halved: list[Span] = field(default_factory=list)
    user: str | None = None
    password: str | None = None

    def is_cut(self, now_ns: int) -> bool:
        return any(start <= now_ns < end for start, end in self.cuts)


class RtspServer:
    """Serves simulated cameras on a free port of this machine, each as `rtsp://127.0.0.1:PORT/NAME`.

    Attributes:
        n_sent, n_played: pictures sent and connections that played, by camera.
        next_ns: when the next picture of each connected camera is due.
    """

    def __init__(
        self,
        cameras: dict[str, SimulatedCamera],
        now_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """now_ns: the clock by which it runs; pause: waits for a time, or until that clock has moved."""
        self._cameras, self._now_ns, self._pause = cameras, now_ns, pause
        self.n_sent, self.n_played = dict.fromkeys(cameras, 0), dict.fromkeys(cameras, 0)
        self.next_ns: dict[str, int] = {}
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._listener.settimeout(0.05)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, name: str) -> str:
        return f"rtsp://127.0.0.1:{self._port}/{name}"

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(5.0)
        self._listener.close()

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = b""
            while not self._closing.is_set():
                while b"\r\n\r\n" not in received:
                    data = connection.recv(4096)
                    if not data:
                        return
                    received += data
                request, _, received = received.partition(b"\r\n\r\n")
                method, url, headers = _parsed(request.decode())
                camera = self._cameras.get(url.rstrip("/").split("/")[3].split("?")[0] if url.count("/") > 2 else "")
                if camera is None or camera.is_cut(self._now_ns()):
                    return
                connection.sendall(_answer(camera, method, url, headers))
                if method == "PLAY" and _may(camera, headers):
                    name = next(name for name, other in self._cameras.items() if other is camera)
                    try:
                        self._play(connection, name, camera)
                    finally:
                        self.next_ns.pop(name, None)
                    return

    def _play(self, connection: socket.socket, name: str, camera: SimulatedCamera) -> None:
        """Send pictures at their times until they are over, the camera is cut or the client has gone."""
        sequence, ssrc, base = 7, 0x5EED, 0xFFFF_0000  # The time stamp wraps around soon.
        origin_ns, delay_ns = camera.times_ns[0], round(camera.delay_s * 1e9)
        report_ns, n_packets, n_bytes = 0, 0, 0
        joined_ns = self._now_ns()
        self.n_played[name] += 1
        connection.setblocking(False)
        for number, (t_ns, unit) in enumerate(zip(camera.times_ns, camera.units)):
            if t_ns + delay_ns < joined_ns:
                continue
            self.next_ns[name] = t_ns + delay_ns
            while (now_ns := self._now_ns()) < t_ns + delay_ns:
                if self._closing.is_set() or camera.is_cut(now_ns) or _has_gone(connection):
                    return
                self._pause(0.001)
            if camera.is_cut(now_ns):
                return
            if number % 2 and any(start <= t_ns < end for start, end in camera.halved):
                continue
            stamp = (base + (t_ns - origin_ns) * RTP_HZ // 10**9) & 0xFFFF_FFFF
            if camera.reports and now_ns >= report_ns:
                report_ns = now_ns + REPORT_EVERY_NS
                ntp_s, rest_ns = divmod(t_ns + camera.clock_error_ns, 10**9)
                report = struct.pack(
                    ">BBHIIIIII", 0x80, 200, 6, ssrc, (ntp_s + NTP_EPOCH_S) & 0xFFFF_FFFF, (rest_ns << 32) // 10**9,
                    stamp, n_packets, n_bytes,
                )  # fmt: skip
                _send(connection, 1, report)
            payloads = list(_payloads(unit))
            for position, payload in enumerate(payloads):
                marker = 0x80 if position == len(payloads) - 1 else 0
                header = struct.pack(">BBHII", 0x80, marker | RTP_TYPE, sequence & 0xFFFF, stamp, ssrc)
                _send(connection, 0, header + payload)
                sequence, n_packets, n_bytes = sequence + 1, n_packets + 1, n_bytes + len(payload)
            self.n_sent[name] += 1
        del self.next_ns[name]
        while not self._closing.is_set() and not camera.is_cut(self._now_ns()) and not _has_gone(connection):
            time.sleep(0.01)


def _parsed(request: str) -> tuple[str, str, dict[str, str]]:
    first, *lines = request.split("\r\n")
    method, url, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, url, headers


def _may(camera: SimulatedCamera, headers: dict[str, str]) -> bool:
    if camera.user is None:
        return True
    wanted = base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
    return headers.get("authorization") == f"Basic {wanted}"


def _answer(camera: SimulatedCamera, method: str, url: str, headers: dict[str, str]) -> bytes:
    lines, body = ["RTSP/1.0 200 OK"], ""
    if method == "OPTIONS":
        lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN")
    elif not _may(camera, headers):
        lines = ["RTSP/1.0 401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"']
    elif method == "DESCRIBE":
        sets = ",".join(base64.b64encode(nal).decode() for nal in _nals(camera.units[0]) if nal[0] & 31 in (7, 8))
        body = (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=simulated camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
            f"m=video 0 RTP/AVP {RTP_TYPE}\r\na=rtpmap:{RTP_TYPE} H264/{RTP_HZ}\r\n"
            f"a=fmtp:{RTP_TYPE} packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:video\r\n"
        )
        lines += ["Content-Type: application/sdp", f"Content-Base: {url.rstrip('/')}/", f"Content-Length: {len(body)}"]
    elif method == "SETUP":
        if "interleaved" in headers.get("transport", ""):
            lines += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        else:
            lines = ["RTSP/1.0 461 Unsupported Transport"]
    return "\r\n".join([*lines, f"CSeq: {headers.get('cseq', '0')}", "", body]).encode()


def _nals(unit: bytes) -> list[bytes]:
    """The network abstraction layer units of an access unit in Annex B."""
    return [nal.rstrip(b"\0") for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if nal.rstrip(b"\0")]


def _payloads(unit: bytes) -> Iterable[bytes]:
    """RTP payloads of an access unit: single units, and fragments (FU-A) of those that are too long."""
    for nal in _nals(unit):
        if len(nal) <= PAYLOAD_MAX:
            yield nal
            continue
        parts = [nal[at : at + PAYLOAD_MAX] for at in range(1, len(nal), PAYLOAD_MAX)]
        for number, part in enumerate(parts):
            ends = (0x80 if number == 0 else 0) | (0x40 if number == len(parts) - 1 else 0)
            yield bytes([nal[0] & 0xE0 | 28, ends | nal[0] & 31]) + part


def _send(connection: socket.socket, channel: int, packet: bytes) -> None:
    connection.setblocking(True)
    connection.settimeout(5.0)
    connection.sendall(struct.pack(">BBH", 0x24, channel, len(packet)) + packet)
    connection.setblocking(False)


def _has_gone(connection: socket.socket) -> bool:
    """Whether the client closed the connection; what it sends meanwhile (keep-alive) needs no answer."""
    try:
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
