"""Support and query share no pair, and every draw can be drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.errors import ConfigurationError
from fuseloop.training.support_query import split_pairs


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 5))
def test_both_have_their_size_and_share_nothing(size, more, epoch):
    count = 2 * size + more
    support, query = split_pairs(count, size, seed=3, epoch=epoch)
    together = np.concatenate([support, query])
    assert len(support) == len(query) == size
    assert len({*together.tolist()}) == 2 * size
    assert together.min() >= 0
    assert together.max() < count


def test_seed_and_epoch_decide():
    first = split_pairs(100, 20, seed=1, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, split_pairs(100, 20, seed=1, epoch=2), strict=True))
    assert not np.array_equal(first.support, split_pairs(100, 20, seed=1, epoch=3).support)
    assert not np.array_equal(first.support, split_pairs(100, 20, seed=2, epoch=2).support)


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [
        (300, 200, "need 400 pairs, and there are 300; take at most 150 of each"),
        (3, 2, "at most 1 of each"),
        (1, 1, "at least 2 pairs are needed"),
        (0, 1, "there are 0"),
        (10, 0, "at least 1 pair each"),
    ],
)
def test_too_few_pairs_are_refused_with_what_would_do(count, size, message):
    with pytest.raises(ConfigurationError, match=message):
        split_pairs(count, size, seed=0)
