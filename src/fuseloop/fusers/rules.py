"""Fusers that need no weights, and fusion networks, as functions of tensors.

They are what task networks are trained on and compared over: a fused image that costs nothing is the row which a fusion
network has to beat. Each takes infrared B×1×H×W and visible B×3×H×W, RGB, both in [0, 1], and gives B×3×H×W RGB, which
may leave [0, 1] a little where colour is put back on another luma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb

Rule: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def infrared(infrared: Tensor, visible: Tensor) -> Tensor:
    """The infrared image alone, as grey."""
    return infrared.expand_as(visible)


def visible(infrared: Tensor, visible: Tensor) -> Tensor:
    """The visible image alone."""
    return visible


def on_luma(fuse: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    """The rule that fuses infrared and luma, both B×1×H×W, and keeps the colour of the visible image."""

    def rule(infrared: Tensor, visible: Tensor) -> Tensor:
        ycbcr = rgb_to_ycbcr(visible)
        return ycbcr_to_rgb(torch.cat([fuse(infrared, ycbcr[:, :1]), ycbcr[:, 1:]], dim=1))

    return rule


def of_network(network: nn.Module) -> Rule:
    """The rule of a fusion network such as VFN, in its own precision whatever surrounds it."""

    def fuse(infrared: Tensor, luma: Tensor) -> Tensor:
        with torch.autocast(luma.device.type, enabled=False):
            fused: Tensor = network(infrared, luma)
        return fused

    return on_luma(fuse)


RULES: dict[str, Rule] = {
    "infrared": infrared,
    "visible": visible,
    "mean": on_luma(lambda infrared, luma: (infrared + luma) / 2),
    "max": on_luma(torch.maximum),
}
"""Fusers without weights, by name."""
