"""till.toml, the list of customers, and what a till cannot honour: every fault is named before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from money.books import STORE
from till.shops import TEST_TILL

from fusion.errors import ConfigError
from fusion.results import Warning
from fusion.store.models import Gate, PaymentPolicy, Store, Zone
from fusion.till.customers import CustomerFile
from fusion.till.errands import Errand, Errands
from fusion.till.honoured import unmet
from fusion.till.opening import opened
from fusion.till.settings import TillFile
from fusion.till.till import Around

ENTRY = Gate(id="entry", direction="in", line=((0.0, 0.0), (1.0, 0.0)), credentials=("qr", "staff"))
EXIT = Gate(id="exit", direction="out", line=((2.0, 0.0), (3.0, 0.0)), credentials=("open",))
PAY = Zone(id="pay", kind="payment", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))


def written(folder: Path, text: str, name: str = "till.toml", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def with_mode(mode: str, **changes: object) -> Store:
    policy = {"mode": mode, **({"authorise": 5000} if mode == "enter" else {})}
    return STORE.model_copy(update={"payment": PaymentPolicy.model_validate(policy), **changes})


def test_every_fault_of_a_till_is_reported_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[payment]\nprovider = "coins"\n[mail]\nhost = "mail.example"\nsender = "shop"\n'
        '[books]\nwhere = "postgresql://me:secret@db.example/books"\ntypo = 1\n',
    )
    with pytest.raises(ConfigError) as raised:
        TillFile.load(path)
    faults = "\n".join(raised.value.faults)
    assert "till.toml: payment.provider" in faults and "sender: an address with @" in faults
    assert "books.typo: unknown key" in faults
    with pytest.raises(ConfigError, match="want no password in the URL") as raised:
        TillFile.load(written(tmp_path, '[books]\nwhere = "postgresql://me:secret@db.example/books"\n'))
    assert "secret@" not in str(raised.value)
    with pytest.raises(ConfigError, match="tls = true for a server elsewhere"):
        TillFile.load(written(tmp_path, '[mail]\nhost = "mail.example"\nsender = "a@b.c"\ntls = false\n'))


def test_the_shoppers_pages_have_a_safe_address_and_a_secret_of_their_own(tmp_path: Path) -> None:
    for url in ("http://my.shop.example", "https://my.shop.example/a?b", "my.shop.example", "https://u@my.shop.example"):
        with pytest.raises(ConfigError, match="url"):
            TillFile.load(written(tmp_path, f'[shopper]\nurl = "{url}"\n'))
    local = TillFile.load(written(tmp_path, '[shopper]\nurl = "http://localhost:8322"\napp_key_file = "app.key"\n'))
    shopper = local.settings.shopper
    assert shopper is not None
    written(tmp_path, "short", "app.key")
    with pytest.raises(ConfigError, match="want at least 32 characters"):
        shopper.app_key(tmp_path)
    written(tmp_path, "f" * 64, "app.key", mode=0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        shopper.app_key(tmp_path)
    written(tmp_path, "f" * 64, "app.key")
    assert shopper.app_key(tmp_path) == b"f" * 64
    both = '[shopper]\nurl = "https://my.example"\napp_key_file = "app.key"\napp_key_env = "APP"\n'
    with pytest.raises(ConfigError, match="not both"):
        TillFile.load(written(tmp_path, both))


def test_customers_are_found_by_their_address(tmp_path: Path) -> None:
    rows = "account,token,email,member,adult\na,t,Ann@x.example,no,no\nb,t,ann@X.example,no,no\nc,t,,no,no\n"
    customers = CustomerFile(written(tmp_path, rows, "customers.csv"))
    found = customers.at_address(" ann@x.example")
    assert [(each.account, each.email) for each in found] == [("a", "Ann@x.example"), ("b", "ann@X.example")]
    assert customers.at_address("") == []
    written(tmp_path, rows.replace("b,t,ann@X.example", "b,t,bob@x.example"), "customers.csv")
    assert [each.account for each in customers.at_address("ann@x.example")] == ["a"]


def test_books_lie_where_the_settings_say(tmp_path: Path) -> None:
    assert TillFile().books_at("box", tmp_path) == (str(tmp_path / "box.sqlite"), None)
    elsewhere = TillFile.load(written(tmp_path, '[books]\nwhere = "books"\n'))
    assert elsewhere.books_at("box", Path("x")) == (str(tmp_path / "books" / "box.sqlite"), None)
    server = TillFile.load(written(tmp_path, '[books]\nwhere = "postgresql://db/books"\nvaults = "vaults"\n'))
    assert server.books_at("box", Path("x")) == ("postgresql://db/books", str(tmp_path / "vaults" / "box.vault.sqlite"))


@pytest.mark.parametrize(
    ("store", "till", "source", "line"),
    [
        (with_mode("door"), TillFile(), None, 'payment.mode = "door" needs a payment provider; add [payment]'),
        (with_mode("enter"), TEST_TILL, "simulation", "needs a source whose gates ask"),
        (with_mode("door", gate=(ENTRY,)), TEST_TILL, None, "needs a gate that leads out"),
        (with_mode("zone"), TEST_TILL, None, "needs a place to pay"),
    ],
)
def test_what_a_till_cannot_honour_is_named(store: Store, till: TillFile, source: str | None, line: str) -> None:
    assert any(line in fault for fault in unmet(store, till, source)), unmet(store, till, source)


def test_what_a_till_honours_is_not_named() -> None:
    assert not unmet(with_mode("leave"), TillFile(), "mqtt://broker")
    assert not unmet(with_mode("door", gate=(ENTRY, EXIT)), TEST_TILL, "mqtt://broker")
    assert not unmet(with_mode("zone", zone=(PAY,)), TEST_TILL, "mqtt://broker")


def test_credentials_without_a_verifier_and_members_without_customers_are_named(tmp_path: Path) -> None:
    till = TillFile.load(written(tmp_path, '[payment]\nprovider = "test"\n'))
    store = with_mode("leave", gate=(ENTRY, EXIT))
    faults = unmet(store, till)
    assert len(faults) == 2 and "qr cannot be verified" in faults[0] and "staff cannot be verified" in faults[1]
    members = {"price": [{"gtin": STORE.products[0].gtin, "price": 1, "members": True}]}
    store = Store.model_validate({**STORE.model_dump(), "prices": members})
    assert any("members = true needs to know who is a member" in fault for fault in unmet(store, till))


def test_a_till_never_charges_people_of_a_recording(tmp_path: Path) -> None:
    text = '[payment]\nprovider = "http"\nurl = "https://pay.example/v1"\nsecret_env = "PAY"\n'
    till = TillFile.load(written(tmp_path, text))
    assert any("would charge people of a recording" in fault for fault in unmet(STORE, till, "recording:monday"))


# ---- customers -------------------------------------------------------------------------------------------------------


def test_customers_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    head = "account,token,email,member,adult\n"
    path = written(tmp_path, head + "ann,tok_1,ann@example.org,yes,yes\nbob,,,,\n", "customers.csv")
    customers = CustomerFile(path)
    ann, bob = customers.of("ann"), customers.of("bob")
    assert ann is not None and (ann.token, ann.email, ann.member, ann.adult) == ("tok_1", "ann@example.org", True, True)
    assert bob is not None and (bob.token, bob.email, bob.member) == (None, None, False)
    assert customers.of("eve") is None and "tok_1" not in repr(ann)
    written(tmp_path, head + "eve,tok_2,,,\n", "customers.csv")
    os.utime(path, ns=(1, 1))
    assert customers.of("ann") is None and customers.of("eve") is not None
    # A new version with a fault leaves the last good one in use.
    written(tmp_path, "account\n", "customers.csv")
    os.utime(path, ns=(2, 2))
    assert customers.of("eve") is not None and "want the columns" in customers.file.fault
    for n, broken in enumerate((head + '"a"b,t,,,\n', head + "a" * 200_000 + ",t,,,\n", head + '"open,t,,,\n'), 3):
        written(tmp_path, broken, "customers.csv")
        os.utime(path, ns=(n, n))
        assert customers.of("eve") is not None and "customers.csv:2: want CSV" in customers.file.fault
    # Lines may end as an old machine's do.
    written(tmp_path, (head + "zoe,tok_3,,,\nyan,tok_4,,,\n").replace("\n", "\r"), "customers.csv")
    os.utime(path, ns=(9, 9))
    assert customers.of("zoe") is not None and customers.of("yan") is not None and not customers.file.fault


def test_a_list_that_breaks_while_the_store_runs_is_a_warning_and_stands_in_its_status(tmp_path: Path) -> None:
    head = "account,token,email,member,adult\n"
    path = written(tmp_path, head + "ann,tok_1,,,\n", "customers.csv")
    staff = written(tmp_path, "badge-of-ann\n", "staff.txt")
    written(tmp_path, '[customers]\nfile = "customers.csv"\n[gates]\nstaff_list = "staff.txt"\n')
    warnings: list[Warning] = []
    around = Around(tmp_path, lambda: 1, lambda: 0.0, warn=warnings.append, threads=False)
    with opened(TillFile.load(tmp_path / "till.toml"), STORE, around) as till:
        assert till.status()["unreadable"] == {}
        written(tmp_path, head + "ann,tok_1,nowhere,,\n", "customers.csv")
        staff.unlink()
        faults = till.status()["unreadable"]
        assert faults["customers.csv"] == (
            f"{path}:2: email: want an address with @; its last good version stays in use"
        )
        assert faults["staff.txt"].endswith("so it admits no person until it can be read")
        assert {warning.subject: warning.detail for warning in warnings} == faults
        # Asked to, the store reads all of them again, and states what it found.
        written(tmp_path, head + "ann,tok_1,,,\n", "customers.csv")
        assert set(till.reread()) == {faults["staff.txt"], f"{path} was read again"}
        assert set(till.status()["unreadable"]) == {"staff.txt"}


def test_faults_of_a_list_of_customers_name_rows_and_no_values(tmp_path: Path) -> None:
    text = "account,token,email,member,adult\nann,t,nowhere,yes,no\nann,t,,,\nbob,t,,perhaps,\nshort\n"
    with pytest.raises(ConfigError) as raised:
        CustomerFile(written(tmp_path, text, "customers.csv"))
    faults = raised.value.faults
    assert [fault.split(":")[1] for fault in faults] == ["2", "4", "5"] and "nowhere" not in str(raised.value)
    with pytest.raises(ConfigError, match="can be read by others; run chmod 600"):
        CustomerFile(written(tmp_path, "account\n", "customers.csv", 0o644))


# ---- errands ---------------------------------------------------------------------------------------------------------


def test_an_errand_waits_longer_each_time_and_reports_once() -> None:
    now_s, answers, messages = [0.0], ["away"] * 6 + [""], []
    errand = Errand(
        "mail", lambda: answers.pop(0), every_s=2.0, pause_max_s=8.0, monotonic_s=lambda: now_s[0],
        report=messages.append,
    )  # fmt: skip
    errands = Errands((errand,))
    pauses = []
    while answers:
        pauses.append(errand.step())
        assert errand.paused == bool(errand.waits_for)
        if errand.paused:
            before = len(answers)
            errands.do_all()  # It is not time yet.
            assert len(answers) == before and errands.waiting() == {"mail": "away"}
        now_s[0] += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 2.0]
    assert len(messages) == 2 and "waits, the store continues: away" in messages[0] and "done again" in messages[1]


def test_an_errand_that_raises_waits_like_any_other() -> None:
    def work() -> str:
        raise ConfigError("the server is away")

    errand = Errand("books", work, every_s=1.0, pause_max_s=60.0)
    errand.step()
    assert errand.waits_for == "ConfigError: the server is away"
