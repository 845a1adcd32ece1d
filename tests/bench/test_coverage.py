"""The table of what the tests run adds up, wing by wing, and the kernels' own tests are there to be run as Python."""

from __future__ import annotations

from bench.coverage import OF_KERNELS, ROOT, page


def file(n_lines: int, n_run: int, n_branches: int, n_taken: int) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_statements": n_lines, "covered_lines": n_run, "num_branches": n_branches,
            "covered_branches": n_taken, "missing_branches": n_branches - n_taken,
        }
    }  # fmt: skip


def test_wings_and_the_whole_add_up() -> None:
    text = page({
        "fusion/money/prices.py": file(100, 90, 40, 30),
        "fusion/money/providers/stripe.py": file(100, 100, 10, 10),
        "fusion/engine.py": file(50, 25, 8, 6),
        "fusion/run.py": file(50, 50, 0, 0),
        "fusion/early/__init__.py": file(0, 0, 0, 0),
    })
    assert "| `fusion/money/` | 200 | 95.0 | 50 | 80.0 |" in text
    assert "| `fusion/*.py` | 100 | 75.0 | 8 | 75.0 |" in text
    assert "| `fusion/early/` | 0 |  | 0 |  |" in text
    assert "| **all** | 300 | 88.3 | 58 | 79.3 |" in text
    # The modules with the most branches that no test takes come first.
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `") and ".py` |" in line]
    assert rows[1:3] == ["fusion/money/prices.py", "fusion/engine.py"]


def test_the_tests_of_the_kernels_exist() -> None:
    assert all((ROOT / name).is_file() for name in OF_KERNELS)
