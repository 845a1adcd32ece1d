"""Goods in double entry: every piece leaves one account and enters another, and no entry is ever changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from fusion.errors import IdempotencyConflict, JournalError


class Account(NamedTuple):
    """A place that holds goods: the shelf of a plate, the cart of a visit, or one of the accounts below."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


# Goods that staff bring or take away.
OUTSIDE = Account("outside")
# Goods that were not seen coming or going.
UNKNOWN = Account("unknown")
# Goods of carts whose transfers the journal has forgotten.
EARLIER = Account("earlier")


def shelf(plate: str) -> Account:
    """The goods on a plate, less those of the planogram."""
    return Account("shelf", plate)


def cart(visit: str) -> Account:
    """The goods that a visit's people hold together."""
    return Account("cart", visit)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Pieces of one product that moved from one account to another.

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
        n_recorded: transfers so far, including forgotten ones.
    """

    def __init__(self) -> None:
        self._transfers: dict[str, Transfer] = {}
        self._balances: dict[Account, Counter[str]] = {}
        # By account, so that a receipt does not search everything that ever moved.
        self._of: dict[Account, list[Transfer]] = {}
        self._reversed: set[str] = set()
        self.n_recorded = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(tuple(self._transfers.values()))

    def __contains__(self, idempotency_key: object) -> bool:
        return idempotency_key in self._transfers

    def since(self, number: int) -> tuple[Transfer, ...]:
        """The transfers after the first `number` that were recorded, without forgotten ones."""
        return tuple(islice(self._transfers.values(), max(number - self.n_recorded + len(self._transfers), 0), None))

    def forget(self, number: int, before_ns: int, kept: Collection[Account] = ()) -> int:
        """Drop the oldest transfers, for a store that runs for weeks and keeps them elsewhere. Returns how many.

        Balances of shelves stay. The balance of a cart that no remaining transfer names is added to EARLIER, and that
        cart can no longer be corrected here.

        Args:
            number: drop at most those among the first `number` that were recorded.
            before_ns: stop at the first transfer at or after this time.
            kept: stop at the first transfer that names one of these accounts.
        """
        n_before, n_most = len(self._transfers), number - self.n_recorded + len(self._transfers)
        for transfer in tuple(islice(self._transfers.values(), max(n_most, 0))):
            accounts = transfer.debit, transfer.credit
            if transfer.t_ns >= before_ns or any(account in kept for account in accounts):
                break
            del self._transfers[transfer.idempotency_key]
            self._reversed.discard(transfer.idempotency_key)
            for account in accounts:
                del self._of[account][0]  # The lists are in the same order as the transfers.
                if not self._of[account]:
                    del self._of[account]
                    if account.kind == "cart":
                        earlier = self._balances.setdefault(EARLIER, Counter())
                        for gtin, quantity in self._balances.pop(account).items():
                            earlier[gtin] += quantity
        return n_before - len(self._transfers)

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

    def move(self, key: str, t_ns: int, giver: Account, taker: Account, gtin: str, quantity: int) -> None:
        """Record that pieces moved; a negative quantity moves them from the taker to the giver."""
        if quantity < 0:
            giver, taker, quantity = taker, giver, -quantity
        self.append(Transfer(key, t_ns, debit=taker, credit=giver, gtin=gtin, quantity=quantity))

    def reverse(self, idempotency_key: str, t_ns: int) -> Transfer:
        """Undo a recorded transfer by one that swaps its accounts; repeated calls return the same reversal.

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

        Surplus pieces go back the way they came, newest first; missing pieces come from UNKNOWN. A repeated correction
        changes nothing.

        Args:
            account: a cart, as a rule.
            items: pieces by GTIN that it should hold.
            t_ns: time of the correction.
            key: prefix for the keys of the correction's own transfers.
        """
        done: list[Transfer] = []
        before = list(self._of.get(account, ()))
        held = self.balance(account)
        for gtin in sorted(held.keys() | items.keys()):
            surplus = held.get(gtin, 0) - items.get(gtin, 0)
            for transfer in reversed(before):
                undone = (
                    f"{transfer.idempotency_key}/reversed" in self._transfers
                    or transfer.idempotency_key in self._reversed
                )
                if surplus > 0 and transfer.debit == account and transfer.gtin == gtin and not undone:
                    done.append(self.reverse(transfer.idempotency_key, t_ns))
                    surplus -= transfer.quantity
            if surplus:
                giver, taker = (UNKNOWN, account) if surplus < 0 else (account, UNKNOWN)
                correction = Transfer(f"{key}/{gtin}", t_ns, taker, giver, gtin, abs(surplus))
                if self.append(correction):
                    done.append(correction)
        return done

    def balance(self, account: Account) -> dict[str, int]:
        """Pieces by GTIN that an account holds, without zeros. A copy."""
        return {gtin: quantity for gtin, quantity in self._balances.get(account, Counter()).items() if quantity}

    def moments(self, account: Account) -> dict[str, list[int]]:
        """When each piece that an account holds came to it, by GTIN, oldest first; pieces leave newest first."""
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
        """Sum of all accounts by GTIN. Every value is zero: goods are conserved."""
        total: Counter[str] = Counter()
        for balance in self._balances.values():
            for gtin, quantity in balance.items():
                total[gtin] += quantity
        return dict(total)
