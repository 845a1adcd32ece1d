"""A camera for tests: an RTSP server that sends documents on a metadata track, over TCP, behind a digest."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Sequence

NONCE, REALM, USER, PASSWORD = "b7f6a1", "camera", "viewer", "s3cret"
NTP_EPOCH_S = 2_208_988_800
SDP = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=Media
a=control:*
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=control:trackID=1
m=application 0 RTP/AVP 98
a=rtpmap:98 {encoding}/90000
a=control:trackID=2
"""


class RtspCamera:
    """Serves one client after another; each gets all documents, then the connection ends or stays open.

    Attributes:
        url: of the stream; requests: methods that were asked, with their URLs.
    """

    def __init__(
        self, documents: Sequence[bytes], *, encoding: str = "vnd.onvif.metadata", cut: int = 700,
        lose: int | None = None, hold: bool = True, password: str = PASSWORD, sent_s: int | None = None,
    ) -> None:  # fmt: skip
        self._documents, self._encoding, self._cut, self._lose = documents, encoding, cut, lose
        self._hold, self._password, self._sent_s = hold, password, sent_s
        self.requests: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/media?profile=1"
        self.stopping = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self.stopping.set()
        self._server.close()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                try:
                    self._serve(connection)
                except OSError:
                    continue

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20.0)
        text = b""
        while not self.stopping.is_set():
            while b"\r\n\r\n" not in text:
                data = connection.recv(4096)
                if not data:
                    return
                text += data
            head, _, text = text.partition(b"\r\n\r\n")
            if self._answer(connection, head.decode()) == "PLAY":
                self._send(connection)
                if not self._hold:
                    return

    def _answer(self, connection: socket.socket, head: str) -> str:
        method, url, _ = head.split("\r\n")[0].split(" ")
        self.requests.append(f"{method} {url}")
        number = re.search(r"CSeq: (\d+)", head)
        assert number is not None
        lines, body = [f"CSeq: {number[1]}"], ""
        status = "200 OK"
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
        elif not self._is_right(head, method, url):
            status = "401 Unauthorized"
            lines.append(f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}"')
        elif method == "DESCRIBE":
            body = SDP.format(encoding=self._encoding).replace("\n", "\r\n")
            lines += ["Content-Type: application/sdp", f"Content-Base: {self.url}/", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines += ["Session: 77;timeout=4", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"]
        connection.sendall((f"RTSP/1.0 {status}\r\n" + "\r\n".join(lines) + "\r\n\r\n" + body).encode())
        return method if status == "200 OK" else ""

    def _is_right(self, head: str, method: str, url: str) -> bool:
        """RFC 2069's form of the digest, worked out here once more."""

        def digest(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        secret = digest(f"{USER}:{REALM}:{self._password}")
        wanted = digest(f"{secret}:{NONCE}:{digest(f'{method}:{url}')}")
        return f'response="{wanted}"' in head and f'username="{USER}"' in head

    def _send(self, connection: socket.socket) -> None:
        if self._sent_s is not None:
            report = struct.pack(">BBHIIIIII", 0x80, 200, 6, 1, self._sent_s + NTP_EPOCH_S, 1 << 31, 0, 0, 0)
            connection.sendall(b"$\x01" + struct.pack(">H", len(report)) + report)
        sequence = 65_533  # It wraps on the way.
        for document in self._documents:
            parts = [document[i : i + self._cut] for i in range(0, len(document), self._cut)] or [b""]
            for i, part in enumerate(parts):
                marker = 0x80 if i == len(parts) - 1 else 0
                packet = struct.pack(">BBHII", 0x80, marker | 98, sequence & 0xFFFF, 90_000, 1) + part
                if sequence - 65_533 != self._lose:
                    connection.sendall(b"$\x00" + struct.pack(">H", len(packet)) + packet)
                sequence += 1
