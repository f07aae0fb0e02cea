"""Labelled pairs changed at random: both images and all labels alike, so that they stay aligned.

Every function is pure. What is drawn comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.labelled import LabelledPair

Pixels = NDArray[np.uint8]

SEEN = 0.25
"""A box of which a smaller share is left is dropped."""

SHORTEST = 2
"""So is one with a side of fewer pixels."""


def mirror(pair: LabelledPair) -> LabelledPair:
    """Left and right exchanged."""
    flipped = _on_images(pair, lambda image, _: np.ascontiguousarray(image[:, ::-1]))
    if pair.boxes is None:
        return flipped
    boxes = pair.boxes.copy()
    boxes[:, [0, 2]] = pair.infrared.shape[1] - pair.boxes[:, [2, 0]]
    return replace(flipped, boxes=boxes)


def cut(
    pair: LabelledPair, top: int, left: int, height: int, width: int, *, out_height: int, out_width: int
) -> LabelledPair:
    """A part of a pair, resized. Boxes are clipped to it, and dropped when little is left of them.

    Args:
        pair: The pair.
        top: First row of the part.
        left: First column.
        height: Rows of the part; it lies within the pair.
        width: Columns.
        out_height: Rows of the result.
        out_width: Columns of the result.
    """
    shrinks = out_height * out_width < height * width

    def resize(image: Pixels, smooth: bool) -> Pixels:
        method = cv2.INTER_NEAREST_EXACT if not smooth else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        part = image[top : top + height, left : left + width]
        return np.asarray(cv2.resize(part, (out_width, out_height), interpolation=method))

    resized = _on_images(pair, resize)
    if pair.boxes is None or pair.classes is None:
        return resized
    scale = np.array([out_width / width, out_height / height] * 2, np.float32)
    whole = (pair.boxes - np.array([left, top] * 2, np.float32)) * scale
    boxes = whole.clip(0, np.array([out_width, out_height] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    stays = (sides.prod(axis=1) >= SEEN * (whole[:, 2:] - whole[:, :2]).prod(axis=1)) & (sides >= SHORTEST).all(axis=1)
    return replace(resized, boxes=boxes[stays], classes=pair.classes[stays])


def zoom(
    pair: LabelledPair,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scales: tuple[float, float] = (0.6, 1.6),
    on: tuple[int, int] | None = None,
) -> LabelledPair:
    """A random part of a pair at a random scale.

    Args:
        pair: The pair.
        height: Rows of the result.
        width: Columns of the result.
        rng: Draws scale and place.
        scales: Least and greatest magnification. A pair that cannot fill the result is magnified until it does.
        on: Row and column of a pixel of the pair that the part shows; anywhere by default.
    """
    rows, columns = pair.infrared.shape
    scale = max(float(np.exp(rng.uniform(*np.log(scales)))), height / rows, width / columns)
    part_height, part_width = min(max(1, round(height / scale)), rows), min(max(1, round(width / scale)), columns)
    row, column = on if on else (None, None)
    top, left = _start(rows, part_height, row, rng), _start(columns, part_width, column, rng)
    return cut(pair, top, left, part_height, part_width, out_height=height, out_width=width)


def _start(length: int, part: int, shown: int | None, rng: np.random.Generator) -> int:
    """Where a part of a length begins, so that it shows one place of it."""
    first, last = (0, length - part) if shown is None else (max(0, shown - part + 1), min(shown, length - part))
    return int(rng.integers(first, last + 1))


def mosaic(
    pairs: Sequence[LabelledPair],
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scales: tuple[float, float] = (0.5, 1.2),
) -> LabelledPair:
    """Parts of four pairs around a random point in the middle half.

    Args:
        pairs: Four; a label that one of them lacks is lost.
        height: Rows of the result.
        width: Columns of the result.
        rng: Draws the point, and scale and place of each part.
        scales: As in `zoom`.
    """
    if len(pairs) != 4:
        raise ValueError(f"a mosaic is of 4 pairs, got {len(pairs)}")
    top, left = round(height * rng.uniform(0.25, 0.75)), round(width * rng.uniform(0.25, 0.75))
    shapes = [(rows, columns) for rows in (top, height - top) for columns in (left, width - left)]
    parts = [zoom(pair, *shape, rng, scales=scales) for pair, shape in zip(pairs, shapes, strict=True)]
    return _beside(_beside(parts[0], parts[1], axis=1), _beside(parts[2], parts[3], axis=1), axis=0)


def brighten(pair: LabelledPair, strength: float, rng: np.random.Generator) -> LabelledPair:
    """Gamma, contrast and brightness of both images changed by up to `strength`, of each by its own draw."""
    infrared, visible = (_curve(strength, rng)[image] for image in (pair.infrared, pair.visible))
    return replace(pair, infrared=infrared, visible=visible)


def _curve(strength: float, rng: np.random.Generator) -> Pixels:
    """The grey level that each of the 256 becomes."""
    gamma, contrast, brightness = rng.uniform(-strength, strength, 3)
    unit = (np.linspace(0, 1, 256) ** np.exp(gamma) - 0.5) * (1 + contrast) + 0.5 + brightness / 2
    levels: Pixels = np.round(255 * unit.clip(0, 1)).astype(np.uint8)
    return levels


def _on_images(pair: LabelledPair, change: Callable[[Pixels, bool], Pixels]) -> LabelledPair:
    """Applies `change(image, smooth)` to all that has pixels; ids and masks must not be smoothed."""
    return replace(
        pair,
        infrared=change(pair.infrared, True),
        visible=change(pair.visible, True),
        segmentation=None if pair.segmentation is None else change(pair.segmentation, False),
        saliency=None if pair.saliency is None else change(pair.saliency, False),
        edges=None if pair.edges is None else change(pair.edges, False),
    )


def _beside(first: LabelledPair, second: LabelledPair, *, axis: int) -> LabelledPair:
    """Two pairs as one: the second below (axis 0) or to the right (axis 1)."""
    shift = np.zeros(4, np.float32)
    shift[1 - axis :: 2] = first.infrared.shape[axis]
    moved = second if second.boxes is None else replace(second, boxes=second.boxes + shift)

    def join(name: str, axis: int) -> Any:
        parts = [getattr(pair, name) for pair in (first, moved)]
        return None if any(part is None for part in parts) else np.concatenate(parts, axis=axis)

    images = {name: join(name, axis) for name in ("infrared", "visible", "segmentation", "saliency", "edges")}
    return LabelledPair(**images, boxes=join("boxes", 0), classes=join("classes", 0))
