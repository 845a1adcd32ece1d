"""Small sets in their authors' form, made of a known scene: what is converted, run and scored is that scene."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from bench.public import belagiannis, clips, motchallenge, panoptic, peers, run, wildtrack
from bench.public.sets import find
from bench.public.task import HEAD_JOINTS, LIMB_JOINTS, Task, UnusableError
from bench.public.writing import START_NS, write_cameras
from fusion.errors import ConfigError
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.simulation.demo import demo_store
from fusion.store.layouts import LAYOUTS
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix

CAMERAS = demo_store(12, 40).cameras[:5]
# Projection matrices know no distortion.
PINHOLES = [camera.model_copy(update={"distortions": (0.0,) * 5}) for camera in CAMERAS]
N_FRAMES = 40


def walkers(n_frames: int, period_s: float) -> np.ndarray:
    """(n_frames, 2, 2) two people who walk to and fro, and pass each other at a metre."""
    t_s = np.arange(n_frames) * period_s
    along = 1.5 - 1.5 * np.cos(0.5 * t_s)
    return np.stack([np.stack([2.0 + along, 0 * t_s + 2.0], 1), np.stack([5.0 - along, 0 * t_s + 3.0], 1)], axis=1)


def body(place: np.ndarray) -> dict[str, np.ndarray]:
    """A standing person's joints."""
    heights = {"ankle": 0.09, "knee": 0.48, "hip": 0.9, "wrist": 0.9, "elbow": 1.1, "shoulder": 1.4, "ear": 1.58,
               "eye": 1.59}  # fmt: skip
    joints = {
        f"{side}_{name}": np.array([place[0] + off * (2 if name in ("wrist", "elbow") else 1), place[1], height])
        for side, off in (("l", 0.12), ("r", -0.12))
        for name, height in heights.items()
    }
    joints["nose"] = np.array([place[0], place[1] - 0.08, 1.56])
    joints["neck"] = np.array([place[0], place[1], 1.4])
    joints["mid_hip"] = np.array([place[0], place[1], 0.9])
    joints["chin"] = np.array([place[0], place[1], 1.49])
    joints["top"] = np.array([place[0], place[1] - 0.1, 1.63])
    return joints


def openpose(folder: Path, camera: Camera, frame: int, places: np.ndarray) -> None:
    """A file of OpenPose's form, with its keypoints in COCO's order as `coco17` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    rig = Rig.from_cameras([camera])
    people = []
    for place in places:
        joints = body(place)
        pixels = rig.project(np.stack([joints[name] for name in LAYOUTS["coco17"].joints]))[0]
        seen = np.isfinite(pixels[:, 0]) & (pixels >= 0).all(1) & (pixels < camera.size).all(1)
        rows = np.where(seen[:, None], np.column_stack([pixels, 0.9 * np.ones(len(pixels))]), 0.0)
        if seen.sum() > 8:
            people.append({"pose_keypoints_2d": rows.ravel().tolist()})
    (folder / f"frame_{frame:08d}_keypoints.json").write_text(json.dumps({"people": people}))


def png(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", *size) + bytes(9))


# ---- WILDTRACK -------------------------------------------------------------------------------------------------------


def opencv_xml(**values: np.ndarray) -> str:
    nodes = "".join(f"<{key}>{' '.join(map(str, value.ravel().tolist()))}</{key}>" for key, value in values.items())
    return f'<?xml version="1.0"?>\n<opencv_storage>{nodes}</opencv_storage>\n'


def wildtrack_set(folder: Path) -> tuple[Path, np.ndarray]:
    """Two people, seven cameras on a circle, a frame each half second as in the set."""
    places = walkers(N_FRAMES, 0.5)
    names = ["CVLab1", "CVLab2", "CVLab3", "CVLab4", "IDIAP1", "IDIAP2", "IDIAP3"]
    matrix = np.array([[1700.0, 0.0, 960.0], [0.0, 1700.0, 540.0], [0.0, 0.0, 1.0]])
    cameras = []
    for kind in ("intrinsic_zero", "extrinsic"):
        (folder / "calibrations" / kind).mkdir(parents=True)
    for i, name in enumerate(names):
        angle = 2 * np.pi * i / len(names)
        centre = np.array([3.5 + 9 * np.cos(angle), 2.5 + 9 * np.sin(angle), 2.5])
        forward = np.array([3.5, 2.5, 1.0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        import cv2

        vector = cv2.Rodrigues(rotation)[0]
        cameras.append((rotation, -rotation @ centre))
        numbers = matrix.ravel().tolist()
        (folder / "calibrations" / "intrinsic_zero" / f"intr_{name}.xml").write_text(
            '<?xml version="1.0"?>\n<opencv_storage><camera_matrix type_id="opencv-matrix"><rows>3</rows><cols>3</cols>'
            f"<dt>d</dt><data>{' '.join(map(str, numbers))}</data></camera_matrix>"
            '<distortion_coefficients type_id="opencv-matrix"><rows>5</rows><cols>1</cols><dt>d</dt>'
            "<data>0. 0. 0. 0. 0.</data></distortion_coefficients></opencv_storage>\n"
        )
        (folder / "calibrations" / "extrinsic" / f"extr_{name}.xml").write_text(
            opencv_xml(rvec=vector, tvec=-100 * rotation @ centre)
        )
    (folder / "annotations_positions").mkdir()
    for k, both in enumerate(places):
        rows = []
        for person, place in enumerate(both):
            column, row = round((place[0] + 3.0) / 0.025), round((place[1] + 9.0) / 0.025)
            views = []
            for view, (rotation, translation) in enumerate(cameras):
                foot, head = (matrix @ (rotation @ [*place, height] + translation) for height in (0.0, 1.7))
                (x, y1), y0 = (foot[:2] / foot[2]).round().astype(int).tolist(), round(head[1] / head[2])
                box = {"xmin": x - 30, "ymin": y0, "xmax": x + 30, "ymax": y1}
                if view == 6:
                    box = dict.fromkeys(box, -1)
                views.append({"viewNum": view, **box})
            rows.append({"personID": 7 + person, "positionID": row * 480 + column, "views": views})
        (folder / "annotations_positions" / f"{5 * k:08d}.json").write_text(json.dumps(rows))
    return folder, places


def test_wildtrack(tmp_path):
    folder, places = wildtrack_set(tmp_path / "Wildtrack_dataset")
    assert [known.name for known, *_ in find([tmp_path])] == ["WILDTRACK"]
    task = wildtrack.convert(folder, tmp_path / "out")
    assert task.detections == "annotated boxes"
    assert (np.diff(task.places.t_ns) == 500_000_000).all()
    np.testing.assert_allclose(np.stack(task.places.people_m), places, atol=0.0126)
    frames = list(Recording(task.recording).observations())
    assert len(frames) == 7 * N_FRAMES
    assert {len(frame.keypoints) for frame in frames if frame.camera == "IDIAP3"} == {0}, "-1 is not in view"
    row = run.run_task(task)
    assert row["moda"] > 90 and row["idf1"] > 90 and row["hota"] > 80
    others = {row["implementation"]: row["floor"] for row in peers.tracked(task, task.places)}
    assert all(score.n_people == 2 * N_FRAMES for score in others.values())
    assert next(score for name, score in others.items() if name.startswith("scipy ")).idf1 > 0.9


@pytest.mark.parametrize(
    "content, reason",
    [
        ("[]", None),
        ("{", "want a list of people"),
        ('[{"personID": 1}]', "want personID, positionID and views"),
        ('[{"personID": 1, "positionID": 691200, "views": []}]', "positionID: want 0 to 691199"),
        ('[{"personID": 1, "positionID": 5, "views": [{"viewNum": 9, "xmin": 1, "ymin": 1, "xmax": 2, "ymax": 2}]}]',
         "viewNum: want 0 to 6, got 9"),
    ],
)  # fmt: skip
def test_wildtrack_in_another_form(tmp_path, content, reason):
    folder, _ = wildtrack_set(tmp_path / "set")
    (folder / "annotations_positions" / "00000005.json").write_text(content)
    if reason is None:
        assert len(wildtrack.convert(folder, tmp_path / "out").places.people[1]) == 0
    else:
        with pytest.raises(UnusableError, match=reason):
            wildtrack.convert(folder, tmp_path / "out")


# ---- Panoptic --------------------------------------------------------------------------------------------------------

# Our world (x, y, z) is the dome's (x, z, -y) in metres; its own is in centimetres, y down.
DOME_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def panoptic_set(folder: Path) -> tuple[Path, np.ndarray]:
    places = walkers(N_FRAMES, 1 / 29.97)
    rows = []
    for i, camera in enumerate(CAMERAS):
        rotation = rotation_matrix(camera.rotation) @ DOME_FROM_WORLD.T
        rows.append({"name": f"00_{i:02d}", "type": "hd", "resolution": camera.size, "panel": 0, "node": i,
                     "K": camera.matrix, "distCoef": camera.distortions, "R": rotation.tolist(),
                     "t": [[100 * value] for value in camera.translation]})  # fmt: skip
    folder.mkdir(parents=True)
    (folder / f"calibration_{folder.name}.json").write_text(json.dumps({"calibDataSource": "x", "cameras": rows}))
    (folder / "hdPose3d_stage1_coco19").mkdir()
    names = ("neck nose mid_hip l_shoulder l_elbow l_wrist l_hip l_knee l_ankle r_shoulder r_elbow r_wrist r_hip "
             "r_knee r_ankle l_eye l_ear r_eye r_ear").split()  # fmt: skip
    for k, both in enumerate(places):
        bodies = []
        for person, place in enumerate(both):
            joints = np.stack([body(place)[name] for name in names]) @ DOME_FROM_WORLD.T * 100
            bodies.append({"id": 3 + person, "joints19": np.column_stack([joints, np.ones(19)]).ravel().tolist()})
        path = folder / "hdPose3d_stage1_coco19" / f"body3DScene_{100 + k:08d}.json"
        path.write_text(json.dumps({"version": 0.7, "univTime": 0.0, "fpsType": "hd_29_97", "bodies": bodies}))
        for i, camera in enumerate(CAMERAS):
            openpose(folder / "detections" / f"00_{i:02d}", camera, 100 + k, both)
    return folder, places


def test_panoptic(tmp_path):
    folder, places = panoptic_set(tmp_path / "171204_pose1")
    assert [known.name for known, *_ in find([tmp_path])] == ["Panoptic"]
    task = panoptic.convert(folder, tmp_path / "out")
    hips = task.poses.joints_m[:, :, task.poses.names.index("mid_hip")]
    np.testing.assert_allclose(hips[..., :2], places, atol=1e-6)
    np.testing.assert_allclose(hips[..., 2], 0.9, atol=1e-6)
    row = run.run_task(task)
    assert row["mpjpe_mm"] < 30 and row["joints_known"] > 85 and "pcp" not in row
    # Without noise every package that is installed finds the joints where they are.
    rows = list(peers.triangulations(task, task.poses, LAYOUTS["coco17"]))
    assert len(rows) >= 3
    for row in rows:
        assert row["pose"].mpjpe_mm < 1.0 and row["pose"].known > 0.8, row["implementation"]


def test_panoptic_has_no_detections_of_its_own(tmp_path):
    folder, _ = panoptic_set(tmp_path / "set")
    (folder / "detections").rename(folder / "elsewhere")
    with pytest.raises(UnusableError, match="want a file or folder for each of at least two cameras"):
        panoptic.convert(folder, tmp_path / "out")


# ---- Shelf and Campus ------------------------------------------------------------------------------------------------


def shelf_set(folder: Path) -> tuple[Path, np.ndarray]:
    from scipy.io import savemat

    first, last = 298, 298 + N_FRAMES
    places = walkers(last, 0.04)
    actors = np.empty((1, 2), object)
    for person in range(2):
        frames = np.empty((last, 1), object)
        for k in range(last):
            joints = body(places[k, person])
            known = np.stack([joints[name] for name in (*LIMB_JOINTS, *HEAD_JOINTS)])
            frames[k, 0] = known if k >= first else np.zeros((0, 0))
        actors[0, person] = frames
    folder.mkdir(parents=True)
    savemat(folder / "actorsGT.mat", {"actor3D": actors})
    rig = Rig.from_cameras(PINHOLES)
    matrices = np.empty((1, len(PINHOLES)), object)
    for view, camera in enumerate(PINHOLES):
        matrices[0, view] = -2.5 * rig.image_from_camera[view] @ rig.camera_from_world[view]
        png(folder / f"Camera{view}" / "img_000000.png", camera.size)
        for k in range(first - 10, last):
            openpose(folder / "detections" / f"Camera{view}", camera, k, places[k])
    # These bodies stand too straight for COCO's order to be distinguished from PoseTrack's.
    (folder / "detections" / "skeleton.txt").write_text("coco17\n")
    (folder / "Calibration").mkdir()
    savemat(folder / "Calibration" / "prjectionMat.mat", {"P": matrices})
    return folder, places


def test_shelf(tmp_path):
    folder, places = shelf_set(tmp_path / "Shelf")
    assert [known.name for known, *_ in find([tmp_path])] == ["Shelf and Campus"]
    task = belagiannis.convert(folder, tmp_path / "out")
    rig, true = Rig.from_cameras(Recording(task.recording).store.cameras), Rig.from_cameras(PINHOLES)
    np.testing.assert_allclose(rig.image_from_camera, true.image_from_camera, atol=1e-6)
    np.testing.assert_allclose(rig.camera_from_world, true.camera_from_world, atol=1e-9)
    # Frame 300 is the first that is scored.
    assert task.poses.t_ns[0] == START_NS + 12_000_000_000 and len(task.poses.t_ns) == N_FRAMES - 2
    chin = task.poses.joints_m[:, :, task.poses.names.index("chin"), :2]
    np.testing.assert_allclose(chin, places[300 : 298 + N_FRAMES], atol=1e-6)
    row = run.run_task(task)
    assert row["pcp"] > 90 and len(row["pcp_persons"]) == 2 and row["mpjpe_mm"] < 60


def test_shelf_without_pictures_or_cameras(tmp_path):
    folder, _ = shelf_set(tmp_path / "Shelf")
    (folder / "Camera3" / "img_000000.png").write_bytes(b"GIF89a")
    with pytest.raises(UnusableError, match=r"Camera3: want the camera's pictures \(\*.png\)"):
        belagiannis.convert(folder, tmp_path / "out")
    (folder / "actorsGT.mat").write_bytes(b"MATLAB 7.3, no longer")
    png(folder / "Camera3" / "img_000000.png", CAMERAS[3].size)
    with pytest.raises(UnusableError, match="want a MATLAB file"):
        belagiannis.convert(folder, tmp_path / "out")


# ---- clips without truth ---------------------------------------------------------------------------------------------


def test_clips_want_a_model_and_one_person(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSION_MODEL", raising=False)
    for name, reason in (("Demo_SinglePerson", "want a pose model"), ("Demo_MultiPerson", "several people")):
        for path in ("calibration/Calib.qca.txt", "videos/cam01.mp4"):
            (tmp_path / name / path).parent.mkdir(parents=True)
            (tmp_path / name / path).write_bytes(b"")
        with pytest.raises(UnusableError, match=reason):
            clips.convert(tmp_path / name, tmp_path / "out")
    assert [known.name for known, *_ in find([tmp_path])] == ["Pose2Sim's clips"] * 2


def test_a_camera_that_is_left_out_sees_where_the_others_point(tmp_path):
    layout, rig, random = LAYOUTS["coco17"], Rig.from_cameras(CAMERAS), np.random.default_rng(3)
    places, frames = walkers(12, 0.1)[:, 0], []
    for k, place in enumerate(places):
        pixels = rig.project(np.stack([body(place)[name] for name in layout.joints]))
        noisy = pixels + random.normal(0, 2.0, pixels.shape)
        for view, camera in enumerate(CAMERAS):
            seen = np.isfinite(noisy[view, :, :1])
            keypoints = np.where(seen, np.column_stack([noisy[view], np.full(layout.n_joints, 0.9)]), 0.0)
            frames.append(Frame(START_NS + k * 100_000_000, camera.name, keypoints[None].astype(np.float32)))
    recording = write_cameras(tmp_path / "r", "clip", CAMERAS, "coco17", frames, places)
    rows = list(peers.left_out(Task("clip", recording, "made", left_out=True)))
    assert len(rows) >= 3
    for row in rows:
        # 2 px in each direction in this camera, and what the others' noise adds.
        assert 2.0 < row["median_px"] < 6.0 and row["located"] > 90, row


# ---- MOTChallenge ----------------------------------------------------------------------------------------------------


def mot_set(folder: Path, calibrated: bool = True) -> tuple[Path, np.ndarray]:
    from fusion.files.cameras import save_calibration

    camera, rate_hz = CAMERAS[0], 10
    places = walkers(N_FRAMES, 1 / rate_hz)
    rig = Rig.from_cameras([camera])
    truth, detections = [], []
    for k, both in enumerate(places):
        for person, place in enumerate(both):
            (x, y1), (_, y0) = rig.project(np.array([[*place, 0.0], [*place, 1.7]]))[0]
            if not np.isfinite([x, y0, y1]).all():
                continue
            box = f"{x - 20:.2f},{y0:.2f},40,{y1 - y0:.2f}"
            truth.append(f"{k + 1},{person + 1},{box},1,{place[0]:.4f},{place[1]:.4f},0")
            detections.append(f"{k + 1},-1,{box},0.9,-1,-1,-1")
    for name, lines in (("gt", truth), ("det", detections)):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.txt").write_text("\n".join(lines) + "\n")
    width, height = camera.size
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={rate_hz}\nseqLength={N_FRAMES}\nimWidth={width}\n"
        f"imHeight={height}\nimExt=.jpg\n"
    )
    if calibrated:
        save_calibration(folder / "calibration.toml", [camera])
    return folder, places


def test_motchallenge(tmp_path):
    folder, places = mot_set(tmp_path / "PETS09-S2L1")
    assert [known.name for known, *_ in find([tmp_path])] == ["MOTChallenge"]
    task = motchallenge.convert(folder, tmp_path / "out")
    assert task.places.t_ns[0] == START_NS and (np.diff(task.places.t_ns) == 100_000_000).all()
    np.testing.assert_allclose(task.places.people_m[0][0], places[0, 0], atol=1e-3)
    frames = list(Recording(task.recording).observations())
    assert [frame.t_ns for frame in frames] == task.places.t_ns.tolist()
    # One camera: the engine starts a track from two views, and its score is what that is worth; the chain of NumPy
    # and SciPy puts feet on the floor.
    assert run.run_task(task)["moda"] == 0.0
    scipy = next(row for row in peers.tracked(task, task.places) if "velocity" in row["implementation"])
    assert scipy["floor"].idf1 > 0.9


@pytest.mark.parametrize(
    "file, content, reason",
    [
        ("gt/gt.txt", "1,1,5,5,20,50,1,-1,-1,-1\n", "2D sequences have boxes in a picture alone"),
        ("gt/gt.txt", "1,1,5,5,20,50,1,1,1\n", "want ten columns"),
        ("gt/gt.txt", "1,one,5,5,20,50,1,1,1,0\n", "gt.txt:1: want numbers between commas"),
        ("gt/gt.txt", "", "want at least one person"),
        ("seqinfo.ini", "[Sequence]\nframeRate=fast\n", "want frameRate"),
        ("seqinfo.ini", "[Sequence]\nframeRate=0\nimWidth=10\nimHeight=10\n", "> 0, got 0"),
        ("calibration.toml", None, "want the camera's calibration in one file"),
    ],
)  # fmt: skip
def test_motchallenge_of_another_kind(tmp_path, file, content, reason):
    folder, _ = mot_set(tmp_path / "seq", calibrated=content is not None)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises((UnusableError, ConfigError), match=reason):
        motchallenge.convert(folder, tmp_path / "out")


def test_what_cannot_be_run_is_listed(tmp_path, capsys):
    mot_set(tmp_path / "MOT17-02", calibrated=False)
    assert run.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "## Found, and not run" in out and "want the camera's calibration" in out
    assert "| WILDTRACK |" in out, "what is not at hand is listed, too"


# ---- junk ------------------------------------------------------------------------------------------------------------

MAKERS = {"wildtrack": wildtrack_set, "panoptic": panoptic_set, "belagiannis": shelf_set, "motchallenge": mot_set}
CONVERT = {"wildtrack": wildtrack.convert, "panoptic": panoptic.convert, "belagiannis": belagiannis.convert,
           "motchallenge": motchallenge.convert}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_junk_in_any_kind_of_file_is_refused_or_read(name, tmp_path):
    folder, _ = MAKERS[name](tmp_path / "set")
    random = np.random.default_rng(4)
    kinds: dict[tuple[str, str], Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        kinds.setdefault((re.sub(r"\d", "", path.parent.name), path.suffix), path)
    for number, path in enumerate(kinds.values()):
        whole = path.read_bytes()
        junk = [b"", b"\x00\xff" * 40, b"[1, 2", b"[]", b"null", whole[: len(whole) // 2],
                whole.replace(b"1", b"NaN", 3), whole.replace(b"0", b"99999999999999999999", 2),
                bytes(random.permutation(np.frombuffer(whole, np.uint8)))]  # fmt: skip
        for i, content in enumerate(junk):
            path.write_bytes(content)
            with contextlib.suppress(UnusableError, ConfigError):
                CONVERT[name](folder, tmp_path / f"out{number}-{i}")
        path.write_bytes(whole)
    assert len(kinds) >= 3 and CONVERT[name](folder, tmp_path / "whole").recording.is_dir()


def test_a_recording_with_a_broken_truth_is_listed(tmp_path, capsys):
    folder, _ = wildtrack_set(tmp_path / "set")
    recording = wildtrack.convert(folder, tmp_path / "out" / "r").recording
    (recording / "truth").mkdir()
    for file in ("poses.npz", "people.parquet"):
        (recording / "truth" / file).write_bytes(b"junk")
        assert run.main([str(tmp_path / "out"), "--no-peers"]) == 0
        assert "want the truth as docs/format.md has it" in capsys.readouterr().out
        (recording / "truth" / file).unlink()
    (recording / "truth" / "visits.jsonl").write_text("{")
    assert run.main([str(tmp_path / "out"), "--no-peers"]) == 0
    assert "want visits.jsonl or events.csv" in capsys.readouterr().out
