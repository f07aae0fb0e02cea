"""OpenVINO as an engine."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import onnx
import openvino
import openvino.properties as properties
import openvino.properties.hint as hint
import torch
from openvino.preprocess import PrePostProcessor
from torch import Tensor

from fuseloop.engines.deployment import Part
from fuseloop.engines.engine import Precision
from fuseloop.engines.graph_engine import GraphEngine
from fuseloop.networks.vfn import CHANNELS, VFN

Shape = tuple[int, ...]
Compiled = OrderedDict[tuple[str, tuple[Shape, ...]], openvino.InferRequest]

NARROW = "cpu:brgconv_avx2,cpu:brgconv_avx2_1x1"  # kernels of vectors of 8 float32 values, for 3×3 and for 1×1
COMPILED = 4  # two passes over tiles, and whole frames of two sizes
COMPENSATING = 16  # two decisions and what they usually choose, for frames of a few sizes
COMPILED_PIXELS = 2_500_000  # a compiled graph keeps its buffers, some 0.4 kB for each pixel of its input


class OpenVinoEngine(GraphEngine):
    """Runs the deployed graphs in OpenVINO on the CPU.

    A graph is compiled for each shape, since a graph of free shape takes nearly twice as long. The last few are kept.
    It has as many threads as PyTorch when the engine is made.
    """

    name = "openvino"
    apart = ("fp32",)
    together = True

    def __init__(self, network: VFN, precision: Precision) -> None:
        super().__init__(network, precision)
        self._core = openvino.Core()
        self._options = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: openvino.Type.bf16 if precision == "bf16" else openvino.Type.f32,
            properties.inference_num_threads: torch.get_num_threads(),
        }
        self.compiled: Compiled = OrderedDict()
        self.compensating: Compiled = OrderedDict()

    def _request(self, part: str, shapes: tuple[Shape, ...]) -> openvino.InferRequest:
        """The compiled graph of a part for some input shapes, the last few of which are kept."""
        compiled, most = (self.compensating, COMPENSATING) if _compensates(part) else (self.compiled, COMPILED)
        key = (part, shapes)
        if key in compiled:
            compiled.move_to_end(key)
            return compiled[key]
        kept = [*(_weight(other, first) for other, (first, *_) in compiled), _weight(part, shapes[0])]
        while compiled and (len(kept) > most or sum(kept) > COMPILED_PIXELS):
            compiled.popitem(last=False)
            del kept[0]
        compiled[key] = self._compile(part, shapes)
        return compiled[key]

    def _compile(self, part: str, shapes: tuple[Shape, ...]) -> openvino.InferRequest:
        graph = self._model(part)
        model = self._core.read_model(graph.SerializeToString())
        model.reshape(dict(zip(range(len(shapes)), map(openvino.PartialShape, shapes), strict=True)))
        model = _with_channels_last(model)
        options = self._options
        if _compensates(part):
            options = options | {hint.inference_precision: openvino.Type.f32}
        if options[hint.inference_precision] == openvino.Type.f32:
            model = _with_narrow_kernels(
                self._core, model, _first_convolutions(graph.graph, part.startswith("injection"))
            )
        return self._core.compile_model(model, "CPU", options).create_infer_request()

    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        request = self._request(part, tuple(tuple(value.shape) for value in inputs))
        arrays = [_turned(value, 1, 3).contiguous().numpy() for value in inputs]
        # It writes into new arrays, which saves a copy.
        outputs = [np.empty(tuple(output.shape), np.float32) for output in request.model_outputs]
        for index, output in enumerate(outputs):
            request.set_output_tensor(index, openvino.Tensor(output, shared_memory=True))
        request.infer(arrays, share_inputs=True)
        return tuple(_turned(torch.from_numpy(output), 3, 1) for output in outputs)


def _compensates(part: str) -> bool:
    return part.startswith(("decision", "injection"))


def _weight(part: str, shape: Shape) -> float:
    """What a compiled graph counts in pixels of images; the first and the last step of a frame together are one."""
    if part in get_args(Part):
        return prod(shape)
    share = {"last": 0.75, "decision": 0.01, "injection": 0.7}.get(part.split(".")[0], 0.25)
    return share * prod(shape) / shape[1]


def _are_features(shape: Shape, axis: int) -> bool:
    """Whether a tensor is features of 8 channels on an axis; statistics and kernels are smaller than any image."""
    return len(shape) == 4 and shape[axis] == CHANNELS and min(shape[1:]) >= VFN.minimum_side


def _turned(value: Tensor, channels: int, to: int) -> Tensor:
    """Features with their channels on another axis; anything else as it is."""
    return value.movedim(channels, to) if _are_features(tuple(value.shape), channels) else value


def _with_channels_last(model: openvino.Model) -> openvino.Model:
    """The model with features B×H×W×8 in and out, as its kernels have them, which saves turning them."""
    wish = PrePostProcessor(model)
    for ports, step in ((model.inputs, wish.input), (model.outputs, wish.output)):
        for index, port in enumerate(ports):
            if _are_features(tuple(port.shape), 1):
                step(index).tensor().set_layout(openvino.Layout("NHWC"))
                step(index).model().set_layout(openvino.Layout("NCHW"))
    return wish.build()


def _first_convolutions(graph: onnx.GraphProto, every: bool) -> set[str]:
    """The first convolution of each input of a graph, or every one that reads an input."""
    first: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in {value.name for value in graph.input}:
            first.setdefault(node.name if every else node.input[0], node.name)
    return set(first.values())


def _with_narrow_kernels(core: openvino.Core, model: openvino.Model, spared: set[str]) -> openvino.Model:
    """The model with the wish that convolutions to 8 channels run in kernels with vectors of 8 values.

    With AVX-512, OpenVINO's own choice in fp32 has vectors of 16, half of which would be empty: that takes up to half
    as long again. It takes the wish from an attribute that it reads from its own format only, and goes by its own
    choice where the processor or a later version does not have these kernels. The first convolution of an input gets no
    wish: it would have the input turned, and take kernels that are several times slower.
    """
    with tempfile.TemporaryDirectory() as folder:
        structure, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, structure, weights)
        root, values = ElementTree.fromstring(structure.read_bytes()), weights.read_bytes()
    for layer in root.iterfind("layers/layer[@type='Convolution']"):
        outputs = layer.findtext("input/port[@id='1']/dim")  # the first axis of the weight
        if outputs != str(CHANNELS) or layer.get("name", "").split("/")[0] in spared:
            continue
        notes = layer.find("rt_info")
        if notes is None:
            notes = ElementTree.SubElement(layer, "rt_info")
        ElementTree.SubElement(notes, "attribute", name="primitives_priority", version="0", value=NARROW)
    return core.read_model(ElementTree.tostring(root), values)
