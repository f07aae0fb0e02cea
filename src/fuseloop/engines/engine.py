"""What every engine can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fuseloop.engines.bfloat16 import split_image, to_bfloat16
from fuseloop.engines.deployment import deploy
from fuseloop.errors import ConfigurationError
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN, Compensate, Pooled

Precision = Literal["fp32", "bf16"]


class Engine(ABC):
    """Runs one fusion network.

    All images are float32 tensors B×1×H×W in [0, 1] on the CPU, H and W at least 8. Engines compile for a shape when it
    comes first and keep that for the last few shapes. They are not safe to share between threads.

    Args:
        network: The network; its weights are taken as they are now, with the running statistics of its batch norms.
        precision: "fp32" is within 1e-4 of the PyTorch module. "bf16" is within 2/255 with the shipped weights, which
            were trained for that: on all pixels of synthetic scenes, on all but a few in a million of real frames,
            where the largest difference found is 5/255. Other weights can be off by 25/255 in places.

    Raises:
        ConfigurationError: The engine does not have this precision.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "bf16")
    apart: ClassVar[tuple[Precision, ...]] = ()
    """The precisions in which this engine is faster with the encoders apart, see `deploy`."""

    def __init__(self, network: VFN, precision: Precision) -> None:
        if precision not in self.precisions:
            raise ConfigurationError(
                f"engine {self.name} has no precision {precision!r}; it has {', '.join(self.precisions)}"
            )
        self.precision: Precision = precision
        self._depth = network.depth
        self._deployment = deploy(network, apart=precision in self.apart)
        if precision == "bf16":
            to_bfloat16(self._deployment)

    @abstractmethod
    def _run(self, part: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs a part or a step of the deployment, float32 tensors in and out."""

    def _images(self, *images: Tensor) -> list[Tensor]:
        return [split_image(image) for image in images] if self.precision == "bf16" else list(images)

    def fuse(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuses whole frames.

        Args:
            infrared: B×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.

        Returns:
            The fused luma, B×1×H×W in [0, 1].
        """
        (fused,) = self._run("frame", *self._images(infrared, luma))
        return fused

    def encode_first(self, infrared: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:
        """`VFN.encode_first`: what both passes of the closed loop share.

        Args:
            infrared: B×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.

        Returns:
            Infrared and visible features, B×8×H×W each.
        """
        first, second = self._run("first", *self._images(infrared, luma))
        return first, second

    def finish(self, infrared: Tensor, visible: Tensor, compensate: Compensate | None = None) -> Tensor:
        """Makes the image from what `encode_first` gave.

        Args:
            infrared: First of what it gave, B×8×H×W.
            visible: Second of it.
            compensate: Changes the features before each block, see `VFN.encode_rest`; None changes nothing.

        Returns:
            The fused luma, B×1×H×W in [0, 1]; without `compensate` within 1e-4 what `fuse` gives.
        """
        for level in range(1, self._depth):
            if compensate is not None:
                infrared, visible = compensate(level - 1, infrared, visible)
            if level < self._depth - 1:
                infrared, visible = self._run(f"block{level}", infrared, visible)
        (fused,) = self._run("last", infrared, visible)
        return fused

    def take(self, compensation: SemanticCompensation) -> None:
        """Takes the compensation that `compensate` runs, with its weights as they are now.

        Args:
            compensation: The network, on the CPU and in evaluation mode.
        """
        self._compensation = compensation

    @torch.no_grad()
    def compensate(
        self, level: int, infrared: Tensor, visible: Tensor, *, requirement: Tensor, strength: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """`SemanticCompensation.forward` of what this engine took; a `Compensate` for `finish` once the rest is given.

        Args:
            level: The block whose features these are.
            infrared: Its infrared features, B×8×H×W.
            visible: Its visible features, the same shape.
            requirement: What `SemanticCompensation.describe` made, first dimension B.
            strength: Factor of the compensation; 0 changes nothing, bit for bit.

        Returns:
            Infrared and visible features, B×8×H×W each; within 1e-4 those of the module, where rounding does not
            decide between two kernels that suit a frame alike.
        """
        if strength == 0:
            return infrared, visible
        # Plane after plane is the layout in which PyTorch does this fastest.
        planes = infrared.contiguous(), visible.contiguous()
        compensated: tuple[Tensor, Tensor] = self._compensation(level, *planes, requirement, strength=strength)
        return compensated

    def pool(self, infrared: Tensor, luma: Tensor, interior: Tensor) -> Pooled:
        """Adds up what one tile gives to the statistics of the whole frame.

        The features are wrong within the network's halo of a cut, so the halo must not be counted.

        Args:
            infrared: A tile with its halo, B×1×H×W in [0, 1].
            luma: The same tile of the visible luma.
            interior: B×1×H×W, 1 where the tile counts and 0 elsewhere.

        Returns:
            `mean`: the SUM of the gradients over the interior, B×16; `peak`: their largest value, B×16. The caller
            adds up the sums of all tiles and divides by the pixels of the frame.
        """
        total, peak = self._run("statistics", *self._images(infrared, luma), interior)
        return Pooled(total.flatten(1), peak.flatten(1))

    def fuse_tile(self, infrared: Tensor, luma: Tensor, pooled: Pooled) -> Tensor:
        """Fuses one tile.

        Args:
            infrared: A tile with its halo, B×1×H×W in [0, 1].
            luma: The same tile of the visible luma.
            pooled: Mean and peak of the whole frame, B×16 each.

        Returns:
            The fused tile, B×1×H×W in [0, 1]; right outside the halo of a cut.
        """
        mean, peak = (statistic[:, :, None, None] for statistic in pooled)
        (fused,) = self._run("tile", *self._images(infrared, luma), mean, peak)
        return fused
