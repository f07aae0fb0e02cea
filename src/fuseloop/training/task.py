"""Training of task networks: `fuseloop train task`.

A task network that was trained on the images of one fuser favours that fuser. So by default it learns from a mixture of
infrared, visible, mean, maximum and fused images of the same pairs, and is validated on all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.datasets.files import open_labelled
from fuseloop.datasets.labelled import IGNORED, LabelledPair, LabelledPairs
from fuseloop.errors import ConfigurationError
from fuseloop.evaluation.classes import ClassMatch, match_classes
from fuseloop.fusers.rules import RULES, Rule, of_network
from fuseloop.fusers.weights import find_weights
from fuseloop.fusers.weights import read_weights as read_fusion_weights
from fuseloop.tasks.detection.yolov5 import YOLOv5
from fuseloop.tasks.protocol import Target, Task, TaskNetwork
from fuseloop.tasks.weights import DEFAULT_CLASSES, NETWORKS, build, load, write_weights
from fuseloop.training.augmentation import brighten, mirror, mosaic, zoom
from fuseloop.training.config import TaskAugmentation, TaskConfig, TaskStage
from fuseloop.training.progress import say
from fuseloop.training.schedule import Schedule, learning_rate
from fuseloop.training.trainer import Forward, Result, Trainer, launch, leave

SELECTED: dict[Task, str] = {"detection": "mAP50", "segmentation": "mIoU", "saliency": "F/mean"}
"""The score of each task that chooses the best weights; validation reports one minus it."""

VALIDATED = 8  # images that are looked at together in validation


def train(config: TaskConfig, *, console: Console | None = None) -> Result:
    """Trains a task network in the run folder of the configuration, or continues the run that is there.

    Args:
        config: What to do; `load_config(TaskConfig, "yolov5s")` reads a preset.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The run folder holds another run, or network, data or device do not fit the configuration.
        LabelError: Labels are missing, or broken and the configuration does not say to leave them out.
        PairError: A data set holds no pairs.
        TrainingError: The training diverged; its last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = TaskRecipe(config, fabric.device)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class TaskBatch:
    """Pairs of one size with their labels, and by which fuser each is to be looked at.

    Labels are kept as small as on disk, and in few tensors, since workers hand them over; `targets` makes them what a
    loss takes.

    Attributes:
        infrared: B×1×H×W uint8.
        visible: B×3×H×W uint8 RGB.
        maps: B×H×W uint8 by the names of `Target`: ids of "segmentation", 0 to 255 of "saliency" and "edges".
        boxes: Boxes of each pair with their class, N×5 float32; empty where the task has none.
        fusers: The name of a fuser for each.
    """

    def __init__(
        self,
        infrared: Tensor,
        visible: Tensor,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        fusers: Sequence[str],
    ) -> None:
        self.infrared, self.visible, self.maps = infrared, visible, maps
        self.boxes, self.fusers = tuple(boxes), tuple(fusers)

    @classmethod
    def of(cls, pairs: Sequence[LabelledPair], match: Sequence[ClassMatch], fusers: Sequence[str]) -> TaskBatch:
        """A batch of pairs of one size."""
        infrared = np.stack([pair.infrared for pair in pairs])[:, None]
        visible = np.stack([pair.visible for pair in pairs]).transpose(0, 3, 1, 2)
        targets = [one.target(pair) for one, pair in zip(match, pairs, strict=True)]
        maps = {
            name: torch.stack([_as_bytes(getattr(target, name)) for target in targets])
            for name in ("segmentation", "saliency", "edges")
            if getattr(targets[0], name) is not None
        }
        boxes = [
            torch.cat([target.boxes, target.classes[:, None].float()], dim=1)
            for target in targets
            if target.boxes is not None and target.classes is not None
        ]
        return cls(torch.from_numpy(infrared), torch.from_numpy(np.ascontiguousarray(visible)), maps, boxes, fusers)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The labels of each pair."""
        maps = {name: pixels.long() if name == "segmentation" else pixels / 255 for name, pixels in self.maps.items()}
        targets = []
        for index in range(len(self.infrared)):
            parts = {name: pixels[index] for name, pixels in maps.items()}
            if self.boxes:
                parts |= {"boxes": self.boxes[index][:, :4], "classes": self.boxes[index][:, 4].long()}
            targets.append(Target(**parts))
        return tuple(targets)

    def to(self, device: torch.device) -> TaskBatch:
        """The same pairs on another device."""
        maps = {name: pixels.to(device) for name, pixels in self.maps.items()}
        boxes = _split(torch.cat(self.boxes).to(device), [*map(len, self.boxes)]) if self.boxes else ()
        return TaskBatch(self.infrared.to(device), self.visible.to(device), maps, boxes, self.fusers)

    def __getstate__(self) -> dict[str, Any]:
        boxes = (torch.cat(self.boxes), [*map(len, self.boxes)]) if self.boxes else None
        return {**vars(self), "boxes": boxes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        boxes = state["boxes"]
        self.__dict__.update(state, boxes=() if boxes is None else _split(*boxes))


def _split(boxes: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """The boxes of each pair, N×5, of those of all."""
    parts: tuple[Tensor, ...] = torch.split(boxes, list(counts))  # type: ignore[no-untyped-call]
    return parts


def _as_bytes(pixels: Tensor) -> Tensor:
    """Ids as they are, shares of 1 as 0 to 255."""
    return (255 * pixels).round().byte() if pixels.is_floating_point() else pixels.byte()


class Fusing:
    """Makes the images of a batch by several fusers.

    Args:
        names: Names of fusers: those of `RULES`, shipped fusion weights, or weight files.
        device: Where the images will be.

    Raises:
        WeightsError: A name is none of these.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self._rules = {name: RULES[name] if name in RULES else _network(name, device) for name in names}

    @torch.no_grad()
    def __call__(self, batch: TaskBatch) -> Tensor:
        """B×3×H×W RGB in [0, 1], as they would be saved but for the rounding."""
        infrared, visible = batch.infrared.float() / 255, batch.visible.float() / 255
        images = torch.empty_like(visible)
        for name in dict.fromkeys(batch.fusers):
            chosen = torch.tensor([fuser == name for fuser in batch.fusers], device=images.device)
            images[chosen] = self._rules[name](infrared[chosen], visible[chosen])
        return images.clamp_(0, 1)


def _network(name: str, device: torch.device) -> Rule:
    return of_network(read_fusion_weights(find_weights(name)).to(device).requires_grad_(False))


class Learner(nn.Module):
    """A task network with the way to its loss, so that all of a step is one forward call.

    Args:
        network: What learns.
        fusing: Makes the images.
    """

    def __init__(self, network: TaskNetwork, fusing: Callable[[TaskBatch], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.fusing = fusing

    def __deepcopy__(self, memo: dict[int, Any]) -> Learner:
        # What makes images without learning is shared by both; a module learns, and is copied.
        fusing = deepcopy(self.fusing, memo) if isinstance(self.fusing, nn.Module) else self.fusing
        return Learner(deepcopy(self.network, memo), fusing)

    def forward(self, batch: TaskBatch) -> Tensor:
        """The loss of each pair, (B,)."""
        losses: Tensor = self.network.loss(self.network(self.fusing(batch)), batch.targets, "none")
        return losses


class Kept:
    """A labelled data set in memory, 1.8 MB for a pair of 640×480 with masks, read by several threads at once."""

    def __init__(self, pairs: LabelledPairs) -> None:
        self.pairs = pairs
        with ThreadPoolExecutor() as threads:
            self._kept = list(threads.map(pairs.__getitem__, range(len(pairs))))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> LabelledPair:
        return self._kept[index]

    @cached_property
    def showing(self) -> dict[int, list[int]]:
        """The pairs that show each class of the segmentation but the background, for those that occur."""
        found: dict[int, list[int]] = {}
        for index, pair in enumerate(self._kept):
            if pair.segmentation is not None:
                for shown in np.unique(pair.segmentation).tolist():
                    if shown not in (0, IGNORED):
                        found.setdefault(shown, []).append(index)
        return dict(sorted(found.items()))

    def sizes(self) -> Iterator[NDArray[np.float32]]:
        """Widths and heights of the boxes of each pair, as shares of the pair, N×2."""
        for pair in self._kept:
            if pair.boxes is not None:
                height, width = pair.infrared.shape
                shares = (pair.boxes[:, 2:] - pair.boxes[:, :2]) / np.array([width, height], np.float32)
                yield shares.astype(np.float32)


class Source(NamedTuple):
    """A data set as a training sees it."""

    pairs: Kept
    match: ClassMatch
    weight: float


class TaskSampler:
    """Draws labelled pairs; every slot of every batch has a generator of its own, made from seed, step and slot.

    Args:
        sources: The data sets.
        fusers: Share of each fuser.
        seed: Seed of all draws.
    """

    def __init__(self, sources: Sequence[Source], fusers: dict[str, float], seed: int) -> None:
        self._sources, self._seed = sources, seed
        self._fusers, shares = tuple(fusers), np.array(list(fusers.values()))
        self._shares = shares / shares.sum()

    def batch(self, stage: TaskStage, step: int, slots: Iterable[int]) -> TaskBatch:
        """The pairs of some slots of a step."""
        weights = np.array(stage.weights or [source.weight for source in self._sources])
        shares = weights / weights.sum()
        drawn = [self._pair(stage, shares, np.random.default_rng([self._seed, step, slot])) for slot in slots]
        pairs, match, fusers = zip(*drawn, strict=True)
        return TaskBatch.of(pairs, match, fusers)

    def _pair(
        self, stage: TaskStage, shares: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[LabelledPair, ClassMatch, str]:
        source = self._sources[rng.choice(len(self._sources), p=shares)]
        pair = augment(source.pairs, stage.height, stage.width, stage.augmentation, rng)
        return pair, source.match, self._fusers[rng.choice(len(self._fusers), p=self._shares)]


def augment(
    pairs: Sequence[LabelledPair] | Kept,
    height: int,
    width: int,
    augmentation: TaskAugmentation,
    rng: np.random.Generator,
) -> LabelledPair:
    """A random sample of a data set: a part of one pair or a mosaic of four, mirrored and brightened."""

    def draw() -> LabelledPair:
        return pairs[int(rng.integers(len(pairs)))]

    scales = augmentation.scales
    if rng.random() < augmentation.mosaic:
        pair = mosaic([draw() for _ in range(4)], height, width, rng)
    elif augmentation.focus and isinstance(pairs, Kept) and pairs.showing and rng.random() < augmentation.focus:
        chosen, place = draw_class(pairs, rng)
        pair = zoom(chosen, height, width, rng, scales=scales, on=place)
    else:
        pair = zoom(draw(), height, width, rng, scales=scales)
    if augmentation.flip and rng.random() < 0.5:
        pair = mirror(pair)
    return brighten(pair, augmentation.brighten, rng) if augmentation.brighten else pair


def draw_class(pairs: Kept, rng: np.random.Generator) -> tuple[LabelledPair, tuple[int, int]]:
    """A pair with a class of the segmentation that is drawn as often as any other, and a pixel of that class."""
    classes = list(pairs.showing)
    chosen = classes[rng.integers(len(classes))]
    frames = pairs.showing[chosen]
    pair = pairs[frames[rng.integers(len(frames))]]
    rows, columns = np.nonzero(np.asarray(pair.segmentation) == chosen)
    one = rng.integers(len(rows))
    return pair, (int(rows[one]), int(columns[one]))


class TaskRecipe:
    """The recipe of a task network.

    Args:
        config: Its settings.
        device: Where the network will be.
    """

    def __init__(self, config: TaskConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._schedule = Schedule(config.stages)
        self.steps = self._schedule.steps
        self.weights: Mapping[str, float] = {"task": 1.0}
        data = [Kept(open_labelled(config.resolve(source.spec), config.on_error)) for source in config.data]
        self._validation = [Kept(open_labelled(config.resolve(spec), config.on_error)) for spec in config.validation]
        self.task_network = first_network(config, data)
        self._fitted = _fit_anchors(config, self.task_network, data)
        match = [match_classes(self.task_network, kept.pairs, name=config.network) for kept in data]
        self._match = [match_classes(self.task_network, kept.pairs, name=config.network) for kept in self._validation]
        self._sources = [Source(*row) for row in zip(data, match, (one.weight for one in config.data), strict=True)]
        self._sampler = TaskSampler(self._sources, config.fusers, config.seed)
        self.network = Learner(self.task_network, Fusing(config.fusers, device))
        self._step = 0
        self._ahead: tuple[int, tuple[int, ...], Iterator[TaskBatch]] | None = None

    def describe(self) -> list[str]:
        """The network, the data and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self.task_network.parameters())
        lines = [f"training {self.config.network}, {count:,} parameters" + self._fitted]
        lines += [f"training on {source.pairs.pairs.describe()}" for source in self._sources]
        lines += [f"validation on {kept.pairs.describe()}" for kept in self._validation]
        lines += [f"images of {', '.join(self.config.fusers)}"]
        for number, stage in enumerate(self.config.stages, 1):
            size = f"{stage.width}x{stage.height}"
            lines.append(f"stage {number}: {stage.steps} steps of {stage.batch} samples of {size}, lr {stage.lr:g}")
        return lines

    def optimiser(self) -> Optimizer:
        """AdamW; biases, norms and other vectors do not decay."""
        named = [(name, one) for name, one in self.network.named_parameters() if one.requires_grad]
        groups = [
            {"params": [one for _, one in named if one.ndim > 1], "weight_decay": self.config.decay},
            {"params": [one for _, one in named if one.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups)

    def pairs_in(self, step: int) -> int:
        """Size of the global batch of a step."""
        return self._schedule.at(step)[0].batch

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets mode and learning rate."""
        stage, local = self._schedule.at(step)
        self._step = step
        self.network.train()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, local)

    def batches(self, step: int, slots: Iterable[int]) -> list[TaskBatch]:
        """The pairs of some slots of the global batch."""
        wanted = tuple(slots)
        if not self.config.workers:
            return [self._sampler.batch(self._schedule.at(step)[0], step, wanted)]
        if self._ahead is None or self._ahead[:2] != (step, wanted):
            self._ahead = (step, wanted, self._prepared(step, wanted))
        batch = next(self._ahead[2])
        following = self._slots_after(step, wanted)
        self._ahead = (step + 1, following, self._ahead[2]) if following == wanted else None
        return [batch]

    def _slots_after(self, step: int, slots: tuple[int, ...]) -> tuple[int, ...]:
        """The slots of the next step: the same ones while the batch keeps its size."""
        same = step + 1 < self.steps and self.pairs_in(step + 1) == self.pairs_in(step)
        return slots if same else ()

    def _prepared(self, step: int, slots: tuple[int, ...]) -> Iterator[TaskBatch]:
        """Batches from a step on, prepared by threads; what they prepare depends on nothing but the step."""

        def prepare(later: int) -> TaskBatch:
            return self._sampler.batch(self._schedule.at(later)[0], later, slots)

        # Threads, since OpenCV's and PyTorch's own do not survive the fork of a process that has used them.
        with ThreadPoolExecutor(self.config.workers) as threads:
            steps = iter(range(step, self.steps))
            ahead = deque(threads.submit(prepare, later) for later in islice(steps, 4 * self.config.workers))
            try:
                while ahead:
                    yield ahead.popleft().result()
                    ahead.extend(threads.submit(prepare, later) for later in islice(steps, 1))
            finally:
                threads.shutdown(cancel_futures=True)

    def terms(self, forward: Forward, batch: TaskBatch) -> dict[str, Tensor]:
        """The task loss, the mean over the pairs of the batch."""
        # Dropout is drawn from the global generator, which no checkpoint holds: every step has a seed of its own.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(hash((self.config.seed, self._step)))
            return {"task": forward(batch).mean()}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """One minus the score of every fuser's images, and their mean, which chooses."""
        assert isinstance(network, Learner)
        scores: dict[str, float] = {}
        for fuser in self.config.fusers:
            kept: list[Any] = []
            for pairs, match in zip(self._validation, self._match, strict=True):
                for batch in whole_frames(pairs, match, fuser):
                    images = network.fusing(batch.to(self.device))
                    found = [one.to("cpu") for one in network.network.predict(network.network(images))]
                    kept += [
                        network.network.keep(str(len(kept) + number), *one)
                        for number, one in enumerate(zip(found, batch.targets, strict=True))
                    ]
            scores[fuser] = 1 - network.network.score(kept).values[SELECTED[network.network.task]]
        return {"selected": sum(scores.values()) / len(scores), **scores}

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped."""
        assert isinstance(network, Learner)
        write_weights(
            path,
            network.network,
            self.config.network,
            options=self.config.options,
            description=description,
            overwrite=True,
        )


def first_network(config: TaskConfig, data: Sequence[Kept]) -> TaskNetwork:
    """The network that a training begins with; its random weights depend on the seed alone.

    Raises:
        ConfigurationError: The network is unknown, or the weights to begin with are of another one or other classes.
        WeightsError: They cannot be read.
    """
    if config.network not in NETWORKS:
        raise ConfigurationError(f"network: unknown {config.network!r}; known are {', '.join(NETWORKS)}")
    task = NETWORKS[config.network].task
    pairs = data[0].pairs
    named = {"detection": pairs.box_names, "segmentation": pairs.segmentation_names, "saliency": ()}[task]
    classes = config.classes or named or DEFAULT_CLASSES[task]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build(config.network, classes, **config.options)
    if config.start is not None:
        begun = load(config.start)
        if begun.classes != network.classes or type(begun) is not type(network):
            raise ConfigurationError(
                f"start: {config.start} is a {type(begun).__name__} of {', '.join(begun.classes) or 'no classes'}; the "
                f"training is of {config.network} with {', '.join(network.classes) or 'no classes'}"
            )
        try:
            network.load_state_dict(begun.state_dict())
        except RuntimeError as error:
            raise ConfigurationError(f"start: {config.start} is of another size than {config.network}") from error
    return network


def _fit_anchors(config: TaskConfig, network: TaskNetwork, data: Sequence[Kept]) -> str:
    """Fits the anchors of a detector that has some to the training boxes; says what was done."""
    if not isinstance(network, YOLOv5) or config.anchors != "auto" or config.start is not None:
        return ""
    stage = config.stages[-1]
    shares = [sizes for kept in data for sizes in kept.sizes()]
    sizes = torch.from_numpy(np.concatenate(shares)) * torch.tensor([stage.width, stage.height])
    return network.fit_anchors(sizes[(sizes > 2).all(dim=1)])


def whole_frames(pairs: Kept, match: ClassMatch, fuser: str) -> Iterator[TaskBatch]:
    """Whole frames in order, neighbours of one size together."""
    group: list[LabelledPair] = []
    for index in range(len(pairs)):
        if group and (len(group) == VALIDATED or group[0].infrared.shape != pairs[index].infrared.shape):
            yield TaskBatch.of(group, [match] * len(group), [fuser] * len(group))
            group = []
        group.append(pairs[index])
    yield TaskBatch.of(group, [match] * len(group), [fuser] * len(group))
