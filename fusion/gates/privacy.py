"""What a store keeps about people, for how long, and how all of it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.gates.credentials import Pseudonyms
from fusion.gates.faces import FaceGallery
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.store.models import Store

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Holding:
    """One kind of thing that is kept."""

    what: str
    where: str
    why: str
    how_long: str


def holdings(store: Store) -> tuple[Holding, ...]:
    """Everything that a store running this keeps about people."""
    kinds = {kind for gate in store.gate for kind in gate.credentials}
    days = store.privacy.unlink_after_days
    linked = f"{days} days after the visit began; at once on request"
    found = [
        Holding(
            "positions and skeletons of people, no pictures and no faces",
            "memory; tracks.parquet where a run writes results",
            "to tell who took what",
            "minutes in memory; results as long as the store keeps them; under a random number and pseudonym",
        ),
        Holding(
            "what was taken, reasons for review, evidence for the reviewer",
            "results folder",
            "to decide doubtful visits",
            "as long as the store keeps them; under a random pseudonym",
        ),
        Holding(
            "what every visit cost and how it was paid",
            "books (ledger), receipts folder",
            "the law on bookkeeping",
            "as the law says; names nobody, valid after unlinking",
        ),
        Holding("whose visit it was: pseudonym to account", "vault of the books", "receipts and complaints", linked),
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
            Holding("random numbers of used codes", "used.sqlite", "a code lets in once", "a day after the code's end")
        )
    if "face" in kinds:
        found.append(
            Holding(
                "face templates and names of those who opted in, encrypted",
                "faces",
                "to come in and pay by face",
                "until they say otherwise; of others nothing is computed or kept",
            )
        )
    return tuple(found)


def holdings_text(store: Store) -> str:
    """The record as people read it."""
    rows = [f"{store.name}: what is kept about people. Used for advertising: nothing."]
    for one in holdings(store):
        rows += [f"- {one.what}", f"    where: {one.where}", f"    why: {one.why}", f"    how long: {one.how_long}"]
    return "\n".join(rows)


class Forgetting:
    """Forgets people everywhere at once."""

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
        """Unlink the visits that are older than the store's policy; to be run every day. Returns how many.

        Raises:
            LedgerError: a reader keeps the log alive; call again.
        """
        return self._ledger.unlink_before(now_ns - self._store.privacy.unlink_after_days * DAY_NS)

    def erase(self, account: str) -> dict[str, int]:
        """Forget one account at once, as its owner may ask. Returns what was forgotten, and how many of each."""
        if self._pseudonyms is not None:
            self._pseudonyms.forget(account)
        return {
            "visits": self._ledger.unlink_account(account),
            "faces": int(self._faces is not None and self._faces.delete(account)),
            "profiles": int(self._profiles is not None and self._profiles.erase(account)),
        }
