"""An exported file runs elsewhere, at any size, and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fuseloop.engines.export import export_onnx
from fuseloop.engines.graph import write_graph
from fuseloop.errors import ImageError
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
