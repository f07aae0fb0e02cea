"""ONNX Runtime as an engine."""

from __future__ import annotations

from functools import cache

import onnxruntime
import torch
from torch import Tensor

from fuseloop.engines.engine import Precision
from fuseloop.engines.graph_engine import GraphEngine
from fuseloop.networks.vfn import VFN


class OnnxRuntimeEngine(GraphEngine):
    """Runs the exported graphs in ONNX Runtime on the CPU, which has no bf16 there.

    One session serves all shapes. It has as many threads as PyTorch when the engine is made.
    """

    name = "onnxruntime"
    precisions = ("fp32",)

    def __init__(self, network: VFN, precision: Precision) -> None:
        super().__init__(network, precision)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = torch.get_num_threads()
        self._options.inter_op_num_threads = 1
        self._session = cache(self._make_session)

    def _make_session(self, part: str) -> onnxruntime.InferenceSession:
        model = self._model(part).SerializeToString()
        return onnxruntime.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])

    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        session = self._session(part)
        names = [value.name for value in session.get_inputs()]
        arrays = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in session.run(None, arrays))
