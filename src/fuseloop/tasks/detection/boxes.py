"""Boxes: conversions, overlaps, and the suppression of boxes that say the same.

Boxes are ...×4 float tensors of corners (x1, y1, x2, y2) where nothing else is said. Overlaps broadcast, so that
`iou(a, b)` is of two equally long lists, and `iou(a[:, None], b)` of all pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
BLOCK = 512


def to_centres(corners: Tensor) -> Tensor:
    """(x1, y1, x2, y2) to (x, y, width, height) around the centre."""
    low, high = corners.chunk(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def to_corners(centres: Tensor) -> Tensor:
    """(x, y, width, height) around the centre to (x1, y1, x2, y2)."""
    middle, size = centres.chunk(2, dim=-1)
    return torch.cat([middle - size / 2, middle + size / 2], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Areas; a box whose corners are the wrong way round has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast, in [0, 1]; 0 where both are empty."""
    shared, union = _shared_and_union(a, b)
    return shared / union.clamp(min=EPSILON)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the enclosing box that neither covers, in [-1, 1] (GIoU, Rezatofighi et al. 2019)."""
    shared, union = _shared_and_union(a, b)
    enclosing = _enclosing(a, b).prod(dim=-1)
    return shared / union.clamp(min=EPSILON) - (enclosing - union) / enclosing.clamp(min=EPSILON)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less penalties for distant centres and other proportions, at most 1 (CIoU, Zheng et al. 2020).

    The weight of the proportions is taken as a constant in the gradient, as published.
    """
    overlap = iou(a, b)
    (middle_a, size_a), (middle_b, size_b) = (to_centres(boxes).chunk(2, dim=-1) for boxes in (a, b))
    distance = (middle_a - middle_b).square().sum(dim=-1)
    diagonal = _enclosing(a, b).square().sum(dim=-1)
    angle_a, angle_b = (torch.atan(size[..., 0] / size[..., 1].clamp(min=EPSILON)) for size in (size_a, size_b))
    proportions = (4 / math.pi**2) * (angle_a - angle_b).square()
    weight = (proportions / (1 - overlap + proportions + EPSILON)).detach()
    return overlap - distance / diagonal.clamp(min=EPSILON) - weight * proportions


def suppress(
    boxes: Tensor, scores: Tensor, classes: Tensor | None = None, *, threshold: float, limit: int | None = None
) -> Tensor:
    """Greedy non-maximum suppression: a box falls if a better one of its class that stays overlaps it too much.

    Candidates are taken in blocks, best first. In a block the greedy choice is the fixed point of "a box stays if no
    better one that stays overlaps it" (Cluster-NMS, Zheng et al. 2021), which is reached in a few steps over all boxes
    instead of one step for each.

    Args:
        boxes: N×4.
        scores: N; of equal scores the first comes first.
        classes: N; None suppresses across all.
        threshold: Boxes whose IoU is above this say the same.
        limit: How many boxes may stay, None for all.

    Returns:
        Indices of the boxes that stay, best first.
    """
    limit = len(boxes) if limit is None else limit
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in torch.split(order, BLOCK):
        if len(kept) >= limit:
            break
        block = block[~_same(boxes, classes, kept, block, threshold).any(dim=0)]
        beats = _same(boxes, classes, block, block, threshold).triu(diagonal=1)
        stays = torch.ones_like(block, dtype=torch.bool)
        while not torch.equal(survivors := ~(beats & stays[:, None]).any(dim=0), stays):
            stays = survivors
        kept = torch.cat([kept, block[stays]])
    return kept[:limit]


def _same(boxes: Tensor, classes: Tensor | None, first: Tensor, second: Tensor, threshold: float) -> Tensor:
    """Whether boxes overlap too much and have one class, for all pairs of two lists of indices."""
    same = iou(boxes[first][:, None], boxes[second]) > threshold
    return same if classes is None else same & (classes[first][:, None] == classes[second])


def _shared_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    return shared, area(a) + area(b) - shared


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """Width and height of the smallest boxes around both."""
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
