"""Labelled synthetic scenes: aligned infrared-visible pairs of roads by day and night, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthesis.canvas import Canvas
from fuseloop.datasets.synthesis.conditions import sample_conditions
from fuseloop.datasets.synthesis.labels import label
from fuseloop.datasets.synthesis.layout import draw_scene, sample_camera, sample_smoke
from fuseloop.datasets.synthesis.sensors import see_infrared, see_visible
from fuseloop.datasets.synthesis.stage import Stage
from fuseloop.errors import ConfigurationError, ImageError
from fuseloop.pairs.atomic import written_aside
from fuseloop.pairs.images import Picture, write_image

SEGMENTATION_NAMES = (
    "unlabelled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
)  # fmt: skip
"""Names of the segmentation ids 0 to 8 of the MSRS kit."""

BOX_NAMES = ("person", "bicycle", "car")
"""Names of the box classes 0 to 2 of the MSRS kit."""

IMAGE_FOLDERS = ("vi", "ir", "Segmentation_labels", "saliency")
SALIENT = (1, 2, 3)
MINIMUM_SIDE = 32


@dataclass(frozen=True)
class Scene:
    """One aligned pair with its labels.

    Attributes:
        visible: H×W×3 uint8 RGB.
        infrared: H×W uint8.
        boxes: N×4 float32, absolute (x1, y1, x2, y2), tight around the visible part of every object.
        box_classes: N int64: 0 person, 1 bicycle, 2 car (`BOX_NAMES`).
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
    """The seed of frame `index` of a set: independent of its neighbours and of the length of the set.

    Raises:
        ConfigurationError: The seed of the set is negative.
    """
    if seed < 0:
        raise ConfigurationError(f"seed {seed} is negative; it must be at least 0")
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def generate(seed: int, height: int = 240, width: int = 320) -> Scene:
    """Draws one scene; the same arguments give the same bits on one machine, whatever was drawn before.

    Args:
        seed: Decides everything in the scene, at least 0.
        height: Rows, at least 32.
        width: Columns, at least 32.

    Raises:
        ConfigurationError: The seed or the size is too small.

    >>> scene = generate(7, height=120, width=160)
    >>> scene.visible.shape, scene.infrared.shape, scene.night
    ((120, 160, 3), (120, 160), False)
    """
    if min(height, width) < MINIMUM_SIDE:
        raise ConfigurationError(
            f"a scene of {width}x{height} pixels cannot be drawn: both sides must be at least {MINIMUM_SIDE}"
        )
    if seed < 0:
        raise ConfigurationError(f"seed {seed} is negative; it must be at least 0")
    rng = np.random.default_rng(seed)
    conditions = sample_conditions(rng)
    stage = Stage(Canvas(height, width), sample_camera(rng, height, width), conditions, rng)
    lamps, targets = draw_scene(stage)
    visible = see_visible(stage, lamps, sample_smoke(stage, targets))
    infrared = see_infrared(stage)
    boxes, classes = label(stage.canvas)
    segmentation = np.ascontiguousarray(stage.canvas.labels[..., 0])
    saliency = np.where(np.isin(segmentation, SALIENT), np.uint8(255), np.uint8(0))
    return Scene(visible, infrared, boxes, classes, segmentation, saliency, conditions.night)


def write_scenes(
    folder: str | PathLike[str],
    count: int,
    seed: int = 0,
    *,
    height: int = 240,
    width: int = 320,
    overwrite: bool = False,
) -> list[str]:
    """Writes scenes in the layout of the MSRS kit.

    `vi`, `ir`, `Segmentation_labels` and `saliency` hold PNG images, `labels` one text file a frame with a line
    `class cx cy w h` for every box, normalised to [0, 1]. Names are an index and `D` or `N` for day or night.

    Args:
        folder: Where the five folders are made.
        count: Number of frames. Frame `i` of a seed is the same whatever the count.
        seed: Seed of the set.
        height: Rows, at least 32.
        width: Columns, at least 32.
        overwrite: Replace files that exist.

    Returns:
        The stems of the frames.

    Raises:
        ConfigurationError: The seed or the size is too small.
        ImageError: A file exists and `overwrite` is not set, or cannot be written.
    """
    root = Path(folder)
    try:
        for part in (*IMAGE_FOLDERS, "labels"):
            (root / part).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ImageError(f"{root}: cannot be made a folder ({problem.strerror}); choose another") from problem
    stems = []
    for index in range(count):
        scene = generate(scene_seed(seed, index), height, width)
        stem = f"{index:05d}{'N' if scene.night else 'D'}"
        images = (scene.visible, scene.infrared, scene.segmentation, scene.saliency)
        for part, pixels in zip(IMAGE_FOLDERS, images, strict=True):
            write_image(root / part / f"{stem}.png", Picture(pixels), overwrite=overwrite)
        with written_aside(root / "labels" / f"{stem}.txt", overwrite=overwrite) as aside:
            aside.write_text(yolo_lines(scene))
        stems.append(stem)
    return stems


def yolo_lines(scene: Scene) -> str:
    """The boxes of a scene as lines `class cx cy w h`, normalised to [0, 1]."""
    height, width = scene.infrared.shape
    corners = scene.boxes / np.array([width, height, width, height])
    middles, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    rows = zip(scene.box_classes, np.concatenate([middles, sizes], axis=1), strict=True)
    return "".join(f"{box_class} {' '.join(f'{value:.6f}' for value in row)}\n" for box_class, row in rows)
