"""The loss generator of TDFusion is the one that its publication describes."""

from __future__ import annotations

import pytest
import torch

from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.networks.loss_generator import LossGenerator
from tests.networks.test_restormer_fusion import block_keys
from tests.networks.tester import NetworkTester


class TestLossGenerator(NetworkTester):
    make = LossGenerator
    outputs = 2

    @torch.no_grad()
    def test_weights_are_positive_and_sum_to_one(self):
        weights = self.network()(*self.pair())
        assert weights.min() > 0
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 24, 32))

    @torch.no_grad()
    def test_freshly_made_it_prefers_neither_image(self):
        assert (self.network()(*self.pair()) - 0.5).abs().max() < 0.2


def test_keys_and_shapes_are_the_published_ones():
    expected = {f"patch_embed{side}.weight": (16, 1, 3, 3) for side in (1, 2)}
    for name, width in (("encoder1", 16), ("encoder2", 16), ("encoder3", 32)):
        expected |= block_keys(f"{name}.0", width) | block_keys(f"{name}.1", width)
    expected |= {"out1.weight": (16, 32, 3, 3), "out2.weight": (1,), "out3.weight": (2, 16, 3, 3)}
    state = LossGenerator().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert len(state) == 71


def test_parameters():
    assert parameter_count(LossGenerator()) == 44_529


@pytest.mark.parametrize(("height", "width", "giga"), [(192, 256, 2.20), (256, 256, 2.93), (480, 640, 13.74)])
def test_multiply_accumulates(height, width, giga):
    image = torch.empty(1, 1, height, width, device="meta")
    assert round(multiply_accumulates(LossGenerator().to("meta"), image, image) / 1e9, 2) == giga
