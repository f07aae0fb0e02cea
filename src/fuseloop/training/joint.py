"""A fusion network and a task network trained together on the loss of the task, which rivals the closed loop.

The fused image then is what serves this task network, and each task has a fusion network of its own. The recipe is that
of the task network, with one difference: the gradient of the loss goes on into the fusion network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.errors import ConfigurationError
from fuseloop.fusers.rules import RULES, of_network
from fuseloop.fusers.weights import find_weights, write_weights
from fuseloop.fusers.weights import read_weights as read_fusion_weights
from fuseloop.networks.vfn import VFN
from fuseloop.training.config import TaskConfig
from fuseloop.training.progress import say
from fuseloop.training.task import Learner, TaskBatch, TaskRecipe
from fuseloop.training.trainer import Result, Trainer, launch, leave

FUSION = "fusion"


def train(config: TaskConfig, *, console: Console | None = None) -> Result:
    """Trains both networks in the run folder of the configuration, or continues the run that is there.

    Beside each weight file of the task network lies that of its fusion network: `best-fusion.safetensors`.

    Args:
        config: That of the task network; its one fuser is the fusion network to begin with, `start` the weights of the
            task network.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The fuser is a rule or there are several, or one of the reasons of `task.train`.
        FuseloopError: See `task.train`.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = JointRecipe(config, fabric.device)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class LearningFusion(nn.Module):
    """Makes the images of a batch by a network that learns.

    Args:
        network: The fusion network; it keeps its running statistics.
    """

    def __init__(self, network: VFN) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: TaskBatch) -> Tensor:
        """B×3×H×W RGB in [0, 1]."""
        infrared, visible = batch.infrared.float() / 255, batch.visible.float() / 255
        return of_network(self.network)(infrared, visible).clamp(0, 1)


class JointRecipe(TaskRecipe):
    """The recipe of both networks.

    Args:
        config: Its settings.
        device: Where the networks will be.
    """

    def __init__(self, config: TaskConfig, device: torch.device) -> None:
        if len(config.fusers) != 1 or {*config.fusers} & {*RULES}:
            raise ConfigurationError(
                f"fusers: {', '.join(config.fusers)}; joint training trains one fusion network: name it alone, vfn: 1"
            )
        super().__init__(config, device)
        (fuser,) = config.fusers
        self.fusing = LearningFusion(read_fusion_weights(find_weights(fuser)).to(device))
        self.network = Learner(self.task_network, self.fusing)

    def describe(self) -> list[str]:
        """The networks, the data and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self.fusing.parameters())
        return [*super().describe(), f"{', '.join(self.config.fusers)} learns with it, {count:,} parameters"]

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets mode and learning rate; the fusion network is normalised as in use."""
        super().prepare(step, optimiser)
        self.fusing.eval()

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes the weights of both networks."""
        super().save(path, network, description)
        assert isinstance(network, Learner)
        assert isinstance(network.fusing, LearningFusion)
        beside = path.with_stem(f"{path.stem}-{FUSION}")
        write_weights(beside, network.fusing.network, description=description, overwrite=True)
