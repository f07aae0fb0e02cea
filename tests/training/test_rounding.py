"""The rounding loss sees what engines do in bf16, and training makes it small."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fuseloop.datasets.folders import open_pairs
from fuseloop.engines import load_engine
from fuseloop.networks.vfn import VFN
from fuseloop.training.rounding import POWER, Round, fuse_rounded, rounding_loss
from fuseloop.training.sampling import Batch, whole_frame
from fuseloop.training.visual import new_network


@pytest.fixture
def network() -> VFN:
    """Random weights that make an image of some contrast, in which something can be lost."""
    generator = torch.Generator().manual_seed(0)
    network = new_network(2, 0).eval()
    for value in network.parameters():
        if value.ndim > 1:
            nn.init.normal_(value, 0, (2 / value[0].numel()) ** 0.5, generator)
    return network


@pytest.fixture
def pair() -> Batch:
    batch = whole_frame(open_pairs("synthetic:1:9")[0])
    return Batch(*(image[..., :96, :96] for image in batch))


def spread(errors: torch.Tensor) -> float:
    return float(errors.square().mean().sqrt())


def test_values_are_rounded_and_gradients_take_the_error_for_a_share_of_the_value():
    x = torch.tensor([0.0, 1.0, 1.003, -200.7], requires_grad=True)
    y = Round.apply(x)
    assert torch.equal(y, x.bfloat16().float())
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y)
    assert gradient[0] == 1


@torch.no_grad()
def test_what_is_rounded_is_as_far_off_as_an_engine_in_bf16(network: VFN, pair: Batch):
    exact = network(*pair)
    rounded = spread(fuse_rounded(network, *pair) - exact)
    engine = spread(load_engine("torch", network, precision="bf16").fuse(*pair) - exact)
    assert 0 < rounded < 3 / 255
    assert rounded == pytest.approx(engine, rel=0.5)


def test_the_loss_is_a_power_mean_in_grey_levels():
    exact = torch.rand(2, 1, 20, 20)
    assert float(rounding_loss(exact, exact)) < 0.05
    assert float(rounding_loss(exact - 3 / 255, exact)) == pytest.approx(3, rel=1e-3)
    one_pixel = exact.clone()
    one_pixel[:, :, 3, 4] += 10 / 255
    assert float(rounding_loss(one_pixel, exact)) == pytest.approx(10 / 400 ** (1 / POWER), rel=1e-2)


def test_what_is_tolerated_costs_nothing():
    exact = torch.rand(1, 1, 20, 20)
    assert float(rounding_loss(exact - 3 / 255, exact, tolerance=2.0)) == pytest.approx(1, rel=1e-3)
    assert float(rounding_loss(exact - 3 / 255, exact, tolerance=4.0)) < 0.05


def test_no_difference_has_no_gradient():
    exact = torch.rand(1, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(rounding_loss(exact, exact), exact)
    assert torch.equal(gradient, torch.zeros_like(exact))


def test_every_parameter_learns_from_it(network: VFN, pair: Batch):
    rounding_loss(fuse_rounded(network, *pair), network(*pair)).backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_training_makes_it_small(network: VFN, pair: Batch):
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    before = network(*pair).detach()
    losses = []
    for _ in range(20):
        fused = network(*pair)
        loss = rounding_loss(fuse_rounded(network, *pair), fused)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        (loss + 255 * (fused - before).abs().mean()).backward()  # a flat image would be easy to round
        optimiser.step()
    assert sum(losses[-4:]) / 4 < 0.75 * losses[0]
    assert fused.std() > 0.5 * before.std()
