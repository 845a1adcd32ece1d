"""The programs that people start first, started as they start them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.store.models import Store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def start(program: str, *args: object, **options) -> subprocess.Popen:
    command = [sys.executable, str(EXAMPLES / program), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def run(program: str, *args: object) -> tuple[int, str, str]:
    return ended(start(program, *args))


def simulate(out: Path, seed: int) -> subprocess.Popen:
    return start("run_store.py", "--minutes", 1, "--shoppers", 2, "--seed", seed, "--out", out)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> tuple[Path, tuple[int, str, str]]:
    """What seed 3 leaves in its folder, and says."""
    folder = tmp_path_factory.mktemp("simulated")
    return folder, ended(simulate(folder, 3))


def test_a_simulated_store_runs_from_door_to_receipt(simulated):
    folder, (code, out, err) = simulated
    assert code == 0, err
    for said in (
        "came in at entry",
        " took ",
        "left at exit",
        "settled",
        "from the exit to the receipt",
        "chain holds",
    ):
        assert said in out, f"{said!r} is missing in:\n{out}"
    assert "WRONG" not in [line for line in out.splitlines() if "settled" in line]
    assert "store time" in err, "the progress bar"
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


def test_a_recording_is_replayed_and_another_store_simulated(small_recording, tmp_path):
    store = small_recording / "store"
    replay = start("run_store.py", small_recording, "--out", tmp_path / "replayed", "--fast")
    other = start("run_store.py", "--store", store, "--minutes", 0.7, "--shoppers", 1, "--out", tmp_path / "other")
    code, out, err = ended(replay)
    assert code == 0, err
    assert "right" in out
    for name in ("receipts.jsonl", "events.jsonl", "tracks.parquet", "run.json", "report.html", "ledger.sqlite"):
        assert (tmp_path / "replayed" / name).stat().st_size > 0
    code, out, err = ended(other)
    assert code == 0, err
    assert Store.load(store).name in out.splitlines()[0]


def test_the_seed_decides(simulated, tmp_path):
    for process in [simulate(tmp_path / str(seed), seed) for seed in (3, 4)]:
        ended(process)
    first, again, other = (
        (folder / "tracks.parquet").read_bytes() for folder in (simulated[0], tmp_path / "3", tmp_path / "4")
    )
    assert first == again != other


def test_interrupting_keeps_the_results_so_far(tmp_path):
    args = ("--realtime", "--minutes", 5, "--shoppers", 4, "--out", tmp_path)
    # A background job of a shell inherits that interrupts are ignored, and would hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start("run_store.py", *args, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    signal.signal(signal.SIGINT, before)
    # The first line is printed before the run starts; then the bar tells when some data have come.
    assert process.stdout.readline()
    told = ""
    while not re.search(r" [1-9]\d*/300 ", told):
        said = process.stderr.read(1)
        assert said, told
        told += said
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in out and "Traceback" not in err
    assert json.loads((tmp_path / "run.json").read_text())["frames"] > 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], "want a recording's folder, got nothing"),
        (["--store", "nowhere"], "want a store folder, got nothing"),
        (["--minutes", "0"], "want --minutes above 0"),
        (["--minutes", "0.1"], "for 8 people to come and go"),
        (["--fast", "--realtime"], "not allowed with"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, args, said):
    code, _, err = run("run_store.py", *args, "--out", tmp_path)
    assert code == 2
    assert said in err and "Traceback" not in err


def test_a_damaged_recording_keeps_what_came_before(small_recording, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(small_recording, broken)
    whole = (broken / "weights.parquet").read_bytes()
    half = len(whole) // 2
    (broken / "weights.parquet").write_bytes(
        whole[:half] + bytes(b ^ 0xFF for b in whole[half : half + 64]) + whole[half + 64 :]
    )
    code, out, err = run("run_store.py", broken, "--out", tmp_path / "out")
    assert code == 2
    assert "weights.parquet: damaged" in out + err and "Traceback" not in err
    assert (tmp_path / "out" / "run.json").exists()


def test_help_waits_for_no_kernel():
    code = (
        "import sys, runpy; sys.argv = ['run_store.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numba', 'scipy', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, timeout=60).stdout
    assert "--realtime" in out and out.rstrip().endswith("[]")


def test_the_shortest_program_runs():
    code, out, err = run("embed.py")
    assert code == 0, err
    assert out.count("Receipt(") == 2 and "Picked(" in out
