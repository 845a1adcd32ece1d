"""Calibration files as other programs write them: a module for each family, and one registry that knows them apart.

The format follows from the content, never from the file's name. What the values mean is the business of
`fusion.files.cameras`; here nothing is converted but what a format keeps in a form of its own, such as a quaternion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fusion.files.calibrations import (
    anipose,
    calib_io,
    colmap,
    kalibr,
    mc_calib,
    nvidia,
    opencv,
    panoptic,
    qualisys,
    ros,
)
from fusion.files.calibrations.documents import parse
from fusion.files.calibrations.parts import Part, UnrecognisedError


class Format(NamedTuple):
    """A family of calibration files.

    Attributes:
        name: as people call it.
        kind: of its documents, see `documents.Document`.
        recognises: whether a document of this kind belongs to it.
        read: the document, the file's label and a list that takes faults, to the cameras' values.
    """

    name: str
    kind: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any, str, list[str]], list[Part]]


# In this order: OpenCV's FileStorage takes every tree that no other format claims.
FORMATS = (
    Format("Anipose, FreeMoCap, caliscope or Pose2Sim", "toml", lambda document: True, anipose.read),
    Format("CMU Panoptic", "tree", panoptic.recognises, panoptic.read),
    Format("calib.io", "tree", calib_io.recognises, calib_io.read),
    Format("Kalibr", "tree", kalibr.recognises, kalibr.read),
    Format("MC-Calib", "tree", mc_calib.recognises, mc_calib.read),
    Format("NVIDIA DeepStream or AutoMagicCalib", "tree", nvidia.recognises, nvidia.read),
    Format("ROS camera_info", "tree", ros.recognises, ros.read),
    Format("OpenPose", "tree", opencv.recognises_openpose, opencv.read_openpose),
    Format("OpenCV, EasyMocap, EasyVolcap or Wildtrack", "tree", lambda document: True, opencv.read),
    Format("Qualisys", "xml", qualisys.recognises, qualisys.read),
    Format("COLMAP", "text", colmap.recognises_text, colmap.read_text),
    Format("COLMAP", "binary", lambda data: True, colmap.read_binary),
)


def read_parts(data: bytes, label: str, faults: list[str]) -> tuple[str, list[Part]]:
    """The cameras' values in a calibration file.

    Args:
        data: the file's content.
        label: the file's name in messages.
        faults: takes what is wrong with the values.

    Returns:
        The format's name, and the values; none where the file is something else.

    Raises:
        UnreadableError: the file is broken. UnrecognisedError: it is in none of the formats.
        UnicodeDecodeError: it is text of another encoding than UTF-8.
    """
    document = parse(data)
    for form in FORMATS:
        if form.kind == document.kind and form.recognises(document.root):
            return form.name, form.read(document.root, label, faults)
    if document.kind == "xml":
        raise UnrecognisedError(f"want <opencv_storage> or <calibration>, got <{document.root.tag[:60]}>")
    raise UnrecognisedError("want TOML, YAML, XML or JSON, or COLMAP's cameras and images, got other text")
