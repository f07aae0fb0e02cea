"""The fusion network as an instruction changes it.

An engine runs the first block, which is that of every image; the rest is PyTorch, whatever the engine, in fp32 and in
the deployed form. Where the conditioner changes nothing, "torch" in fp32 makes the same image bit for bit, and other
engines one within 1e-4.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from fuseloop.engines.deployment import Last, deploy
from fuseloop.engines.engine import Engine
from fuseloop.networks.instruction_conditioner import Conditioning, InstructionConditioner
from fuseloop.networks.vfn import VFN, Condition, Pooled

Features = tuple[Tensor, Tensor]


class _Hook(nn.Module):
    """Where features can be changed on their way through the reconstruction."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level
        self.condition: Condition | None = None

    def forward(self, features: Tensor) -> Tensor:
        return features if self.condition is None else _channels_last(self.condition(self.level, features))


class ConditionedNetwork:
    """Runs a fusion network with its conditioner, on the device of the network.

    Images are float32 tensors 1×1×H×W in [0, 1] on the CPU, H and W at least 8.

    Args:
        engine: Runs the first block.
        network: The fusion network that it runs; its weights are taken as they are now.
        conditioner: Its conditioner, likewise.
    """

    def __init__(self, engine: Engine, network: VFN, conditioner: InstructionConditioner) -> None:
        self._engine = engine
        self._device = next(network.parameters()).device
        self._conditioner = deepcopy(conditioner).to(self._device).eval()
        steps = deploy(network).steps.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._blocks = [step for name, step in steps.items() if name.startswith("block")]
        self._last = cast(Last, steps["last"])
        stem, *layers = self._last.decoder.reconstruction
        self._hooks = [_Hook(level) for level in range(network.depth)]
        hooked = (module for hook, block in zip(self._hooks, layers, strict=False) for module in (hook, block))
        self._last.decoder.reconstruction = nn.Sequential(stem, *hooked, *layers[network.depth :])

    @torch.inference_mode()
    def fuse(self, infrared: Tensor, luma: Tensor, embedding: Tensor, strength: float) -> Tensor:
        """Fuses a whole frame.

        Args:
            infrared: 1×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.
            embedding: The instruction, 1×d.
            strength: How much of the change is made, from 0 to 1.

        Returns:
            The fused luma, 1×1×H×W in [0, 1].
        """
        first = self._first(infrared, luma)
        conditioning = self._conditioner(*first, embedding.to(self._device), strength)
        features = self._features(first, conditioning)
        gradient = self._last.encoder.gradient(features)
        return self._decode(conditioning, features, gradient, VFN.pool(gradient))

    @torch.inference_mode()
    def look(self, infrared: Tensor, luma: Tensor) -> Features:
        """What the conditioner looks at, 1×8×H×W each."""
        return self._first(infrared, luma)

    @torch.inference_mode()
    def adapt(self, cells: Tensor, embedding: Tensor, strength: float) -> Conditioning:
        """`InstructionConditioner.adapt`."""
        return self._conditioner.adapt(cells, embedding.to(self._device), strength)

    @torch.inference_mode()
    def pool(self, conditioning: Conditioning, infrared: Tensor, luma: Tensor, interior: Tensor) -> Pooled:
        """`Engine.pool` of the network as it is conditioned."""
        features = self._features(self._first(infrared, luma), conditioning)
        gradient = self._last.encoder.gradient(features) * interior.to(self._device)
        return Pooled(gradient.sum((2, 3)).cpu(), gradient.amax((2, 3)).cpu())

    @torch.inference_mode()
    def fuse_tile(self, conditioning: Conditioning, infrared: Tensor, luma: Tensor, pooled: Pooled) -> Tensor:
        """`Engine.fuse_tile` of the network as it is conditioned."""
        features = self._features(self._first(infrared, luma), conditioning)
        gradient = self._last.encoder.gradient(features)
        mean, peak = (statistic.to(self._device) for statistic in pooled)
        return self._decode(conditioning, features, gradient, Pooled(mean, peak))

    def _first(self, infrared: Tensor, luma: Tensor) -> Features:
        first, second = (_channels_last(x.to(self._device)) for x in self._engine.encode_first(infrared, luma))
        return first, second

    def _features(self, first: Features, conditioning: Conditioning) -> Tensor:
        """What the encoders make, 1×16×H×W."""
        infrared, visible = first
        for level in range(1, len(self._hooks)):
            infrared, visible = map(_channels_last, conditioning.compensate(level - 1, infrared, visible))
            if level <= len(self._blocks):
                infrared, visible = self._blocks[level - 1](infrared, visible)
        return _channels_last(conditioning.gate(self._last.block(infrared, visible)))

    def _decode(self, conditioning: Conditioning, features: Tensor, gradient: Tensor, pooled: Pooled) -> Tensor:
        for hook in self._hooks:
            hook.condition = conditioning.decoder
        mean, peak = (statistic[:, :, None, None] for statistic in pooled)
        fused: Tensor = self._last.decoder(features, gradient, mean, peak)
        return fused.cpu()


def _channels_last(features: Tensor) -> Tensor:
    """The layout in which convolutions of few channels are fast."""
    return features.contiguous(memory_format=torch.channels_last)
