"""Encoders: from instructions to the vectors that a fusion network is conditioned on.

Every encoder gives one vector for a text. The vector of the neutral instruction, `None` or an empty text, is zero, and
that of a mixture is the mean of the vectors of its intents, weighted by their shares: the names of the intents are
instructions themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.intents import INTENTS
from fuseloop.instructions.match import check_mixture

Instruction = str | Mapping[str, float] | None
"""A text, the shares of a mixture by the names of `INTENTS`, or None for the neutral instruction."""


@runtime_checkable
class InstructionEncoder(Protocol):
    """Makes vectors of texts.

    Attributes:
        id: What tells it from all other encoders, so that its vectors can be kept.
        dim: Length d of the vectors.
    """

    @property
    def id(self) -> str:
        """What tells it from all other encoders."""
        ...

    @property
    def dim(self) -> int:
        """Length d of the vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vector of each text, N×d float32; zero for an empty text and for one that is not understood."""
        ...


def embed(encoder: InstructionEncoder, instructions: Sequence[Instruction]) -> Tensor:
    """The vectors of instructions, N×d.

    Args:
        encoder: What makes vectors of texts.
        instructions: Texts, mixtures, or None for the neutral instruction, in any order.

    Raises:
        ConfigurationError: A mixture is none, or an instruction is something else.
    """
    if isinstance(instructions, str | Mapping):
        raise ConfigurationError("instructions come as a list, one for each image; put a single one into brackets")
    shares = [_shares(instruction) for instruction in instructions]
    texts = list(dict.fromkeys(text for one in shares for text in one))
    if not texts:
        return torch.zeros(len(shares), encoder.dim)
    vectors = encoder.encode(texts)
    matrix = vectors.new_tensor([[one.get(text, 0.0) for text in texts] for one in shares])
    return matrix @ vectors


def _shares(instruction: Instruction) -> dict[str, float]:
    """The texts that an instruction consists of, and the share of each."""
    if instruction is None:
        return {}
    if isinstance(instruction, str):
        return {instruction: 1.0} if instruction.strip() else {}
    if isinstance(instruction, Mapping):
        return check_mixture(instruction)
    raise ConfigurationError(
        f"an instruction is a text, a mixture such as {{'detection': 0.7, 'view': 0.3}}, or None, got {instruction!r}"
    )


class TaskIdEncoder(nn.Module):
    """A learned vector for each named task: what text has to be compared with.

    It understands the names of the tasks alone. The vectors begin with a length of about one, and learn with the fusion
    network.

    Args:
        dim: Length of the vectors.
        names: The tasks.
        seed: Of the first vectors.
    """

    def __init__(self, dim: int = 64, names: Sequence[str] = tuple(INTENTS), seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        drawn = torch.randn(len(self.names), dim, generator=torch.Generator().manual_seed(seed))
        self.vectors = nn.Parameter(drawn / dim**0.5)

    @property
    def id(self) -> str:
        """Its kind and the tasks that it knows."""
        return f"task-id:{','.join(self.names)}"

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vector of each task, N×d.

        Raises:
            ConfigurationError: A text is not the name of a task.
        """
        for text in texts:
            if text and text not in self.names:
                raise ConfigurationError(f"this encoder knows the tasks {', '.join(self.names)} alone, got {text!r}")
        known = self.vectors.new_tensor([[float(text == name) for name in self.names] for text in texts])
        return known.view(len(texts), len(self.names)) @ self.vectors


class CachedEncoder:
    """An encoder that makes the vector of each text once; no gradient goes through it.

    Args:
        encoder: What makes the vectors.
        size: How many are kept; those used longest ago go first.
        vectors: Where they are kept, by the `id` of the encoder and the text; several encoders may share it.
    """

    def __init__(
        self,
        encoder: InstructionEncoder,
        size: int = 4096,
        vectors: OrderedDict[tuple[str, str], Tensor] | None = None,
    ) -> None:
        self.encoder = encoder
        self.vectors = OrderedDict[tuple[str, str], Tensor]() if vectors is None else vectors
        self._size = size

    @property
    def id(self) -> str:
        """That of the encoder."""
        return self.encoder.id

    @property
    def dim(self) -> int:
        """That of the encoder."""
        return self.encoder.dim

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vector of each text, N×d."""
        new = [text for text in dict.fromkeys(texts) if (self.id, text) not in self.vectors]
        made = dict(zip(new, self.encoder.encode(new), strict=True)) if new else {}
        rows = [made[text] if text in made else self.vectors[self.id, text] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            self.vectors[self.id, text] = row
            self.vectors.move_to_end((self.id, text))
        while len(self.vectors) > self._size:
            self.vectors.popitem(last=False)
        return torch.stack(rows) if rows else torch.zeros(0, self.dim)
