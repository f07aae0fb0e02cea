"""The fusion network of TDFusion is the one that its publication describes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fuseloop.networks.cost import multiply_accumulates, parameter_count
from fuseloop.networks.restormer_block import TransformerBlock, channel_attention
from fuseloop.networks.restormer_fusion import RestormerFusion
from tests.networks.tester import NetworkTester


class TestRestormerFusion(NetworkTester):
    make = RestormerFusion


def block_keys(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a transformer block, written from the description of the published state."""
    return {
        f"{prefix}.norm1.body.weight": (width,),
        f"{prefix}.norm1.body.bias": (width,),
        f"{prefix}.attn.temperature": (8, 1, 1),
        f"{prefix}.attn.qkv.weight": (3 * width, width, 1, 1),
        f"{prefix}.attn.qkv_dwconv.weight": (3 * width, 1, 3, 3),
        f"{prefix}.attn.project_out.weight": (width, width, 1, 1),
        f"{prefix}.norm2.body.weight": (width,),
        f"{prefix}.norm2.body.bias": (width,),
        f"{prefix}.ffn.project_in.weight": (4 * width, width, 1, 1),
        f"{prefix}.ffn.dwconv.weight": (4 * width, 1, 3, 3),
        f"{prefix}.ffn.project_out.weight": (width, 2 * width, 1, 1),
    }


def published_keys() -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    for side in (1, 2):
        keys |= {f"project_in_{side}.weight": (16, 1, 3, 3), f"FM.temperature{side}": (8, 1, 1)}
        keys |= block_keys(f"encoder{side}.0", 16) | block_keys(f"encoder{side}.1", 16)
        keys |= {f"FM.qkv{side}.weight": (48, 16, 1, 1), f"FM.qkv{side}_dwconv.weight": (48, 1, 3, 3)}
        keys |= {f"FM.project_mid{side}.weight": (16, 16, 1, 1), f"FM.project_out{side}.weight": (32, 64, 1, 1)}
        keys |= {f"FM.project_E{side}.weight": (64, 16, 1, 1), f"FM.project_E{side}_d.weight": (64, 1, 3, 3)}
    keys |= {"FM.project_E.weight": (128, 32, 1, 1), "FM.project_E_d.weight": (128, 1, 3, 3)}
    keys |= block_keys("decoder.0", 32) | block_keys("decoder.1", 32)
    return keys | {"project_out_0.weight": (16, 32, 3, 3), "project_out_1.weight": (1, 16, 3, 3)}


def test_keys_and_shapes_are_the_published_ones():
    state = RestormerFusion().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published_keys()
    assert len(state) == 86


class TestPublishedFigures:
    def test_parameters_of_the_whole_and_of_every_part(self):
        network = RestormerFusion()
        assert parameter_count(network) == 59_856
        assert parameter_count(network.encoder1) == parameter_count(network.encoder2) == 7_280
        assert parameter_count(network.FM) == 15_472
        assert parameter_count(network.decoder) == 24_784
        assert parameter_count(TransformerBlock(16)) == 3_640
        assert parameter_count(TransformerBlock(32)) == 12_392

    @pytest.mark.parametrize(
        ("height", "width", "giga"), [(192, 256, 2.96), (256, 256, 3.94), (480, 640, 18.49), (1024, 1280, 78.87)]
    )
    def test_multiply_accumulates(self, height, width, giga):
        image = torch.empty(1, 1, height, width, device="meta")
        assert round(multiply_accumulates(RestormerFusion().to("meta"), image, image) / 1e9, 2) == giga


class TestChannelAttention:
    def test_it_is_the_softmax_of_cosines_times_the_values(self):
        query, key, value = torch.randn(3, 2, 16, 5, 6, dtype=torch.float64)
        temperature = torch.rand(8, 1, 1, dtype=torch.float64)
        heads = [x.view(2, 8, 2, 30) for x in (query, key, value)]
        cosines = F.normalize(heads[0], dim=-1) @ F.normalize(heads[1], dim=-1).transpose(-2, -1)
        expected = ((cosines * temperature).softmax(-1) @ heads[2]).view(2, 16, 5, 6)
        torch.testing.assert_close(channel_attention(query, key, value, temperature), expected)

    def test_black_images_have_finite_gradients(self):
        network = RestormerFusion()
        black = torch.zeros(1, 1, 8, 8)
        network(black, black).mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_every_pixel_sees_the_whole_frame_so_that_tiles_would_differ():
    network = TestRestormerFusion().network()
    infrared, luma = TestRestormerFusion().pair(1, 32, 48)
    changed = infrared.clone()
    changed[..., :8] = 1 - changed[..., :8]
    far = (network(changed, luma) - network(infrared, luma))[..., 40:]
    assert network.halo is None
    assert far.abs().min() > 0
