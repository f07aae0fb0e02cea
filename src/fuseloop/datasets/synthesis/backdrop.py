"""What stands behind and beside the road: sky, skyline, facades, trees."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fuseloop.datasets.synthesis.canvas import Mark, heat, limb, nearness, pack, paint, quad
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.noise import texture
from fuseloop.datasets.synthesis.stage import Stage

WALLS: list[RGB] = [
    (176, 164, 148), (150, 92, 72), (188, 184, 178), (120, 108, 96), (205, 190, 160),
    (96, 100, 108), (140, 120, 100), (222, 218, 210), (165, 130, 105), (84, 78, 74),
]  # fmt: skip
LEAVES: list[RGB] = [(62, 92, 40), (48, 78, 36), (84, 110, 48), (110, 118, 52), (40, 64, 38), (150, 122, 44)]
LIT: list[RGB] = [(255, 236, 190), (255, 214, 140), (226, 240, 255), (255, 250, 226)]
NIGHT_GLOWS: list[RGB] = [(150, 126, 104), (80, 104, 150), (196, 150, 92), (52, 58, 74)]


BRIGHTNESS = np.linspace(0, 1.5, 256)[:, None]


class Wall(NamedTuple):
    """A vertical plane from (x0, z0) to (x1, z1) on the ground."""

    x0: float
    z0: float
    x1: float
    z1: float


def draw_sky(stage: Stage) -> None:
    """Fills everything above the horizon; the infrared sky is coldest at the zenith, and clouds are warmer."""
    canvas, camera, conditions, rng = stage
    rows = int(np.clip(np.ceil(camera.horizon) + 2, 1, canvas.height))
    down = (np.arange(rows, dtype=np.float32) / max(camera.horizon, 1))[:, None]
    clouds = texture(rng, rows, canvas.width, canvas.width / 100)
    clouds = cv2.blur(clouds, (canvas.width // 60 | 1, canvas.width // 90 | 1)) + np.float32(rng.uniform(-1.2, 0.8))
    clouds = np.clip(clouds, 0, 1) * np.minimum(1, 0.4 + down)
    if conditions.night:
        top, low, cloud, curve = (30.0, 40.0, 74.0), stage.pick(NIGHT_GLOWS), (170.0, 170.0, 180.0), down**3
        clouds *= 0.3
    else:
        top, low = (96.0, 146.0, 214.0) if conditions.sunny else (186.0, 194.0, 204.0), (214.0, 226.0, 240.0)
        cloud, curve = (248.0, 248.0, 250.0), down**1.5
    clear = [high + (deep - high) * curve for high, deep in zip(top, low, strict=True)]
    planes = [shade + (white - shade) * clouds for shade, white in zip(clear, cloud, strict=True)]
    air, zenith = heat(conditions.air), heat(conditions.sky)
    planes.append(zenith + (air - zenith) * (0.75 * down**2.5 + 0.3 * clouds))
    sky = cv2.merge([plane.astype(np.uint8) for plane in planes])
    canvas.flood(slice(0, rows), sky, np.array(Mark(0, 0, 0, glow=17 if conditions.night else 255)))


def draw_skyline(stage: Stage) -> None:
    """Draws far towers along the horizon."""
    canvas, camera, conditions, rng = stage
    z, unit = rng.uniform(120, 220), canvas.width / 320
    haze = 0.0 if conditions.night else 0.45
    r, g, b = (channel * (1 - haze) + 205 * haze for channel in stage.pick(WALLS))
    mark = Mark(0, 0, nearness(z))
    column = -rng.uniform(0, 30) * unit
    while column < canvas.width:
        across, up = rng.uniform(12, 46) * unit, rng.uniform(4, 34) * unit
        if stage.chance(0.65):
            top, light, temperature = camera.horizon - up, rng.uniform(0.7, 1.1), conditions.wall + rng.uniform(-3, 1)
            outline = quad(column, top, column + across, camera.horizon + 2)
            canvas.fill(outline, paint((r, g, b), temperature, light), mark)
            step = max(2.5, 3.2 * unit)
            grid = np.meshgrid(
                np.arange(column + step * 0.6, column + across - step * 0.6, step),
                np.arange(top + step * 0.6, camera.horizon - step * 0.5, step),
            )
            corners = np.stack(grid, axis=2).reshape(-1, 1, 2) + quad(0, 0, step * 0.45, step * 0.35)
            windows = corners[rng.random(len(corners)) < (0.25 if conditions.night else 0.8)]
            if conditions.night:
                canvas.fill_all(windows, paint(stage.pick(LIT), temperature + 2), mark._replace(glow=90))
            else:
                canvas.fill_all(windows, paint((r, g, b), temperature + 1, light * 0.75))
        column += across + rng.uniform(-4, 14) * unit


def draw_treeline(stage: Stage, z: float, light: float) -> None:
    """Draws a ragged wall of trees across the whole view at a depth."""
    canvas, camera, _, rng = stage
    scale, rise = camera.focal / z, rng.uniform(4, 13)
    base, top = camera.at(0, 0, z)[1], camera.at(0, rise, z)[1]
    ridge = texture(rng, 1, canvas.width, max(1.0, scale / 3))
    ridge = cv2.blur(ridge, (max(3, int(2.5 * scale)), 1))[0] * (0.2 * rise * scale)
    first, last = int(max(0, top - 0.6 * rise * scale)), int(np.clip(base + 1, 0, canvas.height))
    if last <= first:
        return
    rows = np.arange(first, last, dtype=np.float32)[:, None]
    leaves = texture(rng, last - first, canvas.width, max(0.5, scale / 9))
    inside = rows - (top + ridge) > leaves * (0.08 * rise * scale)
    up = np.clip((base - rows) / max(base - top, 1), 0, 1).astype(np.float32, copy=False)
    _stamp(stage, first, 0, inside, stage.pick(LEAVES), light * (0.45 + 0.45 * up), leaves, z)


def draw_crown(
    stage: Stage, centre: tuple[float, float], radii: tuple[float, float], z: float, colour: RGB, leaf: float
) -> None:
    """Draws a clump of leaves with ragged edges and gaps.

    Args:
        stage: The scene.
        centre: Column and row.
        radii: Across and down, in pixels.
        z: Depth in metres.
        colour: Leaves in full light.
        leaf: Zoom of the texture (see `texture`).
    """
    canvas = stage.canvas
    (column, row), (across, down) = centre, radii
    left, top = int(max(0, column - 1.35 * across)), int(max(0, row - 1.35 * down))
    right, bottom = int(min(canvas.width, column + 1.35 * across + 1)), int(min(canvas.height, row + 1.35 * down + 1))
    if right <= left or bottom <= top:
        return
    leaves = texture(stage.rng, bottom - top, right - left, leaf)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - row) / down
    x = (np.arange(left, right, dtype=np.float32) - column) / across
    inside = x * x + y * y + 0.33 * leaves < 0.9
    _stamp(stage, top, left, inside, colour, 0.72 - 0.28 * y, leaves, z)


def _stamp(
    stage: Stage,
    top: int,
    left: int,
    inside: NDArray[np.bool_],
    colour: RGB,
    light: NDArray[np.float32],
    leaves: NDArray[np.float32],
    z: float,
) -> None:
    """Puts textured foliage where a mask says; bright clumps are turned to the sky and so are cooler."""
    r, g, b = colour
    darkest = heat(stage.conditions.foliage) + 6
    palette = pack((BRIGHTNESS * (r, g, b, -8) + (0, 0, 0, darkest)).clip(0, 255))
    bright = np.clip(light * 170 + leaves * 51, 20, 255).astype(np.uint8)
    stage.canvas.stamp(top, left, inside, palette[bright], Mark(0, 0, nearness(z)))


def draw_tree(stage: Stage, x: float, z: float, tall: float, light: float) -> None:
    """Draws a trunk, some branches and a crown of several clumps."""
    canvas, camera, conditions, rng = stage
    scale = camera.focal / z
    column, foot = camera.at(x, 0, z)
    bark = paint(stage.pick([(74, 60, 48), (92, 80, 66), (58, 52, 48)]), conditions.foliage + 0.5, light)
    fork = (column + rng.normal(0, 0.06) * tall * scale, foot - tall * rng.uniform(0.3, 0.45) * scale)
    girth = tall * rng.uniform(0.018, 0.035) * scale
    mark = Mark(0, 0, nearness(z))
    canvas.fill(limb((column, foot), fork, girth, girth * 0.75), bark, mark)
    top, spread = foot - tall * scale, tall * rng.uniform(0.22, 0.4) * scale
    clumps = [
        (fork[0] + rng.uniform(-0.8, 0.8) * spread, top + rng.uniform(0.15, 0.55) * (fork[1] - top))
        for _ in range(rng.integers(2, 5) if spread > 0.04 * canvas.height else 1)
    ]
    for tip in clumps:
        canvas.fill(limb(fork, tip, girth * 0.6, girth * 0.2), bark, mark)
    r, g, b = (channel * light for channel in stage.pick(LEAVES))
    for tip in clumps:
        size = spread * rng.uniform(0.6, 1.0)
        draw_crown(stage, tip, (size, size * rng.uniform(0.6, 0.95)), z, (r, g, b), max(0.4, scale / 40))


def draw_hedge(stage: Stage, wall: Wall, rise: float, light: float) -> None:
    """Draws a row of bushes along a line, far to near."""
    camera, rng = stage.camera, stage.rng
    r, g, b = (channel * light for channel in stage.pick(LEAVES[:5]))
    count = int(np.clip(np.hypot(wall.x1 - wall.x0, wall.z1 - wall.z0) / rise / 3, 3, 7))
    for share in np.linspace(1, 0, count) ** 1.6:
        x, z = wall.x0 + (wall.x1 - wall.x0) * share, wall.z0 + (wall.z1 - wall.z0) * share
        scale = camera.focal / z
        radii = (rise * rng.uniform(1.6, 2.8) * scale, rise * rng.uniform(0.55, 0.75) * scale)
        draw_crown(stage, camera.at(x, rise * 0.4, z), radii, z, (r, g, b), max(0.4, scale / 50))


def draw_facade(stage: Stage, wall: Wall, tall: float, colour: RGB, light: float) -> None:
    """Draws one vertical wall with storeys of windows."""
    canvas, camera, conditions, rng = stage
    x0, z0, x1, z1 = wall
    length = float(np.hypot(x1 - x0, z1 - z0))
    mark = Mark(0, 0, nearness((z0 + z1) / 2))
    warm = conditions.wall + rng.uniform(-1.5, 1.5) + (5 * (light - 0.8) if conditions.sunny else 0)

    storey, bay, base = rng.uniform(2.9, 3.8), rng.uniform(2.4, 4.5), rng.uniform(0.7, 1.2)
    broad, rise = rng.uniform(0.35, 0.75), rng.uniform(1.2, 2.0)
    bays, storeys = max(1, int(length / bay)), max(1, int(tall / storey))
    door, width = rng.uniform(0.2, 0.8), min(0.15, rng.uniform(0.6, 2.5) / length)
    # Left, right, low and high of every panel: shares of the length, and metres.
    edges = np.zeros((1 + storeys + storeys * bays, 4))
    edges[0] = (door - width, door + width, 0, 2.5)
    floors = np.arange(storeys) * storey
    edges[1 : storeys + 1] = (0, 1, 0, 0)
    edges[1 : storeys + 1, 2] = floors - 0.12
    edges[1 : storeys + 1, 3] = floors + 0.15
    edges[1, 2:] = (0, tall)  # the first is the whole face, for there is no trim at the foot
    window = edges[storeys + 1 :].reshape(storeys, bays, 4)
    window[..., 0] = (np.arange(bays) + 0.5 - broad / 2) / bays
    window[..., 1] = window[..., 0] + broad / bays
    window[..., 2] = floors[:, None] + base
    window[..., 3] = np.minimum(window[..., 2] + rise, tall - 0.2)
    corners = np.empty((len(edges), 4, 3))
    share = edges[:, [0, 1, 1, 0]]
    corners[..., 0], corners[..., 2] = x0 + share * (x1 - x0), z0 + share * (z1 - z0)
    corners[..., 1] = edges[:, [3, 3, 2, 2]]
    panels = camera.project(corners)
    entrance, face, trims, windows = panels[:1], panels[1:2], panels[2 : storeys + 1], panels[storeys + 1 :]

    canvas.fill_all(face, paint(colour, warm, light), mark)
    if stage.chance(0.6):
        canvas.fill_all(trims, paint(colour, warm - 0.5, light * rng.uniform(0.75, 1.2)))
    at_work = np.where(rng.random(storeys) < 0.3, 0.7, 0.12).repeat(bays)  # on some floors nearly all windows are lit
    lit = (rng.random(storeys * bays) < at_work) & conditions.night
    glass: RGB = (46, 54, 62) if conditions.night or stage.chance(0.6) else (120, 140, 158)
    mirror = 0.45 * conditions.sky + 0.55 * conditions.wall  # a pane shows the cold sky to the thermal camera
    canvas.fill_all(windows[~lit], paint(glass, warm - 1.5 if stage.chance(0.4) else max(mirror, warm - 8), light))
    shine = mark._replace(glow=int(rng.integers(90, 256)))
    canvas.fill_all(windows[lit], paint(stage.pick(LIT), warm + rng.uniform(0, 4)), shine)
    if stage.chance(0.5):  # a door or a shop front
        if conditions.night and stage.chance(0.6):
            canvas.fill_all(entrance, paint(stage.pick(LIT), warm + 5), mark._replace(glow=255))
        else:
            canvas.fill_all(entrance, paint((60, 54, 50), warm + 1, light))


def draw_building(stage: Stage, front: Wall, side: Wall | None, tall: float, light: float) -> None:
    """Draws the wall along the road, and the one that faces the camera when it can be seen."""
    conditions = stage.conditions
    colour = stage.pick(WALLS)
    faces_sun = (front.x0 < 0) == (conditions.sun_side > 0)
    if side is not None:
        draw_facade(stage, side, tall, colour, 0.85 * light)
    draw_facade(stage, front, tall, colour, light * ((1.05 if faces_sun else 0.6) if conditions.sunny else 0.9))
