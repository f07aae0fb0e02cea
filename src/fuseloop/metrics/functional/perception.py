"""Metrics of human contrast perception."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import (
    Kernel,
    flat_images,
    flat_unless_black,
    guarded,
    is_flat,
    sobel,
    window,
)

_BLOCK = 16
Sensitivity = Callable[[Tensor], Tensor]
Stretch = Callable[[Grey], Tensor]


def _stretched(image: Grey) -> Tensor:
    """Levels stretched to 0..255, rounded when the image is quantised; a flat image stays as it is."""
    low = image.levels.amin(dim=(1, 2, 3), keepdim=True)
    span = image.levels.amax(dim=(1, 2, 3), keepdim=True) - low
    flat = span == 0
    stretched = 255 * (image.levels - low) / guarded(span, flat)
    if image.quantized:
        stretched = torch.floor(stretched + 0.5)
    return torch.where(flat, image.levels, stretched)


@lru_cache(maxsize=16)
def _spectrum(sensitivity: Sensitivity, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A contrast sensitivity over the half spectrum of `rfft2`, H×(W//2+1)."""
    with torch.inference_mode(False):  # remembered, so it has to serve training too
        rows = torch.fft.fftfreq(height, 1 / height, dtype=dtype, device=device)
        columns = torch.fft.rfftfreq(width, 1 / width, dtype=dtype, device=device)
        return sensitivity(torch.hypot(rows[:, None], columns[None, :]))


def _to_unit(image: Grey) -> Tensor:
    """Levels stretched to 0..1, not rounded; flat images become 0."""
    low = image.levels.amin(dim=(1, 2, 3), keepdim=True)
    span = image.levels.amax(dim=(1, 2, 3), keepdim=True) - low
    return (image.levels - low) / guarded(span, span == 0)


def _perceived(image: Grey, sensitivity: Sensitivity, stretch: Stretch = _stretched) -> Tensor:
    """The stretched image as seen through a contrast sensitivity, B×1×H×W."""
    stretched = image.once(stretch)
    height, width = stretched.shape[-2:]
    spectrum = _spectrum(sensitivity, height, width, stretched.dtype, stretched.device)
    # One by one: transforms of a batch round otherwise, and contrasts against a dark ground magnify that.
    return torch.cat(
        [torch.fft.irfft2(torch.fft.rfft2(one) * spectrum, s=(height, width)) for one in stretched[:, None]]
    )


def _mannos_sakrison(k: Tensor) -> Tensor:
    # .144 is what all public code uses; the paper's constant is usually given as .114.
    f = 0.144 * k / 4
    return 2.6 * (0.0192 + f) * torch.exp(-(f**1.1))


def _chen_blum(k: Tensor) -> Tensor:
    return torch.exp(-((k / 15 / 15.387) ** 2)) - 0.7622 * torch.exp(-((k / 15 / 1.3456) ** 2))


def _chen_blum_halved(k: Tensor) -> Tensor:
    return _chen_blum(k / 2)


@lru_cache
def _blur(sigma: float) -> Kernel:
    """One axis of a 31×31 Gaussian that is normalised over the whole plane, not over the window."""
    return tuple(math.exp(-((i - 15) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma) for i in range(31))


def _contrast(image: Grey, zoo: bool) -> Tensor:
    """Masked local contrast, B×1×H×W, ≥ 0."""
    seen = image.once(_perceived, _chen_blum_halved, _to_unit) if zoo else image.once(_perceived, _chen_blum)
    padded = F.pad(seen, (15, 15, 15, 15))
    fine, coarse = window(padded, _blur(2.0)), window(padded, _blur(4.0))
    if zoo:
        coarse = coarse + _ZOO
    empty = coarse == 0
    contrast = (fine / guarded(coarse, empty) - 1).abs().masked_fill(empty, 0.0)
    square = contrast * contrast
    return contrast * (square / (square + 1e-4))


_ZOO = 1e-10  # what IVIF_ZOO adds to denominators
_FLAT = "a flat image that is not black makes it undefined"


@metric(
    "vifb",
    ivif_zoo="images stretched to 0..1 without rounding, frequencies halved, 1e-10 added to denominators",
    zheng=_FLAT,
    yuliu=_FLAT,
)
def qcb(frame: Frame, convention: str) -> Result:
    """Local contrast preserved as people see it, 0 to 1, higher is better (Chen & Blum 2009)."""
    zoo = convention == "ivif_zoo"
    fused = frame.fused.once(_contrast, zoo)
    preserved: list[Tensor] = []
    weight: list[Tensor] = []
    for source in frame.sources:
        contrast = source.once(_contrast, zoo)
        largest = torch.maximum(contrast, fused)
        none = largest == 0
        preserved.append((torch.minimum(contrast, fused) / guarded(largest, none)).masked_fill(none, 1.0))
        weight.append(contrast * contrast)
    total = weight[0] + weight[1]
    if zoo:
        shares = [each / (total + _ZOO) for each in weight]
        value = (shares[0] * preserved[0] + shares[1] * preserved[1]).mean(dim=(1, 2, 3))
        return Result(value, flat_images(frame))
    none = total == 0
    share = (weight[0] / guarded(total, none)).masked_fill(none, 0.5)
    value = (share * preserved[0] + (1 - share) * preserved[1]).mean(dim=(1, 2, 3))
    return Result(value, flat_unless_black(frame) if convention in ("zheng", "yuliu") else ())


def _block_sums(maps: Tensor) -> Tensor:
    """Sums over 16×16 blocks, the ragged last ones filled with zeros; B×1×H×W to B×1×⌈H/16⌉×⌈W/16⌉."""
    height, width = maps.shape[-2:]
    return _BLOCK**2 * F.avg_pool2d(F.pad(maps, (0, -width % _BLOCK, 0, -height % _BLOCK)), _BLOCK)


def _saliency(image: Grey) -> Tensor:
    """How much each block of a source counts: the sum of its gradients to the fifth power."""
    return _block_sums(sobel(image.once(_stretched)).magnitude ** 5)


@metric("vifb", zheng=_FLAT, yuliu=_FLAT)
def qcv(frame: Frame, convention: str) -> Result:
    """Perceived squared error, weighted by the edges of 16×16 blocks, ≥ 0, LOWER is better (Chen & Varshney 2007)."""
    seen = frame.fused.once(_perceived, _mannos_sakrison)
    saliency, error = [], []
    for source in frame.sources:
        saliency.append(source.once(_saliency))
        error.append(_block_sums((source.once(_perceived, _mannos_sakrison) - seen) ** 2) / _BLOCK**2)
    weighted = (saliency[0] * error[0] + saliency[1] * error[1]).sum(dim=(1, 2, 3))
    total = (saliency[0] + saliency[1]).sum(dim=(1, 2, 3))
    flat = torch.stack([is_flat(image.levels) for image in frame]).all(dim=0)
    black = total == 0
    stretching = flat_unless_black(frame) if convention in ("zheng", "yuliu") else ()
    causes = (*stretching, (flat, "all three images are flat"), (black, "neither source has an edge"))
    return Result(weighted / guarded(total, black), causes)
