"""The order of the modules, and what `import fusion` may load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fusion"

# Each wing may import those above it in this list and none below. Wings of one line do not import each other.
ORDER = (
    ("errors", "stopwatch", "_kernels"),
    ("store",),
    ("example_stores",),
    ("observations", "results"),
    ("arrival",),
    ("order", "sentences"),
    ("files",),
    ("people",),
    ("goods",),
    ("engine",),
    ("snapshots",),
    ("early",),
    ("run",),
    ("simulation",),
    ("money",),
    ("gates",),
    ("till",),
    ("show",),
    ("goods_in",),
    ("setup",),
    ("live",),
    ("feeds",),
    ("detect",),
    ("chain",),
    ("runner",),
    ("commands",),
    ("__main__",),
)
RANK = {module: rank for rank, modules in enumerate(ORDER) for module in modules}
MODULES = sorted(PACKAGE.rglob("*.py"))
# Slow to import, or not needed to run at all.
HEAVY = {"numba", "scipy", "pyarrow", "pandas", "cv2", "yaml", "torch", "hypothesis", "pytest"}


def module_of(path: Path) -> str:
    """fusion/gates/keeper.py belongs to gates."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports at any depth, without those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: want absolute imports, got a relative one in line {node.lineno}"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("fusion.")} & set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_those_above_them(path: Path) -> None:
    module = module_of(path)
    if module == "__init__":
        return
    assert module in RANK, f"{module}: give it a place in the order"
    below = {other for other in imported(path) if RANK[other] >= RANK[module] and other != module}
    assert not below


def loaded_by(statement: str) -> set[str]:
    """Top-level packages and modules of the package that a statement brings into a fresh interpreter."""
    program = f"import sys\n{statement}\nimport json; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent, check=True, timeout=60
    )
    return set(json.loads(answer.stdout))


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import fusion")
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    # Even the settings' models are loaded on first use: they take half of the half second that an import may take.
    assert not [name for name in loaded if name.startswith("fusion.")]


@pytest.mark.parametrize(
    "module", ["store.models", "files.cameras", "files.detections", "files.recordings", "files.results", "observations"]
)
def test_reading_files_needs_no_kernels(module: str) -> None:
    loaded = loaded_by(f"import fusion.{module}")
    assert not {name.split(".")[0] for name in loaded} & HEAVY


def test_every_public_name_is_there() -> None:
    check = "missing = [name for name in fusion.__all__ if not hasattr(fusion, name)]"
    loaded_by(f"import fusion\n{check}\nassert not missing, missing")


@pytest.mark.parametrize(
    ("package", "extra", "code"),
    [
        ("cryptography", "gate", "from fusion.gates.codes import private_key; private_key(Path('none'))"),
        ("segno", "gate", "from fusion.gates.codes import qr_picture; qr_picture('x')"),
        ("paho", "mqtt", "from fusion.live.publisher import Publisher; Publisher('localhost', 'store', 'name')"),
        ("rerun", "view", "from fusion.show.rerun_view import View; View('none/x', None)"),
        ("mcap", "mcap", "from fusion.show.mcap_view import McapView; McapView('none/x', None)"),
        ("prometheus_client", "serve", "from fusion.live.supervisor import Supervisor; Supervisor('none.toml')"),
        ("onnxruntime", "detect", "from fusion.detect.sessions import Session; Session('none')"),
        ("onnx", "tfjs", "from fusion.detect.tfjs import onnx_of; onnx_of(Path('none'))"),
        (
            "av", "detect",
            "from fusion.detect.settings import Source; from fusion.detect.sources import file_shots;"
            "next(file_shots(Source(None, 'file', 'none', 'none'), 1.0))",
        ),
        ("starlette", "console", "import fusion.show.console.server"),
        ("ray", "ray", "from fusion.chain.batch import map_tasks; next(map_tasks(abs, [1], cluster='local'))"),
        ("psycopg", "postgres", "from fusion.money.databases import open_database as o; o('postgresql://x', 'x', 'v')"),
        ("psycopg", "postgres", "from fusion.chain.book import ChainBook; ChainBook('postgresql://x')"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package: str, extra: str, code: str) -> None:
    hidden = f"import sys; from pathlib import Path; sys.modules[{package!r}] = None\n{code}"
    process = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert process.stderr.splitlines()[-1].startswith("fusion.errors.FusionError: want the package ")
    assert f"pip install 'storefusion[{extra}]'" in process.stderr
