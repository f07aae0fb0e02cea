"""Writes a deployed network as an ONNX graph.

PyTorch's exporter takes seconds, which every start of an engine would pay; the deployed modules consist of so few
operations that a table of them does the same in milliseconds. Batch, height and width stay free.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from fuseloop.engines.compensation import count_up, extent

OPSET = 18
Shape = Sequence[int | str]
Value = str | float | Tensor


class _Writer:
    """Collects the nodes and constants of one graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Tensor) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.cpu().contiguous().numpy(), name))
        return name

    def value(self, value: str | float | Tensor) -> str:
        """The name of what an operation takes: of what another one made, or of a constant."""
        if isinstance(value, str):
            return value
        return self.constant(value if isinstance(value, Tensor) else torch.tensor(float(value)))

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self.results(1, kind, inputs, **attributes)[0]

    def results(self, outputs: int, kind: str, inputs: Sequence[str], **attributes: Any) -> list[str]:
        name = f"{kind}_{len(self.nodes)}".lower()
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, names, name, **attributes))
        return names

    def integers(self, *values: int) -> str:
        return self.constant(torch.tensor(values, dtype=torch.int64))


def _write_convolution(
    writer: _Writer, x: str, weight: Value, bias: Value | None, *, padding: int, dilation: int, groups: int
) -> str:
    inputs = [x, *(writer.value(value) for value in (weight, bias) if value is not None)]
    return writer.node("Conv", inputs, pads=[padding] * 4, dilations=[dilation] * 2, group=groups)


def _write_pad(
    writer: _Writer, x: str, margins: tuple[int, int, int, int], *, mode: str = "constant", **_: object
) -> str:
    left, right, top, bottom = margins
    pads = writer.integers(0, 0, top, left, 0, 0, bottom, right)
    return writer.node("Pad", [x, pads], mode="edge" if mode == "replicate" else mode)


def _write_pool(kind: str) -> Callable[..., str]:
    def write(
        writer: _Writer,
        x: str,
        size: int,
        stride: int,
        padding: int,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **_: object,
    ) -> str:
        extra = {"count_include_pad": int(count_include_pad)} if kind == "AveragePool" else {}
        # Not ONNX's own mode for a last window that is not full: OpenVINO makes nothing of inputs below one window.
        last = padding + (stride - 1 if ceil_mode else 0)
        pads = [padding, padding, last, last]
        return writer.node(kind, [x], kernel_shape=[size] * 2, strides=[stride] * 2, pads=pads, **extra)

    return write


def _write_reduction(kind: str) -> Callable[..., str]:
    def write(writer: _Writer, x: str, axes: tuple[int, ...], *, keepdim: bool = False) -> str:
        return writer.node(kind, [x, writer.integers(*axes)], keepdims=int(keepdim))

    return write


def _write_norm(writer: _Writer, x: str, _: int, axes: tuple[int, ...], keepdim: bool) -> str:
    return writer.node("ReduceL2", [x, writer.integers(*axes)], keepdims=int(keepdim))


def _write_operation(kind: str) -> Callable[..., str]:
    return lambda writer, *values: writer.node(kind, [writer.value(value) for value in values])


def _write_cast(to: int) -> Callable[..., str]:
    return lambda writer, x: writer.node("Cast", [x], to=to)


def _write_equal(writer: _Writer, x: str, other: Value) -> str:
    return writer.node("Cast", [writer.node("Equal", [x, writer.value(other)])], to=TensorProto.FLOAT)


def _write_reshape(writer: _Writer, x: str, kept: int, *sizes: int) -> str:
    """Keeps the first axes and gives the rest other sizes."""
    return writer.node("Reshape", [x, writer.integers(*[0] * kept, *sizes)])


def _write_item(writer: _Writer, x: Value | list[str], item: Any) -> str:
    """One of several results, or slices of a tensor."""
    if isinstance(x, list):
        result: str = x[item]
        return result
    x = writer.value(x)
    slices = item if isinstance(item, tuple) else (item,)
    bounds = [
        (axis, cut.start or 0, cut.stop) for axis, cut in enumerate(slices) if (cut.start or 0, cut.stop) != (0, None)
    ]
    if not bounds:
        return x
    axes, starts, stops = zip(*bounds, strict=True)
    ends = [torch.iinfo(torch.int64).max if stop is None else stop for stop in stops]
    return writer.node("Slice", [x, writer.integers(*starts), writer.integers(*ends), writer.integers(*axes)])


def _write_extent(writer: _Writer, x: str, first: int, last: int) -> str:
    sides = writer.node("Shape", [x], start=first, end=last + 1)
    return writer.node("Cast", [writer.node("ReduceProd", [sides], keepdims=0)], to=TensorProto.FLOAT)


def _write_range(writer: _Writer, count: str) -> str:
    return writer.node("Range", [writer.value(0.0), count, writer.value(1.0)])


# What each operation of a deployed network is in ONNX. Methods of tensors go by name; so
# does arithmetic that begins with a constant. Options that the deployed network
# leaves at their defaults are ignored.
_WRITERS: dict[Callable[..., Any] | str, Callable[..., Any]] = {
    F.conv2d: _write_convolution,
    F.pad: _write_pad,
    F.leaky_relu: lambda writer, x, negative_slope, **_: writer.node("LeakyRelu", [x], alpha=negative_slope),
    F.avg_pool2d: _write_pool("AveragePool"),
    F.max_pool2d: _write_pool("MaxPool"),
    torch.cat: lambda writer, parts, dim: writer.node("Concat", list(map(writer.value, parts)), axis=dim),
    torch.sigmoid: _write_operation("Sigmoid"),
    torch.tanh: _write_operation("Tanh"),
    torch.sqrt: _write_operation("Sqrt"),
    torch.cos: _write_operation("Cos"),
    torch.eq: _write_equal,
    torch.topk: lambda writer, x, count, axis: writer.results(2, "TopK", [x, writer.integers(count)], axis=axis),
    torch.linalg.vector_norm: _write_norm,
    **dict.fromkeys((operator.add, "add"), _write_operation("Add")),
    **dict.fromkeys((operator.sub, "sub"), _write_operation("Sub")),
    **dict.fromkeys((operator.mul, "mul"), _write_operation("Mul")),
    **dict.fromkeys((operator.truediv, "div"), _write_operation("Div")),
    **dict.fromkeys((operator.matmul, "matmul"), _write_operation("MatMul")),
    operator.getitem: _write_item,
    extent: _write_extent,
    count_up: _write_range,
    "sum": _write_reduction("ReduceSum"),
    "mean": _write_reduction("ReduceMean"),
    "amax": _write_reduction("ReduceMax"),
    "argmax": lambda writer, x, axis: writer.node("ArgMax", [x], axis=axis, keepdims=0),
    "gather": lambda writer, x, axis, index: writer.node("GatherElements", [x, index], axis=axis),
    "index_select": lambda writer, x, axis, index: writer.node(
        "Gather", list(map(writer.value, (x, index))), axis=axis
    ),
    "flatten": lambda writer, x, axis: _write_reshape(writer, x, axis, -1),
    "unflatten": lambda writer, x, axis, sizes: _write_reshape(writer, x, axis, *sizes),
    "reshape": lambda writer, x, *sizes: _write_reshape(writer, x, 0, *sizes),
    "unsqueeze": lambda writer, x, axis: writer.node("Unsqueeze", [x, writer.integers(axis)]),
    "t": lambda writer, x: writer.node("Transpose", [x], perm=[1, 0]),
    "float": _write_cast(TensorProto.FLOAT),
    "long": _write_cast(TensorProto.INT64),
}


def write_graph(
    module: nn.Module, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], metadata: Mapping[str, str] = {}
) -> onnx.ModelProto:
    """Writes a module as an ONNX model.

    Args:
        module: A module of the operations above, such as those of `deploy`.
        inputs: Shape of each input in the order of `forward`; dimensions are numbers, or names when they are free.
        outputs: The same for the outputs.
        metadata: Entries for the metadata of the model.

    Returns:
        The checked model, in float32.

    Raises:
        KeyError: The module uses an operation that is not in the table.
    """
    traced = fx.symbolic_trace(module)
    writer = _Writer()
    names = iter(inputs)
    values: dict[fx.Node, Any] = {}
    results: Any = ()
    for node in traced.graph.nodes:
        args = fx.map_arg(node.args, values.__getitem__)
        keywords = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "placeholder":
            values[node] = next(names)
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(traced)
        elif node.op == "output":
            results = args[0] if isinstance(args[0], tuple) else (args[0],)
        else:
            values[node] = _WRITERS[node.target](writer, *args, **keywords)
    for name, result in zip(outputs, results, strict=True):
        writer.nodes.append(helper.make_node("Identity", [result], [name], name))

    def described(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(writer.nodes, "fuseloop", described(inputs), described(outputs), writer.constants)
    model = helper.make_model(graph, producer_name="fuseloop", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9  # the newest that ONNX Runtime 1.18 reads
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model
