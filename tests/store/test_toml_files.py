"""Files in TOML: read, or refused in one sentence, however they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from store.shops import bare_shop

from fusion.errors import ConfigError
from fusion.store import toml_files
from fusion.store.models import Store
from fusion.store.toml_files import read_toml


def test_line_ends_and_a_byte_order_mark_of_any_system(tmp_path: Path) -> None:
    for text in (b"a = 1\nb = '''x\ny'''\n", b"\xef\xbb\xbfa = 1\r\nb = '''x\r\ny'''\r\n", b"a = 1\rb = '''x\ry'''"):
        (tmp_path / "a.toml").write_bytes(text)
        assert read_toml(tmp_path / "a.toml", "a file") == {"a": 1, "b": "x\ny"}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a = " + b"[" * 100_000, "is not valid TOML: maximum recursion depth"),
        (b"a = \xff", "is not valid TOML: 'utf-8'"),
        (b"a = 1\na = 2", "is not valid TOML: "),
        (b"#" * 2000, "want TOML of at most 0 MiB, got more"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, fault: str) -> None:
    if fault.endswith("more"):
        monkeypatch.setattr(toml_files, "BYTES_MAX", 1999)
    (tmp_path / "a.toml").write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        read_toml(tmp_path / "a.toml", "a file")
    assert fault in str(refused.value) and len(refused.value.faults) == 1


def test_a_store_of_nested_brackets_is_refused(tmp_path: Path) -> None:
    bare_shop().save(tmp_path / "shop")
    (tmp_path / "shop" / "store.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"store\.toml: want TOML, got: maximum recursion depth"):
        Store.load(tmp_path / "shop")
