"""Scores with intervals: of frames drawn again, and of trainings drawn again where there are several.

All figures of a data set are of the same drawn sets of frames, so every difference is paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.looks import Look, Looks
from fuseloop.evaluation.results import SHOWN
from fuseloop.metrics.task_scores import Interval, interval_of, resampled
from fuseloop.tasks.protocol import Task

SEED, RESAMPLES = 0, 1000
MAIN: dict[Task, str] = {"detection": "mAP50:95", "segmentation": "mIoU", "saliency": "F/mean"}
"""The score of each task that stands for the others where there is room for one."""

Floats = NDArray[np.float64]
Cells = Mapping[str, Mapping[str, Sequence[Look]]]


class Figure(NamedTuple):
    """A score, or a difference of scores.

    Attributes:
        value: Of the frames themselves.
        drawn: Of every drawn set.
    """

    value: float
    drawn: Floats

    def minus(self, other: Figure) -> Figure:
        """The paired difference."""
        return Figure(self.value - other.value, self.drawn - other.drawn)

    @property
    def interval(self) -> Interval:
        """Its 95 % interval."""
        return interval_of(self.value, self.drawn)


def over_trainings(figures: Sequence[Figure]) -> Figure:
    """The mean over trainings, each drawn set of frames with trainings that are drawn again too.

    With few trainings this makes the interval a little too narrow, as every bootstrap of few does: of three it finds
    two thirds of their variance.
    """
    count = len(figures)
    shares = np.random.default_rng([SEED, count]).multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    drawn = (shares * np.stack([figure.drawn for figure in figures], axis=1)).sum(axis=1)
    return Figure(float(np.mean([figure.value for figure in figures])), drawn)


class Figures:
    """Figures of what was gathered.

    Args:
        looks: What was gathered.
    """

    def __init__(self, looks: Looks) -> None:
        self.looks = looks
        self._drawn: dict[Look, dict[str, Figure]] = {}

    def of(self, look: Look, key: str) -> Figure:
        """A score of a look."""
        if look not in self._drawn:
            scores = self.looks.scores(look)
            drawn = resampled(scores, resamples=RESAMPLES, seed=SEED)
            self._drawn[look] = {name: Figure(value, drawn[name]) for name, value in scores.values.items()}
        return self._drawn[look][key]

    def mean(self, looks: Sequence[Look], key: str) -> Figure:
        """The mean over looks at what several trainings made."""
        return over_trainings([self.of(look, key) for look in looks])

    def difference(self, looks: Sequence[Look], baseline: Sequence[Look], key: str) -> Figure:
        """The difference to a baseline.

        Raises:
            ValueError: The two were scored otherwise, such as for other classes.
        """
        settings = [self.looks.scores(look).settings for look in (*looks, *baseline)]
        if any(one != settings[0] for one in settings):
            raise ValueError(f"{looks[0].network} and {baseline[0].network} are scored by other settings")
        return self.mean(looks, key).minus(self.mean(baseline, key))

    def task(self, look: Look) -> Task:
        """What the network that looks does."""
        return self.looks.networks[look.network].task


@dataclass(frozen=True)
class Grid:
    """A table of scores, and one of differences.

    Attributes:
        cells: The looks whose mean is shown, by row and column.
        baselines: For rows that are compared, the row that they are compared to.
        every: Whether all scores of a task are shown, or the main one.
    """

    cells: Cells
    baselines: Mapping[str, str] = field(default_factory=dict)
    every: bool = True

    @property
    def looks(self) -> list[Look]:
        """All that has to be looked at."""
        return [look for row in self.cells.values() for looks in row.values() for look in looks]

    def scores(self, figures: Figures) -> list[list[str]]:
        """The scores with their intervals, first the head."""
        rows = [
            [
                label,
                *(cell(figures.mean(row[name], key)) if name in row else "" for name, key, _ in self._columns(figures)),
            ]
            for label, row in self.cells.items()
        ]
        return [self._head(figures), *rows]

    def differences(self, figures: Figures) -> list[list[str]]:
        """The differences with their intervals, bold where these exclude zero, first the head."""
        rows = []
        for label, other in self.baselines.items():
            row, baseline = self.cells[label], self.cells[other]
            rows.append([label])
            for name, key, _ in self._columns(figures):
                there = name in row and name in baseline
                rows[-1].append(change(figures.difference(row[name], baseline[name], key)) if there else "")
        return [self._head(figures), *rows]

    def _head(self, figures: Figures) -> list[str]:
        return ["images", *(f"{label}<br>{name}" for name, _, label in self._columns(figures))]

    def _columns(self, figures: Figures) -> list[tuple[str, str, str]]:
        """Column, key and label of every score."""
        tasks = {name: figures.task(looks[0]) for row in self.cells.values() for name, looks in row.items()}
        return [
            (name, key, label)
            for name, task in tasks.items()
            for key, label in SHOWN[task].items()
            if self.every or key == MAIN[task]
        ]


def number(value: float) -> str:
    """A score."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def cell(figure: Figure | Interval) -> str:
    """A score with its interval."""
    found = figure.interval if isinstance(figure, Figure) else figure
    if math.isnan(found.low):
        return number(found.value)
    return f"{found.value:.3f}<br>{found.low:.3f}–{found.high:.3f}"


def change(figure: Figure | Interval, decimals: int = 3) -> str:
    """A difference with its interval, bold where this excludes zero."""
    found = figure.interval if isinstance(figure, Figure) else figure
    if math.isnan(found.value) or math.isnan(found.low):
        return "undefined"
    value = f"{found.value:+.{decimals}f}"
    certain = found.low > 0 or found.high < 0
    return f"{f'**{value}**' if certain else value}<br>{found.low:+.{decimals}f} to {found.high:+.{decimals}f}"
