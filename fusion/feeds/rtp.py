"""RTP packets of a metadata track back into documents, and the sender's clock from RTCP.

Source: RFC 3550 (sections 5.1, 6.4.1); ONVIF Streaming Specification, section 5.1.2.1.1: a document may be cut over
packets, and the marker bit is set where it is complete.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fusion.feeds.onvif import DOCUMENT_MAX_BYTES

_HEAD = struct.Struct(">BBHII")
_SENDER_REPORT = struct.Struct(">IIII")
_SENDER_REPORT_TYPE = 200
# From 1900, where NTP counts from, to 1970.
NTP_EPOCH_S = 2_208_988_800
METADATA_HZ = 90_000


class Malformed(Exception):
    """Bytes that are no packet."""


class DocumentAssembler:
    """Puts the documents of one RTP stream together.

    Attributes:
        n_torn: documents that were dropped, since a packet of them is missing or they are too long.
    """

    def __init__(self) -> None:
        self.n_torn = 0
        self._parts = bytearray()
        self._next: int | None = None
        self._torn = False
        # The newest sender report: UTC ns, and the RTP time of the same instant.
        self._report: tuple[int, int] | None = None

    def document(self, packet: bytes) -> tuple[bytes, int | None] | None:
        """A document that a packet completes, and its UTC ns by the sender reports; None where it is not complete yet.

        Raises:
            Malformed: not a packet of RTP version 2.
        """
        payload, marker, sequence, timestamp = _rtp(packet)
        if self._next is not None and sequence != self._next:
            self._tear()
        self._next = (sequence + 1) & 0xFFFF
        if not self._torn:
            self._parts += payload
            if len(self._parts) > DOCUMENT_MAX_BYTES:
                self._tear()
        if not marker:
            return None
        document, torn = bytes(self._parts), self._torn
        self._parts.clear()
        self._torn = False
        return None if torn or not document else (document, self._time_ns(timestamp))

    def report(self, packet: bytes) -> None:
        """Take an RTCP packet, which may hold several. Raises Malformed."""
        for kind, body in _rtcp(packet):
            if kind == _SENDER_REPORT_TYPE and len(body) >= 4 + _SENDER_REPORT.size:
                seconds, fraction, timestamp, _ = _SENDER_REPORT.unpack_from(body, 4)
                if seconds >= NTP_EPOCH_S:
                    self._report = (seconds - NTP_EPOCH_S) * 10**9 + (fraction * 10**9 >> 32), timestamp

    def _tear(self) -> None:
        if not self._torn:
            self.n_torn += 1
        self._torn = True
        self._parts.clear()

    def _time_ns(self, timestamp: int) -> int | None:
        if self._report is None:
            return None
        t_ns, at = self._report
        ticks = (timestamp - at + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        return t_ns + ticks * 10**9 // METADATA_HZ


def _rtp(packet: bytes) -> tuple[bytes, bool, int, int]:
    """Payload, marker, sequence number and timestamp."""
    if len(packet) < _HEAD.size:
        raise Malformed("an RTP packet of fewer than 12 bytes")
    first, second, sequence, timestamp, _ = _HEAD.unpack_from(packet)
    if first >> 6 != 2:
        raise Malformed(f"RTP version {first >> 6}")
    start, end = _HEAD.size + 4 * (first & 0x0F), len(packet)
    if first & 0x10:
        if end < start + 4:
            raise Malformed("an RTP packet that ends in its header")
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= packet[-1]
    if start > end:
        raise Malformed("an RTP packet that ends in its header")
    return packet[start:end], bool(second & 0x80), sequence, timestamp


def _rtcp(packet: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body, from the sender's identifier on, of each packet in a compound one."""
    at = 0
    while at + 4 <= len(packet):
        if packet[at] >> 6 != 2:
            raise Malformed("RTCP of another version")
        end = at + 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
        yield packet[at + 1], packet[at + 4 : end]
        at = end
