"""Metrics of visual information."""

from __future__ import annotations

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import (
    Kernel,
    Moments,
    centred_moments,
    covariance,
    gaussian,
    guarded,
    window,
)

_KERNELS: tuple[Kernel, ...] = tuple(gaussian(size, size / 5) for size in (17, 9, 5, 3))
_NOISE = 2.0  # variance of the visual noise


def _pyramid(image: Grey) -> list[tuple[Tensor, Moments]]:
    """Centred levels and their moments at each of the four scales."""
    scale = image.levels - 128.0
    scales = [(scale, centred_moments(scale, _KERNELS[0]))]
    for kernel in _KERNELS[1:]:
        scale = window(scale, kernel, step=2)
        scales.append((scale, centred_moments(scale, kernel)))
    return scales


def _information(source: Grey, fused: Grey) -> tuple[Tensor, Tensor]:
    """Information that the fused image keeps of a source, and all that the source has; both (B,)."""
    kept = source.levels.new_zeros(len(source.levels))
    whole = torch.zeros_like(kept)
    # Below this a variance is rounding noise, and the gain (its quotient) would be noise without bound.
    flat = 1e-10 if source.levels.dtype == torch.float64 else 5e-3
    for kernel, (x, x_moments), (y, y_moments) in zip(
        _KERNELS, source.once(_pyramid), fused.once(_pyramid), strict=True
    ):
        shared = covariance(x, y, x_moments, y_moments, kernel)
        variance, fused_variance = x_moments.variance.clamp_min(0), y_moments.variance.clamp_min(0)
        dull, lost = variance < flat, fused_variance < flat
        variance = variance.masked_fill(dull, 0.0)
        gain = (shared / (variance + 1e-10).masked_fill(dull, 1.0)).masked_fill(dull | lost, 0.0).clamp_min(0)
        # Where the gain is 0 the residual is the fused variance itself, unless that is flat.
        residual = (fused_variance - gain * shared).masked_fill(lost, 0.0).clamp_min(1e-10)
        kept = kept + torch.log1p(gain * gain * variance / (residual + _NOISE)).sum(dim=(1, 2, 3))
        whole = whole + torch.log1p(variance / _NOISE).sum(dim=(1, 2, 3))
    return kept, whole


@metric(minimum_side=41, cddfuse='the sum of both sources (printed there as "VIFF"); a flat source counts 1')
def vif(frame: Frame, convention: str) -> Result:
    """Visual information fidelity in the pixel domain, mean of both sources, 1 = the same, higher is better.

    Source: VIFp of Sheikh & Bovik 2006.
    """
    ratios: list[Tensor] = []
    flats: list[Tensor] = []
    for source in frame.sources:
        kept, whole = _information(source, frame.fused)
        flats.append(whole == 0)
        ratios.append(kept / guarded(whole, flats[-1]))
    if convention == "cddfuse":
        ratios = [ratio.masked_fill(flat, 1.0) for ratio, flat in zip(ratios, flats, strict=True)]
        return Result(ratios[0] + ratios[1])
    causes = ((flats[0], "the infrared image is flat"), (flats[1], "the visible image is flat"))
    return Result((ratios[0] + ratios[1]) / 2, causes)
