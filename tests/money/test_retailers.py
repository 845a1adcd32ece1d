"""Tenants: separate books, fees, statements that add up; and nobody is remembered longer than said."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from conftest import Place
from money.books import BREAD, COLA, STORE, TWO, make_store, receipt

from fusion.commands.main import main
from fusion.errors import ConfigError, LedgerError
from fusion.gates.faces import FaceGallery
from fusion.gates.privacy import DAY_NS, Forgetting, holdings_text
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import Verified
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.profiles import Profiles
from fusion.money.providers import InProcessProvider
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.retailers import Chain, Retailer, open_books_of
from fusion.money.statements import FEES, post_fee, statement
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.store.models import Gate

BRAND = Retailer(id="r", name="Retail Ltd", brand="Brand", fee_share=7.5, stores=("shop",))


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 10**9


def sell(ledger: Ledger, visit: str, t_ns: int, *lines: ReceiptLine, status: str = "settled") -> None:
    one = receipt(visit, *lines, status=status, account=None)
    moved = t_ns - one.issued_ns
    times = {name: getattr(one, name) + moved for name in ("enter_ns", "exit_ns", "issued_ns")}
    ledger.post_receipt(type(one)(**{**{name: getattr(one, name) for name in one.__slots__}, **times}))


def test_a_months_statement_adds_up_to_the_journal(place: Place) -> None:
    with place.open(STORE) as ledger:
        # The month is the store's: one nanosecond before its midnight is still February.
        sell(ledger, "feb", at("2026-03-01T00:00") - 1, *TWO)
        sell(ledger, "first", at("2026-03-01T00:00"), *TWO)
        sell(ledger, "doubt", at("2026-03-10T12:00"), *TWO, status="review")
        ledger.decide("feb", "waive", by="eve", t_ns=at("2026-03-11T12:00"))
        bread = [ReceiptLine(BREAD, 1, 199, 1.0)]
        ledger.decide("doubt", "correct", by="eve", t_ns=at("2026-04-01T00:00"), lines=bread)
        march = statement(ledger, STORE, BRAND, "2026-03")
        assert march.opening["receivable"] == 697 and march.moved == {} and march.closing["receivable"] == 697
        assert march.sales == {"19%": (0, 0), "7%": (0, 0)} and (march.n_receipts, march.n_decisions) == (2, 1)
        february, april = (statement(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-04"))
        assert february.sales == {"19%": (418, 80), "7%": (186, 13)} and february.net_revenue == 604
        assert april.sales == {"7%": (186, 13)} and april.opening == march.closing and march.opening == february.closing
        # 7.5 % of 604 is 45.3, of 186 13.95.
        assert [post_fee(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-03", "2026-04")] == [45, 0, 14]
        assert [post_fee(ledger, STORE, BRAND, month) for month in ("2026-02", "2026-03", "2026-04")] == [0, 0, 0]
        sell(ledger, "late", at("2026-02-10T12:00"), *TWO)
        assert post_fee(ledger, STORE, BRAND, "2026-02") == 46  # of 1208: 90.6, rounded to 91
        assert statement(ledger, STORE, BRAND, "2026-04").closing == {
            account: amount for account, amount in ledger.balances()["EUR"].items() if amount
        }
        assert statement(ledger, STORE, BRAND, "2026-02").moved[FEES] == 91
        assert ledger.verify() is None and "Retail Ltd" in march.text(STORE)
        with pytest.raises(LedgerError, match="2026-03"):
            statement(ledger, STORE, BRAND, "March")
        monthly = Retailer(id="m", name="M", brand="M", fee_monthly=9900, stores=("shop",))
        assert statement(ledger, STORE, monthly, "2026-05").fee == 9900


def test_any_months_add_up(tmp_path: Path) -> None:
    rng = random.Random(5)
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        with ledger.batch():
            for i in range(400):
                t_ns = at("2026-01-01T00:00") + rng.randrange(180 * 86_400) * 10**9
                line = ReceiptLine(rng.choice([COLA, BREAD]), rng.randrange(1, 5), rng.randrange(1, 999), 0.9)
                sell(ledger, f"v{i}", t_ns, line, status=rng.choice(["settled", "review"]))
                if rng.random() < 0.4:
                    decision = {"decision": "waive"} if rng.random() < 0.5 else {"decision": "correct", "lines": TWO}
                    ledger.decide(f"v{i}", by="eve", t_ns=t_ns + rng.randrange(40 * DAY_NS), **decision)  # type: ignore[arg-type]
        months = [f"2026-{month:02d}" for month in range(1, 9)]
        for month in months:
            post_fee(ledger, STORE, BRAND, month)
        told = [statement(ledger, STORE, BRAND, month) for month in months]
    assert told[0].opening == {}
    for before, one in zip(told, told[1:]):
        assert one.opening == before.closing
    for one in told:
        assert sum(one.closing.values()) == sum(one.moved.values()) == 0
        for account in {*one.opening, *one.moved, *one.closing}:
            total = one.opening.get(account, 0) + one.moved.get(account, 0)
            assert total == one.closing.get(account, 0)
        assert one.moved.get(FEES, 0) == one.fee
        assert one.moved.get("receivable", 0) == sum(net + vat for net, vat in one.sales.values())


# ---- chains ----------------------------------------------------------------------------------------------------------

CHAIN = """format_version = 1
[[retailer]]
id = "north"
name = "North Ltd"
brand = "North"
fee_share = 5.0
stores = ["kiosk", "stand"]
[[retailer]]
id = "south"
name = "South Ltd"
brand = "South"
fee_monthly = 10000
stores = ["shop"]
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for store in ("kiosk", "stand", "shop"):
        make_store(store, "USD" if store == "shop" else "EUR").save(tmp_path / store)
    (tmp_path / "chain.toml").write_text(CHAIN)
    return tmp_path / "chain.toml"


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
def test_tenants_keep_separate_books(chain: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(place.folder) if place.database is None else f"{place.database}#{place.folder}"
    loaded = Chain.load(chain)
    kiosk = loaded.stores["north"][0]
    with open_books_of(kiosk, where) as ledger:
        sell(ledger, "v1", at("2026-03-03T12:00"), *TWO)
    assert loaded.retailer_of(kiosk).brand == "North"
    found = {store.id: ledger.balances() for _, store, ledger in loaded.books(where)}
    assert found["stand"] == found["shop"] == {} and sum(found["kiosk"]["EUR"].values()) == 0
    if place.database is None:
        with pytest.raises(LedgerError, match="want the books of"):
            Ledger.open(place.folder / "kiosk.sqlite", loaded.stores["south"][0])
    assert main(["statement", str(chain), where, "2026-03"]) == 0
    out = capsys.readouterr().out
    assert out.count("2026-03:") == 3 and "-100.00 USD" in out and "North Ltd, Shop, 2026-03: 1 receipts" in out
    balances = [ledger.balances() for _, _, ledger in loaded.books(where)]
    assert balances[0]["EUR"][FEES] == 30 and balances[2]["USD"][FEES] == 10000
    assert main(["statement", str(chain), where, "2026-3"]) == 2 and "want one such as" in capsys.readouterr().err


def test_faults_of_a_chain_are_told_together(chain: Path) -> None:
    chain.write_text(CHAIN.replace('id = "south"', 'id = "north"').replace('"stand"', '"gone"'))
    with pytest.raises(ConfigError) as raised:
        Chain.load(chain)
    assert "gone" in str(raised.value) and "'north' 2 times" in str(raised.value)
    chain.write_text(CHAIN.replace("fee_share = 5.0", "fee_share = 5.0\nfee_monthly = 1\ntypo = 2"))
    with pytest.raises(ConfigError, match="typo"):
        Chain.load(chain)
    with pytest.raises(ConfigError, match="want TOML"):
        Chain.load(chain.parent / "none.toml")


# ---- privacy ---------------------------------------------------------------------------------------------------------

NAMES = ("alice-long-name", "tok_of_alice", "alice@example.org", "Alice Liddell")


def traces(folder: Path) -> list[tuple[str, str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [(path.name, name) for path in files for name in NAMES if name.encode() in path.read_bytes()]


def test_after_erasure_nothing_of_somebody_is_left_anywhere(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    folder = place.folder
    store = STORE.model_copy(
        update={"gate": (Gate(id="in", direction="in", line=((0, 1), (0, 0)), credentials=("qr", "face")),)}
    )
    ledger = place.open(store)
    checkout = Checkout(ledger, InProcessProvider(), store)
    faces = FaceGallery(folder / "faces", b"k" * 32, dim=16, effective_dim=16, false_accept_rate=1e-3)
    profiles, kept = Profiles(folder / "profiles.sqlite"), ReceiptStore(folder / "receipts")
    people = {
        "alice-long-name": Verified("alice-long-name", "Welcome, Alice Liddell", "tok_of_alice", "alice@example.org"),
        "bob-long-name": Verified("bob-long-name", "Welcome", "tok_of_bob", "bob@example.org"),
    }
    pseudonyms = Pseudonyms(ledger, customer=people.get)
    forgetting = Forgetting(store, ledger, pseudonyms=pseudonyms, faces=faces, profiles=profiles)
    t_ns = at("2026-03-03T12:00")
    for i, account in enumerate(people):
        faces.enrol(account, "Alice Liddell", np.eye(16)[i])
        profiles.consent(account)
        for n in range(3):
            answer = pseudonyms.name(people[account], t_ns)
            assert isinstance(answer, Verified)
            visit = f"{i}-{n}"
            checkout.open_visit(visit, answer.account, t_ns)
            one = receipt(visit, *TWO, account=answer.account, status="review" if n == 2 else "settled")
            checkout.receipt(one)
            profiles.add(account, TWO)
            if document := ReceiptDocument.of(ledger, store, visit):
                kept.write(document)
            pseudonyms.left(answer.account)
    head = ledger.head()
    assert {name for _, name in traces(folder)} == set(NAMES[:3]), "faces are sealed"
    assert forgetting.erase("alice-long-name") == {"visits": 3, "faces": 1, "profiles": 1}
    assert traces(folder) == [] and not any(name in caplog.text for name in NAMES)
    assert ledger.verify(head) is None and len(ledger.pseudonyms("bob-long-name")) == 3
    assert forgetting.erase("alice-long-name") == {"visits": 0, "faces": 0, "profiles": 0}
    # The rest goes by itself after thirty days; the books stay good, and the review can still be decided.
    assert forgetting.due(t_ns + 29 * DAY_NS) == 0 and forgetting.due(t_ns + 31 * DAY_NS) == 3
    assert ledger.pseudonyms("bob-long-name") == [] and ledger.verify(head) is None
    assert checkout.decide("0-2", "waive", by="eve", t_ns=t_ns).status == "paid"
    assert checkout.decide("1-0", "waive", by="eve", t_ns=t_ns).paid == 0
    if place.database is not None:
        server = Path(place.database.partition("host=")[2])
        if server.is_dir():
            for path in server.rglob("*"):
                if path.is_file() and (data := path.read_bytes()):
                    assert not any(name.encode() in data for name in (*NAMES, "bob-long-name")), path
    ledger.close()


def test_what_is_kept_is_told_by_one_command(tmp_path: Path) -> None:
    STORE.save(tmp_path / "shop")
    said = subprocess.run(
        [sys.executable, "-m", "fusion", "privacy", str(tmp_path / "shop")], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == holdings_text(STORE) and "30 days" in said and "advertising: nothing" in said
    assert "face templates" not in said
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        ledger.hold(Holder("p", "a"))
        sell(ledger, "v", at("2026-03-03T12:00"), *TWO)
    assert main(["verify", str(tmp_path / "shop"), str(tmp_path / "ledger.sqlite")]) == 0
    assert main(["verify", str(tmp_path / "shop"), str(tmp_path / "none.sqlite")]) == 2
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        ledger.open_visit("long ago", "alice", at("2026-01-03T12:00"))
        ledger.open_visit("not yet", "bob", 2**62)
    command = ["forget", str(tmp_path / "shop"), str(tmp_path / "ledger.sqlite")]
    assert main(command) == 0 and main([*command, "--account", "bob"]) == 0
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        assert {one.account for one in ledger.open_visits()} == {None} and ledger.verify() is None
    assert not (tmp_path / "none.sqlite").exists()
