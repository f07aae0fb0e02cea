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

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.errors import ConfigurationError, FuseloopError
from fuseloop.evaluation.classes import ClassMatch, match_classes
from fuseloop.fusers.loop_weights import find_loop, read_loop, write_loop
from fuseloop.fusers.weights import find_weights
from fuseloop.fusers.weights import read_weights as read_fusion_weights
from fuseloop.networks.semantic_compensation import A2SI, SemanticCompensation
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.tasks.protocol import Outputs, TaskNetwork
from fuseloop.tasks.weights import NETWORKS, SHIPPED, load
from fuseloop.training import gradient_rules
from fuseloop.training.augmentation import cut, mirror
from fuseloop.training.config import ClosedLoopConfig, LoopStage, LoopTask, TaskAugmentation
from fuseloop.training.losses import reward_penalty
from fuseloop.training.progress import say
from fuseloop.training.schedule import Schedule, learning_rate
from fuseloop.training.task import SELECTED, Kept, Source, TaskBatch, augment, whole_frames
from fuseloop.training.trainer import Forward, Result, SkipStep, Trainer, launch, leave

_SCALE = 1 << 32  # in place of a step, where pairs are drawn that measure the scale of a loss


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
    _check_processes(config.stages, fabric.world_size)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class LoopBatch(NamedTuple):
    """Pairs of one task and size.

    Attributes:
        task: Number of the task.
        samples: The pairs and their labels.
        names: Of the frames.
        keys: What tells each sample from all others that a training can see; None for one that never comes again.
        seed: Of the noise.
    """

    task: int
    samples: TaskBatch
    names: tuple[str, ...]
    keys: tuple[Hashable, ...]
    seed: int = 0

    @property
    def infrared(self) -> Tensor:
        """B×1×H×W uint8."""
        return self.samples.infrared

    def to(self, device: torch.device) -> LoopBatch:
        """The same pairs on another device."""
        return self._replace(samples=self.samples.to(device))

    def only(self, index: int) -> LoopBatch:
        """One of them, as a batch."""
        samples, one = self.samples, slice(index, index + 1)
        maps = {name: pixels[one] for name, pixels in samples.maps.items()}
        alone = TaskBatch(samples.infrared[one], samples.visible[one], maps, samples.boxes[one], samples.fusers[one])
        return LoopBatch(self.task, alone, self.names[one], self.keys[one], self.seed)


class Encoded(NamedTuple):
    """What both passes of the fusion network share.

    Attributes:
        infrared: First features, B×8×H×W.
        visible: First features, B×8×H×W.
        ycbcr: The visible image, B×3×H×W.
    """

    infrared: Tensor
    visible: Tensor
    ycbcr: Tensor


class FirstLook(NamedTuple):
    """What a task network made of the image before compensation.

    Attributes:
        requirement: What it feeds back, first dimension B.
        losses: Its loss of each image, (B,).
    """

    requirement: Tensor
    losses: Tensor


class LoopLearner(nn.Module):
    """The closed loop around frozen networks. Its parameters are those of the compensation alone.

    Args:
        compensation: What learns.
        fusion: The fusion network.
        networks: The task networks.
    """

    def __init__(self, compensation: SemanticCompensation, fusion: VFN, networks: Sequence[TaskNetwork]) -> None:
        super().__init__()
        self.compensation = compensation
        for network in (fusion, *networks):
            network.requires_grad_(False).eval()
        # In a tuple they are no submodules: neither trained nor averaged, copied, saved or put into training mode.
        self._frozen = (fusion, tuple(networks))

    def __deepcopy__(self, memo: dict[int, Any]) -> LoopLearner:
        return LoopLearner(deepcopy(self.compensation, memo), *self._frozen)

    def get_extra_state(self) -> Tensor:
        """How often each vector was selected, so that a resumed training goes on counting."""
        return self.compensation.usage

    def set_extra_state(self, state: Tensor) -> None:
        """See `get_extra_state`."""
        self.compensation.usage.copy_(state)

    @property
    def fusion(self) -> VFN:
        """The fusion network."""
        return self._frozen[0]

    def task_network(self, task: int) -> TaskNetwork:
        """The network of a task."""
        return self._frozen[1][task]

    @torch.no_grad()
    def encode(self, samples: TaskBatch) -> Encoded:
        """The first block of both encoders, which is before any compensation."""
        ycbcr = rgb_to_ycbcr(samples.visible.float() / 255)
        with _full_precision(ycbcr):
            return Encoded(*self.fusion.encode_first(samples.infrared.float() / 255, ycbcr[:, :1]), ycbcr)

    @torch.no_grad()
    def look(self, batch: LoopBatch, encoded: Encoded) -> tuple[FirstLook, Outputs]:
        """The first look, at the image that is fused for nobody."""
        with _full_precision(encoded.ycbcr):
            image = _coloured(self.fusion.decode(self.fusion.encode_rest(*encoded[:2])), encoded.ycbcr)
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
        with _full_precision(encoded.ycbcr):
            features = self.fusion.encode_rest(encoded.infrared, encoded.visible, compensate)
            image = _coloured(self.fusion.decode(features), encoded.ycbcr)
        outputs: Outputs = self.task_network(task)(image)
        return outputs


def _full_precision(like: Tensor) -> torch.autocast:
    """Fusion and compensation are small, and cosines and norms suffer in bf16."""
    return torch.autocast(like.device.type, enabled=False)


def _coloured(luma: Tensor, ycbcr: Tensor) -> Tensor:
    """B×3×H×W RGB in [0, 1], as it would be saved but for the rounding."""
    return ycbcr_to_rgb(torch.cat([luma, ycbcr[:, 1:]], dim=1)).clamp(0, 1)


class LoopSampler:
    """Draws samples; every slot of every step has a generator of its own, made from seed, step and slot.

    Args:
        sources: The data sets of each task.
        seed: Seed of all draws.
    """

    def __init__(self, sources: Sequence[Sequence[Source]], seed: int) -> None:
        self._sources, self._seed = sources, seed

    def batch(self, stage: LoopStage, step: int, task: int, slots: Sequence[int]) -> LoopBatch:
        """The samples of a task in some slots of a step."""
        drawn = [self._draw(stage, task, np.random.default_rng([self._seed, step, slot])) for slot in slots]
        keys, pairs, match = zip(*drawn, strict=True)
        samples = TaskBatch.of(pairs, match, [""] * len(pairs))
        return LoopBatch(task, samples, tuple(pair.name for pair in pairs), keys, hash((self._seed, step, slots[0])))

    def _draw(self, stage: LoopStage, task: int, rng: np.random.Generator) -> tuple[Hashable, LabelledPair, ClassMatch]:
        sources, height, width = self._sources[task], stage.height, stage.width
        shares: NDArray[np.float64] = np.array([source.weight for source in sources])
        chosen = int(rng.choice(len(sources), p=shares / shares.sum()))
        pairs = sources[chosen].pairs
        if isinstance(stage.samples, TaskAugmentation):
            return None, augment(pairs, height, width, stage.samples, rng), sources[chosen].match
        index = int(rng.integers(len(pairs)))
        rows, columns = pairs[index].infrared.shape
        parts = parts_of(rows, columns, height, width, stage.samples)
        part = parts[int(rng.integers(len(parts)))]
        mirrored = bool(rng.random() < 0.5)
        pair = cut(pairs[index], *part, out_height=height, out_width=width)
        key = (task, chosen, index, part, mirrored, height, width)
        return key, mirror(pair) if mirrored else pair, sources[chosen].match


def parts_of(
    rows: int, columns: int, height: int, width: int, samples: Literal["frames", "tiles"]
) -> list[tuple[int, int, int, int]]:
    """The parts of a frame that samples show.

    Args:
        rows: Of the frame.
        columns: Of the frame.
        height: Of the samples.
        width: Of the samples.
        samples: "frames" for the largest part in the middle that has the aspect of the samples; "tiles" for as few
            parts of the size of the samples as cover the frame. A frame that is smaller than a tile is its only part.

    Returns:
        Top, left, height and width of each.
    """
    if samples == "frames" or rows < height or columns < width:
        scale = max(height / rows, width / columns)
        part_height, part_width = min(round(height / scale), rows), min(round(width / scale), columns)
        return [((rows - part_height) // 2, (columns - part_width) // 2, part_height, part_width)]
    return [(top, left, height, width) for top in _starts(rows, height) for left in _starts(columns, width)]


def _starts(length: int, part: int) -> list[int]:
    """Where as few parts as cover a length begin, evenly spread."""
    count = math.ceil(length / part)
    return [(length - part) // 2] if count == 1 else [i * (length - part) // (count - 1) for i in range(count)]


class ClosedLoopRecipe:
    """The recipe of the closed loop.

    Args:
        config: Its settings.
        device: Where the networks will be.

    Raises:
        ConfigurationError: The networks or an option do not fit.
        FuseloopError: Weights or data of a task are missing; the message names the task.
    """

    def __init__(self, config: ClosedLoopConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.skip_limit = config.skip_limit
        self._schedule = Schedule(config.stages)
        self.steps = self._schedule.steps
        self.titles = [task.title for task in config.tasks]
        self.weights: Mapping[str, float] = {
            title + part: task.weight * share
            for title, task in zip(self.titles, config.tasks, strict=True)
            for part, share in (("", 1.0), ("/gain", 0.0), ("/worse", 0.0))
        }
        fusion = read_fusion_weights(find_weights(config.fusion))
        networks = [_task_network(task) for task in config.tasks]
        opened: dict[str, Kept] = {}  # tasks that share a data set share its memory
        self._sources, self._validation = [], []
        for task, network in zip(config.tasks, networks, strict=True):
            open_for = partial(_open_for, config, task, network, opened)
            self._sources.append([open_for(source.spec, source.weight) for source in task.data])
            self._validation.append([open_for(spec, 1.0) for spec in task.validation])
        self._sampler = LoopSampler(self._sources, config.seed)
        compensation = first_compensation(config, fusion.depth)
        fusion.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
        self.network = LoopLearner(compensation, fusion.to(device), [network.to(device) for network in networks])
        self._parameters = [one for one in self.network.parameters() if one.requires_grad]
        self._kept: dict[Hashable, FirstLook] = {}
        self._open: dict[int, tuple[list[FirstLook], float, float]] = {}
        self._scales: list[float] | None = None
        self._step = 0

    def describe(self) -> list[str]:
        """The networks, the data and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self._parameters)
        lines = [f"training the compensation of {self.config.fusion}, {count:,} parameters, by {self.config.rule}"]
        for title, sources, validation in zip(self.titles, self._sources, self._validation, strict=True):
            lines += [f"{title} on {source.pairs.pairs.describe()}" for source in sources]
            lines += [f"{title} is validated on {source.pairs.pairs.describe()}" for source in validation]
        for number, stage in enumerate(self.config.stages, 1):
            samples = stage.samples if isinstance(stage.samples, str) else "parts"
            size = f"{stage.width}x{stage.height}"
            lines.append(
                f"stage {number}: {stage.steps} steps of {stage.batch} {samples} of {size} a task, lr {stage.lr:g}"
            )
        return lines

    def optimiser(self) -> Optimizer:
        """AdamW, without decay where it would make the compensation forget what it does not select.

        After each step the vectors of the bank are put back on the sphere, so that all turn equally fast.
        """
        optimiser = self._bare_optimiser()
        compensation = self.network.compensation
        if not compensation.reference_compat and compensation.bvb.requires_grad:

            @torch.no_grad()
            def onto_sphere(*_: Any) -> None:
                compensation.bvb.copy_(F.normalize(compensation.bvb, dim=2))

            optimiser.register_step_post_hook(onto_sphere)
        return optimiser

    def _bare_optimiser(self) -> Optimizer:
        named = [(name, one) for name, one in self.network.named_parameters() if one.requires_grad]
        if self.config.coupled_decay:
            return torch.optim.Adam([one for _, one in named], weight_decay=self.config.decay)
        decays = {name for name, one in named if one.ndim > 1 and not {"bvb", "bv_f"} & set(name.split("."))}
        groups = [
            {"params": [one for name, one in named if name in decays], "weight_decay": self.config.decay},
            {"params": [one for name, one in named if name not in decays], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]])

    def pairs_in(self, step: int) -> int:
        """Pairs of all tasks in a step."""
        return self._schedule.at(step)[0].batch * len(self.titles)

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets mode and learning rate."""
        stage, local = self._schedule.at(step)
        self._step = step
        self.network.train()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, local)

    def batches(self, step: int, slots: Iterable[int]) -> list[LoopBatch]:
        """The pairs of some slots, a batch for each task; the slots of a task follow each other."""
        stage, _ = self._schedule.at(step)
        of_task: dict[int, list[int]] = {}
        for slot in slots:
            of_task.setdefault(slot // stage.batch, []).append(slot)
        return [self._sampler.batch(stage, step, task, own) for task, own in of_task.items()]

    def backward(self, fabric: Fabric, batches: list[LoopBatch]) -> dict[str, Tensor]:
        """Sets the gradient that the rule makes of those of all tasks.

        Raises:
            SkipStep: A feature, a loss or a gradient is not finite.
        """
        gradients = torch.zeros(len(self.titles), sum(one.numel() for one in self._parameters), device=self.device)
        means = {name: torch.zeros((), device=self.device) for name in self.weights}
        faults: list[str] = []
        for batch in batches:
            try:
                with fabric.autocast():
                    terms = self.terms(self.network, batch)
                title = self.titles[batch.task]
                gradient = self._flat_gradient(self.weights[title] * terms[title])
                _check_finite(gradient, f"the gradient of {title}", batch.names)
            except SkipStep as fault:
                faults.append(str(fault))
                continue
            gradients[batch.task] = gradient
            means |= {name: term.detach() for name, term in terms.items()}
        together, faulty = _over_processes(fabric, gradients, torch.tensor([float(len(faults))], device=self.device))
        if float(faulty) > 0:
            raise SkipStep("; ".join(faults) or "what another process saw is not finite")
        self._set_gradient(gradient_rules.combine(together, self._rule()))
        return means

    def _flat_gradient(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def _set_gradient(self, gradient: Tensor) -> None:
        """Hands out a flat gradient. What no image used gets none, so that its moments and decay rest."""
        parts = torch.split(gradient, [one.numel() for one in self._parameters])  # type: ignore[no-untyped-call]
        used = torch.stack([part.any() for part in parts]).tolist()
        for parameter, part, keep in zip(self._parameters, parts, used, strict=True):
            # As published, coupled decay acts on all parameters, whether they were used or not.
            parameter.grad = part.view_as(parameter) if keep or self.config.coupled_decay else None

    def _rule(self) -> gradient_rules.Rule:
        """The rule with its options; the orders of PCGrad depend on seed and step alone."""
        if self.config.rule == "cagrad":
            return partial(gradient_rules.cagrad, c=self.config.radius)
        if self.config.rule == "pcgrad":
            drawn = torch.Generator().manual_seed(hash((self.config.seed, self._step)))
            return partial(gradient_rules.pcgrad, generator=drawn)
        return gradient_rules.RULES[self.config.rule]

    def terms(self, forward: Forward, batch: LoopBatch) -> dict[str, Tensor]:
        """Of the task of the batch, relative to the scale of its loss: objective, gain, and share of images made worse.

        Raises:
            SkipStep: The feature or a loss is not finite.
        """
        title, names = self.titles[batch.task], batch.names
        encoded = self.network.encode(batch.samples)
        first = self.first_look(batch, encoded)
        _check_finite(first.requirement, f"the feature of {title}", names)
        _check_finite(first.losses, f"the loss of {title} before compensation", names)
        noise = torch.Generator(self.device).manual_seed(batch.seed)
        outputs = self.network(batch.task, encoded, first.requirement, noise)
        after = self.network.task_network(batch.task).loss(outputs, batch.samples.targets, "none").float()
        _check_finite(after, f"the loss of {title}", names)
        per, scale = self.config.penalty_per, self.scales[batch.task]
        penalty = 0.0 if per == "none" else self.config.penalty
        objective = reward_penalty(after, first.losses, penalty=penalty, per="batch" if per == "batch" else "sample")
        return {
            title: objective / scale,
            f"{title}/gain": (first.losses - after.detach()).mean() / scale,
            f"{title}/worse": (after.detach() > first.losses).float().mean(),
        }

    def first_look(self, batch: LoopBatch, encoded: Encoded | None = None) -> FirstLook:
        """The first look, kept where the configuration says so.

        What is kept was looked at by itself: its last bits then do not depend on the batch in which it came first,
        which is another one after a training was resumed.
        """
        if not self.config.cache:
            return self.network.look(batch, encoded or self.network.encode(batch.samples))[0]
        for index, key in enumerate(batch.keys):
            if key not in self._kept:
                alone = batch.only(index)
                self._kept[key] = self.network.look(alone, self.network.encode(alone.samples))[0]
        looks = [self._kept[key] for key in batch.keys]
        return FirstLook(*(torch.cat(parts) for parts in zip(*looks, strict=True)))

    @property
    def scales(self) -> list[float]:
        """The mean loss of each task before compensation, by which its losses are divided."""
        if self._scales is None:
            self._scales = [self._scale(task) for task in range(len(self.titles))]
        return self._scales

    def _scale(self, task: int) -> float:
        losses: list[Tensor] = []
        slots, stage = range(self.config.scale_over), self.config.stages[0]
        for first in slots[:: stage.batch]:
            batch = self._sampler.batch(stage, _SCALE + task, task, slots[first : first + stage.batch])
            losses.append(self.first_look(batch.to(self.device)).losses)
        found = torch.cat(losses) if losses else torch.ones(1)
        found = found[found.isfinite()]
        mean = float(found.mean()) if len(found) else 1.0
        return mean if mean > 0 else 1.0

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
                kept += _scored(network.task_network(task), outputs, batch, len(kept))
            score = _main_score(network.task_network(task), kept)
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
            kept += _scored(network.task_network(task), outputs, batch, len(kept))
        loss = float(torch.cat([first.losses for first in looks]).mean())
        return looks, _main_score(network.task_network(task), kept), loss

    def _frames(self, task: int) -> Iterator[LoopBatch]:
        """The whole validation frames of a task."""
        for source in self._validation[task]:
            for samples in whole_frames(source.pairs, source.match, ""):
                nameless = ("",) * len(samples.infrared)
                yield LoopBatch(task, samples, nameless, nameless).to(self.device)

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
    for part in config.frozen:
        found = [one for name, one in compensation.named_parameters() if part in name.split(".")]
        if not found:
            known = sorted({place for name, _ in compensation.named_parameters() for place in name.split(".")[:-1]})
            raise ConfigurationError(f"frozen: there is no part {part!r}; parts are bvb, {', '.join(known)}")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in compensation.parameters()):
        raise ConfigurationError(f"frozen: {', '.join(config.frozen)} are all parts; leave one that learns")
    return compensation


def _task_network(task: LoopTask) -> TaskNetwork:
    """The network of a task, whose weights someone trained."""
    if task.task_network in NETWORKS and task.task_network not in SHIPPED:
        raise ConfigurationError(
            f"task {task.title}: no weights of {task.task_network} are shipped, and a loop around an untrained network "
            "learns nothing; train it with `fuseloop train task` and give its weight file as task_network"
        )
    with _naming(task):
        return load(task.task_network)


def _open_for(
    config: ClosedLoopConfig, task: LoopTask, network: TaskNetwork, opened: dict[str, Kept], spec: str, weight: float
) -> Source:
    """A data set as a task sees it."""
    with _naming(task):
        place = config.resolve(spec)
        if place not in opened:
            opened[place] = Kept(open_labelled(place, config.on_error))
        return Source(opened[place], match_classes(network, opened[place].pairs, name=task.title), weight)


@contextmanager
def _naming(task: LoopTask) -> Iterator[None]:
    """Puts the task before what goes wrong."""
    try:
        yield
    except FuseloopError as error:
        raise type(error)(f"task {task.title}: {error}") from error


def _check_processes(stages: Sequence[LoopStage], processes: int) -> None:
    for number, stage in enumerate(stages, 1):
        if stage.batch % processes:
            raise ConfigurationError(
                f"stage {number} has batches of {stage.batch} a task for {processes} processes; every process needs "
                "the same number of each task"
            )


def _over_processes(fabric: Fabric, *values: Tensor) -> list[Tensor]:
    """Their means over all processes."""
    means = [fabric.all_reduce(value, reduce_op="mean") for value in values]
    assert all(isinstance(mean, Tensor) for mean in means)
    return [torch.as_tensor(mean) for mean in means]


def _check_finite(values: Tensor, what: str, names: Sequence[str]) -> None:
    if not bool(values.isfinite().all()):
        raise SkipStep(f"{what} is not finite on one of the frames {', '.join(name or 'unnamed' for name in names)}")


def _scored(network: TaskNetwork, outputs: Outputs, batch: LoopBatch, before: int) -> list[Any]:
    """What a score needs of each image."""
    found = [prediction.to("cpu") for prediction in network.predict(outputs)]
    targets = [target.to("cpu") for target in batch.samples.targets]
    return [network.keep(str(before + number), *one) for number, one in enumerate(zip(found, targets, strict=True))]


def _main_score(network: TaskNetwork, kept: Sequence[Any]) -> float:
    return float(network.score(kept).values[SELECTED[network.task]])
