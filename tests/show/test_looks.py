"""Every page as people meet it: on a desk and on a phone, light and dark, checked by axe-core."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browsing import LOOKS, complaints, findings, in_browser, requested, set_look
from show.consoles import PASSWORD, EndedRun, Served

from fusion.show.page import page_file
from fusion.show.report import Report
from fusion.store.models import Store

# WCAG 2.2, success criterion 1.4.3: contrast of text with what is behind it.
CONTRAST_MIN = 4.5
# What is written on what, by the names of plan.css.
WRITTEN = [
    *product(("ink", "soft", "accent", "good", "warn", "bad"), ("page", "card", "faint", "floor")),
    *((colour, f"{colour}-bg") for colour in ("good", "warn", "bad")),
    *(("card", f"c{i}") for i in range(8)),
    ("card", "soft"), ("card", "ink"), ("card", "accent"),
]  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("look", ["light", "dark"])
def test_every_colour_can_be_read_on_what_is_behind_it(look: str) -> None:
    light, dark = page_file("plan.css").split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    if look == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))
    contrasts = {}
    for text, behind in WRITTEN:
        high, low = sorted((luminance(colours[text]), luminance(colours[behind])), reverse=True)
        contrasts[text, behind] = (high + 0.05) / (low + 0.05)
    assert {pair: round(value, 2) for pair, value in contrasts.items() if value < CONTRAST_MIN} == {}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, store: Store, ended_run: EndedRun) -> str:
    """Address of the report of a minute with three shoppers."""
    report = Report(store, "A minute", ended_run.engine)
    for result in ended_run.results:
        report.add(result)
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write(path, ended_run.summary, shelves=ended_run.engine.shelf_state())
    return path.as_uri()


def looked_at(driver: Any, name: str, folder: Path) -> dict[str, list[str]]:
    """Serious findings by look; pictures of the page lie in `folder`."""
    found = {}
    for width, dark in LOOKS:
        set_look(driver, width, dark)
        look = f"{name}_{width}{'_dark' if dark else ''}"
        driver.save_screenshot(str(folder / f"{look}.png"))
        too_wide = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        found[look] = findings(driver) + ([f"{too_wide} px wider than the screen"] if too_wide > 0 else [])
    return {look: list_of for look, list_of in found.items() if list_of}


@in_browser
def test_the_report_can_be_used_by_everyone(driver: Any, report: str, tmp_path: Path) -> None:
    set_look(driver, 1440, False)
    driver.implicitly_wait(20)  # the page draws itself
    driver.get(report)
    driver.find_element("css selector", ".receipt summary").click()
    driver.find_element("css selector", ".why-line summary").click()
    assert looked_at(driver, "report", tmp_path) == {}
    assert complaints(driver) == []


@in_browser
def test_signing_in_can_be_done_by_everyone(driver: Any, served: Served, tmp_path: Path) -> None:
    driver.get(served.origin)
    assert looked_at(driver, "sign-in", tmp_path) == {}


@in_browser
def test_the_console_can_be_used_by_everyone(driver: Any, served: Served, tmp_path: Path) -> None:
    set_look(driver, 1440, False)
    driver.get(served.origin)
    driver.find_element("name", "name").send_keys("anna")
    driver.find_element("name", "password").send_keys(PASSWORD)
    driver.find_element("css selector", "button.primary").click()
    driver.implicitly_wait(20)
    driver.find_element("css selector", "#reviews button")
    assert looked_at(driver, "console", tmp_path) == {}
    views = {"receipts": "#receipts-table th", "day": "#day-figures .figure", "health": "#health-table td"}
    for view, drawn in views.items():
        driver.execute_script(f"location.hash = '{view}'")
        driver.find_element("css selector", drawn)
        assert looked_at(driver, view, tmp_path) == {}
    driver.execute_script("location.hash = 'now'")
    driver.find_element("css selector", "#reviews button").click()
    driver.find_element("css selector", "#choices input")
    driver.execute_script("document.getElementById('editing').open = true")
    assert looked_at(driver, "review", tmp_path) == {}
    assert complaints(driver) == []
    assert all(url.startswith((served.origin, "data:")) for url in requested(driver))
    driver.get("about:blank")
