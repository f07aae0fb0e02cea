"""Fusion quality: metrics as pure functions, their table, the scoring of frames, summaries and comparisons.

Every metric is also a class of torchmetrics, which is imported when one is first used: `Qabf`, `Vif`, `MsSsim`, ...,
and `fusion_metrics` for a collection of them.
"""

from typing import Any

from fuseloop.metrics.comparison import Comparison, Difference, Disagreement, compare
from fuseloop.metrics.evaluate import Evaluation, PairScorer, Score, score_frame, score_frames, score_methods
from fuseloop.metrics.grey import to_grey
from fuseloop.metrics.summary import Summary, difference, summarise, summarise_columns
from fuseloop.metrics.table import CONVENTIONS, METRICS, Convention, Metric, class_name, metrics_of

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "Comparison",
    "Convention",
    "Difference",
    "Disagreement",
    "Evaluation",
    "Metric",
    "PairScorer",
    "Score",
    "Summary",
    "compare",
    "difference",
    "metrics_of",
    "score_frame",
    "score_frames",
    "score_methods",
    "summarise",
    "summarise_columns",
    "to_grey",
]

_CLASSES = ("FusionMetric", "fusion_metrics", *map(class_name, METRICS))


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fuseloop.metrics import classes

    return getattr(classes, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
