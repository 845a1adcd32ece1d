"""One console for several stores: a person gets what is theirs, and of the others nothing at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from money.books import TWO, make_store, receipt
from show.consoles import PASSWORD, ask
from starlette.routing import Route

from fusion.errors import FusionError
from fusion.money.ledger import Ledger
from fusion.show.console.several import SeveralConsole, Shown
from fusion.show.console.users import Role, StoreRights, Users
from fusion.show.web.serving import http_settings

BERLIN, MUNICH = make_store("berlin"), make_store("munich")


class Several:
    """A console of two stores that is served."""

    def __init__(self, port: int, console: SeveralConsole) -> None:
        self.port, self.console = port, console

    def sign_in(self, name: str) -> dict[str, str]:
        origin = f"http://127.0.0.1:{self.port}"
        form = f"name={name}&password={PASSWORD.replace(' ', '+')}"
        status, answer, _ = ask(self.port, "POST", "/sign-in", form, {"Origin": origin})
        assert status == 303
        cookie = answer["set-cookie"].split(";")[0]
        _, _, page = ask(self.port, "GET", "/stores/berlin/", headers={"Cookie": cookie})
        token = page.split('name="csrf" content="')[1].split('"')[0]
        return {"Cookie": cookie, "X-CSRF-Token": token, "Origin": origin}


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Several]:
    monkeypatch.setattr("fusion.show.console.users.SCRYPT", {"n": 2, "r": 8, "p": 1})
    users = Users(tmp_path / "users.json")
    users.add("anna", PASSWORD, "berlin")
    users.add("ben", PASSWORD, "berlin")
    users.add("ben", PASSWORD, "munich", StoreRights(roles=(Role.LOOK,)))
    with Ledger.open(tmp_path / "b.sqlite", BERLIN) as berlin, Ledger.open(tmp_path / "m.sqlite", MUNICH) as munich:
        for ledger in (berlin, munich):
            ledger.post_receipt(receipt("v1", *TWO, status="review", account=None))
        console = SeveralConsole([Shown(BERLIN, berlin), Shown(MUNICH, munich)], users, undo_s=0.0)
        server = uvicorn.Server(http_settings(console.app, port=0))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Several(server.servers[0].sockets[0].getsockname()[1], console)
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.attack(21)
def test_every_address_of_another_store_is_one_that_does_not_exist(several: Several) -> None:
    anna = several.sign_in("anna")
    n_asked = 0
    for route in several.console.consoles["munich"].routes:
        assert isinstance(route, Route)
        path = route.path.replace("{visit:path}", "v1").replace("{gtin}", "96385074")
        for method in (route.methods or set()) - {"HEAD"}:
            status, _, body = ask(several.port, method, f"/stores/munich{path}", "{}", anna)
            unknown = ask(several.port, method, f"/stores/nowhere{path}", "{}", anna)
            assert (status, body) == (unknown[0], unknown[2]) == (404, '{"error":"Not Found"}'), path
            assert ask(several.port, method, f"/stores/munich{path}", "{}")[0] in (303, 401, 403), "not signed in"
            n_asked += 1
    assert n_asked >= 12
    assert several.console.consoles["munich"].decisions.standing("v1").status == "review"  # type: ignore[union-attr]


def test_people_go_to_their_stores(several: Several) -> None:
    anna = several.sign_in("anna")
    status, headers, _ = ask(several.port, "GET", "/", headers=anna)
    assert status == 303 and headers["location"] == "/stores/berlin/"
    status, _, page = ask(several.port, "GET", "/stores/berlin/", headers=anna)
    assert status == 200 and "/assets/console.css" in page
    assert ask(several.port, "GET", "/assets/console.css")[0] == 200
    ben = several.sign_in("ben")
    _, _, page = ask(several.port, "GET", "/", headers=ben)
    assert "/stores/berlin/" in page and "/stores/munich/" in page
    _, _, shop = ask(several.port, "GET", "/stores/munich/api/store", headers=ben)
    assert json.loads(shop)["rights"]["roles"] == ["look"] and set(json.loads(shop)["stores"]) == {"berlin", "munich"}
    # Rights are by store: ben may decide in one of the two.
    body = json.dumps({"decision": "accept", "revision": 1})
    assert ask(several.port, "POST", "/stores/munich/api/reviews/v1", body, ben)[0] == 403
    status, _, answer = ask(several.port, "POST", "/stores/berlin/api/reviews/v1", body, ben)
    assert status == 200 and json.loads(answer)["status"] == "decided"
    assert several.console.consoles["munich"].decisions.standing("v1").status == "review"  # type: ignore[union-attr]


def test_a_store_is_shown_once(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "b.sqlite", BERLIN) as ledger, pytest.raises(FusionError, match="want each once"):
        SeveralConsole([Shown(BERLIN, ledger), Shown(BERLIN, ledger)], Users(tmp_path / "users.json"))

