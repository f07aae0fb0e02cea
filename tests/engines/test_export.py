"""An exported file runs elsewhere, at any size, and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from fuseloop.engines.export import export_onnx
from fuseloop.engines.graph import write_graph
from fuseloop.errors import ConfigurationError, ImageError
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN, gradient_magnitude

MakePair = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: VFN) -> Path:
    """The three parts as files."""
    folder = tmp_path_factory.mktemp("export")
    for part in ("frame", "statistics", "tile"):
        export_onnx(network, folder / f"{part}.onnx", part=part)  # type: ignore[arg-type]
    return folder


def run(path: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(value) for value in session.run(None, arrays)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 21, 40)], ids=str)
def test_the_frame_fuses_any_batch_and_size(
    folder: Path, network: VFN, make_pair: MakePair, shape: tuple[int, int, int]
):
    infrared, luma = make_pair(*shape)
    (fused,) = run(folder / "frame.onnx", infrared=infrared, luma=luma)
    torch.testing.assert_close(fused, network(infrared, luma), rtol=0, atol=1e-5)


def test_the_tile_takes_the_statistics_of_the_frame_as_inputs(folder: Path, network: VFN, make_pair: MakePair):
    infrared, luma = make_pair(2, 24, 30)
    pooled = network.pool(gradient_magnitude(network.encode(infrared, luma)))
    total, peak = run(folder / "statistics.onnx", infrared=infrared, luma=luma, interior=torch.ones_like(luma))
    torch.testing.assert_close(total[:, :, 0, 0] / (24 * 30), pooled.mean)
    torch.testing.assert_close(peak[:, :, 0, 0], pooled.peak)
    (fused,) = run(folder / "tile.onnx", infrared=infrared, luma=luma, mean=total / (24 * 30), peak=peak)
    torch.testing.assert_close(fused, network(infrared, luma), rtol=0, atol=1e-5)


def test_the_file_names_its_inputs_and_free_dimensions(folder: Path):
    graph = onnx.load(folder / "frame.onnx").graph
    for value in (*graph.input, *graph.output):
        dimensions = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert dimensions == ["batch", 1, "height", "width"]
    assert [value.name for value in graph.input] == ["infrared", "luma"]
    assert [value.name for value in graph.output] == ["fused"]


def test_the_metadata_say_what_the_file_is(folder: Path):
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "tile.onnx").metadata_props}
    assert metadata.pop("colour_convention").startswith("luma is Y = 0.299 R + 0.587 G + 0.114 B")
    assert metadata == {
        "architecture": "VFN",
        "depth": "2",
        "fuseloop_version": version("fuseloop"),
        "part": "tile",
        "value_range": "[0, 1]",
        "halo": "25",
        "minimum_side": "8",
    }


@pytest.fixture(scope="module")
def loop(folder: Path, network: VFN) -> SemanticCompensation:
    """A compensation, whose passes are files in the folder too."""
    torch.manual_seed(0)
    compensation = SemanticCompensation(width=64, vectors=8).eval().requires_grad_(False)
    for block in (compensation.rsc_ir["a2si0"], compensation.rsc_vi["a2si0"]):
        nn.init.normal_(block.zc.weight, std=0.5)
    export_onnx(network, folder / "first.onnx", part="first")
    export_onnx(network, folder / "second.onnx", part="second", compensation=compensation)
    return compensation


def run_in_openvino(path: Path, **inputs: Tensor) -> list[Tensor]:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [torch.from_numpy(value) for value in model({key: value.numpy() for key, value in inputs.items()}).values()]


@pytest.mark.parametrize("runs", [run, run_in_openvino], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 3), (33, 20, 24), (16, 50, 130)])
def test_the_passes_of_a_closed_loop_take_any_size_and_requirement(
    folder: Path,
    network: VFN,
    loop: SemanticCompensation,
    make_pair: MakePair,
    runs: Callable[..., list[Tensor]],
    height: int,
    width: int,
    channels: int,
):
    pair = make_pair(1, height, width)
    requirement = loop.describe(torch.randn(1, channels, 5, 7))
    infrared, visible = run(folder / "first.onnx", infrared=pair[0], visible=pair[1])
    for strength in (0.0, 0.6, 1.0):
        compensate = partial(loop, requirement=requirement, strength=strength)
        expected = network.decode(network.encode_rest(*network.encode_first(*pair), compensate))
        inputs = {"requirement": requirement, "strength": torch.tensor([strength])}
        (fused,) = runs(folder / "second.onnx", infrared=infrared, visible=visible, **inputs)
        torch.testing.assert_close(fused, expected, rtol=0, atol=1e-4)
        if strength == 0:
            neutral = fused
    assert (fused - neutral).abs().max() > 1e-3


def test_the_second_pass_says_what_goes_in(folder: Path, loop: SemanticCompensation):
    model = onnx.load(folder / "second.onnx")
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    features = [1, 8, "height", "width"]
    assert shapes == {
        "infrared": features,
        "visible": features,
        "requirement": [1, "channels", 4, 4],
        "strength": [1],
        "fused": [1, 1, "height", "width"],
    }
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["compensation"] == "branches=4, width=64, vectors=8"
    assert "4x4 grid" in metadata["requirement"]
    assert metadata["halo"] == "the whole frame"


@pytest.mark.parametrize(
    ("compensation", "message"),
    [(None, "a fusion network alone"), (SemanticCompensation(width=64, vectors=8, reference_compat=True), "published")],
    ids=["none", "published"],
)
def test_a_second_pass_needs_a_mended_compensation(
    tmp_path: Path, network: VFN, compensation: SemanticCompensation | None, message: str
):
    with pytest.raises(ConfigurationError, match=message):
        export_onnx(network, tmp_path / "second.onnx", part="second", compensation=compensation)
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_kept_unless_told(tmp_path: Path, network: VFN):
    path = tmp_path / "network.onnx"
    path.write_text("mine")
    with pytest.raises(ImageError, match=r"network.onnx.*--overwrite"):
        export_onnx(network, path)
    assert path.read_text() == "mine"
    export_onnx(network, path, overwrite=True)
    onnx.checker.check_model(onnx.load(path))
    assert list(tmp_path.iterdir()) == [path]


def test_operations_that_the_table_lacks_are_an_error():
    with pytest.raises(KeyError):
        write_graph(nn.GELU(), {"x": ["n"]}, {"y": ["n"]})
