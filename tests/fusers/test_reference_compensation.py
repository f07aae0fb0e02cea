"""Published checkpoints of the semantic compensation are read strictly and without loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuseloop.errors import WeightsError
from fuseloop.fusers.compensation_weights import read_compensation, write_compensation
from fuseloop.fusers.reference import convert_compensation, published_compensation
from fuseloop.networks.semantic_compensation import SemanticCompensation

Checkpoint = dict[str, object]


def trained(**sizes: int) -> SemanticCompensation:
    """A network in which no two values are alike, statistics and counters included, in the precision of checkpoints."""
    generator = torch.Generator().manual_seed(0)
    compensation = SemanticCompensation(**sizes, reference_compat=True)
    for index, value in enumerate(compensation.state_dict().values()):
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator).bfloat16())
        else:
            value.fill_(index)
    return compensation.eval()


def checkpoint_of(compensation: SemanticCompensation) -> Checkpoint:
    """As the reference stores its best one, scalars of NumPy among it."""
    extra = {"rsc_optimizer": {"lr": 1e-2}, "cur_losses": [np.float32(0.5), np.float64(1.5), np.int64(3)]}
    return {**published_compensation(compensation), **extra}


def convert(checkpoint: object, folder: Path) -> SemanticCompensation:
    torch.save(checkpoint, folder / "rsc.pth")
    return convert_compensation(folder / "rsc.pth", folder / "rsc.safetensors")


def test_published_layout_has_the_keys_shapes_and_type_of_the_description() -> None:
    published = published_compensation(SemanticCompensation(4, reference_compat=True))
    assert {*published} == {"rsc_ir", "rsc_vi", "bvb"}
    assert published["bvb"].shape == (4, 32, 256)
    for side in ("rsc_ir", "rsc_vi"):
        state = published[side]
        assert len(state) == 162
        floating = [value for value in state.values() if value.is_floating_point()]
        assert {value.dtype for value in floating} == {torch.bfloat16}
        trained_values = sum(v.numel() for k, v in state.items() if v.is_floating_point() and "running" not in k)
        assert trained_values == 645_084
        shapes = {
            "orthogonal_convolutional_prototypes": (4, 16),
            "bv_f.p_task_f.0.weight": (64, 1, 3),
            "bv_f.p_task_f.2.weight": (128, 64, 3),
            "bv_f.p_img_f.0.weight": (64, 8, 3, 3),
            "bv_f.p_img_f.3.weight": (128, 64, 3, 3),
            "bv_f.p_img_f.4.running_var": (128,),
            "bv_f.mlp.0.weight": (64, 256),
            "bv_f.mlp.1.bias": (64,),
            "bv_f.mlp.3.weight": (256, 64),
            "p_task_f.2.weight": (8, 4, 3),
            "p_img_f.0.weight": (8, 8, 3, 3),
            "p_img_f.1.num_batches_tracked": (),
            "a_task_img.3.weight": (64, 32),
            "mlp_1x1.3.weight": (64, 64),
            "mlp_3x3.3.weight": (576, 64),
            "B_LR.0.weight": (8,),
            "zc.weight": (8, 8, 1, 1),
        }
        assert {key: tuple(state[f"a2si2.{key}"].shape) for key in shapes} == shapes


@pytest.mark.parametrize(
    "sizes",
    [{}, {"depth": 4}, {"branches": 8}, {"branches": 2, "width": 64, "vectors": 8}],
    ids=str,
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip_loses_nothing(sizes: dict[str, int], prefix: str, tmp_path: Path) -> None:
    compensation = trained(**sizes)
    checkpoint = checkpoint_of(compensation)
    for side in ("rsc_ir", "rsc_vi"):
        checkpoint[side] = {prefix + key: value for key, value in checkpoint[side].items()}  # type: ignore[attr-defined]
    converted = convert(checkpoint, tmp_path)
    read = read_compensation(tmp_path / "rsc.safetensors")
    for other in (converted, read):
        assert other.reference_compat
        assert not other.training
        state = other.state_dict()
        assert state.keys() == compensation.state_dict().keys()
        assert all(torch.equal(value, state[key]) for key, value in compensation.state_dict().items())
    back = published_compensation(read)
    assert torch.equal(back["bvb"], published_compensation(compensation)["bvb"])  # type: ignore[arg-type]
    for side in ("rsc_ir", "rsc_vi"):
        assert all(torch.equal(value, checkpoint[side][prefix + key]) for key, value in back[side].items())  # type: ignore[index]


def test_converted_network_computes_what_the_checkpoint_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compensation = SemanticCompensation(reference_compat=True).eval()
    torch.nn.init.normal_(compensation.rsc_ir["a2si0"].zc.weight)  # type: ignore[union-attr]
    torch.save(published_compensation(compensation, torch.float32), tmp_path / "rsc.pth")
    converted = convert_compensation(tmp_path / "rsc.pth", tmp_path / "rsc.safetensors")
    features, feature = torch.rand(2, 1, 8, 12, 15), torch.rand(1, 64, 3, 4)
    with torch.no_grad():
        outputs = [network(0, *features, network.describe(feature)) for network in (compensation, converted)]
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("bvb"), "no bank"),
        (lambda c: c.update(bvb=c["bvb"][0]), "no bank"),
        (lambda c: c.pop("rsc_vi"), "'rsc_vi'"),
        (lambda c: c.update(rsc_ir=3), "'rsc_ir'"),
        (lambda c: c["rsc_ir"].pop("a2si0.zc.bias"), "missing .*rsc_ir.a2si0.zc.bias"),
        (lambda c: c["rsc_vi"].update({"a2si0.zc.weight": torch.zeros(8, 8, 3, 3)}), "another shape"),
        (lambda c: c["rsc_vi"].update({"a2si0.head.weight": torch.zeros(1)}), "do not belong"),
        (lambda c: c["rsc_vi"].update({"a2si1.zc.bias": torch.zeros(8)}), "do not belong"),
        (lambda c: c["rsc_ir"].pop("a2si0.a_task_img.3.weight"), "missing"),
        (lambda c: c.update(bvb=c["bvb"][:, :2]), "4 branches .* got 2"),
        (lambda c: c["bvb"].fill_(torch.nan), "NaN or infinite"),
    ],
)
def test_checkpoint_must_match_exactly(change: object, message: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(trained())
    change(checkpoint)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        convert(checkpoint, tmp_path)
    assert not (tmp_path / "rsc.safetensors").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3)], ids=["list", "tensor"])
def test_what_is_no_dictionary_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"rsc_ir, rsc_vi and bvb"):
        convert(content, tmp_path)


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="could run code"):
        convert({**checkpoint_of(trained()), "extra": Payload(tmp_path / "harm")}, tmp_path)
    assert not (tmp_path / "harm").exists()


def test_the_mended_form_has_no_published_layout() -> None:
    with pytest.raises(ValueError, match="reference_compat"):
        published_compensation(SemanticCompensation())


@pytest.mark.parametrize(
    "options",
    [{}, {"depth": 3, "branches": 2, "width": 64, "vectors": 8}, {"without": ["choice", "image_norm"]}],
    ids=str,
)
def test_weight_files_of_the_mended_form_come_back_as_they_were(options: dict[str, Any], tmp_path: Path) -> None:
    compensation = SemanticCompensation(**options)
    write_compensation(tmp_path / "rsc.safetensors", compensation, description="test")
    read = read_compensation(tmp_path / "rsc.safetensors")
    assert not read.reference_compat
    assert read.without == compensation.without
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in compensation.state_dict().items())


def test_weight_files_of_another_network_are_refused(tmp_path: Path) -> None:
    from fuseloop.fusers.weights import write_weights
    from fuseloop.networks.vfn import VFN

    write_weights(tmp_path / "vfn.safetensors", VFN())
    with pytest.raises(WeightsError, match=r"vfn\.safetensors holds no semantic compensation"):
        read_compensation(tmp_path / "vfn.safetensors")


def test_a_checkpoint_is_no_weight_file_and_the_message_says_how_to_convert_it(tmp_path: Path) -> None:
    torch.save(checkpoint_of(trained()), tmp_path / "rsc.pth")
    with pytest.raises(WeightsError, match="convert_compensation"):
        read_compensation(tmp_path / "rsc.pth")
