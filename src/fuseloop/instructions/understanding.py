"""The shipped encoder, and what it understands of an instruction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from fuseloop.instructions.encoder import Instruction
from fuseloop.instructions.hashed import HashedEncoder
from fuseloop.instructions.match import InstructionMatch, check_mixture
from fuseloop.instructions.weights import read_encoder
from fuseloop.weights.files import FOLDER, SUFFIX

ENCODERS = {"instructions": "the text encoder of instructions, in English, German, Spanish and Chinese"}
"""Shipped text encoders, and what each is for."""


def understand(instruction: Instruction, encoder: HashedEncoder | None = None) -> InstructionMatch:
    """What is understood of an instruction.

    Args:
        instruction: A text, shares of intents by their names, or None.
        encoder: What reads it, by default the shipped encoder.

    Returns:
        What it asks for; of a mixture, that with full confidence.

    Raises:
        ConfigurationError: It is neither, or the mixture has an unknown name or a weight that is none.
    """
    if instruction is None:
        return InstructionMatch(reason="it is empty")
    if isinstance(instruction, Mapping):
        return InstructionMatch(check_mixture(instruction), 1.0)
    return (encoder or shipped_encoder()).understand([instruction])[0]


@cache
def shipped_encoder() -> HashedEncoder:
    """The encoder that works after installation; read once."""
    return read_encoder(find_encoder("instructions"))


def find_encoder(name: str) -> Path:
    """The weight file of a shipped text encoder."""
    return FOLDER / f"{name}{SUFFIX}"
