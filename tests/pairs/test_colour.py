"""The colour maths of the fusion networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseloop.pairs.colour import OFFSET, rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.pairs.levels import Levels, from_unit, to_unit


def colour(*rgb):
    return torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("rgb", "ycbcr"),
    [
        ((0, 0, 0), (0, OFFSET, OFFSET)),
        ((1, 1, 1), (1, OFFSET, OFFSET)),
        ((1, 0, 0), (0.299, OFFSET - 0.1687, OFFSET + 0.5)),
        ((0, 1, 0), (0.587, OFFSET - 0.3313, OFFSET - 0.4187)),
        ((0, 0, 1), (0.114, OFFSET + 0.5, OFFSET - 0.0813)),
    ],
)
def test_the_corners_have_their_published_values(rgb, ycbcr):
    torch.testing.assert_close(rgb_to_ycbcr(colour(*rgb)), colour(*ycbcr), atol=1e-6, rtol=0)


def test_grey_has_no_colour():
    grey = torch.linspace(0, 1, 256).reshape(1, 1, 1, -1)
    y, cb, cr = rgb_to_ycbcr(grey.expand(1, 3, 1, -1)).split(1, dim=1)
    torch.testing.assert_close(y, grey, atol=1e-6, rtol=0)
    assert (cb - OFFSET).abs().max() < 1e-6
    assert (cr - OFFSET).abs().max() < 1e-6


def test_values_are_not_clamped():
    assert ycbcr_to_rgb(colour(1, OFFSET, OFFSET + 0.4)).max() > 1.5


def test_every_8_bit_colour_survives_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    green_blue = torch.stack(torch.meshgrid(levels, levels, indexing="ij"))  # 2×256×256
    limits = Levels.parse("full").limits(levels.numpy())
    for start in range(0, 256, 16):
        red = levels[start : start + 16].reshape(-1, 1, 1, 1).expand(-1, 1, 256, 256)
        rgb = torch.cat([red, green_blue.expand(len(red), -1, -1, -1)], dim=1)
        unit = torch.from_numpy(to_unit(rgb.numpy(), limits))
        back = from_unit(ycbcr_to_rgb(rgb_to_ycbcr(unit)).numpy(), rgb.numpy().dtype, limits)
        assert torch.equal(torch.from_numpy(back), rgb)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_float_colours_come_back_within_rounding_of_the_matrices(rgb):
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(colour(*rgb))), colour(*rgb), atol=2e-4, rtol=0)
