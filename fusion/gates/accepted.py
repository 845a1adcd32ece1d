"""The credentials that a store on live streams accepts: open doors, a terminal's tokens, signed codes, staff."""

from __future__ import annotations

from pathlib import Path

from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.settings import GateSettings, open_credentials
from fusion.gates.verifiers import StaffList, Verifier


def accepted_credentials(
    store_id: str, pseudonyms: Pseudonyms, folder: Path, code_key: Path | None, staff_list: str | None
) -> dict[str, Verifier]:
    """A verifier for each kind of credential; see `open_credentials`, which reads files again when they change.

    Raises:
        FusionError: the key cannot be used, or the extra `gate` is missing.
    """
    settings = GateSettings(code_key=code_key)
    verifiers = open_credentials(settings, store_id, pseudonyms, folder, base=Path()).verifiers
    if staff_list is not None:
        verifiers["staff"] = StaffList(staff_list.split())
    return verifiers
