"""Training batches as a pure function of (seed, step, slot).

No generator is carried from step to step: every slot of every batch has its own, made from those three numbers. So a
resumed run needs no random state, and any number of processes draw the same global batch between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuseloop.datasets.folders import LumaPair, Pairs
from fuseloop.training.config import Augmentation, Stage

Bytes = NDArray[np.uint8]
Unit = NDArray[np.float32]


class Batch(NamedTuple):
    """Pairs of one size: two B×1×H×W float32 in [0, 1]."""

    infrared: Tensor
    luma: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same pairs on another device."""
        return Batch(self.infrared.to(device), self.luma.to(device))


class Sampler:
    """Draws training pairs from several sources.

    Args:
        sources: The data sets.
        weights: Share of each in a batch, relative to the others.
        seed: Seed of all draws.
    """

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float], seed: int) -> None:
        self._sources = sources
        self._shares = np.asarray(weights) / np.sum(weights)
        self._seed = seed

    def batch(self, stage: Stage, step: int, slots: Iterable[int], purpose: int = 0) -> list[Batch]:
        """The pairs of some slots of a step.

        Args:
            stage: Says crop and augmentation.
            step: Number of the step, from 0 over all stages.
            slots: Positions in the global batch.
            purpose: Tells apart batches that are drawn at the same step for another purpose.

        Returns:
            One batch for each size among the pairs, in order of first appearance; crops have one size.
        """
        groups: dict[tuple[int, ...], list[tuple[Unit, Unit]]] = {}
        for slot in slots:
            infrared, luma = self._pair(stage, np.random.default_rng([self._seed, purpose, step, slot]))
            groups.setdefault(infrared.shape, []).append((infrared, luma))
        return [Batch(*map(_stack, zip(*group, strict=True))) for group in groups.values()]

    def _pair(self, stage: Stage, rng: np.random.Generator) -> tuple[Unit, Unit]:
        source = self._sources[rng.choice(len(self._sources), p=self._shares)]
        pair: Sequence[Bytes] = source[int(rng.integers(len(source)))]
        if isinstance(stage.crop, int):
            pair = random_crop(pair, stage.crop, rng)
        pair = turn(pair, stage.augmentation, rng)
        infrared, luma = (jitter(image, stage.augmentation.jitter, rng) for image in pair)
        if stage.augmentation.fade > 0:
            infrared, luma = (fade(image, stage.augmentation.fade, rng) for image in (infrared, luma))
        return infrared, luma


def whole_frame(pair: LumaPair) -> Batch:
    """A pair as a batch of one."""
    return Batch(*(_stack([to_unit(image)]) for image in pair))


def random_crop(pair: Sequence[Bytes], side: int, rng: np.random.Generator) -> Sequence[Bytes]:
    """The same square of every image of a pair; smaller images are continued by reflection first."""
    height, width = pair[0].shape
    if min(height, width) < side:
        below, right = max(0, side - height), max(0, side - width)
        pair = [np.pad(image, ((0, below), (0, right)), mode="reflect") for image in pair]
        height, width = pair[0].shape
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return [image[top : top + side, left : left + side] for image in pair]


def turn(pair: Sequence[Bytes], augmentation: Augmentation, rng: np.random.Generator) -> Sequence[Bytes]:
    """Mirrors and turns all images of a pair alike."""
    if augmentation.flip and (axis := int(rng.integers(3))) < 2:
        pair = [np.flip(image, axis) for image in pair]
    if augmentation.rotate:
        quarters = int(rng.integers(4))
        pair = [np.rot90(image, quarters) for image in pair]
    return pair


def jitter(image: Bytes, strength: float, rng: np.random.Generator) -> Unit:
    """An image in [0, 1], its gamma, contrast and brightness changed by up to `strength`."""
    unit = to_unit(image)
    if strength == 0:
        return unit
    gamma, contrast, brightness = rng.uniform(-strength, strength, 3).astype(np.float32)
    changed: Unit = (unit ** np.exp(gamma) - 0.5) * (1 + contrast) + 0.5 + brightness / 2
    return changed.clip(0, 1)


def fade(image: Unit, share: float, rng: np.random.Generator) -> Unit:
    """An image in [0, 1], in the given share of cases with its contrast about the mean lowered, at most to 1/20."""
    if rng.random() >= share:
        return image
    mean, contrast = image.mean(), np.float32(rng.uniform(0.05, 1))
    faded: Unit = mean + contrast * (image - mean)
    return faded


def to_unit(image: Bytes) -> Unit:
    """uint8 to float32 in [0, 1]."""
    unit: Unit = image.astype(np.float32) / np.float32(255)
    return unit


def _stack(images: Sequence[Unit]) -> Tensor:
    return torch.from_numpy(np.stack(images)[:, None])
