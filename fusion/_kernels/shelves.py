"""Plates' samples to settled changes: one loop over messages, state as a struct of arrays with one row a plate."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

STARTING, QUIET, DISTURBED = 0, 1, 2

# Columns of the tables of times and of real numbers that a plate's state keeps; a row is one or two cache lines.
NEXT_NS, ONSET_NS, LAST_NS, SILENCE_NS, STUCK_SAMPLES, RING_COUNT, QUIET_MESSAGES, RING_SINCE_ONSET = range(8)
LEVEL_G, NOISE_G2, BASELINE_G, LAST_G = range(4)
# Columns of the changes that are handed out.
CHANGE_PLATE, CHANGE_ONSET_NS, CHANGE_CONTACT_NS, CHANGE_SETTLED_NS = range(4)
CHANGE_SILENT, CHANGE_RISE_NS, CHANGE_SHAKY = range(4, 7)
# Why a message was not used.
LATE, NOT_A_NUMBER, TABLE_FULL = range(3)

RING = 512  # Samples kept of a plate: 8.5 s at 60 Hz, longer than a hand rests on a shelf. A power of two.
# A plate's row of the ring is one cache line longer: rows a power of two apart would all map onto the same few sets of
# the cache, and every plate would evict the one before.
RING_ROW = RING + 16
USUAL = 12  # Samples of a message, nearly always; the quick path is compiled for that many.
BLOCK = 6  # Samples averaged before plateaus are judged: 0.1 s at 60 Hz, about a period of the shelf's vibration.
# A change that drowns in what still shakes waits until that is over, as long as the ring reaches back: taken as it is,
# it would become the level from which the next load is measured, and nobody would know.
UNSURE_MAX_NS = 8e9
PLATEAU_BLOCKS = 4  # A load counts as settled when this many blocks agree: 0.4 s.


@njit(cache=True, nogil=True)
def _contact_sample(ring, first, n, before_g, after_g):
    """Sample at which two constant levels, before_g then after_g, fit ring[first : first + n] best.

    Every residual is clipped at half the step, so that neither a hand's pressure nor a shock outweighs the step.
    """
    middle = 0.5 * (before_g + after_g)
    half = 0.5 * abs(after_g - before_g)
    sign = 1.0 if before_g > after_g else -1.0
    score = 0.0
    best = 0.0
    best_at = 0
    for i in range(n):
        nearer_before = sign * (ring[(first + i) & (RING - 1)] - middle)
        score += min(max(nearer_before, -half), half)
        if score > best:
            best = score
            best_at = i + 1
    return best_at


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _message_moments(samples, start, stop, level):
    """Sum and sum of squares of a message's samples about a level."""
    total = 0.0
    squares = 0.0
    for i in range(start, stop):
        d = samples[i] - level
        total += d
        squares += d * d
    return total, squares


@njit(cache=True, nogil=True)
def _other(
    plate, t_ns, start, stop, samples, period_ns, limits, state, times, reals, ring, changes, changes_g, ignored,
    n_changes,
):  # fmt: skip
    """A message that may end a plate's quiet, or comes while there is none; returns the number of changes found."""
    gap_ns, stuck_samples = limits[0], limits[1]
    n: Any = np.int64(stop) - np.int64(start)
    clock = times[plate]
    numbers = reals[plate]
    length_ns = np.int64(n * period_ns)
    expected_ns = clock[NEXT_NS]
    level = numbers[LEVEL_G]
    total, squares = _message_moments(samples, start, stop, level)
    if not squares < 1e30:  # Also where it is not a number.
        ignored[NOT_A_NUMBER] += 1
        return n_changes
    if expected_ns == 0:
        state[plate] = STARTING
        clock[ONSET_NS] = t_ns
    elif t_ns < expected_ns - length_ns // 2:
        ignored[LATE] += 1
        return n_changes
    elif t_ns > expected_ns + gap_ns:
        # What happened in the silence shows once the load has settled after it.
        if state[plate] == QUIET:
            state[plate] = DISTURBED
            numbers[BASELINE_G] = level
            clock[ONSET_NS] = clock[LAST_NS]
            clock[SILENCE_NS] = clock[LAST_NS]
        elif state[plate] == DISTURBED and clock[SILENCE_NS] == 0:
            clock[SILENCE_NS] = clock[LAST_NS]
        clock[RING_COUNT] = 0
        clock[RING_SINCE_ONSET] = 0
    else:
        # Messages come at a steady rate and are stamped with a few milliseconds of jitter, so the count of samples
        # is the better clock; the stamps only steer it.
        t_ns = expected_ns + (t_ns - expected_ns) // 8
    clock[NEXT_NS] = t_ns + length_ns
    last_ns = t_ns + length_ns - np.int64(period_ns)
    clock[LAST_NS] = last_ns

    count = clock[RING_COUNT]
    for i in range(n):
        ring[plate, (count + i) & (RING - 1)] = samples[start + i]
    clock[RING_COUNT] = count + n

    # Only a message as still as that may belong to a converter that has stopped.
    if squares * n - total * total <= 1e-6 * n * n and samples[start] == np.float32(numbers[LAST_G]):
        clock[STUCK_SAMPLES] += n
        if clock[STUCK_SAMPLES] > stuck_samples:
            if state[plate] == QUIET:
                state[plate] = DISTURBED
                numbers[BASELINE_G] = level
                clock[ONSET_NS] = last_ns
            if clock[SILENCE_NS] == 0:
                clock[SILENCE_NS] = last_ns
            clock[RING_COUNT] = 0
            clock[RING_SINCE_ONSET] = 0
            return n_changes
    else:
        clock[STUCK_SAMPLES] = 0
    numbers[LAST_G] = samples[stop - 1]

    noise = numbers[NOISE_G2]
    noise_sd = np.sqrt(noise)
    if state[plate] == QUIET:
        mean = total / n
        if squares <= n * (1.2 + 1.8 * noise_sd) ** 2 and abs(mean) <= 1.0 + 1.2 * noise_sd:
            # The level is a running mean at first, then follows drift with a memory of 16 messages.
            quiet = clock[QUIET_MESSAGES] + 1
            clock[QUIET_MESSAGES] = quiet
            numbers[LEVEL_G] = level + mean / min(quiet + 2, 16)
            numbers[NOISE_G2] = max(noise + (squares / n - noise) / 32, 0.01)
            return n_changes
        state[plate] = DISTURBED
        numbers[BASELINE_G] = level
        clock[SILENCE_NS] = 0
        first = 0
        while first < n - 1 and abs(samples[start + first] - level) <= 3.0 + 3.0 * noise_sd:
            first += 1
        clock[ONSET_NS] = t_ns + np.int64(first * period_ns)
        clock[RING_SINCE_ONSET] = n - first
    else:
        clock[RING_SINCE_ONSET] += n

    # A plateau: the last blocks agree. The longer a plate shakes, the less agreement we ask for.
    count = clock[RING_COUNT]
    end_first = max(n // BLOCK - 1, 0)
    for back in range(end_first, -1, -1):
        end = count - back * BLOCK
        since = clock[RING_SINCE_ONSET] - back * BLOCK
        if since < PLATEAU_BLOCKS * BLOCK or end < PLATEAU_BLOCKS * BLOCK:
            continue
        low, high, plateau, plateau_squares = np.inf, -np.inf, 0.0, 0.0
        for block in range(PLATEAU_BLOCKS):
            block_sum = 0.0
            for i in range(BLOCK):
                d = ring[plate, (end - (block * BLOCK + i) - 1) & (RING - 1)] - level
                block_sum += d
                plateau_squares += d * d
            low = min(low, block_sum / BLOCK)
            high = max(high, block_sum / BLOCK)
            plateau += block_sum
        plateau /= PLATEAU_BLOCKS * BLOCK
        plateau_var = max(plateau_squares / (PLATEAU_BLOCKS * BLOCK) - plateau * plateau, 0.0)
        plateau += level
        patience = 1.0 + since * period_ns / 1.5e9
        if state[plate] == STARTING:
            if high - low > (4.0 + 0.5 * np.sqrt(plateau_var)) * patience:
                continue
            state[plate] = QUIET
            numbers[LEVEL_G] = plateau
            numbers[NOISE_G2] = max(plateau_var, 0.01)
            clock[QUIET_MESSAGES] = 0
            clock[SILENCE_NS] = 0
            break
        change = plateau - numbers[BASELINE_G]
        # A converter that has stopped repeats one value; a real plate does not for so long.
        if high - low > (1.5 + 2.2 * noise_sd + 0.01 * abs(change)) * patience or clock[STUCK_SAMPLES] >= 2 * n:
            continue
        # Vibration is not white, so the plateau counts as if it had a fifth of its samples.
        change_var = 0.1 + noise / 24.0 + plateau_var * 5.0 / (PLATEAU_BLOCKS * BLOCK)
        least = max(limits[2], limits[3] * np.sqrt(change_var))
        # A change that drowns in what still shakes is not lost: it shows when that is over.
        if limits[2] < abs(change) <= least and since * period_ns < UNSURE_MAX_NS:
            continue
        state[plate] = QUIET
        numbers[LEVEL_G] = plateau
        clock[QUIET_MESSAGES] = 0
        if abs(change) > least:
            if n_changes == changes.shape[0]:
                ignored[TABLE_FULL] += 1
                break
            first_sample = max(end - clock[RING_SINCE_ONSET] - 30, max(0, count - RING))
            at = _contact_sample(ring[plate], first_sample, end - first_sample, numbers[BASELINE_G], plateau)
            contact_ns = last_ns - np.int64((count - 1 - first_sample - at) * period_ns)
            # Of two loads one after the other, the first ends at half of the change and the second begins there.
            middle = 0.5 * (numbers[BASELINE_G] + plateau)
            first_at = _contact_sample(ring[plate], first_sample, end - first_sample, numbers[BASELINE_G], middle)
            second_at = _contact_sample(ring[plate], first_sample, end - first_sample, middle, plateau)
            silent = clock[SILENCE_NS] != 0 and at == 0
            if silent:  # Nothing tells when in the silence it happened.
                contact_ns = (clock[SILENCE_NS] + contact_ns) // 2
            changes[n_changes, CHANGE_PLATE] = plate
            changes[n_changes, CHANGE_ONSET_NS] = min(clock[ONSET_NS], contact_ns)
            changes[n_changes, CHANGE_CONTACT_NS] = contact_ns
            changes[n_changes, CHANGE_SETTLED_NS] = last_ns - np.int64(back * BLOCK * period_ns)
            changes[n_changes, CHANGE_SILENT] = silent
            changes[n_changes, CHANGE_RISE_NS] = np.int64((second_at - first_at) * period_ns)
            # Twice what a quiet message may deviate: whoever moved the load still has a hand there.
            changes[n_changes, CHANGE_SHAKY] = plateau_var > (2.4 + 3.6 * noise_sd) ** 2
            changes_g[n_changes, 0] = change
            changes_g[n_changes, 1] = change_var
            changes_g[n_changes, 2] = numbers[BASELINE_G]
            n_changes += 1
        clock[SILENCE_NS] = 0
        break
    return n_changes


def _make_usual_moments(typing_context: Any, samples: Any, start: Any, level: Any, ring: Any, at: Any) -> Any:
    """Copy USUAL float32 samples from samples[start] to ring[at], and return their sum and sum of squares about level.

    The compiler makes twelve scalar steps of such short loops; a vector type says what we mean on any machine.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def address(of: int, index: int) -> Any:
            array = context.make_array(signature.args[of])(context, builder, arguments[of])
            return builder.bitcast(builder.gep(array.data, [arguments[index]]), lanes.as_pointer())

        lanes = ir.VectorType(ir.FloatType(), USUAL)
        module, flags = builder.module, ("reassoc", "contract")
        reduce = cgutils.get_or_insert_function(
            module, ir.FunctionType(ir.FloatType(), [ir.FloatType(), lanes]), f"llvm.vector.reduce.fadd.v{USUAL}f32"
        )
        values = builder.load(address(0, 1), align=4)
        builder.store(values, address(3, 4), align=4)
        one = builder.insert_element(ir.Constant(lanes, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0))
        same = ir.Constant(ir.VectorType(ir.IntType(32), USUAL), [0] * USUAL)
        off = builder.fsub(values, builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), same))
        zero = ir.Constant(ir.FloatType(), -0.0)
        total = builder.call(reduce, [zero, off], fastmath=flags)
        squares = builder.call(reduce, [zero, builder.fmul(off, off)], fastmath=flags)
        return context.make_tuple(builder, signature.return_type, (total, squares))

    returned = types.UniTuple(types.float32, 2)
    return returned(samples, types.uint64, types.float32, ring, types.uint64), generate


_usual_moments: Any = intrinsic(_make_usual_moments)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def follow(
    plates, times_ns, starts, samples, period_ns, limits, state, times, reals, ring, changes, changes_g, ignored
):
    """Feed messages, in time order, to the plates' state machines; returns the number of changes found.

    plates (n,) uint32, times_ns (n,) int64, starts (n + 1,) uint32 into samples (n_samples,) float32 grams.
    limits: (gap_ns, stuck_samples, change_min_g, change_min_sd) float64.
    state (n_plates,) int8, times (n_plates, 8) int64, reals (n_plates, 4) float64,
    ring (n_plates, RING_ROW) float32, of which the first RING are used.
    changes (capacity, 7) int64, changes_g (capacity, 3) float64: change, its variance, level before.
    ignored (3,) int64: counts of messages and changes that were not used.

    A message of a quiet plate that stays quiet, as nearly all are, is dealt with here, branch-free over its samples;
    all else is left to `_disturbed`. Unsigned indices, since a signed one may count from the end and costs a test.
    """
    n_changes = 0
    length_ns = np.int64(USUAL * period_ns)
    for message in range(plates.shape[0]):
        plate = plates[message]
        start = starts[message]
        clock = times[plate]
        numbers = reals[plate]
        t_ns = times_ns[message]
        late_ns = t_ns - clock[NEXT_NS]
        position = clock[RING_COUNT] & (RING - 1)
        quick = (
            (state[plate] == QUIET)
            & (starts[message + 1] - start == USUAL)
            & (late_ns >= -(length_ns // 2))
            & (late_ns <= limits[0])
        )
        if quick:
            level = np.float32(numbers[LEVEL_G])
            at = np.uint64(position)
            # What a message writes into the ring does not count before RING_COUNT says so.
            total, squares = _usual_moments(samples, np.uint64(start), level, ring[plate], at)
            mean = total * np.float32(1.0 / USUAL)
            mean_sq = squares * np.float32(1.0 / USUAL)
            noise = numbers[NOISE_G2]
            sd = np.float32(np.sqrt(np.float32(noise)))
            widest = np.float32(1.2) + np.float32(1.8) * sd
            # Whether it may be a stopped converter's is left to who counts in double precision.
            moves = mean_sq - mean * mean > np.float32(1e-4) * (np.float32(1.0) + mean_sq)
            if (mean_sq <= widest * widest) & (abs(mean) <= np.float32(1.0) + np.float32(1.2) * sd) & moves:
                # The row is longer than the ring, so that a message need not be cut where the ring ends.
                for i in range(position - (RING - USUAL)):
                    ring[plate, i] = ring[plate, RING + i]
                clock[RING_COUNT] += USUAL
                clock[STUCK_SAMPLES] = 0
                # Messages come at a steady rate and are stamped with a few milliseconds of jitter, so the count of
                # samples is the better clock; the stamps only steer it.
                next_ns = clock[NEXT_NS] + (late_ns >> 3) + length_ns
                clock[NEXT_NS] = next_ns
                clock[LAST_NS] = next_ns - np.int64(period_ns)
                numbers[LAST_G] = samples[start + np.uint64(USUAL - 1)]
                # The level is a running mean at first, then follows drift with a memory of 16 messages.
                quiet = clock[QUIET_MESSAGES] + 1
                clock[QUIET_MESSAGES] = quiet
                numbers[LEVEL_G] += mean * (1.0 / 16 if quiet > 14 else 1.0 / (quiet + 2))
                numbers[NOISE_G2] = max(noise + (mean_sq - noise) * (1.0 / 32), 0.01)
                continue
        n_changes = _other(
            plate, t_ns, start, starts[message + 1], samples, period_ns, limits, state, times, reals, ring, changes,
            changes_g, ignored, n_changes,
        )  # fmt: skip
    return n_changes
