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
from reference import poses

from fusion.errors import ConfigError, ShapeError
from fusion.files.detection_formats import frame_number
from fusion.files.detections import boxes_to_layout, from_ultralytics, load_detections, read_detections, to_layout
from fusion.files.skeletons import SKELETONS, Skeleton
from fusion.store.layouts import LAYOUTS, Layout

COCO, BODY, BOX = LAYOUTS["coco17"], LAYOUTS["body25"], LAYOUTS["box2"]
LAYOUT_PAIRS = [(a, b) for a in (COCO, BODY) for b in (COCO, BODY)]
LONG = {"l": "left", "r": "right"}

# A standing person, seen from the front. Every joint has a place of its own, so that one in another's row shows.
MIDDLE = {"nose": 100, "neck": 150, "mid_hip": 300, "upper_neck": 135, "head_top": 60, "head": 75, "spine": 225}
SIDES = {
    "eye": (10, 90), "eye_inner": (6, 91), "eye_outer": (14, 91), "ear": (20, 95), "mouth": (7, 112),
    "shoulder": (40, 151), "elbow": (60, 220), "wrist": (65, 290), "hand": (66, 315), "pinky": (69, 312),
    "index": (64, 316), "thumb": (60, 308), "hip": (25, 302), "knee": (27, 400), "ankle": (24, 500),
    "big_toe": (30, 520), "small_toe": (40, 518), "heel": (22, 510),
}  # fmt: skip
SPOTS = {joint: (500 + i % 3, y) for i, (joint, y) in enumerate(MIDDLE.items())}
SPOTS |= {f"l_{part}": (500 + x, y) for part, (x, y) in SIDES.items()}
SPOTS |= {f"r_{part}": (499 - x, y + 1) for part, (x, y) in SIDES.items()}
PLACES = {joint: (float(x), float(y), 0.5 + 0.01 * i) for i, (joint, (x, y)) in enumerate(SPOTS.items())}


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
    keypoints[0, COCO.index("r_ear"), 0] = 1e300
    before = keypoints.copy()
    mapped = to_layout(keypoints, COCO.joints, BODY)[0]
    assert_array_equal(keypoints, before)
    assert_array_equal(mapped[list(BODY.indices("nose", "l_eye", "r_eye", "r_ear", "l_hip", "mid_hip"))], 0.0)
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
    assert_array_equal(from_ultralytics(data, BODY, boxes=boxes), mapped)
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
    assert "x.json: people: want one skeleton throughout a file, got people of 17 and 18 joints" in messages
    document = openpose(person(BODY.joints))
    document["people"][0]["pose_keypoints_2d"][4] = "left"
    document["people"].append({"pose_keypoints": []})
    messages = faults(write(path, document))
    assert "people[0]" in messages and "people[1].pose_keypoints_2d: want x, y, score for each keypoint" in messages
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
    read = load_detections(write(tmp_path / "x.json", coco_results()), target, skeleton="coco17")
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
    rows[0]["keypoints"] = rows[0]["keypoints"][:-1]
    del rows[1]["keypoints"]
    rows.append({"image_id": None})
    messages = faults(write(tmp_path / "x.json", rows))
    assert "[0].keypoints: want x, y, score for each keypoint, got 50 numbers" in messages
    assert "[1].keypoints" in messages and "[3]: want an object with image_id" in messages
    rows = coco_results()
    rows[0]["bbox"], rows[1]["score"], rows[2]["bbox"] = [1, 2], "high", [100, 50, -40, 200]
    messages = faults(write(tmp_path / "x.json", rows), BOX)
    assert "[0].bbox: want 4 x 1 numbers, got 2" in messages and "[1].score: want a number" in messages
    assert "[2].bbox: want left, top, width, height, got a size of -40 x 200" in messages
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
    return np.array([PLACES[known.get(joint, joint)] for joint in HALPE26])


def test_mmpose_picture_film_and_bare_list(tmp_path: Path) -> None:
    people = [instance(person(COCO.joints)), instance(person(COCO.joints, 4.0))]
    documents = {
        "demo": {"meta_info": {}, "instance_info": people},
        "bare": people,
        "answer": {"predictions": [people]},
    }
    for name, document in documents.items():
        (read,) = load_detections(write(tmp_path / f"{name}.json", document), BODY, skeleton="coco17").items()
        assert read[0] == name
        assert_in_place(read[1][1], BODY, COCO.joints, 4.0)
    film = [{"frame_id": 1, "instances": people}, {"frame_id": 2, "instances": []}]
    for document in ({"meta_info": None, "instance_info": film}, film):
        frames = load_detections(write(tmp_path / "film.json", document), COCO, skeleton="coco17")
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
    messages = faults(write(tmp_path / "x.json", [instance(person(BODY.joints)[:24])]))
    assert "want joints named in the file, or one of 14, 15, 16, 17, 18, 19" in messages and "got 24" in messages
    bad = [instance(person(COCO.joints)) for _ in range(3)]
    bad[0]["keypoint_scores"].pop()
    bad[1]["keypoints"] = [[x, y, 1.0] for x, y in bad[1]["keypoints"]]
    bad[2] = {"instances": 3}
    messages = faults(write(tmp_path / "x.json", bad))
    assert "[0].keypoint_scores: want 17 x 1 numbers, got 16" in messages
    assert "[1].keypoints: want 17 x 2 numbers, got 17 x 3" in messages and "[2].keypoints" in messages


# ---- orders that the file does not state -----------------------------------------------------------------------------


def crowd(joints: tuple[str, ...], n_people: int = 12) -> list[np.ndarray]:
    """People who stand, sit, bend and turn, in an order; a keypoint without a name is where nothing is."""
    rng = np.random.default_rng(len(joints))
    names = [joint for joint in dict.fromkeys(joints) if joint]
    bodies = poses.bodies(rng, n_people, names)
    found = []
    for body in bodies:
        by_name = dict(zip(names, body))
        found.append(np.array([by_name.get(joint, (5.0, 5.0, 0.4)) for joint in joints]))
    return found


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("form", ["openpose", "coco results", "mmpose"])
def test_every_order_is_found_out_or_asked_for(tmp_path: Path, skeleton: Skeleton, form: str) -> None:
    people = crowd(skeleton.joints)
    documents = {
        "openpose": openpose(*people),
        "coco results": [{"image_id": 1, "category_id": 1, "keypoints": p.ravel().tolist()} for p in people],
        "mmpose": [instance(p) for p in people],
    }
    path = write(tmp_path / "x.json", documents[form])
    names = [joint for joint in skeleton.joints if joint]
    named = np.array([[p[skeleton.joints.index(joint)] for joint in names] for p in people])
    for layout in (COCO, BODY):
        (read,) = load_detections(path, layout).values()
        assert_array_equal(read, to_layout(named, names, layout))
        (told,) = load_detections(path, layout, skeleton=skeleton.name).values()
        assert_array_equal(told, read)


def test_an_order_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", [instance(person(COCO.joints))])
    messages = faults(path)
    wanted = "x.json: keypoints: they may be in the order coco17 or posetrack17; give the order with skeleton=NAME"
    assert wanted in messages
    (read,) = load_detections(path, COCO, skeleton="posetrack17").values()
    assert_array_equal(read[0, COCO.index("l_eye")], 0.0)
    (read,) = load_detections(path, COCO, skeleton="coco17").values()
    assert_in_place(read[0], COCO, COCO.joints)
    with pytest.raises(ConfigError, match=r"want 25 \(body25b, OpenPose BODY_25B\), got 17"):
        load_detections(path, COCO, skeleton="body25b")
    with pytest.raises(ConfigError, match=r"skeleton: want one of coco17, .*, got 'coco'"):
        load_detections(path, COCO, skeleton="coco")
    # Four keypoints of a body are few, and a shuffled body is none.
    few = person(COCO.joints) * np.where(np.arange(17) < 13, 0.0, 1.0)[:, None]
    assert "too few are seen in one person" in faults(write(path, [instance(few)]))
    shuffled = [instance(p[np.random.default_rng(3).permutation(17)]) for p in crowd(COCO.joints)]
    assert "no known order of 17 makes bodies of them" in faults(write(path, shuffled))


def test_people_never_seen_need_no_order(tmp_path: Path) -> None:
    (read,) = load_detections(write(tmp_path / "x.json", openpose(np.zeros((25, 3)))), BODY).values()
    assert_array_equal(read, np.zeros((1, 25, 3)))


def test_both_kinds_of_25_in_the_field(data: Path) -> None:
    (read,) = load_detections(data / "field" / "05-body25b" / "b25b_keypoints.json", BODY).values()
    assert_array_equal(read[0, BODY.index("l_wrist"), :2], [565, 290])
    assert_array_equal(read[0, BODY.index("neck"), :2], [500, 150])
    assert_array_equal(read[0, BODY.index("r_heel"), :2], [478, 510])
    ((one,),) = load_detections(data / "field" / "18-hand-only-person" / "h_keypoints.json", BODY).values()
    assert_array_equal(one[BODY.index("l_wrist"), :2], [565, 290])


# ---- only people, pixels, and frames by their number -----------------------------------------------------------------


def test_only_people_are_people(data: Path, tmp_path: Path) -> None:
    field = data / "field" / "06-classes-as-people"
    rows = np.load(field / "boxes.npy")
    (one,) = from_ultralytics(None, BOX, boxes=rows)
    assert_allclose(one[:, :2], [[2070, 3], [2070, 2130]])
    assert len(from_ultralytics(None, BOX, boxes=rows, person=None)) == 3
    assert len(from_ultralytics(None, BOX, boxes=rows, person=45)) == 1
    (found,) = read_detections([field / "coco.json"], BOX)
    assert_allclose(found.pictures["a.jpg"][:, :, :2], [[[60, 20], [60, 220]]])
    assert found.passed_over == {"not people: bottle": 1}
    bottles = load_detections(field / "coco.json", BOX, person="bottle")["a.jpg"]
    assert_allclose(bottles[:, :, :2], [[[315, 20], [315, 80]]])
    document = json.loads((field / "coco.json").read_text())
    document["categories"][0]["name"] = "cup"
    assert "want one named person, or the name of people's category, got cup, bottle" in faults(
        write(tmp_path / "x.json", document), BOX
    )
    results = [{**row, "category_id": 3} for row in coco_results()]
    assert "want 1, COCO's person, or the number" in faults(write(tmp_path / "x.json", results), BOX)
    assert len(load_detections(tmp_path / "x.json", BOX, person="3")["4"]) == 2
    results[0]["category_id"] = 1
    (found,) = read_detections([write(tmp_path / "x.json", results)], BOX)
    assert len(found.pictures["4"]) == 1 and found.passed_over == {"not people: category 3": 2}


def test_fractions_are_refused_or_multiplied_never_pixels(data: Path, tmp_path: Path) -> None:
    field = data / "field" / "07-fractions-beyond-the-picture"
    points, names = np.load(field / "points.npy"), json.loads((field / "names.json").read_text())
    with pytest.raises(ConfigError, match="want pixels, got fractions of the picture"):
        to_layout(points, names, COCO)
    with pytest.raises(ConfigError, match="want pixels, got fractions of the picture"):
        boxes_to_layout([[0.1, 0.2, 0.3, 0.9]], [0.9], BOX)
    landmarks = [[{"x": x, "y": y, "z": 0.0, "visibility": v} for x, y, v in points[0].tolist()]]
    path = write(tmp_path / "x.json", {"landmarks": landmarks, "worldLandmarks": []})
    assert "x.json: coordinates are fractions of the picture, whose size is not known" in faults(path)
    (read,) = load_detections(path, COCO, size_px=(640, 480)).values()
    ankle = points[0, names.index("left_ankle")]
    assert_allclose(read[0, COCO.index("l_ankle")], [640 * ankle[0] - 0.5, 480 * ankle[1] - 0.5, ankle[2]], rtol=1e-6)
    sized = {"landmarks": landmarks, "width": 640, "height": 480}
    assert_array_equal(load_detections(write(path, sized), COCO)["x"], read)
    # In pixels a person at the picture's corner is no fraction, since others in the file are not there.
    corner = instance(np.c_[np.linspace(0.1, 1.9, 17), np.linspace(0.1, 1.9, 17), np.ones(17)])
    everybody = [instance(p) for p in crowd(COCO.joints)]
    with pytest.raises(ConfigError, match="whose size is not known"):
        load_detections(write(path, [corner]), COCO, skeleton="coco17")
    assert len(load_detections(write(path, [*everybody, corner]), COCO, skeleton="coco17")["x"]) == 13


def test_boxes_written_as_two_corners_are_refused_where_the_picture_is_known(tmp_path: Path) -> None:
    rows = [{"image_id": 1, "category_id": 1, "bbox": [900, 400, 1000, 700], "score": 0.9}]
    path = write(tmp_path / "x.json", rows)
    with pytest.raises(ConfigError, match=r"want left, top, width, height, got \[900, 400, 1000, 700\] in 1280 x 720"):
        load_detections(path, BOX, size_px=(1280, 720))
    rows[0]["bbox"] = [900, 400, 100, 300]
    assert len(load_detections(write(path, rows), BOX, size_px=(1280, 720))["1"]) == 1


def test_pictures_are_in_the_order_of_their_numbers(data: Path) -> None:
    (found,) = read_detections([data / "field" / "17-frames-unpadded" / "opf"], BODY)
    assert list(found.frames.items()) == [("vid_1", 1), ("vid_2", 2), ("vid_10", 10)]
    assert list(found.pictures) == list(found.frames)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("cam01_000000000012_keypoints", 12), ("cam01/000007.jpg", 7), ("clip.mp4", None), (41, 41),
        ("frame_12.v2", 12), ("2026-11-30T10-00-00.250.png", 250), ("C:\\x\\img_3.jpeg", 3), ("9" * 30, None),
    ],
)  # fmt: skip
def test_numbers_of_frames(name: Any, number: int | None) -> None:
    assert frame_number(name) == number


# ---- AlphaPose, MOTChallenge, Ultralytics' text ----------------------------------------------------------------------


def test_alphapose_in_its_three_forms(tmp_path: Path) -> None:
    people = [p for p in crowd(COCO18, 4)]
    by_image = {
        "open": {"12.jpg": {"people": [{"pose_keypoints_2d": p.ravel().tolist()} for p in people]}},
        "cmu": {"12.jpg": {"version": "AlphaPose v0.3", "bodies": [{"joints": p.ravel().tolist()} for p in people]}},
        "cmu apart": {"version": "AlphaPose v0.3", "bodies": [{"joints": p.ravel().tolist()} for p in people]},
    }
    for name, document in by_image.items():
        (found,) = read_detections([write(tmp_path / "12.json", document)], COCO)
        assert list(found.frames.values()) == [12], name
        assert_array_equal(*found.pictures.values(), to_layout(np.array(people), COCO18, COCO))
    rows = [
        {"image_id": "3.jpg", "category_id": 1, "keypoints": p.ravel().tolist(), "score": 2.9, "idx": [0.0],
         "box": [100, 50, 40, 200]}
        for p in crowd(SKELETONS["halpe26"].joints)
    ]  # fmt: skip
    (found,) = read_detections([write(tmp_path / "x.json", rows)], BODY)
    assert found.frames == {"3.jpg": 3} and "halpe26 (Halpe, 26)" in found.decisions[0]
    boxes = load_detections(tmp_path / "x.json", BOX)["3.jpg"]
    assert_allclose(boxes[0], [[120, 50, 1], [120, 250, 1]])


def test_mot_tables(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("2,1,10,20,30,60,1,1,0.8\n1,1,100,50,40,200,1,1,1\n1,2,0,0,9,9,1,3,1\n1,3,5,5,9,9,0,1,0\n")
    (found,) = read_detections([path], BOX)
    assert found.frames == {"1": 0, "2": 1} and not found.complete
    assert_allclose(found.pictures["1"], [[[120, 50, 1], [120, 250, 1]]])
    assert found.passed_over == {"not people: car": 1, "rows marked as not to be considered": 1}
    path.write_text("1,-1,100,50,40,200,0.6,-1,-1,-1\r\n1,-1,10,5,4,20,-1\r\n3,-1,1,1,4,4,-0.4,-1,-1,-1\r\n")
    (found,) = read_detections([path], BOX)
    assert_allclose(found.pictures["1"][:, 0, 2], [0.6, 1.0])
    assert len(found.pictures["3"]) == 0 and found.passed_over == {"detections with a score of 0 or less": 1}
    path.write_text("1,1,5,5,0,9,1\n1.5,1,5,5,5,9,1\nx,1,5,5,5,9,1\n1,2,3\n1,1,5,5,5,9,1e400\n")
    messages = faults(path, BOX)
    for row, wanted in enumerate(("a width and a height above 0", "frame, id", "numbers", "frame, id", "numbers"), 1):
        assert f"gt.txt: row {row}: want {wanted}" in messages
    assert "got boxes of MOTChallenge, which the layout box2 takes" in faults(path, COCO)


def test_ultralytics_labels(tmp_path: Path) -> None:
    (tmp_path / "v_2.txt").write_text("0 0.5 0.5 0.1 0.5 0.8\n39 0.1 0.1 0.1 0.1 0.9\n")
    (tmp_path / "v_10.txt").write_text("0 0.5 0.5 0.1 0.5 0.8 7\n0 0.2 0.5 0.1 0.5 12\n")
    (found,) = read_detections([tmp_path], BOX, sizes_px=[(1000, 500)])
    assert list(found.pictures) == ["v_2", "v_10"] and found.passed_over == {"not people: class 39": 1}
    assert_allclose(found.pictures["v_2"], [[[499.5, 124.5, 0.8], [499.5, 374.5, 0.8]]])
    assert_allclose(found.pictures["v_10"][:, 0, 2], [0.8, 1.0])
    assert "whose size is not known" in faults(tmp_path, BOX)
    rows = [
        " ".join(map(str, [0, 0.5, 0.5, 0.5, 0.5, *(p / [1000, 500, 1]).ravel().tolist()])) for p in crowd(COCO.joints)
    ]
    (tmp_path / "pose").mkdir()
    (tmp_path / "pose" / "v_1.txt").write_text("\n".join(rows))
    (read,) = load_detections(tmp_path / "pose", COCO, size_px=(1000, 500)).values()
    assert_allclose(read[:, :, :2], np.array(crowd(COCO.joints))[:, :, :2] - 0.5, atol=1e-3)
    assert "got a box, which the layout box2 takes" in faults(tmp_path, COCO)


# ---- anything else ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "want JSON"),
        ("{", "want JSON"),
        ("[" * 100_000, "want JSON"),
        ("3", "want detections of OpenPose, AlphaPose, COCO, MMPose or MediaPipe, got int"),
        ('{"a": 1}', "want detections of OpenPose, AlphaPose, COCO, MMPose or MediaPipe, got a"),
        ('{"people": [3, {"pose_keypoints_2d": 7}]}', "people[1].pose_keypoints_2d"),
        (
            '{"annotations": [{"image_id": 1, "category_id": {}}], "categories": [{"id": []}]}',
            "categories: want one named person",
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
    assert "want a folder with JSON files, or with a text file for each image, got none" in faults(tmp_path / "empty")
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
