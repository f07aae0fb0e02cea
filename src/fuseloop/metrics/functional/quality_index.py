"""Metrics built on the universal quality index: structural similarity with next to no stabilisation."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.structure import similarity
from fuseloop.metrics.functional.windows import (
    Kernel,
    covariance_with,
    gaussian,
    means,
    moments,
    negligible,
    safe_sqrt,
    uniform,
    window,
)


class _Definition(NamedTuple):
    """What a quality index is taken with.

    Attributes:
        kernel: One axis of the window, or its weights along rows and along columns.
        c1: Keeps dark windows stable.
        c2: Keeps flat windows stable.
    """

    kernel: tuple[Kernel, ...]
    c1: float
    c2: float


class _Statistics(NamedTuple):
    """Windowed statistics of a frame, B×1×H'×W' each."""

    infrared: Tensor
    visible: Tensor
    fused: Tensor
    infrared_variance: Tensor
    visible_variance: Tensor
    fused_variance: Tensor
    infrared_covariance: Tensor
    visible_covariance: Tensor
    sources_covariance: Tensor

    @classmethod
    def of(cls, frame: Frame, *kernel: Kernel) -> _Statistics:
        """Centred means, variances, covariances of the fused image with each source, and of both sources."""
        centres, variances = zip(*(image.once(moments, *kernel) for image in frame), strict=True)
        shared = [frame.fused.once(covariance_with, source, *kernel) for source in frame.sources]
        shared.append(frame.visible.once(covariance_with, frame.infrared, *kernel))
        return cls(*centres, *variances, *shared)

    def cleaned(self) -> _Statistics:
        """With the means as levels, and (co)variances that are rounding noise set to 0."""
        noise = negligible(self.fused)
        levels = [mean + 128.0 for mean in self[:3]]
        variances = [F.threshold(variance, noise, 0.0) for variance in self[3:6]]
        return _Statistics(*levels, *variances, *(F.hardshrink(shared, noise) for shared in self[6:]))

    def weighing(self, weight: float) -> _Statistics:
        """With the means as levels, under the same window times a weight: then E[x²]-E[x]² is no variance any more."""
        a, b, f = levels = [mean + 128.0 for mean in self[:3]]
        products = (a * a, b * b, f * f, a * f, b * f, a * b)
        surplus = weight * weight - weight
        spread = [weight * own - surplus * product for own, product in zip(self[3:], products, strict=True)]
        return _Statistics(*(weight * level for level in levels), *spread)

    def indices(self, c1: float, c2: float) -> tuple[Tensor, Tensor]:
        """Structural similarity of the fused image to the infrared and to the visible one."""
        infrared = similarity(
            self.infrared, self.fused, self.infrared_variance + self.fused_variance, self.infrared_covariance, c1, c2
        )
        visible = similarity(
            self.visible, self.fused, self.visible_variance + self.fused_variance, self.visible_covariance, c1, c2
        )
        return infrared[0] * infrared[1], visible[0] * visible[1]

    def likeness(self, c1: float, c2: float) -> Tensor:
        """Structural similarity of both sources."""
        variances = self.infrared_variance + self.visible_variance
        luminance, structure = similarity(self.infrared, self.visible, variances, self.sources_covariance, c1, c2)
        return luminance * structure


def _share(first: Tensor, second: Tensor) -> Tensor:
    """The part of the first in the sum of both, one half where both are 0."""
    guard = 1e-15  # far below what is not negligible
    return (first + guard) / (first + second + 2.0 * guard)


_PIELLA = _Definition((uniform(8),), (1e-6 * 255) ** 2, (1e-6 * 255) ** 2)
_WANG = _Definition((gaussian(11, 1.5),), (0.01 * 255) ** 2, (0.03 * 255) ** 2)


def _piella(fused: Grey, infrared: Grey, visible: Grey, definition: _Definition) -> tuple[Tensor, Tensor]:
    """Piella's quality, plain and weighted by the saliency of the windows, (B,) each."""

    def quality(*statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known = _Statistics(*statistics).cleaned()
        infrared, visible = known.indices(definition.c1, definition.c2)
        local = visible + _share(known.infrared_variance, known.visible_variance) * (infrared - visible)
        # Piella's evaluation puts one half where both sources are flat.
        salient = F.threshold(torch.maximum(known.infrared_variance, known.visible_variance), 0.0, 0.5)
        return local, salient * local, salient

    plain, weighted, weight = means(quality, *_Statistics.of(Frame(infrared, visible, fused), *definition.kernel))
    return plain, weighted / weight


def _qualities(frame: Frame, definition: _Definition = _PIELLA) -> tuple[Tensor, Tensor]:
    return frame.fused.once(_piella, frame.infrared, frame.visible, definition)


_GAUSSIAN = "11×11 Gaussian windows (σ 1.5), and the constants of SSIM"


@metric("yuliu", zheng=_GAUSSIAN, minimum_side={"default": 8, "zheng": 11})
def qs(frame: Frame, convention: str) -> Result:
    """Quality index with both sources, weighted by their local variances, -1 to 1, higher is better (Piella 2003).

    8×8 uniform windows inside the image.
    """
    return Result(_qualities(frame, _WANG if convention == "zheng" else _PIELLA)[0])


@metric("yuliu", zheng=_GAUSSIAN, minimum_side={"default": 8, "zheng": 11})
def qw(frame: Frame, convention: str) -> Result:
    """The index of `qs`, its windows weighted by their variance, -1 to 1, higher is better (Piella 2003)."""
    return Result(_qualities(frame, _WANG if convention == "zheng" else _PIELLA)[1])


def _outlined(image: Grey) -> Grey:
    """Strength of the edges, by Prewitt's kernels with zeros around the image."""
    padded = F.pad(image.levels, (1, 1, 1, 1))
    difference, same = (1.0, 0.0, -1.0), (1.0, 1.0, 1.0)
    across, down = window(padded, difference, same), window(padded, same, difference)
    return Grey(safe_sqrt(across * across + down * down), quantized=False)


@metric("yuliu", minimum_side=8)
def qe(frame: Frame, convention: str) -> Result:
    """The index of `qw` times that of the edge images, -1 to 1, higher is better (Piella 2003)."""
    outlines = Frame(*(image.once(_outlined) for image in frame))
    return Result(_qualities(frame)[1] * _qualities(outlines)[1])


_YANG = _Definition((gaussian(7, 1.5),), 2e-16, 2e-16)
# Seven equal rows of the one-dimensional Gaussian are seven times a window that weighs 1.
_EQUAL_ROWS = _Definition((gaussian(7, 1.5), uniform(7)), 1e-4, 9e-4)


def _surrounded(image: Grey) -> Grey:
    """The image with three zeros on each side."""
    return Grey(F.pad(image.levels, (3, 3, 3, 3)), quantized=image.quantized)


@metric(
    "zheng",
    "yuliu",
    ivif_zoo="windows of seven equal rows that weigh 7 in all, with zeros around the image; constants 1e-4 and 9e-4",
    minimum_side={"default": 7, "ivif_zoo": 1},
)
def qy(frame: Frame, convention: str) -> Result:
    """Likeness to both sources where they agree, to the nearer one elsewhere, -1 to 1, higher is better (Yang 2008).

    7×7 Gaussian windows (σ 1.5) inside the image; the sources agree where their own index is at least .75.
    """
    published = convention == "ivif_zoo"
    kernel, c1, c2 = _EQUAL_ROWS if published else _YANG
    if published:
        frame = Frame(*(image.once(_surrounded) for image in frame))

    def quality(*statistics: Tensor) -> tuple[Tensor]:
        known = _Statistics(*statistics)
        if published:
            known = known.weighing(7.0)
            share = known.infrared_variance / (known.infrared_variance + known.visible_variance + 1e-10)
        else:
            known = known.cleaned()
            share = _share(known.infrared_variance, known.visible_variance)
        alike = (known.likeness(c1, c2) >= 0.75).to(share.dtype)
        infrared, visible = known.indices(c1, c2)
        better = torch.maximum(infrared, visible)
        return (better + alike * (visible + share * (infrared - visible) - better),)

    return Result(means(quality, *_Statistics.of(frame, *kernel))[0])


def _mean(maps: Tensor, kernel: Kernel) -> Tensor:
    """`window` of separate products and sums, which every machine rounds alike."""
    for axis in (-1, -2):
        count = maps.shape[axis] - len(kernel) + 1
        maps = reduce(torch.add, (maps.narrow(axis, start, count) * weight for start, weight in enumerate(kernel)))
    return maps


def _unrelated(image: Grey, other: Grey) -> Tensor:
    """Where a covariance comes out as exactly 0: in black windows, and by luck of rounding in other flat ones."""
    x, y, (kernel,) = image.levels.detach(), other.levels.detach(), _YANG.kernel
    return _mean(x * y, kernel) == _mean(x, kernel) * _mean(y, kernel)


_CVEJIC = _Definition((uniform(8),), 2e-16, 2e-16)


@metric(
    "yuliu",
    zheng="7×7 Gaussian windows (σ 1.5); where the covariances differ in sign, 1 if the infrared one is the larger and "
    "0 if not; undefined when both are exactly 0 in a window",
    minimum_side={"default": 8, "zheng": 7},
)
def qc(frame: Frame, convention: str) -> Result:
    """Quality index with both sources, weighted by their covariances, -1 to 1, higher is better (Cvejic 2005).

    8×8 uniform windows inside the image; covariances are those of the fused image with each source.
    """
    published = convention == "zheng"
    kernel, c1, c2 = _YANG if published else _CVEJIC

    def quality(*statistics: Tensor) -> tuple[Tensor]:
        known = _Statistics(*statistics).cleaned()
        infrared, visible = known.indices(c1, c2)
        share = _share(known.infrared_covariance, known.visible_covariance)
        local = visible + share.clamp(0, 1) * (infrared - visible)
        if published:
            local = torch.where(share > 1, 1.0, torch.where(share < 0, 0.0, local))
        return (local,)

    (value,) = means(quality, *_Statistics.of(frame, *kernel))
    if published:
        unrelated = _unrelated(frame.fused, frame.infrared) & _unrelated(frame.fused, frame.visible)
        text = "in some window the fused image has nothing of either source"
        return Result(value, ((unrelated.flatten(1).any(dim=1), text),))
    return Result(value)
