"""Task networks that need no training, and pairs whose visible images tell them all.

In a painted image red says the segmentation id, green what is salient, and blue the class of the box. So the networks
see everything in visible images and next to nothing in infrared ones, which are dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.datasets.synthetic import BOX_NAMES, SEGMENTATION_NAMES
from fuseloop.errors import ImageError
from fuseloop.tasks.kinds import Detector, SaliencyNetwork, Segmenter
from fuseloop.tasks.protocol import Outputs, Prediction, TaskNetwork, View

RED, BLUE = 20, 60
"""Steps of red between two ids, and of blue between two classes."""


class Painted:
    """Painted pairs.

    Args:
        count: Number of pairs.
        sizes: Height and width of the pairs, in turn.
        broken: Pairs that cannot be read.
        box_names: What the classes of the boxes are called.
        segmentation_names: What the segmentation ids are called.
        labels: The kinds of labels that are there.
    """

    left_out = ()

    def __init__(
        self,
        count: int = 6,
        *,
        sizes: Sequence[tuple[int, int]] = ((48, 64),),
        broken: Sequence[int] = (),
        box_names: Sequence[str] = BOX_NAMES,
        segmentation_names: Sequence[str] = SEGMENTATION_NAMES,
        labels: Sequence[str] = ("boxes", "segmentation", "saliency"),
    ) -> None:
        self.count, self.sizes, self.broken, self.labels = count, sizes, broken, tuple(labels)
        self.box_names, self.segmentation_names = tuple(box_names), tuple(segmentation_names)
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabelledPair:
        self.reads += 1
        if index in self.broken:
            raise ImageError(f"{index}.png: is broken")
        rng = np.random.default_rng(index)
        height, width = self.sizes[index % len(self.sizes)]
        ids = np.zeros((height, width), np.uint8)
        boxes, salient = np.zeros_like(ids), np.zeros_like(ids)
        corners = []
        for kind in range(len(self.box_names)):
            x1, y1 = 1 + 20 * kind + rng.integers(0, 4), rng.integers(0, height - 20)
            x2, y2 = x1 + rng.integers(8, 16), y1 + rng.integers(8, 20)
            corners.append((x1, y1, x2, y2))
            boxes[y1:y2, x1:x2] = BLUE * (kind + 1)
            ids[y1:y2, x1:x2] = rng.integers(1, len(self.segmentation_names) - 1)  # the last one never occurs
            salient[y1:y2, x1:x2] = 255 * (index > 0)  # nothing in the first pair
        return LabelledPair(
            rng.integers(0, 5, ids.shape, np.uint8),
            np.dstack([RED * ids, salient, boxes]),
            np.array(corners, np.float32) if "boxes" in self.labels else None,
            np.arange(len(corners)) if "boxes" in self.labels else None,
            ids if "segmentation" in self.labels else None,
            salient if "saliency" in self.labels else None,
            name=f"frame{index}",
        )

    def describe(self) -> str:
        return f"{self.count} painted pairs"


class Seeing(TaskNetwork):
    """What all painted networks share: they see images as they are."""

    def __init__(self, classes: Sequence[str] = ()) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.batches: list[int] = []

    def view(self, height: int, width: int) -> View:
        return View.stretched(height, width, input_height=height, input_width=width)

    def prepare(self, images: Tensor, view: View) -> Tensor:
        return images

    def run(self, prepared: Tensor) -> tuple[Any, Tensor]:
        assert not self.training
        self.batches.append(len(prepared))
        return (prepared * 255).round(), F.adaptive_avg_pool2d(prepared, 4)

    def sample_losses(self, outputs: Outputs, targets: Sequence[Any]) -> Tensor:
        raise NotImplementedError("nobody trains it")


class PaintedDetector(Seeing, Detector):
    """Finds one box of each class in what is blue."""

    score_threshold = 0.001
    nms_iou = None

    def predict(self, outputs: Outputs) -> list[Prediction]:
        return [self.found(image[2]) for image in outputs.raw]

    def found(self, blue: Tensor) -> Prediction:
        boxes, classes = [], []
        for kind in range(len(self.classes)):
            rows, columns = (blue == BLUE * (kind + 1)).nonzero(as_tuple=True)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                classes.append(kind)
        scores = torch.linspace(0.9, 0.1, len(boxes))
        return Prediction(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(classes).long(), scores)


class PaintedSegmenter(Seeing, Segmenter):
    """Reads the ids in what is red."""

    def predict(self, outputs: Outputs) -> list[Prediction]:
        ids = (outputs.raw[:, 0] / RED).round().long().clamp(max=len(self.classes) - 1)
        return [Prediction(segmentation=each) for each in ids]


class PaintedSaliency(Seeing, SaliencyNetwork):
    """Sees what is green as salient."""

    def predict(self, outputs: Outputs) -> list[Prediction]:
        return [Prediction(saliency=image[1] / 255) for image in outputs.raw]


def painted_networks() -> dict[str, TaskNetwork]:
    """One of each task, which know the classes of the synthetic scenes."""
    return {
        "detector": PaintedDetector(BOX_NAMES),
        "segmenter": PaintedSegmenter(SEGMENTATION_NAMES),
        "saliency": PaintedSaliency(),
    }
