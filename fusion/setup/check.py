"""Everything that is wrong, or looks wrong, with a store folder or a recording, at once.

Reading a store folder reports every fault of its files; here come the faults that well-formed files can still have:
cameras that look elsewhere, plates whose hands nobody sees, loads that a plate cannot bear, goods that a scale cannot
tell apart, sensors that are silent, late, at another rate or on another clock.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fusion.errors import ConfigError, FusionError, RecordingError
from fusion.goods.planogram import PLACE_GAIN_SD
from fusion.observations import Frame, Recording
from fusion.results import WarningKind
from fusion.sentences import sentence
from fusion.setup.coverage import STATURE_M, VIEWS_MIN, Coverage, Sight, hands_m
from fusion.simulation.floor import BODY_RADIUS_M, FloorPlan
from fusion.store.models import Product, Store
from fusion.store.shapes import edge_distance_m, inside_polygon, points_inside

if TYPE_CHECKING:
    import pyarrow as pa

Severity = Literal["error", "warning", "note"]

# A camera hangs on a wall or a ceiling of the store: farther from the floor than this, or than the floor is long, it
# has its translation in another unit, or from another store.
OUTSIDE_MAX_M = 10.0
# Two cameras do not hang in one place.
APART_MIN_M = 0.02
# A part of the floor that is this large hides a person who stands in it.
BLIND_MIN_M2 = 0.25
# Of findings of one kind about places on the floor, so many are told.
PLACES_MAX = 5
# Places along a gate's line at which people cross it.
GATE_PLACES = 5
# Deviation of a weighed load of any size: quiet plates are read to this.
SCALE_SD_G = 1.0
# Sensors that the store does not know, of which so many are named.
STRANGERS_MAX = 20
# A sensor that says nothing for so long has a gap, and so has one that misses so many of its messages in a row.
GAP_S, GAP_MESSAGES = 1.0, 5.0
# A rate that differs by more than clocks do, and a frame rate that is not the other cameras'.
RATE_OFF_MAX, FRAME_RATE_SHARE_MIN = 0.02, 0.6
# Rows are sorted by time; a row that is later than this is lost to the engine (`engine.LATENESS_MAX_S`).
LATE_MAX_S = 2.0
# A camera's clock may be off by this; from CLOCK_TOLD_S on it is told.
CLOCK_MAX_S, CLOCK_TOLD_S = 0.1, 0.02
# Clocks and calibration are judged from the busiest minute, known by the detections in each stretch of so many seconds.
STRETCH_S, STRETCHES = 10, 6
# Intervals kept of each sensor for its usual rate.
INTERVALS_MAX = 2000
# Share of a camera's keypoints outside of its picture above which the picture is another one; of a picture's width and
# height within which all of a busy camera's keypoints lie where detections come from a smaller picture.
OUTSIDE_SHARE_MAX, SMALLER_SHARE, KEYPOINTS_MIN = 0.02, 0.55, 5000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        severity: `error`: the engine cannot use it, or what it says will be wrong; `warning`: it costs accuracy;
            `note`: worth knowing.
        rule: what kind of finding it is, a few words joined by hyphens that do not change.
        subject: the file and row, or the sensor, place or product.
        message: what was wanted, then what came.
    """

    severity: Severity
    rule: str
    subject: str
    message: str


def check(path: str | Path) -> list[Finding]:
    """Find everything that is wrong with a store folder or a recording.

    Args:
        path: a folder with store.toml, or one with a store/ inside.

    Returns:
        Errors first, then warnings, then notes; an empty list never comes, since the coverage of the floor is a note.

    Raises:
        FusionError: the path is neither.
    """
    folder = Path(path)
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise FusionError(f"{folder}: want a store folder or a recording, got {got}")
    found: list[Finding] = []
    store: Store | None = None
    if (folder / "store.toml").exists():
        try:
            store = Store.load(folder)
        except ConfigError as error:
            found += _faults(error)
    elif (folder / "store").is_dir():
        try:
            recording = Recording(folder)
            store = recording.store
            found += check_recording(recording)
        except ConfigError as error:
            found += _faults(error)
            said = "the rows of the recording were not looked at: first mend what keeps it from being opened"
            found.append(Finding("note", "not-looked-at", folder.name, said))
            store = store_of(folder)
    else:
        raise FusionError(f"{folder}: want a store folder (with store.toml) or a recording (with store/), got neither")
    if store is not None:
        found += check_store(store)
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def exit_code(findings: Iterable[Finding]) -> int:
    """As a linter's: 0 where there is nothing above a note, 1 for warnings, 2 for errors."""
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else 1 if "warning" in severities else 0


def _faults(error: ConfigError) -> list[Finding]:
    found = []
    for fault in error.faults:
        subject, _, message = fault.partition(": ")
        found.append(Finding("error", "fault", subject, message))
    return found


def store_of(path: str | Path) -> Store | None:
    """The store of a store folder or of a recording; None where it cannot be read."""
    folder = Path(path)
    try:
        return Store.load(folder if (folder / "store.toml").exists() else folder / "store")
    except ConfigError:
        return None


# ---- the store -------------------------------------------------------------------------------------------------------


def check_store(store: Store, coverage: Coverage | None = None) -> list[Finding]:
    """What is wrong with a store whose files are well-formed."""
    return [
        *_plan_findings(store),
        *_camera_findings(store),
        *_sight_findings(store, coverage or Coverage.of(store)),
        *_goods_findings(store),
    ]


def _plan_findings(store: Store) -> Iterator[Finding]:
    """Floor, gates, zones, obstacles."""
    floor = store.floor
    for zone in store.zone:
        off = [corner for corner in zone.polygon if not inside_polygon(floor, *corner, margin_m=0.05)]
        if off:
            said = f"want corners on the floor, got {len(off)} of {len(zone.polygon)} outside, such as {off[0]}"
            yield Finding("warning", "zone-off-floor", f"zone {zone.id}", said)
    kinds = {zone.kind for zone in store.zone}
    if store.payment.mode == "zone" and "payment" not in kinds:
        yield Finding("error", "no-payment-zone", "store.toml", 'payment.mode = "zone": want a payment zone, got none')
    for gate in store.gate:
        (ax, ay), (bx, by) = gate.line
        length = math.dist(*gate.line)
        inward = (ay - by) / length, (bx - ax) / length
        x, y = (ax + bx) / 2, (ay + by) / 2
        inside, outside = (inside_polygon(floor, x + s * 0.3 * inward[0], y + s * 0.3 * inward[1]) for s in (1, -1))
        if outside and not inside:
            said = "want the store to the left of line[0] -> line[1], got it to the right: swap the two ends"
            yield Finding("error", "gate-reversed", f"gate {gate.id}", said)
        elif not inside:
            off_m = edge_distance_m(floor, x, y)
            said = f"want it at the floor, got it {off_m:.1f} m off"
            yield Finding("error", "gate-off-floor", f"gate {gate.id}", said)
    if store.gate:
        for ways, verb in ((("in", "both"), "comes in"), (("out", "both"), "leaves")):
            if not any(gate.direction in ways for gate in store.gate):
                said = f"want a gate through which one {verb}, got none"
                yield Finding("warning", "one-way", "store.toml", said)
    for number, (x0, y0, x1, y1, _) in enumerate(store.obstacle.boxes, 1):
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        if not inside_polygon(floor, *middle, margin_m=max(x1 - x0, y1 - y0)):
            said = f"want it on the floor, got its middle at ({middle[0]:.2f}, {middle[1]:.2f})"
            yield Finding("warning", "obstacle-off-floor", f"obstacle {number}", said)


def _camera_findings(store: Store) -> Iterator[Finding]:
    if not store.cameras:
        yield Finding("note", "no-cameras", "cameras.toml", "no cameras: shelf events are nobody's")
        return
    sight = Sight(store)
    corners = np.array(store.floor)
    limit_m = max(OUTSIDE_MAX_M, float(np.linalg.norm(corners.max(axis=0) - corners.min(axis=0))))
    places: list[tuple[str, np.ndarray, np.ndarray]] = []
    for camera, lens in zip(store.cameras, sight.lenses):
        subject = f"camera {camera.name}"
        x, y, z = lens.centre_m.tolist()
        at = f"({x:.2f}, {y:.2f}, {z:.2f})"
        off_m = 0.0 if inside_polygon(store.floor, x, y) else edge_distance_m(store.floor, x, y)
        if z <= 0.0:
            yield Finding("error", "camera-below-floor", subject, f"want it above the floor, got it at {at}")
        elif math.hypot(off_m, z) > limit_m:
            said = f"want it within {limit_m:.0f} m of the floor, got it at {at} (another unit, or a camera's pose "
            said += "in the world, where a world's in the camera is due?)"
            yield Finding("error", "camera-far-off", subject, said)
        for name, other, rotation in places:
            if float(np.linalg.norm(other - lens.centre_m)) < APART_MIN_M and np.allclose(rotation, lens.rotation):
                said = f"want a place and a direction of its own, got those of {name}"
                yield Finding("error", "camera-twice", subject, said)
        places.append((camera.name, lens.centre_m, lens.rotation))
        (fx, _, cx), (_, fy, cy), _ = camera.matrix
        width, height = camera.size
        if not (0 < cx < width and 0 < cy < height):
            said = f"want the principal point inside the {width} x {height} picture, got ({cx:g}, {cy:g})"
            yield Finding("warning", "camera-off-centre", subject, said)
        if not 0.8 < fx / fy < 1.25:
            said = f"want nearly square pixels, got focal lengths of {fx:g} and {fy:g}"
            yield Finding("warning", "camera-aspect", subject, said)
        yield from _lens_findings(subject, camera.distortions, (fx, fy, cx, cy), (width, height), lens.radius_sq_max)
    yield from _aim_findings(store, sight)


def _lens_findings(
    subject: str,
    distortions: tuple[float, ...],
    pinhole: tuple[float, float, float, float],
    size: tuple[int, int],
    radius_sq_max: float,
) -> Iterator[Finding]:
    """Where the distortion polynomial folds back inside the picture, pixels beyond have no ray."""
    k1, k2, _, _, k3 = distortions
    fx, fy, cx, cy = pinhole
    r2 = radius_sq_max
    bent = math.sqrt(r2) * (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3)
    corner = max(math.hypot((x - cx) / fx, (y - cy) / fy) for x in (0, size[0] - 1) for y in (0, size[1] - 1))
    if bent < corner:
        said = f"want distortions that hold to the picture's corners {corner * fx:.0f} px off, got ones that fold back "
        said += f"{bent * fx:.0f} px from its middle: calibrate with points near the edges"
        yield Finding("warning", "lens-folds", subject, said)


def _aim_findings(store: Store, sight: Sight) -> Iterator[Finding]:
    """Cameras that have nothing of the floor in the picture, whatever hides it."""
    corners = np.array(store.floor)
    low, high = corners.min(axis=0), corners.max(axis=0)
    x, y = np.meshgrid(np.linspace(low[0], high[0], 40), np.linspace(low[1], high[1], 40), indexing="ij")
    on_floor = points_inside(store.floor, x, y)
    at = np.column_stack([x[on_floor], y[on_floor], np.ones(int(on_floor.sum()))])
    free = Sight(store.model_copy(update={"obstacle": type(store.obstacle)()})).sees(at)
    hidden = sight.sees(at)
    for camera, lens, range_m, all_of_it, left in zip(store.cameras, sight.lenses, sight.range_m, free, hidden):
        subject = f"camera {camera.name}"
        if lens.centre_m[2] <= 0.0:
            continue
        if not all_of_it.any():
            axis = lens.rotation[2]
            down = math.degrees(math.asin(-min(1.0, max(-1.0, float(axis[2])))))
            nearest = float(np.linalg.norm(at - lens.centre_m, axis=1).min()) if len(at) else 0.0
            said = f"want some of the floor in the picture, got none: it looks {abs(down):.0f} degrees "
            said += "down" if down >= 0 else "up"
            if nearest > range_m:
                said += f", and people of {STATURE_M:g} m are large enough for a detector only within {range_m:.0f} m"
            yield Finding("error", "camera-looks-away", subject, said)
        elif not left.any():
            said = "want some of the floor in free sight, got all of it hidden by obstacles"
            yield Finding("error", "camera-blocked", subject, said)


def _sight_findings(store: Store, coverage: Coverage) -> Iterator[Finding]:
    """What of floor, plates and gates too few cameras see."""
    if not store.cameras:
        return
    sight = Sight(store)
    names = [camera.name for camera in store.cameras]
    hands = sight.sees(hands_m(store.plates))
    stands = _stands(store)
    behind_back = []
    for plate, seen, hand, stand in zip(store.plates, hands.T, hands_m(store.plates), stands):
        subject = f"plate {plate.plate}"
        if stand is None:
            yield Finding("warning", "plate-out-of-reach", subject, "want room to stand before it, got none")
            continue
        said = f"want {VIEWS_MIN} cameras that see a hand before it, at {hand[2]:.2f} m"
        views = np.flatnonzero(seen)
        if not len(views):
            yield Finding("error", "plate-unseen", subject, f"{said}; got none")
        elif len(views) < VIEWS_MIN:
            yield Finding("warning", "plate-unseen", subject, f"{said}; got {', '.join(names[v] for v in views)}")
        elif sum(not _behind(sight.lenses[view].centre_m, hand, stand) for view in views) < VIEWS_MIN:
            behind_back.append(plate.plate)
    if behind_back:
        said = f"of {len(behind_back)} plates fewer than {VIEWS_MIN} cameras see the hand past the shopper's own back: "
        yield Finding("note", "plate-behind-back", "plates", said + _some(behind_back))
    for gate in store.gate:
        a, b = (np.array(end) for end in gate.line)
        along = np.linspace(0.1, 0.9, GATE_PLACES)[:, None]
        places = np.column_stack([a + along * (b - a), np.full(GATE_PLACES, 1.2)])
        views_of = sight.sees(places).sum(axis=0)
        fewest = int(views_of.min())
        if fewest < VIEWS_MIN:
            x, y, _ = places[int(np.argmin(views_of))]
            said = f"want {VIEWS_MIN} cameras along its line at 1.2 m, got {fewest or 'none'} at ({x:.2f}, {y:.2f})"
            yield Finding("warning" if fewest else "error", "gate-unseen", f"gate {gate.id}", said)
    blind = [part for part in coverage.blind() if part[0] >= BLIND_MIN_M2]
    for area_m2, x, y in blind[:PLACES_MAX]:
        said = f"want {VIEWS_MIN} cameras everywhere, got fewer on {area_m2:.1f} m2 around ({x:.2f}, {y:.2f})"
        yield Finding("warning", "floor-unseen", "floor", said)
    if len(blind) > PLACES_MAX:
        rest = sum(part[0] for part in blind[PLACES_MAX:])
        said = f"{len(blind) - PLACES_MAX} smaller such parts, {rest:.1f} m2 in all"
        yield Finding("warning", "floor-unseen", "floor", said)
    shares = ", ".join(f"{coverage.share(n):.1%} by {n} or more" for n in (1, 2, 3))
    yield Finding("note", "coverage", "floor", f"seen at 1.2 m: {shares}")


def _stands(store: Store) -> list[np.ndarray | None]:
    """Where a shopper stands before each plate; None where there is no room."""
    try:
        places = FloorPlan(store).stands
    except ValueError:
        return [None] * len(store.plates)
    return [at[0] if len(at) else None for at in places]


def _behind(camera_m: np.ndarray, hand_m: np.ndarray, stand_m: np.ndarray) -> bool:
    """Whether a shopper who stands there hides the hand: an upright body in the way of the camera's ray."""
    way = hand_m - camera_m
    length_sq = float(way[:2] @ way[:2])
    if length_sq < 1e-9:
        return False
    along = min(1.0, max(0.0, float((stand_m - camera_m[:2]) @ way[:2]) / length_sq))
    near = camera_m + along * way
    return bool(np.hypot(*(near[:2] - stand_m)) < BODY_RADIUS_M and near[2] < STATURE_M)


def _some(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _goods_findings(store: Store) -> Iterator[Finding]:
    """Planogram: loads, look-alikes, what lies nowhere."""
    products = {product.gtin: product for product in store.products}
    plates = {plate.plate: plate for plate in store.plates}
    on_plate: dict[str, list[tuple[Product, int]]] = defaultdict(list)
    for facing in store.planogram:
        on_plate[facing.plate].append((products[facing.gtin], facing.stock))
    for name, goods in on_plate.items():
        load_g = sum(stock * product.weight_g for product, stock in goods)
        capacity_g = plates[name].capacity_g
        if load_g > capacity_g:
            said = f"want at most {capacity_g / 1000:.1f} kg, got {load_g / 1000:.1f} kg of stock in the planogram"
            yield Finding("warning", "plate-overloaded", f"plate {name}", said)
        sorted_goods = sorted((product for product, _ in goods), key=lambda product: product.weight_g)
        for lighter, heavier in zip(sorted_goods, sorted_goods[1:]):
            chance = mix_up_probability(lighter, heavier)
            if chance > store.review.receipt_error_max and lighter.price != heavier.price:
                said = (
                    f"want weights that the scale can tell apart, got {lighter.name} ({lighter.weight_g:g} g) and "
                    f"{heavier.name} ({heavier.weight_g:g} g): {chance:.0%} of the one weigh like the other"
                )
                yield Finding("warning", "look-alikes", f"plate {name}", said)
            elif chance > store.review.receipt_error_max:
                said = f"{lighter.name} and {heavier.name} weigh the same and cost the same: stocks may be mixed up"
                yield Finding("note", "look-alikes", f"plate {name}", said)
    planned = {facing.gtin for facing in store.planogram}
    nowhere = [product.name for product in store.products if product.gtin not in planned]
    if nowhere:
        said = f"{len(nowhere)} products lie on no plate of the planogram: {_some(nowhere)}"
        yield Finding("note", "not-planned", "planogram.csv", said)
    empty = [plate.plate for plate in store.plates if plate.plate not in on_plate]
    if empty:
        said = f"nothing lies on {len(empty)} plates: {_some(empty)}"
        yield Finding("note", "plate-not-planned", "planogram.csv", said)
    for product in store.products:
        if product.weight_sd_g > 0.25 * product.weight_g:
            said = f"want a spread well below the weight of {product.weight_g:g} g, got {product.weight_sd_g:g} g: "
            said += "pieces cannot be counted by weight"
            yield Finding("warning", "weight-spread", f"product {product.gtin}", said)


def mix_up_probability(one: Product, other: Product) -> float:
    """Share of pieces of either product that weigh more like the other, on one plate whose gain is known.

    A weighed load deviates by the piece, by where on the plate it lies and by the scale; the nearer mean is taken.
    """
    sd_g = sum(
        math.hypot(product.weight_sd_g, PLACE_GAIN_SD * product.weight_g, SCALE_SD_G) for product in (one, other)
    )
    return 0.5 * math.erfc(abs(one.weight_g - other.weight_g) / sd_g / math.sqrt(2.0))


# ---- a recording -----------------------------------------------------------------------------------------------------


@dataclass
class _Voice:
    """What one sensor says, as far as it was read."""

    n: int = 0
    first_ns: int = 0
    last_ns: int = 0
    n_gaps: int = 0
    longest_gap_s: float = 0.0
    longest_at_ns: int = 0
    repeated: int = 0
    n_intervals: int = 0
    # Intervals in seconds, and the samples or frames that each is long.
    intervals: list[np.ndarray] = field(default_factory=list)
    people: int = 0
    low: float = math.inf
    high: float = -math.inf
    not_finite: int = 0
    keypoints: int = 0
    outside: int = 0
    right_px: float = 0.0
    bottom_px: float = 0.0

    def period_s(self) -> float:
        """Usual time of one sample or frame; NaN before there were two."""
        return float(np.median(np.concatenate(self.intervals))) if self.intervals else math.nan


class _Stream:
    """One stream of a recording, read once from end to end."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.voices: dict[str, _Voice] = {sensor: _Voice() for sensor in known}
        self.known = frozenset(self.voices)
        self.n_rows = 0
        self.n_early = 0
        self.most_early_s = 0.0
        self.early_at_ns = 0
        self.newest_ns = 0
        self.busy: Counter[int] = Counter()

    def add(self, batch: pa.RecordBatch, gap_s: float) -> tuple[np.ndarray, list[str]]:
        """Take in times and sensors of a batch; returns each row's sensor as an index into the names that come too."""
        import pyarrow.types as pt

        times = batch.column(0).to_numpy()
        column = batch.column(1)
        if not pt.is_dictionary(column.type):
            column = column.dictionary_encode()
        names = column.dictionary.to_pylist()
        sensor = column.indices.to_numpy()
        self.n_rows += len(times)
        if not len(times):
            return sensor, names
        newest = np.maximum.accumulate(np.concatenate([[self.newest_ns], times]))
        early_s = (newest[:-1] - times) / 1e9
        if (early_s > 0).any():
            worst = int(np.argmax(early_s))
            self.n_early += int((early_s > 0).sum())
            if early_s[worst] > self.most_early_s:
                self.most_early_s, self.early_at_ns = float(early_s[worst]), int(times[worst])
        self.newest_ns = int(newest[-1])
        for index in np.unique(sensor).tolist():
            self._hear(names[index], np.sort(times[sensor == index]), gap_s)
        return sensor, names

    def _hear(self, name: str, times: np.ndarray, gap_s: float) -> None:
        voice = self.voices.setdefault(name, _Voice())
        if voice.n:
            times = np.concatenate([[voice.last_ns], times])
        else:
            voice.first_ns = int(times[0])
            voice.n = 1
        steps_s = np.diff(times) / 1e9
        voice.n += len(steps_s)
        voice.last_ns = max(voice.last_ns, int(times[-1]))
        voice.repeated += int((steps_s == 0).sum())
        gaps = np.flatnonzero(steps_s > gap_s)
        voice.n_gaps += len(gaps)
        if len(gaps):
            longest = gaps[np.argmax(steps_s[gaps])]
            if steps_s[longest] > voice.longest_gap_s:
                voice.longest_gap_s, voice.longest_at_ns = float(steps_s[longest]), int(times[longest])

    def keep_intervals(self, name: str, intervals_s: np.ndarray) -> None:
        voice = self.voices[name]
        room = INTERVALS_MAX - voice.n_intervals
        if room > 0 and len(intervals_s):
            voice.intervals.append(intervals_s[:room])
            voice.n_intervals += min(room, len(intervals_s))


def check_recording(recording: Recording) -> list[Finding]:
    """What is wrong with the rows of a recording that could be opened; its store is looked at by `check_store`."""
    store = recording.store
    cameras = _Stream("detections", [camera.name for camera in store.cameras])
    plates = _Stream("weights", [plate.plate for plate in store.plates])
    found: list[Finding] = []
    for stream, read in ((cameras, _read_frames), (plates, _read_weights)):
        try:
            read(recording, stream)
        except (RecordingError, ConfigError) as error:
            subject, _, message = str(error).partition(": ")
            found.append(Finding("error", "damaged", subject, message))
    found += [Finding("error", "damaged", *_split(said)) for said in recording.damaged]
    # A torn file was counted above, each by its name.
    for reason, n in sorted(recording.ignored.items()):
        stream_name, _, said = reason.partition(": ")
        if said != "damaged file":
            found.append(Finding("warning", "rows-not-used", stream_name, f"{n} rows: {said}"))
    heard = [voice for stream in (cameras, plates) for voice in stream.voices.values() if voice.n]
    if not heard:
        found.append(Finding("warning", "no-rows", recording.folder.name, "want frames or weights, got none"))
        return found
    span_ns = min(voice.first_ns for voice in heard), max(voice.last_ns for voice in heard)
    for stream in (cameras, plates):
        found += _stream_findings(store, stream, span_ns)
    found += _picture_findings(store, cameras)
    found += _scale_findings(store, plates)
    found += _gate_findings(recording, span_ns)
    found += _clock_findings(recording, cameras)
    n_frames, n_messages = cameras.n_rows, plates.n_rows
    minutes = (span_ns[1] - span_ns[0]) / 60e9
    said = f"{minutes:.1f} minutes, {n_frames} frames, {n_messages} weight messages, from {_utc(span_ns[0])}"
    found.append(Finding("note", "recording", recording.folder.name, said))
    return found


def _split(said: str) -> tuple[str, str]:
    subject, _, message = said.partition(": ")
    return subject, message


def _utc(t_ns: int) -> str:
    seconds, rest = divmod(t_ns, 1_000_000_000)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def _read_frames(recording: Recording, stream: _Stream) -> None:
    n_joints = recording.store.layout.n_joints
    sizes = {camera.name: camera.size for camera in recording.store.cameras}
    for batch in recording.tables("detections"):
        sensor, names = stream.add(batch, GAP_S)
        times = batch.column(0).to_numpy()
        offsets = batch.column(2).offsets.to_numpy()
        n_people = np.diff(offsets)
        points = batch.column(2).flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, n_joints, 3)
        of_row = np.repeat(sensor, n_people)
        bins = np.repeat(times // (STRETCH_S * 1_000_000_000), n_people)
        for stretch, n in zip(*(part.tolist() for part in np.unique(bins, return_counts=True))):
            stream.busy[stretch] += n
        for index in np.unique(sensor).tolist():
            name = names[index]
            steps_s = np.diff(np.sort(times[sensor == index])) / 1e9
            stream.keep_intervals(name, steps_s[steps_s > 0])
            voice = stream.voices[name]
            own = points[of_row == index]
            voice.people += len(own)
            x, y, score = own[..., 0], own[..., 1], own[..., 2]
            scored = score > 0
            finite = np.isfinite(own).all(axis=-1)
            voice.not_finite += int((~finite).sum())
            x, y = x[scored & finite], y[scored & finite]
            voice.keypoints += len(x)
            if name in sizes and len(x):
                width, height = sizes[name]
                # A detector may place a joint, or a box's edge, a little beyond the picture's.
                slack = 0.05 * width, 0.05 * height
                off = (x < -slack[0]) | (y < -slack[1]) | (x > width + slack[0]) | (y > height + slack[1])
                voice.outside += int(off.sum())
                voice.right_px = max(voice.right_px, float(np.quantile(x, 0.999)))
                voice.bottom_px = max(voice.bottom_px, float(np.quantile(y, 0.999)))


def _read_weights(recording: Recording, stream: _Stream) -> None:
    for batch in recording.tables("weights"):
        sensor, names = stream.add(batch, GAP_S)
        if not len(sensor):
            continue
        times = batch.column(0).to_numpy()
        offsets = batch.column(2).offsets.to_numpy()
        n_samples = np.diff(offsets)
        samples = batch.column(2).flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        of_row = np.repeat(sensor, n_samples)
        bad = ~np.isfinite(samples)
        for index in np.unique(sensor).tolist():
            name = names[index]
            rows = np.flatnonzero(sensor == index)
            rows = rows[np.argsort(times[rows], kind="stable")]
            # A message's samples last until the next one, unless some were lost between.
            steps_s, n = np.diff(times[rows]) / 1e9, n_samples[rows][:-1]
            whole = (steps_s > 0) & (n > 0)
            stream.keep_intervals(name, steps_s[whole] / n[whole])
            voice = stream.voices[name]
        # Smallest and largest of each sensor at once: hundreds of plates speak in every batch.
        low, high = np.full(len(names), math.inf), np.full(len(names), -math.inf)
        np.minimum.at(low, of_row[~bad], samples[~bad])
        np.maximum.at(high, of_row[~bad], samples[~bad])
        wrong = np.bincount(of_row[bad], minlength=len(names))
        for index in np.unique(sensor).tolist():
            voice = stream.voices[names[index]]
            voice.low, voice.high = min(voice.low, float(low[index])), max(voice.high, float(high[index]))
            voice.not_finite += int(wrong[index])


def _stream_findings(store: Store, stream: _Stream, span_ns: tuple[int, int]) -> Iterator[Finding]:
    """Order, names, silences, repetitions."""
    kind = "camera" if stream.name == "detections" else "plate"
    file = "cameras.toml" if kind == "camera" else "plates.csv"
    if not stream.n_rows:
        if stream.known:
            said = f"want rows of {len(stream.known)} {kind}s, got none"
            yield Finding("warning", "no-rows", stream.name, said)
        return
    if stream.n_early:
        lost = stream.most_early_s > LATE_MAX_S
        said = f"want rows in order of time, got {stream.n_early} before an earlier one, by up to "
        said += f"{stream.most_early_s:.3f} s at {_utc(stream.early_at_ns)}"
        said += f"; what is more than {LATE_MAX_S:g} s late is not used" if lost else ""
        yield Finding("error" if lost else "warning", "rows-out-of-order", stream.name, said)
    strangers = [name for name in stream.voices if name not in stream.known]
    for name in strangers[:STRANGERS_MAX]:
        said = f"want one that stands in {file}, got {stream.voices[name].n} rows of this one"
        yield Finding("error", f"unknown-{kind}", f"{kind} {name}", said)
    if len(strangers) > STRANGERS_MAX:
        said = f"{len(strangers) - STRANGERS_MAX} more that do not stand in {file}"
        yield Finding("error", f"unknown-{kind}", stream.name, said)
    for name, voice in stream.voices.items():
        subject = f"{kind} {name}"
        if name not in stream.known:
            continue
        if not voice.n:
            yield Finding("warning", f"{kind}-silent", subject, "want rows of it, got none")
            continue
        period_s = voice.period_s()
        gap_s = GAP_S
        if kind == "camera" and period_s > 0:
            gap_s = max(GAP_S, GAP_MESSAGES * period_s)
        edges = (voice.first_ns - span_ns[0]) / 1e9, (span_ns[1] - voice.last_ns) / 1e9
        if voice.longest_gap_s > gap_s:
            said = f"{voice.n_gaps} gaps of more than {GAP_S:g} s, the longest {voice.longest_gap_s:.1f} s "
            yield Finding("warning", "gaps", subject, said + f"from {_utc(voice.longest_at_ns)}")
        if max(edges) > 2 * gap_s:
            when = "begins {:.1f} s after the first sensor" if edges[0] >= edges[1] else "ends {:.1f} s before the last"
            yield Finding("warning", "gaps", subject, when.format(max(edges)))
        if voice.repeated:
            said = f"want each time once, got {voice.repeated} rows of a time that was there before"
            yield Finding("warning", "repeated", subject, said)


def _picture_findings(store: Store, stream: _Stream) -> Iterator[Finding]:
    """Frame rates, and whether keypoints are of the pictures that are calibrated."""
    sizes = {camera.name: camera.size for camera in store.cameras}
    heard = {name: voice for name, voice in stream.voices.items() if voice.n and name in sizes}
    rates = {name: 1.0 / voice.period_s() for name, voice in heard.items() if voice.period_s() > 0}
    usual = float(np.median(list(rates.values()))) if rates else math.nan
    usual_people = float(np.median([voice.people / voice.n for voice in heard.values()])) if heard else 0.0
    for name, voice in heard.items():
        subject = f"camera {name}"
        if rates.get(name, usual) < FRAME_RATE_SHARE_MIN * usual:
            said = f"want about the other cameras' {usual:.1f} frames a second, got {rates[name]:.1f}"
            yield Finding("warning", "frame-rate", subject, said)
        if not voice.people and usual_people > 0:
            said = f"want people in some of {voice.n} frames, got none; other cameras show {usual_people:.2f} a frame"
            yield Finding("warning", "camera-sees-nobody", subject, said)
        if voice.not_finite:
            said = f"want finite keypoints, got {voice.not_finite} that are not"
            yield Finding("error", "not-finite", subject, said)
        width, height = sizes[name]
        if voice.outside > OUTSIDE_SHARE_MAX * max(voice.keypoints, 1):
            said = f"want keypoints of a {width} x {height} picture, got {voice.outside / voice.keypoints:.0%} outside "
            yield Finding("error", "another-picture", subject, said + "of it (another size, or undistorted?)")
        elif voice.keypoints > KEYPOINTS_MIN and (
            voice.right_px < SMALLER_SHARE * width and voice.bottom_px < SMALLER_SHARE * height
        ):
            said = f"want keypoints of a {width} x {height} picture, got none beyond "
            said += f"({voice.right_px:.0f}, {voice.bottom_px:.0f}): detected in a smaller picture?"
            yield Finding("warning", "another-picture", subject, said)


def _scale_findings(store: Store, stream: _Stream) -> Iterator[Finding]:
    """Rates, plates that never change, samples that are no numbers."""
    off: dict[str, float] = {}
    still = []
    for name, voice in stream.voices.items():
        if name not in stream.known or not voice.n:
            continue
        subject = f"plate {name}"
        period_s = voice.period_s()
        if period_s > 0 and abs(1.0 / period_s / store.weight_rate_hz - 1.0) > RATE_OFF_MAX:
            off[name] = 1.0 / period_s
        if voice.not_finite:
            yield Finding("error", "not-finite", subject, f"want grams, got {voice.not_finite} samples that are none")
        if voice.low == voice.high and voice.n > 1:
            still.append(f"{name} ({voice.low:g} g)")
    said = f"want {store.weight_rate_hz:g} samples a second, as in store.toml"
    if len(off) > PLACES_MAX:
        low, high = min(off.values()), max(off.values())
        which = "all" if len(off) == sum(bool(voice.n) for voice in stream.voices.values()) else f"{len(off)} of them"
        yield Finding("error", "weight-rate", "plates", f"{said}; got {low:.1f} to {high:.1f} on {which}")
    else:
        for name, rate_hz in off.items():
            yield Finding("error", "weight-rate", f"plate {name}", f"{said}; got {rate_hz:.1f}")
    for one in still:
        name, _, value = one.partition(" ")
        said = f"want weights that tremble, got {value[1:-1]} in every sample: dead or unplugged"
        yield Finding("warning", "plate-dead", f"plate {name}", said)


def _gate_findings(recording: Recording, span_ns: tuple[int, int]) -> Iterator[Finding]:
    """What gate.jsonl and items.jsonl name that the store does not know."""
    store = recording.store
    gates = {gate.id: gate for gate in store.gate}
    unknown: Counter[tuple[str, str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    n_off, newest_ns, n_early = 0, 0, 0
    for scan in recording.scans():
        gate = gates.get(scan.gate)
        if gate is None:
            unknown["gate.jsonl", "gate", scan.gate] += 1
        elif scan.credential_type not in ("account", "staff", *gate.credentials):
            refused[scan.gate, scan.credential_type] += 1
        n_off += not span_ns[0] - 60e9 <= scan.t_ns <= span_ns[1] + 60e9
        n_early += scan.t_ns < newest_ns
        newest_ns = max(newest_ns, scan.t_ns)
    zones = {zone.id for zone in store.zone} | set(gates)
    gtins, plates = {product.gtin for product in store.products}, {plate.plate for plate in store.plates}
    for item in recording.sightings():
        named = (("zone", item.zone, zones), ("plate", item.plate, plates), ("gtin", item.gtin, gtins))
        for key, value, known in named:
            if value is not None and value not in known:
                unknown["items.jsonl", key, value] += 1
    for (file, key, value), n in unknown.items():
        severity: Severity = "error" if key == "gate" else "warning"
        yield Finding(severity, f"unknown-{key}", file, f"{key}: want one of the store, got {value!r} {n} times")
    for (gate_id, kind), n in refused.items():
        said = f"want a credential that it lists ({', '.join(gates[gate_id].credentials)}), got {kind} {n} times"
        yield Finding("warning", "credential", f"gate {gate_id}", said)
    if n_off:
        said = f"want scans while sensors spoke, got {n_off} more than a minute before or after (another clock?)"
        yield Finding("warning", "clock", "gate.jsonl", said)
    if n_early:
        said = f"want lines in order of time, got {n_early} before an earlier one"
        yield Finding("warning", "rows-out-of-order", "gate.jsonl", said)


def _clock_findings(recording: Recording, cameras: _Stream) -> Iterator[Finding]:
    """Clocks and calibration, judged by following people through the busiest minute."""
    from fusion.people.tracks import Tracker

    store = recording.store
    if len(store.cameras) < VIEWS_MIN or not cameras.busy:
        return
    in_minute = {stretch: sum(cameras.busy[stretch + i] for i in range(STRETCHES)) for stretch in cameras.busy}
    start_ns = max(in_minute, key=lambda stretch: (in_minute[stretch], -stretch)) * STRETCH_S * 1_000_000_000
    within_ns = start_ns, start_ns + STRETCHES * STRETCH_S * 1_000_000_000
    tracker = Tracker(store)
    said_before: set[tuple[str, str]] = set()
    try:
        for frames in _sets(recording.frames(within_ns), {camera.name for camera in store.cameras}):
            tracker.step(frames)
            for warning in tracker.warnings():
                if (warning.kind, warning.subject) in said_before or warning.kind not in _CAMERA_FAULTS:
                    continue
                said_before.add((warning.kind, warning.subject))
                rule = warning.kind.replace(" ", "-")
                said = f"{sentence(warning)} (at {_utc(warning.t_ns)})"
                yield Finding("warning", rule, f"camera {warning.subject}", said)
    except RecordingError:
        return  # Told already.
    states = tracker.health.report()
    # Told from the middle of all clocks, not from their mean: one that is far off draws the mean along.
    usual_s = float(np.median([state.offset_s for state in states]))
    for state in states:
        off_s = abs(state.offset_s - usual_s)
        if off_s - 2.0 * state.offset_sd_s < CLOCK_TOLD_S:
            continue
        way = "ahead of" if state.offset_s > usual_s else "behind"
        said = f"want one clock, got its times {1e3 * off_s:.0f} ms {way} the other cameras' "
        said += f"(+- {1e3 * state.offset_sd_s:.0f})"
        severity: Severity = "note"
        if off_s > CLOCK_MAX_S:
            severity, said = "warning", f"{said}; the engine corrects up to {1e3 * CLOCK_MAX_S:.0f} ms"
        yield Finding(severity, "clock", f"camera {state.name}", said)


_CAMERA_FAULTS = (WarningKind.CAMERA_MOVED, WarningKind.CAMERA_MISSES_PEOPLE)
# Frames of different cameras make one set while they lie within this span, as in the engine.
_SET_SPAN_NS = 100_000_000


def _sets(frames: Iterable[Frame], cameras: set[str]) -> Iterator[list[Frame]]:
    """Frames by sets: one of each camera at most, within a span."""
    current: dict[str, Frame] = {}
    start_ns = 0
    newest_ns: dict[str, int] = {}
    for frame in frames:
        # What is out of order was told; here it would only confuse.
        if frame.camera not in cameras or frame.t_ns <= newest_ns.get(frame.camera, 0):
            continue
        newest_ns[frame.camera] = frame.t_ns
        if current and (frame.camera in current or frame.t_ns - start_ns > _SET_SPAN_NS):
            yield list(current.values())
            current = {}
        if not current:
            start_ns = frame.t_ns
        current[frame.camera] = frame
    if current:
        yield list(current.values())


# ---- telling ---------------------------------------------------------------------------------------------------------


def findings_json(findings: Iterable[Finding]) -> str:
    """An array of objects with a finding's attributes."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1, ensure_ascii=False)


def findings_text(findings: Iterable[Finding]) -> str:
    """A line for each finding, and one that counts them."""
    findings = list(findings)
    lines = [f"{f.severity:7}  {_clean(f.subject)}: {_clean(f.message)} [{f.rule}]" for f in findings]
    n = Counter(finding.severity for finding in findings)
    counted = [f"{n[one]} {one}{'' if n[one] == 1 else 's'}" for one in ("error", "warning", "note")]
    return "\n".join([*lines, ", ".join(counted)])


def _clean(text: str) -> str:
    """What files say may hold anything; a terminal gets what can be printed, on one line."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
