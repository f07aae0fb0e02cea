"""PyTorch as an engine."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fuseloop.engines.engine import Precision
from fuseloop.networks.vfn import VFN, Pooled, gradient_magnitude


class TorchEngine:
    """Runs the network eagerly in PyTorch, see `Engine`."""

    name = "torch"

    def __init__(self, network: VFN, precision: Precision) -> None:
        self.precision: Precision = precision
        self._network = copy.deepcopy(network).eval().requires_grad_(False)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    @torch.inference_mode()
    def fuse(self, infrared: Tensor, luma: Tensor) -> Tensor:
        with self._autocast():
            return self._network(infrared, luma).float()

    @torch.inference_mode()
    def pool(self, infrared: Tensor, luma: Tensor, interior: Tensor) -> Pooled:
        with self._autocast():
            gradient = gradient_magnitude(self._network.encode(infrared, luma)).float() * interior
        return Pooled(gradient.sum(dim=(2, 3)), gradient.amax(dim=(2, 3)))

    @torch.inference_mode()
    def fuse_tile(self, infrared: Tensor, luma: Tensor, pooled: Pooled) -> Tensor:
        with self._autocast():
            return self._network.decode(self._network.encode(infrared, luma), pooled).float()
