"""All that can be checked about a store's books without writing to them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fusion.errors import LedgerError
from fusion.money.books import VAULT
from fusion.money.checkpoint import SignedHead
from fusion.money.checkpoints import checkpoint_name, read_checkpoint, verifying_key
from fusion.money.databases import books_folder
from fusion.money.ledger import Ledger
from fusion.money.resealing import reseals
from fusion.store.models import Store

# A store that starts while its books are read without a lock; the second time it runs, and has one.
_TRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        fault: the first one; None where all holds.
        n_entries: in the books.
        sums: of all accounts, by currency; each should be 0.
        notes: what could not be checked, and with what the books were compared.
    """

    fault: str | None
    n_entries: int
    sums: dict[str, int]
    notes: tuple[str, ...]


def verify_books(
    where: str | os.PathLike[str],
    store: Store,
    vault: str | os.PathLike[str] | None = None,
    *,
    checkpoint: Path | None = None,
    key: Path | None = None,
) -> Verification:
    """Check the chain, the tables, the vault's seals, and the newest signed checkpoint.

    Args:
        where: path or URL of the books, as for `Ledger.open`.
        store: whose books they are.
        vault: its file, for books in PostgreSQL.
        checkpoint: a checkpoint that was kept; by default the one beside the books, where there is one.
        key: PEM file of the key that checks its signature; by default the one derived from the store's key.

    Raises:
        LedgerError: the books cannot be read, or are an incomplete copy.
    """
    folder = books_folder(where, vault)
    for _ in range(_TRIES_MAX):
        with Ledger.open(where, store, vault, read_only=True) as ledger:
            kept, notes = _kept(folder, store, checkpoint, key)
            fault = ledger.verify(kept.head if kept else None) or _vault_fault(ledger, kept)
            if ledger.database.vault.key_id is None:
                notes.append("the vault's seals were not checked: the store's key is not beside it")
            notes += [
                f"entry {entry.seq}: the store's key was lost, and {entry.request['by']} answered for "
                f"{entry.request['rows']} rows of the vault that were sealed under a new one: what was changed in them "
                "before does not show"
                for entry in reseals(ledger)
            ]
            sums = {currency: sum(accounts.values()) for currency, accounts in ledger.balances().items()}
            found = Verification(fault, ledger.head().seq, sums, tuple(notes))
            if not ledger.database.moved:
                return found
    raise LedgerError(f"{where}: changed each time it was read; stop what writes to it, or verify a backup")


def _kept(
    folder: Path, store: Store, checkpoint: Path | None, key_file: Path | None
) -> tuple[SignedHead | None, list[str]]:
    """The checkpoint to compare with, and notes about it."""
    path = checkpoint or folder / checkpoint_name(store)
    if checkpoint is None and not path.exists():
        return None, ["no checkpoint lies beside the books, so that a missing end would not be noticed"]
    key = verifying_key(folder, key_file)
    if key is None:
        if checkpoint is not None:
            raise LedgerError(f"{path}: want the key that signed it; pass --key")
        return None, [f"{path} was not compared: the store's key is not beside it; pass --key"]
    kept = read_checkpoint(path, key, store)
    noted = f"{store.local_time(kept.t_ns):%Y-%m-%d %H:%M %Z}"
    return kept, [f"compared with the checkpoint of entry {kept.head.seq}, signed {noted}"]


def _vault_fault(ledger: Ledger, kept: SignedHead | None) -> str | None:
    """What a checkpoint shows about the vault: that it was sealed then, and with which key."""
    if kept is None or not kept.vault_key:
        return None
    key_id = ledger.database.vault.key_id
    resealed = any(entry.request["key"] == key_id and entry.seq > kept.head.seq for entry in reseals(ledger))
    if key_id is not None and key_id != kept.vault_key and not resealed:
        return f"vault: was sealed with the store's key {kept.vault_key}, now with {key_id}"
    sealed = ledger.recorded(VAULT, "sealed")
    if sealed is not None and sealed.seq > kept.head.seq:
        return f"entry {sealed.seq}: the vault was sealed a second time, after its seals had been removed"
    return None
