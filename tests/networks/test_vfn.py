"""VFN is the network that its publication describes, and its three steps can be used apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from fuseloop.networks.vfn import VFN, DenseResidualBlock, Pooled, gradient_magnitude
from tests.networks.tester import NetworkTester

GOLDEN = Path(__file__).parents[1] / "oracles" / "networks" / "vfn_L2.safetensors"


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class TestVFN(NetworkTester):
    make = VFN
    variants = ({"depth": 2}, {"depth": 1}, {"depth": 3}, {"depth": 4})


def test_the_default_depth_is_two():
    assert VFN().depth == 2


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_below_one_is_refused(depth):
    with pytest.raises(ValueError, match=f"at least 1, got {depth}"):
        VFN(depth)


class TestPublishedFigures:
    @pytest.mark.parametrize(("depth", "count"), [(1, 28_833), (2, 34_761), (3, 40_689), (4, 46_617)])
    def test_parameters(self, depth, count):
        assert parameters(VFN(depth)) == count

    def test_parameters_of_every_part(self):
        network = VFN()
        assert parameters(network.vi_feb) == parameters(network.ir_feb) == 4_312
        assert parameters(network.vi_feb.bfe) == 360
        assert parameters(DenseResidualBlock()) == 1_976
        assert parameters(network.frb1) == 20_672
        assert parameters(network.frb1.mlp_aa) == parameters(network.frb1.mlp_ma) == 1_072
        assert parameters(network.frb1.conv_mean_a) == parameters(network.frb1.conv_max_a) == 9_264
        assert parameters(network.frb2) == 5_465
        assert parameters(network.frb2.f_conv) == 1_176
        assert parameters(network.frb2.res) == 337

    def test_buffer_elements(self):
        assert sum(buffer.numel() for buffer in VFN().buffers()) == 282

    @pytest.mark.parametrize(("height", "width"), [(24, 40), (64, 64)])
    def test_multiply_accumulates_a_pixel(self, height, width):
        network, image = VFN().eval(), torch.rand(1, 1, height, width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image, image)
        channel_mlps = 2 * 2 * 16 * 32  # once a frame, not once a pixel
        sobel = 16 * 2 * 9  # counted in the published figure, taken here by differences of shifted views
        assert counter.get_total_flops() / 2 == (32_364 - sobel) * height * width + channel_mlps


def published_keys(depth: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published state dictionary, written from its description."""
    keys: dict[str, tuple[int, ...]] = {}

    def weight(prefix: str, *shape: int) -> None:
        keys[f"{prefix}.weight"], keys[f"{prefix}.bias"] = shape, shape[:1]

    def norm(prefix: str, channels: int) -> None:
        weight(prefix, channels)
        keys[f"{prefix}.running_mean"] = keys[f"{prefix}.running_var"] = (channels,)
        keys[f"{prefix}.num_batches_tracked"] = ()

    def block(prefix: str) -> None:
        weight(f"{prefix}.Dcov1.0", 8, 8, 3, 3)
        norm(f"{prefix}.Dcov1.1", 8)
        weight(f"{prefix}.Dcov2.0", 8, 16, 3, 3)
        norm(f"{prefix}.Dcov2.1", 8)
        weight(f"{prefix}.conv", 8, 24, 1, 1)

    for encoder in ("vi_feb", "ir_feb"):
        weight(f"{encoder}.bfe.0", 4, 1, 3, 3)
        norm(f"{encoder}.bfe.1", 4)
        weight(f"{encoder}.bfe.3", 8, 4, 3, 3)
        norm(f"{encoder}.bfe.4", 8)
        for level in range(depth):
            block(f"{encoder}.e{level}")
    for mlp in ("mlp_aa", "mlp_ma"):
        weight(f"frb1.{mlp}.0", 32, 16)
        weight(f"frb1.{mlp}.2", 16, 32)
    for convolutions in ("conv_mean_a", "conv_max_a"):
        weight(f"frb1.{convolutions}.0", 32, 16, 3, 3)
        weight(f"frb1.{convolutions}.2", 16, 32, 3, 3)
    weight("frb2.f_conv.0", 8, 16, 3, 3)
    norm("frb2.f_conv.1", 8)
    for level in range(depth):
        block(f"frb2.d{level}")
    weight("frb2.res.0", 4, 8, 3, 3)
    norm("frb2.res.1", 4)
    weight("frb2.res.3", 1, 4, 3, 3)
    return keys


class TestStateDictionary:
    @pytest.mark.parametrize(
        ("depth", "count", "untracked"), [(1, 108, 96), (2, 156, 138), (3, 204, 180), (4, 252, 222)]
    )
    def test_keys_and_shapes_are_the_published_ones(self, depth, count, untracked):
        state = VFN(depth).state_dict()
        assert {key: tuple(value.shape) for key, value in state.items()} == published_keys(depth)
        assert len(state) == count
        assert sum("num_batches_tracked" not in key for key in state) == untracked

    def test_order_and_types_are_the_published_ones(self):
        state = VFN().state_dict()
        assert list(dict.fromkeys(key.split(".")[0] for key in state)) == ["vi_feb", "ir_feb", "frb1", "frb2"]
        for key, value in state.items():
            assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else torch.float32)


class TestSteps:
    """`encode`, `pool` and `decode` apart make what `forward` makes; tiles and closed loops rest on that."""

    @pytest.fixture
    def network(self) -> VFN:
        """The golden network: in a freshly made one the statistics of the frame hardly matter."""
        network = VFN(depth=2).eval()
        network.load_state_dict({key[6:]: x for key, x in load_file(GOLDEN).items() if key.startswith("state.")})
        return network.double()

    @pytest.fixture
    def pair(self) -> list[torch.Tensor]:
        return [x.double() for x in TestVFN().pair(2, 70, 90)]

    @torch.no_grad()
    def test_the_steps_compose_to_the_whole(self, network, pair):
        features = network.encode(*pair)
        assert features.shape == (2, 16, 70, 90)
        pooled = network.pool(gradient_magnitude(features))
        assert pooled.mean.shape == pooled.peak.shape == (2, 16)
        assert torch.equal(network.decode(features, pooled), network(*pair))
        assert torch.equal(network.decode(features), network(*pair))

    @torch.no_grad()
    def test_infrared_features_come_first(self, network, pair):
        infrared, luma = pair
        torch.testing.assert_close(network.encode(infrared, luma)[:, :8], network.ir_feb(infrared))
        torch.testing.assert_close(network.encode(infrared, luma)[:, 8:], network.vi_feb(luma))

    @torch.no_grad()
    def test_blocks_one_by_one_are_the_encoder(self, network, pair):
        x = pair[0]
        for level in range(network.depth):
            x = network.ir_feb.block(level, x)
        assert torch.equal(x, network.ir_feb(pair[0]))

    @torch.no_grad()
    def test_what_each_block_of_the_reconstruction_is_given_can_be_changed(self, network, pair):
        features, seen = network.encode(*pair), []

        def look(level: int, x: torch.Tensor) -> torch.Tensor:
            seen.append((level, tuple(x.shape)))
            return x

        assert torch.equal(network.decode(features, condition=look), network.decode(features))
        assert seen == [(0, (2, 8, 70, 90)), (1, (2, 8, 70, 90))]

        def replace_last(level: int, x: torch.Tensor) -> torch.Tensor:
            return x if level == 0 else torch.zeros_like(x)

        expected = (network.frb2.res(network.frb2.d1(torch.zeros(2, 8, 70, 90).double())) + 1) / 2
        assert torch.equal(network.decode(features, condition=replace_last), expected)

    @torch.no_grad()
    def test_a_region_with_the_statistics_of_the_frame_equals_the_frame_beyond_its_halo(self, network, pair):
        whole = network(*pair)
        pooled = network.pool(gradient_magnitude(network.encode(*pair)))
        top, left, bottom, right = 3, 11, 67, 83
        region = [x[..., top:bottom, left:right] for x in pair]

        def error(part: torch.Tensor, margin: int) -> float:
            inside = part[..., margin:-margin, margin:-margin]
            expected = whole[..., top + margin : bottom - margin, left + margin : right - margin]
            return (inside - expected).abs().max().item()

        features = network.encode(*region)
        assert error(network.decode(features, pooled), network.halo) < 1e-12
        assert error(network.decode(features, pooled), network.halo - 1) > 1e-12
        assert error(network.decode(features), network.halo) > 1e-4, "the region's own statistics must not do"

    @torch.no_grad()
    def test_statistics_of_regions_add_up_to_those_of_the_frame(self, network, pair):
        gradient = gradient_magnitude(network.encode(*pair))
        left, right = gradient[..., :30], gradient[..., 30:]
        mean = (30 * network.pool(left).mean + 60 * network.pool(right).mean) / 90
        peak = torch.maximum(network.pool(left).peak, network.pool(right).peak)
        expected = network.pool(gradient)
        torch.testing.assert_close(Pooled(mean, peak), expected)

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_the_halo_is_the_receptive_field(self, depth):
        """With fixed statistics an output pixel sees inputs up to the halo away, and none beyond it."""
        network = TestVFN().network({"depth": depth}).double()
        centre = network.halo + 3
        side = 2 * centre + 1
        pair = [x.double().requires_grad_() for x in TestVFN().pair(1, side, side)]
        features = network.encode(*pair)
        pooled = network.pool(gradient_magnitude(features.detach()))
        pixel = network.decode(features, pooled)[0, 0, centre, centre]
        for gradient in torch.autograd.grad(pixel, pair):
            seen = gradient[0, 0].nonzero() - centre
            assert seen.amin(dim=0).tolist() == [-network.halo, -network.halo]
            assert seen.amax(dim=0).tolist() == [network.halo, network.halo]

    def test_the_halo_of_the_default_is_25_pixels(self):
        assert VFN().halo == 25


class TestGradientMagnitude:
    def test_a_ramp_has_its_slope_everywhere_inside(self):
        ramp = 0.5 * torch.arange(9.0).expand(1, 2, 7, 9)
        inside = gradient_magnitude(ramp)[..., 1:-1]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.5))

    def test_a_flat_image_has_none_even_at_its_border(self):
        assert not gradient_magnitude(torch.full((1, 3, 8, 8), 0.7)).round(decimals=6).any()

    def test_both_directions_count_alike(self):
        image = torch.rand(1, 4, 9, 12)
        turned = gradient_magnitude(image.transpose(2, 3)).transpose(2, 3)
        torch.testing.assert_close(gradient_magnitude(image), turned)

    def test_it_is_sobel_over_eight_of_the_replicated_image(self):
        image = torch.rand(1, 1, 6, 7, dtype=torch.float64)
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        expected = sum(F.conv2d(padded, kernel[None, None]).abs() for kernel in (sobel, sobel.T)) / 8
        torch.testing.assert_close(gradient_magnitude(image), expected)
