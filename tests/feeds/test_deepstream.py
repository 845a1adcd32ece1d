"""DeepStream's messages in all their forms, against the package of protocol buffers and the SDK's own way to print."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.deepstream import COMPLETE_AFTER_NS, DeepStreamFeed
from fusion.feeds.feed import Message
from fusion.feeds.people import Pictures
from fusion.live.messages import Refused
from fusion.observations import Frame
from fusion.simulation import demo_store
from fusion.store.layouts import LAYOUTS

T_NS = 1_767_258_000_000_000_000
TIME = "2026-01-01T09:00:00.000Z"
STORE = demo_store(n_cameras=2, n_plates=2).model_copy(update={"keypoints": "box2"})
POSES = demo_store(n_cameras=2, n_plates=2).model_copy(update={"appearance_dim": 4})
CAMERA = STORE.cameras[0].name
WIDTH, HEIGHT = STORE.cameras[0].size
# nvmsgconv's order of a 2D pose.
PARTS = (
    "nose neck right-shoulder right-elbow right-hand left-shoulder left-elbow left-hand right-hip right-knee "
    "right-foot left-hip left-knee left-foot right-eye left-eye right-ear left-ear"
).split()


def feed(store: Any = STORE, form: Any = "json", size: tuple[int, int] | None = None) -> DeepStreamFeed:
    return DeepStreamFeed("ds", Pictures(store), {"s0": CAMERA}, form=form, types=["person"], size=size)


def frame(opened: DeepStreamFeed, payload: Any) -> Frame:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    (found,) = opened.observations(Message("", data, T_NS))
    assert isinstance(found, Frame)
    return found


def minimal(*objects: str) -> dict[str, Any]:
    return {"version": "4.0", "id": "17", "@timestamp": TIME, "sensorId": "s0", "objects": list(objects)}


def joint(found: Frame, name: str, person: int = 0) -> list[float]:
    return [float(value) for value in found.keypoints[person, LAYOUTS["coco17"].joints.index(name)]]


def box(found: Frame, person: int = 0) -> list[float]:
    """Middle, top, bottom, score."""
    top, bottom = found.keypoints[person]
    return [float(value) for value in (top[0], top[1], bottom[1], top[2])]


# ---- minimal ---------------------------------------------------------------------------------------------------------


def test_the_minimal_schema() -> None:
    opened = feed()
    found = frame(
        opened,
        minimal(
            "5|100|50|200|350|Person|#|male|30|black|none|formal|0.75",  # with attributes
            "6|300|50|400|350|Person|#|||||||0.5",  # without, by events
            "7|500|50|600|350|person",  # by metadata, without classifiers
            "957|834|150|918|215|Vehicle|#|sedan|Bugatti|M|blue|CA 444|California|0.8",
        ),
    )
    assert found.t_ns == T_NS and found.camera == CAMERA
    assert [box(found, i) for i in range(3)] == [[150, 50, 350, 0.75], [350, 50, 350, 0.5], [550, 50, 350, 1.0]]
    assert opened.health.refused == {"objects not a person": 1}
    assert len(frame(opened, minimal()).keypoints) == 0, "a picture without people is a frame"


def printed(pose: dict[str, tuple[float, float, float]], embedding: list[float]) -> str:
    """A person as nvmsgconv prints one with a pose, the confidence, an embedding and single-view 3D tracking."""
    text = "5|100|50|200|350|Person|#|male|30|black|none|formal|#|pose2D|"
    text += "".join(f"{name},{x:f},{y:f},{score:f}|" for name, (x, y, score) in pose.items())
    text += "|0.9" + "|#|embedding|" + ",".join(map(str, embedding)) + "|"
    return text + "#|SV3DT|0.5|150.0,350.0|1.0,2.0|1.0,2.0,3.0|"


def test_a_pose_and_an_embedding_of_the_minimal_schema() -> None:
    pose = {part: (100.0 + i, 50.0 + 10 * i, 0.5) for i, part in enumerate(PARTS)}
    opened = feed(POSES)
    found = frame(opened, minimal(printed(pose, [0.5, -0.25, 1.0, 0.0])))
    assert joint(found, "nose") == [100, 50, 0.5]
    # The hand and the foot of this pose are the wrist and the ankle.
    assert joint(found, "r_wrist") == [104, 90, 0.5] and joint(found, "l_ankle") == [113, 180, 0.5]
    assert (found.keypoints[0, :, 2] > 0).all()
    assert found.appearance is not None and found.appearance.tolist() == [[0.5, -0.25, 1.0, 0.0]]
    assert not opened.health.refused


def test_poses_in_millimetres_and_boxes_alone_are_no_keypoints() -> None:
    opened = feed(POSES)
    three = "5|100|50|200|350|Person|#|||||||#|pose3D|nose,1.0,2.0,900.0,0.9||0.9"
    found = frame(opened, minimal(three, "6|1|1|9|9|Person|#|||||||0.9"))
    assert len(found.keypoints) == 0
    assert opened.health.refused == {"objects without a pose in pixels": 2}
    half = "5|100|50|200|350|Person|#|||||||#|pose25D|nose,101.0,52.0,-30.0,0.9||0.9"
    assert joint(frame(opened, minimal(half)), "nose") == pytest.approx([101, 52, 0.9])


def test_an_embedding_of_another_length_is_counted_and_the_person_kept() -> None:
    opened = feed(POSES)
    found = frame(opened, minimal(printed({"nose": (101.0, 52.0, 0.9)}, [1.0, 2.0])))
    assert len(found.keypoints) == 1 and found.appearance is not None and not found.appearance.any()
    assert opened.health.refused == {"embeddings of another length than appearance_dim": 1}


def test_boxes_of_another_resolution_are_scaled() -> None:
    opened = feed(size=(WIDTH // 2, HEIGHT // 4))
    assert box(frame(opened, minimal("5|100|50|200|100|Person"))) == [300, 200, 400, 1.0]


def test_boxes_in_fractions_of_the_picture_are_counted() -> None:
    opened = feed()
    assert len(frame(opened, minimal("5|0.1|0.2|0.3|0.9|Person", "6|100|50|200|350|Person")).keypoints) == 1
    assert opened.health.refused == {"objects box too small": 1}


def test_what_a_tracker_made_up_is_no_detection() -> None:
    opened = feed()
    assert len(frame(opened, minimal("5|100|50|200|350|Person|#|||||||-0.1")).keypoints) == 0
    assert opened.health.refused == {"objects tracked without a detection": 1}


@pytest.mark.parametrize("seconds", ["1767258000", [1], 1.5, None, True, 10**400])
def test_a_time_that_is_no_whole_number_is_refused(seconds: Any) -> None:
    payload = {**minimal(), "timestamp": {"seconds": seconds}}
    del payload["@timestamp"]
    with pytest.raises(Refused, match=r"time|whole|nanoseconds"):
        frame(feed(), payload)


def test_an_unknown_sensor_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"want a sensor id of feeds.toml \(s0\), got 's9'"):
        frame(feed(), {**minimal(), "sensorId": "s9"})


# ---- nv.Frame --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nv_frame() -> Any:
    """nv.Frame as the package makes it of the published schema."""
    pytest.importorskip("google.protobuf", reason="pip install protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="nv_test.proto", package="nv", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")

    def message(name: str, *fields: tuple[str, int, Any, bool]) -> None:
        made = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if isinstance(kind, str):
                made.field.add(name=field, number=number, type=kinds.TYPE_MESSAGE, type_name=kind, label=label)
            else:
                made.field.add(name=field, number=number, type=kind, label=label)

    text, real = kinds.TYPE_STRING, kinds.TYPE_FLOAT
    message("Embedding", ("vector", 1, real, True))
    message("Bbox", ("leftX", 1, real, False), ("topY", 2, real, False), ("rightX", 3, real, False),
            ("bottomY", 4, real, False), ("embeddings", 5, ".nv.Embedding", True),
            ("confidence", 6, real, False))  # fmt: skip
    message("Keypoint", ("name", 1, text, False), ("coordinates", 2, real, True), ("quaternion", 3, real, True))
    message("Pose", ("type", 1, text, False), ("keypoints", 2, ".nv.Keypoint", True))
    message("Object", ("id", 1, text, False), ("bbox", 2, ".nv.Bbox", False), ("type", 3, text, False),
            ("confidence", 4, real, False), ("embedding", 6, ".nv.Embedding", False), ("pose", 7, ".nv.Pose", False),
            ("speed", 10, real, False), ("dir", 11, real, True))  # fmt: skip
    message("Frame", ("version", 1, text, False), ("id", 2, text, False),
            ("timestamp", 3, ".google.protobuf.Timestamp", False), ("sensorId", 4, text, False),
            ("objects", 5, ".nv.Object", True))  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nv.Frame"))


pixels = st.floats(2, 400, width=32)  # Where all lie within a pixel, they are refused as fractions.
keypoints = st.lists(st.tuples(st.sampled_from(PARTS), pixels, pixels, st.floats(0.125, 1, width=32)), max_size=4)
people = st.lists(
    st.tuples(
        pixels, pixels, pixels, st.floats(6, 400, width=32), st.floats(0.125, 1, width=32), keypoints, st.booleans()
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(people=people, nanos=st.integers(0, 10**9 - 1))
def test_a_frame_as_json_and_as_a_protocol_buffer_is_the_same(nv_frame: Any, people: Any, nanos: int) -> None:
    from google.protobuf.json_format import MessageToDict

    message = nv_frame(version="4.0", id="1", sensorId="s0")
    message.timestamp.seconds, message.timestamp.nanos = T_NS // 10**9, nanos
    for x, y, width, height, confidence, joints, embedded in people:
        entry = message.objects.add(id="1", type="Person", confidence=confidence)
        entry.bbox.leftX, entry.bbox.topY = x, y
        entry.bbox.rightX, entry.bbox.bottomY = np.float32(x + width), np.float32(y + height)
        entry.pose.type = "pose2D"
        for name, u, v, score in joints:
            entry.pose.keypoints.add(name=name, coordinates=[u, v, 0.0, score])
        if embedded:
            entry.embedding.vector.extend([1.0, 0.0, 0.5, 0.25])
    as_json = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for store in (STORE, POSES):
        binary = frame(feed(store, "protobuf"), message.SerializeToString())
        plain = frame(feed(store), as_json)
        assert binary.t_ns == plain.t_ns == T_NS + nanos
        assert binary.keypoints == pytest.approx(plain.keypoints, abs=1e-3)
        assert (binary.appearance is None) == (store is STORE)
        if binary.appearance is not None and plain.appearance is not None:
            assert binary.appearance.tolist() == plain.appearance.tolist()
    boxes = frame(feed(STORE, "protobuf"), message.SerializeToString())
    want = [[(2 * x + w) / 2, y, y + h, c] for x, y, w, h, c, _, _ in people]
    assert [box(boxes, i) for i in range(len(want))] == [pytest.approx(row, abs=1e-2) for row in want]


# ---- full ------------------------------------------------------------------------------------------------------------


def full(time: str, left: int, label: str = "person", **more: Any) -> dict[str, Any]:
    return {
        "messageid": "m", "mdsversion": "1.0", "@timestamp": time, "sensor": {"id": "s0", "type": "Camera"},
        "object": {
            "id": "3", "speed": 0.0, "direction": 0.0, "orientation": 0.0,
            label: {"age": 20, "gender": "male", "confidence": 0.625},
            "bbox": {"topleftx": left, "toplefty": 10, "bottomrightx": left + 50, "bottomrighty": 110},
            "location": {}, "coordinate": {}, "pose": {}, **more,
        },
        "event": {"id": "e", "type": "moving"},
    }  # fmt: skip


def test_objects_of_the_full_schema_are_gathered_into_pictures() -> None:
    opened = feed()

    def send(payload: dict[str, Any], arrived_ns: int) -> list[Frame]:
        found = opened.observations(Message("", json.dumps(payload).encode(), arrived_ns))
        return [one for one in found if isinstance(one, Frame)]

    assert not send(full(TIME, 100), T_NS)
    assert not send(full("2026-01-01T09:00:00.001Z", 300), T_NS)
    (first,) = send(full("2026-01-01T09:00:00.040Z", 500, "vehicle"), T_NS + 40_000_000)
    assert first.t_ns == T_NS and [box(first, i) for i in range(2)] == [[125, 10, 110, 0.625], [325, 10, 110, 0.625]]
    assert not opened.quiet(T_NS + 40_000_000 + COMPLETE_AFTER_NS)
    (second,) = opened.quiet(T_NS + 40_000_001 + COMPLETE_AFTER_NS)
    assert isinstance(second, Frame) and second.t_ns == T_NS + 40_000_000 and len(second.keypoints) == 0


def test_a_pose_of_the_full_schema_counts_where_it_says_that_it_is_flat() -> None:
    opened = feed(POSES)
    flat = {"nose": {"x": 110, "y": 20, "confidence": 0.5}}
    deep = {"nose": {"x": 110, "y": 20, "z": 3, "confidence": 0.5}}
    embedding = {"embedding_length": 4, "embedding_vector": [1.0, 0.0, 0.0, 0.5]}
    opened.observations(Message("", json.dumps(full(TIME, 100, pose=flat, embedding=embedding)).encode(), T_NS))
    opened.observations(Message("", json.dumps(full(TIME, 100, pose=deep)).encode(), T_NS))
    (found,) = opened.quiet(T_NS + 10**9)
    assert isinstance(found, Frame) and joint(found, "nose") == [110, 20, 0.5] and len(found.keypoints) == 1
    assert found.appearance is not None and found.appearance.tolist() == [[1.0, 0.0, 0.0, 0.5]]
    assert opened.health.refused == {"objects without a pose in pixels": 1}


# ---- hostile input ---------------------------------------------------------------------------------------------------

values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("5|1|2|3|4|Person|#|0.5"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from("objects object sensor sensorId id bbox leftX type pose keypoints coordinates embedding vector "
                        "@timestamp timestamp seconds person confidence name".split()), inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(value=values, text=st.text("0123456789.|#,-Personpose2Dembedding", max_size=60))
def test_anything_is_read_or_refused(value: Any, text: str) -> None:
    for store in (STORE, POSES):
        opened = feed(store)
        documents: list[Any] = [value, minimal(text), {**minimal(), "objects": value}]
        documents += [{**full(TIME, 1), "object": value}, {**minimal(), "timestamp": value}]
        if isinstance(value, dict):
            documents += [{**minimal(), **value}, {**full(TIME, 1), **value}]
        for document in documents:
            try:
                opened.observations(Message("", json.dumps(document).encode(), T_NS))
                opened.quiet(T_NS + 10**10)
            except Refused:
                continue


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for form in ("json", "protobuf"):
        try:
            feed(form=form).observations(Message("", data, T_NS))
        except Refused:
            continue
