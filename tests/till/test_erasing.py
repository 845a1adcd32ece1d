"""A person is forgotten while the store runs: everywhere, at once, and for others nothing changes."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from live.stepping import Day, SteppedStore
from till.shops import Bank, opened, paying, shop

from fusion.commands.main import main
from fusion.files.private import locked
from fusion.files.secrets import derived, store_key
from fusion.gates.erasures import Erasures, read_erasures
from fusion.gates.faces import FaceGallery, face_token
from fusion.gates.forgetting import Eraser
from fusion.gates.forgetting import Place as Reach
from fusion.gates.marks import Marks
from fusion.gates.shopper_sessions import ShopperSessions
from fusion.gates.verifiers import GateRequest, Refused
from fusion.live.clock import ManualClock
from fusion.money.backup import back_up
from fusion.money.ledger import Ledger
from fusion.money.vault import Holder
from fusion.observations import GateScan
from fusion.results import Receipt, ReceiptStatus
from fusion.store.models import Store
from fusion.till.settings import TillFile, TillSettings

DIM = 16


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    bank = Bank()
    monkeypatch.setattr("fusion.till.opening.open_provider", lambda settings, base: bank)
    return bank


class Shop:
    """A store with a list of customers, a mail server that is away, and a gallery of faces.

    Attributes:
        store, folder, base: the store, its process's folder, and that of its settings.
        accounts: of its customers, in the order in which they come in.
    """

    def __init__(self, day: Day, base: Path) -> None:
        self.day, self.base, self.folder = day, base, base / "served"
        self.accounts = [f"tok_{one.account}" for one in day.observations if isinstance(one, GateScan)]
        gates = tuple(
            gate.model_copy(update={"credentials": ("card", "face")}) if gate.direction != "out" else gate
            for gate in paying(day.store, "leave").gate
        )
        self.store: Store = paying(day.store, "leave").model_copy(update={"gate": gates})
        self.store.save(base / "store")
        with open(base / "customers.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["account", "token", "email", "member", "adult"])
            rows.writerows([account, account, f"{account}@example.org", "", ""] for account in self.accounts)
        (base / "customers.csv").chmod(0o600)
        tables = {
            "payment": {"provider": "test"},
            "customers": {"file": "customers.csv"},
            "gates": {"faces": {"dim": DIM, "effective_dim": DIM, "false_accept_rate": 1e-3}},
        }
        self.till = TillFile(TillSettings.model_validate(tables), base)
        (base / "till.toml").write_text(
            '[payment]\nprovider = "test"\n[customers]\nfile = "customers.csv"\n'
            f"[gates.faces]\ndim = {DIM}\neffective_dim = {DIM}\nfalse_accept_rate = 1e-3\n",
            encoding="utf-8",
        )
        self.books = self.folder / f"{self.store.id}.sqlite"
        gallery = self.gallery()
        for i, account in enumerate(self.accounts):
            gallery.enrol(account, f"Customer {i}", np.eye(DIM)[i])
        with closing(ShopperSessions(self.folder / "shopper.sqlite")) as sessions:
            self.tokens = {account: sessions.begin("account", account, 1.0) for account in self.accounts}
        (self.folder / "other.jsonl").write_text(json.dumps({"who": self.accounts[0]}) + "\n", encoding="utf-8")

    def gallery(self) -> FaceGallery:
        """The gallery as another process has it open, such as that of a gate."""
        key = derived(store_key(self.folder), "faces")
        return FaceGallery(
            self.folder / "faces", key, dim=DIM, effective_dim=DIM, false_accept_rate=1e-3,
            marks=Marks(self.folder / "used.sqlite"),
        )  # fmt: skip

    def open(self, folder: Path | None = None) -> SteppedStore:
        return opened(self.store, folder or self.folder, ManualClock(), till=self.till)

    def forget(self, *words: str) -> int:
        return main(["forget", str(self.base / "store"), str(self.books), *words])

    def receipts(self) -> dict[str, tuple[str, int]]:
        """Status and total of every visit in the books."""
        with Ledger.open(self.books, self.store) as ledger:
            assert ledger.verify() is None
            found = {visit: ledger.standing(visit) for visit in self.day.receipts}
            return {visit: (one.status, one.total) for visit, one in found.items() if one is not None}

    def traces(self, names: list[str]) -> list[tuple[str, str]]:
        """Files below the store's folder that hold one of some names; what is compressed or sealed is looked into."""
        found = []
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                if path.name == "snapshot":
                    content += zlib.decompress(content.split(b"\n", 3)[3])
                found += [(path.name, name) for name in names if name.encode() in content]
        if any(name in self.gallery() for name in names):
            found.append(("faces", "enrolled"))
        return found


@pytest.fixture
def place(day: Day, tmp_path: Path) -> Shop:
    return Shop(day, tmp_path)


def while_running(stepped: SteppedStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[Shop, str], int]:
    """Runs the command beside a store that makes a step whenever the command waits."""

    def forget(place: Shop, account: str) -> int:
        with monkeypatch.context() as patched, locked(place.folder / "lock") as held:
            assert held
            patched.setattr("fusion.live.loop.STEP_WAIT_S", 0.0)
            patched.setattr("time.sleep", lambda s: stepped.loop.step())
            return place.forget("--account", account)

    return forget


def test_a_running_store_reads_files_of_other_programs_again_when_asked(place: Shop) -> None:
    stepped = place.open()
    stepped.reread()
    stepped.loop.step()
    (place.base / "customers.csv").write_text("account\n", encoding="utf-8")
    stepped.reread()
    stepped.loop.step()
    stepped.loop.step()
    status = stepped.status()
    read, faulty = (line for line in stepped.messages if "customers.csv" in line and "credentials" not in line)
    assert read.endswith("customers.csv was read again") and "want the columns" in faulty
    assert status["till"]["unreadable"] == {"customers.csv": faulty}
    stepped.stop()


def first_finished(place: Shop, stepped: SteppedStore, stride: int = 200) -> tuple[int, str]:
    """Serve until the first visit of a customer is over. Returns how many observations that took, and the account."""
    for first in range(0, len(place.day.observations), stride):
        shop(stepped, place.day.observations[first : first + stride])
        ledger = stepped.loop.books.ledger
        for visit in place.day.receipts:
            standing = ledger.standing(visit)
            if standing is not None and standing.is_final and standing.account is not None:
                holder = ledger.holder(standing.account)
                assert holder is not None
                return first + stride, holder.account
    raise AssertionError("no visit has ended")


def test_a_running_store_forgets_a_customer_everywhere_and_changes_nothing_for_others(
    bank: Bank, place: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stepped = place.open()
    n, account = first_finished(place, stepped)
    ledger, eye = stepped.loop.books.ledger, np.eye(DIM)[place.accounts.index(account)]
    pseudonyms = ledger.pseudonyms(account)
    (own,) = ledger.visits(account)
    others = [visit for visit in place.day.receipts if visit != own]
    with closing(ShopperSessions(place.folder / "shopper.sqlite")) as sessions:
        by_mail = [sessions.begin("visit", visit, 1.0) for visit in (own, others[0])]
    at_the_gate = place.gallery()
    stepped.loop.save(wait=True)
    held = {file for file, _ in place.traces([account])}
    assert {f"{place.store.id}.sqlite", "other.jsonl", "faces", "shopper.sqlite"} <= held
    assert while_running(stepped, monkeypatch)(place, account) == 0
    out = capsys.readouterr().out
    assert "vault of the books: 1 visits erased" in out and "faces: 1 erased" in out
    assert "other.jsonl (1)" in out and "customers.csv:" in out and "backups: not reached" in out
    request = GateRequest(1, "entry", "face", face_token(eye))
    assert isinstance(at_the_gate.verify(request), Refused), "another process drops the face at once"
    with closing(ShopperSessions(place.folder / "shopper.sqlite")) as sessions:
        assert [sessions.get(token, 2.0) is None for token in by_mail] == [True, False], "of the customer's visit alone"
    # A snapshot of a minute later names no one any more; until the store has ended the others are served on.
    assert place.traces([account, f"{account}@example.org"]) == []
    assert stepped.status()["till"]["erasures"] == {}
    shop(stepped, place.day.observations[n:])
    stepped.end()
    assert place.traces([account, *pseudonyms]) == []
    assert place.traces([other for other in place.accounts if other != account])
    assert place.receipts() == {
        visit: (receipt.status, receipt.total) for visit, receipt in place.day.receipts.items()
    }
    assert bank.total == sum(receipt.total for receipt in place.day.receipts.values())


def test_who_is_inside_pays_first_and_is_forgotten_then(
    bank: Bank, place: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock()
    stepped = opened(place.store, place.folder, clock, till=place.till)
    n, _ = first_finished(place, stepped)
    ledger = stepped.loop.books.ledger
    inside = ledger.open_visits()[-1]
    holder = ledger.holder(inside.account or "")
    assert holder is not None
    assert while_running(stepped, monkeypatch)(place, holder.account) == 1
    assert f"visit {inside.visit} is open" in capsys.readouterr().out
    assert [*stepped.status()["till"]["erasures"].values()] == [(f"visit {inside.visit} is open",)]
    assert place.forget("--list") == 0 and f"visit {inside.visit} is open" in capsys.readouterr().out
    bank.away = True
    shop(stepped, place.day.observations[n:])
    # The bill is final and not paid: the link stays until it is, over a restart too.
    stepped.stop()
    assert place.traces([holder.account])
    bank.away = False
    stepped = opened(place.store, place.folder, clock, till=place.till)
    clock.advance(120.0)
    stepped.loop.step()
    clock.advance(120.0)
    stepped.loop.step()
    stepped.end()
    [erasure] = read_erasures(place.folder / "erasures.sqlite")
    assert erasure.state == "done", erasure.waits_for
    assert place.traces([holder.account, holder.pseudonym]) == []
    assert bank.total == sum(receipt.total for receipt in place.day.receipts.values())


def test_a_backup_that_is_put_back_brings_no_one_back(
    bank: Bank, place: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stepped = place.open()
    _, account = first_finished(place, stepped)
    pseudonyms = stepped.loop.books.ledger.pseudonyms(account)
    stepped.stop()
    back_up(place.folder, tmp_path / "backup", 1)
    assert place.forget("--account", account, "--till", str(place.base / "till.toml")) == 0
    assert place.traces([account]) == [] and "customers.csv:" in capsys.readouterr().out
    lost = place.folder.rename(tmp_path / "lost")
    command = ["restore", str(tmp_path / "backup"), str(place.folder), "--key", str(lost / "store.key")]
    assert main([*command, "--lost", str(lost)]) == 0
    assert "1 people asked to be forgotten and were erased" in capsys.readouterr().out
    # The store itself goes through what is in its memory.
    stepped = place.open()
    stepped.loop.step()
    stepped.stop()
    assert place.traces([account, f"{account}@example.org"]) == [] and place.traces(place.accounts)
    with Ledger.open(place.books, place.store) as ledger:
        assert not ledger.pseudonyms(account) and pseudonyms


def test_a_customer_who_comes_back_after_an_erasure_is_a_new_one(place: Shop) -> None:
    with Ledger.open(place.books, place.store) as ledger, closing(Erasures(place.folder, b"k" * 32)) as erasures:
        reach = Reach(place.store, place.folder, lambda: (ledger,))
        eraser = Eraser(erasures, lambda: reach)
        ledger.hold(Holder("p-before", "anna", "tok_1", None, 1_000))
        ledger.open_visit("v1", "p-before", 1_500)
        erasures.ask(["anna"], 2_000)
        [waiting] = eraser.work(2_000)
        ledger.hold(Holder("p-after", "anna", "tok_1", None, 3_000))
        ledger.open_visit("v2", "p-after", 3_500)
        assert waiting.waits_for == ("visit v1 is open",)
        ledger.post_receipt(Receipt("v1", "p-before", 1_500, 3_900, 4_000, ReceiptStatus.SETTLED, (), "EUR", 0, ()))
        [done] = eraser.work(4_000)
        assert done.state == "done" and ledger.pseudonyms("anna") == ["p-after"]
        assert b"anna" not in (place.folder / "erasures.sqlite").read_bytes()
        # Asked for once more, it is about what came since.
        erasures.ask(["anna"], 5_000)
        [again] = eraser.work(5_000)
        assert again.waits_for == ("visit v2 is open",)
