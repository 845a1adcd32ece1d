"""Every Python and shell block of the README and the documents runs as it stands there.

Placeholders are real in the folder where the blocks run: RECORDING, STORE and the like are folders of those names. What
would take long is shortened by stand-ins on the path (see `STAND_IN`): installing checks that the extras exist, pytest
only collects, a simulated run is half a minute of one shopper. A command that runs until it is interrupted says so in a
comment with "Ctrl-C" and gets Ctrl-C.

Slow, and it wants port 1883 for a broker, so `pytest` alone leaves it out; `.ci/run` runs `pytest -m documents`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from broker import MOSQUITTO
from documents import surroundings

pytestmark = pytest.mark.documents

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
RUNS_UNTIL_INTERRUPTED_S = 12

STAND_IN = """\
#!/usr/bin/env bash
# Stands in for python in the documents' blocks.
case "$*" in
  "-m venv"*) exit 0 ;;
  "-m pip install"*) exec {python} -m documents.surroundings extras "$@" ;;
  "-m pytest"*) cd {root} && exec {python} "$@" --collect-only -q ;;
  *run_store.py*--mqtt*|*"fusion run"*--mqtt*) exec {python} "$@" ;;
  *run_store.py*RECORDING*|*"fusion run"*RECORDING*) exec {python} "$@" ;;
  *run_store.py*|*"fusion run"*) exec {python} "$@" --minutes 0.6 --shoppers 1 ;;
  *publish_recording.py*) exec {python} "$@" --speed 20 ;;
  *"bench figures"*--redraw*) exec {python} "$@" --out figures ;;
  *"-m bench figures"*) exec {python} "$@" --help ;;
  *) exec {python} "$@" ;;
esac
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(languages: set[str]) -> list[Block]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for number, match in enumerate(FENCE.finditer(text), 1):
            if match[1] in languages:
                found.append(Block(page, number, match[1], match[2]))
    return found


@pytest.fixture(scope="module")
def workplace(small_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which placeholders are real, and what the repository has at its top."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("examples", "bench", "pyproject.toml", "docs"):
        (folder / name).symlink_to(ROOT / name)
    surroundings.furnish(folder, small_recording)
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "python3"):
        stand_in = binaries / name
        stand_in.write_text(STAND_IN.format(python=sys.executable, root=ROOT), encoding="utf-8")
        stand_in.chmod(0o755)
    fusion = binaries / "fusion"
    fusion.write_text(f'#!/usr/bin/env bash\nexec "{binaries}/python" -m fusion "$@"\n', encoding="utf-8")
    fusion.chmod(0o755)
    if MOSQUITTO:
        (binaries / "mosquitto").symlink_to(MOSQUITTO)
    rerun = binaries / "rerun"  # a window that stays open
    rerun.write_text('#!/usr/bin/env bash\ntest -s "$1"\n', encoding="utf-8")
    rerun.chmod(0o755)
    shutil.copytree(ROOT / "docs" / "figures", folder / "figures")
    return folder


@pytest.fixture(scope="module")
def environment(workplace: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    path = os.pathsep.join([str(workplace / ".venv" / "bin"), os.environ["PATH"], "/usr/sbin"])
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PATH": path, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def script(code: str) -> str:
    """The block as a script that stops at the first error, and that stops what runs until Ctrl-C."""
    lines = []
    for line in code.replace("\\\n", " ").splitlines():
        command, _, comment = line.partition("#")
        if "Ctrl-C" in comment and command.strip():
            wait = f"timeout --signal=INT --preserve-status {RUNS_UNTIL_INTERRUPTED_S} {command.rstrip()}"
            lines.append(f"{{ {wait}; }} || [ $? = 130 ]  #{comment}")
        else:
            lines.append(line)
    background = "for job in $(jobs -p); do kill -INT $job 2>/dev/null || true; done; wait"
    return "\n".join(["set -euo pipefail", f"trap 'status=$?; {background}; exit $status' EXIT", *lines, ""])


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL for blocks that name one."""
    yield request.getfixturevalue("postgres")


@pytest.mark.parametrize("block", blocks({"sh"}), ids=str)
def test_a_shell_block_runs(
    block: Block, workplace: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if "mosquitto" in block.code and MOSQUITTO is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    if "CHAIN_URL" in block.code:
        environment = {**environment, "CHAIN_URL": request.getfixturevalue("database")}
    process = subprocess.Popen(
        ["bash", "-c", script(block.code)], cwd=workplace, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate("a long password\n", timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{block}: did not end; a comment with Ctrl-C says that a command runs until then\n{output}")
    assert process.returncode == 0, f"{block}:\n{block.code}\n{output}"
    assert "Traceback" not in output, f"{block}:\n{output}"


@pytest.mark.parametrize("block", blocks({"python"}), ids=str)
def test_a_python_block_runs(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    with surroundings.names_for(block.page, workplace) as names:
        exec(compile(block.code, str(block), "exec"), names)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize("block", blocks({"c"}), ids=str)
def test_a_c_block_compiles(block: Block, tmp_path: Path) -> None:
    source = tmp_path / "block.c"
    source.write_text(block.code, encoding="utf-8")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(tmp_path / "o")], check=True)


def test_every_block_has_a_language_that_is_known() -> None:
    """A block without a language, or in an unknown one, would never be run."""
    known = {"sh", "python", "c", "toml", "json", "sql", "text", "hex", "conf"}
    for page in [*PAGES, "ARCHITECTURE.md"]:
        fences = re.findall(r"^```(.*)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
        assert {fence.strip() for fence in fences[::2]} <= known, page
