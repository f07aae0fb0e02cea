"""What every engine can do."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from fuseloop.networks.vfn import Pooled

Precision = Literal["fp32", "bf16"]


class Engine(Protocol):
    """Runs one fusion network, whose weights it took when it was made.

    All images are float32 tensors B×1×H×W in [0, 1] on the CPU, H and W at least 8. Engines prepare what they need for
    a shape when it comes first and keep it for a bounded number of shapes. They are not safe to share between threads.

    Attributes:
        name: The name it is loaded by.
        precision: "fp32" is within 1e-4 of the PyTorch module, "bf16" within 2/255.
    """

    name: str
    precision: Precision

    def fuse(self, infrared: Tensor, luma: Tensor) -> Tensor:
        """Fuses whole frames.

        Args:
            infrared: B×1×H×W in [0, 1].
            luma: Y of the visible image, the same shape and range.

        Returns:
            The fused luma, B×1×H×W in [0, 1].
        """
        ...

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
        ...

    def fuse_tile(self, infrared: Tensor, luma: Tensor, pooled: Pooled) -> Tensor:
        """Fuses one tile.

        Args:
            infrared: A tile with its halo, B×1×H×W in [0, 1].
            luma: The same tile of the visible luma.
            pooled: Mean and peak of the whole frame, B×16 each.

        Returns:
            The fused tile, B×1×H×W in [0, 1]; right outside the halo of a cut.
        """
        ...
