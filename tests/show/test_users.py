"""The file of users, their second factors, the audit log, and the command that changes them."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from show.consoles import PASSWORD, T_NS

from fusion.commands.main import main
from fusion.errors import FusionError
from fusion.show.console.audit import DAY_NS, Action, Audit
from fusion.show.console.users import CODE_S, Role, StoreRights, Users, roles_of

pyotp = pytest.importorskip("pyotp")
NOW_S = T_NS / 1e9


@pytest.fixture
def users(tmp_path: Path) -> Users:
    users = Users(tmp_path / "users.json")
    users.add("anna", PASSWORD, "a", StoreRights(roles=(Role.DECIDE,), cap=100, day_cap=300))
    users.add("ben", PASSWORD, "b")
    return users


def test_rights_are_by_store(users: Users) -> None:
    again = Users(users.path)
    anna = again.rights("anna", "a")
    assert anna is not None and anna.may(Role.LOOK) and anna.may(Role.DECIDE) and not anna.may(Role.REFUND)
    authority = anna.authority("anna")
    assert (authority.cap, authority.day_cap, authority.refunds) == (100, 300, False)
    assert again.rights("anna", "b") is None and again.rights("nobody", "a") is None
    assert again.check("ben", PASSWORD, ["a", "b"]) and not again.check("ben", PASSWORD, ["a"])
    # A new password keeps the rights.
    users.add("anna", "another password", "a")
    assert again.rights("anna", "a") == anna and not again.check("anna", PASSWORD, ["a"])
    users.grant("anna", "a", StoreRights(roles=()))
    assert again.rights("anna", "a") is None and not again.check("anna", "another password", ["a"])
    with pytest.raises(FusionError, match="role: want look"):
        roles_of(["boss"])


def test_a_file_of_the_first_format_is_read(tmp_path: Path, users: Users) -> None:
    new = json.loads(users.path.read_text("utf-8"))
    assert new["format"] == 2
    old = {"anna": {key: new["users"]["anna"][key] for key in ("salt", "hash")} | {"stores": ["a", "c"]}}
    users.path.write_text(json.dumps(old), encoding="utf-8")
    found = Users(users.path)
    assert found.check("anna", PASSWORD, ["c"]) and found.rights("anna", "c") == StoreRights()
    found.lock("anna", locked=True)
    assert json.loads(users.path.read_text("utf-8"))["format"] == 2 and found.rights("anna", "a") is None
    for text in ('{"format": 3, "users": {}}', '{"format": 2, "users": {"x": {"stores": {}}}}', '{"anna": 7}', "7"):
        users.path.write_text(text, encoding="utf-8")
        with pytest.raises(FusionError, match=r"users\.json"):
            Users(users.path)


def test_a_stamp_changes_with_all_that_ends_a_session(users: Users) -> None:
    console = Users(users.path)
    stamps = [console.stamp("anna")]
    for change in (
        lambda: users.grant("anna", "a", StoreRights(roles=(Role.LOOK,))),
        lambda: users.add("anna", "another password", "a"),
        lambda: users.sign_out("anna"),
        lambda: users.second_factor("anna", wanted=True),
        lambda: users.lock("anna", locked=True),
        lambda: users.lock("anna", locked=False),
        lambda: users.remove("anna"),
    ):
        change()
        stamps.append(console.stamp("anna"))
    assert len(set(stamps[:-1])) == len(stamps) - 1 and stamps[-1] == ""
    with pytest.raises(FusionError, match="no user 'anna'"):
        users.lock("anna", locked=True)


def test_codes_are_good_once_and_for_a_minute(users: Users) -> None:
    assert users.take_code("ben", "", NOW_S), "without a second factor none is asked"
    address = users.second_factor("anna", wanted=True)
    generator, stamp = pyotp.parse_uri(address), users.stamp("anna")
    assert "issuer=fusion" in address and address.startswith("otpauth://totp/")

    def code(at_s: float) -> str:
        return str(generator.generate_otp(int(at_s) // CODE_S))

    assert not users.take_code("anna", "", NOW_S) and not users.take_code("anna", code(NOW_S + 90), NOW_S)
    assert users.take_code("anna", f" {code(NOW_S)} ", NOW_S)
    assert not users.take_code("anna", code(NOW_S), NOW_S + 1), "used"
    assert not Users(users.path).take_code("anna", code(NOW_S), NOW_S + 1), "in another console too"
    assert not users.take_code("anna", code(NOW_S - 30), NOW_S), "older than one that was used"
    assert users.take_code("anna", code(NOW_S + 30), NOW_S)
    assert not users.take_code("nobody", code(NOW_S), NOW_S)
    assert users.stamp("anna") == stamp, "signing in elsewhere ends no session"
    users.second_factor("anna", wanted=False)
    assert users.take_code("anna", "", NOW_S)


def test_changes_at_the_same_time_lose_none(users: Users) -> None:
    def grant(n: int) -> None:
        Users(users.path).grant("anna", f"store-{n}", StoreRights())

    threads = [threading.Thread(target=grant, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users.all()["anna"].stores) == 13


# ---- the audit log ---------------------------------------------------------------------------------------------------


def test_a_changed_line_of_the_audit_log_is_found(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    for n in range(6):
        Audit(audit.path).add(Action(T_NS + n, "anna", "read visit", "a", f"visit-{n}\n\x1b[2J", "10.0.0.1"))
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600 and audit.verify() is None
    lines = audit.path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6 and b"\x1b" not in audit.path.read_bytes()
    for tampered in (
        [*lines[:2], lines[2].replace(b"anna", b"anne"), *lines[3:]],
        [*lines[:2], *lines[3:]],
        [*lines[:2], lines[3], lines[2], *lines[4:]],
        [*lines[:3], lines[1], *lines[3:]],
        [*lines[:3], b"{half\n", *lines[3:]],
    ):
        audit.path.write_bytes(b"".join(tampered))
        assert audit.verify() is not None
    # A line that a crash cut short is named, and the ones after it are not lost.
    audit.path.write_bytes(b"".join(lines)[:-40])
    audit.add(Action(T_NS + 9, "ben", "signed in"))
    fault = audit.verify()
    assert fault is not None and ":6: cannot be read" in fault
    assert [row["by"] for row in audit.lines()][-1] == "ben"


def test_the_audit_log_is_bounded(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", kept_days=10)
    for day in range(30):
        audit.add(Action(T_NS + day * DAY_NS, "anna", "signed in"))
    kept = list(audit.lines())
    assert 10 <= len(kept) <= 13 and kept[0]["did"] == "older lines dropped" and audit.verify() is None
    lines = audit.path.read_bytes().splitlines(keepends=True)
    audit.path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert audit.verify() is not None
    small = Audit(tmp_path / "small.jsonl", kept_bytes=5000)
    for n in range(200):
        small.add(Action(T_NS + n, "", "sign-in failed"))
    assert small.path.stat().st_size < 6000 and small.verify() is None


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_changes_users_and_notes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users.json"

    def run(*words: str) -> tuple[int, str]:
        status = main(["users", *words, "--users", str(file)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    assert run("add", "anna", "--store", "a", "--role", "decide", "--cap", "2000")[0] == 0
    assert "anna\n  a: decide; alone a decision up to 2000" in run("list")[1]
    assert run("caps", "anna", "--store", "a", "--cap", "10", "--day-cap", "30")[0] == 0
    status, printed = run("roles", "anna", "--store", "a", "--role", "refund", "--role", "decide")
    assert status == 0 and "decide, refund" in printed
    assert Users(file).rights("anna", "a") == StoreRights(roles=(Role.DECIDE, Role.REFUND), cap=10, day_cap=30)
    status, printed = run("totp", "anna")
    assert status == 0 and "otpauth://totp/" in printed
    assert run("lock", "anna")[0] == 0 and Users(file).rights("anna", "a") is None
    assert "anna (locked, second factor)" in run("list")[1]
    assert run("unlock", "anna")[0] == run("sign-out", "anna")[0] == run("totp", "anna", "--off")[0] == 0
    for words, message in (
        (("lock", "nobody"), "no user 'nobody'"),
        (("lock",), "NAME is missing"),
        (("roles", "anna"), "--store is missing"),
        (("roles", "anna", "--store", "a", "--role", "boss"), "role: want look"),
        (("caps", "anna", "--store", "z"), "no rights in 'z'"),
        (("roles", "anna", "--store", "a", "--cap", "-1"), "--cap"),
    ):
        status, printed = run(*words)
        assert status == 2 and message in printed, words
    assert run("remove", "anna")[0] == 0 and len(Users(file)) == 0
    status, printed = run("audit")
    assert status == 0 and "users: totp off" in printed and "every line is as it was written" in printed
    secret = [line for line in file.parent.joinpath("audit.jsonl").read_text("utf-8").splitlines() if "otpauth" in line]
    assert not secret
    audit = tmp_path / "audit.jsonl"
    audit.write_bytes(audit.read_bytes().replace(b"users: lock", b"users: look"))
    status, printed = run("audit")
    assert status == 1 and "CHANGED" in printed


def test_what_cannot_be_written_changes_nothing(users: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = users.path.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("fusion.show.console.users.replace_file", full)
        with pytest.raises(FusionError, match="cannot be written"):
            users.lock("anna", locked=True)
    assert users.path.read_bytes() == before and users.rights("anna", "a") is not None
    assert sorted(os.listdir(tmp_path)) == ["users.json", "users.json.lock"]
