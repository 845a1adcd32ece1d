"""The floor of a store as SVG, in centimetres with y pointing down, for the report, the console and coverage maps."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fusion.people.geometry import Rig
from fusion.show.page import clean, page_file
from fusion.store.models import Gate, Plate, Store

# The plan shows this much around the floor, so that people approaching a gate are visible.
MARGIN_M = 0.35
OUTSIDE_MAX_M = 2.5
CM_PER_M = 100.0
# The script of a page sizes text in screen pixels; a still picture is this many pixels wide.
PICTURE_WIDTH_PX = 960
# A scale bar is at least this long in a still picture: shorter ones are hard to compare with.
SCALE_MIN_PX = 70
# Width of a character of a sans serif typeface, relative to its size: an average of letters and digits.
CHARACTER_EM = 0.58
# Names of plates are this large where their plate is long enough, in centimetres of the store.
PLATE_NAME_CM = 8.0


class Box(NamedTuple):
    """An axis-aligned rectangle on the floor, in metres."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class _Camera:
    """A camera from above: position in metres, heading in radians counterclockwise from x."""

    name: str
    x: float
    y: float
    heading: float


class Plan:
    """The floor of a store as SVG.

    Attributes:
        left_cm, top_cm, width_cm, height_cm: what the picture shows.
    """

    def __init__(self, store: Store, people_m: Box | None = None) -> None:
        """Lay out the plan.

        Args:
            store: whose floor it is.
            people_m: where people were; the plan grows to show it, by at most `OUTSIDE_MAX_M` beyond the floor.
        """
        self.store = store
        self._cameras = _cameras(store)
        xs, ys = [x for x, _ in store.floor], [y for _, y in store.floor]
        limit = Box(
            min(xs) - OUTSIDE_MAX_M, min(ys) - OUTSIDE_MAX_M, max(xs) + OUTSIDE_MAX_M, max(ys) + OUTSIDE_MAX_M
        )
        shown = [(camera.x, camera.y) for camera in self._cameras]
        for gate in store.gate:
            # Room for its name, outside.
            (x, y), inward = _gate_middle(gate)
            shown.append((x / CM_PER_M - 0.25 * inward[0], -(y / CM_PER_M - 0.25 * inward[1])))
        if people_m is not None:
            shown += [(people_m.x0, people_m.y0), (people_m.x1, people_m.y1)]
        xs += [min(max(x, limit.x0), limit.x1) for x, _ in shown]
        ys += [min(max(y, limit.y0), limit.y1) for _, y in shown]
        self.left_cm = math.floor((min(xs) - MARGIN_M) * CM_PER_M)
        self.top_cm = math.floor((-max(ys) - MARGIN_M) * CM_PER_M)
        self.width_cm = math.ceil((max(xs) + MARGIN_M) * CM_PER_M) - self.left_cm
        self.height_cm = math.ceil((-min(ys) + MARGIN_M) * CM_PER_M) - self.top_cm

    @property
    def viewbox(self) -> str:
        """The viewBox attribute of the picture."""
        return f"{self.left_cm} {self.top_cm} {self.width_cm} {self.height_cm}"

    @property
    def unit_cm(self) -> float:
        """Centimetres of the store in a pixel of a still picture."""
        return self.width_cm / PICTURE_WIDTH_PX

    def picture(
        self, title: str, drawn: str, css: str = "", on_floor: str = "", below: str = "", below_cm: float = 0.0
    ) -> str:
        """A complete SVG file.

        Args:
            title: of the picture.
            drawn: SVG elements over the plan, under its labels.
            css: style rules besides those of the plan.
            on_floor: SVG elements between the floor and its furniture.
            below: SVG elements in a strip of `below_cm` below the plan.
            below_cm: height of that strip.
        """
        unit, height_cm = self.unit_cm, self.height_cm + below_cm
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="{self.left_cm} {self.top_cm} {self.width_cm} {height_cm:g}" width="{PICTURE_WIDTH_PX}" '
            f'height="{height_cm / unit:.0f}" style="--u:{unit:.3f}px;--k:{unit:.3f}" role="img">'
            f"<title>{_escaped(title)}</title><style>{page_file('plan.css')}{css}</style>"
            f'<rect class="ground" x="{self.left_cm}" y="{self.top_cm}" width="{self.width_cm}" '
            f'height="{height_cm:g}"/>{self.ground(on_floor)}{drawn}{self.labels()}{below}</svg>\n'
        )

    def ground(self, on_floor: str = "") -> str:
        """Floor, `on_floor`, zones, obstacles, shelves, gates and cameras, in this order."""
        store = self.store
        hatch = (
            '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="8"/></pattern></defs>'
        )
        parts = [f'{hatch}<polygon class="floor" points="{_points(store.floor)}"/>{on_floor}']
        for zone in store.zone:
            area = f'<polygon points="{_points(zone.polygon)}"/>'
            parts.append(f'<g class="zone">{area}<title>{zone.kind} zone {_escaped(zone.id)}</title></g>')
        for x0, y0, x1, y1, height in store.obstacle.boxes:
            corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
            title = f"<title>obstacle, {height:g} m high</title>"
            parts.append(f'<polygon class="obstacle" points="{_points(corners)}">{title}</polygon>')
        parts += map(_shelf, _stacks(store.plates))
        parts += map(_gate, store.gate)
        parts += map(self._camera, self._cameras)
        return "".join(parts)

    def _camera(self, camera: _Camera) -> str:
        x, y = self._camera_place(camera)
        turned = f"translate({x:.0f} {y:.0f}) rotate({-math.degrees(camera.heading):.0f})"
        return (
            f'<g class="camera" transform="{turned}">'
            f'<path d="M-7-5H3V5H-7ZM3-2L9-6V6L3 2Z"/><title>camera {_escaped(camera.name)}</title></g>'
        )

    def _camera_place(self, camera: _Camera) -> tuple[float, float]:
        """Where a camera is drawn: inside the picture, also where it hangs outside of what that shows."""
        x = min(max(camera.x * CM_PER_M, self.left_cm + 6), self.left_cm + self.width_cm - 6)
        return x, min(max(-camera.y * CM_PER_M, self.top_cm + 6), self.top_cm + self.height_cm - 6)

    def labels(self) -> str:
        """Names of zones and gates, to be drawn above people's paths."""
        parts = ['<g class="zone">']
        for zone in self.store.zone:
            x, y = (sum(corner[axis] for corner in zone.polygon) / len(zone.polygon) for axis in (0, 1))
            parts.append(f'<text x="{x * CM_PER_M:.0f}" y="{-y * CM_PER_M:.0f}">{_escaped(zone.id)}</text>')
        parts.append('</g><g class="gate">')
        for gate in self.store.gate:
            (x, y), inward = _gate_middle(gate)
            x, y = x - 34 * inward[0], y - 34 * inward[1]
            parts.append(f'<text x="{x:.0f}" y="{y:.0f}">{_escaped(gate.id)}</text>')
        return "".join([*parts, "</g>"])

    def names(self) -> str:
        """Names of cameras beside them, and of plates along their longer side, as SVG."""
        unit = self.unit_cm
        parts = ['<g class="names">']
        for stack in _stacks(self.store.plates):
            plate, name = stack[0], _stack_name([plate.plate for plate in sorted(stack, key=lambda plate: plate.z)])
            long_cm = CM_PER_M * max(plate.width, plate.depth)
            size_cm = min(PLATE_NAME_CM, 0.94 * long_cm / (CHARACTER_EM * len(name)))
            # Text is read from the left or from below, never upside down.
            turned = -math.degrees(plate.yaw) - (90.0 if plate.depth > plate.width else 0.0)
            turned = (round(turned) + 90) % 180 - 90
            place = f"translate({plate.x * CM_PER_M:.0f} {-plate.y * CM_PER_M:.0f}) rotate({turned})"
            parts.append(f'<text transform="{place}" style="font-size:{size_cm:.1f}px">{_escaped(name)}</text>')
        parts.append('</g><g class="names cameras">')
        for camera in self._cameras:
            x, y = self._camera_place(camera)
            name = _escaped(camera.name)
            half_cm = CHARACTER_EM * 11 * unit * len(camera.name) / 2
            x = min(max(x, self.left_cm + half_cm), self.left_cm + self.width_cm - half_cm)
            # Below the camera in the upper half of the picture, else above it: inwards.
            y += 19 * unit if y < self.top_cm + self.height_cm / 2 else -19 * unit
            parts.append(f'<text x="{x:.0f}" y="{y:.0f}">{name}</text>')
        return "".join([*parts, "</g>"])

    def scale_bar(self, right_cm: float, y_cm: float) -> str:
        """A bar of 1, 2 or 5 metres, or tens of them, that ends at `right_cm`, with its length above it, as SVG."""
        least_m = SCALE_MIN_PX * self.unit_cm / CM_PER_M
        tens = 10.0 ** math.floor(math.log10(least_m))
        length_m = next(tens * step for step in (1, 2, 5, 10) if tens * step >= least_m)
        left_cm, tick_cm = right_cm - length_m * CM_PER_M, 4 * self.unit_cm
        line = f"M{left_cm:.1f} {y_cm - tick_cm:.1f}v{2 * tick_cm:.1f}m0 {-tick_cm:.1f}H{right_cm:.1f}"
        end = f"m0 {-tick_cm:.1f}v{2 * tick_cm:.1f}"
        middle_cm = (left_cm + right_cm) / 2
        text = f'<text x="{middle_cm:.1f}" y="{y_cm - 9 * self.unit_cm:.1f}">{length_m:g} m</text>'
        return f'<g class="scale"><path d="{line}{end}"/>{text}</g>'

    def event_mark(self, plate: Plate, taken: bool, size_cm: float) -> str:
        """A triangle at a plate: pointing up where goods were taken, down where they were put back."""
        x, y = plate.x * CM_PER_M, -plate.y * CM_PER_M
        tip = -size_cm if taken else size_cm
        points = f"{x:.0f},{y + tip:.1f} {x - size_cm:.1f},{y - tip:.1f} {x + size_cm:.1f},{y - tip:.1f}"
        return f'<polygon class="{"taken" if taken else "returned"}" points="{points}"/>'


def _cameras(store: Store) -> list[_Camera]:
    rig = Rig.from_cameras(store.cameras)
    # The optical axis is the camera frame's z: the third row of the rotation that takes world to camera.
    axes, centres_m = rig.camera_from_world[:, 2, :3].tolist(), rig.centres_m.tolist()
    return [
        _Camera(name, x, y, math.atan2(axis[1], axis[0])) for name, (x, y, _), axis in zip(rig.names, centres_m, axes)
    ]


def _escaped(text: str) -> str:
    return html.escape(clean(text))


def _shelf(plates: Sequence[Plate]) -> str:
    """A stack of plates as one rectangle, with the front edge and all names."""
    corners = _corners(plates[0])
    names = ", ".join(plate.plate for plate in sorted(plates, key=lambda plate: -plate.z))
    return (
        f'<g class="plate"><polygon points="{_points(corners)}"/>'
        f'<polyline class="front" points="{_points(corners[:2])}"/><title>{_escaped(names)}</title></g>'
    )


def _gate(gate: Gate) -> str:
    (ax, ay), (bx, by) = ((x * CM_PER_M, -y * CM_PER_M) for x, y in gate.line)
    (mx, my), inward = _gate_middle(gate)
    arrows = "".join(
        _arrow(mx, my, sign * inward[0], sign * inward[1])
        for sign, directions in ((1, ("in", "both")), (-1, ("out", "both")))
        if gate.direction in directions
    )
    return (
        f'<g class="gate"><line x1="{ax:.0f}" y1="{ay:.0f}" x2="{bx:.0f}" y2="{by:.0f}"/>{arrows}'
        f"<title>gate {_escaped(gate.id)}, {gate.direction}</title></g>"
    )


def _gate_middle(gate: Gate) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle of a gate's line, and the direction into the store, in the frame of the picture."""
    (ax, ay), (bx, by) = ((x * CM_PER_M, -y * CM_PER_M) for x, y in gate.line)
    length = math.hypot(bx - ax, by - ay)
    # The store lies to the left of the line; in the picture, where y points down, that is (dy, -dx).
    return ((ax + bx) / 2, (ay + by) / 2), ((by - ay) / length, -(bx - ax) / length)


def _stacks(plates: Sequence[Plate]) -> list[list[Plate]]:
    """Plates above one another in a shelf, grouped: on a plan they are one rectangle."""
    stacks: dict[tuple[float, ...], list[Plate]] = {}
    for plate in plates:
        footprint = tuple(round(v, 3) for v in (plate.x, plate.y, plate.width, plate.depth, plate.yaw))
        stacks.setdefault(footprint, []).append(plate)
    return list(stacks.values())


def _stack_name(names: Sequence[str]) -> str:
    """One name for plates above one another: their number as g1s1-4p01, else the lowest name and how many more."""
    if len(names) == 1:
        return names[0]
    start = _n_common(names)
    end = _n_common([name[start:][::-1] for name in names])
    first, last = (name[start : len(name) - end] for name in (names[0], names[-1]))
    if first.isdecimal() and last.isdecimal():
        return f"{names[0][:start]}{first}-{last}{names[0][len(names[0]) - end :]}"
    return f"{names[0]} +{len(names) - 1}"


def _n_common(names: Sequence[str]) -> int:
    """Characters with which all names begin."""
    letters = [len(set(column)) == 1 for column in zip(*names)]
    return letters.index(False) if False in letters else len(letters)


def _corners(plate: Plate) -> tuple[tuple[float, float], ...]:
    """Corners of a plate in metres; the first two are its front edge, where shoppers reach in."""
    c, s = math.cos(plate.yaw), math.sin(plate.yaw)
    half = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    local = [(i * plate.width / 2, j * plate.depth / 2) for i, j in half]
    return tuple((plate.x + c * x - s * y, plate.y + s * x + c * y) for x, y in local)


def _arrow(x: float, y: float, dx: float, dy: float) -> str:
    tip, back = 20.0, 8.0
    points = (
        (x + tip * dx, y + tip * dy),
        (x + back * dx - 7 * dy, y + back * dy + 7 * dx),
        (x + back * dx + 7 * dy, y + back * dy - 7 * dx),
    )
    return f'<polygon points="{" ".join(f"{px:.0f},{py:.0f}" for px, py in points)}"/>'


def _points(polygon: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x * CM_PER_M:.0f},{-y * CM_PER_M:.0f}" for x, y in polygon)
