"""What every drawing routine of a scene needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from fuseloop.datasets.synthesis.canvas import Camera, Canvas
from fuseloop.datasets.synthesis.conditions import Conditions

T = TypeVar("T")


class Stage(NamedTuple):
    """One scene in the making.

    Attributes:
        canvas: What is drawn on.
        camera: Who looks.
        conditions: Hour, weather and temperatures.
        rng: Source of all choices.
    """

    canvas: Canvas
    camera: Camera
    conditions: Conditions
    rng: np.random.Generator

    def chance(self, share: float) -> bool:
        """True in a share of the cases."""
        return bool(self.rng.random() < share)

    def pick(self, choices: Sequence[T]) -> T:
        """One of several, all equally likely."""
        return choices[int(self.rng.integers(len(choices)))]

    def draw(self, shares: Mapping[T, float]) -> T:
        """One of several by their shares, which add up to 1."""
        left = float(self.rng.random())
        for choice, share in shares.items():
            left -= share
            if left < 0:
                return choice
        return choice
