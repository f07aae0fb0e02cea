"""Metrics of histograms: entropy, and what two images tell of each other.

They count whole levels and have no gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric

_BINS = 256


def _indices(image: Grey) -> Tensor:
    """Whole levels, B×HW, int64."""
    return torch.floor(image.levels.detach() + 0.5).flatten(1).long()


def _entropy_of(indices: Tensor, bins: int) -> Tensor:
    """Entropy of the distribution of the indices, B×N to (B,) in bits."""
    batch, count = indices.shape
    offsets = torch.arange(batch, device=indices.device)[:, None] * bins
    counts = torch.bincount((indices + offsets).flatten(), minlength=batch * bins).reshape(batch, bins)
    dtype = torch.float32 if indices.device.type == "mps" else torch.float64
    surprise: Tensor = torch.special.entr(counts.to(dtype) / count)
    return surprise.sum(dim=1) / math.log(2)


def _entropy(image: Grey) -> Tensor:
    return _entropy_of(image.once(_indices), _BINS)


def _mutual(x: Grey, y: Grey) -> Tensor:
    """Mutual information of two images, (B,) in bits."""
    joint = _entropy_of(x.once(_indices) * _BINS + y.once(_indices), _BINS**2)
    return x.once(_entropy) + y.once(_entropy) - joint


@metric("cddfuse")
def en(frame: Frame, convention: str) -> Result:
    """Entropy of the fused image in bits, 0 to 8, higher is better."""
    return Result(frame.fused.once(_entropy))


@metric(cddfuse="in nats")
def mi(frame: Frame, convention: str) -> Result:
    """Mutual information of the sources with the fused image, sum in bits, 0 to 16, higher is better (Qu 2002)."""
    bits = _mutual(frame.infrared, frame.fused) + _mutual(frame.visible, frame.fused)
    return Result(bits * math.log(2) if convention == "cddfuse" else bits)
