"""Families of models by their outputs, and the way from the pixels of their input to those of the picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from detect.graphs import constant_model
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.detect.appearance import AppearanceModel
from fusion.detect.boxes import OVERLAP_MAX
from fusion.detect.frames import Framer
from fusion.detect.models import PoseModel, load_model
from fusion.detect.people import People, distinct
from fusion.detect.pictures import Picture, fit
from fusion.detect.settings import DetectorSettings, ModelSettings
from fusion.detect.sources import Shot
from fusion.errors import ConfigError
from fusion.files.joints import COCO17
from fusion.simulation import demo_store

pytest.importorskip("av", reason="the extra `detect` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")
pytest.importorskip("onnx", reason="the extra `tfjs` is not installed")

# One person in a picture of 1280 x 720, whose joints and box are known, counted from pixels' centres.
RANDOM = np.random.default_rng(7)
SIZE = (1280, 720)
JOINTS_PX = RANDOM.uniform((300, 100), (600, 700), (17, 2))
SCORES = RANDOM.uniform(0.4, 1.0, 17)
BOX_PX = np.array([280.0, 80.0, 620.0, 715.0])
PICTURE = Picture.of_array(RANDOM.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


def to_input(points_px: np.ndarray, into: tuple[int, int], corner: bool) -> np.ndarray:
    """Written out once more: the picture's pixels scaled into the input, whose first pixel is the picture's."""
    factor = min(into[0] / SIZE[0], into[1] / SIZE[1])
    scaled = np.array([round(SIZE[0] * factor), round(SIZE[1] * factor)]) / SIZE
    return (points_px + 0.5) * scaled - (0.0 if corner else 0.5)


def padded(rows: list[np.ndarray], n: int) -> np.ndarray:
    """(1, n, columns) float32, zeros after the rows."""
    table = np.zeros((1, n, len(rows[0])), np.float32)
    table[0, : len(rows)] = rows
    return table


def movenet_multipose(path: Path) -> PoseModel:
    joints, box = to_input(JOINTS_PX, (256, 160), True), to_input(BOX_PX.reshape(2, 2), (256, 160), True).ravel()
    fractions = np.concatenate([joints[:, ::-1] / (160, 256), SCORES[:, None]], axis=1).ravel()
    row = np.concatenate([fractions, box[[1, 0, 3, 2]] / (160, 256, 160, 256), [0.8]])
    model = constant_model(path, (1, "h", "w", 3), [padded([row], 6)], np.int32)
    return load_model(ModelSettings(path=model), None)


def movenet(path: Path) -> PoseModel:
    joints = to_input(JOINTS_PX, (192, 192), True)
    rows = np.concatenate([joints[:, ::-1] / 192, SCORES[:, None]], axis=1)[None, None].astype(np.float32)
    return load_model(ModelSettings(path=constant_model(path, (1, 192, 192, 3), [rows], np.int32)), None)


def yolo_row(into: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    joints, box = to_input(JOINTS_PX, into, True), to_input(BOX_PX.reshape(2, 2), into, True).ravel()
    return box, np.concatenate([joints, SCORES[:, None]], axis=1).ravel()


def yolo(path: Path) -> PoseModel:
    box, joints = yolo_row((640, 640))
    centre, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    row = np.concatenate([centre, extent, [0.8], joints])
    again = row * np.array([1.0] * 4 + [0.9] + [1.0] * 51)  # The same person once more, a little less certain.
    table = padded([again, row], 84).transpose(0, 2, 1)
    return load_model(ModelSettings(path=constant_model(path, ("n", 3, 640, 640), [table])), None)


def yolo_end_to_end(path: Path) -> PoseModel:
    box, joints = yolo_row((640, 640))
    row = np.concatenate([box, [0.8, 0.0], joints])
    cup = np.concatenate([box + 5, [0.95, 41.0], joints])
    return load_model(ModelSettings(path=constant_model(path, (1, 3, 640, 640), [padded([cup, row], 300)])), None)


def rtmo(path: Path) -> PoseModel:
    box = to_input(BOX_PX.reshape(2, 2), (640, 640), False).ravel()
    joints = np.concatenate([to_input(JOINTS_PX, (640, 640), False), SCORES[:, None]], axis=1)
    outputs = [padded([np.append(box, 0.8)], 10), np.repeat(joints[None, None], 10, axis=1).astype(np.float32)]
    return load_model(ModelSettings(path=constant_model(path, ("n", 3, 640, 640), outputs)), None)


def rtmpose(path: Path) -> PoseModel:
    """Joints at known bins: with the crop's own pixels, within a quarter of a bin."""
    box = to_input(BOX_PX.reshape(2, 2), (640, 640), True).ravel()
    labels = np.array([[0, 2, 0]])
    rows = padded([np.append(box, 0.8), np.append(box + 300, 0.9), np.append(box, 0.01)], 3)
    detector = constant_model(path.with_name("detector.onnx"), (1, 3, 640, 640), [rows, labels])
    # The crop: a box around the person's, 1.25 times as large, in the shape of 192 x 256, from pixels' corners.
    centre, (width, height) = (BOX_PX[:2] + BOX_PX[2:]) / 2 + 0.5, BOX_PX[2:] - BOX_PX[:2]
    half_x = 0.625 * max(width, height * 0.75)
    start, per_pixel = centre - (half_x, half_x / 0.75), 2 * half_x / 192
    bins = np.round(2 * ((JOINTS_PX + 0.5 - start) / per_pixel - 0.5)).astype(int)
    along_x, along_y = np.zeros((1, 17, 384), np.float32), np.zeros((1, 17, 512), np.float32)
    along_x[0, np.arange(17), bins[:, 0]] = SCORES
    along_y[0, np.arange(17), bins[:, 1]] = 1.0
    pose = constant_model(path, ("n", 3, 256, 192), [along_x, along_y])
    return load_model(ModelSettings(path=pose), DetectorSettings(path=detector, trained="rtmdet"))


@pytest.mark.parametrize("family", [movenet_multipose, movenet, yolo, yolo_end_to_end, rtmo, rtmpose])
def test_joints_come_back_to_the_pixels_of_the_picture(family: object, tmp_path: Path) -> None:
    model = family(tmp_path / "model.onnx")  # type: ignore[operator]
    assert model.joints == COCO17
    both = model.people([PICTURE, PICTURE])
    assert len(both) == 2
    for people in both:
        assert len(people) == 1, people.scores
        tolerance = 1.0 if family is rtmpose else 1e-3
        assert_allclose(people.keypoints[0, :, :2], JOINTS_PX, atol=tolerance)
        assert_allclose(people.keypoints[0, :, 2], SCORES, atol=1e-6)
        if family is not movenet:
            assert_allclose(people.boxes_px[0], BOX_PX, atol=1e-3)
            assert people.scores[0] == pytest.approx(0.8)


def raw_yolox(path: Path) -> PoseModel:
    """The person in the cell of stride 32 at column 7, row 9."""
    box = to_input(BOX_PX.reshape(2, 2), (640, 640), True)
    rows = np.full((1, 8400, 85), -9.0, np.float32)
    rows[..., 4:] = 0.0
    place = 80 * 80 + 40 * 40 + 9 * 20 + 7
    rows[0, place, :2] = box.mean(axis=0) / 32 - (7, 9)
    rows[0, place, 2:4] = np.log((box[1] - box[0]) / 32)
    rows[0, place, 4:6] = 0.9, 0.8
    detector = constant_model(path, (1, 3, 640, 640), [rows])
    return load_model(ModelSettings(), DetectorSettings(path=detector))


def raw_yolo(path: Path) -> PoseModel:
    x0, y0, x1, y1 = to_input(BOX_PX.reshape(2, 2), (640, 640), True).ravel()
    rows = np.zeros((1, 84, 100), np.float32)
    rows[0, :5, 3] = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.72
    rows[0, :4, 4], rows[0, 20, 4] = rows[0, :4, 3], 0.99  # Another class.
    return load_model(ModelSettings(), DetectorSettings(path=constant_model(path, ("n", 3, 640, 640), [rows])))


def end_to_end_boxes(path: Path) -> PoseModel:
    box = to_input(BOX_PX.reshape(2, 2), (640, 640), True).ravel()
    rows = padded([np.append(box, [0.72, 0.0]), np.append(box, [0.99, 56.0])], 300)
    return load_model(ModelSettings(), DetectorSettings(path=constant_model(path, (1, 3, 640, 640), [rows])))


@pytest.mark.parametrize("family", [raw_yolox, raw_yolo, end_to_end_boxes])
def test_detectors_give_boxes_for_stores_of_boxes(family: object, tmp_path: Path) -> None:
    model = family(tmp_path / "model.onnx")  # type: ignore[operator]
    (people,) = model.people([PICTURE])
    assert_allclose(people.boxes_px, [BOX_PX], atol=0.01)
    assert_allclose(people.scores, [0.72], atol=1e-6)
    store = demo_store(2, 2, keypoints="box2")
    frame = Framer(store, model).frames([(store.cameras[0], Shot(10**18, PICTURE._frame))])[0]
    middle = (BOX_PX[0] + BOX_PX[2]) / 2
    assert_allclose(frame.keypoints, [[[middle, BOX_PX[1], 0.72], [middle, BOX_PX[3], 0.72]]], atol=0.01)
    with pytest.raises(ConfigError, match="the store wants coco17; name a pose model"):
        Framer(demo_store(2, 2), model)


@pytest.mark.parametrize(
    ("shape", "outputs", "message"),
    [
        ((1, 3, 64, 64), [np.zeros((1, 3, 9), np.float32)], r"want outputs of MoveNet, .*, got \(1, 3, 9\)"),
        ((1, 64, 64, 3), [np.zeros((1, 5, 56), np.float32)], r"got \(1, 5, 56\)"),
        ((1, 3, 64, 64), [np.zeros((1, 7, 5), np.float32), np.zeros((1, 7, 19, 3), np.float32)], "want 17, 26, 133"),
        ((1, 3, 64, 64), [np.zeros((1, 17, 128), np.float32)] * 2, "RTMPose, which looks at one person at a time"),
        ((1, 4, 64, 64), [np.zeros((1, 56, 8), np.float32)], r"want one input of pictures.*\[1, 4, 64, 64\]"),
    ],
)  # fmt: skip
def test_other_models_are_refused(
    shape: tuple[int, ...], outputs: list[np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(ModelSettings(path=constant_model(tmp_path / "model.onnx", shape, outputs)), None)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in (("missing.onnx", "does not exist"), ("text.onnx", "want a model in ONNX"),
                          ("none.json", "want format 'graph-model'"), ("deep.json", "is not JSON")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            load_model(ModelSettings(path=tmp_path / name), None)
    with pytest.raises(ConfigError, match="names no path and there is no"):
        load_model(ModelSettings(), None)
    path = constant_model(tmp_path / "m.onnx", (1, 3, 8, 8), [np.zeros((1, 56, 8), np.float32)])
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ConfigError, match="device 'cuda': onnxruntime has only "):
            load_model(ModelSettings(path=path, device="cuda"), None)


def test_another_order_of_joints_is_named(tmp_path: Path) -> None:
    outputs = [np.zeros((1, 3, 5), np.float32), np.zeros((1, 3, 14, 3), np.float32)]
    path = constant_model(tmp_path / "model.onnx", (1, 3, 64, 64), outputs)
    model = load_model(ModelSettings(path=path, skeleton="crowdpose14"), None)
    assert model.joints[12:] == ("head_top", "neck")
    for name, message in (("coco17", "want 17 joints of coco17, got 14"), ("mine", "skeleton: want one of")):
        with pytest.raises(ConfigError, match=message):
            load_model(ModelSettings(path=path, skeleton=name), None)


def test_a_detector_whose_colours_are_unknown_has_to_be_named(tmp_path: Path) -> None:
    detector = constant_model(tmp_path / "model.onnx", (1, 3, 64, 64), [np.zeros((1, 9, 5), np.float32)])
    with pytest.raises(ConfigError, match='add trained = "rtmdet" or "yolox"'):
        load_model(ModelSettings(), DetectorSettings(path=detector))


boxes = st.lists(
    st.tuples(*[st.floats(0, 500) for _ in range(2)], *[st.floats(1, 200) for _ in range(2)]), min_size=1, max_size=30
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(boxes=boxes)
def test_suppression_is_opencvs(boxes: list[tuple[float, float, float, float]]) -> None:
    scores = np.linspace(0.9, 0.5, len(boxes))
    corners = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes])
    kept = cv2.dnn.NMSBoxes([list(box) for box in boxes], scores.tolist(), 0.0, OVERLAP_MAX)
    assert distinct(corners, OVERLAP_MAX).tolist() == sorted(np.asarray(kept).ravel().tolist())


def test_people_who_are_no_people_are_dropped() -> None:
    corners = np.array([[0, 0, 10, 10], [np.nan, 0, 1, 1], [5, 5, 5, 9], [0, 0, np.inf, 1], [1, 1, 9, 9.0]])
    people = People(corners, np.array([0.5, 0.9, 0.9, 0.9, 0.6]), np.zeros((5, 17, 3)))
    assert people.sound(0.4).scores.tolist() == [0.6, 0.5]
    assert len(people.sound(0.95)) == 0


def test_letterboxing_keeps_places() -> None:
    """A white square is found at the pixels that the fit states, in any shape of the input."""
    rgb = np.zeros((360, 640, 3), np.uint8)
    rgb[100:140, 300:340] = 255  # Its centre is at (319.5, 119.5).
    for into in ((320, 320), (640, 640), (192, 256), (256, 160)):
        scaled, placed = Picture.of_array(rgb).letterboxed(into, pad=0)
        assert scaled.shape == (into[1], into[0], 3)
        rows, columns = np.mgrid[: into[1], : into[0]]
        weight = scaled[:, :, 0].astype(float)
        centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        assert_allclose(placed.to_picture(centre, corner=False), [319.5, 119.5], atol=0.3)


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000), side=st.integers(32, 1280))
def test_a_fit_stays_inside_and_fills_one_side(width: int, height: int, side: int) -> None:
    placed = fit((width, height), (side, side))
    assert 1 <= placed.width <= side and 1 <= placed.height <= side
    assert side in (placed.width, placed.height)


def test_a_crop_is_opencvs_and_black_outside() -> None:
    rgb = PICTURE.rgb
    box = (-50.0, 600.0, 250.0, 1000.0)
    crop = PICTURE.crop(box, (192, 256))
    # The same mapping as a warp: input pixels to the picture's.
    scale = np.array([300 / 192, 400 / 256])
    matrix = np.array([[scale[0], 0, box[0] + 0.5 * scale[0] - 0.5], [0, scale[1], box[1] + 0.5 * scale[1] - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(rgb.astype(np.float32), matrix, (192, 256), flags=flags, borderValue=0)
    # OpenCV rounds weights to 32nds.
    assert np.abs(crop - expected).mean() < 3.0
    assert crop[:, :30].max() == 0.0 and crop[90:].max() == 0.0


def test_frames_are_in_the_pixels_of_the_calibration(tmp_path: Path) -> None:
    model = rtmo(tmp_path / "model.onnx")
    store = demo_store(2, 2, keypoints="body25")
    camera = store.cameras[0].model_copy(update={"size": (2560, 1440)})
    frame = Framer(store, model).frames([(camera, Shot(10**18, PICTURE._frame))])[0]
    wrist = store.layout.index("l_wrist")
    assert_allclose(frame.keypoints[0, wrist, :2], (JOINTS_PX[COCO17.index("l_wrist")] + 0.5) * 2 - 0.5, atol=0.01)
    assert frame.keypoints[0, store.layout.index("l_heel")].tolist() == [0.0, 0.0, 0.0]


def test_a_detection_in_the_corner_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    rows = np.zeros((1, 2, 57), np.float32)
    rows[0, 0] = [10, 10, 40, 90, 0.9, 0.0, *np.tile([20, 30, 0.8], 17)]
    rows[0, 1] = [0, 0, 0.1, 0.12, 0.9, 0.0, *np.tile([0.1, 0.12, 0.8], 17)]
    for keypoints, n_left in (("coco17", 1), ("box2", 1)):
        settings = ModelSettings(path=constant_model(tmp_path / "m.onnx", ("n", 3, 96, 96), [rows]), threads=1)
        store = demo_store(2, 2, keypoints=keypoints)
        camera = store.cameras[0].model_copy(update={"size": PICTURE.size})
        framer = Framer(store, load_model(settings, None))
        [frame] = framer.frames([(camera, Shot(10**18, PICTURE._frame))])
        assert len(frame.keypoints) == n_left
        assert dict(framer.rejected) == {f"{camera.name}: detections within two pixels of the corner": 1}


def test_appearance_has_the_stores_length_and_looks_at_the_person(tmp_path: Path) -> None:
    """The model's vector is the mean colour, which has to be that of the person's box."""
    from onnx import TensorProto, helper, numpy_helper

    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    node = helper.make_node("ReduceMean", ["pictures", "axes"], ["vector"], keepdims=0)
    taken = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, 256, 128])
    given_ = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([node], "mean", [taken], [given_], [axes])
    path = tmp_path / "looks.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    rgb = np.zeros((200, 200, 3), np.uint8)
    rgb[50:150, 60:100] = (255, 0, 0)
    people = People(np.array([[60.0, 50.0, 99.0, 149.0]] * 2), np.ones(2), np.zeros((2, 17, 3)))
    looks = AppearanceModel(path, 3, "cpu", 1)
    (vectors,) = looks.vectors([Picture.of_array(rgb)], [people])
    wanted = (np.array([255, 0, 0]) - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    assert_allclose(vectors, [wanted / np.linalg.norm(wanted)] * 2, atol=0.02)
    (nothing,) = looks.vectors([Picture.of_array(rgb)], [people.chosen(np.zeros(2, bool))])
    assert nothing.shape == (0, 3)
    with pytest.raises(ConfigError, match="has it, got 3"):
        AppearanceModel(path, 8, "cpu", 1)
    with pytest.raises(ConfigError, match="appearance_dim = 0"):
        AppearanceModel(path, 0, "cpu", 1)
    with pytest.raises(ConfigError, match="appearance_dim = 8; name a model"):
        Framer(demo_store(2, 2, appearance_dim=8), rtmo(tmp_path / "model.onnx"))
