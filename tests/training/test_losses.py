from __future__ import annotations

import pytest
import torch

from fuseloop.metrics import functional
from fuseloop.training.losses import LOSSES, reward_penalty


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


class TestRewardPenalty:
    after = torch.tensor([0.7, 0.2, 1.3, 0.4, 0.9])
    before = torch.tensor([0.5, 0.3, 1.1, 0.4, 1.2])

    def gradient(self, **options) -> torch.Tensor:
        after, before = self.after.clone().requires_grad_(), self.before.clone().requires_grad_()
        reward_penalty(after, before, **options).backward()
        assert before.grad is None, "the loss before compensation is no part of the graph"
        return after.grad

    @pytest.mark.parametrize("penalty", [0.0, 1.0, 5.0, 10.0])
    def test_the_gradient_of_an_image_that_became_worse_is_one_plus_delta_times_its_own(self, penalty):
        plain = torch.full((5,), 1.0) / 5
        factor = 1 + penalty * torch.tensor([1.0, 0, 1, 0, 0])  # an equal loss is not worse
        assert torch.equal(self.gradient(penalty=penalty), factor * plain)

    def test_its_value_is_the_loss_and_the_penalty(self):
        expected = (self.after + 5 * (self.after - self.before).clamp(min=0)).mean()
        torch.testing.assert_close(reward_penalty(self.after, self.before), expected)

    @pytest.mark.parametrize(("shift", "factor"), [(0.5, 6.0), (-0.5, 1.0)])
    def test_by_the_batch_all_images_share_one_comparison(self, shift, factor):
        after = (self.after + shift).requires_grad_()
        loss = reward_penalty(after, self.before, per="batch")
        difference = after.mean() - self.before.mean()
        torch.testing.assert_close(loss, after.mean() + 5 * difference.clamp(min=0))
        loss.backward()
        torch.testing.assert_close(after.grad, torch.full((5,), factor / 5))

    def test_in_a_batch_that_gained_on_average_only_samples_show_who_lost(self):
        assert self.after.mean() < self.before.mean() + 0.01
        by_sample, by_batch = (reward_penalty(self.after, self.before, per=per) for per in ("sample", "batch"))
        assert by_batch < by_sample

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"after": torch.zeros(())}, "losses of each image"),
            ({"after": torch.zeros(3)}, "losses of each image"),
            ({"penalty": -1.0}, "at least 0"),
            ({"per": "task"}, "'sample' or 'batch'"),
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            reward_penalty(**{"after": self.after, "before": self.before, **arguments})
