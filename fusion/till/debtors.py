"""Who owes from earlier visits, where the books are on a server: read by an errand, asked by the gates from memory."""

from __future__ import annotations

from collections.abc import Iterable

from fusion.money.ledger import Ledger
from fusion.money.payments import Payment


class Debtors:
    """Customers whose payments failed, as far as the books on the server were read.

    `read` belongs to an errand, `owes` to any thread. A customer who owes since the last reading is let in once more,
    and one who has paid since then waits for the next: a gate never waits for a server.
    """

    def __init__(self) -> None:
        self._accounts: frozenset[str] = frozenset()

    def read(self, books: Ledger, outstanding: Iterable[Payment]) -> None:
        """Take note of who owes.

        Args:
            books: name the customers.
            outstanding: payments that are not done; see `Checkout.outstanding`.

        Raises:
            LedgerError: the books cannot be read.
        """
        holders = (books.customer(payment.visit) for payment in outstanding if payment.status == "unpaid")
        self._accounts = frozenset(holder.account for holder in holders if holder is not None)

    def owes(self, account: str) -> bool:
        """Whether a customer owes from an earlier visit."""
        return account in self._accounts
