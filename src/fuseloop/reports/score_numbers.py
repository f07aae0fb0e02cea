"""What the pages of a score report say in numbers: rows of tables, and the data that its plots are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.metrics.comparison import Comparison, compare
from fuseloop.metrics.evaluate import Evaluation
from fuseloop.metrics.summary import Summary, redraws
from fuseloop.metrics.table import METRICS

BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "nearer to zero is better"}
EXTREMES = 6
"""Worst and best frames listed for each method and metric."""
EXAMPLES = 5
"""Frames listed where a value is undefined."""


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Numbers:
    """The scores of all methods beside each other.

    Attributes:
        convention: The convention asked for.
        methods: Names of the methods.
        frames: Every frame that any method has a score for.
        keys: Keys of the metrics.
        evaluations: The scores of each method.
        values: Methods × metrics × frames; NaN where undefined or not scored.
        scored: Methods × frames, whether there is a score at all.
        summaries: For each method and metric the summary over its frames.
        comparisons: For each method the comparison of the others to it; none for a single method, or where no frame
            has a score of every method.
    """

    convention: str
    methods: tuple[str, ...]
    frames: tuple[str, ...]
    keys: tuple[str, ...]
    evaluations: Mapping[str, Evaluation]
    values: NDArray[np.float64]
    scored: NDArray[np.bool_]
    summaries: list[list[Summary]]
    comparisons: list[Comparison]

    @classmethod
    def of(cls, evaluations: Mapping[str, Evaluation], convention: str, order: Sequence[str] = ()) -> Numbers:
        """From the scores of each method.

        Args:
            evaluations: The scores, all of the same metrics and conventions.
            convention: The convention asked for.
            order: Frames in the order wanted; others come after.

        Raises:
            ValueError: There is no method, or they were scored by different metrics or conventions.
        """
        if not evaluations:
            raise ValueError("a report needs the scores of at least one method")
        conventions = next(iter(evaluations.values())).conventions
        if any(evaluation.conventions != conventions for evaluation in evaluations.values()):
            raise ValueError("a report needs the same metrics and the same conventions for all methods")
        keys = tuple(conventions)
        known = dict.fromkeys(name for evaluation in evaluations.values() for name in evaluation.frames)
        frames = tuple([name for name in order if name in known] + [name for name in known if name not in set(order)])
        places = {name: index for index, name in enumerate(frames)}
        values = np.full((len(evaluations), len(keys), len(frames)), np.nan)
        scored = np.zeros((len(evaluations), len(frames)), bool)
        for method, evaluation in enumerate(evaluations.values()):
            chosen = [places[name] for name in evaluation.frames]
            scored[method, chosen] = True
            for metric, key in enumerate(keys):
                values[method, metric, chosen] = evaluation.values[key]
        comparable = len(evaluations) > 1 and bool(np.any(scored.all(axis=0)))
        return cls(
            convention, tuple(evaluations), frames, keys, evaluations, values, scored,
            [[summaries[key] for key in keys] for summaries in (one.summaries() for one in evaluations.values())],
            [compare(evaluations, baseline=name) for name in evaluations] if comparable else [],
        )  # fmt: skip

    def merits(self) -> NDArray[np.float64]:
        """The values turned so that larger is better."""
        return np.stack([METRICS[key].merit(self.values[:, index]) for index, key in enumerate(self.keys)], axis=1)

    def decimals(self) -> list[int]:
        """Decimals for each metric, enough to tell methods apart."""
        return [decimals_for(self.values[:, index]) for index in range(len(self.keys))]

    def places(self) -> NDArray[np.float64]:
        """Methods × metrics × frames: the place of a value among those of the folder, 1 = best; NaN where undefined."""
        merits = self.merits()
        places = np.full(merits.shape, np.nan)
        for index in np.ndindex(*merits.shape[:2]):
            defined = ~np.isnan(merits[index])
            falling = np.sort(-merits[index][defined])
            places[index][defined] = np.searchsorted(falling, -merits[index][defined]) + 1
        return places


def decimals_for(values: NDArray[np.float64]) -> int:
    """How many decimals values of this size are printed with: 430.1, 54.68, 0.720, 0.00123."""
    finite = np.abs(values[np.isfinite(values)])
    size = float(finite.max()) if finite.size else 1.0
    if size >= 10:
        return 0 if size >= 1000 else 1 if size >= 100 else 2
    return 3 if size >= 0.1 or size == 0 else min(9, 2 - math.floor(math.log10(size)))


def number(value: float, decimals: int) -> str:
    """A value as text: with a true minus, "∞" for infinity, and two digits of a tiny value."""
    tiny = decimals > 2 and 0 < abs(value) < min(1e-3, 10.0 ** (1 - decimals))
    size = "∞" if math.isinf(value) else f"{abs(value):.1e}" if tiny else f"{abs(value):.{decimals}f}"
    return f"−{size}" if value < 0 and size.strip("0.") else size


def rank_intervals(numbers: Numbers, *, seed: int = 0, resamples: int = 10_000) -> tuple[NDArray[Any], NDArray[Any]]:
    """How certain the ranks of a comparison are: frames are drawn again, and the methods ranked by their new means.

    Returns:
        Lower and upper ends of the 95 % intervals, methods × (metrics + 1); the last column is of the mean rank. NaN
        where there is no rank.
    """
    common = numbers.scored.all(axis=0)
    # Infinite values would turn means into NaN; a value beyond all others ranks the same.
    merits = np.clip(numbers.merits()[:, :, common], -1e300, 1e300)
    methods, metrics, frames = merits.shape
    defined = ~np.any(np.isnan(merits), axis=0)
    ranked = np.any(defined, axis=1)
    table = np.where(defined, merits, 0).reshape(-1, frames).T
    ranks = []
    with np.errstate(invalid="ignore", over="ignore"):
        for times in redraws(frames, seed=seed, resamples=resamples):
            means = (times @ table).reshape(-1, methods, metrics) / (times @ defined.T)[:, None]
            better = (means[:, None] > means[:, :, None]).sum(axis=2)
            equal = (means[:, None] == means[:, :, None]).sum(axis=2)
            drawn = np.where(equal > 0, better + (equal + 1) / 2, np.nan)
            whole = np.where(ranked.any(), np.nanmean(drawn[:, :, ranked], axis=2, keepdims=True), np.nan)
            ranks.append(np.concatenate([drawn, whole], axis=2))
    found = np.concatenate(ranks)
    ends = np.full((2, methods, metrics + 1), np.nan)
    with_rank = np.append(ranked, ranked.any())
    ends[:, :, with_rank] = np.nanpercentile(found[:, :, with_rank], (2.5, 97.5), axis=0)
    return ends[0], ends[1]


def data(numbers: Numbers, pages: Sequence[str], slots: Sequence[str]) -> dict[str, Any]:
    """What the first page draws its plots from, as JSON values; bounded however many frames there are but for names.

    Args:
        numbers: The scores.
        pages: For each frame the name of its page.
        slots: For each method the name of its images.
    """
    decimals = numbers.decimals()
    methods, metrics = range(len(numbers.methods)), range(len(numbers.keys))
    found: dict[str, Any] = {
        "compared": bool(numbers.comparisons),
        "methods": [printable(name) for name in numbers.methods],
        "frames": [printable(name) for name in numbers.frames],
        "pages": list(pages),
        "slots": list(slots),
        "metrics": [
            {
                "name": METRICS[key].name,
                "arrow": METRICS[key].arrow,
                "direction": METRICS[key].direction,
                "decimals": decimals[index],
            }
            for index, key in enumerate(numbers.keys)
        ],
        "summaries": [
            [[*map(_plain, (one.mean, one.std, one.low, one.high)), one.count] for one in row]
            for row in numbers.summaries
        ],
        "extremes": [[_extremes(numbers, method, metric) for metric in metrics] for method in methods],
    }
    if numbers.comparisons:
        low, high = rank_intervals(numbers)
        first = numbers.comparisons[0]
        found["meanRanks"] = [
            list(map(_plain, (first.mean_ranks[name], low[method, -1], high[method, -1])))
            for method, name in enumerate(numbers.methods)
        ]
        found["ranks"] = [
            [
                list(map(_plain, (first.ranks[key][name], low[method, metric], high[method, metric])))
                for metric, key in enumerate(numbers.keys)
            ]
            for method, name in enumerate(numbers.methods)
        ]
        found["differences"] = [
            [
                [_difference(comparison, name, key) for key in numbers.keys] if name != comparison.baseline else None
                for name in numbers.methods
            ]
            for comparison in numbers.comparisons
        ]
        found["gaps"] = {
            f"{one},{other}": [_gaps(numbers, one, other, metric) for metric in metrics]
            for one in methods
            for other in methods
            if one < other
        }
    return found


def _difference(comparison: Comparison, method: str, key: str) -> list[Any]:
    found = comparison.differences[method][key]
    return [*map(_plain, (found.summary.mean, found.summary.low, found.summary.high)), found.verdict]


def _extremes(numbers: Numbers, method: int, metric: int) -> dict[str, list[Any]]:
    values = numbers.values[method, metric]
    merits = METRICS[numbers.keys[metric]].merit(values)
    order = [int(frame) for frame in np.argsort(-merits, kind="stable") if not np.isnan(merits[frame])]
    best_first = [[frame, _plain(values[frame]), place + 1] for place, frame in enumerate(order)]
    count = min(EXTREMES, max(1, len(order) // 2))  # no frame is among both
    return {"best": best_first[:count], "worst": best_first[::-1][:count]}


def _gaps(numbers: Numbers, one: int, other: int, metric: int) -> dict[str, list[Any]]:
    """Frames where the second method gains most in merit over the first, and where it loses most."""
    values, merits = numbers.values[:, metric], METRICS[numbers.keys[metric]].merit(numbers.values[:, metric])
    with np.errstate(invalid="ignore"):  # two infinite values have no difference
        gains, gaps = merits[other] - merits[one], values[other] - values[one]
    order = [int(frame) for frame in np.argsort(-gains, kind="stable")]
    best = [[frame, _plain(gaps[frame])] for frame in order if gains[frame] > 0]
    worst = [[frame, _plain(gaps[frame])] for frame in order[::-1] if gains[frame] < 0]
    return {"best": best[:EXTREMES], "worst": worst[:EXTREMES]}


def _plain(value: float) -> float | str | None:
    """A number as JSON can hold it, short."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.6g}")


def printable(name: str) -> str:
    """A name that can be written: file names need not be Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()


# Rows of the tables.


def metric_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """A row for each metric: what it is and whose definition was used."""
    conventions = next(iter(numbers.evaluations.values())).conventions
    rows = []
    for key in numbers.keys:
        metric, used = METRICS[key], conventions[key]
        change = "" if used == "default" else metric.conventions.get(used, "")
        rows.append(
            {
                "name": metric.name,
                "arrow": metric.arrow,
                "better": BETTER[metric.direction],
                "summary": metric.summary.replace("`", ""),
                "reference": metric.reference,
                "convention": used,
                "fallback": used != numbers.convention,
                "change": change,
                "title": f"{metric.name}, {BETTER[metric.direction]}, convention {used}",
            }
        )
    return rows


def method_rows(numbers: Numbers, ranks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each method: the summary of each metric.

    Args:
        numbers: The scores.
        ranks: `data`, for its ranks.
    """
    decimals = numbers.decimals()
    several = len(numbers.frames) > 1
    best = _best(numbers)
    mean_ranks = [one[0] for one in ranks.get("meanRanks", [])]
    rows = []
    for method, name in enumerate(numbers.methods):
        cells = []
        for metric, summary in enumerate(numbers.summaries[method]):
            places = decimals[metric]
            rank = ranks["ranks"][method][metric][0] if numbers.comparisons else None
            spread = several and not math.isnan(summary.std)
            cells.append(
                {
                    "value": "" if math.isnan(summary.mean) else _plain(summary.mean),
                    "text": "undefined" if math.isnan(summary.mean) else number(summary.mean, places),
                    "interval": f"{number(summary.low, places)} – {number(summary.high, places)}" if spread else "",
                    "std": f"± {number(summary.std, places)}" if spread else "",
                    "place": "" if rank is None else f"rank {rank:g}",
                    "best": best[method, metric],
                    "missing": summary.undefined,
                }
            )
        row: dict[str, Any] = {"name": printable(name), "cells": cells}
        if numbers.comparisons:
            value, low, high = ranks["meanRanks"][method]
            row["mean_rank"] = {
                "value": "" if value is None else value,
                "text": "undefined" if value is None else f"{value:.2f}",
                "interval": f"{low:.2f} – {high:.2f}" if several and low is not None else "",
                "best": value is not None and value == min(one for one in mean_ranks if one is not None),
            }
        rows.append(row)
    return rows


def _best(numbers: Numbers) -> NDArray[np.bool_]:
    """Methods × metrics: which means are the best; none where all are equal."""
    means = np.array([[summary.mean for summary in row] for row in numbers.summaries])
    merits = np.stack([METRICS[key].merit(means[:, index]) for index, key in enumerate(numbers.keys)], axis=1)
    return _first(merits)


def _first(merits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows have the largest value of each column; none where nothing is smaller."""
    filled = np.where(np.isnan(merits), -np.inf, merits)
    first = (filled == filled.max(axis=0)) & ~np.isnan(merits)
    found: NDArray[np.bool_] = first & (first.sum(axis=0) < len(merits))
    return found


def frame_rows(
    numbers: Numbers, frame: int, places: NDArray[np.float64], decimals: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each metric: the values of a frame, and the place of each in the folder.

    Args:
        numbers: The scores.
        frame: Index of the frame.
        places: `numbers.places()`.
        decimals: `numbers.decimals()`.
    """
    values = numbers.values[:, :, frame]
    merits = np.stack([METRICS[key].merit(values[:, index]) for index, key in enumerate(numbers.keys)], axis=1)
    best = _first(merits)
    rows = []
    for metric, key in enumerate(numbers.keys):
        cells = []
        for method, name in enumerate(numbers.methods):
            value, place = values[method, metric], places[method, metric, frame]
            total = numbers.summaries[method][metric].count
            if math.isnan(value):
                reason = numbers.evaluations[name].reasons.get(key, {}).get(numbers.frames[frame], "")
                text = "undefined" if numbers.scored[method, frame] else "no score"
                cells.append({"text": text, "classes": "none", "reason": reason, "place": ""})
                continue
            tail = "high" if place <= total // 10 else "low" if place > total - total // 10 else ""
            classes = ["best"] * bool(best[method, metric]) + [tail] * bool(tail)
            cells.append(
                {
                    "text": number(value, decimals[metric]),
                    "classes": " ".join(classes),
                    "reason": "",
                    "place": f"{place:.0f}/{total}" if total > 1 else "",
                }
            )
        title = (
            f"{BETTER[METRICS[key].direction]}, convention {numbers.evaluations[numbers.methods[0]].conventions[key]}"
        )
        rows.append({"name": METRICS[key].name, "arrow": METRICS[key].arrow, "title": title, "cells": cells})
    return rows


def undefined_rows(numbers: Numbers, pages: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each metric, method and reason with which values are undefined."""
    page_of = dict(zip(numbers.frames, pages, strict=True))
    rows = []
    for key in numbers.keys:
        for method, evaluation in numbers.evaluations.items():
            undefined = evaluation.values[key]
            names = [name for name, value in zip(evaluation.frames, undefined, strict=True) if math.isnan(value)]
            by_reason: dict[str, list[str]] = {}
            for name in names:
                by_reason.setdefault(evaluation.reasons.get(key, {}).get(name, "") or "no reason given", []).append(
                    name
                )
            rows += [
                {
                    "metric": METRICS[key].name,
                    "method": printable(method),
                    "count": len(where),
                    "reason": reason,
                    "examples": [(page_of[name], printable(name)) for name in where[:EXAMPLES]],
                }
                for reason, where in by_reason.items()
            ]
    return rows


def absent_rows(numbers: Numbers, pages: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each method that lacks frames."""
    rows = []
    for method, name in enumerate(numbers.methods):
        lacking = np.flatnonzero(~numbers.scored[method]).tolist()
        if lacking:
            examples = [(pages[frame], printable(numbers.frames[frame])) for frame in lacking[:EXAMPLES]]
            rows.append({"method": printable(name), "count": len(lacking), "examples": examples})
    return rows
