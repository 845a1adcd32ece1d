"""The console: who gets in, what a page is told, decisions in the books; and what a runner tells consoles."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import uvicorn
from browsing import browsing, complaints, in_browser, requested

from fusion.commands.main import main
from fusion.engine import Engine
from fusion.errors import FusionError, LedgerError
from fusion.files.results import ResultsWriter
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import InProcessProvider, PaymentError
from fusion.money.sales import Discount
from fusion.results import PersonLeft, Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.run import Run
from fusion.show.console.feed import LiveFeed
from fusion.show.console.server import Console
from fusion.show.console.users import Sessions, Users
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store
from fusion.store.prices import Offer, Price, Prices

T_NS = 1_772_528_646_000_000_000
PASSWORD = "correct horse battery"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def store() -> Store:
    return demo_store(n_cameras=6, n_plates=24)


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.json"
    users = Users(path)
    users.add("anna", PASSWORD, store.id)
    users.add("ben", PASSWORD, store.id)
    users.add("eve", PASSWORD, "another-store")
    return path


def review(store: Store, visit: str, reason: str = "not sure who took what", account: str = "acc-1") -> Receipt:
    one, other = store.products[:2]
    lines = (ReceiptLine(one.gtin, 2, one.price, 0.97), ReceiptLine(other.gtin, 1, other.price, 0.6))
    total = 2 * one.price + other.price
    times = (T_NS, T_NS + 60 * 10**9, T_NS + 61 * 10**9)
    reasons = (Reason(ReasonKind.NOTE, detail=reason),)
    return Receipt(visit, account, *times, ReceiptStatus.REVIEW, reasons, store.currency, total, lines)


@dataclasses.dataclass
class Served:
    """A console that is being served on a free port of this machine."""

    console: Console
    ledger: Ledger
    port: int

    def ask(
        self, method: str, path: str, body: str | bytes = "", headers: dict[str, str] | None = None, **more: str
    ) -> tuple[int, dict[str, str], str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body or None, {**(headers or {}), **more})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sign_in(self, name: str = "anna", password: str = PASSWORD, **headers: str) -> tuple[int, dict[str, str]]:
        """Status, and the headers that a page of this person sends."""
        form = urlencode({"name": name, "password": password})
        status, answer, _ = self.ask("POST", "/sign-in", form, {"Origin": self.origin} | headers)
        cookie = answer.get("set-cookie", "").split(";")[0]
        if status != 303:
            return status, {"Cookie": cookie}
        _, _, page = self.ask("GET", "/", headers={"Cookie": cookie})
        token = page.split('name="csrf" content="')[1].split('"')[0]
        return status, {"Cookie": cookie, "X-CSRF-Token": token, "Origin": self.origin}

    def decide(self, visit: str, headers: dict[str, str], **decision: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"decision": "accept", "revision": 1, **decision})
        status, _, answer = self.ask("POST", f"/api/reviews/{quote(visit, safe='')}", body, headers)
        return status, json.loads(answer)

    @contextmanager
    def stream(self, headers: dict[str, str]) -> Iterator[Iterator[dict[str, Any]]]:
        """What a page is pushed."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", "/api/live", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200

            def messages() -> Iterator[dict[str, Any]]:
                # Signs of life keep the connection from timing out: what never comes must not be waited for.
                deadline_s = time.monotonic() + 120
                while line := answer.readline():
                    assert time.monotonic() < deadline_s
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:], parse_constant=lambda text: pytest.fail(text))

            yield messages()


@contextmanager
def serving(store: Store, ledger: Ledger, users: Path, **options: Any) -> Iterator[Served]:
    console = Console(store, ledger, Users(users), **options)
    config = uvicorn.Config(console.app, port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Served(console, ledger, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def served(tmp_path: Path, store: Store, users_file: Path) -> Iterator[Served]:
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        ledger.post_receipt(review(store, "visit-1"))
        ledger.post_receipt(review(store, "visit/2 ä", HOSTILE, HOSTILE))
        with serving(store, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served:
            yield served


# ---- who gets in -----------------------------------------------------------------------------------------------------

SECRETS = ("acc-1", "visit-1", "not sure who", "Cola")


def nothing_for(served: Served, headers: dict[str, str]) -> None:
    """Whoever sends these headers learns nothing and changes nothing."""
    before = served.ledger.head()
    for path in ("/", "/api/store", "/api/live", "/api/reviews/visit-1"):
        status, _, body = served.ask("GET", path, headers=headers)
        assert status in (303, 401) and not any(secret in body for secret in SECRETS), path
    status, _ = served.decide("visit-1", {"Origin": served.origin, "X-CSRF-Token": "x"} | headers)
    assert status in (401, 403)
    assert served.ledger.head() == before


def test_without_signing_in_there_is_nothing(served: Served) -> None:
    nothing_for(served, {})
    status, headers, body = served.ask("GET", "/sign-in")
    assert status == 200 and "password" in body and not any(secret in body for secret in SECRETS)
    assert "default-src 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong"), ("anna", ""), ("nobody", PASSWORD), ("eve", PASSWORD), ("", ""), ("anna\x00", PASSWORD)],
)
def test_wrong_names_and_passwords_get_nothing(served: Served, name: str, password: str) -> None:
    # eve's password is right, for another store.
    status, headers = served.sign_in(name, password)
    assert status == 403 and headers["Cookie"] == ""
    nothing_for(served, headers)


def test_forged_sessions_get_nothing(served: Served) -> None:
    _, headers = served.sign_in()
    cookie, _, token = headers["Cookie"].partition("=")
    for forged in (token[:-1], token + "A", token[::-1], "", "a" * 4000, "../../etc/passwd"):
        nothing_for(served, {**headers, "Cookie": f"{cookie}={forged}"})
    nothing_for(served, {**headers, "Cookie": f"other={token}"})


def test_a_session_of_another_store_gets_nothing(served: Served, tmp_path: Path, users_file: Path) -> None:
    other = demo_store(n_cameras=6, n_plates=24).model_copy(update={"id": "another-store"})
    with Ledger.open(tmp_path / "other.sqlite", other) as ledger, serving(other, ledger, users_file) as elsewhere:
        status, headers = elsewhere.sign_in("eve")
        assert status == 303 and elsewhere.ask("GET", "/api/store", headers=headers)[0] == 200
        nothing_for(served, headers | {"Origin": served.origin})
        renamed = {"Cookie": f"{served.console._cookie}={headers['Cookie'].partition('=')[2]}"}
        nothing_for(served, renamed)
        nothing_for(elsewhere, {"Cookie": served.sign_in()[1]["Cookie"]})


def test_other_sites_cannot_act_for_somebody(served: Served) -> None:
    _, headers = served.sign_in()
    before = served.ledger.head()
    without = {key: value for key, value in headers.items() if key != "X-CSRF-Token"}
    for changed in (
        without,
        headers | {"X-CSRF-Token": "guess"},
        headers | {"Origin": "https://evil.example"},
        headers | {"Origin": "null"},
        {key: value for key, value in headers.items() if key != "Origin"},
    ):
        assert served.decide("visit-1", changed)[0] == 403
    assert served.sign_in(Origin="https://evil.example")[0] == 403
    assert served.ledger.head() == before
    # A name that somebody makes point to this machine is not ours.
    assert served.ask("GET", "/", headers={"Host": "evil.example"})[0] == 400
    cookie = served.ask(
        "POST", "/sign-in", urlencode({"name": "anna", "password": PASSWORD}), {"Origin": served.origin}
    )[1]["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie


def test_guessing_has_to_wait(served: Served) -> None:
    for _ in range(5):
        assert served.sign_in("anna", "wrong password")[0] == 403
    assert served.sign_in("anna", PASSWORD)[0] == 429


def test_guesses_at_the_same_time_have_to_wait_too(served: Served) -> None:
    statuses: list[int] = []
    guesses = [
        threading.Thread(target=lambda n=n: statuses.append(served.sign_in("anna", f"guess {n}")[0])) for n in range(20)
    ]
    for guess in guesses:
        guess.start()
    for guess in guesses:
        guess.join()
    assert statuses.count(403) == 5 and statuses.count(429) == 15


def test_garbled_requests_to_sign_in_are_refused(served: Served) -> None:
    form = urlencode({"name": "anna", "password": PASSWORD})
    assert served.ask("POST", "/sign-in", form + "&a=1&b=2&c=3", {"Origin": served.origin})[0] == 400
    for origin in ("http://[", "://", f"ftp://127.0.0.1:{served.port}", f"{served.origin}@evil.example", "http://"):
        assert served.ask("POST", "/sign-in", form, {"Origin": origin})[0] == 403, origin
    assert served.sign_in("x" * 5000)[0] == 403
    assert all(len(key) < 100 for key in served.console._sessions._failed)


def test_sessions_end() -> None:
    sessions = Sessions()
    token = sessions.begin("anna", 0.0)
    assert sessions.get(token, 3000.0) is not None
    assert sessions.get(token, 6000.0, touch=False) is not None
    assert sessions.get(token, 7000.0) is None, "an hour without a click"
    token = sessions.begin("anna", 0.0)
    for hour in range(1, 11):
        assert sessions.get(token, hour * 3500.0) is not None
    assert sessions.get(token, 10 * 3600.0 + 1) is None, "after a shift"
    assert sessions.must_wait(("x",), 0.0) is False


def test_signing_out_ends_pages_too(served: Served) -> None:
    _, headers = served.sign_in()
    with served.stream(headers) as messages:
        assert next(messages) == {"live": False}
        assert served.ask("POST", "/sign-out", "", headers)[0] == 200
        served.ledger.open_visit("visit-9", None, T_NS)
        served.ledger.post_receipt(review(served.console._store, "visit-10"))
        told = [message for message in messages if "visit-10" in json.dumps(message)]
        assert told == []
    nothing_for(served, headers)


def test_too_long_a_body_is_refused(served: Served) -> None:
    _, headers = served.sign_in()
    status, answer = served.decide("visit-1", headers, note="x" * 100_000)
    assert status == 413 and answer == {"error": "too long"}


# ---- users -----------------------------------------------------------------------------------------------------------


def test_the_file_of_users(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    users = Users(path)
    users.add("anna", PASSWORD, "a")
    users.add("anna", "another password", "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and PASSWORD not in path.read_text(encoding="utf-8")
    kept = Users(path)
    assert [kept.check("anna", "another password", where) for where in ("a", "b", "c")] == [True, True, False]
    assert not kept.check("anna", PASSWORD, "a")
    bad_names = [(name, PASSWORD) for name in ("", " anna", "a\nb", "x" * 61)]
    for name, password in (*bad_names, ("a", "short"), ("a", "x" * 201)):
        with pytest.raises(FusionError, match=r"want"):
            users.add(name, password, "a")
    path.chmod(0o644)
    with pytest.raises(FusionError, match="its owner alone"):
        Users(path)
    path.chmod(0o600)
    for text in ("{", '{"anna": {"salt": "x"}}', '["anna"]'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FusionError, match=r"users\.json"):
            Users(path)


def test_who_is_added_or_taken_out_while_the_console_runs(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    users = Users(path)
    Users(path).add("anna", PASSWORD, "a")
    assert users.check("anna", PASSWORD, "a")
    path.write_text("{half", encoding="utf-8")
    assert users.check("anna", PASSWORD, "a"), "a file that is being mended changes nothing"
    path.write_text("{}", encoding="utf-8")
    assert not users.check("anna", PASSWORD, "a")


def test_who_ends_the_console_does_not_wait_for_pages(tmp_path: Path, store: Store, users_file: Path) -> None:
    store.save(tmp_path / "store")
    Ledger.open(tmp_path / "ledger.sqlite", store).close()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fusion", "console", str(tmp_path / "store"), "--port", str(port)]
    command += ["--ledger", str(tmp_path / "ledger.sqlite"), "--users", str(users_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            deadline_s = time.monotonic() + 30
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                assert time.monotonic() < deadline_s and process.poll() is None
                time.sleep(0.05)
            served = Served(None, None, port)  # type: ignore[arg-type]
            with served.stream(served.sign_in()[1]) as messages:
                next(messages)
                process.send_signal(signal.SIGINT)
                process.wait(10)
        finally:
            process.kill()


def test_the_command_says_what_it_wants(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(tmp_path / "store")
    common = ["console", str(tmp_path / "store"), "--ledger"]
    books = str(tmp_path / "ledger.sqlite")
    assert main([*common, books]) == 2 and "--add-user" in capsys.readouterr().err
    assert main([*common, "postgresql://nowhere/x"]) == 2 and "--users" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 closed with the process
    assert main([*common, books, "--add-user", "anna"]) == 2 and "password" in capsys.readouterr().err
    Users(tmp_path / "users.json").add("anna", PASSWORD, store.id)
    assert main([*common, books]) == 2 and "the books do not exist" in capsys.readouterr().err
    assert main([*common, books, "--host", "0.0.0.0"]) == 2 and "--certificate" in capsys.readouterr().err
    Ledger.open(books, store).close()
    assert main([*common, books, "--provider", "https://x"]) == 2
    assert "FUSION_PROVIDER_SECRET" in capsys.readouterr().err


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_a_decision_is_in_the_books_with_who_and_when(served: Served, store: Store) -> None:
    _, headers = served.sign_in("ben")
    status, answer = served.decide("visit-1", headers, note="seen on the shelf")
    assert status == 200 and answer["status"] == "decided" and answer["revision"] == 1
    (entry,) = [one for one in served.ledger.entries("visit-1") if one.kind == "decision accept"]
    assert entry.request["by"] == "ben" and entry.request["note"] == "seen on the shelf"
    assert abs(entry.t_ns - time.time_ns()) < 60e9
    assert sum(leg.amount for leg in entry.postings) == 0 and entry.postings
    assert served.ledger.verify() is None
    _, _, shown = served.ask("GET", "/api/reviews/visit-1", headers=headers)
    assert json.loads(shown)["decided"] == [{"decision": "accept", "by": "ben", "ms": entry.t_ns // 10**6}]


def test_lines_are_corrected_and_visits_waived(served: Served, store: Store) -> None:
    _, headers = served.sign_in()
    one, _, third = store.products[:3]
    lines = [{"gtin": one.gtin, "quantity": 1}, {"gtin": third.gtin, "quantity": 3}]
    status, answer = served.decide("visit-1", headers, decision="correct", lines=lines)
    assert status == 200 and answer["total"] == one.price + 3 * third.price
    status, answer = served.decide("visit/2 ä", headers, decision="waive")
    assert status == 200 and answer["total"] == 0
    assert served.ledger.reviews() == []
    # What was decided can be decided anew, by the number of the next revision.
    status, answer = served.decide("visit-1", headers, decision="waive", revision=2)
    assert status == 200 and answer["total"] == 0 and served.ledger.balances()[store.currency].get("receivable", 0) == 0


def test_what_is_on_a_bill_keeps_its_price_when_it_is_corrected(tmp_path: Path, store: Store, users_file: Path) -> None:
    one, other, third = store.products[:3]
    offer = Offer(id="club", gtins=(third.gtin,), percent=50, members=True)
    dear = store.model_copy(
        update={"prices": Prices(price=(Price(gtin=third.gtin, price=100, members=True),), offer=(offer,))}
    )
    # Taken when it was cheaper; and a member's bill.
    lines = (
        ReceiptLine(one.gtin, 1, one.price - 9, 0.9), ReceiptLine(one.gtin, 2, one.price, 0.9),
        ReceiptLine(other.gtin, 1, other.price, 0.5),
    )  # fmt: skip
    total = sum(line.quantity * line.unit_price for line in lines)
    clubs = (ReceiptLine(third.gtin, 1, 100, 0.9), ReceiptLine(other.gtin, 1, other.price, 0.5))
    with Ledger.open(tmp_path / "ledger.sqlite", dear) as ledger:
        ledger.post_receipt(dataclasses.replace(review(dear, "visit-1"), lines=lines, total=total))
        bill = dataclasses.replace(review(dear, "visit-2"), lines=clubs, total=50 + other.price)
        ledger.post_receipt(bill, (Discount("club", third.gtin, 50),))
        with serving(dear, ledger, users_file) as served:
            _, headers = served.sign_in()
            kept = [{"gtin": one.gtin, "quantity": 4}, {"gtin": third.gtin, "quantity": 1}]
            _, answer = served.decide("visit-1", headers, decision="correct", lines=kept)
            assert answer["total"] == 4 * one.price - 9 + third.price and answer["discounts"] == 0
            kept = [{"gtin": third.gtin, "quantity": 3}]
            _, answer = served.decide("visit-2", headers, decision="correct", lines=kept)
            assert answer["total"] == 3 * 50 and answer["discounts"] == 3 * 50
        assert ledger.verify() is None


def test_decisions_that_make_no_sense_are_refused(served: Served, store: Store) -> None:
    _, headers = served.sign_in()
    gtin = store.products[0].gtin
    before = served.ledger.head()
    for decision in (
        {"decision": "approve"},
        {"decision": "correct"},
        {"decision": "accept", "lines": [{"gtin": gtin, "quantity": 1}]},
        {"decision": "correct", "lines": [{"gtin": "0000", "quantity": 1}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 0}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 1.5}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 1, "unit_price": 1}]},
        {"revision": 2},
        {"revision": "1; DROP TABLE entry"},
        {"by": "somebody else"},
    ):
        status, answer = served.decide("visit-1", headers, **decision)
        if decision == {"decision": "correct"}:
            assert status == 200, "no lines at all: nothing was taken"
            before = served.ledger.head()
        else:
            assert status == 400 and answer["error"], decision
    assert served.ask("POST", "/api/reviews/visit-1", "{not json", headers)[0] == 400
    assert served.decide("no-such-visit", headers)[0] == 400
    assert served.ask("GET", "/api/reviews/no-such-visit", headers=headers)[0] == 404
    assert served.ask("GET", "/api/reviews/%00", headers=headers)[0] == 404
    assert served.ask("GET", "/assets/..%2fcli.py", headers=headers)[0] == 404
    assert served.ledger.head() == before


def test_of_two_who_decide_the_second_is_told(served: Served) -> None:
    (_, anna), (_, ben) = served.sign_in("anna"), served.sign_in("ben")
    assert served.decide("visit-1", anna, decision="waive")[0] == 200
    status, answer = served.decide("visit-1", ben)
    assert status == 409 and "somebody else decided" in answer["error"]


def test_another_console_sees_a_decision_at_once(
    served: Served, store: Store, users_file: Path, tmp_path: Path
) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger, serving(store, ledger, users_file) as second:
        _, headers = second.sign_in("ben")
        with second.stream(headers) as messages:
            waiting = next(row["reviews"] for row in messages if row.get("reviews"))
            assert [row["visit"] for row in waiting] == ["visit-1", "visit/2 ä"]
            assert served.decide("visit-1", served.sign_in()[1])[0] == 200
            left = next(row["reviews"] for row in messages if "reviews" in row)
            assert [row["visit"] for row in left] == ["visit/2 ä"]


def test_money_moves_with_the_decision_where_a_provider_is_at_hand(
    tmp_path: Path, store: Store, users_file: Path
) -> None:
    provider = InProcessProvider()
    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        from fusion.money.vault import Holder

        ledger.hold(Holder("acc-1", "customer", "tok_1", None, T_NS))
        ledger.post_receipt(review(store, "visit-1"))
        with serving(store, ledger, users_file, checkout=Checkout(ledger, provider, store)) as served:
            status, answer = served.decide("visit-1", served.sign_in()[1])
        assert status == 200 and provider.total == answer["total"] > 0


def test_a_provider_that_is_away_does_not_undo_a_decision(tmp_path: Path, store: Store, users_file: Path) -> None:
    class Away(Checkout):
        def settle(self, visit: str, t_ns: int) -> Any:
            raise PaymentError("nobody answers")

    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        ledger.post_receipt(review(store, "visit-1"))
        with serving(store, ledger, users_file, checkout=Away(ledger, InProcessProvider(), store)) as served:
            status, answer = served.decide("visit-1", served.sign_in()[1])
    assert status == 200 and answer["status"] == "decided"


def test_books_that_are_away_for_a_while(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, headers = served.sign_in()

    def away(*_: object) -> Any:
        raise LedgerError("want a ledger that can be read, got: database is locked")

    with served.stream(headers) as messages:
        with monkeypatch.context() as broken:
            for method in ("head", "standing", "entries"):
                broken.setattr(served.ledger, method, away)
            assert next(row["trouble"] for row in messages if row.get("trouble"))
            assert served.ask("GET", "/api/reviews/visit-1", headers=headers)[0] == 503
            with served.stream(headers) as late:
                assert next(row["trouble"] for row in late if "trouble" in row)
        # Pages are told when it is over.
        assert next(row["trouble"] for row in messages if "trouble" in row) == ""
    assert served.ask("GET", "/api/reviews/visit-1", headers=headers)[0] == 200
    with monkeypatch.context() as broken:
        broken.setattr(served.ledger, "head", away)
        assert served.decide("visit-1", headers)[0] == 200, "what is in the books is not told as a failure"


# ---- evidence --------------------------------------------------------------------------------------------------------


def evidence(visit: str, **more: Any) -> str:
    return json.dumps({"visit": visit, "reasons": [visit], "events": [], "sightings": [], **more}) + "\n"


def test_evidence_that_is_garbled_keeps_nobody_from_deciding(served: Served, tmp_path: Path) -> None:
    _, headers = served.sign_in()
    path = tmp_path / "evidence.jsonl"

    def shown(visit: str = "visit-1") -> Any:
        status, _, answer = served.ask("GET", f"/api/reviews/{quote(visit, safe='')}", headers=headers)
        assert status == 200
        return json.loads(answer, parse_constant=lambda text: pytest.fail(text))["evidence"]

    assert shown() is None
    path.mkdir()
    assert shown() is None, "a folder of that name"
    path.rmdir()
    path.write_text("[" * 100_000 + "\n[]\n7\n\udcff\n" + evidence("visit-1")[:40], "utf-8", "surrogateescape")
    assert shown() is None
    path.write_text(evidence("visit-1", grams=[1.0, float("nan")], name="\ud800"), encoding="utf-8")
    assert shown()["grams"] == [1.0, None] and shown()["name"] == "\ud800"
    # Another run's file, in place of this one's and already longer.
    path.write_text(evidence("visit/2 ä", pad="x" * 30) + evidence("visit-1", run=2), encoding="utf-8")
    assert shown()["run"] == 2 and shown("visit/2 ä")["reasons"] == ["visit/2 ä"]
    path.write_text(evidence("visit-1", grams=[1]).replace("[1]", "[1e999]"), encoding="utf-8")
    assert shown() is None


def test_several_may_ask_for_evidence_at_once(store: Store, tmp_path: Path, users_file: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text("".join(evidence(f"visit-{n}", pad="x" * (n % 97)) for n in range(5000)), encoding="utf-8")
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        console = Console(store, ledger, Users(users_file), evidence=path)
        found: list[Any] = []
        askers = [
            threading.Thread(target=lambda n=n: found.append((n, console._evidence_of(f"visit-{n}"))))
            for n in range(4990, 5000)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert len(found) == 10 and all(bundle["visit"] == f"visit-{n}" for n, bundle in found)


# ---- what a runner tells ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended_run(store: Store) -> tuple[Run, list[Any]]:
    run = Run(store, Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=3)).observations())
    return run, [*run.results(), *run.finish()]


@pytest.fixture
def results(ended_run: tuple[Run, list[Any]]) -> tuple[Engine, list[Any]]:
    run, all_results = ended_run
    return run.engine, all_results


def test_a_page_is_told_what_the_runner_tells(
    tmp_path: Path, store: Store, users_file: Path, results: tuple[Engine, list[Any]]
) -> None:
    engine, all_results = results
    tick = iter(range(10**9))
    with (
        Ledger.open(tmp_path / "books.sqlite", store) as ledger,
        LiveFeed(store, engine, tmp_path / "live.sock", clock_s=lambda: 0.05 * next(tick)) as feed,
        serving(store, ledger, users_file, feed=tmp_path / "live.sock") as served,
        served.stream(served.sign_in()[1]) as messages,
    ):
        for result in all_results[: len(all_results) // 3]:
            feed.add(result)
        while not feed._readers:
            feed._accept()
            time.sleep(0.01)
        told = []

        def until(what: Callable[[dict[str, Any]], bool]) -> None:
            """Send the page all there is, and read up to such a message."""
            while any(unread for _, unread in feed._readers):
                feed._send("")
                time.sleep(0.01)
            for message in messages:
                told.append(message)
                if what(message):
                    break

        # Of many states a page gets the newest: wait where it shows somebody with a cart, before the last one leaves.
        leaves = [i for i, result in enumerate(all_results) if isinstance(result, PersonLeft)][-1]
        for result in all_results[len(all_results) // 3 : leaves]:
            feed.add(result)
        until(lambda message: "state" in message and any(cart[2] for cart in message["state"]["carts"]))
        for result in all_results[leaves:]:
            feed.add(result)
        feed._tell("alert", [0, "the end", "", ""])
        until(lambda message: message.get("alert", ["", ""])[1] == "the end")
    kinds = {kind for message in told for kind in message}
    assert kinds >= {"live", "state", "health", "event", "receipt", "reviews"}
    states = [message["state"] for message in told if "state" in message]
    receipts = [message["receipt"] for message in told if "receipt" in message]
    assert len(receipts) == 3 and {row[3] for row in receipts} <= {"settled", "review"}
    assert max(len(state["people"]) for state in states) >= 1
    assert any(cart[2] for state in states for cart in state["carts"])
    assert states[-1]["counts"]["entered"] == 3 and set(states[-1]["gates"]) == {gate.id for gate in store.gate}


def test_garbled_lines_of_a_runner_reach_no_page(
    tmp_path: Path, store: Store, users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusion.show.console.server.CONNECT_EVERY_S", 0.05)
    with (
        Ledger.open(tmp_path / "books.sqlite", store) as ledger,
        closing(socket.socket(socket.AF_UNIX)) as listener,
    ):
        listener.bind(str(tmp_path / "live.sock"))
        listener.listen()
        with (
            serving(store, ledger, users_file, feed=tmp_path / "live.sock") as served,
            served.stream(served.sign_in()[1]) as messages,  # which reads JSON as strictly as a browser has to
        ):
            runner, _ = listener.accept()
            for line in (
                '{"shop":7}', '{"shop":{"who":[],"carts":[],"gates":{},"counts":{}}}', '{"at":[0,"00","",""]}',
                '{"at":[1e999,"","",""]}', '{"at":7}', '{"event":', '{"health":[NaN]}', '{"alert":[Infinity]}', "\x00",
                '{"event":' + "[" * 100_000, '{"trouble":"what a runner may not say"}',
            ):  # fmt: skip
                runner.sendall(line.encode() + b"\n")
            runner.sendall(b'{"alert":[0,"still","",""]}\n{"alert":[0,"hal')
            runner.close()
            runner, _ = listener.accept()
            runner.sendall(b'{"alert":[0,"the end","",""]}\n')
            told = []
            for message in messages:
                told.append(message)
                if message.get("alert", ["", ""])[1] == "the end":
                    break
            runner.close()
    assert [row["alert"][1] for row in told if "alert" in row] == ["still", "the end"]
    assert not any(row.get("trouble") or "event" in row or "health" in row for row in told)


def test_a_slow_console_is_let_go_and_the_runner_goes_on(
    tmp_path: Path, store: Store, results: tuple[Engine, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusion.show.console.feed.UNREAD_MAX_BYTES", 50_000)
    engine, all_results = results
    tick = iter(range(10**9))
    with LiveFeed(store, engine, tmp_path / "s", clock_s=lambda: 0.2 * next(tick)) as feed:
        with socket.socket(socket.AF_UNIX) as slow, socket.socket(socket.AF_UNIX) as gone:
            for one in (slow, gone):
                one.connect(str(tmp_path / "s"))
            feed._accept()
            gone.close()
            for _ in range(3):
                for result in all_results:
                    feed.add(result)
        assert feed.dropped == 1 and feed._readers == []


def test_the_socket_is_for_this_user_alone(tmp_path: Path, store: Store, results: tuple[Engine, list[Any]]) -> None:
    path = tmp_path / "live.sock"
    feed = LiveFeed(store, results[0], path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FusionError, match="another runner listens"):
        LiveFeed(store, results[0], path)
    feed._listener.close()  # as after a kill: the file stays
    LiveFeed(store, results[0], path).close()
    assert not path.exists()
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(FusionError, match="got a file that is none"):
        LiveFeed(store, results[0], path)
    assert path.read_text(encoding="utf-8") == "precious"
    with pytest.raises(FusionError, match="want a place for a socket"):
        LiveFeed(store, results[0], tmp_path / ("x" * 200))


# ---- in a real browser -----------------------------------------------------------------------------------------------


@in_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_person_decides_in_a_browser(
    tmp_path: Path, store: Store, users_file: Path, ended_run: tuple[Run, list[Any]], width: int
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    # A recording with doubtful visits, its results as a runner leaves them; and a visit with hostile names.
    run, all_results = ended_run
    hostile = store.model_copy(update={"name": HOSTILE})
    with Ledger.open(tmp_path / "ledger.sqlite", hostile) as ledger:
        writer = ResultsWriter(tmp_path, store)
        for result in all_results:
            if isinstance(result, Receipt):
                doubts = (Reason(ReasonKind.NOTE, detail=HOSTILE),)
                doubted = dataclasses.replace(result, status=ReceiptStatus.REVIEW, reasons=doubts)
                ledger.post_receipt(doubted)
                bundle = run.engine.evidence(result.visit)
                assert bundle is not None
                writer.write(bundle, run.engine.account_of)
        writer.close(run.summary())
        waiting = ledger.reviews()
        assert len(waiting) == 3
        with (
            serving(hostile, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served,
            browsing(width) as driver,
        ):
            wait = WebDriverWait(driver, 15)

            def found(selector: str) -> Any:
                return driver.find_element(By.CSS_SELECTOR, selector)

            driver.get(served.origin)
            found("[name=name]").send_keys("anna")
            found("[name=password]").send_keys(PASSWORD)
            found("button.primary").click()
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 3)
            assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
            found("#reviews button").click()
            wait.until(lambda _: found("#review").is_displayed())
            first = waiting[0]
            assert first.visit in found("#review-meta").text and len(found("#review-why").text) > 10
            assert driver.find_elements(By.CSS_SELECTOR, "#review-evidence polyline.weight")
            assert driver.find_elements(By.CSS_SELECTOR, "#review-evidence polyline.wrist")
            # Where the plate came to rest, and where it was before, are both inside the picture of its weight.
            levels = driver.find_elements(By.CSS_SELECTOR, "#review-evidence .trace .level")
            assert levels and all(14 < float(line.get_attribute("y1")) < 60 for line in levels)
            driver.save_screenshot(str(tmp_path / f"review_{width}.png"))
            # By key, from where the focus is; the next visit is shown at once.
            driver.switch_to.active_element.send_keys("a")
            wait.until(lambda _: ledger.standing(first.visit).status == "decided")  # type: ignore[union-attr]
            wait.until(lambda _: waiting[1].visit in found("#review-meta").text)
            # One piece more, by hand.
            driver.find_elements(By.CSS_SELECTOR, "#review-lines .stepper button")[1].click()
            assert not found("#accept").is_enabled()
            found("#correct").click()
            wait.until(lambda _: ledger.standing(waiting[1].visit).status == "decided")  # type: ignore[union-attr]
            wait.until(lambda _: waiting[2].visit in found("#review-meta").text)
            # Somebody else decides the third while it is on the screen.
            ledger.decide(waiting[2].visit, "waive", by="ben", t_ns=T_NS)
            wait.until(lambda _: "Decided meanwhile" in found("#review-said").text)
            assert not found("#accept").is_enabled()
            corrected = ledger.standing(waiting[1].visit)
            assert corrected is not None
            pieces = sum(line.quantity for line in corrected.lines)
            assert pieces == 1 + sum(line.quantity for line in waiting[1].lines)
            decisions = [e for one in waiting for e in ledger.entries(one.visit) if e.kind.startswith("decision")]
            assert [entry.request["by"] for entry in decisions] == ["anna", "anna", "ben"]
            assert driver.title != "owned"
            assert not driver.find_elements(By.CSS_SELECTOR, "img, iframe")
            assert complaints(driver) == []
            assert all(url.startswith((served.origin, "data:")) for url in requested(driver))


@in_browser
def test_by_keyboard_alone(tmp_path: Path, store: Store, users_file: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    one = store.products[0]
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        bill = review(store, "visit-1")
        # Three pieces, one of them cheaper than the others, less an offer.
        lines = (*bill.lines, ReceiptLine(one.gtin, 1, one.price - 7, 0.9))
        less = (Discount("offer", one.gtin, 11),)
        total = bill.total + one.price - 7 - 11
        ledger.post_receipt(dataclasses.replace(bill, lines=lines, total=total), less)
        for n in (2, 3):
            ledger.post_receipt(review(store, f"visit-{n}"))
        # Evidence that no page can draw.
        (tmp_path / "evidence.jsonl").write_text(evidence("visit-1", events=7, exit="x"), encoding="utf-8")
        with (
            serving(store, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served,
            browsing(1440) as driver,
        ):
            wait = WebDriverWait(driver, 15)

            def text(selector: str) -> str:
                return str(driver.find_element(By.CSS_SELECTOR, selector).text)

            def press(*keys: str) -> None:
                driver.switch_to.active_element.send_keys(*keys)

            driver.get(served.origin)
            press("anna", Keys.TAB)
            press(PASSWORD, Keys.ENTER)
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 3)
            driver.execute_script("document.querySelector('#reviews button').focus()")
            ledger.post_receipt(review(store, "visit-4"))
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 4)
            assert driver.switch_to.active_element.get_attribute("data-visit") == "visit-1"
            press(Keys.ENTER)
            wait.until(lambda _: "visit-1" in text("#review-meta"))
            assert "cannot be shown" in text("#review-evidence")
            # What accepting it charges, to the last unit.
            exact = f"{total // 100}.{total % 100:02d}"
            assert exact in text("#review-lines tfoot") and "0.11" in text("#review-lines tfoot")
            # Twice one more, from one focus; then back to what it was.
            driver.execute_script("document.querySelector('#review-lines .stepper').lastChild.focus()")
            press(Keys.ENTER)
            press(Keys.ENTER)
            assert text("#review-lines .stepper b") == "5" and "About" in text("#review-lines tfoot")
            press(Keys.TAB)
            driver.execute_script("document.querySelector('#review-lines .stepper').firstChild.focus()")
            press(Keys.ENTER)
            press(Keys.ENTER)
            assert exact in text("#review-lines tfoot")
            # A key that stays down is one decision.
            held = "new KeyboardEvent('keydown', {key: 'a', bubbles: true, repeat: true})"
            driver.execute_script(f"document.getElementById('accept').dispatchEvent({held})")
            press("a")
            wait.until(lambda _: "visit-2" in text("#review-meta"))
            driver.execute_script(f"document.getElementById('accept').dispatchEvent({held})")
            time.sleep(0.3)
            press(Keys.ESCAPE)
            wait.until(lambda _: driver.switch_to.active_element.get_attribute("data-visit") == "visit-2")
            assert [waiting.visit for waiting in ledger.reviews()] == ["visit-2", "visit-3", "visit-4"]
            assert ledger.standing("visit-1").total == total  # type: ignore[union-attr]
            assert complaints(driver) == []
