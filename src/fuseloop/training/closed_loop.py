"""Training of the semantic compensation: `fuseloop train closed-loop`.

Fusion network and task networks are frozen. For every task a step takes pairs of the task's own data, looks once at the
fused image, which gives a requirement and a loss, fuses again with the compensation, and looks again. Each task has its
own gradient of the reward-penalty objective; a rule makes one step of them.

Source: CLDyN (arXiv 2604.08924), section "Closed-loop optimisation". What is done otherwise than in the published
code, with the setting that restores it: losses are relative to those before compensation (`scale_over`), the penalty
is of each image (`penalty_per`), CAGrad is that of its authors (`rule`), bank and query do not decay
(`coupled_decay`), and held out pairs choose the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.errors import ConfigurationError
from fuseloop.fusers.loop_weights import find_loop, read_loop, write_loop
from fuseloop.networks.semantic_compensation import A2SI, SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.tasks.protocol import Outputs, TaskNetwork
from fuseloop.training.config import ClosedLoopConfig
from fuseloop.training.frozen_tasks import (
    Around,
    Encoded,
    FrozenTasksRecipe,
    LoopBatch,
    check_finite,
    check_processes,
    coloured,
    freeze,
    full_precision,
    main_score,
    scored,
)
from fuseloop.training.losses import reward_penalty
from fuseloop.training.progress import say
from fuseloop.training.trainer import Forward, Result, Trainer, launch, leave


def train(config: ClosedLoopConfig, *, console: Console | None = None) -> Result:
    """Trains a compensation in the run folder of the configuration, or continues the run that is there.

    Args:
        config: What to do; `load_config(ClosedLoopConfig, "cldyn")` reads a preset.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The run folder holds another run, or networks, data or device do not fit the configuration.
        WeightsError: The fusion network, a task network or the weights to begin with cannot be read.
        LabelError: Labels are missing, or broken and the configuration does not say to leave them out.
        PairError: The data of a task is missing.
        TrainingError: Too many steps had features, losses or gradients that are not finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = ClosedLoopRecipe(config, fabric.device)
    check_processes(config.stages, fabric.world_size)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class FirstLook(NamedTuple):
    """What a task network made of the image before compensation.

    Attributes:
        requirement: What it feeds back, first dimension B.
        losses: Its loss of each image, (B,).
    """

    requirement: Tensor
    losses: Tensor


class LoopLearner(Around):
    """The closed loop around frozen networks. Its parameters are those of the compensation alone.

    Args:
        compensation: What learns.
        fusion: The fusion network.
        networks: The task networks.
    """

    def __init__(self, compensation: SemanticCompensation, fusion: VFN, networks: Sequence[TaskNetwork]) -> None:
        super().__init__(fusion, networks)
        self.compensation = compensation

    def __deepcopy__(self, memo: dict[int, Any]) -> LoopLearner:
        return LoopLearner(deepcopy(self.compensation, memo), *self._frozen)

    def get_extra_state(self) -> Tensor:
        """How often each vector was selected, so that a resumed training goes on counting."""
        return self.compensation.usage

    def set_extra_state(self, state: Tensor) -> None:
        """See `get_extra_state`."""
        self.compensation.usage.copy_(state)

    @torch.no_grad()
    def look(self, batch: LoopBatch, encoded: Encoded) -> tuple[FirstLook, Outputs]:
        """The first look, at the image that is fused for nobody."""
        with full_precision(encoded.ycbcr):
            image = coloured(self.fusion.decode(self.fusion.encode_rest(*encoded[:2])), encoded.ycbcr)
        network = self.task_network(batch.task)
        outputs: Outputs = network(image)
        losses = network.loss(outputs, batch.samples.targets, "none")
        return FirstLook(self.compensation.describe(outputs.feature.float()), losses.float()), outputs

    def forward(
        self, task: int, encoded: Encoded, requirement: Tensor, generator: torch.Generator | None = None
    ) -> Outputs:
        """The second look, at the image that is fused for the task.

        Args:
            task: Number of the task.
            encoded: What `encode` gave.
            requirement: What the first look gave.
            generator: Makes the noise of training.
        """
        compensate = partial(self.compensation, requirement=requirement, generator=generator)
        with full_precision(encoded.ycbcr):
            features = self.fusion.encode_rest(encoded.infrared, encoded.visible, compensate)
            image = coloured(self.fusion.decode(features), encoded.ycbcr)
        outputs: Outputs = self.task_network(task)(image)
        return outputs


class ClosedLoopRecipe(FrozenTasksRecipe):
    """The recipe of the closed loop.

    Args:
        config: Its settings.
        device: Where the networks will be.

    Raises:
        ConfigurationError: The networks or an option do not fit.
        FuseloopError: Weights or data of a task are missing; the message names the task.
    """

    network: LoopLearner

    def __init__(self, config: ClosedLoopConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.config = config
        self.weights = {
            title + part: task.weight * share
            for title, task in zip(self.titles, config.tasks, strict=True)
            for part, share in (("", 1.0), ("/gain", 0.0), ("/worse", 0.0))
        }
        compensation = first_compensation(config, self.fusion.depth)
        self._ready(LoopLearner(compensation, self.fusion, self.task_networks))
        self._open: dict[int, tuple[list[FirstLook], float, float]] = {}

    def describe(self) -> list[str]:
        """The networks, the data and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self._parameters)
        first = f"training the compensation of {self.config.fusion}, {count:,} parameters, by {self.config.rule}"
        return [first, *super().describe()]

    def optimiser(self) -> Optimizer:
        """AdamW, without decay where it would make the compensation forget what it does not select.

        After each step the vectors of the bank are put back on the sphere, so that all turn equally fast.
        """
        optimiser = self._bare_optimiser(spared=("bvb", "bv_f"))
        compensation = self.network.compensation
        if not compensation.reference_compat and compensation.bvb.requires_grad:

            @torch.no_grad()
            def onto_sphere(*_: Any) -> None:
                compensation.bvb.copy_(F.normalize(compensation.bvb, dim=2))

            optimiser.register_step_post_hook(onto_sphere)
        return optimiser

    def batches(self, step: int, slots: Iterable[int]) -> list[LoopBatch]:
        """The pairs of some slots, a batch for each task; the slots of a task follow each other."""
        return [batch for batch, _ in self.draw(step, slots)]

    def terms(self, forward: Forward, batch: LoopBatch) -> dict[str, Tensor]:
        """Of the task of the batch, relative to the scale of its loss: objective, gain, and share of images made worse.

        Raises:
            SkipStep: The feature or a loss is not finite.
        """
        title, names = self.titles[batch.task], batch.names
        encoded = self.network.encode(batch.samples)
        first = self.first_look(batch, encoded)
        check_finite(first.requirement, f"the feature of {title}", names)
        check_finite(first.losses, f"the loss of {title} before compensation", names)
        noise = torch.Generator(self.device).manual_seed(batch.seed)
        outputs = self.network(batch.task, encoded, first.requirement, noise)
        after = self.network.task_network(batch.task).loss(outputs, batch.samples.targets, "none").float()
        check_finite(after, f"the loss of {title}", names)
        per, scale = self.config.penalty_per, self.scales[batch.task]
        penalty = 0.0 if per == "none" else self.config.penalty
        objective = reward_penalty(after, first.losses, penalty=penalty, per="batch" if per == "batch" else "sample")
        return {
            title: objective / scale,
            f"{title}/gain": (first.losses - after.detach()).mean() / scale,
            f"{title}/worse": (after.detach() > first.losses).float().mean(),
        }

    def first_look(self, batch: LoopBatch, encoded: Encoded | None = None) -> FirstLook:
        """The first look, kept where the configuration says so."""
        if not self.config.cache:
            return self.network.look(batch, encoded or self.network.encode(batch.samples))[0]
        return FirstLook(
            *self.remembered(batch, lambda one: self.network.look(one, self.network.encode(one.samples))[0])
        )

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Of each task the main score with compensation, what that gains, and the mean loss relative to before.

        "selected" is one minus the mean score, or the mean relative loss; "dead" the share of the vectors of the bank
        that no image selected in training since the last validation, where there is a bank.
        """
        assert isinstance(network, LoopLearner)
        scores: dict[str, float] = {}
        for task, title in enumerate(self.titles):
            if task not in self._open:
                self._open[task] = self._without(network, task)
            looks, open_score, open_loss = self._open[task]
            kept: list[Any] = []
            losses: list[Tensor] = []
            for batch, first in zip(self._frames(task), looks, strict=True):
                outputs = network(task, network.encode(batch.samples), first.requirement)
                losses.append(network.task_network(task).loss(outputs, batch.samples.targets, "none"))
                kept += scored(network.task_network(task), outputs, batch, len(kept))
            score = main_score(network.task_network(task), kept)
            scores |= {title: score, f"{title}/gain": score - open_score}
            scores[f"{title}/loss"] = float(torch.cat(losses).mean()) / max(open_loss, 1e-12)
        usage = self.network.compensation.usage
        if usage.numel():
            scores["dead"] = float((usage == 0).float().mean())
            usage.zero_()
        chosen = [scores[title if self.config.select == "score" else f"{title}/loss"] for title in self.titles]
        mean = sum(chosen) / len(chosen)
        return {"selected": 1 - mean if self.config.select == "score" else mean, **scores}

    def _without(self, network: LoopLearner, task: int) -> tuple[list[FirstLook], float, float]:
        """The first looks at all validation frames, their main score and their mean loss."""
        looks: list[FirstLook] = []
        kept: list[Any] = []
        for batch in self._frames(task):
            first, outputs = network.look(batch, network.encode(batch.samples))
            looks.append(first)
            kept += scored(network.task_network(task), outputs, batch, len(kept))
        loss = float(torch.cat([first.losses for first in looks]).mean())
        return looks, main_score(network.task_network(task), kept), loss

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped."""
        assert isinstance(network, LoopLearner)
        kinds = list(dict.fromkeys(network.task_network(task).task for task in range(len(self.titles))))
        write_loop(path, network.fusion, network.compensation, kinds, description=description, overwrite=True)


def first_compensation(config: ClosedLoopConfig, depth: int) -> SemanticCompensation:
    """The compensation that a training begins with; its random weights depend on the seed alone.

    Raises:
        ConfigurationError: An option is unknown or impossible, or the weights to begin with are of another shape.
        WeightsError: They cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            compensation = SemanticCompensation(depth, **config.compensation)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"compensation: {error}") from error
    if config.start is not None:
        begun = read_loop(find_loop(config.start)).compensation
        try:
            compensation.load_state_dict(begun.state_dict())
        except RuntimeError as error:
            raise ConfigurationError(
                f"start: {config.start} has depth {begun.depth}, {begun.branches} branches and {begun.vectors} vectors "
                f"of {begun.width}, reference_compat {begun.reference_compat}, without "
                f"{', '.join(begun.without) or 'nothing'}; the training is of another shape"
            ) from error
    for module in compensation.modules():
        if isinstance(module, A2SI):
            module.logit_scale, module.temperature = config.logit_scale, config.temperature
    freeze(compensation, config.frozen)
    return compensation
