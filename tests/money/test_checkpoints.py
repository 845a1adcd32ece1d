"""Checkpoints of the books: which key signs, when one is written, and when it must not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO, make_store, receipt

from fusion.errors import ConfigError, LedgerError
from fusion.files.secrets import store_key
from fusion.money.checkpoints import Checkpoints, checkpoint_name, read_checkpoint, signing_key, verifying_key
from fusion.money.ledger import Ledger

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

PEM = serialization.Encoding.PEM
S_NS = 10**9


def private_pem(key: Any, encryption: Any = None) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption())


def public_pem(key: Any) -> bytes:
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def kept(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_key_is_that_of_a_file_or_follows_from_the_stores(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        signing_key(tmp_path)
    assert verifying_key(tmp_path) is None
    store_key(tmp_path, create=True)
    derived = signing_key(tmp_path)
    assert raw(derived.public_key()) == raw(signing_key(tmp_path).public_key()) == raw(verifying_key(tmp_path))
    own = ed25519.Ed25519PrivateKey.generate()
    file = kept(tmp_path / "own.pem", private_pem(own))
    assert raw(signing_key(tmp_path, file).public_key()) == raw(own.public_key()) != raw(derived.public_key())
    # Either half of the pair checks.
    public = kept(tmp_path / "own.pub", public_pem(own), 0o644)
    assert raw(verifying_key(tmp_path, public)) == raw(verifying_key(tmp_path, file)) == raw(own.public_key())


def test_a_file_that_is_no_such_key_is_refused_by_its_name(tmp_path: Path) -> None:
    own, other = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    sealed = private_pem(own, serialization.BestAvailableEncryption(b"password"))
    for number, content in enumerate((b"nonsense", private_pem(other), sealed, public_pem(own))):
        file = kept(tmp_path / f"private-{number}", content)
        with pytest.raises(ConfigError, match=f"private-{number}: want an unencrypted Ed25519 private key in PEM"):
            signing_key(tmp_path, file)
    for number, content in enumerate((b"nonsense", public_pem(other))):
        file = kept(tmp_path / f"public-{number}", content)
        with pytest.raises(ConfigError, match=f"public-{number}: want an Ed25519 public key in PEM"):
            verifying_key(tmp_path, file)
    with pytest.raises(ConfigError, match="chmod 600"):
        signing_key(tmp_path, kept(tmp_path / "open.pem", private_pem(own), 0o644))


def test_a_stores_file_has_a_name_that_leads_nowhere() -> None:
    assert checkpoint_name(make_store("kiosk-1")) == "kiosk-1.checkpoint"
    assert checkpoint_name(make_store("a" * 80)) == "a" * 80 + ".checkpoint"
    for strange in ("a" * 81, "../up", "a b", "ä"):
        name = checkpoint_name(make_store(strange))
        assert len(name) == 43 and name.endswith(".checkpoint") and name[:32].isalnum()


@pytest.fixture
def key() -> Any:
    return ed25519.Ed25519PrivateKey.generate()


def checkpoints(ledger: Ledger, key: Any, *folders: Path, **options: Any) -> tuple[Checkpoints, list[str]]:
    lines: list[str] = []
    return Checkpoints(ledger, STORE, key, folders, report=lines.append, **options), lines


def test_a_checkpoint_is_written_when_it_is_due_and_to_every_folder(tmp_path: Path, key: Any) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        made, lines = checkpoints(ledger, key, near, far, every_s=60.0)

        def stands_at() -> list[int]:
            read = (read_checkpoint(folder / "shop.checkpoint", key.public_key(), STORE) for folder in (near, far))
            return [one.head.seq for one in read]

        made.advance(T_NS)
        assert stands_at() == [0, 0]
        ledger.post_receipt(receipt("v1", *TWO, account=None))
        made.advance(T_NS + 60 * S_NS - 1)
        made.advance(T_NS - 60 * S_NS + 1)  # clocks are set back at times
        assert stands_at() == [0, 0]
        made.advance(T_NS + 60 * S_NS)
        assert stands_at() == [1, 1] and lines == []
        assert (near / "shop.checkpoint.pub").read_bytes() == public_pem(key)
        assert (near / "shop.checkpoint").stat().st_mode & 0o077 == 0
        # By default every ten minutes.
        usual, _ = checkpoints(ledger, key, near)
        usual.advance(T_NS)
        ledger.post_receipt(receipt("v2", *TWO, account=None))
        usual.advance(T_NS + 600 * S_NS - 1)
        assert stands_at()[0] == 1
        usual.advance(T_NS + 600 * S_NS)
        assert stands_at()[0] == 2


def test_a_folder_that_cannot_be_written_is_reported_and_the_others_are(tmp_path: Path, key: Any) -> None:
    near = tmp_path / "near"
    near.mkdir()
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        made, lines = checkpoints(ledger, key, tmp_path / "gone", near, every_s=60.0)
        made.advance(T_NS)
        assert (near / "shop.checkpoint").exists()
        assert len(lines) == 1 and lines[0].startswith("no checkpoint of the books was written: ")
        made.advance(T_NS + 1)
        assert len(lines) == 1, "tried again when it is due"
        made.advance(T_NS + 60 * S_NS)
        assert len(lines) == 2


def test_evidence_of_lost_entries_is_left_as_it_is(place: Place, tmp_path: Path, key: Any) -> None:
    file = tmp_path / "shop.checkpoint"
    with place.open(STORE) as ledger:
        ledger.post_receipt(receipt("v1", *TWO, account=None))
        made, _ = checkpoints(ledger, key, tmp_path)
        assert made.write(T_NS) == ledger.head()
    before = file.read_bytes()
    with Ledger.open(tmp_path / "other.sqlite", STORE) as shorter:
        made, lines = checkpoints(shorter, key, tmp_path)
        with pytest.raises(LedgerError, match="the books lack entry 1 as this checkpoint states it"):
            made.write(T_NS)
        made.advance(T_NS)
        assert "entries were lost or rewritten" in lines[0] and file.read_bytes() == before
        foreign, _ = checkpoints(shorter, ed25519.Ed25519PrivateKey.generate(), tmp_path)
        with pytest.raises(LedgerError, match=r"shop\.checkpoint: checkpoint: want it signed by this key"):
            foreign.write(T_NS)
    assert file.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_read_to_a_limit(tmp_path: Path, key: Any) -> None:
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)  # a sparse file: reading all of it would end this process
    with pytest.raises(LedgerError, match="want it signed by this key, got: JSONDecodeError"):
        read_checkpoint(huge, key.public_key(), STORE)
