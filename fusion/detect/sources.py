"""Video from a camera or a file, decoded picture by picture with the time of each. Needs the extra `detect`."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusion.detect.settings import Source
from fusion.detect.timing import StreamClock
from fusion.errors import ConfigError, FusionError, extra, terminal_text
from fusion.live.clock import Clock

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

# A camera answers within some seconds, even while it starts; a stream that is silent for longer is broken.
OPEN_MAX_S, SILENT_MAX_S = 10.0, 5.0
# A picture that waited longer than this behind others shows that decoding does not keep up: whole pictures are passed
# over until none waits.
LAG_MAX_NS, LAG_GONE_NS = 500_000_000, 100_000_000
# No engine waits longer for a picture, such as the last before a silence, which FFmpeg delivers after it.
STALE_NS = 2_000_000_000
# What FFmpeg may look at before it delivers the first picture: half a second instead of five.
_OPTIONS = {"analyzeduration": "500000"}
# RTP inside RTSP's connection passes every firewall and loses nothing; a camera without it sends datagrams.
_NETWORK_OPTIONS = {**_OPTIONS, "rtsp_flags": "prefer_tcp"}
# Pictures without times, for which FFmpeg makes up 25 a second: Motion JPEG over HTTP.
_UNTIMED = ("mpjpeg", "mjpeg")
# Times of V4L2 by the machine's clock, not since it was started.
_USB_OPTIONS = {"timestamps": "abs"}


class Unreachable(Exception):
    """A source that cannot be opened, or has ended; its text holds nothing secret."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A decoded picture.

    Attributes:
        t_ns: when it was taken, UTC.
        frame: the picture; it lives in memory until the next one.
    """

    t_ns: int
    frame: VideoFrame


@contextlib.contextmanager
def _video(source: Source, options: dict[str, str], file_format: str | None = None) -> Iterator[tuple[Any, Any]]:
    """The opened source and its first video stream. Raises Unreachable, also from within."""
    with extra("detect"):
        import av
    try:
        limits = (OPEN_MAX_S, SILENT_MAX_S)
        with av.open(source.address, format=file_format, options=options, timeout=limits) as container:
            if not container.streams.video:
                raise Unreachable(f"{source.shown}: want video, got none")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE" if source.kind != "file" else "AUTO"  # Frame threads delay each picture.
            yield container, stream
    except av.error.ExitError:  # PyAV ends what takes too long.
        raise Unreachable(f"{source.shown}: no answer in {OPEN_MAX_S:g} s, or no data for {SILENT_MAX_S:g} s") from None
    except av.error.FFmpegError as error:
        # Its own text repeats the address.
        raise Unreachable(f"{source.shown}: {terminal_text(error.strerror or type(error).__name__).lower()}") from None
    except OSError as error:
        raise Unreachable(f"{source.shown}: {(error.strerror or type(error).__name__).lower()}") from None


@dataclass
class LiveVideo:
    """One connection to a camera.

    Attributes:
        clock: relates its time to UTC.
        n_received, n_damaged, n_passed_over: coded pictures that came, that could not be decoded, and that were not
            decoded, or not used, since they came too late.
        n_undated: pictures without a time, such as those that came while the stream was opened.
    """

    source: Source
    machine: Clock
    delay_s: Callable[[], float]

    def __post_init__(self) -> None:
        self.clock = StreamClock()
        self._untimed = False
        self.n_received = self.n_damaged = self.n_passed_over = self.n_undated = 0

    def shots(self) -> Iterator[Shot]:
        """Pictures as they arrive, until the source ends. Raises Unreachable."""
        usb = self.source.kind == "usb"
        with _video(self.source, _USB_OPTIONS if usb else _NETWORK_OPTIONS, "v4l2" if usb else None) as opened:
            container, stream = opened
            self._untimed = container.format.name in _UNTIMED
            for packet in _packets(container, stream):
                yield from self._decoded(packet, stream)
        raise Unreachable(f"{self.source.shown}: the stream has ended")

    def _decoded(self, packet: Packet[VideoStream], stream: VideoStream) -> Iterator[Shot]:
        import av

        if packet.size == 0:
            return  # The end.
        self.n_received += 1
        arrival_ns = self.machine.wall_ns()
        own_ns = arrival_ns if self._untimed else _own_ns(packet)
        if own_ns is not None:
            self.clock.packet(own_ns, arrival_ns, own_ns if self.source.kind == "usb" else _reported_ns(packet))
            self._pass_over(stream, self.clock.lag_ns(own_ns, arrival_ns), packet.is_keyframe)
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self.n_damaged += 1
            return
        if not frames and stream.codec_context.skip_frame != "DEFAULT":
            self.n_passed_over += 1
        for frame in frames:
            frame_ns = arrival_ns if self._untimed else _own_ns(frame)
            if frame_ns is None or not self.clock.settled:
                self.n_undated += 1
                continue
            if self.clock.lag_ns(frame_ns, arrival_ns) > STALE_NS:
                self.n_passed_over += 1
                continue
            yield Shot(self.clock.taken_ns(frame_ns, round(1e9 * self.delay_s())), frame)

    def _pass_over(self, stream: VideoStream, lag_ns: int, is_key: bool) -> None:
        """Decode key frames alone while pictures wait in line, and all again from a key frame on."""
        if lag_ns > LAG_MAX_NS:
            stream.codec_context.skip_frame = "NONKEY"
        elif lag_ns < LAG_GONE_NS and is_key:
            stream.codec_context.skip_frame = "DEFAULT"


def _own_ns(timed: Packet[VideoStream] | VideoFrame) -> int | None:
    """Time of a coded or decoded picture in its stream's own time; None where it has none."""
    if timed.pts is None or timed.time_base is None:
        return None
    return round(timed.pts * timed.time_base * 10**9)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    return container.demux(stream)


def _reported_ns(packet: Packet[VideoStream]) -> int | None:
    """When the picture was taken by the camera's clock, from its sender reports; None before the first."""
    if not packet.has_sidedata("prft"):
        return None
    # AVProducerReferenceTime begins with UTC microseconds, in the machine's own byte order.
    return int(struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))[0]) * 1000


def file_shots(source: Source, fps_max: float) -> Iterator[Shot]:
    """Pictures of a video file in the order of their times, at most `fps_max` a second of the video.

    Raises:
        ConfigError: it is not stated when it began.
        FusionError: it is no video, or damaged.
    """
    try:
        with _video(source, {}) as (container, stream):
            if source.start_ns is None:
                # The time in a file is that of its end or its beginning, in whole seconds: too coarse for two cameras.
                made = terminal_text(container.metadata.get("creation_time", "2026-01-31T09:00:00.0Z")[:40])
                raise ConfigError(
                    f"{source.shown}: want the time of its first picture, to a hundredth of a second;"
                    f" add start = {made} to [cameras.{source.camera.name}]"
                )
            first_ns, due_ns = None, None
            for frame in container.decode(stream):
                own_ns = _own_ns(frame)
                if own_ns is None:
                    continue
                first_ns = own_ns if first_ns is None else first_ns
                t_ns = source.start_ns + own_ns - first_ns
                if due_ns is None or t_ns >= due_ns:
                    due_ns = next_due_ns(due_ns, t_ns, fps_max)
                    yield Shot(t_ns, frame)
    except Unreachable as error:
        raise FusionError(str(error)) from None


def next_due_ns(due_ns: int | None, t_ns: int, fps_max: float) -> int:
    """When the next picture is due after one that was taken at `t_ns`: on a grid, so that the mean rate is met.

    A picture that comes a little early for its place counts: a stream of exactly `fps_max` jitters.
    """
    period_ns = round(1e9 / fps_max)
    early_ns = period_ns // 4
    if due_ns is None or t_ns > due_ns + period_ns:
        return t_ns + period_ns - early_ns
    return due_ns + period_ns
