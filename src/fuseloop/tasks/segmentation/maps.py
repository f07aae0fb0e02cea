"""From maps of logits to the loss and the prediction of a segmenter, both at the resolution of the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.datasets.labelled import IGNORED
from fuseloop.errors import LabelError
from fuseloop.tasks.protocol import Prediction, Target, View, labels


def masks_like(maps: Tensor, targets: Sequence[Target]) -> Tensor:
    """The masks of all images, B×H×W int64, on the device of the maps.

    Args:
        maps: B×C×H×W, a map for each class.
        targets: The labels of each image.

    Raises:
        LabelError: An image has no mask, one of another size, or one with ids beyond the classes.
    """
    masks = labels(targets, "segmentation", maps.device)
    count, size = maps.shape[1], tuple(maps.shape[-2:])
    for index, mask in enumerate(masks):
        if tuple(mask.shape) != size:
            raise LabelError(f"image {index} of the batch is of {size}, but its mask of {tuple(mask.shape)} pixels")
    stacked = torch.stack(masks)
    unknown = (stacked != IGNORED) & ((stacked < 0) | (stacked >= count))
    if unknown.any():
        raise LabelError(
            f"masks of {count} classes hold ids from 0 to {count - 1} and {IGNORED} where nothing counts, "
            f"got {sorted({*stacked[unknown].tolist()})}"
        )
    return stacked


def pixel_losses(logits: Tensor, targets: Sequence[Target], view: View, weights: Tensor | None = None) -> Tensor:
    """The cross-entropy of each image, (B,): the mean over its pixels that count, 0 where none does.

    Weights multiply the cross-entropy of the pixels of their class, and the mean stays one over pixels: an image of
    nothing but background weighs as little as its class.

    Args:
        logits: B×C×h×w over the whole input of the network, of any resolution.
        targets: The labels of each image.
        view: How the network saw the images.
        weights: C, of each class.

    Raises:
        LabelError: See `masks_like`.
    """
    maps = view.maps_to_image(logits.float())
    masks = masks_like(maps, targets)
    weights = None if weights is None else weights.float()
    each = F.cross_entropy(maps, masks, weights, ignore_index=IGNORED, reduction="none")
    counted = (masks != IGNORED).sum(dim=(1, 2)).clamp(min=1)
    return each.sum(dim=(1, 2)) / counted


@torch.no_grad()
def likeliest(logits: Tensor, view: View) -> list[Prediction]:
    """The class with the greatest logit of every pixel of each image.

    Args:
        logits: B×C×h×w over the whole input of the network, of any resolution.
        view: How the network saw the images.
    """
    # Image by image: at their resolution, the maps of a batch may be too large.
    return [Prediction(segmentation=view.maps_to_image(image[None].float()).argmax(dim=1)[0]) for image in logits]
