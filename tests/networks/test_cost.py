"""Multiply-accumulates of layers whose count is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.cost import compensation_cost, multiply_accumulates, parameter_count
from fuseloop.networks.semantic_compensation import SemanticCompensation, responses
from fuseloop.networks.vfn import VFN


class Products(nn.Module):
    """Products that no layer does: a matrix product, a batched one, an einsum."""

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("bnc,bmc->bnm", x, x)
        return scores @ x @ x[0].T


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 12), 2 * 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2), (1, 3, 11, 13), 5 * 6 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), (1, 8, 9, 9), 81 * 8 * 9),
        (nn.Conv1d(4, 6, 5), (1, 4, 20), 16 * 6 * 4 * 5),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), 25 * 4 * 6 * 4),
        (nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
        (nn.Linear(7, 5, bias=False), (2, 3, 7), 6 * 7 * 5),
        (Products(), (2, 6, 5), 2 * (6 * 6 * 5 + 6 * 6 * 5 + 6 * 5 * 6)),
        (Attention(), (2, 4, 16, 8), 2 * 4 * 2 * 16 * 16 * 8),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(2)), (1, 1, 4, 4), 16),
    ],
    ids=["conv", "stride", "depthwise", "conv1d", "transposed", "linear", "tokens", "products", "attention", "cheap"],
)
def test_multiply_accumulates_of(layer, shape, expected, device):
    assert multiply_accumulates(layer.to(device), torch.rand(shape, device=device)) == expected


def test_a_network_costs_the_same_on_the_meta_device():
    network, image = VFN().eval(), torch.rand(1, 1, 24, 40)
    here = multiply_accumulates(network, image, image)
    assert here == multiply_accumulates(network.to("meta"), image.to("meta"), image.to("meta"))


def test_parameters_count_whether_they_are_trained_or_not():
    assert parameter_count(VFN()) == parameter_count(VFN().requires_grad_(False)) == 34_761


def test_a_compensation_costs_what_it_does_between_the_least_and_the_most():
    torch.manual_seed(0)
    compensation = SemanticCompensation(3).eval()
    features, feature = torch.rand(1, 8, 40, 56), torch.rand(1, 512, 2, 3)
    requirement = compensation.describe(feature)
    here = sum(multiply_accumulates(compensation, level, features, features, requirement) for level in range(2))
    cost = compensation_cost(compensation, 40, 56, (1, 512, 2, 3))
    assert cost.least <= here <= cost.most
    assert cost.most - cost.least == 4 * 4 * 8 * 64 * 40 * 56  # 4 blocks of 4 branches: 8 more taps of 64 weights
    adaptation = compensation.rsc_ir["a2si0"].adapt(features, requirement, compensation.bank)
    for configuration, taps in ((0, 1), (2, 9)):
        one = adaptation._replace(configurations=torch.full_like(adaptation.configurations, configuration))
        assert multiply_accumulates(responses, features, one) == 4 * 64 * taps * 40 * 56


def test_the_published_compensation_costs_what_its_image_branch_costs():
    """78,336 multiply-accumulates a pixel and modality for one pooled vector, and 576 for another."""
    cost = compensation_cost(SemanticCompensation(reference_compat=True), 96, 128, (1, 512, 3, 4))
    fixed = 2 * (78_336 + 576 + 64) * 96 * 128
    assert fixed < cost.least - 2 * 4 * 64 * 96 * 128 < 1.05 * fixed
