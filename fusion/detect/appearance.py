"""What a person looks like from afar (clothes, hair, build), as a vector by a model of the user's. Never a face.

A crop of each person's box is scaled to the model's input and forgotten. The vector has length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.detect.boxes import IMAGENET, probe, shapes_text
from fusion.detect.people import People
from fusion.detect.pictures import Picture
from fusion.detect.sessions import Device, Session
from fusion.errors import ConfigError

# Width and height of people in the published models of re-identification, where the file leaves them open.
_SIZE = (128, 256)


class AppearanceModel:
    """A model of person re-identification: a crop (3, height, width) in, one vector out."""

    def __init__(self, path: str | Path, dim: int, device: Device, threads: int) -> None:
        """Load a model.

        Args:
            path: an ONNX file.
            dim: the store's appearance_dim.
            device: where it runs.
            threads: as for `Session`.

        Raises:
            ConfigError: it is no such model, or its vectors are of another length than the store's.
        """
        if dim == 0:
            raise ConfigError("store.toml has appearance_dim = 0; leave the appearance model out, or set it there")
        self._dim, self._session = dim, Session(path, device, threads)
        if self._session.input.channels_last:
            raise ConfigError(f"{path}: want an input (batch, 3, height, width), got the channels last")
        width, height = self._session.input.size
        self._size = width or _SIZE[0], height or _SIZE[1]
        outputs = probe(self._session, max(self._size))
        if len(outputs) != 1 or outputs[0].ndim != 2:
            raise ConfigError(f"{path}: want one vector (1, n) for each person, got {shapes_text(outputs)}")
        if outputs[0].shape[1] != dim:
            got = outputs[0].shape[1]
            raise ConfigError(f"{path}: want vectors of appearance_dim = {dim}, as store.toml has it, got {got}")

    def vectors(self, pictures: Sequence[Picture], people: Sequence[People]) -> list[NDArray[np.float32]]:
        """(n, appearance_dim) float32 for the people of each picture; zeros where the model gives no number."""
        crops = []
        for picture, found in zip(pictures, people):
            for box in found.boxes_px + 0.5:  # From pixels' centres to their corners.
                crop = picture.crop((box[0], box[1], box[2], box[3]), self._size)
                crops.append(IMAGENET.of(crop))
        outputs = iter(self._session.outputs(crops))
        results = []
        for found in people:
            rows = [next(outputs)[0][0] for _ in range(len(found))]
            results.append(_unit(np.array(rows, np.float32).reshape(len(found), self._dim)))
        return results


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: NDArray[np.float32] = np.nan_to_num(vectors / length, nan=0.0, posinf=0.0, neginf=0.0)
        return unit
