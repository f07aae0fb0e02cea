"""From the values of many frames to a mean with an interval, and to paired differences between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[np.floating]


@dataclass(frozen=True)
class Summary:
    """What many values say.

    Attributes:
        mean: Mean of the defined values, NaN when there is none.
        median: Their median.
        std: Their sample standard deviation, 0 for a single one.
        low: Lower end of the 95 % bootstrap interval of the mean.
        high: Upper end.
        count: How many values are defined.
        undefined: How many were NaN and left out.
    """

    mean: float
    median: float
    std: float
    low: float
    high: float
    count: int
    undefined: int


def summarise(values: Values, *, seed: int = 0, resamples: int = 10_000) -> Summary:
    """Summary of one value for each frame; NaN (undefined) values are left out and counted.

    Args:
        values: One for each frame.
        seed: Of the bootstrap.
        resamples: How many times the frames are drawn again, with replacement; the interval is between the percentiles
            2.5 and 97.5 of the means.
    """
    every = np.asarray(values, dtype=np.float64)
    kept = every[~np.isnan(every)]
    undefined = len(every) - len(kept)
    if len(kept) == 0:
        return Summary(np.nan, np.nan, np.nan, np.nan, np.nan, 0, undefined)
    if np.isinf(kept).any():  # as the PSNR of equal images: nothing spreads around an infinite mean
        return Summary(float(kept.mean()), float(np.median(kept)), np.nan, np.nan, np.nan, len(kept), undefined)
    drawn = np.random.default_rng(seed).integers(len(kept), size=(resamples, len(kept)))
    low, high = np.percentile(kept[drawn].mean(axis=1), (2.5, 97.5))
    std = kept.std(ddof=1) if len(kept) > 1 else 0.0
    return Summary(
        float(kept.mean()), float(np.median(kept)), float(std), float(low), float(high), len(kept), undefined
    )


def difference(values: Values, baseline: Values, *, seed: int = 0, resamples: int = 10_000) -> Summary:
    """Summary of `values - baseline`, frame by frame; frames where either is undefined are left out and counted.

    Raises:
        ValueError: The two have different lengths.
    """
    if len(values) != len(baseline):
        raise ValueError(f"paired differences need the same frames, got {len(values)} and {len(baseline)} values")
    pairs = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    return summarise(pairs[0] - pairs[1], seed=seed, resamples=resamples)
