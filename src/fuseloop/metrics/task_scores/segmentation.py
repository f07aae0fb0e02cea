"""Segmentation: intersection over union and accuracy of classes, over all pixels of a set at once.

Class 0 is the background, as in MSRS and FMB. Papers differ in what they do with it, so every result names its policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.metrics.task_scores.sets import (
    Counts,
    Floats,
    Interval,
    TaskScores,
    as_array,
    cell,
    class_names,
    mean_of,
    names_of,
)

if TYPE_CHECKING:
    from rich.table import Table

Background = Literal["include", "exclude", "ignore"]
BACKGROUND = 0
_POLICIES = {
    "include": "the background is a class like any other",
    "exclude": "the background counts as a mistake where it is one, but not in the means",
    "ignore": "pixels labelled as background are left out, whatever is predicted there",
}


@dataclass(frozen=True)
class SegmentationFrame:
    """What is kept of one frame.

    Attributes:
        name: Of the frame.
        confusion: C×C int64, how many pixels of class (row) were predicted as class (column).
    """

    name: str
    confusion: NDArray[np.int64]


def segmentation_frame(
    name: str, predicted: ArrayLike, label: ArrayLike, *, class_count: int, ignore_index: int | None = 255
) -> SegmentationFrame:
    """Counts the pixels of one frame.

    Args:
        name: Of the frame; errors tell it.
        predicted: H×W whole numbers, class ids; `classes_of` makes them from logits.
        label: H×W whole numbers, class ids, `ignore_index` where nothing counts.
        class_count: Number of classes, the background among them.
        ignore_index: Pixels with this label are dropped; None keeps all.

    Raises:
        LabelError: The two differ in size, are empty or no whole numbers, or hold ids that are no class.
    """
    ids, truth = as_array(predicted), as_array(label)
    for what, image in (("the prediction", ids), ("the label", truth)):
        if image.ndim != 2 or image.size == 0:
            raise LabelError(f"frame {name}: {what} has the shape {image.shape}; give one class id for each pixel, H×W")
        if not np.issubdtype(image.dtype, np.integer):
            raise LabelError(f"frame {name}: {what} is {image.dtype}; give class ids as whole numbers")
    if ids.shape != truth.shape:
        raise LabelError(
            f"frame {name}: the prediction is {_size(ids)}, the label {_size(truth)}; resize the logits to the label "
            f"before the maximum is taken (classes_of does)"
        )
    counted = np.ones(truth.shape, bool) if ignore_index is None else truth != ignore_index
    ids, truth = ids[counted].astype(np.int64), truth[counted].astype(np.int64)
    for what, found in (("the prediction", ids), ("the label", truth)):
        strange = found[(found < 0) | (found >= class_count)]
        if strange.size:
            ignored = "" if ignore_index is None else f", {ignore_index} in the label is ignored"
            raise LabelError(
                f"frame {name}: {what} holds {', '.join(map(str, np.unique(strange)[:5]))} in {strange.size} pixels; "
                f"class ids are 0 to {class_count - 1}{ignored}: map the ids, or give the right number of classes"
            )
    pairs = np.bincount(class_count * truth + ids, minlength=class_count**2)
    return SegmentationFrame(name, pairs.reshape(class_count, class_count).astype(np.int64))


def classes_of(logits: Tensor, height: int, width: int) -> Tensor:
    """Class ids at the size of the label: the logits are resized (bilinear), then the largest is taken.

    Args:
        logits: B×C×h×w or C×h×w.
        height: Of the label.
        width: Of the label.

    Returns:
        B×H×W or H×W, int64.

    Raises:
        ValueError: The logits have another shape.
    """
    if logits.ndim not in (3, 4):
        raise ValueError(f"logits are B×C×h×w or C×h×w, got {tuple(logits.shape)}")
    batch = logits.float() if logits.ndim == 4 else logits.float()[None]
    if batch.shape[-2:] != (height, width):
        batch = F.interpolate(batch, (height, width), mode="bilinear", align_corners=False)
    ids = batch.argmax(dim=1)
    return ids if logits.ndim == 4 else ids[0]


def score_segmentation(
    frames: Sequence[SegmentationFrame], classes: Sequence[str], *, background: Background = "exclude"
) -> SegmentationScores:
    """Scores a set of frames by one confusion matrix over all their pixels; no frame is averaged by itself.

    Args:
        frames: What `segmentation_frame` kept of each.
        classes: Names of the classes, the background first.
        background: "include" makes it a class like any other; "exclude" leaves it out of the means only; "ignore" also
            drops the pixels that are labelled as it.

    Raises:
        ConfigurationError: The policy is unknown, or two classes have one name.
        LabelError: There is no frame, or two have one name, or one was counted with another number of classes.
    """
    if background not in get_args(Background):
        raise ConfigurationError(f"there is no background policy {background!r}; it is {' or '.join(_POLICIES)}")
    names = names_of(frames)
    for frame in frames:
        if len(frame.confusion) != len(classes):
            raise LabelError(
                f"frame {frame.name}: counted with {len(frame.confusion)} classes, but {len(classes)} are named"
            )
    return SegmentationScores(names, class_names(classes), np.stack([frame.confusion for frame in frames]), background)


@dataclass(frozen=True, eq=False)
class SegmentationScores(TaskScores):
    """Scores of a set of frames. A class without a labelled pixel is absent: undefined, and left out of the means.

    The keys are `mIoU` and `mAcc`, both also with the background as a class (`mIoU/include`, `mAcc/include`), and
    `IoU/CLASS` and `Acc/CLASS`. IoU = TP / (TP + FP + FN), Acc = TP / (TP + FN).

    Attributes:
        frames: Names of the frames.
        classes: Names of the classes.
        confusions: F×C×C, the confusion matrix of each frame.
        background: The policy.
    """

    task = "segmentation"
    frames: tuple[str, ...]
    classes: tuple[str, ...]
    confusions: NDArray[np.int64]
    background: Background

    @property
    def values(self) -> dict[str, float]:
        """Every score by its key; NaN where it is undefined."""
        scored = self.resample(np.ones((1, len(self.frames)), np.int64))
        return {key: float(found[0]) for key, found in scored.items()}

    @property
    def undefined(self) -> dict[str, str]:
        """Keys of undefined scores, and why."""
        ignored = self.classes[BACKGROUND] if self.background == "ignore" and self.pixels[BACKGROUND] else None
        return {
            key: "pixels of the background are ignored"
            if key.partition("/")[2] == ignored
            else "no pixel of the set is labelled so"
            for key, value in self.values.items()
            if np.isnan(value)
        }

    @property
    def pixels(self) -> NDArray[np.int64]:
        """How many pixels are labelled as each class, C."""
        counts: NDArray[np.int64] = self.confusions.sum(axis=(0, 2))
        return counts

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a labelled pixel."""
        return tuple(name for name, pixels in zip(self.classes, self.pixels, strict=True) if not pixels)

    @property
    def settings(self) -> dict[str, Any]:
        """Background policy and classes."""
        return {"background": self.background, "classes": list(self.classes)}

    def to_json(self, intervals: Mapping[str, Interval] | None = None) -> dict[str, Any]:
        """See `TaskScores.to_json`; adds the labelled pixels of each class and the absent classes."""
        pixels = dict(zip(self.classes, self.pixels.tolist(), strict=True))
        return super().to_json(intervals) | {"pixels": pixels, "absent": list(self.absent)}

    def resample(self, counts: Counts) -> dict[str, Floats]:
        """See `TaskScores.resample`."""
        size = len(self.classes)
        matrices = (counts @ self.confusions.reshape(len(self.frames), -1)).reshape(-1, size, size)
        iou, accuracy = _of_classes(matrices, self.background)
        counted = slice(None) if self.background == "include" else slice(1, None)
        with_background = _of_classes(matrices, "include")
        scores = {
            "mIoU": mean_of(iou[:, counted]),
            "mAcc": mean_of(accuracy[:, counted]),
            "mIoU/include": mean_of(with_background[0]),
            "mAcc/include": mean_of(with_background[1]),
        }
        scores |= {f"IoU/{name}": iou[:, index] for index, name in enumerate(self.classes)}
        return scores | {f"Acc/{name}": accuracy[:, index] for index, name in enumerate(self.classes)}

    def table(self, intervals: Mapping[str, Interval] | None = None) -> Table:
        """See `TaskScores.table`."""
        from rich.table import Table

        values = self.values

        def cells(*keys: str, undefined: str = "undefined") -> list[str]:
            return [cell(values, key, intervals, undefined=undefined) for key in keys]

        caption = [f"Background {self.background}: {_POLICIES[self.background]}."]
        if self.absent:
            caption += [f"No labelled pixel, left out of the means: {', '.join(self.absent)}."]
        table = Table(
            title=f"Segmentation, {len(self.frames)} frames", caption="\n".join(caption), caption_justify="left"
        )
        table.add_column("class")
        for column in ("IoU", "Acc", "labelled pixels"):
            table.add_column(column, justify="right")
        for index, (name, pixels) in enumerate(zip(self.classes, self.pixels, strict=True)):
            outside = index == BACKGROUND and self.background != "include"
            undefined = "absent" if not pixels else "ignored"
            table.add_row(
                f"{name} (not in the means)" if outside else name,
                *cells(f"IoU/{name}", f"Acc/{name}", undefined=undefined),
                f"{pixels:,}",
            )
        table.add_section()
        table.add_row("mean", *cells("mIoU", "mAcc"), f"{self.pixels.sum():,}")
        if self.background != "include":
            table.add_row("mean, background included", *cells("mIoU/include", "mAcc/include"), "")
        return table


def _of_classes(matrices: NDArray[np.int64], background: Background) -> tuple[Floats, Floats]:
    """IoU and accuracy of each class, R×C; NaN where no pixel is labelled as the class."""
    if background == "ignore":
        matrices = matrices.copy()
        matrices[:, BACKGROUND] = 0
    right = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    labelled, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    present = labelled > 0
    iou = np.where(present, right / np.maximum(labelled + predicted - right, 1), np.nan)
    accuracy = np.where(present, right / np.maximum(labelled, 1), np.nan)
    return iou, accuracy


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
