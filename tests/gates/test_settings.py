"""The settings of a store's gates: strict, without secrets, and what they name is opened and read again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks.test_doors import keys_text
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gates.readers import KEY, STORE, T_NS, reason, request
from pydantic import ValidationError
from settings_limits import Limits, check, rows

from fusion.errors import FusionError
from fusion.gates.codes import CodeSigner
from fusion.gates.faces import face_token
from fusion.gates.keeper import GateLimits
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.retention import RetentionSettings
from fusion.gates.settings import Credentials, FaceSettings, GateSettings, open_credentials
from fusion.money.ledger import Ledger
from fusion.results import Warning


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        yield opened


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": "x"}, {"deadline_s": 0.0}, {"code_lifetime_max_s": 10 * 365 * 86_400.0}, {"guesses_max": 0},
        {"faces": {"dim": 16, "effective_dim": 17.0}}, {"staff_list": "4111 1111 1111 1111"},
        {"elsewhere": ["4111/1111/1111/1111"]},
    ],
)  # fmt: skip
def test_settings_are_strict_and_repeat_no_value_that_may_be_a_card_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        GateSettings.model_validate(wrong)
    assert "4111" not in str(refused.value)


@pytest.mark.parametrize(
    "row",
    [
        *rows(
            GateSettings,
            {},
            ("code_lifetime_max_s", 600.0, (1e-9, 86_400.0), (0.0, 86_400.1)),
            ("elsewhere", (), (("loyalty",),), (3,)),
            ("card_prefix", "tok_", ("t", "t" * 32), ("", "t" * 33, "4111 1111 1111 1111")),
            ("deadline_s", 0.05, (1e-9, 1.0), (0.0, 1.001)),
            ("deadline_world_s", 30.0, (1.0, 300.0), (0.999, 300.1)),
            ("again_s", 0.25, (0.05, 5.0), (0.0499, 5.001)),
            ("guesses_max", 5, (1, 100), (0, 101)),
            ("guess_pause_s", 1.0, (0.1, 60.0), (0.0999, 60.1)),
            ("guess_pause_max_s", 60.0, (1.0, 3600.0), (0.999, 3600.1)),
            ("code_keys", None, (Path("keys.toml"),), ("4111111111111111",)),
            ("code_key", None, (Path("key.pem"),), ("4111111111111111",)),
            ("staff_list", None, (Path("staff.csv"),), ("4111111111111111",)),
            ("faces", None, (), (3,)),
        ),
        *rows(
            FaceSettings,
            {"dim": 512, "effective_dim": 50.0},
            ("file", Path("faces"), (Path("gallery"),), (3,)),
            ("false_accept_rate", 1e-6, (1e-300, 0.999), (0.0, 1.0)),
        ),
        *rows(FaceSettings, {"effective_dim": 2.0, "dim": 2}, ("dim", None, (2, 4096), (1, 4097))),
        *rows(FaceSettings, {"effective_dim": 2.0, "dim": 2}, ("effective_dim", None, (2.0,), (1.999,))),
        *rows(
            RetentionSettings,
            {},
            *(
                (f"{name}_days", None, (1, 36_500), (0, 36_501))
                for name in ("evidence", "results", "recordings", "receipts")
            ),
        ),
    ],
    ids=str,
)
def test_limits(row: Limits) -> None:
    check(row)


def test_effective_dimensions_are_dimensions() -> None:
    assert FaceSettings(dim=8, effective_dim=8.0).effective_dim == 8.0
    with pytest.raises(ValidationError, match=r"want an effective_dim of at most dim, 8, got 8\.5"):
        FaceSettings(dim=8, effective_dim=8.5)


def test_settings_state_the_limits_and_the_kinds_that_can_be_verified() -> None:
    assert GateSettings().limits == GateLimits() and GateSettings().kinds() == {"open", "card"}
    settings = GateSettings(code_key=Path("app.pem"), staff_list=Path("staff.txt"), elsewhere=("face",), guesses_max=9)
    assert settings.kinds() == {"open", "card", "qr", "staff", "face"} and settings.limits.guesses_max == 9


def credentials(folder: Path, ledger: Ledger, warnings: list[Warning], **settings: Any) -> Credentials:
    return open_credentials(
        GateSettings.model_validate(settings), "shop", Pseudonyms(ledger), folder, base=folder, face_key=b"k" * 32,
        warn=warnings.append,
    )  # fmt: skip


def test_every_kind_of_credential_is_opened_from_its_file(tmp_path: Path, ledger: Ledger) -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "app.pem").write_bytes(pem)
    (tmp_path / "keys.toml").write_text(keys_text(now=KEY))
    (tmp_path / "staff.txt").write_text("badge")
    faces = {"dim": 16, "effective_dim": 16.0, "false_accept_rate": 1e-3}
    names = {"code_key": "app.pem", "code_keys": "keys.toml", "staff_list": "staff.txt", "faces": faces}
    with credentials(tmp_path, ledger, [], **names) as opened:
        assert set(opened.verifiers) == {"open", "card", "qr", "staff", "face"} and opened.faces is not None
        opened.faces.enrol("alice", "Alice", np.eye(16)[0])
        for kind, token in (
            ("qr", CodeSigner(KEY, "shop").code("bob", T_NS)),
            ("qr", CodeSigner(KEY, "shop", key_id="now").code("bob", T_NS)),
            ("face", face_token(np.eye(16)[0])), ("card", "tok_12345"), ("staff", "badge"), ("open", ""),
        ):  # fmt: skip
            assert reason(opened.verifiers[kind].verify(request(token, kind))) == "good", kind
        unknown = CodeSigner(KEY, "shop", key_id="old").code("bob", T_NS)
        assert reason(opened.verifiers["qr"].verify(request(unknown))) == "not a code"


@pytest.mark.parametrize("name", ["code_key", "code_keys", "staff_list"])
def test_a_file_that_is_missing_at_the_start_is_named(tmp_path: Path, ledger: Ledger, name: str) -> None:
    with pytest.raises(FusionError, match=r"none\.txt cannot be read \(No such file or directory\)"):
        credentials(tmp_path, ledger, [], **{name: "none.txt"})


@pytest.mark.parametrize(
    "text",
    [
        "", "keys = 1", "[keys]\na = 1", "[keys]\n'a b' = 'x'", "[keys]\na = 'x'", "[key]\na = 'x'", "[[[",
        "[keys]\na = 'x'\n[more]\n",
    ],
)  # fmt: skip
def test_a_keys_file_that_is_none_is_refused(tmp_path: Path, ledger: Ledger, text: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(FusionError, match="code keys: "):
        credentials(tmp_path, ledger, [], code_keys="keys.toml")


@pytest.mark.parametrize("text", ["sha256:12", "badge\n4111-1111-1111-1111\n"])
def test_a_staff_list_with_a_broken_line_names_the_line_alone(tmp_path: Path, ledger: Ledger, text: str) -> None:
    (tmp_path / "staff.txt").write_text(text)
    with pytest.raises(FusionError, match=r"staff list: line [12]: want") as refused:
        credentials(tmp_path, ledger, [], staff_list="staff.txt")
    assert "4111" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_reported_once_and_admits_again_when_it_is_back(
    tmp_path: Path, ledger: Ledger
) -> None:
    path, warnings = tmp_path / "staff.txt", []
    path.write_text("badge")
    with credentials(tmp_path, ledger, warnings, staff_list="staff.txt") as opened:
        staff = opened.verifiers["staff"]
        path.unlink()
        path.mkdir()
        for _ in range(5):
            assert reason(staff.verify(request("badge", "staff"))) == "not on the staff list"
        assert len(warnings) == 1 and "staff.txt cannot be read" in str(warnings[0].detail)
        [file] = opened.files
        file.reread()
        assert file.fault == warnings[0].detail and len(warnings) == 1
        path.rmdir()
        path.write_text("badge")
        assert reason(staff.verify(request("badge", "staff"))) == "good" and len(warnings) == 1
        path.write_bytes(b"\xff")
        assert reason(staff.verify(request("badge", "staff"))) == "not on the staff list" and len(warnings) == 2
