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
    means,
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
    """How a source came through to the fused image at one scale, by the model of natural scenes.

    Attributes:
        gain: What the source was multiplied with, at least 0.
        variance: Of the source.
        signal: What of the fused variance comes from the source.
        residual: Variance of what was added.
    """

    gain: Tensor
    variance: Tensor
    signal: Tensor
    residual: Tensor

    @classmethod
    def of(cls, variance: Tensor, fused_variance: Tensor, covariance: Tensor) -> _Channel:
        # Below this a variance is rounding noise, and the gain (its quotient) would be noise without bound.
        least = 1e-10 if variance.dtype == torch.float64 else 5e-3
        live = F.threshold(fused_variance, least, 0.0).sign_()
        gain = (covariance / F.threshold(variance, least, math.inf).add_(1e-10)).mul_(live).clamp_(min=0)
        # Where the gain is 0 the residual is the fused variance itself.
        residual = torch.addcmul(fused_variance, gain, covariance, value=-1).clamp_(min=1e-10)
        variance = F.threshold(variance, least, 0.0)
        return cls(gain, variance, gain * gain * variance, residual)

    def information(self, noise: float) -> tuple[Tensor, Tensor]:
        """Information of the source that is in the fused image, and all that is in the source; in nats."""
        return _logarithms((self.signal / (self.residual + noise)).add_(1)), _logarithms(
            (self.variance / noise).add_(1)
        )


def _logarithms(factors: Tensor) -> Tensor:
    """Logarithms of products of eight rows, with the same sum: each factor is below 10⁴."""
    for _ in range(3):
        half = factors.shape[-2] // 2
        upper, lower, rest = torch.split(factors, [half, half, factors.shape[-2] % 2], dim=-2)
        factors = torch.cat([upper * lower, rest], dim=-2) if rest.numel() else upper * lower
    return factors.log_()


def _information_of(
    infrared: Tensor, visible: Tensor, fused: Tensor, infrared_covariance: Tensor, visible_covariance: Tensor
) -> tuple[Tensor, ...]:
    """Information of variances and covariances under the windows of one scale.

    Returns:
        What is kept of the infrared image and all that it has, the same of the visible one, and of the source that
        came through less in each window.
    """
    first = _Channel.of(infrared, fused, infrared_covariance)
    second = _Channel.of(visible, fused, visible_covariance)
    weaker = first.gain < second.gain
    least = _Channel(*(torch.where(weaker, a, b) for a, b in zip(first, second, strict=True)))
    return *first.information(_NOISE), *second.information(_NOISE), *least.information(_NOISE_OF_VIFF)


def _information(fused: Grey, infrared: Grey, visible: Grey, windows: _Windows) -> tuple[Tensor, Tensor]:
    """Sums of the six parts of `_information_of` at each scale, 6×4×B, and how many windows there are, 4×1.

    To be remembered as `fused.once(_information, infrared, visible, windows)`.
    """
    sums: list[Tensor] = []
    counts: list[int] = []
    pyramids = [image.once(_pyramid, windows) for image in (infrared, visible, fused)]
    for kernel, (a, a_moments), (b, b_moments), (f, f_moments) in zip(windows.kernels, *pyramids, strict=True):
        covariances = covariance(a, f, a_moments, f_moments, kernel), covariance(b, f, b_moments, f_moments, kernel)
        parts = means(_information_of, a_moments.variance, b_moments.variance, f_moments.variance, *covariances)
        counts.append(f_moments.variance[0].numel())
        sums.append(torch.stack(parts) * counts[-1])
    return torch.stack(sums, dim=1), sums[0].new_tensor(counts)[:, None]


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
    sums = frame.fused.once(_information, *frame.sources, windows)[0].sum(dim=1)
    kept, whole = sums[0:4:2], sums[1:4:2]
    none = whole == 0
    ratios = (kept / guarded(whole, none)).masked_fill(none, 1.0)
    value = ratios.sum(dim=0) if convention in ("cddfuse", "tang", "ivif_zoo") else ratios.mean(dim=0)
    if convention in ("cddfuse", "tdfusion"):
        return Result(value)
    return Result(value, ((none[0], "the infrared image is flat"), (none[1], "the visible image is flat")))


@metric("yuliu", minimum_side=41)
def viff(frame: Frame, convention: str) -> Result:
    """Visual information that came through where it came through least, at least 0, higher is better (Han 2013).

    0 when a source is flat: its gain is the smaller one, and what the definition then leaves is a quotient of nothings.
    """
    sums, counts = frame.fused.once(_information, *frame.sources, _INSIDE)
    kept, whole = sums[4:] + 1e-7 * math.log(10) * counts  # the definition adds 1e-7 to decimal logarithms
    value = (kept / whole * sums.new_tensor(_SHARES_OF_VIFF)[:, None]).sum(dim=0)
    return Result(value.masked_fill(frame.infrared.once(flat) | frame.visible.once(flat), 0.0))
