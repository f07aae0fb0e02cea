"""Metrics of levels and of their correlation."""

from __future__ import annotations

from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Result, metric
from fuseloop.metrics.functional.windows import guarded, is_flat


def _pearson(x: Tensor, y: Tensor, flat: Tensor) -> Tensor:
    """Correlation of B×1×H×W with B×1×H×W, (B,); 0 where `flat` says that one of them is constant."""
    x = x - x.mean(dim=(1, 2, 3), keepdim=True)
    y = y - y.mean(dim=(1, 2, 3), keepdim=True)
    shared = (x * y).sum(dim=(1, 2, 3))
    spread = (x * x).sum(dim=(1, 2, 3)) * (y * y).sum(dim=(1, 2, 3))
    flat = flat | (spread == 0)
    return (shared / guarded(spread, flat).sqrt()).masked_fill(flat, 0.0)


@metric("cddfuse")
def scd(frame: Frame, convention: str) -> Result:
    """Sum of the correlations of differences, -2 to 2, higher is better (Aslantas & Bendes 2015)."""
    infrared, visible, fused = (image.levels for image in frame)
    without_visible, without_infrared = fused - visible, fused - infrared
    causes = (
        (is_flat(infrared), "the infrared image is flat"),
        (is_flat(visible), "the visible image is flat"),
        (is_flat(without_visible), "fused and visible image differ by a constant"),
        (is_flat(without_infrared), "fused and infrared image differ by a constant"),
    )
    first = _pearson(without_visible, infrared, causes[0][0] | causes[2][0])
    second = _pearson(without_infrared, visible, causes[1][0] | causes[3][0])
    return Result(first + second, causes)
