from __future__ import annotations

import pytest
import torch

from fuseloop.metrics import functional
from fuseloop.training.losses import LOSSES


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 2, 1, 48, 48, generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_finite_scalar_with_a_finite_gradient(name, images):
    fused, infrared, luma = images
    fused.requires_grad_()
    loss = LOSSES[name](fused, infrared, luma)
    (gradient,) = torch.autograd.grad(loss, fused)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["intensity", "gradient", "qabf", "vif", "ssim", "qcv"])
def test_a_fusion_near_both_sources_costs_less_than_noise(name, images):
    noise, source, _ = images
    assert LOSSES[name](source * 0.98, source, source) < LOSSES[name](noise, source, source)


def test_scd_wants_what_each_source_lacks_in_the_other(images):
    _, infrared, luma = images
    assert LOSSES["scd"]((infrared + luma) / 2, infrared, luma) < LOSSES["scd"](1 - infrared, infrared, luma)


@pytest.mark.parametrize("name", ["qabf", "vif", "scd", "ssim"])
def test_a_metric_loss_is_what_the_metric_lacks_of_one(name, images):
    fused, infrared, luma = images
    metric = getattr(functional, name)(infrared, luma, fused, quantize=False)
    torch.testing.assert_close(LOSSES[name](fused, infrared, luma), 1 - metric.mean())


def test_a_pair_without_a_defined_metric_adds_nothing(images):
    fused, infrared, luma = images.clone()
    infrared[1] = 0.5  # the correlation with a flat image is undefined
    alone = LOSSES["scd"](fused[:1], infrared[:1], luma[:1])
    torch.testing.assert_close(LOSSES["scd"](fused, infrared, luma), alone / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_diverged_image_makes_the_loss_not_finite_instead_of_an_error(name, images):
    fused, infrared, luma = images
    assert not LOSSES[name](fused * torch.nan, infrared, luma).isfinite()
