"""Browsers of a simulated shop: they ask the applications that phones and consoles are served by, in this process.

A request goes through the ASGI interface, as one from a server would, so that origins, cookies, tokens, limits and
errors are those of the real pages; what is left out is the socket.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

HOST = "localhost"
# Bodies that no page sends; those that are objects are refused for what is missing in them.
HOSTILE_BODIES = (
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"visit": 1}', b'{"visit": "\\ud800"}', b'{"visit": {"$gt": ""}}',
    b'{"visit": "' + b"x" * 70_000 + b'"}', b"[" * 20_000, b'{"decision": "waive", "revision": 1e400}',
    b'{"choice": NaN, "question": "", "visit": ""}', b'{"number": -1}', b'{"lines": [{"gtin": null}]}',
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What a page was answered: status, and its body as text. A status of 0: the application raised an error."""

    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@contextmanager
def served(app: Any) -> Iterator[asyncio.Runner]:
    """Begin an application and end it as a server does. Yields the runner of its requests."""
    with asyncio.Runner() as runner:
        life = app.router.lifespan_context(app)
        runner.run(life.__aenter__())
        try:
            yield runner
        finally:
            runner.run(life.__aexit__(None, None, None))


class Browser:
    """One browser: it keeps its cookies, names its origin, and sends the token of the page that it shows.

    Attributes:
        csrf: that token; "" before it signed in.
    """

    def __init__(self, app: Any, runner: asyncio.Runner, failed: Callable[[str], object]) -> None:
        """Begin without cookies.

        Args:
            app: the ASGI application.
            runner: of its requests.
            failed: takes the requests that the application answers with an error of its own.
        """
        self._app, self._runner, self._failed = app, runner, failed
        self._cookies: dict[str, str] = {}
        self.csrf = ""

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, b"", **headers)

    def post(self, path: str, content: Any, **headers: str) -> Reply:
        """Post JSON, or bytes as they are, as the page's own script does; `headers` replace its headers."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, **{"origin": f"http://{HOST}", "x-csrf-token": self.csrf, **headers})

    def send(self, method: str, path: str, body: bytes, **headers: str) -> Reply:
        """Ask; a header that is empty is left out."""
        named = {"host": HOST, "cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self._runner.run(self._asked(method, path, body, {name: text for name, text in named.items() if text}))
        if reply.status == 0 or reply.status >= 500:
            answer = reply.status or reply.text[:200]
            self._failed(f"{method} {path[:60]} of {len(body)} bytes was answered by {answer}")
        return reply

    async def _asked(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        url = urlsplit(path)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": url.path, "raw_path": quote(url.path).encode(), "query_string": url.query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
            "client": ("127.0.0.1", 50_000), "server": (HOST, 80),
        }  # fmt: skip
        sent: list[dict[str, Any]] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        try:
            await self._app(scope, receive, send)
        except Exception as error:  # whatever it is, a server would have logged it and the customer seen a failure
            return Reply(0, f"{type(error).__name__}: {error}")
        start = next(message for message in sent if message["type"] == "http.response.start")
        for name, value in start["headers"]:
            if name == b"set-cookie":
                cookie, _, content = value.decode().split(";")[0].partition("=")
                self._cookies[cookie] = content
        text = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
        return Reply(start["status"], text.decode("utf-8", "replace"))


def attack(
    browser: Browser, rng: random.Random, paths: tuple[str, ...], reached: Callable[[str], object],
    n_entries: Callable[[], int], bare: tuple[str, ...] = (),
) -> list[str]:  # fmt: skip
    """Send what no page sends to one of the paths. Returns what was wrong: requests that were answered as if they were
    good, and books that have changed.

    `n_entries` states how many entries the books hold; `bare` are those of the paths that want any object.
    """
    path, taken, before = rng.choice(paths), [], n_entries()
    bodies = [body for body in HOSTILE_BODIES if path not in bare or not body.startswith(b'{"')]
    requests = {
        "another token": lambda: browser.post(path, {"visit": "x"}, x_csrf_token="0" * 32),
        "no token": lambda: browser.post(path, {"visit": "x"}, x_csrf_token=""),
        "another origin": lambda: browser.post(path, {"visit": "x"}, origin="http://evil.example"),
        "no origin": lambda: browser.post(path, {"visit": "x"}, origin=""),
        "another host": lambda: browser.post(path, {"visit": "x"}, host="evil.example"),
        "a hostile body": lambda: browser.post(path, rng.choice(bodies)),
        "another method": lambda: browser.send(rng.choice(("PUT", "DELETE", "TRACE")), path, b"{}"),
    }
    for what, request in requests.items():
        reply = request()
        reached(f"pages: {what} was refused" if 400 <= reply.status < 500 else f"pages: {what}: {reply.status}")
        if reply.status < 400:
            taken.append(f"{path}: {what} was answered {reply.status}")
    if n_entries() != before:
        taken.append("requests that no page sends changed the books")
    return taken
