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
    flat,
    flat_images,
    flat_unless_black,
    guarded,
    means,
    sobel,
    window,
)

_BLOCK = 16
_UNDEFINED = "undefined where an image is flat, unless it is black"
Sensitivity = Callable[[Tensor], Tensor]


def _stretched(image: Grey, to_one: bool) -> Tensor:
    """Levels stretched to 0..255 and rounded when the image is quantised, or to 0..1; a flat image stays as it is."""
    low = image.levels.amin(dim=(1, 2, 3), keepdim=True)
    span = image.levels.amax(dim=(1, 2, 3), keepdim=True) - low
    is_flat = span == 0
    low, span = low.masked_fill(is_flat, 0.0), guarded(span, is_flat)
    if to_one:
        return (image.levels - low) / span
    # Halves have to be met exactly, to be rounded up.
    stretched = ((image.levels - low) * 255).div_(span.masked_fill(is_flat, 255.0))
    return stretched.add_(0.5).floor_() if image.quantized else stretched


def _one_by_one(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Transforms of a batch round otherwise than alone, and contrasts against a dark ground magnify that."""
    return function(batch) if len(batch) == 1 else torch.cat([function(one) for one in batch[:, None]])


def _transformed(image: Grey, to_one: bool) -> Tensor:
    """Spectrum of the stretched image, B×1×H×(W//2+1)."""
    return _one_by_one(torch.fft.rfft2, image.once(_stretched, to_one))


@lru_cache(maxsize=4)
def _response(sensitivity: Sensitivity, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A contrast sensitivity over the half spectrum of `rfft2`, H×(W//2+1)."""
    with torch.inference_mode(False):  # remembered, so it has to serve training too
        rows = torch.fft.fftfreq(height, 1 / height, dtype=dtype, device=device)
        columns = torch.fft.rfftfreq(width, 1 / width, dtype=dtype, device=device)
        return sensitivity(torch.hypot(rows[:, None], columns[None, :]))


def _perceived(spectra: Tensor, like: Tensor, sensitivity: Sensitivity) -> Tensor:
    """What is seen of transformed images through a contrast sensitivity, B×1×H×W."""
    height, width = like.shape[-2:]
    response = _response(sensitivity, height, width, like.dtype, like.device)
    return _one_by_one(lambda one: torch.fft.irfft2(one * response, s=(height, width)), spectra)


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
    seen = _perceived(image.once(_transformed, zoo), image.levels, _chen_blum_halved if zoo else _chen_blum)
    padded = F.pad(seen, (15, 15, 15, 15))
    fine, coarse = window(padded, _blur(2.0)), window(padded, _blur(4.0))
    if zoo:
        coarse = coarse + 1e-10
    empty = coarse == 0
    contrast = (fine / guarded(coarse, empty)).sub_(1).abs_().masked_fill_(empty, 0.0)
    square = contrast * contrast
    return contrast * (square / (square + 1e-4))


@metric(
    "vifb",
    ivif_zoo="stretched to 0..1 without rounding; half the frequencies; 1e-10 is added to "
    "denominators; undefined where an image is flat",
    zheng=_UNDEFINED,
    yuliu=_UNDEFINED,
)
def qcb(frame: Frame, convention: str) -> Result:
    """Local contrast preserved as people see it, 0 to 1, higher is better (Chen & Blum 2009)."""
    zoo = convention == "ivif_zoo"
    surplus = 1e-10 if zoo else 0.0

    def quality(infrared: Tensor, visible: Tensor, fused: Tensor) -> tuple[Tensor]:
        # Without any contrast both ratios are 1, and the weights are equal.
        tiny = torch.finfo(fused.dtype).tiny
        preserved = [
            (torch.minimum(source, fused) + tiny) / (torch.maximum(source, fused) + tiny)
            for source in (infrared, visible)
        ]
        weights = infrared * infrared + tiny, visible * visible + tiny
        return ((weights[0] * preserved[0] + weights[1] * preserved[1]) / (weights[0] + weights[1] + surplus),)

    (value,) = means(quality, *(image.once(_contrast, zoo) for image in frame))
    if zoo:
        return Result(value, flat_images(frame))
    return Result(value, flat_unless_black(frame) if convention in ("zheng", "yuliu") else ())


def _block_sums(maps: Tensor) -> Tensor:
    """Sums over 16×16 blocks, the ragged last ones filled with zeros; B×1×H×W to B×1×⌈H/16⌉×⌈W/16⌉."""
    height, width = maps.shape[-2:]
    if height % _BLOCK or width % _BLOCK:
        maps = F.pad(maps, (0, -width % _BLOCK, 0, -height % _BLOCK))
    rows = maps.reshape(*maps.shape[:-2], -1, _BLOCK, maps.shape[-1]).sum(dim=-2)
    return rows.reshape(*rows.shape[:-1], -1, _BLOCK).sum(dim=-1)


def _saliency(image: Grey) -> Tensor:
    """How much each block of a source counts: the sum of its gradients to the fifth power."""
    slope = sobel(image.once(_stretched, False))
    square = torch.addcmul(slope.x * slope.x, slope.y, slope.y)
    return _block_sums(square * square * slope.magnitude)


@metric("vifb", zheng=_UNDEFINED, yuliu=_UNDEFINED)
def qcv(frame: Frame, convention: str) -> Result:
    """Perceived squared error, weighted by the edges of 16×16 blocks, ≥ 0, LOWER is better (Chen & Varshney 2007)."""
    spectrum = frame.fused.once(_transformed, False)
    saliency, error = [], []
    for source in frame.sources:
        saliency.append(source.once(_saliency))
        difference = source.once(_transformed, False) - spectrum
        seen = _perceived(difference, source.levels, _mannos_sakrison)
        error.append(_block_sums(seen * seen) / _BLOCK**2)
    weighted = (saliency[0] * error[0] + saliency[1] * error[1]).sum(dim=(1, 2, 3))
    total = (saliency[0] + saliency[1]).sum(dim=(1, 2, 3))
    all_flat = torch.stack([image.once(flat) for image in frame]).all(dim=0)
    black = total == 0
    divided = flat_unless_black(frame) if convention in ("zheng", "yuliu") else ()
    causes = (*divided, (all_flat, "all three images are flat"), (black, "neither source has an edge"))
    return Result(weighted / guarded(total, black), causes)
