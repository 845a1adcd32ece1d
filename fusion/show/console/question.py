"""The one question that a review comes down to, with everything that a person needs to answer it.

A bundle of evidence holds the most informative question (`fusion.goods.questions`). Here it becomes one sentence, the
measured weight beside the weight of every choice, whose hands were how near, and what each choice charges. Without
such a question, a review comes down to whether its bill is right.

What a page is sent (JSON; amounts in minor units, weights in grams):

    {"kind": "product" | "quantity" | "person" | "moved" | "bill", "sentence": text, "plate", "ms",
     "event": number of the shelf event or null, "weighed": [change, standard deviation] or null,
     "choices": [{"text", "goods": [[gtin, quantity], ...] (negative: taken), "p": probability or null,
                  "weight": [change, standard deviation] or null, "fits": "yes" | "barely" | "no" or null,
                  "decision": "accept" | "correct", "lines": [[gtin, quantity], ...], "total", "discounts"}, ...],
     "hands": [{"visit", "account", "mine", "cm": at the nearest, "over_cm", "side", "after_s": from the contact}, ...]}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fusion.errors import FusionError
from fusion.money.visits import Standing
from fusion.show.page import clean
from fusion.show.plan import CM_PER_M
from fusion.store.models import Plate, Store

# Standard deviations up to which a weight fits: 95 and 99.7 % of what is really that product.
FITS_SD, BARELY_SD = 2.0, 3.0
# Hands are compared while the load may have been held: the moment of contact is known to a few tenths of a second.
HANDS_S = 0.5
CHOICES_MAX = 6
_NS_PER_MS = 1_000_000

Pieces = list[tuple[str, int]]


class Charge(NamedTuple):
    """What a bill charges, minor units: what remains to pay, and what offers took off."""

    total: int
    discounts: int


class _Weight(NamedTuple):
    """A change of weight and its standard deviation, grams."""

    grams: float
    sd_g: float

    def rounded(self) -> list[float]:
        return [round(self.grams, 1), round(self.sd_g, 1)]


def question_row(
    bundle: Mapping[str, Any] | None,
    standing: Standing,
    store: Store,
    charge: Callable[[Pieces], Charge],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """The question of a review.

    Args:
        bundle: its evidence as in evidence.jsonl; None where there is none.
        standing: the visit.
        store: its products and plates.
        charge: what a bill of these pieces charges; raises where the store does not sell them.
        texts: of the page, in the language of the person who looks.

    Returns:
        See the text of the module. Evidence that a program has garbled is passed over.
    """
    if bundle is not None:
        try:
            asked = _Asked.of(bundle, store, texts)
            if asked is not None:
                return asked.row(standing, charge)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            pass  # what another program has garbled: the bill can still be decided
    own = _choice(texts["the bill"], [], None, _pieces_of(standing), standing, charge)
    sentence = texts["question bill"].format(reason=clean(standing.reason or texts["no reason"]))
    empty: dict[str, Any] = {"plate": None, "ms": None, "event": None, "weighed": None, "hands": []}
    return {"kind": "bill", "sentence": sentence, **empty, "choices": [own] if own else []}


class _Asked:
    """The first question of a bundle, with the shelf event that it is about."""

    def __init__(self, bundle: Mapping[str, Any], store: Store, texts: Mapping[str, str]) -> None:
        self._bundle, self._texts, self._question = bundle, texts, bundle["questions"][0]
        self._names = {product.gtin: product.name for product in store.products}
        self._label = {product.gtin: _Weight(product.weight_g, product.weight_sd_g) for product in store.products}
        self._plate = next((plate for plate in store.plates if plate.plate == self._question["plate"]), None)
        number = self._question["event"]
        events = [] if number is None else bundle["events"]
        self._event = next((event for event in events if event["event"] == number), None)
        if self._event is not None and self._event.get("sd_g"):
            self._weighed: _Weight | None = _Weight(float(self._event["weighed_g"]), float(self._event["sd_g"]))
            for piece in self._event["pieces"]:
                self._label[piece["gtin"]] = _Weight(float(piece["weight_g"]), float(piece["sd_g"]))
        else:
            self._weighed = None

    @classmethod
    def of(cls, bundle: Mapping[str, Any], store: Store, texts: Mapping[str, str]) -> _Asked | None:
        """The question; None where the bundle has none."""
        return cls(bundle, store, texts) if bundle.get("questions") else None

    def row(self, standing: Standing, charge: Callable[[Pieces], Charge]) -> dict[str, Any]:
        """The question as a page is sent it."""
        choices = []
        for answer in self._question["alternatives"][:CHOICES_MAX]:
            goods = [(str(one["gtin"]), int(one["quantity"])) for one in answer["moved"]]
            lines = [(str(one["gtin"]), int(one["quantity"])) for one in answer["lines"]]
            choice = _choice(self._words(goods), goods, float(answer["probability"]), lines, standing, charge)
            if choice is not None:
                choices.append({**choice, **self._weight_of(goods)})
        if len(choices) < 2:
            raise ValueError("want two alternatives that can be charged")
        return {
            "kind": str(self._question["kind"]),
            "sentence": self._sentence(choices),
            "plate": str(self._question["plate"]),
            "ms": int(self._question["time"]) // _NS_PER_MS,
            "event": self._question["event"],
            "weighed": None if self._weighed is None else self._weighed.rounded(),
            "choices": choices,
            "hands": self._hands(),
        }

    def _words(self, goods: Pieces) -> str:
        """What was moved, in a few words."""
        if not goods:
            return self._texts["others moved it" if self._question["kind"] == "person" else "nothing moved"]
        named = []
        for gtin, quantity in goods:
            name = clean(self._names.get(gtin, gtin))
            named.append(name if abs(quantity) == 1 else f"{abs(quantity)} × {name}")
        return " + ".join(named)

    def _weight_of(self, goods: Pieces) -> dict[str, Any]:
        """What a choice weighs, and whether that is what was measured."""
        # Where other people moved the load, it weighs what it weighs.
        if self._weighed is None or (not goods and self._question["kind"] == "person"):
            return {"weight": None, "fits": None}
        known = [(self._label[gtin], quantity) for gtin, quantity in goods if gtin in self._label]
        if len(known) < len(goods):
            return {"weight": None, "fits": None}
        # Pieces of a product are of one delivery and err together.
        weight = _Weight(
            sum(quantity * piece.grams for piece, quantity in known),
            math.sqrt(sum((quantity * piece.sd_g) ** 2 for piece, quantity in known)),
        )
        off = abs(weight.grams - self._weighed.grams) / max(math.hypot(weight.sd_g, self._weighed.sd_g), 0.1)
        fits = "yes" if off <= FITS_SD else "barely" if off <= BARELY_SD else "no"
        return {"weight": weight.rounded(), "fits": fits}

    def _sentence(self, choices: Sequence[Mapping[str, Any]]) -> str:
        """Such as: Put back at Bakery 1-2: banana bread (95 ± 3 g, fits) or batteries (93 ± 1 g)?"""
        named = []
        for choice in choices:
            text = choice["text"]
            if choice["goods"] and choice["weight"] is not None:
                grams, sd_g = choice["weight"]
                fits = f", {self._texts['fits']}" if choice["fits"] == "yes" else ""
                text = f"{text} ({abs(grams):.0f} ± {max(sd_g, 1):.0f} g{fits})"
            named.append(text)
        moved = [quantity for choice in choices for _, quantity in choice["goods"]]
        way = "put back" if moved and min(moved) > 0 else "taken" if moved and max(moved) < 0 else "moved"
        listed = f" {self._texts['or']} ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
        return self._texts[f"question {way}"].format(plate=clean(self._question["plate"]), choices=listed)

    def _hands(self) -> list[dict[str, Any]]:
        """How near each person's nearest hand was to the plate around the contact, nearest first."""
        if self._event is None or self._plate is None:
            return []
        rows = []
        for path in self._event["wrists"]:
            near = _nearest(path, int(self._event["contact"]), self._plate)
            if near is not None:
                # A visit without a credential has no account; one before its gate has neither.
                who = {"visit": clean(path["visit"]), "account": clean(path["account"])}
                rows.append({**who, "mine": path["visit"] == self._bundle["visit"], **near})
        return sorted(rows, key=lambda row: row["cm"])


def _nearest(path: Mapping[str, Any], contact_ns: int, plate: Plate) -> dict[str, Any] | None:
    """Where a person's hand was nearest to the middle of a plate around the contact; None where it was not seen."""
    best: dict[str, Any] | None = None
    for side in ("left", "right"):
        for t_ns, place in zip(path["times"], path[side]):
            after_s = (t_ns - contact_ns) / 1e9
            if place is None or abs(after_s) > HANDS_S:
                continue
            x, y, z = place
            cm = round(CM_PER_M * math.dist((x, y, z), (plate.x, plate.y, plate.z)))
            if best is None or cm < best["cm"]:
                over_cm = round(CM_PER_M * (z - plate.z))
                best = {"cm": cm, "over_cm": over_cm, "side": side, "after_s": round(after_s, 2)}
    return best


def _choice(
    text: str, goods: Pieces, p: float | None, lines: Pieces, standing: Standing, charge: Callable[[Pieces], Charge]
) -> dict[str, Any] | None:
    """A choice as a page is sent it; None where the store does not sell its goods."""
    is_bill = sorted(lines) == sorted(_pieces_of(standing))
    # The bill as it stands is exact; anything else is charged at the prices of a correction.
    try:
        costs = Charge(standing.total, sum(one.amount for one in standing.discounts)) if is_bill else charge(lines)
    except FusionError:
        return None
    return {
        "text": text,
        "goods": [list(one) for one in goods],
        "p": p,
        "weight": None,
        "fits": None,
        "decision": "accept" if is_bill else "correct",
        "lines": [list(one) for one in lines],
        "total": costs.total,
        "discounts": costs.discounts,
    }


def _pieces_of(standing: Standing) -> Pieces:
    """Pieces by product on a bill."""
    return _summed((line.gtin, line.quantity) for line in standing.lines)


def _summed(rows: Iterable[tuple[str, int]]) -> Pieces:
    pieces: dict[str, int] = {}
    for gtin, quantity in rows:
        pieces[gtin] = pieces.get(gtin, 0) + quantity
    return list(pieces.items())


__all__ = ["Charge", "Pieces", "question_row"]
