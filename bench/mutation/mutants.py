"""Where a module can be made wrong, and how: the operators are mutmut's.

A *place* is one node of the syntax tree to which at least one operator applies; a *mutant* is the module with one
operator applied at one place. A string has three mutants and a call with four arguments eight, so mutants drawn at
random would mostly be of strings and calls: places are drawn instead, each equally likely, and then one mutant of each.

mutmut's own runner leaves decorated functions out (properties, context managers, validators) and constants of modules
and classes, since it switches mutants on by wrapping functions. A store's limits and prices are such constants, so only
the operators are used here, on the whole module.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libcst


# A statement that gives names: `LIMIT = 3`, `a, b = 1, 2`, `field: int = 0`.
_GIVEN = re.compile(r"\s*([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)\s*(?::[^=]+)?=(?!=)")


@dataclass(frozen=True)
class Place:
    """Where a module can be made wrong.

    Attributes:
        path: of the module, relative to the project. line: of the node, from 1. statement: first and last line of the
            statement around it, without a block's body. function: dotted name of the function or class around it, ""
            at the module's level. n_mutants: in how many ways. index: of the place in its module.
    """

    path: str
    line: int
    statement: tuple[int, int]
    function: str
    n_mutants: int
    index: int


@dataclass(frozen=True)
class Mutant:
    """A module that is wrong in one place.

    Attributes:
        path, line, statement, function: of the place.
        before, after: the lines that differ, without indentation.
        code: the whole module as it is tested.
        lines: of the module, those whose run could show the change: the statement's; and where it gives a name outside
            of any function, a constant or a field, those that mention the name.
    """

    path: str
    line: int
    statement: tuple[int, int]
    function: str
    before: str
    after: str
    code: str
    lines: frozenset[int]


class Module:
    """A module's source, with every place at which it can be made wrong."""

    def __init__(self, path: str, source: str) -> None:
        import libcst
        from libcst.metadata import MetadataWrapper

        self.path, self.source = path, source
        wrapper = MetadataWrapper(libcst.parse_module(source))
        visitor = _places_visitor()
        wrapper.visit(visitor)
        self._tree = wrapper.module
        self._bodies: list[tuple[int, int]] = visitor.bodies
        self._found: list[tuple[Any, list[Any]]] = [(node, variants) for node, variants, *_ in visitor.found]
        self.places = tuple(
            Place(path, line, statement, function, len(variants), index)
            for index, (_, variants, line, statement, function) in enumerate(visitor.found)
        )

    def mutant(self, place: Place, variant: int) -> Mutant | None:
        """The module with one variant at a place; None where that is no Python, or the same program."""
        node, variants = self._found[place.index]
        tree = self._tree.deep_replace(node, variants[variant])
        code = str(tree.code)  # type: ignore[union-attr]
        try:
            compile(code, self.path, "exec")
        except (SyntaxError, ValueError):
            return None
        before, after = _difference(self.source, code)
        if before == after:
            return None
        lines = self._lines(place.statement)
        return Mutant(self.path, place.line, place.statement, place.function, before, after, code, lines)

    def _lines(self, statement: tuple[int, int]) -> frozenset[int]:
        first, last = statement
        text = self.source.splitlines()
        own = frozenset(range(first, last + 1))
        if any(first >= begin and last <= end for begin, end in self._bodies):
            return own
        given = _GIVEN.match(text[first - 1])
        names = re.findall(r"\w+", given[1]) if given else []
        mentioned = [number for number, line in enumerate(text, 1) if set(re.findall(r"\w+", line)) & set(names)]
        return own | frozenset(mentioned)


def draw(root: Path, folder: str, n: int, seed: int) -> tuple[list[Mutant], int]:
    """Up to n mutants of a folder's modules, and how many places there are in all.

    Args:
        root: the project. folder: such as `fusion/money`; its modules at any depth. n: how many places are drawn.
        seed: with the folder's name it decides which places are drawn.

    Raises:
        ValueError: the folder has no module in which anything could be wrong.
    """
    chance = random.Random(f"{folder} {seed}")
    paths = sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*.py"))
    modules = {path: Module(path, (root / path).read_text(encoding="utf-8")) for path in paths}
    places = [place for path in paths for place in modules[path].places]
    if not places:
        raise ValueError(f"{root / folder}: no module with a place to mutate; name a folder such as fusion/money")
    mutants: list[Mutant] = []
    for place in chance.sample(places, len(places)):
        if len(mutants) == n:
            break
        # All variants of a place may be no Python (a default of None before a parameter without): the next place.
        order = chance.sample(range(place.n_mutants), place.n_mutants)
        mutant = next(filter(None, (modules[place.path].mutant(place, variant) for variant in order)), None)
        if mutant is not None:
            mutants.append(mutant)
    return mutants, len(places)


def _difference(before: str, after: str) -> tuple[str, str]:
    lines = before.splitlines(), after.splitlines()
    matcher = difflib.SequenceMatcher(None, *lines, autojunk=False)
    changed = [block for block in matcher.get_opcodes() if block[0] != "equal"]

    def joined(side: Sequence[str], first: int, last: int) -> str:
        return " ".join(line.strip() for block in changed for line in side[block[first] : block[last]])

    return joined(lines[0], 1, 2), joined(lines[1], 3, 4)


def _places_visitor() -> Any:
    import libcst
    from libcst.metadata import PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    class Visitor(libcst.CSTVisitor):
        """Collects nodes with their variants; nothing is changed."""

        METADATA_DEPENDENCIES = (PositionProvider,)

        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[libcst.CSTNode, list[libcst.CSTNode], int, tuple[int, int], str]] = []
            self._scope: list[str] = []
            self._statements: list[tuple[int, int]] = []
            self.bodies: list[tuple[int, int]] = []

        def on_visit(self, node: libcst.CSTNode) -> bool:
            if _is_no_behaviour(node):
                return False
            if isinstance(node, _statements()):
                self._statements.append(self._lines(node))
            operators = [operator for kind, operator in mutation_operators if isinstance(node, kind)]
            variants = [new for operator in operators for new in operator(node)]
            if variants:
                line = self.get_metadata(PositionProvider, node).start.line
                self.found.append((node, variants, line, self._statements[-1], ".".join(self._scope)))
            if isinstance(node, libcst.FunctionDef | libcst.ClassDef):
                self._scope.append(node.name.value)
            if isinstance(node, libcst.FunctionDef):
                body = self.get_metadata(PositionProvider, node.body)
                self.bodies.append((body.start.line, body.end.line))
            return True

        def on_leave(self, original_node: libcst.CSTNode) -> None:
            if isinstance(original_node, libcst.FunctionDef | libcst.ClassDef):
                self._scope.pop()
            if isinstance(original_node, _statements()) and not _is_no_behaviour(original_node):
                self._statements.pop()

        def _lines(self, node: libcst.CSTNode) -> tuple[int, int]:
            """A simple statement's lines, or those of a block's head: coverage names only some lines of a statement."""
            whole = self.get_metadata(PositionProvider, node)
            body = getattr(node, "body", None)
            if not isinstance(body, libcst.BaseSuite):
                return whole.start.line, whole.end.line
            return whole.start.line, max(whole.start.line, self.get_metadata(PositionProvider, body).start.line - 1)

    return Visitor()


def _statements() -> tuple[type[Any], ...]:
    import libcst

    return libcst.SimpleStatementLine, libcst.BaseCompoundStatement, libcst.SimpleStatementSuite, libcst.ExceptHandler


def _is_no_behaviour(node: libcst.CSTNode) -> bool:
    """Annotations, imports, decorators' arguments and exported names: the interpreter or mypy answers for these."""
    import libcst

    if isinstance(node, libcst.If):
        return isinstance(node.test, libcst.Name) and node.test.value == "TYPE_CHECKING"
    if isinstance(node, libcst.Assign):
        target = node.targets[0].target
        return isinstance(target, libcst.Name) and target.value == "__all__"
    return isinstance(node, libcst.Annotation | libcst.Decorator | libcst.Import | libcst.ImportFrom)
