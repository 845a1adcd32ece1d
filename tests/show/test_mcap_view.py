"""A run is written as an MCAP file and read back by the library: every stream and result, at the times of the data."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.results import event_row, receipt_row
from fusion.observations import Frame, ShelfReading
from fusion.results import People, Receipt, ShelfEventExplained
from fusion.show.mcap_view import SCHEMAS, McapView
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.rotations import rotation_matrix

reader = pytest.importorskip("mcap.reader", reason="no mcap: pip install 'storefusion[mcap]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A simulated minute: the store, observations, results, and all messages of the file by topic."""
    path = tmp_path_factory.mktemp("mcap") / "run.mcap"
    store = demo_store(n_cameras=5, n_plates=16, n_products=12)
    engine = Engine(store)
    observations, answers = [], []
    with McapView(path, store) as view:
        for observation in Simulation(store, Scenario(seed=3, minutes=1.0, shoppers=3)).observations():
            observations.append(observation)
            view.observe(observation)
            for result in engine.feed(observation):
                answers.append(result)
                view.add(result)
        written = path.stat().st_size
        for result in engine.close():
            answers.append(result)
            view.add(result)
    assert written > 10_000, "chunks are written as they fill, not at the end"
    topics, schemas = defaultdict(list), {}
    with path.open("rb") as file:
        for schema, channel, message in reader.make_reader(file).iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("jsonschema", "json")
            schemas[channel.topic] = (schema.name, json.loads(schema.data))
            topics[channel.topic].append((message.log_time, json.loads(message.data)))
    return store, observations, answers, topics, schemas


def fits(value, schema):
    """Whether a message has no field that its schema lacks, all the way down."""
    if schema["type"] == "object":
        known = schema["properties"]
        return isinstance(value, dict) and all(key not in known or fits(v, known[key]) for key, v in value.items())
    if schema["type"] == "array":
        return isinstance(value, list) and all(fits(item, schema["items"]) for item in value)
    kinds = {"number": (int, float), "integer": int, "string": str, "boolean": bool}
    return value is None or isinstance(value, kinds[schema["type"]])


def test_every_message_fits_the_schema_of_its_channel(run):
    *_, topics, schemas = run
    for topic, messages in topics.items():
        name, schema = schemas[topic]
        assert schema == SCHEMAS[name]
        for _, message in messages:
            assert fits(message, schema), (topic, message)
            if name.startswith("foxglove."):
                assert set(message) == set(schema["properties"]), topic


def test_sensors_are_channels(run):
    store, observations, _, topics, _ = run
    for camera in store.cameras:
        frames = [o for o in observations if isinstance(o, Frame) and o.camera == camera.name]
        rows = topics[f"/cameras/{camera.name}/detections"]
        assert sorted(t_ns for t_ns, _ in rows) == sorted(frame.t_ns for frame in frames)
        by_time = dict(rows)
        for frame in frames:
            people = by_time[frame.t_ns]["points"]
            assert len(people) == len(frame.keypoints)
            for person, keypoints in zip(people, frame.keypoints):
                seen = keypoints[keypoints[:, 2] > 0, :2]
                points = np.array([(point["x"], point["y"]) for point in person["points"]]).reshape(-1, 2)
                np.testing.assert_allclose(points, seen, atol=0.06)
    for plate in store.plates:
        readings = [o for o in observations if isinstance(o, ShelfReading) and o.plate == plate.plate]
        grams = {t_ns: row["grams"] for t_ns, row in topics[f"/plates/{plate.plate}"]}
        assert grams == {reading.t_ns: float(reading.samples[0]) for reading in readings}


def test_results_are_channels(run):
    store, _, answers, topics, _ = run
    receipts = sorted((r for r in answers if isinstance(r, Receipt)), key=lambda receipt: receipt.issued_ns)
    assert [row for _, row in topics["/receipts"]] == [receipt_row(receipt) for receipt in receipts] and receipts
    events = [result for result in answers if isinstance(result, ShelfEventExplained)]
    # Readers go through a file in the order of time, in which events are not explained.
    events.sort(key=lambda event: (event.t_ns, event.plate))
    rows = sorted((row for _, row in topics["/events"]), key=lambda row: (row["time"], row["plate"]))
    assert rows == [event_row(event) for event in events] and events
    people = [result for result in answers if isinstance(result, People)]
    assert [t_ns for t_ns, _ in topics["/people"]] == [instant.t_ns for instant in people]
    for instant, (_, scene) in zip(people, topics["/people"]):
        assert len(scene["entities"]) == int(instant.confirmed.sum())
    lines = [row["message"] for _, row in topics["/log/receipts"]]
    assert len(lines) == len(receipts) and all(store.price_text(r.total) in line for r, line in zip(receipts, lines))


def test_cameras_are_where_they_are(run):
    store, _, _, topics, _ = run
    transforms = {row["child_frame_id"]: row for _, row in topics["/transforms"]}
    for camera in store.cameras:
        row = transforms[camera.name]
        x, y, z, w = (row["rotation"][axis] for axis in "xyzw")
        world_from_camera = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        np.testing.assert_allclose(world_from_camera, rotation_matrix(camera.rotation).T, atol=1e-9)
        place = np.array([row["translation"][axis] for axis in "xyz"])
        np.testing.assert_allclose(-rotation_matrix(camera.rotation).T @ camera.translation, place, atol=1e-9)
    ((_, plan),) = topics["/store"]
    assert {f"plate {plate.plate}" for plate in store.plates} <= {entity["id"] for entity in plan["entities"]}


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FusionError, match="the file cannot be written"):
        McapView(tmp_path / "none" / "run.mcap", demo_store(1))
