"""Other ways to reach into a shelf than the simulator's, so that nothing is learnt that holds for its shoppers only.

A motion replaces how long a hand stays at a plate, when in that time the load moves, how deep and how high the hand
reaches, how fast it comes and goes, and how often hands hover over goods that are not taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal
from unittest.mock import patch

import numpy as np

from fusion.simulation import reaching, shopping, staff
from fusion.simulation.events import Handling
from fusion.simulation.goods import Resting
from fusion.simulation.person import Person
from fusion.simulation.shop import Shop

Range = tuple[float, float]


@dataclass(frozen=True)
class Motion:
    """How hands reach. Ranges are of uniform draws.

    Attributes:
        hold_s: median time that a hand stays at a plate; hold_spread: sd of its logarithm.
        take_share, put_share: when in this time the load leaves or meets the plate.
        aside_widths: place along the shelf about the middle of the load's plate, in widths of the plate.
        deep_m: place behind the front edge. high_m: place above the plate.
        raise_s: time that the hand needs to come.
        hover_probability: that the hand first hovers over a neighbouring plate without touching it.
        minimum_jerk: whether the hand moves with the smooth speed of a person's, or at constant speed.
    """

    hold_s: float = 0.45
    hold_spread: float = 0.45
    take_share: Range = (0.45, 0.85)
    put_share: Range = (0.15, 0.5)
    aside_widths: Range = (-0.35, 0.35)
    deep_m: Range = (0.016, 0.21)
    high_m: Range = (0.03, 0.14)
    raise_s: Range = (0.45, 0.9)
    hover_probability: float = 0.0
    minimum_jerk: bool = True


MOTIONS = {
    "quick": Motion(0.25, 0.3, (0.3, 0.8), (0.2, 0.7), (-0.45, 0.45), (0.01, 0.22), (0.0, 0.16), (0.3, 0.6), 0.2),
    "slow": Motion(
        1.6, 0.5, (0.4, 0.95), (0.05, 0.6), (-0.3, 0.3), (0.02, 0.26), (0.04, 0.2), (0.7, 1.3), 0.4, minimum_jerk=False
    ),
    "hovering": Motion(0.7, 0.6, (0.2, 0.9), (0.1, 0.6), (-0.5, 0.5), (0.0, 0.2), (0.02, 0.12), (0.4, 1.0), 0.8),
}  # fmt: skip


@contextmanager
def moving(name: str) -> Iterator[None]:
    """Simulated people reach in this way inside the block; "simulator": as they do otherwise."""
    if name == "simulator":
        yield
        return
    motion = MOTIONS[name]

    def take_hold(
        shop: Shop, person: Person, plate: int, lying: list[Resting], sign: Literal[-1, 1]
    ) -> Iterator[None]:
        yield from _take_hold(motion, shop, person, plate, lying, sign)

    with ExitStack() as patches:
        for module in (shopping, staff):
            patches.enter_context(patch.object(module, "take_hold", take_hold))
        if not motion.minimum_jerk:
            patches.enter_context(patch.object(reaching, "_ease", lambda share: min(max(share, 0.0), 1.0)))
        yield


def _take_hold(
    motion: Motion, shop: Shop, person: Person, plate: int, lying: list[Resting], sign: Literal[-1, 1]
) -> Iterator[None]:
    random = person.random
    if random.random() < motion.hover_probability:
        near = [plate, *shop.shelves.beside[plate]]
        over = near[int(random.integers(len(near)))]
        yield from _reach(motion, shop, person, over, float(random.uniform(0.1, 1.5)), None)
    hold_s = float(np.clip(random.lognormal(math.log(motion.hold_s), motion.hold_spread), 0.15, 6.0))
    share = float(random.uniform(*(motion.take_share if sign < 0 else motion.put_share)))
    if sign > 0:
        person.carrying_hand, person.carrying_until_s = person.hand, shop.now_s + 3.0
    yield from _reach(motion, shop, person, plate, hold_s, reaching._Contact(lying, sign, share))
    if sign < 0:
        person.carrying_hand = person.hand
        person.carrying_until_s = shop.now_s + float(random.uniform(0.5, 6.0))
    else:
        person.carrying_until_s = -1.0


def _reach(
    motion: Motion, shop: Shop, person: Person, plate: int, hold_s: float, contact: reaching._Contact | None
) -> Iterator[None]:
    """A reach to a plate that moves a load, or hovers above it and moves nothing."""
    random, shelves = person.random, shop.shelves
    width, depth = float(shelves.width_m[plate]), float(shelves.depth_m[plate])
    aside = float(random.uniform(*motion.aside_widths)) * width
    deep = -0.5 * depth + min(float(random.uniform(*motion.deep_m)), depth)
    spot = shelves.centres_m[plate, :2] + aside * shelves.across[plate] + deep * shelves.backs[plate]
    height = float(shelves.centres_m[plate, 2] + random.uniform(*motion.high_m))
    yield from reaching.turn_to(person, spot)
    raise_s = float(random.uniform(*motion.raise_s))
    if contact is not None:
        touch_s = shop.now_s + 0.95 * raise_s
        press_g = float(random.normal(0.0, 25.0))
        handling = Handling(touch_s, shop.now_s + raise_s + hold_s + 0.1, plate, press_g)
        shop.log.handlings.add(touch_s, handling)
        reaching._log_contact(shop, person, plate, contact, shop.now_s + raise_s + contact.share * hold_s)
    yield from reaching.reach_out(shop, person, spot, height, hold_s, raise_s)
    person.anchored, person.face = False, None
