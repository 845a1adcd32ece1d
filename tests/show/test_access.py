"""Who gets in: signing in and out, sessions, tokens, and the file of users."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest
from show.consoles import PASSWORD, T_NS, Served, review, serving

from fusion.errors import FusionError
from fusion.money.ledger import Ledger
from fusion.show.console.sessions import Sessions
from fusion.show.console.users import Users
from fusion.simulation import demo_store
from fusion.store.models import Store

SECRETS = ("acc-1", "visit-1", "the person is uncertain", "Cola")


def nothing_for(served: Served, headers: dict[str, str]) -> None:
    """A sender of these headers learns nothing and changes nothing."""
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
    [("anna", "wrong"), ("anna", ""), ("no-user", PASSWORD), ("eve", PASSWORD), ("", ""), ("anna\x00", PASSWORD)],
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
        renamed = {"Cookie": f"{served.console.access.cookie}={headers['Cookie'].partition('=')[2]}"}
        nothing_for(served, renamed)
        nothing_for(elsewhere, {"Cookie": served.sign_in()[1]["Cookie"]})


def test_other_sites_cannot_act_for_a_user(served: Served) -> None:
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
    # A host name that an attacker points to this machine is refused.
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
    assert served.ask("POST", "/sign-in", form + "&a=1&b=2&c=3&d=4", {"Origin": served.origin})[0] == 400
    for origin in ("http://[", "://", f"ftp://127.0.0.1:{served.port}", f"{served.origin}@evil.example", "http://"):
        assert served.ask("POST", "/sign-in", form, {"Origin": origin})[0] == 403, origin
    assert served.sign_in("x" * 5000)[0] == 403
    assert all(len(key) < 100 for key in served.console.access.sessions.tried)


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
    assert sessions.must_wait({"x": 5}, 0.0) == 0.0


def test_signing_out_ends_pages_too(served: Served, store: Store) -> None:
    _, headers = served.sign_in()
    with served.stream(headers) as messages:
        assert next(messages) == {"live": False}
        assert served.ask("POST", "/sign-out", "", headers)[0] == 200
        served.ledger.open_visit("visit-9", None, T_NS)
        served.ledger.post_receipt(review(store, "visit-10"))
        assert [message for message in messages if "visit-10" in json.dumps(message)] == []
    nothing_for(served, headers)


def test_too_long_a_body_is_refused(served: Served) -> None:
    _, headers = served.sign_in()
    status, answer = served.decide("visit-1", headers, note="x" * 100_000)
    assert status == 413 and answer == {"error": "too long"}


def test_the_file_of_users(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    users = Users(path)
    users.add("anna", PASSWORD, "a")
    users.add("anna", "another password", "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and PASSWORD not in path.read_text(encoding="utf-8")
    kept = Users(path)
    assert [kept.check("anna", "another password", [where]) for where in ("a", "b", "c")] == [True, True, False]
    assert not kept.check("anna", PASSWORD, ["a"])
    bad_names = [(name, PASSWORD) for name in ("", " anna", "a\nb", "x" * 61)]
    for name, password in (*bad_names, ("a", "short"), ("a", "x" * 201)):
        with pytest.raises(FusionError, match=r"want"):
            users.add(name, password, "a")
    path.chmod(0o644)
    with pytest.raises(FusionError, match="other users can read this file"):
        Users(path)
    path.chmod(0o600)
    for text in ("{", '{"anna": {"salt": "x"}}', '["anna"]'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FusionError, match=r"users\.json"):
            Users(path)


def test_users_are_added_and_removed_while_the_console_runs(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    users = Users(path)
    Users(path).add("anna", PASSWORD, "a")
    assert users.check("anna", PASSWORD, ["a"])
    path.write_text("{half", encoding="utf-8")
    assert users.check("anna", PASSWORD, ["a"]), "a file that cannot be read changes nothing"
    path.write_text("{}", encoding="utf-8")
    assert not users.check("anna", PASSWORD, ["a"])
