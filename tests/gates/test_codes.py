"""Signed codes: good once, for one store, for a minute; never when altered; readable from a picture."""

from __future__ import annotations

import base64
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gates.readers import KEY, SECOND_NS, T_NS, reason, request

from fusion.errors import FusionError
from fusion.gates.codes import CodeSigner, CodeVerifier, UsedCodes, private_key, public_key, qr_picture, read_qr
from fusion.gates.verifiers import Verified


@pytest.fixture
def verifier(tmp_path: Path) -> CodeVerifier:
    return CodeVerifier({"": KEY.public_key()}, "shop", UsedCodes(tmp_path / "used.sqlite"))


def test_a_code_is_good_once_for_its_store_and_its_minute(verifier: CodeVerifier) -> None:
    signer = CodeSigner(KEY, "shop")
    code = signer.code("alice ünïcödé", T_NS)
    assert len(CodeSigner(KEY, "shop").code("customer-12345678", T_NS)) <= 200
    answer = verifier.verify(request(code))
    assert isinstance(answer, Verified) and answer.account == "alice ünïcödé" and "alice" not in repr(answer)
    assert reason(verifier.verify(request(code))) == "code used before"
    assert reason(verifier.verify(request(CodeSigner(KEY, "kiosk").code("a", T_NS)))) == "code of another store"
    other = CodeSigner(Ed25519PrivateKey.generate(), "shop")
    assert reason(verifier.verify(request(other.code("a", T_NS)))) == "not a code"
    for after_s, expected in (
        (-3, "code not valid yet"),
        (-1, "good"),
        (0, "good"),
        (61, "good"),
        (63, "code expired"),
    ):
        fresh = signer.code("a", T_NS)
        assert reason(verifier.verify(request(fresh, t_ns=T_NS + after_s * SECOND_NS))) == expected
    early = signer.code("a", T_NS + 3600 * SECOND_NS)
    assert reason(verifier.verify(request(early))) == "code not valid yet"
    assert reason(verifier.verify(request(early, t_ns=T_NS + 3601 * SECOND_NS))) == "good", "not used up by trying"


def test_an_altered_code_is_refused(verifier: CodeVerifier) -> None:
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
    assert {reason(verifier.verify(request(token))) for token in tokens} == {"not a code"}
    assert reason(verifier.verify(request(code))) == "good"


def test_a_used_code_stays_used_after_a_restart(tmp_path: Path) -> None:
    code = CodeSigner(KEY, "shop").code("alice", T_NS)
    first = UsedCodes(tmp_path / "used.sqlite")
    assert reason(CodeVerifier({"": KEY.public_key()}, "shop", first).verify(request(code))) == "good"
    first.close()
    later = UsedCodes(tmp_path / "used.sqlite")
    assert reason(CodeVerifier({"": KEY.public_key()}, "shop", later).verify(request(code))) == "code used before"
    # Nonces are deleted a day after their code has expired.
    assert later.use(b"x" * 16, T_NS + 48 * 3600 * SECOND_NS, T_NS + 48 * 3600 * SECOND_NS)
    assert len(later) == 1
    (tmp_path / "text").write_text("not a database, but longer than the header of one would be, " * 20)
    with pytest.raises(FusionError):
        UsedCodes(tmp_path / "text")


def replay(path: Path, codes: list[str], start: Any, answers: Any) -> None:
    verifier = CodeVerifier({"": KEY.public_key()}, "shop", UsedCodes(path))
    start.wait()
    answers.put([reason(verifier.verify(request(code))) for code in codes])


def test_of_eight_processes_that_replay_the_same_codes_one_succeeds_with_each(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    codes = [CodeSigner(KEY, "shop").code("alice", T_NS) for _ in range(25)]
    start, answers = context.Barrier(8), context.Queue()
    workers = [context.Process(target=replay, args=(tmp_path / "used.sqlite", codes, start, answers)) for _ in range(8)]
    for worker in workers:
        worker.start()
    outcomes = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    for of_one_code in zip(*outcomes):
        assert sorted(of_one_code) == ["code used before"] * 7 + ["good"]


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


def test_a_public_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(FusionError, match=r"none\.pem cannot be read \(No such file or directory\); pass an Ed25519"):
        public_key(tmp_path / "none.pem")
    (tmp_path / "text.pem").write_text("key")
    with pytest.raises(FusionError, match=r"text\.pem is not a public key in PEM; pass an Ed25519"):
        public_key(tmp_path / "text.pem")
