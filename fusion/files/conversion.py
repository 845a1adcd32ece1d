"""A recording from what people have: keypoints or boxes for each camera, a table of weights, gate events.

Cameras' files say which frame a detection is of, not when it was. A frame's time follows from its number, the rate and
the start, or from a list of times. Everything is read and checked before anything is written.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.files.detections import Detections, read_detections
from fusion.files.lines import line_faults, parse_gate_line, parse_item_line
from fusion.files.private import open_regular, read_regular
from fusion.files.recordings import RecordingWriter
from fusion.files.streams import FAULTS_MAX
from fusion.files.weight_tables import load_weights
from fusion.observations import Frame, GateEvent, ItemSighting, Observation, ShelfReading, time_fault
from fusion.store.models import Store

# Files that omit images without people are completed; where that needs this many times as many images as there are,
# their numbers are no frames.
_GAPS_MAX = 1000
# Detectors that skip frames take one in a few.
_STEP_MAX = 100
# What tools put behind a camera's name for the folder of its files.
_ENDINGS = ("_json", "-json", "_keypoints", "_openpose", "_coco")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Also where pictures are named by their time in nanoseconds.
_FRAME_MAX = 1 << 62
_LINE_BYTES_MAX = 1 << 20
# A day of a camera's frames and times is 50 MB.
_TIMES_BYTES_MAX = 512 << 20
# A gate's scan may come before the first frame in which its person is seen.
_APART_NS = 60 * 10**9

_Line = TypeVar("_Line", GateEvent, ItemSighting)


@dataclass(frozen=True)
class Clock:
    """When a camera's frames were taken.

    Attributes:
        start_ns: UTC nanoseconds of the first frame; unused where times are given.
        rate_hz: frames a second; unused where times are given.
        first_frame: the number of the first frame.
        times_ns: UTC nanoseconds by the number of the frame, None where they follow from start and rate.
    """

    start_ns: int
    rate_hz: float
    first_frame: int = 0
    times_ns: Mapping[int, int] | None = None

    def t_ns(self, frame: int) -> int | None:
        """A frame's time; None where a list of times does not have it."""
        if self.times_ns is not None:
            return self.times_ns.get(frame)
        return self.start_ns + round((frame - self.first_frame) * 1e9 / self.rate_hz)


@dataclass
class Conversion:
    """What a recording is made of, and what was decided on the way.

    Attributes:
        store: the store of the recording.
        frames, readings, scans, sightings: in order of time.
        decisions: sentences about what the files do not state, with the cameras of each.
        added: frames without people that were added, by camera.
        passed_over: what was left out, counted by the reason.
    """

    store: Store
    frames: list[Frame] = field(default_factory=list)
    readings: list[ShelfReading] = field(default_factory=list)
    scans: list[GateEvent] = field(default_factory=list)
    sightings: list[ItemSighting] = field(default_factory=list)
    decisions: dict[str, list[str]] = field(default_factory=dict)
    added: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)

    def write(self, folder: str | Path) -> None:
        """Write the recording.

        Raises:
            ConfigError: the folder holds something already.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already; pass a new or an empty folder")
        streams: tuple[Sequence[Observation], ...] = (self.frames, self.readings, self.scans, self.sightings)
        with RecordingWriter(folder, self.store) as writer:
            for stream in streams:
                for observation in stream:
                    writer.write(observation)

    def warnings(self) -> list[str]:
        """What makes the recording useless although every file was read: nothing of one at the time of the other."""
        found = []
        spans = {
            "frames": [f.t_ns for f in (self.frames[:1] + self.frames[-1:])],
            "weights": [r.t_ns for r in (self.readings[:1] + self.readings[-1:])],
            "gate events": [s.t_ns for s in (self.scans[:1] + self.scans[-1:])],
        }
        for name, span in spans.items():
            others = [t for other, pair in spans.items() for t in pair if other != name]
            if span and others and (span[1] < min(others) - _APART_NS or span[0] > max(others) + _APART_NS):
                found.append(f"{name} are from {instant(span[0])} to {instant(span[1])}, at another time than the rest")
        return found


def convert_cameras(
    conversion: Conversion,
    paths: Mapping[str, Path],
    clocks: Mapping[str, Clock],
    *,
    skeleton: str | None = None,
    person: str | None = None,
) -> None:
    """Add the frames of all cameras.

    Args:
        conversion: takes them.
        paths: of the detections of each camera, by its name; as `load_detections` takes them.
        clocks: of each camera.
        skeleton: the order of keypoints, where files do not state it and it is not to be found out.
        person: name or number of people's category, where it is none of the usual.

    Raises:
        ConfigError: files that cannot be read, or numbers that are no frames.
    """
    store = conversion.store
    sizes = {camera.name: (float(camera.size[0]), float(camera.size[1])) for camera in store.cameras}
    files = dict.fromkeys(paths.values())
    sizes_of = [{sizes[name] for name in paths if paths[name] == file} for file in files]
    known = [next(iter(several)) if len(several) == 1 else None for several in sizes_of]
    found = read_detections(list(files), store.layout, skeleton=skeleton, person=person, sizes_px=known)
    by_file = dict(zip(files, found))
    by_camera = {name: by_file[path] for name, path in paths.items()}
    if len(files) < len(paths):
        by_camera = {name: _of_camera(name, by_file[path]) for name, path in paths.items()}
        by_camera = {name: one for name, one in by_camera.items() if one.pictures}
        if not by_camera:
            raise ConfigError("want the camera's name as a folder in the name of each picture, got none of the store's")
    faults: list[str] = []
    numbered = {name: _numbered(name, found, clocks[name], faults) for name, found in by_camera.items()}
    if faults:
        raise ConfigError(faults[:FAULTS_MAX])
    _complete(numbered, by_camera, clocks, store.layout.n_joints, conversion)
    for name, people_of in numbered.items():
        for frame, people in sorted(people_of.items()):
            t_ns = clocks[name].t_ns(frame)
            if t_ns is None:
                conversion.passed_over[f"{name}: frames without a time"] += 1
            elif time_fault(t_ns):
                raise ConfigError(f"{name}: frame {frame}: {time_fault(t_ns)}")
            else:
                conversion.frames.append(Frame(t_ns, name, people))
        for decision in by_camera[name].decisions:
            conversion.decisions.setdefault(decision, []).append(name)
    conversion.frames.sort(key=lambda frame: (frame.t_ns, frame.camera))
    for path, one in by_file.items():
        name = ", ".join(name for name in paths if paths[name] == path)
        conversion.passed_over.update({f"{name}: {reason}": n for reason, n in one.passed_over.items()})


def _of_camera(camera: str, found: Detections) -> Detections:
    """The pictures of one camera, in a file of several: those in a folder of its name, as in cam01/000012.jpg."""
    mine = [name for name in found.pictures if camera in name.replace("\\", "/").split("/")[:-1]]
    pictures = {name: found.pictures[name] for name in mine}
    return replace(found, pictures=pictures, frames={name: found.frames[name] for name in mine})


def _numbered(camera: str, found: Detections, clock: Clock, faults: list[str]) -> dict[int, np.ndarray]:
    """A camera's detections by the number of the frame."""
    numbered: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    for name, people in found.pictures.items():
        frame = found.frames[name]
        if frame is None:
            faults.append(f"{camera}: want the number of its frame in the name of each picture, got {name!r}")
        elif frame >= _FRAME_MAX:
            faults.append(f"{camera}: want numbers of frames below 2^62, got {name[:40]!r}")
        elif frame in numbered:
            faults.append(f"{camera}: want each frame once, got {frame} as {names[frame]!r} and as {name!r}")
        elif clock.times_ns is None and frame < clock.first_frame:
            faults.append(f"{camera}: want frames from {clock.first_frame} on (--first-frame), got {frame} ({name!r})")
        else:
            numbered[frame], names[frame] = people, name
    return numbered


def _complete(
    numbered: Mapping[str, dict[int, np.ndarray]],
    by_camera: Mapping[str, Detections],
    clocks: Mapping[str, Clock],
    n_joints: int,
    conversion: Conversion,
) -> None:
    """Add the frames in which there was no person to cameras whose files omit them."""
    sparse = [name for name, found in by_camera.items() if not found.complete]
    frames = {frame for people_of in numbered.values() for frame in people_of}
    if not sparse or not frames:
        return
    every = int(np.gcd.reduce(np.diff(sorted(frames)))) if len(frames) > 1 else 1
    for name in sparse:
        times_ns = clocks[name].times_ns
        # The first image may have been without people, so counting starts with the clock, in step with the others.
        start = clocks[name].first_frame
        first = start + (min(frames) - start) % every
        wanted = range(first, max(frames) + 1, every) if times_ns is None else sorted(times_ns)
        if every > _STEP_MAX or len(wanted) > _GAPS_MAX * len(frames):
            got = f"{min(frames)} to {max(frames)} for {len(frames)} of them"
            raise ConfigError(f"{name}: want numbers of frames, got {got}; give their times with --times {name}=FILE")
        empty = [frame for frame in wanted if frame not in numbered[name]]
        numbered[name].update((frame, np.zeros((0, n_joints, 3), np.float32)) for frame in empty)
        if empty:
            steps = "every frame" if every == 1 else f"one frame in {every}"
            text = f"the files omit images without people; those of {steps} from {wanted[0]} to {wanted[-1]} were added"
            conversion.decisions.setdefault(text, []).append(name)
            conversion.added[name] = len(empty)


def convert_weights(conversion: Conversion, path: str | Path) -> None:
    """Add the weights of `load_weights`. Raises ConfigError as that does."""
    conversion.readings = load_weights(path, conversion.store, conversion.passed_over)


def convert_gate(conversion: Conversion, path: str | Path) -> None:
    """Add the gate events of a file of lines as in a recording's gate.jsonl, in any order.

    Raises:
        ConfigError: with every line that is wrong, or the file cannot be read.
    """
    conversion.scans = _lines(Path(path), parse_gate_line)


def convert_items(conversion: Conversion, path: str | Path) -> None:
    """Add other evidence about goods, lines as in a recording's items.jsonl, in any order.

    Raises:
        ConfigError: with every line that is wrong, or the file cannot be read.
    """
    conversion.sightings = _lines(Path(path), parse_item_line)


def _lines(path: Path, parse: Callable[[bytes], _Line]) -> list[_Line]:
    found: list[_Line] = []
    faults: list[str] = []
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; pass a file of JSON lines")
    with open_regular(path) as file:
        for row, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), 1):
            if line.strip():
                try:
                    found.append(parse(line))
                except ValidationError as error:
                    faults.append(f"{path.name}:{row}: {line_faults(error)}")
            if len(faults) == FAULTS_MAX:
                break
    if faults:
        raise ConfigError(faults)
    return sorted(found, key=lambda observation: observation.t_ns)


def camera_paths(keypoints: Path | None, named: Mapping[str, Path], conversion: Conversion) -> dict[str, Path]:
    """Where each camera's detections are.

    Args:
        keypoints: a folder with a file or a folder for each camera, under its name; or a file of all cameras, with the
            camera as a folder in the name of each picture; None for none.
        named: paths by the camera's name, which come before what the folder has.
        conversion: has the store, and takes what was passed over.

    Raises:
        ConfigError: a name that is no camera of the store, or a folder without any of them.
    """
    cameras = [camera.name for camera in conversion.store.cameras]
    for name in named:
        if name not in cameras:
            raise ConfigError(f"--camera {name}: want a camera of the store ({_some(cameras)}), got {name!r}")
    found = dict(named)
    if keypoints is not None:
        if not keypoints.exists():
            raise ConfigError(f"{keypoints} does not exist")
        if keypoints.is_file():
            return {name: found.get(name, keypoints) for name in cameras}
        for path in sorted(keypoints.iterdir()):
            name = path.stem if path.is_file() else path.name
            for ending in _ENDINGS:
                name = name.removesuffix(ending)
            if path.name.startswith(".") or name in named:
                continue
            if name not in cameras:
                conversion.passed_over[f"{path.name}: not named as a camera of the store"] += 1
            elif name in found:
                several = f"{found[name].name} and {path.name}"
                raise ConfigError(f"{keypoints}: want one file or folder for {name}, got {several}")
            else:
                found[name] = path
    if not found:
        raise ConfigError(
            f"{keypoints}: want files or folders named as the store's cameras ({_some(cameras)}), got none; "
            "name them, or give each with --camera NAME=PATH"
        )
    return {name: found[name] for name in cameras if name in found}


def load_times(path: str | Path, first_frame: int) -> dict[int, int]:
    """Times of frames from a CSV file with the columns `frame` and `time`, or `time` alone for consecutive frames.

    Args:
        path: the file; times are UTC nanoseconds since 1970, or ISO 8601 with a time zone.
        first_frame: the number of the first one, where the file gives no numbers.

    Raises:
        ConfigError: with every row that is wrong.
    """
    path = Path(path)
    times: dict[int, int] = {}
    faults: list[str] = []
    try:
        text = read_regular(path, _TIMES_BYTES_MAX, "times").decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: the file cannot be read: {error}") from None
    for row, cells in enumerate(rows):
        try:
            frame = int(cells["frame"]) if "frame" in cells else first_frame + row
            t_ns = parse_instant(cells.get("time") or "")
        except (ValueError, TypeError) as error:
            faults.append(f"{path.name}:{row + 2}: {error}")
        else:
            if frame in times:
                faults.append(f"{path.name}:{row + 2}: want each frame once, got {frame} again")
            times[frame] = t_ns
        if len(faults) >= FAULTS_MAX:
            break
    if faults:
        raise ConfigError(faults)
    if not times:
        raise ConfigError(f"{path.name}: want the columns frame and time, got no rows")
    return times


def parse_instant(text: str) -> int:
    """UTC nanoseconds of ISO 8601 with a time zone, or of the number itself. Raises ConfigError."""
    text = text.strip()
    try:
        if text.lstrip("-").isdecimal():
            t_ns = int(text)
        else:
            # A time without a zone has no difference to one with a zone.
            t_ns = (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError, OverflowError):
        wanted = "UTC nanoseconds, or a time with its zone such as 2026-11-30T09:00:00Z"
        raise ConfigError(f"time: want {wanted}, got {text[:40]!r}") from None
    fault = time_fault(t_ns)
    if fault:
        raise ConfigError(f"time: {fault}")
    return t_ns


def instant(t_ns: int) -> str:
    """A time for people to read: ISO 8601 in UTC, to the millisecond."""
    return (_EPOCH + timedelta(microseconds=t_ns // 1000)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"
