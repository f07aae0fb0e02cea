"""Metrics of phase congruency."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import gaussian, guarded, is_flat, window

_SCALES, _ORIENTATIONS = 4, 6
_EPS = 1e-4
_SEEN = 0.1  # phase congruency above which a pixel is a feature


class _Bank(NamedTuple):
    """Log-Gabor filters of one image size on the shifted spectrum.

    Attributes:
        radial: 4×H×W, one for each scale.
        angular: 6×H×W, one for each orientation.
    """

    radial: Tensor
    angular: Tensor


def _frequencies(size: int, divisor: int, like: Tensor) -> Tensor:
    return (torch.arange(size, dtype=like.dtype, device=like.device) - size // 2) / divisor


def _low_pass(radius: Tensor) -> Tensor:
    return 1 / (1 + (radius / 0.45) ** 30)


@lru_cache(maxsize=2)
def _bank(height: int, width: int, zheng: bool, dtype: torch.dtype, device: torch.device) -> _Bank:
    with torch.inference_mode(False):  # remembered, so it has to serve any mode
        like = torch.empty(0, dtype=dtype, device=device)
        y, x = (_frequencies(size, size - size % 2, like) for size in (height, width))
        radius = torch.fft.ifftshift(torch.hypot(y[:, None], x[None]))
        angle = torch.fft.ifftshift(torch.atan2(-y[:, None].expand(-1, width), x.expand(height, -1)))
        radius[0, 0] = 1
        if zheng:
            y, x = (_frequencies(size, size, like) for size in (height, width))
            smooth = torch.fft.fftshift(_low_pass(torch.hypot(y[:, None], x[None])))
        else:
            smooth = _low_pass(radius)
        radial = []
        for scale in range(_SCALES):
            band = torch.exp(-((radius * 3 * 2.1**scale).log() ** 2) / (2 * math.log(0.55) ** 2)) * smooth
            band[0, 0] = 0
            radial.append(band)
        angular = []
        for orientation in range(_ORIENTATIONS):
            turned = angle - orientation * math.pi / _ORIENTATIONS
            distance = torch.atan2(turned.sin(), turned.cos())
            angular.append(torch.exp(-(distance**2) / (2 * (math.pi / 6 / 1.2) ** 2)))
        return _Bank(torch.stack(radial), torch.stack(angular))


class _Congruency(NamedTuple):
    """What the phase of an image shows, B×1×H×W each.

    Attributes:
        phase: Phase congruency.
        maximum: The larger moment of its covariance, which is large at edges.
        minimum: The smaller one, which is large at corners.
    """

    phase: Tensor
    maximum: Tensor
    minimum: Tensor


def _congruency(image: Grey, zheng: bool) -> _Congruency:
    levels = image.levels.detach()
    bank = _bank(*levels.shape[-2:], zheng, levels.dtype, levels.device)
    # One image at a time: the responses of a single one fill the cache many times over.
    maps = [_congruency_of(one[0], bank) for one in levels]
    return _Congruency(*(torch.stack(parts)[:, None] for parts in zip(*maps, strict=True)))


def _congruency_of(levels: Tensor, bank: _Bank) -> tuple[Tensor, Tensor, Tensor]:
    """The three maps of one image, H×W."""
    spectrum = torch.fft.fft2(levels)
    zero = torch.zeros_like(levels)
    energies, strengths = zero.clone(), zero.clone()
    along_x, along_y, across = zero.clone(), zero.clone(), zero.clone()
    for orientation, angular in enumerate(bank.angular):
        responses = torch.fft.ifft2(spectrum * angular * bank.radial)
        amplitudes = responses.abs()
        amplitude = amplitudes.sum(dim=0)
        energy = _energy(responses, amplitudes[0], bank.radial * angular)
        share = amplitude / (amplitudes.amax(dim=0) + _EPS) / _SCALES
        weighted = torch.sigmoid(10 * (share - 0.5)) * energy
        energies += weighted
        strengths += amplitude
        none = amplitude == 0
        part = (weighted / guarded(amplitude, none)).masked_fill(none, 0.0)
        cosine, sine = math.cos(orientation * math.pi / 6), math.sin(orientation * math.pi / 6)
        square = part * part
        along_x += square * cosine**2
        along_y += square * sine**2
        across += square * (cosine * sine)
    a, b, c = along_x / 3, along_y / 3, across / 6
    d = torch.hypot(c, a - b) + _EPS
    return energies / (strengths + _EPS), (a + b + d) / 2, (a + b - d) / 2


def _energy(responses: Tensor, finest: Tensor, filters: Tensor) -> Tensor:
    """How well the phases of all scales agree, beyond what noise would do; complex 4×H×W to H×W."""
    even, odd = responses.real, responses.imag
    mean_even, mean_odd = even.sum(dim=0), odd.sum(dim=0)
    norm = torch.hypot(mean_even, mean_odd) + _EPS
    agreement = (even * mean_even + odd * mean_odd - (even * mean_odd - odd * mean_even).abs()).sum(dim=0) / norm
    return (agreement - _noise(finest, filters)).clamp_min(0)


def _noise(finest: Tensor, filters: Tensor) -> Tensor:
    """The energy that noise alone would reach, from the median response of the finest scale."""
    power = _median(finest) ** 2 / math.log(2) / (filters[0] ** 2).sum()
    # The sums over scales and pairs of scales of the specification are the square of the summed filters.
    spread = (torch.fft.ifft2(filters.sum(dim=0)).real ** 2).sum() * filters[0].numel()
    tau: Tensor = (power * spread).sqrt()
    return tau * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7


def _median(values: Tensor) -> Tensor:
    """The median of |r|², for an even number the mean of the two in the middle; given as the root of it."""
    ordered = values.flatten().sort().values
    middle = len(ordered) // 2
    square = ordered[middle] ** 2 if len(ordered) % 2 else (ordered[middle - 1] ** 2 + ordered[middle] ** 2) / 2
    return square.sqrt()


def _likeness(x: Tensor, fused: Tensor, mask: Tensor) -> Tensor:
    """Windowed correlation of a reference with the fused map where the mask is set, else 0."""
    x = x * mask
    kernel = gaussian(11, 1.5)
    maps = F.pad(torch.cat([x, fused, x * x, fused * fused, x * fused], dim=1), (5, 5, 5, 5))
    mean_x, mean_f, square_x, square_f, product = window(maps, kernel).chunk(5, dim=1)
    variances = (square_x - mean_x * mean_x) * (square_f - mean_f * mean_f)
    likeness: Tensor = (product - mean_x * mean_f + _EPS) / (variances.abs().sqrt() + _EPS)
    return likeness * mask


@metric("yuliu", zheng="its low-pass filter is shifted the wrong way for odd sizes")
def qp(frame: Frame, convention: str) -> Result:
    """Phase congruency and its moments, as kept from the sources, -1 to 1, higher is better (Zhao et al. 2007).

    Values below 0, where features run against each other, do not occur in images that make sense.
    """
    infrared, visible, fused = (image.once(_congruency, convention == "zheng") for image in frame)
    masks = [infrared.phase > _SEEN, visible.phase > _SEEN]
    stronger = infrared.phase > visible.phase
    mask = masks[0] | masks[1]
    area = mask.sum(dim=(1, 2, 3))
    none = area == 0
    value = torch.ones_like(area, dtype=fused.phase.dtype)
    for one, other, made in zip(infrared, visible, fused, strict=True):
        best = torch.maximum(_likeness(one, made, masks[0]), _likeness(other, made, masks[1]))
        best = torch.maximum(best, _likeness(torch.where(stronger, one, other), made, mask))
        value = value * best.sum(dim=(1, 2, 3)) / guarded(area, none)
    causes = ((is_flat(frame.fused.levels), "the fused image is flat"), (none, "neither source has a feature"))
    return Result(value, causes)
