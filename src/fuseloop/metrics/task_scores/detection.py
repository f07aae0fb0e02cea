"""Detection: COCO's average precision, computed by faster-coco-eval.

It keeps nothing of a frame that could be read, and for a bootstrap it would have to start again for every drawn set. So
the frames are matched once more here, and many drawn sets are accumulated from these matches at once; tests hold both
steps to faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuseloop.errors import LabelError
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

MAX_DETECTIONS = 100
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in pixels, both ends included."""

_COLUMNS: dict[str, tuple[int, int | slice]] = {
    "50": (0, 0),
    "75": (0, 5),
    "50:95": (0, slice(None)),
    "50:95/small": (1, slice(None)),
    "50:95/medium": (2, slice(None)),
    "50:95/large": (3, slice(None)),
}
"""Which size and which IoU thresholds each score takes."""


@dataclass(frozen=True, eq=False)
class DetectionFrame:
    """What is kept of one frame.

    Attributes:
        name: Of the frame.
        truth: N×4 float64, the labelled boxes (x1, y1, x2, y2).
        truth_classes: N int64.
        boxes: M×4 float64, the best detections, best first.
        scores: M float64.
        classes: M int64.
    """

    name: str
    truth: Floats
    truth_classes: NDArray[np.int64]
    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def detection_frame(
    name: str,
    *,
    truth: ArrayLike,
    truth_classes: ArrayLike,
    boxes: ArrayLike,
    scores: ArrayLike,
    classes: ArrayLike,
    class_count: int,
) -> DetectionFrame:
    """Checks one frame, and keeps its 100 best detections; equal scores keep the order in which they came.

    Args:
        name: Of the frame; errors tell it.
        truth: N×4, labelled boxes (x1, y1, x2, y2) in pixels of the image; empty for a frame without boxes.
        truth_classes: N, their classes.
        boxes: M×4, detected boxes in pixels of the image: resizing and padding are undone before.
        scores: M.
        classes: M.
        class_count: Number of classes.

    Raises:
        LabelError: Lengths differ, a value is not finite, a box ends before it starts, a labelled box has no area, or a
            class is out of range.
    """
    truth, truth_classes = _boxes(name, "labelled", truth), _classes(name, "labelled", truth_classes, class_count)
    boxes, classes = _boxes(name, "detected", boxes), _classes(name, "detected", classes, class_count)
    ranking = as_array(scores).astype(np.float64).reshape(-1)
    for what, number in (("classes", len(classes)), ("scores", len(ranking))):
        if number != len(boxes):
            raise LabelError(f"frame {name}: {len(boxes)} detected boxes have {number} {what}; give one for each")
    if len(truth_classes) != len(truth):
        raise LabelError(
            f"frame {name}: {len(truth)} labelled boxes have {len(truth_classes)} classes; give one for each"
        )
    if not np.isfinite(ranking).all():
        raise LabelError(f"frame {name}: a score is NaN or infinite; look at the network that made it")
    best = np.argsort(-ranking, kind="stable")[:MAX_DETECTIONS]
    return DetectionFrame(name, truth, truth_classes, boxes[best], ranking[best], classes[best])


def score_detection(
    frames: Sequence[DetectionFrame], classes: Sequence[str], *, score_threshold: float, nms_iou: float | None
) -> DetectionScores:
    """Scores a set of frames with faster-coco-eval.

    Args:
        frames: What `detection_frame` kept of each.
        classes: Names of the classes.
        score_threshold: Below which the caller dropped detections; recorded. Papers keep those down to .001.
        nms_iou: Above which the caller suppressed overlapping detections, usually .6; None without it. Recorded.

    Raises:
        LabelError: There is no frame, or two have one name, or a class of a frame has no name.
        ConfigurationError: Two classes have one name.
    """
    names = names_of(frames)
    for frame in frames:
        highest = max([-1, *frame.truth_classes.tolist(), *frame.classes.tolist()])
        if highest >= len(classes):
            raise LabelError(f"frame {frame.name}: holds class {highest}, but only {len(classes)} classes are named")
    return DetectionScores(
        names, class_names(classes), tuple(frames), _average_precision(frames, len(classes)), score_threshold, nms_iou
    )


@dataclass(frozen=True, eq=False)
class DetectionScores(TaskScores):
    """Scores of a set of frames. A class without a labelled box is absent: undefined, and left out of the means.

    Its false detections then cost nothing. The keys are `mAP50`, `mAP75`, `mAP50:95`, and `mAP50:95/` with `small` (up
    to 32² pixels), `medium` and `large` (from 96²); and the same for each class as `AP50/CLASS`, ...,
    `AP50:95/small/CLASS`.

    Attributes:
        frames: Names of the frames.
        classes: Names of the classes.
        kept: What was kept of each frame.
        average_precision: C×4×10, of each class, size (`SIZES`) and IoU threshold (`THRESHOLDS`); NaN where absent.
        score_threshold: Below which detections were dropped.
        nms_iou: Above which overlapping detections were suppressed.
    """

    task = "detection"
    frames: tuple[str, ...]
    classes: tuple[str, ...]
    kept: tuple[DetectionFrame, ...]
    average_precision: Floats
    score_threshold: float
    nms_iou: float | None

    @property
    def values(self) -> dict[str, float]:
        """Every score by its key; NaN where it is undefined."""
        return {key: float(found[0]) for key, found in self._named(self.average_precision[None]).items()}

    @property
    def undefined(self) -> dict[str, str]:
        """Keys of undefined scores, and why."""
        return {key: "no such box is labelled in the set" for key, value in self.values.items() if np.isnan(value)}

    @property
    def labelled(self) -> NDArray[np.int64]:
        """How many boxes of each class are labelled, C."""
        counts: NDArray[np.int64] = self._count([frame.truth_classes for frame in self.kept])
        return counts

    @property
    def detected(self) -> NDArray[np.int64]:
        """How many boxes of each class were detected, C."""
        counts: NDArray[np.int64] = self._count([frame.classes for frame in self.kept])
        return counts

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a labelled box."""
        return tuple(name for name, labelled in zip(self.classes, self.labelled, strict=True) if not labelled)

    @property
    def settings(self) -> dict[str, Any]:
        """Who computed the scores, and what was kept of the detections."""
        return {
            "evaluator": f"faster-coco-eval {version('faster-coco-eval')}",
            "classes": list(self.classes),
            "score_threshold": self.score_threshold,
            "nms_iou": self.nms_iou,
            "detections_per_frame": MAX_DETECTIONS,
        }

    def to_json(self, intervals: Mapping[str, Interval] | None = None) -> dict[str, Any]:
        """See `TaskScores.to_json`; adds the boxes of each class and the absent classes."""
        counts = {
            name: {"labelled": labelled, "detected": detected}
            for name, labelled, detected in zip(
                self.classes, self.labelled.tolist(), self.detected.tolist(), strict=True
            )
        }
        return super().to_json(intervals) | {"boxes": counts, "absent": list(self.absent)}

    def resample(self, counts: Counts) -> dict[str, Floats]:
        """See `TaskScores.resample`.

        The copies of a detection stand beside each other in the ranking. faster-coco-eval would rank copied frames the
        same way, but for equal scores of one class in one frame, which it ranks copy by copy.
        """
        weights = counts.astype(np.float64)
        precision = np.full((len(counts), len(self.classes), len(SIZES), len(THRESHOLDS)), np.nan)
        for index, ranking in enumerate(self._rankings):
            for size, threshold in product(range(len(SIZES)), range(len(THRESHOLDS))):
                precision[:, index, size, threshold] = ranking.average_precision(weights, size, threshold)
        return self._named(precision)

    def table(self, intervals: Mapping[str, Interval] | None = None) -> Table:
        """See `TaskScores.table`."""
        from rich.table import Table

        values = self.values

        def cells(row: str | None) -> list[str]:
            return [cell(values, _key(column, row), intervals, undefined="absent") for column in _COLUMNS]

        suppression = "none" if self.nms_iou is None else f"IoU {self.nms_iou:g}"
        caption = [
            f"{self.settings['evaluator']}; scores from {self.score_threshold:g}, suppression {suppression}, "
            f"at most {MAX_DETECTIONS} boxes a frame."
        ]
        if self.absent:
            caption += [
                f"No labelled box, left out of the means: {', '.join(self.absent)}; "
                "false detections of these cost nothing."
            ]
        table = Table(title=f"Detection, {len(self.frames)} frames", caption="\n".join(caption), caption_justify="left")
        table.add_column("class")
        for column in ("AP50", "AP75", "AP50:95", "small", "medium", "large", "labelled", "detected"):
            table.add_column(column, justify="right")
        for name, labelled, detected in zip(self.classes, self.labelled, self.detected, strict=True):
            table.add_row(name, *cells(name), str(labelled), str(detected))
        table.add_section()
        table.add_row("mean", *cells(None), str(self.labelled.sum()), str(self.detected.sum()))
        return table

    def _count(self, classes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.bincount(np.concatenate(classes), minlength=len(self.classes))

    def _named(self, precision: Floats) -> dict[str, Floats]:
        """Scores by their keys from average precisions R×C×4×10."""
        named = {}
        for column, (size, thresholds) in _COLUMNS.items():
            chosen = precision[:, :, size, thresholds].reshape(*precision.shape[:2], -1)
            named[_key(column, None)] = mean_of(chosen.reshape(len(chosen), -1))
            named |= {_key(column, name): mean_of(chosen[:, index]) for index, name in enumerate(self.classes)}
        return named

    @cached_property
    def _rankings(self) -> list[_Ranking]:
        """The detections of each class in the order of their scores, with what they were matched to."""
        return [_Ranking.of([_match(frame, index) for frame in self.kept]) for index in range(len(self.classes))]


class _Matches(NamedTuple):
    """What became of the D detections of one class in one frame.

    Attributes:
        scores: D, best first.
        right: 4×10×D, whether it found a box of this size, at each size and IoU threshold.
        counted: 4×10×D, whether it is right or wrong at all: what found a box of another size is neither, nor what
            found none and has another size itself.
        labelled: 4, number of boxes of each size.
    """

    scores: Floats
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    labelled: NDArray[np.int64]


def _match(frame: DetectionFrame, index: int) -> _Matches:
    """COCO's matching: best detection first, each takes the free box that it overlaps most, of the size if it can."""
    from faster_coco_eval import mask

    own, theirs = frame.classes == index, frame.truth_classes == index
    boxes, truth, scores = _corner_and_size(frame.boxes[own]), _corner_and_size(frame.truth[theirs]), frame.scores[own]
    inside, wanted = _of_size(boxes), _of_size(truth)
    right = np.zeros((len(SIZES), len(THRESHOLDS), len(boxes)), bool)
    counted = np.broadcast_to(inside[:, None], right.shape).copy()
    if len(boxes) and len(truth):
        overlaps = np.asarray(mask.iou(boxes, truth, [0] * len(truth)), np.float64)
        free = np.ones((len(SIZES), len(THRESHOLDS), len(truth)), bool)
        rows, columns = np.indices(free.shape[:2])
        for position in np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0]):
            overlap = overlaps[position]
            possible = free & (overlap >= THRESHOLDS[:, None])
            # One of the wanted size before any other; of equal overlaps the last.
            rank = np.where(possible, overlap + 2 * wanted[:, None], -1.0)
            chosen = len(truth) - 1 - rank[..., ::-1].argmax(axis=-1)
            found = possible[rows, columns, chosen]
            free[rows[found], columns[found], chosen[found]] = False
            of_size = wanted[rows, chosen]
            right[..., position] = found & of_size
            counted[..., position] = np.where(found, of_size, inside[:, None, position])
    return _Matches(scores, right, counted, wanted.sum(axis=1))


class _Ranking(NamedTuple):
    """The detections of one class over all frames, best first; `frames` says where each was found."""

    frames: NDArray[np.int64]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    labelled: Floats

    @classmethod
    def of(cls, matches: Sequence[_Matches]) -> _Ranking:
        frames = np.repeat(np.arange(len(matches)), [len(each.scores) for each in matches])
        order = np.argsort(-np.concatenate([each.scores for each in matches]), kind="stable")
        return cls(
            frames[order],
            np.concatenate([each.right for each in matches], axis=-1)[..., order],
            np.concatenate([each.counted for each in matches], axis=-1)[..., order],
            np.stack([each.labelled for each in matches]).astype(np.float64),
        )

    def average_precision(self, weights: Floats, size: int, threshold: int) -> Floats:
        """Of R sets that hold frame i `weights[:, i]` times; NaN where they hold no box of the size.

        Only at right detections does the recall grow, and only there can the precision be the largest from there on.
        """
        labelled = weights @ self.labelled[:, size]
        right = self.right[size, threshold] & self.counted[size, threshold]
        hits = np.flatnonzero(right)
        if len(hits) == 0:
            return np.where(labelled > 0, 0.0, np.nan)
        considered = np.flatnonzero(self.counted[size, threshold])
        # How many detections of each frame are ranked up to each hit.
        ranked = np.zeros((weights.shape[1], len(hits) + 1))
        np.add.at(ranked, (self.frames[considered], np.searchsorted(hits, considered)), 1)
        detected = weights @ ranked[:, :-1].cumsum(axis=1)
        found = weights[:, self.frames[hits]].cumsum(axis=1)
        precision = found / np.maximum(detected, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.maximum(labelled, 1)[:, None]
        passed = np.searchsorted(RECALLS, recall, side="right")
        points = np.diff(passed, axis=1, prepend=0)
        return np.where(labelled > 0, (points * best).sum(axis=1) / len(RECALLS), np.nan)


def _average_precision(frames: Sequence[DetectionFrame], class_count: int) -> Floats:
    """What faster-coco-eval finds, C×4×10; NaN where no such box is labelled."""
    from faster_coco_eval import COCO, COCOeval_faster

    ids = range(1, len(frames) + 1)
    labelled = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for image, frame in zip(ids, frames, strict=True)
        for box, label in zip(_corner_and_size(frame.truth), frame.truth_classes, strict=True)
    ]
    detected = [
        {"image_id": image, "category_id": int(label), "bbox": box.tolist(), "score": float(score)}
        for image, frame in zip(ids, frames, strict=True)
        for box, label, score in zip(_corner_and_size(frame.boxes), frame.classes, frame.scores, strict=True)
    ]
    truth = COCO(
        {
            "images": [{"id": image} for image in ids],
            "categories": [{"id": index, "name": str(index)} for index in range(class_count)],
            "annotations": [{"id": number, **each} for number, each in enumerate(labelled, start=1)],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(detected), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], np.float64)[..., -1]  # IoU × recall × class × size
    precision = np.where(precision > -1, precision, np.nan)
    return mean_of(precision.transpose(2, 3, 0, 1))


def _key(column: str, name: str | None) -> str:
    """Of a class, or of the mean over the classes."""
    return f"mAP{column}" if name is None else f"AP{column}/{name}"


def _corner_and_size(boxes: Floats) -> Floats:
    """(x1, y1, x2, y2) to (x1, y1, width, height)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _of_size(boxes: Floats) -> NDArray[np.bool_]:
    """Which boxes (x, y, width, height) are of each size, 4×N."""
    areas = boxes[:, 2] * boxes[:, 3]
    return np.array([(areas >= low) & (areas <= high) for low, high in SIZES.values()])


def _boxes(name: str, what: str, given: ArrayLike) -> Floats:
    boxes = as_array(given).astype(np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise LabelError(f"frame {name}: {what} boxes have the shape {boxes.shape}; give N×4, (x1, y1, x2, y2)")
    if not np.isfinite(boxes).all():
        raise LabelError(f"frame {name}: a {what} box has NaN or infinite corners; look at what made it")
    extents = boxes[:, 2:] - boxes[:, :2]
    bad = np.flatnonzero((extents < 0).any(axis=1))
    if len(bad):
        raise LabelError(
            f"frame {name}: {what} box {bad[0]} is {boxes[bad[0]].tolist()}, which ends before it starts; boxes are "
            "(x1, y1, x2, y2), not (x, y, width, height)"
        )
    bad = np.flatnonzero((extents == 0).any(axis=1))
    if len(bad) and what == "labelled":  # nothing can overlap it; a detection may be as thin as it likes
        raise LabelError(f"frame {name}: labelled box {bad[0]} is {boxes[bad[0]].tolist()}, without area; remove it")
    return boxes


def _classes(name: str, what: str, given: ArrayLike, class_count: int) -> NDArray[np.int64]:
    classes = as_array(given).reshape(-1)
    if classes.size == 0:
        return np.zeros(0, np.int64)
    if not np.issubdtype(classes.dtype, np.integer):
        raise LabelError(f"frame {name}: {what} classes are {classes.dtype}; give class ids as whole numbers")
    strange = classes[(classes < 0) | (classes >= class_count)]
    if len(strange):
        raise LabelError(
            f"frame {name}: a {what} box has class {strange[0]}; class ids are 0 to {class_count - 1}: map the ids, or "
            "give the right number of classes"
        )
    return classes.astype(np.int64)
