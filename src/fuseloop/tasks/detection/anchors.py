"""Anchors: box sizes that a detector starts from, how well they fit a data set, and which of them see a box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RATIO = 4.0
"""An anchor fits a box when neither side of it is more than this many times longer or shorter."""


class Fit(NamedTuple):
    """How well anchors fit the boxes of a data set.

    Attributes:
        closeness: Mean over the boxes of min(ratio, 1 / ratio) of their worse side to their best anchor, in [0, 1];
            boxes that no anchor fits count as 0.
        recall: Share of the boxes that some anchor fits.
    """

    closeness: float
    recall: float


def worse_ratio(sizes: Tensor, anchors: Tensor) -> Tensor:
    """How many times the worse of two sides is longer or shorter than that of an anchor, at least 1; N×A.

    Args:
        sizes: N×2 widths and heights.
        anchors: A×2.
    """
    ratio = sizes[:, None] / anchors
    return torch.maximum(ratio, 1 / ratio).amax(dim=-1)


def fit_of(anchors: Tensor, sizes: Tensor) -> Fit:
    """How well anchors, any shape ×2, fit box sizes N×2 in the same pixels; N at least 1."""
    best = worse_ratio(sizes, anchors.reshape(-1, 2)).amin(dim=1)
    fits = best < RATIO
    return Fit(float(torch.where(fits, 1 / best, 0).mean()), float(fits.float().mean()))


def cluster_sizes(sizes: Tensor, count: int, *, seed: int = 0, restarts: int = 10, rounds: int = 100) -> Tensor:
    """The sizes that stand for many: k-means on the logarithms, since what counts is the ratio of sides.

    Args:
        sizes: N×2 positive widths and heights in pixels of the network's input, N at least `count`.
        count: How many clusters.
        seed: Seed of the first centres, which are drawn far from each other (k-means++).
        restarts: The best of so many runs, by closeness, is returned.
        rounds: Steps of a run at most.

    Returns:
        count×2, from small to large area.

    Raises:
        ValueError: There are fewer sizes than clusters, or one is not positive.
    """
    if len(sizes) < count or not (sizes > 0).all():
        raise ValueError(f"anchors need at least {count} boxes of positive size, got {len(sizes)}")
    points = sizes.double().log()
    generator = torch.Generator().manual_seed(seed)
    runs = [_lloyd(points, _far_apart(points, count, generator), rounds).exp().to(sizes) for _ in range(restarts)]
    best = max(runs, key=lambda anchors: fit_of(anchors, sizes).closeness)
    return best[best.prod(dim=1).argsort()]


def _far_apart(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """First centres, each drawn with a chance that grows with the squared distance to those before it."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    while len(chosen) < count:
        distance = torch.cdist(points, points[chosen]).amin(dim=1).square()
        # Fewer different sizes than clusters leave nothing far away: then any will do.
        chances = distance if distance.any() else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(chances, 1, generator=generator)))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor, rounds: int) -> Tensor:
    """Moves every centre to the mean of the points nearest to it, until nothing moves."""
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=len(centres))[:, None]
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


class Assignment(NamedTuple):
    """Which anchors at which cells of one scale answer for which boxes; P of them.

    Attributes:
        box: Index of the box, P.
        anchor: Index of the anchor, P.
        row: Row of the cell, P.
        column: Column of the cell, P.
    """

    box: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


def assign(centres: Tensor, anchors: Tensor, stride: int, rows: int, columns: int) -> Assignment:
    """The cells and anchors of one scale that answer for boxes.

    A box belongs to every anchor that fits it, at the cell of its centre and at the two cells beside that which are
    nearest to the centre, one in each direction, where the grid has them.

    Args:
        centres: N×4 (x, y, width, height) in pixels of the input.
        anchors: A×2 in the same pixels.
        stride: Pixels from cell to cell.
        rows: Of the grid.
        columns: Of the grid.
    """
    box, anchor = (worse_ratio(centres[:, 2:], anchors) < RATIO).nonzero(as_tuple=True)
    place = centres[box, :2] / stride
    limit = place.new_tensor([columns, rows])
    cell = place.floor().clamp(min=0).minimum(limit - 1)
    beside = torch.where(place - cell < 0.5, -1, 1)
    steps = beside.new_tensor([[0, 0], [1, 0], [0, 1]])
    cells = cell.long() + steps[:, None] * beside  # 3×P×2: its own, beside in x, beside in y
    inside = ((cells >= 0) & (cells < limit)).all(dim=-1)
    which, pick = inside.nonzero(as_tuple=True)
    column, row = cells[which, pick].unbind(dim=-1)
    return Assignment(box[pick], anchor[pick], row, column)
