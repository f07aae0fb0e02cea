"""Published checkpoints of TDFusion and ReFusion are read strictly and without loss, and can then fuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fuseloop
from fuseloop.errors import ConfigurationError, FuseloopError, ImageError, WeightsError
from fuseloop.fusers.conversion import convert
from fuseloop.fusers.fuser import Fuser
from fuseloop.fusers.reference_tdfusion import published_tdfusion, read_tdfusion
from fuseloop.fusers.weights import read_generator, read_network, read_weights, write_weights
from fuseloop.networks.loss_generator import LossGenerator
from fuseloop.networks.restormer_fusion import RestormerFusion
from fuseloop.networks.vfn import VFN

NETWORKS = [RestormerFusion, LossGenerator]


def trained(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network with no two values alike."""
    torch.manual_seed(seed)
    network = kind()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def saved(state: object, folder: Path) -> Path:
    torch.save(state, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


@pytest.mark.parametrize(("kind", "keys", "numbers"), [(RestormerFusion, 140, 119_136), (LossGenerator, 111, 88_497)])
def test_the_published_layout_has_every_convolution_twice(kind, keys, numbers):
    state = published_tdfusion(kind())
    assert len(state) == keys
    assert sum(value.numel() for value in state.values()) == numbers


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under net"])
def test_a_checkpoint_converts_without_loss(kind, prefix, wrapped, tmp_path):
    network = trained(kind)
    state = {f"{prefix}{key}": value for key, value in published_tdfusion(network).items()}
    converted = convert(saved({"net": state} if wrapped else state, tmp_path), tmp_path / "w.safetensors")
    read = read_generator if kind is LossGenerator else read_network
    for found in (converted, read(tmp_path / "w.safetensors")):
        assert type(found) is kind
        assert not found.training
        assert all(torch.equal(value, found.state_dict()[key]) for key, value in network.state_dict().items())


def test_a_state_without_twins_is_read_too(tmp_path):
    network = trained(RestormerFusion)
    read = read_tdfusion(saved(network.state_dict(), tmp_path))
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update({"project_out_1.conv.weight": torch.zeros(1, 16, 3, 3)}), "should be a copy of"),
        (lambda state: state.pop("encoder1.0.attn.temperature"), "missing.*encoder1.0.attn.temperature"),
        (lambda state: state.update({"FM.qkv1.weight": torch.zeros(8, 16, 1, 1)}), "FM.qkv1"),
        (lambda state: state.update({"head.weight": torch.zeros(1)}), "do not belong.*head.weight"),
        (lambda state: state["decoder.0.norm1.body.bias"].fill_(torch.nan), "NaN"),
    ],
    ids=["twins differ", "missing", "reshaped", "left over", "not a number"],
)
def test_a_checkpoint_must_match_exactly(change, message, tmp_path):
    state: dict[str, Tensor] = published_tdfusion(trained(RestormerFusion))
    change(state)
    with pytest.raises(WeightsError, match=message):
        convert(saved(state, tmp_path), tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_another_network_is_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match="neither the fusion network of TDFusion nor its loss generator"):
        read_tdfusion(saved(VFN().state_dict(), tmp_path))


class TestFuser:
    """The fusion network behind `fuseloop.load`."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        write_weights(tmp_path / "w.safetensors", trained(RestormerFusion))
        return tmp_path / "w.safetensors"

    def test_it_fuses_what_the_network_makes(self, file):
        infrared, luma = np.random.default_rng(0).random((2, 24, 40), np.float32)
        fused = fuseloop.load(file)(infrared, luma)
        with torch.no_grad():
            expected = trained(RestormerFusion)(*(torch.from_numpy(x)[None, None] for x in (infrared, luma)))
        np.testing.assert_allclose(fused, expected[0, 0].numpy(), atol=1e-6)

    def test_it_says_what_it_is(self, file):
        assert "RestormerFusion" in repr(fuseloop.load(file))

    def test_frames_that_would_need_tiles_are_refused(self, file):
        fuser = fuseloop.load(file, tile_pixels=100)
        frame = np.zeros((16, 16), np.uint8)
        assert fuser(frame, frame).shape == (16, 16)
        large = np.zeros((16, 20), np.uint8)
        with pytest.raises(ImageError, match=r"20x16.*sees whole frames and cannot work in tiles"):
            fuser(large, large)

    @pytest.mark.parametrize(
        "options", [{"engine": "openvino"}, {"engine": "onnxruntime"}, {"precision": "bf16"}], ids=str
    )
    def test_only_pytorch_in_single_precision_runs_it(self, file, options):
        with pytest.raises(ConfigurationError, match="choose engine torch in fp32"):
            fuseloop.load(file, **options)

    def test_it_can_be_shared(self, file, tmp_path):
        fuseloop.load(file).save_pretrained(tmp_path / "shared")
        shared = Fuser.from_pretrained(str(tmp_path / "shared"))
        frame = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
        assert np.array_equal(shared(frame, frame), fuseloop.load(file)(frame, frame))


@pytest.mark.parametrize(
    ("read", "kind", "message"),
    [
        (read_weights, RestormerFusion, "RestormerFusion, and this is for a VFN alone"),
        (fuseloop.load, LossGenerator, "makes no image"),
        (read_generator, RestormerFusion, "needs a loss generator"),
    ],
    ids=["VFN wanted", "fusion network wanted", "loss generator wanted"],
)
def test_a_file_of_another_network_is_refused(read, kind, message, tmp_path):
    write_weights(tmp_path / "w.safetensors", trained(kind))
    with pytest.raises(FuseloopError, match=message):
        read(tmp_path / "w.safetensors")
