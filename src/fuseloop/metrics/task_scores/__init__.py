"""Scores of task networks over a set of frames: detection, segmentation, saliency.

Each has a function that keeps of a frame what the score of any set needs (`detection_frame`, ...), and one that scores
a set (`score_detection`, ...). `intervals` and `differences` draw the frames again.
"""

from fuseloop.metrics.task_scores.detection import DetectionFrame, DetectionScores, detection_frame, score_detection
from fuseloop.metrics.task_scores.saliency import SaliencyFrame, SaliencyScores, saliency_frame, score_saliency
from fuseloop.metrics.task_scores.segmentation import (
    SegmentationFrame,
    SegmentationScores,
    classes_of,
    score_segmentation,
    segmentation_frame,
)
from fuseloop.metrics.task_scores.sets import (
    Interval,
    TaskScores,
    differences,
    interval_of,
    intervals,
    resampled,
)

__all__ = [
    "DetectionFrame",
    "DetectionScores",
    "Interval",
    "SaliencyFrame",
    "SaliencyScores",
    "SegmentationFrame",
    "SegmentationScores",
    "TaskScores",
    "classes_of",
    "detection_frame",
    "differences",
    "interval_of",
    "intervals",
    "resampled",
    "saliency_frame",
    "score_detection",
    "score_saliency",
    "score_segmentation",
    "segmentation_frame",
]
