"""The shopper's pages as they are served for a test: a store with visits of two customers and a guest, and a runner."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fusion.files.results import evidence_row
from fusion.gates.codes import CodeSigner
from fusion.gates.shopper_sessions import ShopperSessions
from fusion.money.ledger import Ledger
from fusion.money.links import Links, store_links
from fusion.money.moments import Moments
from fusion.money.profiles import Profiles
from fusion.money.vault import Holder
from fusion.results import (
    Alternative,
    Evidence,
    Goods,
    Picked,
    Question,
    QuestionKind,
    Reason,
    ReasonKind,
    Receipt,
    ReceiptLine,
    ReceiptStatus,
)
from fusion.show.shopper.server import ShopperApp, ShopperParts
from fusion.show.web.serving import http_settings
from fusion.store.models import Store
from fusion.till.answers import Answers
from fusion.till.customers import CustomerFile

T_NS = 1_772_528_646_000_000_000
MINUTE_NS = 60 * 10**9
KEY, APP_KEY = b"k" * 32, b"a" * 32
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
# Visits: whose pseudonym each has. ann has one settled and one in review, bob a settled one, a guest paid by card.
PSEUDONYMS = {"ann-1": "p-aaa", "ann-2": "p-bbb", "bob-1": "p-ccc", "guest-1": "p-ggg", "ann-3": "p-ddd"}
ACCOUNTS = {"p-aaa": "ann", "p-bbb": "ann", "p-ddd": "ann", "p-ccc": "bob", "p-ggg": "card-7"}


def bill(store: Store, visit: str, status: ReceiptStatus = ReceiptStatus.SETTLED) -> Receipt:
    """Two pieces of the store's first product and one of its second."""
    first, second = store.products[:2]
    lines = (ReceiptLine(first.gtin, 2, first.price, 0.99), ReceiptLine(second.gtin, 1, second.price, 0.9))
    reasons = (Reason(ReasonKind.CART_UNCERTAIN, probability=0.9),) if status == ReceiptStatus.REVIEW else ()
    times = (T_NS, T_NS + MINUTE_NS, T_NS + MINUTE_NS + 10**9)
    total = 2 * first.price + second.price
    return Receipt(visit, PSEUDONYMS[visit], *times, status, reasons, store.currency, total, lines)


def doubt(store: Store, visit: str) -> Evidence:
    """Whether it was the second or the third product."""
    first, second, third = store.products[:3]

    def alternative(gtin: str, p: float) -> Alternative:
        return Alternative((Goods(gtin, -1),), p, (Goods(first.gtin, 2), Goods(gtin, 1)), 0.97)

    alternatives = (alternative(second.gtin, 0.6), alternative(third.gtin, 0.35))
    asked = Question(QuestionKind.PRODUCT, store.plates[0].plate, T_NS + 20 * 10**9, 7, alternatives, 0.9)
    receipt = bill(store, visit, ReceiptStatus.REVIEW)
    return Evidence(
        receipt.exit_ns, visit, receipt.account, receipt.status, receipt.reasons, receipt.lines, (), (), 0, (), (asked,)
    )


def opened_books(folder: Path, store: Store) -> Ledger:
    """Books with the visits above; `ann-3` is inside."""
    ledger = Ledger.open(folder / "shop.sqlite", store)
    for visit, pseudonym in PSEUDONYMS.items():
        account = ACCOUNTS[pseudonym]
        email = None if account == "card-7" else f"{account}@mail.example"
        token = account if account == "card-7" else "tok"  # all that is known of a card is its token
        ledger.hold(Holder(pseudonym, account, token, email, T_NS))
        ledger.open_visit(visit, pseudonym, T_NS)
        if visit != "ann-3":
            status = ReceiptStatus.REVIEW if visit == "ann-2" else ReceiptStatus.SETTLED
            ledger.post_receipt(bill(store, visit, status))
    (folder / "evidence.jsonl").write_text(json.dumps(evidence_row(doubt(store, "ann-2"))) + "\n")
    (folder / "customers.csv").write_text(
        "account,token,email,member,adult\nann,tok,ann@mail.example,no,no\nbob,tok,bob@mail.example,no,no\n"
    )
    (folder / "customers.csv").chmod(0o600)
    return ledger


class FakeRunner:
    """The runner's side of the feed: a socket that sends the lines that a test wants sent."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._clients: list[socket.socket] = []
        self._came = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._clients.append(self._listener.accept()[0])
                self._came.set()

    def send(self, kind: str, content: Any) -> None:
        """Send a line to whoever follows; waits until one does."""
        assert self._came.wait(60)
        for client in self._clients:
            client.sendall((json.dumps({kind: content}, separators=(",", ":")) + "\n").encode())

    def carts(self, *carts: tuple[str, list[tuple[str, int]]]) -> None:
        """Send the carts of visits."""
        rows = [[visit, PSEUDONYMS[visit], goods] for visit, goods in carts]
        self.send("shop", {"who": {}, "carts": rows, "gates": {}, "counts": {}})

    def close(self) -> None:
        for each in (*self._clients, self._listener):
            each.close()


class Outbox:
    """Keeps what a mailer would have sent; notes receipts to be sent again as one does."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.again: list[str] = []
        self.came = threading.Event()

    def write(self, address: str, subject: str, text: str) -> None:
        self.sent.append((address, subject, text))
        self.came.set()

    def due_again(self, visit: str, t_ns: int) -> bool:
        self.again.append(visit)
        return len(self.again) <= 3


@dataclass
class ServedPages:
    """The pages of a store that are being served on a free port of this machine."""

    port: int
    app: ShopperApp
    store: Store
    ledger: Ledger
    parts: ShopperParts
    links: Links
    runner: FakeRunner
    outbox: Outbox
    forgotten: list[str]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, content: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of the answer to a request."""
        body = None if content is None else json.dumps(content)
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read().decode(
                "utf-8", "replace"
            )

    def sign_in(self, **content: str) -> tuple[int, dict[str, str]]:
        """Status, and the headers that a page of this session sends."""
        return self._begun("/api/sign-in", "/api/me", content)

    def pair(self, screen: str) -> dict[str, str]:
        """The headers that a paired screen sends."""
        code = self.parts.sessions.pair(screen, time.time())
        return self._begun("/screen/api/pair", "/screen/api/me", {"code": code})[1]

    def _begun(self, path: str, me: str, content: dict[str, str]) -> tuple[int, dict[str, str]]:
        status, headers, body = self.ask("POST", path, content, {"Origin": self.origin})
        if status != 200:
            return status, {"error": json.loads(body)["error"]}
        cookie = headers["set-cookie"].split(";")[0]
        _, _, found = self.ask("GET", me, None, {"Cookie": cookie})
        return status, {"Cookie": cookie, "X-CSRF-Token": json.loads(found)["csrf"], "Origin": self.origin}

    def as_account(self, account: str) -> dict[str, str]:
        """The headers of a customer who has opened a link."""
        status, headers = self.sign_in(token=self.token("account", account))
        assert status == 200
        return headers

    def as_guest(self, visit: str) -> dict[str, str]:
        """The headers of a guest who has opened the link in a receipt's mail."""
        status, headers = self.sign_in(token=self.token("visit", visit))
        assert status == 200
        return headers

    def token(self, purpose: Any, subject: str, ago_s: float = 0.0) -> str:
        return self.links.token(purpose, subject, time.time() - ago_s)

    def get(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        status, _, body = self.ask("GET", path, None, headers)
        return status, json.loads(body)

    def post(self, path: str, content: Any, headers: dict[str, str]) -> tuple[int, Any]:
        status, _, body = self.ask("POST", path, content, headers)
        return status, json.loads(body)

    @contextmanager
    def stream(self, headers: dict[str, str], path: str = "/api/live") -> Iterator[Iterator[dict[str, Any]]]:
        """The messages that a page is sent."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200

            def messages() -> Iterator[dict[str, Any]]:
                while line := answer.readline():
                    if line.startswith(b"event: signed-out"):
                        yield {"signed_out": True}
                    elif line.startswith(b"data: ") and line.strip() != b"data: {}":
                        yield json.loads(line[6:], parse_constant=lambda text: pytest.fail(text))

            yield messages()


@contextmanager
def serving_pages(folder: Path, store: Store, **changed: Any) -> Iterator[ServedPages]:
    """Serve the pages of a store in a thread."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fusion.show.console.evidence_file import EvidenceFile

    with ExitStack() as stack:
        ledger = stack.enter_context(opened_books(folder, store))
        moments, profiles = Moments(folder / "moments.sqlite"), Profiles(folder / "profiles.sqlite")
        sessions = ShopperSessions(folder / "shopper.sqlite")
        for each in (moments, profiles, sessions):
            stack.callback(each.close)
        for visit in ("ann-1", "ann-2", "bob-1", "guest-1"):
            for i, product in enumerate((store.products[0], store.products[0], store.products[1])):
                at_ns = T_NS + (10 + 20 * i) * 10**9
                moments.add(Picked(at_ns, store.plates[i].plate, product.gtin, 1, PSEUDONYMS[visit], visit, 0.99))
        links, outbox, forgotten = store_links(KEY, store.id, "", APP_KEY), Outbox(), list[str]()
        parts = ShopperParts(
            links=links, sessions=sessions, moments=moments,
            answers=Answers(store, ledger, EvidenceFile(folder / "evidence.jsonl").bundle),
            signer=CodeSigner(Ed25519PrivateKey.generate(), store.id, key_id="k1"),
            customers=CustomerFile(folder / "customers.csv"), mailer=outbox,  # type: ignore[arg-type]
            profiles=profiles, forget=forgotten.append, url="http://localhost",
        )  # fmt: skip
        parts = replace(parts, **{key: value for key, value in changed.items() if hasattr(parts, key)})
        runner = FakeRunner(folder / "live.sock")
        stack.callback(runner.close)
        options = {key: value for key, value in changed.items() if not hasattr(parts, key)}
        app = ShopperApp(store, ledger, parts, feed=folder / "live.sock", connect_every_s=0.05, **options)
        server = uvicorn.Server(http_settings(app.app, port=0))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield ServedPages(port, app, store, ledger, parts, links, runner, outbox, forgotten)
        finally:
            server.should_exit = True
            thread.join()
