"""The learned fusion loss is that of the paper, and with its options that of the published code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseloop.errors import ConfigurationError
from fuseloop.training.learned_loss import (
    LearnedFusionLoss,
    full_size,
    learned_gradient_loss,
    sobel,
    weighted_intensity_loss,
)


def images(count: int, batch: int = 2, height: int = 7, width: int = 9) -> list[Tensor]:
    torch.manual_seed(0)
    return [*torch.rand(count, batch, 1, height, width, dtype=torch.float64)]


def weights(like: Tensor) -> Tensor:
    first = torch.rand(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(1))
    return torch.cat([first, 1 - first], dim=1)


class TestIntensity:
    @pytest.mark.parametrize(("power", "best"), [(1, 0.66), (2, 0.776)])
    def test_the_best_image_is_the_weighted_mean(self, power, best):
        infrared, luma = torch.full((2, 1, 1, 1, 1), 0.9, dtype=torch.float64)
        luma = luma - 0.8
        fused = torch.tensor(0.5, dtype=torch.float64).view(1, 1, 1, 1).requires_grad_()
        pixel = torch.tensor([0.7, 0.3], dtype=torch.float64).view(1, 2, 1, 1)
        (slope,) = torch.autograd.grad(
            weighted_intensity_loss(fused, infrared, luma, pixel, power), fused, create_graph=True
        )
        (curvature,) = torch.autograd.grad(slope, fused)
        assert round(float((fused - slope / curvature).detach()), 3) == best

    def test_it_is_the_sum_of_two_weighted_means(self):
        fused, infrared, luma = images(3)
        both = weights(fused)
        first, second = both[:, :1], both[:, 1:]
        paper = (first * (fused - infrared) ** 2).mean() + (second * (fused - luma) ** 2).mean()
        code = ((first * (infrared - fused)) ** 2).mean() + ((second * (luma - fused)) ** 2).mean()
        torch.testing.assert_close(weighted_intensity_loss(fused, infrared, luma, both), paper)
        torch.testing.assert_close(weighted_intensity_loss(fused, infrared, luma, both, 2), code)

    def test_weights_of_whole_images_and_of_a_lower_resolution_will_do(self):
        fused = images(1)[0]
        whole, coarse = (weights(torch.empty(2, 1, *size, dtype=torch.float64)) for size in ((1, 1), (3, 4)))
        assert full_size(whole, fused) is whole
        stretched = full_size(coarse, fused)
        assert stretched.shape == (2, 2, 7, 9)
        torch.testing.assert_close(stretched.sum(dim=1), torch.ones(2, 7, 9, dtype=torch.float64))

    @pytest.mark.parametrize("shape", [(2, 1, 7, 9), (1, 2, 7, 9), (2, 3, 7, 9), (2, 2)])
    def test_anything_but_two_weights_an_image_is_refused(self, shape):
        with pytest.raises(ConfigurationError, match="2×2×h×w"):
            full_size(torch.rand(shape), images(1)[0])


class TestGradient:
    def test_sobel_of_a_flat_image_is_zero_but_for_a_border_of_zeros(self):
        flat = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
        assert not sobel(flat).any()
        seen = sobel(flat, "zero").abs()
        assert not seen[..., 1:-1, 1:-1].any()
        assert seen[:, 0, :, 0].tolist() == [[1.5, 2, 2, 2, 2, 1.5]]

    def test_sobel_sees_the_slope_along_each_axis(self):
        ramp = torch.arange(6.0).expand(1, 1, 5, 6)
        inside = sobel(ramp)[..., 1:-1, 1:-1]
        assert torch.equal(inside[:, 0], torch.full((1, 3, 4), 8.0))
        assert not inside[:, 1].any()
        assert torch.equal(sobel(ramp.mT)[:, 1], sobel(ramp)[:, 0].mT)

    def test_the_stronger_derivative_counts_with_its_sign_along_each_axis(self):
        rising = torch.arange(6.0).expand(1, 1, 6, 6) / 10
        falling = -2 * rising
        zero = torch.zeros_like(rising)
        assert learned_gradient_loss(falling, rising, falling) == 0
        assert learned_gradient_loss(rising, rising, falling) > 0
        across = rising.mT  # the one changes along rows alone, the other along columns alone
        assert learned_gradient_loss(rising + across, rising, across) < 1e-6
        assert learned_gradient_loss(zero, zero, zero) == 0

    def test_where_both_are_equally_strong_that_of_the_infrared_image_counts(self):
        rising = torch.arange(6.0).expand(1, 1, 6, 6) / 10
        assert learned_gradient_loss(rising, rising, -rising) == 0
        assert learned_gradient_loss(-rising, rising, -rising) > 0

    def test_magnitudes_have_no_sign(self):
        rising = torch.arange(6.0).expand(1, 1, 6, 6) / 10
        assert learned_gradient_loss(-rising, rising, 0.5 * rising, rule="magnitude_max") == 0
        assert learned_gradient_loss(0.5 * rising, rising, 0.5 * rising, rule="magnitude_max") > 0

    @pytest.mark.parametrize("padding", ["replicate", "zero"])
    def test_it_is_what_the_description_says_pixel_by_pixel(self, padding):
        fused, infrared, luma = images(3, batch=1)
        kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
        expected = torch.zeros((), dtype=torch.float64)
        for taps in (kernel, kernel.T):

            def slope(image: Tensor, taps: Tensor = taps) -> Tensor:
                mode = "replicate" if padding == "replicate" else "constant"
                return F.conv2d(F.pad(image, (1, 1, 1, 1), mode=mode), taps[None, None])

            first, second = slope(infrared), slope(luma)
            stronger = first.clone()
            stronger[second.abs() > first.abs()] = second[second.abs() > first.abs()]
            expected += (slope(fused) - stronger).abs().mean()
        torch.testing.assert_close(learned_gradient_loss(fused, infrared, luma, padding=padding), expected)


class TestLoss:
    def test_it_adds_the_gradient_term_with_its_weight(self):
        fused, infrared, luma = images(3)
        both = weights(fused)
        loss = LearnedFusionLoss(weight_power=2, gradient_weight=0.3, padding="zero", gradient_rule="magnitude_max")
        expected = weighted_intensity_loss(fused, infrared, luma, both, 2) + 0.3 * learned_gradient_loss(
            fused, infrared, luma, padding="zero", rule="magnitude_max"
        )
        torch.testing.assert_close(loss(fused, infrared, luma, both), expected)

    def test_without_the_gradient_term_the_intensity_is_left(self):
        fused, infrared, luma = images(3)
        both = weights(fused)
        alone = LearnedFusionLoss(gradient_weight=0)(fused, infrared, luma, both)
        assert torch.equal(alone, weighted_intensity_loss(fused, infrared, luma, both))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weight_power": 3}, "weight_power is 1"),
            ({"gradient_weight": -1.0}, "at least 0"),
            ({"gradient_weight": float("nan")}, "at least 0"),
            ({"padding": "reflect"}, "unknown padding 'reflect'; choose one of replicate, zero"),
            ({"gradient_rule": "mean"}, "unknown gradient_rule"),
        ],
    )
    def test_options_that_are_none_are_refused(self, options, message):
        with pytest.raises(ConfigurationError, match=message):
            LearnedFusionLoss(**options)
