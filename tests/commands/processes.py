"""Commands started as people start them: a process each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FUSION = (sys.executable, "-m", "fusion")


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start `fusion ARGUMENTS`, with its outputs in pipes unless `options` say otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)  # Output into a pipe is buffered, as it is for most people.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment} | options
    # A background job of a shell inherits that SIGINT is ignored and would hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([*FUSION, *map(str, arguments)], **options)
    finally:
        signal.signal(signal.SIGINT, before)


def run(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `fusion ARGUMENTS`."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err
