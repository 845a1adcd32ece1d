"""Samples of weighing plates to settled changes: one loop over messages, one row of state per plate.

Every plate is a state machine: starting, quiet, disturbed. A quiet plate has a level, a running mean that follows
drift. A message that strays from the level ends the quiet. The plate settles again on a plateau, four blocks of samples
whose means agree; a plateau that differs from the level before the disturbance is a change. A change is dated by the
least-squares fit of two constant levels to the samples (a single change point; Hinkley, Biometrika 57, 1970), with
residuals clipped as by Huber.

What no plate can read is no weight. A message with a sample beyond all that a load can add or take away (a converter at
its rail), and a run of messages that repeat the one before (a converter or a controller that has stopped), count as
messages that never came, from their onset: the level before is compared with the level after.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

STARTING, QUIET, DISTURBED = 0, 1, 2

# Columns of a plate's row in the tables `times` and `reals`; a row is two cache lines of times, of which a quiet plate
# needs the first, and one of reals.
NEXT_NS, ONSET_NS, LAST_NS, SILENCE_NS, STUCK_SAMPLES, RING_COUNT, QUIET_MESSAGES, RING_SINCE_ONSET = range(8)
# When the samples that are repeated began; samples beyond the plate's range up to now, and those of them that move;
# since when a level is unknown that was given up, until it is read and cleared.
STUCK_SINCE_NS, OUT_SAMPLES, MOVING_OUT_SAMPLES, LOST_NS = range(8, 12)
# Since when a plate has not been at rest, if it is not.
RESTLESS_NS = 12
LEVEL_G, NOISE_G2, BASELINE_G, LAST_G = range(4)
# Columns of the changes that are handed out, whole numbers and grams.
CHANGE_PLATE, CHANGE_ONSET_NS, CHANGE_CONTACT_NS, CHANGE_SETTLED_NS = range(4)
CHANGE_SILENT, CHANGE_RISE_NS, CHANGE_SHAKY = range(4, 7)
CHANGE_DELTA_G, CHANGE_VAR_G2, CHANGE_BEFORE_G = range(3)
# Entries of the settings; from the last one on, by plate, what no load moves it by.
PERIOD_NS, GAP_NS, FROZEN_SAMPLES, STILL_FROZEN_SAMPLES, LOST_SAMPLES, CHANGE_MIN_G, CHANGE_MIN_SD = range(7)
BLOCK_SAMPLES, LIMITS_G = 7, 8
# Reasons why a message was not used.
LATE, NOT_A_NUMBER, TABLE_FULL = range(3)

RING = 512  # Samples kept of a plate: 8.5 s at 60 Hz, longer than a hand rests on a shelf. A power of two.
# A plate's row of the ring is one cache line longer: rows a power of two apart would all map onto the same few sets of
# the cache, and every plate would evict the one before.
RING_ROW = RING + 16
USUAL = 12  # Samples of nearly every message; the quick path is compiled for this number.
# Samples are averaged in blocks, BLOCK_SAMPLES of the settings, before plateaus are judged: a tenth of a second, which
# is about a period of the shelf's vibration. A load counts as settled when this many blocks agree.
PLATEAU_BLOCKS = 4
# A change that is lost in the shaking waits until the shaking is over, at most as far as the ring reaches back.
# Otherwise it would silently become the level from which the next load is measured.
UNSURE_MAX_NS = 8e9
# The samples of a plate with less noise than this often repeat each other, since its converter's steps are coarser.
STILL_G2 = 0.02
# A plate has been at rest when it was quiet for this many messages; between two jolts of a hand it is quiet for one.
REST_MESSAGES = 2
# A plate that is back from a silence has shown that nothing had moved in it once this many blocks are as before: two
# periods of the shelf's vibration.
DATED_BLOCKS = 2
# Blocks before the onset that the fit of the step sees: half a second of quiet.
BEFORE_ONSET_BLOCKS = 5
# A quarter of a second before and after an instant show by how much the level jumps there. A jump that exceeds the load
# by more than the first share of it is a hand, and one that differs by less than the second may be the load.
JUMP_BLOCKS, JUMP_OFF_SHARE, JUMP_MATCH_SHARE = 2.5, 0.35, 0.15


class PlateTables(NamedTuple):
    """State of all plates, one row each.

    Attributes:
        state: (n_plates,) int8: STARTING, QUIET or DISTURBED.
        times: (n_plates, 16) int64, columns NEXT_NS and following.
        reals: (n_plates, 4) float64, columns LEVEL_G and following.
        ring: (n_plates, RING_ROW) float32 newest samples in grams; only the first RING entries of a row count.
    """

    state: NDArray[np.int8]
    times: NDArray[np.int64]
    reals: NDArray[np.float64]
    ring: NDArray[np.float32]

    @classmethod
    def empty(cls, n_plates: int) -> PlateTables:
        """Tables of plates that have not sent any message yet."""
        reals = np.zeros((n_plates, 4))
        reals[:, NOISE_G2] = 1.0
        ring = np.zeros((n_plates, RING_ROW), np.float32)
        return cls(np.zeros(n_plates, np.int8), np.zeros((n_plates, 16), np.int64), reals, ring)


class Findings(NamedTuple):
    """Room for what a call of `follow` finds.

    Attributes:
        changes: (capacity, 7) int64, columns CHANGE_PLATE and following.
        changes_g: (capacity, 3) float64: the change, its variance, the level before.
        ignored: (3,) int64 counts of messages and changes that were not used, by reason; `follow` adds to them.
    """

    changes: NDArray[np.int64]
    changes_g: NDArray[np.float64]
    ignored: NDArray[np.int64]

    @classmethod
    def empty(cls, capacity: int) -> Findings:
        """Room for this many changes."""
        return cls(np.zeros((capacity, 7), np.int64), np.zeros((capacity, 3)), np.zeros(3, np.int64))


@njit(cache=True, nogil=True)
def _contact_sample(ring, first, n, before_g, after_g):
    """Sample at which the best fit to ring[first : first + n] steps from the level before_g to the level after_g.

    Every residual is clipped at half the step, so that neither the pressure of a hand nor a shock outweighs the step.
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


@njit(cache=True, nogil=True)
def _jump(ring, at, width):
    """By how much the mean of `width` samples from one on exceeds that of as many before it."""
    jump = 0.0
    for i in range(width):
        jump += ring[(at + i) & (RING - 1)] - ring[(at - 1 - i) & (RING - 1)]
    return jump / width


@njit(cache=True, nogil=True)
def _matching_sample(ring, first, n, at, delta_g, noise_g2, width):
    """Sample of ring[first : first + n] at which the level jumps by delta_g, mostly `at`; -1 where there is none.

    A hand that rests on a plate when goods are taken, and for longer, hides the load until it goes: the fit of one step
    then finds the hand, which weighs more. Steps that are smaller than the load are grips of a part of it.
    """
    sign = 1.0 if delta_g > 0.0 else -1.0
    size, noise_g = abs(delta_g), 2.0 * np.sqrt(2.0 * noise_g2 / width)
    from_sample, to_sample = max(at - width // 2, width), min(at + width // 2, n - width)
    fitted = -np.inf
    for i in range(from_sample, to_sample + 1):
        fitted = max(fitted, sign * _jump(ring, first + i, width))
    if fitted <= size + JUMP_OFF_SHARE * size + noise_g:
        return at
    best_off, best_at = JUMP_MATCH_SHARE * size + noise_g, -1
    jumps = np.zeros(n - 2 * width + 1)
    for i in range(len(jumps)):
        jumps[i] = sign * _jump(ring, first + width + i, width)
    for i in range(len(jumps)):
        off = abs(jumps[i] - size)
        if off < best_off and jumps[i] >= jumps[max(i - width, 0) : i + width + 1].max():
            best_off, best_at = off, width + i
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
def _moves(samples, start, stop):
    """Whether samples differ at all."""
    differ = False
    for i in range(start + 1, stop):
        differ |= samples[i] != samples[start]
    return differ


# The helpers of `_take_message` are inlined into it: handing tuples of arrays from one compiled function to another
# counts references, which takes longer than their work.
@njit(cache=True, nogil=True, inline="always")
def _disturb(plate, tables, onset_ns):
    """End a plate's quiet: its level becomes the baseline of the change to come."""
    clock = tables.times[plate]
    tables.state[plate] = DISTURBED
    tables.reals[plate, BASELINE_G] = tables.reals[plate, LEVEL_G]
    clock[ONSET_NS] = onset_ns
    if clock[QUIET_MESSAGES] >= REST_MESSAGES:
        clock[RESTLESS_NS] = onset_ns


@njit(cache=True, nogil=True, inline="always")
def _silence(clock, since_ns):
    """Note that a disturbed plate was not heard from an instant on, and drop the samples before the gap."""
    if clock[SILENCE_NS] == 0:
        clock[SILENCE_NS] = since_ns
    clock[RING_COUNT] = 0
    clock[RING_SINCE_ONSET] = 0


@njit(cache=True, nogil=True, inline="always")
def _miss(plate, tables, since_ns):
    """Note that a plate has been silent from an instant on. What happened since shows once it has settled again."""
    clock = tables.times[plate]
    if tables.state[plate] == QUIET:
        _disturb(plate, tables, since_ns)
        clock[SILENCE_NS] = 0
    if tables.state[plate] == DISTURBED:
        _silence(clock, since_ns)
    clock[RING_COUNT] = 0
    clock[RING_SINCE_ONSET] = 0


@njit(cache=True, nogil=True, inline="always")
def _dated(plate, t_ns, length_ns, gap_ns, tables):
    """Time of a message's first sample by the plate's own clock; -1 where the message is late or repeated."""
    clock = tables.times[plate]
    expected_ns = clock[NEXT_NS]
    if expected_ns == 0:
        tables.state[plate] = STARTING
        clock[ONSET_NS] = clock[RESTLESS_NS] = t_ns
    elif t_ns < expected_ns - length_ns // 2:
        return np.int64(-1)
    elif t_ns > expected_ns + gap_ns:
        _miss(plate, tables, clock[LAST_NS])
    else:
        # Messages come at a steady rate and are stamped with a few milliseconds of jitter, so the count of samples
        # is the better clock; the stamps only steer it.
        t_ns = expected_ns + (t_ns - expected_ns) // 8
    return t_ns


@njit(cache=True, nogil=True, inline="always")
def _repeats(ring, first, samples, start, n):
    """Whether n samples are, one by one, those in the ring from `first` on: a real plate's noise never repeats."""
    if first < 0 or n > RING:
        return False
    same = True
    for i in range(n):
        same &= ring[(first + i) & (RING - 1)] == samples[start + i]
    return same


@njit(cache=True, nogil=True, inline="always")
def _is_frozen(plate, n, is_repeated, before_ns, length_ns, frozen_samples, tables):
    """Count samples that repeat those before them; True where they are too many, and so were never weighed."""
    clock = tables.times[plate]
    frozen = clock[STUCK_SAMPLES] >= frozen_samples
    if not is_repeated:
        clock[STUCK_SAMPLES] = 0
        # The message in which a frozen plate comes back may in part be frozen still.
        if frozen:
            _miss(plate, tables, before_ns)
        return frozen
    if clock[STUCK_SAMPLES] == 0:
        # In the message before this one, it may have begun with any sample.
        clock[STUCK_SINCE_NS] = before_ns - length_ns
    clock[STUCK_SAMPLES] += n
    if clock[STUCK_SAMPLES] < frozen_samples:
        return False
    _miss(plate, tables, clock[STUCK_SINCE_NS])
    return True


@njit(cache=True, nogil=True, inline="always")
def _is_out_of_range(plate, n, moves, before_ns, samples, start, settings, tables):
    """Whether a message has a sample that no load explains, and so was never weighed."""
    clock, numbers = tables.times[plate], tables.reals[plate]
    if tables.state[plate] == STARTING:
        return False
    known_g = numbers[LEVEL_G] if tables.state[plate] == QUIET else numbers[BASELINE_G]
    furthest_g = 0.0
    for i in range(n):
        furthest_g = max(furthest_g, abs(samples[start + i] - known_g))
    if furthest_g <= settings[LIMITS_G + plate]:
        clock[OUT_SAMPLES] = 0
        clock[MOVING_OUT_SAMPLES] = 0
        return False
    _miss(plate, tables, before_ns)
    clock[OUT_SAMPLES] += n
    clock[MOVING_OUT_SAMPLES] = clock[MOVING_OUT_SAMPLES] + n if moves else 0
    if clock[MOVING_OUT_SAMPLES] <= settings[LOST_SAMPLES]:
        return True
    # It weighs, though from another zero: it was mounted or tared again.
    clock[LOST_NS] = clock[SILENCE_NS]
    clock[SILENCE_NS] = 0
    clock[OUT_SAMPLES] = 0
    clock[MOVING_OUT_SAMPLES] = 0
    clock[QUIET_MESSAGES] = 0
    tables.state[plate] = STARTING
    return False


@njit(cache=True, nogil=True, inline="always")
def _stays_quiet(clock, numbers, n, total, squares):
    """Whether a message keeps to its plate's level; if so, level and noise follow it."""
    noise = numbers[NOISE_G2]
    noise_sd = np.sqrt(noise)
    mean = total / n
    if not (squares <= n * (1.2 + 1.8 * noise_sd) ** 2 and abs(mean) <= 1.0 + 1.2 * noise_sd):
        return False
    # The level is a running mean at first, then follows drift with a memory of 16 messages.
    quiet = clock[QUIET_MESSAGES] + 1
    clock[QUIET_MESSAGES] = quiet
    numbers[LEVEL_G] += mean / min(quiet + 2, 16)
    numbers[NOISE_G2] = max(noise + (squares / n - noise) / 32, 0.01)
    return True


@njit(cache=True, nogil=True, inline="always")
def _first_off_level(samples, start, n, level, noise_sd):
    """The first of n samples that strays from the level, the last one where none does."""
    first = 0
    while first < n - 1 and abs(samples[start + first] - level) <= 3.0 + 3.0 * noise_sd:
        first += 1
    return first


@njit(cache=True, nogil=True, inline="always")
def _plateau(ring, end, level, n_block):
    """Of the newest blocks, n_block samples each, before `end`: range of means; mean, variance; do samples differ."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    newest = ring[(end - 1) & (RING - 1)]
    same = True
    for block in range(PLATEAU_BLOCKS):
        block_sum = 0.0
        for i in range(n_block):
            sample = ring[(end - (block * n_block + i) - 1) & (RING - 1)]
            same &= sample == newest
            d = sample - level
            block_sum += d
            squares += d * d
        low = min(low, block_sum / n_block)
        high = max(high, block_sum / n_block)
        total += block_sum
    total /= PLATEAU_BLOCKS * n_block
    variance = max(squares / (PLATEAU_BLOCKS * n_block) - total * total, 0.0)
    return high - low, total + level, variance, not same


@njit(cache=True, nogil=True, inline="always")
def _report_change(
    plate, end, plateau, plateau_var, change_var, settled_ns, settings, tables, findings, n_changes
):
    """Date the change of a plate that has settled on a plateau, and hand it out; returns the number of changes."""
    if n_changes == findings.changes.shape[0]:
        findings.ignored[TABLE_FULL] += 1
        return n_changes
    clock, numbers, ring = tables.times[plate], tables.reals[plate], tables.ring[plate]
    before_g = numbers[BASELINE_G]
    count, period_ns, n_block = clock[RING_COUNT], settings[PERIOD_NS], np.int64(settings[BLOCK_SAMPLES])
    first = max(end - clock[RING_SINCE_ONSET] - BEFORE_ONSET_BLOCKS * n_block, count - RING, 0)
    at = _contact_sample(ring, first, end - first, before_g, plateau)
    # In a silence there are no samples to look at.
    dated = at
    if clock[SILENCE_NS] == 0:
        width = np.int64(JUMP_BLOCKS * n_block)
        dated = _matching_sample(ring, first, end - first, at, plateau - before_g, numbers[NOISE_G2], width)
        if dated >= 0:
            at = dated
    contact_ns = clock[LAST_NS] - np.int64((count - 1 - first - at) * period_ns)
    # Of two loads one after the other, the first ends at half of the change and the second begins there.
    middle = 0.5 * (before_g + plateau)
    first_at = _contact_sample(ring, first, end - first, before_g, middle)
    second_at = _contact_sample(ring, first, end - first, middle, plateau)
    # In the shaking after a silence, a few samples may look as before.
    silent = clock[SILENCE_NS] != 0 and at < DATED_BLOCKS * n_block
    if silent:  # It happened at an unknown instant of the silence.
        contact_ns = (clock[SILENCE_NS] + contact_ns) // 2
    row = findings.changes[n_changes]
    row[CHANGE_PLATE] = plate
    row[CHANGE_ONSET_NS] = min(clock[ONSET_NS], contact_ns)
    row[CHANGE_CONTACT_NS] = contact_ns
    row[CHANGE_SETTLED_NS] = settled_ns
    row[CHANGE_SILENT] = silent
    row[CHANGE_RISE_NS] = np.int64((second_at - first_at) * period_ns)
    if dated < 0:  # A hand hides it, so that it may have moved at any time since the hand came.
        row[CHANGE_RISE_NS] = max(row[CHANGE_RISE_NS], contact_ns - row[CHANGE_ONSET_NS])
    # Twice what a quiet message may deviate: the hand that moved the load is still there.
    row[CHANGE_SHAKY] = plateau_var > (2.4 + 3.6 * np.sqrt(numbers[NOISE_G2])) ** 2
    grams = findings.changes_g[n_changes]
    grams[CHANGE_DELTA_G] = plateau - before_g
    grams[CHANGE_VAR_G2] = change_var
    grams[CHANGE_BEFORE_G] = before_g
    return n_changes + 1


@njit(cache=True, nogil=True, inline="always")
def _settle(plate, n, settings, tables, findings, n_changes):
    """Look for a plateau at the end of a plate's samples, n of which are new; returns the number of changes found."""
    clock, numbers, ring = tables.times[plate], tables.reals[plate], tables.ring[plate]
    level, noise, period_ns = numbers[LEVEL_G], numbers[NOISE_G2], settings[PERIOD_NS]
    count, n_block = clock[RING_COUNT], np.int64(settings[BLOCK_SAMPLES])
    for back in range(max(n // n_block - 1, 0), -1, -1):
        end = count - back * n_block
        since = clock[RING_SINCE_ONSET] - back * n_block
        if since < PLATEAU_BLOCKS * n_block or end < PLATEAU_BLOCKS * n_block:
            continue
        spread, plateau, plateau_var, differ = _plateau(ring, end, level, n_block)
        # The longer a plate shakes, the less agreement we ask for.
        patience = 1.0 + since * period_ns / 1.5e9
        if tables.state[plate] == STARTING:
            if spread > (4.0 + 0.5 * np.sqrt(plateau_var)) * patience:
                continue
            numbers[NOISE_G2] = max(plateau_var, 0.01)
        else:
            change = plateau - numbers[BASELINE_G]
            agree = spread <= (1.5 + 2.2 * np.sqrt(noise) + 0.01 * abs(change)) * patience
            # A converter that has stopped repeats one value; it is not a plate that has settled.
            if not agree or not differ:
                continue
            # Vibration is not white, so the plateau counts as if it had a fifth of its samples.
            change_var = 0.1 + (noise + plateau_var * 5.0) / (PLATEAU_BLOCKS * n_block)
            least = max(settings[CHANGE_MIN_G], settings[CHANGE_MIN_SD] * np.sqrt(change_var))
            # A change that is lost in the shaking shows when that is over.
            if settings[CHANGE_MIN_G] < abs(change) <= least and since * period_ns < UNSURE_MAX_NS:
                continue
            if abs(change) > least:
                settled_ns = clock[LAST_NS] - np.int64(back * n_block * period_ns)
                n_changes = _report_change(
                    plate, end, plateau, plateau_var, change_var, settled_ns, settings, tables, findings, n_changes
                )
        tables.state[plate] = QUIET
        numbers[LEVEL_G] = plateau
        clock[QUIET_MESSAGES] = 0
        clock[SILENCE_NS] = 0
        break
    return n_changes


@njit(cache=True, nogil=True)
def _take_message(  # noqa: PLR0913 - arrays one by one: a tuple or a slice of them would slow the loop in `follow` down
    plate, t_ns, start, stop, samples, settings, state, times, reals, ring, changes, changes_g, ignored, n_changes
):
    """Take a message that may end a plate's quiet, or that comes while there is none; returns the number of changes."""
    tables, findings = PlateTables(state, times, reals, ring), Findings(changes, changes_g, ignored)
    n: Any = np.int64(stop) - np.int64(start)
    clock, numbers = tables.times[plate], tables.reals[plate]
    period_ns = settings[PERIOD_NS]
    length_ns = np.int64(n * period_ns)
    level = numbers[LEVEL_G]
    total, squares = _message_moments(samples, start, stop, level)
    if not squares < 1e30:  # Also where it is not a number.
        findings.ignored[NOT_A_NUMBER] += 1
        return n_changes
    t_ns = _dated(plate, t_ns, length_ns, settings[GAP_NS], tables)
    if t_ns < 0:
        findings.ignored[LATE] += 1
        return n_changes
    clock[NEXT_NS] = t_ns + length_ns
    before_ns = clock[LAST_NS]
    clock[LAST_NS] = t_ns + length_ns - np.int64(period_ns)
    moves = _moves(samples, start, stop)
    continues = samples[start] == np.float32(numbers[LAST_G])
    numbers[LAST_G] = samples[stop - 1]
    if _is_out_of_range(plate, n, moves, before_ns, samples, start, settings, tables):
        return n_changes
    count = clock[RING_COUNT]
    # A frozen plate's ring has been emptied, and holds the repeated message from its beginning.
    frozen_samples = settings[FROZEN_SAMPLES] if numbers[NOISE_G2] > STILL_G2 else settings[STILL_FROZEN_SAMPLES]
    earlier = count - n if count > 0 else 0 if clock[STUCK_SAMPLES] >= frozen_samples else -1
    repeated = (continues and not moves) or _repeats(tables.ring[plate], earlier, samples, start, n)
    for i in range(n):
        tables.ring[plate, (count + i) & (RING - 1)] = samples[start + i]
    if _is_frozen(plate, n, repeated, before_ns, length_ns, frozen_samples, tables):
        for i in range(min(n, RING)):
            tables.ring[plate, i] = samples[start + i]
        return n_changes
    clock[RING_COUNT] = count + n

    if tables.state[plate] == QUIET:
        if _stays_quiet(clock, numbers, n, total, squares):
            return n_changes
        first = _first_off_level(samples, start, n, level, np.sqrt(numbers[NOISE_G2]))
        _disturb(plate, tables, t_ns + np.int64(first * period_ns))
        clock[SILENCE_NS] = 0
        clock[RING_SINCE_ONSET] = n - first
    else:
        clock[RING_SINCE_ONSET] += n
    return _settle(plate, n, settings, tables, findings, n_changes)


# Numba's functions carry no annotations.
_get_or_insert: Any = cgutils.get_or_insert_function
_uni_tuple: Any = types.UniTuple


def _make_usual_moments(typing_context: Any, samples: Any, start: Any, level: Any, ring: Any, at: Any) -> Any:
    """Copy USUAL float32 samples from samples[start] to ring[at], and return their sum and sum of squares about level.

    The compiler turns such short loops into twelve scalar steps; a vector type states the intent on any machine.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def address(argument: int, index: int) -> Any:
            array = context.make_array(signature.args[argument])(context, builder, arguments[argument])
            return builder.bitcast(builder.gep(array.data, [arguments[index]]), lanes.as_pointer())

        lanes = ir.VectorType(ir.FloatType(), USUAL)
        module, flags = builder.module, ("reassoc", "contract")
        reduce = _get_or_insert(
            module, ir.FunctionType(ir.FloatType(), [ir.FloatType(), lanes]), f"llvm.vector.reduce.fadd.v{USUAL}f32"
        )
        values = builder.load(address(0, 1), align=4)
        builder.store(values, address(3, 4), align=4)
        undefined = ir.Constant(lanes, ir.Undefined)
        level = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), USUAL), [0] * USUAL)
        off = builder.fsub(values, builder.shuffle_vector(level, undefined, first_lane))
        zero = ir.Constant(ir.FloatType(), -0.0)
        total = builder.call(reduce, [zero, off], fastmath=flags)
        squares = builder.call(reduce, [zero, builder.fmul(off, off)], fastmath=flags)
        return context.make_tuple(builder, signature.return_type, (total, squares))

    returned = _uni_tuple(types.float32, 2)
    return returned(samples, types.uint64, types.float32, ring, types.uint64), generate


_usual_moments: Any = intrinsic(_make_usual_moments)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def follow(
    plates, times_ns, starts, samples, settings, state, times, reals, ring, changes, changes_g, ignored
):
    """Feed messages, in time order, to the plates' state machines; returns the number of changes found.

    plates (n,) uint32, times_ns (n,) int64, starts (n + 1,) uint32 into samples (n_samples,) float32 grams.
    settings (LIMITS_G + n_plates,) float64, entries PERIOD_NS and following. state, times, reals, ring: a PlateTables,
    in and out. changes, changes_g, ignored: Findings, out. Both are passed as arrays, since a tuple of arrays costs a
    microsecond.

    A message of a quiet plate that stays quiet, as nearly all do, is dealt with here, without branches over its
    samples; all others go to `_take_message`. Indices are unsigned, since a signed index may count from the end and
    costs a test.
    """
    period_ns, gap_ns = settings[PERIOD_NS], settings[GAP_NS]
    n_changes = np.int64(0)  # A bare 0 is a type of its own, for which `_take_message` would be compiled once more.
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
            & (late_ns <= gap_ns)
        )
        if quick:
            level = np.float32(numbers[LEVEL_G])
            at = np.uint64(position)
            # What a message writes into the ring does not count until RING_COUNT has moved past it.
            total, squares = _usual_moments(samples, np.uint64(start), level, ring[plate], at)
            mean = total * np.float32(1.0 / USUAL)
            mean_sq = squares * np.float32(1.0 / USUAL)
            noise = numbers[NOISE_G2]
            sd = np.float32(np.sqrt(np.float32(noise)))
            widest = np.float32(1.2) + np.float32(1.8) * sd
            # Whether the converter has stopped, or repeats its messages, is decided in `_take_message`, exactly.
            newest = samples[start + np.uint64(USUAL - 1)]
            begins_alike = samples[start] == ring[plate, (position + (RING - USUAL)) & (RING - 1)]
            moves = mean_sq - mean * mean > np.float32(1e-4) * (np.float32(1.0) + mean_sq)
            moves &= not (begins_alike & (newest == np.float32(numbers[LAST_G])))
            if (mean_sq <= widest * widest) & (abs(mean) <= np.float32(1.0) + np.float32(1.2) * sd) & moves:
                # The row is longer than the ring, so that a message need not be cut where the ring ends.
                for i in range(position - (RING - USUAL)):
                    ring[plate, i] = ring[plate, RING + i]
                clock[RING_COUNT] += USUAL
                clock[STUCK_SAMPLES] = 0
                # Steered by the stamps and averaged as in `_dated` and `_stays_quiet`.
                next_ns = clock[NEXT_NS] + (late_ns >> 3) + length_ns
                clock[NEXT_NS] = next_ns
                clock[LAST_NS] = next_ns - np.int64(period_ns)
                numbers[LAST_G] = newest
                quiet = clock[QUIET_MESSAGES] + 1
                clock[QUIET_MESSAGES] = quiet
                numbers[LEVEL_G] += mean * (1.0 / 16 if quiet > 14 else 1.0 / (quiet + 2))
                numbers[NOISE_G2] = max(noise + (mean_sq - noise) * (1.0 / 32), 0.01)
                continue
        n_changes = _take_message(
            plate, t_ns, start, starts[message + 1], samples, settings, state, times, reals, ring, changes, changes_g,
            ignored, n_changes,
        )  # fmt: skip
    return n_changes


@njit(cache=True, nogil=True)
def message_noise(start, samples, out):
    """Standard deviation within each message, (n,); 0 for single samples and where a sample is not a number.

    start (n + 1,): message i has the samples start[i] to start[i + 1], at least one.
    """
    for i in range(out.shape[0]):
        # About the first sample, so that equal samples have no deviation at all.
        first = float(samples[start[i]])
        total = 0.0
        squares = 0.0
        for k in range(start[i], start[i + 1]):
            off = float(samples[k]) - first
            total += off
            squares += off * off
        n = int(start[i + 1]) - int(start[i])
        var = (squares - total * total / n) / max(n - 1, 1)
        out[i] = np.sqrt(var) if 0.0 < var < np.inf else 0.0
