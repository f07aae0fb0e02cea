"""Training of the conditioner by which one fusion network does what an instruction says: `fuseloop train instruction`.

Fusion network, task networks and text encoder are frozen. A step takes pairs of every task, and for each pair a
sentence of the grammar that asks for the task. The image that the conditioner makes of it has the loss of the task, and
the penalty where that is worse than the loss of the image without instruction; each task has a gradient of its own. An
instruction that asks for several things is drawn for each of them, with the loss of each weighted by its share. The
intent "view" has a visual loss in place of a task network. Without an instruction the image is exactly that of the
fusion network, so nothing has to be trained for that.

Source: T-OAR (arXiv 2411.09387). What is done otherwise than in the published code: all tasks are in every step
(`turns`), their losses are relative to those without instruction (`scale_over`), nothing may become worse (`penalty`),
images stay close to what people see (`fidelity`), sentences are many and not one for each task (`encoder`), weights are
in single precision, and held out pairs choose them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.datasets.labelled import LabelledPair
from fuseloop.errors import ConfigurationError, WeightsError
from fuseloop.evaluation.classes import ClassMatch
from fuseloop.fusers.instruction_weights import find_instructed, read_instructed, write_instructed
from fuseloop.instructions.encoder import CachedEncoder, Instruction, InstructionEncoder, TaskIdEncoder, embed
from fuseloop.instructions.grammar import Sentence, Sentences
from fuseloop.instructions.match import NotUnderstood
from fuseloop.instructions.plugins import load_encoder_folder
from fuseloop.instructions.understanding import ENCODERS, find_encoder
from fuseloop.instructions.weights import read_encoder
from fuseloop.networks.instruction_conditioner import InstructionConditioner, finish
from fuseloop.networks.vfn import VFN
from fuseloop.tasks.protocol import Outputs, Target, TaskNetwork
from fuseloop.training.config import VIEW, InstructionConfig
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
    naming,
    scored,
)
from fuseloop.training.losses import LOSSES, Loss, reward_penalty, visual_loss
from fuseloop.training.progress import say
from fuseloop.training.task import Source
from fuseloop.training.trainer import Forward, Result, Trainer, launch, leave

TASKS = "tasks"
"""The encoder that has a vector for each intent, and reads no text."""

_TRAINING, _VALIDATION = range(2)


def train(config: InstructionConfig, *, console: Console | None = None) -> Result:
    """Trains a conditioner in the run folder of the configuration, or continues the run that is there.

    Args:
        config: What to do; `load_config(InstructionConfig, "toar")` reads a preset.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The run folder holds another run, or networks, data or device do not fit the configuration.
        WeightsError: The fusion network, the text encoder, a task network or the weights to begin with cannot be read.
        LabelError: Labels are missing, or broken and the configuration does not say to leave them out.
        PairError: The data of a task is missing.
        TrainingError: Too many steps had losses or gradients that are not finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = InstructionRecipe(config, fabric.device)
    check_processes(config.stages, fabric.world_size)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


class InstructedBatch(NamedTuple):
    """Pairs of one task, and an instruction for each.

    Attributes:
        pairs: The pairs and their labels.
        instructions: Texts, or mixtures for an encoder that reads none.
        shares: How much of each instruction asks for the task, (B,), above 0 to 1.
    """

    pairs: LoopBatch
    instructions: tuple[Instruction, ...]
    shares: Tensor

    @property
    def infrared(self) -> Tensor:
        """B×1×H×W uint8."""
        return self.pairs.infrared

    @property
    def task(self) -> int:
        """Number of the task."""
        return self.pairs.task

    @property
    def names(self) -> tuple[str, ...]:
        """Of the frames."""
        return self.pairs.names

    def to(self, device: torch.device) -> InstructedBatch:
        """The same on another device."""
        return InstructedBatch(self.pairs.to(device), self.instructions, self.shares.to(device))


class Neutral(NamedTuple):
    """What the images without instruction are worth.

    Attributes:
        losses: The loss of the task of each, (B,).
        visual: The visual loss of each, (B,).
    """

    losses: Tensor
    visual: Tensor


class Unlabelled(ClassMatch):
    """Leaves out the labels of a data set."""

    def target(self, pair: LabelledPair) -> Target:
        """No labels."""
        return Target()


class InstructionLearner(Around):
    """A conditioner around frozen networks, which learns, with the vectors of an encoder that learns with it.

    Args:
        conditioner: What learns.
        fusion: The fusion network.
        networks: The task networks.
        encoder: Makes the embeddings. It learns where it is a `TaskIdEncoder`.
    """

    def __init__(
        self,
        conditioner: InstructionConditioner,
        fusion: VFN,
        networks: Sequence[TaskNetwork],
        encoder: InstructionEncoder,
    ) -> None:
        super().__init__(fusion, networks)
        self.conditioner = conditioner
        self.ids = encoder if isinstance(encoder, TaskIdEncoder) else None
        self._text = None if self.ids is not None else encoder

    def __deepcopy__(self, memo: dict[int, Any]) -> InstructionLearner:
        encoder = self.encoder if self.ids is None else deepcopy(self.ids, memo)
        return InstructionLearner(deepcopy(self.conditioner, memo), *self._frozen, encoder)

    @property
    def encoder(self) -> InstructionEncoder:
        """What makes the embeddings."""
        encoder = self._text if self.ids is None else self.ids
        assert encoder is not None
        return encoder

    def embed(self, instructions: Sequence[Instruction]) -> Tensor:
        """The embedding of each instruction, N×d; zero for a text that is not understood."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotUnderstood)  # of many sentences with typing errors some are not
            # One by one: the last bits of an embedding are then the same in every batch.
            return torch.cat([embed(self.encoder, [instruction]) for instruction in instructions])

    def forward(self, encoded: Encoded, embedding: Tensor | None) -> Tensor:
        """The fused luma, B×1×H×W.

        Args:
            encoded: What `encode` gave.
            embedding: B×d; None for no instruction.
        """
        first = encoded.infrared, encoded.visible
        with full_precision(encoded.ycbcr):
            if embedding is None:
                return self.fusion.decode(self.fusion.encode_rest(*first))
            return finish(self.fusion, *first, self.conditioner(*first, embedding))

    def look(self, task: int, encoded: Encoded, luma: Tensor) -> Outputs:
        """What the network of a task sees in fused images."""
        with full_precision(encoded.ycbcr):
            image = coloured(luma, encoded.ycbcr)
        outputs: Outputs = self.task_network(task)(image)
        return outputs


class InstructionRecipe(FrozenTasksRecipe):
    """The recipe of the conditioner.

    Args:
        config: Its settings.
        device: Where the networks will be.

    Attributes:
        intents: What instructions ask for, of each task.

    Raises:
        ConfigurationError: The networks or an option do not fit.
        FuseloopError: Weights or data of a task are missing; the message names the task.
    """

    network: InstructionLearner

    def __init__(self, config: InstructionConfig, device: torch.device) -> None:
        encoder = first_encoder(config)  # a wrong one is told before data is read
        super().__init__(config, device)
        self.config = config
        self.intents: list[str] = [network.task for network in self.task_networks]
        weights = [task.weight for task in config.tasks]
        if config.view is not None:
            self._add_view(config)
            weights.append(config.view.weight)
        self.weights = {
            title + part: weight * share
            for title, intent, weight in zip(self.titles, self.intents, weights, strict=True)
            for part, share in (("", 1.0), ("/fidelity", config.fidelity), ("/gain", 0.0), ("/worse", 0.0))
            if not (intent == VIEW and part == "/fidelity")
        }
        if encoder is None:
            encoder = TaskIdEncoder(names=tuple(dict.fromkeys(self.intents)), seed=config.seed)
        conditioner = first_conditioner(config, self.fusion.depth, encoder)
        self._ready(InstructionLearner(conditioner, self.fusion, self.task_networks, encoder))
        self._sentences = Sentences()
        self._without: dict[int, tuple[float, float]] = {}

    def _add_view(self, config: InstructionConfig) -> None:
        assert config.view is not None
        with naming(VIEW):
            match = Unlabelled("saliency")
            self._sources.append([Source(self.open(one.spec), match, one.weight) for one in config.view.data])
            self._validation.append([Source(self.open(spec), match, 1.0) for spec in config.view.validation])
        self.titles.append(VIEW)
        self.intents.append(VIEW)

    def describe(self) -> list[str]:
        """The networks, the data and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self._parameters)
        places, reader = ", ".join(self.network.conditioner.places), self.network.encoder.id
        return [
            f"training the conditioner of {self.config.fusion} at {places}, {count:,} parameters, "
            f"by {self.config.rule}; instructions are read by {reader}",
            *super().describe(),
        ]

    def optimiser(self) -> Optimizer:
        """AdamW; biases and the vectors of tasks do not decay."""
        return self._bare_optimiser(spared=("ids",))

    def tasks_at(self, step: int) -> Sequence[int]:
        """All tasks, or the one whose turn it is."""
        turns = self.config.turns
        return [step // turns % len(self.titles)] if turns else super().tasks_at(step)

    def batches(self, step: int, slots: Iterable[int]) -> list[InstructedBatch]:
        """The pairs of some slots and their instructions, a batch for each task."""
        made = []
        for pairs, own in self.draw(step, slots):
            sentences = [self._sentence(self.intents[pairs.task], _TRAINING, step, slot) for slot in own]
            shares = torch.tensor([sentence.mixture[self.intents[pairs.task]] for sentence in sentences])
            made.append(InstructedBatch(pairs, tuple(map(self._instruction, sentences)), shares))
        return made

    def _sentence(self, intent: str, purpose: int, step: int, slot: int) -> Sentence:
        """A sentence that asks for an intent, made from the seed and these numbers alone."""
        random = Random(((self.config.seed * 2 + purpose) << 64) + (step << 32) + slot)
        known = {*self.intents}
        mixed = purpose == _TRAINING and len(known) > 1 and random.random() < self.config.mixtures
        while True:
            sentence = self._sentences.draw(random)
            if (
                intent in sentence.mixture
                and known.issuperset(sentence.mixture)
                and mixed == (len(sentence.mixture) > 1)
            ):
                return sentence

    def _instruction(self, sentence: Sentence) -> Instruction:
        return sentence.text if self.network.ids is None else sentence.mixture

    def terms(self, forward: Forward, batch: InstructedBatch) -> dict[str, Tensor]:
        """Of the task of the batch, relative to the scale of its loss.

        The objective, the visual loss relative to that without instruction, the gain, and the share of images that were
        made worse.

        Raises:
            SkipStep: A loss is not finite.
        """
        title, pairs = self.titles[batch.task], batch.pairs
        encoded = self.network.encode(pairs.samples)
        neutral = self.first_look(pairs, encoded)
        check_finite(neutral.losses, f"the loss of {title} without instruction", batch.names)
        embedding = self.network.embed(batch.instructions).to(self.device)
        luma = self.network(encoded, embedding)
        after = self._losses(self.network, pairs, encoded, luma)
        check_finite(after, f"the loss of {title}", batch.names)
        scale, shares = self.scales[batch.task], batch.shares
        objective = reward_penalty(shares * after, shares * neutral.losses, penalty=self.config.penalty)
        terms = {
            title: objective / scale,
            f"{title}/gain": (neutral.losses - after.detach()).mean() / scale,
            f"{title}/worse": (after.detach() > neutral.losses).float().mean(),
        }
        if f"{title}/fidelity" in self.weights:
            terms[f"{title}/fidelity"] = _visual(pairs, encoded, luma).mean() / neutral.visual.mean().clamp(min=1e-4)
        return terms

    def _losses(self, network: InstructionLearner, pairs: LoopBatch, encoded: Encoded, luma: Tensor) -> Tensor:
        """The loss of the task of some pairs at fused images, (B,)."""
        if self.intents[pairs.task] == VIEW:
            assert self.config.view is not None
            return _view_losses(self.config.view.loss, pairs, encoded, luma)
        outputs = network.look(pairs.task, encoded, luma)
        return network.task_network(pairs.task).loss(outputs, pairs.samples.targets, "none").float()

    @torch.no_grad()
    def first_look(self, batch: LoopBatch, encoded: Encoded | None = None) -> Neutral:
        """What the images without instruction are worth, kept where the configuration says so."""
        if not self.config.cache:
            return self._neutral(batch, encoded or self.network.encode(batch.samples))
        return Neutral(*self.remembered(batch, lambda one: self._neutral(one, self.network.encode(one.samples))))

    def _neutral(self, batch: LoopBatch, encoded: Encoded) -> Neutral:
        luma = self.network(encoded, None)
        return Neutral(self._losses(self.network, batch, encoded, luma), _visual(batch, encoded, luma))

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Of each task the main score when asked for it, what that gains, and the mean loss relative to without.

        Each frame has a sentence of its own, the same one at every validation. "selected" is one minus the mean score
        of the tasks, or the mean relative loss; "view" has no score.
        """
        assert isinstance(network, InstructionLearner)
        scores: dict[str, float] = {}
        for task, title in enumerate(self.titles):
            if task not in self._without:
                self._without[task] = self._seen(network, task, instructed=False)
            (score, loss), (open_score, open_loss) = self._seen(network, task, instructed=True), self._without[task]
            if self.intents[task] != VIEW:
                scores |= {title: score, f"{title}/gain": score - open_score}
            scores[f"{title}/loss"] = loss / max(open_loss, 1e-12)
        by_score = self.config.select == "score"
        chosen = [
            scores[title if by_score else f"{title}/loss"] for title in self.titles if not by_score or title in scores
        ]
        mean = sum(chosen) / len(chosen)
        return {"selected": 1 - mean if by_score else mean, **scores}

    def _seen(self, network: InstructionLearner, task: int, *, instructed: bool) -> tuple[float, float]:
        """Main score and mean loss of the validation frames of a task, when asked for it or without instruction."""
        kept: list[Any] = []
        losses: list[Tensor] = []
        for batch, instructions in self._validated(task):
            encoded = network.encode(batch.samples)
            luma = network(encoded, network.embed(instructions).to(self.device) if instructed else None)
            if self.intents[task] == VIEW:
                losses.append(self._losses(network, batch, encoded, luma))
                continue
            outputs = network.look(task, encoded, luma)
            losses.append(network.task_network(task).loss(outputs, batch.samples.targets, "none"))
            kept += scored(network.task_network(task), outputs, batch, len(kept))
        score = main_score(network.task_network(task), kept) if kept else 0.0
        return score, float(torch.cat(losses).mean())

    def _validated(self, task: int) -> Iterator[tuple[LoopBatch, list[Instruction]]]:
        """The validation frames of a task, and an instruction for each."""
        count = 0
        for batch in self._frames(task):
            numbers = range(count, count + len(batch.infrared))
            sentences = [self._sentence(self.intents[task], _VALIDATION, task, number) for number in numbers]
            count += len(sentences)
            yield batch, [self._instruction(sentence) for sentence in sentences]

    @torch.no_grad()
    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped, with the embedding of each intent."""
        assert isinstance(network, InstructionLearner)
        intents = list(dict.fromkeys(self.intents))
        write_instructed(
            path,
            network.fusion,
            network.conditioner,
            encoder=network.encoder.id,
            tasks=intents,
            vectors=network.embed([{intent: 1.0} for intent in intents]),
            description=description,
            overwrite=True,
        )


def _visual(batch: LoopBatch, encoded: Encoded, luma: Tensor) -> Tensor:
    """The visual loss of each image, (B,)."""
    return _each(visual_loss, batch, encoded, luma)


def _view_losses(weights: Mapping[str, float], batch: LoopBatch, encoded: Encoded, luma: Tensor) -> Tensor:
    """The weighted sum of loss terms of each image, (B,)."""
    terms = [weight * _each(LOSSES[name], batch, encoded, luma) for name, weight in weights.items()]
    return torch.stack(terms).sum(dim=0)


def _each(loss: Loss, batch: LoopBatch, encoded: Encoded, luma: Tensor) -> Tensor:
    """A loss of images, one by one, (B,)."""
    images = luma, batch.infrared.float() / 255, encoded.ycbcr[:, :1]
    with full_precision(luma):
        return torch.stack([loss(*(image[index : index + 1] for image in images)) for index in range(len(luma))])


def first_encoder(config: InstructionConfig) -> InstructionEncoder | None:
    """The text encoder of a training, frozen; None where tasks have vectors of their own.

    Raises:
        WeightsError: It cannot be read.
    """
    if config.encoder == TASKS:
        return None
    path = find_encoder(config.encoder) if config.encoder in ENCODERS else Path(config.encoder)
    if path.is_dir():
        encoder = load_encoder_folder(path)
        return CachedEncoder(encoder.requires_grad_(False).eval())
    try:
        return CachedEncoder(read_encoder(path).requires_grad_(False))
    except WeightsError as error:
        raise WeightsError(
            f"encoder: {error}; train one with `fuseloop train encoder` and give its weight file, or set "
            f"encoder={TASKS}, which reads no text"
        ) from error


def first_conditioner(config: InstructionConfig, depth: int, encoder: InstructionEncoder) -> InstructionConditioner:
    """The conditioner that a training begins with; its random weights depend on the seed alone.

    With vectors of tasks, those to begin with are taken over too.

    Raises:
        ConfigurationError: An option is unknown or impossible, or the weights to begin with are of another shape or
            encoder.
        WeightsError: They cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            conditioner = InstructionConditioner(depth, embedding=encoder.dim, **config.conditioner)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"conditioner: {error}") from error
    if config.start is not None:
        begun = read_instructed(find_instructed(config.start))
        if begun.encoder != encoder.id:
            raise ConfigurationError(f"start: {config.start} was trained with {begun.encoder}, not with {encoder.id}")
        try:
            conditioner.load_state_dict(begun.conditioner.state_dict())
        except RuntimeError as error:
            raise ConfigurationError(
                f"start: {config.start} has depth {begun.conditioner.depth} and places "
                f"{', '.join(begun.conditioner.places)}; the training is of another shape"
            ) from error
        if isinstance(encoder, TaskIdEncoder) and begun.vectors is not None:
            encoder.vectors.data.copy_(begun.vectors)
    freeze(conditioner, config.frozen)
    return conditioner
