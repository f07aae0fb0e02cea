"""OpenVINO as an engine."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import openvino
import openvino.properties as properties
import openvino.properties.hint as hint
import torch
from torch import Tensor

from fuseloop.engines.deployment import Part
from fuseloop.engines.engine import Engine, Precision
from fuseloop.engines.export import part_graph
from fuseloop.networks.vfn import CHANNELS, VFN

Shape = tuple[int, ...]

NARROW = "cpu:brgconv_avx2,cpu:brgconv_avx2_1x1"  # kernels of vectors of 8 float32 values, for 3×3 and for 1×1
COMPILED = 4  # two passes over tiles, and whole frames of two sizes
COMPILED_PIXELS = 2_500_000  # a compiled graph keeps its buffers, some 0.4 kB for each pixel of its input


class OpenVinoEngine(Engine):
    """Runs the deployed graphs in OpenVINO on the CPU.

    A graph is compiled for each shape, since a graph of free shape takes nearly twice as long. The last few are kept.
    It has as many threads as PyTorch when the engine is made.
    """

    name = "openvino"
    apart = ("fp32",)

    def __init__(self, network: VFN, precision: Precision) -> None:
        super().__init__(network, precision)
        self._core = openvino.Core()
        self._options = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: openvino.Type.bf16 if precision == "bf16" else openvino.Type.f32,
            properties.inference_num_threads: torch.get_num_threads(),
        }
        self.compiled: OrderedDict[tuple[str, tuple[Shape, ...]], openvino.InferRequest] = OrderedDict()

    def _request(self, part: str, shapes: tuple[Shape, ...]) -> openvino.InferRequest:
        """The compiled graph of a part for some input shapes, the last few of which are kept."""
        key = (part, shapes)
        if key in self.compiled:
            self.compiled.move_to_end(key)
            return self.compiled[key]
        kept = [*(_weight(other, first) for other, (first, *_) in self.compiled), _weight(part, shapes[0])]
        while self.compiled and (len(kept) > COMPILED or sum(kept) > COMPILED_PIXELS):
            self.compiled.popitem(last=False)
            del kept[0]
        self.compiled[key] = self._compile(part, shapes)
        return self.compiled[key]

    def _compile(self, part: str, shapes: tuple[Shape, ...]) -> openvino.InferRequest:
        model = self._core.read_model(part_graph(self._deployment, part).SerializeToString())
        model.reshape(dict(zip(range(len(shapes)), map(openvino.PartialShape, shapes), strict=True)))
        # In steps that begin with features, the wish makes OpenVINO take kernels that are slower by a third.
        if self.precision == "fp32" and (part in get_args(Part) or part == "first"):
            model = _with_narrow_kernels(self._core, model)
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()

    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        request = self._request(part, tuple(tuple(value.shape) for value in inputs))
        request.infer([value.contiguous().numpy() for value in inputs], share_inputs=True)
        return tuple(torch.from_numpy(value.data.copy()) for value in request.output_tensors)


def _weight(part: str, shape: Shape) -> float:
    """What a compiled graph counts in pixels of images; the first and the last step of a frame together are one."""
    if part in get_args(Part):
        return prod(shape)
    return (0.75 if part == "last" else 0.25) * prod(shape) / shape[1]


def _with_narrow_kernels(core: openvino.Core, model: openvino.Model) -> openvino.Model:
    """The model with the wish that convolutions to 8 channels run in kernels with vectors of 8 values.

    With AVX-512, OpenVINO's own choice in fp32 has vectors of 16, half of which would be empty: that takes up to half
    as long again. It takes the wish from an attribute that it reads from its own format only, and goes by its own
    choice where the processor or a later version does not have these kernels.
    """
    with tempfile.TemporaryDirectory() as folder:
        structure, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, structure, weights)
        root, values = ElementTree.fromstring(structure.read_bytes()), weights.read_bytes()
    for layer in root.iterfind("layers/layer[@type='Convolution']"):
        outputs = layer.findtext("input/port[@id='1']/dim")  # the first axis of the weight
        if outputs == str(CHANNELS):
            notes = layer.find("rt_info")
            if notes is None:
                notes = ElementTree.SubElement(layer, "rt_info")
            ElementTree.SubElement(notes, "attribute", name="primitives_priority", version="0", value=NARROW)
    return core.read_model(ElementTree.tostring(root), values)
