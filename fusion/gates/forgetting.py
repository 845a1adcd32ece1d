"""Forgets people: those whose visits are past a store's policy, and at once those who ask for it.

What is owed stays in the books, which name no one, and the link to a visit that is open, in review or not paid stays in
the vault until that is over; everything else goes at once. The same steps are taken by a running store, by a command
for one that is stopped, and for a backup that is put back, and may be repeated at any point.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fusion.files.growing import GrowingLines
from fusion.gates.erasing import Files, end_visits, torn_tracks
from fusion.gates.erasures import Erasure, Erasures, Names
from fusion.gates.faces import FaceGallery
from fusion.gates.privacy import DAY_NS, holdings
from fusion.gates.retention import RetentionSettings
from fusion.money.ledger import Ledger
from fusion.money.unfinished import unfinished
from fusion.store.models import Store

# Files that a report lists one by one.
_LISTED_MAX = 5


def unlink_due(store: Store, ledger: Ledger, now_ns: int) -> int:
    """Unlink the visits that are older than the store's policy; to be run every day. Returns their number.

    Raises:
        LedgerError: another process reads an old state and keeps the log in use; call again.
    """
    return ledger.unlink_before(now_ns - store.privacy.unlink_after_days * DAY_NS)


@dataclass(frozen=True)
class Place:
    """What a person is erased from.

    Attributes:
        store: the store.
        folder: of its process.
        ledgers: the books in which money is booked, then others whose vaults may know the person. Raises LedgerError
            while they are away.
        retention: age limits, for the report.
        evidence, in_use: see `Files`.
        faces: the gallery of customers who opted in.
        listed: where the retailer's own list of customers names the person, such as "customers.csv:17".
        forgotten: called with the names that were erased, for what is in memory.
    """

    store: Store
    folder: Path
    ledgers: Callable[[], Sequence[Ledger]]
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    evidence: GrowingLines | None = None
    in_use: bool = False
    faces: FaceGallery | None = None
    listed: Callable[[Container[str]], Sequence[str]] = lambda names: ()
    forgotten: Callable[[Names], object] = lambda names: None


@dataclass(frozen=True)
class _Known:
    """What the vaults know about a person.

    Attributes:
        visits: the names that their visits go by.
        pseudonyms: since when they had each.
        digests: keyed hashes of all names.
    """

    visits: Mapping[str, str]
    pseudonyms: Mapping[str, int]
    digests: tuple[str, ...]


class Eraser:
    """Takes the erasures of a list as far as they come."""

    def __init__(self, erasures: Erasures, place: Callable[[], Place]) -> None:
        """Follow a list. place: what people are erased from, now."""
        self._erasures, self._now = erasures, place
        # By erasure: what it waited for when it was tried last.
        self._tried: dict[str, tuple[str, ...]] = {}

    def work(self, now_ns: int, *, asked_only: bool = False) -> list[Erasure]:
        """Erase what is asked for, and what no longer has to wait. Returns the erasures that came further.

        Args:
            now_ns: the present.
            asked_only: leave alone what was tried before.

        Raises:
            FusionError, OSError: a part cannot be used; what was erased before that is gone. Call again.
        """
        undone = self._erasures.undone()
        due = [one for one in undone if not (asked_only and one.id in self._tried and one.state != "asked")]
        stepped = [self._step(one, now_ns) for one in due]
        return [one for one, before in zip(stepped, due) if one is not before]

    def _step(self, erasure: Erasure, now_ns: int) -> Erasure:
        if not erasure.report:
            # Until it is taken up, the person may have come in once more.
            erasure = replace(erasure, asked_ns=max(erasure.asked_ns, now_ns))
        place = self._now()
        ledgers = place.ledgers()
        known = self._known(erasure, ledgers)
        kept = unfinished(ledgers[0], known.visits, known.pseudonyms, now_ns)
        waits_for = tuple(sorted(set(kept.values())))
        tried = self._tried.get(erasure.id)
        if erasure.state != "asked" and tried is not None and waits_for == tried:
            return erasure
        # Once the vault has forgotten the pseudonyms, nothing else says which lines are this person's.
        erasure = replace(erasure, names=known.digests)
        self._erasures.keep(erasure)
        still = set(map(self._erasures.digest, kept))
        names = self._erasures.names(digest for digest in known.digests if digest not in still)
        files = Files(place.folder, place.evidence, place.in_use)
        # Links in mails and codes at doors begin sessions of visits; whose these are only the vault knows.
        end_visits(files, {visit for visit, name in known.visits.items() if name in names})
        for ledger in ledgers:
            ledger.unlink_names(names)
        n_visits = sum(name in names for name in known.visits.values())
        report = tuple(self._report(place, known, names, n_visits, waits_for, files, now_ns))
        place.forgotten(names)
        self._tried[erasure.id] = waits_for
        waits_for += tuple(f"{name} is being written by this run" for name in sorted(files.left))
        done = replace(
            erasure, state="waiting" if waits_for else "done", waits_for=waits_for, report=report,
            changed_ns=max(now_ns, erasure.asked_ns),
        )  # fmt: skip
        self._erasures.keep(done)
        return done

    def _known(self, erasure: Erasure, ledgers: Sequence[Ledger]) -> _Known:
        names = self._erasures.names(erasure.names)
        vaults = [ledger.named() for ledger in ledgers]
        pseudonyms = {
            holder.subject: holder.t_ns
            for _, holders in vaults
            for holder in holders
            if holder.t_ns <= erasure.asked_ns and (holder.name in names or holder.subject in names)
        }
        digests = dict.fromkeys([*erasure.names, *map(self._erasures.digest, pseudonyms)])
        visits = {
            link.subject: link.name
            for links, _ in vaults
            for link in links
            if link.name in pseudonyms or (link.t_ns <= erasure.asked_ns and link.name in names)
        }
        return _Known(visits, pseudonyms, tuple(digests))

    def _report(
        self, place: Place, known: _Known, names: Names, n_visits: int, waits_for: Sequence[str], files: Files,
        now_ns: int,
    ) -> Sequence[str]:  # fmt: skip
        """Erase from what is left, holding by holding; a line each about what became of it."""
        everything = self._erasures.names(known.digests)
        n_faces = 0 if place.faces is None else place.faces.erase(everything)
        rows = []
        for holding in holdings(place.store, place.retention):
            if holding.erase is not None:
                became = _listed(holding.erase(files, names))
            elif holding.part == "vault":
                became = f"{n_visits} visits erased"
                if waits_for:
                    until = _date(now_ns + place.store.privacy.unlink_after_days * DAY_NS)
                    became += f"; kept until it is over, at the latest until {until}: {'; '.join(waits_for)}"
            elif holding.part == "faces":
                became = "no gallery was found" if place.faces is None else f"{n_faces} erased"
            elif holding.part == "customers":
                lines = place.listed(everything)
                became = f"yours to remove: {', '.join(lines)}" if lines else "nothing of the person"
            else:
                became = f"kept: {holding.remains}"
            rows.append(f"{holding.where}: {became}")
        rows += [f"{path}: a kill left it unreadable, and it may hold the person; delete it" for path in
                 torn_tracks(files.folder) if not files.is_open(path)]  # fmt: skip
        until = _date(now_ns + place.store.privacy.unlink_after_days * DAY_NS)
        rows.append(
            f"backups: not reached; delete those from before today by {until}. `fusion restore` clears what it puts "
            "back of the people on this store's list, erasures.sqlite: keep a copy of it beside the backups"
        )
        return rows


def _listed(found: Mapping[str, int]) -> str:
    if not found:
        return "nothing of the person"
    shown = ", ".join(f"{name} ({n})" for name, n in list(found.items())[:_LISTED_MAX])
    more = f" and {len(found) - _LISTED_MAX} files more" if len(found) > _LISTED_MAX else ""
    return f"erased from {sum(found.values())} lines: {shown}{more}"


def _date(t_ns: int) -> str:
    return f"{datetime.datetime.fromtimestamp(t_ns / 1e9, datetime.UTC):%Y-%m-%d}"


__all__ = ["Eraser", "Place", "unlink_due"]
