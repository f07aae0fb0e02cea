"""Feature mutual information: how much 3×3 patches of features tell of each other."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import guarded

_CHUNK = 4096  # windows at a time: their 9×9 joint distributions stay in the cache
_TANG = "for the visible image, equal patches are looked for after the fused patch was stretched to 0..1"


class _Patches(NamedTuple):
    """The 3×3 patches of a feature map, each read column by column; the last axis counts them.

    Attributes:
        raw: 9×N features.
        stretched: 9×N, each patch stretched to 0..1, ones where it is flat.
        flat: N, which are.
        pdf: 9×N, the stretched patch divided by its sum.
        cumulative: 9×N, its running sums.
        entropy: N, in bits.
        spread: N, the standard deviation of the index under the pdf.
    """

    raw: Tensor
    stretched: Tensor
    flat: Tensor
    pdf: Tensor
    cumulative: Tensor
    entropy: Tensor
    spread: Tensor


def _patches(image: Grey, feature: str) -> _Patches:
    maps = _FEATURES[feature](image.levels.detach())[:, 0]
    height, width = maps.shape[-2] - 2, maps.shape[-1] - 2
    raw = torch.stack([maps[:, y : y + height, x : x + width].flatten() for x in range(3) for y in range(3)])
    low, high = torch.aminmax(raw, dim=0)
    flat = low == high
    stretched = ((raw - low) / guarded(high - low, flat)).masked_fill(flat, 1.0)
    pdf = stretched / stretched.sum(dim=0)
    index = torch.arange(1.0, 10.0, dtype=raw.dtype, device=raw.device)[:, None]
    mean = (index * pdf).sum(dim=0)
    spread = ((index * index * pdf).sum(dim=0) - mean * mean).clamp_min(0).sqrt()
    # A distribution with all its weight on one index has no spread, and not the root of what rounding left.
    spread = spread.masked_fill((pdf > 0).sum(dim=0) == 1, 0.0)
    entropy = torch.special.entr(pdf).sum(dim=0) / math.log(2)
    return _Patches(raw, stretched, flat, pdf, pdf.cumsum(dim=0), entropy, spread)


def _joint_entropy(x: _Patches, f: _Patches, part: slice) -> Tensor:
    """Entropy in bits of the joint distribution between independence and the bound that the correlation points to."""
    fp, xp = f.pdf[:, part], x.pdf[:, part]
    fc, xc = f.cumulative[:, None, part], x.cumulative[None, :, part]
    product = ((fp - 1 / 9) * (xp - 1 / 9)).sum(dim=0)
    norm = (((fp - 1 / 9) ** 2).sum(dim=0) * ((xp - 1 / 9) ** 2).sum(dim=0)).sqrt()
    none = (product == 0) | (norm == 0)
    correlation = (product / guarded(norm, none)).masked_fill(none, 0.0)
    bound = torch.where(correlation >= 0, torch.minimum(fc, xc), (fc + xc - 1).clamp_min(0))
    # Hoeffding: the covariance of a joint distribution is the sum of its cumulative one minus that of independence.
    covariance = bound.sum(dim=(0, 1)) - f.cumulative[:, part].sum(dim=0) * x.cumulative[:, part].sum(dim=0)
    scale = f.spread[part] * x.spread[part]
    none = none | (scale == 0) | (covariance == 0)
    share = (correlation * scale / guarded(covariance, none)).masked_fill(none, 0.0)
    joint = bound.clone()
    joint[1:] -= bound[:-1]
    joint[:, 1:] -= bound[:, :-1]
    joint[1:, 1:] += bound[:-1, :-1]
    joint.mul_(share).addcmul_((1 - share) * fp[:, None], xp[None])
    surprise: Tensor = torch.special.xlogy(joint, joint.abs())
    return -surprise.sum(dim=(0, 1)) / math.log(2)


def _information(x: _Patches, f: _Patches, alike: Tensor) -> Tensor:
    """Normalised mutual information of every patch, N; 1 where they are alike."""
    values = torch.empty_like(x.entropy)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        both = x.entropy[part] + f.entropy[part]
        shared = both - _joint_entropy(x, f, part)
        none = shared == 0
        values[part] = 2 * (shared / guarded(both, none)).masked_fill(none, 0.0)
    return values.masked_fill(alike, 1.0)


def _fmi(frame: Frame, feature: str, convention: str) -> Result:
    infrared, visible, fused = (image.once(_patches, feature) for image in frame)
    equal = (infrared.raw == fused.raw).all(dim=0)
    compared = fused.raw if convention == "default" else torch.where(equal, fused.raw, fused.stretched)
    total = torch.zeros_like(fused.entropy)
    for source, same in ((infrared, equal), (visible, (visible.raw == compared).all(dim=0))):
        total += _information(source, fused, same | (source.flat & fused.flat))
    return Result(total.reshape(len(frame.fused.levels), -1).mean(dim=1) / 2)


def _pixels(levels: Tensor) -> Tensor:
    return levels


def _gradient(levels: Tensor) -> Tensor:
    """Derivative along the rows, central, one-sided at the borders."""
    (across,) = torch.gradient(levels, dim=-1)
    return across


def _dct_matrix(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix."""
    index = torch.arange(size, dtype=like.dtype, device=like.device)
    matrix = torch.cos(math.pi / size * (index + 0.5) * index[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _dct(levels: Tensor) -> Tensor:
    """Orthonormal DCT-II of the whole image."""
    height, width = levels.shape[-2:]
    mean = levels.mean(dim=(-2, -1), keepdim=True)  # taken out, so that flat images have no rounding noise
    coefficients = _dct_matrix(height, levels) @ (levels - mean) @ _dct_matrix(width, levels).T
    coefficients[..., :1, :1] += mean * math.sqrt(height * width)
    return coefficients


_FEATURES = {"pixel": _pixels, "gradient": _gradient, "dct": _dct}


@metric(minimum_side=3, tang=_TANG)
def fmi_pixel(frame: Frame, convention: str) -> Result:
    """Mutual information of 3×3 patches of the pixels, 0 to 1, higher is better (Haghighat et al. 2011)."""
    return _fmi(frame, "pixel", convention)


@metric(minimum_side=3, tang=_TANG)
def fmi_gradient(frame: Frame, convention: str) -> Result:
    """Mutual information of 3×3 patches of the derivative along rows, 0 to 1, higher is better (Haghighat 2011)."""
    return _fmi(frame, "gradient", convention)


@metric(minimum_side=3, tang=_TANG)
def fmi_dct(frame: Frame, convention: str) -> Result:
    """Mutual information of 3×3 patches of the cosine transform, 0 to 1, higher is better (Haghighat et al. 2014)."""
    return _fmi(frame, "dct", convention)
