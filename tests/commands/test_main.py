"""The `fusion` command itself: help, suggestions, completion, interrupts and closed pipes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands.processes import ROOT, run, start

import fusion
from fusion.commands.main import GROUPS, main
from fusion.commands.parser import Command, CommandGroup

COMMANDS = [command for group in GROUPS for command in group.commands]
NAMES = [command.name for command in COMMANDS]


def exit_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_bare_command_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert not err
    for command in COMMANDS:
        assert f"  {command.name} " in out and command.summary in out
    assert exit_of("--help") == 0
    assert capsys.readouterr().out == out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--version") == 0
    assert capsys.readouterr().out == f"fusion {fusion.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_help_of_a_command(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    name, summary, examples = command.name, command.summary, command.examples  # type: ignore[attr-defined]
    assert exit_of(name, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: fusion {name} ") and summary in out
    assert summary.endswith(".") and 2 <= len(examples) <= 4
    for example in examples:
        assert f"\n  fusion {name} {example}".rstrip() in out
    assert "\nexit codes:\n" in out
    for code in ("0 ", "2 ", "130", "141"):
        assert f"\n  {code} " in out


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"  # Where it is measured what tests run, some are loaded already.
        "from fusion.commands.main import main\n"
        "try: main(['console', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('numba', 'scipy', 'pyarrow', 'numpy', 'pydantic', 'tqdm', 'shtab', 'sqlite3', 'asyncio')\n"
        "print([name for name in heavy if name in sys.modules.keys() - before])"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--certificate" in out and out.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chek", "x"), "unknown command 'chek'; did you mean 'check'?"),
        (("reconcil",), "did you mean 'reconcile'?"),
        (("zzzz",), "unknown command 'zzzz'. `fusion --help` lists all"),
        (("check", "--jsn", "x"), "unknown option --jsn; did you mean '--json'?"),
        (("check", "x", "y"), "unexpected argument 'y'"),
        (("check", "--bogus", "x"), "unknown option --bogus. `fusion check --help` shows how it is used"),
        (("check",), "the following arguments are required: path. `fusion check --help` shows how it is used"),
        (("run", "--minutes", "x"), "argument --minutes: invalid float value: 'x'"),
    ],
)
def test_wrong_usage_gets_a_suggestion(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and not out


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fusion check: ") and err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["check", "amazon_go", "--svg", str(tmp_path / "file" / "x.svg")]) == 2
    assert capsys.readouterr().err == f"fusion check: cannot use {tmp_path / 'file' / 'x.svg'}: not a directory\n"
    missing = tmp_path / "none"
    assert main(["check", "amazon_go", "--svg", str(missing / "x.svg")]) == 2
    assert f"the folder {missing} does not exist; create it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "none"), "none does not exist; pass a chain.toml"),
        (("serve", "empty"), "empty is a folder; pass a chain.toml"),
        (("serve", "file"), "file is not valid TOML: "),
        (("run", "empty"), "empty has no folder store/, so it is not a recording"),
        (("run", "store"), "store is a store folder, not a recording; `fusion run --store store` simulates it"),
        (("run", "none"), "none does not exist; pass the folder of a recording"),
        (("run", "--store", "none"), "none does not exist; pass a store folder (`fusion init none` writes one)"),
        (("run", "--store", "empty"), "empty is not a store folder, since it has none of store.toml, "),
        (("run", "--out", "file"), "--out file is a file; pass a folder"),
        (("run", "--smtp", "mail"), "--smtp mail has no port; pass HOST:PORT"),
        (("replay", "store", "--out", "file"), "--out file is a file; pass a folder"),
        (("verify", "store", "none"), "none: the books do not exist; `fusion run` and `fusion serve` create them"),
        (("console", "store", "--ledger", "none"), "none: the books do not exist"),
    ],
)
def test_an_input_that_cannot_be_used_is_named_with_what_to_do(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "store"]) == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a table")
    capsys.readouterr()
    assert main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fusion {arguments[0]}: ") and message in err and err.count("\n") == 1 and "Errno" not in err


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    code, script, err = run("completion", "bash")
    assert code == 0, err
    (tmp_path / "completion.sh").write_text(script)
    (tmp_path / "stores").mkdir()

    def completed(*words: str) -> set[str]:
        line = " ".join(words)
        ask = f"source ./completion.sh; COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line})"
        ask += f" COMP_CWORD={len(words) - 1}; _shtab_fusion; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        out = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True).stdout
        return {word.strip() for word in out.splitlines()}

    assert completed("fusion", "chec") == {"check", "checkpoint"}
    assert {"ship", "check", "completion"} <= completed("fusion", '""')
    assert completed("fusion", "check", "--j") == {"--json"}
    assert completed("fusion", "check", "sto") == {"stores"}
    assert completed("fusion", "completion", "z") == {"zsh"}


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_get_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)


def test_an_interrupt_ends_a_command_without_a_traceback() -> None:
    process = start("doctor")
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "fusion doctor: interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("arguments", [("check", "amazon_go"), ("--help",), ("doctor",)], ids=" ".join)
def test_a_closed_pipe_ends_a_command_quietly(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code, _, err = run(*arguments, stdout=writer)
    os.close(writer)
    assert (code, err) == (141, "")


def test_a_disk_that_takes_no_more_is_one_line_whatever_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised = OSError(errno.ENOSPC, "No space left on device")

    def run(arguments: object) -> int:
        raise raised

    command = Command("write", "Write.", ("a", "b"), {}, lambda parser: None, run)
    monkeypatch.setattr("fusion.commands.main.GROUPS", (CommandGroup("write", (command,)),))
    assert main(["write"]) == 2
    assert capsys.readouterr().err == "fusion write: cannot use the disk: no space left on device\n"
    raised = OSError(errno.EBADF, "Bad file descriptor")
    with pytest.raises(OSError, match="Bad file"):
        main(["write"])
