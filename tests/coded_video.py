"""Video whose pictures hold keypoints as black and white cells, and the ONNX model that reads them back.

What is real about a test with these: the encoding, the streams, decoding, times, the loop, the messages. Only the
content of the pictures and the model are made for the test, so that it is known exactly what has to come out. The model
has RTMO's outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rtsp_cameras import encode

from fusion.observations import Frame

WIDTH, HEIGHT, CELL = 320, 180, 4
COLUMNS, ROWS = WIDTH // CELL, HEIGHT // CELL
N_JOINTS = 17
# Coordinates in sixteenths of the picture's pixels, from -512 on; scores in 255ths.
STEPS_PER_PIXEL, ORIGIN_PX, COORDINATE_BITS, SCORE_BITS = 64, 256, 16, 8
JOINT_BITS = 2 * COORDINATE_BITS + SCORE_BITS
PERSON_BITS = N_JOINTS * JOINT_BITS + 1
PEOPLE_MAX = COLUMNS * ROWS // PERSON_BITS


def picture_of(keypoints: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (HEIGHT, WIDTH, 3) of a frame's people (n, 17, 3), whose camera has images of `size` pixels."""
    assert len(keypoints) <= PEOPLE_MAX, f"want at most {PEOPLE_MAX} people, got {len(keypoints)}"
    scale = np.array([WIDTH, HEIGHT]) / size
    bits = np.zeros(ROWS * COLUMNS, np.uint8)
    for person, joints in enumerate(keypoints.astype(np.float64)):
        points = ((joints[:, :2] + 0.5) * scale - 0.5 + ORIGIN_PX) * STEPS_PER_PIXEL
        limit = 2**COORDINATE_BITS - 1
        numbers = [*np.clip(np.round(points.T), 0, limit).astype(int), np.round(joints[:, 2] * 255).astype(int)]
        lengths = [COORDINATE_BITS, COORDINATE_BITS, SCORE_BITS]
        columns = [number[:, None] >> np.arange(length) & 1 for number, length in zip(numbers, lengths)]
        start = person * PERSON_BITS
        bits[start] = 1
        bits[start + 1 : start + PERSON_BITS] = np.concatenate(columns, axis=1).ravel()
    cells = bits.reshape(ROWS, COLUMNS).repeat(CELL, axis=0).repeat(CELL, axis=1)
    return np.repeat((255 * cells)[:, :, None], 3, axis=2).astype(np.uint8)


def units_of(frames: list[Frame], size: tuple[int, int], rate_hz: float) -> list[bytes]:
    """The frames' pictures in H.264. Equal pictures are encoded once: each stands by itself."""
    pictures: dict[bytes, NDArray[np.uint8]] = {}
    keys = []
    for frame in frames:
        picture = picture_of(frame.keypoints, size)
        keys.append(picture.tobytes())
        pictures.setdefault(keys[-1], picture)
    encoded = dict(zip(pictures, encode(pictures.values(), rate_hz)))
    return [encoded[key] for key in keys]


def model_bytes(batch: int | str = "n") -> bytes:
    """The model that reads such pictures: mean of each cell, bits, sums of powers of two."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: object, dtype: type = np.int64) -> object:
        return numpy_helper.from_array(np.asarray(value, dtype), name)

    weights = np.zeros((JOINT_BITS, 3))
    for column, (start, length) in enumerate(((0, 16), (16, 16), (32, 8))):
        weights[start : start + length, column] = 2.0 ** np.arange(length)
    weights[:, :2] /= STEPS_PER_PIXEL
    weights[:, 2] /= 255.0
    # Boxes are of no account here, but must not overlap, as two people's may.
    boxes = np.arange(PEOPLE_MAX)[:, None] * np.array([8.0, 0.0, 8.0, 0.0]) + np.array([0.0, 0.0, 4.0, 4.0])
    constants = [
        constant("threshold", 127.5, np.float32),
        constant("flat", [0, -1]),
        constant("start", [0]),
        constant("end", [PEOPLE_MAX * PERSON_BITS]),
        constant("axis", [1]),
        constant("people", [-1, PEOPLE_MAX, PERSON_BITS]),
        constant("splits", [1, PERSON_BITS - 1]),
        constant("joints", [-1, PEOPLE_MAX, N_JOINTS, JOINT_BITS]),
        constant("weights", weights, np.float32),
        constant("origin", [ORIGIN_PX, ORIGIN_PX, 0], np.float32),
        constant("boxes", boxes, np.float32),
        constant("zero", 0.0, np.float32),
        constant("channel", [1]),
    ]
    nodes = [
        helper.make_node("AveragePool", ["pictures"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["cells", "channel"], ["grey"], keepdims=0),
        helper.make_node("Greater", ["grey", "threshold"], ["above"]),
        helper.make_node("Cast", ["above"], ["bits"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["bits", "flat"], ["row"]),
        helper.make_node("Slice", ["row", "start", "end", "axis"], ["used"]),
        helper.make_node("Reshape", ["used", "people"], ["by_person"]),
        helper.make_node("Split", ["by_person", "splits"], ["scores", "coded"], axis=2),
        helper.make_node("Reshape", ["coded", "joints"], ["by_joint"]),
        helper.make_node("MatMul", ["by_joint", "weights"], ["numbers"]),
        helper.make_node("Sub", ["numbers", "origin"], ["keypoints"]),
        helper.make_node("Mul", ["scores", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["dets"], axis=2),
    ]
    taken = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, [batch, 3, HEIGHT, WIDTH])
    given = [
        helper.make_tensor_value_info("dets", TensorProto.FLOAT, [batch, PEOPLE_MAX, 5]),
        helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, [batch, PEOPLE_MAX, N_JOINTS, 3]),
    ]
    graph = helper.make_graph(nodes, "coded", [taken], given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
