"""Everything that is wrong, or looks wrong, with a store folder or a recording, at once.

Reading a store folder reports every fault of its files. The modules beside this one find the faults that well-formed
files can still have: `plan_checks` (floor, gates, zones), `camera_checks` (poses, lenses, aims), `sight_checks` (plates
and gates that too few cameras see), `goods_checks` (loads and weights that a scale cannot use), `recording_checks`
(sensors that are silent, late, or at another rate) and `clock_checks` (sensors on another clock).
"""

from __future__ import annotations

from pathlib import Path

from fusion.errors import ConfigError, FusionError
from fusion.files.recordings import Recording
from fusion.setup.camera_checks import camera_findings
from fusion.setup.coverage import Coverage
from fusion.setup.findings import SEVERITIES, Finding
from fusion.setup.goods_checks import goods_findings
from fusion.setup.plan_checks import plan_findings
from fusion.setup.recording_checks import recording_findings
from fusion.setup.sight_checks import sight_findings
from fusion.store.models import Store
from fusion.till.honoured import unmet
from fusion.till.settings import TillFile


def check(path: str | Path, till: TillFile | None = None, source: str | None = None) -> list[Finding]:
    """Find everything that is wrong with a store folder or a recording.

    Args:
        path: a folder with store.toml, or one with a store/ inside.
        till: examine as well whether it can honour the store's policy.
        source: where a store with this till gets its data, such as mqtt://HOST.

    Returns:
        Errors first, then warnings, then notes. The list is never empty for a store that can be read, since the
        coverage of its floor is a note.

    Raises:
        FusionError: the path is neither.
    """
    folder = Path(path)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise FusionError(f"{folder} {kind}; pass a store folder or a recording")
    findings: list[Finding] = []
    store: Store | None = None
    if (folder / "store.toml").exists():
        try:
            store = Store.load(folder)
        except ConfigError as error:
            findings += _fault_findings(error)
    elif (folder / "store").is_dir():
        try:
            recording = Recording(folder)
            store = recording.store
            findings += recording_findings(recording)
        except ConfigError as error:
            findings += _fault_findings(error)
            message = "the rows of the recording were not examined; first mend the faults that keep it from opening"
            findings.append(Finding("note", "not-looked-at", folder.name, message))
            store = store_of(folder)
    else:
        raise FusionError(
            f"{folder} has neither store.toml nor store/; pass a store folder or a recording, or run `fusion init`"
        )
    if store is not None:
        findings += check_store(store)
        if till is not None:
            findings += map(_unmet_finding, unmet(store, till, source))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def check_store(store: Store, coverage: Coverage | None = None) -> list[Finding]:
    """Find what is wrong with a store whose files are well-formed.

    Args:
        store: the store.
        coverage: of the store, where the caller has it already.
    """
    return [
        *plan_findings(store),
        *camera_findings(store),
        *sight_findings(store, coverage or Coverage.of(store)),
        *goods_findings(store),
    ]


def store_of(path: str | Path) -> Store | None:
    """The store of a store folder or of a recording; None where it cannot be read."""
    folder = Path(path)
    try:
        return Store.load(folder if (folder / "store.toml").exists() else folder / "store")
    except ConfigError:
        return None


def _unmet_finding(line: str) -> Finding:
    subject, _, message = line.partition(": ")
    return Finding("error", "not-honoured", subject, message)


def _fault_findings(error: ConfigError) -> list[Finding]:
    findings = []
    for fault in error.faults:
        subject, _, message = fault.partition(": ")
        findings.append(Finding("error", "fault", subject, message))
    return findings
