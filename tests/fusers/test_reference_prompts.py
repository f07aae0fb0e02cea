"""Published checkpoints of T-OAR and its base network are read strictly and without loss."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fuseloop.errors import WeightsError
from fuseloop.fusers.conversion import convert
from fuseloop.fusers.prompt_weights import read_base, read_prompts, write_prompt_network
from fuseloop.fusers.reference import published_compensation
from fuseloop.fusers.reference_prompts import convert_base, convert_prompts, published_prompts
from fuseloop.networks.prompt_injection import BFN, TOAR
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN

SMALL = {"sentence": 12, "text": 6}


def trained(network: nn.Module) -> nn.Module:
    """The network with no two values alike, statistics and counters included, in the precision of checkpoints."""
    generator = torch.Generator().manual_seed(0)
    for index, value in enumerate(network.state_dict().values()):
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator).bfloat16())
        else:
            value.fill_(index)
    return network.eval()


def saved(checkpoint: object, folder: Path) -> Path:
    torch.save(checkpoint, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def test_published_layout_has_the_keys_and_the_type_of_the_description() -> None:
    state = published_prompts(TOAR())["T_dpi"]
    assert len(state) == 228
    learned = [key for key in state if "running" not in key and "num_batches" not in key]
    assert sum(state[key].numel() for key in learned) == 10_514_880
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.bfloat16}
    for key in ("adapter.0.weight", "adapter.1.bias"):
        assert torch.equal(state[key], state[f"ir_t_dpi.{key}"])
        assert torch.equal(state[key], state[f"vi_t_dpi.{key}"])


@pytest.mark.parametrize("options", [SMALL, {"depth": 2, **SMALL}], ids=str)
@pytest.mark.parametrize("prefix", ["", "module.", "buff."])
def test_prompts_make_the_round_trip_without_loss(options: dict[str, int], prefix: str, tmp_path: Path) -> None:
    toar = trained(TOAR(**options))
    checkpoint = published_prompts(toar)
    path = saved({"T_dpi": prefixed(checkpoint["T_dpi"], prefix), "optimizer": {"lr": 0.01}, "epoch": 949}, tmp_path)
    converted = convert_prompts(path, tmp_path / "toar.safetensors")
    read = read_prompts(tmp_path / "toar.safetensors")
    for other in (converted, read):
        assert not other.training
        assert same(toar.state_dict(), other.state_dict())
    assert same(checkpoint["T_dpi"], published_prompts(read)["T_dpi"])


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("prefix", ["", "module.", "buff."])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under net"])
def test_base_networks_make_the_round_trip_without_loss(depth: int, prefix: str, wrapped: bool, tmp_path: Path) -> None:
    network = trained(BFN(depth))
    state = prefixed(network.state_dict(), prefix)
    path = saved({"net": state, "optimizer": {"lr": 1e-3}, "epoch": 100} if wrapped else state, tmp_path)
    converted = convert_base(path, tmp_path / "bfn.safetensors")
    read = read_base(tmp_path / "bfn.safetensors")
    for other in (converted, read):
        assert not other.training
        assert same(network.state_dict(), other.state_dict())


@torch.no_grad()
def test_both_stages_compute_what_their_checkpoints_did(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, toar = BFN().eval(), TOAR(**SMALL).eval()
    for block in (*toar.ir_t_dpi.values(), *toar.vi_t_dpi.values()):
        nn.init.normal_(block.zc.weight)
    torch.save({"net": network.state_dict()}, tmp_path / "bfn.pth")
    torch.save(published_prompts(toar, torch.float32), tmp_path / "toar.pth")
    base = convert_base(tmp_path / "bfn.pth", tmp_path / "bfn.safetensors")
    prompts = convert_prompts(tmp_path / "toar.pth", tmp_path / "toar.safetensors")
    pair, sentence = torch.rand(2, 1, 1, 16, 19), torch.randn(1, 12)
    ours = network(*pair, partial(toar, text=toar.adapter(sentence)))
    assert torch.equal(base(*pair, partial(prompts, text=prompts.adapter(sentence))), ours)
    assert (ours - network(*pair)).abs().max() > 1e-3


def first_value(state: dict[str, Tensor], key: str, value: float) -> None:
    state[key] = state[key].clone()
    state[key].view(-1)[0] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: first_value(s, "vi_t_dpi.adapter.1.bias", 7.0), "vi_t_dpi.adapter.1.bias should be a copy"),
        (lambda s: s.pop("adapter.0.bias"), r"ir_t_dpi.adapter.0.bias should be a copy of adapter.0.bias"),
        (lambda s: s.pop("vi_t_dpi.dpi1.zc.bias"), "missing .*vi_t_dpi.dpi1.zc.bias"),
        (lambda s: s.update({"ir_t_dpi.dpi0.zc.weight": torch.zeros(8, 8, 3, 3)}), "another shape"),
        (lambda s: s.update({"ir_t_dpi.dpi2.head.weight": torch.zeros(1)}), "do not belong"),
        (lambda s: s["ir_t_dpi.dpi0.zc.bias"].fill_(torch.nan), "NaN or infinite"),
        (lambda s: s.update({"ir_t_dpi.dpi0.zc.bias": 3}), "no state dictionary under the key 'T_dpi'"),
    ],
)
def test_prompts_must_match_exactly(change: object, message: str, tmp_path: Path) -> None:
    checkpoint = published_prompts(trained(TOAR(**SMALL)))  # type: ignore[arg-type]
    change(checkpoint["T_dpi"])  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        convert_prompts(saved(checkpoint, tmp_path), tmp_path / "toar.safetensors")
    assert not (tmp_path / "toar.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fb.d3.conv.bias"), "missing .*fb.d3.conv.bias"),
        (lambda s: s.update({"ff.mlp_aa.0.weight": torch.zeros(16, 16)}), r"\[16, 16\] instead of \[32, 16\]"),
        (lambda s: s.update({"fb.f_conv.0.weight": torch.zeros(1)}), "do not belong"),
        (lambda s: s["fb.res.6.bias"].fill_(torch.inf), "NaN or infinite"),
    ],
)
def test_base_networks_must_match_exactly(change: object, message: str, tmp_path: Path) -> None:
    state = dict(BFN().state_dict())
    change(state)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        convert_base(saved({"net": state}, tmp_path), tmp_path / "bfn.safetensors")
    assert not (tmp_path / "bfn.safetensors").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"net": 3}], ids=str)
def test_what_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    path = saved(content, tmp_path)
    for convert_one in (convert_base, convert_prompts):
        with pytest.raises(WeightsError, match="no state dictionary"):
            convert_one(path, tmp_path / "out.safetensors")


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    path = saved({**published_prompts(TOAR(**SMALL)), "extra": Payload(tmp_path / "harm")}, tmp_path)
    with pytest.raises(WeightsError, match="could run code"):
        convert_prompts(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("checkpoint", "kind"),
    [
        ({"net": BFN().state_dict()}, BFN),
        (prefixed(BFN(2).state_dict(), "module."), BFN),
        (published_prompts(TOAR(**SMALL)), TOAR),
        ({"net": VFN().state_dict()}, VFN),
        (published_compensation(SemanticCompensation(width=64, reference_compat=True)), SemanticCompensation),
    ],
    ids=["base", "base of data parallelism", "prompts", "VFN", "compensation"],
)
def test_a_checkpoint_says_which_network_it_is_of(checkpoint: object, kind: type[nn.Module], tmp_path: Path) -> None:
    assert type(convert(saved(checkpoint, tmp_path), tmp_path / "out.safetensors")) is kind


def test_old_names_of_vfn_are_not_taken_for_the_base_network(tmp_path: Path) -> None:
    names = {"vi_feb": "vi_e", "ir_feb": "ir_e", "frb2": "fb", "frb1": "ff"}
    state = {
        ".".join([names[part], rest]): value
        for key, value in VFN().state_dict().items()
        for part, rest in [key.split(".", 1)]
    }
    assert isinstance(convert(saved({"net": state}, tmp_path), tmp_path / "out.safetensors"), VFN)


class TestWeightFiles:
    def test_a_file_of_another_network_is_refused(self, tmp_path: Path) -> None:
        write_prompt_network(tmp_path / "bfn.safetensors", BFN())
        with pytest.raises(WeightsError, match=r"holds no TOAR: its metadata should say .*depth, sentence, text"):
            read_prompts(tmp_path / "bfn.safetensors")
        write_prompt_network(tmp_path / "toar.safetensors", TOAR(**SMALL))
        with pytest.raises(WeightsError, match="holds no BFN"):
            read_base(tmp_path / "toar.safetensors")

    def test_a_checkpoint_is_no_weight_file_and_the_message_says_how_to_convert_it(self, tmp_path: Path) -> None:
        path = saved(published_prompts(TOAR(**SMALL)), tmp_path)
        with pytest.raises(WeightsError, match=r"fuseloop convert .*checkpoint\.pth .*checkpoint\.safetensors"):
            read_prompts(path)

    def test_an_existing_target_is_kept_unless_overwriting_is_allowed(self, tmp_path: Path) -> None:
        path = saved(published_prompts(TOAR(**SMALL)), tmp_path)
        (tmp_path / "out.safetensors").write_bytes(b"precious")
        with pytest.raises(WeightsError, match="exists"):
            convert(path, tmp_path / "out.safetensors")
        assert (tmp_path / "out.safetensors").read_bytes() == b"precious"
        convert(path, tmp_path / "out.safetensors", overwrite=True)
        assert read_prompts(tmp_path / "out.safetensors").sentence == 12
