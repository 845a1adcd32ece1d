"""One task in a worker process: what is sent to it, what it does, what it answers. The same wherever it runs."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fusion
from fusion.errors import FusionError


@dataclass(frozen=True)
class Answer:
    """What a worker sends back at the end of a task: a value, or the fault that stands in its place."""

    value: Any
    fault: str | None
    worker: str


@functools.cache
def installation() -> dict[str, str]:
    """Everything that determines the bytes of results, by name.

    The files of this package, compiled ones too, and the versions of the packages that it computes and writes with.
    """
    digest = hashlib.sha256()
    folder = Path(fusion.__file__).parent
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".so")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "numba", "pyarrow")}
    return {"fusion": f"{fusion.__version__} with files {digest.hexdigest()[:12]}", **versions}


def attempt(packed: bytes, wanted: Mapping[str, str], paths: Sequence[str] = ()) -> Answer:
    """Do a task. An exception of its function is a fault of this item and of no other.

    Args:
        packed: function and item, pickled. They are unpacked here, so that an item that cannot be unpacked is a fault
            too, instead of the end of the worker.
        wanted: `installation()` of the process that gives the task; another one may give other bytes.
        paths: where modules are found, besides `sys.path`.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}"
    found = installation()
    if wanted != found:
        differences = "; ".join(
            f"want {name} {version}, got {found.get(name)}"
            for name, version in wanted.items()
            if version != found.get(name)
        )
        return Answer(None, f"{worker}: the worker has another installation: {differences}", worker)
    sys.path += [path for path in paths if path not in sys.path]
    try:
        function, item = pickle.loads(packed)
        return Answer(function(item), None, worker)
    except FusionError as error:
        return Answer(None, str(error), worker)
    except Exception as error:  # a task that fails must not end the others
        return Answer(None, f"{type(error).__name__}: {error}", worker)
