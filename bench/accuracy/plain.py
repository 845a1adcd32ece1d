"""The plain method: nearest weight among the planned products, nearest wrist at the peak of the deviation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import fusion
from bench.accuracy.replays import Answers
from bench.accuracy.scores import VISIT_DOUBTS
from fusion.goods.planogram import Rows
from fusion.observations import ShelfReading
from fusion.results import Receipt
from fusion.store.models import Store

PLAIN_WINDOW, PLAIN_RUN = 60, 30
PLAIN_SD_G, PLAIN_CHANGE_G = 20.0, 10.0
PLAIN_REACH_M = 1.5


def plain_receipts(store: Store, answers: Answers) -> list[Receipt]:
    """The engine's receipts with their lines replaced by those of the plain method."""
    wanted = [i for i, joint in enumerate(store.layout.joints) if joint in ("nose", "l_wrist", "r_wrist")]
    instants_ns = np.array([people.t_ns for people in answers.people], np.int64)
    products = {product.gtin: product for product in store.products}
    carts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    centre_m = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    planned: defaultdict[str, set[str]] = defaultdict(set)
    for facing in store.planogram:
        planned[facing.plate].add(facing.gtin)

    def nearest_account(plate: str, t_ns: int) -> tuple[bool, str | None]:
        if not len(instants_ns):
            return False, None
        people = answers.people[int(np.argmin(np.abs(instants_ns - t_ns)))]
        if not len(people.track_id):
            return False, None
        points = people.joints_m[:, wanted] - centre_m[plate]
        apart = np.nan_to_num(np.sqrt((points**2).sum(axis=2)), nan=np.inf).min(axis=1)
        best = int(np.argmin(apart))
        return bool(apart[best] < PLAIN_REACH_M), answers.account_of.get(int(people.track_id[best]))

    for t_ns, plates, total_g in sorted(plain_events(store, answers.readings), key=lambda event: event[0]):
        in_reach, account = nearest_account(plates[0], t_ns)
        if not in_reach:
            continue
        cart = carts[account]
        choice = [gtin for plate in plates for gtin in planned[plate]] if total_g < 0 else [g for g in cart if cart[g]]
        if not choice:
            continue

        def pieces(gtin: str, total_g: float = total_g) -> int:
            return max(1, round(abs(total_g) / products[gtin].weight_g))

        def off_g(gtin: str, total_g: float = total_g) -> float:
            return abs(abs(total_g) - pieces(gtin) * products[gtin].weight_g)

        gtin = min(sorted(set(choice)), key=off_g)
        units = abs(total_g) / products[gtin].weight_g
        if total_g < 0 and units >= 0.4:
            cart[gtin] += pieces(gtin)
        elif total_g > 0 and units >= 0.75:
            cart[gtin] -= min(cart[gtin], pieces(gtin))
    out = []
    for receipt in answers.receipts:
        lines = tuple(
            fusion.results.ReceiptLine(gtin, n, products[gtin].price, 1.0)
            for gtin, n in sorted((+carts[receipt.account]).items())
        )
        # Doubts about the visit stay; the plain method never doubts the goods.
        doubtful = receipt.account is None or any(reason.kind in VISIT_DOUBTS for reason in receipt.reasons)
        out.append(replace(receipt, lines=lines, status="review" if doubtful else "settled"))
    return out


def plain_events(store: Store, readings: Sequence[ShelfReading]) -> list[tuple[int, list[str], float]]:
    """Events of the plain method: (time of the greatest deviation, plates by the size of their change, grams).

    Source: the winner of the AutoCheckout competition (CPS-IoT Week 2020), in outline.
    """
    if not readings:
        return []
    rows = Rows(store)
    index = {plate.plate: i for i, plate in enumerate(store.plates)}
    start_ns = min(reading.t_ns for reading in readings)
    end_ns = max(reading.t_ns for reading in readings)
    n = int((end_ns - start_ns) * 1e-9 * store.weight_rate_hz) + 64
    grams = np.full((len(index), n), np.nan, np.float32)
    for reading in readings:
        at = round((reading.t_ns - start_ns) * 1e-9 * store.weight_rate_hz)
        grams[index[reading.plate], at : at + len(reading.samples)] = reading.samples[: n - at]
    _carry_forward(grams)
    lightest_g = min(product.weight_g for product in store.products)
    found = []
    for members in rows.members:
        shelf = grams[members].astype(np.float64)
        total = shelf.sum(axis=0)
        sums = np.cumsum(np.insert(total, 0, 0.0))
        squares = np.cumsum(np.insert((total - total.mean()) ** 2, 0, 0.0))
        mean = (sums[PLAIN_WINDOW:] - sums[:-PLAIN_WINDOW]) / PLAIN_WINDOW - total.mean()
        sd = np.sqrt(np.maximum((squares[PLAIN_WINDOW:] - squares[:-PLAIN_WINDOW]) / PLAIN_WINDOW - mean**2, 0.0))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (sd > PLAIN_SD_G).astype(np.int8), [0]])))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist()):
            # The window's end reached the disturbance at `first`; its start left it at `last`.
            before = shelf[:, max(first - 15, 0) : first + 45].mean(axis=1)
            after = shelf[:, last + 15 : last + 60].mean(axis=1) if last + 20 < n else shelf[:, -5:].mean(axis=1)
            change = after - before
            if last - first < PLAIN_RUN or abs(change.sum()) < PLAIN_CHANGE_G:
                continue
            peak = first + int(np.argmax(sd[first:last])) + PLAIN_WINDOW // 2
            t_ns = start_ns + int(peak / store.weight_rate_hz * 1e9)
            part = np.abs(change) > max(lightest_g / 3.0, PLAIN_CHANGE_G)
            for sign in (-1.0, 1.0):
                takes_part = part & (np.sign(change) == sign)
                cuts = np.flatnonzero(np.diff(np.concatenate([[0], takes_part.astype(np.int8), [0]])))
                for a, b in zip(cuts[::2].tolist(), cuts[1::2].tolist()):
                    order = a + np.argsort(-np.abs(change[a:b]))
                    names = [store.plates[members[i]].plate for i in order.tolist()]
                    found.append((t_ns, names, float(change[a:b].sum())))
    return found


def _carry_forward(grams: np.ndarray) -> None:
    """Fill missing samples with the last known sample, or with the first known one at the start."""
    for row in grams:
        known = np.flatnonzero(~np.isnan(row))
        if len(known):
            last = np.maximum(np.searchsorted(known, np.arange(len(row)), side="right") - 1, 0)
            row[:] = row[known[last]]
        else:
            row[:] = 0.0
