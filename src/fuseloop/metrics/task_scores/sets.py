"""What the scores of all three tasks share: scores of a set of frames, and intervals from drawing the frames again.

None of these scores is a mean of values of single frames, so the bootstrap recomputes the score of every drawn set from
what was kept of each frame.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuseloop.errors import ConfigurationError, LabelError

if TYPE_CHECKING:
    from rich.table import Table

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
_BLOCK = 128  # drawn sets worked on at a time, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval of a score.

    Attributes:
        value: Of the frames themselves; a difference of two such values for `differences`.
        low: Percentile 2.5 of the drawn sets.
        high: Percentile 97.5.
        undefined: In how many drawn sets the score was undefined; they are left out.
    """

    value: float
    low: float
    high: float
    undefined: int = 0


class TaskScores(ABC):
    """Scores of a set of frames, as fractions.

    Attributes:
        task: "detection", "segmentation" or "saliency".
        frames: Names of the frames, in the order in which they were given.
    """

    task: ClassVar[str]
    frames: tuple[str, ...]

    @property
    @abstractmethod
    def values(self) -> dict[str, float]:
        """Every score by its key; NaN where it is undefined."""

    @property
    @abstractmethod
    def undefined(self) -> dict[str, str]:
        """Keys of undefined scores, and why."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the frames, for JSON."""

    @abstractmethod
    def resample(self, counts: Counts) -> dict[str, Floats]:
        """Every score of sets that hold frame i `counts[..., i]` times.

        Args:
            counts: R×F, whole numbers from 0.

        Returns:
            R values for each key of `values`.
        """

    @abstractmethod
    def table(self, intervals: Mapping[str, Interval] | None = None) -> Table:
        """The scores for a terminal, with intervals where they are given."""

    def to_json(self, intervals: Mapping[str, Interval] | None = None) -> dict[str, Any]:
        """Everything for `json.dump`: undefined scores are None, with their reason under `undefined`."""
        content: dict[str, Any] = {
            "task": self.task,
            "settings": self.settings,
            "scores": {key: None if math.isnan(value) else value for key, value in self.values.items()},
            "undefined": self.undefined,
            "frames": list(self.frames),
        }
        if intervals is not None:
            content["intervals"] = {
                key: None if math.isnan(found.low) else [found.low, found.high] for key, found in intervals.items()
            }
        return content


def intervals(scores: TaskScores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Bootstrap intervals of every score, from drawing as many frames again with replacement.

    Args:
        scores: Of the frames.
        resamples: How many sets are drawn.
        seed: Of the drawing.
    """
    drawn = resampled(scores, resamples=resamples, seed=seed)
    return {key: interval_of(value, drawn[key]) for key, value in scores.values.items()}


def differences(
    scores: TaskScores, baseline: TaskScores, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Differences of every score to those of another method on the same frames, from the same drawn sets.

    Args:
        scores: Of the method.
        baseline: Subtracted from it.
        resamples: See `intervals`.
        seed: See `intervals`.

    Raises:
        ValueError: The two have different frames or settings, or other scores.
    """
    if scores.frames != baseline.frames or scores.settings != baseline.settings:
        raise ValueError("paired differences need the same frames in the same order, and the same settings")
    own, other = (resampled(each, resamples=resamples, seed=seed) for each in (scores, baseline))
    values = baseline.values
    return {key: interval_of(value - values[key], own[key] - other[key]) for key, value in scores.values.items()}


def resampled(scores: TaskScores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Floats]:
    """Every score of every drawn set. The sets depend on the number of frames and on the seed alone.

    So what two methods have in the same place is of the same frames, and their difference is paired.

    Args:
        scores: Of the frames.
        resamples: How many sets are drawn.
        seed: Of the drawing.
    """
    count = len(scores.frames)
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    blocks = [scores.resample(counts[start : start + _BLOCK]) for start in range(0, resamples, _BLOCK)]
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def interval_of(value: float, drawn: Floats) -> Interval:
    """The interval of a score.

    Args:
        value: Of the frames themselves.
        drawn: Of every drawn set, NaN where it is undefined.
    """
    kept = drawn[~np.isnan(drawn)]
    if math.isnan(value) or len(kept) == 0:
        return Interval(value, math.nan, math.nan, len(drawn) - len(kept))
    low, high = np.percentile(kept, (2.5, 97.5))
    return Interval(value, float(low), float(high), len(drawn) - len(kept))


def as_array(given: ArrayLike) -> NDArray[Any]:
    """An array of what was given, also of a tensor on any device."""
    import torch

    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        if given.dtype == torch.bfloat16:  # NumPy has none
            given = given.float()
        return given.numpy()
    return np.asarray(given)


def names_of(frames: Sequence[Any]) -> tuple[str, ...]:
    """Names of the frames of a set.

    Raises:
        LabelError: There is no frame, or two have one name.
    """
    names = tuple(frame.name for frame in frames)
    if not names:
        raise LabelError("there is no frame to score; check the folder and the split")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise LabelError(f"several frames are called {', '.join(repeated[:5])}; give each its own name")
    return names


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, each once.

    Raises:
        ConfigurationError: There is none, or two are the same.
    """
    names = tuple(classes)
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"classes need names of their own, got {', '.join(names) or 'none'}")
    return names


def mean_of(values: Floats) -> Floats:
    """Mean over the last axis without what is NaN; NaN where all of it is."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    means: Floats = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return means


def cell(
    values: Mapping[str, float], key: str, intervals: Mapping[str, Interval] | None, *, undefined: str = "undefined"
) -> str:
    """A score for a table, its interval in a second line."""
    if math.isnan(values[key]):
        return undefined
    if intervals is None:
        return f"{values[key]:.3f}"
    return f"{values[key]:.3f}\n{intervals[key].low:.3f}–{intervals[key].high:.3f}"
