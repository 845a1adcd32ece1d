"""Publish a recording over MQTT in real time, as its sensors would have: to try out `fusion run --mqtt`.

    mosquitto                                                                    terminal 1, see docs/mqtt.md
    fusion run --store RECORDING/store --mqtt localhost                          terminal 2
    python examples/publish_recording.py RECORDING --mqtt localhost              terminal 3

Start them in any order. Cameras, scales, gates and readers are publishers of their own, as in a shop.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, help="folder of a recording")
    parser.add_argument("--mqtt", required=True, metavar="BROKER", help="HOST:PORT, mqtt://USER@HOST, mqtts://...")
    parser.add_argument("--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    parser.add_argument("--mqtt-ca", type=Path, help="certificate authorities to trust (the system's)")
    parser.add_argument("--speed", type=float, default=1.0, help="factor on the pace of the data (1)")
    args = parser.parse_args()
    if args.speed <= 0:
        parser.error("--speed must be above 0")

    from fusion.errors import FusionError

    try:
        return publish(args)
    except FusionError as error:
        print(f"publish_recording.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def publish(args: argparse.Namespace) -> int:
    from fusion.files.recordings import Recording
    from fusion.live.connection import Broker, broker_password
    from fusion.live.publisher import Publisher
    from fusion.observations import Frame, GateScan, ItemSighting, ShelfReading

    recording = Recording(args.recording)
    broker = Broker.of(args.mqtt, broker_password(args.mqtt_password_file), args.mqtt_ca)
    names = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates", ItemSighting: "readers"}
    publishers = {kind: Publisher(broker, recording.store.id, name) for kind, name in names.items()}
    n_published, first_ns, started_s = 0, None, time.monotonic()
    # Observations of one time were reported together: the plates of one shelf.
    for t_ns, together in itertools.groupby(recording.observations(), lambda observation: observation.t_ns):
        first_ns = t_ns if first_ns is None else first_ns
        ahead_s = (t_ns - first_ns) / 1e9 / args.speed - (time.monotonic() - started_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
        for kind, same_kind in itertools.groupby(together, type):
            group = list(same_kind)
            publishers[kind].publish(*group)
            n_published += len(group)
    for publisher in publishers.values():
        publisher.close(timeout_s=30.0)
        if publisher.dropped:
            print(f"{publisher.name}: {publisher.dropped} messages were dropped, because the queue was full")
    print(f"{n_published} observations published in {time.monotonic() - started_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
