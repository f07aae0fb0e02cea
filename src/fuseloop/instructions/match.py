"""What was understood of an instruction."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fuseloop.errors import ConfigurationError
from fuseloop.instructions.intents import INTENTS


class NotUnderstood(UserWarning):
    """An instruction was not understood, so that nothing is asked of the image."""


@dataclass(frozen=True)
class InstructionMatch:
    """What was understood of an instruction.

    Attributes:
        mixture: Share of each intent that is asked for, largest first; they add up to one, or there are none.
        confidence: How sure that is, from 0 to 1; below one half nothing is understood.
        matched_terms: The words that are known from instructions, as they were written, in lower case.
        attributes: What it says of the scene: strengths above 0 and up to 1, by the names of `ATTRIBUTES`.
        language: Name of the language, empty where there is none.
        reason: Why nothing is understood; empty where something is.
    """

    mixture: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.0
    matched_terms: tuple[str, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)
    language: str = ""
    reason: str = ""

    @property
    def understood(self) -> bool:
        """Whether anything is asked of the image."""
        return bool(self.mixture)

    @property
    def intent(self) -> str:
        """The largest share of the mixture; empty where nothing is understood."""
        return max(self.mixture, key=lambda name: self.mixture[name], default="")

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**asdict(self), "matched_terms": list(self.matched_terms), "understood": self.understood}


def check_mixture(mixture: Mapping[str, float]) -> dict[str, float]:
    """The shares of a mixture that a user gave, so that they add up to one; those of nothing are left out.

    >>> check_mixture({"detection": 7, "view": 3})
    {'detection': 0.7, 'view': 0.3}

    Args:
        mixture: Weights of intents by name, at least 0.

    Raises:
        ConfigurationError: A name is unknown, a weight is no number or negative, or none is above 0.
    """
    for name, weight in mixture.items():
        if name not in INTENTS:
            near = difflib.get_close_matches(str(name), INTENTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(f"unknown intent {name!r} in a mixture; {hint}Known are {', '.join(INTENTS)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigurationError(f"the weight of {name} in a mixture is a number from 0 up, got {weight!r}")
    total = sum(mixture.values())
    if not 0 < total < math.inf:
        raise ConfigurationError(f"a mixture has at least one weight above 0, got {dict(mixture)}")
    shares = sorted(((name, weight / total) for name, weight in mixture.items() if weight), key=lambda one: -one[1])
    return dict(shares)
