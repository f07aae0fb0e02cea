"""Metrics of histograms: entropy, and what images tell of each other.

They count whole levels and have no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.statistics import correlation
from fuseloop.metrics.functional.windows import flat_images, flat_unless_black, guarded

_BINS = 256
Labels = Callable[[Grey], Tensor]


def levels(image: Grey) -> Tensor:
    """Whole levels, B×HW, int32."""
    own = image.levels.detach().flatten(1)
    return (own if image.quantized else torch.floor(own + 0.5)).int()


def _saturated(image: Grey) -> Tensor:
    """Levels of which 255 fell into the bin of 254, as one more than uint8 255 stays 255."""
    return image.once(levels).clamp_max(_BINS - 2)


def _stretched(image: Grey) -> Tensor:
    """Levels stretched to 0..255, rounded half up; those of a flat image stay.

    Stretching gives every level a bin of its own, as before: only what confuses the axes of a joint histogram sees it.
    """
    own = image.once(levels)
    low, high = own.amin(dim=1, keepdim=True), own.amax(dim=1, keepdim=True)
    span = (high - low).clamp_min(1)
    return torch.where(high > low, (510 * (own - low) + span) // (2 * span), own)


def _shares(indices: Tensor, bins: int) -> Tensor:
    """How the indices B×N are distributed over the bins, B×bins."""
    batch, count = indices.shape
    if batch > 1:
        indices = indices + torch.arange(batch, device=indices.device)[:, None] * bins
    counts = torch.bincount(indices.flatten(), minlength=batch * bins).reshape(batch, bins)
    dtype = torch.float32 if indices.device.type == "mps" else torch.float64
    return counts.to(dtype) / count


def _single(image: Grey, labels: Labels = levels) -> Tensor:
    """Histogram, B×256."""
    return _shares(image.once(labels), _BINS)


def _joint(y: Grey, x: Grey, labels: Labels = levels) -> Tensor:
    """Joint histogram, B×256×256, `x` along the rows.

    Remembered by `y`, which is the fused image, so that sources do not keep what they were compared with.
    """
    return _shares(x.once(labels) * _BINS + y.once(labels), _BINS**2).reshape(-1, _BINS, _BINS)


def _bits(shares: Tensor) -> Tensor:
    """Entropy of distributions B×..., (B,) in bits."""
    surprise: Tensor = torch.special.entr(shares)
    return surprise.flatten(1).sum(dim=1) / math.log(2)


def _entropy(image: Grey) -> Tensor:
    return _bits(image.once(_single))


def _mutual(y: Grey, x: Grey, labels: Labels = levels) -> Tensor:
    """Mutual information of two images, (B,) in bits; the labels are those of the joint histogram alone."""
    return x.once(_entropy) + y.once(_entropy) - _bits(y.once(_joint, x, labels))


def _with_sources(frame: Frame, labels: Labels = levels) -> tuple[Tensor, Tensor]:
    """Mutual information of the fused image with the infrared and with the visible one."""
    fused = frame.fused
    return fused.once(_mutual, frame.infrared, labels), fused.once(_mutual, frame.visible, labels)


@metric("cddfuse", "tdfusion", "tang", "vifb", "yuliu", ivif_zoo="log2(p + 1e-7)")
def en(frame: Frame, convention: str) -> Result:
    """Entropy of the fused image in bits, 0 to 8, higher is better."""
    if convention == "ivif_zoo":
        return Result(_fuzzy_entropy(frame.fused))
    return Result(frame.fused.once(_entropy))


def _fuzzy_entropy(image: Grey) -> Tensor:
    shares = image.once(_single)
    return -(shares * torch.log2(shares + 1e-7)).sum(dim=1)


@metric(
    "ivif_zoo",
    cddfuse="in nats",
    vifb="in nats",
    tang="the joint histogram, not the single ones, has 254 and 255 in one bin",
)
def mi(frame: Frame, convention: str) -> Result:
    """Mutual information of the sources with the fused image, sum in bits, 0 to 16, higher is better (Qu 2002)."""
    first, second = _with_sources(frame, _saturated if convention == "tang" else levels)
    bits = first + second
    return Result(bits * math.log(2) if convention in ("cddfuse", "vifb") else bits)


@metric("zheng", "yuliu", ivif_zoo="2(I(A;F) + I(B;F)) / (H(A) + H(B))")
def nmi(frame: Frame, convention: str) -> Result:
    """Normalised mutual information of the sources with the fused image, 0 to 2, higher is better (Hossny 2008).

    2[I(A;F)/(H(A)+H(F)) + I(B;F)/(H(B)+H(F))].
    """
    first, second = _with_sources(frame)
    infrared, visible, fused = (image.once(_entropy) for image in frame)
    if convention == "ivif_zoo":
        none = infrared + visible == 0
        return Result(2 * (first + second) / guarded(infrared + visible, none), ((none, "both sources are flat"),))
    causes = (
        (infrared + fused == 0, "the infrared and the fused image are flat"),
        (visible + fused == 0, "the visible and the fused image are flat"),
    )
    first = first / guarded(infrared + fused, causes[0][0])
    return Result(2 * (first + second / guarded(visible + fused, causes[1][0])), causes)


@metric("vifb", ivif_zoo="meaningless: the binary cross-entropy of sigmoids of raw levels, nearly a constant")
def ce(frame: Frame, convention: str) -> Result:
    """Cross-entropy of the sources' histograms relative to the fused one in bits, mean of both, LOWER is better.

    Σ p log2(p / p_F) over the levels that both images have; so it can be slightly negative.
    """
    if convention == "ivif_zoo":
        return Result(_sigmoid_entropy(frame))
    fused = frame.fused.once(_single)
    sums: list[Tensor] = []
    for source in frame.sources:
        own = source.once(_single)
        both = (own > 0) & (fused > 0)
        sums.append((own * torch.log2(torch.where(both, own, 1.0) / torch.where(both, fused, 1.0))).sum(dim=1))
    return Result((sums[0] + sums[1]) / 2)


def _sigmoid_entropy(frame: Frame) -> Tensor:
    # In float32, where the sigmoid of most levels is 1: what is left is the clamp's rounding.
    infrared, visible, fused = (torch.sigmoid(image.levels.detach().float()) for image in frame)
    target, fused = ((infrared + visible) / 2).clamp(1e-7, 1 - 1e-7), fused.clamp(1e-7, 1 - 1e-7)
    entropy = target * fused.log() + (1 - target) * (1 - fused).log()
    return -entropy.to(frame.fused.levels.dtype).mean(dim=(1, 2, 3))


@metric(ivif_zoo="H(A) + H(B) - H(F) in bits", default=False)
def te(frame: Frame, convention: str) -> Result:
    """Entropy of the sources without that of the fused image, in bits; exists only as IVIF_ZOO has it."""
    infrared, visible, fused = (image.once(_entropy) for image in frame)
    return Result(infrared + visible - fused)


@metric(
    zheng="undefined where an image is flat, unless it is black",
    yuliu="undefined where an image is flat, unless it is black",
    ivif_zoo="Pearson's correlation instead of mutual information",
)
def qncie(frame: Frame, convention: str) -> Result:
    """Nonlinear correlation information entropy of the three images, .8019 to 1, higher is better (Wang et al. 2008).

    The correlation is the mutual information over 8 bits.
    """
    infrared, visible, fused = frame
    causes: tuple[tuple[Tensor, str], ...] = ()
    if convention == "ivif_zoo":
        related = [correlation(infrared, visible), correlation(infrared, fused), correlation(visible, fused)]
        causes = flat_images(frame)
    else:
        related = [bits / 8 for bits in (visible.once(_mutual, infrared), *_with_sources(frame))]
        if convention != "default":
            causes = flat_unless_black(frame)
    sources, first, second = (value.detach().cpu().double() for value in related)
    one = torch.ones_like(sources)
    matrix = torch.stack([one, sources, first, sources, one, second, first, second, one], dim=1).reshape(-1, 3, 3)
    shares = (torch.linalg.eigvalsh(matrix) / 3).clamp_min(0)
    return Result((1 - _bits(shares) / 8).to(related[0]), causes)


def _power(shares: Tensor, exponent: float) -> Tensor:
    """Power of the shares of levels that occur; 0 for the others."""
    return torch.where(shares > 0, shares, 1.0).pow(exponent) * (shares > 0)


def _tsallis(y: Grey, x: Grey, q: float, swapped: bool) -> Tensor:
    """Tsallis divergence of the joint histogram from the product of the single ones, (B,)."""
    labels = _stretched if swapped else levels
    rows, columns = _power(x.once(_single, labels), 1 - q), _power(y.once(_single, labels), 1 - q)
    if swapped:
        rows, columns = columns, rows
    joint = _power(y.once(_joint, x, labels), q)
    return (1 - torch.einsum("bi,bij,bj->b", rows, joint, columns)) / (1 - q)


_SWAPPED = "the single histograms of each pair are swapped; undefined where an image is flat, unless it is black"


@metric(zheng=_SWAPPED, yuliu=_SWAPPED)
def qte(frame: Frame, convention: str) -> Result:
    """Tsallis mutual information of the sources with the fused image, normalised; higher is better (Nava et al. 2007).

    [T(A,F) + T(B,F)] / (H(A)^q + H(B)^q + T(A,B)) with q = .43137 and Shannon's entropy H in bits.
    """
    q, swapped = 0.43137, convention != "default"
    infrared, visible, fused = frame
    shared = fused.once(_tsallis, infrared, q, swapped) + fused.once(_tsallis, visible, q, swapped)
    total = infrared.once(_entropy) ** q + visible.once(_entropy) ** q
    total = total + visible.once(_tsallis, infrared, q, swapped)
    none = total == 0
    causes = flat_unless_black(frame) if swapped else ()
    return Result(shared / guarded(total, none), (*causes, (none, "both sources are flat")))


@metric(zheng=f"T(A,F) + T(B,F), q = 1.85; {_SWAPPED}", yuliu=f"T(A,F) + T(B,F), q = 1.85; {_SWAPPED}", default=False)
def qte_cvejic(frame: Frame, convention: str) -> Result:
    """Tsallis mutual information of the sources with the fused image, higher is better (Cvejic et al. 2006).

    Exists only as Zheng's evaluation has it.
    """
    fused = frame.fused
    shared = [fused.once(_tsallis, source, 1.85, True) for source in frame.sources]
    return Result(shared[0] + shared[1], flat_unless_black(frame))
