"""The losses of detectors that say a set of boxes: each object is matched with the query that says it best.

Of every layer of a decoder the queries are matched one to one with the objects of their image (DETR, Carion et al.
2020, arXiv 2005.12872). The cells of an encoder are taught one to many: each object to the cells that suit it best
(TOOD, Feng et al. 2021, arXiv 2108.07755). The loss of each image is normalised by its own objects.

Boxes are (x, y, width, height) around the centre as shares of the input, so in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.errors import LabelError
from fuseloop.tasks.detection.boxes import generalised_iou, iou, to_centres, to_corners
from fuseloop.tasks.protocol import Target, View, labels

ALPHA, GAMMA = 0.75, 2.0
"""How much the scores of what is no object count, and how much less if they are low already."""

WORST = 1e6
"""The cost of a match that cannot be computed, as with weights that have diverged: the loss tells, not the matching."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of a loss or of the costs of a match.

    Attributes:
        classification: Of the classes.
        distance: Of the sum of the differences of the four numbers of a box.
        overlap: Of 1 - GIoU.
    """

    classification: float = 1.0
    distance: float = 5.0
    overlap: float = 2.0


@dataclass(frozen=True)
class Truth:
    """The objects of a batch, filled up to the largest number M of an image.

    Attributes:
        boxes: B×M×4.
        classes: B×M.
        counts: How many of an image are objects, the first ones.
    """

    boxes: Tensor
    classes: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, targets: Sequence[Target], view: View, class_count: int, device: torch.device) -> Truth:
        """The objects in the targets.

        Raises:
            LabelError: An image has no boxes in its target, or a class id that the network does not know.
        """
        boxes, classes = labels(targets, "boxes"), labels(targets, "classes")
        counts = tuple(map(len, boxes))
        room = max([1, *counts])
        size = torch.tensor([view.input_width, view.input_height] * 2)
        all_boxes, all_classes = torch.full((len(counts), room, 4), 0.5), torch.zeros(len(counts), room).long()
        for index, (of_image, names) in enumerate(zip(boxes, classes, strict=True)):
            if len(names) and not 0 <= int(names.min()) <= int(names.max()) < class_count:
                raise LabelError(
                    f"class ids of {class_count} classes begin at 0, image {index} of the batch got "
                    f"{sorted({*names.tolist()})}"
                )
            corners = view.boxes_to_input(of_image.float().reshape(-1, 4)).cpu()
            all_boxes[index, : len(corners)] = to_centres(corners / size)
            all_classes[index, : len(names)] = names.cpu()
        return cls(all_boxes.to(device), all_classes.to(device), counts)

    @property
    def real(self) -> Tensor:
        """Which are objects, B×M."""
        room = torch.arange(self.boxes.shape[1], device=self.boxes.device)
        return room < self.boxes.new_tensor(self.counts)[:, None]

    @property
    def share(self) -> Tensor:
        """One over the number of the objects of each image, 1 where there are none, (B,)."""
        return 1 / self.boxes.new_tensor(self.counts).clamp(min=1)


def match(costs: Tensor, counts: Sequence[int]) -> Tensor:
    """The cheapest one-to-one matches of queries with objects (Hungarian method), with one copy to the host for all.

    Args:
        costs: L×B×Q×M, of each layer, image, query and object.
        counts: How many objects each image has, the first ones.

    Returns:
        L×B×Q int64: which object a query is matched with, -1 for none. Of more objects than queries some have none.
    """
    # Imported where it is used: `import fuseloop` is to be quick.
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    on_host = np.nan_to_num(costs.detach().float().cpu().numpy(), nan=WORST, posinf=WORST, neginf=-WORST)
    matches = np.full(on_host.shape[:3], -1)
    for layer, of_layer in enumerate(on_host):
        for image, count in enumerate(counts):
            queries, objects = linear_sum_assignment(of_layer[image, :, :count])
            matches[layer, image, queries] = objects
    return torch.from_numpy(matches).to(costs.device)


def pair_costs(boxes: Tensor, truth: Truth, class_costs: Tensor, weights: Weights) -> Tensor:
    """The costs L×B×Q×M of every match.

    Args:
        boxes: L×B×Q×4.
        truth: The objects.
        class_costs: L×B×Q×C, the cost of saying each class.
        weights: Of the costs.
    """
    of_class = class_costs.gather(3, truth.classes[:, None].expand(*boxes.shape[:3], -1))
    distance = (boxes[..., None, :] - truth.boxes[:, None]).abs().sum(dim=-1)
    overlap = generalised_iou(to_corners(boxes)[..., None, :], to_corners(truth.boxes)[:, None])
    return weights.classification * of_class + weights.distance * distance - weights.overlap * overlap


def box_losses(boxes: Tensor, wanted: Tensor, weights: Weights) -> Tensor:
    """The loss of each of ...×4 boxes, (...)."""
    distance = (boxes - wanted).abs().sum(dim=-1)
    overlap = generalised_iou(to_corners(boxes), to_corners(wanted))
    return weights.distance * distance + weights.overlap * (1 - overlap)


def softmax_set_loss(
    logits: Tensor, boxes: Tensor, truth: Truth, *, costs: Weights, weights: Weights, no_object: float
) -> Tensor:
    """The loss of DETR for each image, (B,), the sum over the layers.

    Args:
        logits: L×B×Q×(C+1); the last class is "no object".
        boxes: L×B×Q×4.
        truth: The objects.
        costs: Of the matches.
        weights: Of the loss.
        no_object: Weight of the class "no object" in the mean over the queries.
    """
    matches = match(pair_costs(boxes, truth, -logits.softmax(dim=-1)[..., :-1], costs).detach(), truth.counts)
    found, wanted, names = _matched(matches, truth)
    nothing = logits.shape[-1] - 1
    names = torch.where(found, names, nothing)
    cross_entropy = F.cross_entropy(logits.flatten(0, 2), names.flatten(), reduction="none").view_as(names)
    importance = torch.where(found, 1.0, no_object)
    classification = (importance * cross_entropy).sum(dim=-1) / importance.sum(dim=-1)
    of_boxes = (box_losses(boxes, wanted, weights) * found).sum(dim=-1) * truth.share
    return (weights.classification * classification + of_boxes).sum(dim=0)


def focal_set_loss(logits: Tensor, boxes: Tensor, truth: Truth, *, costs: Weights, weights: Weights) -> Tensor:
    """The loss of RT-DETR for each image, (B,), the sum over the layers.

    A matched query is to say its class with the IoU of its box as score (varifocal loss, Zhang et al. 2021,
    arXiv 2008.13367); the cost of a class is that of the focal loss.

    Args:
        logits: L×B×Q×C.
        boxes: L×B×Q×4.
        truth: The objects.
        costs: Of the matches.
        weights: Of the loss.
    """
    said = logits.detach().sigmoid()
    yes = 0.25 * (1 - said) ** GAMMA * -(said + 1e-8).log()
    no = 0.75 * said**GAMMA * -(1 - said + 1e-8).log()
    matches = match(pair_costs(boxes.detach(), truth, yes - no, costs), truth.counts)
    found, wanted, names = _matched(matches, truth)
    overlap = iou(to_corners(boxes.detach()), to_corners(wanted)) * found
    quality = torch.zeros_like(logits).scatter(3, names[..., None], overlap[..., None])
    is_object = torch.zeros_like(logits).scatter(3, names[..., None], found[..., None].to(logits.dtype))
    classification = _varifocal(logits, quality, is_object).sum(dim=(2, 3))
    of_boxes = (box_losses(boxes, wanted, weights) * found).sum(dim=-1)
    return ((weights.classification * classification + of_boxes) * truth.share).sum(dim=0)


def cell_loss(
    logits: Tensor, boxes: Tensor, cells: Tensor, reach: Tensor, truth: Truth, *, weights: Weights, cells_each: int = 10
) -> Tensor:
    """The loss of what every cell of an encoder says, (B,): each object is taught to the cells that suit it best.

    Those are the cells in its box, or within reach of its centre, with the highest score · IoU⁶; their score is to be
    that product, scaled so that its maximum over the cells of an object is the highest IoU among them. A cell that
    suits several objects answers for the one that it overlaps most. Means are taken over the wanted scores.

    Args:
        logits: B×A×C.
        boxes: B×A×4.
        cells: A×2, the centres of the cells.
        reach: (2,), how far from the centre of an object a cell may be at least.
        truth: The objects.
        weights: Of the loss.
        cells_each: So many cells are taught an object.
    """
    with torch.no_grad():
        chosen, quality = _suitable(logits.sigmoid(), to_corners(boxes), cells, reach, truth, cells_each)
    found, quality = quality.max(dim=-1).values > 0, quality.amax(dim=-1)
    index = chosen[..., None]
    wanted = truth.boxes.gather(1, index.expand(-1, -1, 4))
    names = truth.classes.gather(1, chosen)[..., None]
    scores = torch.zeros_like(logits).scatter(2, names, quality[..., None])
    is_object = torch.zeros_like(logits).scatter(2, names, found[..., None].to(logits.dtype))
    classification = _varifocal(logits, scores, is_object).sum(dim=(1, 2))
    of_boxes = (box_losses(boxes, wanted, weights) * quality).sum(dim=1)
    return (weights.classification * classification + of_boxes) / quality.sum(dim=1).clamp(min=1)


def _suitable(
    scores: Tensor, corners: Tensor, cells: Tensor, reach: Tensor, truth: Truth, cells_each: int
) -> tuple[Tensor, Tensor]:
    """Which object each cell answers for, B×A, and its wanted score for each object, B×A×M, 0 but for that one."""
    middle, size = truth.boxes[:, None].chunk(2, dim=-1)
    near = ((cells[:, None] - middle).abs() < torch.maximum(size / 2, reach)).all(dim=-1) & truth.real[:, None]
    overlap = iou(corners[:, :, None], to_corners(truth.boxes)[:, None]) * near
    said = scores.gather(2, truth.classes[:, None].expand(-1, scores.shape[1], -1))
    suits = said * overlap**6
    best = suits.topk(min(cells_each, suits.shape[1]), dim=1).indices
    taught = torch.zeros_like(suits).scatter(1, best, 1.0) * (suits > 0)
    chosen = (overlap * taught).argmax(dim=-1)
    taught = taught * F.one_hot(chosen, taught.shape[-1])
    suits, overlap = suits * taught, overlap * taught
    scale = overlap.amax(dim=1, keepdim=True) / suits.amax(dim=1, keepdim=True).clamp(min=1e-30)
    return chosen, suits * scale


def _matched(matches: Tensor, truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Of each query whether it has an object (L×B×Q), and that object's box (L×B×Q×4) and class (L×B×Q)."""
    index = matches.clamp(min=0)
    image = torch.arange(matches.shape[1], device=matches.device)[:, None]
    return matches >= 0, truth.boxes[image, index], truth.classes[image, index]


def _varifocal(logits: Tensor, quality: Tensor, is_object: Tensor) -> Tensor:
    """Cross entropy with the wanted scores; objects count by these, the rest by how wrong it is."""
    importance = ALPHA * logits.detach().sigmoid() ** GAMMA * (1 - is_object) + quality
    return F.binary_cross_entropy_with_logits(logits, quality, importance, reduction="none")
