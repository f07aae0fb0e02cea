"""Metrics of phase congruency: how far the frequencies of an image meet in phase, as they do at edges and corners."""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import Moments, centred_moments, flat, gaussian, guarded, window

_SCALES = 4
_ORIENTATIONS = 6
_SMALL = 1e-4
_FEATURE = 0.1  # congruency from which on there is a feature
_WINDOW = gaussian(11, 1.5)
_STRIP = 2**15  # pixels at a time: some twenty maps of them stay near the core


def _axis(size: int, span: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Frequencies of an axis, 0 in the middle."""
    return (torch.arange(size, dtype=dtype, device=device) - size // 2) / max(span, 1)


def _radius(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.hypot(rows[:, None], columns[None, :])


def _mirrored(spectrum: Tensor) -> Tensor:
    """The values at the negative frequencies of H×W."""
    return torch.roll(spectrum.flip(0, 1), (1, 1), (0, 1))


class _Filters(NamedTuple):
    """Log-Gabor filters over the half spectrum of `rfft2`.

    The response of a real image to a filter is complex. Its real part is what the even part of the filter makes of the
    image, its imaginary part comes from the odd part.

    Attributes:
        radial: 4×H×(W//2+1), one for each scale.
        even: 6×H×(W//2+1), one for each orientation.
        odd: The same.
        energy: Sum of the squares of the finest filter of each orientation, 6 numbers.
        noise: How white noise passes all scales of each orientation, 6 numbers.
    """

    radial: Tensor
    even: Tensor
    odd: Tensor
    energy: Tensor
    noise: Tensor


@lru_cache(maxsize=1)
def _filters(height: int, width: int, shifted: bool, dtype: torch.dtype, device: torch.device) -> _Filters:
    """The filters for a size; `shifted` has the low-pass filter of Zheng's evaluation, wrong for odd sizes."""
    with torch.inference_mode(False):  # remembered, so it has to serve outside of inference too
        rows, columns = (_axis(size, size - size % 2, dtype, device) for size in (height, width))
        radius = torch.fft.ifftshift(_radius(rows, columns))
        radius[0, 0] = 1.0
        low = radius
        if shifted:
            low = _radius(*(_axis(size, size, dtype, device) for size in (height, width)))
            low = torch.fft.fftshift(low)
        low = 1 / (1 + (low / 0.45) ** 30)
        radial = [
            torch.exp(-(torch.log(radius * 3 * 2.1**scale) ** 2) / (2 * math.log(0.55) ** 2)) for scale in range(4)
        ]
        for each in radial:
            each[0, 0] = 0.0
        sine = torch.fft.ifftshift(-rows[:, None].expand(-1, width))
        cosine = torch.fft.ifftshift(columns.expand(height, -1))
        parts: list[tuple[Tensor, Tensor]] = []
        energy: list[Tensor] = []
        noise: list[Tensor] = []
        for orientation in range(_ORIENTATIONS):
            angle = orientation * math.pi / _ORIENTATIONS
            s, c = math.sin(angle), math.cos(angle)
            deviation = torch.atan2(sine * c - cosine * s, cosine * c + sine * s)
            angular = low * torch.exp(-(deviation**2) / (2 * (math.pi / _ORIENTATIONS / 1.2) ** 2))
            opposite = _mirrored(angular)
            even, odd = (angular + opposite) / 2, (angular - opposite) / 2
            energy.append((radial[0] * angular).square().sum())
            noise.append((sum(radial) * even).square().sum())
            parts.append((even[:, : width // 2 + 1], odd[:, : width // 2 + 1]))
        return _Filters(
            torch.stack(radial)[..., : width // 2 + 1],
            torch.stack([even for even, _ in parts]),
            torch.stack([odd for _, odd in parts]),
            torch.stack(energy),
            torch.stack(noise),
        )


def _median(values: Tensor) -> float:
    return float(np.median(values.cpu().numpy()))


def _accumulate(sums: Tensor, even: list[Tensor], odd: list[Tensor], threshold: Tensor, angle: float) -> None:
    """Adds what one orientation gives to the sums 5×h×W: congruency, amplitude, and the second moments.

    Args:
        sums: Changed in place.
        even: The real part of the response at each scale, h×W; overwritten.
        odd: The imaginary part.
        threshold: Energy that noise has.
        angle: Of the orientation.
    """
    congruent, passed, across, along, mixed = sums
    amplitudes = [torch.addcmul(e * e, o, o).sqrt_() for e, o in zip(even, odd, strict=True)]
    total, largest = reduce(torch.add, amplitudes), reduce(torch.maximum, amplitudes)
    even_sum, odd_sum = reduce(torch.add, even), reduce(torch.add, odd)
    length = torch.addcmul(even_sum * even_sum, odd_sum, odd_sum)
    for e, o in zip(even, odd, strict=True):
        e.mul_(odd_sum).addcmul_(o, even_sum, value=-1).abs_()
    energy = ((length - reduce(torch.add, even)) / (length.sqrt() + _SMALL)).sub_(threshold).clamp_(min=0)
    energy *= torch.sigmoid(10 * (total / (largest + _SMALL) / _SCALES - 0.5))
    congruent += energy
    passed += total
    none = total == 0
    share = (energy / guarded(total, none)).masked_fill_(none, 0.0)
    share *= share
    across.add_(share, alpha=math.cos(angle) ** 2 / 3)
    along.add_(share, alpha=math.sin(angle) ** 2 / 3)
    mixed.add_(share, alpha=math.cos(angle) * math.sin(angle) / 6)


def _congruency_of(levels: Tensor, filters: _Filters) -> Tensor:
    """Phase congruency of H×W levels, with the largest and smallest moment over the orientations; 3×H×W."""
    height, width = levels.shape
    rows = max(1, _STRIP // width) if levels.device.type == "cpu" else height
    spectrum = torch.fft.rfft2(levels)
    spectra = [spectrum * radial for radial in filters.radial]
    turned = [each * -1j for each in spectra]
    sums = levels.new_zeros(5, height, width)
    for orientation in range(_ORIENTATIONS):
        even = [torch.fft.irfft2(each * filters.even[orientation], s=(height, width)) for each in spectra]
        odd = [torch.fft.irfft2(each * filters.odd[orientation], s=(height, width)) for each in turned]
        power = _median(torch.addcmul(even[0] * even[0], odd[0], odd[0])) / math.log(2) / filters.energy[orientation]
        noise = (power * filters.noise[orientation]).sqrt()
        threshold = noise * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7
        strips = zip(torch.split(sums, rows, dim=1), *(torch.split(each, rows) for each in (*even, *odd)), strict=True)
        for part, *responses in strips:
            _accumulate(
                part, responses[:_SCALES], responses[_SCALES:], threshold, orientation * math.pi / _ORIENTATIONS
            )
    congruent, passed, across, along, mixed = sums
    spread = (mixed * mixed + (across - along) ** 2).sqrt() + _SMALL
    return torch.stack([congruent / (passed + _SMALL), (across + along + spread) / 2, (across + along - spread) / 2])


def _congruency(image: Grey, shifted: bool) -> Tensor:
    """Phase congruency, largest and smallest moment, B×3×H×W."""
    levels = image.levels.detach()[:, 0]
    filters = _filters(levels.shape[-2], levels.shape[-1], shifted, levels.dtype, levels.device)
    return torch.stack([_congruency_of(each, filters) for each in levels])


def _around(maps: Tensor) -> Tensor:
    return F.pad(maps, (5, 5, 5, 5))


class _Maps(NamedTuple):
    """Maps with their moments, B×3×H×W, and where there are features, B×1×H×W."""

    maps: Tensor
    moments: Moments
    features: Tensor

    @classmethod
    def of(cls, maps: Tensor, features: Tensor) -> _Maps:
        return cls(maps, centred_moments(_around(maps), _WINDOW), features)


def _fused(image: Grey, shifted: bool) -> _Maps:
    maps = image.once(_congruency, shifted)
    return _Maps.of(maps, maps[:, :1] > _FEATURE)


def _source(image: Grey, shifted: bool) -> _Maps:
    """Unlike those of the fused image, the maps of a source are 0 where it has no feature."""
    maps = image.once(_congruency, shifted)
    features = maps[:, :1] > _FEATURE
    return _Maps.of(maps * features, features)


def _larger(x: _Maps, y: _Maps) -> _Maps:
    """Pixel by pixel the source with the larger congruency."""
    return _Maps.of(torch.where(x.maps[:, :1] > y.maps[:, :1], x.maps, y.maps), x.features | y.features)


def _related(reference: _Maps, fused: _Maps) -> Tensor:
    """Windowed correlation of the maps where the reference has features, B×3×H×W."""
    means = reference.moments.centred_mean * fused.moments.centred_mean
    covariance = window(_around(reference.maps * fused.maps), _WINDOW) - means
    spread = (reference.moments.variance * fused.moments.variance).abs().sqrt()
    return (covariance + _SMALL) / (spread + _SMALL) * reference.features


@metric("yuliu", zheng="the low-pass filter is shifted by one for odd sizes")
def qp(frame: Frame, convention: str) -> Result:
    """Agreement of the phase congruency and its moments, 0 to 1, higher is better (Zhao et al. 2007).

    Phase congruency as Kovesi computes it, with 4 scales and 6 orientations.
    """
    shifted = convention == "zheng"
    infrared, visible = (source.once(_source, shifted) for source in frame.sources)
    fused = frame.fused.once(_fused, shifted)
    strongest = _larger(infrared, visible)
    related = reduce(torch.maximum, [_related(reference, fused) for reference in (infrared, visible, strongest)])
    area = strongest.features.sum(dim=(1, 2, 3))
    none = area == 0
    shares = related.sum(dim=(2, 3)) / guarded(area, none)[:, None]
    causes = (
        (frame.fused.once(flat), "the fused image is flat"),
        (none, "neither source has a feature"),
    )
    return Result(shares.prod(dim=1), causes)
