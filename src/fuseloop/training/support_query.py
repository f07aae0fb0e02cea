"""Which pairs a meta step learns from and which it is judged by: two subsets that share none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuseloop.errors import ConfigurationError


class Split(NamedTuple):
    """Indices of pairs, in random order.

    Attributes:
        support: Of the inner steps, (size,) int64.
        query: Of the judgement, as many others.
    """

    support: NDArray[np.int64]
    query: NDArray[np.int64]


def split_pairs(count: int, size: int, *, seed: int, epoch: int = 0) -> Split:
    """Draws two disjoint subsets of a data set, a pure function of its arguments.

    Source: TDFusion (arXiv 2412.03240), which draws 200 and 200 anew in each epoch.

    Args:
        count: Number of pairs in the data set.
        size: Number of pairs in each subset, at least 1.
        seed: Of all draws.
        epoch: Which draw it is.

    Raises:
        ConfigurationError: There are too few pairs.
    """
    if size < 1:
        raise ConfigurationError(f"support and query need at least 1 pair each, got {size}")
    if 2 * size > count:
        most = f"take at most {count // 2} of each" if count > 1 else "at least 2 pairs are needed"
        raise ConfigurationError(
            f"support and query of {size} pairs each, which share none, need {2 * size} pairs, and there are {count}; "
            f"{most}"
        )
    drawn = np.random.default_rng([seed, epoch]).permutation(count)[: 2 * size].astype(np.int64)
    return Split(drawn[:size], drawn[size:])
