"""Video files to a recording by the command, and every file that cannot be used."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from coded_video import HEIGHT, WIDTH, model_bytes, picture_of

from fusion.commands.main import main
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.simulation import Scenario, Simulation, demo_store

av = pytest.importorskip("av", reason="the extra `detect` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")
pytest.importorskip("onnx", reason="the extra `tfjs` is not installed")

STORE = demo_store(n_cameras=2, n_plates=2)
NAMES = [camera.name for camera in STORE.cameras]
RATE_HZ = 10


def write_video(path: Path, frames: list[Frame]) -> None:
    """Frames as a video with B-frames, so that pictures do not come in the order of their times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE_HZ)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(picture_of(frame.keypoints, STORE.cameras[0].size), format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def frames() -> dict[str, list[Frame]]:
    scenario = Scenario(seed=5, minutes=0.6, shoppers=1, frame_rate_hz=RATE_HZ, ghosts_per_frame=0.5)
    found: dict[str, list[Frame]] = {name: [] for name in NAMES}
    for observation in Simulation(STORE, scenario).observations():
        if isinstance(observation, Frame):
            found[observation.camera].append(observation)
    some = {name: rows[60:140] for name, rows in found.items()}
    assert all(sum(len(frame.keypoints) for frame in rows) > 20 for rows in some.values())
    return some


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    STORE.save(tmp_path / "store")
    (tmp_path / "model.onnx").write_bytes(model_bytes())
    return tmp_path


def detect(folder: Path, cameras: str, head: str = "fps_max = 100\n") -> int:
    (folder / "detect.toml").write_text(f'{head}[model]\npath = "model.onnx"\nthreads = 1\n{cameras}')
    return main(["detect", str(folder / "store"), str(folder / "detect.toml"), "--record", str(folder / "recording")])


def test_files_become_a_recording(
    folder: Path, frames: dict[str, list[Frame]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "a.mp4", frames[NAMES[0]])
    write_video(folder / "b.mkv", frames[NAMES[1]][:60])
    cameras = f'[cameras.{NAMES[0]}]\nurl = "a.mp4"\nstart = 2026-01-01T11:00:00.5+01:00\n'
    cameras += f'[cameras.{NAMES[1]}]\nurl = "b.mkv"\nstart = 2026-01-01T10:00:01Z\n'
    assert detect(folder, cameras) == 0
    assert capsys.readouterr().out.startswith("140 pictures, ")
    rows = list(Recording(folder / "recording").frames())
    assert [frame.t_ns for frame in rows] == sorted(frame.t_ns for frame in rows)
    for name, start_ns, n in ((NAMES[0], 1_767_261_600_500_000_000, 80), (NAMES[1], 1_767_261_601_000_000_000, 60)):
        found = [frame for frame in rows if frame.camera == name]
        assert len(found) == n
        for number, (frame, original) in enumerate(zip(found, frames[name])):
            assert abs(frame.t_ns - (start_ns + number * 100_000_000)) < 1_000_000
            assert frame.keypoints.shape == original.keypoints.shape
            seen = original.keypoints[:, :, 2] > 0
            np.testing.assert_allclose(frame.keypoints[seen], original.keypoints[seen], atol=0.05)


def test_the_rate_of_files_is_limited(folder: Path, frames: dict[str, list[Frame]]) -> None:
    write_video(folder / "a.mp4", frames[NAMES[0]])
    cameras = f'[cameras.{NAMES[0]}]\nurl = "a.mp4"\nstart = 2026-01-01T10:00:01Z\n'
    assert detect(folder, cameras, "fps_max = 5\n") == 0
    times = [frame.t_ns for frame in Recording(folder / "recording").frames()]
    assert len(times) == 40 and set(np.diff(times)) == {200_000_000}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.mp4: "),
        (b"no video" * 1000, "a.mp4: invalid data found when processing input"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00"
         b"data\x00\x00\x00\x00", "a.mp4: want video, got none"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_refused(
    content: bytes, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.mp4").write_bytes(content)
    assert detect(folder, f'[cameras.{NAMES[0]}]\nurl = "a.mp4"\nstart = 2026-01-01T10:00:00Z\n') == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_file_without_a_time_is_asked_for_it(
    folder: Path, frames: dict[str, list[Frame]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(folder / "a.mkv", frames[NAMES[0]][:3])
    assert detect(folder, f'[cameras.{NAMES[0]}]\nurl = "a.mkv"\n') == 2
    error = capsys.readouterr().err
    assert "want the time of its first picture" in error
    assert "add start = 2026-01-31T09:00:00.0Z to [cameras.cam01]" in error


def test_a_file_that_is_cut_off_gives_what_it_has(folder: Path, frames: dict[str, list[Frame]]) -> None:
    write_video(folder / "whole.mkv", frames[NAMES[0]])
    content = (folder / "whole.mkv").read_bytes()
    (folder / "a.mkv").write_bytes(content[: len(content) // 2])
    detect(folder, f'[cameras.{NAMES[0]}]\nurl = "a.mkv"\nstart = 2026-01-01T10:00:00Z\n')
    assert 5 < len(list(Recording(folder / "recording").frames())) < 80
