"""The networks of T-OAR are what their publication describes, so that their checkpoints can be read."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.networks.prompt_injection import BFN, TDPI, TOAR
from tests.networks.tester import NetworkTester


def awake(network: nn.Module) -> nn.Module:
    """The network in evaluation, with zero-convs that are no longer zero and batch norms that have seen something."""
    for module in network.modules():
        if isinstance(module, TDPI):
            nn.init.normal_(module.zc.weight, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


class Prompted(nn.Module):
    """A base network with T-OAR, whose text is a vector of coarse means of both images."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.network = BFN(depth)
        self.toar = TOAR(depth, sentence=32, text=24)
        awake(self.toar)

    def forward(self, infrared: Tensor, luma: Tensor) -> Tensor:
        sentence = F.adaptive_avg_pool2d(torch.cat([infrared, luma], dim=1), 4).flatten(1)
        fused: Tensor = self.network(infrared, luma, partial(self.toar, text=self.toar.adapter(sentence)))
        return fused


class TestBFN(NetworkTester):
    make = BFN
    variants = ({}, {"depth": 1}, {"depth": 2})


class TestPrompted(NetworkTester):
    make = Prompted
    variants = ({}, {"depth": 2})
    exportable = False  # the kernels of a batch are the groups of one convolution


class TestPublishedFigures:
    def test_parameters_of_the_base_network(self):
        network = BFN()
        assert parameter_count(network) == 69_881
        assert parameter_count(network.vi_e) == parameter_count(network.ir_e) == 8_264
        assert parameter_count(network.ff) == 20_672
        assert parameter_count(network.fb) == 32_681
        assert parameter_count(network.fb.d0) == 7_792

    def test_parameters_of_the_prompts(self):
        toar = TOAR()
        assert parameter_count(toar) == 5_794_240
        assert parameter_count(toar.adapter) == 2_360_320
        blocks = [*toar.ir_t_dpi.values(), *toar.vi_t_dpi.values()]
        assert [parameter_count(block) for block in blocks] == [572_320] * 6
        assert parameter_count(blocks[0].cppb) == 566_336

    def test_multiply_accumulates_a_pixel(self):
        image, features, text = torch.rand(1, 1, 24, 40), torch.rand(1, 8, 24, 40), torch.rand(1, 512)
        channel_mlps = 2 * 2 * 16 * 32
        assert multiply_accumulates(BFN().eval(), image, image) == 66_636 * 24 * 40 + channel_mlps
        generator = 528 * 512 + 512 * 576
        assert multiply_accumulates(TDPI().eval(), features, text) == (5_824 + 576) * 24 * 40 + generator


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return layer(name, channels) | statistics | {f"{name}.num_batches_tracked": ()}


def dense_block(name: str, c: int) -> dict[str, tuple[int, ...]]:
    first = layer(f"{name}.Dcov1.0", c, c, 3, 3) | norm(f"{name}.Dcov1.1", c)
    second = layer(f"{name}.Dcov2.0", c, 2 * c, 3, 3) | norm(f"{name}.Dcov2.1", c)
    return first | second | layer(f"{name}.conv", c, 3 * c, 1, 1)


def base_keys() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published state dictionary, written from its description."""
    keys: dict[str, tuple[int, ...]] = {}
    for encoder in ("vi_e", "ir_e"):
        keys |= layer(f"{encoder}.bfe.0", 4, 1, 3, 3) | norm(f"{encoder}.bfe.1", 4)
        keys |= layer(f"{encoder}.bfe.3", 8, 4, 3, 3) | norm(f"{encoder}.bfe.4", 8)
        for level in range(4):
            keys |= dense_block(f"{encoder}.e{level}", 8)
    keys |= layer("fb.res.0", 8, 16, 3, 3) | norm("fb.res.1", 8)
    keys |= layer("fb.res.3", 4, 8, 3, 3) | norm("fb.res.4", 4) | layer("fb.res.6", 1, 4, 3, 3)
    for level in range(4):
        keys |= dense_block(f"fb.d{level}", 16)
    for mlp in ("mlp_aa", "mlp_ma"):
        keys |= layer(f"ff.{mlp}.0", 32, 16) | layer(f"ff.{mlp}.2", 16, 32)
    for convolutions in ("conv_mean_a", "conv_max_a"):
        keys |= layer(f"ff.{convolutions}.0", 32, 16, 3, 3) | layer(f"ff.{convolutions}.2", 16, 32, 3, 3)
    return keys


def prompt_keys() -> dict[str, tuple[int, ...]]:
    keys = layer("adapter.0", 512, 4096) | layer("adapter.1", 512, 512)
    for block in (f"{side}_t_dpi.dpi{level}" for side in ("ir", "vi") for level in range(3)):
        keys |= layer(f"{block}.cppb.0", 512, 528) | layer(f"{block}.cppb.1", 576, 512)
        keys |= layer(f"{block}.gap_conv", 8, 8, 3, 3) | layer(f"{block}.gmp_conv", 8, 8, 3, 3)
        keys |= layer(f"{block}.zc", 8, 8, 1, 1) | norm(f"{block}.bn_lrelu.0", 8)
        for index, (inputs, outputs) in zip((0, 3, 6), ((8, 16), (16, 16), (16, 8)), strict=True):
            keys |= layer(f"{block}.conv.{index}", outputs, inputs, 3, 3) | norm(f"{block}.conv.{index + 1}", outputs)
    return keys


class TestStateDictionary:
    @pytest.mark.parametrize(
        ("make", "keys", "count", "buffers"), [(BFN, base_keys, 252, 90), (TOAR, prompt_keys, 220, 72)]
    )
    def test_keys_and_shapes_are_the_published_ones(self, make, keys, count, buffers):
        network = make()
        assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == keys()
        assert len(keys()) == count
        assert len(list(network.buffers())) == buffers

    def test_order_is_the_published_one(self):
        assert list(dict.fromkeys(key.split(".")[0] for key in BFN().state_dict())) == ["vi_e", "ir_e", "fb", "ff"]


class TestInjection:
    @torch.no_grad()
    def test_at_first_it_changes_nothing_bit_for_bit(self):
        network, toar = BFN().eval(), TOAR(sentence=16).eval()
        pair = torch.rand(2, 2, 1, 17, 26)
        text = toar.adapter(torch.randn(2, 16))
        assert torch.equal(network(*pair, partial(toar, text=text)), network(*pair))

    def test_on_the_first_step_the_zero_conv_learns_and_nothing_else(self):
        block = TDPI()
        block(torch.rand(2, 8, 9, 9), torch.randn(2, 512)).square().sum().backward()
        moved = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {"zc.weight", "zc.bias"}

    @torch.no_grad()
    def test_every_image_of_a_batch_has_a_text_of_its_own(self):
        torch.manual_seed(0)
        block = awake(TDPI())
        features, text = torch.rand(3, 8, 12, 15), torch.randn(3, 512)
        together = block(features, text)
        for index in range(3):
            alone = block(features[index : index + 1], text[index : index + 1])
            torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-5)
        swapped = block(features, text.flip(0))
        assert (swapped - together)[0].abs().max() > 1e-4
        assert torch.allclose(swapped[1], together[1], atol=1e-5)

    @torch.no_grad()
    def test_an_exact_pair_of_linear_layers_is_one(self):
        """The defect that the trained form does not have: text and image only add before the kernel."""
        block, features, text = TDPI().double(), torch.rand(1, 8, 9, 9).double(), torch.randn(4, 512).double()
        kernels = block.kernels(features.expand(4, -1, -1, -1), text)
        mixed = block.kernels(features, text.mean(dim=0, keepdim=True))
        torch.testing.assert_close(mixed[0], kernels.mean(dim=0))

    def test_the_two_modalities_have_weights_of_their_own_and_share_the_adapter(self):
        toar = awake(TOAR(2))
        features, text = torch.rand(1, 8, 9, 9), torch.randn(1, 512)
        infrared, visible = toar(0, features, features, text)
        assert (infrared - visible).abs().max() > 1e-3
        assert sum("adapter" in name for name, _ in toar.named_parameters()) == 4


@pytest.mark.parametrize(("make", "depth"), [(BFN, 0), (TOAR, 1)])
def test_depths_that_cannot_be_are_refused(make, depth):
    with pytest.raises(ValueError, match=f"at least {depth + 1}, got {depth}"):
        make(depth)
