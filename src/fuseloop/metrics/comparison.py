"""Several methods beside each other: who is better at what, by how much, and on which frames they differ most.

Methods are compared on the frames that were scored for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import ConfigurationError
from fuseloop.metrics.evaluate import Evaluation
from fuseloop.metrics.summary import Summary, summarise_columns
from fuseloop.metrics.table import METRICS


class Difference(NamedTuple):
    """How a method differs from the baseline in one metric.

    Attributes:
        summary: Of method - baseline, frame by frame.
        verdict: "better" or "worse" where the 95 % interval excludes that both are equally good, else "unclear", as on
            a single frame; "undefined" when no frame has values of both.
    """

    summary: Summary
    verdict: str


class Disagreement(NamedTuple):
    """How far apart the methods are on one frame.

    Attributes:
        frame: Its name.
        amount: Mean over the metrics of the distance between best and worst method, in units of the metric's standard
            deviation over all frames and methods.
        metric: The metric in which they are farthest apart.
        best: The method that is best in that metric.
        worst: The one that is worst.
    """

    frame: str
    amount: float
    metric: str
    best: str
    worst: str


@dataclass(frozen=True)
class Comparison:
    """Several methods beside each other.

    Attributes:
        frames: The frames that all methods were scored on.
        ranks: For each metric the rank of each method by its mean, 1 = best; methods that are equal share the mean of
            their ranks. A method that is undefined on all frames has none (NaN); for the others, frames where any of
            them is undefined are left out.
        ranked: The metrics in which every method has a rank.
        mean_ranks: For each method the mean over these; every metric counts the same, also those that measure nearly
            the same.
        baseline: The method that the others are compared to.
        differences: For each other method and each metric the difference to the baseline.
        disagreements: The frames on which the methods differ, the farthest apart first.
    """

    frames: tuple[str, ...]
    ranks: dict[str, dict[str, float]]
    ranked: tuple[str, ...]
    mean_ranks: dict[str, float]
    baseline: str
    differences: dict[str, dict[str, Difference]]
    disagreements: list[Disagreement]

    @property
    def ranked_of(self) -> str:
        """In words of which metrics the mean ranks are: how many, and which are left out and why."""
        left_out = [METRICS[key].name for key in self.ranks if key not in self.ranked]
        if not left_out:
            return f"{len(self.ranked)} metrics"
        why = "undefined for a method, or on no frame defined for all"
        return f"{len(self.ranked)} of {len(self.ranks)} metrics, without {', '.join(left_out)}: {why}"


def compare(evaluations: Mapping[str, Evaluation], *, baseline: str | None = None, seed: int = 0) -> Comparison:
    """Compares methods that were scored by the same metrics and conventions.

    Args:
        evaluations: At least two methods.
        baseline: The method to take differences to; the first by default.
        seed: Of the bootstrap.

    Raises:
        ConfigurationError: There is no such baseline, or no frame was scored for all methods.
        ValueError: There are fewer than two methods, or they were scored by different metrics or conventions.
    """
    methods = list(evaluations)
    if len(methods) < 2:
        raise ValueError(f"a comparison needs two methods, got {len(methods)}")
    conventions = evaluations[methods[0]].conventions
    if any(evaluation.conventions != conventions for evaluation in evaluations.values()):
        raise ValueError("a comparison needs the same metrics and the same conventions for all methods")
    reference = methods[0] if baseline is None else baseline
    if reference not in evaluations:
        raise ConfigurationError(f"there is no method {reference!r} to compare to; there are {', '.join(methods)}")
    everywhere = set.intersection(*(set(evaluation.frames) for evaluation in evaluations.values()))
    frames = tuple(name for name in evaluations[methods[0]].frames if name in everywhere)
    if not frames:
        raise ConfigurationError(f"no frame was scored for all of {', '.join(methods)}; score them on the same frames")
    common = [evaluations[method].only(frames) for method in methods]
    values = {key: np.stack([evaluation.values[key] for evaluation in common], axis=1) for key in conventions}
    ranks = {key: dict(zip(methods, _ranks(METRICS[key].merit(matrix)), strict=True)) for key, matrix in values.items()}
    ranked = tuple(key for key, row in ranks.items() if not np.isnan(list(row.values())).any())
    mean_ranks = {
        method: float(np.mean([ranks[key][method] for key in ranked])) if ranked else float("nan") for method in methods
    }
    differences = _differences(values, methods, reference, seed)
    disagreements = _disagreements(frames, methods, values)
    return Comparison(frames, ranks, ranked, mean_ranks, reference, differences, disagreements)


def _ranks(merit: NDArray[np.float64]) -> list[float]:
    """Ranks of the columns (methods) by their means over the rows (frames) without NaN."""
    known = ~np.isnan(merit).all(axis=0)
    rows = merit[~np.isnan(merit[:, known]).any(axis=1)]
    if not len(rows):
        return [float("nan")] * merit.shape[1]
    means = np.where(known, rows.mean(axis=0), np.nan)
    ranks = (means > means[:, None]).sum(axis=1) + ((means == means[:, None]).sum(axis=1) + 1) / 2
    return [float(rank) for rank in np.where(known, ranks, np.nan)]


def _differences(
    values: Mapping[str, NDArray[np.float64]], methods: list[str], baseline: str, seed: int
) -> dict[str, dict[str, Difference]]:
    others = [method for method in methods if method != baseline]
    columns = []
    for key, matrix in values.items():
        for scale in (matrix, METRICS[key].merit(matrix)):
            own = scale[:, [methods.index(method) for method in others]]
            with np.errstate(invalid="ignore"):  # two infinite values have no difference
                columns.append(own - scale[:, [methods.index(baseline)]])
    summaries = iter(summarise_columns(np.concatenate(columns, axis=1), seed=seed))
    found: dict[str, dict[str, Difference]] = {method: {} for method in others}
    for key in values:
        raw = [next(summaries) for _ in others]
        gains = [next(summaries) for _ in others]
        for method, summary, gain in zip(others, raw, gains, strict=True):
            if gain.count < 2:
                verdict = "unclear" if gain.count else "undefined"
            else:
                verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "unclear"
            found[method][key] = Difference(summary, verdict)
    return found


def _disagreements(
    frames: tuple[str, ...], methods: list[str], values: Mapping[str, NDArray[np.float64]]
) -> list[Disagreement]:
    spreads = {}
    for key, matrix in values.items():
        scale = matrix[np.isfinite(matrix)].std() if np.isfinite(matrix).any() else 0.0
        if scale > 0:
            with np.errstate(invalid="ignore"):
                spread = np.ptp(METRICS[key].merit(matrix), axis=1) / scale
            spreads[key] = np.where(np.isfinite(spread), spread, 0.0)
    if not spreads:
        return []
    table = np.stack(list(spreads.values()), axis=1)  # frames × metrics
    found = []
    amounts = table.mean(axis=1)
    for index in [place for place in np.argsort(-amounts, kind="stable") if amounts[place] > 0]:
        key = list(spreads)[int(table[index].argmax())]
        merit = METRICS[key].merit(values[key][index])
        best, worst = methods[int(np.nanargmax(merit))], methods[int(np.nanargmin(merit))]
        found.append(Disagreement(frames[index], float(amounts[index]), key, best, worst))
    return found
