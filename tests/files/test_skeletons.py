"""Orders of keypoints against other programs' tables, and what cannot change a verdict about them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import poses

from fusion.errors import ConfigError
from fusion.files.anatomy import judge, log_likelihoods
from fusion.files.detections import load_detections, read_detections
from fusion.files.skeletons import SKELETONS, Skeleton, skeleton_named, skeletons_of
from fusion.store.layouts import LAYOUTS

ALL = st.sampled_from(list(SKELETONS.values()))


def people_in(skeleton: Skeleton, seed: int, n_people: int) -> np.ndarray:
    """(n_people, n_joints, 3); keypoints without a name are unseen."""
    names = [joint for joint in skeleton.joints if joint]
    bodies = poses.bodies(np.random.default_rng(seed), n_people, list(dict.fromkeys(names)))
    out = np.zeros((n_people, skeleton.n_joints, 3))
    for index, joint in enumerate(skeleton.joints):
        if joint:
            out[:, index] = bodies[:, names.index(joint)]
    return out


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_every_order_is_a_body_once() -> None:
    for skeleton in SKELETONS.values():
        named = [joint for joint in skeleton.joints if joint]
        assert len(set(named)) == len(named), skeleton.name
        for joint in named:
            assert joint[:2] != "l_" or f"r_{joint[2:]}" in named, (skeleton.name, joint)
        assert skeleton.source.startswith("https://") and skeleton_named(skeleton.name) is skeleton
        assert skeleton in skeletons_of(skeleton.n_joints)
    assert len({skeleton.joints for skeleton in SKELETONS.values()}) == len(SKELETONS)


def test_no_order_is_another_one_in_the_mirror() -> None:
    """Left and right of a whole body cannot be told apart by anatomy, so no two orders may differ in that alone."""
    swap = {"l": "r", "r": "l"}
    for skeleton in SKELETONS.values():
        mirrored = tuple(f"{swap[j[0]]}{j[1:]}" if j[:2] in ("l_", "r_") else j for j in skeleton.joints)
        assert all(other.joints != mirrored for other in SKELETONS.values())


POSE2SIM = {
    "HALPE_26": "halpe26", "HALPE_68": "halpe68", "HALPE_136": "halpe136", "COCO_17": "coco17", "COCO": "coco18",
    "COCO_133": "wholebody133", "BODY_25B": "body25b", "BODY_25": "body25", "BODY_135": "body135",
    "BLAZEPOSE": "mediapipe33",
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), POSE2SIM.items())
def test_orders_are_those_of_pose2sim(theirs: str, ours: str) -> None:
    skeletons = pytest.importorskip("Pose2Sim.skeletons", reason="pip install --no-deps Pose2Sim; pip install anytree")

    def nodes(node: Any) -> Any:
        yield node
        for child in node.children:
            yield from nodes(child)

    spoken = {"hip": "mid_hip", "chip": "mid_hip", "head": "head_top"}
    neck = "upper_neck" if ours in ("body25b", "body135") else "neck"
    joints = SKELETONS[ours].joints
    compared = 0
    for node in nodes(getattr(skeletons, theirs)):
        if node.id is None or not joints[node.id]:
            continue
        name = node.name[1:] if node.name[0] in "LR" and node.name[1].isalpha() else node.name
        name = re.sub(r"^(Big|Small)Toe$", r"\1_Toe", name).lower()
        side = f"{node.name[0].lower()}_" if node.name[0] in "LR" else ""
        wanted = {"neck": neck}.get(name, spoken.get(node.name.lower(), f"{side}{name}"))
        assert joints[node.id] == wanted, (theirs, node.id, node.name)
        compared += 1
    assert compared >= 13


def test_mediapipe_has_our_order() -> None:
    pose = pytest.importorskip("mediapipe").tasks.vision.PoseLandmark
    spoken = {"mouth_left": "l_mouth", "mouth_right": "r_mouth", "left_foot_index": "l_big_toe"}
    spoken |= {"right_foot_index": "r_big_toe"}
    names = [landmark.name.lower() for landmark in pose]
    wanted = [spoken.get(name, name.replace("left_", "l_").replace("right_", "r_")) for name in names]
    assert list(SKELETONS["mediapipe33"].joints) == wanted


def test_names_that_are_no_order() -> None:
    with pytest.raises(ConfigError, match=r"skeleton: want one of coco17, h36m17, .*, got 'BODY_25'"):
        skeleton_named("BODY_25")


# ---- which order makes bodies ----------------------------------------------------------------------------------------


def on_what_was_seen(skeleton: Skeleton, people: np.ndarray) -> tuple[str, ...]:
    """Names of the joints that were seen at all: orders that agree on them give the same people."""
    return tuple(np.array(skeleton.joints)[(people[:, :, 2] > 0.0).any(axis=0)])


@settings(max_examples=60, deadline=None)
@given(ALL, st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(["whole", "upper", "legs", "one side", "any"]))
def test_an_order_is_found_or_asked_for_never_wrong(skeleton: Skeleton, seed: int, n_people: int, part: str) -> None:
    people = people_in(skeleton, seed, n_people)
    legs = ("knee", "ankle", "toe", "heel")
    lost = np.random.default_rng(seed).random(skeleton.n_joints) < 0.4
    for index, joint in enumerate(skeleton.joints):
        low = any(word in joint for word in legs)
        hidden = {"upper": low, "legs": not low, "one side": joint.startswith("r_"), "any": lost[index], "whole": False}
        if hidden[part]:
            people[:, index] = 0.0
    verdict = judge(people, skeletons_of(skeleton.n_joints))
    if verdict.skeleton is not None:
        assert on_what_was_seen(verdict.skeleton, people) == on_what_was_seen(skeleton, people)
    elif verdict.candidates:
        # Where it asks, the right order is among those that it offers.
        offered = {on_what_was_seen(one, people) for one in verdict.candidates}
        assert on_what_was_seen(skeleton, people) in offered


@settings(max_examples=25, deadline=None)
@given(ALL, st.integers(0, 10**6), st.floats(0.001, 100.0), st.floats(-5e3, 5e3))
def test_scale_place_mirror_and_order_of_people_change_nothing(
    skeleton: Skeleton, seed: int, scale: float, shift: float
) -> None:
    people = people_in(skeleton, seed, 6)
    before = log_likelihoods(people, skeleton.joints)
    moved = people.copy()
    moved[:, :, :2] = people[:, :, :2] * scale + shift
    assert_allclose(log_likelihoods(moved, skeleton.joints), before, rtol=1e-6, atol=1e-6)
    mirrored = people * [-1.0, 1.0, 1.0]
    assert_allclose(log_likelihoods(mirrored, skeleton.joints), before, rtol=1e-9, atol=1e-9)
    assert_allclose(log_likelihoods(people[::-1], skeleton.joints), before[::-1], rtol=1e-12)
    unseen = people.copy()
    unseen[:, 0] = np.nan
    nothing = people.copy()
    nothing[:, 0] = 0.0
    assert_array_equal(log_likelihoods(unseen, skeleton.joints), log_likelihoods(nothing, skeleton.joints))


def test_hostile_keypoints_are_no_bodies() -> None:
    candidates = skeletons_of(17)
    noise = np.random.default_rng(1).uniform(0.0, 1000.0, (50, 17, 3))
    for people in (np.ones((50, 17, 3)), noise, np.full((9, 17, 3), 1e300), np.full((9, 17, 3), np.nan)):
        with np.errstate(all="ignore"):
            assert judge(people, candidates).skeleton is None
    assert judge(np.zeros((0, 17, 3)), candidates).n_people == 0
    assert judge(np.zeros((4, 17, 3)), candidates).skeleton is None
    assert judge(noise, ()).candidates == ()


# ---- COCO's own reader -----------------------------------------------------------------------------------------------


def test_people_are_those_of_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(4)
    names = ["person", "bottle", "chair"]
    annotations = []
    for number in range(60):
        keypoints = np.c_[rng.uniform(1, 600, (17, 2)).round(1), rng.integers(0, 3, 17)]
        annotations.append(
            {"id": number + 1, "image_id": int(rng.integers(1, 9)), "category_id": int(rng.integers(1, 4)),
             "iscrowd": int(rng.random() < 0.1), "bbox": rng.uniform(1, 300, 4).round(1).tolist(), "area": 9.0,
             "keypoints": keypoints.ravel().tolist(), "num_keypoints": int((keypoints[:, 2] > 0).sum())}
        )  # fmt: skip
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(1, 10)],
        "categories": [{"id": i + 1, "name": name, "keypoints": list(_NAMES)} for i, name in enumerate(names)],
        "annotations": annotations,
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    theirs = coco.COCO(str(path))
    people, boxes = load_detections(path, LAYOUTS["coco17"]), load_detections(path, LAYOUTS["box2"])
    for image_id in theirs.getImgIds():
        name = theirs.loadImgs(image_id)[0]["file_name"]
        ids = theirs.getAnnIds(imgIds=[image_id], catIds=theirs.getCatIds(catNms=["person"]), iscrowd=False)
        wanted = [np.array(row["keypoints"]).reshape(17, 3) for row in theirs.loadAnns(ids)]
        assert len(people[name]) == len(boxes[name]) == len(wanted)
        for ours, his, row, box in zip(people[name], wanted, theirs.loadAnns(ids), boxes[name]):
            seen = his[:, 2] > 0
            assert_allclose(ours[seen, :2], his[seen, :2], rtol=1e-6)
            assert_array_equal(ours[:, 2], his[:, 2] / 2)
            x, y, width, height = row["bbox"]
            assert_allclose(box[:, :2], [[x + width / 2, y], [x + width / 2, y + height]], rtol=1e-6)
    (found,) = read_detections([path], LAYOUTS["coco17"])
    others = sum(row["category_id"] > 1 and not row["iscrowd"] for row in annotations)
    assert sum(n for reason, n in found.passed_over.items() if reason.startswith("not people")) == others


_NAMES = [
    f"{ {'l': 'left', 'r': 'right'}[joint[0]] }{joint[1:]}" if joint[1] == "_" else joint
    for joint in SKELETONS["coco17"].joints
]
