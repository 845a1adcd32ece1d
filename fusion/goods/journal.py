"""Goods in double entry: every piece leaves one account and enters another, and what is written is never changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from fusion.errors import IdempotencyConflict, JournalError

# ("shelf", plate), ("cart", visit), ("outside",) for goods that come with or leave by staff, ("unknown",) for goods
# whose whereabouts nobody saw.
Account = tuple[str, ...]
OUTSIDE: Account = ("outside",)
UNKNOWN: Account = ("unknown",)
# What carts came to hold whose transfers were forgotten.
EARLIER: Account = ("earlier",)


@dataclass(frozen=True, slots=True)
class Transfer:
    """So many pieces moved from one account to another.

    Attributes:
        idempotency_key: names the transfer; derived from the shelf event, so that a retry carries the same one.
        t_ns: when the goods moved.
        debit: account that receives the goods.
        credit: account that gives them.
        gtin: what moved.
        quantity: how many pieces, at least 1; a put-back swaps the accounts.
    """

    idempotency_key: str
    t_ns: int
    debit: Account
    credit: Account
    gtin: str
    quantity: int

    def __post_init__(self) -> None:
        if isinstance(self.quantity, bool) or not isinstance(self.quantity, int) or self.quantity < 1:
            raise JournalError(f"quantity: want an integer of at least 1, got {self.quantity!r}")
        if self.debit == self.credit:
            raise JournalError(f"want two different accounts, got {self.debit} twice")


class Journal:
    """Transfers in the order they were recorded, and the balances that follow from them.

    Balances of a GTIN over all accounts sum to zero at any time. A wrong transfer is undone by a reversing one.

    Attributes:
        n_recorded: transfers so far, those that were forgotten among them.
    """

    def __init__(self) -> None:
        self._transfers: dict[str, Transfer] = {}
        self._balances: dict[Account, Counter[str]] = {}
        # By account, so that a receipt does not look through all that was ever moved.
        self._of: dict[Account, list[Transfer]] = {}
        self._reversed: set[str] = set()
        self.n_recorded = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(tuple(self._transfers.values()))

    def since(self, number: int) -> tuple[Transfer, ...]:
        """The transfers after the first `number` that were recorded, as far as they were not forgotten."""
        return tuple(islice(self._transfers.values(), max(number - self.n_recorded + len(self._transfers), 0), None))

    def forget(self, number: int, before_ns: int, kept: Collection[Account] = ()) -> int:
        """Drop the oldest transfers, for a store that runs for weeks and has them elsewhere. Returns how many.

        What shelves hold by them stays; carts that no other transfer names are added up in EARLIER, and cannot be
        corrected here any more.

        Args:
            number: only of the first so many that were recorded.
            before_ns: only what moved before this; the first that moved later ends it.
            kept: accounts whose transfers are still needed; the first that names one ends it.
        """
        n_before, n_most = len(self._transfers), number - self.n_recorded + len(self._transfers)
        for transfer in tuple(islice(self._transfers.values(), max(n_most, 0))):
            accounts = transfer.debit, transfer.credit
            if transfer.t_ns >= before_ns or any(account in kept for account in accounts):
                break
            del self._transfers[transfer.idempotency_key]
            self._reversed.discard(transfer.idempotency_key)
            for account in accounts:
                del self._of[account][0]  # the same order
                if not self._of[account]:
                    del self._of[account]
                    if account[0] == "cart":
                        earlier = self._balances.setdefault(EARLIER, Counter())
                        for gtin, quantity in self._balances.pop(account).items():
                            earlier[gtin] += quantity
        return n_before - len(self._transfers)

    def __contains__(self, idempotency_key: object) -> bool:
        return idempotency_key in self._transfers

    def append(self, transfer: Transfer) -> bool:
        """Record a transfer once; False if it was recorded before. Raises IdempotencyConflict."""
        recorded = self._transfers.get(transfer.idempotency_key)
        if recorded == transfer:
            return False
        if recorded is not None:
            raise IdempotencyConflict(f"have {recorded}, got {transfer}")
        self._transfers[transfer.idempotency_key] = transfer
        self.n_recorded += 1
        # Both legs or neither: nothing below can raise.
        self._balances.setdefault(transfer.debit, Counter())[transfer.gtin] += transfer.quantity
        self._balances.setdefault(transfer.credit, Counter())[transfer.gtin] -= transfer.quantity
        for account in (transfer.debit, transfer.credit):
            self._of.setdefault(account, []).append(transfer)
        return True

    def reverse(self, idempotency_key: str, t_ns: int) -> Transfer:
        """Undo a recorded transfer by one that swaps its accounts; the same one however often it is asked for.

        Raises:
            JournalError: no such transfer was recorded, or it is itself a reversal.
        """
        recorded = self._transfers.get(idempotency_key)
        if recorded is None:
            raise JournalError(f"want the key of a recorded transfer, got {idempotency_key!r}")
        if idempotency_key in self._reversed:
            raise JournalError(f"want a transfer to reverse, got the reversal {idempotency_key!r}")
        key = f"{idempotency_key}/reversed"
        present = self._transfers.get(key)
        if present is not None:
            return present
        reversal = Transfer(key, t_ns, recorded.credit, recorded.debit, recorded.gtin, recorded.quantity)
        self.append(reversal)
        self._reversed.add(key)
        return reversal

    def correct(self, account: Account, items: dict[str, int], t_ns: int, key: str) -> list[Transfer]:
        """Bring an account to what it should hold by reversing what was wrong; returns the new transfers.

        Goods that are too many go back the way they came, newest first; what is missing comes from the unknown. key
        names the correction's own transfers. A repeated correction finds nothing to do.
        """
        done: list[Transfer] = []
        before = list(self._of.get(account, ()))
        held = self.balance(account)
        for gtin in sorted(held.keys() | items.keys()):
            surplus = held.get(gtin, 0) - items.get(gtin, 0)
            for one in reversed(before):
                undone = f"{one.idempotency_key}/reversed" in self._transfers or one.idempotency_key in self._reversed
                if surplus > 0 and one.debit == account and one.gtin == gtin and not undone:
                    done.append(self.reverse(one.idempotency_key, t_ns))
                    surplus -= one.quantity
            if surplus:
                giver, taker = (UNKNOWN, account) if surplus < 0 else (account, UNKNOWN)
                transfer = Transfer(f"{key}/{gtin}", t_ns, taker, giver, gtin, abs(surplus))
                if self.append(transfer):
                    done.append(transfer)
        return done

    def balance(self, account: Account) -> dict[str, int]:
        """Pieces by GTIN that an account holds, without zeros. A copy."""
        return {gtin: quantity for gtin, quantity in self._balances.get(account, Counter()).items() if quantity}

    def moments(self, account: Account) -> dict[str, list[int]]:
        """When each piece that an account holds came to it, by GTIN, oldest first; what left again was the newest."""
        came: dict[str, list[int]] = {}
        for transfer in self._of.get(account, ()):
            if transfer.debit == account:
                came.setdefault(transfer.gtin, []).extend([transfer.t_ns] * transfer.quantity)
            else:
                kept = came.setdefault(transfer.gtin, [])
                del kept[max(len(kept) - transfer.quantity, 0) :]
        return {gtin: sorted(times) for gtin, times in came.items() if times}

    def accounts(self) -> tuple[Account, ...]:
        """Every account that a transfer named, in order of first use."""
        return tuple(self._balances)

    def totals(self) -> dict[str, int]:
        """Sum of all accounts by GTIN; every value is zero, which is what conservation of goods means."""
        total: Counter[str] = Counter()
        for balance in self._balances.values():
            for gtin, quantity in balance.items():
                total[gtin] += quantity
        return dict(total)
