"""What a store keeps about people, for how long, and how all of it is erased."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.gates.faces import FaceGallery
from fusion.gates.pseudonyms import Pseudonyms
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.store.models import Store

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Holding:
    """One kind of data about people: the data, its place, its purpose, and how long it is kept."""

    data: str
    where: str
    purpose: str
    kept: str


def holdings(store: Store) -> tuple[Holding, ...]:
    """All data about people that a store keeps."""
    kinds = {kind for gate in store.gate for kind in gate.credentials}
    days = store.privacy.unlink_after_days
    linked = f"{days} days after the visit began; erased at once on request"
    found = [
        Holding(
            "positions and skeletons of people, no pictures and no faces",
            "memory; tracks.parquet where a run writes results",
            "to attribute goods to visits",
            "minutes in memory; results as long as the store keeps them; under a random number and pseudonym",
        ),
        Holding(
            "goods taken, reasons for review, evidence for the reviewer",
            "results folder",
            "to decide doubtful visits",
            "as long as the store keeps them; under a random pseudonym",
        ),
        Holding(
            "what every visit cost and how it was paid",
            "books (ledger), receipts folder",
            "bookkeeping law",
            "as the law requires; names no customer, valid after unlinking",
        ),
        Holding(
            "the customer of each visit: pseudonym to account", "vault of the books", "receipts and complaints", linked
        ),
        Holding(
            "payment token and, where given, e-mail address",
            "vault of the books",
            "to charge, refund and send receipts; never a card number",
            linked,
        ),
        Holding("purchase profile, off by default", "profiles.sqlite", "suggestions, if asked for", "until erased"),
    ]
    if "qr" in kinds:
        found.append(
            Holding("random numbers of used codes", "used.sqlite", "a code admits once", "a day after the code expires")
        )
    if "face" in kinds:
        found.append(
            Holding(
                "face templates and names of customers who opted in, encrypted",
                "faces",
                "to come in and pay by face",
                "until they withdraw; nothing is computed or kept about others",
            )
        )
    return tuple(found)


def holdings_text(store: Store) -> str:
    """The record as people read it."""
    rows = [f"{store.name}: data kept about people. Used for advertising: nothing."]
    for holding in holdings(store):
        rows += [
            f"- {holding.data}",
            f"    where: {holding.where}",
            f"    why: {holding.purpose}",
            f"    how long: {holding.kept}",
        ]
    return "\n".join(rows)


class Forgetting:
    """Erases people everywhere at once."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        pseudonyms: Pseudonyms | None = None,
        faces: FaceGallery | None = None,
        profiles: Profiles | None = None,
    ) -> None:
        self._store, self._ledger = store, ledger
        self._pseudonyms, self._faces, self._profiles = pseudonyms, faces, profiles

    def due(self, now_ns: int) -> int:
        """Unlink the visits that are older than the store's policy; to be run every day. Returns their number.

        Raises:
            LedgerError: another process reads an old state and keeps the log in use; call again.
        """
        return self._ledger.unlink_before(now_ns - self._store.privacy.unlink_after_days * DAY_NS)

    def erase(self, account: str) -> dict[str, int]:
        """Erase one account at once, on its owner's request. Returns how many records of each kind were erased."""
        if self._pseudonyms is not None:
            self._pseudonyms.forget(account)
        return {
            "visits": self._ledger.unlink_account(account),
            "faces": int(self._faces is not None and self._faces.delete(account)),
            "profiles": int(self._profiles is not None and self._profiles.erase(account)),
        }
