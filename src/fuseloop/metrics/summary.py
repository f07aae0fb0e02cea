"""From the values of many frames to a mean with an interval, and to paired differences between methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    return summarise_columns(np.asarray(values, dtype=np.float64)[:, None], seed=seed, resamples=resamples)[0]


def summarise_columns(
    columns: NDArray[np.floating], *, seed: int = 0, resamples: int = 10_000, block: int = 256
) -> list[Summary]:
    """What `summarise` gives for each column, some hundred times as fast for many: the frames are drawn once for all.

    Args:
        columns: Frames × columns; NaN where undefined.
        seed: See `summarise`.
        resamples: See `summarise`.
        block: Columns worked on at a time, which bounds the memory.
    """
    every = np.asarray(columns, dtype=np.float64)
    counts = (~np.isnan(every)).sum(axis=0)
    infinite = np.isinf(every).any(axis=0)
    lows, highs = np.full(every.shape[1], np.nan), np.full(every.shape[1], np.nan)
    for count in np.unique(counts[(counts > 0) & ~infinite]).tolist():
        alike = np.flatnonzero((counts == count) & ~infinite)
        for chosen in np.array_split(alike, -(-len(alike) // block)):
            kept = every[:, chosen].T[~np.isnan(every[:, chosen].T)].reshape(len(chosen), count)
            means = [times @ kept.T / count for times in redraws(count, seed=seed, resamples=resamples)]
            low, high = np.percentile(np.concatenate(means), (2.5, 97.5), axis=0)
            # Sums of products round differently than a mean: equal values must keep an interval of no width.
            lows[chosen] = np.clip(low, kept.min(axis=1), kept.max(axis=1))
            highs[chosen] = np.clip(high, kept.min(axis=1), kept.max(axis=1))
    return [
        _summary(values[~np.isnan(values)], float(low), float(high), len(values))
        for values, low, high in zip(every.T, lows, highs, strict=True)
    ]


def redraws(frames: int, *, seed: int = 0, resamples: int = 10_000) -> Iterator[NDArray[np.float64]]:
    """How often each frame is drawn in each resample of the bootstrap.

    Yields:
        Blocks of rows, resamples × frames: as many at a time as keep the memory small.
    """
    random = np.random.default_rng(seed)
    step = max(1, 250_000 // frames)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(frames, size=(size, frames)) + frames * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * frames)
        yield times.reshape(size, frames).astype(np.float64)


def _summary(kept: NDArray[np.float64], low: float, high: float, frames: int) -> Summary:
    undefined = frames - len(kept)
    if len(kept) == 0:
        return Summary(np.nan, np.nan, np.nan, np.nan, np.nan, 0, undefined)
    if np.isinf(kept).any():  # as the PSNR of equal images: nothing spreads around an infinite mean
        return Summary(float(kept.mean()), float(np.median(kept)), np.nan, np.nan, np.nan, len(kept), undefined)
    std = float(kept.std(ddof=1)) if len(kept) > 1 else 0.0
    return Summary(float(kept.mean()), float(np.median(kept)), std, low, high, len(kept), undefined)


def difference(values: Values, baseline: Values, *, seed: int = 0, resamples: int = 10_000) -> Summary:
    """Summary of `values - baseline`, frame by frame; frames where either is undefined are left out and counted.

    Raises:
        ValueError: The two have different lengths.
    """
    if len(values) != len(baseline):
        raise ValueError(f"paired differences need the same frames, got {len(values)} and {len(baseline)} values")
    pairs = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    return summarise(pairs[0] - pairs[1], seed=seed, resamples=resamples)
