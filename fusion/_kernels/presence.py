"""Kernels of existence: in what circumstances cameras look at people, and what their finds and misses are worth.

Arrays in, preallocated arrays out; records of arrays as in `records`, taken as plain tuples where Python calls.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from fusion._kernels.association import KNOWN_VAR_MAX, _blocked, _eye_of, _in_picture
from fusion._kernels.records import CameraGeometry, States

# Circumstances of a look, on which a camera's miss rate depends: the distance, in N_BANDS bands, and whether the whole
# body is in the inner part of the picture with no one close to the line of sight, or only partly so. NO_VIEW where the
# place is out of the picture, or where furniture or another person stands in between.
N_BANDS = 3
PARTLY = N_BANDS
N_CIRCUMSTANCES = 2 * N_BANDS
NO_VIEW = -1
# Find rate of a view that shows something now and then.
FLICKER = 0.5


class Outlook(NamedTuple):
    """Settings of `circumstances`."""

    half_width_m: float  # of an upright body that hides another
    beside_m: float  # a body this near to the line of sight makes a look partly obstructed
    behind_m: float  # also one that stands up to this far behind
    touching_m: float  # a body this near does not hide another altogether
    height_m: float  # of a body with no known joint
    crown_m: float  # above the highest joint
    low: float  # share of the height above which all of a body must be in view for a look to be clear
    margin: float  # factor of the focal length that leaves out the outer part of the picture
    near_m: float  # bounds of the bands of distance
    far_m: float


class ExistenceModel(NamedTuple):
    """Settings of `weigh`."""

    shows: float  # probability that one view shows a ghost
    blocked: float  # probability that something unknown hides a person from a view
    stray: float  # find rate of a view that shows no one, by stray detections
    stray_beside: float  # and beside a person who is well seen
    explained: float  # and on the line of sight to a person that this view does not find
    reach_m: float  # distance at which a track is beside a person
    person_max: float  # bound of the log odds that a view shows a person, against nothing, either way
    flicker_max: float  # and of those that it shows something now and then
    odds_min: float  # bounds of the log odds of a person against a ghost
    odds_max: float
    confirm_odds: float  # log odds at which a track is confirmed
    held_back_odds: float  # log odds of the pattern below which a confirmed track is held back
    walked_m: float  # distance from the place of birth that proves a person
    walked_sets: int  # sets in a row at that distance
    hidden_within_m: float  # distance over which what hides a person from a view changes
    wander_m: float  # distance up to which the track of what stands still wanders
    memory: float  # looks over which it is learnt how long misses last


class Evidence(NamedTuple):
    """What is known of tracks from the finds and misses of cameras, and of how long misses last; updated by `weigh`."""

    shown: np.ndarray  # (capacity, n_views, 2) float32 log R and log F, NaN before the first look
    found_last: np.ndarray  # (capacity, n_views) int8 outcome of the latest look, NO_VIEW for none
    weighed_m: np.ndarray  # (capacity, 2) place that the misses in `shown` apply to
    lasting: np.ndarray  # (2,) changes between finding and missing that were expected, and those that came


@njit(cache=True, nogil=True, error_model="numpy")
def _places_and_tops(states, shape, places, tops):
    """Mean of each body's joints on the floor (2, n), and how high it reaches (n,)."""
    for k in range(states.rows.shape[0]):
        row = states.rows[k]
        x = 0.0
        y = 0.0
        top = 0.0
        for j in range(states.n_joints):
            x += states.mean[row, 0, j]
            y += states.mean[row, 1, j]
            if states.cov[row, 0, j] + states.cov[row, 2, j] + states.cov[row, 5, j] < KNOWN_VAR_MAX:
                top = max(top, states.mean[row, 2, j] + shape.crown_m)
        places[0, k] = x / states.n_joints
        places[1, k] = y / states.n_joints
        tops[k] = top if top > 0.0 else shape.height_m


@njit(cache=True, nogil=True, error_model="numpy")
def _crowding(track, height, eye, places, tops, shape):
    """2 where another body, an upright cylinder, hides a height above a track's place from a camera.

    1 where it only stands close to the line of sight, in front or shortly behind; 0 where none does.
    """
    step_x = eye[0] - places[0, track]
    step_y = eye[1] - places[1, track]
    step_z = eye[2] - height
    square = max(step_x * step_x + step_y * step_y, 1e-9)
    scale = 1.0 / square
    behind = -shape.behind_m / math.sqrt(square)
    beside_sq = shape.beside_m * shape.beside_m * square
    half_width_sq = shape.half_width_m * shape.half_width_m * square
    touching_sq = shape.touching_m * shape.touching_m
    n_near = 0
    n_hide = 0
    # Without branches, so that it is compiled to vector operations: a hall has a hundred others.
    for other in range(places.shape[1]):
        x = places[0, other] - places[0, track]
        y = places[1, other] - places[1, track]
        along = (x * step_x + y * step_y) * scale
        aside = x * step_y - y * step_x
        near = (along > behind) & (along < 1.0) & (aside * aside < beside_sq) & (height + along * step_z < tops[other])
        near &= other != track
        n_near += near
        n_hide += near & (x * x + y * y > touching_sq) & (along > 0.0) & (aside * aside < half_width_sq)
    return 2 if n_hide else 1 if n_near else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _circumstance(track, camera, lens, inner, size_px, eye, places, tops, boxes, shape, point):
    """Circumstance in which one camera looks at one track whose belly is in its picture.

    lens and inner: of the picture, and of its inner part.
    """
    point[0] = places[0, track]
    point[1] = places[1, track]
    top = tops[track]
    point[2] = 0.9 * top
    if not _in_picture(point, camera, lens, size_px):
        return NO_VIEW
    for share in (0.6, 0.9):
        point[2] = share * top
        if _blocked(point, eye, boxes):
            return NO_VIEW
    crowding = _crowding(track, 0.6 * top, eye, places, tops, shape)
    if crowding == 2:
        return NO_VIEW
    dx = eye[0] - point[0]
    dy = eye[1] - point[1]
    away = math.sqrt(dx * dx + dy * dy)
    band = 0 if away < shape.near_m else 1 if away < shape.far_m else 2
    point[2] = 0.9 * top
    clear = crowding == 0 and _in_picture(point, camera, inner, size_px)
    point[2] = shape.low * top
    if not clear or not _in_picture(point, camera, inner, size_px) or _blocked(point, eye, boxes):
        return PARTLY + band
    return band


@njit(cache=True, nogil=True, error_model="numpy")
def _find_in_picture(bellies, camera, lens, size_px, inside):
    """Which bellies (3, m) are in a camera's picture: one loop, so that it is compiled to vector operations."""
    for k in range(bellies.shape[1]):
        inside[k] = _in_picture(bellies[:, k], camera, lens, size_px)


@njit(cache=True, nogil=True, error_model="numpy")
def circumstances_in(states, who, cameras, live, shape, out):
    """`circumstances` for kernels: records are named tuples."""
    n = states.rows.shape[0]
    places, tops = np.empty((2, n)), np.empty(n)
    _places_and_tops(states, shape, places, tops)
    point, eye, inner = np.empty(3), np.empty(3), np.empty(4)
    bellies, inside = np.empty((3, who.shape[0])), np.empty(who.shape[0], np.bool_)
    for k in range(who.shape[0]):
        bellies[0, k] = places[0, who[k]]
        bellies[1, k] = places[1, who[k]]
        bellies[2, k] = 0.6 * tops[who[k]]
    out[:] = NO_VIEW
    for view in range(live.shape[0]):
        if not live[view]:
            continue
        camera = cameras.camera_from_world[view]
        lens = cameras.pinholes[view]
        inner[:] = lens
        inner[0] *= shape.margin
        inner[1] *= shape.margin
        _eye_of(camera, eye)
        size_px = cameras.size_px[view]
        # Most people of a hall are out of most pictures: the most frequent answer is the one that costs least.
        _find_in_picture(bellies, camera, lens, size_px, inside)
        for k in range(who.shape[0]):
            if inside[k]:
                out[k, view] = _circumstance(
                    who[k], camera, lens, inner, size_px, eye, places, tops, cameras.boxes, shape, point
                )


@njit(cache=True, nogil=True)
def circumstances(states, who, cameras, live, shape, out):
    """Circumstances in which cameras look at tracks.

    A camera sees a place where belly and face are in its picture with no furniture and no other body in between. A body
    has its currently known height, since a low obstacle hides a person who crouches.

    states, cameras, shape: States, CameraGeometry, Outlook as plain tuples; who (m,) indices into states.rows; live
    (n_views,) bool; out (m, n_views) int8, band of distance, plus PARTLY for partly obstructed looks, or NO_VIEW.
    """
    circumstances_in(States(*states), who, CameraGeometry(*cameras), live, Outlook(*shape), out)


# ---- persons and ghosts ----------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def _explained(track, eye, eligible, places, tops, near_m):
    """Whether a person of `eligible` (n,), found by two other views, but not this one, stands on the line of sight.

    A detection there may be that person's.
    """
    px = places[0, track] - eye[0]
    py = places[1, track] - eye[1]
    pz = 0.6 * tops[track] - eye[2]
    square = px * px + py * py + pz * pz
    scale = 1.0 / square
    near_sq = near_m * near_m
    n_near = 0
    for other in range(places.shape[1]):
        x = places[0, other] - eye[0]
        y = places[1, other] - eye[1]
        z = 0.6 * tops[other] - eye[2]
        along = (x * px + y * py + z * pz) * scale
        near = (along > 0.0) & (x * x + y * y + z * z - along * along * square < near_sq) & (other != track)
        n_near += near & eligible[other]
    return n_near > 0


@njit(cache=True, nogil=True)
def _beside(track, n_found, places, reach_m):
    """Whether a person that more views find is within reach of a track."""
    least = max(n_found[track], 1)
    n_beside = 0
    for other in range(places.shape[1]):
        x = places[0, other] - places[0, track]
        y = places[1, other] - places[1, track]
        n_beside += (n_found[other] > least) & (x * x + y * y < reach_m * reach_m)
    return n_beside > 0


@njit(cache=True, nogil=True)
def _move_on(row, x, y, model, evidence):
    """Fade a track's misses as it moves: what hid a person from a view at one place says little about another.

    The place that they apply to follows the track on a leash of `wander_m`, since a ghost's track wanders about it.
    """
    shown, weighed_m = evidence.shown, evidence.weighed_m
    moved_x = x - weighed_m[row, 0]
    moved_y = y - weighed_m[row, 1]
    moved = math.sqrt(moved_x * moved_x + moved_y * moved_y)
    if moved <= model.wander_m:
        return
    onward = 1.0 - model.wander_m / moved
    weighed_m[row, 0] += onward * moved_x
    weighed_m[row, 1] += onward * moved_y
    alike = math.exp(-onward * moved / model.hidden_within_m)
    for view in range(shown.shape[1]):
        for i in range(2):
            if shown[row, view, i] < 0.0:
                shown[row, view, i] *= alike


@njit(cache=True, nogil=True)
def weigh(states, who, found, cameras, live, shape, model, miss_rates, pace, evidence, pattern, n_own):
    """Log odds of person against ghost from the pattern of views that find a track.

    A person is found by every view that shows the place, with the camera's own miss rate; what is not known of
    (furniture, glare) hides them from a view with probability `blocked`, and now and then with the same probability. A
    ghost (a coat, a mirror image, a poster) shows in each view with probability `shows`, once and for all, and is found
    there as a person is, or now and then. Where nothing shows, only stray detections find the track. So with R and F
    the likelihood ratios of a view's finds and misses, a person or a flicker against strays, the log odds are the sum
    over views of

        log(((1 - 2 blocked) R + blocked F + blocked) / (shows (R + F) / 2 + 1 - shows)),

    which bounds what one camera can add, however long it keeps finding or missing. R and F are bounded, so that they
    remember seconds. pace: consecutive looks are alike, so each counts as a share of an independent one, the first as
    one; of what a view does not look at now, it keeps a share; and misses fade as the track moves on. The former is
    learnt from how often views that show a person, found by two others, change between finding and missing; fading over
    `memory` looks.

    states, cameras, shape, model, evidence: States, CameraGeometry, Outlook, ExistenceModel, Evidence as plain tuples.
    who (n,): indices into states.rows; found (n_rows, n_views) bool of all rows; live (n_views,); miss_rates (n_views,
    N_CIRCUMSTANCES). Written: pattern (n,); n_own (n,), views that find a track by a detection that no other explains.
    """
    _weigh(
        States(*states), who, found, CameraGeometry(*cameras), live, Outlook(*shape), ExistenceModel(*model),
        miss_rates, pace, Evidence(*evidence), pattern, n_own,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _weigh(states, who, found, cameras, live, shape, model, miss_rates, pace, evidence, pattern, n_own):
    share, kept = pace
    shown, found_last, lasting = evidence.shown, evidence.found_last, evidence.lasting
    n, n_views = found.shape
    places, tops, n_found = np.empty((2, n)), np.empty(n), np.zeros(n, np.int64)
    _places_and_tops(states, shape, places, tops)
    for k in range(n):
        for view in range(n_views):
            n_found[k] += found[k, view]
    seen, eyes = np.empty((who.shape[0], n_views), np.int8), np.empty((n_views, 3))
    circumstances_in(states, who, cameras, live, shape, seen)
    eligible = np.empty((n_views, n), np.bool_)
    for view in range(n_views):
        _eye_of(cameras.camera_from_world[view], eyes[view])
        for k in range(n):
            eligible[view, k] = n_found[k] >= 2 and not found[k, view]
    for i in range(who.shape[0]):
        k = who[i]
        row = states.rows[k]
        stray = model.stray_beside if _beside(k, n_found, places, model.reach_m) else model.stray
        _move_on(row, places[0, k], places[1, k], model, evidence)
        pattern[i] = 0.0
        n_own[i] = 0
        n_missed = 0
        for view in range(n_views):
            c = seen[i, view]
            here = found[k, view]
            if c >= 0 or here:
                missed = miss_rates[view, c if c >= 0 else PARTLY]
                if here:
                    other = _explained(k, eyes[view], eligible[view], places, tops, shape.beside_m)
                    n_own[i] += not other
                    rate = model.explained if other else stray
                    person = math.log((1.0 - missed) / rate)
                    flicker = math.log(FLICKER / rate)
                else:
                    person = math.log(missed / (1.0 - stray))
                    flicker = math.log((1.0 - FLICKER) / (1.0 - stray))
                before = shown[row, view]
                if before[0] > 0.0 and n_found[k] - here >= 2:
                    fades = 1.0 - 1.0 / model.memory
                    was_found = found_last[row, view] == 1
                    lasting[0] = lasting[0] * fades + (missed if was_found else 1.0 - missed)
                    lasting[1] = lasting[1] * fades + (here != was_found)
                found_last[row, view] = here
                n_missed += not here
                if before[0] == before[0]:
                    person = before[0] + share * person
                    flicker = before[1] + share * flicker
                before[0] = min(max(person, -model.person_max), model.person_max)
                before[1] = min(max(flicker, -model.flicker_max), model.flicker_max)
            else:
                # What a view no longer looks at it ceases to know.
                found_last[row, view] = NO_VIEW
                shown[row, view, 0] *= kept
                shown[row, view, 1] *= kept
            if shown[row, view, 0] == shown[row, view, 0]:
                person, flicker = math.exp(shown[row, view, 0]), math.exp(shown[row, view, 1])
                there = (1.0 - 2.0 * model.blocked) * person + model.blocked * flicker + model.blocked
                pattern[i] += math.log(there / (model.shows * 0.5 * (person + flicker) + 1.0 - model.shows))
        if states.confirmed[row] and n_missed < max(2, n_found[k]):
            # Rays that keep meeting in a body are not argued away by a camera that sees nothing.
            pattern[i] = max(pattern[i], model.held_back_odds)


@njit(cache=True, nogil=True)
def tally(states, found, cameras, live, shape, looks, misses):
    """Count the looks of this set at all tracks that three views or more find, and those that missed.

    What two views find may be a chance, and their own finds cannot be counted without it.

    states, cameras, shape: States, CameraGeometry, Outlook as plain tuples; found (n_rows, n_views) bool; live
    (n_views,). looks, misses (n_views, N_CIRCUMSTANCES) are added to.
    """
    who = np.empty(found.shape[0], np.int64)
    n = 0
    for k in range(found.shape[0]):
        n_found = 0
        for view in range(found.shape[1]):
            n_found += found[k, view]
        if n_found >= 3:
            who[n] = k
            n += 1
    if n == 0:
        return
    seen = np.empty((n, found.shape[1]), np.int8)
    circumstances_in(States(*states), who[:n], CameraGeometry(*cameras), live, Outlook(*shape), seen)
    for i in range(n):
        for view in range(found.shape[1]):
            if seen[i, view] >= 0:
                looks[view, seen[i, view]] += 1.0
                misses[view, seen[i, view]] += not found[who[i], view]


@njit(cache=True, nogil=True)
def missed_by_many(states, found, live, model, rise, shown, found_last, who):
    """Confirmed tracks that two live views or more, and no fewer than find them, do not find; the rest are well seen.

    For the rest, the log odds that views show what they find rise by `rise`. found (n_rows, n_views) bool; who
    (n_rows,), the first of which become indices into states.rows; returns their number. The other arrays and
    records as in `weigh`.
    """
    states, model = States(*states), ExistenceModel(*model)
    n_live = 0
    for view in range(live.shape[0]):
        n_live += live[view]
    n = 0
    for k in range(states.rows.shape[0]):
        row = states.rows[k]
        if not states.confirmed[row]:
            continue
        n_found = 0
        for view in range(live.shape[0]):
            n_found += found[k, view]
        if n_live - n_found >= max(2, n_found):
            who[n] = k
            n += 1
            continue
        for view in range(live.shape[0]):
            found_last[row, view] = 1 if found[k, view] else NO_VIEW
            if found[k, view]:
                shown[row, view, 0] = min(max(shown[row, view, 0], -model.person_max) + rise, model.person_max)
                shown[row, view, 1] = min(max(shown[row, view, 1], -model.flicker_max) + rise, model.flicker_max)
    return n


@njit(cache=True, nogil=True)
def confirm(rows, who, pattern, n_own, places_m, born_m, weight, model, log_odds, sets_away, confirmed):
    """Sequential test of tentative tracks: every set adds the pattern's log odds times `weight`.

    A ghost that comes by chance does not stay. A track that two views or more saw walked_m from its place of birth in
    walked_sets sets in a row walks, as ghosts do not.

    who (n,): indices into rows; pattern, n_own (n,) of these; places_m (n, 2); model: ExistenceModel as a plain tuple.
    born_m and the last three arrays have one row per track. Source: Wald, Sequential Analysis (1947).
    """
    model = ExistenceModel(*model)
    for i in range(who.shape[0]):
        row = rows[who[i]]
        log_odds[row] = min(max(log_odds[row] + weight * pattern[i], model.odds_min), model.odds_max)
        away = math.hypot(places_m[i, 0] - born_m[row, 0], places_m[i, 1] - born_m[row, 1]) > model.walked_m
        sets_away[row] = sets_away[row] + 1 if away and n_own[i] >= 2 else 0
        confirmed[row] = log_odds[row] > model.confirm_odds or sets_away[row] >= model.walked_sets


def warm_up() -> None:
    """Call the kernels once on tiny inputs: a first call loads or compiles them and takes up to a second."""
    p, flag = 8, np.zeros(1, np.bool_)
    rows, place, flags = np.zeros(1, np.int64), np.zeros((1, 2)), np.zeros((1, 1), np.bool_)
    geometry = CameraGeometry(np.zeros((1, 3, 4)), np.zeros((1, 4)), np.zeros((1, 2)), np.zeros((0, 5)))
    states = States(np.zeros((1, 6, p)), np.zeros((1, 21, p)), rows, flag, 1)
    shape = (1.0,) * 10
    model = (*(1.0,) * 13, 1, 1.0, 1.0, 1.0)
    seen, rates, shown = np.zeros((1, 1), np.int8), np.full((1, N_CIRCUMSTANCES), 0.5), np.zeros((1, 1, 2), np.float32)
    state, one, count = tuple(states), np.zeros(1), np.zeros(1, np.int64)
    circumstances(state, rows, tuple(geometry), flag, shape, seen)
    tally(state, flags, tuple(geometry), flag, shape, rates.copy(), rates.copy())
    missed_by_many(state, flags, flag, model, 1.0, shown, seen, count)
    evidence = (shown, seen, place, np.zeros(2))
    weigh(state, rows, flags, tuple(geometry), flag, shape, model, rates, (0.1, 0.1), evidence, one, count)
    confirm(rows, rows, one, count, place, place, 1.0, model, one, count, flag)
