"""Where observations come from: paced by a clock, checked before anything starts, and gates answered in between."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from live.stepping import Day, quiet_config, recorded_config

from fusion.errors import ConfigError
from fusion.gates.verifiers import GateRequest
from fusion.live.broker_source import BrokerSource
from fusion.live.clock import ManualClock
from fusion.live.config import ServeConfig
from fusion.live.sources import SourceContext, check_source, open_source, paced_source
from fusion.observations import GateScan
from fusion.store.models import Store
from fusion.till.opening import opened
from fusion.till.settings import TillFile
from fusion.till.till import Around, Till

T_NS = 1_767_258_000_000_000_000


def test_a_recording_is_paced_by_its_own_times(recording: Path, day: Day, tmp_path: Path) -> None:
    clock = ManualClock()
    source = paced_source(recorded_config(recording, tmp_path, speed=10.0), 0, clock)
    assert source.behind
    first_ns = day.observations[0].t_ns
    for observation in source:
        due_s = (observation.t_ns - first_ns) * 1e-9 / 10.0
        assert due_s - 0.004 <= clock.now_s <= due_s + 1e-6 and not source.behind


def test_after_a_start_a_source_sends_what_was_kept_and_is_behind_meanwhile(
    recording: Path, day: Day, tmp_path: Path
) -> None:
    clock = ManualClock(20.0)
    source = paced_source(recorded_config(recording, tmp_path, speed=1.0, kept_s=8.0), 0, clock)
    times_s, behind = [], []
    for observation in source:
        times_s.append((observation.t_ns - day.observations[0].t_ns) * 1e-9)
        behind.append(source.behind)
        if times_s[-1] > 22.0:
            source.stop()
    assert times_s[0] == pytest.approx(12.0, abs=0.1) and times_s[-1] == pytest.approx(22.0, abs=0.1)
    n_behind = behind.index(False)
    assert all(behind[:n_behind]) and not any(behind[n_behind:])
    assert times_s[n_behind] == pytest.approx(20.0, abs=0.1)


def test_a_source_starts_at_an_instant(recording: Path, day: Day, tmp_path: Path) -> None:
    since_ns = day.observations[len(day.observations) // 2].t_ns
    source = paced_source(recorded_config(recording, tmp_path), since_ns, ManualClock())
    found = [observation.t_ns for observation in source]
    assert found == [observation.t_ns for observation in day.observations if observation.t_ns >= since_ns]


@pytest.mark.parametrize(
    ("source", "options", "wanted"),
    [
        ("carrier pigeon", {}, "want mqtt://HOST"),
        ("recording:x", {"sped": 1}, "sped: unknown key"),
        ("recording:x", {"speed": 0}, "speed: want a number above 0"),
        ("simulation", {"shoppers": -1}, "shoppers: want a finite number"),
        ("simulation", {"shopers": 1}, "shopers"),
        ("mqtt://me:secret@host", {}, "want no password"),
    ],
)
def test_a_source_that_cannot_exist_is_refused(
    day: Day, tmp_path: Path, source: str, options: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(ConfigError, match=wanted):
        check_source(ServeConfig(day.store, tmp_path, tmp_path, source, options, 0.0))


def till_of(store: Store, folder: Path) -> AbstractContextManager[Till]:
    """A till without a till.toml."""
    around = Around(folder, lambda: T_NS, ManualClock().monotonic_s, threads=False)
    return opened(TillFile(), store, around)


def test_a_users_source_has_to_be_one(day: Day, tmp_path: Path) -> None:
    def config(source: str) -> ServeConfig:
        return ServeConfig(day.store, tmp_path, tmp_path, source, {}, 0.0)

    with till_of(day.store, tmp_path) as till:
        context = SourceContext(till, print, print, ManualClock())
        assert open_source(quiet_config(day.store, tmp_path), 0, context).behind
        with pytest.raises(ConfigError, match="no_such_function"):
            open_source(config("python:json:no_such_function"), 0, context)
        with pytest.raises(ConfigError, match=r"to return a fusion\.live\.sources\.Source, got bool"):
            open_source(config("python:operator:is_"), T_NS, context)


def test_gates_are_answered_after_a_change(day: Day, tmp_path: Path) -> None:
    """A card that is new to the store, before and after its folder changed: prices, and what the gate accepts."""
    store = day.store
    gate = store.gate[0].model_copy(update={"credentials": ("card",)})
    only_cards = store.model_copy(update={"gate": (gate, *store.gate[1:])})
    config = ServeConfig(store, tmp_path, tmp_path, "mqtt://127.0.0.1:1", {}, 0.0)
    with till_of(store, tmp_path) as till:
        promised: list[GateScan] = []
        source = BrokerSource(config, SourceContext(till, print, promised.append, ManualClock()))
        ask = lambda kind, token: source.decide(GateRequest(T_NS, gate.id, kind, token))  # noqa: E731
        before = ask("card", "tok_11111111").open, ask("open", "").open
        till.adopt(only_cards)
        after = ask("card", "tok_22222222"), ask("open", "")
        assert after[0].open and after[0].scan is not None and not after[1].open
        assert before == tuple(kind in store.gate[0].credentials for kind in ("card", "open"))
        assert promised[-1] == after[0].scan  # Before the gate opens.
        assert till.books.verify() is None
        source.stop()
