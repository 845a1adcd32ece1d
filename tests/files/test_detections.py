"""Detections of every source end at the joint of the same name, whatever its order was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fusion.errors import ConfigError, ShapeError
from fusion.files.detections import boxes_to_layout, from_ultralytics, load_detections, to_layout
from fusion.store.layouts import LAYOUTS, Layout

COCO, BODY, BOX = LAYOUTS["coco17"], LAYOUTS["body25"], LAYOUTS["box2"]
LAYOUT_PAIRS = [(a, b) for a in (COCO, BODY) for b in (COCO, BODY)]
LONG = {"l": "left", "r": "right"}

# Every joint has a place of its own, so a joint that lands on another one's row shows.
PLACES = {
    joint: (10.0 + 7 * i, 500.0 - 3 * i, 0.5 + 0.01 * i)
    for i, joint in enumerate(dict.fromkeys(COCO.joints + BODY.joints))
}


def person(joints: tuple[str, ...], shift: float = 0.0) -> np.ndarray:
    return np.array([PLACES[joint] for joint in joints]) + np.array([shift, shift, 0.0])


def assert_in_place(keypoints: np.ndarray, layout: Layout, source: tuple[str, ...], shift: float = 0.0) -> None:
    assert keypoints.dtype == np.float32 and keypoints.shape == (layout.n_joints, 3)
    for joint, row in zip(layout.joints, keypoints):
        if joint in source:
            assert_allclose(row, person((joint,), shift)[0], rtol=1e-6, err_msg=joint)
        elif joint in ("neck", "mid_hip"):
            sides = person(("l_shoulder", "r_shoulder") if joint == "neck" else ("l_hip", "r_hip"), shift)
            assert_allclose(row, [*sides[:, :2].mean(axis=0), sides[:, 2].min()], rtol=1e-6)
        else:
            assert_array_equal(row, 0.0)


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def faults(path: Path, layout: Layout = COCO) -> str:
    with pytest.raises(ConfigError) as caught:
        load_detections(path, layout)
    return "\n".join(caught.value.faults)


# ---- arrays ----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(LAYOUT_PAIRS), st.randoms(use_true_random=False), st.integers(0, 4))
def test_order_of_the_source_does_not_matter(pair: tuple[Layout, Layout], random: Any, n_people: int) -> None:
    source, target = pair
    joints = list(source.joints)
    random.shuffle(joints)
    keypoints = np.array([person(tuple(joints), 3.0 * i) for i in range(n_people)]).reshape(-1, len(joints), 3)
    mapped = to_layout(keypoints, joints, target)
    assert mapped.shape == (n_people, target.n_joints, 3)
    for i, row in enumerate(mapped):
        assert_in_place(row, target, source.joints, 3.0 * i)


@pytest.mark.parametrize(
    "spell",
    [
        lambda j: "_".join([LONG.get(j[0], j[0]), j[2:]]) if j[1] == "_" else j,
        lambda j: f"{LONG[j[0]].title()} {j[2:]}" if j[1] == "_" else j,
        lambda j: (
            f"{j[0].upper()}{j[2:].title().replace('_', '')}"
            if j[1] == "_"
            else {"mid_hip": "MidHip"}.get(j, j.title())
        ),
        lambda j: "pelvis" if j == "mid_hip" else j.replace("_", "-").upper() if j[1] == "_" else j,
    ],
    ids=["left_hip", "Left hip", "LHip", "L-HIP"],
)
def test_spellings_of_joint_names(spell: Any) -> None:
    mapped = to_layout(person(BODY.joints)[None], [spell(j) for j in BODY.joints], BODY)
    assert_in_place(mapped[0], BODY, BODY.joints)


def test_unseen_joints_and_scores_out_of_range() -> None:
    keypoints = person(COCO.joints)[None]
    keypoints[0, 0] = np.nan
    keypoints[0, 1, :2] = 0.0
    keypoints[0, 2, 2] = -0.3
    keypoints[0, 3, 2] = 1.7
    keypoints[0, COCO.index("l_hip"), 2] = 0.0
    before = keypoints.copy()
    mapped = to_layout(keypoints, COCO.joints, BODY)[0]
    assert_array_equal(keypoints, before)
    assert_array_equal(mapped[list(BODY.indices("nose", "l_eye", "r_eye", "l_hip", "mid_hip"))], 0.0)
    assert mapped[BODY.index("l_ear"), 2] == 1.0
    assert mapped[BODY.index("neck"), 2] > 0.0


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"want \(n_people, 17, 3\), got \(1, 25, 3\)"):
        to_layout(person(BODY.joints)[None], COCO.joints, COCO)
    with pytest.raises(ShapeError, match="want numbers in a regular array"):
        to_layout([[1, 2], [3]], COCO.joints, COCO)
    with pytest.raises(ConfigError, match="want joints of coco17"):
        to_layout(np.ones((1, 2, 3)), ["left_fin", "right_fin"], COCO)
    with pytest.raises(ConfigError, match="want pixels, got fractions of the picture"):
        to_layout(person(COCO.joints)[None] / [1920, 1080, 1], COCO.joints, COCO)


class Tensor:
    """As much of a tensor as matters: it has to be detached and fetched before NumPy may have it."""

    def __init__(self, values: np.ndarray, where: str = "cuda") -> None:
        self.values, self.where = values, where

    def detach(self) -> Tensor:
        return Tensor(self.values, "cuda, detached")

    def cpu(self) -> Tensor:
        return Tensor(self.values, self.where.replace("cuda", "cpu"))

    def numpy(self) -> np.ndarray:
        assert self.where == "cpu, detached"
        return self.values


def test_ultralytics_keypoints_and_boxes() -> None:
    data = np.stack([person(COCO.joints), person(COCO.joints, 5.0)]).astype(np.float32)
    for keypoints in (data, Tensor(data)):
        mapped = from_ultralytics(keypoints, BODY)
        assert_in_place(mapped[1], BODY, COCO.joints, 5.0)
    apart = from_ultralytics(Tensor(data[:, :, :2]), BODY, conf=Tensor(data[:, :, 2]))
    assert_array_equal(apart, mapped)
    boxes = np.array([[100.0, 50, 140, 250, 0.9, 0], [300, 60, 340, 260, 0.8, 0]])
    tracked = np.insert(boxes, 4, [7, 8], axis=1)
    for rows in (boxes, tracked):
        assert_allclose(from_ultralytics(None, BOX, boxes=rows)[0], [[120, 50, 0.9], [120, 250, 0.9]])
    assert from_ultralytics(None, COCO).shape == from_ultralytics(np.zeros((0, 17, 3)), COCO).shape == (0, 17, 3)
    assert from_ultralytics(None, BOX, boxes=np.zeros((0, 6))).shape == (0, 2, 3)


def test_ultralytics_faults() -> None:
    with pytest.raises(ShapeError, match="conf: want"):
        from_ultralytics(np.ones((1, 17, 2)), COCO)
    with pytest.raises(ShapeError, match=r"conf: want \(1, 17\), got \(17,\)"):
        from_ultralytics(np.ones((1, 17, 2)), COCO, conf=np.ones(17))
    with pytest.raises(ShapeError, match=r"got \(1, 4\)"):
        from_ultralytics(None, BOX, boxes=np.ones((1, 4)))
    with pytest.raises(ConfigError, match="width, height"):
        boxes_to_layout([[500, 100, 40, 200]], [0.5], BOX)
    with pytest.raises(ConfigError, match="want the layout box2, got coco17"):
        boxes_to_layout([[0, 0, 4, 4]], [0.5], COCO)


# ---- OpenPose --------------------------------------------------------------------------------------------------------

COCO18 = (
    *("nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist", "r_hip", "r_knee"),
    *("r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear", "l_ear"),
)


def openpose(*people: np.ndarray) -> dict[str, Any]:
    rows = [{"person_id": [-1], "pose_keypoints_2d": one.ravel().tolist(), "face_keypoints_2d": []} for one in people]
    return {"version": 1.3, "people": rows}


@pytest.mark.parametrize("source", [BODY.joints, COCO18], ids=["BODY_25", "COCO-18"])
@pytest.mark.parametrize("target", [COCO, BODY], ids=lambda layout: layout.name)
def test_openpose_folder(tmp_path: Path, source: tuple[str, ...], target: Layout) -> None:
    write(tmp_path / "c_000000000001_keypoints.json", openpose())
    write(tmp_path / "c_000000000000_keypoints.json", openpose(person(source), person(source, 9.0)))
    read = load_detections(tmp_path, target)
    assert list(read) == ["c_000000000000", "c_000000000001"]
    assert read["c_000000000001"].shape == (0, target.n_joints, 3)
    assert_in_place(read["c_000000000000"][1], target, source, 9.0)


def test_openpose_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", openpose(person(COCO.joints), person(BODY.joints), person(COCO18)))
    messages = faults(path)
    assert "x.json: people[0].pose_keypoints_2d: want 75 numbers (BODY_25) or 54 (COCO-18), got 51 numbers" in messages
    assert "people[2].pose_keypoints_2d: want one skeleton throughout a file, got two" in messages
    document = openpose(person(BODY.joints))
    document["people"][0]["pose_keypoints_2d"][4] = "left"
    document["people"].append({"pose_keypoints": []})
    messages = faults(write(path, document))
    assert "people[0]" in messages and "people[1].pose_keypoints_2d: want 75 numbers" in messages
    assert "want boxes for the layout box2" in faults(path, BOX)
    assert "fractions of the picture" in faults(write(path, openpose(person(BODY.joints) / [1920, 1080, 1])))


# ---- COCO ------------------------------------------------------------------------------------------------------------


def coco_results(joints: tuple[str, ...] = COCO.joints) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": 1,
            "keypoints": person(joints, shift).ravel().tolist(),
            "score": 0.9,
            "bbox": [100, 50, 40, 200],
        }
        for image, shift in ((4, 0.0), (2, 1.0), (4, 2.0))
    ]


@pytest.mark.parametrize("target", [COCO, BODY], ids=lambda layout: layout.name)
def test_coco_results(tmp_path: Path, target: Layout) -> None:
    read = load_detections(write(tmp_path / "x.json", coco_results()), target)
    assert [(name, len(people)) for name, people in read.items()] == [("4", 2), ("2", 1)]
    assert_in_place(read["4"][1], target, COCO.joints, 2.0)
    boxes = load_detections(tmp_path / "x.json", BOX)
    assert_allclose(boxes["2"], [[[120, 50, 0.9], [120, 250, 0.9]]])


def test_coco_annotations_name_their_joints(tmp_path: Path) -> None:
    names = [f"{LONG[j[0]]}{j[1:]}" if j[1] == "_" else j for j in BODY.joints[::-1]]
    keypoints = person(BODY.joints[::-1])
    keypoints[:, 2] = 2
    keypoints[0, 2] = 1
    keypoints[1] = 0
    document = {
        "images": [{"id": 7, "file_name": "seven.jpg"}, {"id": 8, "file_name": "eight.jpg"}],
        "categories": [{"id": 3, "name": "person", "keypoints": names, "skeleton": []}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "keypoints": keypoints.ravel().tolist(), "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": {}},
        ],
    }
    read = load_detections(write(tmp_path / "x.json", document), BODY)
    assert list(read) == ["seven.jpg", "eight.jpg"] and len(read["eight.jpg"]) == 0
    (one,) = read["seven.jpg"]
    assert_array_equal(one[BODY.index(BODY.joints[::-1][1])], 0.0)
    assert_allclose(one[BODY.index("nose")], [*PLACES["nose"][:2], 1.0])
    assert one[BODY.index(BODY.joints[::-1][0]), 2] == 0.5


def test_coco_faults(tmp_path: Path) -> None:
    rows = coco_results()
    rows[0]["keypoints"] = rows[0]["keypoints"][:-3]
    del rows[1]["keypoints"]
    rows.append({"image_id": None})
    messages = faults(write(tmp_path / "x.json", rows))
    assert "[0].keypoints: want 51 numbers (COCO-17), or joints named in categories, got 48 numbers" in messages
    assert "[1].keypoints" in messages and "[3]: want an object with image_id" in messages
    rows = coco_results()
    rows[0]["bbox"], rows[1]["score"], rows[2]["bbox"] = [1, 2], "high", [100, 50, -40, 200]
    messages = faults(write(tmp_path / "x.json", rows), BOX)
    assert "[0].bbox: want 4 x 1 numbers, got 2" in messages and "[1].score: want a number" in messages
    assert "want x0 <= x1" in messages
    document = {"images": [{"id": 1, "file_name": "a"}], "annotations": coco_results()[:1]}
    assert "annotations[0].image_id: want one of images, got 4" in faults(write(tmp_path / "x.json", document))


# ---- MMPose ----------------------------------------------------------------------------------------------------------

HALPE26 = (
    *COCO.joints,
    "head",
    "neck",
    "hip",
    "left_big_toe",
    "right_big_toe",
    "left_small_toe",
    "right_small_toe",
    "left_heel",
    "right_heel",
)


def instance(keypoints: np.ndarray) -> dict[str, Any]:
    return {
        "keypoints": keypoints[:, :2].tolist(),
        "keypoint_scores": keypoints[:, 2].tolist(),
        "bbox": [[100.0, 50.0, 140.0, 250.0]],
        "bbox_score": 0.75,
    }


def halpe() -> np.ndarray:
    known = {"hip": "mid_hip"} | {f"{LONG[s]}_{p}": f"{s}_{p}" for s in "lr" for p in ("big_toe", "small_toe", "heel")}
    return np.array([PLACES.get(known.get(joint, joint), (900.0, 900.0, 0.3)) for joint in HALPE26])


def test_mmpose_picture_film_and_bare_list(tmp_path: Path) -> None:
    people = [instance(person(COCO.joints)), instance(person(COCO.joints, 4.0))]
    documents = {
        "demo": {"meta_info": {}, "instance_info": people},
        "bare": people,
        "answer": {"predictions": [people]},
    }
    for name, document in documents.items():
        (read,) = load_detections(write(tmp_path / f"{name}.json", document), BODY).items()
        assert read[0] == name
        assert_in_place(read[1][1], BODY, COCO.joints, 4.0)
    film = [{"frame_id": 1, "instances": people}, {"frame_id": 2, "instances": []}]
    for document in ({"meta_info": None, "instance_info": film}, film):
        frames = load_detections(write(tmp_path / "film.json", document), COCO)
        assert [(name, len(rows)) for name, rows in frames.items()] == [("1", 2), ("2", 0)]
    boxes = load_detections(tmp_path / "film.json", BOX)
    assert_allclose(boxes["1"][0], [[120, 50, 0.75], [120, 250, 0.75]])


def test_mmpose_names_and_known_orders(tmp_path: Path) -> None:
    (one,) = load_detections(write(tmp_path / "x.json", [instance(halpe())]), BODY)["x"]
    assert_in_place(one, BODY, BODY.joints)
    names = [f"{LONG[j[0]]}{j[1:]}" if j[1] == "_" else j for j in BODY.joints]
    meta = {"keypoint_id2name": {str(i): name for i, name in reversed(list(enumerate(names)))}}
    document = {"meta_info": meta, "instance_info": [instance(person(BODY.joints))]}
    (one,) = load_detections(write(tmp_path / "x.json", document), BODY)["x"]
    assert_in_place(one, BODY, BODY.joints)
    whole = np.full((133, 3), 700.0)
    feet = ("l_big_toe", "l_small_toe", "l_heel", "r_big_toe", "r_small_toe", "r_heel")
    whole[:23] = person(COCO.joints + feet)
    (one,) = load_detections(write(tmp_path / "x.json", [instance(whole)]), BODY)["x"]
    assert_in_place(one, BODY, COCO.joints + feet)


def test_mmpose_faults(tmp_path: Path) -> None:
    messages = faults(write(tmp_path / "x.json", [instance(person(BODY.joints))]))
    assert "instance_info[0].keypoints: want 17, 26 or 133 joints, or names in meta_info, got 25" in messages
    bad = [instance(person(COCO.joints)) for _ in range(3)]
    bad[0]["keypoint_scores"].pop()
    bad[1]["keypoints"] = [[x, y, 1.0] for x, y in bad[1]["keypoints"]]
    bad[2] = {"instances": 3}
    messages = faults(write(tmp_path / "x.json", bad))
    assert "[0].keypoint_scores: want 17 x 1 numbers, got 16" in messages
    assert "[1].keypoints: want 17 x 2 numbers, got 17 x 3" in messages and "[2].keypoints" in messages


# ---- anything else ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "want JSON"),
        ("{", "want JSON"),
        ("[" * 100_000, "want JSON"),
        ("3", "want detections of OpenPose, COCO or MMPose, got int"),
        ('{"a": 1}', "want detections of OpenPose, COCO or MMPose, got a"),
        ('{"people": [3, {"pose_keypoints_2d": 7}]}', "people[1].pose_keypoints_2d"),
        (
            '{"annotations": [{"image_id": 1, "category_id": {}}], "categories": [{"id": []}]}',
            "annotations[0].keypoints",
        ),
        ('{"annotations": [3]}', "annotations[0]: want an object with image_id"),
        ('{"instance_info": [{"instances": [4]}, 5]}', "[0].instances[0]: want an object"),
        ('{"meta_info": {"keypoint_id2name": {"a": "b"}}, "instance_info": []}', "meta_info.keypoint_id2name"),
    ],
)
def test_files_that_are_no_detections(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert wanted in faults(tmp_path / "x.json")


def test_missing_files_and_many_faults(tmp_path: Path) -> None:
    assert faults(tmp_path / "nothing.json") == "nothing.json: the file does not exist"
    (tmp_path / "empty").mkdir()
    assert "want a folder with JSON files, got none" in faults(tmp_path / "empty")
    write(tmp_path / "x.json", [{"image_id": None} for _ in range(1000)])
    assert len(faults(tmp_path / "x.json").splitlines()) == 20
    (tmp_path / "x.json").write_text("[]")
    assert load_detections(tmp_path / "x.json", COCO) == {}


_KEYS = (
    *("people", "pose_keypoints_2d", "annotations", "image_id", "keypoints", "categories", "id", "images", "bbox"),
    *("instances", "instance_info", "keypoint_scores", "predictions", "meta_info", "keypoint_id2name"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just(10**400) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.json", document)
    for layout in (COCO, BOX):
        try:
            load_detections(path, layout)
        except ConfigError as error:
            assert error.faults
