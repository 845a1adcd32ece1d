"""One reader under atheris; writes what it found to FOLDER/NAME.json. Imported before the readers, to instrument them.

Each distinct finding (kind of error and the line that raised it) is kept once and the search continues. What takes
longer than a second is kept as well; a hang of 20 seconds and 3 GB of memory end the process, which `fuzz.run` reports.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from pathlib import Path

import atheris

# Numba compiles the kernels from their own bytecode, in which counters have no place.
KERNELS = Path(__file__).resolve().parents[2] / "fusion" / "_kernels"
with atheris.instrument_imports(
    include=["fusion"], exclude=[f"fusion._kernels.{path.stem}" for path in KERNELS.glob("*.py")]
):
    from fuzz.readers import READERS

SLOW_S, REPORT_EVERY_S = 1.0, 0.25
HANG_S, MEMORY_MB, BYTES_MAX = 20, 3000, 8192


def search(name: str, folder: Path, seconds: int) -> None:
    """Search for bytes that the reader cannot take."""
    reader, counts, findings = READERS[name], Counter[str](), dict[str, str]()
    corpus, found = folder / "corpus" / name, folder / "found" / name
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{i}").write_bytes(seed)

    def keep(what: str, data: bytes) -> None:
        if what not in findings:
            findings[what] = (found / f"{len(findings)}.bin").name
            (found / findings[what]).write_bytes(data)
            report()

    reported_s = 0.0

    def report() -> None:
        nonlocal reported_s
        reported_s = time.perf_counter()
        (folder / f"{name}.json").write_text(json.dumps({"counts": counts, "findings": findings}))

    def one_input(data: bytes) -> None:
        began_s = time.perf_counter()
        try:
            counts["taken" if reader.try_on(data) else "refused"] += 1
        except Exception as error:
            counts["failed"] += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            keep(f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:120]}", data)
        if time.perf_counter() - began_s > SLOW_S:
            keep("slow", data)
        if time.perf_counter() - reported_s > REPORT_EVERY_S:  # the search ends its process without a word
            report()

    report()
    limits = (f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={BYTES_MAX}")
    # A loading just-in-time compiler is not the reader's time.
    for seed in reader.seeds():
        reader.try_on(seed)
    atheris.Setup([name, *limits, f"-artifact_prefix={found}/", "-verbosity=0", str(corpus)], one_input)
    atheris.Fuzz()

