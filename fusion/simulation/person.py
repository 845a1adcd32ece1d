"""A simulated person: who they are, where they stand, what they carry and want to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.simulation import body
from fusion.simulation.floor import Passage
from fusion.simulation.goods import Piece

Role = Literal["shopper", "companion", "child", "tailgater", "staff"]


@dataclass(slots=True)
class Held:
    """A piece in a basket and the plate that it came from."""

    piece: Piece
    origin: int


@dataclass(slots=True)
class Meeting:
    """Two people who reach into the same shelf at the same time: the first to arrive waits for the other."""

    expected: int = 2
    ready: int = 0


@dataclass(slots=True, eq=False)
class Person:
    """A person who visits the shop or works in it.

    Attributes:
        number: of the person in the run. account: None for a person without a scan.
        arrival_s, deadline_s: when they come, and by when they want to be out.
        pace_mps: their walking speed. hand: the one they reach with, `l` or `r`.
        random: their own stream of random numbers. group: everyone under the same account, themselves included.
        picks: how often they decide to take something.
        lane: where they pass a gate, as a share of half its width from its middle.
        script: what they do next; it is resumed once a tick.
        desired: the velocity that they want now. face: the heading that they turn to while they stand.
        anchored: stand still until they are done, and are not pushed aside. confined: keep clear of the gates' doors.
        blocked_s: for how long others have blocked their way.
        standing: the place that they have claimed at a shelf. going_for: the plate that they walk to, -1 for none.
        frozen_until_s: their script pauses until then, for what another person does with them.
        carrying_until_s: they hold `carrying_hand` up until then.
        pose: (channels,) their state as in `body.CHANNELS`.
        entered_s, left_s: when they crossed a gate. gone: out of sight.
    """

    number: int
    role: Role
    account: str | None
    arrival_s: float
    deadline_s: float
    stature_m: float
    pace_mps: float
    hand: str
    random: np.random.Generator
    group: list[Person]
    picks: int
    entry: Passage | None = None
    exit: Passage | None = None
    lane: float = 0.0
    script: Iterator[None] = field(default_factory=lambda: iter(()))
    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    desired: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    face: float | None = None
    yaw: float = 0.0
    anchored: bool = False
    confined: bool = False
    leaving: bool = False
    blocked_s: float = 0.0
    standing: NDArray[np.float64] | None = None
    going_for: int = -1
    meeting: Meeting | None = None
    frozen_until_s: float = -1.0
    carrying_until_s: float = -1.0
    carrying_hand: str = "r"
    basket: list[Held] = field(default_factory=list)
    pose: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(body.CHANNELS)))
    entered_s: float | None = None
    left_s: float | None = None
    gone: bool = False

    @property
    def has_visit(self) -> bool:
        """Whether a visit is recorded of them; staff have none."""
        return self.role != "staff"
