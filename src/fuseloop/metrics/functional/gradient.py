"""Metrics of transferred edges."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import Gradient, guarded, sobel

_QUIRK = "where both gradients are exactly equal, their ratio is replaced by the gradient itself"
_RIGHT_ANGLE = math.pi / 2
_SMALL = 1e-5  # what Zheng's evaluation puts for zeros


class _Edges(NamedTuple):
    """Strength and angle of the edges, B×1×H×W."""

    strength: Tensor
    angle: Tensor


def _edges(image: Grey) -> _Edges:
    """The angle is in (-π/2, π/2], π/2 where there is no horizontal derivative.

    Public code lets the vertical derivative count upwards; only where an angle is set to π/2 that matters.
    """
    slope = sobel(image.levels)
    # Whole levels have whole derivatives; smaller ones would make the derivative of the angle overflow in float32.
    vertical = slope.x.abs() < 1e-6
    angle = torch.atan2(torch.where(vertical, 1.0, slope.y * -slope.x.sign()), slope.x.abs())
    return _Edges(slope.magnitude, angle)


def _zheng_edges(image: Grey) -> _Edges:
    """Edges where a horizontal derivative of 0 counts 1e-5."""
    slope = sobel(image.levels)
    return _Edges(slope.magnitude, torch.atan(-slope.y / slope.x.masked_fill(slope.x == 0, _SMALL)))


def _line(x: Tensor, slope: float, offset: float) -> Tensor:
    """slope·x + offset, in one pass over the memory."""
    return torch.add(x.new_tensor(offset), x, alpha=slope)


class _Preservation(NamedTuple):
    """How much of an edge's strength and angle survives: two sigmoids (Xydeas & Petrovic)."""

    scale: float
    strength_slope: float
    strength_middle: float
    angle_slope: float
    angle_middle: float

    def __call__(self, ratio: Tensor, alignment: Tensor) -> Tensor:
        """Without the scale."""
        strength = torch.sigmoid(_line(ratio, self.strength_slope, -self.strength_slope * self.strength_middle))
        return strength * torch.sigmoid(_line(alignment, self.angle_slope, -self.angle_slope * self.angle_middle))


_XYDEAS = _Preservation(0.9994 * 0.9879, 15, 0.5, 22, 0.8)
_ZHENG = _Preservation(1.0, 10, 0.5, 20, 0.75)
_KUMAR = _Preservation(0.9999 * 0.9995, 19, 0.5, 22, 0.5)


def _alignment(x: Tensor, y: Tensor) -> Tensor:
    """How alike two angles are: 1 where equal, -1 where a half turn apart."""
    return _line((x - y).abs(), -1 / _RIGHT_ANGLE, 1)


def _folded(x: Tensor, y: Tensor) -> Tensor:
    """How parallel two angles are, 0 to 1: those a half turn apart are parallel."""
    return _line((x - y).abs(), 1 / _RIGHT_ANGLE, -1).abs()


def _floored(strength: Tensor) -> Tensor:
    return strength.masked_fill(strength == 0, _SMALL)


@metric(
    cddfuse=_QUIRK,
    tdfusion=_QUIRK,
    tang=_QUIRK,
    ivif_zoo=_QUIRK,
    vifb=_QUIRK,
    zheng="zero derivatives and strengths count 1e-5; edges a half turn apart are alike; other constants; the mean of "
    "the pixels' ratios",
    yuliu="zero derivatives and strengths count 1e-5",
)
def qabf(frame: Frame, convention: str) -> Result:
    """Share of the sources' edges that the fused image kept, 0 to .97479, higher is better (Xydeas & Petrovic 2000)."""
    if convention in ("zheng", "yuliu"):
        return _zheng_qabf(frame, convention)
    strength, angle = frame.fused.once(_edges)
    kept: list[Tensor] = []
    weight: list[Tensor] = []
    for source in frame.sources:
        source_strength, source_angle = source.once(_edges)
        # The floor is below what whole levels have: without any edge the ratio is 0 instead of 1, and weighs nothing.
        ratio = torch.minimum(source_strength, strength) / torch.maximum(source_strength, strength).clamp_min(1e-6)
        if convention != "default":
            ratio = torch.where(source_strength == strength, strength, ratio)
        kept.append((_XYDEAS(ratio, _alignment(source_angle, angle)) * source_strength).sum(dim=(1, 2, 3)))
        weight.append(source_strength.sum(dim=(1, 2, 3)))
    total = weight[0] + weight[1]
    black = total == 0
    share = _XYDEAS.scale * (kept[0] + kept[1]) / guarded(total, black)
    return Result(share, ((black, "neither source has an edge"),))


def _zheng_qabf(frame: Frame, convention: str) -> Result:
    strength, angle = frame.fused.once(_zheng_edges)
    kept: list[Tensor] = []
    weight: list[Tensor] = []
    for source in frame.sources:
        source_strength, source_angle = source.once(_zheng_edges)
        lost = source_strength > strength
        source_strength = _floored(source_strength)
        # The floor of the fused image comes after the comparison, and stays for the second source.
        before, strength = strength, _floored(strength)
        ratio = torch.where(lost, before, source_strength) / torch.where(lost, source_strength, strength)
        if convention == "zheng":
            preserved = _ZHENG(ratio, _folded(source_angle, angle))
        else:
            preserved = _XYDEAS.scale * _XYDEAS(ratio, _alignment(source_angle, angle))
        kept.append(preserved * source_strength)
        weight.append(source_strength)
    if convention == "zheng":
        return Result(((kept[0] + kept[1]) / (weight[0] + weight[1])).mean(dim=(1, 2, 3)))
    return Result((kept[0] + kept[1]).sum(dim=(1, 2, 3)) / (weight[0] + weight[1]).sum(dim=(1, 2, 3)))


def _mirrored(image: Grey) -> Gradient:
    return sobel(image.levels, "reflect")


def _angle_from_vertical(x: Tensor, y: Tensor) -> Tensor:
    """Angle of a line in [-π/2, π/2], 0 where there is no gradient."""
    none = torch.maximum(x.abs(), y.abs()) < 1e-6
    return torch.atan2(torch.where(y < 0, -x, x), torch.where(none, 1.0, y.abs()))


_STRONG = 2.0  # levels


@metric(
    tang="the arguments are in the wrong order: what the visible and the fused image make of the infrared one",
    ivif_zoo="weak edges of the sources weigh 0 instead of .001",
    minimum_side=2,
)
def nabf(frame: Frame, convention: str) -> Result:
    """Share of edges in the fused image that no source has, 0 to 1, LOWER is better (Kumar 2013).

    Values of 1e-7 to 1e-4 are normal.
    """
    if convention == "tang":
        frame = Frame(infrared=frame.visible, visible=frame.fused, fused=frame.infrared)
    fused, *sources = (image.once(_mirrored) for image in (frame.fused, *frame.sources))
    added = (fused.magnitude > sources[0].magnitude) & (fused.magnitude > sources[1].magnitude)
    # Only the added edges are looked at, often few.
    places = added.flatten().nonzero()[:, 0]
    counts: list[int] = added.flatten(1).sum(dim=1).tolist()

    def there(maps: Tensor) -> Tensor:
        return maps.flatten().index_select(0, places)

    angle = _angle_from_vertical(there(fused.x), there(fused.y))
    noise: list[Tensor] = []
    weight: list[Tensor] = []
    for source in sources:
        strength = source.magnitude / 8
        weak = strength < _STRONG
        safe = torch.where(weak, 1.0, strength)
        own = torch.where(weak, 0.0 if convention == "ivif_zoo" else 0.001, safe * safe.sqrt())
        ratio = there(source.magnitude) / there(fused.magnitude)
        alignment = _folded(_angle_from_vertical(there(source.x), there(source.y)), angle)
        preserved = (_KUMAR.scale * _KUMAR(ratio, alignment)).sqrt()
        parts = torch.split((1 - preserved) * there(own), counts)
        noise.append(torch.stack([part.sum() for part in parts]))
        weight.append(own.sum(dim=(1, 2, 3)))
    total = weight[0] + weight[1]
    none = total == 0
    return Result((noise[0] + noise[1]) / guarded(total, none), ((none, "neither source has an edge of 2 levels"),))
