"""NumPy twin of fusion._kernels.attribution: everything is enumerated, then sorted."""

from __future__ import annotations

import math

import numpy as np

from fusion.goods.hypotheses import HYPOTHESES_MAX


def extend(
    choices: np.ndarray,
    log_weight: np.ndarray,
    owner: np.ndarray,
    cart: np.ndarray,
    product: np.ndarray,
    quantity: np.ndarray,
    first: int,
    event_ns: np.ndarray,
    log_candidate: np.ndarray,
    log_not_held: np.ndarray,
    held: np.ndarray,
    log_pair: np.ndarray,
    settled_ratio: np.ndarray,
    n_settled: np.ndarray,
    busy_s: float,
    log_busy: float,
) -> np.ndarray:
    """(n, n_new) log weight of every pair of a joint hypothesis and a candidate of the new event."""
    n_new = len(owner) - first
    out = log_weight[:, None] + log_candidate[None, :]
    earlier, near = event_ns[:-1] <= event_ns[-1], np.abs(event_ns[:-1] - event_ns[-1]) < busy_s * 1e9
    for row, chosen in enumerate(choices):
        there = quantity[chosen] != 0  # (n_events, 2)
        for new in range(n_new):
            undone = log_pair[chosen, new] if len(log_pair) else np.zeros(0)
            undone = undone[~np.isnan(undone)]
            if len(undone) + n_settled[new] and not np.isinf(undone).any():
                ratio = (settled_ratio[new] + np.exp(undone).sum()) / (len(undone) + n_settled[new])
                out[row, new] += np.log(ratio)
            for part in range(2):
                mine = first + new, part
                if owner[mine] < 0 or quantity[mine] == 0:
                    continue
                out[row, new] += log_busy * np.count_nonzero((there & (owner[chosen] == owner[mine]))[near])
                same = there & (cart[chosen] == cart[mine]) & (product[chosen] == product[mine])
                taken = -(quantity[chosen] * same)[earlier].sum()
                if quantity[mine] > held[new, part] + taken:
                    out[row, new] += log_not_held[new, part]
    return out


def merge(log_weight_a: np.ndarray, log_weight_b: np.ndarray) -> np.ndarray:
    """(n_a, n_b) log weight of every pair; minus infinity where at least HYPOTHESES_MAX others are as good."""
    ranks = np.multiply.outer(np.arange(1, len(log_weight_a) + 1), np.arange(1, len(log_weight_b) + 1))
    return np.where(ranks <= HYPOTHESES_MAX, log_weight_a[:, None] + log_weight_b[None, :], -np.inf)


def best(pairs: np.ndarray) -> np.ndarray:
    """Flat indices of the HYPOTHESES_MAX greatest, greatest first; equal ones in a scattered order of their indices."""
    scattered = (np.arange(pairs.size) * 2654435769) % 2**32
    return np.lexsort([scattered, -pairs.ravel()])[:HYPOTHESES_MAX]


def marginals(choices: np.ndarray, log_weight: np.ndarray, n_candidates: int) -> np.ndarray:
    """(n_candidates,) summed weight of the hypotheses that pick each candidate."""
    probability = np.zeros(n_candidates)
    for event in range(choices.shape[1]):
        np.add.at(probability, choices[:, event], np.exp(log_weight))
    return probability


def place_ratio(
    hand_m: np.ndarray, variance: float, stretched: float, width_m: float, depth_m: float, above_m: float, m: dict
) -> float:
    """Density of a hand's place (in the plates' axes about the load) and stretch if it acts, over that if it does not.

    stretched: ratio of the stretch's densities.
    """
    front, back = m["box_front_m"], m["box_back_m"]
    edge_sd = np.hypot(m["box_edge_sd_m"], np.sqrt(variance))
    middle = np.array([0.0, 0.5 * (front + back) - 0.5 * depth_m, min(m["height_m"], 0.6 * above_m)])
    spread = np.square([m["along_sd_widths"] * width_m, np.sqrt((back - front) ** 2 / 12), m["height_sd_m"]])
    spread[1] += m["box_edge_sd_m"] ** 2
    sd = np.sqrt(spread + variance)
    off = (hand_m - middle) / sd
    tail = m["tail_width"]
    deep = hand_m[1] + 0.5 * depth_m
    cdf = [0.5 * (1.0 + math.erf((deep - edge) / (edge_sd * math.sqrt(2.0)))) for edge in (front, back)]
    at_shelf = (cdf[0] - cdf[1]) / (back - front) * math.sqrt(2.0 * math.pi) * np.exp(-0.5 * off[2] ** 2) / sd[2]
    acts = (1 - m["tail_weight"]) * np.exp(-0.5 * off[0] ** 2) / sd[0] * at_shelf
    acts += m["tail_weight"] * np.exp(-0.5 * off @ off / tail**2) / (sd.prod() * tail**3)
    return float(acts / (m["away_density"] / stretched + m["shelf_density"] * at_shelf))


def correction(features: np.ndarray, trees: tuple[np.ndarray, ...]) -> float:
    """Sum of the trees at these features; 0 outside the range that they were trained on. trees: `HandTrees`."""
    trained, split_on, threshold, leaf = trees
    if not ((trained[0] <= features) & (features <= trained[1])).all():
        return 0.0
    total = 0.0
    for tree in range(len(leaf)):
        node = 0
        while node < 7:
            node = 2 * node + (2 if features[split_on[tree, node]] >= threshold[tree, node] else 1)
        total += leaf[tree, node - 7]
    return float(total)


def stretch_ratio(stretch_m: float, m: dict[str, float]) -> float:
    """Density of how far a hand is stretched out if it acts, over its density if arms hang or carry."""
    acts = np.exp(-0.5 * ((stretch_m - m["stretch_m"]) / m["stretch_sd_m"]) ** 2) / m["stretch_sd_m"]
    hangs = np.exp(-0.5 * ((stretch_m - m["hanging_m"]) / m["hanging_sd_m"]) ** 2) / m["hanging_sd_m"]
    return float((acts + m["stretch_tail"]) / (hangs + 2 * m["stretch_tail"]))


def hand_ratios(
    t_ns: np.ndarray,
    track: np.ndarray,
    confirmed: np.ndarray,
    position_m: np.ndarray,
    arms_m: np.ndarray,
    wrist_sd_m: np.ndarray,
    contact_ns: int,
    anytime: bool,
    load_m: np.ndarray,
    cos_yaw: float,
    sin_yaw: float,
    width_m: float,
    depth_m: float,
    above_m: float,
    m: dict[str, float],
    trees: tuple[np.ndarray, ...],
) -> dict[int, float]:
    """Log likelihood ratio of acting over not acting, by track. m: the constants by name. trees: `HandTrees`."""
    axes = np.array([[cos_yaw, sin_yaw, 0.0], [-sin_yaw, cos_yaw, 0.0], [0.0, 0.0, 1.0]])
    size = width_m, depth_m, above_m, m
    out = {}
    for person in dict.fromkeys(track.tolist()):
        rows = [
            row for row in np.flatnonzero(track == person)
            if np.hypot(*(position_m[row] - load_m[:2])) <= m["near_m"]
        ]  # fmt: skip
        if not rows:
            continue
        dt_s = (t_ns[rows] - contact_ns) * 1e-9 - m["contact_shift_s"]
        weight = np.ones(len(rows)) if anytime else np.exp(-0.5 * (dt_s / m["contact_sd_s"]) ** 2)
        weight[weight < 1e-3] = 0.0
        parts, features = [0.0, 0.0], [None, None]
        apart = np.hypot(*(position_m[rows] - load_m[:2]).T)
        away_m = weight @ apart / weight.sum() if weight.any() else m["near_m"]
        leans = np.exp(-0.5 * (max(away_m - m["lean_in_m"], 0.0) / m["lean_in_sd_m"]) ** 2) + 0.01
        for side in range(2):
            unseen, seen, hands, stretches = [], [], [], []
            for row in rows:
                wrist, elbow, shoulder = arms_m[row, side]
                place = axes[:2, :2] @ (position_m[row] - load_m[:2])
                off = max(abs(np.hypot(*place) - m["body_m"]) - m["body_slack_m"], 0.0) / m["body_sd_m"]
                stand_in = np.exp(-0.5 * (off**2 + (place[0] / m["body_along_sd_m"]) ** 2)) + m["elsewhere_ratio"]
                for joint, name in ((elbow, "elbow"), (shoulder, "shoulder")):
                    if np.isfinite(joint[0]):
                        beyond = max(np.linalg.norm(joint - load_m) - m[f"{name}_reach_m"], 0.0) / m["reach_sd_m"]
                        stand_in = m[f"{name}_ratio"] * np.exp(-0.5 * beyond**2)
                        break
                unseen.append(stand_in)
                seen.append(bool(np.isfinite(wrist[0])))
                forearm = wrist - elbow if np.isfinite(elbow[0]) else np.zeros(3)
                reach = m["hand_beyond_m"] / max(np.linalg.norm(forearm), 0.05)
                hands.append(axes @ (wrist + reach * forearm - load_m))
                stretches.append(np.hypot(*(hands[-1][:2] - place)))
            if weight.sum() == 0:
                continue
            unseen_mean = weight @ unseen / weight.sum()
            saw = np.array(seen)
            variance = wrist_sd_m[rows, side] ** 2
            error = m["hand_error_m"] ** 2
            elbow_known = np.isfinite(arms_m[rows, side, 1, 0])
            if anytime:
                instants = [
                    place_ratio(h, v + error, stretch_ratio(out_m, m), *size) if s else unseen_mean
                    for h, v, out_m, s in zip(hands, variance, stretches, saw)
                ]
                parts[side] = 0.5 * float(np.mean(instants))
                continue
            known = 0.0
            if (weight * saw).any():
                known = min((weight * saw).max() / m["cover_min"], 1.0)
                precision = weight[saw] / (variance[saw] + error)
                hand = precision @ np.array(hands)[saw] / precision.sum()
                spread = 0.5 * precision @ variance[saw] / precision.sum() + error
                stretch = precision @ np.array(stretches)[saw] / precision.sum()
                parts[side] += 0.5 * known * place_ratio(hand, spread, stretch_ratio(stretch, m), *size)
                if (weight * elbow_known).any():
                    elbow_m = np.linalg.norm(arms_m[rows, side, 1] - load_m, axis=1)[elbow_known]
                    elbow_m = weight[elbow_known] @ elbow_m / weight[elbow_known].sum()
                    features[side] = [
                        abs(hand[0]) - 0.5 * width_m, hand[1] + 0.5 * depth_m, hand[2], np.sqrt(spread), elbow_m,
                    ]  # fmt: skip
            parts[side] += 0.5 * (1 - known) * unseen_mean
        out[person] = float(np.log(sum(parts) + m["elsewhere_ratio"] * leans))
        likelier = 1 if parts[1] > parts[0] else 0
        added = 0.0
        if not anytime and features[likelier] is not None:
            aside_m = abs(weight @ ((position_m[rows] - load_m[:2]) @ axes[0, :2]) / weight.sum())
            other = max(np.log(parts[1 - likelier]), -12.0) if parts[1 - likelier] > 0 else -12.0
            added = correction(np.array([out[person], *features[likelier], away_m, aside_m, other]), trees)
        out[person] += float(np.clip(added, -m["correction_max"], m["correction_max"]))
        if not confirmed[rows].any():
            out[person] += float(np.log(m["tentative_ratio"]))
    return out
