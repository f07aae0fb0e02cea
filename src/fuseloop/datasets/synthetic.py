"""Labelled synthetic scenes: aligned infrared-visible pairs of roads by day and night, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scene:
    """One aligned pair with its labels.

    Attributes:
        visible: H×W×3 uint8 RGB.
        infrared: H×W uint8.
        boxes: N×4 float32, absolute (x1, y1, x2, y2), around the visible part of every object.
        box_classes: N int64: 0 person, 1 bicycle, 2 car.
        segmentation: H×W uint8, ids of the MSRS kit (`SEGMENTATION_NAMES`).
        saliency: H×W uint8, 255 on cars, persons and bikes, else 0.
        night: Whether the scene is at night.
    """

    visible: NDArray[np.uint8]
    infrared: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    box_classes: NDArray[np.int64]
    segmentation: NDArray[np.uint8]
    saliency: NDArray[np.uint8]
    night: bool


def scene_seed(seed: int, index: int) -> int:
    """The seed of frame `index` of a set: independent of its neighbours and of the length of the set."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def generate(seed: int, height: int = 240, width: int = 320) -> Scene:
    """Draws one scene; the same arguments give the same bits."""
    rng = np.random.default_rng(seed)
    return Scene(
        visible=rng.integers(0, 256, (height, width, 3), np.uint8),
        infrared=rng.integers(0, 256, (height, width), np.uint8),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int64),
        segmentation=np.zeros((height, width), np.uint8),
        saliency=np.zeros((height, width), np.uint8),
        night=False,
    )
