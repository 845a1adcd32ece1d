"""People of ONVIF cameras: the specification's own examples, an independent producer, and whatever bytes may come."""

from __future__ import annotations

import datetime
import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.feed import Message
from fusion.feeds.onvif import EMPTY_EVERY_NS, IDLE_MAX_NS, OnvifFeed, SceneReader, frames_of_json, frames_of_xml
from fusion.feeds.people import HEIGHT_MIN_PX, Pictures
from fusion.live.messages import Refused
from fusion.observations import Frame
from fusion.simulation import demo_store

T_NS = 1_767_258_000_000_000_000
STORE = demo_store(n_cameras=2, n_plates=2).model_copy(update={"keypoints": "box2"})
CAMERA = STORE.cameras[0].name
WIDTH, HEIGHT = STORE.cameras[0].size
HEAD = '<tt:MetadataStream xmlns:tt="http://www.onvif.org/ver10/schema"><tt:VideoAnalytics>'
TAIL = "</tt:VideoAnalytics></tt:MetadataStream>"


def feed(as_json: bool = False, module: str | None = None, likelihood_min: float = 0.0) -> OnvifFeed:
    reader = SceneReader(CAMERA, Pictures(STORE), module, likelihood_min)
    return OnvifFeed("camera", reader, as_json=as_json)


def frames(opened: OnvifFeed, document: str | bytes, arrived_ns: int = T_NS) -> list[Frame]:
    payload = document.encode() if isinstance(document, str) else document
    found = opened.observations(Message("", payload, arrived_ns))
    assert all(isinstance(frame, Frame) and frame.camera == CAMERA for frame in found)
    return list(found)  # type: ignore[arg-type]


def xml_frame(objects: str = "", second: float = 0.0, attributes: str = "", before: str = "") -> str:
    time = f"2026-01-01T09:00:{second:06.3f}Z"
    return f'{HEAD}<tt:Frame UtcTime="{time}"{attributes}>{before}{objects}</tt:Frame>{TAIL}'


def xml_object(
    identity: int = 1, box: str = 'left="-0.5" top="0.5" right="0.0" bottom="-0.5"', inside: str = "",
    behaviour: str = "",
    kind: str = '<tt:Class><tt:Type Likelihood="0.8">Human</tt:Type></tt:Class>',
) -> str:  # fmt: skip
    shape = f'<tt:Shape><tt:BoundingBox {box}/><tt:CenterOfGravity x="0" y="0"/></tt:Shape>'
    appearance = f"<tt:Appearance>{inside}{shape}{kind}</tt:Appearance>"
    return f'<tt:Object ObjectId="{identity}">{appearance}{behaviour}</tt:Object>'


def edges(frame: Frame, person: int = 0) -> list[float]:
    """Middle of the box and its top and bottom, pixels, and the score."""
    top, bottom = frame.keypoints[person]
    assert top[0] == bottom[0] and top[2] == bottom[2]
    return [float(top[0]), float(top[1]), float(bottom[1]), float(top[2])]


def test_a_box_in_normalized_coordinates_becomes_pixels() -> None:
    (frame,) = frames(feed(), xml_frame(xml_object()))
    assert frame.t_ns == T_NS
    # The left edge of the picture is at -0.5, since whole numbers are middles of pixels.
    assert edges(frame) == pytest.approx([0.375 * WIDTH - 0.5, 0.25 * HEIGHT - 0.5, 0.75 * HEIGHT - 0.5, 0.8])


def test_the_transformations_of_frame_and_appearance_are_nested() -> None:
    # The specification's example: lower left corner (0, 0), upper right (320, 240). Within it an appearance is given
    # with its origin at (100, 60) and twice the unit.
    of_frame = '<tt:Transformation><tt:Translate x="-1" y="-1"/><tt:Scale x="0.00625" y="0.00833333333"/>'
    of_frame += "</tt:Transformation>"
    of_object = '<tt:Transformation><tt:Translate x="100" y="60"/><tt:Scale x="2" y="2"/></tt:Transformation>'
    box = 'left="-10" top="50" right="30" bottom="10"'  # x 80 to 160, y 160 to 80 of 240, upwards
    (frame,) = frames(feed(), xml_frame(xml_object(box=box, inside=of_object), before=of_frame))
    want = [120 / 320 * WIDTH - 0.5, (1 - 160 / 240) * HEIGHT - 0.5, (1 - 80 / 240) * HEIGHT - 0.5, 0.8]
    assert edges(frame) == pytest.approx(want, abs=1e-3)


def test_only_people_are_people() -> None:
    kinds = {
        "vehicle": '<tt:Class><tt:Type Likelihood="0.9">Vehicle</tt:Type><tt:Type Likelihood="0.1">Human</tt:Type>'
        "</tt:Class>",
        "face": '<tt:Class><tt:Type Likelihood="0.9">HumanFace</tt:Type></tt:Class>',
        "none": "",
        "deprecated": "<tt:Class><tt:ClassCandidate><tt:Type>Human</tt:Type><tt:Likelihood>0.7</tt:Likelihood>"
        "</tt:ClassCandidate></tt:Class>",
    }
    opened = feed()
    objects = "".join(xml_object(i, kind=kind) for i, kind in enumerate(kinds.values()))
    (frame,) = frames(opened, xml_frame(objects))
    assert len(frame.keypoints) == 1 and edges(frame)[3] == pytest.approx(0.7)
    assert opened.health.refused == {"objects not a person": 2, "objects without a class": 1}


def test_a_class_that_was_given_once_holds_until_the_object_is_deleted() -> None:
    opened = feed()
    tree = '<tt:ObjectTree><tt:Rename><tt:from ObjectId="1"/><tt:to ObjectId="7"/></tt:Rename></tt:ObjectTree>'
    gone = '<tt:ObjectTree><tt:Delete ObjectId="7"/></tt:ObjectTree>'
    counts = [
        len(frames(opened, xml_frame(objects, second))[0].keypoints)
        for second, objects in enumerate(
            [xml_object(1), xml_object(1, kind="") + tree, xml_object(7, kind="") + gone, xml_object(7, kind="")]
        )
    ]
    assert counts == [1, 1, 1, 0]


def test_an_idle_object_stays_until_it_is_listed_again() -> None:
    opened = feed()
    idle = xml_object(1, behaviour="<tt:Behaviour><tt:Idle/></tt:Behaviour>")
    moved = xml_object(1, box='left="0.5" top="0.5" right="0.7" bottom="-0.5"')
    (first,), (second,), (third,), (fourth,) = (
        frames(opened, xml_frame(objects, second)) for second, objects in enumerate([idle, "", moved, ""])
    )
    assert edges(first) == edges(second) != edges(third) and len(fourth.keypoints) == 0
    frames(opened, xml_frame(idle, 4))
    late = xml_frame().replace("09:00:00", f"09:0{4 + IDLE_MAX_NS // 60_000_000_000}:05")
    assert len(frames(opened, late)[0].keypoints) == 0, "nothing is idle for ever"


def test_the_place_of_a_removed_object_is_no_person() -> None:
    removed = xml_object(1, behaviour="<tt:Behaviour><tt:Removed/></tt:Behaviour>")
    (frame,) = frames(feed(), xml_frame(removed))
    assert len(frame.keypoints) == 0


def test_frames_of_another_analytics_module_are_counted() -> None:
    opened = feed()
    assert frames(opened, xml_frame(xml_object(), attributes=' Source="people"'))
    assert not frames(opened, xml_frame(xml_object(), attributes=' Source="cars"'))
    assert opened.health.refused == {"objects another analytics module": 1}


def test_silence_after_an_empty_frame_means_that_the_scene_is_empty() -> None:
    opened = feed()
    opened.health.opened()
    frames(opened, xml_frame(), T_NS + 40_000_000)
    assert not opened.quiet(T_NS + 40_000_000 + EMPTY_EVERY_NS - 1)
    (still,) = opened.quiet(T_NS + 40_000_000 + EMPTY_EVERY_NS)
    assert isinstance(still, Frame) and still.t_ns == T_NS + EMPTY_EVERY_NS and len(still.keypoints) == 0
    opened.health.state = "connection lost"
    assert not opened.quiet(T_NS + 10 * EMPTY_EVERY_NS)
    opened.health.opened()
    opened.began(T_NS)
    assert not opened.quiet(T_NS + 20 * EMPTY_EVERY_NS), "after an outage nothing is known"
    frames(opened, xml_frame(xml_object()), T_NS)
    assert not opened.quiet(T_NS + 20 * EMPTY_EVERY_NS), "silence after people is no news"


def test_a_compressed_document_is_read_and_a_bomb_is_refused() -> None:
    (frame,) = frames(feed(), gzip.compress(xml_frame(xml_object()).encode()))
    assert len(frame.keypoints) == 1
    with pytest.raises(Refused, match="at most"):
        frames(feed(), gzip.compress(b" " * (64 << 20)))


def test_the_specifications_own_json_is_read() -> None:
    # Analytics Service Specification, "Example" of MQTT: numbers as texts, the class without Type, a time without Z.
    # Its box is upside down (top 20, bottom 30, y upwards), which is corrected here and refused below.
    found: dict[str, Any] = {
        "Frame": [{
            "@UtcTime": "2021-10-05T15:13:27.321", "@Source": "MyClassifier",
            "@context": {"acme": "http://www.acme.com/schema"},
            "Transformation": {
                "Translate": {"@x": "-1.0", "@y": "-1.0"}, "Scale": {"@x": "0.003125", "@y": "0.00416667"}
            },
            "Object": [{
                "@ObjectId": "15",
                "Appearance": {
                    "Shape": {
                        "BoundingBox": {"@left": "20.0", "@top": "80.0", "@right": "100.0", "@bottom": "30.0"},
                        "CenterOfGravity": {"@x": "60.0", "@y": "50.0"},
                    },
                    "Class": {"@Likelihood": "0.8", "#text": "Human"},
                },
            }],
        }]
    }  # fmt: skip
    (frame,) = frames(feed(as_json=True), json.dumps(found))
    assert frame.t_ns == 1_633_446_807_321_000_000
    want = [60 * 0.003125 / 2 * WIDTH - 0.5, (2 - 80 * 0.00416667) / 2 * HEIGHT - 0.5]
    assert edges(frame)[:2] == pytest.approx(want, abs=1e-2) and edges(frame)[3] == pytest.approx(0.8)
    found["Frame"][0]["Object"][0]["Appearance"]["Shape"]["BoundingBox"]["@top"] = "20.0"
    opened = feed(as_json=True)
    (frame,) = frames(opened, json.dumps(found))
    assert len(frame.keypoints) == 0 and opened.health.refused == {"objects malformed box": 1}


boxes = st.tuples(*[st.floats(0, 1)] * 4).filter(lambda box: abs(box[2] - box[3]) * HEIGHT > HEIGHT_MIN_PX + 0.01)


@settings(max_examples=60, deadline=None)
@given(people=st.lists(st.tuples(boxes, st.floats(0.01, 1)), max_size=5), millisecond=st.integers(0, 999))
def test_an_independent_producers_frames_are_read_in_both_forms(people: list[Any], millisecond: int) -> None:
    producer = pytest.importorskip("onvif_m", reason="pip install onvif-m-producer")
    from onvif_m.metadata import build_frame, build_payload
    from onvif_m.model import BoundingBox, ClassCandidate, DetectedObject, from_pixel_bbox
    from onvif_m.publish import serialize

    assert producer and BoundingBox
    time = datetime.datetime(2026, 1, 1, 9, 0, 0, 1000 * millisecond, datetime.UTC)
    corners = [
        (min(a, b) * WIDTH, min(c, d) * HEIGHT, max(a, b) * WIDTH, max(c, d) * HEIGHT) for (a, b, c, d), _ in people
    ]
    objects = [
        DetectedObject(i, from_pixel_bbox(*box, WIDTH, HEIGHT), [ClassCandidate("Human", score)])
        for i, (box, (_, score)) in enumerate(zip(corners, people))
    ]
    payload = build_payload([build_frame(time, "detector", objects)])
    for form in ("json", "xml"):
        (frame,) = frames(feed(as_json=form == "json"), serialize(payload, form))
        assert frame.t_ns == T_NS + millisecond * 1_000_000
        want = np.array([
            [[(x0 + x1) / 2 - 0.5, y - 0.5, score] for y in (y0, y1)]
            for (x0, y0, x1, y1), (_, score) in zip(corners, people)
        ]).reshape(-1, 2, 3)  # fmt: skip
        assert frame.keypoints == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not XML"),
        (b"\x00\xff", "not XML"),
        (b"<a/>", "not ONVIF"),
        ((HEAD + TAIL).encode("utf-16"), None),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "document type"),
        (b'<?xml version="1.0" encoding="utf-99"?><a/>', "not XML"),
        (b"<a>" * 100_000, "malformed"),
        (b"<a>" + b"<b/>" * 100_000 + b"</a>", "malformed"),
        (b" " * (2 << 20), "too long"),
    ],
)
def test_documents_that_are_none_are_refused_by_reason(document: bytes, reason: str | None) -> None:
    if reason is None:
        assert frames_of_xml(document) == []
        return
    with pytest.raises(Refused) as refused:
        frames_of_xml(document)
    assert refused.value.reason == reason


def test_a_document_type_in_another_encoding_is_refused_as_well() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(Refused):
            frames_of_xml(bomb.encode(encoding))


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(
            "Frame Object Appearance Shape BoundingBox Class Type Transformation Scale Translate ObjectTree Rename "
            "from to Delete Behaviour Idle @UtcTime @ObjectId @left @x @Likelihood #text".split()
        ), inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    opened = feed(as_json=True)
    parts = dict.fromkeys(("Object", "ObjectTree", "Transformation"), value)
    whole = {"Frame": [{"@UtcTime": "2026-01-01T09:00:00Z", **parts}]}
    for document in (value, {"Frame": value}, whole):
        try:
            frames(opened, json.dumps(document))
        except Refused:
            continue


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(0, 400))
def test_any_bytes_are_read_or_refused(data: bytes, at: int) -> None:
    good = xml_frame(xml_object()).encode()
    for document in (data, good[:at] + data + good[at + len(data) :]):
        try:
            frames(feed(), document)
        except Refused:
            continue


def test_json_that_nests_without_end_is_refused() -> None:
    with pytest.raises(Refused, match="JSON"):
        frames_of_json(b'{"Frame":' + b"[" * 200_000)
