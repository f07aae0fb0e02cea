"""Metrics of levels, of their differences and of their correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import guarded, is_flat, safe_sqrt

_PIXELS = (1, 2, 3)


@metric("cddfuse")
def sd(frame: Frame, convention: str) -> Result:
    """Standard deviation of the fused image in levels, population form, higher is better."""
    levels = frame.fused.levels
    return Result(safe_sqrt((levels - levels.mean(dim=_PIXELS, keepdim=True)).square().mean(dim=_PIXELS)))


@metric("cddfuse", minimum_side=2)
def sf(frame: Frame, convention: str) -> Result:
    """Spatial frequency of the fused image: root of the mean squared differences along rows and columns, in levels."""
    levels = frame.fused.levels
    return Result(
        safe_sqrt(levels.diff(dim=-1).square().mean(dim=_PIXELS) + levels.diff(dim=-2).square().mean(dim=_PIXELS))
    )


@metric("cddfuse", minimum_side=2)
def ag(frame: Frame, convention: str) -> Result:
    """Average gradient of the fused image in levels, central differences, one-sided at the border; higher is better."""
    dy, dx = torch.gradient(frame.fused.levels, dim=(-2, -1))
    return Result(safe_sqrt((dx * dx + dy * dy) / 2).mean(dim=_PIXELS))


def _squared_error(frame: Frame) -> Tensor:
    """Mean of the squared errors against both sources, (B,)."""
    errors = [(source.levels - frame.fused.levels).square().mean(dim=_PIXELS) for source in frame.sources]
    return (errors[0] + errors[1]) / 2


@metric("cddfuse")
def mse(frame: Frame, convention: str) -> Result:
    """Mean squared error against the sources, in squared levels, mean of both; LOWER is better."""
    return Result(_squared_error(frame))


@metric(cddfuse="the peak is the largest level of the fused image instead of 255")
def psnr(frame: Frame, convention: str) -> Result:
    """Peak signal-to-noise ratio of the mean squared error (`mse`) in dB, higher is better.

    Infinite when all three images are equal.
    """
    error = _squared_error(frame)
    equal = error == 0
    if convention == "default":
        return Result((10 * torch.log10(255.0**2 / guarded(error, equal))).masked_fill(equal, torch.inf))
    peak = frame.fused.levels.amax(dim=_PIXELS)
    black = peak == 0
    ratio = 10 * torch.log10(guarded(peak, black) ** 2 / guarded(error, equal))
    return Result(ratio.masked_fill(equal, torch.inf), ((black, "the fused image is black"),))


def _centred(image: Grey) -> Tensor:
    return image.levels - image.levels.mean(dim=_PIXELS, keepdim=True)


def _pearson(x: Tensor, y: Tensor, flat: Tensor) -> Tensor:
    """Correlation of two centred B×1×H×W, (B,); 0 where `flat` says that one of them is constant."""
    shared = (x * y).sum(dim=_PIXELS)
    spread = (x * x).sum(dim=_PIXELS) * (y * y).sum(dim=_PIXELS)
    flat = flat | (spread == 0)
    return (shared / guarded(spread, flat).sqrt()).masked_fill(flat, 0.0)


@metric("cddfuse")
def cc(frame: Frame, convention: str) -> Result:
    """Correlation of the fused image with the sources, mean of both, -1 to 1, higher is better."""
    flats = [is_flat(image.levels) for image in frame]
    fused = frame.fused.once(_centred)
    first = _pearson(frame.infrared.once(_centred), fused, flats[0] | flats[2])
    second = _pearson(frame.visible.once(_centred), fused, flats[1] | flats[2])
    causes = zip(flats, [f"the {name} image is flat" for name in frame._fields], strict=True)
    return Result((first + second) / 2, tuple(causes))


@metric("cddfuse")
def scd(frame: Frame, convention: str) -> Result:
    """Sum of the correlations of differences, -2 to 2, higher is better (Aslantas & Bendes 2015)."""
    infrared, visible, fused = (image.levels for image in frame)
    causes = (
        (is_flat(infrared), "the infrared image is flat"),
        (is_flat(visible), "the visible image is flat"),
        (is_flat(fused - visible), "fused and visible image differ by a constant"),
        (is_flat(fused - infrared), "fused and infrared image differ by a constant"),
    )
    infrared, visible, fused = (image.once(_centred) for image in frame)
    first = _pearson(fused - visible, infrared, causes[0][0] | causes[2][0])
    second = _pearson(fused - infrared, visible, causes[1][0] | causes[3][0])
    return Result(first + second, causes)
