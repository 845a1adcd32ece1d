"""What does not change in a Rerun recording: the store's plan, plates and cameras, and how the viewer lays them out."""

from __future__ import annotations

import colorsys
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.people.geometry import Rig
from fusion.store.models import Store

if TYPE_CHECKING:
    import rerun as rr

# People and detections cycle through this many colours.
COLOURS = 32
# How far in front of a camera its picture is drawn.
PICTURE_M = 0.35
# Views of single cameras in the first layout; the others can be opened.
CAMERA_VIEWS_MAX = 12
_FLOOR, _GATE, _ZONE, _PLATE, _OBSTACLE = 0x8A96AAFF, 0x8EA6FFFF, 0x5ECBDFFF, 0xB3BDCCFF, 0x6B778CFF


def entity_name(name: str) -> str:
    """A name as one part of an entity's path."""
    kept = (c if c.isalnum() or c in "_-." else f"\\{c}" if c.isprintable() and c.isascii() else "_" for c in name)
    return "".join(kept)


def camera_entity(name: str) -> str:
    """Path of a camera's entity; its detections are below it."""
    return f"world/cameras/{entity_name(name)}"


def blueprint(store: Store) -> Any:
    """The first layout: the store in the middle, cameras, weights and text around it."""
    import rerun.blueprint as rrb

    cameras = [
        rrb.Spatial2DView(origin=camera_entity(camera.name), name=camera.name)
        for camera in store.cameras[:CAMERA_VIEWS_MAX]
    ]
    below = [rrb.TimeSeriesView(origin="weights", name="weights, g")] if store.plates else []
    shop = rrb.Spatial3DView(origin="world", name=store.name)
    left = rrb.Vertical(shop, *below, row_shares=[3, 1][: 1 + len(below)])
    log = rrb.TextLogView(origin="log", name="log")
    right = rrb.Vertical(rrb.Grid(*cameras), log, row_shares=[3, 2]) if cameras else log
    return rrb.Blueprint(rrb.Horizontal(left, right, column_shares=[3, 2]), collapse_panels=True)


def write_scene(stream: rr.RecordingStream, store: Store) -> None:
    """Write everything static."""
    import rerun as rr

    def log(entity: str, *archetypes: Any) -> None:
        stream.log(entity, *archetypes, static=True)

    log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP)
    log("world", rr.AnnotationContext(_classes(store)))
    outline = [(x, y, 0.0) for x, y in (*store.floor, store.floor[0])]
    log("world/floor", rr.LineStrips3D([outline], colors=_FLOOR))
    if store.gate:
        lines = [[(*end, 0.0) for end in gate.line] for gate in store.gate]
        labels = [f"{gate.id} ({gate.direction})" for gate in store.gate]
        log("world/gates", rr.LineStrips3D(lines, labels=labels, colors=_GATE, radii=0.02))
    if store.zone:
        outlines = [[(*corner, 0.01) for corner in (*zone.polygon, zone.polygon[0])] for zone in store.zone]
        labels = [f"{zone.id} ({zone.kind})" for zone in store.zone]
        log("world/zones", rr.LineStrips3D(outlines, labels=labels, colors=_ZONE))
    if store.obstacle.boxes:
        boxes = np.array(store.obstacle.boxes)
        low, high = np.column_stack([boxes[:, :2], np.zeros(len(boxes))]), boxes[:, 2:5]
        log("world/obstacles", rr.Boxes3D(centers=(low + high) / 2, sizes=high - low, colors=_OBSTACLE))
    if store.plates:
        log("world/plates", _plates(store))
    rig = Rig.from_cameras(store.cameras)
    for view, name in enumerate(rig.names):
        entity = camera_entity(name)
        rotation = rig.camera_from_world[view, :, :3].T
        log(entity, rr.Transform3D(translation=rig.centres_m[view], mat3x3=rotation))
        log(
            entity,
            rr.Pinhole(
                image_from_camera=rig.image_from_camera[view],
                resolution=rig.size_px[view],
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=PICTURE_M,
            ),
        )
        # The names of all joints would cover the person.
        log(f"{entity}/detections", rr.Points2D.from_fields(show_labels=False))
    log("world/people", rr.Points3D.from_fields(show_labels=False))


def _classes(store: Store) -> list[Any]:
    """One class for each colour, with the joints and limbs of the store's keypoint layout."""
    import rerun as rr

    layout = store.layout
    connections = [tuple(limb) for limb in layout.limbs.tolist()]
    return [
        rr.ClassDescription(
            info=rr.AnnotationInfo(id=number, color=_colour(number)),
            keypoint_annotations=[rr.AnnotationInfo(id=joint, label=name) for joint, name in enumerate(layout.joints)],
            keypoint_connections=connections,
        )
        for number in range(COLOURS)
    ]


def _plates(store: Store) -> Any:
    import rerun as rr

    return rr.Boxes3D(
        centers=[(plate.x, plate.y, plate.z - 0.01) for plate in store.plates],
        sizes=[(plate.width, plate.depth, 0.02) for plate in store.plates],
        quaternions=[(0.0, 0.0, math.sin(plate.yaw / 2), math.cos(plate.yaw / 2)) for plate in store.plates],
        labels=[plate.plate for plate in store.plates],
        show_labels=False,
        colors=_PLATE,
    )


def _colour(number: int) -> tuple[int, int, int]:
    """Hues a golden angle apart, so that neighbours in the order differ; light enough for a dark view."""
    red, green, blue = colorsys.hsv_to_rgb((0.07 + 0.618034 * number) % 1.0, 0.55 + 0.2 * (number % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
