"""Windows, moments, gradients: the image maths that several metrics share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from types import EllipsisType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fuseloop.metrics.functional.frame import Frame, Grey

Kernel = tuple[float, ...]  # one axis of a separable window


@lru_cache
def gaussian(size: int, sigma: float) -> Kernel:
    """G(n, σ): one axis of the n×n Gaussian whose sum is 1."""
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


@lru_cache
def uniform(size: int) -> Kernel:
    """U(n): one axis of the n×n mean."""
    return (1 / size,) * size


class _Slide(torch.autograd.Function):
    """Weighted sum of shifted copies along one axis.

    PyTorch convolves single channels slowly on CPUs, above all in float64 and backwards. Adding shifted views is 5 to
    20 times faster in both directions, and exact in the same way on every device. Equal weights need fewer additions.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: Kernel, axis: int, step: int) -> Tensor:
        ctx.geometry = maps.shape, kernel, axis, step
        if step == 1 and len(set(kernel)) == 1:
            return _summed(maps, kernel, axis)
        count = (maps.shape[axis] - len(kernel)) // step + 1
        total = maps[_every(axis, 0, count, step)] * kernel[0]
        for offset, weight in enumerate(kernel[1:], start=1):
            if weight:
                total.add_(maps[_every(axis, offset, count, step)], alpha=weight)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        shape, kernel, axis, step = ctx.geometry
        if step == 1 and len(set(kernel)) == 1:
            margin = len(kernel) - 1
            around = (margin, margin) if axis == -1 else (0, 0, margin, margin)
            return _summed(F.pad(gradient, around), kernel, axis), None, None, None
        total = gradient.new_zeros(shape)
        for offset, weight in enumerate(kernel):
            total[_every(axis, offset, gradient.shape[axis], step)].add_(gradient, alpha=weight)
        return total, None, None, None


def _summed(maps: Tensor, kernel: Kernel, axis: int) -> Tensor:
    """What equal weights make of neighbours, by way of sums of 1, 2, 4, ...; those of whole numbers are exact."""
    size, weight = len(kernel), kernel[0]
    count, start, parts = maps.shape[axis] - size + 1, 0, []
    for length in (1 << bit for bit in range(size.bit_length())):
        if length > 1:
            pairs = maps.shape[axis] - length // 2
            maps = maps.narrow(axis, 0, pairs) + maps.narrow(axis, length // 2, pairs)
        if size & length:
            parts.append(maps.narrow(axis, start, count))
            start += length
    total = reduce(torch.add, parts)
    return total if weight == 1 else total * weight


def _every(axis: int, start: int, count: int, step: int) -> tuple[slice | EllipsisType, ...]:
    """Index of `count` elements from `start` on along the last axis (-1) or the one before (-2)."""
    picked = slice(start, start + (count - 1) * step + 1, step)
    return (..., picked) if axis == -1 else (..., picked, slice(None))


def window(maps: Tensor, rows: Kernel, columns: Kernel | None = None, *, step: int = 1) -> Tensor:
    """Weighted sums over the full windows ("valid") of B×C×H×W maps, every `step`-th along both axes.

    Args:
        maps: B×C×H×W, at least as large as the window.
        rows: Weights along a row (the last axis).
        columns: Weights along a column; the same as `rows` by default.
        step: Distance of the windows.
    """
    columns = rows if columns is None else columns
    if _is_scored_on_cpu(maps) and all(len(set(kernel)) >= _MANY for kernel in (rows, columns)):
        return _multiplied(maps, rows, columns, step)
    across = _Slide.apply(maps, rows, -1, step)  # type: ignore[no-untyped-call]
    return cast(Tensor, _Slide.apply(across, columns, -2, step))  # type: ignore[no-untyped-call]


def _is_scored_on_cpu(maps: Tensor) -> bool:
    """In float64, where nobody has switched to a coarser product of matrices, and without gradient."""
    follows = maps.requires_grad and torch.is_grad_enabled()
    return maps.dtype == torch.float64 and maps.device.type == "cpu" and not follows


_MANY = 4  # different weights, from which on products of matrices are faster than adding shifted copies
_TILE = 8


def _multiplied(maps: Tensor, rows: Kernel, columns: Kernel, step: int) -> Tensor:
    """The same as products of small matrices, which a CPU does fastest; no gradient."""
    high, wide = (
        (size - len(kernel)) // step + 1 for size, kernel in zip(maps.shape[2:], (columns, rows), strict=True)
    )
    sums = maps.new_empty(*maps.shape[:2], high, wide)
    for map_, out in zip(maps.flatten(0, 1), sums.flatten(0, 1), strict=True):
        _turn(_turn(map_, rows, step, maps.new_empty(wide, maps.shape[2])), columns, step, out)
    return sums


def _turn(map_: Tensor, kernel: Kernel, step: int, out: Tensor) -> Tensor:
    """Weighted sums along the rows of an H×W map, transposed: W'×H, written to `out`."""
    count, height = out.shape
    band = _band(kernel, step)
    tiles, rest = divmod(count, _TILE)
    tiled = count - rest
    if tiles:  # as overlapping views: no copy
        strides = _TILE * step * map_.stride(1), map_.stride(1), map_.stride(0)
        overlapping = map_.as_strided((tiles, band.shape[1], height), strides)
        torch.bmm(band.expand(tiles, -1, -1), overlapping, out=out[:tiled].view(tiles, _TILE, height))
    if rest:
        covered = (rest - 1) * step + len(kernel)
        torch.mm(band[:rest, :covered], map_[:, tiled * step : tiled * step + covered].t(), out=out[tiled:])
    return out


@lru_cache
def _band(kernel: Kernel, step: int) -> Tensor:
    """The matrix that makes 8 sums out of the values under their windows."""
    with torch.inference_mode(False):  # remembered, so it has to serve outside of inference too
        band = torch.zeros(_TILE, (_TILE - 1) * step + len(kernel), dtype=torch.float64)
        for row in range(_TILE):
            band[row, row * step : row * step + len(kernel)] = torch.tensor(kernel, dtype=torch.float64)
        return band


class Moments(NamedTuple):
    """Windowed mean and variance, B×1×H'×W'; the mean is that of levels - 128, which keeps float32 exact enough."""

    centred_mean: Tensor
    variance: Tensor


def shifted(image: Grey) -> Tensor:
    """Levels - 128: around 0 float32 has the digits that (co)variances need."""
    return image.levels - 128.0


def moments(image: Grey, *kernel: Kernel) -> Moments:
    """Moments under a window that weighs 1 (see `window` for its one or two axes), full windows only."""
    return centred_moments(image.once(shifted), *kernel)


def centred_moments(centred: Tensor, *kernel: Kernel) -> Moments:
    """Moments of B×1×H×W values near 0."""
    mean, square = window(centred, *kernel), window(centred * centred, *kernel)
    return Moments(mean, torch.addcmul(square, mean, mean, value=-1))


def covariance(x: Tensor, y: Tensor, x_moments: Moments, y_moments: Moments, *kernel: Kernel) -> Tensor:
    """Windowed covariance of centred values, given the moments of both."""
    return torch.addcmul(window(x * y, *kernel), x_moments.centred_mean, y_moments.centred_mean, value=-1)


def covariance_with(image: Grey, other: Grey, *kernel: Kernel) -> Tensor:
    """Windowed covariance of two images, to be remembered as `fused.once(covariance_with, source, kernel)`."""
    own, others = image.once(moments, *kernel), other.once(moments, *kernel)
    return covariance(image.once(shifted), other.once(shifted), own, others, *kernel)


def negligible(levels: Tensor) -> float:
    """What a windowed (co)variance of levels has to exceed to be more than rounding noise."""
    return 1e-6 if levels.dtype == torch.float64 else 5e-3


_STRIP = 2**15  # pixels


def means(function: Callable[..., tuple[Tensor, ...]], *maps: Tensor) -> list[Tensor]:
    """Means of what a function makes of maps pixel by pixel.

    On a CPU it goes through strips of rows. Such functions are bound by memory, above all by the first touch of fresh
    memory, and what they make of a strip stays in the cache.

    Args:
        function: From maps B×1×h×W to others of that shape.
        maps: B×1×H×W.

    Returns:
        For each map that the function makes its B means.
    """
    batch, _, height, width = maps[0].shape
    rows = max(1, _STRIP // (batch * width)) if maps[0].device.type == "cpu" else height
    strips = zip(*(torch.split(each, rows, dim=-2) for each in maps), strict=True)
    sums = [[made.sum(dim=(1, 2, 3)) for made in function(*strip)] for strip in strips]
    return [reduce(torch.add, parts) / (height * width) for parts in zip(*sums, strict=True)]


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0 instead of infinite."""
    if not x.requires_grad:
        return x.sqrt()
    positive = x > 0
    return torch.where(positive, x, 1.0).sqrt() * positive


class Gradient(NamedTuple):
    """Sobel derivatives and their magnitude, B×1×H×W, in levels."""

    x: Tensor
    y: Tensor
    magnitude: Tensor


def sobel(levels: Tensor, border: str = "constant") -> Gradient:
    """Sobel gradient of B×1×H×W levels.

    Args:
        levels: B×1×H×W.
        border: What lies outside: "constant" is 0, "replicate" repeats the edge, "reflect" mirrors without repeating it
            (for sides from 2).
    """
    padded = F.pad(levels, (1, 1, 1, 1), mode=border)
    difference, smooth = (-1.0, 0.0, 1.0), (1.0, 2.0, 1.0)
    x, y = window(padded, difference, smooth), window(padded, smooth, difference)
    return Gradient(x, y, safe_sqrt(torch.addcmul(x * x, y, y)))


def is_flat(values: Tensor) -> Tensor:
    """Which of B×1×H×W are constant, (B,) bool."""
    values = values.detach()
    return values.amin(dim=(1, 2, 3)) == values.amax(dim=(1, 2, 3))  # quicker than both ends in one pass


def flat(image: Grey) -> Tensor:
    """Which images of a batch are constant, (B,) bool; to be remembered with `once`."""
    return is_flat(image.levels)


def flat_images(frame: Frame) -> tuple[tuple[Tensor, str], ...]:
    """The causes of what is undefined as soon as one of the three images is flat."""
    return tuple(
        (image.once(flat), f"the {name} image is flat") for name, image in zip(frame._fields, frame, strict=True)
    )


def flat_unless_black(frame: Frame) -> tuple[tuple[Tensor, str], ...]:
    """The causes of what Zheng's stretching divides by 0: flat images; but black ones it leaves alone."""
    return tuple(
        (cause & (image.levels[:, 0, 0, 0] > 0), text)
        for (cause, text), image in zip(flat_images(frame), frame, strict=True)
    )


def guarded(denominator: Tensor, zero: Tensor) -> Tensor:
    """The denominator with 1 where it is known to be zero, so that neither value nor gradient becomes NaN there."""
    return denominator.masked_fill(zero, 1.0)
