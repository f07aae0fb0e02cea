"""The three kinds of task networks: each says how its predictions are scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from fuseloop.datasets.labelled import IGNORED
from fuseloop.metrics.task_scores import (
    DetectionFrame,
    DetectionScores,
    SaliencyFrame,
    SaliencyScores,
    SegmentationFrame,
    SegmentationScores,
    detection_frame,
    saliency_frame,
    score_detection,
    score_saliency,
    score_segmentation,
    segmentation_frame,
)
from fuseloop.tasks.protocol import Prediction, Target, Task, TaskNetwork, labels


class Detector(TaskNetwork):
    """Finds boxes."""

    task: Task = "detection"

    @property
    @abstractmethod
    def score_threshold(self) -> float:
        """Boxes with lower scores are no predictions; it is recorded with the scores."""

    @property
    @abstractmethod
    def nms_iou(self) -> float | None:
        """IoU above which the weaker of two boxes of a class is suppressed, None without suppression; recorded too."""

    def keep(self, name: str, prediction: Prediction, target: Target) -> DetectionFrame:
        """See `TaskNetwork.keep`."""
        (truth,), (truth_classes,) = labels([target], "boxes"), labels([target], "classes")
        assert prediction.boxes is not None
        assert prediction.classes is not None
        assert prediction.scores is not None
        return detection_frame(
            name,
            truth=truth,
            truth_classes=truth_classes,
            boxes=prediction.boxes,
            scores=prediction.scores,
            classes=prediction.classes,
            class_count=len(self.classes),
        )

    def score(self, kept: Sequence[DetectionFrame]) -> DetectionScores:
        """Average precision, see `fuseloop.metrics.task_scores`."""
        return score_detection(kept, self.classes, score_threshold=self.score_threshold, nms_iou=self.nms_iou)


class Segmenter(TaskNetwork):
    """Says of every pixel what it is of; class 0 is the background."""

    task: Task = "segmentation"

    def keep(self, name: str, prediction: Prediction, target: Target) -> SegmentationFrame:
        """See `TaskNetwork.keep`."""
        (truth,) = labels([target], "segmentation")
        assert prediction.segmentation is not None
        return segmentation_frame(
            name, prediction.segmentation, truth, class_count=len(self.classes), ignore_index=IGNORED
        )

    def score(self, kept: Sequence[SegmentationFrame]) -> SegmentationScores:
        """Mean IoU and accuracy, see `fuseloop.metrics.task_scores`."""
        return score_segmentation(kept, self.classes)


class SaliencyNetwork(TaskNetwork):
    """Says of every pixel how salient it is; it has no classes."""

    task: Task = "saliency"
    classes: tuple[str, ...] = ()

    def keep(self, name: str, prediction: Prediction, target: Target) -> SaliencyFrame:
        """See `TaskNetwork.keep`."""
        (mask,) = labels([target], "saliency")
        assert prediction.saliency is not None
        return saliency_frame(name, prediction.saliency, mask)

    def score(self, kept: Sequence[SaliencyFrame]) -> SaliencyScores:
        """S, E, F and MAE, see `fuseloop.metrics.task_scores`."""
        return score_saliency(kept)
