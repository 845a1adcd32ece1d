"""prices.toml: prices that hold at some times, offers, and members' prices."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field, model_validator

from fusion.store.gtin import Gtin, OwnGtins
from fusion.store.values import Date, Identifier, StrictModel, TimeOfDay, require

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Schedule(StrictModel):
    """When a price or an offer holds, by the store's clock and calendar; without any key, always and for everyone.

    Both days are included; `between` includes its first minute and not its last; `members`: for members only.
    """

    first_day: Date | None = None
    last_day: Date | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    between: tuple[TimeOfDay, TimeOfDay] | None = None
    members: bool = False

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Schedule:
        if self.between is not None:
            require(self.between[0] < self.between[1], "between: a time before a later one", self.between)
        if self.first_day is not None and self.last_day is not None:
            require(self.first_day <= self.last_day, "first_day not after last_day", (self.first_day, self.last_day))
        return self

    def holds(self, local: datetime.datetime, member: bool) -> bool:
        """Whether the price or offer holds at an instant of the store's clock."""
        day, minute = local.date().isoformat(), f"{local:%H:%M}"
        return (
            (member or not self.members)
            and (self.first_day is None or self.first_day <= day)
            and (self.last_day is None or day <= self.last_day)
            and (not self.days or _DAYS[local.weekday()] in self.days)
            and (self.between is None or self.between[0] <= minute < self.between[1])
        )


class Price(Schedule):
    """A product's price while the schedule holds, in minor units with VAT."""

    gtin: Gtin
    price: int = Field(ge=0, le=10**9)


class Offer(Schedule):
    """A group of `pieces` of the listed products for `price` together, or `percent` cheaper."""

    id: Identifier
    gtins: tuple[Gtin, ...] = Field(min_length=1)
    pieces: int = Field(default=1, ge=1, le=100)
    price: int | None = Field(default=None, ge=0, le=10**9)
    percent: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _price_or_percent(self) -> Offer:
        require((self.price is None) != (self.percent is None), "price or percent, one of them", self.id)
        return self


class Restriction(StrictModel):
    """Products of which a person has to look at each sale.

    `minimum_age`: only for customers whose age was verified once. `check`: a person enters what the shelf cannot know,
    the weight or the reduced price of each piece; where the label of every piece was read and states its price, or its
    weight and `per_kg` the minor units of a kilogram, no person has to.
    """

    gtins: tuple[Gtin, ...] = Field(min_length=1)
    minimum_age: int | None = Field(default=None, ge=1, le=99)
    check: Literal["weighed", "marked down"] | None = None
    per_kg: int | None = Field(default=None, ge=1, le=10**9)

    @model_validator(mode="after")
    def _age_or_check(self) -> Restriction:
        require((self.minimum_age is None) != (self.check is None), "minimum_age or check, one of them", self.gtins[0])
        require(self.per_kg is None or self.check == "weighed", "per_kg with check weighed alone", self.gtins[0])
        return self


class Prices(StrictModel):
    """prices.toml: changes to the prices of products.csv, and who may buy what.

    Of several prices that hold, the last in the file counts.
    """

    price: tuple[Price, ...] = ()
    offer: tuple[Offer, ...] = ()
    restriction: tuple[Restriction, ...] = ()

    def with_gtins(self, own: OwnGtins) -> Prices:
        """The same prices with GTINs as the store spells them; those that it does not have stay as they are."""

        def spelt(gtins: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(own.of(gtin) or gtin for gtin in gtins)

        return Prices(
            price=tuple(one.model_copy(update={"gtin": own.of(one.gtin) or one.gtin}) for one in self.price),
            offer=tuple(one.model_copy(update={"gtins": spelt(one.gtins)}) for one in self.offer),
            restriction=tuple(one.model_copy(update={"gtins": spelt(one.gtins)}) for one in self.restriction),
        )
