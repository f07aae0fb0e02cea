from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuseloop.errors import WeightsError
from fuseloop.fusers.reference import convert_checkpoint
from fuseloop.fusers.weights import read_weights
from fuseloop.networks.vfn import VFN

State = dict[str, Tensor]
OLD_NAMES = {"ir_feb": "ir_e", "vi_feb": "vi_e", "frb2": "fb"}


def trained_state(depth: int = 2) -> State:
    """A state in which no two tensors are alike, running statistics and counters included."""
    generator = torch.Generator().manual_seed(depth)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(index)
        for index, (key, value) in enumerate(VFN(depth).state_dict().items())
    }


def rename(state: State, names: dict[str, str], prefix: str = "") -> State:
    """Renames the parts of a network as other scripts name them."""
    parts = {key: key.split(".", 1) for key in state}
    return {f"{prefix}{names.get(part, part)}.{rest}": state[key] for key, (part, rest) in parts.items()}


def convert(state: object, folder: Path) -> State:
    torch.save(state, folder / "checkpoint.pth")
    convert_checkpoint(folder / "checkpoint.pth", folder / "converted.safetensors")
    return read_weights(folder / "converted.safetensors").state_dict()


@pytest.mark.parametrize(("depth", "keys"), [(1, 108), (2, 156), (3, 204), (4, 252)])
def test_state_has_the_published_number_of_keys(depth: int, keys: int) -> None:
    assert len(VFN(depth).state_dict()) == keys


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("vi_feb.bfe.0.weight", [4, 1, 3, 3]),
        ("ir_feb.bfe.3.weight", [8, 4, 3, 3]),
        ("ir_feb.bfe.4.running_var", [8]),
        ("vi_feb.bfe.4.num_batches_tracked", []),
        ("ir_feb.e3.Dcov1.0.weight", [8, 8, 3, 3]),
        ("frb2.d3.Dcov2.0.weight", [8, 16, 3, 3]),
        ("frb2.d0.conv.weight", [8, 24, 1, 1]),
        ("frb1.mlp_aa.0.weight", [32, 16]),
        ("frb1.mlp_ma.2.bias", [16]),
        ("frb1.conv_mean_a.0.weight", [32, 16, 3, 3]),
        ("frb1.conv_max_a.2.weight", [16, 32, 3, 3]),
        ("frb2.f_conv.0.weight", [8, 16, 3, 3]),
        ("frb2.res.0.weight", [4, 8, 3, 3]),
        ("frb2.res.3.weight", [1, 4, 3, 3]),
    ],
)
def test_state_has_the_published_keys_and_shapes(key: str, shape: list[int]) -> None:
    assert list(VFN(4).state_dict()[key].shape) == shape


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under net"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.fusion."])
@pytest.mark.parametrize("names", [{}, OLD_NAMES], ids=["names of today", "old names"])
def test_checkpoint_converts_without_loss(wrapped: bool, prefix: str, names: dict[str, str], tmp_path: Path) -> None:
    state = trained_state()
    checkpoint = rename(state, names, prefix)
    converted = convert({"net": checkpoint, "optimizer": {"lr": 1e-3}, "epoch": 3} if wrapped else checkpoint, tmp_path)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[key], state[key]) for key in state)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_depth_is_inferred_from_the_blocks(depth: int, tmp_path: Path) -> None:
    state = trained_state(depth)
    converted = convert({"net": state}, tmp_path)
    assert all(torch.equal(converted[key], state[key]) for key in state)


def test_converted_network_computes_what_the_checkpoint_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VFN(2).eval()
    torch.save({"net": rename(network.state_dict(), OLD_NAMES)}, tmp_path / "checkpoint.pth")
    converted = convert_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "converted.safetensors")
    infrared, luma = torch.rand(2, 1, 1, 20, 24)
    assert torch.equal(converted(infrared, luma), network(infrared, luma))


def test_unknown_names_are_recognised_by_what_is_below_them(tmp_path: Path) -> None:
    state = trained_state()
    names = {"ir_feb": "thermal_branch", "frb1": "attention", "frb2": "decoder"}
    converted = convert(rename(state, names), tmp_path)
    assert all(torch.equal(converted[key], state[key]) for key in state)


def test_encoders_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="vi_feb or ir_feb"):
        convert(rename(trained_state(), {"ir_feb": "first", "vi_feb": "second"}), tmp_path)


def test_part_that_comes_twice_is_refused(tmp_path: Path) -> None:
    state = trained_state()
    with pytest.raises(WeightsError, match="twice"):
        convert({**state, **rename(state, OLD_NAMES)}, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("frb1.mlp_aa.0.weight"), "missing.*frb1.mlp_aa.0.weight"),
        (lambda state: state.update({"frb2.res.0.weight": torch.zeros(4, 8, 1, 1)}), r"\[4, 8, 1, 1\] instead of"),
        (lambda state: state.update({"head.weight": torch.zeros(1)}), "do not belong.*head.weight"),
        (lambda state: state.pop("ir_feb.e1.conv.bias"), "missing"),
    ],
    ids=["missing", "reshaped", "left over", "incomplete block"],
)
def test_checkpoint_must_match_exactly(change: object, message: str, tmp_path: Path) -> None:
    state = trained_state()
    change(state)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        convert(state, tmp_path)
    assert not (tmp_path / "converted.safetensors").exists()


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="could run code"):
        convert({"net": trained_state(), "extra": Payload(tmp_path / "harm")}, tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut", b"\x80\x02 cut"])
def test_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint\.pth"):
        convert_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "converted.safetensors")


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(trained_state(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        convert_checkpoint(tmp_path / "cut.pth", tmp_path / "converted.safetensors")


def test_checkpoint_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no state dictionary"):
        convert([1, 2, 3], tmp_path)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        convert_checkpoint(tmp_path / "absent.pth", tmp_path / "converted.safetensors")


def test_existing_target_is_kept_unless_overwriting_is_allowed(tmp_path: Path) -> None:
    torch.save(trained_state(), tmp_path / "checkpoint.pth")
    target = tmp_path / "converted.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(WeightsError, match="exists"):
        convert_checkpoint(tmp_path / "checkpoint.pth", target)
    assert target.read_bytes() == b"precious"
    convert_checkpoint(tmp_path / "checkpoint.pth", target, overwrite=True)
    assert read_weights(target).depth == 2


def test_checkpoint_with_other_keys_than_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no state dictionary"):
        convert({0: torch.zeros(1)}, tmp_path)


def test_checkpoint_that_is_not_finite_leaves_no_file(tmp_path: Path) -> None:
    state = trained_state()
    state["frb2.res.3.bias"] = torch.tensor([torch.nan])
    with pytest.raises(WeightsError, match="NaN or infinite"):
        convert(state, tmp_path)
    assert not (tmp_path / "converted.safetensors").exists()
