"""What a user of the console tried beyond their rights: refused, seen by a second person, and in the audit log."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn
from money.books import STORE, TWO, receipt
from show.consoles import PASSWORD, Served, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from fusion.money.ledger import Ledger
from fusion.show.console.audit import Audit
from fusion.show.console.users import Role, StoreRights, Users
from fusion.show.web.serving import http_settings

TOTAL = sum(line.quantity * line.unit_price for line in TWO)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Users:
    monkeypatch.setattr("fusion.show.console.users.SCRYPT", {"n": 2, "r": 8, "p": 1})
    users = Users(tmp_path / "users.json")
    for name, roles, cap in (
        ("looker", (Role.LOOK,), None),
        ("clerk", (Role.DECIDE,), TOTAL - 1),
        ("chief", (Role.DECIDE, Role.REFUND), None),
        ("owner", (Role.ADMINISTER,), None),
    ):
        users.add(name, PASSWORD, STORE.id, StoreRights(roles=roles, cap=cap))
    users.add("elsewhere", PASSWORD, "another-store")
    return users


@pytest.fixture
def served(tmp_path: Path, users: Users) -> Iterator[Served]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        for visit, status in (("doubtful", "review"), ("settled", "settled")):
            ledger.post_receipt(receipt(visit, *TWO, status=status, account=None))
        with serving(STORE, ledger, users.path) as served:
            yield served


def act(served: Served, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    status, _, answer = served.ask("POST", path, json.dumps({"number": 1}), headers)
    return status, json.loads(answer)


@pytest.mark.attack(21)
def test_a_user_may_do_what_their_roles_say_and_no_more(served: Served) -> None:
    before = served.ledger.head()
    signed = {name: served.sign_in(name)[1] for name in ("looker", "clerk", "chief", "owner")}
    assert served.decide("doubtful", signed["looker"])[0] == 403
    assert act(served, "/api/reviews/doubtful/second", signed["looker"])[0] == 403
    assert act(served, "/api/reviews/doubtful/withdraw", signed["looker"])[0] == 403
    assert served.decide("settled", signed["owner"], decision="waive")[0] == 403
    # What was charged is another right, and an amount that was made up needs a reason that is known.
    status, answer = served.decide("settled", signed["clerk"], decision="waive")
    assert status == 403 and "right to refund" in answer["error"]
    assert served.decide("settled", signed["chief"], decision="waive", reason="for a friend")[0] == 400
    assert served.ledger.head() == before
    assert served.ask("GET", "/api/audit", headers=signed["chief"])[0] == 403
    assert served.ask("GET", "/api/audit", headers=signed["owner"])[0] == 200
    assert served.decide("settled", signed["chief"], decision="waive", reason="returned")[0] == 200
    assert served.sign_in("elsewhere")[0] == 403


@pytest.mark.attack(21)
def test_above_their_cap_a_user_needs_a_second_person(served: Served, users: Users) -> None:
    clerk, chief = served.sign_in("clerk")[1], served.sign_in("chief")[1]
    status, answer = served.decide("doubtful", clerk)
    assert status == 200 and answer["status"] == "review" and answer["proposal"]["state"] == "waiting"
    status, answer = act(served, "/api/reviews/doubtful/second", clerk)
    assert status == 403 and "second person" in answer["error"], "not their own"
    # Another session, or another browser, of the same person is no second person either.
    assert act(served, "/api/reviews/doubtful/second", served.sign_in("clerk")[1])[0] == 403
    status, answer = act(served, "/api/reviews/doubtful/second", chief)
    assert status == 200 and answer["status"] == "decided"
    (decided,) = json.loads(served.ask("GET", "/api/reviews/doubtful", headers=clerk)[2])["decided"]
    assert (decided["by"], decided["seconded_by"]) == ("clerk", "chief")


@pytest.mark.attack(21)
@pytest.mark.parametrize(
    "change",
    [
        lambda users: users.remove("chief"),
        lambda users: users.lock("chief", locked=True),
        lambda users: users.sign_out("chief"),
        lambda users: users.add("chief", "another password", STORE.id),
        lambda users: users.grant("chief", STORE.id, StoreRights(roles=(Role.LOOK,))),
        lambda users: users.path.unlink(),
    ],
    ids=["removed", "locked", "signed out", "new password", "other rights", "no file"],
)
def test_whoever_is_removed_or_changed_is_out_at_once(
    served: Served, users: Users, change: Callable[[Users], None]
) -> None:
    _, headers = served.sign_in("chief")
    before = served.ledger.head()
    with closing(HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        connection.request("GET", "/api/live", headers=headers)
        stream = connection.getresponse()
        assert stream.status == 200
        change(users)
        # The running stream ends without anything new to send.
        assert b"event: signed-out" in stream.read()
    assert served.decide("doubtful", headers)[0] == 401
    assert served.ask("GET", "/api/reviews/doubtful", headers=headers)[0] == 401
    assert served.ask("GET", "/", headers=headers)[0] == 303
    assert served.ledger.head() == before


@pytest.mark.attack(21)
def test_reads_sign_ins_and_decisions_are_in_the_audit_log(served: Served, users: Users) -> None:
    served.sign_in("chief", "not the password")
    served.sign_in(PASSWORD, PASSWORD)
    _, headers = served.sign_in("chief")
    served.ask("GET", "/api/reviews/doubtful", headers=headers)
    assert served.ask("GET", "/api/receipts.csv", headers=headers)[0] == 200
    served.decide("doubtful", headers)
    served.ask("POST", "/sign-out", "", headers)
    audit = Audit(users.path.with_name("audit.jsonl"))
    assert [(row["by"], row["did"], row["about"]) for row in audit.lines()] == [
        ("chief", "sign-in failed", ""),
        ("", "sign-in failed", ""),
        ("chief", "signed in", ""),
        ("chief", "read visit", "doubtful"),
        ("chief", "took receipts as a file", ""),
        ("chief", "asked: accept", "doubtful"),
        ("chief", "signed out", ""),
    ]
    assert audit.verify() is None
    text = audit.path.read_text("utf-8")
    cookie = headers["Cookie"].partition("=")[2]
    assert not any(secret in text for secret in (PASSWORD, cookie, headers["X-CSRF-Token"]))
    # What cannot be written down is not done.
    audit.path.unlink()
    audit.path.mkdir()
    _, headers = served.sign_in("chief")
    assert served.ask("GET", "/api/reviews/settled", headers=headers)[0] in (401, 503)


@pytest.mark.attack(21)
def test_a_second_factor_stops_whoever_has_the_password(served: Served, users: Users) -> None:
    pyotp = pytest.importorskip("pyotp")
    generator = pyotp.parse_uri(users.second_factor("chief", wanted=True))

    def sign_in(code: str) -> int:
        form = urlencode({"name": "chief", "password": PASSWORD, "code": code})
        return served.ask("POST", "/sign-in", form, {"Origin": served.origin})[0]

    code = generator.now()
    assert sign_in("") == 403 and sign_in("000000" if code != "000000" else "111111") == 403
    assert sign_in(code) == 303
    assert sign_in(code) == 403, "whoever looked over their shoulder"
    for n in range(6):
        status = sign_in(f"{n:06d}")
    assert status == 429, "guesses have to wait"


@pytest.mark.attack(21)
def test_one_user_cannot_hold_all_pages_open(served: Served) -> None:
    clerk, chief = served.sign_in("clerk")[1], served.sign_in("chief")[1]
    open_pages = []
    try:
        statuses = []
        for _ in range(12):
            connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
            open_pages.append(connection)
            connection.request("GET", "/api/live", headers=clerk)
            statuses.append(connection.getresponse().status)
        assert statuses == [200] * 10 + [503] * 2
        with served.stream(chief) as messages:
            assert next(messages) == {"live": False}
    finally:
        for connection in open_pages:
            connection.close()


@pytest.mark.attack(22)
def test_a_client_that_takes_nothing_of_its_stream_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.show.web.connections.TAKING_MAX_S", 0.05)
    ended = threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)  # as real streams do, which wait for what happens
        finally:
            ended.set()

    async def page(request: Request) -> StreamingResponse:
        return StreamingResponse(endless())

    server = uvicorn.Server(http_settings(Starlette(routes=[Route("/", page)]), port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()[:2]
        with closing(socket.create_connection(address)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert ended.wait(60)
    finally:
        server.should_exit = True
        thread.join()
