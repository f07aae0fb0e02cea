"""Metrics of transferred edges."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fuseloop.metrics.functional.frame import Frame, Grey, Result, metric
from fuseloop.metrics.functional.windows import gradient, guarded

_QUIRK = "where both gradients are exactly equal, their ratio is replaced by the gradient itself"
_RIGHT_ANGLE = math.pi / 2
_SMALL = 1e-5  # what Zheng's evaluation puts for zeros


class _Edges(NamedTuple):
    """Strength and angle of the edges, B×1×H×W."""

    strength: Tensor
    angle: Tensor


def _edges(image: Grey) -> _Edges:
    """The angle is in [-π/2, π/2), -π/2 where there is no horizontal derivative.

    Public code lets the vertical derivative count upwards and sets π/2; only differences of angles matter.
    """
    slope = image.once(gradient, "constant")
    # Whole levels have whole derivatives; below this bound the quotient's derivative would overflow in float32.
    vertical = slope.x.abs() < 1e-6
    angle = torch.atan(slope.y / slope.x.masked_fill(vertical, 1.0)).masked_fill(vertical, -_RIGHT_ANGLE)
    return _Edges(slope.magnitude, angle)


def _zheng_edges(image: Grey) -> _Edges:
    """Edges where a horizontal derivative of 0 counts 1e-5."""
    slope = image.once(gradient, "constant")
    return _Edges(slope.magnitude, torch.atan(-slope.y / slope.x.masked_fill(slope.x == 0, _SMALL)))


class _Preservation(NamedTuple):
    """How much of an edge's strength and angle survives: two sigmoids (Xydeas & Petrovic)."""

    strength_scale: float
    strength_slope: float
    strength_middle: float
    angle_scale: float
    angle_slope: float
    angle_middle: float

    def __call__(self, ratio: Tensor, alignment: Tensor) -> Tensor:
        strength = torch.sigmoid(self.strength_slope * (ratio - self.strength_middle))
        angle = torch.sigmoid(self.angle_slope * (alignment - self.angle_middle))
        return strength * angle * (self.strength_scale * self.angle_scale)


_XYDEAS = _Preservation(0.9994, 15, 0.5, 0.9879, 22, 0.8)
_ZHENG = _Preservation(1.0, 10, 0.5, 1.0, 20, 0.75)
_KUMAR = _Preservation(0.9999, 19, 0.5, 0.9995, 22, 0.5)


def _alignment(x: Tensor, y: Tensor) -> Tensor:
    """How alike two angles are: 1 where equal, -1 where a half turn apart."""
    return 1 - (x - y).abs() / _RIGHT_ANGLE


def _folded(x: Tensor, y: Tensor) -> Tensor:
    """How parallel two angles are, 0 to 1: those a half turn apart are parallel."""
    return ((x - y).abs() - _RIGHT_ANGLE).abs() / _RIGHT_ANGLE


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
        equal = source_strength == strength
        largest = guarded(torch.maximum(source_strength, strength), equal)
        alike = torch.ones_like(strength) if convention == "default" else strength
        ratio = torch.where(equal, alike, torch.minimum(source_strength, strength) / largest)
        kept.append((_XYDEAS(ratio, _alignment(source_angle, angle)) * source_strength).sum(dim=(1, 2, 3)))
        weight.append(source_strength.sum(dim=(1, 2, 3)))
    total = weight[0] + weight[1]
    black = total == 0
    return Result((kept[0] + kept[1]) / guarded(total, black), ((black, "neither source has an edge"),))


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
            preserved = _XYDEAS(ratio, _alignment(source_angle, angle))
        kept.append(preserved * source_strength)
        weight.append(source_strength)
    if convention == "zheng":
        return Result(((kept[0] + kept[1]) / (weight[0] + weight[1])).mean(dim=(1, 2, 3)))
    return Result((kept[0] + kept[1]).sum(dim=(1, 2, 3)) / (weight[0] + weight[1]).sum(dim=(1, 2, 3)))


def _mirrored_edges(image: Grey) -> _Edges:
    """Edges in levels, where the border is mirrored; the angle is against the vertical, 0 where there is no edge."""
    slope = image.once(gradient, "reflect")
    level = slope.y.abs() < 1e-6
    angle = torch.atan(slope.x / slope.y.masked_fill(level, 1.0))
    return _Edges(slope.magnitude / 8, torch.where(level, slope.x.sign() * _RIGHT_ANGLE, angle))


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
    strength, angle = frame.fused.once(_mirrored_edges)
    sources = [source.once(_mirrored_edges) for source in frame.sources]
    added = (strength > sources[0].strength) & (strength > sources[1].strength)
    noise: list[Tensor] = []
    weight: list[Tensor] = []
    for source in sources:
        ratio = (source.strength / guarded(strength, ~added)).masked_fill(~added, 0.0)
        preserved = _KUMAR(ratio, _folded(source.angle, angle)).sqrt()
        weak = source.strength < _STRONG
        own = (
            source.strength.masked_fill(weak, 1.0)
            .pow(1.5)
            .masked_fill(weak, 0.0 if convention == "ivif_zoo" else 0.001)
        )
        noise.append(((1 - preserved) * own).masked_fill(~added, 0.0).sum(dim=(1, 2, 3)))
        weight.append(own.sum(dim=(1, 2, 3)))
    total = weight[0] + weight[1]
    none = total == 0
    return Result((noise[0] + noise[1]) / guarded(total, none), ((none, "neither source has an edge of 2 levels"),))
