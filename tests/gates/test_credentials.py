"""Codes, cards, faces, pseudonyms: who comes in, once, and under no name of their own."""

from __future__ import annotations

import base64
import multiprocessing
import random
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fusion.errors import FusionError
from fusion.gates.credentials import (
    CardTerminal,
    CodeSigner,
    CodeVerifier,
    Pseudonyms,
    UsedCodes,
    private_key,
    pseudonym,
    qr_picture,
    read_qr,
)
from fusion.gates.faces import MARGIN, FaceGallery, effective_dim_of, face_token, threshold_of
from fusion.gates.keeper import (
    KEPT_S,
    QUESTIONS_MAX,
    GateKeeper,
    GateRequest,
    Refused,
    StaffList,
    Verified,
    looks_like_card_number,
)
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import InProcessProvider
from fusion.money.vault import Holder
from fusion.store.models import Gate, PaymentPolicy, Product, Store

T_NS = 1_772_528_646_000_000_000
SECOND_NS = 10**9
KEY = Ed25519PrivateKey.generate()
STORE = Store(
    format_version=1,
    id="shop",
    name="Shop",
    currency="EUR",
    timezone="Europe/Berlin",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
    keypoints="coco17",
    gate=(
        Gate(id="in", direction="in", line=((0, 1), (0, 0)), credentials=("qr", "card", "face", "staff")),
        Gate(id="out", direction="out", line=((4, 1), (4, 0)), credentials=("open",)),
    ),
    products=(Product(gtin="96385074", name="Bread", weight_g=500, weight_sd_g=1, price=199, vat_rate=7),),
)


def asked(token: str, kind: str = "qr", t_ns: int = T_NS, **more: Any) -> GateRequest:
    return GateRequest(t_ns, "in", kind, token, **more)


@pytest.fixture
def verifier(tmp_path: Path) -> CodeVerifier:
    return CodeVerifier(KEY.public_key(), "shop", UsedCodes(tmp_path / "used.sqlite"))


def reason(answer: Verified | Refused) -> str:
    return answer.reason if isinstance(answer, Refused) else "good"


# ---- codes -----------------------------------------------------------------------------------------------------------


def test_a_code_is_good_once_for_its_store_and_its_minute(verifier: CodeVerifier) -> None:
    signer = CodeSigner(KEY, "shop")
    code = signer.code("alice ünïcödé", T_NS)
    assert len(CodeSigner(KEY, "shop").code("customer-12345678", T_NS)) <= 200
    answer = verifier.verify(asked(code))
    assert isinstance(answer, Verified) and answer.account == "alice ünïcödé" and "alice" not in repr(answer)
    assert reason(verifier.verify(asked(code))) == "code used before"
    assert reason(verifier.verify(asked(CodeSigner(KEY, "kiosk").code("a", T_NS)))) == "code of another store"
    other = CodeSigner(Ed25519PrivateKey.generate(), "shop")
    assert reason(verifier.verify(asked(other.code("a", T_NS)))) == "not a code"
    for after_s, said in ((-3, "code not valid yet"), (-1, "good"), (0, "good"), (61, "good"), (63, "code expired")):
        fresh = signer.code("a", T_NS)
        assert reason(verifier.verify(asked(fresh, t_ns=T_NS + after_s * SECOND_NS))) == said
    early = signer.code("a", T_NS + 3600 * SECOND_NS)
    assert reason(verifier.verify(asked(early))) == "code not valid yet"
    assert reason(verifier.verify(asked(early, t_ns=T_NS + 3601 * SECOND_NS))) == "good", "not used up by trying"


def test_whatever_is_not_exactly_a_code_is_refused(verifier: CodeVerifier) -> None:
    code = CodeSigner(KEY, "shop").code("alice", T_NS)
    raw = base64.urlsafe_b64decode(code[2:] + "=" * (-len(code[2:]) % 4))
    tokens = [code[:n] for n in range(len(code))]
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        tokens.append("F1" + base64.urlsafe_b64encode(bytes(flipped)).decode().rstrip("="))
    for place in range(len(code)):
        for bit in range(7):
            tokens.append(code[:place] + chr(ord(code[place]) ^ 1 << bit) + code[place + 1 :])
    tokens += [code + "=", code + "A", " " + code, code + "\n", code.lower(), "F2" + code[2:], "F1", "ä", "\x00"]
    assert {reason(verifier.verify(asked(token))) for token in tokens} == {"not a code"}
    assert reason(verifier.verify(asked(code))) == "good"


def test_a_used_code_stays_used_after_a_restart(tmp_path: Path) -> None:
    code = CodeSigner(KEY, "shop").code("alice", T_NS)
    first = UsedCodes(tmp_path / "used.sqlite")
    assert reason(CodeVerifier(KEY.public_key(), "shop", first).verify(asked(code))) == "good"
    first.close()
    later = UsedCodes(tmp_path / "used.sqlite")
    assert reason(CodeVerifier(KEY.public_key(), "shop", later).verify(asked(code))) == "code used before"
    # Old ones are forgotten once nobody could use them any more.
    assert later.use(b"x" * 16, T_NS + 48 * 3600 * SECOND_NS, T_NS + 48 * 3600 * SECOND_NS)
    assert later._connection.execute("SELECT count(*) FROM used").fetchone()[0] == 1
    (tmp_path / "text").write_text("not a database, but longer than the header of one would be, " * 20)
    with pytest.raises(FusionError):
        UsedCodes(tmp_path / "text")


def replay(path: Path, codes: list[str], start: Any, answers: Any) -> None:
    verifier = CodeVerifier(KEY.public_key(), "shop", UsedCodes(path))
    start.wait()
    answers.put([reason(verifier.verify(asked(code))) for code in codes])


def test_eight_processes_that_replay_the_same_codes_get_each_in_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    codes = [CodeSigner(KEY, "shop").code("alice", T_NS) for _ in range(25)]
    start, answers = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=replay, args=(tmp_path / "used.sqlite", codes, start, answers)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    said = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    for one in zip(*said):
        assert sorted(one) == ["code used before"] * 7 + ["good"]


def test_a_qr_picture_reads_back_turned_blurred_and_dim() -> None:
    code = CodeSigner(KEY, "shop").code("customer-12345678", T_NS)
    picture = cv2.imdecode(np.frombuffer(qr_picture(code), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert read_qr(picture) == code
    height, width = picture.shape
    for degrees in (7, 45, 90, 133, 180):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.7)
        assert read_qr(cv2.warpAffine(picture, turn, (width, height), borderValue=255)) == code, degrees
    assert read_qr(cv2.GaussianBlur(picture, (0, 0), 2.0)) == code
    noise = np.random.default_rng(1).normal(0, 15, picture.shape)
    assert read_qr((picture * 0.3 + 40 + noise).clip(0, 255).astype(np.uint8)) == code
    assert read_qr(np.full((200, 200), 255, np.uint8)) is None


def test_the_private_key_is_private(tmp_path: Path) -> None:
    made = private_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    signature = made.sign(b"x")
    private_key(tmp_path / "key.pem").public_key().verify(signature, b"x")
    (tmp_path / "other.pem").write_text("hello")
    with pytest.raises(FusionError, match="other"):
        private_key(tmp_path / "other.pem")


# ---- pseudonyms and cards --------------------------------------------------------------------------------------------


def test_behind_the_gate_nobody_has_a_name(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        known = {"alice": Verified("alice", "Welcome, Alice", "tok_alice", "alice@example.org")}
        pseudonyms = Pseudonyms(ledger, customer=known.get)
        used = UsedCodes(tmp_path / "used.sqlite")
        keeper = GateKeeper(
            STORE, {"qr": pseudonyms.behind(CodeVerifier(KEY.public_key(), "shop", used))}, deadline_s=5.0
        )
        signer = CodeSigner(KEY, "shop")

        def scan(account: str, t_ns: int = T_NS) -> tuple[str, str]:
            decision = keeper.scan(asked(signer.code(account, t_ns), t_ns=t_ns))
            assert decision.open and decision.scan is not None
            return decision.scan.account, decision.display

        alice, greeting = scan("alice")
        assert greeting == "Welcome, Alice" and "alice" not in alice
        holder = ledger.holder(alice)
        assert holder == Holder(alice, "alice", "tok_alice", "alice@example.org", T_NS)
        assert scan("alice")[0] == alice, "her daughter, on the same account"
        bob, greeting = scan("bob")
        assert bob != alice and greeting == "Welcome"
        pseudonyms.entered(alice)
        hour_ns = 3600 * SECOND_NS
        assert scan("alice", T_NS + hour_ns)[0] == alice, "still inside"
        assert scan("bob", T_NS + hour_ns)[0] != bob, "turned back then"
        pseudonyms.left(alice)
        again = scan("alice", T_NS + hour_ns)[0]
        assert again != alice and ledger.pseudonyms("alice") == [again, alice]
        pseudonyms.forget("alice")
        pseudonyms.left(again)
        assert scan("alice", T_NS + hour_ns)[0] not in (alice, again)


def test_no_pseudonym_looks_like_a_card_number() -> None:
    names = {pseudonym(random.Random(i).choice) for i in range(20_000)}
    assert len(names) == 20_000 and not any(looks_like_card_number(name) for name in names)


def test_a_card_is_a_token_and_authorised_before_the_gate_opens(tmp_path: Path) -> None:
    store = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=3000)})
    faults = iter(["decline", None, "lost after", None])
    provider = InProcessProvider(lambda step, key: next(faults, None))  # type: ignore[arg-type, return-value]
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        checkout = Checkout(ledger, provider, store)
        pseudonyms = Pseudonyms(ledger, admit=checkout.admit)
        keeper = GateKeeper(store, {"card": pseudonyms.behind(CardTerminal())}, deadline_s=5.0)
        said = [keeper.scan(asked(f"tok_card-{who}", "card")) for who in "aabb"]
        assert [one.open for one in said] == [False, True, False, True]
        assert [one.reason for one in said[::2]] == ["payment declined", "payment provider gave no answer"]
        assert provider.held == 2 * 3000 == ledger.balances()["EUR"]["authorised"]
        for token in ("4006381333931", "4111 1111 1111 1111", "tok_", "card-a"):
            assert not keeper.scan(asked(token, "card")).open
        assert provider.held == 2 * 3000
        holder = ledger.holder(said[1].scan.account if said[1].scan else "")
        assert holder is not None and holder.token == "tok_card-a"


# ---- the gate's deadline ---------------------------------------------------------------------------------------------


class Slow:
    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.n_asked = 0

    def verify(self, request: GateRequest) -> Verified | Refused:
        self.n_asked += 1
        self.go_on.wait(30)
        return Verified("alice")


def test_a_verifier_that_hangs_never_holds_a_gate_and_its_answer_is_not_lost() -> None:
    slow = Slow()
    keeper = GateKeeper(STORE, {"qr": slow, "staff": StaffList({"badge"})}, deadline_s=0.02)
    began_s = time.monotonic()
    assert keeper.scan(asked("code")).reason == "verifier too slow"
    assert keeper.scan(asked("code")).reason == "verifier too slow"
    assert slow.n_asked == 1, "the same question is not asked twice"
    for i in range(2 * QUESTIONS_MAX):
        assert not keeper.scan(asked(f"other {i}")).open
    assert slow.n_asked == QUESTIONS_MAX and keeper.counts["verifiers do not answer"] == QUESTIONS_MAX + 1
    assert keeper.scan(asked("badge", "staff")).open and keeper.scan(asked("", leaving=True)).open
    assert time.monotonic() - began_s < 0.02 * QUESTIONS_MAX + 2.0
    slow.go_on.set()
    for _ in range(100):
        if keeper.scan(asked("code")).open:
            break
        time.sleep(0.01)
    assert slow.n_asked == QUESTIONS_MAX, "the answer that came late was kept"
    time.sleep(0.05)
    assert keeper.scan(asked("new", t_ns=T_NS + round((KEPT_S + 1) * 1e9))).open and len(keeper._questions) == 0


def test_a_sealed_door_opens_when_paid_and_whenever_nobody_answers() -> None:
    class Paid:
        def __init__(self) -> None:
            self.says: Any = None

        def verify(self, request: GateRequest) -> Verified | Refused:
            if isinstance(self.says, Exception):
                raise self.says
            if self.says is None:
                time.sleep(0.3)
            return self.says or Verified("", "Paid")

    door = Paid()
    keeper = GateKeeper(STORE, {}, way_out=door, deadline_s=0.1)

    def leave(visit: str) -> tuple[bool, str]:
        decision = keeper.scan(GateRequest(T_NS, "out", "open", visit, leaving=True))
        assert decision.scan is None
        return decision.open, decision.reason

    assert leave("v1") == (True, "way out, unchecked: no answer")
    door.says = Refused("not paid")
    assert leave("v2") == (False, "not paid")
    door.says = Verified("", "Paid")
    assert leave("v2") == (True, "way out")
    door.says = OSError("v3 and its secrets")
    assert leave("v3") == (True, "way out, unchecked: OSError")


def test_an_answer_serves_one_of_two_gates(tmp_path: Path) -> None:
    slow = Slow()
    keeper = GateKeeper(STORE, {"qr": slow}, deadline_s=10.0)
    decisions: list[bool] = []
    threads = [threading.Thread(target=lambda: decisions.append(keeper.scan(asked("code")).open)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while slow.n_asked == 0:
        time.sleep(0.001)
    time.sleep(0.05)
    slow.go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(decisions) == [False, True] and slow.n_asked == 1


# ---- faces -----------------------------------------------------------------------------------------------------------

DIM = 128


def people(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def seen(person: np.ndarray, seed: int, cosine: float = 0.8) -> np.ndarray:
    """The same person on another day, as far away as real readers see them."""
    other = people(1, seed)[0]
    across = other - (other @ person) * person
    return cosine * person + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)


def gallery(path: Path, rate: float = 1e-6) -> FaceGallery:
    return FaceGallery(path, b"k" * 32, dim=DIM, effective_dim=DIM, false_accept_rate=rate)


def test_who_opted_in_is_known_by_name_and_nobody_else(tmp_path: Path) -> None:
    faces, everybody = gallery(tmp_path / "faces"), people(60)
    assert reason(faces.verify(asked(face_token(everybody[0]), "face"))) == "face not known"
    for i in range(50):
        faces.enrol(f"account {i}", f"Name {i}", everybody[i])
    for i in range(50):
        answer = faces.verify(asked(face_token(seen(everybody[i], 100 + i)), "face"))
        assert isinstance(answer, Verified) and answer.account == f"account {i}"
        assert answer.greeting == f"Welcome, Name {i}"
    for stranger in everybody[50:]:
        assert reason(faces.verify(asked(face_token(stranger), "face"))) == "face not known"
    for token in ("", "!!", face_token(np.zeros(DIM)), face_token(people(1)[0][:64]), face_token(np.full(DIM, np.nan))):
        assert reason(faces.verify(asked(token, "face"))) == "not a face"
    twin = seen(everybody[0], 7, cosine=1 - MARGIN / 4)
    faces.enrol("twin", "Twin", twin)
    assert reason(faces.verify(asked(face_token(seen(everybody[0], 100)), "face"))) == "face of two people"


def test_the_stated_rate_of_false_accepts_is_kept() -> None:
    templates, strangers, rate = people(100, 1), people(20_000, 2), 0.01
    threshold = threshold_of(rate, len(templates), DIM)
    accepted = (strangers @ templates.T).max(axis=1) >= threshold
    # A hundred templates share the rate; the bound is nearly met for directions that are independent.
    assert 0.8 * rate < accepted.mean() < 1.2 * rate
    # Embeddings that fill a tenth of their dimensions need a higher threshold, and their effective dimension tells it.
    few = np.zeros((22_000, DIM))
    few[:, :12] = np.random.default_rng(3).normal(size=(22_000, 12))
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    effective = effective_dim_of(few[:1000])
    assert effective == pytest.approx(12, rel=0.1)
    accepted = (few[2000:] @ few[1000:1100].T).max(axis=1) >= threshold_of(rate, 100, effective)
    assert accepted.mean() < 1.5 * rate
    assert threshold_of(1e-6, 1000, DIM) > threshold_of(1e-6, 10, DIM) > threshold_of(1e-3, 10, DIM)


def test_a_gallery_is_sealed_and_forgets_at_once(tmp_path: Path) -> None:
    path, everybody = tmp_path / "faces", people(3)
    faces = gallery(path)
    for i in range(3):
        faces.enrol(f"account {i}", f"Name {i}", everybody[i])
    sealed = path.read_bytes()
    assert b"account" not in sealed and everybody[0].astype("<f4").tobytes() not in sealed
    assert path.stat().st_mode & 0o077 == 0
    with open(path, "rb") as before:
        again = gallery(path)
        assert len(again) == 3 and "account 1" in again
        assert again.delete("account 1") and not again.delete("account 1")
        assert set(before.read()) == {0}, "what lay there before is overwritten"
    assert reason(again.verify(asked(face_token(everybody[1]), "face"))) == "face not known"
    assert reason(gallery(path).verify(asked(face_token(everybody[2]), "face"))) == "good"
    with pytest.raises(FusionError, match="under this key"):
        FaceGallery(path, b"x" * 32, dim=DIM, effective_dim=DIM, false_accept_rate=1e-6)
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FusionError, match="faces"):
        gallery(path)
    with pytest.raises(ValueError, match="want 128 finite numbers"):
        faces.enrol("x", "X", np.zeros(DIM))


