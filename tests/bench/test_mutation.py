"""Mutants are what their operators say, tried by the tests that reach them, and counted as what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.mutation.reached import Reached, Test, measure
from bench.mutation.run import TARGETS, _within, equivalents, page
from bench.mutation.trials import Trials, Verdict

ROOT = Path(__file__).resolve().parents[2]

CODE = '''
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import secrets as s1

LIMIT = 3


def under(value: int, limit: int = LIMIT) -> bool:
    """Whether a value is under its limit."""
    if (
        value < 0
    ):
        return False
    return value < limit


class Box:
    @property
    def full(self) -> bool:
        return True
'''

TESTS = '''
import pytest

from fusion.money.box import LIMIT, Box, under


def test_under():
    assert under(LIMIT - 1) and not under(LIMIT)


def test_full():
    assert Box().full


def test_below():
    assert not under(-1)


@pytest.mark.skip
def test_never():
    raise AssertionError
'''


def module() -> Any:
    pytest.importorskip("libcst")
    pytest.importorskip("mutmut")
    from bench.mutation.mutants import Module

    return Module("fusion/money/box.py", CODE)


def changes() -> set[tuple[int, str, str]]:
    wrong = module()
    made = [wrong.mutant(place, variant) for place in wrong.places for variant in range(place.n_mutants)]
    return {(one.line, one.before, one.after) for one in made if one is not None}


def test_every_place_of_a_module_can_be_wrong_and_no_other() -> None:
    found = changes()
    assert {
        (7, "LIMIT = 3", "LIMIT = 4"),
        (7, "LIMIT = 3", "LIMIT = None"),
        (13, "value < 0", "value <= 0"),
        (13, "value < 0", "value < 1"),
        (15, "return False", "return True"),
        (16, "return value < limit", "return value <= limit"),
        (22, "return True", "return False"),  # under a decorator
    } == found


def test_a_statement_of_several_lines_is_one() -> None:
    places = {(place.line, place.statement, place.function) for place in module().places}
    assert (13, (12, 14), "under") in places and (7, (7, 7), "") in places and (22, (22, 22), "Box.full") in places


def test_a_constant_shows_where_its_name_is_mentioned() -> None:
    wrong = module()
    made = [wrong.mutant(place, 0) for place in wrong.places]
    lines = {(one.line, one.before): sorted(one.lines) for one in made if one is not None}
    assert lines[7, "LIMIT = 3"] == [7, 10]
    assert lines[13, "value < 0"] == [12, 13, 14] and lines[22, "return True"] == [22]


def test_a_draw_is_repeated_by_its_seed(tmp_path: Path) -> None:
    module()
    from bench.mutation.mutants import draw

    folder = tmp_path / "fusion" / "money"
    folder.mkdir(parents=True)
    (folder / "box.py").write_text(CODE)
    (folder / "empty.py").write_text("")
    drawn, n_places = draw(tmp_path, "fusion/money", 4, 1)
    assert n_places == len(module().places) and len(drawn) == 4
    assert drawn == draw(tmp_path, "fusion/money", 4, 1)[0]
    assert drawn != draw(tmp_path, "fusion/money", 4, 2)[0]
    places = [(one.line, one.before) for one in draw(tmp_path, "fusion/money", 99, 1)[0]]
    assert len(places) == n_places
    with pytest.raises(ValueError, match="no module with a place to mutate"):
        draw(tmp_path, "fusion/goods", 1, 1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A project of one module and its tests."""
    copy = tmp_path / "copy"
    for name, text in {
        "fusion/__init__.py": "", "fusion/money/__init__.py": "", "fusion/money/box.py": CODE,
        "tests/money/test_box.py": TESTS, "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():  # fmt: skip
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    (copy / "bench").symlink_to(ROOT / "bench")
    return copy


def environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy)}


def test_tests_are_known_by_the_lines_they_run(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    kept = tmp_path / "kept.json"
    reached = measure(copy, ["tests/money"], kept, environment(copy))

    def names(first: int, last: int) -> set[str]:
        found = reached.tests("fusion/money/box.py", frozenset(range(first, last + 1)))
        return {test.id.partition("::")[2] for test in found}

    assert names(12, 14) == {"test_under", "test_below"}
    assert names(15, 15) == {"test_below"}
    assert names(7, 7) == {"test_under", "test_below", "test_full"}  # a constant concerns all
    assert names(5, 5) == set() and reached.tests("fusion/money/other.py", frozenset({1})) == []
    # What has not changed is not run again.
    rows = json.loads(kept.read_text())
    (row,) = rows.values()
    row["tests"] = {}
    kept.write_text(json.dumps(rows))
    assert measure(copy, ["tests/money"], kept, environment(copy)).tests("fusion/money/box.py", frozenset({13})) == []
    with pytest.raises(RuntimeError, match="could not be measured"):
        (copy / "tests" / "money" / "test_box.py").write_text("raise SystemExit(3)")
        measure(copy, ["tests/money"], kept, environment(copy))


def test_a_mutant_is_killed_survives_or_waits_for_ever(copy: Path) -> None:
    pytest.importorskip("coverage")
    path = copy / "fusion" / "money" / "box.py"
    tests = [Test(f"tests/money/test_box.py::{name}", 0.1) for name in ("test_full", "test_under")]
    trials = Trials(copy, environment(copy), libraries=(), imports_max_s=3.0, waiting_max=2.0)
    try:
        assert trials.run("fusion/money/box.py", CODE, tests) == Verdict("survived", "", 2)
        wrong = CODE.replace("value < limit", "value <= limit")
        assert trials.run("fusion/money/box.py", wrong, tests) == Verdict("killed", tests[1].id, 2)
        assert trials.run("fusion/money/box.py", "raise OSError\n", tests).outcome == "killed"
        assert trials.run("fusion/money/box.py", wrong, []) == Verdict("unreached", "", 0)
        endless = CODE.replace("return value < limit", "while True: pass")
        assert trials.run("fusion/money/box.py", endless, tests) == Verdict("timeout", "", 2)
        # One trial leaves nothing to the next.
        assert trials.run("fusion/money/box.py", CODE, tests) == Verdict("survived", "", 2)
    finally:
        trials.close()
    assert path.read_text() == CODE


def test_the_quickest_tests_are_kept_and_always_one() -> None:
    tests = [Test("a", 1.0), Test("b", 2.0), Test("c", 3.0)]
    assert _within(3.0, tests) == tests[:2] and _within(0.5, tests) == tests[:1] and _within(1.0, []) == []
    measured = {test.id: {"cpu_s": test.cpu_s, "lines": {"m.py": [1]}} for test in tests[::-1]}
    # A module of constants is used by others: any test may be its own.
    reached = Reached({"f": {"imported": {"constants.py": [4]}, "tests": measured}})
    assert reached.tests("constants.py", frozenset({4})) == tests
    assert reached.tests("constants.py", frozenset({5})) == []
    assert reached.tests("m.py", frozenset({1})) == tests


def test_what_imports_run_may_show_in_any_test() -> None:
    """A setting's limit is checked where no line of its module runs."""
    tests = {name: {"cpu_s": cpu_s, "lines": {"m.py": lines} if lines else {}}
             for name, cpu_s, lines in (("a", 4.0, [7]), ("b", 3.0, [8]), ("c", 2.0, [8]), ("d", 1.0, []))}  # fmt: skip
    reached = Reached({"f": {"imported": {"m.py": [4, 5]}, "tests": tests}})

    def named(*lines: int) -> str:
        return "".join(test.id for test in reached.tests("m.py", frozenset(lines)))

    assert named(4, 7) == "acbd", "those that run a line that mentions it, others of the module, all the others"
    assert named(4) == "cbad" and named(7) == "a" and named(8) == "cb" and named(9) == ""


def test_the_page_counts_what_became_of_mutants() -> None:
    row = {"path": "fusion/money/a.py", "line": 3, "function": "f", "before": "a < b", "after": "a <= b", "by": ""}
    outcomes = [("killed", "")] * 6 + [("timeout", ""), ("survived", ""), ("unreached", ""), ("survived", "the same")]
    trials = [{**row, "outcome": outcome, "reason": reason} for outcome, reason in outcomes]
    result = {"n_places": 50, "seed": 4, "controls": 3, "controls_killed": [], "trials": trials}
    text = page({"folders": {"fusion/money": result}})
    assert "| `fusion/money` | 50 | 10, 4 | 7 | 1 | 2 | 1 | 70.0 (34.8-93.3) | 1 | 77.8 (40.0-97.2) |" in text
    assert text.count("`a < b` as `a <= b`") == 2 and "0 of 3 killed" in text


def test_equivalent_mutants_are_of_code_that_is_there_and_say_why() -> None:
    for (path, _, before, after), reason in equivalents().items():
        lines = " ".join(line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines())
        assert before in lines and before != after, f"{path}: {before}"
        assert len(reason) > 20, f"{path}: {before}"


def test_targets_and_their_tests_exist() -> None:
    assert all((ROOT / name).exists() for folder, tests in TARGETS.items() for name in (folder, *tests))


def test_a_folder_that_is_none_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "mutation", "fusion/mony"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "fusion/mony: no folder of fusion/" in done.stderr
