"""Metrics of levels, of their differences and of their correlation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import flat, flat_images, guarded, is_flat, safe_sqrt, sobel

_PIXELS = (1, 2, 3)


@metric(
    "cddfuse",
    "tang",
    "ivif_zoo",
    "vifb",
    yuliu="mean of the columns' deviations, in the sample form",
    minimum_side={"yuliu": 2},
)
def sd(frame: Frame, convention: str) -> Result:
    """Standard deviation of the fused image in levels, population form, higher is better."""
    if convention == "yuliu":
        levels = frame.fused.levels
        variance = (levels - levels.mean(dim=-2, keepdim=True)).square().sum(dim=-2) / (levels.shape[-2] - 1)
        return Result(safe_sqrt(variance).mean(dim=(1, 2)))
    return Result(safe_sqrt(frame.fused.once(centred).square().mean(dim=_PIXELS)))


@metric(
    "cddfuse",
    "tdfusion",
    "tang",
    "ivif_zoo",
    vifb="the sums of squares are divided by the number of pixels",
    yuliu="the sums of squares are divided by the number of pixels",
    minimum_side=2,
)
def sf(frame: Frame, convention: str) -> Result:
    """Spatial frequency of the fused image: root of the mean squared differences along rows and columns, in levels."""
    levels = frame.fused.levels
    squares = [levels.diff(dim=axis).square() for axis in (-1, -2)]
    if convention in ("vifb", "yuliu"):
        return Result(safe_sqrt((squares[0].sum(dim=_PIXELS) + squares[1].sum(dim=_PIXELS)) / levels[0].numel()))
    return Result(safe_sqrt(squares[0].mean(dim=_PIXELS) + squares[1].mean(dim=_PIXELS)))


@metric(
    "cddfuse",
    "ivif_zoo",
    tang="the sum is divided by (M-1)(N-1)",
    vifb="the sum is divided by (M-1)(N-1)",
    yuliu="forward differences, 0 at the end",
    minimum_side=2,
)
def ag(frame: Frame, convention: str) -> Result:
    """Average gradient of the fused image in levels, central differences, one-sided at the border; higher is better."""
    levels = frame.fused.levels
    if convention == "yuliu":
        dy = torch.diff(levels, dim=-2, append=levels[..., -1:, :])
        dx = torch.diff(levels, dim=-1, append=levels[..., -1:])
    else:
        dy, dx = torch.gradient(levels, dim=(-2, -1))
    mean = safe_sqrt((dx * dx + dy * dy) / 2).mean(dim=_PIXELS)
    if convention in ("tang", "vifb"):
        height, width = levels.shape[-2:]
        mean = mean * (height * width / ((height - 1) * (width - 1)))
    return Result(mean)


@metric("vifb", "yuliu", ivif_zoo="zero border")
def ei(frame: Frame, convention: str) -> Result:
    """Edge intensity: mean Sobel gradient of the fused image in levels, its border repeated; higher is better."""
    border = "constant" if convention == "ivif_zoo" else "replicate"
    return Result(sobel(frame.fused.levels, border).magnitude.mean(dim=_PIXELS))


def _errors(frame: Frame) -> tuple[Tensor, Tensor]:
    """Sums of the squared errors against the infrared and the visible image, (B,) each."""
    first, second = ((source.levels - frame.fused.levels).square().sum(dim=_PIXELS) for source in frame.sources)
    return first, second


def _squared_error(frame: Frame) -> Tensor:
    """Mean of the squared errors against both sources, (B,)."""
    first, second = _errors(frame)
    return (first + second) / (2 * frame.fused.levels[0].numel())


def _unsquared_error(frame: Frame) -> Tensor:
    """What VIFB takes for the mean squared error: the *root* of the sum of squares over the number of pixels, (B,)."""
    first, second = _errors(frame)
    return (safe_sqrt(first) + safe_sqrt(second)) / (2 * frame.fused.levels[0].numel())


@metric("cddfuse", tang="of levels in 0..1: divided by 255²", ivif_zoo="of levels in 0..1: divided by 255²")
def mse(frame: Frame, convention: str) -> Result:
    """Mean squared error against the sources, in squared levels, mean of both; LOWER is better."""
    error = _squared_error(frame)
    return Result(error / 255.0**2 if convention in ("tang", "ivif_zoo") else error)


@metric(vifb="mean of the norms of both errors, divided by the number of pixels: no root mean square", default=False)
def rmse(frame: Frame, convention: str) -> Result:
    """Root mean squared error in levels, LOWER is better; exists only as VIFB's evaluation has it."""
    return Result(_unsquared_error(frame))


@metric(
    cddfuse="the peak is the largest level of the fused image instead of 255",
    tang="48.1308 dB more: the error is of levels in 0..1, the peak 255",
    ivif_zoo="48.1308 dB more: the error is of levels in 0..1, the peak 255",
    vifb="20 log10(255 / sqrt(rmse)), with its own rmse for the squared error",
)
def psnr(frame: Frame, convention: str) -> Result:
    """Peak signal-to-noise ratio of the mean squared error (`mse`) in dB, higher is better.

    Infinite when all three images are equal.
    """
    error = _unsquared_error(frame) if convention == "vifb" else _squared_error(frame)
    equal = error == 0
    causes: tuple[tuple[Tensor, str], ...] = ()
    peak: Tensor | float = 255.0
    if convention in ("tang", "ivif_zoo"):
        peak = 255.0**2
    elif convention == "cddfuse":
        highest = frame.fused.levels.amax(dim=_PIXELS)
        black = highest == 0
        peak = guarded(highest, black)
        causes = ((black, "the fused image is black"),)
    ratio = 10 * torch.log10(peak**2 / guarded(error, equal))
    return Result(ratio.masked_fill(equal, torch.inf), causes)


def centred(image: Grey) -> Tensor:
    """The levels without their mean, B×1×H×W."""
    return image.levels - image.levels.mean(dim=_PIXELS, keepdim=True)


def pearson(x: Tensor, y: Tensor, constant: Tensor) -> Tensor:
    """Correlation of two centred B×1×H×W, (B,); 0 where one of them is known to be constant."""
    shared = (x * y).sum(dim=_PIXELS)
    spread = (x * x).sum(dim=_PIXELS) * (y * y).sum(dim=_PIXELS)
    constant = constant | (spread == 0)
    return (shared / guarded(spread, constant).sqrt()).masked_fill(constant, 0.0)


def correlation(x: Grey, y: Grey) -> Tensor:
    """Pearson correlation of two images, (B,); 0 where one of them is flat."""
    return pearson(x.once(centred), y.once(centred), x.once(flat) | y.once(flat))


@metric("cddfuse", "tang", "ivif_zoo")
def cc(frame: Frame, convention: str) -> Result:
    """Correlation of the fused image with the sources, mean of both, -1 to 1, higher is better."""
    infrared, visible, fused = frame
    return Result((correlation(infrared, fused) + correlation(visible, fused)) / 2, flat_images(frame))


@metric(
    "cddfuse",
    "tdfusion",
    "tang",
    "ivif_zoo",
    yuliu="adds 1e-5 to both differences, which changes no correlation",
)
def scd(frame: Frame, convention: str) -> Result:
    """Sum of the correlations of differences, -2 to 2, higher is better (Aslantas & Bendes 2015)."""
    infrared, visible, fused = (image.levels for image in frame)
    causes = (
        *flat_images(frame)[:2],
        (is_flat(fused - visible), "fused and visible image differ by a constant"),
        (is_flat(fused - infrared), "fused and infrared image differ by a constant"),
    )
    infrared, visible, fused = (image.once(centred) for image in frame)
    first = pearson(fused - visible, infrared, causes[0][0] | causes[2][0])
    second = pearson(fused - infrared, visible, causes[1][0] | causes[3][0])
    return Result(first + second, causes)


_STEPS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, math.sqrt(0.5)), (1, -1, math.sqrt(0.5)))  # down, right, weight


def _squared_differences(image: Grey) -> tuple[Tensor, ...]:
    """Squared differences of neighbours along the columns, the rows and both diagonals, B×1×h×w each."""
    levels = image.levels
    height, width = levels.shape[-2:]
    maps: list[Tensor] = []
    for down, right, _ in _STEPS:
        here = levels[..., : height - down, max(-right, 0) : width - max(right, 0)]
        there = levels[..., down:, max(right, 0) : width - max(-right, 0)]
        maps.append((there - here).square())
    return tuple(maps)


def _frequency(squares: tuple[Tensor, ...]) -> Tensor:
    """Their weighted sum, (B,)."""
    return torch.stack(
        [weight * square.sum(dim=_PIXELS) for (_, _, weight), square in zip(_STEPS, squares, strict=True)]
    ).sum(dim=0)


@metric("zheng", minimum_side=2)
def qsf(frame: Frame, convention: str) -> Result:
    """Spatial frequency of the fused image relative to the sources', ≥ -1, best at 0 (Zheng et al. 2007).

    Differences along rows, columns and both diagonals; of the sources the larger one counts. Negative is too smooth.
    """
    infrared, visible, fused = (image.once(_squared_differences) for image in frame)
    wanted = _frequency(tuple(torch.maximum(a, b) for a, b in zip(infrared, visible, strict=True)))
    none = wanted == 0
    ratio = safe_sqrt(_frequency(fused) / guarded(wanted, none))
    return Result(ratio - 1, ((none, "both sources are flat"),))
