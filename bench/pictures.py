"""The pictures of the README and the documents, taken again: python -m bench pictures [--out docs].

A run of the demonstration shop gives the report, its floor and the view in Rerun; `fusion demo` gives the pages, as a
headless Chromium sees them. Needs the extras `shopper` and `view`, Chromium and its chromedriver. A picture that cannot
be taken on this machine is named and left as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from browsing import CHROMEDRIVER, CHROMIUM, browsing

from fusion.example_stores.catalogue import store_folder
from fusion.observations import Observation
from fusion.run import Run
from fusion.runner.demo import SCENARIO
from fusion.setup.coverage import Coverage
from fusion.show.report import Report
from fusion.show.rerun_view import View
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

# Screens of a desk, a phone, and a tablet at a door.
DESK_PX, PHONE_PX, SCREEN_PX = (1440, 1357), (390, 844), (1024, 768)
# How long a basket fills before its picture is taken.
BASKET_S = 15.0
# How long a page may take to show who signed in.
SIGN_IN_S = 3.0
VIEW_PX = "1280x657"
# The instant of the run that its pictures show.
SHOWN_S = 62.5
# How long pages may take to show what is waited for, on a machine that is busy with other work.
SHOWN_MAX_S = 600.0


def pictures_of_a_run(out: Path, folder: Path) -> None:
    """report.png, run.svg and view.png: two minutes of the demonstration shop."""
    store = demo_store(n_cameras=12, n_plates=160)
    view = View(folder / "run.rrd", store)

    def watched() -> Iterator[Observation]:
        for observation in Simulation(store, Scenario(seed=3, minutes=2.0, shoppers=16, **SCENARIO)).observations():
            view.observe(observation)
            yield observation

    run = Run(store, watched())
    report = Report(store, "Two busy minutes", run.engine)
    run.drive([report, view])
    report.write(folder / "report.html")
    report.write_svg(out / "run.svg", until_s=SHOWN_S)
    with looking(*DESK_PX) as driver:
        driver.get(f"{(folder / 'report.html').as_uri()}#t={SHOWN_S}")
        driver.save_screenshot(str(out / "report.png"))
    wanted = ["--screenshot-to", str(folder / "view.png"), "--window-size", VIEW_PX]
    command = [sys.executable, "-m", "rerun", str(folder / "run.rrd"), *wanted]
    try:
        subprocess.run(command, check=True, timeout=120, capture_output=True)
        shutil.copyfile(folder / "view.png", out / "view.png")
    except (OSError, subprocess.SubprocessError) as error:
        print(f"view.png: left as it is, since the viewer cannot draw on this machine: {error}")


def picture_of_coverage(out: Path) -> None:
    """coverage.svg, as docs/check.md describes it."""
    Coverage.of(Store.load(store_folder("unmanned_box"))).write_svg(out / "coverage.svg")


@contextlib.contextmanager
def looking(width: int, height: int) -> Iterator[Any]:
    """A browser whose pictures have no scroll bars."""
    with browsing(width, height) as driver:
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        if width >= 500:
            # The window's own frame would take some of the height; a phone is emulated as a whole already.
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver


@contextlib.contextmanager
def demonstration() -> Iterator[list[str]]:
    """The lines that `fusion demo` prints, while it runs."""
    command = [sys.executable, "-m", "fusion", "demo", "--no-browser", "--minutes", "20", "--lead", "2.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [process.stdout.readline() for _ in range(3)]
        finally:
            process.send_signal(signal.SIGINT)


def wait_for(driver: Any, what: str, shown: Callable[[], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, SHOWN_MAX_S, 0.5).until(lambda _: shown(), f"the page does not show {what}")


def pictures_of_pages(out: Path) -> None:
    """console.png, review.png, shopper.png and screen.png, from `fusion demo`."""
    from selenium.webdriver.common.by import By

    with demonstration() as (console, shopper, screen):
        address, name, password = _found(r"(http://\S+) +sign in as (\S+) with (\S+)", console)
        (link,) = _found(r"(http://\S+)", shopper)
        door, code = _found(r"(http://\S+) +type in (\w{4} \w{4})", screen)
        with looking(*DESK_PX) as driver:
            driver.get(address)
            driver.find_element(By.NAME, "name").send_keys(name)
            driver.find_element(By.NAME, "password").send_keys(password)
            driver.find_element(By.CSS_SELECTOR, "button.primary").click()
            waiting, inside = "#reviews button", "#layer-people g"
            wait_for(driver, "two reviews", lambda: len(driver.find_elements(By.CSS_SELECTOR, waiting)) > 1)
            wait_for(driver, "people", lambda: len(driver.find_elements(By.CSS_SELECTOR, inside)) > 2)
            driver.save_screenshot(str(out / "console.png"))
            driver.find_elements(By.CSS_SELECTOR, waiting)[1].click()
            wait_for(driver, "its evidence", lambda: driver.find_elements(By.CSS_SELECTOR, ".evidence svg"))
            driver.save_screenshot(str(out / "review.png"))
        with looking(*PHONE_PX) as driver:
            driver.get(link)
            wait_for(driver, "the way in", lambda: _clickable(driver))
            _clickable(driver)[0].click()
            # The shopper of the link comes in soon, and takes something within some seconds.
            time.sleep(SIGN_IN_S)
            wait_for(driver, "a basket", lambda: not _outside(driver))
            time.sleep(BASKET_S)
            driver.save_screenshot(str(out / "shopper.png"))
        with looking(*SCREEN_PX) as driver:
            driver.get(door)
            driver.find_element(By.TAG_NAME, "input").send_keys(code)
            _clickable(driver)[0].click()
            time.sleep(SIGN_IN_S)
            driver.save_screenshot(str(out / "screen.png"))


def _outside(driver: Any) -> bool:
    return "You are not in the store" in driver.find_element("tag name", "main").text


def _clickable(driver: Any) -> list[Any]:
    from selenium.webdriver.common.by import By

    return [button for button in driver.find_elements(By.CSS_SELECTOR, "main button") if button.is_displayed()]


def _found(pattern: str, line: str) -> tuple[str, ...]:
    found = re.search(pattern, line)
    if found is None:
        raise SystemExit(f"fusion demo printed {line!r}")
    return found.groups()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures (docs)")
    parser.add_argument("--only", choices=("run", "coverage", "pages"), help="take these alone")
    args = parser.parse_args()
    if CHROMIUM is None or CHROMEDRIVER is None:
        raise SystemExit("no Chromium with chromedriver on this machine, which takes the pictures")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if args.only in (None, "coverage"):
            picture_of_coverage(args.out)
        if args.only in (None, "run"):
            pictures_of_a_run(args.out, Path(folder))
        if args.only in (None, "pages"):
            pictures_of_pages(args.out)


if __name__ == "__main__":
    main()
