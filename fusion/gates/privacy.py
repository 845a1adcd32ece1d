"""What a store keeps about people, for how long, and how all of it is erased."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from fusion.gates.erasing import erase_from_lines, erase_from_tracks, erase_profiles
from fusion.gates.faces import FaceGallery
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.retention import (
    RECORDED_LINES,
    RESULT_TIMES,
    Kept,
    RetentionSettings,
    drop_evidence,
    drop_receipts,
    drop_recordings,
    drop_results,
)
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.store.models import Store

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Holding:
    """One kind of data about people: the registry from which the list, erasure and age limits are made.

    Attributes:
        data, where, purpose: in words.
        kept: how long, in words.
        erase: takes a person out of the files below a store's folder, given all names that they went by, and returns
            how many lines or rows named them, by file; None where the part that keeps the data erases it.
        days: the age limit by `[retention]`; None where a person deletes the data, or another rule holds.
        drop: removes from a store's folder what is older than a time, and returns how much, by file.
    """

    data: str
    where: str
    purpose: str
    kept: str
    erase: Callable[[Path, Collection[str]], dict[str, int]] | None = None
    days: int | None = None
    drop: Callable[[Kept, int], dict[str, int]] | None = None


def holdings(store: Store, retention: RetentionSettings | None = None) -> tuple[Holding, ...]:
    """All data about people that a store keeps, with the age limits of an installation."""
    retention = retention or RetentionSettings()
    kinds = {kind for gate in store.gate for kind in gate.credentials}
    linked = f"{store.privacy.unlink_after_days} days after the visit began; erased at once on request"
    found = [
        Holding(
            "positions and skeletons of people, no pictures and no faces", "memory and snapshot",
            "to attribute goods to visits", "minutes in memory; the snapshot is replaced while the store runs",
        ),
        *_files(retention),
        Holding(
            "what every visit cost and how it was paid", "books (ledger)", "bookkeeping law",
            "as the law requires; names no customer, valid after unlinking",
        ),
        Holding(
            "the customer of each visit: pseudonym to account", "vault of the books", "receipts and complaints", linked
        ),
        Holding(
            "payment token and, where given, e-mail address", "vault of the books",
            "to charge, refund and send receipts; never a card number", linked,
        ),
        Holding(
            "purchase profile, off by default", "profiles.sqlite", "suggestions, if asked for", "until erased",
            erase_profiles,
        ),
    ]  # fmt: skip
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


def _files(retention: RetentionSettings) -> Iterator[Holding]:
    """What stands in files of the store's folder."""
    pseudonym = "under a random pseudonym"
    yield Holding(
        "goods taken, reasons for review, paths of wrists: evidence for the reviewer", "evidence.jsonl",
        "to decide doubtful visits",
        f"{_kept(retention.evidence_days, 'after the visit, and until it is decided')}; {pseudonym}",
        _erased_lines("evidence.jsonl"), retention.evidence_days, drop_evidence,
    )  # fmt: skip
    yield Holding(
        "bills, explained changes of weight, tracks of people", "results of a run: receipts.jsonl, events.jsonl, "
        "early.jsonl, tracks.parquet", "to judge how well the store works",
        f"{_kept(retention.results_days)}; {pseudonym}",
        _erased_results, retention.results_days, drop_results,
    )  # fmt: skip
    yield Holding(
        "observations of sensors and scans at gates, where a run records them", "recordings below the store's folder",
        "to find faults and to calibrate", _kept(retention.recordings_days),
        _erased_lines(*RECORDED_LINES), retention.recordings_days, drop_recordings,
    )  # fmt: skip
    yield Holding(
        "scans at gates since the last snapshot", "scans.jsonl", "to go on after a crash",
        "until the next snapshot", _erased_lines("scans.jsonl", "scans.new"),
    )  # fmt: skip
    yield Holding(
        "receipts as customers get them", "receipts folder", "to hand them out; the books keep what the law asks for",
        f"{_kept(retention.receipts_days)}; names no customer", None, retention.receipts_days, drop_receipts,
    )  # fmt: skip
    yield Holding(
        "what other programs write into the store's folder", "other files of lines (.jsonl)", "[which]",
        "as long as the store keeps them", _erased_lines("*.jsonl"),
    )  # fmt: skip


def _kept(days: int | None, since: str = "") -> str:
    if days is None:
        return "no age limit: until a person deletes it"
    return f"{days} {'day' if days == 1 else 'days'} {since}".strip()


def _erased_lines(*patterns: str) -> Callable[[Path, Collection[str]], dict[str, int]]:
    return lambda folder, names: erase_from_lines(folder, names, patterns)


def _erased_results(folder: Path, names: Collection[str]) -> dict[str, int]:
    return erase_from_lines(folder, names, tuple(RESULT_TIMES)) | erase_from_tracks(folder, names)


def erase_from_files(store: Store, folder: Path, names: Collection[str]) -> dict[str, int]:
    """Take a person out of everything below a store's folder; no process may use it.

    Args:
        store: the store.
        folder: of its process.
        names: the account, and the pseudonyms that it went by.

    Returns:
        By file, how many lines or rows named the person.

    Raises:
        OSError, FusionError: a file cannot be read or replaced; those before it are done.
    """
    found: dict[str, int] = {}
    for holding in holdings(store):
        if holding.erase is not None:
            found |= holding.erase(folder, names)
    return found


def drop_old(store: Store, retention: RetentionSettings, kept: Kept, now_ns: int) -> dict[str, int]:
    """Remove from a store's folder what is past its age limit.

    Args:
        store: the store.
        retention: the age limits.
        kept: the folder.
        now_ns: the present.

    Returns:
        By file or folder, how many lines, rows, receipts or segments were removed, or would be.

    Raises:
        OSError, FusionError: a file or the books cannot be used; what was removed before that is gone, and the rest is
            as it was.
    """
    found: dict[str, int] = {}
    for holding in holdings(store, retention):
        if holding.drop is not None and holding.days is not None:
            found |= holding.drop(kept, now_ns - holding.days * DAY_NS)
    return found


def holdings_text(store: Store, retention: RetentionSettings | None = None) -> str:
    """The record as people read it."""
    rows = [f"{store.name}: data kept about people. Used for advertising: nothing."]
    for holding in holdings(store, retention):
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
