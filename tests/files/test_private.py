"""Folders, files and locks that only their owner may use."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.errors import ConfigError
from fusion.files.private import lock_holder, locked, open_private, private_folder, tighten


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_new_folders_and_files_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b")
        with open_private(folder / "x.jsonl") as file:
            file.write("ä\n")
    finally:
        os.umask(before)
    assert [mode(path) for path in (tmp_path / "a", folder, folder / "x.jsonl")] == [0o700, 0o700, 0o600]
    assert (folder / "x.jsonl").read_bytes() == "ä\n".encode()


def test_a_file_that_was_open_to_others_is_closed_to_them_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text("1\n")
    path.chmod(0o644)
    with open_private(path, "a") as file:
        file.write("2\n")
    assert (path.read_text(), mode(path)) == ("1\n2\n", 0o600)


def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting_for_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((ConfigError, OSError)):
        open_private(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a file; pass a folder"):
        private_folder(Path(__file__))


def test_what_an_older_version_left_open_is_tightened_and_reported_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    (folder / "receipts").mkdir(parents=True)
    outside = tmp_path / "outside"
    for path in (folder / "snapshot", folder / "receipts" / "r.json", outside):
        path.write_text("x")
        path.chmod(0o644)
    (folder / "link").symlink_to(outside)
    line = tighten(folder)
    assert line is not None and "4 files and folders were open to other users" in line
    assert mode(folder) == mode(folder / "receipts") == 0o700 and mode(folder / "snapshot") == 0o600
    assert mode(outside) == 0o644, "what a link leads to is not ours to change"
    assert tighten(folder) is None and tighten(tmp_path / "none") is None


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as held:
        assert held and mode(path) == 0o600
        with locked(path) as second:
            assert not second
        if sys.platform == "linux" and Path("/proc/locks").read_text():
            assert lock_holder(path) == os.getpid()
    with locked(path) as again:
        assert again


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to act as another user")
def test_another_users_lock_on_a_file_that_was_open_to_all_keeps_no_store_from_starting(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    path = tmp_path / "lock"
    path.touch()
    path.chmod(0o644)
    program = (
        "import fcntl, os, sys\nos.setuid(65534)\nfile = open(sys.argv[1])\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        assert stranger.stdout is not None and stranger.stdin is not None
        assert stranger.stdout.readline() == "held\n"
        with locked(path) as held:
            assert held and mode(path) == 0o600
        stranger.stdin.close()


def test_a_lock_of_our_own_is_respected_though_its_file_was_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "a") as older_version:
        path.chmod(0o644)
        fcntl.flock(older_version, fcntl.LOCK_EX)
        with locked(path) as held:
            assert not held
    with locked(path) as held:
        assert held and mode(path) == 0o600
