"""Fusion quality: metrics as pure functions, their table, and the scoring of frames and folders."""

from fuseloop.metrics.comparison import Comparison, Difference, Disagreement, compare
from fuseloop.metrics.evaluate import Evaluation, PairScorer, Score, score_frame, score_frames, score_methods
from fuseloop.metrics.grey import to_grey
from fuseloop.metrics.summary import Summary, difference, summarise, summarise_columns
from fuseloop.metrics.table import CONVENTIONS, METRICS, Convention, Metric, metrics_of

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
