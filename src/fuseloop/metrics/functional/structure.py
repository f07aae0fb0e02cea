"""Metrics of local structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import (
    Kernel,
    covariance_with,
    gaussian,
    means,
    moments,
    negligible,
    safe_sqrt,
    shifted,
    uniform,
    window,
)

_PIXELS = (1, 2, 3)


def similarity(
    x_mean: Tensor, y_mean: Tensor, variances: Tensor, covariance: Tensor, c1: float, c2: float
) -> tuple[Tensor, Tensor]:
    """The two factors of structural similarity, luminance and structure.

    Args:
        x_mean: Windowed mean of one image.
        y_mean: Of the other.
        variances: The sum of both.
        covariance: Of both.
        c1: Keeps dark windows stable.
        c2: Keeps flat windows stable.
    """
    product = 2.0 * x_mean * y_mean + c1
    difference = x_mean - y_mean
    return product / torch.addcmul(product, difference, difference), (2.0 * covariance + c2) / (variances + c2)


_GAUSSIAN = gaussian(11, 1.5)


@dataclass(frozen=True)
class _Definition:
    """What the conventions of SSIM differ in.

    Attributes:
        kernel: One axis of the window.
        span: The range of levels, L.
        sample: What makes (co)variances of them, N/(N-1) for the sample form.
        whole: Whether every pixel has a window, with the border repeated outside.
    """

    kernel: Kernel = _GAUSSIAN
    span: float = 255.0
    sample: float = 1.0
    whole: bool = False


_WANG = _Definition()
_UNIFORM = _Definition(kernel=uniform(7), sample=49 / 48)
_UNIT = _Definition(span=1.0)
_SSIM = {
    "default": _WANG,
    "cddfuse": replace(_UNIFORM, span=2.0),
    "tdfusion": _UNIFORM,
    "tang": replace(_UNIT, whole=True),
    "ivif_zoo": _UNIT,
    "vifb": _WANG,
}


def _bordered(image: Grey, margin: int) -> Grey:
    """The image with its border pixels repeated around it."""
    return Grey(F.pad(image.levels, (margin,) * 4, mode="replicate"), quantized=image.quantized)


def _similarity(fused: Grey, source: Grey, definition: _Definition) -> list[Tensor]:
    """Means of the structural similarity and of its structure factor alone, (B,) each."""
    kernel, sample = definition.kernel, definition.sample
    c1, c2 = (0.01 * definition.span) ** 2, (0.03 * definition.span) ** 2
    if definition.whole:
        fused, source = (image.once(_bordered, len(kernel) // 2) for image in (fused, source))

    def factors(x: Tensor, y: Tensor, x_variance: Tensor, y_variance: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        variances = (x_variance + y_variance) * sample
        luminance, structure = similarity(x + 128.0, y + 128.0, variances, shared * sample, c1, c2)
        return luminance * structure, structure

    own, other = fused.once(moments, kernel), source.once(moments, kernel)
    shared = fused.once(covariance_with, source, kernel)
    return means(factors, own.centred_mean, other.centred_mean, own.variance, other.variance, shared)


@metric(
    minimum_side={"default": 11, "cddfuse": 7, "tdfusion": 7, "tang": 1},
    cddfuse="the sum of both sources; 7×7 uniform windows with sample (co)variances; L = 2, the range that an old "
    "scikit-image assumed for floats",
    tdfusion="7×7 uniform windows with sample (co)variances",
    tang="a window for every pixel, with the border repeated outside; L = 1 for levels 0..255",
    ivif_zoo="the sum of both sources; L = 1 for levels 0..255",
    vifb="the sum of both sources",
)
def ssim(frame: Frame, convention: str) -> Result:
    """Structural similarity to the sources, their mean, -1 to 1, higher is better (Wang 2004).

    11×11 Gaussian windows (σ 1.5) inside the image, K = (.01, .03), L = 255.
    """
    scores = [frame.fused.once(_similarity, source, _SSIM[convention])[0] for source in frame.sources]
    total = scores[0] + scores[1]
    return Result(total if convention in ("cddfuse", "ivif_zoo", "vifb") else total / 2)


def _halved(image: Grey) -> Grey:
    """Means of 2×2 pixels; of an odd side the last pixel stands for two."""
    levels = image.levels
    height, width = levels.shape[-2:]
    if height % 2 or width % 2:
        levels = F.pad(levels, (0, width % 2, 0, height % 2), mode="replicate")
    rows = levels[..., 0::2, :] + levels[..., 1::2, :]
    return Grey((rows[..., 0::2] + rows[..., 1::2]) / 4, quantized=False)


def _pooled(image: Grey) -> Grey:
    """Means of 2×2 pixels; an odd side is surrounded by zeros, which count."""
    height, width = image.levels.shape[-2:]
    return Grey(F.avg_pool2d(image.levels, 2, padding=(height % 2, width % 2)), quantized=False)


def _scales(frame: Frame, count: int, halving: Callable[[Grey], Grey] = _halved) -> list[Frame]:
    """The frame at full size, half, a quarter, ..."""
    frames = [frame]
    while len(frames) < count:
        frames.append(Frame(*(image.once(halving) for image in frames[-1])))
    return frames


def _power(base: Tensor, exponent: float) -> Tensor:
    """`max(base, 0) ** exponent`, whose derivative is 0 where the base is not positive."""
    positive = base > 0
    return torch.where(positive, base, 1.0) ** exponent * positive


_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@metric(
    minimum_side=161,
    ivif_zoo="the sum of both sources; L = 1 for levels 0..255; an odd side is surrounded by zeros before it is halved",
)
def ms_ssim(frame: Frame, convention: str) -> Result:
    """Structural similarity over five scales, mean of both sources, 0 to 1, higher is better (Wang 2003).

    Windows and constants as `ssim`.
    """
    published = convention == "ivif_zoo"
    scales = _scales(frame, len(_EXPONENTS), _pooled if published else _halved)
    definition = _UNIT if published else _WANG
    scores: list[Tensor] = []
    for source in (0, 1):
        scored = [scale.fused.once(_similarity, scale.sources[source], definition) for scale in scales]
        factors = [structure for _, structure in scored[:-1]] + [scored[-1][0]]
        powers = [_power(factor, exponent) for factor, exponent in zip(factors, _EXPONENTS, strict=True)]
        scores.append(torch.stack(powers).prod(dim=0))
    total = scores[0] + scores[1]
    return Result(total if published else total / 2)


_PATCH: Kernel = (1.0,) * 11  # one axis of a window that sums, exactly so for whole levels
_AREA = 121


class _Spread(NamedTuple):
    """Sums over 11×11 patches, B×1×H'×W': of the centred levels, and of their squared deviations."""

    total: Tensor
    energy: Tensor


def _spread(image: Grey) -> _Spread:
    centred = image.once(shifted)
    total = window(centred, _PATCH)
    energy = torch.addcmul(_AREA * window(centred * centred, _PATCH), total, total, value=-1) / _AREA
    return _Spread(total, F.threshold(energy, _AREA * negligible(energy), 0.0))


def _spread_with(image: Grey, other: Grey) -> Tensor:
    """Sums over patches of the products of both images' deviations."""
    product = window(image.once(shifted) * other.once(shifted), _PATCH)
    return product - image.once(_spread).total * other.once(_spread).total / _AREA


_STEEPEST = 10.0  # largest exponent of the weights


def _wanted(infrared: Tensor, visible: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the deviations of both sources in what a patch of the fused image should be.

    Args:
        infrared: Energy of the infrared patches.
        visible: Energy of the visible patches.
        shared: Sums of the products of their deviations.
    """
    first, second, both = safe_sqrt(infrared), safe_sqrt(visible), safe_sqrt(F.relu(infrared + visible + 2.0 * shared))
    # 1 where the patches agree: the stronger one is wanted alone. 0 where they are opposite: half of each.
    tiny = 2.0**-52
    agreement = (both + tiny) / (first + second + tiny)
    exponent = torch.tan(agreement.clamp(max=2 / math.pi * math.atan(_STEEPEST)) * (math.pi / 2))
    first, second = first + 0.001, second + 0.001
    share = torch.sigmoid(exponent * (first / second).log())
    a, b = share / first, (1 - share) / second
    # Brought to the norm of the stronger patch, unless nothing but rounding noise is left of opposite ones.
    parts = a * a * infrared + b * b * visible
    noise = 1e-12 if parts.dtype == torch.float64 else 1e-5
    square = F.relu(parts * (1 - noise) + 2.0 * a * b * shared)
    scale = torch.maximum(first, second) * safe_sqrt(square) / (square + 1e-20)
    return a * scale, b * scale


def _preserved_structure(frame: Frame) -> Tensor:
    """How alike in structure the fused image and what is wanted of it are, mean over the windows, (B,)."""
    infrared, visible, fused = frame
    kernel = _GAUSSIAN
    c2 = (0.03 * 255.0) ** 2

    def quality(*maps: Tensor) -> tuple[Tensor]:
        a, b = _wanted(*maps[:3])
        infrared, visible, both, own, infrared_shared, visible_shared = maps[3:]
        wanted = a * a * infrared + b * b * visible + 2.0 * a * b * both
        return ((2.0 * (a * infrared_shared + b * visible_shared) + c2) / (wanted + own + c2),)

    return means(
        quality,
        infrared.once(_spread).energy,
        visible.once(_spread).energy,
        visible.once(_spread_with, infrared),
        *(image.once(moments, kernel).variance for image in frame.sources),
        visible.once(covariance_with, infrared, kernel),
        fused.once(moments, kernel).variance,
        fused.once(covariance_with, infrared, kernel),
        fused.once(covariance_with, visible, kernel),
    )[0]


@metric(minimum_side=44, tang="undefined where the structure of a scale is opposite to what is wanted")
def mef_ssim(frame: Frame, convention: str) -> Result:
    """Structure of the sources that the fused image kept, over three scales, 0 to 1, higher is better (Ma 2015).

    In each 11×11 patch the wanted structure is a mix of both sources, of which the stronger one has the larger part.
    """
    total = sum(_EXPONENTS[:3])
    qualities = [_preserved_structure(scale) for scale in _scales(frame, 3)]
    powers = [_power(quality, exponent / total) for quality, exponent in zip(qualities, _EXPONENTS, strict=False)]
    score = torch.stack(powers).prod(dim=0)
    if convention == "tang":
        opposite = (torch.stack(qualities) < 0).any(dim=0)
        return Result(score, ((opposite, "the structure of a scale is opposite to what is wanted"),))
    return Result(score)
