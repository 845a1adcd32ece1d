"""`fusion calibration` reads another tool's files, writes what was asked for, and names the source of each value."""

from __future__ import annotations

from pathlib import Path

import pytest
from files.test_cameras import CAMERAS, assert_same_cameras, write_easymocap

from fusion.commands.main import main
from fusion.files.cameras import load_calibration
from fusion.setup.intrinsics import load_intrinsics

pytest.importorskip("cv2")


def test_easymocap_becomes_a_store_s_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_easymocap(tmp_path)
    out = tmp_path / "cameras.toml"
    assert main(["calibration", str(tmp_path / "intri.yml"), str(tmp_path / "extri.yml"), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "read: OpenCV, EasyMocap, EasyVolcap or Wildtrack"
    lens = "focal length 1100.0 1090.0 px, centre 955.0 545.0, five coefficients"
    assert lines[1] == f"a: 1920 x 1080, {lens}, at 0.00 0.00 2.60 m"
    assert "  matrix      K_a in intri.yml" in lines and "  rotation    R_a in extri.yml" in lines
    assert lines[-1] == f"written: {out}"
    assert [camera.size for camera in load_calibration(out)] == [(1920, 1080)] * 3


def test_to_nvidia_s_tools_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fusion.files.cameras import save_calibration

    save_calibration(tmp_path / "cameras.toml", CAMERAS)
    for to, name in (("mv3dt", "a.yml"), ("automagiccalib", "camInfo_00.yaml")):
        out = tmp_path / to
        assert main(["calibration", str(tmp_path / "cameras.toml"), "--to", to, "--out", str(out)]) == 0
        assert (out / name).is_file()
        text = capsys.readouterr().out
        assert f"note: {to} has no lens, so its pictures of a have to be undistorted before" in text
        back = tmp_path / f"{to}.toml"
        assert main(["calibration", str(out), "--out", str(back), "--size", "1920", "1080"]) == 0
        straight = [camera.model_copy(update={"distortions": (0.0,) * 5}) for camera in CAMERAS]
        read = [c.model_copy(update={"name": s.name}) for c, s in zip(load_calibration(back), straight)]
        assert_same_cameras(tuple(read), tuple(straight))
        capsys.readouterr()


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "..", ".a", "a/b", "a\\b", "c:a", "a" * 202])
def test_no_name_of_a_camera_leads_out_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from fusion.files.cameras import save_calibration

    save_calibration(tmp_path / "cameras.toml", [CAMERAS[0].model_copy(update={"name": name}), *CAMERAS[1:]])
    out = tmp_path / "deep" / "out"
    assert main(["calibration", str(tmp_path / "cameras.toml"), "--to", "mv3dt", "--out", str(out)]) == 2
    assert "want a name of letters, digits" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["cameras.toml"]


def test_intrinsics_alone_and_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_easymocap(tmp_path)
    intri, out = str(tmp_path / "intri.yml"), tmp_path / "lenses.toml"
    assert main(["calibration", intri, "--out", str(out)]) == 2
    assert "want a rotation from world to camera" in capsys.readouterr().err
    assert not out.exists()
    assert main(["calibration", intri, "--out", str(out), "--intrinsics"]) == 0
    assert [camera.name for camera in load_intrinsics(out)] == ["a", "b", "c"]
    assert main(["calibration", intri, "--out", str(out), "--intrinsics", "--to", "mv3dt"]) == 2
    assert main(["calibration", intri, "--out", str(tmp_path), "--intrinsics"]) == 2
    assert main(["calibration", intri, "--out", str(out), "--size", "0", "5"]) == 2
    err = capsys.readouterr().err
    assert "needs poses" in err and "is a folder" in err and "is no picture" in err
