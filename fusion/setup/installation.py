"""The doctor's examination of the installation: Python, packages, kernels.

It must work where something is broken, so nothing but the standard library is imported before it is examined.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

from fusion.setup.examination import Line, write_fault

DISTRIBUTION = "storefusion"
PYTHON_MIN = (3, 11)
# The packages that the engine needs with their oldest usable versions, for where no installation lists them.
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


def python() -> Iterator[Line]:
    """The Python interpreter and the platform."""
    have = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, PYTHON_MIN))
    if sys.version_info < PYTHON_MIN:
        yield Line("fault", "python", have, f"install Python {wanted} or newer")
    else:
        yield Line("ok", "python", have)


def fusion_package() -> Iterator[Line]:
    """Whether fusion is installed, in this version."""
    import fusion

    folder = Path(fusion.__file__).resolve().parent
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        found = f"{fusion.__version__} in {folder}, not installed"
        yield Line("warning", "fusion", found, "pip install -e . in its folder, so that versions are checked")
        return
    if installed != fusion.__version__:
        found = f"{fusion.__version__} in {folder}, {installed} is installed"
        yield Line("warning", "fusion", found, "pip install -e . again")
    else:
        yield Line("ok", "fusion", f"{installed} in {folder}")


class _Requirements(NamedTuple):
    """Oldest usable version by package, of the core and of each extra."""

    core: dict[str, str]
    extras: dict[str, dict[str, str]]


def _requirements() -> _Requirements:
    """From the installation; without one, the core as it is listed here."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return _Requirements(dict(_CORE), {})
    core: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = {}
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        oldest = re.search(r">=\s*([0-9][0-9.]*)", requirement.split(";")[0])
        of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        # Requirements of other Pythons or systems may not apply here; they are few, and none is of the core.
        if name is None or name[0] == DISTRIBUTION or re.search(r"(python_version|sys_platform)", requirement):
            continue
        where = core if of_extra is None else extras.setdefault(of_extra[1], {})
        where[name[0]] = oldest[1] if oldest else "0"
    return _Requirements(core or dict(_CORE), extras)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def packages() -> Iterator[Line]:
    """The packages that the engine needs."""
    for package, oldest in _requirements().core.items():
        advice = f"pip install '{package}>={oldest}'"
        try:
            version = metadata.version(package)
            import_module(package)
        except metadata.PackageNotFoundError:
            yield Line("fault", package, f"want {oldest} or newer, got none", advice)
        except Exception as error:
            found = f"cannot be imported: {str(error).splitlines()[0]}"
            yield Line("fault", package, found, f"{advice} --force-reinstall")
        else:
            if _numbers(version) < _numbers(oldest):
                yield Line("fault", package, f"want {oldest} or newer, got {version}", advice)
            else:
                yield Line("ok", package, version)


def extras() -> Iterator[Line]:
    """Which optional groups of packages are complete."""
    required = _requirements().extras
    if not required:
        yield Line("warning", "extras", "not known: fusion is not installed", "pip install -e . in its folder")
        return
    complete, lacking = [], []
    for extra, wanted in sorted(required.items()):
        missing = []
        for package, oldest in wanted.items():
            try:
                if _numbers(metadata.version(package)) < _numbers(oldest):
                    missing.append(f"{package}>={oldest}")
            except metadata.PackageNotFoundError:
                missing.append(package)
        if missing:
            lacking.append(f"{extra} (without {', '.join(missing)})")
        else:
            complete.append(extra)
    found = f"installed: {', '.join(complete) or 'none'}"
    if lacking:
        found += f"; not installed: {', '.join(lacking)}; pip install '{DISTRIBUTION}[NAME]' where you want one"
    yield Line("ok", "extras", found)


def kernels() -> Iterator[Line]:
    """The compiled kernels and their instruction sets."""
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
            found = f"{chosen}, although FUSION_ISA asks for {asked}"
            yield Line("warning", subject, found, "unset FUSION_ISA, or name a set that this machine has")
        else:
            yield Line("ok", subject, f"instruction set {chosen}" + (" (FUSION_ISA asks for it)" if asked else ""))


def numba_cache() -> Iterator[Line]:
    """Whether kernels stay compiled from one start to the next."""
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
    trouble = write_fault(folder)
    if trouble:
        yield Line("warning", "numba cache", f"{folder}: {trouble}", advice)
    else:
        yield Line("ok", "numba cache", f"{folder} can be written")
