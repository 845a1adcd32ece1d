"""The credentials that a store on live streams accepts: open doors, a terminal's tokens, signed codes, staff."""

from __future__ import annotations

from pathlib import Path

from fusion.gates.cards import CardTerminal
from fusion.gates.codes import CodeVerifier, UsedCodes, public_key
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.verifiers import OpenDoor, StaffList, Verifier


def accepted_credentials(
    store_id: str, pseudonyms: Pseudonyms, folder: Path, code_key: Path | None, staff_list: str | None
) -> dict[str, Verifier]:
    """A verifier for each kind of credential.

    Args:
        store_id: the store for which codes are signed.
        pseudonyms: gives a visit its name; customers' credentials are verified behind it.
        folder: the codes that were used are kept in it.
        code_key: public key of the server that signs codes, PEM; None accepts no codes.
        staff_list: the tokens of staff, separated by white space; None accepts no staff.

    Raises:
        FusionError: the key cannot be used, or the extra `gate` is missing.
    """
    verifiers: dict[str, Verifier] = {"open": OpenDoor(), "card": pseudonyms.behind(CardTerminal())}
    if code_key is not None:
        codes = CodeVerifier(public_key(code_key), store_id, UsedCodes(folder / "used.sqlite"))
        verifiers["qr"] = pseudonyms.behind(codes)
    if staff_list is not None:
        verifiers["staff"] = StaffList(staff_list.split())
    return verifiers
