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

OPSET = 18
Shape = Sequence[int | str]


class _Writer:
    """Collects the nodes and constants of one graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Tensor) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.cpu().contiguous().numpy(), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}".lower()
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name


def _write_convolution(
    writer: _Writer, x: str, weight: Tensor, bias: Tensor, *, padding: int, dilation: int, groups: int
) -> str:
    return writer.node(
        "Conv",
        [x, writer.constant(weight), writer.constant(bias)],
        kernel_shape=weight.shape[2:],
        pads=[padding] * 4,
        dilations=[dilation] * 2,
        group=groups,
    )


def _write_pad(writer: _Writer, x: str, margins: tuple[int, int, int, int], *, mode: str, **_: object) -> str:
    left, right, top, bottom = margins
    pads = writer.constant(torch.tensor([0, 0, top, left, 0, 0, bottom, right]))
    return writer.node("Pad", [x, pads], mode={"reflect": "reflect", "replicate": "edge"}[mode])


def _write_pool(kind: str) -> Callable[..., str]:
    def write(writer: _Writer, x: str, size: int, stride: int, padding: int, **_: object) -> str:
        # The zeros of the border count in PyTorch's mean.
        extra = {"count_include_pad": 1} if kind == "AveragePool" else {}
        return writer.node(kind, [x], kernel_shape=[size] * 2, strides=[stride] * 2, pads=[padding] * 4, **extra)

    return write


def _write_reduction(kind: str) -> Callable[..., str]:
    def write(writer: _Writer, x: str, axes: tuple[int, ...], *, keepdim: bool) -> str:
        return writer.node(kind, [x, writer.constant(torch.tensor(axes))], keepdims=int(keepdim))

    return write


def _write_arithmetic(kind: str) -> Callable[..., str]:
    def write(writer: _Writer, x: str, other: str | float) -> str:
        return writer.node(kind, [x, other if isinstance(other, str) else writer.constant(torch.tensor(other))])

    return write


def _write_function(kind: str) -> Callable[..., str]:
    return lambda writer, x: writer.node(kind, [x])


# What each operation of a deployed network is in ONNX. Methods of tensors go by name. Options that the deployed network
# leaves at their defaults are ignored.
_WRITERS: dict[Callable[..., Any] | str, Callable[..., str]] = {
    F.conv2d: _write_convolution,
    F.pad: _write_pad,
    F.leaky_relu: lambda writer, x, negative_slope, **_: writer.node("LeakyRelu", [x], alpha=negative_slope),
    F.avg_pool2d: _write_pool("AveragePool"),
    F.max_pool2d: _write_pool("MaxPool"),
    torch.cat: lambda writer, parts, dim: writer.node("Concat", parts, axis=dim),
    torch.sigmoid: _write_function("Sigmoid"),
    torch.tanh: _write_function("Tanh"),
    operator.add: _write_arithmetic("Add"),
    operator.mul: _write_arithmetic("Mul"),
    "sum": _write_reduction("ReduceSum"),
    "mean": _write_reduction("ReduceMean"),
    "amax": _write_reduction("ReduceMax"),
    "float": lambda writer, x: x,  # graphs are written in float32
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
