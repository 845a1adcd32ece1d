"""Shelf events to people and goods: who took or put back what, jointly over everything still open, and how sure.

Every event has candidates (person, product, quantity) weighed by where hands were, what the load weighs and what lies
there. Events that constrain each other (only what somebody holds can come back; nobody has a hand in two places) form a
component, whose best joint explanations a kernel keeps; components are independent of each other, so the cost of an
event does not grow with the number of people in the store.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import PLACE_GAIN_SD, QUANTITY_PRIOR, Identifications, Planogram
from fusion.people.arms import HAND_BEYOND_WRIST_M, ArmHistory
from fusion.results import Reason, ReasonKind
from fusion.store.models import Store

# ---- where an actor's hand is, relative to a bystander's; all in metres and seconds ----------------------------------
#
# Fitted to 1156 events of simulated shops (tracks of the engine itself), then widened: real hands vary more.

# Error of a hand's place that no averaging removes: the same joint is seen by the same cameras.
HAND_ERROR_M = 0.03
# A hand's place at contact is the mean of instants about it; cameras are up to 0.1 s out of step. A hand that takes is
# there before, one that puts back stays longer.
CONTACT_SD_S, CONTACT_SHIFT_TAKE_S, CONTACT_SHIFT_PUT_S = 0.14, -0.03, 0.03
# An instant seen with this weight, a tenth of a second from contact, is as good as one seen at it.
COVER_MIN = 0.5
# The actor's hand beside the middle of the load, behind the plate's front edge, and above the plate (measured spreads
# 0.24 widths, 0.08 and 0.04 m). One in fourteen is anywhere within TAIL_WIDTH times as far: loads across two plates,
# wrong keypoints.
ALONG_SD_WIDTHS, ACROSS_M, ACROSS_SD_M, HEIGHT_M, HEIGHT_SD_M = 0.25, 0.115, 0.06, 0.14, 0.055
TAIL_WEIGHT, TAIL_WIDTH = 0.07, 2.5
# Bystanders' hands: 0.8 of them anywhere in about a cubic metre, and 0.02 at a shelf of this height along 1.6 m of it.
# Times (2 pi)^(3/2), and (2 pi)^(1/2), since the actor's density lacks it.
AWAY_DENSITY, SHELF_DENSITY = 0.8 * 15.75, 0.02 / 1.6 * 2.5
# A hand that acts is stretched out so far from the body's axis, level; one that hangs or carries is held near. Some are
# anywhere (as a density, times (2 pi)^(1/2)): bodies that are seen badly are put in the wrong place.
STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL = 0.45, 0.14, 0.29, 0.10, 1.0
# How far about contact hands are looked at. How long a hand stays before and after tells nothing that holds in every
# shop: medians after contact are 0.4 s in one set of recordings and above 1.5 s in another.
WINDOW_S = 0.35
# Somebody whose hands are both seen elsewhere acted after all: a wrong keypoint, a wrong time.
# That needs a body that could have leaned in at least, and falls to a hundredth beyond.
HAND_ELSEWHERE_RATIO = 3e-3
LEAN_IN_M, LEAN_IN_SD_M = 0.9, 0.2
# An arm seen only to the elbow or the shoulder says little, and a body less.
ELBOW_RATIO, SHOULDER_RATIO = 3.0, 1.2
ELBOW_REACH_M, SHOULDER_REACH_M, REACH_SD_M = 0.40, 0.75, 0.10
# A shopper stands so far from the middle of the plate, and about in front of it; nobody reaches farther than NEAR_M.
BODY_DISTANCE_M, BODY_SLACK_M, BODY_DISTANCE_SD_M, BODY_ALONG_SD_M = 0.55, 0.1, 0.25, 0.40
NEAR_M = 2.0
# Weight of somebody whom no camera sees, against one person in view with ratio 1.
UNSEEN_WEIGHT = 0.002
TENTATIVE_WEIGHT = 0.3
# Clearance where no shelf is above; far more than a hand needs.
CLEAR_M = 1.0


def _hand_model(contact_shift_s: float) -> np.ndarray:
    """The constants above in the order of the kernel's enum."""
    return np.array([
        contact_shift_s, CONTACT_SD_S, COVER_MIN, HAND_BEYOND_WRIST_M, HAND_ERROR_M,
        ALONG_SD_WIDTHS, ACROSS_M, ACROSS_SD_M, HEIGHT_M, HEIGHT_SD_M, TAIL_WEIGHT, TAIL_WIDTH,
        AWAY_DENSITY, SHELF_DENSITY, STRETCH_M, STRETCH_SD_M, HANGING_M, HANGING_SD_M, STRETCH_TAIL,
        ELBOW_RATIO, ELBOW_REACH_M, SHOULDER_RATIO, SHOULDER_REACH_M, REACH_SD_M,
        BODY_DISTANCE_M, BODY_SLACK_M, BODY_DISTANCE_SD_M, BODY_ALONG_SD_M, HAND_ELSEWHERE_RATIO, NEAR_M,
        TENTATIVE_WEIGHT, LEAN_IN_M, LEAN_IN_SD_M,
    ])  # fmt: skip


TAKING, PUTTING = _hand_model(CONTACT_SHIFT_TAKE_S), _hand_model(CONTACT_SHIFT_PUT_S)

# ---- priors of what happens ------------------------------------------------------------------------------------------

# Nothing moved, though a load settled: a lean, a bag set down, a thing that no product list knows. Density per gram; a
# load that comes may well be such a thing, one that goes seldom is.
LOG_NOTHING_CAME, LOG_NOTHING_WENT = math.log(1e-3 / 400.0), math.log(1e-4 / 400.0)
# A hand that leans or a bag that rests on a shelf is gone by then.
LEAN_UNDONE_S, LOG_UNDONE = 30.0, math.log(300.0)
# A put-back goes where the product belongs, or (43 % of them, in an adversarial set) to any other place.
# The first have two plates to choose from, the others twenty within reach.
PLACED_RIGHT, PLACED_ELSEWHERE = 0.3, 0.02
# Somebody who takes from a plate takes one of the dozen pieces that belong there rather than the odd one left on it: so
# often that it is as rare as it was in 5900 simulated takes.
ODD_TAKEN, MAIN_SHARE = 0.08, (0.35, 0.65)
# A put-back of what one's cart does not hold: handed over by somebody of another visit who does, or brought along.
LOG_HANDED_OVER, LOG_BROUGHT = math.log(2e-3), math.log(1e-4)
# A put-back by somebody whom no camera sees: there are few of them, and they hold little.
LOG_UNSEEN_PUT = math.log(0.05)
# Two events of one person within so short a time need two hands. Of simulated pairs of events at two plates less than
# 0.6 m apart 13 in 471 were one person's, and 6 in 339 of those at least 0.2 s apart.
BUSY_S, LOG_BUSY = 0.8, math.log(0.02)
# Somebody else takes something in the second that a load takes to settle: people at a shelf take something every
# six seconds. And somebody with a hand for each of two things.
LOG_SAME_TIME, LOG_BOTH_HANDS = math.log(0.15), math.log(0.003)
# How long a load takes to come or go (between a quarter and three quarters of it): one grip 0.05 s, with a tail where
# the load is light against a hand's shaking; two, as far as they are apart. Fitted to 345 simulated grips.
RISE_S, RISE_SD_S, RISE_TAIL_S, RISE_TAIL, RISE_TAIL_G = 0.05, 0.025, 0.2, 0.05, 20.0
APART_S = 0.6
# Of grips that count as one person's, so many are two after all: one hand after the other, or twice the same.
REGRIP, BOTH_AT_ONCE = 0.2, 0.5
# Leans come and go about as fast as a grip (medians 0.06 and 0.05 s of 127 and 2650 simulated ones), with more tail.
LEANS_LIKE_GRIP = 0.7
# Only hands that are likelier at the plate than elsewhere share a load.
LOG_SHARING_RATIO = 0.0
# What somebody puts back is a piece that they took, and weighs what it weighed then: only noise, and what two plates
# or places differ by, tell the two loads apart. A piece taken where one was put just before is the same one every
# second time. Some loads are measured badly, or rest on something else.
LOG_SAME_PUT, LOG_OTHER_PUT = math.log(0.9), math.log(0.1)
LOG_SAME_TAKEN, LOG_OTHER_TAKEN = math.log(0.5), math.log(0.5)
SAME_PIECE_SD_G = 1.5
# Where goods moved with this probability, they tell how much the plates exaggerate.
KNOWN_WEIGHT = 0.95

# ---- plates that do not report ---------------------------------------------------------------------------------------

# A hand in the space above such a plate at two instants may have taken something, unless it did something that another
# plate so near told of at about that time. What it did is not known; half of such visits are touches.
HAND_HEIGHT_MAX_M, HAND_BESIDE_M = 0.35, 0.02
TOLD_WITHIN_S, TOLD_WITHIN_M = 1.5, 0.35
UNHEARD_PROBABILITY = 0.5
# A plate is reported a few seconds after it fell silent; so far hands are looked up when it is.
UNHEARD_BEFORE_NS = 7_000_000_000
WATCH_EVERY_NS = 500_000_000
UNHEARD_MAX = 1024

# ---- what classifiers see --------------------------------------------------------------------------------------------

# A look at the hand at a plate is about the load that moves there within this time; none is surer than that.
SEEN_WITHIN_S, SIGHT_FLOOR = 2.0, 0.01
SIGHTINGS_MAX = 256

# ---- limits ----------------------------------------------------------------------------------------------------------

EXPLANATIONS_MAX = 128
EVENTS_PER_COMPONENT_MAX = 24
OPEN_EVENTS_MAX = 1024
CANDIDATES_MAX = 48
PEOPLE_PER_EVENT_MAX = 8
PEOPLE_NEAR_MAX = 64
# Identifications worse than the best by a factor of exp(18) are dropped; so are candidates by exp(14).
LOG_SPREAD, LOG_CANDIDATE_SPREAD = 18.0, 14.0
SHARED_LOG_SPREAD = 9.0
# An event this certain is settled at once, so that it constrains later ones without being enumerated with them.
DECIDED = 0.9999
# Below this probability a candidate does not tie events together or keep one open.
NEGLIGIBLE = 1e-3


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
        parts: where the most probable explanation is a load of two parts, these, each with its whole probability.
    """

    event_id: int
    t_ns: int
    plate: str
    delta_g: float
    candidates: tuple[EventCandidate, ...]
    parts: tuple[EventCandidate, ...] = ()

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
        short: pieces by GTIN that they put back and had not taken.
    """

    items: dict[str, int]
    confidence: dict[str, float]
    probability: float
    reasons: tuple[Reason, ...]
    short: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Event:
    """An open event: its candidates are rows first .. first + n of its component's table."""

    event_id: int
    event: ShelfEvent
    plate: str
    total_g: float = field(init=False)
    noise_g2: float = field(init=False)
    plates: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.total_g = float(self.event.delta_g.sum())
        self.noise_g2 = float(self.event.cov_g2.sum())
        self.plates = frozenset(self.event.plates.tolist())


@dataclass(slots=True, eq=False)
class _Table:
    """Candidates, (n, 2) int32 each: a load has up to two parts, moved by one person or by two at the same time.

    Attributes:
        owner: whose hand it was, a track_id; -1 unknown.
        cart: who pays, see `Attributor.join`; -1 unknown.
        product: index into store.products.
        quantity: signed pieces; 0: no such part, in both parts: nothing moved.
    """

    owner: np.ndarray
    cart: np.ndarray
    product: np.ndarray
    quantity: np.ndarray

    @classmethod
    def empty(cls) -> _Table:
        return cls(*(np.zeros((0, 2), np.int32) for _ in range(4)))

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, rows: np.ndarray) -> _Table:
        return _Table(self.owner[rows], self.cart[rows], self.product[rows], self.quantity[rows])

    def plus(self, other: _Table) -> _Table:
        mine = (self.owner, self.cart, self.product, self.quantity)
        theirs = (other.owner, other.cart, other.product, other.quantity)
        return _Table(*(np.concatenate(pair) for pair in zip(mine, theirs)))


@dataclass(slots=True, eq=False)
class _Component:
    """Events that constrain each other, and their best joint explanations."""

    events: list[_Event]
    event_of: np.ndarray  # (n_candidates,) int32: which of `events` a candidate belongs to
    table: _Table
    choices: np.ndarray  # (n, n_events) int32, rows best first
    log_weight: np.ndarray  # (n,) float64, normalised

    # What follows from the above, kept by `refresh`.
    probability: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n_candidates,) of every candidate
    expected: dict[tuple[int, int], float] = field(default_factory=dict)  # pieces taken by (cart, product)
    people: set[int] = field(default_factory=set)  # who may have acted
    carts: set[int] = field(default_factory=set)  # and who would pay

    def refresh(self, marginals: Callable[..., None]) -> None:
        """Recompute what follows from the explanations; to be called after every change of them."""
        table = self.table
        self.probability = np.empty(len(table))
        marginals(self.choices, self.log_weight, self.probability)
        self.expected, self.people, self.carts = {}, set(), set()
        rows, parts = np.nonzero((self.probability[:, None] > 1e-4) & (table.owner >= 0) & (table.quantity != 0))
        columns = (
            table.owner[rows, parts], table.cart[rows, parts], table.product[rows, parts], table.quantity[rows, parts],
            self.probability[rows],
        )  # fmt: skip
        for owner, cart, product, quantity, p in zip(*(column.tolist() for column in columns)):
            if p > NEGLIGIBLE:
                self.people.add(owner)
                self.carts.add(cart)
            if quantity < 0:
                self.expected[cart, product] = self.expected.get((cart, product), 0.0) - quantity * p


@dataclass(slots=True, eq=False)
class _Decided:
    """An event that is as good as certain, kept until its person's cart is closed.

    Attributes:
        parts: (cart, product, quantity) of each part.
        doubt: by cart, the probability that it was something else that this cart took or put back.
        line_doubt: the same by (cart, product), of this product's quantity.
    """

    event: _Event
    belief: EventBelief
    parts: tuple[tuple[int, int, int], ...]
    doubt: dict[int, float]
    line_doubt: dict[tuple[int, int], float]


@dataclass(slots=True)
class _Scene:
    """Who may have done it.

    Attributes:
        owner: (n,) track ids, most likely first, -1 for somebody unseen at the end.
        log_ratio: (n,) how much likelier their hands and places are if they did it.
        log_total: log of the sum of all ratios; log_ratio - log_total is the log probability that they did it alone.
    """

    owner: np.ndarray
    log_ratio: np.ndarray
    log_total: float

    @property
    def near(self) -> list[int]:
        return self.owner[:-1].tolist()

    @property
    def log_probability(self) -> np.ndarray:
        return self.log_ratio - self.log_total


# Owners, products and quantities of the two parts of a load, log probability, log likelihood of the weight.
_Shared = tuple[int, int, int, int, int, int, float, float]


class Attributor:
    """Keeps the best joint explanations of all open shelf events.

    Attributes:
        planogram: what lies where, kept up to date with what was taken and put back.
        ignored: what had to be given up, by reason: limits that were reached.
    """

    def __init__(self, store: Store, planogram: Planogram) -> None:
        from fusion._kernels import attribution as kernel

        self._kernel = kernel
        self.planogram = planogram
        self.ignored: Counter[str] = Counter()
        self._product = {gtin: i for i, gtin in enumerate(self.planogram.gtins)}
        self._names = [plate.plate for plate in store.plates]
        self._derive(store)
        self._components: list[_Component] = []
        self._decided: list[_Decided] = []
        self._lately: deque[_Decided] = deque()  # Those of the last LEAN_UNDONE_S.
        self._held: Counter[tuple[int, int]] = Counter()  # Certain pieces by (cart, product).
        # Certain takes by (cart, product): a piece that is put back weighs what it weighed.
        self._taken: defaultdict[tuple[int, int], list[_Decided]] = defaultdict(list)
        self._cart: dict[int, int] = {}  # By track id, of those who joined a visit.
        self._cart_of_visit: dict[str, int] = {}
        self._gone: set[int] = set()  # Carts that were settled and still share an open event.
        self._watched_ns: dict[int, int] = {}  # By plate that does not report: up to when hands were looked up.
        self._unheard: deque[tuple[int, int, int]] = deque(maxlen=UNHEARD_MAX)  # (time, plate, person).
        self._sightings: deque[tuple[int, int, int, float]] = deque(maxlen=SIGHTINGS_MAX)
        self._staff: set[int] = set()
        self._n_events = 0
        self._origin_ns: int | None = None
        self._key = np.empty(EXPLANATIONS_MAX)
        self._pick = np.empty(EXPLANATIONS_MAX, np.int32)
        self._person = np.empty(PEOPLE_NEAR_MAX, np.int64)
        self._log_ratio = np.empty(PEOPLE_NEAR_MAX)
        self._hands = np.empty((PEOPLE_NEAR_MAX, 2, kernel.HAND_COLUMNS))

    def _derive(self, store: Store) -> None:
        self._centre_m = np.array([(p.x, p.y, p.z) for p in store.plates]).reshape(-1, 3)
        self._depth_m = np.array([p.depth for p in store.plates])
        self._width_m = np.array([p.width for p in store.plates])
        self._above_m = np.array([self._clearance_m(centre) for centre in self._centre_m])
        self._yaw = np.array([p.yaw for p in store.plates])

    def adopt(self, store: Store) -> None:
        """Go on with a store of the same layout; see `Engine.adopt`. What was explained is not explained anew."""
        self._derive(store)

    def _clearance_m(self, centre: np.ndarray) -> float:
        """How far above a plate the next shelf is."""
        beside = np.hypot(self._centre_m[:, 0] - centre[0], self._centre_m[:, 1] - centre[1]) < 0.1
        above = self._centre_m[beside, 2] - centre[2]
        above = above[above > 0.1]
        return min(CLEAR_M, float(above.min())) if len(above) else CLEAR_M

    # ---- observing ---------------------------------------------------------------------------------------------------

    def observe(self, event: ShelfEvent, history: ArmHistory) -> EventBelief:
        """Take in an event; returns what it looks like now. Later events may change that."""
        if self._origin_ns is None:
            self._origin_ns = event.contact_ns
        at = int(event.plates[np.argmax(np.abs(event.delta_g))])
        opened = _Event(self._n_events, event, self._names[at])
        self._n_events += 1
        while self._lately and event.contact_ns - self._lately[0].event.event.contact_ns > LEAN_UNDONE_S * 1e9:
            self._lately.popleft()
        scene = self._scene(event, history)
        found, log_place = self._what(event, scene)
        log_seen, log_seen_otherwise = self._log_seen(event)
        log_place = log_place + log_seen[found.product]
        log_nothing = self._log_nothing(event) + log_seen_otherwise
        taken = event.delta_g.sum() < 0
        shared = self._shared(event, scene, found, log_place, log_seen, history) if taken else []
        component = self._explain(opened, scene, found, log_place, log_nothing, shared)
        belief = self._belief(component, opened)
        for candidate in belief.candidates:
            self.planogram.move(at, self._product[candidate.gtin], candidate.quantity * candidate.probability)
        self._learn(event, belief)
        self._decide(component, opened, belief)
        self._limit()
        return belief

    def watch(self, plates: Collection[int], history: ArmHistory, now_ns: int) -> None:
        """Note whose hands were over plates (indices) that do not report: what they did there is not known."""
        for plate in [plate for plate in self._watched_ns if plate not in plates]:
            # It reports again, and tells of what was done meanwhile.
            del self._watched_ns[plate]
            others = [one for one in self._unheard if one[1] != plate]
            self._unheard = deque(others, maxlen=UNHEARD_MAX)
        for plate in plates:
            since_ns = self._watched_ns.get(plate, now_ns - UNHEARD_BEFORE_NS)
            if now_ns - since_ns < WATCH_EVERY_NS:
                continue
            self._watched_ns[plate] = now_ns
            rows = history.between(since_ns + 1, now_ns)
            near = ((history.position_m[rows] - self._centre_m[plate, :2]) ** 2).sum(axis=1) < NEAR_M**2
            if not near.any():
                continue
            cos, sin = math.cos(self._yaw[plate]), math.sin(self._yaw[plate])
            hand = history.hands_m(rows)[near] - self._centre_m[plate]
            along = np.abs(hand[..., 0] * cos + hand[..., 1] * sin) < 0.5 * self._width_m[plate] + HAND_BESIDE_M
            across = np.abs(hand[..., 1] * cos - hand[..., 0] * sin) < 0.5 * self._depth_m[plate] + HAND_BESIDE_M
            height_m = min(HAND_HEIGHT_MAX_M, self._above_m[plate])
            over = along & across & (hand[..., 2] > -HAND_BESIDE_M) & (hand[..., 2] < height_m)
            track, t_ns = history.track[rows][near], history.t_ns[rows][near]
            for person in np.unique(track[over.any(axis=1)]).tolist():
                at = t_ns[over.any(axis=1) & (track == person)]
                if len(at) >= 2:
                    self._unheard.append((int(at[len(at) // 2]), plate, person))

    def _unheard_of(self, carts: set[int]) -> list[str]:
        """Plates that do not report and that these carts' people reached into for no reason that others told of."""
        told = [(one.event.event, one.parts) for one in self._decided]
        for component in self._components:
            for index, opened in enumerate(component.events):
                row = int(np.argmax(np.where(component.event_of == index, component.probability, -1.0)))
                told.append((opened.event, _parts(component.table, row)))
        found = {}
        for t_ns, plate, person in self._unheard:
            if self._cart_of(person) in carts and plate not in found and person not in self._staff:
                explained = any(
                    abs(event.contact_ns - t_ns) < TOLD_WITHIN_S * 1e9
                    and any(cart in carts for cart, _, _ in parts)
                    and math.dist(self._centre_m[event.plates[0]], self._centre_m[plate]) < TOLD_WITHIN_M
                    for event, parts in told
                )
                if not explained:
                    found[plate] = self._names[plate]
        return list(found.values())

    def _learn(self, event: ShelfEvent, belief: EventBelief) -> None:
        """What the plates told of a known weight tells of the plates."""
        if belief.nothing > 1.0 - KNOWN_WEIGHT:
            return
        known: defaultdict[tuple[int, int], float] = defaultdict(float)
        for candidate in belief.candidates:
            known[self._product[candidate.gtin], candidate.quantity] += candidate.probability
        product, quantity = max(known, key=lambda what: known[what])
        # Which of two look-alikes it was matters little: they weigh nearly the same.
        weight_g = self.planogram.weight_g
        best_g = abs(quantity) * weight_g[product]
        other_g2 = sum(p * (abs(n) * weight_g[what] - best_g) ** 2 for (what, n), p in known.items())
        noise_g2 = float(event.cov_g2.sum()) + float(other_g2)
        self.planogram.learn_gain(event.plates, event.delta_g, noise_g2, product, quantity)

    def _what(self, event: ShelfEvent, scene: _Scene) -> tuple[Identifications, np.ndarray]:
        """Products and quantities that may have moved, and the log prior of each with its place."""
        noise_g2 = float(event.cov_g2.sum())
        if event.delta_g.sum() < 0:
            log_place = self._log_taken_from(event)
            found = self.planogram.identify(event.plates, event.delta_g, noise_g2, log_prior=log_place)
            return found, found.log_place
        place = np.exp(self.planogram.log_place(event.plates, event.delta_g))
        log_put = np.log(PLACED_RIGHT * np.minimum(place, 1.0) + PLACED_ELSEWHERE)
        # What nobody near holds is explained only if nothing else fits, but it must not crowd out what somebody does.
        expected = self._expected_pieces({self._cart_of(person) for person in scene.near})
        log_held = np.where(expected > 1e-4, 0.0, LOG_BROUGHT)
        if any(person in self._staff for person in scene.near):
            log_held = np.zeros_like(log_held)
        found = self.planogram.identify(event.plates, event.delta_g, noise_g2, log_prior=log_put + log_held)
        return found, log_put[found.product]

    def _log_taken_from(self, event: ShelfEvent) -> np.ndarray:
        """(n_products,) log prior that a take is of a product, from where most of the load rested."""
        log_place = self.planogram.log_place(event.plates, event.delta_g)
        share = np.abs(event.delta_g) / float(np.abs(event.delta_g).sum())
        belongs = share @ self.planogram.planned[event.plates]
        # A piece lies on the plate that bears more than half of it; shares are measured to a tenth or so.
        belongs = np.clip((belongs - MAIN_SHARE[0]) / (MAIN_SHARE[1] - MAIN_SHARE[0]), 0.0, 1.0)
        return log_place + np.log(ODD_TAKEN + (1.0 - ODD_TAKEN) * belongs)

    def sight(self, t_ns: int, plate: str, gtin: str, probability: float) -> bool:
        """A classifier saw a product in a hand at a plate; False where the store has no such plate or product."""
        if plate not in self._names or gtin not in self._product:
            return False
        self._sightings.append((t_ns, self._names.index(plate), self._product[gtin], probability))
        return True

    def _log_seen(self, event: ShelfEvent) -> tuple[np.ndarray, float]:
        """(n_products,) what classifiers say of a load of each product, and of anything else.

        They are right as often as they claim, or see another of all products, and see no more in a hand that moves
        nothing.
        """
        out, log_otherwise = np.zeros(len(self.planogram.gtins)), 0.0
        others = max(len(out) - 1, 1)
        for t_ns, plate, product, probability in self._sightings:
            if plate in event.plates and abs(t_ns - event.contact_ns) < SEEN_WITHIN_S * 1e9:
                p = min(max(probability, SIGHT_FLOOR), 1.0 - SIGHT_FLOOR)
                log_wrong = math.log((1.0 - p) / others)
                out += log_wrong
                out[product] += math.log(p) - log_wrong
                log_otherwise += log_wrong
        return out, log_otherwise

    def _expected_pieces(self, carts: set[int] | None) -> np.ndarray:
        """(n_products,) pieces that these carts (None: all) are expected to have taken, put-backs not subtracted."""
        pieces = np.zeros(len(self.planogram.gtins))
        for (cart, product), quantity in self._held.items():
            if carts is None or cart in carts:
                pieces[product] += max(quantity, 0)
        for component in self._components:
            if carts is None or carts & component.carts:
                for (cart, product), expected in component.expected.items():
                    if carts is None or cart in carts:
                        pieces[product] += expected
        return pieces

    def _candidates(
        self,
        event: ShelfEvent,
        scene: _Scene,
        found: Identifications,
        log_place: np.ndarray,
        log_nothing: float,
        shared: list[_Shared],
    ) -> tuple[_Table, np.ndarray, np.ndarray]:
        """The new event's candidates, the last of them that nothing moved: table, log prior times likelihood, and the
        log likelihood of the weight alone."""
        taken = float(event.delta_g.sum()) < 0
        rise = _rise(event)
        log_rise = np.where(np.abs(found.quantity) > 1, math.log(rise.of_many), math.log(rise.of_one))
        log_what = found.log_likelihood + log_place + found.log_quantity + log_rise
        n_what, n_who = len(log_what), len(scene.owner)
        owner = np.zeros((n_what * n_who, 2), np.int32)
        product, quantity = owner.copy(), owner.copy()
        owner[:, 0] = np.repeat(scene.owner, n_what)
        owner[:, 1] = -1
        product[:, 0] = np.tile(found.product, n_who)
        quantity[:, 0] = np.tile(found.quantity, n_who)
        log_who = scene.log_probability
        log_candidate = log_who[:, None] + log_what
        if not taken:
            log_candidate[-1] += LOG_UNSEEN_PUT
        log_candidate = log_candidate.ravel()
        log_weight = np.tile(found.log_likelihood, n_who)
        if shared:
            rows = np.array([row[:6] for row in shared], np.int32).reshape(-1, 3, 2)
            owner = np.concatenate([owner, rows[:, 0]])
            product = np.concatenate([product, rows[:, 1]])
            quantity = np.concatenate([quantity, rows[:, 2]])
            log_candidate = np.append(log_candidate, [row[6] for row in shared])
            log_weight = np.append(log_weight, [row[7] for row in shared])
        order = np.argsort(-log_candidate, kind="stable")[:CANDIDATES_MAX]
        if len(order):
            # A put-back's best candidate may turn out not to be held, so put-backs keep a wider field.
            spread = LOG_CANDIDATE_SPREAD if taken else 2.0 * LOG_CANDIDATE_SPREAD
            order = order[log_candidate[order] > log_candidate[order[0]] - spread]
        nothing = np.array([[-1, -1]], np.int32), np.zeros((1, 2), np.int32)
        owner = np.concatenate([owner[order], nothing[0]])
        cart = np.array([self._cart_of(person) for person in owner.ravel().tolist()], np.int32).reshape(-1, 2)
        table = _Table(
            owner, cart, np.concatenate([product[order], nothing[1]]), np.concatenate([quantity[order], nothing[1]])
        )
        log_nothing += math.log(rise.of_nothing)
        return table, np.append(log_candidate[order], log_nothing), np.append(log_weight[order], log_nothing)

    def _shared(
        self,
        event: ShelfEvent,
        scene: _Scene,
        found: Identifications,
        log_place: np.ndarray,
        log_seen: np.ndarray,
        history: ArmHistory,
    ) -> list[_Shared]:
        """Two loads that left the plates before they came to rest in between: pieces of one product or of two, taken by
        two people or by the two hands of one."""
        whats = []
        one, two = math.log(QUANTITY_PRIOR[0]), math.log(QUANTITY_PRIOR[1])
        for i in range(len(found.product)):
            pieces, product = -int(found.quantity[i]), int(found.product[i])
            for a in range(1, pieces) if pieces <= 3 else ():
                log_grips = sum(one if n == 1 else two for n in (a, pieces - a))
                log_what = float(found.log_likelihood[i] + log_place[i]) + log_grips
                whats.append((product, product, -a, a - pieces, log_what, float(found.log_likelihood[i])))
        for x, y, log_likelihood in self.planogram.mixtures(event.plates, event.delta_g, float(event.cov_g2.sum())):
            log_what = log_likelihood + 2.0 * one + max(float(log_seen[x]), float(log_seen[y]))
            whats.append((x, y, -1, -1, log_what, log_likelihood))
            whats.append((y, x, -1, -1, log_what, log_likelihood))
        if not len(found.product):
            return []
        # What weighs so much worse than the best single explanation cannot be made up for by any hand.
        least = float((found.log_likelihood + log_place + found.log_quantity).max()) - SHARED_LOG_SPREAD
        whats = [what for what in whats if what[4] > least]
        if not whats:
            return []
        actors = [row for row in range(len(scene.owner) - 1) if scene.log_ratio[row] > LOG_SHARING_RATIO][:3]
        if not actors:
            return []
        rise = _rise(event)
        # The contact is that of the heavier load or in between; the other one left at any time while the plates moved.
        others = [one for one in self._log_ratios(event, history, anytime=True) if one[1] > LOG_SHARING_RATIO]
        others = sorted(others, key=lambda one: (-one[1], one[0]))[:3]
        out = []
        for x, y, qx, qy, log_what, log_likelihood in whats:
            for i in actors:
                person, log_who = int(scene.owner[i]), float(scene.log_probability[i]) + log_what
                if x < y:  # Two grips of one product are that many pieces; of two products, in any order.
                    log_both = log_who + LOG_BOTH_HANDS + math.log(rise.of_both_hands)
                    out.append((person, person, x, y, qx, qy, log_both, log_likelihood))
                for other, log_ratio in others:
                    if other != person:
                        log_both = log_who + LOG_SAME_TIME + log_ratio + math.log(rise.of_two)
                        out.append((person, other, x, y, qx, qy, log_both, log_likelihood))
        return out

    def _log_nothing(self, event: ShelfEvent) -> float:
        total_g = float(event.delta_g.sum())
        return (LOG_NOTHING_WENT if total_g < 0 else LOG_NOTHING_CAME) - abs(total_g) / 2000.0

    def _explain(
        self,
        opened: _Event,
        scene: _Scene,
        found: Identifications,
        log_place: np.ndarray,
        log_nothing: float,
        shared: list[_Shared],
    ) -> _Component:
        """The new event's component: candidates, the components they tie together, the best joint explanations."""
        table, log_candidate, log_weight = self._candidates(opened.event, scene, found, log_place, log_nothing, shared)
        n_new = len(table)
        tied = self._tied(opened, table)
        base = self._merged(tied)
        first = len(base.table)
        held = np.zeros((n_new, 2), np.int32)
        for row, part in np.argwhere((table.cart >= 0) & (table.quantity > 0)).tolist():
            held[row, part] = self._held.get((int(table.cart[row, part]), int(table.product[row, part])), 0)
        log_not_held = self._log_not_held(table)
        log_pair, settled_ratio, n_settled = self._log_pair(base, opened, table, log_weight)
        base.events.append(opened)
        base.event_of = np.append(base.event_of, np.full(n_new, len(base.events) - 1, np.int32))
        base.table = base.table.plus(table)
        origin_ns = self._origin_ns or 0
        event_s = np.array([(one.event.contact_ns - origin_ns) * 1e-9 for one in base.events])
        whole = base.table
        kept = self._kernel.extend(
            base.choices, base.log_weight, whole.owner, whole.cart, whole.product, whole.quantity, first, event_s,
            log_candidate, log_not_held, held, log_pair, settled_ratio, n_settled, BUSY_S, LOG_BUSY,
            self._key, self._pick, LOG_SPREAD,
        )  # fmt: skip
        rows, picks = np.divmod(self._pick[:kept], n_new)
        base.choices = np.concatenate([base.choices[rows], (first + picks)[:, None]], axis=1).astype(np.int32)
        base.log_weight = _normalised(self._key[:kept])
        base.refresh(self._kernel.marginals)
        self._components = [one for one in self._components if all(one is not other for other in tied)]
        self._components.append(base)
        return base

    def _log_pair(
        self, base: _Component, opened: _Event, table: _Table, log_weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How much likelier new candidates are as the undoing of earlier events.

        Returns:
            (n_old, n_new) log ratio beside an older open candidate, NaN where the one does not undo the other,
            infinite where the older undid what the newer would, without rows where none does; (n_new,) sum of the
            ratios beside events that are settled, and how many those are.
        """
        n_new = len(table)
        settled = np.zeros(n_new), np.zeros(n_new, np.int32)
        doing = _rows_by_what(table)
        if opened.total_g > 0:
            put = sorted(what for what in doing if what[0] >= 0)
            earlier = [one for what in put for one in self._taken.get(what, ())]
        else:
            earlier = list(self._lately)
            # A lean is undone once.
            undoings = [at for at, one in enumerate(earlier) if not one.parts and _alike(one.event, opened)]
            earlier = earlier[undoings[-1] + 1 :] if undoings else earlier
        for one in earlier:
            for row, log_ratio in self._log_undone(one.event, one.parts, opened, doing, table, log_weight):
                settled[0][row] += math.exp(log_ratio)
                settled[1][row] += 1
        pairs: list[tuple[int, int, float]] = []
        for index, other in enumerate(base.events):
            same_way = other.total_g * opened.total_g > 0
            if same_way and (opened.total_g > 0 or not _alike(other, opened)):
                continue
            for row in np.flatnonzero((base.event_of == index) & (base.probability > 1e-6)).tolist():
                parts = _parts(base.table, row)
                if not same_way:
                    undone = self._log_undone(other, parts, opened, doing, table, log_weight)
                    pairs += [(row, new, log_ratio) for new, log_ratio in undone]
                elif not parts:
                    pairs.append((row, n_new - 1, math.inf))
        log_pair = np.full((len(base.table) if pairs else 0, n_new), np.nan)
        for row, new, log_ratio in pairs:
            log_pair[row, new] = log_ratio
        return log_pair, *settled

    def _log_undone(
        self,
        earlier: _Event,
        parts: Sequence[tuple[int, int, int]],
        opened: _Event,
        doing: Mapping[tuple[int, int], list[int]],
        table: _Table,
        log_weight: np.ndarray,
    ) -> list[tuple[int, float]]:
        """The new candidates that undo what an earlier event was, and the log ratio of each.

        A lean goes as it came, and a piece weighs what it weighed: nothing but noise, and what plates differ by, tells
        the two loads apart, while those of two pieces differ by their deviations and by the label's.
        """
        if not parts:
            # Hands lean on a shelf and are gone; nothing but goods leaves a plate and comes again.
            left = _undone(earlier, opened) if earlier.total_g > 0 else None
            if left is None:
                return []
            log_same = -0.5 * (left.left_g / left.sd_g) ** 2 - math.log(left.sd_g * math.sqrt(2.0 * math.pi))
            return [(len(table) - 1, max(log_same + LOG_UNDONE - float(log_weight[-1]), 0.0))]
        cart, product, quantity = parts[0]
        rows = doing.get((cart, product))
        if rows is None or len(parts) > 1 or cart < 0 or (quantity > 0 and _undone(earlier, opened) is None):
            return []
        if quantity < 0:
            log_is, log_other = LOG_SAME_PUT, LOG_OTHER_PUT
            most, least = -quantity, 1
        else:
            log_is, log_other = LOG_SAME_TAKEN, LOG_OTHER_TAKEN
            most = least = -quantity
        out = []
        for row in rows:
            pieces = int(table.quantity[row, 0])
            if least <= pieces <= most:
                part = abs(pieces) / abs(quantity)
                piece_g2 = abs(pieces) * (1.0 - part) * float(self.planogram.weight_sd_g[product]) ** 2
                log_same = self._log_same_load(earlier, opened, part, piece_g2)
                out.append((row, float(np.logaddexp(log_other, log_is + log_same - float(log_weight[row])))))
        return out

    def _log_same_load(self, earlier: _Event, later: _Event, part: float, piece_g2: float) -> float:
        """Log density of the later load if it is this part of the earlier one; piece_g2: variance of the part."""
        share_by: defaultdict[int, float] = defaultdict(float)
        gain, place_var = [], 0.0
        for one, sign in ((earlier, -1.0), (later, 1.0)):
            share = np.abs(one.event.delta_g) / float(np.abs(one.event.delta_g).sum())
            gain.append(float(share @ self.planogram.gain[one.event.plates]))
            place_var += PLACE_GAIN_SD**2 * float(share @ share)
            for plate, of_plate in zip(one.event.plates.tolist(), share.tolist()):
                share_by[plate] += sign * of_plate
        # What both loads have in common of a plate's gain cancels.
        gain_var = sum(share * share * float(self.planogram.gain_var[plate]) for plate, share in share_by.items())
        expected_g = abs(earlier.total_g) * part * gain[1] / gain[0]
        var_g2 = part * part * earlier.noise_g2 + later.noise_g2 + SAME_PIECE_SD_G**2 + piece_g2
        var_g2 += expected_g**2 * (gain_var + place_var)
        off_g = abs(later.total_g) - expected_g
        return -0.5 * (off_g * off_g / var_g2 + math.log(2.0 * math.pi * var_g2))

    def _log_not_held(self, table: _Table) -> np.ndarray:
        """(n_new, 2) what it costs a candidate to put back a piece that its cart does not hold."""
        cost = np.zeros((len(table), 2))
        anyone: np.ndarray | None = None
        for row, part in np.argwhere(table.quantity > 0).tolist():
            if int(table.owner[row, part]) in self._staff:
                continue
            if anyone is None:
                anyone = self._expected_pieces(None)
            cost[row, part] = LOG_HANDED_OVER if anyone[table.product[row, part]] > 0.3 else LOG_BROUGHT
        return cost

    def _tied(self, opened: _Event, table: _Table) -> list[_Component]:
        """The components that the new event's candidates depend on."""
        acts = (table.owner >= 0) & (table.quantity != 0)
        people = set(table.owner[acts].tolist())
        puts = acts & (table.quantity > 0)
        put = set(zip(table.cart[puts].tolist(), table.product[puts].tolist()))
        contact_ns = opened.event.contact_ns
        tied = []
        for component in self._components:
            if any(_undone(one, opened) for one in component.events):
                tied.append(component)
                continue
            close = any(abs(one.event.contact_ns - contact_ns) < BUSY_S * 1e9 for one in component.events)
            if (close and people & component.people) or any(
                component.expected.get(pair, 0.0) > NEGLIGIBLE for pair in put
            ):
                tied.append(component)
        return tied

    def _merged(self, components: Sequence[_Component]) -> _Component:
        """One component in place of several that were independent so far."""
        merged = _Component([], np.zeros(0, np.int32), _Table.empty(), np.zeros((1, 0), np.int32), np.zeros(1))
        for component in components:
            while len(merged.events) + len(component.events) >= EVENTS_PER_COMPONENT_MAX and component.events:
                self.ignored["attribution: joint explanation cut"] += 1
                self._fix(component, 0)
            if not component.events:
                continue
            if not merged.events:
                merged = component
                continue
            kept = self._kernel.merge(merged.log_weight, component.log_weight, self._key, self._pick, LOG_SPREAD)
            rows_a, rows_b = np.divmod(self._pick[:kept], len(component.log_weight))
            merged = _Component(
                merged.events + component.events,
                np.append(merged.event_of, component.event_of + np.int32(len(merged.events))),
                merged.table.plus(component.table),
                np.concatenate(
                    [merged.choices[rows_a], component.choices[rows_b] + np.int32(len(merged.table))], axis=1
                ).astype(np.int32),
                _normalised(self._key[:kept]),
                np.append(merged.probability, component.probability),
            )
        return merged

    # ---- settling events that are certain ----------------------------------------------------------------------------

    def _decide(self, component: _Component, newest: _Event, belief: EventBelief) -> None:
        """Take events out of a component that are as good as certain; what the newest is, is known already."""
        for index in range(len(component.events) - 1, -1, -1):
            if component.probability[component.event_of == index].max() > DECIDED:
                self._fix(component, index, belief if component.events[index] is newest else None)
                if not component.events:
                    break
        if not component.events:
            self._components = [one for one in self._components if one is not component]

    def _fix(self, component: _Component, index: int, belief: EventBelief | None = None) -> None:
        """Condition a component on the most probable candidate of one of its events, and take the event out."""
        opened = component.events[index]
        if belief is None:
            belief = self._belief(component, opened)
        of_event = np.flatnonzero(component.event_of == index)
        choice = int(of_event[np.argmax(component.probability[of_event])])
        parts = _parts(component.table, choice)
        decided = _Decided(opened, belief, parts, *_doubts(component, of_event, parts))
        self._decided.append(decided)
        if len(parts) == 1 and parts[0][2] < 0:
            self._taken[parts[0][:2]].append(decided)
        self._lately.append(decided)
        for cart, product, quantity in parts:
            if cart >= 0:
                self._held[cart, product] -= quantity
        if len(component.events) == 1:
            component.events.clear()
            return
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
        summed: defaultdict[tuple[int, int, int], float] = defaultdict(float)
        table = component.table
        for row in np.flatnonzero((component.event_of == index) & (component.probability > 0.0)).tolist():
            there = [part for part in range(2) if table.quantity[row, part]]
            for part in there:
                key = int(table.owner[row, part]), int(table.product[row, part]), int(table.quantity[row, part])
                summed[key] += float(component.probability[row]) / len(there)
        candidates = tuple(
            EventCandidate(None if owner < 0 else owner, self.planogram.gtins[product], quantity, min(p, 1.0))
            for (owner, product, quantity), p in sorted(summed.items(), key=lambda item: (-item[1], item[0]))
            if p > 1e-6
        )
        event = opened.event
        parts = self._two_parts(component, index)
        total_g = float(event.delta_g.sum())
        return EventBelief(opened.event_id, event.contact_ns, opened.plate, total_g, candidates, parts)

    def cart(self, people: Collection[int], given: Mapping[str, int] | None = None) -> CartBelief:
        """The goods most probably held together by these people (track ids), from the events that are still open.

        given: pieces by GTIN that they got from people of other carts; negative: gave to them.
        """
        wanted = {self._cart_of(person) for person in people}
        items: Counter[int] = Counter({self._product[gtin]: n for gtin, n in (given or {}).items()})
        log_right = 0.0
        log_line: defaultdict[int, float] = defaultdict(float)
        doubts: list[tuple[float, Reason]] = []
        for one in self._decided:
            for cart, product, quantity in one.parts:
                if cart in wanted:
                    items[product] -= quantity
                    log_line[product] += 0.0
            for (cart, product), p in one.line_doubt.items():
                if cart in wanted:
                    log_line[product] += math.log(max(1.0 - p, 1e-12))
            right = 1.0 - sum(p for cart, p in one.doubt.items() if cart in wanted)
            log_right += math.log(max(right, 1e-12))
            if right < 0.99:
                plate, delta_g = one.event.plate, one.event.total_g
                reason = Reason(ReasonKind.EVENT_UNCERTAIN, plate=plate, delta_g=delta_g, probability=right)
                doubts.append((right, reason))
        for component in self._components:
            of_cart = np.isin(component.table.cart, list(wanted)) & (component.table.quantity != 0)
            if not of_cart.any():
                continue
            taken, line, right = self._contribution(component, of_cart)
            for product, quantity in taken.items():
                items[product] += quantity
            for product, p in line.items():
                log_line[product] += math.log(max(p, 1e-12))
            log_right += math.log(max(right, 1e-12))
            if right < 0.99:
                doubts.append((right, self._doubt(component, of_cart)))
        negative = [product for product, quantity in items.items() if quantity < 0]
        if negative:
            for product in negative:
                gtin = self.planogram.gtins[product]
                reason = Reason(ReasonKind.RETURNED_MORE_THAN_TAKEN, gtin=gtin, quantity=-items[product])
                doubts.append((0.0, reason))
            log_right += math.log(0.5)
        for name in self._unheard_of(wanted):
            doubts.append((UNHEARD_PROBABILITY, Reason(ReasonKind.PLATE_NOT_REPORTING, plate=name)))
            log_right += math.log(UNHEARD_PROBABILITY)
        gtins = self.planogram.gtins
        return CartBelief(
            {gtins[product]: quantity for product, quantity in sorted(items.items()) if quantity > 0},
            {gtins[product]: min(math.exp(log_p), 1.0) for product, log_p in sorted(log_line.items())},
            min(math.exp(log_right), 1.0),
            tuple(reason for _, reason in sorted(doubts, key=lambda doubt: (doubt[0], doubt[1].plate or ""))),
            {gtins[product]: -items[product] for product in sorted(negative)},
        )

    def _contribution(self, component: _Component, mine: np.ndarray) -> tuple[dict[int, int], dict[int, float], float]:
        """What a component most probably adds to a cart: pieces by product, the probability of each, of all."""
        weight = np.exp(component.log_weight)
        product, quantity = component.table.product.tolist(), component.table.quantity.tolist()
        taken_by = {
            row: [(product[row][part], -quantity[row][part]) for part in range(2) if mine[row, part]]
            for row in np.flatnonzero(mine.any(axis=1)).tolist()
        }
        outcomes: dict[tuple[tuple[int, int], ...], float] = {}
        for row, p in zip(component.choices.tolist(), weight.tolist()):
            taken: Counter[int] = Counter()
            for choice in row:
                for item, pieces in taken_by.get(choice, ()):
                    taken[item] += pieces
            key = tuple(sorted((item, n) for item, n in taken.items() if n))
            outcomes[key] = outcomes.get(key, 0.0) + p
        best = max(outcomes, key=lambda key: (outcomes[key], key))
        chosen = dict(best)
        products = {item for key in outcomes for item, _ in key}
        line = {
            item: sum(p for key, p in outcomes.items() if dict(key).get(item, 0) == chosen.get(item, 0))
            for item in products
        }
        return chosen, line, outcomes[best]

    def _doubt(self, component: _Component, mine: np.ndarray) -> Reason:
        """Why a component makes a cart uncertain: the event that is least clear, and what about it."""
        table, probability = component.table, component.probability
        worst, reason = 1.1, Reason(ReasonKind.CART_UNCERTAIN)
        for index, opened in enumerate(component.events):
            of_event = component.event_of == index
            if not (of_event[:, None] & mine).any():
                continue
            top = float(probability[of_event].max())
            who_p = _largest(table.cart[of_event], probability[of_event])
            what_p = _largest(np.stack([table.product, table.quantity], axis=1)[of_event], probability[of_event])
            if top < worst:
                worst = top
                kind = ReasonKind.PERSON_UNCERTAIN if who_p < what_p else ReasonKind.GOODS_UNCERTAIN
                delta_g = float(opened.event.delta_g.sum())
                reason = Reason(kind, plate=opened.plate, delta_g=delta_g, probability=top)
        return reason

    # ---- closing -----------------------------------------------------------------------------------------------------

    def settle(self, people: Collection[int]) -> list[EventBelief]:
        """These people are gone: freeze and hand out the events that nobody who is still here may have caused."""
        leaving = {self._cart_of(person) for person in people}
        gone = self._gone = self._gone | leaving
        over = [all(cart in gone or cart < 0 for cart, _, _ in one.parts) for one in self._decided]
        released = [one.belief for one, is_over in zip(self._decided, over) if is_over]
        self._decided = [one for one, is_over in zip(self._decided, over) if not is_over]
        for component in list(self._components):
            table = component.table
            others = (table.cart >= 0) & (table.quantity != 0) & ~np.isin(table.cart, list(gone))
            theirs = others.any(axis=1)
            for index in range(len(component.events) - 1, -1, -1):
                if component.probability[(component.event_of == index) & theirs].sum() < 10 * NEGLIGIBLE:
                    released.append(self._belief(component, component.events[index]))
                    theirs = theirs[component.event_of != index]
                    _drop_event(component, index)
                    component.refresh(self._kernel.marginals)
        self._components = [component for component in self._components if component.events]
        for key in [key for key in self._held if key[0] in leaving]:
            del self._held[key]
        for key in [key for key in self._taken if key[0] in leaving]:
            del self._taken[key]
        staying = [one for one in self._unheard if self._cart_of(one[2]) not in leaving]
        self._unheard = deque(staying, maxlen=UNHEARD_MAX)
        self._cart = {person: cart for person, cart in self._cart.items() if cart not in leaving}
        self._cart_of_visit = {visit: cart for visit, cart in self._cart_of_visit.items() if cart not in leaving}
        self._gone &= {cart for component in self._components for cart in component.carts}
        return sorted(released, key=lambda belief: belief.event_id)

    def finish(self) -> list[EventBelief]:
        """All events that are still open; nothing is open afterwards."""
        released = [one.belief for one in self._decided]
        released += [self._belief(component, opened) for component in self._components for opened in component.events]
        self._decided, self._components = [], []
        self._lately.clear()
        self._held.clear()
        self._taken.clear()
        return sorted(released, key=lambda belief: belief.event_id)

    def set_staff(self, person: int) -> None:
        """Somebody moves goods without a cart, and may bring any."""
        self._staff.add(person)

    def join(self, person: int, visit: str) -> None:
        """Somebody (a track id) belongs to a visit: all its people share a cart, whatever they did before."""
        cart = self._cart_of_visit.setdefault(visit, person)
        old = self._cart_of(person)
        self._cart[person] = cart
        if old == cart:
            return
        for component in self._components:
            component.table.cart[component.table.owner == person] = cart
            component.refresh(self._kernel.marginals)
        for one in self._decided:
            one.parts = tuple((cart if part[0] == old else part[0], *part[1:]) for part in one.parts)
            if old in one.doubt:
                one.doubt[cart] = one.doubt.get(cart, 0.0) + one.doubt.pop(old)
            for key in [key for key in one.line_doubt if key[0] == old]:
                one.line_doubt[cart, key[1]] = one.line_doubt.get((cart, key[1]), 0.0) + one.line_doubt.pop(key)
        for key in [key for key in self._held if key[0] == old]:
            self._held[cart, key[1]] += self._held.pop(key)
        for key in [key for key in self._taken if key[0] == old]:
            self._taken[cart, key[1]] += self._taken.pop(key)

    def _cart_of(self, person: int) -> int:
        return self._cart.get(person, person)

    # ---- who was there -----------------------------------------------------------------------------------------------

    def _scene(self, event: ShelfEvent, history: ArmHistory) -> _Scene:
        """How likely everybody near is to have done it, and somebody unseen, from where hands, arms and bodies were."""
        near = self._log_ratios(event, history, event.silent)
        # A person is worth keeping if they might have done it at all, against somebody unseen.
        ranked = sorted(near, key=lambda item: (-item[1], item[0]))[:PEOPLE_PER_EVENT_MAX]
        ranked = [item for item in ranked if item[1] > math.log(HAND_ELSEWHERE_RATIO) - 4.0]
        owner = np.array([person for person, _ in ranked] + [-1], np.int64)
        log_ratio = np.array([value for _, value in ranked] + [math.log(UNSEEN_WEIGHT)])
        return _Scene(owner, log_ratio, float(np.logaddexp.reduce(log_ratio)))

    def _log_ratios(self, event: ShelfEvent, history: ArmHistory, anytime: bool) -> list[tuple[int, float]]:
        """Everybody near and how much likelier their hands are if they moved the load: at contact, or at any time while
        the plates moved."""
        if anytime:
            rows = history.between(event.onset_ns - 100_000_000, event.settled_ns)
        else:
            reach_ns = int(WINDOW_S * 1e9)
            rows = history.between(event.contact_ns - reach_ns, event.contact_ns + reach_ns)
        share = np.abs(event.delta_g) / np.abs(event.delta_g).sum()
        at = int(event.plates[np.argmax(share)])
        yaw = float(self._yaw[at])
        n = self._kernel.weigh(
            history.t_ns[rows], history.track[rows], history.confirmed[rows], history.position_m[rows],
            history.arms_m[rows], history.wrist_sd_m[rows], event.contact_ns, anytime,
            share @ self._centre_m[event.plates], math.cos(yaw), math.sin(yaw), self._width_m[at], self._depth_m[at],
            self._above_m[at], TAKING if event.delta_g.sum() < 0 else PUTTING, self._person, self._log_ratio,
            self._hands,
        )  # fmt: skip
        return list(zip(self._person[:n].tolist(), self._log_ratio[:n].tolist()))

    # ---- for carts, reviewers and shelves ----------------------------------------------------------------------------

    def beliefs(self) -> list[EventBelief]:
        """What every event that is not settled looks like now, in order of observation."""
        found = [one.belief for one in self._decided]
        found += [self._belief(component, opened) for component in self._components for opened in component.events]
        return sorted(found, key=lambda belief: belief.event_id)

    def _two_parts(self, component: _Component, index: int) -> tuple[EventCandidate, ...]:
        """The parts of an event's most probable explanation, where there are two."""
        table, of_event = component.table, np.flatnonzero(component.event_of == index)
        row = int(of_event[np.argmax(component.probability[of_event])])
        if not table.quantity[row].all():
            return ()
        p = float(component.probability[row])
        columns = table.owner[row].tolist(), table.product[row].tolist(), table.quantity[row].tolist()
        return tuple(
            EventCandidate(None if owner < 0 else owner, self.planogram.gtins[product], quantity, p)
            for owner, product, quantity in zip(*columns)
        )

    def revise(self, people: Collection[int], gtin: str, log_likelihood: np.ndarray) -> None:
        """Weigh the open explanations by how many pieces of a product these people hold together.

        log_likelihood (n,): of what was seen, by pieces; the last stands for more. What is decided stays.
        """
        wanted, product = list({self._cart_of(person) for person in people}), self._product[gtin]

        def theirs(table: _Table) -> np.ndarray:
            return np.isin(table.cart, wanted) & (table.product == product) & (table.quantity != 0)

        tied = [one for one in self._components if theirs(one.table)[one.probability > 1e-6].any()]
        if not tied:
            return
        merged = self._merged(tied)
        self._components = [one for one in self._components if all(one is not other for other in tied)]
        if not merged.events:
            return
        decided = -sum(
            quantity
            for one in self._decided
            for cart, item, quantity in one.parts
            if item == product and cart in wanted
        )
        taken = -np.where(theirs(merged.table), merged.table.quantity, 0).sum(axis=1)
        pieces = decided + taken[merged.choices].sum(axis=1)
        log_weight = _normalised(merged.log_weight + log_likelihood[np.clip(pieces, 0, len(log_likelihood) - 1)])
        order = np.argsort(-log_weight, kind="stable")
        merged.choices = np.ascontiguousarray(merged.choices[order])
        merged.log_weight = log_weight[order]
        merged.refresh(self._kernel.marginals)
        self._components.append(merged)


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of two loads of which one may undo the other, and the deviation of that from noise."""

    left_g: float
    sd_g: float


def _follows(earlier: _Event, later: _Event) -> bool:
    """Whether a load came or went soon after an earlier one, on one of its plates."""
    gap_s = (later.event.contact_ns - earlier.event.contact_ns) * 1e-9
    return 0.0 < gap_s < LEAN_UNDONE_S and bool(earlier.plates & later.plates)


def _undone(earlier: _Event, later: _Event) -> _Left | None:
    """Whether a load takes back an earlier one on the same plates."""
    if earlier.total_g * later.total_g > 0 or not _follows(earlier, later):
        return None
    left_g = earlier.total_g + later.total_g
    sd_g = math.sqrt(earlier.noise_g2 + later.noise_g2) + 2.0 + 0.02 * abs(later.total_g)
    return _Left(left_g, sd_g) if abs(left_g) < 4.0 * sd_g else None


def _alike(earlier: _Event, later: _Event) -> bool:
    """Whether both loads may have undone the same lean."""
    same_way = earlier.total_g * later.total_g > 0
    return same_way and _follows(earlier, later) and earlier.total_g / later.total_g < 2.0


@dataclass(frozen=True, slots=True)
class _Rise:
    """Density of how long a load took to come or go: one piece, several in a grip, two hands' or two people's grips; a
    hand that leans comes and goes about as fast as a piece."""

    of_nothing: float
    of_one: float
    of_many: float
    of_both_hands: float
    of_two: float


def _rise(event: ShelfEvent) -> _Rise:
    if math.isnan(event.rise_s):
        return _Rise(1.0, 1.0, 1.0, 1.0, 1.0)
    rise_s = max(event.rise_s, 0.0)
    tail = min(RISE_TAIL + RISE_TAIL_G / float(np.abs(event.delta_g).sum()), 0.5)
    one = (1.0 - tail) * math.exp(-0.5 * ((rise_s - RISE_S) / RISE_SD_S) ** 2) / (RISE_SD_S * math.sqrt(2.0 * math.pi))
    one += tail * math.exp(-rise_s / RISE_TAIL_S) / RISE_TAIL_S
    two = math.exp(-rise_s / APART_S) / APART_S
    of_nothing = LEANS_LIKE_GRIP * one + (1.0 - LEANS_LIKE_GRIP) * two
    many = (1.0 - REGRIP) * one + REGRIP * two
    return _Rise(of_nothing, one, many, (1.0 - BOTH_AT_ONCE) * two + BOTH_AT_ONCE * one, two)


def _rows_by_what(table: _Table) -> dict[tuple[int, int], list[int]]:
    """Rows of the candidates of one part, by cart and product."""
    rows: dict[tuple[int, int], list[int]] = {}
    one_part = np.flatnonzero((table.quantity[:, 0] != 0) & (table.quantity[:, 1] == 0))
    carts, products = table.cart[one_part, 0].tolist(), table.product[one_part, 0].tolist()
    for row, what in zip(one_part.tolist(), zip(carts, products)):
        rows.setdefault(what, []).append(row)
    return rows


def _parts(table: _Table, row: int) -> tuple[tuple[int, int, int], ...]:
    """(cart, product, quantity) of what a candidate moved."""
    columns = table.cart[row].tolist(), table.product[row].tolist(), table.quantity[row].tolist()
    return tuple(part for part in zip(*columns) if part[2])


def _doubts(
    component: _Component, of_event: np.ndarray, chosen: tuple[tuple[int, int, int], ...]
) -> tuple[dict[int, float], dict[tuple[int, int], float]]:
    """By cart, and by cart and product, the probability that an event did something else to it than what was chosen."""
    pieces = {(cart, product): quantity for cart, product, quantity in chosen if cart >= 0}
    doubt: defaultdict[int, float] = defaultdict(float)
    line_doubt: defaultdict[tuple[int, int], float] = defaultdict(float)
    for row in of_event[component.probability[of_event] > 0.0].tolist():
        other = {(cart, product): quantity for cart, product, quantity in _parts(component.table, row) if cart >= 0}
        different = {key for key in pieces.keys() | other.keys() if pieces.get(key) != other.get(key)}
        p = float(component.probability[row])
        for key in different:
            line_doubt[key] += p
        for cart in {cart for cart, _ in different}:
            doubt[cart] += p
    return dict(doubt), dict(line_doubt)


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    top = log_weight.max()
    return log_weight - (top + math.log(float(np.exp(log_weight - top).sum())))


def _largest(label: np.ndarray, probability: np.ndarray) -> float:
    """Probability of the most probable label; label (n, ...)."""
    summed: defaultdict[bytes, float] = defaultdict(float)
    for one, p in zip(label, probability.tolist()):
        summed[one.tobytes()] += p
    return max(summed.values())


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
    component.table = component.table.take(keep)
