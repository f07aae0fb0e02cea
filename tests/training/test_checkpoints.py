from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from fuseloop.training import TrainingError
from fuseloop.training.checkpoints import read_checkpoint, write_checkpoint, write_file


def trained(seed, steps=2):
    """A small network and its optimiser after some steps."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters())
    for _ in range(steps):
        optimiser.zero_grad()
        network(torch.rand(2, 4, 8, 8, generator=generator)).square().sum().backward()
        optimiser.step()
    return network, optimiser


def test_a_checkpoint_brings_back_every_bit(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network, optimiser = trained(0)
    write_checkpoint(path, {"network": network}, optimiser, {"step": 2, "best": 0.1 + 0.2})
    other, other_optimiser = trained(1, steps=0)
    assert read_checkpoint(path, {"network": other}, other_optimiser) == {"step": 2, "best": 0.1 + 0.2}
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    wanted = optimiser.state_dict()["state"]
    for index, state in other_optimiser.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, wanted[index][key])
            assert value.stride() == wanted[index][key].stride(), "the memory order decides how the next step rounds"


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot write .*No space left on device; what was saved before is kept"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("damage", ["truncated", "foreign", "another network"])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, damage):
    path = tmp_path / "checkpoint.safetensors"
    network, optimiser = trained(0)
    write_checkpoint(path, {"network": network}, optimiser, {})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "foreign":
        path.write_text("no checkpoint")
    else:
        network = nn.Conv2d(1, 1, 1)
    with pytest.raises(TrainingError, match="remove its run folder to start anew"):
        read_checkpoint(path, {"network": network}, optimiser)
