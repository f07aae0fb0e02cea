"""Every engine compensates as the PyTorch modules do: any size, number of channels, batch and choice of kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from fuseloop.engines import ENGINES, load_engine
from fuseloop.engines.compensation import DeployedCompensation, Injection, cells_of, constants_of
from fuseloop.networks.semantic_compensation import A2SI, Adaptation, SemanticCompensation, SemanticInjection
from fuseloop.networks.vfn import CHANNELS, VFN

MakeNetwork = Callable[..., VFN]
MakePair = Callable[..., tuple[Tensor, Tensor]]


def awake(depth: int = 2, seed: int = 0, **options: object) -> SemanticCompensation:
    """A compensation that changes features, and whose norms are not as they begin."""
    torch.manual_seed(seed)
    compensation = SemanticCompensation(depth, **{"width": 64, "vectors": 8, **options}).eval().requires_grad_(False)
    for module in compensation.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
        if isinstance(module, SemanticInjection):
            nn.init.normal_(module.zc.weight, std=0.5)
            nn.init.normal_(module.zc.bias)
    return compensation


def requirement_of(batch: int, channels: int = 24, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return SemanticCompensation(width=64, vectors=8).describe(torch.randn(batch, channels, 5, 7, generator=generator))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 20, 37)], ids=str)
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_the_second_pass_is_that_of_the_modules(
    name: str, depth: int, shape: tuple[int, int, int], make_network: MakeNetwork, make_pair: MakePair
):
    network, compensation, pair = make_network(depth, seed=1), awake(depth), make_pair(*shape)
    options = {"requirement": requirement_of(shape[0]), "strength": 0.7}
    engine = load_engine(name, network)
    engine.take(compensation)
    made = engine.finish(*engine.encode_first(*pair), partial(engine.compensate, **options))
    expected = network.decode(network.encode_rest(*network.encode_first(*pair), partial(compensation, **options)))
    assert (expected - network(*pair)).abs().max() > 0.05
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 130])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_requirements_have_any_number_of_channels(name: str, channels: int, network: VFN):
    compensation, requirement = awake(), requirement_of(2, channels)
    features = torch.randn(2, 2, CHANNELS, 17, 40, generator=torch.Generator().manual_seed(2))
    engine = load_engine(name, network)
    engine.take(compensation)
    for made, expected in zip(
        engine.compensate(0, *features, requirement=requirement), compensation(0, *features, requirement), strict=True
    ):
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_strength_0_leaves_features_as_they_are_bit_for_bit(name: str, network: VFN):
    features = torch.randn(2, 1, CHANNELS, 12, 16)
    engine = load_engine(name, network)
    engine.take(awake())
    unchanged = engine.compensate(0, *features, requirement=requirement_of(1), strength=0)
    assert all(map(torch.equal, unchanged, features))


@pytest.mark.parametrize("name", ENGINES)
def test_before_training_compensation_changes_nothing_bit_for_bit(name: str, network: VFN):
    features = torch.randn(2, 1, CHANNELS, 12, 16)
    engine = load_engine(name, network)
    engine.take(SemanticCompensation(width=64, vectors=8).eval())
    assert all(map(torch.equal, engine.compensate(0, *features, requirement=requirement_of(1)), features))


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_flat_frames_have_no_spread_to_divide_by(name: str, value: float, network: VFN):
    compensation, requirement = awake(), requirement_of(1)
    features = torch.full((2, 1, CHANNELS, 33, 20), value)
    engine = load_engine(name, network)
    engine.take(compensation)
    for made, expected in zip(
        engine.compensate(0, *features, requirement=requirement), compensation(0, *features, requirement), strict=True
    ):
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("options", [{"reference_compat": True}, {"without": ["choice"]}], ids=str)
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_forms_run_as_they_are(name: str, options: dict[str, object], network: VFN):
    compensation, requirement = awake(**options), requirement_of(1)
    features = torch.randn(2, 1, CHANNELS, 12, 16)
    engine = load_engine(name, network)
    engine.take(compensation)
    made = engine.compensate(0, *features, requirement=requirement)
    assert all(map(torch.equal, made, compensation(0, *features, requirement)))


def test_openvino_compensates_in_fp32_where_the_network_runs_in_bf16(network: VFN):
    compensation, requirement = awake(), requirement_of(1)
    features = torch.randn(2, 1, CHANNELS, 24, 16)
    engine = load_engine("openvino", network, precision="bf16")
    engine.take(compensation)
    for made, expected in zip(
        engine.compensate(0, *features, requirement=requirement), compensation(0, *features, requirement), strict=True
    ):
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


# -------------------------------------------------------------------------------------------------- the deployed parts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("branches", [1, 4, 8])
def test_a_decision_is_that_of_the_block(seed: int, branches: int):
    compensation = awake(seed=seed, branches=branches)
    features, requirement = torch.randn(3, CHANNELS, 33, 50), requirement_of(3, 8 + seed, seed)
    adaptation = compensation.rsc_vi["a2si0"].adapt(features, requirement, compensation.bank)
    decision = DeployedCompensation(compensation).decisions["vi0"]
    configurations, vectors = decision(cells_of(features), requirement)
    assert torch.equal(configurations, adaptation.configurations.float())
    assert torch.equal(vectors, (adaptation.configurations * compensation.vectors + adaptation.vectors).float())


@pytest.mark.parametrize("size", [(8, 8), (16, 32), (17, 47), (40, 9)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels last"])
def test_cells_are_what_a_block_looks_at(size: tuple[int, int], layout: torch.memory_format):
    features = torch.randn(2, CHANNELS, *size).contiguous(memory_format=layout)
    torch.testing.assert_close(cells_of(features), A2SI(width=64).look(features), rtol=0, atol=1e-6)


@pytest.mark.parametrize("together", [False, True])
def test_an_injection_is_that_of_the_block_whatever_is_chosen(together: bool):
    """All ways in which four branches can have four configurations."""
    compensation = awake()
    block, bank = compensation.rsc_ir["a2si0"], compensation.bank
    features = torch.randn(1, CHANNELS, 9, 11)
    deployed = DeployedCompensation(compensation)
    for choice in product(range(4), repeat=4):
        if list(choice) != sorted(choice):
            continue
        configurations, vectors = torch.tensor([choice]), torch.tensor([[5, 0, 3, 6]])
        basis = bank[configurations, vectors]
        adaptation = Adaptation(
            logits=torch.empty(0),
            configurations=configurations,
            query=torch.empty(0),
            vectors=vectors,
            basis=basis,
            pointwise=block.mlp_1x1(basis).unflatten(2, (CHANNELS, CHANNELS, 1, 1)),
            spatial=block.mlp_3x3(basis).unflatten(2, (CHANNELS, CHANNELS, 3, 3)),
        )
        expected = block.inject(features, adaptation, strength=0.4)
        flat = (configurations * compensation.vectors + vectors)[0].float()
        backwards = torch.arange(4).flip(0)  # branches have no order
        counts, inputs = deployed.chosen("ir0", configurations[0, backwards].float(), flat[backwards])
        injection = Injection(counts, deployed.eps, together=together)
        made = injection(features, *inputs, torch.full((1, 1, 1, 1), 0.4))
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_the_table_holds_what_the_heads_make_of_the_bank():
    compensation = awake()
    block, bank = compensation.rsc_ir["a2si0"], compensation.bank
    table = constants_of(block, bank).table
    assert table.shape == (4 * 8, CHANNELS, CHANNELS, 3, 3)
    middle = table[3, :, :, 1, 1]
    torch.testing.assert_close(middle.flatten(), block.mlp_1x1(bank[0, 3]))
    assert table[3].count_nonzero() == middle.count_nonzero()
    torch.testing.assert_close(table[8 + 5].flatten(), block.mlp_3x3(bank[1, 5]))
