"""What a store keeps about people, for how long, and how it is erased: one registry for lists, limits and erasure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Literal

from fusion.gates.erasing import Files, erase_from_lines, erase_from_tracks, erase_profiles, erase_sessions
from fusion.gates.retention import (
    RECORDED_LINES,
    RESULT_TIMES,
    Kept,
    RetentionSettings,
    drop_evidence,
    drop_receipts,
    drop_recordings,
    drop_results,
    drop_visit_moments,
)
from fusion.store.models import Store

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Holding:
    """One kind of data about people: the registry from which the list, erasure and age limits are made.

    Attributes:
        data, where, purpose: in words.
        kept: how long, in words.
        erase: takes a person out of the files below a store's folder, given all names that they went by, and returns
            how many lines or rows named them, by file.
        part: "vault", "faces" or "customers", where something else erases it; see `fusion.gates.forgetting`.
        remains: why it is kept after an erasure, where nothing of it is erased.
        days: the age limit by `[retention]`; None where a person deletes the data, or another rule holds.
        drop: removes from a store's folder what is older than a time, and returns how much, by file.
    """

    data: str
    where: str
    purpose: str
    kept: str
    erase: Callable[[Files, Container[str]], dict[str, int]] | None = None
    part: Literal["", "vault", "faces", "customers"] = ""
    remains: str = ""
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
            remains="names are replaced, those of the last minute's visits a minute later; positions as they age",
        ),
        *_files(retention),
        Holding(
            "what every visit cost and how it was paid", "books (ledger)", "bookkeeping law",
            "as the law requires; names no customer, valid after unlinking",
            remains="as the law requires; it names no customer",
        ),
        Holding(
            "the customer of each visit: pseudonym to account", "vault of the books", "receipts and complaints", linked,
            part="vault",
        ),
        Holding(
            "payment token and, where given, e-mail address", "vault of the books, same rows",
            "to charge, refund and send receipts; never a card number", linked,
            remains="no more than the links above; receipts that wait for the mail server find no address any more",
        ),
        Holding(
            "the same, of the last day, where the books are on a server", "front.sqlite", "to post while it is away",
            "a day after the books on the server have it", remains="no more than the links above",
        ),
        Holding(
            "accounts, tokens, addresses, memberships: the retailer's own list", "list of customers of till.toml",
            "to know who pays and how", "as long as the retailer lists them", part="customers",
        ),
        Holding(
            "purchase profile, off by default", "profiles.sqlite", "suggestions, if asked for", "until erased",
            erase_profiles,
        ),
        Holding(
            "one number about how a customer answers questions about their bills", "profiles.sqlite",
            "to believe honest answers, and not those to the own advantage", "400 days after the last answer",
        ),
        *_databases(),
    ]  # fmt: skip
    if "qr" in kinds:
        found.append(
            Holding(
                "random numbers of used codes", "used.sqlite", "a code admits once", "a day after the code expires",
                remains="random numbers; they name no customer",
            )
        )
    if "face" in kinds:
        found.append(
            Holding(
                "face templates and names of customers who opted in, encrypted",
                "faces",
                "to come in and pay by face",
                "until they withdraw; nothing is computed or kept about others",
                part="faces",
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
        _erased_lines("evidence.jsonl"), days=retention.evidence_days, drop=drop_evidence,
    )  # fmt: skip
    yield Holding(
        "bills, explained changes of weight, tracks of people", "results of a run: receipts.jsonl, events.jsonl, "
        "early.jsonl, tracks.parquet", "to judge how well the store works",
        f"{_kept(retention.results_days)}; {pseudonym}",
        _erased_results, days=retention.results_days, drop=drop_results,
    )  # fmt: skip
    yield Holding(
        "observations of sensors and scans at gates, where a run records them", "recordings below the store's folder",
        "to find faults and to calibrate", _kept(retention.recordings_days),
        _erased_lines(*RECORDED_LINES), days=retention.recordings_days, drop=drop_recordings,
    )  # fmt: skip
    yield Holding(
        "scans at gates since the last snapshot", "scans.jsonl", "to go on after a crash",
        "until the next snapshot", _erased_lines("scans.jsonl", "scans.new"),
    )  # fmt: skip
    yield Holding(
        "receipts as customers get them", "receipts folder", "to hand them out; the books keep what the law asks for",
        f"{_kept(retention.receipts_days)}; names no customer", days=retention.receipts_days, drop=drop_receipts,
        remains=f"names no customer; {_kept(retention.receipts_days)}",
    )  # fmt: skip
    yield Holding(
        "when and where the goods of a visit were taken", "moments.sqlite", "to show it to the customer on the receipt",
        f"{_kept(retention.receipts_days)}; names visits and no customer", days=retention.receipts_days,
        drop=drop_visit_moments, remains=f"names no customer; {_kept(retention.receipts_days)}",
    )  # fmt: skip
    yield Holding(
        "what other programs write into the store's folder", "other files of lines (.jsonl)", "[which]",
        "as long as the store keeps them", _erased_lines("*.jsonl"),
    )  # fmt: skip


def _databases() -> Iterator[Holding]:
    """What stands in small databases and files of the store's folder."""
    yield Holding(
        "who is signed in on the shoppers' pages", "shopper.sqlite", "to show customers their visits",
        "90 days after it was used last, at most a year", erase_sessions,
    )  # fmt: skip
    yield Holding(
        "what decisions have taught about weights", "learnt.json", "to attribute goods", "until it is replaced",
        remains="it names no customer",
    )  # fmt: skip
    yield Holding(
        "goods that moved, faults of sensors", "outbox.sqlite", "for the chain", "as long as the store keeps it",
        remains="it names no customer",
    )  # fmt: skip
    yield Holding(
        "who asked to be forgotten, as keyed hashes", "erasures.sqlite", "so that a backup brings no one back",
        "as long as there may be backups", remains="hashes under the store's key",
    )  # fmt: skip


def _kept(days: int | None, since: str = "") -> str:
    if days is None:
        return "no age limit: until a person deletes it"
    return f"{days} {'day' if days == 1 else 'days'} {since}".strip()


def _erased_lines(*patterns: str) -> Callable[[Files, Container[str]], dict[str, int]]:
    return lambda files, names: erase_from_lines(files, names, patterns)


def _erased_results(files: Files, names: Container[str]) -> dict[str, int]:
    return erase_from_lines(files, names, tuple(RESULT_TIMES)) | erase_from_tracks(files, names)


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
