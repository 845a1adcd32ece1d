"""The plots of docs/figures: redrawn from the measurements byte for byte, and legible on light and dark pages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="no Matplotlib: pip install 'storefusion[bench]'")

from bench import plots
from bench.figures import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "figures"
NAMES = ("cost_curve", "accuracy", "accuracy_people", "public")


@pytest.fixture(scope="module")
def figures():
    return plots


def measured(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def draw(name, folder):
    figures = measured(name)
    return plots.draw(name, figures, PUBLISHED[name].module.page(figures), folder)


def luminance(colour):
    """Relative luminance of sRGB. Source: WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_published_pages_are_rendered_from_the_measurements(figures, name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page == PUBLISHED[name].module.page(measured(name))
    for plot in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page):
        assert (FOLDER / plot).is_file(), f"{plot} does not exist"


@pytest.fixture(scope="module")
def drawn(figures, tmp_path_factory):
    """All files of each set, drawn once."""
    return {name: draw(name, tmp_path_factory.mktemp("figures")) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_figures_give_the_same_files(figures, drawn, tmp_path, name):
    first, second = drawn[name], draw(name, tmp_path)
    assert [path.name for path in first] == [path.name for path in second] and len(first) >= 2
    for path, repeated in zip(first, second):
        assert path.read_bytes() == repeated.read_bytes()
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            ET.fromstring(text)
            assert "prefers-color-scheme:dark" in text and "<dc:date>" not in text
            # Every colour in the plot has a dark variant.
            colours = set(re.findall(r"#[0-9a-f]{6}", text.split("</style>", 1)[1]))
            assert colours <= set(figures._DARK), "a colour that a dark page would not change"


def test_colours_stand_out_from_the_page_in_light_and_dark(figures):
    paper = figures._PAPER
    for colour in (figures._INK, figures._SOFT, *figures._SERIES):
        assert contrast(colour, paper) > 3.0
        assert contrast(figures._DARK[colour], figures._DARK[paper]) > 3.0
    assert len(set(figures._DARK)) == len(figures._DARK) == 4 + len(figures._SERIES)


def test_every_scenario_and_size_is_in_its_plot(figures, drawn):
    measurements = {name: measured(name) for name in NAMES}
    texts = {}
    for name in NAMES:
        for path in drawn[name]:
            if path.suffix == ".svg":
                texts[path.name] = " ".join("".join(ET.parse(path).getroot().itertext()).split())
    for row in measurements["accuracy"]["cases"]:
        assert all(part in texts["accuracy_receipts.svg"] for part in figures._wrapped(row["title"]).splitlines())
    for part in measurements["accuracy"]["parts"]:
        assert part["engine"] in texts["accuracy_parts.svg"]
    for name in measurements["accuracy_people"]["results"]:
        assert all(part in texts["accuracy_people.svg"] for part in figures._wrapped(name).splitlines())
    for row in measurements["cost_curve"]["rows"]:
        assert f"{row['cameras']:.0f} cameras" in texts["cost_curve.svg"]


def test_a_redraw_without_measurements_says_how_to_measure(tmp_path):
    command = [sys.executable, "-m", "bench", "figures", "--redraw", "--only", "accuracy", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "does not exist; run without --redraw to measure first" in done.stderr
