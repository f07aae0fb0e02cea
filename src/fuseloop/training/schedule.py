"""Stages and learning rates as pure functions of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from fuseloop.training.config import AnyStage

Kind = TypeVar("Kind", bound=AnyStage)


class Schedule(Generic[Kind]):
    """The stages of a recipe in order.

    Attributes:
        steps: Steps of all stages.
    """

    def __init__(self, stages: Sequence[Kind]) -> None:
        self._stages = stages
        self._ends = list(accumulate(stage.steps for stage in stages))
        self.steps = self._ends[-1]

    def at(self, step: int) -> tuple[Kind, int]:
        """The stage of a step and the step's number within it."""
        index = bisect_right(self._ends, step)
        stage = self._stages[index]
        return stage, step - (self._ends[index] - stage.steps)


def learning_rate(stage: AnyStage, step: int) -> float:
    """The learning rate of a stage's step, counted from 0: a linear warm-up, then constant or half a cosine."""
    if step < stage.warmup:
        return stage.lr * (step + 1) / stage.warmup
    if stage.schedule == "constant":
        return stage.lr
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.lr_end + (stage.lr - stage.lr_end) * (1 + math.cos(math.pi * done)) / 2
