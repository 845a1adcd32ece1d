"""Sizes and shapes that keep the package readable: small files, classes and functions, documented wings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fusion"
MODULES = sorted(PACKAGE.rglob("*.py"))
WINGS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))

ROOT_FILES_MAX = 12
ENGINE_LINES_MAX = 400
CLASS_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
ARGUMENTS_MAX = 12

# A comment that starts with this, above `def` or `class` or in its first lines, states why it may exceed the limits.
REASON = "# Long: "
REASON_WITHIN_LINES = 5
# Behind `def`, before the reason for more arguments than the limit.
MANY = "# noqa: PLR0913 - "

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def n_arguments(function: Function) -> int:
    """Arguments that a caller passes: neither `self` nor `cls` counts."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def too_large(source: str) -> Iterator[str]:
    """The classes and functions of a module that exceed a limit and give no reason."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, Function | ast.ClassDef):
            continue
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        around = [line.strip() for line in lines[max(start - 2, 0) : node.body[0].lineno + REASON_WITHIN_LINES]]
        if any(line.startswith(REASON) and len(line) > len(REASON) for line in around):
            continue
        n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
        lines_max = CLASS_LINES_MAX if isinstance(node, ast.ClassDef) else FUNCTION_LINES_MAX
        if n_lines > lines_max:
            yield f"line {node.lineno}: {node.name} has {n_lines} lines, want at most {lines_max}"
        if isinstance(node, Function) and n_arguments(node) > ARGUMENTS_MAX and MANY not in lines[node.lineno - 1]:
            yield f"line {node.lineno}: {node.name} has {n_arguments(node)} arguments, want at most {ARGUMENTS_MAX}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_classes_and_functions_are_small(path: Path) -> None:
    assert list(too_large(path.read_text(encoding="utf-8"))) == []


def test_large_functions_are_found_unless_they_give_a_reason() -> None:
    body = "\n".join(f"    x = {i}" for i in range(FUNCTION_LINES_MAX))
    arguments = ", ".join(f"a{i}" for i in range(ARGUMENTS_MAX + 1))
    reason = f"{REASON}the table is read best as a whole"
    assert list(too_large(f"def f():\n{body}")) == ["line 1: f has 71 lines, want at most 70"]
    assert list(too_large(f"{reason}\ndef f():\n{body}")) == []
    assert list(too_large(f"def f():\n    {reason}\n{body}")) == []
    assert list(too_large(f"{REASON.strip()}\ndef f():\n{body}")) != [], "without a reason"
    assert list(too_large(f"async def f({arguments}): ...")) == ["line 1: f has 13 arguments, want at most 12"]


def test_the_root_of_the_package_is_small() -> None:
    files = sorted(path.name for path in PACKAGE.iterdir() if path.is_file())
    assert len(files) <= ROOT_FILES_MAX, files
    assert len((PACKAGE / "engine.py").read_text(encoding="utf-8").splitlines()) < ENGINE_LINES_MAX


@pytest.mark.parametrize("wing", WINGS, ids=name_of)
def test_a_wing_states_what_it_is_for(wing: Path) -> None:
    assert ast.get_docstring(parsed(wing / "__init__.py")), "want a docstring in its __init__.py"


def protocols() -> set[tuple[str, str]]:
    """Module and name of every protocol of the package."""
    found = set()
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base).split("[")[0].split(".")[-1] == "Protocol" for base in node.bases
            ):
                found.add((module_of(path), node.name))
    return found


def module_of(path: Path) -> str:
    """fusion/gates/keeper.py is fusion.gates.keeper."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def classes_tested_for(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every class that an `isinstance`, an `issubclass` or a `case` of a file mentions."""
    tree = parsed(path)
    origin = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            mentioned: ast.AST = node.args[1]
        elif isinstance(node, ast.MatchClass):
            mentioned = node.cls
        else:
            continue
        for name in ast.walk(mentioned):
            if isinstance(name, ast.Name):
                yield origin.get(name.id, (module_of(path), name.id))


def test_nothing_asks_whether_an_object_follows_a_protocol() -> None:
    """A protocol is for callers that need not know the class; whoever asks for the class needs a base class."""
    known = protocols()
    assert known
    asked = {(module_of(path), *pair) for path in MODULES for pair in classes_tested_for(path)}
    assert [row for row in sorted(asked) if row[1:] in known] == []
