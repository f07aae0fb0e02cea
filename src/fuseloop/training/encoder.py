"""Training of the text encoder on sentences of the grammar: `fuseloop train encoder`.

Sentences are drawn anew in every step. The encoder learns which intents they ask for, that some ask for none, what they
say of the scene, and their language. Features are left out at random, so that it relies on no single word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from fuseloop.instructions.features import is_cjk, normal_form, units
from fuseloop.instructions.grammar import MISTYPED, Sentence, Sentences
from fuseloop.instructions.hashed import HashedEncoder, Said
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES
from fuseloop.instructions.weights import write_encoder
from fuseloop.training.config import EncoderConfig
from fuseloop.training.progress import say
from fuseloop.training.schedule import Schedule, learning_rate
from fuseloop.training.trainer import Forward, Result, Trainer, launch, leave

TRAINING, VALIDATION, COUNTING = range(3)
NO_LANGUAGE = -1


def train(config: EncoderConfig, *, console: Console | None = None) -> Result:
    """Trains the text encoder in the run folder of the configuration, or continues the run that is there.

    Args:
        config: What to do; `load_config(EncoderConfig, "instructions")` reads a preset.
        console: Where to show progress; standard output by default.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ConfigurationError: The run folder holds another run, or the device is not there.
        TrainingError: The training diverged; its last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written first.
    """
    console = console or Console()
    fabric = launch(config)
    recipe = EncoderRecipe(config, fabric.device)
    if fabric.is_global_zero:
        for line in recipe.describe():
            say(console, line)
    result = Trainer(config, fabric, recipe, console).run()
    leave(fabric)
    return result


@dataclass(frozen=True)
class SentenceBatch:
    """Sentences as numbers.

    Attributes:
        numbers: Buckets of the features of all sentences.
        offsets: Where each sentence begins among them, and where the last one ends, N+1.
        purpose: Shares of the intents, and of none of these, N×5.
        attributes: One where a sentence has an attribute, N×5.
        language: Number of the language, or `NO_LANGUAGE`, N.
    """

    numbers: Tensor
    offsets: Tensor
    purpose: Tensor
    attributes: Tensor
    language: Tensor

    @property
    def infrared(self) -> Tensor:
        """What the loop counts samples by; the other recipes have images there."""
        return self.purpose

    def to(self, device: torch.device) -> SentenceBatch:
        """The same sentences on another device."""
        return SentenceBatch(*(tensor.to(device) for tensor in vars(self).values()))


class EncoderRecipe:
    """The recipe of the text encoder.

    Args:
        config: Its settings.
        device: Where the encoder will be.
    """

    def __init__(self, config: EncoderConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._schedule = Schedule(config.stages)
        self.steps = self._schedule.steps
        self.weights: Mapping[str, float] = {"purpose": 1.0, "attributes": 0.5, "language": 0.2}
        self._sentences = Sentences()
        self.encoder = self._first_encoder()
        self._validation = [self._draw(VALIDATION, index, 0) for index in range(config.validation)]

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        return self.encoder

    def describe(self) -> list[str]:
        """The encoder and the stages, a line each."""
        count = sum(parameter.numel() for parameter in self.encoder.parameters())
        lines = [f"training a text encoder, {count:,} parameters, {len(self.encoder.terms)} terms"]
        for number, stage in enumerate(self.config.stages, 1):
            lines.append(f"stage {number}: {stage.steps} steps of {stage.batch} sentences, lr {stage.lr:g}")
        return lines

    def optimiser(self) -> Optimizer:
        """AdamW; only layers decay."""
        layers = [one for name, one in self.encoder.named_parameters() if one.ndim > 1 and not name.startswith("bag")]
        others = [one for name, one in self.encoder.named_parameters() if one.ndim <= 1 or name.startswith("bag")]
        groups = [{"params": layers, "weight_decay": self.config.decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups)

    def pairs_in(self, step: int) -> int:
        """Sentences of a step."""
        return self._schedule.at(step)[0].batch

    def prepare(self, step: int, optimiser: Optimizer) -> None:
        """Sets the learning rate."""
        stage, local = self._schedule.at(step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, local)

    def batches(self, step: int, slots: Iterable[int]) -> list[SentenceBatch]:
        """The sentences of some slots of a step; some of their features are left out."""
        wanted = list(slots)
        batch = self.batch([self._draw(TRAINING, step, slot) for slot in wanted])
        generator = torch.Generator().manual_seed(hash((self.config.seed, step, wanted[0])))
        return [drop(batch, self.config.dropout, generator)]

    def _draw(self, purpose: int, step: int, slot: int) -> Sentence:
        """The sentence of a slot of a step, made from the seed and these numbers alone."""
        number = ((self.config.seed * 3 + purpose) << 64) + (step << 32) + slot
        return self._sentences.draw(Random(number), MISTYPED if purpose != COUNTING else 0.0)

    def batch(self, sentences: Sequence[Sentence]) -> SentenceBatch:
        """Sentences as numbers."""
        numbers, offsets = self.encoder.numbers([units(normal_form(sentence.text)) for sentence in sentences])
        purpose = [[one.mixture.get(name, 0.0) for name in INTENTS] + [float(not one.mixture)] for one in sentences]
        attributes = [[float(name in one.attributes) for name in ATTRIBUTES] for one in sentences]
        language = [LANGUAGES.index(one.language) if one.language else NO_LANGUAGE for one in sentences]
        return SentenceBatch(
            numbers.cpu(),
            offsets.cpu(),
            torch.tensor(purpose),
            torch.tensor(attributes),
            torch.tensor(language),
        )

    def terms(self, forward: Forward, batch: SentenceBatch) -> dict[str, Tensor]:
        """The loss of each head, the mean over the sentences of the batch."""
        return self._losses(cast(Said, forward(batch.numbers, batch.offsets)), batch)

    def _losses(self, said: Said, batch: SentenceBatch) -> dict[str, Tensor]:
        smooth = (1 - self.config.smoothing) * batch.purpose + self.config.smoothing / batch.purpose.shape[1]
        return {
            "purpose": F.cross_entropy(said.purpose, smooth),
            "attributes": F.binary_cross_entropy_with_logits(said.attributes, batch.attributes),
            "language": F.cross_entropy(said.language, batch.language, ignore_index=NO_LANGUAGE),
        }

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Losses, and the share of sentences whose purpose, or that they have none, is mistaken; that chooses."""
        batch = self.batch(self._validation).to(self.device)
        said = network(batch.numbers, batch.offsets)
        losses = {name: float(loss) for name, loss in self._losses(said, batch).items()}
        largest = batch.purpose.gather(1, said.purpose.argmax(1, keepdim=True))[:, 0]
        mistaken = float((largest < batch.purpose.max(dim=1).values).float().mean())
        return {"selected": mistaken, "mistaken": mistaken, **losses}

    def save(self, path: Path, network: nn.Module, description: str) -> None:
        """Writes weights as they are shipped."""
        assert isinstance(network, HashedEncoder)
        write_encoder(path, network, description=description, overwrite=True)

    def _first_encoder(self) -> HashedEncoder:
        """The encoder that the training begins with; it depends on the seed alone."""
        words = {word for one in self._sentences.grammars.values() for word in one.function_words}
        plain_words = {unit.text for word in words for unit in units(normal_form(word))}
        drawn = (self._draw(COUNTING, index, 0) for index in range(self.config.counted))
        counted = list(drawn)
        terms = frequent_terms(counted, plain_words)
        said = {name: telling_words(counted, name, self._sentences.words(name) - plain_words) for name in ATTRIBUTES}
        others = {word for word in self._sentences.words() if not is_cjk(word) and word.isalpha()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return HashedEncoder(terms, plain_words, others, said, **self.config.encoder)


def frequent_terms(
    sentences: Iterable[Sentence], function_words: Iterable[str], *, least: int = 5, share: float = 0.7
) -> list[str]:
    """Words that are much more frequent in instructions than elsewhere.

    Args:
        sentences: Some thousand.
        function_words: Words that are not wanted.
        least: How often a word is to be seen in instructions.
        share: Least share of the instructions among the sentences that have it, were there as many of both.
    """
    asked: Counter[str] = Counter()
    other: Counter[str] = Counter()
    totals = [0, 0]
    for sentence in sentences:
        words = {unit.text for unit in units(normal_form(sentence.text))}
        (asked if sentence.mixture else other).update(words)
        totals[not sentence.mixture] += 1
    unwanted = set(function_words)

    def is_term(word: str, count: int) -> bool:
        rate, elsewhere = count / max(1, totals[0]), other[word] / max(1, totals[1])
        return count >= least and word not in unwanted and rate >= share * (rate + elsewhere)

    return sorted(word for word, count in asked.items() if is_term(word, count))


def telling_words(
    sentences: Iterable[Sentence], attribute: str, words: Iterable[str], *, least: int = 1, share: float = 0.3
) -> list[str]:
    """Those of some words that mostly stand in instructions with an attribute.

    Instructions to view are left out: people who look are not people who matter.
    """
    with_it: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for sentence in sentences:
        if sentence.mixture and "view" not in sentence.mixture:
            found = {unit.text for unit in units(normal_form(sentence.text))}
            seen.update(found)
            with_it.update(found if attribute in sentence.attributes else ())
    return sorted(word for word in set(words) if seen[word] >= least and with_it[word] >= share * seen[word])


def drop(batch: SentenceBatch, share: float, generator: torch.Generator) -> SentenceBatch:
    """The batch without a random share of its features; no sentence loses its last one."""
    kept = torch.rand(len(batch.numbers), generator=generator) >= share
    begins = batch.offsets[:-1][batch.offsets[:-1] < batch.offsets[1:]]
    kept[begins] = True
    counts = torch.cat([torch.zeros(1, dtype=torch.long), kept.long().cumsum(0)])
    return SentenceBatch(batch.numbers[kept], counts[batch.offsets], batch.purpose, batch.attributes, batch.language)
