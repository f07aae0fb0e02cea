"""What the trainings on the losses of frozen task networks share: `closed_loop` and `instruction`.

Fusion network and task networks are frozen. A step takes pairs of every task, and compares the loss of the image that
is made for the task with that of the image that is fused for nobody. Each task has a gradient of its own; a rule makes
one step of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.labelled import LabelledPair
from fuseloop.errors import ConfigurationError, FuseloopError
from fuseloop.evaluation.classes import ClassMatch, match_classes
from fuseloop.fusers.weights import find_weights
from fuseloop.fusers.weights import read_weights as read_fusion_weights
from fuseloop.networks.vfn import VFN
from fuseloop.pairs.colour import rgb_to_ycbcr, ycbcr_to_rgb
from fuseloop.tasks.protocol import Outputs, TaskNetwork
from fuseloop.tasks.weights import NETWORKS, SHIPPED, load
from fuseloop.training import gradient_rules
from fuseloop.training.augmentation import cut, mirror
from fuseloop.training.config import FrozenTasksConfig, LoopStage, LoopTask, TaskAugmentation
from fuseloop.training.schedule import Schedule, learning_rate
from fuseloop.training.task import SELECTED, Kept, Source, TaskBatch, augment, whole_frames
from fuseloop.training.trainer import Forward, SkipStep

_SCALE = 1 << 32  # in place of a step, where pairs are drawn that measure the scale of a loss


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


class Look(Protocol):
    """What is known of the images that are fused for nobody."""

    @property
    def losses(self) -> Tensor:
        """The loss of each, (B,)."""
        ...


class TaskPairs(Protocol):
    """What a step needs of a batch: the pairs of one task."""

    @property
    def task(self) -> int:
        """Number of the task."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the frames."""
        ...


class Around(nn.Module):
    """Something that learns around frozen networks; its parameters are those of what learns alone.

    Args:
        fusion: The fusion network.
        networks: The task networks.
    """

    def __init__(self, fusion: VFN, networks: Sequence[TaskNetwork]) -> None:
        super().__init__()
        for network in (fusion, *networks):
            network.requires_grad_(False).eval()
        # In a tuple they are no submodules: neither trained nor averaged, copied, saved or put into training mode.
        self._frozen = (fusion, tuple(networks))

    @property
    def fusion(self) -> VFN:
        """The fusion network."""
        return self._frozen[0]

    def task_network(self, task: int) -> TaskNetwork:
        """The network of a task."""
        return self._frozen[1][task]

    @torch.no_grad()
    def encode(self, samples: TaskBatch) -> Encoded:
        """The first block of both encoders, which is before anything that learns."""
        ycbcr = rgb_to_ycbcr(samples.visible.float() / 255)
        with full_precision(ycbcr):
            return Encoded(*self.fusion.encode_first(samples.infrared.float() / 255, ycbcr[:, :1]), ycbcr)


def full_precision(like: Tensor) -> torch.autocast:
    """Fusion and what learns around it are small, and cosines and norms suffer in bf16."""
    return torch.autocast(like.device.type, enabled=False)


def coloured(luma: Tensor, ycbcr: Tensor) -> Tensor:
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


class FrozenTasksRecipe(ABC):
    """What the recipes share: data, steps, gradients.

    Args:
        config: The settings.
        device: Where the networks will be.

    Attributes:
        titles: What each task is called.
        fusion: The fusion network.
        task_networks: Those of the tasks.

    Raises:
        ConfigurationError: The networks or an option do not fit.
        FuseloopError: Weights or data of a task are missing; the message names the task.
    """

    network: Around
    weights: Mapping[str, float]

    def __init__(self, config: FrozenTasksConfig, device: torch.device) -> None:
        self.settings = config
        self.device = device
        self.skip_limit = config.skip_limit
        self._schedule = Schedule(config.stages)
        self.steps = self._schedule.steps
        self.titles = [task.title for task in config.tasks]
        self.fusion = read_fusion_weights(find_weights(config.fusion))
        self.task_networks = [_task_network(task) for task in config.tasks]
        self._opened: dict[str, Kept] = {}  # tasks that share a data set share its memory
        self._sources: list[list[Source]] = []
        self._validation: list[list[Source]] = []
        for task, network in zip(config.tasks, self.task_networks, strict=True):
            open_for = partial(self._open_for, task, network)
            self._sources.append([open_for(source.spec, source.weight) for source in task.data])
            self._validation.append([open_for(spec, 1.0) for spec in task.validation])
        self._kept: dict[Hashable, tuple[Tensor, ...]] = {}
        self._scales: list[float] | None = None
        self._step = 0

    def _ready(self, network: Around) -> None:
        """Takes what was made to learn, on the device, as the network of the recipe."""
        self.fusion.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
        for frozen in (self.fusion, *self.task_networks):
            frozen.to(self.device)
        self.network = network
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        self._sampler = LoopSampler(self._sources, self.settings.seed)

    def open(self, spec: str) -> Kept:
        """A data set, which all that name it share."""
        place = self.settings.resolve(spec)
        if place not in self._opened:
            self._opened[place] = Kept(open_labelled(place, self.settings.on_error))
        return self._opened[place]

    def _open_for(self, task: LoopTask, network: TaskNetwork, spec: str, weight: float) -> Source:
        """A data set as a task sees it."""
        with naming(task.title):
            kept = self.open(spec)
            return Source(kept, match_classes(network, kept.pairs, name=task.title), weight)

    def describe(self) -> list[str]:
        """The data and the stages, a line each."""
        lines = []
        for title, sources, validation in zip(self.titles, self._sources, self._validation, strict=True):
            lines += [f"{title} on {source.pairs.pairs.describe()}" for source in sources]
            lines += [f"{title} is validated on {source.pairs.pairs.describe()}" for source in validation]
        for number, stage in enumerate(self.settings.stages, 1):
            samples = stage.samples if isinstance(stage.samples, str) else "parts"
            size = f"{stage.width}x{stage.height}"
            lines.append(
                f"stage {number}: {stage.steps} steps of {stage.batch} {samples} of {size} a task, lr {stage.lr:g}"
            )
        return lines

    def _bare_optimiser(self, spared: Iterable[str] = ()) -> Optimizer:
        """AdamW that spares biases, norms and what has one of these parts in its name; or Adam as published."""
        named = [(name, one) for name, one in self.network.named_parameters() if one.requires_grad]
        if self.settings.coupled_decay:
            return torch.optim.Adam([one for _, one in named], weight_decay=self.settings.decay)
        decays = {name for name, one in named if one.ndim > 1 and not {*spared} & set(name.split("."))}
        groups = [
            {"params": [one for name, one in named if name in decays], "weight_decay": self.settings.decay},
            {"params": [one for name, one in named if name not in decays], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]])

    def tasks_at(self, step: int) -> Sequence[int]:
        """The tasks of a step, in the order of their slots."""
        return range(len(self.titles))

    def pairs_in(self, step: int) -> int:
        """Pairs of all tasks in a step."""
        return self._schedule.at(step)[0].batch * len(self.tasks_at(step))

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets mode and learning rate."""
        stage, local = self._schedule.at(step)
        self._step = step
        self.network.train()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, local)

    def draw(self, step: int, slots: Iterable[int]) -> list[tuple[LoopBatch, list[int]]]:
        """The pairs of some slots with these slots, a batch for each task; the slots of a task follow each other."""
        stage, _ = self._schedule.at(step)
        of_task: dict[int, list[int]] = {}
        for slot in slots:
            of_task.setdefault(self.tasks_at(step)[slot // stage.batch], []).append(slot)
        return [(self._sampler.batch(stage, step, task, own), own) for task, own in of_task.items()]

    @abstractmethod
    def terms(self, forward: Forward, batch: Any) -> dict[str, Tensor]:
        """The terms of the task of a batch, each the mean over its pairs.

        Raises:
            SkipStep: The feature or a loss is not finite.
        """

    @abstractmethod
    def first_look(self, batch: LoopBatch) -> Look:
        """What is known of the images that are fused for nobody."""

    def backward(self, fabric: Fabric, batches: Sequence[TaskPairs]) -> dict[str, Tensor]:
        """Sets the gradient that the rule makes of those of all tasks.

        Raises:
            SkipStep: A feature, a loss or a gradient is not finite.
        """
        tasks = self.tasks_at(self._step)
        gradients = torch.zeros(len(tasks), sum(one.numel() for one in self._parameters), device=self.device)
        seen = [self.titles[task] for task in tasks]
        means = {
            name: torch.zeros((), device=self.device)
            for name in self.weights
            if any(name == title or name.startswith(f"{title}/") for title in seen)
        }
        faults: list[str] = []
        for batch in batches:
            title = self.titles[batch.task]
            try:
                with fabric.autocast():
                    terms = self.terms(self.network, batch)
                gradient = self._flat_gradient([self.weights[name] * term for name, term in terms.items()])
                check_finite(gradient, f"the gradient of {title}", batch.names)
            except SkipStep as fault:
                faults.append(str(fault))
                continue
            gradients[tasks.index(batch.task)] = gradient
            means |= {name: term.detach() for name, term in terms.items()}
        together, faulty = _over_processes(fabric, gradients, torch.tensor([float(len(faults))], device=self.device))
        if float(faulty) > 0:
            raise SkipStep("; ".join(faults) or "what another process saw is not finite")
        self._set_gradient(gradient_rules.combine(together, self._rule()))
        return means

    def _flat_gradient(self, terms: Sequence[Tensor]) -> Tensor:
        loss = torch.stack([term for term in terms if term.requires_grad]).sum()
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def _set_gradient(self, gradient: Tensor) -> None:
        """Hands out a flat gradient. What no image used gets none, so that its moments and decay rest."""
        parts = torch.split(gradient, [one.numel() for one in self._parameters])  # type: ignore[no-untyped-call]
        used = torch.stack([part.any() for part in parts]).tolist()
        for parameter, part, keep in zip(self._parameters, parts, used, strict=True):
            # As published, coupled decay acts on all parameters, whether they were used or not.
            parameter.grad = part.view_as(parameter) if keep or self.settings.coupled_decay else None

    def _rule(self) -> gradient_rules.Rule:
        """The rule with its options; the orders of PCGrad depend on seed and step alone."""
        if self.settings.rule == "cagrad":
            return partial(gradient_rules.cagrad, c=self.settings.radius)
        if self.settings.rule == "pcgrad":
            drawn = torch.Generator().manual_seed(hash((self.settings.seed, self._step)))
            return partial(gradient_rules.pcgrad, generator=drawn)
        return gradient_rules.RULES[self.settings.rule]

    def remembered(self, batch: LoopBatch, look: Callable[[LoopBatch], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What a look at each sample gives, kept.

        What is kept was looked at by itself: its last bits then do not depend on the batch in which it came first,
        which is another one after a training was resumed.
        """
        for index, key in enumerate(batch.keys):
            if key not in self._kept:
                self._kept[key] = look(batch.only(index))
        looks = [self._kept[key] for key in batch.keys]
        return tuple(torch.cat(parts) for parts in zip(*looks, strict=True))

    @property
    def scales(self) -> list[float]:
        """The mean loss of each task at images that are fused for nobody, by which its losses are divided."""
        if self._scales is None:
            self._scales = [self._scale(task) for task in range(len(self.titles))]
        return self._scales

    def _scale(self, task: int) -> float:
        losses: list[Tensor] = []
        slots, stage = range(self.settings.scale_over), self.settings.stages[0]
        for first in slots[:: stage.batch]:
            batch = self._sampler.batch(stage, _SCALE + task, task, slots[first : first + stage.batch])
            losses.append(self.first_look(batch.to(self.device)).losses)
        found = torch.cat(losses) if losses else torch.ones(1)
        found = found[found.isfinite()]
        mean = float(found.mean()) if len(found) else 1.0
        return mean if mean > 0 else 1.0

    def _frames(self, task: int) -> Iterator[LoopBatch]:
        """The whole validation frames of a task."""
        for source in self._validation[task]:
            for samples in whole_frames(source.pairs, source.match, ""):
                nameless = ("",) * len(samples.infrared)
                yield LoopBatch(task, samples, nameless, nameless).to(self.device)


def freeze(module: nn.Module, parts: Iterable[str]) -> None:
    """Keeps parts of a module from learning.

    Args:
        module: What learns.
        parts: Names of parameters and modules in it.

    Raises:
        ConfigurationError: There is no such part, or none is left that learns.
    """
    parts = tuple(parts)
    for part in parts:
        found = [one for name, one in module.named_parameters() if part in name.split(".")]
        if not found:
            names = [name.split(".") for name, _ in module.named_parameters()]
            known = dict.fromkeys([*(name[0] for name in names if len(name) == 1)])
            known |= dict.fromkeys(sorted({place for name in names for place in name[:-1]}))
            raise ConfigurationError(f"frozen: there is no part {part!r}; parts are {', '.join(known)}")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigurationError(f"frozen: {', '.join(parts)} are all parts; leave one that learns")


def _task_network(task: LoopTask) -> TaskNetwork:
    """The network of a task, whose weights someone trained."""
    if task.task_network in NETWORKS and task.task_network not in SHIPPED:
        raise ConfigurationError(
            f"task {task.title}: no weights of {task.task_network} are shipped, and the loss of an untrained network "
            "teaches nothing; train it with `fuseloop train task` and give its weight file as task_network"
        )
    with naming(task.title):
        return load(task.task_network)


@contextmanager
def naming(title: str) -> Iterator[None]:
    """Puts the task before what goes wrong."""
    try:
        yield
    except FuseloopError as error:
        raise type(error)(f"task {title}: {error}") from error


def check_processes(stages: Sequence[LoopStage], processes: int) -> None:
    """Refuses batches that the processes cannot share alike.

    Raises:
        ConfigurationError: A stage has such.
    """
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


def check_finite(values: Tensor, what: str, names: Sequence[str]) -> None:
    """Leaves a step out that has values which are not finite.

    Raises:
        SkipStep: It has.
    """
    if not bool(values.isfinite().all()):
        raise SkipStep(f"{what} is not finite on one of the frames {', '.join(name or 'unnamed' for name in names)}")


def scored(network: TaskNetwork, outputs: Outputs, batch: LoopBatch, before: int) -> list[Any]:
    """What a score needs of each image."""
    found = [prediction.to("cpu") for prediction in network.predict(outputs)]
    targets = [target.to("cpu") for target in batch.samples.targets]
    return [network.keep(str(before + number), *one) for number, one in enumerate(zip(found, targets, strict=True))]


def main_score(network: TaskNetwork, kept: Sequence[Any]) -> float:
    """The score that chooses the best weights, of what `scored` gave."""
    return float(network.score(kept).values[SELECTED[network.task]])
