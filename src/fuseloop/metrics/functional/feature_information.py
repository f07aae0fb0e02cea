"""Feature mutual information: what 3×3 patches of features tell of each other."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import guarded

_SIDE = 3
_SIZE = _SIDE**2
_STRIP = 2048  # windows at a time; what is made of them stays near the core


def _log(shares: Tensor) -> Tensor:
    """Logarithm that is finite at 0, to be multiplied by the share."""
    return shares.clamp_min(torch.finfo(shares.dtype).tiny).log_()


class _Patches(NamedTuple):
    """Patches as distributions over their nine places; all 9×n or n.

    Attributes:
        raw: The features.
        shares: Each place's share of what is above the patch's minimum; 1/9 where it is flat.
        flat: Which patches are constant.
        entropy: In nats.
        deviation: Standard deviation of the place.
    """

    raw: Tensor
    shares: Tensor
    flat: Tensor
    entropy: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> _Patches:
        """All full windows of B×H×W features, each column by column."""
        height, width = (side - _SIDE + 1 for side in features.shape[-2:])
        raw = torch.stack(
            [
                features[:, down : down + height, right : right + width].flatten()
                for right in range(_SIDE)
                for down in range(_SIDE)
            ]
        )
        above = raw - raw.amin(dim=0)
        total = above.sum(dim=0)
        flat = total == 0
        shares = (above / guarded(total, flat)).masked_fill(flat, 1 / _SIZE)
        places = torch.arange(_SIZE, dtype=raw.dtype, device=raw.device)[:, None]
        centre = (shares * places).sum(dim=0)
        distances = places - centre
        deviation = (shares * distances * distances).sum(dim=0).sqrt()
        return cls(raw, shares, flat, -(shares * _log(shares)).sum(dim=0), deviation)

    def stretched(self) -> Tensor:
        """The features stretched to 0..1, ones where they are flat."""
        low, high = torch.aminmax(self.raw, dim=0)
        return ((self.raw - low) / guarded(high - low, self.flat)).masked_fill(self.flat, 1.0)


def _equal(x: Tensor, y: Tensor) -> Tensor:
    """Which of the patches are equal, 9×n to n."""
    return (x - y).abs_().amax(dim=0) == 0


def _correlation(x: _Patches, y: _Patches) -> Tensor:
    """Pearson's correlation of the shares, exactly 0 where their covariance is: whole levels are multiplied exactly."""
    a, b = x.raw - x.raw.amin(dim=0), y.raw - y.raw.amin(dim=0)

    def covariance(p: Tensor, q: Tensor) -> Tensor:
        return _SIZE * (p * q).sum(dim=0) - p.sum(dim=0) * q.sum(dim=0)

    flat = x.flat | y.flat
    spread = guarded(covariance(a, a) * covariance(b, b), flat).sqrt()
    correlation: Tensor = covariance(a, b) / spread
    return correlation.masked_fill(flat, 0.0)


def _information(x: _Patches, y: _Patches, memory: Tensor) -> Tensor:
    """Normalised mutual information, n values, of the joint distribution that has the correlation of the shares.

    It mixes the independent one with the one of the strongest dependence (Fréchet's bounds).

    Args:
        x: Patches.
        y: Patches.
        memory: 2×9×9×n to compute in: touching fresh memory takes longer than the arithmetic.
    """
    joint, other = memory
    correlation = _correlation(x, y)
    # Against the order of x the strongest negative dependence is the strongest positive one.
    p = torch.lerp(x.shares, x.shares.flip(0), (correlation < 0).to(correlation.dtype))
    q = y.shares
    upper_p, upper_q = p.cumsum(dim=0), q.cumsum(dim=0)
    torch.minimum(upper_p[:, None], upper_q[None], out=joint)
    covariance = joint.sum(dim=(0, 1)) - upper_p.sum(dim=0) * upper_q.sum(dim=0)
    certain = (x.deviation == 0) | (y.deviation == 0) | (covariance <= 0)
    strongest = guarded(covariance, certain) / guarded(x.deviation * y.deviation, certain)
    mixture = (correlation.abs() / strongest).masked_fill(certain, 0.0)

    joint.sub_(torch.maximum((upper_p - p)[:, None], (upper_q - q)[None], out=other)).clamp_(min=0)
    torch.mul(p[:, None], ((1 - mixture) * q)[None], out=other)
    torch.addcmul(other, joint, mixture, out=joint)
    # Parts of a mixture of more than 1 are negative.
    torch.abs(joint, out=other).clamp_(min=torch.finfo(other.dtype).tiny).log_()
    joint_entropy = -other.mul_(joint).sum(dim=(0, 1))
    total = x.entropy + y.entropy
    none = total == 0
    information: Tensor = 2 * (total - joint_entropy) / guarded(total, none)
    return information.masked_fill(none, 0.0)


def _score(frame: Frame, features: list[Tensor], convention: str) -> Result:
    """Mean over all windows and both sources, of features B×H×W of the three images."""
    batch, height, width = features[0].shape
    high, wide = height - _SIDE + 1, width - _SIDE + 1
    strip = _STRIP if features[0].device.type == "cpu" else 128 * _STRIP
    rows = min(high, max(1, strip // (batch * wide)))
    memory = features[0].new_empty(2, _SIZE, _SIZE, rows * batch * wide)
    total = features[0].new_zeros(batch)
    for top in range(0, high, rows):
        infrared, visible, fused = (_Patches.of(each[:, top : top + rows + _SIDE - 1]) for each in features)
        part = memory[..., : len(fused.flat)]
        seen = fused.raw
        if convention == "tang":
            seen = torch.where(_equal(infrared.raw, fused.raw), fused.raw, fused.stretched())
        for source, other in ((infrared, fused.raw), (visible, seen)):
            same = _equal(source.raw, other) | (source.flat & fused.flat)
            total += _information(source, fused, part).masked_fill(same, 1.0).reshape(batch, -1).sum(dim=1)
    return Result(total / (2 * high * wide))


def _pixels(image: Grey) -> Tensor:
    return image.levels.detach()[:, 0]


def _derivative(image: Grey) -> Tensor:
    """Derivative along the rows, central, one-sided at the border."""
    slopes: tuple[Tensor, ...] = torch.gradient(image.levels.detach()[:, 0], dim=-1)
    return slopes[0]


def _cosines(rows: Tensor) -> Tensor:
    """Orthonormal DCT-II of each row of an H×W map, transposed: W×H."""
    width = rows.shape[-1]
    # The transform of a real signal of the same length, its even places upwards and its odd ones downwards.
    spectrum = torch.fft.fft(torch.cat([rows[:, ::2], rows[:, 1::2].flip(-1)], dim=-1))
    angle = torch.arange(width, dtype=rows.dtype, device=rows.device) * (-math.pi / (2 * width))
    scaled: Tensor = (spectrum * torch.polar(torch.full_like(angle, math.sqrt(2 / width)), angle)).real
    scaled[:, 0] *= math.sqrt(0.5)
    return scaled.t()


def _frequencies(image: Grey) -> Tensor:
    """Orthonormal DCT-II of the image; what is only rounding noise is 0, B×H×W."""
    # One by one: transforms of a batch round otherwise.
    coefficients = torch.stack([_cosines(_cosines(levels)) for levels in image.levels.detach()[:, 0]])
    return coefficients.masked_fill(coefficients.abs() < 1e-8, 0.0)


_TANG = "the visible patch is compared with the fused one after its stretching, so some equal ones count 0"


@metric(tang=_TANG, minimum_side=_SIDE)
def fmi_pixel(frame: Frame, convention: str) -> Result:
    """Feature mutual information of the levels, 0 to 1, higher is better (Haghighat et al. 2011).

    Mean over all 3×3 patches and both sources.
    """
    return _score(frame, [image.once(_pixels) for image in frame], convention)


@metric(tang=_TANG, minimum_side=_SIDE)
def fmi_gradient(frame: Frame, convention: str) -> Result:
    """Feature mutual information of the derivatives along the rows, 0 to 1, higher is better (Haghighat et al. 2011).

    Mean over all 3×3 patches and both sources.
    """
    return _score(frame, [image.once(_derivative) for image in frame], convention)


@metric(tang=_TANG, minimum_side=_SIDE)
def fmi_dct(frame: Frame, convention: str) -> Result:
    """Feature mutual information of the cosine transforms, 0 to 1, higher is better (Haghighat et al. 2011).

    Mean over all 3×3 patches of coefficients and both sources.
    """
    return _score(frame, [image.once(_frequencies) for image in frame], convention)
