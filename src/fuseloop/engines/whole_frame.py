"""The engine of fusion networks that cannot work in parts."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from fuseloop.engines.engine import Engine


class WholeFrameEngine(Engine):
    """Runs a network as it is, by PyTorch on the device of the network: whole frames in fp32, `fuse` alone.

    Args:
        network: From (infrared, luma) to the fused luma; its weights are taken as they are now.
    """

    name = "torch"
    precisions = ("fp32",)

    def __init__(self, network: nn.Module) -> None:
        self.precision = "fp32"
        self._network = deepcopy(network).eval()
        self._device = next(network.parameters()).device

    @torch.inference_mode()
    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        if part != "frame":
            raise NotImplementedError(f"{type(self._network).__name__} makes whole frames, no {part}")
        return (self._network(*(value.to(self._device, torch.float32) for value in inputs)).cpu(),)
