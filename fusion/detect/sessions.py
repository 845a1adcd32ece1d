"""Models in ONNX, run by onnxruntime on what this machine has. Needs the extra `detect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, extra

Device = Literal["auto", "cpu", "cuda", "openvino"]
# Fastest first.
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "openvino": "OpenVINOExecutionProvider", "cpu": "CPUExecutionProvider"}
# A model of a pose or of people; a wrong file is noticed before it fills the memory.
_BYTES_MAX = 2 << 30


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a model takes.

    Attributes:
        name: of the input.
        dtype: of its array.
        channels_last: whether the shape is (batch, height, width, 3), else (batch, 3, height, width).
        size: width and height, pixels; None for each that may be chosen.
        batch: how many pictures one run takes; None for any number.
    """

    name: str
    dtype: np.dtype[Any]
    channels_last: bool
    size: tuple[int | None, int | None]
    batch: int | None


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class Session:
    """A loaded model: arrays in, arrays out.

    Attributes:
        path: of its file.
        input: what it takes.
        provider: what runs it, in onnxruntime's words.
    """

    def __init__(self, path: str | Path, device: Device = "auto", threads: int = 0) -> None:
        """Load a model.

        Args:
            path: an ONNX file, or the JSON of a TensorFlow.js graph model, whose weights lie beside it.
            device: where to run; auto takes the fastest that onnxruntime has here.
            threads: of the CPU; 0 for all cores.

        Raises:
            ConfigError: the file is no such model, the device is not there, or the input is not one picture.
            FusionError: a package is missing.
        """
        with extra("detect"):
            import onnxruntime
        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # Faults come as exceptions; warnings would repeat for every picture.
        # Between two pictures a waiting thread would otherwise keep its core busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = _providers(device, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(_model_bytes(self.path), options, providers=providers)
        except ConfigError:
            raise
        except Exception as error:  # onnxruntime has a class of its own for each kind, without a common base.
            raise ConfigError(f"{self.path}: want a model in ONNX, got: {str(error)[:200]}") from None
        self.provider = str(self._session.get_providers()[0])
        self.input = _input_of(self.path, self._session.get_inputs())

    def run(self, pictures: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for a batch of pictures, in the model's own shape and dtype."""
        outputs: list[NDArray[Any]] = self._session.run(None, {self.input.name: pictures})
        return outputs

    def outputs(self, pictures: Sequence[NDArray[np.float32]]) -> list[list[NDArray[Any]]]:
        """The outputs for each picture, in as few runs as the model's batch allows.

        Args:
            pictures: (height, width, 3) each, all of one size, with colours as the model wants them.

        Returns:
            For each picture the model's outputs, with a first axis of 1.
        """
        layout = (0, 1, 2) if self.input.channels_last else (2, 0, 1)
        arrays = [np.ascontiguousarray(picture.transpose(layout)).astype(self.input.dtype) for picture in pictures]
        step = self.input.batch or len(arrays) or 1
        results: list[list[NDArray[Any]]] = []
        for start in range(0, len(arrays), step):
            batch = arrays[start : start + step]
            n = len(batch)
            batch += [np.zeros_like(batch[0])] * (step - n)
            outputs = self.run(np.stack(batch))
            # A model with its selection inside may give people of all pictures in one list; one picture a run is safe.
            if step > 1 and any(output.shape[:1] != (step,) for output in outputs):
                got = ", ".join(str(output.shape) for output in outputs)
                raise ConfigError(f"{self.path}: want outputs of {step} pictures, got {got}")
            results += [[output[row : row + 1] for output in outputs] for row in range(n)]
        return results


def _model_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; pass a pose model in ONNX (docs/detect.md lists where to get one)")
    if path.stat().st_size > _BYTES_MAX:
        raise ConfigError(f"{path}: want a model of at most {_BYTES_MAX >> 20} MB, got {path.stat().st_size >> 20} MB")
    if path.suffix == ".json":
        from fusion.detect.tfjs import onnx_of

        return onnx_of(path)
    return path.read_bytes()


def _providers(device: Device, available: Sequence[str]) -> list[str]:
    if device == "auto":
        return [provider for provider in _PROVIDERS.values() if provider in available]
    if _PROVIDERS[device] not in available:
        here = ", ".join(name for name, provider in _PROVIDERS.items() if provider in available)
        raise ConfigError(f"device {device!r}: onnxruntime has only {here} here; install its package for {device}")
    return [_PROVIDERS[device]]


def _input_of(path: Path, inputs: Sequence[Any]) -> ModelInput:
    wanted = f"{path}: want one input of pictures, (batch, 3, height, width) or (batch, height, width, 3)"
    if len(inputs) != 1:
        raise ConfigError(f"{wanted}, got {len(inputs)} inputs")
    name, shape, kind = inputs[0].name, inputs[0].shape, inputs[0].type
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or kind not in _DTYPES:
        raise ConfigError(f"{wanted}, got {kind} {shape}")
    known = [length if isinstance(length, int) and length > 0 else None for length in shape]
    channels_last = shape[3] == 3 and shape[1] != 3
    height, width = known[1:3] if channels_last else known[2:4]
    return ModelInput(name, np.dtype(_DTYPES[kind]), channels_last, (width, height), known[0])
