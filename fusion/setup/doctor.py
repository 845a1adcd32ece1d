"""Whether this machine and this installation are fit to run the engine, and what to do where they are not.

It has to speak when something is broken, so nothing but the standard library is imported before it is examined.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

Sign = Literal["ok", "warning", "fault"]

DISTRIBUTION = "storefusion"
PYTHON_MIN = (3, 11)
# What the engine cannot do without, where the installation does not say it itself, and the oldest that will do.
_CORE = {
    "numpy": "2.0",
    "numba": "0.61",
    "scipy": "1.13",
    "pydantic": "2.9",
    "pyarrow": "17",
    "tqdm": "4.66",
    "shtab": "1.7",
    "tzdata": "2024.1",
}
# Clocks of sensors are compared to within milliseconds.
RESOLUTION_MAX_S = 1e-4
# 2024-01-01 and 2100-01-01: a clock outside of these was never set.
_CLOCK_MIN_S, _CLOCK_MAX_S = 1_704_067_200, 4_102_444_800
SELF_TEST_MAX_S = 5.0
# Kernel against NumPy, metres and metres squared's root.
KERNEL_TOLERANCE_M = 1e-6


@dataclass(frozen=True, slots=True)
class Line:
    """What was found about one thing.

    Attributes:
        sign: `ok`; `warning`: it will run, but worse; `fault`: it will not run, or not rightly.
        subject: what was examined.
        found: what is there.
        advice: what to do about it; empty where nothing is.
    """

    sign: Sign
    subject: str
    found: str
    advice: str = ""


def examine() -> Iterator[Line]:
    """Look at everything, one thing after the other; nothing raises, what goes wrong is a fault."""
    for subject, look in _LOOKS:
        try:
            yield from look()
        except Exception as error:  # Whatever it is, it is what somebody has to know.
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Line("fault", subject, said, "report it with the whole output of this command")


def line_text(line: Line) -> str:
    """A line for a terminal; the sign is a word, never a colour alone."""
    text = f"{line.sign:7}  {line.subject}: {line.found}"
    return f"{text}\n         -> {line.advice}" if line.advice else text


def lines_json(lines: list[Line]) -> str:
    """An array of objects with a line's attributes."""
    return json.dumps([dataclasses.asdict(line) for line in lines], indent=1)


# ---- the installation ------------------------------------------------------------------------------------------------


def _python() -> Iterator[Line]:
    have = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, PYTHON_MIN))
    if sys.version_info < PYTHON_MIN:
        yield Line("fault", "python", have, f"install Python {wanted} or newer")
    else:
        yield Line("ok", "python", have)


def _fusion() -> Iterator[Line]:
    import fusion

    folder = Path(fusion.__file__).resolve().parent
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        said = f"{fusion.__version__} in {folder}, not installed"
        yield Line("warning", "fusion", said, "pip install -e . in its folder, so that versions are checked")
        return
    if installed != fusion.__version__:
        said = f"{fusion.__version__} in {folder}, {installed} is installed"
        yield Line("warning", "fusion", said, "pip install -e . again")
    else:
        yield Line("ok", "fusion", f"{installed} in {folder}")


def _requirements() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Oldest version by package: of the core, and by extra; from the installation where there is one."""
    try:
        said = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return dict(_CORE), {}
    core: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = {}
    for one in said:
        name = re.match(r"[A-Za-z0-9._-]+", one)
        oldest = re.search(r">=\s*([0-9][0-9.]*)", one.split(";")[0])
        of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", one)
        # A marker of another Python or another system does not bind here; those are few and none is of the core.
        if name is None or name[0] == DISTRIBUTION or re.search(r"(python_version|sys_platform)", one):
            continue
        where = core if of_extra is None else extras.setdefault(of_extra[1], {})
        where[name[0]] = oldest[1] if oldest else "0"
    return core or dict(_CORE), extras


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _packages() -> Iterator[Line]:
    core, _ = _requirements()
    for package, oldest in core.items():
        advice = f"pip install '{package}>={oldest}'"
        try:
            version = metadata.version(package)
            import_module(package)
        except metadata.PackageNotFoundError:
            yield Line("fault", package, f"want {oldest} or newer, got none", advice)
        except Exception as error:
            said = f"cannot be imported: {str(error).splitlines()[0]}"
            yield Line("fault", package, said, f"{advice} --force-reinstall")
        else:
            if _numbers(version) < _numbers(oldest):
                yield Line("fault", package, f"want {oldest} or newer, got {version}", advice)
            else:
                yield Line("ok", package, version)


def _extras() -> Iterator[Line]:
    _, extras = _requirements()
    if not extras:
        yield Line("warning", "extras", "not known: fusion is not installed", "pip install -e . in its folder")
        return
    said = []
    for extra, packages in sorted(extras.items()):
        missing = []
        for package, oldest in packages.items():
            try:
                if _numbers(metadata.version(package)) < _numbers(oldest):
                    missing.append(f"{package}>={oldest}")
            except metadata.PackageNotFoundError:
                missing.append(package)
        said.append(extra if not missing else f"{extra} (without {', '.join(missing)})")
    complete = [one for one in said if "(" not in one]
    lacking = [one for one in said if "(" in one]
    found = f"installed: {', '.join(complete) or 'none'}"
    if lacking:
        found += f"; not installed: {', '.join(lacking)}; pip install '{DISTRIBUTION}[NAME]' where one is wanted"
    yield Line("ok", "extras", found)


def _compiled() -> Iterator[Line]:
    advice = "build them: pip install -e . with a C++ compiler and Python's headers (python3-dev g++)"
    for module in ("triangulation", "attribution"):
        subject = f"kernel {module}"
        try:
            kernel: Any = import_module(f"fusion._kernels.{module}")
        except Exception as error:
            yield Line("fault", subject, f"cannot be imported: {str(error).splitlines()[0]}", advice)
            continue
        asked = os.environ.get("FUSION_ISA", "")
        chosen = getattr(kernel, "instruction_set", None)
        if chosen is None:
            yield Line("ok", subject, "compiled")
        elif asked and asked != chosen:
            said = f"{chosen}, where FUSION_ISA asks for {asked}"
            yield Line("warning", subject, said, "unset FUSION_ISA, or name a set that this machine has")
        else:
            yield Line("ok", subject, f"instruction set {chosen}" + (" (FUSION_ISA asks for it)" if asked else ""))


def _numba() -> Iterator[Line]:
    advice = "set NUMBA_CACHE_DIR to a folder that can be written, else kernels are compiled at every start"
    try:
        kernels: Any = import_module("fusion._kernels.health")
        folder = Path(kernels.observe.stats.cache_path)
    except RuntimeError as error:
        yield Line("fault", "numba cache", str(error).splitlines()[0], advice)
        return
    except AttributeError:
        yield Line("warning", "numba cache", "kernels are not compiled (NUMBA_DISABLE_JIT)", "unset NUMBA_DISABLE_JIT")
        return
    trouble = _cannot_write(folder)
    if trouble:
        yield Line("warning", "numba cache", f"{folder}: {trouble}", advice)
    else:
        yield Line("ok", "numba cache", f"{folder} can be written")


# ---- the machine -----------------------------------------------------------------------------------------------------


def _cannot_write(folder: Path) -> str | None:
    """Why a file cannot be made in a folder, or in the nearest folder above that exists; None where it can."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _folders() -> Iterator[Line]:
    places = [("working folder", Path.cwd())]
    try:
        places.append(("temporary folder", Path(tempfile.gettempdir())))
    except FileNotFoundError:
        yield Line("fault", "temporary folder", "none can be written", "set TMPDIR to a folder that can be written")
    for subject, folder in places:
        trouble = _cannot_write(folder)
        if trouble:
            yield Line("warning", subject, f"{folder}: {trouble}", "give results another folder (--out)")
        else:
            yield Line("ok", subject, f"{folder} can be written")


def _timezones() -> Iterator[Line]:
    import datetime
    from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError

    try:
        berlin = ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        yield Line("fault", "time zones", "no data", "pip install tzdata")
        return
    hours = [
        round(datetime.datetime(2026, month, 1, tzinfo=berlin).utcoffset().total_seconds() / 3600)  # type: ignore[union-attr]
        for month in (1, 7)
    ]
    if hours != [1, 2]:
        yield Line("fault", "time zones", f"Europe/Berlin: want UTC+1 and +2, got {hours}", "pip install -U tzdata")
        return
    system = next((path for path in TZPATH if (Path(path) / "Europe" / "Berlin").exists()), None)
    yield Line("ok", "time zones", f"from {system or 'the package tzdata'}")


def _clock() -> Iterator[Line]:
    now_s = time.time()
    if not _CLOCK_MIN_S < now_s < _CLOCK_MAX_S:
        said = f"says {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now_s))} UTC"
        yield Line("fault", "clock", said, "set it, and keep it with NTP: sensors' times are compared")
    else:
        yield Line("ok", "clock", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now_s))} UTC")
    info = time.get_clock_info("perf_counter")
    before = time.perf_counter_ns()
    ticks: set[int] = set()
    while len(ticks) < 50:
        after = time.perf_counter_ns()
        if after < before:
            yield Line("fault", "stopwatch", "runs backwards", "a virtual machine's fault: change its clock source")
            return
        ticks.add(after)
        before = after
    ordered = sorted(ticks)
    step_s = min(b - a for a, b in zip(ordered, ordered[1:])) * 1e-9
    if not info.monotonic or step_s > RESOLUTION_MAX_S:
        said = f"steps of {step_s * 1e6:.0f} us"
        yield Line("warning", "stopwatch", said, "change the machine's clock source; measured times will be coarse")
    else:
        yield Line("ok", "stopwatch", f"monotonic, told to {step_s * 1e9:.0f} ns")


def _cores() -> Iterator[Line]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = f"{usable} of {os.cpu_count() or usable} cores; an engine uses one"
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = 0.0
    if load > usable:
        yield Line("warning", "cores", f"{said}; {load:.1f} processes want to run", "stop what is not needed")
    else:
        yield Line("ok", "cores", said)


# ---- does it work ----------------------------------------------------------------------------------------------------


def _kernels_agree() -> Iterator[Line]:
    """Points that five cameras see, located by the compiled kernels and by NumPy's singular values."""
    import numpy as np

    from fusion.people.geometry import Rig, triangulate
    from fusion.simulation import demo_store

    rig = Rig.from_cameras(demo_store(n_cameras=5).cameras)
    random = np.random.default_rng(1)
    points_m = random.uniform([2.0, 2.0, 0.3], [6.0, 4.0, 1.9], (200, 3))
    pixels = rig.project(points_m)
    undistorted = rig.undistort(pixels)
    found = triangulate(rig, undistorted)
    camera = rig.image_from_camera @ rig.camera_from_world
    rows = undistorted[..., None] * camera[:, None, None, 2] - camera[:, None, :2]
    homogeneous = np.linalg.svd(rows.transpose(1, 0, 2, 3).reshape(len(points_m), -1, 4))[2][:, -1]
    expected = homogeneous[:, :3] / homogeneous[:, 3:]
    off_m = max(float(np.abs(found.points_m - other).max()) for other in (expected, points_m))
    if off_m < KERNEL_TOLERANCE_M:
        yield Line("ok", "kernels against NumPy", f"200 points agree to {off_m * 1e9:.2g} nm")
    else:
        advice = "build them again: pip install -e . --force-reinstall; FUSION_ISA=baseline until then"
        yield Line("fault", "kernels against NumPy", f"off by {off_m:.3g} m", advice)


def _run() -> Iterator[Line]:
    """A minute and a half of a simulated shop through the engine; the receipts have to be what was taken."""
    from fusion.engine import Engine
    from fusion.results import Receipt
    from fusion.simulation import Scenario, Simulation, demo_store

    started_s = time.perf_counter()
    store = demo_store(n_cameras=5, n_plates=16, n_products=12)
    engine = Engine(store)
    ready_s = time.perf_counter() - started_s
    simulation = Simulation(store, Scenario(seed=3, minutes=1.5, shoppers=3, frame_rate_hz=10.0))
    receipts = []
    for observation in simulation.observations():
        receipts += [result for result in engine.feed(observation) if isinstance(result, Receipt)]
    receipts += [result for result in engine.close() if isinstance(result, Receipt)]
    took_s = time.perf_counter() - started_s
    got = {one.account: {line.gtin: line.quantity for line in one.lines} for one in receipts}
    want = {visit.account: visit.items for visit in simulation.truth.visits}
    settled = sum(one.status == "settled" for one in receipts)
    pieces = sum(sum(items.values()) for items in want.values())
    if got != want or not pieces:
        n_right = sum(got.get(account) == items for account, items in want.items())
        said = f"{n_right} of {len(want)} receipts of a simulated run are right"
        yield Line("fault", "self-test", said, "the lines above say why, or it is a fault of the engine: report it")
        return
    said = f"{len(want)} simulated visits, {pieces} pieces: every receipt right, {settled} settled; {took_s:.1f} s"
    if took_s > SELF_TEST_MAX_S:
        advice = f"the first start compiles kernels ({ready_s:.1f} s here): run it again; else the machine is slow"
        yield Line("warning", "self-test", said, advice)
    else:
        yield Line("ok", "self-test", said)


_LOOKS: tuple[tuple[str, Callable[[], Iterator[Line]]], ...] = (
    ("python", _python),
    ("fusion", _fusion),
    ("packages", _packages),
    ("extras", _extras),
    ("kernels", _compiled),
    ("numba cache", _numba),
    ("folders", _folders),
    ("time zones", _timezones),
    ("clock", _clock),
    ("cores", _cores),
    ("kernels against NumPy", _kernels_agree),
    ("self-test", _run),
)
