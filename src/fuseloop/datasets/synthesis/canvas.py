"""A camera, and a canvas that both of its sensors and the labels share.

Everything in a scene is painted once: a shape carries its colour for the visible camera, its temperature for the
infrared one, and what the labels should say, so the three cannot disagree.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
Paint: TypeAlias = tuple[float, float, float, float]
"""Reflectance R, G, B in [0, 255] and a temperature byte (see `heat`)."""

SUBPIXEL_BITS = 4
NEAREST = 0.7  # metres; what is nearer to the camera, or behind it, is drawn as if it were here
COLDEST, DEGREES = -25.0, 75.0  # degrees Celsius: the coldest temperature, and the range, that a byte can hold


def heat(celsius: float) -> float:
    """A temperature as the byte that the canvas stores."""
    return min(255.0, max(0.0, (celsius - COLDEST) * 255 / DEGREES))


def paint(rgb: tuple[float, float, float], celsius: float, light: float = 1.0) -> Paint:
    """A paint from a colour, a temperature, and the share of the light that falls on it."""
    r, g, b = (min(255.0, channel * light) for channel in rgb)
    return r, g, b, heat(celsius)


class Mark(NamedTuple):
    """What the labels say of a shape.

    Attributes:
        segmentation: Class id of the MSRS kit, 0 for none.
        instance: Number of the object in this scene, 0 for none.
        nearness: Depth as a byte (see `nearness`).
        glow: How strongly the shape shines by itself, in [0, 255].
    """

    segmentation: int
    instance: int
    nearness: int
    glow: int = 0


def nearness(z: float) -> int:
    """A depth in metres as a byte: 255 at the camera, 0 at infinity."""
    return round(255 / (1 + max(z, 0.0) / 15))


DEPTHS = 15 * (255 / np.maximum(np.arange(256), 0.25) - 1)
"""The depth in metres of every `nearness` byte; 0 means the sky."""


class Camera(NamedTuple):
    """A pinhole camera that looks along z, x to the right, y up from the ground, in metres.

    Attributes:
        focal: Focal length in pixels.
        centre: Column of the vanishing point.
        horizon: Row of the horizon.
        eye: Height of the camera above the ground.
    """

    focal: float
    centre: float
    horizon: float
    eye: float

    def project(self, points: Points) -> Points:
        """World points …×3 (x, y, z) to pixels …×2 (column, row)."""
        scale = self.focal / np.maximum(points[..., 2], NEAREST)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre + points[..., 0] * scale
        pixels[..., 1] = self.horizon + (self.eye - points[..., 1]) * scale
        return pixels

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """One world point to a pixel (column, row)."""
        scale = self.focal / max(z, NEAREST)
        return self.centre + x * scale, self.horizon + (self.eye - y) * scale


class Thing(NamedTuple):
    """An object on the canvas.

    Attributes:
        instance: Its number, which its pixels carry.
        box_class: Class id of its box, or none for what has no box.
        area: Pixels that it covered when it was drawn, before nearer things hid some of them.
        bounds: Rows and columns that it lies within.
    """

    instance: int
    box_class: int | None
    area: int
    bounds: tuple[slice, slice]


class Canvas:
    """Paint and labels of one scene, both H×W×4 uint8.

    Attributes:
        paint: R, G, B and temperature, anti-aliased.
        labels: Segmentation id, instance, nearness and glow, with hard edges.
        things: The objects drawn so far, in drawing order.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.paint: NDArray[np.uint8] = np.zeros((height, width, 4), np.uint8)
        self.labels: NDArray[np.uint8] = np.zeros((height, width, 4), np.uint8)
        self.things: list[Thing] = []
        self._extent: list[Points] = []

    def fill(self, outline: Points, paint: Paint, mark: Mark | None = None) -> None:
        """Fills a polygon N×2; a detail without a mark keeps the labels of what it lies on."""
        self.fill_all(outline[None], paint, mark)

    def fill_all(self, outlines: Points, paint: Paint, mark: Mark | None = None) -> None:
        """Fills polygons K×N×2 that do not overlap, all in one paint."""
        if not len(outlines):
            return
        polygons = list(fixed(outlines))
        cv2.fillPoly(self.paint, polygons, paint, cv2.LINE_AA, SUBPIXEL_BITS)
        if mark is not None:
            cv2.fillPoly(self.labels, polygons, mark, cv2.LINE_8, SUBPIXEL_BITS)
            self._extent.append(outlines.reshape(-1, 2))

    def flood(self, rows: slice, paint: NDArray[Any], marks: NDArray[Any]) -> None:
        """Fills whole rows with paints and marks, both …×4 that broadcast to rows×W×4."""
        self.paint.view(np.uint32)[rows, :, 0] = pack(paint)
        self.labels.view(np.uint32)[rows, :, 0] = pack(marks)

    def stamp(self, top: int, left: int, inside: NDArray[np.bool_], pixels: NDArray[np.uint32], mark: Mark) -> None:
        """Puts ready pixels, h×w packed paints (see `pack`), where a mask says, with its first pixel at a place."""
        region = (slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1]))
        np.copyto(self.paint.view(np.uint32)[..., 0][region], pixels, where=inside)
        np.copyto(self.labels.view(np.uint32)[..., 0][region], pack(np.array(mark)), where=inside)

    def claim(self, outline: Points, mark: Mark) -> None:
        """Labels a polygon without painting it."""
        cv2.fillPoly(self.labels, [fixed(outline)], mark, cv2.LINE_8, SUBPIXEL_BITS)
        self._extent.append(outline)

    def stroke(self, line: Points, width: float, paint: Paint, mark: Mark | None = None) -> None:
        """Draws an open line N×2 of a width in pixels, of at least one."""
        lines, thickness = [fixed(line)], max(1, round(width))
        cv2.polylines(self.paint, lines, False, paint, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        if mark is not None:
            cv2.polylines(self.labels, lines, False, mark, thickness, cv2.LINE_8, SUBPIXEL_BITS)
            self._extent.append(line)

    def begin(self, segmentation: int, z: float) -> Mark:
        """The mark of a new labelled object; draw all its parts with it, then call `end`."""
        self._extent = []
        return Mark(segmentation, len(self.things) + 1, nearness(z))

    def end(self, mark: Mark, box_class: int | None = None) -> None:
        """Notes how much of the image a finished object covers, before others hide it."""
        points = np.concatenate(self._extent)
        left, top = np.clip(np.floor(points.min(axis=0)) - 2, 0, None).astype(int)
        right, bottom = np.maximum(np.ceil(points.max(axis=0)) + 3, 0).astype(int)
        bounds = (slice(top, bottom), slice(left, right))
        area = int(np.count_nonzero(self.labels[bounds][..., 1] == mark.instance))
        self.things.append(Thing(mark.instance, box_class, area, bounds))


def pack(pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Values …×4 in [0, 255] as one number a pixel, which is faster to choose and to copy."""
    return np.ascontiguousarray(pixels.astype(np.uint8)).view(np.uint32)[..., 0]


def fixed(points: Points) -> NDArray[np.int32]:
    """Pixel coordinates in the fixed point that the drawing routines take."""
    return np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def quad(left: float, top: float, right: float, bottom: float) -> Points:
    """An upright rectangle as an outline."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _circle(sides: int) -> Points:
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


CIRCLE = _circle(14)
"""A circle of radius 1 as an outline."""


def ellipse(column: float, row: float, across: float, down: float) -> Points:
    """An upright ellipse as an outline, by its two radii."""
    outline: Points = CIRCLE * np.array((across, down)) + np.array((column, row))
    return outline


def limb(start: tuple[float, float], stop: tuple[float, float], thick: float, thin: float) -> Points:
    """A tapered bar between two points as an outline, by its half widths at both ends."""
    (x0, y0), (x1, y1) = start, stop
    length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6)
    ax, ay = (x1 - x0) / length, (y1 - y0) / length
    return np.array(
        [
            (x0 - ay * thick, y0 + ax * thick),
            (x0 - ax * thick * 0.6, y0 - ay * thick * 0.6),
            (x0 + ay * thick, y0 - ax * thick),
            (x1 + ay * thin, y1 - ax * thin),
            (x1 + ax * thin * 0.6, y1 + ay * thin * 0.6),
            (x1 - ay * thin, y1 + ax * thin),
        ]
    )
