"""Pairs of different sizes."""

import numpy as np
import pytest

from fuseloop.errors import PairError
from fuseloop.pairs.align import check_same_size, resize_to


def test_the_same_size_passes_whatever_the_channels():
    check_same_size(np.zeros((8, 9)), np.zeros((8, 9, 3)))


def test_an_error_names_both_sizes_width_first_and_the_way_out():
    with pytest.raises(PairError, match=r"infrared image is 320x240 and the visible image 640x480.*--align resize"):
        check_same_size(np.zeros((240, 320)), np.zeros((480, 640, 3)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [(12, 10), (41, 57), (12, 57)])
def test_resizing_keeps_type_channels_and_mean(dtype, channels, size):
    ramp = np.linspace(0, 200, 20 * 24).reshape(20, 24)
    pixels = np.broadcast_to(ramp[..., None] if channels else ramp, (20, 24, *channels)).astype(dtype)
    resized = resize_to(pixels, *size)
    assert resized.shape == (*size, *channels)
    assert resized.dtype == pixels.dtype
    assert resized.mean() == pytest.approx(pixels.mean(), abs=1)


def test_shrinking_averages_instead_of_dropping_pixels():
    stripes = np.tile(np.array([0, 100], np.uint8), (8, 8))
    np.testing.assert_array_equal(resize_to(stripes, 4, 8), np.full((4, 8), 50))


def test_the_same_size_is_left_alone():
    pixels = np.random.default_rng(0).random((8, 9))
    np.testing.assert_array_equal(resize_to(pixels, 8, 9), pixels)
