"""A real browser for tests: the system's headless Chromium, driven through its chromedriver.

Pages are looked at as on a desk and on a phone, light and dark, and checked by axe-core, which npm supplies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="no Chromium with chromedriver on this machine"
)
# Widths of a desk's screen and of a phone; every page is looked at in both, light and dark.
LOOKS = [(1440, False), (1440, True), (390, False), (390, True)]

# The one version of axe-core that pages are checked by, with npm's own digest of its archive.
AXE = "axe-core@4.10.3"
AXE_SHA512 = "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg=="
NPM_MAX_S = 60.0
# Findings of these weights fail a test; the rest are advice.
SERIOUS = ("serious", "critical")


@contextmanager
def browsing(width: int, height: int = 1200) -> Iterator[Any]:
    """A selenium driver whose page is `width` wide; below 500 it is a phone's."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={max(width, 500)},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if width < 500:
        metrics = {"width": width, "height": height, "pixelRatio": 2, "mobile": True, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """What the page wrote to its console as a warning or an error, such as a policy that was violated."""
    return [row["message"] for row in driver.get_log("browser") if row["level"] != "INFO"]


def requested(driver: Any) -> set[str]:
    """Every address that the page asked for since the last call."""
    found = set()
    for row in driver.get_log("performance"):
        message = json.loads(row["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(message["params"]["request"]["url"])
    return found


def set_look(driver: Any, width: int, dark: bool, height: int = 1200) -> None:
    """Show the page at a width, in light or dark colours; narrow ones as a phone does."""
    phone = width < 500
    size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        # A colour that is still changing has no contrast to measure.
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def findings(driver: Any) -> list[str]:
    """What axe-core finds on the page that keeps people from using it: rule, place and message of each serious finding.

    Skips the test where npm or its registry is absent.
    """
    driver.execute_script(_axe())
    driver.set_script_timeout(60)
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations']})"
        ".then(found => done(found.violations), error => done(String(error)))"
    )
    assert isinstance(found, list), found
    return [
        f"{rule['id']}: {node['html'][:160]}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@cache
def _axe() -> str:
    """The script of axe-core, from a folder of this user's cache or else from npm."""
    import pytest

    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusion-tests"
    archive = cached / f"{AXE.replace('@', '-')}.tgz"
    if not archive.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"no npm on this machine, from which {AXE} would come")
        with tempfile.TemporaryDirectory() as folder:
            try:
                command = [npm, "pack", AXE, "--silent"]
                subprocess.run(command, cwd=folder, check=True, timeout=NPM_MAX_S, capture_output=True)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"npm supplies no {AXE}: {error}")
            cached.mkdir(parents=True, exist_ok=True)
            # Whole under its name at once, since several tests' processes may do this side by side.
            partial = cached / f"{archive.name}.{os.getpid()}"
            shutil.copyfile(Path(folder) / archive.name, partial)
            partial.replace(archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode("ascii")
    assert digest == AXE_SHA512, f"{archive} is not the {AXE} that was checked; remove it"
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode("utf-8")
