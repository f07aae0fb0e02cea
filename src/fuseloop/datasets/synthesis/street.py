"""The furniture of a street: lamps, signs, traffic lights, cones, car stops, guardrails, wires."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fuseloop.datasets.synthesis.canvas import Mark, Paint, Points, ellipse, limb, nearness, paint, quad
from fuseloop.datasets.synthesis.conditions import RGB
from fuseloop.datasets.synthesis.stage import Stage

CAR_STOP, GUARDRAIL, CONE = 5, 6, 7
CONES: list[RGB] = [(214, 74, 40), (206, 88, 44), (48, 110, 60), (40, 70, 150)]
LAMP_COLOURS: list[RGB] = [(1.0, 0.82, 0.5), (1.0, 0.97, 0.9), (0.85, 0.95, 1.0), (1.0, 0.7, 0.35), (0.85, 1.0, 0.85)]
SIGNALS: list[RGB] = [(1.0, 0.12, 0.1), (1.0, 0.7, 0.15), (0.2, 1.0, 0.55)]


class Lamp(NamedTuple):
    """A burning lamp, as the visible camera meets it.

    Attributes:
        column: Place in the image.
        row: Place in the image.
        z: Metres away.
        foot: Row of the ground below it; the same as `row` when it lights no ground.
        power: Brightness; 1 is a street lamp.
        colour: R, G, B; 1 is white.
    """

    column: float
    row: float
    z: float
    foot: float
    power: float
    colour: RGB


def _pole(stage: Stage, x: float, z: float, tall: float, girth: float, ink: Paint) -> Mark:
    """Draws an upright post and returns the mark of its depth."""
    camera, scale = stage.camera, stage.camera.focal / z
    mark = Mark(0, 0, nearness(z))
    outline = limb(camera.at(x, 0, z), camera.at(x, tall, z), girth * scale, 0.8 * girth * scale)
    stage.canvas.fill(outline, ink, mark)
    return mark


def draw_lamp(stage: Stage, x: float, z: float, colour: RGB, light: float) -> list[Lamp]:
    """Draws a street lamp that leans over the road, and returns it when it burns."""
    canvas, camera, conditions, rng = stage
    tall, reach, scale = rng.uniform(4.5, 8), (-1 if x > 0 else 1) * rng.uniform(0.3, 1.8), camera.focal / z
    iron = paint((96, 98, 100), conditions.air, light)
    mark = _pole(stage, x, z, tall, 0.07, iron)
    tip = camera.at(x + reach, tall + 0.2, z)
    canvas.fill(limb(camera.at(x, tall, z), tip, 0.04 * scale, 0.035 * scale), iron, mark)
    on = conditions.night and stage.chance(0.85)
    r, g, b = (255 * channel for channel in colour) if on else (150, 150, 150)
    bulb = paint((r, g, b), conditions.air + (rng.uniform(6, 24) if on else 0))
    canvas.fill(ellipse(*tip, 0.32 * scale, 0.13 * scale), bulb, mark._replace(glow=255 * on))
    return [Lamp(*tip, z, camera.at(x, 0, z)[1], rng.uniform(0.5, 1.4), colour)] if on else []


def draw_traffic_light(stage: Stage, x: float, z: float, light: float) -> list[Lamp]:
    """Draws a traffic light, and returns its burning lamp."""
    canvas, camera, conditions, rng = stage
    scale = camera.focal / z
    mark = _pole(stage, x, z, 4.2, 0.07, paint((60, 62, 64), conditions.air, light))
    column, row = camera.at(x, 3.7, z)
    box = quad(column - 0.18 * scale, row - 0.5 * scale, column + 0.18 * scale, row + 0.5 * scale)
    canvas.fill(box, paint((40, 42, 44), conditions.air + 1, light), mark)
    which = int(rng.integers(3))
    r, g, b = SIGNALS[which]
    row += (which - 1) * 0.3 * scale
    lens = paint((255 * r, 255 * g, 255 * b), conditions.air + 6)
    canvas.fill(ellipse(column, row, 0.12 * scale, 0.12 * scale), lens, mark._replace(glow=220))
    return [Lamp(column, row, z, row, 0.18, SIGNALS[which])]


def draw_sign(stage: Stage, x: float, z: float, light: float) -> None:
    """Draws a traffic sign or a board, whose face is plain only in the visible image."""
    canvas, camera, conditions, rng = stage
    scale, high, metal = camera.focal / z, rng.uniform(2.0, 2.8), conditions.air + rng.uniform(-1, 0.5)
    mark = _pole(stage, x, z, high, 0.035, paint((140, 142, 144), metal, light))
    column, row = camera.at(x, high, z)
    white, red, blue, dark = (
        paint(ink, metal, light) for ink in ((232, 232, 228), (186, 34, 36), (36, 82, 170), (30, 30, 60))
    )
    kind, size = rng.integers(4), 0.34 * scale
    if kind == 0:  # a speed limit
        canvas.fill(ellipse(column, row, size, size), red, mark)
        canvas.fill(ellipse(column, row, size * 0.72, size * 0.72), white)
        for side in (-0.27, 0.27):
            canvas.fill(ellipse(column + side * size, row, size * 0.17, size * 0.34), dark)
    elif kind == 1:  # a warning
        triangle = np.array([(0, -1), (1, 0.7), (-1, 0.7)]) * size
        canvas.fill(triangle + np.array((column, row)), red, mark)
        canvas.fill(triangle * 0.55 + np.array((column, row + size * 0.05)), white)
    elif kind == 2:  # a direction
        canvas.fill(ellipse(column, row, size, size), blue, mark)
        canvas.fill(limb((column - size * 0.5, row), (column + size * 0.5, row), size * 0.2, size * 0.12), white)
    else:  # a board with lines of text
        broad, rise = rng.uniform(0.4, 1.0) * scale, rng.uniform(0.3, 0.6) * scale
        face = stage.pick([(34.0, 84.0, 150.0), (30.0, 110.0, 70.0), (226.0, 224.0, 214.0)])
        canvas.fill(quad(column - broad, row - rise, column + broad, row + rise), paint(face, metal, light), mark)
        left = column - 0.85 * broad
        lines = [
            quad(left, y - 0.1 * rise, left + broad * rng.uniform(0.6, 1.6), y + 0.1 * rise)
            for y in row + rise * np.linspace(-0.6, 0.6, 4)
        ]
        canvas.fill_all(np.array(lines), dark if face[0] > 200 else white)


def draw_cone(stage: Stage, x: float, z: float, colour: RGB, light: float) -> None:
    """Draws a traffic cone, which is about as warm as the road."""
    canvas, camera, conditions, rng = stage
    mark = canvas.begin(CONE, z)
    cool, tall = conditions.road + rng.uniform(-1.2, 0.4), 0.72
    foot = [(x - 0.22, 0, z - 0.2), (x + 0.22, 0, z - 0.2), (x + 0.19, 0.05, z + 0.2), (x - 0.19, 0.05, z + 0.2)]
    canvas.fill(camera.project(np.array(foot)), paint(colour, cool, light * 0.7), mark)
    heights = (0.04, 0.3, 0.44, 0.56, 0.64, tall)
    for index, (low, high) in enumerate(pairwise(heights)):
        wide, slim = 0.16 * (1 - low / 0.82), 0.16 * (1 - high / 0.82)
        band = [camera.at(x + dx, y, z) for dx, y in ((-wide, low), (wide, low), (slim, high), (-slim, high))]
        canvas.fill(np.array(band), paint((236, 236, 230) if index % 2 else colour, cool, light), mark)
    canvas.end(mark)


def draw_car_stop(stage: Stage, x: float, z: float, kind: int, light: float) -> None:
    """Draws what keeps cars out: 0 a bollard, 1 a stone block, 2 a striped board."""
    canvas, camera, conditions, rng = stage
    mark = canvas.begin(CAR_STOP, z)
    cool = conditions.ground + rng.uniform(-1, 1)

    def front(left: float, low: float, right: float, high: float) -> Points:
        return np.array([camera.at(x + dx, y, z) for dx, y in ((left, low), (right, low), (right, high), (left, high))])

    if kind == 0:
        canvas.fill(front(-0.07, 0, 0.07, 0.8), paint((44, 44, 46), cool, light), mark)
        canvas.fill(front(-0.07, 0.6, 0.07, 0.7), paint((220, 190, 60), cool, light))
    elif kind == 1:
        top = [(x - 0.28, 0.55, z), (x + 0.28, 0.55, z), (x + 0.28, 0.55, z + 0.5), (x - 0.28, 0.55, z + 0.5)]
        canvas.fill(camera.project(np.array(top)), paint((172, 168, 160), cool + 0.7, light), mark)
        canvas.fill(front(-0.28, 0, 0.28, 0.55), paint((158, 154, 146), cool, light * 0.8), mark)
    else:
        legs = np.array([front(-0.62, 0, -0.57, 0.6), front(0.57, 0, 0.62, 0.6)])
        canvas.fill_all(legs, paint((60, 60, 60), cool, light), mark)
        canvas.fill(front(-0.75, 0.55, 0.75, 0.95), paint((30, 30, 32), cool, light), mark)
        stripes = [front(a, 0.55, a + 0.25, 0.95) for a in (-0.75, -0.25, 0.25)]
        canvas.fill_all(np.array(stripes), paint((214, 176, 44), cool, light))
    canvas.end(mark)


def draw_guardrail(stage: Stage, x: float, bend: float, start: float, stop: float, light: float) -> None:
    """Draws a guardrail along the road between two depths."""
    canvas, camera, conditions, rng = stage
    cool = conditions.air + rng.uniform(-1.5, 1)
    mark = canvas.begin(GUARDRAIL, (start * stop) ** 0.5)
    z = start * (stop / start) ** np.linspace(0, 1, 12)
    at = x + bend * z * z
    posts = [
        limb(camera.at(a, 0, d), camera.at(a, 0.75, d), 0.05 * camera.focal / d, 0.05 * camera.focal / d)
        for a, d in zip(at, z, strict=True)
    ]
    canvas.fill_all(np.array(posts), paint((120, 122, 124), cool, light), mark)
    shine = paint((188, 190, 192), cool, light * rng.uniform(0.7, 1))
    for low, high in ((0.22, 0.34), (0.5, 0.78)):
        lower = np.stack([at, np.full_like(z, low), z], axis=1)
        upper = np.stack([at, np.full_like(z, high), z], axis=1)[::-1]
        canvas.fill(camera.project(np.concatenate([lower, upper])), shine, mark)
    canvas.end(mark)


def draw_wires(stage: Stage, x: float, light: float) -> None:
    """Draws sagging wires along one side of the road."""
    z = np.linspace(5, 65, 25)
    for y in (6.2, 6.6, 7.4):
        height = y - 0.35 * np.sin(np.pi * (z - 5) / 20) ** 2
        wire = np.stack([np.full_like(z, x + stage.rng.uniform(-0.3, 0.3)), height, z], axis=1)
        stage.canvas.stroke(stage.camera.project(wire), 1, paint((40, 40, 42), stage.conditions.air, light))
