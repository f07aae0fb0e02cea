"""Weight files of fusion by instruction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.fusers.instruction_weights import (
    Instructed,
    find_instructed,
    is_instructed,
    read_instructed,
    shipped_instructed,
    write_instructed,
)
from fuseloop.fusers.loop_weights import write_loop
from fuseloop.fusers.prompt_weights import write_prompt_network
from fuseloop.fusers.weights import INSTRUCTED, load, write_weights
from fuseloop.networks.instruction_conditioner import InstructedVFN, InstructionConditioner
from fuseloop.networks.prompt_injection import BFN
from fuseloop.networks.semantic_compensation import SemanticCompensation
from fuseloop.networks.vfn import VFN

TASKS = ("detection", "view")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "instructed.safetensors"
    write_instructed(
        path,
        VFN(),
        InstructionConditioner(embedding=16),
        encoder="hashed-1",
        tasks=TASKS,
        vectors=torch.rand(2, 16),
        description="for tests",
    )
    return path


@pytest.mark.parametrize(
    "options", [{}, {"depth": 3, "kernels": 4, "hidden": 16}, {"embedding": 16, "places": ("gate", "encoder")}], ids=str
)
def test_both_networks_and_what_they_understand_survive_writing_and_reading(tmp_path: Path, options: dict):
    conditioner = InstructionConditioner(**options)
    for parameter in conditioner.parameters():
        torch.nn.init.normal_(parameter)
    network, vectors = VFN(conditioner.depth), torch.rand(2, conditioner.embedding)
    path = tmp_path / "w.safetensors"
    write_instructed(path, network, conditioner, encoder="hashed-1", tasks=TASKS, vectors=vectors)
    (tmp_path / "w.md").write_text("# Card")
    read = read_instructed(path)
    assert (read.encoder, read.tasks, read.card) == ("hashed-1", TASKS, "# Card")
    assert torch.equal(read.vectors, vectors)
    assert read.conditioner.places == conditioner.places
    for written, found in ((network, read.network), (conditioner, read.conditioner)):
        assert not found.training
        expected, state = written.state_dict(), found.state_dict()
        assert expected.keys() == state.keys()
        assert all(torch.equal(expected[key], state[key]) for key in expected)


@torch.no_grad()
def test_what_was_read_makes_the_same_image(tmp_path: Path):
    network, conditioner = VFN().eval(), InstructionConditioner(embedding=16)
    for parameter in conditioner.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    write_instructed(tmp_path / "w.safetensors", network, conditioner, encoder="any")
    read = read_instructed(tmp_path / "w.safetensors")
    inputs = (*torch.rand(2, 1, 1, 20, 24), torch.rand(1, 16))
    ours = InstructedVFN(read.network, read.conditioner)(*inputs)
    assert torch.equal(ours, InstructedVFN(network, conditioner)(*inputs))


def test_a_file_says_what_it_holds(file: Path):
    with safe_open(file, "pt") as archive:
        metadata = archive.metadata()
    assert metadata["architecture"] == "InstructedVFN"
    assert (metadata["embedding"], metadata["encoder"], metadata["places"]) == (
        "16",
        "hashed-1",
        "encoder,gate,decoder",
    )
    assert metadata["description"] == "for tests"
    assert is_instructed(file)


def test_vectors_of_the_tasks_are_optional(tmp_path: Path):
    write_instructed(tmp_path / "w.safetensors", VFN(), InstructionConditioner(), encoder="hashed-1", tasks=TASKS)
    assert read_instructed(tmp_path / "w.safetensors").vectors is None


def test_other_files_are_told_apart(tmp_path: Path, file: Path):
    write_weights(tmp_path / "vfn.safetensors", VFN())
    write_loop(tmp_path / "loop.safetensors", VFN(), SemanticCompensation(width=64, vectors=8))
    write_prompt_network(tmp_path / "bfn.safetensors", BFN())
    others = [tmp_path / f"{name}.safetensors" for name in ("vfn", "loop", "bfn", "none")]
    assert not any(map(is_instructed, others))
    for path, message in zip(
        others[:3], ("it is a VFN; give one of toar", "it is a ClosedLoop", "its metadata should say"), strict=True
    ):
        with pytest.raises(WeightsError, match=message):
            read_instructed(path)
    with pytest.raises(WeightsError, match="holds a conditioned network, which fuses by instruction"):
        load(file)
    with pytest.raises(WeightsError, match="network of T-OAR, which no fuser runs"):
        load(tmp_path / "bfn.safetensors")
    with pytest.raises(WeightsError, match="'toar' is a conditioned network, which fuses by instruction"):
        load("toar")


def test_networks_and_vectors_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="VFN of depth 3, and this one has depth 2"):
        Instructed(VFN(2), InstructionConditioner(3))
    for vectors in (torch.zeros(3, 64), torch.zeros(2, 16), torch.zeros(64)):
        with pytest.raises(ConfigurationError, match="vectors of 2 tasks for this conditioner are 2×64, got shape"):
            write_instructed(
                tmp_path / "w.safetensors", VFN(), InstructionConditioner(), encoder="", tasks=TASKS, vectors=vectors
            )
    assert not (tmp_path / "w.safetensors").exists()


def test_damaged_files_are_refused(file: Path):
    with safe_open(file, "pt") as archive:
        metadata = archive.metadata()
    tensors = load_file(file)

    def refused(message: str, changed: dict | None = None, **said: str) -> None:
        save_file({**tensors, **(changed or {})}, file, {**metadata, **said})
        with pytest.raises(WeightsError, match=message):
            read_instructed(file)

    refused(
        r"conditioner\.text\.weight is \[64, 8\] instead of \[64, 16\]", {"conditioner.text.weight": torch.zeros(64, 8)}
    )
    refused("NaN", {"vectors": torch.full((2, 16), torch.nan)})
    refused("vectors of 2 tasks", {"vectors": torch.zeros(3, 16)})
    refused("do not belong", {"head.weight": torch.zeros(1)})
    refused("list its tasks", tasks="detection")
    refused("unknown place 'stem'", places="stem")
    refused("its metadata should say architecture='InstructedVFN'", kernels="many")
    refused("depth must be at least 1", depth="0")


def test_an_existing_file_is_kept_unless_overwriting_is_allowed(file: Path):
    before = file.read_bytes()
    with pytest.raises(WeightsError, match="exists"):
        write_instructed(file, VFN(), InstructionConditioner(), encoder="")
    assert file.read_bytes() == before
    write_instructed(file, VFN(), InstructionConditioner(), encoder="", overwrite=True)
    assert read_instructed(file).conditioner.embedding == 64


@pytest.mark.skipif("toar" in shipped_instructed(), reason="they are shipped")
def test_weights_that_are_not_shipped_yet_say_so():
    assert set(INSTRUCTED) == {"toar"}
    with pytest.raises(WeightsError, match="no weights of 'toar' are shipped yet"):
        find_instructed("toar")


def test_unknown_names_and_files_are_refused(tmp_path: Path, file: Path):
    assert find_instructed(file) == file
    with pytest.raises(WeightsError, match=r"unknown weights 'tuar'\. Did you mean 'toar'\?"):
        find_instructed("tuar")
    for name in ("vfn", "cldyn"):
        with pytest.raises(WeightsError, match=f"'{name}' does not fuse by instruction; give one of toar"):
            find_instructed(name)
    with pytest.raises(WeightsError, match="there is no weight file"):
        find_instructed(tmp_path / "none.safetensors")
