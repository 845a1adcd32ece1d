"""A bystander hears what a store's sensors send, and the store does not hear of them."""

from __future__ import annotations

import threading
import time

import pytest
from broker import Mosquitto
from live.streams import STORE, T_NS, frame

from fusion.errors import FusionError
from fusion.live.connection import Broker
from fusion.live.publisher import Publisher
from fusion.live.watch import Watch
from fusion.observations import Observation


def test_a_bystander_hears_the_streams(broker: Mosquitto) -> None:
    watch = Watch(Broker.of(f"127.0.0.1:{broker.port}"), STORE, 30.0)
    heard: list[Observation] = []

    def listen() -> None:
        for observation in watch:
            heard.append(observation)
            if len(heard) == 5:
                break

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    with Publisher(f"127.0.0.1:{broker.port}", STORE.id, "cameras") as publisher:
        for k in range(600):
            publisher.publish(frame(T_NS + k))
            if not thread.is_alive():
                break
            time.sleep(0.05)
    thread.join(10.0)
    assert len(heard) == 5 and not watch.refused


def test_without_a_broker_there_is_nothing_to_watch() -> None:
    with pytest.raises(FusionError, match="mqtt:"):
        list(Watch(Broker.of("127.0.0.1:1"), STORE, 1.0))
