"""The ground: pavement, road, markings, kerbs, bumps, and the shadows and warmth that lie on it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthesis.canvas import (
    DEGREES,
    SUBPIXEL_BITS,
    Camera,
    Mark,
    Points,
    fixed,
    heat,
    nearness,
    paint,
)
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.noise import SHEET, sheet
from fuseloop.datasets.synthesis.stage import Stage

CURVE, BUMP = 4, 8
GROUNDS: list[RGB] = [(128, 124, 118), (150, 140, 126), (104, 104, 104), (86, 104, 58), (120, 106, 84), (160, 156, 150)]


STRAIGHT, CURVED = np.linspace(0, 1, 2), np.linspace(0, 1, 10)  # where outlines along a road have their corners


class Road(NamedTuple):
    """A road along z that may bend.

    Attributes:
        left: x of its left edge at the camera.
        right: x of its right edge at the camera.
        bend: Sideways drift in metres per square metre of depth.
        start: Depth at which the ground enters the image.
        stop: Depth at which the road ends.
    """

    left: float
    right: float
    bend: float
    start: float
    stop: float

    @property
    def middle(self) -> float:
        """X of its middle at the camera."""
        return (self.left + self.right) / 2

    def x(self, across: float, z: float) -> float:
        """The x of a lane at a depth, by its place across the road at the camera."""
        return across + self.bend * z * z

    def strip(self, camera: Camera, left: float, right: float, start: float, stop: float) -> Points:
        """Outline in pixels of a strip along the road, by its sides at the camera and its ends."""
        near = max(start, self.start)
        z = near * (max(stop, near + 0.1) / near) ** (STRAIGHT if self.bend == 0 else CURVED)
        corners, count = np.zeros((2 * len(z), 3)), len(z)
        corners[:count, 0], corners[:count, 2] = left + self.bend * z * z, z
        corners[count:, 0], corners[count:, 2] = (right + self.bend * z * z)[::-1], z[::-1]
        return camera.project(corners)


def draw_ground(stage: Stage, road: Road) -> None:
    """Fills everything below the horizon with pavement or grass, and the road on it."""
    canvas, camera, conditions, rng = stage
    top = horizon_row(stage)
    depths = camera.focal * camera.eye / np.maximum(np.arange(top, canvas.height) - camera.horizon, 0.25)
    marks = np.zeros((len(depths), 1, 4))
    marks[:, 0, 2] = np.rint(255 / (1 + depths / 15))
    canvas.flood(slice(top, None), np.array(paint(stage.pick(GROUNDS), conditions.ground)), marks)
    grey = rng.uniform(58, 128)
    tone: RGB = (grey * rng.uniform(0.95, 1.03), grey, grey * rng.uniform(0.96, 1.07))
    canvas.fill(road.strip(camera, road.left, road.right, road.start, road.stop), paint(tone, conditions.road))
    for _ in range(rng.integers(0, 4)):  # repairs
        x, z = rng.uniform(road.left, road.right - 1), road.start * rng.uniform(1, 5)
        repair = road.strip(camera, x, min(road.right, x + rng.uniform(0.6, 3)), z, z + rng.uniform(1, 9))
        canvas.fill(repair, paint(tone, conditions.road + rng.uniform(-0.7, 0.7), rng.uniform(0.75, 1.15)))


def draw_markings(stage: Stage, road: Road) -> None:
    """Draws lane lines, crossings, arrows and manholes: plain in the visible image, faint or absent in infrared."""
    canvas, camera, conditions, rng = stage
    worn = rng.uniform(0.7, 1.05)
    white = paint((222, 220, 212), conditions.road - rng.uniform(0, 1.2), worn)
    yellow = paint((206, 160, 62), conditions.road - rng.uniform(0, 1.0), worn)
    if stage.chance(0.75):
        edge = yellow if stage.chance(0.4) else white
        for x in (road.left + 0.35, road.right - 0.5):
            if stage.chance(0.75):
                canvas.fill(road.strip(camera, x, x + 0.15, road.start, road.stop), edge)
    if stage.chance(0.7):
        ink, left, right = yellow if stage.chance(0.3) else white, road.middle - 0.08, road.middle + 0.08
        if stage.chance(0.7):
            period = rng.uniform(5, 10)
            starts = np.arange(road.start - rng.uniform(0, 0.5) * period, min(road.stop, 60), period)
            dashes = [road.strip(camera, left, right, z, z + 0.5 * period) for z in starts.tolist()]
            canvas.fill_all(np.array(dashes), ink)
        else:
            canvas.fill(road.strip(camera, left, right, road.start, road.stop), ink)
    if stage.chance(0.3):
        z, depth = rng.uniform(1.2, 5) * road.start, rng.uniform(2.5, 4)
        bars = np.arange(road.left + 0.5, road.right - 0.7, 0.95)
        canvas.fill_all(np.array([road.strip(camera, x, x + 0.5, z, z + depth) for x in bars.tolist()]), white)
        if stage.chance(0.7):
            canvas.fill(road.strip(camera, road.left + 0.3, road.middle, z - 1.6, z - 1.2), white)
    elif stage.chance(0.25):
        z = rng.uniform(1.2, 3) * road.start
        x = road.x((road.middle + road.right) / 2, z)
        arrow = np.array([(-0.1, 0), (0.1, 0), (0.1, 2), (0.4, 2), (0, 3.5), (-0.4, 2), (-0.1, 2)])
        canvas.fill(_flat(camera, arrow + np.array((x, z))), white)
    for _ in range(rng.integers(0, 3)):
        x, z, angle = rng.uniform(road.left, road.right), rng.uniform(1.1, 4) * road.start, np.arange(12) * np.pi / 6
        cover = _flat(camera, np.stack([x + 0.4 * np.cos(angle), z + 0.4 * np.sin(angle)], axis=1))
        canvas.fill(cover, paint((70, 68, 66), conditions.road + rng.uniform(-1.5, 2.5)))


def draw_kerbs(stage: Stage, road: Road) -> None:
    """Draws the raised edges of the road and labels them as curve, up to 35 metres."""
    canvas, camera, conditions, rng = stage
    stone = paint((172, 168, 160), conditions.ground + rng.uniform(-1.5, 1), rng.uniform(0.7, 1.1))
    reach = min(road.stop, 35.0)
    for x, outwards in ((road.left, -1), (road.right, 1)):
        if stage.chance(0.55):
            outline = road.strip(camera, x, x + outwards * 0.28, road.start, reach)
            count = len(outline) // 2
            # The outer side, listed last and from far to near, is the raised one.
            outline[count:, 1] -= (outline[count:, 1] - camera.horizon) * (0.14 / camera.eye)
            canvas.fill(outline, stone, Mark(CURVE, 0, nearness(12)))


def draw_bump(stage: Stage, road: Road) -> None:
    """Draws a striped speed bump across the road."""
    canvas, camera, conditions, rng = stage
    z = rng.uniform(1.4, 4) * road.start
    mark = canvas.begin(BUMP, z)
    inks = [paint((196, 164, 50), conditions.road - 0.5), paint((40, 38, 38), conditions.road + 0.5)]
    edges = road.x(0, z) + np.linspace(road.left + 0.3, road.right - 0.3, 10)
    for index, (x0, x1) in enumerate(pairwise(edges)):
        block = camera.project(np.array([(x0, 0, z), (x1, 0, z), (x1, 0.07, z + 0.3), (x0, 0.07, z + 0.3)]))
        canvas.fill(block, inks[index % 2], mark)
    canvas.end(mark)


class Shadows(NamedTuple):
    """Outlines in pixels of what lies in the dark on the ground.

    Attributes:
        houses: In full shade, and whatever stands there too.
        trees: In shade with holes, and whatever stands there too.
        things: In the shade of something small; what stands there rises out of it.
        contacts: Right under vehicles and people, dark in any light.
    """

    houses: list[Points]
    trees: list[Points]
    things: list[Points]
    contacts: list[Points]


def shade_ground(stage: Stage, shadows: Shadows) -> NDArray[np.float32]:
    """Gives the ground its texture and its shadows.

    Returns:
        The share of the light that reaches what stands at each pixel, H×W in [0, 1], and 1 above the horizon.
    """
    canvas, camera, conditions, rng = stage
    top = horizon_row(stage)
    shape = (canvas.height - top, canvas.width)
    ground, light = canvas.paint[top:], np.ones((canvas.height, canvas.width), np.float32)
    coarse, fine = _lay_texture(stage, shape, 0.06), _lay_texture(stage, shape, 0.011)
    soft = max(3, min(canvas.height, canvas.width) // 48 | 1)

    def dark(outlines: list[Points]) -> NDArray[np.uint8]:
        area = np.zeros(shape, np.uint8)
        for outline in outlines:
            cv2.fillPoly(area, [fixed(outline - (0, top))], 255, cv2.LINE_8, SUBPIXEL_BITS)
        return area

    under = cv2.blur(dark(shadows.contacts), (soft, soft)).astype(np.float32)
    lit = 1 - under * ((0.3 if conditions.sunny else 0.45) / 255)
    if conditions.sunny:
        holes = (coarse < rng.uniform(-0.3, 0.9)).view(np.uint8) * np.uint8(255)
        large = dark(shadows.houses) | dark(shadows.trees) & ~holes
        lit -= cv2.blur(large | dark(shadows.things), (3, 3)).astype(np.float32) * (0.62 / 255)
        light[top:] -= cv2.blur(large, (soft, soft)).astype(np.float32) * (0.62 / 255)
        np.maximum(lit, 0.12, out=lit)

    depths = camera.focal * camera.eye / (np.arange(shape[0], dtype=np.float32)[:, None] + 0.5)
    coarse *= np.clip(1 - depths / 45, 0, 1)  # far away a texture is finer than a pixel
    fine *= np.clip(1 - depths / 9, 0, 1)
    planes = [plane.astype(np.float32) for plane in cv2.split(ground)]
    reflected = lit * (1 + 0.08 * fine + 0.035 * coarse)
    for plane in planes[:3]:
        plane *= reflected
    planes[3] += (0.25 * fine + 0.22 * coarse - (1 - lit) * conditions.shade) * (255 / DEGREES)
    canvas.paint[top:] = cv2.merge([cv2.convertScaleAbs(np.maximum(plane, 0)) for plane in planes])
    return light


def warm_ground(stage: Stage, outline: Points, degrees: float) -> None:
    """Warms, or cools, the ground under an outline: below a hot engine, or where a car stood until now."""
    canvas = stage.canvas
    tall = float(np.ptp(outline[:, 1].clip(0, canvas.height)))
    margin = 0.4 * tall + 2
    left, top = np.floor(outline.min(axis=0) - margin).clip(0, (canvas.width, canvas.height)).astype(int)
    right, bottom = np.ceil(outline.max(axis=0) + margin).clip(0, (canvas.width, canvas.height)).astype(int)
    if right <= left or bottom <= top:
        return
    area = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(area, [fixed(outline - (left, top))], 255, cv2.LINE_8, SUBPIXEL_BITS)
    size = max(3, int(0.5 * tall) | 1)
    change = cv2.blur(cv2.blur(area, (size, size)), (size, size)).astype(np.float32) * ((heat(degrees) - heat(0)) / 255)
    warmth = canvas.paint[top:bottom, left:right, 3]
    warmth[...] = np.clip(warmth + change, 0, 255)


def horizon_row(stage: Stage) -> int:
    """The first row that shows ground."""
    return int(np.clip(np.ceil(stage.camera.horizon), 0, stage.canvas.height - 1))


def _flat(camera: Camera, corners: Points) -> Points:
    """Outline in pixels of a flat polygon by its corners (x, z)."""
    return camera.project(np.stack([corners[:, 0], np.zeros(len(corners)), corners[:, 1]], axis=1))


def _lay_texture(stage: Stage, shape: tuple[int, int], cell: float) -> NDArray[np.float32]:
    """The noise sheet on the ground as the camera sees it, with `cell` metres for one of its pixels; 0 beyond it."""
    camera, rng = stage.camera, stage.rng
    below = horizon_row(stage) + 0.25 - camera.horizon  # how far the first row lies under the horizon
    across, along = SHEET / 2, rng.uniform(0, 20)
    to_sheet = np.array(
        [
            [camera.eye / cell, across, below * across - camera.centre * camera.eye / cell],
            [0, along, camera.focal * camera.eye / cell + below * along],
            [0, 1, below],
        ]
    )
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpPerspective(sheet(), to_sheet, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
