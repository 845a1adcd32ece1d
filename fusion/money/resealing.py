"""A store whose key is lost gets a new one: what the old one sealed is sealed again, on a person's word.

Seals under a lost key show nothing any more: whoever could write to the vault could have changed it unseen. The books
say, for good, when that was, who answered for it, and how many rows it concerned; `verify` repeats it.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.errors import LedgerError
from fusion.files.atomic import flush_folder, make_file
from fusion.files.secrets import KEY_FILE, derived, fingerprint, store_key
from fusion.money.books import VAULT
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.sqlite import open_sqlite
from fusion.money.vault import TABLES, seal_of

KIND = "vault resealed"
# Begun and not ended: the command continues where it was killed.
MARKER_FILE = "resealing"
# Only the old key opens these: a snapshot with its scans, and the gallery of faces. {store} is the store's id.
_LOST = ("snapshot", "scans.jsonl", "scans.new", "faces")
# Signed under the old key: kept, as evidence, under another name.
_ASIDE = ("{store}.checkpoint", "{store}.checkpoint.pub")


@dataclass(frozen=True)
class Resealed:
    """What became of a store's folder.

    Attributes:
        key_id: fingerprint of the new key.
        rows: by file, how many links and customers were sealed again.
        removed: files that can never be read again.
        aside: files that were signed under the old key, by their new names.
    """

    key_id: str
    rows: dict[str, int]
    removed: tuple[str, ...]
    aside: tuple[str, ...]


def reseal(
    folder: Path, vaults: Sequence[Path], books: Callable[[], Sequence[Ledger]], store: str, *, by: str, t_ns: int
) -> Resealed:
    """Give a store a new key, and seal its vaults again as they are; no process may use its folder.

    Args:
        folder: of the store, without its key.
        vaults: files that hold a vault.
        books: opens all books that have one, with the new key; the caller closes them.
        store: its id.
        by: who answers for the vault's content; kept for good.
        t_ns: when.

    Raises:
        LedgerError: there is a key, or the books cannot be used. After a failure, call again.
    """
    marker = folder / MARKER_FILE
    if (folder / KEY_FILE).exists() and not marker.exists():
        raise LedgerError(
            f"{folder / KEY_FILE}: exists; a key that fits needs nothing, one that does not fit belongs elsewhere: put "
            "back the right one, or move this one away"
        )
    make_file(marker)
    flush_folder(folder)
    key = store_key(folder)
    rows = {path.name: _reseal(path, derived(key, "vault")) for path in vaults}
    key_id = fingerprint(key)
    request = {"by": by, "key": key_id, "rows": sum(rows.values())}
    for ledger in books():
        if not any(entry.request["key"] == key_id for entry in reseals(ledger)):
            ledger.record(VAULT, f"resealed {key_id}", KIND, t_ns, request)
    removed = tuple(name for name in _LOST if (folder / name).exists())
    for name in removed:
        (folder / name).unlink()
    aside = []
    for name in (pattern.format(store=store) for pattern in _ASIDE):
        if (folder / name).exists():
            aside.append(f"{name}.before-{key_id}")
            (folder / name).rename(folder / aside[-1])
    marker.unlink()
    flush_folder(folder)
    return Resealed(key_id, rows, removed, tuple(aside))


def reseals(ledger: Ledger) -> list[Entry]:
    """The entries about new keys, oldest first."""
    return [entry for entry in ledger.entries(VAULT) if entry.kind == KIND]


def _reseal(path: Path, key: bytes) -> int:
    """Give every row of a vault the seal that fits it under a key. Returns how many had another."""
    n = 0
    with contextlib.closing(open_sqlite(path, "a vault", create=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, column in TABLES.items():
            for row in connection.execute(f"SELECT * FROM {table}").fetchall():
                n += _sealed(connection.execute, table, column, row, key)
        connection.execute("COMMIT")
    return n


def _sealed(run: Callable[..., Any], table: str, column: str, row: Sequence[Any], key: bytes) -> bool:
    *content, before = row
    seal = seal_of(key, content)
    if hmac.compare_digest(seal, before):
        return False
    run(f"UPDATE {table} SET seal = ? WHERE {column} = ?", (seal, content[0]))
    return True
