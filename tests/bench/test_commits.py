"""What counts as a change between two commits, and what is a machine's noise."""

from __future__ import annotations

import math

import pytest

from bench.commits import Row, table, verdict


@pytest.mark.parametrize(
    ("before", "again", "after", "expected"),
    [
        ([1.0, 1.0, 1.0], [1.01, 0.99, 1.0], [1.2, 1.3, 1.25], "slower"),
        ([1.0, 1.0, 1.0], [1.01, 0.99, 1.0], [0.5, 0.6, 0.55], "faster"),
        # One round beyond the noise is chance, and so is a change that the first commit shows against itself.
        ([1.0, 1.0, 1.0], [1.01, 0.99, 1.0], [1.2, 1.0, 1.2], "same"),
        ([1.0, 1.0, 1.0], [1.3, 1.0, 1.0], [1.2, 1.2, 1.2], "same"),
        # A machine that becomes slower from round to round slows all sides.
        ([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0], "same"),
        # No user would notice.
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.02, 1.02, 1.02], "same"),
    ],
)
def test_a_change_lies_beyond_the_noise_in_every_round(before, again, after, expected):
    change, noise, word = verdict(before, again, after)
    assert word == expected
    assert noise == max(abs(b / a - 1.0) for a, b in zip(before, again))
    assert min(b / a for a, b in zip(before, after)) <= change <= max(b / a for a, b in zip(before, after))


def test_the_table_names_what_cannot_be_compared():
    rows = [
        Row("replay: receipts[two]", 0.5, 0.25, 0.5, 0.01, "faster"),
        Row("arms: new", math.nan, 1e-5, math.nan, math.nan, "does not run on the first commit"),
    ]
    text = table(rows, ("aaaaaaa", "bbbbbbb"), 5)
    assert "| replay: receipts[two] | 500.00 ms | 250.00 ms | -50 % | 1 % | **faster** |" in text
    assert "| arms: new |  | 10.0 µs |  |  | **does not run on the first commit** |" in text
