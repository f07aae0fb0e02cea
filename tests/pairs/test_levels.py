"""Raw values to [0, 1] and back."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fuseloop.errors import ConfigurationError, ImageError
from fuseloop.pairs.levels import INFRARED_DEFAULT, VISIBLE_DEFAULT, Levels, Limits, from_unit, to_unit

INFRARED, VISIBLE = Levels.parse(INFRARED_DEFAULT), Levels.parse(VISIBLE_DEFAULT)


def thermal(seed=0, shape=(120, 160)):
    """Raw 14-bit values as a thermal camera gives them: a narrow scene, one dead and one burning pixel."""
    raw = np.random.default_rng(seed).normal(7500, 60, shape).astype(np.uint16)
    raw[3, 4], raw[5, 6] = 0, 16_383
    return raw


# ------------------------------------------------------------------------------------------------------------ the rules


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255), ("uint16", 65_535)])
def test_visible_images_map_the_range_of_their_type(dtype, largest):
    assert VISIBLE.limits(np.array([[3, 9]], dtype)) == Limits(0, largest)


def test_infrared_images_of_8_bits_map_the_range_of_their_type():
    assert INFRARED.limits(np.array([[3, 9]], np.uint8)) == Limits(0, 255)


def test_raw_thermal_fills_the_range_whatever_single_pixels_do():
    raw = thermal()
    low, high = INFRARED.limits(raw)
    assert 7200 < low < 7350
    assert 7650 < high < 7800
    assert to_unit(raw, Limits(low, high)).std() > 0.1
    assert to_unit(raw, Limits(raw.min(), raw.max())).std() < 0.01  # what minimum and maximum would have given


def test_fixed_ranges_do_not_look_at_the_image():
    assert Levels.parse("range:7000,8000").limits(thermal()) == Limits(7000, 8000)
    assert Levels.parse("range:-20,40.5").limits(np.zeros((2, 2), np.float32)) == Limits(-20, 40.5)


@pytest.mark.parametrize("levels", [INFRARED, VISIBLE])
def test_floats_in_0_to_1_are_taken_as_they_are(levels):
    assert levels.limits(np.array([[0.2, 1.0]], np.float32)) == Limits(0, 1)


@pytest.mark.parametrize("value", [-0.5, 1.01, 300.0])
def test_floats_outside_need_a_rule_that_the_user_chooses(value):
    pixels = np.array([[0.5, value]], np.float32)
    with pytest.raises(ImageError, match=r"not from 0 to 1; choose the levels percentile, .* or range:LOW,HIGH"):
        INFRARED.limits(pixels)
    low, high = Levels.parse("percentile").limits(pixels)
    assert (low, high) == (pixels.min(), pixels.max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ["auto", "full", "percentile", "range:0,1"])
def test_nan_and_infinity_are_errors_under_every_rule(rule, bad):
    pixels = np.zeros((8, 8), np.float32)
    pixels[2, 3] = bad
    with pytest.raises(ImageError, match="NaN or infinity; replace"):
        Levels.parse(rule).limits(pixels)


@settings(deadline=None)
@given(
    st.sampled_from(["uint8", "uint16", "float32"]).flatmap(
        lambda dtype: arrays(
            dtype,
            array_shapes(min_dims=2, max_dims=3, max_side=9),
            elements={"min_value": 0, "max_value": 1} if dtype == "float32" else None,
        )
    ),
    st.floats(0, 49),
    st.floats(51, 100),
)
def test_percentiles_are_those_of_numpy(pixels, low, high):
    expected = np.percentile(pixels, [low, high], method="inverted_cdf").astype(float)
    found = Levels("percentile", low, high).limits(pixels)
    assert found.low == expected[0]
    assert found.high == (expected[1] if expected[1] > expected[0] else expected[0] + 1)


def test_percentiles_of_a_large_image_need_no_copy_of_it():
    pixels = np.zeros((2000, 2000), np.uint16)
    tracemalloc.start()
    try:
        INFRARED.limits(pixels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6  # as float64 it would have 32 MB, and a sorted copy as much again


@pytest.mark.parametrize(
    "text",
    [
        "",
        "minmax",
        "full:0,1",
        "auto:1,2",
        "range",
        "range:1",
        "range:2,1",
        "range:1,1",
        "range:0,inf",
        "range:nan,1",
        "range:1,2,3",
        "range:a,b",
        "percentile:",
        "percentile:-1,99",
        "percentile:1,101",
        "percentile:99,1",
    ],
)
def test_unknown_rules_are_errors_that_list_the_known_ones(text):
    with pytest.raises(ConfigurationError, match=r"use auto, full, percentile, percentile:LOW,HIGH .* range:LOW,HIGH"):
        Levels.parse(text)


# -------------------------------------------------------------------------------------------- the map and its way back


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_integer_comes_back(dtype):
    every = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    limits = VISIBLE.limits(every)
    unit = to_unit(every, limits)
    assert unit.dtype == np.float32
    assert (unit[0], unit[-1]) == (0, 1)
    np.testing.assert_array_equal(from_unit(unit, dtype, limits), every)


@settings(deadline=None)
@given(st.integers(0, 65_534).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 65_535))))
def test_every_integer_within_any_limits_comes_back(ends):
    low, high = ends
    inside = np.arange(low, high + 1).astype(np.uint16)
    np.testing.assert_array_equal(from_unit(to_unit(inside, Limits(low, high)), np.uint16, Limits(low, high)), inside)


def test_8_bit_values_become_exactly_what_division_by_255_gives():
    every = np.arange(256).astype(np.uint8)
    np.testing.assert_array_equal(to_unit(every, Limits(0, 255)), every.astype(np.float32) / np.float32(255))


def test_floats_come_back_without_rounding_to_steps():
    pixels = np.random.default_rng(0).random((8, 9)).astype(np.float32)
    np.testing.assert_array_equal(from_unit(to_unit(pixels, Limits(0, 1)), np.float32, Limits(0, 1)), pixels)
    kelvin = 280 + 40 * pixels
    back = from_unit(to_unit(kelvin, Limits(280, 320)), np.float32, Limits(280, 320))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, kelvin, atol=1e-4)


def test_what_lies_outside_is_clipped():
    np.testing.assert_array_equal(to_unit(np.array([5, 10, 20, 30], np.uint16), Limits(10, 20)), [0, 0, 1, 1])
    outside = np.array([-0.2, 0.5, 1.7], np.float32)
    np.testing.assert_array_equal(from_unit(outside, np.uint8, Limits(0, 255)), [0, 128, 255])
    np.testing.assert_array_equal(from_unit(outside, np.float32, Limits(0, 1)), np.float32([0, 0.5, 1]))
    np.testing.assert_array_equal(outside, np.float32([-0.2, 0.5, 1.7]))  # the argument is not changed
    np.testing.assert_array_equal(from_unit(outside, np.uint16, Limits(-100, 70_000)), [0, 34_950, 65_535])


def test_halves_are_rounded_upwards():
    halves = np.array([0.5, 1.5, 2.5], np.float32) / 4
    np.testing.assert_array_equal(from_unit(halves, np.uint8, Limits(0, 4)), [1, 2, 3])


@pytest.mark.parametrize("rule", ["auto", "percentile", "percentile:0,100"])
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 9), ("uint16", 0), ("uint16", 65_535), ("float32", 0.25)])
def test_a_flat_image_maps_to_finite_values_and_back(rule, dtype, value):
    flat = np.full((8, 8), value, dtype)
    limits = Levels.parse(rule).limits(flat)
    unit = to_unit(flat, limits)
    assert np.isfinite(unit).all()
    np.testing.assert_array_equal(from_unit(unit, dtype, limits), flat)


def test_a_single_hot_spot_on_a_flat_scene_stays_visible():
    raw = np.full((100, 100), 7000, np.uint16)
    raw[50, 50] = 9000
    unit = to_unit(raw, INFRARED.limits(raw))
    assert unit[50, 50] == 1
    assert unit.sum() == 1
