"""What task networks say, drawn over the images that they looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fuseloop.reports.overlays import (
    Colour,
    Pixels,
    class_colours,
    draw_boxes,
    filled,
    legend,
    paint_ids,
    paint_saliency,
    titled,
)
from fuseloop.tasks.protocol import Prediction, Target

THRESHOLD = 0.25
"""Boxes with lower scores are not drawn unless it is said otherwise."""


def draw_prediction(
    image: Pixels, prediction: Prediction, classes: Sequence[str], *, threshold: float = THRESHOLD
) -> Pixels:
    """A prediction over its image: boxes with class and score; or ids with their colours below; or what is salient.

    Args:
        image: H×W×3 uint8.
        prediction: Of this image.
        classes: Of the network.
        threshold: Boxes with lower scores are left out.

    Returns:
        At least H×W×3 uint8; below masks stands a legend.
    """
    if prediction.boxes is not None:
        assert prediction.classes is not None
        assert prediction.scores is not None
        shown = prediction.scores >= threshold
        kinds, scores = prediction.classes[shown].tolist(), prediction.scores[shown].tolist()
        texts = [f"{classes[kind]} {score:.2f}" for kind, score in zip(kinds, scores, strict=True)]
        return _boxes(image, prediction.boxes[shown], kinds, classes, texts)
    if prediction.segmentation is not None:
        return _with_legend(_mask(image, prediction.segmentation, classes), [prediction.segmentation], classes)
    assert prediction.saliency is not None
    return paint_saliency(image, saliency_levels(prediction.saliency))


def draw_beside_labels(
    image: Pixels, prediction: Prediction, target: Target, classes: Sequence[str], *, threshold: float = THRESHOLD
) -> Pixels:
    """What is labelled, and beside it what a network says.

    Args:
        image: H×W×3 uint8.
        prediction: Of this image.
        target: Its labels in the classes of the network.
        classes: Of the network.
        threshold: Boxes with lower scores are left out.
    """
    said = "predicted"
    if prediction.boxes is not None:
        assert target.boxes is not None
        assert target.classes is not None
        kinds = target.classes.tolist()
        labelled = _boxes(image, target.boxes, kinds, classes, [classes[kind] for kind in kinds])
        predicted = draw_prediction(image, prediction, classes, threshold=threshold)
        said = f"predicted, scores from {threshold:g}"
    elif prediction.segmentation is not None:
        assert target.segmentation is not None
        labelled, predicted = (_mask(image, ids, classes) for ids in (target.segmentation, prediction.segmentation))
    else:
        assert target.saliency is not None
        assert prediction.saliency is not None
        labelled, predicted = (
            paint_saliency(image, saliency_levels(levels)) for levels in (target.saliency, prediction.saliency)
        )
    sheet = np.hstack([titled(labelled, "labelled"), titled(predicted, said)])
    if prediction.segmentation is None or target.segmentation is None:
        return sheet
    return _with_legend(sheet, [target.segmentation, prediction.segmentation], classes)


def saliency_levels(saliency: Tensor) -> Pixels:
    """Saliency H×W in [0, 1] as levels from 0 to 255, uint8."""
    return np.asarray((saliency.float().clamp(0, 1) * 255).round().byte().numpy())


def _boxes(image: Pixels, boxes: Tensor, kinds: Sequence[int], classes: Sequence[str], texts: Sequence[str]) -> Pixels:
    colours = class_colours(classes)
    return draw_boxes(image, boxes.float().numpy(), [colours[classes[kind]] for kind in kinds], texts)


def _mask(image: Pixels, ids: Tensor, classes: Sequence[str]) -> Pixels:
    return paint_ids(image, ids.numpy(), list(_foreground(classes).values()))


def _foreground(classes: Sequence[str]) -> dict[str, Colour]:
    return class_colours(classes[1:])


def _with_legend(image: Pixels, masks: Sequence[Tensor], classes: Sequence[str]) -> Pixels:
    """The colours of the classes that are there, below an image."""
    there = sorted({int(number) for ids in masks for number in np.unique(ids.numpy())} & set(range(1, len(classes))))
    if not there:
        return image
    below = legend("classes", [classes[number] for number in there], _foreground(classes), image.shape[1])
    width = max(image.shape[1], below.shape[1])
    return np.vstack([filled(image, len(image), width), filled(below, len(below), width)])
