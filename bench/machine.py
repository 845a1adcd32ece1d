"""The machine that figures were measured on: its processor, and the instruction set that the kernels use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from fusion._kernels import triangulation

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Such as `Intel(R) Xeon(R) Processor (family 6, model 207), 2 cores; kernels for avx2`.

    Virtual machines often hide the processor's name; family and model say which one it is.
    """
    name = platform.processor() or platform.machine()
    if CPUINFO.exists():
        first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        row = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
        name = row.get("model name", name)
        if "cpu family" in row and "model" in row:
            name += f" (family {row['cpu family']}, model {row['model']})"
    return f"{name}, {os.cpu_count()} cores; kernels for {triangulation.instruction_set}"
