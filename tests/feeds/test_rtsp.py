"""A camera's metadata over RTSP, against a camera of the tests' own and the examples of the RFCs."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from urllib.request import AbstractDigestAuthHandler, HTTPPasswordMgrWithDefaultRealm, Request

import pytest
from feeds.rtsp_camera import PASSWORD, USER, RtspCamera
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.feed import Began, Inbox, LineLost, Message
from fusion.feeds.onvif import DOCUMENT_MAX_BYTES, OnvifFeed, SceneReader
from fusion.feeds.people import Pictures
from fusion.feeds.rtp import DocumentAssembler, Malformed
from fusion.feeds.rtsp import Camera, RtspLine, RtspSession, digest_answer, metadata_track
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.connection import Timing
from fusion.simulation import demo_store

STORE = demo_store(n_cameras=2, n_plates=2).model_copy(update={"keypoints": "box2"})
QUICK = Timing(backoff_min_s=0.01, backoff_max_s=0.05)
# Only an end that never comes takes this long.
PATIENCE_S = 30.0


@pytest.fixture
def cameras() -> Iterator[Callable[..., RtspCamera]]:
    opened: list[RtspCamera] = []

    def start(*arguments: object, **options: object) -> RtspCamera:
        opened.append(RtspCamera(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for camera in opened:
        camera.close()


def line(camera: RtspCamera, password: str = PASSWORD, url: str = "") -> tuple[RtspLine, Inbox, OnvifFeed]:
    feed = OnvifFeed("camera", SceneReader(STORE.cameras[0].name, Pictures(STORE), None, 0.0), as_json=False)
    inbox = Inbox(SYSTEM_CLOCK)
    return RtspLine(feed, Camera(url or camera.url, USER, password), inbox, SYSTEM_CLOCK, QUICK), inbox, feed


def taken(inbox: Inbox, n: int) -> list[Message]:
    """The next n messages."""
    found: list[Message] = []
    while len(found) < n:
        entry = inbox.next(PATIENCE_S)
        assert entry is not None, "nothing came"
        if isinstance(entry[1], Message):
            found.append(entry[1])
    return found


def test_documents_arrive_whole_behind_digest_authentication(cameras: Callable[..., RtspCamera]) -> None:
    documents = [bytes([65 + i]) * (100 + 1500 * i) for i in range(6)]
    camera = cameras(documents, sent_s=1_767_258_000)
    opened, inbox, feed = line(camera)
    opened.start()
    found = taken(inbox, 6)
    opened.close()
    assert [message.payload for message in found] == documents
    # The report gives instant X.5 for RTP time 0; the packets are of RTP time 90000, one second later.
    assert {message.sent_ns for message in found} == {1_767_258_001_500_000_000}
    methods = [request.split()[0] for request in camera.requests]
    assert methods[:5] == ["OPTIONS", "DESCRIBE", "DESCRIBE", "SETUP", "PLAY"]
    assert f"SETUP {camera.url}/trackID=2" in camera.requests, "the metadata track alone, and no picture"
    assert sum(method == "SETUP" for method in methods) == 1
    assert feed.health.connections == 1


def test_a_lost_packet_costs_its_document_alone(cameras: Callable[..., RtspCamera]) -> None:
    documents = [bytes([65 + i]) * 2000 for i in range(4)]  # three packets each
    opened, inbox, feed = line(cameras(documents, lose=4))
    opened.start()
    found = taken(inbox, 3)
    opened.close()
    assert [message.payload for message in found] == [documents[0], documents[2], documents[3]]
    assert feed.health.refused == {"torn document": 1}


def test_a_connection_that_ends_is_opened_again(cameras: Callable[..., RtspCamera]) -> None:
    opened, inbox, feed = line(cameras([b"<a/>"], hold=False))
    opened.start()
    assert len(taken(inbox, 3)) == 3
    opened.close()
    assert feed.health.connections >= 3


@pytest.mark.parametrize(
    ("options", "password", "wanted"),
    [
        ({"password": "another"}, PASSWORD, "refuses the user or the password"),
        ({"encoding": "vnd.onvif.metadata.exi.onvif"}, PASSWORD, "want a track of vnd.onvif.metadata"),
    ],
)
def test_what_a_camera_refuses_is_its_state(
    cameras: Callable[..., RtspCamera], options: dict[str, str], password: str, wanted: str
) -> None:
    camera = cameras([], **options)
    session = RtspSession(Camera(camera.url, USER, password))
    with pytest.raises(LineLost, match=wanted) as lost:
        session.play()
    session.close()
    assert PASSWORD not in str(lost.value)


def test_a_camera_that_is_not_there_is_a_reason_and_no_crash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(LineLost, match=r"127\.0\.0\.1"):
        RtspSession(Camera(f"rtsp://127.0.0.1:{port}/x"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 100_000,
        b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b'RTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm="a", nonce="b", algorithm=ROT13\r\n\r\n',
        b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"$\x00\xff\xff",
        b"",
    ],
)
def test_another_end_that_speaks_nonsense_is_a_reason_and_no_crash(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        session = RtspSession(Camera(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x", USER, PASSWORD))
        with pytest.raises((LineLost, OSError)):
            session.play()
        session.close()


def test_digests_are_those_of_the_rfc() -> None:
    # RFC 7616, section 3.9.1.
    challenge = {
        "realm": "http-auth@example.org", "qop": "auth, auth-int",
        "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    }  # fmt: skip
    client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    for algorithm, response in (
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ):
        answer = digest_answer(
            {**challenge, "algorithm": algorithm}, "Mufasa", "Circle of Life", "GET", "/dir/index.html", 1, client_nonce
        )
        assert f'response="{response}"' in answer and "nc=00000001" in answer and "qop=auth" in answer


texts = st.text(st.characters(min_codepoint=48, max_codepoint=122, exclude_characters='\\"'), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(user=texts, password=texts, realm=texts, nonce=texts)
def test_digests_are_those_of_the_standard_library(user: str, password: str, realm: str, nonce: str) -> None:
    handler = AbstractDigestAuthHandler(HTTPPasswordMgrWithDefaultRealm())
    handler.passwd.add_password(None, "http://camera/", user, password)
    want = handler.get_authorization(Request("http://camera/x"), {"realm": realm, "nonce": nonce})
    got = digest_answer({"realm": realm, "nonce": nonce}, user, password, "GET", "/x", 1, "c")
    assert want is not None
    response = next(part for part in want.split(", ") if part.startswith("response="))
    assert response in got.split(", ")


def test_the_track_is_found_wherever_its_address_is() -> None:
    session = "v=0\r\na=control:rtsp://cam/all/\r\n{m}"
    media = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:v\r\nm=application 0 RTP/AVP 107\r\n"
    media += "a=control:{c}\r\na=rtpmap:107 VND.ONVIF.METADATA/90000\r\n"
    assert metadata_track(session.format(m=media.format(c="m")), "rtsp://cam/x").url == "rtsp://cam/all/m"
    assert metadata_track(session.format(m=media.format(c="rtsp://cam/y")), "rtsp://cam/x") == ("rtsp://cam/y", 107)
    assert metadata_track(media.format(c="track3"), "rtsp://cam/x?a=1").url == "rtsp://cam/x?a=1/track3"
    with pytest.raises(LineLost, match="got H264"):
        metadata_track(media.partition("m=application")[0], "rtsp://cam/x")


# ---- packets ---------------------------------------------------------------------------------------------------------


def packet(
    payload: bytes, sequence: int, marker: bool, *, csrc: int = 0, extension: int = 0, padding: int = 0
) -> bytes:
    first = 0x80 | csrc | (0x10 if extension else 0) | (0x20 if padding else 0)
    head = struct.pack(">BBHII", first, (0x80 if marker else 0) | 98, sequence & 0xFFFF, 0, 1) + bytes(4 * csrc)
    if extension:
        head += struct.pack(">HH", 1, extension) + bytes(4 * extension)
    return head + payload + (bytes(padding - 1) + bytes([padding]) if padding else b"")


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), first=st.integers(0, 0xFFFF),
    csrc=st.integers(0, 15), extension=st.integers(0, 5), padding=st.integers(0, 9),
)  # fmt: skip
def test_a_document_is_its_packets_payloads(
    parts: list[bytes], first: int, csrc: int, extension: int, padding: int
) -> None:
    assembler = DocumentAssembler()
    found = [
        assembler.document(
            packet(part, first + i, i == len(parts) - 1, csrc=csrc, extension=extension, padding=padding)
        )
        for i, part in enumerate(parts)
    ]
    assert found == [*[None] * (len(parts) - 1), (b"".join(parts), None)] and assembler.n_torn == 0


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    assembler = DocumentAssembler()
    for take in (assembler.document, assembler.report):
        try:
            take(data)
        except Malformed:
            continue


def test_a_document_without_end_is_dropped() -> None:
    assembler = DocumentAssembler()
    for i in range(DOCUMENT_MAX_BYTES // 60_000 + 5):
        assert assembler.document(packet(bytes(60_000), i, False)) is None
    assert assembler.n_torn == 1
    assert assembler.document(packet(b"end", i + 1, True)) is None
    assert assembler.document(packet(b"next", i + 2, True)) == (b"next", None)


def test_the_inbox_has_a_limit_and_counts() -> None:
    feed = OnvifFeed("camera", SceneReader(STORE.cameras[0].name, Pictures(STORE), None, 0.0), as_json=False)
    inbox = Inbox(SYSTEM_CLOCK, 12, 400)
    inbox.begin(feed)
    for _ in range(5):
        inbox.put(feed, b"x")
    assert feed.health.refused == {"queue full": 2}, "a quarter of twelve for each feed"
    another = OnvifFeed("camera", SceneReader(STORE.cameras[0].name, Pictures(STORE), None, 0.0), as_json=False)
    for size in (60, 60, 40):
        inbox.put(another, bytes(size))
    assert another.health.refused == {"queue full": 1}, "a quarter of 400 bytes"
    first = inbox.next(0.0)
    assert first is not None and isinstance(first[1], Began)
