"""A replaced file holds the old content or the new, whatever happens in between."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fusion.files.atomic import replace_file


@pytest.mark.parametrize("content", [b"", b"\x00\xff\r\n", "Käse\r\nBrot\n"])
def test_the_file_holds_exactly_the_content(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    replace_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_temporary_file_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "file.new"
    left.write_bytes(b"half of something")
    left.chmod(0o644)
    replace_file(tmp_path / "file", b"new", private=True)
    assert (tmp_path / "file").read_bytes() == b"new" and not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_a_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    (tmp_path / "file.new").touch(0o644)
    replace_file(path, b"secret", private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_both_content_and_rename_reach_the_disk_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is flushed before the rename, the folder after it; not at all where durability is not asked for."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def flushed(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    replace_file(tmp_path / "file", b"new")
    assert calls == ["file", "rename"] + ["folder"] * (os.name != "nt")
    calls.clear()
    replace_file(tmp_path / "file", b"newer", durable=False)
    assert calls == ["rename"]
