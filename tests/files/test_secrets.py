"""Keys and secrets: one store key, what is derived from it, and what refuses to be a secret."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fusion.errors import ConfigError
from fusion.files.secrets import KEY_FILE, derived, fingerprint, hkdf_sha256, secret_of, store_key


@pytest.mark.parametrize(
    ("key", "salt", "info", "expected"),
    [  # RFC 5869, A.1 to A.3
        (
            "0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(), bytes(range(0x60, 0xB0)).hex(), bytes(range(0xB0, 0x100)).hex(),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22, "", "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)  # fmt: skip
def test_hkdf_matches_the_vectors_of_its_standard(key: str, salt: str, info: str, expected: str) -> None:
    got = hkdf_sha256(*map(bytes.fromhex, (key, salt, info)), len(expected) // 2)
    assert got.hex() == expected


def test_the_key_of_a_store_is_made_once_also_by_several_at_a_time(tmp_path: Path) -> None:
    folder, found = tmp_path / "store", []
    threads = [threading.Thread(target=lambda: found.append(store_key(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1 and len(found[0]) == 32
    assert sorted(path.name for path in folder.iterdir()) == [KEY_FILE]
    assert (folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert store_key(folder, create=False) == found[0]


def test_a_reader_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        store_key(tmp_path / "store", create=False)
    assert not (tmp_path / "store").exists()


def test_keys_of_different_purposes_differ_and_show_nothing_of_their_origin() -> None:
    key = bytes(range(32))
    keys = [derived(key, purpose) for purpose in ("snapshot", "vault", "faces", "checkpoint", "backup")]
    assert len({key, *keys}) == 6 and all(len(each) == 32 for each in keys)
    assert len(fingerprint(key)) == 16 and fingerprint(key) not in [each[:8].hex() for each in (key, *keys)]


def test_secrets_come_from_private_files_or_the_environment_and_are_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\r\n")
    path.chmod(0o600)
    monkeypatch.setenv("FUSION_TEST_SECRET", "from the environment")
    assert secret_of(file=path) == "hunter2"
    assert secret_of(env="FUSION_TEST_SECRET") == "from the environment"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="other users can read the mail password; run chmod 600") as refused:
        secret_of(file=path, what="the mail password")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 70_000], ids=["empty", "blank", "bytes", "large"])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        secret_of(file=path)


def test_a_secret_has_one_origin_that_exists(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for origin in ({}, {"file": "x", "env": "Y"}, {"env": "FUSION_NOT_SET"}, {"file": tmp_path / "none"},
                   {"file": tmp_path / "pipe"}, {"file": tmp_path}):  # fmt: skip
        with pytest.raises(ConfigError):
            secret_of(**origin)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "ab" * 31, "zz" * 32], ids=["empty", "short", "no digits"])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEY_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"store\.key"):
        store_key(tmp_path)
    assert path.read_text() == content


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
def test_a_credential_of_the_service_manager_is_read_through_its_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credentials" / "provider"
    path.parent.mkdir()
    path.write_text("sk_live\n", encoding="utf-8")
    path.chmod(0o440)  # As stat shows it: the group's bits are the mask of the list.
    with pytest.raises(ConfigError, match="other users can read"):
        secret_of(file=path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    assert secret_of(file=path) == "sk_live"
    for mode in (0o444, 0o460):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="other users can read"):
            secret_of(file=path)
    path.chmod(0o400)
    elsewhere = tmp_path / "provider"
    elsewhere.write_text("sk_live\n", encoding="utf-8")
    elsewhere.chmod(0o440)
    with pytest.raises(ConfigError, match="other users can read"):
        secret_of(file=elsewhere)


def test_a_key_that_a_kill_left_half_made_does_not_look_like_a_file_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    monkeypatch.setattr("fusion.files.atomic.os.link", lambda made, path: left.append(Path(made).name))
    with pytest.raises(ConfigError, match="does not exist"):
        store_key(tmp_path)
    # Backups leave out files that end so, and their folder's key as well.
    assert [name.endswith(".new") for name in left] == [True]
