"""Training of the vision-guided fusion network: `fuseloop train visual`.

The published recipe is the preset `paper`. Its weakness is that batch statistics hide absolute brightness from the
network. Stages with frozen statistics, over large crops or whole frames, and further loss terms are what the presets
`shipped-1` to `shipped-8` add; the architecture and its keys stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.datasets.folders import open_pairs
from fuseloop.errors import ConfigurationError
from fuseloop.fusers.weights import find_weights, read_weights, write_weights
from fuseloop.networks.vfn import VFN
from fuseloop.training.config import ROUNDING, Stage, VisualConfig
from fuseloop.training.losses import LOSSES
from fuseloop.training.norms import calibrate, freeze, share_statistics
from fuseloop.training.progress import say
from fuseloop.training.rounding import fuse_rounded, rounding_loss
from fuseloop.training.sampling import Batch, Sampler, whole_frame
from fuseloop.training.schedule import Schedule, learning_rate
from fuseloop.training.trainer import Forward, Result, Trainer, launch, leave

TRAINING, CALIBRATION = range(2)


def train(config: VisualConfig, *, console: Console | None = None) -> Result:
    """Trains the fusion network in the run folder of the configuration, or continues the run that is there.

    Args:
        config: What to do; `load_config(VisualConfig, "paper")` reads a preset.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The run folder holds another run, or data, device or batch do not fit the configuration.
        PairError: A data folder holds no pairs.
        TrainingError: The training diverged; its last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = VisualRecipe(config, fabric.device)
    if fabric.world_size > 1:
        _check_processes(config.stages, fabric.world_size)
        share_statistics(recipe.network)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class VisualRecipe:
    """The recipe of the fusion network.

    Args:
        config: Its settings.
        device: Where the network will be.
    """

    def __init__(self, config: VisualConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        # With so few channels, convolutions over channels-last memory take a quarter less time.
        self.network = first_network(config)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights: Mapping[str, float] = {name: weight for name, weight in config.loss.items() if weight > 0}
        self._schedule = Schedule(config.stages)
        self.steps = self._schedule.steps
        self._data = [open_pairs(config.resolve(source.spec)) for source in config.data]
        self._validation = [open_pairs(config.resolve(spec)) for spec in config.validation]
        self._sampler = Sampler(self._data, [source.weight for source in config.data], config.seed)

    def describe(self) -> list[str]:
        """The data and the stages, a line each."""
        lines = [f"training on {pairs.describe()}" for pairs in self._data]
        lines += [f"validation on {pairs.describe()}" for pairs in self._validation]
        for number, stage in enumerate(self.config.stages, 1):
            crops = "whole frames" if stage.crop == "frame" else f"crops of {stage.crop}"
            lines.append(
                f"stage {number}: {stage.steps} steps of {stage.batch} {crops}, {stage.norm} norm, lr {stage.lr:g}"
            )
        return lines

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step and the step's number within it."""
        return self._schedule.at(step)

    def optimiser(self) -> Optimizer:
        """Adam without decay."""
        return torch.optim.Adam(self.network.parameters())

    def pairs_in(self, step: int) -> int:
        """Size of the global batch of a step."""
        return self.stage_at(step)[0].batch

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets modes and learning rate, and estimates the statistics anew where a stage begins with that."""
        stage, local = self.stage_at(step)
        if local == 0 and stage.calibrate:
            self._calibrate(stage, step)
        self.network.train()
        if stage.norm == "frozen":
            freeze(self.network)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, local)

    def batches(self, step: int, slots: Iterable[int]) -> list[Batch]:
        """The pairs of some slots of the global batch, grouped by size."""
        return self._sampler.batch(self.stage_at(step)[0], step, slots, TRAINING)

    def terms(self, forward: Forward, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of a batch, each the mean over its pairs."""
        fused = forward(batch.infrared, batch.luma)
        return {name: self._term(name, self.network, batch, fused) for name in self.weights}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean losses over the validation pairs, each fused whole."""
        names = dict.fromkeys([*self.weights, *({self.config.select} - {"loss"})])
        sums = dict.fromkeys(names, 0.0)
        frames = [pairs[index] for pairs in self._validation for index in range(len(pairs))]
        for frame in frames:
            batch = whole_frame(frame).to(self.device)
            fused = network(batch.infrared, batch.luma)
            for name in names:
                sums[name] += float(self._term(name, network, batch, fused))
        means = {name: total / len(frames) for name, total in sums.items()}
        means["loss"] = sum(weight * means[name] for name, weight in self.weights.items())
        return {"selected": means[self.config.select], **means}

    def _term(self, name: str, network: nn.Module, batch: Batch, fused: Tensor) -> Tensor:
        """One of `fuseloop.training.config.TERMS` of what a network made of a batch, a scalar."""
        if name == ROUNDING:
            assert isinstance(network, VFN)
            return rounding_loss(fuse_rounded(network, *batch), fused, self.config.rounding_tolerance)
        return LOSSES[name](fused, *batch)

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped."""
        assert isinstance(network, VFN)
        write_weights(path, network, description=description, overwrite=True)

    def _calibrate(self, stage: Stage, step: int) -> None:
        """Estimates the running statistics anew, as plain averages over pairs drawn like those of the stage.

        Every process does so over all pairs, so that all hold the same statistics.
        """
        slots = range(stage.calibrate)
        groups = [slots[first : first + stage.batch] for first in slots[:: stage.batch]]
        batches = (batch for group in groups for batch in self._sampler.batch(stage, step, group, CALIBRATION))
        calibrate(self.network, (batch.to(self.device) for batch in batches))


def _check_processes(stages: Sequence[Stage], processes: int) -> None:
    for number, stage in enumerate(stages, 1):
        if stage.batch < processes:
            raise ConfigurationError(
                f"stage {number} has batches of {stage.batch} for {processes} processes; every process needs a pair"
            )
        if stage.crop == "frame" and stage.norm == "batch":
            raise ConfigurationError(
                f"stage {number} normalises whole frames by batch statistics, which {processes} processes cannot share "
                "as their frames differ in size; set norm to frozen, crop to a number, or use one process"
            )


def first_network(config: VisualConfig) -> VFN:
    """The network that a training begins with.

    Raises:
        ConfigurationError: The weights to begin with have another depth.
        WeightsError: They cannot be read.
    """
    if config.start is None:
        return new_network(config.depth, config.seed)
    network = read_weights(find_weights(config.start))
    if network.depth != config.depth:
        raise ConfigurationError(f"start: {config.start} has depth {network.depth}; set depth={network.depth}")
    return network


def new_network(depth: int, seed: int) -> VFN:
    """An untrained network whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VFN(depth)
