"""Metrics of visual information."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import (
    Kernel,
    Moments,
    centred_moments,
    covariance,
    flat,
    gaussian,
    guarded,
    shifted,
    window,
)

_SIZES = (17, 9, 5, 3)
_NOISE = 2.0  # variance of the visual noise
_NOISE_OF_VIFF = 0.005 * 255**2
_SHARES_OF_VIFF = (1 / 2.15, 0.0, 0.15 / 2.15, 1 / 2.15)


def _off_centre(size: int) -> Kernel:
    """What IVIF_ZOO takes for a centred Gaussian of this many taps."""
    first, last = -(size // 2) - 1, size // 2
    taps = [first + (last - first) * index / (size - 1) for index in range(size)]
    weights = [math.exp(-(tap**2) / (2 * (size / 5) ** 2)) for tap in taps]
    return tuple(weight / sum(weights) for weight in weights)


class _Windows(NamedTuple):
    """The windows of the four scales, and whether they reach over the border, where the image is 0."""

    kernels: tuple[Kernel, ...]
    reach_over: bool = False

    def margins(self, levels: Tensor, kernel: Kernel) -> Tensor:
        """Levels less their origin, with the border that the windows reach."""
        margin = len(kernel) // 2
        return F.pad(levels, (margin,) * 4, value=-_origin(levels)) if self.reach_over else levels


def _origin(levels: Tensor) -> float:
    """What is taken from the levels before they are squared.

    Nothing in float64, as in the definition: there the variances of flat areas fall on the same side of its threshold.
    """
    return 0.0 if levels.dtype == torch.float64 else 128.0


_INSIDE = _Windows(tuple(gaussian(size, size / 5) for size in _SIZES))
_ACROSS = _Windows(tuple(map(_off_centre, _SIZES)), reach_over=True)


def _pyramid(image: Grey, windows: _Windows) -> list[tuple[Tensor, Moments]]:
    """Levels less their origin, with the border that counts, and their moments at each of the four scales."""
    first, *others = windows.kernels
    inner = image.levels if _origin(image.levels) == 0 else image.once(shifted)
    scale = windows.margins(inner, first)
    scales = [(scale, centred_moments(scale, first))]
    for kernel in others:
        inner = window(windows.margins(inner, kernel), kernel, step=2)
        scale = windows.margins(inner, kernel)
        scales.append((scale, centred_moments(scale, kernel)))
    return scales


class _Channel(NamedTuple):
    """How a source came through to the fused image at one scale, by the model of natural scenes; B×1×H'×W' each.

    Attributes:
        variance: Of the source.
        gain: What the source was multiplied with.
        residual: Variance of what was added.
    """

    variance: Tensor
    gain: Tensor
    residual: Tensor

    def kept(self, noise: float) -> Tensor:
        """Information of the source that is in the fused image, in nats."""
        return torch.log1p(self.gain * self.gain * self.variance / (self.residual + noise))

    def whole(self, noise: float) -> Tensor:
        """Information that is in the source, in nats."""
        return torch.log1p(self.variance / noise)


def _channels(fused: Grey, source: Grey, windows: _Windows) -> list[_Channel]:
    """The channel at each scale; remembered as `fused.once(_channels, source, windows)`."""
    channels = []
    # Below this a variance is rounding noise, and the gain (its quotient) would be noise without bound.
    least = 1e-10 if source.levels.dtype == torch.float64 else 5e-3
    scales = zip(windows.kernels, source.once(_pyramid, windows), fused.once(_pyramid, windows), strict=True)
    for kernel, (x, x_moments), (y, y_moments) in scales:
        shared = covariance(x, y, x_moments, y_moments, kernel)
        variance, fused_variance = x_moments.variance.clamp_min(0), y_moments.variance.clamp_min(0)
        dull, lost = variance < least, fused_variance < least
        variance = variance.masked_fill(dull, 0.0)
        gain = (shared / (variance + 1e-10).masked_fill(dull, 1.0)).masked_fill(dull | lost, 0.0).clamp_min(0)
        # Where the gain is 0 the residual is the fused variance itself, unless that is flat.
        residual = (fused_variance - gain * shared).masked_fill(lost, 0.0).clamp_min(1e-10)
        channels.append(_Channel(variance, gain, residual))
    return channels


@metric(
    minimum_side={"default": 41, "ivif_zoo": 1},
    cddfuse='the sum of both sources (printed there as "VIFF"); a flat source counts 1',
    tdfusion="a flat source counts 1",
    tang="the sum of both sources",
    ivif_zoo="the sum of both sources; windows reach over the border and are off their centre",
)
def vif(frame: Frame, convention: str) -> Result:
    """Visual information fidelity in the pixel domain, mean of both sources, 1 = the same, higher is better.

    Source: VIFp of Sheikh & Bovik 2006.
    """
    windows = _ACROSS if convention == "ivif_zoo" else _INSIDE
    ratios: list[Tensor] = []
    flats: list[Tensor] = []
    for source in frame.sources:
        channels = frame.fused.once(_channels, source, windows)
        kept = torch.stack([channel.kept(_NOISE).sum(dim=(1, 2, 3)) for channel in channels]).sum(dim=0)
        whole = torch.stack([channel.whole(_NOISE).sum(dim=(1, 2, 3)) for channel in channels]).sum(dim=0)
        flats.append(whole == 0)
        ratios.append(kept / guarded(whole, flats[-1]))
    if convention in ("cddfuse", "tdfusion"):
        ratios = [ratio.masked_fill(none, 1.0) for ratio, none in zip(ratios, flats, strict=True)]
        flats = []
    total = ratios[0] + ratios[1]
    causes = zip(flats, ("the infrared image is flat", "the visible image is flat"), strict=False)
    return Result(total if convention in ("cddfuse", "tang", "ivif_zoo") else total / 2, tuple(causes))


@metric("yuliu", minimum_side=41)
def viff(frame: Frame, convention: str) -> Result:
    """Visual information that came through where it came through least, at least 0, higher is better (Han 2013).

    0 when a source is flat: its gain is the smaller one, and what the definition then leaves is a quotient of nothings.
    """
    tiny = 1e-7 * math.log(10)  # the definition adds 1e-7 to decimal logarithms
    value = frame.fused.levels.new_zeros(len(frame.fused.levels))
    both = zip(
        _SHARES_OF_VIFF, *(frame.fused.once(_channels, source, _INSIDE) for source in frame.sources), strict=True
    )
    for share, infrared, visible in both:
        if share == 0:
            continue
        weaker = infrared.gain < visible.gain
        kept, whole = (
            (torch.where(weaker, first, second) + tiny).sum(dim=(1, 2, 3))
            for first, second in (
                (infrared.kept(_NOISE_OF_VIFF), visible.kept(_NOISE_OF_VIFF)),
                (infrared.whole(_NOISE_OF_VIFF), visible.whole(_NOISE_OF_VIFF)),
            )
        )
        value = value + share * kept / whole
    return Result(value.masked_fill(frame.infrared.once(flat) | frame.visible.once(flat), 0.0))
