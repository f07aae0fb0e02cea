"""What bf16 makes of a network, as a loss: training can make a network that survives eight bits of mantissa.

Engines in bf16 round the result of every operation. A network that was trained in float32 alone may depend on small
differences of large features, which rounding takes away. Here the deployed network runs with the same rounding in
float32, where it has gradients, and the largest differences to the exact image are the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fuseloop.engines.bfloat16 import split_image, to_bfloat16
from fuseloop.engines.deployment import deploy
from fuseloop.networks.vfn import VFN

POWER = 8
"""Of the mean in `rounding_loss`: high enough for the largest errors to count, low enough for many pixels to do so."""
TINY = 1e-30  # makes the ratio of zeros 1
_ROUNDED = {F.conv2d, F.leaky_relu, F.avg_pool2d, torch.sigmoid, Tensor.add, Tensor.mul, Tensor.mean}


class Round(torch.autograd.Function):
    """Rounds float32 to values that bf16 holds.

    Backwards the error counts as a share of the value, which it is, and not as a constant: training would otherwise
    scale features up and the next weights down, and gain nothing by it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape to the same."""
        rounded: Tensor = x.bfloat16().float()
        ctx.save_for_backward(rounded.add(TINY).div_(x.add(TINY)))
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient times the ratio of rounded to exact."""
        (ratio,) = ctx.saved_tensors
        return cast(Tensor, gradient * ratio)


class _Bfloat16(TorchFunctionMode):
    """Rounds what the operations of a deployed network give, until it asks for float32 to make the image."""

    def __init__(self) -> None:
        super().__init__()
        self._rounds = True

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self._rounds = self._rounds and function is not Tensor.float
        if self._rounds and function in _ROUNDED:
            return Round.apply(result)  # type: ignore[no-untyped-call]
        return result


def fuse_rounded(network: VFN, infrared: Tensor, luma: Tensor) -> Tensor:
    """Fuses as engines do in bf16, with gradients for the parameters of the network.

    Batch norms use their running statistics. Each engine fuses operations in its own way and so rounds a little less
    often; the errors are of one size, their patterns differ.

    Args:
        network: The network.
        infrared: B×1×H×W in [0, 1].
        luma: The same shape and range.

    Returns:
        The fused luma, B×1×H×W in [0, 1].
    """
    deployment = deploy(network, differentiable=True)
    to_bfloat16(deployment)
    images = split_image(infrared), split_image(luma)
    with _Bfloat16():
        fused: Tensor = deployment.frame(*images)
    return fused


def rounding_loss(rounded: Tensor, exact: Tensor, tolerance: float = 0.0) -> Tensor:
    """The 8th power mean of the differences of every pair, in grey levels: a smooth form of the largest one.

    Args:
        rounded: What `fuse_rounded` made, B×1×H×W.
        exact: What the network made, the same shape.
        tolerance: Grey levels that cost nothing; what is beyond them does.

    Returns:
        The mean over the pairs, a scalar.
    """
    levels = F.relu((rounded - exact).abs().flatten(1) * 255 - tolerance)
    mean = levels.pow(POWER).mean(dim=1) + 1e-12  # the root has no gradient at 0
    return mean.pow(1 / POWER).mean()
