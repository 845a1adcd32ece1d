"""Shelf events to people and goods: who took or put back what, jointly over everything still open, and how sure.

Every event has candidates (person, product, quantity) weighed by where hands were, what the load weighs and what lies
there. Events that constrain each other (only what somebody holds can come back; nobody has a hand in two places) form a
component, whose best joint explanations a kernel keeps; components are independent of each other, so the cost of an
event does not grow with the number of people in the store.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fusion.config import Store
from fusion.results import People
from fusion.shelves import Explanations, Planogram, ShelfEvent

# ---- where an actor's hand is, relative to a bystander's; all in metres and seconds ----------------------------------

# Fingers reach beyond the wrist, along the forearm.
HAND_BEYOND_WRIST_M = 0.08
# Spread of the hand beside the middle of the load, in front of and behind the plate, and above it.
HAND_ALONG_SD_M, HAND_ACROSS_SD_M, HAND_HEIGHT_SD_M = 0.05, 0.045, 0.05
# Error of a hand's place that no averaging removes: the same joint is seen by the same cameras.
HAND_ERROR_M = 0.02
# A hand that holds a product is up to so far above the plate and in front of it, and below the shelf above.
HAND_ABOVE_M, HAND_BEFORE_M = 0.30, 0.02
# Cameras are up to 0.1 s out of step, and a hand at a shelf moves at half a metre a second.
CONTACT_SD_S = 0.15
WINDOW_S = 0.35
HAND_SEEN_WEIGHT = 0.8
# How much likelier a hand right at the load is an actor's than a bystander's: the reach of an arm, about half a cubic
# metre, over the space above a plate, about a hundredth.
HAND_LIKELIHOOD_RATIO = 50.0
# Somebody whose hands are both seen elsewhere acted after all: a wrong keypoint, a wrong time.
HAND_ELSEWHERE_RATIO = 1e-2
# An arm seen only to the elbow or the shoulder says little, and a body less.
ELBOW_RATIO, SHOULDER_RATIO, BODY_RATIO = 3.0, 1.2, 1.0
ELBOW_REACH_M, SHOULDER_REACH_M, REACH_SD_M = 0.40, 0.75, 0.10
# A shopper stands so far from the middle of the plate, and about in front of it.
BODY_DISTANCE_M, BODY_DISTANCE_SD_M, BODY_ALONG_SD_M = 0.55, 0.25, 0.40
# Weight of somebody whom no camera sees, against one person in view with ratio 1.
UNSEEN_WEIGHT = 0.02
TENTATIVE_WEIGHT = 0.3

# ---- priors of what happens ------------------------------------------------------------------------------------------

# Nothing moved, though a load settled: a lean, a bag set down, a thing that no product list knows. Density per gram; a
# load that comes may well be such a thing, one that goes seldom is.
LOG_NOTHING_CAME, LOG_NOTHING_WENT = math.log(0.01 / 400.0), math.log(1e-3 / 400.0)
# A hand that leans or a bag that rests on a shelf is gone by then.
LEAN_UNDONE_S, LOG_UNDONE = 30.0, math.log(10.0)
# A put-back goes where the product belongs, or (43 % of them, in an adversarial set) to any other place.
PLACED_RIGHT, PLACED_ELSEWHERE = 0.6, 0.05
# A put-back of what one does not hold: handed over by somebody who does, or brought along.
LOG_HANDED_OVER, LOG_BROUGHT = math.log(0.15), math.log(1e-4)
# A put-back by somebody whom no camera sees: there are few of them, and they hold little.
LOG_UNSEEN_PUT = math.log(0.05)
# Two events of one person within so short a time need two hands.
BUSY_S, LOG_BUSY = 0.5, math.log(0.1)

# ---- limits ----------------------------------------------------------------------------------------------------------

EXPLANATIONS_MAX = 128
EVENTS_PER_COMPONENT_MAX = 12
OPEN_EVENTS_MAX = 1024
CANDIDATES_MAX = 48
PEOPLE_PER_EVENT_MAX = 8
# Explanations worse than the best by a factor of exp(18) are dropped; so are candidates by exp(14).
LOG_SPREAD, LOG_CANDIDATE_SPREAD = 18.0, 14.0
# An event this certain is settled at once, so that it constrains later ones without being enumerated with them.
DECIDED = 0.9999
# Below this probability a candidate does not tie events together or keep one open.
NEGLIGIBLE = 1e-3


class History(Protocol):
    """Where people were lately, such as tracks.PeopleHistory."""

    def between(self, t0_ns: int, t1_ns: int) -> list[People]: ...


@dataclass(frozen=True, slots=True)
class EventCandidate:
    """One explanation of a shelf event: person (a track_id, None: unknown), product, signed quantity, probability."""

    person: int | None
    gtin: str
    quantity: int
    probability: float


@dataclass(frozen=True, slots=True)
class EventBelief:
    """A shelf event and what it probably was; probabilities sum to at most 1, the rest means that nothing was moved.

    Attributes:
        event_id: unique within the attributor, in order of observation.
        t_ns: when the load left or met the plates.
        plate: name of the plate that bears most of the load.
        delta_g: summed over the plates.
        candidates: most probable first.
    """

    event_id: int
    t_ns: int
    plate: str
    delta_g: float
    candidates: tuple[EventCandidate, ...]

    @property
    def nothing(self) -> float:
        """Probability that no goods were moved."""
        return max(0.0, 1.0 - sum(candidate.probability for candidate in self.candidates))


@dataclass(frozen=True, slots=True)
class CartBelief:
    """The goods that some people most probably hold together.

    Attributes:
        items: pieces by GTIN, none of them zero.
        confidence: by GTIN the probability that this quantity is right; includes GTINs that may be missing from items.
        probability: that the whole cart is right.
        reasons: what makes it uncertain, worst first; empty where nothing does.
    """

    items: dict[str, int]
    confidence: dict[str, float]
    probability: float
    reasons: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Event:
    """An open event: its candidates are rows first .. first + n of its component's table."""

    event_id: int
    event: ShelfEvent
    plate: str


@dataclass(slots=True, eq=False)
class _Component:
    """Events that constrain each other, and their best joint explanations."""

    events: list[_Event]
    event_of: np.ndarray  # (n_candidates,) int32: which of `events` a candidate belongs to
    owner: np.ndarray  # (n_candidates,) int32 person's slot, -1 unknown
    product: np.ndarray  # (n_candidates,) int32
    quantity: np.ndarray  # (n_candidates,) int32 signed, 0: nothing moved
    choices: np.ndarray  # (n, n_events) int32, rows best first
    log_weight: np.ndarray  # (n,) float64, normalised

    # What follows from the above, kept by `refresh`.
    probability: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n_candidates,) of every candidate
    expected: dict[tuple[int, int], float] = field(default_factory=dict)  # pieces taken by (slot, product)
    people: set[int] = field(default_factory=set)  # who may have acted

    def refresh(self, marginals: Callable[..., None]) -> None:
        """Recompute what follows from the explanations; to be called after every change of them."""
        self.probability = np.empty(len(self.owner))
        marginals(self.choices, self.log_weight, self.probability)
        self.expected = {}
        self.people = set()
        likely = np.flatnonzero((self.probability > 1e-4) & (self.owner >= 0) & (self.quantity != 0))
        columns = (self.owner[likely], self.product[likely], self.quantity[likely], self.probability[likely])
        for slot, product, quantity, p in zip(*(column.tolist() for column in columns)):
            if p > NEGLIGIBLE:
                self.people.add(slot)
            if quantity < 0:
                self.expected[slot, product] = self.expected.get((slot, product), 0.0) - quantity * p


@dataclass(slots=True, eq=False)
class _Decided:
    """An event that is as good as certain, kept until its person's cart is closed."""

    event: _Event
    belief: EventBelief
    owner: int
    product: int
    quantity: int
    probability: float


@dataclass(slots=True)
class _Scene:
    """Who may have done it: slots (n,) of people, -1 for somebody unseen, and their log probabilities."""

    owner: np.ndarray
    log_probability: np.ndarray
    near: list[int] = field(default_factory=list)


class Attributor:
    """Keeps the best joint explanations of all open shelf events.

    Attributes:
        planogram: what lies where, kept up to date with what was taken and put back.
        ignored: what had to be given up, by reason: limits that were reached.
    """

    def __init__(self, store: Store) -> None:
        from fusion._kernels import attribution as kernel

        self._kernel = kernel
        self.planogram = Planogram(store)
        self.ignored: Counter[str] = Counter()
        self._product = {gtin: i for i, gtin in enumerate(self.planogram.gtins)}
        self._names = [plate.plate for plate in store.plates]
        self._centre_m = np.array([(p.x, p.y, p.z) for p in store.plates]).reshape(-1, 3)
        self._depth_m = np.array([p.depth for p in store.plates])
        self._above_m = np.array([self._clearance_m(centre) for centre in self._centre_m])
        self._yaw = np.array([p.yaw for p in store.plates])
        layout = store.layout
        sides = [layout.indices(f"{side}_wrist", f"{side}_elbow", f"{side}_shoulder") for side in ("l", "r")]
        # A layout without arms (boxes) leaves only the body.
        self._arms = np.array([side for side in sides if len(side) == 3], np.int64).reshape(-1, 3)
        self._components: list[_Component] = []
        self._decided: list[_Decided] = []
        self._held: Counter[tuple[int, int]] = Counter()  # Certain pieces by (slot, product).
        self._alias: dict[int, int] = {}
        self._staff: set[int] = set()
        self._n_events = 0
        self._origin_ns: int | None = None
        self._key = np.empty(EXPLANATIONS_MAX)
        self._pick = np.empty(EXPLANATIONS_MAX, np.int32)

    def _clearance_m(self, centre: np.ndarray) -> float:
        """How far above a plate a hand may be that reaches for its goods: not on the shelf above."""
        beside = np.hypot(self._centre_m[:, 0] - centre[0], self._centre_m[:, 1] - centre[1]) < 0.1
        above = self._centre_m[beside, 2] - centre[2]
        above = above[above > 0.1]
        return min(HAND_ABOVE_M, 0.85 * float(above.min())) if len(above) else HAND_ABOVE_M

    # ---- observing ---------------------------------------------------------------------------------------------------

    def observe(self, event: ShelfEvent, history: History) -> EventBelief:
        """Take in an event; returns what it looks like now. Later events may change that."""
        if self._origin_ns is None:
            self._origin_ns = event.contact_ns
        at = int(event.plates[np.argmax(np.abs(event.delta_g))])
        opened = _Event(self._n_events, event, self._names[at])
        self._n_events += 1
        scene = self._scene(event, history)
        found, log_place = self._what(event, scene)
        component = self._explain(opened, scene, found, log_place)
        belief = self._belief(component, opened)
        for candidate in belief.candidates:
            self.planogram.move(at, self._product[candidate.gtin], candidate.quantity * candidate.probability)
        self._decide(component)
        self._limit()
        return belief

    def _what(self, event: ShelfEvent, scene: _Scene) -> tuple[Explanations, np.ndarray]:
        """Products and quantities that may have moved, and the log prior of each with its place."""
        noise_g2 = float(event.cov_g2.sum())
        if event.delta_g.sum() < 0:
            found = self.planogram.explain(event.plates, event.delta_g, noise_g2)
            return found, found.log_place
        place = np.exp(self.planogram.log_place(event.plates, event.delta_g))
        log_put = np.log(PLACED_RIGHT * np.minimum(place, 1.0) + PLACED_ELSEWHERE)
        # What nobody near holds is explained only if nothing else fits, but it must not crowd out what somebody does.
        expected = self._expected_pieces(set(scene.near))
        log_held = np.where(expected > 1e-4, 0.0, LOG_BROUGHT)
        if any(slot in self._staff for slot in scene.near):
            log_held = np.zeros_like(log_held)
        found = self.planogram.explain(event.plates, event.delta_g, noise_g2, log_prior=log_put + log_held)
        return found, log_put[found.product]

    def _expected_pieces(self, slots: set[int] | None) -> np.ndarray:
        """(n_products,) pieces that these people (None: all) are expected to have taken, put-backs not subtracted."""
        pieces = np.zeros(len(self.planogram.gtins))
        for (slot, product), quantity in self._held.items():
            if slots is None or slot in slots:
                pieces[product] += max(quantity, 0)
        for component in self._components:
            if slots is None or slots & component.people:
                for (slot, product), expected in component.expected.items():
                    if slots is None or slot in slots:
                        pieces[product] += expected
        return pieces

    def _explain(self, opened: _Event, scene: _Scene, found: Explanations, log_place: np.ndarray) -> _Component:
        """The new event's component: candidates, the components they tie together, the best joint explanations."""
        log_what = found.log_likelihood + log_place + found.log_quantity
        n_what = len(log_what)
        owner = np.repeat(scene.owner, n_what)
        product = np.tile(found.product, len(scene.owner))
        quantity = np.tile(found.quantity, len(scene.owner))
        log_who = scene.log_probability + np.where(
            (scene.owner < 0) & (opened.event.delta_g.sum() > 0), LOG_UNSEEN_PUT, 0.0
        )
        log_candidate = (log_who[:, None] + log_what).ravel()
        order = np.argsort(-log_candidate, kind="stable")[:CANDIDATES_MAX]
        if len(order):
            # A put-back's best candidate may turn out not to be held, so put-backs keep a wider field.
            spread = LOG_CANDIDATE_SPREAD if opened.event.delta_g.sum() < 0 else 2.0 * LOG_CANDIDATE_SPREAD
            order = order[log_candidate[order] > log_candidate[order[0]] - spread]
        owner = np.append(owner[order], -1).astype(np.int32)
        product = np.append(product[order], 0).astype(np.int32)
        quantity = np.append(quantity[order], 0).astype(np.int32)
        total_g = float(opened.event.delta_g.sum())
        log_nothing = (LOG_NOTHING_WENT if total_g < 0 else LOG_NOTHING_CAME) - abs(total_g) / 2000.0
        log_candidate = np.append(log_candidate[order], log_nothing)

        tied = self._tied(opened, owner, product, quantity)
        base = self._merged(tied)
        first = len(base.owner)
        held = np.array(
            [self._held[int(slot), int(item)] if slot >= 0 else 0 for slot, item in zip(owner, product)], np.int32
        )
        log_not_held = self._log_not_held(owner, product, quantity)
        base.events.append(opened)
        base.event_of = np.append(base.event_of, np.full(len(owner), len(base.events) - 1, np.int32))
        base.owner = np.append(base.owner, owner)
        base.product = np.append(base.product, product)
        base.quantity = np.append(base.quantity, quantity)
        origin_ns = self._origin_ns or 0
        event_s = np.array([(one.event.contact_ns - origin_ns) * 1e-9 for one in base.events])
        log_undone = np.array([_log_undone(one.event, opened.event, log_nothing) for one in base.events[:-1]])
        log_candidate[-1] += max(
            (_log_undone(one.event.event, opened.event, log_nothing) for one in self._decided if not one.quantity),
            default=0.0,
        )
        kept = self._kernel.extend(
            base.choices, base.log_weight, base.owner, base.product, base.quantity, first, event_s, log_candidate,
            log_not_held, held, log_undone, BUSY_S, LOG_BUSY, self._key, self._pick, LOG_SPREAD,
        )  # fmt: skip
        rows, picks = np.divmod(self._pick[:kept], len(owner))
        base.choices = np.concatenate([base.choices[rows], (first + picks)[:, None]], axis=1).astype(np.int32)
        base.log_weight = _normalised(self._key[:kept])
        base.refresh(self._kernel.marginals)
        self._components = [one for one in self._components if all(one is not other for other in tied)]
        self._components.append(base)
        return base

    def _log_not_held(self, owner: np.ndarray, product: np.ndarray, quantity: np.ndarray) -> np.ndarray:
        """(n_new,) what it costs a candidate to put back a piece that its person does not hold."""
        cost = np.zeros(len(owner))
        anyone: np.ndarray | None = None
        for i in np.flatnonzero(quantity > 0).tolist():
            if int(owner[i]) in self._staff:
                continue
            if anyone is None:
                anyone = self._expected_pieces(None)
            cost[i] = LOG_HANDED_OVER if anyone[product[i]] > 0.3 else LOG_BROUGHT
        return cost

    def _tied(self, opened: _Event, owner: np.ndarray, product: np.ndarray, quantity: np.ndarray) -> list[_Component]:
        """The components that the new event's candidates depend on."""
        acts = owner >= 0
        people = set(owner[acts].tolist())
        puts = acts & (quantity > 0)
        put = set(zip(owner[puts].tolist(), product[puts].tolist()))
        contact_ns = opened.event.contact_ns
        tied = []
        for component in self._components:
            if any(_log_undone(one.event, opened.event, LOG_NOTHING_WENT) for one in component.events):
                tied.append(component)
                continue
            if not people & component.people:
                continue
            close = any(abs(one.event.contact_ns - contact_ns) < BUSY_S * 1e9 for one in component.events)
            if close or any(component.expected.get(pair, 0.0) > NEGLIGIBLE for pair in put):
                tied.append(component)
        return tied

    def _merged(self, components: Sequence[_Component]) -> _Component:
        """One component in place of several that were independent so far."""
        no_ints = np.zeros(0, np.int32)
        merged = _Component([], no_ints, no_ints, no_ints, no_ints, np.zeros((1, 0), np.int32), np.zeros(1))
        for component in components:
            while len(merged.events) + len(component.events) >= EVENTS_PER_COMPONENT_MAX and component.events:
                self.ignored["attribution: joint explanation cut"] += 1
                self._fix(component, 0)
            if not component.events:
                continue
            kept = self._kernel.merge(merged.log_weight, component.log_weight, self._key, self._pick, LOG_SPREAD)
            rows_a, rows_b = np.divmod(self._pick[:kept], len(component.log_weight))
            merged = _Component(
                merged.events + component.events,
                np.append(merged.event_of, component.event_of + np.int32(len(merged.events))),
                np.append(merged.owner, component.owner),
                np.append(merged.product, component.product),
                np.append(merged.quantity, component.quantity),
                np.concatenate(
                    [merged.choices[rows_a], component.choices[rows_b] + np.int32(len(merged.owner))], axis=1
                ).astype(np.int32),
                _normalised(self._key[:kept]),
            )
        return merged

    # ---- settling events that are certain ----------------------------------------------------------------------------

    def _decide(self, component: _Component) -> None:
        """Take events out of a component that are as good as certain."""
        for index in range(len(component.events) - 1, -1, -1):
            if component.probability[component.event_of == index].max() > DECIDED:
                self._fix(component, index)
        if not component.events:
            self._components = [one for one in self._components if one is not component]

    def _fix(self, component: _Component, index: int) -> None:
        """Condition a component on the most probable candidate of one of its events, and take the event out."""
        opened = component.events[index]
        belief = self._belief(component, opened)
        of_event = np.flatnonzero(component.event_of == index)
        choice = int(of_event[np.argmax(component.probability[of_event])])
        owner, product, quantity = (int(a[choice]) for a in (component.owner, component.product, component.quantity))
        self._decided.append(_Decided(opened, belief, owner, product, quantity, float(component.probability[choice])))
        if owner >= 0 and quantity:
            self._held[owner, product] -= quantity
        rows = component.choices[:, index] == choice
        component.choices = component.choices[rows]
        component.log_weight = _normalised(component.log_weight[rows])
        _drop_event(component, index)
        component.refresh(self._kernel.marginals)

    def _limit(self) -> None:
        n_open = sum(len(component.events) for component in self._components) + len(self._decided)
        while n_open > OPEN_EVENTS_MAX:
            self.ignored["attribution: open events limit"] += 1
            if self._decided:
                self._decided.pop(0)
            else:
                self._fix(self._components[0], 0)
                if not self._components[0].events:
                    self._components.pop(0)
                continue
            n_open -= 1

    # ---- answers -----------------------------------------------------------------------------------------------------

    def _belief(self, component: _Component, opened: _Event) -> EventBelief:
        index = component.events.index(opened)
        probability = component.probability
        summed: defaultdict[tuple[int, int, int], float] = defaultdict(float)
        for i in np.flatnonzero((component.event_of == index) & (component.quantity != 0)).tolist():
            key = (int(component.owner[i]), int(component.product[i]), int(component.quantity[i]))
            summed[key] += float(probability[i])
        candidates = tuple(
            EventCandidate(None if owner < 0 else owner, self.planogram.gtins[product], quantity, min(p, 1.0))
            for (owner, product, quantity), p in sorted(summed.items(), key=lambda item: (-item[1], item[0]))
            if p > 1e-6
        )
        event = opened.event
        return EventBelief(opened.event_id, event.contact_ns, opened.plate, float(event.delta_g.sum()), candidates)

    def cart(self, people: Collection[int]) -> CartBelief:
        """The goods most probably held together by these people (track ids), from the events that are still open."""
        wanted = {self._slot(person) for person in people}
        items: Counter[int] = Counter()
        log_right = 0.0
        log_line: defaultdict[int, float] = defaultdict(float)
        doubts: list[tuple[float, str]] = []
        for one in self._decided:
            log_p = math.log(max(one.probability, 1e-12))
            if one.owner in wanted:
                items[one.product] -= one.quantity
                log_line[one.product] += log_p
                log_right += log_p
            elif log_p < math.log(DECIDED) and any(c.person in wanted for c in one.belief.candidates):
                log_right += log_p
        for component in self._components:
            mine = np.isin(component.owner, list(wanted)) & (component.quantity != 0)
            if not mine.any():
                continue
            taken, line, right = self._contribution(component, mine)
            for product, quantity in taken.items():
                items[product] += quantity
            for product, p in line.items():
                log_line[product] += math.log(max(p, 1e-12))
            log_right += math.log(max(right, 1e-12))
            if right < 0.99:
                doubts.append((right, self._doubt(component, mine)))
        negative = [product for product, quantity in items.items() if quantity < 0]
        if negative:
            said = ", ".join(self.planogram.gtins[product] for product in negative)
            doubts.append((0.0, f"more was put back than taken: {said}"))
            log_right += math.log(0.5)
        gtins = self.planogram.gtins
        return CartBelief(
            {gtins[product]: quantity for product, quantity in sorted(items.items()) if quantity > 0},
            {gtins[product]: min(math.exp(log_p), 1.0) for product, log_p in sorted(log_line.items())},
            min(math.exp(log_right), 1.0),
            tuple(text for _, text in sorted(doubts)),
        )

    def _contribution(self, component: _Component, mine: np.ndarray) -> tuple[dict[int, int], dict[int, float], float]:
        """What a component most probably adds to a cart: pieces by product, the probability of each, of all."""
        weight = np.exp(component.log_weight)
        outcomes: dict[tuple[tuple[int, int], ...], float] = {}
        for row, p in zip(component.choices.tolist(), weight.tolist()):
            taken: Counter[int] = Counter()
            for choice in row:
                if mine[choice]:
                    taken[int(component.product[choice])] -= int(component.quantity[choice])
            key = tuple(sorted((product, n) for product, n in taken.items() if n))
            outcomes[key] = outcomes.get(key, 0.0) + p
        best = max(outcomes, key=lambda key: (outcomes[key], key))
        chosen = dict(best)
        products = {product for key in outcomes for product, _ in key}
        line = {
            product: sum(p for key, p in outcomes.items() if dict(key).get(product, 0) == chosen.get(product, 0))
            for product in products
        }
        return chosen, line, outcomes[best]

    def _doubt(self, component: _Component, mine: np.ndarray) -> str:
        """Why a component makes a cart uncertain: the event that is least clear, and what about it."""
        probability = component.probability
        worst, said = 1.1, ""
        for index, opened in enumerate(component.events):
            of_event = component.event_of == index
            if not (of_event & mine).any():
                continue
            top = float(probability[of_event].max())
            owner_p = _largest(component.owner[of_event], probability[of_event])
            product_p = _largest(component.product[of_event], probability[of_event])
            if top < worst:
                worst = top
                kind = "who" if owner_p < product_p else "what"
                said = f"{kind} at plate {opened.plate}, {opened.event.delta_g.sum():+.0f} g: {top:.2f} sure"
        return said

    # ---- closing -----------------------------------------------------------------------------------------------------

    def settle(self, people: Collection[int]) -> list[EventBelief]:
        """These people are gone: freeze and hand out the events that nobody who is still here may have caused."""
        gone = {self._slot(person) for person in people}
        released = [one.belief for one in self._decided if one.owner in gone or one.owner < 0]
        self._decided = [one for one in self._decided if one.owner not in gone and one.owner >= 0]
        for component in list(self._components):
            for index in range(len(component.events) - 1, -1, -1):
                others = (component.event_of == index) & (component.owner >= 0) & (component.quantity != 0)
                others &= ~np.isin(component.owner, list(gone))
                if component.probability[others].sum() < 10 * NEGLIGIBLE:
                    released.append(self._belief(component, component.events[index]))
                    _drop_event(component, index)
                    component.refresh(self._kernel.marginals)
        self._components = [component for component in self._components if component.events]
        for key in [key for key in self._held if key[0] in gone]:
            del self._held[key]
        return sorted(released, key=lambda belief: belief.event_id)

    def finish(self) -> list[EventBelief]:
        """All events that are still open; nothing is open afterwards."""
        released = [one.belief for one in self._decided]
        released += [self._belief(component, opened) for component in self._components for opened in component.events]
        self._decided, self._components = [], []
        self._held.clear()
        return sorted(released, key=lambda belief: belief.event_id)

    def set_staff(self, person: int) -> None:
        """Somebody moves goods without a cart, and may bring any."""
        self._staff.add(self._slot(person))

    def same_person(self, old: int, new: int) -> None:
        """Two tracks turned out to be one person; what the old one did counts for the new one."""
        source, target = self._slot(old), self._slot(new)
        if source == target:
            return
        self._alias[source] = target
        if source in self._staff:
            self._staff.add(target)
        for component in self._components:
            component.owner[component.owner == source] = target
            component.refresh(self._kernel.marginals)
        for one in self._decided:
            if one.owner == source:
                one.owner = target
            if any(candidate.person == source for candidate in one.belief.candidates):
                one.belief = _relabelled(one.belief, source, target)
        for key in [key for key in self._held if key[0] == source]:
            self._held[target, key[1]] += self._held.pop(key)

    def _slot(self, person: int) -> int:
        slot = int(person)
        while slot in self._alias:
            slot = self._alias[slot]
        return slot

    # ---- who was there -----------------------------------------------------------------------------------------------

    def _scene(self, event: ShelfEvent, history: History) -> _Scene:
        """Log probability of everybody near, and of somebody unseen, from where hands, arms and bodies were."""
        if event.silent:
            window = history.between(event.onset_ns - 100_000_000, event.settled_ns)
        else:
            reach_ns = int(WINDOW_S * 1e9)
            window = history.between(event.contact_ns - reach_ns, event.contact_ns + reach_ns)
        people = [one for one in window if len(one.track_id)]
        if not people:
            return _Scene(np.array([-1], np.int64), np.zeros(1))
        track = np.concatenate([one.track_id for one in people])
        dt_s = np.concatenate([np.full(len(one.track_id), (one.t_ns - event.contact_ns) * 1e-9) for one in people])
        confirmed = np.concatenate([one.confirmed for one in people])
        tracks, row = np.unique(track, return_inverse=True)
        log_ratio = self._log_ratio(event, people, dt_s, row, len(tracks))
        log_ratio += np.where(np.bincount(row, confirmed) > 0, 0.0, math.log(TENTATIVE_WEIGHT))
        best: dict[int, float] = {}
        for person, value in zip(tracks.tolist(), log_ratio.tolist()):
            slot = self._slot(person)
            best[slot] = max(best.get(slot, -math.inf), value)
        # A person is worth keeping if they might have done it at all, against somebody unseen.
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:PEOPLE_PER_EVENT_MAX]
        ranked = [item for item in ranked if item[1] > math.log(HAND_ELSEWHERE_RATIO) - 2.0]
        owner = np.array([slot for slot, _ in ranked] + [-1], np.int64)
        log_weight = np.array([value for _, value in ranked] + [math.log(UNSEEN_WEIGHT)])
        return _Scene(owner, _normalised(log_weight), [slot for slot, _ in ranked])

    def _log_ratio(
        self, event: ShelfEvent, people: Sequence[People], dt_s: np.ndarray, row: np.ndarray, n_people: int
    ) -> np.ndarray:
        """(n_people,) log likelihood ratio, actor over bystander; dt_s and row (n,): time after contact, and person."""
        share = np.abs(event.delta_g) / np.abs(event.delta_g).sum()
        at = int(event.plates[np.argmax(share)])
        yaw = self._yaw[at]
        load_m = share @ self._centre_m[event.plates]
        cos, sin = math.cos(yaw), math.sin(yaw)
        # The instants near contact count most; in a silence any instant may have been the one.
        weight = np.ones(len(row)) if event.silent else np.exp(-0.5 * (dt_s / CONTACT_SD_S) ** 2)
        total = np.bincount(row, weight, n_people)
        offset = np.concatenate([one.position_m for one in people]) - load_m[:2]
        position = np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin], axis=1)
        body = self._body_ratio(position)
        if not len(self._arms):
            return np.log(np.bincount(row, weight * body, n_people) / total)
        joints = np.concatenate([one.joints_m[:, self._arms] for one in people]) - load_m  # (n, 2, 3, 3)
        sd_sq = np.nan_to_num(np.concatenate([one.joints_sd_m[:, self._arms[:, 0]] for one in people]), nan=0.05) ** 2
        wrist, elbow, shoulder = joints[:, :, 0], joints[:, :, 1], joints[:, :, 2]
        forearm = wrist - elbow
        length = np.sqrt((forearm**2).sum(axis=2, keepdims=True))
        hand = wrist + np.nan_to_num(forearm * (HAND_BEYOND_WRIST_M / np.maximum(length, 0.05)))
        elbow_ratio = ELBOW_RATIO * _within(np.sqrt((elbow**2).sum(axis=2)), ELBOW_REACH_M)
        shoulder_ratio = SHOULDER_RATIO * _within(np.sqrt((shoulder**2).sum(axis=2)), SHOULDER_REACH_M)
        unseen = np.where(np.isfinite(elbow_ratio), elbow_ratio, shoulder_ratio)
        unseen = np.where(np.isfinite(unseen), unseen, body[:, None])
        axes = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        ratio = np.zeros(n_people)
        for side in range(2):
            seen = np.isfinite(hand[:, side, 0])
            at_plate = np.nan_to_num(hand[:, side] @ axes.T)
            unseen_mean = np.bincount(row, weight * unseen[:, side], n_people) / total
            # A hand seen within a tenth of a second of contact is as good as seen at it.
            near = np.zeros(n_people)
            np.maximum.at(near, row, np.where(seen, weight, 0.0))
            known = np.minimum(near / HAND_SEEN_WEIGHT, 1.0)
            if event.silent:
                seen_mean = np.zeros(n_people)
                np.maximum.at(seen_mean, row, np.where(seen, self._hand_ratio(at, at_plate, sd_sq[:, side]), 0.0))
            else:
                # The mean of several instants is where the hand was; each of them alone is worth little.
                sight = np.where(seen, weight / (sd_sq[:, side] + HAND_ERROR_M**2), 0.0)
                seen_weight = np.maximum(np.bincount(row, sight, n_people), 1e-12)
                mean = np.stack([np.bincount(row, sight * at_plate[:, i], n_people) for i in range(3)], axis=1)
                mean_sd_sq = np.bincount(row, sight * sd_sq[:, side], n_people) / seen_weight / 2.0 + HAND_ERROR_M**2
                seen_mean = self._hand_ratio(at, mean / seen_weight[:, None], mean_sd_sq)
            ratio += 0.5 * (known * seen_mean + (1.0 - known) * unseen_mean)
        return np.log(ratio + HAND_ELSEWHERE_RATIO)

    def _hand_ratio(self, plate: int, hand_m: np.ndarray, sd_sq: np.ndarray) -> np.ndarray:
        """(n,) likelihood ratio of hands (n, 3) in the plate's axes about the load, known with variance sd_sq (n,)."""
        along, across, height = hand_m.T
        half_depth, above_m = 0.5 * self._depth_m[plate], self._above_m[plate]
        before = np.maximum(-half_depth - HAND_BEFORE_M - across, 0.0) + np.maximum(across - half_depth, 0.0)
        outside = np.maximum(-height, 0.0) + np.maximum(height - above_m, 0.0)
        distance_sq = (
            along**2 / (HAND_ALONG_SD_M**2 + sd_sq)
            + before**2 / (HAND_ACROSS_SD_M**2 + sd_sq)
            + outside**2 / (HAND_HEIGHT_SD_M**2 + sd_sq)
        )
        return HAND_LIKELIHOOD_RATIO * np.exp(-0.5 * distance_sq)

    def _body_ratio(self, position: np.ndarray) -> np.ndarray:
        """(n,) likelihood ratio from the place on the floor; position (n, 2) in the plate's axes about the load."""
        distance = np.hypot(position[:, 0], position[:, 1])
        off = np.maximum(np.abs(distance - BODY_DISTANCE_M) - 0.1, 0.0) / BODY_DISTANCE_SD_M
        side = position[:, 0] / BODY_ALONG_SD_M
        return BODY_RATIO * np.exp(-0.5 * (off**2 + side**2)) + HAND_ELSEWHERE_RATIO


def _log_undone(earlier: ShelfEvent, later: ShelfEvent, log_nothing: float) -> float:
    """What it adds to nothing having moved in `later` that it takes back `earlier`, where nothing did; else 0."""
    gap_s = (later.contact_ns - earlier.contact_ns) * 1e-9
    if not 0.0 < gap_s < LEAN_UNDONE_S or not set(earlier.plates.tolist()) & set(later.plates.tolist()):
        return 0.0
    left_g, load_g = float(earlier.delta_g.sum() + later.delta_g.sum()), abs(float(later.delta_g.sum()))
    sd_g = math.sqrt(float(earlier.cov_g2.sum() + later.cov_g2.sum())) + 2.0 + 0.02 * load_g
    if abs(left_g) > 4.0 * sd_g:
        return 0.0
    # Who leans leaves, so this is far more to be expected than a take of just that weight from just there.
    log_density = -0.5 * (left_g / sd_g) ** 2 - math.log(sd_g * math.sqrt(2.0 * math.pi))
    return max(log_density + LOG_UNDONE - log_nothing, 0.0)


def _within(distance_m: np.ndarray, reach_m: float) -> np.ndarray:
    """1 within reach, falling off beyond it; NaN stays NaN."""
    return np.exp(-0.5 * (np.maximum(distance_m - reach_m, 0.0) / REACH_SD_M) ** 2)


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    top = log_weight.max()
    return log_weight - (top + math.log(float(np.exp(log_weight - top).sum())))


def _largest(label: np.ndarray, probability: np.ndarray) -> float:
    """Probability of the most probable label."""
    return max(float(probability[label == one].sum()) for one in set(label.tolist()))


def _drop_event(component: _Component, index: int) -> None:
    """Sum an event out: explanations that differ in it alone become one."""
    component.events.pop(index)
    keep = component.event_of != index
    renumbered = np.cumsum(keep, dtype=np.int32) - 1
    choices = np.delete(component.choices, index, axis=1)
    merged: dict[tuple[int, ...], float] = {}
    for row, log_weight in zip(renumbered[choices].tolist(), component.log_weight.tolist()):
        key = tuple(row)
        merged[key] = float(np.logaddexp(merged[key], log_weight)) if key in merged else log_weight
    ranked = sorted(merged.items(), key=lambda item: (-item[1], item[0]))
    component.choices = np.array([row for row, _ in ranked], np.int32).reshape(len(ranked), len(component.events))
    component.log_weight = np.array([log_weight for _, log_weight in ranked])
    event_of = component.event_of[keep]
    component.event_of = (event_of - (event_of > index)).astype(np.int32)
    component.owner, component.product, component.quantity = (
        array[keep] for array in (component.owner, component.product, component.quantity)
    )


def _relabelled(belief: EventBelief, source: int, target: int) -> EventBelief:
    summed: defaultdict[tuple[int | None, str, int], float] = defaultdict(float)
    for one in belief.candidates:
        person = target if one.person == source else one.person
        summed[person, one.gtin, one.quantity] += one.probability
    ranked = sorted(summed.items(), key=lambda item: -item[1])
    candidates = tuple(EventCandidate(person, gtin, quantity, p) for (person, gtin, quantity), p in ranked)
    return EventBelief(belief.event_id, belief.t_ns, belief.plate, belief.delta_g, candidates)
