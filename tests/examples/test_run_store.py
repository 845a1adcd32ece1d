"""The programs that people start first, started as they start them; `fusion run` is the same program.

Where it is not the process that counts, the program's one call is made here, since a process loads for seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusion.commands.main import main
from fusion.store.models import Store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def start(program: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / program), *map(str, args)]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options})


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr once a process has ended."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def run(program: str, *args: object) -> tuple[int, str, str]:
    return outcome(start(program, *args))


def simulate(out: Path, seed: int, **options: Any) -> subprocess.Popen[str]:
    return start("run_store.py", "--minutes", 1, "--shoppers", 2, "--seed", seed, "--out", out, **options)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    """The folder that a simulation of seed 3 leaves behind, its exit code, and its outputs."""
    folder = tmp_path_factory.mktemp("simulated")
    return folder, outcome(simulate(folder, 3))


def test_a_simulated_store_runs_from_door_to_receipt(simulated: tuple[Path, tuple[int, str, str]]) -> None:
    folder, (code, out, err) = simulated
    assert code == 0, err
    expected = (
        "came in at entry", " took ", "left at exit", "settled", "from the exit to the receipt", "chain holds",
    )  # fmt: skip
    for text in expected:
        assert text in out, f"{text!r} is missing in:\n{out}"
    assert "WRONG" not in out
    assert not err, "a progress bar where there is no terminal"
    receipts = [json.loads(line) for line in (folder / "receipts.jsonl").read_text().splitlines()]
    assert len(receipts) == 2
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(receipt["account"] in page for receipt in receipts)
    assert "<svg" in (folder / "floor.svg").read_text(encoding="utf-8")
    books = sqlite3.connect(folder / "ledger.sqlite")
    assert books.execute("SELECT sum(amount) FROM posting").fetchone() in [(0,), (None,)]
    settled = sum(receipt["total"] for receipt in receipts if receipt["status"] == "settled")
    debits = books.execute("SELECT coalesce(sum(amount), 0) FROM posting WHERE amount > 0").fetchone()[0]
    assert debits == settled


def test_a_recording_is_replayed_and_another_store_simulated(small_recording: Path, tmp_path: Path) -> None:
    store = small_recording / "store"
    replay = start("run_store.py", small_recording, "--out", tmp_path / "replayed", "--fast")
    other = start("run_store.py", "--store", store, "--minutes", 0.7, "--shoppers", 1, "--out", tmp_path / "other")
    code, out, err = outcome(replay)
    assert code == 0, err
    assert "right" in out
    for name in ("receipts.jsonl", "events.jsonl", "tracks.parquet", "run.json", "report.html", "ledger.sqlite"):
        assert (tmp_path / "replayed" / name).stat().st_size > 0
    code, out, err = outcome(other)
    assert code == 0, err
    assert Store.load(store).name in out.splitlines()[0]


def test_the_seed_decides(simulated: tuple[Path, tuple[int, str, str]], tmp_path: Path) -> None:
    for seed in ("3", "4"):
        few = ("--minutes", "1", "--shoppers", "2")
        assert main(["run", *few, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
    first, repeated, other = (
        (folder / "tracks.parquet").read_bytes() for folder in (simulated[0], tmp_path / "3", tmp_path / "4")
    )
    assert first == repeated != other


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    import pty
    import termios

    terminal, process_end = pty.openpty()
    termios.tcsetwinsize(process_end, (25, 100))
    process = simulate(tmp_path, 3, stderr=process_end)
    os.close(process_end)
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # Linux reports the end of a terminal so.
        pass
    process.communicate(timeout=600)
    os.close(terminal)
    assert process.returncode == 0 and b"store time" in shown


def start_long(tmp_path: Path) -> subprocess.Popen[str]:
    """A run that does not end before its test has acted; it has printed what its first customer did."""
    # A background job of a shell inherits that SIGINT is ignored, and would hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start("run_store.py", "--realtime", "--minutes", 30, "--shoppers", 20, "--out", tmp_path)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert "Demonstration shop" in lines[0] and " came in" in lines[1], lines
    return process


def test_an_interrupt_keeps_the_results_so_far(tmp_path: Path) -> None:
    process = start_long(tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "interrupted: the results so far are kept" in out and "all accounts sum to 0" in out
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run.json").read_text())["frames"] > 0
    assert (tmp_path / "report.html").exists()


def test_a_closed_pipe_keeps_the_results_so_far(tmp_path: Path) -> None:
    """As in `fusion run | head -2`."""
    process = start_long(tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=600) == 141
    assert process.stderr.read() == ""
    assert json.loads((tmp_path / "run.json").read_text())["frames"] > 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere does not exist; pass the folder of a recording"),
        (["--store", "nowhere"], "nowhere does not exist; pass a store folder"),
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--minutes", "0.1"], "for 8 people to come and go"),
        (["--fast", "--realtime"], "not allowed with"),
        (["nowhere", "--store", "nowhere"], "pass one of them"),
    ],
)
def test_mistakes_get_one_line(
    tmp_path: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["run", *args, "--out", str(tmp_path)])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2
    assert message in err and "Traceback" not in err


def test_a_damaged_recording_keeps_what_came_before(
    small_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small_recording, broken)
    whole = (broken / "weights.parquet").read_bytes()
    half = len(whole) // 2
    (broken / "weights.parquet").write_bytes(
        whole[:half] + bytes(b ^ 0xFF for b in whole[half : half + 64]) + whole[half + 64 :]
    )
    code = main(["run", str(broken), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert code == 2
    assert "weights.parquet: damaged" in out + err and "Traceback" not in err
    assert (tmp_path / "out" / "run.json").exists()


def test_help_waits_for_no_kernel() -> None:
    code = (
        "import sys, runpy; sys.argv = ['run_store.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numba', 'scipy', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, timeout=60).stdout
    assert "--realtime" in out and out.rstrip().endswith("[]")


def test_the_shortest_program_runs() -> None:
    code, out, err = run("embed.py")
    assert code == 0, err
    assert out.count(" Receipt: ") == 2 and " Picked: " in out
