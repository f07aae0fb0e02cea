"""PyTorch as an engine."""

from __future__ import annotations

import torch
from torch import Tensor

from fuseloop.engines.engine import Engine, Precision
from fuseloop.networks.vfn import CHANNELS, VFN


class TorchEngine(Engine):
    """Runs the deployed network eagerly on the device of the network."""

    name = "torch"

    def __init__(self, network: VFN, precision: Precision) -> None:
        super().__init__(network, precision)
        self._device = next(network.parameters()).device
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        for module in self._deployment:
            # Channels last: the layout in which convolutions of few channels are fast.
            module.to(dtype=self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self._deployment.module(part)(*map(self._prepared, inputs))
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(value.to("cpu", torch.float32) for value in several)

    def _prepared(self, value: Tensor) -> Tensor:
        """Features in the layout in which they would have stayed between two steps."""
        value = value.to(self._device, self._dtype)
        return value.contiguous(memory_format=torch.channels_last) if value.shape[1] == CHANNELS else value
