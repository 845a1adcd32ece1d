"""Tiny ONNX models with the inputs and outputs of published families; their outputs are constants of the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def constant_model(
    path: Path, shape: Sequence[int | str], outputs: Sequence[NDArray[Any]], dtype: type = np.float32
) -> Path:
    """Write a model that takes one input of a shape and gives the outputs, repeated for each picture of a batch."""
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, given = [], []
    constants = [numpy_helper.from_array(np.array([0], np.int64), "first"), numpy_helper.from_array(
        np.array([1], np.int64), "second")]  # fmt: skip
    nodes += [
        helper.make_node("Shape", ["pictures"], ["shape"]),
        helper.make_node("Slice", ["shape", "first", "second"], ["batch"]),
    ]
    for number, output in enumerate(outputs):
        constants.append(numpy_helper.from_array(output, f"value{number}"))
        ones = numpy_helper.from_array(np.ones(output.ndim - 1, np.int64), f"ones{number}")
        constants.append(ones)
        nodes += [
            helper.make_node("Concat", ["batch", f"ones{number}"], [f"repeats{number}"], axis=0),
            helper.make_node("Tile", [f"value{number}", f"repeats{number}"], [f"output{number}"]),
        ]
        kept = helper.np_dtype_to_tensor_dtype(output.dtype)
        given.append(helper.make_tensor_value_info(f"output{number}", kept, [shape[0], *output.shape[1:]]))
    taken = helper.make_tensor_value_info("pictures", kind, list(shape))
    graph = helper.make_graph(nodes, "constant", [taken], given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
