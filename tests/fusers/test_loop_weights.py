"""Weight files of closed loops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.fusers.loop_weights import Loop, find_loop, is_loop, read_loop, shipped_loops, write_loop
from fuseloop.fusers.weights import LOOPS, load, write_weights
from fuseloop.networks.semantic_compensation import ABLATIONS, SemanticCompensation
from fuseloop.networks.vfn import VFN

TASKS = ("detection", "saliency")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "loop.safetensors"
    write_loop(path, VFN(2), SemanticCompensation(2, width=64, vectors=8), TASKS, description="for tests")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 3, "branches": 2},
        {"width": 64, "vectors": 8, "reference_compat": True},
        *({"without": [part]} for part in ABLATIONS),
        {"without": ["determinism", "image_norm", "bank"]},
    ],
    ids=str,
)
def test_both_networks_and_the_tasks_survive_writing_and_reading(tmp_path: Path, options: dict):
    compensation = SemanticCompensation(**options)
    network = VFN(compensation.depth)
    write_loop(tmp_path / "w.safetensors", network, compensation, TASKS)
    (tmp_path / "w.md").write_text("# Card")
    loop = read_loop(tmp_path / "w.safetensors")
    assert (loop.tasks, loop.card) == (TASKS, "# Card")
    assert loop.compensation.reference_compat == compensation.reference_compat
    assert loop.compensation.without == compensation.without
    kinds = [[type(module).__mro__[1:] for module in one.modules()] for one in (compensation, loop.compensation)]
    assert kinds[0] == kinds[1]
    for written, read in ((network, loop.network), (compensation, loop.compensation)):
        assert not read.training
        expected, found = written.state_dict(), read.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_file_says_what_it_holds(file: Path):
    with safe_open(file, "pt") as archive:
        metadata = archive.metadata()
    assert metadata["architecture"] == "ClosedLoop"
    assert (metadata["depth"], metadata["width"], metadata["description"]) == ("2", "64", "for tests")
    assert is_loop(file)


def test_a_file_says_what_its_compensation_goes_without_and_unknown_parts_are_refused(tmp_path: Path, file: Path):
    with safe_open(file, "pt") as archive:
        assert "without" not in archive.metadata()
    path = tmp_path / "less.safetensors"
    write_loop(path, VFN(2), SemanticCompensation(without=["descriptor", "bank"]))
    with safe_open(path, "pt") as archive:
        metadata = archive.metadata()
    assert (metadata["without"], metadata["vectors"]) == ("bank,descriptor", "0")
    save_file(load_file(path), path, {**metadata, "without": "bank,descriptors"})
    message = (
        r"less\.safetensors says of itself what is not possible: .*without 'descriptors'; did you mean 'descriptor'"
    )
    with pytest.raises(WeightsError, match=message):
        read_loop(path)


def test_other_files_are_no_closed_loops(tmp_path: Path):
    write_weights(tmp_path / "vfn.safetensors", VFN(2))
    (tmp_path / "text.safetensors").write_text("no weights")
    assert not any(
        map(is_loop, ("vfn", tmp_path / "vfn.safetensors", tmp_path / "text.safetensors", tmp_path / "none"))
    )


def test_networks_of_two_depths_are_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="VFN of depth 3, and this one has depth 2"):
        write_loop(tmp_path / "w.safetensors", VFN(2), SemanticCompensation(3))


def test_tensors_of_another_shape_are_named(file: Path):
    with safe_open(file, "pt") as archive:
        metadata = archive.metadata()
    tensors = load_file(file)
    save_file({**tensors, "rsc.bvb": torch.zeros(4, 8, 32)}, file, metadata)
    with pytest.raises(WeightsError, match=r"rsc\.bvb is \[4, 8, 32\] instead of \[4, 8, 64\]"):
        read_loop(file)
    save_file({**tensors, "rsc.bvb": torch.full((4, 8, 64), torch.nan)}, file, metadata)
    with pytest.raises(WeightsError, match="NaN"):
        read_loop(file)
    save_file(tensors, file, {**metadata, "tasks": "detection"})
    with pytest.raises(WeightsError, match="list its tasks"):
        read_loop(file)
    save_file(tensors, file, {"architecture": "ClosedLoop"})
    with pytest.raises(WeightsError, match="holds no closed loop: its metadata should say"):
        read_loop(file)


def test_a_fusion_network_alone_is_told_from_a_loop(tmp_path: Path, file: Path):
    write_weights(tmp_path / "vfn.safetensors", VFN(2))
    with pytest.raises(WeightsError, match="a fusion network without a closed loop"):
        read_loop(tmp_path / "vfn.safetensors")
    with pytest.raises(WeightsError, match="'vfn' is a fusion network without a closed loop; give one of cldyn"):
        find_loop("vfn")
    with pytest.raises(WeightsError, match="holds a closed loop, which fuses for a task network: use --for"):
        load(file)
    with pytest.raises(WeightsError, match="'cldyn' is a closed loop, which fuses for a task network"):
        load("cldyn")


@pytest.mark.skipif("cldyn" in shipped_loops(), reason="it is shipped")
def test_a_loop_that_is_not_shipped_yet_says_so_and_how_to_get_one():
    assert set(LOOPS) >= {"cldyn"}
    with pytest.raises(WeightsError, match=r"no weights of the closed loop 'cldyn' are shipped yet; train some with"):
        find_loop("cldyn")


def test_unknown_names_and_files_are_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"unknown closed loop 'cldin'\. Did you mean 'cldyn'\?"):
        find_loop("cldin")
    with pytest.raises(WeightsError, match="there is no weight file"):
        find_loop(tmp_path / "none.safetensors")


def test_a_loop_can_be_put_together_from_networks():
    assert Loop(VFN(2), SemanticCompensation(2)).tasks == ()
