"""Scores as tables of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from fuseloop.metrics.comparison import Comparison
from fuseloop.metrics.summary import Summary
from fuseloop.metrics.table import METRICS
from fuseloop.scoring.files import Scores

SHOWN = 5
_DECIMALS = ((1000, 0), (100, 1), (10, 2), (1, 3), (1e-3, 4))  # from each size on


class TextTable(NamedTuple):
    """A table of text.

    Attributes:
        title: What it is about.
        header: The heads of the columns.
        names: How many columns from the left hold names; the others hold numbers.
        groups: Rows that belong together.
    """

    title: str
    header: list[str]
    names: int
    groups: list[list[list[str]]]


def tables(scores: Scores, comparison: Comparison | None = None) -> Iterator[TextTable]:
    """What `fuseloop score` prints: the scores, and how several methods compare.

    Args:
        scores: At least one method has a score.
        comparison: Of its methods, when there are several.
    """
    yield _score_table(scores, comparison)
    if comparison is not None:
        order = sorted(comparison.mean_ranks, key=lambda method: _last(comparison.mean_ranks[method]))
        rows = [[method, number(comparison.mean_ranks[method])] for method in order]
        title = f"Mean ranks ({comparison.ranked_of}; common frames: {len(comparison.frames)})"
        yield TextTable(title, ["method", "mean rank"], 1, [rows])
    if comparison is not None and comparison.disagreements:
        yield _disagreement_table(scores, comparison)


def _last(rank: float) -> float:
    return math.inf if math.isnan(rank) else rank


def _score_table(scores: Scores, comparison: Comparison | None) -> TextTable:
    methods = list(scores.evaluations)
    summaries = {method: scores.evaluations[method].summaries() for method in methods}
    frames = {method: len(scores.evaluations[method].frames) for method in methods}
    header = ["metric", "method", "mean", "std", "95 % interval", "frames"]
    if len(methods) == 1:
        del header[1]
    if comparison is not None:
        header += ["rank", f"difference to {comparison.baseline}", ""]
    groups = []
    for key, used in scores.evaluations[methods[0]].conventions.items():
        group: list[list[str]] = []
        for method in methods:
            summary = summaries[method][key]
            row = [*([method] if len(methods) > 1 else []), *_cells(summary), _count(summary, frames[method])]
            if comparison is not None:
                rank = comparison.ranks[key][method]
                row.append("-" if math.isnan(rank) else f"{rank:g}")
                if method in comparison.differences:
                    change, verdict = comparison.differences[method][key]
                    row += [_change(change), verdict if change.count else ""]
                else:
                    row += ["", ""]
            group.append([label(key, used, scores.convention) if not group else "", *row])
        groups.append(group)
    return TextTable(f"Convention {scores.convention}", header, 1 + (len(methods) > 1), groups)


def _disagreement_table(scores: Scores, comparison: Comparison) -> TextTable:
    rows = []
    for found in comparison.disagreements[:SHOWN]:
        cells = []
        for method in (found.best, found.worst):
            evaluation = scores.evaluations[method]
            value = float(evaluation.values[found.metric][evaluation.frames.index(found.frame)])
            cells.append(f"{method} {number(value)}")
        row = METRICS[found.metric]
        rows.append([found.frame, number(found.amount), f"{row.name} {row.arrow}", *cells])
    title = "Frames on which the methods differ most"
    return TextTable(title, ["frame", "distance in std", "most in", "best", "worst"], 1, [rows])


def label(key: str, used: str, wanted: str) -> str:
    """A metric with the direction that is better, and its convention where that is not the one asked for."""
    row = METRICS[key]
    other = "" if used == wanted else f" ({used})"
    return f"{row.name} {row.arrow}{other}"


def undefined_lines(scores: Scores) -> Iterator[str]:
    """A line for each metric that is undefined on some frames of a method."""
    for method, evaluation in scores.evaluations.items():
        for key, reasons in evaluation.reasons.items():
            if reasons:
                causes = "; ".join(dict.fromkeys(reasons.values()))
                count = f"{len(reasons)} of {len(evaluation.frames)} frames"
                yield f"{METRICS[key].name} of {method} on {count}: {causes}"


def number(value: float, *, sign: bool = False) -> str:
    """Four significant digits or so."""
    if math.isnan(value):
        return "undefined"
    plus, size = "+" if sign else "", abs(value)
    if 0 < size < 1e-3:
        return f"{value:{plus}.1e}"
    decimals = next((digits for limit, digits in _DECIMALS if limit <= size < math.inf), 0)
    return f"{value:{plus}.{decimals}f}"


def _cells(summary: Summary) -> list[str]:
    std = "-" if summary.count < 2 or math.isnan(summary.std) else number(summary.std)
    return [number(summary.mean), std, _interval(summary)]


def _interval(summary: Summary, *, sign: bool = False) -> str:
    """A single frame has no interval, nor have infinite values."""
    if summary.count < 2 or math.isnan(summary.low):
        return "-"
    return f"[{number(summary.low, sign=sign)}, {number(summary.high, sign=sign)}]"


def _change(summary: Summary) -> str:
    interval = _interval(summary, sign=True)
    return number(summary.mean, sign=True) + ("" if interval == "-" else f" {interval}")


def _count(summary: Summary, frames: int) -> str:
    return str(frames) if summary.count == frames else f"{summary.count} of {frames}"
