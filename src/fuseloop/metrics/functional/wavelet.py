"""Metrics of wavelet coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import guarded

_SHARES = (2 / 3, 1 / 3)  # exponents of the fine and the coarse scale


def _haar(levels: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform; an odd last row or column is dropped.

    Returns:
        The approximation, B×1×⌊H/2⌋×⌊W/2⌋, and the three bands of details, B×3×⌊H/2⌋×⌊W/2⌋.
    """
    height, width = (side // 2 * 2 for side in levels.shape[-2:])
    upper, lower = levels[..., 0:height:2, :width], levels[..., 1:height:2, :width]
    down, across = upper + lower, upper - lower
    left, right = slice(0, None, 2), slice(1, None, 2)
    bands = (down[..., left] - down[..., right], across[..., left] + across[..., right])
    diagonal = across[..., left] - across[..., right]
    return (down[..., left] + down[..., right]) / 2, torch.cat([*bands, diagonal], dim=1) / 2


def _details(image: Grey) -> tuple[Tensor, Tensor]:
    """Fine and coarse details."""
    coarse, fine_details = _haar(image.levels)
    return fine_details, _haar(coarse)[1]


@metric("zheng", minimum_side=4)
def qm(frame: Frame, convention: str) -> Result:
    """Agreement of the details in two scales of Haar wavelets, 0 to 3, higher is better (Wang & Liu 2008).

    Where a source has energy in its details, each of the fused image's three bands counts exp(-|difference|).
    """
    fused = frame.fused.once(_details)
    score = torch.ones_like(frame.fused.levels[:, 0, 0, 0])
    causes: list[tuple[Tensor, str]] = []
    for scale, share in enumerate(_SHARES):
        kept = torch.zeros_like(score)
        total = torch.zeros_like(score)
        for source in frame.sources:
            details = source.once(_details)[scale]
            energy = details.square().sum(dim=1)
            alike = torch.exp(-(details - fused[scale]).abs()).sum(dim=1)
            kept = kept + (alike * energy).sum(dim=(1, 2))
            total = total + energy.sum(dim=(1, 2))
        none = total == 0
        causes.append((none, "the sources have no details in one of the scales"))
        quality = kept / guarded(total, none)
        lost = quality == 0  # in float32 the exponential of a large difference is 0
        score = score * (guarded(quality, lost) ** share).masked_fill(lost, 0.0)
    return Result(score, tuple(causes))
