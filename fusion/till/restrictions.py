"""Goods that need a person: those with a minimum age, and those that are weighed or marked down by hand."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace

from fusion.money.prices import stated_prices
from fusion.results import Picked, Reason, ReasonKind, Receipt, ReceiptStatus, Warning, WarningKind
from fusion.store.models import Store


class Restrictions:
    """Which goods of a store need a person, and which customers have shown their age."""

    def __init__(self, store: Store, is_adult: Callable[[str | None], bool]) -> None:
        """Follow prices.toml. is_adult: whether the age of the customer behind a pseudonym was verified once."""
        rules = store.prices.restriction
        self._store = store
        self._age = {gtin: rule.minimum_age for rule in rules for gtin in rule.gtins if rule.minimum_age is not None}
        self._check = {gtin: rule.check for rule in rules for gtin in rule.gtins if rule.check is not None}
        self._is_adult = is_adult

    def reasons(
        self, gtins: Iterable[str], account: str | None, stated: Container[str] = ()
    ) -> tuple[Reason, ...]:
        """Why a person has to look at these goods; empty where none has to. stated: goods whose labels state prices."""
        if not self._age and not self._check:
            return ()
        held = list(gtins)
        aged = [gtin for gtin in held if gtin in self._age]
        found = [] if not aged or self._is_adult(account) else [Reason(ReasonKind.AGE_UNVERIFIED, gtin=g) for g in aged]
        checked = [gtin for gtin in held if gtin in self._check and gtin not in stated]
        found += [Reason(ReasonKind.PERSON_NEEDED, gtin=gtin, detail=self._check[gtin]) for gtin in checked]
        return tuple(found)

    def judged(self, receipt: Receipt) -> Receipt:
        """A receipt, in review where a person has to look at its goods."""
        stated = stated_prices(self._store, receipt)
        reasons = self.reasons((line.gtin for line in receipt.lines), receipt.account, stated)
        if not reasons:
            return receipt
        return replace(receipt, status=ReceiptStatus.REVIEW, reasons=(*receipt.reasons, *reasons))

    def alert(self, picked: Picked) -> Warning | None:
        """The alert where goods with a minimum age are taken by a customer whose age was never verified."""
        if picked.visit is None or picked.gtin not in self._age or self._is_adult(picked.account):
            return None
        return Warning(picked.t_ns, WarningKind.AGE_RESTRICTED, picked.visit, detail=picked.gtin)
