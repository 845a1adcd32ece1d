"""Opens the till of a store as till.toml describes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion.files.secrets import derived, store_key
from fusion.gates.erasures import Erasures, Names
from fusion.gates.faces import FaceGallery
from fusion.gates.forgetting import Place
from fusion.gates.pseudonyms import Pseudonyms
from fusion.gates.settings import open_credentials, warning_of
from fusion.gates.verifiers import Verifier
from fusion.gates.watched import WatchedFile
from fusion.money.checkpoints import Checkpoints, signing_key
from fusion.money.databases import books_folder
from fusion.money.ledger import Ledger
from fusion.money.links import store_links
from fusion.money.providers.settings import open_provider
from fusion.money.retailers import Retailer
from fusion.store.models import Store
from fusion.till.customers import CustomerFile, NoCustomers
from fusion.till.erasing import Erasing
from fusion.till.forwarding import FRONT_FILE, Forwarding
from fusion.till.settings import POSTGRES, TillFile
from fusion.till.till import Around, Parts, Till


@contextlib.contextmanager
def opened(file: TillFile, store: Store, around: Around, retailer: Retailer | None = None) -> Iterator[Till]:
    """Open a store's books, provider, gates and mail, and run its errands, until the block ends.

    Args:
        file: the settings.
        store: the store.
        around: what the runner brings.
        retailer: whose store it is.

    Raises:
        FusionError: a part cannot be opened; the message names it.
    """
    with contextlib.ExitStack() as stack:
        front, forwarding = _books(file, store, around, stack)

        faces: FaceGallery | None = None
        watched: list[WatchedFile[Any]] = []

        def verifiers(pseudonyms: Pseudonyms) -> Mapping[str, Verifier]:
            gates = file.settings.gates
            face_key = derived(store_key(around.folder), "faces") if gates.faces is not None else None
            credentials = open_credentials(
                gates, store.id, pseudonyms, around.folder, base=file.base, face_key=face_key, warn=around.warn,
                now_ns=around.now_ns,
            )  # fmt: skip
            nonlocal faces
            faces = credentials.faces
            watched.extend(credentials.files)
            return stack.enter_context(credentials).verifiers

        parts = replace(parts_of(file, store, verifiers, retailer, around.folder), **_checkpoints(file, store, around))
        if isinstance(parts.customers, CustomerFile):
            parts.customers.file.report_to(warning_of(around.warn, around.now_ns))
            watched.append(parts.customers.file)
        till = Till(store, front, parts, around, forwarding=forwarding)
        till.watched = watched
        if not around.fresh:
            till.erasing = _erasing(till, parts, around, stack, faces)
        stack.enter_context(till.running())
        yield till


def _erasing(
    till: Till, parts: Parts, around: Around, stack: contextlib.ExitStack, faces: FaceGallery | None
) -> Erasing:
    """What forgets people in a running store."""
    erasures = Erasures(around.folder, store_key(around.folder))
    stack.callback(erasures.close)

    def forgotten(names: Names) -> None:
        till.pseudonyms.forget(names)
        erasing.forgotten(names)

    def place() -> Place:
        return Place(
            till.store, around.folder, lambda: till.ledgers, parts.retention, till.evidence, in_use=True, faces=faces,
            listed=parts.customers.listed, forgotten=forgotten,
        )  # fmt: skip

    erasing = Erasing(erasures, place, monotonic_s=around.monotonic_s, report=around.report)
    return erasing


def _books(
    file: TillFile, store: Store, around: Around, stack: contextlib.ExitStack
) -> tuple[Ledger, Forwarding | None]:
    """The books that the store writes, and how they reach those on a server, which need not be there now."""
    where, vault = file.books_at(store.id, around.folder)
    if not where.startswith(POSTGRES):
        return stack.enter_context(Ledger.open(where, store)), None
    front = stack.enter_context(Ledger.open(around.folder / FRONT_FILE, store))
    forwarding = Forwarding(front, lambda: Ledger.open(where, store, vault=vault), around.folder, around.report)
    stack.callback(forwarding.close)
    return front, forwarding


def _checkpoints(file: TillFile, store: Store, around: Around) -> dict[str, Any]:
    """The parts that write checkpoints, beside the books or their vault and into the folders for copies."""
    settings = file.settings.checkpoints
    if settings is None:
        return {}
    where, vault = file.books_at(store.id, around.folder)
    folder = books_folder(where, vault)
    key_file = None if settings.key_file is None else file.base / settings.key_file
    # Opened now, so that a key that cannot be used is no surprise later.
    key = signing_key(folder, key_file)
    folders = [folder, *(file.base / copies for copies in settings.copies_to)]
    return {
        "checkpoints": lambda books: Checkpoints(books, store, key, folders),
        "checkpoints_every_s": settings.every_s,
    }


def receipt_links(file: TillFile, store: Store, folder: Path) -> Callable[[str, float], str] | None:
    """Makes the link that a receipt's mail holds, given the visit and the time in seconds; None without `[shopper]`."""
    shopper = file.settings.shopper
    if shopper is None:
        return None
    where, vault = file.books_at(store.id, folder)
    links = store_links(derived(store_key(books_folder(where, vault)), "shopper"), store.id, shopper.url)
    return lambda visit, now_s: links.link("visit", visit, now_s)


def parts_of(
    file: TillFile,
    store: Store,
    verifiers: Callable[[Pseudonyms], Mapping[str, Verifier]],
    retailer: Retailer | None,
    folder: Path,
) -> Parts:
    """What a till is made of, as till.toml describes it; `folder`: of the store's process. Raises FusionError."""
    settings, seller = file.settings, retailer.brand if retailer is not None else None
    mail, link = settings.mail, receipt_links(file, store, folder)
    return Parts(
        provider=open_provider(settings.payment, file.base) if settings.payment is not None else None,
        customers=CustomerFile(file.base / settings.customers.file) if settings.customers else NoCustomers(),
        verifiers=verifiers,
        limits=settings.gates.limits,
        retention=settings.retention,
        mailer=None if mail is None else lambda books: mail.mailer(books, store, file.base, seller, link),
        retailer=retailer,
    )
