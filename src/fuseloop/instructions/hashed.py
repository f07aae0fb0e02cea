"""The text encoder that is trained here: hashed words and letters, a small network, and an explicit "none of these".

What was understood decides the vector, so that a vector says no more than `fuseloop explain` shows: the directions in
which the heads look, weighted by the mixture and the attributes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.features import LONGEST, Unit, features, normal_form, units
from fuseloop.instructions.intents import ATTRIBUTES, INTENTS, LANGUAGES
from fuseloop.instructions.match import InstructionMatch, NotUnderstood
from fuseloop.instructions.spelling import Spelling

LEAST_SHARE = 0.15
"""Smaller shares of a mixture are taken for noise."""

LEAST_ATTRIBUTE = 0.1
"""Where the head finds an attribute less probable, a word for it means something else."""

ATTRIBUTE_LENGTH = 0.5
"""Length of the vector of an attribute relative to that of an intent."""

UNKNOWN_WORTH = 0.55
"""What the confidence is multiplied with where no word is known; above one quarter of known words, it stays."""


class Said(NamedTuple):
    """What the heads say of N texts, before any softmax.

    Attributes:
        purpose: Of the intents, and of none of these, N×5.
        attributes: Of the attributes, N×5.
        language: Of the languages, N×4.
    """

    purpose: Tensor
    attributes: Tensor
    language: Tensor


class HashedEncoder(nn.Module):
    """Reads instructions: which intents are asked for, which attributes are mentioned, or that nothing is understood.

    A mean of the vectors of the features, in which every feature has a learned weight, goes through a layer of `hidden`
    units and is normalised; linear heads say what it means.

    Args:
        terms: Words that are frequent in instructions and rare elsewhere.
        function_words: Words that do not count when it is asked how many words are known.
        other_words: Further words that are right as they are; what is none of these may be a term with a typing error.
        attribute_words: Words that tell of each attribute; the head has the last word.
        buckets: How many vectors the features share.
        width: Length of these.
        hidden: Units of the layer.
        dim: Length of what the heads look at, and of the vectors of instructions.

    Attributes:
        id: What tells it from other encoders; that of trained weights has their checksum.
    """

    def __init__(
        self,
        terms: Iterable[str] = (),
        function_words: Iterable[str] = (),
        other_words: Iterable[str] = (),
        attribute_words: Mapping[str, Iterable[str]] | None = None,
        *,
        buckets: int = 16384,
        width: int = 64,
        hidden: int = 128,
        dim: int = 64,
    ) -> None:
        super().__init__()
        self.id = "hashed"
        self.terms = frozenset(terms)
        self.function_words = frozenset(function_words)
        self.other_words = frozenset(other_words)
        self.attribute_words = {name: frozenset((attribute_words or {}).get(name, ())) for name in ATTRIBUTES}
        self.options = {"buckets": buckets, "width": width, "hidden": hidden, "dim": dim}
        self._spelling = Spelling(
            self.terms.union(*self.attribute_words.values()), self.function_words | self.other_words
        )
        self.bag = nn.EmbeddingBag(buckets, width, mode="sum", include_last_offset=True)
        nn.init.normal_(self.bag.weight, std=0.3)
        self.importance = nn.Parameter(torch.zeros(buckets))
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, dim), nn.LayerNorm(dim)
        )
        self.purpose = nn.Linear(dim, len(INTENTS) + 1)
        self.attributes = nn.Linear(dim, len(ATTRIBUTES))
        self.language = nn.Linear(dim, len(LANGUAGES))

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.options["dim"]

    def forward(self, numbers: Tensor, offsets: Tensor) -> Said:
        """What the heads say of texts.

        Args:
            numbers: Buckets of the features of all texts.
            offsets: Where each text begins among them, and where the last one ends, N+1.
        """
        counts = offsets.diff()
        sentence = torch.repeat_interleave(torch.arange(len(counts), device=numbers.device), counts)
        weights = self.importance[numbers].exp()
        totals = weights.new_zeros(len(counts)).index_add(0, sentence, weights)
        read = self.layers(self.bag(numbers, offsets, per_sample_weights=weights / totals[sentence]))
        return Said(self.purpose(read), self.attributes(read), self.language(read))

    def numbers(self, texts: Sequence[Sequence[Unit]]) -> tuple[Tensor, Tensor]:
        """What `forward` takes, of the words of texts."""
        each = [features([unit.text for unit in text], self.options["buckets"]) for text in texts]
        device = self.bag.weight.device
        offsets = torch.tensor([0, *map(len, each)], dtype=torch.long, device=device).cumsum(0)
        return torch.tensor([one for numbers in each for one in numbers], dtype=torch.long, device=device), offsets

    @torch.no_grad()
    def understand(self, texts: Sequence[str]) -> list[InstructionMatch]:
        """What is understood of each text.

        Raises:
            ConfigurationError: One is no text.
        """
        for text in texts:
            if not isinstance(text, str):
                raise ConfigurationError(f"an instruction is a text, got {text!r}")
        forms = [normal_form(text[: LONGEST + 1]) for text in texts]
        words = [self._spelling.mend(units(form)) for form in forms]
        said = self(*self.numbers(words))
        purposes, attributes = said.purpose.softmax(1).tolist(), said.attributes.sigmoid().tolist()
        languages = said.language.argmax(1).tolist()
        return [
            self._match(text, form, read, purpose, attribute, LANGUAGES[language])
            for text, form, read, purpose, attribute, language in zip(
                texts, forms, words, purposes, attributes, languages, strict=True
            )
        ]

    def _match(
        self,
        text: str,
        form: str,
        words: Sequence[Unit],
        purpose: list[float],
        attributes: list[float],
        language: str,
    ) -> InstructionMatch:
        """What the heads and the known words mean together."""
        if not words:
            return InstructionMatch(reason="it has no words" if text.strip() else "it is empty")
        if len(text) > LONGEST:
            return InstructionMatch(reason=f"it is longer than {LONGEST} characters")
        known = [unit.text in self.terms for unit in words]
        counted = [one for unit, one in zip(words, known, strict=True) if one or unit.text not in self.function_words]
        coverage = sum(counted) / len(counted) if counted else 0.0
        accepted = 1 - purpose[-1]
        confidence = accepted * (UNKNOWN_WORTH + (1 - UNKNOWN_WORTH) * min(1.0, 4 * coverage))
        terms = _merged(form, [unit for unit, one in zip(words, known, strict=True) if one])
        if confidence < 0.5:
            reason = "it asks for nothing that is known" if coverage else "none of its words are known"
            return InstructionMatch({}, confidence, terms, language=language, reason=reason)
        shares = {intent: share / accepted for intent, share in zip(INTENTS, purpose, strict=False)}
        largest = sorted(shares, key=lambda intent: -shares[intent])
        kept = {intent: shares[intent] for intent in largest if shares[intent] >= LEAST_SHARE}
        mixture = {intent: share / sum(kept.values()) for intent, share in kept.items()}
        read = {unit.text for unit in words}
        told = {
            name: 1.0
            for name, probability in zip(ATTRIBUTES, attributes, strict=True)
            if probability >= LEAST_ATTRIBUTE and not read.isdisjoint(self.attribute_words[name])
        }
        if set(mixture) == {"view"}:
            told.pop("people", None)  # people who look at an image are not people who matter in it
        return InstructionMatch(mixture, confidence, terms, told, language)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vector of each text, N×d; what is not understood gives zero and the warning `NotUnderstood`.

        Raises:
            ConfigurationError: One is no text.
        """
        matches = self.understand(texts)
        for text, match in zip(texts, matches, strict=True):
            if not match.understood and match.reason != "it is empty":
                shown = text if len(text) <= 80 else f"{text[:80]}…"
                warnings.warn(f"{shown!r} is not understood, so nothing is asked: {match.reason}", NotUnderstood, 2)
        return self.vectors(matches)

    @torch.no_grad()
    def vectors(self, matches: Sequence[InstructionMatch]) -> Tensor:
        """The vectors of what was understood, N×d; those of single intents have length one."""
        intents = self.purpose.weight[:-1]
        attributes = self.attributes.weight
        shares = intents.new_tensor([[match.mixture.get(name, 0.0) for name in INTENTS] for match in matches])
        said = intents.new_tensor([[match.attributes.get(name, 0.0) for name in ATTRIBUTES] for match in matches])
        of_attributes = said.view(-1, len(ATTRIBUTES)) @ F.normalize(attributes, dim=1)
        vectors: Tensor = shares.view(-1, len(INTENTS)) @ F.normalize(intents, dim=1) + ATTRIBUTE_LENGTH * of_attributes
        return vectors


def _merged(form: str, known: Sequence[Unit]) -> tuple[str, ...]:
    """The known words as they are written, each once; what overlaps, as Chinese pairs do, in one."""
    spans: list[list[int]] = []
    for unit in known:
        if spans and unit.start < spans[-1][1]:
            spans[-1][1] = unit.end
        else:
            spans.append([unit.start, unit.end])
    return tuple(dict.fromkeys(form[start:end] for start, end in spans))
