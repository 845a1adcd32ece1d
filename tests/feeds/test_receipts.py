"""A shop whose sensors are other makers': poses from DeepStream, weights from slow scales, tags from a reader.

The same simulated sensors feed an engine directly and through the formats; the receipts are the same.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

from fusion import Engine, Receipt
from fusion.feeds.deepstream import DeepStreamFeed
from fusion.feeds.feed import Feed, Message
from fusion.feeds.people import Pictures
from fusion.feeds.scales import ScaleFeed
from fusion.observations import Frame, Observation, ShelfReading
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

RATE_HZ = 10.0


def shop() -> Store:
    return demo_store(n_cameras=4, n_plates=12).model_copy(update={"weight_rate_hz": RATE_HZ})


@cache
def sent() -> list[tuple[int, Observation]]:
    """What the sensors report, by arrival."""
    return list(Simulation(shop(), Scenario(seed=11, minutes=1.2, shoppers=3)).arrivals())


def receipts(observations: Iterable[Observation]) -> list[tuple[str | None, str, Counter[str]]]:
    engine, found = Engine(shop()), list[Any]()
    for observation in observations:
        found += engine.feed(observation)
    found += engine.close()
    return sorted(
        (receipt.account, receipt.status, Counter({line.gtin: line.quantity for line in receipt.lines}))
        for receipt in found
        if isinstance(receipt, Receipt)
    )


def pose_message(frame: Frame, joints: tuple[str, ...]) -> bytes:
    """nv.Frame as JSON. A joint that was not seen is left out."""
    seconds, nanos = divmod(frame.t_ns, 1_000_000_000)
    time = np.datetime64(seconds, "s").item().isoformat() + f".{nanos:09}Z"
    objects = []
    for person in frame.keypoints.astype(float):
        seen = person[person[:, 2] > 0]
        x0, y0, x1, y1 = (*seen[:, :2].min(0), *seen[:, :2].max(0)) if len(seen) else (0.0, 0.0, 0.0, 0.0)
        keypoints = [
            {"name": name, "coordinates": [x, y, 0.0, score]}
            for name, (x, y, score) in zip(joints, person)
            if score > 0
        ]
        objects.append({
            "id": "0", "type": "Person", "confidence": 0.9, "pose": {"type": "pose2D", "keypoints": keypoints},
            "bbox": {"leftX": x0 - 10, "topY": y0 - 10, "rightX": x1 + 10, "bottomY": y1 + 10},
        })  # fmt: skip
    return json.dumps({"version": "4.0", "timestamp": time, "sensorId": frame.camera, "objects": objects}).encode()


def converted(store: Store) -> Iterator[Observation]:
    """The observations after they went through the formats, in the order of arrival."""
    names = {camera.name: camera.name for camera in store.cameras}
    people = DeepStreamFeed("people", Pictures(store), names, form="json", types=["Person"], size=None)
    scales = {
        plate.plate: ScaleFeed(plate.plate, plate.plate, store, unit_g=1000.0, unit_topic=None, key=None, rate_hz=None)
        for plate in store.plates
    }
    random = np.random.default_rng(3)
    waiting: list[tuple[int, int, Feed | None, Any]] = []
    count = 0
    for arrived_ns, observation in sent():
        if isinstance(observation, ShelfReading):
            # One value a message, in kilograms, each a moment after it was weighed; the network keeps their order.
            for i, grams in enumerate(observation.samples):
                at = observation.t_ns + round(i * 1e9 / RATE_HZ) + round(random.exponential(15e6))
                count += 1
                heapq.heappush(waiting, (at, count, scales[observation.plate], f"{grams / 1000.0:.5f}".encode()))
        else:
            message = pose_message(observation, store.layout.joints) if isinstance(observation, Frame) else observation
            feed = people if isinstance(observation, Frame) else None
            count += 1
            heapq.heappush(waiting, (arrived_ns, count, feed, message))
    while waiting:
        at, _, feed, message = heapq.heappop(waiting)
        yield from [message] if feed is None else feed.observations(Message("", message, at))
    for feed in scales.values():
        yield from feed.quiet(at + 10**10)
    assert not people.health.refused and not any(feed.health.refused for feed in scales.values())


def test_receipts_do_not_depend_on_whose_format_it_was() -> None:
    direct = receipts(observation for _, observation in sent())
    assert sum(sum(goods.values()) for _, _, goods in direct) >= 8, "a shop in which goods were taken"
    assert receipts(converted(shop())) == direct
