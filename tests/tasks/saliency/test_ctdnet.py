"""CTDNet is the network that its publication describes, and its loss and predictions mean what they say."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fuseloop.errors import ConfigurationError, LabelError
from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.tasks.protocol import Outputs, Target, hooked
from fuseloop.tasks.saliency.ctdnet import (
    BasicBlock,
    BoundaryRefinement,
    CrossAggregation,
    CTDNet,
    Fusion,
    Maps,
    SpatialAttention,
    map_loss,
)
from tests.tasks.tester import TaskNetworkTester, part

NARROW = 1 / 8
make = partial(CTDNet, NARROW)


class TestCTDNet(TaskNetworkTester):
    make = staticmethod(make)
    variants = ({}, {"side": 96})
    feature_shape = staticmethod(lambda height, width: (8, height // 4, width // 4))
    overfit_steps = 200
    overfit_quality = 0.83  # the best maps at stride 4 have 0.91, since the least object has 25 pixels


class TestPublishedFigures:
    def test_parameters(self):
        with torch.device("meta"):
            network = CTDNet()
        assert parameter_count(network) == 11_825_368
        assert parameter_count(network.encoder) == 11_689_512 - 1000 * 513, "ResNet-18 without its classifier"

    def test_operations(self):
        """The measured figure counts 4 operations for each value of a batch norm, as public profilers do."""
        with torch.device("meta"):
            network, image = CTDNet().eval(), torch.rand(1, 3, 352, 352)
        normalised = 0

        def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            nonlocal normalised
            normalised += output.numel()

        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(count)
        billions = multiply_accumulates(network, image) / 1e9
        assert billions == pytest.approx(6.113, abs=0.0005)
        assert billions + 4e-9 * normalised == pytest.approx(6.15, abs=0.005)

    def test_six_maps_and_a_feature_at_a_quarter(self):
        with torch.device("meta"):
            network = CTDNet(side=352)
            outputs = network(torch.rand(2, 3, 480, 640))
        assert [tuple(logits.shape[1:]) for logits in outputs.raw.saliency] == [
            (1, 352 // stride, 352 // stride) for stride in (4, 8, 8, 16, 32)
        ]
        assert outputs.raw.edges.shape == (2, 1, 88, 88)
        assert outputs.feature.shape == (2, 64, 88, 88)

    @torch.no_grad()
    def test_the_feature_is_the_second_batch_norm_of_the_refinement_after_relu(self):
        network = make().eval()
        with hooked(network, "fuse23.bn_2") as caught:
            outputs = network(part(96, 128)[0])
        assert torch.equal(outputs.feature, caught.output.relu())
        assert caught.output.min() < 0
        assert outputs.feature.max() > 0

    def test_the_input_has_the_published_mean_and_deviation(self):
        network = make()
        grey = torch.tensor([124.55, 118.90, 102.94]) / 255
        colours = torch.stack([grey, grey + torch.tensor([56.77, 55.97, 57.50]) / 255])
        images = colours[..., None, None].expand(2, 3, 32, 32)
        prepared = network.prepare(images, network.view(32, 32))
        wanted = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32)
        torch.testing.assert_close(prepared, wanted, atol=1e-5, rtol=0)


class TestBlocks:
    """What the number of parameters does not tell."""

    coarse, fine = (torch.rand(2, 8, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 16))

    @torch.no_grad()
    def test_a_basic_block_adds_its_input(self):
        block = BasicBlock(8, 8, stride=1).eval()
        block.layers[1].norm.weight.zero_()
        assert torch.equal(block(self.fine), self.fine)

    @torch.no_grad()
    def test_fusion_keeps_what_both_say(self):
        fusion = Fusion(8).eval()
        nothing = fusion(torch.zeros_like(self.coarse), self.fine)
        assert torch.equal(nothing, fusion(self.coarse, torch.zeros_like(self.fine)))
        assert not torch.equal(nothing, fusion(self.coarse, self.fine))

    @torch.no_grad()
    def test_spatial_attention_has_one_weight_for_all_channels_of_a_place(self):
        attention = SpatialAttention(8, 8).eval()
        before = attention.conv(self.fine)
        weights = (attention(self.fine) / before).masked_fill(before == 0, torch.nan)
        one = weights.nanmean(dim=1, keepdim=True)
        torch.testing.assert_close(weights.nan_to_num(0), one.expand_as(weights).where(before != 0, 0))
        assert ((one > 0) & (one < 1)).any()
        assert one.flatten().std() > 0

    @torch.no_grad()
    def test_aggregation_joins_at_both_resolutions(self):
        block = CrossAggregation(8).eval()
        whole = block(self.coarse, self.fine)
        for branch in (block.join_coarse, block.join_fine):
            weight = branch.norm.weight.clone()
            branch.norm.weight.zero_()
            assert not torch.equal(whole, block(self.coarse, self.fine))
            branch.norm.weight.copy_(weight)
        assert whole.shape == self.fine.shape

    @torch.no_grad()
    def test_refinement_adds_region_and_outline_and_weights_channels(self):
        block = BoundaryRefinement(8).eval()
        region = F.interpolate(self.coarse, (16, 16), mode="bilinear")
        x = region + self.fine
        x = x * (
            1 + torch.einsum("oi,bi->bo", block.attend.weight[..., 0, 0], x.mean((2, 3))).sigmoid()[..., None, None]
        )
        x = block.bn_2(block.conv_2(block.bn_1(block.conv_1(x)).relu())).relu()
        torch.testing.assert_close(block(self.coarse, self.fine), x)

    def test_the_shortcut_is_a_convolution_with_a_stride(self):
        """Written without one; and the narrowest is trained without a fault of memory."""
        block = BasicBlock(8, 16, stride=2).eval()
        x = torch.rand(2, 8, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
        block(x).square().sum().backward()
        with torch.no_grad():
            block.layers[1].norm.weight.zero_()
            expected = block.shortcut.norm(F.conv2d(x, block.shortcut.conv.weight, stride=2)).relu()
            torch.testing.assert_close(block(x), expected)


class TestConfiguration:
    @pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
    def test_a_width_that_is_none_is_refused(self, width):
        with pytest.raises(ConfigurationError, match="must be above 0, got"):
            CTDNet(width)

    @pytest.mark.parametrize("side", [0, -32, 350])
    def test_a_side_that_the_strides_do_not_divide_is_refused(self, side):
        with pytest.raises(ConfigurationError, match=f"multiple of 32 pixels, got {side}"):
            make(side=side)

    def test_one_image_is_too_few_for_training(self):
        images, _ = part(64, 64)
        with pytest.raises(ConfigurationError, match="two images or more"):
            make().train()(images[:1])


def plain_loss(logits: torch.Tensor, mask: torch.Tensor) -> float:
    """The loss of a map of one image, pixel by pixel."""
    common = union = entropy = 0.0
    for said, wanted in zip(logits.double().sigmoid().flatten().tolist(), mask.flatten().tolist(), strict=True):
        common += said * wanted
        union += said + wanted - said * wanted
        entropy -= torch.tensor(said if wanted else 1 - said, dtype=torch.float64).log().item() / mask.numel()
    return 1 - (common + 1) / (union + 1) + 0.6 * entropy


class TestLoss:
    def test_of_one_map_by_hand(self):
        """At logits 0 each pixel is half salient: of 4 of 16, 2 are common and 8 + 4 - 2 in the union."""
        mask = torch.zeros(1, 4, 4)
        mask[0, 1:3, 1:3] = 1
        expected = 1 - 3 / 11 + 0.6 * torch.tensor(2.0).log()
        torch.testing.assert_close(map_loss(torch.zeros(1, 4, 4), mask), expected[None])

    def test_of_a_perfect_map_is_none_even_where_nothing_is_salient(self):
        masks = torch.zeros(2, 8, 8)
        masks[0, 2:5, 3:7] = 1
        torch.testing.assert_close(map_loss(60 * masks - 30, masks), torch.zeros(2), atol=1e-5, rtol=0)

    @torch.no_grad()
    @pytest.mark.parametrize("side", [None, 64])
    def test_it_is_that_of_a_plain_program(self, side):
        images, targets = part(70, 90)
        network = make(side=side).train()  # an untrained network is only then moderate
        outputs = network(images)
        assert targets[0].saliency.any()

        def full(logits: torch.Tensor) -> torch.Tensor:
            return F.interpolate(logits, (70, 90), mode="bilinear")[:, 0]

        expected = [
            sum(
                plain_loss(full(logits)[index], target.saliency) / 2**order
                for order, logits in enumerate(outputs.raw.saliency)
            )
            + float(F.binary_cross_entropy_with_logits(full(outputs.raw.edges)[index], target.edges))
            for index, target in enumerate(targets)
        ]
        torch.testing.assert_close(network.loss(outputs, targets, "none"), torch.tensor(expected))

    def test_labels_that_are_missing_or_of_another_size_are_refused(self):
        images, targets = part(64, 96)
        network = make().eval()
        outputs = network(images)
        without = [*targets[:2], Target(saliency=targets[2].saliency)]
        with pytest.raises(LabelError, match="image 2 of the batch has no edges"):
            network.loss(outputs, without)
        small = [targets[0], Target(saliency=targets[1].saliency[:32], edges=targets[1].edges), targets[2]]
        with pytest.raises(LabelError, match=r"saliency of image 1 .*\(32, 96\).*64×96"):
            network.loss(outputs, small)


class TestPrediction:
    @torch.no_grad()
    def test_it_is_the_finest_map_in_the_size_of_the_image(self):
        network = make(side=64).eval()
        rows, columns = torch.full((1, 1, 16, 16), -20.0), torch.full((1, 1, 16, 16), -20.0)
        rows[..., 4:8, :], columns[..., 8:12] = 20, 20
        others = [torch.zeros(1, 1, side, side) for side in (8, 8, 4, 2)]
        expected = torch.zeros(2, 32, 128)
        expected[0, 8:16], expected[1, :, 64:96] = 1, 1
        for finest, wanted in zip((rows, columns), expected, strict=True):
            maps = Maps((finest, *others), torch.zeros(1, 1, 16, 16))
            (found,) = network.predict(Outputs(maps, torch.zeros(1), network.view(32, 128)))
            assert found.saliency.dtype == torch.float32
            assert torch.equal((found.saliency > 0.5).float(), wanted)
            assert (found.saliency - wanted).abs().mean() < 0.1
