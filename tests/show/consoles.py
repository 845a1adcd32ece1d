"""A console that is served for a test, and what its visitors and its runner send."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import uvicorn

from fusion.engine import Engine
from fusion.money.ledger import Ledger
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus, Result, RunSummary
from fusion.show.console.server import Console, Files
from fusion.show.console.users import Users
from fusion.show.web.serving import http_settings
from fusion.store.models import Store

T_NS = 1_772_528_646_000_000_000
PASSWORD = "correct horse battery"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def review(store: Store, visit: str, reason: str = "the person is uncertain", account: str = "acc-1") -> Receipt:
    """A receipt that goes to review: two pieces of the store's first product, one of its second."""
    first, second = store.products[:2]
    lines = (ReceiptLine(first.gtin, 2, first.price, 0.97), ReceiptLine(second.gtin, 1, second.price, 0.6))
    total = 2 * first.price + second.price
    times = (T_NS, T_NS + 60 * 10**9, T_NS + 61 * 10**9)
    reasons = (Reason(ReasonKind.NOTE, detail=reason),)
    return Receipt(visit, account, *times, ReceiptStatus.REVIEW, reasons, store.currency, total, lines)


def evidence(visit: str, **more: Any) -> str:
    """A line of evidence.jsonl."""
    return json.dumps({"visit": visit, "reasons": [visit], "events": [], "sightings": [], **more}) + "\n"


@dataclass
class EndedRun:
    """A simulated run that has ended."""

    engine: Engine
    results: list[Result]
    summary: RunSummary


@dataclass
class Served:
    """A console that is being served on a free port of this machine."""

    port: int
    console: Console
    ledger: Ledger

    def ask(
        self, method: str, path: str, body: str | bytes = "", headers: dict[str, str] | None = None, **more: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of the answer to a request."""
        return ask(self.port, method, path, body, headers, **more)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sign_in(self, name: str = "anna", password: str = PASSWORD, **headers: str) -> tuple[int, dict[str, str]]:
        """Status, and the headers that a page of this user sends."""
        return sign_in(self.port, name, password, **headers)

    def decide(self, visit: str, headers: dict[str, str], **decision: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to a decision."""
        reason = {} if decision.get("decision", "accept") == "accept" else {"reason": "not_taken"}
        body = json.dumps({"decision": "accept", "revision": 1, **reason, **decision})
        status, _, answer = self.ask("POST", f"/api/reviews/{quote(visit, safe='')}", body, headers)
        return status, json.loads(answer)

    def stream(self, headers: dict[str, str]) -> Any:
        """The messages that a page is sent."""
        return stream(self.port, headers)


def ask(
    port: int, method: str, path: str, body: str | bytes = "", headers: dict[str, str] | None = None, **more: str
) -> tuple[int, dict[str, str], str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body or None, {**(headers or {}), **more})
        answer = connection.getresponse()
        names = dict.fromkeys(name.lower() for name, _ in answer.getheaders())
        return answer.status, {name: answer.headers[name] for name in names} | _cookies(answer), answer.read().decode()


def _cookies(answer: http.client.HTTPResponse) -> dict[str, str]:
    """All cookies that are set, in one header: the first is the session's."""
    cookies = answer.headers.get_all("set-cookie")
    return {"set-cookie": ", ".join(cookies)} if cookies else {}


def sign_in(port: int, name: str = "anna", password: str = PASSWORD, **headers: str) -> tuple[int, dict[str, str]]:
    origin = f"http://127.0.0.1:{port}"
    form = urlencode({"name": name, "password": password})
    status, answer, _ = ask(port, "POST", "/sign-in", form, {"Origin": origin} | headers)
    cookie = answer.get("set-cookie", "").split(";")[0]
    if status != 303:
        return status, {"Cookie": cookie}
    _, _, page = ask(port, "GET", "/", headers={"Cookie": cookie})
    token = page.split('name="csrf" content="')[1].split('"')[0]
    return status, {"Cookie": cookie, "X-CSRF-Token": token, "Origin": origin}


@contextmanager
def stream(port: int, headers: dict[str, str]) -> Iterator[Iterator[dict[str, Any]]]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/api/live", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200

        def messages() -> Iterator[dict[str, Any]]:
            # Comments keep the connection from timing out, so a message that never comes needs a deadline.
            deadline_s = time.monotonic() + 300
            while line := answer.readline():
                assert time.monotonic() < deadline_s
                if line.startswith(b"data: "):
                    yield json.loads(line[6:], parse_constant=lambda text: pytest.fail(text))

        yield messages()


@contextmanager
def serving(
    store: Store, ledger: Ledger, users: Path, *, proxy: str | None = None, **options: Any
) -> Iterator[Served]:
    """Serve a console in a thread; decisions take effect at once unless `undo_s` is given."""
    files = Files(**{name: options.pop(name) for name in ("feed", "evidence", "pictures") if name in options})
    console = Console(store, ledger, Users(users), files=files, **{"undo_s": 0.0, **options})
    server = uvicorn.Server(http_settings(console.app, proxy=proxy, port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Served(server.servers[0].sockets[0].getsockname()[1], console, ledger)
    finally:
        server.should_exit = True
        thread.join()
