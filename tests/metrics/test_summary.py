"""Means come with intervals, and differences are taken frame by frame."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseloop.metrics import difference, summarise, summarise_columns

FLOATS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(FLOATS)
def test_the_interval_holds_the_mean(values: list[float]):
    found = summarise(values, resamples=200)
    assert found.mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.count == len(values)


def test_undefined_values_are_left_out_and_counted():
    found = summarise([1.0, math.nan, 3.0])
    assert (found.mean, found.median, found.count, found.undefined) == (2.0, 2.0, 2, 1)
    assert found.std == pytest.approx(math.sqrt(2))


def test_nothing_defined_gives_nothing():
    found = summarise([math.nan, math.nan])
    assert math.isnan(found.mean)
    assert (found.count, found.undefined) == (0, 2)


def test_an_infinite_value_is_not_hidden():
    found = summarise([1.0, math.inf])
    assert found.mean == math.inf
    assert math.isnan(found.std)


def test_a_single_value_has_no_spread():
    found = summarise([4.0])
    assert (found.mean, found.std, found.low, found.high) == (4.0, 0.0, 4.0, 4.0)


def test_the_seed_makes_it_repeatable():
    values = np.random.default_rng(1).normal(size=40)
    assert summarise(values, seed=3) == summarise(values, seed=3)
    assert summarise(values, seed=3) != summarise(values, seed=4)


def test_the_interval_is_that_of_the_mean():
    """For many normal values it is close to mean ± 1.96 σ/√n."""
    values = np.random.default_rng(2).normal(size=400)
    found = summarise(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)


def test_paired_differences_see_through_what_frames_share():
    random = np.random.default_rng(3)
    frames = random.normal(scale=10, size=50)
    better, worse = frames + 1 + random.normal(scale=0.1, size=50), frames
    found = difference(better, worse)
    assert found.low > 0.9
    assert found.high < 1.1
    assert found.high - found.low < 0.1 * (summarise(better).high - summarise(better).low)


def test_a_difference_is_undefined_where_either_is():
    found = difference([1.0, math.nan, 3.0, 4.0], [0.0, 0.0, math.nan, 1.0])
    assert (found.mean, found.count, found.undefined) == (2.0, 2, 2)


def test_differences_need_the_same_frames():
    with pytest.raises(ValueError, match="3 and 2"):
        difference([1.0, 2.0, 3.0], [1.0, 2.0])


@given(st.lists(st.sampled_from([0.1, -3.0, 7.25, math.nan, math.inf]), min_size=1, max_size=12), st.integers(1, 4))
def test_columns_have_the_summaries_that_each_has_alone(values: list[float], block: int):
    columns = np.stack([np.roll(values, shift) for shift in range(3)] + [np.full(len(values), 0.1)], axis=1)
    together = summarise_columns(columns, resamples=100, block=block)
    assert [astuple(one) for one in together] == [
        pytest.approx(astuple(summarise(column, resamples=100)), nan_ok=True) for column in columns.T
    ]


def test_the_interval_is_between_percentiles_of_means_of_frames_drawn_again():
    values = np.random.default_rng(4).normal(size=300)
    drawn = np.random.default_rng(5).integers(300, size=(2000, 300))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    found = summarise(values, seed=5, resamples=2000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_equal_values_have_an_interval_of_no_width():
    found = summarise([0.1] * 37)
    assert found.low == found.high == 0.1
