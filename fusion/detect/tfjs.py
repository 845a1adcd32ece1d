"""TensorFlow.js graph models as ONNX, so that models whose weights come inside npm packages can be used. Extra `tfjs`.

Reads a graph model (`model.json` and its weight shards; TensorFlow.js, "graph-model" format) and writes the same
computation in ONNX's operators. It knows the operators of convolutional networks such as MoveNet; any other operator,
attribute or dtype is refused by name. Arrays stay channels-last: onnxruntime removes the transpositions around
convolutions when it loads the result.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, extra

# What these operators mean is fixed by the version of ONNX's operator set; its file format by the other.
_OPSET, _IR_VERSION = 18, 9
_JSON_BYTES_MAX, _WEIGHT_BYTES_MAX = 64 << 20, 1 << 30
_DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "int32": np.int32,
    "bool": np.bool_,
    "DT_FLOAT": np.float32,
    "DT_INT32": np.int32,
    "DT_BOOL": np.bool_,
}
# TensorFlow's operators that are one of ONNX's, with the same inputs.
_SAME = {
    "AddV2": "Add", "Add": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Maximum": "Max", "Minimum": "Min",
    "Less": "Less", "LessEqual": "LessOrEqual", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual",
    "Equal": "Equal", "LogicalAnd": "And", "LogicalOr": "Or", "LogicalNot": "Not", "Sigmoid": "Sigmoid", "Exp": "Exp",
    "Abs": "Abs", "Sqrt": "Sqrt", "Neg": "Neg", "Relu": "Relu", "Reciprocal": "Reciprocal", "AddN": "Sum",
    "Identity": "Identity", "Range": "Range", "Floor": "Floor", "Tanh": "Tanh",
}  # fmt: skip
_END = np.iinfo(np.int32).max


def onnx_of(path: Path) -> bytes:
    """A graph model as an ONNX file's bytes.

    Args:
        path: of its JSON; the weights lie beside it.

    Raises:
        ConfigError: it is no such model, a file of weights is missing or damaged, or it uses what is not known here.
        FusionError: the package onnx is missing.
    """
    with extra("tfjs"):
        import onnx
    model = _read_json(path)
    try:
        weights = _weights(path, model["weightsManifest"])
        graph = _Graph(path, model, weights)
        content = graph.model().SerializeToString()
        onnx.checker.check_model(content)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: want a TensorFlow.js graph model, got {type(error).__name__}: {error}") from None
    except onnx.checker.ValidationError as error:
        raise ConfigError(f"{path}: the converted model is not valid: {str(error)[:200]}") from None
    return bytes(content)


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _JSON_BYTES_MAX:
        raise ConfigError(f"{path}: want a graph model's JSON of at most {_JSON_BYTES_MAX >> 20} MB, got more")
    try:
        model = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON; pass a TensorFlow.js graph model's JSON, or an ONNX file") from None
    if not isinstance(model, dict) or model.get("format") != "graph-model":
        found = model.get("format") if isinstance(model, dict) else type(model).__name__
        raise ConfigError(f"{path}: want format 'graph-model', got {str(found)[:50]!r}")
    return model


def _weights(path: Path, manifest: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Arrays by name. Quantised ones (float16, or integers with scale and minimum) become float32."""
    arrays: dict[str, NDArray[Any]] = {}
    for group in manifest:
        shards = []
        for name in group["paths"]:
            shard = path.parent / str(name)
            if shard.name != name or not shard.is_file():
                raise ConfigError(f"{path}: want its weights {str(name)[:100]!r} beside it, got no such file")
            if shard.stat().st_size > _WEIGHT_BYTES_MAX:
                raise ConfigError(f"{shard}: want at most {_WEIGHT_BYTES_MAX >> 20} MB of weights, got more")
            shards.append(shard.read_bytes())
        data, at = b"".join(shards), 0
        for entry in group["weights"]:
            quantised = entry.get("quantization")
            stored = np.dtype(quantised["dtype"] if quantised else _DTYPES[entry["dtype"]])
            n = math.prod(entry["shape"])
            if at + n * stored.itemsize > len(data):
                raise ConfigError(f"{path}: want more than {len(data)} bytes of weights, for {entry['name']}")
            array = np.frombuffer(data, stored.newbyteorder("<"), n, at).reshape(entry["shape"])
            at += n * stored.itemsize
            if quantised:
                array = array.astype(np.float32)
                if "scale" in quantised:
                    array = array * np.float32(quantised["scale"]) + np.float32(quantised["min"])
            arrays[entry["name"]] = array.astype(_DTYPES[entry["dtype"]])
    return arrays


class _Node:
    """One node of the graph, with its attributes as Python's values."""

    def __init__(self, path: Path, node: dict[str, Any]) -> None:
        self.name, self.op = str(node["name"]), str(node["op"])
        self.inputs = [str(name) for name in node.get("input", []) if not str(name).startswith("^")]
        self._attributes, self._path = node.get("attr", {}), path

    def refuse(self, want: str, got: object) -> ConfigError:
        """The error for what is not known."""
        return ConfigError(f"{self._path}: {self.op} {self.name}: want {want}, got {got}")

    def text(self, key: str) -> str:
        """A text attribute."""
        return base64.b64decode(self._attributes[key]["s"]).decode()

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        return [base64.b64decode(text).decode() for text in self._attributes.get(key, {}).get("list", {}).get("s", [])]

    def integers(self, key: str) -> list[int]:
        """A list of integers; empty where it is missing."""
        return [int(value) for value in self._attributes.get(key, {}).get("list", {}).get("i", [])]

    def integer(self, key: str, default: int = 0) -> int:
        """An integer."""
        return int(self._attributes.get(key, {}).get("i", default))

    def flag(self, key: str) -> bool:
        """A truth value; False where it is missing."""
        return bool(self._attributes.get(key, {}).get("b", False))

    def dtype(self, key: str) -> type[np.generic]:
        """A dtype."""
        name = self._attributes[key]["type"]
        if name not in _DTYPES:
            raise self.refuse("a dtype of " + ", ".join(sorted(_DTYPES)), name)
        return _DTYPES[name]

    def shape(self) -> list[int]:
        """The shape of a placeholder; -1 where it is open."""
        return [int(dim["size"]) for dim in self._attributes["shape"]["shape"]["dim"]]


class _Graph:
    """Builds the ONNX graph node by node."""

    def __init__(self, path: Path, model: dict[str, Any], weights: dict[str, NDArray[Any]]) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self._helper, self._numpy, self._proto = helper, numpy_helper, TensorProto
        self._path, self._model, self._constants = path, model, dict(weights)
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._initializers: dict[str, NDArray[Any]] = {}
        self._n_names = 0
        for entry in model["modelTopology"]["node"]:
            self._convert(_Node(path, entry))

    def model(self) -> Any:
        """The ONNX model."""
        outputs = []
        for entry in self._model["signature"]["outputs"].values():
            name = self._tensor(entry["name"])
            shape = [int(dim["size"]) for dim in entry["tensorShape"]["dim"]]
            dtype = self._helper.np_dtype_to_tensor_dtype(np.dtype(_DTYPES[entry["dtype"]]))
            outputs.append(self._helper.make_tensor_value_info(name, dtype, [n if n > 0 else None for n in shape]))
        # Kernels as TensorFlow has them were replaced by turned ones.
        used = {name for node in self._nodes for name in node.input}
        initializers = [
            self._numpy.from_array(array, name) for name, array in self._initializers.items() if name in used
        ]
        graph = self._helper.make_graph(self._nodes, self._path.stem, self._inputs, outputs, initializers)
        opset = [self._helper.make_opsetid("", _OPSET)]
        return self._helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    # ---- names and constants -----------------------------------------------------------------------------------------

    def _tensor(self, name: str) -> str:
        """A tensor's name in ONNX: the first output of a node has the node's own; constants are added once used."""
        tensor = name.removesuffix(":0")
        if tensor in self._constants:
            self._initializers.setdefault(tensor, self._constants[tensor])
        return tensor

    def _constant(self, node: _Node, position: int) -> NDArray[Any]:
        """The value of an input that has to be known when the model is converted."""
        name = node.inputs[position].removesuffix(":0")
        if name not in self._constants:
            raise node.refuse(f"a constant as input {position}", name)
        return self._constants[name]

    def _value(self, array: Any, dtype: Any = np.int64) -> str:
        """A new constant."""
        self._n_names += 1
        name = f"_constant{self._n_names}"
        self._initializers[name] = np.asarray(array, dtype)
        return name

    def _add(self, op: str, inputs: Sequence[str], output: str | Sequence[str] = "", **attributes: Any) -> str:
        """Add a node. Returns the name of its first output, a new one where none is given."""
        outputs = [output] if isinstance(output, str) else list(output)
        if not outputs[0]:
            self._n_names += 1
            outputs[0] = f"_value{self._n_names}"
        self._nodes.append(self._helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs[0]

    def _cast(self, tensor: str, dtype: Any, output: str = "") -> str:
        return self._add("Cast", [tensor], output, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _transposed(self, tensor: str, order: Sequence[int], output: str = "") -> str:
        return self._add("Transpose", [tensor], output, perm=list(order))

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def _convert(self, node: _Node) -> None:
        if node.op == "Const":
            if node.name not in self._constants:
                raise node.refuse("its value among the weights", "none")
            return
        if node.op == "Placeholder":
            shape = [n if n > 0 else None for n in node.shape()]
            dtype = self._helper.np_dtype_to_tensor_dtype(np.dtype(node.dtype("dtype")))
            self._inputs.append(self._helper.make_tensor_value_info(node.name, dtype, shape))
            return
        tensors = [self._tensor(name) for name in node.inputs]
        if node.op in _SAME:
            self._add(_SAME[node.op], tensors, node.name)
            return
        convert: Callable[[_Node, list[str]], object] | None = getattr(self, f"_do_{node.op.strip('_').lower()}", None)
        if convert is None:
            raise node.refuse("an operator of convolutional networks", node.op)
        convert(node, tensors)

    def _do_cast(self, node: _Node, tensors: list[str]) -> None:
        self._cast(tensors[0], node.dtype("DstT"), node.name)

    def _do_squareddifference(self, node: _Node, tensors: list[str]) -> None:
        difference = self._add("Sub", tensors)
        self._add("Mul", [difference, difference], node.name)

    def _do_floordiv(self, node: _Node, tensors: list[str]) -> None:
        # ONNX's Mod of integers has the divisor's sign, so that what remains divides without a remainder.
        if node.dtype("T") is not np.int32:
            raise node.refuse("int32", node.dtype("T").__name__)
        remainder = self._add("Mod", tensors)
        self._add("Div", [self._add("Sub", [tensors[0], remainder]), tensors[1]], node.name)

    def _do_select(self, node: _Node, tensors: list[str]) -> None:
        self._add("Where", tensors, node.name)

    def _do_fusedconv2d(self, node: _Node, tensors: list[str]) -> None:
        fused = node.texts("fused_ops")
        output = self._convolved(node, tensors[0], with_bias=bool(fused))
        match fused:
            case ["BiasAdd"] | []:
                self._add("Identity", [output], node.name)
            case ["BiasAdd", "Relu"]:
                self._add("Relu", [output], node.name)
            case ["BiasAdd", "Relu6"]:
                limits = [self._value(0.0, np.float32), self._value(6.0, np.float32)]
                self._add("Clip", [output, *limits], node.name)
            case _:
                raise node.refuse("BiasAdd with Relu, Relu6 or nothing", fused)

    _do_conv2d = _do_fusedepthwiseconv2dnative = _do_fuseddepthwiseconv2dnative = _do_depthwiseconv2dnative = (
        _do_fusedconv2d
    )

    def _convolved(self, node: _Node, tensor: str, *, with_bias: bool) -> str:
        """A convolution between two transpositions; the weights are turned round here."""
        self._check_channels_last(node)
        kernel = self._constant(node, 1)
        groups = 1
        if "Depthwise" in node.op:
            height, width, groups, multiplier = kernel.shape
            kernel = kernel.reshape(height, width, 1, groups * multiplier)
        inputs = [self._transposed(tensor, (0, 3, 1, 2)), self._value(kernel.transpose(3, 2, 0, 1), np.float32)]
        if with_bias:
            inputs.append(self._value(self._constant(node, 2), np.float32))
        output = self._add("Conv", inputs, group=groups, **self._window(node))
        return self._transposed(output, (0, 2, 3, 1))

    def _check_channels_last(self, node: _Node) -> None:
        if node.text("data_format") != "NHWC":
            raise node.refuse("channels last (NHWC)", node.text("data_format"))

    def _window(self, node: _Node) -> dict[str, Any]:
        """Strides, dilations and padding of a convolution or a pooling."""
        padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}.get(node.text("padding"))
        if padding is None:
            raise node.refuse("padding SAME or VALID", node.text("padding"))
        window: dict[str, Any] = {"auto_pad": padding, "strides": node.integers("strides")[1:3]}
        if dilations := node.integers("dilations"):
            window["dilations"] = dilations[1:3]
        return window

    def _do_maxpool(self, node: _Node, tensors: list[str]) -> None:
        self._check_channels_last(node)
        inputs = [self._transposed(tensors[0], (0, 3, 1, 2))]
        output = self._add("MaxPool", inputs, kernel_shape=node.integers("ksize")[1:3], **self._window(node))
        self._transposed(output, (0, 2, 3, 1), node.name)

    def _do_resizebilinear(self, node: _Node, tensors: list[str]) -> None:
        if node.flag("align_corners") or not node.flag("half_pixel_centers"):
            raise node.refuse("half-pixel centres", "another rule")
        sizes = self._cast(tensors[1], np.int64)
        inputs = [self._transposed(tensors[0], (0, 3, 1, 2)), "", "", sizes]
        resized = self._add(
            "Resize", inputs, mode="linear", coordinate_transformation_mode="half_pixel", axes=[2, 3],
            antialias=0,
        )  # fmt: skip
        self._transposed(resized, (0, 2, 3, 1), node.name)

    def _do_shape(self, node: _Node, tensors: list[str]) -> None:
        self._cast(self._add("Shape", tensors), node.dtype("out_type"), node.name)

    def _do_size(self, node: _Node, tensors: list[str]) -> None:
        self._cast(self._add("Size", tensors), node.dtype("out_type"), node.name)

    def _do_reshape(self, node: _Node, tensors: list[str]) -> None:
        self._add("Reshape", [tensors[0], self._cast(tensors[1], np.int64)], node.name)

    def _do_squeeze(self, node: _Node, tensors: list[str]) -> None:
        dims = node.integers("squeeze_dims")
        self._add("Squeeze", [tensors[0], *([self._value(dims)] if dims else [])], node.name)

    def _do_expanddims(self, node: _Node, tensors: list[str]) -> None:
        self._add("Unsqueeze", [tensors[0], self._value(self._constant(node, 1).reshape(-1))], node.name)

    def _do_tile(self, node: _Node, tensors: list[str]) -> None:
        self._add("Tile", [tensors[0], self._cast(tensors[1], np.int64)], node.name)

    def _do_fill(self, node: _Node, tensors: list[str]) -> None:
        self._add("Expand", [tensors[1], self._cast(tensors[0], np.int64)], node.name)

    def _do_gathernd(self, node: _Node, tensors: list[str]) -> None:
        self._add("GatherND", [tensors[0], self._cast(tensors[1], np.int64)], node.name)

    def _do_pack(self, node: _Node, tensors: list[str]) -> None:
        axis = node.integer("axis")
        if axis < 0:
            raise node.refuse("an axis from 0 on", axis)
        rows = [self._add("Unsqueeze", [tensor, self._value([axis])]) for tensor in tensors]
        self._add("Concat", rows, node.name, axis=axis)

    def _do_concatv2(self, node: _Node, tensors: list[str]) -> None:
        self._add("Concat", tensors[:-1], node.name, axis=int(self._constant(node, len(tensors) - 1)))

    def _do_unpack(self, node: _Node, tensors: list[str]) -> None:
        axis, n = node.integer("axis"), node.integer("num")
        parts = [f"{node.name}_part{part}" for part in range(n)]
        self._add("Split", tensors, parts, axis=axis, num_outputs=n)
        for part, name in enumerate(parts):
            self._add("Squeeze", [name, self._value([axis])], self._output(node, part))

    def _do_split(self, node: _Node, tensors: list[str]) -> None:
        n = node.integer("num_split")
        outputs = [self._output(node, part) for part in range(n)]
        self._add("Split", [tensors[1]], outputs, axis=int(self._constant(node, 0)), num_outputs=n)

    def _do_topkv2(self, node: _Node, tensors: list[str]) -> None:
        n = self._value(self._constant(node, 1).reshape(1))
        places = f"{node.name}_places"
        self._add("TopK", [tensors[0], n], [node.name, places], axis=-1, sorted=int(node.flag("sorted")))
        self._cast(places, np.int32, self._output(node, 1))

    def _do_argmax(self, node: _Node, tensors: list[str]) -> None:
        axis = int(self._constant(node, 1))
        places = self._add("ArgMax", tensors[:1], axis=axis, keepdims=0)
        self._cast(places, node.dtype("output_type"), node.name)

    def _do_max(self, node: _Node, tensors: list[str]) -> None:
        axes = self._value(self._constant(node, 1).reshape(-1))
        op = {"Max": "ReduceMax", "Sum": "ReduceSum", "Mean": "ReduceMean", "Min": "ReduceMin"}[node.op]
        self._add(op, [tensors[0], axes], node.name, keepdims=int(node.flag("keep_dims")))

    _do_sum = _do_mean = _do_min = _do_max

    def _do_stridedslice(self, node: _Node, tensors: list[str]) -> None:
        """NumPy's slicing x[begin:end:stride], with bits that open an end, drop an axis or insert one."""
        begin, end, stride = (self._constant(node, position) for position in (1, 2, 3))
        if node.integer("ellipsis_mask"):
            raise node.refuse("a slice without an ellipsis", "one")
        bits = {key: node.integer(f"{key}_mask") for key in ("begin", "end", "new_axis", "shrink_axis")}
        slices: list[tuple[int, int, int, int]] = []  # start, end, axis, step
        inserted: list[int] = []
        dropped: list[int] = []
        axis = place = 0  # of the input, and of the result before axes are dropped
        for position in range(len(begin)):
            bit = 1 << position
            if bits["new_axis"] & bit:
                inserted.append(place)
                place += 1
                continue
            first, last, step = int(begin[position]), int(end[position]), int(stride[position])
            if step <= 0:
                raise node.refuse("strides from 1 on", step)
            if bits["shrink_axis"] & bit:
                last, step = (first + 1) or _END, 1
                dropped.append(place)
            else:
                first = 0 if bits["begin"] & bit else first
                last = _END if bits["end"] & bit else last
            slices.append((first, last, axis, step))
            axis, place = axis + 1, place + 1
        tensor = tensors[0]
        if slices:
            tensor = self._add("Slice", [tensor, *(self._value(column) for column in zip(*slices))])
        if inserted:
            tensor = self._add("Unsqueeze", [tensor, self._value(inserted)])
        if dropped:
            tensor = self._add("Squeeze", [tensor, self._value(dropped)])
        self._add("Identity", [tensor], node.name)

    @staticmethod
    def _output(node: _Node, part: int) -> str:
        """The name under which TensorFlow's nodes refer to one of several outputs."""
        return node.name if part == 0 else f"{node.name}:{part}"
