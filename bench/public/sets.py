"""The public sets that are known here: how each is recognised, converted, and where its authors publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.public import belagiannis, clips, contract, motchallenge, panoptic, wildtrack
from bench.public.task import Task

# A set lies in a folder that is named, or at most this many levels below it.
_DEPTH_MAX = 2


@dataclass(frozen=True)
class PublicSet:
    """A set, or a family of sets in one form.

    Attributes:
        name: in tables.
        form: what its folder holds, for people who wonder why it was not found.
        source: where its authors publish it.
        recognises: whether a folder is one, by what lies in it.
        convert: makes a recording of the file contract of a folder in an empty one, unless it is one; UnusableError or
            ConfigError where that cannot be.
    """

    name: str
    form: str
    source: str
    recognises: Callable[[Path], bool]
    convert: Callable[[Path, Path], Task]


SETS = (
    PublicSet(
        "recordings",
        "a recording of the file contract with truth/ (docs/format.md)",
        "converted by their users",
        contract.recognises,
        contract.convert,
    ),
    PublicSet(
        "Shelf and Campus",
        "actorsGT.mat, Calibration/prjectionMat.mat, Camera0/*.png and so on; your detections/Camera0 and so on",
        "Technical University of Munich, Multiple Human Pose Estimation",
        belagiannis.recognises,
        belagiannis.convert,
    ),
    PublicSet(
        "Panoptic",
        "calibration_*.json, hdPose3d_stage1_coco19/; your detections/00_03 and so on",
        "http://domedb.perception.cs.cmu.edu",
        panoptic.recognises,
        panoptic.convert,
    ),
    PublicSet(
        "WILDTRACK",
        "annotations_positions/, calibrations/; your detections/CVLab1 and so on, else the annotated boxes are taken",
        "https://www.epfl.ch/labs/cvlab/data/data-wildtrack/",
        wildtrack.recognises,
        wildtrack.convert,
    ),
    PublicSet(
        "Pose2Sim's clips",
        "calibration/*.qca.txt, videos/*.mp4; FUSION_MODEL names a model for `fusion detect`",
        "the package pose2sim, folder Pose2Sim/Demo_SinglePerson",
        clips.recognises,
        clips.convert,
    ),
    PublicSet(
        "MOTChallenge",
        "seqinfo.ini, det/det.txt, gt/gt.txt with places on the ground (3D MOT 2015); the camera's calibration",
        "https://motchallenge.net",
        motchallenge.recognises,
        motchallenge.convert,
    ),
)


def find(folders: Sequence[Path]) -> Iterator[tuple[PublicSet, Path, str]]:
    """Every set in these folders and below, in the order of names, each with its name there; none below a set."""
    seen: set[Path] = set()

    def below(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[PublicSet, Path, str]]:
        resolved = folder.resolve()
        if resolved in seen:
            return
        seen.add(resolved)
        for known in SETS:
            if known.recognises(folder):
                yield known, folder, "/".join(names) or resolved.name
                return
        if len(names) < _DEPTH_MAX:
            for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
                yield from below(child, (*names, child.name))

    for folder in folders:
        yield from below(folder, ())
