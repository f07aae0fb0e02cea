"""A fusion network and a task network trained together."""

from __future__ import annotations

import io
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fuseloop.errors import ConfigurationError
from fuseloop.fusers.weights import find_weights, read_weights
from fuseloop.tasks.weights import load
from fuseloop.training.config import TaskConfig
from fuseloop.training.joint import JointRecipe, train
from fuseloop.training.task import TaskRecipe


@pytest.fixture
def tiny(tmp_path):
    """Makes configurations: four steps of a narrow saliency network on three synthetic scenes."""

    def make(**changes) -> TaskConfig:
        settings = {
            "folder": tmp_path / "run",
            "device": "cpu",
            "network": "ctdnet-18",
            "options": {"width": 0.125},
            "data": [{"spec": "synthetic:3:1"}],
            "validation": ["synthetic:2:3"],
            "fusers": {"vfn": 1.0},
            "validate_every": 2,
            "checkpoint_every": 1,
            "log_every": 1,
            "stages": [{"steps": 4, "batch": 2, "height": 64, "width": 64, "lr": 0.001}],
        }
        return TaskConfig.model_validate(settings | changes)

    return make


def quiet() -> Console:
    return Console(file=io.StringIO())


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def test_both_networks_learn_and_are_written(tiny):
    config = tiny()
    result = train(config, console=quiet())
    assert result.finished
    fusion, shipped = (read_weights(path) for path in (config.folder / "last-fusion.safetensors", find_weights("vfn")))
    moved = [not torch.equal(one, other) for one, other in zip(fusion.parameters(), shipped.parameters(), strict=True)]
    assert all(moved)
    for name, statistics in fusion.named_buffers():
        assert torch.equal(statistics, shipped.get_buffer(name)), "it is trained as it is used"
    assert (config.folder / "best-fusion.safetensors").exists()
    assert load(config.folder / "best.safetensors").task == "saliency"


def test_the_gradient_of_the_task_network_is_that_of_training_it_alone(tiny):
    found = []
    for recipe in (JointRecipe(tiny(), torch.device("cpu")), TaskRecipe(tiny(), torch.device("cpu"))):
        recipe.prepare(0, recipe.optimiser())
        (batch,) = recipe.batches(0, range(2))
        recipe.terms(recipe.network, batch)["task"].backward()
        found.append([parameter.grad.clone() for parameter in recipe.task_network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_an_average_is_of_both_networks(tiny):
    network = JointRecipe(tiny(), torch.device("cpu")).network
    pairs = zip(deepcopy(network).named_parameters(), network.named_parameters(), strict=True)
    assert not any(one is other for (_, one), (_, other) in pairs)


def test_a_training_that_was_stopped_reaches_the_same_weights(tiny, tmp_path):
    whole = tiny(folder=tmp_path / "whole", ema=0.5)
    train(whole, console=quiet())
    hasty = tiny(folder=tmp_path / "parts", ema=0.5, budget_minutes=1e-9)
    assert [train(hasty, console=quiet()).step for _ in range(4)] == [1, 2, 3, 4]
    for name in ("last.safetensors", "last-fusion.safetensors"):
        one, other = state(whole.folder / name), state(hasty.folder / name)
        assert all(torch.equal(one[key], other[key]) for key in one), name


@pytest.mark.parametrize("fusers", [{"max": 1.0}, {"vfn": 1.0, "visible": 1.0}])
def test_only_a_fusion_network_alone_can_learn(tiny, fusers):
    with pytest.raises(ConfigurationError, match="joint training trains one fusion network: name it alone"):
        JointRecipe(tiny(fusers=fusers), torch.device("cpu"))
