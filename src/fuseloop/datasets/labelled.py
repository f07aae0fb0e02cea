"""A pair with its labels, as the readers of data sets give it and augmentation changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.findings import Finding
from fuseloop.datasets.synthetic import Scene
from fuseloop.errors import LabelError

IGNORED = 255
"""Segmentation id of pixels that count nowhere."""

SALIENT = 128
"""Saliency from which a pixel counts as salient where a mask has to be yes or no."""


@dataclass(frozen=True)
class LabelledPair:
    """One aligned pair with the labels that it has; what is None was not labelled.

    Attributes:
        infrared: H×W uint8.
        visible: H×W×3 uint8 RGB.
        boxes: N×4 float32, absolute (x1, y1, x2, y2) in pixels of the pair.
        classes: N int64, the class of each box.
        segmentation: H×W uint8, class ids, `IGNORED` where nothing counts.
        saliency: H×W uint8, from 0 to 255 on what is salient.
        edges: H×W uint8, 255 on the outline of what is salient, where a data set comes with such maps; `edges_of`
            makes them where it does not.
        name: What the data set calls it; empty for a pair of no data set.

    Raises:
        LabelError: The parts do not fit together.
    """

    infrared: NDArray[np.uint8]
    visible: NDArray[np.uint8]
    boxes: NDArray[np.float32] | None = None
    classes: NDArray[np.int64] | None = None
    segmentation: NDArray[np.uint8] | None = None
    saliency: NDArray[np.uint8] | None = None
    edges: NDArray[np.uint8] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        size = self.infrared.shape
        if len(size) != 2 or self.visible.shape != (*size, 3):
            raise LabelError(
                f"pair {self.name!r}: infrared is H×W and visible H×W×3, got {size} and {self.visible.shape}"
            )
        for part in ("segmentation", "saliency", "edges"):
            pixels = getattr(self, part)
            if pixels is not None and pixels.shape != size:
                raise LabelError(f"pair {self.name!r}: {part} has the shape {pixels.shape}, the images {size}")
        boxes, classes = self.boxes, self.classes
        if (boxes is None) != (classes is None):
            raise LabelError(f"pair {self.name!r}: boxes and their classes come together; one of them is missing")
        if boxes is not None and classes is not None and boxes.shape != (len(classes), 4):
            raise LabelError(f"pair {self.name!r}: boxes of shape {boxes.shape} for {len(classes)} classes")

    @classmethod
    def of(cls, scene: Scene, name: str = "") -> LabelledPair:
        """A synthetic scene, which has all labels."""
        return cls(
            scene.infrared,
            scene.visible,
            scene.boxes,
            scene.box_classes,
            scene.segmentation,
            scene.saliency,
            name=name,
        )


class LabelledPairs(Protocol):
    """A labelled data set: a length, pair `i`, read when it is asked for, and the names of its classes.

    Attributes:
        box_names: Names of the classes of boxes, by their number.
        segmentation_names: Names of the segmentation ids, the background first.
        labels: The kinds of labels that are there: "boxes", "segmentation", "saliency", "edges".
        left_out: What was wrong with frames that are none of these pairs.
    """

    box_names: tuple[str, ...]
    segmentation_names: tuple[str, ...]
    labels: tuple[str, ...]
    left_out: tuple[Finding, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledPair: ...

    def describe(self) -> str:
        """What these pairs are, in one line."""
        ...


def edges_of(pair: LabelledPair) -> NDArray[np.uint8] | None:
    """The edge map of a pair: its own, or one made of its saliency mask; None without either."""
    if pair.edges is not None or pair.saliency is None:
        return pair.edges
    return edge_map(pair.saliency)


def edge_map(saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The outline of a saliency mask: 255 on both sides of every border between salient and not, else 0.

    Args:
        saliency: H×W uint8; from `SALIENT` on a pixel is salient.

    >>> edge_map(np.array([[0, 0, 255, 255, 255]], np.uint8)).tolist()
    [[0, 255, 255, 0, 0]]
    """
    mask = (saliency >= SALIENT).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # A border that repeats the last pixel, so that a mask which leaves the image has no outline along its side.
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    outline = cv2.morphologyEx(padded, cv2.MORPH_GRADIENT, cross)[1:-1, 1:-1]
    return np.asarray(outline * np.uint8(255))
