"""Metrics of transferred edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import guarded, sobel


def _edges(image: Grey) -> tuple[Tensor, Tensor]:
    """Strength and angle of the edges; the angle is in (-π/2, π/2], π/2 where there is no horizontal derivative.

    The vertical derivative counts upwards, as in all public code; only where an angle is set to π/2 that matters.
    """
    gradient = sobel(image.levels)
    # Whole levels have whole derivatives; below this bound the quotient's derivative would overflow in float32.
    vertical = gradient.x.abs() < 1e-6
    angle = torch.atan(-gradient.y / gradient.x.masked_fill(vertical, 1.0)).masked_fill(vertical, math.pi / 2)
    return gradient.magnitude, angle


@metric(cddfuse="where both gradients are exactly equal, their ratio is replaced by the gradient itself")
def qabf(frame: Frame, convention: str) -> Result:
    """Share of the sources' edges that the fused image kept, 0 to .97479, higher is better (Xydeas & Petrovic 2000)."""
    strength, angle = frame.fused.once(_edges)
    kept: list[Tensor] = []
    weight: list[Tensor] = []
    for source in frame.sources:
        source_strength, source_angle = source.once(_edges)
        equal = source_strength == strength
        largest = guarded(torch.maximum(source_strength, strength), equal)
        alike = strength if convention == "cddfuse" else torch.ones_like(strength)
        ratio = torch.where(equal, alike, torch.minimum(source_strength, strength) / largest)
        alignment = 1 - (source_angle - angle).abs() / (math.pi / 2)
        preserved = torch.sigmoid(15 * (ratio - 0.5)) * torch.sigmoid(22 * (alignment - 0.8)) * (0.9994 * 0.9879)
        kept.append((preserved * source_strength).sum(dim=(1, 2, 3)))
        weight.append(source_strength.sum(dim=(1, 2, 3)))
    total = weight[0] + weight[1]
    black = total == 0
    return Result((kept[0] + kept[1]) / guarded(total, black), ((black, "neither source has an edge"),))
