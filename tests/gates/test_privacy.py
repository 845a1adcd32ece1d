"""Privacy: after erasure nothing of a customer is left in any file, and one command lists what is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from money.books import STORE, TWO, at, receipt, sell

from fusion.commands.main import main
from fusion.gates.erasures import Erasures
from fusion.gates.faces import FaceGallery
from fusion.gates.forgetting import Eraser, unlink_due
from fusion.gates.forgetting import Place as Reach
from fusion.gates.marks import Marks
from fusion.gates.privacy import DAY_NS, holdings_text
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import Verified
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.profiles import Profiles
from fusion.money.providers import InProcessProvider
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.vault import Holder
from fusion.store.models import Gate

NAMES = ("alice-long-name", "tok_of_alice", "alice@example.org", "Alice Liddell")


def traces(folder: Path) -> list[tuple[str, str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [(path.name, name) for path in files for name in NAMES if name.encode() in path.read_bytes()]


def test_after_erasure_nothing_of_a_customer_is_left_in_any_file(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    folder = place.folder
    store = STORE.model_copy(
        update={"gate": (Gate(id="in", direction="in", line=((0, 1), (0, 0)), credentials=("qr", "face")),)}
    )
    ledger = place.open(store)
    checkout = Checkout(ledger, InProcessProvider(), store)
    marks = Marks(folder / "used.sqlite")
    faces = FaceGallery(folder / "faces", b"k" * 32, dim=16, effective_dim=16, false_accept_rate=1e-3, marks=marks)
    profiles, kept = Profiles(folder / "profiles.sqlite"), ReceiptStore(folder / "receipts")
    people = {
        "alice-long-name": Verified("alice-long-name", "Welcome, Alice Liddell", "tok_of_alice", "alice@example.org"),
        "bob-long-name": Verified("bob-long-name", "Welcome", "tok_of_bob", "bob@example.org"),
    }
    pseudonyms = Pseudonyms(ledger, customer=people.get)
    erasures = Erasures(folder, b"k" * 32)
    reach = Reach(store, folder, lambda: (ledger,), faces=faces, forgotten=pseudonyms.forget)
    eraser = Eraser(erasures, lambda: reach)
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
    erasures.ask(["alice-long-name"], t_ns + DAY_NS)
    # One visit waits for a person's decision: until then the vault keeps who pays for it, and nothing else does.
    [waiting] = eraser.work(t_ns + DAY_NS)
    assert (waiting.state, waiting.waits_for) == ("waiting", ("visit 0-2 is in review",))
    assert "faces: 1 erased" in waiting.report and len(ledger.pseudonyms("alice-long-name")) == 1
    assert "vault of the books: 2 visits erased; kept until it is over" in "\n".join(waiting.report)
    assert len(faces) == 1 and "alice-long-name" not in profiles.accounts()
    assert eraser.work(t_ns + 2 * DAY_NS) == [], "nothing has changed"
    assert checkout.decide("0-2", "waive", by="eve", t_ns=t_ns).status == "paid"
    [done] = eraser.work(t_ns + 2 * DAY_NS)
    assert done.state == "done" and not erasures.undone()
    assert traces(folder) == [] and not any(name in caplog.text for name in NAMES)
    assert ledger.verify(head) is None and len(ledger.pseudonyms("bob-long-name")) == 3
    # The others are unlinked after thirty days; the books stay valid, and the review can still be decided.
    assert unlink_due(store, ledger, t_ns + 29 * DAY_NS) == 0 and unlink_due(store, ledger, t_ns + 31 * DAY_NS) == 3
    assert ledger.pseudonyms("bob-long-name") == [] and ledger.verify(head) is None
    assert checkout.decide("1-0", "waive", by="eve", t_ns=t_ns).paid == 0
    if place.database is not None:
        server = Path(place.database.partition("host=")[2])
        if server.is_dir():
            for path in server.rglob("*"):
                if path.is_file() and (data := path.read_bytes()):
                    assert not any(name.encode() in data for name in (*NAMES, "bob-long-name")), path
    ledger.close()


def test_one_command_lists_what_is_kept(tmp_path: Path) -> None:
    STORE.save(tmp_path / "shop")
    listed = subprocess.run(
        [sys.executable, "-m", "fusion", "privacy", str(tmp_path / "shop")], capture_output=True, text=True, check=True
    ).stdout
    assert listed.strip() == holdings_text(STORE) and "30 days" in listed and "advertising: nothing" in listed
    assert "face templates" not in listed
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
