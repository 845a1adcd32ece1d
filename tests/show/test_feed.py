"""The runner's feed: pages show what it sends, and nothing that a socket does disturbs the runner."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from show.consoles import T_NS, EndedRun, serving

from fusion.errors import FusionError
from fusion.gates.keeper import Decision
from fusion.money.ledger import Ledger
from fusion.observations import GateScan
from fusion.results import PersonLeft, ReceiptLine, Warning, WarningKind
from fusion.show.console.feed import LiveFeed
from fusion.store.models import Store
from fusion.till.baskets import Basket
from fusion.till.till import GateAnswer


def test_a_page_shows_what_the_runner_sends(
    tmp_path: Path, store: Store, users_file: Path, ended_run: EndedRun
) -> None:
    results = ended_run.results
    tick = iter(range(10**9))
    with (
        Ledger.open(tmp_path / "books.sqlite", store) as ledger,
        LiveFeed(store, ended_run.engine, tmp_path / "live.sock", clock_s=lambda: 0.05 * next(tick)) as feed,
        serving(store, ledger, users_file, feed=tmp_path / "live.sock") as served,
        served.stream(served.sign_in()[1]) as messages,
    ):
        for result in results[: len(results) // 3]:
            feed.add(result)
        while not feed.n_readers:
            feed.accept()
            time.sleep(0.01)
        received = []

        def until(condition: Callable[[dict[str, Any]], bool]) -> None:
            """Send the page everything, and read up to the first such message."""
            while feed.n_unread:
                feed.flush()
                time.sleep(0.01)
            for message in messages:
                received.append(message)
                if condition(message):
                    break

        # Of many states a page gets the newest: stop where a cart is full, before the last person leaves.
        leaves = [i for i, result in enumerate(results) if isinstance(result, PersonLeft)][-1]
        for result in results[len(results) // 3 : leaves]:
            feed.add(result)
        until(lambda message: "state" in message and any(cart[2] for cart in message["state"]["carts"]))
        for result in results[leaves:]:
            feed.add(result)
        feed.add(Warning(T_NS, WarningKind.CAMERA_BACK, "the last one"))
        until(lambda message: message.get("alert", ["", "", ""])[2] == "the last one")
    kinds = {kind for message in received for kind in message}
    assert kinds >= {"live", "state", "health", "event", "books", "reviews"}
    states = [message["state"] for message in received if "state" in message]
    # Receipts are the books' to report. Every sensor has the time since which it has been as it is.
    assert not any("receipt" in message for message in received)
    health = next(message["health"] for message in received if "health" in message)
    assert [row[0] for row in health["cameras"]] == [camera.name for camera in store.cameras]
    assert all(isinstance(since_ms, int) for _, _, since_ms in health["cameras"])
    assert max(len(state["people"]) for state in states) >= 1
    assert any(cart[2] for state in states for cart in state["carts"])
    assert states[-1]["counts"]["entered"] == 3 and set(states[-1]["gates"]) == {gate.id for gate in store.gate}


def test_screens_learn_what_gates_answer_and_who_stands_where_baskets_are_paid(
    tmp_path: Path, store: Store, ended_run: EndedRun
) -> None:
    answers = [
        GateAnswer(T_NS, "entry", False, Decision(True, "welcome", "Anna", GateScan(T_NS, "entry", "qr", "acc-1"))),
        GateAnswer(T_NS, "exit", True, Decision(False, "not paid", "Please pay first")),
        GateAnswer(T_NS, "exit", True, Decision(False, "slow", "One moment please", again_s=0.5)),
    ]
    basket = Basket("v1", (ReceiptLine("g", 2, 50, 0.9),), 100, T_NS, "p-secret")
    with LiveFeed(store, ended_run.engine, tmp_path / "live.sock") as feed:
        for answer in answers:
            feed.show_answer(answer)  # with no reader it is gone: a screen shows what happens now
        feed.show_baskets("zone/pay", (basket,), T_NS)
        with closing(socket.socket(socket.AF_UNIX)) as page:
            page.connect(str(tmp_path / "live.sock"))
            feed.accept()
            for answer in answers:
                feed.show_answer(answer)
            feed.add(PersonLeft(T_NS, 7, "exit", "acc-1", "v1"))
            feed.close()
            with page.makefile() as lines:
                rows = [json.loads(line) for line in lines]
    ms = T_NS // 10**6
    gates = [row["gate"] for row in rows if "gate" in row]
    assert [row[1:5] for row in gates] == [
        ["entry", "in", "open", "Anna"], ["exit", "out", "shut", "Please pay first"],
        ["exit", "out", "moment", "One moment please"],
    ]  # fmt: skip
    assert [row["left"] for row in rows if "left" in row] == [[ms, "exit", "v1"]]
    # What a zone shows is there for a screen that comes later.
    assert [row["baskets"] for row in rows if "baskets" in row] == [[ms, "zone/pay", [["v1", 100, [["g", 2, 50]]]]]]
    assert "acc-1" not in str(gates) and "p-secret" not in str(rows)


def test_garbled_lines_of_a_runner_reach_no_page(tmp_path: Path, store: Store, users_file: Path) -> None:
    with (
        Ledger.open(tmp_path / "books.sqlite", store) as ledger,
        closing(socket.socket(socket.AF_UNIX)) as listener,
    ):
        listener.bind(str(tmp_path / "live.sock"))
        listener.listen()
        with (
            serving(store, ledger, users_file, feed=tmp_path / "live.sock", connect_every_s=0.05) as served,
            served.stream(served.sign_in()[1]) as messages,  # which reads JSON as strictly as a browser
        ):
            runner, _ = listener.accept()
            for line in (
                '{"shop":7}', '{"shop":{"who":[],"carts":[],"gates":{},"counts":{}}}', '{"at":[0,"00","",""]}',
                '{"at":[1e999,"","",""]}', '{"at":7}', '{"event":', '{"health":[NaN]}', '{"alert":[Infinity]}', "\x00",
                '{"event":' + "[" * 100_000, '{"trouble":"a runner may not send this"}',
            ):  # fmt: skip
                runner.sendall(line.encode() + b"\n")
            runner.sendall(b'{"alert":[0,"still","",""]}\n{"alert":[0,"hal')
            runner.close()
            runner, _ = listener.accept()
            runner.sendall(b'{"alert":[0,"the end","",""]}\n')
            received = []
            for message in messages:
                received.append(message)
                if message.get("alert", ["", ""])[1] == "the end":
                    break
            runner.close()
    assert [row["alert"][1] for row in received if "alert" in row] == ["still", "the end"]
    assert not any(row.get("trouble") or "event" in row or "health" in row for row in received)


def test_a_slow_console_is_cut_off_and_the_runner_continues(tmp_path: Path, store: Store, ended_run: EndedRun) -> None:
    tick = iter(range(10**9))
    with LiveFeed(
        store, ended_run.engine, tmp_path / "s", clock_s=lambda: 0.2 * next(tick), unread_max_bytes=50_000
    ) as feed:
        with socket.socket(socket.AF_UNIX) as slow, socket.socket(socket.AF_UNIX) as gone:
            for console in (slow, gone):
                console.connect(str(tmp_path / "s"))
            feed.accept()
            gone.close()
            for _ in range(3):
                for result in ended_run.results:
                    feed.add(result)
        assert feed.dropped == 1 and feed.n_readers == 0


def test_the_socket_is_for_this_user_alone(tmp_path: Path, store: Store, ended_run: EndedRun) -> None:
    path, engine = tmp_path / "live.sock", ended_run.engine
    feed = LiveFeed(store, engine, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FusionError, match="another runner listens"):
        LiveFeed(store, engine, path)
    feed.close()
    assert not path.exists()
    with closing(socket.socket(socket.AF_UNIX)) as killed:
        killed.bind(str(path))  # the file of a runner that was killed stays
    LiveFeed(store, engine, path).close()
    assert not path.exists()
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(FusionError, match="a file that is not a socket is in the way"):
        LiveFeed(store, engine, path)
    assert path.read_text(encoding="utf-8") == "precious"
    with pytest.raises(FusionError, match="the socket cannot be created"):
        LiveFeed(store, engine, tmp_path / ("x" * 200))
