"""What `serve` shows on the loopback address: /healthz for people and load balancers, /metrics for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Health of every store as plain data, and whether all are well.
Health = Mapping[str, Any]


class HealthServer:
    """Serves the health of a chain's stores, or of anything else that has some, over HTTP.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    def __init__(
        self, health: Callable[[], Health], port: int, metrics: Callable[[Health], bytes] | None = None
    ) -> None:
        """Listen; `run` answers. Port 0 picks a free one. Raises OSError if the port is taken.

        health: holds "well"; metrics: it in the format of Prometheus, `prometheus_text` by default.
        """

        class Handler(_Handler):
            pass

        Handler.health = staticmethod(health)
        Handler.metrics = staticmethod(metrics or prometheus_text)
        self._http = _Server(("127.0.0.1", port), Handler)
        self.port: int = self._http.server_address[1]

    def run(self) -> None:
        """Answer requests until `close`."""
        self._http.serve_forever()

    def close(self) -> None:
        """Stop answering, and free the port."""
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # A client that left before its answer.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10.0
    health: Callable[[], Health]
    metrics: Callable[[Health], bytes]

    def do_GET(self) -> None:
        """Answer /metrics and /healthz."""
        if self.path == "/metrics":
            status, kind, text = 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics(self.health())
        elif self.path == "/healthz":
            health = self.health()
            status, kind = 200 if health["well"] else 503, "application/json"
            text = json.dumps(health).encode()
        else:
            status, kind, text = 404, "text/plain", b"want /metrics or /healthz\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def prometheus_text(health: Health) -> bytes:
    """Health of all stores in the format of Prometheus."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(health["stores"]))
    return generate_latest(registry)


Status = dict[str, Any]

# Names below are prefixed with `fusion_store_`. A value of None leaves the store out.
_GAUGES: tuple[tuple[str, str, Callable[[Status], float | None]], ...] = (
    ("up", "1 while the store is served", lambda store: float(store["state"] == "live")),
    ("parked", "1 where it died too often", lambda store: float(store["state"] == "parked")),
    (
        "configuration_refused",
        "1 while its folder is faulty",
        lambda store: float(bool(store["configuration_refused"])),
    ),
    ("memory_bytes", "proportional share of resident memory", lambda store: store["memory_bytes"]),
    ("queue", "observations that wait for the engine", lambda store: store.get("queue")),
    ("lag_seconds", "how long the observation taken last had waited", lambda store: store.get("lag_s")),
    ("lost_seconds", "longest gap in the sensors' data since the last restart", lambda store: store.get("lost_s")),
    ("newest_seconds", "newest data time, since 1970", lambda store: _seconds(store.get("newest_ns"))),
    (
        "time_off_seconds",
        "newest data time minus the machine's, when data last came",
        lambda store: store.get("time_off_s"),
    ),
    ("time_off", "1 while sensors and machine disagree on the time", lambda store: _is_off(store.get("time_state"))),
    ("clocks_set_back_seconds", "by how much all sensors' clocks were set back", lambda store: store.get("set_back_s")),
    ("snapshot_seconds", "until the newest snapshot was on disk", lambda store: store.get("snapshot_s")),
    ("snapshot_stall_seconds", "how long the engine waited for it", lambda store: store.get("snapshot_stall_s")),
    (
        "snapshot_age_seconds",
        "data time since the newest snapshot",
        lambda store: (store["newest_ns"] - store["snapshot_ns"]) * 1e-9 if store.get("snapshot_ns") else None,
    ),
)
_COUNTERS: tuple[tuple[str, str, str, Callable[[Status], Mapping[str, float]]], ...] = (
    (
        "busy_seconds",
        "time in the engine's steps, including those before its snapshot",
        "kind",
        lambda store: {"step": store["busy_s"]} if "busy_s" in store else {},
    ),
    ("restarts", "restarts of its process", "cause", lambda store: {"death": store["restarts"]}),
    ("dropped", "observations dropped under overload", "stream", lambda store: store.get("dropped", {})),
    ("not_used", "input that could not be used", "reason", lambda store: store.get("not_used", {})),
    ("receipts", "receipts posted by this process", "status", lambda store: store.get("receipts", {})),
    ("observations", "observations for the engine, and other events", "kind", lambda store: store.get("counts", {})),
)
_STEP_QUANTILES = {"p50": "0.5", "p99": "0.99", "max": "1"}


class _Collector:
    def __init__(self, stores: Mapping[str, Status]) -> None:
        self._stores = stores

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, description, value in _GAUGES:
            gauge = GaugeMetricFamily(f"fusion_store_{name}", description, labels=["store"])
            for store_id, store in self._stores.items():
                found = value(store)
                if found is not None:
                    gauge.add_metric([store_id], found)
            yield gauge
        steps = GaugeMetricFamily("fusion_store_step_seconds", "time of an engine's step", labels=["store", "quantile"])
        for store_id, store in self._stores.items():
            for key, quantile in _STEP_QUANTILES.items():
                if "step_us" in store:
                    steps.add_metric([store_id, quantile], store["step_us"][key] * 1e-6)
        yield steps
        for name, description, label, values in _COUNTERS:
            counter = CounterMetricFamily(f"fusion_store_{name}", description, labels=["store", label])
            for store_id, store in self._stores.items():
                for key, n in values(store).items():
                    counter.add_metric([store_id, key], n)
            yield counter


def _is_off(state: str | None) -> float | None:
    return None if state is None else float(state == "off")


def _seconds(t_ns: int | None) -> float | None:
    return t_ns * 1e-9 if t_ns else None
