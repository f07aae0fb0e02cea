"""Every engine computes what the PyTorch module computes, for any size, batch and tiling."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseloop.datasets.synthetic import generate
from fuseloop.engines import ENGINES, Engine, Precision, load_engine
from fuseloop.engines.bfloat16 import split_image, to_bfloat16
from fuseloop.engines.deployment import Deployment, deploy
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.networks.vfn import CHANNELS, VFN, Pooled
from fuseloop.pairs.colour import rgb_to_ycbcr
from fuseloop.pairs.tiles import plan_tiles

MakePair = Callable[..., tuple[Tensor, Tensor]]
SHAPES = [(1, 8, 8), (3, 9, 31), (1, 64, 48), (2, 37, 8)]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, network: VFN) -> Engine:
    return load_engine(request.param, network)


def largest(difference: Tensor) -> float:
    return float(difference.abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_engines_give_what_the_module_gives(
    engine: Engine, network: VFN, make_pair: MakePair, shape: tuple[int, int, int]
):
    pair = make_pair(*shape)
    fused = engine.fuse(*pair)
    assert fused.shape == pair[1].shape
    assert fused.dtype == torch.float32
    assert largest(fused - network(*pair)) < 1e-5  # the promise is 1e-4


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_any_depth(name: str, depth: int, make_network: Callable[..., VFN], make_pair: MakePair):
    network, pair = make_network(depth), make_pair(1, 20, 24)
    assert largest(load_engine(name, network).fuse(*pair) - network(*pair)) < 1e-5


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("name", ENGINES)
def test_a_frame_in_steps_is_the_frame(name: str, depth: int, make_network: Callable[..., VFN], make_pair: MakePair):
    network, pair = make_network(depth), make_pair(2, 20, 24)
    engine = load_engine(name, network)
    assert largest(engine.finish(*engine.encode_first(*pair)) - network(*pair)) < 1e-5
    if name == "torch":  # the other engines choose kernels for each graph
        assert torch.equal(engine.finish(*engine.encode_first(*pair)), engine.fuse(*pair))


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("name", ENGINES)
def test_features_can_be_changed_between_the_steps(
    name: str, depth: int, make_network: Callable[..., VFN], make_pair: MakePair
):
    network, pair = make_network(depth), make_pair(2, 20, 24)

    def compensate(level: int, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        return infrared.roll(level + 1, dims=1), visible

    engine = load_engine(name, network)
    changed = engine.finish(*engine.encode_first(*pair), compensate)
    with torch.no_grad():
        expected = network.decode(network.encode_rest(*network.encode_first(*pair), compensate))
    assert largest(expected - network(*pair)) > 1e-3
    assert largest(changed - expected) < 1e-4  # the promise


def scenes() -> list[tuple[Tensor, Tensor]]:
    """Four synthetic pairs."""
    pairs = []
    for seed in range(4):
        scene = generate(seed, 240, 320)
        colour = torch.from_numpy(scene.visible).movedim(-1, 0)[None].float() / 255
        infrared = torch.from_numpy(scene.infrared)[None, None].float() / 255
        pairs.append((infrared, rgb_to_ycbcr(colour)[:, :1]))
    return pairs


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_within_two_grey_levels_with_the_shipped_weights(name: str):
    network = read_weights(find_weights("vfn")).eval()
    engine = load_engine(name, network, precision="bf16")
    with torch.inference_mode():
        off = [largest(engine.fuse(*pair) - network(*pair)) for pair in scenes()]
    assert max(off) < 2 / 255


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_takes_any_shape_and_tiles(name: str, network: VFN, make_pair: MakePair):
    engine = load_engine(name, network, precision="bf16")
    pair = make_pair(2, 9, 30)
    fused = engine.fuse(*pair)
    assert fused.dtype == torch.float32
    assert largest(fused - network(*pair)) < 0.1  # random weights amplify more than trained ones
    total, peak = engine.pool(*pair, torch.ones_like(pair[0]))
    assert largest(engine.fuse_tile(*pair, Pooled(total / (9 * 30), peak)) - fused) < 0.02


@pytest.mark.parametrize("prepare", [None, to_bfloat16], ids=["fp32", "bf16"])
def test_encoders_apart_give_what_they_give_together(
    network: VFN, make_pair: MakePair, prepare: Callable[[Deployment], None] | None
):
    pair = make_pair(2, 12, 20)
    together, apart = deploy(network), deploy(network, apart=True)
    if prepare:
        pair = tuple(map(split_image, pair))
        prepare(together)
        prepare(apart)
    assert together.image_channels == apart.image_channels == pair[0].shape[1]
    assert largest(together.frame(*pair) - apart.frame(*pair)) < 1e-6


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kernels are for x86")
def test_convolutions_to_eight_channels_run_in_kernels_as_wide(network: VFN, make_pair: MakePair):
    from fuseloop.engines.openvino_engine import OpenVinoEngine

    engine = OpenVinoEngine(network, "fp32")
    engine.fuse(*make_pair(1, 16, 32))
    (request,) = engine.compiled.values()
    kernels = set()
    for node in request.get_compiled_model().get_runtime_model().get_ops():
        kind, kernel = (node.get_rt_info()[key].astype(str) for key in ("layerType", "primitiveType"))
        if kind == "Convolution" and node.get_output_shape(0)[1] == CHANNELS:
            kernels.add(kernel)
    assert kernels == {"brgconv_avx2_f32", "brgconv_avx2_1x1_f32"}


def test_all_that_is_deployed_is_where_the_network_is(network: VFN):
    """On a device that every machine has, though it computes nothing."""
    deployment = deploy(copy.deepcopy(network).to("meta"))
    assert {buffer.device.type for part in deployment for buffer in part.buffers()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 0.1)])  # TensorFloat-32 has 10 bits
def test_a_network_on_a_gpu_runs_there(network: VFN, make_pair: MakePair, precision: Precision, tolerance: float):
    pair = make_pair(2, 24, 30)
    engine = load_engine("torch", copy.deepcopy(network).cuda(), precision=precision)
    fused = engine.fuse(*pair)
    assert fused.device.type == "cpu"
    assert largest(fused - network(*pair)) < tolerance
    total, peak = engine.pool(*pair, torch.ones_like(pair[0]))
    assert largest(engine.fuse_tile(*pair, Pooled(total / (24 * 30), peak)) - fused) < tolerance


def test_tiles_give_what_the_whole_frame_gives(engine: Engine, network: VFN, make_pair: MakePair):
    infrared, luma = make_pair(1, 97, 141)
    tiles = plan_tiles(97, 141, 80, network.halo)
    assert len(tiles) > 4
    parts = []
    for tile in tiles:
        rows, columns = tile.inner.within(tile.outer).slices
        crops = [image[..., tile.outer.slices[0], tile.outer.slices[1]] for image in (infrared, luma)]
        interior = torch.zeros_like(crops[0])
        interior[..., rows, columns] = 1
        parts.append(engine.pool(*crops, interior))
    mean = sum(part.mean for part in parts) / (97 * 141)
    peak = torch.stack([part.peak for part in parts]).amax(dim=0)

    fused = torch.empty_like(luma)
    for tile in tiles:
        rows, columns = tile.inner.within(tile.outer).slices
        crops = [image[..., tile.outer.slices[0], tile.outer.slices[1]] for image in (infrared, luma)]
        piece = engine.fuse_tile(*crops, Pooled(mean, peak))
        fused[..., tile.inner.slices[0], tile.inner.slices[1]] = piece[..., rows, columns]
    assert largest(fused - engine.fuse(infrared, luma)) < 1e-5


def test_the_same_input_gives_the_same_bits_and_changes_nothing(engine: Engine, make_pair: MakePair):
    pair = make_pair(1, 24, 40)
    copies = [image.clone() for image in pair]
    first = engine.fuse(*pair)
    engine.fuse(*make_pair(1, 24, 40, seed=1))
    assert torch.equal(engine.fuse(*pair), first)
    assert all(map(torch.equal, pair, copies))


def test_a_result_outlives_the_next_call(engine: Engine, make_pair: MakePair):
    first = engine.fuse(*make_pair(1, 24, 40))
    kept = first.clone()
    engine.fuse(*make_pair(1, 24, 40, seed=1))
    assert torch.equal(first, kept)


def test_a_pair_does_not_see_the_others_of_its_batch(engine: Engine, make_pair: MakePair):
    infrared, luma = make_pair(3, 16, 24)
    alone = torch.cat([engine.fuse(infrared[[item]], luma[[item]]) for item in range(3)])
    assert largest(engine.fuse(infrared, luma) - alone) < 1e-6


def test_views_of_larger_images_are_taken_as_they_are(engine: Engine, make_pair: MakePair):
    infrared, luma = make_pair(1, 40, 50)
    view = (..., slice(3, 27), slice(5, 41))
    assert (
        largest(engine.fuse(infrared[view], luma[view]) - engine.fuse(infrared[view].clone(), luma[view].clone())) == 0
    )


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_keeps_the_weights_it_took(name: str, make_network: Callable[..., VFN], make_pair: MakePair):
    network, pair = make_network(1), make_pair(1, 16, 16)
    engine = load_engine(name, network)
    expected = network(*pair)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert largest(engine.fuse(*pair) - expected) < 1e-5


def test_many_sizes_are_not_all_kept(make_network: Callable[..., VFN], make_pair: MakePair):
    from fuseloop.engines.openvino_engine import COMPILED, OpenVinoEngine

    engine = OpenVinoEngine(make_network(1), "fp32")
    for width in range(8, 8 + COMPILED + 2):
        engine.fuse(*make_pair(1, 8, width))
    assert len(engine.compiled) == COMPILED


def test_large_sizes_push_each_other_out(make_network: Callable[..., VFN], make_pair: MakePair, monkeypatch):
    from fuseloop.engines import openvino_engine

    monkeypatch.setattr(openvino_engine, "COMPILED_PIXELS", 3 * 16 * 16)
    engine = openvino_engine.OpenVinoEngine(make_network(1), "fp32")
    for width in (16, 17, 18, 60, 16):
        engine.fuse(*make_pair(1, 16, width))
        kept = [shapes[0][-1] for _, shapes in engine.compiled]
    assert kept == [16]


def test_a_size_is_compiled_once(make_network: Callable[..., VFN], make_pair: MakePair):
    from fuseloop.engines.openvino_engine import OpenVinoEngine

    engine = OpenVinoEngine(make_network(1), "fp32")
    requests = []
    for seed in range(3):
        engine.fuse(*make_pair(1, 8, 16, seed))
        requests += engine.compiled.values()
    assert len(requests) == 3
    assert len(set(map(id, requests))) == 1


def test_pytorch_keeps_its_settings(engine: Engine, make_pair: MakePair):
    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    engine.fuse(*make_pair(1, 8, 8))
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, kind)
    assert torch.is_grad_enabled()


def test_unknown_engines_are_refused_with_the_known_ones(network: VFN):
    with pytest.raises(ConfigurationError, match=r"abacus.*torch, onnxruntime, openvino"):
        load_engine("abacus", network)


@pytest.mark.parametrize(("name", "precision"), [("torch", "fp64"), ("onnxruntime", "bf16")])
def test_precisions_that_an_engine_lacks_are_refused_with_those_it_has(name: str, precision: str, network: VFN):
    with pytest.raises(ConfigurationError, match=f"{name}.*{precision}.*fp32"):
        load_engine(name, network, precision=precision)  # type: ignore[arg-type]


def test_images_outside_the_range_stay_finite(engine: Engine):
    image = torch.from_numpy(np.linspace(-3, 4, 256, dtype=np.float32).reshape(1, 1, 16, 16))
    assert torch.isfinite(engine.fuse(image, -image)).all()
